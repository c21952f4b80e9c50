"""Where the neurons of a protein language model are, and every way to run it with some of them changed.

A *site* is one module of one encoder layer: query, key, value, attention output, intermediate or output. A *neuron* is
one output unit of a site.

::

    architectures.py, sites.py        one row an architecture; sites, neurons and their numbers
    checkpoints.py, heads.py, lora.py what a checkpoint is, what its head says of itself, adapters
    classifier.py, finetune.py        a sequence classifier; how one is trained
    hooks.py                          reading and holding neurons in any model by hooks
    network.py, hooked.py, folded.py  the same computations as functions of parts, in pieces and folded
    changed.py                        logits with neurons held or scaled
    workers.py                        threads and memory
"""

from __future__ import annotations

from typing import Any

from plmscope.lazy import find

_HOME = {
    "ARCHITECTURES": "architectures",
    "Architecture": "architectures",
    "Classifier": "classifier",
    "MODULES": "architectures",
    "Neuron": "sites",
    "NeuronIndex": "sites",
    "Site": "sites",
    "load_model": "loading",
}

__all__ = [
    "ARCHITECTURES",
    "Architecture",
    "Classifier",
    "MODULES",
    "Neuron",
    "NeuronIndex",
    "Site",
    "load_model",
]


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used."""
    return find(__name__, _HOME, name)


def __dir__() -> list[str]:
    """The public names."""
    return __all__
