"""A model on a worker: sent to it once, loaded once, used by all tasks that follow.

Processes read the saved model from the run folder. On a Ray cluster its files travel through the object store, so that
no common disk is needed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from plmscope.models.classifier import Classifier
from plmscope.models.loading import load_model
from plmscope.tasks.crew import Crew
from plmscope.tasks.sent import Sent


@dataclass(frozen=True)
class Supplies:
    """What all tasks of a list need.

    Attributes:
        model: Of the saved classifier.
        device: Of the worker.
        dtype: Of the worker.
        more: What else: proteins, constants, settings.
    """

    model: Sent
    device: str
    dtype: str
    more: Mapping[str, Any] = field(default_factory=dict, repr=False)

    def __getitem__(self, name: str) -> Any:
        return self.more[name]

    @property
    def classifier(self) -> Classifier:
        """The model, loaded once in a process; one that was loaded before goes."""
        name = f"{self.model.name} {self.device} {self.dtype}"
        if name not in _LOADED:
            _LOADED.clear()
            with self.model.there() as folder:
                _LOADED[name] = load_model(folder, device=self.device, dtype=self.dtype)
        return _LOADED[name]


#: The model that this process has loaded, and what it was loaded from.
_LOADED: dict[str, Classifier] = {}


def supplies(crew: Crew, **more: Any) -> dict[str, Supplies]:
    """What the workers of a crew are sent: the keyword ``supplies`` of their tasks' functions.

    Raises:
        ValueError: the crew has no model.
    """
    if crew.model is None:
        raise ValueError("a crew without a model has no workers to send it to")
    return {"supplies": Supplies(crew.sent(crew.model), crew.device, crew.dtype, more)}
