"""Matrices, information, consensus and groups by hand; windows by brute force; logos are sound SVG."""

import numpy as np
import pytest

from plmscope.data.proteins import Protein
from plmscope.knowledge.motifs import (
    LETTERS,
    STRIP,
    TopWindows,
    background,
    consensus,
    group_motifs,
    information,
    letter_codes,
    weight_matrix,
)

EVEN = np.full(20, 0.05)


def test_letters_and_background():
    assert letter_codes("ACYX").tolist() == [0, 1, 19, 20]
    share = background([Protein("a", "A" * 39 + "X"), Protein("b", "C")])
    assert share[:3] == pytest.approx([40 / 60, 2 / 60, 1 / 60]) and share.sum() == pytest.approx(1)


def test_weight_matrix_by_hand():
    windows = np.array([letter_codes(w) for w in ("AC", "AD", "AX", "AC")])
    matrix, n = weight_matrix(windows, EVEN)
    assert n.tolist() == [4, 3]
    # four A, pseudocounts 2 x 0.05; two C and one D of three, sqrt(3) x 0.05
    assert matrix[0, 0] == pytest.approx((4 + 0.1) / 6) and matrix[0, 1] == pytest.approx(0.1 / 6)
    assert matrix[1, 1] == pytest.approx((2 + 0.05 * 3**0.5) / (3 + 3**0.5))
    assert matrix.sum(1) == pytest.approx([1, 1])


def test_information_by_hand():
    sure, half = np.eye(20)[3], (np.eye(20)[3] + np.eye(20)[4]) / 2
    bits = information(np.stack([sure, half, EVEN]), EVEN)
    assert bits == pytest.approx([np.log2(20), np.log2(10), 0], abs=1e-6)
    assert information(EVEN[None], np.r_[0.5, np.full(19, 0.5 / 19)])[0] > 0


def column(**shares):
    rest = (1 - sum(shares.values())) / (20 - len(shares))
    return np.array([shares.get(a, rest) for a in LETTERS])


def test_consensus_by_hand():
    matrix = np.stack([column(W=0.9), EVEN, column(S=0.45, T=0.4), column(G=0.4), column(A=0.2)])
    assert consensus(matrix, information(matrix, EVEN)) == "W-x-[ST]-g-x"
    assert consensus(matrix[1:2], np.array([0.0])) == "" and consensus(np.zeros((0, 20)), np.zeros(0)) == ""


def test_windows_equal_brute_force():
    rng = np.random.default_rng(0)
    lengths = rng.integers(3, 60, 200)
    values = [rng.normal(size=(n, 4)).astype(np.float32) for n in lengths]
    top = TopWindows(4, 10)
    for rows in np.array_split(np.arange(200), 23):
        top.add(np.concatenate([values[r] for r in rows]), rows.tolist(), lengths[rows].tolist())
    top.settle()
    for neuron in range(4):
        order = sorted(range(200), key=lambda r: -values[r][:, neuron].max())[:10]
        assert top.protein[neuron].tolist() == order
        for k, row in enumerate(order):
            own = values[row][:, neuron]
            peak = int(own.argmax())
            assert top.position[neuron, k] == peak and top.value[neuron, k] == own[peak]
            padded = np.full(len(own) + 2 * STRIP, np.nan)
            padded[STRIP : STRIP + len(own)] = own
            np.testing.assert_allclose(top.strip[neuron, k], padded[peak : peak + 2 * STRIP + 1], rtol=1e-3)


def test_fewer_proteins_than_windows():
    top = TopWindows(1, 5)
    top.add(np.zeros((3, 1), np.float32), [7], [3])
    top.settle()
    assert top.protein[0].tolist() == [7, -1, -1, -1, -1]


def test_shifted_copies_are_one_group():
    motif, other = np.zeros((15, 20)), np.zeros((15, 20))
    motif[5:8] = np.stack([column(W=0.9), EVEN, column(C=0.9)]) - EVEN
    other[7:10] = np.stack([column(K=0.9), column(D=0.9), column(E=0.9)]) - EVEN
    moved = np.roll(motif, 2, axis=0)
    assert group_motifs(np.stack([other, motif, np.zeros((15, 20)), moved])).tolist() == [1, 0, -1, 0]
    assert group_motifs(np.zeros((2, 15, 20))).tolist() == [-1, -1]
