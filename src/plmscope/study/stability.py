"""Do other samples and other models choose the same neurons?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import spearmanr

from plmscope.data.clusters import halves
from plmscope.data.proteins import Protein
from plmscope.errors import RunError
from plmscope.evaluation.overlap import overlap
from plmscope.evaluation.selection import select_top
from plmscope.progress import Track, silent
from plmscope.scoring.scores import NeuronScores, from_table
from plmscope.store.schema import SCHEMA
from plmscope.study.opened import OpenRun, class_methods, class_scores, score_all
from plmscope.study.stages import Context, Stage, tables


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


#: ``label`` of the selection over all classes.
OVERALL = ""


def add_other_run(opened: OpenRun, other: OpenRun) -> None:
    """Add the rows ``other_run`` to ``stability.parquet``: the neurons of another run beside those of this one.

    Args:
        opened: A run with interventions.
        other: A run of a model of the same shape, such as one of another seed.

    Raises:
        RunError: the other model has another shape, or there are no interventions yet.
    """
    if other.model.index != opened.model.index:
        raise RunError(f"{other.run.path}: its model has another shape than that of {opened.run.path}")
    rows, fraction = [], opened.study.intervene.fraction
    for method in class_methods(opened):
        rows.append(_compared(OVERALL, "other_run", fraction, opened.ranking(method), other.ranking(method)))
        ours, theirs = class_scores(opened, method), class_scores(other, method)
        rows += [
            _compared(label, "other_run", fraction, one, theirs[label])
            for label, one in ours.items()
            if label in theirs
        ]
    found = opened.run.table("stability")
    found = found[found["compared_with"] != "other_run"]
    opened.run.write_table("stability", pd.concat([found, pd.DataFrame(rows)], ignore_index=True))
    opened.run.update_manifest(interventions=opened.run.manifest()["interventions"] | {"other": str(other.run.path)})


def stability(
    opened: OpenRun, scores: Mapping[str, Mapping[str, NeuronScores]], fraction: float, track: Track = silent
) -> pd.DataFrame:
    """``stability.parquet``: do other proteins and models choose the same neurons?

    ``compared_with`` is ``halves`` (scores from two disjoint halves of the scoring clusters, each class dealt evenly;
    none if ``density.halves`` is false),
    ``label_shuffled`` or ``random_weights`` (the null models of the density). ``label`` is empty for the ranking over
    all classes, the one that the evaluation uses; those of a class keep the sign. ``spearman`` is the rank correlation
    of all scores.

    Args:
        opened: The run.
        scores: Method to class to scores of the run.
        fraction: Share that is selected.
        track: Progress.
    """
    rows = []
    for method, of_class in scores.items():
        if opened.study.density.halves and (both := _halves(opened, method, track)) is not None:
            pairs = {OVERALL: both}
            for label in of_class:
                if all(label in half.per_class for half in both):
                    one, two = (NeuronScores(method, half.index, half.per_class[label]) for half in both)
                    pairs[label] = one, two
            # Where a half has too few proteins for a score, all neurons have the same and none is best.
            rows += [
                _compared(label, "halves", fraction, *pair)
                for label, pair in pairs.items()
                if all(np.ptp(half.values) > 0 for half in pair)
            ]
        whole = opened.ranking(method)
        for null in opened.study.density.nulls:
            if (opened.run.path / "nulls" / null / "neurons.parquet").is_file():
                table = opened.run.own(f"nulls/{null}/neurons")
                theirs = from_table(table, whole.index, opened.study.score.ranked_by(method))
                rows.append(_compared(OVERALL, null, fraction, whole, theirs))
    return pd.DataFrame(rows, columns=SCHEMA["stability"])


def _compared(label: str, compared_with: str, fraction: float, one: NeuronScores, two: NeuronScores) -> dict[str, Any]:
    """A row of ``stability.parquet``."""
    shared = overlap(select_top(one, fraction), select_top(two, fraction))
    rho = float(spearmanr(one.values, two.values).statistic)
    common = {"method": one.method, "fraction": fraction, "label": label, "compared_with": compared_with}
    return common | vars(shared) | {"spearman": rho}


def _halves(opened: OpenRun, method: str, track: Track) -> tuple[NeuronScores, NeuronScores] | None:
    """Rankings from two disjoint halves of the scoring clusters, with class scores; ``None`` for one cluster."""
    model, study = opened.model, opened.study
    score = study.score.model_copy(update={"methods": (method,)})
    means = np.asarray(model.ablation_means) if study.score.baseline == "mean" else None
    one, two = halves(opened.proteins("scoring"), opened.clusters)
    if not two:
        return None

    def ranking(half: list[Protein]) -> NeuronScores:
        scores = score_all(model, half, score, means, track=track)  # the method, and what it is ranked by
        return replace(scores[0], values=scores[-1].values)

    return ranking(one), ranking(two)
