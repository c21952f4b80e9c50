"""How long work reports its progress without knowing who watches.

A function that takes long has an argument ``track`` and loops over ``track(items, "what it does", total)``. The
default passes the items through; the command line gives one that draws a bar with the time left.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Protocol, TypeVar

T = TypeVar("T")


class Track(Protocol):
    """Wraps an iterable; yields the same items in the same order."""

    def __call__(self, items: Iterable[T], description: str, total: int) -> Iterator[T]:
        """Iterate over ``items``, of which there are ``total``, under a short present-tense description."""


def silent(items: Iterable[T], description: str, total: int) -> Iterator[T]:
    """Pass the items through and say nothing."""
    return iter(items)
