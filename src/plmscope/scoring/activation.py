"""Score neurons by their activation, and find the constants that an ablated neuron is held at.

With ``m_p`` and ``|m|_p`` the means over the residues of protein ``p`` of ``a`` and ``|a|``, and ``v_p`` the variance
of ``a`` over them::

    activation          = mean_p |m|_p
    activation_std      = sqrt( mean_p v_p + mean_p m_p^2 - (mean_p m_p)^2 )
    activation_contrast = max_c | mean_{p in c} m_p - mean_{p not in c} m_p | / pooled SD of m_p     (0 where SD = 0)

The first counts a large constant as much as a signal; softmax ignores a constant added to every key, so a high value
need not mean that the neuron does anything. The other two remove the constant. All three come from one forward pass
over the proteins, with memory that does not grow with their number. Specials and padding never enter the scores.

Source: arXiv:2312.10770 scores by activation; its formula is not public, so all three readings are offered.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
import torch

from plmscope.data.labels import cases
from plmscope.data.proteins import Protein
from plmscope.errors import InputError
from plmscope.models.classifier import Batch, Classifier
from plmscope.models.hooks import record
from plmscope.models.sites import NeuronIndex
from plmscope.models.workers import fitting_budget
from plmscope.progress import Track, silent
from plmscope.scoring.driver import Drive, Given
from plmscope.scoring.scores import GroupSums, NeuronScores

METHODS = ("activation", "activation_std", "activation_contrast")
#: Stands for all proteins where classes overlap, as a class beside the others.
EVERYONE = ""
#: What every protein adds: the first four are enough for the scores, ``mean`` and the last two for mean ablation.
_STATISTICS = ("absolute", "mean", "variance", "mean_square", "first", "last")


@dataclass(frozen=True)
class ActivationSummary:
    """Per-class sums over proteins of residue means, enough for every activation score and for mean ablation.

    Attributes:
        grouped: Sums by group of ``absolute`` (``|m|_p``), ``mean`` (``m_p``), ``variance`` (``v_p``), ``mean_square``
            (``m_p^2``), and ``first`` and ``last``, the activation at the first and last token.
        weights: ``(G,)`` how often each group counts; ``None``: once.
    """

    grouped: GroupSums
    weights: np.ndarray | None = None

    @property
    def index(self) -> NeuronIndex:
        """Which column is which neuron."""
        return self.grouped.index

    @property
    def labels(self) -> tuple[str, ...]:
        """Classes, one row each."""
        return tuple(label for label in self.grouped.labels if label != EVERYONE)

    @property
    def _everyone(self) -> list[int]:
        """Rows in which every protein is once: all classes, or the one of all proteins where classes overlap."""
        own = self.grouped.labels
        return [own.index(EVERYONE)] if EVERYONE in own else list(range(len(own)))

    @cached_property
    def counts(self) -> np.ndarray:
        """``(C,)`` proteins per class; one row more where classes overlap."""
        return self.grouped.by_class("mean", self.weights)[0]

    @cached_property
    def sums(self) -> dict[str, np.ndarray]:
        """Statistic name to ``(C, N)``."""
        return {name: self.grouped.by_class(name, self.weights)[1] for name in self.grouped.sums}

    def scores(self) -> tuple[NeuronScores, ...]:
        """The three activation scores; per class too (the class's own mean, deviation and contrast)."""
        per_class = [self._of([c]) for c in range(len(self.labels)) if self.counts[c]]
        names = [label for c, label in enumerate(self.labels) if self.counts[c]]
        contrast = np.stack([self._contrast(c) for c in range(len(self.labels)) if self.counts[c]])
        absolute, deviation = self._of(self._everyone)
        rows = {
            "activation": (absolute, [one[0] for one in per_class]),
            "activation_std": (deviation, [one[1] for one in per_class]),
            "activation_contrast": (contrast.max(0), list(contrast)),
        }

        def resample(number: int) -> Callable[[np.ndarray], np.ndarray] | None:
            if not self.grouped.resamplable:
                return None
            return lambda weights: ActivationSummary(self.grouped, weights).scores()[number].values

        return tuple(
            NeuronScores(
                method,
                self.index,
                values,
                dict(zip(names, classes, strict=True)),
                self.grouped.proteins,
                resample=resample(number),
                sums=self.grouped,
            )
            for number, (method, (values, classes)) in enumerate(rows.items())
        )

    def _of(self, rows: list[int]) -> tuple[np.ndarray, np.ndarray]:
        """``(mean |a|, standard deviation)`` over the proteins of some rows, each ``(N,)``."""
        n = self.counts[rows].sum()
        absolute, mean, variance, square = (self.sums[name][rows].sum(0) / n for name in _STATISTICS[:4])
        return absolute, np.sqrt(variance + np.maximum(square - mean**2, 0))

    def difference(self, label: int) -> np.ndarray:
        """Mean of the residue means of one class less that of all other proteins, ``(N,)``; 0 where either has none."""
        everyone = self._everyone
        n, total = self.counts[label], self.counts[everyone].sum()
        if not 0 < n < total:
            return np.zeros(len(self.index))
        inside = self.sums["mean"][label]
        found: np.ndarray = inside / n - (self.sums["mean"][everyone].sum(0) - inside) / (total - n)
        return found

    def _contrast(self, label: int) -> np.ndarray:
        """Standardised difference between one class and the rest, ``(N,)``."""
        everyone = self._everyone
        n, total = self.counts[label], self.counts[everyone].sum()
        if total - n < 1 or total < 3:
            return np.zeros(len(self.index))
        inside, inside_square = self.sums["mean"][label], self.sums["mean_square"][label]
        outside = self.sums["mean"][everyone].sum(0) - inside
        outside_square = self.sums["mean_square"][everyone].sum(0) - inside_square
        spread = inside_square - inside**2 / n + outside_square - outside**2 / (total - n)
        # A constant neuron leaves rounding noise in the sum of squares: relative to its size, that is not a spread.
        noise = 1e-10 * np.maximum(self.sums["mean_square"][everyone].sum(0), 1e-30)
        deviation = np.sqrt(np.where(spread > noise, spread, np.inf) / (total - 2))
        contrast: np.ndarray = np.abs(self.difference(label)) / deviation
        return contrast

    def constants(self, ablation: str) -> np.ndarray:
        """Values an ablated neuron is held at, ``(3, N)``: at the first token, at the last token, at residues.

        ``zero``: 0. ``mean``: the mean over proteins, each class weighted equally.
        """
        if ablation == "zero":
            return np.zeros((3, len(self.index)))
        present = [c for c in range(len(self.labels)) if self.counts[c] > 0]
        return np.stack(
            [(self.sums[name][present] / self.counts[present, None]).mean(0) for name in ("first", "last", "mean")]
        )


def finish(
    method: str, sums: GroupSums, settings: Mapping[str, Any], completeness: pd.DataFrame | None = None
) -> NeuronScores:
    """Scores of one of the three methods from the sums; there are no settings and no completeness."""
    return next(one for one in ActivationSummary(sums).scores() if one.method == method)


def summarise_activations(
    classifier: Classifier,
    proteins: Sequence[Protein],
    *,
    token_budget: int = 4096,
    groups: Sequence[str] | None = None,
    track: Track = silent,
) -> ActivationSummary:
    """One forward pass over the proteins.

    Args:
        classifier: The model.
        proteins: With labels.
        token_budget: Padded tokens a batch; 0: by free memory.
        groups: Group of each protein for bootstraps, from :func:`~plmscope.scoring.scores.resampling_groups`.
        track: Progress.

    Raises:
        InputError: there are no proteins, or one has no label that the model knows.
    """
    return _summarise(classifier, proteins, token_budget, groups, track, _STATISTICS)


def summarise_means(
    classifier: Classifier, proteins: Sequence[Protein], *, token_budget: int = 4096, track: Track = silent
) -> GroupSums:
    """``mean`` (``m_p``) of every protein, each a group of its own; of one with several classes, for each of them.

    Raises:
        InputError: there are no proteins, or one has no label that the model knows.
    """
    names = [protein.id for protein in proteins]
    return _summarise(classifier, proteins, token_budget, names, track, ("mean",)).grouped


@torch.inference_mode()
def _summarise(
    classifier: Classifier,
    proteins: Sequence[Protein],
    token_budget: int,
    groups: Sequence[str] | None,
    track: Track,
    statistics: Sequence[str],
) -> ActivationSummary:
    """Sums of the wanted statistics."""
    if not proteins:
        raise InputError("no proteins to score; the split left none, or the list is empty")
    index, members, labels = classifier.index, classifier.membership(proteins), classifier.labels
    if classifier.task == "multi":
        members, labels = np.column_stack([members, np.ones(len(members), dtype=bool)]), (*labels, EVERYONE)
    owners, classes = cases(members)
    ids, names = [proteins[row].id for row in owners], None if groups is None else [groups[row] for row in owners]
    sums = GroupSums.empty(index, labels, ids, classes, names, *statistics)
    ends = np.searchsorted(owners, np.arange(1, len(proteins)))
    rows = [part.tolist() for part in np.split(np.arange(len(owners)), ends)]  # of every protein
    bytes_per_token = 3 * len(index) * int(classifier.model.dtype.itemsize)  # activations, and one statistic of them
    budget = fitting_budget(token_budget, classifier.device, bytes_per_token)

    def work(batch: Batch, _: int) -> Given:
        seen.clear()
        classifier.model(input_ids=batch.input_ids, attention_mask=batch.attention_mask)
        of_site = [_residue_means(seen[site], batch) for site in index.sites]
        return Given(
            batch.rows, {name: np.concatenate([part[name] for part in of_site], axis=1) for name in statistics}
        )

    with record(classifier, index.sites) as seen:  # hooks on the model itself: one batch after the other
        Drive(classifier, "activations", track, budget, threaded=False).add_up(proteins, sums, work, rows)
    return ActivationSummary(sums)


def _residue_means(activation: torch.Tensor, batch: Batch) -> dict[str, np.ndarray]:
    """Every statistic of every protein, ``(B, N)`` each, from activations ``(B, T, N)``."""
    weight = batch.residue_mask / batch.residue_mask.sum(1, keepdim=True)  # (B, T)
    a = activation.float()

    def mean(values: torch.Tensor) -> torch.Tensor:
        return torch.einsum("bt,btn->bn", weight, values)

    average = mean(a)
    means = {
        "absolute": mean(a.abs()),
        "mean": average,
        # About the protein's own mean: the mean square would lose a small spread around a large constant.
        "variance": mean((a - average.unsqueeze(1)).square()),
        "mean_square": average.double().square(),
        "first": a[:, 0],
        "last": a[torch.arange(len(a), device=a.device), batch.lengths - 1],
    }
    return {name: value.double().cpu().numpy() for name, value in means.items()}


def activation_scores(
    classifier: Classifier,
    proteins: Sequence[Protein],
    *,
    token_budget: int = 4096,
    groups: Sequence[str] | None = None,
    track: Track = silent,
) -> tuple[NeuronScores, ...]:
    """``activation``, ``activation_std`` and ``activation_contrast`` of every neuron.

    Args:
        classifier: The model.
        proteins: With labels.
        token_budget: Padded tokens a batch; 0: by free memory.
        groups: Group of each protein for bootstraps, from :func:`~plmscope.scoring.scores.resampling_groups`.
        track: Progress.

    Raises:
        InputError: there are no proteins, or one has no label that the model knows.
    """
    return _summarise(classifier, proteins, token_budget, groups, track, _STATISTICS[:4]).scores()
