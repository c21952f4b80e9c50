"""LoRA (Hu et al., arXiv:2106.09685): adapters of a language model, merged before anything is scored.

A linear module with weights ``W`` gets a product of two thin matrices beside it, which is trained in their place::

    y = x W^T + b + (alpha / r) x A^T B^T          A (r, in), B (out, r); merged: W + (alpha / r) B A

Once merged it is a model like any other: the neurons are those of the sum. The library ``peft`` does the work; it is
an extra (``pip install '.[lora]'`` in a checkout).
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import torch
from safetensors.torch import load_file

from plmscope.errors import ModelError
from plmscope.models.architectures import Architecture
from plmscope.models.checkpoints import Checkpoint, built
from plmscope.models.heads import POOLING_KEY, Head

#: What peft puts in front of the names of the model inside.
_PREFIX = "base_model.model."
#: And around the modules that are trained whole.
_SAVED = re.compile(r"\.(modules_to_save|original_module)(\.default)?(?=\.)")


class Adapter:
    """A LoRA adapter that waits for its base model.

    Raises:
        ModelError: the library ``peft`` is missing, or it is an adapter of another kind.
    """

    def __init__(self, found: Checkpoint) -> None:
        require_peft()
        self.found, self.base = found, found.base()
        self.weights = load_file(found.weights[0])

    def _head(self, architecture: Architecture) -> list[str]:
        """Names of the weights of a classification head that was trained along, adapters of it included."""
        return [key for key in self.weights if key.removeprefix(_PREFIX).startswith(architecture.new)]

    def outputs(self, architecture: Architecture) -> int:
        """How many outputs its own classification head has; 0: it brings none."""
        last = self.weights.get(f"{_PREFIX}{architecture.head_modules[-1]}.weight")
        return 0 if last is None else len(last)

    def head(self, architecture: Architecture, base: Head) -> Head:
        """Its own classification head, or that of its base.

        Class names, task and pooling are those of a ``config.json`` beside it; without one, its own classes are
        ``LABEL_0`` and on, and those of the base's head are the base's.
        """
        said, outputs = self.found.config, self.outputs(architecture)
        own = base if not outputs else Head("", outputs, tuple(f"LABEL_{i}" for i in range(outputs)), "", base.pooling)
        names = {int(number): str(name) for number, name in dict(said.get("id2label") or {}).items()}
        return replace(
            own,
            name=self.found.name,
            names=tuple(names[i] for i in sorted(names)) or own.names,
            problem_type=str(said.get("problem_type") or own.problem_type),
            pooling=str(said.get(POOLING_KEY) or own.pooling),
            foreign=base.foreign if own is base else (),
            adapter=True,
        )

    def merged(self, model: Any, architecture: Architecture, with_head: bool) -> Any:
        """The base model with the adapter added to its weights; a head that comes with it only if it is wanted."""
        import peft

        settings = built(self.found.name, lambda: peft.PeftConfig.from_pretrained(str(self.found.folder)))
        settings.inference_mode, settings.init_lora_weights = True, True
        weights, head = dict(self.weights), self._head(architecture)
        if not with_head:
            settings.modules_to_save = settings.task_type = None  # peft puts the head of a task type back
            # A LoRA target such as dense may be a module of the head too.
            settings.exclude_modules = "(" + "|".join(re.escape(n.rstrip(".")) for n in architecture.new) + r")(\..*)?"
            weights = {key: weight for key, weight in weights.items() if key not in head}

        def build() -> Any:
            whole: Any = peft.get_peft_model(model, settings)
            result: Any = peft.set_peft_model_state_dict(whole, weights)
            lacking = [key for key in result.missing_keys if "lora_" in key or "modules_to_save" in key]
            # Where all biases are trained, peft writes those of a saved module a second and a third time.
            known = {_SAVED.sub("", key) for key in weights if not _SAVED.search(key)}
            unknown = [key for key in result.unexpected_keys if _SAVED.sub("", key) not in known]
            return whole, sorted([*lacking, *unknown])

        whole, wrong = built(self.found.name, build)
        if wrong:
            raise ModelError(
                f"{self.found.name}: {len(wrong)} weights of the adapter do not fit {self.base}, first {wrong[0]!r}"
            )
        return whole.merge_and_unload()


def require_peft() -> None:
    """Raise :class:`ModelError` where the library for LoRA is missing."""
    try:
        import peft  # noqa: F401
    except ImportError:
        raise ModelError("LoRA needs the library peft; install it: pip install 'peft>=0.19'") from None


def with_adapters(model: Any, architecture: Architecture, rank: int, seed: int) -> Any:
    """Put adapters beside every linear module of the encoder, in place; they and the head alone are trained.

    Args:
        model: The Hugging Face model.
        architecture: Where its layers are.
        rank: ``r``; ``alpha`` is ``2 r``.
        seed: Seeds ``A``; ``B`` is zero, so that nothing changes before training.

    Returns:
        peft's wrapper; its ``merge_and_unload`` gives the plain model with the adapters in its weights.
    """
    import peft

    torch.manual_seed(seed)
    names = [
        f"{architecture.layers}.{name}"
        for name, module in model.get_submodule(architecture.layers).named_modules()
        if isinstance(module, torch.nn.Linear)
    ]
    settings = peft.LoraConfig(r=rank, lora_alpha=2 * rank, lora_dropout=0.0, target_modules=names)
    tuner: Any = peft.LoraModel(model, {"default": settings}, "default")
    for name, parameter in model.named_parameters():
        if name.startswith(architecture.new):
            parameter.requires_grad_(True)
    return tuner
