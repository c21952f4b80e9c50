"""Workers that outlive one list of tasks: they start Python and load a model once a command, not once a list.

A worker is a process of this machine (:class:`Process`), or an actor of a Ray cluster (:mod:`plmscope.tasks.on_ray`).
Those that have nothing to do wait here. With the staff all of them end, and a Ray cluster that was started for them.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from multiprocessing.connection import Connection
from types import TracebackType
from typing import Any

from plmscope.tasks.task import Task

#: How long a worker that is told to end may take, in seconds.
PATIENCE = 5.0


class Process:
    """A process that does one task at a time; it leads a group of processes of its own.

    Args:
        number: Counted from 0, as no other that is there.
        cores: For its threads, where the environment does not say.
        gpu: The only GPU that it sees, by the name that CUDA knows it by; empty: all.
    """

    def __init__(self, number: int, cores: int, gpu: str = "") -> None:
        self.number, self.gpu = number, gpu
        mine, theirs = socket.socketpair()
        paths = os.pathsep.join(path or os.getcwd() for path in sys.path)
        environment = {"OMP_NUM_THREADS": str(cores)} | os.environ | {"PYTHONPATH": paths}
        if gpu:
            environment["CUDA_VISIBLE_DEVICES"] = gpu
        with theirs:
            command = [sys.executable, "-m", "plmscope.tasks.worker", str(theirs.fileno()), str(os.getpid())]
            self.process = subprocess.Popen(
                command, pass_fds=[theirs.fileno()], env=environment, stdin=subprocess.DEVNULL, start_new_session=True
            )
        self.pipe = Connection(mine.detach())
        self.task: Task | None = None

    def tell(self, shared: Mapping[str, Any]) -> None:
        """Send what the next tasks have in common; one that has died is noticed when its answer is read."""
        with contextlib.suppress(OSError):
            self.pipe.send(dict(shared))

    def give(self, task: Task) -> None:
        """Send a task."""
        self.task = task
        with contextlib.suppress(OSError):
            self.pipe.send(task)

    def end(self) -> int | None:
        """End the process and what it has started; its exit status."""
        if self.pipe.closed:  # before; its number may be another's by now
            return self.process.returncode
        self.pipe.close()
        if self.task is not None:
            self._signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(PATIENCE)
        self._signal(signal.SIGKILL)  # what the process has started may be there still
        return self.process.wait()

    def _signal(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, number)


class Staff:
    """Workers that wait for tasks; ``with`` it, they end.

    Attributes:
        hired: Processes that are there, or were.
        idle: Those that wait.
        actors: Of a Ray cluster.
        cluster: Whether a Ray cluster was started for them.
        dismiss: Ends the actors and that cluster; given by who hires them.
    """

    def __init__(self) -> None:
        self.hired: list[Process] = []
        self.idle: list[Process] = []
        self.actors: list[Any] = []
        self.cluster = False
        self.dismiss: Callable[[Staff], None] | None = None

    def __enter__(self) -> Staff:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.idle.clear()
        while self.hired:  # those at work too: an error may have left a list in the middle
            self.hired.pop().end()
        if self.dismiss is not None:
            self.dismiss(self)

    def hire(self, others: Sequence[Process], workers: int, shared: Mapping[str, Any], gpu_each: bool) -> Process:
        """A process that waits, or a new one in the place of one that is not there.

        Args:
            others: Those at work.
            workers: How many share the cores of this machine.
            shared: What it has to know.
            gpu_each: Whether each has a GPU of its own: as many as there are workers.
        """
        while self.idle and self.idle[-1].process.poll() is not None:
            self.idle.pop().end()  # died while it waited
        if not self.idle:
            taken = {one.number for one in others}
            number = next(n for n in range(len(taken) + 1) if n not in taken)
            self.hired.append(Process(number, max(1, _cores() // max(1, workers)), gpu(number) if gpu_each else ""))
            self.idle.append(self.hired[-1])
        worker = self.idle.pop()
        worker.tell(shared)
        return worker

    def keep(self, worker: Process) -> None:
        """Let a process wait."""
        self.idle.append(worker)


def gpu(number: int) -> str:
    """What CUDA calls the GPU of a worker, among those that this process may see."""
    visible = [name.strip() for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name.strip()]
    return visible[number % len(visible)] if visible else str(number)


def _cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
