"""Score neurons by integrated gradients of their activation, one site at a time (Dai et al., arXiv:2104.08696).

For a site with activation ``a`` (all tokens of it) and baseline ``a'``, everything else computed as usual::

    attribution = sum over tokens of (a - a') * integral_0^1 dF/da (a' + alpha (a - a')) dalpha
    score       = mean over classes of the mean over their proteins

``F`` is the log-odds of the true class (in a multi-label task of every class that the protein has, one after the
other), ``a'`` is zero or the ablation mean, the integral a Gauss-Legendre sum.
Positive: taking the neuron to its baseline lowers the true class. Per site the attributions sum to
``F(a) - F(a')``; how far they are from it is stored as the completeness gap.

Departs from Dai et al.: all module kinds instead of the feed-forward alone, all tokens instead of the masked one,
log-odds instead of the probability (it does not saturate), Gauss-Legendre instead of a left Riemann sum.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from dataclasses import replace as changed
from typing import Any

import numpy as np
import torch

from plmscope.errors import InputError, SelectionError
from plmscope.hooked import AnyNetwork, network_of
from plmscope.labels import Task, cases
from plmscope.model import Batch, Classifier
from plmscope.network import Context, Network, State, at_tokens
from plmscope.progress import Track, silent
from plmscope.scores import Completeness, GroupSums, NeuronScores
from plmscope.sequences import Protein
from plmscope.sites import MODULES, Site
from plmscope.workers import in_order

METHODS = ("integrated_gradients", "integrated_gradients_abs")


def log_odds(logits: torch.Tensor, classes: torch.Tensor) -> torch.Tensor:
    """``z_y - logsumexp of the others``: ``(B, C), (B,) -> (B,)``; unchanged by a shift of all logits."""
    true = logits.gather(1, classes.unsqueeze(1)).squeeze(1)
    others = logits.scatter(1, classes.unsqueeze(1), float("-inf"))
    return true - others.logsumexp(1)


def _logit(logits: torch.Tensor, classes: torch.Tensor) -> torch.Tensor:
    """``z_y``."""
    return logits.gather(1, classes.unsqueeze(1)).squeeze(1)


def _log_probability(logits: torch.Tensor, classes: torch.Tensor) -> torch.Tensor:
    """``log p_y``; saturates where the model is sure."""
    return _logit(logits.log_softmax(1), classes)


def _log_sigmoid(logits: torch.Tensor, classes: torch.Tensor) -> torch.Tensor:
    """``log p_y`` where every class has a probability of its own."""
    return torch.nn.functional.logsigmoid(_logit(logits, classes))


Target = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]

#: With one sigmoid per class the log-odds ``log(p_y / (1 - p_y))`` are the logit itself.
TARGETS: dict[Task, dict[str, Target]] = {
    "single": {"log_odds": log_odds, "logit": _logit, "log_probability": _log_probability},
    "multi": {"log_odds": _logit, "logit": _logit, "log_probability": _log_sigmoid},
}


@dataclass(frozen=True)
class Request:
    """What a scorer that differentiates a target works on: one row per protein and class that it has.

    Attributes:
        proteins: ``Q``, each as often as it has classes.
        classes: ``(Q,)`` the class that is explained.
        target: ``(B, C)`` logits and ``(B,)`` classes to ``(B,)`` values.
        groups: ``Q`` groups for bootstraps, or ``None``.
    """

    proteins: list[Protein]
    classes: np.ndarray
    target: Target
    groups: list[str] | None

    @property
    def ids(self) -> list[str]:
        """``Q`` protein ids."""
        return [protein.id for protein in self.proteins]


def request(
    classifier: Classifier, proteins: Sequence[Protein], target: str, groups: Sequence[str] | None = None
) -> Request:
    """The cases of some proteins: in a multi-label task every class that a protein has is explained by itself.

    Raises:
        InputError: there are no proteins, or a label is unknown.
        SelectionError: the target is not one of :data:`TARGETS`.
    """
    if not proteins:
        raise InputError("no proteins to score; the split left none, or the list is empty")
    known = TARGETS[classifier.task]
    if target not in known:
        raise SelectionError(f"target {target!r} is not known; choose one of {', '.join(known)}")
    owners, classes = cases(classifier.membership(proteins))
    names = None if groups is None else [groups[row] for row in owners]
    return Request([proteins[row] for row in owners], classes, known[target], names)


#: Stands for the input of the first layer where a path runs through the whole network.
EMBEDDING = Site(-1, "embedding")


def activations_and_gradients(
    network: AnyNetwork,
    hidden: torch.Tensor,
    context: Context,
    classes: torch.Tensor,
    target: Target,
) -> dict[Site, tuple[torch.Tensor, torch.Tensor]]:
    """Activation and gradient of the target, ``(B, T, N)`` each, of every site, from one forward and one backward pass.

    ``hidden (B, T, d)`` is the input of the first layer; its own pair is under :data:`EMBEDDING`.
    """
    hidden = hidden.detach().requires_grad_()
    seen = {EMBEDDING: hidden}
    for number in range(len(network.layers)):
        state = network.state(number, hidden, context)
        seen |= {Site(number, module): state.activations[module] for module in MODULES}
        hidden = network.after(state)
    value = target(network.above(len(network.layers), hidden, context), classes).sum()
    gradients = torch.autograd.grad(value, list(seen.values()))
    return {site: (a.detach(), g) for (site, a), g in zip(seen.items(), gradients, strict=True)}


@dataclass(frozen=True)
class _Path:
    """How the integral is taken: nodes and weights on ``[0, 1]``, target, tokens at once."""

    nodes: torch.Tensor
    weights: torch.Tensor
    target: Target
    token_budget: int


def integrated_gradients(
    classifier: Classifier,
    proteins: Sequence[Protein],
    *,
    points: int = 16,
    baseline: np.ndarray | None = None,
    target: str = "log_odds",
    token_budget: int = 4096,
    groups: Sequence[str] | None = None,
    track: Track = silent,
) -> tuple[NeuronScores, ...]:
    """Integrated gradients of every neuron, signed and absolute.

    Args:
        classifier: The model.
        proteins: With labels; each protein weighs 1 within its class, each class 1 in the total.
        points: Gauss-Legendre nodes per path, at least 1.
        baseline: ``None`` for zero activation, or ``(3, N)`` values at the first token, the last token and residues.
        target: ``log_odds``, ``logit`` or ``log_probability`` of the true class.
        token_budget: Tokens times nodes at once; bounds the memory.
        groups: Group of each protein for bootstraps, from :func:`~plmscope.scores.resampling_groups`.
        track: Progress.

    Returns:
        ``integrated_gradients`` (signed token sums) and ``integrated_gradients_abs`` (their absolute value per
        protein), both with the completeness gap of every protein and site, in units of the target (nats).

    Raises:
        InputError: no proteins, or a label the model does not know.
        SelectionError: ``points`` or ``target`` is impossible.
    """
    asked = request(classifier, proteins, target, groups)
    if points < 1:
        raise SelectionError(f"points = {points!r}: at least 1 is needed")
    classes = asked.classes
    nodes, weights = np.polynomial.legendre.leggauss(points)
    device = classifier.device
    path = _Path(
        torch.tensor((nodes + 1) / 2, dtype=torch.float32, device=device),
        torch.tensor(weights / 2, dtype=torch.float32, device=device),
        asked.target,
        token_budget,
    )
    network, index = network_of(classifier), classifier.index
    base = None if baseline is None else torch.tensor(baseline, dtype=torch.float32, device=device)
    slices = {site: index.slice(site) for site in index.sites}
    batches = list(classifier.batches(asked.proteins, max(1, token_budget // points)))

    def work(batch: Batch) -> tuple[Batch, np.ndarray, np.ndarray, np.ndarray]:
        wanted = torch.tensor(classes[batch.rows], device=device)
        return batch, *_attribute(network, batch, wanted, path, base, slices, len(index))

    ids = asked.ids
    sums = GroupSums.empty(index, classifier.labels, ids, classes, asked.groups, *METHODS)
    gaps = Completeness([(site.layer, site.module) for site in index.sites])
    done = in_order(work, batches, device)
    for batch, attributions, expected, got in track(done, "integrated gradients", len(batches)):
        sums.add(batch.rows, integrated_gradients=attributions, integrated_gradients_abs=np.abs(attributions))
        gaps.add([ids[row] for row in batch.rows], expected, got)
    settings = {"points": points, "baseline": "zero" if baseline is None else "mean", "target": target}
    frame = gaps.frame()
    return tuple(sums.finish(method, settings, frame) for method in METHODS)


def _attribute(
    network: AnyNetwork,
    batch: Batch,
    classes: torch.Tensor,
    path: _Path,
    base: torch.Tensor | None,
    slices: dict[Site, slice],
    n_neurons: int,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Token sums ``(B, N)``, and per site what they should sum to and do sum to, ``(B, S)``."""
    out = np.zeros((len(batch.rows), n_neurons))
    expected, got = np.zeros((len(batch.rows), len(slices))), np.zeros((len(batch.rows), len(slices)))
    with torch.no_grad():
        hidden, context = network.embed(batch)
        full = path.target(network.above(0, hidden, context), classes)
    for layer in range(len(network.layers)):
        with torch.no_grad():
            state = network.state(layer, hidden, context)
        shared = {}
        if base is None and isinstance(network, Network):  # others may normalise query and key
            shared = _query_and_key(network, layer, state, context, classes, path)
        for module in MODULES:
            site = Site(layer, module)
            value = state.activations[module]
            start = torch.zeros_like(value) if base is None else at_tokens(base[:, slices[site]], value, context)
            if base is None and module in shared:
                gradient = shared[module]
            else:
                gradient = _path_gradient(network, layer, state, module, start, context, classes, path)
            attribution = (gradient * (value - start)).sum(1)  # (B, N)
            with torch.no_grad():
                empty = path.target(network.resume(layer, state, module, start, context), classes)
            s = list(slices).index(site)
            out[:, slices[site]] = attribution.double().cpu().numpy()
            expected[:, s] = (full - empty).double().cpu().numpy()
            got[:, s] = out[:, slices[site]].sum(1)
        hidden = network.after(state)
    return out, expected, got


def _path_gradient(
    network: AnyNetwork,
    layer: int,
    state: State,
    module: str,
    start: torch.Tensor,
    context: Context,
    classes: torch.Tensor,
    path: _Path,
) -> torch.Tensor:
    """``integral dF/da`` along the straight path from ``start`` to the activation, ``(B, T, N)``."""
    step = state.activations[module] - start
    total = torch.zeros_like(step)
    for nodes, weights, many, wide, wanted in _chunks(state, context, classes, path):
        leaf = (start + nodes.view(-1, 1, 1, 1) * step).flatten(0, 1).requires_grad_()  # (n B, T, N)
        value = path.target(network.resume(layer, many, module, leaf, wide), wanted).sum()
        (gradient,) = torch.autograd.grad(value, leaf)
        total += torch.einsum("k,kbtn->btn", weights, gradient.view(len(nodes), *step.shape))
    return total


def _query_and_key(
    network: Network, layer: int, state: State, context: Context, classes: torch.Tensor, path: _Path
) -> dict[str, torch.Tensor]:
    """Both integrals from zero at the price of one: ``alpha q . k`` and ``q . alpha k`` are the same scores.

    The gradient of the key is taken at ``alpha q``, where it is ``alpha`` times that of its own path.
    """
    query, key = state.activations["query"], state.activations["key"]
    totals = torch.zeros_like(query), torch.zeros_like(key)
    for nodes, weights, many, wide, wanted in _chunks(state, context, classes, path):
        n = len(nodes)
        q = (nodes.view(-1, 1, 1, 1) * query).flatten(0, 1).requires_grad_()  # (n B, Tq, d)
        k = many.activations["key"].clone().requires_grad_()  # (n B, T, d)
        mixed = network.attend(q, k, many.activations["value"], wide)
        value = path.target(network.after_attention(layer, many.hidden, mixed, wide), wanted).sum()
        of_query, of_key = torch.autograd.grad(value, (q, k))
        totals[0].add_(torch.einsum("k,kbtn->btn", weights, of_query.view(n, *query.shape)))
        totals[1].add_(torch.einsum("k,kbtn->btn", weights / nodes, of_key.view(n, *key.shape)))
    return dict(zip(("query", "key"), totals, strict=True))


def _chunks(
    state: State, context: Context, classes: torch.Tensor, path: _Path
) -> list[tuple[torch.Tensor, torch.Tensor, State, Context, torch.Tensor]]:
    """The nodes in groups that fit the token budget, with as many copies of the batch's state."""
    size = max(1, path.token_budget // (state.hidden.shape[0] * state.hidden.shape[1]))
    groups, made = [], {}
    split: Any = torch.split
    for nodes, weights in zip(split(path.nodes, size), split(path.weights, size), strict=True):
        n = len(nodes)
        if n not in made:
            copies = {
                name: a.repeat(n, 1, 1) for name, a in state.activations.items() if name in ("query", "key", "value")
            }
            many = changed(
                state, hidden=state.hidden.repeat(n, 1, 1), middle=state.middle.repeat(n, 1, 1), activations=copies
            )
            made[n] = many, context.repeat(n), classes.repeat(n)
        groups.append((nodes, weights, *made[n]))
    return groups
