"""Salient neurons: what the best, the worst and random ones decide in a probe, control tasks, where they are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd

from plmscope.probing.curves import minimal_sets
from plmscope.report.blocks import (
    Block,
    FigureGroup,
    Panel,
    Select,
    Table,
    TableRow,
    Text,
    address,
    cell,
    count,
    fixed,
    listed,
    percent,
    words,
)
from plmscope.report.input import Results, section

#: How a choice of neurons is drawn, and what it is called.
CHOICES = {
    "top": ("best", "solid"), "bottom": ("worst", "dot"), "distinct": ("best of each group of alike ones", "dash"),
}  # fmt: skip
MASS = 0.5


@section(
    "salient",
    "Salient neurons",
    left_out=True,
    probe_curves="what neurons decide outside the model was not asked ('plmscope probe').",
)
def salient_section(results: Results) -> Sequence[Block]:
    """Curves, minimal sets and places."""
    curves = results.tables["probe_curves"]
    tasks = [str(name) for name in curves["task"].unique()]
    intro = Text(
        "A linear probe beside the model is trained to read the class of a protein, or whether a concept marks a "
        "residue, from few neurons' activations, and is judged on held-out clusters. It says what neurons encode, "
        "not what the model uses: for that, the same rankings are kept and ablated in the model where score.methods "
        "names them. A probe that learns its control task too, whose labels say nothing, is strong by itself: look at "
        "the selectivity, the difference of the two."
    )
    blocks: list[Block] = [intro, _figure(curves, tasks), _table(curves, tasks)]
    layers = results.get("probe_layers")
    if layers is None:
        blocks.append(results.missing("probe_layers", "where the weight of the probes lies is not known."))
    else:
        blocks.append(_places(results, layers))
    return blocks


def _figure(curves: pd.DataFrame, tasks: Sequence[str]) -> FigureGroup:
    """Balanced accuracy against the number of neurons, one choice a task."""
    traces: list[dict[str, Any]] = []
    methods = [str(name) for name in curves["method"].unique() if name]
    for task in tasks:
        own = curves[curves["task"] == task]
        whole, when = own[own["chosen"] == "all"].iloc[0], {"salient-task": [address("task", task)]}

        def line(rows: pd.DataFrame, column: str, name: str, colour: str, dash: str, when: Any = when) -> None:
            known = rows[rows[column].notna()]
            traces.append(
                {
                    "type": "scatter", "mode": "lines+markers", "x": known["n_neurons"].tolist(),
                    "y": known[column].tolist(), "name": name, "when": when, "marker": {"color": colour, "size": 6},
                    "line": {"color": colour, "dash": dash, "width": 2},
                }
            )  # fmt: skip

        for place, method in enumerate(methods):
            for chosen in ("top", "bottom"):
                rows = own[(own["method"] == method) & (own["chosen"] == chosen)]
                said, dash = CHOICES[chosen]
                line(rows, "balanced_accuracy", f"{words(method)}: {said}", f"@c{place}", dash)
        line(own[own["chosen"] == "random"], "balanced_accuracy", "random neurons", "@text", "dash")
        top = own[(own["chosen"] == "top") & (own["method"] == methods[0])]
        ends = pd.concat([top, whole.to_frame().T])
        line(ends, "control_accuracy", f"control task, {words(methods[0])}", "@text/0.5", "dashdot")
        line(whole.to_frame().T, "balanced_accuracy", "all neurons", "@text", "solid")
    layout = {
        "height": 380, "xaxis": {"title": {"text": "neurons that the probe sees"}, "type": "log"},
        "yaxis": {"title": {"text": "balanced accuracy, held out"}},
    }  # fmt: skip
    select = Select("salient-task", "Task", tuple((address("task", task), task) for task in tasks))
    caption = "What probes decide from the best, the worst and random neurons, trained again on each set."
    return FigureGroup("salient-figure", caption, (Panel("plot-salient", "Probes", tuple(traces), layout),), (select,))


def _table(curves: pd.DataFrame, tasks: Sequence[str]) -> Table:
    """One row a task and method: the whole probe, its control task, and the smallest set that does as well."""
    least = minimal_sets(curves)
    rows = []
    for task in tasks:
        own = curves[curves["task"] == task]
        whole = own[own["chosen"] == "all"].iloc[0]
        for method, n in least[least["task"] == task][["method", "n_neurons"]].to_numpy(dtype=object).tolist():
            ten = {
                chosen: own[(own["chosen"] == chosen) & (own["n_neurons"] == 10) & own["method"].isin(["", method])]
                for chosen in ("top", "distinct", "bottom", "random")
            }
            values = [float(part["balanced_accuracy"].iloc[0]) if len(part) else float("nan") for part in ten.values()]
            cells = [
                cell(task, small=str(whole["level"])), cell(words(method)),
                *(cell(fixed(whole[key], 2), whole[key])
                  for key in ("balanced_accuracy", "control_accuracy", "selectivity", "nmi")),
                cell(count(n), n), *(cell(fixed(value, 2), value) for value in values),
            ]  # fmt: skip
            rows.append(TableRow(tuple(cells)))
    columns = (
        ("task", False), ("ranked by", False), ("all neurons", True), ("control", True), ("selectivity", True),
        ("NMI", True), ("minimal set", True), ("best 10", True), ("10 distinct", True), ("worst 10", True),
        ("random 10", True),
    )  # fmt: skip
    caption = (
        "Balanced accuracy of probes on held-out clusters. Minimal set: the fewest best neurons that lose 0.01; "
        "distinct: one of each group of neurons that are alike (correlation)"
    )
    return Table("salient-tasks", caption, columns, tuple(rows))


def _places(results: Results, layers: pd.DataFrame) -> Table:
    """How many neurons hold half of the weight, by module kind and layer."""
    half = layers[layers["mass"] == MASS]
    kinds = half.groupby(["task", "module"], sort=False)["n"].sum().unstack("module", fill_value=0)
    by_layer = half.groupby(["task", "layer"], sort=False)["n"].sum().unstack("layer", fill_value=0)
    neurons = results.get("neurons")
    everyone = 0 if neurons is None else len(neurons)
    rows = []
    for task in kinds.index:
        total = int(kinds.loc[task].sum())
        share = f"{percent(total / everyone)} of all" if everyone else ""
        where = by_layer.loc[task]
        most = listed([f"{layer} ({percent(n / max(total, 1))})" for layer, n in where.nlargest(2).items()])
        cells = [cell(str(task)), cell(count(total), total, small=share)]
        cells += [cell(percent(n / max(total, 1)), n) for n in kinds.loc[task]]
        rows.append(TableRow((*cells, cell(most))))
    columns = (("task", False), ("neurons", True), *((words(name), True) for name in kinds.columns),
               ("most in layers", False))  # fmt: skip
    caption = "Where the neurons are that hold half of the probe's absolute weights, class by class, taken together"
    return Table("salient-places", caption, columns, tuple(rows))
