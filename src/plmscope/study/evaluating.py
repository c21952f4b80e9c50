"""Keep and ablate the best neurons on test proteins, and compare with chance."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd

from plmscope.data.labels import packed_labels
from plmscope.evaluation.selection import MODULE
from plmscope.report.closing import first_lines
from plmscope.scoring.table import ACTIVITY
from plmscope.store.resume import collect
from plmscope.study.opened import judges
from plmscope.study.stages import Context, Stage, tables


def run(context: Context) -> dict[str, Any]:
    """Keep and ablate; save predictions as they come; compare with chance."""
    from plmscope.evaluation.curves import Curves, Grid, Within, compare, curve_table, evaluate_points
    from plmscope.evaluation.kinds import module_table
    from plmscope.evaluation.predict import Predictions

    study, run, opened = context.study, context.run, context.opened
    e, model, test = study.evaluate, opened.model, judges(opened)
    scores = {method: opened.ranking(method) for method in study.judged}
    activity = opened.scores(ACTIVITY).values if ACTIVITY in study.score.methods else None
    grid = Grid(scores, tuple(e.fractions), study.seed, activity, tuple(e.module_fractions))
    within = Within(e.module_modes, e.module_ablations, e.module_controls, e.module_draws)
    points = grid.points(e.modes, e.ablations, e.scopes, e.controls, e.draws, e.draws_elsewhere, within)
    constants = {"zero": np.zeros((3, len(model.index))), "mean": np.asarray(model.ablation_means)}
    like = {
        "predicted": np.zeros(len(test), dtype=model.answer_dtype),  # multi-label: one axis more
        "log_prob": np.zeros(len(test), dtype=np.float32),
    }

    own = [point for point in points if point.draw < 0]  # they come first
    true = model.targets(test)

    def steps(start: int) -> Iterator[dict[str, np.ndarray]]:
        todo = points[start:]
        first: list[Predictions] = []
        stream = evaluate_points(model, test, grid, todo, constants, e.token_budget)
        for found in context.track(stream, "keep and ablate", len(todo)):
            yield {"predicted": found.predicted, "log_prob": found.log_prob_true}
            if start == 0 and len(first) < len(own):
                first.append(found)
                if len(first) == len(own) < len(points):
                    for line in first_lines(curve_table(own, first, true, len(model.labels), model.index)):
                        context.say(f"evaluate: {line}")

    def say(line: str) -> None:
        context.say(f"evaluate: {line} selections")

    parts = collect(context.parts, context.stamp, like, len(points), steps, say)
    predicted, log_prob = parts["predicted"], parts["log_prob"]
    found_all = [Predictions(a, b) for a, b in zip(predicted, log_prob, strict=True)]
    run.write_table("curves", curve_table(points, found_all, true, len(model.labels), model.index))
    curves = Curves(
        points, found_all, true, [opened.clusters[p.id] for p in test], len(model.labels), study.seed,
        {method: study.score.ranked_by(method) for method in scores},
    )  # fmt: skip
    places = np.tile(np.arange(len(test), dtype=np.int32), len(points))
    ids = pd.Categorical.from_codes(places, dtype=pd.CategoricalDtype([p.id for p in test]))
    numbers = np.repeat(np.arange(len(points)), len(test))
    answers = predicted.reshape(-1, *predicted.shape[2:])
    if model.task == "multi":
        answers = packed_labels(answers, model.labels)
    run.write_table(
        "predictions",
        pd.DataFrame({"curve_point": numbers, "id": ids, "predicted": answers, "log_prob_true": log_prob.ravel()}),
    )
    run.write_table("comparison", compare(curves))
    if MODULE in e.scopes:
        run.write_table("modules", module_table(curves, model.index))
    return {"evaluated_proteins": len(test)}


STAGE = Stage(
    name="evaluate",
    run=run,
    settings=("seed", "device", "dtype", "evaluate", "judged", "score.methods", "score.ranking"),
    reads=("model", "proteins", "neurons", "ablation_means"),
    writes=tables("curves", "predictions", "comparison"),
    asked={"modules.parquet": lambda study: MODULE in study.evaluate.scopes},
)
