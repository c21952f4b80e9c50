"""Files that are whole or not there, and locks.

A file is written under a temporary name and renamed. One process at a time may hold a lock (an advisory one, which the
system drops when the process dies).
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np

from plmscope.errors import BusyError, RunError, one_line, unwritten_advice


def write_atomic(path: Path, data: bytes) -> None:
    """Write beside ``path`` and rename, so that a reader sees the old file or the new one, never a part.

    Raises:
        RunError: the folder is not writable or the disk is full.
    """
    _write_with(path, lambda temporary: temporary.write_bytes(data))


def write_arrays(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write named arrays as one ``.npz`` file, atomically; nothing in it needs pickle."""

    def write(temporary: Path) -> None:
        with temporary.open("wb") as handle:  # a name would get another ending
            np.savez(handle, **dict(arrays))  # type: ignore[arg-type]

    _write_with(path, write)


def replace_file(path: Path, write: Callable[[Path], object]) -> None:
    """Like :func:`write_atomic`, where ``write`` makes the file of the name it is given.

    Raises:
        OSError: the folder is not writable or the disk is full.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        write(temporary)
        temporary.replace(path)
    except OSError:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise


def _write_with(path: Path, write: Callable[[Path], object]) -> None:
    """Like :func:`replace_file`, with an error that says what to do."""
    try:
        replace_file(path, write)
    except OSError as error:
        reason = error.strerror or one_line(error)
        raise RunError(f"{path}: cannot be written ({reason}); {unwritten_advice(error.errno)}") from None


@contextlib.contextmanager
def lock(
    path: Path, busy: str, shared: bool = False, advice: str = "wait until it has ended", remove: bool = False
) -> Iterator[None]:
    """Hold an advisory lock on a file, which the system drops when the process dies.

    Args:
        path: The file; made if it is missing.
        busy: Says that another process holds it.
        shared: Others may hold it too that ask for no more than this.
        advice: What to do where it is held.
        remove: Remove the file afterwards.

    Raises:
        BusyError: another process holds it.
        RunError: the file cannot be written, or its disk has no locks.
    """
    try:
        handle = path.open("w")
    except OSError as error:
        raise RunError(
            f"{path.parent}: cannot be written ({error.strerror}); {unwritten_advice(error.errno)}"
        ) from None
    with handle:
        try:
            fcntl.flock(handle, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BusyError(f"{busy}; {advice}") from None
        except OSError as error:  # some network disks have no locks
            raise RunError(f"{path}: cannot be locked ({error.strerror}); use a folder on another disk") from None
        try:
            yield
        finally:
            if remove:
                path.unlink(missing_ok=True)
