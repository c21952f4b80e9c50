"""A study: its stages in order, in a run folder.

::

    finetune -> score -> select -> evaluate -> nulls -> null_kinds -> density -> null_fits -> stability -> characterize
             -> describe -> probe -> intervene -> layout -> faithfulness -> report

    settings.py, study_file.py, demo.py    what a study says, as a file, and that of the demo
    rules.py                               what settings exclude each other
    order.py, stages.py, execute.py        the stages, what one is, and running what is not done
    sharding.py                            a share of a stage's tasks, beside others
    inputs.py, opened.py                   what a study reads from outside; a run folder as Python objects
    finetuning.py, scoring.py, selecting.py, evaluating.py, nulls.py, null_kinds.py, counting.py, null_fits.py,
    stability.py, characterizing.py, describing.py, probing.py, intervening.py, laying_out.py, comparing_scorers.py,
    reporting.py                           one stage in each file
    laying.py, laying_recall.py, laying_shared.py, laying_modules.py    what the parts of the layout share; a part each
    edited.py, directions.py               a model with neurons held for good; where classes lie at every site

A stage is one object (:class:`~plmscope.study.stages.Stage`). It says which settings it depends on and which tables it
reads, so that one whose inputs did not change is not run again. A study that is killed continues where it was.
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

__all__ = list(_HOME)


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used."""
    return find(__name__, _HOME, name)


def __dir__() -> list[str]:
    """The public names."""
    return __all__
