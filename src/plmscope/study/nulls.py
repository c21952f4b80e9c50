"""Null models: the same pipeline on shuffled labels, and from random weights.

Each has a folder of its own, ``nulls/NAME``: its model, its rows of ``training``, its scores, and those of each class
by the labels that it was trained on. A model that is there already is not trained again, and neither is one scored
again whose scores are those of the same settings. Of the further fits (stage ``null_fits``) only the scores of all
classes together are kept, which are counted.

By several workers every fit is a task: its training, or all of it where of many fits only scores are kept. What the
workers of a Ray cluster make comes back as files.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from plmscope.data.clusters import one_per_cluster
from plmscope.data.proteins import Protein
from plmscope.progress import silent
from plmscope.scoring.scores import class_table, score_table
from plmscope.store.files import write_atomic
from plmscope.store.folder import Run
from plmscope.store.resume import Parts, make_folder, make_once
from plmscope.study.finetuning import is_trained, put_in_place, trained
from plmscope.study.inputs import Inputs
from plmscope.study.scoring import ablation_means, score_parts
from plmscope.study.settings import NULLS, Study
from plmscope.study.sharding import held
from plmscope.study.stages import Context, Stage
from plmscope.tasks.crew import ALONE, Crew
from plmscope.tasks.sent import Sent, write_files
from plmscope.tasks.shard import Shard
from plmscope.tasks.task import Task

#: Between the seeds of two fits of a null model, so that they are no seeds that a user is likely to run.
FITS_APART = 1_000_003
#: Beside the scores of a fit: what they were made from.
MARK = "fingerprint"


def run(context: Context) -> None:
    """Train and score every null model of the study."""
    folders = {str(null): folder_of(context, str(null), 0) for null in context.study.density.nulls}
    todo = {(null, 0): folder for null, folder in folders.items()}
    train_by_crew(
        context, {one: f for one, f in todo.items() if not is_trained(context, f / "model", _name(one[0], 0))}
    )
    for null, folder in folders.items():
        fit_scores(context, null, 0, folder, replace(context.crew, model=folder / "model"))


def share(context: Context, shard: Shard, out: Path | None) -> bool:
    """Train and score one share of all fits of the null models, those of the stage ``null_fits`` among them."""
    fits = fits_of(context.study)
    with held(context.run, context.run.path / "nulls", shard.name):
        for null, fit in shard.of(fits):
            if not _there(context, null, fit):
                context.say(f"density: {_name(null, fit)}")
                fit_scores(context, null, fit, folder_of(context, null, fit))
        return all(_there(context, *one) for one in fits)


def fits_of(study: Study) -> list[tuple[str, int]]:
    """Every fit of the null models of a study: which null model, and its number; the first ones come first."""
    return [(str(null), fit) for fit in range(study.density.null_models) for null in study.density.nulls]


def folder_of(context: Context, null: str, fit: int) -> Path:
    """Where a fit is kept."""
    return context.run.path.joinpath(*(("null_fits", f"{null}-{fit}") if fit else ("nulls", null)))


def _there(context: Context, null: str, fit: int) -> bool:
    """Whether a fit is scored."""
    folder = folder_of(context, null, fit)
    return has_scores(context, fit, folder) and (fit > 0 or is_trained(context, folder / "model", _name(null, fit)))


def train_by_crew(context: Context, folders: Mapping[tuple[str, int], Path], scored: bool = False) -> None:
    """Let workers train null models that are not trained yet, one task a fit; nothing where there are no workers.

    Args:
        context: Of the stage.
        folders: Null model and number of the fit to where it is kept, in the run folder.
        scored: Whether they score them too, and keep nothing of the model.
    """
    crew, path = context.crew, context.run.path
    if crew.alone or len(folders) < 2:
        return
    checkpoint = Path(context.study.model.checkpoint).expanduser()
    travels = crew.travels and checkpoint.is_dir()  # a hub id is the same everywhere
    shared = {
        "run": crew.sent(path, "*.json", "*.toml", "proteins.parquet", "model/*"),
        "base": crew.sent(checkpoint, "*", "model/*") if travels else None,
        "study": context.study.model_copy(update={"device": crew.device}),
        "marks": {stage: context.fingerprint(stage) for stage in ("finetune", "score", "nulls")},
    }
    tasks, of = [], {}
    for (null, fit), folder in folders.items():
        make_folder(folder)
        where = {"null": null, "fit": fit, "folder": str(folder.relative_to(path)), "scored": scored}
        tasks.append(Task(_name(null, fit), f"{__name__}:fit_by_worker", where))
        of[_name(null, fit)] = folder
    for name, files in context.track(crew.results(tasks, shared), "null models", len(tasks)):
        model = {file: content for file, content in files.items() if file.startswith("model/")}
        if model:
            temporary = of[name] / "model.tmp"
            shutil.rmtree(temporary, ignore_errors=True)
            write_files(of[name], {f"model.tmp/{file.removeprefix('model/')}": one for file, one in model.items()})
            put_in_place(temporary, of[name] / "model")
        for file in sorted(files.keys() - model.keys(), key=lambda file: file == MARK):  # it says that all are there
            write_atomic(of[name] / file, files[file])


def fit_by_worker(
    run: Sent, base: Sent | None, study: Study, marks: Mapping[str, str], null: str, fit: int, folder: str, scored: bool
) -> dict[str, bytes]:
    """The task of one fit, in the run folder; the files that it made, where that was sent to it."""
    with contextlib.ExitStack() as held:
        path = held.enter_context(run.there())
        if base is not None:
            own = study.model.model_copy(update={"checkpoint": str(held.enter_context(base.there()))})
            study = study.model_copy(update={"model": own})
        inputs = Inputs(study, Run.open(path), silent, lambda line: None)
        context = Context("nulls", study, inputs.run, inputs, silent, lambda line: None, marks.__getitem__)
        where = path / folder
        make_folder(where)
        if scored:
            fit_scores(context, null, fit, where)
        else:
            _trained(context, null, fit, where, *labelled(context, null, fit))
        made = [file for file in where.rglob("*") if file.is_file()] if run.files else []
        return {str(file.relative_to(where)): file.read_bytes() for file in made}


def fit_scores(context: Context, null: str, fit: int, folder: Path, crew: Crew = ALONE) -> pd.DataFrame:
    """The scores of one fit of a null model: trained and scored in its folder, unless both are there.

    Args:
        context: Of the stage.
        null: Which null model.
        fit: 0 is the run's own; every other number is another start, shuffling and order of training.
        folder: Where it is kept.
        crew: Scores it, and has its model.
    """
    make_folder(folder)
    table, stamp = folder / "neurons.parquet", _stamp(context, fit)
    if not (fit and has_scores(context, fit, folder)):
        train, validation = labelled(context, null, fit)
        model = _trained(context, null, fit, folder, train, validation)
        _score(context, model, train, folder, stamp, crew, by_class=not fit)
    if fit:  # only its scores are kept
        shutil.rmtree(folder / "model", ignore_errors=True)
    return pd.read_parquet(table)


def has_scores(context: Context, fit: int, folder: Path) -> bool:
    """Whether the scores of a fit are there, and of the same settings."""
    table, mark = folder / "neurons.parquet", folder / MARK
    return table.is_file() and mark.is_file() and mark.read_text() == _stamp(context, fit)


def _stamp(context: Context, fit: int) -> str:
    """What the scores of a fit depend on; that of the null models follows from that of the scores."""
    return context.fingerprint("nulls" if fit else "score")


def labelled(context: Context, null: str, fit: int = 0) -> tuple[list[Protein], list[Protein]]:
    """The proteins that a null model is trained and validated on, with the labels that it sees."""
    train, validation = (context.opened.proteins(part) for part in ("train", "validation"))
    if null != "label_shuffled":
        return train, validation
    everyone = [*train, *validation]
    rng = np.random.default_rng([context.study.seed, 4, *([fit] if fit else [])])
    labels = rng.permutation([str(p.label) for p in everyone]).tolist()
    shuffled = [replace(p, label=label) for p, label in zip(everyone, labels, strict=True)]
    return shuffled[: len(train)], shuffled[len(train) :]


def _trained(
    context: Context, null: str, fit: int, folder: Path, train: list[Protein], validation: list[Protein]
) -> Any:
    """One fit of a null model."""
    from plmscope.models.loading import load_model

    opened, study = context.opened, context.study
    seed = study.seed + FITS_APART * fit
    base = load_model(
        study.model.checkpoint, labels=opened.model.labels, task=study.data.task_or_single, device=study.device,
        seed=seed, revision=context.run.manifest()["model"]["revision"] or None,
        random_weights=null == "random_weights", pooling=opened.model.pooling, new_head=True,
    )  # fmt: skip
    model, log = trained(context, base, train, validation, folder / "model", _name(null, fit), study.dtype, seed)
    context.run.write_table("training", log, str(folder.relative_to(context.run.path)))
    return model


def means(context: Context, folder: Path, model: Any, train: list[Protein]) -> np.ndarray:
    """The ablation means of a null model, ``(3, N)``, kept beside it: they belong to its weights alone."""
    path = folder / "ablation_means.parquet"

    def make() -> bytes:
        (first, last, residue), _ = ablation_means(model, train, context.opened.clusters, context.study, context.track)
        return pd.DataFrame({"first": first, "last": last, "residue": residue}).to_parquet()

    make_once(path, folder / "means.fingerprint", context.fingerprint("nulls"), make)
    return pd.read_parquet(path).to_numpy(dtype=np.float64, copy=True).T


def _score(
    context: Context, model: Any, train: list[Protein], folder: Path, stamp: str, crew: Crew, by_class: bool
) -> None:
    """Score one null model, on as many proteins of every class as in the run, by the labels of its own."""
    opened, study = context.opened, context.study
    parts = Parts(folder / "score.parts", context.fingerprint("score"))

    def make() -> bytes:
        chosen = one_per_cluster(
            train, opened.clusters, study.score.proteins_per_class, study.seed, task=study.data.task_or_single
        )
        constants = means(context, folder, model, train) if study.score.baseline == "mean" else None
        partial = score_parts(context, model, chosen, None, constants, Shard(1, 1), parts, crew)
        scores = partial.finish(study.score.columns, chosen)
        if by_class:  # before the file whose mark says that all is there
            own = class_table([one for one in scores if one.method in study.score.methods])
            context.run.write_table("class_scores", own, str(folder.relative_to(context.run.path)))
        return score_table(scores).to_parquet(index=False)

    make_once(folder / "neurons.parquet", folder / MARK, stamp, make)
    parts.remove()


def _name(null: str, fit: int) -> str:
    """Of a fit, in the table ``training``."""
    return f"{null} {fit}" if fit else null


def _asked(null: str, study: Study) -> bool:
    """Whether a study has this null model."""
    return null in study.density.nulls


STAGE = Stage(
    name="nulls",
    run=run,
    share=share,
    settings=("seed", "device", "dtype", "data.task", "finetune", "score", "density.nulls"),
    reads=("model", "proteins", "ablation_means"),
    asked={
        f"nulls/{null}/{name}.parquet": partial(_asked, null)
        for null in NULLS
        for name in ("neurons", "class_scores", "training")
    },
    extra=tuple(f"nulls/{null}/class_scores.parquet" for null in NULLS),
    switches=("density.nulls",),
)
