"""Ablation against hooks, the grid of curve points, and a comparison small enough to work out by hand."""

from __future__ import annotations

from dataclasses import replace as changed

import numpy as np
import pytest
import torch
from scipy.stats import false_discovery_control

from plmscope.data.proteins import Protein
from plmscope.errors import SelectionError
from plmscope.evaluation.curves import (
    INTACT,
    CurveCell,
    CurvePoint,
    Curves,
    Grid,
    Within,
    compare,
    curve_table,
    evaluate_points,
    held_point,
)
from plmscope.evaluation.judging import evaluate
from plmscope.evaluation.kinds import module_table
from plmscope.evaluation.predict import Predictions
from plmscope.evaluation.selection import Selection, select_top
from plmscope.models.architectures import MODULES
from plmscope.models.classifier import Classifier
from plmscope.models.hooks import replace
from plmscope.models.sites import NeuronIndex, Site
from plmscope.scoring.activation import summarise_activations
from plmscope.scoring.scores import NeuronScores
from plmscope.stats.metrics import METRICS
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
        more = 5 if cell == PRIMARY else 2  # of the control of the primary outcome
        here = [p for p in points[1:] if (p.mode, p.ablation, p.scope) == cell]
        # two methods; random once, the two matched controls for each method; two fractions
        assert len(here) == (2 + 2 + 2 * 2 + 2 * more) * 2
        for control, targets, n in (("random", {""}, 2), ("random_matched", {"one", "two"}, more)):
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
    assert list(table.columns[:8]) == list(CurvePoint._fields)


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
    return compare(curves_of(case))


def curves_of(case: dict[CurvePoint, Predictions]) -> Curves:
    return Curves(list(case), list(case.values()), TRUE, ["a", "b", "c", "d"], 2, 0, {"good": "good_abs"})


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
    assert (row.better, row.n_draws, row.draws_beaten, row.p_kind) == (1, 2, 2, "too_few_draws")
    assert (row.ranked_by, row.module, row.p_value) == ("good_abs", "", 1 / 3) and np.isnan(row.share_better)
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
    assert not table["primary"].any() and table["q_value"].isna().all()  # two draws test nothing


def test_one_primary_outcome_a_method_and_it_alone_has_no_q_value() -> None:
    case = small_case()
    for cell in (("keep", "zero", "pooled"), ("keep", "mean", "per_site"), ("ablate", "mean", "pooled")):
        case |= small_case(*cell)
    table = compared(case)
    assert len(table) == 4 * 2 * 2 * len(METRICS)
    assert table["q_value"].isna().all()  # two draws test nothing
    primary = table[table["primary"]]
    assert primary["method"].tolist() == ["good", "bad"]
    assert set(primary[["against", "scope", "mode", "ablation", "metric"]].itertuples(index=False, name=None)) == {
        ("random_matched", "pooled", "keep", "mean", "balanced_accuracy")
    }


def test_rows_with_enough_draws_alone_are_tests() -> None:
    """Twenty draws of one control, two of the other: q values are those of the first."""
    case = small_case(scope="per_site")
    for method in ("good", "bad"):
        for r in range(2, 20):
            for fraction, accuracy in ((0.25, 0.5), (0.5, 0.75)):
                point = CurvePoint("random_matched", method, "per_site", r, "keep", "mean", fraction)
                case[point] = said(accuracy)
    table = compared(case)
    matched = table["against"] == "random_matched"
    assert (table["p_kind"] == np.where(matched, "permutation", "too_few_draws")).all()
    assert table.loc[~matched, "q_value"].isna().all() and table.loc[matched, "p_value"].min() == 1 / 21
    np.testing.assert_allclose(table.loc[matched, "q_value"], false_discovery_control(table.loc[matched, "p_value"]))


# --- within a module kind


def test_points_within_module_kinds(grid: Grid) -> None:
    within = Within(("keep", "ablate"), ("mean",), ("random_matched",), draws=3)
    points = changed(grid, module_fractions=(0.2, 0.5)).points(
        ["keep"], ["mean"], ["pooled", "module"], ["random_matched"], 5, 2, within
    )
    assert points[:7] == [INTACT, *(held_point("mean", module) for module in MODULES)]
    counted = dict.fromkeys(map(CurveCell.of, points[7:]), 0)
    assert list(counted)[:2] == [("pooled", "", "keep", "mean"), ("module", "key", "keep", "mean")]  # primary first
    for point in points[7:]:
        counted[CurveCell.of(point)] += 1
    for cell, count in counted.items():
        draws = 5 if cell.primary else 3 if cell.mode == "keep" else 2
        assert count == (2 + 2 * draws) * 2, cell
    assert len(counted) == 1 + 2 * 6 and len(set(points)) == len(points)


def test_selections_within_a_kind(grid: Grid, tiny: Classifier) -> None:
    """A method's best of the kind; a draw has its number in every layer; no other kind is touched."""
    layers = np.array([site.layer for site in tiny.index.sites])[tiny.index.site_of]
    modules = np.array([site.module for site in tiny.index.sites])[tiny.index.site_of]
    values = grid.scores["one"].values
    for module in ("key", "intermediate"):
        inside = modules == module
        own = CurvePoint("one", "", "module", -1, "keep", "mean", 0.2, module)
        drawn = [CurvePoint("random_matched", "one", "module", r, "keep", "mean", 0.2, module) for r in (0, 1)]
        mask = grid.selection(own).mask
        assert mask.sum() == round(0.2 * inside.sum()) and not mask[~inside].any()
        assert values[mask].min() > values[inside & ~mask].max()
        masks = [grid.selection(point).mask for point in drawn]
        for one in masks:
            assert not one[~inside].any() and (one != mask).any()
            assert (np.bincount(layers[one], minlength=3) == np.bincount(layers[mask], minlength=3)).all()
        assert (masks[0] != masks[1]).any()
        free = grid.selection(CurvePoint("random", "", "module", 0, "keep", "mean", 0.2, module)).mask
        assert free.sum() == mask.sum() and not free[~inside].any()
        assert (grid.kept(own) == (mask | ~inside)).all()
        assert (grid.kept(own._replace(mode="ablate")) == ~mask).all()
        assert (grid.kept(held_point("mean", module)) == ~inside).all()
    with pytest.raises(SelectionError, match="scope 'module' needs one of query, key"):
        select_top(grid.scores["one"], 0.2, "module")


def test_a_kind_is_held_as_hooks_would_do(
    tiny: Classifier, proteins: list[Protein], grid: Grid, constants: dict[str, np.ndarray]
) -> None:
    points = [held_point("mean", module) for module in MODULES]
    points += [CurvePoint("one", "", "module", -1, "keep", "mean", 0.2, module) for module in MODULES]
    test = proteins[:3]
    true = tiny.targets(test)
    for point, p in zip(points, evaluate_points(tiny, test, grid, points, constants), strict=True):
        want = np.array([by_hooks(tiny, protein, grid.kept(point), constants["mean"]) for protein in test])
        np.testing.assert_allclose(p.log_prob_true, want[np.arange(3), true], atol=2e-4, rtol=1e-4)


def module_case(held: float, values: dict[tuple[str, str, int], tuple[float, float]]) -> dict[CurvePoint, Predictions]:
    """Keys: the model is always right, and as ``held`` with all keys held."""
    points = {
        CurvePoint(method, to, "module", r, "keep", "mean", fraction, "key"): said(accuracy)
        for (method, to, r), curve in values.items()
        for fraction, accuracy in zip((0.25, 0.5), curve, strict=True)
    }
    return {INTACT: said(1.0), held_point("mean", "key"): said(held)} | points


def test_module_table_by_hand() -> None:
    index = NeuronIndex.of(layers=2, hidden=4, intermediate=8)
    case = module_case(
        0.0,
        {
            ("good", "", -1): (0.75, 1.0),
            ("random_matched", "good", 0): (0.0, 0.25), ("random_matched", "good", 1): (0.0, 0.75),
        },
    )  # fmt: skip
    row = module_table(curves_of(case), index).set_index("metric").loc["balanced_accuracy"]
    assert (row.model, row.method, row.ranked_by, row.module, row.n_neurons) == ("run", "good", "good_abs", "key", 8)
    assert (row.intact, row.held, row.carried, row.judged) == (1, 0, 1, True)
    ours = (0 + 0.75) / 2 * 0.25 + (0.75 + 1) / 2 * 0.25 + 0.5
    theirs = [(0 + 0) / 2 * 0.25 + (0 + m) / 2 * 0.25 + (m + 1) / 2 * 0.5 for m in (0.25, 0.75)]
    assert row.auc == pytest.approx(ours) and row.auc_against == pytest.approx(np.mean(theirs))
    # 0.9 between 0.75 at a quarter and 1 at a half; the mean curve of the draws is 0, 0.5, 1
    assert row.sufficient_share == pytest.approx(0.25 + 0.25 * (0.9 - 0.75) / 0.25)
    assert row.sufficient_share_against == pytest.approx(0.5 + 0.5 * (0.9 - 0.5) / 0.5)
    assert row.concentration == pytest.approx(row.sufficient_share_against / row.sufficient_share)
    assert row.concentration_low <= row.concentration <= row.concentration_high
    assert (row.p_value, row.p_kind, row.n_draws) == (1 / 3, "too_few_draws", 2) and np.isnan(row.p_holm)
    table = compared(case).set_index("metric")
    assert table.loc["balanced_accuracy", "auc"] == pytest.approx(ours)
    assert table["primary"].tolist() == [name == "balanced_accuracy" for name in table.index]
    assert table.loc["log_probability", "share_better"] == 1


def test_a_kind_that_carries_nothing_is_not_judged() -> None:
    case = module_case(
        1.0, {("good", "", -1): (1.0, 1.0), **{("random_matched", "good", r): (0.75, 1) for r in (0, 1)}}
    )
    table = module_table(curves_of(case), NeuronIndex.of(layers=2, hidden=4, intermediate=8))
    assert not table["judged"].any() and set(table["p_kind"]) == {"not_judged"}
    empty = ["p_value", "p_holm", "sufficient_share", "sufficient_share_against", "concentration", "concentration_low"]
    assert table[empty].isna().all().all() and (table["carried"] == 0).all()


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
    assert p == (1 + (row <= result.observed["log_loss"]).sum()) / 5
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
