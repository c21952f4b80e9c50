"""Where concepts hold and where neurons fire, as bits: what formulas and sentences are counted on.

Every protein begins with a new word of 64 bits, so that counts of single proteins are sums over words and an operation
never reaches from one protein into the next. Beside the residue concepts of a run there are two operators on them::

    near(concept, k)  = residues at most k from one that the concept marks, itself included          k = 1, 5
    BLOSUM(letter)    = residues whose letter has a positive BLOSUM62 score with it, itself included

A concept that is not known in a protein (its features are not in the table) marks nothing there. Memory: one bit a
residue and concept, one byte a residue and neuron; the residues of a side are at most ``max_residues``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import numpy as np

from plmscope.data.proteins import AMINO_ACIDS, Protein
from plmscope.knowledge.concepts import ConceptSet

#: Reach of ``near``, and the kinds of concepts that it is asked of; windows and ends are wide already.
REACH = (1, 5)
NEAR_KINDS = ("amino acid", "group", "pattern", "feature")
WORD = 64


@dataclass(frozen=True)
class Atoms:
    """What formulas are made of: residue concepts, and the two operators on them.

    Attributes:
        names: As formulas write them.
        concepts: Number of the concept of each, -1 for ``BLOSUM``.
        reach: ``k`` of ``near``, else 0.
        letters: Letters of ``BLOSUM``, else none.
    """

    names: tuple[str, ...]
    concepts: tuple[int, ...]
    reach: tuple[int, ...]
    letters: tuple[frozenset[str], ...]

    def __len__(self) -> int:
        return len(self.names)

    @classmethod
    def of(cls, concepts: ConceptSet) -> Atoms:
        """All of a set of concepts."""
        none: frozenset[str] = frozenset()
        rows: list[tuple[str, int, int, frozenset[str]]] = []
        residue = [(i, c) for i, c in enumerate(concepts.concepts) if c.level == "residue"]
        rows += [(c.name, i, 0, none) for i, c in residue]
        rows += [(f"near({c.name}, {k})", i, k, none) for i, c in residue if c.kind in NEAR_KINDS for k in REACH]
        if any(c.kind == "amino acid" for _, c in residue):
            rows += [(f"BLOSUM({a})", -1, 0, like) for a, like in _alike().items() if len(like) > 1]
        names, numbers, reach, letters = zip(*rows, strict=True) if rows else ((), (), (), ())
        return cls(tuple(names), tuple(numbers), tuple(reach), tuple(letters))

    def mark(self, concepts: ConceptSet, protein: Protein) -> np.ndarray:
        """``(A, R)`` which atom marks which residue of a protein."""
        marked = np.zeros((len(self), len(protein)), dtype=bool)
        positions = concepts.annotate(protein).positions
        codes = np.frombuffer(protein.sequence.encode("ascii"), dtype=np.uint8)
        for row, (number, k, letters) in enumerate(zip(self.concepts, self.reach, self.letters, strict=True)):
            if letters:
                marked[row] = np.isin(codes, [ord(letter) for letter in letters])
            elif number in positions:
                marked[row, positions[number]] = True
                if k:
                    own = marked[row].copy()
                    for d in range(1, k + 1):
                        marked[row, d:] |= own[:-d]
                        marked[row, :-d] |= own[d:]
        return marked


@cache
def _alike() -> Mapping[str, frozenset[str]]:
    """Every amino acid to those with a positive BLOSUM62 score, itself included."""
    from Bio.Align import substitution_matrices

    matrices: Any = substitution_matrices
    table = matrices.load("BLOSUM62")
    return {a: frozenset(b for b in AMINO_ACIDS if float(table[a, b]) > 0) | {a} for a in sorted(AMINO_ACIDS)}


@dataclass
class Bits:
    """Rows of bits over the residues of some proteins, in their order.

    Attributes:
        lengths: Residues of every protein.
        words: ``(P + 1,)`` where the words of each begin.
    """

    lengths: Sequence[int]
    words: np.ndarray = field(init=False)

    def __post_init__(self) -> None:
        self.words = np.concatenate([[0], np.cumsum([-(-length // WORD) for length in self.lengths])]).astype(np.int64)

    def empty(self, rows: int) -> np.ndarray:
        """``(rows, W)`` zero words."""
        return np.zeros((rows, int(self.words[-1])), np.uint64)

    def put(self, table: np.ndarray, protein: int, marked: np.ndarray) -> None:
        """Set the words of a protein from ``(rows, R)`` truth values."""
        start, stop = self.words[protein], self.words[protein + 1]
        padded = np.zeros((len(marked), int(stop - start) * WORD), dtype=bool)
        padded[:, : marked.shape[1]] = marked
        table[:, start:stop] = np.packbits(padded, axis=1, bitorder="little").view(np.uint64)

    def flat(self, row: np.ndarray) -> np.ndarray:
        """``(R,)`` truth values of one row, over all residues."""
        every = np.unpackbits(row.view(np.uint8), bitorder="little").view(bool)
        starts = self.words[:-1] * WORD
        return np.concatenate([every[a : a + n] for a, n in zip(starts.tolist(), self.lengths, strict=True)])

    def per_protein(self, row: np.ndarray) -> np.ndarray:
        """``(P,)`` set bits of every protein."""
        found: np.ndarray = np.add.reduceat(np.bitwise_count(row).astype(np.int64), self.words[:-1])
        return found


def count(words: np.ndarray) -> np.ndarray:
    """Set bits along the last axis."""
    found: np.ndarray = np.bitwise_count(words).sum(-1, dtype=np.int64)
    return found


@dataclass(frozen=True)
class Side:
    """One side of the clusters: discovery or confirmation.

    Attributes:
        proteins: One a cluster.
        bits: How the rows are laid out.
        atoms: ``(A, W)``
        fires: ``(U, W)`` where every unit (a neuron and a sign) fires.
        shifted: ``(U, W)`` the same moved around every protein.
        codes: ``(R, U)`` ranks of 256 levels of every unit's activation, high where it fires.
    """

    proteins: Sequence[Protein]
    bits: Bits
    atoms: np.ndarray
    fires: np.ndarray
    shifted: np.ndarray
    codes: np.ndarray

    @property
    def starts(self) -> np.ndarray:
        """``(P + 1,)`` where the residues of each protein begin."""
        found: np.ndarray = np.concatenate([[0], np.cumsum(self.bits.lengths)])
        return found


def at_most(proteins: Sequence[Protein], residues: int, seed: int) -> list[Protein]:
    """Proteins drawn by the seed until one would go beyond ``residues`` in all; at least one, in their order."""
    order = np.random.default_rng([seed, 41]).permutation(len(proteins))
    total = np.cumsum([len(proteins[row]) for row in order])
    kept = np.sort(order[: max(1, int(np.searchsorted(total, residues, side="right")))])
    return [proteins[row] for row in kept]
