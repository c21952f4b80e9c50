"""Who does the long parts of a stage: this process by itself, several processes, or a Ray cluster."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from plmscope.errors import RunError
from plmscope.tasks.engines import run_tasks
from plmscope.tasks.sent import Sent
from plmscope.tasks.staff import Staff
from plmscope.tasks.task import Task

#: The device of a study that has one worker a GPU of this machine.
ALL_GPUS = "cuda:all"


@dataclass(frozen=True)
class Crew:
    """Who does the work.

    Attributes:
        engine: ``local``: this process by itself; ``processes`` or ``ray``.
        workers: How many.
        address: Of a Ray cluster.
        model: Folder of the saved classifier, which workers load.
        device: Theirs.
        dtype: Theirs.
        gpu_each: Whether every worker has a GPU of its own.
        staff: Workers that stay for the next list of tasks.
    """

    engine: str = "local"
    workers: int = 1
    address: str = ""
    model: Path | None = None
    device: str = "cpu"
    dtype: str = "float32"
    gpu_each: bool = False
    staff: Staff | None = field(default=None, repr=False, compare=False)

    @property
    def alone(self) -> bool:
        """Whether this process does everything."""
        return self.engine == "local" or self.model is None

    @property
    def travels(self) -> bool:
        """Whether workers may be on other machines, so that files have to be sent to them."""
        return self.engine == "ray"

    def at(self, model: Path, device: str, dtype: str) -> Crew:
        """The same crew with a model; ``cuda:all`` is a worker a GPU, by processes unless Ray was asked for."""
        crew = replace(self, model=model, device=device, dtype=dtype)
        if device != ALL_GPUS:
            return crew
        crew = replace(crew, device="cuda", gpu_each=True)
        if crew.engine == "ray":
            return crew
        import torch

        cards = torch.cuda.device_count()
        workers = min(crew.workers, cards) if crew.engine == "processes" else cards
        return replace(crew, engine="processes" if cards > 1 else "local", workers=workers, gpu_each=cards > 1)

    def sent(self, folder: Path, *patterns: str) -> Sent:
        """A folder for the workers, as :meth:`~plmscope.tasks.sent.Sent.of`."""
        return Sent.of(folder, self.travels, *patterns)

    def runs_of(self, items: Sequence[Any], most: int = 0) -> list[Any]:
        """Items in runs of a few, at least four runs for every worker where there are enough, at most ``most`` each."""
        size = max(1, len(items) // (4 * self.workers))
        size = min(size, most) if most else size
        return [items[start : start + size] for start in range(0, len(items), size)]

    def results(
        self, tasks: Sequence[Task], shared: Mapping[str, Any], in_turn: bool = False
    ) -> Iterator[tuple[str, Any]]:
        """Id and result of every task, as they come.

        Args:
            tasks: Done by the workers.
            shared: Keywords that all of them have.
            in_turn: Give them in the order of the tasks; those that come early wait.

        Raises:
            RunError: a task failed, or its workers died again and again; what was given is kept by the caller.
        """
        if not tasks:
            return
        order, early = iter(tasks), dict[str, Any]()
        outcomes = run_tasks(
            tasks, self.engine, self.workers, self.address, shared=shared, gpu_each=self.gpu_each, staff=self.staff
        )
        turn = next(order, None)
        for outcome in outcomes:
            if outcome.error:
                raise RunError(f"a part of the work failed on a worker: {outcome.error}; the same command continues")
            if not in_turn:
                yield outcome.id, outcome.result
                continue
            early[outcome.id] = outcome.result
            while turn is not None and turn.id in early:
                yield turn.id, early.pop(turn.id)
                turn = next(order, None)


#: This process by itself.
ALONE = Crew()
