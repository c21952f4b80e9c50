"""The report: tables of a run folder as one page that opens offline.

It reads the tables by :mod:`plmscope.store`, and never a model. A section of the report is a function that says which
tables it needs, and makes plain blocks of them: texts, tables, figures.

::

    page.py, html.py                            sections put together; the templates
    input.py, blocks.py                         the tables; what a page is made of, and numbers as words
    settled.py                                  where attributions are not settled
    answers.py, concentration.py, closing.py    what may be claimed, in words; the table a command ends with
    kinds.py                                    the first page: six curves, one for each module kind, and a table
    data.py, curves.py, density.py, methods.py  sections on proteins and quality, curves, places, methods
    knowledge.py, classes.py, neurons.py        sections on what neurons know
    layout.py, recall.py, sharing.py, modularity.py  sections on how knowledge is laid out
    faithfulness.py                             which scorer to trust
    described.py, concepts.py                   formulas and scored sentences; the neurons of each concept
    structures.py                               structures on cards
    salient.py                                  what probes decide from few neurons
"""

from __future__ import annotations

from typing import Any

from plmscope.lazy import find

_HOME = {
    "write_report": "page",
}

__all__ = list(_HOME)


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used."""
    return find(__name__, _HOME, name)


def __dir__() -> list[str]:
    """The public names."""
    return __all__
