"""Score neurons by relevance patching (RelP): attribution patching through a network made linear at the protein itself.

::

    relp = sum over tokens of  r * (a - a~)        r = dF/da with these held as they are at the protein:
        layer norm           its scale: (x - mean) * constant
        activation f(x)      x * (f(x) / x)
        attention weights    constants, so that nothing goes down through queries and keys
        gate f(x) * y        half of the relevance to either factor

``a~`` is the activation on a corrupted copy, as in attribution patching. On a network without non-linearities it is
exact. One forward and one backward pass a protein, and one forward pass more a copy.

Source: Jafari et al., arXiv:2508.21258. Departs from it for queries and keys, which the source leaves without
relevance: theirs goes through the attention of their own layer, and no further down.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from plmscope.data.proteins import Protein
from plmscope.models.classifier import Classifier
from plmscope.models.sites import Site
from plmscope.progress import Track, silent
from plmscope.scoring.linear import patched
from plmscope.scoring.scores import NeuronScores
from plmscope.scoring.table import forms_of

METHODS = forms_of("relp")
#: Functions that become x * (f(x) / x), those whose results become constants, and those that open a gate.
_ACTIVATIONS: tuple[Callable[..., Any], ...] = (
    torch.nn.functional.gelu, torch.nn.functional.silu, torch.nn.functional.relu, torch.tanh, torch.relu,
)  # fmt: skip
_FACTORS: tuple[Callable[..., Any], ...] = (torch.erf, torch.rsqrt)


class Linearised(TorchFunctionMode):
    """Within the block, non-linear functions have the values that they have and the gradients of RelP's rules.

    Hugging Face's layers are seen through the functions that they call: a GELU written out is ``x`` times a factor of
    ``torch.erf``, an RMS norm times one of ``torch.rsqrt``.
    """

    def __init__(self) -> None:
        super().__init__()
        self._gates: list[torch.Tensor] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """One call of a function on tensors."""
        kwargs = kwargs or {}
        if func is torch.nn.functional.layer_norm:
            return _norm(*args, **kwargs)
        if func in _ACTIVATIONS:
            x = args[0]
            with torch.no_grad():
                y = func(*args, **kwargs)
                slope = torch.where(
                    x.abs() > 1e-6, y / torch.where(x.abs() > 1e-6, x, 1.0), 1.0 if func is torch.tanh else 0.5
                )
            out = x * slope
            if func is torch.nn.functional.silu:
                self._gates.append(out)
            return out
        if func in _FACTORS:
            return func(*args, **kwargs).detach()
        if func in (torch.mul, torch.Tensor.mul, torch.Tensor.__mul__) and self._is_gate(args):
            x, y = args[0], args[1]
            return 0.5 * (x * y.detach()) + 0.5 * (x.detach() * y)
        return func(*args, **kwargs)

    def _is_gate(self, args: Any) -> bool:
        """Whether a product is that of a gate and what it lets through; a gate is met once."""
        for place, gate in enumerate(self._gates):
            if any(one is gate for one in args[:2]) and all(isinstance(one, torch.Tensor) for one in args[:2]):
                del self._gates[place]
                return True
        return False


def _norm(
    x: torch.Tensor, shape: Sequence[int], weight: Any = None, bias: Any = None, eps: float = 1e-5
) -> torch.Tensor:
    """A layer norm whose scale is a constant."""
    places = tuple(range(-len(shape), 0))
    centred = x - x.mean(places, keepdim=True)
    with torch.no_grad():
        scale = torch.rsqrt(x.var(places, keepdim=True, correction=0) + eps)
    out = centred * scale
    out = out if weight is None else out * weight
    return out if bias is None else out + bias


def stopped(site: Site) -> bool:
    """Whether relevance ends at a site: attention weights are constants for whatever lies below queries and keys."""
    return site.module in ("query", "key")


def relp(
    classifier: Classifier,
    proteins: Sequence[Protein],
    *,
    corruption: str = "conservative",
    copies: int = 2,
    seed: int = 0,
    target: str = "log_odds",
    token_budget: int = 4096,
    groups: Sequence[str] | None = None,
    rms: bool = False,
    track: Track = silent,
) -> tuple[NeuronScores, ...]:
    """Relevance patching of every neuron against corrupted copies of the same length.

    Args:
        classifier: The model.
        proteins: With labels.
        corruption: ``conservative`` or ``shuffled``.
        copies: Corrupted copies a protein; their effects are averaged.
        seed: Seeds the corruptions, with the protein's id, as in attribution patching: the copies are the same.
        target: ``log_odds``, ``logit`` or ``log_probability`` of the true class.
        token_budget: Padded tokens a batch; 0: by free memory.
        groups: Group of each protein for bootstraps, from :func:`~plmscope.scoring.scores.resampling_groups`.
        rms: Also the root mean square over proteins.
        track: Progress.

    Returns:
        ``relp``, ``relp_abs`` (absolute token sums per protein) and, if asked for, ``relp_rms``.

    Raises:
        InputError: no proteins, or a label the model does not know.
        SelectionError: a setting is impossible.
    """
    return patched(
        METHODS[0], classifier, proteins, corruption, copies, seed, target, token_budget, groups, rms, track,
        Linearised, stopped,
    )  # fmt: skip
