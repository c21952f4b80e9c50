"""The interventions of a run, by the command, on the finished tiny study."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from plmscope.cli import main
from plmscope.data.clusters import halves
from plmscope.errors import RunError
from plmscope.evaluation.overlap import overlap
from plmscope.evaluation.selection import select_top
from plmscope.scoring.scores import NeuronScores
from plmscope.store.folder import Run
from plmscope.study import Stages
from plmscope.study.intervening import intervene_run
from plmscope.study.opened import class_methods, class_scores, open_run
from plmscope.study.stability import stability
from plmscope.study.study_file import read_study
from tests.conftest import Golden

NAMES = ("interventions", "intervention_effects", "neuron_effects", "class_overlap", "stability")


@pytest.fixture(scope="module")
def folder(golden: Golden, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = golden.copy(tmp_path_factory.mktemp("trials") / "run")
    assert main(["intervene", str(folder), "--other", str(golden.run), "--quiet"]) == 0
    return folder


def test_every_table_is_there_and_whole(folder: Path) -> None:
    run = Run.open(folder)
    tables = {name: run.table(name) for name in NAMES}
    labels = {"2", "3", "6"}
    table = tables["interventions"]
    assert set(table["label"]) == set(table["effect_on"]) == labels
    assert len(table) == 3 * 3 * 3 * (1 + 2)  # classes, classes, mean / zero / 2, the selection and two draws
    effects = tables["intervention_effects"]
    assert set(effects["effect_on"]) == {"", *labels} and effects["p_value"].notna().all()
    assert len(tables["neuron_effects"]) == 3 * 3
    assert len(tables["class_overlap"]) == 3
    stable = tables["stability"].set_index(["compared_with", "label"])
    assert set(tables["stability"]["compared_with"]) == {"halves", "label_shuffled", "random_weights", "other_run"}
    assert (stable.loc["other_run", "jaccard"] == 1).all()  # the other run is its own copy
    assert 0 <= stable.loc[("halves", ""), "jaccard"] < 1


def test_overlap_of_classes_is_that_of_their_selections(folder: Path) -> None:
    opened = open_run(folder)
    assert class_methods(opened) == ("integrated_gradients",)
    scores = class_scores(opened, "integrated_gradients")
    expected = overlap(select_top(scores["2"], 0.05), select_top(scores["6"], 0.05))
    row = opened.run.table("class_overlap").set_index(["label", "other"]).loc[("2", "6")]
    assert (row["shared"], row["jaccard"]) == (expected.shared, pytest.approx(expected.jaccard))


def test_the_same_settings_give_the_same_tables(folder: Path, tmp_path: Path) -> None:
    before = {name: Run.open(folder).table(name) for name in NAMES}
    intervene_run(open_run(folder), tmp_path, "a")
    stages = Stages(read_study(folder / "study.toml"), Run.open(folder))
    for name in ("select", "stability"):
        stages.graph[name].run(stages.context(name))
    after = {name: Run.open(folder).table(name) for name in NAMES}
    for name in NAMES[:4]:
        pd.testing.assert_frame_equal(before[name], after[name])
    assert "other_run" not in set(after["stability"]["compared_with"])


def test_halves_share_no_cluster(folder: Path) -> None:
    opened = open_run(folder)
    one, two = halves(opened.proteins("scoring"), opened.clusters)
    assert {opened.clusters[p.id] for p in one}.isdisjoint(opened.clusters[p.id] for p in two)
    assert len(one) + len(two) == len(opened.proteins("scoring")) and min(len(one), len(two)) >= 3


def test_halves_of_which_one_ranks_nothing_are_not_compared(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = open_run(folder)
    scores = {"integrated_gradients": class_scores(opened, "integrated_gradients")}
    whole, flat = opened.scores("integrated_gradients"), np.zeros(len(opened.model.index))
    one = NeuronScores(whole.method, whole.index, whole.values, {"2": whole.values})
    for label, other in (("2", replace(one, values=flat)), ("", replace(one, per_class={"2": flat}))):
        monkeypatch.setattr("plmscope.study.stability._halves", lambda *_, other=other: (one, other))
        found = stability(opened, scores, 0.05)
        assert found.loc[found["compared_with"] == "halves", "label"].tolist() == [label]


def test_a_selection_made_elsewhere(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    opened, path = open_run(folder), tmp_path / "mine.tsv"
    select_top(opened.scores("integrated_gradients"), 0.1).to_tsv(path)
    assert main(["intervene", str(folder), "--selection", str(path), "--label", "2", "--factor", "0"]) == 0
    shown = capsys.readouterr().out
    assert "Selection(mine: " in shown and "chosen for class 2" in shown and "multiplied by 0" in shown
    path.write_text("layer\tmodule\tneuron\n99\tkey\t0\n")
    assert main(["intervene", str(folder), "--selection", str(path)]) == 2


def test_a_run_that_is_not_scored(folder: Path, tmp_path: Path) -> None:
    opened = open_run(folder)
    with pytest.raises(RunError, match="no class scores by 'conductance'"):
        class_scores(opened, "conductance")
