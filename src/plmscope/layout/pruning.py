"""Selective pruning: can one class be cut out of the model while the others stay?

::

    score(n; c)      = mean |a_n| in proteins of c / (mean |a_n| in all others + eps)          eps: 0.001, value 0.0001
    separability(c)  = mean over steps of  accuracy of the others / its start - accuracy of c / its start

At every step the neurons of the highest score are set to zero, until a share of all units is pruned; activations are
measured again after each. Units are those of ``intermediate`` and ``value``: a head mixes values over tokens, so that
holding a value holds the same unit of the mixed ones. Two nulls: random orders with as many neurons in every site, and
the whole of it with classes dealt, c being as many random proteins. A class that is merely fragile falls under both.
Draws of both follow the classes in turn, a few with the counts of each, and every class is judged beside all of them.

After Pochinkov and Schoots (arXiv:2403.01267) and Pochinkov et al. (arXiv:2408.17324). Departures: they prune 2 % a
step until a class is at chance; here steps go to 5, 10, 20, 30 and 50 % whatever is left of the class. Of their
statistics only the mean absolute activation is here, no root mean square or standard deviation; and units of all six
modules cannot be asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd

from plmscope.data.proteins import Protein
from plmscope.evaluation.interventions import Change, nothing
from plmscope.evaluation.selection import Selection
from plmscope.layout.measure import Measure, resampled
from plmscope.models.sites import NeuronIndex
from plmscope.stats.chance import benjamini_hochberg, compare_with_draws, percentile_interval

#: Modules whose neurons are pruned, with what keeps a ratio finite; shares of them that are gone after each step.
EPSILON = {"intermediate": 1e-3, "value": 1e-4}
STEPS = (0.05, 0.1, 0.2, 0.3, 0.5)
STATISTIC = "mean_absolute"
PRUNING = (
    "label", "statistic", "step", "fraction", "n_neurons", "accuracy_label", "accuracy_others",
    "accuracy_label_against", "accuracy_others_against", "accuracy_label_dealt", "accuracy_others_dealt",
)  # fmt: skip
SEPARABILITY = (
    "label", "statistic", "n_proteins", "separability", "ci_low", "ci_high", "against", "p_value", "p_kind", "dealt",
    "p_dealt", "n_draws", "q_value",
)  # fmt: skip

#: Mean absolute activations ``(P, N)`` of the training proteins with some neurons ``(N,)`` set to zero.
Activity = Callable[[np.ndarray], np.ndarray]


def prunable(index: NeuronIndex) -> np.ndarray:
    """``(N,)`` true for the units that may be pruned."""
    found: np.ndarray = np.array([site.module in EPSILON for site in index.sites])[index.site_of]
    return found


def ratios(index: NeuronIndex, activity: np.ndarray, of_class: np.ndarray) -> np.ndarray:
    """``(N,)`` the score of a class from activity ``(P, N)``; lowest where a unit may not be pruned.

    Args:
        index: Which column is which neuron.
        activity: Mean absolute activations of proteins.
        of_class: ``(P,)`` true for those of the class.
    """
    eps = np.array([EPSILON.get(site.module, np.inf) for site in index.sites])[index.site_of]
    found = activity[of_class].mean(0) / (activity[~of_class].mean(0) + eps)
    return np.where(np.isfinite(eps), found, -np.inf)


def pruned(
    index: NeuronIndex, activity: Activity, intact: np.ndarray, of_class: np.ndarray, steps: Sequence[float] = STEPS
) -> list[np.ndarray]:
    """What is gone after each step, ``(N,)`` booleans, each holding the one before.

    Args:
        index: The model's neurons.
        activity: Measures activations with neurons pruned.
        intact: ``(P, N)`` those with none pruned.
        of_class: ``(P,)`` true for the proteins of the class.
        steps: Shares of the units that may be pruned, increasing.
    """
    total = int(prunable(index).sum())
    gone, found = np.zeros(len(index), dtype=bool), []
    for place, step in enumerate(steps):
        seen = activity(gone) if place else intact
        score = np.where(gone, -np.inf, ratios(index, seen, of_class))
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
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """``pruning.parquet``, one row a class and step, and ``separability.parquet``, one row a class.

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

    Returns:
        A class is left out of the second table that has no training protein, or no test protein that is decided right.
    """
    intact = activity(np.zeros(len(index), dtype=bool))
    present = [c for c in range(len(labels)) if (train == c).any() and (train != c).any()]
    (odds,) = measure("pruning-intact", proteins, [nothing(index)])
    start = odds.argmax(1) == true
    gone = {c: pruned(index, activity, intact, train == c, steps) for c in present}
    turn = [present[r % len(present)] for r in range(draws if present else 0)]
    orders = [random_order(index, gone[c], (seed, 61, r)) for r, c in enumerate(turn)]
    dealt = [
        pruned(index, activity, intact, np.random.default_rng([seed, 62, r]).permutation(train == c), steps)
        for r, c in enumerate(turn)
    ]
    changes = [Change(Selection(index, mask), 0.0) for one in (*gone.values(), *orders, *dealt) for mask in one]
    found = measure("pruning", proteins, changes)
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
                    "label": labels[c], "statistic": STATISTIC, "step": s + 1, "fraction": step,
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
                "label": labels[c], "statistic": STATISTIC, "n_proteins": int(own.sum()), "separability": value[0],
                "ci_low": ends.low, "ci_high": ends.high, "against": _mean(value[1 : 1 + draws]),
                "p_value": tests[0].p_value, "p_kind": tests[0].p_kind, "dealt": _mean(value[1 + draws :]),
                "p_dealt": tests[1].p_value, "n_draws": draws,
            }
        )  # fmt: skip
    table = pd.DataFrame(summary, columns=[c for c in SEPARABILITY if c != "q_value"])
    tested = table["p_value"].where(table["p_kind"] == "permutation").to_numpy(dtype=np.float64)
    return pd.DataFrame(rows, columns=list(PRUNING)), table.assign(q_value=benjamini_hochberg(tested))


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values)) if len(values) else float("nan")
