"""The parts of a forward pass for every architecture, from Hugging Face's own layers and hooks.

The fast way, :class:`~plmscope.models.esm.EsmNetwork`, spells out ESM with a first-token head. Everything else goes
through :class:`Hooked`, which knows nothing of a layer's inside but where its six modules are
(:data:`plmscope.models.architectures.ARCHITECTURES`). Layers below the one in question are not run again; within it and
above, everything is. A network with held neurons keeps its hooks for the length of one forward pass.

Threads work on copies of the modules that share their weights, since hooks on shared modules would meet each other.
"""

from __future__ import annotations

import copy
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from dataclasses import replace as changed
from functools import partial
from typing import Any, NoReturn

import numpy as np
import torch

from plmscope.errors import ModelError
from plmscope.models.architectures import MODULES
from plmscope.models.classifier import Batch, Batches, Classifier, residue_mean
from plmscope.models.esm import EsmNetwork
from plmscope.models.hooks import Rewrite, record, replace
from plmscope.models.network import BatchContext, HeldLogits, LayerState, Network, at_tokens, logits_of, run_layer
from plmscope.models.sites import Site
from plmscope.models.spread import is_spread


class _Reached(Exception):
    """Stops a forward pass at the first layer."""


@dataclass(frozen=True)
class HeldNeurons:
    """Neurons at constants: ``keep (N,)`` true where a neuron works, ``constants (3, N)`` for the others."""

    keep: np.ndarray
    constants: np.ndarray
    slices: Mapping[Site, slice]


class Hooked:
    """A sequence classifier of any architecture as a :class:`~plmscope.models.network.Network`.

    Args:
        classifier: Of any supported architecture; its weights are shared, never changed.
        held: Neurons at constants; they are in :meth:`logits` alone.
        recompute: As of :class:`~plmscope.models.esm.EsmNetwork`.
    """

    #: Some architectures normalise queries and keys.
    bilinear = False

    def __init__(self, classifier: Classifier, held: HeldNeurons | None = None, recompute: bool = False) -> None:
        self.classifier, self.held, self.recompute = classifier, held, recompute
        layers: Any = classifier.model.get_submodule(classifier.architecture.layers)
        self.layers = range(len(layers))
        self._of_thread = threading.local()

    @staticmethod
    def fits(classifier: Classifier) -> bool:
        """Every classifier of a known architecture."""
        return True

    @property
    def own(self) -> Classifier:
        """The classifier with modules of this thread's own."""
        if not hasattr(self._of_thread, "classifier"):
            model: Any = self.classifier.model
            shared = {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())}
            twin = copy.deepcopy(model, {**shared, id(model.config): model.config})
            self._of_thread.classifier = changed(self.classifier, model=twin)
        classifier: Classifier = self._of_thread.classifier
        return classifier

    def embed(self, batch: Batch) -> tuple[torch.Tensor, BatchContext]:
        """Input of the first layer ``(B, T, d)``, and what else the layers are given."""
        model: Any = self.own.model
        given: list[Any] = []

        def reached(module: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> NoReturn:
            given.extend((args, kwargs))
            raise _Reached

        handle = self._layer(0).register_forward_pre_hook(reached, with_kwargs=True)
        try:
            model(input_ids=batch.input_ids, attention_mask=batch.attention_mask)
        except _Reached:
            pass
        finally:
            handle.remove()
        (hidden, *others), named = given
        return hidden, _Given(None, None, batch.lengths - 1, (tuple(others), named))

    def state(self, number: int, hidden: torch.Tensor, context: BatchContext) -> LayerState:
        """All six activations of layer ``number``, given its input ``(B, T, d)``; ``middle`` is the layer's output."""
        with record(self.own, [Site(number, module) for module in MODULES]) as seen:
            out = self._run(number, hidden, context)
        return LayerState(hidden, out, {site.module: activation for site, activation in seen.items()})

    def after(self, state: LayerState) -> torch.Tensor:
        """What a layer hands on: the input of the next one, ``(B, T, d)``."""
        return state.middle

    def resume(
        self, number: int, state: LayerState, module: str, activation: torch.Tensor, context: BatchContext
    ) -> torch.Tensor:
        """Logits ``(B, C)`` when one module of layer ``number`` has the given activation and all below is ``state``."""
        with replace(self.own, {Site(number, module): lambda _: activation}):
            hidden = self._run(number, state.hidden, context)
        return self.above(number + 1, hidden, context)

    def added(
        self, number: int, state: LayerState, module: str, activation: torch.Tensor, context: BatchContext
    ) -> torch.Tensor:
        """The activation itself: what reads it inside a layer is not known."""
        return activation

    #: From the activation itself.
    resume_added = resume

    def bend(self, number: int, module: str, activation: torch.Tensor, context: BatchContext) -> torch.Tensor | None:
        """Where the straight path from zero to an activation ``(B, T, N)`` bends, ``(B,)``; ``None``: nowhere.

        A layer norm of ``alpha a`` is that of ``a`` times ``alpha / sqrt(alpha^2 + c^2)``, ``c = sqrt(eps) / std(a)``:
        all of the change is at ``alpha`` near ``c``. This is the geometric mean of ``c`` over a protein's tokens.
        """
        path = self.classifier.architecture.norms.get(module)
        if path is None:
            return None
        norm: Any = self._layer(number).get_submodule(path)
        real = torch.arange(activation.shape[1], device=activation.device) <= context.ends.unsqueeze(1)  # (B, T)
        spread = activation.float().std(-1, correction=0).clamp_min(1e-12).log()  # (B, T)
        mean = torch.where(real, spread, 0).sum(1) / real.sum(1)
        bend: torch.Tensor = float(norm.eps) ** 0.5 / mean.exp()
        return bend

    def above(self, number: int, hidden: torch.Tensor, context: BatchContext) -> torch.Tensor:
        """Logits ``(B, C)`` from the input of layer ``number`` upward; at the number of layers, the head alone."""
        for n in range(number, len(self.layers)):
            hidden = run_layer(partial(self._run, n, context=context), hidden, self.recompute)
        architecture = self.classifier.architecture
        for path in architecture.after:
            if path == architecture.head and self.classifier.pooling == "mean":
                hidden = residue_mean(hidden, context.ends + 1)
            hidden = self.own.model.get_submodule(path)(hidden)
        return hidden

    def logits(self, batch: Batch) -> torch.Tensor:
        """Logits ``(B, C)``: the whole forward pass, with the held neurons at their constants."""
        hidden, context = self.embed(batch)
        held = self.held
        if held is None:
            return self.above(0, hidden, context)
        changes: dict[Site, Rewrite] = {}
        for site, part in held.slices.items():
            if not held.keep[part].all():
                keep = torch.from_numpy(held.keep[part]).to(hidden.device)
                changes[site] = _hold(keep, torch.from_numpy(held.constants[:, part]).to(hidden), context)
        with replace(self.own, changes) if changes else nullcontext():
            return self.above(0, hidden, context)

    def held_logits(self, batches: Batches, slices: Mapping[Site, slice]) -> HeldLogits:
        """Logits with neurons held at constants by hooks."""
        return lambda keep, constants: logits_of(self.ablated(keep, constants, slices), batches)

    @contextmanager
    def scaled(self, factors: Mapping[Site, np.ndarray]) -> Iterator[Hooked]:
        """This network, with hooks that multiply."""
        like = next(self.own.model.parameters())

        def times(by: torch.Tensor) -> Rewrite:
            return lambda activation: activation * by

        with replace(self.own, {site: times(torch.from_numpy(by).to(like)) for site, by in factors.items()}):
            yield self

    def ablated(self, keep: np.ndarray, constants: np.ndarray, slices: Mapping[Site, slice]) -> Hooked:
        """The network in which every neuron outside ``keep (N,)`` is held at its constants ``(3, N)``."""
        one = Hooked(self.classifier, HeldNeurons(keep, constants, slices))
        one._of_thread = self._of_thread
        return one

    def _layer(self, number: int) -> torch.nn.Module:
        layers = self.own.model.get_submodule(self.classifier.architecture.layers)
        return layers.get_submodule(str(number))

    def _run(self, number: int, hidden: torch.Tensor, context: BatchContext) -> torch.Tensor:
        """One layer of Hugging Face's, ``(B, T, d)`` to ``(B, T, d)``."""
        others, named = context.layer_inputs
        out = self._layer(number)(hidden, *others, **named)
        output: torch.Tensor = out[0] if isinstance(out, tuple) else out
        return output


#: Every way to run a model in parts, the fastest first.
NETWORKS: tuple[type[EsmNetwork] | type[Hooked], ...] = (EsmNetwork, Hooked)


def network_of(classifier: Classifier, recompute: bool = False) -> Network:
    """The first of :data:`NETWORKS` that fits the classifier.

    Raises:
        ModelError: the model is spread over several devices.
    """
    if is_spread(classifier.model):
        raise ModelError(
            f"{classifier.name}: device 'auto' has spread it over several devices, where only activations can be "
            "scored; this runs it in parts and needs it on one: use cuda, or a smaller model"
        )
    fitting = next(kind for kind in NETWORKS if kind.fits(classifier))
    return fitting(classifier, recompute=recompute)


class _Given(BatchContext):
    """A context that holds what the layers were given."""

    def repeat(self, times: int) -> BatchContext:
        """The same for ``times`` copies of the batch: whatever has one entry a protein is repeated."""
        size = len(self.ends)

        def many(x: Any) -> Any:
            if isinstance(x, torch.Tensor) and x.ndim and len(x) == size:
                return x.repeat(times, *[1] * (x.ndim - 1))
            return tuple(many(one) for one in x) if isinstance(x, tuple) else x

        others, named = self.layer_inputs
        inputs = many(others), {name: many(one) for name, one in named.items()}
        return changed(self, ends=self.ends.repeat(times), layer_inputs=inputs)


def _hold(keep: torch.Tensor, constants: torch.Tensor, context: BatchContext) -> Rewrite:
    """Hold the units outside ``keep (N,)`` at ``constants (3, N)``."""

    def change(activation: torch.Tensor) -> torch.Tensor:
        return torch.where(keep, activation, at_tokens(constants, activation, context))

    return change
