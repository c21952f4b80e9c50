"""One self-contained HTML file from a run folder: the answer first, then everything it rests on.

The report reads results only, never a model. Every section of :data:`SECTIONS` says which tables it needs and turns
them into plain blocks (:mod:`plmscope.report.blocks`); ``templates/`` turns blocks into HTML. A table that is missing
is named in its section instead of failing the report, or the section is left out. What may be claimed is decided in
:mod:`plmscope.report.answers`.

Everything that comes from data is escaped: text by the template, JSON by Jinja's ``tojson``, plot labels by
:func:`~plmscope.report.blocks.plot_text`. A content security policy forbids the file any request. The plotting library
(``templates/plotly/``) is carried packed; the page unpacks it when it stands, and draws what comes into view.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import replace
from importlib import resources
from pathlib import Path

from plmscope.report.answers import intervention_answer, kept_answer, knowledge_answer, null_rows, quality_answer
from plmscope.report.blocks import Answer, Cards, FigureGroup, Section, Table, json_ready
from plmscope.report.concentration import concentration_answer
from plmscope.report.concepts import concepts_section
from plmscope.report.curves import comparison_section, curves_section, primary_figure
from plmscope.report.data import data_section, quality_section
from plmscope.report.density import density_section
from plmscope.report.described import described_section
from plmscope.report.faithfulness import faithfulness_section
from plmscope.report.html import SHARED, environment, molecules, own_text
from plmscope.report.input import Results, SectionMaker
from plmscope.report.kinds import kinds_figure, kinds_table
from plmscope.report.knowledge import intervention_fact, interventions_section, knowledge_section
from plmscope.report.layout import redundancy_section, sufficient_section
from plmscope.report.methods import completeness_section, facts, methods_section
from plmscope.report.modularity import modularity_section
from plmscope.report.neurons import agreement_section, classes_section, neurons_section
from plmscope.report.recall import recall_section
from plmscope.report.salient import salient_section
from plmscope.report.settled import unsettled_words
from plmscope.report.sharing import sharing_section
from plmscope.store.files import write_atomic
from plmscope.store.folder import Run

#: A new section is one function with :func:`~plmscope.report.input.section` above it, and one row here.
SECTIONS: tuple[SectionMaker, ...] = (
    data_section,
    quality_section,
    curves_section,
    comparison_section,
    density_section,
    knowledge_section,
    described_section,
    concepts_section,
    salient_section,
    interventions_section,
    sufficient_section,
    redundancy_section,
    recall_section,
    sharing_section,
    modularity_section,
    neurons_section,
    classes_section,
    agreement_section,
    completeness_section,
    faithfulness_section,
    methods_section,
)


def answers(results: Results) -> tuple[Answer, ...]:
    """The answers that open the report."""
    null = null_rows(results.get("density_null"), results.get("null_fits"))
    loose = unsettled_words(results)
    return (
        quality_answer(results.metrics),
        kept_answer(results.get("comparison"), results.kinds),
        _with(
            concentration_answer(
                results.kinds, results.get("density"), null, results.knowledge_fraction, results.evaluated_words
            ),
            loose,
        ),
        _with(knowledge_answer(results.get("neuron_cards")), loose),
        intervention_answer(results.get("intervention_effects")),
    )


def _with(answer: Answer, more: str) -> Answer:
    """An answer that was given, with one thing more."""
    return answer if answer.verdict == "not run" else replace(answer, more=" ".join(filter(None, [answer.more, more])))


def first_page(results: Results) -> tuple[FigureGroup | Table, ...]:
    """What stands under the answers: the six kinds as curves and a table, or the pooled outcome without them."""
    kinds = kinds_figure(results), kinds_table(results)
    primary = primary_figure(results)
    if kinds[0] and kinds[1]:
        return kinds[0], kinds[1]
    return (primary,) if primary else ()


QUESTION = (
    "Do the neurons that activations and gradients choose carry this fine-tuned protein language model’s knowledge of "
    "the classes better than chance would, is that knowledge concentrated in the keys of self-attention, and what does "
    "each of them know?"
)
NOTE = "One fine-tuned model on one split is a sample of one: a claim about a method needs several seeds and splits."


def render(run: Run) -> str:
    """The report as text; the same run folder gives the same text."""
    results = Results(run)
    return page(
        name=str(results.look("name") or run.path.name),
        version=str((results.look("versions") or {}).get("plmscope", "")),
        kind="study report",
        question=QUESTION,
        note=NOTE,
        answers=answers(results),
        facts=facts(results) + intervention_fact(results),
        first=first_page(results),
        sections=[section(results) for section in SECTIONS if section.there(results)],
    )


def page(
    *,
    name: str,
    version: str,
    kind: str,
    question: str,
    note: str,
    answers: Sequence[Answer],
    facts: Sequence[tuple[str, str]],
    first: Sequence[FigureGroup | Table],
    sections: Sequence[Section],
) -> str:
    """Blocks as one HTML file that opens offline.

    Args:
        name: What it is about, its heading.
        version: Of plmscope.
        kind: What kind of page it is.
        question: What it answers.
        note: What stands under the answers.
        answers: The first three go before ``first``, the others behind.
        facts: Labels and values under the answers.
        first: Figures and tables of the first screen.
        sections: All that follows.
    """
    blocks = [*first, *(block for section in sections for block in section.blocks)]
    groups = [block for block in blocks if isinstance(block, FigureGroup)]
    figures = {
        panel.id: json_ready({"traces": panel.traces, "layout": panel.layout, "patches": panel.patches})
        | {"small": group.small}
        for group in groups
        for panel in group.panels
    }
    cards = [json_ready(block.data) for section in sections for block in section.blocks if isinstance(block, Cards)]
    viewer, viewer_licence = molecules() if cards and cards[0].get("structures") else ("", "")
    plotly = resources.files(SHARED) / "templates" / "plotly"
    return (
        environment()
        .get_template("report.html")
        .render(
            name=name,
            version=version,
            kind=kind,
            question=question,
            note=note,
            answers=answers,
            facts=facts,
            first=first,
            sections=sections,
            figures=figures,
            cards=cards[0] if cards else None,
            css=own_text("report.css"),
            js=own_text("report.js"),
            cards_js=own_text("common.js", "solid.js", "cards.js"),
            viewer=viewer,
            viewer_licence=viewer_licence,
            plotly=base64.b64encode((plotly / "plotly-cartesian.min.js.gz").read_bytes()).decode("ascii"),
            plotly_licence=own_text("plotly/LICENSE"),
        )
    )


def write_report(run: Run) -> Path:
    """Write ``report.html`` into the run folder, whole or not at all.

    Tables that are missing are named in the report. The file needs no network and sends nothing.

    Returns:
        The path of the report.

    Raises:
        RunError: the manifest or a table is damaged, or the folder is not writable.
    """
    path = run.path / "report.html"
    write_atomic(path, render(run).encode("utf-8"))
    return path
