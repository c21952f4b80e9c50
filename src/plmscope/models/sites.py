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

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd

from plmscope.errors import SelectionError
from plmscope.models.architectures import MODULES


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

    def groups(self, most: int) -> list[list[Site]]:
        """Sites in their order, divided into groups of at most ``most`` neurons; one site at least is in each."""
        groups: list[list[Site]] = [[]]
        size = 0
        for site, width in zip(self.sites, self.widths, strict=True):
            if groups[-1] and size + width > most:
                groups.append([])
                size = 0
            groups[-1].append(site)
            size += width
        return groups

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

    def placed(self, frame: pd.DataFrame) -> pd.DataFrame:
        """A table with ``layer, module, neuron`` in front, in place of its column ``position``.

        >>> index = NeuronIndex.of(layers=1, hidden=4, intermediate=16)
        >>> index.placed(pd.DataFrame({"position": [5], "score": [0.5]})).to_dict("records")
        [{'layer': 0, 'module': 'key', 'neuron': 1, 'score': 0.5}]
        """
        names = self.table().iloc[frame["position"].to_numpy()].reset_index(drop=True)
        placed: pd.DataFrame = pd.concat([names, frame.drop(columns="position").reset_index(drop=True)], axis=1)
        return placed
