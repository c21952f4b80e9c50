"""Tasks on a Ray cluster: an actor a worker, tasks pulled, the task of an actor that died given to another.

Ray is optional (``pip install 'plmscope[ray]'``). Results come back through this process. Actors end with the
:class:`~plmscope.tasks.staff.Staff` that they belong to, and so does a cluster that was started here; one that was
there before stays.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from plmscope.errors import StudyError
from plmscope.tasks.staff import Staff
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

    def ready(self) -> None:
        """Answers once there is a place for the actor."""

    def do(self, task: Task, shared: Mapping[str, Any]) -> Outcome:
        """One task at a time."""
        return do(task, **shared)


def run_on_ray(
    tasks: Sequence[Task],
    workers: int,
    staff: Staff,
    *,
    shared: Mapping[str, Any],
    address: str = "",
    gpu_each: bool = False,
    cores: float = 1.0,
) -> Iterator[Outcome]:
    """The engine ``ray``.

    Args:
        tasks: With ids that differ.
        workers: Actors.
        staff: Keeps them afterwards.
        shared: Keywords that all tasks have; they are put into the object store once.
        address: Of a cluster, ``auto`` for one that runs here; empty: start one on this machine.
        gpu_each: Whether every actor asks Ray for a GPU of its own.
        cores: Of each actor, which Ray finds a place for.

    Raises:
        StudyError: Ray is not installed, or the cluster cannot be reached.
    """
    require_ray()
    import ray

    staff.dismiss = dismiss
    if not ray.is_initialized():
        how: dict[str, Any] = {"address": address} if address else {"num_cpus": max(workers, 1)}
        # Ray lowers the priority of its workers by 15, so that any other program on the machine would starve them. Here
        # they do what this process would do itself; a cluster that others started keeps its own rule.
        os.environ.setdefault("RAY_worker_niceness", "0")
        try:
            ray.init(include_dashboard=None if address else False, log_to_driver=False, logging_level="ERROR", **how)
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise StudyError(
                f"--address {address!r}: no Ray cluster answers ({' '.join(str(error).split())})"
            ) from None
        staff.cluster = True
    if gpu_each and not ray.cluster_resources().get("GPU"):
        raise StudyError("device = 'cuda:all': no machine of the Ray cluster has a GPU; use --device cpu")
    common = ray.put(dict(shared))
    actor_of = ray.remote(Doer).options(num_cpus=cores, num_gpus=1 if gpu_each else 0, max_restarts=0)
    waiting, tries = deque(tasks), dict.fromkeys((task.id for task in tasks), 0)
    unborn = 0
    at_work: dict[Any, tuple[Any, Task | None]] = {}

    def hire() -> None:
        # Asked first whether it is there: a full cluster has no place for some, and their tasks would wait for ever.
        actor = staff.actors.pop() if staff.actors else actor_of.remote()
        at_work[actor.ready.remote()] = (actor, None)

    try:
        for _ in range(min(workers, len(tasks))):
            hire()
        while waiting or any(task is not None for _, task in at_work.values()):
            (ready,), _ = ray.wait(list(at_work), num_returns=1)
            actor, task = at_work.pop(ready)
            try:
                outcome = ray.get(ready)
            except ray.exceptions.RayError as error:
                line = " ".join(str(error).split())[:200]
                with contextlib.suppress(Exception):
                    ray.kill(actor)
                actor = outcome = None
                unborn += task is None
                if unborn >= TRIES:
                    raise StudyError(f"the Ray cluster starts no worker ({line})") from None
                if task is not None and tries[task.id] < TRIES:
                    waiting.appendleft(task)
                elif task is not None:
                    outcome = Outcome(task.id, error=f"its worker died {TRIES} times ({line})")
            if not waiting and actor is not None:
                staff.actors.append(actor)
            elif waiting and actor is None:
                hire()
            elif waiting:
                one = waiting.popleft()
                tries[one.id] += 1
                at_work[actor.do.remote(one, common)] = (actor, one)
            if outcome is not None and task is not None:
                yield replace(outcome, tries=tries[task.id])
    finally:
        for actor, _ in at_work.values():
            with contextlib.suppress(Exception):
                ray.kill(actor)


def dismiss(staff: Staff) -> None:
    """End the actors that wait, and a cluster that was started for them."""
    import ray

    while staff.actors:
        with contextlib.suppress(Exception):
            ray.kill(staff.actors.pop())
    if staff.cluster:
        staff.cluster = False
        ray.shutdown()
