"""Tasks on a Ray cluster: an actor a worker, tasks pulled, the task of an actor that died given to another.

Ray is optional (``pip install 'plmscope[ray]'``). Results come back through this process. Actors are killed when the
loop is left, and a cluster that was started here is shut down; one that was there before stays.
"""

from __future__ import annotations

import contextlib
import importlib.util
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from plmscope.errors import StudyError
from plmscope.tasks.task import TRIES, Outcome, Task, do


def require_ray() -> None:
    """Refuse to go on without Ray.

    Raises:
        StudyError: it is not installed.
    """
    if importlib.util.find_spec("ray") is None:
        raise StudyError("--engine ray needs Ray; install it with: pip install 'plmscope[ray]', or use processes")


class Doer:
    """What an actor is: it does a task."""

    def do(self, task: Task, shared: Mapping[str, Any]) -> Outcome:
        """One task at a time."""
        return do(task, **shared)


def run_on_ray(
    tasks: Sequence[Task],
    workers: int,
    address: str = "",
    cores: float = 1.0,
    shared: Mapping[str, Any] | None = None,
) -> Iterator[Outcome]:
    """The engine ``ray``.

    Args:
        tasks: With ids that differ.
        workers: Actors.
        address: Of a cluster, ``auto`` for one that runs here; empty: start one on this machine.
        cores: Of each actor, which Ray finds a place for.
        shared: Keywords that all tasks have; they are put into the object store once.

    Raises:
        StudyError: Ray is not installed, or the cluster cannot be reached.
    """
    require_ray()
    import ray

    started = not ray.is_initialized()
    if started:
        how: dict[str, Any] = {"address": address} if address else {"num_cpus": max(workers, 1)}
        try:
            ray.init(include_dashboard=None if address else False, log_to_driver=False, logging_level="ERROR", **how)
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise StudyError(
                f"--address {address!r}: no Ray cluster answers ({' '.join(str(error).split())})"
            ) from None
    common = ray.put(dict(shared or {}))
    actor_of = ray.remote(Doer).options(num_cpus=cores, max_restarts=0)
    waiting, tries = deque(tasks), dict.fromkeys((task.id for task in tasks), 0)
    at_work: dict[Any, tuple[Any, Task]] = {}

    def start(actor: Any) -> None:
        task = waiting.popleft()
        tries[task.id] += 1
        at_work[actor.do.remote(task, common)] = (actor, task)

    try:
        for _ in range(min(workers, len(tasks))):
            start(actor_of.remote())
        while at_work:
            (ready,), _ = ray.wait(list(at_work), num_returns=1)
            actor, task = at_work.pop(ready)
            try:
                outcome = ray.get(ready)
            except ray.exceptions.RayError as error:
                with contextlib.suppress(Exception):
                    ray.kill(actor)
                actor, outcome = None, None
                if tries[task.id] < TRIES:
                    waiting.appendleft(task)
                else:
                    line = " ".join(str(error).split())[:200]
                    outcome = Outcome(task.id, error=f"its worker died {TRIES} times ({line})")
            if waiting:
                start(actor or actor_of.remote())
            elif actor is not None:
                ray.kill(actor)
            if outcome is not None:
                yield replace(outcome, tries=tries[task.id])
    finally:
        for actor, _ in at_work.values():
            with contextlib.suppress(Exception):
                ray.kill(actor)
        if started:
            ray.shutdown()
