"""What a stage is: what it depends on, what it writes, and how it runs.

A stage *reads* tables of other stages, and depends on those that own them; it depends on *settings* and on *digests* of
what a study reads from outside. The digest of all of these is its fingerprint: while that stays and its files are
there, it is not run again. Nothing else makes it run, so what it declares has to be what it really reads
(``tests/test_stages.py`` watches it).
"""

from __future__ import annotations

import importlib
import importlib.metadata
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path
from typing import Any

from plmscope.progress import Track
from plmscope.store.folder import Run
from plmscope.study.inputs import Inputs
from plmscope.study.opened import OpenRun
from plmscope.study.order import ROWS, StageRow
from plmscope.study.settings import WITHOUT_EFFECT, SettingsSection, Study
from plmscope.tasks.crew import ALONE, Crew
from plmscope.tasks.shard import Shard

#: Among what a stage reads: every table of every other stage.
EVERYTHING = "*"


@dataclass
class Context:
    """What a running stage works with.

    Attributes:
        stage: Its name.
        study: Settings.
        run: Where results go.
        inputs: What the study reads from outside the run folder.
        track: Progress.
        say: Told one line at a time what happens.
        fingerprint: That of any stage, by its name.
        shards: A folder whose shards are to be merged instead of scoring.
        crew: Who does the long parts.
    """

    stage: str
    study: Study
    run: Run
    inputs: Inputs
    track: Track
    say: Callable[[str], None]
    fingerprint: Callable[[str], str]
    shards: Path | None = None
    crew: Crew = ALONE

    @cached_property
    def opened(self) -> OpenRun:
        """The run folder as Python objects."""
        return OpenRun(self.run, self.study)

    @property
    def parts(self) -> Path:
        """Where the stage keeps what it has so far, for whoever continues after a kill; removed when it is done."""
        return parts_of(self.run, self.stage)

    @property
    def stamp(self) -> str:
        """Tells parts of these inputs from others."""
        return self.fingerprint(self.stage)[:16]


def parts_of(run: Run, stage: str) -> Path:
    """The folder where a stage keeps what it has so far."""
    return run.path / f"{stage}.parts"


@dataclass(frozen=True)
class Stage:
    """One step of a study.

    Attributes:
        name: That of its row in :data:`~plmscope.study.order.ROWS`.
        run: Does it; returns what the manifest keeps.
        share: Does one shard of its tasks, keeps what they gave, in a folder that the user names or else in the run
            folder, and says whether all of the stage's are in the run folder now. None: it has no shards.
        settings: What its results depend on, such as ``seed``, ``evaluate.draws``, or ``evaluate`` for a whole section.
            Settings that change memory and speed alone, and names of files, do not count.
        reads: Tables and files of other stages; ``model`` is the folder of that name.
        writes: Files that it writes, each with no other owner.
        asked: Files that only some settings ask for.
        extra: Of its files those that no stage reads and earlier versions did not write: it is done without them.
        digests: What it reads from outside: ``data``, ``model`` or ``features``.
        switches: Settings that leave the stage out where one is false or empty.
        off: What the manifest keeps where it is left out.
        check: Refuses inputs before any stage runs.
        view: Whether it only shows what is there: it is written anew when something changed, never removed, and asks
            for no other stage to be up to date.
    """

    name: str
    run: Callable[[Context], Mapping[str, Any] | None]
    share: Callable[[Context, Shard, Path | None], bool] | None = None
    settings: tuple[str, ...] = ()
    reads: tuple[str, ...] = ()
    writes: tuple[str, ...] = ()
    asked: Mapping[str, Callable[[Study], bool]] = field(default_factory=dict)
    extra: tuple[str, ...] = ()
    digests: tuple[str, ...] = ()
    switches: tuple[str, ...] = ()
    off: Mapping[str, Any] = field(default_factory=dict)
    check: Callable[[Context], object] | None = None
    view: bool = False

    def wanted(self, study: Study) -> bool:
        """Whether a study has this stage at all."""
        return not self.off_by(study)

    def off_by(self, study: Study) -> str:
        """The setting that leaves the stage out, as a study file has it: ``[layout] parts = []``; empty for none."""
        for path in self.switches:
            if not (value := setting(study, path)):
                section, _, key = path.partition(".")
                return f"[{section}] {key} = {json.dumps(value)}"
        return ""

    def products(self, study: Study) -> tuple[str, ...]:
        """The files that it writes with these settings."""
        return (*self.writes, *(name for name, asked in self.asked.items() if asked(study)))

    @property
    def every_product(self) -> tuple[str, ...]:
        """The files that it writes with any settings."""
        return (*self.writes, *self.asked)

    def owns(self, name: str) -> bool:
        """Whether a table, a file or a folder is this stage's."""
        return any(file in (name, f"{name}.parquet") or file.startswith(f"{name}/") for file in self.every_product)


def tables(*names: str) -> tuple[str, ...]:
    """The files of tables."""
    return tuple(f"{name}.parquet" for name in names)


class Graph:
    """The stages of a study in order, and which depends on which.

    Args:
        rows: One a stage.

    Raises:
        ValueError: a file has two owners, or a stage reads what no stage before it writes.
    """

    def __init__(self, rows: Sequence[StageRow] | None = None) -> None:
        self.rows = {row.name: row for row in (ROWS if rows is None else rows)}
        self.stages: dict[str, Stage] = {
            name: importlib.import_module(row.module).STAGE for name, row in self.rows.items()
        }
        seen: dict[str, Stage] = {}
        self._needs: dict[str, tuple[str, ...]] = {}
        for name, stage in self.stages.items():
            if stage.name != name:
                raise ValueError(f"the stage of {self.rows[name].module} is called {stage.name!r}, its row {name!r}")
            for file in stage.every_product:
                if other := next((one.name for one in seen.values() if one.owns(file)), ""):
                    raise ValueError(f"{file} is written by {other!r} and by {name!r}")
            owners = {read: [one.name for one in seen.values() if read == EVERYTHING or one.owns(read)]
                      for read in stage.reads}  # fmt: skip
            if unowned := [read for read, found in owners.items() if not found]:
                raise ValueError(f"{name!r} reads {unowned[0]!r}, which no stage before it writes")
            needed = {owner for found in owners.values() for owner in found}
            self._needs[name] = tuple(one for one in seen if one in needed)
            seen[name] = stage

    def __iter__(self) -> Any:
        return iter(self.stages.values())

    def __getitem__(self, name: str) -> Stage:
        return self.stages[name]

    def needs(self, name: str) -> tuple[str, ...]:
        """The stages whose tables one reads."""
        return self._needs[name]

    def before(self, name: str) -> tuple[str, ...]:
        """The stages that one depends on, directly or through others, in order."""
        names = {other for need in self.needs(name) for other in (need, *self.before(need))}
        return tuple(one for one in self.stages if one in names)

    def after(self, name: str) -> tuple[str, ...]:
        """The stages that depend on one, in order."""
        return tuple(one for one in self.stages if name in self.before(one))

    def together(self, wanted: Sequence[str]) -> list[str]:
        """The wanted stages in order, with those that run along with them."""
        return [name for name, row in self.rows.items() if name in wanted or row.along in wanted]


def setting(study: Study, path: str) -> Any:
    """One value of the settings, such as ``evaluate.draws``."""
    value: Any = study
    for part in path.split("."):
        value = getattr(value, part)
    return value


def settings_of(study: Study, paths: Sequence[str]) -> dict[str, Any]:
    """The values of settings that results depend on, sections key by key."""
    values: dict[str, Any] = {}
    for path in paths:
        value = setting(study, path)
        if isinstance(value, SettingsSection):
            values |= {f"{path}.{key}": getattr(value, key) for key in type(value).model_fields}
        else:
            values[path] = value
    return {path: value for path, value in sorted(values.items()) if path not in WITHOUT_EFFECT}


@cache
def versions() -> tuple[str, ...]:
    """Of the packages that results depend on."""
    return tuple(importlib.metadata.version(name) for name in ("plmscope", "torch", "transformers"))
