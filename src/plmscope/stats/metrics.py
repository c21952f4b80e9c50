"""How good predictions are: a number for all proteins, or one for each resample of them.

A resample is a row of counts, one per protein, so that a metric on 2,000 resamples is a matrix product
(:func:`weighted_metric`). In a multi-label task a class of a protein is one answer.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

from plmscope.data.labels import pack, packed_has
from plmscope.errors import SelectionError

FloatArray = NDArray[np.float64]


METRICS = ("accuracy", "balanced_accuracy", "macro_f1", "log_loss", "true_class_probability", "log_probability")


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
    * ``log_loss``: weighted mean of ``-log_prob_true``, in nats, not capped
    (:func:`~plmscope.stats.curves.metric_area` caps it);
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
                per_protein = np.maximum(per_protein, -2 * math.log(n_answers(true, n_classes)))
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


def n_answers(true: ArrayLike, n_classes: int) -> int:
    """Between how many answers a guess chooses: a multi-label task asks yes or no about every class."""
    return 2 if np.ndim(true) == 2 else n_classes
