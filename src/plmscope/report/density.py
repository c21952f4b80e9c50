"""The section on density: where the best-scored neurons sit, beside the null models."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from plmscope.models.architectures import MODULES
from plmscope.report.answers import NULL_WORDS, null_rows
from plmscope.report.blocks import (
    Block,
    FigureGroup,
    Panel,
    Select,
    Table,
    TableRow,
    Text,
    cell,
    count,
    fixed,
    is_number,
    percent,
    short,
    words,
)
from plmscope.report.curves import level_line
from plmscope.report.input import Results, section
from plmscope.scoring.table import PREFERRED


@section("density", "Density")
def density_section(results: Results) -> Sequence[Block]:
    """Where the best-scored neurons are: module by layer, and per module beside the null models."""
    density, null = results.get("density"), null_rows(results.get("density_null"), results.get("null_fits"))
    if density is None:
        notes = [results.missing("density", "where the neurons lie was not counted.")]
        notes += [_null_missing(results)] if results.get("density_null") is None else []
        return notes
    intro = Text(
        "Density is the selected share of a module; enrichment divides it by the share selected overall, so 1 is even "
        "and the size of a module does not matter. Permuted: scores exchanged among neurons of one layer that are "
        "equally active, whatever their module, which leaves layer and scale as they are; p counts permutations in "
        "which a module has as many (needs a score by activation), q is corrected over the modules. For raw "
        "activation, a comparison between modules reflects the scale of their activations and nothing else; read "
        "integrated gradients, conductance or activation contrast."
    )
    methods = [m for m in results.methods if m in set(density["method"])]
    fractions = sorted(density["fraction"].unique(), key=lambda f: (abs(f - results.knowledge_fraction), f))
    preferred = [m for m in PREFERRED if m in methods]
    selects = (
        Select(
            "method", "Method", tuple((m, words(m)) for m in [*preferred, *(m for m in methods if m not in preferred)])
        ),
        Select("fraction", "Best", tuple((f"{f:g}", percent(f)) for f in fractions)),
    )
    caption = (
        "Enrichment of selected neurons: by layer and module (logarithmic colours, cut at 1/8 and 8), and by module "
        "over all layers with bootstrap intervals and the null models. The dotted line is an even spread."
    )
    panels = (_heat_panel(density), _module_panel(density, null))
    blocks: list[Block] = [intro, FigureGroup("density-figures", caption, panels, selects)]
    if results.get("density_null") is None:
        blocks.append(_null_missing(results))
    blocks.append(_density_table(density, null))
    tests = results.get("null_tests")
    return blocks if tests is None else [*blocks, _tests_table(tests, results.knowledge_fraction)]


def _null_missing(results: Results) -> Text:
    return results.missing("density_null", "the verdict on keys needs the null models.")


def _when(method: Any, fraction: Any) -> dict[str, list[str]]:
    return {"method": [str(method)], "fraction": [f"{fraction:g}"]}


def _heat_panel(density: pd.DataFrame) -> Panel:
    sites = density[(density["layer"] >= 0) & (density["module"] != "all")]
    modules = [m for m in MODULES if m in set(sites["module"])]
    layers = sorted(int(layer) for layer in sites["layer"].unique())
    traces = []
    for (method, fraction), rows in sites.groupby(["method", "fraction"], sort=True):
        grid = rows.set_index(["module", "layer"])[["enrichment", "n_selected", "n_total"]]
        cells = grid.reindex(pd.MultiIndex.from_product([modules, layers])).to_numpy(dtype=float)
        values = cells.reshape(len(modules), len(layers), 3)
        traces.append(
            {
                "type": "heatmap", "x": [str(layer) for layer in layers], "y": [words(m) for m in modules],
                "z": np.log2(np.clip(values[:, :, 0], 1 / 8, 8)), "customdata": values, "zmin": -3, "zmax": 3,
                "colorscale": [[0, "@low"], [0.5, "@mid"], [1, "@high"]], "xgap": 1, "ygap": 1,
                "colorbar": {"thickness": 12, "tickvals": [-3, -2, -1, 0, 1, 2, 3],
                             "ticktext": ["≤ 1/8", "1/4", "1/2", "1", "2", "4", "≥ 8"]},
                "hovertemplate": "layer %{x}, %{y}<br>enrichment %{customdata[0]:.2f}<br>"
                "%{customdata[1]} of %{customdata[2]} selected<extra></extra>",
                "when": _when(method, fraction),
            }
        )  # fmt: skip
    layout = {
        "height": 330,
        "xaxis": {"title": {"text": "layer"}, "type": "category", "showgrid": False},
        "yaxis": {"autorange": "reversed", "automargin": True, "showgrid": False},
    }
    return Panel("plot-density-sites", "Layer and module", tuple(traces), layout)


def _module_panel(density: pd.DataFrame, null: pd.DataFrame | None) -> Panel:
    traces: list[dict[str, Any]] = []
    symbols = ("diamond-open", "x-thin-open")
    for (method, fraction), rows in _module_rows(density).groupby(["method", "fraction"], sort=True):
        when = _when(method, fraction)
        traces.append(
            {
                "type": "bar", "name": "fine-tuned model", "x": [words(m) for m in rows["module"]],
                "y": rows["enrichment"], "marker": {"color": "@c0/0.55"}, "when": when,
                "error_y": {"type": "data", "symmetric": False, "array": rows["ci_high"] - rows["enrichment"],
                            "arrayminus": rows["enrichment"] - rows["ci_low"], "color": "@text", "thickness": 1.5},
                "customdata": rows[["n_selected", "n_total", "ci_low", "ci_high"]].to_numpy(dtype=float),
                "hovertemplate": "%{x}: enrichment %{y:.2f} (%{customdata[2]:.2f} to %{customdata[3]:.2f})<br>"
                "%{customdata[0]} of %{customdata[1]} selected<extra></extra>",
            }
        )  # fmt: skip
        if null is None:
            continue
        same = _module_rows(null[(null["method"] == method) & np.isclose(null["fraction"], rows["fraction"].iloc[0])])
        for place, (name, own) in enumerate(same.groupby("null", sort=True)):
            traces.append(
                {
                    "type": "scatter", "mode": "markers", "name": f"{NULL_WORDS.get(str(name), words(name))} model",
                    "x": [words(m) for m in own["module"]], "y": own["enrichment"], "when": when,
                    "marker": {"symbol": symbols[place % 2], "size": 11, "color": f"@c{place + 1}",
                               "line": {"width": 2.5}},
                    "hovertemplate": "%{x}: enrichment %{y:.2f}<extra>%{fullData.name}</extra>",
                }
            )  # fmt: skip
    layout = {
        "height": 330,
        "xaxis": {"automargin": True, "showgrid": False},
        "yaxis": {"title": {"text": "enrichment"}, "rangemode": "tozero"},
        "shapes": [level_line(1.0)],
    }
    return Panel("plot-density-modules", "Module, all layers", tuple(traces), layout)


def _module_rows(density: pd.DataFrame) -> pd.DataFrame:
    """The rows over all layers, one per module, in the order of the modules."""
    rows = density[(density["layer"] == -1) & density["module"].isin(MODULES)]
    return rows.sort_values("module", key=lambda names: names.map({m: i for i, m in enumerate(MODULES)}), kind="stable")


def _judges_first(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows by method, those that the verdict rests on first, then by fraction."""
    order = [*PREFERRED, *sorted(set(rows["method"]) - set(PREFERRED))]
    place = rows["method"].map({method: i for i, method in enumerate(order)})
    return rows.assign(place=place).sort_values(["place", "fraction"], kind="stable")


def _tests_table(tests: pd.DataFrame, fraction: float) -> Table:
    """Every module kind against the fits of each null model, at the share that the verdicts are of."""
    nearest = min(tests["fraction"].unique(), key=lambda one: (abs(one - fraction), one))
    rows = []
    for row in _judges_first(tests[np.isclose(tests["fraction"], nearest)]).to_dict("records"):
        cells = [
            cell(words(row["method"])),
            cell(words(row["module"])),
            cell(NULL_WORDS[row["null"]]),
            cell(count(row["n_fits"]), row["n_fits"]),
            cell(fixed(row["enrichment"], 2), row["enrichment"]),
            cell(fixed(row["null_mean"], 2), row["null_mean"]),
            cell(f"{fixed(row['null_min'], 2)} to {fixed(row['null_max'], 2)}", row["null_max"]),
            cell(short(row["p_value"]), row["p_value"]),
            cell(short(row["q_value"]), row["q_value"]),
        ]
        rows.append(TableRow(tuple(cells), strong=row["module"] == "key"))
    columns = (
        ("method", False), ("module", False), ("null model", False), ("fits", True), ("enrichment", True),
        ("mean of fits", True), ("range of fits", True), ("p (counted)", True), ("q", True),
    )  # fmt: skip
    title = f"Enrichment among the best {percent(nearest)}, against several fits of each null model"
    return Table("null-fits", title, columns, tuple(rows), search=True)


def _density_table(density: pd.DataFrame, null: pd.DataFrame | None) -> Table:
    limits: dict[Any, float] = {}
    nulls = {} if null is None else {name: said for name, said in NULL_WORDS.items() if name in set(null["null"])}
    if null is not None:
        keys = ["null", "method", "fraction", "module"]
        limits = _module_rows(null).groupby(keys)["enrichment"].max().to_dict()
    rows = []
    for row in _judges_first(_module_rows(density)).to_dict("records"):
        known = [limits.get((name, row["method"], row["fraction"], row["module"])) for name in nulls]
        cells = [
            cell(words(row["method"])),
            cell(percent(row["fraction"]), row["fraction"]),
            cell(words(row["module"])),
            cell(f"{count(row['n_selected'])} of {count(row['n_total'])}", row["n_selected"]),
            cell(percent(row["density"]), row["density"]),
            cell(
                fixed(row["enrichment"], 2), row["enrichment"],
                small=f"{fixed(row['ci_low'], 2)} to {fixed(row['ci_high'], 2)}" if is_number(row["ci_low"]) else "",
            ),
            *(cell(fixed(value, 2), value) for value in known),
            cell(fixed(row["enrichment_permuted"], 2), row["enrichment_permuted"]),
            cell(short(row["p_permutation"]), row["p_permutation"]),
            cell(short(row["q_value"]), row["q_value"]),
        ]  # fmt: skip
        rows.append(TableRow(tuple(cells), strong=row["module"] == "key"))
    columns = (
        ("method", False), ("best", True), ("module", False), ("selected", True), ("density", True),
        ("enrichment", True), *((f"{name} model", True) for name in nulls.values()),
        ("permuted", True), ("p", True), ("q", True),
    )  # fmt: skip
    caption = "Density per module over all layers, with 95 % intervals of the enrichment; p and q of the permutation"
    return Table("densities", caption, columns, tuple(rows), search=True)
