"""A share of a stage's tasks, done beside others on machines that have the run folder in common.

A shard changes nothing in the run folder but what it keeps for the stage, each file under a name of its own. So any
number of shards may run at the same time, but nothing else that writes there; the command of the stage without a
shard puts together what all of them kept, and does what is missing.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from plmscope.errors import RunError
from plmscope.store.files import lock
from plmscope.store.folder import Run


@contextlib.contextmanager
def held(run: Run, folder: Path, name: str) -> Iterator[None]:
    """Hold what a shard needs to itself while it works.

    Args:
        run: The run; a folder that cannot be written, such as a copy for reading, needs no lock.
        folder: Where the shard keeps its results; made if it is missing.
        name: Of its lock there, without the ending.

    Raises:
        BusyError: another process does this shard, or writes to the run folder.
        RunError: the folder cannot be made.
    """
    with contextlib.ExitStack() as all_held:
        if os.access(run.path, os.W_OK):
            all_held.enter_context(run.locked(shared=True))
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RunError(f"{folder}: cannot be made ({error.strerror}); name another with --out") from None
        busy = f"{folder / name}: another process does this shard"
        all_held.enter_context(lock(folder / f"{name}.lock", busy, remove=True))
        yield
