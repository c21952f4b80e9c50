"""What a command shows in the terminal: lines, progress, and nothing that a name in the data could forge.

Or, for programs that watch (``--progress json``), one JSON object a line on standard error.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterable, Iterator
from typing import Any, TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

T = TypeVar("T")


#: Longest text that is printed, in characters.
MAX_SHOWN = 4000


console = Console(stderr=True, highlight=False, markup=False, emoji=False)


#: How this process reports: as text, or as JSON lines.
_FORM = {"json": False}
#: Seconds between two reports of progress as JSON.
EVERY = 1.0


def report_as_json(wanted: bool) -> None:
    """Say from now on whether lines and progress are JSON objects."""
    _FORM["json"] = wanted


def emit(event: str, **values: object) -> None:
    """Write one event as a line of JSON, if that is wanted."""
    if _FORM["json"]:
        sys.stderr.write(json.dumps({"event": event, **values}) + "\n")
        sys.stderr.flush()


def complain(text: str) -> None:
    """Print an error as one line."""
    line = " ".join(text.split())
    emit("error", text=line)
    if not _FORM["json"]:
        tell(f"plmscope: error: {line}")


def say(quiet: bool) -> Any:
    """A function that prints one plain line, or none."""
    return (lambda line: None) if quiet else tell


def tell(line: str) -> None:
    """Print one line to standard error, never broken in two."""
    emit("message", text=line)
    if _FORM["json"]:
        return
    console.print(plain(line), soft_wrap=True)


def plain(text: str) -> str:
    r"""The text with control characters and marks of direction written out, so that no data steer a terminal.

    >>> plain("red\x1b[31m, no \u202eleft"), len(plain("x" * 10**6)) < 5000
    ('red\\x1b[31m, no \\u202eleft', True)
    """
    if len(text) > MAX_SHOWN:
        text = f"{text[: MAX_SHOWN // 2]} ... {text[-MAX_SHOWN // 2 :]}"
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in text)


def track(quiet: bool) -> Any:
    """A progress bar with the time left; plain lines where there is no terminal; events where JSON is wanted."""
    from plmscope.progress import silent

    if quiet:
        return silent
    if _FORM["json"]:
        return events_of
    return bar if console.is_terminal else lines_of


def bar(items: Iterable[T], description: str, total: int) -> Iterator[T]:
    """Draw a bar while iterating."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task(description, total=total)
        for item in items:
            yield item
            progress.advance(task)


def lines_of(items: Iterable[T], description: str, total: int) -> Iterator[T]:
    """Say every half minute how far it is."""
    started = said = time.time()
    for number, item in enumerate(items, 1):
        yield item
        now = time.time()
        if now - said > 30 and number < total:
            said, left = now, (now - started) / number * (total - number)
            tell(f"{description}: {number:,} of {total:,}, about {left / 60:.0f} min left")


def events_of(items: Iterable[T], description: str, total: int) -> Iterator[T]:
    """Emit how far it is: at the beginning, once a second at most, and at the end."""
    started = said = time.monotonic()
    number = 0
    emit("progress", task=description, done=0, total=total, seconds=0.0)
    for number, item in enumerate(items, 1):
        yield item
        now = time.monotonic()
        if now - said >= EVERY and number < total:
            said = now
            emit("progress", task=description, done=number, total=total, seconds=round(now - started, 1))
    emit("progress", task=description, done=number, total=total, seconds=round(time.monotonic() - started, 1))
