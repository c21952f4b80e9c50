"""The combinations of a sweep: every seed with every model with every value of every setting.

All of them are checked before the first starts: a sweep that stops after a night because its fifth value was misspelt
has wasted the night.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any, get_origin

from plmscope.data.formats import EMBEDDED_FILES as TABLES
from plmscope.data.formats import STDIN
from plmscope.errors import InputError, ModelError, StudyError
from plmscope.models.checkpoints import EMBEDDED, local_folder
from plmscope.study.settings import SettingsSection, Study
from plmscope.study.study_file import parse_study

#: What other options are for.
ELSEWHERE = {"seed": "--seeds", "model.checkpoint": "--model", "name": "the study file; runs are named by what differs"}
#: More combinations than anyone means to start with one line.
MOST = 10_000


@dataclass(frozen=True)
class Combination:
    """One run of a sweep.

    Attributes:
        name: Of its folder: what tells it from the others, such as ``baseline-mean.seed0``.
        study: Its settings.
        differs: The seed, and the model and settings of which there are several.
    """

    name: str
    study: Study
    differs: Mapping[str, Any]


def combinations(
    study: Study,
    seeds: str = "",
    models: Sequence[str] = (),
    settings: Sequence[str] = (),
    source: str = "command line",
) -> list[Combination]:
    """Every combination, in the order seed within setting within model.

    Args:
        study: What all of them share.
        seeds: Such as ``0-4`` or ``0,2,5-7``; empty: the study's own.
        models: Checkpoints; none: the study's own.
        settings: Such as ``score.baseline=mean,zero``; a list in brackets is one value.
        source: What errors name.

    Raises:
        StudyError: a seed, a setting or a value is impossible; the combination is named.
        InputError: a file of the study is not there.
        ModelError: a model is the path of nothing.
    """
    wanted = parse_seeds(seeds) if seeds else (study.seed,)
    checkpoints = list(models) or [study.model.checkpoint]
    if len(set(checkpoints)) < len(checkpoints):
        raise StudyError(f"--model {next(m for m in checkpoints if checkpoints.count(m) > 1)!r}: is there twice")
    chosen = [parse_setting(text) for text in settings]
    keys = [key for key, _ in chosen]
    if len(set(keys)) < len(keys):
        raise StudyError(
            f"--set {next(k for k in keys if keys.count(k) > 1)}: is there twice; give its values together"
        )
    total = len(wanted) * len(checkpoints)
    for _, values in chosen:
        total *= len(values)
    if total > MOST:
        raise StudyError(f"a sweep of {total:,} runs is more than {MOST:,}; give fewer seeds, models or values")
    combined = []
    short = _short_names(checkpoints)
    for checkpoint, values, seed in product(checkpoints, product(*(v for _, v in chosen)), wanted):
        parts = [short[checkpoint]] if len(checkpoints) > 1 else []
        differs: dict[str, Any] = {"model.checkpoint": checkpoint} if len(checkpoints) > 1 else {}
        content = study.model_dump()
        for (key, all_values), value in zip(chosen, values, strict=True):
            _put(content, key, value)
            if len(all_values) > 1:
                parts.append(f"{key.rsplit('.', 1)[-1]}-{_plain(_told(value))}")
                differs[key] = value
        name = ".".join([*parts, f"seed{seed}"])
        content["model"]["checkpoint"] = checkpoint
        content |= {"seed": seed, "name": _plain(f"{study.name}.{name}")[:200]}
        combined.append(Combination(name, parse_study(content, f"{source}, {name}"), differs | {"seed": seed}))
    names = [one.name for one in combined]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise StudyError(f"two runs would both be called {twice!r}; give values that differ in more than signs")
    _check_files([one.study for one in combined])
    return combined


def parse_seeds(text: str) -> tuple[int, ...]:
    """Seeds of ``0-4`` or ``0,2,5-7``.

    Raises:
        StudyError: it is something else, or a seed is there twice.

    >>> parse_seeds("0-2,7")
    (0, 1, 2, 7)
    """
    seeds: list[int] = []
    for part in text.split(","):
        match = re.fullmatch(r"\s*(\d{1,10})\s*(?:-\s*(\d{1,10}))?\s*", part)
        first, last = (int(match[1]), int(match[2] or match[1])) if match else (1, 0)
        if last < first:
            raise StudyError(f"--seeds {text[:60]!r}: need numbers and ranges, such as 0-4 or 0,2,5-7")
        if last - first >= MOST:
            raise StudyError(f"--seeds {text[:60]!r}: are more than {MOST:,}; give fewer")
        seeds += range(first, last + 1)
    twice = next((seed for seed in seeds if seeds.count(seed) > 1), None)
    if twice is not None:
        raise StudyError(f"--seeds {text[:60]!r}: {twice} is there twice; one seed is one observation")
    return tuple(seeds)


def parse_setting(text: str) -> tuple[str, list[Any]]:
    """Key and values of ``score.baseline=mean,zero``, each as its setting needs it.

    Raises:
        StudyError: it is something else, the key belongs to another option, or a value is there twice.

    >>> parse_setting("evaluate.fractions=[0.1, 0.2],[0.5]")
    ('evaluate.fractions', [[0.1, 0.2], [0.5]])
    """
    key, sign, rest = (part.strip() for part in text.partition("="))
    if not (sign and key and rest):
        raise StudyError(f"--set {text[:60]!r}: need KEY=VALUE,VALUE, such as score.baseline=mean,zero")
    if key in ELSEWHERE:
        raise StudyError(f"--set {key}: belongs to {ELSEWHERE[key]}")
    if isinstance(_annotation(key), type) and issubclass(_annotation(key), SettingsSection):
        raise StudyError(f"--set {key}: is a section; name one of its keys, such as {key}.{_keys(key)[0]}")
    values = [_value(key, piece) for piece in _pieces(rest, text)]
    told = [_told(value) for value in values]
    if len(set(told)) < len(told):
        raise StudyError(f"--set {key}: {next(t for t in told if told.count(t) > 1)} is there twice")
    return key, values


def _pieces(text: str, whole: str) -> list[str]:
    """Cut at commas that are in no brackets and no quotes."""
    pieces, depth, quote = [""], 0, ""
    for letter in text:
        if quote:
            quote = "" if letter == quote else quote
        elif letter in "\"'":
            quote = letter
        elif letter in "[]":
            depth += 1 if letter == "[" else -1
        if letter == "," and not depth and not quote:
            pieces.append("")
        else:
            pieces[-1] += letter
    pieces = [piece.strip() for piece in pieces]
    if depth or quote or not all(pieces):
        raise StudyError(f"--set {whole[:60]!r}: a value is empty, or a bracket or quote is never closed")
    return pieces


def _value(key: str, piece: str) -> Any:
    """A value in the type of its setting: text as it stands, a single value of a list as a list, else as TOML."""
    annotation = _annotation(key)
    try:
        value: Any = tomllib.loads(f"value = {piece}")["value"]
    except ValueError:
        value = piece
    if annotation is str and not isinstance(value, str):
        value = piece
    return [value] if get_origin(annotation) is tuple and not isinstance(value, list) else value


def _annotation(key: str) -> Any:
    """The type of a setting; None where there is no such setting, which reading the study refuses."""
    model: Any = Study
    for part in key.split("."):
        fields = getattr(model, "model_fields", {})
        model = fields[part].annotation if part in fields else None
    return model


def _keys(section: str) -> list[str]:
    return list(Study.model_fields[section].annotation.model_fields)  # type: ignore[union-attr]


def _put(content: dict[str, Any], key: str, value: Any) -> None:
    *path, last = key.split(".")
    for part in path:
        inner = content.setdefault(part, {})
        if not isinstance(inner, dict):
            raise StudyError(f"--set {key}: {part} is no section")
        content = inner
    content[last] = value


def _told(value: Any) -> str:
    """A value as text: ``mean``, ``0.1+0.2``."""
    return "+".join(map(str, value)) if isinstance(value, list) else str(value)


def _plain(text: str) -> str:
    """Text as part of a folder's name."""
    return re.sub(r"[^A-Za-z0-9._+-]+", "-", text).strip("-.") if "+" not in text else _plain(text.replace("+", "_"))


def _short_names(checkpoints: Sequence[str]) -> dict[str, str]:
    """The last parts of the names of models, as many as tell them apart."""
    parts = {name: name.rstrip("/").removeprefix("plmscope:").split("/") for name in checkpoints}
    for depth in range(1, max(map(len, parts.values())) + 1):
        names = {name: _plain("-".join(of[-depth:])) for name, of in parts.items()}
        if len(set(names.values())) == len(names):
            break
    return names


def _check_files(studies: Sequence[Study]) -> None:
    """Refuse what can be seen to be missing without reading it."""
    paths = dict.fromkeys(
        (key, path)
        for study in studies
        for key, path in (("data.path", study.data.path), ("data.labels", study.data.labels),
                          ("characterize.features", study.characterize.features),
                          ("characterize.structures", study.characterize.structures))
    )  # fmt: skip
    for key, path in paths:
        if path == STDIN:
            raise InputError(f"{key} = '-': a sweep reads its proteins once a run; save them in a file and name that")
        if path and path not in TABLES and not path.startswith("plmscope:") and not Path(path).expanduser().exists():
            raise InputError(f"{path}: no such file ({key} of the study)")
    for checkpoint in dict.fromkeys(study.model.checkpoint for study in studies):
        looks_local = checkpoint.startswith((".", "/", "~")) or checkpoint.count("/") > 1
        if checkpoint != EMBEDDED and looks_local and local_folder(checkpoint) is None:
            raise ModelError(f"{checkpoint}: no such folder; name a checkpoint's folder or a Hugging Face hub id")
