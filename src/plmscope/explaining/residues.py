"""Which residues carry a decision: path attribution from the mean residue to the protein.

::

    x(alpha) = x' + alpha (x - x')       x': every residue is the mean of the twenty amino acids, special tokens kept
    A(r)     = sum over the embedding of (x_r - x'_r) * integral_0^1 dF/dx_r (x(alpha)) dalpha
    sum_r A(r) = F(x) - F(x')            what is missing is the completeness gap, which is told

Positive: the residue speaks for the class. ``through`` a set of neurons, the gradient is the part that passes them::

    dF/dx_r  ->  sum over the neurons of  dF/da * da/dx_r

so that its sum is what their conductances are together; a path that passes two of them counts twice.

The gradient is large where the protein begins to differ from the mean, near alpha 0.1, and small beyond. Points are
therefore spread by ``alpha(t) = c + b sinh(...)``, evenly in ``t``, which are densest there: a change of the variable,
exact in the limit as any other.

**The band** says what a residue of such a protein gets for nothing: the same for shuffled copies of the sequence, and
at every place the 5th and 95th percentile over the copies, as one more copy would lie beyond either with a chance of
one in twenty (Weibull's plotting position). By chance one residue in ten lies outside. Points are as few
as get the largest tenth of the protein's own residues, which is known better, right to 15 % on average, and are drawn
together once more where the integrand is large (:func:`gathered`), which matters for few.

Source: integrated gradients, Sundararajan et al., arXiv:1703.01365; conductance, Dhamdhere et al., arXiv:1805.12233.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from plmscope.data.proteins import AMINO_ACIDS, Protein
from plmscope.explaining.decision import Decision
from plmscope.models.architectures import MODULES
from plmscope.models.network import BatchContext
from plmscope.models.sites import Site
from plmscope.models.workers import in_order
from plmscope.scoring.conductance import path_start
from plmscope.scoring.paths import NEGLIGIBLE

#: Points of a path whose number is to be found: the first try, doubled up to the last.
FEWEST_POINTS, MOST_POINTS = 4, 64
#: Shuffled copies of the band, and its edges.
COPIES, BAND = 20, (0.05, 0.95)
#: Where the points of a path are densest, and how wide that is.
CENTRE, WIDTH = 0.15, 0.1
#: Points that are tried for the band, where they are densest, and how much they are drawn together.
BAND_POINTS, BAND_CENTRE, GATHER = (4, 5, 6, 8, 12, 16), 0.1, 3.0
#: Share of the residues by which the band's quadrature is judged, and its mean error there over their mean size.
JUDGED, BAND_ERROR = 0.1, 0.15


@dataclass(frozen=True)
class ResidueAttribution:
    """What every residue contributes to one decision.

    Attributes:
        values: ``(R,)`` in nats, signed; the special tokens, which the path does not move, have none.
        through: ``(R,)`` the part that passes the chosen neurons; ``None`` where none were chosen.
        end: F(x).
        start: F(x') at the mean residue.
        points: Intervals of the quadrature.
    """

    values: np.ndarray
    through: np.ndarray | None
    end: float
    start: float
    points: int

    @property
    def gap(self) -> float:
        """Sum of the residues less F(x) - F(x'), in nats."""
        return float(self.values.sum() - (self.end - self.start))


@dataclass(frozen=True)
class Band:
    """The band of attributions that a residue gets at the same place in shuffled copies of the protein.

    Attributes:
        low, high: ``(R,)`` percentiles over the copies.
        copies: How many.
        points: Mean number of points of the quadrature of each.
        gap: Mean absolute completeness gap of the copies, in nats.
        p_value: That a shuffled copy has as many residues outside the band of the others, :func:`outside_p`.
        error: Of as many points on the protein itself: mean error of the tenth of its residues with the largest
            attribution, over their mean absolute attribution.
    """

    low: np.ndarray
    high: np.ndarray
    copies: int
    points: float
    gap: float
    error: float
    p_value: float

    @classmethod
    def none(cls, length: int) -> Band:
        """No band: its edges are NaN, nothing is outside."""
        return cls(np.full(length, np.nan), np.full(length, np.nan), 0, 0.0, *[float("nan")] * 3)

    def outside(self, values: np.ndarray) -> np.ndarray:
        """Which residues lie outside the band, ``(R,)``."""
        beyond: np.ndarray = (values < self.low) | (values > self.high)
        return beyond


def residue_attribution(
    decision: Decision,
    through: np.ndarray | None = None,
    *,
    points: int = 0,
    tolerance: float = 0.1,
    token_budget: int = 1024,
) -> ResidueAttribution:
    """Attribute one decision to its residues.

    Args:
        decision: Protein and class.
        through: ``(N,)`` neurons through which it is attributed too.
        points: Intervals of a Clenshaw-Curtis rule in ``t``, even, one state more; 0: 4, 8, 16, ... 64, each with the
            states of the one before, until the gap is at most ``tolerance`` of the absolute attribution, and what the
            last doubling changed at most twice that, since it is about five times what is still wrong.
        tolerance: What is asked of a number of points that is found.
        token_budget: Tokens times states at once.
    """
    path = _Path.of(decision)
    known: dict[float, np.ndarray] = {}
    before: np.ndarray | None = None
    n = points or FEWEST_POINTS
    while True:
        nodes, weights = spread(*clenshaw_curtis(n))
        new = [node for node in nodes.tolist() if node not in known]
        at_once = max(1, token_budget // path.change.shape[1])
        groups = [new[start : start + at_once] for start in range(0, len(new), at_once)]
        values = in_order(lambda group: path.products(group, through), groups, decision.classifier.device)
        known |= dict(zip(new, np.concatenate(list(values)), strict=True))
        attributed = np.einsum("k,kct->ct", weights, np.stack([known[node] for node in nodes.tolist()]))  # (1 or 2, T)
        one = path.result(attributed, n)
        whole = np.abs(one.values).sum()
        moved = np.inf if before is None else np.abs(one.values - before).sum()
        if points or n >= MOST_POINTS or max(abs(one.gap), moved / 2) <= tolerance * whole + NEGLIGIBLE:
            return one
        before, n = one.values, 2 * n


def shuffled_band(
    decision: Decision,
    known: ResidueAttribution,
    *,
    copies: int = COPIES,
    points: int = 0,
    tolerance: float = 0.2,
    seed: int = 0,
    token_budget: int = 1024,
) -> Band:
    """The band of a protein: the same class attributed in shuffled copies of its sequence.

    Args:
        decision: Protein and class.
        known: Its own attribution, by which points are judged.
        copies: 20 or more, so that a twentieth of them is one.
        points: Gauss-Legendre points of every copy, :func:`gathered`; 0: 4, 5, 6, 8, 12, ... until the error on the
            protein itself is below :data:`BAND_ERROR`. Doubled for a copy while its gap is above ``tolerance`` of its
            absolute attribution: a percentile asks for less than the attribution that it is compared with.
        tolerance: See ``points``.
        seed: Of the shuffling.
        token_budget: Tokens times points at once.
    """
    own = _Path.of(decision)

    def by_points(path: _Path, n: int) -> ResidueAttribution:
        nodes, weights = gathered(n)
        at_once = max(1, token_budget // path.change.shape[1])
        values = [path.products(nodes[i : i + at_once].tolist(), None) for i in range(0, n, at_once)]
        return path.result(np.einsum("k,kct->ct", weights, np.concatenate(values)), n)

    def attributed(protein: Protein) -> ResidueAttribution:
        path, n = _Path.of(replace(decision, protein=protein), own), most
        while True:
            one = by_points(path, n)
            if n >= MOST_POINTS or abs(one.gap) <= tolerance * np.abs(one.values).sum() + NEGLIGIBLE:
                return one
            n *= 2

    size = np.abs(known.values)
    judged = size >= np.quantile(size, 1 - JUDGED)
    for most in (points,) if points else BAND_POINTS:
        wrong = np.abs(by_points(own, most).values - known.values)[judged]
        error = float(wrong.mean() / max(size[judged].mean(), NEGLIGIBLE))
        if error <= BAND_ERROR:
            break
    shuffled = shuffled_copies(decision.protein, copies, seed)
    maps = list(in_order(attributed, shuffled, decision.classifier.device))
    values = np.array([one.values for one in maps])
    low, high = np.quantile(values, BAND, axis=0, method="weibull")
    return Band(low, high, copies, float(np.mean([one.points for one in maps])),
                float(np.mean([abs(one.gap) for one in maps])), error, outside_p(known.values, values))  # fmt: skip


def outside_p(own: np.ndarray, copies: np.ndarray) -> float:
    """Whether more residues lie outside the band than chance puts there.

    Each of the copies takes the protein's place once: how many of its residues lie outside the band of all others?

    Args:
        own: ``(R,)`` attributions of the protein.
        copies: ``(K, R)`` those of its shuffled copies.

    Returns:
        Share of the protein and its copies with as many outside as the protein, 1 / (K + 1) at least. Exact where the
        order of the residues does not matter, however much neighbours have in common.
    """
    every, counts = np.concatenate([own[None], copies]), []
    for row, one in enumerate(every):
        low, high = np.quantile(np.delete(every, row, axis=0), BAND, axis=0, method="weibull")
        counts.append(int(((one < low) | (one > high)).sum()))
    return float(np.mean(np.array(counts) >= counts[0]))


def shuffled_copies(protein: Protein, copies: int, seed: int) -> list[Protein]:
    """The same residues in other orders; a copy depends on the seed, its number and the length."""
    letters = np.array(list(protein.sequence))
    orders = (np.random.default_rng([seed, 21, number]).permutation(len(letters)) for number in range(copies))
    return [replace(protein, sequence="".join(letters[order])) for order in orders]


def clenshaw_curtis(n: int) -> tuple[np.ndarray, np.ndarray]:
    """Nodes and weights ``(n + 1,)`` on 0 to 1 for even ``n``; the nodes of ``n`` are among those of ``2 n``.

    >>> nodes, weights = clenshaw_curtis(4)
    >>> bool(np.isclose(weights @ nodes**4, 1 / 5))
    True

    References:
        Clenshaw and Curtis 1960, doi:10.1007/BF01386223.
    """
    k, j = np.arange(n + 1), np.arange(1, n // 2 + 1)
    b = np.where(j == n // 2, 1.0, 2.0)
    inner = 1 - (b / (4 * j**2 - 1) * np.cos(2 * np.pi * np.outer(k, j) / n)).sum(1)
    weights = np.where((k == 0) | (k == n), 1.0, 2.0) / n * inner / 2
    return np.round((1 - np.cos(np.pi * k / n)) / 2, 12), weights


def gathered(n: int) -> tuple[np.ndarray, np.ndarray]:
    """Gauss-Legendre nodes and weights ``(n,)`` in alpha for a band's few points.

    In ``t`` the gradient is a bell: small at both ends. A second change of the variable, ``t = 1/2 + sinh(...)``, is
    steep at the ends and flat in the middle, where the points then are.

    >>> alpha, weights = gathered(8)
    >>> bool(np.isclose(weights.sum(), 1, atol=1e-2)), bool((np.diff(alpha) > 0).all())
    (True, True)
    """
    x, weights = np.polynomial.legendre.leggauss(n)
    scale = GATHER / (2 * np.sinh(GATHER / 2))
    t = 0.5 + np.sinh(GATHER * x / 2) * scale / GATHER
    return spread(t, weights / 2 * scale * np.cosh(GATHER * x / 2), BAND_CENTRE)


def spread(t: np.ndarray, weights: np.ndarray, centre: float = CENTRE) -> tuple[np.ndarray, np.ndarray]:
    """Nodes and weights in alpha from those of a rule in ``t``, both on 0 to 1; densest around ``centre``.

    >>> alpha, weights = spread(*clenshaw_curtis(16))
    >>> bool(np.isclose(weights.sum(), 1, atol=1e-3)), float(alpha[0]), float(alpha[-1])
    (True, 0.0, 1.0)
    """
    low, high = np.arcsinh(-centre / WIDTH), np.arcsinh((1 - centre) / WIDTH)
    at = low + t * (high - low)
    alpha = np.clip(np.round(centre + WIDTH * np.sinh(at), 12), 0, 1)
    return alpha, weights * WIDTH * (high - low) * np.cosh(at)


@dataclass(frozen=True)
class _Path:
    """The straight path of one protein.

    Attributes:
        decision: Protein and class.
        start, change: ``(1, T, d)`` float32: x' and x - x'.
        context: What the layers share.
        edges: F(x) and F(x').
    """

    decision: Decision
    start: torch.Tensor
    change: torch.Tensor
    context: BatchContext
    edges: tuple[float, float]

    @classmethod
    def of(cls, decision: Decision, like: _Path | None = None) -> _Path:
        """The path of a decision; ``like`` is that of a protein of the same length, which begins at the same place."""
        network, batch = decision.network, decision.batch

        def value(hidden: torch.Tensor) -> float:
            return decision.target(network.above(0, hidden, context), decision.classes(1)).item()

        with torch.no_grad():
            end, context = network.embed(batch)
            if like is not None:
                return cls(decision, like.start, end.float() - like.start, context, (value(end), like.edges[1]))
            letters = [int(decision.classifier.encode(letter)[1]) for letter in AMINO_ACIDS]
            start = path_start(network, batch, letters, "mean_embedding")
            return cls(decision, start.float(), end.float() - start.float(), context, (value(end), value(start)))

    def products(self, nodes: Sequence[float], through: np.ndarray | None) -> np.ndarray:
        """Gradient times change at some nodes: ``(k, 1, T)``, or ``(k, 2, T)`` with what passes neurons."""
        decision, k = self.decision, len(nodes)
        alphas = torch.tensor(nodes, dtype=torch.float32, device=self.change.device).view(-1, 1, 1)
        dtype: torch.dtype = decision.classifier.model.dtype
        hidden = (self.start + alphas * self.change).to(dtype).requires_grad_()  # (k, T, d)
        context = self.context.repeat(k)
        if through is None:
            value = decision.target(decision.network.above(0, hidden, context), decision.classes(k)).sum()
            gradients = torch.autograd.grad(value, hidden)
        else:
            gradients = _gradients_through(decision, hidden, context, through)
        per_token = torch.stack([(gradient.float() * self.change).sum(-1) for gradient in gradients], dim=1)
        products: np.ndarray = per_token.double().cpu().numpy()
        return products

    def result(self, of_tokens: np.ndarray, points: int) -> ResidueAttribution:
        """Without the special tokens, ``of_tokens (1 or 2, T)``."""
        through = of_tokens[1][1:-1] if len(of_tokens) > 1 else None
        return ResidueAttribution(of_tokens[0][1:-1], through, *self.edges, points)


def _gradients_through(
    decision: Decision, hidden: torch.Tensor, context: BatchContext, chosen: np.ndarray
) -> tuple[torch.Tensor, torch.Tensor]:
    """The gradient of F at the first layer's input ``(k, T, d)``, all of it and what passes the chosen neurons."""
    network, index = decision.network, decision.classifier.index
    passed: list[tuple[torch.Tensor, torch.Tensor]] = []
    h = hidden
    for number in range(len(network.layers)):
        state = network.state(number, h, context)
        for module in MODULES:
            mask = chosen[index.slice(Site(number, module))]
            if mask.any():
                passed.append((state.activations[module], torch.from_numpy(mask).to(hidden)))
        h = network.after(state)
    value = decision.target(network.above(len(network.layers), h, context), decision.classes(len(hidden))).sum()
    activations = [a for a, _ in passed]
    whole, *of_activations = torch.autograd.grad(value, [hidden, *activations], retain_graph=True)
    if not passed:
        return whole, torch.zeros_like(whole)
    # What reaches the residue from the chosen neurons, each weighed by its own gradient.
    weights = [gradient * mask for gradient, (_, mask) in zip(of_activations, passed, strict=True)]
    (part,) = torch.autograd.grad(activations, hidden, weights)
    return whole, part
