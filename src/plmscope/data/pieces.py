"""Windows and pieces of one protein, and equal proteins: what a split keeps together."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence

from plmscope.data.peptides import LEAST, SHORT, is_comparable, is_short, is_simple
from plmscope.data.proteins import Protein
from plmscope.errors import InputError, shown

#: An id that ends with the first and the last residue of a piece.
_PIECE = re.compile(r"(.+?)[/_:|]([1-9]\d{0,8})-(\d{1,9})")


def merged_groups(links: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Merge groups whose names are linked; a merged group has the name that comes first as text."""
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


def refuse_twins(proteins: Sequence[Protein]) -> None:
    """Where a class has too few clusters because its sequences have other labels too, that is what is said."""
    first: dict[str, Protein] = {}
    pairs = [(first.setdefault(protein.sequence, protein), protein) for protein in proteins]
    twins = [(one, other) for one, other in pairs if one.label != other.label]
    if twins:
        one, other = twins[0]
        raise InputError(
            f"{len(twins):,} proteins have the sequence of another one, but another label: they are in one set with "
            f"it, and too few clusters are left for a class (first {other.id!r}, {shown(str(other.label))}, and "
            f'{one.id!r}, {shown(str(one.label))}); correct the labels, or join them with task = "multi"'
        )


def source_of(protein: Protein) -> str:
    """The protein that a sequence is a piece of, as its id says (``P1/31-71``, as long as that); else empty."""
    match = _PIECE.fullmatch(protein.id)
    return match[1] if match and int(match[3]) - int(match[2]) + 1 == len(protein) else ""


def pieces_of(proteins: Sequence[Protein]) -> tuple[str, ...]:
    """The line that says which sequences were kept together for their ids."""
    sources = Counter(source for protein in proteins if not protein.parent and (source := source_of(protein)))
    several = {source: number for source, number in sources.items() if number > 1}
    if not several:
        return ()
    first = next(protein.id for protein in proteins if source_of(protein) in several)
    number = sum(several.values())
    return (
        f"{number:,} sequences are pieces of {len(several):,} proteins by their ids, such as {shown(first)}: those of "
        "one are in one set",
    )


def compared(proteins: Sequence[Protein]) -> tuple[str, ...]:
    """One line for each way in which sequences were compared that MMseqs2 does not see."""
    distinct = {protein.sequence for protein in proteins}
    unknown = {sequence for sequence in distinct if not is_comparable(sequence)}
    short = {sequence for sequence in distinct - unknown if is_short(sequence)}
    simple = {sequence for sequence in distinct - unknown - short if is_simple(sequence)}
    said = (
        (short, f"sequences of fewer than {SHORT} residues were compared residue by residue"),
        (simple, "sequences of low complexity were searched once more without masking"),
        (unknown, f"sequences of fewer than {LEAST} known residues cannot be compared: their relatives are not known"),
    )
    return tuple(f"{len(which):,} {what}" for which, what in said if which)
