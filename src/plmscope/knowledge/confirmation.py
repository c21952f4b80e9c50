"""The chosen pairs of neuron and concept on clusters that had no part in choosing them.

Precision, recall, F1, IoU and AUROC of a pair, and a test with one number a cluster: the mean code on the annotated
residues minus that on the annotation shifted circularly within the protein, which keeps its length, number and spacing;
for concepts of whole proteins the rank-sum test.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pandas as pd

from plmscope.data.proteins import Protein
from plmscope.knowledge.codes import Codes
from plmscope.knowledge.concepts import ConceptSet
from plmscope.knowledge.discovery import (
    Marked,
    Pairs,
    code_histogram,
    f1_gain,
    f1_score,
    flat_spans,
    marked_codes,
)
from plmscope.stats.ranks import auroc_of_histograms, rank_sum_p, signed_rank_p

MIN_SHIFT = 10


DIFFERENCES = 128  # bins on either side of zero


class Confirmation:
    """Histograms over codes that every number of the confirmation follows from."""

    def __init__(self, pairs: Pairs, concepts: ConceptSet, level: str, n: int) -> None:
        self.pairs, self.concepts, self.n = pairs, concepts, n
        self.of = {int(i): pairs.of(i) for i in np.unique(pairs.concept) if concepts.concepts[int(i)].level == level}
        self.positive = np.zeros((len(pairs), 256), np.int64)
        self.shifted = np.zeros((len(pairs), 256), np.int64)
        self.touched = np.zeros(len(pairs), np.int64)
        self.stretches = np.zeros(len(pairs), np.int64)
        self.differences = np.zeros((2, len(pairs), 2 * DIFFERENCES + 1), np.int32)  # annotation, control
        groups: dict[str, set[int]] = {}
        for number, which in self.of.items():
            groups.setdefault(concepts.concepts[number].group, set()).update(pairs.neuron[which].tolist())
        self.neurons = {group: np.array(sorted(neurons)) for group, neurons in groups.items()}
        self.all = {group: np.zeros((len(neurons), 256), np.int64) for group, neurons in self.neurons.items()}

    def add(self, codes: np.ndarray, marked: Sequence[Marked], others: Sequence[Sequence[Marked]]) -> None:
        """Count one chunk; ``others`` are the same proteins with a shifted annotation, twice over."""
        starts = np.concatenate([[0], np.cumsum([one.length for one in marked])])
        for group, neurons in self.neurons.items():
            first = next(i for i in self.of if self.concepts.concepts[i].group == group)
            mask = np.repeat([bool(one.known[first]) for one in marked], np.diff(starts))
            if mask.any():
                self.all[group] += code_histogram(codes if mask.all() else codes[mask], neurons)
        flip = np.where(self.pairs.sign > 0, 0, 255).astype(np.uint8)
        for number, which in self.of.items():
            columns = self.pairs.neuron[which]

            real, shifted, again = (
                marked_codes(codes, ones, starts, number, columns) ^ flip[which] for ones in (marked, *others)
            )
            places = np.arange(len(which))
            self.positive[which] += code_histogram(real, places)
            self.shifted[which] += code_histogram(shifted, places)
            with_it = [p for p, one in enumerate(marked) if number in one.positions]
            if not with_it:
                continue
            if self.concepts.concepts[number].has_stretches:
                spans = np.concatenate([marked[p].stretches[number] + starts[p] for p in with_it])
                rows, first_rows = flat_spans(spans)
                best = np.maximum.reduceat(codes[rows[:, None], columns] ^ flip[which], first_rows, axis=0)
                self.touched[which] += (best >= self.pairs.code[which]).sum(0)
                self.stretches[which] += len(spans)
            counts = np.array([len(marked[p].positions[number]) for p in with_it])
            usable = np.array([MIN_SHIFT * 2 < marked[p].length > c for p, c in zip(with_it, counts, strict=True)])
            if usable.any():
                first_rows = np.concatenate([[0], np.cumsum(counts)[:-1]])
                means = [
                    np.add.reduceat(one, first_rows, axis=0, dtype=np.float64)[usable] / counts[usable, None] / 255
                    for one in (real, shifted, again)
                ]
                for kind, other in ((0, means[0] - means[1]), (1, means[2] - means[1])):
                    bins = np.rint(other * DIFFERENCES).astype(np.int64) + DIFFERENCES  # (P, k)
                    np.add.at(self.differences[kind], (np.broadcast_to(which, bins.shape), bins), 1)

    def numbers(self, which: np.ndarray, group: str) -> dict[str, np.ndarray]:
        """All numbers of some pairs but those of the test: precision, recall, F1, IoU and AUROC."""
        neuron = np.searchsorted(self.neurons[group], self.pairs.neuron[which])
        total = self.all[group][neuron]
        total = np.where(self.pairs.sign[which, None] > 0, total, total[:, ::-1])
        positive, code = self.positive[which], self.pairs.code[which]
        fires = np.arange(256) >= code[:, None]
        hits, fired, n = (positive * fires).sum(1), (total * fires).sum(1), positive.sum(1)
        with np.errstate(invalid="ignore", divide="ignore"):
            recall = hits / n
            domain = np.where(self.stretches[which] > 0, self.touched[which] / self.stretches[which], recall)
        precision = hits / np.maximum(fired, 1)
        f1 = f1_score(precision, domain)
        return {
            "precision": precision, "recall": recall, "recall_domain": domain, "f1": f1,
            "f1_gain": f1_gain(f1, n / np.maximum(total.sum(1), 1)), "iou": hits / np.maximum(fired + n - hits, 1),
            "auroc": auroc_of_histograms(positive, total - positive),
            "null_auroc": auroc_of_histograms(self.shifted[which], total - self.shifted[which]),
        }  # fmt: skip


def offsets(protein: Protein, seed: int) -> tuple[int, int]:
    """Two different circular shifts of one protein's annotation, each at least :data:`MIN_SHIFT` from none."""
    rng = np.random.default_rng([seed, 11, zlib.crc32(protein.id.encode())])
    length = len(protein)
    if length <= 2 * MIN_SHIFT + 1:
        return length // 2, length // 2
    first, second = rng.choice(np.arange(MIN_SHIFT, length - MIN_SHIFT + 1), 2, replace=False)
    return int(first), int(second)


def shifted_marks(one: Marked, offset: int) -> Marked:
    """The same annotation, moved along the protein; what leaves it at one end comes in at the other."""
    return replace(one, positions={i: (where + offset) % one.length for i, where in one.positions.items()})


def permuted_marks(marks: Sequence[Marked], rng: np.random.Generator) -> list[Marked]:
    """What is known of whole proteins, dealt anew among proteins of which the same is known."""
    groups: dict[bytes, list[int]] = {}
    for row, one in enumerate(marks):
        groups.setdefault(one.known.tobytes(), []).append(row)
    dealt = list(marks)
    for rows in groups.values():
        for row, other in zip(rows, rng.permutation(rows), strict=True):
            dealt[row] = marks[other]
    return dealt


def association_table(
    pairs: Pairs, levels: Sequence[Confirmation], concepts: ConceptSet, codes: Sequence[Codes]
) -> pd.DataFrame:
    """One row a pair; ``control_p`` is the p value with shifted annotations, dropped later."""
    names = ("precision", "recall", "recall_domain", "f1", "f1_gain", "iou", "auroc", "null_auroc", "p_value",
             "control_p", "threshold", "n_clusters")  # fmt: skip
    columns = {name: np.full(len(pairs), np.nan) for name in names}
    for level, own, code in zip(("residue", "protein"), levels, codes, strict=True):
        for group in own.neurons:
            which = np.concatenate(
                [w for i, w in own.of.items() if concepts.concepts[i].group == group] or [np.zeros(0, np.int64)]
            )
            for name, values in own.numbers(which, group).items():
                columns[name][which] = values
            if level == "residue":
                columns["p_value"][which], columns["n_clusters"][which] = signed_rank_p(own.differences[0, which])
                columns["control_p"][which], _ = signed_rank_p(own.differences[1, which])
            else:
                neuron = np.searchsorted(own.neurons[group], pairs.neuron[which])
                total = own.all[group][neuron]
                total = np.where(pairs.sign[which, None] > 0, total, total[:, ::-1])
                columns["p_value"][which] = rank_sum_p(own.positive[which], total - own.positive[which])
                columns["control_p"][which] = rank_sum_p(own.shifted[which], total - own.shifted[which])
                columns["n_clusters"][which] = total.sum(1)
            columns["threshold"][which] = code.threshold(pairs.neuron[which], pairs.sign[which], pairs.code[which])
    names_of = np.array([c.name for c in concepts.concepts], dtype=object)
    return pd.DataFrame(
        {
            "position": pairs.neuron, "sign": pairs.sign.astype(np.int8), "rank": pairs.rank.astype(np.int16),
            "concept": names_of[pairs.concept], "discovery_f1": pairs.discovery_f1,
            "discovery_auroc": pairs.discovery_auroc, **columns,
            "n_clusters": np.nan_to_num(columns["n_clusters"]).astype(np.int64),
        }
    )  # fmt: skip
