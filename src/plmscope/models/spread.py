"""Where the weights of a model go: to one device, or spread over all GPUs and the host's memory.

A model that does not fit one GPU (ESM-2 15B) is spread by accelerate: layer by layer, a layer is never cut. What lies
in the host's memory, or on disk, is brought to a GPU when it is its turn. Such a model is run as Hugging Face wrote it,
which is enough for activation scores, ablation means, the concepts of neurons and the quality of the classifier. What
runs a model in parts (attributions, held neurons) needs it on one device.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from typing import Any

import torch

#: The device of a study whose model is spread.
AUTO = "auto"


def placed(model: Any, device: torch.device, dtype: torch.dtype) -> Any:
    """Move a model; its weights take the type, its buffers (rotary frequencies) keep their own, as they must."""
    buffers = {name: buffer.detach().clone() for name, buffer in model.named_buffers()}
    model = model.to(device=device, dtype=dtype)
    for name, buffer in buffers.items():
        owner, _, own = name.rpartition(".")
        setattr(model.get_submodule(owner), own, buffer.to(device))
    return model


def spread(model: Any, layers: str, places: Mapping[str, int | str] | None = None) -> Any:
    """Spread a model over the devices that there are.

    Args:
        model: In the host's memory, in its type.
        layers: Where its layers are.
        places: Module to GPU, ``cpu`` or ``disk``; left out: as they fit, evenly over the GPUs.
    """
    from accelerate import dispatch_model, infer_auto_device_map
    from accelerate.utils import get_balanced_memory

    if places is None:
        whole = [*(model._no_split_modules or []), type(model.get_submodule(layers)[0]).__name__]
        memory = get_balanced_memory(model, no_split_module_classes=whole, dtype=model.dtype)
        places = infer_auto_device_map(model, memory, no_split_module_classes=whole, dtype=model.dtype)
    folder = tempfile.TemporaryDirectory(prefix="plmscope-") if "disk" in places.values() else None
    model = dispatch_model(model, dict(places), offload_dir=folder and folder.name)
    model.offloaded_to = folder  # goes with the model
    if len(set(places.values())) == 1:  # all in one place: an ordinary model
        del model.hf_device_map
    return model


def is_spread(model: Any) -> bool:
    """Whether a model is in several places."""
    return len(set(getattr(model, "hf_device_map", {}).values())) > 1


def device_of(model: Any) -> torch.device:
    """Where a model's inputs go and its outputs come from."""
    if not is_spread(model):
        device: torch.device = next(model.parameters()).device
        return device
    cards = [place for place in model.hf_device_map.values() if place not in ("cpu", "disk")]
    return torch.device(cards[0] if cards else "cpu")
