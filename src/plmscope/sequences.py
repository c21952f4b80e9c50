"""Proteins: reading one file, checking every one, and leaving out what the settings say, with a count.

::

    file -> rows (rows.py) -> label -> filters by class and length -> duplicates -> windows -> ProteinSet

FASTA (plain, UniProt's and NCBI's headers; ``key=value`` after the id becomes a column), alignments, tables (TSV, CSV,
Parquet), Swiss-Prot flat files; all may be compressed.

Whatever cannot be used stops the reading with one line that names the file and the place, except for what the settings
leave out on purpose (no class, an unwanted or rare one, length, repeated sequence): that is listed in
:attr:`ProteinSet.excluded` with its reason. No sequence is ever cut short: one that is too long is refused, left out,
or read in overlapping windows.

>>> proteins = read_proteins("plmscope:enzymes", label="ec:1")
>>> len(proteins), proteins.labels
(2285, ('1', '2', '3', '4', '5', '6'))
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, NamedTuple

from plmscope.errors import InputError, StudyError, shown
from plmscope.formats import (
    ID_NAMES,
    STDIN,
    called,
    located,
    open_content,
    open_table,
    pick,
    quoted_names,
    refuse_values,
)
from plmscope.labels import SEPARATOR, TASKS, Task, class_names, classes_of, join_classes
from plmscope.rows import EC_COLUMNS, Row, protein_rows

LETTERS = "ACDEFGHIKLMNPQRSTVWYXUBZO"
#: The twenty of the genetic code.
AMINO_ACIDS = LETTERS[:20]
#: What programs write for a missing value, in lower case.
MISSING = ("nan", "na", "n/a", "none", "null")
#: Between the matches of a pattern; no text of a file has it.
SEVERAL = "\ue000"
#: Longest id or label, in characters.
MAX_NAME = 200
#: How many classes a text lists before it counts the others.
LISTED = 20
TOO_LONG = ("error", "skip", "windows")
DUPLICATES = ("error", "first", "keep")
REPEATED = "its sequence is there before"
STOPS, LOWER = "sequences without their final '*'", "sequences with lower-case letters, read as upper case"
_ILLEGAL = re.compile(f"[^{LETTERS}{LETTERS.lower()}]")
_NUMBER = re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?")
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
        parent: Of a window, the id of the protein that it is a part of; else empty.
        start: Of a window, how many residues of the parent come before it.
    """

    id: str
    sequence: str
    label: str | None = None
    columns: Mapping[str, str] = field(default_factory=dict, hash=False)
    parent: str = ""
    start: int = 0

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
        sha256: Of the bytes of the file, and of the second table if there is one.
        task: ``single`` or ``multi``: whether a label is one class or several.
        windowed: How many of the proteins that were read are here as windows.
        unused_labels: How many rows of the second table are of no protein.
        changes: What was taken otherwise than it stands in the file, and how often.
    """

    proteins: tuple[Protein, ...]
    excluded: tuple[Excluded, ...]
    source: str
    sha256: str
    task: Task = "single"
    windowed: int = 0
    unused_labels: int = 0
    changes: Mapping[str, int] = field(default_factory=dict, hash=False)

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
        labels = self.labels
        classes = ", ".join(f"{label} ({counts[label]:,})" for label in labels[:LISTED]) or "none"
        classes += f" and {len(labels) - LISTED:,} more" if len(labels) > LISTED else ""
        several = sum(len(one) > 1 for one in own)
        classes += f"; {several:,} proteins with several" if several else ""
        if doubtful := [label for label in labels if label.casefold() in MISSING]:
            classes += f"; {' and '.join(map(repr, doubtful))} counted as a class: leave the cell empty if it is none"
        left_out = "; ".join(f"{number:,} x {reason}" for reason, number in self.reasons.items())
        excluded = f"{len(self.excluded):,} excluded" + (f": {left_out}" if left_out else "")
        if self.windowed:
            n_windows = sum(bool(protein.parent) for protein in self.proteins)
            excluded += f"; {self.windowed:,} long ones in {n_windows:,} windows"
        if self.unused_labels:
            excluded += f"; {self.unused_labels:,} labels of no protein"
        if changes := "; ".join(f"{number:,} x {what}" for what, number in self.changes.items() if number):
            excluded += f"; changed: {changes}"
        return f"ProteinSet({len(self):,} proteins from {self.source!r}; classes: {classes}; {excluded})"

    @property
    def n_read(self) -> int:
        """How many proteins the file has: those here, each long one counted once, and those left out."""
        return len({protein.parent or protein.id for protein in self.proteins}) + len(self.excluded)


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
            raise InputError(
                f"{shown(number)} is not an EC number; write it as 1.1.1.1 or 1.1.-.-, several joined by ';'"
            )
        known = parts[:level]
        if len(known) == level and "-" not in known:
            classes.add(".".join(known))
    return tuple(sorted(classes))


def read_proteins(
    path: str | Path,
    *,
    label: str | None = None,
    task: Task = "single",
    labels: str = "",
    ec_column: str = "",
    separator: str = SEPARATOR,
    id_column: str = "",
    sequence_column: str = "",
    classes: Sequence[str] = (),
    min_per_class: int = 1,
    duplicates: Literal["error", "first", "keep"] = "first",
    min_length: int = 30,
    max_length: int = 1022,
    too_long: Literal["error", "skip", "windows"] = "error",
    window_overlap: int = 256,
    stdin: Path | None = None,
) -> ProteinSet:
    """Read and check the proteins of one file.

    Lower-case letters count as upper case, and one ``*`` at the end of a sequence as the stop that it is: it is not a
    residue. Blanks around ids and labels are dropped. In a Parquet file numbers are turned into text, lists are joined
    by ``;``, and what is missing or NaN is empty.

    Args:
        path: FASTA, TSV, CSV, Parquet or a Swiss-Prot flat file, text compressed by gzip, bzip2, xz or zstd or not;
            ``"-"``, standard input; or ``"plmscope:enzymes"`` or ``"plmscope:families"``, the embedded tables.
        label: ``"ec:1"`` to ``"ec:4"`` derives the class from the EC numbers (column ``ec``, or ``EC number`` as
            UniProt calls it, or ``ec_column``). ``"header:PATTERN"`` takes it from the FASTA header, by a regular
            expression with one group, wherever it matches. Any other text names a column. A protein without a class is
            excluded, and so is one with several EC classes or matches in a single-label task; a column whose values
            join classes by ``;`` is refused there. Numbers that hardly recur are no classes and refused.
        task: ``"single"``: a protein has one class. ``"multi"``: it may have several, those of its EC numbers, of all
            matches, or those that the column joins by ``separator``; its label has them sorted and joined by ``;``.
        labels: A second table with the ids of proteins and columns about them, such as the label's; or empty.
        ec_column: Column of the EC numbers, or ``"header:PATTERN"`` for where they stand in FASTA headers; empty:
            ``ec``, ``EC number``, ``EC`` or ``ec_number``.
        separator: Between the classes of one protein in a column of a multi-label task.
        id_column: Column of the ids in tables; empty: ``id``, ``Entry`` or ``accession``. Refused where no file is one.
        sequence_column: Column of the sequences in tables; empty: ``sequence`` or ``Sequence``. Refused elsewhere.
        classes: Proteins that have another class are excluded; empty: none are.
        min_per_class: Proteins that have a class with fewer proteins, after all other exclusions, are excluded. In a
            multi-label task this is repeated until no class has fewer.
        duplicates: Of proteins with equal sequence, in file order: ``"first"`` keeps the first and excludes the others,
            ``"error"`` refuses them, ``"keep"`` keeps all. Unless all are kept, equal sequences with different labels
            are refused.
        min_length: Shorter proteins are excluded.
        max_length: Longest protein in residues (ESM-2 takes 1,022).
        too_long: ``"error"`` stops at longer proteins, ``"skip"`` excludes them, ``"windows"`` reads them as
            :func:`windows` of ``max_length`` residues, each a protein of its own with the id ``id/1-1022``, the label
            and the columns of its parent. They are never cut.
        window_overlap: Residues that two windows share, at least.
        stdin: Where standard input was saved, if it was (path ``"-"``).

    Returns:
        The proteins in file order, and what was left out with its reason; at least one protein is left.

    Raises:
        InputError: a file cannot be read, is damaged or in another format; an id is missing, unprintable, too long or
            there twice; a sequence is empty, has other letters, is too long or there twice; all look like DNA or RNA;
            the label's column is unknown or an EC number malformed; a class does not occur; no protein is left.
        StudyError: a setting is impossible.
    """
    if not 1 <= min_length <= max_length:
        raise StudyError(f"min_length {min_length!r} and max_length {max_length!r}: need 1 <= min_length <= max_length")
    for setting, given, known in (("too_long", too_long, TOO_LONG), ("duplicates", duplicates, DUPLICATES)):
        if given not in known:
            raise StudyError(f"{setting} {given!r} is unknown; use {', '.join(map(repr, known))}")
    if too_long == "windows" and not 0 <= window_overlap < max_length:
        raise StudyError(f"window_overlap {window_overlap!r} has to be from 0 to below max_length = {max_length}")
    if task not in TASKS:
        raise StudyError(f"task {task!r} is unknown; use {' or '.join(map(repr, TASKS))}")
    if not separator.strip():
        raise StudyError(f"separator {shown(separator)}: has to be a mark such as ';' or '|'")
    source = str(path)
    labelling = _labelling(source, label, ec_column)
    second = _read_second(labels, id_column, task) if labels else None

    found: list[Protein] = []
    fate: dict[str, str | None] = {}  # why a protein is left out, by id, in file order
    longer: list[tuple[str, str, int]] = []
    places: dict[str, str] = {}
    names: dict[str, None] = {}  # a dict keeps the order of the file
    with located(source) if stdin is None else contextlib.nullcontext(stdin) as file:
        source = called(source)
        with file.open("rb") as handle:
            sha256 = hashlib.file_digest(handle, "sha256").hexdigest()
        content = open_content(file, source)
        if labelling is not None and labelling.pattern is not None and content.format != "fasta":
            asked = f"label {shown(str(label))}" if labelling.level is None else f"ec_column {shown(ec_column)}"
            raise InputError(f"{source}: {asked} needs FASTA headers; name a column instead")
        # Beside a second table the column of ids may be that table's alone.
        own = id_column if second is None or content.format in ("parquet", "table") else ""
        for row in protein_rows(content, own, sequence_column, number=second is None):
            _check_id(source, row, places, content.format in ("parquet", "table"))
            places[row.id] = row.place
            sequence = _checked_sequence(source, row, content.changes)
            if second is not None:
                row = second.added_to(source, row)
            value, reason = None, None
            if labelling is not None:
                row = labelling.found_in(row, task)
                if labelling.column in row.doubts:
                    raise InputError(f"{source}: {row.place}: protein {row.id!r}: {row.doubts[labelling.column]}")
                if labelling.column in row.notes:
                    content.changes[row.notes[labelling.column]] += 1
                value, reason = _label_or_reason(source, row, labelling, task, separator)
                if value is not None:
                    reason = _refused_class(source, row, value, task, classes)
            names.update(dict.fromkeys(row.columns))
            if reason is None and len(sequence) < min_length:
                reason = f"shorter than {min_length} residues"
            if reason is None and len(sequence) > max_length and too_long != "windows":
                longer.append((row.place, row.id, len(sequence)))
                reason = f"longer than {max_length} residues"
            fate[row.id] = reason
            if reason is None:
                found.append(Protein(row.id, sequence, value, row.columns))

    if not places:
        raise InputError(f"{source}: has no protein; give a file with at least one")
    if second is not None:
        second.check_matched(source, places)
    if labelling is not None and labelling.column not in names:
        setting = "label" if labelling.level is None else "ec_column"
        raise InputError(
            f"{source}: label {shown(str(label))} needs the column {shown(labelling.column)}; {_listed(names, setting)}"
        )
    if longer and too_long == "error":
        place, name, length = longer[0]
        raise InputError(
            f"{source}: {place}: protein {name!r} has {length:,} residues, more than max_length = {max_length} "
            f'({len(longer):,} in all do); leave them out with too_long = "skip", read their parts with "windows", '
            "or raise max_length"
        )
    if found and all(_NUCLEOTIDES.fullmatch(protein.sequence) for protein in found):
        raise InputError(f"{source}: all {len(found):,} sequences look like DNA or RNA; give their translation")
    if found:
        if labelling is not None and labelling.level is None:
            _check_are_classes(source, found, task, str(label), separator)
        _check_classes_occur(source, found, task, classes)
    if duplicates != "keep":
        found = _without_duplicates(source, found, places, fate, duplicates)
    found = _without_rare(found, task, min_per_class, fate)
    result = ProteinSet(
        tuple(itertools.chain.from_iterable(_parts(protein, max_length, window_overlap) for protein in found)),
        tuple(Excluded(name, reason) for name, reason in fate.items() if reason is not None),
        source,
        sha256 if second is None else f"{sha256}+{second.sha256}",
        task,
        sum(len(protein) > max_length for protein in found),
        0 if second is None else len(second.columns.keys() - places.keys()),
        {what: number for what, number in content.changes.items() if number},
    )
    if not found:
        left_out = "; ".join(f"{number:,} x {reason}" for reason, number in result.reasons.items())
        raise InputError(
            f"{source}: no protein is left of {len(places):,} ({left_out}); change these settings or the file"
        )
    for protein in result.proteins if result.windowed else ():
        if protein.parent and protein.id in places:
            raise InputError(f"{source}: {places[protein.id]}: the id {protein.id!r} is that of a window; rename it")
    return result


def windows(length: int, size: int, overlap: int) -> list[tuple[int, int]]:
    """Start and end of the windows that cover a protein, 0-based, the end left out.

    Each is ``size`` residues long and starts ``size - overlap`` after the one before; the last one ends where the
    protein does, so it shares more with its neighbour. A protein of up to ``size`` residues is one window.

    >>> windows(25, 10, 2)
    [(0, 10), (8, 18), (15, 25)]
    """
    if length <= size:
        return [(0, length)]
    starts = [*range(0, length - size, size - overlap), length - size]
    return [(start, start + size) for start in starts]


def _parts(protein: Protein, size: int, overlap: int) -> Iterator[Protein]:
    """The protein itself, or its windows."""
    if len(protein) <= size:
        yield protein
        return
    for start, end in windows(len(protein), size, overlap):
        name = f"{protein.id}/{start + 1}-{end}"
        yield Protein(name, protein.sequence[start:end], protein.label, protein.columns, protein.id, start)


class _Labelling(NamedTuple):
    """How the label is found: in a column, which for a pattern is filled from all its matches in the header."""

    column: str
    level: int | None = None
    pattern: re.Pattern[str] | None = None
    given: bool = False

    def found_in(self, row: Row, task: Task) -> Row:
        """The row with the label's text in its column."""
        if self.pattern is not None:
            matches = dict.fromkeys(
                text for match in self.pattern.finditer(row.header) if (text := (match[1] or "").strip())
            )
            # In a single-label task several classes stay apart, so that they are seen to be several.
            text = (SEPARATOR if task == "multi" or self.level is not None else SEVERAL).join(matches)
            return row._replace(columns=row.columns | {self.column: text})
        if self.level is not None and not self.given and self.column not in row.columns:
            other = pick(row.columns, EC_COLUMNS)
            if other is not None:
                return row._replace(columns=row.columns | {self.column: row.columns[other]})
        return row


def _labelling(source: str, label: str | None, ec_column: str) -> _Labelling | None:
    """What the settings ``label`` and ``ec_column`` mean."""
    if label is None:
        return None
    level = _ec_level(source, label)
    if level is None:
        if ec_column:
            raise StudyError(
                f"ec_column {shown(ec_column)} is for label = 'ec:1' to 'ec:4', not for {shown(label)}; leave it empty"
            )
        return _Labelling(label, None, _pattern("label", label))
    return _Labelling(ec_column or "ec", level, _pattern("ec_column", ec_column), bool(ec_column))


def _pattern(setting: str, text: str) -> re.Pattern[str] | None:
    """The regular expression of ``"header:PATTERN"``, None for the name of a column."""
    if not text.startswith("header:"):
        return None
    try:
        pattern = re.compile(text.removeprefix("header:"))
    except (re.error, RecursionError, OverflowError) as error:
        raise StudyError(f"{setting} {shown(text)}: is not a regular expression ({error}); correct it") from None
    if pattern.groups != 1:
        raise StudyError(
            f"{setting} {shown(text)}: has {pattern.groups} groups; put the class into one, as in header:EC=([0-9.]+)"
        )
    return pattern


@dataclass(frozen=True)
class _Second:
    """A second table about the proteins: columns by id."""

    source: str
    names: tuple[str, ...]
    columns: dict[str, dict[str, str]]
    sha256: str

    def added_to(self, source: str, row: Row) -> Row:
        """The row with what this table says about its protein."""
        both = next((name for name in self.names if name in row.columns), None)
        if both is not None:
            raise InputError(f"{self.source}: the column {both!r} is in {source} too; rename one")
        found = self.columns.get(row.id)
        return row._replace(columns=row.columns | (dict.fromkeys(self.names, "") if found is None else found))

    def check_matched(self, source: str, places: Mapping[str, str]) -> None:
        """Refuse a table none of whose ids is of a protein."""
        if self.columns and not self.columns.keys() & places.keys():
            raise InputError(
                f"{self.source}: none of its {len(self.columns):,} ids is of a protein of {source} (the first is "
                f"{shown(next(iter(self.columns)))}, the first protein {shown(next(iter(places)))}); give both files "
                "the same ids, or name the column that has them by id_column"
            )


def _read_second(source: str, id_column: str, task: Task) -> _Second:
    """Read the table that the setting ``labels`` names."""
    if source == STDIN:
        raise StudyError("labels '-': standard input is for the sequences; name a file")
    with located(source) as file:
        with file.open("rb") as handle:
            sha256 = hashlib.file_digest(handle, "sha256").hexdigest()
        table = open_table(open_content(file, source))
        own = pick(table.names, (id_column, *ID_NAMES) if id_column else ID_NAMES)
        if own is None:
            refuse_values(source, table.names)
            raise InputError(
                f"{source}: lacks the column {id_column or 'id'!r}; its header is {quoted_names(table.names)}; name it "
                "by id_column"
            )
        columns: dict[str, dict[str, str]] = {}
        for place, fields in table.rows:
            name = fields.pop(own).strip()
            if name in columns:
                advice = f", its classes joined by {SEPARATOR!r}" if task == "multi" else ""
                raise InputError(
                    f"{source}: {place}: the id {shown(name)} is there twice; keep one row a protein{advice}"
                )
            columns[name] = fields
    return _Second(source, tuple(name for name in table.names if name != own), columns, sha256)


def _refused_class(source: str, row: Row, label: str, task: Task, classes: Sequence[str]) -> str | None:
    """Refuse a label that cannot be shown; the reason why its class is not wanted, if so."""
    for name in classes_of(label, task):
        if not name.isprintable():
            raise InputError(
                f"{source}: {row.place}: protein {row.id!r}: the label {shown(name)} has an unprintable character; "
                "remove it"
            )
        if len(name) > MAX_NAME:
            raise InputError(
                f"{source}: {row.place}: protein {row.id!r}: the label {shown(name)} is longer than {MAX_NAME} "
                "characters; name the class in fewer"
            )
        if classes and name not in classes:
            return "a class that is not among data.classes"
    return None


def _check_are_classes(source: str, proteins: Sequence[Protein], task: Task, label: str, separator: str) -> None:
    """Refuse labels that are measurements, or several classes joined."""
    names = class_names((protein.label for protein in proteins), task)
    first = ", ".join(shown(name) for name in names[:3])
    if all(_NUMBER.fullmatch(name) for name in names):
        whole = all(float(name).is_integer() or _EC.fullmatch(name) for name in names)
        if len(names) > max(len(proteins) / 2, 7 if whole else 2):
            raise InputError(
                f"{source}: label {shown(label)}: {len(names):,} different numbers ({first}, ...) in {len(proteins):,} "
                "proteins are a measurement, not classes; write bins of them, such as low and high, into a column, and "
                "name that one by label"
            )
    marks, advice = (SEPARATOR, 'use task = "multi"') if task == "single" else ("|,/+&", "")
    for mark in marks:
        joined = {name: [part.strip() for part in name.split(mark) if part.strip()] for name in names}
        several = [name for name in names if len(joined[name]) > 1]
        if task == "multi" and any(len(classes_of(str(protein.label), task)) > 1 for protein in proteins):
            return
        alone = Counter(part for name in names for part in set(joined[name]))
        # A name may hold such a mark; parts that are classes elsewhere are classes.
        numbers = {name for name in several if all(_EC.fullmatch(part) for part in joined[name])}
        odd = next((name for name in several if name in numbers or any(alone[part] > 1 for part in joined[name])), "")
        if odd:
            other = "name an EC level, as in label = 'ec:1'" if odd in numbers else f"write one class without {mark!r}"
            raise InputError(
                f"{source}: label {shown(label)}: {shown(odd)} looks like several classes joined by {mark!r}; "
                f"{advice or f'set separator = {mark!r}'}, or {other}"
            )


def _check_classes_occur(source: str, proteins: Sequence[Protein], task: Task, classes: Sequence[str]) -> None:
    """Refuse a wanted class that no protein has: it is misspelt, or at another level."""
    there = class_names((protein.label for protein in proteins), task)
    absent = [name for name in classes if name not in there]
    if absent:
        raise InputError(
            f"{source}: data.classes has {shown(absent[0])}, a class of no protein that is left; correct it"
        )


def _without_duplicates(
    source: str, proteins: Sequence[Protein], places: Mapping[str, str], fate: dict[str, str | None], rule: str
) -> list[Protein]:
    """The first protein of every sequence; equal sequences with other labels, or at all, are refused."""
    first: dict[str, Protein] = {}
    repeated: list[tuple[Protein, Protein]] = []
    for protein in proteins:
        earlier = first.setdefault(protein.sequence, protein)
        if earlier is not protein:
            repeated.append((earlier, protein))
            fate[protein.id] = REPEATED
    conflicts = [(one, other) for one, other in repeated if one.label != other.label]
    for pairs, what, way_out in (
        (conflicts, ", but another label", 'correct the labels, or keep all with duplicates = "keep"'),
        (repeated if rule == "error" else [], "", 'remove one, or keep the first of each with duplicates = "first"'),
    ):
        if pairs:
            one, other = pairs[0]
            names = f" ({shown(str(other.label))}, {shown(str(one.label))})" if what else ""
            raise InputError(
                f"{source}: {places[other.id]}: protein {other.id!r} has the sequence of {one.id!r} "
                f"({places[one.id]}){what}{names}; {len(pairs):,} in all do; {way_out}"
            )
    return list(first.values())


def _without_rare(
    proteins: Sequence[Protein], task: Task, min_per_class: int, fate: dict[str, str | None]
) -> list[Protein]:
    """The proteins all of whose classes have enough."""
    kept, before = list(proteins), -1
    while len(kept) != before and min_per_class > 1:
        before = len(kept)
        own = [classes_of(protein.label, task) if protein.label is not None else () for protein in kept]
        counts = Counter(itertools.chain.from_iterable(own))
        rare = [any(counts[name] < min_per_class for name in names) for names in own]
        for protein, left_out in zip(kept, rare, strict=True):
            if left_out:
                fate[protein.id] = f"a class with fewer than {min_per_class} proteins"
        kept = [protein for protein, left_out in zip(kept, rare, strict=True) if not left_out]
    return kept


def _listed(names: Iterable[str], setting: str) -> str:
    """What columns there are, for an error text."""
    known = ", ".join(shown(name) for name in itertools.islice(names, LISTED))
    if not known:
        return "the file has no columns besides id and sequence"
    which = "the one with EC numbers" if setting == "ec_column" else "one of these"
    return f"the file has {known}; name {which} by {setting}"


def _ec_level(source: str, label: str | None) -> int | None:
    """The level of ``"ec:1"`` to ``"ec:4"``, None for a column's name."""
    if label is None or not label.startswith("ec:"):
        return None
    if label not in ("ec:1", "ec:2", "ec:3", "ec:4"):
        raise InputError(f"{source}: label {shown(label)} does not exist; use 'ec:1' to 'ec:4' or the name of a column")
    return int(label[3:])


def _check_id(source: str, row: Row, places: Mapping[str, str], table: bool) -> None:
    """Refuse an id that is missing, unprintable or there already."""
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
        advice = f", or write one row a protein, its classes joined by {SEPARATOR!r}" if table else ""
        twice = f"{places[row.id]} and {row.place}"
        raise InputError(f"{source}: the id {row.id!r} is there twice, {twice}; rename or remove one{advice}")


def _checked_sequence(source: str, row: Row, changes: Counter[str]) -> str:
    """The sequence in upper case without its stop, both of which are counted."""
    # Letters are checked before upper(), which turns some foreign letters into amino acids ("ß" into "SS").
    sequence = row.sequence.removesuffix("*")
    if not sequence:
        raise InputError(f"{source}: {row.place}: protein {row.id!r} has an empty sequence; add it or remove the entry")
    illegal = _ILLEGAL.search(sequence)
    if illegal:
        known = "only the 20 amino acids and X, U, B, Z, O are allowed"
        if illegal[0] == "*" and set(sequence[illegal.start() :]) != {"*"}:
            known = "a stop codon inside it: check its translation (frame, genetic code, pseudogene), or remove it"
        raise InputError(
            f"{source}: {row.place}: protein {row.id!r} has {illegal[0]!r} at residue {illegal.start() + 1}; {known}"
        )
    changes[STOPS] += sequence != row.sequence
    changes[LOWER] += not sequence.isupper()
    return sequence.upper()


def _label_or_reason(
    source: str, row: Row, labelling: _Labelling, task: Task, separator: str
) -> tuple[str | None, str | None]:
    """The label, or else the reason why there is none."""
    column, level = labelling.column, labelling.level
    text = row.columns.get(column, "").strip()
    if level is None and task == "multi":
        text = join_classes(part for one in text.split(SEPARATOR) for part in one.split(separator))
    if not text and labelling.pattern is not None:
        matched = labelling.pattern.search(row.header) is not None
        how = "gives an empty class by" if matched else "does not match"
        return None, f"its header {how} {labelling.pattern.pattern!r}"
    if not text:
        return None, f"no value in column {column!r}"
    if level is None:
        if SEVERAL in text and labelling.pattern is not None:
            return None, f"several classes in its header by {labelling.pattern.pattern!r}"
        return text, None
    if text.casefold() in MISSING:
        return None, f"{text!r} in column {column!r}"
    try:
        classes = ec_classes(text, level)
    except InputError as error:
        raise InputError(f"{source}: {row.place}: protein {row.id!r}: {error}") from None
    if len(classes) == 1 or (classes and task == "multi"):
        return join_classes(classes), None
    return None, f"several classes at EC level {level}" if classes else f"EC number too partial for level {level}"
