"""Where the neurons of a protein language model are, and every way to run it with some of them changed.

A *site* is one module of one encoder layer: query, key, value, attention output, intermediate or output. A *neuron* is
one output unit of a site.

::

    architectures.py, sites.py      all architectures, a row for each; sites, neurons and their numbers
    checkpoints.py, finding.py      what a checkpoint is, and where one is found
    heads.py, lora.py               what a head says of itself; adapters
    loading.py, classifier.py       a checkpoint loaded; a sequence classifier
    finetune.py, quality.py         how one is trained, and how good it is
    hooks.py                        reading and holding neurons in any model by hooks
    network.py                      what every way to run a model in parts offers
    esm.py, hooked.py               ESM spelled out; any architecture by hooks
    folded.py, folded_layer.py      held neurons folded away
    workers.py, spread.py           threads and memory; one device or several
    supplied.py                     a model on a worker of a crew
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

__all__ = list(_HOME)


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used."""
    return find(__name__, _HOME, name)


def __dir__() -> list[str]:
    """The public names."""
    return __all__
