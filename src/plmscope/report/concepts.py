"""Turned around: for every concept the neurons that fire on it, as a table to search."""

from __future__ import annotations

from collections.abc import Sequence

from plmscope.report.blocks import Block, Select, Table, TableRow, Text, address, cell, count, fixed, words
from plmscope.report.input import Results, section

KEYS = ("layer", "module", "neuron")
#: Neurons of a concept and sign that the page shows; the table of the run folder has 20.
SHOWN = 3


@section(
    "concept-neurons",
    "Neurons of each concept",
    left_out=True,
    concept_neurons="which neurons fire on a concept was not asked ('plmscope characterize').",
)
def concepts_section(results: Results) -> Sequence[Block]:
    """The best neurons of every concept, both signs."""
    table = results.tables["concept_neurons"]
    best = table[table["rank"] == 1]
    good = best[best["iou"] >= 0.5]["concept"].nunique()
    intro = Text(
        f"Which neurons know a concept? For each of {count(best['concept'].nunique())} concepts the {SHOWN} "
        f"best neurons of all that are high there and the {SHOWN} best that are low, by intersection over union of "
        "where the neuron fires and where the concept is; neuron, sign and threshold were chosen on train clusters, "
        "the numbers beside are of held-out ones. "
        f"{count(good) if good else 'No'} concept{'s have' if good > 1 else ' has'} a neuron with half or more in "
        "common. concept_neurons.parquet has 20 for each."
    )
    named = results.get("concepts")
    kinds = {} if named is None else dict(zip(named["concept"], named["kind"], strict=True))
    cards = results.get("neuron_cards")
    with_card = set() if cards is None else {tuple(row) for row in cards[list(KEYS)].to_numpy(dtype=object).tolist()}
    rows = []
    shown = table[table["rank"] <= SHOWN].sort_values(["concept", "sign", "rank"], ascending=[True, False, True])
    for row in shown.to_dict("records"):
        where = tuple(row[key] for key in KEYS)
        kind = str(kinds.get(row["concept"], ""))
        name = f"{words(row['module'])} {row['neuron']}, layer {row['layer']}"
        cells = [
            cell(str(row["concept"]), small=kind),
            cell(
                name, small="where it is high" if row["sign"] > 0 else "where it is low",
                href=f"#{address('neuron', *where)}" if where in with_card else "",
            ),
            *(cell(fixed(row[key], 2), row[key]) for key in ("discovery_iou", "iou", "precision", "recall")),
        ]  # fmt: skip
        rows.append(TableRow(tuple(cells), tags=("all", address("kind", kind))))
    columns = (
        ("concept", False), ("neuron", False), ("IoU, train", True), ("IoU, held out", True), ("precision", True),
        ("recall", True),
    )  # fmt: skip
    present = sorted({str(kinds.get(name, "")) for name in shown["concept"]} - {""})
    select = Select("concept-kind", "Kind", (("all", "all"), *((address("kind", kind), kind) for kind in present)))
    caption = "Concepts and the neurons that fire on them; a neuron with a card is linked"
    return (intro, Table("concept-neurons-table", caption, columns, tuple(rows), True, select if present else None))
