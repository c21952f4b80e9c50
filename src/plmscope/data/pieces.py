"""Windows and pieces of one protein, and equal proteins: what a split keeps together."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

from plmscope.data.proteins import Protein
from plmscope.errors import InputError, shown

#: An id that ends with the first and the last residue of a piece.
_PIECE = re.compile(r"(.+?)[/_:|]([1-9]\d{0,8})-(\d{1,9})")


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
