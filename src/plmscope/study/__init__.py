"""A study: its stages in order, in a run folder.

::

    finetune -> score -> select -> evaluate -> nulls -> density -> stability -> characterize -> intervene -> report

Every stage is one object in one file (:class:`~plmscope.study.stages.Stage`) and one row in
:mod:`plmscope.study.order`. It says which settings it depends on and which tables it reads, so that one whose inputs
did not change is not run again. :class:`Stages` runs them. A study that is killed continues where it was: fine-tuning
from its last epoch, longer stages from their last saved part.
"""

from __future__ import annotations

from typing import Any

from plmscope.lazy import find

_HOME = {
    "Context": "stages",
    "OpenRun": "opened",
    "ROWS": "order",
    "Row": "order",
    "Stage": "stages",
    "Stages": "execute",
    "Study": "settings",
    "names": "order",
    "open_run": "opened",
    "read_study": "study_file",
    "write_study": "study_file",
}

__all__ = [
    "Context",
    "OpenRun",
    "ROWS",
    "Row",
    "Stage",
    "Stages",
    "Study",
    "names",
    "open_run",
    "read_study",
    "write_study",
]


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used."""
    return find(__name__, _HOME, name)


def __dir__() -> list[str]:
    """The public names."""
    return __all__
