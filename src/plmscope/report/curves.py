"""Sections on keeping and ablating: the primary outcome, the curves with their chance bands, every comparison."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pandas as pd

from plmscope.report.answers import primary_rows
from plmscope.report.blocks import (
    Block,
    FigureGroup,
    Panel,
    Select,
    Table,
    TableRow,
    Text,
    cell,
    control_words,
    count,
    fixed,
    interval,
    is_number,
    plot_text,
    short,
    signed,
    words,
)
from plmscope.report.input import Results, section
from plmscope.scoring.table import preference

METRIC_WORDS_OF_CURVES = {
    "balanced_accuracy": "balanced accuracy",
    "accuracy": "accuracy",
    "log_loss": "log-loss (nats)",
    "true_class_probability": "true-class probability",
}
BAND = (0.05, 0.5, 0.95)


def primary_figure(results: Results) -> FigureGroup | None:
    """The primary outcome as a forest plot."""
    comparison = results.get("comparison")
    own, keys = primary_rows(comparison), primary_rows(comparison, "key")
    if not len(own):
        return None
    records = [*own.to_dict("records"), *keys.to_dict("records")]
    traces = []
    for record in records:
        style = results.style(record["method"])
        where = words(record["method"]) + (", within keys" if record["module"] else ", pooled" if len(keys) else "")
        traces.append(
            {
                "type": "scatter",
                "mode": "markers",
                "x": [record["difference"]],
                "y": [plot_text(where, 40)],
                "error_x": {
                    "type": "data",
                    "symmetric": False,
                    "array": [record["ci_high"] - record["difference"]],
                    "arrayminus": [record["difference"] - record["ci_low"]],
                    "color": style["marker"]["color"],
                    "thickness": 2,
                },
                "marker": style["marker"] | {"size": 11},
                "hovertemplate": f"%{{x:.3f}}, {interval(record['ci_low'], record['ci_high'])}<extra>%{{y}}</extra>",
                "showlegend": False,
            }
        )
    layout = {
        "height": 110 + 42 * len(records),
        "xaxis": {"title": {"text": "difference in area from matched chance"}, "zeroline": True},
        "yaxis": {"autorange": "reversed", "automargin": True},
    }
    caption = (
        f"Primary outcome{'s' if len(keys) else ''}: area under the keep curve (mean ablation; "
        f"{'all neurons ranked together, and keys alone' if len(keys) else 'pooled ranking'}) minus that of random "
        "neurons matched by site, with 95 % bootstrap intervals over test clusters and draws. Right of the line is "
        "better than chance."
    )
    return FigureGroup(
        "primary", caption, (Panel("plot-primary", "Difference from matched chance", tuple(traces), layout),)
    )


@section("curves", "Keep and ablate", curves="nothing was kept or ablated yet.")
def curves_section(results: Results) -> Sequence[Block]:
    """Keep and ablate curves with the band of their chance draws."""
    curves = results.tables["curves"]
    both = {"mean", "zero"} <= set(curves["ablation"])
    intro = Text(
        "Keep: all neurons but the chosen ones are replaced by a constant. Ablate: the chosen ones are. Replacing by "
        "the mean stays close to what the network has seen; replacing by zero does not"
        f"{', which is why both are shown' if both else ''}. "
        "Bands span the 5th to 95th percentile of the random draws; thin lines inside them are medians. Controls that "
        "are matched to a method are drawn where it is shown alone."
    )
    intact = curves[curves["ablation"] == "none"]
    changed = curves[(curves["ablation"] != "none") & (curves["scope"] != "module")]  # those are on the first page
    if not len(changed):
        note = Text(
            "All neurons together were neither kept nor ablated; the kinds of modules are on the first page.", "note"
        )
        return (note,)
    methods = [m for m in results.methods if m in set(changed.loc[changed["draw"] < 0, "method"])]
    methods += [str(m) for m in changed.loc[changed["draw"] < 0, "method"].unique() if m not in methods]
    panels = []
    for mode in ("keep", "ablate"):
        for ablation in sorted(changed["ablation"].astype(str).unique()):
            part = changed[(changed["mode"] == mode) & (changed["ablation"] == ablation)]
            if len(part):
                panels.append(_curve_panel(results, part, intact, methods, mode, ablation))
    scopes = sorted(changed["scope"].astype(str).unique())
    first = sorted(methods, key=preference)
    selects = (
        Select("metric", "Metric", tuple(METRIC_WORDS_OF_CURVES.items())),
        # One method first: what it is to be compared with is drawn beside one alone.
        Select("show", "Show", (*((m, f"{words(m)} and its controls") for m in first), ("all", "all methods"))),
        Select("axis", "Fraction axis", (("linear", "linear, as in the areas"), ("log", "logarithmic"))),
        Select("scope", "Ranking", tuple((scope, words(scope)) for scope in scopes)),
    )
    caption = (
        f"Quality on {results.evaluated_words} against the fraction of neurons. The horizontal dotted line is the "
        "intact model."
    )
    return intro, FigureGroup("curves-figure", caption, tuple(panels), selects)


def _curve_panel(
    results: Results, part: pd.DataFrame, intact: pd.DataFrame, methods: list[str], mode: str, ablation: str
) -> Panel:
    traces: list[dict[str, Any]] = []
    end = 1.0 if mode == "keep" else 0.0
    for scope in sorted(part["scope"].astype(str).unique()):
        own = part[part["scope"] == scope]
        draws = own[own["draw"] >= 0].fillna({"matched_to": ""})
        bands = draws.groupby(["method", "matched_to", "fraction"])[list(METRIC_WORDS_OF_CURVES)].quantile(
            np.array(BAND)
        )
        for metric in METRIC_WORDS_OF_CURVES:
            whole = float(intact[metric].iloc[0]) if len(intact) else math.nan
            base = {"metric": [metric], "scope": [scope]}
            for control, matched_to in bands.index.droplevel(["fraction", None]).unique():
                when = base | {"show": [matched_to] if matched_to else ["all", *methods]}
                quantiles = bands.loc[(control, matched_to), metric].unstack()
                traces += _band(quantiles, control, whole, end, when)
            for method in methods:
                rows = own[(own["draw"] < 0) & (own["method"] == method)].sort_values("fraction")
                if len(rows):
                    x, y = _with_intact(rows["fraction"], rows[metric], end, whole)
                    name = plot_text(words(method))
                    traces.append(
                        {"type": "scatter", "mode": "lines+markers", "x": x, "y": y, "name": name,
                         "when": base | {"show": ["all", method]}, **results.style(method)}
                    )  # fmt: skip
    reach = "tozero" if part["fraction"].min() < 0.3 else "normal"  # not half a plot without a point
    verb = "kept" if mode == "keep" else "ablated"
    layout = {
        "height": 400,
        "xaxis": {"title": {"text": f"fraction {verb}"}, "tickformat": "~%", "rangemode": reach},
        "yaxis": {"title": {"text": next(iter(METRIC_WORDS_OF_CURVES.values()))}},
    }
    patches: dict[str, dict[str, Any]] = {
        "metric": {
            name: {
                "yaxis": {"title": {"text": title}},
                "shapes": [level_line(float(intact[name].iloc[0]))] if len(intact) else [],
            }
            for name, title in METRIC_WORDS_OF_CURVES.items()
        },
        "axis": {
            "linear": {"xaxis": {"type": "linear"}},
            "log": {"xaxis": {"type": "log", "rangemode": "normal", "dtick": 1}},
        },
    }
    title = f"{mode.capitalize()}, {ablation} ablation"
    return Panel(f"plot-{mode}-{ablation}", title, tuple(traces), layout, patches)


def level_line(y: float) -> dict[str, Any]:
    """A dotted horizontal line."""
    return {"type": "line", "x0": 0, "x1": 1, "xref": "paper", "y0": y, "y1": y,
            "line": {"color": "@text", "dash": "dot", "width": 1.5}}  # fmt: skip


def _with_intact(
    fraction: Iterable[float], value: Iterable[float], end: float, whole: float
) -> tuple[list[float], list[float]]:
    """A curve with the intact model as its last (keep) or first (ablate) point."""
    x, y = [float(item) for item in fraction], [float(item) for item in value]
    if not is_number(whole) or end in x:
        return x, y
    return ([*x, end], [*y, whole]) if end == 1.0 else ([end, *x], [whole, *y])


def _band(
    quantiles: pd.DataFrame, control: str, whole: float, end: float, when: dict[str, list[str]]
) -> list[dict[str, Any]]:
    """The 5th to 95th percentile of the draws as an area, and their median as a thin line; one row a fraction."""
    x, low = _with_intact(quantiles.index, quantiles[BAND[0]], end, whole)
    _, middle = _with_intact(quantiles.index, quantiles[BAND[1]], end, whole)
    _, high = _with_intact(quantiles.index, quantiles[BAND[2]], end, whole)
    colour, dash = {
        "random": ("@muted", "dot"),
        "random_matched": ("@c4", "dash"),
        "random_active": ("@c6", "dashdot"),
    }.get(control, ("@c5", "longdash"))
    name = plot_text(f"{control_words(control)} (5–95 %)", 60)
    area = {
        "type": "scatter", "mode": "lines", "x": [*x, *reversed(x)], "y": [*high, *reversed(low)], "fill": "toself",
        "fillcolor": f"{colour}/0.22", "line": {"width": 0}, "hoverinfo": "skip", "showlegend": False, "when": when,
    }  # fmt: skip
    median = {
        "type": "scatter", "mode": "lines", "x": x, "y": middle, "name": name, "when": when,
        "line": {"color": colour, "width": 1.5, "dash": dash}, "customdata": list(zip(low, high, strict=True)),
        "hovertemplate": "median %{y:.3f}, 5–95 %: %{customdata[0]:.3f} to %{customdata[1]:.3f}"
        "<extra>%{fullData.name}</extra>",
    }  # fmt: skip
    return [area, median]


@section("comparison", "Comparison with chance", comparison="no method was compared with chance.")
def comparison_section(results: Results) -> Sequence[Block]:
    """Every comparison with chance."""
    comparison = results.tables["comparison"]
    text = (
        "Areas under the curves above (trapezoid rule, linear axis). “Good sign” says which sign of the difference "
        "favours the method. Primary rows are the outcomes fixed in advance and carry an uncorrected one-sided p "
        "value; all others are secondary and are to be read by their q value (Benjamini-Hochberg)."
    )
    if (comparison["p_kind"] == "too_few_draws").any():
        text += " Rows of “too few draws” (fewer than 20) are for looking, no tests: their p cannot be below 0.05."
    if (comparison["p_kind"] == "prediction_t").any():
        text += " A p value of the kind “prediction t” is extrapolated from few draws: for looking, not for claiming."
    intro = Text(text)
    ordered = comparison.sort_values("primary", ascending=False, kind="stable")
    rows = []
    for row in ordered.to_dict("records"):
        cells = [
            cell(words(row["method"])),
            cell(control_words(str(row["against"]))),
            *(cell(words(row[name])) for name in ("mode", "ablation", "metric")),
            cell(signed(row["difference"]), row["difference"]),
            cell(f"{fixed(row['ci_low'])} to {fixed(row['ci_high'])}", row["ci_low"]),
            cell("+" if row["better"] > 0 else "−", row["better"]),
            cell(short(row["p_value"]), row["p_value"]),
            cell(short(row["q_value"]), row["q_value"]),
            cell(f"{count(row['draws_beaten'])} of {count(row['n_draws'])}", row["draws_beaten"]),
            *(cell(fixed(row[name]), row[name]) for name in ("auc", "auc_against")),
            cell(words(row["p_kind"])),
            cell(words(row["scope"]) + (f": {words(row['module'])}" if row["module"] else "")),
            cell("primary" if row["primary"] else "secondary"),
        ]
        rows.append(TableRow(tuple(cells), strong=bool(row["primary"])))
    columns = (
        ("method", False), ("against", False), ("mode", False), ("ablation", False), ("metric", False),
        ("difference", True), ("95 % interval", True), ("good sign", True), ("p", True), ("q", True),
        ("draws beaten", True), ("area", True), ("area by chance", True), ("kind of p", False), ("ranking", False),
        ("outcome", False),
    )  # fmt: skip
    table = Table("comparisons", "All comparisons with chance", columns, tuple(rows), search=True)
    # Without kinds of modules the figure is on the first page.
    primary = primary_figure(results) if results.kinds is not None else None
    return intro, *([primary] if primary else []), table
