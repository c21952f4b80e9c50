"""Which neurons carry a decision: the path attribution of every neuron in one protein, and at which residues.

For every site, its activation moved from the ablation mean to what it is in this protein, all else as usual::

    contribution = sum over tokens of (a - a') * integral_0^1 dF/da (a' + alpha (a - a')) dalpha

the integrated gradients of :mod:`plmscope.scoring.integrated_gradients` for a single protein. Positive: held at its
mean, the neuron would speak less for the class. Per site the contributions sum to F(x) - F(site held); the gap of
every site is told. The sum over tokens is taken last, so that of the strongest neurons it is known where in the
protein they act.

Source: Dai et al., arXiv:2104.08696. Departs from it as :mod:`plmscope.scoring.integrated_gradients` does.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from plmscope.explaining.decision import Decision
from plmscope.explaining.residues import MOST_POINTS
from plmscope.models.architectures import MODULES
from plmscope.models.network import BatchContext, LayerState, at_tokens
from plmscope.models.sites import Site
from plmscope.models.workers import in_order
from plmscope.scoring.paths import NEGLIGIBLE, through_the_stream


@dataclass(frozen=True)
class Contributions:
    """What every neuron contributes to one decision.

    Attributes:
        values: ``(N,)`` in nats, signed.
        expected: ``(S,)`` what those of every site sum to, F(x) - F(site held).
        got: ``(S,)`` what they do sum to.
        points: ``(S,)`` of the quadrature.
        places: Position of a strong neuron to its contribution at every token, ``(T,)``; a single token in the last
            layer, where the head reads no other.
    """

    values: np.ndarray
    expected: np.ndarray
    got: np.ndarray
    points: np.ndarray
    places: dict[int, np.ndarray]

    @property
    def gap(self) -> float:
        """Mean absolute completeness gap of the sites, in nats."""
        return float(np.abs(self.got - self.expected).mean())

    def strongest(self, supporting: int, opposing: int) -> list[int]:
        """Positions of the neurons with the largest contributions, then of those with the most negative ones."""
        order = np.argsort(-self.values, kind="stable")
        best = [int(n) for n in order[:supporting] if self.values[n] > 0]
        return best + [int(n) for n in order[::-1][:opposing] if self.values[n] < 0]


def contributions(
    decision: Decision,
    constants: np.ndarray | None,
    *,
    points: int = 4,
    tolerance: float = 0.1,
    top: int = 20,
    token_budget: int = 1024,
) -> Contributions:
    """Attribute one decision to every neuron.

    Args:
        decision: Protein and class.
        constants: ``(3, N)`` ablation means at the first token, the last token and residues; ``None``: zero.
        points: Gauss-Legendre points a site, doubled up to 64 while the site's gap is above ``tolerance`` of its
            absolute attribution.
        tolerance: See ``points``.
        top: How many neurons of either sign are kept residue by residue.
        token_budget: Tokens times points at once.
    """
    network, index, device = decision.network, decision.classifier.index, decision.classifier.device
    base = None if constants is None else torch.tensor(constants, dtype=torch.float32, device=device)
    values = np.zeros(len(index))
    expected, got, used = (np.zeros(len(index.sites)) for _ in range(3))
    places: dict[int, np.ndarray] = {}
    with torch.no_grad():
        hidden, context = network.embed(decision.batch)
        inputs = [hidden]
        for number in range(len(network.layers)):
            inputs.append(network.after(network.state(number, inputs[-1], context)))
        full = decision.target(network.above(0, hidden, context), decision.classes(1)).item()

    def layer(number: int) -> list[tuple[Site, float, int, torch.Tensor]]:
        """Every site of a layer: the sum it should have, its points, contributions of tokens and neurons ``(T, N)``."""
        gradients = []
        with torch.no_grad():
            state = network.state(number, inputs[number], context)
        for module in MODULES:
            site = Site(number, module)
            end = state.activations[module].detach()
            start = torch.zeros_like(end)
            if base is not None:
                start = at_tokens(base[:, index.slice(site)].to(end.dtype), end, context)
            with torch.no_grad():
                held = decision.target(network.resume(number, state, module, start, context), decision.classes(1))
            expected, n = full - held.item(), points
            while True:
                gradient = _path_gradient(decision, number, state, module, start, end, context, n, token_budget)
                of_token = (gradient * (end.float() - start.float()))[0].double()  # (T, N)
                of_neuron = of_token.sum(0)
                gap = abs(float(of_neuron.sum()) - expected)
                if n >= MOST_POINTS or gap <= tolerance * float(of_neuron.abs().sum()) + NEGLIGIBLE:
                    break
                n *= 2
            gradients.append((site, expected, n, of_token))
        return gradients

    done = in_order(layer, range(len(network.layers)), device)
    for site, change, n, of_token in (one for sites in done for one in sites):
        s, offset = index.sites.index(site), index.offsets[site]
        of_neuron = of_token.sum(0).cpu().numpy()
        values[index.slice(site)], expected[s], got[s], used[s] = of_neuron, change, of_neuron.sum(), n
        order = np.argsort(-of_neuron, kind="stable")
        for unit in {*order[:top].tolist(), *order[-top:].tolist()}:
            places[offset + unit] = of_token[:, unit].cpu().numpy()
    return Contributions(values, expected, got, used, places)


def _path_gradient(
    decision: Decision,
    number: int,
    state: LayerState,
    module: str,
    start: torch.Tensor,
    end: torch.Tensor,
    context: BatchContext,
    points: int,
    token_budget: int,
) -> torch.Tensor:
    """``integral dF/da`` along the straight path from ``start`` to ``end (1, T, N)``, float32.

    Where the activation reaches the residual stream by an affine map, see
    :func:`~plmscope.scoring.paths.through_the_stream`.
    """
    return through_the_stream(
        decision.network, number, state, module, start, end, context,
        lambda logits, bottom, top: _integral(decision, state, bottom, top, context, points, token_budget, logits),
    )  # fmt: skip


def _integral(
    decision: Decision,
    state: LayerState,
    start: torch.Tensor,
    end: torch.Tensor,
    context: BatchContext,
    points: int,
    token_budget: int,
    logits: Callable[[torch.Tensor, LayerState, BatchContext], torch.Tensor],
) -> torch.Tensor:
    """Gauss-Legendre sum of the gradients of F between ``start`` and ``end (1, T, M)``."""
    x, w = np.polynomial.legendre.leggauss(points)
    nodes, weights = (torch.from_numpy(part.astype(np.float32)).to(end.device) for part in ((x + 1) / 2, w / 2))
    total = torch.zeros_like(end, dtype=torch.float32)
    at_once = max(1, token_budget // state.hidden.shape[1])
    for first in range(0, points, at_once):
        part = slice(first, min(points, first + at_once))
        k = part.stop - first
        low, high = start.float(), end.float()
        leaf = (low + nodes[part].view(-1, 1, 1) * (high - low)).to(end.dtype).requires_grad_()  # (k, T, M)
        value = decision.target(logits(leaf, copies(state, k), context.repeat(k)), decision.classes(k)).sum()
        (gradient,) = torch.autograd.grad(value, leaf)
        total += torch.einsum("k,ktm->tm", weights[part], gradient.float())
    return total


def copies(state: LayerState, k: int) -> LayerState:
    """The state of one protein as a batch of ``k``, without copying memory."""
    inputs = {name: a.expand(k, -1, -1) for name, a in state.activations.items() if name in ("query", "key", "value")}
    return LayerState(state.hidden.expand(k, -1, -1), state.middle.expand(k, -1, -1), inputs)
