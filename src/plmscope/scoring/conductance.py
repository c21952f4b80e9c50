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

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd
import torch

from plmscope.data.proteins import AMINO_ACIDS, Protein
from plmscope.errors import SelectionError
from plmscope.models.classifier import Batch, Classifier
from plmscope.models.hooked import network_of
from plmscope.models.network import BatchContext, Network
from plmscope.models.sites import Site
from plmscope.models.workers import LAST_RESORT, fitting_budget
from plmscope.progress import Track, silent
from plmscope.scoring.driver import Drive, Given
from plmscope.scoring.paths import (
    EMBEDDING,
    MOST_POINTS,
    NEGLIGIBLE,
    activations_and_gradients,
    bytes_per_token,
    check_points,
    found_points,
    settled,
)
from plmscope.scoring.scores import GroupSums, NeuronScores
from plmscope.scoring.table import forms_of
from plmscope.scoring.targets import Target, request

METHODS = forms_of("conductance")
_Pair = tuple[torch.Tensor, torch.Tensor]

#: Intervals of a path whose number is to be found: the first try.
FEWEST_POINTS = 8
RULES = ("trapezoid", "captum")
BASELINES = ("mean_embedding", "zero_embedding")


@dataclass(frozen=True)
class _Found:
    """Results of one batch, per protein.

    Attributes:
        rows: Positions of the proteins.
        whole: ``(B, N)`` token sums with all states of the path.
        half: ``(B, N)`` with every other one; by Captum's rule, which has no error estimate, the same as ``whole``.
        entering: ``(B, d)`` those of the embedding output.
        expected: ``(B,)`` change of the target along the path.
        points: ``(B,)`` intervals.
        settled: ``(B,)`` whether they are as good as the tolerance asks.
    """

    rows: list[int]
    whole: np.ndarray
    half: np.ndarray
    entering: np.ndarray
    expected: np.ndarray
    points: np.ndarray
    settled: np.ndarray


def conductance(
    classifier: Classifier,
    proteins: Sequence[Protein],
    *,
    points: int = 0,
    tolerance: float = 0.05,
    rule: str = "trapezoid",
    baseline: str = "mean_embedding",
    target: str = "log_odds",
    token_budget: int = 2048,
    groups: Sequence[str] | None = None,
    recompute: bool = False,
    rms: bool = False,
    track: Track = silent,
) -> tuple[NeuronScores, ...]:
    """Conductance of every neuron, signed and absolute.

    Args:
        classifier: The model.
        proteins: With labels; each protein weighs 1 within its class, each class 1 in the total.
        points: Intervals of the path, even; the trapezoid rule computes one state more. 0: per batch 8, 16, 32 ... up
            to 256, until the gap at the input is at most ``tolerance`` of the absolute sum there, the estimated error
            ``|T_n - T_n/2| / 3`` at most ``tolerance`` of ``|T_n|``, and the ranking settled
            (:func:`~plmscope.scoring.paths.settled`); states of the coarser grid are used again as far
            as they fit into the token budget.
        tolerance: What is asked of a number of points that is found.
        rule: ``trapezoid``, or ``captum`` to reproduce ``LayerConductance`` with as many steps.
        baseline: ``mean_embedding``, or ``zero_embedding`` (unstable: layer normalisation hardly notices the scale).
        target: ``log_odds``, ``logit`` or ``log_probability`` of the true class.
        token_budget: Tokens times states at once; bounds the memory. 0: by free memory.
        groups: Group of each protein for bootstraps, from :func:`~plmscope.scoring.scores.resampling_groups`.
        recompute: Keep the layers' inputs alone and run each layer again in the backward pass: the same numbers in less
            memory, with about a third more time. Where a single state does not fit otherwise, it is done anyway.
        rms: Also the root mean square over proteins.
        track: Progress.

    Returns:
        ``conductance``, signed; positive: what the protein changes in this neuron speaks for the true class. Beside it
        ``conductance_abs`` (absolute token sums per protein) and, if asked for, ``conductance_rms``.
        ``settings["error"]`` estimates the relative error of the scores, ``|T_n - T_n/2| / 3 |T_n|`` (trapezoid only).

    Raises:
        InputError: no proteins, or a label the model does not know.
        SelectionError: a setting is impossible.
    """
    asked = request(classifier, proteins, target, groups)
    check_points(points, tolerance)
    if points % 2:
        raise SelectionError(f"points = {points!r}: must be even and at least 2")
    for name, value, known in (("rule", rule, RULES), ("baseline", baseline, BASELINES)):
        if value not in known:
            raise SelectionError(f"{name} {value!r} is not known; choose one of {', '.join(known)}")
    if rule == "captum" and not points:
        raise SelectionError("points = 0: Captum's rule has no estimate of its own error; give a number of points")
    index = classifier.index
    networks = [network_of(classifier, recompute=again) for again in (False, True)]
    letters = [classifier.encode(letter)[1] for letter in AMINO_ACIDS]
    budget = fitting_budget(token_budget, classifier.device, bytes_per_token(classifier))

    def work(batch: Batch, wanted: torch.Tensor, budget: int) -> Given:
        network = networks[recompute or budget == LAST_RESORT]
        path = _Path(network, batch, path_start(network, batch, letters, baseline), wanted, asked.target, rule, budget)
        n = points or FEWEST_POINTS
        while True:
            walked = path.walk(n, index.sites, tolerance, fixed=bool(points))
            if points or n >= MOST_POINTS or walked.settled.all():
                gaps = walked.expected, walked.entering.sum(1), walked.points, walked.settled
                return Given(walked.rows, {METHODS[0]: walked.whole, "half": walked.half}, gaps)
            n *= 2

    settings = {"points": points, "rule": rule, "baseline": baseline, "target": target}
    settings = settings if points else settings | {"tolerance": tolerance}
    of_states = max(1, budget // ((points or FEWEST_POINTS) + 1))
    drive = Drive(classifier, "conductance", track, budget, of_states, sites=[EMBEDDING])
    return drive.signed(METHODS[0], asked, work, settings, rms=rms, more=["half"], finish=finish)


def finish(
    method: str, sums: GroupSums, settings: Mapping[str, Any], completeness: pd.DataFrame | None = None
) -> NeuronScores:
    """Scores from the sums; ``half`` (those of every other state) tells the error of the signed ones."""
    scores = sums.finish(method, {**settings, **found_points(settings, completeness)}, completeness)
    if settings["rule"] != "trapezoid":
        return scores
    fine, coarse = sums.finish(METHODS[0]).values, sums.finish("half").values
    error = float(np.linalg.norm(fine - coarse)) / 3 / max(float(np.linalg.norm(fine)), 1e-30)
    return replace(scores, settings={**scores.settings, "error": error})


def path_start(network: Network, batch: Batch, letters: Sequence[int], baseline: str) -> torch.Tensor:
    """Embedding output at the start of the path, ``(B, T, d)``; first and last token as they are."""
    with torch.no_grad():
        real, _ = network.embed(batch)
        if baseline == "zero_embedding":
            mean = torch.zeros_like(real)
        else:
            # Through the embeddings module, so that its scale, positions and normalisation are in the baseline too.
            # Summed in float32: twenty roundings of a low precision would be a bend of the path's start.
            total = torch.zeros_like(real, dtype=torch.float32)
            for letter in letters:
                ids = torch.where(batch.residue_mask, letter, batch.input_ids)
                total += network.embed(replace(batch, input_ids=ids))[0]
            mean = (total / len(letters)).to(real.dtype)
        return torch.where(batch.residue_mask.unsqueeze(-1), mean, real)


@dataclass
class _Path:
    """The path of one batch: its two ends, and the states of the last walk as far as they fit into the budget."""

    network: Network
    batch: Batch
    start: torch.Tensor
    classes: torch.Tensor
    target: Target
    rule: str
    token_budget: int
    states: dict[Site, _Pair] = field(default_factory=dict)

    def walk(self, n: int, sites: Sequence[Site], tolerance: float, *, fixed: bool) -> _Found:
        """Sums with ``n`` intervals; unless that is ``fixed``, the states are kept for a walk with twice as many."""
        with torch.no_grad():
            end, context = self.network.embed(self.batch)
            ends = [self.target(self.network.above(0, h, context), self.classes) for h in (end, self.start)]
        nodes = np.linspace(0, 1, n + 1)
        if self.rule == "captum":
            nodes = (np.polynomial.legendre.leggauss(n + 1)[0] + 1) / 2
        fine: dict[Site, torch.Tensor] = {}
        coarse: dict[Site, torch.Tensor] = {}
        at_once = max(1, self.token_budget // (end.shape[0] * end.shape[1]))
        known, self.states = self.states, {}
        if not fixed and n + 1 <= at_once:

            def visit(site: Site, a: torch.Tensor, g: torch.Tensor) -> None:
                pair = _between(known.pop(site), (a, g)) if site in known else (a, g)
                self._add(fine, coarse, site, pair)
                self.states[site] = pair

            self._show(nodes[1::2] if known else nodes, end, context, visit)
        else:
            known.clear()
            carried: dict[Site, _Pair] = {}

            def visit(site: Site, a: torch.Tensor, g: torch.Tensor) -> None:
                last = carried.pop(site, None)
                carried[site] = a[-1:].clone(), g[-1:].clone()
                pair = (a, g) if last is None else (torch.cat((last[0], a)), torch.cat((last[1], g)))
                self._add(fine, coarse, site, pair)

            begin, even = 0, max(2, at_once // 2 * 2)
            while begin < len(nodes):  # an even number of steps, so that pairs of them never straddle
                stop = min(len(nodes), begin + (even if begin else max(1, even - 1) // 2 * 2 + 1))
                self._show(nodes[begin:stop], end, context, visit)
                begin = stop
        entering = fine.pop(EMBEDDING).cpu().numpy()
        whole, half = (torch.cat([total[site] for site in sites], 1).cpu().numpy() for total in (fine, coarse or fine))
        expected = (ends[0] - ends[1]).double().cpu().numpy()
        gap = np.abs(entering.sum(1) - expected)
        good = np.ones(len(whole), dtype=bool) if fixed else settled(whole, half, np.zeros(len(whole)), tolerance)
        good &= gap <= tolerance * np.abs(entering).sum(1) + NEGLIGIBLE
        error = np.linalg.norm(whole - half, axis=1) / 3 if not fixed else np.zeros(len(whole))
        good &= error <= tolerance * np.linalg.norm(whole, axis=1) + NEGLIGIBLE
        return _Found(self.batch.rows, whole, half, entering, expected, np.full(len(whole), n), good)

    def _show(
        self,
        nodes: np.ndarray,
        end: torch.Tensor,
        context: BatchContext,
        visit: Callable[[Site, torch.Tensor, torch.Tensor], None],
    ) -> None:
        """Show activation and gradient of every site at the nodes, ``(k, B, T, N)`` each."""
        k, low, high = len(nodes), self.start.float(), end.float()
        alphas = torch.from_numpy(nodes.astype(np.float32)).to(end.device).view(-1, 1, 1, 1)
        hidden = (low + alphas * (high - low)).flatten(0, 1).to(end.dtype)  # (k B, T, d)
        activations_and_gradients(
            self.network, hidden, context.repeat(k), self.classes.repeat(k), self.target,
            lambda site, a, g: visit(site, *(x.unsqueeze(0).reshape(k, -1, *x.shape[1:]) for x in (a, g))),
        )  # fmt: skip

    def _add(self, fine: dict[Site, torch.Tensor], coarse: dict[Site, torch.Tensor], site: Site, pair: _Pair) -> None:
        """Add the intervals between consecutive states, and between every other one, summed over tokens, ``(B, N)``."""
        strides = ((fine, 1),) if self.rule == "captum" else ((fine, 1), (coarse, 2))
        for total, stride in strides:
            a, g = (x[::stride].float() for x in pair)
            slope = g[:-1] if self.rule == "captum" else (g[:-1] + g[1:]) / 2
            part = (slope * (a[1:] - a[:-1])).sum((0, 2)).double()
            total[site] = total[site] + part if site in total else part


def _between(old: _Pair, new: _Pair) -> _Pair:
    """States of a grid and those half-way between them, in order."""
    merged = []
    for one, other in zip(old, new, strict=True):
        both = one.new_empty((len(one) + len(other), *one.shape[1:]))
        both[::2], both[1::2] = one, other
        merged.append(both)
    return merged[0], merged[1]
