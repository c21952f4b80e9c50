"""What the README and the pages of docs/ show works, on a finished run.

Python runs, one namespace a page; commands parse (``test_documented_commands.py`` runs them); study files parse; links
lead somewhere. A Python block after a line ``<!-- not run: WHY -->`` is compiled only.
"""

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
from plmscope.cli import app, main
from plmscope.errors import PlmscopeError
from plmscope.store.schema import SCHEMA
from plmscope.study.demo import demo_study
from plmscope.study.study_file import parse_study
from tests.conftest import Golden
from tests.test_study import changed

ROOT = Path(__file__).parents[1]
PAGES = {
    str(path.relative_to(ROOT)): path.read_text() for path in (ROOT / "README.md", *sorted(ROOT.glob("docs/*.md")))
}
PYTHON = ("python", "py", "pycon")
SHELL = ("console", "sh", "bash", "shell")


class Block(NamedTuple):
    """A fenced block; ``line`` is that of its fence, ``before`` the last line above it that is not blank."""

    line: int
    language: str
    text: str
    before: str = ""


def blocks(text: str, languages: tuple[str, ...]) -> list[Block]:
    """Fenced blocks in some languages, in order; also those that are indented."""
    found, lines = [], text.splitlines()
    opened: tuple[int, str, str] | None = None
    inside: list[str] = []
    before = ""
    for number, line in enumerate(lines, 1):
        fence = re.match(r"\s*(`{3,}|~{3,})\s*([\w+-]*)", line)
        if opened is None and fence:
            opened, inside = (number, fence[1], fence[2].lower()), []
        elif opened is not None and fence and fence[1].startswith(opened[1]) and not fence[2]:
            found.append(Block(opened[0], opened[2], textwrap.dedent("\n".join(inside)) + "\n", before))
            opened, before = None, ""
        else:
            inside.append(line)
            before = line.strip() or before if opened is None else before
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
            words = [re.sub(r"\$\{?\w+\}?", "0", word) for word in shlex.split(part, comments=True)]  # a variable
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
    """All blocks of all pages in some languages, with their page."""
    return [
        pytest.param(page, block, id=f"{page}-line-{block.line}")
        for page, text in PAGES.items()
        for block in blocks(text, languages)
    ]


@pytest.fixture(scope="module")
def namespaces() -> dict[str, dict[str, Any]]:
    """One for all blocks of a page: a later one goes on where an earlier one ended."""
    return {page: {"__name__": "page"} for page in PAGES}


@pytest.fixture(scope="module")
def desk(golden: Golden, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder as after ``make demo``, as the working directory."""
    folder, before = tmp_path_factory.mktemp("desk"), Path.cwd()
    run = golden.copy(folder / "runs" / "demo")
    methods = ["activation", "activation_std", "integrated_gradients"]  # those of the demo are among them
    changed(run / "study.toml", run / "study.toml", score={"methods": methods})
    assert main(["run", str(run / "study.toml"), "--out", str(run), "--quiet"]) == 0
    os.chdir(folder)
    yield folder
    os.chdir(before)


@pytest.mark.parametrize(("page", "block"), cases(PYTHON))
def test_python_runs(page: str, block: Block, namespaces: dict[str, dict[str, Any]], desk: Path) -> None:
    code = compile(source(block.text), f"{page} after line {block.line}", "exec")
    if not block.before.startswith("<!-- not run:"):
        exec(code, namespaces[page])


def test_first_lines_of_the_package_run(desk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code = textwrap.dedent((plmscope.__doc__ or "").split("::\n", 1)[1].split("Names are imported", 1)[0])
    exec(compile(code, "plmscope/__init__.py", "exec"), {})
    assert "balanced accuracy" in capsys.readouterr().out


@pytest.mark.parametrize(("page", "block"), cases(SHELL))
def test_commands_parse(page: str, block: Block) -> None:
    targets = re.findall(r"^(\w[\w-]*):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    for words in commands(block.text, prompted=block.language == "console"):
        if words[0] == "plmscope":
            check_command(words)
        elif words[0] == "make":
            wanted = [word for word in words[1:] if "=" not in word and not word.startswith("-")]
            assert set(wanted) <= set(targets), f"{page} line {block.line}: make {wanted}, there are {targets}"


@pytest.mark.parametrize(("page", "block"), cases(("toml",)))
def test_study_files_parse(page: str, block: Block) -> None:
    try:
        parse_study(tomllib.loads(block.text), f"{page} line {block.line}")
    except PlmscopeError as error:
        pytest.fail(str(error))


@pytest.mark.parametrize("page", PAGES)
def test_named_names_exist(page: str) -> None:
    """``ps.something`` anywhere in a page is public."""
    for name in set(re.findall(r"\bps\.(\w+)", PAGES[page])):
        assert name in plmscope.__all__, name


def test_the_page_of_the_api_has_every_name_at_its_step() -> None:
    rows = dict(re.findall(r"^\| ([\w ]+) \| (.*`ps\..*) \|$", PAGES["docs/python.md"], re.MULTILINE))
    shown = {step: set(re.findall(r"`ps\.(\w+)`", names)) for step, names in rows.items()}
    assert shown == {step: set(names) for step, names in plmscope.STEPS.items()}


@pytest.mark.parametrize("page", [page for page, text in PAGES.items() if '("runs/demo")' in text])
def test_scores_of_the_demo_are_those_that_it_has(page: str) -> None:
    """The run of these tests has more methods than the demo's."""
    asked = re.findall(r"run\.(?:scores|ranking)\(\"(\w+)\"\)", PAGES[page])
    assert set(asked) <= set(demo_study().score.columns)


@pytest.mark.parametrize("page", PAGES)
def test_linked_files_exist(page: str) -> None:
    for name in re.findall(r"\]\((?!https?:|#|mailto:)([^)#\s]+)", PAGES[page]):
        assert (ROOT / page).parent.joinpath(name).exists(), name


def test_every_page_is_linked_from_the_readme() -> None:
    assert {page for page in PAGES if page != "README.md"} <= set(re.findall(r"\]\(([^)#\s]+)", PAGES["README.md"]))


def test_the_tables_of_the_run_folder_page_have_all_their_columns() -> None:
    rows = re.findall(r"^\| `(\w+)` \|(.*)$", PAGES["docs/run-folder.md"], re.MULTILINE)
    assert len(rows) > 10
    for table, row in rows:
        missing = [column for column in SCHEMA[table] if f"`{column}`" not in row]
        assert not missing, f"docs/run-folder.md: {table} lacks {missing}"
