"""Do other samples and other models choose the same neurons?"""

from __future__ import annotations

from plmscope.study.stages import Context, Stage, tables
from plmscope.trials import class_methods, class_scores, stability


def run(context: Context) -> None:
    """Compare what two halves of the scoring clusters and the null models choose with what the run does."""
    study, opened = context.study, context.opened
    methods = class_methods(opened) if len(context.run.table("class_scores")) else ()
    scores = {method: class_scores(opened, method) for method in methods}
    context.run.write_table("stability", stability(opened, scores, study.intervene.fraction, context.track))


STAGE = Stage(
    name="stability",
    run=run,
    settings=(
        "seed", "device", "dtype", "score", "data.task", "density.nulls", "density.halves", "intervene.methods",
        "intervene.fraction",
    ),
    reads=("model", "proteins", "neurons", "class_scores", "ablation_means", "nulls"),
    writes=tables("stability"),
)  # fmt: skip
