"""Ablation against hooks, the grid of curve points, and a comparison small enough to work out by hand."""

from __future__ import annotations

from dataclasses import replace as changed

import numpy as np
import pytest
import torch
from scipy.stats import false_discovery_control
from scipy.stats import t as student

from plmscope.activation import summarise_activations
from plmscope.errors import SelectionError
from plmscope.evaluation import (
    INTACT,
    CurvePoint,
    Grid,
    Predictions,
    compare,
    curve_table,
    evaluate,
    evaluate_points,
)
from plmscope.hooks import replace
from plmscope.model import Classifier
from plmscope.scores import NeuronScores
from plmscope.selection import Selection, select_top
from plmscope.sequences import Protein
from plmscope.sites import NeuronIndex, Site
from plmscope.stats import METRICS
from tests.conftest import make_proteins

FRACTIONS = (0.1, 0.4)
PRIMARY = ("keep", "mean", "pooled")


@pytest.fixture(scope="module")
def constants(tiny: Classifier) -> dict[str, np.ndarray]:
    summary = summarise_activations(tiny, make_proteins(6, seed=4))
    return {ablation: summary.constants(ablation) for ablation in ("mean", "zero")}


@pytest.fixture(scope="module")
def grid(tiny: Classifier) -> Grid:
    rng = np.random.default_rng(2)
    scores = {m: NeuronScores(m, tiny.index, rng.normal(size=len(tiny.index)), proteins=("s",)) for m in ("one", "two")}
    return Grid(scores, FRACTIONS, seed=5, activity=rng.random(len(tiny.index)))


@torch.no_grad()
def by_hooks(model: Classifier, protein: Protein, works: np.ndarray, constants: np.ndarray) -> np.ndarray:
    """Log probabilities ``(C,)`` of the Hugging Face model while hooks hold the neurons that do not work."""

    def held(site: Site):  # type: ignore[no-untyped-def]
        off = torch.from_numpy(~works[model.index.slice(site)])
        first, last, residue = (torch.from_numpy(c).float() for c in constants[:, model.index.slice(site)])

        def change(a: torch.Tensor) -> torch.Tensor:
            a = a.clone()
            a[:, 0, off], a[:, -1, off], a[:, 1:-1, off] = first[off], last[off], residue[off]
            return a

        return change

    with replace(model, {site: held(site) for site in model.index.sites}):
        logits = model.model(**model.tokenizer(protein.sequence, return_tensors="pt")).logits
    return logits[0].double().log_softmax(-1).numpy()


# --- predictions


@pytest.mark.parametrize("ablation", ["mean", "zero"])
@pytest.mark.parametrize("mode", ["keep", "ablate"])
def test_points_are_what_hooks_would_do(
    tiny: Classifier, proteins: list[Protein], grid: Grid, constants: dict[str, np.ndarray], mode: str, ablation: str
) -> None:
    points = [
        CurvePoint("one", "", "pooled", -1, mode, ablation, 0.4),
        CurvePoint("random_matched", "two", "per_site", 1, mode, ablation, 0.1),
    ]
    test = proteins[:5]
    found = list(evaluate_points(tiny, test, grid, points, constants, token_budget=100))
    true = tiny.targets(test)
    for point, p in zip(points, found, strict=True):
        mask = grid.selection(point).mask
        works = mask if mode == "keep" else ~mask
        want = np.array([by_hooks(tiny, protein, works, constants[ablation]) for protein in test])  # (P, C)
        np.testing.assert_allclose(p.log_prob_true, want[np.arange(5), true], atol=2e-4, rtol=1e-4)
        assert (p.predicted == want.argmax(1)).all()


def test_the_intact_point_is_the_untouched_model(
    tiny: Classifier, proteins: list[Protein], grid: Grid, constants: dict[str, np.ndarray]
) -> None:
    (p,) = evaluate_points(tiny, proteins, grid, [INTACT], constants)
    log_p = tiny.log_probabilities(proteins)
    assert (p.predicted == log_p.argmax(1)).all()
    np.testing.assert_allclose(p.log_prob_true, log_p[np.arange(9), tiny.targets(proteins)], atol=2e-5, rtol=1e-5)


# --- the grid


def test_points_of_a_grid(grid: Grid) -> None:
    points = grid.points(
        ["keep", "ablate"],
        ["mean", "zero"],
        ["pooled", "per_site"],
        ["random", "random_matched", "random_active"],
        5,
        2,
    )
    cells = list(dict.fromkeys((p.mode, p.ablation, p.scope) for p in points[1:]))
    assert points[0] == INTACT and len(cells) == 8
    assert len(points) == len(set(points))
    assert cells[0] == PRIMARY
    for cell in cells:
        n = 5 if cell == PRIMARY else 2
        here = [p for p in points[1:] if (p.mode, p.ablation, p.scope) == cell]
        # two methods; random once, the two matched controls for each method; two fractions
        assert len(here) == (2 + n + 2 * 2 * n) * 2
        for control, targets in (("random", {""}), ("random_matched", {"one", "two"})):
            assert {(p.matched_to, p.draw) for p in here if p.method == control} == {
                (target, r) for target in targets for r in range(n)
            }
        assert {p.draw for p in here if p.method in ("one", "two")} == {-1}
        assert {p.fraction for p in here} == set(FRACTIONS)


def test_points_are_only_those_asked_for(grid: Grid) -> None:
    points = grid.points(["ablate"], ["zero"], ["per_site"], ["random"], 9, 3)
    assert len(points) == 1 + (2 + 3) * 2
    assert {(p.mode, p.ablation, p.scope) for p in points[1:]} == {("ablate", "zero", "per_site")}


def test_selections_of_a_grid(grid: Grid, tiny: Classifier) -> None:
    def at(method: str, to: str, r: int, fraction: float = 0.4, scope: str = "pooled") -> np.ndarray:
        return grid.selection(CurvePoint(method, to, scope, r, "keep", "mean", fraction)).mask

    assert (at("two", "", -1) == select_top(grid.scores["two"], 0.4).mask).all()
    assert (at("two", "", -1, scope="per_site") == select_top(grid.scores["two"], 0.4, "per_site").mask).all()
    for control in ("random", "random_matched", "random_active"):
        to = "" if control == "random" else "two"
        assert at(control, to, 0).sum() == at("two", "", -1).sum()
        assert not (at(control, to, 0, 0.1) & ~at(control, to, 0)).any()  # a draw's selections are nested
        assert (at(control, to, 0) != at(control, to, 1)).any()
    sites = [np.bincount(tiny.index.site_of[mask], minlength=18).tolist() for mask in (
        at("random_matched", "one", 0), at("one", "", -1), at("two", "", -1)
    )]  # fmt: skip
    assert sites[0] == sites[1] != sites[2]
    assert (at("random_matched", "one", 0) != at("random_matched", "two", 0)).any()
    again = changed(grid)
    assert (again.selection(CurvePoint("random", "", "pooled", 1, *PRIMARY[:2], 0.4)).mask == at("random", "", 1)).all()
    other = changed(grid, seed=6)
    assert (other.selection(CurvePoint("random", "", "pooled", 1, *PRIMARY[:2], 0.4)).mask != at("random", "", 1)).any()


@pytest.mark.parametrize("fractions", [(), (0.0, 0.5), (0.5, 1.0), (0.5, 0.1), (0.1, 0.1)])
def test_impossible_fractions_are_refused(grid: Grid, fractions: tuple[float, ...]) -> None:
    with pytest.raises(SelectionError, match="must increase and lie between 0 and 1"):
        changed(grid, fractions=fractions)


# --- curves and comparison


def test_curve_table_counts_the_neurons_that_were_selected(
    tiny: Classifier, proteins: list[Protein], grid: Grid, constants: dict[str, np.ndarray]
) -> None:
    """Per site the rounding is per site: 18 sites of at least one neuron are not 1 % of 504."""
    small = changed(grid, fractions=(0.01, 0.4))
    points = small.points(["keep"], ["zero"], ["pooled", "per_site"], ["random_matched"], 1, 1)
    found = list(evaluate_points(tiny, proteins, small, points, constants))
    table = curve_table(points, found, tiny.targets(proteins), 3, tiny.index)
    assert table["n_neurons"].tolist() == [len(tiny.index), *(len(small.selection(p)) for p in points[1:])]
    assert table.loc[table["scope"] == "per_site", "n_neurons"].min() == 18
    assert (table["accuracy"] == [(p.predicted == tiny.targets(proteins)).mean() for p in found]).all()
    np.testing.assert_allclose(table["log_loss"], [-p.log_prob_true.mean() for p in found], rtol=1e-6)
    assert list(table.columns[:7]) == list(CurvePoint._fields)


TRUE = np.array([0, 0, 1, 1])
# Right answers, and so accuracies: class 0 two proteins, class 1 two.
ANSWERS = {1.0: [0, 0, 1, 1], 0.75: [0, 0, 1, 0], 0.5: [0, 0, 0, 0], 0.25: [0, 1, 0, 0], 0.0: [1, 1, 0, 0]}


def said(accuracy: float) -> Predictions:
    return Predictions(np.array(ANSWERS[accuracy], np.int16), np.full(4, np.log(0.25 + accuracy / 2), np.float32))


def small_case(mode: str = "keep", ablation: str = "mean", scope: str = "pooled") -> dict[CurvePoint, Predictions]:
    """Two methods, two random and two matched draws, at fractions 0.25 and 0.5; the model is always right."""
    values = {
        ("good", "", -1): (0.75, 1.0), ("bad", "", -1): (0.0, 0.25),
        ("random", "", 0): (0.25, 0.5), ("random", "", 1): (0.5, 0.5),
        ("random_matched", "good", 0): (0.25, 0.75), ("random_matched", "good", 1): (0.5, 0.75),
        ("random_matched", "bad", 0): (0.25, 0.25), ("random_matched", "bad", 1): (0.5, 0.75),
    }  # fmt: skip
    points = {
        CurvePoint(method, to, scope, r, mode, ablation, fraction): said(accuracy)
        for (method, to, r), curve in values.items()
        for fraction, accuracy in zip((0.25, 0.5), curve, strict=True)
    }
    return {INTACT: said(1.0)} | points


def compared(case: dict[CurvePoint, Predictions]):  # type: ignore[no-untyped-def]
    return compare(list(case), list(case.values()), TRUE, ["a", "b", "c", "d"], 2, 0)


def area(low: float, middle: float, high: float, ends: tuple[float, float, float]) -> float:
    return (low + middle) / 2 * (ends[1] - ends[0]) + (middle + high) / 2 * (ends[2] - ends[1])


def test_comparison_by_hand() -> None:
    table = compared(small_case())
    assert len(table) == 2 * 2 * len(METRICS)
    row = table.set_index(["method", "against", "metric"]).loc[("good", "random_matched", "balanced_accuracy")]
    ends = (0.25, 0.5, 1.0)
    ours, draws = area(0.75, 1, 1, ends), [area(0.25, 0.75, 1, ends), area(0.5, 0.75, 1, ends)]
    assert (ours, *draws) == (0.71875, 0.5625, 0.59375)
    assert row.auc == pytest.approx(ours) and row.auc_against == pytest.approx(np.mean(draws))
    assert row.difference == pytest.approx(0.140625)
    assert (row.better, row.n_draws, row.draws_beaten, row.p_kind) == (1, 2, 2, "prediction_t")
    spread = np.std(draws, ddof=1) * np.sqrt(1.5)
    assert row.p_value == pytest.approx(student.sf((ours - np.mean(draws)) / spread, 1))
    assert row.ci_low <= row.difference <= row.ci_high
    bad = table.set_index(["method", "against", "metric"]).loc[("bad", "random", "accuracy")]
    assert bad.auc == pytest.approx(area(0, 0.25, 1, ends))
    assert bad.auc_against == pytest.approx((area(0.25, 0.5, 1, ends) + area(0.5, 0.5, 1, ends)) / 2)
    assert bad.draws_beaten == 0 and bad.p_value > 0.5


def test_ablating_is_judged_the_other_way_round() -> None:
    table = compared(small_case(mode="ablate")).set_index(["method", "against", "metric"])
    row = table.loc[("bad", "random_matched", "accuracy")]
    assert row.auc == pytest.approx(area(1, 0, 0.25, (0, 0.25, 0.5)))  # the intact model is where nothing is ablated
    assert (row.better, row.draws_beaten) == (-1, 2)
    assert row.p_value < 0.5 < table.loc[("good", "random_matched", "accuracy"), "p_value"]
    assert table.loc[("bad", "random_matched", "log_loss"), "better"] == 1
    assert not table["primary"].any() and table["q_value"].notna().all()


def test_one_primary_outcome_a_method_and_it_alone_has_no_q_value() -> None:
    case = small_case()
    for cell in (("keep", "zero", "pooled"), ("keep", "mean", "per_site"), ("ablate", "mean", "pooled")):
        case |= small_case(*cell)
    table = compared(case)
    assert len(table) == 4 * 2 * 2 * len(METRICS)
    primary = table[table["primary"]]
    assert primary["method"].tolist() == ["good", "bad"]
    assert set(primary[["against", "scope", "mode", "ablation", "metric"]].itertuples(index=False, name=None)) == {
        ("random_matched", "pooled", "keep", "mean", "balanced_accuracy")
    }
    assert primary["q_value"].isna().all()
    others = table[~table["primary"]]
    np.testing.assert_allclose(others["q_value"], false_discovery_control(others["p_value"]))


def test_a_comparison_repeats_itself() -> None:
    first, again = compared(small_case()), compared(small_case())
    assert first.equals(again)


# --- one selection


@pytest.fixture(scope="module")
def kept(grid: Grid) -> Selection:
    return select_top(grid.scores["one"], 0.3)


def test_evaluate_says_what_survives(
    tiny: Classifier, proteins: list[Protein], kept: Selection, constants: dict[str, np.ndarray]
) -> None:
    result = evaluate(tiny, proteins, kept, constants=constants["mean"], n_random=4)
    want = np.array([by_hooks(tiny, p, kept.mask, constants["mean"]) for p in proteins])
    true = tiny.targets(proteins)
    assert result.observed["accuracy"] == (want.argmax(1) == true).mean()
    assert result.observed["log_loss"] == pytest.approx(-want[np.arange(9), true].mean(), rel=1e-4)
    assert result.intact["accuracy"] == (tiny.log_probabilities(proteins).argmax(1) == true).mean()
    assert {control: len(v["log_loss"]) for control, v in result.draws.items()} == {"random": 4, "random_matched": 4}
    assert len(set(result.draws["random"]["log_loss"])) == 4
    p = result.p_value("random", "log_loss")
    row = result.draws["random"]["log_loss"]
    score = (row.mean() - result.observed["log_loss"]) / (row.std(ddof=1) * np.sqrt(1 + 1 / 4))
    assert p == pytest.approx(student.sf(score, 3))
    lines = repr(result).splitlines()
    assert lines[0] == repr(kept)
    accuracy, intact = (values["balanced_accuracy"] for values in (result.observed, result.intact))
    assert lines[1] == f"keep, mean ablation, 9 proteins: balanced accuracy {accuracy:.3f} (intact model {intact:.3f})"
    assert [line.split(":")[0] for line in lines[2:]] == ["  against random", "  against random_matched"]
    assert "(4 draws), p = " in lines[2]


def test_evaluate_by_ablating_with_zero(tiny: Classifier, proteins: list[Protein], kept: Selection) -> None:
    result = evaluate(tiny, proteins, kept, mode="ablate", ablation="zero", n_random=2)
    want = np.array([by_hooks(tiny, p, ~kept.mask, np.zeros((3, len(tiny.index)))) for p in proteins])
    assert result.observed["log_loss"] == pytest.approx(-want[np.arange(9), tiny.targets(proteins)].mean(), rel=1e-4)


def test_ablating_nothing_and_keeping_all_is_the_model(tiny: Classifier, proteins: list[Protein]) -> None:
    nobody = Selection(tiny.index, np.zeros(len(tiny.index), bool))
    for selection, mode in ((nobody, "ablate"), (~nobody, "keep")):
        result = evaluate(tiny, proteins, selection, mode=mode, ablation="zero", n_random=2)
        assert result.observed == result.intact


def test_evaluate_refuses_the_proteins_that_chose(tiny: Classifier, proteins: list[Protein], kept: Selection) -> None:
    own = changed(kept, proteins=("p3", "p1", "elsewhere"))
    with pytest.raises(SelectionError, match="2 of the proteins, first 'p1', chose this selection"):
        evaluate(tiny, proteins, own, ablation="zero", n_random=2)
    assert evaluate(tiny, proteins, own, ablation="zero", n_random=2, allow_scored=True).n_proteins == 9
    assert evaluate(tiny, [p for p in proteins if p.id not in ("p1", "p3")], own, ablation="zero", n_random=2)


def test_evaluate_needs_means_and_possible_settings(
    tiny: Classifier, proteins: list[Protein], kept: Selection, constants: dict[str, np.ndarray]
) -> None:
    with pytest.raises(SelectionError, match=r"mean ablation needs constants: summarise_activations"):
        evaluate(tiny, proteins, kept)
    brought = changed(tiny, ablation_means=constants["mean"])
    by_argument = evaluate(tiny, proteins, kept, constants=constants["mean"], n_random=2)
    assert evaluate(brought, proteins, kept, n_random=2).observed == by_argument.observed
    for wrong in ({"mode": "drop"}, {"ablation": "median"}, {"n_random": 1}):
        with pytest.raises(SelectionError, match="not a possible evaluation"):
            evaluate(tiny, proteins, kept, constants=constants["mean"], **wrong)  # type: ignore[arg-type]
    other = NeuronIndex.of(layers=1, hidden=24, intermediate=48)
    with pytest.raises(SelectionError, match="another shape"):
        evaluate(tiny, proteins, Selection(other, np.ones(len(other), bool)), ablation="zero", n_random=2)
