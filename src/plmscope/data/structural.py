"""What a structure says of its residues: secondary structure, accessibility, contacts, distance to a site.

**Secondary structure** by the rules of DSSP (Kabsch and Sander 1983, doi:10.1002/bip.360221211). The energy of a
hydrogen bond from the C=O of residue a to the N-H of residue b is::

    E = 27.9 kcal/mol (1 / r_ON + 1 / r_CH - 1 / r_OH - 1 / r_CN)        a bond below -0.5

Two n-turns in a row make a helix (n 4: alpha, 3: 3-10, 5: pi); a bridge, parallel or antiparallel, makes a strand.
Three states: ``H`` any helix, ``E`` any bridge, ``-`` the rest. Departs from DSSP: bulges do not join ladders, and
turns and bends are not told apart from the rest.

**Relative accessibility**: solvent-accessible surface (Shrake and Rupley 1973, probe 1.4 A, 96 points an atom) over the
largest of the amino acid (Tien et al. 2013, doi:10.1371/journal.pone.0080635); above 1 at loose ends.

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
RADII = {"C": 1.70, "N": 1.55, "O": 1.52, "S": 1.80, "SE": 1.90, "P": 1.80}
#: Types of features that are a site.
SITES = ("ACT_SITE", "BINDING", "METAL", "SITE")
PROBE, POINTS, CONTACT = 1.4, 96, 10.0
_STRENGTH, _BOND = 27.9, -0.5


def secondary_structure(one: Matched) -> str:
    """``H``, ``E`` or ``-`` for every residue, a blank where the backbone is not resolved."""
    backbone = one.backbone
    known = ~np.isnan(backbone).any((1, 2))
    bonds = _bonds(backbone, known, one.letters)  # [a, b]: C=O of a to N-H of b
    length = len(known)
    state = np.full(length, "-")
    linked = _linked(backbone, known)
    bridge = _bridges(bonds, linked)
    state[bridge.any(1)] = "E"
    for n in (3, 5, 4):  # alpha helices last, so that they stay
        turn = np.zeros(length, bool)
        for i in range(length - n):
            turn[i] = bonds[i, i + n] and linked[i + 1 : i + n + 1].all()
        for i in range(1, length - n + 1):
            if turn[i - 1] and turn[i]:
                part = slice(i, i + n)
                if n == 4 or (state[part] == "-").all():
                    state[part] = "H"
    out = np.full(len(one.protein), " ")
    told = known & (one.where >= 0)
    out[one.where[told]] = state[told]
    return "".join(out)


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


def _bridges(bonds: np.ndarray, linked: np.ndarray) -> np.ndarray:
    """``(K, K)`` residues that face each other in a bridge, parallel or antiparallel."""
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
    found: np.ndarray = (parallel | opposite) & (np.abs(place[:, None] - place[None]) >= 3)
    found &= whole[:, None] & whole[None]
    return found


def accessibility(one: Matched) -> np.ndarray:
    """Relative accessible surface of every residue, ``(R,)``, in the chain alone."""
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
    return one.laid(area / np.array([LARGEST.get(letter, np.nan) for letter in one.letters]))


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
