"""Which neurons carry a decision: the path attribution of every neuron in one protein, and at which residues.

For every site, its activation moved from the ablation mean to what it is in this protein, all else as usual::

    contribution = sum over tokens of (a - a') * integral_0^1 dF/da (a' + alpha (a - a')) dalpha

the integrated gradients of :mod:`plmscope.scoring.integrated_gradients` for a single protein. Positive: held at its
mean, the neuron would speak less for the class. Per site the contributions sum to F(x) - F(site held); the gap of
every site is told. The sum over tokens is taken last, so that of the strongest neurons it is known where in the
protein they act.

Two things are not computed twice. The path of ``intermediate`` is that of ``output`` on the residual stream, since a
linear map takes means to means: the integral is taken once and comes back through the map for the other. And above the
first layer paths are nearly straight for F: half of the points do there, unless the gradients at both halves of the
path say otherwise.

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

#: Two paths on the residual stream are the same if their starts differ by this share of their length.
SAME = 1e-4
#: Gradients at the two halves of a path that differ by more than this share of their mean ask for more points.
UNEVEN = 1.0

#: Logits as a function of what a module adds, for copies of a protein.
ResumedLogits = Callable[[torch.Tensor, LayerState, BatchContext], torch.Tensor]


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
        points: Gauss-Legendre points of a site of the first layer, half as many above; doubled up to 64 while the
            site's gap is above ``tolerance`` of its absolute attribution, or, in the first try above the first layer,
            the path is :data:`UNEVEN`.
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
        integrals: dict[int, tuple[torch.Tensor, torch.Tensor, torch.Tensor, float]] = {}
        # The output module first: what is integrated for it serves the one below.
        for module in reversed(MODULES):
            site = Site(number, module)
            end = state.activations[module].detach()
            start = torch.zeros_like(end)
            if base is not None:
                start = at_tokens(base[:, index.slice(site)].to(end.dtype), end, context)
            with torch.no_grad():
                held = decision.target(network.resume(number, state, module, start, context), decision.classes(1))
            expected, n, uneven = full - held.item(), points, 0.0
            if number and points > 1:
                n = -(-points // 2)

            while True:

                def integral(
                    logits: ResumedLogits, bottom: torch.Tensor, top: torch.Tensor, module: str = module, n: int = n
                ) -> torch.Tensor:
                    nonlocal uneven
                    if module == "intermediate" and n in integrals:
                        low, high, gradient, uneven = integrals[n]
                        if _same(low, high, bottom, top):
                            return gradient
                    gradient, uneven = _integral(decision, state, bottom, top, context, n, token_budget, logits)
                    if module == "output":
                        integrals[n] = bottom, top, gradient, uneven
                    return gradient

                gradient = through_the_stream(network, number, state, module, start, end, context, integral)
                of_token = (gradient * (end.float() - start.float()))[0].double()  # (T, N)
                of_neuron = of_token.sum(0)
                gap = abs(float(of_neuron.sum()) - expected)
                fine = gap <= tolerance * float(of_neuron.abs().sum()) + NEGLIGIBLE
                if n >= MOST_POINTS or (fine and (n >= points or uneven <= UNEVEN)):
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


def _same(start: torch.Tensor, end: torch.Tensor, bottom: torch.Tensor, top: torch.Tensor) -> bool:
    """Whether two straight paths of tensors of one shape are one."""
    if start.shape != bottom.shape or end.shape != top.shape:
        return False
    apart = torch.linalg.vector_norm(start - bottom) + torch.linalg.vector_norm(end - top)
    return bool(apart <= SAME * torch.linalg.vector_norm(end - start))


def _integral(
    decision: Decision,
    state: LayerState,
    start: torch.Tensor,
    end: torch.Tensor,
    context: BatchContext,
    points: int,
    token_budget: int,
    logits: ResumedLogits,
) -> tuple[torch.Tensor, float]:
    """Gauss-Legendre sum of the gradients of F between ``start`` and ``end (1, T, M)``, and how uneven they are.

    Uneven: what the two halves of the path differ by over what they sum to, L2 of gradient times change.
    """
    x, w = np.polynomial.legendre.leggauss(points)
    nodes, weights, sides = (
        torch.from_numpy(part.astype(np.float32)).to(end.device) for part in ((x + 1) / 2, w / 2, np.sign(x) * w / 2)
    )
    total, apart = (torch.zeros_like(end, dtype=torch.float32) for _ in range(2))
    at_once = max(1, token_budget // state.hidden.shape[1])
    low, high = start.float(), end.float()
    for first in range(0, points, at_once):
        part = slice(first, min(points, first + at_once))
        k = part.stop - first
        leaf = (low + nodes[part].view(-1, 1, 1) * (high - low)).to(end.dtype).requires_grad_()  # (k, T, M)
        value = decision.target(logits(leaf, copies(state, k), context.repeat(k)), decision.classes(k)).sum()
        (gradient,) = torch.autograd.grad(value, leaf)
        total += torch.einsum("k,ktm->tm", weights[part], gradient.float())
        apart += torch.einsum("k,ktm->tm", sides[part], gradient.float())
    size, difference = (float(torch.linalg.vector_norm(part * (high - low))) for part in (total, apart))
    return total, difference / max(size, 1e-30)


def copies(state: LayerState, k: int) -> LayerState:
    """The state of one protein as a batch of ``k``, without copying memory."""
    inputs = {name: a.expand(k, -1, -1) for name, a in state.activations.items() if name in ("query", "key", "value")}
    return LayerState(state.hidden.expand(k, -1, -1), state.middle.expand(k, -1, -1), inputs)
