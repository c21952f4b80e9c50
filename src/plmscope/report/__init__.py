"""The report: tables of a run folder as one page that opens offline.

``page.py`` puts sections together, a file a section; a section is plain blocks (``blocks.py``) of numbers as words
(``words.py``), and ``templates/`` turns blocks into HTML. It reads :mod:`plmscope.store` and never a model.
"""

from __future__ import annotations

from typing import Any

from plmscope.lazy import find

_HOME = {
    "write_report": "page",
}

__all__ = [
    "write_report",
]


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used."""
    return find(__name__, _HOME, name)


def __dir__() -> list[str]:
    """The public names."""
    return __all__
