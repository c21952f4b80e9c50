"""The smallest sufficient set: exactly the planted roles, and nothing like as few at random."""

from __future__ import annotations

import numpy as np
import pytest

from plmscope.evaluation.interventions import Change
from plmscope.layout.measure import measuring, resampled
from plmscope.layout.sufficient import Judges, sufficient_sets
from plmscope.models.sites import NeuronIndex
from plmscope.scoring.scores import NeuronScores
from tests.layout_planted import PlantedRun, planted_run
from tests.planted import PLANTED_ROLES, POSITION_ROLES


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> PlantedRun:
    return planted_run(tmp_path_factory.mktemp("planted"))


def judges(run: PlantedRun, n: int = 16) -> Judges:
    few = run.test[:n]
    true = run.model.targets(few)
    return Judges(few, true, resampled([p.id for p in few], true, 0), 2)


def ranked(run: PlantedRun, *first: list[int]) -> NeuronScores:
    """Scores that put some neurons first, group by group, and all others in an order of no meaning."""
    values = np.random.default_rng(3).random(len(run.model.index)) / 2
    for place, group in enumerate(first):
        values[group] = len(first) - place + values[group]
    return NeuronScores("ranked", run.model.index, values)


def test_the_planted_roles_suffice_and_no_fewer(planted: PlantedRun) -> None:
    roles, position = (sorted(planted.positions(*names)) for names in (PLANTED_ROLES, POSITION_ROLES))
    measure = measuring(planted.model, planted.means)
    frame = sufficient_sets(measure, judges(planted), {"ranked": ranked(planted, roles, position)}, ("",), draws=2)
    row = frame[frame["metric"] == "balanced_accuracy"].iloc[0]
    # The head that looks back is the same at every token: held at its means it still looks back.
    assert len(roles) - 1 <= row["k"] <= len(roles)  # the constant query too is what its mean is
    assert row["ci_low"] >= 0.9 and row["fraction"] == row["k"] / len(planted.model.index)
    assert row["k_random"] > 5 * row["k"] and row["p_value"] == pytest.approx(1 / 3)
    # What has no roles in front needs far more.
    last = NeuronScores("last", planted.model.index, -ranked(planted, roles, position).values)
    worse = sufficient_sets(measure, judges(planted), {"last": last}, ("",), draws=0)
    assert worse["k"].min() > len(planted.model.index) - len(roles) - len(position)


def test_a_kind_that_carries_nothing_is_not_judged(planted: PlantedRun) -> None:
    key = sorted(planted.positions("key_motif", "position_key"))
    measure = measuring(planted.model, planted.means)
    frame = sufficient_sets(measure, judges(planted), {"ranked": ranked(planted, key)}, ("key", "query"), draws=1)
    kinds = frame[frame["metric"] == "balanced_accuracy"].set_index("module")
    assert kinds.loc["key", "judged"] and kinds.loc["key", "k"] <= len(key)
    # Every query is a constant of its place, which its mean is too.
    assert not kinds.loc["query", "judged"] and np.isnan(kinds.loc["query", "k"])
    assert kinds.loc["query", "p_kind"] == "not_judged"


def test_bisection_finds_the_smallest_k_in_few_steps() -> None:
    index = NeuronIndex.of(layers=1, hidden=100, intermediate=500)
    values = np.arange(len(index), 0, -1.0)  # the first neuron is the best
    seen: list[int] = []

    def measure(name: str, proteins: object, changes: list[Change]) -> np.ndarray:
        """Log-odds of +1 for the true class where the best 137 are kept, else -1."""
        out = []
        for change in changes:
            kept = ~change.selection.mask
            seen.append(int(kept.sum()))
            sign = 1.0 if kept[:137].all() else -1.0
            out.append([[sign, -sign], [-sign, sign]] * 10)
        return np.array(out)

    true = np.array([0, 1] * 10)
    some = Judges([], true, resampled([str(i) for i in range(20)], true, 0), 2)
    frame = sufficient_sets(measure, some, {"m": NeuronScores("m", index, values)}, ("",), draws=0)
    assert (frame["k"].between(137, 137 * 1.1)).all()
    assert len(seen) <= 2 + 2 * 8
