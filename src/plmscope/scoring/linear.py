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

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from functools import cache
from typing import Any
from zlib import crc32

import numpy as np
import torch
from Bio.Align import substitution_matrices

from plmscope.data.proteins import AMINO_ACIDS, Protein
from plmscope.errors import SelectionError
from plmscope.models.architectures import MODULES
from plmscope.models.classifier import Batch, Classifier
from plmscope.models.hooked import network_of
from plmscope.models.network import Network, at_tokens
from plmscope.models.sites import Site
from plmscope.models.workers import fitting_budget
from plmscope.progress import Track, silent
from plmscope.scoring.driver import Drive, Given
from plmscope.scoring.paths import activations_and_gradients, bytes_per_token
from plmscope.scoring.scores import NeuronScores
from plmscope.scoring.table import forms_of
from plmscope.scoring.targets import Request, request

METHODS = forms_of("gradient_activation")
PATCHING_METHODS = forms_of("attribution_patching")
CORRUPTIONS = ("conservative", "shuffled")


def gradient_activation(
    classifier: Classifier,
    proteins: Sequence[Protein],
    *,
    baseline: np.ndarray | None = None,
    target: str = "log_odds",
    token_budget: int = 4096,
    groups: Sequence[str] | None = None,
    rms: bool = False,
    track: Track = silent,
) -> tuple[NeuronScores, ...]:
    """Gradient times activation of every neuron, summed over real tokens; conductance with a single state.

    Args:
        classifier: The model.
        proteins: With labels; each weighs 1 within its class, each class 1 in the total.
        baseline: ``None`` for zero, or ``(3, N)`` values at the first token, the last token and residues, such as the
            ablation means: gradient times ``activation - baseline``, the first-order effect of holding it there.
        target: ``log_odds``, ``logit`` or ``log_probability`` of the true class.
        token_budget: Padded tokens a batch; 0: by free memory.
        groups: Group of each protein for bootstraps, from :func:`~plmscope.scoring.scores.resampling_groups`.
        rms: Also the root mean square over proteins.
        track: Progress.

    Returns:
        ``gradient_activation``, ``gradient_activation_abs`` (absolute token sums per protein) and, if asked for,
        ``gradient_activation_rms``.

    Raises:
        InputError: no proteins, or a label the model does not know.
        SelectionError: the target is not known.
    """
    asked = request(classifier, proteins, target, groups)
    settings = {"target": target, "baseline": "zero" if baseline is None else "mean"}
    return _scores(METHODS[0], classifier, asked, token_budget, track, [], settings, rms, baseline)


def attribution_patching(
    classifier: Classifier,
    proteins: Sequence[Protein],
    *,
    corruption: str = "conservative",
    copies: int = 2,
    seed: int = 0,
    target: str = "log_odds",
    token_budget: int = 4096,
    groups: Sequence[str] | None = None,
    rms: bool = False,
    track: Track = silent,
) -> tuple[NeuronScores, ...]:
    """Attribution patching of every neuron against corrupted copies of the same length.

    Args:
        classifier: The model.
        proteins: With labels.
        corruption: ``conservative`` or ``shuffled``.
        copies: Corrupted copies a protein; their effects are averaged.
        seed: Seeds the corruptions, with the protein's id: they do not depend on the other proteins.
        target: ``log_odds``, ``logit`` or ``log_probability`` of the true class.
        token_budget: Padded tokens a batch; 0: by free memory.
        groups: Group of each protein for bootstraps, from :func:`~plmscope.scoring.scores.resampling_groups`.
        rms: Also the root mean square over proteins.
        track: Progress.

    Returns:
        ``attribution_patching``, ``attribution_patching_abs`` (absolute token sums per protein) and, if asked for,
        ``attribution_patching_rms``.

    Raises:
        InputError: no proteins, or a label the model does not know.
        SelectionError: a setting is impossible.
    """
    return patched(
        PATCHING_METHODS[0], classifier, proteins, corruption, copies, seed, target, token_budget, groups, rms, track
    )


def patched(
    method: str,
    classifier: Classifier,
    proteins: Sequence[Protein],
    corruption: str,
    copies: int,
    seed: int,
    target: str,
    token_budget: int,
    groups: Sequence[str] | None,
    rms: bool,
    track: Track,
    within: Callable[[], AbstractContextManager[Any]] = nullcontext,
    stopped: Callable[[Site], bool] = lambda site: False,
) -> tuple[NeuronScores, ...]:
    """Scores from token sums of ``g * (a - mean of a over corrupted copies)``; arguments as of those who call it.

    Args:
        method: Name of the scores.
        classifier: The model.
        proteins: With labels.
        corruption: Of :data:`CORRUPTIONS`.
        copies: A protein.
        seed: Of the corruptions.
        target: What the gradient is of.
        token_budget: Padded tokens a batch; 0: by free memory.
        groups: For bootstraps.
        rms: Also the root mean square.
        track: Progress.
        within: A context in which the gradients are taken.
        stopped: Sites below which no gradient goes.

    Raises:
        SelectionError: a setting is impossible.
    """
    if corruption not in CORRUPTIONS or copies < 1:
        raise SelectionError(
            f"corruption {corruption!r}, copies {copies!r}: need {' or '.join(CORRUPTIONS)}, at least 1 copy"
        )
    asked = request(classifier, proteins, target, groups)
    others = [
        [
            replace(p, sequence=corrupted(p.sequence, corruption, (seed, copy, crc32(p.id.encode()))))
            for p in asked.proteins
        ]
        for copy in range(copies)
    ]
    settings = {"target": target, "corruption": corruption, "copies": copies, "seed": seed}
    return _scores(
        method, classifier, asked, token_budget, track, others, settings, rms, within=within, stopped=stopped
    )


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
    method: str,
    classifier: Classifier,
    asked: Request,
    token_budget: int,
    track: Track,
    others: Sequence[Sequence[Protein]],
    settings: dict[str, Any],
    rms: bool,
    baseline: np.ndarray | None = None,
    within: Callable[[], AbstractContextManager[Any]] = nullcontext,
    stopped: Callable[[Site], bool] = lambda site: False,
) -> tuple[NeuronScores, ...]:
    """Scores from token sums of ``g * (a - mean of a over the copies)``; without copies of ``g * (a - baseline)``."""
    network = network_of(classifier)
    budget = fitting_budget(token_budget, classifier.device, bytes_per_token(classifier))
    base = None if baseline is None else torch.tensor(baseline, dtype=torch.float32, device=classifier.device)
    slices = {site: classifier.index.slice(site) for site in classifier.index.sites}

    def work(batch: Batch, wanted: torch.Tensor, _: int) -> Given:
        hidden, context = network.embed(batch)
        away: dict[Site, torch.Tensor] = {}
        for copy in others:
            twin = classifier.batch([copy[row] for row in batch.rows], batch.rows)
            for site, a in _activations(network, twin).items():
                away[site] = away.get(site, torch.zeros_like(a)) + a / len(others)
        sums: dict[Site, torch.Tensor] = {}

        def visit(site: Site, a: torch.Tensor, g: torch.Tensor) -> None:
            if base is not None and site in slices:
                a = a.float() - at_tokens(base[:, slices[site]], a.float(), context)
            sums[site] = ((a - away[site] if site in away else a).float() * g.float()).sum(1)  # (B, N)

        with within():
            activations_and_gradients(network, hidden, context, wanted, asked.target, visit, stopped)
        values = torch.cat([sums[site] for site in classifier.index.sites], 1).double().cpu().numpy()
        return Given(batch.rows, {method: values})

    return Drive(classifier, "one gradient", track, budget).signed(method, asked, work, settings, rms=rms)


@torch.no_grad()
def _activations(network: Network, batch: Batch) -> dict[Site, torch.Tensor]:
    """Every site's activation ``(B, T, N)``."""
    hidden, context = network.embed(batch)
    activations: dict[Site, torch.Tensor] = {}
    for number in range(len(network.layers)):
        state = network.state(number, hidden, context)
        activations |= {Site(number, module): state.activations[module] for module in MODULES}
        hidden = network.after(state)
    return activations
