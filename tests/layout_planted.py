"""The planted network as the tests of the layout use it: saved, loaded, with its means, and with a doubled neuron."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from plmscope.data.proteins import Protein
from plmscope.models.classifier import Classifier
from plmscope.models.loading import load_model
from plmscope.models.sites import Neuron, Site
from plmscope.scoring.activation import summarise_activations
from tests.planted import neurons_of, planted_model, planted_proteins, planted_tokenizer

#: The intermediate unit of layer 0 that a doubled network has beside the AND neuron, which is unit 0.
TWIN = 1


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


def planted_run(folder: Path, doubled: bool = False) -> PlantedRun:
    """The planted network; ``doubled``: its AND neuron is there twice, and one of them is enough for the decision."""
    model, roles = planted_model()
    if doubled:
        with torch.no_grad():
            first = model.esm.encoder.layer[0]
            for tensor in (first.intermediate.dense.weight, first.intermediate.dense.bias):
                tensor[TWIN] = tensor[0]
            first.output.dense.weight[:, TWIN] = first.output.dense.weight[:, 0]
    model.save_pretrained(folder)
    planted_tokenizer().save_pretrained(folder)
    classifier = load_model(folder)
    train = [Protein(f"train{p.id}", p.sequence, p.label) for p in planted_proteins(60, seed=0)]
    means = summarise_activations(classifier, train).constants("mean")
    return PlantedRun(classifier, roles, means, train, planted_proteins(40, seed=1))
