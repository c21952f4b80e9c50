"""Which scorer to trust: the numbers of the table by hand, the recommendation, and the stage that makes it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.stats import spearmanr

from plmscope.cli import main
from plmscope.errors import StudyError
from plmscope.evaluation.curves import Grid
from plmscope.evaluation.faithfulness import agreement, area_points, areas, recommended, scorers, split_half, table
from plmscope.evaluation.predict import Predictions
from plmscope.models.sites import NeuronIndex
from plmscope.report.blocks import Text
from plmscope.report.faithfulness import _advice, faithfulness_section
from plmscope.report.input import Results
from plmscope.scoring.scores import GroupSums, NeuronScores
from plmscope.store.folder import Run
from plmscope.study.study_file import parse_study, read_study
from tests.conftest import Golden
from tests.fake_run import _faithfulness
from tests.test_study import changed

INDEX = NeuronIndex.of(layers=1, hidden=4, intermediate=4)


def scores(method: str, values: np.ndarray) -> NeuronScores:
    return NeuronScores(method, INDEX, values)


def test_agreement_is_with_the_effect_or_its_size() -> None:
    rng = np.random.default_rng(0)
    truth = scores("single_ablation", rng.normal(size=24))
    assert agreement(scores("conductance", 3 * truth.values), truth) == pytest.approx((1, 1, 1))
    opposite = agreement(scores("conductance", -truth.values), truth)
    assert opposite == pytest.approx((-1, -1, 0))
    # A score without a sign says how much: the same neurons, with either sign.
    assert agreement(scores("activation", np.abs(truth.values)), truth) == pytest.approx((1, 1, 1))
    assert agreement(scores("conductance_abs", np.abs(truth.values)), truth)[0] == pytest.approx(1)
    assert agreement(scores("activation", truth.values), truth)[0] < 0.6


def test_knowing_the_right_sites_alone_is_told_apart() -> None:
    rng = np.random.default_rng(1)
    level = 10.0 * INDEX.site_of
    truth = scores("single_ablation", level + rng.uniform(0, 1, 24))
    guess = scores("conductance", level + rng.uniform(0, 1, 24))
    overall, within, _ = agreement(guess, truth)
    by_hand = np.mean([
        spearmanr(guess.values[INDEX.site_of == s], truth.values[INDEX.site_of == s]).statistic for s in range(6)
    ])  # fmt: skip
    assert overall > 0.9 and within == pytest.approx(by_hand) and within < 0.5


def test_a_sampled_yardstick_is_compared_where_it_is_known() -> None:
    rng = np.random.default_rng(2)
    effects = rng.normal(size=24)
    sampled = np.where(np.arange(24) % 2, np.nan, effects)
    guess = np.where(np.arange(24) % 2, 100.0, effects)  # wrong where nobody looked
    assert agreement(scores("conductance", guess), scores("single_ablation", sampled)) == pytest.approx((1, 1, 1))


def test_split_half_sees_noise_and_signal() -> None:
    rng = np.random.default_rng(3)
    groups = [f"g{i}" for i in range(40)]
    signal = rng.normal(size=24)

    def of(noise: float) -> float:
        sums = GroupSums.empty(INDEX, ["a"], groups, [0] * 40, groups, "activation")
        sums.add(range(40), activation=np.abs(signal + noise * rng.normal(size=(40, 24))))
        return split_half(sums.finish("activation"))

    assert of(0.01) > 0.99
    assert of(100.0) < 0.6
    assert np.isnan(split_half(scores("activation", signal)))


def test_areas_are_balanced_accuracies_over_the_shares() -> None:
    grid = Grid({"activation": scores("activation", np.arange(24.0))}, (0.25, 0.75), 0)
    points = area_points(grid, 1)
    true = np.array([0, 0, 1, 1])
    right = {"intact": 4, "activation": 4, "random": 2}
    found = []
    for point in points:
        n = 2 if point.mode == "ablate" else right[point.method]
        found.append(Predictions(np.where(np.arange(4) < n, true, 1 - true), np.zeros(4)))
    intact, area = areas(points, found, (0.25, 0.75), true, 2)
    assert intact == 1.0
    assert area == pytest.approx({
        ("activation", "keep"): 1.0, ("random", "keep"): 0.5, ("activation", "ablate"): 0.5, ("random", "ablate"): 0.5,
    })  # fmt: skip


def frame(*rows: tuple[str, bool, float, float]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=["method", "signed", "rank_r", "cpu_seconds"])


def test_the_cheapest_near_the_best_is_recommended() -> None:
    known = frame(
        ("single_ablation", True, 1.0, 50), ("single_ablation_abs", False, 1.0, 50), ("conductance", True, 0.95, 1),
        ("conductance_abs", False, 0.9, 5), ("relp_abs", False, 0.86, 2), ("activation", False, 0.84, 0.1),
    )  # fmt: skip
    known = known.assign(recommended=recommended(known))
    assert known.loc[known["recommended"], "method"].tolist() == ["relp_abs"]  # activation is 0.06 below, signs are out
    text = _advice(known)
    assert (
        "relp (absolute) is recommended" in text and "conductance (absolute), 0.90" in text and "2 CPU seconds" in text
    )
    none = frame(("single_ablation_abs", False, 1.0, 50), ("activation", False, np.nan, 1))
    none = none.assign(recommended=recommended(none))
    assert not none["recommended"].any() and "none is recommended" in _advice(none)


@pytest.mark.parametrize(("baseline", "said"), [("mean", "held at its mean"), ("zero", "held at zero")])
def test_the_report_says_where_a_neuron_is_held(baseline: str, said: str) -> None:
    results = Results.__new__(Results)
    results.study, results.tables = {"score": {"baseline": baseline}}, {"faithfulness": _faithfulness()}
    intro = faithfulness_section.make(results)[1]
    assert isinstance(intro, Text) and f"Each of 960 neurons was {said} by itself on 12 training" in intro.text


def test_the_table_has_every_score_once() -> None:
    rng = np.random.default_rng(4)
    truth = scores("single_ablation", np.where(np.arange(24) < 20, rng.normal(size=24), np.nan))
    both = {"single_ablation": truth, "activation": scores("activation", rng.uniform(size=24))}
    area = {("activation", "keep"): 0.4, ("random", "keep"): 0.3, ("random", "ablate"): 0.2}
    found = table(both, dict.fromkeys(both, 0.5), {"single_ablation": 40.0, "activation": 2.0}, area, 0.9, 4)
    assert found["cpu_seconds"].tolist() == [10.0, 0.5] and set(found["n_neurons"]) == {20}
    assert np.isnan(found["keep"][0]) and found["keep"][1] == 0.4 and np.isnan(found["ablate"][1])


def test_which_scorers_are_compared() -> None:
    every = [name for names in scorers() for name in names]
    assert every[:2] == ["single_ablation", "single_ablation_abs"] and "relp_abs" in every and "probe" not in every
    assert [names[0] for names in scorers(["conductance", "probeless"])] == ["single_ablation", "conductance", "probe"]
    for methods, said in ((["conductanc"], "faithfulness.methods has 'conductanc'"), ([1], "text|string")):
        with pytest.raises(StudyError, match=said):
            parse_study({"faithfulness": {"methods": methods}}, "x")
    with pytest.raises(StudyError, match="1 is the intact model"):
        parse_study({"faithfulness": {"fractions": [0.5, 1.0]}}, "x")


def test_the_stage_continues_after_a_kill_and_says_what_to_use(
    golden: Golden, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    before = Run.open(golden.run).table("faithfulness").drop(columns=["cpu_seconds", "recommended"])
    assert before["method"].tolist() == [
        "single_ablation", "single_ablation_abs", "activation", "activation_std", "activation_contrast",
        "gradient_activation", "gradient_activation_abs",
    ]  # fmt: skip
    assert before["rank_r"][0] == 1 and set(before["n_neurons"]) == {18}
    assert before["keep"][:2].isna().all() and before["keep"][2:].between(0, 1).all()
    folder = golden.copy(tmp_path / "run")
    (folder / "faithfulness.parquet").unlink()
    changed(golden.study, folder / "study.toml", faithfulness={"enabled": False})  # its command asks for it
    import plmscope.study.comparing_scorers as stage

    scored, calls = stage._scored, []

    def once(context: object, names: tuple[str, ...], proteins: object) -> object:
        calls.append(names[0])
        if len(calls) == 3:
            raise KeyboardInterrupt
        return scored(context, names, proteins)  # type: ignore[arg-type]

    monkeypatch.setattr(stage, "_scored", once)
    assert main(["faithfulness", str(folder), "--quiet"]) == 130
    assert main(["faithfulness", str(folder)]) == 0
    assert calls == ["single_ablation", "activation", "gradient_activation", "gradient_activation"]
    said = capfd.readouterr().err
    assert "faithfulness: recommended: " in said
    after = Run.open(folder).table("faithfulness").drop(columns=["cpu_seconds", "recommended"])
    pd.testing.assert_frame_equal(after, before)
    assert not (folder / "faithfulness.parts").exists()
    assert read_study(folder / "study.toml").faithfulness.enabled
    assert "Which scorer to trust" in (folder / "report.html").read_text()
