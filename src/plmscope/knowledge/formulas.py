"""Compositional explanations: the formula over concepts that best says where a neuron fires.

A unit (a neuron and a sign) fires at a share of 0.005 of residues, ``U``. With the bits of a formula ``F``::

    IoU(F)      = |F and U| / (|F| + |U| - |F and U|)
    |F or A|    = |F| + |A| - |F and A|            |F and not A| = |F| - |F and A|      (the same with U)

so that one ``and`` and one count of bits give all three extensions by an atom ``A``. All pairs of atoms are compared;
from then on the 10 best formulas of a length (the beam) are extended by every atom. To the beam of pairs come 10 more,
those that best complete one of the 3 best atoms (``a OR (b AND c)``, which no beam over single extensions reaches). Of
equal formulas the shorter wins. They read from the left: ``(a OR b) AND NOT c``.

Chosen on discovery clusters, judged on held-out ones: the *gain* is IoU(F) less that of the unit's best single atom
``A`` (both chosen on discovery). Cluster i adds to it::

    d_i = (|F and U|_i - r |F or U|_i) - (|A and U|_i - r |A or U|_i),    r = IoU(A) over all clusters

which sum to more than 0 exactly if there is a gain; clusters where nothing of the three is add nothing. ``p`` is
Student's t of the sum with one residue against the formula added, lest a few lucky ones make a gain; Benjamini-Hochberg
over units. The *null gain* and its p are those of the whole search run again on the unit's residues moved around every
protein.

Source: Mu and Andreas 2020 (beam 10, length 3, no penalty for length). Departs: pairs of atoms are searched in full and
completed, both signs, ``near`` and ``BLOSUM``, held-out clusters. Signed ranks of clusters' IoU would be no test: a
formula that marks less gains a little in most and loses a hit in few (``docs/methods.md``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.stats import t as student

from plmscope.knowledge.masks import Side, count
from plmscope.stats.chance import benjamini_hochberg
from plmscope.store.resume import Work

OPERATORS = ("OR", "AND", "AND NOT")
BEAM, LENGTH = 10, 3
#: Best atoms that pairs may complete.
COMPLETED = 3
#: A gain of discovery below this is a tie, which the shorter formula wins.
TIE = 1e-9


@dataclass(frozen=True)
class Formula:
    """Atoms joined from the left.

    Attributes:
        first: Number of the first atom.
        rest: Operator and atom of each further one.
    """

    first: int
    rest: tuple[tuple[str, int], ...] = ()

    def __len__(self) -> int:
        return 1 + len(self.rest)

    def text(self, names: Sequence[str]) -> str:
        """As it is written.

        >>> Formula(0, (("OR", 1), ("AND NOT", 2))).text(("W", "C", "first 20 residues"))
        '(W OR C) AND NOT first 20 residues'
        """
        said = names[self.first]
        for number, (operator, atom) in enumerate(self.rest):
            said = f"{f'({said})' if number else said} {operator} {names[atom]}"
        return said

    def marks(self, atoms: np.ndarray) -> np.ndarray:
        """``(W,)`` its bits, from those of the atoms."""
        found: np.ndarray = atoms[self.first].copy()
        for operator, atom in self.rest:
            other = atoms[atom]
            found = found | other if operator == "OR" else found & (other if operator == "AND" else ~other)
        return found


def iou(both: np.ndarray, one: np.ndarray, other: np.ndarray | int) -> np.ndarray:
    """Intersection over union from counts; 0 where the union is empty."""
    found: np.ndarray = both / np.maximum(one + other - both, 1)
    return found


class Search:
    """The beam search of one side; what does not depend on a unit is counted once.

    Args:
        atoms: ``(A, W)`` bits.
        usable: ``(A,)`` which may be in a formula.
    """

    def __init__(self, atoms: np.ndarray, usable: np.ndarray, beam: int = BEAM, length: int = LENGTH) -> None:
        self.atoms, self.usable, self.beam, self.length = atoms, usable, beam, length
        self.sizes = count(atoms)
        self.pairs = np.stack([count(atoms & one) for one in atoms])  # (A, A)
        self._triples: dict[tuple[int, int], np.ndarray] = {}

    def best(self, fires: np.ndarray) -> tuple[Formula, float, int, float]:
        """The best formula of a unit's bits ``(W,)`` and its IoU, the best atom and its IoU."""
        words = np.flatnonzero(fires)
        bits = np.unpackbits(fires[words].view(np.uint8), bitorder="little").reshape(-1, 64)
        word, bit = np.nonzero(bits)  # the residues of the unit, in their order
        total = len(word)
        marked = (self.atoms[:, words[word]] >> bit.astype(np.uint64) & np.uint64(1)).astype(bool)  # (A, r)
        hits = np.count_nonzero(marked, axis=1)
        alone = np.where(self.usable, iou(hits, self.sizes, total), 0.0)
        atom = int(alone.argmax())
        best, best_iou = Formula(atom), float(alone[atom])
        if not best_iou:
            return best, best_iou, atom, best_iou
        useful = np.flatnonzero(self.usable)
        marked = marked[:, marked[useful].any(0)]  # residues that no atom marks are in no formula's hits
        on = marked[useful].astype(np.float32)  # (a, r)
        size, hit = self.sizes[useful], hits[useful]
        beam = [(Formula(int(a)), int(s), int(h)) for a, s, h in zip(useful, size, hit, strict=True)]
        joint, joint_hits = self.pairs[np.ix_(useful, useful)], _product(on, on)
        for length in range(2, self.length + 1):
            # Formulas in rows, atoms in columns.
            sizes, own = (np.array([one[k] for one in beam])[:, None] for k in (1, 2))
            grown = {
                "OR": (sizes + size - joint, own + hit - joint_hits),
                "AND": (joint, joint_hits),
                "AND NOT": (sizes - joint, own - joint_hits),
            }
            scores = np.stack([iou(h, s, total) for s, h in grown.values()])  # (3, F, a)
            if length == 2:
                scores[:2][:, np.tri(len(useful), dtype=bool)] = -1  # a OR b is b OR a
            chosen = self._best(scores, grown, beam, useful)
            if not chosen:
                break
            first = float(iou(np.array(chosen[0][2]), np.array(chosen[0][1]), total))
            if first > best_iou + TIE:
                best, best_iou = chosen[0][0], first
            if length == 2 < self.length:
                for one in np.argsort(-alone[useful], kind="stable")[:COMPLETED].tolist():
                    # As if no residue of the pair outside the unit were one of the atom.
                    beyond = on[:, on[one] == 0]
                    more = _product(beyond, beyond)
                    more = np.stack([0 * more, more, beyond.sum(1).astype(np.int64)[:, None] - more])
                    both = hit[one] + more
                    bound = both / (size[one] + np.stack([s for s, _ in grown.values()]) + total - both)
                    bound = np.where((more > 0) & (scores > 0), bound, 0)
                    chosen += self._best(bound, grown, beam, useful)
            beam = chosen
            if length < self.length:
                joint = np.stack([self._joint(one)[useful] for one, _, _ in beam])
                joint_hits = _product(np.stack([one.marks(marked) for one, _, _ in beam]).astype(np.float32), on)
        return best, best_iou, atom, float(alone[atom])

    def _joint(self, formula: Formula) -> np.ndarray:
        """``(A,)`` residues that a formula and each atom mark both.

        Of a formula of two atoms it follows from the residues of both, which many units ask for.
        """
        if len(formula) != 2:
            return count(self.atoms & formula.marks(self.atoms))
        first, (operator, second) = formula.first, formula.rest[0]
        pair = min(first, second), max(first, second)
        if pair not in self._triples:
            both = self.atoms[first] & self.atoms[second]
            where = np.flatnonzero(both)
            self._triples[pair] = count(self.atoms[:, where] & both[where]).astype(np.int32)  # thousands of them
        triple = self._triples[pair]
        joint: np.ndarray = triple
        if operator == "OR":
            joint = self.pairs[first] + self.pairs[second] - triple
        elif operator == "AND NOT":
            joint = self.pairs[first] - triple
        return joint

    def _best(
        self,
        scores: np.ndarray,
        grown: Mapping[str, tuple[np.ndarray, np.ndarray]],
        beam: Sequence[tuple[Formula, int, int]],
        useful: np.ndarray,
    ) -> list[tuple[Formula, int, int]]:
        """The best extensions by ``(3, F, a)`` scores above 0: formula, size and hits.

        Formulas of the same counts are the same residues, but for rare accidents; one of them is enough.
        """
        flat, most = scores.ravel(), 20 * self.beam
        few = np.sort(np.argpartition(-flat, most)[:most]) if len(flat) > most else np.arange(len(flat))
        chosen: list[tuple[Formula, int, int]] = []
        seen: set[tuple[int, int]] = set()
        for place in few[np.argsort(-flat[few], kind="stable")]:
            operator, row, column = (int(k) for k in np.unravel_index(place, scores.shape))
            if flat[place] <= 0 or len(chosen) == self.beam:
                break
            name = OPERATORS[operator]
            s, h = (int(part[row, column]) for part in grown[name])
            if (s, h) not in seen:
                seen.add((s, h))
                rest = (*beam[row][0].rest, (name, int(useful[column])))
                chosen.append((Formula(beam[row][0].first, rest), s, h))
        return chosen


def _product(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """``(a, b)`` residues that both have, from rows of zeros and ones."""
    found: np.ndarray = np.rint(one @ other.T).astype(np.int64)
    return found


@dataclass(frozen=True)
class Judged:
    """A formula on held-out clusters: IoU, precision and recall, that of an atom, its test and its clusters."""

    iou: float
    precision: float
    recall: float
    atom_iou: float
    p_value: float
    n_clusters: int

    @property
    def gain(self) -> float:
        """How much better the formula is than the atom."""
        return self.iou - self.atom_iou


def judge(side: Side, fires: np.ndarray, formula: Formula, atom: int) -> Judged:
    """A formula and the best atom against a unit's bits ``(W,)`` on held-out clusters, one protein each."""
    n = side.bits.per_protein(fires)
    found = []
    for mask in (formula.marks(side.atoms), side.atoms[atom]):
        marked, both = side.bits.per_protein(mask), side.bits.per_protein(mask & fires)
        found.append((marked, both, marked + n - both))
    (marked, both, union), (_, other_both, other_union) = found
    level = float(other_both.sum() / max(other_union.sum(), 1))
    p = gain_p((both - level * union) - (other_both - level * other_union)) if len(formula) > 1 else np.nan
    return Judged(
        float(both.sum() / max(union.sum(), 1)), float(both.sum() / max(marked.sum(), 1)),
        float(both.sum() / max(n.sum(), 1)), level, p, int((n > 0).sum()),
    )  # fmt: skip


def gain_p(difference: np.ndarray) -> float:
    """One-sided p of a gain from what each cluster adds to it; 1 where no cluster tells the two apart.

    >>> gain_p(np.zeros(9)), round(gain_p(np.array([1.0, 1, 1, 1, -1, 0.0])), 3), gain_p(np.full(60, 0.5)) < 1e-6
    (1.0, 0.226, True)
    """
    told = difference[np.abs(difference) > 0]
    if not len(told):
        return 1.0
    return float(student.sf((told.sum() - 1) / np.sqrt(np.square(told).sum() + 1), len(told)))


COLUMNS = (
    "unit", "formula", "length", "discovery_iou", "iou", "precision", "recall", "atom", "atom_iou", "gain",
    "n_clusters", "p_value", "q_value", "null_gain", "null_p_value",
)  # fmt: skip


def search_formulas(
    discovery: Side,
    confirmation: Side,
    names: Sequence[str],
    *,
    min_proteins: int = 10,
    min_residues: int = 100,
    beam: int = BEAM,
    length: int = LENGTH,
    null: bool = True,
    track: Callable[[Iterable[int]], Iterable[int]] = iter,
    keep: Callable[[Mapping[str, np.ndarray], int, Work], Mapping[str, np.ndarray]] | None = None,
) -> tuple[pd.DataFrame, dict[int, Formula]]:
    """The best formula of every unit that fires often enough.

    Args:
        discovery: What is searched.
        confirmation: What judges.
        names: Of the atoms.
        min_proteins: Discovery proteins that an atom must mark a residue of, and half as many on the other side.
        min_residues: Residues of discovery where a unit must fire; it must fire at fewer than half.
        beam: Formulas that are extended.
        length: Atoms of a formula.
        null: Whether the search is run again on shifted bits; without, the null gain is NaN.
        track: Progress over the units.
        keep: Runs the tasks of the search, one a unit, and keeps what they give, such as
            :func:`~plmscope.store.resume.collect`: of what a task gives, how many, and what does them.

    Returns:
        One row a unit with the columns :data:`COLUMNS` (``gain`` and all but ``discovery_iou`` are held out; a formula
        of one atom has no gain and no test), and the formulas by unit.
    """
    held = [
        np.array([(side.bits.per_protein(row) > 0).sum() for row in side.atoms], dtype=np.int64)
        for side in (discovery, confirmation)
    ]
    usable = (held[0] >= min_proteins) & (2 * held[1] >= min_proteins)
    residues = int(np.sum(discovery.bits.lengths))
    fired = count(discovery.fires)
    units = np.flatnonzero((fired >= min_residues) & (2 * fired < residues))
    if not usable.any():
        units = units[:0]

    def work(todo: Sequence[int]) -> Iterator[tuple[int, Mapping[str, np.ndarray]]]:
        search = Search(discovery.atoms, usable, beam, length)
        for number, unit in zip(todo, track(units[list(todo)].tolist()), strict=True):
            formula, discovered, atom, _ = search.best(discovery.fires[unit])
            other, _, other_atom, _ = search.best(discovery.shifted[unit]) if null else (Formula(0), 0, 0, 0)
            yield number, {
                "formulas": np.stack([_numbers(formula, length), _numbers(other, length)]),
                "atoms": np.array([atom, other_atom]), "iou": np.array(discovered),
            }  # fmt: skip

    like = {"formulas": np.zeros((2, 2, length), np.int64), "atoms": np.zeros(2, np.int64), "iou": np.zeros(())}
    kept = (keep or _at_once)(like, len(units), work)
    found: dict[int, Formula] = {}
    rows = []
    for number, unit in enumerate(units.tolist()):
        own, other = (_formula(one) for one in kept["formulas"][number])
        atom, other_atom = kept["atoms"][number].tolist()
        real = judge(confirmation, confirmation.fires[unit], own, atom)
        shifted = judge(confirmation, confirmation.shifted[unit], other, other_atom) if null else None
        found[unit] = own
        rows.append(
            (unit, own.text(names), len(own), float(kept["iou"][number]), real.iou, real.precision, real.recall,
             names[atom], real.atom_iou, real.gain, real.n_clusters, real.p_value, np.nan,
             shifted.gain if shifted else np.nan, shifted.p_value if shifted else np.nan)
        )  # fmt: skip
    frame = pd.DataFrame(rows, columns=list(COLUMNS))
    frame["q_value"] = benjamini_hochberg(frame["p_value"].to_numpy(dtype=np.float64))
    return frame, found


def _at_once(like: Mapping[str, np.ndarray], total: int, work: Work) -> Mapping[str, np.ndarray]:
    """All tasks, nothing kept."""
    every = [one for _, one in work(range(total))] if total else []
    return {name: np.array([one[name] for one in every]).reshape(total, *part.shape) for name, part in like.items()}


def _numbers(formula: Formula, length: int) -> np.ndarray:
    """``(2, length)`` atoms and operators of a formula; -1 beyond its end."""
    found = np.full((2, length), -1)
    found[0, : len(formula)] = [formula.first, *(atom for _, atom in formula.rest)]
    found[1, 1 : len(formula)] = [OPERATORS.index(operator) for operator, _ in formula.rest]
    return found


def _formula(numbers: np.ndarray) -> Formula:
    """Back from :func:`_numbers`."""
    atoms, operators = numbers.tolist()
    rest = [(OPERATORS[o], a) for a, o in zip(atoms[1:], operators[1:], strict=True) if a >= 0]
    return Formula(atoms[0], tuple(rest))
