"""The loop over tasks, and the engines it can use.

- ``local``: in this process, one after the other, or by threads where the tasks allow it.
- ``processes``: worker processes on this machine, each with its share of the cores.
- ``ray``: actors of a Ray cluster (:mod:`plmscope.tasks.on_ray`, ``pip install 'plmscope[ray]'``).

Work is pulled: whoever is free gets the next task. The task of a worker that died (killed, or out of memory) is given
to another, :data:`~plmscope.tasks.task.TRIES` times at most. However the loop is left, by its end, by an error or by
Ctrl-C, no worker stays behind.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import replace
from multiprocessing.connection import Connection, wait
from typing import Any, Literal, get_args

from plmscope.errors import StudyError
from plmscope.tasks.task import TRIES, Outcome, Task, do

Engine = Literal["local", "processes", "ray"]
ENGINES: tuple[str, ...] = get_args(Engine)
#: How long a worker that is told to end may take, in seconds.
PATIENCE = 5.0


def run_tasks(
    tasks: Sequence[Task],
    engine: str = "local",
    workers: int = 1,
    address: str = "",
    extras: Mapping[str, Any] | None = None,
    shared: Mapping[str, Any] | None = None,
) -> Iterator[Outcome]:
    """Do all tasks; their outcomes in the order in which they end. A task that fails does not stop the others.

    Args:
        tasks: With ids that differ.
        engine: ``local``, ``processes`` or ``ray``.
        workers: How many tasks are under way at once, at most.
        address: Of the Ray cluster; ``auto`` finds one that runs here, empty starts one.
        extras: More keywords of the tasks' functions where they run in this process.
        shared: Keywords that all tasks have, of values that can be pickled; every worker gets them once.

    Raises:
        StudyError: there is no such engine, or no such number of workers.
    """
    check_engine(engine, workers, address)
    if len({task.id for task in tasks}) < len(tasks):
        raise StudyError("two tasks have one id; every task needs an id of its own")
    workers, more = min(workers, len(tasks)), {**(shared or {}), **(extras or {})}
    if engine == "processes":
        yield from _in_processes(tasks, workers, shared or {})
    elif engine == "ray":
        from plmscope.tasks.on_ray import run_on_ray

        yield from run_on_ray(tasks, workers, address, shared=shared or {})
    elif workers > 1:
        with ThreadPoolExecutor(workers) as pool:
            for future in as_completed([pool.submit(do, task, **more) for task in tasks]):
                yield future.result()
    else:
        for task in tasks:
            yield do(task, **more)


def check_engine(engine: str, workers: int, address: str = "") -> None:
    """Refuse an engine that there is not.

    Raises:
        StudyError: the engine is unknown, has no workers, or an address that it has no use for.
    """
    if engine not in ENGINES:
        raise StudyError(f"--engine {engine!r}: unknown; use {', '.join(ENGINES[:-1])} or {ENGINES[-1]}")
    if workers < 1:
        raise StudyError(f"--workers {workers}: need at least one")
    if address and engine != "ray":
        raise StudyError(f"--address {address!r}: is that of a Ray cluster; add --engine ray")
    if engine == "ray":
        from plmscope.tasks.on_ray import require_ray

        require_ray()


class _Worker:
    """A process that does one task at a time; it leads a group of processes of its own."""

    def __init__(self, cores: int, shared: Mapping[str, Any]) -> None:
        mine, theirs = socket.socketpair()
        paths = os.pathsep.join(path or os.getcwd() for path in sys.path)
        environment = {"OMP_NUM_THREADS": str(cores)} | os.environ | {"PYTHONPATH": paths}
        with theirs:
            command = [sys.executable, "-m", "plmscope.tasks.worker", str(theirs.fileno()), str(os.getpid())]
            self.process = subprocess.Popen(
                command, pass_fds=[theirs.fileno()], env=environment, stdin=subprocess.DEVNULL, start_new_session=True
            )
        self.pipe = Connection(mine.detach())
        self.task: Task | None = None
        with contextlib.suppress(OSError):
            self.pipe.send(dict(shared))

    def give(self, task: Task) -> None:
        """Send a task; a worker that has died is noticed when its answer is read."""
        self.task = task
        with contextlib.suppress(OSError):
            self.pipe.send(task)

    def end(self) -> int | None:
        """End the process and what it has started; its exit status."""
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


def _in_processes(tasks: Sequence[Task], workers: int, shared: Mapping[str, Any]) -> Iterator[Outcome]:
    """The engine ``processes``."""
    waiting = deque(tasks)
    tries: dict[str, int] = {}
    cores = max(1, _cores() // max(1, workers))
    at_work: dict[Any, _Worker] = {}

    def start(worker: _Worker) -> None:
        task = waiting.popleft()
        tries[task.id] = tries.get(task.id, 0) + 1
        worker.give(task)
        at_work[worker.pipe] = worker

    try:
        for _ in range(workers):
            start(_Worker(cores, shared))
        while at_work:
            for pipe in wait(list(at_work)):
                worker = at_work.pop(pipe)
                task = worker.task
                if task is None:
                    continue
                try:
                    outcome = worker.pipe.recv()
                except (EOFError, OSError):
                    status = worker.end()
                    if tries[task.id] < TRIES:
                        waiting.appendleft(task)
                        start(_Worker(cores, shared))
                    else:
                        error = f"its worker died {TRIES} times ({_status(status)}); is there memory enough?"
                        yield Outcome(task.id, error=error, tries=TRIES)
                        if waiting:
                            start(_Worker(cores, shared))
                    continue
                worker.task = None
                if waiting:
                    start(worker)
                else:
                    worker.end()
                yield replace(outcome, tries=tries[task.id])
    finally:
        for worker in at_work.values():
            worker.end()


def _cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _status(code: int | None) -> str:
    """An exit status in words."""
    if code is not None and code < 0:
        return f"killed by {signal.Signals(-code).name}"
    return f"exit status {code}"
