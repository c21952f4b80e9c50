"""What a neuron knows: the concepts and motifs that it fires on, confirmed on held-out clusters.

::

    concepts.py             what may be known: letters, groups, patterns, sites, classes, terms
    patterns.py             sequence patterns in the syntax of PROSITE
    stream.py, codes.py     activations chunk by chunk, and as 256 ranks
    discovery.py            the best concepts of each neuron, on two thirds of the clusters
    confirmation.py         the same pairs on the other third, against shifted and permuted ones
    characterize.py         all of it in two passes (passes.py); saved.py keeps what a killed one has
    concept_neurons.py      turned around: the neurons that fire on a concept
    letters.py              how far a neuron is its own letter
    class_baselines.py      what length and composition alone reach for a class
    motifs.py, logo.py      windows around the highest peaks, and their picture
    masks.py, units.py      concepts and firing as bits, of the neurons that get formulas and sentences
    formulas.py             the formula over concepts that best says where a neuron fires
    sentences.py            a sentence a neuron, scored by what it predicts
    samples.py              activations of proteins and of residues, for probes
    maximised.py            what a neuron would like best: windows made by gradient
    residues.py             how far attributed residues are annotated sites
    cards.py, strips.py     one sentence a neuron, and the proteins in which it is strongest
    views.py                structures that cards show, and what neurons do along them
"""

from __future__ import annotations

from typing import Any

from plmscope.lazy import find

_HOME = {
    "Concept": "concepts",
    "ConceptSet": "concepts",
    "build_concepts": "concepts",
    "neuron_cards": "cards",
}

__all__ = list(_HOME)


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used."""
    return find(__name__, _HOME, name)


def __dir__() -> list[str]:
    """The public names."""
    return __all__
