"""The second stage: score the neurons on training proteins, by workers or in shards; find the ablation means."""

from __future__ import annotations

import hashlib
import json
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from plmscope.data.clusters import one_per_cluster
from plmscope.data.labels import rarest
from plmscope.data.proteins import Protein
from plmscope.errors import RunError
from plmscope.evaluation.density import precision_agreement
from plmscope.progress import Track
from plmscope.scoring.scores import NeuronScores, class_table, resampling_groups, score_table, signed_form
from plmscope.scoring.shards import PartialScores, complete, merge_shards, score_shard
from plmscope.scoring.table import path_methods
from plmscope.store.folder import Run
from plmscope.store.resume import Parts
from plmscope.study.opened import OpenRun, advice, score_all
from plmscope.study.settings import Study
from plmscope.study.sharding import held
from plmscope.study.stages import Context, Stage, settings_of, tables, versions
from plmscope.tasks.crew import ALONE, Crew
from plmscope.tasks.shard import Shard
from plmscope.tasks.task import Task

#: Proteins that are scored in float32 too when a study asks for less.
PRECISION_PROTEINS_PER_CLASS = 2
#: What the scores were made of, for whoever resamples the proteins.
SUMS = "score_sums.npz"


def run(context: Context) -> dict[str, Any]:
    """Score the neurons, or merge the shards that others scored."""
    study, run, opened = context.study, context.run, context.opened
    model = opened.model
    chosen, groups = scored_proteins(opened)
    constants, n_means = ablation_means(model, opened.proteins("train"), opened.clusters, study, context.track)
    folder, stamp = context.shards or context.parts, parts_stamp(study, run)
    if context.shards or complete(folder, stamp, chosen, model.index):
        elsewhere = f" --out {shlex.quote(str(folder))}" if folder != context.parts else ""
        command = f"plmscope score {shlex.quote(str(run.path))}{elsewhere}"
        partial = merge_shards(folder, stamp, chosen, model.index, f"{command} --shard")
        if partial.constants is not None:  # those that the shards took; another machine rounds in another way
            constants = partial.constants
        context.say(f"score: merged the shards in {folder}")
    else:
        parts = Parts(folder, stamp, shared=True)
        partial = score_parts(context, model, chosen, groups, constants, Shard(1, 1), parts, context.crew)
    first, last, residue = constants
    run.write_own("ablation_means", model.index.table().assign(first=first, last=last, residue=residue))
    scores = partial.finish(study.score.columns, chosen)
    run.write_table("neurons", score_table(scores))
    own = [s for s in scores if s.method in study.score.methods]
    run.write_table("class_scores", class_table(own))
    gaps = [s.completeness.assign(method=s.method) for s in own if s.completeness is not None]
    if gaps:
        run.write_table("completeness", pd.concat(gaps, ignore_index=True))
    if study.density.resampled:
        partial.sums_alone().save(run.path / SUMS)
    told = {"scoring_proteins": len(chosen), "scoring_ids": [p.id for p in chosen], "mean_proteins": n_means}
    if study.dtype == "float32":
        return told
    return told | {"precision": _compared_precision(context, chosen, constants)}


def rankings(study: Study, scores: Sequence[NeuronScores]) -> list[NeuronScores]:
    """What selections by each method are ranked by, under the method's name."""
    of = {one.method: one for one in scores}
    return [replace(of[study.score.ranked_by(name)], method=name) for name in study.score.methods]


def share(context: Context, shard: Shard, out: Path | None) -> bool:
    """Score one share of the proteins into a file; whether all shares in the run folder are there now.

    Raises:
        BusyError: another process scores this shard, or writes to the run folder.
        RunError: the model is not fine-tuned yet, or a folder is not writable.
    """
    run, folder = context.run, out or context.parts
    stamp = parts_stamp(context.study, run)
    parts = Parts(folder, stamp, shared=True)
    path = parts.path(shard.name)
    with held(run, folder, path.stem):
        opened = context.opened
        chosen, groups = scored_proteins(opened)
        constants = None
        if context.study.score.baseline == "mean":
            train = opened.proteins("train")
            constants, _ = ablation_means(opened.model, train, opened.clusters, context.study, context.track)
        parts.write(shard.name, score_parts(context, opened.model, chosen, groups, constants, shard, parts).arrays())
    context.say(f"score: shard {shard} is in {path}")
    return out is None and complete(folder, stamp, chosen, opened.model.index)


def parts_stamp(study: Study, run: Run) -> str:
    """Digest of what the sums of a shard depend on; from the run folder alone."""
    tuned = run.manifest()["stages"].get("finetune", {})
    if tuned.get("status") != "done":
        raise RunError(f"{run.path}: the stage 'finetune' comes first; {advice(run, 'finetune')}")
    needs = [tuned.get("fingerprint"), settings_of(study, STAGE.settings), *versions()]
    return hashlib.sha256(json.dumps(needs, sort_keys=True).encode()).hexdigest()


def scored_proteins(opened: OpenRun) -> tuple[list[Protein], list[str] | None]:
    """The proteins that the neurons are scored on, and the group of each for bootstraps."""
    chosen = opened.proteins("scoring")
    if not opened.study.density.resampled:
        return chosen, None
    own = [opened.model.labels[c] for c in rarest(opened.model.membership(chosen))]
    return chosen, resampling_groups([opened.clusters[p.id] for p in chosen], own)


def mean_proteins(model: Any, train: Sequence[Protein], clusters: dict[str, str], study: Study) -> list[Protein]:
    """The training proteins that means of activations are taken over."""
    most = study.score.mean_proteins_per_class
    return one_per_cluster(train, clusters, most, study.seed, distinct=False, task=model.task)


def ablation_means(
    model: Any, train: Sequence[Protein], clusters: dict[str, str], study: Study, track: Track
) -> tuple[np.ndarray, int]:
    """What neurons are held at, ``(3, N)``, and of how many proteins it is the mean."""
    from plmscope.scoring.activation import summarise_activations

    means = mean_proteins(model, train, clusters, study)
    return summarise_activations(model, means, track=track).constants("mean"), len(means)


def score_parts(
    context: Context,
    model: Any,
    proteins: Sequence[Protein],
    groups: Sequence[str] | None,
    constants: np.ndarray | None,
    shard: Shard,
    parts: Parts,
    crew: Crew = ALONE,
) -> PartialScores:
    """Score one shard, by a crew that has the model; keeps what it has among ``parts`` and continues from there."""
    settings, seed = context.study.score, context.study.seed
    base = constants if settings.baseline == "mean" else None

    def score(some: list[Protein], of_these: list[str] | None, track: Track) -> list[NeuronScores]:
        return score_all(model, some, settings, base, of_these, track, seed, fit=False)

    def by_crew(lists: Sequence[list[int]]) -> Iterator[PartialScores]:
        from plmscope.models.supplied import supplies

        tasks = [
            Task(
                str(number), f"{__name__}:score_part",
                {"proteins": [proteins[row] for row in rows], "groups": groups and [groups[row] for row in rows]},
            )
            for number, rows in enumerate(lists)
        ]  # fmt: skip
        results = crew.results(tasks, supplies(crew, settings=settings, seed=seed, base=base), in_turn=True)
        for _, one in context.track(results, "scoring, parts of the proteins", len(tasks)):
            yield one

    others = None if crew.alone else by_crew
    return score_shard(score, proteins, groups, model.index, parts, shard, context.track, context.say, base, others)


def score_part(supplies: Any, proteins: list[Protein], groups: list[str] | None) -> PartialScores:
    """The task of one part of the proteins, on a worker: sums of every scorer."""
    base, seed = supplies["base"], supplies["seed"]
    return PartialScores.of(
        score_all(supplies.classifier, proteins, supplies["settings"], base, groups, seed=seed, fit=False)
    )


def _compared_precision(context: Context, chosen: Sequence[Protein], constants: np.ndarray) -> dict[str, Any]:
    """Score a few proteins in float32 too: how far the rankings agree."""
    from plmscope.models.loading import load_model

    study, opened = context.study, context.opened
    few = one_per_cluster(chosen, opened.clusters, PRECISION_PROTEINS_PER_CLASS, study.seed, task=opened.model.task)
    reference = load_model(context.run.path / "model", device=study.device)
    ours, theirs = (
        score_all(m, few, study.score, constants, track=context.track, seed=study.seed)
        for m in (opened.model, reference)
    )
    agreement = precision_agreement(ours, theirs)
    for method, row in agreement.items():
        context.say(
            f"{study.dtype} against float32, {method}: rank correlation {row['spearman']:.3f}, "
            f"{row['overlap']:.0%} of the best 5 % shared ({len(few)} proteins)"
        )
    return {"dtype": study.dtype, "proteins": len(few), "methods": agreement}


def read_sums(run: Run, index: Any) -> PartialScores:
    """What the scores were made of.

    Raises:
        RunError: the file is missing or damaged.
    """
    sums = PartialScores.load(run.path / SUMS, index)
    if sums is None:
        raise RunError(f"{run.path / SUMS}: is missing or damaged; delete it, then 'plmscope run' writes it again")
    return sums


STAGE = Stage(
    name="score",
    run=run,
    share=share,
    settings=("seed", "device", "dtype", "score", "density.resampled", "data.task"),
    reads=("model", "proteins"),
    writes=tables("neurons", "class_scores", "ablation_means"),
    asked={
        "completeness.parquet": lambda study: any(
            signed_form(method)[0] in path_methods() for method in study.score.methods
        ),
        SUMS: lambda study: study.density.resampled,
    },
)
