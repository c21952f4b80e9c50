"""A folder of structures as residue features, so that neurons are compared with them as with annotated sites.

A file is the structure of the protein whose id is its name: ``P12345.pdb``, ``P12345.cif.gz``, or AlphaFold's
``AF-P12345-F1-model_v4.cif``. What :mod:`plmscope.data.structural` says of every residue becomes features of these
types::

    helix, strand           by the rules of DSSP
    buried, exposed         relative accessibility below 0.2, above 0.5
    crowded                 25 residues or more with their C-beta within 10 A
    near a site             within 8 A of a residue that is annotated as a site, and none itself

A protein without a file has none of them, which is not known to be so of its residues.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from plmscope.data.annotations import FeatureSet
from plmscope.data.proteins import Protein
from plmscope.data.structural import accessibility, contact_number, distance_to, secondary_structure, site_of
from plmscope.data.structures import ENDINGS, match_structure
from plmscope.errors import InputError
from plmscope.progress import Track, silent

#: Types of features, as tables and reports call them.
TYPES = ("helix", "strand", "buried", "exposed", "crowded", "near a site")
BURIED, EXPOSED, CROWDED, NEAR = 0.2, 0.5, 25, 8.0
_ALPHAFOLD = re.compile(r"AF-(.+)-F\d+-model_v\d+")
_COLUMNS = ["id", "feature_type", "start", "end", "description"]


def structure_files(folder: str | Path) -> dict[str, Path]:
    """The files of a folder by the id of their protein.

    Raises:
        InputError: there is no such folder, it has no structure, or two of one protein.
    """
    place = Path(folder)
    found: dict[str, Path] = {}
    if not place.is_dir():
        raise InputError(f"{folder}: no such folder; characterize.structures names a folder of PDB or mmCIF files")
    for path in sorted(place.iterdir()):
        ending = next((end for end in sorted(ENDINGS, key=len, reverse=True) if path.name.lower().endswith(end)), "")
        if not ending or not path.is_file():
            continue
        name = path.name[: -len(ending)]
        own = _ALPHAFOLD.fullmatch(name)
        name = own[1] if own else name
        if name in found:
            raise InputError(f"{path}: a second structure of {name!r}, besides {found[name].name}; keep one of them")
        found[name] = path
    if not found:
        raise InputError(f"{folder}: has no file that ends with one of {', '.join(ENDINGS)}")
    return found


def files_of(folder: str | Path, proteins: Iterable[Protein]) -> dict[str, Path]:
    """The files of some proteins; those of a window are its whole protein's.

    Raises:
        InputError: none of the files is of these proteins.
    """
    files = structure_files(folder)
    wanted = {protein.parent or protein.id for protein in proteins}
    found = {name: path for name, path in files.items() if name in wanted}
    if not found:
        raise InputError(
            f"{folder}: none of its {len(files):,} structures is of a protein of the study (the first one is called "
            f"{next(iter(files))!r}); name the files by the proteins' ids"
        )
    return found


def folder_digest(folder: str | Path) -> str:
    """What tells the structures of one folder from others."""
    digest = hashlib.sha256()
    for name, path in structure_files(folder).items():
        digest.update(f"{name}\0{path.suffix}\0".encode())
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def with_structures(
    folder: str | Path, proteins: Sequence[Protein], features: FeatureSet | None, track: Track = silent
) -> FeatureSet:
    """Features with those that structures add.

    Args:
        folder: Of the structures.
        proteins: Whose features are wanted.
        features: Those that are annotated, which say where sites are; ``None``: none.
        track: Progress.

    Raises:
        InputError: a file cannot be read or is another protein's; it is named.
    """
    files = files_of(folder, proteins)
    own = [protein for protein in proteins if (protein.parent or protein.id) in files]
    rows: list[tuple[str, str, int, int, str]] = []
    for protein in track(own, "structures", len(own)):
        for kind, marked in marks(files[protein.parent or protein.id], protein, features).items():
            rows += [(protein.id, kind, start, end, "structure") for start, end in _stretches(marked)]
    table = pd.DataFrame(rows, columns=_COLUMNS)
    excluded = Counter({} if features is None else features.excluded)
    if other := len(structure_files(folder)) - len(files):
        excluded["structure of no protein of the study"] += other
    if features is None:
        return FeatureSet(table, excluded, str(folder), folder_digest(folder))
    whole = pd.concat([features.table, table], ignore_index=True)
    digest = hashlib.sha256(f"{features.sha256} {folder_digest(folder)}".encode()).hexdigest()
    return FeatureSet(whole, excluded, f"{features.source} and {folder}", digest, features.clipped)


def marks(path: Path, protein: Protein, features: FeatureSet | None) -> Mapping[str, np.ndarray]:
    """Which residues of a protein are what, ``(R,)`` for each of :data:`TYPES`.

    Raises:
        InputError: the file cannot be read or is another protein's.
    """
    one = match_structure(path, protein)
    state, surface = np.array(list(secondary_structure(one))), accessibility(one)
    site = site_of(protein, features)
    with np.errstate(invalid="ignore"):
        found = (
            state == "H", state == "E", surface < BURIED, surface > EXPOSED, contact_number(one) >= CROWDED,
            ~site & (distance_to(one, site) <= NEAR),
        )  # fmt: skip
    return dict(zip(TYPES, found, strict=True))


def _stretches(marked: np.ndarray) -> list[tuple[int, int]]:
    """Unbroken stretches, half open."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], marked.astype(np.int8), [0]])))
    return [(int(a), int(b)) for a, b in edges.reshape(-1, 2)]
