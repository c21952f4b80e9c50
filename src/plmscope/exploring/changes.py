"""A decision while neurons are changed: at zero, held at their ablation means, or doubled, any of them at once.

One forward pass of the untouched model with its activations replaced by hooks
(:mod:`plmscope.models.hooks`): right for every architecture, and quick enough for one protein. Where two changes name
the same neuron the later one counts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch

from plmscope.data.proteins import Protein
from plmscope.errors import RunError
from plmscope.evaluation.interventions import class_log_odds
from plmscope.models.classifier import Classifier
from plmscope.models.hooks import replace


@torch.inference_mode()
def changed_odds(
    classifier: Classifier, protein: Protein, changes: Sequence[tuple[np.ndarray, float | None]]
) -> np.ndarray:
    """Natural log-odds of every class, ``(C,)``, with neurons changed.

    Args:
        classifier: The model; undone before this returns.
        protein: The protein.
        changes: Positions of neurons, and what multiplies their activations; ``None``: held at their ablation means.

    Raises:
        RunError: means are asked for, but not known.
    """
    index = classifier.index
    if classifier.ablation_means is None and any(factor is None for _, factor in changes):
        raise RunError("the ablation means of this model are not known; choose zero or double")
    factors, held = np.ones(len(index)), np.zeros(len(index), bool)
    for positions, factor in changes:
        held[positions] = factor is None
        factors[positions] = 1.0 if factor is None else factor
    means = np.zeros((3, len(index))) if classifier.ablation_means is None else classifier.ablation_means
    touched = held | (factors != 1.0)
    hooks = {}
    for site in index.sites:
        part = index.slice(site)
        if touched[part].any():
            hooks[site] = _changing(factors[part], held[part], means[:, part])
    batch = classifier.batch([protein])
    with replace(classifier, hooks):
        logits = classifier.model(input_ids=batch.input_ids, attention_mask=batch.attention_mask).logits
    odds: np.ndarray = class_log_odds(logits.double().cpu().numpy(), classifier.task)[0]
    return odds


def _changing(factors: np.ndarray, held: np.ndarray, means: np.ndarray) -> Callable[[torch.Tensor], torch.Tensor]:
    """What a site's activation ``(1, T, N)`` becomes; ``means (3, N)`` of the first token, the last and residues."""

    def change(activation: torch.Tensor) -> torch.Tensor:
        like = {"dtype": activation.dtype, "device": activation.device}
        out = activation * torch.tensor(factors, **like)  # type: ignore[arg-type]
        laid = torch.tensor(means[2], **like).expand_as(activation).clone()  # type: ignore[arg-type]
        laid[:, 0], laid[:, -1] = torch.tensor(means[0], **like), torch.tensor(means[1], **like)  # type: ignore[arg-type]
        return torch.where(torch.tensor(held, device=activation.device), laid, out)

    return change
