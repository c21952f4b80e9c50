"""The runs that are compared: opened, checked against each other, and sorted into groups.

A *group* is runs whose settings differ in nothing that moves what is averaged: another seed is another observation of
the same thing, another model or baseline is another thing. Settings that only add rows (more draws, other controls) or
that say nothing about the outcomes (device, report, characterization) do not divide.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd

from plmscope.errors import RunError
from plmscope.store.folder import Run
from plmscope.store.schema import SCHEMA
from plmscope.study.study_file import read_study

#: Stages without which there is nothing to compare.
NEEDED = ("finetune", "score", "evaluate")
#: The file in which a sweep says which of its folders are runs.
SWEEP = "sweep.json"
#: Sections and settings that may differ between runs of one group.
APART = ("report", "characterize", "intervene", "density")
ALIKE = (
    "name", "seed", "device", "data.labels", "score.methods", "score.token_budget", "score.recompute",
    "evaluate.methods", "evaluate.modes", "evaluate.ablations", "evaluate.scopes", "evaluate.controls",
    "evaluate.draws", "evaluate.draws_elsewhere", "evaluate.module_modes", "evaluate.module_ablations",
    "evaluate.module_controls", "evaluate.module_draws", "evaluate.token_budget",
)  # fmt: skip
#: Settings whose file is known by its digest, and where the manifest has that.
FILES = {"data.path": "data", "model.checkpoint": "model"}
CONFIRMATION, EXPLORATORY = "confirmation", "exploratory"
ONE_GROUP = "all runs"


@dataclass(frozen=True)
class Member:
    """One run of a comparison.

    Attributes:
        name: Its folder's name, with as much of the path as tells it from the others.
        run: The folder.
        role: ``confirmation``, or ``exploratory``: shown, and kept out of every estimate.
        settings: Every setting by its key, files by what tells them apart, and versions.
        manifest: Of the run.
        metrics: Of the run.
        group: The settings that tell it from runs it is not averaged with.
    """

    name: str
    run: Run
    role: str
    settings: Mapping[str, Any]
    manifest: Mapping[str, Any]
    metrics: Mapping[str, Any]
    group: str = ONE_GROUP

    @property
    def seed(self) -> int:
        """The seed of its study."""
        return int(self.settings["seed"])

    @property
    def base(self) -> tuple[Any, ...]:
        """What two runs share if a neuron of one is a neuron of the other: the checkpoint they started from."""
        model = self.manifest.get("model", {})
        return (self.settings["model.checkpoint"], model.get("layers"), model.get("hidden"), model.get("neurons"))

    def table(self, name: str) -> pd.DataFrame:
        """A table of the run; without rows where the run has none."""
        return self.run.table(name) if self.run.has(name) else pd.DataFrame(columns=list(SCHEMA[name]))


def gather(paths: Sequence[str | Path], exploratory: Sequence[str | Path] = ()) -> list[Member]:
    """Open the runs, in the order given, and sort them into groups.

    Args:
        paths: Run folders, or folders of a sweep, which stand for their finished runs.
        exploratory: Runs that suggested what the others are to confirm; they need not be among ``paths``.

    Raises:
        RunError: a folder is no finished run, or two of them cannot stand side by side; the line names them.
    """
    roles: dict[Path, str] = {}
    for path in paths:
        roles |= {folder: CONFIRMATION for folder in _folders(Path(path)) if folder not in roles}
    for path in exploratory:
        roles |= dict.fromkeys(_folders(Path(path)), EXPLORATORY)
    unique: dict[Path, Path] = {}
    for folder in roles:
        first = unique.setdefault(folder.resolve(), folder)
        if roles[folder] == EXPLORATORY:
            roles[first] = EXPLORATORY
    folders = list(unique.values())
    if not folders:
        raise RunError("no run to compare; name run folders that 'plmscope run' has finished")
    names = _names(folders)
    members = [_open(folder, names[folder], roles[folder]) for folder in folders]
    _check(members)
    members = _named_files(members)
    keys = [key for key in differing(members) if divides(key)]
    members = [replace(member, group=_group(member, keys)) for member in members]
    for i, member in enumerate(members):
        for other in members[:i]:
            if (member.group, member.seed) == (other.group, other.seed):
                raise RunError(
                    f"{other.run.path} and {member.run.path} are one study with one seed, {member.seed}, and so one "
                    "observation; name one of them"
                )
    return members


def divides(key: str) -> bool:
    """Whether a setting divides runs into groups: runs that differ in it are never averaged.

    >>> divides("score.baseline"), divides("seed"), divides("report.knowledge_fraction"), divides("version torch")
    (True, False, False, False)
    """
    return key not in ALIKE and key.split(".")[0] not in APART and not key.startswith("version ")


def differing(members: Sequence[Member]) -> list[str]:
    """The keys in which at least two runs differ, in the order of a study file."""
    keys = dict.fromkeys(key for member in members for key in member.settings)
    return [key for key in keys if len({_shown(member.settings.get(key)) for member in members}) > 1]


def settings_table(members: Sequence[Member]) -> pd.DataFrame:
    """``compared_settings``: one row a setting that differs and run."""
    rows = [
        {
            "setting": key, "run": member.name, "value": _shown(member.settings.get(key)),
            "divides": divides(key),
        }
        for key in differing(members)
        if key != "name"
        for member in members
    ]  # fmt: skip
    return pd.DataFrame(rows, columns=["setting", "run", "value", "divides"])


def _folders(path: Path) -> list[Path]:
    """The runs that a path stands for: itself, or the finished runs of a sweep."""
    if not (path / SWEEP).is_file():
        return [path]
    try:
        entries = json.loads((path / SWEEP).read_text(encoding="utf-8"))["runs"]
        finished = [path / str(entry["run"]) for entry in entries if entry["status"] == "done"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunError(
            f"{path / SWEEP}: cannot be read ({type(error).__name__}); name the run folders themselves"
        ) from None
    if not finished:
        raise RunError(f"{path}: none of its {len(entries)} runs is finished; continue it with 'plmscope sweep'")
    return finished


def _names(folders: Sequence[Path]) -> dict[Path, str]:
    """The last parts of the paths, as many as tell all of them apart."""
    whole = {folder: folder.resolve().parts for folder in folders}
    for depth in range(1, max(map(len, whole.values())) + 1):
        names = {folder: "/".join(parts[-depth:]) for folder, parts in whole.items()}
        if len(set(names.values())) == len(folders):
            break
    return names


def _open(folder: Path, name: str, role: str) -> Member:
    """One run, finished as far as its evaluation."""
    run = Run.open(folder)
    manifest = run.manifest()
    for stage in NEEDED:
        if manifest["stages"].get(stage, {}).get("status") != "done":
            command = f"plmscope run {shlex.quote(str(folder / 'study.toml'))} --out {shlex.quote(str(folder))}"
            raise RunError(f"{folder}: its stage {stage!r} is not finished; continue it with: {command}")
    study = read_study(folder / "study.toml").model_dump(mode="json")
    settings: dict[str, Any] = {key: value for key, value in study.items() if not isinstance(value, dict)}
    for section, values in study.items():
        if isinstance(values, dict):
            settings |= {f"{section}.{key}": value for key, value in values.items()}
    versions = manifest.get("versions", {})
    settings |= {f"version {package}": versions.get(package) for package in ("plmscope", "torch", "transformers")}
    return Member(name, run, role, settings, manifest, run.metrics())


def _check(members: Sequence[Member]) -> None:
    """Refuse runs whose tables mean different things."""
    first = members[0]
    for member in members[1:]:
        pair = f"{first.run.path} and {member.run.path} cannot be compared"
        tasks = [str(one.metrics.get("task", "single")) for one in (first, member)]
        if tasks[0] != tasks[1]:
            raise RunError(f"{pair}: one has the task {tasks[0]}, the other {tasks[1]}; compare runs of one task")
        labels = [[str(label) for label in one.metrics.get("labels", ())] for one in (first, member)]
        if labels[0] != labels[1]:
            told = " against ".join(", ".join(some[:6]) + (" ..." if len(some) > 6 else "") for some in labels)
            raise RunError(f"{pair}: their classes differ ({told}); compare runs of one task")


def _named_files(members: Sequence[Member]) -> list[Member]:
    """Files by their digest: one that was moved is the same, one that was changed is another."""
    for key, entry in FILES.items():
        named: dict[str, str] = {}
        changed = []
        for member in members:
            path = str(member.settings[key])
            known = member.manifest.get("inputs", {}).get(entry) or member.manifest.get(entry, {}).get("sha256") or path
            if known not in named:
                named[known] = f"{path} (sha256 {known[:8]})" if path in named.values() else path
            changed.append(replace(member, settings={**member.settings, key: named[known]}))
        members = changed
    return list(members)


def _group(member: Member, keys: Sequence[str]) -> str:
    """The settings that divide, as words: ``baseline = mean, checkpoint = esm2_t6_8M_UR50D``."""
    differences = []
    for key in keys:
        value = _shown(member.settings.get(key))
        if key in FILES:
            value = value.rstrip("/").rsplit("/", 1)[-1]
        differences.append(f"{key.rsplit('.', 1)[-1]} = {value}")
    return ", ".join(differences) or ONE_GROUP


def _shown(value: Any) -> str:
    """A setting's value as text."""
    return value if isinstance(value, str) else json.dumps(value)
