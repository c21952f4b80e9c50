"""What a structure says of its residues: secondary structure, accessibility, contacts, distance to a site.

**Secondary structure** by the rules of DSSP (Kabsch and Sander 1983, doi:10.1002/bip.360221211). The energy of a
hydrogen bond from the C=O of residue a to the N-H of residue b is::

    E = 27.9 kcal/mol (1 / r_ON + 1 / r_CH - 1 / r_OH - 1 / r_CN)        a bond below -0.5

Two n-turns in a row make a helix (n 4: alpha, 3: 3-10, 5: pi); bridges, parallel or antiparallel, make ladders, which
bulges join, and ladders strands. Three states: ``H`` any helix, ``E`` any strand or lone bridge, ``-`` the rest.

**Relative accessibility**: solvent-accessible surface (Shrake and Rupley 1973, probe 1.4 A, 96 points an atom) over the
largest of the amino acid (Tien et al. 2013, doi:10.1371/journal.pone.0080635); above 1 at loose ends. NaN where atoms
of the residue are missing, which would look buried.

**Contact number**: residues whose C-beta is within 10 A. Where a residue has no coordinates all are NaN, or a blank.
All in the chain alone: what other chains cover counts as open, and strands between chains are none.
"""

from __future__ import annotations

import numpy as np
from scipy.spatial import cKDTree

from plmscope.data.annotations import FeatureSet
from plmscope.data.proteins import Protein
from plmscope.data.structures import PEPTIDE, Matched

#: Largest accessible surface of each amino acid in square Angstrom, Tien et al. 2013, theoretical.
LARGEST = dict(
    zip(
        "ARNDCEQGHILKMFPSTWYV",
        (129, 274, 195, 193, 167, 223, 225, 104, 224, 197, 201, 236, 224, 240, 159, 155, 172, 285, 263, 174),
        strict=True,
    )
)
#: Heavy atoms of each amino acid inside a chain.
HEAVY = dict(
    zip("ARNDCEQGHILKMFPSTWYV", (5, 11, 8, 8, 6, 9, 9, 4, 10, 8, 8, 9, 8, 11, 7, 6, 7, 14, 12, 7), strict=True)
)
RADII = {"C": 1.70, "N": 1.55, "O": 1.52, "S": 1.80, "SE": 1.90, "P": 1.80}
#: Types of features that are a site.
SITES = ("ACT_SITE", "BINDING", "METAL", "SITE")
PROBE, POINTS, CONTACT = 1.4, 96, 10.0
_STRENGTH, _BOND = 27.9, -0.5


def secondary_structure(one: Matched) -> str:
    """``H``, ``E`` or ``-`` for every residue, a blank where the backbone is not resolved."""
    backbone = one.backbone
    known = ~np.isnan(backbone).any((1, 2))
    state = _states(_bonds(backbone, known, one.letters), _linked(backbone, known))
    out = np.full(len(one.protein), " ")
    told = known & (one.where >= 0)
    out[one.where[told]] = state[told]
    return "".join(out)


def _states(bonds: np.ndarray, linked: np.ndarray) -> np.ndarray:
    """``(K,)`` the state of every residue of a chain.

    Args:
        bonds: ``(K, K)`` hydrogen bonds, from the C=O of a row to the N-H of a column.
        linked: ``(K,)`` whether a peptide bond leads from the residue before.
    """
    state = np.full(len(linked), "-")
    for low, high in _strands(*_bridges(bonds, linked), linked):
        state[low : high + 1] = "E"
    for n, kind, free in ((4, "H", "-EH"), (3, "G", "-G"), (5, "I", "-IH")):  # which takes what from which, as in DSSP
        turn = [bool(bonds[i, i + n] and linked[i + 1 : i + n + 1].all()) for i in range(len(linked) - n)]
        for i in range(1, len(turn)):
            if turn[i - 1] and turn[i] and all(other in free for other in state[i : i + n]):
                state[i : i + n] = kind
    state[np.isin(state, ["G", "I"])] = "H"
    return state


def _linked(backbone: np.ndarray, known: np.ndarray) -> np.ndarray:
    """``(K,)`` whether a peptide bond leads from the residue before."""
    with np.errstate(invalid="ignore"):
        near = np.linalg.norm(backbone[1:, 0] - backbone[:-1, 2], axis=1) < PEPTIDE
    return np.concatenate([[False], near & known[1:] & known[:-1]])


def _bonds(backbone: np.ndarray, known: np.ndarray, letters: str) -> np.ndarray:
    """``(K, K)`` hydrogen bonds from the C=O of a row to the N-H of a column."""
    n, c, o = (backbone[:, k] for k in (0, 2, 3))
    linked = _linked(backbone, known)
    hydrogen = np.full_like(n, np.nan)
    away = c[:-1] - o[:-1]
    with np.errstate(invalid="ignore", divide="ignore"):
        hydrogen[1:] = n[1:] + away / np.linalg.norm(away, axis=1, keepdims=True)

        def inverse(a: np.ndarray, b: np.ndarray) -> np.ndarray:
            return np.asarray(1 / np.maximum(np.linalg.norm(a[:, None] - b[None], axis=2), 0.5))

        energy = _STRENGTH * (inverse(o, n) + inverse(c, hydrogen) - inverse(o, hydrogen) - inverse(c, n))
        found = energy < _BOND
    proline = np.array([letter == "P" for letter in letters])
    found &= known[:, None] & (known & linked & ~proline)[None]
    place = np.arange(len(known))
    found[np.abs(place[:, None] - place[None]) < 2] = False
    bonds: np.ndarray = found
    return bonds


def _bridges(bonds: np.ndarray, linked: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """``(K, K)`` residues that face each other in a parallel bridge, and in an antiparallel one."""
    length = len(bonds)
    wide = np.zeros((length + 2, length + 2), bool)
    wide[1:-1, 1:-1] = bonds

    def at(di: int, dj: int, turned: bool = False) -> np.ndarray:
        """``bonds[i + di, j + dj]``, or ``bonds[j + dj, i + di]``."""
        return np.asarray((wide.T if turned else wide)[1 + di : 1 + di + length, 1 + dj : 1 + dj + length])

    parallel = (at(-1, 0) & at(1, 0, True)) | (at(0, -1, True) & at(0, 1))
    opposite = (at(0, 0) & at(0, 0, True)) | (at(-1, 1) & at(1, -1, True))
    place = np.arange(length)
    whole = linked & np.concatenate([linked[1:], [False]])  # both neighbours are there
    possible = (np.abs(place[:, None] - place[None]) >= 3) & whole[:, None] & whole[None]
    return parallel & possible, opposite & possible & ~parallel


def _strands(parallel: np.ndarray, opposite: np.ndarray, linked: np.ndarray) -> list[tuple[int, int]]:
    """First and last residue of both sides of every ladder, bulges included.

    Ladders of one kind are joined where at most one residue is extra on one side and at most four on the other.
    """
    ladders: list[tuple[bool, int, int, int, int]] = []  # parallel; first and last of either side
    for i, j in np.argwhere(np.triu(parallel | opposite)).tolist():
        kind = bool(parallel[i, j])
        for k, (same, first, last, low, high) in enumerate(ladders):
            if same == kind and i == last + 1 and j == (high + 1 if kind else low - 1):
                ladders[k] = (kind, first, i, min(low, j), max(high, j))
                break
        else:
            ladders.append((kind, i, i, j, j))
    at = 0
    while at < len(ladders):
        kind, first, last, low, high = ladders[at]
        for k, (same, its_first, its_last, its_low, its_high) in enumerate(ladders[at + 1 :], at + 1):
            here, there = its_first - last, its_low - high if kind else low - its_high
            chained = (
                linked[first + 1 : its_last + 1].all() and linked[min(low, its_low) + 1 : max(high, its_high) + 1].all()
            )
            if same == kind and chained and 0 < here < 6 and 0 <= there < 6 and min(here, there) < 3:
                ladders[at] = (kind, first, its_last, min(low, its_low), max(high, its_high))
                del ladders[k]
                break
        else:
            at += 1
    return [side for _, first, last, low, high in ladders for side in ((first, last), (low, high))]


def accessibility(one: Matched) -> np.ndarray:
    """Relative accessible surface of every residue, ``(R,)``, in the chain alone."""
    largest = np.array([LARGEST.get(letter, np.nan) for letter in one.letters])
    whole = np.bincount(one.owner, minlength=len(largest)) >= [HEAVY.get(letter, 0) for letter in one.letters]
    return one.laid(np.where(whole, _surface(one) / largest, np.nan))


def _surface(one: Matched) -> np.ndarray:
    """``(K,)`` accessible surface of the chain's residues in square Angstrom; 0 where one is none of the protein's."""
    radii = np.array([RADII.get(element, 1.7) for element in one.elements]) + PROBE
    sphere = _sphere(POINTS)
    tree = cKDTree(one.atoms)
    area = np.zeros(len(one.letters))
    for atom, radius in enumerate(radii):
        if one.where[one.owner[atom]] < 0:
            continue
        points = one.atoms[atom] + radius * sphere
        near = [k for k in tree.query_ball_point(one.atoms[atom], radius + radii.max()) if k != atom]
        gaps = ((points[:, None] - one.atoms[near][None]) ** 2).sum(2) < radii[near] ** 2
        area[one.owner[atom]] += (~gaps.any(1)).mean() * 4 * np.pi * radius**2
    return area


def _sphere(n: int) -> np.ndarray:
    """``n`` points spread evenly over a sphere (golden spiral), ``(n, 3)``."""
    k = np.arange(n) + 0.5
    height, turn = 1 - 2 * k / n, np.pi * (1 + 5**0.5) * k
    ring = np.sqrt(1 - height**2)
    return np.stack([ring * np.cos(turn), ring * np.sin(turn), height], axis=1)


def contact_number(one: Matched) -> np.ndarray:
    """Residues with their C-beta within 10 A of that of each, ``(R,)``."""
    known = ~np.isnan(one.side).any(1)
    out = np.full(len(known), np.nan)
    gaps = np.linalg.norm(one.side[known][:, None] - one.side[known][None], axis=2)
    out[known] = (gaps < CONTACT).sum(1) - 1
    return one.laid(out)


def site_of(protein: Protein, features: FeatureSet | None) -> np.ndarray:
    """``(R,)`` the residues that features call an active, binding or metal site."""
    site = np.zeros(len(protein), bool)
    if features is not None:
        for kind in SITES:
            site |= features.mask(protein, kind)
    return site


def distance_to(one: Matched, site: np.ndarray) -> np.ndarray:
    """Smallest distance between heavy atoms of every residue and of the residues of a site, ``(R,)``.

    Args:
        one: The structure.
        site: ``(R,)`` which residues are the site.
    """
    of_site = (one.where >= 0) & site[np.maximum(one.where, 0)]
    out = np.full(len(one.letters), np.nan)
    if not of_site.any():
        return one.laid(out)
    gaps, _ = cKDTree(one.atoms[of_site[one.owner]]).query(one.atoms)
    for residue in range(len(out)):
        own = gaps[one.owner == residue]
        out[residue] = own.min() if len(own) else np.nan
    return one.laid(out)
