"""Sharing, in the report: whether a class rests on the same neurons in every group of proteins."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from plmscope.report.blocks import (
    Block,
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


@section("sharing", "Shared and specific neurons", left_out=True, sharing="groups of proteins were not compared.")
def sharing_section(results: Results) -> Sequence[Block]:
    """How many neurons groups share, what neurons of one group do in another, and which they are."""
    frame = results.tables["sharing"]
    column = results.setting("layout", "group_column")
    groups = f"Groups are the values of {column}." if column else (
        "No column names groups, so the clusters were dealt into parts by chance, which makes the parts alike: a ratio "
        "near 1 says that neurons chosen on some clusters carry the class in unseen ones too, and specific neurons are "
        "not to be expected. To compare families or taxa, name their column as group_column."
    )  # fmt: skip
    rows = []
    for row in frame.to_dict("records"):
        cells = [
            cell(results.class_name(row["label"]), small=str(row["groups"])),
            cell(count(row["n_clusters"]), row["n_clusters"]), cell(count(row["neurons"]), row["neurons"]),
            cell(count(row["independent"]), row["independent"]),
            cell(fixed(row["independent_against"], 1), row["independent_against"]),
            cell(short(row["p_independent"]), row["p_independent"]), cell(count(row["specific"]), row["specific"]),
            cell(fixed(row["specific_against"], 1), row["specific_against"]),
            cell(short(row["p_specific"]), row["p_specific"]), cell(fixed(row["jaccard"], 2), row["jaccard"]),
            cell(fixed(row["jaccard_expected"], 3), row["jaccard_expected"]),
            cell(short(row["p_overlap"]), row["p_overlap"]),
        ]  # fmt: skip
        rows.append(TableRow(tuple(cells)))
    columns = (
        ("class", False), ("clusters a group", True), ("neurons", True), ("in every group", True),
        ("with dealt labels", True), ("p", True), ("in one alone", True), ("with dealt labels", True), ("p", True),
        ("Jaccard", True), ("expected", True), ("p", True),
    )  # fmt: skip
    intro = (
        f"{groups} A neuron is in the set of a class and group where it has at least a fifth of a protein’s largest "
        "attribution in at least 70 % of the group’s training clusters. Dealt labels are those of the groups in "
        "another order: as many specific neurons with them means that the labels explain nothing. The expected overlap "
        "is that of sets with as many neurons in every site."
    )
    blocks: list[Block] = [Text(intro), Table("sharing-classes", "Neurons that groups share", columns, tuple(rows))]
    transfer, neurons = results.get("transfer"), results.get("shared_neurons")
    if transfer is None:
        blocks.append(results.missing("transfer", "no neurons of one group were held in another."))
    else:
        blocks += [Text(_transfer_words(transfer)), _transfer(results, transfer)]
    if neurons is None:
        blocks.append(results.missing("shared_neurons", "it is not known which neurons groups share."))
    else:
        blocks.append(_neurons(results, neurons))
    return blocks


def _transfer_words(frame: pd.DataFrame) -> str:
    """What neurons chosen on one group do in another, in a sentence."""
    other = frame[(frame["chosen_on"] != frame["measured_on"]) & frame["ratio"].notna()]
    if not len(other):
        return "In no group is enough lost when its own neurons are held for a transfer to be measured."
    below = other[(other["p_dealt"] < 0.05) & (other["ci_high"] < 1)]
    return (
        f"Of {count(len(other))} pairs of different groups of a class, the median transfer is "
        f"{fixed(other['ratio'].median(), 2)}: holding the neurons of another group costs that share of what holding "
        f"the group’s own costs. Below 1, and below neurons that were chosen with dealt labels, "
        f"{'lies' if len(below) == 1 else 'lie'} {count(len(below))}."
    )


def _transfer(results: Results, frame: pd.DataFrame) -> Table:
    """Every pair of groups."""
    rows = []
    for row in frame.head(ROWS).to_dict("records"):
        cells = [
            cell(results.class_name(row["label"])), cell(str(row["chosen_on"])),
            cell(str(row["measured_on"]), small=f"{count(row['n_proteins'])} proteins"),
            *(cell(percent(row[k]), row[k]) for k in ("drop", "against")), cell(short(row["p_value"]), row["p_value"]),
            cell(fixed(row["ratio"], 2), row["ratio"]), span(row, 2), cell(percent(row["dealt"]), row["dealt"]),
            cell(short(row["p_dealt"]), row["p_dealt"]),
        ]  # fmt: skip
        rows.append(TableRow(tuple(cells), strong=bool(is_number(row["q_value"]) and row["q_value"] < 0.05)))
    columns = (
        ("class", False), ("chosen on", False), ("measured on", False), ("lost", True), ("lost by draws", True),
        ("p", True), ("transfer", True), ("95 % interval", True), ("lost with dealt labels", True),
        ("p of losing less", True),
    )  # fmt: skip
    more = f", the first {count(ROWS)} of {count(len(frame))}" if len(frame) > ROWS else ""
    n = count(frame["n"].iloc[0])
    caption = f"Probability of the class that is lost in one group when the best {n} neurons of another are held{more}"
    return Table("transfer", caption, columns, tuple(rows))


def _neurons(results: Results, frame: pd.DataFrame) -> Table:
    """The neurons, those in every group first."""
    order = {"independent": 0, "specific": 1}
    frame = frame.assign(order=[order.get(str(kind), 2) for kind in frame["kind"]])
    frame = frame.sort_values(["order", "smallest_share"], ascending=[True, False], kind="stable")
    rows = []
    for row in frame.head(ROWS).to_dict("records"):
        cells = [
            cell(results.class_name(row["label"])),
            cell(f"layer {row['layer']} {words(row['module'])} {row['neuron']}"),
            cell(listed(str(row["groups"]).split("; "))), cell(percent(row["smallest_share"]), row["smallest_share"]),
            cell(words(row["kind"])),
        ]  # fmt: skip
        rows.append(TableRow(tuple(cells)))
    columns = (
        ("class", False), ("neuron", False), ("groups", False), ("smallest share of clusters", True), ("kind", False),
    )  # fmt: skip
    more = f", the first {count(ROWS)} of {count(len(frame))}" if len(frame) > ROWS else ""
    return Table("shared-neurons", f"Neurons in the set of some group{more}", columns, tuple(rows), search=True)
