"""Sequence motifs of neurons: what the places where a neuron fires most have in common.

The highest activation of every protein (one a cluster) gives a window; the highest windows are counted::

    p[j, a]  = (count[j, a] + b q[a]) / (n[j] + b)        b = sqrt(n[j]): pseudocounts in proportion to the background q
    score(r) = sum_j log2( p[j, a(r + j)] / q[a(r + j)] )
    bits[j]  = sum_a p[j, a] log2( p[j, a] / q[a] )

Columns that say no more than so few windows would by chance (their bits less 19 / (2 n ln 2), Schneider et al. 1986)
are cut off at both ends; what is left is the motif, and the neuron has none if nothing is left. Whether the motif
predicts where the neuron fires is measured on held-out clusters, which gave no window.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.spatial.distance import squareform

from plmscope.data.proteins import Protein
from plmscope.knowledge.concepts import Annotation, ConceptSet

#: Columns of a matrix.
LETTERS = "ACDEFGHIKLMNPQRSTVWY"
#: Residues on either side of the peak that may belong to the motif, and that are shown.
FLANK, STRIP = 7, 20
#: Share of residues that counts as firing, and as hits of a matrix.
MOTIF_FRACTION = 0.01
#: Bits, beyond chance, of a column that counts.
MIN_BITS = 0.3
#: Motifs this similar (cosine, best of a few shifts) are in one group.
SIMILARITY = 0.75
BINS = 512
_SHIFTS = 3
_CODE = np.full(128, 20, dtype=np.uint8)
_CODE[[ord(letter) for letter in LETTERS]] = np.arange(20)


def letter_codes(sequence: str) -> np.ndarray:
    """Numbers of the letters in :data:`LETTERS`, 20 for any other, ``(R,)``."""
    codes: np.ndarray = _CODE[np.frombuffer(sequence.encode("ascii"), dtype=np.uint8)]
    return codes


class TopWindows:
    """The highest peaks of many neurons, one a protein; memory does not grow with the proteins.

    Attributes:
        value, protein, position: ``(N, k)`` height, protein (its row) and 0-based residue of each peak, highest first;
            the protein is -1 where there are fewer.
        strip: ``(N, k, 41)`` activation around the peak, NaN beyond the ends.
    """

    def __init__(self, n: int, k: int) -> None:
        self.value = np.full((n, k), -np.inf, np.float32)
        self.protein = np.full((n, k), -1, np.int32)
        self.position = np.zeros((n, k), np.int32)
        self.strip = np.full((n, k, 2 * STRIP + 1), np.nan, np.float16)
        self._waiting: list[tuple[np.ndarray, int, np.ndarray, np.ndarray]] = []

    def add(self, values: np.ndarray, rows: Sequence[int], lengths: Sequence[int]) -> None:
        """Look at some proteins: activations ``(R, N)``, one protein after the other."""
        start = 0
        columns = np.arange(values.shape[1])
        for row, length in zip(rows, lengths, strict=True):
            part = values[start : start + length]
            start += length
            peak = part.argmax(0)
            padded = np.full((length + 2 * STRIP, part.shape[1]), np.nan, np.float32)
            padded[STRIP : STRIP + length] = part
            strip = padded[peak[:, None] + np.arange(2 * STRIP + 1), columns[:, None]]
            self._waiting.append((part[peak, columns], row, peak, strip.clip(-6e4, 6e4).astype(np.float16)))
        if len(self._waiting) >= 64:
            self.settle()

    def settle(self) -> None:
        """Keep the highest of the peaks seen so far, highest first; equal ones in the order of their proteins."""
        if not self._waiting:
            return
        value, row, position, strip = zip(*self._waiting, strict=True)
        self._waiting = []
        protein = np.broadcast_to(np.array(row, np.int32), (len(self.value), len(row)))
        self.take(np.stack(value, 1), protein, np.stack(position, 1), np.stack(strip, 1))

    def take(self, value: np.ndarray, protein: np.ndarray, position: np.ndarray, strip: np.ndarray) -> None:
        """Keep the highest of these peaks and of those that are here."""
        k = self.value.shape[1]
        value, protein = np.concatenate([self.value, value], 1), np.concatenate([self.protein, protein], 1)
        position, strip = np.concatenate([self.position, position], 1), np.concatenate([self.strip, strip], 1)
        order = np.lexsort((protein, -value), axis=1)[:, :k]
        self.value, self.protein = np.take_along_axis(value, order, 1), np.take_along_axis(protein, order, 1)
        self.position = np.take_along_axis(position, order, 1).astype(np.int32)
        self.strip = np.take_along_axis(strip, order[:, :, None], 1)


def background(proteins: Sequence[Protein]) -> np.ndarray:
    """Share of every amino acid, ``(20,)``, in the order of :data:`LETTERS`; none is zero."""
    counts = np.ones(21)
    for protein in proteins:
        counts += np.bincount(letter_codes(protein.sequence), minlength=21)
    share: np.ndarray = counts[:20] / counts[:20].sum()
    return share


def weight_matrix(windows: np.ndarray, q: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities ``(W, 20)`` and windows that have a letter in each column ``(W,)``.

    Args:
        windows: ``(n, W)`` letter codes; 20 (no residue, or an unknown one) does not count.
        q: ``(20,)`` background.
    """
    counts = np.stack([np.bincount(column, minlength=21)[:20] for column in windows.T]).astype(np.float64)
    n = counts.sum(1)
    pseudo = np.maximum(np.sqrt(n), 1e-9)[:, None]
    return (counts + pseudo * q) / (n[:, None] + pseudo), n


def information(matrix: np.ndarray, q: np.ndarray) -> np.ndarray:
    """Bits of every column over the background, ``(W,)``, from 0 to -log2 of the rarest amino acid's share."""
    bits: np.ndarray = (matrix * np.log2(np.maximum(matrix, 1e-12) / q)).sum(1)
    return bits


def consensus(matrix: np.ndarray, bits: np.ndarray) -> str:
    """A motif such as ``W-x-[ST]-g``; empty if no column has a name.

    A letter from 60 % on, else up to three that make 70 % together, else a small letter from 35 % on, else ``x``.
    """
    names = []
    for column, said in zip(matrix, bits, strict=True):
        order = np.argsort(-column, kind="stable")
        few = next((k for k in (2, 3) if column[order[:k]].sum() >= 0.7 and column[order[k - 1]] >= 0.15), 0)
        if said < MIN_BITS:
            names.append("x")
        elif column[order[0]] >= 0.6:
            names.append(LETTERS[order[0]])
        elif few:
            names.append("[" + "".join(sorted(LETTERS[i] for i in order[:few])) + "]")
        elif column[order[0]] >= 0.35:
            names.append(LETTERS[order[0]].lower())
        else:
            names.append("x")
    return "-".join(names) if set(names) != {"x"} else ""


@dataclass
class Motifs:
    """The motifs of some neurons, both signs, and what they find on held-out proteins.

    Attributes:
        neurons, signs: ``(M,)``.
        windows: What they were made from.
        matrices: ``(M, 15, 20)`` probabilities.
        first, last: ``(M,)`` columns of the motif, half-open; equal where there is none.
        n_windows: ``(M,)``.
        q: Background.
    """

    neurons: np.ndarray
    signs: np.ndarray
    windows: TopWindows
    matrices: np.ndarray
    first: np.ndarray
    last: np.ndarray
    n_windows: np.ndarray
    q: np.ndarray
    concepts: ConceptSet
    cut: np.ndarray
    labels: list[str]
    log_odds: np.ndarray = field(repr=False)  # (20 * 15, M)
    bounds: tuple[np.ndarray, np.ndarray] = field(repr=False)
    fired: np.ndarray = field(init=False, repr=False)
    everywhere: np.ndarray = field(init=False, repr=False)
    hits: np.ndarray = field(init=False, repr=False)
    fired_hits: np.ndarray = field(init=False, repr=False)
    in_class: np.ndarray = field(init=False, repr=False)
    class_residues: np.ndarray = field(init=False, repr=False)
    on: dict[int, np.ndarray] = field(init=False, repr=False)
    known: dict[int, np.ndarray] = field(init=False, repr=False)
    marked: dict[int, np.ndarray] = field(init=False, repr=False)
    table: pd.DataFrame = field(init=False, repr=False)

    def __post_init__(self) -> None:
        m = len(self.neurons)
        self.fired, self.everywhere = np.zeros((m, BINS), np.int64), np.zeros((m, BINS), np.int64)
        self.hits, self.fired_hits = np.zeros(m, np.int64), np.zeros(m, np.int64)
        self.in_class, self.class_residues = np.zeros((len(self.labels), m), np.int64), np.zeros(len(self.labels))
        told = [i for i, c in enumerate(self.concepts.concepts) if c.has_stretches]
        self.on, self.known = {i: np.zeros(m, np.int64) for i in told}, {i: np.zeros(m, np.int64) for i in told}
        # Residues that it marks, residues where it is known.
        self.marked = {i: np.zeros(2, np.int64) for i in told}

    def scores(self, sequence: str) -> np.ndarray:
        """Score of every matrix with its peak on every residue, ``(R, M)``."""
        codes = letter_codes(sequence)
        padded = np.concatenate([np.full(FLANK, 20), codes, np.full(FLANK, 20)])
        around = np.lib.stride_tricks.sliding_window_view(padded, 2 * FLANK + 1)  # (R, 15)
        one_hot = (around[:, :, None] == np.arange(20)).reshape(len(codes), -1).astype(np.float32)
        scores: np.ndarray = one_hot @ self.log_odds
        return scores

    def add(self, proteins: Sequence[Protein], annotations: Sequence[Annotation], fires: np.ndarray) -> np.ndarray:
        """Look at held-out proteins; ``fires`` ``(R, M)`` says where the neurons do. Returns the hits, ``(R, M)``."""
        start, all_hits = 0, []
        columns = np.arange(len(self.neurons)) * BINS
        low, high = self.bounds
        for protein, annotation in zip(proteins, annotations, strict=True):
            own = fires[start : start + len(protein)]
            start += len(protein)
            scores = self.scores(protein.sequence)
            bins = ((scores - low) * (BINS - 1) / (high - low)).clip(0, BINS - 1).astype(np.int64) + columns
            size = BINS * len(self.neurons)
            self.everywhere += np.bincount(bins.ravel(), minlength=size).reshape(-1, BINS)
            self.fired += np.bincount(bins[own], minlength=size).reshape(-1, BINS)
            hits = scores >= self.cut
            all_hits.append(hits)
            total = hits.sum(0)
            self.hits += total
            self.fired_hits += (hits & own).sum(0)
            for label in self.concepts.labels_of(protein):
                self.in_class[self.labels.index(label)] += total
                self.class_residues[self.labels.index(label)] += len(protein)
            for number, on in self.on.items():
                if annotation.known[number]:
                    where = annotation.positions.get(number, np.zeros(0, np.int64))
                    on += hits[where].sum(0)
                    self.known[number] += total
                    self.marked[number][0] += len(where)
                    self.marked[number][1] += len(protein)
        return np.concatenate(all_hits)

    def finished(self, beyond: np.ndarray | None = None) -> Motifs:
        """Make the table ``position, sign, consensus, ...`` of what was found.

        Args:
            beyond: ``(M,)`` the column ``auroc_beyond_letter``; NaN without.
        """
        empty = self.everywhere - self.fired
        below = np.cumsum(empty, axis=1) - empty
        n = self.fired.sum(1)
        with np.errstate(invalid="ignore", divide="ignore"):
            area = (self.fired * (below + empty / 2)).sum(1) / (n * empty.sum(1))
            enrichment = (self.fired_hits / self.hits) / (n / self.everywhere.sum(1))
        has = self.last > self.first
        rows = []
        for i in range(len(self.neurons)):
            matrix = self.matrices[i, self.first[i] : self.last[i]]
            bits = information(matrix, self.q)
            rows.append(
                {
                    "consensus": consensus(matrix, bits), "width": len(matrix), "anchor": FLANK - int(self.first[i]),
                    "information_bits": float(bits.sum()), "matrix": matrix.ravel().astype(np.float32).tolist(),
                    "classes": json.dumps(self._classes(i)), "annotations": json.dumps(self._annotations(i)),
                }
            )  # fmt: skip
        self.table = pd.DataFrame(
            rows, columns=["consensus", "width", "anchor", "information_bits", "matrix", "classes", "annotations"]
        ).assign(
            position=self.neurons, sign=self.signs, n_windows=self.n_windows, n_fired=n,
            auroc_held_out=np.where(has, area, np.nan), enrichment=np.where(has, enrichment, np.nan),
            auroc_beyond_letter=np.full(len(self.neurons), np.nan) if beyond is None else beyond,
            group=group_motifs(np.where(self._inside()[:, :, None], self.matrices - self.q, 0)),
        )  # fmt: skip
        return self

    def moved(self, where: np.ndarray) -> None:
        """Number the neurons anew: number ``i`` becomes ``where[i]``."""
        self.neurons = where[self.neurons]
        self.table = self.table.assign(position=self.neurons)

    def _inside(self) -> np.ndarray:
        """``(M, 15)`` whether a column belongs to the motif."""
        column = np.arange(2 * FLANK + 1)
        inside: np.ndarray = (column >= self.first[:, None]) & (column < self.last[:, None])
        return inside

    def _classes(self, i: int) -> dict[str, dict[str, float]]:
        """Share of one motif's hits in every class, and that over the class's share of residues."""
        if self.last[i] == self.first[i] or not self.in_class[:, i].sum():
            return {}
        share = self.in_class[:, i] / self.in_class[:, i].sum()
        expected = self.class_residues / self.class_residues.sum()
        return {
            label: {"share": round(float(s), 4), "enrichment": round(float(s / e), 3)}
            for label, s, e in zip(self.labels, share, expected, strict=True)
            if e > 0
        }

    def _annotations(self, i: int) -> dict[str, dict[str, float]]:
        """The five concepts that one motif's hits are most enriched in: share of hits on them, and over chance."""
        enriched = {}
        for number, on in self.on.items():
            known, (marked, total) = self.known[number][i], self.marked[number]
            if known and marked and on[i] >= 5 and self.last[i] > self.first[i]:
                share = on[i] / known
                lift = share / (marked / total)
                if lift > 1.5:
                    name = self.concepts.concepts[number].name
                    enriched[name] = {"share": round(float(share), 4), "enrichment": round(float(lift), 3)}
        return dict(sorted(enriched.items(), key=lambda item: -item[1]["enrichment"])[:5])


def make_motifs(
    windows: TopWindows,
    chosen: np.ndarray,
    proteins: Sequence[Protein],
    concepts: ConceptSet,
    held_out: Sequence[Protein],
) -> Motifs:
    """Matrices from the windows of discovery proteins.

    Args:
        windows: Of the chosen neurons, then of the same with the other sign.
        chosen: ``(K,)`` their numbers.
        proteins: What the windows' rows count in.
        concepts: What hits may lie on.
        held_out: Proteins that the motifs will be judged on.
    """
    windows.settle()
    q = background(proteins)
    m = len(windows.value)
    padded = ["\0" * FLANK + protein.sequence + "\0" * FLANK for protein in proteins]
    matrices = np.zeros((m, 2 * FLANK + 1, 20))
    first, last, n_windows = np.zeros(m, int), np.zeros(m, int), np.zeros(m, int)
    for i in range(m):
        there = windows.protein[i] >= 0
        # A constant neuron has no peaks: all its windows would be first residues.
        shown = windows.strip[i, there]
        varies = bool(there.any() and np.nanmax(shown) > np.nanmin(shown))
        n_windows[i] = there.sum()
        texts = [
            padded[p][r : r + 2 * FLANK + 1]
            for p, r in zip(windows.protein[i, there], windows.position[i, there], strict=True)
        ]
        if not varies:
            matrices[i] = q
            continue
        codes = letter_codes("".join(texts)).reshape(len(texts), -1)
        matrices[i], n = weight_matrix(codes, q)
        beyond = information(matrices[i], q) - 19 / (2 * math.log(2) * np.maximum(n, 1))
        said = np.flatnonzero((beyond >= MIN_BITS) & (n >= max(5, len(texts) // 4)))
        if len(said):
            first[i], last[i] = said[0], said[-1] + 1
    column = np.arange(2 * FLANK + 1)
    inside = (column >= first[:, None]) & (column < last[:, None])
    odds = np.where(inside[:, :, None], np.log2(matrices / q), 0)
    bounds = odds.min(2).sum(1) - 1e-3, odds.max(2).sum(1) + 1e-3
    motifs = Motifs(
        np.concatenate([chosen, chosen]), np.repeat([1, -1], len(chosen)), windows, matrices, first, last, n_windows, q,
        concepts, np.zeros(m), sorted({label for protein in held_out for label in concepts.labels_of(protein)}),
        odds.reshape(m, -1).T.astype(np.float32), bounds,
    )  # fmt: skip
    some = proteins[:: max(1, len(proteins) // 100)]
    scores = np.concatenate([motifs.scores(p.sequence) for p in some])
    cut = np.quantile(scores, 1 - MOTIF_FRACTION, axis=0, method="higher")
    # A short motif has few scores: if too many residues share that one, hits are those above it.
    crowded = (scores >= cut).mean(0) > 10 * MOTIF_FRACTION
    motifs.cut = np.where(crowded, np.nextafter(cut, np.inf), cut)
    return motifs


def joined_motifs(parts: Sequence[Motifs]) -> Motifs:
    """Finished motifs of several passes as one, grouped anew."""
    if len(parts) == 1:
        return parts[0]
    one = parts[0]
    names = ("neurons", "signs", "matrices", "first", "last", "n_windows")
    merged = {name: np.concatenate([getattr(part, name) for part in parts]) for name in names}
    n, k = sum(len(part.neurons) for part in parts), max(part.windows.value.shape[1] for part in parts)
    windows = TopWindows(n, k)
    for name in ("value", "protein", "position", "strip"):
        setattr(windows, name, np.concatenate([getattr(part.windows, name) for part in parts]))
    bounds = np.concatenate([part.bounds[0] for part in parts]), np.concatenate([part.bounds[1] for part in parts])
    motifs = Motifs(
        **merged, windows=windows, q=one.q, concepts=one.concepts, cut=np.concatenate([part.cut for part in parts]),
        labels=one.labels, log_odds=np.concatenate([part.log_odds for part in parts], axis=1), bounds=bounds,
    )  # fmt: skip
    frame = pd.concat([part.table for part in parts], ignore_index=True)
    group = group_motifs(np.where(motifs._inside()[:, :, None], motifs.matrices - motifs.q, 0))
    motifs.table = frame.assign(group=group)
    return motifs


def group_motifs(matrices: np.ndarray) -> np.ndarray:
    """Number of the group of every motif, ``(M,)``: 0 for the largest; -1 for an empty one.

    Average linkage on the cosine of the matrices less the background, at the best of shifts up to three columns.

    Args:
        matrices: ``(M, W, 20)`` probabilities less the background, zero outside the motif.
    """
    size = np.sqrt((matrices**2).sum((1, 2)))
    there = np.flatnonzero(size > 0)
    groups = np.full(len(matrices), -1)
    if len(there) < 2:
        groups[there] = 0
        return groups
    unit = (matrices[there] / size[there, None, None]).astype(np.float32)
    flat = unit.reshape(len(there), -1)
    similar = np.full((len(there), len(there)), -1, np.float32)
    for shift in range(-_SHIFTS, _SHIFTS + 1):
        moved = np.zeros_like(unit)
        if shift >= 0:
            moved[:, shift:] = unit[:, : unit.shape[1] - shift]
        else:
            moved[:, :shift] = unit[:, -shift:]
        np.maximum(similar, flat @ moved.reshape(len(there), -1).T, out=similar)
    distance = np.maximum(1 - np.maximum(similar, similar.T), 0)
    np.fill_diagonal(distance, 0)
    labels = fcluster(linkage(squareform(distance, checks=False), "average"), 1 - SIMILARITY, "distance")
    order = {group: i for i, (group, _) in enumerate(Counter(labels.tolist()).most_common())}
    groups[there] = [order[group] for group in labels.tolist()]
    return groups
