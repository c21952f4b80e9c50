"""The part ``shared`` of the layout: whether a class rests on the same neurons in every group of proteins."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from plmscope.data.clusters import one_per_cluster
from plmscope.data.proteins import Protein
from plmscope.errors import StudyError
from plmscope.study.laying import Laying
from plmscope.study.stages import Context

TABLES = ("shared_neurons", "sharing", "transfer")
#: Groups that clusters are dealt into where no column names any; most groups of a column, the largest; most training
#: proteins of a class in a group.
PARTS, MOST, PER_GROUP = 3, 6, 12


def column_of(context: Context) -> dict[str, str] | None:
    """Protein id to its value of ``layout.group_column``; ``None`` where no column is named.

    Raises:
        StudyError: the proteins have no such column.
    """
    column = context.study.layout.group_column
    if not column:
        return None
    proteins = context.inputs.data.proteins
    if not any(column in p.columns for p in proteins):
        known = ", ".join(sorted({name for p in proteins for name in p.columns})) or "none"
        raise StudyError(f"layout.group_column: the proteins have no column {column!r}; there are {known}")
    return {p.id: str(p.columns.get(column, "")).strip() for p in proteins}


def groups_of(laying: Laying) -> dict[str, str]:
    """Protein id to the name of its group; proteins without a value are in none.

    Without a column the clusters are dealt into :data:`PARTS` groups by chance: do neurons carry over to others?
    """
    column = column_of(laying.context)
    if column is not None:
        return {name: value for name, value in column.items() if value}
    names = sorted(set(laying.opened.clusters.values()))
    part = np.random.default_rng([laying.seed, 40]).permutation(len(names)) % PARTS
    of = {name: f"part {one + 1}" for name, one in zip(names, part.tolist(), strict=True)}
    return {name: of[cluster] for name, cluster in laying.opened.clusters.items()}


def shared(laying: Laying) -> str:
    """Shared and specific neurons of every class, and what neurons of one group do in another."""
    from plmscope.layout.attributions import per_protein
    from plmscope.layout.shared import Grouped, shared_tables, transfer_table, with_q

    of, model = groups_of(laying), laying.model
    clusters, settings = laying.opened.clusters, laying.settings
    train, test = laying.opened.proteins("train"), laying.opened.proteins("test")
    grouped: dict[str, Grouped] = {}
    frames = []
    for number, label in enumerate(model.labels):
        chosen = _train_of(laying, [p for p in train if p.label == label], of)
        if len(chosen) < 2:
            laying.context.say(f"layout: shared: class {label}: fewer than two groups have three clusters, left out")
            continue
        names = tuple(chosen)
        proteins = [p for name in names for p in chosen[name]]
        attributed = per_protein(
            model, proteins, laying.constants(proteins), laying.context.study.evaluate.token_budget
        )
        group = np.repeat(np.arange(len(names)), len(chosen[names[0]]))
        grouped[label] = Grouped(names, group, attributed)
        judged = [
            p for name in names
            for p in one_per_cluster([p for p in test if p.label == label and of.get(p.id) == name], clusters,
                                     settings.proteins_per_class, laying.seed)
        ]  # fmt: skip
        if not judged:
            continue
        found = transfer_table(
            laying.measure, f"transfer-{number}", model.index, grouped[label], judged, laying.clusters(judged),
            np.array([names.index(of[p.id]) for p in judged]), number, settings.neurons, settings.draws, laying.seed,
        )  # fmt: skip
        frames.append(found.assign(label=label))
    neurons, sharing = shared_tables(model.index, grouped, seed=laying.seed)
    frames = [frame for frame in frames if len(frame)]
    transfer = with_q(pd.concat(frames, ignore_index=True) if frames else pd.DataFrame())
    for name, table in zip(TABLES, (neurons, sharing, transfer), strict=True):
        laying.context.run.write_table(name, table)
    other = transfer[transfer["chosen_on"] != transfer["measured_on"]]["ratio"].dropna()
    kinds = Counter(neurons["kind"])
    return (
        f"of {len(neurons):,} neurons of a class in some group {kinds['independent']:,} are in every group, "
        f"{kinds['specific']:,} in one; median transfer between groups "
        + (f"{other.median():.2f}" if len(other) else "not known")
    )


def _train_of(laying: Laying, train: Sequence[Protein], of: Mapping[str, str]) -> dict[str, list[Protein]]:
    """Group to training proteins of a class, as many of each, each from another cluster; the largest groups."""
    from plmscope.layout.shared import FEWEST

    found, sizes = {}, {}
    for name in sorted({of[p.id] for p in train if p.id in of}):
        own = [p for p in train if of.get(p.id) == name]
        some = one_per_cluster(own, laying.opened.clusters, PER_GROUP, laying.seed)
        if len(some) >= FEWEST:
            found[name], sizes[name] = some, len({laying.opened.clusters[p.id] for p in own})
    large = sorted(found, key=lambda name: (-sizes[name], name))[:MOST]
    n = min((len(found[name]) for name in large), default=0)
    return {name: found[name][:n] for name in sorted(large)}
