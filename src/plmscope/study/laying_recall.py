"""The part ``recall`` of the layout: whether wrong decisions are failures to recall, and what annotated sites add."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from plmscope.data.annotations import read_features
from plmscope.data.clusters import one_per_cluster
from plmscope.data.proteins import Protein
from plmscope.study.laying import Laying

TABLES = ("recall", "recall_summary", "recall_context")


def recall(laying: Laying) -> str:
    """KN scores of right and wrong decisions, enhanced neurons, masked sites."""
    from plmscope.evaluation.interventions import nothing
    from plmscope.layout.attributions import mean_activations
    from plmscope.layout.recall import Asked, Known, recall_tables

    model, budget = laying.model, laying.context.study.evaluate.token_budget
    labels = list(model.labels)
    known = Known.of(mean_activations(model, laying.train, budget), model.targets(laying.train), len(labels))
    (odds,) = laying.measure("recall-intact", laying.proteins, [nothing(model.index)])
    asked = Asked(
        laying.proteins, laying.clusters(laying.proteins), laying.true, odds,
        mean_activations(model, laying.proteins, budget),
    )  # fmt: skip
    table, summary = recall_tables(
        laying.measure, model.index, known, asked, laying.chosen, labels, laying.settings.draws, laying.seed
    )
    run = laying.context.run
    run.write_table("recall", table)
    run.write_table("recall_summary", summary)
    run.write_table("recall_context", _context(laying, known, labels))
    whole = summary[summary["label"] == ""].iloc[0]
    return (
        f"KN scores tell right from wrong decisions with AUROC {whole['auroc']:.2f} (matched draws "
        f"{whole['auroc_against']:.2f}); enhancing the true class's neurons mends {whole['gained']:.0f} of "
        f"{whole['n_enhanced']:.0f} errors and pulls {whole['pulled']:.0f} of {whole['n_others']:.0f} other proteins"
    )


def _context(laying: Laying, known: Any, labels: list[str]) -> pd.DataFrame:
    """What masked sites change, in all test clusters: annotated ones are few. No rows without a study's features."""
    from plmscope.layout.context import COLUMNS, FEWEST, context_table, masked_run

    path = laying.context.study.characterize.features
    if not path:
        laying.context.say("layout: recall: no site is masked, the study names no [characterize] features")
        return pd.DataFrame(columns=list(COLUMNS))
    features = read_features(path, laying.context.inputs.data.proteins)
    most = laying.settings.proteins_per_class
    sites: dict[str, list[tuple[Protein, str, np.ndarray]]] = {}
    for kind in sorted(set(features.table["feature_type"].astype(str))):
        having = [p for p in laying.opened.proteins("test") if features.mask(p, kind).any()]
        few = one_per_cluster(having, laying.opened.clusters, most, laying.seed)
        if len(few) >= FEWEST:
            sites[kind] = [(p, laying.opened.clusters[p.id], features.mask(p, kind)) for p in few]
    if not sites:
        laying.context.say(f"layout: recall: no site is masked, none is in {FEWEST} clusters of test proteins")
    sets = [laying.chosen.get(label, []) for label in labels]
    positions = np.unique([n for group in sets for n in group])
    here = known.at(positions)

    def run(proteins: Any, masks: Any) -> tuple[np.ndarray, np.ndarray]:
        budget = laying.context.study.evaluate.token_budget
        odds, activations = masked_run(laying.model, proteins, masks, positions, budget)
        return odds, here.scores(activations, [np.searchsorted(positions, group) for group in sets])

    return context_table(run, sites, labels, laying.seed)
