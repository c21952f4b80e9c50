"""Every selection of the study, and what methods and classes have in common in what they choose."""

from __future__ import annotations

import pandas as pd

from plmscope.evaluation.density import agreement
from plmscope.evaluation.overlap import class_overlap
from plmscope.evaluation.selection import MODULE, SCOPES, select_top
from plmscope.models.architectures import MODULES
from plmscope.report.closing import placed_lines
from plmscope.store.schema import SCHEMA
from plmscope.study.opened import class_methods, class_scores
from plmscope.study.settings import Study
from plmscope.study.stages import Context, Stage, tables


def run(context: Context) -> None:
    """Write the selections, their agreement between methods, and their overlap between classes."""
    study, run, opened = context.study, context.run, context.opened
    rankings = [opened.ranking(method) for method in study.score.methods]
    rows = [
        select_top(scores, fraction, scope, module)
        .table()
        .assign(method=scores.method, scope=scope, fraction=fraction, draw=-1)
        for scores in rankings
        for scope, module, fraction in wanted(study)
    ]
    run.write_table("selections", pd.concat(rows, ignore_index=True))
    index = rankings[0].index
    widths = {
        module: sum(width for site, width in zip(index.sites, index.widths, strict=True) if site.module == module)
        for module in MODULES
    }
    for line in placed_lines(run.table("selections"), widths, study.report.knowledge_fraction):
        context.say(f"select: {line}")
    run.write_table("agreement", agreement(rankings, study.density.fractions))
    fraction = study.intervene.fraction
    pairs = [
        class_overlap({label: select_top(one, fraction) for label, one in class_scores(opened, method).items()}).assign(
            method=method, fraction=fraction
        )
        for method in (class_methods(opened) if len(run.table("class_scores")) else ())
    ]
    run.write_table(
        "class_overlap", pd.concat(pairs, ignore_index=True) if pairs else pd.DataFrame(columns=SCHEMA["class_overlap"])
    )


def wanted(study: Study) -> list[tuple[str, str, float]]:
    """Scope, module kind and share of every selection that a table of the study names, the report's own too."""
    fractions = sorted({*study.evaluate.fractions, *study.density.fractions, study.report.knowledge_fraction})
    wanted = [(scope, "", fraction) for fraction in fractions for scope in SCOPES]
    if MODULE in study.evaluate.scopes:
        wanted += [(MODULE, module, fraction) for module in MODULES for fraction in study.evaluate.module_fractions]
    return wanted


STAGE = Stage(
    name="select",
    run=run,
    settings=(
        "device", "dtype", "score.methods", "score.ranking", "evaluate.fractions", "evaluate.scopes",
        "evaluate.module_fractions", "density.fractions", "report.knowledge_fraction", "intervene.methods",
        "intervene.fraction",
    ),
    reads=("model", "neurons", "class_scores", "ablation_means"),
    writes=tables("selections", "agreement", "class_overlap"),
)  # fmt: skip
