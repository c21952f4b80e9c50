"""Null models: the same pipeline on shuffled labels, and from random weights.

Each has a folder of its own, ``nulls/NAME``: its model, its rows of ``training`` and its scores. A model that is there
already is not trained again, and neither is one scored again whose scores are those of the same settings.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from plmscope.data.clusters import one_per_cluster
from plmscope.data.proteins import Protein
from plmscope.scoring.scores import score_table
from plmscope.scoring.shards import Shard
from plmscope.store.resume import Parts, make_once
from plmscope.study.finetuning import trained
from plmscope.study.scoring import ablation_means, score_parts
from plmscope.study.settings import NULLS, Study
from plmscope.study.stages import Context, Stage


def run(context: Context) -> None:
    """Train and score every null model of the study."""
    for null in context.study.density.nulls:
        train, validation = labelled(context, null)
        model = _trained(context, null, train, validation)
        _score(context, null, model, train)


def labelled(context: Context, null: str) -> tuple[list[Protein], list[Protein]]:
    """The proteins that a null model is trained and validated on, with the labels that it sees."""
    train, validation = (context.opened.proteins(part) for part in ("train", "validation"))
    if null != "label_shuffled":
        return train, validation
    everyone = [*train, *validation]
    labels = np.random.default_rng([context.study.seed, 4]).permutation([str(p.label) for p in everyone]).tolist()
    shuffled = [replace(p, label=label) for p, label in zip(everyone, labels, strict=True)]
    return shuffled[: len(train)], shuffled[len(train) :]


def _trained(context: Context, null: str, train: list[Protein], validation: list[Protein]) -> Any:
    """One null model."""
    from plmscope.models.loading import load_model

    folder = context.run.path / "nulls" / null
    folder.mkdir(parents=True, exist_ok=True)
    opened, study = context.opened, context.study
    base = load_model(
        study.model.checkpoint, labels=opened.model.labels, task=study.data.task_or_single, device=study.device,
        seed=study.seed, revision=context.run.manifest()["model"]["revision"] or None,
        random_weights=null == "random_weights", pooling=opened.model.pooling, new_head=True,
    )  # fmt: skip
    model, log = trained(context, base, train, validation, folder / "model", null, study.dtype)
    context.run.write_table("training", log, f"nulls/{null}")
    return model


def means(context: Context, null: str, model: Any, train: list[Protein]) -> np.ndarray:
    """The ablation means of a null model, ``(3, N)``, kept beside it: they belong to its weights alone."""
    folder = context.run.path / "nulls" / null
    path = folder / "ablation_means.parquet"

    def make() -> bytes:
        (first, last, residue), _ = ablation_means(model, train, context.opened.clusters, context.study, context.track)
        return pd.DataFrame({"first": first, "last": last, "residue": residue}).to_parquet()

    make_once(path, folder / "means.fingerprint", context.fingerprint("nulls"), make)
    return pd.read_parquet(path).to_numpy(dtype=np.float64, copy=True).T


def _score(context: Context, null: str, model: Any, train: list[Protein]) -> None:
    """Score one null model, on as many proteins of every class as in the run, by the labels of its own."""
    opened, study = context.opened, context.study
    folder, wanted = context.run.path / "nulls" / null, context.fingerprint("score")
    parts = Parts(folder / "score.parts", wanted)

    def make() -> bytes:
        chosen = one_per_cluster(
            train, opened.clusters, study.score.proteins_per_class, study.seed, task=study.data.task_or_single
        )
        constants = means(context, null, model, train) if study.score.baseline == "mean" else None
        partial = score_parts(context, model, chosen, None, constants, Shard(1, 1), parts)
        return score_table(partial.finish(study.score.columns, chosen)).to_parquet(index=False)

    make_once(folder / "neurons.parquet", folder / "fingerprint", wanted, make)
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
