"""The long parts of a stage by several workers: the same numbers as by this process, whatever dies on the way."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pandas.testing import assert_frame_equal

import plmscope.evaluation.shared_out as shared_out
import plmscope.tasks.engines as engines
from plmscope.cli import main
from plmscope.data.proteins import Protein
from plmscope.errors import RunError
from plmscope.evaluation.interventions import Change, nothing, outcomes
from plmscope.evaluation.predict import predict
from plmscope.evaluation.resampled import donors, predict_resampled
from plmscope.evaluation.selection import Selection
from plmscope.evaluation.shared_out import _dealt, outcomes_by, predicted_by
from plmscope.models.classifier import Classifier
from plmscope.store.folder import Run
from plmscope.tasks.crew import Crew
from plmscope.tasks.task import Outcome, Task
from tests.conftest import Golden, make_proteins
from tests.test_tasks import RAY


def some_masks(n: int, k: int) -> np.ndarray:
    return np.random.default_rng(0).random((k, n)) < 0.5


def test_selections_are_dealt_evenly_and_all_of_them() -> None:
    for n, workers in ((1, 4), (7, 2), (100, 2), (1000, 3)):
        dealt = list(_dealt(list(range(n)), workers))
        assert [number for part in dealt for number in part] == list(range(n))
        assert len(dealt) >= min(n, 4 * workers) and max(map(len, dealt)) <= 16


@pytest.mark.parametrize("engine", ["processes", RAY])
def test_workers_give_what_this_process_gives(
    engine: str, tiny: Classifier, tiny_folder: Path, proteins: list[Protein]
) -> None:
    crew = Crew(engine, 2, model=tiny_folder)
    n = len(tiny.index)
    masks, means = some_masks(n, 9), np.random.default_rng(1).normal(size=(3, n))
    given = donors(proteins, make_proteins(12, seed=5), k=1)
    kinds = ["mean", "resample", "zero"]
    todo = {10 + i: (mask, kinds[i % 3]) for i, mask in enumerate(masks)}
    todo[99] = (np.ones(n, dtype=bool), "none")
    found = dict(predicted_by(crew, proteins, todo, {"mean": means, "zero": np.zeros((3, n))}, 256, given))
    assert set(found) == set(todo)
    for number, (mask, kind) in todo.items():
        if kind == "resample":
            (here,) = predict_resampled(tiny, proteins, [mask], given, 256)
        else:
            (here,) = predict(tiny, proteins, [(mask, means if kind == "mean" else np.zeros((3, n)))], 256)
        np.testing.assert_array_equal(found[number].predicted, here.predicted)
        np.testing.assert_allclose(found[number].log_prob_true, here.log_prob_true, rtol=0, atol=1e-6)
    changes = {0: nothing(tiny.index)} | {
        i: Change(Selection(tiny.index, mask), factor)
        for i, (mask, factor) in enumerate(zip(masks[:4], (None, 0.0, 2.0, 0.5), strict=True), 1)
    }
    crew = Crew(engine, 1, model=tiny_folder)
    odds = dict(outcomes_by(crew, proteins, changes, means, 256))
    for number, change in changes.items():
        (here,) = outcomes(tiny, proteins, [change], means, 256)
        np.testing.assert_allclose(odds[number], here, rtol=0, atol=1e-6)


def test_a_part_that_fails_is_one_line(
    tiny_folder: Path, proteins: list[Protein], monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(tasks: list[Task], *_: object, **__: object) -> Iterator[Outcome]:
        yield Outcome(tasks[0].id, error="its worker died 3 times (killed by SIGKILL); is there memory enough?")

    monkeypatch.setattr(shared_out, "run_tasks", failing)
    crew = Crew("processes", 1, model=tiny_folder)
    with pytest.raises(RunError, match=r"failed on a worker: its worker died 3 times .*; the same command continues"):
        list(predicted_by(crew, proteins, {0: (np.ones(3, dtype=bool), "zero")}, {}, 256))


def test_stages_by_processes_of_which_one_is_killed(
    golden: Golden, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = golden.copy(tmp_path / "run")
    for name in ("curves", "predictions", "comparison", "interventions"):
        (folder / f"{name}.parquet").unlink()
    give, killed = engines._Worker.give, []

    def killing(worker: Any, task: Any) -> None:
        give(worker, task)
        if not killed:
            killed.append(worker.process.pid)
            os.kill(worker.process.pid, signal.SIGKILL)

    monkeypatch.setattr(engines._Worker, "give", killing)
    assert main(["evaluate", str(folder), "--engine", "processes", "--workers", "2", "--quiet"]) == 0
    assert len(killed) == 1
    run, before = Run.open(folder), Run.open(golden.run)
    for name in ("curves", "predictions", "comparison"):
        assert_frame_equal(run.table(name), before.table(name), rtol=1e-5, atol=1e-6, obj=name)
    assert main(["evaluate", str(folder), "--workers", "2"]) == 2
    assert "--workers needs --engine processes or ray" in capfd.readouterr().err
