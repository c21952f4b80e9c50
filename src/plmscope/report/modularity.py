"""Modularity, in the report: whether a class can be cut out, what experts hold, and what any network has of this."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

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
    listed,
    percent,
    short,
    words,
)
from plmscope.report.input import Results, section
from plmscope.report.layout import ROWS, span

#: Measure to its name, and what it is.
MEASURES = {
    "nmi": ("experts and classes", "shared information (NMI)"),
    "half": ("experts of a class", "fewest with half of its neurons"),
    "overlap": ("overlap of classes", "of two classes’ neurons (Jaccard)"),
    "damage_specificity": ("specific damage", "the greatest, less that of the others"),
}
LINES = (
    ("accuracy_label", "the class", "@c0", "solid"), ("accuracy_others", "other classes", "@c1", "solid"),
    ("accuracy_label_against", "the class, random", "@c0", "dot"),
    ("accuracy_others_against", "other classes, random", "@c1", "dot"),
)  # fmt: skip


@section("modularity", "Modules", left_out=True, separability="no class was cut out.")
def modularity_section(results: Results) -> Sequence[Block]:
    """Separability of every class, its pruning curves, experts, and the same measures in the null models."""
    frame = results.tables["separability"]
    good = frame[(frame["q_value"] < 0.05) & (frame["p_dealt"] < 0.05)]
    names = listed([results.class_name(label) for label in good["label"].unique()])
    statistics = list(frame["statistic"].unique())
    how = (
        "Which units are most active is asked by "
        f"{count(len(statistics))} statistics: {listed([words(one) for one in statistics])}; q is over all tests. "
        if len(statistics) > 1
        else ""
    )
    of = "classes" if len(statistics) < 2 else "pairs of class and statistic"
    blocks: list[Block] = [
        Text(
            f"Selective pruning sets those units of {_modules(results)} to zero that are most active in "
            f"a class beside all others. {how}Separability is the mean over steps of the share of their accuracy that "
            "the other classes keep, minus the share that the class keeps: 1 if it alone is lost, 0 if all lose alike. "
            f"{count(len(good))} of {count(len(frame))} {of} can be cut out better than by random units of the same "
            f"sites (q < 0.05) and by pruning for random proteins (p < 0.05){f': {names}' if len(good) else ''}."
        ),
        _separability(results, frame, len(statistics) > 1),
    ]
    curves, experts = results.get("pruning"), results.get("expert_classes")
    if curves is None:
        blocks.append(results.missing("pruning", "there are no curves."))
    else:
        blocks.append(_curves(results, curves))
    measures = results.get("modularity")
    if measures is None:
        blocks.append(results.missing("modularity", "nothing is known of the model as a whole."))
    else:
        blocks += [Text(_measure_words(measures)), _measures(results, measures)]
    if experts is None:
        blocks.append(results.missing("expert_classes", "it is not known which classes experts hold."))
    else:
        blocks.append(_experts(results, experts))
    if results.get("experts") is None:
        blocks.append(results.missing("experts", "it is not known which neurons an expert has."))
    return blocks


def _modules(results: Results) -> str:
    """The module kinds whose units were pruned."""
    kinds = results.setting("layout", "pruning_modules") or ("intermediate", "value")
    return f"the {listed([words(kind) for kind in kinds])} modules"


def _separability(results: Results, frame: pd.DataFrame, several: bool) -> Table:
    """One row a class, and a statistic where there are several."""
    rows = []
    for row in frame.to_dict("records"):
        both = row["q_value"] < 0.05 and row["p_dealt"] < 0.05
        cells = [
            cell(results.class_name(row["label"]), small=words(row["statistic"]) if several else ""),
            cell(count(row["n_proteins"]), row["n_proteins"]),
            cell(fixed(row["separability"], 2), row["separability"]), span(row, 2),
            cell(fixed(row["against"], 2), row["against"]), cell(short(row["p_value"]), row["p_value"]),
            cell(short(row["q_value"]), row["q_value"]), cell(fixed(row["dealt"], 2), row["dealt"]),
            cell(short(row["p_dealt"]), row["p_dealt"]),
        ]  # fmt: skip
        rows.append(TableRow(tuple(cells), strong=bool(both)))
    columns = (
        ("class", False), ("test proteins", True), ("separability", True), ("95 % interval", True),
        ("of random units", True), ("p", True), ("q", True), ("of dealt classes", True), ("p", True),
    )  # fmt: skip
    return Table("separability", "How far a class can be cut out of the model", columns, tuple(rows))


def _curves(results: Results, frame: pd.DataFrame) -> FigureGroup:
    """Accuracy of the class and of the others as more is pruned."""
    labels = [str(label) for label in frame["label"].unique()]
    statistics = [str(name) for name in frame["statistic"].unique()]
    traces = []
    for (statistic, label), own in frame.groupby(["statistic", "label"], sort=False):
        shown = {"pruned-class": [str(label)]} | ({"pruned-by": [str(statistic)]} if len(statistics) > 1 else {})
        for column, name, colour, dash in LINES:
            traces.append(
                {
                    "type": "scatter", "mode": "lines+markers", "name": name, "x": (100 * own["fraction"]).tolist(),
                    "y": own[column].tolist(), "line": {"color": colour, "dash": dash, "width": 2},
                    "marker": {"color": colour, "size": 7}, "when": shown,
                    "hovertemplate": f"{name}: %{{y:.2f}} with %{{x:.0f}} % pruned<extra></extra>",
                }
            )  # fmt: skip
    layout = {
        "height": 340,
        "xaxis": {"title": {"text": "units pruned (%)"}, "rangemode": "tozero"},
        "yaxis": {"title": {"text": "accuracy"}, "range": [-0.02, 1.02]},
    }
    selects = [Select("pruned-class", "Class", tuple((label, results.class_name(label)) for label in labels))]
    if len(statistics) > 1:
        selects.append(Select("pruned-by", "Most active by", tuple((name, words(name)) for name in statistics)))
    caption = "Accuracy of a class and of the others as units are pruned for the class, or at random in the same sites"
    panel = Panel("plot-pruning", "Pruning", tuple(traces), layout)
    return FigureGroup("pruning-figure", caption, (panel,), tuple(selects))


def _measure_words(frame: pd.DataFrame) -> str:
    """Whether the trained model's experts hold more of classes than those of networks that know nothing."""
    nmi = frame[frame["measure"] == "nmi"].set_index("model")
    if "run" not in nmi.index:
        return "There are no experts: the input weights of this architecture are not at hand."
    beyond = {model: float(row["value"] - row["against"]) for model, row in nmi.iterrows()}
    others = {str(model): value for model, value in beyond.items() if model != "run"}
    said = (
        f"Experts and classes share {fixed(nmi.loc['run', 'value'], 3)} of their information, with neurons dealt anew "
        f"{fixed(nmi.loc['run', 'against'], 3)} (p = {short(nmi.loc['run', 'p_value'])})."
    )
    if not others:
        return f"{said} The run has no null models, so that it is not known whether a random network has this too."
    parts = [f"{fixed(value, 3)} in the model of {words(model)}" for model, value in others.items()]
    verdict = (
        "more than in every null model, of which one fit each is no test"
        if beyond["run"] > max(others.values())
        else "no more than in a null model"
    )
    return f"{said} Beyond dealt neurons this is {fixed(beyond['run'], 3)}, and {listed(parts)}: {verdict}."


def _measures(results: Results, frame: pd.DataFrame) -> Table:
    """Every measure of every model."""
    rows = []
    several = frame["model"].nunique() > 1
    for row in frame.to_dict("records"):
        name, what = MEASURES.get(str(row["measure"]), (words(row["measure"]), ""))
        digits = 0 if row["measure"] == "half" else 3
        cells = [
            cell("this model" if row["model"] == "run" else words(row["model"])),
            cell(name, small=what),
            cell(results.class_name(row["label"]) if row["label"] else "–"),
            cell(fixed(row["value"], digits), row["value"]),
            cell(fixed(row["against"], max(digits, 1)), row["against"]), cell(short(row["p_value"]), row["p_value"]),
        ]  # fmt: skip
        rows.append(TableRow(tuple(cells), strong=several and row["model"] == "run"))
    columns = (
        ("model", False),
        ("measure", False),
        ("class", False),
        ("value", True),
        ("by chance", True),
        ("p", True),
    )
    return Table("modularity-measures", "Experts and classes, beside models that know nothing", columns, tuple(rows))


def _experts(results: Results, frame: pd.DataFrame) -> Table:
    """The experts that hold most of a class, or do most damage."""
    frame = frame.sort_values(["q_value", "n"], ascending=[True, False], kind="stable")
    shown = frame[frame["n"] > 0].head(ROWS)
    rows = []
    for row in shown.to_dict("records"):
        cells = [
            cell(f"layer {row['layer']}, expert {row['expert']}", small=f"{count(row['n_neurons'])} neurons"),
            cell(results.class_name(row["label"])), cell(count(row["n"]), row["n"]),
            cell(fixed(row["expected"], 1), row["expected"]), cell(short(row["p_value"]), row["p_value"]),
            cell(short(row["q_value"]), row["q_value"]), cell(percent(row["damage"]), row["damage"]),
            cell(percent(row["damage_against"]), row["damage_against"]),
            cell(short(row["p_damage"]), row["p_damage"]),
        ]  # fmt: skip
        rows.append(TableRow(tuple(cells), strong=bool(is_number(row["q_value"]) and row["q_value"] < 0.05)))
    columns = (
        ("expert", False), ("class", False), ("its neurons", True), ("expected", True), ("p", True), ("q", True),
        ("lost when held", True), ("by random neurons", True), ("p", True),
    )  # fmt: skip
    total = int((frame["n"] > 0).sum())
    more = f", the first {count(len(shown))} of {count(total)}" if total > len(shown) else ""
    return Table("experts", f"Experts and the classes whose neurons they hold{more}", columns, tuple(rows), search=True)
