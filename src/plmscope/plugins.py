"""Rows of plmscope's tables that other installed packages bring: scorers and architectures.

A package names its rows as entry points, in its ``pyproject.toml``::

    [project.entry-points."plmscope.scorers"]
    width = "mine.widths:ROW"
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib.metadata import entry_points
from typing import TypeVar

from plmscope.errors import PlmscopeError, shown

T = TypeVar("T")


def rows_of_packages(group: str, kind: type[T], error: type[PlmscopeError]) -> Iterator[T]:
    """The rows that the entry points of a group name, each by itself or several in a list.

    Args:
        group: Of the entry points.
        kind: What a row is.
        error: Raised where an entry point cannot be used.
    """
    for point in sorted(entry_points(group=group), key=lambda one: (one.name, one.value)):
        where = f"entry point {shown(point.name)} of {group}"
        try:
            found = point.load()
        except Exception as reason:  # whatever a package does when it is imported
            line = " ".join(str(reason).split()) or type(reason).__name__
            raise error(f"{where}: {point.value} cannot be loaded ({line}); mend or remove its package") from None
        for row in found if isinstance(found, list | tuple) else [found]:
            if not isinstance(row, kind):
                raise error(f"{where}: {point.value} has no {kind.__name__}; mend or remove its package")
            yield row
