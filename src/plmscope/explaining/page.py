"""Pages that open offline: the sequence as a coloured strip with a track for every neuron; variants as a heat map.

In the style of the report, whose colours it takes. Data go in as JSON, escaped by the template, and are put on the page
as text by its script; a content security policy forbids the file any request.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from plmscope import __version__
from plmscope.data.proteins import AMINO_ACIDS
from plmscope.explaining.explanation import acting, remarks, trust, verdict
from plmscope.report.blocks import address
from plmscope.report.html import environment, molecules, own_text
from plmscope.report.input import Results
from plmscope.store.files import write_atomic
from plmscope.study.opened import OpenRun

OWN = "plmscope.explaining"
#: The scripts of each page, in order.
SCRIPTS = {
    "explained": ("page.js", "structure.js", "protein.js", "explained.js"),
    "variants": ("page.js", "variants.js"),
}
#: Proteins on one page; the tables have all.
MOST_ON_PAGE = 50
#: Proteins on a page of variants, where each has 19 a residue.
MOST_SCANNED = 20


def write_page(path: Path, opened: OpenRun, explained: Sequence[Mapping[str, Any]], total: int, source: str) -> None:
    """Write the page of some explanations, whole or not at all.

    Args:
        path: Where.
        opened: The run.
        explained: As :meth:`~plmscope.explaining.explanation.Explanation.to_json` says, with ``tracks``.
        total: How many proteins there are in all.
        source: The file that they came from.
    """
    report = opened.run.path / "report.html"
    link = os.path.relpath(report, path.parent) if report.is_file() else ""
    write_atomic(path, page_text(opened, explained, total, source, link).encode("utf-8"))


def page_text(
    opened: OpenRun, explained: Sequence[Mapping[str, Any]], total: int, source: str, report: str = ""
) -> str:
    """The page of some explanations; see :func:`write_page`.

    Args:
        opened: The run.
        explained: What is on it.
        total: How many proteins there are in all.
        source: Where they came from.
        report: Address of the run's report, as the page links to it; empty: no links.
    """
    data = {
        "proteins": [with_trust(one) for one in explained],
        **page_facts(Results(opened.run), opened),
        "report": report,
    }
    return _filled(opened, "explained", source, total, len(explained), data)


def with_trust(one: Mapping[str, Any]) -> dict[str, Any]:
    """An explanation with what is said of it in words: how far to trust it, remarks, a verdict, where neurons act.

    ``trust`` and ``remarks`` are empty where the nearest training protein was not looked up.
    """
    known = bool(one["distance"])
    return {
        **one,
        "trust": trust({**one, "accuracy": _number(one["accuracy"])}) if known else "",
        "remarks": remarks(one) if known else [],
        "verdict": verdict(one) if one["null_copies"] else "",
        "neurons": [{**neuron, "acting": acting(neuron)} for neuron in one["neurons"]],
    }


def page_facts(results: Results, opened: OpenRun) -> dict[str, Any]:
    """What every page of proteins knows of a run: class names, concepts that are letters, neurons with cards."""
    told = _kinds(results)
    return {
        "classes": {label: results.class_name(label) for label in opened.model.labels},
        "letters": [name for name, kind in told.items() if kind in ("amino acid", "group")],
        "cards": _cards(results),
    }


def write_variants_page(
    path: Path, opened: OpenRun, scanned: Sequence[Mapping[str, Any]], total: int, source: str
) -> None:
    """Write the page of some scans, whole or not at all.

    Args:
        path: Where.
        opened: The run.
        scanned: ``id``, ``sequence``, ``label``, ``log_odds``; ``rows``, the columns of the table of variants but for
            ``id`` and the log-odds and numbers that follow from others; ``agreement``, rows beside measured scores.
        total: How many proteins there are in all.
        source: The file that they came from.
    """
    results = Results(opened.run)
    data = {
        "proteins": list(scanned), "classes": {label: results.class_name(label) for label in opened.model.labels},
        "letters": AMINO_ACIDS,
    }  # fmt: skip
    write_atomic(path, _filled(opened, "variants", source, total, len(scanned), data).encode("utf-8"))


def _filled(opened: OpenRun, name: str, source: str, total: int, shown: int, data: Any) -> str:
    """The template of a name with its data, styles and scripts; the viewer of structures where there is one to view."""
    viewer = licence = ""
    if any("view" in one for one in data["proteins"]):
        viewer, licence = molecules()
    return environment(OWN).get_template(f"{name}.html").render(
        name=opened.study.name, version=__version__, source=Path(source).name, total=total, shown=shown, data=data,
        viewer=viewer, licence=licence,
        css=own_text("report.css") + own_text("explained.css", package=OWN),
        js=own_text("common.js", "solid.js") + own_text(*SCRIPTS[name], package=OWN),
    )  # fmt: skip


def _number(value: Any) -> float:
    """JSON's null is no number."""
    return float("nan") if value is None else float(value)


def _kinds(results: Results) -> dict[str, str]:
    """What kind each concept of the run is."""
    concepts = results.get("concepts")
    return {} if concepts is None else dict(zip(concepts["concept"], concepts["kind"], strict=True))


def _cards(results: Results) -> list[str]:
    """Addresses of the cards in the report."""
    cards = results.get("neuron_cards")
    if cards is None:
        return []
    rows = cards[["layer", "module", "neuron"]].drop_duplicates().itertuples(index=False, name=None)
    return [address("neuron", *row) for row in rows]
