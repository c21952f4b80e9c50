"""How good a curve is, and whether it beats chance: areas, random draws, bootstrap, enrichment.

A *curve* is a metric over the grid of fractions. A method has one; each random draw has one of its own. What is
compared is the area under them (trapezoid rule, linear axis)::

    difference = area(method) - mean over draws of area(draw)

* the p value asks how often a draw does at least as well (:func:`compare_with_draws`);
* the interval resamples clusters of test proteins, stratified by class, and the draws, and takes the method's selection
  as one of many (:func:`bootstrap_difference`);
* :func:`compare_curves` puts both into one :class:`Comparison`, a row of ``comparison.parquet``.

A bootstrap resample is a row of counts, one per protein, so a metric on 2,000 resamples is a matrix product
(:func:`weighted_metric`). Axes: ``B`` resamples, ``P`` proteins, ``K`` sets of predictions, ``R`` draws, ``F`` points
of the grid.

>>> float(curve_area([0.0, 0.5, 1.0], [0.0, 1.0, 1.0]))
0.75
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from plmscope.data.labels import pack, packed_has
from plmscope.errors import SelectionError

FloatArray = NDArray[np.float64]

#: Metrics of one set of predictions, as they are named in every table.
#: The smallest p value that is written: none is 0, whatever double precision holds of it.
TINY = float(np.finfo(np.float64).tiny)
METRICS = ("accuracy", "balanced_accuracy", "macro_f1", "log_loss", "true_class_probability", "log_probability")

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


@dataclass(frozen=True, slots=True)
class Comparison:
    """A method's curve against its random draws; the fields are columns of ``comparison.parquet``.

    Attributes:
        auc: Area of the method's curve.
        auc_against: Mean area of the draws' curves.
        difference: ``auc - auc_against``.
        better: +1 if a larger area is better, -1 if a smaller one is.
        ci_low: Lower end of the 95 % bootstrap interval on ``difference`` (:func:`with_spread`).
        ci_high: Its upper end.
        p_value: One-sided, see :func:`compare_with_draws`.
        p_kind: Which test gave it.
        n_draws: Number of draws.
        draws_beaten: Draws that are strictly worse than the method.
    """

    auc: float
    auc_against: float
    difference: float
    better: int
    ci_low: float
    ci_high: float
    p_value: float
    p_kind: str
    n_draws: int
    draws_beaten: int


# --- metrics ---------------------------------------------------------------------------------------------------------


def weighted_metric(
    name: str, weights: ArrayLike, true: ArrayLike, predicted: ArrayLike, log_prob_true: ArrayLike, n_classes: int
) -> FloatArray:
    """One metric of ``K`` sets of predictions under ``B`` weightings of the proteins.

    With whole-numbered weights the result is what scikit-learn computes when each protein is repeated that often:

    * ``accuracy``: weighted share of right predictions; in a multi-label task the whole set of classes has to be right;
    * ``balanced_accuracy``: mean recall over the classes that are present (weight above 0). A multi-label task is one
      binary task per class: mean over the present classes of (sensitivity + specificity) / 2, or of the sensitivity
      alone where every protein has the class;
    * ``macro_f1``: mean of 2 TP / (true + predicted) over the classes that are present or predicted;
    * ``log_loss``: weighted mean of ``-log_prob_true``, in nats, not capped (:func:`metric_area` caps it);
    * ``true_class_probability``: weighted mean of ``exp(log_prob_true)``;
    * ``log_probability``: weighted mean of ``log_prob_true``, where a protein below -2 ln C counts as that (in a
      multi-label task -2 ln 2), so that no single one decides.

    Args:
        name: One of :data:`METRICS`.
        weights: ``(B, P)``, not negative.
        true: ``(P,)`` class numbers, ``0 <= class < n_classes``; or ``(P, C)`` booleans, a multi-label task.
        predicted: ``(K, P)`` class numbers; or ``(K, P, ceil(C / 8))`` sets of classes,
            :func:`plmscope.data.labels.pack`.
        log_prob_true: ``(K, P)`` natural logarithm of the probability given to the true class, finite; in a multi-label
            task the mean over all classes of that of the truth about each.
        n_classes: Number of classes ``C`` of the model.

    Returns:
        ``(B, K)``; ``log_loss`` is 0 or more, ``log_probability`` 0 or less, the others lie in [0, 1]. NaN where all
        weights of a row are 0.

    Raises:
        SelectionError: the name is unknown, shapes do not fit, a class number is outside its range, a weight is
            negative, or a log-probability is not finite.

    >>> weighted_metric("accuracy", [[1, 1, 2]], [0, 1, 1], [[0, 0, 1]], [[-0.1, -2.0, -0.3]], 2)
    array([[0.75]])
    """
    weights, true, predicted, log_prob_true = (np.asarray(a) for a in (weights, true, predicted, log_prob_true))
    _check_predictions(name, weights, true, predicted, log_prob_true, n_classes)
    with np.errstate(invalid="ignore", divide="ignore"):  # a row of zero weights is NaN, as documented
        if name in ("log_loss", "true_class_probability", "log_probability"):
            per_protein = -log_prob_true if name == "log_loss" else log_prob_true.astype(np.float64)
            if name == "log_probability":
                per_protein = np.maximum(per_protein, -2 * math.log(_answers(true, n_classes)))
            elif name == "true_class_probability":
                per_protein = np.exp(per_protein)
            w = weights.astype(np.float64)
            mean: FloatArray = w @ per_protein.T.astype(np.float64) / w.sum(axis=1, keepdims=True)  # (B, K)
            return mean

        # Sums of whole numbers below 2^24 are exact in single precision, which halves the time of the products.
        exact = weights.dtype.kind in "biu" and weights.sum(axis=1, dtype=np.int64).max(initial=0) < 2**24
        w = weights.astype(np.float32 if exact else np.float64)
        total = w.sum(axis=1, dtype=np.float64)[:, None]  # (B, 1)
        multi = true.ndim == 2
        if name == "accuracy":
            right = (predicted == pack(true)).all(axis=2) if multi else predicted == true  # (K, P)
            share: FloatArray = (w @ right.T.astype(w.dtype)).astype(np.float64) / total
            return share
        summed = np.zeros((len(weights), len(predicted)))  # (B, K)
        classes = np.zeros((len(weights), len(predicted) if name == "macro_f1" else 1))
        for label in range(n_classes):
            own = true[:, label] if multi else true == label  # (P,)
            said = packed_has(predicted, label) if multi else predicted == label  # (K, P)
            hits = (w[:, own] @ said[:, own].T.astype(w.dtype)).astype(np.float64)  # (B, K)
            support = w[:, own].sum(axis=1, dtype=np.float64)[:, None]  # (B, 1)
            if name == "balanced_accuracy":
                recall = hits / support
                if multi and not own.all():
                    others = total - support
                    rejected = 1 - (w[:, ~own] @ said[:, ~own].T.astype(w.dtype)).astype(np.float64) / others
                    recall = np.where(others > 0, (recall + rejected) / 2, recall)
                summed += np.where(support > 0, recall, 0.0)
                classes += support > 0
            else:
                both = support + (w @ said.T.astype(w.dtype)).astype(np.float64)  # (B, K)
                summed += np.where(both > 0, 2 * hits / both, 0.0)
                classes += both > 0
        result: FloatArray = summed / classes
        return result


def metric(name: str, true: ArrayLike, predicted: ArrayLike, log_prob_true: ArrayLike, n_classes: int) -> float:
    """One metric of one set of predictions, every protein counted once; see :func:`weighted_metric`.

    Args:
        name: One of :data:`METRICS`.
        true: ``(P,)`` class numbers, or ``(P, C)`` booleans.
        predicted: ``(P,)`` class numbers, or ``(P, W)`` packed sets.
        log_prob_true: ``(P,)`` log-probability of the true class.
        n_classes: Number of classes of the model.

    Raises:
        SelectionError: as :func:`weighted_metric`.

    >>> metric("balanced_accuracy", [0, 0, 0, 1], [0, 0, 0, 0], [-0.1, -0.1, -0.1, -2.3], 2)
    0.5
    """
    ones = np.ones((1, len(np.asarray(true))), dtype=np.int64)
    rows = np.asarray(predicted)[None], np.asarray(log_prob_true)[None]
    return float(weighted_metric(name, ones, true, *rows, n_classes)[0, 0])


def _check_predictions(
    name: str,
    weights: np.ndarray,
    true: np.ndarray,
    predicted: np.ndarray,
    log_prob_true: np.ndarray,
    n_classes: int,
) -> None:
    """Refuse what would otherwise give a plausible wrong number."""
    if name not in METRICS:
        raise SelectionError(f"unknown metric {name!r}; one of {', '.join(METRICS)}")
    multi = true.ndim == 2
    proteins = true.shape[0] if true.ndim in (1, 2) else 0
    flat = predicted[..., 0] if multi and predicted.ndim == 3 and predicted.shape[2] else predicted
    if not proteins or any(a.ndim != 2 or a.shape[1] != proteins for a in (weights, flat, log_prob_true)):
        raise SelectionError(
            f"shapes do not fit: weights {weights.shape}, true {true.shape}, predicted {predicted.shape}, "
            f"log_prob_true {log_prob_true.shape}; expected (B, P), (P,), (K, P), (K, P) with at least one protein"
            + (" (multi-label: true (P, C), predicted (K, P, bytes))" if multi else "")
        )
    if flat.shape != log_prob_true.shape:
        raise SelectionError(f"predicted {predicted.shape} and log_prob_true {log_prob_true.shape} differ in shape")
    if multi:
        wanted = (n_classes, -(-n_classes // 8))
        if true.dtype.kind != "b" or predicted.dtype != np.uint8 or (true.shape[1], predicted.shape[2]) != wanted:
            raise SelectionError(
                f"multi-label: true must be {wanted[0]} booleans a protein and predicted {wanted[1]} bytes, "
                f"not {true.dtype} {true.shape} and {predicted.dtype} {predicted.shape}"
            )
    for what, classes in () if multi else (("true", true), ("predicted", predicted)):
        if classes.dtype.kind not in "iu" or (classes.size and (classes.min() < 0 or classes.max() >= n_classes)):
            raise SelectionError(f"{what} classes must be whole numbers from 0 to {n_classes - 1}")
    if weights.size and not weights.min() >= 0:
        raise SelectionError(f"weights must not be negative or NaN, found {weights.min()!r}")
    if not np.isfinite(log_prob_true).all():
        raise SelectionError("a log-probability is not finite; run the model with dtype float32")


# --- curves ----------------------------------------------------------------------------------------------------------


def curve_area(fractions: ArrayLike, values: ArrayLike) -> FloatArray:
    """The area under curves: trapezoid rule, linear axis, over the fractions that were run.

    Args:
        fractions: ``(F,)``, strictly increasing, at least two.
        values: ``(..., F)``, one curve per leading index.

    Returns:
        ``(...)``, a single number for one curve. At most the range of the fractions times the largest value. A NaN
        anywhere in a curve makes its area NaN.

    Raises:
        SelectionError: the fractions are not strictly increasing, fewer than two, or not as many as values.
    """
    fractions, values = np.asarray(fractions, dtype=np.float64), np.asarray(values, dtype=np.float64)
    if fractions.ndim != 1 or len(fractions) < 2 or not (np.diff(fractions) > 0).all():
        raise SelectionError(f"fractions must be two or more and strictly increasing, got {fractions.tolist()!r}")
    if values.ndim == 0 or values.shape[-1] != len(fractions):
        raise SelectionError(f"a curve has shape {values.shape}, but there are {len(fractions)} fractions")
    area: FloatArray = np.trapezoid(values, fractions, axis=-1)
    return area


def metric_area(name: str, fractions: ArrayLike, values: ArrayLike, n_classes: int) -> FloatArray:
    """The area under curves of one metric; a log-loss above 2 ln ``n_classes`` counts as that.

    A network of which little is left can be certain and wrong, with a log-loss of hundreds; uncapped, that one point
    would decide the whole area. Everything else is as :func:`curve_area`.

    >>> bool(metric_area("log_loss", [0, 1], [900.0, 900.0], 2) == 2 * math.log(2))
    True
    """
    if name == "log_loss":
        values = np.minimum(values, 2 * math.log(n_classes))
    return curve_area(fractions, values)


def better_sign(metric_name: str, mode: str) -> int:
    """Which sign of a difference is good: +1 or -1.

    Keeping good neurons preserves accuracy (+1), ablating them destroys it (-1); for the log-loss it is the reverse.

    Raises:
        SelectionError: the metric is not one of :data:`METRICS`, or the mode is neither ``keep`` nor ``ablate``.

    >>> better_sign("balanced_accuracy", "keep"), better_sign("log_loss", "keep")
    (1, -1)
    """
    if metric_name not in METRICS:
        raise SelectionError(f"unknown metric {metric_name!r}; one of {', '.join(METRICS)}")
    if mode not in ("keep", "ablate"):
        raise SelectionError(f"unknown mode {mode!r}; 'keep' or 'ablate'")
    return 1 if (mode == "keep") == (metric_name != "log_loss") else -1


# --- comparison with chance ------------------------------------------------------------------------------------------


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


def curve_values(
    name: str, weights: ArrayLike, true: ArrayLike, predicted: ArrayLike, log_prob_true: ArrayLike, n_classes: int
) -> FloatArray:
    """A metric of ``K`` curves of ``F`` points under ``B`` weightings of the proteins, ``(B, K, F)``.

    Args:
        name: One of :data:`METRICS`; a log-loss above 2 ln C counts as that, as in :func:`metric_area`.
        weights: ``(B, P)``.
        true: ``(P,)`` class numbers, or ``(P, C)``.
        predicted: ``(K, F, P)``, or ``(K, F, P, W)``.
        log_prob_true: ``(K, F, P)``.
        n_classes: Number of classes of the model.

    Raises:
        SelectionError: an input does not fit (see :func:`weighted_metric`).
    """
    predicted, log_prob_true = np.asarray(predicted), np.asarray(log_prob_true)
    if log_prob_true.ndim != 3 or predicted.shape[:3] != log_prob_true.shape:
        raise SelectionError(
            f"predicted {predicted.shape} and log_prob_true {log_prob_true.shape} must both be (K, F, P)"
        )
    values = np.stack(
        [
            weighted_metric(name, weights, true, predicted[:, f], log_prob_true[:, f], n_classes)
            for f in range(predicted.shape[1])
        ],
        axis=-1,
    )
    return np.minimum(values, 2 * math.log(_answers(true, n_classes))) if name == "log_loss" else values


def _answers(true: ArrayLike, n_classes: int) -> int:
    """Between how many answers a guess chooses: a multi-label task asks yes or no about every class."""
    return 2 if np.ndim(true) == 2 else n_classes


def with_spread(values: FloatArray, rng: np.random.Generator) -> tuple[FloatArray, FloatArray]:
    """Bootstrap samples of a method's curve as one of many that could have been chosen, and of the mean of draws.

    A selection that is no better than chance is one draw among others, and beats their mean or not by its luck. So that
    an interval of the difference holds 0 for it as often as it says, every sample adds to the method the deviation of
    one draw from the mean of all, and takes ``R`` draws with replacement for that mean. The deviations are widened as
    the t distribution with ``R - 1`` degrees of freedom asks, since few draws tell little of their own spread.

    Args:
        values: ``(B, 1 + R, ...)`` under resampled proteins: the method first, then the draws.
        rng: Source of randomness.

    Returns:
        ``(B, ...)`` of the method and ``(B, ...)`` of the mean of the draws. With a single draw the spread is unknown
        and none is added.
    """
    own, drawn = values[:, 0], values[:, 1:]
    n, samples = drawn.shape[1], len(values)
    times = rng.multinomial(n, np.full(n, 1 / n), size=samples) / n  # (B, R)
    mean: FloatArray = np.einsum("br,br...->b...", times, drawn)
    picked = rng.integers(n, size=samples)
    if n < 2:
        return own, mean
    width = math.sqrt(n / (n - 1)) * float(stats.t.ppf(0.975, n - 1) / stats.norm.ppf(0.975))
    shifted: FloatArray = own + width * (drawn[np.arange(samples), picked] - drawn.mean(axis=1))
    return shifted, mean


def bootstrap_difference(
    name: str,
    fractions: ArrayLike,
    weights: ArrayLike,
    true: ArrayLike,
    predicted: ArrayLike,
    log_prob_true: ArrayLike,
    n_classes: int,
    rng: np.random.Generator,
) -> FloatArray:
    """Bootstrap samples of area(method) - mean area(draws), over test clusters, draws and the method's own luck.

    Method and draws see the same resampled proteins (they are paired); :func:`with_spread` says how draws enter.

    Args:
        name: One of :data:`METRICS`.
        fractions: ``(F,)``, strictly increasing.
        weights: ``(B, P)`` from :func:`bootstrap_weights`.
        true: ``(P,)`` class numbers, or ``(P, C)`` as in :func:`weighted_metric`.
        predicted: ``(1 + R, F, P)`` class numbers (or ``(1 + R, F, P, W)``): the method first, then the draws.
        log_prob_true: ``(1 + R, F, P)``, same order.
        n_classes: Number of classes of the model.
        rng: Source of randomness for the draws.

    Returns:
        ``(B,)`` differences; :func:`percentile_interval` makes the interval.

    Raises:
        SelectionError: there is no draw, or an input does not fit (see :func:`weighted_metric`).
    """
    _need_a_draw(predicted)
    areas = curve_area(fractions, curve_values(name, weights, true, predicted, log_prob_true, n_classes))
    own, against = with_spread(areas, rng)
    difference: FloatArray = own - against
    return difference


def compare_curves(
    name: str,
    better: int,
    fractions: ArrayLike,
    weights: ArrayLike,
    true: ArrayLike,
    predicted: ArrayLike,
    log_prob_true: ArrayLike,
    n_classes: int,
    rng: np.random.Generator,
) -> Comparison:
    """A method's curve against its draws: areas, difference, interval, p value.

    Args:
        name: One of :data:`METRICS`.
        better: +1 or -1, from :func:`better_sign`.
        fractions: ``(F,)``, strictly increasing.
        weights: ``(B, P)`` from :func:`bootstrap_weights`, shared by all comparisons on the same proteins.
        true: ``(P,)`` class numbers, or ``(P, C)`` as in :func:`weighted_metric`.
        predicted: ``(1 + R, F, P)`` class numbers (or ``(1 + R, F, P, W)``): the method first, then the draws.
        log_prob_true: ``(1 + R, F, P)``, same order.
        n_classes: Number of classes of the model.
        rng: Source of randomness for resampling the draws.

    Raises:
        SelectionError: there is no draw, or an input does not fit.
    """
    _need_a_draw(predicted)
    ones = np.ones((1, len(np.asarray(true))), dtype=np.int64)
    area = curve_area(fractions, curve_values(name, ones, true, predicted, log_prob_true, n_classes))[0]  # (1 + R,)
    test = compare_with_draws(float(area[0]), area[1:], better)
    samples = bootstrap_difference(name, fractions, weights, true, predicted, log_prob_true, n_classes, rng)
    interval = percentile_interval(samples)
    return Comparison(
        auc=float(area[0]),
        auc_against=float(area[1:].mean()),
        difference=float(area[0] - area[1:].mean()),
        better=better,
        ci_low=interval.low,
        ci_high=interval.high,
        p_value=test.p_value,
        p_kind=test.p_kind,
        n_draws=len(area) - 1,
        draws_beaten=test.draws_beaten,
    )


def _need_a_draw(predicted: ArrayLike) -> None:
    """Raise :class:`SelectionError` for a method alone."""
    if len(np.asarray(predicted)) < 2:
        raise SelectionError(f"predicted {np.shape(predicted)} must be (1 + R, F, P), R >= 1: the method and its draws")


def share_better(log_prob_true: ArrayLike, true: ArrayLike, n_classes: int, better: int) -> float:
    """The share of proteins whose true class a method treats better than the mean of its draws does.

    The log-probability of the true class (floored as in ``log_probability``) is averaged over the points of a curve
    and, for the draws, over them; a difference within ``1e-12`` is half a protein.

    Args:
        log_prob_true: ``(1 + R, F, P)``: the method first, then the draws.
        true: ``(P,)`` class numbers, or ``(P, C)``.
        n_classes: Number of classes of the model.
        better: +1 if more is better, -1 if less is.

    >>> share_better(np.log([[[0.9, 0.1]], [[0.5, 0.5]], [[0.5, 0.3]]]), [0, 1], 2, +1)
    0.5
    """
    floored = np.maximum(np.asarray(log_prob_true, dtype=np.float64), -2 * math.log(_answers(true, n_classes)))
    per_protein = floored.mean(axis=1)  # (1 + R, P)
    lead = better * (per_protein[0] - per_protein[1:].mean(axis=0))
    return float(np.mean(np.where(np.abs(lead) <= TIE, 0.5, lead > 0)))


# --- concentration within a module kind ------------------------------------------------------------------------------


def isotonic(values: ArrayLike) -> FloatArray:
    """The nearest curve that never falls (least squares, all points alike), along the last axis.

    By its closed form, ``max over i <= k of min over j >= k of mean(values[i..j])``, so that thousands of short curves
    take a moment.

    >>> isotonic([1, 5, 3, 9]).tolist()
    [1.0, 4.0, 4.0, 9.0]
    """
    values = np.asarray(values, dtype=np.float64)
    n = values.shape[-1]
    sums = np.concatenate([np.zeros((*values.shape[:-1], 1)), np.cumsum(values, axis=-1)], axis=-1)
    found = np.empty_like(values)
    for k in range(n):
        best: FloatArray | None = None
        for i in range(k + 1):
            means = (sums[..., k + 1 :] - sums[..., i : i + 1]) / np.arange(k + 1 - i, n + 1 - i)
            smallest = means.min(axis=-1)
            best = smallest if best is None else np.maximum(best, smallest)
        found[..., k] = best
    return found


#: Share of what a module kind carries that a sufficient share of its neurons gives back.
SUFFICIENT = 0.9


def sufficient_share(fractions: ArrayLike, values: ArrayLike) -> FloatArray:
    """The smallest share of a kind's neurons that gives back 90 % of what the kind carries.

    ``values`` run from all of the kind held (share 0) to the intact model (share 1). They are made isotonic first, and
    joined by straight lines between the shares that were run. Where the intact model is no better than the one with
    all of the kind held there is nothing to give back, and the share is 1.

    Args:
        fractions: ``(F,)``, from 0 to 1, strictly increasing.
        values: ``(..., F)``; larger is better.

    Returns:
        ``(...)``, 0 < share <= 1.

    >>> round(float(sufficient_share([0.0, 0.1, 0.2, 1.0], [0.2, 0.4, 0.7, 0.7])), 4)
    0.1833
    """
    x, values = np.asarray(fractions, dtype=np.float64), np.asarray(values, dtype=np.float64)
    held, intact = values[..., 0], values[..., -1]
    target = (intact - (1 - SUFFICIENT) * (intact - held))[..., None]
    curve = isotonic(values)
    above = curve >= target - TIE
    place = np.maximum(np.argmax(above, axis=-1), 1)[..., None]
    low, high = (np.take_along_axis(curve, at, -1)[..., 0] for at in (place - 1, place))
    step = np.clip((target[..., 0] - low) / np.where(high > low, high - low, 1.0), 0.0, 1.0)
    found = x[place[..., 0] - 1] + step * (x[place[..., 0]] - x[place[..., 0] - 1])
    share: FloatArray = np.where((intact > held + TIE) & above.any(axis=-1), found, 1.0)
    return np.maximum(share, np.finfo(np.float64).tiny)


def holm(p_values: Sequence[float] | np.ndarray) -> FloatArray:
    """P values adjusted by Holm: the family-wise error rate at which each test would be called; NaN is no test.

    >>> holm([0.01, float("nan"), 0.04, 0.02]).round(3).tolist()
    [0.03, nan, 0.04, 0.04]
    """
    p = np.asarray(p_values, dtype=np.float64)
    (tested,) = np.nonzero(~np.isnan(p))
    order = tested[np.argsort(p[tested], kind="stable")]
    found = np.full(p.shape, np.nan)
    found[order] = np.minimum(1.0, np.maximum.accumulate(p[order] * np.arange(len(order), 0, -1)))
    return found


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


# --- density ---------------------------------------------------------------------------------------------------------


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
