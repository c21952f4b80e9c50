"""The answers in a few lines for the terminal: the first ones while a study runs, and the table that it ends with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from plmscope.report.answers import beats_chance, kind_beats_chance, kind_rows, primary_rows
from plmscope.report.blocks import (
    count,
    fixed,
    is_number,
    listed,
    percent,
    short,
    signed,
    words,
)
from plmscope.report.concentration import key_rows


def closing_lines(
    metrics: Mapping[str, Any],
    comparison: pd.DataFrame | None,
    modules: pd.DataFrame | None,
    density: pd.DataFrame | None,
) -> list[tuple[str, str]]:
    """The answers as rows of a small table: quality, pooled, by kind, keys.

    Args:
        metrics: The entry ``splits`` of ``metrics.json``, or empty.
        comparison: The table, or None.
        modules: The table, or None; where it is missing, the density of keys stands in its place.
        density: The table, or None.
    """
    lines = []
    if metrics:
        test = metrics["test"]
        values = (f"{name} {test[name]['balanced_accuracy']:.3f}" for name in ("model", "composition", "majority"))
        lines.append(("test balanced accuracy", ", ".join(values)))
    for module, where in (("", "pooled"), ("key", "within keys")):
        for row in primary_rows(comparison, module).to_dict("records"):
            # The draws alone may look like a yes.
            reached = is_number(row["p_value"]) and row["p_value"] < 0.05 and row["ci_low"] <= 0
            no = "no (the interval reaches 0)" if reached else "no"
            answer = f"{'yes' if beats_chance(row) else no}: {signed(row['difference'])} "
            answer += f"[{signed(row['ci_low'])}, {signed(row['ci_high'])}], p = {short(row['p_value'])}, "
            answer += f"beats {count(row['draws_beaten'])} of {count(row['n_draws'])} draws"
            lines.append((f"beats chance, {where}: {words(row['method'])}", answer))
    for method, rows in kind_rows(modules).groupby("method", sort=False):
        records = rows.to_dict("records")
        judged = [row for row in records if row["judged"]]
        won = [words(row["module"]) for row in judged if kind_beats_chance(row)]
        kinds = f"kinds of module whose best neurons beat chance: {words(method)}"
        lines.append((kinds, f"{listed(won)} (of {len(judged)} kinds that carry something)"))
        said = [f"{words(row['module'])} {fixed(row['concentration'], 1)}" for row in judged]
        meant = " (share that random neurons need over the share that the best need; 1: no better)" if said else ""
        lines.append((f"concentration: {words(method)}", f"{listed(said)}{meant}"))
        key = next((row for row in judged if row["module"] == "key"), None)
        answer = "carry nothing that could be told from noise"
        if key is not None:
            answer = (
                f"{percent(key['sufficient_share'])} give back nine tenths of the {fixed(key['carried'])} they carry; "
            )
            answer += f"matched draws take {percent(key['sufficient_share_against'])}"
        lines.append((f"keys: {words(method)}", answer))
    if density is not None and modules is None:
        keys = key_rows(density)
        for row in keys[keys["fraction"] == keys["fraction"].max()].to_dict("records"):
            lines.append(
                (f"keys among the top {percent(row['fraction'])} by {words(row['method'])}",
                 f"{fixed(row['enrichment'], 2)} x their share")
            )  # fmt: skip
    return [(question, answer.replace("−", "-")) for question, answer in lines]  # a plain sign for any terminal


def placed_lines(selections: pd.DataFrame, widths: Mapping[str, int], fraction: float) -> list[str]:
    """Where the best neurons sit, a line a method: each module kind's share of them over its share of all neurons.

    Args:
        selections: The table, with the methods' own pooled selections.
        widths: Module kind to the number of its neurons in the whole model.
        fraction: Of the selections that are meant.
    """
    chosen = selections[
        (selections["scope"] == "pooled") & (selections["fraction"] == fraction) & (selections["draw"] == -1)
    ]
    lines = []
    for method, rows in chosen.groupby("method", sort=False):
        counts = rows["module"].value_counts()
        all_of_them = sum(widths.values())
        said = [
            f"{words(module)} {counts.get(module, 0) / len(rows) / (width / all_of_them):.1f}"
            for module, width in widths.items()
        ]
        lines.append(f"best {percent(fraction)} by {words(method)}, times the share by chance: {', '.join(said)}")
    return lines


def first_lines(curves: pd.DataFrame) -> list[str]:
    """The methods' own curves as far as they are there, before any draw: what is left of the balanced accuracy.

    Args:
        curves: Rows of the table: the intact network, all of a kind held, and the methods' own selections.
    """
    own = curves[(curves["mode"] == "keep") & (curves["ablation"] == "mean") & (curves["draw"] == -1)]
    intact = curves[curves["method"] == "intact"]["balanced_accuracy"].iloc[0]
    lines = [f"first answers, chance is drawn next; balanced accuracy of the intact model {fixed(intact)}"]
    for module, where in (("", "of all neurons"), ("key", "of the keys, all else intact")):
        rows = own[(own["module"] == module) & own["scope"].isin(("pooled", "module"))]
        held = rows[rows["method"] == "held"]["balanced_accuracy"]
        for method, points in rows[rows["method"] != "held"].groupby("method", sort=False):
            kept = [f"{percent(p.fraction)} {fixed(p.balanced_accuracy)}" for p in points.itertuples()]
            none = f"none {fixed(held.iloc[0])}, " if len(held) else ""
            lines.append(f"kept {where}, best by {words(method)}: {none}{', '.join(kept)}")
    return lines
