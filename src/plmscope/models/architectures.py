"""Which architectures are known: one row each says where its parts are.

A row names the embeddings, the layers, the six modules of a layer, the head, and what is peculiar: norms of queries and
keys, rotary embedding, a module that holds several kinds at once. A model without a row is refused, with this list.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from plmscope.errors import ModelError
from plmscope.plugins import Registry

MODULES = ("query", "key", "value", "attention_output", "intermediate", "output")


@dataclass(frozen=True, slots=True)
class Place:
    """Where one module kind is found inside a layer, and whether its neurons are its output or its input."""

    path: str
    side: str = "output"


@dataclass(frozen=True, slots=True)
class Architecture:
    """One supported architecture: where its layers, its embeddings and its six modules are.

    A new architecture is one more entry of :data:`ARCHITECTURES`. Paths are those of the class
    ``...ForSequenceClassification`` of transformers (``print(model)`` shows them).

    Attributes:
        model_type: ``model_type`` of its ``config.json``.
        models: Published models of this type, for texts.
        embeddings: The module whose output is the first layer's input.
        layers: The list of encoder layers; each takes and gives ``(B, T, d)``.
        modules: The six modules inside a layer.
        after: What follows the last layer, in order, up to the logits.
        head: Which of these reads the first token alone (or the mean of residues, if the checkpoint says so).
        norms: Modules whose whole activation is layer-normalised before anything else reads it, and where that norm is
            inside a layer.
        new: Prefixes of the weights that a checkpoint without a classification head lacks.
        head_modules: The linear modules of a classification head; the last one gives the logits.
        unused: Prefixes of weights that other heads leave in a checkpoint; they have no place in a classifier.
        spare_positions: Positions that no residue can take, of ``max_position_embeddings``.
        as_x: Letters that the model's authors replace by X.
    """

    model_type: str
    models: str
    embeddings: str
    layers: str
    modules: Mapping[str, Place]
    after: tuple[str, ...]
    head: str
    norms: Mapping[str, str] = field(default_factory=dict)
    new: tuple[str, ...] = ("classifier.",)
    head_modules: tuple[str, ...] = ("classifier.dense", "classifier.out_proj")
    unused: tuple[str, ...] = ("lm_head.",)
    spare_positions: int = 2
    as_x: str = ""


#: ESM-2 and BERT name the modules of a layer alike; their intermediate module holds the non-linearity.
_BERT_MODULES: Mapping[str, Place] = {
    "query": Place("attention.self.query"),
    "key": Place("attention.self.key"),
    "value": Place("attention.self.value"),
    "attention_output": Place("attention.output.dense"),
    "intermediate": Place("intermediate"),
    "output": Place("output.dense"),
}


ARCHITECTURES: Mapping[str, Architecture] = {
    "esm": Architecture(
        model_type="esm",
        models="ESM-2, ESM-1b, ESM-1v",
        embeddings="esm.embeddings",
        layers="esm.encoder.layer",
        modules=_BERT_MODULES,
        after=("esm.encoder.emb_layer_norm_after", "classifier"),
        head="classifier",
        unused=("lm_head.", "esm.pooler.", "esm.contact_head."),
        spare_positions=4,  # positions count from the padding id + 1
    ),
    "esmc": Architecture(
        model_type="esmc",
        models="ESM-C",
        embeddings="esmc.embed_tokens",
        layers="esmc.layers",
        modules={
            "query": Place("self_attn.q_proj"),  # before its LayerNorm
            "key": Place("self_attn.k_proj"),
            "value": Place("self_attn.v_proj"),
            "attention_output": Place("self_attn.o_proj"),
            "intermediate": Place("mlp.down_proj", side="input"),  # silu(gate) * up: no module of its own
            "output": Place("mlp.down_proj"),
        },
        after=("esmc.norm", "classifier"),
        head="classifier",
        norms={"query": "self_attn.q_norm", "key": "self_attn.k_norm"},
    ),
    "bert": Architecture(
        model_type="bert",
        models="ProtBert",
        embeddings="bert.embeddings",
        layers="bert.encoder.layer",
        modules=_BERT_MODULES,
        after=("bert.pooler", "classifier"),
        head="bert.pooler",
        new=("classifier.", "bert.pooler."),
        head_modules=("bert.pooler.dense", "classifier"),
        unused=("cls.",),
        as_x="UZOB",
    ),
}


#: Of transformers' T5, which ProtT5 and Ankh are encoders of.
_T5 = (
    "transformers has no classifier on T5's encoder alone (ProtT5, Ankh): its own puts a decoder on top, whose "
    "attention to the encoder is none of the six module kinds; use ESM-2, ESM-C or ProtBert"
)
#: Types that people have and that do not fit, and why not.
WHY_NOT = {"t5": _T5, "umt5": _T5, "mt5": _T5}

#: Entry points of other packages that name a row or rows.
GROUP = "plmscope.architectures"


def architectures() -> dict[str, Architecture]:
    """The whole table: :data:`ARCHITECTURES`, those of installed packages and those registered.

    Raises:
        ModelError: an installed package names something that is no row, or a type that is there already.
    """
    return {row.model_type: row for row in _TABLE.rows()}


def register_architecture(row: Architecture) -> Architecture:
    """Add an architecture, so that checkpoints of its type are loaded.

    Only the running process knows it; a package that is to be known always names its row as an entry point of the
    group ``plmscope.architectures``.

    Raises:
        ModelError: its type is there already, or it lacks one of :data:`MODULES`.

    >>> from dataclasses import replace
    >>> row = register_architecture(replace(ARCHITECTURES["esm"], model_type="mine"))
    >>> architecture_of("mine").layers
    'esm.encoder.layer'
    >>> unregister_architecture(row)
    """
    return _TABLE.register(row)


def unregister_architecture(row: Architecture) -> None:
    """Take back what :func:`register_architecture` added."""
    _TABLE.unregister(row)


def _check(row: Architecture, known: Sequence[Architecture]) -> None:
    """Refuse a second row of a type, or one without all modules."""
    if any(row.model_type == other.model_type for other in known):
        raise ModelError(f"model type {row.model_type!r} is there already; remove one of the two rows")
    if set(row.modules) != set(MODULES):
        raise ModelError(f"model type {row.model_type!r}: its modules have to be {', '.join(MODULES)}")


_TABLE = Registry(GROUP, Architecture, ModelError, ARCHITECTURES.values, _check, lambda row: row.model_type)


def architecture_of(model_type: str) -> Architecture:
    """The table row of a model type.

    Raises:
        ModelError: no row has this type; the text lists those that are supported.
    """
    table = architectures()
    if model_type not in table:
        known = ", ".join(f"{row.model_type} ({row.models})" for row in table.values())
        raise ModelError(
            f"model type {model_type!r} is not supported; supported: {known}; "
            "a new one is one row of plmscope.models.architectures.ARCHITECTURES"
        )
    return table[model_type]
