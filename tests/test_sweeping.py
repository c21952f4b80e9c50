"""A sweep: its combinations are checked before anything starts, its runs are ordinary ones, a failure is named."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from plmscope.cli import main
from plmscope.errors import InputError, ModelError, PlmscopeError, RunError, StudyError
from plmscope.store.folder import Run
from plmscope.study.demo import demo_study
from plmscope.study.settings import Study
from plmscope.study.study_file import parse_study, read_study, write_study
from plmscope.sweeping import sweep as sweeping
from plmscope.sweeping.combinations import Combination, combinations, parse_seeds, parse_setting
from plmscope.sweeping.sweep import failures, run_combination, sweep
from tests.conftest import Golden

# --- combinations


def names(**given: object) -> list[str]:
    return [one.name for one in combinations(Study(), **given)]  # type: ignore[arg-type]


def test_names_say_what_differs() -> None:
    assert names(seeds="0-2") == ["seed0", "seed1", "seed2"]
    assert names() == ["seed0"]
    assert names(seeds="1,3", settings=["score.baseline=mean,zero", "split.identity=0.5"]) == [
        "baseline-mean.seed1", "baseline-mean.seed3", "baseline-zero.seed1", "baseline-zero.seed3",
    ]  # fmt: skip
    assert names(models=["facebook/esm2_t6_8M_UR50D", "plmscope:embedded"]) == [
        "esm2_t6_8M_UR50D.seed0", "embedded.seed0",
    ]  # fmt: skip
    assert names(models=["a/model", "b/model"]) == ["a-model.seed0", "b-model.seed0"]
    assert names(settings=["evaluate.fractions=[0.1, 0.2],[0.5]"]) == ["fractions-0.1_0.2.seed0", "fractions-0.5.seed0"]


def test_combinations_are_studies_with_the_settings_that_were_asked_for() -> None:
    found = combinations(
        Study(name="x"),
        "4",
        ["plmscope:embedded"],
        ["evaluate.methods=activation", "data.ec_column=7", "dtype=bfloat16"],
    )
    (only,) = found
    assert only.study.seed == 4
    assert only.study.evaluate.methods == ("activation",)  # one value of a list is a list
    assert only.study.data.ec_column == "7"  # text stays text
    assert only.study.dtype == "bfloat16"
    assert only.study.name == "x.seed4"
    assert only.differs == {"seed": 4}


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"seeds": "0-"}, "--seeds '0-': need numbers and ranges"),
        ({"seeds": "3-1"}, "need numbers and ranges"),
        ({"seeds": "0-2,2"}, "2 is there twice; one seed is one observation"),
        ({"seeds": "0-99999999"}, "more than 10,000"),
        ({"seeds": "0-999", "settings": ["score.points=1,2,3,4,5,6,7,8,9,10,11,12"]}, "a sweep of 12,000 runs"),
        ({"settings": ["score.baseline"]}, "need KEY=VALUE,VALUE"),
        ({"settings": ["score.baseline=mean,,zero"]}, "a value is empty"),
        ({"settings": ["evaluate.fractions=[0.1"]}, "a bracket or quote is never closed"),
        ({"settings": ["score.baseline=mean,mean"]}, "--set score.baseline: mean is there twice"),
        ({"settings": ["score.baseline=mean", "score.baseline=zero"]}, "give its values together"),
        ({"settings": ["score.baselin=mean"]}, "unknown key 'score.baselin'; did you mean 'score.baseline'?"),
        (
            {"settings": ["score.baseline=mean,median"]},
            "baseline-median.seed0: score.baseline = 'median'",
        ),
        ({"settings": ["seed=1,2"]}, "--set seed: belongs to --seeds"),
        ({"settings": ["model.checkpoint=x"]}, "belongs to --model"),
        ({"settings": ["score=1"]}, "--set score: is a section; name one of its keys, such as score.methods"),
        ({"settings": ["dtype.x=1"]}, "dtype is no section"),
        ({"models": ["a", "a"]}, "--model 'a': is there twice"),
        ({"models": ["/nowhere/model"]}, "/nowhere/model: no such folder"),
        ({"settings": ["data.path=/nowhere/x.fasta"]}, "/nowhere/x.fasta: no such file (data.path of the study)"),
        ({"settings": ["data.path=-"]}, "save them in a file"),
        ({"settings": ["data.label=a:b,a;b"]}, "two runs would both be called"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_starts(given: dict[str, object], said: str) -> None:
    with pytest.raises((StudyError, InputError, ModelError)) as error:
        names(**given)
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_values_and_seeds_are_read() -> None:
    assert parse_seeds("0,2,5-7") == (0, 2, 5, 6, 7)
    assert parse_setting("score.recompute=true,false") == ("score.recompute", [True, False])
    assert parse_setting('data.label="a,b",c') == ("data.label", ["a,b", "c"])


# --- the loop, without models


@pytest.fixture
def done(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Stages that fail for seed 1 and are otherwise a line in a list."""
    ran: list[str] = []

    class Quick:
        def __init__(self, study: Study, run: Run, *rest: object) -> None:
            self.study, self.run = study, run

        def execute(self) -> None:
            ran.append(self.run.path.name)
            if self.study.seed == 1:
                raise InputError("enzymes.tsv, row 3: no sequence")
            if self.study.seed == 2:
                raise MemoryError

    monkeypatch.setattr(sweeping, "Stages", Quick)
    return ran


def status(folder: Path) -> dict[str, str]:
    return {entry["run"]: entry["status"] for entry in json.loads((folder / "sweep.json").read_text())["runs"]}


def test_a_failing_run_stops_no_other_and_is_named(done: list[str], tmp_path: Path) -> None:
    said: list[str] = []
    found = sweep(combinations(Study(), "0-3"), tmp_path / "s", say=said.append)
    assert done == ["seed0", "seed1", "seed2", "seed3"]
    assert found.failed == {"seed1": "enzymes.tsv, row 3: no sequence", "seed2": "MemoryError"}
    assert failures(found) == (
        f"{tmp_path / 's'}: 2 runs failed: seed1: enzymes.tsv, row 3: no sequence; seed2: MemoryError"
    )
    assert status(tmp_path / "s") == {"seed0": "done", "seed1": "failed", "seed2": "failed", "seed3": "done"}
    assert any(line.startswith("not compared: ") for line in said)  # nothing was evaluated here


def test_the_command_ends_with_the_failures(
    done: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    study = tmp_path / "s.toml"
    study.write_text(write_study(Study()))
    assert main(["sweep", str(study), "--seeds", "0-1", "--out", str(tmp_path / "s"), "--quiet"]) == 2
    assert capsys.readouterr().err.splitlines()[-1] == (
        f"plmscope: error: {tmp_path / 's'}: 1 run failed: seed1: enzymes.tsv, row 3: no sequence"
    )


def test_a_sweep_that_is_interrupted_goes_on(done: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = sweeping.run_combination

    def cut(folder: str, **rest: object) -> str:
        if folder.endswith("seed4"):
            raise KeyboardInterrupt
        return whole(folder, **rest)  # type: ignore[arg-type]

    monkeypatch.setattr(sweeping, "run_combination", cut)
    with pytest.raises(KeyboardInterrupt):
        sweep(combinations(Study(), "3-5"), tmp_path / "s")
    assert status(tmp_path / "s") == {"seed3": "done", "seed4": "waiting", "seed5": "waiting"}
    monkeypatch.setattr(sweeping, "run_combination", whole)
    assert not sweep(combinations(Study(), "3-6"), tmp_path / "s").failed
    assert set(status(tmp_path / "s").values()) == {"done"}
    assert len(status(tmp_path / "s")) == 4


def test_other_folders_and_other_sweeps_are_left_alone(done: list[str], tmp_path: Path) -> None:
    (tmp_path / "letters.txt").write_text("x")
    with pytest.raises(RunError, match="is not empty and not a sweep"):
        sweep(combinations(Study()), tmp_path)
    with pytest.raises(RunError, match="--workers needs --engine processes or ray"):
        sweep(combinations(Study()), tmp_path / "s", workers=2)
    assert not (tmp_path / "s").exists()


# --- real runs


def small_sweep(golden: Golden) -> list[Combination]:
    """The golden study with less of everything, twice."""
    content = read_study(golden.study).model_dump()
    content["finetune"] |= {"epochs": 1}
    content["score"] |= {"methods": ("activation_std", "gradient_activation")}
    content["evaluate"] |= {"draws": 2, "draws_elsewhere": 2, "scopes": ("pooled",), "controls": ("random_matched",)}
    content["evaluate"] |= {"fractions": (0.2,), "modes": ("keep",), "ablations": ("mean",)}
    content["layout"] |= {"parts": ()}
    content["characterize"] |= {"enabled": False}
    content |= {name: content[name] | {"enabled": False} for name in ("describe", "probe", "intervene", "faithfulness")}
    content["density"] |= {"nulls": (), "bootstraps": 2}
    return combinations(parse_study(content, "small"), "0-1")


def test_runs_in_processes_are_compared_and_left_alone_when_finished(golden: Golden, tmp_path: Path) -> None:
    runs, said = small_sweep(golden), []
    found = sweep(runs, tmp_path / "s", engine="processes", workers=2, say=said.append)
    assert not found.failed, found.failed
    assert found.comparison is not None
    assert found.page == tmp_path / "s" / "compared" / "compared.html"
    assert found.comparison.table("combined")["n"].max() == 2
    assert len(found.comparison.table("neurons"))
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "s").rglob("seed*/*.parquet")}
    again: list[str] = []
    run_combination(str(tmp_path / "s" / "seed0"), runs[0].study.model_dump(), say=again.append)
    assert before == {path: path.stat().st_mtime_ns for path in (tmp_path / "s").rglob("seed*/*.parquet")}
    assert all("not run again" in line for line in again if line.split(":")[0] in ("finetune", "score", "evaluate"))
    alone = Run.create(tmp_path / "alone")
    run_combination(str(alone.path), runs[1].study.model_dump())
    own, other = (run.table("curves") for run in (alone, Run.open(tmp_path / "s" / "seed1")))
    assert own.select_dtypes("number").to_numpy() == pytest.approx(
        other.select_dtypes("number").to_numpy(), rel=1e-6, abs=1e-9, nan_ok=True
    )


def test_ctrl_c_of_the_command_stops_its_processes(golden: Golden, tmp_path: Path) -> None:
    study = tmp_path / "s.toml"
    study.write_text(write_study(small_sweep(golden)[0].study))
    command = [sys.executable, "-m", "plmscope", "sweep", str(study), "--seeds", "0-1", "--out", str(tmp_path / "s")]
    driver = subprocess.Popen(
        [*command, "--engine", "processes", "--workers", "2"], stderr=subprocess.PIPE, text=True, cwd=os.getcwd()
    )
    try:
        until = time.monotonic() + 120
        while not (tmp_path / "s" / "seed1" / "manifest.json").is_file():
            assert time.monotonic() < until
            assert driver.poll() is None, driver.stderr and driver.stderr.read()
            time.sleep(0.1)
        children = subprocess.run(
            ["pgrep", "-P", str(driver.pid)], capture_output=True, text=True, check=False
        ).stdout.split()
        driver.send_signal(signal.SIGINT)
        _, said = driver.communicate(timeout=60)
    finally:
        driver.kill()
    assert driver.returncode == 130, said
    assert "the same command continues from here" in said
    assert len(children) == 2
    assert not any(Path(f"/proc/{pid}/cmdline").is_file() for pid in children)


def test_the_demos_study_can_be_swept() -> None:
    found = combinations(demo_study(), "0-4")
    assert [one.study.seed for one in found] == [0, 1, 2, 3, 4]
    assert issubclass(StudyError, PlmscopeError)
