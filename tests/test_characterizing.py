"""The characterization of a run: its tables hold together, features and patterns reach it, bad ones are refused."""

import json
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from plmscope.cli import main
from plmscope.data.clusters import one_of_each_cluster
from plmscope.data.proteins import Protein
from plmscope.errors import InputError
from plmscope.knowledge.cards import Bars, explained
from plmscope.store.folder import Run
from plmscope.store.resume import Parts
from plmscope.study.characterizing import TABLES
from plmscope.study.describing import _asked
from plmscope.study.study_file import read_study
from tests.conftest import Golden
from tests.test_study import NEURONS, changed

KEYS = ["layer", "module", "neuron"]
FAST = {"fractions": [0.01, 0.05, 0.2], "methods": ["activation_std"], "max_neurons": 5}


@pytest.fixture(scope="module")
def run(golden: Golden) -> Run:
    return Run.open(golden.run)


def test_every_neuron_has_its_best_concept(run: Run) -> None:
    table = run.table("associations")
    best = table[table["rank"] == 1]
    assert len(best) == 2 * NEURONS and not best.duplicated([*KEYS, "sign"]).any()
    assert set(table["concept"]) <= set(run.table("concepts")["concept"])
    for name in ("precision", "recall", "recall_domain", "f1", "iou", "discovery_f1", "discovery_auroc"):
        assert table[name].between(0, 1).all(), name
    tested = table["q_value"].notna()
    assert (table.loc[tested, "q_value"] >= table.loc[tested, "p_value"]).all()
    assert (table["confirmed"] == (table["q_value"] < 0.05)).all()
    gains = table.groupby([*KEYS, "sign"])["rank"].apply(list)
    assert gains.map(lambda ranks: ranks == list(range(1, len(ranks) + 1))).all()


def test_selected_neurons_have_cards_and_motifs(run: Run) -> None:
    cards, motifs, associations = (run.table(name) for name in ("neuron_cards", "motifs", "associations"))
    selections = run.table("selections").query("scope == 'pooled' and fraction == 0.02")
    for method, rows in cards.groupby("method"):
        chosen = selections[selections["method"] == method]
        assert set(map(tuple, rows[KEYS].to_numpy())) == set(map(tuple, chosen[KEYS].to_numpy()))
        assert sorted(rows["rank"]) == list(range(1, len(chosen) + 1))
    merged = cards.merge(motifs, on=[*KEYS, "sign"], validate="many_to_one")
    assert len(merged) == len(cards) and len(motifs) == 2 * len(cards.drop_duplicates(KEYS))
    assert (motifs["matrix"].map(len) == 20 * motifs["width"]).all()
    matrices = np.concatenate([np.reshape(m, (-1, 20)) for m in motifs["matrix"]])
    np.testing.assert_allclose(matrices.sum(1), 1, atol=1e-5)
    several = associations.groupby([*KEYS, "sign"]).size()
    assert several.max() == 5 and (several > 1).sum() == len(motifs)
    good = associations[explained(associations, Bars())]
    for card in cards.itertuples():
        own = good[(good[KEYS] == [card.layer, card.module, card.neuron]).all(axis=1)]
        assert card.concept == "" or card.concept in own["concept"].tolist()
        assert card.explained == (card.concept != "" or card.motif != "")
        assert card.explained != card.sentence.startswith("Neither a concept nor a motif explains this neuron")
        assert f"{card.module}, layer {card.layer}, neuron {card.neuron}." in card.sentence
    proteins = run.table("proteins").set_index("id")
    for peak in json.loads(cards["top_proteins"].iloc[0]):
        assert proteins.loc[peak["id"], "split"] == "train"
        assert proteins.loc[peak["id"], "sequence"][peak["start"] - 1 :].startswith(peak["sequence"])
        assert len(peak["activation"]) == len(peak["sequence"])


def test_the_manifest_counts(run: Run) -> None:
    found, table = run.manifest()["characterize"], run.table("associations")
    assert not (run.path / "characterize.parts").exists()  # what the passes kept is gone at the end
    assert found["discovery_proteins"] == 36 and found["confirmation_proteins"] == 24
    assert found["pairs"] == len(table) and found["pairs_confirmed"] == table["confirmed"].sum()
    assert found["pairs_confirmed_shifted"] <= 0.05 * found["pairs_tested"]
    one_each = run.table("neuron_cards").drop_duplicates(KEYS)
    assert found["selected"] == len(one_each) and found["selected_unexplained"] == (~one_each["explained"]).sum()


def test_features_and_patterns_reach_the_tables(
    golden: Golden, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = golden.copy(tmp_path / "run")
    proteins = Run.open(folder).table("proteins")
    sites = tmp_path / "sites.tsv"
    rows = proteins[["id"]].assign(feature_type="ACT_SITE", start=5, end=5)
    rows = pd.concat([rows, pd.DataFrame([("other", "ACT_SITE", 1, 1)], columns=list(rows.columns))])
    rows.rename(columns={"id": "key"}).to_csv(sites, sep="\t", index=False)
    own = {**FAST, "features": str(sites), "patterns": ["A-x-L"]}
    others = {name: {"enabled": False} for name in ("describe", "probe", "faithfulness")}
    study = changed(golden.study, tmp_path / "study.toml", characterize=own, layout={"parts": []}, **others)
    assert main(["run", str(study), "--out", str(folder)]) == 0
    said = capfd.readouterr().err
    assert "score: finished before" in said and "evaluate: finished before" in said
    assert "1 x its protein is not in the study" in said and "cards for the best 5 of 10 neurons" in said
    run = Run.open(folder)
    concepts = run.table("concepts").set_index("concept")
    assert concepts.loc["ACT_SITE", ["kind", "n_proteins", "n_residues"]].tolist() == ["feature", 60, 60]
    assert concepts.loc["A-x-L", "kind"] == "pattern" and concepts.loc["A-x-L", "n_domains"] > 10
    assert concepts.loc["EC 2", "level"] == "protein"
    assert len(run.table("neuron_cards")) == 5

    # The same again without the stage: its tables go.
    study = changed(
        golden.study, tmp_path / "study.toml", characterize={"enabled": False}, layout={"parts": []}, **others
    )
    assert main(["run", str(study), "--out", str(folder), "--quiet"]) == 0
    assert not any(run.has(name) for name in TABLES) and run.manifest()["characterize"] == {"enabled": False}


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"features": "none.tsv"}, "none.tsv"),
        ({"patterns": ["A-b"]}, "characterize.patterns: pattern 'A-b': element 2, 'b'"),
    ],
)
def test_what_cannot_be_read_is_refused_first(
    golden: Golden, tmp_path: Path, capfd: pytest.CaptureFixture[str], settings: dict[str, object], said: str
) -> None:
    study = changed(golden.study, tmp_path / "study.toml", characterize=settings, seed=77)
    assert main(["run", str(study), "--out", str(tmp_path / "run")]) == 2
    assert said in capfd.readouterr().err and not (tmp_path / "run").exists()


def test_one_protein_stands_for_its_cluster() -> None:
    proteins = [Protein(f"p{i}", "A" * 30) for i in range(9)]
    clusters = {p.id: f"c{i // 3}" for i, p in enumerate(proteins)}
    chosen = one_of_each_cluster(proteins, clusters, {"p1": 2, "p2": 1}, 0, seed=0)
    assert [clusters[p.id] for p in chosen] == ["c0", "c1", "c2"] and chosen[0].id == "p1"
    assert len(one_of_each_cluster(proteins, clusters, {}, 2, seed=0)) == 2
    assert one_of_each_cluster(proteins, clusters, {}, 2, 0) == one_of_each_cluster(proteins, clusters, {}, 2, 0)


def test_formulas_and_sentences_of_the_run(run: Run) -> None:
    cards, formulas, said = (run.table(name) for name in ("neuron_cards", "formulas", "descriptions"))
    wanted = set(map(tuple, cards[KEYS].to_numpy()))
    for table in (formulas, said):
        assert len(table) and set(map(tuple, table[KEYS].to_numpy())) <= wanted and not table.duplicated().any()
        assert len(table.drop_duplicates(KEYS)) <= 6  # describe.max_neurons
    assert (formulas["gain"] == formulas["iou"] - formulas["atom_iou"]).all()
    assert formulas.loc[formulas["length"] == 1, "formula"].equals(formulas.loc[formulas["length"] == 1, "atom"])
    assert said["simulation_auroc"].between(0, 1).all() and (said["source"] == "template").all()
    found = run.manifest()["describe"]
    assert found["formulas"] == len(formulas) and found["sentences"] == len(said)
    told = (run.path / "report.html").read_text()
    assert "Scored sentence: " in told and "Formulas over concepts and scored sentences" in told


PROGRAM = """\
import json, sys
asked = [json.loads(line) for line in sys.stdin]
for one in asked[:3]:
    assert one["exemplars"][0]["sequence"]
    print(json.dumps({**one, "sentence": "As we say", "phrases": one["phrases"] or ["A-x-A"]}))
"""


def test_a_program_writes_sentences_that_are_scored_the_same(
    golden: Golden, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    folder, program = golden.copy(tmp_path / "run"), tmp_path / "write.py"
    program.write_text(PROGRAM)
    command = f"{sys.executable} {program}"
    assert main(["describe", str(folder), "--llm", command]) == 0
    assert "the program wrote 3 sentences for 12 neurons and signs" in capfd.readouterr().err
    run = Run.open(folder)
    said = run.table("descriptions")
    theirs, ours = (said[said["source"] == source].set_index([*KEYS, "sign"]) for source in ("program", "template"))
    assert len(theirs) == 3 and (theirs["sentence"] == "As we say").all() and theirs["pmi"].isna().all()
    both = theirs.index.intersection(ours.index)
    assert len(both)
    for name in ("phrases", "simulation_r", "simulation_auroc", "letter_r"):
        values = [sentences.loc[both, name] for sentences in (theirs, ours)]
        if name == "phrases":
            assert values[0].tolist() == values[1].tolist()
        else:  # float32 sums of products in an order that depends on where the memory lies
            np.testing.assert_allclose(*values, atol=1e-5)
    assert read_study(folder / "study.toml").describe.llm == command
    assert "Your program: As we say" in (folder / "report.html").read_text()


def test_a_program_that_fails_is_named(tmp_path: Path) -> None:
    kept = Parts(tmp_path / "parts", "a" * 16)
    for command, text in (
        ("no-such-program -x", r"describe.llm = 'no-such-program -x': cannot be run"),
        (f"{sys.executable} -c 'raise SystemExit(\"no key\")'", r"ended with 1 \(no key\); mend it or leave it out"),
    ):
        with pytest.raises(InputError, match=text):
            _asked(command, [{"layer": 0}], kept)
    echo = f"{sys.executable} -c 'import sys; print(sys.stdin.read(), end=str())'"
    assert _asked(echo, [{"layer": 0}, {"layer": 1}], kept) == ['{"layer": 0}', '{"layer": 1}']
    assert _asked("no-such-program", [], kept) == ['{"layer": 0}', '{"layer": 1}']  # answered before
