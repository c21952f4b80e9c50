"""Compare every neuron with every concept; motifs and cards of the best."""

from __future__ import annotations

from typing import Any

from plmscope.characterizing import TABLES, characterize_run, read_inputs
from plmscope.store.resume import Parts
from plmscope.study.stages import Context, Stage, tables


def run(context: Context) -> dict[str, Any]:
    """Discover on training clusters, confirm on others."""
    parts = Parts(context.parts, context.fingerprint(context.stage))
    found = characterize_run(context.opened, context.inputs.data, parts, context.track, context.say)
    inputs = context.inputs.known | {"features": context.inputs.features_digest}
    return {"characterize": {"enabled": True, **found}, "inputs": inputs}


STAGE = Stage(
    name="characterize",
    run=run,
    settings=(
        "seed", "device", "dtype", "data", "score.ranking", "score.target", "characterize", "card_methods",
        "report.knowledge_fraction",
    ),
    reads=("model", "proteins", "neurons", "ablation_means"),
    writes=tables(*TABLES),
    digests=("data", "features"),
    switch="characterize.enabled",
    off={"characterize": {"enabled": False}},
    check=lambda context: read_inputs(context.study, context.inputs.data.proteins),
)  # fmt: skip
