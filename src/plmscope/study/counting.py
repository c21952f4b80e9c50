"""Count where the best neurons are, with intervals over resampled scoring clusters, here and in null models."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pandas as pd

from plmscope.evaluation.density import density, density_table
from plmscope.evaluation.selection import select_top
from plmscope.scoring.methods import finish
from plmscope.scoring.scores import NeuronScores, from_table
from plmscope.scoring.shards import PartialScores
from plmscope.scoring.table import ACTIVITY, row_of
from plmscope.store.schema import SCHEMA
from plmscope.study.scoring import SUMS, rankings, read_sums
from plmscope.study.stages import Context, Stage, tables


def run(context: Context) -> None:
    """Count, and write what the intervals come from."""
    study, run, opened = context.study, context.run, context.opened
    sums = read_sums(run, opened.model.index) if study.density.resampled else None
    resampled = _resampled_places(context, sums)
    run.write_own("score_bootstraps", resampled)
    activity = _activity(context, sums)
    rows, nulls = [], []
    for method in study.score.methods:
        scores = opened.ranking(method)
        for fraction in study.density.fractions:
            part = resampled[(resampled["method"] == method) & (resampled["fraction"] == fraction)]
            counts = part.iloc[:, 3:].to_numpy(dtype=np.int64)
            densities = density(select_top(scores, fraction), counts, activity, study.seed)
            rows.append(densities.assign(method=method, fraction=fraction))
    for null in study.density.nulls:
        frame = run.own(f"nulls/{null}/neurons")
        known = [from_table(frame, opened.model.index, name) for name in study.score.columns]
        nulls.append(density_table(rankings(study, known), study.density.fractions).assign(null=null))
    run.write_table("density", pd.concat(rows, ignore_index=True))
    if nulls:
        run.write_table("density_null", pd.concat(nulls, ignore_index=True)[list(SCHEMA["density_null"])])


def _activity(context: Context, sums: PartialScores | None) -> np.ndarray | None:
    """How much every neuron varies, ``(N,)``, which any score by activation is made with; ``None`` without one."""
    study, opened = context.study, context.opened
    if ACTIVITY in study.score.methods:
        return opened.scores(ACTIVITY).values
    if sums is not None:
        for one in sums.scored.values():
            if set(one.settings) & set(row_of(ACTIVITY).methods):
                return finish(ACTIVITY, one.sums, {}).values
    return None


def _resampled_places(context: Context, sums: PartialScores | None) -> pd.DataFrame:
    """How many of the best neurons every site has under each resample of the scoring clusters."""
    study, opened = context.study, context.opened
    index = opened.model.index
    rows: list[tuple[object, ...]] = []
    if sums is not None:
        scores = sums.finish(study.score.columns, opened.proteins("scoring"))
        rows = [row for one in rankings(study, scores) for row in _places(context, one, study.density.fractions)]
    names = ["method", "fraction", "resample", *(f"{site.layer}:{site.module}" for site in index.sites)]
    return pd.DataFrame(rows, columns=names)


def _places(context: Context, one: NeuronScores, fractions: Sequence[float]) -> list[tuple[object, ...]]:
    """The rows of one method; none where no class has two groups of clusters."""
    from plmscope.stats.chance import bootstrap_weights

    if one.resample is None or one.sums is None:
        return []
    # A group that has several classes is drawn by one of them, and counts as often in all.
    own = {(name, one.sums.labels[c]): name for c, name in one.sums.keys if one.sums.labels[c]}
    rng = np.random.default_rng([context.study.seed, 3])  # the same resamples for every method
    labels = [label for _, label in own]
    drawn = bootstrap_weights(list(own.values()), labels, context.study.density.bootstraps, rng)
    place = {name: column for column, name in enumerate(own.values())}
    weights = drawn[:, [place[name] for _, name in one.sums.keys]]
    rows: list[tuple[object, ...]] = []
    for number, weight in enumerate(context.track(weights, f"resampling {one.method}", len(weights))):
        again = replace(one, values=one.resample(weight.astype(np.float64)))
        for fraction in fractions:
            counts = np.bincount(one.index.site_of[select_top(again, fraction).mask], minlength=len(one.index.sites))
            rows.append((one.method, fraction, number, *counts))
    return rows


STAGE = Stage(
    name="density",
    run=run,
    settings=(
        "seed", "device", "dtype", "density.fractions", "density.bootstraps", "density.nulls", "score.methods",
        "score.ranking", "score.proteins_per_class", "density.resampled", "data.task",
    ),
    reads=("model", "proteins", "neurons", "ablation_means", SUMS, "nulls"),
    writes=tables("density", "score_bootstraps"),
    asked={"density_null.parquet": lambda study: bool(study.density.nulls)},
)  # fmt: skip
