"""Tables, whatever wrote them: delimiters, quotes, comments, empty rows, and Parquet, as rows of text."""

from __future__ import annotations

import csv
import itertools
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from plmscope.data.labels import SEPARATOR
from plmscope.data.records import record_rows
from plmscope.errors import InputError, shown

if TYPE_CHECKING:
    import pyarrow as pa
from plmscope.data.formats import (
    _KNOWN,
    _LARGER,
    _QUOTED,
    _QUOTED_FIELD,
    _VALUE,
    EMPTY_ROWS,
    MAX_ENTRY,
    MAX_SIZE,
    TABLES,
    Content,
    _bound,
    first_line,
)


@dataclass(frozen=True)
class InputTable:
    """Rows with named fields.

    Attributes:
        names: Of the columns, distinct.
        rows: Place and fields of every row, which can be read once.
    """

    names: tuple[str, ...]
    rows: Iterator[tuple[str, dict[str, str]]] = field(repr=False)


def open_table(content: Content) -> InputTable:
    """The header of a table, its rows to follow.

    Quotes quote in CSV. In TSV they are text, as UniProt writes it, unless the names of all columns are quoted (R) or
    a whole field is (pandas).

    Raises:
        InputError: the file is no table, or has a column twice.
    """
    if content.format not in TABLES:
        raise InputError(f"{content.source}: is not a table; give a TSV, CSV or Parquet file with named columns")
    if content.format == "json":
        rows = record_rows(content.source, content.lines)
    else:
        rows = _parquet_rows(content) if content.format == "parquet" else _text_rows(content)
    first = next(rows, None)
    if first is None:  # nothing but empty quotes
        raise InputError(f"{content.source}: has no header; give a FASTA or table file")
    names = first[1]
    twice = [name for name, number in Counter(names).items() if number > 1]
    if twice and not {name.casefold() for name in names} & _KNOWN:
        refuse_values(content.source, names)
    if twice:
        raise InputError(f"{content.source}: the column {shown(twice[0])} is there twice; rename one")
    return InputTable(tuple(names), ((place, dict(zip(names, fields, strict=True))) for place, fields in rows))


def _text_rows(content: Content) -> Iterator[tuple[str, Sequence[str]]]:
    """Place and fields of the header and of every row of a TSV or CSV file."""
    # csv rather than pandas: pandas fills short rows and may shift long ones without a word.
    lines = content.lines
    header = next(lines, "")
    lines = itertools.chain([header], lines)
    quoted = _QUOTED.fullmatch(header.strip()) is not None
    if content.delimiter != "\t":
        reader = csv.reader(lines, delimiter=content.delimiter, strict=True)
    elif quoted:  # R writes a quote within a field as \"
        reader = csv.reader((line.replace('\\"', '""') for line in lines), delimiter="\t", strict=True)
    else:
        reader = csv.reader(lines, delimiter="\t", quoting=csv.QUOTE_NONE)
    width, start = 0, content.before + 1
    csv.field_size_limit(max(csv.field_size_limit(), MAX_ENTRY))  # of the whole process
    first: tuple[str, list[str]] | None = None
    try:
        for fields in reader:
            place, start = f"line {start}", reader.line_num + content.before + 1
            if not "".join(fields).strip():
                content.changes[EMPTY_ROWS] += width > 0 and len(fields) > 1
                continue
            if not width:
                width, fields = len(fields), [name.strip() for name in fields]
                first = place, fields
                continue
            if first is not None:
                if len(fields) == width + 1 and quoted:  # R's names of rows have no name themselves
                    width, first = width + 1, (first[0], ["", *first[1]])
                yield first
                first = None
            if len(fields) != width:
                raise InputError(f"{content.source}: {place} has {len(fields)} fields, the header {width}; correct it")
            if content.delimiter == "\t" and not quoted and '"' in "".join(fields):
                fields = [_unquoted(text) for text in fields]
            yield place, fields
        if first is not None:
            yield first
    except csv.Error as error:
        raise InputError(
            f"{content.source}: line {start} is not a table row ({first_line(error)}); correct it"
        ) from None


def _unquoted(text: str) -> str:
    """A field as it was before a program quoted it, if one did."""
    return text[1:-1].replace('""', '"') if _QUOTED_FIELD.fullmatch(text) else text


def refuse_values(source: str, names: Sequence[str], such_as: str = "id and the label's") -> None:
    """Refuse a header that looks like a row of values."""
    if any(_VALUE.fullmatch(name.strip()) for name in names):
        raise InputError(
            f"{source}: has no header row (its first line is {quoted_names(names)}); add one that names the columns, "
            f"such as {such_as}"
        )


def quoted_names(names: Sequence[str]) -> str:
    """What a header holds, for an error text."""
    return ", ".join(repr(name[:30]) for name in names[:12])


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
        raise InputError(
            f"{content.source}: is not a sound Parquet file ({first_line(error)}); write it again"
        ) from None


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
