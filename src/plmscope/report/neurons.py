"""Sections on single neurons: the best by each method and for each class, and how far the methods agree."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence

import numpy as np
import pandas as pd

from plmscope.evaluation.selection import size_of
from plmscope.knowledge.cards import Bars, explained
from plmscope.report.answers import neuron_word
from plmscope.report.blocks import (
    Block,
    FigureGroup,
    Page,
    Panel,
    Select,
    Table,
    TableRow,
    Text,
    address,
    cell,
    count,
    fixed,
    listed,
    percent,
    plot_text,
    short,
    words,
)
from plmscope.report.classes import KEYS
from plmscope.report.input import Results, section
from plmscope.report.knowledge import class_effects
from plmscope.scoring.table import forms_of, preference

TOP = 50
TOP_PER_CLASS = 10


@section("neurons", "Top neurons", neurons="no neuron was scored.")
def neurons_section(results: Results) -> Sequence[Block]:
    """The best neurons by each method, with what every other method says about them."""
    neurons, comparison = results.tables["neurons"], results.get("comparison")
    scored = [m for m in results.methods if m in neurons.columns]
    # The column that a method is ranked by comes first, then its other forms, which nothing is chosen by.
    asked = results.setting("score", "methods") or scored
    ranking = {results.ranked_column(m): m for m in reversed(scored) if m in asked}
    forms = [m for m in scored if m not in ranking]
    methods = [one for m in scored if m in asked
               for one in (results.ranked_column(m), *(f for f in forms if f in forms_of(m)))]  # fmt: skip
    methods = list(dict.fromkeys([*methods, *forms]))
    scores = neurons[methods]
    ranks = scores.rank(ascending=False, method="first", na_option="bottom").astype(int)
    shown = neurons[(ranks <= TOP).any(axis=1)]
    limit = size_of(results.knowledge_fraction, len(neurons))
    links = _card_links(results)
    options = []
    word_of = {m: neuron_word(comparison, ranking[m]) for m in methods if m in ranking}
    for method in sorted(methods, key=lambda m: preference(str(ranking.get(m, m)))):
        word = word_of.get(method, "nothing is chosen by it")
        extent = f", ranks 1 to {min(limit, TOP)}" if word == "knowledge neurons" else ""
        options.append((method, f"{results.score_words(method)}: {word}{extent}"))
    rows = []
    for place in shown.index:
        where = tuple(shown.loc[place, key] for key in KEYS)
        cells = [
            cell(f"{words(where[1])} {where[2]}", href=links.get(where, "")),
            cell(count(shown.loc[place, "layer"]), shown.loc[place, "layer"]),
        ]
        for method in methods:
            rank = int(ranks.loc[place, method])
            cells.append(cell(short(scores.loc[place, method]), -rank, f"rank {rank:,}"))
        rows.append(TableRow(tuple(cells), tags=tuple(m for m in methods if ranks.loc[place, m] <= TOP)))
    won = [results.score_words(m) for m, word in word_of.items() if word == "knowledge neurons"]
    text = (
        f"The {TOP} best neurons by each score, out of {count(len(neurons))}; layers and neurons count from 0. Only "
        f"the best {percent(results.knowledge_fraction)} ({count(limit)} neurons) of a method that beat matched "
        f"chance are called knowledge neurons: {f'those by {listed(won)}' if won else 'here no method did'}."
    )
    if forms:
        chosen = listed([results.score_words(results.ranked_column(m)) for m in scored if m in forms])
        text += (
            f" Selections, curves and cards rank by {chosen}, in which what a neuron says for and against a class does "
            "not cancel; the signed mean stands beside it."
        )
    intro = Text(text)
    columns = (("neuron", False), ("layer", True), *((results.score_words(m), True) for m in methods))
    select = Select("top", f"Top {TOP} by", tuple(options))
    caption = f"Top {TOP} neurons by each method: score, and rank among all neurons, by every method"
    table = Table("top-neurons", caption, columns, tuple(rows), search=True, select=select)
    return intro, table


@section("class-pages", "Class by class", class_scores="no neuron was scored class by class.")
def classes_section(results: Results) -> Sequence[Block]:
    """A page per class: how well it is known, its row of the matrix, its best neurons and what they detect."""
    scores = results.tables["class_scores"]
    scored = [str(m) for m in scores["method"].unique()]
    methods = [m for m in results.methods if m in scored]
    methods += [m for m in scored if m not in methods]
    scores = scores.assign(label=scores["label"].astype(str))
    pages, links = [], _card_links(results)
    for label in sorted(scores["label"].unique()):
        own = scores[scores["label"] == label]
        blocks = (
            _class_text(results, label), class_effects(results, label),
            _class_neurons(results, label, own, methods, links), _class_concepts(results, label, own, methods),
        )  # fmt: skip
        name = f"Class {results.class_name(label)}"
        pages.append(Page(address("class", label), name, tuple(block for block in blocks if block is not None)))
    intro = Text(
        "How well the model knows each class, what changing its neurons does, which neurons it rests on and what these "
        "detect. The word rule of the previous section holds here too. Every class has an address, such as "
        f"#{pages[0].id}."
    )
    return intro, *pages


def _class_text(results: Results, label: str) -> Text | None:
    """How well the model tells the class on test proteins."""
    values = results.metrics.get("test", {}).get("model", {}).get("per_class", {}).get(label)
    if not values:
        return None
    return Text(
        f"{count(values.get('n'))} test proteins; precision {fixed(values.get('precision'))}, "
        f"recall {fixed(values.get('recall'))}, F1 {fixed(values.get('f1'))}."
    )


def _card_links(results: Results) -> dict[tuple[Hashable, ...], str]:
    """Layer, module and neuron of every card to where it is on the page."""
    cards = results.get("neuron_cards")
    with_card = () if cards is None else cards[KEYS].itertuples(index=False, name=None)
    return {where: f"#{address('neuron', *where)}" for where in with_card}


def _class_neurons(
    results: Results, label: str, own: pd.DataFrame, methods: list[str], links: Mapping[tuple[Hashable, ...], str]
) -> Table:
    """The best neurons of a class by every method; those that have a card lead to it."""
    best = {m: own[own["method"] == m].nlargest(TOP_PER_CLASS, "score").to_dict("records") for m in methods}
    rows = []
    for rank in range(max(len(records) for records in best.values())):
        cells = [cell(str(rank + 1), rank + 1)]
        for method in methods:
            if rank >= len(best[method]):
                cells.append(cell("–"))
                continue
            record = best[method][rank]
            name = f"layer {record['layer']} {words(record['module'])} {record['neuron']}"
            where = tuple(record[key] for key in KEYS)
            cells.append(cell(name, small=short(record["score"]), href=links.get(where, "")))
        rows.append(TableRow(tuple(cells)))
    columns = (("rank", True), *((words(m), False) for m in methods))
    caption = f"Best neurons for class {results.class_name(label)}, with their scores; a link leads to a neuron's card"
    return Table(address("class-neurons", label), caption, columns, tuple(rows))


def _class_concepts(results: Results, label: str, own: pd.DataFrame, methods: list[str]) -> Table | None:
    """Which concepts explain the class's best neurons, those of the interventions if there were any."""
    associations, effects = results.get("associations"), results.get("intervention_effects")
    if associations is None:
        return None
    method = methods[-1] if effects is None else str(effects["method"].iloc[0])
    own = own[own["method"] == method]
    best = own.nlargest(size_of(results.knowledge_fraction, len(own)), "score")[KEYS]
    bars = Bars(**{k: v for k in ("min_gain", "min_auroc") if (v := results.setting("characterize", k)) is not None})
    first = associations[associations["rank"] == 1].merge(best, on=KEYS)
    good = first[explained(first, bars)].sort_values("f1_gain", ascending=False, kind="stable").drop_duplicates(KEYS)
    rows = []
    for concept, part in sorted(good.groupby("concept"), key=lambda item: -len(item[1])):
        cells = [cell(str(concept)), cell(count(len(part)), len(part))]
        cells += [cell(fixed(part[name].median(), 2), part[name].median()) for name in ("f1", "auroc")]
        rows.append(TableRow(tuple(cells)))
    missing = len(best) - len(good)
    rows.append(TableRow((cell("no concept"), cell(count(missing), missing), cell("–"), cell("–"))))
    columns = (("concept", False), ("neurons", True), ("median F1", True), ("median AUROC", True))
    caption = (
        f"What the best {percent(results.knowledge_fraction)} of neurons for class {results.class_name(label)} detect "
        f"({count(len(best))}, by {words(method)}; motifs are not counted)"
    )
    return Table(address("class-concepts", label), caption, columns, tuple(rows))


@section("agreement", "Agreement between methods", agreement="the methods were not compared with each other.")
def agreement_section(results: Results) -> Sequence[Block]:
    """How far the methods choose the same neurons."""
    agreement = results.tables["agreement"]
    named = {*agreement["method"], *agreement["other"]}
    methods = [m for m in results.methods if m in named] + sorted(named - set(results.methods))
    fractions = sorted(agreement["fraction"].unique())
    measures = [
        ("spearman", "rank correlation of all scores", agreement.drop_duplicates(["method", "other"]), "spearman")
    ]
    for f in fractions:
        rows = agreement[agreement["fraction"] == f]
        measures.append((f"overlap-{f:g}", f"overlap of the best {percent(f)}", rows, "overlap"))
    traces = []
    for key, _, rows, column in measures:
        grid = pd.DataFrame(np.eye(len(methods)), index=methods, columns=methods)
        for row in rows.to_dict("records"):
            grid.loc[row["method"], row["other"]] = grid.loc[row["other"], row["method"]] = row[column]
        names = [plot_text(words(m)) for m in methods]
        traces.append(
            {
                "type": "heatmap", "x": names, "y": names, "z": grid.to_numpy(), "zmin": -1, "zmax": 1, "xgap": 1,
                "ygap": 1, "colorscale": [[0, "@low"], [0.5, "@mid"], [1, "@high"]], "texttemplate": "%{z:.2f}",
                "showscale": False, "when": {"measure": [key]},
                "hovertemplate": "%{y}<br>%{x}<br>%{z:.3f}<extra></extra>",
            }
        )  # fmt: skip
    layout = {
        "height": 200 + 44 * len(methods),
        "xaxis": {"automargin": True, "showgrid": False},
        "yaxis": {"automargin": True, "autorange": "reversed", "showgrid": False},
    }
    select = Select("measure", "Measure", tuple((key, title) for key, title, _, _ in measures))
    panel = Panel("plot-agreement", "Agreement", tuple(traces), layout)
    rows = []
    for row in agreement.to_dict("records"):
        cells = [
            cell(words(row["method"])),
            cell(words(row["other"])),
            cell(percent(row["fraction"]), row["fraction"]),
        ]
        cells += [cell(fixed(row[name]), row[name]) for name in ("spearman", "overlap", "overlap_expected")]
        rows.append(TableRow(tuple(cells)))
    columns = (("method", False), ("other method", False), ("best", True), ("Spearman", True), ("overlap", True),
               ("overlap by chance", True))  # fmt: skip
    table = Table("agreements", "Agreement of each pair of methods", columns, tuple(rows))
    intro = Text("Do different scores point to the same neurons? Read the overlap beside what chance alone would give.")
    group = FigureGroup("agreement-figure", "Agreement between scoring methods.", (panel,), (select,))
    return intro, group, table
