"""The class of a protein: where a file says it, and whether what stands there are classes.

::

    "ec:1"                 the first number of the EC numbers in a column
    "header:PATTERN"       the group of a regular expression, wherever it matches in a FASTA header
    "kind"                 a column
    "nucleus,membrane"     columns, one a class, with 1 where it is the protein's

A column is taken as it stands, but for what programs put there: ``[a, b]`` of a list, ``1.0`` of a whole number beside
missing ones, a ``;`` at the end; all of it is counted. Measurements, and several classes joined, are refused.
"""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from plmscope.data.formats import pick
from plmscope.data.labels import SEPARATOR, LabelTask, class_names, classes_of, join_classes
from plmscope.data.rows import EC_COLUMNS, ProteinRow
from plmscope.data.uniprot import NOTHING
from plmscope.errors import InputError, StudyError, shown

#: What programs write for a missing value, in lower case; and what of it is never the name of a class.
MISSING = (*NOTHING, "n.a.", "n/a", "none", "null")
NEVER = ("nan", "<na>", "#n/a")
#: Between the matches of a pattern, and between classes that are seen to be several; no text of a file has it.
SEVERAL = "\ue000"
#: Longest id or label, in characters.
MAX_NAME = 200
#: How many classes a text lists before it counts the others.
LISTED = 20
#: More different fractional numbers than these are measured; more whole ones are told.
MEASURED, MANY = 10, 20
LISTS, WHOLE, ENDED = (
    "labels written as lists, read as their items", "labels written as 1.0, read as 1", "labels without the ';' beside",
)  # fmt: skip
EMPTY_CELLS = "empty cells of class columns, read as no"
_YES, _NO = ("1", "1.0", "true", "yes", "t", "y", "x", "+"), ("0", "0.0", "false", "no", "f", "n", "-")
_NUMBER = re.compile(r"[-+]?(?:\d+[.,]?\d*|[.,]\d+)(?:[eE][-+]?\d+)?")
_BOUNDS = "<>=~\u2264\u2265 "
_UNIT = re.compile(r"(?<=\d)\s*[^\d\s.,;|][^\d.,;|]{0,11}$")
_DATE = re.compile(r"\d{4}-\d\d?-\d\d?(?:[T ].*)?")
_BITS = re.compile(r"0[01]+")  # not 101, which may be the number of a class
_WHOLE = re.compile(r"([-+]?\d+)\.0+")
_WHOLE_NUMBER = re.compile(r"[-+]?\d+")
_EC = re.compile(r"[1-7](?:\.\d+){0,2}(?:\.n?\d+)?(?:\.-)*")
_ITEM = re.compile(r"""\s*(?:'([^']*)'|"([^"]*)"|([-+]?\d+(?:\.\d+)?))\s*(?:,|(?=\s|$)|(?<=\s))""")


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


class Labelling(NamedTuple):
    """How the label is found: in a column, which for a pattern is filled from all its matches in the header.

    Attributes:
        column: Where it is.
        level: Of EC numbers.
        pattern: Of a header.
        given: Whether the column of the EC numbers was named.
        hot: Columns that may be one a class, where there is no column of that name.
    """

    column: str
    level: int | None = None
    pattern: re.Pattern[str] | None = None
    given: bool = False
    hot: tuple[str, ...] = ()

    def found_in(self, source: str, row: ProteinRow, task: LabelTask, changes: Counter[str]) -> ProteinRow:
        """The row with the label's text in its column."""
        if self.pattern is not None:
            matches = dict.fromkeys(
                text for match in self.pattern.finditer(row.header) if (text := (match[1] or "").strip())
            )
            # In a single-label task several classes stay apart, so that they are seen to be several.
            text = (SEPARATOR if task == "multi" or self.level is not None else SEVERAL).join(matches)
            return row._replace(columns=row.columns | {self.column: text})
        if self.is_hot(row.columns):
            own = [name for name in self.hot if _is_yes(source, row, name, changes)]
            text = (SEPARATOR if task == "multi" else SEVERAL).join(own)
            return row._replace(columns=row.columns | {self.column: text})
        if self.level is not None and not self.given and self.column not in row.columns:
            other = pick(row.columns, EC_COLUMNS)
            if other is not None:
                return row._replace(columns=row.columns | {self.column: row.columns[other]})
        return row

    def is_hot(self, names: Iterable[str]) -> bool:
        """Whether there is one column for each class, with 1 where a protein has the class (one-hot columns)."""
        return bool(self.hot) and self.column not in names and set(self.hot) <= set(names)


def _is_yes(source: str, row: ProteinRow, name: str, changes: Counter[str]) -> bool:
    """What a column of one class says."""
    text = row.columns[name].strip().casefold()
    if not text or text in MISSING:
        changes[EMPTY_CELLS] += 1
        return False
    if text not in _YES + _NO:
        raise InputError(
            f"{source}: {row.place}: protein {row.id!r}: column {name!r} has {shown(row.columns[name])}, not 1 or 0 as "
            "a column of one class has; correct it, or name one column by label"
        )
    return text in _YES


def labelling_of(source: str, label: str | None, ec_column: str, task: LabelTask) -> Labelling | None:
    """What the settings ``label`` and ``ec_column`` mean."""
    if label is None:
        return None
    level = _ec_level(source, label)
    if level is not None:
        return Labelling(ec_column or "ec", level, _pattern("ec_column", ec_column), bool(ec_column))
    if ec_column:
        raise StudyError(
            f"ec_column {shown(ec_column)} is for label = 'ec:1' to 'ec:4', not for {shown(label)}; leave it empty"
        )
    pattern = _pattern("label", label)
    hot = () if pattern is not None else tuple(name for part in label.split(",") if (name := part.strip()))
    if len(hot) < 2 or len(set(hot)) < len(hot):
        hot = ()
    if task == "multi" and (odd := next((name for name in hot if SEPARATOR in name), "")):
        raise StudyError(f"label {shown(label)}: the column {shown(odd)} has a {SEPARATOR!r} in its name; rename it")
    return Labelling(label, None, pattern, False, hot)


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


def _ec_level(source: str, label: str) -> int | None:
    """The level of ``"ec:1"`` to ``"ec:4"``, None for a column's name."""
    if not label.startswith("ec:"):
        return None
    if label not in ("ec:1", "ec:2", "ec:3", "ec:4"):
        raise InputError(f"{source}: label {shown(label)} does not exist; use 'ec:1' to 'ec:4' or the name of a column")
    return int(label[3:])


def check_column(source: str, label: str | None, labelling: Labelling, names: Iterable[str], fasta: bool) -> None:
    """Refuse a label whose column no row has; the line says which there are, and by which setting one is named."""
    there = list(names)
    if labelling.column in there:
        return
    setting = "label" if labelling.level is None else "ec_column"
    wrong = f"{source}: label {shown(str(label))} needs the column {shown(labelling.column)}"
    known = ", ".join(shown(name) for name in itertools.islice(there, LISTED))
    if set(labelling.hot) & set(there):
        lacking = next(name for name in labelling.hot if name not in there)
        raise InputError(f"{wrong}, or one column a class, and lacks {shown(lacking)}; the file has {known}")
    if not there:
        headers = f"from the headers by {setting} = 'header:PATTERN', or " if fasta else ""
        raise InputError(
            f"{wrong}; the file has no columns besides id and sequence; take it {headers}from a second table by labels"
        )
    which = "the one with EC numbers" if setting == "ec_column" else "one of these"
    raise InputError(f"{wrong}; the file has {known}; name {which} by {setting}")


def label_or_reason(
    source: str,
    row: ProteinRow,
    labelling: Labelling,
    task: LabelTask,
    separator: str,
    classes: Sequence[str],
    changes: Counter[str],
) -> tuple[str | None, str | None]:
    """The label, or else the reason why there is none."""
    column, level = labelling.column, labelling.level
    text = row.columns.get(column, "").strip()
    hot = labelling.is_hot(row.columns.keys() - {column})
    if level is None and labelling.pattern is None and not hot:
        text = _cleaned(source, row, text, task, separator, classes, changes)
    if level is None and task == "multi":
        text = join_classes(part for one in text.split(SEPARATOR) for part in one.split(separator))
    if not text and labelling.pattern is not None:
        matched = labelling.pattern.search(row.header) is not None
        how = "gives an empty class by" if matched else "does not match"
        return None, f"its header {how} {labelling.pattern.pattern!r}"
    if not text:
        return None, f"no {'1 in columns' if hot else 'value in column'} {column!r}"
    if level is None:
        if SEVERAL in text:
            if labelling.pattern is None:
                return None, f"several classes in columns {column!r}"
            return None, f"several classes in its header by {labelling.pattern.pattern!r}"
        if text.casefold() in NEVER and text not in classes:
            return None, f"{text!r} in column {column!r}"
        return text, None
    if text.casefold() in MISSING:
        return None, f"{text!r} in column {column!r}"
    try:
        named = ec_classes(text, level)
    except InputError as error:
        raise InputError(f"{source}: {row.place}: protein {row.id!r}: {error}") from None
    if len(named) == 1 or (named and task == "multi"):
        return join_classes(named), None
    return None, f"several classes at EC level {level}" if named else f"EC number too partial for level {level}"


def _cleaned(
    source: str,
    row: ProteinRow,
    text: str,
    task: LabelTask,
    separator: str,
    classes: Sequence[str],
    changes: Counter[str],
) -> str:
    """What a column says without what programs put around it, all of which is counted; wanted classes stay."""
    if text in classes:
        return text
    items = _items(text)
    if items is not None:
        changes[LISTS] += 1
        text = SEPARATOR.join(items)
    parts = [part.strip() for part in text.split(SEPARATOR)]
    if task == "multi":
        if len(parts) == 1 and _BITS.fullmatch(text):
            raise InputError(
                f"{source}: {row.place}: protein {row.id!r}: {shown(text)} is a 0 or 1 for each class; write the names "
                "of its classes, or one column a class and name those by label, as in label = 'a,b,c'"
            )
        numbers = [*filter(None, (one for part in parts for one in part.split(separator)))]
        if len(numbers) > 2 and {*numbers} <= {"0", "1", "0.0", "1.0"}:
            raise InputError(
                f"{source}: {row.place}: protein {row.id!r}: {shown(text)} is a number for each class; write the names "
                "of its classes, or one column a class and name those by label, as in label = 'a,b,c'"
            )
    elif items is None and len(known := [part for part in parts if part]) == 1 and known[0] != text:
        changes[ENDED] += 1
        text = known[0]
    if (whole := _WHOLE.fullmatch(text)) and text not in classes:
        changes[WHOLE] += 1
        text = whole[1]
    return text


def _items(text: str) -> list[str] | None:
    """The items of a list as Python, NumPy or JSON write it; None where it is none.

    >>> _items("['a', 'b']"), _items("['a' 'b']"), _items("[X]"), _items("[]")
    (['a', 'b'], ['a', 'b'], None, [])
    """
    if len(text) < 2 or (text[0], text[-1]) not in (("[", "]"), ("(", ")"), ("{", "}")):
        return None
    inside, items, place = text[1:-1].strip(), [], 0
    while place < len(inside):
        match = _ITEM.match(inside, place)
        if match is None:
            return None
        if match[3] is not None and text[0] != "[":  # "(1)" may be a name
            return None
        items.append(next(group for group in match.groups() if group is not None).strip())
        place = match.end()
    return items if items or text == "[]" else None


def refused_class(source: str, row: ProteinRow, label: str, task: LabelTask, classes: Sequence[str]) -> str | None:
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


def _are_numbers(names: Sequence[str]) -> bool:
    """Whether all labels are numbers or bounds, with a decimal comma and one unit behind all or without, or dates."""
    names = [name.lstrip(_BOUNDS) for name in names]
    units = {match[0].strip() if (match := _UNIT.search(name)) else "" for name in names}
    numbers = all(_NUMBER.fullmatch(_UNIT.sub("", name)) for name in names)
    return bool(names) and ((numbers and len(units) == 1) or all(_DATE.fullmatch(name) for name in names))


def check_are_classes(source: str, found: Sequence[str | None], task: LabelTask, label: str, separator: str) -> None:
    """Refuse labels that are measurements, or several classes joined."""
    names = class_names(found, task)
    first = ", ".join(shown(name) for name in names[:3])
    if is_measured(found, names):
        raise InputError(
            f"{source}: label {shown(label)}: {len(names):,} different numbers ({first}, ...) in {len(found):,} "
            "proteins are a measurement, not classes; write bins of them, such as low and high, into a column, and "
            "name that one by label"
        )
    marks, advice = (SEPARATOR, 'use task = "multi"') if task == "single" else ("|,/+&", "")
    for mark in marks:
        joined = {name: [part.strip() for part in name.split(mark) if part.strip()] for name in names}
        several = [name for name in names if len(joined[name]) > 1]
        if task == "multi" and any(len(classes_of(str(one), task)) > 1 for one in found):
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


def is_measured(found: Sequence[str | None], names: Sequence[str]) -> bool:
    """Whether labels are a measurement: numbers that hardly recur, or many fractional ones.

    EC numbers and whole numbers, which often are names, have to differ in more than half of the proteins, and there
    have to be more than seven.

    >>> is_measured(["0", "1"] * 9, ["0", "1"]), is_measured(["0.5", "4,25", "8.5"], ["0.5", "4,25", "8.5"])
    (False, True)
    """
    if not _are_numbers(names):
        return False
    whole = all(_EC.fullmatch(name) or _WHOLE_NUMBER.fullmatch(name) for name in names)
    return len(names) > max(len(found) / 2, 7 if whole else 2) or (not whole and len(names) > MEASURED)


def doubts(names: Sequence[str]) -> list[str]:
    """What has to be said of some classes: they may be no names, or the same."""
    said = []
    if missing := [name for name in names if name.casefold() in (*MISSING, "-", "?", ".")]:
        said.append(f"{' and '.join(map(repr, missing))} counted as a class: leave the cell empty if it is none")
    fractional = not all(_EC.fullmatch(name) or _WHOLE_NUMBER.fullmatch(name) for name in names)
    if (len(names) > MANY or fractional) and _are_numbers(names):
        said.append("all are numbers: if they were measured, write bins of them into a column")
    for mark in "|,/+&-":
        parts = {name: [part.strip() for part in name.split(mark)] for name in names if mark in name}
        if joined := next((name for name, some in parts.items() if {*some} <= {*names} - {name}), None):
            said.append(f"{joined!r} looks like several of the others joined by {mark!r}")
    folded: dict[str, list[str]] = {}
    for name in names:
        folded.setdefault(" ".join(name.casefold().removeprefix("+").split()), []).append(name)
    if alike := next((some for some in folded.values() if len(some) > 1), None):
        said.append(f"{' and '.join(map(repr, alike))} differ in case, blanks or a sign alone")
    return said


def check_classes_occur(source: str, found: Sequence[str | None], task: LabelTask, classes: Sequence[str]) -> None:
    """Refuse a wanted class that no protein has: it is misspelt, or at another level."""
    there = class_names(found, task)
    absent = [name for name in classes if name not in there]
    if absent:
        raise InputError(
            f"{source}: data.classes has {shown(absent[0])}, a class of no protein that is left; correct it"
        )
