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

import contextlib
import csv
import gzip
import hashlib
import io
import itertools
import re
import zlib
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

from Bio.SeqIO.FastaIO import SimpleFastaParser

from plmscope.errors import InputError, StudyError

if TYPE_CHECKING:
    import pyarrow as pa

EMBEDDED = {"plmscope:enzymes": "enzymes.tsv.gz"}
#: Largest decompressed file that is read, in characters (text) or bytes (Parquet).
MAX_SIZE = 4 * 2**30
#: Longest line that is read, in characters.
MAX_LINE = 64 * 2**20

LETTERS = "ACDEFGHIKLMNPQRSTVWYXUBZO"
#: The twenty of the genetic code.
AMINO_ACIDS = LETTERS[:20]
_ILLEGAL = re.compile(f"[^{LETTERS}{LETTERS.lower()}]")
_NUCLEOTIDES = re.compile("[ACGTUN]+")
_HEADER_FIELD = re.compile(r'(?:^|[ \t])([A-Za-z][\w.-]*)=("[^"]*"(?![^ \t])|[^ \t]*)')
_EC = re.compile(r"[1-7](?:\.\d+){0,2}(?:\.n?\d+)?(?:\.-)*")
# Bytes that are not UTF-8 arrive as these characters ("surrogateescape"), so that the line is known.
_UNDECODABLE = re.compile("[\udc80-\udcff]")
_CONTROL = re.compile(r"[\x00-\x08\x0e-\x1f]")


@dataclass(frozen=True, slots=True, repr=False)
class Protein:
    """One protein; ``len`` counts its residues.

    Attributes:
        id: Unique in its file, printable.
        sequence: Upper-case one-letter codes: the 20 amino acids and X, U, B, Z, O.
        label: The class, or None where none was asked for.
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
    """

    proteins: tuple[Protein, ...]
    excluded: tuple[Excluded, ...]
    source: str
    sha256: str

    def __len__(self) -> int:
        return len(self.proteins)

    def __iter__(self) -> Iterator[Protein]:
        return iter(self.proteins)

    @property
    def labels(self) -> tuple[str, ...]:
        """The classes that occur, sorted as text."""
        return tuple(sorted({protein.label for protein in self.proteins if protein.label is not None}))

    @property
    def reasons(self) -> dict[str, int]:
        """How many proteins were left out, by reason."""
        return dict(Counter(excluded.reason for excluded in self.excluded))

    def __repr__(self) -> str:
        counts = Counter(protein.label for protein in self.proteins)
        classes = ", ".join(f"{label} ({counts[label]:,})" for label in self.labels) or "none"
        left_out = "; ".join(f"{number:,} x {reason}" for reason, number in self.reasons.items())
        excluded = f"{len(self.excluded):,} excluded" + (f": {left_out}" if left_out else "")
        return f"ProteinSet({len(self):,} proteins from {self.source!r}; classes: {classes}; {excluded})"


class _Row(NamedTuple):
    """One record as found; ``place`` is its line (text) or row (Parquet)."""

    place: str
    id: str
    sequence: str
    columns: dict[str, str]


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
            A protein without a class, or with several at that EC level, is excluded.
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
    source = str(path)
    level = _ec_level(source, label)
    label_column = label if level is None else "ec"

    proteins: list[Protein] = []
    excluded: list[Excluded] = []
    longer: list[tuple[str, str, int]] = []
    places: dict[str, str] = {}
    names: dict[str, None] = {}  # a dict keeps the order of the file
    with _located(source) as file:
        with file.open("rb") as handle:
            sha256 = hashlib.file_digest(handle, "sha256").hexdigest()
        for row in _rows(file, source):
            _check_id(source, row, places)
            places[row.id] = row.place
            names.update(dict.fromkeys(row.columns))
            sequence = _checked_sequence(source, row)
            value, reason = None, None
            if label_column is not None:
                value, reason = _label_or_reason(source, row, label_column, level)
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
    result = ProteinSet(tuple(proteins), tuple(excluded), source, sha256)
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


def _check_id(source: str, row: _Row, places: Mapping[str, str]) -> None:
    """Refuse an id that is missing, unprintable or there already."""
    if not row.id:
        raise InputError(f"{source}: {row.place}: the protein has no id; give every protein one")
    if not row.id.isprintable():
        raise InputError(f"{source}: {row.place}: the id {row.id!r} has an unprintable character; remove it")
    if row.id in places:
        raise InputError(
            f"{source}: the id {row.id!r} is there twice, {places[row.id]} and {row.place}; rename or remove one"
        )


def _checked_sequence(source: str, row: _Row) -> str:
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


def _label_or_reason(source: str, row: _Row, column: str, level: int | None) -> tuple[str | None, str | None]:
    """The label, or else the reason why there is none."""
    text = row.columns.get(column, "").strip()
    if not text:
        return None, f"no value in column {column!r}"
    if level is None:
        return text, None
    try:
        classes = ec_classes(text, level)
    except InputError as error:
        raise InputError(f"{source}: {row.place}: protein {row.id!r}: {error}") from None
    if len(classes) == 1:
        return classes[0], None
    return None, f"several classes at EC level {level}" if classes else f"EC number too partial for level {level}"


@contextlib.contextmanager
def _located(source: str) -> Iterator[Path]:
    """The file behind a path or an embedded name, known to be there and not empty."""
    if source.startswith("plmscope:"):
        if source not in EMBEDDED:
            raise InputError(f"{source}: no such embedded data; there is {', '.join(EMBEDDED)}")
        with resources.as_file(resources.files("plmscope.embedded") / EMBEDDED[source]) as path:
            yield path
        return
    path = Path(source)
    try:
        size = path.stat().st_size
        if path.is_file():
            path.open("rb").close()
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"{source!r}: cannot be read ({reason}); check the path") from None
    if not path.is_file():
        kind = "a folder" if path.is_dir() else "not a regular file"
        raise InputError(f"{source}: is {kind}; name one FASTA or table file")
    if size == 0:
        raise InputError(f"{source}: is empty; give a FASTA or table file")
    yield path


def _rows(path: Path, source: str) -> Iterator[_Row]:
    """The records of a file, its format told by its content."""
    with path.open("rb") as handle:
        magic = handle.read(4)
    if magic == b"PAR1":
        return _parquet_rows(path, source)
    lines = _lines(path, source, zipped=magic.startswith(b"\x1f\x8b"))
    head = []
    for line in lines:
        head.append(line)
        if line.strip():
            break
    else:
        raise InputError(f"{source}: is empty; give a FASTA or table file")
    lines = itertools.chain(head, lines)
    if head[-1].startswith(">"):
        return _fasta_rows(lines, source)
    if _CONTROL.search(head[-1]):
        raise InputError(f"{source}: is binary, but neither gzip nor Parquet; save it as FASTA, TSV, CSV or Parquet")
    return _table_rows(lines, source, "\t" if "\t" in head[-1] else ",")


def _lines(path: Path, source: str, *, zipped: bool) -> Iterator[str]:
    """The lines of a text file, one at a time, each known to be UTF-8 and of sane length."""
    size = 0
    try:
        with (
            gzip.open(path) if zipped else path.open("rb") as raw,
            io.TextIOWrapper(raw, "utf-8-sig", errors="surrogateescape") as text,
        ):
            for number, line in enumerate(iter(lambda: text.readline(MAX_LINE), ""), 1):
                size += len(line)
                if zipped and size > MAX_SIZE:
                    raise InputError(f"{source}: is larger than {MAX_SIZE:,} bytes when decompressed; split it")
                if len(line) == MAX_LINE:
                    raise InputError(f"{source}: line {number} is longer than {MAX_LINE:,} characters; wrap it")
                if not line.isascii() and (found := _UNDECODABLE.search(line)):
                    byte = ord(found[0]) - 0xDC00
                    raise InputError(f"{source}: line {number} is not UTF-8 text (byte 0x{byte:02x}); save it as UTF-8")
                yield line
    except EOFError:
        raise InputError(f"{source}: the gzip file is cut short; copy or download it again") from None
    except (OSError, zlib.error) as error:
        raise InputError(f"{source}: cannot be read ({_one_line(error)}); copy or download it again") from None


def _one_line(error: Exception) -> str:
    """The first line of an error's text."""
    return next(iter(str(error).splitlines()), type(error).__name__)


def _fasta_rows(lines: Iterable[str], source: str) -> Iterator[_Row]:
    """The records of a FASTA file."""
    starts: deque[int] = deque()

    def noted() -> Iterator[str]:
        for number, line in enumerate(lines, 1):
            if line.startswith(">"):
                starts.append(number)
            yield line

    for title, sequence in SimpleFastaParser(noted()):  # type: ignore[no-untyped-call,unused-ignore]
        place = f"line {starts.popleft()}"
        # Only blanks and tabs end an id: str.split() would also cut at control characters.
        name, _, rest = title.strip(" \t").replace("\t", " ").partition(" ")
        columns: dict[str, str] = {}
        for key, value in _HEADER_FIELD.findall(rest):
            quoted = value.startswith('"')
            if quoted and (len(value) < 2 or not value.endswith('"')):
                raise InputError(f"{source}: {place}: {key}={value} in the header has no closing quote; add it")
            if key in columns:
                raise InputError(f"{source}: {place}: the header gives {key!r} twice; keep one")
            columns[key] = value[1:-1] if quoted else value
        yield _Row(place, name, sequence, columns)


def _checked_header(source: str, names: list[str]) -> None:
    """Refuse a table without ``id`` and ``sequence``, or with a name twice."""
    missing = [name for name in ("id", "sequence") if name not in names]
    if missing:
        found = ", ".join(repr(name[:30]) for name in names[:12])
        raise InputError(
            f"{source}: is not FASTA (no '>' at its start), and as a table it lacks the column "
            f"{' and '.join(map(repr, missing))}; its header is {found}"
        )
    twice = [name for name, number in Counter(names).items() if number > 1]
    if twice:
        raise InputError(f"{source}: the column {twice[0]!r} is there twice; rename one")


def _table_rows(lines: Iterable[str], source: str, delimiter: str) -> Iterator[_Row]:
    """The rows of a TSV (quotes are text, as in UniProt's) or CSV file (quotes quote)."""
    # csv rather than pandas: pandas fills short rows and may shift long ones without a word.
    if delimiter == "\t":
        reader = csv.reader(lines, delimiter="\t", quoting=csv.QUOTE_NONE)
    else:
        reader = csv.reader(lines, strict=True)
    names: list[str] = []
    start = 1
    try:
        for fields in reader:
            place, start = f"line {start}", reader.line_num + 1
            if len(fields) < 2 and not "".join(fields).strip():
                continue
            if not names:
                names = [name.strip() for name in fields]
                _checked_header(source, names)
                continue
            if len(fields) != len(names):
                raise InputError(f"{source}: {place} has {len(fields)} fields, the header {len(names)}; correct it")
            columns = dict(zip(names, fields, strict=True))
            yield _Row(place, columns.pop("id").strip(), columns.pop("sequence").strip(), columns)
    except csv.Error as error:
        raise InputError(f"{source}: line {start} is not a table row ({_one_line(error)}); correct it") from None


def _parquet_rows(path: Path, source: str) -> Iterator[_Row]:
    """The rows of a Parquet file, a thousand at a time."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            groups = range(file.metadata.num_row_groups)
            if sum(file.metadata.row_group(group).total_byte_size for group in groups) > MAX_SIZE:
                raise InputError(f"{source}: is larger than {MAX_SIZE:,} bytes when decompressed; split it")
            names = list(file.schema_arrow.names)
            _checked_header(source, names)
            numbers = itertools.count(1)
            for batch in file.iter_batches(batch_size=1000):
                texts = [_texts(column) for column in batch.columns]
                for number, fields in zip(numbers, zip(*texts, strict=True), strict=False):
                    columns = dict(zip(names, fields, strict=True))
                    yield _Row(f"row {number}", columns.pop("id").strip(), columns.pop("sequence").strip(), columns)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise InputError(f"{source}: is not a sound Parquet file ({_one_line(error)}); write it again") from None


def _texts(column: pa.Array) -> list[str]:
    """A Parquet column as text; what is missing becomes empty."""
    import pyarrow as pa

    # Nested values have no cast to text.
    values = column.to_pylist() if pa.types.is_nested(column.type) else column.cast(pa.string()).to_pylist()
    return ["" if value is None else str(value) for value in values]
