"""The run folder: nothing half written, nothing foreign touched, damage named."""

import errno
import json
import os
from pathlib import Path

import pandas as pd
import pytest

from plmscope.errors import RunError
from plmscope.store.files import write_atomic
from plmscope.store.folder import Run
from plmscope.store.schema import SCHEMA, SCHEMA_VERSION
from plmscope.study import names


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run.create(tmp_path / "runs" / "one")


def table(name: str) -> pd.DataFrame:
    """A row of numbers in the columns of a table, in the wrong order."""
    return pd.DataFrame([range(len(SCHEMA[name]))], columns=list(SCHEMA[name])).iloc[:, ::-1]


def test_atomic_write_replaces_or_leaves_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x.json"
    write_atomic(path, b"old")
    write_atomic(path, b"new")
    assert path.read_bytes() == b"new" and list(tmp_path.iterdir()) == [path]

    def half(target: Path, data: bytes) -> int:
        with target.open("wb") as handle:
            handle.write(data[:1])
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", half)
    with pytest.raises(RunError, match=r"x\.json: cannot be written .No space left on device.; free space there"):
        write_atomic(path, b"newer")
    assert path.read_bytes() == b"new" and list(tmp_path.iterdir()) == [path]


def test_create_then_open(run: Run) -> None:
    assert repr(run) == f"Run({str(run.path)!r}, finished: nothing yet)"
    assert Run.open(run.path).manifest() == {"schema_version": SCHEMA_VERSION, "stages": {}}
    before = (run.path / "manifest.json").read_bytes()
    Run.create(run.path)  # continuing changes nothing
    assert (run.path / "manifest.json").read_bytes() == before
    empty = run.path.parent / "empty"
    empty.mkdir()
    assert Run.create(empty).manifest() == run.manifest()


def test_discard_takes_back_only_what_was_made(tmp_path: Path) -> None:
    made = Run.create(tmp_path / "a" / "b" / "run")
    made.discard()
    assert list(tmp_path.iterdir()) == []

    (tmp_path / "a").mkdir()
    made = Run.create(tmp_path / "a" / "b" / "run")
    (tmp_path / "a" / "b" / "note.txt").write_text("mine")
    made.discard()
    assert [p.name for p in (tmp_path / "a" / "b").iterdir()] == ["note.txt"]

    begun = Run.create(tmp_path / "begun")
    begun.update_manifest(stages={"finetune": {"status": "running"}})
    begun.discard()
    assert begun.manifest()["stages"]

    Run.create(tmp_path / "old")
    Run.create(tmp_path / "old").discard()  # was there before
    assert (tmp_path / "old" / "manifest.json").is_file()


def test_lock_is_held_once_and_dropped(run: Run) -> None:
    with run.locked(), pytest.raises(RunError, match="another plmscope process is writing"), Run(run.path).locked():
        pass
    with run.locked():
        pass
    with pytest.raises(ZeroDivisionError), run.locked():
        raise ZeroDivisionError
    with run.locked():
        pass


def test_manifest_merges_stage_by_stage(run: Run) -> None:
    run.update_manifest(seed=1, stages={"score": {"status": "done", "fingerprint": "a"}})
    run.update_manifest(device="cpu", stages={"report": {"status": "running", "fingerprint": "b"}})
    manifest = run.manifest()
    assert (manifest["seed"], manifest["device"], set(manifest["stages"])) == (1, "cpu", {"score", "report"})
    assert run.is_done("score", "a") and not run.is_done("score", "b")
    assert not run.is_done("report", "b") and not run.is_done("density", "a")
    assert repr(run).endswith("finished: score)")
    was = ("finetune", "score", "evaluate", "density", "characterize", "intervene", "report")
    assert tuple(name for name in names() if name in was) == was


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "manifest.json: cannot be read"),
        ("{", "manifest.json: cannot be read"),
        ("3", "manifest.json: is not a JSON object"),
        ('{"schema_version": "1.0", "stages": {"score": 3}}', "its 'stages' are damaged"),
        ('{"stages": {}}', "schema_version '' is not '1.8'"),
        ('{"schema_version": "2.1"}', "schema_version '2.1' is not '1.8'; use the plmscope that wrote it"),
    ],
)
def test_damaged_manifest(run: Run, text: str, message: str) -> None:
    (run.path / "manifest.json").write_text(text)
    for use in (Run.open, Run.create):
        with pytest.raises(RunError, match=message):
            use(run.path)


def test_later_minor_schema_opens(run: Run) -> None:
    (run.path / "manifest.json").write_text('{"schema_version": "1.8"}')
    assert Run.open(run.path).manifest()["stages"] == {}


@pytest.mark.parametrize("name", sorted(SCHEMA))
def test_table_comes_back_in_the_order_of_the_schema(run: Run, name: str) -> None:
    assert not run.has(name)
    run.write_table(name, table(name).assign(zz_extra=1))
    assert run.has(name)
    back = run.table(name)
    assert list(back.columns) == [*SCHEMA[name], "zz_extra"]
    assert back.iloc[0, : len(SCHEMA[name])].tolist() == list(range(len(SCHEMA[name])))


def test_table_without_a_column_is_not_written(run: Run) -> None:
    with pytest.raises(RunError, match=r"table curves: columns \['accuracy'\] are missing"):
        run.write_table("curves", table("curves").drop(columns="accuracy"))
    assert not run.has("curves")


def test_damaged_tables_are_named(run: Run) -> None:
    with pytest.raises(RunError, match=r"density\.parquet: missing; 'plmscope run' writes it"):
        run.table("density")
    run.write_table("density", table("density"))
    path = run.path / "density.parquet"
    whole = path.read_bytes()
    for data in (b"", whole[:100], whole[:-1]):
        path.write_bytes(data)
        with pytest.raises(RunError, match=r"density\.parquet: is damaged .*; delete it") as caught:
            run.table("density")
        assert "\n" not in str(caught.value)
    table("density").drop(columns=["layer", "q_value"]).to_parquet(path)
    with pytest.raises(RunError, match=r"density\.parquet: lacks the columns layer, q_value; delete it"):
        run.table("density")


def test_metrics(run: Run) -> None:
    with pytest.raises(RunError, match=r"metrics\.json: cannot be read .No such file or directory.; delete it"):
        run.metrics()
    block = {"balanced_accuracy": 0.5}
    test: dict[str, object] = {"model": block, "composition": block, "majority": block}
    run.write_json("metrics.json", {"splits": {"test": test}, "a": [2]})
    assert run.metrics() == {"a": [2], "splits": {"test": test}}
    assert list(json.loads((run.path / "metrics.json").read_text())) == ["a", "splits"]
    splits = (5, {"test": 5}, {"test": test | {"model": {}}}, {"test": {"model": block}}, {"test": test, "train": 5})
    for damaged in ({}, *({"splits": one} for one in splits)):
        run.write_json("metrics.json", damaged)
        with pytest.raises(RunError, match=r"metrics\.json: its 'splits' are damaged; delete it, then"):
            run.metrics()


def test_export_and_clear(run: Run) -> None:
    run.write_table("excluded", pd.DataFrame({"id": ["p,1"], "reason": ['"quoted"']}))
    written = run.export(run.path / "csv" / "deep")
    assert [path.name for path in written] == ["excluded.csv"]
    assert pd.read_csv(written[0]).to_dict("list") == {"id": ["p,1"], "reason": ['"quoted"']}
    run.clear("csv", "excluded.parquet", "never.there")
    assert sorted(path.name for path in run.path.iterdir()) == ["manifest.json"]


@pytest.mark.parametrize("name", sorted(SCHEMA))
def test_every_table_has_its_row_with_all_its_columns_in_the_docs(name: str) -> None:
    text = (Path(__file__).parents[1] / "docs" / "run-folder.md").read_text(encoding="utf-8")
    rows = [line for line in text.splitlines() if line.startswith(f"| `{name}` |")]
    assert len(rows) == 1, f"docs/run-folder.md has {len(rows)} rows for {name}"
    columns = rows[0].split("|")[3]
    missing = [column for column in SCHEMA[name] if f"`{column}`" not in columns]
    assert not missing, f"docs/run-folder.md: {name} lacks {missing}"


def test_a_disk_without_locks_is_not_another_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = Run.create(tmp_path / "run")

    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr("fcntl.flock", refuse)
    with pytest.raises(RunError, match=r"cannot be locked \(No locks available\); use a folder on another disk"):
        run.locked().__enter__()
