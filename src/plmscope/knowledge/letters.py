"""How much of a neuron is its letter: the baseline that an explanation has to go beyond.

Over the residues of the discovery proteins, for every neuron, in one pass (sums a letter, nothing a residue)::

    r2_letter = sum_a n_a (mean_a - mean)^2 / sum_r (a_r - mean)^2       the residue's own amino acid
    r2_window = the same of a ridge regression on the one-hot letters at -1, 0 and +1

An embedding of the letter has 1. For the selected neurons every explanation is then judged *within* a letter, on
held-out clusters. Of a residue concept, or of the hits of a motif: the AUROC of marked residues against unmarked ones
of the same letter, by the rank that the activation has among the discovery residues of that letter::

    AUROC_a = 1/2 + mean rank of the marked a - mean rank of the other a

A pattern is marked whole, but a neuron may fire on one of its residues: the letter is chosen on one half of the
held-out clusters and judged on the other, both ways. Of a concept of whole proteins: the AUROC of the mean activation
less what the letters of the protein predict (``sum_a share_a mean_a``), which composition alone cannot raise.

Neurons of residues so few that the halves hold fewer than :data:`MIN_MARKED` of every letter are judged over all
letters together, and not at all below twice as many.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch

from plmscope.data.proteins import Protein
from plmscope.knowledge.concepts import Annotation, ConceptSet
from plmscope.knowledge.motifs import LETTERS, Motifs, letter_codes

#: Letters and one more for anything else, an end included.
WIDTH = len(LETTERS) + 1
#: Weight of the ridge, in residues.
RIDGE = 1.0
#: Marked and unmarked residues of a letter that each half needs.
MIN_MARKED = 5
BLOCK = 2048
#: Bins of the mean of a protein less its letters, over this many standard deviations on either side.
BINS, SPAN = 512, 6.0
#: Arrays that the pass over the discovery proteins fills, and that over the held-out ones.
LETTERS_DISCOVERED = ("gram", "cross", "squares", "ranks", "means", "mean_squares", "shares", "mean_shares")
LETTERS_JUDGED = ("above", "marked", "all", "residues", "motif_above", "motif_marked", "positive", "everyone")
#: Kinds of concepts that are no more than sets of letters.
LETTER_KINDS = ("amino acid", "group")


class Letters:
    """Sums of one group of neurons; memory depends on neurons and concepts, not on proteins.

    Args:
        center: ``(N,)`` about which squares are summed, near each neuron's middle.
        chosen: ``(K,)`` numbers of the neurons whose explanations are judged.
    """

    def __init__(self, center: torch.Tensor, chosen: np.ndarray) -> None:
        n, k = len(center), len(chosen)
        self.center, self.chosen = center, chosen
        self.gram = np.zeros((3 * WIDTH, 3 * WIDTH))
        self.cross, self.squares = np.zeros((3 * WIDTH, n)), np.zeros(n)
        self.ranks = np.zeros((k, WIDTH, 256), np.int32)
        self.means, self.mean_squares = np.zeros(k), np.zeros(k)
        self.shares, self.mean_shares = np.zeros((WIDTH, WIDTH)), np.zeros((WIDTH, k))

    def discover(self, values: torch.Tensor, codes: np.ndarray, proteins: Sequence[Protein]) -> None:
        """Add activations ``(R, N)`` and codes ``(R, K)`` of the chosen ones, one protein after the other."""
        around = np.concatenate([_around(protein.sequence) for protein in proteins])  # (R, 3)
        one_hot = (around[:, :, None] == np.arange(WIDTH)).reshape(len(around), -1)  # (R, 63)
        as_float = one_hot.astype(np.float64)
        self.gram += as_float.T @ as_float
        x = torch.from_numpy(one_hot).to(values.device, torch.float32).T
        for start in range(0, values.shape[1], BLOCK):
            part = slice(start, start + BLOCK)
            moved = values[:, part] - self.center[part]
            self.cross[:, part] += (x @ moved).double().cpu().numpy()
            self.squares[part] += moved.square_().sum(0, dtype=torch.float64).cpu().numpy()
        if not len(self.chosen):
            return
        cells = np.arange(len(self.chosen)) * WIDTH * 256
        index = codes.astype(np.int64) + around[:, 1, None] * 256 + cells
        self.ranks += np.bincount(index.ravel(), minlength=self.ranks.size).reshape(self.ranks.shape)
        means, shares = self._of_proteins(values, around[:, 1], proteins)
        self.means += means.sum(0)
        self.mean_squares += np.square(means).sum(0)
        self.shares += shares.T @ shares
        self.mean_shares += shares.T @ means

    def _of_proteins(
        self, values: torch.Tensor, letters: np.ndarray, proteins: Sequence[Protein]
    ) -> tuple[np.ndarray, np.ndarray]:
        """Means of the chosen neurons ``(P, K)``, about their centers, and shares of the letters ``(P, 21)``."""
        where = torch.from_numpy(self.chosen).to(values.device)
        moved = (values[:, where] - self.center[where]).double().cpu().numpy()
        starts = np.concatenate([[0], np.cumsum([len(p) for p in proteins])[:-1]])
        lengths = np.array([[len(p)] for p in proteins])
        counts = np.stack([np.bincount(part, minlength=WIDTH) for part in np.split(letters, starts[1:])])
        return np.add.reduceat(moved, starts, axis=0) / lengths, counts / lengths

    # --- what the discovery proteins say

    def letter_means(self) -> np.ndarray:
        """``(21, N)`` mean activation less the center on every letter, that of all residues where it does not occur."""
        counts = np.diag(self.gram)[WIDTH : 2 * WIDTH, None]
        sums = self.cross[WIDTH : 2 * WIDTH]
        means: np.ndarray = np.where(counts > 0, sums / np.maximum(counts, 1), sums.sum(0) / max(counts.sum(), 1))
        return means

    def table(self) -> pd.DataFrame:
        """One row a neuron: ``position, r2_letter, r2_window, highest, lowest``.

        Both are NaN for a neuron that does not vary. ``highest`` and ``lowest`` are the three letters of the highest
        and lowest mean, the most extreme first, among those that occur.
        """
        counts = np.diag(self.gram)[WIDTH : 2 * WIDTH]
        n, sums = counts.sum(), self.cross[WIDTH : 2 * WIDTH]
        total = self.squares - sums.sum(0) ** 2 / n
        center = self.center.double().cpu().numpy()
        varies = total / n > (1e-5 * np.abs(center)) ** 2 + 1e-24
        total = np.where(varies, total, np.nan)
        between = (sums**2 / np.maximum(counts, 1)[:, None]).sum(0) - sums.sum(0) ** 2 / n
        seen = np.diag(self.gram)
        gram = self.gram - np.outer(seen, seen) / n
        cross = self.cross - seen[:, None] * sums.sum(0) / n
        weights = np.linalg.solve(gram + RIDGE * np.eye(len(gram)), cross)
        fitted = 2 * (weights * cross).sum(0) - (weights * (gram @ weights)).sum(0)
        order = np.argsort(self.letter_means()[counts > 0][: len(LETTERS)], axis=0, kind="stable")
        names = np.array(list(LETTERS + "?"))[counts > 0]
        return pd.DataFrame(
            {
                "position": np.arange(len(total)), "r2_letter": (between / total).clip(0, 1),
                "r2_window": (fitted / total).clip(0, 1),
                "highest": ["".join(names[column[::-1][:3]]) for column in order.T],
                "lowest": ["".join(names[column[:3]]) for column in order.T],
            }
        )  # fmt: skip

    # --- what the held-out proteins say

    def begin(self, concepts: ConceptSet, neuron: np.ndarray, sign: np.ndarray, concept: np.ndarray) -> None:
        """Say which pairs of neuron, sign and concept are to be judged; other neurons and letters are left out."""
        all_, k = concepts.concepts, len(self.chosen)
        self.concepts, self.sign = concepts, sign
        self.column = np.full(int(self.center.shape[0]), -1)
        self.column[self.chosen] = np.arange(k)
        judged = self.column[neuron] >= 0
        judged &= np.array([all_[int(c)].kind not in LETTER_KINDS for c in concept], dtype=bool)
        self.neuron, self.concept = neuron, concept
        self.pairs = {int(c): np.flatnonzero(judged & (concept == c)) for c in np.unique(concept[judged])}
        self.groups = sorted({all_[c].group for c in self.pairs} | {""})
        total = self.ranks.sum(2, keepdims=True)
        rank = (np.cumsum(self.ranks, 2) - self.ranks / 2) / np.maximum(total, 1)
        self.rank = np.where(total > 0, rank, 0.5).astype(np.float32)
        means = self.letter_means()[:, self.chosen]
        n = max(self.shares.sum(), 1.0)  # shares of a protein sum to 1: this is the number of proteins
        square = self.mean_squares - 2 * (means * self.mean_shares).sum(0) + (means * (self.shares @ means)).sum(0)
        offset = (self.means - self.shares.sum(1) @ means) / n
        spread = np.sqrt(np.maximum(square / n - offset**2, 0))
        self.predicted, self.offset = means, offset
        self.scale = np.where(spread > 0, spread, 1.0)
        g = len(self.groups)
        self.above, self.marked = np.zeros((2, len(neuron), WIDTH)), np.zeros((2, len(neuron), WIDTH))
        self.all, self.residues = np.zeros((2, g, k, WIDTH)), np.zeros((2, g, WIDTH))
        self.motif_above, self.motif_marked = np.zeros((2, 2 * k, WIDTH)), np.zeros((2, 2 * k, WIDTH))
        of_proteins = sum(len(w) for c, w in self.pairs.items() if all_[c].level == "protein")
        self.place = np.full(len(neuron), -1)
        numbers = [w for c, w in self.pairs.items() if all_[c].level == "protein"]
        if numbers:
            self.place[np.concatenate(numbers)] = np.arange(of_proteins)
        self.positive, self.everyone = np.zeros((of_proteins, BINS), np.int64), np.zeros((g, k, BINS), np.int64)

    def judge(
        self,
        values: torch.Tensor,
        codes: np.ndarray,
        hits: np.ndarray,
        proteins: Sequence[Protein],
        annotations: Sequence[Annotation],
    ) -> None:
        """Add held-out proteins: activations ``(R, N)``, codes ``(R, K)``, hits of the motifs ``(R, 2 K)``."""
        letters = np.concatenate([letter_codes(p.sequence) for p in proteins]).astype(np.int64)
        rank = self.rank[np.arange(len(self.chosen)), letters[:, None], codes]  # (R, K)
        means, shares = self._of_proteins(values, letters, proteins)
        rest = (means - shares @ self.predicted - self.offset) / self.scale
        bins = ((rest + SPAN) * BINS / (2 * SPAN)).clip(0, BINS - 1).astype(np.int64)  # (P, K)
        columns, start = np.arange(len(self.chosen)), 0
        for row, (protein, annotation) in enumerate(zip(proteins, annotations, strict=True)):
            part = slice(start, start + len(protein))
            start += len(protein)
            half = zlib.crc32(protein.id.encode()) % 2
            one_hot = (letters[part, None] == np.arange(WIDTH)).astype(np.float32)  # (R_p, 21)
            own, summed, counts = rank[part], one_hot.T @ rank[part], one_hot.sum(0)
            for number, group in enumerate(self.groups):
                if not group or annotation.known[self._first(group)]:
                    self.all[half, number] += summed.T
                    self.residues[half, number] += counts
                    self.everyone[number, columns, bins[row]] += 1
            for concept, which in self.pairs.items():
                if not annotation.known[concept]:
                    continue
                column = self.column[self.neuron[which]]
                if concept in annotation.positions:
                    where = annotation.positions[concept]
                    self.above[half, which] += own[np.ix_(where, column)].T @ one_hot[where]
                    self.marked[half, which] += one_hot[where].sum(0)
                elif concept in annotation.holds:
                    self.positive[self.place[which], bins[row, column]] += 1
            on = hits[part].astype(np.float32)
            self.motif_above[half] += (on * np.tile(own, (1, 2))).T @ one_hot
            self.motif_marked[half] += on.T @ one_hot

    def _first(self, group: str) -> int:
        return next(c for c in self.pairs if self.concepts.concepts[c].group == group)

    def beyond(self) -> np.ndarray:
        """``auroc_beyond_letter`` of every pair, NaN where it is not judged."""
        areas = np.full(len(self.neuron), np.nan)
        for concept, which in self.pairs.items():
            one = self.concepts.concepts[concept]
            group, column = self.groups.index(one.group), self.column[self.neuron[which]]
            if one.level == "residue":
                all_, residues = self.all[:, group, column], self.residues[:, group, None]
                areas[which] = within(self.above[:, which], self.marked[:, which], all_, residues, self.sign[which])
                continue
            positive = self.positive[self.place[which]]
            negative = self.everyone[group, column] - positive
            below = np.cumsum(negative, axis=1) - negative
            pairs = positive.sum(1) * negative.sum(1)
            area = (positive * (below + negative / 2)).sum(1) / np.maximum(pairs, 1)
            areas[which] = np.where(pairs > 0, 0.5 + self.sign[which] * (area - 0.5), np.nan)
        return areas

    def beyond_of(self, motifs: Motifs) -> np.ndarray:
        """``auroc_beyond_letter`` of every motif, with its hits for marks."""
        group = self.groups.index("")
        all_, residues = np.tile(self.all[:, group], (1, 2, 1)), self.residues[:, group, None]
        areas = within(self.motif_above, self.motif_marked, all_, residues, motifs.signs)
        return np.where(motifs.last > motifs.first, areas, np.nan)


def _around(sequence: str) -> np.ndarray:
    """``(R, 3)`` letter codes at -1, 0 and +1."""
    codes = np.concatenate([[20], letter_codes(sequence), [20]]).astype(np.int64)
    return np.stack([codes[:-2], codes[1:-1], codes[2:]], axis=1)


def within(
    above: np.ndarray, marked: np.ndarray, all_: np.ndarray, residues: np.ndarray, sign: np.ndarray
) -> np.ndarray:
    """AUROC of marked residues within a letter that the other half of the clusters chose.

    Args:
        above: ``(2, k, L)`` sum of ranks (0..1 among residues of the letter) of the marked residues of either half.
        marked: ``(2, k, L)`` their number.
        all_: ``(2, k, L)`` sum of ranks of all residues.
        residues: ``(2, 1, L)`` their number.
        sign: ``(k,)`` -1 turns the order around.

    Returns:
        ``(k,)``; over all letters together, each weighted by its marked residues, where no letter has enough of them
        in both halves; NaN where there are fewer than twice :data:`MIN_MARKED` in all.
    """
    rest = residues - marked
    apart = above / np.maximum(marked, 1) - (all_ - above) / np.maximum(rest, 1)
    area = 0.5 + sign[:, None] * apart  # (2, k, L)
    some = (marked > 0) & (rest > 0)
    z = np.where(some, (area - 0.5) / np.sqrt(1 / np.maximum(marked, 1) + 1 / np.maximum(rest, 1)), -np.inf)
    enough = (np.minimum(marked, rest) >= MIN_MARKED).all(0)  # (k, L)
    best = np.where(enough, z, -np.inf).argmax(2)[::-1]  # (2, k): the other half's
    pick = best[:, :, None]
    there = np.take_along_axis(marked, pick, 2)[:, :, 0]
    chosen = (np.take_along_axis(area, pick, 2)[:, :, 0] * there).sum(0) / np.maximum(there.sum(0), 1)
    weight = np.where(some, marked, 0)
    total = weight.sum((0, 2))
    pooled = np.where(total >= 2 * MIN_MARKED, (weight * area).sum((0, 2)) / np.maximum(total, 1), np.nan)
    areas: np.ndarray = np.where(enough.any(1), chosen, pooled)
    return areas.clip(0, 1)
