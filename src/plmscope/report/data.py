"""Sections on the proteins, their split, and the quality of the model that was trained on them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pandas as pd

from plmscope.data.labels import class_names, classes_of, membership
from plmscope.models.checkpoints import EMBEDDED, SEEN
from plmscope.report.answers import CLASSIFIERS
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
    plot_text,
    words,
)
from plmscope.report.input import DASHES, MARKERS, Results, section

SPLITS = ("train", "validation", "test")
#: How to read the metrics of a multi-label task.
MULTI_LABEL = (
    "A multi-label task: a protein may have several classes, and the model answers yes (probability above one half) or "
    "no for each. Balanced accuracy, F1, MCC and log-loss are means over the classes; a class's balanced accuracy is "
    "(sensitivity + specificity) / 2, so that chance is 0.5. Exact sets is the share of proteins whose classes are all "
    "right. The majority baseline answers with each class's frequency."
)


@section("data", "Data and split")
def data_section(results: Results) -> Sequence[Block]:
    """Counts per class and split, exclusions by reason, nearest training identity."""
    blocks: list[Block] = [Text(_data_sentence(results))]
    proteins, excluded, leakage = (results.get(name) for name in ("proteins", "excluded", "leakage"))
    if proteins is None:
        blocks.append(results.missing("proteins", "the counts per class cannot be shown."))
    else:
        blocks.append(_count_table(results, proteins))
    if excluded is not None:
        counts = excluded["reason"].astype(str).value_counts().sort_index().sort_values(ascending=False, kind="stable")
        rows = tuple(TableRow((cell(str(reason)), cell(count(n), n))) for reason, n in counts.items())
        blocks.append(Table("excluded", "Proteins left out, by reason", (("reason", False), ("proteins", True)), rows))
    elif "excluded" in results.tables:
        blocks.append(Text("No protein was left out."))
    else:
        blocks.append(results.missing("excluded", "what was left out, and why, is not known."))
    if leakage is None:
        blocks.append(results.missing("leakage", "how close test proteins are to training proteins is not known."))
    else:
        blocks += _leakage_blocks(results, leakage)
    return blocks


def _data_sentence(results: Results) -> str:
    n_read, n_excluded = results.look("data", "n_read"), results.look("data", "n_excluded")
    method, families = results.look("split", "method"), results.look("split", "cluster_column")
    sentence = f"{count(n_read)} proteins were read from {results.look('data', 'source') or 'an unnamed source'} and "
    sentence += f"{count(n_excluded)} left out. {split_sentence(results)}"
    if method == "cluster" and not families:
        sentence += " That keeps most close relatives of test proteins out of training."
    elif method and method != "cluster":
        sentence += " Relatives of a test protein may be in training."
    proteins = results.get("proteins")
    if families and proteins is not None:
        several = int((proteins.groupby("cluster")["split"].nunique() > 1).sum())
        sentence += f" {count(several)} clusters have proteins in more than one split." if several else ""
    return sentence


def split_sentence(results: Results) -> str:
    """How the proteins came into their sets, and where their clusters come from."""
    method, families = results.look("split", "method"), results.look("split", "cluster_column")
    if method == "cluster" and families:
        return f"Every cluster that the column {families!r} of the data names went whole into one set."
    if method == "cluster":
        identity, coverage = (percent(results.look("split", key)) for key in ("identity", "coverage"))
        return f"Every cluster by MMseqs2 (identity {identity}, coverage {coverage}) went whole into one set."
    if method == "random":
        return "Proteins were put into sets at random, each on its own, whatever its relatives."
    if method == "column":
        clusters = f"the column {families!r} their clusters" if families else "every protein is a cluster of its own"
        column = results.setting("split", "column") or "split"
        return f"The column {column!r} of the data names the sets of the proteins, and {clusters}."
    return "How they were split is not recorded."


def _count_table(results: Results, proteins: pd.DataFrame) -> Table:
    # One row per protein and class that it has; a protein with several counts in each of them.
    classes = proteins["label"].map(lambda label: list(classes_of(str(label), results.task)))
    own = proteins.assign(label=classes).explode("label")
    counts = pd.crosstab(own["label"], own["split"].astype(str))
    splits = [split for split in SPLITS if split in counts] + [c for c in counts.columns if c not in SPLITS]
    clusters = own.groupby("label")["cluster"].nunique()
    rows = [
        TableRow(
            (
                cell(results.class_name(label)),
                *(cell(count(counts.loc[label, split]), counts.loc[label, split]) for split in splits),
                cell(count(counts.loc[label].sum()), counts.loc[label].sum()),
                cell(count(clusters[label]), clusters[label]),
            )
        )
        for label in counts.index
    ]
    total = [int((proteins["split"].astype(str) == split).sum()) for split in splits]
    everything = [*total, len(proteins), proteins["cluster"].nunique()]
    if results.task == "multi":
        several = proteins[classes.map(len) > 1]
        shared = [int((several["split"].astype(str) == split).sum()) for split in splits]
        shared += [len(several), several["cluster"].nunique()]
        rows.append(TableRow((cell("proteins with several classes"), *(cell(count(n), n) for n in shared))))
    rows.append(TableRow((cell("all classes"), *(cell(count(n), n) for n in everything)), strong=True))
    columns = (("class", False), *((split, True) for split in splits), ("all", True), ("clusters", True))
    return Table("classes", "Proteins per class and split", columns, tuple(rows))


def _leakage_blocks(results: Results, leakage: pd.DataFrame) -> list[Block]:
    clustered = results.look("split", "method") == "cluster" and not results.look("split", "cluster_column")
    threshold = results.look("split", "identity") if clustered else None
    searched = leakage[leakage["identity"].notna() & (leakage["nearest_train"].fillna("").astype(str) != "")]
    sentences, traces = [], []
    edges = np.linspace(0, 1, 41)
    for place, split in enumerate(sorted(leakage["split"].astype(str).unique())):
        own = searched.loc[searched["split"] == split, "identity"].to_numpy(dtype=float)
        n_all = int((leakage["split"] == split).sum())
        n_unknown = int(leakage.loc[leakage["split"] == split, "identity"].isna().sum())
        sentence = f"Of {count(n_all)} {split} proteins, {count(n_all - n_unknown - len(own))} align with no training "
        sentence += f"protein, {count(n_unknown)} could not be searched reliably" if n_unknown else "protein"
        if len(own):
            sentence += f"; the others' nearest training relative has a median identity of {percent(np.median(own))}"
            sentence += f" and a largest of {percent(own.max())}"
            if is_number(threshold):
                sentence += f", {count((own > threshold).sum())} of them above the split's {percent(threshold)}"
        sentences.append(sentence + ".")
        counts, _ = np.histogram(own, edges)
        traces.append(
            {
                "type": "bar",
                "name": plot_text(split),
                "x": (edges[:-1] + edges[1:]) / 2,
                "y": counts,
                "width": 0.025,
                "marker": {"color": f"@c{place}", "pattern": {"shape": ("", "/")[place % 2]}},
                "hovertemplate": "identity %{x:.3f} ± 0.0125: %{y} proteins<extra>%{fullData.name}</extra>",
            }
        )
    line = {"type": "line", "x0": threshold, "x1": threshold, "y0": 0, "y1": 1, "yref": "paper",
            "line": {"color": "@text", "dash": "dot", "width": 1.5}}  # fmt: skip
    layout = {
        "height": 280,
        "barmode": "stack",
        "xaxis": {"title": {"text": "identity to the nearest training protein"}, "range": [0, 1], "tickformat": ".0%"},
        "yaxis": {"title": {"text": "proteins"}},
        "shapes": [line] if is_number(threshold) else [],
    }
    caption = "Leakage: identity of each held-out protein to its nearest training protein (best local alignment found)."
    caption += " The dotted line is the identity of the clustering." if is_number(threshold) else ""
    panel = Panel("plot-leakage", "Identity to the nearest training protein", tuple(traces), layout)
    if results.setting("model", "checkpoint") == EMBEDDED and not results.setting("split", "held_out"):
        sentences.append(f"{SEEN}.")
    return [Text(" ".join(sentences)), FigureGroup("leakage-figure", caption, (panel,))]


@section("quality", "Model quality")
def quality_section(results: Results) -> Sequence[Block]:
    """Metrics beside the baselines, per class, confusion and training curve."""
    blocks: list[Block] = []
    if not results.metrics:
        blocks.append(Text("metrics.json is not in this run folder: the model's quality is not known.", "note"))
    else:
        if results.task == "multi":
            blocks.append(Text(MULTI_LABEL))
        blocks += [_metric_table(results), _class_table(results)]
    blocks.append(_confusion(results))
    training = results.get("training")
    if training is None:
        blocks.append(results.missing("training", "the training curve cannot be shown."))
    elif training["model"].value_counts().max() == 1:  # a point is no curve
        blocks.append(Text(_one_epoch(training)))
    else:
        blocks.append(_training(training))
    return blocks


def _one_epoch(training: pd.DataFrame) -> str:
    """What fine-tuning came to, of models that were trained for one epoch."""
    said = [
        f"{'' if len(training) == 1 else words(row['model']) + ': '}training loss {fixed(row['train_loss'])}, "
        f"validation loss {fixed(row['validation_loss'])}, validation balanced accuracy "
        f"{fixed(row['validation_balanced_accuracy'])}"
        for row in training.to_dict("records")
    ]
    return f"Fine-tuning took one epoch: {'; '.join(said)}."


def _metric_table(results: Results) -> Table:
    names = {"accuracy": "accuracy", "balanced_accuracy": "balanced accuracy", "macro_f1": "macro F1", "mcc": "MCC",
             "log_loss": "log-loss"}  # fmt: skip
    if results.task == "multi":
        names |= {"accuracy": "exact sets", "micro_f1": "micro F1", "mean_average_precision": "mean average precision"}
    rows = []
    for split in ("test", *(name for name in results.metrics if name != "test")):
        for key, title in CLASSIFIERS.items():
            values = results.metrics.get(split, {}).get(key)
            if values:
                cells = (cell(fixed(values.get(name)), values.get(name)) for name in names)
                head = (cell(title), cell(split), cell(count(values.get("n")), values.get("n")))
                rows.append(TableRow((*head, *cells), strong=key == "model" and split == "test"))
    columns = (("classifier", False), ("split", False), ("n", True), *((title, True) for title in names.values()))
    return Table(
        "metrics",
        "Quality of the model and of its baselines (composition: amino-acid frequencies and length)",
        columns,
        tuple(rows),
    )


def _class_table(results: Results) -> Table:
    rows = []
    for split, classifiers in sorted(results.metrics.items()):
        for label, values in sorted(classifiers.get("model", {}).get("per_class", {}).items()):
            cells = [cell(fixed(values.get(name)), values.get(name)) for name in ("precision", "recall", "f1")]
            head = (cell(results.class_name(label)), cell(split), cell(count(values.get("n")), values.get("n")))
            rows.append(TableRow((*head, *cells)))
    columns = (("class", False), ("split", False), ("n", True), ("precision", True), ("recall", True), ("F1", True))
    return Table("per-class", "Quality of the model per class", columns, tuple(rows))


def _confusion(results: Results) -> Block:
    """Confusion of the intact model, if the predictions name it and reproduce its accuracy."""
    predictions, curves, proteins = (results.get(name) for name in ("predictions", "curves", "proteins"))
    if predictions is None:
        return results.missing("predictions", "the confusion matrix cannot be shown.")
    if curves is None or proteins is None:
        return results.missing("curves" if curves is None else "proteins", "the confusion matrix cannot be shown.")
    intact = np.flatnonzero(curves["ablation"] == "none")
    own = predictions[predictions["curve_point"].isin(intact[:1])]
    truth = proteins.drop_duplicates("id").set_index("id")["label"].reindex(own["id"]).astype(str).to_numpy()
    if results.task == "multi":
        predicted = own["predicted"].astype(str).to_numpy()
    else:
        numbers = own["predicted"].to_numpy(dtype=int)
        predicted = np.array([results.labels[i] if 0 <= i < len(results.labels) else "" for i in numbers], dtype=str)
    if not len(own) or abs(float(np.mean(truth == predicted)) - float(curves["accuracy"].iloc[intact[0]])) > 1e-3:
        return Text("The stored predictions do not give the accuracy of the intact model: no confusion matrix.", "note")
    labels = class_names([*truth, *predicted], results.task)
    is_true, is_said = (membership(list(texts), labels, results.task).astype(int) for texts in (truth, predicted))
    counts = is_true.T @ is_said  # (C, C): proteins that have one class and are said to have the other
    share = counts / np.maximum(is_true.sum(axis=0)[:, None], 1)
    ticks = {"tickvals": list(range(len(labels))), "ticktext": [plot_text(results.class_name(x)) for x in labels]}
    trace = {
        "type": "heatmap", "z": share, "text": counts, "texttemplate": "%{text}", "zmin": 0, "zmax": 1,
        "colorscale": [[0, "@surface"], [1, "@high"]], "xgap": 1, "ygap": 1,
        "showscale": False,
        "hovertemplate": "true class %{y}<br>predicted %{x}<br>%{text} proteins, %{z:.1%} of the class<extra></extra>",
    }  # fmt: skip
    layout = {
        "height": 100 + 36 * len(labels),
        "xaxis": {
            "title": {"text": "predicted"},
            **ticks,
            "ticktext": [plot_text(x, 12) for x in labels],
            "showgrid": False,
        },
        "yaxis": {"title": {"text": "true"}, **ticks, "autorange": "reversed", "showgrid": False},
    }
    caption = (
        f"Confusion of the intact model on the {count(len(own))} test proteins that were evaluated: counts, shaded by "
        "share of the true class."
    )
    tested = results.metrics.get("test", {}).get("model", {}).get("n")
    if is_number(tested) and tested > len(own):
        caption += f" The tables above are of all {count(tested)}."
    if results.task == "multi":
        none = int((is_said.sum(axis=1) == 0).sum())
        caption += f" A protein counts once for every pair of its classes and its answers; {count(none)} got no answer."
    return FigureGroup("confusion-figure", caption, (Panel("plot-confusion", "Confusion matrix", (trace,), layout),))


def _training(training: pd.DataFrame) -> FigureGroup:
    models = [str(model) for model in training["model"].unique()]
    loss, quality = [], []
    for model in models:
        rows, when = training[training["model"] == model], {"model": [model]}
        for place, (column, name) in enumerate((("train_loss", "training"), ("validation_loss", "validation"))):
            loss.append(_line(rows["epoch"], rows[column], name, place, when))
        quality.append(_line(rows["epoch"], rows["validation_balanced_accuracy"], "validation", 1, when))
    axis = {"title": {"text": "epoch"}, "dtick": max(1, int(training["epoch"].max()) // 6)}
    panels = (
        Panel("plot-loss", "Loss", tuple(loss), {"height": 280, "xaxis": axis, "yaxis": {"title": {"text": "loss"}}}),
        Panel(
            "plot-epochs",
            "Balanced accuracy",
            tuple(quality),
            {
                "height": 280,
                "xaxis": axis,
                "yaxis": {"title": {"text": "balanced accuracy"}, "range": [0, 1]},
                "showlegend": False,
            },
        ),
    )
    options = tuple((model, words(model)) for model in models)
    return FigureGroup("training-figure", "Fine-tuning, epoch by epoch.", panels, (Select("model", "Model", options),))


def _line(x: Iterable[Any], y: Iterable[Any], name: str, place: int, when: dict[str, list[str]]) -> dict[str, Any]:
    return {
        "type": "scatter", "mode": "lines+markers", "x": list(x), "y": list(y), "name": name, "when": when,
        "line": {"color": f"@c{place}", "dash": DASHES[place], "width": 2},
        "marker": {"symbol": MARKERS[place], "size": 6},
    }  # fmt: skip
