"""Keep and ablate the best neurons on test proteins, and compare with chance."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from plmscope.data.labels import packed_labels
from plmscope.data.proteins import Protein
from plmscope.evaluation.selection import MODULE
from plmscope.report.closing import first_lines
from plmscope.scoring.table import ACTIVITY
from plmscope.study.sharding import held
from plmscope.study.stages import Context, Stage, tables
from plmscope.tasks.shard import Shard

if TYPE_CHECKING:
    from plmscope.evaluation.collected import Tried
    from plmscope.evaluation.curves import CurvePoint
    from plmscope.evaluation.predict import Predictions


@dataclass(frozen=True)
class Asked:
    """What is kept and ablated.

    Attributes:
        points: One task each.
        test: The proteins that judge.
        tried: The tasks.
    """

    points: list[CurvePoint]
    test: list[Protein]
    tried: Tried


def asked(context: Context) -> Asked:
    """The selections of a study, and who hears of the methods' own as soon as they are known."""
    from plmscope.evaluation.collected import selections_tried
    from plmscope.evaluation.curves import Grid, Within, curve_table
    from plmscope.evaluation.resampled import RESAMPLE, donors

    study, opened = context.study, context.opened
    e, model, test = study.evaluate, opened.model, opened.proteins("evaluation")
    scores = {method: opened.ranking(method) for method in study.judged}
    activity = opened.scores(ACTIVITY).values if ACTIVITY in study.score.methods else None
    grid = Grid(scores, tuple(e.fractions), study.seed, activity, tuple(e.module_fractions))
    within = Within(e.module_modes, e.module_ablations, e.module_controls, e.module_draws)
    points = grid.points(e.modes, e.ablations, e.scopes, e.controls, e.draws, e.draws_elsewhere, within)
    constants = {"zero": np.zeros((3, len(model.index))), "mean": np.asarray(model.ablation_means)}
    given = None
    if RESAMPLE in (*e.ablations, *e.module_ablations):
        given = donors(test, opened.proteins("train"), e.donors, study.seed, model.task)
    own = [point for point in points if point.draw < 0]  # they come first
    true = model.targets(test)
    first: list[Predictions] = []

    def hear(number: int, one: Predictions) -> None:
        """Say how the methods do as soon as it is known, long before the last draw."""
        if number == len(first) < len(own):
            first.append(one)
            if len(first) == len(own) < len(points):
                for line in first_lines(curve_table(own, first, true, len(model.labels), model.index)):
                    context.say(f"evaluate: {line}")

    tried = selections_tried(
        model, test, grid, points, constants, token_budget=e.token_budget, folder=context.parts, stamp=context.stamp,
        description="keep and ablate", track=context.track, hear=hear, given=given, crew=context.crew,
    )  # fmt: skip
    return Asked(points, test, tried)


def share(context: Context, shard: Shard, out: Path | None) -> bool:
    """Keep and ablate one share of the selections."""
    with held(context.run, context.parts, f"shard-{shard.name}"):
        return asked(context).tried.share(shard)


def run(context: Context) -> dict[str, Any]:
    """Keep and ablate; save predictions as they come; compare with chance."""
    from plmscope.evaluation.collected import predictions_of
    from plmscope.evaluation.curves import Curves, compare, curve_table
    from plmscope.evaluation.kinds import module_table

    study, run, opened = context.study, context.run, context.opened
    of, e, model = asked(context), study.evaluate, opened.model
    points, test, true = of.points, of.test, model.targets(of.test)
    answers = predictions_of(of.tried.all(lambda line: context.say(f"evaluate: {line}")))
    run.write_table("curves", curve_table(points, answers, true, len(model.labels), model.index))
    curves = Curves(
        points, answers, true, [opened.clusters[p.id] for p in test], len(model.labels), study.seed,
        {method: study.score.ranked_by(method) for method in study.judged},
    )  # fmt: skip
    places = np.tile(np.arange(len(test), dtype=np.int32), len(points))
    ids = pd.Categorical.from_codes(places, dtype=pd.CategoricalDtype([p.id for p in test]))
    numbers = np.repeat(np.arange(len(points)), len(test))
    predicted = np.concatenate([one.predicted for one in answers])
    if model.task == "multi":
        predicted = packed_labels(predicted, model.labels)
    log_prob = np.concatenate([one.log_prob_true for one in answers])
    run.write_table(
        "predictions",
        pd.DataFrame({"curve_point": numbers, "id": ids, "predicted": predicted, "log_prob_true": log_prob}),
    )
    run.write_table("comparison", compare(curves))
    if MODULE in e.scopes:
        run.write_table("modules", module_table(curves, model.index))
    return {"evaluated_proteins": len(test)}


STAGE = Stage(
    name="evaluate",
    run=run,
    share=share,
    settings=("seed", "device", "dtype", "evaluate", "judged", "score.methods", "score.ranking"),
    reads=("model", "proteins", "neurons", "ablation_means"),
    writes=tables("curves", "predictions", "comparison"),
    asked={"modules.parquet": lambda study: MODULE in study.evaluate.scopes},
)
