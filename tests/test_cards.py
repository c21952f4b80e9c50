"""Sentences say what the evidence says, and no more."""

import json
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import scipy.stats

from plmscope.data.annotations import FeatureSet
from plmscope.data.proteins import Protein
from plmscope.knowledge.cards import UNEXPLAINED, Bars, auroc_bound, explained, neuron_cards
from plmscope.knowledge.concepts import build_concepts
from plmscope.knowledge.motifs import STRIP, TopWindows
from plmscope.models.sites import NeuronIndex

HIGH_LOW = ("highest", "lowest")
NO_MOTIF = {"auroc_held_out": 0.7}
INDEX = NeuronIndex.of(1, 2, 8)  # neuron 2 is key 0
PROTEINS = [Protein(f"p{i}", "M" + "A" * 199) for i in range(12)]
CONCEPTS = build_concepts(PROTEINS)


def motifs(tied: bool = False, **changes: object) -> SimpleNamespace:
    """Two signs of neuron 2; the positive one has a motif unless changed. Its peaks differ in height unless tied."""
    plus = {
        "consensus": "W-x-C", "width": 3, "anchor": 2, "information_bits": 8.0, "n_fired": 50, "sign": 1, "position": 2,
        "auroc_held_out": 0.93, "enrichment": 30.0, "classes": json.dumps({"1": {"share": 0.71, "enrichment": 2.3}}),
    } | changes  # fmt: skip
    minus = plus | {"consensus": "", "sign": -1, "auroc_held_out": np.nan, "information_bits": 0.0, "classes": "{}"}
    windows = TopWindows(2, 12)
    values = np.zeros((200 * 12, 2), np.float32)
    values[9::200, 0], values[150::200, 1] = 1 if tied else np.linspace(1, 0.9, 12), 1
    windows.add(values, range(12), [200] * 12)
    windows.settle()
    return SimpleNamespace(table=pd.DataFrame([plus, minus]), neurons=np.array([2, 2]), windows=windows)


def row(concept: str, **changes: object) -> dict[str, object]:
    return {
        "position": 2, "sign": 1, "rank": 1, "concept": concept, "f1": 0.61, "f1_gain": 0.6, "auroc": 0.94,
        "n_clusters": 1412, "p_value": 1e-10, "q_value": 2.4e-9, "confirmed": True,
        "discovery_auroc": 0.94, "discovery_f1": 0.61,
    } | changes  # fmt: skip


def card(
    rows: list[dict[str, object]], found: SimpleNamespace | None = None, letters: pd.DataFrame | None = None
) -> pd.Series:
    frame = pd.DataFrame(rows or [row("GxSxG", confirmed=False)])
    selections = pd.DataFrame({"method": ["ig"], "rank": [1], "position": [2]})
    arguments = (selections, INDEX, frame, found or motifs(), CONCEPTS, PROTEINS)
    return neuron_cards(*arguments, class_name="EC", letters=letters).iloc[0]


@pytest.mark.parametrize(
    ("rows", "share", "knows", "said"),
    [
        (
            [row("GxSxG", auroc_beyond_letter=0.9), row("glycine (G)", rank=2, auroc=0.93)], 0.3, "more",
            "more than its letter, which explains 30% of its variance: AUROC 0.90 within a letter;",
        ),
        (  # a letter leads, and another explanation goes beyond it
            [row("glycine (G)", auroc=0.99, discovery_auroc=0.99),
             row("long protein", rank=2, auroc_beyond_letter=0.7)],
            0.3, "more", "30% of its variance: AUROC 0.70 beyond composition for long protein;",
        ),
        (
            [row("GxSxG", auroc_beyond_letter=0.55)], 0.3, "letter",
            "its letter explains 30% of its variance; no more than that: AUROC 0.55 within a letter;",
        ),
        ([row("GxSxG")], 0.3, "unsettled", "too few residues tell it from its letter, which explains 30%"),
        ([row("glycine (G)")], 0.3, "letter", "its letter explains 30% of its variance; key"),
        ([row("glycine (G)")], 0.95, "letter", "is its letter, which explains 95% of its variance: highest on I"),
        ([row("GxSxG", auroc_beyond_letter=0.9)], 0.95, "letter", "is its letter, which explains 95% of its variance"),
        ([], 0.95, "letter", "Is its letter, which explains 95% of its variance: highest on I, L, V, lowest on D, E"),
        ([], 0.3, "", f"{UNEXPLAINED}; its letter explains 30% of its variance; key"),
    ],
)  # fmt: skip
def test_what_a_neuron_knows_beside_its_letter(rows, share, knows, said) -> None:
    letters = pd.DataFrame([(2, share, share, "ILV", "DE")], columns=["position", "r2_letter", "r2_window", *HIGH_LOW])
    found = card(rows, motifs(**NO_MOTIF), letters)
    assert said in found["sentence"] and found["knows"] == knows and found["explained"] == bool(knows)
    around = card(rows, motifs(**NO_MOTIF), letters.assign(r2_window=share + 0.2))
    assert f"({share + 0.2:.0%} with its neighbours)" in around["sentence"]
    without = card(rows, motifs(**NO_MOTIF))
    assert "its letter" not in without["sentence"]


@pytest.mark.parametrize("gain", [0.6, 1.0])
def test_an_f1_stands_beside_that_of_firing_everywhere(gain) -> None:
    # A is 199 of 200 residues, M one of them: F1 2 p / (1 + p).
    for concept, chance in (("alanine (A)", "1.00"), ("methionine (M)", "0.01")):
        said = card([row(concept, f1_gain=gain)], motifs(**NO_MOTIF))["sentence"]
        assert f"F1 0.61 (by chance {chance})" in said


def test_of_a_neuron_that_is_its_letter_the_order_of_letters_is_told_once() -> None:
    rows = [row("glycine (G)"), row("proline (P)", sign=-1)]
    letters = pd.DataFrame([(2, 0.95, 0.95, "ILV", "DE")], columns=["position", "r2_letter", "r2_window", *HIGH_LOW])
    said = card(rows, motifs(consensus="G"), letters)["sentence"]
    assert "proline" not in said and "motif of one residue" not in said
    assert "motif x-x-G" not in card(rows, motifs(consensus="x-x-G"), letters)["sentence"]
    assert said.count("highest on I, L, V, lowest on D, E") == 1
    assert "also goes low on proline" in card(rows, motifs(consensus="G"), letters.assign(r2_letter=0.5))["sentence"]


def test_equal_peaks_have_no_place() -> None:
    # Of equally high peaks in a protein the first is listed, which would always be near the start.
    assert "N-terminus" in card([]).sentence and "N-terminus" not in card([], motifs(tied=True)).sentence


NEAR = "100% of its peaks (by chance 20%) within 40 residues of the N-terminus"
MOTIF = f"motif W-x-C, at its C, AUROC 0.93; {NEAR}; 71% of the motif's hits in EC 1 (31% of the residues)"


@pytest.mark.parametrize(
    ("rows", "changes", "sentence"),
    [
        (
            [row("glycine (G)")], {"consensus": "G"},
            "Fires on glycine: F1 0.61 (by chance 0.00), AUROC 0.94 on 1,412 held-out clusters (q = 2e-09); "
            f"{MOTIF.partition('; ')[2]}; key, layer 0",  # the motif G would say it again
        ),
        (
            [], {"consensus": "[GIV]", "anchor": 0},
            "Fires on G, I or V (a motif of one residue): AUROC 0.93 on held-out clusters; "
            f"{MOTIF.partition('; ')[2]}; key, layer 0",
        ),
        (  # a motif that is as good says more than a letter
            [row("glycine (G)")], {},
            f"Fires on the {MOTIF.replace('0.93', '0.93 on held-out clusters', 1)}; also fires on glycine: F1 "
            f"0.61 (by chance 0.00), "
            "AUROC 0.94 on 1,412 held-out clusters (q = 2e-09); key, layer 0",
        ),
        (  # but not one that is not as good
            [row("glycine (G)")], {"auroc_held_out": 0.9},
            "Fires on glycine: F1 0.61 (by chance 0.00), AUROC 0.94 on 1,412 held-out clusters (q = 2e-09); "
            f"{MOTIF.replace('0.93', '0.90')}; key, layer 0",
        ),
        (  # the other side second, as it is
            [row("glycine (G)"), row("proline (P)", sign=-1)], NO_MOTIF,
            "Fires on glycine: F1 0.61 (by chance 0.00), AUROC 0.94 on 1,412 held-out clusters (q = 2e-09); "
            f"{NEAR}; also goes low on proline: F1 0.61 (by chance 0.00), AUROC 0.94 on 1,412 held-out clusters "
            f"(q = 2e-09); "
            "key, layer 0",
        ),
        (
            [row("glycine (G)", f1_gain=0.3)], NO_MOTIF,
            "Tends to be high on glycine: F1 0.61 (by chance 0.00), AUROC 0.94 on 1,412 held-out clusters (q = 2e-09); "
            f"{NEAR}; key, layer 0",
        ),
        (
            [row("GxSxG", sign=-1, auroc=0.6)], NO_MOTIF,
            "Goes low on the pattern GxSxG (G-x-S-x-G: nucleophile elbow of serine esterases and lipases): F1 "
            "0.61 (by chance 0.00) on "
            "1,412 held-out clusters (q = 2e-09); key, layer 0",
        ),
        (
            [row("long protein", sign=-1)], NO_MOTIF,
            "Is low in long proteins (at least 200 residues): F1 0.61 (by chance 1.00), AUROC 0.94 on 1,412 "
            "held-out clusters "
            "(q = 2e-09); key, layer 0",
        ),
        ([], {}, f"Fires on the {MOTIF.replace('0.93', '0.93 on held-out clusters', 1)}; key, layer 0"),
        ([], NO_MOTIF, f"{UNEXPLAINED}; key, layer 0"),
        ([], {"n_fired": 9}, f"{UNEXPLAINED}; key, layer 0"),
        ([row("glycine (G)", f1_gain=0.3, auroc=0.7)], NO_MOTIF, f"{UNEXPLAINED}; key, layer 0"),
        ([row("glycine (G)", confirmed=False)], NO_MOTIF, f"{UNEXPLAINED}; key, layer 0"),
    ],
)  # fmt: skip
def test_sentences(rows, changes, sentence):
    found = card(rows, motifs(**changes))
    assert found["sentence"] == f"{sentence}, neuron 0."
    assert found["explained"] == (not sentence.startswith(UNEXPLAINED))
    assert (found["concept"] == "") == np.isnan(found["auroc"])


@pytest.mark.parametrize(
    ("consensus", "anchor", "said"),
    [
        ("G", 0, "Fires on G (a motif of one residue)"),
        ("x-x-[GS]-x", 2, "Fires on G or S (a motif of one residue)"),
        ("x-G", 0, "Fires on G, 1 before it (a motif of one residue)"),
        ("W-x-C", 1, "at its residue 2,"),
        ("W-x-C", 4, "2 behind it,"),
        ("W-x-C", -3, "3 before it,"),
    ],
)
def test_where_the_peak_is_in_the_motif(consensus, anchor, said):
    assert said in card([], motifs(consensus=consensus, anchor=anchor))["sentence"]


def test_discovery_chooses_what_is_named():
    """Were it chosen by the held-out numbers that are shown of it, these would be too good."""
    none = motifs(**NO_MOTIF)
    rows = [row("glycine (G)", discovery_auroc=0.97), row("GxSxG", rank=2, f1_gain=0.95, auroc=0.99)]
    assert card(rows, none)["concept"] == card(rows[::-1], none)["concept"] == "glycine (G)"
    assert card([row("glycine (G)", confirmed=False), rows[1]], none)["concept"] == "GxSxG"
    found = card([*rows, row("alanine (A)", sign=-1, discovery_auroc=0.999)], none)
    assert found["concept"] == "alanine (A)" and found["sign"] == -1 and found["motif"] == ""
    low = motifs()
    low.table.loc[1] = {**low.table.loc[0], "sign": -1, "consensus": "H-x-H", "auroc_held_out": 0.97}
    assert card([], low)["motif"] == "H-x-H"
    low.table.loc[1, "n_fired"] = 9
    assert card([], low)["motif"] == "W-x-C"


@pytest.mark.parametrize(
    ("rows", "leads"),
    [
        ([("glycine (G)", -1), ("proline (P)", 1)], ("proline (P)", 1)),  # the high side before the low
        ([("long protein", 1), ("proline (P)", -1)], ("proline (P)", -1)),  # residues before whole proteins
        ([("glycine (G)", 1), ("GxSxG", 1)], ("GxSxG", 1)),  # a pattern before a letter
        ([("tiny residues", 1), ("glycine (G)", 1)], ("glycine (G)", 1)),  # a letter before its group
        ([("first 50 residues", 1), ("first 5 residues", 1)], ("first 5 residues", 1)),  # the rarer of a kind
    ],
)
def test_among_explanations_as_good_the_order_is_fixed(rows, leads):
    """Whichever discovery ranked first, as long as it is within the bound there and on held-out clusters."""
    for turned in (rows, rows[::-1]):
        known = [row(name, sign=sign, rank=1 + place) for place, (name, sign) in enumerate(turned)]
        found = card(known, motifs(**NO_MOTIF))
        assert (found["concept"], found["sign"]) == leads
    # What discovery ranked clearly higher leads, wherever it stands in that order.
    best = [row(name, sign=sign, discovery_auroc=0.94 if (name, sign) == leads else 0.97) for name, sign in rows]
    assert card(best, motifs(**NO_MOTIF))["concept"] == next(name for name, sign in rows if (name, sign) != leads)


def test_of_letters_the_one_that_discovery_ranks_higher_leads():
    """A neuron that is highest on W and second on the rarer C has an AUROC of 0.99 for C, and an F1 of 1 for W."""
    proteins = [Protein(f"p{i}", "M" + "A" * 189 + "WW" + "C" + "A" * 7) for i in range(12)]
    rows = [row("tryptophan (W)", rank=1, f1=1.0, f1_gain=1.0, auroc=1.0, discovery_auroc=1.0, discovery_f1=1.0),
            row("cysteine (C)", rank=2, f1_gain=0.68, auroc=0.99, discovery_auroc=0.989)]  # fmt: skip
    selections = pd.DataFrame({"method": ["ig"], "rank": [1], "position": [2]})
    concepts = build_concepts(proteins)
    for turned in (rows, rows[::-1]):
        arguments = (selections, INDEX, pd.DataFrame(turned), motifs(**NO_MOTIF), concepts, proteins)
        found = neuron_cards(*arguments).iloc[0]
        assert found["concept"] == "tryptophan (W)" and found["sentence"].startswith("Fires on tryptophan: F1 1.00")


def test_a_class_and_its_complement_are_one_finding():
    proteins = [Protein(f"p{i}", "M" + "A" * 199, "xy"[i % 2]) for i in range(12)]
    selections = pd.DataFrame({"method": ["ig"], "rank": [1], "position": [2]})
    rows = [row("class x", discovery_auroc=0.98), row("class y", sign=-1, auroc=0.95, discovery_auroc=0.99)]

    def sentence(proteins: list[Protein], min_proteins: int = 2) -> str:
        concepts = build_concepts(proteins, min_proteins=min_proteins)
        return neuron_cards(selections, INDEX, pd.DataFrame(rows), motifs(), concepts, proteins).iloc[0]["sentence"]

    # The motif leads, on the high side; low in y is the same as high in x.
    text = sentence(proteins)
    assert (
        text.startswith("Fires on the motif W-x-C")
        and "also is high in class x: F1 0.61 (by chance 0.67), AUROC 0.94" in text
    )
    assert "class y" not in text
    # With a third class, too rare to be a concept, they are two.
    assert "also is low in class y" in sentence([*proteins, Protein("p12", "M" + "A" * 199, "z")])


def test_top_proteins_show_the_strip():
    top = json.loads(card([])["top_proteins"])
    assert len(top) == 5 and top[0]["id"] == "p0" and (top[0]["position"], top[0]["start"]) == (10, 1)
    assert len(top[0]["sequence"]) == len(top[0]["activation"]) == 10 + STRIP
    assert top[0]["activation"][9] == 1.0 and top[0]["sequence"].startswith("MAA")


def test_annotated_sites_stand_at_their_residues_on_the_strips():
    """Positions of a file, counted from 1, come back as they were; the letter under the mark is the annotated one."""
    sequence = "M" + "A" * 5 + "GHSMG" + "A" * 189  # the serine is residue 9 as biologists count
    proteins = [Protein(f"p{i}", sequence) for i in range(12)]
    rows = [("p0", "ACT_SITE", 8, 9), ("p0", "BINDING", 28, 32), ("p0", "BINDING", 100, 101), ("p0", "buried", 0, 30)]
    features = FeatureSet(pd.DataFrame(rows, columns=["id", "feature_type", "start", "end"]), {}, "sites.tsv", "")
    concepts = build_concepts(proteins, features=features, min_proteins=1)
    selections = pd.DataFrame({"method": ["ig"], "rank": [1], "position": [2]})
    found = neuron_cards(selections, INDEX, pd.DataFrame([row("GxSxG")]), motifs(), concepts, proteins).iloc[0]
    first, second = json.loads(found["top_proteins"])[:2]
    sites = {}
    for position, name in first["sites"]:
        sites.setdefault(name, []).append(position)
    # The strip ends at residue 30: what is annotated behind it is not on it; nor is what a structure says of all.
    assert sites == {"GxSxG": [7, 8, 9, 10, 11], "ACT_SITE": [9], "BINDING": [29, 30]}
    assert first["sequence"][9 - first["start"]] == "S"
    assert {name for _, name in second["sites"]} == {"GxSxG"}  # nothing is known of it but its sequence


def test_bars():
    frame = pd.DataFrame([row("a"), row("a", f1_gain=0.1), row("a", f1_gain=0.1, auroc=0.5), row("a", confirmed=False)])
    assert explained(frame, Bars()).tolist() == [True, True, False, False]
    assert explained(frame, Bars(min_auroc=0.95)).tolist() == [True, False, False, False]


def test_an_auroc_counts_with_enough_clusters_and_where_the_neuron_fires():
    """EC 3.2.1 as it was seen: confirmed, AUROC 0.87, but six lucky proteins or no firing at all."""
    weak = {"f1": 0.15, "f1_gain": 0.1, "auroc": 0.84, "q_value": 0.004}
    rows = [
        row("EC 3.2.1", **weak, p_value=2e-3),  # bound 0.5 + 0.34 (1 - 1.645 / 2.88) = 0.646
        row("EC 3.2.1", **weak | {"f1": 0.0, "f1_gain": -0.03, "auroc": 0.9}, p_value=1e-6),
        row("EC 6", **weak, p_value=1e-4),  # 0.690
    ]
    frame = pd.DataFrame([*rows, row("EC 6", **weak, p_value=np.nan)])
    assert explained(frame, Bars()).tolist() == [False, False, True, False]
    assert auroc_bound(np.array([0.84]), np.array([2e-3]))[0] == pytest.approx(0.6457, abs=1e-3)
    assert auroc_bound(np.array([0.9, 0.9]), np.array([0.05, 0.0])) == pytest.approx([0.5, 0.9])


def test_the_bound_of_an_auroc_covers_it():
    """Simulated rank-sum tests: the true AUROC lies above the bound in about 95 of 100."""
    rng, true, above = np.random.default_rng(0), 0.7, 0
    shift = np.sqrt(2) * scipy.stats.norm.ppf(true)
    for _ in range(400):
        positive, negative = rng.normal(shift, 1, 12), rng.normal(0, 1, 200)
        test = scipy.stats.mannwhitneyu(positive, negative, alternative="greater", method="asymptotic")
        above += auroc_bound(np.array(test.statistic / 2400), np.array(test.pvalue)) <= true
    assert above / 400 == pytest.approx(0.95, abs=0.03)
