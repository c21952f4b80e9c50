"""How few neurons suffice: the smallest set that, kept alone, gives back most of what the model does.

::

    faithfulness(k) = (M(keep the best k) - M(keep none)) / (M(intact) - M(keep none))

``M`` is the balanced accuracy or the mean log-odds of the true class; *keep none* holds every neuron at its mean, or
every neuron of one module kind with all others intact. The smallest k is sought by bisection of log k, in at most 20
steps, until its ends differ by a tenth: it is the smallest k that was tried whose lower bound (95 % interval over
resampled clusters, made to rise with k) is at least the target. The null is the same search on random orders with as
many neurons in every site as the method has among its best k.

The bounds that choose k are pooled where one falls as k grows; ``ci_low`` of the table is the bound at that k as it was
measured, so that it may lie below the target.

Faithfulness as it is defined for circuits; bisection of k and isotonic regression are ours.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from plmscope.data.proteins import Protein
from plmscope.evaluation.interventions import Change, nothing
from plmscope.evaluation.kinds import ROUNDING
from plmscope.evaluation.selection import MODULE, Selection, of_module
from plmscope.layout.measure import Measure
from plmscope.models.architectures import MODULES
from plmscope.models.sites import NeuronIndex
from plmscope.scoring.scores import NeuronScores
from plmscope.stats.chance import compare_with_draws, percentile_interval
from plmscope.stats.curves import isotonic
from plmscope.stats.metrics import weighted_metric

JUDGING_METRICS = ("balanced_accuracy", "log_odds")
#: A search ends after so many steps, or where its ends differ by this factor.
STEPS, NEAR = 20, 1.1


@dataclass(frozen=True)
class Judges:
    """The proteins that a set is judged on.

    Attributes:
        proteins: ``P`` of them.
        true: ``(P,)`` class numbers.
        weights: ``(B, P)`` of the bootstrap.
        n_classes: Classes of the model.
    """

    proteins: Sequence[Protein]
    true: np.ndarray
    weights: np.ndarray
    n_classes: int

    def values(self, metric: str, odds: np.ndarray) -> np.ndarray:
        """A metric of log-odds ``(P, C)`` on the proteins and under every resample, ``(1 + B,)``."""
        weights = np.concatenate([np.ones((1, len(self.true)), dtype=self.weights.dtype), self.weights])
        own = odds[np.arange(len(self.true)), self.true]
        if metric == "log_odds":
            means: np.ndarray = weights @ own / weights.sum(1)
            return means
        metrics = weighted_metric(metric, weights, self.true, odds.argmax(1)[None], own[None], self.n_classes)
        return np.asarray(metrics[:, 0])


@dataclass
class _Search:
    """One order of neurons: its nested selections, and what is known of them.

    Attributes:
        index: Which entry is which neuron.
        ranked: Positions of the method's neurons, best first; a draw has as many in every site.
        rank: ``(N,)`` place of a neuron among those of its site.
        always: ``(N,)`` neurons that are kept whatever k is.
        ends: Metric to the largest k known not to suffice, and the smallest known to.
        tried: k to metric to estimate, lower and upper bound of the faithfulness.
    """

    index: NeuronIndex
    ranked: np.ndarray
    rank: np.ndarray
    always: np.ndarray
    ends: dict[str, tuple[int, int]]
    tried: dict[int, dict[str, tuple[float, float, float]]] = field(default_factory=dict)

    @property
    def n(self) -> int:
        """Neurons to choose from."""
        return len(self.ranked)

    def kept(self, k: int) -> np.ndarray:
        """``(N,)`` true for what is kept."""
        counts = np.bincount(self.index.site_of[self.ranked[:k]], minlength=len(self.index.sites))
        mask: np.ndarray = self.always | (self.rank < counts[self.index.site_of])
        return mask

    def next(self, metric: str) -> int | None:
        """The k to try next; None where the search is done."""
        low, high = self.ends[metric]
        if high <= max(low + 1, low * NEAR):
            return None
        return min(high - 1, max(low + 1, round(math.sqrt(max(low, 1) * high))))

    def smallest(self, metric: str, target: float) -> int:
        """The smallest k tried whose lower bound, made to rise with k, is at least the target."""
        known = {0: -math.inf, **{k: found[metric][1] for k, found in self.tried.items()}, self.n: 1.0}
        ks = sorted(known)[1:]
        rising = isotonic([max(-10.0, known[k]) for k in ks])
        return next(k for k, bound in zip(ks, rising, strict=True) if bound >= target - 1e-12)


def sufficient_sets(
    measure: Measure,
    judges: Judges,
    scores: Mapping[str, NeuronScores],
    scopes: Sequence[str] = ("", *MODULES),
    target: float = 0.9,
    draws: int = 20,
    seed: int = 0,
) -> pd.DataFrame:
    """``sufficient.parquet``: the smallest sufficient set of every method, pooled and within module kinds.

    Args:
        measure: Runs the model.
        judges: Proteins that had no part in the scores.
        scores: Method to what its neurons are ranked by.
        scopes: Module kinds; empty: all neurons together.
        target: Faithfulness that suffices, above 0 and below 1.
        draws: Random orders a method and scope.
        seed: Of the random orders.

    Returns:
        One row a method, scope and metric: ``method, scope, module, metric, target, n_neurons, intact, held, carried``
        (with ``carried_low``), ``judged`` (whether anything is carried that could be given back), ``k, fraction``,
        ``faithfulness`` with ``ci_low`` and ``ci_high`` at that k as measured, ``k_random`` (median of the draws),
        ``n_draws``, ``p_value`` (one-sided, for as few neurons) and ``p_kind``.
    """
    index = next(iter(scores.values())).index
    inside = {m: of_module(index, m) if m else np.ones(len(index), dtype=bool) for m in scopes}
    ends = [nothing(index), *(Change(Selection(index, mask), None) for mask in inside.values())]
    odds = measure("sufficient-ends", judges.proteins, ends)
    intact = {metric: judges.values(metric, odds[0]) for metric in JUDGING_METRICS}
    empty = {(m, metric): judges.values(metric, found) for m, found in zip(inside, odds[1:], strict=True)
             for metric in JUDGING_METRICS}  # fmt: skip
    low = {key: percentile_interval((intact[key[1]] - value)[1:]).low for key, value in empty.items()}
    searches: dict[tuple[str, str, int], _Search] = {}
    for place, (method, one) in enumerate(scores.items()):
        for m, mask in inside.items():
            metrics = [metric for metric in JUDGING_METRICS if low[m, metric] > ROUNDING]
            for r in range(-1, draws if metrics else 0):
                seeds = [seed, 21, place, list(inside).index(m), r]
                searches[method, m, r] = _search(one, mask, metrics, None if r < 0 else seeds)
    for step in range(STEPS):
        todo = sorted({(key, k) for key, one in searches.items() for metric in one.ends
                       if (k := one.next(metric)) is not None and k not in one.tried})  # fmt: skip
        waiting = {(key, metric): k for key, one in searches.items() for metric in one.ends
                   if (k := one.next(metric)) is not None}  # fmt: skip
        if not waiting:
            break
        changes = [Change(Selection(index, ~searches[key].kept(k)), None) for key, k in todo]
        for (key, k), found in zip(todo, measure(f"sufficient-{step}", judges.proteins, changes), strict=True):
            searches[key].tried[k] = {metric: _faithful(judges.values(metric, found), empty[key[1], metric],
                                                        intact[metric]) for metric in JUDGING_METRICS}  # fmt: skip
        for (key, metric), k in waiting.items():
            search, (below, above) = searches[key], searches[key].ends[metric]
            search.ends[metric] = (below, k) if search.tried[k][metric][1] >= target else (k, above)
    rows = []
    for method in scores:
        for m, mask in inside.items():
            for metric in JUDGING_METRICS:
                carried = float(intact[metric][0] - empty[m, metric][0])
                row: dict[str, object] = {
                    "method": method, "scope": MODULE if m else "pooled", "module": m, "metric": metric,
                    "target": target, "n_neurons": int(mask.sum()), "intact": float(intact[metric][0]),
                    "held": float(empty[m, metric][0]), "carried": carried, "carried_low": low[m, metric],
                    "judged": low[m, metric] > ROUNDING,
                }  # fmt: skip
                rows.append(row | _found(searches, method, m, metric, target, draws))
    return pd.DataFrame(rows)


def _search(one: NeuronScores, mask: np.ndarray, metrics: Sequence[str], seeds: Sequence[int] | None) -> _Search:
    """The search along a ranking, or along a random order that matches it."""
    index, n = one.index, int(mask.sum())
    order = np.argsort(-one.values, kind="stable")
    ranked = order[mask[order]]
    if seeds is not None:
        order = np.random.default_rng([abs(s) for s in seeds]).permutation(len(index))
    rank = np.zeros(len(index), dtype=np.int64)
    for site in range(len(index.sites)):
        own = order[index.site_of[order] == site]
        rank[own] = np.arange(len(own))
    return _Search(index, ranked, rank, ~mask, dict.fromkeys(metrics, (0, n)))


def _faithful(kept: np.ndarray, empty: np.ndarray, intact: np.ndarray) -> tuple[float, float, float]:
    """Faithfulness with its bounds; a resample in which nothing is carried counts as none given back."""
    carried = intact - empty
    shares = np.where(carried > ROUNDING, (kept - empty) / np.where(carried > ROUNDING, carried, 1.0), 0.0)
    interval = percentile_interval(shares[1:])
    return float(shares[0]), interval.low, interval.high


def _found(
    searches: Mapping[tuple[str, str, int], _Search], method: str, m: str, metric: str, target: float, draws: int
) -> dict[str, object]:
    """What the searches of one method, scope and metric came to."""
    own = searches[method, m, -1]
    names = ("k", "fraction", "faithfulness", "ci_low", "ci_high", "k_random", "p_value")
    row: dict[str, object] = dict.fromkeys(names, math.nan) | {"n_draws": 0, "p_kind": "not_judged"}
    if metric not in own.ends:
        return row
    k = own.smallest(metric, target)
    at = own.tried.get(k, {metric: (1.0, 1.0, 1.0)})[metric]
    row |= {"k": float(k), "fraction": k / own.n, "faithfulness": at[0], "ci_low": at[1], "ci_high": at[2]}
    drawn = np.array([searches[method, m, r].smallest(metric, target) for r in range(draws)], dtype=np.float64)
    test = compare_with_draws(float(k), drawn, -1)
    row |= {"k_random": float(np.median(drawn)) if len(drawn) else math.nan, "n_draws": len(drawn)}
    return row | {"p_value": test.p_value, "p_kind": test.p_kind}
