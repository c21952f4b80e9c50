"""How near the nearest training protein of every held-out one is, by whatever comparison sees sequences so short."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

import numpy as np
import pandas as pd

from plmscope.data.low_complexity import align_all
from plmscope.data.mmseqs import AT_ONCE, SEEN, best_hits, search
from plmscope.data.peptides import close_pairs, is_comparable, is_short, is_simple
from plmscope.data.proteins import Protein
from plmscope.data.set_columns import PARTS
from plmscope.errors import InputError, StudyError
from plmscope.progress import Track, silent

#: Bounds of the classes of identity in :func:`leakage_table`.
IDENTITIES = (0.3, 0.4, 0.5, 0.7, 0.9)


def leakage_table(near: pd.DataFrame) -> pd.DataFrame:
    """Count validation and test proteins by how similar their nearest training protein is.

    Args:
        near: ``leakage.parquet``: :func:`leakage` with a column ``split``.

    Returns:
        One row a class of identity, in words: ``identity, validation, test``; "not searched reliably" only where
        some were not.
    """
    names = ["not searched reliably", "none found", f"below {IDENTITIES[0]:.0%}"]
    names += [f"{low:.0%} to {high:.0%}" for low, high in pairwise(IDENTITIES)] + [f"{IDENTITIES[-1]:.0%} or more"]
    place = np.where(near["nearest_train"] == "", 1, 2 + np.searchsorted(IDENTITIES, near["identity"], side="right"))
    place[near["identity"].isna()] = 0
    table = pd.DataFrame({"identity": names})
    for part in PARTS[1:]:
        table[part] = np.bincount(place[near["split"] == part], minlength=len(names))
    return table[table["identity"].ne("not searched reliably") | table[[*PARTS[1:]]].any(axis=1)].reset_index(drop=True)


def leakage_lines(near: pd.DataFrame) -> list[str]:
    """:func:`leakage_table` as text."""
    return ["identity of the nearest training protein:", *leakage_table(near).to_string(index=False).splitlines()]


def leakage(
    train: Sequence[Protein], others: Sequence[Protein], identity_floor: float = 0.0, track: Track = silent
) -> pd.DataFrame:
    """How similar each other protein is to its nearest training protein.

    MMseqs2 search (sensitivity 7.5, E-value up to 0.001); an alignment counts if it covers at least half of either
    sequence. Ties go to the better bit score. Sequences of low complexity are aligned with all others without masking
    (:mod:`plmscope.data.low_complexity`), and those below 30 residues compared with all others residue by residue
    (:mod:`plmscope.data.peptides`). A sequence equal to a training sequence has identity 1 in any case.

    Args:
        train: At least one protein.
        others: Usually validation and test.
        identity_floor: Alignments below this identity, 0 to 1, are not counted.
        track: Progress, in pieces of 4,000 proteins: memory does not grow with their number.

    Returns:
        One row per protein of ``others``, in their order: ``id, nearest_train, identity`` with identity in 0..1
        (identical residues per aligned column); ``""`` and 0.0 where nothing is found, ``""`` and NaN where that
        would say nothing: fewer than five known residues, or not even the changed copy is found.

    Raises:
        InputError: ``train`` is empty, or MMseqs2 fails.
        StudyError: ``identity_floor`` is outside 0..1.
    """
    if not 0 <= identity_floor <= 1:
        raise StudyError(f"identity_floor {identity_floor!r} is outside 0..1; give a share, not per cent")
    if not train:
        raise InputError("leakage: there is no training protein to compare with; give at least one")
    nearest_of: dict[int, tuple[str, float]] = {}

    def note(number: int, target: int, identity: float) -> None:
        if identity >= identity_floor and identity > nearest_of.get(number, ("", 0.0))[1]:
            nearest_of[number] = (train[target].id, identity)

    seen, targets = ([k for k, p in enumerate(group) if len(p) >= SEEN] for group in (others, train))
    starts = range(0, len(seen), AT_ONCE) if targets else range(0)
    for start in track(starts, "nearest training proteins", len(starts)):
        some = seen[start : start + AT_ONCE]
        best = search([others[k].sequence for k in some], [train[k].sequence for k in targets], identity_floor)
        for query, target, identity in zip(best["query"], best["target"], best["fident"], strict=True):
            note(some[int(query)], targets[int(target)], float(identity))
    unsearched = {k for k, protein in enumerate(others) if not is_comparable(protein.sequence)}
    _short_leakage(train, others, identity_floor, note, track)
    unsearched |= _simple_leakage(train, others, identity_floor, note)
    same: dict[str, str] = {}
    for protein in train:
        same.setdefault(protein.sequence, protein.id)
    rows = []
    for number, protein in enumerate(others):
        copy = same.get(protein.sequence)
        nothing = ("", float("nan") if number in unsearched else 0.0)
        nearest, identity = (copy, 1.0) if copy is not None else nearest_of.get(number, nothing)
        rows.append((protein.id, nearest, identity))
    return pd.DataFrame(rows, columns=["id", "nearest_train", "identity"]).astype({"identity": float})


def _short_leakage(
    train: Sequence[Protein],
    others: Sequence[Protein],
    identity_floor: float,
    note: Callable[[int, int, float], None],
    track: Track,
) -> None:
    """Relatives of short sequences, on either side."""
    few = [k for k, protein in enumerate(others) if is_short(protein.sequence)]
    pairs = close_pairs([others[k].sequence for k in few], [p.sequence for p in train], identity_floor, track)
    for query, target, identity in zip(*pairs, strict=True):
        note(few[query], int(target), float(identity))
    long = [k for k, protein in enumerate(others) if not is_short(protein.sequence)]
    few = [k for k, protein in enumerate(train) if is_short(protein.sequence)]
    pairs = close_pairs([train[k].sequence for k in few], [others[k].sequence for k in long], identity_floor, track)
    for target, query, identity in zip(*pairs, strict=True):
        note(long[query], few[target], float(identity))


def _simple_leakage(
    train: Sequence[Protein],
    others: Sequence[Protein],
    identity_floor: float,
    note: Callable[[int, int, float], None],
) -> set[int]:
    """Relatives of sequences of low complexity, on either side; returns which were not searched reliably."""
    queries = [k for k, p in enumerate(others) if len(p) >= SEEN and is_simple(p.sequence)]
    targets = [k for k, p in enumerate(train) if len(p) >= SEEN]
    lost: set[int] = set()
    if queries:
        asked, among = [others[k].sequence for k in queries], [train[k].sequence for k in targets]
        hits, failed = align_all(asked, among, identity_floor, 0.5)
        lost = {queries[k] for k in failed if not is_short(others[queries[k]].sequence)}
        best = best_hits(hits)
        for query, target, identity in zip(best["query"], best["target"], best["fident"], strict=True):
            note(queries[int(query)], targets[int(target)], float(identity))
    simple = [k for k in targets if is_simple(train[k].sequence)]
    rest = [k for k, p in enumerate(others) if len(p) >= SEEN and k not in set(queries)]
    if simple and rest:
        hits, _ = align_all(
            [train[k].sequence for k in simple], [others[k].sequence for k in rest], identity_floor, 0.5
        )
        for query, target, identity in zip(hits["query"], hits["target"], hits["fident"], strict=True):
            note(rest[int(target)], simple[int(query)], float(identity))
    return lost
