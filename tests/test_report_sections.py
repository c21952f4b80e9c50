"""A section of the report is one function and one row: it says which tables it needs."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from plmscope.report import page as report
from plmscope.report.answers import kind_sentences
from plmscope.report.blocks import Block, FigureGroup, Table, Text
from plmscope.report.closing import closing_lines
from plmscope.report.curves import curves_section
from plmscope.report.data import quality_section
from plmscope.report.described import described_section, made_windows, told
from plmscope.report.input import Results, SectionMaker, section
from plmscope.report.kinds import kinds_figure
from plmscope.report.knowledge import card_data, knowledge_section
from plmscope.report.methods import completeness_section, methods_paragraph
from plmscope.report.neurons import neurons_section
from plmscope.report.page import answers
from plmscope.report.salient import salient_section
from plmscope.report.settled import unsettled_words
from plmscope.store.folder import Run
from plmscope.store.schema import SCHEMA
from tests.fake_run import make_fake_run


@section("deepest", "Deepest neurons", left_out=True, neurons="nothing was scored.", agreement="one method alone.")
def deepest_section(results: Results) -> Sequence[Block]:
    """What somebody else's section looks like."""
    return (Text(f"The deepest layer is {results.tables['neurons']['layer'].max()}."),)


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return make_fake_run(tmp_path / "run")


def headings(run: Run) -> list[str]:
    return re.findall(r"<h2[^>]*>(?:\s*<[^>]+>[^<]*</[^>]+>)?\s*([^<]+)", report.render(run))


def test_a_section_of_one_function_and_one_row(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    before = headings(run)
    monkeypatch.setattr(report, "SECTIONS", (*report.SECTIONS[:3], deepest_section, *report.SECTIONS[3:]))
    after = headings(run)
    assert len(after) == len(before) + 1 and any("Deepest neurons" in heading for heading in after)
    deepest = run.table("neurons")["layer"].max()
    assert f"The deepest layer is {deepest}." in report.render(run)
    # Left out without a table that it needs; with a note instead where it says so.
    (run.path / "agreement.parquet").unlink()
    assert not any("Deepest neurons" in heading for heading in headings(run))
    noted = section("deepest", "Deepest neurons", neurons="nothing was scored.", agreement="one method alone.")
    monkeypatch.setattr(report, "SECTIONS", (noted(deepest_section.make),))
    assert "Not computed in this study (agreement.parquet): one method alone." in report.render(run)
    assert "nothing was scored." not in report.render(run)


@pytest.mark.parametrize("part", report.SECTIONS, ids=lambda part: part.id)
def test_what_a_section_needs_is_a_table(part: SectionMaker) -> None:
    assert set(part.needs) <= set(SCHEMA)
    assert part.make.__doc__


def test_a_card_tells_a_formula_where_it_is_better_and_of_the_side_that_it_is_of(run: Run) -> None:
    results = Results(run)
    formulas = results.get("formulas")
    assert formulas is not None
    one, other = formulas.index[:2]
    for name in ("formulas", "descriptions"):  # their rows are of the same neurons
        table = results.get(name)
        assert table is not None
        results.tables[name] = table.assign(sign=np.where(table.index == other, -1, 1))
    better = formulas.index.isin([one, other])
    formulas = results.tables["formulas"].assign(q_value=np.where(better, 0.001, 0.2))
    results.tables["formulas"] = formulas
    lines = told(results)
    keys = ["layer", "module", "neuron", "sign"]
    said = {tuple(row): [line for line in lines[tuple(row)] if line.startswith("Formula")]
            for row in formulas[keys].to_numpy(dtype=object).tolist()}  # fmt: skip
    assert [len(one) for one in said.values()].count(1) == 2  # the others have none that is better than a concept
    assert said[tuple(formulas.loc[one, keys])][0].startswith("Formula: fires on ")
    assert said[tuple(formulas.loc[other, keys])][0].startswith("Formula: goes low on ")
    for where, own in lines.items():
        highest = next(line for line in own if line.startswith("Scored sentence"))
        assert f"its {'highest' if where[3] > 0 else 'lowest'} 1 % of held-out residues" in highest


def test_a_card_tells_its_place_and_its_letter_once(run: Run) -> None:
    results = Results(run)
    cards = results.get("neuron_cards")
    assert cards is not None
    row = cards.sort_values("rank", kind="stable").iloc[0]
    place = f"; {row['module']}, layer {row['layer']}, neuron {row['neuron']}."
    results.tables["neuron_cards"] = cards.assign(sentence=f"Fires on W{place} Of EC 7, length alone.")
    sentences = {card["sentence"] for card in card_data(results)["cards"]}
    assert "Fires on W. Of EC 7, length alone." in sentences
    assert "Variance explained by its letter" not in report.render(run)


def test_the_number_at_a_peak_is_that_of_the_peak(run: Run) -> None:
    # Of a strip's values the largest in size may be on the other side: I8 is 3.31 and Y10 -3.93 of a neuron that fires.
    results = Results(run)
    strip = {"id": "p", "position": 8, "start": 6, "sequence": "VNIQY", "activation": [0.1, 0.2, 3.31, -1.0, -3.93]}
    cards = results.tables["neuron_cards"]
    results.tables["neuron_cards"] = cards.assign(top_proteins=json.dumps([strip]))
    assert {one["peak"] for card in card_data(results)["cards"] for one in card["strips"]} == {3.31}


def test_a_made_window_that_chance_makes_as_well_is_no_preference(run: Run) -> None:
    results = Results(run)
    made = results.get("maximised")
    assert made is not None
    assert not any("no preference" in one["said"] for one in made_windows(results).values())
    worse = np.where(made["of"] == "random_weights", 6.5, made["agreement"])
    results.tables["maximised"] = made.assign(agreement=worse)
    assert all("by chance: this is no preference" in one["said"] for one in made_windows(results).values())


def test_no_card_is_pointed_at_where_no_sentence_counts(run: Run) -> None:
    results = Results(run)
    results.tables["descriptions"] = results.tables["descriptions"].assign(counts=False)
    text = [block.text for block in described_section(results).blocks if isinstance(block, Text)]
    assert any(one.startswith("None of the ") for one in text) and not any("cards say" in one for one in text)


def test_probes_stand_beside_their_control_and_the_worst_are_a_choice(run: Run) -> None:
    blocks = salient_section(Results(run)).blocks
    tables = {block.id: block for block in blocks if isinstance(block, Table)}
    for name in ("salient-tasks", "salient-sets"):
        assert "control task" in [title for title, _ in tables[name].columns]
    # What is said of a task is said once, not for every method again.
    tasks = [row.cells[0].text for row in tables["salient-tasks"].rows]
    assert tasks == ["class", "ACT_SITE"]
    best, control = tables["salient-sets"].rows[0].cells[3:5]
    assert (best.text, control.text) == ("0.60", "0.20")
    figure = next(block for block in blocks if isinstance(block, FigureGroup))
    chosen = {trace["name"]: trace["when"]["salient-chosen"] for trace in figure.panels[0].traces}
    assert chosen["best by probe"] == ["top"] and chosen["worst by probe"] == ["bottom"]
    assert chosen["random neurons"] == ["top", "bottom"]


def test_tables_of_knowledge_fit_a_laptop(run: Run, offline_page, tmp_path: Path) -> None:
    page, wrong = offline_page
    path = tmp_path / "report.html"
    path.write_text(report.render(run))
    page.set_viewport_size({"width": 1280, "height": 900})
    page.goto(path.as_uri())
    wide = {}
    for name in (
        "letters",
        "described-table",
        "concept-neurons-table",
        "salient-tasks",
        "salient-sets",
        "salient-places",
    ):
        wide[name] = page.evaluate(f"(() => {{ const b = document.querySelector('#{name} .scroll'); "
                                   "return b.scrollWidth - b.clientWidth; })()")  # fmt: skip
    assert set(wide.values()) == {0} and not wrong, wide


def with_forms(run: Run) -> Results:
    """A run whose integrated gradients have their absolute form too, which ranks."""
    results = Results(run)
    neurons = results.tables["neurons"]
    results.tables["neurons"] = neurons.assign(integrated_gradients_abs=-neurons["integrated_gradients"])
    results.study["score"]["ranking"] = "absolute"
    return results


def test_a_rank_says_which_form_of_the_score_it_is_by(run: Run) -> None:
    results = with_forms(run)
    text, table = neurons_section(results).blocks
    assert isinstance(table, Table) and isinstance(text, Text) and table.select is not None
    absolute, signed = (f"integrated gradients ({form})" for form in ("absolute", "signed mean"))
    columns = [name for name, _ in table.columns]
    assert columns.index(signed) == columns.index(absolute) + 1
    options = dict(table.select.options)
    # The word belongs to what was ranked by: the absolute form was compared with chance, under the method's name.
    assert options["integrated_gradients_abs"] == f"{absolute}: knowledge neurons, ranks 1 to 35"  # 2 % of 1,728
    assert options["integrated_gradients"] == f"{signed}: nothing is chosen by it"
    assert f"rank by {absolute}" in text.text and text.text.count("selected neurons") == 0
    ranks = {name for card in card_data(results)["cards"] for name in card["ranks"]}
    assert absolute in ranks and not any("signed" in name for name in ranks)
    assert f"by activation, activation std, activation contrast and {absolute}, after" in methods_paragraph(results)
    results.study["score"]["ranking"] = "signed"
    assert signed in {name for card in card_data(results)["cards"] for name in card["ranks"]}


def test_ranks_that_may_change_are_told_where_they_are_read(run: Run) -> None:
    results = Results(run)
    gaps = results.tables["completeness"]
    assert unsettled_words(results) == ""
    loose = (gaps["layer"] == 0) | ((gaps["layer"] == 4) & gaps["module"].isin(["key", "query"]))
    results.tables["completeness"] = gaps.assign(settled=~loose)
    said = unsettled_words(results)
    assert said.startswith(
        "Attributions by integrated gradients are not settled in layer 0; key and query of layer 4 ("
    )
    assert said.count("Attributions") == 1
    keys, cards = answers(results)[2:4]
    assert said in keys.more and said in cards.more
    assert any(isinstance(block, Text) and said in block.text for block in knowledge_section(results).blocks)
    assert any(isinstance(block, Text) and said in block.text for block in completeness_section(results).blocks)
    for card in card_data(results)["cards"]:
        where = card["layer"] == 0 or (card["layer"] == 4 and card["module"] in ("key", "query"))
        named = [name for name in card["ranks"] if name.startswith("integrated")]
        assert all(name.endswith(", not settled here") == where for name in named)
        assert not any(name.startswith("activation") and "settled" in name for name in card["ranks"])


def test_the_methods_paragraph_says_what_this_study_did(run: Run) -> None:
    results = Results(run)
    curves = results.tables["curves"]
    kept = (curves["mode"] == "keep") & (curves["ablation"].isin(["none", "mean"]))
    some = curves["fraction"].isin([0.0, 0.1, 1.0]) | ((curves["scope"] == "pooled") & (curves["fraction"] == 0.4))
    results.tables["curves"] = curves[kept & some & ~((curves["scope"] == "pooled") & (curves["fraction"] == 0.1))]
    text = methods_paragraph(results)
    assert "Of all neurons ranked together the best 40 % were kept (all others ablated), with mean ablation" in text
    assert "; of one kind of module at a time, with all other kinds intact, the best 10 % were kept" in text
    assert "every kind was also ablated whole" in text and " 0 %" not in text and "or ablated" not in text
    comparison = results.tables["comparison"]
    assert "one-sided (counted among the draws)" in text and "199" not in text and "no test" not in text
    few = np.where(comparison["primary"].astype(bool), "permutation", "too_few_draws")
    results.tables["comparison"] = comparison.assign(p_kind=few, n_draws=np.where(few == "permutation", 20, 2))
    text = methods_paragraph(results)
    assert "counted among the draws; no test where there are fewer than 20 draws" in text
    # The draws of keys are those of an outcome that was fixed, too.
    primary = comparison["primary"].astype(bool)
    there = comparison[["scope", "module"]].apply(tuple, axis=1)
    own = there.isin(set(there[primary])) & (comparison["mode"] == "keep") & (comparison["ablation"] == "mean")
    results.tables["comparison"] = comparison.assign(n_draws=np.where(own, 20, 2))
    assert "(20, elsewhere 2)" in methods_paragraph(results)


def test_p_is_corrected_over_the_kinds_that_were_tested() -> None:
    row = {"model": "run", "mode": "keep", "ablation": "mean", "metric": "balanced_accuracy", "method": "activation",
           "judged": True, "ci_low": 0.01, "difference": 0.1}  # fmt: skip
    kinds = [row | {"module": "key", "p_holm": 1 / 21, "n_draws": 20}]
    kinds += [row | {"module": name, "p_holm": np.nan, "n_draws": 2} for name in ("value", "output")]
    (said,) = kind_sentences(pd.DataFrame(kinds))
    assert said.endswith("key (+0.100, p = 0.048) of the 3 kinds that carry something; the other 2 had too few draws "
                         "for a test.")  # fmt: skip
    (said,) = kind_sentences(pd.DataFrame([one | {"p_holm": 0.1, "n_draws": 20} for one in kinds]))
    assert said.endswith("p corrected over the 3 that were tested (20 draws are too few for a corrected p below 0.05).")


def test_the_closing_table_says_why_a_small_p_is_no_yes(run: Run) -> None:
    results = Results(run)
    comparison = results.tables["comparison"]
    changed = comparison.assign(p_value=0.0476, ci_low=-0.013)
    lines = dict(closing_lines(results.metrics, changed, results.get("modules"), None))
    assert lines["beats chance, pooled: activation"].startswith("no (the interval reaches 0): ")
    lines = dict(closing_lines(results.metrics, comparison.assign(p_value=0.7), results.get("modules"), None))
    assert lines["beats chance, pooled: activation"].startswith("no: ")
    assert "of 5 kinds that carry something" in lines["kinds of module whose best neurons beat chance: activation"]
    assert lines["concentration: activation"].endswith("1: no better)")


def test_every_panel_of_kinds_says_how_many_draws_it_has(run: Run) -> None:
    results = Results(run)
    curves = results.tables["curves"]
    results.tables["curves"] = curves[(curves["module"] != "query") | (curves["draw"] < 2)]
    figure = kinds_figure(results)
    assert figure is not None
    titles = [panel.title for panel in figure.panels]
    most = curves.loc[(curves["module"] == "key"), "draw"].max() + 1
    assert "Query, 2 draws" in titles and f"Key, {most} draws" in titles and "fewer than 20" in figure.caption


def test_the_first_curves_are_of_one_method_beside_its_controls(run: Run) -> None:
    figure = next(block for block in curves_section(Results(run)).blocks if isinstance(block, FigureGroup))
    show = next(select for select in figure.selects if select.name == "show")
    first = show.options[0][0]
    assert first == "integrated_gradients" and show.options[-1][0] == "all"
    drawn = [t for t in figure.panels[0].traces if first in t["when"]["show"] and t.get("fill") == "toself"]
    assert drawn and figure.panels[0].layout["xaxis"]["rangemode"] == "tozero"
    results = Results(run)
    curves = results.tables["curves"]
    results.tables["curves"] = curves[curves["fraction"].isin([0.4, 1.0]) & curves["ablation"].isin(["none", "mean"])]
    text, figure = curves_section(results).blocks
    assert isinstance(text, Text) and "both are shown" not in text.text and isinstance(figure, FigureGroup)
    assert figure.panels[0].layout["xaxis"]["rangemode"] == "normal"  # two points would stand in half a plot


def test_one_epoch_is_told_in_words(run: Run) -> None:
    results = Results(run)
    training = results.tables["training"]
    results.tables["training"] = training[training["epoch"] == training["epoch"].min()].drop_duplicates("model")
    blocks = quality_section(results).blocks
    assert not any(isinstance(block, FigureGroup) and block.id == "training-figure" for block in blocks)
    assert any(isinstance(block, Text) and block.text.startswith("Fine-tuning took one epoch: ") for block in blocks)
    figure = next(b for b in quality_section(Results(run)).blocks if isinstance(b, FigureGroup) and "training" in b.id)
    assert figure.panels[1].layout["yaxis"]["range"] == [0, 1]


def test_numbers_of_the_evaluated_proteins_say_so(run: Run) -> None:
    results = Results(run)
    results.manifest = results.manifest | {"evaluated_proteins": 1043}
    said = "on the 1,043 test proteins that were evaluated"
    assert said in answers(results)[2].text
    figures = [kinds_figure(results), *curves_section(results).blocks]
    assert [said in block.caption for block in figures if isinstance(block, FigureGroup)] == [True, True]
    results.metrics["test"]["model"]["n"] = 5000
    confusion = next(b for b in quality_section(results).blocks if isinstance(b, FigureGroup) and "confusion" in b.id)
    assert "test proteins that were evaluated" in confusion.caption
    assert confusion.caption.endswith("The tables above are of all 5,000.")
