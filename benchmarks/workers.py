"""How far the work of a stage can be divided: task lengths as measured, workers as simulated.

    python benchmarks/workers.py measure RUN --stages score evaluate --out measured.json    # about what the stages take
    python benchmarks/workers.py simulate measured.json                                     # seconds

    python benchmarks/workers.py overhead --engine ray                                      # a minute

``measure`` runs stages of a copy of a finished run by one worker process and writes down what every list of tasks
took: the seconds of every task, bytes of what a worker is sent and gives back, and how long this process took to take
it in. ``simulate`` plays the same lists with 1 to 64 workers on machines of the same speed::

    begin      what this process does by itself before, between and after the lists
    start      a worker starts Python and loads the model, all at once; each is sent its share, one after the other
    work       whoever is free pulls; lists are cut as the library cuts them, lengths are drawn from the measured ones
    take in    this process receives and adds one result after the other

Efficiency is the time of one process without workers over workers times the time with them. A network of RATE bytes a
second stands for the pipe that was measured, where it is slower.
"""

from __future__ import annotations

import argparse
import heapq
import json
import os
import pickle
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import plmscope.tasks.crew as crews
from plmscope.store.folder import Run
from plmscope.study import Stages
from plmscope.study.study_file import read_study
from plmscope.tasks.crew import Crew
from plmscope.tasks.engines import run_tasks
from plmscope.tasks.staff import Staff
from plmscope.tasks.task import Outcome, Task

WORKERS = (1, 2, 4, 8, 16, 32, 64)
#: Bytes a second between machines: 10 Gbit/s, and what pickling leaves of it.
RATE = 5e8
#: Lists whose tasks have a size of their own; the others are cut by the number of workers.
FIXED = ("score_part", "fit_by_worker")
#: Items of a task, at most, as the library has it.
MOST = {"predictions_of": 16, "odds_of": 16}


def measure(run: Path, stages: Sequence[str]) -> list[dict[str, Any]]:
    """Every list of tasks of some stages of a copy of a run, done by one worker."""
    found: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        copy = Run.open(shutil.copytree(run, Path(folder) / "run"))
        for stage in stages:
            manifest = copy.manifest()["stages"]
            copy.update_manifest(stages={stage: manifest[stage] | {"status": "running"}})
            lists: list[dict[str, Any]] = []
            play, started = crews.run_tasks, time.monotonic()

            def watched(
                tasks: Sequence[Task], *a: Any, lists: Any = lists, play: Any = play, **more: Any
            ) -> Iterator[Outcome]:
                began, sizes, seconds, taken = time.monotonic(), [], [], 0.0
                ready = 0.0
                for outcome in play(tasks, *a, **more):
                    ready = ready or time.monotonic() - began - outcome.seconds
                    sizes.append(len(pickle.dumps(outcome.result)))
                    seconds.append(outcome.seconds)
                    before = time.monotonic()
                    yield outcome
                    taken += time.monotonic() - before
                lists.append(
                    {
                        "stage": "", "what": tasks[0].function.rpartition(":")[2], "seconds": seconds,
                        "items": [_items(task) for task in tasks], "bytes_back": float(np.mean(sizes)),
                        "bytes_sent": len(pickle.dumps(dict(more["shared"]))), "start": ready,
                        "take_in": taken / max(1, len(tasks)), "whole": time.monotonic() - began,
                    }
                )  # fmt: skip

            crews.run_tasks = watched  # type: ignore[assignment]
            try:
                study = read_study(copy.path / "study.toml")
                Stages(study, copy, crew=Crew("processes", 1)).execute([stage])
            finally:
                crews.run_tasks = play
            alone = time.monotonic() - started - sum(one.pop("whole") for one in lists)
            found += [one | {"stage": stage, "alone": alone / max(1, len(lists))} for one in lists]
    return found


def _items(task: Task) -> int:
    """Selections or proteins of a task."""
    for name in ("ablations", "factors", "proteins"):
        if name in task.arguments:
            return len(task.arguments[name])
    return 1


def simulate(
    lists: Sequence[Mapping[str, Any]], workers: int, seed: int = 0, rate: float = RATE
) -> tuple[float, float]:
    """Seconds of one process without workers, and of so many workers, for the lists of a stage."""
    rng = np.random.default_rng([seed, workers])
    local = total = 0.0
    for number, one in enumerate(lists):
        lengths = _tasks(one, workers, rng)
        start = one["start"] if number == 0 else 0.0  # workers stay for the next list
        send, back = one["bytes_sent"] / rate, one["bytes_back"] / rate
        local += one["alone"] + sum(one["seconds"])
        total += one["alone"] + _played(lengths, workers, start, send, back, one["take_in"])
    return local, total


def _tasks(one: Mapping[str, Any], workers: int, rng: np.random.Generator) -> list[float]:
    """Lengths of the tasks of a list, cut for so many workers."""
    seconds, items = np.array(one["seconds"]), np.array(one["items"])
    if one["what"] in FIXED:
        return [float(x) for x in seconds]
    each = np.repeat(seconds / items, items)  # seconds of an item, those of a task alike
    noise = rng.normal(1, min(0.3, float(np.std(seconds / items) / np.mean(seconds / items))), len(each)).clip(0.2)
    each = each * noise * each.sum() / (each * noise).sum()
    runs = Crew("processes", workers).runs_of(each.tolist(), MOST.get(one["what"], 0))
    return [float(sum(run)) for run in runs]


def _played(lengths: Sequence[float], workers: int, start: float, send: float, back: float, take_in: float) -> float:
    """When the last result has been taken in."""
    free = [(start + send * (number + 1), number) for number in range(min(workers, len(lengths)))]
    heapq.heapify(free)
    driver = 0.0
    waiting = list(lengths)[::-1]
    busy: list[tuple[float, int]] = []
    while waiting or busy:
        while waiting and free:
            at, number = heapq.heappop(free)
            heapq.heappush(busy, (at + waiting.pop(), number))
        at, number = heapq.heappop(busy)
        driver = max(driver, at) + back  # results come one after the other; then the worker goes on
        heapq.heappush(free, (driver, number))
        driver += take_in
    return driver


def carried(masks: np.ndarray, proteins: int, supplies: Any) -> list[tuple[np.ndarray, np.ndarray]]:
    """A task that does nothing, and gives back what the evaluation of so many selections does."""
    return [(np.zeros(proteins, np.int16), np.zeros(proteins, np.float32)) for _ in masks]


def overhead(engine: str, workers: int, tasks: int, seed: int = 0) -> float:
    """Seconds a task, beyond those inside it, once the workers are there; the median of five lists."""
    rng, seen = np.random.default_rng(seed), list[float]()
    masks, shared = rng.integers(0, 256, (16, 8640 // 8), dtype=np.uint8), {"supplies": rng.random((3, 8640))}
    with Staff() as staff:
        for _ in range(6):
            these = [
                Task(str(n), "benchmarks.workers:carried", {"masks": masks, "proteins": 285}) for n in range(tasks)
            ]
            began = time.monotonic()
            done = list(run_tasks(these, engine, workers, shared=shared, staff=staff))
            if errors := [one.error for one in done if one.error]:
                raise SystemExit(errors[0])
            seen.append((time.monotonic() - began) / tasks)
    return float(np.median(seen[1:]))


def table(measured: Sequence[Mapping[str, Any]], times: int, seed: int, rate: float) -> str:
    """A Markdown table: one row a stage, one column a number of workers; the work ``times`` as large."""
    names = ["stage", "tasks", "alone", *map(str, WORKERS)]
    rows = [f"| {' | '.join(names)} |", "| --- " * len(names) + "|"]
    for stage in dict.fromkeys(str(one["stage"]) for one in measured):
        lists = [
            {**one, "seconds": list(one["seconds"]) * times, "items": list(one["items"]) * times}
            for one in measured if one["stage"] == stage
        ]  # fmt: skip
        cells = []
        for workers in WORKERS:
            local, total = simulate(lists, workers, seed, rate)
            cells.append(f"{local / workers / total:.0%}")
        alone, tasks = sum(one["alone"] for one in lists), sum(len(one["seconds"]) for one in lists)
        rows.append(f"| {stage}, {local:,.0f} s | {tasks:,} | {alone / local:.1%} | {' | '.join(cells)} |")
    return "\n".join(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    one = commands.add_parser("measure", help="do the stages of a copy of a run by one worker")
    one.add_argument("run", type=Path)
    one.add_argument("--stages", nargs="+", default=["score", "evaluate", "characterize"])
    one.add_argument("--out", type=Path, default=Path("measured.json"))
    three = commands.add_parser("overhead", help="what an engine takes for tasks that do nothing")
    three.add_argument("--engine", nargs="+", default=["local", "processes", "ray"])
    three.add_argument("--workers", type=int, default=2)
    three.add_argument("--tasks", type=int, default=200)
    two = commands.add_parser("simulate", help="play what was measured with 1 to 64 workers")
    two.add_argument("measured", type=Path, nargs="+")
    two.add_argument("--times", type=int, nargs="+", default=[1, 100], help="how many times as much work")
    two.add_argument("--rate", type=float, default=RATE, help="bytes a second between machines")
    two.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    if given.command == "measure":
        given.out.write_text(json.dumps(measure(given.run, given.stages)))
        return
    if given.command == "overhead":
        for engine in given.engine:
            cost = overhead(engine, 1 if engine == "local" else given.workers, given.tasks)
            print(f"{engine}: {1000 * cost:.2f} ms a task")
        return
    measured = [row for path in given.measured for row in json.loads(path.read_text())]
    for times in given.times:
        print(f"\nThe work {times} times:\n\n{table(measured, times, given.seed, given.rate)}")


if __name__ == "__main__":
    here = str(Path(__file__).resolve().parents[1])  # where workers find this file as a module
    sys.path.insert(0, here)
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (here, os.environ.get("PYTHONPATH", ""))))
    main()
