"""Rows of plmscope's tables that other installed packages bring: scorers and architectures.

A package names its rows as entry points, in its ``pyproject.toml``::

    [project.entry-points."plmscope.scorers"]
    width = "mine.widths:ROW"
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from importlib.metadata import entry_points
from typing import Generic, TypeVar

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
            loaded = point.load()
        except Exception as reason:  # whatever a package does when it is imported
            line = " ".join(str(reason).split()) or type(reason).__name__
            raise error(f"{where}: {point.value} cannot be loaded ({line}); mend or remove its package") from None
        for row in loaded if isinstance(loaded, list | tuple) else [loaded]:
            if not isinstance(row, kind):
                raise error(f"{where}: {point.value} has no {kind.__name__}; mend or remove its package")
            yield row


class Registry(Generic[T]):
    """A table whose rows are plmscope's own, those of installed packages, and those registered in this process.

    Args:
        group: Entry points of packages that name rows.
        kind: What a row is.
        error: Raised where an entry point cannot be used.
        own: Gives plmscope's rows.
        check: Refuses a row that cannot stand beside those that are there.
        key: What two versions of one row have in common: a row that is registered again replaces the one before, as
            when a cell of a notebook runs twice.
    """

    def __init__(
        self, group: str, kind: type[T], error: type[PlmscopeError], own: Callable[[], Iterable[T]],
        check: Callable[[T, Sequence[T]], None], key: Callable[[T], Hashable],
    ) -> None:  # fmt: skip
        self.group, self.kind, self.error, self._own, self._check, self._key = group, kind, error, own, check, key
        self.of_packages: list[T] | None = None
        self.registered: list[T] = []

    def rows(self) -> tuple[T, ...]:
        """The whole table; entry points are read once, and read again after an error."""
        if self.of_packages is None:
            known: list[T] = []
            for row in rows_of_packages(self.group, self.kind, self.error):
                self._check(row, (*self._own(), *known, *self.registered))
                known.append(row)
            self.of_packages = known
        return (*self._own(), *self.of_packages, *self.registered)

    def register(self, row: T) -> T:
        """Add a row that only this process knows, in place of one that it knows by the same key."""
        self.rows()  # reads the entry points
        others = [one for one in self.registered if self._key(one) != self._key(row)]
        self._check(row, (*self._own(), *(self.of_packages or ()), *others))
        self.registered = [*others, row]
        return row

    def unregister(self, row: T) -> None:
        """Take it back, or what has replaced it."""
        self.registered = [one for one in self.registered if self._key(one) != self._key(row)]
