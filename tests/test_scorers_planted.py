"""The scorers and the evaluation on a network whose important neurons are known.

What holds, measured: of the 13 best neurons by integrated gradients all 11 planted ones are there and the other two
belong to the head that looks two residues back, which the answer needs as well (10 of the best 12 are planted).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from plmscope.data.proteins import Protein
from plmscope.errors import SelectionError
from plmscope.evaluation.curves import Curves, Grid, Within, evaluate_points
from plmscope.evaluation.judging import Evaluation, evaluate
from plmscope.evaluation.kinds import module_table
from plmscope.evaluation.selection import Selection, select_shared, select_top
from plmscope.models.architectures import MODULES
from plmscope.models.classifier import Classifier
from plmscope.models.loading import load_model
from plmscope.models.sites import Neuron
from plmscope.scoring.activation import activation_scores, summarise_activations
from plmscope.scoring.integrated_gradients import integrated_gradients
from plmscope.scoring.scores import NeuronScores
from tests.planted import (
    LABEL_ROLES,
    PLANTED_ROLES,
    POSITION_ROLES,
    by_site,
    neurons_of,
    planted_model,
    planted_proteins,
    planted_tokenizer,
)

SCORING = 100  # proteins for the contrast, which is cheap
ATTRIBUTED = 12  # proteins for integrated gradients


class Planted:
    """A planted network as a user would have it: saved, loaded, scored."""

    def __init__(self, folder: Path, idle_constants: float) -> None:
        model, self.roles = planted_model(idle_constants)
        model.save_pretrained(folder)
        planted_tokenizer().save_pretrained(folder)
        self.model: Classifier = load_model(folder)
        proteins = [Protein(f"train{p.id}", p.sequence, p.label) for p in planted_proteins(SCORING, seed=0)]
        self.train, self.test = proteins, planted_proteins(40, seed=1)
        summary = summarise_activations(self.model, proteins)
        self.constants = summary.constants("mean")
        self.activation, _, self.contrast = activation_scores(self.model, proteins)
        self.gradients, self.absolute = integrated_gradients(self.model, proteins[:ATTRIBUTED], points=64)[:2]

    def positions(self, *names: str) -> set[int]:
        """Positions of the neurons of some roles in a flat array."""
        return {self.model.index.position(neuron) for neuron in neurons_of(self.roles, names)}

    def selection(self, *names: str) -> Selection:
        mask = np.isin(np.arange(len(self.model.index)), list(self.positions(*names)))
        return Selection(self.model.index, mask, "planted")

    def evaluate(self, selection: Selection, mode: str = "keep", ablation: str = "mean") -> Evaluation:
        return evaluate(
            self.model, self.test, selection, mode=mode, ablation=ablation, constants=self.constants, n_random=3
        )


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Planted:
    return Planted(tmp_path_factory.mktemp("planted"), 0)


@pytest.fixture(scope="module")
def loud(tmp_path_factory: pytest.TempPathFactory) -> Planted:
    """The same network, its idle units at a constant of 30."""
    return Planted(tmp_path_factory.mktemp("loud"), 30)


def best(scores: NeuronScores, count: int) -> set[int]:
    return set(np.argsort(-scores.values, kind="stable")[:count].tolist())


def missed(scores: NeuronScores, neurons: list[Neuron]) -> list[Neuron]:
    """Those of the given neurons that are not the best of their sites."""
    found = []
    for site, units in by_site(neurons).items():
        order = np.argsort(-scores.values[scores.index.slice(site)], kind="stable")
        found += [Neuron(site, unit) for unit in units if unit not in order[: len(units)]]
    return found


def balanced_accuracy(result: Evaluation) -> float:
    return result.observed["balanced_accuracy"]


# --- integrated gradients


@pytest.mark.parametrize("variant", ["planted", "loud"])
def test_integrated_gradients_find_every_planted_neuron(variant: str, request: pytest.FixtureRequest) -> None:
    network: Planted = request.getfixturevalue(variant)
    assert missed(network.gradients, neurons_of(network.roles)) == []
    wanted = network.positions(*PLANTED_ROLES)
    assert len(wanted) == 11
    assert len(best(network.gradients, 12) & wanted) == 10
    assert wanted <= best(network.gradients, 13) <= wanted | network.positions(*POSITION_ROLES)
    # and they stand out from all neurons that have no part in the answer
    rest = np.delete(network.gradients.values, list(wanted | network.positions(*POSITION_ROLES)))
    assert network.gradients.values[list(wanted)].min() > 5 * rest.max()


def test_idle_neurons_get_nothing_from_integrated_gradients(loud: Planted) -> None:
    assert np.abs(loud.gradients.values[list(loud.positions("idle"))]).max() < 1e-3


def test_few_points_leave_a_gap_in_sharp_attention(planted: Planted) -> None:
    """The two heads look at one token each; from zero to a peak the integrand is steep, and only there."""
    gaps = {}
    for points in (16, 64):
        frame = integrated_gradients(planted.model, planted.train[:4], points=points)[0].completeness
        assert frame is not None
        gaps[points] = frame.assign(gap=frame["gap"].abs()).groupby("module")["gap"].mean()
    for module in ("query", "key"):
        assert gaps[16][module] > 0.2
        assert gaps[64][module] < gaps[16][module] / 10
    assert all(gaps[16][module] < 0.1 for module in MODULES if module not in ("query", "key"))


# --- activations


@pytest.mark.parametrize("variant", ["planted", "loud"])
def test_contrast_finds_content_and_not_constants(variant: str, request: pytest.FixtureRequest) -> None:
    network: Planted = request.getfixturevalue(variant)
    assert missed(network.contrast, neurons_of(network.roles, LABEL_ROLES)) == []
    assert not network.contrast.values[list(network.positions("query_constant", *POSITION_ROLES))].any()
    # What W alone says is the same in both classes: needed, but no contrast.
    (read_w,) = network.positions("read_w")
    assert network.contrast.values[read_w] < 0.3 < network.contrast.values[list(network.positions(*LABEL_ROLES))].min()


def test_size_is_fooled_by_idle_constants(planted: Planted, loud: Planted) -> None:
    """The logits are the same to the bit; ranking by size finds the idle units, first and nothing else."""
    assert (planted.model.log_probabilities(planted.test) == loud.model.log_probabilities(loud.test)).all()
    idle, wanted = loud.positions("idle"), loud.positions(*PLANTED_ROLES)
    assert best(loud.activation, len(idle)) == idle
    content = neurons_of(loud.roles, ("read_w", "and", "key_motif", "value_motif"))
    assert missed(loud.activation, content) == content
    assert not best(loud.activation, len(idle)) & wanted
    # to the other two it is the same network (the contrast of idle units is beside the constant, but not nothing)
    np.testing.assert_allclose(loud.gradients.values, planted.gradients.values, atol=1e-3)
    others = sorted(set(range(len(loud.model.index))) - idle)
    np.testing.assert_allclose(loud.contrast.values[others], planted.contrast.values[others], rtol=1e-3, atol=1e-3)
    assert not best(loud.gradients, 80) & idle


# --- keeping and ablating


def test_keeping_the_known_neurons_keeps_the_answer(planted: Planted) -> None:
    result = planted.evaluate(planted.selection(*PLANTED_ROLES, *POSITION_ROLES))
    assert result.intact["balanced_accuracy"] == 1
    assert result.observed["accuracy"] >= 0.99 and balanced_accuracy(result) >= 0.99
    for control in ("random", "random_matched"):
        assert result.draws[control]["balanced_accuracy"].max() <= 0.6


@pytest.mark.parametrize("ablation", ["mean", "zero"])
def test_ablating_the_known_neurons_leaves_chance(planted: Planted, ablation: str) -> None:
    result = planted.evaluate(planted.selection(*PLANTED_ROLES), "ablate", ablation)
    assert balanced_accuracy(result) == 0.5  # 1 / C
    assert result.draws["random"]["balanced_accuracy"].min() == 1  # as many others: nothing happens


def sufficient(network: Planted, scores: NeuronScores) -> bool:
    """Whether the best 100 of 1,152 neurons by a score keep the answer and their ablation destroys it."""
    top = Selection(scores.index, select_top(scores, 100 / len(scores.index)).mask, scores.method)
    return (
        balanced_accuracy(network.evaluate(top)) >= 0.99 and balanced_accuracy(network.evaluate(top, "ablate")) <= 0.55
    )


def test_a_right_scorer_passes_and_wrong_ones_fail(loud: Planted) -> None:
    right = loud.gradients
    assert sufficient(loud, right)
    shuffled = np.random.default_rng(0).permutation(right.values)
    for name, values in (("negated", -right.values), ("shuffled", shuffled), ("size", loud.activation.values)):
        wrong = NeuronScores(name, right.index, values)
        assert not sufficient(loud, wrong), name
        assert missed(wrong, neurons_of(loud.roles)), name


# --- points that are found, and the source's own rule


def test_sharp_heads_are_caught_and_get_more_points(planted: Planted) -> None:
    """Query and key of the two heads that look at one token need far more points than anything else."""
    scores, _ = integrated_gradients(planted.model, planted.train[:4])
    frame = scores.completeness
    assert frame is not None and frame["settled"].all()
    most = frame.groupby("module")["points"].max()
    assert min(most["query"], most["key"]) >= 32
    assert most.drop(["query", "key"]).max() <= 16
    assert frame["gap"].abs().max() < 0.05 * frame["expected"].abs().max()


def test_the_rule_of_dai_et_al_finds_what_every_positive_protein_shares(planted: Planted) -> None:
    """The motif neurons are strong in every protein that has the motif, and in no other."""
    some = [p for p in planted.train if p.label == "1"][:4] + [p for p in planted.train if p.label == "0"][:4]
    twice = [*some, *(Protein(f"{p.id}b", p.sequence, p.label) for p in some[:1])]  # one cluster has two members
    groups = [p.id.removesuffix("b") for p in twice]
    scores, _ = integrated_gradients(planted.model, twice, points=64, shared=0.2, groups=groups)
    assert scores.sums is not None
    found = select_shared(scores, 0.75)
    wanted = planted.positions(*PLANTED_ROLES, *POSITION_ROLES)
    chosen = set(np.flatnonzero(found["1"].mask).tolist())
    assert chosen and chosen <= wanted
    # by hand: strong in at least half of the members of at least three of the four clusters
    alone = [integrated_gradients(planted.model, [p], points=64)[0].values for p in some[:4]]
    counts = sum((values >= 0.2 * values.max()).astype(int) for values in alone)
    assert chosen == set(np.flatnonzero(counts >= 3).tolist())
    assert set(np.flatnonzero(select_shared(scores, 1.0)["1"].mask).tolist()) == set(
        np.flatnonzero(counts == 4).tolist()
    )
    with pytest.raises(SelectionError, match="made without shared; score again"):
        select_shared(planted.gradients)


def test_module_kinds_are_as_concentrated_as_they_were_built(planted: Planted) -> None:
    """Of 128 keys one carries the label, of 128 values two, of 512 intermediate neurons one; queries carry nothing.

    With all that is needed among the best 5 %, the curve runs straight from nothing at 0 to everything at 5 %, so that
    nine tenths take 4.5 %. What draws need is computed from where the needed neurons are in each of them.
    """
    share, draws, grid_shares = 0.05, 20, (0.05, 0.5, 0.8)
    grid = Grid({"one": planted.absolute}, grid_shares, 0, module_fractions=grid_shares)
    points = grid.points(["keep"], ["mean"], ["module"], [], draws, draws, Within(draws=draws))
    found = list(evaluate_points(planted.model, planted.test, grid, points, {"mean": planted.constants}))
    curves = Curves(points, found, planted.model.targets(planted.test), [p.id for p in planted.test], 2, 0)
    table = module_table(curves, planted.model.index)
    table = table[table["metric"] == "balanced_accuracy"].set_index("module")
    needed = {"key": ["key_motif"], "value": ["read_w", "value_motif"], "intermediate": ["and"]}
    for module, roles in needed.items():
        row, own = table.loc[module], sorted(planted.positions(*roles))
        assert row["judged"] and row["intact"] == 1 and row["held"] == pytest.approx(0.5)
        assert row["sufficient_share"] == pytest.approx(0.9 * share)
        # A draw gives everything back once it has all that is needed, and nothing before.
        there = [
            np.mean([
                grid.kept(p)[own].all() for p in points
                if (p.method, p.module, p.fraction) == ("random_matched", module, f)
            ])
            for f in grid_shares
        ]  # fmt: skip
        expected = float(np.interp(0.9, np.maximum.accumulate([0, *there, 1]), [0, *grid_shares, 1]))
        assert row["sufficient_share_against"] == pytest.approx(expected, abs=0.02)
        assert row["concentration"] == pytest.approx(expected / (0.9 * share), rel=0.03)
        assert row["p_value"] <= 4 / (1 + draws)  # a draw that has them too is as good
    assert not table.loc["query", "judged"] and table.loc["query", ["concentration", "p_value", "p_holm"]].isna().all()
    assert table.loc["query", "p_kind"] == "not_judged"
