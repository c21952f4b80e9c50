"""Why did the model say this about my protein? One protein, one decision, taken apart.

::

    decision.py        the log-odds F of one class for one protein
    residues.py        which residues carry it: path from the mean residue, and the band of shuffled copies
    contributions.py   which neurons carry it, and at which residues
    held.py            what becomes of it without them, against matched draws
    training.py        how that compares with training proteins: ranks, class contrasts, the nearest one
    detected.py        what the chosen neurons detect in this protein, by cards and motifs
    explainer.py       all of it for one protein; explanation.py is what comes out
    activations.py     activations of chosen neurons, a frame residues x neurons
    folder.py, page.py for a file of proteins: tables, and one page that opens offline
    variants.py        what substitutions would change

What a neuron, a score and a card are is defined where they are made; nothing here trains or scores anew.
"""

from __future__ import annotations

from typing import Any

from plmscope.lazy import find

_HOME = {
    "Explanation": "explanation",
    "Variants": "variants",
    "explain": "explainer",
}

__all__ = list(_HOME)


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used."""
    return find(__name__, _HOME, name)


def __dir__() -> list[str]:
    """The public names."""
    return __all__
