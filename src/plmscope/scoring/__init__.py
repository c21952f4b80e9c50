"""How much every neuron matters to a decision, by many methods: one file a method.

::

    scores.py                what a scorer returns: one number a neuron, and the sums that it comes from
    targets.py, paths.py     what is explained; path integrals, their points and how complete they are
    driver.py                the loop that all scorers run in
    activation.py            what a neuron does, whatever the decision
    integrated_gradients.py  along a path of the neuron's own activation
    conductance.py           along a path of the whole input
    linear.py                gradient times activation, attribution patching
    relp.py                  relevance patching, through a network made linear
    ablation.py              what is lost without one neuron
    table.py, methods.py     one row a method; ``score``
    shards.py                the work divided among machines

Higher means more important. Methods are judged in :mod:`plmscope.evaluation`, never by their formula.
"""

from __future__ import annotations

from typing import Any

from plmscope.lazy import find

_HOME = {
    "NeuronScores": "scores",
    "SCORERS": "methods",
    "score": "methods",
    "summarise_activations": "activation",
}

__all__ = list(_HOME)


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used."""
    return find(__name__, _HOME, name)


def __dir__() -> list[str]:
    """The public names."""
    return __all__
