"""Degenerate sets: a doubled AND neuron is found, the chain is not; a threshold alone would call random pairs."""

from __future__ import annotations

import numpy as np
import pytest

from plmscope.layout.attributions import masked_means, mean_activations, per_protein
from plmscope.layout.components import by_correlation, by_topology, wired
from plmscope.layout.degenerate import Drops, component_table, degenerate_pairs
from plmscope.layout.measure import measuring
from plmscope.models.classifier import Classifier
from plmscope.models.hooked import network_of
from plmscope.scoring.linear import gradient_activation
from tests.layout_planted import PlantedRun, planted_run


@pytest.fixture(scope="module")
def doubled(tmp_path_factory: pytest.TempPathFactory) -> PlantedRun:
    return planted_run(tmp_path_factory.mktemp("doubled"), doubled=True)


def test_exactly_the_doubled_neuron_is_a_degenerate_pair(doubled: PlantedRun) -> None:
    own = [p for p in doubled.test if p.label == "1"]
    chain = [doubled.positions(role) for role in ("key_motif", "value_motif", "write_motif")]
    sets = [[one] for one in doubled.pair] + chain
    frame = degenerate_pairs(
        measuring(doubled.model, doubled.means), "pairs", doubled.model.index, own, [p.id for p in own], 1, sets,
        [n for group in sets for n in group], draws=20,
    )  # fmt: skip
    assert len(frame) == 10
    found = frame[frame["degenerate"]]
    assert found[["a", "b"]].to_numpy().tolist() == [[0, 1]]
    row = found.iloc[0]
    assert max(row["drop_a"], row["drop_b"]) < 0.05 and row["drop_both"] > 0.5 and row["p_value"] < 0.05
    assert (frame.loc[frame["a"] > 1, ["drop_a", "drop_b"]].to_numpy() > 0.3).all()  # the chain is there once
    assert row["draws_degenerate"] <= 1  # at most 5 % of the random pairs
    assert row["against"] == pytest.approx(0, abs=0.02)


def test_thresholds_alone_call_a_noisy_pair(doubled: PlantedRun) -> None:
    shares = np.zeros((3, 12))
    shares[2, :4] = [1.0, 1.0, 1.0, 1.0]  # one cluster of four near-copies loses all, nobody else anything
    cluster = np.array([0, 0, 0, 0, *range(1, 9)])
    rng = np.random.default_rng(0)
    counts = rng.multinomial(9, np.full(9, 1 / 9), size=500)
    found = Drops(shares, counts[:, cluster])
    assert found.mean(0) <= 0.05 and found.mean(2) >= 0.3  # what the published rule asks for
    assert not found.degenerate(0, 1, 2)


def test_components_by_correlation_and_by_wiring(doubled: PlantedRun) -> None:
    attributed = per_protein(doubled.model, doubled.train[:16], doubled.means)
    one, twin = doubled.pair
    other = doubled.positions("query_constant")[0]
    groups = by_correlation(attributed[:, [one, twin, other]])
    assert [0, 1] in groups
    # A chain of two strong weights among weak ones.
    layers = [0, 0, 0, 1, 1, 1, 2, 2, 2]
    reads, writes = np.full((9, 9), 0.01), np.zeros((9, 9))
    for place in range(9):
        writes[place, place] = 1.0
    reads[3, 0], reads[6, 3] = 100.0, 20.0
    assert by_topology(layers, list(reads), list(writes))[0] == [0, 3, 6]
    assert by_topology([0, 0], list(reads[:2]), list(writes[:2])) == []
    found = wired(doubled.model.index, network_of(doubled.model), list(range(len(doubled.model.index)))[::40])
    inner = {doubled.model.index.neuron(p).site.module for group in found for p in group}
    assert inner <= {"intermediate"}
    frame = component_table(doubled.model.index, {("correlation", "1"): [[one, twin], [other]]})
    assert frame["component"].tolist() == [0, 0, 1] and set(frame["module"]) == {"intermediate", "query"}


def test_attributions_by_protein_add_up_to_the_scores(tiny: Classifier, doubled: PlantedRun) -> None:
    few = doubled.train[:6]
    found = per_protein(doubled.model, few, doubled.means)
    means = [found[[p.label == label for p in few]].mean(0) for label in ("0", "1")]
    scores = gradient_activation(doubled.model, few, baseline=doubled.means)[0]
    np.testing.assert_allclose(np.mean(means, axis=0), scores.values, atol=1e-6)


def test_activations_see_what_the_head_sees(doubled: PlantedRun) -> None:
    found = mean_activations(doubled.model, doubled.test[:8])
    motif = np.array([p.label == "1" for p in doubled.test[:8]])
    assert found[motif, doubled.pair[0]].min() > found[~motif, doubled.pair[0]].max() + 0.05
    masked = masked_means(doubled.model, doubled.train[:8])
    again = masked_means(doubled.model, doubled.train[:8])
    assert masked.shape == (3, len(doubled.model.index)) and np.array_equal(masked, again)
    read_w = doubled.positions("read_w")[0]
    assert abs(masked[2, read_w]) < abs(doubled.means[2, read_w])  # a masked residue is no W
