"""What module kinds carry in a null model: the same numbers as by the evaluation of a run, for fewer passes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import plmscope.evaluation.collected
import plmscope.store.resume
from plmscope.cli import main
from plmscope.evaluation.curves import Curves, Grid, Within, curve_table, evaluate_points
from plmscope.evaluation.kinds import module_table
from plmscope.evaluation.null_kinds import NullKinds, evaluate_null
from plmscope.models.architectures import MODULES
from plmscope.models.loading import load_model
from plmscope.scoring.activation import summarise_activations
from plmscope.scoring.scores import NeuronScores
from plmscope.store.folder import Run
from plmscope.store.schema import SCHEMA
from tests.conftest import Golden
from tests.planted import neurons_of, planted_model, planted_proteins, planted_tokenizer
from tests.test_study import changed

SHARES, DRAWS, SEED = (0.1, 0.5), 3, 7


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    """A network in which queries carry nothing: those that matter are the same for all proteins."""
    folder = tmp_path_factory.mktemp("planted")
    network, roles = planted_model()
    network.save_pretrained(folder)
    planted_tokenizer().save_pretrained(folder)
    model = load_model(folder)
    values = np.random.default_rng(0).random(len(model.index))
    values[[model.index.position(neuron) for neuron in neurons_of(roles)]] += 1
    proteins = planted_proteins(24, seed=1)
    return {
        "model": model, "proteins": proteins, "clusters": [p.id for p in proteins],
        "scores": {"one": NeuronScores("one", model.index, values)},
        "constants": summarise_activations(model, planted_proteins(40, seed=0)).constants("mean"),
    }  # fmt: skip


def null_of(case: dict[str, object], folder: Path) -> NullKinds:
    return evaluate_null(
        "random_weights", *case.values(), fractions=SHARES, draws=DRAWS, seed=SEED, folder=folder, stamp="x",
        ranked_by={"one": "one_abs"},
    )  # type: ignore[arg-type]  # fmt: skip


def test_the_same_as_the_evaluation_of_a_run(case: dict[str, object], tmp_path: Path) -> None:
    model, proteins = case["model"], case["proteins"]
    found = null_of(case, tmp_path)
    grid = Grid(case["scores"], SHARES, SEED, module_fractions=SHARES)
    points = grid.points(["keep"], ["mean"], ["module"], [], DRAWS, DRAWS, Within(draws=DRAWS))
    said = list(evaluate_points(model, proteins, grid, points, {"mean": case["constants"]}))
    true = model.targets(proteins)
    curves = Curves(points, said, true, case["clusters"], 2, SEED, {"one": "one_abs"})
    whole = module_table(curves, model.index, "random_weights").set_index(["module", "metric"])
    table = found.modules.set_index(["module", "metric"])
    assert list(found.modules.columns) == list(SCHEMA["modules"]) and len(table) == len(whole) == 2 * 6
    assert found.carrying == tuple(m for m in MODULES if m != "query")
    carrying = whole.index[whole.index.get_level_values(0) != "query"]
    pd.testing.assert_frame_equal(table.loc[carrying], whole.loc[carrying, table.columns], check_dtype=False)
    assert whole["judged"].loc["key", "balanced_accuracy"] and whole["concentration"].loc["key"].gt(1).all()
    # Of a kind that carries nothing it is told so, and nothing else is known or was run.
    ends = ["intact", "held", "carried", "carried_low", "carried_high", "judged", "n_neurons", "ranked_by", "method"]
    pd.testing.assert_frame_equal(table.loc[["query"], ends], whole.loc[["query"], ends], check_dtype=False)
    idle = table.loc["query"]
    assert not idle["judged"].any() and idle[["auc", "concentration", "p_value"]].isna().all().all()
    assert set(idle["p_kind"]) == {"not_judged"} and set(idle["n_draws"]) == {0}
    drawn = curve_table(points, said, true, 2, model.index)
    drawn = drawn[(drawn["module"] != "query") | (drawn["method"] == "held")].reset_index(drop=True)
    names = ["module", "method", "draw", "fraction"]
    ours, theirs = (f.sort_values(names, ignore_index=True) for f in (found.curves.drop(columns="null"), drawn))
    pd.testing.assert_frame_equal(ours, theirs[ours.columns])


def test_continues_where_it_was(case: dict[str, object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Predictions are kept: a second call with the same stamp asks the model nothing."""
    monkeypatch.setattr(plmscope.store.resume, "SAVE_SECONDS", 0)
    first = null_of(case, tmp_path)

    def none(*_: object) -> None:
        raise AssertionError("asked again")

    monkeypatch.setattr(plmscope.evaluation.collected, "evaluate_points", none)
    pd.testing.assert_frame_equal(null_of(case, tmp_path).modules, first.modules)


def test_more_fits_of_null_models_are_a_distribution(golden: Golden, tmp_path: Path) -> None:
    run = Run.open(golden.run)
    fits, tests = run.table("null_fits"), run.table("null_tests")
    first = fits[fits["fit"] == 0].drop(columns="fit").reset_index(drop=True)
    pd.testing.assert_frame_equal(first[run.table("density_null").columns], run.table("density_null"))
    keys = ["null", "method", "fraction", "layer", "module"]
    other = fits[fits["fit"] == 1].merge(first, on=keys, suffixes=("", "_first"))
    for _, part in other.groupby("null"):  # another start, another shuffling
        assert (part["enrichment"] != part["enrichment_first"]).any()
    own, columns = run.table("density"), ["method", "fraction", "layer", "module"]
    ours = own.set_index(columns)["enrichment"]
    theirs = fits.groupby(["null", *columns])["enrichment"].apply(list)
    for row in tests.to_dict("records"):
        at = (row["method"], row["fraction"], -1, row["module"])
        values = theirs[(row["null"], *at)]
        assert row["enrichment"] == ours[at] and row["n_fits"] == len(values) == 2
        assert row["p_value"] == (1 + sum(value >= ours[at] for value in values)) / 3
        assert (row["null_min"], row["null_max"]) == (min(values), max(values))
    assert len(tests) == 2 * 2 * 2 * 6
    assert "in 2 fits of the" in (golden.run / "report.html").read_text()

    # Other shares are counted from the same fits, of which no model is kept.
    folder = golden.copy(tmp_path / "run")
    assert not list((folder / "null_fits").glob("*/model"))
    kept = {path: path.stat().st_mtime_ns for path in (folder / "null_fits").rglob("neurons.parquet")}
    changed(golden.study, folder / "study.toml", density={"fractions": [0.1]})
    assert main(["density", str(folder), "--quiet"]) == 0
    assert set(Run.open(folder).table("null_fits")["fraction"]) == {0.1}
    assert len(kept) == 2 and kept == {path: path.stat().st_mtime_ns for path in kept}
