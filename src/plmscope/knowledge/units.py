"""Both sides of the clusters as bits, and the highest peaks of every unit: one pass over each side.

A *unit* is a neuron and a sign: the first half of all rows are high sides, the second low sides. It fires where its
activation is among the highest ``share`` of residues; one of few values that has none as rare, at its highest value.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from plmscope.data.proteins import Protein
from plmscope.knowledge.codes import Codes, firing_codes
from plmscope.knowledge.concepts import ConceptSet
from plmscope.knowledge.confirmation import offsets
from plmscope.knowledge.masks import Atoms, Bits, Side
from plmscope.knowledge.motifs import TopWindows
from plmscope.knowledge.stream import Chunk, by_protein, of_both_signs, stream_of
from plmscope.models.classifier import Classifier
from plmscope.progress import Track, silent

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
    """
    index = classifier.index
    held = [site for site in index.sites if np.isin(np.arange(len(index))[index.slice(site)], neurons).any()]
    places = np.concatenate([np.arange(len(index))[index.slice(site)] for site in held])
    columns = torch.from_numpy(np.searchsorted(places, neurons))
    stream = stream_of(classifier, held, token_budget, track)
    rng = np.random.default_rng([seed, 42])
    some = [discovery[row] for row in np.sort(rng.permutation(len(discovery))[:SAMPLE_PROTEINS])]
    sample = []
    for chunk in stream(some, "sampling activations"):
        for part in by_protein(chunk):
            rows = np.sort(rng.permutation(len(part))[:SAMPLE_RESIDUES])
            sample.append(part[torch.from_numpy(rows).to(part.device)][:, columns.to(part.device)])
    codes_of = Codes.fit(torch.cat(sample), [share, USUAL, MASKED])
    rare, usual = (int(code) for code in firing_codes([share, USUAL, MASKED])[:2])
    high = np.clip(codes_of.highest.astype(int), usual, rare)
    low = 255 - np.clip(255 - codes_of.lowest.astype(int), usual, rare)
    atoms = Atoms.of(concepts)
    windows = TopWindows(2 * len(neurons), exemplars)
    sides = []
    for proteins, name in ((discovery, "firing, to discover"), (confirmation, "firing, to confirm")):
        bits = Bits([len(protein) for protein in proteins])
        marks = bits.empty(len(atoms))
        fires, shifted = bits.empty(2 * len(neurons)), bits.empty(2 * len(neurons))
        starts = np.concatenate([[0], np.cumsum(bits.lengths)])
        codes = np.zeros((int(starts[-1]), len(neurons)), np.uint8)
        for chunk in stream(proteins, name):
            values = chunk.values[:, columns.to(chunk.values.device)]
            found, start = codes_of(values), 0
            for row, length in zip(chunk.rows, chunk.lengths, strict=True):
                own = found[start : start + length]
                start += length
                codes[starts[row] : starts[row + 1]] = own
                on = np.concatenate([own >= high, own <= low], axis=1).T
                bits.put(marks, row, atoms.mark(concepts, proteins[row]))
                bits.put(fires, row, on)
                bits.put(shifted, row, np.roll(on, offsets(proteins[row], seed)[0], axis=1))
            if proteins is discovery:
                chosen = Chunk(chunk.rows, chunk.lengths, values)
                windows.add(of_both_signs(chosen, np.arange(len(neurons))), chunk.rows, chunk.lengths)
        sides.append(Side(proteins, bits, marks, fires, shifted, codes))
    windows.settle()
    return Units(neurons, atoms, sides[0], sides[1], share, (windows.protein, windows.position))
