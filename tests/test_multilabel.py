"""Proteins with several classes, through the whole study: the run folder, the metrics, the scores, the comparison."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import sklearn.metrics

from plmscope import stats
from plmscope.cli import main
from plmscope.data.clusters import one_per_cluster
from plmscope.data.labels import (
    cases,
    class_names,
    classes_of,
    membership,
    pack,
    packed_has,
    packed_labels,
    rarest,
)
from plmscope.data.proteins import Protein, read_proteins
from plmscope.data.set_columns import PARTS
from plmscope.data.splits import split_proteins
from plmscope.errors import InputError, ModelError, StudyError
from plmscope.evaluation.judging import evaluate
from plmscope.evaluation.selection import select_top
from plmscope.models.classifier import Classifier
from plmscope.models.finetune import class_weights
from plmscope.models.loading import load_model
from plmscope.models.quality import baselines, quality
from plmscope.scoring.ablation import single_ablation
from plmscope.scoring.activation import summarise_activations
from plmscope.scoring.conductance import conductance
from plmscope.scoring.integrated_gradients import integrated_gradients
from plmscope.scoring.linear import attribution_patching, gradient_activation
from plmscope.scoring.methods import finish
from plmscope.store.folder import Run
from plmscope.store.schema import SCHEMA
from plmscope.study.opened import open_run
from tests.conftest import GOLDEN, make_proteins, save_tiny_model

NAMES = ("1", "2", "3")
SETS = ("1", "2", "3", "1;2", "2;3", "1;3")
MULTI = {"problem_type": "multi_label_classification"}


def random_members(rng: np.random.Generator, n: int, c: int) -> np.ndarray:
    """Random label sets, none of them empty."""
    members = rng.random((n, c)) < 0.35
    members[np.arange(n), rng.integers(0, c, n)] = True
    return members


def relabel(proteins: list[Protein]) -> list[Protein]:
    return [replace(p, label=SETS[i % len(SETS)]) for i, p in enumerate(proteins)]


@pytest.fixture(scope="module")
def multi(tmp_path_factory: pytest.TempPathFactory) -> Classifier:
    """The tiny model as a multi-label one."""
    return load_model(save_tiny_model(tmp_path_factory.mktemp("multi"), **MULTI))


# --- labels ----------------------------------------------------------------------------------------------------------


def test_label_text_to_matrix_and_back() -> None:
    assert classes_of("2;1; 2", "multi") == ("1", "2") and classes_of("2;1", "single") == ("2;1",)
    assert class_names(["2;1", None, "3"], "multi") == NAMES and class_names(["2;1", None], "single") == ("2;1",)
    members = membership(SETS, NAMES, "multi")
    assert members.astype(int).tolist() == [[1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 0], [0, 1, 1], [1, 0, 1]]
    assert packed_labels(pack(members), NAMES).tolist() == list(SETS)
    with pytest.raises(KeyError):
        membership(["4"], NAMES, "multi")


def test_bits_of_more_than_eight_classes() -> None:
    members = random_members(np.random.default_rng(0), 50, 19)
    packed = pack(members)
    assert packed.shape == (50, 3)
    assert (np.stack([packed_has(packed, c) for c in range(19)], 1) == members).all()
    names = [f"c{c:02d}" for c in range(19)]
    assert (membership(packed_labels(packed, names).tolist(), names, "multi") == members).all()


def test_a_single_label_task_is_the_plain_case() -> None:
    true = np.random.default_rng(0).integers(0, 4, 30)
    members = np.eye(4, dtype=bool)[true]
    found = cases(members)
    assert (found.owners == np.arange(30)).all() and (found.classes == true).all()
    assert (rarest(members) == true).all()


def test_cases_and_the_rarest_class() -> None:
    members = membership(["1;2", "2", "2;3", "1;2"], NAMES, "multi")
    found = cases(members)
    assert list(zip(found.owners.tolist(), found.classes.tolist(), strict=True)) == [
        (0, 0), (0, 1), (1, 1), (2, 1), (2, 2), (3, 0), (3, 1),
    ]  # fmt: skip
    assert rarest(members).tolist() == [0, 1, 2, 0]


# --- reading and splitting -------------------------------------------------------------------------------------------


def test_reading_several_classes(tmp_path: Path) -> None:
    path = tmp_path / "a.tsv"
    rows = ["id\tec\tkind\tsequence", "a\t1.1.1.1;3.2.1.1\t b ;a;b\tACDEFG", "b\t2.1.1.1\ta\tCDEFG", "c\t-\t;\tDEFG"]
    path.write_text("\n".join(rows))
    found = read_proteins(path, label="ec:1", task="multi", min_length=1)
    assert [p.label for p in found] == ["1;3", "2"] and found.labels == ("1", "2", "3")
    assert repr(found).endswith("classes: 1 (1), 2 (1), 3 (1); 1 proteins with several; 1 excluded: "
                                "1 x EC number too partial for level 1)")  # fmt: skip
    assert [p.label for p in read_proteins(path, label="ec:2", task="multi", min_length=1)] == ["1.1;3.2", "2.1"]
    found = read_proteins(path, label="kind", task="multi", min_length=1)
    assert [p.label for p in found] == ["a;b", "a"] and found.reasons == {"no value in column 'kind'": 1}
    with pytest.raises(InputError, match="'b ;a;b' looks like several classes joined by ';'; use task = \"multi\""):
        read_proteins(path, label="kind", min_length=1)
    single = read_proteins(path, label="ec:1", min_length=1)
    assert [p.id for p in single] == ["b"] and single.reasons["several classes at EC level 1"] == 1
    with pytest.raises(StudyError, match="task 'many' is unknown; use 'single' or 'multi'"):
        read_proteins(path, label="kind", task="many")  # type: ignore[arg-type]


def test_split_has_every_class_in_every_set() -> None:
    proteins = relabel(make_proteins(120))
    for seed in range(3):
        split = split_proteins(proteins, method="random", seed=seed, task="multi")
        for part in PARTS:
            own = [p.label for p in proteins if split.assignment[p.id] == part]
            assert class_names(own, "multi") == NAMES
        assert split.counts["test"] in range(15, 21)
    # Class r is on every protein of class x, of which there are too few.
    few = [replace(p, label="r;x" if i < 2 else "r" if i % 2 else "s") for i, p in enumerate(make_proteins(40))]
    with pytest.raises(InputError, match="class 'x' has only 2 proteins"):
        split_proteins(few, method="random", task="multi")
    column = [replace(p, columns={"split": PARTS[i // 4]}) for i, p in enumerate(relabel(make_proteins(12)))]
    assert split_proteins(column, method="column", task="multi").counts == {"train": 4, "validation": 4, "test": 4}
    column[4] = replace(column[4], label="1;9")
    with pytest.raises(InputError, match="column 'split' puts no protein of class '9' into train"):
        split_proteins(column, method="column", task="multi")


def test_scoring_proteins_fill_every_class() -> None:
    proteins = relabel(make_proteins(60))
    clusters = {p.id: p.id for p in proteins}
    chosen = one_per_cluster(proteins, clusters, 5, seed=0, task="multi")
    counts = membership([str(p.label) for p in chosen], NAMES, "multi").sum(0)
    assert (counts >= 5).all() and len(chosen) <= 15
    assert len(one_per_cluster(proteins, dict.fromkeys(clusters, "one"), 5, seed=0, task="multi")) == 1
    # A rare class that never comes alone is not left out because the other one is full.
    rare = [replace(p, label="1;2" if i < 3 else "1") for i, p in enumerate(proteins)]
    for seed in range(5):
        chosen = one_per_cluster(rare, clusters, 2, seed, task="multi")
        assert sum(p.label == "1;2" for p in chosen) == 2


# --- metrics ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("c", [3, 11])
def test_metrics_equal_scikit_learn_on_repeated_proteins(c: int) -> None:
    rng = np.random.default_rng(c)
    true, log_p = random_members(rng, 40, c), np.log(rng.random((4, 40)))
    said = rng.random((4, 40, c)) < 0.5
    weights = rng.integers(0, 4, (6, 40))
    for name, theirs in (
        ("accuracy", sklearn.metrics.accuracy_score),
        ("macro_f1", lambda t, p: sklearn.metrics.f1_score(t, p, average="macro")),
        ("balanced_accuracy", lambda t, p: np.mean(
            [sklearn.metrics.balanced_accuracy_score(t[:, k], p[:, k]) for k in range(c) if t[:, k].any()])),
    ):  # fmt: skip
        ours = stats.weighted_metric(name, weights, true, pack(said), log_p, c)
        for b, row in enumerate(weights):
            want = [theirs(np.repeat(true, row, axis=0), np.repeat(one, row, axis=0)) for one in said]
            np.testing.assert_allclose(ours[b], want, err_msg=name)
    np.testing.assert_allclose(stats.metric("log_loss", true, pack(said[0]), log_p[0], c), -log_p[0].mean())


def test_absent_and_universal_classes() -> None:
    true = np.array([[True, True, False], [False, True, False]])
    said = pack(np.array([[True, False, True], [False, True, True]]))
    # Class 0 is right; class 1, which all have, counts by its sensitivity; class 2, which none has, does not count.
    assert stats.metric("balanced_accuracy", true, said, np.zeros(2), 3) == pytest.approx((1 + 0.5) / 2)


def test_quality_equals_scikit_learn() -> None:
    rng = np.random.default_rng(1)
    true, p = random_members(rng, 60, 4), rng.random((60, 4))
    found, said = quality(true, np.log(p), ["a", "b", "c", "d"]), p > 0.5
    columns = range(4)
    assert found["n"] == 60 and found["accuracy"] == pytest.approx((said == true).all(1).mean())
    for name, want in {
        "macro_f1": sklearn.metrics.f1_score(true, said, average="macro"),
        "micro_f1": sklearn.metrics.f1_score(true, said, average="micro"),
        "mean_average_precision": sklearn.metrics.average_precision_score(true, p, average="macro"),
        "mcc": np.mean([sklearn.metrics.matthews_corrcoef(true[:, c], said[:, c]) for c in columns]),
        "log_loss": np.mean([sklearn.metrics.log_loss(true[:, c], p[:, c]) for c in columns]),
        "balanced_accuracy": np.mean(
            [sklearn.metrics.balanced_accuracy_score(true[:, c], said[:, c]) for c in columns]
        ),
    }.items():
        assert found[name] == pytest.approx(want), name
    assert found["per_class"]["b"]["recall"] == pytest.approx(said[true[:, 1], 1].mean())
    assert found["per_class"]["b"]["n"] == true[:, 1].sum()


def test_baselines_are_class_by_class() -> None:
    proteins = relabel(make_proteins(30, low=30))
    members = membership([str(p.label) for p in proteins], NAMES, "multi")
    members[:, 2] = True  # all have it
    found = baselines(proteins, proteins[:4], np.column_stack([members, np.zeros(30, dtype=bool)]), "multi", 0)
    np.testing.assert_allclose(np.exp(found["majority"][0, :3]), members.mean(0))
    assert found["composition"].shape == (4, 4) and (found["composition"][:, 2] == 0).all()
    np.testing.assert_allclose(found["composition"][:, 3], np.log(1e-12))
    assert class_weights(members, "multi").tolist() == [1, 1, 1 / 30]
    assert quality(members[:4], found["majority"][:, :3], NAMES)["balanced_accuracy"] == pytest.approx(2 / 3)


# --- scores ----------------------------------------------------------------------------------------------------------


def test_log_odds_are_the_logit_of_each_class(multi: Classifier) -> None:
    """By hand: the scores of a protein of classes 1 and 3 are those of two single-class proteins."""
    sequence = make_proteins(1)[0].sequence
    both, first, third = (Protein("p", sequence, label) for label in ("1;3", "1", "3"))
    others = [replace(p, label="2") for p in make_proteins(3)[1:]]
    groups = ["g0", "g1", "g2"]
    for scorer, settings in (
        (integrated_gradients, {"points": 3}),
        (conductance, {"points": 4}),
        (gradient_activation, {}),
        (attribution_patching, {"corruption": "shuffled"}),
        (single_ablation, {}),
    ):
        got = scorer(multi, [both, *others], groups=groups, **settings)[0]
        want = [scorer(multi, some, **settings)[0].values for some in ([first], others, [third])]
        for label, one in zip(NAMES, want, strict=True):
            np.testing.assert_allclose(got.per_class[label], one, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(got.values, np.mean([got.per_class[c] for c in NAMES], 0), rtol=1e-5, atol=1e-7)
        assert got.proteins == ("p", "p1", "p2")
        logits = scorer(multi, [both, *others], target="logit", **settings)[0]
        assert (logits.values == got.values).all()
        # Resampling counts a protein in both of its classes.
        assert got.resample is not None and got.sums is not None
        weights = np.array([2.0 * (name == "g0") for _, name in got.sums.keys])
        np.testing.assert_allclose(got.resample(weights), (want[0] + want[2]) / 2, rtol=1e-4, atol=1e-5)


def test_attributions_sum_to_the_mean_change_of_the_logits(multi: Classifier) -> None:
    protein = Protein("both", make_proteins(1)[0].sequence, "1;3")
    table = integrated_gradients(multi, [protein], points=60)[0].completeness
    assert table is not None and len(table) == 18 and not table.duplicated(["id", "layer", "module"]).any()
    last = table[(table["layer"] == 2) & (table["module"] == "attention_output")].iloc[0]
    np.testing.assert_allclose(last["got"], last["expected"], rtol=2e-2, atol=2e-2)
    parts = [
        integrated_gradients(multi, [replace(protein, label=c)], points=60)[0].completeness["expected"].to_numpy()  # type: ignore[index]
        for c in ("1", "3")
    ]
    np.testing.assert_allclose(table["expected"], np.mean(parts, 0), rtol=1e-4, atol=1e-5)


def test_activation_scores_by_hand(multi: Classifier) -> None:
    proteins = relabel(make_proteins(12))
    summary = summarise_activations(multi, proteins, groups=[p.id for p in proteins])
    absolute, _, contrast = summary.scores()
    alone = [summarise_activations(multi, [replace(p, label="1")]) for p in proteins]
    rows, mean = (np.stack([one.sums[name][0] for one in alone]) for name in ("absolute", "mean"))
    members = membership([str(p.label) for p in proteins], NAMES, "multi")
    np.testing.assert_allclose(absolute.values, rows.mean(0), rtol=1e-5)  # a protein counts once
    assert tuple(absolute.per_class) == NAMES and summary.labels == NAMES
    for c, label in enumerate(NAMES):
        own, rest = mean[members[:, c]], mean[~members[:, c]]
        np.testing.assert_allclose(absolute.per_class[label], rows[members[:, c]].mean(0), rtol=1e-5)
        spread = ((own - own.mean(0)) ** 2).sum(0) + ((rest - rest.mean(0)) ** 2).sum(0)
        want = np.abs(own.mean(0) - rest.mean(0)) / np.sqrt(spread / 10)
        np.testing.assert_allclose(contrast.per_class[label], want, rtol=1e-3, atol=1e-6)
    want = np.mean([mean[members[:, c]].mean(0) for c in range(3)], 0)
    np.testing.assert_allclose(summary.constants("mean")[2], want, rtol=1e-5, atol=1e-7)
    # Without the first six proteins, the scores of the others; halves merge into the whole.
    half = summarise_activations(multi, proteins[6:])
    late = {p.id for p in proteins[6:]}
    for one, other in zip(half.scores(), summary.scores(), strict=True):
        assert other.resample is not None and other.sums is not None
        again = other.resample(np.array([float(name in late) for _, name in other.sums.keys]))
        np.testing.assert_allclose(one.values, again, rtol=1e-4, atol=1e-7)
    merged = summarise_activations(multi, proteins[:6]).grouped.merge(half.grouped)
    np.testing.assert_allclose(finish("activation", merged, {}).values, absolute.values, rtol=1e-5)


def test_unknown_class_is_refused(multi: Classifier) -> None:
    with pytest.raises(InputError, match="protein 'odd' has the label '1;4'; the model knows 1, 2, 3"):
        multi.targets([Protein("odd", "ACD", "1;4")])
    assert multi.targets([Protein("p", "ACD", "3;1")]).tolist() == [[True, False, True]]


def test_evaluate_from_python(multi: Classifier) -> None:
    proteins = relabel(make_proteins(12))
    scores = summarise_activations(multi, proteins[:6]).scores()[1]
    result = evaluate(multi, proteins[6:], select_top(scores, 0.2), ablation="zero", n_random=2)
    p = np.exp(multi.log_probabilities(proteins[6:]))
    true = multi.targets(proteins[6:])
    assert result.intact["accuracy"] == pytest.approx(((p > 0.5) == true).all(1).mean())
    want = -np.log(np.where(true, p, 1 - p)).mean()
    assert result.intact["log_loss"] == pytest.approx(want, rel=1e-4)
    assert "balanced accuracy" in repr(result)


# --- the whole study -------------------------------------------------------------------------------------------------


def write_mixed(path: Path, n: int = 60) -> Path:
    """Random proteins whose composition says their classes: rich in W, in C, in P."""
    rng, letters = np.random.default_rng(3), list("ADEFGHIKLMNQRSTVY")
    rows = ["id\tkind\tsequence"]
    for i in range(n):
        label = SETS[i % len(SETS)]
        own = ["WCP"[int(c) - 1] for c in label.split(";")]
        sequence = "".join(rng.choice(letters + own * 4, 34))
        rows.append(f"q{i}\t{label}\t{sequence}")
    path.write_text("\n".join(rows) + "\n")
    return path


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished multi-label run."""
    folder = tmp_path_factory.mktemp("study")
    data, model = write_mixed(folder / "mixed.tsv"), save_tiny_model(folder / "model", scale=20)
    text = GOLDEN.format(data=data, model=model).replace("[split]", 'label = "kind"\ntask = "multi"\n\n[split]')
    text = text.replace("epochs = 6", "epochs = 3").replace("proteins_per_class = 6", "proteins_per_class = 3")
    text = text.replace('"activation_std", "i', '"activation_std", "activation_contrast", "i')
    text = text.replace("bootstraps = 20", 'bootstraps = 5\nnulls = ["label_shuffled"]')
    (folder / "laid.toml").write_text(text)
    (folder / "multi.toml").write_text(re.sub(r"^parts = .*$", "parts = []", text, flags=re.MULTILINE))
    assert main(["run", str(folder / "multi.toml"), "--out", str(folder / "run"), "--quiet"]) == 0
    return folder / "run"


def test_layout_of_several_classes_is_refused_before_any_work(
    study: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["run", str(study.parent / "laid.toml"), "--out", str(tmp_path / "run"), "--quiet"]) == 2
    line = 'layout.parts: every protein has to have one class, and task = "multi"; write parts = []'
    assert line in capsys.readouterr().err and not list(tmp_path.rglob("*.safetensors"))


def test_study_holds_to_the_contract(study: Path) -> None:
    run = Run.open(study)
    for name, columns in ((name, SCHEMA[name]) for name in SCHEMA if run.has(name)):
        assert list(run.table(name).columns)[: len(columns)] == list(columns), name
    assert set(run.table("proteins")["label"]) == set(SETS)
    assert set(run.table("class_scores")["label"]) == set(NAMES)
    config = json.loads((study / "model" / "config.json").read_text())
    assert config["problem_type"] == "multi_label_classification"
    assert config["id2label"] == {"0": "1", "1": "2", "2": "3"}
    metrics = run.metrics()
    assert metrics["labels"] == list(NAMES) and metrics["task"] == "multi"
    assert metrics["splits"]["test"]["majority"]["balanced_accuracy"] == pytest.approx(0.5)
    completeness = run.table("completeness")
    assert not completeness.duplicated(["method", "id", "layer", "module"]).any()
    assert set(run.table("density_null")["null"]) == {"label_shuffled"}


def test_metrics_and_curves_equal_scikit_learn(study: Path) -> None:
    run = open_run(study)
    proteins = run.proteins("test")
    true = membership([str(p.label) for p in proteins], NAMES, "multi")
    p = np.exp(run.model.log_probabilities(proteins))
    own = run.run.metrics()["splits"]["test"]["model"]
    assert own["mean_average_precision"] == pytest.approx(sklearn.metrics.average_precision_score(true, p))
    assert own["micro_f1"] == pytest.approx(sklearn.metrics.f1_score(true, p > 0.5, average="micro"))
    curves, predictions = run.run.table("curves"), run.run.table("predictions")
    assert len(predictions) == len(curves) * len(proteins)
    intact = predictions[predictions["curve_point"] == 0]["predicted"].tolist()
    assert intact == packed_labels(pack(p > 0.5), NAMES).tolist()
    seen = set()
    for point, rows in predictions.groupby("curve_point"):
        assert rows["id"].tolist() == [one.id for one in proteins]
        said = np.array([[name in text.split(";") for name in NAMES] for text in rows["predicted"]])
        row = curves.loc[point]
        assert row["accuracy"] == pytest.approx(sklearn.metrics.accuracy_score(true, said))
        balanced = [sklearn.metrics.balanced_accuracy_score(true[:, c], said[:, c]) for c in range(3)]
        assert row["balanced_accuracy"] == pytest.approx(np.mean(balanced))
        assert row["macro_f1"] == pytest.approx(sklearn.metrics.f1_score(true, said, average="macro", zero_division=0))
        assert row["log_loss"] == pytest.approx(-rows["log_prob_true"].mean(), rel=1e-5)
        seen.add(round(float(row["balanced_accuracy"]), 6))
    assert len(seen) > 3
    assert curves.loc[0, "log_loss"] == pytest.approx(-np.log(np.where(true, p, 1 - p)).mean(), rel=1e-3)
    assert curves.loc[0, "balanced_accuracy"] == pytest.approx(own["balanced_accuracy"])


def test_comparison_caps_the_log_loss_of_yes_or_no(study: Path) -> None:
    run = Run.open(study)
    table = run.table("comparison")
    primary = table[table["primary"]]
    assert (
        len(primary) == 6 and set(primary["module"]) == {"", "key"} and (primary["metric"] == "balanced_accuracy").all()
    )
    losses = table[(table["metric"] == "log_loss") & (table["mode"] == "keep")]
    assert (losses["auc"] <= 2 * np.log(2) * 0.9 + 1e-9).all()


def test_report_names_the_task_and_counts_every_class(study: Path) -> None:
    html = (study / "report.html").read_text()
    assert "multi-label" in html and "micro F1" in html.replace("Micro", "micro")
    assert "1;2" not in html.split("Proteins per class and split")[1].split("</table>")[0]


# --- binary: a single-label task with two classes --------------------------------------------------------------------


def test_binary_study(tmp_path: Path) -> None:
    data, model = write_mixed(tmp_path / "mixed.tsv", 36), save_tiny_model(tmp_path / "model", scale=20)
    text = data.read_text().replace("\tkind\t", "\thas_w\t")
    for label in SETS:
        text = text.replace(f"\t{label}\t", "\tyes\t" if "1" in label else "\tno\t")
    data.write_text(text)
    study = tmp_path / "binary.toml"
    study.write_text(
        f"""
        data = {{path = "{data}", label = "has_w"}}
        split = {{method = "random"}}
        model = {{checkpoint = "{model}"}}
        finetune = {{epochs = 2, learning_rate = 0.004}}
        score = {{methods = ["activation_contrast", "integrated_gradients"], proteins_per_class = 3, points = 2}}
        density = {{bootstraps = 0, nulls = []}}
        [evaluate]
        fractions = [0.2]
        modes = ["keep"]
        ablations = ["mean"]
        scopes = ["pooled"]
        controls = ["random_matched"]
        draws = 2
        """
    )
    assert main(["run", str(study), "--out", str(tmp_path / "run"), "--quiet"]) == 0
    run = open_run(tmp_path / "run")
    assert run.model.task == "single" and run.model.labels == ("no", "yes")
    proteins = run.proteins("test")
    true = np.array([p.label == "yes" for p in proteins])
    log_p = run.model.log_probabilities(proteins)
    said = log_p[:, 1] > log_p[:, 0]
    own = run.run.metrics()["splits"]["test"]["model"]
    assert own["balanced_accuracy"] == pytest.approx(sklearn.metrics.balanced_accuracy_score(true, said))
    assert own["per_class"]["yes"]["f1"] == pytest.approx(sklearn.metrics.f1_score(true, said, zero_division=0))
    assert own["mcc"] == pytest.approx(sklearn.metrics.matthews_corrcoef(true, said))
    assert set(run.run.table("class_scores")["label"]) == {"no", "yes"}
    # With two classes the log-odds of one are minus those of the other.
    found = [
        integrated_gradients(run.model, [replace(proteins[0], label=c)], points=3)[0].values for c in ("no", "yes")
    ]
    np.testing.assert_allclose(found[0], -found[1], rtol=1e-4, atol=1e-5)


def test_head_with_one_output_is_refused(tmp_path: Path) -> None:
    folder = save_tiny_model(tmp_path / "one", id2label={0: "yes"}, label2id={"yes": 0})
    with pytest.raises(ModelError, match="has one output; a yes-or-no classifier needs two classes"):
        load_model(folder)
