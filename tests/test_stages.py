"""A stage is one file and one row: what it declares is what it reads, and everything else follows from that."""

from __future__ import annotations

import re
import shutil
from collections import defaultdict
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import typer
from typer.testing import CliRunner

import plmscope.models.loading
from plmscope import cli
from plmscope.cli import main
from plmscope.scoring.shards import PartialScores
from plmscope.store.folder import Run
from plmscope.store.schema import SCHEMA
from plmscope.study import Stages, order, scoring
from plmscope.study.inputs import Inputs
from plmscope.study.order import ROWS, StageRow, commands, names
from plmscope.study.settings import WITHOUT_EFFECT, SettingsSection, Study
from plmscope.study.stages import EVERYTHING, Context, Graph, Stage, setting, settings_of, tables
from plmscope.study.study_file import parse_study, read_study
from tests.conftest import Golden
from tests.test_study import changed

ROOT = Path(__file__).parents[1]
#: What stages depend on as one value, though it is made of several settings.
MADE_OF_SEVERAL = ("judged", "card_methods", "density.resampled")


# --- what follows from the declarations


def test_every_table_has_one_owner() -> None:
    graph = Graph()
    for name in (*SCHEMA, "metrics", "model"):
        owners = [stage.name for stage in graph if any(Path(f).stem == name for f in stage.every_product)
                  or stage.owns(name)]  # fmt: skip
        of_nulls = {"training": "finetune", "neurons": "score", "class_scores": "score"}
        expected = [of_nulls[name], "nulls"] if name in of_nulls else None
        # Null models have files of their own with the same names, in folders of their own.
        assert owners == expected or len(owners) == 1, (name, owners)
    files = [file for stage in graph for file in stage.every_product]
    assert len(files) == len(set(files))


def test_a_command_takes_shards_where_a_stage_of_it_has_them() -> None:
    graph = Graph()
    has = {row.name for row in commands() if any(graph[one].share for one in graph.together([row.name]))}
    assert {row.name for row in ROWS if row.shards} == has == {"score", "evaluate", "density", "intervene"}


def test_two_owners_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    from tests import own_stage

    monkeypatch.setattr(own_stage, "STAGE", replace(own_stage.STAGE, writes=tables("density")))
    with pytest.raises(ValueError, match=r"density.parquet is written by 'density' and by 'unexplained'"):
        Graph([*ROWS, StageRow("unexplained", "tests.own_stage", "count")])
    monkeypatch.setattr(own_stage, "STAGE", replace(own_stage.STAGE, writes=(), reads=("nothing",)))
    with pytest.raises(ValueError, match=r"'unexplained' reads 'nothing', which no stage before it writes"):
        Graph([*ROWS, StageRow("unexplained", "tests.own_stage", "count")])


def test_the_page_on_run_folders_has_the_stages() -> None:
    page = (ROOT / "docs" / "run-folder.md").read_text()
    rows = re.findall(r"^\| (\w+) \| `plmscope (\w+)` \| (.+?) \| (.+?) \| (.+?) \|$", page, re.MULTILINE)
    graph = Graph()
    assert [row[0] for row in rows] == list(names())
    for (name, command, about, reads, writes), row in zip(rows, ROWS, strict=True):
        stage = graph[name]
        assert command == (row.along or name) and about == row.about
        told = set(re.findall(r"`([\w./*]+)`", reads))
        assert told == set(stage.reads) - {EVERYTHING}
        assert ("everything" in reads) == (EVERYTHING in stage.reads)
        written = {re.sub(r"nulls/\w+/", "nulls/*/", file).removesuffix(".parquet") for file in stage.every_product}
        assert set(re.findall(r"`([\w./*]+)`", writes)) == {
            "model/" if w == "model/config.json" else w for w in written
        }


@pytest.mark.parametrize(
    ("changes", "again"),
    [
        ({"evaluate": {"draws": 4}}, "evaluate report"),
        ({"density": {"bootstraps": 30}}, "density report"),
        ({"evaluate": {"token_budget": 99}}, ""),
        ({"score": {"token_budget": 99, "recompute": True}, "characterize": {"token_budget": 9}}, ""),
        ({"evaluate": {"fractions": [0.2, 0.5]}}, "select evaluate report"),
        ({"evaluate": {"max_proteins": 6}}, "evaluate null_kinds intervene layout faithfulness report"),
        ({"density": {"nulls": ["random_weights"]}}, "nulls null_kinds density null_fits stability layout report"),
        ({"density": {"nulls": []}}, "nulls null_kinds density null_fits stability layout report"),
        ({"density": {"fractions": [0.05]}}, "select density null_fits report"),
        ({"density": {"halves": False}}, "stability report"),
        ({"report": {"knowledge_fraction": 0.1}}, "select characterize describe report"),
        ({"intervene": {"draws": 3}}, "intervene report"),
        ({"intervene": {"fraction": 0.1}}, "select stability intervene report"),
        ({"intervene": {"enabled": False}}, "intervene report"),
        ({"describe": {"share": 0.01}}, "describe report"),
        ({"probe": {"controls": 2}}, "probe report"),
        ({"layout": {"draws": 3}}, "layout report"),
        ({"faithfulness": {"sample": 12}}, "faithfulness report"),
        ({"characterize": {"fdr": 0.1}}, "characterize describe probe report"),
        (
            {"evaluate": {"methods": ["integrated_gradients"]}},
            "evaluate null_kinds characterize describe layout report",
        ),
        ({"name": "other"}, "report"),
        ({"score": {"points": 6}}, " ".join(names()[1:])),
        ({"density": {"bootstraps": 0}}, " ".join(names()[1:])),
        ({"finetune": {"token_budget": 256}}, " ".join(names())),
    ],
    ids=lambda value: str(value),
)
def test_what_a_changed_setting_runs_again(golden: Golden, tmp_path: Path, changes: dict[str, Any], again: str) -> None:
    study = read_study(changed(golden.study, tmp_path / "study.toml", **changes))
    stages = Stages(study, Run.open(golden.run))
    assert [name for name in names() if not stages.is_done(name)] == again.split()


def test_more_resamples_need_no_scoring(golden: Golden, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    folder = golden.copy(tmp_path / "run")
    study = changed(golden.study, tmp_path / "study.toml", density={"bootstraps": 23})
    before = {path.name: path.read_bytes() for path in folder.glob("*.parquet")}
    assert main(["run", str(study), "--out", str(folder)]) == 0
    done = [line.split(":")[0] for line in capfd.readouterr().err.splitlines() if "done in" in line]
    assert done == ["density", "report"]
    assert Run.open(folder).own("score_bootstraps")["resample"].max() == 22
    after = {path.name: path.read_bytes() for path in folder.glob("*.parquet")}
    assert {name for name in before if after[name] != before[name]} == {"density.parquet", "score_bootstraps.parquet"}
    # And back: what the scores were made of is still there, to the last bit.
    assert main(["run", str(golden.study), "--out", str(folder)]) == 0
    assert {path.name: path.read_bytes() for path in folder.glob("*.parquet")} == before


def test_without_interventions_overlap_and_stability_stay(
    golden: Golden, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = golden.copy(tmp_path / "run")
    study = changed(golden.study, tmp_path / "study.toml", intervene={"enabled": False})
    before = {name: (folder / f"{name}.parquet").read_bytes() for name in ("stability", "class_overlap")}
    assert main(["run", str(study), "--out", str(folder)]) == 0
    lines = capfd.readouterr().err.splitlines()
    assert "intervene: left out" in lines
    assert [line.split(":")[0] for line in lines if "done in" in line] == ["report"]
    assert {name: (folder / f"{name}.parquet").read_bytes() for name in before} == before
    assert not any((folder / f"{name}.parquet").exists() for name in ("interventions", "neuron_effects"))
    assert Run.open(folder).manifest()["interventions"] == {"enabled": False}


@pytest.mark.parametrize(
    ("stage", "said"),
    [
        ("intervene", "[intervene] enabled = false"),
        ("layout", "[layout] parts = []"),
    ],
)
def test_a_stage_that_is_asked_for_by_name_says_what_leaves_it_out(
    golden: Golden, tmp_path: Path, capfd: pytest.CaptureFixture[str], stage: str, said: str
) -> None:
    folder = golden.copy(tmp_path / "run")
    changed(golden.study, folder / "study.toml", intervene={"enabled": False}, layout={"parts": []})
    for _ in range(2):  # also where that is how it was left
        assert main([stage, str(folder)]) == 0
        lines = capfd.readouterr().err.splitlines()
        assert lines[0] == (
            f"{stage}: left out, since {folder / 'study.toml'} says {said}; change it there, then run this again"
        )
        assert not any("finished before" in line for line in lines)


# --- what stages really read


class Recorded:
    """Settings that remember which of them were looked at."""

    def __init__(self, value: SettingsSection, path: str, seen: set[str]) -> None:
        self._value, self._path, self._seen = value, path, seen

    def __getattr__(self, name: str) -> Any:
        path = f"{self._path}.{name}" if self._path else name
        found = getattr(self._value, name)
        if isinstance(found, SettingsSection):
            return Recorded(found, path, self._seen)
        if name in type(self._value).model_fields or path in MADE_OF_SEVERAL:
            self._seen.add(path)
            return found
        if name == "model_copy":
            return lambda **how: Recorded(self._value.model_copy(**how), self._path, self._seen)
        own = getattr(type(self._value), name)
        return own.fget(self) if isinstance(own, property) else partial(own, self)


class RecordingRun(Run):
    """A run folder that remembers which of its tables were read."""

    seen: set[str]

    def table(self, name: str) -> pd.DataFrame:
        self.seen.add(name)
        return super().table(name)

    def own(self, name: str) -> pd.DataFrame:
        self.seen.add(name.split("/")[0])
        return super().own(name)


class Watched(Stages):
    """Stages that are watched while they run."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.settings: dict[str, set[str]] = defaultdict(set)
        self.tables: dict[str, set[str]] = defaultdict(set)

    def context(self, name: str) -> Context:
        study: Any = Recorded(self.study, "", self.settings[name])
        run = RecordingRun(self.run.path)
        run.seen = self.tables[name]
        self.now = run.seen
        inputs = Inputs(study, run, self.track, self.say)
        inputs.again = True
        return replace(super().context(name), study=study, run=run, inputs=inputs)


@pytest.fixture(scope="module")
def watched(golden: Golden, tmp_path_factory: pytest.TempPathFactory) -> Watched:
    """Every stage run again; of the models, that from random weights is trained again."""
    folder = golden.copy(tmp_path_factory.mktemp("watched") / "run")
    shutil.rmtree(folder / "nulls" / "random_weights")
    for path in folder.rglob("*.parquet"):
        path.unlink()
    stages = Watched(read_study(golden.study), Run.open(folder))
    with pytest.MonkeyPatch.context() as patch:
        load_model, load = plmscope.models.loading.load_model, PartialScores.load

        def of_model(path: Any, **how: Any) -> Any:
            if Path(path) == folder / "model":
                stages.now.add("model")
            return load_model(path, **how)

        def of_sums(path: Path, index: Any) -> Any:
            if path.parent == folder:
                stages.now.add(path.name)
            return load(path, index)

        patch.setattr(plmscope.models.loading, "load_model", of_model)
        # The stamp of saved parts is made of what is declared, whatever that is.
        patch.setattr(scoring, "settings_of", lambda study, paths: settings_of(stages.study, paths))
        patch.setattr(PartialScores, "load", of_sums)
        stages.execute()
    return stages


@pytest.mark.parametrize("name", names()[:-1])
def test_a_stage_reads_the_settings_that_it_declares(watched: Watched, name: str) -> None:
    stage, seen = watched.graph[name], watched.settings[name] - WITHOUT_EFFECT
    declared = set(settings_of(watched.study, stage.settings))
    assert seen, "nothing was recorded"
    assert seen <= declared, f"{name} reads {sorted(seen - declared)} too"
    for path in stage.settings:
        value = setting(watched.study, path)
        read = any(one.startswith(f"{path}.") for one in seen) if isinstance(value, SettingsSection) else path in seen
        assert read, f"{name} never reads {path}"


@pytest.mark.parametrize("name", names()[:-1])
def test_a_stage_reads_the_tables_that_it_declares(watched: Watched, name: str) -> None:
    stage = watched.graph[name]
    foreign = {table for table in watched.tables[name] if not stage.owns(table)}
    assert foreign == set(stage.reads)


def test_the_report_shows_everything(watched: Watched) -> None:
    assert watched.graph.needs("report") == names()[:-1] and watched.graph["report"].view


# --- a new stage


@pytest.fixture
def own(monkeypatch: pytest.MonkeyPatch) -> StageRow:
    """Its one row, before the report."""
    row = StageRow("unexplained", "tests.own_stage", "count selected neurons that nothing explains")
    monkeypatch.setattr(order, "ROWS", (*ROWS[:-1], row, ROWS[-1]))
    monkeypatch.setattr("plmscope.study.stages.ROWS", order.ROWS)
    monkeypatch.setitem(SCHEMA, "unexplained", ("method", "neurons"))
    return row


def test_a_stage_of_one_file_and_one_row(
    golden: Golden, tmp_path: Path, own: StageRow, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = golden.copy(tmp_path / "run")
    run = Run.open(folder)

    def done() -> list[str]:
        assert main(["run", str(folder / "study.toml"), "--out", str(folder)]) == 0
        return [line.split(":")[0] for line in capfd.readouterr().err.splitlines() if "done in" in line]

    assert done() == ["unexplained", "report"]  # nothing else, and the report may show it
    cards = run.table("neuron_cards")
    expected = (~cards["explained"].astype(bool)).groupby(cards["method"]).sum()
    found = run.table("unexplained").set_index("method")["neurons"]
    assert found.to_dict() == expected.to_dict() and run.manifest()["unexplained"] == expected.sum()
    assert done() == []
    (folder / "unexplained.parquet").unlink()
    assert done() == ["unexplained", "report"]
    # Its own command, which the table of stages brings.
    app = typer.Typer()
    with monkeypatch.context() as patch:
        patch.setattr(cli, "app", app)
        cli._stage_command(own)
    app.command("another")(lambda: None)
    shown = CliRunner().invoke(app, ["unexplained", "--help"])
    assert "Eleventh stage: count selected neurons that nothing explains." in shown.stdout
    # What it depends on is run again: it is outdated and its table goes.
    run.clear("neuron_cards.parquet")
    assert main(["characterize", str(folder), "--quiet"]) == 0
    assert run.manifest()["stages"]["unexplained"]["status"] == "outdated" and not run.has("unexplained")


def test_a_stage_is_a_plain_object() -> None:
    ran: list[str] = []
    stage = Stage(
        "x", lambda context: ran.append(context.stage), ("seed",), writes=tables("x"), switches=("density.nulls",)
    )
    study = parse_study({"density": {"nulls": []}}, "x")
    assert not stage.wanted(study) and stage.wanted(Study()) and stage.products(study) == ("x.parquet",)
    assert [row.name for row in commands()] == [
        "finetune", "score", "evaluate", "density", "characterize", "describe", "probe", "intervene",
        "layout", "faithfulness", "report",
    ]  # fmt: skip
