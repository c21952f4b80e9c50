"""``scripts/explained_enzymes.py``: which enzymes are taken, and shares of annotated residues counted by hand."""

import gzip

import numpy as np
import pandas as pd
import pytest

import plmscope as ps
from plmscope.explaining.residues import Band
from scripts import explained_enzymes


def test_a_protein_by_hand():
    letters = np.array(list("HAHAHAHACC"))
    values = np.array([9.0, 0, -8, 0, 1, 0, 1, 0, 5, -1])
    band = Band(np.full(10, -2.0), np.full(10, 2.0), 20, 4, 0, 0, 1)
    own = np.array([0, 2, 9])  # H, H, and one of two C
    one = explained_enzymes.tallied(values, band, own, letters, 0.1, np.random.default_rng(0))
    assert (one["sites"], one["length"], one["usable"]) == (3, 10, 3)
    assert (one["strong"], one["outside"], one["above"]) == (1, 2, 1)
    assert (one["all_strong"], one["all_outside"], one["all_above"]) == (1, 3, 2)
    # Other H are inside the band; the other C is above it, in every draw.
    assert set(one["drawn_outside"]) == {1} and set(one["drawn_above"]) == {1} and set(one["drawn_strong"]) == {0}
    alone = explained_enzymes.tallied(values, band, np.array([8, 9]), letters, 0.1, np.random.default_rng(0))
    assert alone["usable"] == 0 and alone["outside"] == 1 and not alone["drawn_outside"].any()


@pytest.fixture(scope="module")
def tables(golden, tmp_path_factory):
    """Enzymes and sites: a test protein of the run, a relative of it, a stranger, a training protein."""
    folder = tmp_path_factory.mktemp("enzymes")
    run = golden.copy(folder / "run")
    opened = ps.open_run(run)
    test, train = opened.proteins("test")[0], opened.proteins("train")[0]
    rng = np.random.default_rng(3)
    letters = np.array(list("ACDEFGHIKLMNPQRSTVWY"))

    def changed(text, share):
        new = np.array(list(text))
        where = rng.permutation(len(new))[: round(share * len(new))]
        new[where] = rng.choice(letters, len(where))
        return "".join(new)

    sequences = {
        "relative": changed(test.sequence, 0.2), "itself": test.sequence, "near": changed(train.sequence, 0.1),
        "stranger": "".join(rng.choice(letters, 80)),
    }  # fmt: skip
    label = opened.model.labels[0]
    rows = [{"accession": name, "ec": f"{label}.1.1.1", "sequence": text} for name, text in sequences.items()]
    pd.DataFrame(rows).to_csv(folder / "enzymes.tsv.gz", sep="\t", index=False)
    site = {"feature_type": "ACT_SITE", "start": 3, "end": 4}
    pd.DataFrame([{"key": name, **site} for name in sequences]).to_csv(folder / "sites.tsv.gz", sep="\t", index=False)
    with gzip.open(folder / "unseen.tsv.gz", "wt") as out:
        out.write(f"held_out\tsequence\n1\t{test.sequence}\n0\t{sequences['stranger']}\n")
    return folder, opened


def arguments(folder, *more):
    return [str(folder / "run"), f"--enzymes={folder / 'enzymes.tsv.gz'}", f"--sites={folder / 'sites.tsv.gz'}", *more]


def test_which_enzymes_are_taken(tables):
    folder, opened = tables
    everyone, residues, own = explained_enzymes.chosen(opened, explained_enzymes.arguments(arguments(folder)))
    assert {p.id for p in everyone} == {"itself", "relative", "stranger"} and not own
    assert residues["itself"].tolist() == [2, 3]
    asked = explained_enzymes.arguments(arguments(folder, f"--unseen={folder / 'unseen.tsv.gz'}"))
    unseen, _, own = explained_enzymes.chosen(opened, asked)
    assert [p.id for p in unseen] == ["itself", "relative"] and own == {"itself"}


def test_it_prints_each_share_beside_its_comparison(tables, capsys):
    folder, _ = tables
    more = (f"--unseen={folder / 'unseen.tsv.gz'}", "--ablated=1", "--neurons=12", "--proteins=2")
    explained_enzymes.main(arguments(folder, *more))
    said = capsys.readouterr().out
    assert "themselves held out: 1 proteins, 2 annotated residues" in said and "\nall: 2 proteins" in said
    assert said.count("share outside: annotated") >= 2 and "residues, outside: annotated" in said
