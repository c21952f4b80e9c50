"""Null models: the same pipeline on shuffled labels, and from random weights.

Each has a folder of its own, ``nulls/NAME``: its model, its rows of ``training`` and its scores. A model that is there
already is not trained again, and neither is one scored again whose scores are those of the same settings.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from plmscope.data.clusters import one_per_cluster
from plmscope.data.proteins import Protein
from plmscope.scoring.scores import score_table
from plmscope.scoring.shards import Shard
from plmscope.store.resume import Parts, make_folder, make_once
from plmscope.study.finetuning import trained
from plmscope.study.scoring import ablation_means, score_parts
from plmscope.study.settings import NULLS, Study
from plmscope.study.stages import Context, Stage

#: Between the seeds of two fits of a null model, so that they are no seeds that a user is likely to run.
FITS_APART = 1_000_003


def run(context: Context) -> None:
    """Train and score every null model of the study."""
    for null in context.study.density.nulls:
        fit_scores(context, null, 0, context.run.path / "nulls" / null)


def fit_scores(context: Context, null: str, fit: int, folder: Path) -> pd.DataFrame:
    """The scores of one fit of a null model: trained and scored in its folder, unless both are there.

    Args:
        context: Of the stage.
        null: Which null model.
        fit: 0 is the run's own; every other number is another start, shuffling and order of training.
        folder: Where it is kept.
    """
    make_folder(folder)
    table, mark = folder / "neurons.parquet", folder / "fingerprint"
    stamp = context.fingerprint("score") if fit == 0 else context.fingerprint("nulls")  # which follows from the other
    if fit and table.is_file() and mark.is_file() and mark.read_text() == stamp:
        return pd.read_parquet(table)  # of these only scores are kept
    train, validation = labelled(context, null, fit)
    model = _trained(context, null, fit, folder, train, validation)
    _score(context, model, train, folder, stamp)
    return pd.read_parquet(table)


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
    name = f"{null} {fit}" if fit else null
    model, log = trained(context, base, train, validation, folder / "model", name, study.dtype, seed)
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


def _score(context: Context, model: Any, train: list[Protein], folder: Path, stamp: str) -> None:
    """Score one null model, on as many proteins of every class as in the run, by the labels of its own."""
    opened, study = context.opened, context.study
    parts = Parts(folder / "score.parts", context.fingerprint("score"))

    def make() -> bytes:
        chosen = one_per_cluster(
            train, opened.clusters, study.score.proteins_per_class, study.seed, task=study.data.task_or_single
        )
        constants = means(context, folder, model, train) if study.score.baseline == "mean" else None
        partial = score_parts(context, model, chosen, None, constants, Shard(1, 1), parts)
        return score_table(partial.finish(study.score.columns, chosen)).to_parquet(index=False)

    make_once(folder / "neurons.parquet", folder / "fingerprint", stamp, make)
    parts.remove()


def _asked(null: str, study: Study) -> bool:
    """Whether a study has this null model."""
    return null in study.density.nulls


STAGE = Stage(
    name="nulls",
    run=run,
    settings=("seed", "device", "dtype", "data.task", "finetune", "score", "density.nulls"),
    reads=("model", "proteins", "ablation_means"),
    asked={f"nulls/{null}/{name}.parquet": partial(_asked, null) for null in NULLS for name in ("neurons", "training")},
    switch="density.nulls",
)
