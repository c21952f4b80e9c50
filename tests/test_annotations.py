"""EC numbers and their levels; residue features."""

from pathlib import Path

import pytest

from plmscope.data.annotations import EC_NAMES, FeatureSet, read_features
from plmscope.data.labelling import ec_classes
from plmscope.data.proteins import Protein, read_proteins
from plmscope.errors import InputError
from tests.test_formats import flat


@pytest.mark.parametrize(
    ("text", "level", "classes"),
    [
        ("1.1.1.1", 1, ("1",)),
        ("1.1.1.1", 4, ("1.1.1.1",)),
        ("1.1.1.1;1.2.3.-", 1, ("1",)),
        ("1.1.1.1;1.2.3.-", 2, ("1.1", "1.2")),
        ("1.1.1.1;1.2.3.-", 3, ("1.1.1", "1.2.3")),
        ("1.1.1.1;1.2.3.-", 4, ("1.1.1.1",)),
        ("3.-.-.-", 1, ("3",)),
        ("3.-.-.-", 2, ()),
        ("2.7", 2, ("2.7",)),
        ("2.7", 3, ()),
        ("2.7.1.n3", 4, ("2.7.1.n3",)),
        ("EC 7.1.1.2, EC:4.2.1.11", 1, ("4", "7")),
        ("EC1.1.1.1", 1, ("1",)),
        ("  2.1.1.1 ;1.1.1.1 ", 1, ("1", "2")),
        ("-", 1, ()),
        ("", 1, ()),
    ],
)
def test_classes_at_a_level(text: str, level: int, classes: tuple[str, ...]) -> None:
    assert ec_classes(text, level) == classes


@pytest.mark.parametrize(
    "text", ["8.1.1.1", "0.1", "1..1", "1.1.1.1.1", "1.-.1.1", "kinase", "1.1.1.1x", "n1", "1.1.1.1;?"]
)
def test_a_malformed_number_is_named(text: str) -> None:
    with pytest.raises(InputError, match="is not an EC number"):
        ec_classes(text, 1)


@pytest.mark.parametrize("level", [0, 5, -1])
def test_there_are_four_levels(level: int) -> None:
    with pytest.raises(InputError, match="EC level"):
        ec_classes("1.1.1.1", level)


def test_every_top_class_has_a_name() -> None:
    assert list(EC_NAMES) == list("1234567")
    assert EC_NAMES["6"] == "ligases"


# --- residue features -------------------------------------------------------------------------------------------------

TABLE = "key\tfeature_type\tstart\tend\tdescription\n"
FLAT_FEATURES = """\
FT   SIGNAL          1..?
FT                   /evidence="ECO:0000255"
FT   ACT_SITE        3
FT                   /note="Proton acceptor"
FT                   /evidence="ECO:0000269|PubMed:1"
FT   DISULFID        5..9
FT   BINDING         <6..8
FT                   /ligand="ATP"
FT   CARBOHYD        P1-2:4
"""
FEATURES = [
    ("P1", "ACT_SITE", 2, 3, "Proton acceptor; ECO:0000269|PubMed:1"),
    ("P1", "DISULFID", 4, 5, ""),
    ("P1", "DISULFID", 8, 9, ""),
    ("P1", "BINDING", 5, 8, "ATP"),
]


def features(folder: Path, text: str, proteins: list[Protein] | None = None) -> FeatureSet:
    (folder / "f").write_text(text)
    return read_features(folder / "f", proteins)


def listed(found: FeatureSet) -> list[tuple[object, ...]]:
    return list(found.table.itertuples(index=False, name=None))


def test_every_format_gives_the_same_features(tmp_path: Path) -> None:
    table = features(
        tmp_path,
        TABLE + "P1\tACT_SITE\t3\t3\tProton acceptor; ECO:0000269|PubMed:1\nP1\tDISULFID\t5\t9\t\n"
        "P1\tBINDING\t6\t8\tATP\nP1\tBINDING\t6\t8\tATP\n",
    )
    assert listed(table) == FEATURES and not table.excluded
    flat_file = features(tmp_path, flat(features=FLAT_FEATURES))
    assert listed(flat_file) == FEATURES
    left_out = {"its position is not known exactly": 1, "its position counts on another isoform": 1}
    assert flat_file.excluded == left_out
    tsv = features(
        tmp_path,
        "Entry\tActive site\tBinding site\tDisulfide bond\tSignal peptide\tGlycosylation\n"
        'P1\tACT_SITE 3; /note="Proton acceptor"; /evidence="ECO:0000269|PubMed:1"\tBINDING <6..8; /ligand="ATP"; '
        '/ligand_id="ChEBI:CHEBI:30616"\tDISULFID 5..9\tSIGNAL 1..?; /evidence="ECO:0000255"\tCARBOHYD P1-2:4\n',
    )
    assert sorted(listed(tsv), key=str) == sorted(FEATURES, key=str)
    assert tsv.excluded == left_out
    gff = features(
        tmp_path,
        "##gff-version 3\n##sequence-region P1 1 32\n"
        "P1\tUniProtKB\tActive site\t3\t3\t.\t.\t.\tNote=Proton acceptor;evidence=ECO:0000269|PubMed:1\t\n"
        "P1\tUniProtKB\tDisulfide bond\t5\t9\t.\t.\t.\t.\nP1\tUniProtKB\tBinding site\t6\t8\t.\t.\t.\tNote=ATP\n"
        "P1\tUniProtKB\tSignal peptide\t1\t?\t.\t.\t.\t.\n",
    )
    assert listed(gff) == FEATURES
    assert "4 features of 1 proteins" in repr(gff) and "1 x its position is not known exactly" in repr(gff)


def test_a_mask_has_one_value_a_residue(tmp_path: Path) -> None:
    protein = Protein("P1", "MKVLAAGIVG")
    found = features(tmp_path, flat(features=FLAT_FEATURES), [protein])
    assert "".join("ACDEFGHIKLMNPQRSTVWY"[bool(one)] for one in found.mask(protein, "BINDING")) == "AAAAACCCAA"
    assert found.mask(protein, "DISULFID").nonzero()[0].tolist() == [4, 8]
    assert not found.mask(protein, "HELIX").any() and not found.mask(Protein("P9", "MK"), "BINDING").any()
    with pytest.raises(InputError, match=r"BINDING 6..8 of protein 'P1' lies outside its 7 residues"):
        found.mask(Protein("P1", "MKVLAAG"), "BINDING")


def test_features_are_checked_against_the_sequences(tmp_path: Path) -> None:
    protein = Protein("P1", "MKVLAAGIVG")
    text = "id,type,start,end,letters\nP1,ACT_SITE,3,3,V\nP2,ACT_SITE,3,3,V\n"
    found = features(tmp_path, text, [protein])
    assert listed(found) == [("P1", "ACT_SITE", 2, 3, "")]
    assert found.excluded == {"its protein is not in the study": 1}
    for row, message in [
        ("P1,ACT_SITE,3,3,K", "line 4: 'ACT_SITE' 3..3 of protein 'P1' is 'V' in the sequence, 'K' in the file"),
        ("P1,ACT_SITE,3,11,", "line 4: 'ACT_SITE' 3..11 of protein 'P1' lies outside its 10 residues"),
        ("P1,ACT_SITE,0,1,", "line 4: 'ACT_SITE' 0..1 of protein 'P1': need 1 <= start <= end"),
        ("P1,ACT_SITE,4,3,", "line 4: 'ACT_SITE' 4..3 of protein 'P1': need 1 <= start <= end"),
        ("P1,ACT_SITE,x,3,", "line 4: start 'x' is not a whole number"),
        ("P1,ACT\x1b,1,3,", "has an unprintable character"),
    ]:
        with pytest.raises(InputError) as caught:
            features(tmp_path, text + row + "\n", [protein])
        assert message in str(caught.value) and str(caught.value).isprintable()


def test_features_of_a_long_protein_reach_its_windows(tmp_path: Path) -> None:
    """Two windows of 20 residues that share 8: those from 0 and from 12 of a protein with 32."""
    sequence = "MKVLAAGIVGLCHWYTRSDENQPFKLMACDEF"
    (tmp_path / "p").write_text(f">P1\n{sequence}\n>P2\n{sequence[:20]}\n")
    windows = read_proteins(tmp_path / "p", min_length=1, max_length=20, too_long="windows", window_overlap=8)
    assert [(p.id, p.start) for p in windows] == [("P1/1-20", 0), ("P1/13-32", 12), ("P2", 0)]
    text = (
        "id\ttype\tstart\tend\tletters\nP1\tACT_SITE\t3\t3\tV\nP1\tBINDING\t14\t16\tWYT\nP1\tDOMAIN\t10\t32\t"
        f"{sequence[9:]}\nP1\tDISULFID\t12\t29\t\nP2\tDOMAIN\t10\t20\t\nP3\tDOMAIN\t1\t2\t\n"
    )
    found = features(tmp_path, text, list(windows))
    assert [row[:4] for row in listed(found)] == [
        ("P1/1-20", "ACT_SITE", 2, 3),
        ("P1/1-20", "BINDING", 13, 16), ("P1/13-32", "BINDING", 1, 4),  # in both
        ("P1/1-20", "DOMAIN", 9, 20), ("P1/13-32", "DOMAIN", 0, 20),  # cut by both
        ("P1/1-20", "DISULFID", 11, 12), ("P1/13-32", "DISULFID", 16, 17),  # one end each
        ("P2", "DOMAIN", 9, 20),
    ]  # fmt: skip
    assert found.clipped == 1 and found.excluded == {"its protein is not in the study": 1}
    assert "; 1 cut by the end of a window; excluded: 1 x its protein" in repr(found)
    assert found.mask(windows.proteins[1], "BINDING").nonzero()[0].tolist() == [1, 2, 3]
    for window in windows:  # each letter is where it was in the parent
        for _, kind, start, end, _ in (row for row in listed(found) if row[0] == window.id):
            assert window.sequence[start:end] in sequence[9:] or kind == "ACT_SITE"
    for row, message in [
        ("P1\tSITE\t33\t33\t", "'SITE' 33..33 of protein 'P1' lies outside its 32 residues"),
        ("P1\tSITE\t26\t26\tK", "'SITE' 26..26 of protein 'P1' is 'L' in the sequence, 'K' in the file"),
        ("P1\tSITE\t14\t16\tWY", "is 'WYT' in the sequence, 'WY' in the file"),
    ]:
        with pytest.raises(InputError) as caught:
            features(tmp_path, text + row + "\n", list(windows))
        assert message in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (TABLE, "has no residue feature"),
        ("id\tstart\tend\n", "needs the column 'feature_type'; its header is 'id', 'start', 'end'"),
        (">P1\nMKV\n", "is FASTA, which has no residue features"),
        ("Entry\tActive site\nP1\tthe third\n", "line 2: column 'Active site': 'the third' is not a UniProt feature"),
        ('Entry\tActive site\nP1\t/note="x"\n', "is not a UniProt feature"),
        ("##gff-version 3\nP1\tx\n", "line 2 has 2 fields, GFF3 has 9"),
        (flat(), "has no residue feature"),
    ],
)
def test_files_without_features(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(InputError) as caught:
        features(tmp_path, text)
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_cells_of_before_2022_and_other_names_of_a_feature(tmp_path: Path) -> None:
    proteins = [Protein("P1", "M" * 60)]
    path = tmp_path / "f"
    path.write_text(
        "Entry\tActive site\tMetal binding\nP1\tACT_SITE 20 20 Proton acceptor. {ECO:0000255}.\t"
        "METAL 5 5 Zinc; catalytic.; METAL 9 9 Zinc.\n"
    )
    found = read_features(path, proteins).table
    assert found[["feature_type", "start", "end"]].to_numpy().tolist() == [
        ["ACT_SITE", 19, 20], ["METAL", 4, 5], ["METAL", 8, 9],
    ]  # fmt: skip
    # pandas writes whole numbers as 50.0 where one is missing
    path.write_text("id\ttype\tstart\tend\nP1\tActive site\t20.0\t20.0\nP1\tdna-binding region\t1\t9\nP1\tPfam\t1\t9\n")
    assert list(read_features(path, proteins).table["feature_type"]) == ["ACT_SITE", "DNA_BIND", "Pfam"]
    path.write_text("##gff-version 3\nP1\tx\tactive_site\t20\t20\t.\t.\t.\tNote=a\n")
    assert list(read_features(path, proteins).table["feature_type"]) == ["ACT_SITE"]
