"""Train, validation and test sets between which no close relatives are shared.

Proteins that descend from one ancestor resemble each other, so a classifier tested on relatives of its training
proteins looks better than it is. MMseqs2 groups the proteins into clusters of similar sequence, and whole clusters go
to one set. Every class gives each set its share as far as its clusters allow.

Clusters are built around representatives: two members of different clusters may still resemble each other. How much
is left is measured by :func:`~plmscope.data.leakage.leakage`, not assumed. How far the sets are from their shares is
in :func:`balance_table`.

MMseqs2 does not see short sequences nor those of low complexity: the former are compared residue by residue
(peptides.py), the latter aligned with every other sequence, without masking (low_complexity.py). What neither can
compare is counted and said.

All windows of a long protein are in one cluster, with whatever resembles any of them; so are pieces that overlap.
"""

from __future__ import annotations

import contextlib
import random
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import pandas as pd

from plmscope.data.labels import LabelTask, class_names, classes_of, membership, rarest
from plmscope.data.pieces import pieces_of, refuse_twins, source_of
from plmscope.data.proteins import Protein
from plmscope.data.relatives import merged_groups, relatives
from plmscope.data.set_columns import PARTS, Part, column_split, fold_split, value_of
from plmscope.errors import InputError, StudyError, shown

#: How many classes :func:`balance_lines` shows.
MAX_ROWS = 12

_YES, _NO = ("1", "true", "yes"), ("", "0", "false", "no")


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
        sizes = Counter(self.assignment.values())
        return {part: sizes[part] for part in PARTS}

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
    task: LabelTask = "single",
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
        assignment = fold_split(proteins, column, folds) if folds else column_split(proteins, column)
        notes: tuple[str, ...] = ()
        if "validation" not in assignment.values():
            assignment, note = _with_validation(proteins, assignment, column, labels, clusters, validation, test, seed)
            notes = (note,)
        _check_classes(proteins, assignment, task, ("train",), f"column {column!r}", "move some there")
        return Split(assignment, clusters, method, identity, coverage, cluster_column, notes)
    open_to_test = {p.id for p in proteins if _is_held_out(p, held_out)} if held_out else set(alone)
    how: tuple[str, ...] = ()
    if method == "random":
        clusters = _together(alone, proteins, lambda protein: protein.sequence)
    elif cluster_column:
        clusters = {protein.id: _cluster_of(protein, cluster_column) for protein in proteins}
        clusters = _together(clusters, proteins, lambda protein: protein.sequence)
    else:
        clusters, how = relatives(proteins, identity, coverage)
        clusters = _together(clusters, proteins, lambda protein: protein.parent)
        clusters = _together(clusters, proteins, source_of)
    checked = (task, PARTS, "the split", "merge the class with another or leave it out")
    mixed: tuple[str, ...] = ()
    try:
        assignment = _assign(labels, clusters, open_to_test, validation, test, seed, method)
    except InputError:
        refuse_twins(proteins)
        assignment = _assign(labels, clusters, open_to_test, validation, test, seed, method, by_rarest=True)
        with contextlib.suppress(InputError):
            _check_classes(proteins, assignment, *checked)
            mixed = ("clusters hold several classes: each was counted for the rarest of its own",)
        if not mixed:
            raise
    _check_classes(proteins, assignment, *checked)
    notes = mixed
    if method == "cluster" and not cluster_column:
        notes += (*pieces_of(proteins), *how)
    return Split(assignment, clusters, method, identity, coverage, cluster_column, notes)


def balance_table(proteins: Iterable[Protein], split: Split, task: LabelTask = "single") -> pd.DataFrame:
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


def _labels(proteins: Sequence[Protein], task: LabelTask) -> dict[str, str]:
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
    task: LabelTask,
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


def _cluster_of(protein: Protein, column: str) -> str:
    """The cluster that a column names."""
    value = value_of(protein, column, "cluster_column")
    if not value:
        raise InputError(f"protein {protein.id!r}: column {column!r} names no cluster; fill it in")
    return value


def _together(
    clusters: Mapping[str, str], proteins: Sequence[Protein], what: Callable[[Protein], str]
) -> dict[str, str]:
    """The same clusters, those made one that hold proteins of which the same is true; nothing is empty text."""
    first: dict[str, str] = {}
    links = [(first.setdefault(what(p), clusters[p.id]), clusters[p.id]) for p in proteins if what(p)]
    merged = merged_groups([link for link in links if link[0] != link[1]])
    return {name: merged.get(cluster, cluster) for name, cluster in clusters.items()}


def _is_held_out(protein: Protein, column: str) -> bool:
    """Whether the protein may enter validation and test."""
    value = value_of(protein, column, "held_out, or set held_out = ''").lower()
    if value not in _YES + _NO:
        raise InputError(f"protein {protein.id!r}: column {column!r} has {shown(value)}; use 1 or 0")
    return value in _YES


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
