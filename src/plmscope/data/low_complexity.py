"""Relatives of sequences of low complexity, and how well a search sees them.

MMseqs2 masks repeats, and of a sequence without two unlike k-mers its prefilter sees little: of poly-glutamine with
30 % of its residues changed it finds a quarter to two thirds. So these sequences are aligned, unmasked, with every
other one. Where that would take too long, the prefilter is used all the same.

Whether it was enough is tried, not assumed: a copy of every sequence with 30 % of its residues changed is put among
the targets. A sequence that does not find its own copy was not searched reliably, and "none found" is not said of it.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import NamedTuple

import pandas as pd

from plmscope.data.mmseqs import CELLS, unmasked
from plmscope.data.proteins import AMINO_ACIDS

#: Share of the residues of a copy that are changed.
CHANGED = 0.3


class Searched(NamedTuple):
    """What a search found.

    Attributes:
        hits: ``query, target, fident, qcov, tcov, bits``; query and target are positions.
        lost: Queries that do not find their own changed copy.
    """

    hits: pd.DataFrame
    lost: set[int]


def changed_copy(sequence: str) -> str:
    """A sequence with 30 % of its residues changed, always the same ones; X stays X.

    >>> changed_copy("QQQQQQQQQQ")
    'QQQQQWQQMD'
    """
    draw = random.Random(sequence)
    known = [k for k, letter in enumerate(sequence) if letter in AMINO_ACIDS]
    letters = list(sequence)
    for k in draw.sample(known, round(CHANGED * len(known))):
        letters[k] = draw.choice([letter for letter in AMINO_ACIDS if letter != letters[k]])
    return "".join(letters)


def align_all(queries: Sequence[str], targets: Sequence[str], identity: float, coverage: float) -> Searched:
    """The relatives of sequences of low complexity among others.

    Args:
        queries: Of low complexity.
        targets: Of any; a sequence that is in both finds itself.
        identity: Least identity, 0 to 1.
        coverage: Least share of the known residues of either sequence that is aligned.
    """
    of = [*targets, *map(changed_copy, queries)]
    cells = sum(map(len, queries)) * sum(map(len, of))
    hits = unmasked(queries, of, min(identity, 0.5), every=cells <= CELLS)
    hits = hits[hits[["qcov", "tcov"]].max(axis=1) >= coverage]
    return Searched(hits[(hits["target"] < len(targets)) & (hits["fident"] >= identity)], _lost(hits, queries, targets))


def _lost(hits: pd.DataFrame, queries: Sequence[str], targets: Sequence[str]) -> set[int]:
    own = hits["target"] == hits["query"] + len(targets)
    return set(range(len(queries))) - {int(query) for query in hits["query"][own]}
