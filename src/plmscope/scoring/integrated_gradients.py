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

from plmscope.data.labels import Task, cases
from plmscope.data.proteins import Protein
from plmscope.errors import InputError, SelectionError
from plmscope.models.architectures import MODULES
from plmscope.models.classifier import Batch, Classifier
from plmscope.models.hooked import AnyNetwork, Hooked, network_of
from plmscope.models.network import Context, Network, State, at_tokens
from plmscope.models.sites import Site
from plmscope.models.workers import LAST_RESORT, fitting_budget, in_order, splitting
from plmscope.progress import Track, silent
from plmscope.scoring.scores import Completeness, GroupSums, NeuronScores, statistics_of, token_sums
from plmscope.scoring.table import forms_of

METHODS = forms_of("integrated_gradients")

#: The sums of how often a neuron is among the strongest of a protein.
SHARED = "shared"


def log_odds(logits: torch.Tensor, classes: torch.Tensor) -> torch.Tensor:
    """``z_y - logsumexp of the others``: ``(B, C), (B,) -> (B,)``; unchanged by a shift of all logits.

    In float32 whatever the model's precision, as all targets.
    """
    logits = logits.float()
    true = logits.gather(1, classes.unsqueeze(1)).squeeze(1)
    others = logits.scatter(1, classes.unsqueeze(1), float("-inf"))
    return true - others.logsumexp(1)


def _logit(logits: torch.Tensor, classes: torch.Tensor) -> torch.Tensor:
    """``z_y``."""
    return logits.float().gather(1, classes.unsqueeze(1)).squeeze(1)


def _log_probability(logits: torch.Tensor, classes: torch.Tensor) -> torch.Tensor:
    """``log p_y``; saturates where the model is sure."""
    return _logit(logits.float().log_softmax(1), classes)


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
    visit: Callable[[Site, torch.Tensor, torch.Tensor], None],
) -> None:
    """Show activation and gradient of the target, ``(B, T, N)`` each, of every site; one forward and one backward pass.

    ``hidden (B, T, d)`` is the input of the first layer; its own pair is shown as :data:`EMBEDDING`. A gradient is
    shown when the backward pass comes to it, from the last layer to the first, and not kept. A network that recomputes
    keeps the layers' inputs alone, and makes the graph of one layer at a time.
    """

    def look(site: Site, activation: Any, inner: torch.Tensor | None) -> None:
        if inner is None:
            seen = activation.detach()
            activation.register_hook(lambda gradient: visit(site, seen, gradient))
        else:  # autograd keeps this anyway, and not the activation: a fifth of the memory for a moment's work
            kept = inner.detach()
            activation.register_hook(lambda gradient: visit(site, torch.nn.functional.gelu(kept), gradient))

    def layer(number: int, hidden: torch.Tensor) -> torch.Tensor:
        state = network.state(number, hidden, context)
        for module in MODULES:
            look(Site(number, module), state.activations[module], state.inner if module == "intermediate" else None)
        return network.after(state)

    def of_head(hidden: torch.Tensor) -> torch.Tensor:
        return target(network.above(len(network.layers), hidden, context), classes).sum()

    inputs = [hidden.detach()]
    if network.recompute:
        with torch.no_grad():
            for number in range(len(network.layers)):
                inputs.append(network.after(network.state(number, inputs[-1], context)))
        top = inputs.pop().requires_grad_()
        (gradient,) = torch.autograd.grad(of_head(top), top)
        for number in reversed(range(len(network.layers))):
            top = inputs.pop().requires_grad_()
            (gradient,) = torch.autograd.grad(layer(number, top), top, gradient)
    else:
        top = hidden = inputs.pop().requires_grad_()
        for number in range(len(network.layers)):
            hidden = layer(number, hidden)
        value = of_head(hidden)
        del hidden
        (gradient,) = torch.autograd.grad(value, top)
    visit(EMBEDDING, top.detach(), gradient)


#: Points of a path whose number is to be found: the first try, doubled up to the last.
FEWEST_POINTS, MOST_POINTS = 4, 256

#: Target units (nats) in which nothing is worth another pass.
NEGLIGIBLE = 1e-4


def settled(
    now: np.ndarray, before: np.ndarray, gap: np.ndarray, tolerance: float, whole: np.ndarray | None = None
) -> np.ndarray:
    """Whether the attributions of a protein are as good as ``tolerance`` asks, ``(B,)``.

    Three conditions: the completeness gap is at most ``tolerance`` of ``whole``; the best 5 % of the neurons by half
    the points hold as much attribution as the best 5 % by all, up to ``tolerance`` of it, so that another doubling
    would hardly change who is selected; and the attributions by half the points differ (relative L2) by at most the
    root of ``tolerance``, since doubling the nodes of a Gauss rule about squares its error. The last two see what
    cancels in the first.

    Args:
        now: ``(B, N)`` attributions.
        before: ``(B, N)``, with half the points.
        gap: ``(B,)`` what the attributions sum to beyond what they should.
        tolerance: A share, above 0.
        whole: ``(B,)`` what the gap is compared with; the total absolute attribution if left out.
    """
    whole = np.abs(now).sum(1) if whole is None else whole
    size = max(1, round(0.05 * now.shape[1]))

    def held(by: np.ndarray) -> np.ndarray:
        best = np.argpartition(-by, size - 1, axis=1)[:, :size]
        found: np.ndarray = np.take_along_axis(now, best, 1)  # (B, size)
        return found

    ideal = held(now)
    lost = ideal.sum(1) - held(before).sum(1)
    small: np.ndarray = np.abs(gap) <= tolerance * whole + NEGLIGIBLE
    stable: np.ndarray = lost <= tolerance * np.abs(ideal).sum(1) + NEGLIGIBLE
    moved: np.ndarray = np.linalg.norm(now - before, axis=1)
    near: np.ndarray = moved <= tolerance**0.5 * np.linalg.norm(now, axis=1) + NEGLIGIBLE
    good: np.ndarray = small & stable & near
    return good


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
    classes = asked.classes
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
    batches = classifier.batches(asked.proteins, max(1, budget // (points or 2 * FEWEST_POINTS)))

    def work(batch: Batch, budget: int) -> _Found:
        wanted = torch.tensor(classes[batch.rows], device=device)
        network = networks[recompute or budget == LAST_RESORT]
        return _attribute(network, batch, wanted, changed(path, token_budget=budget), len(index))

    ids = asked.ids
    statistics = statistics_of(METHODS[0], rms)
    sums = GroupSums.empty(
        index, classifier.labels, ids, classes, asked.groups, *statistics, *([SHARED] if shared else [])
    )
    gaps = Completeness([(site.layer, site.module) for site in index.sites])
    done = in_order(splitting(work, budget), batches, device)
    for found in (one for parts in track(done, "integrated gradients", len(batches)) for one in parts):
        size = np.abs(found.attributions)
        values = token_sums(METHODS[0], found.attributions, rms)
        if shared:
            values[SHARED] = (found.attributions >= shared * found.attributions.max(1, keepdims=True)) & (size > 0)
        sums.add(found.rows, **values)
        got = np.add.reduceat(found.attributions, [part.start for part in path.slices.values()], axis=1)
        gaps.add([ids[row] for row in found.rows], found.expected, got, found.points, found.settled)
    settings: dict[str, Any] = {"points": points, "baseline": "zero" if baseline is None else "mean", "target": target}
    if not points:
        settings["tolerance"] = tolerance
    if shared:
        settings["shared"] = shared
    frame = gaps.frame()
    return tuple(finish(method, sums, settings, frame) for method in statistics)


def finish(
    method: str, sums: GroupSums, settings: Mapping[str, Any], completeness: pd.DataFrame | None = None
) -> NeuronScores:
    """Scores from the sums, and how many points the paths took."""
    return sums.finish(method, {**settings, **found_points(settings, completeness)}, completeness)


def found_points(settings: Mapping[str, Any], completeness: pd.DataFrame | None) -> dict[str, float]:
    """``mean_points`` and ``unsettled`` (a share) over proteins and sites, where the number of points was found."""
    if settings["points"] or completeness is None:
        return {}
    return {
        "mean_points": float(completeness["points"].mean()),
        "unsettled": float(1 - completeness["settled"].mean()),
    }


def check_points(points: int, tolerance: float) -> None:
    """Raise :class:`SelectionError` for a negative number of points, or a tolerance outside 0 to 1."""
    if points < 0:
        raise SelectionError(f"points = {points!r}: at least 1 is needed, or 0 for as many as the tolerance asks for")
    if not 0 < tolerance < 1:
        raise SelectionError(f"tolerance = {tolerance!r}: must be above 0 and below 1")


def bytes_per_token(classifier: Classifier) -> int:
    """About what one token of one forward and backward pass takes: activations, gradients, what autograd keeps."""
    return 6 * len(classifier.index) * int(classifier.model.dtype.itemsize)


def _attribute(network: AnyNetwork, batch: Batch, classes: torch.Tensor, path: _Path, n_neurons: int) -> _Found:
    """All sites of one batch."""
    sites = list(path.slices)
    shape = (len(batch.rows), len(sites))
    out, expected = np.zeros((len(batch.rows), n_neurons)), np.zeros(shape)
    points, good = np.zeros(shape, dtype=np.int32), np.ones(shape, dtype=bool)
    with torch.no_grad():
        hidden, context = network.embed(batch)
        full = path.target(network.above(0, hidden, context), classes)
    # From zero, query and key share their path; others than Network may normalise them.
    together = path.base is None and isinstance(network, Network)
    groups = [("query", "key"), *((m,) for m in MODULES[2:])] if together else [(m,) for m in MODULES]
    for layer in range(len(network.layers)):
        with torch.no_grad():
            state = network.state(layer, hidden, context)
        for modules in groups:
            bends = {
                m: network.bend(layer, m, state.activations[m], context)
                if path.base is None and isinstance(network, Hooked)
                else None
                for m in modules
            }
            starts = {m: _start(state.activations[m], path, Site(layer, m), context) for m in modules}
            for m in modules:
                s = sites.index(Site(layer, m))
                with torch.no_grad():
                    empty = path.target(network.resume(layer, state, m, starts[m], context), classes)
                expected[:, s] = (full - empty).double().cpu().numpy()
            before: dict[str, np.ndarray] = {}
            for n in path.tries():
                if isinstance(network, Network) and len(modules) > 1:
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


def _start(value: torch.Tensor, path: _Path, site: Site, context: Context) -> torch.Tensor:
    """Where the path of a site begins, ``(B, T, N)``."""
    if path.base is None:
        return torch.zeros_like(value)
    return at_tokens(path.base[:, path.slices[site]].to(value.dtype), value, context)


def _gradient(
    network: AnyNetwork,
    layer: int,
    state: State,
    module: str,
    start: torch.Tensor,
    context: Context,
    classes: torch.Tensor,
    path: _Path,
    n: int,
    bend: torch.Tensor | None,
) -> torch.Tensor:
    """``integral dF/da`` along the straight path from ``start`` to the activation, ``(B, T, N)`` float32.

    Where the activation reaches the residual stream by an affine map, the path is walked there, behind the attention
    or the feed-forward of its own layer, and the integral comes back through the map once.
    """
    end = state.activations[module]
    if not isinstance(network, Network) or module in ("query", "key"):
        return _integral(
            lambda leaf, many, wide: network.resume(layer, many, module, leaf, wide),
            start, end, state, context, classes, path, n, bend,
        )  # fmt: skip
    with torch.no_grad():
        bottom = network.added(layer, state, module, start, context)  # (B, T, d)
    leaf = end.detach().requires_grad_()
    top = network.added(layer, state, module, leaf, context)
    of_added = _integral(
        lambda added, many, wide: network.resume_added(layer, many, module, added, wide),
        bottom, top.detach(), state, context, classes, path, n,
    )  # fmt: skip
    if top is leaf:
        return of_added
    (gradient,) = torch.autograd.grad(top, leaf, of_added.to(top.dtype))
    return gradient.float()


def _integral(
    logits: Callable[[torch.Tensor, State, Context], torch.Tensor],
    start: torch.Tensor,
    end: torch.Tensor,
    state: State,
    context: Context,
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
    network: Network, layer: int, state: State, context: Context, classes: torch.Tensor, path: _Path, n: int
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
        mixed = network.attend(q, k, many.activations["value"], wide)
        logits = network.after_attention(layer, many.hidden, mixed, wide)
        value = path.target(logits, classes.repeat(len(nodes))).sum()
        of_query, of_key = (g.float() for g in torch.autograd.grad(value, (q, k)))
        totals[0].add_(torch.einsum("kb,kbtn->btn", weights, of_query.view(len(nodes), *query.shape)))
        totals[1].add_(torch.einsum("kb,kbtn->btn", weights / nodes, of_key.view(len(nodes), *key.shape)))
    return dict(zip(("query", "key"), totals, strict=True))


def _nodes(
    state: State, path: _Path, n: int, bend: torch.Tensor | None = None
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
    parts = -(-n // at_once)
    return list(zip(many(alphas, parts), many(sizes, parts), strict=True))


def _between(start: torch.Tensor, end: torch.Tensor, nodes: torch.Tensor) -> torch.Tensor:
    """Places on the straight line, ``(k B, T, M)``; computed in float32, given in the model's precision."""
    low, high = start.float(), end.float()
    return (low + nodes[:, :, None, None] * (high - low)).flatten(0, 1).to(end.dtype)


def _copies(state: State, k: int) -> State:
    """What parts of a forward pass read of a state, for ``k`` copies of the batch one after the other."""
    copies = {name: a.repeat(k, 1, 1) for name, a in state.activations.items() if name in ("query", "key", "value")}
    return State(state.hidden.repeat(k, 1, 1), state.middle.repeat(k, 1, 1), copies)
