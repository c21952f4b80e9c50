"""Probes outside the model: what the best, the worst and random neurons decide alone, and where they are."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from plmscope.data.proteins import Protein, ProteinSet
from plmscope.errors import StudyError, shown
from plmscope.knowledge.concepts import ConceptSet
from plmscope.probing.curves import Task, mass_of_sites, minimal_sets, probe_curves
from plmscope.progress import Track
from plmscope.store.resume import Parts
from plmscope.study.characterizing import Sides, known_sides, read_inputs
from plmscope.study.opened import OpenRun
from plmscope.study.stages import Context, Stage, tables

TABLES = ("probe_curves", "probe_layers")
#: Concepts that are asked where the study names none, and residues of a protein that are samples of one, at most.
CONCEPTS, EACH = 3, 50
#: Samples of a concept on either side, below which there is no task.
FEWEST = 20


def asked_concepts(concepts: ConceptSet, proteins: Sequence[Protein], named: Sequence[str]) -> list[int]:
    """Numbers of the residue concepts that are probed: those that are named, or the features that most proteins have.

    Raises:
        StudyError: one that is named is no residue concept of this run.
    """
    for name in named:
        if name not in concepts.number or concepts.concepts[concepts.number[name]].level != "residue":
            raise StudyError(
                f"probe.concepts: {shown(name)} is no residue concept of this run; concepts.parquet has their names"
            )
    if named:
        return [concepts.number[name] for name in named]
    held = np.zeros(len(concepts), np.int64)
    for protein in proteins:
        held[list(concepts.annotate(protein).positions)] += 1
    kinds = [c.kind for c in concepts.concepts]
    kind = "feature" if "feature" in kinds else "pattern"
    own = [number for number, one in enumerate(kinds) if one == kind and held[number]]
    return sorted(own, key=lambda number: (-held[number], number))[:CONCEPTS]


def drawn(
    concepts: ConceptSet, number: int, proteins: Sequence[Protein], most: int, rng: np.random.Generator
) -> tuple[dict[int, np.ndarray], dict[int, np.ndarray]]:
    """Residues of some proteins that a concept marks, and as many of the same proteins that it does not, by protein."""
    marked: dict[int, np.ndarray] = {}
    others: dict[int, np.ndarray] = {}
    total = 0
    for row in rng.permutation(len(proteins)).tolist():
        if total >= most - 1:
            break
        annotation = concepts.annotate(proteins[row])
        own = annotation.positions.get(number)
        if own is None or not annotation.known[number]:
            continue
        rest = np.setdiff1d(np.arange(len(proteins[row])), own)
        n = min(len(own), len(rest), EACH, (most - total) // 2)
        if n:
            marked[row], others[row] = (np.sort(rng.choice(some, n, replace=False)) for some in (own, rest))
            total += 2 * n
    return marked, others


def words(protein: Protein, residues: np.ndarray) -> list[str]:
    """The centred 3-mers of some residues; ``-`` is beyond an end."""
    padded = f"-{protein.sequence}-"
    return [padded[place : place + 3] for place in residues.tolist()]


def probe_run(
    opened: OpenRun, found: ProteinSet, parts: Parts, track: Track, say: Callable[[str], None]
) -> dict[str, Any]:
    """Write :data:`TABLES` of a run; returns what the manifest keeps."""
    from plmscope.knowledge.samples import read_samples
    from plmscope.probing.linear_probe import fit_probe
    from plmscope.probing.scorers import METHODS, ranked

    study, settings, model = opened.study, opened.study.probe, opened.model
    sides = known_sides(opened, found, say)
    chosen = [_at_most(side, settings.max_proteins, study.seed) for side in (sides.discovery, sides.confirmation)]
    for some, side, name in zip(chosen, (sides.discovery, sides.confirmation), ("train", "held-out"), strict=True):
        if len(some) < len(side):
            say(f"probe: {len(some):,} of {len(side):,} {name} proteins, by probe.max_proteins")
    proteins, n = [*chosen[0], *chosen[1]], len(chosen[0])
    numbers = asked_concepts(sides.concepts, chosen[0], settings.concepts)
    samples = _residues(sides, chosen, numbers, settings.residues, study.seed)
    wanted = [
        np.concatenate([np.zeros(0, np.int64), *(one[row] for one in samples if row in one)])
        for row in range(len(proteins))
    ]
    means, rows = read_samples(
        model, proteins, wanted, token_budget=study.characterize.token_budget, track=track, parts=parts
    )
    tasks = _class_task(opened, proteins, means, n, say)
    tasks += _residue_tasks(sides.concepts, numbers, proteins, samples, wanted, rows, n, say)
    everyone = model.index.table().reset_index(drop=True)
    sites = everyone.groupby(["layer", "module"], sort=False).ngroup().to_numpy()
    places = everyone[["layer", "module"]].drop_duplicates().reset_index(drop=True)
    curves, layers = [], []
    for task in tasks:
        scores = {}
        for method in track(METHODS, f"ranking for {task.name}", len(METHODS)):
            scores[method], _, more = ranked(method, task.x, task.y, task.classes, study.seed)
            if method == "probe":
                weights = fit_probe(task.x, task.y, task.classes, more["penalty"], seed=study.seed).weights

        def steps(names: Iterable[str], task: Task = task) -> Iterable[str]:
            return track(list(names), f"probing {task.name}", len(METHODS))

        curves.append(
            probe_curves(task, scores, sizes=settings.sizes, controls=settings.controls, seed=study.seed, track=steps)
        )
        mass = mass_of_sites(weights, sites)
        where = places.iloc[mass["site"].to_numpy()].reset_index(drop=True)
        layers.append(pd.concat([where, mass.drop(columns="site")], axis=1).assign(task=task.name, level=task.level))
    opened.run.write_table("probe_curves", pd.concat(curves, ignore_index=True))
    opened.run.write_table("probe_layers", pd.concat(layers, ignore_index=True))
    for frame in curves:
        whole = frame[frame["chosen"] == "all"].iloc[0]
        fewest = minimal_sets(frame).sort_values("n_neurons", kind="stable").head(1).to_dict("records")
        least = [f"; {one['n_neurons']:,} do as well, by {one['method']}" for one in fewest]
        say(
            f"probe: {whole['task']}: balanced accuracy {whole['balanced_accuracy']:.3f} with all neurons (control "
            f"{whole['control_accuracy']:.3f}){''.join(least) or '; they read next to nothing'}"
        )
    return {"tasks": [task.name for task in tasks], "train_proteins": n, "held_out_proteins": len(proteins) - n}


def _at_most(proteins: Sequence[Protein], most: int, seed: int) -> list[Protein]:
    """Some of them, drawn by the seed, in their order."""
    rows = np.sort(np.random.default_rng([seed, 45]).permutation(len(proteins))[:most])
    return [proteins[row] for row in rows]


def _residues(
    sides: Sides, chosen: Sequence[Sequence[Protein]], numbers: Sequence[int], most: int, seed: int
) -> list[dict[int, np.ndarray]]:
    """Residues by protein: for each concept those marked, then those not, of both sides together."""
    found = []
    for number in numbers:
        rng = np.random.default_rng([seed, 46, number])
        train, held = (
            drawn(sides.concepts, number, side, size, rng) for side, size in zip(chosen, (most, most // 2), strict=True)
        )
        n = len(chosen[0])
        for one, other in zip(train, held, strict=True):
            found.append(one | {n + row: residues for row, residues in other.items()})
    return found


def _class_task(
    opened: OpenRun, proteins: Sequence[Protein], means: np.ndarray, n: int, say: Callable[[str], None]
) -> list[Task]:
    """The class of a protein; none where proteins may have several classes."""
    if opened.study.data.task_or_single == "multi":
        say("probe: proteins may have several classes, which a probe of one class does not ask; concepts alone")
        return []
    labels = list(opened.model.labels)
    y = np.array([labels.index(str(protein.label)) for protein in proteins])
    return [Task("class", "protein", means[:n], y[:n], means[n:], y[n:], len(labels))]


def _residue_tasks(
    concepts: ConceptSet,
    numbers: Sequence[int],
    proteins: Sequence[Protein],
    samples: Sequence[Mapping[int, np.ndarray]],
    wanted: Sequence[np.ndarray],
    rows: np.ndarray,
    n: int,
    say: Callable[[str], None],
) -> list[Task]:
    """Whether a concept marks a residue."""
    starts = np.concatenate([[0], np.cumsum([len(one) for one in wanted])]).astype(np.int64)
    places: list[list[np.ndarray]] = [[] for _ in samples]
    for row in range(len(proteins)):
        start = int(starts[row])
        for kind, one in enumerate(samples):
            size = len(one.get(row, ()))
            places[kind].append(np.arange(start, start + size))
            start += size
    tasks = []
    for k, number in enumerate(numbers):
        parts: list[Any] = []
        for side in (range(n), range(n, len(proteins))):
            where = [np.concatenate([np.zeros(0, np.int64), *(places[2 * k + other][row] for row in side)])
                     for other in (0, 1)]  # fmt: skip
            said = [
                word for other in (0, 1) for row in side
                for word in words(proteins[row], samples[2 * k + other].get(row, np.zeros(0, np.int64)))
            ]  # fmt: skip
            parts += [rows[np.concatenate(where)], np.repeat([1, 0], [len(one) for one in where]), said]
        name = concepts.concepts[number].name
        x, y, own, held_x, held_y, held = parts
        if min(len(y), len(held_y)) < FEWEST:
            say(f"probe: {name}: fewer than {FEWEST} residues on a side, not asked")
            continue
        tasks.append(Task(name, "residue", x, y, held_x, held_y, 2, own, held))
    return tasks


def check(context: Context) -> None:
    """Refuse before any stage runs what the study says of features and patterns."""
    read_inputs(context.study, context.inputs.data.proteins)


def run(context: Context) -> dict[str, Any]:
    """Read samples, rank, and train probes."""
    parts = Parts(context.parts, context.stamp)
    return {"probe": {"enabled": True, **probe_run(
        context.opened, context.inputs.data, parts, context.track, context.say
    )}}  # fmt: skip


STAGE = Stage(
    name="probe",
    run=run,
    settings=("seed", "device", "dtype", "data", "characterize", "probe"),
    reads=("model", "proteins", "ablation_means"),
    writes=tables(*TABLES),
    digests=("data", "features"),
    switches=("probe.enabled",),
    off={"probe": {"enabled": False}},
    check=check,
)  # fmt: skip
