"""File formats: from bytes to one row a protein, without holding the file in memory.

The content decides the format, not the file name. Compression (gzip, bzip2, xz, zstd) and Parquet are told by their
first bytes; text is FASTA if it starts with ``>``, a Swiss-Prot flat file if with an ID line, GFF3 and Stockholm by
their first line, JSON if that is an object or starts a list of objects, else a table with a header row, separated by
tabs, commas, semicolons or bars, whichever the header has. Comment lines may come first. ``-`` is standard input.
Formats that are known, but not read, are called by name.

Every row knows its place (line or row), so that whoever refuses it can name it. Whatever is damaged, binary, neither
UTF-8 nor UTF-16, or grows without bound when it is decompressed stops the reading with one line.
"""

from __future__ import annotations

import bz2
import codecs
import contextlib
import gzip
import io
import itertools
import lzma
import re
import shutil
import sys
import tempfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from plmscope.data.records import is_list, is_object
from plmscope.errors import InputError, shown

if TYPE_CHECKING:
    pass

ENZYMES, FAMILIES = "plmscope:enzymes", "plmscope:families"
EMBEDDED_FILES = {ENZYMES: "enzymes.tsv.gz", FAMILIES: "families.tsv.gz"}
STDIN = "-"
#: Largest decompressed file that is read, in characters (text) or bytes (Parquet).
MAX_SIZE = 4 * 2**30
#: A file this much larger than its compressed form, and larger than the size beside it, was made to fill a disk.
MAX_EXPANSION, EXPANSION_FROM = 100, 256 * 2**20
#: Longest line that is read, in characters.
MAX_LINE = 64 * 2**20
#: Longest entry of a FASTA or flat file, in characters; the longest known protein has 45,000 residues.
MAX_ENTRY = 2**21

Format = Literal["parquet", "fasta", "stockholm", "flat", "gff", "json", "table"]
#: Formats with named columns.
TABLES = ("parquet", "json", "table")
#: How many lines of comments may come first.
MAX_COMMENTS = 1000
GFF, STOCKHOLM = "##gff-version", "# STOCKHOLM"
#: Names by which the columns of proteins are known, best first: ours, UniProt's, the data bases'.
ID_NAMES = ("id", "Entry", "accession", "Accession")
SEQUENCE_NAMES = ("sequence", "Sequence")
_KNOWN = {name.casefold() for name in (*ID_NAMES, *SEQUENCE_NAMES)}
_SEPARATOR_HINT = re.compile("sep=(.)", re.IGNORECASE)
#: The first lines of text files that are known, but not read.
_FOREIGN = tuple(
    (re.compile(start), what)
    for start, what in (
        (
            r'\{(?!\\rtf)|\[\s*(?:[\[{"]|$)',
            "is JSON, but not one flat object a protein; write it as JSON lines, TSV, CSV or Parquet",
        ),
        (r"LOCUS +\S", "is a GenBank file; export its proteins as FASTA"),
        (r"ID   .*\bBP\.?$", "is an EMBL file of nucleotides; export its proteins as FASTA"),
        (r"@(?:HD|SQ|RG|PG|CO)\t", "is SAM (alignments of reads); give protein sequences as FASTA"),
        (r"@\S", "is FASTQ (reads of a sequencer); give protein sequences as FASTA"),
        (r"CLUSTAL|MUSCLE \(", "is a Clustal alignment; write it as FASTA, A3M or Stockholm"),
        (r"#NEXUS", "is a NEXUS file; write its sequences as FASTA"),
        (r"(?:HEADER|CRYST1|HETATM|REMARK|TITLE|ATOM) {2,}\S", "is a PDB structure; give its sequences as FASTA"),
        (r"data_\S*$", "is an mmCIF structure; give its sequences as FASTA"),
        (r"HMMER3?[/ ]", "is a profile of HMMER; give sequences as FASTA"),
        (r"(?i)<!doctype html|<html", "is not FASTA but a web page (HTML); save the file that it offers"),
        (r"<\?xml|<[A-Za-z]", "is not FASTA but XML; export it as FASTA or TSV"),
        (r"\{\\rtf|%PDF", "is a document, not plain text; save the sequences as FASTA"),
        (r"version https://git-lfs", "is a Git LFS pointer, not the file itself; fetch it with: git lfs pull"),
    )
)
#: What a name of a column hardly is: a number, an EC number, an accession of UniProt, or a sequence.
_VALUE = re.compile(
    r"[-+]?\d+(?:\.\d+)*(?:[eE][-+]?\d+)?|\d+(?:\.(?:\d+|n\d+|-)){3}|[OPQ]\d[A-Z\d]{3}\d"
    r"|[A-NR-Z]\d(?:[A-Z][A-Z\d]{2}\d){1,2}|(?:sp|tr)\|.*|[A-Z]{25,}"
)

# Bytes that are not UTF-8 arrive as these characters ("surrogateescape"), so that the line is known.
_QUOTED = re.compile(r'"[^"]*"(?:[\t,;|]"[^"]*")*')
_QUOTED_FIELD = re.compile(r'"(?:[^"]|"")*"')
EMPTY_ROWS = "empty rows, left out"
_UNDECODABLE = re.compile("[\udc80-\udcff]")
_CONTROL = re.compile(rb"[\x00-\x08\x0e-\x1f]")
#: How many bytes of a text are looked at to see whether it is one.
SNIFFED = 2**16


@dataclass(frozen=True)
class Content:
    """A file whose format is known.

    Attributes:
        format: What it is.
        path: Where it is.
        source: What errors call it.
        lines: Its text, which can be read once; empty for Parquet.
        delimiter: Between the fields of a table.
        before: How many lines of a table come before its header.
        changes: What was taken otherwise than it stands there, and how often; counted while it is read.
    """

    format: Format
    path: Path
    source: str
    lines: Iterator[str] = field(default_factory=lambda: iter(()), repr=False)
    delimiter: str = ","
    before: int = 0
    changes: Counter[str] = field(default_factory=Counter, repr=False)


@contextlib.contextmanager
def located(source: str) -> Iterator[Path]:
    """The file behind a path, an embedded name or ``-``, known to be there and not empty.

    Standard input is first written to a temporary file: it can be read once only.
    """
    if source.startswith("plmscope:"):
        if source not in EMBEDDED_FILES:
            raise InputError(f"{source}: no such embedded data; there is {', '.join(EMBEDDED_FILES)}")
        with resources.as_file(resources.files("plmscope.embedded") / EMBEDDED_FILES[source]) as path:
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
    head: list[str] = []
    first = ""
    for line in lines:
        head.append(line)
        first = first or line.strip()
        if line.strip() and (line[0] not in "#;" or first.startswith((GFF, STOCKHOLM)) or len(head) > MAX_COMMENTS):
            break
    if not first:
        raise InputError(f"{source}: is empty; give a FASTA or table file")
    lines = itertools.chain(head, lines)
    if head[-1].startswith(">"):
        return Content("fasta", path, source, lines)
    if first.startswith(GFF):
        return Content("gff", path, source, lines)
    if first.startswith(STOCKHOLM):
        return Content("stockholm", path, source, lines)
    if first.startswith("ID   ") and first.endswith("AA."):
        return Content("flat", path, source, lines)
    if is_object(first) or is_list(first):
        return Content("json", path, source, lines)
    foreign = next((what for start, what in _FOREIGN if start.match(first)), None)
    if foreign:
        raise InputError(f"{source}: {foreign}")
    return _table_content(path, source, head, lines)


def _table_content(path: Path, source: str, head: Sequence[str], lines: Iterator[str]) -> Content:
    """A table, and where its header is: comments come before it, and it may look like one itself."""
    start = next(k for k, line in enumerate(head) if line.strip())
    if hint := _SEPARATOR_HINT.fullmatch(head[start].strip()):  # of Excel
        return Content("table", path, source, itertools.islice(lines, start + 1, None), hint[1], start + 1)
    comments = [k for k, line in enumerate(head) if line.startswith("#")]
    named = [k for k in comments if {*_fields(_uncommented(head[k]))} & _KNOWN]
    if comments and comments[0] == start:
        start = named[-1] if named else len(head) - 1
    header = _uncommented(head[start]) if start in named else head[start]
    rest = itertools.islice(lines, start + 1, None)
    content = Content("table", path, source, itertools.chain([header], rest), _delimiter(header), start)
    if skipped := sum(k < start for k in comments):
        content.changes["comment lines before the header, left out"] = skipped
    return content


def _uncommented(line: str) -> str:
    """A header without the mark of a comment."""
    return line.lstrip("#").lstrip(" ")


def _delimiter(header: str) -> str:
    """What separates the fields of a table: a tab if there is one, else what is there most often outside quotes."""
    bare = re.sub('"[^"]*"', "", header)
    return "\t" if "\t" in bare else max(",;|", key=bare.count)


def _fields(header: str) -> list[str]:
    """What a header names, in lower case."""
    return [name.strip().strip('"').casefold() for name in header.split(_delimiter(header))]


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
    b"ARROW1": "is an Arrow (Feather) file; write it as Parquet",
    b"\x89HDF": "is an HDF5 file; write its proteins as FASTA or a table",
    b"SQLite format 3": "is an SQLite database; export the table as CSV",
    **dict.fromkeys(_OPENERS, "is compressed twice; decompress it once"),
}


def _refuse_binary(start: bytes, source: str) -> None:
    """Refuse what is no text by its first bytes: control characters in the first line, or the mark of another format.

    UTF-16, which has zeros too, is left to whoever decodes the lines; so is FASTA: NCBI joins headers by Ctrl-A.
    """
    kind = next((what for mark, what in _NO_TEXT.items() if start.startswith(mark)), None)
    if start[257:262] == b"ustar":
        kind = "is a tar archive; unpack it and name one of its files"
    if kind:
        raise InputError(f"{source}: {kind}")
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
            start = raw.read(SNIFFED)
        _refuse_binary(start, source)
        utf16 = start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
        code = ("utf-16", "strict") if utf16 else ("utf-8-sig", "surrogateescape")
        with opened(path) as raw, io.TextIOWrapper(raw, code[0], errors=code[1]) as text:
            for number, line in enumerate(iter(lambda: text.readline(MAX_LINE), ""), 1):
                size += len(line)
                if opener is not None and size > bound:
                    raise InputError(_LARGER.format(source, bound))
                if len(line) == MAX_LINE:
                    raise InputError(f"{source}: line {number} is longer than {MAX_LINE:,} characters; wrap it")
                if not line.isascii() and (undecodable := _UNDECODABLE.search(line)):
                    byte = ord(undecodable[0]) - 0xDC00
                    raise InputError(f"{source}: line {number} is not UTF-8 text (byte 0x{byte:02x}); save it as UTF-8")
                yield line
    except UnicodeError:
        raise InputError(f"{source}: is not sound UTF-16 text; save it as UTF-8") from None
    except (EOFError, OSError, zlib.error, lzma.LZMAError) as error:
        if isinstance(error, EOFError) or any(words in str(error) for words in _CUT_SHORT):
            raise InputError(f"{source}: the compressed file is cut short; copy or download it again") from None
        raise InputError(f"{source}: cannot be read ({first_line(error)}); copy or download it again") from None


def first_line(error: Exception) -> str:
    """The first line of an error's text."""
    return next(iter(str(error).splitlines()), type(error).__name__)


# --- tables -----------------------------------------------------------------------------------------------------------


def pick(names: Iterable[str], wanted: Sequence[str]) -> str | None:
    """The first of the wanted names that is there; where none is, the only one that differs in its case alone."""
    there = dict.fromkeys(names)
    column = next((name for name in wanted if name in there), None)
    if column is None:
        folded = {name.casefold() for name in wanted}
        alike = [name for name in there if name.strip().casefold() in folded]
        column = alike[0] if len(alike) == 1 else None
    return column
