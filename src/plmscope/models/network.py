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

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch.utils.checkpoint import checkpoint

from plmscope.errors import ModelError
from plmscope.models.classifier import Batch, Classifier


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
class Context:
    """What every layer of one batch shares: rotary angles, attention mask, places of the last tokens.

    ``layer_inputs`` is what Hugging Face's own layers take besides their input, where those are run
    (:mod:`plmscope.models.hooked`): positional and named arguments.
    """

    rotary: tuple[torch.Tensor, torch.Tensor] | None
    mask: torch.Tensor | None
    ends: torch.Tensor
    layer_inputs: tuple[tuple[Any, ...], dict[str, Any]] = ((), {})

    def repeat(self, times: int) -> Context:
        """The same context for ``times`` copies of the batch, one after the other."""
        mask = None if self.mask is None else self.mask.repeat(times, 1, 1, 1)
        return replace(self, mask=mask, ends=self.ends.repeat(times))


@dataclass(frozen=True)
class State:
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


class Network:
    """An ESM sequence classifier as a function of parts of it.

    Args:
        classifier: Its weights are shared, never changed.
        recompute: Of a forward pass that is differentiated keep the layers' inputs alone, and run each layer again when
            the backward pass comes to it: less memory, one more forward pass (Chen et al., arXiv:1604.06174).

    Raises:
        ModelError: the architecture is not ``esm``, or the head reads more than the first token;
            :func:`plmscope.models.hooked.network_of` has an answer for every classifier.
    """

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

    def embed(self, batch: Batch) -> tuple[torch.Tensor, Context]:
        """Input of the first layer ``(B, T, d)``, token dropout's scale included, and the batch's context."""
        esm = self.model.esm
        hidden = esm.embeddings(input_ids=batch.input_ids, attention_mask=batch.attention_mask)  # (B, T, d)
        rotary = None
        if esm.rotary_embeddings is not None:
            cos, sin = esm.rotary_embeddings(hidden, torch.arange(hidden.shape[1], device=hidden.device)[None])
            rotary = cos.unsqueeze(1), sin.unsqueeze(1)  # (1, 1, T, d_head)
        padded = bool((batch.lengths < hidden.shape[1]).any())
        mask = batch.attention_mask.bool()[:, None, None, :] if padded else None  # (B, 1, 1, T)
        return hidden, Context(rotary, mask, batch.lengths - 1)

    def attend(self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, context: Context) -> torch.Tensor:
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

    def state(self, number: int, hidden: torch.Tensor, context: Context) -> State:
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
        return State(hidden, middle, a, inner)

    def resume(
        self, number: int, state: State, module: str, activation: torch.Tensor, context: Context
    ) -> torch.Tensor:
        """Logits ``(B, C)`` when one module of layer ``number`` has the given activation and all below is ``state``."""
        a = state.activations
        if module in ("query", "key"):
            q, k = (activation if name == module else a[name] for name in ("query", "key"))
            return self.after_attention(number, state.hidden, self.attend(q, k, a["value"], context), context)
        return self.resume_added(number, state, module, self.added(number, state, module, activation, context), context)

    def added(self, number: int, state: State, module: str, activation: torch.Tensor, context: Context) -> torch.Tensor:
        """What one module's activation puts on the residual stream of layer ``number``: ``(B, T, N)`` to ``(B, T, d)``.

        For ``value``, ``attention_output``, ``intermediate`` and ``output``: an affine map, since the attention
        probabilities are those of ``state``. A straight path of the activation is thus a straight path of this.
        """
        layer, a = self.layers[number], state.activations
        if module == "value":
            mixed = self.attend(a["query"], a["key"], activation, context)
            added: torch.Tensor = layer.attention_output(mixed)
            return added
        return layer.output(activation) if module == "intermediate" else activation

    def resume_added(
        self, number: int, state: State, module: str, added: torch.Tensor, context: Context
    ) -> torch.Tensor:
        """Logits ``(B, C)`` when a module of layer ``number`` puts ``added (B, T, d)`` on the residual stream."""
        if module in ("value", "attention_output"):
            return self.after_residual(number, state.hidden[:, : added.shape[1]] + added, context)
        return self.above(number + 1, state.middle + added, context)

    def after(self, state: State) -> torch.Tensor:
        """What a layer hands on: the input of the next one, ``(B, T, d)``."""
        return state.middle + state.activations["output"]

    def after_attention(self, number: int, hidden: torch.Tensor, mixed: torch.Tensor, context: Context) -> torch.Tensor:
        """Logits from the mixed values of layer ``number`` upward."""
        added = self.layers[number].attention_output(mixed)
        return self.after_residual(number, hidden[:, : added.shape[1]] + added, context)

    def after_residual(self, number: int, middle: torch.Tensor, context: Context) -> torch.Tensor:
        """Logits from the residual stream after the attention of layer ``number`` upward."""
        layer = self.layers[number]
        inner = F.gelu(layer.intermediate(layer.norms[1](middle)))
        return self.above(number + 1, middle + layer.output(inner), context)

    def above(self, number: int, hidden: torch.Tensor, context: Context) -> torch.Tensor:
        """Logits ``(B, C)`` from the input of layer ``number`` upward; at the number of layers, the head alone."""
        for n in range(number, len(self.layers)):
            hidden = run_layer(self._layer_of(n, context), hidden, self.recompute)
        return self.head(hidden[:, :1])

    def _layer_of(self, number: int, context: Context) -> Callable[[torch.Tensor], torch.Tensor]:
        return lambda hidden: self.after(self.state(number, hidden, context))

    def head(self, hidden: torch.Tensor) -> torch.Tensor:
        """Logits ``(B, C)`` from the first token's output of the last layer, ``(B, 1, d)``."""
        logits: torch.Tensor = self.model.classifier(self.model.esm.encoder.emb_layer_norm_after(hidden))
        return logits

    def logits(self, batch: Batch) -> torch.Tensor:
        """Logits ``(B, C)``: the whole forward pass."""
        hidden, context = self.embed(batch)
        return self.above(0, hidden, context)


def run_layer(layer: Callable[[torch.Tensor], torch.Tensor], hidden: torch.Tensor, recompute: bool) -> torch.Tensor:
    """``layer(hidden)``; with ``recompute`` autograd keeps ``hidden`` alone."""
    if not recompute:
        return layer(hidden)
    found: torch.Tensor = checkpoint(layer, hidden, use_reentrant=False, preserve_rng_state=False)
    return found


def at_tokens(constants: torch.Tensor, value: torch.Tensor, context: Context) -> torch.Tensor:
    """Constants ``(3, N)`` laid out over the tokens of ``value (B, T, N)``: first token, last token, residues."""
    laid = constants[2].expand_as(value).clone()
    laid[:, 0] = constants[0]
    if value.shape[1] > 1:
        laid[torch.arange(len(value), device=value.device), context.ends] = constants[1]
    return laid


def _rotate(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Rotary embedding of ``(B, heads, T, d_head)``."""
    half = x.shape[-1] // 2
    return x * cos + torch.cat((-x[..., half:], x[..., :half]), -1) * sin
