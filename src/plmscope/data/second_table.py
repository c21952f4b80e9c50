"""A second table with columns about the proteins, joined by id; ids that do not match are counted and shown."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

from plmscope.data.formats import ID_NAMES, STDIN, located, open_content, pick
from plmscope.data.labels import SEPARATOR, LabelTask
from plmscope.data.rows import ProteinRow
from plmscope.data.tables import open_table, quoted_names, refuse_values
from plmscope.errors import InputError, StudyError, shown


@dataclass(frozen=True)
class SecondTable:
    """A second table about the proteins: columns by id."""

    source: str
    names: tuple[str, ...]
    columns: dict[str, dict[str, str]]
    sha256: str

    def added_to(self, source: str, row: ProteinRow) -> ProteinRow:
        """The row with what this table says about its protein."""
        both = next((name for name in self.names if name in row.columns), None)
        if both is not None:
            raise InputError(f"{self.source}: the column {both!r} is in {source} too; rename one")
        more = self.columns.get(row.id)
        return row._replace(columns=row.columns | (dict.fromkeys(self.names, "") if more is None else more))

    def check_matched(self, source: str, places: Mapping[str, str]) -> None:
        """Refuse a table none of whose ids is of a protein."""
        if self.columns and not self.columns.keys() & places.keys():
            raise InputError(
                f"{self.source}: none of its {len(self.columns):,} ids is of a protein of {source} (the first is "
                f"{shown(next(iter(self.columns)))}, the first protein {shown(next(iter(places)))}); give both files "
                "the same ids, or name the column that has them by id_column"
            )


def read_second(source: str, id_column: str, task: LabelTask) -> SecondTable:
    """Read the table that the setting ``labels`` names."""
    if source == STDIN:
        raise StudyError("labels '-': standard input is for the sequences; name a file")
    with located(source) as file:
        with file.open("rb") as handle:
            sha256 = hashlib.file_digest(handle, "sha256").hexdigest()
        table = open_table(open_content(file, source))
        own = pick(table.names, (id_column, *ID_NAMES) if id_column else ID_NAMES)
        if own is None:
            refuse_values(source, table.names)
            raise InputError(
                f"{source}: lacks the column {id_column or 'id'!r}; its header is {quoted_names(table.names)}; name it "
                "by id_column"
            )
        columns: dict[str, dict[str, str]] = {}
        for place, fields in table.rows:
            name = fields.pop(own).strip()
            if name in columns:
                advice = f", its classes joined by {SEPARATOR!r}" if task == "multi" else ""
                raise InputError(
                    f"{source}: {place}: the id {shown(name)} is there twice; keep one row a protein{advice}"
                )
            columns[name] = fields
    return SecondTable(source, tuple(name for name in table.names if name != own), columns, sha256)
