"""What the report is made of: plain blocks that ``templates/`` turns into HTML, and numbers and names as text.

A section is a title and blocks (:class:`Table`, :class:`FigureGroup`, :class:`Text`, ...). Text is escaped by the
template; what goes into a plot by :func:`plot_text`, because Plotly reads a subset of HTML.
"""

from __future__ import annotations

import html
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import numpy as np
import pandas as pd

CONTROL_WORDS = {
    "random": "uniform random",
    "random_matched": "site-matched random",
    "random_active": "site- and activity-matched random",
}
Verdict = Literal["yes", "partly", "no", "unclear", "not run"]


@dataclass(frozen=True, slots=True)
class Answer:
    """A verdict and the sentences that state it with its numbers; ``more`` is a second paragraph."""

    verdict: Verdict
    question: str
    text: str
    details: tuple[str, ...] = ()
    more: str = ""


@dataclass(frozen=True, slots=True)
class Select:
    """A choice above a figure or table; ``options`` are (value, text), the first is the default."""

    name: str
    label: str
    options: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class TableCell:
    """A table cell: what is read, what the column is sorted by (the text where None), and an address on the page."""

    text: str
    sort: float | None = None
    small: str = ""
    href: str = ""


@dataclass(frozen=True, slots=True)
class TableRow:
    """A table row; ``tags`` are the choices of the table's select under which it is shown."""

    cells: tuple[TableCell, ...]
    strong: bool = False
    tags: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Table:
    """A sortable table; the first cell of a row is its header. A column is (label, is numeric)."""

    kind: ClassVar[str] = "table"
    id: str
    caption: str
    columns: tuple[tuple[str, bool], ...]
    rows: tuple[TableRow, ...]
    search: bool = False
    select: Select | None = None
    folded: str = ""


@dataclass(frozen=True, slots=True)
class Panel:
    """One plot. A trace with ``when`` = {select: [values]} is drawn only under these choices.

    ``patches`` = {select: {value: part of a layout}} changes the layout with a choice. Colours are names such as
    ``@c0`` or ``@text/0.2`` (with opacity), which the page replaces by those of its theme.
    """

    id: str
    title: str
    traces: tuple[dict[str, Any], ...]
    layout: dict[str, Any]
    patches: dict[str, dict[str, Any]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Key:
    """An entry of a legend: a name, a colour of the theme, and how its line is drawn (CSS), or ``band`` or ``dot``."""

    name: str
    colour: str
    line: Literal["solid", "dashed", "dotted", "band", "dot"] = "solid"


@dataclass(frozen=True, slots=True)
class FigureGroup:
    """Plots that share their choices and their caption; small ones also their legend, three in a row."""

    kind: ClassVar[str] = "figures"
    id: str
    caption: str
    panels: tuple[Panel, ...]
    selects: tuple[Select, ...] = ()
    legend: tuple[Key, ...] = ()
    small: bool = False

    @property
    def choices(self) -> tuple[Select, ...]:
        """The selects that leave a choice."""
        return tuple(select for select in self.selects if len(select.options) > 1)


@dataclass(frozen=True, slots=True)
class Text:
    """A paragraph; ``copy`` adds a button, ``code`` sets it in a folded monospaced block under ``title``."""

    kind: ClassVar[str] = "text"
    text: str
    style: Literal["plain", "note", "copy", "code"] = "plain"
    title: str = ""
    id: str = ""


@dataclass(frozen=True, slots=True)
class References:
    """Literature; each entry is (text, address)."""

    kind: ClassVar[str] = "references"
    entries: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Cards:
    """Cards of neurons, drawn by the page from ``data`` as they are scrolled to; searchable, each with an address."""

    kind: ClassVar[str] = "cards"
    id: str
    data: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Page:
    """Blocks that are folded away under a title, with an address that unfolds them."""

    kind: ClassVar[str] = "page"
    id: str
    title: str
    blocks: tuple[Table | Text, ...]


Block = Table | FigureGroup | Text | References | Cards | Page


@dataclass(frozen=True, slots=True)
class Section:
    """One numbered section of the report."""

    id: str
    title: str
    blocks: tuple[Block, ...]


def is_number(value: object) -> bool:
    """Whether it is a finite number."""
    return isinstance(value, int | float | np.number) and not isinstance(value, bool) and math.isfinite(float(value))


def fixed(value: Any, digits: int = 3) -> str:
    """Fixed decimals with a true minus sign; a dash where there is no number."""
    return f"{float(value):.{digits}f}".replace("-", "−") if is_number(value) else "–"


def signed(value: Any, digits: int = 3) -> str:
    """Fixed decimals with the sign always shown."""
    return ("+" if is_number(value) and float(value) > 0 else "") + fixed(value, digits)


def short(value: Any) -> str:
    """Three significant digits, for quantities of any scale."""
    return f"{float(value):.3g}".replace("-", "−") if is_number(value) else "–"


def count(value: Any) -> str:
    """A whole number with separators of thousands."""
    return f"{int(value):,}" if is_number(value) else "–"


def percent(value: Any) -> str:
    """A share as a percentage, three significant digits."""
    return f"{100 * float(value):.3g} %" if is_number(value) else "–"


def p_words(value: Any) -> str:
    """A p value in running text."""
    if not is_number(value):
        return "p not computed"
    return "p < 0.001" if float(value) < 0.001 else f"p = {float(value):.3f}"


def interval(low: Any, high: Any, digits: int = 3) -> str:
    """A 95 % interval in running text."""
    if not (is_number(low) and is_number(high)):
        return "no interval"
    return f"95 % interval {fixed(low, digits)} to {fixed(high, digits)}"


def words(name: object) -> str:
    """A name of a table as words."""
    return str(name).replace("_", " ")


def control_words(name: str) -> str:
    """The full name of a control."""
    return CONTROL_WORDS.get(name, words(name))


def listed(parts: Sequence[str]) -> str:
    """Parts joined by commas and a last *and*."""
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}" if parts else "none"


def plot_text(text: object, width: int = 28) -> str:
    """Text for a plot: entities escaped, since Plotly reads some HTML, and shortened to fit (tables hold it whole)."""
    plain = str(text)
    return html.escape(plain if len(plain) <= width else plain[: width - 1] + "…", quote=False)


def cell(text: str, sort: Any = None, small: str = "", href: str = "") -> TableCell:
    """A table cell; sorted by its text where ``sort`` is no number."""
    return TableCell(text, float(sort) if is_number(sort) else None, small, href)


def address(prefix: str, *names: object) -> str:
    """An id that can stand in a link: ``class-EC-1.1``."""
    return "-".join([prefix, *(re.sub(r"[^\w.]+", "-", str(name)) for name in names)])


def json_ready(value: Any) -> Any:
    """Plain Python numbers, six significant digits, None for what is not finite."""
    if isinstance(value, Mapping):
        return {str(key): json_ready(item) for key, item in value.items()}
    if isinstance(value, list | tuple | np.ndarray | pd.Series):
        return [json_ready(item) for item in value]
    if isinstance(value, bool | np.bool_):
        return bool(value)
    if isinstance(value, int | np.integer):
        return int(value)
    if isinstance(value, float | np.floating):
        return float(f"{value:.6g}") if math.isfinite(value) else None
    return value
