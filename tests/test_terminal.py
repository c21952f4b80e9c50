"""Reports for programs: JSON lines on standard error, exit statuses, completion of the shell."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from plmscope import terminal
from plmscope.cli import main


@pytest.fixture
def as_json() -> object:
    terminal.report_as_json(True)
    yield
    terminal.report_as_json(False)


def events(text: str) -> list[dict[str, object]]:
    return [json.loads(line) for line in text.splitlines()]


def test_progress_is_one_object_a_line(as_json: object, capfd: pytest.CaptureFixture[str]) -> None:
    track = terminal.track(quiet=False)
    assert list(track("abc", "spelling", 3)) == ["a", "b", "c"]
    terminal.tell("two\nlines \x1b[31m")
    first, last, said = events(capfd.readouterr().err)
    assert first == {"event": "progress", "task": "spelling", "done": 0, "total": 3, "seconds": 0.0}
    assert last["done"] == 3 and last["seconds"] >= 0
    assert said == {"event": "message", "text": "two\nlines \x1b[31m"}


def test_progress_comes_once_in_a_while(
    as_json: object, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter([0.0, 0.4, 1.2, 1.3, 2.5, 2.6])
    monkeypatch.setattr("plmscope.terminal.time.monotonic", lambda: next(clock))
    list(terminal.track(quiet=False)(range(4), "waiting", 4))
    assert [(one["done"], one["seconds"]) for one in events(capfd.readouterr().err)] == [(0, 0.0), (2, 1.2), (4, 2.6)]


@pytest.mark.parametrize("words", [["--progress", "json"], ["--progress=json"]])
def test_an_error_and_the_end_are_events(words: list[str], tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "none.toml"
    assert main(["run", str(path), *words]) == 2
    captured = capfd.readouterr()
    error, end = events(captured.err)
    assert error["event"] == "error" and str(error["text"]).startswith(f"{path}: cannot be read")
    assert end == {"event": "end", "status": 2} and not captured.out
    assert main(["run", *words]) == 2  # what typer refuses is an event too
    assert [one["event"] for one in events(capfd.readouterr().err)] == ["error", "end"]


def test_form_of_progress_that_there_is_not(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "x.toml", "--progress", "xml"]) == 2
    assert "'xml' is not known; use text or json" in capfd.readouterr().err
    assert main(["run", "x.toml"]) == 2  # text again
    assert capfd.readouterr().err.startswith("plmscope: error: ")


def test_a_fault_of_plmscope_ends_with_status_1(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def bug(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("plmscope.study.study_file.read_study", bug)
    with pytest.raises(ZeroDivisionError):
        main(["run", "x.toml", "--progress", "json"])
    assert events(capfd.readouterr().err) == [{"event": "end", "status": 1}]


def test_the_shell_completes_commands() -> None:
    asked = {"_PLMSCOPE_COMPLETE": "complete_bash", "COMP_WORDS": "plmscope exp", "COMP_CWORD": "1"}
    code = "import sys; sys.argv[0] = 'plmscope'; from plmscope.cli import main_cli; main_cli()"
    done = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | asked, capture_output=True, text=True, check=False
    )
    assert {"explain", "export"} <= set(done.stdout.split()) and "init" not in done.stdout.split()
