"""What a score explains: one number for a protein and its class, usually the log-odds of the true class.

``log_odds = log p - log(1 - p)`` does not saturate where the probability does. In a multi-label task a protein has one
number for every class of its own, one after the other.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from plmscope.data.labels import LabelTask, cases
from plmscope.data.proteins import Protein
from plmscope.errors import InputError, SelectionError
from plmscope.models.classifier import Classifier


def log_odds(logits: torch.Tensor, classes: torch.Tensor) -> torch.Tensor:
    """``z_y - logsumexp of the others``: ``(B, C), (B,) -> (B,)``; unchanged by a shift of all logits.

    In float32 whatever the model's precision, as all targets.
    """
    logits = logits.float()
    true = logits.gather(1, classes.unsqueeze(1)).squeeze(1)
    others = logits.scatter(1, classes.unsqueeze(1), float("-inf"))
    return true - others.logsumexp(1)


def _logit(logits: torch.Tensor, classes: torch.Tensor) -> torch.Tensor:
    """``z_y``."""
    return logits.float().gather(1, classes.unsqueeze(1)).squeeze(1)


def _log_probability(logits: torch.Tensor, classes: torch.Tensor) -> torch.Tensor:
    """``log p_y``; saturates where the model is sure."""
    return _logit(logits.float().log_softmax(1), classes)


def _log_sigmoid(logits: torch.Tensor, classes: torch.Tensor) -> torch.Tensor:
    """``log p_y`` where every class has a probability of its own."""
    return torch.nn.functional.logsigmoid(_logit(logits, classes))


Target = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


#: With one sigmoid per class the log-odds ``log(p_y / (1 - p_y))`` are the logit itself.
TARGETS: dict[LabelTask, dict[str, Target]] = {
    "single": {"log_odds": log_odds, "logit": _logit, "log_probability": _log_probability},
    "multi": {"log_odds": _logit, "logit": _logit, "log_probability": _log_sigmoid},
}


@dataclass(frozen=True)
class Request:
    """What a scorer that differentiates a target works on: one row per protein and class that it has.

    Attributes:
        proteins: ``Q``, each as often as it has classes.
        classes: ``(Q,)`` the class that is explained.
        target: ``(B, C)`` logits and ``(B,)`` classes to ``(B,)`` values.
        groups: ``Q`` groups for bootstraps, or ``None``.
    """

    proteins: list[Protein]
    classes: np.ndarray
    target: Target
    groups: list[str] | None

    @property
    def ids(self) -> list[str]:
        """``Q`` protein ids."""
        return [protein.id for protein in self.proteins]


def request(
    classifier: Classifier, proteins: Sequence[Protein], target: str, groups: Sequence[str] | None = None
) -> Request:
    """The cases of some proteins: in a multi-label task every class that a protein has is explained by itself.

    Raises:
        InputError: there are no proteins, or a label is unknown.
        SelectionError: the target is not one of :data:`TARGETS`.
    """
    if not proteins:
        raise InputError("no proteins to score; the split left none, or the list is empty")
    known = TARGETS[classifier.task]
    if target not in known:
        raise SelectionError(f"target {target!r} is not known; choose one of {', '.join(known)}")
    owners, classes = cases(classifier.membership(proteins))
    names = None if groups is None else [groups[row] for row in owners]
    return Request([proteins[row] for row in owners], classes, known[target], names)
