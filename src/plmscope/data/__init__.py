"""What comes in: proteins with their labels, from whatever file people have, and their split into sets.

::

    formats.py, records.py, tables.py      which format a file has; its records and rows, whatever wrote them
    rows.py, sources.py, second_table.py   one row a protein; folders of files; columns from a second table
    proteins.py, checks.py                 proteins with labels; what is left out or changed is counted and told
    labelling.py, labels.py                classes from columns and headers; one or more classes a protein
    annotations.py, uniprot.py             what is known of single residues, and as UniProt writes it
    fetch.py, service.py                   UniProt's queries, and what its service answers
    clusters.py                            proteins chosen by cluster
    mmseqs.py, peptides.py                 which proteins resemble each other, and which peptides
    low_complexity.py, relatives.py        and which repeats; all of it as clusters
    splits.py, set_columns.py, pieces.py   the split that keeps them together; one that is given; pieces of a protein
    leakage.py                             how near the nearest training protein is
    structures.py, structural.py           structures laid beside sequences, and what they say of residues
    structure_features.py                  a folder of them as residue features
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

__all__ = list(_HOME)


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used."""
    return find(__name__, _HOME, name)


def __dir__() -> list[str]:
    """The public names."""
    return __all__
