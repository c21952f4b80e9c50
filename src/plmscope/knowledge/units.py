"""Both sides of the clusters as bits, and the highest peaks of every unit: one pass over each side.

A *unit* is a neuron and a sign: the first half of all rows are high sides, the second low sides. It fires where its
activation is among the highest ``share`` of residues; one of few values that has none as rare, at its highest value.
What is read from the model is one byte a residue and neuron; it is kept now and then, so that a killed run reads on.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from plmscope.data.proteins import Protein
from plmscope.knowledge.codes import Codes, firing_codes
from plmscope.knowledge.concepts import ConceptSet
from plmscope.knowledge.confirmation import offsets
from plmscope.knowledge.masks import Atoms, Bits, Side
from plmscope.knowledge.motifs import TopWindows
from plmscope.knowledge.saved import PEAKS, Saved, arrays_of, put_back
from plmscope.knowledge.stream import Chunk, Stream, by_protein, of_both_signs, stream_of
from plmscope.models.classifier import Classifier
from plmscope.progress import Track, silent
from plmscope.store.resume import Parts

#: Proteins and residues of each that the thresholds come from.
SAMPLE_PROTEINS, SAMPLE_RESIDUES = 512, 400
#: Share of residues that a neuron of few values may fire at, at most, and that of an exemplar's mask.
USUAL, MASKED = 0.2, 0.01


@dataclass(frozen=True)
class Units:
    """What formulas and sentences need.

    Attributes:
        neurons: ``(K,)`` positions; unit ``u`` is neuron ``u % K``, its low side from ``K`` on.
        atoms: What the rows of ``Side.atoms`` are.
        discovery, confirmation: The sides.
        share: Of residues where a unit fires.
        peaks: ``(2 K, E)`` protein (-1: none) and residue of the highest peaks on discovery proteins.
    """

    neurons: np.ndarray
    atoms: Atoms
    discovery: Side
    confirmation: Side
    share: float
    peaks: tuple[np.ndarray, np.ndarray]

    def codes(self, side: Side, unit: int) -> np.ndarray:
        """``(R,)`` ranks of a unit's activation in 256 levels, high where it fires."""
        own = side.codes[:, unit % len(self.neurons)]
        return own if unit < len(self.neurons) else 255 - own


def read_units(
    classifier: Classifier,
    neurons: np.ndarray,
    discovery: Sequence[Protein],
    confirmation: Sequence[Protein],
    concepts: ConceptSet,
    *,
    share: float = 0.005,
    exemplars: int = 15,
    seed: int = 0,
    token_budget: int = 2048,
    track: Track = silent,
    parts: Parts | None = None,
) -> Units:
    """Read both sides once.

    Args:
        classifier: The model.
        neurons: ``(K,)`` positions in its flat index.
        discovery: One protein a cluster; see :func:`~plmscope.knowledge.masks.at_most`.
        confirmation: The same of held-out clusters.
        concepts: What formulas and sentences are made of.
        share: Of residues where a unit fires.
        exemplars: Peaks of every unit, one a protein.
        seed: Of the sample and of the shifts.
        token_budget: Padded tokens a batch.
        track: Progress.
        parts: Where the passes keep what they have read, now and then, and continue after a kill.

    Raises:
        RunError: the disk is full.
    """
    index, saved = classifier.index, Saved(parts, "units")
    held = [site for site in index.sites if np.isin(np.arange(len(index))[index.slice(site)], neurons).any()]
    places = np.concatenate([np.arange(len(index))[index.slice(site)] for site in held])
    columns = torch.from_numpy(np.searchsorted(places, neurons))
    every = stream_of(classifier, held, token_budget, track)

    def stream(proteins: Sequence[Protein], description: str) -> Iterator[Chunk]:
        for chunk in every(proteins, description):
            yield replace(chunk, values=chunk.values[:, columns.to(chunk.values.device)])

    codes_of = _fitted(stream, discovery, [share, USUAL, MASKED], seed, saved, classifier.device)
    rare, usual = (int(code) for code in firing_codes([share, USUAL, MASKED])[:2])
    high = np.clip(codes_of.highest.astype(int), usual, rare)
    low = 255 - np.clip(255 - codes_of.lowest.astype(int), usual, rare)
    atoms = Atoms.of(concepts)
    windows = TopWindows(2 * len(neurons), exemplars)
    sides = []
    for proteins, what in ((discovery, "discovering"), (confirmation, "confirming")):
        codes = _read(stream, proteins, what, codes_of, windows if proteins is discovery else None, saved)
        sides.append(_side(proteins, codes, atoms, concepts, (high, low), seed))
    return Units(neurons, atoms, sides[0], sides[1], share, (windows.protein, windows.position))


def _fitted(
    stream: Stream,
    discovery: Sequence[Protein],
    shares: Sequence[float],
    seed: int,
    saved: Saved,
    device: torch.device,
) -> Codes:
    """Ranks of every neuron, from a sample of the discovery proteins."""
    if (before := saved.read("codes")) is not None:
        return Codes.of(before, "", device)
    rng = np.random.default_rng([seed, 42])
    some = [discovery[row] for row in np.sort(rng.permutation(len(discovery))[:SAMPLE_PROTEINS])]
    sample = []
    for chunk in stream(some, "sampling activations"):
        for part in by_protein(chunk):
            rows = np.sort(rng.permutation(len(part))[:SAMPLE_RESIDUES])
            sample.append(part[torch.from_numpy(rows).to(part.device)])
    fitted = Codes.fit(torch.cat(sample), shares)
    saved.write("codes", lambda: fitted.arrays(""))
    return fitted


def _read(
    stream: Stream,
    proteins: Sequence[Protein],
    what: str,
    codes_of: Codes,
    windows: TopWindows | None,
    saved: Saved,
) -> np.ndarray:
    """``(R, K)`` ranks of a side; the highest peaks go into ``windows``."""
    starts = np.concatenate([[0], np.cumsum([len(protein) for protein in proteins])])
    found = np.zeros((int(starts[-1]), len(codes_of.lowest)), np.uint8)
    done = np.zeros(len(proteins), bool)

    def state() -> dict[str, np.ndarray]:
        if windows is not None:
            windows.settle()
        return {"found": found, "done": done} | (arrays_of(windows, PEAKS) if windows is not None else {})

    if (before := saved.read(what)) is not None:
        found, done = before["found"], before["done"]
        if windows is not None:
            put_back(windows, PEAKS, before)
    if done.all():
        return found
    for chunk in saved.rest(stream, proteins, what, done, state):
        own, start = codes_of(chunk.values), 0
        for row, length in zip(chunk.rows, chunk.lengths, strict=True):
            found[starts[row] : starts[row + 1]] = own[start : start + length]
            start += length
        if windows is not None:
            windows.add(of_both_signs(chunk, np.arange(found.shape[1])), chunk.rows, chunk.lengths)
    if windows is not None:
        windows.settle()
    saved.write(what, state)
    return found


def _side(
    proteins: Sequence[Protein],
    codes: np.ndarray,
    atoms: Atoms,
    concepts: ConceptSet,
    firing: tuple[np.ndarray, np.ndarray],
    seed: int,
) -> Side:
    """Bits of a side: what atoms mark, and where units fire, from ranks ``(R, K)`` and the ranks that fire."""
    bits = Bits([len(protein) for protein in proteins])
    marks = bits.empty(len(atoms))
    fires, shifted = bits.empty(2 * codes.shape[1]), bits.empty(2 * codes.shape[1])
    start = 0
    for row, protein in enumerate(proteins):
        own = codes[start : start + len(protein)]
        start += len(protein)
        on = np.concatenate([own >= firing[0], own <= firing[1]], axis=1).T
        bits.put(marks, row, atoms.mark(concepts, protein))
        bits.put(fires, row, on)
        bits.put(shifted, row, np.roll(on, offsets(protein, seed)[0], axis=1))
    return Side(proteins, bits, marks, fires, shifted, codes)
