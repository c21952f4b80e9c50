"""The first stage: read, split and fine-tune; measure the model beside two baselines that know little."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from plmscope.data.proteins import Protein
from plmscope.study.stages import Context, Stage, tables


def run(context: Context) -> dict[str, Any]:
    """Train and measure."""
    from plmscope.models.quality import baselines, quality

    study, folder, prepared = context.study, context.run, context.inputs.prepared
    found, split, of, base = prepared.found, prepared.split, prepared.of, prepared.base
    table = pd.DataFrame(
        {
            "id": [p.id for p in found.proteins],
            "sequence": [p.sequence for p in found.proteins],
            "label": [p.label for p in found.proteins],
            "split": [split.assignment[p.id] for p in found.proteins],
            "cluster": [split.clusters[p.id] for p in found.proteins],
            "length": [len(p) for p in found.proteins],
        }
    )
    if found.windowed:
        table = table.assign(parent=[p.parent for p in found.proteins], start=[p.start for p in found.proteins])
    folder.write_table("leakage", prepared.leakage)
    folder.write_table("proteins", table)
    folder.write_table("excluded", pd.DataFrame([(e.id, e.reason) for e in found.excluded], columns=["id", "reason"]))
    model, log = trained(context, base, of["train"], of["validation"], folder.path / "model", "fine-tuned")
    labels = model.labels
    folder.write_table("training", log)
    splits = {}
    members = model.membership(of["train"])
    for part in ("validation", "test"):
        true = model.targets(of[part])
        rows = {"model": model.log_probabilities(of[part])}
        rows |= baselines(of["train"], of[part], members, found.task, study.seed)
        splits[part] = {name: quality(true, log_p, labels) for name, log_p in rows.items()}
    folder.write_json("metrics.json", {"splits": splits, "labels": list(labels), "task": found.task})
    test = {name: splits["test"][name]["balanced_accuracy"] for name in ("model", "composition", "majority")}
    context.say("test balanced accuracy: " + ", ".join(f"{name} {value:.3f}" for name, value in test.items()))
    config, inputs = model.model.config, context.inputs
    context.inputs.drop_prepared()
    return {
        "threads": _threads(),
        "inputs": {"data": found.sha256, "model": inputs.model_digest, "model_files": inputs.model_files},
        "data": {
            "source": found.source, "sha256": found.sha256,
            "n_read": found.n_read, "n_excluded": len(found.excluded), "n_windowed": found.windowed,
            "n_unused_labels": found.unused_labels, "changes": dict(found.changes),
        },
        "split": {
            "method": split.method, "identity": split.identity, "coverage": split.coverage,
            "cluster_column": split.cluster_column, **split.counts,
        },
        "model": {
            "id": study.model.checkpoint, "revision": base.revision, "sha256": base.sha256,
            "files": base.files, "pooling": base.pooling, "read_as_x": base.read_as_x(found.proteins),
            "parameters": sum(p.numel() for p in model.model.parameters()), "architecture": config.model_type,
            "layers": config.num_hidden_layers, "hidden": config.hidden_size, "neurons": len(model.index),
        },
    }  # fmt: skip


def trained(
    context: Context,
    base: Any,
    train: Sequence[Protein],
    validation: Sequence[Protein],
    folder: Path,
    name: str,
    dtype: str = "float32",
    seed: int | None = None,
) -> tuple[Any, pd.DataFrame]:
    """Fine-tune ``base`` into ``folder``; continues from checkpoints beside it, takes a finished one as it is.

    Returns:
        The model, and its rows of ``training.parquet``.
    """
    from plmscope.models.finetune import Training, finetune
    from plmscope.models.loading import load_model

    f, study = context.study.finetune, context.study
    checkpoints, log_file = folder.with_name(f"{folder.name}.checkpoints"), folder / "training_log.json"
    stamp = _stamp(context, name)
    mark = checkpoints / "fingerprint"
    if not is_trained(context, folder, name):
        if checkpoints.is_dir() and not (mark.is_file() and mark.read_text() == stamp):
            shutil.rmtree(checkpoints)
        checkpoints.mkdir(parents=True, exist_ok=True)
        mark.write_text(stamp)
        started = time.time()
        training = Training(
            f.epochs,
            f.learning_rate,
            f.token_budget,
            f.class_weights,
            f.patience,
            study.seed if seed is None else seed,
            f.lora_rank,
            f.frozen_layers,
        )
        if f.epochs:
            log = finetune(base, train, validation, checkpoints, training, context.track)
        else:  # a classifier that is explained as it is
            log = pd.DataFrame(columns=["epoch", "train_loss", "validation_loss", "validation_balanced_accuracy"])
        log = log.assign(model=name, seconds=round(time.time() - started, 1))
        temporary = folder.with_name(f"{folder.name}.tmp")
        shutil.rmtree(temporary, ignore_errors=True)
        base.save(temporary)
        content = {"fingerprint": stamp, "log": log.to_dict("list")}
        (temporary / log_file.name).write_text(json.dumps(content))
        put_in_place(temporary, folder)
        shutil.rmtree(checkpoints)
    log = pd.DataFrame(json.loads(log_file.read_text())["log"])
    # Loaded again even if just trained: a resumed study then has exactly the weights that an undisturbed one has.
    return load_model(folder, device=study.device, dtype=dtype), log


def is_trained(context: Context, folder: Path, name: str) -> bool:
    """Whether :func:`trained` has finished a model of this name and these settings."""
    log_file = folder / "training_log.json"
    return log_file.is_file() and json.loads(log_file.read_text()).get("fingerprint") == _stamp(context, name)


def _stamp(context: Context, name: str) -> str:
    """What a model depends on."""
    return context.fingerprint(STAGE.name) + name


def put_in_place(temporary: Path, folder: Path) -> None:
    """Give a finished model its name, in place of an older one."""
    # What was counted with other weights goes first: their parts may have the stamp of the same settings.
    for parts in folder.parent.glob("*.parts"):
        shutil.rmtree(parts)
    (folder.parent / "neurons.parquet").unlink(missing_ok=True)
    shutil.rmtree(folder, ignore_errors=True)
    temporary.replace(folder)


def _threads() -> int:
    """CPU threads that PyTorch uses."""
    import torch

    return torch.get_num_threads()


STAGE = Stage(
    name="finetune",
    run=run,
    settings=("seed", "device", "data", "split", "model", "finetune"),
    digests=("data", "model"),
    writes=(*tables("proteins", "excluded", "leakage", "training"), "metrics.json", "model/config.json"),
    check=lambda context: context.inputs.prepared,
)
