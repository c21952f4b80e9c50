"""Threads sleep while they wait: in every command, in a notebook, and not against the user's own choice."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import typer

from plmscope.cli import app
from plmscope.threads import ASLEEP, CHOICES
from tests.conftest import Golden

COMMANDS = sorted(typer.main.get_command(app).commands)  # type: ignore[attr-defined]

#: Ends a process when it first looks for PyTorch, or is done without it, and writes what the C library would read then.
WITNESS = """\
import atexit, ctypes, os, pathlib, sys

def seen():
    getenv = ctypes.CDLL(None).getenv
    getenv.restype = ctypes.c_char_p
    found = [(getenv(name.encode()) or b"unset").decode() for name in {names!r}]
    pathlib.Path({out!r}).write_text(" ".join(found))

class Finder:
    def find_spec(self, name, *_):
        if name == "torch":
            seen()
            os._exit(0)

sys.meta_path.insert(0, Finder())
atexit.register(seen)
"""


def environment(**more: str) -> dict[str, str]:
    """This process's own without what importing plmscope has set in it."""
    return {name: value for name, value in os.environ.items() if name not in CHOICES} | more


def arguments(command: str, golden: Golden, folder: Path) -> list[str]:
    """Those with which a command would work until it needs PyTorch; of most, a run folder."""
    study = ["--out", str(folder / "run"), "--quiet"]
    return {
        "demo": study,
        "init": [str(folder / "new.toml")],
        "doctor": [],
        "fetch": ["--out", str(folder / "new.tsv"), "--endpoint", "http://127.0.0.1:9", "--tries", "1"],
        "run": [str(golden.study), *study],
        "finetune": [str(golden.study), *study],
        "explain": [str(folder / "golden"), str(golden.data)],
        "variants": [str(folder / "golden"), str(golden.data)],
    }.get(command, [str(folder / "golden")])


@pytest.mark.parametrize("command", COMMANDS)
def test_threads_sleep_in_every_command(command: str, golden: Golden, tmp_path: Path) -> None:
    golden.copy(tmp_path / "golden")
    found = tmp_path / "found"
    (tmp_path / "sitecustomize.py").write_text(WITNESS.format(names=tuple(ASLEEP), out=str(found)))
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-m", "plmscope", command, *arguments(command, golden, tmp_path)],
        env=environment(PYTHONPATH=path), capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert "Usage" not in done.stderr and "--help" not in done.stderr, done.stderr  # it got past its arguments
    assert found.read_text().split() == list(ASLEEP.values()), done.stderr


@pytest.mark.parametrize(("own", "spins"), [({}, "0"), ({"GOMP_SPINCOUNT": "7"}, "7")])
def test_openmp_reads_it(own: dict[str, str], spins: str) -> None:
    """What GNU's OpenMP says of itself when PyTorch loads it after plmscope, as in a notebook."""
    done = subprocess.run(
        [sys.executable, "-c", "import plmscope, torch"], env=environment(OMP_DISPLAY_ENV="VERBOSE", **own),
        capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    said = re.findall(r"GOMP_SPINCOUNT = '(\d+)'", done.stderr)
    if not said:
        pytest.skip("PyTorch has another OpenMP library here")
    assert set(said) == {spins}


def test_another_choice_of_the_user_stays() -> None:
    code = f"import plmscope, os; print([os.environ.get(name) for name in {CHOICES!r}])"
    for name, value in (("OMP_WAIT_POLICY", "ACTIVE"), ("KMP_BLOCKTIME", "200")):
        said = subprocess.run(
            [sys.executable, "-c", code], env=environment(**{name: value}), capture_output=True, text=True,
            timeout=120, check=True,
        ).stdout  # fmt: skip
        assert said.strip() == str([value if choice == name else None for choice in CHOICES])
