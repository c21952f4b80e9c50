"""Turned around: the neurons that fire on a concept, best first.

For every concept and sign, over all neurons and shares at which they may fire, by intersection over union::

    IoU = |fires and concept| / (|fires| + |concept| - |fires and concept|)

The best 20 neurons and the share of each are chosen on discovery clusters; the IoU of the same neuron at the same
threshold on held-out clusters stands beside it, with the share of the concept that it catches and of its firing that is
the concept. Residues (or proteins) where nothing is known of the concept are not counted.

Source: network dissection (Bau et al. 2017) and NeuroX's IoU scorer. Departs: the share at which a neuron fires is
chosen from several, since one of 0.005 cannot cover a concept of 7 % of residues; both signs; held-out clusters.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from plmscope.knowledge.concepts import ConceptSet
from plmscope.knowledge.discovery import Counts, Marked

#: Neurons of a concept and sign.
MOST = 20
BLOCK = 2048
#: What is chosen on discovery clusters, and what is counted on others.
CHOSEN = ("neuron", "sign", "concept", "rank", "code", "discovery_iou")
COUNTED = ("hits", "fired", "positives")


def best_neurons(counts: Counts, eligible: Sequence[int], most: int = MOST) -> dict[str, np.ndarray]:
    """The best neurons of every eligible concept of one level, both signs: arrays by the names of :data:`CHOSEN`."""
    found: dict[str, list[np.ndarray]] = {name: [] for name in CHOSEN}
    shares = len(counts.codes)
    wanted = set(eligible)
    for number in counts.numbers:
        positives = counts.positives[number]
        if number not in wanted or not positives:
            continue
        own = counts.summed.get(number, [number])
        hits = np.sum([counts.hits[one] for one in own], axis=0, dtype=np.int64)  # (L, N)
        fired = counts.fired[counts.concepts.concepts[number].group]
        iou = (hits / np.maximum(fired + positives - hits, 1)).reshape(2, shares, -1)
        share = iou.argmax(1)
        best = np.take_along_axis(iou, share[:, None], 1)[:, 0]  # (2, N)
        for side, sign in enumerate((1, -1)):
            order = np.argsort(-best[side], kind="stable")[:most]
            order = order[best[side, order] > 0]
            n = len(order)
            for name, values in (
                ("neuron", order), ("sign", np.full(n, sign)), ("concept", np.full(n, number)),
                ("rank", np.arange(1, n + 1)), ("code", counts.codes[share[side, order]]),
                ("discovery_iou", best[side, order]),
            ):  # fmt: skip
                found[name].append(values)
    return {name: np.concatenate(parts) if parts else np.zeros(0, np.int64) for name, parts in found.items()}


class ConceptNeurons:
    """Chosen pairs of one level on held-out clusters.

    Attributes:
        hits, fired, positives: ``(K,)`` held-out rows where the neuron fires on the concept, fires, and that it marks.
    """

    def __init__(self, chosen: dict[str, np.ndarray], concepts: ConceptSet) -> None:
        self.concepts = concepts
        self.neuron, self.sign, self.concept, self.rank, self.code, self.discovery_iou = (
            chosen[name] for name in CHOSEN
        )
        self.of = {int(i): np.flatnonzero(self.concept == i) for i in np.unique(self.concept)}
        self.flip = np.where(self.sign > 0, 0, 255).astype(np.uint8)
        self.hits, self.fired, self.positives = np.zeros((3, len(self.concept)), np.int64)

    def add(self, codes: np.ndarray, marked: Sequence[Marked]) -> None:
        """Count one chunk: codes ``(R, N)`` of the rows of some proteins."""
        starts = np.concatenate([[0], np.cumsum([one.length for one in marked])])
        for number, which in self.of.items():
            known = np.repeat([bool(one.known[number]) for one in marked], np.diff(starts))
            if not known.any():
                continue
            on = (codes[:, self.neuron[which]] ^ self.flip[which]) >= self.code[which]
            self.fired[which] += on[known].sum(0) if not known.all() else on.sum(0)
            rows = [one.positions[number] + a for one, a in zip(marked, starts, strict=False)
                    if number in one.positions]  # fmt: skip
            if rows:
                where = np.concatenate(rows)
                self.hits[which] += on[where].sum(0)
                self.positives[which] += len(where)

    def table(self) -> pd.DataFrame:
        """``concept, position, sign, rank, discovery_iou, iou, precision, recall``; numbers without any are NaN."""
        with np.errstate(invalid="ignore", divide="ignore"):
            iou = self.hits / (self.fired + self.positives - self.hits)
            precision, recall = self.hits / self.fired, self.hits / self.positives
        names = np.array([c.name for c in self.concepts.concepts], dtype=object)
        return pd.DataFrame(
            {
                "concept": names[self.concept.astype(int)], "position": self.neuron, "sign": self.sign.astype(np.int8),
                "rank": self.rank.astype(np.int16), "discovery_iou": self.discovery_iou, "iou": iou,
                "precision": precision, "recall": recall,
            }
        )  # fmt: skip


def best_of_all(parts: Sequence[pd.DataFrame], most: int = MOST) -> pd.DataFrame:
    """Tables of several groups of neurons as one, the best of each concept and sign."""
    frame = pd.concat(parts, ignore_index=True)
    order = ["discovery_iou"]
    frame = frame.sort_values(order, ascending=False, kind="stable")
    frame["rank"] = (frame.groupby(["concept", "sign"], sort=False).cumcount() + 1).astype(np.int16)
    frame = frame[frame["rank"] <= most]
    return frame.sort_values(["concept", "sign", "rank"], ascending=[True, False, True], ignore_index=True)
