"""What chance would reach: random draws, bootstraps of clusters, enrichment, and p values of many tests.

A p value is counted: (1 + draws that do as well) / (1 + draws). It is never smaller than the draws allow.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from plmscope.errors import SelectionError
from plmscope.stats.metrics import FloatArray

#: The smallest p value that is written: none is 0, whatever double precision holds of it.
TINY = float(np.finfo(np.float64).tiny)


#: A p value that can never be below this is no test.
LEVEL = 0.05


#: Areas closer than this are ties: they differ by rounding alone.
TIE = 1e-12


class DrawTest(NamedTuple):
    """Where an observed value stands among random draws.

    Attributes:
        p_value: One-sided, ``0 < p <= 1``; NaN for fewer than two draws.
        p_kind: ``permutation`` (draws were counted), ``too_few_draws`` (so few that p is never below 0.05), ``none``.
        draws_beaten: How many draws are strictly worse than the observed value.
    """

    p_value: float
    p_kind: Literal["permutation", "too_few_draws", "none"]
    draws_beaten: int


class Interval(NamedTuple):
    """Both ends of an interval."""

    low: float
    high: float


def compare_with_draws(observed: float, draws: ArrayLike, better: int) -> DrawTest:
    """One-sided test of one value against random draws, by counting.

    p = (1 + draws at least as good) / (R + 1): the share of ``R + 1`` equally likely orders in which the method stands
    so high, if it were one more draw. It is never below 1 / (R + 1), and nothing is extrapolated: a normal tail fitted
    to few draws is too small by factors. Values within ``1e-12`` are ties; a tie is "at least as good".

    Args:
        observed: The method's value, for instance its area.
        draws: ``(R,)``, the same value for each draw.
        better: +1 if larger is better, -1 if smaller is.

    Returns:
        The p value, the kind of test, and how many draws are strictly worse. With so few draws that p cannot be below
        0.05 (19 or fewer) the kind is ``too_few_draws``: a number to look at, no test. Fewer than two draws: p is NaN
        and the kind ``none``.

    Raises:
        SelectionError: ``better`` is neither +1 nor -1, or a value is not finite.

    References:
        Phipson and Smyth 2010 (why 1 is added above and below).

    >>> compare_with_draws(0.9, [0.5, 0.6, 0.7], better=+1)
    DrawTest(p_value=0.25, p_kind='too_few_draws', draws_beaten=3)
    """
    values = np.asarray(draws, dtype=np.float64)
    if better not in (1, -1):
        raise SelectionError(f"better must be +1 or -1, got {better!r}")
    if values.ndim != 1 or not np.isfinite(values).all() or not math.isfinite(observed):
        raise SelectionError(f"the observed value {observed!r} and a flat list of draws must all be finite")
    lead = better * (observed - values)  # (R,), above 0 where the draw is worse
    beaten, n = int((lead > TIE).sum()), len(values)
    if n < 2:
        return DrawTest(math.nan, "none", beaten)
    return DrawTest((1 + n - beaten) / (n + 1), "permutation" if 1 / (n + 1) < LEVEL else "too_few_draws", beaten)


def bootstrap_weights(clusters: ArrayLike, labels: ArrayLike, n: int, rng: np.random.Generator) -> NDArray[np.int32]:
    """How often each protein occurs in ``n`` bootstrap resamples of clusters, stratified by class.

    Homologous proteins are not independent, so whole clusters are drawn with replacement. Within each class as many
    clusters are drawn as there are; the class of a cluster is that of most of its proteins (on a tie the first in
    sorted order). All proteins of a cluster share one count.

    Args:
        clusters: ``(P,)`` names or numbers of clusters.
        labels: ``(P,)`` names or numbers of classes.
        n: Number of resamples ``B``.
        rng: Source of randomness; the same state gives the same weights.

    Returns:
        ``(B, P)`` counts, 0 or more.

    Raises:
        SelectionError: there are no proteins, or not one cluster and one label for each.

    >>> bootstrap_weights(["a", "a", "b"], [0, 0, 1], 2, np.random.default_rng(0)).tolist()
    [[1, 1, 1], [1, 1, 1]]
    """
    clusters, labels = np.asarray(clusters), np.asarray(labels)
    if clusters.ndim != 1 or clusters.shape != labels.shape or not clusters.size:
        raise SelectionError(
            f"clusters {clusters.shape} and labels {labels.shape} must be flat, not empty, of one length"
        )
    names, cluster = np.unique(clusters, return_inverse=True)  # (P,)
    classes, label = np.unique(labels, return_inverse=True)
    members = np.zeros((len(names), len(classes)), dtype=np.int64)
    np.add.at(members, (cluster, label), 1)
    stratum = members.argmax(axis=1)  # one class per cluster
    counts = np.zeros((n, len(names)), dtype=np.int32)
    for value in np.unique(stratum):
        (own,) = np.nonzero(stratum == value)
        counts[:, own] = rng.multinomial(len(own), np.full(len(own), 1 / len(own)), size=n)
    return counts[:, cluster]


def holm(p_values: Sequence[float] | np.ndarray) -> FloatArray:
    """P values adjusted by Holm: the family-wise error rate at which each test would be called; NaN is no test.

    >>> holm([0.01, float("nan"), 0.04, 0.02]).round(3).tolist()
    [0.03, nan, 0.04, 0.04]
    """
    p = np.asarray(p_values, dtype=np.float64)
    (tested,) = np.nonzero(~np.isnan(p))
    order = tested[np.argsort(p[tested], kind="stable")]
    adjusted = np.full(p.shape, np.nan)
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(p[order] * np.arange(len(order), 0, -1)))
    return adjusted


def percentile_interval(samples: ArrayLike, level: float = 0.95) -> Interval:
    """The central interval that holds a share ``level`` of the samples (linear interpolation between them).

    Args:
        samples: ``(B,)``, at least one; a NaN among them makes both ends NaN.
        level: Share inside, ``0 < level < 1``.

    Raises:
        SelectionError: there are no samples, or the level is outside its range.

    >>> percentile_interval(range(101), level=0.5)
    Interval(low=25.0, high=75.0)
    """
    values = np.asarray(samples, dtype=np.float64)
    if values.ndim != 1 or not values.size or not 0 < level < 1:
        raise SelectionError(f"an interval needs samples and 0 < level < 1, got shape {values.shape}, level {level!r}")
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(low), float(high))


def hypergeometric_enrichment(n_total: int, n_selected: int, overall_total: int, overall_selected: int) -> float:
    """The chance that a site holds at least ``n_selected`` selected neurons if the selection ignored sites.

    P(X >= n_selected) for X the number of selected neurons among ``n_total`` drawn without replacement from
    ``overall_total``, of which ``overall_selected`` are selected. It treats neurons as exchangeable, which correlated
    units of different scale are not: descriptive only.

    Args:
        n_total: Neurons of the site or module.
        n_selected: How many of them are selected.
        overall_total: Neurons of the model.
        overall_selected: How many of them are selected.

    Returns:
        ``0 < p <= 1``; 1 for ``n_selected`` 0. Very small values may underflow to 0.

    Raises:
        SelectionError: the four counts contradict each other.

    >>> round(hypergeometric_enrichment(2, 2, 4, 2), 4)  # 1 of the 6 ways to choose 2 of 4
    0.1667
    """
    outside = n_total - n_selected, overall_selected - n_selected, overall_total - overall_selected
    if n_selected < 0 or min(outside) < 0 or n_total - n_selected > overall_total - overall_selected:
        raise SelectionError(
            f"impossible counts: {n_selected!r} of {n_total!r} selected in the site, "
            f"{overall_selected!r} of {overall_total!r} in the model"
        )
    return max(TINY, float(stats.hypergeom.sf(n_selected - 1, overall_total, overall_selected, n_total)))


def benjamini_hochberg(p_values: Sequence[float] | np.ndarray) -> FloatArray:
    """Q values: the smallest false discovery rate at which each test would be called.

    Args:
        p_values: ``(n,)``, each in [0, 1] or NaN. NaN means "not tested" and does not count as a test.

    Returns:
        ``(n,)``, NaN where p is.

    Raises:
        SelectionError: a p value is outside [0, 1].

    References:
        Benjamini and Hochberg 1995, as in :func:`scipy.stats.false_discovery_control`.

    >>> benjamini_hochberg([0.01, float("nan"), 0.04, 0.5]).round(3).tolist()
    [0.03, nan, 0.06, 0.5]
    """
    p = np.asarray(p_values, dtype=np.float64)
    tested = ~np.isnan(p)
    if ((p[tested] < 0) | (p[tested] > 1)).any():
        raise SelectionError(f"p values must lie in [0, 1], got {p[tested].min()!r}..{p[tested].max()!r}")
    q = np.full(p.shape, np.nan)
    if tested.any():
        q[tested] = stats.false_discovery_control(p[tested], method="bh")
    return q
