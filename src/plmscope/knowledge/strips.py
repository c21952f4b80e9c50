"""The proteins in which a neuron is strongest: a strip around the peak, with the sites and patterns in it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from plmscope.data.proteins import Protein
from plmscope.data.structure_features import TYPES
from plmscope.knowledge.concepts import ConceptSet
from plmscope.knowledge.motifs import STRIP, Motifs

#: Peaks listed on a card.
TOP_PROTEINS = 5


#: Kinds of concepts that are marked on their strips.
MARKED = ("feature", "pattern")


#: Peaks are equally high if they differ by at most this share.
TIED = 1e-3


class MarkedSites:
    """Annotated residues and pattern matches of proteins, read once for each that is asked."""

    def __init__(self, proteins: Sequence[Protein], concepts: ConceptSet) -> None:
        self.proteins, self.concepts = proteins, concepts
        # What structures say is true of nearly every residue, and the card has the structure itself.
        self.told = [
            i for i, concept in enumerate(concepts.concepts) if concept.kind in MARKED and concept.name not in TYPES
        ]
        self._of: dict[int, list[tuple[int, str]]] = {}

    def between(self, number: int, start: int, stop: int) -> list[tuple[int, str]]:
        """Residues (1-based) of a protein from 0-based ``start`` on, before ``stop``, and what each is part of."""
        if number not in self._of:
            positions = self.concepts.annotate(self.proteins[number]).positions
            self._of[number] = sorted(
                (residue + 1, self.concepts.concepts[i].name)
                for i in self.told
                for residue in positions.get(i, np.zeros(0, np.int64)).tolist()
            )
        return [(residue, name) for residue, name in self._of[number] if start < residue <= stop]


def top_proteins(
    motifs: Motifs, row: int, sign: int, proteins: Sequence[Protein], sites_of: MarkedSites
) -> list[dict[str, object]]:
    """The highest peaks with activation and sites around them; sign -1: the lowest."""
    strips = []
    for k in range(min(TOP_PROTEINS, motifs.windows.value.shape[1])):
        number = int(motifs.windows.protein[row, k])
        if number < 0:
            break
        protein, position = proteins[number], int(motifs.windows.position[row, k])
        start, stop = max(0, position - STRIP), min(len(protein), position + STRIP + 1)
        strip = motifs.windows.strip[row, k, start - position + STRIP : stop - position + STRIP]
        strips.append(
            {
                "id": protein.id, "position": position + 1, "start": start + 1,
                "sequence": protein.sequence[start:stop],
                "activation": [round(sign * float(value), 3) for value in strip],
                "sites": sites_of.between(number, start, stop),
            }
        )  # fmt: skip
    return strips
