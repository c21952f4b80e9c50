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

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd
import torch

from plmscope.errors import SelectionError
from plmscope.gradients import (
    EMBEDDING,
    MOST_POINTS,
    NEGLIGIBLE,
    Target,
    activations_and_gradients,
    bytes_per_token,
    check_points,
    found_points,
    request,
    settled,
)
from plmscope.hooked import AnyNetwork, network_of
from plmscope.model import Batch, Classifier
from plmscope.network import Context
from plmscope.progress import Track, silent
from plmscope.scores import Completeness, GroupSums, NeuronScores
from plmscope.sequences import AMINO_ACIDS, Protein
from plmscope.sites import Site
from plmscope.workers import fitting_budget, in_order, splitting

METHODS = ("conductance",)
_Pairs = dict[Site, tuple[torch.Tensor, torch.Tensor]]

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
        half: ``(B, N)`` with every other one.
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
    token_budget: int = 4096,
    groups: Sequence[str] | None = None,
    track: Track = silent,
) -> tuple[NeuronScores, ...]:
    """Conductance of every neuron.

    Args:
        classifier: The model.
        proteins: With labels; each protein weighs 1 within its class, each class 1 in the total.
        points: Intervals of the path, even; the trapezoid rule computes one state more. 0: per batch 8, 16, 32 ... up
            to 256, until the gap at the input is at most ``tolerance`` of the absolute sum there, the estimated error
            ``|T_n - T_n/2| / 3`` at most ``tolerance`` of ``|T_n|``, and the ranking settled
            (:func:`~plmscope.gradients.settled`); states of the coarser grid are used again as far as they fit into
            the token budget.
        tolerance: What is asked of a number of points that is found.
        rule: ``trapezoid``, or ``captum`` to reproduce ``LayerConductance`` with as many steps.
        baseline: ``mean_embedding``, or ``zero_embedding`` (unstable: layer normalisation hardly notices the scale).
        target: ``log_odds``, ``logit`` or ``log_probability`` of the true class.
        token_budget: Tokens times states at once; bounds the memory. 0: by free memory.
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
    check_points(points, tolerance)
    if points % 2:
        raise SelectionError(f"points = {points!r}: must be even and at least 2")
    for name, value, known in (("rule", rule, RULES), ("baseline", baseline, BASELINES)):
        if value not in known:
            raise SelectionError(f"{name} {value!r} is not known; choose one of {', '.join(known)}")
    if rule == "captum" and not points:
        raise SelectionError("points = 0: Captum's rule has no estimate of its own error; give a number of points")
    classes, index, network = asked.classes, classifier.index, network_of(classifier)
    letters = [classifier.encode(letter)[1] for letter in AMINO_ACIDS]
    budget = fitting_budget(token_budget, classifier.device, bytes_per_token(classifier))
    batches = list(classifier.batches(asked.proteins, max(1, budget // ((points or FEWEST_POINTS) + 1))))

    def work(batch: Batch, budget: int) -> _Found:
        wanted = torch.tensor(classes[batch.rows], device=classifier.device)
        path = _Path(network, batch, _start(network, batch, letters, baseline), wanted, asked.target, rule, budget)
        n = points or FEWEST_POINTS
        while True:
            found = path.walk(n, index.sites, tolerance, keep=not points)
            if points or n >= MOST_POINTS or found.settled.all():
                return found
            n *= 2

    ids = asked.ids
    sums = GroupSums.empty(index, classifier.labels, ids, classes, asked.groups, *METHODS, "half")
    gaps = Completeness([(EMBEDDING.layer, EMBEDDING.module)])
    done = in_order(splitting(work, budget), batches, classifier.device)
    for found in (one for parts in track(done, "conductance", len(batches)) for one in parts):
        sums.add(found.rows, conductance=found.whole, half=found.half)
        settled = np.ones_like(found.settled) if points else found.settled
        gaps.add([ids[row] for row in found.rows], found.expected, found.entering.sum(1), found.points, settled)
    settings = {"points": points, "rule": rule, "baseline": baseline, "target": target}
    return (finish(sums, settings if points else settings | {"tolerance": tolerance}, gaps.frame()),)


def finish(sums: GroupSums, settings: Mapping[str, Any], completeness: pd.DataFrame | None = None) -> NeuronScores:
    """Scores from sums of ``conductance`` and of ``half`` (every other state); their difference tells the error."""
    scores = sums.finish("conductance", {**settings, **found_points(settings, completeness)}, completeness)
    if settings["rule"] != "trapezoid":
        return scores
    coarse, size = sums.finish("half").values, float(np.linalg.norm(scores.values))
    error = float(np.linalg.norm(scores.values - coarse)) / 3 / max(size, 1e-30)
    return replace(scores, settings={**scores.settings, "error": error})


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


@dataclass
class _Path:
    """The path of one batch: its two ends, and the states between them that are still in memory."""

    network: AnyNetwork
    batch: Batch
    start: torch.Tensor
    classes: torch.Tensor
    target: Target
    rule: str
    token_budget: int
    states: dict[float, _Pairs] = field(default_factory=dict)

    def walk(self, n: int, sites: Sequence[Site], tolerance: float, *, keep: bool) -> _Found:
        """Sums with ``n`` intervals; ``keep`` keeps the states for a walk with twice as many."""
        with torch.no_grad():
            end, context = self.network.embed(self.batch)
            ends = [self.target(self.network.above(0, h, context), self.classes) for h in (end, self.start)]
        nodes = np.linspace(0, 1, n + 1)
        if self.rule == "captum":
            nodes = (np.polynomial.legendre.leggauss(n + 1)[0] + 1) / 2
        fine: dict[Site, torch.Tensor] = {}
        coarse: dict[Site, torch.Tensor] = {}
        last: list[_Pairs] = []  # the states before this one, two at most
        for number, state in enumerate(self._states(nodes.tolist(), end, context, keep=keep)):
            if number:
                self._add(fine, last[-1], state)
            if number and number % 2 == 0:
                self._add(coarse, last[0], state)
            last = [*last, state][-2:]
        entering = fine.pop(EMBEDDING).cpu().numpy()
        whole, half = (torch.cat([total[site] for site in sites], 1).cpu().numpy() for total in (fine, coarse))
        expected = (ends[0] - ends[1]).double().cpu().numpy()
        gap = np.abs(entering.sum(1) - expected)
        good = settled(whole, half, np.zeros(len(whole)), tolerance)
        good &= gap <= tolerance * np.abs(entering).sum(1) + NEGLIGIBLE
        error = np.linalg.norm(whole - half, axis=1) / 3
        good &= error <= tolerance * np.linalg.norm(whole, axis=1) + NEGLIGIBLE
        return _Found(self.batch.rows, whole, half, entering, expected, np.full(len(whole), n), good)

    def _states(self, nodes: list[float], end: torch.Tensor, context: Context, *, keep: bool) -> Iterator[_Pairs]:
        """Activation and gradient of every site at every node, in order; those in memory are not computed again."""
        b, t, _ = end.shape
        at_once = max(1, self.token_budget // (b * t))
        room = keep and len(nodes) <= at_once
        known, self.states = self.states, {}
        missing = [node for node in nodes if node not in known]
        groups = iter(np.array_split(missing, -(-len(missing) // at_once)))
        for node in nodes:
            if node not in known:
                group = next(groups).tolist()
                alphas = torch.tensor(group, dtype=torch.float32, device=end.device).view(-1, 1, 1, 1)
                low, high = self.start.float(), end.float()
                hidden = (low + alphas * (high - low)).flatten(0, 1).to(end.dtype)  # (k B, T, d)
                k = len(group)
                found = activations_and_gradients(
                    self.network, hidden, context.repeat(k), self.classes.repeat(k), self.target
                )
                parts = {site: [x.view(k, b, *x.shape[1:]) for x in pair] for site, pair in found.items()}
                for place, one in enumerate(group):
                    known[one] = {site: (a[place], g[place]) for site, (a, g) in parts.items()}
            state = known[node] if room else known.pop(node)
            yield state
        if room:
            self.states = known

    def _add(self, total: dict[Site, torch.Tensor], one: _Pairs, other: _Pairs) -> None:
        """Add one interval, summed over tokens, ``(B, N)``."""
        for site, (a, g) in one.items():
            b, h = (x.float() for x in other[site])
            a, g = a.float(), g.float()
            part = g * (b - a) if self.rule == "captum" else (g + h) * (b - a) / 2
            summed = part.sum(1).double()
            total[site] = total[site] + summed if site in total else summed
