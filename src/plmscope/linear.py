"""Score neurons by one gradient: gradient times activation, and attribution patching.

With ``g = dF/da`` at the protein itself, and ``a~`` the activation on a corrupted copy of it::

    gradient_activation   =  sum over tokens of  g * a                 first-order effect of taking the neuron to zero
    attribution_patching  =  sum over tokens of  g * (a - a~)          ... of taking it to that of the corrupted copy

Positive: the neuron as it is speaks for the true class. Both cost one forward and one backward pass a protein
(patching: one forward pass more a copy) and are exact only where the network is linear between the two states; the
single-neuron ablation tells how far that goes.

A corruption keeps the length. ``conservative`` puts another residue in place of every one, drawn from those that
BLOSUM62 scores above zero for it (itself where there are none); ``shuffled`` permutes the residues.

Sources: attribution patching after Nanda (2023) and Syed et al., arXiv:2310.10348, with the sign turned so that higher
is more important; BLOSUM62 from Biopython.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import torch
from Bio.Align import substitution_matrices

from plmscope.errors import SelectionError
from plmscope.gradients import EMBEDDING, TARGETS, activations_and_gradients, check_request
from plmscope.hooked import AnyNetwork, network_of
from plmscope.model import Batch, Classifier
from plmscope.progress import Track, silent
from plmscope.scores import NeuronScores, class_weighted
from plmscope.sequences import AMINO_ACIDS, Protein
from plmscope.sites import MODULES, Site
from plmscope.workers import in_order

METHODS = ("gradient_activation",)
PATCHING_METHODS = ("attribution_patching",)
CORRUPTIONS = ("conservative", "shuffled")


def gradient_activation(
    classifier: Classifier,
    proteins: Sequence[Protein],
    *,
    target: str = "log_odds",
    token_budget: int = 4096,
    track: Track = silent,
) -> tuple[NeuronScores, ...]:
    """Gradient times activation of every neuron, summed over real tokens; conductance with a single state.

    Args:
        classifier: The model.
        proteins: With labels; each weighs 1 within its class, each class 1 in the total.
        target: ``log_odds``, ``logit`` or ``log_probability`` of the true class.
        token_budget: Padded tokens a batch.
        track: Progress.

    Raises:
        InputError: no proteins, or a label the model does not know.
        SelectionError: the target is not known.
    """
    rows = _rows(classifier, proteins, target, token_budget, track, [])
    return (_scores("gradient_activation", classifier, proteins, rows, {"target": target}),)


def attribution_patching(
    classifier: Classifier,
    proteins: Sequence[Protein],
    *,
    corruption: str = "conservative",
    copies: int = 2,
    seed: int = 0,
    target: str = "log_odds",
    token_budget: int = 4096,
    track: Track = silent,
) -> tuple[NeuronScores, ...]:
    """Attribution patching of every neuron against corrupted copies of the same length.

    Args:
        classifier: The model.
        proteins: With labels.
        corruption: ``conservative`` or ``shuffled``.
        copies: Corrupted copies a protein; their effects are averaged.
        seed: Seeds the corruptions.
        target: ``log_odds``, ``logit`` or ``log_probability`` of the true class.
        token_budget: Padded tokens a batch.
        track: Progress.

    Raises:
        InputError: no proteins, or a label the model does not know.
        SelectionError: a setting is impossible.
    """
    if corruption not in CORRUPTIONS or copies < 1:
        raise SelectionError(
            f"corruption {corruption!r}, copies {copies!r}: need {' or '.join(CORRUPTIONS)}, at least 1 copy"
        )
    others = [
        [replace(p, sequence=corrupted(p.sequence, corruption, (seed, copy, row))) for row, p in enumerate(proteins)]
        for copy in range(copies)
    ]
    rows = _rows(classifier, proteins, target, token_budget, track, others)
    settings = {"target": target, "corruption": corruption, "copies": copies, "seed": seed}
    return (_scores("attribution_patching", classifier, proteins, rows, settings),)


def corrupted(sequence: str, corruption: str, seed: Sequence[int]) -> str:
    """A sequence of the same length: the residues in another order, or every one replaced by a similar one."""
    rng = np.random.default_rng(list(seed))
    if corruption == "shuffled":
        return "".join(rng.permutation(list(sequence)))
    return "".join(str(rng.choice(list(_substitutes(letter)))) for letter in sequence)


@cache
def _substitutes(letter: str) -> str:
    """Other amino acids with a positive BLOSUM62 score; the letter itself where there are none."""
    matrices: Any = substitution_matrices
    matrix = matrices.load("BLOSUM62")
    if letter not in AMINO_ACIDS:
        return letter
    return "".join(other for other in AMINO_ACIDS if other != letter and matrix[letter, other] > 0) or letter


def _scores(
    method: str, classifier: Classifier, proteins: Sequence[Protein], rows: np.ndarray, settings: dict[str, object]
) -> NeuronScores:
    """Class-weighted scores of per-protein values ``(P, N)``."""
    ids = [protein.id for protein in proteins]
    return class_weighted(
        method, classifier.index, rows, classifier.targets(proteins), classifier.labels, ids, settings
    )


def _rows(
    classifier: Classifier,
    proteins: Sequence[Protein],
    target: str,
    token_budget: int,
    track: Track,
    others: Sequence[Sequence[Protein]],
) -> np.ndarray:
    """Token sums of ``g * (a - mean of a over the copies)``, ``(P, N)``; without copies of ``g * a``."""
    check_request(proteins, target)
    classes, index, network = classifier.targets(proteins), classifier.index, network_of(classifier)
    batches = list(classifier.batches(proteins, token_budget))

    def work(batch: Batch) -> tuple[Batch, np.ndarray]:
        wanted = torch.tensor(classes[batch.rows], device=classifier.device)
        hidden, context = network.embed(batch)
        found = activations_and_gradients(network, hidden, context, wanted, TARGETS[target])
        away: dict[Site, torch.Tensor] = {}
        for copy in others:
            twin = classifier.batch([copy[row] for row in batch.rows], batch.rows)
            for site, a in _activations(network, twin).items():
                away[site] = away.get(site, torch.zeros_like(a)) + a / len(others)
        found.pop(EMBEDDING)
        parts = [((a - away[site] if others else a) * g).sum(1) for site, (a, g) in found.items()]  # (B, N) each
        return batch, torch.cat(parts, 1).double().cpu().numpy()

    rows = np.zeros((len(proteins), len(index)), dtype=np.float32)
    for batch, values in track(in_order(work, batches, classifier.device), "one gradient", len(batches)):
        rows[batch.rows] = values
    return rows


@torch.no_grad()
def _activations(network: AnyNetwork, batch: Batch) -> dict[Site, torch.Tensor]:
    """Every site's activation ``(B, T, N)``."""
    hidden, context = network.embed(batch)
    found: dict[Site, torch.Tensor] = {}
    for number in range(len(network.layers)):
        state = network.state(number, hidden, context)
        found |= {Site(number, module): state.activations[module] for module in MODULES}
        hidden = network.after(state)
    return found
