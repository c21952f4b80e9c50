"""Install plmscope into clean environments and say what works: a row for the table of docs/installing.md each.

    python scripts/try_installs.py FOLDER --python 3.11 --python 3.13 --resolution highest --resolution lowest-direct
    python scripts/try_installs.py FOLDER --python 3.12 --tests tests/test_house.py --uv-args "--find-links WHEELS"

Needs uv (pip install uv), which finds or fetches the Pythons. ``lowest-direct`` takes the oldest versions that
pyproject.toml allows. FOLDER keeps the environments; one that is there is made anew.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import shlex
import subprocess
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]


def run(command: list[str], **variables: str) -> subprocess.CompletedProcess[str]:
    """A command and what it said, without the sources on the path of Python."""
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | variables
    return subprocess.run(command, capture_output=True, text=True, check=False, env=env, cwd=ROOT)


def attempt(folder: Path, python: str, resolution: str, tests: list[str], uv_args: list[str]) -> str:
    """Install once; the row of the table."""
    place = folder / f"{python.strip('/').replace('/', '-')}-{resolution}"
    started = time.monotonic()
    target = f"{ROOT}[dev]" if tests else str(ROOT)
    steps = [
        ["uv", "venv", "--quiet", "--clear", "--python", python, str(place)],
        ["uv", "pip", "install", "--quiet", "--python", str(place), "--resolution", resolution, *uv_args, target],
    ]
    for step in steps:
        done = run(step)
        if done.returncode != 0:
            line = " ".join((done.stderr.strip().splitlines() or ["no word"])[-3:])
            return row(python, resolution, "", "", f"{step[1]} {step[2]}: {line}")
    seconds = time.monotonic() - started
    told = run([str(place / "bin" / "plmscope"), "doctor", "--json"])
    if told.returncode != 0:
        return row(python, resolution, "", "", (told.stderr.strip().splitlines() or ["no word"])[-1])
    found = json.loads(told.stdout)
    python = found["plmscope"]["python"].split()[0]
    versions = ", ".join(f"{name} {found['libraries'][name]}" for name in ("torch", "transformers", "numpy", "pandas"))
    said = "; ".join(found["problems"]) or "doctor finds nothing"
    if tests:
        done = run([str(place / "bin" / "python"), "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *tests])
        said += f"; tests: {(done.stdout.strip().splitlines() or ['no word'])[-1]}"
    return row(python, resolution, versions, f"{seconds:.0f}", said)


def row(python: str, resolution: str, versions: str, seconds: str, said: str) -> str:
    """A line of the table."""
    where = f"{platform.system()} {platform.machine()}"
    return f"| {datetime.date.today()} | {where} | {python} | {resolution} | {versions} | {seconds} | {said} |"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--python", action="append", default=[], help="version, or path of a program")
    parser.add_argument("--resolution", action="append", default=[])
    parser.add_argument("--tests", action="append", default=[])
    parser.add_argument("--uv-args", default="", help="for uv pip install, in one string")
    given = parser.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    for version in given.python or ["3.11"]:
        for chosen in given.resolution or ["highest"]:
            print(attempt(given.folder.resolve(), version, chosen, given.tests, shlex.split(given.uv_args)), flush=True)
