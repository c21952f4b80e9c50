"""Activations of chosen sites, a few proteins at a time, so that memory does not grow with their number."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from plmscope.data.proteins import Protein
from plmscope.models.classifier import Batch, Classifier
from plmscope.models.hooks import record
from plmscope.models.sites import Site
from plmscope.models.workers import splitting
from plmscope.progress import Track, silent


@dataclass(frozen=True)
class Chunk:
    """Activations of some proteins.

    Attributes:
        rows: Which proteins, as positions in the sequence that was streamed.
        lengths: Residues of each.
        values: ``(R, N)`` activations at their residues, one protein after the other.
    """

    rows: list[int]
    lengths: list[int]
    values: torch.Tensor


#: Gives the activations of proteins, some at a time; of the same neurons every time it is called.
Stream = Callable[[Sequence[Protein], str], Iterator[Chunk]]


def stream_of(classifier: Classifier, sites: Sequence[Site], token_budget: int = 2048, track: Track = silent) -> Stream:
    """Activations of some sites, side by side, at residues only."""

    @torch.inference_mode()
    def stream(proteins: Sequence[Protein], description: str) -> Iterator[Chunk]:
        batches = classifier.batches(proteins, token_budget)

        def work(batch: Batch, _: int) -> Chunk:
            seen.clear()
            classifier.model(input_ids=batch.input_ids, attention_mask=batch.attention_mask)
            lengths = [len(proteins[row]) for row in batch.rows]
            shape = sum(lengths), sum(seen[site].shape[2] for site in sites)
            values = torch.empty(shape, device=seen[sites[0]].device)  # (R, N)
            first = 0
            for site in sites:
                own, start = seen.pop(site), 0
                for row, length in enumerate(lengths):  # its residues lie behind the first token
                    values[start : start + length, first : first + own.shape[2]] = own[row, 1 : length + 1]
                    start += length
                first += own.shape[2]
            return Chunk(batch.rows, lengths, values)

        with record(classifier, sites) as seen:
            for batch in track(batches, description, len(batches)):
                yield from splitting(work, 0)(batch)

    return stream


def protein_means(chunk: Chunk) -> torch.Tensor:
    """``(P, N)`` mean activation over the residues of each protein."""
    return torch.stack([part.mean(0) for part in by_protein(chunk)])


def by_protein(chunk: Chunk) -> tuple[torch.Tensor, ...]:
    """``(R_p, N)`` of every protein."""
    parts: tuple[torch.Tensor, ...] = torch.split(chunk.values, chunk.lengths)
    return parts


def of_both_signs(chunk: Chunk, chosen: np.ndarray) -> np.ndarray:
    """``(R, 2 K)`` activations of some neurons, then the same with the other sign."""
    values = chunk.values[:, torch.from_numpy(chosen).to(chunk.values.device)].cpu().numpy()
    return np.concatenate([values, -values], axis=1)
