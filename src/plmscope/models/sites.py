"""Where neurons are: the six module kinds of every encoder layer.

A *site* is one module of one layer; a *neuron* is one output unit of a site. ``query``, ``key`` and ``value`` are
read before scaling and rotary embedding, ``attention_output`` and ``output`` before the residual addition, and
``intermediate`` after its non-linearity.

Scores and selections over a whole model are flat arrays of length ``N``. :class:`NeuronIndex` says which entry is
which neuron: sites in the order layer by layer, in each layer the order of :data:`MODULES`.

>>> index = NeuronIndex.of(layers=2, hidden=4, intermediate=16)
>>> len(index), index.neuron(5)
(72, Neuron(site=Site(layer=0, module='key'), index=1))
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import pandas as pd

from plmscope.errors import ModelError, SelectionError
from plmscope.plugins import rows_of_packages

MODULES = ("query", "key", "value", "attention_output", "intermediate", "output")


@dataclass(frozen=True, slots=True, order=True)
class Site:
    """One module of one encoder layer; layers count from 0."""

    layer: int
    module: str

    def __str__(self) -> str:
        return f"layer {self.layer} {self.module}"


@dataclass(frozen=True, slots=True)
class Neuron:
    """One output unit of a site; the index counts from 0."""

    site: Site
    index: int

    def __str__(self) -> str:
        return f"{self.site} {self.index}"


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


#: Entry points of other packages that name a row or rows.
GROUP = "plmscope.architectures"
_registered: dict[str, Architecture] = {}
_of_packages: dict[str, Architecture] | None = None


def architectures() -> dict[str, Architecture]:
    """The whole table: :data:`ARCHITECTURES`, those of installed packages and those registered.

    Raises:
        ModelError: an installed package names something that is no row, or a type that is there already.
    """
    global _of_packages
    if _of_packages is None:
        found: dict[str, Architecture] = {}
        for row in rows_of_packages(GROUP, Architecture, ModelError):
            _check(row, {**ARCHITECTURES, **found, **_registered})
            found[row.model_type] = row
        _of_packages = found
    return {**ARCHITECTURES, **_of_packages, **_registered}


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
    _check(row, architectures())
    _registered[row.model_type] = row
    return row


def unregister_architecture(row: Architecture) -> None:
    """Take back what :func:`register_architecture` added."""
    del _registered[row.model_type]


def _check(row: Architecture, known: Mapping[str, Architecture]) -> None:
    if row.model_type in known:
        raise ModelError(f"model type {row.model_type!r} is there already; remove one of the two rows")
    if set(row.modules) != set(MODULES):
        raise ModelError(f"model type {row.model_type!r}: its modules have to be {', '.join(MODULES)}")


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
            "a new one is one row of plmscope.models.sites.ARCHITECTURES"
        )
    return table[model_type]


@dataclass(frozen=True)
class NeuronIndex:
    """The neurons of one model in their fixed order.

    Args:
        sites: All sites, layer by layer, modules in the order of :data:`MODULES`.
        widths: Number of neurons of each site.
    """

    sites: tuple[Site, ...]
    widths: tuple[int, ...]

    @classmethod
    def of(cls, layers: int, hidden: int, intermediate: int) -> NeuronIndex:
        """The index of a plain transformer encoder: five modules of width ``hidden``, one of ``intermediate``."""
        sites = tuple(Site(layer, module) for layer in range(layers) for module in MODULES)
        return cls(sites, tuple(intermediate if s.module == "intermediate" else hidden for s in sites))

    @cached_property
    def offsets(self) -> dict[Site, int]:
        """Position of the first neuron of each site in a flat array."""
        starts = np.concatenate([[0], np.cumsum(self.widths)[:-1]])
        return {site: int(start) for site, start in zip(self.sites, starts, strict=True)}

    @cached_property
    def site_of(self) -> np.ndarray:
        """``(N,)``: for every neuron the position of its site in :attr:`sites`."""
        return np.repeat(np.arange(len(self.sites)), self.widths)

    def __len__(self) -> int:
        return sum(self.widths)

    def __repr__(self) -> str:
        layers = len({site.layer for site in self.sites})
        return f"NeuronIndex({len(self):,} neurons, {len(self.sites)} sites, {layers} layers)"

    def slice(self, site: Site) -> slice:
        """The part of a flat array that belongs to ``site``."""
        start = self.offsets[site]
        return slice(start, start + self.widths[self.sites.index(site)])

    def neuron(self, position: int) -> Neuron:
        """The neuron at one position of a flat array, ``0 <= position < N``."""
        if not 0 <= position < len(self):
            raise SelectionError(f"neuron position {position!r} is outside 0..{len(self) - 1}")
        site = self.sites[int(self.site_of[position])]
        return Neuron(site, position - self.offsets[site])

    def position(self, neuron: Neuron) -> int:
        """The position of a neuron in a flat array.

        Raises:
            SelectionError: the model has no such neuron.
        """
        start = self.offsets.get(neuron.site)
        if start is None or not 0 <= neuron.index < self.widths[self.sites.index(neuron.site)]:
            raise SelectionError(f"the model has no neuron {neuron} (it has {self!r})")
        return start + neuron.index

    def split(self, flat: np.ndarray) -> dict[Site, np.ndarray]:
        """Views of a flat array ``(..., N)``, one per site."""
        return {site: flat[..., self.slice(site)] for site in self.sites}

    def table(self) -> pd.DataFrame:
        """One row a neuron: ``layer, module, neuron``."""
        return pd.DataFrame(
            {
                "layer": np.repeat([s.layer for s in self.sites], self.widths).astype(np.int32),
                "module": np.repeat([s.module for s in self.sites], self.widths),
                "neuron": np.concatenate([np.arange(w) for w in self.widths]).astype(np.int32),
            }
        )
