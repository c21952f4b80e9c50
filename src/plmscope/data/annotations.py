"""What is known about proteins and their residues: EC numbers, and features such as active sites.

An EC number says what an enzyme does, as a path of up to four numbers: the first is one of seven classes, each further
one narrows the reaction. ``1.1.1.1`` is alcohol dehydrogenase, ``1.1`` everything that oxidises CH-OH groups, ``1`` all
oxidoreductases. ``-`` means "not known further". The class of a protein at level 1 to 4 is that many leading numbers; a
number that is not known so far has no class there.

A feature is a stretch of residues with a meaning. Files count residues from 1 and include both ends; arrays count from
0 and leave the end out, so ``start = 52, end = 52`` in a file is ``sequence[51:52]``:

    mask[r]  =  some feature of the type has start <= r < end          (R,)

>>> ec_classes("1.1.1.1; 1.2.3.-", level=2)
('1.1', '1.2')
"""

from __future__ import annotations

import hashlib
import itertools
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from plmscope.data.formats import ID_NAMES, Content, called, located, open_content, pick
from plmscope.data.labelling import MAX_NAME, ec_classes
from plmscope.data.proteins import Protein
from plmscope.data.rows import flat_entries
from plmscope.data.tables import open_table, quoted_names, refuse_values
from plmscope.data.uniprot import FEATURES, OLD_KEYS, Feature, feature_key, parse_feature_cell, parse_place, split_bond
from plmscope.errors import InputError, shown

__all__ = ["EC_NAMES", "FeatureSet", "ec_classes", "read_features"]

#: What the seven top classes are called (IUBMB Enzyme Nomenclature).
EC_NAMES: Mapping[str, str] = {
    "1": "oxidoreductases",
    "2": "transferases",
    "3": "hydrolases",
    "4": "lyases",
    "5": "isomerases",
    "6": "ligases",
    "7": "translocases",
}
#: Why a feature is left out whose protein is not among those asked about.
ELSEWHERE = "its protein is not in the study"
_DECIMALS = re.compile(r"(?<=[0-9])\.0+$")
#: Names by which the columns of a table of features are known, best first.
_COLUMNS: Mapping[str, tuple[str, ...]] = {
    "id": ("key", *ID_NAMES),
    "type": ("feature_type", "type"),
    "start": ("start",),
    "end": ("end",),
    "description": ("description",),
    "letters": ("letters", "residue", "residues"),
}


@dataclass(frozen=True, repr=False)
class FeatureSet:
    """Residue features of one file.

    Attributes:
        table: One row a feature, ``id, feature_type, start, end, description``; ``sequence[start:end]`` are its
            residues (0-based, the end left out). Rows that say the same are there once.
        excluded: How many features were left out, by reason.
        source: The path as it was given.
        sha256: Of the bytes of the file.
        clipped: How many features some window of their protein holds only in part.
    """

    table: pd.DataFrame
    excluded: Mapping[str, int]
    source: str
    sha256: str
    clipped: int = 0

    def __len__(self) -> int:
        return len(self.table)

    def __repr__(self) -> str:
        counts = Counter(self.table["feature_type"])
        types = ", ".join(f"{name} ({number:,})" for name, number in counts.most_common(12)) or "none"
        left_out = "; ".join(f"{number:,} x {reason}" for reason, number in self.excluded.items())
        proteins = self.table["id"].nunique()
        return (
            f"FeatureSet({len(self):,} features of {proteins:,} proteins from {self.source!r}; {types}"
            f"{f'; {self.clipped:,} cut by the end of a window' if self.clipped else ''}"
            f"{'; excluded: ' + left_out if left_out else ''})"
        )

    @cached_property
    def _spans(self) -> dict[tuple[str, str], list[tuple[int, int]]]:
        spans: dict[tuple[str, str], list[tuple[int, int]]] = {}
        for name, kind, start, end, _ in self.table.itertuples(index=False, name=None):
            spans.setdefault((str(name), str(kind)), []).append((start, end))
        return spans

    def mask(self, protein: Protein, feature_type: str) -> NDArray[np.bool_]:
        """Which residues of a protein have a feature of one type, ``(R,)``; all false where none is known.

        Raises:
            InputError: a feature ends behind the sequence.
        """
        result = np.zeros(len(protein), dtype=bool)
        for start, end in self._spans.get((protein.id, feature_type), ()):
            if end > len(protein):
                raise InputError(
                    f"{self.source}: {feature_type} {start + 1}..{end} of protein {protein.id!r} lies outside its "
                    f"{len(protein):,} residues; the file is for another sequence"
                )
            result[start:end] = True
        return result


class _Found(NamedTuple):
    """One feature as found; ``letters`` are its residues where the file names them."""

    place: str
    id: str
    feature: Feature
    letters: str = ""


def read_features(path: str | Path, proteins: Iterable[Protein] | None = None) -> FeatureSet:
    """Read and check residue features.

    A bond (DISULFID, CROSSLNK) is a pair of residues: its two ends, not what lies between them, become features.

    Files count from the start of the whole protein. Where a protein is here as windows (``too_long = "windows"``), each
    window gets what of a feature lies inside it, counted from its own start:

        window of residues start..start+len:   [max(a - start, 0), min(b - start, len))   if not empty

    Args:
        path: A table (TSV, CSV, Parquet) with the columns ``key`` or ``id``, ``feature_type``, ``start`` and ``end``,
            perhaps ``description`` and ``letters``; a UniProt TSV with columns such as ``Active site``; a Swiss-Prot
            flat file; or GFF3. Text files may be compressed.
        proteins: Whose features are wanted, with their sequences; features of others are left out and counted, and
            positions and letters are checked. Of a long protein either all windows are given or none. None: of all
            proteins, unchecked against their sequences.

    Returns:
        The features in file order, and how many were left out by reason: not among the proteins, position not known
        exactly or counted on another isoform. Features in several windows are there once for each.

    Raises:
        InputError: the file cannot be read, or has no features, or none of these proteins; a number is malformed, a
            position lies outside its protein, or a letter is another one than the sequence has there.

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     table = Path(folder, "sites.csv")
    ...     row = {"id": "p", "feature_type": "ACT_SITE", "start": 2, "end": 3}
    ...     pd.DataFrame([row]).to_csv(table, index=False)
    ...     features = read_features(table, [Protein("p", "MKTAY", "1")])
    >>> features.mask(Protein("p", "MKTAY", "1"), "ACT_SITE").tolist()
    [False, True, True, False, False]
    """
    source = str(path)
    pieces: dict[str, list[Protein]] = {}  # by the name of the protein: itself, or its windows
    for protein in proteins or ():
        pieces.setdefault(protein.parent or protein.id, []).append(protein)
    rows: dict[tuple[str, str, int, int, str], None] = {}  # a dict keeps the order of the file
    clipped: set[tuple[str, Feature]] = set()
    excluded: Counter[str] = Counter()
    n_read, first = 0, ""
    with located(source) as file:
        source = called(source)
        with file.open("rb") as handle:
            sha256 = hashlib.file_digest(handle, "sha256").hexdigest()
        for entry in _features(open_content(file, source)):
            n_read, first = n_read + 1, first or entry.id
            feature = entry.feature
            if proteins is not None and entry.id not in pieces:
                excluded[ELSEWHERE] += 1
            elif feature.reason:
                excluded[feature.reason] += 1
            elif proteins is None:
                _check(source, entry, ())
                rows[entry.id, feature.type, feature.start - 1, feature.end, feature.description] = None
            else:
                _check(source, entry, pieces[entry.id])
                for part in pieces[entry.id]:
                    start, end = _inside(feature, part)
                    if start < end:
                        rows[part.id, feature.type, start, end, feature.description] = None
                        if end - start <= feature.end - feature.start:
                            clipped.add((entry.id, feature))
    if not n_read:
        raise InputError(f"{source}: has no residue feature; give a file with some")
    if excluded[ELSEWHERE] == n_read:
        raise InputError(
            f"{source}: none of its {n_read:,} features is of a protein of the study (the first one is of "
            f"{shown(first)}, the first protein is {shown(next(iter(pieces), ''))}); give both files the same ids"
        )
    table = pd.DataFrame(list(rows), columns=["id", "feature_type", "start", "end", "description"])
    return FeatureSet(table.astype({"start": np.int64, "end": np.int64}), dict(excluded), source, sha256, len(clipped))


def _inside(feature: Feature, part: Protein) -> tuple[int, int]:
    """What of a feature lies inside a protein or window, counted from its start; start = end if nothing does."""
    start = max(feature.start - 1 - part.start, 0)
    return start, max(start, min(feature.end - part.start, len(part)))


def _check(source: str, found: _Found, parts: Sequence[Protein]) -> None:
    """Refuse a feature that does not fit its protein, which is given as such or as its windows."""
    where = f"{source}: {found.place}: {shown(found.feature.type)} {found.feature.start}..{found.feature.end}"
    where += f" of protein {shown(found.id)}"
    if not found.id.isprintable() or not found.feature.type.isprintable():
        raise InputError(f"{where} has an unprintable character; remove it")
    for what, text in (("an id", found.id), ("a type", found.feature.type)):
        if not text:
            raise InputError(f"{where} lacks {what}; add it")
        if len(text) > MAX_NAME:
            raise InputError(f"{where} has {what} of more than {MAX_NAME} characters; shorten it")
    if not 1 <= found.feature.start <= found.feature.end:
        raise InputError(f"{where}: need 1 <= start <= end; positions count from 1")
    if not parts:
        return
    length = max(part.start + len(part) for part in parts)
    if found.feature.end > length:
        raise InputError(f"{where} lies outside its {length:,} residues; the file is for another sequence")
    letters, size = found.letters.upper(), found.feature.end - found.feature.start + 1
    if not letters:
        return
    for part in parts:
        start, end = _inside(found.feature, part)
        there = part.sequence[start:end]
        first = part.start + start - (found.feature.start - 1)  # of the feature's residues, where this part begins
        if there and (letters[first : first + len(there)] != there or len(letters) != size):
            raise InputError(
                f"{where} is {shown(there)} in the sequence, {shown(found.letters)} in the file; it is for another "
                "sequence, or counts from 0"
            )


def _features(content: Content) -> Iterator[_Found]:
    """The features of a file of any format that has some."""
    if content.format == "flat":
        for place, entry in flat_entries(content):
            for feature in entry.features:
                yield _Found(place, entry.accession, feature)
        return
    if content.format == "gff":
        yield from _gff_features(content)
        return
    if content.format == "fasta":
        raise InputError(
            f"{content.source}: is FASTA, which has no residue features; give a table, a flat file or GFF3"
        )
    table = open_table(content)
    cells = [name for name in (*(name for _, _, name in FEATURES), *OLD_KEYS) if name in table.names]
    if cells and "Entry" in table.names:
        for place, fields in table.rows:
            for name in cells:
                try:
                    features = parse_feature_cell(fields[name])
                except InputError as error:
                    raise InputError(f"{content.source}: {place}: column {name!r}: {error}") from None
                for feature in features:
                    yield _Found(place, fields["Entry"].strip(), feature)
        return
    own = {what: pick(table.names, names) for what, names in _COLUMNS.items()}
    lacks = next((what for what in ("id", "type", "start", "end") if own[what] is None), None)
    if lacks is not None:
        refuse_values(content.source, table.names, "id, feature_type, start and end")
        raise InputError(
            f"{content.source}: a table of residue features needs the column {_COLUMNS[lacks][0]!r}; its header is "
            f"{quoted_names(table.names)}; call its columns id, feature_type, start and end"
        )
    for place, fields in table.rows:
        text = {what: "" if name is None else fields[name].strip() for what, name in own.items()}
        for what in ("start", "end"):
            text[what] = _DECIMALS.sub("", text[what])  # pandas writes whole numbers so where one is missing
            if not (text[what].isascii() and text[what].isdigit() and len(text[what]) < 10):
                raise InputError(
                    f"{content.source}: {place}: {what} {shown(text[what])} is not a whole number; correct it"
                )
        feature = Feature(feature_key(text["type"]), int(text["start"]), int(text["end"]), text["description"])
        for part in split_bond(feature):
            yield _Found(place, text["id"], part, text["letters"] if part is feature else "")


def _gff_features(content: Content) -> Iterator[_Found]:
    """The features of a GFF3 file; names that UniProt has become its keys, others are taken as they are."""
    lines = itertools.takewhile(lambda line: not line.startswith("##FASTA"), content.lines)
    for number, line in enumerate(lines, 1):
        if line.startswith("#") or not line.strip():
            continue
        fields = line.rstrip("\r\n").split("\t")
        if len(fields) != 9 and fields[9:] != [""]:  # UniProt's lines end with a tab
            raise InputError(f"{content.source}: line {number} has {len(fields)} fields, GFF3 has 9; correct it")
        name, _, kind, start, end = (unquote(field) for field in fields[:5])
        attributes = dict(part.partition("=")[::2] for part in fields[8].split(";"))
        notes = [unquote(attributes[key]) for key in ("Note", "evidence") if attributes.get(key)]
        try:
            (first, _, unsure), (_, last, unsure_end) = parse_place(start), parse_place(end)
        except InputError as error:
            raise InputError(f"{content.source}: line {number}: {error}") from None
        feature = Feature(feature_key(kind), first, last, "; ".join(notes), unsure or unsure_end)
        for part in split_bond(feature):
            yield _Found(f"line {number}", name, part)
