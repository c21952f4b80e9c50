"""Probes on few neurons: planted columns, control tasks, alike neurons, the stage and its section."""

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import balanced_accuracy_score, jaccard_score, mutual_info_score

from plmscope.errors import StudyError
from plmscope.knowledge.concepts import build_concepts
from plmscope.probing.curves import Task, control_labels, distinct, mass_of_sites, minimal_sets, probe_curves, shared
from plmscope.probing.iou import class_overlap
from plmscope.probing.linear_probe import every_third, fit_probe
from plmscope.probing.scorers import ranked
from plmscope.store.folder import Run
from plmscope.study.probing import asked_concepts, drawn, words
from tests.test_probing import planted

METHODS = ("probe", "probeless", "probeless_standardised", "gaussian", "iou")


@pytest.fixture(scope="module")
def curves():
    x, y, columns = planted(600, 300)
    held = every_third(y)
    task = Task("class", "protein", x[~held], y[~held], x[held], y[held], 6)
    scores = {name: ranked(name, task.x, task.y, 6)[0] for name in ("probe", "probeless_standardised")}
    return task, columns, scores, probe_curves(task, scores, sizes=(2, 10, 50), controls=4)


def test_few_planted_neurons_decide_and_labels_that_say_nothing_do_not(curves):
    task, _, _, table = curves
    rows = table.set_index(["method", "chosen", "n_neurons"])["balanced_accuracy"]
    for method in ("probe", "probeless_standardised"):
        best = rows[method, "top", 10]
        assert best > 0.5 and best > rows["", "random", 10] + 0.2 and best > rows[method, "bottom", 10] + 0.2
        assert abs(rows[method, "bottom", 10] - 1 / 6) < 0.12
    assert (minimal_sets(table)["n_neurons"] <= 10).all()
    controls = table["control_accuracy"].dropna()
    assert len(controls) == 2 * 3 + 1 and (controls - 1 / 6).abs().max() < 2 * np.sqrt(5 / 36 / len(task.held_y)) + 0.02
    told = table[table["control_accuracy"].notna()]
    assert told["selectivity"].tolist() == (told["balanced_accuracy"] - told["control_accuracy"]).tolist()


def test_where_all_neurons_read_nothing_no_few_do_as_well(curves):
    _, _, _, table = curves
    nothing = table.assign(selectivity=0.05, task="nothing")
    without = table.assign(selectivity=np.nan, task="no controls")
    assert set(minimal_sets(pd.concat([table, nothing, without]))["task"]) == {table["task"].iloc[0], "no controls"}
    assert not len(minimal_sets(nothing))


def test_numbers_equal_scikit_learn(curves):
    task, _, scores, table = curves
    best = np.argsort(-scores["probe"], kind="stable")[:10]
    predicted = fit_probe(task.x[:, best], task.y, 6).predict(task.held_x[:, best])
    row = table[(table["method"] == "probe") & (table["chosen"] == "top") & (table["n_neurons"] == 10)].iloc[0]
    assert row["balanced_accuracy"] == pytest.approx(balanced_accuracy_score(task.held_y, predicted))
    entropy = mutual_info_score(task.held_y, task.held_y)
    assert row["nmi"] == pytest.approx(mutual_info_score(task.held_y, predicted) / entropy)
    assert shared(predicted, predicted) == pytest.approx(1)


def test_iou_is_that_of_scikit_learn():
    rng = np.random.default_rng(2)
    x, y = rng.normal(size=(40, 5)), np.repeat([0, 1, 2], (20, 12, 8))
    x[:, 1] -= 4 * (y == 2)
    x[:, 4] = 7
    best, own = class_overlap(x, y, 4)
    for z, n in ((0, 20), (1, 12), (2, 8)):
        for k in range(4):
            edges = np.sort(x[:, k])[[n - 1, 40 - n]]
            both = jaccard_score(y == z, x[:, k] <= edges[0]), jaccard_score(y == z, x[:, k] >= edges[1])
            assert own[z, k] == pytest.approx(max(both))
    assert own[2, 1] == best[1] == 1 and not own[3].any() and not own[:, 4].any()


def test_of_alike_neurons_one_is_kept():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(200, 6))
    x[:, 4] = -x[:, 1] + 0.1 * x[:, 4]
    x[:, 5] = 3.0
    assert distinct(x, np.array([5, 4, 2, 1, 0, 3])).tolist() == [4, 2, 0, 3]
    assert distinct(x, np.array([5, 2, 4]), grouped=2).tolist() == [2]


def test_a_control_task_is_a_label_a_word_and_a_probe_that_knows_words_is_not_selective():
    rng = np.random.default_rng(1)
    kinds = ["AAA", "AAC", "ACA", "CAA", "CCA", "CAC", "ACC", "CCC"]
    said, held = rng.choice(kinds, 400).tolist(), rng.choice(kinds, 200).tolist()
    one_hot = [np.array([[word == kind for kind in kinds] for word in some], float) for some in (said, held)]
    y, held_y = (np.array([word[1] == "C" for word in some], int) for some in (said, held))
    task = Task("C", "residue", one_hot[0], y, one_hot[1], held_y, 2, said, held)
    own, theirs = control_labels(task, np.random.default_rng(3))
    told = dict(zip(said, own, strict=True))
    assert all(told[word] == label for word, label in zip(held, theirs, strict=True)) and set(own) == {0, 1}
    whole = probe_curves(task, {}, controls=3, seed=1).query("chosen == 'all'").iloc[0]
    assert whole["balanced_accuracy"] == 1 and abs(whole["selectivity"]) < 0.05


def test_where_the_mass_of_weights_is_by_hand():
    weights = np.array([[6.0, -3.0, 1.0, 0.0], [0.0, 0.0, -5.0, 5.0]])
    found = mass_of_sites(weights, np.array([0, 0, 1, 1]), (0.5, 0.6, 0.95))
    # Of the classes 0.6 + 0.3 + 0.1 and 0.5 + 0.5: the largest until so much is reached.
    assert found["n"].tolist() == [1, 1, 1, 2, 2, 2] and found["site"].tolist() == [0, 1] * 3


def test_residues_are_drawn_in_pairs_from_the_same_protein(proteins):
    concepts = build_concepts(proteins, kinds=("amino acid", "pattern"))
    number = concepts.number["leucine (L)"]
    marked, others = drawn(concepts, number, proteins, 12, np.random.default_rng(0))
    assert marked.keys() == others.keys() and 0 < sum(map(len, marked.values())) == sum(map(len, others.values())) <= 6
    for row, where in marked.items():
        assert {proteins[row].sequence[place] for place in where} == {"L"}
        assert "L" not in {proteins[row].sequence[place] for place in others[row]}
        assert all(word[1] == "L" and len(word) == 3 for word in words(proteins[row], where))
    assert asked_concepts(concepts, proteins, ["leucine (L)"]) == [number]
    patterns = asked_concepts(concepts, proteins, [])
    assert 0 < len(patterns) <= 3 and {concepts.concepts[one].kind for one in patterns} == {"pattern"}
    with pytest.raises(StudyError, match=r"probe\.concepts: 'helix' is no residue concept of this run"):
        asked_concepts(concepts, proteins, ["helix"])


def test_the_stage_of_the_run(golden):
    run = Run.open(golden.run)
    table, layers = run.table("probe_curves"), run.table("probe_layers")
    assert table["task"].unique().tolist() == ["class", "leucine (L)"] == layers["task"].unique().tolist()
    assert set(table["method"]) == {"", *METHODS} and set(table["n_neurons"]) == {10, len(run.table("neurons"))}
    assert table[["balanced_accuracy", "nmi"]].stack().between(0, 1).all()
    letter = table[(table["task"] == "leucine (L)") & (table["chosen"] == "all")].iloc[0]
    assert letter["balanced_accuracy"] > 0.9  # every neuron sees the letter
    counts = layers.groupby(["task", "mass"])["n"].sum()
    assert counts["class", 0.25] < counts["class", 0.5] < counts["class", 0.75] < len(run.table("neurons"))
    assert run.manifest()["probe"]["tasks"] == ["class", "leucine (L)"]
    assert "Salient neurons" in (run.path / "report.html").read_text()
