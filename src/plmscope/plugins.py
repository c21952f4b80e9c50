"""Rows of plmscope's tables that other installed packages bring: scorers and architectures.

A package names its rows as entry points, in its ``pyproject.toml``::

    [project.entry-points."plmscope.scorers"]
    width = "mine.widths:ROW"
"""

from __future__ import annotations

import hashlib
import importlib.util
import inspect
import sys
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from importlib.metadata import entry_points
from pathlib import Path
from types import CodeType
from typing import Any, Generic, TypeVar

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


def code_digest(function: str | Callable[..., Any]) -> str:
    """What tells one version of a function's code from another.

    That of the file that it is in, helpers beside it included. Of a function of a script or a notebook, whose file has
    much else, its own lines; where these cannot be had, what Python made of them. Code that it imports is not seen.

    Args:
        function: Itself, or ``"module:name"``.

    >>> code_digest("plmscope.plugins:code_digest") == code_digest(rows_of_packages)
    True
    """
    if isinstance(function, str):
        spec = importlib.util.find_spec(function.partition(":")[0])
        file = spec.origin if spec else None
        return _digest(Path(file).read_bytes() if file and Path(file).is_file() else function.encode())
    made: Callable[..., Any] = inspect.unwrap(function)
    module = getattr(made, "__module__", "__main__")
    file = None if module == "__main__" else getattr(sys.modules.get(module), "__file__", None)
    if file and Path(file).is_file():
        return _digest(Path(file).read_bytes())
    try:
        return _digest(inspect.getsource(made).encode())
    except (OSError, TypeError):
        code = getattr(made, "__code__", None) or type(made).__call__.__code__
        return _digest(repr(_instructions(code)).encode())


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _instructions(code: CodeType) -> tuple[Any, ...]:
    """What a function does, without the place where it was written."""
    constants = [_instructions(one) if isinstance(one, CodeType) else one for one in code.co_consts]
    return code.co_code, code.co_names, constants
