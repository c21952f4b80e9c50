"""Tasks: every engine gives the same, what dies is done again, nothing stays behind."""

from __future__ import annotations

import importlib.util
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from plmscope.errors import StudyError
from plmscope.tasks.engines import run_tasks
from plmscope.tasks.task import TRIES, Task
from tests.test_readme import ROOT

WORK = "tests.tasks_work"
HAS_RAY = importlib.util.find_spec("ray") is not None
RAY = pytest.param("ray", marks=pytest.mark.skipif(not HAS_RAY, reason="Ray is not installed"))
OTHERS = ("processes", RAY)


def squares(n: int, note: str = "") -> list[Task]:
    return [Task(f"square-{x}", f"{WORK}:square", {"x": x, "note": note}) for x in range(n)]


def gone(pid: int, seconds: float = 20) -> bool:
    """Whether a process ends in time; one that nobody has waited for has ended too."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
        except (OSError, IndexError):
            return True
        if state == "Z":
            return True
        time.sleep(0.1)
    return False


@pytest.mark.parametrize(
    ("engine", "workers"), [("local", 1), ("local", 3), ("processes", 2), pytest.param("ray", 2, marks=RAY.marks)]
)
def test_every_engine_gives_the_same(engine: str, workers: int, tmp_path: Path) -> None:
    note = tmp_path / "note"
    found = {o.id: o for o in run_tasks(squares(7, str(note)), engine, workers)}
    assert {name: o.result for name, o in found.items()} == {f"square-{x}": x * x for x in range(7)}
    assert {o.tries for o in found.values()} == {1}
    assert sorted(line.split()[0] for line in note.read_text().splitlines()) == list("0123456")


@pytest.mark.parametrize("engine", ["local", *OTHERS])
def test_a_task_that_fails_does_not_stop_the_others(engine: str) -> None:
    tasks = [
        Task("bad", f"{WORK}:fail", {"text": "file.tsv, row 3: no sequence"}),
        Task("worse", f"{WORK}:square", {"y": 1}),
        *squares(2),
    ]
    found = {o.id: o for o in run_tasks(tasks, engine)}
    assert found["bad"].error == "file.tsv, row 3: no sequence"
    assert found["worse"].error.startswith("TypeError: square() got an unexpected keyword argument 'y'")
    assert [found[f"square-{x}"].result for x in range(2)] == [0, 1]


@pytest.mark.parametrize("engine", OTHERS)
def test_the_task_of_a_killed_worker_is_given_to_another(engine: str, tmp_path: Path) -> None:
    tasks = [
        Task("dies once", f"{WORK}:die", {"marker": str(tmp_path / "once"), "times": 1}),
        Task("dies always", f"{WORK}:die", {"marker": str(tmp_path / "always"), "times": 99}),
        *squares(3),
    ]
    found = {o.id: o for o in run_tasks(tasks, engine, 2)}
    assert (found["dies once"].result, found["dies once"].tries) == ("alive", 2)
    assert f"its worker died {TRIES} times" in found["dies always"].error
    assert (tmp_path / "always").read_text() == "x" * TRIES
    assert [found[f"square-{x}"].result for x in range(3)] == [0, 1, 4]


def test_workers_share_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    tasks = [Task(str(i), f"{WORK}:threads") for i in range(2)]
    cores = len(os.sched_getaffinity(0))
    assert {o.result for o in run_tasks(tasks, "processes", 2)} == {str(max(1, cores // 2))}
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    assert {o.result for o in run_tasks(tasks[:1], "processes", 2)} == {"7"}


@pytest.mark.parametrize("engine", OTHERS)
def test_workers_have_the_priority_of_the_command(engine: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray would lower theirs by 15, and any other program of the machine would stop them."""
    monkeypatch.delenv("RAY_worker_niceness", raising=False)
    (outcome,) = run_tasks([Task("a", f"{WORK}:priority")], engine, 1)
    assert outcome.result == os.nice(0)


@pytest.mark.parametrize(
    ("engine", "how"),
    [("processes", "interrupt"), ("processes", "kill"), pytest.param("ray", "interrupt", marks=RAY.marks)],
)
def test_nothing_stays_behind(engine: str, how: str, tmp_path: Path) -> None:
    """Ctrl-C, and kill -9 of the driver: workers end, and with them what they have started."""
    marker = tmp_path / "marker"
    code = (
        "from plmscope.tasks.engines import run_tasks\nfrom plmscope.tasks.task import Task\n"
        f"list(run_tasks([Task('a', '{WORK}:wait_long', dict(marker={str(marker)!r}))], {engine!r}))"
    )
    driver = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stderr=subprocess.DEVNULL)
    try:
        until = time.monotonic() + 60
        while not (marker.is_file() and len(marker.read_text().split()) == 2):
            assert time.monotonic() < until
            time.sleep(0.1)
        pids = [int(pid) for pid in marker.read_text().split()]
        driver.send_signal(signal.SIGINT if how == "interrupt" else signal.SIGKILL)
        assert driver.wait(30) != 0
    finally:
        driver.kill()
    assert all(gone(pid) for pid in pids)


@pytest.mark.parametrize("engine", OTHERS)
def test_a_loop_that_is_left_early_ends_its_workers(engine: str, tmp_path: Path) -> None:
    last = Task("never", f"{WORK}:square", {"x": 9, "note": str(tmp_path / "m")})
    loop = run_tasks([*squares(40, str(tmp_path / "note")), last], engine, 1)
    next(loop)
    loop.close()
    pids = {int(line.split()[1]) for line in (tmp_path / "note").read_text().splitlines()}
    assert all(gone(pid) for pid in pids)
    assert not (tmp_path / "m").exists()


def test_engines_are_checked_before_anything_starts() -> None:
    for engine, workers, address, said in (
        ("threads", 1, "", "use local, processes or ray"),
        ("local", 0, "", "need at least one"),
        ("processes", 1, "auto", "add --engine ray"),
    ):
        with pytest.raises(StudyError, match=said):
            next(run_tasks(squares(1), engine, workers, address))
    with pytest.raises(StudyError, match="an id of its own"):
        next(run_tasks([*squares(1), *squares(1)]))
    if not HAS_RAY:
        with pytest.raises(StudyError, match=r"pip install 'plmscope\[ray\]'"):
            next(run_tasks(squares(1), "ray"))
