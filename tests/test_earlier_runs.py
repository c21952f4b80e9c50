"""A run folder of an earlier plmscope opens, reports and exports as before; reading it runs nothing again."""

from __future__ import annotations

import re
import tarfile
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from plmscope.cli import main
from plmscope.evaluation.selection import select_top
from plmscope.store.folder import Run
from plmscope.store.schema import SCHEMA, SCHEMA_VERSION
from plmscope.study import Stages, names
from plmscope.study.inputs import Inputs
from plmscope.study.opened import open_run
from plmscope.study.study_file import read_study

PACKED = Path(__file__).parent / "earlier" / "run-1.3.tar.xz"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    with tarfile.open(PACKED) as packed:
        packed.extractall(tmp_path / "run", filter="data")
    return tmp_path / "run"


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def words(page: str) -> list[str]:
    """What a reader of a report sees, line by line."""
    for kind in ("script", "style"):
        page = re.sub(rf"<{kind}.*?</{kind}>", "", page, flags=re.DOTALL)
    return [line.strip() for line in re.sub(r"<[^>]+>", "\n", page).splitlines() if line.strip()]


def test_it_opens(folder: Path) -> None:
    run = open_run(folder)
    assert run.run.manifest()["schema_version"] == "1.3" != SCHEMA_VERSION
    assert "finished: finetune, score, evaluate, density, characterize, intervene, report)" in repr(run)
    assert len(run.proteins("test")) == 6 and run.model.ablation_means.shape == (3, len(run.model.index))
    kept = select_top(run.ranking("integrated_gradients"), 0.1)
    table = run.run.table("selections").query(
        "method == 'integrated_gradients' and scope == 'pooled' and fraction == 0.1"
    )
    assert kept.table().to_numpy().tolist() == table[["layer", "module", "neuron"]].to_numpy().tolist()
    assert list(run.run.table("training")["model"].unique()) == ["fine-tuned", "label_shuffled"]


def test_it_is_reported_as_before_and_nothing_runs_again(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    before, page = contents(folder), (folder / "page.txt").read_text().splitlines()
    assert main(["report", str(folder)]) == 0
    assert [line.split(":")[0] for line in capfd.readouterr().err.splitlines()] == ["report"]
    after = contents(folder)
    assert {name for name in after if after[name] != before.get(name)} == {"manifest.json", "report.html", ".lock"}
    stages = Run.open(folder).manifest()["stages"]
    assert {name: entry["status"] for name, entry in stages.items()} == dict.fromkeys(stages, "done")
    found = words((folder / "report.html").read_text())
    first = page.index("Where it was found") if "Where it was found" in page else page.index("Method by method")
    assert found[:first] == page[:first]
    assert set(page) - set(found) == set(), sorted(set(page) - set(found))[:5]


def test_it_is_exported_as_before(folder: Path) -> None:
    assert main(["export", str(folder)]) == 0
    written = {path.stem for path in (folder / "csv").iterdir()}
    assert written == {name for name in SCHEMA if (folder / f"{name}.parquet").is_file()} and len(written) > 20
    for name in written:
        csv = pd.read_csv(folder / "csv" / f"{name}.csv")
        assert len(csv) == len(pd.read_parquet(folder / f"{name}.parquet")), name


def test_one_stage_of_it_is_refused_and_not_run(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    before = contents(folder)
    assert main(["density", str(folder)]) == 2
    line = capfd.readouterr().err
    assert "the stage 'finetune' comes first; run 'plmscope run " in line and line.count("\n") == 1
    assert {name: content for name, content in contents(folder).items() if name != ".lock"} == before


def test_running_it_again_is_said_in_a_line(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    ran: list[str] = []
    monkeypatch.setattr(Inputs, "digest", lambda self, name: name)
    monkeypatch.setattr(Stages, "_run", lambda self, stage, started: ran.append(stage.name))
    stages = Stages(read_study(folder / "study.toml"), Run.open(folder), say=said.append)
    for name, stage in stages.graph.stages.items():
        stages.graph.stages[name] = replace(stage, check=None)  # its data are elsewhere
    stages.execute()
    assert said == [f"{folder}: was made by an earlier plmscope; its stages run again where they are asked for"]
    assert ran == list(names())
