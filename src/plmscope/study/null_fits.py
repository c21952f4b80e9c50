"""Several fits of each null model: how dense module kinds are where nothing, or nothing true, was learned.

One null model is one fit, and a point. With n fits, each with another start or another shuffling and another order of
training, the enrichment of a module kind in the run has a counted p value, one-sided::

    p = (1 + fits in which it is as large) / (1 + n)        19 fits are the fewest that can give 0.05

Shuffled labels ask whether training on *these* labels makes a kind dense; random weights whether the pretrained model
does. The first fit is the null model of the stage ``nulls``; of the others only scores are kept.

Source: permutation p value as in Phipson and Smyth (2010).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from plmscope.evaluation.density import density_table
from plmscope.scoring.scores import from_table
from plmscope.stats.chance import benjamini_hochberg, compare_with_draws
from plmscope.store.schema import SCHEMA
from plmscope.study.nulls import fit_scores, fits_of, folder_of, has_scores, train_by_crew
from plmscope.study.scoring import rankings
from plmscope.study.stages import Context, Stage, tables


def run(context: Context) -> None:
    """Make what fits are missing, count where their best neurons are, and test the run against them."""
    study, run, opened = context.study, context.run, context.opened
    shares, rows = study.density.fractions, []
    folders = {one: folder_of(context, *one) for one in fits_of(study) if one[1]}
    missing = {one: folder for one, folder in folders.items() if not has_scores(context, one[1], folder)}
    train_by_crew(context, missing, scored=True)
    for null in study.density.nulls:
        for fit in range(study.density.null_models):
            frame = run.own(f"nulls/{null}/neurons") if fit == 0 else fit_scores(context, null, fit, folders[null, fit])
            known = [from_table(frame, opened.model.index, name) for name in study.score.columns]
            rows.append(density_table(rankings(study, known), shares).assign(null=null, fit=fit))
    fits = pd.concat(rows, ignore_index=True)[list(SCHEMA["null_fits"])]
    run.write_table("null_fits", fits)
    own = density_table([opened.ranking(method) for method in study.score.methods], shares)
    run.write_table("null_tests", tested(own, fits))


def tested(own: pd.DataFrame, fits: pd.DataFrame) -> pd.DataFrame:
    """``null_tests``: the enrichment of every module kind over all layers, against the fits of each null model.

    Args:
        own: Rows of ``density`` of the run.
        fits: ``null_fits``.

    Returns:
        ``null, method, fraction, module, n_fits, enrichment`` (of the run), ``null_mean, null_min, null_max`` (of the
        fits), ``p_value`` (one-sided, counted) and ``q_value`` (Benjamini-Hochberg over the kinds of a null, method
        and share).
    """
    keys = ["method", "fraction", "module"]
    kinds = own[(own["layer"] == -1) & (own["module"] != "all")].set_index(keys)["enrichment"]
    rows = []
    kinds_of = fits[(fits["layer"] == -1) & (fits["module"] != "all")]
    for key, part in kinds_of.groupby(["null", *keys], sort=False):
        of: Any = key
        theirs, ours = part["enrichment"].to_numpy(), float(kinds.loc[of[1:]])
        p = compare_with_draws(ours, theirs, +1).p_value
        rows.append((*of, len(theirs), ours, theirs.mean(), theirs.min(), theirs.max(), p))
    frame = pd.DataFrame(rows, columns=list(SCHEMA["null_tests"][:-1]))
    own_family = frame.groupby(["null", "method", "fraction"])["p_value"]
    return frame.assign(q_value=own_family.transform(lambda p: benjamini_hochberg(np.asarray(p))))


STAGE = Stage(
    name="null_fits",
    run=run,
    settings=(
        "seed", "device", "dtype", "data.task", "finetune", "score", "density.nulls", "density.null_models",
        "density.fractions",
    ),
    reads=("model", "proteins", "neurons", "ablation_means", "nulls"),
    writes=tables("null_fits", "null_tests"),
    switches=("density.several_fits",),
)  # fmt: skip
