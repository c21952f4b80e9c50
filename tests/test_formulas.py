"""Formulas: planted ones are found exactly, a shuffled unit gains nothing held out, counts agree with plain masks."""

from functools import partial

import numpy as np
import pytest
from pandas.testing import assert_frame_equal
from scipy.stats import ttest_1samp, wilcoxon

from plmscope.data.proteins import Protein
from plmscope.knowledge.concepts import build_concepts
from plmscope.knowledge.formulas import Formula, Search, gain_p, judge, search_formulas
from plmscope.knowledge.masks import Atoms, Bits, Side, at_most, count
from plmscope.store.resume import collect

LETTERS = list("ACDEFGHIKLMNPQRSTVWY")
W, C, K, D = ("tryptophan (W)", "cysteine (C)", "lysine (K)", "aspartate (D)")


def sides(units, n: int = 120):
    """Two sides of random proteins, with units made by functions of a protein's atoms ``(A, R)`` by name."""
    rng = np.random.default_rng(3)
    proteins = [Protein(f"p{i}", "".join(rng.choice(LETTERS, rng.integers(50, 140)))) for i in range(n)]
    concepts = build_concepts(proteins, kinds=("amino acid", "position", "pattern"))
    atoms = Atoms.of(concepts)
    found = []
    for part in (proteins[: n // 2], proteins[n // 2 :]):
        bits = Bits([len(p) for p in part])
        marks, fires, shifted = bits.empty(len(atoms)), bits.empty(len(units)), bits.empty(len(units))
        for row, protein in enumerate(part):
            marked = atoms.mark(concepts, protein)
            by_name = dict(zip(atoms.names, marked, strict=True))
            on = np.array([unit(by_name, protein) for unit in units])
            bits.put(marks, row, marked)
            bits.put(fires, row, on)
            bits.put(shifted, row, np.roll(on, 17, axis=1))
        found.append(Side(part, bits, marks, fires, shifted, np.zeros((0, 0), np.uint8)))
    return atoms, concepts, found


def shuffled(by_name, protein):
    return np.random.default_rng(len(protein) * 7 + ord(protein.sequence[0])).random(len(protein)) < 0.03


@pytest.fixture(scope="module")
def planted():
    return sides(
        [
            lambda a, p: a[W] & ~a["first 20 residues"],
            lambda a, p: a[C] | (a[K] & a[f"near({D}, 1)"]),
            shuffled,
            lambda a, p: a[W],
            lambda a, p: np.zeros(len(p), bool),
        ]
    )  # fmt: skip


@pytest.fixture(scope="module")
def found(planted):
    atoms, _, (discovery, confirmation) = planted
    return search_formulas(discovery, confirmation, atoms.names, min_residues=30)


def test_planted_formulas_are_found_and_a_shuffled_unit_gains_nothing(planted, found):
    _, _, (_, confirmation) = planted
    table, formulas = found
    rows = table.set_index("unit")
    assert rows.index.tolist() == [0, 1, 2, 3]  # the silent unit is not searched
    assert (rows.loc[[0, 1, 3], ["discovery_iou", "iou", "precision", "recall"]] == 1).all().all()
    assert rows.loc[0, "formula"] == f"{W} AND NOT first 20 residues"
    mask = formulas[1].marks(confirmation.atoms)
    assert (mask == confirmation.fires[1]).all() and len(formulas[1]) == 3
    assert rows.loc[3, "formula"] == rows.loc[3, "atom"] == W and np.isnan(rows.loc[3, "p_value"])
    assert rows.loc[[0, 1], "gain"].min() > 0.05 and rows.loc[[0, 1], "q_value"].max() < 0.01
    assert rows.loc[2, "discovery_iou"] > rows.loc[2, "iou"] and rows.loc[2, "gain"] < 0.02
    assert rows.loc[2, "q_value"] > 0.05
    assert rows["null_gain"].abs().max() < 0.03


def test_bits_count_what_plain_masks_count(planted):
    atoms, concepts, (side, _) = planted
    marked = np.concatenate([atoms.mark(concepts, p) for p in side.proteins], axis=1)
    fires = np.concatenate([np.roll(side.bits.flat(row), 0)[None] for row in side.fires])
    np.testing.assert_array_equal(count(side.atoms), marked.sum(1))
    starts = side.starts[:-1]
    np.testing.assert_array_equal(side.bits.per_protein(side.fires[1]), np.add.reduceat(fires[1].astype(int), starts))
    formula = Formula(0, (("OR", 1), ("AND NOT", 2)))
    plain = (marked[0] | marked[1]) & ~marked[2]
    np.testing.assert_array_equal(side.bits.flat(formula.marks(side.atoms)), plain)
    judged = judge(side, side.fires[1], formula, 5)
    assert judged.iou == pytest.approx((plain & fires[1]).sum() / (plain | fires[1]).sum())
    assert judged.precision == pytest.approx(fires[1][plain].mean())
    (own, own_all), (other, other_all) = (
        [np.add.reduceat(f(m, fires[1]).astype(float), starts) for f in (np.logical_and, np.logical_or)]
        for m in (plain, marked[5])
    )
    assert judged.atom_iou == pytest.approx(other.sum() / other_all.sum())
    adds = own - other - judged.atom_iou * (own_all - other_all)
    assert np.sign(adds.sum()) == np.sign(judged.gain) and judged.p_value == pytest.approx(gain_p(adds))


def test_a_gain_is_tested_as_t_does_but_for_one_residue_against_it():
    rng = np.random.default_rng(0)
    many = rng.normal(0.3, 1, 4000)
    assert gain_p(many[:400]) == pytest.approx(ttest_1samp(many[:400], 0, alternative="greater").pvalue, abs=2e-3)
    # Three hits that the formula happens not to lose are no gain; thirty are.
    assert gain_p(np.full(3, 0.9)) > 0.05 > gain_p(np.full(30, 0.9))


def test_searching_alone_makes_no_gain_sure():
    """Units that fire anywhere: what clusters add makes none better, signed ranks of their IoU many."""

    def anywhere(number):
        return lambda a, p: np.random.default_rng([number, len(p), ord(p.sequence[3])]).random(len(p)) < 0.005

    atoms, _, (discovery, side) = sides([anywhere(number) for number in range(40)])
    table, formulas = search_formulas(discovery, side, atoms.names, min_residues=10)
    p = table[["p_value", "null_p_value"]].to_numpy().ravel()
    p = p[~np.isnan(p)]
    assert len(p) > 60 and (p < 0.05).mean() <= 0.05 and (table["q_value"].dropna() > 0.05).all()
    assert table["discovery_iou"].mean() > 2 * table["iou"].mean()  # it did search
    ranks = []
    for row in table[table["length"] > 1].itertuples():
        fires, alone = side.fires[row.unit], side.atoms[atoms.names.index(row.atom)]
        own, other = (
            np.where(some > 0, side.bits.per_protein(mask & fires) / np.maximum(some, 1), 1)
            for mask in (formulas[row.unit].marks(side.atoms), alone)
            for some in [side.bits.per_protein(mask | fires)]
        )
        ranks.append(wilcoxon(own - other, alternative="greater").pvalue if (own != other).any() else 1)
    assert (np.array(ranks) < 0.05).mean() > 0.4


def test_a_search_continues_after_an_interruption(planted, found, tmp_path, monkeypatch):
    monkeypatch.setattr("plmscope.store.resume.SAVE_SECONDS", -1)
    atoms, _, (discovery, confirmation) = planted
    searched = []

    def track(units):
        for unit in units:
            if len(searched) == 2 and unit not in searched and not stopped:
                stopped.append(unit)
                raise KeyboardInterrupt
            searched.append(unit)
            yield unit

    stopped = []
    arguments = {"min_residues": 30, "track": track, "keep": partial(collect, tmp_path, "a" * 16)}
    with pytest.raises(KeyboardInterrupt):
        search_formulas(discovery, confirmation, atoms.names, **arguments)
    table, formulas = search_formulas(discovery, confirmation, atoms.names, **arguments)
    assert stopped == [2] and searched == [0, 1, 2, 3]
    assert_frame_equal(table, found[0], check_exact=True)
    assert formulas == found[1]


def test_the_search_is_as_good_as_trying_everything(planted):
    _, _, (side, _) = planted
    some, usable = side.atoms[:12], np.ones(12, bool)
    for unit in (1, 2):
        fires = side.fires[unit]
        _, reached, atom, alone = Search(some, usable, length=2).best(fires)
        every = {
            Formula(a, ((op, b),)): None for a in range(12) for b in range(12) for op in ("OR", "AND", "AND NOT")
        }  # fmt: skip
        scores = []
        for one in [*every, *(Formula(a) for a in range(12))]:
            mask = one.marks(some)
            scores.append(count(mask & fires) / max(count(mask | fires), 1))
        assert reached == pytest.approx(max(scores)) and alone == pytest.approx(max(scores[-12:]))
        assert atom == int(np.argmax(scores[-12:]))
        assert Search(some, usable).best(fires)[1] >= reached


@pytest.mark.parametrize("operator", ["OR", "AND", "AND NOT"])
def test_what_pairs_share_with_an_atom_is_what_their_bits_share(planted, operator):
    _, _, (side, _) = planted
    search = Search(side.atoms, np.ones(len(side.atoms), bool))
    for first, second in ((3, 60), (60, 3), (7, 7), (70, 41)):
        for formula in (Formula(first, ((operator, second),)), Formula(first, ((operator, second), ("OR", 5)))):
            direct = count(side.atoms & formula.marks(side.atoms))
            np.testing.assert_array_equal(search._joint(formula), direct)


def test_near_and_blosum_mark_what_they_say():
    protein = Protein("a", "AWAAAAADK" + "A" * 11)
    concepts = build_concepts([protein], kinds=("amino acid",))
    atoms = Atoms.of(concepts)
    marked = dict(zip(atoms.names, atoms.mark(concepts, protein), strict=True))
    assert np.flatnonzero(marked[f"near({W}, 1)"]).tolist() == [0, 1, 2]
    assert np.flatnonzero(marked[f"near({D}, 5)"]).tolist() == list(range(2, 13))
    assert np.flatnonzero(marked["BLOSUM(E)"]).tolist() == [7, 8]  # D and K score above 0 with E
    assert "BLOSUM(C)" not in marked  # nothing but C does


def test_a_side_is_limited():
    proteins = [Protein(str(i), "A" * 30) for i in range(10)]
    assert len(at_most(proteins, 95, 0)) == 3 and at_most(proteins, 1, 0)[0] in proteins
    assert at_most(proteins, 1000, 0) == proteins
