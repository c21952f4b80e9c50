"""What every module kind carries in a null model, and how concentrated that is: scope ``module`` of the run, cheaper.

The same test proteins, shares and methods as in the run, keep and mean ablation alone, with fewer draws. First every
kind is held as a whole; of one that carries nothing by either metric no curve is run, since there is nothing to give
back: a model of shuffled labels then costs seven passes.

A null model is one fit, and its concentration one point: it is told beside the run's, and is no test.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from plmscope.data.proteins import Protein
from plmscope.evaluation.collected import predictions_of, selections_tried
from plmscope.evaluation.curves import (
    INTACT,
    CurveCell,
    CurvePoint,
    Curves,
    Grid,
    Within,
    curve_table,
    held_point,
)
from plmscope.evaluation.kinds import MODULE_METRICS, carried_row, module_table
from plmscope.evaluation.predict import Predictions
from plmscope.evaluation.selection import MODULE, of_module
from plmscope.models.architectures import MODULES
from plmscope.models.classifier import Classifier
from plmscope.progress import Track, silent
from plmscope.scoring.scores import NeuronScores
from plmscope.store.schema import SCHEMA
from plmscope.tasks.crew import ALONE, Crew


@dataclass(frozen=True)
class NullKinds:
    """A null model by kinds.

    Attributes:
        modules: Rows of ``modules.parquet``; of a kind that carries nothing, what is known of it without a curve.
        curves: Rows of ``curves_null.parquet``.
        carrying: The kinds whose curves were run.
    """

    modules: pd.DataFrame
    curves: pd.DataFrame
    carrying: tuple[str, ...]


def evaluate_null(
    null: str,
    model: Classifier,
    proteins: Sequence[Protein],
    clusters: Sequence[str],
    scores: Mapping[str, NeuronScores],
    constants: np.ndarray,
    *,
    fractions: Sequence[float],
    draws: int,
    seed: int,
    folder: Path,
    stamp: str,
    ranked_by: Mapping[str, str],
    token_budget: int = 2048,
    track: Track = silent,
    say: Callable[[str], None] = lambda _: None,
    crew: Crew = ALONE,
) -> NullKinds:
    """Keep within every kind of a null model, mean ablation.

    Args:
        null: Its name in the tables.
        model: The null model.
        proteins: Test proteins with their true labels, as in the run.
        clusters: Theirs.
        scores: Method to its ranking in this model.
        constants: ``(3, N)`` means of this model.
        fractions: Shares of a kind, increasing.
        draws: Of ``random_matched``, for every method and kind.
        seed: Of draws and bootstrap.
        folder: Where predictions are saved now and then; the caller removes it.
        stamp: Digest of what they depend on.
        ranked_by: Method to the score that it is ranked by.
        token_budget: Padded tokens a batch.
        track: Progress.
        say: Told where it continues.
        crew: Who does the work.
    """
    grid = Grid(scores, (fractions[0],), seed, module_fractions=tuple(fractions))

    def predictions(name: str, points: Sequence[CurvePoint]) -> list[Predictions]:
        tried = selections_tried(
            model, proteins, grid, points, {"mean": constants}, token_budget=token_budget, folder=folder,
            stamp=f"{null}-{name}-{stamp}", description=f"kinds of the null model {null}", track=track, crew=crew,
        )  # fmt: skip
        return predictions_of(tried.all(lambda line: say(f"density: {null}: {line}")))

    def curves_of(points: Sequence[CurvePoint], found: Sequence[Predictions]) -> Curves:
        return Curves(points, found, true, clusters, len(model.labels), seed, ranked_by)

    true = model.targets(proteins)
    ends = [INTACT, *(held_point("mean", module) for module in MODULES)]
    known = predictions("ends", ends)
    first = curves_of(ends, known)
    cells = {module: CurveCell(MODULE, module, "keep", "mean") for module in MODULES}
    carried = {(m, name): carried_row(first, cell, name) for m, cell in cells.items() for name in MODULE_METRICS}
    carrying = [m for m in MODULES if any(carried[m, name]["judged"] for name in MODULE_METRICS)]
    every = grid.points(("keep",), ("mean",), (MODULE,), (), draws, draws, Within(draws=draws))
    more = [point for point in every if point not in ends and point.module in carrying]
    points, found = [*ends, *more], [*known, *(predictions("curves", more) if more else [])]
    curves = curves_of(points, found)
    table = module_table(curves, model.index, null)
    idle = [
        {
            "model": null, "method": method, "ranked_by": ranked_by.get(method, method), "mode": "keep",
            "ablation": "mean", "metric": name, "module": m, "p_kind": "not_judged", "n_draws": 0,
            "n_neurons": int(of_module(model.index, m).sum()), **carried[m, name],
        }
        for m in MODULES if m not in carrying for method in scores for name in MODULE_METRICS
    ]  # fmt: skip
    columns = list(SCHEMA["modules"])
    tables_there = [part.reindex(columns=columns) for part in (table, pd.DataFrame(idle)) if len(part)]
    rows = pd.concat(tables_there, ignore_index=True)
    plotted = curve_table(points, found, true, len(model.labels), model.index)
    return NullKinds(rows, plotted.assign(null=null)[list(SCHEMA["curves_null"])], tuple(carrying))
