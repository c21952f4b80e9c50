"""Are the chosen neurons better than chance? Keep or ablate them and measure what survives.

::

    selection.py       the best share of neurons, and random draws that match it
    predict.py         what the model says with neurons held
    resampled.py       the same with neurons at their values in other proteins
    curves.py          every share of every method and draw, as points of curves
    kinds.py           what every module kind carries, and how small a share suffices
    null_kinds.py      the same in a null model
    judging.py         one selection judged in one call
    faithfulness.py    every scorer beside single-neuron ablation: which to trust
    density.py         where selections sit, and how far methods agree
    interventions.py   a class's neurons suppressed or enhanced
    shared_out.py      several workers do it
    collected.py       the answers to many changes, kept as they come
    overlap.py         neurons that classes share

To *keep* a selection is to ablate all other neurons.
"""

from __future__ import annotations

from typing import Any

from plmscope.lazy import find

_HOME = {
    "Evaluation": "judging",
    "Intervention": "judging",
    "Selection": "selection",
    "class_overlap": "overlap",
    "evaluate": "judging",
    "intervene": "judging",
    "select_shared": "selection",
    "select_top": "selection",
}

__all__ = list(_HOME)


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used."""
    return find(__name__, _HOME, name)


def __dir__() -> list[str]:
    """The public names."""
    return __all__
