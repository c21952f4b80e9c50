"""Ask how knowledge is laid out in the model: the parts that ``[layout] parts`` names, each with its own tables."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from plmscope.errors import StudyError
from plmscope.study import laying_modules, laying_recall, laying_shared
from plmscope.study.laying import Laying
from plmscope.study.laying_modules import modularity
from plmscope.study.laying_recall import recall
from plmscope.study.laying_shared import column_of, shared
from plmscope.study.settings import Study
from plmscope.study.stages import Context, Stage, tables


def sufficient(laying: Laying) -> str:
    """The smallest sufficient sets."""
    from plmscope.layout.sufficient import Judges, sufficient_sets

    settings, study = laying.settings, laying.context.study
    frame = sufficient_sets(
        laying.measure, Judges(laying.proteins, laying.true, laying.weights, len(laying.model.labels)),
        {method: laying.opened.ranking(method) for method in settings.methods or study.judged},
        target=settings.target, draws=settings.draws, seed=laying.seed,
    )  # fmt: skip
    laying.context.run.write_table("sufficient", frame)
    pooled = frame[(frame["scope"] == "pooled") & (frame["metric"] == "balanced_accuracy") & frame["judged"]]
    shares = ", ".join(f"{row.fraction:.1%} by {row.method}" for row in pooled.itertuples())
    return f"smallest share of all neurons that suffices: {shares or 'nothing to give back'}"


def degenerate(laying: Laying) -> str:
    """Components of every class's neurons, degenerate pairs among them, and what pairs protect from."""
    from plmscope.layout.claims import COLUMNS as CLAIMS
    from plmscope.layout.components import METHODS, by_correlation, wired
    from plmscope.layout.degenerate import COLUMNS, component_table, degenerate_pairs, with_q
    from plmscope.layout.substitutions import COLUMNS as EXCHANGED
    from plmscope.layout.substitutions import robustness
    from plmscope.models.esm import EsmNetwork
    from plmscope.models.hooked import network_of

    model, index, settings = laying.model, laying.model.index, laying.settings
    train, attributed = laying.train, laying.attributed
    groups: dict[tuple[str, str], list[list[int]]] = {}
    pairs, exchanged, claims = [], [], []
    network = network_of(model)
    if not isinstance(network, EsmNetwork):
        laying.context.say("layout: degenerate: no components by topology, this architecture's weights are not at hand")
    for number, (label, best) in enumerate(laying.chosen.items()):
        own = np.array([p.label == label for p in train])
        groups["correlation", label] = [[best[c] for c in g] for g in by_correlation(attributed[own][:, best])]
        groups["topology", label] = wired(index, network, best) if isinstance(network, EsmNetwork) else []
        groups["single", label] = [[one] for one in best]
        proteins, c = laying.few(label), list(model.labels).index(label)
        frames = []
        for method in METHODS:
            frame = degenerate_pairs(
                laying.measure, f"pairs-{method}-{number}", index, proteins, laying.clusters(proteins), c,
                groups[method, label], best, settings.draws, laying.seed,
            )  # fmt: skip
            frames.append(frame.assign(method=method, label=label))
        pairs += [frame for frame in frames if len(frame)]
        every = pd.concat([frame for frame in frames if len(frame)]) if any(map(len, frames)) else pd.DataFrame()
        if len(every):
            top = every.sort_values(["degenerate", "synergy"], ascending=False, kind="stable").iloc[0]
            sets = [groups[str(top["method"]), label][int(top[which])] for which in ("a", "b")]
            frame = robustness(
                laying.measure, f"exchanged-{number}", index, proteins, c, sets, settings.draws, laying.seed
            )
            exchanged.append(frame.assign(label=label))
            claims.append({"label": label} | _claims(laying, label, sorted({*sets[0], *sets[1]})))
    run = laying.context.run
    run.write_table("components", component_table(index, groups))
    table = pd.concat(pairs, ignore_index=True) if pairs else pd.DataFrame(columns=list(COLUMNS))
    run.write_table("degenerate", with_q(table))
    run.write_table(
        "substitutions", pd.concat(exchanged, ignore_index=True) if exchanged else pd.DataFrame(columns=list(EXCHANGED))
    )
    run.write_table("claims", pd.DataFrame([one for one in claims if len(one) > 1], columns=list(CLAIMS)))
    return f"degenerate pairs of components: {int(table['degenerate'].sum())} of {len(table):,}"


def _claims(laying: Laying, label: str, chosen: list[int]) -> dict[str, object]:
    """How well a set's attributions tell proteins of a class from others."""
    from plmscope.evaluation.interventions import nothing
    from plmscope.layout.attributions import per_protein
    from plmscope.layout.claims import claim_row

    proteins = [p for other in laying.model.labels for p in laying.few(other)]
    (odds,) = laying.measure("claims-intact", proteins, [nothing(laying.model.index)])
    attributed = per_protein(
        laying.model, [replace(p, label=label) for p in proteins], laying.begun,
        laying.context.study.evaluate.token_budget,
    )  # fmt: skip
    return claim_row(
        laying.model.index, attributed, odds[:, list(laying.model.labels).index(label)],
        np.array([p.label == label for p in proteins]), laying.clusters(proteins), chosen, laying.settings.draws,
        laying.seed,
    )  # fmt: skip


#: Part to what does it, and the tables that it writes.
PARTS: Mapping[str, tuple[Callable[[Laying], str], tuple[str, ...]]] = {
    "sufficient": (sufficient, ("sufficient",)),
    "degenerate": (degenerate, ("components", "degenerate", "substitutions", "claims")),
    "recall": (recall, laying_recall.TABLES),
    "shared": (shared, laying_shared.TABLES),
    "modularity": (modularity, laying_modules.TABLES),
}


def run(context: Context) -> dict[str, Any]:
    """Run the parts in order; each says what it found and how long it took."""
    laying, spent = Laying(context), {}
    for part in (part for part in PARTS if part in context.study.layout.parts):
        started = time.process_time()
        context.say(f"layout: {PARTS[part][0](laying)}")
        spent[part] = round(time.process_time() - started, 1)
    return {"layout": {"cpu_seconds": spent}}


def check(context: Context) -> None:
    """Refuse a task in which a protein may have several classes, where no part is defined, and an unknown column."""
    if context.study.data.task_or_single == "multi":
        raise StudyError('layout.parts: every protein has to have one class, and task = "multi"; write parts = []')
    if "shared" in context.study.layout.parts:
        column_of(context)


def _asked(part: str, study: Study) -> bool:
    """Whether a study asks for a part."""
    return part in study.layout.parts


STAGE = Stage(
    name="layout",
    run=run,
    settings=(
        "seed", "device", "dtype", "layout", "judged", "score.ranking", "evaluate.max_proteins",
        "data", "intervene.methods", "density.nulls",
    ),
    reads=("model", "proteins", "neurons", "class_scores", "ablation_means", "nulls"),
    asked={file: partial(_asked, part) for part, (_, names) in PARTS.items() for file in tables(*names)},
    digests=("data", "features"),
    switches=("layout.parts",),
    off={"layout": {}},
    check=check,
)  # fmt: skip
