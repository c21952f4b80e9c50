"""Whether two selections are the same neurons: shared share against what matched chance gives.

The Jaccard index of selections A and B is |A and B| / |A or B|. Chance keeps what both selections keep: their number
of neurons in every site s. Then the shared number is a sum of independent hypergeometric variables::

    K = sum over sites of K_s,   K_s ~ Hypergeometric(N_s, a_s, b_s)

whose distribution is found exactly by convolution: the expected Jaccard index, and p = P(K >= observed). It treats the
neurons of a site as exchangeable, which correlated ones are not: small p values are lower bounds of doubt, not proofs.

Used for classes (do two classes rest on the same neurons?) and for stability (does another sample of proteins, another
model give the same neurons?).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import pandas as pd
from scipy.stats import hypergeom

from plmscope.errors import SelectionError
from plmscope.evaluation.selection import Selection
from plmscope.stats.chance import TINY, benjamini_hochberg

COLUMNS = ("n", "n_other", "shared", "jaccard", "jaccard_expected", "p_value")


@dataclass(frozen=True)
class Overlap:
    """How far two selections coincide.

    Attributes:
        n: Neurons of the first.
        n_other: Neurons of the second.
        shared: In both.
        jaccard: Shared / in either, 0 to 1; 0 where both are empty.
        jaccard_expected: Its mean over random selections with the same numbers in every site.
        p_value: One-sided, for at least as many shared.
    """

    n: int
    n_other: int
    shared: int
    jaccard: float
    jaccard_expected: float
    p_value: float

    def __str__(self) -> str:
        return (
            f"{self.shared:,} neurons in both, of {self.n:,} and {self.n_other:,}: Jaccard index {self.jaccard:.2f}, "
            f"{self.jaccard_expected:.2f} by chance (as many in every site), p = {self.p_value:.2g}"
        )


def overlap(one: Selection, other: Selection) -> Overlap:
    """Shared neurons of two selections of models of one shape, against matched chance.

    Raises:
        SelectionError: the selections belong to models of different shape.

    >>> from plmscope.models.sites import NeuronIndex
    >>> index = NeuronIndex.of(layers=1, hidden=2, intermediate=4)
    >>> first = np.arange(len(index)) < 2  # both neurons of the query: nothing else was possible
    >>> overlap(Selection(index, first), Selection(index, first))
    Overlap(n=2, n_other=2, shared=2, jaccard=1.0, jaccard_expected=1.0, p_value=1.0)
    >>> print(overlap(Selection(index, first), Selection(index, first)))
    2 neurons in both, of 2 and 2: Jaccard index 1.00, 1.00 by chance (as many in every site), p = 1
    """
    if one.index != other.index:
        raise SelectionError(f"{one.name!r} and {other.name!r} belong to models of different shape")
    a, b = (np.bincount(x.index.site_of[x.mask], minlength=len(x.index.sites)) for x in (one, other))
    chance = _shared_by_chance(np.asarray(one.index.widths), a, b)
    shared, total = int((one.mask & other.mask).sum()), int(a.sum() + b.sum())
    counts = np.arange(len(chance))
    ratios = counts / np.maximum(total - counts, 1)
    jaccard = shared / max(total - shared, 1)
    p = min(1.0, max(TINY, float(chance[shared:].sum())))
    return Overlap(int(a.sum()), int(b.sum()), shared, jaccard, float(chance @ ratios), p)


def _shared_by_chance(widths: np.ndarray, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Probabilities of 0, 1, 2, ... shared neurons if both selections keep their number in every site."""
    distribution = np.ones(1)
    for width, m, n in zip(widths, a, b, strict=True):
        if m and n:
            distribution = np.convolve(distribution, hypergeom.pmf(np.arange(min(m, n) + 1), width, m, n))
    chances: np.ndarray = distribution / distribution.sum()
    return chances


def class_overlap(selections: Mapping[str, Selection]) -> pd.DataFrame:
    """``class_overlap.parquet`` but for ``method`` and ``fraction``: every pair of classes.

    Returns:
        ``label, other, n, n_other, shared, jaccard, jaccard_expected, p_value, q_value`` (Benjamini-Hochberg over the
        pairs).
    """
    rows = [
        {"label": label, "other": other} | vars(overlap(selections[label], selections[other]))
        for label, other in combinations(selections, 2)
    ]
    frame = pd.DataFrame(rows, columns=["label", "other", *COLUMNS])
    return frame.assign(q_value=benjamini_hochberg(frame["p_value"].to_numpy(dtype=np.float64)))
