"""Clusters of proteins that resemble each other, by whatever comparison sees sequences such as they are."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

from plmscope.data.low_complexity import align_all
from plmscope.data.mmseqs import SEEN, mmseqs_clusters
from plmscope.data.peptides import LEAST, SHORT, close_pairs, is_comparable, is_short, is_simple, overlapping
from plmscope.data.proteins import Protein


def merged_groups(links: Iterable[tuple[str, str]]) -> dict[str, str]:
    """What linked names are called together: the first of them as text."""
    root: dict[str, str] = {}

    def find(name: str) -> str:
        while name in root:
            name = root[name]
        return name

    names: dict[str, None] = {}
    for one, other in links:
        names |= {one: None, other: None}
        low, high = sorted((find(one), find(other)))
        if low != high:
            root[high] = low
    return {name: find(name) for name in names}


def relatives(proteins: Sequence[Protein], identity: float, coverage: float) -> tuple[dict[str, str], tuple[str, ...]]:
    """Clusters of proteins at an identity; equal sequences are one, also where low complexity hides them.

    Args:
        proteins: With distinct ids.
        identity: Least identity to a cluster's representative, 0 to 1.
        coverage: Least share of a member that aligns with it.

    Returns:
        Cluster by protein id, and one line for each kind of sequence that was compared in another way, or not.
    """
    # Sorted, so that the order of the proteins does not matter.
    representative: dict[str, str] = {}
    for protein in sorted(proteins, key=lambda protein: protein.id):
        representative.setdefault(protein.sequence, protein.id)
    cluster = {name: name for name in representative.values()}
    long = [sequence for sequence in representative if len(sequence) >= SEEN]
    if len(long) > 1:
        cluster |= mmseqs_clusters(long, [representative[sequence] for sequence in long], identity, coverage)
    links = overlapping({name: sequence for sequence, name in representative.items()})
    simple = [sequence for sequence in long if is_simple(sequence)]
    lost: set[str] = set()
    if simple and len(long) > 1:
        hits, failed = align_all(simple, long, identity, coverage)
        lost = {simple[k] for k in failed}
        found = zip(hits["query"], hits["target"], strict=True)
        links += [(representative[simple[query]], representative[long[target]]) for query, target in found]
    everything = list(representative)
    short = [sequence for sequence in everything if is_short(sequence)]
    for others in (short, [sequence for sequence in everything if not is_short(sequence)]):
        pairs = close_pairs(short, others, identity)
        links += [(representative[short[a]], representative[others[b]]) for a, b, _ in zip(*pairs, strict=True)]
    merged = merged_groups([(cluster[a], cluster[b]) for a, b in links if cluster[a] != cluster[b]])
    cluster = {name: merged.get(centre, centre) for name, centre in cluster.items()}
    return {protein.id: cluster[representative[protein.sequence]] for protein in proteins}, _how(representative, lost)


def _how(sequences: Collection[str], lost: Collection[str]) -> tuple[str, ...]:
    """How sequences were compared that MMseqs2 does not see, one line each."""
    unknown = {sequence for sequence in sequences if not is_comparable(sequence)}
    short = {sequence for sequence in sequences if sequence not in unknown and is_short(sequence)}
    simple = {sequence for sequence in sequences if is_simple(sequence)} - unknown - short
    unseen = simple & set(lost)
    said = (
        (short, f"sequences of fewer than {SHORT} residues were compared residue by residue"),
        (simple - unseen, "sequences of low complexity were aligned with all others, without masking"),
        (unseen, "sequences of low complexity were not searched reliably (not even a copy with 30 % of its residues "
         "changed is found): relatives of theirs may be in another set"),
        (unknown, f"sequences of fewer than {LEAST} known residues cannot be compared: relatives of theirs may be in "
         "another set"),
    )  # fmt: skip
    return tuple(f"{len(which):,} {what}" for which, what in said if which)
