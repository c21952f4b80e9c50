"""Recall, in the report: whether wrong decisions are failures to recall, and what annotated sites add."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

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
    p_words,
    percent,
    short,
    words,
)
from plmscope.report.input import Results, section
from plmscope.report.layout import span

MEASURES = {"kn": "KN score", "log_odds": "log-odds of the class"}


@section("recall", "Recall", left_out=True, recall_summary="errors were not looked into.")
def recall_section(results: Results) -> Sequence[Block]:
    """KN scores of right and wrong decisions, decisions regained, and sites that are masked."""
    frame = results.tables["recall_summary"]
    blocks: list[Block] = [
        Text(
            "The KN score of a class in a protein is the mean activation of the class's best neurons, standardised by "
            "training proteins and signed by the contrast of the class. Draws are as many random neurons in every "
            "site, signed in the same way."
        ),
        *(Text(_words(row)) for row in frame.to_dict("records") if row["label"] == ""),
        _classes(results, frame),
    ]
    context = results.get("recall_context")
    if context is None:
        blocks.append(results.missing("recall_context", "no annotated site was masked."))
    else:
        blocks.append(_sites(context))
    if results.get("recall") is None:
        blocks.append(results.missing("recall", "single proteins are not known."))
    return blocks


def _words(row: Mapping[Any, Any]) -> str:
    """What holds of all classes together."""
    if not row["n_wrong"]:
        return "No test protein is decided wrong: there is no error to explain."
    if not is_number(row["auroc"]):
        return "No class has both right and wrong decisions: KN scores cannot be compared."
    test = p_words(row["p_value"]) if row["p_kind"] == "permutation" else "too few draws for a test"
    return (
        f"KN scores of the true class tell right from wrong decisions with an AUROC of {fixed(row['auroc'], 2)} "
        f"(95 % interval {fixed(row['ci_low'], 2)} to {fixed(row['ci_high'], 2)}; matched draws "
        f"{fixed(row['auroc_against'], 2)}, {test}). Of {count(row['n_wrong'])} errors {percent(row['low'])} are low "
        f"in their own class (draws {percent(row['low_against'])}), and in {percent(row['conflict'])} the predicted "
        f"class's score is higher (draws {percent(row['conflict_against'])}). Doubling the true class's neurons mends "
        f"{count(row['gained'])} of {count(row['n_enhanced'])} errors (draws {fixed(row['gained_against'], 1)}, "
        f"another class's neurons {count(row['gained_other'])}), and pulls {count(row['pulled'])} of "
        f"{count(row['n_others'])} proteins of other classes to the class (draws {fixed(row['pulled_against'], 1)})."
    )


def _classes(results: Results, frame: pd.DataFrame) -> Table:
    """One row a class."""
    rows = []
    for row in frame.to_dict("records"):
        cells = [
            cell(results.class_name(row["label"]) if row["label"] else "all classes"),
            cell(count(row["n_right"]), row["n_right"]), cell(count(row["n_wrong"]), row["n_wrong"]),
            cell(fixed(row["auroc"], 2), row["auroc"]), span(row, 2),
            cell(fixed(row["auroc_against"], 2), row["auroc_against"]), cell(short(row["p_value"]), row["p_value"]),
            cell(percent(row["low"]), row["low"]), cell(percent(row["conflict"]), row["conflict"]),
            cell(f"{count(row['gained'])} of {count(row['n_enhanced'])}", row["gained"]),
            cell(fixed(row["gained_against"], 1), row["gained_against"]),
            cell(f"{count(row['pulled'])} of {count(row['n_others'])}", row["pulled"]),
            cell(fixed(row["pulled_against"], 1), row["pulled_against"]),
        ]  # fmt: skip
        rows.append(TableRow(tuple(cells), strong=not row["label"]))
    columns = (
        ("class", False), ("right", True), ("wrong", True), ("AUROC", True), ("95 % interval", True),
        ("AUROC of draws", True), ("p", True), ("errors that are low", True), ("in conflict", True), ("mended", True),
        ("by draws", True), ("others pulled", True), ("by draws", True),
    )  # fmt: skip
    caption = "KN scores of right against wrong decisions, and decisions after doubling the true class's neurons"
    return Table("recall-classes", caption, columns, tuple(rows))


def _sites(frame: pd.DataFrame) -> Table:
    """What masking sites changes."""
    rows = []
    for row in frame.to_dict("records"):
        left_out = f"{count(row['n_left_out'])} left out" if row["n_left_out"] else ""
        cells = [
            cell(words(row["feature_type"])), cell(MEASURES.get(str(row["measure"]), words(row["measure"]))),
            cell(count(row["n_proteins"]), row["n_proteins"], small=left_out),
            cell(count(row["n_residues"]), row["n_residues"]),
            *(cell(fixed(row[k], 3), row[k]) for k in ("change", "against", "difference")), span(row, 3),
            cell(short(row["p_value"]), row["p_value"]), cell(short(row["q_value"]), row["q_value"]),
        ]  # fmt: skip
        rows.append(TableRow(tuple(cells), strong=bool(is_number(row["q_value"]) and row["q_value"] < 0.05)))
    columns = (
        ("site", False), ("measured by", False), ("proteins", True), ("residues", True), ("change", True),
        ("change of controls", True), ("difference", True), ("95 % interval", True), ("p", True), ("q", True),
    )  # fmt: skip
    caption = "Masking annotated sites of rightly decided proteins, beside other residues of the same letters"
    return Table("recall-sites", caption, columns, tuple(rows))
