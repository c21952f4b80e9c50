"""Study files: TOML in which every setting explains itself; what is wrong is said by its setting and what to write."""

from __future__ import annotations

import difflib
import json
import shlex
import tomllib
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from plmscope.errors import SelectionError, StudyError, shown
from plmscope.scoring.table import described
from plmscope.study.settings import ScoreSection, SettingsSection, Study


def read_study(path: str | Path) -> Study:
    """Read a study file.

    Raises:
        StudyError: it is missing or not TOML, or a key is unknown (the nearest is named) or has an impossible value.
    """
    path = Path(path)
    text = ""
    try:
        text = path.read_text(encoding="utf-8-sig")
        content = tomllib.loads(text)
    except IsADirectoryError:
        own = path / "study.toml"
        if own.is_file() and (path / "manifest.json").is_file():
            command = f"plmscope run {shlex.quote(str(own))} --out {shlex.quote(str(path))}"
            raise StudyError(f"{path}: is a run folder; continue it with: {command}") from None
        raise StudyError(f"{path}: is a folder; name a study file, which 'plmscope init' writes") from None
    except (OSError, ValueError, RecursionError) as error:  # of TOML, UTF-8 and numbers of too many digits
        reason = error.strerror if isinstance(error, OSError) else str(error)[:200]
        if text.lstrip().startswith((">", "id\t", "id,")):
            raise StudyError(
                f"{path}: holds proteins, not settings; write a study file with 'plmscope init' and name this one "
                "there, as path of [data]"
            ) from None
        raise StudyError(f"{path}: cannot be read ({reason}); 'plmscope init' writes a study file") from None
    return parse_study(content, str(path))


def parse_study(content: dict[str, Any], source: str) -> Study:
    """Settings from a dictionary; ``source`` names it in errors."""
    try:
        return Study.model_validate(content)
    except SelectionError as error:
        raise StudyError(f"{source}: {error}") from None
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        if first["type"] == "extra_forbidden":
            near = difflib.get_close_matches(key[:200], [k for k in _keys() if key.count(".") <= k.count(".")], 1, 0.4)
            section = ".".join([*map(str, first["loc"][:-1]), ""]).lstrip(".")
            known = [name for name in _keys() if name.startswith(section) and "." not in name[len(section) :]]
            advice = f"; did you mean {near[0]!r}?" if near else f"; known are {', '.join(known)}"
            raise StudyError(f"{source}: unknown key {shown(key)}{advice}") from None
        message = first["msg"].removeprefix("Value error, ")
        if first["type"] == "string_pattern_mismatch":
            message = _PATTERNS[key]
        value = repr(first["input"])
        given = f" {key} = {value if len(value) <= 200 else value[:100] + '...' + value[-100:]}:"
        if first["type"] == "value_error":
            given = f" {key}:" if key else ""
        raise StudyError(f"{source}:{given} {message}") from None


#: What a text has to look like, in words.
_PATTERNS = {
    "name": "use letters, digits, '.', '_' and '-', a letter or digit first",
    "device": "use cpu, cuda, cuda:1, cuda:all or auto",
}


def _keys() -> list[str]:
    """Every key of a study file, sections with a dot."""
    keys = []
    for name, field in Study.model_fields.items():
        section = field.annotation
        if isinstance(section, type) and issubclass(section, SettingsSection):
            keys += [name, *(f"{name}.{key}" for key in section.model_fields)]
        else:
            keys.append(name)
    return keys


def write_study(study: Study) -> str:
    """The study as TOML text, every key with its meaning."""
    lines: list[str] = []

    def put(section: SettingsSection) -> None:
        for key, field in type(section).model_fields.items():
            value = getattr(section, key)
            if not isinstance(value, SettingsSection):
                meaning = described() if (type(section), key) == (ScoreSection, "methods") else field.description
                comment = f"  # {meaning}" if meaning else ""
                lines.append(f"{key} = {json.dumps(value, ensure_ascii=False)}{comment}")

    put(study)
    for name in type(study).model_fields:
        section = getattr(study, name)
        if isinstance(section, SettingsSection):
            lines.extend(["", f"[{name}]"])
            put(section)
    return "\n".join(lines) + "\n"
