"""A whole study: its run folder holds to the data contract, repeats, survives any death, redoes only what it must."""

import bz2
import errno
import io
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import sklearn.metrics
from pandas.testing import assert_frame_equal

import plmscope.store.files
import plmscope.store.folder
import plmscope.store.resume
import plmscope.study.inputs
from plmscope.cli import main
from plmscope.data.clusters import one_per_cluster
from plmscope.data.proteins import Protein, read_proteins
from plmscope.errors import InputError, RunError, SelectionError, StudyError
from plmscope.evaluation.judging import evaluate
from plmscope.evaluation.kinds import ROUNDING
from plmscope.evaluation.selection import select_top
from plmscope.models.loading import load_model
from plmscope.scoring.methods import SCORERS
from plmscope.scoring.table import FORMS, signed_methods
from plmscope.store.folder import Run
from plmscope.store.schema import SCHEMA, SCHEMA_VERSION
from plmscope.study import Stages, names
from plmscope.study.counting import _activity
from plmscope.study.demo import demo_study
from plmscope.study.inputs import _kept_apart, anchored
from plmscope.study.laying import Laying
from plmscope.study.nulls import run as run_nulls
from plmscope.study.opened import class_scores, open_run
from plmscope.study.scoring import read_sums
from plmscope.study.settings import Study
from plmscope.study.study_file import parse_study, read_study, write_study
from tests.conftest import Golden, make_proteins

STAGES = names()
SIGNED = signed_methods()
MODULES = {"query": 24, "key": 24, "value": 24, "attention_output": 24, "intermediate": 48, "output": 24}
METHODS = ["activation_std", "integrated_gradients"]
#: What selections by each are ranked by.
RANKED = ["activation_std", "integrated_gradients_abs"]
CONTROLS = ["random", "random_matched", "random_active"]
NEURONS = 3 * sum(MODULES.values())
METRICS = ["accuracy", "balanced_accuracy", "macro_f1", "log_loss", "true_class_probability"]

#: Tables that the stages write; no protein of the tiny study has a structure (tests/test_card_views.py).
WRITTEN = sorted(set(SCHEMA) - {"card_views", "card_structures"})

#: A cheap evaluation, for tests that run one again.
CHEAP = {"fractions": [0.2], "modes": ["keep"], "controls": ["random_matched"], "scopes": ["pooled"], "draws": 2}


@pytest.fixture(scope="module")
def tables(golden: Golden) -> dict[str, pd.DataFrame]:
    run = Run.open(golden.run)
    return {name: run.table(name) for name in WRITTEN}


@pytest.fixture(scope="module")
def test_proteins(tables: dict[str, pd.DataFrame]) -> pd.DataFrame:
    return tables["proteins"].query("split == 'test'").set_index("id")


def changed(study: Path, path: Path, **changes: dict[str, object] | object) -> Path:
    """A copy of a study file with other settings."""
    content = tomllib.loads(study.read_text())
    for key, value in changes.items():
        content[key] = content.get(key, {}) | value if isinstance(value, dict) else value
    path.write_text(write_study(parse_study(content, "test")))
    return path


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# --- the data contract ------------------------------------------------------------------------------------------------


def test_files_of_a_run_folder(golden: Golden) -> None:
    tables = {f"{name}.parquet" for name in WRITTEN}
    own = {"ablation_means.parquet", "score_bootstraps.parquet", "score_sums.npz"}
    found = {path.name for path in golden.run.iterdir()}
    assert found == tables | own | {
        "study.toml", "manifest.json", "metrics.json", "report.html", "model", "nulls", "null_fits", ".lock",
    }  # fmt: skip


@pytest.mark.parametrize("name", sorted(WRITTEN))
def test_columns_in_order(tables: dict[str, pd.DataFrame], name: str) -> None:
    extra = [*METHODS, RANKED[1]] if name == "neurons" else []
    assert list(tables[name].columns) == [*SCHEMA[name], *extra]
    # The tiny study leaves nothing out, has no features, and its classes are too small to prune.
    assert len(tables[name]) or name in ("excluded", "recall_context", "separability")


def test_manifest(golden: Golden) -> None:
    manifest = json.loads((golden.run / "manifest.json").read_text())
    assert manifest["schema_version"] == SCHEMA_VERSION
    assert {"plmscope", "torch", "transformers", "python"} <= set(manifest["versions"])
    assert (manifest["seed"], manifest["device"], manifest["dtype"], manifest["name"]) == (
        1,
        "cpu",
        "float32",
        "golden",
    )
    assert manifest["threads"] >= 1 and manifest["command"]
    assert manifest["data"] == {
        "source": str(golden.data), "sha256": read_proteins(golden.data).sha256, "n_read": 60, "n_excluded": 0,
        "n_windowed": 0, "n_unused_labels": 0, "changes": {},
    }  # fmt: skip
    assert manifest["split"] == {
        "method": "random", "identity": 0.3, "coverage": 0.8, "cluster_column": "",
        "train": 36, "validation": 12, "test": 12,
    }  # fmt: skip
    model = manifest["model"]
    assert (model["id"], model["architecture"]) == (str(golden.model), "esm") and len(model["sha256"]) == 64
    assert (model["layers"], model["hidden"], model["neurons"]) == (3, 24, NEURONS)
    assert list(manifest["stages"]) == list(STAGES)
    for stage in manifest["stages"].values():
        assert stage["status"] == "done" and stage["seconds"] >= 0 and stage["peak_memory_mb"] > 0


def test_proteins_are_those_of_the_file(golden: Golden, tables: dict[str, pd.DataFrame]) -> None:
    found = read_proteins(golden.data, label="ec:1", min_length=30)
    table = tables["proteins"]
    assert table["id"].tolist() == [p.id for p in found]
    assert table["sequence"].tolist() == [p.sequence for p in found]
    assert table["label"].tolist() == [p.label for p in found]
    assert (table["length"] == table["sequence"].str.len()).all()
    assert (
        pd.crosstab(table["label"], table["split"])[["train", "validation", "test"]].to_numpy().tolist()
        == [[12, 4, 4]] * 3
    )
    assert table.groupby("cluster")["split"].nunique().max() == 1


def test_leakage_covers_validation_and_test(tables: dict[str, pd.DataFrame]) -> None:
    proteins, leakage = tables["proteins"].set_index("id"), tables["leakage"]
    assert set(leakage["id"]) == set(proteins.query("split != 'train'").index)
    assert (leakage["split"].to_numpy() == proteins.loc[leakage["id"], "split"].to_numpy()).all()
    near = leakage[leakage["nearest_train"] != ""]
    assert (proteins.loc[near["nearest_train"], "split"] == "train").all() and near["identity"].between(0, 1).all()
    assert (leakage.loc[leakage["nearest_train"] == "", "identity"] == 0).all()


def test_training_has_one_row_an_epoch_and_model(tables: dict[str, pd.DataFrame]) -> None:
    training = tables["training"]
    assert list(training["model"].unique()) == ["fine-tuned", "label_shuffled", "random_weights"]
    for _, rows in training.groupby("model"):
        assert rows["epoch"].tolist() == list(range(1, len(rows) + 1)) and 3 < len(rows) <= 6
        assert np.isfinite(rows[["train_loss", "validation_loss", "seconds"]]).all().all()
        assert rows["validation_balanced_accuracy"].between(0, 1).all()


def test_metrics_equal_scikit_learn(golden: Golden, tables: dict[str, pd.DataFrame]) -> None:
    run, proteins = open_run(golden.run), tables["proteins"]
    metrics = run.run.metrics()
    assert metrics["labels"] == ["2", "3", "6"] and set(metrics["splits"]) == {"validation", "test"}
    for part, rows in metrics["splits"].items():
        true = proteins.loc[proteins["split"] == part, "label"].to_numpy()
        log_p = run.model.log_probabilities(run.proteins(part))
        predicted = np.array(["2", "3", "6"])[log_p.argmax(1)]
        own = rows["model"]
        assert own["n"] == 12 == sum(c["n"] for c in own["per_class"].values())
        assert own["accuracy"] == pytest.approx(sklearn.metrics.accuracy_score(true, predicted))
        assert own["balanced_accuracy"] == pytest.approx(sklearn.metrics.balanced_accuracy_score(true, predicted))
        assert own["macro_f1"] == pytest.approx(sklearn.metrics.f1_score(true, predicted, average="macro"))
        assert own["mcc"] == pytest.approx(sklearn.metrics.matthews_corrcoef(true, predicted))
        assert own["log_loss"] == pytest.approx(sklearn.metrics.log_loss(true, np.exp(log_p)), rel=1e-5)
        recall = sklearn.metrics.recall_score(true, predicted, average=None, labels=["2", "3", "6"])
        assert [own["per_class"][c]["recall"] for c in "236"] == pytest.approx(list(recall))
        # Equal classes: whoever always says one of them is right in a third.
        assert rows["majority"]["balanced_accuracy"] == pytest.approx(1 / 3)
        assert rows["majority"]["log_loss"] == pytest.approx(np.log(3))
        assert rows["composition"]["n"] == 12 and 0 <= rows["composition"]["accuracy"] <= 1


def test_neurons_are_all_there_once(tables: dict[str, pd.DataFrame]) -> None:
    neurons = tables["neurons"]
    assert len(neurons) == NEURONS and not neurons.duplicated(["layer", "module", "neuron"]).any()
    counts = neurons.groupby(["layer", "module"]).size()
    assert {key: int(n) for key, n in counts.items()} == {
        (layer, m): n for layer in range(3) for m, n in MODULES.items()
    }
    assert np.isfinite(neurons[METHODS]).all().all() and (neurons["activation_std"] >= 0).all()


def test_class_scores_average_to_the_scores(tables: dict[str, pd.DataFrame]) -> None:
    keys = ["layer", "module", "neuron"]
    own = tables["class_scores"].query("method == 'integrated_gradients'")
    assert set(own["label"]) == {"2", "3", "6"} and len(own) == 3 * NEURONS
    mean = own.groupby(keys)["score"].mean()
    overall = tables["neurons"].set_index(keys)["integrated_gradients"]
    np.testing.assert_allclose(mean.reindex(overall.index), overall, rtol=1e-5, atol=1e-7)


def test_completeness_has_every_scored_protein_and_site(golden: Golden, tables: dict[str, pd.DataFrame]) -> None:
    table = tables["completeness"]
    assert set(table["method"]) == {"integrated_gradients"}
    assert len(table) == 18 * 3 * len(MODULES) and not table.duplicated(["id", "layer", "module"]).any()
    assert set(table["id"]) == set(Run.open(golden.run).manifest()["scoring_ids"])
    np.testing.assert_allclose(table["gap"].abs(), (table["got"] - table["expected"]).abs(), rtol=1e-4, atol=1e-5)


def test_selections_are_the_best_scored(tables: dict[str, pd.DataFrame]) -> None:
    keys = ["layer", "module", "neuron"]
    table, neurons = tables["selections"], tables["neurons"].set_index(keys)
    assert set(table["scope"]) == {"pooled", "per_site", "module"} and set(table["method"]) == set(METHODS)
    within = table["scope"] == "module"
    assert set(table.loc[~within, "fraction"]) == {0.02, 0.05, 0.1, 0.5} and set(table["draw"]) == {-1}  # 0.02: report
    assert set(table.loc[within, "fraction"]) == {0.2, 0.5}
    for (method, scope, fraction), rows in table.groupby(["method", "scope", "fraction"]):
        chosen = pd.MultiIndex.from_frame(rows[keys])
        values = neurons[dict(zip(METHODS, RANKED, strict=True))[method]]
        if scope == "module":
            sizes = rows.groupby("module").size()
            assert sizes.to_dict() == {m: int(np.floor(fraction * 3 * n + 0.5)) for m, n in MODULES.items()}
            for kind in MODULES:
                mine = chosen[chosen.get_level_values("module") == kind]
                assert values[mine].min() >= values[values.index.get_level_values("module") == kind].drop(mine).max()
        elif scope == "pooled":
            assert len(rows) == int(np.floor(fraction * NEURONS + 0.5))
            assert values[chosen].min() >= values.drop(chosen).max()
        else:
            sizes = rows.groupby(["layer", "module"]).size()
            assert len(sizes) == 18
            assert all(n == max(1, int(np.floor(fraction * MODULES[m] + 0.5))) for (_, m), n in sizes.items())


def test_agreement(tables: dict[str, pd.DataFrame]) -> None:
    table, chosen = tables["agreement"], tables["selections"].query("scope == 'pooled'")
    assert table[["method", "other", "fraction"]].to_numpy().tolist() == [[*METHODS, 0.05], [*METHODS, 0.1]]
    rho = tables["neurons"][RANKED].corr("spearman").iloc[0, 1]
    np.testing.assert_allclose(table["spearman"], rho)
    for row in table.itertuples():
        a, b = (
            set(chosen[(chosen["method"] == m) & (chosen["fraction"] == row.fraction)][["layer", "module", "neuron"]]
                .itertuples(index=False, name=None))
            for m in METHODS
        )  # fmt: skip
        assert row.overlap == pytest.approx(len(a & b) / len(a))
        assert row.overlap_expected == pytest.approx(len(b) / NEURONS)


def test_curves_have_every_cell_and_draw(tables: dict[str, pd.DataFrame]) -> None:
    curves = tables["curves"]
    intact = curves[curves["ablation"] == "none"]
    assert len(intact) == 1 and intact.index[0] == 0
    assert intact[["method", "draw", "fraction", "n_neurons"]].to_numpy().tolist() == [["intact", -1, 1.0, NEURONS]]
    rest = curves[1:]
    assert not rest.duplicated(
        ["method", "matched_to", "scope", "module", "draw", "mode", "ablation", "fraction"]
    ).any()
    within, rest = rest[rest["scope"] == "module"], rest[rest["scope"] != "module"]
    assert set(within["module"]) == set(MODULES) and set(rest["module"]) == {""}
    held = within[within["method"] == "held"]
    assert (held["fraction"] == 0).all() and held["module"].value_counts().eq(1).all()
    for (kind, fraction), rows in within.drop(held.index).groupby(["module", "fraction"]):
        assert set(rows.loc[rows["draw"] < 0, "method"]) == set(METHODS)
        assert (rows["n_neurons"] == int(np.floor(fraction * 3 * MODULES[kind] + 0.5))).all()
    for (scope, mode, ablation), rows in rest.groupby(["scope", "mode", "ablation"]):
        primary = (scope, mode, ablation) == ("pooled", "keep", "mean")
        assert set(rows.loc[rows["draw"] < 0, "method"]) == set(METHODS)
        for control, targets in (("random", {""}), ("random_matched", set(METHODS)), ("random_active", set(METHODS))):
            own = rows[rows["method"] == control]
            assert set(own["matched_to"]) == targets
            draws = 3 if primary and control == "random_matched" else 2
            assert len(own) == draws * len(targets) * 2 and set(own["draw"]) == set(range(draws))
    assert rest.groupby(["scope", "mode", "ablation"]).ngroups == 8
    pooled = rest[rest["scope"] == "pooled"]
    assert (pooled["n_neurons"] == np.floor(pooled["fraction"] * NEURONS + 0.5)).all()
    per_site = {f: 3 * sum(int(np.floor(f * n + 0.5)) for n in MODULES.values()) for f in (0.1, 0.5)}
    sited = rest[rest["scope"] == "per_site"]
    assert (sited["n_neurons"] == sited["fraction"].map(per_site)).all()


def test_curves_equal_scikit_learn(tables: dict[str, pd.DataFrame], test_proteins: pd.DataFrame) -> None:
    curves, predictions = tables["curves"], tables["predictions"]
    assert predictions["curve_point"].tolist() == np.repeat(np.arange(len(curves)), 12).tolist()
    labels = np.array(["2", "3", "6"])
    seen = set()
    for point, rows in predictions.groupby("curve_point"):
        assert set(rows["id"]) == set(test_proteins.index)
        true, got = test_proteins.loc[rows["id"], "label"].to_numpy(), labels[rows["predicted"]]
        log_p, row = rows["log_prob_true"].to_numpy(dtype=np.float64), curves.loc[point]
        assert row["accuracy"] == pytest.approx(sklearn.metrics.accuracy_score(true, got))
        assert row["balanced_accuracy"] == pytest.approx(sklearn.metrics.balanced_accuracy_score(true, got))
        assert row["macro_f1"] == pytest.approx(
            sklearn.metrics.f1_score(true, got, average="macro", labels=labels, zero_division=0)
        )
        assert row["log_loss"] == pytest.approx(-log_p.mean(), rel=1e-5)
        assert row["true_class_probability"] == pytest.approx(np.exp(log_p).mean(), rel=1e-5)
        seen.add(round(float(row["balanced_accuracy"]), 6))
    assert len(seen) > 3  # a grid whose points are all alike would prove nothing


def test_intact_curve_is_the_fine_tuned_model(golden: Golden, tables: dict[str, pd.DataFrame]) -> None:
    run = open_run(golden.run)
    proteins = run.proteins("test")
    log_p = run.model.log_probabilities(proteins)
    rows = tables["predictions"].query("curve_point == 0").set_index("id").loc[[p.id for p in proteins]]
    assert rows["predicted"].tolist() == log_p.argmax(1).tolist()
    true = log_p[np.arange(len(proteins)), run.model.targets(proteins)]
    np.testing.assert_allclose(rows["log_prob_true"], true, atol=1e-4)
    assert tables["curves"].loc[0, "balanced_accuracy"] == pytest.approx(
        run.run.metrics()["splits"]["test"]["model"]["balanced_accuracy"]
    )


def test_no_evaluated_protein_was_trained_on_or_scored(golden: Golden, tables: dict[str, pd.DataFrame]) -> None:
    split = tables["proteins"].set_index("id")["split"]
    evaluated, scored = set(tables["predictions"]["id"]), set(Run.open(golden.run).manifest()["scoring_ids"])
    assert set(split[list(evaluated)]) == {"test"} and set(split[list(scored)]) == {"train"}
    assert not evaluated & scored and len(scored) == 18
    run = open_run(golden.run)
    assert {p.id for p in run.proteins("scoring")} == scored
    assert {p.id for p in run.proteins("evaluation")} == evaluated
    assert set(run.scores("activation_std").proteins) == scored
    kept = select_top(run.scores("activation_std"), 0.1)
    with pytest.raises(SelectionError, match="18 of the proteins"):
        evaluate(run.model, run.proteins("scoring"), kept)


def test_comparison(tables: dict[str, pd.DataFrame]) -> None:
    table, curves = tables["comparison"], tables["curves"]
    keys = ["method", "against", "scope", "module", "mode", "ablation", "metric"]
    within = table["scope"] == "module"  # six kinds, keep and ablate, one control
    assert (~within).sum() == 8 * 2 * 3 * 6 and within.sum() == 6 * 2 * 2 * 6 and not table.duplicated(keys).any()
    assert table["ranked_by"].equals(table["method"].replace("integrated_gradients", "integrated_gradients_abs"))
    primary = table[table["primary"]]
    names = ["method", "against", "scope", "module", "mode", "ablation", "metric"]
    assert sorted(primary[names].to_numpy().tolist()) == sorted(
        [method, "random_matched", *cell, "keep", "mean", "balanced_accuracy"]
        for method in METHODS
        for cell in (("pooled", ""), ("module", "key"))
    )
    assert (primary["n_draws"] == 3).all() and (table[table["mode"] == "ablate"]["n_draws"] == 2).all()
    # Two or three draws are counted, and are no test.
    assert set(table["p_kind"]) == {"too_few_draws"} and table["q_value"].isna().all()
    np.testing.assert_allclose(
        table["p_value"], (1 + table["n_draws"] - table["draws_beaten"]) / (1 + table["n_draws"])
    )
    paired = table["metric"] == "log_probability"
    assert table["share_better"].notna().equals(paired) and table.loc[paired, "share_better"].between(0, 1).all()
    np.testing.assert_allclose(table["difference"], table["auc"] - table["auc_against"], atol=1e-12)
    assert (table["ci_low"] <= table["ci_high"]).all() and (table["draws_beaten"] <= table["n_draws"]).all()
    good = np.where((table["mode"] == "keep") == (table["metric"] != "log_loss"), 1, -1)
    assert (table["better"] == good).all()
    # The areas by hand: trapezoids over the grid and its intact end.
    intact = curves.loc[0, "balanced_accuracy"]

    def area(rows: pd.DataFrame, mode: str) -> float:
        values = rows.sort_values("fraction")["balanced_accuracy"].to_numpy()
        grid, values = ([0.1, 0.5, 1], [*values, intact]) if mode == "keep" else ([0, 0.1, 0.5], [intact, *values])
        return float(np.trapezoid(values, grid))

    for row in table[~within & (table["metric"] == "balanced_accuracy")].itertuples():
        here = (curves["scope"] == row.scope) & (curves["mode"] == row.mode) & (curves["ablation"] == row.ablation)
        cell = curves[here]
        matched_to = "" if row.against == "random" else row.method
        chance = cell[(cell["method"] == row.against) & (cell["matched_to"] == matched_to)]
        assert row.auc == pytest.approx(area(cell[cell["method"] == row.method], row.mode))
        areas = [area(rows, row.mode) for _, rows in chance.groupby("draw")]
        assert row.auc_against == pytest.approx(np.mean(areas))


def test_modules(tables: dict[str, pd.DataFrame]) -> None:
    """One row a kind, in agreement with the curves and the comparison."""
    table, curves, comparison = tables["modules"], tables["curves"], tables["comparison"]
    assert len(table) == 2 * 2 * 2 * 6 and set(table["model"]) == {"run"}
    intact = curves.loc[0]
    for row in table.itertuples():
        held = curves[(curves["method"] == "held") & (curves["module"] == row.module)]
        assert len(held) == 1 and held["n_neurons"].item() == 0 and held["fraction"].item() == 0
        assert (row.intact, row.held) == (intact[row.metric], held[row.metric].item())
        assert row.carried == pytest.approx(row.intact - row.held)
        same = (comparison["scope"] == "module") & (comparison["against"] == "random_matched")
        for column in ("module", "method", "mode", "ablation", "metric"):
            same &= comparison[column] == getattr(row, column)
        other = comparison[same].iloc[0]
        for column in ("auc", "auc_against", "difference", "ci_low", "ci_high"):
            assert getattr(row, column) == pytest.approx(other[column])
        assert row.judged == (row.carried_low > ROUNDING)
        assert np.isnan(row.sufficient_share) == (not row.judged or row.mode == "ablate")


def test_null_models_by_kinds(golden: Golden, tables: dict[str, pd.DataFrame]) -> None:
    """The same quantities of both, in agreement with their curves; a kind that carries nothing has no curve."""
    run, table, curves, opened = (
        *(tables[name] for name in ("modules", "modules_null", "curves_null")),
        open_run(golden.run),
    )
    test = opened.proteins("test")
    for null in ("label_shuffled", "random_weights"):
        own, drawn = table[table["model"] == null], curves[curves["null"] == null]
        assert len(own) == 2 * 2 * 6 and set(own["mode"]) == {"keep"}  # methods, metrics, kinds
        assert own["intact"].nunique() == 2 and not set(own["intact"]) & set(run["intact"])
        whole = drawn[drawn["method"] == "intact"].iloc[0]
        model = load_model(golden.run / "nulls" / null / "model")
        found = model.log_probabilities(test)[np.arange(len(test)), model.targets(test)]
        assert np.exp(found).mean() == pytest.approx(whole["true_class_probability"], abs=1e-5)
        for row in own.itertuples():
            held = drawn[(drawn["method"] == "held") & (drawn["module"] == row.module)]
            assert (row.intact, row.held) == (whole[row.metric], held[row.metric].item())
            assert row.judged == (row.carried_low > ROUNDING)
            assert row.n_draws in (0, 2) and np.isnan(row.concentration) == (not row.judged)


def test_null_models_keep_class_scores(golden: Golden, tables: dict[str, pd.DataFrame]) -> None:
    """The mean over classes of a method's class scores is its score."""
    run, own = Run.open(golden.run), tables["class_scores"]
    for null in ("label_shuffled", "random_weights"):
        found = run.own(f"nulls/{null}/class_scores")
        assert list(found.columns) == list(SCHEMA["class_scores"])
        for column in ("method", "label"):
            assert set(found[column]) == set(own[column])
        signed = found[found["method"] == "integrated_gradients"]
        means = signed.groupby(["layer", "module", "neuron"])["score"].mean()
        scores = run.own(f"nulls/{null}/neurons").set_index(means.index.names)["integrated_gradients"]
        assert len(means) == NEURONS
        np.testing.assert_allclose(means, scores.reindex(means.index), atol=1e-12)
        assert len(found) == len(own) and not np.allclose(found["score"], own["score"])
    assert not list(golden.run.glob("null_fits/*/class_scores.parquet"))


def test_null_models_by_kinds_are_left_out(golden: Golden) -> None:
    """Without draws, without the scope, without null models."""
    study = read_study(golden.study)
    assert "curves_null.parquet" in products(study, "null_kinds")
    for section, change in (
        ("density", {"null_draws": 0}),
        ("density", {"nulls": ()}),
        ("evaluate", {"scopes": ("pooled",)}),
    ):
        other = study.model_copy(update={section: getattr(study, section).model_copy(update=change)})
        assert not products(other, "null_kinds")


def products(study: Study, stage: str) -> set[str]:
    """The files that a stage writes with these settings."""
    one = next(one for one in plmscope.study.Stages(study, None).graph if one.name == stage)  # type: ignore[arg-type]
    return {name for name, asked in one.asked.items() if asked(study)}


def test_how_active_neurons_are_is_known_from_the_sums_of_any_score_by_activation(golden: Golden) -> None:
    opened, study = open_run(golden.run), read_study(golden.study)
    other = study.model_copy(update={"score": study.score.model_copy(update={"methods": ("integrated_gradients",)})})
    none = other.model_copy(update={"density": other.density.model_copy(update={"bootstraps": 0})})
    sums = read_sums(opened.run, opened.model.index)
    named, summed, unknown = (
        _activity(Stages(one, opened.run, say=print).context("density"), read)
        for one, read in ((study, None), (other, sums), (none, None))
    )
    assert named is not None and summed is not None and unknown is None
    np.testing.assert_allclose(summed, named, rtol=1e-6)


@pytest.mark.parametrize("name", ["density", "density_null"])
def test_density_sums_and_ratios(tables: dict[str, pd.DataFrame], name: str) -> None:
    table = tables[name]
    keys = ["method", "fraction"] if name == "density" else ["null", "method", "fraction"]
    groups = table.groupby(keys)
    assert groups.ngroups == 4 if name == "density" else groups.ngroups == 8
    for key, rows in groups:
        selected = int(np.floor(key[-1] * NEURONS + 0.5))
        modules = rows[rows["layer"] < 0].set_index("module")
        layers = rows[(rows["layer"] >= 0) & (rows["module"] == "all")]
        sites = rows[(rows["layer"] >= 0) & (rows["module"] != "all")]
        assert (len(modules), len(layers), len(sites)) == (6, 3, 18)
        for part in (modules, layers, sites):
            assert part["n_total"].sum() == NEURONS and part["n_selected"].sum() == selected
        assert modules["n_total"].to_dict() == {m: 3 * n for m, n in MODULES.items()}
        np.testing.assert_allclose(rows["density"], rows["n_selected"] / rows["n_total"])
        np.testing.assert_allclose(rows["enrichment"], rows["density"] / (selected / NEURONS))
        if name == "density":
            parts = rows[rows["module"] != "all"]
            assert rows["p_value"].between(0, 1).all() and parts["p_permutation"].between(0.001, 1).all()
            assert (parts["q_value"] >= parts["p_permutation"] - 1e-12).all()
            assert rows.loc[rows["module"] == "all", ["p_permutation", "q_value"]].isna().all().all()
            assert (rows["ci_low"] <= rows["ci_high"]).all() and (rows["ci_low"] >= 0).all()
            chosen = tables["selections"].query("scope == 'pooled'")
            chosen = chosen[(chosen["method"] == key[0]) & (chosen["fraction"] == key[1])]
            assert chosen["module"].value_counts().reindex(modules.index, fill_value=0).to_dict() == (
                modules["n_selected"].to_dict()
            )


def test_report_opens_offline(golden: Golden) -> None:
    html = (golden.run / "report.html").read_text()
    assert "golden" in html and "</html>" in html


def test_open_run(golden: Golden) -> None:
    run = open_run(golden.run)
    assert repr(run) == f"OpenRun({str(golden.run)!r}, finished: {', '.join(STAGES)})"
    assert len(run.proteins("train")) == 36 and len(run.proteins("scoring", per_class=2)) == 6
    with pytest.raises(InputError, match="no part 'tset'; there are train, validation, test, scoring and evaluation"):
        run.proteins("tset")
    with pytest.raises(SelectionError, match="no scores by 'gradient'; there are activation_std, integrated_gradients"):
        run.scores("gradient")
    means = run.model.ablation_means
    assert means.shape == (3, NEURONS) and means.flags.writeable  # PyTorch warns of others


# --- again, otherwise, and after a death ------------------------------------------------------------------------------


def test_second_time_nothing_is_run_again(golden: Golden, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    folder = golden.copy(tmp_path / "run")
    before = contents(folder)
    assert main(["run", str(golden.study), "--out", str(folder)]) == 0
    lines = capfd.readouterr().err.splitlines()
    assert lines == [f"{stage}: finished before, nothing changed, not run again" for stage in STAGES]
    after = contents(folder)
    stages = plmscope.study.Stages(read_study(folder / "study.toml"), Run.open(folder))
    study = read_study(folder / "study.toml")
    for stage, name in ((one.name, name) for one in stages.graph for name, asked in one.asked.items() if asked(study)):
        content = (folder / name).read_bytes()
        (folder / name).unlink()
        assert stages.is_done(stage) == (name in stages.graph[stage].extra), name
        (folder / name).write_bytes(content)
        assert stages.is_done(stage), name
    for content in (before, after):  # the manifest names the latest command
        manifest = json.loads(content["manifest.json"])
        content["manifest.json"] = json.dumps(manifest | {"command": ""}).encode()
    assert after == before


def test_low_precision_says_how_far_it_agrees_with_float32(golden: Golden, tmp_path: Path) -> None:
    folder = golden.copy(tmp_path / "run")
    study = read_study(folder / "study.toml").model_copy(update={"dtype": "bfloat16"})
    lines: list[str] = []
    plmscope.study.Stages(study, Run.open(folder), say=lines.append).execute(["score"])
    found = Run.open(folder).manifest()["precision"]
    assert (found["dtype"], found["proteins"]) == ("bfloat16", 6)
    assert list(found["methods"]) == [*METHODS, RANKED[1]]
    for row in found["methods"].values():
        assert 0.8 < row["spearman"] <= 1 and 0.7 < row["overlap"] <= 1
    told = [line for line in lines if line.startswith("bfloat16 against float32, ")]
    assert len(told) == 3 and "(6 proteins)" in told[0]


def test_changed_setting_redoes_its_stage_and_later_ones(
    golden: Golden, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def said() -> list[str]:
        """What it said, but for the first answers on its way."""
        answers = ("times the share by chance", "first answers", "kept of ")
        return [line for line in capfd.readouterr().err.splitlines() if not any(part in line for part in answers)]

    folder = golden.copy(tmp_path / "run")
    before, old = contents(folder), Run.open(folder).table("neurons")

    # Only the evaluation changes. Ctrl-C in its midst, then the same command.
    study = changed(golden.study, tmp_path / "study.toml", evaluate=CHEAP, density={"nulls": []})
    command = ["run", str(study), "--out", str(folder)]

    def interrupted(items, description, total):  # type: ignore[no-untyped-def]
        for number, item in enumerate(items):
            if description == "keep and ablate" and number == 5:
                raise KeyboardInterrupt
            yield item

    with monkeypatch.context() as patch:
        patch.setattr("plmscope.cli.track", lambda quiet: interrupted)
        patch.setattr(plmscope.store.resume, "SAVE_SECONDS", 0)
        assert main(command) == 130
    lines = said()
    assert lines[:2] == [f"{stage}: finished before, nothing changed, not run again" for stage in STAGES[:2]]
    assert lines[2].startswith("select: done in")  # of the new grid
    assert lines[3:] == ["plmscope: interrupted; the same command continues from here"]
    assert main(command) == 0
    lines = said()
    assert lines[3] == "evaluate: continuing after 5 of 13 selections"
    ends = [line for line in lines[4:] if any(end in line for end in ("done in", "not run again", ": left out"))]
    assert [line.split(":")[0] for line in ends] == [
        "evaluate", "nulls", "null_kinds", "density", "null_fits", "stability", "characterize", "describe", "probe",
        "intervene", "layout", "faithfulness", "report",
    ]  # fmt: skip
    # Neither the characterization nor the interventions ask for the evaluation or the null models; the layout does.
    assert ["not run again" not in line for line in ends] == [True] * 6 + [False] * 4 + [True, False, True]

    after, run = contents(folder), Run.open(folder)
    same = ["proteins.parquet", "neurons.parquet", "metrics.json", "model/model.safetensors", "completeness.parquet"]
    assert all(after[name] == before[name] for name in same)
    assert "density_null.parquet" not in after  # no longer asked for
    curves = run.table("curves")
    assert len(curves) == 13 and set(curves["fraction"]) == {0.2, 1.0}
    assert set(run.table("selections")["fraction"]) == {0.02, 0.05, 0.1, 0.2}  # of the new grid, though scored before
    assert not (folder / "evaluate.parts").exists()

    # A missing file of a finished stage brings that stage back, and no other.
    (folder / "report.html").unlink()
    assert main(command) == 0
    assert [line for line in said() if "not run again" not in line] == ["report: done in 1 s"] or (
        folder / "report.html"
    ).is_file()
    assert Run.open(folder).table("curves").equals(curves)

    # One method alone, nothing resampled: smaller tables, none left over from before.
    study = changed(
        study, tmp_path / "one.toml", score={"methods": ["activation"]}, density={"bootstraps": 0},
        evaluate={"controls": ["random"]},
    )  # fmt: skip
    assert main(["run", str(study), "--out", str(folder), "--quiet"]) == 0
    run = Run.open(folder)
    assert list(run.table("neurons").columns) == ["layer", "module", "neuron", "activation"]
    assert run.table("agreement").empty and not run.has("completeness")
    assert run.table("density")[["ci_low", "ci_high"]].isna().all().all()
    assert not run.table("comparison")["primary"].any()
    assert_frame_equal(run.table("neurons")[["layer", "module", "neuron"]], old[["layer", "module", "neuron"]])


DRIVER = """
import glob, json, os, signal, sys
import plmscope.scoring.conductance, plmscope.evaluation.curves, plmscope.models.finetune
import plmscope.report.page, plmscope.scoring.methods, plmscope.data.splits
import plmscope.store.resume as parts, plmscope.study as study
from plmscope.store.folder import Run
from plmscope.study.study_file import read_study

settings, folder, log, moments = sys.argv[1], sys.argv[2], open(sys.argv[3], "a", buffering=1), json.loads(sys.argv[4])

def die():
    os.kill(os.getpid(), signal.SIGKILL)

def live(description, when):
    def track(items, what, total):
        log.write(f"{what}: {total}\\n")
        for number, item in enumerate(items):
            if (what, number) == (description, when):
                die()
            yield item
        if (what, "end") == (description, when):
            die()
    def say(line):
        log.write(line + "\\n")
        if when == "said" and line.startswith(description):
            die()
    parts.SAVE_SECONDS = 0
    study.Stages(read_study(settings), Run.create(folder), track, say).execute()

for description, when, damaged in moments:  # one import, one child a death
    log.write(f"--- {description} {when}\\n")
    child = os.fork()
    if not child:
        try:
            live(description, when)
        finally:
            os._exit(1)
    status = os.waitpid(child, 0)[1]
    if not os.WIFSIGNALED(status) or os.WTERMSIG(status) != signal.SIGKILL:
        sys.exit(f"not killed: {description} {when}, status {status}")
    if damaged:
        path = max(glob.glob(os.path.join(folder, damaged)), key=lambda name: (len(name), name))
        os.truncate(path, os.path.getsize(path) // 2)
"""


def test_killed_study_continues_to_the_same_tables(golden: Golden, tmp_path: Path) -> None:
    # From the run's own study.toml: it alone has to be enough to repeat everything.
    settings, folder, log = golden.run / "study.toml", tmp_path / "again", tmp_path / "log"
    moments = [
        ("fine-tuning", 30, "model.checkpoints/checkpoint-*/optimizer.pt"),  # the newest checkpoint is half there
        ("finetune: done", "said", None),
        ("keep and ablate", 40, "evaluate.parts/*-000000030.npz"),  # a part is half there, whole ones after it
        ("fine-tuning", "end", None),  # of a null model that stopped early
        ("suppress and enhance", 20, "intervene.parts/*-000000010.npz"),
    ]
    done = subprocess.run(
        [sys.executable, "-c", DRIVER, str(settings), str(folder), str(log), json.dumps(moments)],
        capture_output=True, text=True, check=False, env=os.environ | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert main(["run", str(settings), "--out", str(folder), "--quiet"]) == 0

    lives = [life.splitlines() for life in log.read_text().split("--- ")[1:]]
    steps = [int(line.split()[1]) for life in lives for line in life if line.startswith("fine-tuning: ")]
    assert steps[:2] == [78, 65]  # continued after the first epoch: the second's checkpoint was the damaged one
    assert any(line.startswith("evaluate: continuing after ") for line in lives[3])

    one, other = Run.open(golden.run), Run.open(folder)
    for name in WRITTEN:
        expected, got = one.table(name), other.table(name)
        if name == "training":
            expected, got = expected.drop(columns="seconds"), got.drop(columns="seconds")
        if name == "faithfulness":
            measured = ["cpu_seconds", "recommended"]
            expected, got = expected.drop(columns=measured), got.drop(columns=measured)
        assert_frame_equal(got, expected, check_exact=True, obj=name)
    assert other.metrics() == one.metrics()
    assert (folder / "study.toml").read_bytes() == (golden.run / "study.toml").read_bytes()
    assert {p.name for p in folder.iterdir()} == {p.name for p in golden.run.iterdir()}  # no leftovers
    assert {p.name for p in (folder / "nulls").rglob("*")} == {p.name for p in (golden.run / "nulls").rglob("*")}
    for path in ("model", "nulls/label_shuffled/model", "nulls/random_weights/model"):
        assert (folder / path / "model.safetensors").read_bytes() == (
            golden.run / path / "model.safetensors"
        ).read_bytes()


def test_full_disk_at_every_write_is_one_line_and_damages_nothing(
    golden: Golden, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each write of two stages fails once, half done; with space again the command ends as if nothing had been."""
    run, whole = golden.copy(tmp_path / "run"), golden.copy(tmp_path / "whole")
    for folder in (run, whole):
        changed(golden.study, folder / "study.toml", evaluate=CHEAP, density={"nulls": []})
        (folder / "report.html").unlink()  # else it is written anew each time
    for stage in ("evaluate", "density"):
        assert main([stage, str(whole), "--quiet"]) == 0
    capfd.readouterr()
    write = plmscope.store.files._write_with
    left = refused = 0

    def full(path: Path, into: Callable[[Path], object]) -> None:
        nonlocal left
        left -= 1

        def half(temporary: Path) -> None:
            into(temporary)
            os.truncate(temporary, temporary.stat().st_size // 2)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        write(path, into if left else half)

    monkeypatch.setattr(plmscope.store.files, "_write_with", full)
    for stage in ("evaluate", "density"):
        for number in range(1, 30):
            # Parts of the evaluation are saved in the first lives alone: from then on the disk fails at its tables.
            monkeypatch.setattr(plmscope.store.resume, "SAVE_SECONDS", 0 if number < 4 else 60)
            left = number
            if main([stage, str(run), "--quiet"]) == 0:
                break
            refused += 1
            line = capfd.readouterr().err
            assert line.startswith(f"plmscope: error: {run}") and line.count("\n") == 1
            assert "cannot be written (No space left on device)" in line
            stages = Stages(read_study(run / "study.toml"), Run.open(run))
            assert not all(stages.is_done(name) for name in stages.graph.together([stage]))
            assert not list(run.rglob(".*.tmp"))
            for path in run.glob("*.parquet"):
                pd.read_parquet(path)
        capfd.readouterr()
    assert refused >= 10
    for path in whole.glob("*.parquet"):
        assert (run / path.name).read_bytes() == path.read_bytes(), path.name
    assert {p.name for p in run.iterdir()} == {p.name for p in whole.iterdir()}


def test_refused_input_leaves_an_old_run_as_it_was(golden: Golden, tmp_path: Path) -> None:
    folder = golden.copy(tmp_path / "run")
    before = contents(folder)
    study = changed(golden.study, tmp_path / "s.toml", model={"checkpoint": str(tmp_path / "nowhere")})
    assert main(["run", str(study), "--out", str(folder)]) == 2
    assert contents(folder) == before


def test_an_installation_anew_does_not_change_the_embedded_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(b"weights")
    monkeypatch.setattr("plmscope.models.checkpoints.embedded_folder", lambda: tmp_path)

    run = Run.create(tmp_path / "run")

    def digest() -> str:
        return Stages(Study(), run).inputs.model_digest

    before = digest()
    os.utime(weights, (1, 1))
    assert digest() == before
    weights.write_bytes(b"Weights")
    assert digest() != before


def test_a_finished_run_needs_none_of_its_files(
    golden: Golden, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = golden.copy(tmp_path / "run")
    gone = {"data": {"path": "/gone/enzymes.tsv"}, "model": {"checkpoint": "/gone/model"}}
    changed(folder / "study.toml", folder / "study.toml", **gone)
    monkeypatch.chdir(tmp_path)
    for stage in ("evaluate", "report"):
        assert main([stage, "run", "--quiet"]) == 0
    assert "done in" not in capfd.readouterr().err
    assert read_study(folder / "study.toml").data.path == "/gone/enzymes.tsv"
    # The study itself reads them again.
    assert main(["run", str(folder / "study.toml"), "--out", "run"]) == 2
    assert "'/gone/enzymes.tsv': cannot be read" in capfd.readouterr().err


def test_a_touched_model_is_the_same_and_another_is_not(golden: Golden, tmp_path: Path) -> None:
    model = Path(shutil.copytree(golden.model, tmp_path / "model"))
    run = golden.copy(tmp_path / "run")
    study = read_study(golden.study).model_copy(
        update={"model": read_study(golden.study).model.model_copy(update={"checkpoint": str(model)})}
    )

    def tuned() -> bool:
        stages = Stages(study, Run.open(run))
        stages.inputs.again = True
        return stages.is_done("finetune")

    assert tuned()  # elsewhere, with other times
    weights = model / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"?")
    assert not tuned()


def test_an_earlier_stage_run_again_leaves_nothing_of_the_old_model(
    golden: Golden, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = golden.copy(tmp_path / "run")
    study = changed(golden.study, tmp_path / "study.toml", finetune={"epochs": 1})
    for name in ("score.parts", "evaluate.parts"):  # as a kill leaves them
        (folder / name).mkdir()
    assert main(["finetune", str(study), "--out", str(folder), "--quiet"]) == 0
    assert not list(folder.glob("*.parts"))  # they were counted with other weights
    run = Run.open(folder)
    assert "finished: finetune)" in repr(run)
    assert not any(run.has(name) for name in ("neurons", "comparison", "density", "concepts", "interventions"))
    assert not (folder / "ablation_means.parquet").exists()
    assert "over matched chance" not in capfd.readouterr().out


def test_a_classifier_is_explained_as_it_is(golden: Golden, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    study = changed(
        golden.study, tmp_path / "study.toml", model={"checkpoint": str(golden.run)}, finetune={"epochs": 0},
        density={"nulls": []}, evaluate=CHEAP, characterize={"enabled": False}, intervene={"enabled": False},
    )  # fmt: skip
    assert main(["run", str(study), "--out", str(tmp_path / "run")]) == 0
    assert "new" not in capfd.readouterr().err
    weights = [(folder / "model" / "model.safetensors").read_bytes() for folder in (golden.run, tmp_path / "run")]
    assert weights[0] == weights[1]
    changed(study, study, model={"checkpoint": str(golden.model)})
    assert main(["run", str(study), "--out", str(tmp_path / "other")]) == 2
    line = "its classes are 1, 2, 3, those of the proteins 2, 3, 6; name its outputs in their order"
    assert line in capfd.readouterr().err and not (tmp_path / "other").exists()


def test_the_shuffled_null_is_scored_on_as_many_of_every_class(
    golden: Golden, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the labels of its own; the run's sample has as many of every true class, and of a shuffled one by chance."""
    folder = golden.copy(tmp_path / "run")
    (folder / "nulls" / "label_shuffled" / "neurons.parquet").unlink()
    seen: list[list[Protein]] = []

    def stop(_: object, model: object, chosen: list[Protein], *rest: object) -> None:
        seen.append(chosen)
        raise InterruptedError

    monkeypatch.setattr("plmscope.study.nulls.score_parts", stop)
    with pytest.raises(InterruptedError):
        run_nulls(Stages(read_study(folder / "study.toml"), Run.open(folder)).context("nulls"))
    assert Counter(p.label for p in seen[0]) == {"2": 6, "3": 6, "6": 6}
    true = {p.id: p.label for p in open_run(folder).proteins("train")}
    assert any(true[p.id] != p.label for p in seen[0])


def test_a_stage_alone_does_not_take_other_data(
    golden: Golden, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    folder, data = golden.copy(tmp_path / "run"), tmp_path / "enzymes.tsv"
    shutil.copy(golden.data, data)
    changed(folder / "study.toml", folder / "study.toml", data={"path": str(data)})
    (folder / "motifs.parquet").unlink()
    data.write_text(data.read_text().replace("\t2.", "\t6.", 1))
    assert main(["characterize", str(folder)]) == 2
    said = capfd.readouterr().err
    assert f"{data}: has changed since {folder} was made from it; put it back or use 'plmscope run'" in said


def test_results_of_another_file_are_not_written_over(
    golden: Golden, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    folder, data = golden.copy(tmp_path / "run"), tmp_path / "mine.tsv"
    shutil.copy(golden.data, data)
    data.write_text(data.read_text().replace("\t2.", "\t6.", 1))
    study = changed(golden.study, tmp_path / "mine.toml", data={"path": str(data)})
    before = {path.name: path.stat().st_mtime_ns for path in folder.iterdir() if path.name != ".lock"}
    assert main(["run", str(study), "--out", str(folder)]) == 2
    theirs = read_study(folder / "study.toml").data.path
    said = capfd.readouterr().err
    assert f"{folder}: holds results of {theirs}, and this study reads {data}; give the study another name" in said
    assert {path.name: path.stat().st_mtime_ns for path in folder.iterdir() if path.name != ".lock"} == before


def test_a_command_that_finds_all_done_is_not_told(golden: Golden, tmp_path: Path) -> None:
    folder = golden.copy(tmp_path / "run")
    Run.open(folder).update_manifest(command="plmscope run mine.toml")
    assert main(["evaluate", str(folder), "--quiet"]) == 0
    assert Run.open(folder).manifest()["command"] == "plmscope run mine.toml"
    (folder / "curves.parquet").unlink()
    assert main(["evaluate", str(folder), "--quiet"]) == 0
    assert Run.open(folder).manifest()["command"] != "plmscope run mine.toml"


def test_a_run_that_is_trained_again_is_not_opened(golden: Golden, tmp_path: Path) -> None:
    folder = golden.copy(tmp_path / "run")
    stages = Run.open(folder).manifest()["stages"]
    Run.open(folder).update_manifest(stages={"finetune": stages["finetune"] | {"status": "running"}})
    with pytest.raises(RunError, match=r"run: fine-tuning is not finished; run 'plmscope run .*study.toml --out"):
        open_run(folder)


def test_neurons_of_a_class_are_those_that_carry_it_whatever_is_named_first(golden: Golden, tmp_path: Path) -> None:
    folder = golden.copy(tmp_path / "run")
    methods = ["activation_std", "integrated_gradients"]
    study = changed(golden.study, tmp_path / "mine.toml", layout={"methods": methods, "neurons": 4})
    laying = Laying(Stages(read_study(study), Run.open(folder)).context("layout"))
    of = {method: class_scores(laying.opened, method) for method in methods}
    for label, chosen in laying.chosen.items():
        by = {method: np.argsort(-scores[label].values, kind="stable")[:4].tolist() for method, scores in of.items()}
        assert chosen == by["integrated_gradients"] != by["activation_std"]


# --- settings ---------------------------------------------------------------------------------------------------------


def test_one_per_cluster() -> None:
    proteins = [Protein(f"p{i}", "A", "x" if i < 6 else "y") for i in range(8)]
    clusters = {p.id: "c0" if i < 3 else p.id for i, p in enumerate(proteins)}
    chosen = one_per_cluster(proteins, clusters, 4, seed=0)
    assert [p.label for p in chosen].count("x") == 4 and [p.label for p in chosen].count("y") == 2
    assert len({clusters[p.id] for p in chosen}) == len(chosen)
    assert chosen == one_per_cluster(proteins, clusters, 4, seed=0)
    assert len(one_per_cluster(proteins, clusters, 9, seed=0, distinct=False)) == 8
    assert chosen == sorted(chosen, key=proteins.index)


CONTRACT = {
    "": ["name", "seed", "device", "dtype"],
    "data": ["path", "label", "min_length", "max_length", "too_long"],
    "split": ["method", "identity", "coverage", "train", "validation", "test"],
    "model": ["checkpoint", "revision"],
    "finetune": ["epochs", "learning_rate", "token_budget", "class_weights"],
    "score": ["methods", "target", "baseline", "proteins_per_class"],
    "evaluate": ["fractions", "modes", "ablations", "scopes", "controls", "draws", "max_proteins"],
    "density": ["fractions"],
    "report": [],
}


def test_written_study_has_every_key_and_reads_back(tmp_path: Path) -> None:
    assert main(["init", str(tmp_path / "new.toml")]) == 0
    text = (tmp_path / "new.toml").read_text()
    assert read_study(tmp_path / "new.toml") == Study()
    content = tomllib.loads(text)
    for section, keys in CONTRACT.items():
        assert set(keys) <= set(content[section] if section else content)
    assert all("  # " in line for line in text.splitlines() if "=" in line)  # every key says what it means


def test_study_with_odd_texts_reads_back(tmp_path: Path) -> None:
    study = Study.model_validate(
        {
            "data": {"path": 'a "b" \\ c\t\u00e9\U0001f9ec.fasta'},
            "finetune": {"learning_rate": 1e-5},
            "density": {"nulls": []},
        }
    )
    (tmp_path / "s.toml").write_text(write_study(study), encoding="utf-8")
    assert read_study(tmp_path / "s.toml") == study


@pytest.mark.parametrize(
    ("content", "held_out"),
    [
        ({}, "held_out"),
        ({"split": {"method": "random"}}, "held_out"),
        ({"split": {"method": "column"}}, ""),
        ({"split": {"held_out": "mine"}}, "mine"),
        ({"data": {"path": "plmscope:families", "label": "family"}}, "held_out"),
        ({"data": {"path": "mine.tsv"}}, ""),
        ({"model": {"checkpoint": "facebook/esm2_t6_8M_UR50D"}}, ""),
    ],
)
def test_the_embedded_model_is_tested_on_proteins_that_it_never_saw(content: dict[str, object], held_out: str) -> None:
    assert _kept_apart(parse_study(content, "my.toml")).split.held_out == held_out


def test_the_demo_takes_its_task(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[Study] = []
    monkeypatch.setattr("plmscope.cli._run", lambda study, *rest: started.append(study))
    assert [main(["demo", *task]) for task in ([], ["--task", "enzymes"], ["--task", "families"], ["--full"])] == [
        0
    ] * 4
    assert started == [demo_study(), demo_study(), demo_study("families"), demo_study(full=True)]
    assert [study.data.path for study in started[1:]] == ["plmscope:enzymes", "plmscope:families", "plmscope:enzymes"]
    assert len({study.name for study in started}) == 3, "one would continue the run folder of the other"
    for study in started:
        assert study.split.held_out == "held_out" and parse_study(study.model_dump(), "demo") == study


def test_a_study_of_families_ends_with_their_motifs(golden: Golden, tmp_path: Path) -> None:
    """The settings of the demo, cut down, on the shortest proteins of three families."""
    motifs = {"adenylate kinase": "adenylate kinase loop", "alanine racemase": "alanine racemase lysine"}
    found = read_proteins("plmscope:families", label="family")
    rows = ["\t".join(["id", "sequence", *found.proteins[0].columns])]
    for family in (*motifs, "methyltransferase"):
        for marked in "01":
            own = [p for p in found if p.label == family and p.columns["held_out"] == marked]
            rows += ["\t".join([p.id, p.sequence, *p.columns.values()]) for p in sorted(own, key=len)[:7]]
    (tmp_path / "some.tsv").write_text("\n".join(rows) + "\n")
    content = demo_study("families").model_dump()
    for section, changed in {
        "data": {"path": str(tmp_path / "some.tsv")}, "model": {"checkpoint": str(golden.model)},
        "split": {"method": "random"}, "finetune": {"epochs": 1, "frozen_layers": 0},
        "score": {"methods": ["activation"], "proteins_per_class": 2}, "density": {"nulls": [], "bootstraps": 3},
        "evaluate": CHEAP | {"methods": ["activation"], "draws_elsewhere": 2, "max_proteins": 6},
        "characterize": {"concepts": ["pattern", "class"], "max_neurons": 5, "min_proteins": 3},
    }.items():  # fmt: skip
        content[section] |= changed
    study = tmp_path / "families.toml"
    study.write_text(write_study(parse_study(content, "families")))
    assert main(["run", str(study), "--out", str(tmp_path / "run"), "--quiet"]) == 0
    run = Run.open(tmp_path / "run")
    marked = {p.id for p in found if p.columns["held_out"] == "1"}
    parts = run.table("proteins").set_index("id")["split"]
    assert set(parts) == {"train", "validation", "test"}
    assert {name for name, part in parts.items() if part != "train"} <= marked
    concepts = run.table("concepts").set_index("concept")
    for motif in motifs.values():
        assert concepts.loc[motif, "kind"] == "pattern" and concepts.loc[motif, "n_proteins"] >= 10
    assert set(run.table("associations")["concept"]) & set(motifs.values())
    report = (tmp_path / "run" / "report.html").read_text()
    assert all(family in report for family in (*motifs, "methyltransferase"))


def test_the_study_file_names_every_method() -> None:
    told = re.search(r"^methods = .*  # (activation, .*)$", write_study(Study()), re.MULTILINE)
    assert told
    names = set(told[1].split("; ")[0].split(", "))
    forms = {name + ending for name in SIGNED for ending in FORMS.values()}
    assert set(SCORERS) == names | forms and all(name in names for name in SIGNED)
    assert all(ending in told[1] for ending in FORMS.values())


def test_a_folder_at_home_is_found_from_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "config.json").write_text("{}")
    study = parse_study({"model": {"checkpoint": "~/mine"}}, "my.toml")
    assert anchored(study).model.checkpoint == str(tmp_path / "mine")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"evaluate": {"fractions": [0.5, 0.1]}}, "evaluate.fractions = [0.5, 0.1]: has to increase"),
        ({"evaluate": {"fractions": [0.5, 1.0]}}, "evaluate.fractions: 1 is the intact model, which is in every curve"),
        ({"density": {"fractions": [0.0]}}, "density.fractions = 0.0: must be above 0 and at most 1"),
        ({"evaluate": {"fractions": []}}, "evaluate.fractions = []: Tuple should have at least 1 item"),
        ({"evaluate": {"controls": []}}, "evaluate.controls = []: Tuple should have at least 1 item"),
        ({"score": {"methods": []}}, "score.methods = []: Tuple should have at least 1 item"),
        ({"intervene": {"methods": ["magic"]}}, "intervene.methods has 'magic', which is not among score.methods"),
        ({"finetune": {"epochs": 0}}, "finetune.epochs = 0 leaves the null models untrained; write density.nulls = []"),
        ({"intervene": {"factors": [0, 2]}}, "intervene.factors = [0.0, 2.0]: have to be above 0 and different"),
        ({"intervene": {"factors": [2, 2]}}, "intervene.factors = [2.0, 2.0]: have to be above 0 and different"),
        ({"score": {"methods": ["activation"] * 2}}, "a method is there twice; remove one"),
        ({"layout": {"pruning_steps": [0.5, 0.1]}}, "layout.pruning_steps = [0.5, 0.1]: has to increase"),
        ({"layout": {"pruning_steps": [0.5, 1.0]}}, "layout.pruning_steps: 1 leaves no unit; stay below 1"),
        ({"layout": {"pruning_statistics": ["share_positive"] * 2}}, "one is there twice; remove it"),
        ({"layout": {"pruning_modules": ["gate"]}}, "layout.pruning_modules"),
        ({"finetune": {"learning_rate": float("inf")}}, "learning_rate = inf: Input should be a finite number"),
        ({"name": "../x"}, "name = '../x': use letters, digits, '.', '_' and '-', a letter or digit first"),
        ({"device": "tpu"}, "device = 'tpu': use cpu, cuda, cuda:1, cuda:all or auto"),
        ({"data": {"path": ""}}, "data.path = '': String should have at least 1 character"),
    ],
)  # fmt: skip
def test_impossible_settings(content: dict[str, object], message: str) -> None:
    with pytest.raises(StudyError) as caught:
        parse_study(content, "my.toml")
    assert str(caught.value).startswith("my.toml: ") and message in str(caught.value)


def test_stage_says_what_comes_first(golden: Golden, tmp_path: Path) -> None:
    folder = golden.copy(tmp_path / "run")
    (folder / "neurons.parquet").unlink()
    stages = plmscope.study.Stages(read_study(folder / "study.toml"), Run.open(folder))
    with pytest.raises(RunError, match=r"the stage 'score' comes first; run 'plmscope run .*study.toml --out .*run'"):
        stages.execute(["evaluate"])


def test_standard_input_labels_beside_it_and_windows(
    tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What came through a pipe is kept for later stages; windows of a protein are in one set."""
    proteins = make_proteins(30, low=31, high=90)
    fasta = "".join(f">{p.id}\n{p.sequence}\n" for p in proteins).encode()
    (tmp_path / "labels.csv").write_text("id,kind\n" + "".join(f"{p.id},{p.label}\n" for p in proteins))
    study = parse_study(
        {
            "data": {
                "path": "-", "label": "kind", "labels": str(tmp_path / "labels.csv"), "max_length": 50,
                "too_long": "windows", "window_overlap": 10,
            },
            "split": {"method": "random"},
            "model": {"checkpoint": str(tiny_folder)},
            "finetune": {"epochs": 1},
        },
        "test",
    )  # fmt: skip
    said: list[str] = []
    monkeypatch.setattr(
        plmscope.study.inputs,
        "leakage",
        lambda train, others, track: pd.DataFrame(
            {"id": [p.id for p in others], "nearest_train": train[0].id, "identity": 0.5}
        ),
    )

    def finetune(stdin: bytes, wanted: str = "finetune") -> None:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        Stages(study, Run.create(tmp_path / "run"), say=said.append).execute([wanted])

    with pytest.raises(InputError, match="standard input: line 1: protein 'x' has '1'"):
        finetune(b">x\nMK1\n")
    assert not (tmp_path / "run").exists()
    finetune(bz2.compress(fasta))
    run = open_run(tmp_path / "run")
    table = run.run.table("proteins")
    windows = table[table["parent"] != ""]
    n_long = sum(len(p) > 50 for p in proteins)
    assert windows["parent"].nunique() == n_long and len(table) == 30 - n_long + len(windows)
    assert (windows.groupby("parent")["split"].nunique() == 1).all()
    assert (windows.groupby("parent")["cluster"].nunique() == 1).all()
    assert (table["length"] <= 50).all() and (windows["length"] == 50).all()
    data = run.run.manifest()["data"]
    assert (data["n_read"], data["n_windowed"], data["source"]) == (30, n_long, "standard input")
    whole = {p.id: p.sequence for p in proteins}
    for window in (p for p in run.proteins("train") if p.parent):
        assert whole[window.parent][window.start : window.start + 50] == window.sequence
    assert any(line.startswith("share of every class; farthest") for line in said)
    assert any(line.startswith("identity of the nearest training protein") for line in said)
    said.clear()
    for stdin in (b"", bz2.compress(fasta)):  # what was kept, or the same again
        finetune(stdin)
        assert sorted(file.name for file in (tmp_path / "run").glob("*stdin*")) == ["stdin"]
    assert said == ["finetune: finished before, nothing changed, not run again"] * 2
    with pytest.raises(InputError, match="standard input: line 1: protein 'x' has '1'"):
        finetune(b">x\nMK1\n")
    assert sorted(file.name for file in (tmp_path / "run").glob("*stdin*")) == ["stdin"]
    assert (tmp_path / "run" / "stdin").read_bytes()[:3] == b"BZh"


def test_hostile_names_stay_inside_the_run_folder(
    golden: Golden, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Ids and classes that are paths, markup or formulas go through every stage and leave it as they came in."""
    classes = ["../../../escaped", "/tmp/../escaped\\x", "<img src=x onerror=alert(1)>"]
    desk = tmp_path / "a" / "b"
    desk.mkdir(parents=True)
    monkeypatch.chdir(desk)
    table = pd.read_csv(golden.data, sep="\t")
    table["id"] = [f"../../{i}/escaped" if i % 2 else f"{i}:=cmd|'&*?" for i in range(len(table))]
    table["kind"] = table["ec"].str[0].map(dict(zip("236", classes, strict=True)))
    table.to_csv("hostile.tsv", sep="\t", index=False)
    study = changed(
        golden.study, desk / "hostile.toml", data={"path": "hostile.tsv", "label": "kind"},
        split={"method": "cluster"}, finetune={"epochs": 1}, evaluate=CHEAP,
        density={"nulls": ["label_shuffled"], "null_draws": 0, "bootstraps": 2},
        layout={"parts": ["sufficient"], "draws": 2}, probe={"enabled": False}, faithfulness={"enabled": False},
    )  # fmt: skip
    assert main(["run", str(study), "--out", "run", "--quiet"]) == 0
    assert main(["export", "run"]) == 0
    assert {path.name for path in tmp_path.rglob("*") if not path.is_relative_to(desk / "run")} == {
        "a", "b", "hostile.tsv", "hostile.toml",
    }  # fmt: skip
    run = Run.open("run")
    assert read_study("run/study.toml").data.path == str(desk / "hostile.tsv")
    proteins = run.table("proteins")
    assert set(proteins["label"]) == set(classes) and set(proteins["id"]) <= set(table["id"])
    assert set(run.table("class_scores")["label"]) == set(classes)
    assert set(run.table("interventions")["label"]) <= {*classes, ""}
    assert "<img src=x" not in (desk / "run" / "report.html").read_text()
    assert "escaped" in (desk / "run" / "csv" / "proteins.csv").read_text()
    assert "Traceback" not in capfd.readouterr().err
