"""What the tasks of ``test_tasks.py`` do; a process of its own finds it by name."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

from plmscope.errors import InputError


def square(x: int, note: str = "") -> int:
    """``x`` squared, with a line in a file for every time it is done."""
    if note:
        with Path(note).open("a") as handle:
            handle.write(f"{x} {os.getpid()}\n")
    return x * x


def fail(text: str) -> None:
    """An error that a user can mend."""
    raise InputError(text)


def die(marker: str, times: int) -> str:
    """Kill its own process the first ``times`` times, as the system does when memory runs out."""
    path = Path(marker)
    tries = len(path.read_text()) if path.is_file() else 0
    if tries < times:
        path.write_text("x" * (tries + 1))
        os.kill(os.getpid(), signal.SIGKILL)
    return "alive"


def wait_long(marker: str) -> None:
    """Start a program, say who is here, and wait."""
    with subprocess.Popen(["sleep", "300"]) as child:
        Path(marker).write_text(f"{os.getpid()} {child.pid}")
        time.sleep(300)


def threads() -> str:
    """How many threads a worker may use."""
    return os.environ.get("OMP_NUM_THREADS", "")


def priority() -> int:
    """That of this process, as the system counts it; lower goes first."""
    return os.nice(0)


def die_once_with(marker: str, **shared: object) -> str:
    """Kill its own process the first time, whatever the other tasks have in common."""
    return die(marker, 1)


def gpu_seen() -> tuple[str, int]:
    """The GPU that this process may see, and who it is."""
    return os.environ.get("CUDA_VISIBLE_DEVICES", ""), os.getpid()


def gpu_and_die(marker: str) -> tuple[str, str]:
    """The GPU of a process that died, and of the one after it."""
    path, own = Path(marker), gpu_seen()[0]
    if not path.is_file():
        path.write_text(own)
        os.kill(os.getpid(), signal.SIGKILL)
    return path.read_text(), own


def node() -> str:
    """Where in a Ray cluster it runs; it takes a while, so that others get some too."""
    import ray

    time.sleep(0.5)
    return str(ray.get_runtime_context().get_node_id())
