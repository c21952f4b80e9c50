"""Shared and specific neurons: does a class rest on the same neurons in every group of proteins, such as every taxon?

::

    KN(c, g)     neurons with at least 0.2 of a protein's largest attribution, in at least 0.7 of g's clusters of c
    independent  in KN(c, g) of every group g          specific  in one alone
    transfer     drop of class c in g' when the best n neurons chosen on g are held / the same of those chosen on g'

``drop`` is the mean share of the class's probability that is lost, over test proteins that the intact model decides
right. Every group gives as many training clusters, since a share of few is reached more easily. Three nulls: group
labels dealt among the clusters of the class (counts of shared neurons; neurons chosen on dealt groups), overlap of
selections with as many neurons in every site, and matched draws. Counts alone show specific neurons for any labels.

After language-independent knowledge neurons (Chen et al., arXiv:2308.13198), a language being a group of proteins; all
six module kinds, equal groups, and sets of equal size for the transfer are ours.
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
from plmscope.evaluation.overlap import overlap
from plmscope.evaluation.selection import Selection
from plmscope.layout.measure import Measure, chosen_of, held, matched, resampled
from plmscope.models.sites import NeuronIndex
from plmscope.stats.chance import TIE, benjamini_hochberg, compare_with_draws, percentile_interval

#: Share of a protein's largest attribution, and of a group's clusters; deals of the labels; fewest clusters of a group.
STRONG, COMMON, DEALS, FEWEST = 0.2, 0.7, 199, 3
KINDS = ("independent", "specific", "some")
NEURONS = ("label", "layer", "module", "neuron", "groups", "n_groups", "smallest_share", "kind")
SHARING = (
    "label", "groups", "n_clusters", "neurons", "independent", "independent_against", "p_independent", "specific",
    "specific_against", "p_specific", "jaccard", "jaccard_expected", "p_overlap", "n_deals",
)  # fmt: skip
TRANSFER = (
    "label", "chosen_on", "measured_on", "n", "n_proteins", "drop", "drop_own", "against", "p_value", "p_kind",
    "ratio", "ci_low", "ci_high", "dealt", "p_dealt", "n_draws", "q_value",
)  # fmt: skip


@dataclass(frozen=True)
class Grouped:
    """Training proteins of one class in groups.

    Attributes:
        names: ``G`` groups.
        group: ``(P,)`` number of the group of each protein, each from another cluster, as many in every group.
        attributions: ``(P, N)`` what every neuron adds to the decision of each.
    """

    names: tuple[str, ...]
    group: np.ndarray
    attributions: np.ndarray

    def dealt(self, rng: np.random.Generator) -> np.ndarray:
        """The group labels in another order."""
        found: np.ndarray = rng.permutation(self.group)
        return found

    def best(self, group: np.ndarray, g: int, n: int) -> np.ndarray:
        """Positions of the ``n`` neurons of the largest mean attribution in a group."""
        found: np.ndarray = np.argsort(-self.attributions[group == g].mean(0), kind="stable")[:n]
        return found


def strong(attributions: np.ndarray) -> np.ndarray:
    """``(P, N)`` true where an attribution is at least :data:`STRONG` of the protein's largest, and above 0.

    >>> strong(np.array([[1.0, 0.3, 0.1, -2.0], [0.0, 0.0, 0.0, 0.0]])).tolist()
    [[True, True, False, False], [False, False, False, False]]
    """
    found: np.ndarray = (attributions >= STRONG * attributions.max(1, keepdims=True)) & (attributions > 0)
    return found


def shares(strong_in: np.ndarray, group: np.ndarray, n_groups: int) -> np.ndarray:
    """``(G, N)`` share of a group's clusters in which a neuron is strong."""
    own = np.stack([group == g for g in range(n_groups)]).astype(np.float64)
    found: np.ndarray = own @ strong_in / own.sum(1, keepdims=True)
    return found


def counts(share: np.ndarray) -> tuple[int, int]:
    """How many neurons are independent, and how many specific."""
    n = (share >= COMMON - 1e-9).sum(0)
    return int((n == len(share)).sum()), int((n == 1).sum())


def shared_tables(
    index: NeuronIndex, grouped: Mapping[str, Grouped], deals: int = DEALS, seed: int = 0
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """``shared_neurons.parquet`` and ``sharing.parquet``: which neurons groups share, and how many for any labels.

    Args:
        index: The model's neurons.
        grouped: Class to its training proteins in groups.
        deals: How often group labels are dealt.
        seed: Of the deals.

    Returns:
        One row a neuron that is in some group's set; one row a class, with ``p_independent`` (one-sided, for as many
        with dealt labels), ``p_specific`` and ``p_overlap`` (the largest of all pairs of groups).
    """
    neurons, rows = [], []
    for place, (label, one) in enumerate(grouped.items()):
        n_groups, many = len(one.names), strong(one.attributions)
        used = np.flatnonzero(many.any(0))
        share = np.zeros((n_groups, len(index)))
        share[:, used] = shares(many[:, used], one.group, n_groups)
        common = share >= COMMON - 1e-9
        found = counts(share)
        rng = np.random.default_rng([seed, 41, place])
        dealt = np.array([counts(shares(many[:, used], one.dealt(rng), n_groups)) for _ in range(deals)])
        neurons.append(_neurons(index, label, one.names, share, common))
        pairs = [
            overlap(Selection(index, common[a], one.names[a]), Selection(index, common[b], one.names[b]))
            for a, b in combinations(range(n_groups), 2)
        ]
        tests = [compare_with_draws(float(found[k]), dealt[:, k], 1) for k in (0, 1)]
        rows.append(
            {
                "label": label, "groups": "; ".join(one.names), "n_clusters": int((one.group == 0).sum()),
                "neurons": int(common.any(0).sum()), "independent": found[0],
                "independent_against": float(dealt[:, 0].mean()), "p_independent": tests[0].p_value,
                "specific": found[1], "specific_against": float(dealt[:, 1].mean()), "p_specific": tests[1].p_value,
                "jaccard": float(np.mean([pair.jaccard for pair in pairs])),
                "jaccard_expected": float(np.mean([pair.jaccard_expected for pair in pairs])),
                "p_overlap": max(pair.p_value for pair in pairs), "n_deals": deals,
            }
        )  # fmt: skip
    parts = [part for part in neurons if len(part)]
    table = pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=list(NEURONS))
    return table, pd.DataFrame(rows, columns=list(SHARING))


def _neurons(
    index: NeuronIndex, label: str, names: Sequence[str], share: np.ndarray, common: np.ndarray
) -> pd.DataFrame:
    """Rows of ``shared_neurons.parquet`` of one class."""
    some = np.flatnonzero(common.any(0))
    n = common[:, some].sum(0)
    kinds = np.where(n == len(names), KINDS[0], np.where(n == 1, KINDS[1], KINDS[2]))
    frame = index.table().iloc[some].reset_index(drop=True)
    within = ["; ".join(name for name, is_in in zip(names, common[:, one], strict=True) if is_in) for one in some]
    frame = frame.assign(label=label, groups=within, n_groups=n, smallest_share=share[:, some].min(0), kind=kinds)
    return frame[list(NEURONS)]


def transfer_table(
    measure: Measure,
    name: str,
    index: NeuronIndex,
    one: Grouped,
    proteins: Sequence[Protein],
    clusters: Sequence[str],
    group: np.ndarray,
    label: int,
    n: int = 64,
    draws: int = 20,
    seed: int = 0,
) -> pd.DataFrame:
    """Rows of ``transfer.parquet`` of one class, without ``label`` and ``q_value``.

    Args:
        measure: Runs the model.
        name: Of the series.
        index: The model's neurons.
        one: Training proteins of the class in groups.
        proteins: Test proteins of the class.
        clusters: Cluster of each.
        group: ``(P,)`` number of the group of each.
        label: Number of the class.
        n: Neurons that are chosen on a group.
        draws: Matched draws, and deals of the labels, each over the groups in turn.
        seed: Of draws, deals and resamples.

    Returns:
        One row a pair of groups; empty where no group has a protein that is decided right. ``p_value`` is one-sided for
        a greater drop than matched draws, ``p_dealt`` for a smaller one than neurons chosen on dealt groups. ``ratio``
        is NaN where the lower bound of the own drop is not above 0.
    """
    columns = [c for c in TRANSFER if c not in ("label", "q_value")]
    (odds,) = measure(f"{name}-intact", proteins, [nothing(index)])
    right = np.flatnonzero(odds.argmax(1) == label)
    if not len(right):
        return pd.DataFrame(columns=columns)
    n_groups = len(one.names)
    sets = [one.best(one.group, g, n) for g in range(n_groups)]
    changes = [held(index, group) for group in sets]
    changes += [Change(matched(chosen_of(index, sets[r % n_groups]), 1, (seed, 42, r))[0], None) for r in range(draws)]
    changes += [
        held(index, one.best(one.dealt(np.random.default_rng([seed, 43, r])), r % n_groups, n)) for r in range(draws)
    ]
    after = expit(measure(name, [proteins[int(row)] for row in right], changes)[:, :, label])
    before = expit(odds[right, label])
    lost, of = (before - after) / before, np.asarray(group)[right]
    rows = []
    for g in range(n_groups):
        own = np.flatnonzero(of == g)
        if not len(own):
            continue
        here = lost[:, own]
        weights = resampled([clusters[int(right[row])] for row in own], np.zeros(len(own), dtype=np.int64), seed)
        means, samples = here.mean(1), here @ weights.T / weights.sum(1)
        drawn, dealt = means[n_groups : n_groups + draws], means[n_groups + draws :]
        anything = percentile_interval(samples[g]).low > TIE
        for chosen in range(n_groups):
            test, less = compare_with_draws(means[chosen], drawn, 1), compare_with_draws(means[chosen], dealt, -1)
            row: dict[str, object] = {
                "chosen_on": one.names[chosen], "measured_on": one.names[g], "n": n, "n_proteins": len(own),
                "drop": means[chosen], "drop_own": means[g], "against": float(drawn.mean()), "p_value": test.p_value,
                "p_kind": test.p_kind, "ratio": np.nan, "ci_low": np.nan, "ci_high": np.nan,
                "dealt": float(dealt.mean()), "p_dealt": less.p_value, "n_draws": draws,
            }  # fmt: skip
            if anything:
                ends = percentile_interval(samples[chosen] / np.maximum(samples[g], TIE))
                row |= {"ratio": means[chosen] / means[g], "ci_low": ends.low, "ci_high": ends.high}
            rows.append(row)
    return pd.DataFrame(rows)[columns]


def with_q(frame: pd.DataFrame) -> pd.DataFrame:
    """``transfer.parquet``: the rows of all classes with ``q_value`` (Benjamini-Hochberg over tests)."""
    if not len(frame):
        return pd.DataFrame(columns=list(TRANSFER))
    tested = frame["p_value"].where(frame["p_kind"] == "permutation").to_numpy(dtype=np.float64)
    return frame.assign(q_value=benjamini_hochberg(tested))[list(TRANSFER)]
