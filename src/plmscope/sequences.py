"""Proteins: reading and checking FASTA files and tables.

The content decides the format, not the file name: gzip and Parquet by their first bytes, FASTA by ``>``, anything else
is a table with a header row (tab-separated if the header holds a tab, else comma-separated) and at least the columns
``id`` and ``sequence``. In FASTA, ``key=value`` and ``key="two words"`` after the id become columns; other words of the
header are not read.

Whatever cannot be used stops the reading with one line that names the file and the place, except for what the settings
leave out on purpose (length, no class): that is listed in :attr:`ProteinSet.excluded` with its reason. No sequence is
ever cut.

>>> proteins = read_proteins("plmscope:enzymes", label="ec:1")
>>> len(proteins), proteins.labels
(2285, ('1', '2', '3', '4', '5', '6'))
"""

from __future__ import annotations

import hashlib
import itertools
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from plmscope.errors import InputError, StudyError
from plmscope.formats import Row, called, located, open_content, protein_rows
from plmscope.labels import SEPARATOR, TASKS, Task, class_names, classes_of, join_classes

LETTERS = "ACDEFGHIKLMNPQRSTVWYXUBZO"
#: The twenty of the genetic code.
AMINO_ACIDS = LETTERS[:20]
_ILLEGAL = re.compile(f"[^{LETTERS}{LETTERS.lower()}]")
_NUCLEOTIDES = re.compile("[ACGTUN]+")
_EC = re.compile(r"[1-7](?:\.\d+){0,2}(?:\.n?\d+)?(?:\.-)*")


@dataclass(frozen=True, slots=True, repr=False)
class Protein:
    """One protein; ``len`` counts its residues.

    Attributes:
        id: Unique in its file, printable.
        sequence: Upper-case one-letter codes: the 20 amino acids and X, U, B, Z, O.
        label: The class, or None where none was asked for; in a multi-label task the classes, joined by ``;``.
        columns: Everything else the file says about it.
    """

    id: str
    sequence: str
    label: str | None = None
    columns: Mapping[str, str] = field(default_factory=dict, hash=False)

    def __len__(self) -> int:
        return len(self.sequence)

    def __repr__(self) -> str:
        return f"Protein({self.id!r}, {len(self):,} residues, label={self.label!r})"


@dataclass(frozen=True, slots=True)
class Excluded:
    """One protein that the settings leave out, and why."""

    id: str
    reason: str


@dataclass(frozen=True, repr=False)
class ProteinSet:
    """What was read from one file.

    Attributes:
        proteins: In file order.
        excluded: Those left out, in file order.
        source: The path as it was given.
        sha256: Of the bytes of the file.
        task: ``single`` or ``multi``: whether a label is one class or several.
    """

    proteins: tuple[Protein, ...]
    excluded: tuple[Excluded, ...]
    source: str
    sha256: str
    task: Task = "single"

    def __len__(self) -> int:
        return len(self.proteins)

    def __iter__(self) -> Iterator[Protein]:
        return iter(self.proteins)

    @property
    def labels(self) -> tuple[str, ...]:
        """The classes that occur, sorted as text."""
        return class_names((protein.label for protein in self.proteins), self.task)

    @property
    def reasons(self) -> dict[str, int]:
        """How many proteins were left out, by reason."""
        return dict(Counter(excluded.reason for excluded in self.excluded))

    def __repr__(self) -> str:
        own = [classes_of(protein.label, self.task) for protein in self.proteins if protein.label is not None]
        counts = Counter(itertools.chain.from_iterable(own))
        classes = ", ".join(f"{label} ({counts[label]:,})" for label in self.labels) or "none"
        several = sum(len(one) > 1 for one in own)
        classes += f"; {several:,} proteins with several" if several else ""
        left_out = "; ".join(f"{number:,} x {reason}" for reason, number in self.reasons.items())
        excluded = f"{len(self.excluded):,} excluded" + (f": {left_out}" if left_out else "")
        return f"ProteinSet({len(self):,} proteins from {self.source!r}; classes: {classes}; {excluded})"


def ec_classes(text: str, level: int) -> tuple[str, ...]:
    """The classes that a list of EC numbers names at one level.

    Numbers are separated by ``;``, ``,`` or blanks; a leading ``EC`` is allowed. A partial number counts as far as it
    goes: ``1.2.3.-`` has a class at levels 1 to 3. Preliminary numbers (``1.1.1.n1``) count as they are.

    Args:
        text: As found in a table; empty or ``-`` means no number.
        level: How many leading numbers make the class, 1 to 4.

    Returns:
        The distinct classes, sorted as text; empty if every number is too partial.

    Raises:
        InputError: a part of the text is not an EC number, or ``level`` is not 1 to 4.

    >>> ec_classes("1.1.1.1;1.2.3.-", 1), ec_classes("1.1.1.1;1.2.3.-", 4)
    (('1',), ('1.1.1.1',))
    """
    if level not in (1, 2, 3, 4):
        raise InputError(f"EC level {level!r} does not exist; use 1, 2, 3 or 4")
    classes = set()
    for number in re.sub(r"\bEC[ :]*(?=[1-7-])", " ", text).replace(";", " ").replace(",", " ").split():
        if number == "-":
            continue
        parts = number.split(".")
        if not _EC.fullmatch(number) or len(parts) > 4:
            raise InputError(f"{number!r} is not an EC number; write it as 1.1.1.1 or 1.1.-.-, several joined by ';'")
        known = parts[:level]
        if len(known) == level and "-" not in known:
            classes.add(".".join(known))
    return tuple(sorted(classes))


def read_proteins(
    path: str | Path,
    *,
    label: str | None = None,
    task: Task = "single",
    min_length: int = 30,
    max_length: int = 1022,
    too_long: Literal["error", "skip"] = "error",
) -> ProteinSet:
    """Read and check the proteins of one file.

    Lower-case letters count as upper case, and one ``*`` at the end of a sequence as the stop that it is: it is not a
    residue. Blanks around ids and labels are dropped. In a Parquet file numbers are turned into text.

    Args:
        path: FASTA, TSV or CSV, each also gzipped; Parquet; or ``"plmscope:enzymes"``, the embedded table.
        label: ``"ec:1"`` to ``"ec:4"`` derives the class from the column ``ec``; any other text names a column.
            A protein without a class is excluded, and so is one with several at that EC level in a single-label task.
        task: ``"single"``: a protein has one class. ``"multi"``: it may have several, those of its EC numbers or those
            that the column joins by ``;``; its label has them sorted and joined by ``;``.
        min_length: Shorter proteins are excluded.
        max_length: Longest protein in residues (ESM-2 takes 1,022).
        too_long: ``"error"`` stops at longer proteins, ``"skip"`` excludes them. They are never cut.

    Returns:
        The proteins in file order, and what was left out with its reason; at least one protein is left.

    Raises:
        InputError: the file cannot be read, is damaged or in another format; an id is missing, unprintable or there
            twice; a sequence is empty, has other letters or is too long; all look like DNA or RNA; the label's column
            is unknown or an EC number malformed; no protein is left.
        StudyError: a setting is impossible.
    """
    if not 1 <= min_length <= max_length:
        raise StudyError(f"min_length {min_length!r} and max_length {max_length!r}: need 1 <= min_length <= max_length")
    if too_long not in ("error", "skip"):
        raise StudyError(f"too_long {too_long!r} is unknown; use 'error' or 'skip'")
    if task not in TASKS:
        raise StudyError(f"task {task!r} is unknown; use {' or '.join(map(repr, TASKS))}")
    source = str(path)
    level = _ec_level(source, label)
    label_column = label if level is None else "ec"

    proteins: list[Protein] = []
    excluded: list[Excluded] = []
    longer: list[tuple[str, str, int]] = []
    places: dict[str, str] = {}
    names: dict[str, None] = {}  # a dict keeps the order of the file
    with located(source) as file:
        source = called(source)
        with file.open("rb") as handle:
            sha256 = hashlib.file_digest(handle, "sha256").hexdigest()
        for row in protein_rows(open_content(file, source)):
            _check_id(source, row, places)
            places[row.id] = row.place
            names.update(dict.fromkeys(row.columns))
            sequence = _checked_sequence(source, row)
            value, reason = None, None
            if label_column is not None:
                value, reason = _label_or_reason(source, row, label_column, level, task)
            if reason is None and len(sequence) < min_length:
                reason = f"shorter than {min_length} residues"
            if reason is None and len(sequence) > max_length:
                longer.append((row.place, row.id, len(sequence)))
                reason = f"longer than {max_length} residues"
            if reason is None:
                proteins.append(Protein(row.id, sequence, value, row.columns))
            else:
                excluded.append(Excluded(row.id, reason))

    if not places:
        raise InputError(f"{source}: has no protein; give a file with at least one")
    if label_column is not None and label_column not in names:
        raise InputError(f"{source}: label {label!r} needs the column {label_column!r}; {_listed(names)}")
    if longer and too_long == "error":
        place, name, length = longer[0]
        raise InputError(
            f"{source}: {place}: protein {name!r} has {length:,} residues, more than max_length = {max_length} "
            f'({len(longer):,} in all do); leave them out with too_long = "skip", or raise max_length'
        )
    result = ProteinSet(tuple(proteins), tuple(excluded), source, sha256, task)
    if not proteins:
        left_out = "; ".join(f"{number:,} x {reason}" for reason, number in result.reasons.items())
        raise InputError(
            f"{source}: no protein is left of {len(places):,} ({left_out}); change these settings or the file"
        )
    if all(_NUCLEOTIDES.fullmatch(protein.sequence) for protein in proteins):
        raise InputError(f"{source}: all {len(proteins):,} sequences look like DNA or RNA; give their translation")
    return result


def _listed(names: Iterable[str]) -> str:
    """What columns there are, for an error text."""
    known = ", ".join(repr(name) for name in names)
    return f"the file has {known}; name one of these" if known else "the file has no columns besides id and sequence"


def _ec_level(source: str, label: str | None) -> int | None:
    """The level of ``"ec:1"`` to ``"ec:4"``, None for a column's name."""
    if label is None or not label.startswith("ec:"):
        return None
    if label not in ("ec:1", "ec:2", "ec:3", "ec:4"):
        raise InputError(f"{source}: label {label!r} does not exist; use 'ec:1' to 'ec:4' or the name of a column")
    return int(label[3:])


def _check_id(source: str, row: Row, places: Mapping[str, str]) -> None:
    """Refuse an id that is missing, unprintable or there already."""
    if not row.id:
        raise InputError(f"{source}: {row.place}: the protein has no id; give every protein one")
    if not row.id.isprintable():
        raise InputError(f"{source}: {row.place}: the id {row.id!r} has an unprintable character; remove it")
    if row.id in places:
        raise InputError(
            f"{source}: the id {row.id!r} is there twice, {places[row.id]} and {row.place}; rename or remove one"
        )


def _checked_sequence(source: str, row: Row) -> str:
    """The sequence in upper case without its stop."""
    # Letters are checked before upper(), which turns some foreign letters into amino acids ("ß" into "SS").
    sequence = row.sequence.removesuffix("*")
    if not sequence:
        raise InputError(f"{source}: {row.place}: protein {row.id!r} has an empty sequence; add it or remove the entry")
    illegal = _ILLEGAL.search(sequence)
    if illegal:
        raise InputError(
            f"{source}: {row.place}: protein {row.id!r} has {illegal[0]!r} at residue {illegal.start() + 1}; "
            "only the 20 amino acids and X, U, B, Z, O are allowed"
        )
    return sequence.upper()


def _label_or_reason(
    source: str, row: Row, column: str, level: int | None, task: Task
) -> tuple[str | None, str | None]:
    """The label, or else the reason why there is none."""
    text = row.columns.get(column, "").strip()
    if level is None and task == "multi":
        text = join_classes(text.split(SEPARATOR))
    if not text:
        return None, f"no value in column {column!r}"
    if level is None:
        return text, None
    try:
        classes = ec_classes(text, level)
    except InputError as error:
        raise InputError(f"{source}: {row.place}: protein {row.id!r}: {error}") from None
    if len(classes) == 1 or (classes and task == "multi"):
        return join_classes(classes), None
    return None, f"several classes at EC level {level}" if classes else f"EC number too partial for level {level}"
