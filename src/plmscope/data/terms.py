"""What a table of proteins says about whole proteins, as terms: keywords, GO, InterPro, Pfam, cofactors, taxa.

Columns are known by the names that ``fetch`` and UniProt's own tables give them. A cell holds terms joined by
``;``; two kinds are written otherwise by UniProt, and read here::

    COFACTOR: Name=Mg(2+); Xref=ChEBI:CHEBI:18420; Name=K(+); ...        Mg(2+), K(+)
    cellular organisms (no rank), Bacteria (domain), ..., Pseudomonadota (phylum), ...     Bacteria, Pseudomonadota

And what a residue feature says beyond its kind: the ligand of a binding site, the modified residue, the name of a
domain, a motif or a zinc finger, without counting numbers and evidence.

>>> feature_name("MOD_RES", "Phosphoserine; by PKA; ECO:0000269|PubMed:1"), feature_name("ZN_FING", "C2H2-type 3")
('MOD_RES: Phosphoserine', 'ZN_FING: C2H2-type')
>>> feature_name("HELIX", "")
''
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from plmscope.data.proteins import Protein

#: Kind of term to the names of its column, best first.
TERM_COLUMNS: Mapping[str, tuple[str, ...]] = {
    "keyword": ("keywords", "keyword"),
    "GO": ("go", "gene ontology ids", "gene ontology (go)"),
    "InterPro": ("interpro",),
    "Pfam": ("pfam",),
    "cofactor": ("cofactor", "cofactors"),
    "taxon": ("taxon", "taxonomic lineage", "lineage"),
}
#: Features whose description names something that several proteins share.
NAMED_FEATURES = ("BINDING", "METAL", "NP_BIND", "CA_BIND", "MOD_RES", "DOMAIN", "REPEAT", "MOTIF", "ZN_FING", "LIPID",
                  "CARBOHYD", "DNA_BIND", "REGION", "COMPBIAS")  # fmt: skip
#: Ranks of a lineage that become terms.
RANKS = ("domain", "superkingdom", "kingdom", "phylum")
_COFACTOR = re.compile(r"Name=([^;]+)")
_RANK = re.compile(r"([^,()]+(?:\([^()]*\)[^,()]+)*) \(([a-z ]+)\)")


def terms_of(columns: Mapping[str, str]) -> dict[str, tuple[str, ...]]:
    """Kind of term to the terms of a protein; a kind whose column is missing or empty is not there.

    >>> terms_of({"Keywords": "Hydrolase; Zinc", "Pfam": ""})
    {'keyword': ('Hydrolase', 'Zinc')}
    """
    folded = {name.strip().lower(): value for name, value in columns.items()}
    found = {}
    for kind, names in TERM_COLUMNS.items():
        cell = next((folded[name] for name in names if folded.get(name, "").strip()), "")
        if terms := split_terms(kind, cell):
            found[kind] = terms
    return found


def split_terms(kind: str, cell: str) -> tuple[str, ...]:
    """The terms of a cell, each once, in their order.

    >>> split_terms("cofactor", "COFACTOR: Name=Mg(2+); Xref=ChEBI:CHEBI:18420; Name=K(+); Note=Binds 2.;")
    ('Mg(2+)', 'K(+)')
    >>> split_terms("taxon", "cellular organisms (no rank), Bacteria (domain), Pseudomonadota (phylum), E. (genus)")
    ('Bacteria', 'Pseudomonadota')
    """
    if kind == "cofactor" and "Name=" in cell:
        parts = _COFACTOR.findall(cell)
    elif kind == "taxon" and _RANK.search(cell):
        parts = [name for name, rank in _RANK.findall(cell) if rank in RANKS]
    else:
        parts = cell.split(";")
    return tuple(dict.fromkeys(part.strip() for part in parts if part.strip()))


def feature_name(kind: str, description: str) -> str:
    """Kind and name of a feature; empty where its description names nothing that others may share."""
    if kind not in NAMED_FEATURES:
        return ""
    name = description.split(";")[0].strip()
    if name.startswith("ECO:"):
        return ""
    name = re.sub(r"[ ,]+\d+$", "", name).strip()
    return f"{kind}: {name}" if re.search("[A-Za-z]", name) else ""


def frequent_terms(
    proteins: Iterable[Protein], terms: Mapping[str, Mapping[str, Sequence[str]]], least: int, most: int
) -> tuple[list[tuple[str, str]], int]:
    """Kind and term of those that at least ``least`` of the proteins have, but not all where the kind is known.

    Args:
        proteins: Those that count.
        terms: Protein id to kind to terms.
        least: Proteins.
        most: Terms, the most frequent; ties go by name.

    Returns:
        The terms, sorted, and how many were left out because there are more than ``most``.
    """
    counts: Counter[tuple[str, str]] = Counter()
    known: Counter[str] = Counter()
    for protein in proteins:
        for kind, names in terms.get(protein.id, {}).items():
            known[kind] += 1
            counts.update((kind, name) for name in names)
    found = [one for one, n in counts.items() if least <= n < known[one[0]]]
    found.sort(key=lambda one: (-counts[one], one))
    kinds = list(TERM_COLUMNS)
    return sorted(found[:most], key=lambda one: (kinds.index(one[0]), one[1])), max(0, len(found) - most)
