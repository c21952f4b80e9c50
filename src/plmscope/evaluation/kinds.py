"""What every module kind carries, and how small a share of it suffices: scope ``module`` as a table.

A kind *carries* what is lost when all of its neurons are held. The sufficient share gives back nine tenths of it, and
*concentration* is that share of matched draws over that of the method: 1 is no better than chance.
"""

from __future__ import annotations

import math

import numpy as np
import pandas as pd

from plmscope.evaluation.curves import INTACT, CurveCell, Curves, held_point
from plmscope.evaluation.selection import (
    of_module,
)
from plmscope.models.sites import NeuronIndex
from plmscope.stats.chance import compare_with_draws, holm, percentile_interval
from plmscope.stats.curves import curve_area, curve_values, sufficient_share, with_spread
from plmscope.stats.metrics import better_sign

#: A module kind carries something if the interval is above this: in single precision logits differ by 1e-5.
ROUNDING = 1e-4


#: What is said about a module kind.
MODULE_METRICS = ("balanced_accuracy", "log_probability")


def module_table(curves: Curves, index: NeuronIndex, model: str = "run") -> pd.DataFrame:
    """``modules.parquet``: what every module kind carries, and how few of its neurons carry most of it.

    ::

        carried       = intact - all of the kind held
        concentration = sufficient share of matched draws / that of the method

    (:func:`~plmscope.stats.curves.sufficient_share`). A kind is judged where the interval of ``carried`` is above 0, by
    more than rounding (:data:`ROUNDING`): of one that carries nothing no share can carry most. P values within a method
    are adjusted by Holm over the kinds judged.

    Args:
        curves: With cells of scope ``module``.
        index: The model's neurons.
        model: Which model it is.
    """
    rows = []
    for cell in (cell for cell in curves.cells if cell.module):
        for method in curves.methods(cell):
            for control, predicted, log_prob in curves.controls(cell, method):
                if control == "random_matched":
                    for name in MODULE_METRICS:
                        row: dict[str, object] = {
                            "model": model,
                            "method": method,
                            "ranked_by": curves.ranked_by.get(method, method),
                        }
                        row |= {"mode": cell.mode, "ablation": cell.ablation, "metric": name, "module": cell.module}
                        row["n_neurons"] = int(of_module(index, cell.module).sum())
                        rows.append(row | _module_row(curves, cell, name, predicted, log_prob))
    frame = pd.DataFrame(rows)
    if len(frame):
        keys = ["method", "mode", "ablation", "metric"]
        tested = frame["p_value"].where(frame["p_kind"] == "permutation")
        frame["p_holm"] = tested.groupby([frame[key] for key in keys]).transform(lambda p: holm(p.to_numpy()))
    return frame


def carried_row(curves: Curves, cell: CurveCell, name: str) -> dict[str, object]:
    """What all neurons of a cell's module kind carry: ``intact``, ``held``, ``carried`` with its interval, ``judged``.

    Needs the intact model and the kind held, no curve.
    """
    ends = [curves.found[INTACT], curves.found[held_point(cell.ablation, cell.module)]]
    predicted, log_prob = (np.array([getattr(p, n) for p in ends])[:, None] for n in ("predicted", "log_prob_true"))
    one = np.ones((1, curves.weights.shape[1]), dtype=np.int64)
    plain, sampled = (
        curve_values(name, w, curves.true, predicted, log_prob.astype(np.float64), curves.n_classes)[..., 0]
        for w in (one, curves.weights)
    )  # (1, 2), (B, 2)
    interval = percentile_interval(sampled[:, 0] - sampled[:, 1])
    return {
        "intact": float(plain[0, 0]), "held": float(plain[0, 1]), "carried": float(plain[0, 0] - plain[0, 1]),
        "carried_low": interval.low, "carried_high": interval.high, "judged": interval.low > ROUNDING,
    }  # fmt: skip


def _module_row(
    curves: Curves, cell: CurveCell, name: str, predicted: np.ndarray, log_prob: np.ndarray
) -> dict[str, object]:
    """The numbers of one row of ``modules.parquet``."""
    axis, weights = curves.axis(cell), curves.weights
    one = np.ones((1, weights.shape[1]), dtype=np.int64)
    plain, sampled = (
        curve_values(name, w, curves.true, predicted, log_prob, curves.n_classes) for w in (one, weights)
    )  # (1, 1 + R, F), (B, 1 + R, F)
    ends = carried_row(curves, cell, name)
    judged = ends["judged"]
    area = curve_area(axis, plain[0])  # (1 + R,)
    own, against = with_spread(sampled, np.random.default_rng([curves.seed, 2]))  # (B, F)
    interval = percentile_interval(curve_area(axis, own) - curve_area(axis, against))
    test = compare_with_draws(float(area[0]), area[1:], better_sign(name, cell.mode))
    row: dict[str, object] = ends | {
        "auc": float(area[0]), "auc_against": float(area[1:].mean()),
        "difference": float(area[0] - area[1:].mean()), "ci_low": interval.low, "ci_high": interval.high,
        "p_value": test.p_value if judged else math.nan, "p_kind": test.p_kind if judged else "not_judged",
        "p_holm": math.nan, "n_draws": len(area) - 1,
    }  # fmt: skip
    shares = ("sufficient_share", "sufficient_low", "sufficient_high", "sufficient_share_against")
    ratios = ("concentration", "concentration_low", "concentration_high")
    row |= dict.fromkeys((*shares, *ratios), math.nan)
    if judged and cell.mode == "keep":
        found = float(sufficient_share(axis, plain[0, 0])), float(sufficient_share(axis, plain[0, 1:].mean(0)))
        both = sufficient_share(axis, own), sufficient_share(axis, against)  # (B,)
        row |= dict(zip(shares, (found[0], *percentile_interval(both[0]), found[1]), strict=True))
        row |= dict(zip(ratios, (found[1] / found[0], *percentile_interval(both[1] / both[0])), strict=True))
    return row
