"""Modularity: blocks and classes that can be cut out are found; what a random network has too is not called modular."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.stats import kstest, ttest_rel

from plmscope.cli import main
from plmscope.data.proteins import Protein
from plmscope.evaluation.interventions import Change
from plmscope.layout import attributions
from plmscope.layout.attributions import masked_means, mean_activations, moments, per_protein
from plmscope.layout.experts import (
    balanced_clusters,
    best_classes,
    class_counts,
    experts_of,
    largest,
    measures,
    mutual_information,
    of_classes,
    overlap_row,
    specificity,
    with_damage,
)
from plmscope.layout.pruning import STATISTICS, corrected, pruned, pruning_tables, random_order, ratios
from plmscope.models.classifier import Classifier
from plmscope.models.hooked import network_of
from plmscope.models.hooks import record
from plmscope.models.loading import load_model
from plmscope.models.sites import NeuronIndex, Site
from plmscope.report.blocks import FigureGroup, Table, Text
from plmscope.report.input import Results
from plmscope.report.modularity import modularity_section
from plmscope.scoring.activation import summarise_activations
from plmscope.stats.chance import benjamini_hochberg
from plmscope.store.folder import Run
from plmscope.study.study_file import read_study
from tests.conftest import Golden, make_proteins, save_tiny_model
from tests.fake_layout import fake_layout
from tests.test_study import changed

INDEX = NeuronIndex.of(layers=1, hidden=12, intermediate=128)
INNER = np.arange(len(INDEX))[INDEX.slice(Site(0, "intermediate"))]
BLOCK = np.random.default_rng(5).permutation(np.repeat([0, 1, 2, 3], 32))


def same(one: np.ndarray, other: np.ndarray) -> float:
    """Adjusted Rand index, from pairs."""
    table = pd.crosstab(one, other).to_numpy()
    pairs = [float((x * (x - 1) / 2).sum()) for x in (table, table.sum(0), table.sum(1))]
    n = len(one) * (len(one) - 1) / 2
    expected = pairs[1] * pairs[2] / n
    return (pairs[0] - expected) / ((pairs[1] + pairs[2]) / 2 - expected)


def block_rows() -> np.ndarray:
    """Rows of a layer that reads four directions, each by 32 neurons at scales of their own."""
    rng = np.random.default_rng(0)
    directions = np.linalg.qr(rng.normal(size=(16, 4)))[0].T
    return (directions[BLOCK] + 0.15 * rng.normal(size=(128, 16))) * rng.uniform(0.1, 3, (128, 1))


def experts() -> np.ndarray:
    found = np.full(len(INDEX), -1)
    found[INNER] = balanced_clusters(block_rows())
    return found


def test_four_blocks_are_four_experts_of_equal_size() -> None:
    found = balanced_clusters(block_rows())
    assert same(found, BLOCK) >= 0.95 and np.bincount(found).tolist() == [32] * 4
    assert np.bincount(balanced_clusters(block_rows()[:100], size=32)).tolist() == [34, 33, 33]
    assert np.array_equal(balanced_clusters(block_rows(), seed=3), balanced_clusters(block_rows(), seed=3))


def test_a_class_of_one_block_sits_in_one_expert() -> None:
    scores = np.random.default_rng(1).random((3, len(INDEX)))
    scores[0, INNER[BLOCK == 2]] += 2  # class 0 rests on one block, the others on nothing in particular
    of = experts()
    frame = measures(INDEX, of, scores, ["a", "b", "c"], 20, "run", deals=200).set_index(["measure", "label"])
    assert frame.loc[("half", "a"), "value"] == 1 and frame.loc[("half", "a"), "p_value"] < 0.05
    assert frame.loc[("half", "b"), "p_value"] > 0.05 and frame.loc[("nmi", ""), "p_value"] == 1 / 201
    counts = class_counts(INDEX, of, scores, ["a", "b", "c"], 20)
    best = counts[counts["q_value"] < 0.05]
    assert best["label"].tolist() == ["a"] and best["n"].item() == 20 and best["enrichment"].item() == 4
    assert largest(counts, 1) == [(0, int(best["expert"].item()))]
    assert (best_classes(INDEX, scores)[INNER[BLOCK == 2]] == 0).mean() > 0.8


def test_p_of_the_information_is_uniform_for_random_scores() -> None:
    rng = np.random.default_rng(2)
    of, p = experts(), []
    for r in range(100):
        scores = rng.normal(size=(3, len(INDEX)))
        frame = measures(INDEX, of, scores, ["a", "b", "c"], 20, "random_scores", deals=39, seed=r)
        p.append(frame.loc[frame["measure"] == "nmi", "p_value"].item())
        # The information is above 0 in every one of them: by itself it is no module.
        assert frame.loc[frame["measure"] == "nmi", "value"].item() > 0
    assert kstest(np.array(p) - rng.random(100) / 40, "uniform").pvalue > 0.05


@pytest.fixture(scope="module")
def untrained(tmp_path_factory: pytest.TempPathFactory) -> pd.DataFrame:
    """NMI and overlap of 60 networks with random weights, from scores as the stage makes them of a null model.

    They are eight wide, so that neurons read much alike.
    """
    proteins, frames, folder = make_proteins(18), [], tmp_path_factory.mktemp("untrained")
    shape = {"hidden_size": 8, "num_attention_heads": 1, "intermediate_size": 128, "num_hidden_layers": 1}
    for seed in range(60):
        network = load_model(save_tiny_model(folder / str(seed), seed=seed, **shape))
        constants = summarise_activations(network, proteins).constants("mean")
        attributed, classes = per_protein(network, proteins, constants), network.targets(proteins)
        of, scores = experts_of(network.index, network_of(network)), of_classes(attributed, classes, 3)
        frames.append(measures(network.index, of, scores, network.labels, 20, "random_weights", 39, seed).head(1))
        frames.append(overlap_row(attributed, classes, 3, 20, "random_weights", 39, seed))
    return pd.concat(frames)


@pytest.mark.parametrize(("measure", "called"), [("nmi", (0.1, 0.3)), ("overlap", (0.8, 1.0))])
def test_random_weights_have_small_p_values_but_no_more_than_each_other(
    measure: str, called: tuple[float, float], untrained: pd.DataFrame
) -> None:
    """Neurons that read alike have like scores, and classes differ in what the head reads, whatever the weights.

    So p against dealt neurons or classes is not uniform for networks that have learned nothing: that these have
    modules is what it would say. What one of them has beyond its own deals is on average that of another.
    """
    frame = untrained[untrained["measure"] == measure]
    naive = (frame["p_value"] <= 0.05).mean()
    assert called[0] <= naive <= called[1]
    p = frame["p_value"].to_numpy() - np.random.default_rng(0).random(len(frame)) / 40
    assert kstest(p, "uniform").pvalue < 0.01
    beyond = (frame["value"] - frame["against"]).to_numpy()
    assert abs(beyond.mean()) > 3 * beyond.std() / len(beyond) ** 0.5
    run, null = beyond[: len(beyond) // 2], beyond[len(beyond) // 2 :]
    assert ttest_rel(run, null).pvalue > 0.05 and 0.25 < (run > null).mean() < 0.75


def test_overlap_is_low_only_against_dealt_classes() -> None:
    rng = np.random.default_rng(3)
    classes = np.repeat([0, 1, 2], 6)
    noise = np.abs(rng.normal(size=(18, 400)))
    apart = noise.copy()
    for c in range(3):
        apart[classes == c, 20 * c : 20 * c + 20] += 4
    assert overlap_row(apart, classes, 3, 20, "run", 99)["p_value"].item() < 0.05
    none = overlap_row(noise, classes, 3, 20, "random_weights", 99)
    assert none["value"].item() < 0.15 and none["p_value"].item() > 0.05  # little overlap, and no module
    assert mutual_information(np.array([0, 1, 0, 1]), np.array([1, 1, 1, 1])) == 0


def test_damage_beside_random_neurons_of_the_layer() -> None:
    counts = class_counts(INDEX, experts(), np.random.default_rng(1).random((2, len(INDEX))), ["a", "b"], 20)
    lost, drawn = {(0, 1): np.array([0.6, np.nan])}, {0: np.tile([0.1, 0.1], (20, 1))}
    frame = with_damage(counts, lost, drawn, ["a", "b"]).set_index(["expert", "label"])
    row = frame.loc[(1, "a")]
    assert (row["damage"], row["damage_against"]) == (0.6, pytest.approx(0.1)) and row["p_damage"] == 1 / 21
    assert frame.drop(index=(1, "a"))["damage"].isna().all()
    assert specificity(list(lost.values())) != specificity([np.array([0.6, 0.1])])  # one class alone says nothing


# --- selective pruning


NONE = np.zeros(len(INDEX), dtype=bool)


def activity(names: Sequence[str], gone: np.ndarray) -> np.ndarray:
    """24 proteins, of which class 0 lights up twelve inner neurons; the others are active in any."""
    assert list(names) == ["mean_absolute"]
    found = np.random.default_rng(4).lognormal(sigma=0.6, size=(24, len(INDEX)))
    found[:, INNER[:12]] = 1
    found[:8, INNER[:12]] = 4
    return np.where(gone, 0.0, found)[None]


def model(name: str, proteins: Sequence[Protein], changes: Sequence[Change]) -> np.ndarray:
    """Class 0 is decided while nine of the twelve are there; class 1 is fragile, class 2 always right."""
    out = np.zeros((len(changes), len(proteins), 3))
    for k, change in enumerate(changes):
        assert name == "pruning-intact" or change.factor == 0
        alive = ~change.selection.mask[INNER]
        for row, protein in enumerate(proteins):
            true = "abc".index(str(protein.label))
            lost = (true == 0 and alive[:12].sum() < 9) or (true == 1 and alive.mean() < 0.97)
            out[k, row, 2 if lost else true] = 5
    return out


def test_a_class_that_can_be_cut_out_and_one_that_is_merely_fragile() -> None:
    proteins = [Protein(f"p{i}", "A", "abc"[i % 3]) for i in range(18)]
    train = np.repeat([0, 1, 2], 8)
    curves, summary = pruning_tables(
        model, INDEX, activity, train, proteins, [p.id for p in proteins], np.arange(18) % 3, ["a", "b", "c"],
        draws=21, steps=(0.1, 0.2, 0.3),
    )  # fmt: skip
    found = summary.set_index("label")
    assert found.loc["a", "separability"] > 0.4 and found.loc["a", "p_value"] < 0.05
    # Dealt proteins are now and then mostly of the class.
    assert found.loc["a", "p_dealt"] < 0.25 and found.loc["a", "dealt"] < 0.3
    # Anything that is pruned costs the fragile class first: separable by the curve alone, not by its nulls.
    assert found.loc["b", "separability"] > 0.3
    assert found.loc["b", ["p_value", "p_dealt"]].min() > 0.5
    assert found.loc["c", "separability"] < 0
    both = corrected(pd.concat([summary, summary.assign(statistic="share_positive", p_value=1.0)]))
    once = corrected(summary)
    assert once["q_value"].tolist() == benjamini_hochberg(summary["p_value"]).tolist()
    assert both["q_value"].min() == pytest.approx(2 * once["q_value"].min())  # of twice as many tests
    first = curves[(curves["label"] == "a") & (curves["step"] == 1)].iloc[0]
    assert first["accuracy_label"] == 0 and first["n_neurons"] == 14 and first["accuracy_label_against"] > 0.5


def test_scores_are_measured_again_and_nothing_returns() -> None:
    seen = []

    def watched(names: Sequence[str], gone: np.ndarray) -> np.ndarray:
        seen.append(int(gone.sum()))
        return activity(names, gone)

    own = np.arange(24) < 8
    intact = activity(["mean_absolute"], NONE)
    steps = pruned(INDEX, watched, intact, own, (0.1, 0.2, 0.5))
    assert seen == [14, 28] and [int(one.sum()) for one in steps] == [14, 28, 70]
    assert (steps[0] <= steps[1]).all() and steps[0][INNER[:12]].all()
    modules = {INDEX.neuron(int(n)).site.module for n in np.flatnonzero(steps[2])}
    assert modules == {"intermediate", "value"}
    drawn = random_order(INDEX, steps, (0,))
    for one, other in zip(steps, drawn, strict=True):
        assert np.array_equal(np.bincount(INDEX.site_of[one]), np.bincount(INDEX.site_of[other]))
    assert (drawn[0] <= drawn[2]).all()
    assert ratios(INDEX, intact, own)[INNER[0]] == pytest.approx(4, rel=0.01)


@pytest.mark.parametrize(
    ("statistic", "first"),
    [("mean_absolute", 0), ("root_mean_square", 1), ("standard_deviation", 2), ("share_positive", 3)],
)
def test_each_statistic_prunes_what_it_sees_first(statistic: str, first: int) -> None:
    rng = np.random.default_rng(6)
    tokens = rng.choice([-1.0, 1.0], size=(24, 40, len(INDEX)))  # proteins, tokens, neurons
    own = np.arange(24) < 8
    alike, rare, apart, up = INNER[:4]
    tokens[own, :, alike] *= 1.5  # in every token
    tokens[own, :, rare] *= np.where(np.arange(40) < 4, 5.3, 0.1)  # large in a tenth of them
    tokens[:, :, apart] = 3 + rng.normal(size=(24, 40)) * np.where(own, 0.8, 0.3)[:, None]  # its spread alone
    tokens[own, :, up] = 0.9  # always positive, hardly ever as large
    known = {
        "mean": tokens.mean(1), "mean_absolute": np.abs(tokens).mean(1), "mean_square": (tokens**2).mean(1),
        "share_positive": (tokens > 0).mean(1),
    }  # fmt: skip

    def measured(names: Sequence[str], gone: np.ndarray) -> np.ndarray:
        return np.stack([known[name] for name in names])

    (one,) = pruned(INDEX, measured, measured(STATISTICS[statistic].moments, NONE), own, (1 / 140,), statistic)
    assert np.flatnonzero(one).tolist() == [INNER[first]]
    of_class, others = tokens[own][:, :, apart], tokens[~own][:, :, apart]
    found = ratios(INDEX, measured(["mean_square", "mean"], NONE), own, "standard_deviation")
    assert found[apart] == pytest.approx(of_class.std() / (others.std() + 1e-3))


def test_units_of_any_module_can_be_pruned() -> None:
    own = np.arange(24) < 8
    moments_of = np.random.default_rng(7).lognormal(size=(1, 24, len(INDEX)))
    found = ratios(INDEX, moments_of, own, modules=("key", "output"))
    kinds = np.array([site.module for site in INDEX.sites])[INDEX.site_of]
    assert set(kinds[np.isfinite(found)]) == {"key", "output"}
    for kind, eps in (("key", 1e-4), ("output", 1e-3)):
        n = int(np.flatnonzero(kinds == kind)[0])
        assert found[n] == pytest.approx(moments_of[0, :8, n].mean() / (moments_of[0, 8:, n].mean() + eps))


def test_activations_of_a_pruned_model(tiny: Classifier, proteins: list[Protein]) -> None:
    gone = np.zeros(len(tiny.index), dtype=bool)
    plain = mean_activations(tiny, proteins[:3])
    assert np.array_equal(moments(tiny, proteins[:3], ("mean",), gone=gone)[0], plain)
    gone[tiny.index.slice(Site(0, "value"))] = True
    after = moments(tiny, proteins[:3], ("mean",), gone=gone)[0]
    assert np.array_equal(after[:, tiny.index.slice(Site(0, "query"))], plain[:, tiny.index.slice(Site(0, "query"))])
    rest = tiny.index.slice(Site(1, "intermediate"))
    assert np.abs(after[:, rest] - plain[:, rest]).max() > 1e-4


def test_the_report_shows_every_statistic_that_was_asked() -> None:
    results = Results.__new__(Results)
    results.study, results.tables, results.manifest = {}, fake_layout(np.random.default_rng(0)), {}
    text, table, figure = list(modularity_section.make(results))[:3]
    assert isinstance(text, Text) and isinstance(table, Table) and isinstance(figure, FigureGroup)
    assert "those units of the intermediate and value modules" in text.text and "1 of 2 classes" in text.text
    assert len(figure.selects) == 1 and not any(row.cells[0].small for row in table.rows)
    results.study = {"layout": {"pruning_modules": ["key", "output"]}}
    for name in ("separability", "pruning"):
        frame = results.tables[name]
        results.tables[name] = pd.concat([frame, frame.assign(statistic="share_positive")], ignore_index=True)
    text, table, figure = list(modularity_section.make(results))[:3]
    assert isinstance(text, Text) and isinstance(table, Table) and isinstance(figure, FigureGroup)
    assert "those units of the key and output modules" in text.text
    assert "2 of 4 pairs of class and statistic" in text.text and "2 statistics: mean absolute and share" in text.text
    assert [row.cells[0].small for row in table.rows] == ["mean absolute"] * 2 + ["share positive"] * 2
    assert [select.name for select in figure.selects] == ["pruned-class", "pruned-by"]
    assert {tuple(trace["when"]) for trace in figure.panels[0].traces} == {("pruned-class", "pruned-by")}


def test_moments_are_those_of_recorded_activations(tiny: Classifier, proteins: list[Protein]) -> None:
    sites = [Site(0, "key"), Site(1, "intermediate")]
    names = ("share_positive", "mean_square", "mean", "mean_absolute")
    found = moments(tiny, proteins[:3], names)
    for row, protein in enumerate(proteins[:3]):
        with record(tiny, sites) as seen, torch.inference_mode():
            batch = tiny.batch([protein])
            tiny.model(input_ids=batch.input_ids, attention_mask=batch.attention_mask)
        for site in sites:
            a = seen[site][0].double().numpy()
            expected = np.stack([(a > 0).mean(0), (a**2).mean(0), a.mean(0), np.abs(a).mean(0)])
            np.testing.assert_allclose(found[:, row, tiny.index.slice(site)], expected, rtol=1e-3, atol=1e-6)


# --- the null models of a run


def test_a_masked_baseline_is_masked_in_the_null_models_too(
    golden: Golden, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = golden.copy(tmp_path / "run")
    asked = {"parts": ["modularity"], "baseline": "masked", "experts": 0}
    changed(golden.study, folder / "study.toml", layout=asked)
    attribute, seen = attributions.per_protein, list[tuple[Any, Sequence[Protein], np.ndarray]]()

    def watched(model: Classifier, proteins: Sequence[Protein], constants: np.ndarray, budget: int) -> np.ndarray:
        seen.append((model, proteins, constants))
        return attribute(model, proteins, constants, budget)

    monkeypatch.setattr(attributions, "per_protein", watched)
    assert main(["layout", str(folder), "--quiet"]) == 0
    assert set(Run.open(folder).table("modularity")["model"]) == {"run", "label_shuffled", "random_weights"}
    assert len(seen) == 3
    study = read_study(folder / "study.toml")
    for model, proteins, constants in seen:
        expected = masked_means(model, proteins, study.seed, study.evaluate.token_budget)
        np.testing.assert_array_equal(constants, expected)
    assert not np.allclose(seen[0][2], seen[1][2])  # each model's own
