"""Formulas and scored sentences in the report: a table by module kind, and the lines that a card gains."""

from __future__ import annotations

from typing import Any

import numpy as np

from plmscope.report.blocks import Row, Table, cell, count, fixed, percent, short, words
from plmscope.report.input import Results

KEYS = ("layer", "module", "neuron", "sign")
#: q value below which a formula is better than its best concept.
BETTER = 0.05


def told(results: Results) -> dict[tuple[Any, ...], list[str]]:
    """Lines of every neuron and sign: its formula where that is better than a concept, and its sentences."""
    found: dict[tuple[Any, ...], list[str]] = {}
    formulas, sentences = results.get("formulas"), results.get("descriptions")
    for row in [] if formulas is None else formulas.to_dict("records"):
        text = f"Formula: fires on {row['formula']}: IoU {fixed(row['iou'], 2)}"
        if row["length"] > 1:
            sure = f", q {short(row['q_value'])}" if row["q_value"] < BETTER else ", no better on held-out clusters"
            text += f", best single concept {row['atom']} {fixed(row['atom_iou'], 2)}{sure}"
        found.setdefault(tuple(row[key] for key in KEYS), []).append(f"{text}.")
    for row in [] if sentences is None else sentences.to_dict("records"):
        by = "Your program" if row["source"] == "program" else "Scored sentence"
        text = (
            f"{by}: {row['sentence']}: predicts its highest residues with AUROC {fixed(row['simulation_auroc'], 2)} "
            f"(its letter alone {fixed(row['letter_auroc'], 2)}, other neurons' sentences "
            f"{fixed(row['others_auroc'], 2)})"
        )
        found.setdefault(tuple(row[key] for key in KEYS), []).append(
            f"{text}{'' if row['counts'] else '; does not beat both'}."
        )
    return found


def described_table(results: Results) -> Table | None:
    """What formulas gain over single concepts, and what sentences predict, by module kind."""
    formulas, sentences = results.get("formulas"), results.get("descriptions")
    if formulas is None and sentences is None:
        return None
    rows = []
    kinds = sorted({str(m) for table in (formulas, sentences) if table is not None for m in table["module"]})
    for module in [*kinds, "all"]:
        own, said = (
            None if table is None else table if module == "all" else table[table["module"] == module]
            for table in (formulas, sentences)
        )  # fmt: skip
        cells = [cell("all kinds" if module == "all" else words(module))]
        n = 0 if own is None else len(own)
        better = 0 if own is None else int((own["q_value"] < BETTER).sum())
        cells += [cell(count(n), n), cell(count(better), better)]
        for name in ("atom_iou", "iou", "gain", "null_gain"):
            value = float("nan") if own is None else float(own[name].mean())
            cells.append(cell(fixed(value, 3), value))
        said = None if said is None else said[said["source"] == "template"]
        for name in ("simulation_auroc", "letter_auroc", "others_auroc"):
            value = float("nan") if said is None else float(said[name].mean())
            cells.append(cell(fixed(value, 2), value))
        share = float("nan") if said is None or not len(said) else float(np.mean(said["counts"].astype(bool)))
        cells.append(cell(percent(share), share))
        rows.append(Row(tuple(cells), strong=module == "all"))
    columns = (
        ("module", False), ("searched", True), ("better", True), ("concept IoU", True), ("formula IoU", True),
        ("gain", True), ("shifted gain", True), ("sentence", True), ("letter", True), ("others'", True),
        ("beat both", True),
    )  # fmt: skip
    caption = (
        "Formulas over concepts and scored sentences, of neurons and signs, on held-out clusters. Better: the "
        "formula's IoU is above that of the best single concept (q below 0.05); shifted gain: of the same search where "
        "the neuron's residues were moved around every protein. Sentence, letter, others': mean AUROC for a neuron's "
        "highest residues by its sentence, by the letter alone, by sentences of other neurons"
    )
    return Table("described", caption, columns, tuple(rows))
