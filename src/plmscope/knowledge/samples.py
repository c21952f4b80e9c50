"""Samples of probes: mean activations of proteins, and activations of some of their residues.

One pass a group of sites. Memory is ``(P + M) x N`` float32: 69 MB for 1,000 proteins and 17,280 neurons, as much again
for 1,000 residues. What has been read is kept now and then, so that a killed run reads on.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from plmscope.data.proteins import Protein
from plmscope.knowledge.characterize import NEURONS_AT_ONCE
from plmscope.knowledge.saved import Saved
from plmscope.knowledge.stream import by_protein, protein_means, stream_of
from plmscope.models.classifier import Classifier
from plmscope.progress import Track, silent
from plmscope.store.resume import Parts


def read_samples(
    classifier: Classifier,
    proteins: Sequence[Protein],
    residues: Sequence[np.ndarray],
    *,
    token_budget: int = 2048,
    track: Track = silent,
    parts: Parts | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """``(P, N)`` means over the residues of each protein, and ``(M, N)`` activations of some residues.

    Args:
        classifier: The model.
        proteins: Whose means are wanted.
        residues: 0-based residues of each that are wanted too, in this order.
        token_budget: Padded tokens a batch.
        track: Progress.
        parts: Where what was read is kept.

    Raises:
        RunError: the disk is full.
    """
    starts = np.concatenate([[0], np.cumsum([len(one) for one in residues])]).astype(np.int64)
    means, rows = [], []
    for number, sites in enumerate(classifier.index.groups(NEURONS_AT_ONCE)):
        n = sum(classifier.index.slice(site).stop - classifier.index.slice(site).start for site in sites)
        own = {
            "means": np.zeros((len(proteins), n), np.float32), "rows": np.zeros((int(starts[-1]), n), np.float32),
            "done": np.zeros(len(proteins), bool),
        }  # fmt: skip
        saved = Saved(parts, f"samples-{number}")
        own |= saved.read("reading") or {}
        if not own["done"].all():
            stream = stream_of(classifier, sites, token_budget, track)
            for chunk in saved.rest(stream, proteins, "reading", own["done"], own.copy):
                own["means"][chunk.rows] = protein_means(chunk).cpu().numpy()
                for row, values in zip(chunk.rows, by_protein(chunk), strict=True):
                    wanted = torch.from_numpy(residues[row]).to(values.device)
                    own["rows"][starts[row] : starts[row + 1]] = values[wanted].cpu().numpy()
            saved.write("reading", own.copy)
        means.append(own["means"])
        rows.append(own["rows"])
    return np.concatenate(means, axis=1), np.concatenate(rows, axis=1)
