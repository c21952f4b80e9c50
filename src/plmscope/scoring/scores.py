"""What a scoring method gives every neuron: one array, with the proteins and settings it came from.

Scorers add up per-protein values in :class:`GroupSums` and keep no row per protein, so that memory does not grow with
their number; sums of several processes merge.

>>> from plmscope.models.sites import NeuronIndex
>>> index = NeuronIndex.of(layers=1, hidden=2, intermediate=8)
>>> NeuronScores("activation", index, np.arange(18.0))
NeuronScores(activation, 18 neurons, best: layer 0 output 1 = 17)
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from plmscope.errors import SelectionError
from plmscope.models.sites import NeuronIndex
from plmscope.scoring.table import FORMS, forms_of, row_of, signed_methods
from plmscope.scoring.table import methods as known_methods

#: Groups of clusters that a bootstrap resamples, per class; memory grows with them and not with the proteins.
GROUPS_PER_CLASS = 32

RANKINGS = (*FORMS, "signed")


def signed_form(method: str) -> tuple[str, str]:
    """The method whose form this is, and the form's ending; a method that is no such form is its own.

    >>> signed_form("conductance_rms"), signed_form("activation_std")
    (('conductance', '_rms'), ('activation_std', ''))
    """
    for name in signed_methods():
        if method in forms_of(name):
            return name, method.removeprefix(name)
    return method, ""


def ranked_by(method: str, ranking: str) -> str:
    """The score that selections by a method are ranked by.

    Args:
        method: Any method; one without a sign is ranked by its own score.
        ranking: One of :data:`RANKINGS`.

    >>> ranked_by("conductance", "absolute"), ranked_by("activation", "absolute"), ranked_by("conductance", "signed")
    ('conductance_abs', 'activation', 'conductance')
    """
    return method + FORMS[ranking] if method in signed_methods() and ranking != "signed" else method


def token_sums(method: str, sums: np.ndarray, rms: bool = False) -> dict[str, np.ndarray]:
    """What a scorer with a sign adds to its :class:`GroupSums` for ``(B, N)`` token sums of some proteins."""
    forms = {method: sums, f"{method}_abs": np.abs(sums)}
    return forms | {f"{method}_rms": np.square(sums)} if rms else forms


def statistics_of(method: str, rms: bool = False) -> tuple[str, ...]:
    """Names of the statistics of :func:`token_sums`."""
    return forms_of(method)[: 3 if rms else 2]


@dataclass(frozen=True)
class NeuronScores:
    """Scores of all neurons by one method; higher means more important.

    Attributes:
        method: Name of the method, the column of ``neurons.parquet``.
        index: Which entry is which neuron.
        values: ``(N,)`` float64.
        per_class: Class name to ``(N,)``, where the method has such scores.
        proteins: Ids of the proteins that were scored; the evaluation refuses to see them again.
        settings: What the numbers depend on besides model and proteins.
        completeness: ``id, layer, module, expected, got, gap, points, settled`` for path methods.
        resample: Weights ``(G,)`` of the groups of ``sums`` to the scores ``(N,)`` that they give, for bootstraps.
        sums: What the scores were made of; merges with that of other proteins.
    """

    method: str
    index: NeuronIndex
    values: np.ndarray
    per_class: Mapping[str, np.ndarray] = field(default_factory=dict)
    proteins: tuple[str, ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)
    completeness: pd.DataFrame | None = field(default=None, repr=False, compare=False)
    resample: Callable[[np.ndarray], np.ndarray] | None = field(default=None, repr=False, compare=False)
    sums: GroupSums | None = field(default=None, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.values.shape != (len(self.index),):
            raise SelectionError(f"{self.method}: {self.values.shape} scores for {len(self.index)} neurons")

    def __repr__(self) -> str:
        best = int(np.nanargmax(self.values))
        top = f"{self.index.neuron(best)} = {self.values[best]:.4g}"
        return f"NeuronScores({self.method}, {len(self.index):,} neurons, best: {top})"

    def table(self) -> pd.DataFrame:
        """One row a neuron, best first: ``layer, module, neuron, score, rank`` (rank 1 is best)."""
        frame = self.index.table().assign(score=self.values)
        frame = frame.sort_values("score", ascending=False, kind="stable", ignore_index=True)
        return frame.assign(rank=np.arange(1, len(frame) + 1))


@dataclass(repr=False)
class GroupSums:
    """Sums of per-protein values over groups of proteins: all that a scorer keeps, however many proteins there are.

    A group is a class, or a part of one (:func:`resampling_groups`), which is what a bootstrap over clusters needs.
    Sums over other proteins of the same model, from another process or machine, merge into the sums over all of them.

    Attributes:
        index: Which column is which neuron.
        labels: Class names.
        proteins: Ids of the proteins that are, or will be, added.
        keys: ``G`` pairs of class number and group name, sorted.
        counts: ``(G,)`` proteins added so far.
        sums: Statistic name to ``(G, N)`` float64.
        places: ``(P,)`` group of every protein, for :meth:`add`.

    >>> index = NeuronIndex.of(layers=1, hidden=1, intermediate=1)
    >>> one, other = (GroupSums.empty(index, ["a", "b"], [name], [0], None, "m") for name in "pq")
    >>> one.add([0], m=np.full((1, 6), 1.0))
    >>> other.add([0], m=np.full((1, 6), 3.0))
    >>> one.merge(other).finish("m").values.tolist()
    [2.0, 2.0, 2.0, 2.0, 2.0, 2.0]
    """

    index: NeuronIndex
    labels: tuple[str, ...]
    proteins: tuple[str, ...]
    keys: tuple[tuple[int, str], ...]
    counts: np.ndarray
    sums: dict[str, np.ndarray]
    places: np.ndarray

    def __repr__(self) -> str:
        names = ", ".join(self.sums)
        return f"GroupSums({names}: {self.counts.sum():.0f} proteins in {len(self.keys)} groups, {self.index!r})"

    @classmethod
    def empty(
        cls,
        index: NeuronIndex,
        labels: Sequence[str],
        proteins: Sequence[str],
        classes: Sequence[int] | np.ndarray,
        groups: Sequence[str] | None,
        *statistics: str,
    ) -> GroupSums:
        """Sums of nothing yet.

        Args:
            index: Which column is which neuron.
            labels: Class names.
            proteins: ``P`` ids; in a multi-label task a protein is there once for each of its classes.
            classes: ``(P,)`` class numbers.
            groups: ``P`` group names, from :func:`resampling_groups`; ``None``: one group a class.
            *statistics: Names of the values that every protein will have.

        Raises:
            SelectionError: the lengths do not fit.
        """
        names = [""] * len(proteins) if groups is None else groups
        if not len(proteins) == len(classes) == len(names):
            raise SelectionError(f"{len(proteins)} proteins, {len(classes)} classes and {len(names)} groups do not fit")
        of = [(int(label), str(name)) for label, name in zip(classes, names, strict=True)]
        keys = tuple(sorted(set(of)))
        place_of = {key: place for place, key in enumerate(keys)}
        sums = {name: np.zeros((len(keys), len(index))) for name in statistics}
        places = np.array([place_of[key] for key in of], dtype=np.int64)
        return cls(index, tuple(labels), tuple(dict.fromkeys(proteins)), keys, np.zeros(len(keys)), sums, places)

    def add(self, rows: Sequence[int], **values: np.ndarray) -> None:
        """Add proteins, given by their positions, with ``(B, N)`` values of every statistic."""
        for name, many in values.items():
            for row, value in zip(rows, many, strict=True):
                self.sums[name][self.places[row]] += value
        np.add.at(self.counts, self.places[list(rows)], 1)

    def merge(self, other: GroupSums) -> GroupSums:
        """The sums over the proteins of both; nothing more can be added to them.

        Raises:
            SelectionError: they are of other neurons, classes or statistics, or a protein is in both.
        """
        if (self.index, self.labels, set(self.sums)) != (other.index, other.labels, set(other.sums)):
            raise SelectionError("sums of other neurons, classes or statistics do not merge")
        twice = set(self.proteins) & set(other.proteins)
        if twice:
            raise SelectionError(f"protein {min(twice)!r} is in both sums")
        keys = tuple(sorted({*self.keys, *other.keys}))
        counts = np.zeros(len(keys))
        sums = {name: np.zeros((len(keys), len(self.index))) for name in self.sums}
        for part in (self, other):
            places = [keys.index(key) for key in part.keys]
            counts[places] += part.counts
            for name, found in part.sums.items():
                sums[name][places] += found
        return GroupSums(self.index, self.labels, (*self.proteins, *other.proteins), keys, counts, sums, _NOWHERE)

    def to_arrays(self) -> dict[str, np.ndarray]:
        """All but the index as plain arrays, for ``numpy.savez``; :meth:`from_arrays` reads them back."""
        return {
            "labels": np.array(self.labels, dtype=np.str_),
            "proteins": np.array(self.proteins, dtype=np.str_),
            "classes": np.array([label for label, _ in self.keys], dtype=np.int64),
            "groups": np.array([name for _, name in self.keys], dtype=np.str_),
            "counts": self.counts,
            **{f"sum_{name}": sums for name, sums in self.sums.items()},
        }

    @classmethod
    def from_arrays(cls, index: NeuronIndex, arrays: Mapping[str, np.ndarray]) -> GroupSums:
        """What :meth:`to_arrays` gave; it merges and finishes, but nothing more can be added to it.

        Raises:
            SelectionError: an array is missing, or the sums are not of the neurons of ``index``.
        """
        missing = [name for name in ("labels", "proteins", "classes", "groups", "counts") if name not in arrays]
        if missing:
            raise SelectionError(f"saved sums lack {missing[0]!r}")
        keys = tuple(zip(arrays["classes"].tolist(), arrays["groups"].tolist(), strict=True))
        sums = {name.removeprefix("sum_"): arrays[name] for name in arrays if name.startswith("sum_")}
        for name, found in sums.items():
            if found.shape != (len(keys), len(index)):
                raise SelectionError(f"saved sums of {name!r} are {found.shape}, not {(len(keys), len(index))}")
        labels, proteins = tuple(arrays["labels"].tolist()), tuple(arrays["proteins"].tolist())
        return cls(index, labels, proteins, keys, arrays["counts"], sums, _NOWHERE)

    @property
    def resamplable(self) -> bool:
        """Whether a class is in more than one group."""
        return len({label for label, _ in self.keys}) < len(self.keys)

    def by_class(self, name: str, weights: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Proteins ``(C,)`` and sums ``(C, N)`` of every class; group ``g`` counts ``weights[g]`` times."""
        member = (np.arange(len(self.labels))[:, None] == [label for label, _ in self.keys]).astype(np.float64)
        member = member if weights is None else member * weights  # (C, G)
        return member @ self.counts, member @ self.sums[name]

    def finish(
        self, method: str, settings: Mapping[str, Any] | None = None, completeness: pd.DataFrame | None = None
    ) -> NeuronScores:
        """Scores by the statistic of the method's name: the mean within each class, then over classes that occur.

        Of a form (:data:`FORMS`) of a method with a sign: absolute class means before the mean over classes, or the
        root of means of squares, within each class and over all of them.
        """
        name, ending = signed_form(method)
        statistic = name if ending == FORMS["class_means"] else method

        def means(weights: np.ndarray | None = None) -> dict[str, np.ndarray]:
            counts, sums = self.by_class(statistic, weights)
            means = {label: sums[c] / counts[c] for c, label in enumerate(self.labels) if counts[c] > 0}
            return {label: np.abs(mean) for label, mean in means.items()} if statistic != method else means

        def total(weights: np.ndarray | None = None) -> np.ndarray:
            mean: np.ndarray = np.mean(list(means(weights).values()), axis=0)
            return rooted(mean)

        def rooted(mean: np.ndarray) -> np.ndarray:
            return np.sqrt(mean) if ending == FORMS["rms"] else mean

        per_class = {label: rooted(mean) for label, mean in means().items()}
        return NeuronScores(
            method, self.index, total(), per_class, self.proteins, settings or {}, completeness,
            total if self.resamplable else None, self,
        )  # fmt: skip


#: Places of sums that are complete.
_NOWHERE = np.zeros(0, dtype=np.int64)


def resampling_groups(
    clusters: Sequence[str], labels: Sequence[str | None], at_most: int = GROUPS_PER_CLASS
) -> list[str]:
    """Deal the clusters of every class into a bounded number of groups, so that a bootstrap needs no row per protein.

    With up to ``at_most`` clusters a class, every group is one cluster and the bootstrap over groups is the one over
    clusters. With more, clusters are dealt out in turn, the largest first: a bootstrap over random groups, whose
    spread is that of the one over clusters up to a factor ``1 - 1 / at_most``, with more noise of its own.

    Args:
        clusters: ``P`` names of clusters.
        labels: ``P`` classes.
        at_most: Groups a class.

    Returns:
        ``P`` group names, each that of its first cluster.
    """
    sizes = Counter(zip(labels, clusters, strict=True))
    of: dict[tuple[str | None, str], str] = {}
    for label in dict.fromkeys(labels):
        own = sorted((c for own_label, c in sizes if own_label == label), key=lambda c: (-sizes[label, c], c))
        of |= {(label, cluster): own[place % at_most] for place, cluster in enumerate(own)}
    return [of[pair] for pair in zip(labels, clusters, strict=True)]


def with_class_means(scores: Sequence[NeuronScores]) -> tuple[NeuronScores, ...]:
    """The scores of one scorer, and of those with a sign the absolute class means too."""
    signed = [one for one in scores if one.method in signed_methods() and one.sums is not None]
    more = [one.sums.finish(one.method + FORMS["class_means"], one.settings, one.completeness) for one in signed]  # type: ignore[union-attr]
    return (*scores, *more)


class Completeness:
    """Collects what the attributions of every protein should sum to and do sum to: a few numbers a protein and site."""

    def __init__(self, sites: Sequence[tuple[int, str]]) -> None:
        self.sites = list(sites)
        self._ids: list[str] = []
        self._parts: list[tuple[np.ndarray, ...]] = []

    def add(
        self, ids: Sequence[str], expected: np.ndarray, got: np.ndarray, points: np.ndarray, settled: np.ndarray
    ) -> None:
        """Proteins with ``(B, S)`` differences of the target, sums of attributions, points, and whether they do."""
        self._ids += ids
        self._parts.append(tuple(part.reshape(len(ids), len(self.sites)) for part in (expected, got, points, settled)))

    def frame(self) -> pd.DataFrame:
        """``id, layer, module, expected, got, gap, points, settled``, one row a protein and site.

        Where a protein is there once for each of its classes: their mean, the most points, and whether all settled.
        """
        expected, got, points, settled = (np.concatenate(parts).ravel() for parts in zip(*self._parts, strict=True))
        layers, modules = zip(*self.sites, strict=True)
        n = len(self._ids)
        frame = pd.DataFrame(
            {
                "id": np.repeat(np.array(self._ids, dtype=object), len(self.sites)),
                "layer": np.tile(layers, n),
                "module": np.tile(np.array(modules, dtype=object), n),
                "expected": expected,
                "got": got,
                "gap": got - expected,
                "points": points.astype(np.int32),
                "settled": settled.astype(bool),
            }
        )
        if len(set(self._ids)) < n:
            how = dict.fromkeys(("expected", "got", "gap"), "mean") | {"points": "max", "settled": "all"}
            frame = frame.groupby(["id", "layer", "module"], sort=False, as_index=False).agg(how)
        return frame


def check_methods(methods: Sequence[str], setting: str = "") -> None:
    """Refuse a scoring method that there is not.

    Args:
        methods: Names.
        setting: Where they stand, for the line.

    Raises:
        SelectionError: one is in no row of the table of methods.
    """
    for method in methods:
        try:
            row_of(method)
        except SelectionError as error:
            raise SelectionError(f"{setting}: {error}" if setting else str(error)) from None


def check_ranking(scores: NeuronScores) -> None:
    """Refuse scores that are all equal: the best of them would be the first of layer 0, by no merit.

    Raises:
        SelectionError: all (finite) scores of two or more neurons are the same.
    """
    known = scores.values[np.isfinite(scores.values)]
    if len(known) > 1 and np.ptp(known) == 0:
        advice = f"leave {scores.method} out of score.methods"
        if more := _more_advice(scores.method):
            advice = f"{more}, or {advice}"
        raise SelectionError(
            f"{scores.method}: all {len(known):,} neurons have the same score ({known[0]:g}), so none is better than "
            f"another; {advice}"
        )


def _more_advice(method: str) -> str:
    """What the table of methods says to do where all neurons have the same score; a score may be of no method."""
    return row_of(method).equal.get(method, "") if method in known_methods() else ""


def score_table(scores: Sequence[NeuronScores]) -> pd.DataFrame:
    """``neurons.parquet``: one row a neuron, one column a method."""
    frame = scores[0].index.table()
    return frame.assign(**{one.method: one.values for one in scores})


def class_table(scores: Sequence[NeuronScores]) -> pd.DataFrame:
    """``class_scores.parquet``: ``method, label, layer, module, neuron, score``."""
    frames = [
        one.index.table().assign(method=one.method, label=label, score=values)
        for one in scores
        for label, values in one.per_class.items()
    ]
    columns = ["method", "label", "layer", "module", "neuron", "score"]
    return pd.concat(frames, ignore_index=True)[columns] if frames else pd.DataFrame(columns=columns)


def from_table(frame: pd.DataFrame, index: NeuronIndex, method: str) -> NeuronScores:
    """Read one method back from ``neurons.parquet``, whatever the order of its rows.

    Raises:
        SelectionError: the method has no column, or the table's neurons are not those of ``index``.
    """
    if method not in frame.columns:
        known = [column for column in frame.columns if column not in ("layer", "module", "neuron")]
        raise SelectionError(f"no scores by {method!r}; there are {', '.join(known)}")
    keys = ["layer", "module", "neuron"]
    ordered = index.table().merge(frame[[*keys, method]], on=keys, how="left", validate="one_to_one")
    if len(frame) != len(index) or ordered[method].isna().any():
        raise SelectionError(f"the table has other neurons than the model ({len(frame)} rows, {len(index)} neurons)")
    return NeuronScores(method, index, ordered[method].to_numpy(dtype=np.float64))
