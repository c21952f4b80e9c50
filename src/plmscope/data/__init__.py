"""What comes in: proteins with their labels, from whatever file people have, and their split into sets.

::

    rows.py, formats.py      tables and sequence files as rows, whatever wrote them
    proteins.py              rows as proteins with labels; what is left out is counted and told
    uniprot.py, fetch.py     UniProt's files and queries
    labels.py                one or more classes a protein
    annotations.py           what is known of single residues
    peptides.py, splits.py   which proteins resemble each other, and the split that keeps them together
"""

from __future__ import annotations

from typing import Any

from plmscope.lazy import find

_HOME = {
    "Protein": "proteins",
    "ProteinSet": "proteins",
    "Split": "splits",
    "read_features": "annotations",
    "read_proteins": "proteins",
    "split_proteins": "splits",
}

__all__ = [
    "Protein",
    "ProteinSet",
    "Split",
    "read_features",
    "read_proteins",
    "split_proteins",
]


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used."""
    return find(__name__, _HOME, name)


def __dir__() -> list[str]:
    """The public names."""
    return __all__
