"""What is known of several runs: themselves, and their tables."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from plmscope.comparing.members import Member
from plmscope.comparing.tables import COMPARED
from plmscope.errors import RunError


@dataclass(frozen=True)
class Found:
    """Several runs side by side.

    Attributes:
        members: The runs, in the order given.
        tables: By name, such as ``"outcomes"``; columns as in ``plmscope.comparing.tables.COMPARED``.
    """

    members: tuple[Member, ...]
    tables: dict[str, pd.DataFrame]

    @property
    def groups(self) -> tuple[str, ...]:
        """Runs that differ in the seed alone, as the settings that tell them from others."""
        return tuple(dict.fromkeys(member.group for member in self.members))

    def table(self, name: str) -> pd.DataFrame:
        """One table, such as ``"combined"``.

        Raises:
            RunError: there is no such table.
        """
        if name not in self.tables:
            raise RunError(f"a comparison has no table {name!r}; there are {', '.join(COMPARED)}")
        return self.tables[name]
