"""The pages of reference that the site makes from the code say what the code has; the site's list has every page."""

import re
import sys
from pathlib import Path

import pytest
import typer
import yaml

import plmscope
from plmscope.cli import app
from plmscope.comparing.comparison import REPORT
from plmscope.store.schema import SCHEMA
from plmscope.study.study_file import _keys

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "scripts" / "site"))

import reference  # noqa: E402


class Loader(yaml.SafeLoader):
    """Reads ``mkdocs.yml`` without running what its tags name."""


Loader.add_multi_constructor("tag:yaml.org,2002:python/", lambda loader, suffix, node: None)


def test_commands_and_their_options() -> None:
    page = reference.commands_page()
    for name, command in typer.main.get_command(app).commands.items():  # type: ignore[attr-defined]
        own = page.split(f"\n## {name}\n")[1].split("\n## ")[0]
        options = [one for parameter in command.params for one in parameter.opts if one.startswith("-")]
        assert all(f"`{one}`" in own for one in options), name
        assert command.help.split("\n")[0] in own


def test_settings() -> None:
    page = reference.settings_page()
    for key in _keys():
        section, _, name = key.rpartition(".")
        own = page.split(f"## [{section}]" if section else "## Of the study")[1].split("\n## ")[0] if name else ""
        assert f"| `{name}` |" in own or f"## [{name}]" in page, key


def test_tables_and_columns() -> None:
    page = reference.tables_page()
    for name, columns in SCHEMA.items():
        own = page.split(f"\n## {name}\n")[1].split("\n## ")[0]
        assert ", ".join(columns) in own and "One row a" in own, name
    assert "Written by the stage `finetune`" in page.split("## proteins")[1].split("## ")[0]


def test_public_names_are_documented_and_linked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert reference.undocumented() == []
    page = reference.api_page()
    assert not re.search(r":\w+:`", page)  # roles of Sphinx
    assert all(f"[`ps.{name}`][plmscope." in page for name in plmscope.__all__ if name in plmscope._HOME)
    (tmp_path / "plmscope").mkdir()
    (tmp_path / "plmscope" / "a.py").write_text(
        '"""A."""\nclass B:\n    """B."""\n    def c(self): ...\n    def _d(self): ...\n'
    )
    monkeypatch.setattr(reference, "PACKAGE", tmp_path / "plmscope")
    assert reference.undocumented() == ["plmscope.a.B.c"]


def test_every_page_is_in_the_list_of_the_site() -> None:
    site = yaml.load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"), Loader)

    def leaves(part: object) -> list[str]:
        if isinstance(part, str):
            return [part]
        inside = part.values() if isinstance(part, dict) else part
        return [leaf for one in inside for leaf in leaves(one)]  # type: ignore[attr-defined]

    listed = set(leaves(site["nav"]))
    docs = ROOT / "docs"
    assert {str(path.relative_to(docs)) for path in docs.rglob("*.md")} <= listed
    assert {str(path.relative_to(docs).with_suffix(".md")) for path in docs.rglob("*.ipynb")} <= listed


def test_warnings_end_the_build() -> None:
    (command,) = re.findall(r"^\t.*mkdocs build.*$", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    assert "--strict" in command and "--quiet" not in command and " -q" not in command  # MkDocs counts what it says


def test_nothing_is_fetched_from_elsewhere() -> None:
    text = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    assert re.search(r"^  font: false", text, re.MULTILINE)
    assert not re.findall(r"https?://", text)


def test_the_snakemake_rules_name_files_that_are_written() -> None:
    text = (ROOT / "docs" / "workflows.md").read_text(encoding="utf-8")
    rules = text.split("```snakemake\n")[1].split("```")[0]
    assert set(re.findall(r'"runs/compared/([^"]+)"', rules)) == {REPORT}
    for line in re.findall(r'"plmscope ([^"]+)"', rules):
        words = re.sub(r"\{[\w.]+\}", "0", line).split()
        group = typer.main.get_command(app)
        group.commands[words[0]].make_context(words[0], words[1:])  # type: ignore[attr-defined]
