"""Proteins as files have them: one row each, with its place, its id, its sequence and what else the file says.

FASTA with UniProt's, NCBI's or plain headers; alignments, whose gaps are taken out; Swiss-Prot flat files; GFF3 with
sequences; tables. In a header ``key=value`` after the id becomes a column, the value up to the next key:

    >P1 family=alcohol dehydrogenase; ec=1.1.1.1    {"family": "alcohol dehydrogenase", "ec": "1.1.1.1"}

Nobody need have asked about a column, so one that cannot be read stops nothing: the row carries the reason
(``doubts``), and whoever wants the column refuses it. What is taken otherwise than it stands there is counted in
:attr:`Content.changes`, what concerns one column in ``notes``.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from plmscope.data.formats import ID_NAMES, MAX_ENTRY, SEQUENCE_NAMES, TABLES, Content, open_content, pick
from plmscope.data.labels import SEPARATOR
from plmscope.data.tables import open_table, quoted_names, refuse_values
from plmscope.data.uniprot import Entry, parse_entry, parse_header
from plmscope.errors import InputError, shown

#: Names by which the column of EC numbers is known, best first.
EC_COLUMNS = ("ec", "EC number", "EC", "ec_number")
_EC_FOLDED = {name.casefold() for name in EC_COLUMNS}

_KEY = re.compile(r"(?:^|(?<=[ \t;(\[]))([A-Za-z][\w.-]*)=")
_QUOTED = re.compile(r'"([^"]*)"(?=[ \t;,)\]]|$)')
_EC_LIST = re.compile(r"(?:EC[ :]*)?[0-9][0-9.n-]*(?:[;,| ]+(?:EC[ :]*)?[0-9][0-9.n-]*)*")
_NCBI = re.compile(r"(?:gi\|(\d+)\|)?(?:ref|gb|emb|dbj|pir|prf|tpg|tpe|tpd|bbs|lcl|gnl\|[^|]+)\|([^| ]+)\|?([^| ]*)")
_PDB = re.compile(r"(?:gi\|(\d+)\|)?pdb\|(\w+)\|(\w*)")
_NCBI_ORGANISM = re.compile(r"\[([^\[\]=]+)\]\s*$")
_NCBI_FIELD = re.compile(r"\[([A-Za-z][\w.-]*)=([^\[\]]*)\]")
_NUMBER_BEFORE = re.compile(r"\s*([0-9]+)\s+([^0-9]+)")
_NUMBER_BEHIND = re.compile(r"([^0-9]+?)\s+([0-9]+)\s*")
#: The first line of an entry of PIR (NBRF): kind of molecule, then the id.
PIR = re.compile(r">(?:P1|F1|XX);")
#: What is counted of a sequence in groups of residues.
BLANKS = "sequences with blanks, which were taken out"
#: Most letters that the rows of marks in a FASTA file use, one letter a residue.
MARKS = 10
#: Largest alignment that is held in memory, in characters.
MAX_ALIGNMENT = 2**29
#: How pandas and R call the column of the names of rows, which has no name itself.
UNNAMED = ("", "__index_level_0__", "Unnamed: 0")
#: Counts of :attr:`Content.changes` where no column of a table is called as one of ids.
ROW_NAMES = "ids taken from the names of the rows, a column without a name"
NUMBERED = "rows numbered, as no column holds ids (a study names one by id_column)"


class ProteinRow(NamedTuple):
    """One protein as found.

    Attributes:
        place: Its line (text) or row (Parquet).
        id: As the file has it.
        sequence: As the file has it, without gaps and blanks.
        columns: What else the file says.
        header: Of FASTA, whole.
        doubts: Why a column cannot be used, by its name.
        notes: What was done to a column, by its name.
    """

    place: str
    id: str
    sequence: str
    columns: dict[str, str]
    header: str = ""
    doubts: Mapping[str, str] = {}
    notes: Mapping[str, str] = {}


def protein_rows(
    content: Content, id_column: str = "", sequence_column: str = "", number: bool = True
) -> Iterator[ProteinRow]:
    """The proteins of a file.

    Args:
        content: What :func:`open_content` gives.
        id_column: Of a table; empty: the first of :data:`ID_NAMES` that is there.
        sequence_column: Of a table; empty: the first of :data:`SEQUENCE_NAMES` that is there.
        number: Whether the rows of a table without ids are numbered (``row1``), which is counted.

    Raises:
        InputError: the file is damaged, is no table but columns are named, or has no such column.
    """
    if content.format not in TABLES:
        for setting, given in (("id_column", id_column), ("sequence_column", sequence_column)):
            if given:
                raise InputError(f"{content.source}: {setting} = {shown(given)} is for tables; leave it empty")
    if content.format == "fasta":
        return _fasta_rows(content)
    if content.format == "stockholm":
        return _stockholm_rows(content)
    if content.format == "flat":
        rows = flat_entries(content)
        return (ProteinRow(place, entry.accession, entry.sequence, entry.columns) for place, entry in rows)
    if content.format == "gff":
        return _gff_rows(content)
    return _table_rows(content, id_column, sequence_column, number)


# --- tables -----------------------------------------------------------------------------------------------------------


def _table_rows(content: Content, id_column: str, sequence_column: str, number: bool) -> Iterator[ProteinRow]:
    """The proteins of a table."""
    table = open_table(content)
    names = pick(table.names, (id_column,) if id_column else ID_NAMES)
    sequences = pick(table.names, (sequence_column,) if sequence_column else SEQUENCE_NAMES)
    numbered = names is None and sequences is not None and not id_column and number
    wanted = (("id_column", names, id_column or "id"), ("sequence_column", sequences, sequence_column or "sequence"))
    missing = [(setting, name) for setting, there, name in wanted if there is None and not numbered]
    if missing:
        refuse_values(content.source, table.names, "id and sequence")
        them = "it" if len(missing) == 1 else "them"
        advice = f"name {them} by {' and '.join(setting for setting, _ in missing)}", f"rename {them} so"
        if (
            content.format == "table"
            and len(table.names) == 1
            and pick(re.split(r"[\s:]+", table.names[0]), (*ID_NAMES, *SEQUENCE_NAMES))
        ):
            advice = ("separate its fields by tabs or commas",) * 2
        raise InputError(
            f"{content.source}: is not FASTA (no '>' at its start), and as a table it lacks the column "
            f"{' and '.join(shown(name) for _, name in missing)}; its header is {quoted_names(table.names)}; ",
            *advice,
        )
    if names == sequences:
        raise InputError(f"{content.source}: the column {shown(str(names))} holds ids or sequences, not both; name two")
    # UniProt writes how long the sequence is: a cut one shows.
    checked = names is not None and names.casefold() == "entry" and "Length" in table.names
    rows, unnamed = iter(table.rows), next((name for name in UNNAMED if name in table.names), None)
    if numbered and unnamed is not None and (first := next(rows, None)):
        rows = itertools.chain([first], rows)
        if first[1][unnamed].strip() and not first[1][unnamed].strip().isdigit():
            names, numbered = unnamed, False
    for count, (place, columns) in enumerate(rows, 1):
        content.changes[ROW_NAMES] += unnamed is not None and names == unnamed
        sequence = columns.pop(str(sequences)).strip()
        if len(words := sequence.split()) > 1:
            sequence = "".join(words)
            content.changes[BLANKS] += 1
        if numbered:
            name = f"row{count}"
            content.changes[NUMBERED] += 1
        else:
            name = columns.pop(str(names)).strip()
        if checked and not _is_number(columns["Length"], len(sequence)):
            raise InputError(
                f"{content.source}: {place}: protein {shown(name)} has {len(sequence):,} residues where 'Length' says "
                f"{shown(columns['Length'])}; download it again"
            )
        yield ProteinRow(place, name, sequence, columns)


def _is_number(text: str, number: int) -> bool:
    """Whether a cell says this number, as text, as a spreadsheet or as pandas writes it; an empty one says nothing."""
    try:
        return not text.strip() or float(text.replace(",", "")) == number
    except ValueError:
        return False


# --- FASTA ------------------------------------------------------------------------------------------------------------


def _fasta_rows(content: Content, before: int = 0) -> Iterator[ProteinRow]:
    """The proteins of a FASTA file; ``before`` lines came earlier."""
    aligned: bool | None = None
    for place, title, sequence in _entries(content, before):
        name, columns, rest = _parse_title(title)
        more, doubts, notes = _header_fields(rest)
        for key, value in more.items():
            columns[key] = _joined(columns.get(key, ""), value)
        if "-" in sequence or "." in sequence:
            aligned = _is_aligned(content) if aligned is None else aligned
            if aligned:
                sequence = re.sub(r"[.-]", "", sequence)
                content.changes["aligned proteins, whose gaps were taken out"] += 1
        yield ProteinRow(place, name, sequence, columns, title, doubts, notes)


def _entries(content: Content, before: int = 0) -> Iterator[tuple[str, str, str]]:
    """Place, header and sequence of every entry, without blanks, line numbers and comment lines."""
    start, size, title, numbered, spaced = 0, 0, "", False, False
    sequence: list[str] = []
    residues, marked, marks, letters = 0, True, set[str](), set[str]()

    def entry() -> tuple[str, str, str]:
        nonlocal marked
        if numbered:
            content.changes["sequences with line numbers, which were taken out"] += 1
        elif spaced:  # groups of residues usually have numbers, which are told
            content.changes[BLANKS] += 1
        half = len(sequence) // 2
        second = "".join(sequence[half:])
        marked &= len(sequence) == 2 * half > 0 and 2 * len(second) == residues and second.isalpha()
        if marked:
            marks.update(second)
            letters.update(*sequence[:half])
        return f"line {start}", title, "".join(sequence)

    for number, line in enumerate(content.lines, before + 1):
        if line.startswith(">"):
            if PIR.match(line):
                raise InputError(
                    f"{content.source}: line {number}: {line[:4]!r} begins an entry of PIR (NBRF), whose next line "
                    "is a title and not residues; write it as FASTA"
                )
            if start:
                yield entry()
            start, size, title, numbered, spaced = number, 0, line[1:].rstrip(), False, False
            sequence, residues = [], 0
        elif line.startswith(";") or not start:
            if line.strip():
                content.changes["comment lines, left out"] += 1
            continue
        size += len(line)
        if size > MAX_ENTRY:
            raise InputError(
                f"{content.source}: line {start}: the entry is longer than {MAX_ENTRY:,} characters; "
                "is this a genome? give its proteins"
            )
        if number != start:
            text = line.strip()
            if not text.isalpha():
                text, found = _without_number(text, residues)
                numbered |= found
                spaced |= text != (text := text.replace(" ", "").replace("\t", ""))
            residues += len(text)
            sequence.append(text)
    if start:
        yield entry()
    if marked and 0 < len(marks) <= min(MARKS, len(letters) - 1):
        raise InputError(
            f"{content.source}: every sequence is followed by as many letters of {', '.join(sorted(marks))}, one a "
            "residue, as in FASTA of three lines an entry; keep the first two lines of each"
        )


def _without_number(line: str, residues: int) -> tuple[str, bool]:
    """A line without the number of its first residue before it, or of its last one behind, as GenBank writes them."""
    if (match := _NUMBER_BEFORE.fullmatch(line)) and int(match[1]) == residues + 1:
        return match[2], True
    match = _NUMBER_BEHIND.fullmatch(line)
    if match and int(match[2]) == residues + len("".join(match[1].split())):
        return match[1], True
    return line, False


def _is_aligned(content: Content) -> bool:
    """Whether the entries are rows of one alignment: equally long, A3M's insertions (lower case) aside."""
    lengths, columns, n = set(), set(), 0
    again = open_content(content.path, content.source)
    if again.format != "fasta":  # GFF3's sequences
        return False
    for _, _, sequence in _entries(again):
        n += 1
        lengths.add(len(sequence))
        columns.add(sum(letter.isupper() or letter == "-" for letter in sequence))
        if len(lengths) > 1 < len(columns):
            return False
    return n > 1


def _header_fields(text: str) -> tuple[dict[str, str], dict[str, str], dict[str, str]]:
    """Columns, doubts and notes of the ``key=value`` in a header; a key with several values has them joined."""
    columns: dict[str, str] = {}
    doubts: dict[str, str] = {}
    notes: dict[str, str] = {}
    position = 0
    while match := _KEY.search(text, position):
        key, start = match[1], match.end()
        quoted = _QUOTED.match(text, start)
        if quoted:
            value, position = quoted[1], quoted.end()
        else:
            following = _KEY.search(text, start)
            position = following.start() if following else len(text)
            raw = text[start:position].strip()
            value = _value(key, raw)
            if raw.startswith('"'):
                doubts[key] = f"{key}={shown(raw)} in the header has no closing quote; add it"
            elif value != raw:
                ended = raw.startswith(value) and not raw[len(value) :].strip(" \t,;|)]")
                notes[key] = "labels of headers, " + (
                    "without the mark at their end" if ended else "cut where their value ends"
                )
        if columns.get(key, value) != value:
            notes[key] = "headers that give a label's key several times, the values joined"
        columns[key] = _joined(columns[key], value) if key in columns else value
    return columns, doubts, notes


def _value(key: str, text: str) -> str:
    """The value in what stands between a key and the next one.

    Of EC numbers what is one; of several parts those that are not the name of what follows ("AltName:").
    """
    if key.casefold() in _EC_FOLDED and (numbers := _EC_LIST.match(text)):
        return numbers[0].rstrip(".,; ")
    if text.endswith((")", "]")) and text.count("(") + text.count("[") < text.count(")") + text.count("]"):
        text = text[:-1]
    if ";" not in text:
        return text.rstrip(" \t,|")
    parts = [part.strip(" \t,|") for part in text.split(";")]
    return SEPARATOR.join(part for part in parts if part and not part.endswith(":"))


def _joined(one: str, other: str) -> str:
    """Two values of a key: the other's where there is none, one if they are equal, else both."""
    if not one or one == other:
        return other
    known = one.split(SEPARATOR)
    return SEPARATOR.join([*filter(None, known), *(part for part in other.split(SEPARATOR) if part not in known)])


def _parse_title(title: str) -> tuple[str, dict[str, str], str]:
    header = parse_header(title)
    if header is not None:
        return header
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
    if organism:
        columns |= {} if "organism=" in rest else {"organism": organism[1].strip()}
        rest = rest[: organism.start()]
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


def _stockholm_rows(content: Content) -> Iterator[ProteinRow]:
    """The proteins of a Stockholm alignment; what its ``#=GS`` lines say of one is a column.

    An alignment may come in blocks, so it is held in memory.
    """
    places: dict[str, str] = {}
    sequences: dict[str, list[str]] = {}
    columns: dict[str, dict[str, str]] = {}
    size = 0
    for number, line in enumerate(content.lines, 1):
        size += len(line)
        if size > MAX_ALIGNMENT:
            raise InputError(f"{content.source}: is larger than {MAX_ALIGNMENT:,} characters; write it as FASTA")
        if line.startswith("#=GS"):
            _, name, key, value = [*line.split(None, 3), "", "", ""][:4]
            own = columns.setdefault(name, {})
            own[key] = _joined(own.get(key, ""), value.strip())
        if line.startswith("#") or not line.strip():
            continue
        if line.startswith("//"):
            break
        name, *parts = line.split()
        places.setdefault(name, f"line {number}")
        sequences.setdefault(name, []).append("".join(parts))
    else:
        raise InputError(f"{content.source}: the alignment is cut short (no '//'); copy it again")
    for name, parts in sequences.items():
        content.changes["aligned proteins, whose gaps were taken out"] += 1
        yield ProteinRow(places[name], name, re.sub(r"[.~_-]", "", "".join(parts)), columns.get(name, {}))


def _gff_rows(content: Content) -> Iterator[ProteinRow]:
    """The proteins of a GFF3 file, which come after ``##FASTA``."""
    for number, line in enumerate(content.lines, 1):
        if line.startswith("##FASTA"):
            yield from _fasta_rows(content, number)
            return
    raise InputError(
        f"{content.source}: is GFF3 without sequences (no ##FASTA); give the sequences as FASTA or a table"
    )
