"""Substitutions: known answers on the planted network, counts by hand, and what is written wrongly."""

import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.stats import spearmanr

import plmscope as ps
from plmscope.cli import main
from plmscope.data.proteins import Protein
from plmscope.errors import InputError
from plmscope.explaining.variants import COLUMNS, mutated, read_mutations
from plmscope.models.architectures import architecture_of
from plmscope.models.classifier import Classifier
from plmscope.models.sites import NeuronIndex
from tests.planted import planted_model, planted_proteins, planted_tokenizer


@pytest.fixture(scope="module")
def planted():
    model, roles = planted_model()
    classifier = Classifier(
        model, planted_tokenizer(), architecture_of("esm"), ("0", "1"), NeuronIndex.of(2, 64, 256), "planted"
    )
    classifier.freeze()
    protein = next(p for p in planted_proteins(12, seed=2) if p.label == "1" and p.sequence.count("W") == 1)
    at = protein.sequence.index("W") + 1
    return classifier, roles, protein, at


@pytest.fixture(scope="module")
def scan(planted):
    classifier, roles, protein, _ = planted
    return ps.variants(classifier, protein, thresholds={roles["and"][0]: 2.0})


def test_only_the_motif_silences_the_neuron(planted, scan):
    _, roles, protein, at = planted
    assert len(scan.table) == 19 * len(protein) and tuple(scan.table.columns) == COLUMNS
    place = scan.table["mutation"].str[1:-1].astype(int)
    gone = scan.table["n_silent"] == 1
    assert set(place[gone]) == {at, at + 2} and gone.sum() == 38
    neuron = roles["and"][0]
    assert set(scan.table.loc[gone, "silent"]) == {f"{neuron.site.layer}.{neuron.site.module}.{neuron.index}"}
    assert (scan.table.loc[gone, "change"] < -10).all() and (scan.table.loc[gone, "decided"] == "0").all()
    assert (scan.table.loc[~gone, "change"].abs() < 3).all() and (scan.table.loc[~gone, "decided"] == "1").all()
    assert scan.table.set_index("mutation").loc[f"W{at}A", "n_silent"] == 1
    assert f"the model says another of {38}" in repr(scan)


def test_changes_are_those_of_the_mutated_sequence(planted, scan):
    """Each by a protein of its own."""
    classifier, _, protein, at = planted
    for mutation in (f"W{at}A", f"{protein.sequence[0]}1Y" if protein.sequence[0] != "Y" else "Y1A"):
        sequence = mutated(protein, mutation)
        logp = classifier.log_probabilities([Protein("a", sequence), protein])
        odds = logp[:, 1] - logp[:, 0]
        assert scan.table.set_index("mutation").loc[mutation, "change"] == pytest.approx(odds[0] - odds[1], abs=1e-3)


def test_a_neuron_wakes(planted):
    """From a protein without the motif to one with it, by two substitutions at once."""
    classifier, roles, protein, at = planted
    silent = Protein("silent", mutated(protein, f"W{at}A:C{at + 2}A"))
    back = ps.variants(classifier, silent, label="1", mutations=[f"A{at}W", f"A{at}W:A{at + 2}C"],
                       thresholds={roles["and"][0]: 2.0})  # fmt: skip
    assert back.table["n_awake"].tolist() == [0, 1] and back.table["decided"].tolist() == ["0", "1"]
    assert back.table["change"].iloc[1] > 10


def test_some_positions_and_the_matrix(planted, scan):
    classifier, _, protein, at = planted
    some = ps.variants(classifier, protein, positions=[at, at + 1])
    assert len(some.table) == 38 and some.table["n_silent"].sum() == 0  # a model alone has no cards to watch
    matrix = some.matrix()
    assert matrix.shape == (20, len(protein)) and matrix.notna().sum().sum() == 38 + len(protein)
    assert matrix.loc["W", at] == 0 and matrix.loc["A", at] == some.table["change"].iloc[0]
    whole = scan.table.set_index("mutation")["change"]
    assert some.table.set_index("mutation")["change"].to_numpy() == pytest.approx(
        whole[some.table["mutation"]].to_numpy(), abs=1e-3
    )


def test_agreement_with_measured_scores(scan):
    rng = np.random.default_rng(0)
    measured = {m: c + rng.normal(0, 1e-3) for m, c in zip(scan.table["mutation"], scan.table["change"], strict=True)}
    found = scan.agreement(measured).set_index("by")
    values = scan.table["change"].to_numpy()
    assert found.loc["model", "spearman"] == pytest.approx(spearmanr(values, list(measured.values())).statistic)
    assert found.loc["model", "ci_low"] <= found.loc["model", "spearman"] <= found.loc["model", "ci_high"]
    assert set(found.index) == {"model", "blosum62", "hydropathy", "own letter"}
    assert (found.loc["model", "spearman"] > found["spearman"].drop("model")).all()
    with pytest.raises(InputError, match="0 of the variants have a measured score"):
        scan.agreement({"X1Y": 1.0})


def test_cards_are_watched_in_a_run(golden, tmp_path):
    run = ps.open_run(golden.copy(tmp_path / "run"))
    protein = run.proteins("test")[0]
    found = ps.variants(run, Protein("p", protein.sequence[:30]), positions=[1, 2])
    assert len(found.table) == 38 and (found.table["n_silent"] + found.table["n_awake"]).sum() > 0
    row = found.table[found.table["n_silent"] > 0].iloc[0]
    assert len(row["silent"].split("; ")) == row["n_silent"]


@pytest.mark.parametrize(
    ("mutation", "said"),
    [
        ("W9", "is not written like A12V"),
        ("A99V", "has 5 residues"),
        ("A2V", "protein 'p' has K at 2; write K2V"),
    ],
)
def test_mutations_that_do_not_fit(mutation, said):
    with pytest.raises(InputError, match=said):
        mutated(Protein("p", "MKTAY"), mutation)


def test_positions_outside(tiny):
    with pytest.raises(InputError, match="position 6: protein 'protein' has 5 residues"):
        ps.variants(tiny, "MKTAY", positions=[6])


def test_files_of_mutations(tmp_path):
    path = tmp_path / "m.txt"
    path.write_text("K2R\nK2R:A4G\n")
    assert read_mutations(path) == (["K2R", "K2R:A4G"], {})
    path.write_text("mutation,score\nK2R,0.5\nA4G,\n")
    assert read_mutations(path) == (["K2R", "A4G"], {"K2R": 0.5})
    path.write_text("mutation\tscore\nK2R\tgood\n")
    with pytest.raises(InputError, match="line 2: score 'good' is no number"):
        read_mutations(path)
    path.write_text("a,b\nK2R,1\n")
    with pytest.raises(InputError, match="no column 'mutation'; there are a, b"):
        read_mutations(path)


def data_of(page: Path) -> dict:
    """What a page draws; it asks for nothing."""
    text = page.read_text()
    assert "default-src 'none'" in text and not re.findall(r"(?:src|href)=\"?https?:", text)
    return json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.DOTALL)[1])


def test_the_command(golden, tmp_path, capsys):
    run = golden.copy(tmp_path / "run")
    (tmp_path / "p.fasta").write_text(">p\nMKTAYIAKQRQISFVK\n")
    (tmp_path / "two.fasta").write_text(">p\nMKTAYIAKQRQISFVK\n>q\nMKTAY\n")
    (tmp_path / "m.csv").write_text("mutation,score\nK2R,0.5\nK2E,-1\nT3A,0.2\nA4G,\n")
    assert main(["variants", str(run), str(tmp_path / "two.fasta"), "--positions", "2-3,5", "--quiet"]) == 0
    table = pd.read_parquet(run / "variants" / "two" / "variants.parquet")
    assert table.groupby("id").size().to_dict() == {"p": 57, "q": 57}
    assert len(pd.read_csv(run / "variants" / "two" / "variants.csv")) == 114
    page = data_of(run / "variants" / "two" / "variants.html")["proteins"]
    assert [(one["id"], len(one["rows"]), one["agreement"]) for one in page] == [("p", 57, []), ("q", 57, [])]
    of_p = table[table["id"] == "p"].reset_index(drop=True)
    assert [row[0] for row in page[0]["rows"]] == of_p["mutation"].tolist()
    np.testing.assert_allclose([row[1] for row in page[0]["rows"]], of_p["change"], rtol=1e-5, atol=1e-9)  # six digits
    own = [str(run), str(tmp_path / "p.fasta"), "--mutations", str(tmp_path / "m.csv"), "--out", str(tmp_path / "o")]
    assert main(["variants", *own, "--quiet"]) == 0
    assert "Spearman with 3 measured scores by blosum62" in capsys.readouterr().err
    assert len(pd.read_csv(tmp_path / "o" / "agreement.csv")) == 4
    shown = data_of(tmp_path / "o" / "variants.html")["proteins"][0]["agreement"]
    assert [row["by"] for row in shown] == ["model", "blosum62", "hydropathy", "own letter"]
    assert main(["variants", str(run), str(tmp_path / "two.fasta"), "--mutations", str(tmp_path / "m.csv")]) == 2
    assert "2 proteins, but mutations are of one" in capsys.readouterr().err
    assert main(["variants", *own, "--positions", "3"]) == 2
    assert main(["variants", *own[:2], "--positions", "5-3"]) == 2
    assert "are not written like 10-40" in capsys.readouterr().err


def test_the_table_is_plain(scan):
    assert isinstance(scan.table, pd.DataFrame) and not scan.table.isna().any().any()
