"""Sections on what neurons know: a card for each selected neuron, and what changing a class's neurons does.

Cards travel as compact JSON and are drawn by the page a few at a time, so that thousands do not slow it down. A card's
address is ``#neuron-LAYER-MODULE-NUMBER``. Tables that were not made leave their part out, or are named.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from plmscope.knowledge.cards import BEYOND, IS_LETTER, without_place
from plmscope.report.answers import intervention_rows, letter_headline
from plmscope.report.blocks import (
    Block,
    Cards,
    FigureGroup,
    Panel,
    Select,
    Table,
    TableRow,
    Text,
    address,
    cell,
    count,
    fixed,
    is_number,
    percent,
    plot_text,
    short,
    signed,
    words,
)
from plmscope.report.classes import KEYS, explained_classes
from plmscope.report.described import made_windows, told
from plmscope.report.input import Results, section
from plmscope.report.settled import unsettled, unsettled_words
from plmscope.report.structures import card_structures, structures_told, views_of

SHOWN_CONCEPTS = 5
COMPARED_WORDS = {
    "halves": "two halves of the scoring clusters", "label_shuffled": "label-shuffled model",
    "random_weights": "model from random weights", "other_run": "another run",
}  # fmt: skip


@section(
    "knowledge",
    "What each neuron knows",
    neuron_cards="what the neurons detect was not examined ('plmscope characterize').",
)
def knowledge_section(results: Results) -> Sequence[Block]:
    """A card per selected neuron."""
    cards = results.tables["neuron_cards"]
    unique = cards.drop_duplicates(KEYS)
    unexplained = int((~unique["explained"].astype(bool)).sum())
    headline = letter_headline(unique)
    shares = [
        f"{words(module)} {count(part['explained'].astype(bool).sum())} of {count(len(part))}"
        for module, part in unique.groupby("module", sort=True)
    ]
    by_module = "" if headline else f" Explained by either, by module: {'; '.join(shares)}."
    intro = Text(
        f"{headline}{count(unexplained)} of the {count(len(unique))} selected neurons "
        f"({percent(unexplained / len(unique))}) are explained by neither a concept nor a motif"
        f"{' nor their letter' if headline else ''}.{by_module} A sentence never says more than its "
        "numbers, which come from clusters that had no part in choosing concept, threshold or motif; only where peaks "
        "lie is told of the training clusters."
    )
    tables: list[Block] = [_letters_table(results, unique)] if headline else []
    if headline and results.get("letters") is None:
        tables.append(results.missing("letters", "the chosen neurons cannot be set beside all others."))
    if (classes := explained_classes(results)) is not None:
        tables.append(classes)
    if (solid := structures_told(results)) is not None:
        tables.append(solid)
    loose = unsettled_words(results)
    note = (Text(f"{loose} The cards of such neurons say so.", "note"),) if loose else ()
    return (intro, *tables, *note, Cards("cards", card_data(results)))


def _letters_table(results: Results, unique: pd.DataFrame) -> Table:
    """Per module kind: how many of the chosen neurons are their letter, and know more; beside all neurons."""
    everyone = results.get("letters")
    rows = []
    for module, part in [*unique.groupby("module", sort=True), ("all", unique)]:
        own = part["r2_letter"] >= IS_LETTER
        knows = part["knows"].value_counts()
        others = everyone if everyone is None or module == "all" else everyone[everyone["module"] == module]
        share = float("nan") if others is None else float((others["r2_letter"] >= IS_LETTER).mean())
        cells = [cell("all kinds" if module == "all" else words(module)), cell(count(len(part)), len(part))]
        cells += [cell(count(n), int(n)) for n in (
            own.sum(), knows.get("letter", 0) - own.sum(), knows.get("more", 0), knows.get("unsettled", 0),
            (part["knows"] == "").sum(),
        )]  # fmt: skip
        median = part["r2_letter"].median()
        cells += [cell(fixed(median, 2), median), cell(percent(own.mean()), own.mean()), cell(percent(share), share)]
        rows.append(TableRow(tuple(cells), strong=module == "all"))
    columns = (
        ("module", False), ("chosen", True), ("their letter", True), ("letters alone", True), ("more", True),
        ("letter or more", True), ("unexplained", True), ("median R²", True), ("share", True), ("of all", True),
    )  # fmt: skip
    caption = (
        f"What the chosen neurons know, beyond their letter. Their letter: it explains {percent(IS_LETTER)} of the "
        f"variance or more. More: an explanation holds among residues of one letter (AUROC {BEYOND}, held-out "
        "clusters); letter or more: too few residues tell. Median R²: of the variance, by the letter. Share, of all: "
        "that are their letter, of the chosen and of all neurons of the kind"
    )
    return Table("letters", caption, columns, tuple(rows))


def card_data(results: Results) -> dict[str, Any]:
    """What the page draws the cards from: plain values, one entry a neuron, best rank first."""
    cards = results.get("neuron_cards")
    if cards is None:
        return {"labels": [], "cards": [], "structures": []}
    single, motifs = (_by_neuron(results.get(name)) for name in ("neuron_effects", "motifs"))
    associations = results.get("associations")
    if associations is not None:
        wanted = cards[KEYS].drop_duplicates()
        order = ["confirmed", "f1"]
        associations = associations.merge(wanted, on=KEYS).sort_values(order, ascending=False, kind="stable")
    known = _by_neuron(associations)
    said, made, views = told(results), made_windows(results), views_of(results)
    named = results.get("concepts")
    kinds = {} if named is None else dict(zip(named["concept"], named["kind"], strict=True))
    loose, out = unsettled(results), []
    for where, rows in cards.sort_values("rank", kind="stable").groupby(KEYS, sort=False):
        first = rows.iloc[0]
        motif = next((one for one in motifs.get(where, []) if one["sign"] == first["sign"]), None)
        out.append(
            {
                "layer": int(first["layer"]), "module": str(first["module"]), "neuron": int(first["neuron"]),
                "sign": int(first["sign"]),
                "ranks": {
                    _ranked_words(results, str(r["method"]), where[:2], loose): int(r["rank"])
                    for r in rows.to_dict("records")
                },
                "sentence": without_place(first), "explained": bool(first["explained"]),
                "knows": str(first["knows"]), "letter": [first["r2_letter"], first["r2_window"]],
                "told": said.get((*where, int(first["sign"])), []),
                "made": made.get((*where, int(first["sign"]))), "view": views.get((*where, int(first["sign"]))),
                "concept": str(first["concept"]), "auroc": first["auroc"], "f1": first["f1"],
                "strips": _strips(first["top_proteins"], kinds), "motif": _motif(motif),
                "concepts": [
                    [str(r["concept"]), int(r["sign"]), r["f1"], r["auroc"], r["q_value"], bool(r["confirmed"])]
                    for r in known.get(where, [])[:SHOWN_CONCEPTS]
                ],
                "effects": [
                    [str(r["effect_on"]), r["probability_change"], int(r["decisions_lost"]), int(r["decisions_right"])]
                    for r in single.get(where, [])
                ],
            }
        )  # fmt: skip
    labels = sorted({str(e[0]) for one in out for e in one["effects"]} | {c for one in out for c in one["motif"]["in"]})
    named_classes = {label: results.class_name(label) for label in labels}
    return {"labels": named_classes, "cards": out, "structures": card_structures(results)}


def _ranked_words(
    results: Results, method: str, site: tuple[Any, ...], loose: Mapping[str, set[tuple[int, str]]]
) -> str:
    """The score that a rank is by, and whether it may change."""
    name = results.score_words(results.ranked_column(method))
    return f"{name}, not settled here" if site in loose.get(method, ()) else name


def _by_neuron(frame: pd.DataFrame | None) -> dict[Any, list[dict[Any, Any]]]:
    """Rows of a table by (layer, module, neuron)."""
    by_neuron: dict[Any, list[dict[Any, Any]]] = {}
    for row in [] if frame is None else frame.to_dict("records"):
        by_neuron.setdefault(tuple(row[key] for key in KEYS), []).append(row)
    return by_neuron


def _strips(text: object, kinds: Mapping[str, str]) -> list[dict[str, Any]]:
    """The top proteins of a card; activations in tenths of a per cent of the largest of the card.

    ``sites`` are runs of residues, both ends counted: first, last, name, and 1 for an annotation, 0 for a pattern.
    """
    strips = _parsed(text, [])
    largest = max((abs(float(a)) for one in strips for a in one["activation"] if is_number(a)), default=0.0)
    return [
        {
            "id": str(one["id"]), "position": int(one["position"]), "start": int(one["start"]),
            "sequence": str(one["sequence"]), "sites": _runs(one.get("sites", []), kinds),
            "heights": [round(1000 * float(a) / largest) if is_number(a) and largest else 0 for a in one["activation"]],
            # Of the peak, which a low side may have where the window is not largest in size.
            "peak": one["activation"][int(one["position"]) - int(one["start"])],
        }
        for one in strips
    ]  # fmt: skip


def _runs(sites: list[list[Any]], kinds: Mapping[str, str]) -> list[list[Any]]:
    """Sites of neighbouring residues and the same name as one."""
    runs: list[list[Any]] = []
    for position, name in sorted(sites, key=lambda site: (str(site[1]), int(site[0]))):
        if runs and runs[-1][2] == name and runs[-1][1] + 1 == position:
            runs[-1][1] = int(position)
        else:
            runs.append([int(position), int(position), str(name), int(kinds.get(str(name)) != "pattern")])
    return sorted(runs)


def _motif(row: dict[Any, Any] | None) -> dict[str, Any]:
    """A motif for the page: letters' probabilities in thousandths, and the classes its hits are in, most enriched."""
    if row is None or not row["consensus"]:
        return {"in": [], "windows": 0 if row is None else int(row["n_windows"])}
    matrix = np.asarray(row["matrix"], dtype=np.float64).reshape(-1, 20)  # (width, 20)
    classes = _parsed(row["classes"], {})
    most = sorted(classes, key=lambda label: -float(classes[label].get("enrichment") or 0))
    return {
        "consensus": str(row["consensus"]), "bits": row["information_bits"], "auroc": row["auroc_held_out"],
        "enrichment": row["enrichment"], "windows": int(row["n_windows"]), "group": int(row["group"]),
        "matrix": np.rint(1000 * np.nan_to_num(matrix)).astype(int).tolist(),
        "in": [str(label) for label in most if float(classes[label].get("enrichment") or 0) > 1],
    }  # fmt: skip


def _parsed(text: object, otherwise: Any) -> Any:
    """JSON of a cell; ``otherwise`` where it is empty."""
    return json.loads(text) if isinstance(text, str) and text else otherwise


@section("interventions", "What a class's neurons do")
def interventions_section(results: Results) -> Sequence[Block]:
    """The class-by-class matrix, the dose curve, the numbers of each class, overlap and stability."""
    effects = results.get("intervention_effects")
    blocks: list[Block] = []
    if effects is None:
        consequence = "no class's neurons were suppressed or enhanced ('plmscope intervene')."
        blocks.append(results.missing("intervention_effects", consequence))
    else:
        blocks.append(
            Text(
                "The best neurons for each class are held at their mean, set to zero, or multiplied by a factor, on "
                "test proteins. Read each row: whose neurons were changed; each column: which proteins were affected. "
                "If the neurons of a class are its own, the diagonal stands out. Probabilities that move without "
                "changing a decision are a weaker effect than decisions that are lost; both are shown, beside as many "
                "random neurons from the same sites."
            )
        )
        blocks.append(_matrix_figure(results, effects))
        blocks.append(_dose_figure(results, effects))
        blocks.append(Text("The rows in numbers, with their intervals, stand under Class by class.", "note"))
    overlaps, stable = results.get("class_overlap"), results.get("stability")
    if overlaps is not None:
        blocks.append(_overlap_table(results, overlaps))
    if stable is not None:
        blocks.append(_stability_table(results, stable))
    return blocks


def _factor_key(factor: Any) -> str:
    return f"{factor:g}" if is_number(factor) else "mean"


def _factor_words(factor: Any) -> str:
    named = {"mean": "held at the mean", "0": "set to zero"}
    key = _factor_key(factor)
    return named.get(key, f"multiplied by {key}")


def _matrix_figure(results: Results, effects: pd.DataFrame) -> FigureGroup:
    own = effects[effects["effect_on"] != ""]
    labels = sorted({*own["label"].astype(str), *own["effect_on"].astype(str)})
    methods = list(dict.fromkeys(own["method"]))
    factors = list(dict.fromkeys(own["factor"].map(_factor_key)))
    names = [plot_text(results.class_name(label), 20) for label in labels]
    measures = {
        "difference": ("change of probability beyond matched draws", "%{z:+.2f}"),
        "probability_change": ("change of probability", "%{z:+.2f}"),
        "decisions": ("share of the right decisions that is lost", "%{z:.0%}"),
    }
    own = own.assign(decisions=own["decisions_lost"] / own["decisions_right"].clip(lower=1))
    traces = []
    for (method, factor), rows in own.groupby(["method", own["factor"].map(_factor_key)], sort=False):
        for measure, (_, template) in measures.items():
            grid = rows.pivot(index="label", columns="effect_on", values=measure).reindex(index=labels, columns=labels)
            traces.append(
                {
                    "type": "heatmap", "x": names, "y": names, "z": grid.to_numpy(dtype=float), "zmin": -1, "zmax": 1,
                    "xgap": 1, "ygap": 1, "showscale": False, "texttemplate": template,
                    "colorscale": [[0, "@low"], [0.5, "@mid"], [1, "@high"]],
                    "hovertemplate": "neurons of %{y}<br>on proteins of %{x}<br>%{z:.3f}<extra></extra>",
                    "when": {"effect-method": [str(method)], "factor": [str(factor)], "measure": [measure]},
                }
            )  # fmt: skip
    layout = {
        "height": 150 + 44 * len(labels),
        "xaxis": {"title": {"text": "proteins of class"}, "automargin": True, "showgrid": False, "type": "category"},
        "yaxis": {"title": {"text": "neurons of class"}, "automargin": True, "autorange": "reversed",
                  "showgrid": False, "type": "category"},
    }  # fmt: skip
    selects = (
        Select("factor", "Neurons", tuple((f, _factor_words(float(f) if f != "mean" else math.nan)) for f in factors)),
        Select("measure", "Effect", tuple((key, text) for key, (text, _) in measures.items())),
        Select("effect-method", "Chosen by", tuple((str(m), words(m)) for m in methods)),
    )
    caption = "Effect of each class's neurons (rows) on the proteins of every class (columns)."
    panel = Panel("plot-effects", "Class by class", tuple(traces), layout)
    return FigureGroup("effects-figure", caption, (panel,), selects)


def _dose_figure(results: Results, effects: pd.DataFrame) -> FigureGroup:
    """Effect against factor: on the class itself and on the others."""
    known = effects[effects["factor"].notna()]
    labels = list(dict.fromkeys(known["label"].astype(str)))
    method = next(iter(known["method"]), "")
    traces: list[dict[str, Any]] = []
    for label in labels:
        rows = known[(known["label"] == label) & (known["method"] == method)]
        for place, (target, name) in enumerate(((label, "the class itself"), ("", "all other classes"))):
            part = rows[rows["effect_on"] == target].sort_values("factor")
            points = [*zip(part["factor"], part["probability_change"], strict=True), (1.0, 0.0)]
            x, y = zip(*sorted(points), strict=True)
            traces.append(
                {
                    "type": "scatter", "mode": "lines+markers", "x": x, "y": y, "name": name,
                    "line": {"color": f"@c{place}", "dash": ("solid", "dash")[place], "width": 2},
                    "marker": {"color": f"@c{place}", "symbol": ("circle", "square")[place], "size": 8},
                    "when": {"dose": [label]},
                }
            )  # fmt: skip
    layout = {
        "height": 320, "xaxis": {"title": {"text": "factor on the activations (1: intact)"}},
        "yaxis": {"title": {"text": "change of probability"}, "zeroline": True},
    }  # fmt: skip
    select = Select("dose", "Neurons of class", tuple((label, results.class_name(label)) for label in labels))
    caption = f"Dose: what multiplying the neurons of a class does, chosen by {words(method)}."
    return FigureGroup("dose-figure", caption, (Panel("plot-dose", "Dose", tuple(traces), layout),), (select,))


def class_effects(results: Results, label: str) -> Table | None:
    """The matrix row of one class in numbers, for every factor."""
    effects = results.get("intervention_effects")
    own = None if effects is None else effects[effects["label"].astype(str) == label]
    if own is None or not len(own):
        return None
    methods = own["method"].unique()
    several = len(methods) > 1
    columns = (
        ("proteins of", False), ("neurons", False), *([("chosen by", False)] if several else []), ("n", True),
        ("change of probability", True), ("matched draws", True), ("difference", True), ("95 % interval", True),
        ("p", True), ("q", True), ("right before", True), ("lost", True), ("lost by draws", True),
    )  # fmt: skip
    rows = []
    for row in own.to_dict("records"):
        other = str(row["effect_on"])
        on = "all other classes" if other == "" else results.class_name(other)
        known = is_number(row["ci_low"])
        cells = [
            cell(on, href="" if other in ("", label) else f"#{address('class', other)}"),
            cell(_factor_words(row["factor"])), *([cell(words(row["method"]))] if several else []),
            cell(count(row["n_proteins"]), row["n_proteins"]),
            *(cell(signed(row[k]), row[k]) for k in ("probability_change", "against", "difference")),
            cell(f"{fixed(row['ci_low'])} to {fixed(row['ci_high'])}" if known else "–", row["ci_low"]),
            *(cell(short(row[k]), row[k]) for k in ("p_value", "q_value")),
            *(cell(count(row[k]), row[k]) for k in ("decisions_right", "decisions_lost")),
            cell(fixed(row["decisions_lost_against"], 1), row["decisions_lost_against"]),
        ]  # fmt: skip
        rows.append(TableRow(tuple(cells), strong=other == label))
    by = "" if several else f" (chosen by {words(methods[0])})"
    caption = f"What changing the neurons of class {results.class_name(label)}{by} does to every class"
    return Table(address("class-effects", label), caption, columns, tuple(rows))


def _overlap_table(results: Results, overlaps: pd.DataFrame) -> Table:
    rows = []
    for row in overlaps.sort_values("jaccard", ascending=False, kind="stable").to_dict("records"):
        cells = [
            cell(results.class_name(row["label"])), cell(results.class_name(row["other"])), cell(words(row["method"])),
            cell(f"{count(row['shared'])} of {count(row['n'])}", row["shared"]),
            *(cell(fixed(row[name]), row[name]) for name in ("jaccard", "jaccard_expected")),
            *(cell(short(row[name]), row[name]) for name in ("p_value", "q_value")),
        ]  # fmt: skip
        rows.append(TableRow(tuple(cells)))
    columns = (("class", False), ("other class", False), ("chosen by", False), ("shared", True), ("Jaccard", True),
               ("by chance", True), ("p", True), ("q", True))  # fmt: skip
    caption = "Do two classes rest on the same neurons? (chance: as many neurons in every site)"
    return Table("class-overlaps", caption, columns, tuple(rows))


def _stability_table(results: Results, stable: pd.DataFrame) -> Table:
    rows = []
    for row in stable.to_dict("records"):
        cells = [
            cell(COMPARED_WORDS.get(str(row["compared_with"]), words(row["compared_with"]))),
            cell("all classes" if row["label"] == "" else results.class_name(row["label"])), cell(words(row["method"])),
            cell(f"{count(row['shared'])} of {count(row['n'])}", row["shared"]),
            *(cell(fixed(row[name]), row[name]) for name in ("jaccard", "jaccard_expected")),
            cell(short(row["p_value"]), row["p_value"]), cell(fixed(row["spearman"]), row["spearman"]),
        ]  # fmt: skip
        rows.append(TableRow(tuple(cells)))
    columns = (("compared with", False), ("ranking for", False), ("chosen by", False), ("shared", True),
               ("Jaccard", True), ("by chance", True), ("p", True), ("rank correlation", True))  # fmt: skip
    caption = "Are the same neurons chosen again? From other proteins, and in models that should share no knowledge"
    return Table("stabilities", caption, columns, tuple(rows))


def intervention_fact(results: Results) -> list[tuple[str, str]]:
    """For the strip under the answers: how many selected neurons are explained, how many classes lose decisions."""
    facts = []
    cards, effects = results.get("neuron_cards"), results.get("intervention_effects")
    if cards is not None:
        unique = cards.drop_duplicates(KEYS)
        if unique["r2_letter"].notna().any():
            more = int((unique["knows"] == "more").sum())
            facts.append(("know more than their letter", f"{count(more)} of {count(len(unique))}"))
        else:
            facts.append(
                ("explained neurons", f"{count(unique['explained'].astype(bool).sum())} of {count(len(unique))}")
            )
    if effects is not None:
        rows = intervention_rows(effects)
        facts.append(
            ("right decisions lost", f"{count(rows['decisions_lost'].sum())} of {count(rows['decisions_right'].sum())}")
        )
    return facts
