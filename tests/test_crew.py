"""The long parts of a stage by several workers: the same numbers as by this process, whatever dies on the way."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from pandas.testing import assert_frame_equal

import plmscope.evaluation.collected as collected
import plmscope.tasks.crew as crews
import plmscope.tasks.staff as staff
from plmscope.cli import main
from plmscope.data.proteins import Protein
from plmscope.errors import RunError
from plmscope.evaluation.interventions import Change, nothing, outcomes
from plmscope.evaluation.predict import predict
from plmscope.evaluation.resampled import donors, predict_resampled
from plmscope.evaluation.selection import Selection
from plmscope.evaluation.shared_out import MOST, outcomes_by, predicted_by
from plmscope.explaining.explainer import ExplainSettings
from plmscope.explaining.explanation import SCHEMA as EXPLAINED
from plmscope.explaining.folder import explain_file
from plmscope.models.classifier import Classifier
from plmscope.store import resume
from plmscope.study.opened import open_run
from plmscope.tasks.crew import Crew
from plmscope.tasks.engines import run_tasks
from plmscope.tasks.staff import Staff
from plmscope.tasks.task import Outcome, Task
from tests.conftest import Golden, make_proteins
from tests.test_tasks import HAS_RAY, RAY, gone


def some_masks(n: int, k: int) -> np.ndarray:
    return np.random.default_rng(0).random((k, n)) < 0.5


def test_selections_are_dealt_evenly_and_all_of_them() -> None:
    for n, workers in ((1, 4), (7, 2), (100, 2), (1000, 3)):
        dealt = Crew("processes", workers).runs_of(list(range(n)), MOST)
        assert [number for part in dealt for number in part] == list(range(n))
        assert len(dealt) >= min(n, 4 * workers) and max(map(len, dealt)) <= MOST


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

    monkeypatch.setattr(crews, "run_tasks", failing)
    crew = Crew("processes", 1, model=tiny_folder)
    with pytest.raises(RunError, match=r"failed on a worker: its worker died 3 times .*; the same command continues"):
        list(predicted_by(crew, proteins, {0: (np.ones(3, dtype=bool), "zero")}, {}, 256))


@pytest.fixture
def deaths(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The first task of every list kills the process that it is given to; the names of what died."""
    give, run, dead = staff.Process.give, crews.run_tasks, list[str]()
    fresh = [False]

    def killing(worker: Any, task: Task) -> None:
        give(worker, task)
        if fresh[0]:
            fresh[0] = False
            dead.append(task.function.rpartition(":")[2])
            os.kill(worker.process.pid, signal.SIGKILL)

    def listed(tasks: list[Task], *others: Any, **more: Any) -> Iterator[Outcome]:
        fresh[0] = True
        return run(tasks, *others, **more)

    monkeypatch.setattr(staff.Process, "give", killing)
    monkeypatch.setattr(crews, "run_tasks", listed)
    return dead


#: The command of a stage, its tables, and the tasks that workers do in it.
STAGES = {
    "evaluate": (("curves", "predictions", "comparison", "modules"), {"predictions_of"}),
    "score": (("neurons", "class_scores", "completeness", "ablation_means"), {"score_part"}),
    "density": (("null_fits", "null_tests", "modules_null", "curves_null", "density"),
                {"fit_by_worker", "score_part", "predictions_of"}),
    "characterize": (("associations", "letters", "motifs", "neuron_cards", "concept_neurons", "attributed_residues"),
                     {"counted", "judged"}),
    "intervene": (("interventions", "intervention_effects", "neuron_effects"), {"odds_of"}),
}  # fmt: skip


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_by_processes_of_which_one_is_killed_in_every_part(
    golden: Golden, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, deaths: list[str], stage: str
) -> None:
    """Tables are those of one process, and everything that is divided was: its first worker died."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setattr(collected, "FEW", 1)
    folder = again(golden, tmp_path / "run", stage)
    assert main([stage, str(folder), "--engine", "processes", "--workers", "2", "--quiet"]) == 0
    assert set(deaths) == STAGES[stage][1]
    alike(folder, golden.run, STAGES[stage][0])


def again(golden: Golden, folder: Path, stage: str) -> Path:
    """A copy of the run whose stage is to be run once more."""
    folder = golden.copy(folder)
    for name in STAGES[stage][0]:
        (folder / f"{name}.parquet").unlink()
    if stage == "density":
        for name in ("nulls", "null_fits"):
            shutil.rmtree(folder / name)
    return folder


def alike(folder: Path, before: Path, tables: tuple[str, ...]) -> None:
    """Tables of two runs, exact but for sums that were added in another order."""
    for name in tables:
        one, other = (pd.read_parquet(path / f"{name}.parquet") for path in (folder, before))
        assert_frame_equal(one, other, rtol=1e-12, atol=1e-12, obj=name)


@pytest.mark.skipif(not HAS_RAY, reason="Ray is not installed")
@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_by_ray_without_a_common_disk_and_with_an_actor_killed(
    golden: Golden, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stage: str
) -> None:
    """Every list of tasks has one more that kills its actor at first; the run is read from what was sent."""
    run, lists = crews.run_tasks, list[str]()

    def with_a_death(tasks: list[Task], *others: Any, shared: dict[str, Any], **more: Any) -> Iterator[Outcome]:
        lists.append(tasks[0].function.rpartition(":")[2])
        marker = tmp_path / f"died-{len(lists)}"
        killer = Task("killer", "tests.tasks_work:die_once_with", {"marker": str(marker)})
        for outcome in run([killer, *tasks], *others, shared=shared, **more):
            if outcome.id != "killer":
                yield outcome
            else:
                assert (outcome.result, outcome.tries) == ("alive", 2), outcome
        assert marker.read_text() == "x"

    monkeypatch.setattr(crews, "run_tasks", with_a_death)
    monkeypatch.setattr(collected, "FEW", 1)
    folder = again(golden, tmp_path / "run", stage)
    assert main([stage, str(folder), "--engine", "ray", "--workers", "2", "--quiet"]) == 0
    assert set(lists) == STAGES[stage][1]
    alike(folder, golden.run, STAGES[stage][0])


@pytest.mark.skipif(not HAS_RAY, reason="Ray is not installed")
def test_two_nodes_share_the_evaluation_and_a_full_cluster_is_no_end(golden: Golden, tmp_path: Path) -> None:
    """Nodes of one core each: both work, a third worker finds no place, an actor that dies is replaced."""
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    try:
        cluster.add_node(num_cpus=1)
        tasks = [Task("killer", "tests.tasks_work:die_once_with", {"marker": str(tmp_path / "died")})]
        tasks += [Task(str(i), "tests.tasks_work:node") for i in range(12)]
        found = {o.id: o for o in run_tasks(tasks, "ray", 3, cluster.address)}
        assert not any(o.error for o in found.values())
        assert (found.pop("killer").tries, len({o.result for o in found.values()})) == (2, 2)
        folder = again(golden, tmp_path / "run", "evaluate")
        how = ["--engine", "ray", "--address", cluster.address, "--workers", "2", "--quiet"]
        assert main(["evaluate", str(folder), *how]) == 0
        alike(folder, golden.run, STAGES["evaluate"][0])
        assert len(cluster.list_all_nodes()) == 2  # one that was there before stays
    finally:
        cluster.shutdown()


@pytest.mark.parametrize("engine", ["processes", RAY])
def test_proteins_explained_by_workers(
    engine: str, golden: Golden, tmp_path: Path, deaths: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    opened = open_run(golden.copy(tmp_path / "run"))
    fasta = tmp_path / "mine.fasta"
    fasta.write_text("".join(f">p{i}\n{p.sequence[:40]}\n" for i, p in enumerate(opened.proteins("test")[:5])))
    few = ExplainSettings(supporting=3, opposing=1, draws=3, seed=1)
    for name, crew in (("alone", Crew()), ("crew", Crew(engine, 2))):
        explain_file(opened, fasta, tmp_path / name, settings=few, crew=crew)
    assert deaths == (["explained_part"] if engine == "processes" else [])
    for name in EXPLAINED:
        one, other = (pd.read_parquet(tmp_path / made / f"{name}.parquet") for made in ("alone", "crew"))
        assert_frame_equal(one, other, rtol=1e-12, atol=1e-12, obj=name)
    assert main(["explain", str(opened.run.path), str(fasta), "--workers", "2"]) == 2


def test_what_was_killed_is_continued_by_others(
    golden: Golden, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """A characterization by workers is stopped in each of its passes, and ends in this process."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setattr(resume, "SAVE_SECONDS", -1)
    monkeypatch.setattr(resume, "SAVE_PAUSE", 0)
    folder, run = again(golden, tmp_path / "run", "characterize"), crews.run_tasks
    for number, stopped_in in enumerate(("discovering", "confirming")):
        lists = []

        def stopping(tasks: list[Task], *a: Any, at: int = number, seen: Any = lists, **more: Any) -> Any:
            seen.append(len(tasks))
            for done, outcome in enumerate(run(tasks, *a, **more)):
                if done == 1 and len(seen) - 1 == at:
                    raise KeyboardInterrupt
                yield outcome

        monkeypatch.setattr(crews, "run_tasks", stopping)
        assert main(["characterize", str(folder), "--engine", "processes", "--workers", "1", "--quiet"]) == 130
        assert list((folder / "characterize.parts").glob(f"*{stopped_in}.npz"))
    monkeypatch.setattr(crews, "run_tasks", run)
    assert main(["characterize", str(folder)]) == 0
    assert "continuing from what was counted before" in capfd.readouterr().err
    alike(folder, golden.run, STAGES["characterize"][0])


def test_workers_need_an_engine(golden: Golden, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", str(golden.run), "--workers", "2"]) == 2
    assert "--workers needs --engine processes or ray" in capfd.readouterr().err
    assert main(["score", str(golden.run), "--shard", "1/2", "--engine", "processes"]) == 2
    assert "--shard and --merge exclude --engine" in capfd.readouterr().err


# --- one worker a GPU


def test_all_gpus_are_a_worker_each(tiny_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    crew = Crew().at(tiny_folder, "cuda:all", "float32")
    assert (crew.engine, crew.workers, crew.device, crew.gpu_each, crew.alone) == ("processes", 3, "cuda", True, False)
    assert Crew("processes", 2).at(tiny_folder, "cuda:all", "float32").workers == 2
    assert Crew("processes", 8).at(tiny_folder, "cuda:all", "float32").workers == 3
    ray = Crew("ray", 8).at(tiny_folder, "cuda:all", "float32")
    assert (ray.engine, ray.workers, ray.gpu_each) == ("ray", 8, True)
    assert not Crew("processes", 2).at(tiny_folder, "cuda", "float32").gpu_each
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    assert Crew().at(tiny_folder, "cuda:all", "float32").alone


def test_every_worker_sees_a_gpu_of_its_own_and_its_heir_the_same(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    tasks = [Task("dies", "tests.tasks_work:gpu_and_die", {"marker": str(tmp_path / "died")})]
    tasks += [Task(str(i), "tests.tasks_work:gpu_seen") for i in range(8)]
    for visible, names in (("", {"0", "1"}), ("4, 7,GPU-x", {"4", "7"})):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
        (tmp_path / "died").unlink(missing_ok=True)
        found = {o.id: o.result for o in run_tasks(tasks, "processes", 2, gpu_each=True)}
        before, after = found.pop("dies")
        assert {before, after} <= names
        assert {gpu for gpu, _ in found.values()} <= names
        owners: dict[str, set[int]] = {}
        for gpu, pid in found.values():
            owners.setdefault(gpu, set()).add(pid)
        assert all(len(pids) <= 2 for pids in owners.values())
    with Staff() as kept:
        list(run_tasks(tasks[1:], "processes", 2, gpu_each=True, staff=kept))
        assert sorted(worker.gpu for worker in kept.idle) == ["4", "7"]


def test_workers_stay_for_the_next_list_and_learn_what_it_shares(tmp_path: Path) -> None:
    with Staff() as kept:
        pids = set()
        for note in ("a", "b"):
            path = tmp_path / note
            tasks = [Task(str(x), "tests.tasks_work:square", {"x": x}) for x in range(6)]
            found = {o.id: o.result for o in run_tasks(tasks, "processes", 2, shared={"note": str(path)}, staff=kept)}
            assert found == {str(x): x * x for x in range(6)}
            pids |= {int(line.split()[1]) for line in path.read_text().splitlines()}
        assert 1 <= len(pids) <= 2
        os.kill(kept.idle[-1].process.pid, signal.SIGKILL)  # one that dies while it waits is not missed
        kept.idle[-1].process.wait()
        assert all(not o.error for o in run_tasks(tasks, "processes", 2, staff=kept))
        pids |= {one.process.pid for one in kept.idle}
    assert all(gone(pid) for pid in pids)
