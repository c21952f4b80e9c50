"""One encoder layer with most neurons held at constants, as small as it can be and still exact.

A neuron held at ``c`` needs no row of its weight: ``c`` stands in its place, or is added where the neuron is read::

    query, key, value      rows of held neurons go; a head that nobody reads goes; without rotary pairs in which both
                           query and key are there, all its scores are 0 and it is the mean of its values
    attention_output       rows of held neurons go, c joins the residual stream
    intermediate           rows go, and with them columns of output: c times the column joins the bias
    output                 as attention_output

Nothing is padded: the tokens of all proteins of a batch stand one after the other, and only attention looks at one
protein at a time. A constant may differ between the first token, the last token and residues.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby

import torch
import torch.nn.functional as F

from plmscope.models.classifier import Batch
from plmscope.models.network import Network


@dataclass(frozen=True)
class Layer:
    """Weights of one encoder layer."""

    query: torch.nn.Linear
    key: torch.nn.Linear
    value: torch.nn.Linear
    attention_output: torch.nn.Linear
    intermediate: torch.nn.Linear
    output: torch.nn.Linear
    norms: tuple[torch.nn.LayerNorm, torch.nn.LayerNorm]


@dataclass(frozen=True)
class Tokens:
    """The tokens of some proteins, one protein after the other, without padding.

    Attributes:
        hidden: ``(M, d)`` input of the first layer.
        firsts: ``(P,)`` where each protein begins.
        lasts: ``(P,)`` where each ends, inclusive.
        lengths: ``P`` token numbers; equal ones stand together.
        rotation: ``(M, d_head / 2)`` complex numbers that rotate queries and keys, or ``None``.
        rows: Which of the caller's proteins these are.
    """

    hidden: torch.Tensor
    firsts: torch.Tensor
    lasts: torch.Tensor
    lengths: list[int]
    rotation: torch.Tensor | None
    rows: list[int]

    @classmethod
    def of(cls, network: Network, batch: Batch) -> Tokens:
        """Embed a padded batch and drop its padding."""
        hidden, context = network.embed(batch)
        real = batch.attention_mask.bool()
        rotation = None
        if context.rotary is not None:
            cos, sin = (part[0, 0, :, : part.shape[-1] // 2].float() for part in context.rotary)  # (T, d_head / 2)
            rotation = torch.complex(cos, sin).expand(len(hidden), -1, -1)[real]
        lasts = batch.lengths.cumsum(0) - 1
        return cls(hidden[real], lasts - batch.lengths + 1, lasts, batch.lengths.tolist(), rotation, batch.rows)

    def runs(self) -> Iterator[tuple[int, int, int]]:
        """Neighbours of equal length: first token, number of proteins, tokens of each."""
        start = 0
        for length, group in groupby(self.lengths):
            n = len(list(group))
            yield start, n, length
            start += n * length

    @cached_property
    def protein(self) -> torch.Tensor:
        """``(M,)`` which protein each token belongs to."""
        return torch.repeat_interleave(torch.arange(len(self.lengths), device=self.firsts.device), self._lengths)

    @property
    def _lengths(self) -> torch.Tensor:
        return self.lasts - self.firsts + 1

    def fill(self, constants: torch.Tensor) -> torch.Tensor:
        """``(3, N)`` constants over all tokens, ``(M, N)``."""
        laid = constants[2].repeat(len(self.hidden), 1)
        laid[self.firsts], laid[self.lasts] = constants[0], constants[1]
        return laid

    def fill_firsts(self, constants: torch.Tensor) -> torch.Tensor:
        """``(3, N)`` constants over the first tokens, ``(P, N)``."""
        return constants[0].repeat(len(self.firsts), 1)

    def fill_means(self, constants: torch.Tensor) -> torch.Tensor:
        """The mean of :meth:`fill` over every protein, ``(P, N)``."""
        share = (1 / self._lengths.to(constants)).unsqueeze(1)  # (P, 1)
        return share * constants[0] + share * constants[1] + (1 - 2 * share) * constants[2]

    def rotate(self, x: torch.Tensor, width: int, places: torch.Tensor | None = None) -> torch.Tensor:
        """Rotary embedding of ``(M, modules, units)``, partners side by side, heads of ``width``; ``places`` alone."""
        if self.rotation is None:
            return x
        angle = self.rotation if places is None else self.rotation[places]  # (M, d_head / 2)
        pairs = torch.view_as_complex(x.float().view(*x.shape[:2], -1, width // 2, 2))
        return torch.view_as_real(pairs * angle[:, None, None]).flatten(2).to(x.dtype)

    def add(self, hidden: torch.Tensor, constants: torch.Tensor) -> None:
        """Add ``(3, N)`` constants to ``hidden``: ``(M, N)``, or ``(P, N)`` of the first tokens."""
        if len(hidden) == len(self.firsts):
            hidden += constants[0]
            return
        hidden += constants[2]
        for places, row in ((self.firsts, 0), (self.lasts, 1)):
            if not torch.equal(constants[row], constants[2]):
                hidden[places] += constants[row] - constants[2]


@dataclass(frozen=True)
class HeldUnits:
    """Which units of one module work, and what the others are held at.

    Attributes:
        works: ``(N,)`` booleans.
        constants: ``(3, N)``: first token, last token, residues; 0 where a unit works.
    """

    works: torch.Tensor
    constants: torch.Tensor


class _Added:
    """A module that writes to the residual stream: ``hidden += x W^T + b`` for the units that work, constants else."""

    def __init__(
        self, linear: torch.nn.Linear, held: HeldUnits, columns: torch.Tensor, extra: torch.Tensor | None = None
    ) -> None:
        """``columns`` are the inputs that are there; ``extra (3, N)`` joins the bias: what the others contribute."""
        self.units = None if bool(held.works.all()) else held.works.nonzero()[:, 0]
        weight, bias = linear.weight, linear.bias.expand(3, -1) if extra is None else linear.bias + extra
        if self.units is not None:
            weight, bias = weight[self.units], torch.where(held.works, bias, held.constants)
        self.weight, self.bias = weight[:, columns], bias

    def __call__(self, hidden: torch.Tensor, x: torch.Tensor, tokens: Tokens) -> None:
        """Add to ``hidden (M, d)`` in place, given ``x (M, number of columns)``."""
        tokens.add(hidden, self.bias)
        if self.units is None:
            hidden.addmm_(x, self.weight.T)
        elif len(self.units):
            hidden.index_add_(1, self.units, F.linear(x, self.weight))


class _Projection:
    """Some units of query, key or value: what works is computed, what is held is filled in."""

    def __init__(self, linears: Sequence[torch.nn.Linear], held: Sequence[HeldUnits], units: torch.Tensor) -> None:
        """``units`` are the wanted rows of every module, in the wanted order."""
        works = torch.cat([one.works[units] for one in held])  # (modules * units,)
        self.places = None if bool(works.all()) else works.nonzero()[:, 0]
        rows = [units[one.works[units]] for one in held]
        self.weight = torch.cat([linear.weight[row] for linear, row in zip(linears, rows, strict=True)])
        self.bias = torch.cat([linear.bias[row] for linear, row in zip(linears, rows, strict=True)])
        self.constants = torch.cat([one.constants[:, units] for one in held], 1)
        self.constant = bool(self.constants.any())
        self.shape = (len(linears), len(units))

    def __call__(self, x: torch.Tensor, fill: Callable[[torch.Tensor], torch.Tensor]) -> torch.Tensor:
        """``(M, d)`` to ``(M, modules, units)``; ``fill`` lays constants ``(3, N)`` out over the ``M`` rows."""
        y = F.linear(x, self.weight, self.bias)
        if self.places is not None:
            full = fill(self.constants) if self.constant else y.new_zeros(len(x), self.shape[0] * self.shape[1])
            y = full.index_copy_(1, self.places, y)
        return y.view(len(x), *self.shape)


class FoldedLayer:
    """One encoder layer with some of its neurons held.

    Args:
        layer: Its weights.
        held: Per module kind, which units are held, and at what.
        heads: Attention heads.
        rotary: Whether queries and keys are rotated, in pairs of units half a head apart.
        last: Whether only the first token goes on, as in the last layer.
    """

    def __init__(self, layer: Layer, held: Mapping[str, HeldUnits], heads: int, rotary: bool, last: bool) -> None:
        self.norms, self.last = layer.norms, last
        self.width = width = len(layer.query.bias) // heads

        def there(name: str) -> torch.Tensor:
            """Units that can be other than 0, ``(heads, d_head)``."""
            return (held[name].works | held[name].constants.any(0)).view(heads, width)

        def project(names: Sequence[str], units: torch.Tensor) -> _Projection:
            return _Projection([getattr(layer, name) for name in names], [held[name] for name in names], units)

        query, key, read = there("query"), there("key"), there("value").any(1)
        if rotary:  # a rotation mixes units half a head apart
            query, key = (one.view(heads, 2, -1).any(1) for one in (query, key))
        scored = (query & key).any(1)
        active, even = (scored & read).nonzero(), (~scored & read).nonzero()  # (heads, 1)
        self.heads = len(active)
        within = torch.arange(width, device=read.device)
        # Partners of a rotation side by side, as the parts of a complex number. The order within a head is free as
        # long as query and key have the same.
        pairs = (active * width + (within.view(2, -1).T.flatten() if rotary else within)).flatten()
        units = (active * width + within).flatten()
        self.scores = (
            [project([name], pairs) for name in ("query", "key")] if last else [project(["query", "key"], pairs)]
        )
        self.value = project(["value"], units)
        self.even = project(["value"], (even * width + within).flatten())
        columns = torch.cat([units, (even * width + within).flatten()])
        self.attention_output = _Added(layer.attention_output, held["attention_output"], columns)
        inner = held["intermediate"].works.nonzero()[:, 0]
        self.intermediate = layer.intermediate.weight[inner], layer.intermediate.bias[inner]
        constant = (layer.output.weight @ held["intermediate"].constants.T).T  # (3, d)
        self.output = _Added(layer.output, held["output"], inner, constant)

    def __call__(self, hidden: torch.Tensor, tokens: Tokens, mixed: torch.Tensor | None = None) -> torch.Tensor:
        """The layer's output ``(M, d)`` from its input, which is overwritten; ``(P, d)`` in the last layer.

        ``mixed`` is what :meth:`mix` gives, where it is known.
        """
        mixed = self.mix(hidden, tokens) if mixed is None else mixed
        if self.last:
            hidden = hidden[tokens.firsts]
        self.attention_output(hidden, mixed, tokens)
        return self.feed_forward(hidden, tokens)

    def mix(self, hidden: torch.Tensor, tokens: Tokens) -> torch.Tensor:
        """Values mixed by the attention ``(M, units)`` from the layer's input; ``(P, units)`` in the last layer."""
        x = self.norms[0](hidden)
        mixed = []
        if self.heads:
            mixed.append(self._attend(x, tokens))
        if self.even.shape[1]:
            mixed.append(self._means(x, tokens))
        if mixed:
            return torch.cat(mixed, 1)
        return hidden.new_empty((len(tokens.firsts) if self.last else len(hidden), 0))

    def feed_forward(self, hidden: torch.Tensor, tokens: Tokens) -> torch.Tensor:
        """The layer's output from what its attention left, which is overwritten."""
        inner = F.gelu(F.linear(self.norms[1](hidden), *self.intermediate))
        self.output(hidden, inner, tokens)
        return hidden

    def _attend(self, x: torch.Tensor, tokens: Tokens) -> torch.Tensor:
        """Mixed values of the heads with scores, ``(M, units)``, or ``(P, units)`` in the last layer."""
        if self.last:
            query = tokens.rotate(self.scores[0](x[tokens.firsts], tokens.fill_firsts), self.width, tokens.firsts)
            key = tokens.rotate(self.scores[1](x, tokens.fill), self.width)
        else:
            query, key = tokens.rotate(self.scores[0](x, tokens.fill), self.width).tensor_split(2, 1)
        value, out, protein = self.value(x, tokens.fill), torch.empty_like(query[:, 0]), 0
        for start, n, length in tokens.runs():
            rows, own = slice(start, start + n * length), slice(start, start + n * length)
            if self.last:
                own = slice(protein, protein + n)
                protein += n
            q, k, v = (
                part.view(n, -1, self.heads, self.width).transpose(1, 2)  # (n, heads, T or 1, d_head)
                for part in (query[own], key[rows], value[rows])
            )
            mixed = F.scaled_dot_product_attention(q, k, v, scale=self.width**-0.5)
            out[own] = mixed.transpose(1, 2).reshape(len(query[own]), -1)
        return out

    def _means(self, x: torch.Tensor, tokens: Tokens) -> torch.Tensor:
        """Mixed values of the heads that look everywhere alike: the value of the mean of ``x``, ``(M, units)``."""
        mean = torch.cat([x[s : s + n * t].view(n, t, -1).mean(1) for s, n, t in tokens.runs()])  # (P, d)
        value = self.even(mean, tokens.fill_means)[:, 0]
        return value if self.last else value[tokens.protein]
