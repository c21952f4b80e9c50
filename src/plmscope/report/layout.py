"""How knowledge is laid out, in the report: a section for every part of the layout that the run has."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from plmscope.report.blocks import (
    Block,
    Table,
    TableCell,
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

METRIC_WORDS_OF_LAYOUT = {"balanced_accuracy": "balanced accuracy", "log_odds": "log-odds of the true class"}


def span(row: Mapping[Any, Any], digits: int = 3, low: str = "ci_low", high: str = "ci_high") -> TableCell:
    """An interval as a cell, sorted by its lower end."""
    known = is_number(row[low]) and is_number(row[high])
    return cell(f"{fixed(row[low], digits)} to {fixed(row[high], digits)}" if known else "–", row[low])


@section("sufficient", "How few neurons suffice", left_out=True, sufficient="the search for them was not run.")
def sufficient_section(results: Results) -> Sequence[Block]:
    """The smallest set that gives back most of what the model does, beside matched draws."""
    frame = results.tables["sufficient"]
    target = percent(frame["target"].iloc[0])
    rows = []
    for row in frame.to_dict("records"):
        there = bool(row["judged"])
        cells = [
            cell(words(row["method"])), cell(words(row["module"]) or "all neurons"),
            cell(METRIC_WORDS_OF_LAYOUT.get(str(row["metric"]), words(row["metric"]))),
            cell(fixed(row["carried"]), row["carried"]),
            cell(count(row["k"]) if there else "nothing to give back", row["k"]),
            cell(percent(row["fraction"]), row["fraction"]), cell(fixed(row["faithfulness"], 2), row["faithfulness"]),
            span(row, 2), cell(count(row["k_random"]), row["k_random"]), cell(short(row["p_value"]), row["p_value"]),
        ]  # fmt: skip
        rows.append(TableRow(tuple(cells), strong=not row["module"]))
    columns = (
        ("chosen by", False), ("among", False), ("measured by", False), ("carried", True), ("neurons", True),
        ("share", True), ("faithfulness", True), ("95 % interval", True), ("neurons of draws", True), ("p", True),
    )  # fmt: skip
    intro = (
        f"The smallest set of best neurons that, kept alone with all others at their means, gives back {target} of "
        "what is lost when none is kept (lower end of the interval over resampled clusters). Draws are random orders "
        "with as many neurons in every site; p counts draws that need as few."
    )
    caption = f"Smallest set that gives back {target}"
    return Text(intro), Text(_sufficient_words(frame)), Table("sufficient-sets", caption, columns, tuple(rows))


def _sufficient_words(frame: pd.DataFrame) -> str:
    """One sentence on the pooled sets."""
    own = frame[(frame["scope"] == "pooled") & (frame["metric"] == "balanced_accuracy") & frame["judged"].astype(bool)]
    if not len(own):
        return "Nothing that could be told from noise is lost when every neuron is held, so no set can give it back."
    said = [
        f"{percent(row['fraction'])} of the neurons chosen by {words(row['method'])} (matched draws "
        f"{percent(row['k_random'] / row['n_neurons'])}, "
        + (f"p = {short(row['p_value'])})" if row["p_kind"] == "permutation" else "too few draws for a test)")
        for row in own.to_dict("records")
    ]
    return f"Balanced accuracy comes back with {listed(said)}."


@section("redundancy", "Redundancy", left_out=True, degenerate="no sets of neurons were tried in pairs.")
def redundancy_section(results: Results) -> Sequence[Block]:
    """Pairs of a class's components of which either is enough, and what they protect from."""
    frame, components = results.tables["degenerate"], results.get("components")
    degenerate = frame[frame["degenerate"].astype(bool)]
    shown = frame.sort_values(["degenerate", "synergy"], ascending=False, kind="stable").head(ROWS)
    rows = []
    for row in shown.to_dict("records"):
        cells = [
            cell(results.class_name(row["label"])), cell(words(row["method"])),
            cell(f"{row['a']} and {row['b']}", small=f"{count(row['n_a'])} and {count(row['n_b'])} neurons"),
            *(cell(fixed(row[k], 2), row[k]) for k in ("drop_a", "drop_b", "drop_both", "synergy")), span(row, 2),
            cell(fixed(row["against"], 3), row["against"]),
            cell(f"{count(row['draws_degenerate'])} of {count(row['n_draws'])}" if row["n_draws"] else "–",
                 row["draws_degenerate"]),
            cell(short(row["p_value"]) if row["n_draws"] else "not tested", row["p_value"]),
            cell("yes" if row["degenerate"] else "no"),
        ]  # fmt: skip
        rows.append(TableRow(tuple(cells), strong=bool(row["degenerate"])))
    columns = (
        ("class", False), ("components by", False), ("components", False), ("lost without the first", True),
        ("without the second", True), ("without both", True), ("synergy", True), ("95 % interval", True),
        ("synergy of draws", True), ("draws called degenerate", True), ("p", True), ("degenerate", False),
    )  # fmt: skip
    by_class = degenerate.groupby("label").size()
    said = listed([f"{results.class_name(label)} ({n})" for label, n in by_class.items()]) if len(degenerate) else ""
    tested = frame[frame["n_draws"] > 0]
    called = tested["draws_degenerate"].sum() / max(1, tested["n_draws"].sum())
    text = (
        f"{count(len(degenerate))} of {count(len(frame))} pairs of components are degenerate: either alone can be held "
        "at a "
        "loss of at most 5 % of the class's probability, both together cost at least 30 %, and the lower bound of the "
        f"synergy is above 0{f'; of class {said}' if said else ''}. "
    )
    if len(tested) < len(frame):
        text += (
            f"{count(len(tested))} are tested against random pairs: those that pass both thresholds, and of every "
            "class and grouping the one of greatest synergy, which is chosen among several where a draw is not, so "
            "that its p proves little unless it is small. "
        )
    text += f"Of random pairs with as many neurons in every site the rule calls {percent(called)} degenerate."
    blocks: list[Block] = [Text(text)]
    if components is None:
        blocks.append(results.missing("components", "it is not known which neurons the sets are made of."))
    else:
        sizes = components.groupby(["method", "label", "component"]).size()
        parts = [
            f"{count(len(own))} by {words(method)} ({count((own > 1).sum())} of several neurons)"
            for method, own in sizes.groupby(level=0)
            if method != "single"
        ]
        blocks.append(Text(f"Components: {listed(parts)}."))
    more = "" if len(shown) == len(frame) else f", the first {count(len(shown))} of {count(len(frame))}"
    blocks.append(Table("degenerate-pairs", f"Pairs of components{more}", columns, tuple(rows)))
    exchanged = results.get("substitutions")
    if exchanged is None:
        blocks.append(results.missing("substitutions", "no residues were exchanged with half of a pair held."))
    else:
        blocks.append(_exchanged_table(results, exchanged))
    claims = results.get("claims")
    if claims is None:
        blocks.append(results.missing("claims", "no claims were checked by attributions."))
    else:
        blocks.append(_claims_table(results, claims))
    return blocks


#: Rows of a table that is shown in part.
ROWS = 60


def _exchanged_table(results: Results, frame: pd.DataFrame) -> Table:
    """What a class keeps when residues are exchanged and one half of its best pair is held."""
    rows = []
    for row in frame.to_dict("records"):
        cells = [
            cell(results.class_name(row["label"])), cell(percent(row["share"]), row["share"]),
            cell(f"set {row['held']}", small=f"{count(row['n_neurons'])} neurons"),
            cell(fixed(row["probability"], 2), row["probability"]),
            *(cell(percent(row[k]), row[k]) for k in ("kept", "kept_intact", "against")),
            cell(short(row["p_value"]), row["p_value"]),
        ]  # fmt: skip
        rows.append(TableRow(tuple(cells)))
    columns = (
        ("class", False), ("residues exchanged", True), ("held", False), ("probability before", True),
        ("kept", True), ("kept with nothing held", True), ("kept by draws", True), ("p", True),
    )  # fmt: skip
    caption = (
        "Probability that a class keeps when residues are exchanged for similar ones, with one half of its pair of "
        "greatest synergy held (p: draws that keep as little)"
    )
    return Table("exchanged", caption, columns, tuple(rows))


def _claims_table(results: Results, frame: pd.DataFrame) -> Table:
    """How well attributions of a class's best pair tell true from false claims."""
    rows = []
    for row in frame.to_dict("records"):
        cells = [
            cell(results.class_name(row["label"])), cell(count(row["n_neurons"]), row["n_neurons"]),
            cell(f"{count(row['n_true'])} and {count(row['n_false'])}", row["n_true"]),
            cell(fixed(row["auroc"], 2), row["auroc"]), span(row, 2), cell(fixed(row["against"], 2), row["against"]),
            cell(short(row["p_value"]), row["p_value"]), cell(fixed(row["auroc_model"], 2), row["auroc_model"]),
        ]  # fmt: skip
        rows.append(TableRow(tuple(cells)))
    columns = (
        ("class", False), ("neurons", True), ("true and false claims", True), ("AUROC", True), ("95 % interval", True),
        ("of draws", True), ("p", True), ("of the model’s own log-odds", True),
    )  # fmt: skip
    caption = (
        "Claims that a test protein is of a class, checked by the attributions of its pair of greatest synergy: true "
        "against false ones"
    )
    return Table("claims", caption, columns, tuple(rows))
