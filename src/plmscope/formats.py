"""File formats: from bytes to one row a protein, without holding the file in memory.

The content decides the format, not the file name. Compression (gzip, bzip2, xz, zstd) and Parquet are told by their
first bytes; text is FASTA if it starts with ``>``, a Swiss-Prot flat file if with an ID line, GFF3 by its first line,
else a table with a header row: tab-separated if the header holds a tab, else comma-separated. ``-`` is standard input.

Every row knows its place (line or row), so that whoever refuses it can name it. Whatever is damaged, binary, not UTF-8
or grows without bound when it is decompressed stops the reading with one line.
"""

from __future__ import annotations

import bz2
import codecs
import contextlib
import csv
import gzip
import io
import itertools
import lzma
import re
import shutil
import sys
import tempfile
import zlib
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from Bio.SeqIO.FastaIO import SimpleFastaParser

from plmscope.errors import InputError, shown
from plmscope.labels import SEPARATOR
from plmscope.uniprot import Entry, parse_entry, parse_header

if TYPE_CHECKING:
    import pyarrow as pa

ENZYMES, FAMILIES = "plmscope:enzymes", "plmscope:families"
EMBEDDED = {ENZYMES: "enzymes.tsv.gz", FAMILIES: "families.tsv.gz"}
STDIN = "-"
#: Largest decompressed file that is read, in characters (text) or bytes (Parquet).
MAX_SIZE = 4 * 2**30
#: A file this much larger than its compressed form, and larger than the size beside it, was made to fill a disk.
MAX_EXPANSION, EXPANSION_FROM = 100, 256 * 2**20
#: Longest line that is read, in characters.
MAX_LINE = 64 * 2**20
#: Longest entry of a FASTA or flat file, in characters; the longest known protein has 45,000 residues.
MAX_ENTRY = 2**21

Format = Literal["parquet", "fasta", "flat", "gff", "table"]
#: Names by which the columns of proteins are known, best first: ours, UniProt's, the data bases'.
ID_NAMES = ("id", "Entry", "accession", "Accession")
SEQUENCE_NAMES = ("sequence", "Sequence")

_FASTA_FIELD = re.compile(r'(?:^|[ \t])([A-Za-z][\w.-]*)=("[^"]*"(?![^ \t])|[^ \t]*)')
_NCBI = re.compile(r"(?:gi\|(\d+)\|)?(?:ref|gb|emb|dbj|pir|prf|tpg|tpe|tpd|bbs|lcl|gnl\|[^|]+)\|([^| ]+)\|?([^| ]*)")
_PDB = re.compile(r"(?:gi\|(\d+)\|)?pdb\|(\w+)\|(\w*)")
_NCBI_ORGANISM = re.compile(r"\[([^\[\]=]+)\]\s*$")
_NCBI_FIELD = re.compile(r"\[([A-Za-z][\w.-]*)=([^\[\]]*)\]")
# Bytes that are not UTF-8 arrive as these characters ("surrogateescape"), so that the line is known.
_UNDECODABLE = re.compile("[\udc80-\udcff]")
_CONTROL = re.compile(rb"[\x00-\x08\x0e-\x1f]")
#: How many bytes of a text are looked at to see whether it is one.
SNIFFED = 2**16


class Row(NamedTuple):
    """One protein as found; ``place`` is its line (text) or row (Parquet), ``header`` its FASTA header."""

    place: str
    id: str
    sequence: str
    columns: dict[str, str]
    header: str = ""


@dataclass(frozen=True)
class Content:
    """A file whose format is known.

    Attributes:
        format: What it is.
        path: Where it is.
        source: What errors call it.
        lines: Its text, which can be read once; empty for Parquet.
        delimiter: Between the fields of a table.
    """

    format: Format
    path: Path
    source: str
    lines: Iterator[str] = field(default_factory=lambda: iter(()), repr=False)
    delimiter: str = ","


@contextlib.contextmanager
def located(source: str) -> Iterator[Path]:
    """The file behind a path, an embedded name or ``-``, known to be there and not empty.

    Standard input is first written to a temporary file: it can be read once only.
    """
    if source.startswith("plmscope:"):
        if source not in EMBEDDED:
            raise InputError(f"{source}: no such embedded data; there is {', '.join(EMBEDDED)}")
        with resources.as_file(resources.files("plmscope.embedded") / EMBEDDED[source]) as path:
            yield path
        return
    if source == STDIN:
        with tempfile.TemporaryDirectory(prefix="plmscope-") as folder:
            path = Path(folder) / "stdin"
            save_stdin(path)
            yield path
        return
    path = Path(source)
    try:
        size = path.stat().st_size
        if path.is_file():
            path.open("rb").close()
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"{shown(source, 1000)}: cannot be read ({reason}); check the path") from None
    if not path.is_file():
        kind = "a folder" if path.is_dir() else "not a regular file"
        raise InputError(f"{source}: is {kind}; name one FASTA or table file")
    if size == 0:
        raise InputError(f"{source}: is empty; give a FASTA or table file")
    yield path


def save_stdin(path: Path) -> None:
    """Write standard input to a file.

    Raises:
        InputError: it is a terminal, or empty.
    """
    if sys.stdin is None or sys.stdin.isatty():
        raise InputError("standard input: is a terminal; pipe a file into the command, or name one instead of '-'")
    with path.open("wb") as file:
        shutil.copyfileobj(sys.stdin.buffer, file)
    if path.stat().st_size == 0:
        raise InputError("standard input: is empty; give a FASTA or table file")


def called(source: str) -> str:
    """What errors call a source."""
    return "standard input" if source == STDIN else source


def open_content(path: Path, source: str) -> Content:
    """Tell the format of a file.

    Raises:
        InputError: it is empty, binary, damaged, or not UTF-8.
    """
    with path.open("rb") as handle:
        magic = handle.read(6)
    if magic.startswith(b"PAR1"):
        return Content("parquet", path, source)
    opener = next((opener for start, opener in _OPENERS.items() if magic.startswith(start)), None)
    lines = _lines(path, source, opener)
    head = []
    for line in lines:
        head.append(line)
        if line.strip():
            break
    else:
        raise InputError(f"{source}: is empty; give a FASTA or table file")
    first, lines = head[-1], itertools.chain(head, lines)
    if first.startswith(">"):
        return Content("fasta", path, source, lines)
    if first.startswith("##gff-version"):
        return Content("gff", path, source, lines)
    if first.startswith("ID   ") and first.rstrip().endswith("AA."):
        return Content("flat", path, source, lines)
    return Content("table", path, source, lines, "\t" if "\t" in first else ",")


def _open_zstd(path: Path) -> Any:
    """A zstd file for reading; Arrow brings the decompressor."""
    import pyarrow as pa

    return pa.input_stream(str(path), compression="zstd")


_OPENERS: dict[bytes, Callable[[Path], Any]] = {
    b"\x1f\x8b": gzip.GzipFile,
    b"BZh": bz2.BZ2File,
    b"\xfd7zXZ\x00": lzma.LZMAFile,
    b"\x28\xb5\x2f\xfd": _open_zstd,
}
_CUT_SHORT = ("Truncated", "ended before the end-of-stream marker")
#: What a file is that starts so and is no text.
_NO_TEXT = {
    b"PK\x03\x04": "is an Excel workbook or a zip archive; export the sheet as CSV, or unpack the archive",
    b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1": "is an Excel workbook or another Office file; export the sheet as CSV",
    b"PAR1": "is Parquet, compressed once more; decompress it",
    **dict.fromkeys(_OPENERS, "is compressed twice; decompress it once"),
}


def _refuse_binary(start: bytes, source: str) -> None:
    """Refuse what is no text by its first bytes: control characters in the first line, or the mark of another format.

    UTF-16, which has zeros too, is left to whoever decodes the lines; so is FASTA: NCBI joins headers by Ctrl-A.
    """
    found = next((what for mark, what in _NO_TEXT.items() if start.startswith(mark)), None)
    if found:
        raise InputError(f"{source}: {found}")
    text = start.removeprefix(codecs.BOM_UTF8).lstrip()
    if text.startswith((b">", codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return
    if _CONTROL.search(re.split(rb"[\r\n]", text, maxsplit=1)[0]):
        raise InputError(
            f"{source}: is binary, but neither compressed in a known way nor Parquet; save it as FASTA, TSV, CSV or "
            "Parquet"
        )


_LARGER = "{}: is larger than {:,} bytes when decompressed; split it"


def _bound(path: Path) -> int:
    """How many characters a compressed file may have."""
    return min(MAX_SIZE, max(EXPANSION_FROM, MAX_EXPANSION * path.stat().st_size))


def _lines(path: Path, source: str, opener: Callable[[Path], Any] | None) -> Iterator[str]:
    """The lines of a text file, one at a time, each known to be UTF-8 and of sane length."""
    size, bound = 0, _bound(path)
    opened = opener or (lambda path: path.open("rb"))
    try:
        with opened(path) as raw:
            _refuse_binary(raw.read(SNIFFED), source)
        with opened(path) as raw, io.TextIOWrapper(raw, "utf-8-sig", errors="surrogateescape") as text:
            for number, line in enumerate(iter(lambda: text.readline(MAX_LINE), ""), 1):
                size += len(line)
                if opener is not None and size > bound:
                    raise InputError(_LARGER.format(source, bound))
                if len(line) == MAX_LINE:
                    raise InputError(f"{source}: line {number} is longer than {MAX_LINE:,} characters; wrap it")
                if not line.isascii() and (found := _UNDECODABLE.search(line)):
                    byte = ord(found[0]) - 0xDC00
                    raise InputError(f"{source}: line {number} is not UTF-8 text (byte 0x{byte:02x}); save it as UTF-8")
                yield line
    except (EOFError, OSError, zlib.error, lzma.LZMAError) as error:
        if isinstance(error, EOFError) or any(words in str(error) for words in _CUT_SHORT):
            raise InputError(f"{source}: the compressed file is cut short; copy or download it again") from None
        raise InputError(f"{source}: cannot be read ({one_line(error)}); copy or download it again") from None


def one_line(error: Exception) -> str:
    """The first line of an error's text."""
    return next(iter(str(error).splitlines()), type(error).__name__)


# --- tables -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Table:
    """Rows with named fields.

    Attributes:
        names: Of the columns, distinct.
        rows: Place and fields of every row, which can be read once.
    """

    names: tuple[str, ...]
    rows: Iterator[tuple[str, dict[str, str]]] = field(repr=False)


def open_table(content: Content) -> Table:
    """The header of a table, its rows to follow; quotes quote in CSV and are text in TSV, as in UniProt's.

    Raises:
        InputError: the file is no table, or has a column twice.
    """
    if content.format not in ("parquet", "table"):
        raise InputError(f"{content.source}: is not a table; give a TSV, CSV or Parquet file with named columns")
    rows = _parquet_rows(content) if content.format == "parquet" else _text_rows(content)
    first = next(rows, None)
    if first is None:  # nothing but empty quotes
        raise InputError(f"{content.source}: has no header; give a FASTA or table file")
    names = first[1]
    twice = [name for name, number in Counter(names).items() if number > 1]
    if twice:
        raise InputError(f"{content.source}: the column {shown(twice[0])} is there twice; rename one")
    return Table(tuple(names), ((place, dict(zip(names, fields, strict=True))) for place, fields in rows))


def _text_rows(content: Content) -> Iterator[tuple[str, Sequence[str]]]:
    """Place and fields of the header and of every row of a TSV or CSV file."""
    # csv rather than pandas: pandas fills short rows and may shift long ones without a word.
    if content.delimiter == "\t":
        reader = csv.reader(content.lines, delimiter="\t", quoting=csv.QUOTE_NONE)
    else:
        reader = csv.reader(content.lines, strict=True)
    width, start = 0, 1
    csv.field_size_limit(max(csv.field_size_limit(), MAX_ENTRY))  # of the whole process
    try:
        for fields in reader:
            place, start = f"line {start}", reader.line_num + 1
            if len(fields) < 2 and not "".join(fields).strip():
                continue
            if not width:
                width, fields = len(fields), [name.strip() for name in fields]
            if len(fields) != width:
                raise InputError(f"{content.source}: {place} has {len(fields)} fields, the header {width}; correct it")
            yield place, fields
    except csv.Error as error:
        raise InputError(f"{content.source}: line {start} is not a table row ({one_line(error)}); correct it") from None


def _parquet_rows(content: Content) -> Iterator[tuple[str, Sequence[str]]]:
    """The same of a Parquet file, 64 rows at a time: each may be long, although a dictionary makes the file short."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    size, bound = 0, _bound(content.path)
    try:
        with pq.ParquetFile(content.path) as file:
            groups = range(file.metadata.num_row_groups)
            if sum(file.metadata.row_group(group).total_byte_size for group in groups) > MAX_SIZE:
                raise InputError(_LARGER.format(content.source, MAX_SIZE))
            names = list(file.schema_arrow.names)
            for name, kind in zip(names, file.schema_arrow.types, strict=True):
                _refuse_nested(kind, f"{content.source}: the column {shown(name)}")
            yield "header", names
            numbers = itertools.count(1)
            for batch in file.iter_batches(batch_size=64):
                texts = [_texts(column) for column in batch.columns]
                size += sum(len(text) for column in texts for text in column)
                if size > bound:
                    raise InputError(_LARGER.format(content.source, bound))
                for number, fields in zip(numbers, zip(*texts, strict=True), strict=False):
                    yield f"row {number}", fields
    except (pa.ArrowException, OSError, ValueError) as error:
        raise InputError(f"{content.source}: is not a sound Parquet file ({one_line(error)}); write it again") from None


def _texts(column: pa.Array) -> list[str]:
    """A Parquet column as text: a list joined by ``;``; what is missing or not a number becomes empty."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if _is_list(column.type):
        items = iter(_texts(column.flatten()))
        lengths = pc.list_value_length(column).to_pylist()
        return [SEPARATOR.join(filter(None, itertools.islice(items, length or 0))) for length in lengths]
    missing = (None, "nan") if pa.types.is_floating(column.type) else (None,)
    encoded = column.cast(pa.string()).dictionary_encode(null_encoding="encode")  # equal texts are one object
    texts = ["" if text in missing else text for text in encoded.dictionary.to_pylist()]
    return [texts[number] for number in encoded.indices.to_pylist()]


def _is_list(kind: pa.DataType) -> bool:
    """Whether the values are lists, of any length or of one."""
    import pyarrow as pa

    return isinstance(kind, pa.ListType | pa.LargeListType | pa.FixedSizeListType)


def _refuse_nested(kind: pa.DataType, what: str) -> None:
    """Refuse a column that is no text, and no list of it."""
    import pyarrow as pa

    if pa.types.is_nested(kind.value_type if _is_list(kind) else kind):
        raise InputError(
            f"{what} holds {' '.join(str(kind).split())[:60]}; write it as text, lists joined by ';', or drop it"
        )


def pick(names: Iterable[str], wanted: Sequence[str]) -> str | None:
    """The first of the wanted names that is there."""
    there = set(names)
    return next((name for name in wanted if name in there), None)


# --- proteins ---------------------------------------------------------------------------------------------------------


def protein_rows(content: Content, id_column: str = "", sequence_column: str = "") -> Iterator[Row]:
    """The proteins of a file.

    Args:
        content: What :func:`open_content` gives.
        id_column: Of a table; empty: the first of :data:`ID_NAMES` that is there.
        sequence_column: Of a table; empty: the first of :data:`SEQUENCE_NAMES` that is there.

    Raises:
        InputError: the file is damaged, is no table but columns are named, or has no such column.
    """
    if content.format not in ("parquet", "table"):
        for setting, given in (("id_column", id_column), ("sequence_column", sequence_column)):
            if given:
                raise InputError(f"{content.source}: {setting} = {shown(given)} is for tables; leave it empty")
    if content.format == "fasta":
        return _fasta_rows(content.lines, content.source)
    if content.format == "flat":
        rows = flat_entries(content)
        return (Row(place, entry.accession, entry.sequence, entry.columns) for place, entry in rows)
    if content.format == "gff":
        return _gff_rows(content)
    return _table_rows(content, id_column, sequence_column)


def _table_rows(content: Content, id_column: str, sequence_column: str) -> Iterator[Row]:
    """The proteins of a table."""
    table = open_table(content)
    id_names = (id_column,) if id_column else ID_NAMES
    sequence_names = (sequence_column,) if sequence_column else SEQUENCE_NAMES
    own = pick(table.names, id_names), pick(table.names, sequence_names)
    missing = [names[0] for name, names in zip(own, (id_names, sequence_names), strict=True) if name is None]
    if missing:
        found = ", ".join(repr(name[:30]) for name in table.names[:12])
        if len(table.names) == 1 and ";" in table.names[0]:
            found += "; separate its fields by tabs or commas, not by ';'"
        raise InputError(
            f"{content.source}: is not FASTA (no '>' at its start), and as a table it lacks the column "
            f"{' and '.join(map(shown, missing))}; its header is {found}"
        )
    if own[0] == own[1]:
        raise InputError(
            f"{content.source}: the column {shown(str(own[0]))} holds ids or sequences, not both; name two"
        )
    # UniProt writes how long the sequence is: a cut one shows.
    checked = own[0] == "Entry" and "Length" in table.names
    for place, columns in table.rows:
        name, sequence = (columns.pop(str(column)).strip() for column in own)
        if checked and columns["Length"] != str(len(sequence)):
            raise InputError(
                f"{content.source}: {place}: protein {shown(name)} has {len(sequence):,} residues where 'Length' says "
                f"{shown(columns['Length'])}; download it again"
            )
        yield Row(place, name, sequence, columns)


def _fasta_rows(lines: Iterable[str], source: str, before: int = 0) -> Iterator[Row]:
    """The proteins of a FASTA file; ``before`` lines came earlier."""
    starts: deque[int] = deque()

    def noted() -> Iterator[str]:
        size = 0
        for number, line in enumerate(lines, before + 1):
            if line.startswith(">"):
                starts.append(number)
                size = 0
            size += len(line)
            if size > MAX_ENTRY:
                raise InputError(
                    f"{source}: line {starts[-1]}: the entry is longer than {MAX_ENTRY:,} characters; "
                    "is this a genome? give its proteins"
                )
            yield line

    for title, sequence in SimpleFastaParser(noted()):  # type: ignore[no-untyped-call,unused-ignore]
        place = f"line {starts.popleft()}"
        name, columns, rest = _parse_title(title)
        for key, value in _FASTA_FIELD.findall(rest):
            quoted = value.startswith('"')
            if quoted and (len(value) < 2 or not value.endswith('"')):
                raise InputError(f"{source}: {place}: {key}={shown(value)} in the header has no closing quote; add it")
            if key in columns:
                raise InputError(f"{source}: {place}: the header gives {shown(key)} twice; keep one")
            columns[key] = value[1:-1] if quoted else value
        yield Row(place, name, sequence, columns, title)


def _parse_title(title: str) -> tuple[str, dict[str, str], str]:
    """Id, columns and the rest of a header: UniProt's, NCBI's or a plain one."""
    found = parse_header(title)
    if found is not None:
        return found
    # NCBI joins the headers of one sequence by Ctrl-A; the first names it.
    first, *others = title.split("\x01")
    # Only blanks and tabs end an id: str.split() would also cut at control characters.
    name, _, rest = first.strip(" \t").replace("\t", " ").partition(" ")
    columns: dict[str, str] = {}
    if ncbi := _PDB.fullmatch(name) or _NCBI.fullmatch(name):
        gi, accession, more = ncbi.groups()
        name = f"{accession}_{more}" if more and "pdb|" in name else accession
        columns |= {"gi": gi} if gi else {}
    organism = _NCBI_ORGANISM.search(rest)
    if organism and "organism=" not in rest:
        columns["organism"] = organism[1].strip()
    for key, value in _NCBI_FIELD.findall(rest):  # NCBI repeats a key that has several values
        columns[key] = SEPARATOR.join(filter(None, (columns.get(key, ""), value.strip())))
    rest = _NCBI_FIELD.sub("", rest)
    if others:
        columns["also"] = " ".join(_parse_title(other)[0] for other in others)
    return name, columns, rest


def flat_entries(content: Content) -> Iterator[tuple[str, Entry]]:
    """Place and content of every entry of a Swiss-Prot flat file.

    Raises:
        InputError: an entry is damaged, or the last one cut short.
    """
    lines: list[str] = []
    start, size = 1, 0
    for number, line in enumerate(content.lines, 1):
        if not lines:
            if not line.strip():
                continue
            start, size = number, 0
        size += len(line)
        if size > 32 * MAX_ENTRY:
            raise InputError(f"{content.source}: line {start}: the entry never ends ('//'); download it again")
        lines.append(line)
        if line.startswith("//"):
            try:
                yield f"line {start}", parse_entry(lines)
            except ValueError as error:
                raise InputError(
                    f"{content.source}: line {start}: is not a sound Swiss-Prot entry ({shown(str(error), 200)[1:-1]})"
                    "; download it again"
                ) from None
            lines = []
    if lines:
        raise InputError(f"{content.source}: line {start}: the last entry is cut short (no '//'); download it again")


def _gff_rows(content: Content) -> Iterator[Row]:
    """The proteins of a GFF3 file, which come after ``##FASTA``."""
    for number, line in enumerate(content.lines, 1):
        if line.startswith("##FASTA"):
            yield from _fasta_rows(content.lines, content.source, number)
            return
    raise InputError(
        f"{content.source}: is GFF3 without sequences (no ##FASTA); give the sequences as FASTA or a table"
    )
