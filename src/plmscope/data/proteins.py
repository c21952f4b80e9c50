"""Proteins: reading one file, checking every one, and leaving out what the settings say, with a count.

::

    file -> rows (rows.py) -> label -> filters by class and length -> duplicates -> windows -> ProteinSet

FASTA (plain, UniProt's and NCBI's headers; ``key=value`` after the id becomes a column), alignments, tables (TSV, CSV,
Parquet, JSON lines), Swiss-Prot flat files; all may be compressed. How a label is found is in labelling.py.

Whatever cannot be used stops the reading with one line that names the file and the place, except for what the settings
leave out on purpose (no class, an unwanted or rare one, length, repeated sequence): that is listed in
:attr:`ProteinSet.excluded` with its reason. No sequence is ever cut short: one that is too long is refused, left out,
or read in overlapping windows.

>>> proteins = read_proteins("plmscope:enzymes", label="ec:1")
>>> len(proteins), proteins.labels
(2285, ('1', '2', '3', '4', '5', '6'))
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from plmscope.data.checks import _NUCLEOTIDES, KNOWN_LETTERS, OTHER_LETTERS, check_id, checked_sequence, of_folder
from plmscope.data.formats import TABLES, open_content
from plmscope.data.labelling import (
    LISTED,
    check_are_classes,
    check_classes_occur,
    check_column,
    doubts,
    label_or_reason,
    labelling_of,
    refused_class,
)
from plmscope.data.labels import SEPARATOR, TASKS, LabelTask, class_names, classes_of
from plmscope.data.rows import NUMBERED, protein_rows
from plmscope.data.second_table import read_second
from plmscope.data.sources import sources_of
from plmscope.errors import InputError, StudyError, shown

#: The twenty of the genetic code.
AMINO_ACIDS = KNOWN_LETTERS[:20]
TOO_LONG = ("error", "skip", "windows")
DUPLICATES = ("error", "first", "keep")
REPEATED = "its sequence is there before"


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
    task: LabelTask = "single"
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
        classes += "".join(f"; {doubt}" for doubt in doubts(labels))
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


def read_proteins(
    path: str | Path,
    *,
    label: str | None = None,
    task: LabelTask = "single",
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
    other_letters: Literal["error", "skip"] = "error",
    stdin: Path | None = None,
) -> ProteinSet:
    """Read and check the proteins of one file, or of all files of a folder.

    Lower-case letters count as upper case, and one ``*`` at the end of a sequence as the stop that it is: it is not a
    residue. Blanks around ids and labels are dropped. In a Parquet file numbers are turned into text, lists are joined
    by ``;``, and what is missing or NaN is empty.

    Args:
        path: FASTA, TSV, CSV, Parquet, JSON lines or a Swiss-Prot flat file, text compressed by gzip, bzip2, xz or zstd
            or not; a folder of such files, whose names without their endings are a column ``file``; ``"-"``, standard
            input; or ``"plmscope:enzymes"`` or ``"plmscope:families"``, the embedded tables.
        label: ``"ec:1"`` to ``"ec:4"`` derives the class from the EC numbers (column ``ec``, or ``EC number`` as
            UniProt calls it, or ``ec_column``). ``"header:PATTERN"`` takes it from the FASTA header, by a regular
            expression with one group, wherever it matches. Any other text names a column, or several joined by ``,``
            that have 1 where the class of that name is the protein's and else 0. A protein without a class is
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
        other_letters: Of sequences with other letters than those, such as ``*`` inside or ``-``: ``"error"`` stops,
            ``"skip"`` excludes them.
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
    for setting, given, known in (
        ("too_long", too_long, TOO_LONG), ("duplicates", duplicates, DUPLICATES),
        ("other_letters", other_letters, OTHER_LETTERS),
    ):  # fmt: skip
        if given not in known:
            raise StudyError(f"{setting} {given!r} is unknown; use {', '.join(map(repr, known))}")
    if too_long == "windows" and not 0 <= window_overlap < max_length:
        raise StudyError(f"window_overlap {window_overlap!r} has to be from 0 to below max_length = {max_length}")
    if task not in TASKS:
        raise StudyError(f"task {task!r} is unknown; use {' or '.join(map(repr, TASKS))}")
    if not separator.strip():
        raise StudyError(f"separator {shown(separator)}: has to be a mark such as ';' or '|'")
    source = str(path)
    labelling = labelling_of(source, label, ec_column, task)
    second = read_second(labels, id_column, task) if labels else None

    proteins: list[Protein] = []
    fate: dict[str, str | None] = {}  # why a protein is left out, by id, in file order
    longer: list[tuple[str, str, int]] = []
    places: dict[str, str] = {}
    names: dict[str, None] = {}  # a dict keeps the order of the file
    changes: Counter[str] = Counter()
    fasta = True
    with sources_of(source, stdin) as files:
        source, sha256 = files.source, files.sha256
        for file in files:
            content = open_content(file.path, file.source)
            if labelling is not None and labelling.pattern is not None and content.format != "fasta":
                asked = f"label {shown(str(label))}" if labelling.level is None else f"ec_column {shown(ec_column)}"
                raise InputError(f"{file.source}: {asked} needs FASTA headers; name a column instead")
            tabular = content.format in TABLES
            fasta &= not tabular
            # Beside a second table the column of ids may be that table's alone.
            own = id_column if second is None or tabular else ""
            for row in protein_rows(content, own, sequence_column, number=second is None):
                if file.of_folder:
                    row = of_folder(row, file.name, file.stem, NUMBERED in content.changes)
                check_id(source, row, places, tabular)
                places[row.id] = row.place
                sequence, reason = checked_sequence(source, row, content.changes, other_letters)
                if second is not None:
                    row = second.added_to(source, row)
                value, unlabelled = None, None
                if labelling is not None:
                    row = labelling.found_in(source, row, task, content.changes)
                    if labelling.column in row.doubts:
                        raise InputError(f"{source}: {row.place}: protein {row.id!r}: {row.doubts[labelling.column]}")
                    if labelling.column in row.notes:
                        content.changes[row.notes[labelling.column]] += 1
                    value, unlabelled = label_or_reason(
                        source, row, labelling, task, separator, classes, content.changes
                    )
                    if value is not None:
                        unlabelled = refused_class(source, row, value, task, classes)
                names.update(dict.fromkeys(row.columns))
                reason = reason or unlabelled
                if reason is None and len(sequence) < min_length:
                    reason = f"shorter than {min_length} residues"
                if reason is None and len(sequence) > max_length and too_long != "windows":
                    longer.append((row.place, row.id, len(sequence)))
                    reason = f"longer than {max_length} residues"
                fate[row.id] = reason
                if reason is None:
                    proteins.append(Protein(row.id, sequence, value, row.columns))
            changes.update(content.changes)

    if not places:
        raise InputError(f"{source}: has no protein; give a file with at least one")
    if second is not None:
        second.check_matched(source, places)
    if labelling is not None:
        check_column(source, label, labelling, names, fasta)
    if longer and too_long == "error":
        place, name, length = longer[0]
        raise InputError(
            f"{source}: {place}: protein {name!r} has {length:,} residues, more than max_length = {max_length} "
            f'({len(longer):,} in all do); leave them out with too_long = "skip", read their parts with "windows", '
            "or raise max_length"
        )
    if proteins and all(_NUCLEOTIDES.fullmatch(protein.sequence) for protein in proteins):
        raise InputError(f"{source}: all {len(proteins):,} sequences look like DNA or RNA; give their translation")
    if proteins:
        if labelling is not None and labelling.level is None:
            check_are_classes(source, [protein.label for protein in proteins], task, str(label), separator)
        check_classes_occur(source, [protein.label for protein in proteins], task, classes)
    if duplicates != "keep":
        proteins = _without_duplicates(source, proteins, places, fate, duplicates)
    proteins = _without_rare(proteins, task, min_per_class, fate)
    result = ProteinSet(
        tuple(itertools.chain.from_iterable(_parts(protein, max_length, window_overlap) for protein in proteins)),
        tuple(Excluded(name, reason) for name, reason in fate.items() if reason is not None),
        source,
        sha256 if second is None else f"{sha256}+{second.sha256}",
        task,
        sum(len(protein) > max_length for protein in proteins),
        0 if second is None else len(second.columns.keys() - places.keys()),
        {what: number for what, number in changes.items() if number},
    )
    if not proteins:
        left_out = "; ".join(f"{number:,} x {reason}" for reason, number in result.reasons.items())
        raise InputError(
            f"{source}: no protein is left of {len(places):,} ({left_out})",
            "; change these settings or the file",
            "; give another file",
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
    proteins: Sequence[Protein], task: LabelTask, min_per_class: int, fate: dict[str, str | None]
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
