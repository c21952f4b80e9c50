"""Tables as JSON: one flat object a row, on lines of their own or in one list.

::

    {"id": "P1", "sequence": "MKT", "label": 1}

Numbers stay as they are written, a list is its items joined by ``;``, null and what is missing is empty.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

from plmscope.data.labels import SEPARATOR
from plmscope.errors import InputError, shown

#: Largest list that is held in memory, in characters; lines are read one by one.
MAX_LIST = 2**28
_ADVICE = "write one flat object a line, or a table as TSV, CSV or Parquet"


def is_object(line: str) -> bool:
    """Whether a line is a whole JSON object."""
    try:
        return line.startswith("{") and isinstance(_loads(line), dict)
    except (ValueError, RecursionError):
        return False


def is_list(line: str) -> bool:
    """Whether a line may start a list of objects."""
    return line.startswith("[") and line[1:].lstrip()[:1] in ("", "{")


def record_rows(source: str, lines: Iterator[str]) -> Iterator[tuple[str, Sequence[str]]]:
    """Place and fields of the header, the keys of the first object, and of every object.

    Raises:
        InputError: it is not JSON, an object is nested, or it has a key that the first one lacks.
    """
    names: list[str] = []
    for place, record in _records(source, lines):
        if not isinstance(record, dict):
            raise InputError(f"{source}: {place} is JSON, but no object with a name for every value; {_ADVICE}")
        if not names:
            names = list(record)
            for name in names:
                _text(record[name], f"{source}: {place}: {shown(name)}")
            yield place, names
        if more := next((name for name in record if name not in names), None):
            raise InputError(
                f"{source}: {place} has {shown(more)}, which the first object lacks; give all the same keys"
            )
        yield place, [_text(record.get(name), f"{source}: {place}: {shown(name)}") for name in names]


def _records(source: str, lines: Iterator[str]) -> Iterator[tuple[str, Any]]:
    """Place and value of every object."""
    numbered = ((number, line) for number, line in enumerate(lines, 1) if line.strip())
    number, first = next(numbered)
    if is_list(first.strip()):
        texts, size = [first], 0
        for _, line in numbered:
            size += len(line)
            if size > MAX_LIST:
                raise InputError(f"{source}: is a JSON list of more than {MAX_LIST:,} characters; {_ADVICE}")
            texts.append(line)
        parsed = _parsed("".join(texts), f"{source}: line {number}")
        yield from ((f"object {k}", record) for k, record in enumerate(parsed, 1))
        return
    yield f"line {number}", _parsed(first, f"{source}: line {number}")
    for number, line in numbered:
        yield f"line {number}", _parsed(line, f"{source}: line {number}")


def _parsed(text: str, where: str) -> Any:
    """JSON with its numbers as they are written."""
    try:
        return _loads(text)
    except (ValueError, RecursionError) as error:
        reason = getattr(error, "msg", "") or "nested too deep"
        raise InputError(f"{where} is not sound JSON ({reason}); {_ADVICE}") from None


def _loads(text: str) -> Any:
    return json.loads(text, parse_int=str, parse_float=str, parse_constant=lambda constant: None)


def _text(value: Any, where: str, inside: bool = False) -> str:
    """A value as a table has it; lists within lists and objects are none."""
    if isinstance(value, dict) or (inside and isinstance(value, list)):
        raise InputError(f"{where} holds nested JSON; {_ADVICE}")
    if isinstance(value, list):
        return SEPARATOR.join(filter(None, (_text(one, where, True) for one in value)))
    if value is None or isinstance(value, bool):
        return "" if value is None else str(value).lower()
    return str(value)
