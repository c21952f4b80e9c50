"""Selective pruning: can one class be cut out of the model while the others stay?

::

    score(n; c)      = I_n in proteins of c / (I_n in all others + eps)
    separability(c)  = mean over steps of  accuracy of the others / its start - accuracy of c / its start

I is how active a unit is, by one of :data:`STATISTICS`, the mean of its absolute activation where nothing else is
asked; eps is 0.001 in the feed-forward part and 0.0001 in attention. At every step the neurons of the highest score
are set to zero, until a share of all units is pruned; activations are measured again after each. Units are those of
``intermediate`` and ``value`` where nothing else is asked: a head mixes values over tokens, so that holding a value
holds the same unit of the mixed ones. Two nulls: random orders with as many neurons in every site, and the whole of it
with classes dealt, c being as many random proteins. A class that is merely fragile falls under both. Draws of both
follow the classes in turn, a few with the counts of each, and every class is judged beside all of them.

After Pochinkov and Schoots (arXiv:2403.01267) and Pochinkov et al. (arXiv:2408.17324). Departures: they prune 2 % a
step until a class is at chance; here steps are those asked for, 5, 10, 20, 30 and 50 % by default, whatever is left of
the class. Proteins count alike in I, not tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from plmscope.data.proteins import Protein
from plmscope.evaluation.interventions import Change, nothing
from plmscope.evaluation.selection import Selection
from plmscope.layout.measure import Measure, resampled
from plmscope.models.sites import NeuronIndex
from plmscope.stats.chance import benjamini_hochberg, compare_with_draws, percentile_interval

#: Modules whose neurons are pruned where nothing else is asked; shares of them that are gone after each step.
PRUNED = ("intermediate", "value")
STEPS = (0.05, 0.1, 0.2, 0.3, 0.5)
#: What keeps a ratio finite, by module; in all others ``EPSILON_ATTENTION``.
EPSILON, EPSILON_ATTENTION = {"intermediate": 1e-3, "output": 1e-3}, 1e-4
PRUNING = (
    "label", "statistic", "step", "fraction", "n_neurons", "accuracy_label", "accuracy_others",
    "accuracy_label_against", "accuracy_others_against", "accuracy_label_dealt", "accuracy_others_dealt",
)  # fmt: skip
SEPARABILITY = (
    "label", "statistic", "n_proteins", "separability", "ci_low", "ci_high", "against", "p_value", "p_kind", "dealt",
    "p_dealt", "n_draws", "q_value",
)  # fmt: skip


@dataclass(frozen=True)
class Statistic:
    """How active a unit is in a set of proteins.

    Attributes:
        moments: The ``K`` means over a protein's tokens that it is made of, by their names in
            :data:`~plmscope.layout.attributions.MOMENTS`.
        of: From their means over proteins, ``(K, N)``, to the statistic, ``(N,)``.
    """

    moments: tuple[str, ...]
    of: Callable[[np.ndarray], np.ndarray]


STATISTICS = {
    "mean_absolute": Statistic(("mean_absolute",), lambda m: m[0]),
    "root_mean_square": Statistic(("mean_square",), lambda m: np.sqrt(m[0])),
    "standard_deviation": Statistic(("mean_square", "mean"), lambda m: np.sqrt(np.maximum(m[0] - m[1] ** 2, 0))),
    "share_positive": Statistic(("share_positive",), lambda m: m[0]),
}
#: Moments ``(K, P, N)`` of the training proteins, named, with some neurons ``(N,)`` set to zero.
Activity = Callable[[Sequence[str], np.ndarray], np.ndarray]


def prunable(index: NeuronIndex, modules: Sequence[str] = PRUNED) -> np.ndarray:
    """``(N,)`` true for the units that may be pruned."""
    found: np.ndarray = np.array([site.module in modules for site in index.sites])[index.site_of]
    return found


def ratios(
    index: NeuronIndex,
    activity: np.ndarray,
    of_class: np.ndarray,
    statistic: str = "mean_absolute",
    modules: Sequence[str] = PRUNED,
) -> np.ndarray:
    """``(N,)`` the score of a class; lowest where a unit may not be pruned.

    Args:
        index: Which column is which neuron.
        activity: ``(K, P, N)`` the moments of the statistic in proteins.
        of_class: ``(P,)`` true for those of the class.
        statistic: How active a unit is, of :data:`STATISTICS`.
        modules: Module kinds whose units may be pruned.
    """
    eps = np.array([EPSILON.get(site.module, EPSILON_ATTENTION) for site in index.sites])[index.site_of]
    active = STATISTICS[statistic].of
    own, others = (active(activity[:, part].mean(1, dtype=np.float64)) for part in (of_class, ~of_class))
    return np.where(prunable(index, modules), own / (others + eps), -np.inf)


def pruned(
    index: NeuronIndex,
    activity: Activity,
    intact: np.ndarray,
    of_class: np.ndarray,
    steps: Sequence[float] = STEPS,
    statistic: str = "mean_absolute",
    modules: Sequence[str] = PRUNED,
) -> list[np.ndarray]:
    """What is gone after each step, ``(N,)`` booleans, each holding the one before.

    Args:
        index: The model's neurons.
        activity: Measures activations with neurons pruned.
        intact: ``(K, P, N)`` those with none pruned.
        of_class: ``(P,)`` true for the proteins of the class.
        steps: Shares of the units that may be pruned, increasing.
        statistic: How active a unit is, of :data:`STATISTICS`.
        modules: Module kinds whose units may be pruned.
    """
    total = int(prunable(index, modules).sum())
    gone, found = np.zeros(len(index), dtype=bool), []
    for place, step in enumerate(steps):
        seen = activity(STATISTICS[statistic].moments, gone) if place else intact
        score = np.where(gone, -np.inf, ratios(index, seen, of_class, statistic, modules))
        more = max(0, round(step * total) - int(gone.sum()))
        gone = gone.copy()
        gone[np.argsort(-score, kind="stable")[:more]] = True
        found.append(gone)
    return found


def random_order(index: NeuronIndex, steps: Sequence[np.ndarray], seed: Sequence[int]) -> list[np.ndarray]:
    """Nested random selections with as many neurons in every site as each step has."""
    order = np.random.default_rng(list(seed)).permutation(len(index))
    rank = np.zeros(len(index), dtype=np.int64)
    for site in range(len(index.sites)):
        own = order[index.site_of[order] == site]
        rank[own] = np.arange(len(own))
    found = []
    for mask in steps:
        wanted = np.bincount(index.site_of[mask], minlength=len(index.sites))
        found.append(rank < wanted[index.site_of])
    return found


def separability(right: np.ndarray, start: np.ndarray, weights: np.ndarray, own: np.ndarray) -> np.ndarray:
    """Separability of a class, ``(B,)`` one value a row of weights.

    Args:
        right: ``(S, P)`` whether each protein is decided right after each step.
        start: ``(P,)`` the same of the intact model.
        weights: ``(B, P)``; rows of ones for the estimate.
        own: ``(P,)`` true for proteins of the class.

    >>> right, start = np.array([[0, 0, 1, 1], [0, 0, 1, 0]]) > 0, np.ones(4, dtype=bool)
    >>> separability(right, start, np.ones((1, 4)), np.array([True, True, False, False])).tolist()
    [0.75]
    """

    def kept(part: np.ndarray) -> np.ndarray:
        w = weights[:, part].astype(np.float64)
        begun = w @ start[part]
        found: np.ndarray = (w @ right[:, part].T) / np.where(begun > 0, begun, np.nan)[:, None]
        return found

    found: np.ndarray = (kept(~own) - kept(own)).mean(1)
    return found


def pruning_tables(
    measure: Measure,
    index: NeuronIndex,
    activity: Activity,
    train: np.ndarray,
    proteins: Sequence[Protein],
    clusters: Sequence[str],
    true: np.ndarray,
    labels: Sequence[str],
    draws: int = 20,
    seed: int = 0,
    steps: Sequence[float] = STEPS,
    statistic: str = "mean_absolute",
    modules: Sequence[str] = PRUNED,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Of one statistic ``pruning.parquet``, a row a class and step, and ``separability.parquet``, a row a class.

    Args:
        measure: Runs the model on test proteins.
        index: The model's neurons.
        activity: Measures activations of training proteins.
        train: ``(Q,)`` class numbers of the training proteins.
        proteins: Test proteins.
        clusters: Cluster of each.
        true: ``(P,)`` class numbers.
        labels: Class names, in the order of their numbers.
        draws: Random orders, and deals of the classes, each after the classes in turn.
        seed: Of both and of resamples.
        steps: Shares that are gone after each step.
        statistic: How active a unit is, of :data:`STATISTICS`.
        modules: Module kinds whose units may be pruned.

    Returns:
        A class is left out of the second table that has no training protein, or no test protein that is decided right;
        it has no ``q_value`` yet, see :func:`corrected`.
    """
    intact = activity(STATISTICS[statistic].moments, np.zeros(len(index), dtype=bool))
    how = (steps, statistic, modules)
    present = [c for c in range(len(labels)) if (train == c).any() and (train != c).any()]
    (odds,) = measure("pruning-intact", proteins, [nothing(index)])
    start = odds.argmax(1) == true
    gone = {c: pruned(index, activity, intact, train == c, *how) for c in present}
    turn = [present[r % len(present)] for r in range(draws if present else 0)]
    orders = [random_order(index, gone[c], (seed, 61, r)) for r, c in enumerate(turn)]
    dealt = [
        pruned(index, activity, intact, np.random.default_rng([seed, 62, r]).permutation(train == c), *how)
        for r, c in enumerate(turn)
    ]
    changes = [Change(Selection(index, mask), 0.0) for one in (*gone.values(), *orders, *dealt) for mask in one]
    found = measure(f"pruning-{statistic}", proteins, changes)
    right = (found.argmax(2) == true).reshape(-1, len(steps), len(proteins))
    first, second = len(present), len(present) + draws
    weights = resampled(clusters, true, seed)
    ones = np.ones((1, len(proteins)))
    rows, summary = [], []
    for place, c in enumerate(present):
        own = true == c
        if not own.any() or own.all():
            continue
        of_class, others = right[:, :, own].mean(2), right[:, :, ~own].mean(2)
        for s, step in enumerate(steps):
            rows.append(
                {
                    "label": labels[c], "statistic": statistic, "step": s + 1, "fraction": step,
                    "n_neurons": int(gone[c][s].sum()), "accuracy_label": of_class[place, s],
                    "accuracy_others": others[place, s],
                    "accuracy_label_against": of_class[first:second, s].mean() if draws else np.nan,
                    "accuracy_others_against": others[first:second, s].mean() if draws else np.nan,
                    "accuracy_label_dealt": of_class[second:, s].mean() if draws else np.nan,
                    "accuracy_others_dealt": others[second:, s].mean() if draws else np.nan,
                }
            )  # fmt: skip
        if not start[own].any() or not start[~own].any():
            continue
        value = [float(separability(one, start, ones, own)[0]) for one in (right[place], *right[first:])]
        samples = separability(right[place], start, weights, own)
        ends = percentile_interval(samples[np.isfinite(samples)])
        tests = [compare_with_draws(value[0], part, 1) for part in (value[1 : 1 + draws], value[1 + draws :])]
        summary.append(
            {
                "label": labels[c], "statistic": statistic, "n_proteins": int(own.sum()), "separability": value[0],
                "ci_low": ends.low, "ci_high": ends.high, "against": _mean(value[1 : 1 + draws]),
                "p_value": tests[0].p_value, "p_kind": tests[0].p_kind, "dealt": _mean(value[1 + draws :]),
                "p_dealt": tests[1].p_value, "n_draws": draws,
            }
        )  # fmt: skip
    known = [column for column in SEPARABILITY if column != "q_value"]
    return pd.DataFrame(rows, columns=list(PRUNING)), pd.DataFrame(summary, columns=known)


def corrected(table: pd.DataFrame) -> pd.DataFrame:
    """``separability.parquet`` of all statistics with ``q_value``, which is over all their tests."""
    tested = table["p_value"].where(table["p_kind"] == "permutation").to_numpy(dtype=np.float64)
    return table.assign(q_value=benjamini_hochberg(tested))


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values)) if len(values) else float("nan")
