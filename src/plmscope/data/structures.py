"""Structures of proteins: PDB and mmCIF files, read by gemmi and laid beside a sequence by alignment.

The residues of a file need not be those of a protein: ends are missing, loops are not resolved, numbers jump, a tag is
left. Each chain's residues are therefore aligned to the sequence (gemmi's global alignment), the chain with the most
identical ones is taken, and what does not fit is told; a file whose chains are another protein is refused. Residues
of the file that stand against no residue of the sequence are ignored, and none is ever shifted to fit.

What a structure says of its residues is in :mod:`plmscope.data.structural`.
"""

from __future__ import annotations

import gzip
import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from plmscope.data.proteins import Protein
from plmscope.errors import InputError

#: Files that count as structures, by how their names end.
ENDINGS = (".pdb", ".ent", ".cif", ".mmcif", ".pdb.gz", ".ent.gz", ".cif.gz", ".mmcif.gz")
#: The least share of the aligned residues that have to be the same, and how many have to be aligned.
LEAST_IDENTITY, FEWEST_ALIGNED = 0.8, 10
#: Longest peptide bond in Angstrom.
PEPTIDE = 2.5
BACKBONE = ("N", "CA", "C", "O")
#: Names of simulation programs for protonated amino acids, which gemmi does not know.
SIMULATED = {
    **dict.fromkeys(("HSD", "HSE", "HSP", "HID", "HIE", "HIP"), "H"),
    "CYX": "C", "CYM": "C", "ASH": "D", "GLH": "E", "LYN": "K",
}  # fmt: skip


@dataclass(frozen=True)
class Matched:
    """The chain of a file that is a protein, residue by residue.

    Attributes:
        protein: The protein, ``R`` residues.
        source: The file.
        chain: Name of its chain, ``K`` residues with coordinates.
        letters: Of the chain.
        where: ``(K,)`` position of each in the protein; -1: none.
        numbers: ``(R,)`` of the protein's residues in the file; empty where one is not resolved.
        backbone: ``(K, 4, 3)`` N, CA, C and O in Angstrom; NaN where there is none.
        side: ``(K, 3)`` C-beta, or where it would be in glycine.
        atoms: ``(A, 3)`` heavy atoms of the chain.
        elements: ``(A,)`` their elements.
        owner: ``(A,)`` the residue of the chain that each is of.
        text: The chain and what is bound to it as PDB lines, for a viewer: the protein's residues are chain A, by their
            position in the sequence; others chain B.
        models: How many the file holds; this is of the first.
    """

    protein: Protein
    source: str
    chain: str
    letters: str
    where: np.ndarray
    numbers: tuple[str, ...]
    backbone: np.ndarray
    side: np.ndarray
    atoms: np.ndarray
    elements: np.ndarray
    owner: np.ndarray
    text: str
    models: int = 1

    @property
    def different(self) -> list[tuple[int, str]]:
        """Position and letter of the residues that are another amino acid in the file."""
        pairs = zip(self.where.tolist(), self.letters, strict=True)
        return [(p, letter) for p, letter in pairs if p >= 0 and letter != self.protein.sequence[p]]

    @property
    def extra(self) -> int:
        """Residues of the chain that stand against none of the sequence."""
        return int((self.where < 0).sum())

    def laid(self, values: np.ndarray) -> np.ndarray:
        """Values of the chain's residues ``(K,)`` by the protein's, ``(R,)``; NaN where none is resolved."""
        found = np.full(len(self.protein), np.nan)
        own = self.where >= 0
        found[self.where[own]] = values[own]
        return found

    @cached_property
    def resolved(self) -> np.ndarray:
        """``(R,)`` which residues have coordinates."""
        found: np.ndarray = np.array([number != "" for number in self.numbers])
        return found

    def __repr__(self) -> str:
        return "Matched(" + self.told() + ")"

    def told(self) -> str:
        """In words what fits and what does not."""
        length, known = len(self.protein), int(self.resolved.sum())
        file = Path(self.source).name  # pages are sent to others, who have no use for where it lay
        chain = f"chain {self.chain}" if self.chain.strip() else "the chain without a name"
        chain += f" of the first of {self.models:,} models" if self.models > 1 else ""
        parts = [f"{file}, {chain}: {known:,} of {length:,} residues of {self.protein.id} have coordinates"]
        if bare := int((np.isnan(self.backbone).any((1, 2)) & (self.where >= 0)).sum()):
            parts.append(f"{bare:,} without a whole backbone, so without secondary structure")
        if other := self.different:
            named = ", ".join(f"{self.protein.sequence[p]}{p + 1} is {letter}" for p, letter in other[:5])
            rest = f" and {len(other) - 5} more" if len(other) > 5 else ""
            parts.append(
                f"{len(other):,} {'is' if len(other) == 1 else 'are'} another amino acid there ({named}{rest})"
            )
        if self.extra:
            several = "residue of the chain is" if self.extra == 1 else "residues of the chain are"
            parts.append(f"{self.extra:,} {several} not in the sequence")
        return "; ".join(parts)


def match_structure(path: str | Path, protein: Protein) -> Matched:
    """The chain of a file that is a protein.

    Args:
        path: PDB or mmCIF, plain or gzipped; of several models the first is taken.
        protein: The protein.

    Raises:
        InputError: gemmi is not installed, the file cannot be read, or no chain is this protein.
    """
    gemmi = _gemmi()
    structure = _read(gemmi, Path(path))
    found: list[tuple[int, int, Any, list[Any], list[int]]] = []
    for chain in structure[0]:
        # Where two amino acids share a place, the first stands for it.
        residues = [r for r in chain.get_polymer().first_conformer() if r.find_atom("CA", "*") is not None]
        if not residues:
            residues = [r for r in chain.first_conformer() if r.find_atom("CA", "*", gemmi.Element("C")) is not None]
        if residues:
            letters = "".join(_letter(gemmi, r) for r in residues)
            beside = aligned(letters, protein.sequence, _breaks(residues))
            same = sum(b >= 0 and letters[a] == protein.sequence[b] for a, b in enumerate(beside))
            found.append((same, -len(found), chain, residues, beside))
    if not found:
        raise InputError(f"{path}: holds no chain of amino acids; give the structure of {protein.id!r}")
    same, _, chain, residues, beside = max(found, key=lambda one: one[:2])
    n_beside = sum(b >= 0 for b in beside)
    if same < LEAST_IDENTITY * n_beside or n_beside < min(FEWEST_ALIGNED, len(protein)):
        raise InputError(
            f"{path}: no chain is protein {protein.id!r}: in the nearest ({chain.name}) {n_beside:,} of "
            f"{len(residues):,} residues align with its {len(protein):,}, {same:,} of them the same; "
            "give its own structure"
        )
    return replace(_matched(gemmi, str(path), protein, chain, residues, beside), models=len(structure))


def aligned(letters: str, sequence: str, breaks: Sequence[bool] | None = None) -> list[int]:
    """For every residue of a chain its position in a sequence, or -1; by global alignment.

    Gaps at the ends cost nothing, since a chain may be a part of the protein, nor where the chain is broken, since what
    is missing was not resolved; elsewhere residues that are linked stay neighbours. Residues at an end that differ from
    the sequence are taken for a tag.

    Args:
        letters: Of the chain.
        sequence: Of the protein.
        breaks: ``(K,)`` whether each residue is not linked to the one before; ``None``: nowhere.

    >>> aligned("CDE", "ABCDEFG"), aligned("ACDGG", "ACDEFGGG", [True, False, False, True, False])
    ([2, 3, 4], [0, 1, 2, 5, 6])
    """
    gemmi = _gemmi()
    scoring = gemmi.AlignmentScoring()
    scoring.match, scoring.mismatch, scoring.gapo, scoring.gape = 2, -3, -10, 0
    opening = [0, *(0 if broken else -10 for broken in (breaks or [False] * len(letters))[1:]), 0]
    result = gemmi.align_string_sequences(list(sequence), list(letters), opening, scoring)
    out, at = [], 0
    for sign in _moves(result.cigar_str()):
        if sign == "M":
            out.append(at)
        elif sign == "D":
            out.append(-1)
        at += sign != "D"
    for ends in (range(len(out)), reversed(range(len(out)))):
        for k in ends:  # what differs at an end is a tag, not the protein's own end
            if out[k] >= 0 and letters[k] == sequence[out[k]]:
                break
            out[k] = -1
    return out


def digest_of(path: str | Path) -> str:
    """SHA-256 of a file.

    Raises:
        InputError: it cannot be read.
    """
    try:
        return hashlib.sha256(Path(path).read_bytes()).hexdigest()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); give PDB or mmCIF") from None


def _breaks(residues: Sequence[Any]) -> list[bool]:
    """Where no peptide bond leads from the residue before: by their atoms, or where these are missing by numbers."""
    out = [True]
    for before, now in pairwise(residues):
        c, n = before.find_atom("C", "*"), now.find_atom("N", "*")
        if c is None or n is None:
            out.append(now.seqid.num != before.seqid.num + 1)
        else:
            out.append(c.pos.dist(n.pos) > PEPTIDE)
    return out


def _moves(cigar: str) -> str:
    """A CIGAR string written out: ``2M1I`` is ``MMI``."""
    out, number = "", ""
    for sign in cigar:
        if sign.isdigit():
            number += sign
        else:
            out, number = out + sign * int(number or 1), ""
    return out


def _matched(gemmi: Any, source: str, protein: Protein, chain: Any, residues: list[Any], beside: list[int]) -> Matched:
    numbers = [""] * len(protein)
    backbone, side = np.full((len(residues), 4, 3), np.nan), np.full((len(residues), 3), np.nan)
    atoms: list[list[float]] = []
    elements, owner = [], []
    for k, (residue, position) in enumerate(zip(residues, beside, strict=True)):
        if residue.name in SIMULATED or gemmi.find_tabulated_residue(residue.name).is_standard():
            for atom in residue:  # files without elements may have a C-alpha where calcium would stand
                atom.element = gemmi.Element(atom.name.lstrip("0123456789")[:1])
        for atom in residue.first_conformer():
            if not atom.is_hydrogen():
                atoms.append(atom.pos.tolist())
                elements.append(atom.element.name.upper())
                owner.append(k)
        if position >= 0:
            numbers[position] = str(residue.seqid).strip()
        for column, name in enumerate(BACKBONE):
            atom = residue.find_atom(name, "*")
            if atom is not None:
                backbone[k, column] = atom.pos.tolist()
        beta = residue.find_atom("CB", "*")
        side[k] = beta.pos.tolist() if beta is not None else _virtual_beta(backbone[k])
    letters = "".join(_letter(gemmi, residue) for residue in residues)
    return Matched(
        protein, source, chain.name, letters, np.array(beside, np.int64), tuple(numbers), backbone, side,
        np.array(atoms), np.array(elements), np.array(owner, np.int64), _viewed(gemmi, chain, residues, beside),
    )  # fmt: skip


def _virtual_beta(backbone: np.ndarray) -> np.ndarray:
    """Where the C-beta of a residue would be, from its N, CA and C."""
    n, ca, c, _ = backbone
    b, d = ca - n, c - ca
    found: np.ndarray = -0.58273431 * np.cross(b, d) + 0.56802827 * b - 0.54067466 * d + ca
    return found


def _viewed(gemmi: Any, chain: Any, residues: list[Any], beside: list[int]) -> str:
    """The matched residues as chain A, by position; whatever else the chain holds, but waters, as chain B."""
    own, other = gemmi.Chain("A"), gemmi.Chain("B")
    place = {str(r.seqid): position for r, position in zip(residues, beside, strict=True)}
    for residue in chain:
        copy, position = residue.clone(), place.get(str(residue.seqid), -1)
        if residue.is_water():
            continue
        if position >= 0:
            copy.het_flag = "A"  # the viewer breaks a ribbon at a modified residue that is not called an amino acid
        copy.seqid = gemmi.SeqId(position + 1 if position >= 0 else 1 + len(other), " ")
        (own if position >= 0 else other).add_residue(copy)
    model = gemmi.Model(1)
    for part in (own, other):
        if len(part):
            model.add_chain(part)
    view = gemmi.Structure()
    view.add_model(model)
    view.remove_hydrogens()
    view.remove_alternative_conformations()  # of those the viewer draws what is called A, and else nothing
    view.setup_entities()
    lines = [line for line in view.make_pdb_string().splitlines() if line.startswith(("ATOM", "HETATM", "TER"))]
    return "\n".join(lines) + "\nEND\n"


def _letter(gemmi: Any, residue: Any) -> str:
    """One-letter code; modified residues are their parent, unknown ones X."""
    if residue.name in SIMULATED:
        return SIMULATED[residue.name]
    letter = gemmi.find_tabulated_residue(residue.name).one_letter_code.upper()
    return letter if letter.isalpha() else "X"


def _read(gemmi: Any, path: Path) -> Any:
    try:
        data = path.read_bytes()
        if data[:2] == b"\x1f\x8b":
            data = gzip.decompress(data)
        text = data.decode("utf-8", errors="replace")
        if re.match(r"\s*(#.*\s+)*data_", text):  # whatever the file is called
            structure = gemmi.make_structure_from_block(gemmi.cif.read_string(text)[0])
        else:
            structure = gemmi.read_pdb_string(text)
        structure.setup_entities()
    except (OSError, EOFError, RuntimeError, ValueError, IndexError) as error:
        known = error.strerror if isinstance(error, OSError) else None  # else it names the file once more
        reason = known or " ".join(str(error).split()) or type(error).__name__
        raise InputError(f"{path}: cannot be read as a structure ({reason}); give PDB or mmCIF") from None
    if not len(structure) or not len(structure[0]):
        raise InputError(f"{path}: holds no atoms; give PDB or mmCIF")
    return structure


def _gemmi() -> Any:
    try:
        import gemmi
    except ImportError:
        raise InputError("structures need the library gemmi; install it: pip install 'plmscope[structures]'") from None
    return gemmi
