"""Structures laid beside sequences, and what they say: helices built by hand, rules counted by hand."""

import base64
import gzip
import hashlib
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import plmscope as ps
from plmscope import report
from plmscope.data.annotations import FeatureSet
from plmscope.data.proteins import Protein
from plmscope.data.structural import (
    HEAVY,
    LARGEST,
    _bridges,
    _states,
    _surface,
    accessibility,
    contact_number,
    distance_to,
    secondary_structure,
)
from plmscope.data.structure_features import TYPES, files_of, folder_digest, structure_files, with_structures
from plmscope.data.structures import match_structure
from plmscope.errors import InputError
from plmscope.explaining.explainer import Explainer, ExplainSettings
from plmscope.explaining.folder import explain_file
from plmscope.knowledge.concepts import build_concepts
from plmscope.study.characterizing import read_inputs
from plmscope.study.study_file import parse_study

FEW = ExplainSettings(copies=20, supporting=6, opposing=2, draws=4)
NAMES = dict(
    zip(
        "ARNDCEQGHILKMFPSTWYV",
        "ALA ARG ASN ASP CYS GLU GLN GLY HIS ILE LEU LYS MET PHE PRO SER THR TRP TYR VAL".split(),
        strict=True,
    )
)


def place(a, b, c, length, angle, torsion):
    """The next atom, by its bond length, angle and torsion in degrees."""
    angle, torsion = np.deg2rad([angle, torsion])
    axis = (c - b) / np.linalg.norm(c - b)
    normal = np.cross(b - a, axis)
    normal /= np.linalg.norm(normal)
    local = length * np.array([-np.cos(angle), np.sin(angle) * np.cos(torsion), np.sin(angle) * np.sin(torsion)])
    return c + local @ np.stack([axis, np.cross(normal, axis), normal])


def backbone(length, phi, psi):
    """N, CA, C, O and C-beta of every residue, ideal bonds, ``(R, 5, 3)``."""
    n, ca = np.zeros(3), np.array([1.46, 0.0, 0.0])
    c = place(np.array([0.0, 1.0, 0.0]), n, ca, 1.53, 111, phi)
    out = []
    for _ in range(length):
        following = place(n, ca, c, 1.33, 116, psi)
        o = place(n, ca, c, 1.23, 121, psi + 180)
        beta = place(c, n, ca, 1.53, 110, -122.5)
        out.append([n, ca, c, o, beta])
        alpha = place(ca, c, following, 1.46, 122, 180)
        n, ca, c = following, alpha, place(c, following, alpha, 1.53, 111, phi)
    return np.array(out)


def pdb(sequence, atoms, first=1, chain="A", skip=(), whole=False):
    """PDB lines of a chain; ``skip`` are positions that are not resolved; ``whole``: side chains, as straight rods."""
    lines, serial = [], 0
    for position, (letter, own) in enumerate(zip(sequence, atoms, strict=True)):
        named = dict(zip(("N", "CA", "C", "O", "CB"), own, strict=True))
        for k in range(1, HEAVY[letter] - 4 if whole else 0):
            named[f"C{k}"] = own[4] + k * (own[4] - own[1])
        for name, xyz in named.items():
            if position in skip or (name == "CB" and letter == "G"):
                continue
            serial += 1
            lines.append(
                f"ATOM  {serial:>5}  {name:<3} {NAMES[letter]} {chain}{first + position:>4}    "
                f"{xyz[0]:>8.3f}{xyz[1]:>8.3f}{xyz[2]:>8.3f}  1.00 20.00           {name[0]}  "
            )
    return "\n".join([*lines, "TER", "END", ""])


SEQUENCE = "MKTAYIAKQRQISFVKSHFSRQLEERLGLI"
HELIX = backbone(len(SEQUENCE), -57, -47)


@pytest.fixture
def helix(tmp_path):
    path = tmp_path / "helix.pdb"
    path.write_text(pdb(SEQUENCE, HELIX))
    return match_structure(path, Protein("p", SEQUENCE))


@pytest.mark.parametrize(("phi", "psi", "state"), [(-57, -47, "H"), (-135, 135, "-"), (-49, -26, "H"), (-75, 150, "-")])
def test_the_state_of_a_built_chain(tmp_path, phi, psi, state):
    """An alpha and a 3-10 helix; a strand alone faces nothing."""
    path = tmp_path / "x.pdb"
    path.write_text(pdb(SEQUENCE, backbone(len(SEQUENCE), phi, psi)))
    assert set(secondary_structure(match_structure(path, Protein("p", SEQUENCE)))[3:-3]) == {state}


def test_the_ends_of_a_helix(helix):
    assert secondary_structure(helix) == "-" + "H" * (len(SEQUENCE) - 2) + "-"


def test_bridges_by_the_rules():
    """Kabsch and Sander: [a, b] is the bond from the C=O of a to the N-H of b."""
    linked = np.array([False, *[True] * 19])

    def found(*bonds):
        matrix = np.zeros((20, 20), bool)
        for a, b in bonds:
            matrix[a, b] = True
        both = np.logical_or(*_bridges(matrix, linked))
        return {(int(i), int(j)) for i, j in zip(*np.nonzero(both), strict=True) if i < j}

    assert found((4, 12), (12, 4)) == {(4, 12)}  # antiparallel, both bonds between the two
    assert found((3, 13), (11, 5)) == {(4, 12)}  # antiparallel, bonds of their neighbours
    assert found((3, 12), (12, 5)) == {(4, 12)}  # parallel
    assert found((11, 4), (4, 13)) == {(4, 12)}  # parallel, the other way round
    assert found((4, 12)) == set() and found((4, 6), (6, 4)) == set()


def states(*bonds, length=30, broken=()):
    """Of a chain with these bonds, from the C=O of the first to the N-H of the second."""
    matrix, linked = np.zeros((length, length), bool), np.full(length, True)
    for a, b in bonds:
        matrix[a, b] = True
    linked[[0, *broken]] = False
    return "".join(_states(matrix, linked))


def test_a_bulge_joins_two_ladders():
    """Antiparallel (4, 20), (5, 19), then one residue is extra on one side: (6, 17), (7, 16)."""
    ladder = [(4, 20), (20, 4), (5, 19), (19, 5)]
    bulge = [*ladder, (6, 17), (17, 6), (7, 16), (16, 7)]
    assert states(*bulge) == "----EEEE--------EEEEE---------"
    apart = [*ladder, (10, 15), (15, 10)]  # 4 are extra on one side, 3 on the other
    assert states(*apart) == "----EE----E----E---EE---------"


def test_which_helix_goes_first():
    """As in DSSP: alpha before 3-10, which takes only what is free; a pi helix takes from an alpha helix."""
    alpha = [(1, 5), (2, 6), (3, 7)]
    assert states(*alpha) == "--HHHHH" + "-" * 23
    assert states(*alpha, (5, 8), (6, 9)) == "--HHHHH" + "-" * 23  # residue 6 is taken
    assert states((10, 13), (11, 14), (12, 15)) == "-" * 11 + "HHHH" + "-" * 15
    assert states(*alpha, (4, 9), (5, 10)) == "--HHHHHHHH" + "-" * 20


def test_numbers_by_hand(helix):
    gaps = np.linalg.norm(helix.side[:, None] - helix.side[None], axis=2)
    assert contact_number(helix).tolist() == ((gaps < 10).sum(1) - 1).tolist()
    site = np.arange(len(SEQUENCE)) == 10
    own = HELIX.reshape(len(SEQUENCE), -1, 3)
    nearest = [np.linalg.norm(one[:, None] - own[10][None], axis=2).min() for one in own]
    assert distance_to(helix, site) == pytest.approx(nearest, abs=2e-3)
    assert np.isnan(distance_to(helix, np.zeros(len(SEQUENCE), bool))).all()
    # An end is more accessible than the middle.
    surface = _surface(helix)
    assert (surface > 0).all() and surface[0] > np.median(surface)


def test_accessibility_of_spheres(helix):
    """Two spheres that touch: what each covers of the other is a cap, in closed form."""
    from dataclasses import replace

    alone = replace(
        helix, protein=Protein("q", "GG"), letters="GG", where=np.array([0, 1]),
        atoms=np.array([[0.0, 0, 0], [3.0, 0, 0]]), elements=np.array(["C", "C"]), owner=np.array([0, 1]),
    )  # fmt: skip
    radius = 1.7 + 1.4
    cap = 2 * np.pi * radius * (radius - 1.5)
    assert _surface(alone) == pytest.approx([4 * np.pi * radius**2 - cap] * 2, rel=0.03)


def test_what_lacks_atoms_is_not_called_buried(tmp_path):
    """Of a chain of C-alphas, and of a lysine that ends at its C-beta, no accessibility is known."""
    whole = pdb(SEQUENCE, HELIX, whole=True)
    (tmp_path / "whole.pdb").write_text(whole)
    one = match_structure(tmp_path / "whole.pdb", Protein("p", SEQUENCE))
    found = accessibility(one)
    assert found == pytest.approx(_surface(one) / [LARGEST[letter] for letter in SEQUENCE])
    short = "\n".join(line for line in whole.splitlines() if not re.match(r".{12} C\d  LYS A   2", line))
    (tmp_path / "short.pdb").write_text(short)
    less = accessibility(match_structure(tmp_path / "short.pdb", Protein("p", SEQUENCE)))
    assert np.flatnonzero(np.isnan(less)).tolist() == [1] and not np.isnan(found).any()
    (tmp_path / "trace.pdb").write_text(
        "\n".join(line for line in whole.splitlines() if line[12:16] in (" CA ", "TER"))
    )
    trace = match_structure(tmp_path / "trace.pdb", Protein("p", SEQUENCE))
    assert np.isnan(accessibility(trace)).all() and set(secondary_structure(trace)) == {" "}
    assert "30 without a whole backbone, so without secondary structure" in trace.told()


@pytest.mark.parametrize("ending", [".pdb", ".pdb.gz", ".cif"])
def test_parts_tags_gaps_and_numbers(tmp_path, ending):
    """A chain that lacks a loop, has a tag, other numbers and one other residue: nothing is shifted, all is told."""
    import gemmi

    chain = "GS" + SEQUENCE[3:12] + "W" + SEQUENCE[13:25]
    text = pdb(chain, backbone(len(chain), -57, -47), first=101, chain="B", skip=(6, 7))
    path = tmp_path / f"x{ending}"
    if ending == ".cif":
        path.write_text(gemmi.read_pdb_string(text).make_mmcif_document().as_string())
    else:
        path.write_bytes(gzip.compress(text.encode()) if ending.endswith("gz") else text.encode())
    one = match_structure(path, Protein("p", SEQUENCE))
    assert one.chain == "B" and one.extra == 2 and one.different == [(12, "W")]
    expected = [""] * 3 + [str(103 + k) for k in range(22)] + [""] * 5
    expected[7] = expected[8] = ""
    assert list(one.numbers) == expected
    assert "20 of 30 residues of p have coordinates; 1 is another amino acid there (S13 is W)" in one.told()
    assert "2 residues of the chain are not in the sequence" in one.told()
    state = secondary_structure(one)
    assert [k for k, s in enumerate(state) if s == " "] == [k for k, n in enumerate(expected) if not n]
    # Into the viewer go positions of the sequence.
    seen = {int(line[22:26]) for line in one.text.splitlines() if line.startswith("ATOM") and line[21] == "A"}
    assert seen == {k + 1 for k, n in enumerate(expected) if n}


def test_what_real_files_hold(tmp_path):
    """Several models, two amino acids at one place, atoms that are called B and C, modified residues, no elements."""
    import gemmi

    lines = pdb(SEQUENCE, HELIX).splitlines()

    def matched(changed):
        (tmp_path / "x.pdb").write_text("\n".join(changed))
        return match_structure(tmp_path / "x.pdb", Protein("p", SEQUENCE))

    def at(number, line):
        return line.startswith("ATOM") and int(line[22:26]) == number

    plain = matched(lines)
    models = [part for k in "12" for part in (f"MODEL        {k}", *lines[:-1], "ENDMDL")]
    assert "x.pdb, chain A of the first of 2 models: 30 of 30" in matched(models).told() and "model" not in plain.told()
    # Threonine 3 is serine as well.
    both = [line for line in lines if not at(3, line)]
    third = [line for line in lines if at(3, line)]
    put = lines.index(third[0])
    both[put:put] = [line[:16] + "ATHR" + line[20:] for line in third] + [
        line[:16] + "BSER" + line[20:] for line in third
    ]
    found = matched(both)
    assert (
        found.extra == 0
        and not found.different
        and len(found.atoms) == len(plain.atoms)
        and "SER A   3" not in found.text
    )
    # Its atoms stand twice, called B and C.
    twice = [new for line in lines for new in ([f"{line[:16]}{k}{line[17:]}" for k in "BC"] if at(3, line) else [line])]
    assert len(matched(twice).atoms) == len(plain.atoms) and matched(twice).text == plain.text
    # Selenomethionine is methionine, and no stranger to the viewer.
    seleno = [line.replace("ATOM  ", "HETATM").replace(" MET ", " MSE ") if at(1, line) else line for line in lines]
    assert (
        matched(seleno).letters == SEQUENCE
        and "HETATM" not in matched(seleno).text
        and "MSE A   1" in matched(seleno).text
    )
    # A simulation's histidine; names from the first column on, where CA is calcium to who trusts columns.
    simulated = [
        f"{line[:12]}{line[13:16]} {line[16:].replace(' HIS ', ' HSD ')}"[:66] if line.startswith("ATOM") else line
        for line in lines
    ]
    (tmp_path / "x.pdb").write_text("\n".join(simulated))
    assert gemmi.read_pdb(str(tmp_path / "x.pdb"))[0][0][0][1].element.name == "Ca"
    found = matched(simulated)
    assert found.letters == SEQUENCE and not found.different and found.elements.tolist() == plain.elements.tolist()


def test_one_line_that_helps(tmp_path, helix):
    other = tmp_path / "other.pdb"
    other.write_text(pdb("WWCCHHWWCCHHPPWWCCHH", backbone(20, -57, -47)))
    for path, said in (
        (other, "no chain is protein 'p'"),
        (other, r"in the nearest \(A\) \d of 20 residues align with its 30"),
        (tmp_path / "none.pdb", r"none.pdb: cannot be read as a structure \(No such file or directory\)"),
    ):
        with pytest.raises(InputError, match=said) as error:
            match_structure(path, Protein("p", SEQUENCE))
        assert len(str(error.value).splitlines()) == 1
    for name, text in (("a.pdb", "nonsense\n"), ("a.cif", "data_x\nloop_\n"), ("b.cif", "<html>"), ("c.pdb.gz", "no")):
        path = tmp_path / name
        path.write_text(text)
        with pytest.raises(InputError, match="give PDB or mmCIF"):
            match_structure(path, Protein("p", SEQUENCE))


@pytest.mark.parametrize(("name", "form"), [("x.pdb", "cif"), ("x.cif", "pdb"), ("x.PDB", "gz"), ("x.cif.gz", "cif")])
def test_the_content_says_what_it_is(tmp_path, name, form):
    import gemmi

    text = pdb(SEQUENCE, HELIX)
    if form == "cif":
        text = "# a remark\n#\n" + gemmi.read_pdb_string(text).make_mmcif_document().as_string()
    (tmp_path / name).write_bytes(gzip.compress(text.encode()) if form == "gz" else text.encode())
    assert match_structure(tmp_path / name, Protein("p", SEQUENCE)).resolved.all()


# --- as concepts


@pytest.fixture
def folder(tmp_path):
    place = tmp_path / "structures"
    place.mkdir()
    (place / "p.pdb").write_text(pdb(SEQUENCE, HELIX, whole=True))
    (place / "AF-q-F1-model_v4.pdb").write_text(pdb(SEQUENCE[::-1], backbone(len(SEQUENCE), -135, 135), whole=True))
    (place / "other.pdb").write_text(pdb(SEQUENCE, HELIX))
    (place / "notes.txt").write_text("not a structure")
    return place


def test_structures_are_features(folder):
    proteins = [Protein("p", SEQUENCE), Protein("q", SEQUENCE[::-1]), Protein("r", "MKTAYIAK")]
    sites = pd.DataFrame(
        [("p", "ACT_SITE", 10, 11, ""), ("q", "ACT_SITE", 3, 4, "")],
        columns=["id", "feature_type", "start", "end", "description"],
    )
    found = with_structures(folder, proteins, FeatureSet(sites, {}, "sites.tsv", "0"))
    for protein in proteins[:2]:
        path = structure_files(folder)[protein.id]
        one = match_structure(path, protein)
        state = np.array(list(secondary_structure(one)))
        assert found.mask(protein, "helix").tolist() == (state == "H").tolist()
        assert found.mask(protein, "buried").tolist() == (accessibility(one) < 0.2).tolist()
        assert found.mask(protein, "exposed").tolist() == (accessibility(one) > 0.5).tolist()
    assert found.mask(proteins[0], "helix").sum() == len(SEQUENCE) - 2 and not found.mask(proteins[1], "helix").any()
    near = found.mask(proteins[0], "near a site")
    assert near[[9, 11]].all() and not near[10] and not near[0]
    assert not any(found.mask(proteins[2], kind).any() for kind in TYPES)
    assert found.mask(proteins[0], "ACT_SITE").sum() == 1
    assert found.excluded == {"structure of no protein of the study": 1}
    # A window of a protein has what lies inside it.
    window = Protein("p/6-20", SEQUENCE[5:20], parent="p", start=5)
    part = with_structures(folder, [window], None)
    assert part.mask(window, "helix").all() and len(part.mask(window, "helix")) == 15


def test_a_study_reads_its_structures(folder):
    study = parse_study({"data": {"path": "x.fasta"}, "characterize": {"structures": str(folder)}}, "x.toml")
    proteins = [Protein("p", SEQUENCE, "1")]
    assert read_inputs(study, proteins, light=True) is None
    found = read_inputs(study, proteins)
    concepts = build_concepts(proteins, kinds=("feature",), features=found, min_proteins=1)
    assert {"helix", "exposed"} <= set(concepts.number)
    before = folder_digest(folder)
    (folder / "p.pdb").write_text(pdb(SEQUENCE, HELIX + 1))
    assert folder_digest(folder) != before


@pytest.mark.parametrize(
    ("name", "said"),
    [("missing", "no such folder"), ("empty", "has no file that ends with"), ("foreign", "none of its 3 structures")],
)
def test_a_folder_that_cannot_be_used(folder, tmp_path, name, said):
    (tmp_path / "empty").mkdir()
    place = folder if name == "foreign" else tmp_path / name
    with pytest.raises(InputError, match=said):
        files_of(place, [Protein("z", SEQUENCE)])
    (folder / "AF-p-F1-model_v4.cif").write_text("")
    with pytest.raises(InputError, match="a second structure of 'p'"):
        structure_files(folder)


# --- in an explanation


@pytest.fixture(scope="module", autouse=True)
def _no_search():
    """MMseqs2 takes seconds a search, and is looked at elsewhere."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Explainer, "_distances", None)
        yield


@pytest.fixture(scope="module")
def opened(golden, tmp_path_factory):
    return ps.open_run(golden.copy(tmp_path_factory.mktemp("structures") / "run"))


@pytest.fixture(scope="module")
def written(opened, tmp_path_factory):
    folder = tmp_path_factory.mktemp("with a structure")
    (folder / "p.fasta").write_text(f">p\n{SEQUENCE}\n")
    (folder / "p.pdb").write_text(pdb(SEQUENCE, HELIX, skip=(14,), whole=True))
    (folder / "sites.tsv").write_text("id\tfeature_type\tstart\tend\np\tActive site\t11\t11\n")
    said = []
    found = explain_file(
        opened, folder / "p.fasta", folder / "out", structure=folder / "p.pdb", features=folder / "sites.tsv",
        settings=FEW, say=said.append,
    )  # fmt: skip
    return found, said


def test_an_explanation_with_its_structure(written):
    found, said = written
    assert any("29 of 30 residues of p have coordinates" in line for line in said)
    residues = found.first.residues
    assert "".join(residues["secondary"]).count("H") > 15 and residues["secondary"][14] == " "
    assert residues["site_distance"][10] == 0 and residues["site_distance"][0] > 10
    assert residues[["accessibility", "contacts"]].notna().sum().tolist() == [29, 29]
    assert "have coordinates" in repr(found.first)


LIBRARY = Path(report.__file__).parent / "templates" / "molecules"


def test_the_page_carries_the_viewer_where_it_is_needed(written, opened, tmp_path):
    page = (written[0].folder / "explained.html").read_text()
    packed = base64.b64encode((LIBRARY / "3Dmol-min.js.gz").read_bytes()).decode()
    assert page.count(packed) == 1 and (LIBRARY / "LICENSE").read_text()[:200] in page
    readme = (LIBRARY / "README.md").read_text()
    library = gzip.decompress((LIBRARY / "3Dmol-min.js.gz").read_bytes())
    assert f"`3Dmol-min.js` (SHA-256) | `{hashlib.sha256(library).hexdigest()}`" in readme
    (tmp_path / "p.fasta").write_text(f">p\n{SEQUENCE}\n")
    without = explain_file(opened, tmp_path / "p.fasta", tmp_path / "out", settings=FEW).folder / "explained.html"
    assert packed[:1000] not in without.read_text() and not re.search(r'id="molecules"', without.read_text())


def test_a_structure_is_of_one_protein(opened, tmp_path, written):
    (tmp_path / "two.fasta").write_text(f">p\n{SEQUENCE}\n>q\n{SEQUENCE}\n")
    with pytest.raises(InputError, match="a structure is of one"):
        explain_file(opened, tmp_path / "two.fasta", structure=written[0].folder.parent / "p.pdb")


def test_the_structure_is_drawn(written, offline_page):
    page, wrong = offline_page
    page.goto((written[0].folder / "explained.html").as_uri())
    page.wait_for_selector("#molecule[data-drawn=yes]", timeout=30_000)
    assert page.locator("#molecule canvas").count() >= 1 and not wrong


def test_a_trace_of_alphas_is_drawn_too(opened, offline_page, tmp_path):
    """The viewer makes ribbons of whole backbones alone: without its other style the box stays empty."""
    (tmp_path / "p.fasta").write_text(f">p\n{SEQUENCE}\n")
    alphas = [line for line in pdb(SEQUENCE, HELIX).splitlines() if line[12:16] == " CA "]
    (tmp_path / "p.pdb").write_text("\n".join(alphas))
    found = explain_file(opened, tmp_path / "p.fasta", tmp_path / "out", structure=tmp_path / "p.pdb", settings=FEW)
    page, wrong = offline_page
    page.goto((found.folder / "explained.html").as_uri())
    page.wait_for_selector("#molecule[data-drawn=yes]", timeout=30_000)
    drawn = page.locator("#molecule").screenshot()
    page.evaluate("document.querySelector('#molecule canvas').style.display = 'none'")
    assert len(drawn) > 3 * len(page.locator("#molecule").screenshot()) and not wrong
