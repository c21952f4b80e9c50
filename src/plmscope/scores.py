"""What a scoring method gives every neuron: one array, with the proteins and settings it came from.

>>> from plmscope.sites import NeuronIndex
>>> index = NeuronIndex.of(layers=1, hidden=2, intermediate=8)
>>> NeuronScores("activation", index, np.arange(18.0))
NeuronScores(activation, 18 neurons, best: layer 0 output 1 = 17)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from plmscope.errors import SelectionError
from plmscope.sites import NeuronIndex


@dataclass(frozen=True)
class NeuronScores:
    """Scores of all neurons by one method; higher means more important.

    Attributes:
        method: Name of the method, the column of ``neurons.parquet``.
        index: Which entry is which neuron.
        values: ``(N,)`` float64.
        per_class: Class name to ``(N,)``, where the method has such scores.
        proteins: Ids of the proteins that were scored; the evaluation refuses to see them again.
        settings: What the numbers depend on besides model and proteins.
        completeness: ``id, layer, module, expected, got, gap`` for path methods.
        resample: Weights ``(P,)`` of the proteins to the scores ``(N,)`` that they give, for bootstraps.
    """

    method: str
    index: NeuronIndex
    values: np.ndarray
    per_class: Mapping[str, np.ndarray] = field(default_factory=dict)
    proteins: tuple[str, ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)
    completeness: pd.DataFrame | None = field(default=None, repr=False, compare=False)
    resample: Callable[[np.ndarray], np.ndarray] | None = field(default=None, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.values.shape != (len(self.index),):
            raise SelectionError(f"{self.method}: {self.values.shape} scores for {len(self.index)} neurons")

    def __repr__(self) -> str:
        best = int(np.nanargmax(self.values))
        top = f"{self.index.neuron(best)} = {self.values[best]:.4g}"
        return f"NeuronScores({self.method}, {len(self.index):,} neurons, best: {top})"

    def table(self) -> pd.DataFrame:
        """One row a neuron, best first: ``layer, module, neuron, score, rank`` (rank 1 is best)."""
        frame = self.index.table().assign(score=self.values)
        frame = frame.sort_values("score", ascending=False, kind="stable", ignore_index=True)
        return frame.assign(rank=np.arange(1, len(frame) + 1))


def class_weighted(
    method: str,
    index: NeuronIndex,
    rows: np.ndarray,
    classes: np.ndarray,
    labels: Sequence[str],
    ids: Sequence[str],
    settings: Mapping[str, Any],
) -> NeuronScores:
    """Scores from per-protein values ``(P, N)``: the mean within each class, then over the classes that occur.

    Args:
        method: Name of the method.
        index: Which column is which neuron.
        rows: ``(P, N)``.
        classes: ``(P,)`` class numbers.
        labels: Class names.
        ids: Protein ids.
        settings: What else the numbers depend on.
    """

    def means(weights: np.ndarray) -> dict[int, np.ndarray]:
        present = [c for c in range(len(labels)) if weights[classes == c].sum() > 0]
        return {c: np.average(rows[classes == c], axis=0, weights=weights[classes == c]) for c in present}

    def total(weights: np.ndarray) -> np.ndarray:
        mean: np.ndarray = np.stack(list(means(weights).values())).mean(axis=0, dtype=np.float64)
        return mean

    equal = np.ones(len(rows))
    per_class = {labels[c]: mean for c, mean in means(equal).items()}
    return NeuronScores(method, index, total(equal), per_class, tuple(ids), settings, resample=total)


def score_table(scores: Sequence[NeuronScores]) -> pd.DataFrame:
    """``neurons.parquet``: one row a neuron, one column a method."""
    frame = scores[0].index.table()
    return frame.assign(**{one.method: one.values for one in scores})


def class_table(scores: Sequence[NeuronScores]) -> pd.DataFrame:
    """``class_scores.parquet``: ``method, label, layer, module, neuron, score``."""
    parts = [
        one.index.table().assign(method=one.method, label=label, score=values)
        for one in scores
        for label, values in one.per_class.items()
    ]
    columns = ["method", "label", "layer", "module", "neuron", "score"]
    return pd.concat(parts, ignore_index=True)[columns] if parts else pd.DataFrame(columns=columns)


def from_table(frame: pd.DataFrame, index: NeuronIndex, method: str) -> NeuronScores:
    """Read one method back from ``neurons.parquet``, whatever the order of its rows.

    Raises:
        SelectionError: the method has no column, or the table's neurons are not those of ``index``.
    """
    if method not in frame.columns:
        known = [column for column in frame.columns if column not in ("layer", "module", "neuron")]
        raise SelectionError(f"no scores by {method!r}; there are {', '.join(known)}")
    keys = ["layer", "module", "neuron"]
    ordered = index.table().merge(frame[[*keys, method]], on=keys, how="left", validate="one_to_one")
    if len(frame) != len(index) or ordered[method].isna().any():
        raise SelectionError(f"the table has other neurons than the model ({len(frame)} rows, {len(index)} neurons)")
    return NeuronScores(method, index, ordered[method].to_numpy(dtype=np.float64))
