"""Suppress and enhance each class's neurons on test proteins."""

from __future__ import annotations

from typing import Any

from plmscope.study.stages import Context, Stage, tables
from plmscope.trials import TABLES, intervene_run


def run(context: Context) -> dict[str, Any]:
    """Measure what becomes of every class and its decisions."""
    found = intervene_run(context.opened, context.parts, context.stamp, context.track, context.say)
    return {"interventions": {"enabled": True, **found}}


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
