"""Degenerate sets: a doubled AND neuron is found, the chain is not; a threshold alone would call random pairs."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from plmscope.data.proteins import Protein
from plmscope.evaluation.interventions import Change
from plmscope.layout.attributions import masked_means, mean_activations, per_protein
from plmscope.layout.components import by_correlation, by_topology, wired
from plmscope.layout.degenerate import Drops, component_table, degenerate_pairs, with_q
from plmscope.layout.measure import measuring
from plmscope.models.classifier import Classifier
from plmscope.models.hooked import network_of
from plmscope.models.sites import NeuronIndex, Site
from plmscope.report.blocks import Table, Text
from plmscope.report.input import Results
from plmscope.report.layout import redundancy_section
from plmscope.scoring.linear import gradient_activation
from tests.fake_layout import fake_layout
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
    assert (frame["p_kind"] != "not_tested").sum() == 1
    assert (frame.loc[frame["a"] > 1, ["drop_a", "drop_b"]].to_numpy() > 0.3).all()  # the chain is there once
    assert row["draws_degenerate"] <= 1  # at most 5 % of the random pairs
    assert row["against"] == pytest.approx(0, abs=0.02)


def test_a_pair_is_tested_against_draws_of_its_own_sizes() -> None:
    index = NeuronIndex.of(layers=1, hidden=100, intermediate=500)
    inner, value = (index.slice(Site(0, module)).start for module in ("intermediate", "value"))
    sets = [[inner], [inner + 1], [inner + 2, inner + 3, inner + 4, value], [value + 1, value + 2, value + 3]]
    groups = [np.isin(np.arange(len(index)), one) for one in sets]
    seen: dict[str, Sequence[Change]] = {}

    def measure(name: str, proteins: Sequence[Protein], changes: Sequence[Change]) -> np.ndarray:
        """Sets 0 and 1 are a degenerate pair; of greater synergy, though either alone costs too much, are 2 and 3."""
        assert name not in seen  # a series of its own: what is saved of one is not taken for another
        seen[name] = changes
        out = np.full((len(changes), len(proteins), 2), [5.0, -5.0])
        for k, change in enumerate(changes):
            gone = [bool(change.selection.mask[group].all()) for group in groups]
            out[k, :, 0] = -5 if gone[2] and gone[3] else -0.2 if gone[0] and gone[1] else 2 if any(gone[2:]) else 5
        return out

    chosen = [n for group in sets for n in group]
    some = [Protein(f"p{i}", "A", "a") for i in range(6)]
    frame = degenerate_pairs(measure, "x", index, some, [p.id for p in some], 0, sets, chosen, draws=20)
    frame = with_q(frame).set_index(["a", "b"])
    assert frame.index[frame["degenerate"]].tolist() == [(0, 1)] and frame["synergy"].idxmax() == (2, 3)
    tested = frame[frame["p_kind"] == "permutation"]
    assert tested.index.tolist() == [(0, 1), (2, 3)]
    assert tested["p_value"].tolist() == [1 / 21] * 2 and set(tested["n_draws"]) == {20}
    assert tested["q_value"].tolist() == [1 / 21] * 2  # over two tests, not six
    others = frame.drop(index=tested.index)
    assert set(others["p_kind"]) == {"not_tested"} and set(others["n_draws"]) == {0}
    assert others[["against", "p_value", "q_value"]].isna().all(axis=None)

    assert {name: len(changes) for name, changes in seen.items()} == {
        "x-intact": 1, "x": 15, "x-draws-0-1": 60, "x-draws-2-3": 60,
    }  # fmt: skip
    for a, b in tested.index:
        wanted = [np.bincount(index.site_of[group], minlength=len(index.sites)) for group in (groups[a], groups[b])]
        masks = [change.selection.mask for change in seen[f"x-draws-{a}-{b}"]]
        for one, other, both in zip(masks[::3], masks[1::3], masks[2::3], strict=True):
            for mask, counts in zip((one, other), wanted, strict=True):
                assert np.array_equal(np.bincount(index.site_of[mask], minlength=len(index.sites)), counts)
            assert np.array_equal(one | other, both) and not (one & other).any()
        assert len({mask.tobytes() for mask in masks[2::3]}) > 15


def test_the_report_says_which_pairs_are_tested() -> None:
    results = Results.__new__(Results)
    results.study, results.tables = {}, fake_layout(np.random.default_rng(0))
    text, *_, table = redundancy_section.make(results)[:3]
    assert isinstance(text, Text) and isinstance(table, Table)
    assert "1 of 18 pairs of components are degenerate" in text.text
    assert "6 are tested against random pairs" in text.text and "calls 0 % degenerate" in text.text
    cells = [[cell.text for cell in row.cells[-4:]] for row in table.rows]
    assert cells[0] == ["0.001", "0 of 20", "0.0476", "yes"]
    assert sum(row == ["–", "–", "not tested", "no"] for row in cells) == 12


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
