"""Run every combination, each an ordinary run folder that resumes; then put what is finished side by side.

``sweep.json`` in the folder says what became of every run. A run that fails does not stop the others. Runs are tasks:
by default one after the other in this process, by worker processes, or on a Ray cluster that shares this disk.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from plmscope.comparing.comparison import Comparison, compare_runs
from plmscope.comparing.members import SWEEP
from plmscope.errors import PlmscopeError, RunError
from plmscope.progress import Track, silent
from plmscope.store.files import lock, write_atomic
from plmscope.store.folder import Run
from plmscope.study import Stages
from plmscope.study.settings import Study
from plmscope.study.study_file import parse_study
from plmscope.sweeping.combinations import Combination
from plmscope.tasks.engines import check_engine, run_tasks
from plmscope.tasks.task import Outcome, Task

COMPARED_FOLDER = "compared"


@dataclass(frozen=True)
class Swept:
    """What became of a sweep.

    Attributes:
        folder: Where the runs are.
        failed: Names of runs that failed, with the line that says why.
        comparison: Of all runs of the folder that are finished; None where they cannot be compared, or none is.
        page: Of the comparison.
    """

    folder: Path
    failed: Mapping[str, str]
    comparison: Comparison | None
    page: Path | None


def run_combination(
    folder: str, study: Mapping[str, Any], track: Track = silent, say: Callable[[str], None] = lambda line: None
) -> str:
    """The task of one combination: all stages in its run folder; what is finished is left alone.

    Returns:
        The run folder.
    """
    run = Run.create(folder)
    Stages(parse_study(dict(study), folder), run, track, say).execute()
    return folder


def sweep(
    runs: Sequence[Combination],
    folder: Path,
    *,
    engine: str = "local",
    workers: int = 1,
    address: str = "",
    track: Track = silent,
    say: Callable[[str], None] = lambda line: None,
) -> Swept:
    """Run all combinations in ``folder``, then compare its finished runs, earlier ones included.

    Args:
        runs: From :func:`~plmscope.sweeping.combinations.combinations`.
        folder: A run folder for each goes here, and ``compared/``.
        engine: ``local``: one run at a time in this process; ``processes``; ``ray``.
        workers: Runs at a time; each has its share of the cores.
        address: Of a Ray cluster.
        track: Progress of a run, where it runs in this process.
        say: Told one line at a time.

    Raises:
        RunError: the folder cannot be made, holds something else, or another sweep is at work in it.
        StudyError: the engine is not there, or ``local`` is asked for several runs at a time.
    """
    check_engine(engine, workers, address)
    if engine == "local" and workers > 1:
        raise RunError("--workers needs --engine processes or ray: runs draw from one random generator a process")
    _make(folder)
    with lock(folder / ".sweep.lock", f"{folder}: another sweep is at work here"):
        entries = _known(folder)
        for one in runs:
            before = entries.get(one.name, {}).get("status", "waiting")
            entries[one.name] = {"run": one.name, "differs": dict(one.differs), "status": before}
        _save(folder, entries)
        tasks = [
            Task(
                one.name, "plmscope.sweeping.sweep:run_combination",
                {"folder": str(folder.absolute() / one.name), "study": _anywhere(one.study)},
            )
            for one in runs
        ]  # fmt: skip
        alone = engine == "local"
        extras: dict[str, Any] | None = {"track": track, "say": lambda line: say(f"  {line}")} if alone else None
        say(f"{folder}: {len(runs)} run{'s' if len(runs) != 1 else ''}{'' if alone else f', {workers} at a time'}")
        failed: dict[str, str] = {}
        for outcome in run_tasks(tasks, engine, workers, address, extras):
            _keep(folder, entries, outcome)
            failed |= {outcome.id: outcome.error} if outcome.error else {}
            done = sum(entries[one.name]["status"] in ("done", "failed") for one in runs)
            said = f"failed: {outcome.error}" if outcome.error else f"done in {outcome.seconds:.0f} s"
            say(f"{outcome.id}: {said} ({done} of {len(runs)})")
        comparison, page = _compare(folder, entries, say)
    return Swept(folder, failed, comparison, page)


def failures(found: Swept) -> str:
    """One line that names the runs that failed and why; empty where none did."""
    if not found.failed:
        return ""
    told = "; ".join(f"{name}: {reason}" for name, reason in found.failed.items())
    return f"{found.folder}: {len(found.failed)} run{'s' if len(found.failed) > 1 else ''} failed: {told}"


def _anywhere(study: Study) -> dict[str, Any]:
    """The settings with whole paths, for a process that works in another folder."""
    content = study.model_dump()
    for section, key in (
        ("data", "path"), ("data", "labels"), ("model", "checkpoint"), ("characterize", "features")
    ):  # fmt: skip
        path = Path(content[section][key]).expanduser()
        if content[section][key] and path.exists():
            content[section][key] = str(path.absolute())
    return content


def _make(folder: Path) -> None:
    """The folder of a sweep, new or to continue."""
    try:
        # A lock alone is what a sweep leaves that was killed before it wrote anything.
        foreign = folder.is_dir() and any(not path.name.startswith(".") for path in folder.iterdir())
        if foreign and not (folder / SWEEP).is_file():
            raise RunError(f"{folder}: is not empty and not a sweep; name another folder with --out")
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(f"{folder}: cannot be made ({error.strerror}); name another folder with --out") from None


def _known(folder: Path) -> dict[str, dict[str, Any]]:
    """What an earlier sweep in this folder wrote down."""
    path = folder / SWEEP
    if not path.is_file():
        return {}
    try:
        return {str(entry["run"]): dict(entry) for entry in json.loads(path.read_text(encoding="utf-8"))["runs"]}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunError(f"{path}: cannot be read ({type(error).__name__}); delete it, the runs are kept") from None


def _save(folder: Path, entries: Mapping[str, Mapping[str, Any]]) -> None:
    write_atomic(folder / SWEEP, json.dumps({"runs": list(entries.values())}, indent=1).encode())


def _keep(folder: Path, entries: dict[str, dict[str, Any]], outcome: Outcome) -> None:
    """Write down what became of a run."""
    entry = {key: value for key, value in entries[outcome.id].items() if key != "reason"}
    status = {"status": "failed", "reason": outcome.error} if outcome.error else {"status": "done"}
    entries[outcome.id] = entry | status
    _save(folder, entries)


def _compare(
    folder: Path, entries: Mapping[str, Mapping[str, Any]], say: Callable[[str], None]
) -> tuple[Comparison | None, Path | None]:
    """Put the finished runs side by side, if they can be."""
    done = [folder / name for name, entry in entries.items() if entry["status"] == "done"]
    if not done:
        return None, None
    try:
        comparison = compare_runs(done)
        return comparison, comparison.write(folder / COMPARED_FOLDER)
    except PlmscopeError as error:
        say(f"not compared: {error}")
        return None, None
