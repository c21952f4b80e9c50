"""Degenerate sets: groups of a class's neurons of which either is enough, and without both of which the class is lost.

::

    drop(S)    = mean over the class's proteins of (P0 - P_S) / P0      P: probability of the class, S held at its mean
    synergy    = drop(A and B) - drop(A) - drop(B)
    degenerate:  drop(A) <= 0.05 and drop(B) <= 0.05 and drop(A and B) >= 0.3, and the lower bound of synergy above 0

Thresholds are those of the published code (Chen et al., arXiv:2402.13731); the bound over resampled clusters is ours,
and so is that only proteins count which the intact model decides right: a function that is not there cannot be lost.
The null is pairs of matched draws: as many neurons in every site as A and B have. Beside it AMIG's question (Chen et
al., arXiv:2308.13198), turned to neurons: ``alone`` is the drop when all of the class's chosen neurons but the set are
held.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import pandas as pd
from scipy.special import expit

from plmscope.data.proteins import Protein
from plmscope.evaluation.interventions import Change, nothing
from plmscope.evaluation.selection import Selection
from plmscope.layout.measure import Measure, chosen_of, held, matched, resampled
from plmscope.models.sites import NeuronIndex
from plmscope.stats.chance import benjamini_hochberg, compare_with_draws, percentile_interval

#: Most that one of a degenerate pair may lose, and least that both have to.
SPARED, LOST = 0.05, 0.3
#: Most components of a class that are put together in pairs.
MOST = 6
COLUMNS = (
    "method", "label", "a", "b", "n_a", "n_b", "n_proteins", "drop_a", "drop_b", "drop_both", "drop_all", "alone_a",
    "alone_b", "synergy", "ci_low", "ci_high", "against", "draws_degenerate", "n_draws", "p_value", "p_kind",
    "degenerate",
)  # fmt: skip


@dataclass(frozen=True)
class Drops:
    """What holding sets does to one class.

    Attributes:
        shares: ``(K, P)`` share of every protein's probability that each set takes away.
        weights: ``(B, P)`` of a bootstrap over clusters.
    """

    shares: np.ndarray
    weights: np.ndarray

    def mean(self, k: int) -> float:
        """``drop`` of one set."""
        return float(self.shares[k].mean())

    def synergy(self, a: int, b: int, both: int) -> tuple[float, float, float]:
        """Synergy of two sets with its 95 % interval."""
        each = self.shares[both] - self.shares[a] - self.shares[b]
        interval = percentile_interval(self.weights @ each / self.weights.sum(1))
        return float(each.mean()), interval.low, interval.high

    def degenerate(self, a: int, b: int, both: int) -> bool:
        """Whether two sets are a degenerate pair."""
        spared = max(self.mean(a), self.mean(b)) <= SPARED
        return spared and self.mean(both) >= LOST and self.synergy(a, b, both)[1] > 0


def degenerate_pairs(
    measure: Measure,
    name: str,
    index: NeuronIndex,
    proteins: Sequence[Protein],
    clusters: Sequence[str],
    label: int,
    components: Sequence[Sequence[int]],
    chosen: Sequence[int],
    draws: int = 20,
    seed: int = 0,
) -> pd.DataFrame:
    """Every pair of a class's components, without ``method`` and ``label``.

    Args:
        measure: Runs the model.
        name: Of the series.
        index: The model's neurons.
        proteins: Test proteins of the class.
        clusters: Cluster of each.
        label: Number of the class.
        components: Groups of positions, of which the first :data:`MOST` are taken.
        chosen: All positions that were chosen for the class.
        draws: Pairs of matched draws, dealt over the class's pairs in turn.
        seed: Of the draws.

    Returns:
        One row a pair; empty with fewer than two components, or where no protein is decided right.
    """
    sets = [list(group) for group in components][:MOST]
    (odds,) = measure(f"{name}-intact", proteins, [nothing(index)])
    right = np.flatnonzero(odds.argmax(1) == label)
    if len(sets) < 2 or not len(right):
        return pd.DataFrame(columns=[c for c in COLUMNS if c not in ("method", "label")])
    judged = [proteins[int(row)] for row in right]
    weights = _weights([clusters[int(row)] for row in right], seed)
    before = expit(odds[right, label])
    pairs = list(combinations(range(len(sets)), 2))
    changes = [held(index, group) for group in sets]
    changes += [held(index, [*sets[a], *sets[b]]) for a, b in pairs]
    changes += [held(index, set(chosen) - set(group)) for group in sets] + [held(index, chosen)]
    drawn = _drawn(index, sets, pairs, draws, seed)
    changes += [Change(one, None) for trio in drawn for one in trio]
    after = expit(measure(name, judged, changes)[:, :, label])
    drops = Drops((before - after) / before, weights)
    n, first = len(sets), len(sets) + len(pairs)
    start = first + n + 1
    trios = [tuple(range(start + 3 * r, start + 3 * r + 3)) for r in range(draws)]
    random = np.array([drops.synergy(*trio)[0] for trio in trios])
    called = sum(drops.degenerate(*trio) for trio in trios)
    rows = []
    for place, (a, b) in enumerate(pairs):
        synergy, low, high = drops.synergy(a, b, n + place)
        test = compare_with_draws(synergy, random, 1)
        rows.append(
            {
                "a": a, "b": b, "n_a": len(sets[a]), "n_b": len(sets[b]), "n_proteins": len(right),
                "drop_a": drops.mean(a), "drop_b": drops.mean(b), "drop_both": drops.mean(n + place),
                "drop_all": drops.mean(first + n), "alone_a": drops.mean(first + a), "alone_b": drops.mean(first + b),
                "synergy": synergy, "ci_low": low, "ci_high": high,
                "against": float(random.mean()) if len(random) else np.nan, "draws_degenerate": called,
                "n_draws": draws, "p_value": test.p_value, "p_kind": test.p_kind,
                "degenerate": drops.degenerate(a, b, n + place),
            }
        )  # fmt: skip
    return pd.DataFrame(rows)


def with_q(frame: pd.DataFrame) -> pd.DataFrame:
    """The pairs of all classes with ``q_value`` (Benjamini-Hochberg over tests)."""
    tested = frame["p_value"].where(frame["p_kind"] == "permutation").to_numpy(dtype=np.float64)
    return frame.assign(q_value=benjamini_hochberg(tested))


def component_table(index: NeuronIndex, groups: Mapping[tuple[str, str], Sequence[Sequence[int]]]) -> pd.DataFrame:
    """``components.parquet``: ``method, label, component, layer, module, neuron``."""
    frames = [
        chosen_of(index, group).table().assign(method=method, label=label, component=number)
        for (method, label), components in groups.items()
        for number, group in enumerate(components)
    ]
    columns = ["method", "label", "component", "layer", "module", "neuron"]
    return pd.concat(frames, ignore_index=True)[columns] if frames else pd.DataFrame(columns=columns)


def _weights(clusters: Sequence[str], seed: int) -> np.ndarray:
    return resampled(clusters, np.zeros(len(clusters), dtype=np.int64), seed)


def _drawn(
    index: NeuronIndex, sets: Sequence[Sequence[int]], pairs: Sequence[tuple[int, int]], draws: int, seed: int
) -> list[tuple[Selection, Selection, Selection]]:
    """Random pairs without a neuron in common, and what they are together."""
    drawn = []
    for r in range(draws):
        a, b = pairs[r % len(pairs)]
        (union,) = matched(chosen_of(index, [*sets[a], *sets[b]]), 1, (seed, 23, r))
        rng = np.random.default_rng([seed, 24, r])
        wanted = np.bincount(index.site_of[np.asarray(sets[a])], minlength=len(index.sites))
        mask = np.zeros(len(index), dtype=bool)
        for site, n in enumerate(wanted):
            own = np.flatnonzero(union.mask & (index.site_of == site))
            mask[rng.permutation(own)[:n]] = True
        one = Selection(index, mask)
        drawn.append((one, union - one, union))
    return drawn
