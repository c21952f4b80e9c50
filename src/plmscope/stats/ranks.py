"""How well one group ranks above another: areas under ROC curves and Wilcoxon's two tests, for many columns at once."""

from __future__ import annotations

import numpy as np
from scipy.stats import norm

from plmscope.stats.chance import TINY


def auroc_of_histograms(positive: np.ndarray, negative: np.ndarray) -> np.ndarray:
    """Area under the ROC curve ``(k,)`` from counts per level ``(k, L)``; ties count half; NaN if a side is empty."""
    below = np.cumsum(negative, axis=1) - negative
    with np.errstate(invalid="ignore", divide="ignore"):
        area: np.ndarray = (positive * (below + negative / 2)).sum(1) / (positive.sum(1) * negative.sum(1))
    return area


def signed_rank_p(differences: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """One-sided Wilcoxon signed-rank test from binned differences.

    Args:
        differences: ``(k, 2 B + 1)`` counts of differences in bins from -B to B; zeros do not count.

    Returns:
        p that the differences are no larger than 0 (normal approximation with ties; NaN for fewer than six), and the
        number of differences that are not zero.
    """
    half = differences.shape[1] // 2
    up, down = differences[:, half + 1 :].astype(np.float64), differences[:, :half][:, ::-1].astype(np.float64)
    both = up + down
    rank = np.cumsum(both, axis=1) - both + (both + 1) / 2
    excess = (up * rank).sum(1) - (both * rank).sum(1) / 2
    deviation = np.sqrt((both * rank**2).sum(1) / 4)
    n = both.sum(1)
    p = np.maximum(norm.sf(excess / np.where(deviation > 0, deviation, 1)), TINY)
    return np.where(n >= 6, p, np.nan), n.astype(np.int64)


def rank_sum_p(positive: np.ndarray, negative: np.ndarray) -> np.ndarray:
    """One-sided rank-sum test ``(k,)`` from counts per level ``(k, L)``, ties corrected; NaN below six a side."""
    a, b = positive.sum(1).astype(np.float64), negative.sum(1).astype(np.float64)
    both = (positive + negative).astype(np.float64)
    total = a + b
    ties = (both**3 - both).sum(1) / np.maximum(total * (total - 1), 1)
    deviation = np.sqrt(np.maximum((total + 1 - ties) / (12 * np.maximum(a * b, 1)), 1e-30))
    area = np.nan_to_num(auroc_of_histograms(positive, negative), nan=0.5)
    p: np.ndarray = np.maximum(norm.sf((area - 0.5) / deviation), TINY)
    return np.where((a >= 6) & (b >= 6), p, np.nan)
