"""The run folder: every file of a study, whole or not there.

::

    schema.py   every table and its columns
    files.py    writing a file whole or not at all, and locks
    folder.py   the run folder: its tables, its manifest, what is done
    resume.py   what the tasks of long work have given so far, so that a killed command goes on

Tables are plain Parquet that any tool reads; ``docs/run-folder.md`` says what they mean.
"""

from __future__ import annotations

from typing import Any

from plmscope.lazy import find

_HOME = {
    "Run": "folder",
    "SCHEMA": "schema",
    "SCHEMA_VERSION": "schema",
    "lock": "files",
    "write_arrays": "files",
    "write_atomic": "files",
}

__all__ = list(_HOME)


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used."""
    return find(__name__, _HOME, name)


def __dir__() -> list[str]:
    """The public names."""
    return __all__
