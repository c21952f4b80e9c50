"""What every way to run a model in parts offers: one set of methods, whatever the architecture.

Scorers, evaluation and explanations work on a :class:`Network` and ask for nothing else::

    hidden, context = network.embed(batch)             the first layer's input, and all else that layers are given
    state = network.state(n, hidden, context)          layer n, its six activations
    network.resume(n, state, "key", activation, ...)   logits with one activation replaced
    network.held_logits(batches, slices)               logits with neurons held at constants, for many selections
    network.scaled(factors)                            the network with activations multiplied

The fast one, :class:`~plmscope.models.esm.EsmNetwork`, spells ESM out; :class:`~plmscope.models.hooked.Hooked` runs any
architecture's own layers. Which one a classifier gets is decided by :func:`~plmscope.models.hooked.network_of`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sized
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np
import torch
from torch.utils.checkpoint import checkpoint

from plmscope.models.classifier import Batch, Batches
from plmscope.models.sites import Site
from plmscope.models.workers import splitting

#: Protein numbers and logits ``(B, C)``, batch by batch.
Logits = Iterable[tuple[list[int], torch.Tensor]]
#: The logits of some proteins, given the neurons that work ``(N,)`` and the constants ``(3, N)`` of the others: at the
#: first token, the last token and residues.
HeldLogits = Callable[[np.ndarray, np.ndarray], Logits]


@dataclass(frozen=True)
class BatchContext:
    """What every layer of one batch shares: rotary angles, attention mask, places of the last tokens.

    ``layer_inputs`` is what Hugging Face's own layers take besides their input, where those are run
    (:mod:`plmscope.models.hooked`): positional and named arguments.
    """

    rotary: tuple[torch.Tensor, torch.Tensor] | None
    mask: torch.Tensor | None
    ends: torch.Tensor
    layer_inputs: tuple[tuple[Any, ...], dict[str, Any]] = ((), {})

    def repeat(self, times: int) -> BatchContext:
        """The same context for ``times`` copies of the batch, one after the other."""
        mask = None if self.mask is None else self.mask.repeat(times, 1, 1, 1)
        return replace(self, mask=mask, ends=self.ends.repeat(times))


@dataclass(frozen=True)
class LayerState:
    """Activations of one layer of one batch.

    Attributes:
        hidden: ``(B, T, d)`` the layer's input; ``middle`` the residual stream after attention.
        activations: One ``(B, T, N)`` per module kind; in the last layer, those after the attention have ``T`` = 1.
        inner: ``(B, T, N)`` what ``intermediate`` is the GELU of, where that is known.
    """

    hidden: torch.Tensor
    middle: torch.Tensor
    activations: dict[str, torch.Tensor] = field(default_factory=dict)
    inner: torch.Tensor | None = None


class Network(Protocol):
    """A sequence classifier as a function of parts of it; the model itself is never changed."""

    @property
    def layers(self) -> Sized:
        """One entry a layer."""

    @property
    def recompute(self) -> bool:
        """Whether a differentiated pass keeps the layers' inputs alone and runs each layer again."""

    @property
    def bilinear(self) -> bool:
        """Whether ``alpha q . k`` and ``q . alpha k`` are known to be the same scores, so that their paths are one."""

    def embed(self, batch: Batch) -> tuple[torch.Tensor, BatchContext]:
        """Input of the first layer ``(B, T, d)``, and what else the layers are given."""

    def state(self, number: int, hidden: torch.Tensor, context: BatchContext) -> LayerState:
        """All six activations of layer ``number``, given its input ``(B, T, d)``."""

    def after(self, state: LayerState) -> torch.Tensor:
        """What a layer hands on: the input of the next one, ``(B, T, d)``."""

    def above(self, number: int, hidden: torch.Tensor, context: BatchContext) -> torch.Tensor:
        """Logits ``(B, C)`` from the input of layer ``number`` upward; at the number of layers, the head alone."""

    def logits(self, batch: Batch) -> torch.Tensor:
        """Logits ``(B, C)``: the whole forward pass."""

    def resume(
        self, number: int, state: LayerState, module: str, activation: torch.Tensor, context: BatchContext
    ) -> torch.Tensor:
        """Logits ``(B, C)`` when one module of layer ``number`` has the given activation and all below is ``state``."""

    def added(
        self, number: int, state: LayerState, module: str, activation: torch.Tensor, context: BatchContext
    ) -> torch.Tensor:
        """The activation as far up as an affine map takes it, where a straight path of it is straight too.

        That is what it puts on the residual stream, where the network knows this; else the activation itself.
        """

    def resume_added(
        self, number: int, state: LayerState, module: str, added: torch.Tensor, context: BatchContext
    ) -> torch.Tensor:
        """Logits ``(B, C)`` from what :meth:`added` gave."""

    def bend(self, number: int, module: str, activation: torch.Tensor, context: BatchContext) -> torch.Tensor | None:
        """Where the straight path from zero to an activation ``(B, T, N)`` bends, ``(B,)``; ``None``: nowhere."""

    def held_logits(self, batches: Batches, slices: Mapping[Site, slice]) -> HeldLogits:
        """The logits of the proteins under many selections; ``slices`` says where each site is in flat arrays."""

    def scaled(self, factors: Mapping[Site, np.ndarray]) -> AbstractContextManager[Network]:
        """The network with the activations of some sites multiplied by factors ``(N,)``, while the context lasts."""


def logits_of(network: Network, batches: Batches) -> Iterator[tuple[list[int], torch.Tensor]]:
    """Protein numbers and logits ``(B, C)``, batch by batch; what does not fit into memory in parts."""

    def work(batch: Batch, _: int) -> tuple[list[int], torch.Tensor]:
        return batch.rows, network.logits(batch)

    for batch in batches:
        yield from splitting(work, 0)(batch)


def scaled_logits(
    network: Network, batches: Batches, slices: Mapping[Site, slice], mask: np.ndarray, factor: float
) -> Logits:
    """Protein numbers and logits with the activations of a selection ``(N,)`` multiplied by a factor."""
    factors = {site: np.where(mask[part], factor, 1.0) for site, part in slices.items() if mask[part].any()}
    with network.scaled(factors) as scaled:
        yield from logits_of(scaled, batches)


def run_layer(layer: Callable[[torch.Tensor], torch.Tensor], hidden: torch.Tensor, recompute: bool) -> torch.Tensor:
    """``layer(hidden)``; with ``recompute`` autograd keeps ``hidden`` alone."""
    if not recompute:
        return layer(hidden)
    after: torch.Tensor = checkpoint(layer, hidden, use_reentrant=False, preserve_rng_state=False)
    return after


def at_tokens(constants: torch.Tensor, value: torch.Tensor, context: BatchContext) -> torch.Tensor:
    """Constants ``(3, N)`` laid out over the tokens of ``value (B, T, N)``: first token, last token, residues."""
    laid = constants[2].expand_as(value).clone()
    laid[:, 0] = constants[0]
    if value.shape[1] > 1:
        laid[torch.arange(len(value), device=value.device), context.ends] = constants[1]
    return laid
