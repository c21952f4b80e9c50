"""Choose neurons: the best-scored share, and random draws to judge it by.

A *draw* is one random order of the neurons; its selections at all fractions are nested prefixes, so a draw has a
curve of its own. Three kinds, each a stricter control than the one before:

- ``random``: any neurons;
- ``random_matched``: as many in every site as the method chose there (right modules, random neurons);
- ``random_active``: matched also by the decile of ``activation_std`` within the site (equally active ones).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from plmscope.errors import SelectionError
from plmscope.models.architectures import MODULES
from plmscope.models.sites import Neuron, NeuronIndex, Site
from plmscope.scoring.scores import NeuronScores, check_ranking
from plmscope.scoring.table import ACTIVITY

CONTROLS = ("random", "random_matched", "random_active")
SCOPES = ("pooled", "per_site")
#: Within one module kind, all others intact.
MODULE = "module"


@dataclass(frozen=True)
class Selection:
    """A set of neurons of one model.

    Attributes:
        index: Which entry is which neuron.
        mask: ``(N,)`` true where selected.
        name: Where it came from.
        proteins: Ids of the proteins it was chosen by.

    Selections of the same model combine by ``|``, ``&``, ``-`` and ``~``.
    """

    index: NeuronIndex
    mask: np.ndarray
    name: str = "selection"
    proteins: tuple[str, ...] = ()

    def __len__(self) -> int:
        return int(self.mask.sum())

    def __repr__(self) -> str:
        counts = {
            m: int(self.mask[[self.index.sites[s].module == m for s in self.index.site_of]].sum()) for m in MODULES
        }
        inside = ", ".join(f"{module} {count}" for module, count in counts.items() if count)
        share = len(self) / len(self.index)
        return f"Selection({self.name}: {len(self):,} of {len(self.index):,} neurons, {share:.1%}; {inside or 'none'})"

    def _with(self, other: Selection, combine: np.ufunc, sign: str) -> Selection:
        if self.index != other.index:
            raise SelectionError(f"{self.name!r} and {other.name!r} belong to models of different shape")
        mask, name = combine(self.mask, other.mask), f"{self.name} {sign} {other.name}"
        return Selection(self.index, mask, name, (*self.proteins, *other.proteins))

    def __or__(self, other: Selection) -> Selection:
        return self._with(other, np.logical_or, "|")

    def __and__(self, other: Selection) -> Selection:
        return self._with(other, np.logical_and, "&")

    def __sub__(self, other: Selection) -> Selection:
        return self._with(other, np.greater, "-")  # in the first, not in the second

    def __invert__(self) -> Selection:
        return Selection(self.index, ~self.mask, f"not {self.name}", self.proteins)

    def neurons(self) -> list[Neuron]:
        """The selected neurons in index order."""
        return [self.index.neuron(int(position)) for position in np.flatnonzero(self.mask)]

    def table(self) -> pd.DataFrame:
        """``layer, module, neuron``, one row a selected neuron."""
        return self.index.table()[self.mask].reset_index(drop=True)

    def to_tsv(self, path: str | Path) -> None:
        """Write ``layer, module, neuron`` as tab-separated text."""
        self.table().to_csv(path, sep="\t", index=False)

    @classmethod
    def from_tsv(cls, path: str | Path, index: NeuronIndex) -> Selection:
        """Read a selection made elsewhere.

        Raises:
            SelectionError: the file cannot be read, lacks a column, repeats a neuron or names one the model lacks.
        """
        try:
            frame = pd.read_csv(path, sep="\t", dtype=str)  # so that a layer of 1.5 is refused, not cut to 1
        except (OSError, ValueError) as error:
            reason = " ".join(str(error).split())  # one of pandas' ends with a line break
            raise SelectionError(f"{path}: cannot be read as tab-separated text ({reason})") from None
        missing = [column for column in ("layer", "module", "neuron") if column not in frame.columns]
        if missing:
            raise SelectionError(f"{path}: lacks the column {missing[0]!r}; needed are layer, module, neuron")
        mask = np.zeros(len(index), dtype=bool)
        for row, (layer, module, number) in enumerate(frame[["layer", "module", "neuron"]].itertuples(index=False), 2):
            try:
                position = index.position(Neuron(Site(int(layer), str(module)), int(number)))
            except (SelectionError, ValueError) as error:
                raise SelectionError(f"{path}, row {row}: {error}") from None
            if mask[position]:
                raise SelectionError(f"{path}, row {row}: neuron {index.neuron(position)} is listed twice")
            mask[position] = True
        return cls(index, mask, Path(path).stem)


def select_top(scores: NeuronScores, fraction: float, scope: str = "pooled", module: str = "") -> Selection:
    """Keep the best-scored share of all neurons, in one ranking, site by site, or of one module kind.

    Ties at the cut go to the earlier site, then the lower index, so equal scores give equal selections.

    Args:
        scores: One finite score per neuron, ``(N,)``.
        fraction: Share to select, ``0 < fraction <= 1``.
        scope: ``pooled`` ranks all sites together; ``per_site`` takes the same share of each; ``module`` ranks the
            sites of one module kind together, and takes none of another.
        module: The kind, for scope ``module``.

    Returns:
        ``floor(fraction * N + 0.5)`` neurons (of each site, if per site; of the kind), never fewer than one.

    Raises:
        SelectionError: ``fraction`` or ``scope`` is impossible, a score is not finite (the neuron is named), or all
            are equal, so that none is better than another.

    References:
        arXiv:2312.10770, selection by score. Departs from it: never returns an empty selection.
    """
    check_fraction(fraction)
    if scope not in (*SCOPES, MODULE):
        raise SelectionError(f"scope {scope!r} is not known; choose one of {', '.join((*SCOPES, MODULE))}")
    if (scope == MODULE) != (module in MODULES) or (module and module not in MODULES):
        raise SelectionError(f"scope {scope!r}, module {module!r}: scope 'module' needs one of {', '.join(MODULES)}")
    bad = np.flatnonzero(~np.isfinite(scores.values))
    if len(bad):
        raise SelectionError(
            f"{scores.method}: the score of {scores.index.neuron(int(bad[0]))} is {scores.values[bad[0]]!r}"
        )
    check_ranking(scores)
    mask = np.zeros(len(scores.index), dtype=bool)
    groups = [np.arange(len(scores.index))]
    if scope == "per_site":
        groups = [np.arange(part.start, part.stop) for part in map(scores.index.slice, scores.index.sites)]
    elif scope == MODULE:
        groups = [np.flatnonzero(of_module(scores.index, module))]
    for part in groups:
        order = np.argsort(-scores.values[part], kind="stable")
        mask[part[order[: size_of(fraction, len(order))]]] = True
    where = f" within {module}" if module else ""
    return Selection(scores.index, mask, f"top {fraction:.3g}{where} by {scores.method}", scores.proteins)


def of_module(index: NeuronIndex, module: str) -> np.ndarray:
    """``(N,)`` true for the neurons of one module kind."""
    own: np.ndarray = np.array([site.module == module for site in index.sites])[index.site_of]
    return own


def check_fraction(fraction: float, name: str = "fraction") -> None:
    """Raise :class:`SelectionError` unless ``0 < fraction <= 1``."""
    if not 0 < fraction <= 1:
        raise SelectionError(f"{name} = {fraction!r}: must be above 0 and at most 1")


def size_of(fraction: float, total: int) -> int:
    """Number of neurons in a share: rounded half up, at least one."""
    return max(1, int(np.floor(fraction * total + 0.5)))


def strata(control: str, index: NeuronIndex, activity: np.ndarray | None = None) -> np.ndarray:
    """Group number of every neuron, ``(N,)``: a draw takes as many from each group as the method did.

    Args:
        control: One of :data:`CONTROLS`.
        index: The model's neurons.
        activity: ``activation_std``, needed for ``random_active``.
    """
    if control == "random":
        return np.zeros(len(index), dtype=np.int64)
    if control == "random_matched":
        return index.site_of.astype(np.int64)
    if control != "random_active":
        raise SelectionError(f"control {control!r} is not known; choose one of {', '.join(CONTROLS)}")
    if activity is None:
        raise SelectionError(f"control 'random_active' needs the {ACTIVITY} of the neurons; score by it too")
    groups = np.zeros(len(index), dtype=np.int64)
    for number, site in enumerate(index.sites):
        values = activity[index.slice(site)]
        rank = np.argsort(np.argsort(values, kind="stable"), kind="stable")
        groups[index.slice(site)] = 10 * number + np.minimum(10 * rank // len(values), 9)
    return groups


def draw(
    index: NeuronIndex, groups: np.ndarray, selections: Sequence[Selection], seed: Sequence[int], name: str
) -> list[Selection]:
    """One random draw: for every given selection one with the same number of neurons in every group.

    The selections come from one random order, so that for nested selections the drawn ones are nested too.
    """
    order = np.random.default_rng(list(seed)).permutation(len(index))
    by_group = order[np.argsort(groups[order], kind="stable")]
    starts = np.concatenate([[0], np.cumsum(np.bincount(groups))])
    drawn = []
    for selection in selections:
        mask = np.zeros(len(index), dtype=bool)
        for group, count in enumerate(np.bincount(groups[selection.mask], minlength=len(starts) - 1)):
            mask[by_group[starts[group] : starts[group] + count]] = True
        drawn.append(Selection(index, mask, name, selection.proteins))
    return drawn


def select_shared(scores: NeuronScores, share: float = 0.7) -> dict[str, Selection]:
    """Select as Dai et al. refine their neurons: those that are strong in most clusters of a class.

    A neuron is strong in a protein if its attribution is at least a threshold (0.2 in the source) of the protein's
    largest; it is in a cluster's set if it is strong in at least half of its proteins.

    Args:
        scores: ``integrated_gradients`` made with ``shared=0.2``; with ``groups`` if clusters hold several proteins.
        share: Smallest share of the class's clusters, ``0 < share <= 1``.

    Returns:
        Class name to its selection, in the order of the classes; it can be empty.

    Raises:
        SelectionError: ``share`` is outside its range, or the scores were made without ``shared``.

    References:
        arXiv:2104.08696, section 3.3. Departs from it: clusters of proteins instead of prompts of one fact, and all
        module kinds. Without ``groups``, and where a class has more clusters than groups, proteins are counted.
    """
    check_fraction(share, "share")
    sums = scores.sums
    if sums is None or "shared" not in sums.sums:
        raise SelectionError(f"{scores.method}: made without shared; score again with shared=0.2")
    strong = sums.sums["shared"] / np.maximum(sums.counts, 1)[:, None]  # (G, N) share of the group's proteins
    masks = {}
    for number, label in enumerate(sums.labels):
        own = [place for place, (c, _) in enumerate(sums.keys) if c == number]
        if own:
            # One group is no set of clusters: the share of its proteins stands for that of the clusters.
            common = strong[own[0]] if len(own) == 1 else (strong[own] >= 0.5).mean(axis=0)
            name = f"shared by {share:.0%} of class {label}"
            masks[label] = Selection(scores.index, common >= share - 1e-9, name, scores.proteins)
    return masks
