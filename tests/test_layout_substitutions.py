"""What a pair protects from, by value, and whether its attributions tell true from false claims."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from plmscope.data.proteins import Protein
from plmscope.evaluation.interventions import Change, nothing
from plmscope.layout.attributions import per_protein
from plmscope.layout.claims import claim_row
from plmscope.layout.measure import measuring
from plmscope.layout.substitutions import SHARES, exchanged, robustness
from plmscope.models.sites import NeuronIndex
from tests.layout_planted import planted_run

INDEX = NeuronIndex.of(layers=1, hidden=10, intermediate=20)


def test_as_many_residues_are_exchanged_as_were_asked_for() -> None:
    protein = Protein("p", "ACDEFGHIKLMNPQRSTVWY" * 10, "1")
    for share, n in ((0.01, 2), (0.05, 10), (0.1, 20)):
        other = exchanged(protein, share, 0)
        assert sum(a != b for a, b in zip(protein.sequence, other.sequence, strict=True)) == n
        assert exchanged(protein, share, 0) == other and exchanged(protein, share, 1) != other
    few = exchanged(Protein("s", "CCCDC", "1"), 1.0, 0)
    assert few.sequence == "CCCEC" or few.sequence == "CCCNC"  # nothing is like C


def test_what_is_kept_by_value() -> None:
    proteins = [Protein(f"p{i}", "ACDEFGHIKL" * 10, "b") for i in range(3)]
    a, b = [0, 1], [12, 13, 14]

    def measure(name: str, some: Sequence[Protein], changes: Sequence[Change]) -> np.ndarray:
        """Probability of class 1: 0.8, less 0.02 an exchanged residue, less 0.03 a residue where set a is held."""
        out = np.zeros((len(changes), len(some), 2))
        for k, change in enumerate(changes):
            each = 0.03 if change.selection.mask[a].all() else 0.02
            for row, protein in enumerate(some):
                gone = sum(x != y for x, y in zip(protein.sequence, proteins[0].sequence, strict=True))
                p = 0.8 - each * gone
                out[k, row, 1] = np.log(p / (1 - p))
        return out

    frame = robustness(measure, "x", INDEX, proteins, 1, [a, b], draws=20).set_index(["share", "held"])
    for share, n in zip(SHARES, (1, 5, 10), strict=True):
        own, other = frame.loc[(share, "a")], frame.loc[(share, "b")]
        assert own["probability"] == pytest.approx(0.8) and own["probability_exchanged"] == pytest.approx(
            0.8 - 0.03 * n
        )
        assert own["kept"] == pytest.approx(1 - 0.03 * n / 0.8) and own["kept_intact"] == pytest.approx(
            1 - 0.02 * n / 0.8
        )
        assert other["kept"] == pytest.approx(own["kept_intact"]) and other["p_value"] > 0.5
        # Exchanged residues cost something whatever is held: by value both sets lose, beside draws only one does.
        assert other["kept"] < 1 and own["p_value"] <= 3 / 21
        assert own["n_neurons"] == 2 and own["n_proteins"] == 3


def test_claims_by_the_pair_and_by_anything(tmp_path_factory: pytest.TempPathFactory) -> None:
    run = planted_run(tmp_path_factory.mktemp("doubled"), doubled=True)
    few, index = run.test[:16], run.model.index
    attributed = per_protein(run.model, [replace(p, label="1") for p in few], run.means)
    (odds,) = measuring(run.model, run.means)("intact", few, [nothing(index)])
    is_true = np.array([p.label == "1" for p in few])
    ids, pair = [p.id for p in few], list(run.pair)
    row = claim_row(index, attributed, odds[:, 1], is_true, ids, pair)
    assert row["auroc"] == row["auroc_model"] == 1 and row["n_true"] == row["n_false"] == 8
    assert row["auroc"] == roc_auc_score(is_true, attributed[:, pair].sum(1))
    # Random neurons tell them apart too, by what little of the log-odds reaches them.
    assert isinstance(row["against"], float) and row["against"] < 0.85 and row["p_value"] != 1 / 21
    # Where every neuron carries the log-odds, a set tells true from false and is nothing special.
    follow = np.outer(odds[:, 1] - odds[:, 1].mean(), np.ones(len(index)))
    same = claim_row(index, follow, odds[:, 1], is_true, ids, pair)
    assert same["auroc"] == 1 and same["p_value"] == 1 and same["against"] == 1
    assert claim_row(index, follow, odds[:, 1], np.ones(16, dtype=bool), ids, pair) == {}
