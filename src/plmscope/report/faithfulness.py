"""Which scorer to trust, in the report: every scorer beside single-neuron ablation of this model."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from plmscope.report.blocks import Block, Table, TableRow, Text, cell, count, fixed, percent, short, words
from plmscope.report.input import Results, section

#: The yardstick, and how far below the best a recommended score may be.
TRUTH, NEAR = "single_ablation", 0.05


@section("faithfulness", "Which scorer to trust", left_out=True, faithfulness="scorers were not compared.")
def faithfulness_section(results: Results) -> Sequence[Block]:
    """Every scorer beside single-neuron ablation, with what it costs."""
    frame = results.tables["faithfulness"]
    first = frame.iloc[0]
    rows = []
    for row in frame.to_dict("records"):
        cells = [
            cell(_named(row["method"]), small="recommended" if row["recommended"] else ""),
            *(cell(fixed(row[k], 2), row[k]) for k in ("rank_r", "rank_r_within")),
            cell(percent(row["top_share"]), row["top_share"]),
            *(cell(fixed(row[k], 3), row[k]) for k in ("keep", "ablate")),
            cell(fixed(row["split_half"], 2), row["split_half"]),
            cell(short(row["cpu_seconds"]), row["cpu_seconds"]),
        ]  # fmt: skip
        rows.append(TableRow(tuple(cells), strong=bool(row["recommended"])))
    random = [cell(text) for text in ("random neurons", "0", "0", "5 %")]
    random += [cell(fixed(first[k], 3), first[k]) for k in ("keep_random", "ablate_random")]
    rows.append(TableRow((*random, cell("0"), cell("–"))))
    columns = (
        ("score", False), ("rank r", True), ("within sites", True), ("top 5 %", True), ("kept", True),
        ("ablated", True), ("split-half r", True), ("CPU s a protein", True),
    )  # fmt: skip
    at = "its mean" if results.setting("score", "baseline") == "mean" else "zero"
    intro = (
        f"Each of {count(first['n_neurons'])} neurons was held at {at} by itself on {count(first['n_proteins'])} "
        "training proteins. Rank r is Spearman's correlation of a score with what that costs the true class (a score "
        "without a sign with the size of it), over all neurons and within sites; top 5 % is what both call best. Kept "
        "and ablated are balanced accuracies on test proteins when the best neurons alone work or are held at zero, "
        f"averaged over the shares (intact {fixed(first['intact'], 3)}). Split-half r compares the scores of two "
        "halves of the scored proteins. Seconds differ from machine to machine."
    )
    caption = "Scorers beside single-neuron ablation"
    return Text(_advice(frame)), Text(intro), Table("scorers-compared", caption, columns, tuple(rows))


def _named(method: object) -> str:
    """A score in words; the absolute form of one with a sign says so."""
    name = str(method)
    return f"{words(name.removesuffix('_abs'))} (absolute)" if name.endswith("_abs") else words(name)


def _advice(frame: pd.DataFrame) -> str:
    """What to use on this model."""
    best = frame[frame["recommended"].astype(bool)]
    if not len(best):
        return "No score could be compared with single-neuron ablation, so none is recommended."
    row = best.iloc[0]
    able = frame[~frame["signed"].astype(bool) & ~frame["method"].str.startswith(TRUTH)]
    top = able.sort_values("rank_r", ascending=False, kind="stable").iloc[0]
    r = fixed(row["rank_r"], 2)
    text = f"To rank this model's neurons, {_named(row['method'])} is recommended: its rank r of {r} "
    if row["method"] == top["method"]:
        return text + f"is the best, and none within {NEAR} of it is cheaper."
    return text + (
        f"is within {NEAR} of the best ({_named(top['method'])}, {fixed(top['rank_r'], 2)}), and of those scores it is "
        f"the cheapest: {short(row['cpu_seconds'])} CPU seconds a protein instead of {short(top['cpu_seconds'])}."
    )
