"""One page that opens offline: the sequence as a coloured strip, a track for every neuron, and its card.

In the style of the report, whose colours it takes. Data go in as JSON, escaped by the template, and are put on the page
as text by its script; a content security policy forbids the file any request.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from plmscope import __version__
from plmscope.explaining.explanation import trust
from plmscope.report.blocks import address
from plmscope.report.html import environment, own_text
from plmscope.report.input import Results
from plmscope.store.files import write_atomic
from plmscope.study.opened import OpenRun

OWN = "plmscope.explaining"
#: Proteins on one page; the tables have all.
MOST_ON_PAGE = 50


def write_page(path: Path, opened: OpenRun, explained: Sequence[Mapping[str, Any]], total: int, source: str) -> None:
    """Write the page of some explanations, whole or not at all.

    Args:
        path: Where.
        opened: The run.
        explained: As :meth:`~plmscope.explaining.explanation.Explanation.to_json` says, with ``tracks``.
        total: How many proteins there are in all.
        source: The file that they came from.
    """
    results = Results(opened.run)
    report = opened.run.path / "report.html"
    link = os.path.relpath(report, path.parent) if report.is_file() else ""
    told = _kinds(results)
    proteins = [
        {**one, "trust": trust({**one, "accuracy": _number(one["accuracy"])}) if one["distance"] else ""}
        for one in explained
    ]
    data = {
        "proteins": proteins,
        "classes": {label: results.class_name(label) for label in opened.model.labels},
        "letters": [name for name, kind in told.items() if kind in ("amino acid", "group")],
        "cards": _cards(results),
        "report": link,
    }
    text = environment(OWN).get_template("explained.html").render(
        name=opened.study.name, version=__version__, source=Path(source).name, total=total, shown=len(proteins),
        data=data,
        css=own_text("report.css") + own_text("explained.css", package=OWN),
        js=own_text("common.js") + own_text("page.js", "explained.js", package=OWN),
    )  # fmt: skip
    write_atomic(path, text.encode("utf-8"))


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
