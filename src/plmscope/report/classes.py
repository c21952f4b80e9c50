"""Beside the neurons that a class explains: what length and composition alone reach for that class."""

from __future__ import annotations

import numpy as np
import pandas as pd

from plmscope.report.blocks import Table, TableRow, cell, count, fixed
from plmscope.report.input import Results

#: What a neuron is known by.
KEYS = ["layer", "module", "neuron"]


def explained_classes(results: Results) -> Table | None:
    """One row a class that explains a selected neuron; None where no class does, or the table is missing."""
    cards, baselines = results.get("neuron_cards"), results.get("class_baselines")
    if cards is None or baselines is None:
        return None
    own = cards.drop_duplicates(KEYS)
    own = own[own["explained"].astype(bool)].merge(baselines, on="concept")
    own = own[own["auroc_composition"].notna()]
    if not len(own):
        return None
    bar = np.fmax(own["auroc_length"], own["auroc_composition"])
    own = own.assign(beyond=own["auroc"] > bar)
    rows = [_row(results, str(name), part) for name, part in own.groupby("concept", sort=False)]
    rows.sort(key=lambda row: -float(row.cells[2].sort or 0))
    n = len(own)
    caption = (
        "Classes that explain selected neurons, beside what length and amino-acid composition alone reach for the same "
        "class on the same held-out proteins (AUROC; learned on the proteins of discovery). "
        f"{count(own['beyond'].sum())} of the {count(n)} neurons order them better than both; the rest need be no more "
        "than length or composition."
    )
    columns = (
        ("class", False), ("held-out proteins with it", True), ("neurons", True), ("best neuron", True),
        ("median neuron", True), ("length alone", True), ("composition and length", True), ("neurons beyond both", True)
    )  # fmt: skip
    return Table("classes", caption, columns, tuple(rows))


def _row(results: Results, name: str, part: pd.DataFrame) -> TableRow:
    """One class."""
    first = part.iloc[0]
    known = results.class_name(name.split(" ", 1)[-1])
    cells = [cell(name, small="" if known in name else known), cell(count(first["n_with"]), int(first["n_with"]))]
    cells.append(cell(count(len(part)), len(part)))
    numbers = part["auroc"].max(), part["auroc"].median(), first["auroc_length"], first["auroc_composition"]
    cells += [cell(fixed(number, 2), number) for number in numbers]
    return TableRow((*cells, cell(count(part["beyond"].sum()), int(part["beyond"].sum()))))
