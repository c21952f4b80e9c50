"""Logits of a model in which some neurons are held at constants or multiplied, whatever its architecture.

Holding folds the neurons into the network where that is possible and hooks them elsewhere; multiplying changes a
module's weights, or its output. Both are exact, and the model itself is never changed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from copy import copy
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from plmscope.models import hooks
from plmscope.models.architectures import MODULES
from plmscope.models.classifier import Batches
from plmscope.models.folded import Folding
from plmscope.models.hooked import AnyNetwork, logits_of
from plmscope.models.network import Network
from plmscope.models.sites import Site


def held_logits(
    network: AnyNetwork, batches: Batches, slices: dict[Site, slice]
) -> Callable[[np.ndarray, np.ndarray], Iterable[tuple[list[int], torch.Tensor]]]:
    """A function of the kept neurons ``(N,)`` and the constants ``(3, N)``: protein numbers and logits, by batches."""
    if isinstance(network, Network):
        return Folding(network, batches, slices).logits

    def hooked(keep: np.ndarray, constants: np.ndarray) -> Iterator[tuple[list[int], torch.Tensor]]:
        return logits_of(network.ablated(keep, constants, slices), batches)

    return hooked


Logits = Iterable[tuple[list[int], torch.Tensor]]


class _ScaledLinear(torch.nn.Linear):
    """``after * (W (before * x) + b)``, sharing the weights of another."""

    def __init__(self, linear: torch.nn.Linear, before: torch.Tensor | None, after: torch.Tensor | None) -> None:
        super().__init__(linear.in_features, linear.out_features, device="meta")
        self.weight, self.bias = linear.weight, linear.bias
        self._before, self._after = before, after

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``(..., M)`` to ``(..., N)``."""
        y = super().forward(x if self._before is None else x * self._before)
        return y if self._after is None else y * self._after


def scaled_logits(
    network: AnyNetwork, batches: Batches, slices: Mapping[Site, slice], mask: np.ndarray, factor: float
) -> Logits:
    """Protein numbers and logits with the selected activations multiplied by a factor."""
    model: torch.nn.Module = network.model if isinstance(network, Network) else network.own.model
    like = next(model.parameters())
    factors = {
        site: torch.from_numpy(np.where(mask[part], factor, 1.0)).to(like)
        for site, part in slices.items()
        if mask[part].any()
    }
    if isinstance(network, Network):
        yield from logits_of(_scaled_network(network, factors), batches)
        return

    def times(by: torch.Tensor) -> hooks.Change:
        return lambda activation: activation * by

    with hooks.replace(network.own, {site: times(by) for site, by in factors.items()}):
        yield from logits_of(network, batches)


def _scaled_network(network: Network, factors: Mapping[Site, torch.Tensor]) -> Network:
    """A network that multiplies activations; its weights are those of ``network``."""
    clone = copy(network)
    clone.layers = []
    for number, layer in enumerate(network.layers):
        by = {module: factors[Site(number, module)] for module in MODULES if Site(number, module) in factors}
        inner = by.pop("intermediate", None)  # after its non-linearity: the input of the output module
        changed: dict[str, Any] = {
            module: _ScaledLinear(getattr(layer, module), None, factor) for module, factor in by.items()
        }
        if inner is not None:
            changed["output"] = _ScaledLinear(layer.output, inner, by.get("output"))
        clone.layers.append(replace(layer, **changed))
    return clone
