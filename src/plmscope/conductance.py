"""Score all neurons of all sites at once by conductance (Dhamdhere et al., arXiv:1805.12233).

One path, at the output of the embeddings, from the mean amino acid (first and last token kept) to the protein::

    conductance = sum over tokens of  integral_0^1  dF/da (alpha)  da/dalpha  dalpha

for every activation ``a`` on the way: the same forward and backward passes serve every site. The integral is a
trapezoid sum over the activations themselves, ``sum_k (g_k + g_k+1) / 2 * (a_k+1 - a_k)``, of second order; Captum's
rule, ``sum_k g_k * (a_k+1 - a_k)`` on Gauss-Legendre nodes, is of first order and there for comparison.

Conductance is not integrated gradients of the site: it asks what the input changes through the neuron, not what the
neuron changes. Summed over the units of the embedding output it is ``F(x) - F(x')``; the gap is stored under layer -1,
module ``embedding``. There is no mask-token baseline: with ESM's token dropout that is the zero embedding.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import torch

from plmscope.errors import SelectionError
from plmscope.gradients import EMBEDDING, Target, activations_and_gradients, request
from plmscope.hooked import AnyNetwork, network_of
from plmscope.model import Batch, Classifier
from plmscope.progress import Track, silent
from plmscope.scores import Completeness, GroupSums, NeuronScores
from plmscope.sequences import AMINO_ACIDS, Protein
from plmscope.sites import Site
from plmscope.workers import in_order

METHODS = ("conductance",)
RULES = ("trapezoid", "captum")
BASELINES = ("mean_embedding", "zero_embedding")


def conductance(
    classifier: Classifier,
    proteins: Sequence[Protein],
    *,
    points: int = 32,
    rule: str = "trapezoid",
    baseline: str = "mean_embedding",
    target: str = "log_odds",
    token_budget: int = 4096,
    groups: Sequence[str] | None = None,
    track: Track = silent,
) -> tuple[NeuronScores, ...]:
    """Conductance of every neuron.

    Args:
        classifier: The model.
        proteins: With labels; each protein weighs 1 within its class, each class 1 in the total.
        points: Intervals of the path, even and at least 2; the trapezoid rule computes one state more.
        rule: ``trapezoid``, or ``captum`` to reproduce ``LayerConductance`` with as many steps.
        baseline: ``mean_embedding``, or ``zero_embedding`` (unstable: layer normalisation hardly notices the scale).
        target: ``log_odds``, ``logit`` or ``log_probability`` of the true class.
        token_budget: Tokens times states at once; bounds the memory.
        groups: Group of each protein for bootstraps, from :func:`~plmscope.scores.resampling_groups`.
        track: Progress.

    Returns:
        ``conductance``, signed; positive: what the protein changes in this neuron speaks for the true class.
        ``settings["error"]`` estimates the relative error of the scores, ``|T_n - T_n/2| / 3 |T_n|`` (trapezoid only).

    Raises:
        InputError: no proteins, or a label the model does not know.
        SelectionError: a setting is impossible.
    """
    asked = request(classifier, proteins, target, groups)
    if points < 2 or points % 2:
        raise SelectionError(f"points = {points!r}: must be even and at least 2")
    for name, value, known in (("rule", rule, RULES), ("baseline", baseline, BASELINES)):
        if value not in known:
            raise SelectionError(f"{name} {value!r} is not known; choose one of {', '.join(known)}")
    classes, index, network = asked.classes, classifier.index, network_of(classifier)
    if rule == "captum":
        nodes = (np.polynomial.legendre.leggauss(points + 1)[0] + 1) / 2
    else:
        nodes = np.linspace(0, 1, points + 1)
    alphas = torch.tensor(nodes, dtype=torch.float32, device=classifier.device)
    letters = [classifier.encode(letter)[1] for letter in AMINO_ACIDS]
    batches = list(classifier.batches(asked.proteins, max(1, token_budget // (points + 1))))

    def work(batch: Batch) -> tuple[Batch, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        wanted = torch.tensor(classes[batch.rows], device=classifier.device)
        start = _start(network, batch, letters, baseline)
        fine, coarse, input_sum = _along(network, batch, start, alphas, wanted, asked.target, rule, token_budget)
        with torch.no_grad():
            end, context = network.embed(batch)
            ends = [asked.target(network.above(0, h, context), wanted) for h in (end, start)]
        whole = np.concatenate([fine[site] for site in index.sites], axis=1)
        half = np.concatenate([coarse[site] for site in index.sites], axis=1)
        return batch, whole, half, (ends[0] - ends[1]).double().cpu().numpy(), input_sum

    ids = asked.ids
    sums = GroupSums.empty(index, classifier.labels, ids, classes, asked.groups, *METHODS, "half")
    gaps = Completeness([(EMBEDDING.layer, EMBEDDING.module)])
    done = in_order(work, batches, classifier.device)
    for batch, whole, half, expected, got in track(done, "conductance", len(batches)):
        sums.add(batch.rows, conductance=whole, half=half)
        gaps.add([ids[row] for row in batch.rows], expected, got)
    settings = {"points": points, "rule": rule, "baseline": baseline, "target": target}
    return (finish(sums, settings, gaps.frame()),)


def finish(sums: GroupSums, settings: Mapping[str, Any], completeness: pd.DataFrame | None = None) -> NeuronScores:
    """Scores from sums of ``conductance`` and of ``half`` (every other state); their difference tells the error."""
    scores = sums.finish("conductance", settings, completeness)
    if settings["rule"] != "trapezoid":
        return scores
    coarse, size = sums.finish("half").values, float(np.linalg.norm(scores.values))
    error = float(np.linalg.norm(scores.values - coarse)) / 3 / max(size, 1e-30)
    return replace(scores, settings={**settings, "error": error})


def _start(network: AnyNetwork, batch: Batch, letters: Sequence[int], baseline: str) -> torch.Tensor:
    """Embedding output at the start of the path, ``(B, T, d)``; first and last token as they are."""
    with torch.no_grad():
        real, _ = network.embed(batch)
        if baseline == "zero_embedding":
            mean = torch.zeros_like(real)
        else:
            # Through the embeddings module, so that its scale, positions and normalisation are in the baseline too.
            mean = torch.zeros_like(real)
            for letter in letters:
                ids = torch.where(batch.residue_mask, letter, batch.input_ids)
                mean += network.embed(replace(batch, input_ids=ids))[0] / len(letters)
        return torch.where(batch.residue_mask.unsqueeze(-1), mean, real)


def _along(
    network: AnyNetwork,
    batch: Batch,
    start: torch.Tensor,
    alphas: torch.Tensor,
    classes: torch.Tensor,
    target: Target,
    rule: str,
    token_budget: int,
) -> tuple[dict[Site, np.ndarray], dict[Site, np.ndarray], np.ndarray]:
    """Token sums ``(B, N)`` of every site with all nodes and with every other one; and those of the input ``(B,)``."""
    end, context = network.embed(batch)
    size = max(2, token_budget // (start.shape[0] * start.shape[1]) // 2 * 2)
    fine: dict[Site, torch.Tensor] = {}
    coarse: dict[Site, torch.Tensor] = {}
    carried: dict[Site, tuple[torch.Tensor, torch.Tensor]] = {}
    begin = 0
    while begin < len(alphas):
        stop = min(len(alphas), begin + size + (begin == 0))  # an even number of steps, so that pairs never straddle
        steps = alphas[begin:stop].view(-1, 1, 1, 1)
        hidden = (start + steps * (end - start)).flatten(0, 1)  # (n B, T, d)
        n = len(steps)
        states = activations_and_gradients(network, hidden, context.repeat(n), classes.repeat(n), target)
        for site, pair in states.items():
            a, g = (x.reshape(n, -1, *x.shape[1:]) for x in pair)  # (n, B, T, N)
            if site in carried:
                a, g = (torch.cat((old, new)) for old, new in zip(carried[site], (a, g), strict=True))
            for total, stride in ((fine, 1), (coarse, 2)):
                x, y = a[::stride], g[::stride]
                slope = y[:-1] if rule == "captum" else (y[:-1] + y[1:]) / 2
                part = (slope * (x[1:] - x[:-1])).double().sum((0, 2))  # (B, N)
                total[site] = total[site] + part if site in total else part
            carried[site] = a[-1:].clone(), g[-1:].clone()
        begin = stop
    input_sum = fine.pop(EMBEDDING).sum(1).cpu().numpy()
    return (
        {site: value.cpu().numpy() for site, value in fine.items()},
        {site: value.cpu().numpy() for site, value in coarse.items()},
        input_sum,
    )
