"""Several run folders side by side: what they agree on, and what an estimate over them may say.

One fine-tuned model on one split is a single observation. Here every *run* is one observation. Each number in the
tables of the runs then has a mean over runs, a spread, and a t interval that says how many runs it rests on. Only
tables are read, never a model.

``members`` opens runs, refuses what cannot stand side by side and finds which settings differ; runs that differ in
more than the seed are told apart as *groups* and are never averaged. ``estimates`` has the interval, ``alike`` the
neurons that two runs share, ``beyond`` what chosen neurons know and how knowledge is laid out, ``tables`` and ``found``
every table, ``answers``, ``sections``, ``more_sections``, ``figures`` and ``cells`` the page, ``text`` the same as
Markdown, ``comparison`` the object that :func:`plmscope.compare_runs` returns.
"""

from __future__ import annotations

from typing import Any

from plmscope.lazy import find

_HOME = {
    "Comparison": "comparison",
    "compare_runs": "comparison",
}

__all__ = list(_HOME)


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used."""
    return find(__name__, _HOME, name)


def __dir__() -> list[str]:
    """The public names."""
    return __all__
