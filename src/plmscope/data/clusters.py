"""Proteins chosen by cluster, so that near relatives do not count twice: one a cluster, halves, unrelated ones."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from plmscope.data.labels import LabelTask, classes_of
from plmscope.data.proteins import Protein


def one_per_cluster(
    proteins: Sequence[Protein],
    clusters: dict[str, str],
    per_class: int,
    seed: int,
    distinct: bool = True,
    task: LabelTask = "single",
) -> list[Protein]:
    """Choose up to ``per_class`` proteins of every class; if ``distinct``, no two of a class share a cluster.

    In a multi-label task a protein is taken as long as any of its classes has fewer, so that one may get more.
    """
    order = np.random.default_rng([seed, 5]).permutation(len(proteins))
    taken: Counter[str] = Counter()
    seen: set[str] = set()
    chosen = []
    for row in order:
        protein = proteins[row]
        cluster = clusters[protein.id]
        own = classes_of(str(protein.label), task)
        if any(taken[name] < per_class for name in own) and not (distinct and cluster in seen):
            taken.update(own)
            seen.add(cluster)
            chosen.append(int(row))
    return [proteins[row] for row in sorted(chosen)]


def halves(proteins: Sequence[Protein], clusters: Mapping[str, str]) -> tuple[list[Protein], list[Protein]]:
    """Deal the clusters of each class in turn into two halves; no cluster is in both. The second may be empty.

    >>> some = [Protein(str(i), "MK", "a") for i in range(4)]
    >>> [[p.id for p in half] for half in halves(some, {"0": "x", "1": "x", "2": "y", "3": "z"})]
    [['0', '1', '3'], ['2']]
    """
    side: dict[str, int] = {}
    dealt: Counter[tuple[str, int]] = Counter()
    for protein in proteins:
        label = str(protein.label)
        if clusters[protein.id] not in side:
            # Where many classes have one cluster each, the halves are still even.
            emptier = min((0, 1), key=lambda half: (dealt[label, half], dealt["", half]))
            side[clusters[protein.id]] = emptier
            dealt.update([(label, emptier), ("", emptier)])
    both_halves: tuple[list[Protein], list[Protein]] = ([], [])
    for protein in proteins:
        both_halves[side[clusters[protein.id]]].append(protein)
    return both_halves


def one_of_each_cluster(
    proteins: Sequence[Protein], clusters: Mapping[str, str], annotated: Mapping[str, int], limit: int, seed: int
) -> list[Protein]:
    """Choose the best annotated protein of every cluster, of at most ``limit`` clusters (0: all of them)."""
    order = np.random.default_rng([seed, 6]).permutation(len(proteins)).tolist()
    best: dict[str, int] = {}
    for row in order:
        cluster = clusters[proteins[row].id]
        if cluster not in best or annotated.get(proteins[row].id, 0) > annotated.get(proteins[best[cluster]].id, 0):
            best[cluster] = row
    rows = list(best.values())[: limit or None]
    return [proteins[row] for row in sorted(rows)]


def unrelated(held: Sequence[Protein], train: Sequence[Protein], clusters: Mapping[str, str]) -> list[Protein]:
    """The held-out proteins that have no train protein in their cluster; a split by a column may divide clusters.

    >>> some = [Protein(name, "MK") for name in "abc"]
    >>> [p.id for p in unrelated(some[1:], some[:1], {"a": "x", "b": "x", "c": "y"})]
    ['c']
    """
    trained = {clusters[p.id] for p in train}
    return [p for p in held if clusters[p.id] not in trained]
