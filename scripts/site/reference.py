"""Pages of reference that are made from the code: commands, settings, tables and columns, the Python API."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer

import plmscope
from plmscope.cli import app
from plmscope.scoring.table import described
from plmscope.store.schema import SCHEMA, SCHEMA_VERSION
from plmscope.study.order import ROWS
from plmscope.study.settings import ScoreSection, SettingsSection, Study

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "src" / "plmscope"
RUN_FOLDER = ROOT / "docs" / "run-folder.md"


def cell(text: str) -> str:
    """Text in a table's cell."""
    return re.sub(r"\[/?(?:bold|dim|italic)\]", "", " ".join(text.split())).replace("|", "\\|").replace("<", "&lt;")


def code(value: object) -> str:
    """A value as code in a table's cell."""
    text = json.dumps(value, ensure_ascii=False) if not isinstance(value, str) else value
    return f"`{text.replace('|', chr(92) + '|')}`" if text else ""


def commands_page() -> str:
    """Every command with its arguments and options."""
    group: Any = typer.main.get_command(app)
    parts = [
        "# Commands\nMade from the command line itself: `plmscope COMMAND --help` says the same. What they return and "
        "print: [Workflows](../workflows.md).\n"
    ]
    for name, command in group.commands.items():
        parts.append(f"## {name}\n{(command.help or '').strip()}\n")
        arguments = [one for one in command.params if one.param_type_name == "argument"]
        usage = " ".join(one.metavar or str(one.name).upper() for one in arguments)
        parts.append(f"```text\nplmscope {name} {usage}{' ' if usage else ''}[OPTIONS]\n```\n")
        parts.append("| argument or option | meaning | default |\n|---|---|---|")
        for parameter in command.params:
            argument = parameter.param_type_name == "argument"
            opts = (
                [parameter.metavar or str(parameter.name).upper()]
                if argument
                else [*parameter.opts, *parameter.secondary_opts]
            )
            default = parameter.default
            shown = (
                code(str(default))
                if isinstance(default, str | int | float | Path) and default not in (False, "")
                else ""
            )
            parts.append(
                f"| {', '.join(code(one) for one in opts)} | {cell(getattr(parameter, 'help', '') or '')} | {shown} |"
            )
        parts.append("")
    return "\n".join(parts)


def settings_page() -> str:
    """Every setting of a study file."""
    parts = [
        "# Settings\nEvery key of a study file, made from the code that reads it; `plmscope init my.toml` writes them "
        "all with the same words. An unknown key is refused, and the nearest known one named.\n"
    ]

    def table(section: type[SettingsSection], heading: str, about: str) -> None:
        parts.append(f"## {heading}\n{about}\n\n| key | default | meaning |\n|---|---|---|")
        for key, field in section.model_fields.items():
            if isinstance(field.annotation, type) and issubclass(field.annotation, SettingsSection):
                continue
            about = described() if (section, key) == (ScoreSection, "methods") else field.description or ""
            default = field.get_default(call_default_factory=True)
            parts.append(f"| `{key}` | {code(json.dumps(default, ensure_ascii=False))} | {cell(about)} |")
        parts.append("")

    table(Study, "Of the study", "At the top of the file.")
    for name, field in Study.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, SettingsSection):
            table(field.annotation, f"[{name}]", (field.annotation.__doc__ or "").strip())
    return "\n".join(parts)


def meanings() -> dict[str, tuple[str, str]]:
    """Of every table what one row is, and its columns in words, from the page on the run folder."""
    text = RUN_FOLDER.read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+)` \|([^|]*)\|(.*)\|$", text, re.MULTILINE)
    return {name: (one.strip(), columns.strip()) for name, one, columns in rows}


def written(module: str) -> set[str]:
    """The names in ``writes`` and ``asked`` of a stage, from its source: importing all stages takes seconds."""
    tree = ast.parse((PACKAGE.parent / f"{module.replace('.', '/')}.py").read_text(encoding="utf-8"))
    stage = next(n.value for n in tree.body if isinstance(n, ast.Assign) and ast.unparse(n.targets[0]) == "STAGE")
    parts = [one.value for one in stage.keywords if one.arg in ("writes", "asked")]
    texts = {n.value for part in parts for n in ast.walk(part) if isinstance(n, ast.Constant)}
    return {text.removesuffix(".parquet") for text in texts if isinstance(text, str)}


def tables_page() -> str:
    """Every table and its columns, and the stage that writes it."""
    writers: dict[str, str] = {}
    for row in ROWS:
        for table in written(row.module):
            writers.setdefault(table, row.name)
    stages = re.findall(r"^\| (\w+) \| .* \|([^|]*)\|$", RUN_FOLDER.read_text(encoding="utf-8"), re.MULTILINE)
    for stage, names in stages:
        for table in re.findall(r"`(\w+)`", names):
            writers.setdefault(table, stage)
    about = meanings()
    parts = [
        f"# Tables and columns\nSchema {SCHEMA_VERSION}, made from the code that writes the tables. A new column "
        "raises the second number, a changed or removed one the first. [A page](../run-folder.md) has the "
        "files beside them, and [one page](../tables-elsewhere.md) opens them in other programs.\n"
    ]
    for name, columns in SCHEMA.items():
        one, words = about.get(name, ("", ""))
        parts.append(f"## {name}")
        parts.append(
            f"One row a {cell(one)}. " * bool(one)
            + f"Written by the stage {code(writers.get(name, ''))}." * (name in writers)
        )
        parts.append(f"\n```text\n{', '.join(columns)}\n```\n")
        if words:
            parts.append(re.sub(r"\]\((?!https?:)", "](../", words) + "\n")
    return "\n".join(parts)


# --- the Python API ---------------------------------------------------------------------------------------------------


def modules() -> Iterator[tuple[str, Path]]:
    """Every module of the package by its full name."""
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
        if path.stem != "__main__":
            yield ".".join(parts[:-1] if path.stem == "__init__" else parts), path


def undocumented() -> list[str]:
    """Public modules, classes, functions and methods without a docstring."""
    missing = []

    def look(node: Any, name: str) -> None:
        if ast.get_docstring(node) is None:
            missing.append(name)
        for child in node.body if not isinstance(node, ast.FunctionDef) else []:
            public = isinstance(child, ast.ClassDef | ast.FunctionDef) and not child.name.startswith("_")
            decorated = [ast.unparse(one) for one in getattr(child, "decorator_list", [])]
            if public and not any(
                one in ("overload", "typing.overload") or one.endswith(".setter") for one in decorated
            ):
                look(child, f"{name}.{child.name}")

    for name, path in modules():
        look(ast.parse(path.read_text(encoding="utf-8")), name)
    return missing


def packages() -> dict[str, list[str]]:
    """The modules of every package; those beside the packages under the name of the whole."""
    found: dict[str, list[str]] = {}
    for name, path in modules():
        if path.stem != "__init__" and "embedded" not in name:
            parts = name.split(".")
            found.setdefault(parts[1] if len(parts) > 2 else "", []).append(name)
    return found


def api_page() -> str:
    """What ``import plmscope as ps`` has, and the packages."""
    rows = []
    for name in plmscope.__all__:
        home = plmscope._HOME.get(name)
        if home is not None:
            home, _, own = home.partition(":")
            path = f"plmscope.{home}.{own or name}"
            rows.append(f"| [`ps.{name}`][{path}] | {cell(first_line(home, own or name))} |")
    lines = [
        "# Python API\n`import plmscope as ps` has these; [a page](../python.md) shows them at work.\n",
        "| name | what it is |\n|---|---|",
        *rows,
        "\n## All modules\n| package | what it is for |\n|---|---|",
    ]
    for package in packages():
        if package:
            text = ast.get_docstring(ast.parse((PACKAGE / package / "__init__.py").read_text(encoding="utf-8"))) or ""
            lines.append(f"| [{package}](api-{package}.md) | {cell(text.splitlines()[0].replace('``', '`'))} |")
    lines.append("| [beside them](api-plmscope.md) | errors, progress, the command line |")
    return "\n".join(lines) + "\n"


def first_line(home: str, name: str) -> str:
    """The first line of a name's docstring, from its source."""
    tree = ast.parse((PACKAGE / f"{home.replace('.', '/')}.py").read_text(encoding="utf-8"))
    found = next((n for n in tree.body if getattr(n, "name", "") == name), None)
    line = ((ast.get_docstring(found) if found is not None else "") or "").split("\n")[0].replace("``", "`")
    return re.sub(r":\w+:`~?(?:[\w.]+\.)?(\w+)`", r"`\1`", line)


def package_page(package: str, names: list[str]) -> str:
    """All modules of a package."""
    lines = [f"# plmscope.{package}\n" if package else "# plmscope\n"]
    if package:
        lines.append(f"::: plmscope.{package}\n    options: {{show_root_heading: false, members: false}}\n")
    for name in names:
        lines.append(f"## {name.removeprefix('plmscope.')} {{ #{name} }}\n")
        lines.append(f"::: {name}\n    options: {{show_root_heading: false, show_root_toc_entry: false}}\n")
    return "\n".join(lines)


def pages() -> dict[str, str]:
    """All generated pages of reference by where they are."""
    found = {
        "reference/commands.md": commands_page(),
        "reference/settings.md": settings_page(),
        "reference/tables.md": tables_page(),
        "reference/api.md": api_page(),
    }
    for package, names in packages().items():
        found[f"reference/api-{package or 'plmscope'}.md"] = package_page(package, names)
    return found
