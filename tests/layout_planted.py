"""The planted network as the tests of the layout use it: saved, loaded, with its means; doubled, or with a marker."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from plmscope.data.proteins import Protein
from plmscope.models.classifier import Classifier
from plmscope.models.loading import load_model
from plmscope.models.sites import Neuron, Site
from plmscope.scoring.activation import summarise_activations
from tests.planted import (
    FILLER,
    HIDDEN,
    MOTIF,
    SIZE,
    TOKEN_DROPOUT,
    VOCABULARY,
    C,
    neurons_of,
    planted_model,
    planted_proteins,
    planted_tokenizer,
)

#: Intermediate units of layer 0 beside the AND neuron, which is unit 0: its twin in a doubled network, and the marker.
TWIN, MARKER = 1, 2
#: How much of a C the letter U is, and what the marker writes of the motif.
WEAK, MARKS = 0.62, 0.4


@dataclass(frozen=True)
class PlantedRun:
    """A planted network with what a run knows of it."""

    model: Classifier
    roles: dict[str, list[Neuron]]
    means: np.ndarray
    train: list[Protein]
    test: list[Protein]

    def positions(self, *names: str) -> list[int]:
        """Positions of the neurons of some roles in a flat array."""
        return [self.model.index.position(neuron) for neuron in neurons_of(self.roles, names)]

    @property
    def pair(self) -> tuple[int, int]:
        """Positions of the AND neuron and its twin."""
        first, other = (self.model.index.position(Neuron(Site(0, "intermediate"), n)) for n in (0, TWIN))
        return first, other

    @property
    def marker(self) -> int:
        """Position of the marker neuron."""
        return self.model.index.position(Neuron(Site(0, "intermediate"), MARKER))


def in_taxon_a(proteins: list[Protein]) -> list[Protein]:
    """The same proteins with U in place of C."""
    return [replace(p, id=f"{p.id}A", sequence=p.sequence.replace("C", "U")) for p in proteins]


def _add_marker(model: Any) -> None:
    """U is a weak C, for which the AND neuron writes too little of the motif; the marker reads U and writes the rest.

    Neither is enough by itself. A code of the token's own is what the marker reads.
    """
    table, first = model.esm.embeddings.word_embeddings.weight, model.esm.encoder.layer[0]
    row = table[VOCABULARY.index("U")] * TOKEN_DROPOUT
    row[2 * FILLER : 2 * FILLER + 2] = 0
    row *= math.sqrt(HIDDEN - 2 * (WEAK * SIZE) ** 2) / row.norm()  # (64,) the code, so that LayerNorm changes nothing
    first.intermediate.dense.weight[MARKER], first.intermediate.dense.bias[MARKER] = 12 * row / row.norm() ** 2, -8
    first.output.dense.weight[:, MARKER] = 0
    first.output.dense.weight[2 * MOTIF : 2 * MOTIF + 2, MARKER] = torch.tensor([MARKS, -MARKS])
    row[2 * C : 2 * C + 2] = WEAK * SIZE * torch.tensor([1.0, -1.0])
    table[VOCABULARY.index("U")] = row / TOKEN_DROPOUT


def planted_run(folder: Path, doubled: bool = False, marked: bool = False) -> PlantedRun:
    """The planted network.

    Args:
        folder: Where it is saved.
        doubled: Its AND neuron is there twice, and one of them is enough for the decision.
        marked: Half of the proteins are of taxon A, which writes U for C, and needs a marker neuron beside the AND.
    """
    model, roles = planted_model()
    if doubled:
        with torch.no_grad():
            first = model.esm.encoder.layer[0]
            for tensor in (first.intermediate.dense.weight, first.intermediate.dense.bias):
                tensor[TWIN] = tensor[0]
            first.output.dense.weight[:, TWIN] = first.output.dense.weight[:, 0]
    if marked:
        with torch.no_grad():
            _add_marker(model)
    model.save_pretrained(folder)
    planted_tokenizer().save_pretrained(folder)
    classifier = load_model(folder)
    train = [Protein(f"train{p.id}", p.sequence, p.label) for p in planted_proteins(60, seed=0)]
    test = planted_proteins(40, seed=1)
    if marked:
        train, test = train + in_taxon_a(train), test + in_taxon_a(test)
    means = summarise_activations(classifier, train).constants("mean")
    return PlantedRun(classifier, roles, means, train, test)
