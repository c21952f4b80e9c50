"""What module kinds carry in the null models, on the test proteins of the run: scope ``module``, with fewer draws."""

from __future__ import annotations

import shutil
from dataclasses import replace

import pandas as pd

from plmscope.evaluation.selection import MODULE
from plmscope.scoring.scores import from_table
from plmscope.study.nulls import labelled, means
from plmscope.study.scoring import rankings
from plmscope.study.settings import Study
from plmscope.study.stages import Context, Stage


def run(context: Context) -> None:
    """Evaluate every null model by kinds."""
    from plmscope.evaluation.null_kinds import evaluate_null
    from plmscope.models.loading import load_model

    study, run, opened = context.study, context.run, context.opened
    test, evaluated = opened.proteins("evaluation"), []
    for null in study.density.nulls:
        model = load_model(run.path / "nulls" / null / "model", device=study.device, dtype=study.dtype)
        frame = run.own(f"nulls/{null}/neurons")
        known = rankings(study, [from_table(frame, model.index, name) for name in study.score.columns])
        one = evaluate_null(
            null, model, test, [opened.clusters[p.id] for p in test],
            {scores.method: scores for scores in known if scores.method in study.judged},
            means(context, run.path / "nulls" / null, model, labelled(context, null)[0]),
            fractions=study.evaluate.module_fractions, draws=study.density.null_draws, seed=study.seed,
            folder=run.path / "nulls" / null / "kinds.parts", stamp=context.fingerprint("null_kinds")[:16],
            ranked_by={method: study.score.ranked_by(method) for method in study.judged},
            token_budget=study.evaluate.token_budget, track=context.track, say=context.say,
            crew=replace(context.crew, model=run.path / "nulls" / null / "model"),
        )  # fmt: skip
        kinds = ", ".join(name.replace("_", " ") for name in one.carrying) or "none"
        context.say(f"null models: {null}: kinds that carry something: {kinds}")
        evaluated.append(one)
    if evaluated:
        run.write_table("modules_null", pd.concat([one.modules for one in evaluated], ignore_index=True))
        run.write_table("curves_null", pd.concat([one.curves for one in evaluated], ignore_index=True))
    for parts in (run.path / "nulls").glob("*/kinds.parts"):
        shutil.rmtree(parts)


def _asked(study: Study) -> bool:
    """Whether null models are evaluated by kinds."""
    return bool(study.density.nulls) and study.density.null_draws > 0 and MODULE in study.evaluate.scopes


STAGE = Stage(
    name="null_kinds",
    run=run,
    settings=(
        "seed", "device", "dtype", "density.nulls", "density.null_draws",
        "evaluate.module_fractions", "evaluate.max_proteins", "judged", "score.methods", "score.ranking",
        "score.mean_proteins_per_class",
    ),
    reads=("proteins", "nulls"),
    asked={"modules_null.parquet": _asked, "curves_null.parquet": _asked},
    switches=("density.nulls",),
)  # fmt: skip
