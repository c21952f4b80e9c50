"""The recipes beside pyproject.toml ask for what it asks for, and copy what is there."""

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
#: Where conda calls a package otherwise than the index of Python.
CONDA = {"torch": "pytorch", "huggingface-hub": "huggingface_hub"}


def split(line: str) -> tuple[str, str]:
    found = re.fullmatch(r"([\w-]+) ?([<>=!~].*)?", line.strip())
    assert found, line
    return found[1], found[2] or ""


def test_the_conda_recipe_asks_for_the_same() -> None:
    text = (ROOT / "scripts" / "conda" / "recipe.yaml").read_text()
    block = text.split("\n  run:\n")[1].split("\n\n")[0]
    asked = dict(split(line.strip(" -")) for line in block.splitlines())
    wanted = dict(split(line) for line in PROJECT["dependencies"])
    renamed = {CONDA.get(name, name): versions for name, versions in wanted.items()}
    assert asked == renamed | {"python": PROJECT["requires-python"]}
    assert f'version: "{PROJECT["version"]}"' in text
    for name, target in PROJECT["scripts"].items():
        assert f"- {name} = {target}" in text


def test_the_dockerfile_copies_what_the_build_needs() -> None:
    text = (ROOT / "Dockerfile").read_text()
    copied = {word for line in re.findall(r"^COPY (.+) \S+$", text, re.MULTILINE) for word in line.split()}
    assert all((ROOT / word).exists() for word in copied)
    assert {"pyproject.toml", "src", PROJECT["readme"], *PROJECT["license-files"]} <= copied


def test_the_page_names_every_extra() -> None:
    page = (ROOT / "docs" / "installing.md").read_text()
    assert set(re.findall(r"^\| `(\w+)` \| ", page, re.MULTILINE)) == set(PROJECT["optional-dependencies"])
