"""How good a curve is, and whether it beats chance.

A *curve* is a metric over the grid of fractions. A method has one; each random draw has one of its own. What is
compared is the area under them (trapezoid rule, linear axis)::

    difference = area(method) - mean over draws of area(draw)

* the p value asks how often a draw does at least as well (:func:`compare_with_draws`);
* the interval resamples clusters of test proteins, stratified by class, and the draws, and takes the method's selection
  as one of many (:func:`bootstrap_difference`);
* :func:`compare_curves` puts both into one :class:`CurveComparison`, a row of ``comparison.parquet``.

Axes: ``B`` resamples, ``P`` proteins, ``K`` sets of predictions, ``R`` draws, ``F`` points
of the grid.

>>> float(curve_area([0.0, 0.5, 1.0], [0.0, 1.0, 1.0]))
0.75
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from plmscope.errors import SelectionError
from plmscope.stats.chance import TIE, compare_with_draws, percentile_interval
from plmscope.stats.metrics import FloatArray, n_answers, weighted_metric


@dataclass(frozen=True, slots=True)
class CurveComparison:
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


# --- comparison with chance ------------------------------------------------------------------------------------------


def curve_values(
    name: str, weights: ArrayLike, true: ArrayLike, predicted: ArrayLike, log_prob_true: ArrayLike, n_classes: int
) -> FloatArray:
    """A metric of ``K`` curves of ``F`` points under ``B`` weightings of the proteins, ``(B, K, F)``.

    Args:
        name: One of :data:`~plmscope.stats.metrics.METRICS`; a log-loss above 2 ln C counts as that, as in
            :func:`metric_area`.
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
    return np.minimum(values, 2 * math.log(n_answers(true, n_classes))) if name == "log_loss" else values


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
        name: One of :data:`~plmscope.stats.metrics.METRICS`.
        fractions: ``(F,)``, strictly increasing.
        weights: ``(B, P)`` from :func:`~plmscope.stats.chance.bootstrap_weights`.
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
) -> CurveComparison:
    """A method's curve against its draws: areas, difference, interval, p value.

    Args:
        name: One of :data:`~plmscope.stats.metrics.METRICS`.
        better: +1 or -1, from :func:`~plmscope.stats.metrics.better_sign`.
        fractions: ``(F,)``, strictly increasing.
        weights: ``(B, P)`` from :func:`~plmscope.stats.chance.bootstrap_weights`, shared by all comparisons on the
            same proteins.
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
    return CurveComparison(
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
    floored = np.maximum(np.asarray(log_prob_true, dtype=np.float64), -2 * math.log(n_answers(true, n_classes)))
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
    fitted = np.empty_like(values)
    for k in range(n):
        best: FloatArray | None = None
        for i in range(k + 1):
            means = (sums[..., k + 1 :] - sums[..., i : i + 1]) / np.arange(k + 1 - i, n + 1 - i)
            smallest = means.min(axis=-1)
            best = smallest if best is None else np.maximum(best, smallest)
        fitted[..., k] = best
    return fitted


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
    shares = x[place[..., 0] - 1] + step * (x[place[..., 0]] - x[place[..., 0] - 1])
    share: FloatArray = np.where((intact > held + TIE) & above.any(axis=-1), shares, 1.0)
    return np.maximum(share, np.finfo(np.float64).tiny)


# --- density ---------------------------------------------------------------------------------------------------------
