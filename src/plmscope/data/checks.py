"""What an id and a sequence may be; what is changed in a sequence is counted."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping

from plmscope.data.labelling import (
    MAX_NAME,
)
from plmscope.data.labels import SEPARATOR
from plmscope.data.rows import ProteinRow
from plmscope.data.sources import FILE
from plmscope.errors import InputError, shown

KNOWN_LETTERS = "ACDEFGHIKLMNPQRSTVWYXUBZO"


OTHER_LETTERS = ("error", "skip")


#: What puts the classes of several rows together.
JOIN = 'join their classes with task = "multi" and duplicates = "join"'


STOPS, LOWER = "sequences without their final '*'", "sequences with lower-case letters, read as upper case"


DOT = "sequences without their final '.', a stop as gffread writes it"


_ILLEGAL = re.compile(f"[^{KNOWN_LETTERS}{KNOWN_LETTERS.lower()}]")


_NUCLEOTIDES = re.compile("[ACGTUN]+")


#: What a character that is no residue usually comes from, and what to do.
CAUSES = {
    ">": "two entries are joined there: start a new line before each '>'",
    "\ufeff": "a byte order mark, of files that were joined: remove it",
    "*": "more than one stop at its end: keep one, or none",
    "\x1a": "Ctrl-Z, the end of a file in DOS: remove it",
    "-": "a gap of an alignment: take the gaps out, or give the alignment as FASTA, A3M or Stockholm",
}


def check_id(source: str, row: ProteinRow, places: Mapping[str, str], table: bool) -> None:
    """Refuse an id that is missing, cannot be printed, or belongs to another protein already."""
    if not row.id:
        raise InputError(f"{source}: {row.place}: the protein has no id; give every protein one")
    if not row.id.isprintable():
        raise InputError(f"{source}: {row.place}: the id {shown(row.id)} has an unprintable character; remove it")
    if len(row.id) > MAX_NAME:
        raise InputError(
            f"{source}: {row.place}: the id {shown(row.id)} is longer than {MAX_NAME} characters; put a blank after "
            "the part that names the protein"
        )
    if row.id in places:
        advice = f", write one row a protein, its classes joined by {SEPARATOR!r}" if table else ""
        twice = f"{places[row.id]} and {row.place}"
        raise InputError(
            f"{source}: the id {row.id!r} is there twice, {twice}; rename or remove one{advice}",
            f", or {JOIN}" if table else "",
        )


def of_folder(row: ProteinRow, name: str, stem: str, numbered: bool) -> ProteinRow:
    """A row of one of several files: its place has the file's name, and a column says which file it is from."""
    if FILE in row.columns:
        raise InputError(f"{name}: {row.place}: has a column {FILE!r}, which names the files of a folder; rename it")
    return row._replace(
        place=f"{name}, {row.place}", id=f"{stem}:{row.id}" if numbered else row.id, columns=row.columns | {FILE: stem}
    )


def checked_sequence(source: str, row: ProteinRow, changes: Counter[str], other_letters: str) -> tuple[str, str | None]:
    """The sequence in upper case without its stop, both of which are counted; why it is left out, if so."""
    # Letters are checked before upper(), which turns some foreign letters into amino acids ("ß" into "SS").
    sequence = row.sequence.removesuffix("*")
    if sequence == row.sequence and sequence.endswith("."):
        sequence = sequence.removesuffix(".")
        changes[DOT] += 1
    if not sequence:
        raise InputError(f"{source}: {row.place}: protein {row.id!r} has an empty sequence; add it or remove the entry")
    illegal = _ILLEGAL.search(sequence)
    stop = illegal is not None and (
        illegal[0] == "." or (illegal[0] == "*" and {*sequence[illegal.start() :]} != {"*"})
    )
    if illegal and other_letters == "skip":
        return sequence, "a stop codon inside its sequence" if stop else "letters that stand for no residue"
    if illegal:
        known = "only the 20 amino acids and X, U, B, Z, O are allowed"
        if stop:
            known = "a stop codon inside it: check its translation (frame, genetic code, pseudogene)"
        elif illegal[0].isdigit():
            known = "numbers are no residues: take them out"
        else:
            known = CAUSES.get(illegal[0], known)
        raise InputError(
            f"{source}: {row.place}: protein {row.id!r} has {illegal[0]!r} at residue {illegal.start() + 1}; {known}",
            ', or leave such proteins out with [data] other_letters = "skip"',
        )
    changes[STOPS] += row.sequence.endswith("*")
    changes[LOWER] += not sequence.isupper()
    return sequence.upper(), None
