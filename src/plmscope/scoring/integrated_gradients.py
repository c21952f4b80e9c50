"""Score neurons by integrated gradients of their activation, one site at a time (Dai et al., arXiv:2104.08696).

For a site with activation ``a`` (all tokens of it) and baseline ``a'``, everything else computed as usual::

    attribution = sum over tokens of (a - a') * integral_0^1 dF/da (a' + alpha (a - a')) dalpha
    score       = mean over classes of the mean over their proteins

``F`` is the log-odds of the true class (in a multi-label task of every class that the protein has, one after the
other), ``a'`` is zero or the ablation mean, the integral a Gauss-Legendre sum.
Positive: taking the neuron to its baseline lowers the true class. Per site the attributions sum to
``F(a) - F(a')``; how far they are from it is stored as the completeness gap. How many points that takes is found.

Departs from Dai et al.: all module kinds instead of the feed-forward alone, all tokens instead of the masked one,
log-odds instead of the probability (it does not saturate), Gauss-Legendre instead of a left Riemann sum.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from dataclasses import replace as changed
from typing import Any

import numpy as np
import pandas as pd
import torch

from plmscope.data.proteins import Protein
from plmscope.errors import SelectionError
from plmscope.models.architectures import MODULES
from plmscope.models.classifier import Batch, Classifier
from plmscope.models.hooked import network_of
from plmscope.models.network import BatchContext, LayerState, Network, at_tokens
from plmscope.models.sites import Site
from plmscope.models.workers import LAST_RESORT, fitting_budget
from plmscope.progress import Track, silent
from plmscope.scoring.driver import Drive, Given
from plmscope.scoring.paths import (
    FEWEST_POINTS,
    MOST_POINTS,
    NEGLIGIBLE,
    bytes_per_token,
    check_points,
    found_points,
    settled,
    through_the_stream,
)
from plmscope.scoring.scores import GroupSums, NeuronScores
from plmscope.scoring.table import forms_of
from plmscope.scoring.targets import Target, request

METHODS = forms_of("integrated_gradients")

#: The sums of how often a neuron is among the strongest of a protein.
SHARED_NEURONS = "shared"


@dataclass(frozen=True)
class _Path:
    """How the integrals are taken.

    Attributes:
        points: Gauss-Legendre nodes; 0: found.
        tolerance: What is asked of a number of points that is found.
        target: Of logits and classes.
        base: ``(3, N)`` where paths start; ``None``: zero.
        slices: Where each site is in a flat array.
        token_budget: Tokens times nodes at once.
    """

    points: int
    tolerance: float
    target: Target
    base: torch.Tensor | None
    slices: dict[Site, slice]
    token_budget: int

    def tries(self) -> list[int]:
        """Numbers of points in the order in which they are tried."""
        doubled = [FEWEST_POINTS * 2**k for k in range(1 + round(np.log2(MOST_POINTS / FEWEST_POINTS)))]
        return [self.points] if self.points else doubled


@dataclass(frozen=True)
class _Found:
    """Results of one batch: token sums ``(B, N)``; per site, ``(B, S)``: the sums they should have, points, settled."""

    rows: list[int]
    attributions: np.ndarray
    expected: np.ndarray
    points: np.ndarray
    settled: np.ndarray


def integrated_gradients(
    classifier: Classifier,
    proteins: Sequence[Protein],
    *,
    points: int = 0,
    tolerance: float = 0.05,
    baseline: np.ndarray | None = None,
    target: str = "log_odds",
    token_budget: int = 4096,
    groups: Sequence[str] | None = None,
    shared: float | None = None,
    recompute: bool = False,
    rms: bool = False,
    track: Track = silent,
) -> tuple[NeuronScores, ...]:
    """Integrated gradients of every neuron, signed and absolute.

    Args:
        classifier: The model.
        proteins: With labels; each protein weighs 1 within its class, each class 1 in the total.
        points: Gauss-Legendre nodes per path; 0: per batch and site 4, 8, 16 ... up to 256, until :func:`settled`.
        tolerance: What is asked of a number of points that is found.
        baseline: ``None`` for zero activation, or ``(3, N)`` values at the first token, the last token and residues.
        target: ``log_odds``, ``logit`` or ``log_probability`` of the true class.
        token_budget: Tokens times nodes at once; bounds the memory. 0: by free memory.
        groups: Group of each protein for bootstraps, from :func:`~plmscope.scoring.scores.resampling_groups`.
        shared: Also count in how many proteins each neuron has at least this share of the protein's largest
            attribution, for :func:`~plmscope.evaluation.selection.select_shared`.
        recompute: Keep the layers' inputs alone and run each layer again in the backward pass: the same numbers in less
            memory, with about a third more time. Where a single state does not fit otherwise, it is done anyway.
        rms: Also the root mean square over proteins.
        track: Progress.

    Returns:
        ``integrated_gradients`` (signed token sums), ``integrated_gradients_abs`` (their absolute value per protein)
        and, if asked for, ``integrated_gradients_rms``, all with the points and the completeness gap, in units of the
        target (nats), of every protein and site. Where the number of points was found, ``settings`` has their mean as
        ``mean_points`` and the share of proteins and sites that were still not :func:`settled` at 256 points as
        ``unsettled``.

    Raises:
        InputError: no proteins, or a label the model does not know.
        SelectionError: a setting is impossible.
    """
    asked = request(classifier, proteins, target, groups)
    check_points(points, tolerance)
    if shared is not None and not 0 < shared <= 1:
        raise SelectionError(f"shared = {shared!r}: must be above 0 and at most 1")
    device = classifier.device
    index, networks = classifier.index, [network_of(classifier, recompute=again) for again in (False, True)]
    budget = fitting_budget(token_budget, device, bytes_per_token(classifier))
    path = _Path(
        points,
        tolerance,
        asked.target,
        None if baseline is None else torch.tensor(baseline, dtype=torch.float32, device=device),
        {site: index.slice(site) for site in index.sites},
        budget,
    )

    def work(batch: Batch, wanted: torch.Tensor, budget: int) -> Given:
        network = networks[recompute or budget == LAST_RESORT]
        attributed = _attribute(network, batch, wanted, changed(path, token_budget=budget), len(index))
        sums, got = attributed.attributions, np.add.reduceat(attributed.attributions, starts, axis=1)
        values = {METHODS[0]: sums}
        if shared:
            values[SHARED_NEURONS] = (sums >= shared * sums.max(1, keepdims=True)) & (sums != 0)
        return Given(attributed.rows, values, (attributed.expected, got, attributed.points, attributed.settled))

    starts = [part.start for part in path.slices.values()]
    settings: dict[str, Any] = {"points": points, "baseline": "zero" if baseline is None else "mean", "target": target}
    if not points:
        settings["tolerance"] = tolerance
    if shared:
        settings["shared"] = shared
    of_states = max(1, budget // (points or 2 * FEWEST_POINTS))
    drive = Drive(classifier, "integrated gradients", track, budget, of_states, sites=index.sites)
    return drive.signed(
        METHODS[0], asked, work, settings, rms=rms, more=[SHARED_NEURONS] if shared else [], finish=finish
    )


def finish(
    method: str, sums: GroupSums, settings: Mapping[str, Any], completeness: pd.DataFrame | None = None
) -> NeuronScores:
    """Scores from the sums, and how many points the paths took."""
    return sums.finish(method, {**settings, **found_points(settings, completeness)}, completeness)


def _attribute(network: Network, batch: Batch, classes: torch.Tensor, path: _Path, n_neurons: int) -> _Found:
    """All sites of one batch."""
    sites = list(path.slices)
    shape = (len(batch.rows), len(sites))
    out, expected = np.zeros((len(batch.rows), n_neurons)), np.zeros(shape)
    points, good = np.zeros(shape, dtype=np.int32), np.ones(shape, dtype=bool)
    with torch.no_grad():
        hidden, context = network.embed(batch)
        full = path.target(network.above(0, hidden, context), classes)
    together = path.base is None and network.bilinear  # from zero, query and key share their path
    groups = [("query", "key"), *((m,) for m in MODULES[2:])] if together else [(m,) for m in MODULES]
    for layer in range(len(network.layers)):
        with torch.no_grad():
            state = network.state(layer, hidden, context)
        for modules in groups:
            bends = {
                m: network.bend(layer, m, state.activations[m], context) if path.base is None else None for m in modules
            }
            starts = {m: _start(state.activations[m], path, Site(layer, m), context) for m in modules}
            for m in modules:
                s = sites.index(Site(layer, m))
                with torch.no_grad():
                    empty = path.target(network.resume(layer, state, m, starts[m], context), classes)
                expected[:, s] = (full - empty).double().cpu().numpy()
            before: dict[str, np.ndarray] = {}
            for n in path.tries():
                if len(modules) > 1:
                    gradients = _query_and_key(network, layer, state, context, classes, path, n)
                else:
                    (m,) = modules
                    bend = bends[m]
                    gradients = {m: _gradient(network, layer, state, m, starts[m], context, classes, path, n, bend)}
                fine = True
                for m, gradient in gradients.items():
                    s, part = sites.index(Site(layer, m)), path.slices[Site(layer, m)]
                    a = state.activations[m]
                    value = (gradient * (a.float() - starts[m].float())).sum(1).double().cpu().numpy()  # (B, N)
                    points[:, s], out[:, part] = n, value
                    if path.points:  # nothing to compare with but what the sum should be
                        gap = np.abs(value.sum(1) - expected[:, s])
                        good[:, s] = gap <= path.tolerance * np.abs(value).sum(1) + NEGLIGIBLE
                    elif m in before:
                        whole = np.abs(value).sum(1)
                        if bends[m] is not None:  # units of a token cancel: their size tells little of what is at stake
                            whole = np.abs(expected[:, s]) + path.tolerance * whole
                        good[:, s] = settled(value, before[m], value.sum(1) - expected[:, s], path.tolerance, whole)
                    fine = fine and m in before and bool(good[:, s].all())
                    before[m] = value
                if fine:
                    break
        hidden = network.after(state)
    return _Found(batch.rows, out, expected, points, good)


def _start(value: torch.Tensor, path: _Path, site: Site, context: BatchContext) -> torch.Tensor:
    """Where the path of a site begins, ``(B, T, N)``."""
    if path.base is None:
        return torch.zeros_like(value)
    return at_tokens(path.base[:, path.slices[site]].to(value.dtype), value, context)


def _gradient(
    network: Network,
    layer: int,
    state: LayerState,
    module: str,
    start: torch.Tensor,
    context: BatchContext,
    classes: torch.Tensor,
    path: _Path,
    n: int,
    bend: torch.Tensor | None,
) -> torch.Tensor:
    """``integral dF/da`` along the straight path from ``start`` to the activation, ``(B, T, N)`` float32.

    Where the activation reaches the residual stream by an affine map, the path is walked there, behind the attention
    or the feed-forward of its own layer, and the integral comes back through the map once.
    """
    return through_the_stream(
        network, layer, state, module, start, state.activations[module], context,
        lambda logits, bottom, top: _integral(logits, bottom, top, state, context, classes, path, n, bend),
    )  # fmt: skip


def _integral(
    logits: Callable[[torch.Tensor, LayerState, BatchContext], torch.Tensor],
    start: torch.Tensor,
    end: torch.Tensor,
    state: LayerState,
    context: BatchContext,
    classes: torch.Tensor,
    path: _Path,
    n: int,
    bend: torch.Tensor | None = None,
) -> torch.Tensor:
    """Gauss-Legendre sum of the gradients of the target at ``n`` places between ``start`` and ``end (B, T, M)``."""
    total = torch.zeros(end.shape, device=end.device)
    for nodes, weights in _nodes(state, path, n, bend):
        k = len(nodes)
        leaf = _between(start, end, nodes).requires_grad_()
        value = path.target(logits(leaf, _copies(state, k), context.repeat(k)), classes.repeat(k)).sum()
        (gradient,) = torch.autograd.grad(value, leaf)
        total += torch.einsum("kb,kbtn->btn", weights, gradient.view(k, *end.shape).float())
    return total


def _query_and_key(
    network: Network, layer: int, state: LayerState, context: BatchContext, classes: torch.Tensor, path: _Path, n: int
) -> dict[str, torch.Tensor]:
    """Both integrals from zero at the price of one: ``alpha q . k`` and ``q . alpha k`` are the same scores.

    The gradient of the key is taken at ``alpha q``, where it is ``alpha`` times that of its own path.
    """
    query, key = state.activations["query"], state.activations["key"]
    totals = torch.zeros(query.shape, device=query.device), torch.zeros(key.shape, device=key.device)
    for nodes, weights in _nodes(state, path, n):
        many, wide = _copies(state, len(nodes)), context.repeat(len(nodes))
        q = _between(torch.zeros_like(query), query, nodes).requires_grad_()  # (k B, Tq, d)
        k = many.activations["key"].requires_grad_()  # (k B, T, d)
        value = path.target(network.resume(layer, many, "query", q, wide), classes.repeat(len(nodes))).sum()
        of_query, of_key = (g.float() for g in torch.autograd.grad(value, (q, k)))
        totals[0].add_(torch.einsum("kb,kbtn->btn", weights, of_query.view(len(nodes), *query.shape)))
        totals[1].add_(torch.einsum("kb,kbtn->btn", weights / nodes, of_key.view(len(nodes), *key.shape)))
    return dict(zip(("query", "key"), totals, strict=True))


def _nodes(
    state: LayerState, path: _Path, n: int, bend: torch.Tensor | None = None
) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Nodes on ``[0, 1]`` and weights, ``(k, B)`` or ``(k, 1)`` each, in even groups that fit the token budget.

    A path that bends at ``c`` is walked in ``t``, ``alpha = c sinh(t)``: the norm behind it is ``tanh(t)`` then and its
    gradients are smooth, whereas in ``alpha`` they fall as ``1 / alpha`` from a peak of width ``c``. The path, and with
    it the integral, is the same.
    """
    at_once = max(1, path.token_budget // (state.hidden.shape[0] * state.hidden.shape[1]))
    x, w = np.polynomial.legendre.leggauss(n)
    nodes, weights = (x[:, None] + 1) / 2, w[:, None] / 2
    if bend is not None:
        c = bend.double().cpu().numpy()  # (B,)
        t = nodes * np.arcsinh(1 / c)
        nodes, weights = c * np.sinh(t), weights * np.arcsinh(1 / c) * c * np.cosh(t)
    alphas, sizes = (torch.from_numpy(x.astype(np.float32)).to(state.hidden.device) for x in (nodes, weights))
    many: Any = torch.tensor_split
    groups = -(-n // at_once)
    return list(zip(many(alphas, groups), many(sizes, groups), strict=True))


def _between(start: torch.Tensor, end: torch.Tensor, nodes: torch.Tensor) -> torch.Tensor:
    """Places on the straight line, ``(k B, T, M)``; computed in float32, given in the model's precision."""
    low, high = start.float(), end.float()
    return (low + nodes[:, :, None, None] * (high - low)).flatten(0, 1).to(end.dtype)


def _copies(state: LayerState, k: int) -> LayerState:
    """What parts of a forward pass read of a state, for ``k`` copies of the batch one after the other."""
    copies = {name: a.repeat(k, 1, 1) for name, a in state.activations.items() if name in ("query", "key", "value")}
    return LayerState(state.hidden.repeat(k, 1, 1), state.middle.repeat(k, 1, 1), copies)
