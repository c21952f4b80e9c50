"""Salient neurons: what the best, the worst and random ones decide in a probe, control tasks, where they are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd

from plmscope.probing.curves import READS, minimal_sets
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
    percent,
    words,
)
from plmscope.report.input import Results, section

#: Which neurons a figure shows, the default first.
CHOICES = {"top": "best", "bottom": "worst"}
MASS = 0.5
#: Number of neurons that the tables compare the choices at.
FEW = 10


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
        "names them. Beside every probe stands its null, the same probe on a control task whose labels say nothing: "
        "the selectivity is what it reads beyond that."
    )
    blocks: list[Block] = [intro, _figure(curves, tasks), _tasks(curves, tasks), _sets(curves, tasks)]
    layers = results.get("probe_layers")
    if layers is None:
        blocks.append(results.missing("probe_layers", "where the weight of the probes lies is not known."))
    else:
        blocks.append(_places(results, layers))
    return blocks


def _figure(curves: pd.DataFrame, tasks: Sequence[str]) -> FigureGroup:
    """Balanced accuracy against the number of neurons, one choice a task, the best or the worst neurons."""
    traces: list[dict[str, Any]] = []
    methods = [str(name) for name in curves["method"].unique() if name]
    for task in tasks:
        own = curves[curves["task"] == task]
        whole, which = own[own["chosen"] == "all"].iloc[0], [address("task", task)]

        def line(
            rows: pd.DataFrame, column: str, name: str, colour: str, dash: str, chosen: Sequence[str] = tuple(CHOICES),
            which: Sequence[str] = which,
        ) -> None:  # fmt: skip
            known = rows[rows[column].notna()]
            traces.append(
                {
                    "type": "scatter", "mode": "lines+markers", "x": known["n_neurons"].tolist(),
                    "y": known[column].tolist(), "name": name, "marker": {"color": colour, "size": 6},
                    "when": {"salient-task": list(which), "salient-chosen": list(chosen)},
                    "line": {"color": colour, "dash": dash, "width": 2},
                }
            )  # fmt: skip

        for chosen, said in CHOICES.items():
            for place, method in enumerate(methods):
                rows = own[(own["method"] == method) & (own["chosen"] == chosen)]
                line(rows, "balanced_accuracy", f"{said} by {words(method)}", f"@c{place}", "solid", (chosen,))
        line(own[own["chosen"] == "random"], "balanced_accuracy", "random neurons", "@text", "dash")
        top = own[(own["chosen"] == "top") & (own["method"] == methods[0])]
        ends = pd.concat([top, whole.to_frame().T])
        control = f"control task, best by {words(methods[0])}"
        line(ends, "control_accuracy", control, "@text/0.5", "dashdot", ("top",))
        line(whole.to_frame().T, "balanced_accuracy", "all neurons", "@text", "solid")
    layout = {
        "height": 380, "xaxis": {"title": {"text": "neurons that the probe sees"}, "type": "log"},
        "yaxis": {"title": {"text": "balanced accuracy, held out"}},
    }  # fmt: skip
    selects = (
        Select("salient-task", "Task", tuple((address("task", task), task) for task in tasks)),
        Select("salient-chosen", "Neurons", tuple((chosen, f"the {said}") for chosen, said in CHOICES.items())),
    )
    caption = "What probes decide from the best, the worst and random neurons, trained again on each set."
    return FigureGroup("salient-figure", caption, (Panel("plot-salient", "Probes", tuple(traces), layout),), selects)


def _tasks(curves: pd.DataFrame, tasks: Sequence[str]) -> Table:
    """One row a task: what a probe on all neurons reads, beside its control task and a probe on few random neurons."""
    rows = []
    for task in tasks:
        own = curves[curves["task"] == task]
        whole = own[own["chosen"] == "all"].iloc[0]
        random = _accuracy(own[(own["chosen"] == "random") & (own["n_neurons"] == FEW)])
        values = [*(whole[key] for key in ("balanced_accuracy", "control_accuracy", "selectivity", "nmi")), random]
        said = "class of a protein" if whole["level"] == "protein" else "is a residue marked?"
        rows.append(TableRow((cell(task, small=said), *(cell(fixed(value, 2), value) for value in values))))
    columns = (
        ("task", False), ("all neurons", True), ("control task", True), ("selectivity", True), ("NMI", True),
        (f"{FEW} random neurons", True),
    )  # fmt: skip
    caption = (
        "Balanced accuracy of a probe on all neurons, on held-out clusters. NMI: share of the class's entropy that it "
        "tells"
    )
    return Table("salient-tasks", caption, columns, tuple(rows))


def _sets(curves: pd.DataFrame, tasks: Sequence[str]) -> Table:
    """One row a task and method: few of its neurons, and the smallest set that does as well as all."""
    least = minimal_sets(curves).set_index(["task", "method"])["n_neurons"].to_dict()
    rows = []
    for task in tasks:
        every = curves[curves["task"] == task]
        own = every[every["n_neurons"] == FEW]
        for method in (str(name) for name in every["method"].unique() if name):
            n, of = least.get((task, method)), own[own["method"] == method]
            best = of[of["chosen"] == "top"]
            values = [
                _accuracy(best), _accuracy(best, "control_accuracy"),
                *(_accuracy(of[of["chosen"] == chosen]) for chosen in ("distinct", "bottom")),
            ]  # fmt: skip
            cells = (cell(task), cell(words(method)), cell("–" if n is None else count(n), n))
            rows.append(TableRow((*cells, *(cell(fixed(value, 2), value) for value in values))))
    columns = (
        ("task", False), ("ranked by", False), ("minimal set", True), (f"best {FEW}", True), ("control task", True),
        (f"{FEW} distinct", True), (f"worst {FEW}", True),
    )  # fmt: skip
    caption = (
        "Balanced accuracy of probes on few neurons, on held-out clusters, and of the best ones on the control task. "
        "Minimal set: the fewest best neurons that lose at most 0.01 to all of them, – where all of them read next to "
        f"nothing (selectivity below {READS}); distinct: the best one of each group of neurons that are alike "
        "(correlation)"
    )
    return Table("salient-sets", caption, columns, tuple(rows))


def _accuracy(rows: pd.DataFrame, column: str = "balanced_accuracy") -> float:
    """Of the only row, NaN without one."""
    return float(rows[column].iloc[0]) if len(rows) else float("nan")


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
        most = f"{where.idxmax()} ({percent(where.max() / max(total, 1))})"
        cells = [cell(str(task)), cell(count(total), total, small=share)]
        cells += [cell(percent(n / max(total, 1)), n) for n in kinds.loc[task]]
        rows.append(TableRow((*cells, cell(most))))
    columns = (("task", False), ("neurons", True), *((words(name), True) for name in kinds.columns),
               ("most in layer", False))  # fmt: skip
    caption = "Where the neurons are that hold half of the probe's absolute weights, class by class, taken together"
    return Table("salient-places", caption, columns, tuple(rows))
