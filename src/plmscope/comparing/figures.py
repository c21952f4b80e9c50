"""The figure of a comparison: every run as a point, and the mean over runs with its interval.

One panel: rows are all neurons together and the six kinds, and a choice says which number is drawn.
"""

from __future__ import annotations

import math
from typing import Any

import pandas as pd

from plmscope.comparing.cells import CHANCE, PRIMARY_CELL, methods_of, only, where
from plmscope.comparing.found import Found
from plmscope.comparing.members import CONFIRMATION
from plmscope.models.architectures import MODULES
from plmscope.report.blocks import FigureGroup, Key, Panel, Select, is_number, percent, plot_text, words
from plmscope.scoring.table import preference

#: What can be drawn: its axis, and the value that means nothing is there.
QUANTITIES: dict[str, tuple[str, str, float]] = {
    "difference": ("Area over matched chance", "area over matched chance", 0.0),
    "concentration": ("Concentration", "concentration (1: no better than chance)", 1.0),
    "carried": ("What a kind carries", "balanced accuracy lost when the kind is held", 0.0),
    "sufficient_share": ("Sufficient share", "share of the kind that gives back nine tenths", 0.0),
    "enrichment": ("Enrichment among the best", "share of the best over share of all neurons", 1.0),
}
#: Quantities on a logarithmic axis.
RATIOS = ("concentration",)


def figures(found: Found) -> tuple[FigureGroup, ...]:
    """The figure, or none where no run has any of its numbers."""
    values = {name: frame for name in QUANTITIES if len(frame := _values(found, name))}
    methods = list(dict.fromkeys(m for frame in values.values() for m in methods_of(frame)))
    methods.sort(key=preference)
    if not values or not methods:
        return ()
    kinds = [""] if any((frame["module"] == "").any() for frame in values.values()) else []
    kinds += [kind for kind in MODULES if any((frame["module"] == kind).any() for frame in values.values())]
    traces: list[dict[str, Any]] = []
    for name, frame in values.items():
        for group in found.groups:
            for method in methods:
                # What a kind carries is the same by every method.
                own = where(frame, group=group)
                own = own[own["method"].isin([method, ""])]
                when = {"quantity": [name], "method": [method], "group": [group]}
                traces += _points(found, own, kinds, when) + _means(found, name, own, kinds, group, method, when)
    ticks = [words(kind) if kind else "all together" for kind in kinds]
    layout = {
        "height": 130 + 44 * len(kinds),
        "showlegend": False,
        "margin": {"l": 110, "r": 16, "t": 10, "b": 52},
        "yaxis": {
            "tickvals": list(range(len(kinds))), "ticktext": ticks, "range": [len(kinds) - 0.45, -0.55],
            "zeroline": False,
        },
    }  # fmt: skip
    patches = {"quantity": {name: _axis(name, frame) for name, frame in values.items()}}
    selects = (
        Select("quantity", "Number", tuple((name, QUANTITIES[name][0]) for name in values)),
        Select("method", "Method", tuple((method, words(method)) for method in methods)),
        Select("group", "Group", tuple((group, group) for group in found.groups)),
    )
    legend = (
        Key("mean over runs, 95 % t interval", "c0", "solid"), Key("a run (hollow: exploratory)", "muted", "dot"),
        Key("nothing there", "text", "dotted"),
    )  # fmt: skip
    share = _share(found)
    caption = (
        "Every run, and their mean. Keep, mean ablation, balanced accuracy; all neurons ranked together, and within "
        "one kind with every other kind intact. An interval that leaves the picture is wider than it. "
        + (f"Enrichment is that among the best {percent(share)} of all neurons." if share else "")
    ).strip()
    panel = Panel("plot-over-runs", "Every run and the mean over runs", tuple(traces), layout, patches)
    return (FigureGroup("over-runs", caption, (panel,), selects, legend),)


def _values(found: Found, name: str) -> pd.DataFrame:
    """``run, group, role, method, module, value`` of one number."""
    columns = ["run", "group", "role", "method", "module"]
    if name == "difference":
        frame = where(found.tables["outcomes"], against=CHANCE, **PRIMARY_CELL)
        frame = frame[frame["scope"].isin(["pooled", "module"])]
    elif name == "enrichment":
        frame = where(found.tables["density"], fraction=_share(found))
    else:
        frame = where(found.tables["kinds"], model="run", **PRIMARY_CELL)
    if name == "carried":
        frame = frame.drop_duplicates(["run", "module"]).assign(method="")
    frame = frame.assign(value=pd.to_numeric(frame[name]))[[*columns, "value"]]
    return frame[frame["value"].notna()]


def _share(found: Found) -> float:
    """The share whose enrichment is drawn: the one nearest to what a report calls knowledge neurons."""
    wanted = float(found.members[0].settings["report.knowledge_fraction"])
    return min(
        (float(f) for f in found.tables["density"]["fraction"].unique()), key=lambda f: abs(f - wanted), default=0.0
    )


def _points(found: Found, own: pd.DataFrame, kinds: list[str], when: dict[str, list[str]]) -> list[dict[str, Any]]:
    """One marker a run and kind, below its mean."""
    traces = []
    for confirming, symbol in ((True, "circle"), (False, "circle-open")):
        part = own[(own["role"] == CONFIRMATION) == confirming]
        if len(part):
            traces.append(
                {
                    "type": "scatter", "mode": "markers", "x": part["value"].tolist(),
                    "y": [kinds.index(kind) + 0.2 for kind in part["module"]],
                    "text": [plot_text(run, 40) for run in part["run"]], "when": when,
                    "marker": {"color": "@muted", "symbol": symbol, "size": 8, "opacity": 0.8},
                    "hovertemplate": "%{x:.3f}<extra>%{text}</extra>",
                }
            )  # fmt: skip
    return traces


def _means(
    found: Found, name: str, own: pd.DataFrame, kinds: list[str], group: str, method: str,
    when: dict[str, list[str]],
) -> list[dict[str, Any]]:  # fmt: skip
    """The mean over runs of every kind, with its interval."""
    combined = where(found.tables["combined"], quantity=name, group=group)
    combined = combined[combined["method"].isin([method, ""])]
    if name == "difference":
        combined = where(combined, against=CHANCE, **PRIMARY_CELL)
    elif name == "enrichment":
        combined = where(combined, fraction=_share(found))
    else:
        combined = where(combined, model="run", metric="balanced_accuracy", ablation="mean")
    x, y, up, down = [], [], [], []
    for place, kind in enumerate(kinds):
        rows = where(combined, module=kind)
        row = only(rows[rows["scope"].isin(["module" if kind else "pooled", ""])])
        if row is not None and row["n"]:
            x.append(row["mean"])
            y.append(place - 0.08)
            known = is_number(row["low"])
            up.append(row["high"] - row["mean"] if known else 0.0)
            down.append(row["mean"] - row["low"] if known else 0.0)
    if not x:
        return []
    return [
        {
            "type": "scatter", "mode": "markers", "x": x, "y": y, "when": when,
            "marker": {"color": "@c0", "symbol": "diamond", "size": 12},
            "error_x": {"type": "data", "symmetric": False, "array": up, "arrayminus": down, "color": "@c0",
                        "thickness": 2},
            "hovertemplate": "%{x:.3f}<extra>mean over runs</extra>",
        }
    ]  # fmt: skip


def _axis(name: str, frame: pd.DataFrame) -> dict[str, Any]:
    """The part of the layout that follows the number that is drawn: as wide as the runs and half of that beside."""
    _, axis, nothing = QUANTITIES[name]
    seen = [*frame["value"], nothing]
    ratio = name in RATIOS
    low, high = (math.log10(f(x for x in seen if x > 0)) if ratio else float(f(seen)) for f in (min, max))
    margin = max(0.5 * (high - low), 0.02)
    line = {"type": "line", "x0": nothing, "x1": nothing, "y0": 0, "y1": 1, "yref": "paper",
            "line": {"color": "@text", "dash": "dot", "width": 1.5}}  # fmt: skip
    return {
        "xaxis": {
            "type": "log" if ratio else "linear", "range": [low - margin, high + margin], "title": {"text": axis},
            "zeroline": False,
        },
        "shapes": [line],
    }  # fmt: skip
