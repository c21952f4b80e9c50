"""Counts of every neuron firing against every concept, and the concepts that are worth confirming.

For all neurons, concepts, signs and shares at once, counts of binarised activations times binary concepts give::

    precision = TP / fired     recall = TP / positives, or stretches touched / stretches     F1 = 2 P R / (P + R)
    F1 gain   = (F1 - F0) / (1 - F0),   F0 = 2 pi / (1 + pi): the F1 of firing everywhere, pi the concept's share
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np

from plmscope.knowledge.codes import BLOCK, FRACTIONS
from plmscope.knowledge.concepts import Annotation, ConceptSet


@dataclass(frozen=True)
class Marked:
    """What one protein says at one level: rows that concepts mark, counted from its first row."""

    length: int
    positions: Mapping[int, np.ndarray]
    stretches: Mapping[int, np.ndarray]
    known: np.ndarray


def marked_residues(annotation: Annotation, length: int) -> Marked:
    """The residues that concepts mark."""
    return Marked(length, annotation.positions, annotation.stretches, annotation.known)


def marked_protein(annotation: Annotation) -> Marked:
    """The protein-level concepts of one protein, which is a single row at that level."""
    return Marked(1, {number: np.zeros(1, np.int64) for number in annotation.holds}, {}, annotation.known)


@dataclass
class Counts:
    """Counts of firing, for all neurons, of one level (residue or protein).

    Attributes:
        numbers: Concepts of the level.
        groups: Group of each concept ("" is known everywhere).
        summed: Concept to concepts whose counts it is the sum of; these are not counted themselves.
        hits: Concept to ``(L, N)`` residues that it marks and where a neuron fires; ``L`` is both signs x shares.
        touched: The same for stretches.
        fired: Group to ``(L, N)``.
        rows: Group to residues that are known.
        positives, stretches: Concept to numbers.
    """

    concepts: ConceptSet
    level: str
    n: int
    codes: np.ndarray
    pool: ThreadPoolExecutor
    numbers: list[int] = field(init=False)
    summed: dict[int, list[int]] = field(init=False)
    hits: dict[int, np.ndarray] = field(init=False)
    touched: dict[int, np.ndarray] = field(init=False)
    fired: dict[str, np.ndarray] = field(init=False)
    rows: dict[str, int] = field(init=False)
    positives: dict[int, int] = field(init=False)
    stretches: dict[int, int] = field(init=False)

    def __post_init__(self) -> None:
        all_ = self.concepts.concepts
        self.numbers = [i for i, c in enumerate(all_) if c.level == self.level]
        letters = {i: s for i, s in self.concepts.letters_of.items() if i in set(self.numbers)}
        single = {next(iter(s)): i for i, s in letters.items() if len(s) == 1}
        self.summed = {
            i: [single[a] for a in sorted(s)] for i, s in letters.items() if len(s) > 1 and s <= single.keys()
        }
        shape = (2 * len(self.codes), self.n)
        self.hits = {i: np.zeros(shape, np.int32) for i in self.numbers if i not in self.summed}
        self.touched = {i: np.zeros(shape, np.int32) for i in self.numbers if all_[i].has_stretches}
        self.fired = {g: np.zeros(shape, np.int64) for g in {all_[i].group for i in self.numbers} | {""}}
        self.rows = dict.fromkeys(self.fired, 0)
        self.positives = dict.fromkeys(self.numbers, 0)
        self.stretches = dict.fromkeys(self.touched, 0)

    def add(self, codes: np.ndarray, marked: Sequence[Marked]) -> None:
        """Count one chunk: codes ``(R, N)`` of the rows of some proteins."""
        starts = np.concatenate([[0], np.cumsum([one.length for one in marked])])
        rows: dict[int, np.ndarray] = {}
        spans: dict[int, np.ndarray] = {}
        for number in self.numbers:
            counted = [
                one.positions[number] + a for one, a in zip(marked, starts, strict=False) if number in one.positions
            ]
            if counted:
                self.positives[number] += sum(map(len, counted))
                rows[number] = np.concatenate(counted)
            stretches = [
                one.stretches[number] + a for one, a in zip(marked, starts, strict=False) if number in one.stretches
            ]
            if stretches and number in self.touched:
                spans[number] = np.concatenate(stretches)
                self.stretches[number] += len(spans[number])
        known: dict[str, np.ndarray] = {}
        for group in self.fired:
            first = next((i for i in self.numbers if self.concepts.concepts[i].group == group), None)
            known[group] = np.array([group == "" or bool(one.known[first]) for one in marked])
            self.rows[group] += int(np.diff(starts)[known[group]].sum())

        def count(start: int) -> None:
            part = slice(start, start + BLOCK)
            fires = _fires(codes[:, part], self.codes)  # (L, R, n)
            whole = np.stack([_sums(fires[:, a:b]) for a, b in pairwise(starts)])  # (P, L, n)
            for group, mask in known.items():
                if mask.any():
                    self.fired[group][:, part] += whole[mask].sum(0)
            for number, where in rows.items():
                if number in self.hits:
                    self.hits[number][:, part] += _sums(fires[:, where])
            for number, where in spans.items():
                self.touched[number][:, part] += _touched(fires, where)

        list(self.pool.map(count, range(0, self.n, BLOCK)))

    def best(self, eligible: Sequence[int], top: int) -> dict[str, np.ndarray]:
        """The best concepts of every neuron and sign by F1 gain.

        Returns:
            ``concept``, ``share`` (number of the fraction), ``gain``, ``f1``, ``auroc``: ``(2, top, N)`` each, signs
            in the order +1, -1; the gain is -inf where there are fewer concepts.
        """
        numbers = [i for i in self.numbers if i in set(eligible) and 0 < self.positives[i] < self.rows[self._group(i)]]
        F = len(self.codes)
        names = ("concept", "share", "gain", "f1", "auroc")
        out = {name: np.full((2, top, self.n), -np.inf if name == "gain" else 0.0) for name in names}
        if not numbers:
            return out
        for start in range(0, self.n, BLOCK):
            part = slice(start, start + BLOCK)
            gains, shares, f1s, aurocs = [], [], [], []
            for i in numbers:
                fired = self.fired[self._group(i)][:, part].astype(np.float32)
                hits = sum(self.hits[j][:, part] for j in self.summed[i]) if i in self.summed else self.hits[i][:, part]
                hits = np.asarray(hits, dtype=np.float32)  # (L, n)
                positives, total = self.positives[i], self.rows[self._group(i)]
                touched = hits / positives
                if self.stretches.get(i):
                    touched = self.touched[i][:, part] / self.stretches[i]
                f1 = f1_score(hits / np.maximum(fired, 1), touched)
                gain = f1_gain(f1, positives / total).reshape(2, F, -1)
                share = gain.argmax(1)  # (2, n)
                gains.append(np.take_along_axis(gain, share[:, None], 1)[:, 0])
                f1s.append(np.take_along_axis(f1.reshape(2, F, -1), share[:, None], 1)[:, 0])
                shares.append(share)
                aurocs.append(_coarse_auroc(hits / positives, (fired - hits) / (total - positives), F))
            stacked = [np.stack(x) for x in (gains, shares, f1s, aurocs)]  # (C, 2, n)
            order = np.argsort(-stacked[0], axis=0, kind="stable")[:top]  # (k, 2, n)
            for name, values in zip(("gain", "share", "f1", "auroc"), stacked, strict=True):
                out[name][:, : len(order), part] = np.take_along_axis(values, order, 0).swapaxes(0, 1)
            out["concept"][:, : len(order), part] = np.array(numbers)[order].swapaxes(0, 1)
        return out

    def _group(self, number: int) -> str:
        return self.concepts.concepts[number].group


def f1_score(precision: np.ndarray, recall: np.ndarray) -> np.ndarray:
    """2 P R / (P + R), 0 where both are 0."""
    both = precision + recall
    f1: np.ndarray = 2 * precision * recall / np.where(both > 0, both, 1)
    return f1


def f1_gain(f1: np.ndarray, prevalence: np.ndarray | float) -> np.ndarray:
    """F1 rescaled: 0 for firing everywhere, 1 for perfect."""
    floor = 2 * prevalence / (1 + np.asarray(prevalence))
    gain: np.ndarray = (f1 - floor) / np.maximum(1 - floor, 1e-9)
    return gain


def _fires(codes: np.ndarray, firing: np.ndarray) -> np.ndarray:
    """``(L, R, n)`` uint8: firing at every share, sign +1 first."""
    out = np.empty((2 * len(firing), *codes.shape), dtype=bool)
    for i, code in enumerate(firing):
        np.greater_equal(codes, np.uint8(code), out=out[i])
        np.less_equal(codes, np.uint8(255 - code), out=out[len(firing) + i])
    return out.view(np.uint8)


def _sums(fires: np.ndarray) -> np.ndarray:
    """Sum of zeros and ones over axis 1, in bytes as far as they go."""
    if fires.shape[1] <= 255:
        total: np.ndarray = np.add.reduce(fires, axis=1, dtype=np.uint8)
        return total.astype(np.int32)
    out = np.zeros((fires.shape[0], fires.shape[2]), dtype=np.int32)
    for start in range(0, fires.shape[1], 255):
        out += np.add.reduce(fires[:, start : start + 255], axis=1, dtype=np.uint8)
    return out


def _touched(fires: np.ndarray, spans: np.ndarray) -> np.ndarray:
    """How many half-open ranges ``(k, 2)`` hold a firing residue, ``(L, n)``."""
    out = np.zeros((fires.shape[0], fires.shape[2]), dtype=np.int32)
    widths = spans[:, 1] - spans[:, 0]
    for width in np.unique(widths):  # whole rows at once: reduceat goes number by number
        first = spans[widths == width, 0]
        hit = fires[:, first]
        for step in range(1, width):
            np.bitwise_or(hit, fires[:, first + step], out=hit)
        out += _sums(hit)
    return out


def flat_spans(spans: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Half-open ranges as one list of rows and the place where each range begins in it."""
    widths = spans[:, 1] - spans[:, 0]
    first = np.concatenate([[0], np.cumsum(widths)[:-1]])
    rows = np.repeat(spans[:, 0] - first, widths) + np.arange(widths.sum())
    return rows, first


def _coarse_auroc(recall: np.ndarray, false_rate: np.ndarray, shares: int) -> np.ndarray:
    """AUROC ``(2, n)`` from the shares of both signs alone: the highest f, the rest without the lowest f, in turn."""
    zero, one = np.zeros((1, recall.shape[1])), np.ones((1, recall.shape[1]))

    def curve(rate: np.ndarray) -> np.ndarray:
        return np.concatenate([zero, rate[:shares], (1 - rate[shares:])[::-1], one])

    area = np.trapezoid(curve(recall), curve(false_rate), axis=0)
    return np.stack([area, 1 - area])


@dataclass(frozen=True)
class Pairs:
    """Neuron, sign, concept and firing code of every pair to confirm; ``rank`` counts from 1 per neuron and sign."""

    neuron: np.ndarray
    sign: np.ndarray
    concept: np.ndarray
    rank: np.ndarray
    code: np.ndarray
    discovery_f1: np.ndarray
    discovery_auroc: np.ndarray

    def __len__(self) -> int:
        return len(self.neuron)

    def of(self, concept: int) -> np.ndarray:
        """Numbers of the pairs of one concept."""
        return np.flatnonzero(self.concept == concept)


def marked_codes(
    codes: np.ndarray, marked: Sequence[Marked], starts: np.ndarray, concept: int, columns: np.ndarray
) -> np.ndarray:
    """Codes of some neurons on the rows that a concept marks, protein by protein."""
    rows = [one.positions[concept] + a for one, a in zip(marked, starts, strict=False) if concept in one.positions]
    where = np.concatenate(rows) if rows else np.zeros(0, np.int64)
    values: np.ndarray = codes[where[:, None], columns]
    return values


def code_histogram(codes: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """``(k, 256)`` how often each code occurs in each of some columns of ``(R, n)`` codes."""
    out = np.empty((len(columns), 256), np.int64)
    for start in range(0, len(columns), BLOCK):
        part = columns[start : start + BLOCK]
        index = codes[:, part] + np.arange(len(part)) * 256
        out[start : start + BLOCK] = np.bincount(index.ravel(), minlength=256 * len(part)).reshape(-1, 256)
    return out


@dataclass(frozen=True)
class CharacterizeSettings:
    """What a characterization depends on besides model and proteins.

    Attributes:
        fractions: Shares at which a neuron fires.
        fdr: Pairs with a q value below are confirmed.
        min_proteins: Discovery proteins that must have a concept, and half as many confirmation proteins.
        top: Concepts listed for a selected neuron.
        windows: Windows of a motif, at most one in four discovery proteins.
        seed: Of the sample and of the shifts.
    """

    fractions: tuple[float, ...] = FRACTIONS
    fdr: float = 0.05
    min_proteins: int = 10
    top: int = 5
    windows: int = 100
    seed: int = 0


def chosen_pairs(
    counts: Sequence[Counts],
    eligible: Sequence[int],
    selected: np.ndarray,
    settings: CharacterizeSettings,
    firing: np.ndarray,
) -> Pairs:
    """The best concept of every neuron and sign, the best few of selected neurons, over both levels."""
    candidates = [one.best(eligible, settings.top) for one in counts]
    merged = {
        name: np.concatenate([one[name] for one in candidates], axis=1) for name in candidates[0]
    }  # (2, 2 top, N)
    order = np.argsort(-merged["gain"], axis=1, kind="stable")[:, : settings.top]
    best = {name: np.take_along_axis(values, order, 1) for name, values in merged.items()}
    wanted = np.isfinite(best["gain"])
    wanted[:, 1:] &= selected
    sign, rank, neuron = np.nonzero(wanted)
    order = np.lexsort((rank, sign, neuron))
    sign, rank, neuron = sign[order], rank[order], neuron[order]

    def of(name: str) -> np.ndarray:
        values: np.ndarray = best[name][sign, rank, neuron]
        return values

    return Pairs(
        neuron, 1 - 2 * sign, of("concept").astype(np.int64), rank + 1, firing[of("share").astype(np.int64)],
        of("f1"), of("auroc"),
    )  # fmt: skip
