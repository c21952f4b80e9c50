"""Which scorer to trust: each one beside what the model does without single neurons, on the same proteins.

``single_ablation`` holds every neuron, one at a time, and says what the true class loses. It asks the question itself,
and is dear: one forward pass a neuron. Every other scorer is an estimate of it, or of something else::

    rank_r         Spearman's r of a score with the effects of single ablation, over the neurons that were held
    rank_r_within  the same within sites, mean over sites: what is left when knowing the right modules does not count
    top_share      share of the score's best 5 % that is among the best 5 % of single ablation
    keep, ablate   area under balanced accuracy when the best neurons alone are kept, or are ablated, over the shares
    split_half     Spearman's r between the scores from two random halves of the clusters, mean over halves

A score without a sign is compared with the size of the effects. Of the scores that selections can be ranked by, the
cheapest whose ``rank_r`` is within 0.05 of the best is *recommended*.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from scipy.stats import spearmanr

from plmscope.evaluation.curves import INTACT, CurvePoint, Grid
from plmscope.evaluation.predict import Predictions
from plmscope.scoring.scores import NeuronScores
from plmscope.scoring.table import FORMS, row_of, rows, signed_methods
from plmscope.stats.curves import metric_area
from plmscope.stats.metrics import metric

#: The yardstick.
TRUTH = "single_ablation"
#: Share of the neurons that counts as best, and how far below the best ``rank_r`` a recommended score may be.
BEST, NEAR = 0.05, 0.05
#: Random halves of the clusters.
HALVES = 10


def scorers(methods: Sequence[str] = ()) -> tuple[tuple[str, ...], ...]:
    """The scores of each scorer that are compared, the yardstick first: one entry for what one function gives.

    Args:
        methods: Those that are wanted; empty: every scorer that fits nothing (probes need many proteins).
    """
    found = []
    for row in rows():
        if TRUTH in row.methods or (any(m in row.methods for m in methods) if methods else not row.fit):
            absolute = [name + FORMS["absolute"] for name in row.methods] if row.signed else []
            found.append((*row.methods, *absolute))
    return tuple(sorted(found, key=lambda names: TRUTH not in names))


def agreement(one: NeuronScores, truth: NeuronScores) -> tuple[float, float, float]:
    """``rank_r``, ``rank_r_within`` and ``top_share`` of a score with single ablation, whose unknown values are NaN."""
    known = np.isfinite(truth.values)
    effect = truth.values if one.method in signed_methods() else np.abs(truth.values)
    within = []
    for site in range(len(one.index.sites)):
        own = known & (one.index.site_of == site)
        if own.any() and np.ptp(one.values[own]) > 0 and np.ptp(effect[own]) > 0:
            within.append(spearmanr(one.values[own], effect[own]).statistic)
    best = max(1, round(BEST * known.sum()))
    places = np.flatnonzero(known)
    ours, theirs = (set(places[np.argsort(-v[known], kind="stable")[:best]]) for v in (one.values, effect))
    overall = spearmanr(one.values[known], effect[known]).statistic
    return float(overall), float(np.mean(within)) if within else float("nan"), len(ours & theirs) / best


def split_half(one: NeuronScores, halves: int = HALVES, seed: int = 0) -> float:
    """Mean of Spearman's r between the scores of random halves of the clusters, the same number in every class."""
    if one.resample is None or one.sums is None:
        return float("nan")
    classes = np.array([label for label, _ in one.sums.keys])
    rng, found = np.random.default_rng([seed, 27]), []
    for _ in range(halves):
        first = np.zeros(len(classes))
        for label in set(classes):
            own = rng.permutation(np.flatnonzero(classes == label))
            first[own[: len(own) // 2]] = 1
        values = [one.resample(weights) for weights in (first, 1 - first)]
        known = np.isfinite(values[0]) & np.isfinite(values[1])
        if known.sum() > 1 and all(np.ptp(value[known]) > 0 for value in values):
            found.append(spearmanr(values[0][known], values[1][known]).statistic)
    return float(np.mean(found)) if found else float("nan")


def area_points(grid: Grid, draws: int, ablation: str = "zero") -> list[CurvePoint]:
    """The points that the areas need: keep and ablate, all neurons ranked together, beside random neurons."""
    return grid.points(("keep", "ablate"), (ablation,), ("pooled",), ("random",), draws, draws)


def areas(
    points: Sequence[CurvePoint], found: Sequence[Predictions], fractions: Sequence[float], true: np.ndarray, n: int
) -> tuple[float, dict[tuple[str, str], float]]:
    """Balanced accuracy of the intact model, and the area under it by method (or ``random``) and mode.

    An area is divided by the range of the shares, so that it is a balanced accuracy. ``n`` is the number of classes.
    """
    values = {
        point: metric("balanced_accuracy", true, p.predicted, p.log_prob_true, n)
        for point, p in zip(points, found, strict=True)
    }
    curves: dict[tuple[str, str, int], list[float]] = {}
    for point, value in values.items():
        if point != INTACT:
            curves.setdefault((point.method, point.mode, point.draw), []).append(value)
    by_method: dict[tuple[str, str], list[float]] = {}
    for (method, mode, _), curve in curves.items():
        if len(fractions) > 1:
            width = fractions[-1] - fractions[0]
            area = float(metric_area("balanced_accuracy", tuple(fractions), curve, n)) / width
        else:
            area = curve[0]
        by_method.setdefault((method, mode), []).append(area)
    return values[INTACT], {key: float(np.mean(each)) for key, each in by_method.items()}


def table(
    scores: Mapping[str, NeuronScores],
    halves: Mapping[str, float],
    seconds: Mapping[str, float],
    area: Mapping[tuple[str, str], float],
    intact: float,
    n_proteins: int,
) -> pd.DataFrame:
    """``faithfulness.parquet``: one row a score.

    Args:
        scores: Name to scores, :data:`TRUTH` among them.
        halves: Name to ``split_half``.
        seconds: Name to CPU seconds of the scorer that gives it.
        area: From :func:`areas`; a score that was not judged is not there.
        intact: Balanced accuracy of the intact model on the same proteins.
        n_proteins: Scored proteins, which the seconds are divided by.
    """
    none = float("nan")
    found = []
    for name, one in scores.items():
        overall, within, top = agreement(one, scores[TRUTH])
        found.append(
            {
                "method": name, "signed": name in signed_methods(), "rank_r": overall, "rank_r_within": within,
                "top_share": top, "keep": area.get((name, "keep"), none), "ablate": area.get((name, "ablate"), none),
                "keep_random": area.get(("random", "keep"), none),
                "ablate_random": area.get(("random", "ablate"), none), "intact": intact,
                "split_half": halves[name], "cpu_seconds": seconds[name] / n_proteins, "n_proteins": n_proteins,
                "n_neurons": int(np.isfinite(scores[TRUTH].values).sum()),
            }
        )  # fmt: skip
    frame = pd.DataFrame(found)
    return frame.assign(recommended=recommended(frame))


def recommended(frame: pd.DataFrame) -> pd.Series:
    """True in the row of the cheapest unsigned score whose ``rank_r`` is within :data:`NEAR` of the best one's.

    The yardstick itself is no candidate, nor is a score with a sign, whose most negative neurons matter as much.
    """
    truth = row_of(TRUTH).names
    able = frame[~frame["signed"] & ~frame["method"].isin(truth) & frame["rank_r"].notna()]
    near = able[able["rank_r"] >= able["rank_r"].max() - NEAR]
    first = near.sort_values("cpu_seconds", kind="stable").index[:1]
    return pd.Series(frame.index.isin(first), index=frame.index)
