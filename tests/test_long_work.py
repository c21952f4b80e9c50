"""Long work: killed at random moments, interrupted or on a full disk, nothing is damaged and the command continues.

Slow: runs with ``PLMSCOPE_KILLS=20`` (or as many as are wanted). ``test_study.py`` has four chosen moments by default.
The full disk needs a folder on a small one that nobody else uses: ``mount -t tmpfs -o size=64m tmpfs DIR``, then
``PLMSCOPE_SMALL_DISK=DIR``.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from pandas.testing import assert_frame_equal

from plmscope.store.folder import Run
from tests.conftest import save_tiny_model, write_enzymes

KILLS = int(os.environ.get("PLMSCOPE_KILLS", "0"))
SMALL_DISK = os.environ.get("PLMSCOPE_SMALL_DISK", "")
pytestmark = pytest.mark.skipif(not KILLS, reason="slow; PLMSCOPE_KILLS=20 runs it")

#: Every stage in a second or two.
STUDY = """\
name = "small"
seed = 2
[data]
path = "{data}"
[split]
method = "random"
train = 0.6
validation = 0.2
test = 0.2
[model]
checkpoint = "{model}"
[finetune]
epochs = 2
learning_rate = 0.004
token_budget = 1024
[score]
methods = ["activation_std", "gradient_activation", "conductance"]
conductance_points = 2
proteins_per_class = 4
[evaluate]
fractions = [0.2]
draws = 2
draws_elsewhere = 2
modes = ["keep"]
[density]
fractions = [0.1]
bootstraps = 3
nulls = ["label_shuffled"]
"""

#: One import, one child process a life. A life ends after some number of events: a step of progress, a line said, a
#: file renamed (before and after), a folder removed.
DRIVER = """
import json, os, pathlib, random, shutil, signal, sys
import plmscope.scoring.conductance, plmscope.evaluation.curves, plmscope.models.finetune
import plmscope.report.page, plmscope.scoring.methods, plmscope.data.splits
import plmscope.store.resume as parts, plmscope.scoring.shards as shards, plmscope.study as study
from plmscope.cli import main

signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
settings, folder, mode, wanted, seed = sys.argv[1], pathlib.Path(sys.argv[2]), sys.argv[3], *map(int, sys.argv[4:6])
left, free = None, 0
filler = folder / "filler"

def fill():  # leaves a few kB of the disk
    with filler.open("wb", buffering=0) as file:
        try:
            while file.write(b"x" * 65536):
                pass
        except OSError:
            pass
        size = file.tell()
        os.truncate(filler, max(0, size - free))

def event():
    global left
    if left is not None:
        left -= 1
        if left <= 0 and mode == "interrupt":
            left = None
            signal.raise_signal(signal.SIGINT)
        elif left <= 0 and mode == "full":
            left = None
            fill()
        elif left <= 0:
            os.kill(os.getpid(), signal.SIGKILL)

def track(items, what, total):
    for item in items:
        event()
        yield item

def around(function):
    def call(*arguments, **named):
        event()
        result = function(*arguments, **named)
        event()
        return result
    return call

def life(limit, out):
    child = os.fork()
    if child:
        return os.waitpid(child, 0)[1]
    global left
    left = limit
    parts.SAVE_SECONDS = -1
    shards.PART_PROTEINS = 3
    pathlib.Path.replace = around(pathlib.Path.replace)
    shutil.rmtree = around(shutil.rmtree)
    import plmscope.cli as cli
    cli.track = lambda quiet: track
    say = cli._say(False)
    cli._say = lambda quiet: lambda line: (event(), None if quiet else say(line))
    try:
        status = main(["run", settings, "--out", str(out), "--quiet"])
    except BaseException:
        import traceback
        traceback.print_exc()
        status = 99
    os._exit(status)

lives = []
rng, runs = random.Random(seed), 0
while wanted or not (folder / str(runs) / "report.html").exists():
    limit = rng.randint(1, 250) if wanted else None
    free = rng.randrange(400_000) if mode == "full" else 0
    status = os.waitstatus_to_exitcode(life(limit, folder / str(runs)))
    filler.unlink(missing_ok=True)
    lives.append([limit, status])
    if status == 0 and wanted:
        runs += 1  # it got through: the next one begins anew
    elif status == 0:
        break
    elif status != {"kill": -9, "interrupt": 130, "full": 2}[mode]:
        break
    else:
        wanted -= 1
print(json.dumps(lives))
"""


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a study file and the run of it that nobody disturbed."""
    folder = tmp_path_factory.mktemp("small")
    data, model = write_enzymes(folder / "enzymes.tsv", per_class=12), save_tiny_model(folder / "model")
    (folder / "study.toml").write_text(STUDY.format(data=data, model=model))
    assert drive(folder, folder / "whole", "kill", 0)[0] == [[None, 0]]
    return folder


def drive(small: Path, out: Path, mode: str, wanted: int, seed: int = 0) -> tuple[list[list[int]], str]:
    """What became of each life, and what they printed."""
    arguments = [str(small / "study.toml"), str(out), mode, str(wanted), str(seed)]
    done = subprocess.run(
        [sys.executable, "-c", DRIVER, *arguments], capture_output=True, text=True, check=False,
        env=os.environ | {"OMP_NUM_THREADS": "1"} | ({"TMPDIR": str(out)} if mode == "full" else {}),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1]), done.stderr


def assert_like_the_whole(small: Path, folder: Path) -> None:
    """All tables, the metrics and the model, and nothing left over."""
    whole, other = Run.open(small / "whole" / "0"), Run.open(folder)
    for path in sorted(whole.path.glob("*.parquet")):
        expected, got = (pd.read_parquet(f / path.name) for f in (whole.path, folder))
        if path.stem == "training":
            expected, got = expected.drop(columns="seconds"), got.drop(columns="seconds")
        assert_frame_equal(got, expected, check_exact=True, obj=path.name)
    assert other.metrics() == whole.metrics()
    names = [{str(p.relative_to(f)) for p in f.rglob("*")} for f in (whole.path, folder)]
    assert names[0] == names[1]
    for path in whole.path.rglob("*.safetensors"):
        assert (folder / path.relative_to(whole.path)).read_bytes() == path.read_bytes()


def test_killed_at_random_moments_it_continues_to_the_same_tables(small: Path, tmp_path: Path) -> None:
    lives, said = drive(small, tmp_path, "kill", KILLS, 7)
    assert [status for _, status in lives].count(-9) == KILLS and lives[-1][1] == 0, said
    for folder in tmp_path.iterdir():
        assert_like_the_whole(small, folder)


def test_interrupted_it_says_how_to_go_on(small: Path, tmp_path: Path) -> None:
    lives, said = drive(small, tmp_path, "interrupt", 1, 3)
    assert [status for _, status in lives] == [130, 0]
    assert "plmscope: interrupted; the same command continues from here" in said and "Traceback" not in said
    assert_like_the_whole(small, tmp_path / "0")


@pytest.mark.skipif(not SMALL_DISK, reason="needs a small disk of its own; see the docstring of the file")
def test_full_disk_at_random_moments_is_one_line_and_damages_nothing(small: Path) -> None:
    lives, said = drive(small, Path(SMALL_DISK), "full", KILLS, 11)
    refused = [status for _, status in lives].count(2)
    assert refused == KILLS and lives[-1][1] == 0, said
    lines = said.splitlines()
    assert len(lines) == refused and all(line.startswith("plmscope: error: ") for line in lines), said
    for folder in Path(SMALL_DISK).glob("[0-9]*"):
        assert_like_the_whole(small, folder)
