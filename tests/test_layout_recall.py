"""Recall: lost motifs are failures to recall, and what pulls everything to a class mends nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from plmscope.data.proteins import Protein
from plmscope.evaluation.interventions import Change, nothing
from plmscope.layout.attributions import mean_activations
from plmscope.layout.context import context_table, masked_run
from plmscope.layout.measure import measuring
from plmscope.layout.recall import Asked, Known, auroc, failures, recall_tables, within_class
from plmscope.models.sites import NeuronIndex
from tests.layout_planted import PlantedRun, planted_run
from tests.planted import LABEL_ROLES


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> PlantedRun:
    return planted_run(tmp_path_factory.mktemp("planted"))


@pytest.fixture(scope="module")
def known(planted: PlantedRun) -> Known:
    few = planted.train[:40]
    return Known.of(mean_activations(planted.model, few), planted.model.targets(few), 2)


def motif(protein: Protein) -> int:
    """Where the W of a motif stands."""
    s = protein.sequence
    return next(i for i in range(len(s) - 2) if s[i] == "W" and s[i + 2] == "C")


def test_lost_motifs_are_failures_to_recall(planted: PlantedRun, known: Known) -> None:
    roles = sorted(planted.positions(*LABEL_ROLES))
    right = planted.test[:24]
    lost = [
        replace(p, id=f"lost{p.id}", sequence=p.sequence[: motif(p)] + "A" + p.sequence[motif(p) + 1 :])
        for p in planted.test[24:] if p.label == "1"
    ]  # fmt: skip
    proteins = [*right, *lost]
    measure = measuring(planted.model, planted.means)
    index = planted.model.index
    (odds,) = measure("intact", proteins, [nothing(index)])
    asked = Asked(
        proteins, [p.id for p in proteins], planted.model.targets(proteins), odds,
        mean_activations(planted.model, proteins),
    )  # fmt: skip
    table, summary = recall_tables(measure, index, known, asked, {"0": roles, "1": roles}, ["0", "1"], draws=20)
    assert table["right"].tolist() == [True] * 24 + [False] * len(lost)
    assert set(table["failure"][24:]) == {"low and conflict"} and set(table["failure"][:24]) == {""}
    row = summary.set_index("label").loc["1"]
    # Random neurons see that a W is gone, so that what is above 0.5 is no evidence by itself.
    assert row["auroc"] == row["low"] == 1 and 0.5 < row["auroc_against"] < 0.85 and row["low_against"] < 0.9
    assert 1 / 21 <= row["p_value"] < 0.2 and row["ci_low"] == 1
    # What was never read cannot be enhanced.
    assert row["n_enhanced"] == len(lost) and row["gained"] == 0 and row["n_others"] == 12
    # Class 0 has no error here: nothing is said of it.
    assert np.isnan(summary.set_index("label").loc["0", "auroc"])


def test_pairs_are_of_one_class() -> None:
    # Class 1 is easy and its scores are large: without regard to class, KN seems to tell right from wrong.
    kn = np.array([9.0, 10.0, 11.0, 10.0, 0.0, 1.0, 2.0, 1.0, 1.0])
    true = np.array([1, 1, 1, 1, 0, 0, 0, 0, 0])
    right = np.array([True, True, True, False, True, False, False, False, False])
    everything = (kn[right][:, None] > kn[~right][None]).mean() + 0.5 * (kn[right][:, None] == kn[~right][None]).mean()
    assert everything > 0.6
    pairs = within_class(kn, right, true)
    assert auroc(pairs)[0] == pytest.approx((0.5 + 1 + 0) / 7)
    assert np.isnan(auroc(within_class(kn[:3], right[:3], true[:3]))[0])


def test_low_and_conflict() -> None:
    kn = np.array([[4.0, 0.0], [2.0, 0.0], [3.0, 9.0], [0.0, -1.0], [1.0, 1.0]])
    true, predicted = np.array([0, 0, 0, 0, 1]), np.array([0, 0, 1, 1, 0])
    low, conflict = failures(kn, true, predicted)
    np.testing.assert_array_equal(low, [np.nan, np.nan, 0, 1, np.nan])  # the lower quartile of 2 and 4 is 2.5
    np.testing.assert_array_equal(conflict, [np.nan, np.nan, 1, 0, 0])
    kn[:, 1] = np.nan  # a class without neurons
    assert np.isnan(failures(kn, true, predicted)[1]).all()


@pytest.mark.parametrize("indiscriminate", [True, False])
def test_a_pull_to_the_class_is_no_recall(indiscriminate: bool) -> None:
    index = NeuronIndex.of(layers=1, hidden=8, intermediate=8)
    proteins = [Protein(f"p{i}", "A" * 5, "ab"[i % 2]) for i in range(20)]
    true = np.array([i % 2 for i in range(20)])
    odds = np.where(np.arange(2) == 1, 1.0, -1.0) * np.ones((20, 1))  # the model says b always
    odds[10:] = np.where(true[10:, None] == np.arange(2), 1.0, -1.0)
    own = [0, 1, 2]

    def measure(name: str, some: Sequence[Protein], changes: Sequence[Change]) -> np.ndarray:
        """Enhancing the class's neurons makes an a of an a, or of everything; nothing else does anything."""
        out = np.tile(np.array([-1.0, 1.0]), (len(changes), len(some), 1))
        for k, change in enumerate(changes):
            assert change.factor == 2
            if change.selection.mask[own].all():
                out[k, [indiscriminate or p.label == "a" for p in some]] = [1.0, -1.0]
        return out

    rng = np.random.default_rng(0)
    activations = rng.random((20, len(index)))
    asked = Asked(proteins, [p.id for p in proteins], true, odds, activations)
    chosen = {"a": own, "b": [9, 10, 11]}
    table, summary = recall_tables(measure, index, Known.of(activations, true, 2), asked, chosen, ["a", "b"], draws=20)
    row = summary.set_index("label").loc["a"]
    assert row["gained"] == row["n_enhanced"] == 5 and row["gained_other"] == 0 and row["p_gained"] < 0.1
    assert row["pulled"] == (row["n_others"] if indiscriminate else 0)
    assert row["n_others"] == 10  # all proteins of class b
    assert table["gained"].sum() == 5 and table["gained"].isna().sum() == 15
    assert summary.set_index("label").loc["", "gained"] == 5


def test_masking_the_site_and_its_double(planted: PlantedRun, known: Known) -> None:
    roles = np.array(sorted(planted.positions(*LABEL_ROLES)))
    motifs = [p for p in [*planted.train, *planted.test] if p.label == "1" and p.sequence.count("W") == 2][:10]

    def site(protein: Protein, other: bool) -> np.ndarray:
        place = motif(protein)
        places = [i for i, letter in enumerate(protein.sequence) if letter == "W" and (i != place) == other]
        return np.isin(np.arange(len(protein)), places)

    sites = {
        name: [(p, p.id, site(p, other)) for p in motifs] for name, other in (("motif", False), ("another W", True))
    }
    # Decided wrong, so that what they lose says nothing.
    sites["motif"] += [(replace(p, label="0"), p.id, site(p, False)) for p in motifs[:3]]
    sites["domain"] = [(p, p.id, np.arange(len(p)) < 20) for p in motifs]
    here = known.at(roles)

    def run(proteins: Sequence[Protein], masks: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        odds, activations = masked_run(planted.model, proteins, masks, roles)
        return odds, here.scores(activations, [[], np.arange(len(roles))])

    frame = context_table(run, sites, planted.model.labels).set_index(["feature_type", "measure"])
    for measure in ("kn", "log_odds"):
        own, other = frame.loc[("motif", measure)], frame.loc[("another W", measure)]
        assert own["n_proteins"] == own["n_residues"] == 10 and own["n_left_out"] == 0
        assert own["ci_high"] < 0 and own["p_value"] < 0.01
        # A residue that only looks like the site: here its control is the motif itself.
        assert other["difference"] > 0 and other["p_value"] > 0.5
    assert frame.loc[("motif", "log_odds"), "change"] < -2
    assert "domain" not in frame.index.get_level_values(0)


def test_a_run_with_nothing_masked_is_the_intact_one(planted: PlantedRun) -> None:
    few = planted.test[:5]
    odds, found = masked_run(planted.model, few, [np.zeros(len(p), dtype=bool) for p in few], np.array([0, 700, 900]))
    (intact,) = measuring(planted.model, planted.means)("intact", few, [nothing(planted.model.index)])
    np.testing.assert_allclose(odds, intact, atol=1e-4)
    np.testing.assert_allclose(found, mean_activations(planted.model, few)[:, [0, 700, 900]], atol=1e-6)
