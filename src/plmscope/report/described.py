"""Formulas and scored sentences: a section with a table by module kind, and the lines that a card gains."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from plmscope.report.blocks import Block, Table, TableRow, Text, cell, count, fixed, percent, short, words
from plmscope.report.input import Results, section
from plmscope.stats.chance import benjamini_hochberg

MADE = "maximised"
KEYS = ("layer", "module", "neuron", "sign")
#: What a window that was made by gradient is held against, and how a card says it.
HELD_AGAINST = {
    "direction": "those of a random direction of the site",
    "random_weights": "of this neuron where all weights are random",
}
#: q value below which a formula is better than its best concept.
BETTER = 0.05


def told(results: Results) -> dict[tuple[Any, ...], list[str]]:
    """Lines of every neuron and sign: its formula where that is better than a concept, and its sentences."""
    found: dict[tuple[Any, ...], list[str]] = {}
    formulas, sentences = results.get("formulas"), results.get("descriptions")
    if formulas is not None:
        for row in formulas[formulas["q_value"] < BETTER].to_dict("records"):
            text = (
                f"Formula: {'fires' if row['sign'] > 0 else 'goes low'} on {spelled(row['formula'])}: IoU "
                f"{fixed(row['iou'], 2)} on held-out clusters, best single concept {row['atom']} "
                f"{fixed(row['atom_iou'], 2)} (q {short(row['q_value'])})."
            )
            found.setdefault(tuple(row[key] for key in KEYS), []).append(text)
    for row in [] if sentences is None else sentences.to_dict("records"):
        by = "Your program" if row["source"] == "program" else "Scored sentence"
        text = (
            f"{by}: {row['sentence']}. From this alone its {'highest' if row['sign'] > 0 else 'lowest'} 1 % of "
            f"held-out residues are told with AUROC {fixed(row['simulation_auroc'], 2)}; from the letter alone "
            f"{fixed(row['letter_auroc'], 2)}, from other neurons' sentences {fixed(row['others_auroc'], 2)}."
        )
        beats = " It says more than both." if row["counts"] else ""
        found.setdefault(tuple(row[key] for key in KEYS), []).append(f"{text}{beats}")
    return found


@section(
    "described",
    "Formulas and scored sentences",
    left_out=True,
    descriptions="the best neurons have no scored sentence ('plmscope describe').",
)
def described_section(results: Results) -> Sequence[Block]:
    """How much formulas gain over single concepts, and what sentences predict."""
    said = results.tables["descriptions"]
    own, formulas = said[said["source"] == "template"], results.get("formulas")
    beat = int(own["counts"].astype(bool).sum())
    which = " The cards say which." if beat else ""
    text = (
        f"{_some(beat)} of the {count(len(own))} sentences predict where their neuron is highest better than sentences "
        f"of other neurons of its site do, and better than the residue's letter alone.{which}"
    )
    blocks: list[Block] = []
    if formulas is not None:
        better = int((formulas["q_value"] < BETTER).sum())
        by_chance = _some(_sure_by_chance(formulas)).lower()
        found = (
            f"For {_some(better).lower()} of the {count(len(formulas))} neurons and signs that were searched, "
            "a formula over concepts says better than the best single concept where they fire, on held-out "
            f"clusters; where their residues were moved around every protein, for {by_chance}."
        )
        blocks.append(Text(found))
    blocks.append(Text(text))
    if formulas is None:
        blocks.append(results.missing("formulas", "no neuron fires at enough residues to be searched for a formula."))
    program = said[said["source"] == "program"]
    if len(program):
        beat = int(program["counts"].astype(bool).sum())
        blocks.append(Text(f"Of the {count(len(program))} sentences of your program {_some(beat).lower()} beat both."))
    return (*blocks, described_table(formulas, said))


def _some(n: int) -> str:
    """A number in a sentence.

    >>> _some(0), _some(1200)
    ('None', '1,200')
    """
    return count(n) if n else "None"


def spelled(formula: str) -> str:
    """A formula as a card says it.

    >>> spelled("(leucine (L) AND near(alanine (A), 1)) OR near(GxSxG, 4)")
    '(leucine (L) AND within 1 of alanine (A)) OR within 4 of GxSxG'
    """
    return re.sub(r"near\((.*?), (\d+)\)", r"within \2 of \1", formula)


def _sure_by_chance(formulas: pd.DataFrame) -> int:
    """Formulas that the same test calls better where residues were moved around."""
    return int((benjamini_hochberg(formulas["null_p_value"].to_numpy(dtype=np.float64)) < BETTER).sum())


def made_windows(results: Results) -> dict[tuple[Any, ...], dict[str, Any]]:
    """By neuron and sign what a card says of windows made by gradient; matrices in thousandths."""
    table = results.get(MADE)
    found: dict[tuple[Any, ...], dict[str, Any]] = {}
    for where, rows in () if table is None else table.groupby(list(KEYS), sort=False):
        own = rows[rows["of"] == "neuron"]
        if not len(own):
            continue
        mean = np.mean([np.reshape(one, (-1, 20)) for one in own["matrix"]], axis=0)
        best = own.sort_values("percentile", kind="stable").iloc[-1]
        agreed = rows.drop_duplicates("of").set_index("of")["agreement"]
        others = [f"{said} {fixed(agreed[of], 1)}" for of, said in HELD_AGAINST.items() if of in agreed.index]
        beside = f" ({', '.join(others)})" if others else ""
        if others and own["agreement"].iloc[0] <= max(agreed[of] for of in HELD_AGAINST if of in agreed.index):
            beside += ", no more than by chance: this is no preference"
        found[tuple(where)] = {
            "matrix": [[round(1000 * float(x)) for x in column] for column in mean],
            "consensus": str(best["window"]),
            "said": (
                f"Made by gradient, small letters natural: {best['window']}, above {percent(best['percentile'])} of "
                f"natural residues. Its three starts share {fixed(own['agreement'].iloc[0], 1)} bits"
                f"{beside}. A free vector at the middle is nearest to {best['nearest_letter']} (cosine "
                f"{fixed(best['cosine'], 2)})."
            ),
        }
    return found


def described_table(formulas: pd.DataFrame | None, sentences: pd.DataFrame) -> Table:
    """What formulas gain over single concepts, and what sentences predict, by module kind."""
    rows = []
    for module in [*sorted({str(m) for m in sentences["module"]}), "all"]:
        own, said = (
            None if table is None else table if module == "all" else table[table["module"] == module]
            for table in (formulas, sentences)
        )  # fmt: skip
        cells = [cell("all kinds" if module == "all" else words(module))]
        n = 0 if own is None else len(own)
        better = 0 if own is None else int((own["q_value"] < BETTER).sum())
        cells += [cell(count(n), n), cell(count(better), better)]
        for name, beside, said_of in (("iou", "atom_iou", "concept"), ("gain", "null_gain", "shifted")):
            value, other = (float("nan") if own is None else float(own[key].mean()) for key in (name, beside))
            cells.append(cell(fixed(value, 3), value, f"{said_of} {fixed(other, 3)}"))
        said = None if said is None else said[said["source"] == "template"]
        for name in ("simulation_auroc", "letter_auroc", "others_auroc"):
            value = float("nan") if said is None else float(said[name].mean())
            cells.append(cell(fixed(value, 2), value))
        share = float("nan") if said is None or not len(said) else float(np.mean(said["counts"].astype(bool)))
        cells.append(cell(percent(share), share))
        rows.append(TableRow(tuple(cells), strong=module == "all"))
    columns = (
        ("module", False), ("searched", True), ("better", True), ("IoU", True), ("gain", True), ("sentence", True),
        ("letter", True), ("others'", True), ("beat both", True),
    )  # fmt: skip
    caption = (
        "Formulas over concepts and scored sentences, of neurons and signs, on held-out clusters. IoU: mean of the "
        "formulas, and of the best single concepts; better: above that one (q below 0.05); gain, shifted: the "
        "difference, and that of the same search where the neuron's residues were moved around every protein. "
        "Sentence, letter, others': mean AUROC for a neuron's highest (lowest) 1 % of residues by its sentence, by the "
        "letter alone, by sentences of other neurons of its site"
    )
    return Table("described-table", caption, columns, tuple(rows))
