"""What the README shows works: its Python runs on a finished run, its commands and study files parse."""

import os
import re
import shlex
import textwrap
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import typer

import plmscope
from plmscope.cli import app
from plmscope.errors import PlmscopeError
from plmscope.settings import parse_study
from tests.conftest import Golden

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()

PYTHON = ("python", "py", "pycon")
SHELL = ("console", "sh", "bash", "shell")


class Block(NamedTuple):
    """A fenced block of a Markdown text; ``line`` is that of its fence."""

    line: int
    language: str
    text: str


def blocks(text: str, languages: tuple[str, ...]) -> list[Block]:
    """Fenced blocks in some languages, in order; also those that are indented."""
    found, lines = [], text.splitlines()
    opened: tuple[int, str, str] | None = None
    inside: list[str] = []
    for number, line in enumerate(lines, 1):
        fence = re.match(r"\s*(`{3,}|~{3,})\s*([\w+-]*)", line)
        if opened is None and fence:
            opened, inside = (number, fence[1], fence[2].lower()), []
        elif opened is not None and fence and fence[1].startswith(opened[1]) and not fence[2]:
            found.append(Block(opened[0], opened[2], textwrap.dedent("\n".join(inside)) + "\n"))
            opened = None
        else:
            inside.append(line)
    if opened is not None:
        raise ValueError(f"line {opened[0]}: the block is never closed")
    return [block for block in found if block.language in languages]


def source(text: str) -> str:
    """Python as it is run: of an interactive session the input alone."""
    lines = text.splitlines()
    if not any(line.startswith(">>>") for line in lines):
        return text
    return "\n".join(line[4:] for line in lines if line.startswith((">>>", "..."))) + "\n"


def commands(text: str, prompted: bool) -> Iterator[list[str]]:
    """The words of every command; where some lines have a prompt, the others are output."""
    lines = text.replace("\\\n", " ").splitlines()
    if prompted or any(re.match(r"\s*[$%] ", line) for line in lines):
        lines = [line.strip()[2:] for line in lines if re.match(r"\s*[$%] ", line)]
    for line in lines:
        for part in re.split(r"&&|\|\|?|;", line):
            words = shlex.split(part, comments=True)
            while words and re.fullmatch(r"\w+=.*", words[0]):  # an environment variable
                words = words[1:]
            if words:
                yield words


def check_command(words: list[str]) -> None:
    """Parse a ``plmscope`` command as the program would, without running it."""
    group: Any = typer.main.get_command(app)
    rest = words[1:]
    if rest in (["--help"], ["-h"], ["--version"], []):
        return
    name, command, rest = group.resolve_command(group.make_context("plmscope", rest, resilient_parsing=True), rest)
    if set(rest) & {"--help", "-h"}:
        return
    if command is None:  # click raises itself, typer's own copy does not
        raise ValueError(f"no such command {words[1]!r}")
    command.make_context(name, rest)


def test_the_reader_of_the_readme() -> None:
    text = (
        "\n```python\na = 1\n```\n- x\n  ```console\n  $ plmscope run x.toml \\\n      --out y  # why\n"
        "  output\n  ```\n"
        "~~~sh\nA=1 make demo && cd x\n~~~\n"
    )
    assert [b.text for b in blocks(text, PYTHON)] == ["a = 1\n"]
    console, sh = blocks(text, SHELL)
    assert list(commands(console.text, prompted=True)) == [["plmscope", "run", "x.toml", "--out", "y"]]
    assert list(commands(sh.text, prompted=False)) == [["make", "demo"], ["cd", "x"]]
    assert source(">>> a = 1\n>>> for b in []:\n...     c\n3\n") == "a = 1\nfor b in []:\n    c\n"
    with pytest.raises(ValueError, match="line 1: the block is never closed"):
        blocks("```python\n", PYTHON)
    for good in (
        ["run", "x", "--out", "y", "-q"],
        ["init"],
        ["init", "--force", "x"],
        ["score", "--help"],
        ["--version"],
    ):
        check_command(["plmscope", *good])
    for bad in (
        ["runs", "x"],
        ["run"],
        ["run", "x", "--into", "y"],
        ["report", "x", "y"],
        ["run", "x", "--seed", "one"],
    ):
        with pytest.raises(Exception, match=r"(?i)no such|missing|unexpected|valid"):
            check_command(["plmscope", *bad])


def cases(languages: tuple[str, ...]) -> list[Any]:
    return [pytest.param(block, id=f"line-{block.line}") for block in blocks(README, languages)]


@pytest.fixture(scope="module")
def namespace() -> dict[str, Any]:
    """One for all blocks: a later one goes on where an earlier one ended."""
    return {"__name__": "readme"}


@pytest.fixture(scope="module")
def desk(golden: Golden, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder as after ``make demo``, as the working directory."""
    folder, before = tmp_path_factory.mktemp("desk"), Path.cwd()
    golden.copy(folder / "runs" / "demo")
    os.chdir(folder)
    yield folder
    os.chdir(before)


@pytest.mark.parametrize("block", cases(PYTHON))
def test_python_runs(block: Block, namespace: dict[str, Any], desk: Path) -> None:
    exec(compile(source(block.text), f"README.md after line {block.line}", "exec"), namespace)


def test_first_lines_of_the_package_run(desk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code = textwrap.dedent((plmscope.__doc__ or "").split("::\n", 1)[1].split("Names are imported", 1)[0])
    exec(compile(code, "plmscope/__init__.py", "exec"), {})
    assert "balanced accuracy" in capsys.readouterr().out


@pytest.mark.parametrize("block", cases(SHELL))
def test_commands_parse(block: Block) -> None:
    targets = re.findall(r"^(\w[\w-]*):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    for words in commands(block.text, prompted=block.language == "console"):
        if words[0] == "plmscope":
            check_command(words)
        elif words[0] == "make":
            wanted = [word for word in words[1:] if "=" not in word and not word.startswith("-")]
            assert set(wanted) <= set(targets), f"line {block.line}: make {wanted}, there are {targets}"


@pytest.mark.parametrize("block", cases(("toml",)))
def test_study_files_parse(block: Block) -> None:
    try:
        parse_study(tomllib.loads(block.text), f"README.md line {block.line}")
    except PlmscopeError as error:
        pytest.fail(str(error))


def test_named_names_exist() -> None:
    """``ps.something`` anywhere in the README is public."""
    for name in set(re.findall(r"\bps\.(\w+)", README)):
        assert name in plmscope.__all__, name


@pytest.mark.parametrize("name", sorted(set(re.findall(r"\]\((?!https?:|#|mailto:)([^)#\s]+)", README))) or [None])
def test_linked_files_exist(name: str | None) -> None:
    assert name is None or (ROOT / name).exists()
