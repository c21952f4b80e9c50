"""What a task is, and what becomes of it."""

from __future__ import annotations

import importlib
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from plmscope.errors import PlmscopeError

#: How often a task is given to a worker before it is given up: one that kills every worker would never end.
TRIES = 3


@dataclass(frozen=True)
class Task:
    """A piece of work that any process can do.

    Attributes:
        id: What tells it from the others.
        function: ``package.module:name`` of a function that takes keywords.
        arguments: Its keywords, of plain values that can be pickled.
    """

    id: str
    function: str
    arguments: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Outcome:
    """What became of a task.

    Attributes:
        id: Of the task.
        result: What its function returned; None where it failed.
        error: One line that says why it failed; empty where it did not.
        seconds: That the last try took.
        tries: How often it was given to a worker: more than once where workers died of it.
    """

    id: str
    result: Any = None
    error: str = ""
    seconds: float = 0.0
    tries: int = 1


def do(task: Task, **extras: Any) -> Outcome:
    """Do a task; an exception becomes one line, but for those that end the process.

    Args:
        task: The task.
        extras: More keywords, which a task cannot carry to another process.

    >>> do(Task("a", "math:factorial")).error
    'TypeError: math.factorial() takes exactly one argument (0 given)'
    """
    started = time.monotonic()
    try:
        module, _, name = task.function.partition(":")
        result = getattr(importlib.import_module(module), name)(**task.arguments, **extras)
    except Exception as error:
        text = " ".join(str(error).split())
        line = text if isinstance(error, PlmscopeError) else f"{type(error).__name__}: {text}".rstrip(": ")
        return Outcome(task.id, error=line, seconds=time.monotonic() - started)
    return Outcome(task.id, result, seconds=time.monotonic() - started)
