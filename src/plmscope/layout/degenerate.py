"""Degenerate sets: groups of a class's neurons of which either is enough, and without both of which the class is lost.

::

    drop(S)    = mean over the class's proteins of (P0 - P_S) / P0      P: probability of the class, S held at its mean
    synergy    = drop(A and B) - drop(A) - drop(B)
    degenerate:  drop(A) <= 0.05 and drop(B) <= 0.05 and drop(A and B) >= 0.3, and the lower bound of synergy above 0

Thresholds are those of the published code (Chen et al., arXiv:2402.13731); the bound over resampled clusters is ours,
and so is that only proteins count which the intact model decides right: a function that is not there cannot be lost.
The null is pairs of matched draws: as many neurons in every site as A and B have, for either. They cost a pass each, so
only some pairs of a class and grouping are tested, each against draws of its own: the one of greatest synergy, and all
that pass both thresholds. The greatest is chosen among up to 15, and its draws are not: p says how seldom one random
pair of these sizes does as well, no more, and Benjamini-Hochberg over the tested pairs does not make up for the choice.
Multiplied by the number of pairs it is a bound (Bonferroni), which few draws cannot bring below 0.05.

Beside it AMIG's question (Chen et al., arXiv:2308.13198), turned to neurons: ``alone`` is the drop when all of the
class's chosen neurons but the set are held. What follows, substitutions and claims, is asked of one pair of the class,
degenerate if one is and else that of greatest synergy, and on the test proteins that it was chosen on.
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
#: Most components of a class that are put together in pairs; ``p_kind`` of a pair that has no draws.
MOST, UNTESTED = 6, "not_tested"
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

    def passes(self, a: int, b: int, both: int) -> bool:
        """Whether two sets pass the thresholds."""
        return max(self.mean(a), self.mean(b)) <= SPARED and self.mean(both) >= LOST

    def degenerate(self, a: int, b: int, both: int) -> bool:
        """Whether two sets are a degenerate pair."""
        return self.passes(a, b, both) and self.synergy(a, b, both)[1] > 0


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
        draws: Pairs of matched draws of every pair that is tested.
        seed: Of the draws.

    Returns:
        One row a pair; empty with fewer than two components, or where no protein is decided right. A pair that is not
        tested has no draws: ``p_kind`` is :data:`UNTESTED`, ``against`` and ``p_value`` are missing.
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
    after = expit(measure(name, judged, changes)[:, :, label])
    drops = Drops((before - after) / before, weights)
    n, first = len(sets), len(sets) + len(pairs)
    found = [drops.synergy(a, b, n + place) for place, (a, b) in enumerate(pairs)]
    best = int(np.argmax([one[0] for one in found]))
    rows = []
    for place, (a, b) in enumerate(pairs):
        synergy, low, high = found[place]
        tested = place == best or drops.passes(a, b, n + place)
        random, called = np.zeros(0), 0
        if tested:
            drawn = [Change(one, None) for trio in _drawn(index, sets[a], sets[b], draws, (seed, a, b)) for one in trio]
            held_so = expit(measure(f"{name}-draws-{a}-{b}", judged, drawn)[:, :, label])
            by_chance = Drops((before - held_so) / before, weights)
            trios = [(3 * r, 3 * r + 1, 3 * r + 2) for r in range(draws)]
            random = np.array([by_chance.synergy(*trio)[0] for trio in trios])
            called = sum(by_chance.degenerate(*trio) for trio in trios)
        test = compare_with_draws(synergy, random, 1)
        rows.append(
            {
                "a": a, "b": b, "n_a": len(sets[a]), "n_b": len(sets[b]), "n_proteins": len(right),
                "drop_a": drops.mean(a), "drop_b": drops.mean(b), "drop_both": drops.mean(n + place),
                "drop_all": drops.mean(first + n), "alone_a": drops.mean(first + a), "alone_b": drops.mean(first + b),
                "synergy": synergy, "ci_low": low, "ci_high": high,
                "against": float(random.mean()) if len(random) else np.nan, "draws_degenerate": called,
                "n_draws": len(random), "p_value": test.p_value, "p_kind": test.p_kind if tested else UNTESTED,
                "degenerate": drops.degenerate(a, b, n + place),
            }
        )  # fmt: skip
    return pd.DataFrame(rows)


def with_q(frame: pd.DataFrame) -> pd.DataFrame:
    """The pairs of all classes with ``q_value`` (Benjamini-Hochberg over the pairs that are tested)."""
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
    index: NeuronIndex, one: Sequence[int], other: Sequence[int], draws: int, seed: tuple[int, int, int]
) -> list[tuple[Selection, Selection, Selection]]:
    """Random pairs without a neuron in common, as many in every site as a pair has, and what they are together."""
    wanted = np.bincount(index.site_of[np.asarray(one)], minlength=len(index.sites))
    drawn = []
    for r, union in enumerate(matched(chosen_of(index, [*one, *other]), draws, (seed[0], 23, *seed[1:]))):
        rng = np.random.default_rng([seed[0], 24, *seed[1:], r])
        mask = np.zeros(len(index), dtype=bool)
        for site, n in enumerate(wanted):
            own = np.flatnonzero(union.mask & (index.site_of == site))
            mask[rng.permutation(own)[:n]] = True
        first = Selection(index, mask)
        drawn.append((first, union - first, union))
    return drawn
