"""The forward pass of an ESM classifier, piece by piece, from the Hugging Face model's own weights.

Attribution needs parts of a forward pass, from one module upward; hooks on the Hugging Face model cannot do that
without computing the rest as well. This module spells one layer out::

    x = LayerNorm(h);  q, k, v = x Wq, x Wk, x Wv
    c = softmax(rotary(q / sqrt(d_head)) rotary(k)^T) v
    h = h + c Wo                                           attention_output
    h = h + gelu(LayerNorm(h) W1) W2                       intermediate, output

In the last layer only the first token goes on, since the head reads nothing else. Tests hold its logits against those
of the untouched model.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from copy import copy
from dataclasses import replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from plmscope.errors import ModelError
from plmscope.models.architectures import MODULES
from plmscope.models.classifier import Batch, Batches, Classifier
from plmscope.models.folded import Folding
from plmscope.models.folded_layer import Layer
from plmscope.models.network import BatchContext, HeldLogits, LayerState, run_layer
from plmscope.models.sites import Site


class EsmNetwork:
    """An ESM sequence classifier as a function of parts of it.

    Args:
        classifier: Its weights are shared, never changed.
        recompute: Of a forward pass that is differentiated keep the layers' inputs alone, and run each layer again when
            the backward pass comes to it: less memory, one more forward pass (Chen et al., arXiv:1604.06174).

    Raises:
        ModelError: the architecture is not ``esm``, or the head reads more than the first token;
            :func:`plmscope.models.hooked.network_of` has an answer for every classifier.
    """

    #: No norm lies between queries, keys and the scores.
    bilinear = True

    def __init__(self, classifier: Classifier, recompute: bool = False) -> None:
        if not self.fits(classifier):
            raise ModelError(f"{classifier.name}: no piecewise forward pass for this architecture or head")
        self.model: Any = classifier.model
        self.recompute = recompute
        self.heads = int(self.model.config.num_attention_heads)
        layers: Any = self.model.get_submodule(classifier.architecture.layers)
        self.layers: list[Layer] = [self._layer(module) for module in layers]

    @staticmethod
    def fits(classifier: Classifier) -> bool:
        """Whether this spelling of the forward pass is that of the classifier."""
        return classifier.architecture.model_type == "esm" and classifier.pooling == "first"

    @staticmethod
    def _layer(module: Any) -> Layer:
        return Layer(
            query=module.get_submodule("attention.self.query"),
            key=module.get_submodule("attention.self.key"),
            value=module.get_submodule("attention.self.value"),
            attention_output=module.get_submodule("attention.output.dense"),
            intermediate=module.get_submodule("intermediate.dense"),
            output=module.get_submodule("output.dense"),
            norms=(module.get_submodule("attention.LayerNorm"), module.get_submodule("LayerNorm")),
        )

    def embed(self, batch: Batch) -> tuple[torch.Tensor, BatchContext]:
        """Input of the first layer ``(B, T, d)``, token dropout's scale included, and the batch's context."""
        esm = self.model.esm
        hidden = esm.embeddings(input_ids=batch.input_ids, attention_mask=batch.attention_mask)  # (B, T, d)
        rotary = None
        if esm.rotary_embeddings is not None:
            cos, sin = esm.rotary_embeddings(hidden, torch.arange(hidden.shape[1], device=hidden.device)[None])
            rotary = cos.unsqueeze(1), sin.unsqueeze(1)  # (1, 1, T, d_head)
        padded = bool((batch.lengths < hidden.shape[1]).any())
        mask = batch.attention_mask.bool()[:, None, None, :] if padded else None  # (B, 1, 1, T)
        return hidden, BatchContext(rotary, mask, batch.lengths - 1)

    def attend(
        self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, context: BatchContext
    ) -> torch.Tensor:
        """Mix the values: ``query (B, Tq, d)``, ``key`` and ``value (B, T, d)`` to ``(B, Tq, d)``; Tq is T or 1."""
        shape = (len(query), -1, self.heads, query.shape[-1] // self.heads)
        q, k, v = (x.view(shape).transpose(1, 2) for x in (query, key, value))  # (B, heads, T, d_head)
        if context.rotary is None:
            q = q * shape[-1] ** -0.5
        else:
            cos, sin = context.rotary
            q = _rotate(q * shape[-1] ** -0.5, cos[:, :, : q.shape[2]], sin[:, :, : q.shape[2]])
            k = _rotate(k, cos, sin)
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=context.mask, scale=1.0)
        return mixed.transpose(1, 2).flatten(2)  # (B, Tq, d)

    def state(self, number: int, hidden: torch.Tensor, context: BatchContext) -> LayerState:
        """All six activations of layer ``number``, given its input ``(B, T, d)``; in the last, of the first token."""
        layer, a = self.layers[number], {}
        rows = slice(0, 1) if number == len(self.layers) - 1 else slice(None)
        x = layer.norms[0](hidden)
        a["query"] = layer.query(x[:, rows])
        a["key"] = layer.key(x)
        a["value"] = layer.value(x)
        mixed = self.attend(a["query"], a["key"], a["value"], context)
        a["attention_output"] = layer.attention_output(mixed)
        middle = hidden[:, rows] + a["attention_output"]
        inner = layer.intermediate(layer.norms[1](middle))
        a["intermediate"] = F.gelu(inner)
        a["output"] = layer.output(a["intermediate"])
        return LayerState(hidden, middle, a, inner)

    def resume(
        self, number: int, state: LayerState, module: str, activation: torch.Tensor, context: BatchContext
    ) -> torch.Tensor:
        """Logits ``(B, C)`` when one module of layer ``number`` has the given activation and all below is ``state``."""
        return self.resume_added(number, state, module, self.added(number, state, module, activation, context), context)

    def bend(self, number: int, module: str, activation: torch.Tensor, context: BatchContext) -> None:
        """A straight path bends nowhere."""

    def added(
        self, number: int, state: LayerState, module: str, activation: torch.Tensor, context: BatchContext
    ) -> torch.Tensor:
        """What one module's activation puts on the residual stream of layer ``number``: ``(B, T, N)`` to ``(B, T, d)``.

        An affine map, since the attention probabilities are those of ``state``; queries and keys, which make these,
        stay as they are.
        """
        layer, a = self.layers[number], state.activations
        if module == "value":
            mixed = self.attend(a["query"], a["key"], activation, context)
            added: torch.Tensor = layer.attention_output(mixed)
            return added
        return layer.output(activation) if module == "intermediate" else activation

    def resume_added(
        self, number: int, state: LayerState, module: str, added: torch.Tensor, context: BatchContext
    ) -> torch.Tensor:
        """Logits ``(B, C)`` when a module of layer ``number`` puts ``added (B, T, d)`` on the residual stream."""
        if module in ("query", "key"):
            a = state.activations
            q, k = (added if name == module else a[name] for name in ("query", "key"))
            return self.after_attention(number, state.hidden, self.attend(q, k, a["value"], context), context)
        if module in ("value", "attention_output"):
            return self.after_residual(number, state.hidden[:, : added.shape[1]] + added, context)
        return self.above(number + 1, state.middle + added, context)

    def after(self, state: LayerState) -> torch.Tensor:
        """What a layer hands on: the input of the next one, ``(B, T, d)``."""
        return state.middle + state.activations["output"]

    def after_attention(
        self, number: int, hidden: torch.Tensor, mixed: torch.Tensor, context: BatchContext
    ) -> torch.Tensor:
        """Logits from the mixed values of layer ``number`` upward."""
        added = self.layers[number].attention_output(mixed)
        return self.after_residual(number, hidden[:, : added.shape[1]] + added, context)

    def after_residual(self, number: int, middle: torch.Tensor, context: BatchContext) -> torch.Tensor:
        """Logits from the residual stream after the attention of layer ``number`` upward."""
        layer = self.layers[number]
        inner = F.gelu(layer.intermediate(layer.norms[1](middle)))
        return self.above(number + 1, middle + layer.output(inner), context)

    def above(self, number: int, hidden: torch.Tensor, context: BatchContext) -> torch.Tensor:
        """Logits ``(B, C)`` from the input of layer ``number`` upward; at the number of layers, the head alone."""
        for n in range(number, len(self.layers)):
            hidden = run_layer(self._layer_of(n, context), hidden, self.recompute)
        return self.head(hidden[:, :1])

    def _layer_of(self, number: int, context: BatchContext) -> Callable[[torch.Tensor], torch.Tensor]:
        return lambda hidden: self.after(self.state(number, hidden, context))

    def head(self, hidden: torch.Tensor) -> torch.Tensor:
        """Logits ``(B, C)`` from the first token's output of the last layer, ``(B, 1, d)``."""
        logits: torch.Tensor = self.model.classifier(self.model.esm.encoder.emb_layer_norm_after(hidden))
        return logits

    def logits(self, batch: Batch) -> torch.Tensor:
        """Logits ``(B, C)``: the whole forward pass."""
        hidden, context = self.embed(batch)
        return self.above(0, hidden, context)

    def held_logits(self, batches: Batches, slices: Mapping[Site, slice]) -> HeldLogits:
        """Logits with neurons held at constants, folded away."""
        return Folding(self, batches, slices).logits

    def scaled(self, factors: Mapping[Site, np.ndarray]) -> AbstractContextManager[EsmNetwork]:
        """A network that multiplies activations by factors ``(N,)``; its weights are those of this one."""
        like, clone = next(self.model.parameters()), copy(self)
        clone.layers = []
        for number, layer in enumerate(self.layers):
            by = {
                module: torch.from_numpy(factors[Site(number, module)]).to(like)
                for module in MODULES
                if Site(number, module) in factors
            }
            inner = by.pop("intermediate", None)  # after its non-linearity: the input of the output module
            scaled: dict[str, Any] = {
                module: _ScaledLinear(getattr(layer, module), None, factor) for module, factor in by.items()
            }
            if inner is not None:
                scaled["output"] = _ScaledLinear(layer.output, inner, by.get("output"))
            clone.layers.append(replace(layer, **scaled))
        return nullcontext(clone)


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


def _rotate(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Rotary embedding of ``(B, heads, T, d_head)``."""
    half = x.shape[-1] // 2
    return x * cos + torch.cat((-x[..., half:], x[..., :half]), -1) * sin
