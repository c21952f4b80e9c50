"""Sections on how the numbers came about: numerical error, a paragraph fit for a paper, the record of the run."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from plmscope.data.labels import class_names
from plmscope.report.answers import primary_rows
from plmscope.report.blocks import (
    Block,
    References,
    Table,
    TableRow,
    Text,
    cell,
    control_words,
    count,
    fixed,
    listed,
    percent,
    short,
    words,
)
from plmscope.report.data import split_sentence
from plmscope.report.input import Results, section
from plmscope.report.settled import unsettled_words
from plmscope.scoring.table import methods as known_methods
from plmscope.scoring.table import row_of

#: How a p value came about, in words; extrapolated in runs of before alone.
P_KINDS = {
    "permutation": "counted among the draws",
    "prediction_t": "extrapolated by a t test of the method as one more draw where draws are few",
    "too_few_draws": "no test where there are fewer than 20 draws",
}
#: What is ranked together, and kept or ablated.
SCOPE_WORDS = {
    "pooled": "of all neurons ranked together", "per_site": "of every site",
    "module": "of one kind of module at a time, with all other kinds intact,",
}  # fmt: skip
MODE_WORDS = {
    ("keep",): "kept (all others ablated)", ("ablate",): "ablated",
    ("ablate", "keep"): "kept (all others ablated) or ablated",
}  # fmt: skip
REFERENCES = (
    (
        "Nori D, Singireddy S, Ten Have M (2023). Identification of Knowledge Neurons in Protein Language Models. "
        "arXiv:2312.10770",
        "https://arxiv.org/abs/2312.10770",
    ),
    (
        "Dai D, Dong L, Hao Y, Sui Z, Chang B, Wei F (2022). Knowledge Neurons in Pretrained Transformers. "
        "Proceedings of ACL 2022. arXiv:2104.08696",
        "https://arxiv.org/abs/2104.08696",
    ),
)


def facts(results: Results) -> list[tuple[str, str]]:
    """The strip of numbers under the answer: (name, value)."""
    proteins, neurons, comparison = (results.get(name) for name in ("proteins", "neurons", "comparison"))
    rows: list[tuple[str, str]] = []
    if proteins is not None:
        rows.append(("proteins", count(len(proteins))))
        rows.append(("classes", count(len(class_names(proteins["label"].astype(str), results.task)))))
    if neurons is not None:
        rows.append(("neurons", count(len(neurons))))
    if results.look("model", "id"):
        rows.append(("model", str(results.look("model", "id"))))
    if comparison is not None:
        rows.append(("draws per control", draws_words(comparison)))
    return rows


@section(
    "completeness",
    "Completeness of the attributions",
    completeness="the numerical error of the path integrals is not known.",
)
def completeness_section(results: Results) -> Sequence[Block]:
    """How far path integrals miss the change that they should add up to."""
    gaps = results.tables["completeness"]
    frame = gaps.assign(
        size=gaps["gap"].abs(), relative=gaps["gap"].abs() / gaps["expected"].abs().replace(0.0, math.nan)
    )
    rows = []
    for (method, module), own in frame.groupby(["method", "module"], sort=True):
        worst = own.iloc[int(np.argmax(own["size"]))]
        values = (own["expected"].abs().median(), own["size"].median(), own["size"].quantile(0.95), worst["size"])
        cells = [cell(words(method)), cell(words(module)), cell(count(len(own)), len(own))]
        cells += [cell(short(value), value) for value in values]
        cells.append(cell(percent(own["relative"].median()), own["relative"].median()))
        cells.append(cell(f"{worst['id']}, layer {worst['layer']}"))
        rows.append(TableRow(tuple(cells)))
    columns = (
        ("method", False), ("module", False), ("n", True), ("median |expected|", True), ("median |gap|", True),
        ("95th percentile", True), ("largest", True), ("median relative", True), ("largest at", False),
    )  # fmt: skip
    intro = Text(
        "The attributions of a site must add up to the change in the target when the site goes from its baseline to "
        "its value. The gap between the sum and that change is the numerical error of the path integral; it is stored "
        f"for every protein and site. Over all {count(len(frame))} its median size is "
        f"{short(frame['size'].median())} against a median change of {short(frame['expected'].abs().median())}."
        + " ".join(filter(None, [_points_words(results, frame), unsettled_words(results)]))
    )
    table = Table("gaps", "Completeness gaps per method and module", columns, tuple(rows))
    return intro, table


def _points_words(results: Results, frame: pd.DataFrame) -> str:
    """How many points the paths took and for how many sites that was not enough; "" for runs without such columns."""
    if "points" not in frame:
        return ""
    words_of = []
    for method, own in frame.groupby("method", sort=True):
        points, loose = own["points"], ~own["settled"].astype(bool)
        known = row_of(str(method)).takes if method in known_methods() else {}
        fixed_points = results.setting("score", known.get("points", "points"))
        tolerance = results.setting("score", "tolerance")
        bound = f"the tolerance{f' of {tolerance}' if tolerance is not None else ''}"
        above = f"{count(int(loose.sum()))} of {count(len(own))} proteins and sites ({percent(loose.mean())})"
        if fixed_points:
            text = (
                f"The number of points of {words(method)} was fixed at {count(fixed_points)}, not found; the gap of "
                f"{above} is above {bound}."
            )
        else:
            low, mean, high = (f"{value:.3g}" for value in (points.min(), points.mean(), points.max()))
            text = (
                f"The paths of {words(method)} took {low} to {high} points, {mean} on average; {above} stayed above "
                f"{bound} with the most."
            )
        words_of.append(f" {text}{_worst_sites(own)}")
    return "".join(words_of)


def _worst_sites(own: pd.DataFrame, most: int = 3) -> str:
    """The sites whose mean gap is largest beside the mean change; "" where there is one site only."""
    means = own[["gap", "expected"]].abs().groupby([own["layer"], own["module"]], sort=True).mean()
    if len(means) < 2:
        return ""
    share = (means["gap"] / means["expected"].replace(0.0, math.nan)).dropna()
    worst = share.sort_values(ascending=False, kind="stable").head(most).rename("share").reset_index()
    named = [
        f"{words(module)} of layer {layer} ({percent(value)})"
        for layer, module, value in zip(worst["layer"], worst["module"], worst["share"], strict=True)
    ]
    return f" The mean gap is largest beside the mean change at {listed(named)}." if named else ""


@section("methods", "Methods and record")
def methods_section(results: Results) -> Sequence[Block]:
    """A paragraph fit for a paper, the record of the run, its settings, the literature."""
    blocks: list[Block] = [
        Text(methods_paragraph(results), "copy", "Methods paragraph", "methods-text"),
        _record_table(results),
        _stage_table(results),
        Text(results.study_text, "code", "Settings as resolved (study.toml)")
        if results.study_text
        else Text("study.toml is not in this run folder: its settings cannot be shown.", "note"),
        References(REFERENCES),
    ]
    return blocks


def methods_paragraph(results: Results) -> str:
    """What was done, from the manifest, the settings and the tables, in sentences for a paper."""
    look = results.look
    comparison, curves, neurons = (results.get(name) for name in ("comparison", "curves", "neurons"))
    versions = look("versions") or {}
    tools = listed([f"{name} {version}" for name, version in sorted(versions.items())])
    sentences = [
        f"{look('model', 'id') or 'The model'} (revision {look('model', 'revision') or 'not recorded'}, sha256 "
        f"{look('model', 'sha256') or 'not recorded'}; {count(look('model', 'parameters'))} parameters, "
        f"{count(look('model', 'layers'))} layers, hidden size {count(look('model', 'hidden'))}) "
        f"{'was taken as it was, to' if results.setting('finetune', 'epochs') == 0 else 'was fine-tuned to'} classify "
        f"proteins by {results.setting('data', 'label') or 'their label'}"
        f"{' (multi-label, one sigmoid per class)' if results.task == 'multi' else ''}.",
        f"Sequences came from {look('data', 'source') or 'an unnamed source'} (sha256 "
        f"{look('data', 'sha256') or 'not recorded'}); {count(look('data', 'n_read'))} were read and "
        f"{count(look('data', 'n_excluded'))} excluded.",
        split_sentence(results),
    ]
    if neurons is not None:
        total, target = count(len(neurons)), results.setting("score", "target")
        baseline, points = results.setting("score", "baseline"), results.setting("score", "points")
        true_class = "the true class" if results.task == "single" else "every class that a protein has"
        target = f"; attributions explain the {words(target)} of {true_class}" if target else ""
        target += f" along a path from the {baseline} baseline" if baseline else ""
        if points is not None:
            target += f" with {points or 'as many'} quadrature points"
            target += "" if points else f" as a tolerance of {results.setting('score', 'tolerance')} asks for"
        names = listed(list(dict.fromkeys(results.score_words(results.ranked_column(m)) for m in results.methods)))
        sentences.append(
            f"All {total} units of the query, key, value, attention-output, intermediate and output modules were "
            f"scored on {count(look('scoring_proteins'))} training proteins by {names}, after Nori et al. (2023, "
            f"arXiv:2312.10770) and Dai et al. (2022, arXiv:2104.08696){target}."
        )
    if curves is not None:
        evaluated = count(look("evaluated_proteins")) if look("evaluated_proteins") else "the"
        sentences.append(
            f"{_kept_words(curves)} The classifier was evaluated on {evaluated} test proteins, none of which took part "
            "in training or scoring."
        )
    if comparison is not None:
        controls = listed([control_words(str(c)) for c in comparison["against"].unique()])
        units = "clusters" if look("split", "method") == "cluster" or look("split", "cluster_column") else "proteins"
        kinds = "; ".join(text for kind, text in P_KINDS.items() if kind in set(comparison["p_kind"])) or "none"
        keys = len(primary_rows(comparison, "key")) > 0
        sentences.append(
            f"Each selection was compared with random draws ({draws_words(comparison)}) of each control ({controls}) "
            f"by the area under its curve (trapezoid rule); p values are one-sided ({kinds}), intervals are 95 % "
            f"bootstrap intervals over test {units} (stratified by class) and draws, and secondary comparisons are "
            "corrected by Benjamini-Hochberg. The primary outcome, fixed in advance, was the balanced accuracy kept "
            f"under mean ablation with pooled ranking{', and within keys,' if keys else ''} against random neurons "
            "matched by site; only methods with p < 0.05 and an interval above 0 with pooled ranking yield what we "
            "call knowledge neurons."
        )
    sentences.append(
        f"Software: {tools}; device {look('device') or 'not recorded'}, {look('dtype') or 'dtype not recorded'}, "
        f"{count(look('threads'))} threads, seed {look('seed')}."
    )
    return " ".join(sentences)


def _kept_words(curves: pd.DataFrame) -> str:
    """Which shares of what were kept or ablated, as this study did."""
    own = curves[(curves["ablation"] != "none") & (curves["draw"] < 0)]
    held, said = own[own["method"] == "held"], []
    for scope, rows in own[own["method"] != "held"].groupby("scope", sort=False):
        fractions = listed([percent(f) for f in sorted(rows["fraction"].unique())])
        ablations = listed(sorted(str(a) for a in rows["ablation"].unique()))
        mode = MODE_WORDS[tuple(sorted(str(m) for m in rows["mode"].unique()))]
        said.append(f"{SCOPE_WORDS[str(scope)]} the best {fractions} were {mode}, with {ablations} ablation")
    said += ["every kind was also ablated whole"] if len(held) else []
    text = "; ".join(said)
    return f"{text[:1].upper()}{text[1:]}." if text else ""


def _record_table(results: Results) -> Table:
    entries: list[tuple[str, Any]] = []
    for key in ("name", "command", "seed", "device", "dtype", "threads", "schema_version", "scoring_proteins"):
        entries.append((words(key), results.look(key)))
    for group in ("model", "data", "split", "versions"):
        entries += [(f"{group}: {words(key)}", value) for key, value in (results.look(group) or {}).items()]
    rows = tuple(
        TableRow((cell(name), cell("not recorded" if value is None else str(value)))) for name, value in entries
    )
    return Table("record", "Record of the run (manifest.json)", (("entry", False), ("value", False)), rows)


def draws_words(comparison: pd.DataFrame) -> str:
    """The number of draws, of the primary outcome and of the others where these differ."""
    primary = comparison["primary"].astype(bool)
    names = ["scope", "module", "mode", "ablation"]
    cells = pd.MultiIndex.from_frame(comparison[names])
    same = cells.isin(cells[primary])  # in the cells of an outcome that was fixed; its other metrics have its draws
    first, rest = (sorted({int(n) for n in comparison.loc[rows, "n_draws"]}) for rows in (primary, ~primary & ~same))
    if not first or not rest or first == rest:
        return listed([count(n) for n in first or rest])
    return f"{listed([count(n) for n in first])}, elsewhere {listed([count(n) for n in rest])}"


def _stage_table(results: Results) -> Table:
    rows = []
    for name, stage in (results.look("stages") or {}).items():
        seconds, memory = stage.get("seconds"), stage.get("peak_memory_mb")
        cells = (cell(name), cell(str(stage.get("status", "–"))), cell(fixed(seconds, 1), seconds))
        rows.append(TableRow((*cells, cell(count(memory), memory))))
    columns = (("stage", False), ("status", False), ("seconds", True), ("peak memory (MB)", True))
    return Table("stages", "Stages", columns, tuple(rows))
