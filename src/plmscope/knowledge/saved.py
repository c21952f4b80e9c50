"""What a characterization has so far, as arrays in the run folder: a killed one goes on from its last part."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np

from plmscope.data.proteins import Protein
from plmscope.knowledge.stream import Chunk, Stream
from plmscope.store.resume import Parts

#: What counts of a pass are called, so that they can be kept and continued.
DISCOVERED = ("hits", "touched", "fired", "rows", "positives", "stretches")


CONFIRMED = ("positive", "shifted", "touched", "stretches", "differences", "all")


PEAKS = ("value", "protein", "position", "strip")


PAIRS = ("neuron", "sign", "concept", "rank", "code", "discovery_f1", "discovery_auroc")


MOTIFS = ("fired", "everywhere", "hits", "fired_hits", "in_class", "class_residues", "on", "known", "marked")


def arrays_of(one: object, names: Sequence[str], prefix: str = "") -> dict[str, np.ndarray]:
    """Attributes of an object that are arrays, or dicts of arrays or whole numbers, as arrays."""
    arrays: dict[str, np.ndarray] = {}
    for name in names:
        value = getattr(one, name)
        if isinstance(value, dict):
            arrays |= {f"{prefix}{name}/{key}": np.asarray(part) for key, part in value.items()}
        else:
            arrays[f"{prefix}{name}"] = value
    return arrays


def put_back(one: object, names: Sequence[str], arrays: Mapping[str, np.ndarray], prefix: str = "") -> None:
    """Put back what :func:`arrays_of` gave."""
    for name in names:
        value = getattr(one, name)
        if isinstance(value, dict):
            for key in value:
                part = arrays[f"{prefix}{name}/{key}"]
                value[key] = part if part.ndim else int(part)
        else:
            setattr(one, name, arrays[f"{prefix}{name}"])


class Saved:
    """What the passes over one group of sites keep; nothing without a place to keep it."""

    def __init__(self, parts: Parts | None, name: str) -> None:
        self.parts, self.name = parts, name

    def read(self, what: str) -> dict[str, np.ndarray] | None:
        """What is kept under this name."""
        return None if self.parts is None else self.parts.read(f"{self.name}-{what}")

    def write(self, what: str, make: Callable[[], Mapping[str, np.ndarray]]) -> None:
        """Keep what ``make`` gives."""
        if self.parts is not None:
            self.parts.write(f"{self.name}-{what}", make())

    def keep(self, what: str, make: Callable[[], Mapping[str, np.ndarray]]) -> None:
        """Keep what ``make`` gives if it is time to."""
        if self.parts is not None:
            self.parts.keep(f"{self.name}-{what}", make)

    def drop(self, *what: str) -> None:
        """Keep it no longer."""
        if self.parts is not None:
            self.parts.drop(*(f"{self.name}-{one}" for one in what))

    def rest(
        self,
        stream: Stream,
        proteins: Sequence[Protein],
        what: str,
        done: np.ndarray,
        state: Callable[[], Mapping[str, np.ndarray]],
    ) -> Iterator[Chunk]:
        """Chunks of the proteins that are not ``done``, which is marked once a chunk has been used.

        Batches go from long to short, so that those of the rest are the same as without the interruption.
        """
        left = np.flatnonzero(~done)
        if not len(left):
            return
        for chunk in stream([proteins[row] for row in left.tolist()], what):
            rows = left[chunk.rows]
            yield replace(chunk, rows=rows.tolist())
            done[rows] = True
            self.keep(what, state)
