"""Record and replace activations of an unmodified Hugging Face model.

Two context managers, undone on every way out::

    with record(classifier, sites) as seen:
        classifier.model(input_ids=..., attention_mask=...)
    seen[site]                                     # (B, T, N)

    with replace(classifier, {site: lambda a: a * 0}):
        classifier.model(input_ids=..., attention_mask=...)

They work for every architecture of :data:`plmscope.models.architectures.ARCHITECTURES` and are what faster paths are
tested against.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch

from plmscope.models.architectures import Place
from plmscope.models.classifier import Classifier
from plmscope.models.sites import Site

Rewrite = Callable[[torch.Tensor], torch.Tensor]


def module_of(classifier: Classifier, site: Site) -> tuple[torch.nn.Module, Place]:
    """The PyTorch module of a site, and whether its neurons are the module's output or its input."""
    layers = classifier.model.get_submodule(classifier.architecture.layers)
    place = classifier.architecture.modules[site.module]
    return layers.get_submodule(str(site.layer)).get_submodule(place.path), place


@contextmanager
def replace(classifier: Classifier, changes: Mapping[Site, Rewrite]) -> Iterator[None]:
    """Within the block, every named site's activation ``(B, T, N)`` is what its function returns."""
    handles = []
    try:
        for site, change in changes.items():
            module, place = module_of(classifier, site)
            if place.side == "output":
                handles.append(module.register_forward_hook(_after(change)))
            else:
                handles.append(module.register_forward_pre_hook(_before(change)))
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def record(classifier: Classifier, sites: Iterable[Site]) -> Iterator[dict[Site, torch.Tensor]]:
    """Within the block, every forward pass leaves the sites' activations ``(B, T, N)`` in the dictionary."""
    seen: dict[Site, torch.Tensor] = {}
    device = classifier.device

    def keep(site: Site) -> Rewrite:
        def look(activation: torch.Tensor) -> torch.Tensor:
            seen[site] = activation.to(device)  # of a model that is spread, all in one place
            return activation

        return look

    with replace(classifier, {site: keep(site) for site in sites}):
        yield seen


def _after(change: Rewrite) -> Callable[[torch.nn.Module, Any, torch.Tensor], torch.Tensor]:
    """A forward hook that passes the output through ``change``."""

    def hook(module: torch.nn.Module, args: Any, output: torch.Tensor) -> torch.Tensor:
        return change(output)

    return hook


def _before(change: Rewrite) -> Callable[[torch.nn.Module, tuple[torch.Tensor, ...]], tuple[torch.Tensor, ...]]:
    """A forward pre-hook that passes the first input through ``change``."""

    def hook(module: torch.nn.Module, args: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        return (change(args[0]), *args[1:])

    return hook
