"""The loop over tasks, and the engines it can use.

- ``local``: in this process, one after the other, or by threads where the tasks allow it.
- ``processes``: worker processes on this machine, each with its share of the cores.
- ``ray``: actors of a Ray cluster (:mod:`plmscope.tasks.on_ray`, ``pip install 'plmscope[ray]'``).

Work is pulled: whoever is free gets the next task. The task of a worker that died (killed, or out of memory) is given
to another, :data:`~plmscope.tasks.task.TRIES` times at most. However the loop is left, by its end, by an error or by
Ctrl-C, no worker stays behind; those of a :class:`~plmscope.tasks.staff.Staff` that wait for the next list of tasks go
with it.
"""

from __future__ import annotations

import signal
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import replace
from multiprocessing.connection import wait
from typing import Any, Literal, get_args

from plmscope.errors import StudyError
from plmscope.tasks.staff import Process, Staff
from plmscope.tasks.task import TRIES, Outcome, Task, do

Engine = Literal["local", "processes", "ray"]
ENGINES: tuple[str, ...] = get_args(Engine)


def run_tasks(
    tasks: Sequence[Task],
    engine: str = "local",
    workers: int = 1,
    address: str = "",
    extras: Mapping[str, Any] | None = None,
    shared: Mapping[str, Any] | None = None,
    gpu_each: bool = False,
    staff: Staff | None = None,
) -> Iterator[Outcome]:
    """Do all tasks; their outcomes in the order in which they end. A task that fails does not stop the others.

    Args:
        tasks: With ids that differ.
        engine: ``local``, ``processes`` or ``ray``.
        workers: How many tasks are under way at once, at most.
        address: Of the Ray cluster; ``auto`` finds one that runs here, empty starts one.
        extras: More keywords of the tasks' functions where they run in this process.
        shared: Keywords that all tasks have, of values that can be pickled; every worker gets them once.
        gpu_each: Every worker gets a GPU of its own and sees no other.
        staff: Keeps workers for the next list of tasks; left out: they end with this one.

    Raises:
        StudyError: there is no such engine, or no such number of workers.
    """
    check_engine(engine, workers, address)
    if len({task.id for task in tasks}) < len(tasks):
        raise StudyError("two tasks have one id; every task needs an id of its own")
    more = {**(shared or {}), **(extras or {})}
    if engine != "local":
        from plmscope.tasks.on_ray import run_on_ray

        run = run_on_ray if engine == "ray" else _in_processes
        with Staff() as own:
            yield from run(tasks, workers, staff or own, shared=shared or {}, address=address, gpu_each=gpu_each)
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


def _in_processes(
    tasks: Sequence[Task],
    workers: int,
    staff: Staff,
    *,
    shared: Mapping[str, Any],
    address: str = "",
    gpu_each: bool = False,
) -> Iterator[Outcome]:
    """The engine ``processes``, which has no use for an address."""
    waiting = deque(tasks)
    tries: dict[str, int] = {}
    at_work: dict[Any, Process] = {}

    def start(worker: Process) -> None:
        task = waiting.popleft()
        tries[task.id] = tries.get(task.id, 0) + 1
        worker.give(task)
        at_work[worker.pipe] = worker

    def hire() -> Process:
        return staff.hire(list(at_work.values()), workers, shared, gpu_each)

    try:
        for _ in range(min(workers, len(tasks))):
            start(hire())
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
                        start(hire())
                    else:
                        error = f"its worker died {TRIES} times ({_status(status)}); is there memory enough?"
                        yield Outcome(task.id, error=error, tries=TRIES)
                        if waiting:
                            start(hire())
                    continue
                worker.task = None
                if waiting:
                    start(worker)
                else:
                    staff.keep(worker)
                yield replace(outcome, tries=tries[task.id])
    finally:
        for worker in at_work.values():
            worker.end()


def _status(code: int | None) -> str:
    """An exit status in words."""
    if code is not None and code < 0:
        return f"killed by {signal.Signals(-code).name}"
    return f"exit status {code}"
