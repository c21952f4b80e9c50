"""Rows of a comparison picked out, and estimates as cells."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from plmscope.comparing.found import Found
from plmscope.comparing.members import CONFIRMATION, EXPLORATORY
from plmscope.report.blocks import (
    TableCell,
    cell,
    fixed,
    is_number,
    percent,
    signed,
)

#: The cell of the evaluation that was fixed in advance, but for whether all neurons or one kind are ranked.
PRIMARY_CELL = {"mode": "keep", "ablation": "mean", "metric": "balanced_accuracy"}
CHANCE = "random_matched"


def where(frame: pd.DataFrame, **wanted: Any) -> pd.DataFrame:
    """The rows of a table whose columns have the values that are given."""
    mask = np.ones(len(frame), dtype=bool)
    for name, value in wanted.items():
        mask &= frame[name].to_numpy() == value
    return frame[mask]


def estimated(row: Mapping[Any, Any] | None, digits: int = 3, plus: bool = False, share: bool = False) -> TableCell:
    """An estimate as a cell: mean and interval, under it n, standard deviation and range."""
    if row is None or not row["n"]:
        return cell("–", small="no run")

    def show(value: Any) -> str:
        return percent(value) if share else signed(value, digits) if plus else fixed(value, digits)

    text = show(row["mean"])
    text += f" [{show(row['low'])}, {show(row['high'])}]" if is_number(row["low"]) else ""
    small = f"n = {int(row['n'])}"
    if row["n"] > 1:
        small += f", {show(row['smallest'])} to {show(row['largest'])}"
    if is_number(row.get("beat")):
        small += f", beats chance in {int(row['beat'])}"
    return cell(text, row["mean"], small)


def grouped(found: Found, label: str = "group") -> tuple[tuple[str, bool], ...]:
    """A first column for the group, where there are several."""
    return ((label, False),) if len(found.groups) > 1 else ()


def in_group(found: Found, group: str) -> tuple[TableCell, ...]:
    """The cell that :func:`grouped`'s column has in one row."""
    return (cell(group),) if len(found.groups) > 1 else ()


def headings(found: Found) -> dict[str, str]:
    """Names of runs as columns are headed; exploratory ones say so."""
    return {m.name: f"{m.name} (exploratory)" if m.role == EXPLORATORY else m.name for m in found.members}


def only(frame: pd.DataFrame) -> dict[Any, Any] | None:
    """The only row of a table as a dictionary; None where there is no row or more than one."""
    return frame.iloc[0].to_dict() if len(frame) else None


def methods_of(frame: pd.DataFrame) -> list[str]:
    """The methods in a table, in its order."""
    return [str(method) for method in frame["method"].unique() if method]


def alike_rows(found: Found) -> pd.DataFrame:
    """Overlap by group, method, scope, kind and share: mean and range over pairs of confirmation runs."""
    frame = found.tables["neurons"]
    confirming = {m.name for m in found.members if m.role == CONFIRMATION}
    frame = frame[(frame["group"] == frame["other_group"]) & frame["run"].isin(confirming)]
    frame = frame[frame["other"].isin(confirming)]
    keys = ["group", "method", "scope", "module", "fraction"]
    return (
        frame.groupby(keys, sort=False)
        .agg(
            pairs=("jaccard", "size"), jaccard=("jaccard", "mean"), smallest=("jaccard", "min"),
            largest=("jaccard", "max"), expected=("jaccard_expected", "mean"), shared=("shared", "mean"),
            n=("n", "mean"),
        )
        .reset_index()
    )  # fmt: skip
