"""Suppress and enhance each class's neurons on test proteins."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from plmscope.data.clusters import one_per_cluster
from plmscope.data.proteins import Protein
from plmscope.errors import RunError
from plmscope.evaluation.selection import Selection, select_top
from plmscope.progress import Track, silent
from plmscope.study.opened import OpenRun, class_methods, class_scores
from plmscope.study.sharding import held
from plmscope.study.stages import Context, Stage, tables
from plmscope.tasks.crew import ALONE, Crew
from plmscope.tasks.shard import Shard

if TYPE_CHECKING:
    from plmscope.evaluation.collected import Tried
    from plmscope.evaluation.interventions import Change, Trial

TABLES = ("interventions", "intervention_effects")


@dataclass(frozen=True)
class Asked:
    """What is suppressed and enhanced.

    Attributes:
        trials: Of the classes' neurons and their draws.
        proteins: On which they are tried.
        few: Those on which single neurons are tried.
        single: Positions of these neurons, the best first.
        classes: The tasks of the trials, the intact model first.
        neurons: The tasks of single neurons, the intact model first.
    """

    trials: list[Trial]
    proteins: list[Protein]
    few: list[Protein]
    single: np.ndarray
    classes: Tried
    neurons: Tried


def asked(opened: OpenRun, parts: Path, stamp: str, track: Track = silent, crew: Crew = ALONE) -> Asked:
    """The changes of a study; the arguments are those of :func:`intervene_run`."""
    from plmscope.evaluation.collected import changes_tried
    from plmscope.evaluation.interventions import Change, nothing, plan

    settings, model, seed, run = opened.study.intervene, opened.model, opened.study.seed, opened.run
    methods, fraction = class_methods(opened), settings.fraction
    scores = {method: class_scores(opened, method) for method in methods}
    selections: dict[tuple[str, str], Selection] = {
        (method, label): select_top(one, fraction) for method in methods for label, one in scores[method].items()
    }
    if model.ablation_means is None:
        raise RunError(f"{run.path}: no ablation means; run 'plmscope score {shlex.quote(str(run.path))}'")

    def tried(name: str, description: str, proteins: Sequence[Protein], changes: Sequence[Change]) -> Tried:
        return changes_tried(
            model, proteins, [nothing(model.index), *changes], token_budget=opened.study.evaluate.token_budget,
            folder=parts, stamp=f"{name}-{stamp}", description=description, track=track, crew=crew,
        )  # fmt: skip

    proteins = opened.proteins("evaluation")
    draws: dict[float | None, int] = {None: settings.draws, 0.0: settings.draws}
    draws |= {factor: settings.draws if factor == 2 else 0 for factor in settings.factors if factor != 1}
    trials = plan(selections, fraction, draws, seed)
    single = _single(opened, methods[0], settings.neurons)
    few = one_per_cluster(proteins, opened.clusters, settings.proteins_per_class, seed, task=model.task)
    alone = [Change(Selection(model.index, np.arange(len(model.index)) == position), None) for position in single]
    return Asked(
        trials, proteins, few, single,
        tried("classes", "suppress and enhance", proteins, [trial.change for trial in trials]),
        tried("neurons", "one neuron at a time", few, alone),
    )  # fmt: skip


def intervene_run(
    opened: OpenRun,
    parts: Path,
    stamp: str,
    track: Track = silent,
    say: Callable[[str], None] = lambda _: None,
    crew: Crew = ALONE,
) -> dict[str, Any]:
    """Write :data:`TABLES` of a run, and ``neuron_effects`` where single neurons are asked for.

    Args:
        opened: The run, at least scored.
        parts: A folder for what is known so far; another call with the same ``stamp`` continues from there. The caller
            removes it.
        stamp: Digest of everything that the outcomes depend on.
        track: Progress.
        say: Told one line at a time.
        crew: Who does the work.

    Returns:
        What the manifest keeps.

    Raises:
        RunError: the run has no scores or no ablation means.
    """
    from plmscope.evaluation.interventions import effect_table, intervention_table, neuron_effects

    model, seed, run = opened.model, opened.study.seed, opened.run
    of = asked(opened, parts, stamp, track, crew)

    def outcomes(tried: Tried) -> np.ndarray:
        """Log-odds ``(1 + K, P, C)`` in the intact model and under every change."""
        return tried.all(lambda line: say(f"intervene: {line}"))["odds"]

    members, labels = model.membership(of.proteins), list(model.labels)
    before, *after = outcomes(of.classes)
    clusters = [opened.clusters[p.id] for p in of.proteins]
    effects = effect_table(of.trials, before, after, members, labels, clusters, seed, model.task)
    run.write_table("interventions", intervention_table(of.trials, before, after, members, labels, model.task))
    run.write_table("intervention_effects", effects)
    if len(of.single):
        before, *after = outcomes(of.neurons)
        where = model.index.table().iloc[of.single].reset_index(drop=True)
        single = neuron_effects(before, after, model.membership(of.few), labels, where, model.task)
        run.write_table("neuron_effects", single)
    lost = effects[(effects["label"] == effects["effect_on"]) & effects["factor"].isna()]
    say(
        f"intervene: held at the mean, the neurons of a class lose it {lost['decisions_lost'].sum():,} of "
        f"{lost['decisions_right'].sum():,} right decisions; matched draws {lost['decisions_lost_against'].sum():,.1f}"
    )
    return {"proteins": len(of.proteins)}


def judge_selection(opened: OpenRun, path: str | Path, label: str | None, factor: float | None) -> Any:
    """The :class:`~plmscope.evaluation.judging.Intervention` of a TSV file of neurons on the test proteins."""
    from plmscope.evaluation.judging import intervene

    chosen = Selection.from_tsv(path, opened.model.index)
    return intervene(
        opened.model, opened.proteins("evaluation"), chosen, factor=factor, label=label,
        n_random=opened.study.intervene.draws, seed=opened.study.seed, token_budget=opened.study.evaluate.token_budget,
    )  # fmt: skip


def _single(opened: OpenRun, method: str, most: int) -> np.ndarray:
    """Positions of the neurons that are suppressed one by one: the best overall, as the evaluation ranks them."""
    order = np.argsort(-opened.ranking(method).values, kind="stable")
    best: np.ndarray = order[: min(most, len(order))]
    return best


def share(context: Context, shard: Shard, out: Path | None) -> bool:
    """Try one share of the changes."""
    with held(context.run, context.parts, f"shard-{shard.name}"):
        of = asked(context.opened, context.parts, context.stamp, context.track, context.crew)
        there = of.classes.share(shard)
        return (not len(of.single) or of.neurons.share(shard)) and there


def run(context: Context) -> dict[str, Any]:
    """Measure what becomes of every class and its decisions."""
    told = intervene_run(context.opened, context.parts, context.stamp, context.track, context.say, context.crew)
    return {"interventions": {"enabled": True, **told}}


STAGE = Stage(
    name="intervene",
    run=run,
    share=share,
    settings=("seed", "device", "dtype", "score.ranking", "evaluate.max_proteins", "intervene"),
    reads=("model", "proteins", "neurons", "class_scores", "ablation_means"),
    writes=tables(*TABLES),
    asked={"neuron_effects.parquet": lambda study: study.intervene.neurons > 0},
    switches=("intervene.enabled",),
    off={"interventions": {"enabled": False}},
)
