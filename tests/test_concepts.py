"""Concepts: patterns by hand and by regular expressions, scales, features, what is known and what is not."""

import re
from importlib import resources

import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from plmscope.data.annotations import FeatureSet
from plmscope.data.proteins import AMINO_ACIDS, Protein, read_proteins
from plmscope.errors import InputError
from plmscope.knowledge.concepts import ENDS, KINDS, MOST_TERMS, build_concepts, scale
from plmscope.knowledge.patterns import parse_pattern

# --- patterns


@pytest.mark.parametrize(
    ("pattern", "sequence", "places"),
    [
        ("W-x-C", "WACWWCC", [(0, 3), (3, 6), (4, 7)]),  # overlapping ones too
        ("G-x(4)-G-K-[ST]", "AAGAPGSGKTAA", [(2, 10)]),
        ("G-x(4)-G-K-[ST].", "GAPGSGKS", [(0, 8)]),
        ("N-{P}-[ST]", "NPSNGTNAS", [(3, 6), (6, 9)]),
        ("<M-A", "MAMA", [(0, 2)]),
        ("K-D-E-L>", "KDELKDEL", [(4, 8)]),
        ("C-x(2,4)-C", "CAACAAC", [(0, 4), (3, 7)]),
        ("C-x(2,4)-C", "CAACAC", [(0, 6)]),  # the longest at each place
        ("A(3)", "AAAAA", [(0, 3), (1, 4), (2, 5)]),
        ("[DE](2)-x", "DEE", [(0, 3)]),
        ("F-[GSTV]-P-R-L-[G>]", "FGPRLG", [(0, 6)]),
        ("F-[GSTV]-P-R-L-[G>]", "AFSPRL", [(1, 6)]),
        ("F-[GSTV]-P-R-L-[G>]", "AFSPRLA", []),
        ("x", "XA", [(0, 1), (1, 2)]),
        ("[ST]-x(2)-K", "S", []),
        ("H-E-x(2)-H", "", []),
    ],
)
def test_patterns_by_hand(pattern, sequence, places):
    assert list(parse_pattern(pattern).find(sequence)) == places


ELEMENTS = st.one_of(
    st.sampled_from([(a, a) for a in "ACDE"] + [("x", "."), ("[AC]", "[AC]"), ("{DE}", "[^DE]")]),
    st.tuples(st.sampled_from("AC"), st.integers(1, 3)).map(lambda t: (f"{t[0]}({t[1]})", f"{t[0]}{{{t[1]}}}")),
    st.tuples(st.integers(0, 2), st.integers(2, 3)).map(lambda t: (f"x({t[0]},{t[1]})", f".{{{t[0]},{t[1]}}}")),
)


@settings(max_examples=150, deadline=None)
@given(st.lists(ELEMENTS, min_size=1, max_size=5), st.text("ACDEX", max_size=15), st.booleans())
def test_patterns_equal_regular_expressions(elements, sequence, at_end):
    text = "-".join(element for element, _ in elements) + (">" if at_end else "")
    regex = re.compile("".join(regex for _, regex in elements) + ("$" if at_end else ""))
    assume(not regex.fullmatch(""))
    expected = [m.span() for m in (regex.match(sequence, i) for i in range(len(sequence) + 1)) if m]
    assert list(parse_pattern(text).find(sequence)) == expected


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("", "element 1, ''"),
        ("A--C", "element 2, ''"),
        ("A-b", "element 2, 'b'"),
        ("A-x(3,1)", "counts down"),
        ("A-[]", "element 2"),
        ("A-x(", "element 2"),
        ("[G>](2)", "drop the count"),
        ("G.A", "element 1"),
        ("[A>]", "can match no residue at all"),
        ("x(0,2)", "can match no residue at all"),
    ],
)
def test_an_unreadable_pattern_is_named(text, named):
    with pytest.raises(InputError, match=re.escape(named)):
        parse_pattern(text)


# --- data


def test_scales_are_the_published_ones():
    hydropathy = scale("hydropathy")
    assert [hydropathy[ord(a)] for a in "IVRGW"] == [4.5, 4.2, -4.5, -0.4, -0.9]
    assert np.nansum(scale("charge")) == 0 and np.isnan(scale("charge")[ord("X")])
    for name in ("hydropathy", "charge", "helix", "strand"):
        assert np.flatnonzero(~np.isnan(scale(name))).tolist() == sorted(ord(a) for a in AMINO_ACIDS)
    assert scale("helix")[ord("E")] == 1.51 and scale("strand")[ord("V")] == 1.70


def test_every_textbook_pattern_finds_what_it_is_for():
    found = build_concepts([Protein("a", "A" * 60)])
    examples = {
        "Walker A": "GAPGSGKT", "Walker B": "RAAAGAAALVVILD", "GxSxG": "GHSMG", "GDSG": "GDSG", "HExxH": "HEAAH",
        "Rossmann GxGxxG": "GAGGLG", "Rossmann GxGxxA": "GSGGLA", "YxxxK": "YAASK", "DEAD": "DEAD",
        "kinase HRD": "HRDLKPEN", "kinase DFG": "DFG", "HIGH": "HIGH", "KMSKS": "KMSKS", "CxxC": "CGPC",
        "radical SAM": "CNLRCSYC", "4Fe-4S ferredoxin": "CIACGACKPEC", "C2H2 zinc finger": "CAACAAAAAAAAAAAAHAAAH",
        "EF-hand loop": "DKDGDGTITTKE", "SxxK": "STFK", "aspartic protease": "DTG",
        "Nudix box": "GKVEPGETPEQALVRELEEEVGI", "DxD": "DAD", "HxxxxD": "HRSHLD", "DDxxD": "DDIMD",
        "ABC signature": "LSGGQ", "GTPase NKxD": "NKCD", "histidine triad": "HVHVH", "N-glycosylation": "NGT",
        "RGD": "RGD", "KDEL": "KDEL",
        "class II motif 2": "FRDEDLRADRQPEF",  # aspartate--tRNA ligase of Escherichia coli
        "GTPase HxDxGK": "HVDHGKT", "GTPase GxPNxGKS": "GRPNVGKS", "adenylate kinase loop": "GAPGAGKGT",
        "P450 haem loop": "FGAGPRSCIG", "methyltransferase motif I": "DIGSGPG", "DNA ligase KxDG": "KLDG",
        "alanine racemase lysine": "KANAYG",
    }  # fmt: skip
    patterns = [c.name for c in found.concepts if c.kind == "pattern"]
    assert sorted(patterns) == sorted(examples)
    for name, text in examples.items():
        annotation = found.annotate(Protein("b", "P" * 7 + text))
        assert [7, 7 + len(text)] in annotation.stretches[found.number[name]].tolist(), name


@pytest.fixture(scope="module")
def families() -> dict[str, dict[str, str]]:
    """The table of families in the README of the embedded data, by family."""
    lines = resources.files("plmscope.embedded").joinpath("README.md").read_text(encoding="utf-8").splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("|")]
    head = next(row for row in rows if row[0] == "family")
    found = [row for row in rows if len(row) == len(head) and row[1].isdigit()]
    return {row[0]: dict(zip(head, row, strict=True)) for row in found}


def test_most_members_of_a_family_have_its_motif(families):
    proteins = read_proteins("plmscope:families", label="family").proteins
    found = build_concepts(proteins, kinds=["pattern"])
    having = [set(found.annotate(protein).positions) for protein in proteins]
    assert set(families) == {protein.label for protein in proteins} and len(families) >= 8
    for family, row in families.items():
        motif = found.number[row["motif"]]
        own = [motif in has for p, has in zip(proteins, having, strict=True) if p.label == family]
        others = [motif in has for p, has in zip(proteins, having, strict=True) if p.label != family]
        assert row["have it"] == f"{np.mean(own):.1%}".replace("%", " %"), family
        assert np.mean(own) > 0.65 and np.mean(others) < 0.1, family


# --- where concepts are


def marks(found, protein, name):
    return found.annotate(protein).positions.get(found.number[name], np.array([], int)).tolist()


def test_residue_concepts_by_hand():
    protein = Protein("a", "MKKKDWIIIIIIIIIX" + "A" * 50)
    found = build_concepts([protein])
    assert marks(found, protein, "lysine (K)") == [1, 2, 3]
    assert marks(found, protein, "aromatic residues") == [5]
    assert marks(found, protein, "positive residues") == [1, 2, 3] and marks(found, protein, "negative residues") == [4]
    assert marks(found, protein, "first residue") == [0] and marks(found, protein, "last residue") == [65]
    assert marks(found, protein, "first 5 residues") == [0, 1, 2, 3, 4]
    # Net charge over nine residues of at least 3: K K K alone, before D comes in; windows are centred.
    assert marks(found, protein, "positive stretch") == []
    assert marks(found, Protein("b", "KKK" + "A" * 9), "positive stretch") == [4]
    # Centred on 6: two K, D, W, five I = 10.3 / 9 < 1.6; on 7: one K, D, W, six I = 18.7 / 9.
    assert marks(found, protein, "hydrophobic stretch")[:3] == [7, 8, 9]
    assert 15 not in {r for n in found.letters_of for r in found.annotate(protein).positions.get(n, [])}  # X is nothing
    table = found.describe(protein)
    assert "".join(table["residue"]) == protein.sequence and "tryptophan (W)" in table["concepts"][5]


def test_a_short_protein_has_no_longer_end():
    found = build_concepts([Protein("a", "M" * 30)])
    stretches = found.annotate(Protein("a", "M" * 30)).stretches
    assert max(ENDS) == 50 and found.number["first 20 residues"] in stretches
    assert found.number["first 50 residues"] not in stretches


ROWS = [
    ("a", "ACT_SITE", 2, 3),
    ("a", "BINDING", 4, 7),
    ("a", "BINDING", 6, 8),
    ("b", "BINDING", 0, 1),
    ("z", "X", 0, 1),
]
FEATURES = FeatureSet(pd.DataFrame(ROWS, columns=["id", "feature_type", "start", "end"]), {}, "sites.tsv", "")


def test_a_missing_feature_is_unknown_not_absent():
    proteins = [Protein("a", "A" * 20), Protein("b", "A" * 20), Protein("c", "A" * 20)]
    found = build_concepts(proteins, features=FEATURES, min_proteins=1)
    site, binding = found.number["ACT_SITE"], found.number["BINDING"]
    one, other, third = (found.annotate(p) for p in proteins)
    assert one.positions[site].tolist() == [2] and one.positions[binding].tolist() == [4, 5, 6, 7]
    assert one.stretches[binding].tolist() == [[4, 7], [6, 8]]
    assert [bool(a.known[site]) for a in (one, other, third)] == [True, False, False]
    assert [bool(a.known[binding]) for a in (one, other, third)] == [True, True, False]
    assert all(a.known[found.number["alanine (A)"]] for a in (one, other, third))
    assert "X" not in found.number  # of a protein that is not here
    some = build_concepts(proteins[:1], features=FEATURES, min_proteins=1)
    assert some.annotate(proteins[1]).positions[some.number["BINDING"]].tolist() == [0]  # known of the others too
    assert "ACT_SITE" not in build_concepts(proteins, features=FEATURES, min_proteins=2).number


def test_features_are_split_by_what_they_say():
    rows = [
        ("a", "BINDING", 2, 3, "Mg(2+); via side chain; ECO:1"), ("b", "BINDING", 4, 7, "Mg(2+) 2"),
        ("c", "BINDING", 5, 6, "ATP"), ("a", "HELIX", 8, 12, ""), ("b", "ZN_FING", 8, 12, "C2H2-type 3"),
    ]  # fmt: skip
    table = pd.DataFrame(rows, columns=["id", "feature_type", "start", "end", "description"])
    proteins = [Protein(name, "A" * 20) for name in "abcd"]
    found = build_concepts(
        proteins, kinds=("feature",), features=FeatureSet(table, {}, "sites.tsv", ""), min_proteins=1
    )
    assert [c.name for c in found.concepts] == [
        "BINDING", "BINDING: ATP", "BINDING: Mg(2+)", "HELIX", "ZN_FING", "ZN_FING: C2H2-type",
    ]  # fmt: skip
    magnesium = found.number["BINDING: Mg(2+)"]
    one, other, third, none = (found.annotate(p) for p in proteins)
    assert one.positions[magnesium].tolist() == [2] and other.positions[magnesium].tolist() == [4, 5, 6]
    # Whoever has a binding site is known not to bind magnesium there; of others nothing is known.
    assert third.known[magnesium] and magnesium not in third.positions and not none.known[magnesium]
    two = build_concepts(proteins, kinds=("feature",), features=FeatureSet(table, {}, "sites.tsv", ""), min_proteins=2)
    assert [c.name for c in two.concepts] == ["BINDING", "BINDING: Mg(2+)"]


def test_terms_of_proteins_are_concepts_where_enough_have_them():
    proteins = [Protein(f"p{i}", "A" * 20) for i in range(6)]
    terms = {f"p{i}": {"keyword": ("Zinc", "All") if i < 2 else ("All",), "Pfam": ("PF1",)} for i in range(4)}
    found = build_concepts(proteins, kinds=("term",), terms=terms, min_proteins=2)
    assert [(c.name, c.level) for c in found.concepts] == [("keyword Zinc", "protein")]  # all or none say the others
    first, third, last = (found.annotate(proteins[i]) for i in (0, 2, 5))
    assert first.holds == {0} and third.known[0] and not third.holds and not last.known[0]
    assert not len(build_concepts(proteins, kinds=("term",), terms=terms, min_proteins=3))
    many = {p.id: {"GO": tuple(f"GO:{k:03}" for k in range(250) if i < 2 or k >= 240)} for i, p in enumerate(proteins)}
    some = build_concepts(proteins, kinds=("term",), terms=many, min_proteins=2)
    assert len(some) == MOST_TERMS and some.left_out == 40


def test_a_feature_beyond_the_end_is_refused():
    found = build_concepts([Protein("a", "A" * 6)], features=FEATURES, min_proteins=1)
    with pytest.raises(InputError, match="BINDING 5-7 of protein 'a' lies outside its 6 residues"):
        found.annotate(Protein("a", "A" * 6))


def test_classes_and_lengths():
    proteins = [Protein(f"p{i}", "A" * (10 + i)) for i in range(8)]
    ec = {"p0": "1.1.1.1", "p1": "1.1.1.2;2.7.-.-", "p2": "1.2.-.-", "p3": "2.7.1.1", "p4": ""}
    found = build_concepts(proteins, ec=ec, min_proteins=2)
    names = [c.name for c in found.concepts if c.kind == "class"]
    assert names == ["EC 1", "EC 2", "EC 1.1", "EC 2.7", "EC 1.1.1"]
    held = {p.id: {found.concepts[i].name for i in found.annotate(p).holds} for p in proteins}
    assert held["p1"] == {"EC 1", "EC 2", "EC 1.1", "EC 2.7", "EC 1.1.1", "short protein"}
    assert held["p6"] == {"long protein"}
    known = found.annotate(proteins[2]).known
    assert known[found.number["EC 1.1"]] and not known[found.number["EC 1.1.1"]]  # it has no third number
    assert not found.annotate(proteins[4]).known[found.number["EC 1"]]
    labelled = [Protein(p.id, p.sequence, "x" if i < 3 else "y") for i, p in enumerate(proteins)]
    found = build_concepts(labelled, min_proteins=2)
    assert {c.name for c in found.concepts if c.kind == "class"} == {"class x", "class y"}
    assert found.number["class x"] in found.annotate(labelled[0]).holds


def test_a_semicolon_is_part_of_a_name_unless_classes_may_be_several():
    proteins = [Protein(f"p{i}", "A" * 10, "x; y" if i < 3 else "z") for i in range(6)]
    one = build_concepts(proteins, min_proteins=2)
    assert {c.name for c in one.concepts if c.kind == "class"} == {"class x; y", "class z"}
    assert one.labels_of(proteins[0]) == ("x; y",)
    assert [one.number["class x; y"] in one.annotate(p).holds for p in proteins] == [True] * 3 + [False] * 3
    several = build_concepts(proteins, min_proteins=2, task="multi")
    assert {c.name for c in several.concepts if c.kind == "class"} == {"class x", "class y", "class z"}
    assert several.labels_of(proteins[0]) == ("x", "y") and several.labels_of(Protein("q", "A")) == ()


def test_kinds_own_patterns_and_names():
    proteins = [Protein("a", "WACWWC")]
    found = build_concepts(proteins, kinds=["pattern"], patterns={"mine": "W-x-C"})
    assert {c.kind for c in found.concepts} == {"pattern"} and marks(found, proteins[0], "mine") == [0, 1, 2, 3, 4, 5]
    assert {c.kind for c in build_concepts(proteins).concepts} == set(KINDS) - {"feature", "class", "term"}
    with pytest.raises(InputError, match="kind 'colour' is not known"):
        build_concepts(proteins, kinds=["colour"])
    with pytest.raises(InputError, match="two concepts are called 'RGD'"):
        build_concepts(proteins, patterns={"RGD": "R-G-D"})


def test_the_table_counts_proteins_residues_and_stretches():
    proteins = [Protein("a", "WACWWC"), Protein("b", "A" * 6)]
    found = build_concepts(proteins, patterns={"mine": "W-x-C"}, min_proteins=1)
    table = found.table(proteins).set_index("concept")
    assert table.loc["mine", ["n_proteins", "n_residues", "n_domains"]].tolist() == [1, 6, 2]
    assert table.loc["tryptophan (W)", ["n_proteins", "n_residues", "n_domains"]].tolist() == [1, 3, 3]


def test_embedded_enzymes_are_annotated_letter_by_letter():
    proteins = read_proteins("plmscope:enzymes", label="ec:1").proteins[::150]
    found = build_concepts(proteins)
    for protein in proteins:
        annotation = found.annotate(protein)
        for number, letters in found.letters_of.items():
            assert {protein.sequence[r] for r in annotation.positions.get(number, [])} <= letters
        singles = [number for number, letters in found.letters_of.items() if len(letters) == 1]
        covered = sorted(r for number in singles for r in annotation.positions.get(number, []))
        assert covered == list(range(len(protein)))
