"""A study: its stages in order, in a run folder.

::

    finetune -> score -> select -> evaluate -> nulls -> density -> stability -> characterize -> intervene -> report

Every stage is one object in one file (:class:`~plmscope.study.stages.Stage`) and one row in
:mod:`plmscope.study.order`. It says which settings it depends on and which tables it reads, so that one whose inputs
did not change is not run again. :class:`Stages` runs them. A study that is killed continues where it was: fine-tuning
from its last epoch, longer stages from their last saved part.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from plmscope.study.order import ROWS, Row, names

if TYPE_CHECKING:
    from plmscope.study.execute import Stages
    from plmscope.study.stages import Context, Stage

__all__ = ["ROWS", "Context", "Row", "Stage", "Stages", "names"]


def __getattr__(name: str) -> Any:
    """Import what is heavy when it is first used."""
    import importlib

    homes = {"Context": "stages", "Stage": "stages", "Stages": "execute"}
    if name not in homes:
        raise AttributeError(f"module 'plmscope.study' has no attribute {name!r}")
    return getattr(importlib.import_module(f"plmscope.study.{homes[name]}"), name)
