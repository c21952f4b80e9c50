"""The report: what it claims, that it leaks nothing and loads nothing, and that it survives missing tables."""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import math
import re
import shutil
import subprocess
from copy import copy as shallow
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from plmscope.errors import RunError
from plmscope.report import page as report
from plmscope.report.answers import (
    intervention_answer,
    kept_answer,
    kept_sentence,
    knowledge_answer,
    neuron_word,
    quality_answer,
)
from plmscope.report.blocks import CONTROL_WORDS, FigureGroup, Section, Table, Text, json_ready
from plmscope.report.blocks import Page as ClassPage
from plmscope.report.concentration import density_answer
from plmscope.report.curves import comparison_section, curves_section, primary_figure
from plmscope.report.data import data_section, quality_section
from plmscope.report.density import density_section
from plmscope.report.input import ALWAYS, Results
from plmscope.report.kinds import kinds_table
from plmscope.report.knowledge import card_data, class_effects, interventions_section
from plmscope.report.methods import REFERENCES, completeness_section, facts, methods_paragraph
from plmscope.report.neurons import classes_section, neurons_section
from plmscope.store.folder import Run
from plmscope.store.schema import SCHEMA
from tests.fake_run import METHODS, make_fake_run

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome") or ""
HOSTILE = "</script><script>alert(1)</script>"
#: Tables that the report has no use for, or shows if they are there and does not miss.
UNSHOWN = (
    "selections", "concepts", "associations", "motifs", "attributed_residues", "interventions", "neuron_effects",
    "class_overlap", "stability", "modules", "modules_null", "curves_null", "class_baselines", "maximised",
    "null_fits", "null_tests", "card_views", "card_structures",
)  # fmt: skip
OPTIONAL = tuple(name for name in SCHEMA if name not in UNSHOWN)
#: Tables that are said to be missing beside another one alone.
BESIDE = (
    "components", "substitutions", "claims", "recall", "recall_context", "shared_neurons", "transfer", "pruning",
    "experts", "expert_classes", "modularity",
)  # fmt: skip
#: Tables whose section is left out where they are missing.
LEFT_OUT = (
    "faithfulness", "sufficient", "degenerate", "formulas", "descriptions", "concept_neurons", "probe_curves",
    "probe_layers", "recall_summary", "sharing", "separability",
)  # fmt: skip


class Page(HTMLParser):
    """Elements, attributes and text of a report."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self.text = ""
        self._inside = ""
        self.feed(source)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self._inside = tag
        if tag == "script":
            self.scripts.append("")

    def handle_endtag(self, tag: str) -> None:
        self._inside = ""

    def handle_data(self, data: str) -> None:
        if self._inside == "script":
            self.scripts[-1] += data
        elif self._inside != "style":
            self.text += " " + " ".join(data.split())

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return make_fake_run(tmp_path_factory.mktemp("fake") / "run")


@pytest.fixture(scope="module")
def page(run: Run) -> Page:
    return Page(report.write_report(run).read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def read(run: Run) -> Results:
    return Results(run)


@pytest.fixture
def results(read: Results) -> Results:
    """Results whose tables a test may replace."""
    own = shallow(read)
    own.tables = dict(read.tables)
    return own


@pytest.fixture
def copy(run: Run, tmp_path: Path) -> Run:
    """A copy of the run that a test may spoil, with fewer curves to be quick."""
    shutil.copytree(run.path, tmp_path / "copy")
    own = Run.open(tmp_path / "copy")
    curves = own.table("curves")
    own.write_table("curves", curves[curves["draw"] < 2])
    return own


def tables(section: Section) -> dict[str, Table]:
    return {block.id: block for block in section.blocks if isinstance(block, Table)}


def groups(section: Section) -> dict[str, FigureGroup]:
    return {block.id: block for block in section.blocks if isinstance(block, FigureGroup)}


def texts(section: Section) -> str:
    return " ".join(block.text for block in section.blocks if isinstance(block, Text))


# ---------------------------------------------------------------------------------------------------------------------
# Sentences


def splits(model: float | None, majority: float | None, composition: float | None) -> dict[str, Any]:
    values = {"model": model, "majority": majority, "composition": composition}
    return {"test": {k: {"n": 58, "balanced_accuracy": v} for k, v in values.items() if v is not None}}


def test_quality_names_both_baselines_and_the_margin() -> None:
    answer = quality_answer(splits(0.7, 0.25, 0.4))
    assert answer.verdict == "yes"
    assert "58 test proteins" in answer.text
    assert all(number in answer.text for number in ("0.700", "0.250", "0.400", "0.300"))


@pytest.mark.parametrize(
    ("model", "majority", "composition", "named"),
    [
        (0.38, 0.25, 0.40, "the composition baseline:"),
        (0.20, 0.25, 0.10, "the majority class baseline:"),
        (0.10, 0.25, 0.40, "the majority class and composition baselines:"),
        (0.40, 0.25, 0.40, "the composition baseline:"),  # a tie does not beat
        (0.20, 0.25, None, "the majority class baseline:"),
    ],
)
def test_a_model_that_does_not_beat_its_baselines_is_said_to(
    model: float, majority: float, composition: float | None, named: str
) -> None:
    answer = quality_answer(splits(model, majority, composition))
    assert answer.verdict == "no"
    assert answer.text.startswith("The model does not beat " + named)


def test_quality_without_a_baseline_or_without_metrics_is_not_a_yes() -> None:
    assert quality_answer(splits(0.7, 0.25, None)).verdict == "unclear"
    assert quality_answer(splits(None, 0.25, 0.4)).verdict == "not run"
    assert quality_answer({}).verdict == "not run"


def primary(method: str, p: float, low: float, high: float = 0.2) -> dict[str, Any]:
    row = dict.fromkeys(SCHEMA["comparison"], "") | {"method": method, "against": "random_matched", "primary": True}
    return row | {"difference": 0.1, "ci_low": low, "ci_high": high, "p_value": p, "n_draws": 20, "draws_beaten": 19}


@pytest.mark.parametrize(
    ("p", "low", "word", "reason"),
    [
        (0.049, 0.001, "knowledge neurons", ""),
        (0.05, 0.001, "selected neurons", "because p is not below 0.05"),
        (0.01, 0.0, "selected neurons", "because the interval reaches 0 or below"),
        (0.9, -0.1, "selected neurons", "because p is not below 0.05 and the interval reaches 0 or below"),
        (math.nan, 0.1, "selected neurons", "because p or the interval is missing"),
        (0.01, math.nan, "selected neurons", "because p or the interval is missing"),
    ],
)
def test_the_word_knowledge_neurons_needs_both_p_and_interval(p: float, low: float, word: str, reason: str) -> None:
    frame = pd.DataFrame([primary("m", p, low)])
    assert neuron_word(frame, "m") == word
    sentence = kept_sentence(frame.iloc[0].to_dict())
    assert word in sentence
    assert ("knowledge" in sentence) == (word == "knowledge neurons")
    assert reason in sentence
    assert "19 of 20 draws" in sentence


def test_only_primary_rows_count_for_the_word() -> None:
    secondary = primary("m", 0.001, 0.1) | {"primary": False}
    assert neuron_word(pd.DataFrame([secondary, primary("m", 0.5, -0.1)]), "m") == "selected neurons"
    assert neuron_word(pd.DataFrame([secondary]), "m") == "selected neurons"
    assert neuron_word(pd.DataFrame([primary("m", 0.001, 0.1)]), "other") == "selected neurons"
    assert neuron_word(None, "m") == "selected neurons"


def test_kept_answer_counts_the_winners() -> None:
    good, bad = primary("good_one", 0.001, 0.1), primary("bad_one", 0.5, -0.1)
    both = kept_answer(pd.DataFrame([good, bad]))
    assert both.verdict == "partly"
    assert "1 of 2 methods beats" in both.text and "good one" in both.text and "bad one" not in both.text
    assert len(both.details) == 2
    assert kept_answer(pd.DataFrame([good])).verdict == "yes"
    nothing = kept_answer(pd.DataFrame([bad]))
    assert nothing.verdict == "no" and "selected neurons throughout" in nothing.text
    assert kept_answer(None).verdict == "not run"


def keys(method: str, enrichment: float, low: float = math.nan, fraction: float = 0.02) -> dict[str, Any]:
    place = {"layer": -1, "module": "key", "n_total": 100, "n_selected": 4, "density": 0.04}
    return {"method": method, "fraction": fraction, "enrichment": enrichment, "ci_low": low, "ci_high": 9.0} | place


def null(method: str, shuffled: float | None, random: float | None, fraction: float = 0.02) -> pd.DataFrame:
    rows = [("label_shuffled", shuffled), ("random_weights", random)]
    return pd.DataFrame([keys(method, e, fraction=fraction) | {"null": name} for name, e in rows if e is not None])


@pytest.mark.parametrize(
    ("enrichment", "low", "shuffled", "random", "verdict"),
    [
        (2.0, 1.6, 1.1, 1.5, "yes"),
        (2.0, 1.6, 1.1, 1.7, "unclear"),  # the interval reaches a null model
        (2.0, 0.9, 0.5, 0.5, "unclear"),  # the interval reaches an even spread
        (2.0, math.nan, 1.1, 1.1, "unclear"),  # no interval
        (2.0, 1.6, 2.0, 1.1, "no"),
        (0.9, 0.7, 0.5, 0.5, "no"),
        (2.0, 1.6, 1.1, None, "unclear"),
        (2.0, 1.6, 2.5, None, "no"),  # one null model already shows more
    ],
)
def test_keys_are_dense_only_beyond_an_even_spread_and_both_null_models(
    enrichment: float, low: float, shuffled: float, random: float | None, verdict: str
) -> None:
    method = "integrated_gradients"
    answer = density_answer(pd.DataFrame([keys(method, enrichment, low)]), null(method, shuffled, random), 0.02)
    assert answer.verdict == verdict
    assert f"{enrichment:.2f} by integrated gradients" in answer.text
    assert f"{shuffled:.2f} in the label-shuffled model" in answer.text


@pytest.mark.parametrize(("p", "verdict"), [(0.001, "yes"), (0.2, "unclear"), (math.nan, "yes")])
def test_keys_are_dense_only_beyond_equally_active_neurons_of_their_layers(p: float, verdict: str) -> None:
    row = keys("integrated_gradients", 2.0, 1.6) | {"enrichment_permuted": 1.9, "p_permutation": p}
    answer = density_answer(pd.DataFrame([row]), null("integrated_gradients", 1.1, 1.0), 0.02)
    assert answer.verdict == verdict
    assert ("equally active neurons of a layer 1.90, p = " in answer.text) == (not math.isnan(p))


def test_raw_activation_has_no_say_in_the_density_verdict() -> None:
    rows = [keys("integrated_gradients", 0.8, 0.5), keys("activation", 8.0, 7.0)]
    answer = density_answer(pd.DataFrame(rows), null("integrated_gradients", 1.0, 1.0), 0.02)
    assert answer.verdict == "no"
    assert "8.00" not in answer.text
    assert "8.00" in answer.details[0] and "scale artefact" in answer.details[0]
    assert density_answer(pd.DataFrame(rows[1:]), None, 0.02).verdict == "not run"
    assert density_answer(None, None, 0.02).verdict == "not run"


def test_density_uses_the_nearest_fraction_and_needs_its_judges_to_agree() -> None:
    rows = [keys("integrated_gradients", 2.0, 1.8, 0.05), keys("integrated_gradients", 9.0, 8.0, 0.5)]
    nulls = null("integrated_gradients", 1.0, 1.0, 0.05)
    answer = density_answer(pd.DataFrame(rows), nulls, 0.02)
    assert answer.verdict == "yes" and "best 5 %" in answer.text and "9.00 by" not in answer.text
    rows.append(keys("activation_contrast", 0.5, 0.4, 0.05))
    nulls = pd.concat([nulls, null("activation_contrast", 1.0, 1.0, 0.05)])
    answer = density_answer(pd.DataFrame(rows), nulls, 0.02)
    assert answer.verdict == "unclear"
    assert "clearly denser than in both null models by integrated gradients, not by activation contrast" in answer.text


def test_a_low_density_is_not_said_to_be_below_the_null_models() -> None:
    """0.9 is less than an even spread, and more than either null model shows."""
    frame = pd.DataFrame([keys("integrated_gradients", 0.9, 0.7)])
    for nulls in (null("integrated_gradients", 0.5, 0.6), None):
        answer = density_answer(frame, nulls, 0.02)
        assert answer.verdict == "no" and "no denser than an even spread or a null model" in answer.text


# ---------------------------------------------------------------------------------------------------------------------
# Sections


def test_fake_run_has_every_table_of_the_schema(run: Run) -> None:
    assert {name for name in SCHEMA if len(run.table(name))} == set(SCHEMA)
    assert set(METHODS) <= set(run.table("neurons").columns)


def test_counts_of_the_data_section(results: Results) -> None:
    section = data_section(results)
    classes = tables(section)["classes"]
    labels = [row.cells[0].text for row in classes.rows]
    assert labels[0] == "1 (oxidoreductases)" and labels[-1] == "all classes"
    columns = [name for name, _ in classes.columns]
    proteins = results.tables["proteins"]
    test = sum((proteins["split"] == "test") & (proteins["label"] == "1"))
    assert classes.rows[0].cells[columns.index("test")].sort == test
    assert classes.rows[-1].cells[columns.index("all")].sort == len(proteins)
    assert [(r.cells[0].text, r.cells[1].sort) for r in tables(section)["excluded"].rows] == [
        ("longer than 1,022 residues", 6),
        ("two classes", 3),
    ]
    histogram = groups(section)["leakage-figure"].panels[0].traces
    found = results.tables["leakage"]["nearest_train"] != ""
    assert sum(int(np.sum(trace["y"])) for trace in histogram) == found.sum() < len(found)


def test_what_was_not_searched_is_not_called_unrelated(results: Results) -> None:
    near = results.tables["leakage"].copy()
    alone = near.index[(near["nearest_train"] == "") & (near["split"] == "test")]
    near.loc[alone[0], "identity"] = float("nan")
    results.tables["leakage"] = near
    assert f"{len(alone) - 1} align with no training protein, 1 could not be searched reliably" in texts(
        data_section(results)
    )


def test_confusion_is_shown_only_if_it_reproduces_the_accuracy(results: Results) -> None:
    matrix = groups(quality_section(results))["confusion-figure"].panels[0].traces[0]["text"]
    assert np.trace(matrix) / np.sum(matrix) == pytest.approx(results.metrics["test"]["model"]["accuracy"])
    predictions = results.tables["predictions"]
    wrong = (predictions["predicted"] + 1) % 6
    results.tables["predictions"] = predictions.assign(predicted=wrong)
    section = quality_section(results)
    assert "confusion-figure" not in groups(section) and "no confusion matrix" in texts(section)


def test_bands_are_the_quantiles_of_the_draws(results: Results) -> None:
    panel = next(p for p in groups(curves_section(results))["curves-figure"].panels if p.id == "plot-keep-zero")
    shown = [t for t in panel.traces if t["when"]["metric"] == ["accuracy"] and "activation" in t["when"]["show"]]
    medians = {t["name"]: t for t in shown if "customdata" in t}
    assert set(medians) == {f"{name} (5–95 %)" for name in CONTROL_WORDS.values()}
    curves = results.tables["curves"]
    own = curves[(curves["method"] == "random_matched") & (curves["matched_to"] == "activation")]
    own = own[(own["mode"] == "keep") & (own["ablation"] == "zero") & (own["fraction"] == 0.2)]["accuracy"]
    trace = medians["site-matched random (5–95 %)"]
    place = trace["x"].index(0.2)
    assert trace["y"][place] == pytest.approx(np.median(own))
    assert trace["customdata"][place] == pytest.approx(tuple(np.quantile(own, [0.05, 0.95])))
    assert trace["x"][-1] == 1.0 and trace["y"][-1] == results.metrics["test"]["model"]["accuracy"]


def test_every_choice_above_a_figure_shows_something(results: Results) -> None:
    seen = 0
    for make in report.SECTIONS:
        for group in groups(make(results)).values():
            for select in group.selects:
                for value, _ in select.options:
                    for panel in group.panels:
                        seen += 1
                        shown = [t for t in panel.traces if value in t.get("when", {}).get(select.name, [value])]
                        assert shown, f"{panel.id}: nothing for {select.name} = {value}"
    assert seen > 40


def test_curves_without_draws_have_no_bands(results: Results) -> None:
    results.tables["curves"] = results.tables["curves"].query("draw < 0")
    names = {t["name"] for p in groups(curves_section(results))["curves-figure"].panels for t in p.traces}
    assert names == {method.replace("_", " ") for method in METHODS}


def test_comparison_table_opens_with_the_primary_rows(results: Results) -> None:
    rows = tables(comparison_section(results))["comparisons"].rows
    assert len(rows) == len(results.tables["comparison"])
    assert [row.strong for row in rows[:9]] == [True] * 8 + [False]  # pooled and within keys


def test_top_neurons_are_ranked_by_every_method(results: Results) -> None:
    table = tables(neurons_section(results))["top-neurons"]
    neurons = results.tables["neurons"]
    columns = [name for name, _ in table.columns]
    for method in METHODS:
        tagged = [row for row in table.rows if method in row.tags]
        place = columns.index(method.replace("_", " "))
        assert len(tagged) == 50
        assert sorted(-int(row.cells[place].sort or 0) for row in tagged) == list(range(1, 51))
        best = neurons.loc[neurons[method].idxmax()]
        first = next(row for row in tagged if row.cells[place].sort == -1)
        assert (first.cells[0].text, first.cells[1].sort) == (
            f"{best['module'].replace('_', ' ')} {best['neuron']}",
            best["layer"],
        )
    assert table.select is not None
    words = dict(table.select.options)
    assert words["integrated_gradients"] == "integrated gradients: knowledge neurons, ranks 1 to 35"  # 2 % of 1,728
    assert words["activation"] == "activation: selected neurons"


def test_class_tables_hold_the_best_of_each_class(results: Results) -> None:
    section = classes_section(results)
    pages = [block for block in section.blocks if isinstance(block, ClassPage)]
    assert [page.id for page in pages] == [f"class-{label}" for label in results.labels]
    page = pages[2]
    found = {block.id: block for block in page.blocks if isinstance(block, Table)}
    assert page.title == "Class 3 (hydrolases)" and "test proteins; precision" in page.blocks[0].text
    scores = results.tables["class_scores"]
    own = (
        scores[(scores["label"] == "3") & (scores["method"] == "integrated_gradients")].set_index("score").sort_index()
    )
    best = own.iloc[-1]
    rows = found["class-neurons-3"].rows
    assert len(rows) == 10
    cards = results.tables["neuron_cards"]
    carded = {f"#neuron-{c.layer}-{c.module}-{c.neuron}" for c in cards.itertuples()}
    leads = {cell.href for row in rows for cell in row.cells if cell.href}
    assert leads and leads <= carded  # a link leads to a card that is there
    concepts = found["class-concepts-3"].rows
    assert concepts[-1].cells[0].text == "no concept"
    assert sum(row.cells[1].sort or 0 for row in concepts) == 35  # 2 % of 1,728 neurons
    assert rows[0].cells[2].text == f"layer {best['layer']} {best['module'].replace('_', ' ')} {best['neuron']}"


def test_completeness_names_the_largest_gap(results: Results) -> None:
    gaps = results.tables["completeness"]
    worst = gaps.loc[gaps.loc[gaps["module"] == "key", "gap"].abs().idxmax()]
    row = next(r for r in tables(completeness_section(results))["gaps"].rows if r.cells[1].text == "key")
    assert row.cells[-1].text == f"{worst['id']}, layer {worst['layer']}"
    assert row.cells[6].sort == pytest.approx(abs(worst["gap"]))


def test_methods_paragraph_holds_what_a_paper_needs(results: Results) -> None:
    text = methods_paragraph(results)
    parts = (
        "ab" * 32, "cd" * 32, "torch 2.9.0", "seed 0", "random draws (20)", "1,728 units", "72 training proteins",
        "identity 30 %", "449 were read and 9 excluded", "arXiv:2312.10770", "mean and zero ablation",
        "Of all neurons ranked together the best 1 %, 2 %,", "were kept (all others ablated) or ablated",
        "log odds of the true class along a path from the zero baseline with 16 quadrature points",
    )  # fmt: skip
    assert [part for part in parts if part not in text] == []


@pytest.mark.parametrize(
    ("split", "said"),
    [
        ({"method": "random", "cluster_column": ""}, "at random, each on its own"),
        ({"method": "column", "cluster_column": ""}, "sets of the proteins, and every protein is a cluster of its own"),
        ({"method": "column", "cluster_column": "family"}, "of the proteins, and the column 'family' their clusters"),
        ({"method": "cluster", "cluster_column": "family"}, "cluster that the column 'family' of the data names"),
    ],
)
def test_identity_is_named_only_where_it_made_the_clusters(results: Results, split: dict[str, str], said: str) -> None:
    results.manifest = results.manifest | {"split": {"identity": 0.3, "coverage": 0.8} | split}
    text = methods_paragraph(results)
    assert said in text and "30 %" not in text and "30 %" not in texts(data_section(results)).split("left out")[1][:200]
    units = "clusters" if split["method"] == "cluster" or split["cluster_column"] else "proteins"
    assert f"over test {units} (stratified" in text


def test_fixed_points_are_said_to_be_fixed(results: Results) -> None:
    gaps = results.tables["completeness"]
    results.tables["completeness"] = gaps.assign(settled=gaps["module"] != "key")
    text = texts(completeness_section(results))
    assert "points of integrated gradients was fixed at 16, not found" in text
    assert "(16.7 %) is above the tolerance" in text and "beside the mean change at " in text
    assert "key of layer 4 (16.6 %)" in text


def test_draws_that_differ_between_cells_are_told_apart(results: Results) -> None:
    comparison = results.tables["comparison"]
    more = comparison["n_draws"].mask(comparison["primary"].astype(bool), 199)
    results.tables["comparison"] = comparison.assign(n_draws=more)
    assert "random draws (199, elsewhere 20)" in methods_paragraph(results)
    assert ("draws per control", "199, elsewhere 20") in facts(results)


def test_a_card_holds_what_is_known_of_its_neuron(results: Results) -> None:
    data = json.loads(json.dumps(json_ready(card_data(results)), allow_nan=False))
    cards, table = data["cards"], results.tables["neuron_cards"]
    keys = ["layer", "module", "neuron"]
    assert len(cards) == len(table[keys].drop_duplicates())
    best = table.sort_values("rank", kind="stable").iloc[0]
    first = cards[0]
    assert [first[key] for key in keys] == [best[key] for key in keys] and first["sentence"] == best["sentence"]
    same = table[(table[keys] == [best[key] for key in keys]).all(axis=1)]
    assert first["ranks"] == dict(zip(same["method"].str.replace("_", " "), same["rank"], strict=True))
    assert first["sign"] == best["sign"]
    # Neighbours of one name are one mark; annotated residues and pattern matches are told apart.
    assert first["strips"][0]["sites"] == [[14, 14, "ACT_SITE", 1], [19, 23, "GxSxG", 0]]
    assert len(first["strips"]) == 3 and max(abs(h) for one in first["strips"] for h in one["heights"]) == 1000
    assert [sum(column) for column in first["motif"]["matrix"]] == pytest.approx([1000] * 5, abs=10)
    assert first["motif"]["in"] == ["3"]
    with_effects = [card for card in cards if card["effects"]]
    assert len(with_effects) == 35 and len(with_effects[0]["effects"]) == 6
    for name in ("neuron_effects", "motifs", "associations"):
        del results.tables[name]
    bare = card_data(results)["cards"]
    assert not any(card["effects"] or card["concepts"] or "matrix" in card["motif"] for card in bare)


def test_intervention_answer_follows_its_rule(results: Results) -> None:
    effects = results.tables["intervention_effects"]
    assert intervention_answer(effects).verdict == "yes"
    own = (effects["label"] == effects["effect_on"]) & effects["factor"].isna()
    some = effects.assign(ci_high=effects["ci_high"].mask(own & (effects["label"] == "2"), 0.01))
    answer = intervention_answer(some)
    assert answer.verdict == "partly" and "of 5 of 6 classes" in answer.text
    assert intervention_answer(effects.assign(q_value=0.2)).verdict == "no"
    lost = int(effects.loc[own, "decisions_lost"].sum())
    n, right = (int(effects.loc[own, name].sum()) for name in ("n_proteins", "decisions_right"))
    assert f"of {n} proteins {right} have their right class before; {lost} of these lose it" in answer.text


def test_each_class_has_its_matrix_row_in_numbers(results: Results) -> None:
    section = interventions_section(results)
    assert {"class-overlaps", "stabilities"} == set(tables(section))
    row_of = class_effects(results, "1")
    assert row_of is not None and class_effects(results, "none") is None
    strong = [row for row in row_of.rows if row.strong]
    assert {cell.href for row in row_of.rows for cell in row.cells} == {"", *(f"#class-{i}" for i in range(2, 7))}
    assert [row.cells[0].text for row in strong] == ["1 (oxidoreductases)"] * 5
    matrix = groups(section)["effects-figure"].panels[0].traces[0]["z"]
    assert matrix.shape == (6, 6) and (np.diag(matrix) == matrix.min(axis=1)).all()


# ---------------------------------------------------------------------------------------------------------------------
# The file


def test_the_first_lines_answer(page: Page) -> None:
    text = page.text
    heading = text.index("fake", text.index("Methods and record"))
    assert text.index("The model beats both baselines") - heading < 400
    assert (
        text.index("2 of 4 methods beat") < text.index("The methods disagree: keys") < text.index("449 proteins were")
    )


def test_the_first_lines_say_that_the_model_fails(copy: Run) -> None:
    metrics = copy.metrics()
    metrics["splits"]["test"]["composition"]["balanced_accuracy"] = 0.9
    copy.write_json("metrics.json", metrics)
    comparison = copy.table("comparison")
    copy.write_table("comparison", comparison.assign(p_value=0.5))
    text = Page(report.write_report(copy).read_text(encoding="utf-8")).text
    heading = text.index("fake", text.index("Methods and record"))
    assert text.index("The model does not beat the composition baseline") - heading < 400
    assert "none of the 4 methods" in text
    assert "called knowledge neurons." not in text and "(knowledge neurons" not in text


def test_nothing_is_loaded_from_anywhere(page: Page) -> None:
    addresses = {address for _, address in REFERENCES}
    for tag, attributes in page.elements:
        for name in ("src", "srcset", "action", "data", "poster", "style"):
            assert "//" not in (attributes.get(name) or ""), (tag, attributes)
        href = attributes.get("href")
        assert href is None or (tag == "a" and (href.startswith("#") or href in addresses)), (tag, attributes)
    assert not {tag for tag, _ in page.elements} & {"link", "img", "iframe", "object", "embed", "base", "form"}
    policy = next(m["content"] for m in page.all("meta") if m.get("http-equiv") == "Content-Security-Policy")
    assert policy is not None and policy.startswith("default-src 'none'") and "http" not in policy
    css = (Path(report.__file__).parent / "templates" / "report.css").read_text(encoding="utf-8")
    assert "url(" not in css and "@import" not in css


def poison(copy: Run, text: str) -> None:
    """Put a text wherever a table or file of a run has words of its own."""
    for name in ("proteins", "class_scores"):
        frame = copy.table(name)
        copy.write_table(name, frame.assign(label=frame["label"].replace("3", text)))
    cards, effects = copy.table("neuron_cards"), copy.table("intervention_effects")
    copy.write_table("neuron_cards", cards.assign(sentence=text, concept=f'"{text}', top_proteins="[]"))
    copy.write_table("intervention_effects", effects.replace({"label": {"3": text}, "effect_on": {"3": text}}))
    excluded, gaps = copy.table("excluded"), copy.table("completeness")
    copy.write_table("excluded", excluded.assign(reason=f'{text}" onclick="x'))
    copy.write_table("completeness", gaps.assign(id=text))
    metrics = copy.metrics()
    per_class = metrics["splits"]["test"]["model"]["per_class"]
    per_class[text] = per_class.pop("3")
    metrics["labels"][2] = text
    copy.write_json("metrics.json", metrics)
    copy.update_manifest(name=text, command=text)
    (copy.path / "study.toml").write_text(f"name = {json.dumps(text)}\n")


def test_hostile_text_stays_text(copy: Run, page: Page) -> None:
    poison(copy, HOSTILE)
    source = report.write_report(copy).read_text(encoding="utf-8")
    hostile = Page(source)
    assert HOSTILE not in source
    assert len(hostile.scripts) == len(page.scripts) == 9
    assert not any("onclick" in attributes for _, attributes in hostile.elements)
    assert hostile.text.count("alert(1)") > 10  # shown as text, not dropped
    figures = json.loads(hostile.scripts[1])
    ticks = figures["plot-confusion"]["layout"]["yaxis"]["ticktext"]
    assert any(tick.startswith("&lt;/script&gt;") for tick in ticks)  # Plotly reads some HTML: it gets none


@pytest.mark.skipif(not CHROMIUM, reason="no Chromium here")
def test_a_browser_executes_nothing_of_the_data(copy: Run, tmp_path: Path) -> None:
    """Chromium draws the report of poisoned data; what would run, if anything did, renames the page."""
    attack = "document.title='owned'"
    poison(copy, f'</script><script>{attack}</script><img src=x onerror="{attack}"><svg onload={attack}>')
    path = report.write_report(copy)
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=4000", "--dump-dom"]
    options += ["--window-size=1280,6000"]  # plots are drawn when they come near the window
    drawn = subprocess.run(
        [CHROMIUM, *options, f"--user-data-dir={tmp_path / 'chromium'}", path.as_uri()],
        capture_output=True, text=True, check=True, timeout=300,
    ).stdout  # fmt: skip
    assert "<title>owned" not in drawn and "owned" in drawn
    assert "js-plotly-plot" in drawn  # its own scripts did run
    assert not {tag for tag, attributes in Page(drawn).elements if {"onerror", "onload"} & set(attributes)}


def test_figures_are_strict_json_and_match_their_places(page: Page) -> None:
    def refuse(constant: str) -> None:
        raise ValueError(constant)

    figures = json.loads(page.scripts[1], parse_constant=refuse)
    places = {attributes["id"] for attributes in page.all("div") if attributes.get("class") == "plot"}
    assert places == set(figures)
    assert len(places) == 22


def test_numbers_that_are_missing_draw_nothing_and_are_shown_as_a_dash(results: Results) -> None:
    results.tables["density"] = results.tables["density"].assign(ci_low=math.nan, ci_high=math.inf)
    section = density_section(results)
    bars = groups(section)["density-figures"].panels[1].traces[0]
    ready = json_ready(bars)
    assert json.loads(json.dumps(ready, allow_nan=False))["error_y"]["array"] == [None] * 6
    assert {row.cells[5].small for row in tables(section)["densities"].rows} == {""}


def test_a_card_shows_the_motif_of_its_own_sign(results: Results) -> None:
    """The table has both signs of a neuron; a sign without a motif says so instead of drawing an empty logo."""
    motifs = results.tables["motifs"]
    other = motifs.assign(sign=-1, consensus="W-x-C")
    results.tables["motifs"] = pd.concat([other, motifs], ignore_index=True)
    assert {card["motif"]["consensus"] for card in card_data(results)["cards"]} == {"G-x-S-x-G"}
    results.tables["motifs"] = pd.concat([other, motifs.assign(consensus="")], ignore_index=True)
    assert all(card["motif"] == {"in": [], "windows": 60} for card in card_data(results)["cards"])


def test_the_knowledge_answer_counts_neurons_once(results: Results) -> None:
    cards = results.tables["neuron_cards"]
    answer = knowledge_answer(cards)
    one_each = cards.drop_duplicates(["layer", "module", "neuron"])
    assert answer.verdict == "partly" and f"{(~one_each['explained']).sum()} of the {len(one_each)}" in answer.text
    named = one_each["explained"] & (one_each["concept"] != "")
    assert f"A concept explains {named.sum()}, most often GxSxG" in answer.text
    is_letter, more = one_each["r2_letter"] >= 0.9, one_each["knows"] == "more"
    assert answer.text.startswith(f"Of the {len(one_each)} chosen neurons, {is_letter.sum()} are their letter, ")
    assert f"{more.sum()} know more than their letter. " in answer.text and is_letter.sum() and more.sum()
    older = cards.assign(knows="", r2_letter=np.nan)
    assert "letter" not in knowledge_answer(older).text
    assert knowledge_answer(cards.assign(explained=False)).verdict == "no"


def test_structure_is_accessible(page: Page) -> None:
    ids = [attributes["id"] for _, attributes in page.elements if attributes.get("id")]
    assert len(ids) == len(set(ids))
    assert len(page.all("caption")) == len(page.all("table")) > 15
    assert all(attributes.get("scope") in ("row", "col") for attributes in page.all("th"))
    assert all(attributes.get("aria-label") for _, attributes in page.elements if attributes.get("role") == "img")
    links = {
        (attributes["href"] or "")[1:] for attributes in page.all("a") if (attributes["href"] or "").startswith("#")
    }
    drawn = {link for link in links if link.startswith("neuron-")}  # cards, which the page draws
    assert links - drawn <= set(ids) and drawn


def test_the_same_folder_gives_the_same_file(run: Run, page: Page) -> None:
    first = (run.path / "report.html").read_bytes()
    assert report.write_report(Run.open(run.path)).read_bytes() == first
    assert not list(run.path.glob(".*.tmp"))


LIBRARY = Path(report.__file__).parent / "templates" / "plotly"
MOST_BYTES = 2_500_000


def test_the_report_is_small(run: Run, page: Page) -> None:
    """One file for an attachment: the plotting library is most of it, and is there once."""
    packed = base64.b64encode((LIBRARY / "plotly-cartesian.min.js.gz").read_bytes()).decode()
    source = (run.path / "report.html").read_text(encoding="utf-8")
    assert source.count(packed) == 1
    assert len(source.encode()) < MOST_BYTES


def test_the_carried_library_is_the_one_that_its_readme_names(page: Page) -> None:
    readme = (LIBRARY / "README.md").read_text(encoding="utf-8")
    library = gzip.decompress((LIBRARY / "plotly-cartesian.min.js.gz").read_bytes())
    assert f"`plotly-cartesian.min.js` (SHA-256) | `{hashlib.sha256(library).hexdigest()}`" in readme
    version = re.search(r"plotly\.js \(cartesian - minified\) v([0-9.]+)", library[:200].decode())
    assert version and f"`plotly.js-cartesian-dist-min` {version[1]}," in readme
    licence = (LIBRARY / "LICENSE").read_text(encoding="utf-8")
    assert licence.startswith("MIT License") and any(licence in script for script in page.scripts)


def test_the_carried_library_draws_every_trace(page: Page) -> None:
    library = gzip.decompress((LIBRARY / "plotly-cartesian.min.js.gz").read_bytes()).decode()
    carried = set(re.findall(r'moduleType:"trace",name:"([a-z0-9]+)"', library))
    used = {trace["type"] for figure in json.loads(page.scripts[1]).values() for trace in figure["traces"]}
    sources = (path.read_text(encoding="utf-8") for path in Path(report.__file__).parent.glob("report_*.py"))
    written = {name for text in sources for name in re.findall(r'"type": "(\w+)"', text)}
    written -= {"category", "linear", "log", "line", "data"}  # of axes, shapes and error bars
    assert used | written <= carried, (used | written) - carried
    assert used >= {"scatter", "bar", "heatmap"}


class Recorded(dict[str, Any]):
    """Tables that remember which of them were asked for."""

    def __init__(self, tables: dict[str, Any]) -> None:
        super().__init__(tables)
        self.asked: set[str] = set()

    def __getitem__(self, name: str) -> Any:
        self.asked.add(name)
        return super().__getitem__(name)

    def __contains__(self, name: object) -> bool:
        self.asked.add(str(name))
        return super().__contains__(name)

    def get(self, name: str, default: Any = None) -> Any:
        self.asked.add(name)
        return super().get(name, default)


#: All that is made of tables.
PARTS = (report.answers, facts, primary_figure, *report.SECTIONS)


def quicker(tables: dict[str, pd.DataFrame]) -> None:
    """Leave out rows of the largest tables."""
    tables["curves"] = tables["curves"].query("draw < 1 and mode == 'keep' and ablation != 'zero'")
    tables["density"] = tables["density"].query("fraction == 0.02")
    tables["class_scores"] = tables["class_scores"].query("label == '1'")


@pytest.fixture(scope="module")
def askers(run: Run) -> dict[str, set[int]]:
    """Of every table the parts of the report that ask for it, by number: the others are the same without it."""
    found: dict[str, set[int]] = {}
    for number, part in enumerate(PARTS):
        results = Results(run)
        quicker(results.tables)
        results.tables = tables = Recorded(results.tables)
        part(results)
        for name in tables.asked:
            found.setdefault(name, set()).add(number)
    return found


@pytest.mark.parametrize("name", OPTIONAL)
def test_one_missing_table_does_not_stop_the_report(results: Results, askers: dict[str, set[int]], name: str) -> None:
    quicker(results.tables)
    del results.tables[name]
    parts = [part(results) for number, part in enumerate(PARTS) if number in askers[name]]
    said = " ".join(texts(part) for part in parts if isinstance(part, Section))
    assert (f"{name}.parquet is not in this run folder" if name in ALWAYS else f"({name}.parquet): ") in said


def test_empty_tables_are_said_to_be_empty(results: Results) -> None:
    results.tables = {name: table.iloc[:0] for name, table in results.tables.items()}
    parts = [part(results) for part in PARTS]
    said = " ".join(texts(part) for part in parts if isinstance(part, Section))
    assert "No protein was left out." in said
    unsaid = [name for name in OPTIONAL if f"{name}.parquet has no rows" not in said]
    assert unsaid == ["excluded", "letters", "formulas", "probe_layers", *BESIDE]


def test_a_run_with_no_table_at_all_gives_a_report(copy: Run) -> None:
    for name in SCHEMA:
        copy.clear(f"{name}.parquet")
    copy.clear("metrics.json", "study.toml")
    copy.update_manifest(versions={}, model={}, data={}, split={}, stages={})
    text = Page(report.write_report(copy).read_text(encoding="utf-8")).text
    for name in OPTIONAL:
        asked = name not in ("letters", *BESIDE, *LEFT_OUT)  # said beside cards, or left out whole
        said = f"{name}.parquet is not in this run folder" if name in ALWAYS else f"in this study ({name}.parquet)"
        assert (said in text) == asked
    assert text.count("Not run") == 5
    assert "study.toml is not in this run folder" in text
    assert not re.search(r"\b(nan|None)\b", text.replace("None of", ""))


def test_a_damaged_table_is_an_error_not_a_gap(copy: Run) -> None:
    (copy.path / "curves.parquet").write_bytes(b"PAR1")
    with pytest.raises(RunError, match=r"curves\.parquet"):
        report.write_report(copy)


def test_a_damaged_study_is_named(copy: Run) -> None:
    (copy.path / "study.toml").write_text("name = \n")
    with pytest.raises(RunError, match=r"study\.toml"):
        report.write_report(copy)


def test_keys_of_null_models_stand_under_the_keys(results: Results) -> None:
    table = kinds_table(results)
    assert table is not None and "each is one fit" in table.caption
    names = [row.cells[0].text for row in table.rows]
    place = names.index("key")
    assert names[place + 1 : place + 3] == ["key, label-shuffled model", "key, randomly initialised model"]
    shuffled, random = table.rows[place + 1], table.rows[place + 2]
    assert {(one.text, one.small) for one in shuffled.cells[2:]} == {("–", "not judged")}
    assert all(one.sort == 1.05 for one in random.cells[2:])
    del results.tables["modules_null"]
    alone = kinds_table(results)
    assert alone is not None and len(alone.rows) == len(table.rows) - 2 and "one fit" not in alone.caption
