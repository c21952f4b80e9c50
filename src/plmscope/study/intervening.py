"""Suppress and enhance each class's neurons on test proteins."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from plmscope.data.clusters import one_per_cluster
from plmscope.data.proteins import Protein
from plmscope.errors import RunError
from plmscope.evaluation.selection import Selection, select_top
from plmscope.progress import Track, silent
from plmscope.study.opened import OpenRun, class_methods, class_scores, judges
from plmscope.study.stages import Context, Stage, tables
from plmscope.tasks.crew import ALONE, Crew

TABLES = ("interventions", "intervention_effects")


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
    from plmscope.evaluation.collected import collect_outcomes
    from plmscope.evaluation.interventions import (
        Change,
        effect_table,
        intervention_table,
        neuron_effects,
        nothing,
        plan,
    )

    settings, model, seed, run = opened.study.intervene, opened.model, opened.study.seed, opened.run
    methods, fraction = class_methods(opened), settings.fraction
    scores = {method: class_scores(opened, method) for method in methods}
    selections: dict[tuple[str, str], Selection] = {
        (method, label): select_top(one, fraction) for method in methods for label, one in scores[method].items()
    }
    if model.ablation_means is None:
        raise RunError(f"{run.path}: no ablation means; run 'plmscope score {shlex.quote(str(run.path))}'")

    def tried(name: str, description: str, proteins: Sequence[Protein], changes: Sequence[Change]) -> np.ndarray:
        """Log-odds ``(1 + K, P, C)`` in the intact model and under every change."""
        return collect_outcomes(
            model, proteins, [nothing(model.index), *changes], token_budget=opened.study.evaluate.token_budget,
            folder=parts, stamp=f"{name}-{stamp}", description=description, track=track,
            say=lambda line: say(f"intervene: {line}"), crew=crew,
        )  # fmt: skip

    proteins = judges(opened)
    members, labels = model.membership(proteins), list(model.labels)
    draws: dict[float | None, int] = {None: settings.draws, 0.0: settings.draws}
    draws |= {factor: settings.draws if factor == 2 else 0 for factor in settings.factors if factor != 1}
    trials = plan(selections, fraction, draws, seed)
    before, *after = tried("classes", "suppress and enhance", proteins, [trial.change for trial in trials])
    clusters = [opened.clusters[p.id] for p in proteins]
    effects = effect_table(trials, before, after, members, labels, clusters, seed, model.task)
    run.write_table("interventions", intervention_table(trials, before, after, members, labels, model.task))
    run.write_table("intervention_effects", effects)
    chosen = _single(opened, methods[0], settings.neurons)
    if len(chosen):
        few = one_per_cluster(proteins, opened.clusters, settings.proteins_per_class, seed, task=model.task)
        places = [np.arange(len(model.index)) == position for position in chosen]
        alone = [Change(Selection(model.index, mask), None) for mask in places]
        before, *after = tried("neurons", "one neuron at a time", few, alone)
        where = model.index.table().iloc[chosen].reset_index(drop=True)
        single = neuron_effects(before, after, model.membership(few), labels, where, model.task)
        run.write_table("neuron_effects", single)
    lost = effects[(effects["label"] == effects["effect_on"]) & effects["factor"].isna()]
    say(
        f"intervene: held at the mean, the neurons of a class lose it {lost['decisions_lost'].sum():,} of "
        f"{lost['decisions_right'].sum():,} right decisions; matched draws {lost['decisions_lost_against'].sum():,.1f}"
    )
    return {"proteins": len(proteins)}


def judge_selection(opened: OpenRun, path: str | Path, label: str | None, factor: float | None) -> Any:
    """The :class:`~plmscope.evaluation.judging.Intervention` of a TSV file of neurons on the test proteins."""
    from plmscope.evaluation.judging import intervene

    chosen = Selection.from_tsv(path, opened.model.index)
    return intervene(
        opened.model, judges(opened), chosen, factor=factor, label=label, n_random=opened.study.intervene.draws,
        seed=opened.study.seed, token_budget=opened.study.evaluate.token_budget,
    )  # fmt: skip


def _single(opened: OpenRun, method: str, most: int) -> np.ndarray:
    """Positions of the neurons that are suppressed one by one: the best overall, as the evaluation ranks them."""
    order = np.argsort(-opened.ranking(method).values, kind="stable")
    best: np.ndarray = order[: min(most, len(order))]
    return best


def run(context: Context) -> dict[str, Any]:
    """Measure what becomes of every class and its decisions."""
    told = intervene_run(context.opened, context.parts, context.stamp, context.track, context.say, context.crew)
    return {"interventions": {"enabled": True, **told}}


STAGE = Stage(
    name="intervene",
    run=run,
    settings=("seed", "device", "dtype", "score.ranking", "evaluate.max_proteins", "intervene"),
    reads=("model", "proteins", "neurons", "class_scores", "ablation_means"),
    writes=tables(*TABLES),
    asked={"neuron_effects.parquet": lambda study: study.intervene.neurons > 0},
    switch="intervene.enabled",
    off={"interventions": {"enabled": False}},
)
