"""The kinds of modules on the first page: six small curves with the band of their chance draws, and one table."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from plmscope.models.architectures import MODULES
from plmscope.report.answers import NULL_WORDS, kind_beats_chance, kind_rows
from plmscope.report.blocks import (
    FigureGroup,
    Key,
    Panel,
    Select,
    Table,
    TableCell,
    TableRow,
    cell,
    count,
    fixed,
    is_number,
    p_words,
    percent,
    words,
)
from plmscope.report.input import Results

METRIC_WORDS = {"balanced_accuracy": "balanced accuracy", "log_probability": "log-probability of the true class (nats)"}
BAND = (0.05, 0.5, 0.95)


def kinds_figure(results: Results) -> FigureGroup | None:
    """One panel a kind: its best neurons kept, all others of it held, every other kind intact."""
    curves = results.get("curves")
    if curves is None or results.kinds is None:
        return None
    own = curves[(curves["scope"] == "module") & (curves["mode"] == "keep") & (curves["ablation"] == "mean")]
    intact = curves[curves["ablation"] == "none"]
    kept = own[(own["draw"] < 0) & (own["method"] != "held")]
    methods = [str(method) for method in kept["method"].unique()]
    if not methods or not len(intact):
        return None
    whole = intact.iloc[0]
    kinds = [kind for kind in MODULES if kind in set(own["module"])]
    shown = {
        metric: name for metric, name in METRIC_WORDS.items() if is_number(whole[metric]) and kept[metric].notna().all()
    }
    ranges = {metric: _range(own[metric], float(whole[metric])) for metric in shown}
    panels = [_panel(results, own[own["module"] == kind], whole, methods, kind, ranges) for kind in kinds]
    selects = (
        Select("metric", "Metric", tuple(shown.items())),
        Select("show", "Show", (("all", "all methods"), *((m, f"{words(m)} and its draws") for m in methods))),
    )
    legend = (
        *(Key(words(m), str(results.style(m)["line"]["color"]).removeprefix("@")) for m in methods),
        Key("matched random draws, 5–95 % and median", "muted", "band"),
        Key("intact model", "text", "dotted"),
        Key("all of the kind held", "no", "dashed"),
    )
    caption = (
        "Keep within one kind of module: the best share of its neurons works (horizontal, 0 to 100 %), the others of "
        "it are held at their means, and every other kind is intact. The band is of random neurons, as many in every "
        "layer; “all methods” takes the draws of all of them together. Above a panel stands how many draws a method "
        "has: the band of fewer than 20 is for looking, no test. The further left a curve rises to the dotted line, "
        "the more concentrated the kind; where dashed and dotted line are one, there is nothing to find. Judged on "
        f"{results.evaluated_words}."
    )
    return FigureGroup("kinds-figure", caption, tuple(panels), selects, legend, small=True)


def _panel(
    results: Results, own: pd.DataFrame, whole: pd.Series, methods: list[str], kind: str, ranges: dict[str, list[float]]
) -> Panel:
    """The curves of one kind."""
    held = own[own["method"] == "held"]
    draws = own[(own["draw"] >= 0) & (own["method"] == "random_matched")]
    traces: list[dict[str, Any]] = []
    patches: dict[str, dict[str, Any]] = {"metric": {}}
    for metric in ranges:
        ends = float(held[metric].iloc[0]) if len(held) else float("nan"), float(whole[metric])
        for target in ("all", *methods):
            some = draws if target == "all" else draws[draws["matched_to"] == target]
            if len(some):
                traces += _band(some, metric, ends, {"metric": [metric], "show": [target]})
        for method in methods:
            rows = own[(own["draw"] < 0) & (own["method"] == method)].sort_values("fraction")
            x, y = _between(rows["fraction"], rows[metric], ends)
            style = results.style(method)
            traces.append(
                {
                    "type": "scatter", "mode": "lines+markers", "x": x, "y": y, "name": words(method),
                    "when": {"metric": [metric], "show": ["all", method]}, "line": style["line"] | {"dash": "solid"},
                    "marker": style["marker"] | {"size": 5},
                    "hovertemplate": "%{x:.0%} kept: %{y:.3f}<extra>%{fullData.name}</extra>",
                }
            )  # fmt: skip
        levels = [_level(ends[1], "@text", "dot")]
        levels += [_level(ends[0], "@no", "dash")] if is_number(ends[0]) else []
        patches["metric"][metric] = {"shapes": levels, "yaxis": {"range": ranges[metric]}}
    layout = {
        "height": 210,
        "margin": {"l": 36, "r": 18, "t": 8, "b": 26},
        "showlegend": False,
        "dragmode": False,
        "xaxis": {"range": [-0.03, 1.03], "tickvals": [0, 0.5, 1], "tickformat": ".0%", "zeroline": False},
        "yaxis": {"zeroline": False, "nticks": 5},
    }
    title = words(kind).capitalize()
    if len(draws):
        title += f", {count(draws.groupby('matched_to')['draw'].nunique().max())} draws"
    return Panel(f"plot-kind-{kind}", title, tuple(traces), layout, patches)


def _between(fractions: Any, values: Any, ends: tuple[float, float]) -> tuple[list[float], list[float]]:
    """A curve with the held kind before it and the intact model behind."""
    x, y = [float(f) for f in fractions], [float(v) for v in values]
    if is_number(ends[0]) and 0.0 not in x:
        x, y = [0.0, *x], [ends[0], *y]
    return ([*x, 1.0], [*y, ends[1]]) if 1.0 not in x else (x, y)


def _band(
    draws: pd.DataFrame, metric: str, ends: tuple[float, float], when: dict[str, list[str]]
) -> list[dict[str, Any]]:
    """The 5th to 95th percentile of the draws as an area, and their median."""
    quantiles = draws.groupby("fraction")[metric].quantile(np.array(BAND)).unstack()
    x, low = _between(quantiles.index, quantiles[BAND[0]], ends)
    _, middle = _between(quantiles.index, quantiles[BAND[1]], ends)
    _, high = _between(quantiles.index, quantiles[BAND[2]], ends)
    area = {
        "type": "scatter", "mode": "lines", "x": [*x, *reversed(x)], "y": [*high, *reversed(low)], "fill": "toself",
        "fillcolor": "@muted/0.25", "line": {"width": 0}, "hoverinfo": "skip", "when": when,
    }  # fmt: skip
    median = {
        "type": "scatter", "mode": "lines", "x": x, "y": middle, "name": "matched random draws", "when": when,
        "line": {"color": "@muted", "width": 1.25}, "customdata": list(zip(low, high, strict=True)),
        "hovertemplate": "%{x:.0%} kept: median %{y:.3f}, 5–95 %: %{customdata[0]:.3f} to %{customdata[1]:.3f}"
        "<extra>%{fullData.name}</extra>",
    }  # fmt: skip
    return [area, median]


def _level(y: float, colour: str, dash: str) -> dict[str, Any]:
    """A horizontal line."""
    return {"type": "line", "x0": 0, "x1": 1, "xref": "paper", "y0": y, "y1": y,
            "line": {"color": colour, "dash": dash, "width": 1.5}}  # fmt: skip


def _range(values: pd.Series, whole: float) -> list[float]:
    """The same axis for every kind, so that what one carries is seen; at least a twentieth, lest noise look steep."""
    seen = [*values.dropna(), whole]
    low, high = float(min(seen)), float(max(seen))
    margin = max(0.05 * (high - low), (0.05 - (high - low)) / 2)
    return [low - margin, high + margin]


def kinds_table(results: Results) -> Table | None:
    """One row a kind: what it carries, and by every method how concentrated that is and whether it beats chance."""
    rows = kind_rows(results.kinds)
    if not len(rows):
        return None
    methods = [str(method) for method in rows["method"].unique()]
    places = {(str(row["method"]), str(row["module"])): row for row in rows.to_dict("records")}
    kinds = [kind for kind in MODULES if kind in set(rows["module"])]
    body = []
    for kind in kinds:
        first = next(row for (_, module), row in places.items() if module == kind)
        cells = [
            cell(words(kind)),
            cell(
                fixed(first["carried"]), first["carried"],
                small=f"{fixed(first['carried_low'])} to {fixed(first['carried_high'])}",
            ),
        ]  # fmt: skip
        cells += [_of_method(places.get((method, kind))) for method in methods]
        body.append(TableRow(tuple(cells), strong=kind == "key"))
        body += _null_rows(results, methods) if kind == "key" else []
    columns = (
        ("kind", False), ("carries", True),
        *((f"concentration by {words(method)}", True) for method in methods)
    )  # fmt: skip
    caption = (
        "What each kind of module carries (balanced accuracy lost when all of it is held at its means, with a 95 % "
        "interval), and how concentrated that is: the share that matched random draws need to give back nine tenths of "
        "it, over the share that the best neurons need; 1 is no better than chance. Under it the 95 % interval, both "
        "shares (of the best / of the draws), and p of the area between the curve and the draws, Holm-corrected over "
        "the kinds that were tested. A share is read where the curve, made to rise throughout, reaches nine tenths: "
        "what a small share gives and a larger one loses again is averaged with it first. A kind that carries nothing "
        "is not judged."
    )
    if any(len(kind_rows(results.kinds, null)) for null in NULL_WORDS):
        caption += (
            " Under the keys, those of the null models, on the same proteins with fewer draws: each is one fit and so "
            "one point, told beside the run and no test."
        )
    return Table("kinds", caption, columns, tuple(body))


def _null_rows(results: Results, methods: list[str]) -> list[TableRow]:
    """The keys of every null model that was evaluated by kinds."""
    null_rows = []
    for null, name in NULL_WORDS.items():
        rows = kind_rows(results.kinds, null)
        rows = rows[rows["module"] == "key"]
        if len(rows):
            first, places = rows.iloc[0], {str(row["method"]): row for row in rows.to_dict("records")}
            carried = cell(
                fixed(first["carried"]), first["carried"],
                small=f"{fixed(first['carried_low'])} to {fixed(first['carried_high'])}",
            )  # fmt: skip
            null_rows.append(
                TableRow((cell(f"key, {name} model"), carried, *(_of_method(places.get(method)) for method in methods)))
            )
    return null_rows


def _of_method(row: dict[Any, Any] | None) -> TableCell:
    """How concentrated a kind is by one method."""
    if row is None or not row["judged"]:
        return cell("–", small="not judged")
    lines = [f"{fixed(row['concentration_low'], 1)} to {fixed(row['concentration_high'], 1)}"]
    lines.append(f"{percent(row['sufficient_share'])} / {percent(row['sufficient_share_against'])}")
    tested = row["p_kind"] != "too_few_draws"
    lines.append(p_words(row["p_holm"]) if tested else f"{count(row['n_draws'])} draws: no test")
    lines += ["beats chance"] if kind_beats_chance(row) else []
    return cell(fixed(row["concentration"], 1), row["concentration"], small="\n".join(lines))
