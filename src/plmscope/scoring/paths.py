"""What the path methods share: gradients at every site, points on a path, and whether they are enough.

A path integral is a sum over points; the sum of attributions is compared with what it should be, the difference that it
explains. A protein's points are doubled until the gap, the estimated error and the best neurons have settled.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pandas as pd
import torch

from plmscope.errors import SelectionError
from plmscope.models.architectures import MODULES
from plmscope.models.classifier import Classifier
from plmscope.models.network import BatchContext, LayerState, Network
from plmscope.models.sites import Site
from plmscope.scoring.targets import Target

#: Stands for the input of the first layer where a path runs through the whole network.
EMBEDDING = Site(-1, "embedding")


def activations_and_gradients(
    network: Network,
    hidden: torch.Tensor,
    context: BatchContext,
    classes: torch.Tensor,
    target: Target,
    visit: Callable[[Site, torch.Tensor, torch.Tensor], None],
    stopped: Callable[[Site], bool] = lambda site: False,
) -> None:
    """Show activation and gradient of the target, ``(B, T, N)`` each, of every site; one forward and one backward pass.

    ``hidden (B, T, d)`` is the input of the first layer; its own pair is shown as :data:`EMBEDDING`. A gradient is
    shown when the backward pass comes to it, from the last layer to the first, and not kept. A network that recomputes
    keeps the layers' inputs alone, and makes the graph of one layer at a time. Below a site that is ``stopped`` none of
    its gradient goes.
    """

    def shown(site: Site, activation: torch.Tensor, gradient: torch.Tensor) -> torch.Tensor | None:
        visit(site, activation, gradient)
        return torch.zeros_like(gradient) if stopped(site) else None

    def look(site: Site, activation: Any, inner: torch.Tensor | None) -> None:
        if inner is None:
            seen = activation.detach()
            activation.register_hook(lambda gradient: shown(site, seen, gradient))
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
        values: np.ndarray = np.take_along_axis(now, best, 1)  # (B, size)
        return values

    ideal = held(now)
    lost = ideal.sum(1) - held(before).sum(1)
    small: np.ndarray = np.abs(gap) <= tolerance * whole + NEGLIGIBLE
    stable: np.ndarray = lost <= tolerance * np.abs(ideal).sum(1) + NEGLIGIBLE
    moved: np.ndarray = np.linalg.norm(now - before, axis=1)
    near: np.ndarray = moved <= tolerance**0.5 * np.linalg.norm(now, axis=1) + NEGLIGIBLE
    good: np.ndarray = small & stable & near
    return good


def found_points(settings: Mapping[str, Any], completeness: pd.DataFrame | None) -> dict[str, float]:
    """``mean_points`` and ``unsettled`` (a share) over proteins and sites, where the number of points was found."""
    if settings["points"] or completeness is None:
        return {}
    return {
        "mean_points": float(completeness["points"].mean()),
        "unsettled": float(1 - completeness["settled"].mean()),
    }


Integral = Callable[
    [Callable[[torch.Tensor, LayerState, BatchContext], torch.Tensor], torch.Tensor, torch.Tensor], torch.Tensor
]


def through_the_stream(
    network: Network, layer: int, state: LayerState, module: str, start: torch.Tensor, end: torch.Tensor,
    context: BatchContext, integral: Integral,
) -> torch.Tensor:  # fmt: skip
    """``integral dF/da`` along the straight path of a module from ``start`` to ``end (B, T, N)``, float32.

    The path is walked where the affine map of :meth:`~plmscope.models.network.Network.added` ends, such as behind the
    attention or the feed-forward of the module's own layer, and the integral comes back through the map once.

    Args:
        network: The network.
        layer: Of the module.
        state: Of the layer.
        module: Its name.
        start: Its activation at the start of the path.
        end: At its end.
        context: Of the batch.
        integral: Given the logits as a function of what is added, and what is added at both ends, the integral of the
            gradient by it.
    """
    with torch.no_grad():
        bottom = network.added(layer, state, module, start, context)
    leaf = end.detach().requires_grad_()
    top = network.added(layer, state, module, leaf, context)
    of_added = integral(
        lambda added, many, wide: network.resume_added(layer, many, module, added, wide), bottom, top.detach()
    )
    if top is leaf:
        return of_added
    (gradient,) = torch.autograd.grad(top, leaf, of_added.to(top.dtype))
    return gradient.float()


def check_points(points: int, tolerance: float) -> None:
    """Raise :class:`SelectionError` for a negative number of points, or a tolerance outside 0 to 1."""
    if points < 0:
        raise SelectionError(f"points = {points!r}: at least 1 is needed, or 0 for as many as the tolerance asks for")
    if not 0 < tolerance < 1:
        raise SelectionError(f"tolerance = {tolerance!r}: must be above 0 and below 1")


def bytes_per_token(classifier: Classifier) -> int:
    """About what one token of one forward and backward pass takes: activations, gradients, what autograd keeps."""
    return 6 * len(classifier.index) * int(classifier.model.dtype.itemsize)
