"""One share of a list of tasks, for job arrays without an engine: shard i of n has the tasks i, i + n, i + 2n, ...

Tasks that stand next to each other are alike in length, so that shards are too.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, TypeVar

from plmscope.errors import SelectionError

T = TypeVar("T")


class Shard(NamedTuple):
    """Which share of the tasks: ``number`` of ``total``, counted from 1."""

    number: int
    total: int

    @classmethod
    def parse(cls, text: str) -> Shard:
        """Read ``2/8``.

        Raises:
            SelectionError: it is something else.
        """
        number, slash, total = text.partition("/")
        if not (slash and number.isdecimal() and total.isdecimal() and 1 <= int(number) <= int(total)):
            raise SelectionError(f"--shard {text!r}: need NUMBER/TOTAL, such as 1/8 to 8/8")
        return cls(int(number), int(total))

    def __str__(self) -> str:
        return f"{self.number}/{self.total}"

    @property
    def name(self) -> str:
        """For names of files."""
        return f"{self.number}-of-{self.total}"

    def of(self, tasks: Sequence[T]) -> Sequence[T]:
        """Its tasks."""
        return tasks[self.number - 1 :: self.total]
