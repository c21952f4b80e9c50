"""Score proteins in parts, by one process or by many, with the same result.

The proteins, longest first, are cut into parts of 16. Every part is scored on its own and added to the sums of its
scorer (:class:`~plmscope.scoring.scores.GroupSums`), so that it does not matter who scores which::

    shard i of n  =  parts i, i + n, i + 2n, ...          sum = sum over shards of the sums over their parts

Sums are added, never averages. A part always has the same batches, so a protein's values are the same to the last bit
in any shard; sums differ by the rounding of another order of addition (1e-15 or less). That holds for a fixed token
budget: one that follows free memory gives other batches on another machine. A shard saves what it has, with the number
of parts that are in it, and continues there after a kill.

Shards of one run work at the same time, on machines that share its folder or that have a copy of it.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from dataclasses import replace as changed
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pandas as pd

from plmscope.data.proteins import Protein
from plmscope.errors import PlmscopeError, RunError, SelectionError
from plmscope.models.sites import NeuronIndex
from plmscope.progress import Track
from plmscope.scoring.scores import GroupSums, NeuronScores, check_ranking
from plmscope.store.files import write_arrays
from plmscope.store.resume import Arrays, Parts, read_arrays
from plmscope.tasks.shard import Shard

T = TypeVar("T")
#: Proteins that are scored together; a change changes scores by rounding.
PART_PROTEINS = 16


def protein_parts(proteins: Sequence[Protein]) -> list[list[int]]:
    """Positions of the proteins of every part."""
    order = sorted(range(len(proteins)), key=lambda row: (-len(proteins[row]), row))
    return [order[start : start + PART_PROTEINS] for start in range(0, len(order), PART_PROTEINS)]


@dataclass(frozen=True)
class Scored:
    """What one scorer kept.

    Attributes:
        settings: Of each of its methods.
        sums: Over all proteins so far.
        completeness: Rows of all proteins so far, for path methods.
    """

    settings: dict[str, dict[str, Any]]
    sums: GroupSums
    completeness: pd.DataFrame | None

    def __add__(self, other: Scored) -> Scored:
        frames = [one.completeness for one in (self, other) if one.completeness is not None]
        rows = pd.concat(frames, ignore_index=True) if frames else None
        return Scored(self.settings, self.sums.merge(other.sums), rows)


@dataclass(frozen=True)
class PartialScores:
    """Sums of every scorer over some parts of the proteins.

    Attributes:
        scored: By the scorer's first method.
        done: Parts that are in them.
        constants: ``(3, N)`` ablation means, where the scorers used them.
    """

    scored: dict[str, Scored] = field(default_factory=dict)
    done: int = 0
    constants: np.ndarray | None = None

    def __add__(self, other: PartialScores) -> PartialScores:
        """The sums over the proteins of both."""
        together = self.scored | {
            name: self.scored[name] + one if name in self.scored else one for name, one in other.scored.items()
        }
        constants = self.constants if other.constants is None else other.constants
        return PartialScores(together, self.done + other.done, constants)

    @classmethod
    def of(cls, scores: Sequence[NeuronScores], constants: np.ndarray | None = None) -> PartialScores:
        """One part; methods of one scorer share their sums."""
        scored: dict[str, Scored] = {}
        first: dict[int, str] = {}
        for one in scores:
            if one.sums is None:
                raise SelectionError(f"{one.method} keeps no sums, so that its parts cannot be added up")
            name = first.setdefault(id(one.sums), one.method)
            known = scored[name].settings if name in scored else {}
            scored[name] = Scored(known | {one.method: dict(one.settings)}, one.sums, one.completeness)
        return cls(scored, 1, constants)

    def finish(self, methods: Sequence[str], proteins: Sequence[Protein]) -> list[NeuronScores]:
        """Scores by each method, proteins and rows of the completeness in the order of ``proteins``.

        Raises:
            SelectionError: all neurons have the same score.
        """
        from plmscope.scoring.methods import finish

        ids = [protein.id for protein in proteins]
        rank = {name: place for place, name in enumerate(ids)}
        scores = {}
        for one in self.scored.values():
            rows = one.completeness
            if rows is not None:
                order = rows["id"].map(rank).to_numpy().argsort(kind="stable")
                rows = rows.iloc[order].reset_index(drop=True)
            for method, settings in one.settings.items():
                scores[method] = changed(finish(method, one.sums, settings, rows), proteins=tuple(ids))
        for method in methods:
            check_ranking(scores[method])
        return [scores[method] for method in methods]

    def sums_alone(self) -> PartialScores:
        """What resampling needs: without the completeness of every protein, which has a table of its own."""
        scored = {name: changed(one, completeness=None) for name, one in self.scored.items()}
        return PartialScores(scored, self.done)

    def arrays(self) -> Arrays:
        """All that :meth:`load` needs."""
        arrays: dict[str, np.ndarray] = {} if self.constants is None else {"constants": self.constants}
        head: dict[str, Any] = {"done": self.done, "settings": {n: one.settings for n, one in self.scored.items()}}
        arrays["head"] = np.array(json.dumps(head))
        for name, one in self.scored.items():
            arrays |= {f"{name}/{key}": value for key, value in one.sums.to_arrays().items()}
            if one.completeness is not None:
                arrays |= {f"{name}:{key}": _plain(one.completeness[key]) for key in one.completeness}
        return arrays

    def save(self, path: Path) -> None:
        """Write to one file, atomically.

        Raises:
            RunError: the folder is not writable or the disk is full.
        """
        write_arrays(path, self.arrays())

    @classmethod
    def load(cls, path: Path, index: NeuronIndex) -> PartialScores | None:
        """Read :meth:`save`'s file back; ``None`` if it is not there or damaged."""
        return cls.from_arrays(read_arrays(path), index)

    @classmethod
    def from_arrays(cls, arrays: Arrays | None, index: NeuronIndex) -> PartialScores | None:
        """What :meth:`arrays` gave; ``None`` for nothing, or for something else."""
        if arrays is None:
            return None
        try:
            head = json.loads(str(arrays["head"]))
            scored = {}
            for name, settings in head["settings"].items():
                own = {key.partition("/")[2]: value for key, value in arrays.items() if key.startswith(f"{name}/")}
                columns = {k.partition(":")[2]: v for k, v in arrays.items() if k.startswith(f"{name}:")}
                texts = {key: value.astype(object) for key, value in columns.items() if value.dtype.kind == "U"}
                rows = pd.DataFrame(columns | texts) if columns else None
                scored[name] = Scored(settings, GroupSums.from_arrays(index, own), rows)
            return cls(scored, int(head["done"]), arrays.get("constants"))
        except (ValueError, KeyError, TypeError, AttributeError, PlmscopeError):
            return None


def score_shard(
    score: Callable[[list[Protein], list[str] | None, Track], Sequence[NeuronScores]],
    proteins: Sequence[Protein],
    groups: Sequence[str] | None,
    index: NeuronIndex,
    parts: Parts,
    shard: Shard,
    track: Track,
    say: Callable[[str], None],
    constants: np.ndarray | None = None,
    others: Callable[[Sequence[list[int]]], Iterator[PartialScores]] | None = None,
) -> PartialScores:
    """Score one shard of the proteins, continuing after what is kept of it.

    Args:
        score: Scores by all methods of some proteins, given their groups.
        proteins: Of all shards.
        groups: Group of each protein for bootstraps, from :func:`~plmscope.scoring.scores.resampling_groups`.
        index: Neurons of the model.
        parts: Where it keeps what it has, now and then. The caller keeps the whole.
        shard: Which parts.
        track: Progress.
        say: Told where it continues.
        constants: ``(3, N)`` ablation means, kept beside the sums.
        others: Workers that score parts, given as positions of their proteins; they give them in the same order, so
            that the sums are those of one process to the last bit.

    Raises:
        RunError: the disk is full.
    """
    mine = shard.of(protein_parts(proteins))
    partial = PartialScores.from_arrays(parts.read(shard.name), index) or PartialScores(constants=constants)
    if partial.done > len(mine):
        partial = PartialScores(constants=constants)
    if partial.done:
        say(f"score: continuing after {partial.done:,} of {len(mine):,} parts")

    def here(lists: Sequence[list[int]]) -> Iterator[PartialScores]:
        for number, rows in enumerate(lists, len(mine) - len(lists) + 1):
            own = None if groups is None else [groups[row] for row in rows]
            yield PartialScores.of(
                score([proteins[row] for row in rows], own, _part_of(track, number, len(mine))), constants
            )

    left = mine[partial.done :]
    for one in here(left) if others is None or len(left) < 2 else others(left):
        partial = partial + one
        if partial.done < len(mine):
            parts.keep(shard.name, partial.arrays)
    return partial


def _plain(column: pd.Series) -> np.ndarray:
    """A column as an array that needs no pickle."""
    numeric = pd.api.types.is_numeric_dtype(column)  # booleans too
    return column.to_numpy() if numeric else column.to_numpy(dtype=np.str_)


def _part_of(track: Track, number: int, parts: int) -> Track:
    """Progress that says which part it is."""

    def tracked(items: Iterable[T], description: str, total: int) -> Iterator[T]:
        return track(items, description if parts == 1 else f"{description}, part {number} of {parts}", total)

    return tracked


def merge_shards(
    folder: Path, stamp: str, proteins: Sequence[Protein], index: NeuronIndex, command: str
) -> PartialScores:
    """The sums of all shards in ``folder``, added in their order.

    Args:
        folder: Where the shards wrote.
        stamp: That of the run's settings and model.
        proteins: Of all shards.
        index: Neurons of the model.
        command: Makes a shard when `` I/N`` is appended.

    Raises:
        RunError: there are none, or one is missing or not finished; the command that makes it is named.
    """
    parts = Parts(folder, stamp, shared=True)
    there = sorted(shards_in(parts), reverse=True)
    if not there:
        other = " (those that are there belong to other settings or another model)" if any(folder.glob("*.npz")) else ""
        raise RunError(f"{folder}: no shards of this run{other}; make the first of two with: {command} 1/2")
    gaps = _gaps(parts, proteins, index)
    total = min(gaps, key=lambda total: (len(gaps[total]), -total))  # what was meant: the one with the fewest
    merged, missing = PartialScores(), gaps[total]
    if not missing:
        for number in range(1, total + 1):
            one = PartialScores.from_arrays(parts.read(Shard(number, total).name), index)
            merged = merged + (one or PartialScores())
    if missing:
        more = f" (and {len(missing) - 1} more)" if len(missing) > 1 else ""
        state = "not finished or damaged" if missing[0] in there else "missing"
        raise RunError(f"{folder}: shard {missing[0]}{more} is {state}; make it with: {command} {missing[0]}")
    return merged


def _gaps(parts: Parts, proteins: Sequence[Protein], index: NeuronIndex) -> dict[int, list[Shard]]:
    """For every division of which there is a shard, those that are missing, not finished or damaged."""
    there, missing = shards_in(parts), dict[int, list[Shard]]()
    for total in sorted({shard.total for shard in there}):
        missing[total] = []
        for shard in (Shard(number, total) for number in range(1, total + 1)):
            one = PartialScores.from_arrays(parts.read(shard.name), index) if shard in there else None
            if one is None or one.done < len(shard.of(protein_parts(proteins))):
                missing[total].append(shard)
    return missing


def complete(folder: Path, stamp: str, proteins: Sequence[Protein], index: NeuronIndex) -> bool:
    """Whether all shards of a division into several are there and finished."""
    parts = Parts(folder, stamp, shared=True)
    return any(total > 1 and not missing for total, missing in _gaps(parts, proteins, index).items())


def shards_in(parts: Parts) -> list[Shard]:
    """Shards that have a file, finished or not; none of other settings."""
    shards = []
    for name in parts.names():
        with contextlib.suppress(SelectionError):
            shards.append(Shard.parse(name.replace("-of-", "/")))
    return shards
