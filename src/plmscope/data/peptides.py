"""Relatives that a search by k-mers cannot see: short sequences, and those that overlap.

MMseqs2 needs two matching k-mers, so below about 15 residues it finds nothing, however alike two sequences are. Here
short sequences are compared with every other one, laid beside each other at every shift that lets half of the shorter
one overlap, and with one residue more or less within:

    identity  =  identical residues / overlapping residues

An overlap of ``o`` residues counts if chance gives so many identical ones to less than one sequence in twenty,

    n * c * P(Binomial(o, p) >= m)  <=  0.05        n sequences, p the chance that two of their residues are equal,

with c = 2 where the whole shorter sequence overlaps, else 2 o; and three quarters of the whole count in any case. Of
nine residues among a few hundred others that is five, among ten thousand six. Below five residues only equal sequences
are relatives.

>>> [(int(a), int(b), round(float(i), 2)) for a, b, i in zip(*close_pairs(["MKTAYIAKQ", "WWWWWWWWW"], ["MKTAYIRKQ"]))]
[(0, 0, 0.89)]
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binom

from plmscope.data.proteins import AMINO_ACIDS
from plmscope.progress import Track, silent

IntArray = NDArray[np.int64]
FloatArray = NDArray[np.float64]

#: Sequences with fewer residues are compared here; their positions fit into the bits of one number.
SHORT = 30
#: Fewer residues than these tell no relative from a stranger.
LEAST = 5
#: How many strangers of a sequence may be taken for relatives.
BY_CHANCE = 0.05
#: Share of identical residues that counts whatever chance gives, where the whole shorter sequence overlaps.
ENOUGH = 0.75
#: Residues that the end of one sequence and the start of another share if they are pieces of one protein.
SHARED_TRIPLETS = 10
#: A sequence of which a smaller share of the triplets of residues differ is of low complexity: the share of a short
#: one, how many residues lower it by 1, since longer ones repeat triplets anyway, and the lowest. Of 3,442 natural
#: proteins five are of low complexity by it.
COMPLEXITY, LONGER, LOWEST = 0.95, 3000, 0.7
#: How many pairs are compared at once, so that they stay in the cache.
_AT_ONCE = 2**16


class SimilarPairs(NamedTuple):
    """Sequences that resemble each other: position among the first, position among the second, identity (0 to 1)."""

    first: IntArray
    second: IntArray
    identity: FloatArray


def is_short(sequence: str) -> bool:
    """Whether a sequence is so short that MMseqs2 may not see its relatives."""
    return len(sequence) < SHORT


def is_simple(sequence: str) -> bool:
    """Whether a sequence is of so low complexity that MMseqs2 may not see its relatives.

    >>> is_simple("PPGPPGPPGITGARGLAGPPGPPGPPGPPGPPG"), is_simple("MKVLAAGIVGLCHWYTRSDENQPFKLMACDEF")
    (True, False)
    """
    triplets = [sequence[k : k + 3] for k in range(len(sequence) - 2)]
    return len(set(triplets)) < max(COMPLEXITY - len(sequence) / LONGER, LOWEST) * len(triplets)


def is_comparable(sequence: str) -> bool:
    """Whether a sequence has enough known residues (X is none) to be similar to another without being equal to it."""
    return len(sequence) - sequence.count("X") >= LEAST


def close_pairs(
    first: Sequence[str], second: Sequence[str], identity: float = 0.0, track: Track = silent, name: str = "peptides"
) -> SimilarPairs:
    """The relatives of short sequences among others, short or long.

    Args:
        first: Each shorter than 30 residues.
        second: Any; the same list to compare them with each other, every pair once.
        identity: Least share of identical residues, 0 to 1.
        track: Progress.
        name: What it is called.

    Returns:
        Every pair at its best; a pair may be there more than once.
    """
    short = [number for number, sequence in enumerate(second) if is_short(sequence)]
    long = [number for number, sequence in enumerate(second) if not is_short(sequence)]
    some = first if second is first else [second[number] for number in short]
    distinct = {*first, *some}
    n, p = max(len(distinct), 2), _equal_by_chance(distinct)
    close = list(_among_short(first, some, _least(n, p, identity), track, name))
    close = [
        SimilarPairs(pairs.first, np.array(short, dtype=np.int64)[pairs.second], pairs.identity) for pairs in close
    ]
    residues = sum(len(second[number]) for number in long)
    if residues:
        within = list(_within_long(first, [second[number] for number in long], _least(residues, p, identity)))
        close += [
            SimilarPairs(pairs.first, np.array(long, dtype=np.int64)[pairs.second], pairs.identity) for pairs in within
        ]
    if not close:
        return SimilarPairs(np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64), np.zeros(0))
    return SimilarPairs(*(np.concatenate(column) for column in zip(*close, strict=True)))


def overlapping(sequences: Mapping[str, str]) -> list[tuple[str, str]]:
    """Sequences by name whose end is the start of another, or that lie in another: pieces of one protein.

    At least 10 residues are shared, all of them equal. A piece inside another counts from its first residue on.

    >>> overlapping({"a": "MKTAYIAKQRQISFVKSHFSRQL", "b": "QRQISFVKSHFSRQLEERLGLIE", "c": "WWWWWWWWWWWWWWWWWWWW"})
    [('a', 'b')]
    """
    starts: defaultdict[str, list[str]] = defaultdict(list)
    for name, sequence in sequences.items():
        if (
            len(sequence) >= SHARED_TRIPLETS
            and "X" not in sequence[:SHARED_TRIPLETS]
            and len(set(sequence[:SHARED_TRIPLETS])) > SHARED_TRIPLETS // 3
        ):
            starts[sequence[:SHARED_TRIPLETS]].append(name)
    pairs = []
    for name, sequence in sequences.items():
        for place in range(len(sequence) - SHARED_TRIPLETS + 1):
            for other in starts.get(sequence[place : place + SHARED_TRIPLETS], ()):
                shared = min(len(sequence) - place, len(sequences[other]))
                if other != name and sequence.startswith(sequences[other][:shared], place):
                    pairs.append((name, other))
    return pairs


def _equal_by_chance(sequences: Collection[str]) -> float:
    """How likely two residues of these sequences are equal."""
    text = "".join(sequences)
    counts = np.array([text.count(letter) for letter in AMINO_ACIDS], dtype=float)
    return float(((counts / max(counts.sum(), 1)) ** 2).sum())


class _Least(NamedTuple):
    """Identical residues that an overlap needs, by its length: laid side by side, whole, and with one gap."""

    part: IntArray
    whole: IntArray
    gapped: IntArray


def _least(n: int, p: float, identity: float) -> _Least:
    """What :class:`_Least` holds for ``n`` sequences."""
    part, whole, gapped = ([SHORT + 1] * (SHORT + 1) for _ in range(3))
    for o in range(1, SHORT + 1):
        tail = binom.sf(np.arange(o + 2) - 1, o, min(p, 1.0))  # P(at least m), m from 0 to o + 1
        asked, enough = math.ceil(identity * o - 1e-9), math.ceil(ENOUGH * o)
        part[o] = max(asked, int(np.argmax(2 * n * o * tail <= BY_CHANCE)))
        whole[o] = max(asked, min(int(np.argmax(2 * n * tail <= BY_CHANCE)), enough))
        gapped[o] = max(asked, int(np.argmax(4 * n * o * o * tail <= BY_CHANCE)))
    return _Least(np.array(part), np.array(whole), np.array(gapped))


class _Bits(NamedTuple):
    """Sequences of one length as bits, residue k at bit k: five planes of the letters' numbers, and where one is.

    Attributes:
        length: Of each.
        numbers: Which sequences they are.
        planes: ``(5, P)``.
        there: ``(P,)``; X and its like equal nothing.
    """

    length: int
    numbers: IntArray
    planes: NDArray[np.uint32]
    there: NDArray[np.uint32]

    def rows(self, which: slice) -> _Bits:
        return _Bits(self.length, self.numbers[which], self.planes[:, which], self.there[which])


def _bits(sequences: Sequence[str]) -> list[_Bits]:
    """Short sequences, those of every length together, the shortest first."""
    code = {letter: k for k, letter in enumerate(AMINO_ACIDS)}
    by_length: defaultdict[int, list[int]] = defaultdict(list)
    for number, sequence in enumerate(sequences):
        by_length[len(sequence)].append(number)
    found = []
    for length, numbers in sorted(by_length.items()):
        letters = np.array(
            [[code.get(letter, 31) for letter in sequences[number]] for number in numbers], dtype=np.uint32
        )
        bit = np.uint32(1) << np.arange(length, dtype=np.uint32)
        planes = np.stack([((letters >> np.uint32(plane) & np.uint32(1)) * bit).sum(1) for plane in range(5)])
        there = ((letters != 31) * bit).sum(1)
        found.append(_Bits(length, np.array(numbers), planes.astype(np.uint32), there.astype(np.uint32)))
    return found


def _equal(one: _Bits, other: _Bits, shift: int) -> NDArray[np.uint8]:
    """How many residues are equal if the others start ``shift`` residues later, ``(P, Q)``."""

    def moved(bits: NDArray[np.uint32]) -> NDArray[np.uint32]:
        return (bits << np.uint32(shift) if shift >= 0 else bits >> np.uint32(-shift))[None, :]

    differ: NDArray[np.uint32] = one.planes[0][:, None] ^ moved(other.planes[0])
    buffer = np.empty_like(differ)
    for mine, theirs in zip(one.planes[1:], other.planes[1:], strict=True):
        np.bitwise_xor(mine[:, None], moved(theirs), out=buffer)
        differ |= buffer
    np.invert(differ, out=differ)
    differ &= one.there[:, None]
    differ &= moved(other.there)
    return np.bitwise_count(differ)


def _among_short(
    first: Sequence[str], second: Sequence[str], least: _Least, track: Track, name: str
) -> Iterator[SimilarPairs]:
    """Relatives of short sequences among short ones; each pair once if both are the same."""
    same = first is second
    ones, others = _bits(first), _bits(second)
    todo = [
        (
            one.rows(slice(start, start + step)),
            other.rows(slice(start if one.length == other.length and same else 0, None)),
        )
        for one in ones
        for other in others
        if not same or one.length <= other.length
        for step in [max(_AT_ONCE // len(other.numbers), 1)]
        for start in range(0, len(one.numbers), step)
        if min(one.length, other.length) >= LEAST
    ]  # fmt: skip
    for one, other in track(todo, name, len(todo)):
        shorter = min(one.length, other.length)
        best = np.zeros((len(one.numbers), len(other.numbers)))
        equal: dict[int, NDArray[np.uint8]] = {}
        for shift in range(-other.length + 1, one.length):
            overlap = min(one.length, other.length + shift) - max(shift, 0)
            if 2 * overlap < shorter:
                continue
            equal[shift] = _equal(one, other, shift)
            hit = equal[shift] >= (least.whole if overlap == shorter else least.part)[overlap]
            if hit.any():
                best[hit] = np.maximum(best[hit], equal[shift][hit] / overlap)
        ends = one.length - other.length
        possible = np.zeros(best.shape, dtype=bool)
        for start in {0, ends}:  # both start together, or end so
            for beside in (start - 1, start + 1):
                if start in equal and beside in equal:
                    possible |= equal[start] + equal[beside] >= least.gapped[shorter]
        for row, column in np.argwhere(possible & (best == 0)):
            pair = first[int(one.numbers[row])], second[int(other.numbers[column])]
            best[row, column] = _with_a_gap(*pair, least.gapped)
        rows, columns = np.nonzero(best)
        yield SimilarPairs(one.numbers[rows], other.numbers[columns], best[rows, columns])


def _with_a_gap(one: str, other: str, least: IntArray) -> float:
    """Identity if one residue is more within either sequence, both starting or ending together; 0 if too little."""
    best = 0.0
    for a, b in ((one, other), (other, one)):
        for more, less in ((a, b), (a[::-1], b[::-1])):
            # more[:k] lies beside less[:k], and more[k + 1 :] beside less[k:]
            size = min(len(more) - 1, len(less))
            before = np.cumsum([0, *(x == y != "X" for x, y in zip(more[:size], less[:size], strict=True))])
            after = np.cumsum([0, *(x == y != "X" for x, y in zip(more[1 : size + 1], less[:size], strict=True))])
            same = int((before + after[-1] - after).max())
            if same >= least[size]:
                best = max(best, same / (size + 1))
    return best


def _within_long(first: Sequence[str], second: Sequence[str], least: _Least) -> Iterator[SimilarPairs]:
    """Relatives of short sequences that are a part of a long one."""
    lengths = [len(sequence) for sequence in second]
    owner = np.repeat(np.arange(len(second)), lengths)
    place = np.concatenate([np.arange(len(sequence)) for sequence in second])
    letters = np.frombuffer("".join(second).encode(), dtype=np.uint8)
    left = np.repeat(lengths, lengths) - place  # residues from here to the end of the sequence
    for number, sequence in enumerate(first):
        size = len(sequence)
        if size < LEAST:
            continue
        counted = np.zeros(len(letters), dtype=np.int64)
        for k, letter in enumerate(sequence.encode()):
            if letter != ord("X"):
                counted[: len(letters) - k] += letters[k:] == letter
        hits = np.flatnonzero((counted >= least.part[size]) & (left >= size))
        if len(hits):
            yield SimilarPairs(np.full(len(hits), number), owner[hits], counted[hits] / size)


def joined(n: int, pairs: SimilarPairs) -> IntArray:
    """The group of each of ``n`` sequences if all pairs are in one group, ``(n,)``; pairs are of the same sequences."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    ones = np.ones(len(pairs.first), dtype=np.int8)
    graph = coo_array((ones, (pairs.first, pairs.second)), shape=(n, n))
    labels: IntArray = connected_components(graph, directed=False)[1]
    return labels
