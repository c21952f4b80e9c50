"""Which protein has which classes: one boolean matrix, for single-label and multi-label tasks alike.

::

    members[p, c]  =  protein p has class c          (P, C)

In a single-label task (a binary one is that with two classes) every row holds one true value; in a multi-label task
one or more. What follows from the matrix needs no second case: a *case* is one protein with one of its classes, a
*label set* is a row that occurs, and the class that a protein is drawn, split and resampled by is its rarest.

In text, a multi-label label is its classes, sorted and joined by ``;``.

>>> classes_of("1;3", "multi"), classes_of("1;3", "single")
(('1', '3'), ('1;3',))
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

BoolArray = NDArray[np.bool_]
IntArray = NDArray[np.int64]

LabelTask = Literal["single", "multi"]
TASKS: tuple[LabelTask, ...] = ("single", "multi")
SEPARATOR = ";"


def join_classes(classes: Iterable[str]) -> str:
    """The label of a protein with these classes; blanks around them, doubles and empty ones do not count.

    >>> join_classes(["3", " 1", "3", ""])
    '1;3'
    """
    return SEPARATOR.join(_distinct(classes))


def _distinct(classes: Iterable[str]) -> tuple[str, ...]:
    """The classes once each, sorted as text."""
    return tuple(sorted({one.strip() for one in classes} - {""}))


def classes_of(label: str, task: LabelTask) -> tuple[str, ...]:
    """The classes that a label names, sorted as text: itself alone in a single-label task."""
    return (label,) if task == "single" else _distinct(label.split(SEPARATOR))


def class_names(labels: Iterable[str | None], task: LabelTask) -> tuple[str, ...]:
    """The classes that occur in some labels, sorted as text; ``None`` has none."""
    return tuple(sorted({one for label in labels if label is not None for one in classes_of(label, task)}))


def membership(labels: Sequence[str], names: Sequence[str], task: LabelTask) -> BoolArray:
    """Which classes each label names, ``(P, C)``.

    Raises:
        KeyError: a label names a class that is not among ``names``.

    >>> membership(["1", "1;3"], ["1", "2", "3"], "multi").astype(int).tolist()
    [[1, 0, 0], [1, 0, 1]]
    """
    place = {name: c for c, name in enumerate(names)}
    members = np.zeros((len(labels), len(names)), dtype=bool)
    for p, label in enumerate(labels):
        members[p, [place[one] for one in classes_of(label, task)]] = True
    return members


def rarest(members: BoolArray) -> IntArray:
    """The class of every protein that fewest of them have, ``(P,)``; ties go to the first class.

    It stands for the protein where one class has to: a rare class is then in every set and every resample.
    """
    counts = members.sum(0)
    result: IntArray = np.where(members, counts, len(members) + 1).argmin(1)
    return result


class Cases(NamedTuple):
    """One row per protein and class that it has, in the order of the proteins.

    Attributes:
        owners: ``(Q,)`` row of the protein.
        classes: ``(Q,)`` class number.
    """

    owners: IntArray
    classes: IntArray


def cases(members: BoolArray) -> Cases:
    """All cases of some proteins; as many as proteins in a single-label task."""
    return Cases(*np.nonzero(members))


# --- sets of classes as bits -----------------------------------------------------------------------------------------


def pack(members: BoolArray) -> NDArray[np.uint8]:
    """Sets of classes ``(..., C)`` as bits, ``(..., ceil(C / 8))``: class c is bit c % 8 of byte c // 8."""
    return np.packbits(members, axis=-1, bitorder="little")


def packed_has(packed: NDArray[np.uint8], c: int) -> BoolArray:
    """Whether each packed set holds class ``c``, ``(...)``."""
    result: BoolArray = (packed[..., c >> 3] >> (c & 7) & 1).astype(bool)
    return result


def packed_labels(packed: NDArray[np.uint8], names: Sequence[str]) -> NDArray[np.object_]:
    """Packed sets ``(Q, W)`` as labels, ``(Q,)``; the empty set is empty text.

    >>> packed_labels(pack(np.array([[True, False, True], [False] * 3])), ["1", "2", "3"]).tolist()
    ['1;3', '']
    """
    distinct, which = np.unique(packed, axis=0, return_inverse=True)
    bits = np.unpackbits(distinct, axis=1, count=len(names), bitorder="little").astype(bool)
    texts = [join_classes(np.array(names, dtype=object)[row]) for row in bits]
    return np.array(texts, dtype=object)[which.reshape(-1)]
