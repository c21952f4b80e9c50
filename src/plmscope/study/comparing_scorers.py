"""Compare scorers with single-neuron ablation on the run's own model: which to trust, and at what price."""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from plmscope.data.proteins import Protein
from plmscope.evaluation.faithfulness import TRUTH, area_points, areas, scorers, split_half, table
from plmscope.scoring.methods import every_score
from plmscope.scoring.scores import NeuronScores, resampling_groups
from plmscope.store.resume import Arrays, Parts
from plmscope.study.opened import score_all
from plmscope.study.stages import Context, Stage, tables


def run(context: Context) -> dict[str, Any]:
    """Score a few proteins by every scorer, judge every score on test proteins, and recommend one."""
    from plmscope.evaluation.collected import predictions_of, selections_tried
    from plmscope.evaluation.curves import Grid

    opened, study = context.opened, context.study
    settings, model, test = study.faithfulness, context.opened.model, context.opened.proteins("evaluation")
    kept = Parts(context.parts / "scores", context.stamp)
    scores: dict[str, NeuronScores] = {}
    halves: dict[str, float] = {}
    seconds: dict[str, float] = {}
    proteins = opened.proteins("scoring", settings.proteins_per_class)
    for names in scorers(settings.methods):
        saved = kept.read(names[0])
        if saved is None:
            saved = _scored(context, names, proteins)
            kept.write(names[0], saved)
        for name in names:
            scores[name] = NeuronScores(name, model.index, saved[name])
            halves[name], seconds[name] = float(saved[f"{name} halves"]), float(saved["seconds"])
        context.say(f"faithfulness: {names[0]}: {seconds[names[0]] / len(proteins):.3g} CPU s a protein")
    # A sampled yardstick has no order of all neurons, and an order of equal scores is none.
    judged = {n: s for n, s in scores.items() if np.isfinite(s.values).all() and np.ptp(s.values) > 0}
    shares = tuple(settings.fractions)
    grid = Grid(judged, shares, study.seed)
    points = area_points(grid, settings.draws)
    zero = {"zero": np.zeros((3, len(model.index)))}
    tried = selections_tried(
        model, test, grid, points, zero, token_budget=study.evaluate.token_budget, folder=context.parts / "areas",
        stamp=context.stamp, description="keep and ablate", track=context.track, crew=context.crew,
    )  # fmt: skip
    answers = predictions_of(tried.all(lambda line: context.say(f"faithfulness: {line}")))
    intact, area = areas(points, answers, shares, model.targets(test), len(model.labels))
    frame = table(scores, halves, seconds, area, intact, len(proteins))
    context.run.write_table("faithfulness", frame)
    best = frame[frame["recommended"]]
    if len(best):
        row = best.iloc[0]
        context.say(f"faithfulness: recommended: {row['method']}, r {row['rank_r']:.2f} with {TRUTH}")
    return {"faithfulness": {"scored_proteins": len(proteins), "test_proteins": len(test)}}


def _scored(context: Context, names: tuple[str, ...], proteins: list[Protein]) -> Arrays:
    """The scores of one scorer, their agreement over halves, and the CPU seconds that it took."""
    opened, study = context.opened, context.study
    settings, model = study.faithfulness, opened.model
    groups = resampling_groups([opened.clusters[p.id] for p in proteins], [p.label for p in proteins])
    score = study.score.model_copy(update={"methods": names})
    means = np.asarray(model.ablation_means) if score.baseline == "mean" else None
    started = time.process_time()
    if names[0] == TRUTH:
        found = every_score(
            TRUTH, model, proteins, sample=settings.sample, seed=study.seed, target=score.target, baseline=means,
            token_budget=score.token_budget, groups=groups, track=context.track,
        )  # fmt: skip
    else:
        every = score_all(model, proteins, score, means, groups, context.track, study.seed)
        found = {one.method: one for one in every}
    arrays: Arrays = {"seconds": np.array(time.process_time() - started)}
    for name in names:
        arrays[name] = found[name].values
        arrays[f"{name} halves"] = np.array(split_half(found[name], seed=study.seed))
    return arrays


STAGE = Stage(
    name="faithfulness",
    run=run,
    settings=("seed", "device", "dtype", "faithfulness", "score", "data.task", "evaluate.max_proteins"),
    reads=("model", "proteins", "ablation_means"),
    asked={file: lambda study: study.faithfulness.enabled for file in tables("faithfulness")},
    switches=("faithfulness.enabled",),
    off={"faithfulness": {}},
)
