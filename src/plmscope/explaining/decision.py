"""What is explained: the log-odds of one class for one protein.

::

    F(x) = z_y - logsumexp of the other logits        in a multi-label task z_y itself

``y`` is the class that is asked for, or the one that the model finds likeliest. No label is needed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from scipy.special import expit

from plmscope.data.proteins import Protein
from plmscope.errors import InputError
from plmscope.evaluation.interventions import class_log_odds
from plmscope.models.classifier import Batch, Classifier
from plmscope.models.network import Network
from plmscope.scoring.targets import TARGETS, Target


@dataclass(frozen=True)
class Decision:
    """One protein and the class whose log-odds are explained.

    Attributes:
        classifier: The model.
        network: The same as a function of its parts, from :func:`~plmscope.models.hooked.network_of`.
        protein: Its label plays no part.
        label: Number of the class.
        odds: ``(C,)`` natural log-odds of every class.
    """

    classifier: Classifier
    network: Network
    protein: Protein
    label: int
    odds: np.ndarray

    @classmethod
    def of(cls, classifier: Classifier, network: Network, protein: Protein, label: str | int | None = None) -> Decision:
        """Let the model decide.

        Args:
            classifier: The model.
            network: The same in parts.
            protein: Any that the model can read.
            label: The class to explain; ``None``: the likeliest.

        Raises:
            InputError: the model does not know the class, or a residue has no token.
        """
        with torch.no_grad():
            hidden, context = network.embed(classifier.batch([protein]))
            logits = network.above(0, hidden, context).double().cpu().numpy()
        odds = class_log_odds(logits, classifier.task)[0]
        number = int(odds.argmax()) if label is None else number_of(classifier, label)
        return cls(classifier, network, protein, number, odds)

    @property
    def name(self) -> str:
        """The class that is explained."""
        return self.classifier.labels[self.label]

    @property
    def probabilities(self) -> np.ndarray:
        """``(C,)``; they sum to 1 in a single-label task."""
        probability: np.ndarray = expit(self.odds)
        return probability

    @property
    def decided(self) -> tuple[str, ...]:
        """What the model says: the likeliest class, or in a multi-label task every likely one."""
        classes = self.odds > 0 if self.classifier.task == "multi" else np.arange(len(self.odds)) == self.odds.argmax()
        return tuple(name for name, yes in zip(self.classifier.labels, classes, strict=True) if yes)

    @property
    def value(self) -> float:
        """F(x)."""
        return float(self.odds[self.label])

    @property
    def target(self) -> Target:
        """F as a function of logits and class numbers."""
        return TARGETS[self.classifier.task]["log_odds"]

    @cached_property
    def batch(self) -> Batch:
        """The tokens of the protein, a batch of one."""
        return self.classifier.batch([self.protein])

    def classes(self, n: int) -> torch.Tensor:
        """The class number for ``n`` copies, ``(n,)``."""
        return torch.full((n,), self.label, device=self.classifier.device)


def number_of(classifier: Classifier, label: str | int, named: Sequence[str] = ()) -> int:
    """The number of a class.

    Args:
        classifier: The model.
        label: The class.
        named: All classes as the refusal names them; empty: by their labels alone.

    Raises:
        InputError: the model does not know it.
    """
    if str(label) not in classifier.labels:
        raise InputError(
            f"class {str(label)!r} is not among those of the model: {', '.join(named or classifier.labels)}"
        )
    return classifier.labels.index(str(label))
