"""How much every neuron matters to a decision, by many methods. Every method has a file of its own.

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
    table.py, methods.py     all methods, a row for each; ``score``, which runs one
    shards.py                the work divided among machines

A higher score means a more important neuron. Which method is right is not a matter of its formula: whether the best
neurons by a method are needed, and suffice, is measured in :mod:`plmscope.evaluation`.
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
