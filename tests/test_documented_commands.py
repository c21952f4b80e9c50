"""Every ``plmscope`` command of the README and the pages of docs/ is run as it stands, on small data.

Bash expands the blocks (loops, variables, continued lines); the commands of a page run one after another in one folder,
with the study that the page shows. A hub and a UniProt service on 127.0.0.1 give what the commands download.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
import tomllib
from typing import Any

import pytest

from plmscope.data.proteins import read_proteins
from plmscope.study.settings import Study
from plmscope.study.study_file import parse_study, write_study
from tests.conftest import Golden, save_tiny_model, write_enzymes
from tests.hub import Hub, serving
from tests.test_fetch import Service
from tests.test_readme import PAGES, SHELL, blocks
from tests.test_structures import backbone, pdb

#: What makes any study small; all else is as the page has it.
SMALL: dict[str, dict[str, Any]] = {
    "": {"device": "cpu"},
    "data": {"min_per_class": 2, "task": "single"},
    "split": {"method": "random", "train": 0.6, "validation": 0.2, "test": 0.2},
    "finetune": {"epochs": 1, "token_budget": 1024},
    "score": {"methods": ["activation_contrast", "conductance"], "conductance_points": 2, "proteins_per_class": 4},
    "evaluate": {
        "methods": ["activation_contrast"], "fractions": [0.2], "draws": 2, "draws_elsewhere": 2, "modes": ["keep"],
        "controls": ["random_matched"], "scopes": ["pooled"], "max_proteins": 8,
    },
    "density": {"fractions": [0.1], "bootstraps": 3, "nulls": []},
    "characterize": {"concepts": ["amino acid", "class"], "max_neurons": 20, "min_proteins": 4},
    "describe": {"enabled": False},
    "layout": {"parts": []},
    "intervene": {"fraction": 0.1, "draws": 2, "neurons": 2, "factors": [2.0], "proteins_per_class": 2},
}  # fmt: skip

#: Runs commands in turn and says how each ended. A process of its own: the hub's address is read at import.
DRIVER = """
import contextlib, io, json, os, signal, sys, threading, time
from plmscope.cli import main
from plmscope.explaining.explainer import ExplainSettings
# No file has these settings: few copies, points, neurons and draws. The random model's paths would take many points.
ExplainSettings.__init__.__defaults__ = (2, 4, 2, 3, 1, 2, 0)
def stop_when_it_serves(said):
    while "explore: http" not in said.getvalue():
        time.sleep(0.05)
    os.kill(os.getpid(), signal.SIGINT)
ends = {}
for page, lines in json.load(sys.stdin).items():
    os.chdir(page)
    ends[page] = []
    for line in lines:
        said = io.StringIO()
        if line[0] == "explore":
            threading.Thread(target=stop_when_it_serves, args=(said,), daemon=True).start()
        with contextlib.redirect_stderr(said), contextlib.redirect_stdout(said):
            port = ["--port", "0"] if line[0] == "explore" else []  # its own may be taken by another suite
            status = main([*line, *port, *([] if line[0] in ("init", "export", "doctor") else ["--quiet"])])
        ends[page].append([line, status, said.getvalue()])
        if line[0] == "init" and status == 0:
            os.replace("small.toml", line[1])
    os.chdir("..")
print(json.dumps(ends))
"""


def run_by_bash(text: str, prompted: bool) -> list[list[str]]:
    """The ``plmscope`` commands of a block as bash would run them; a job array is all its jobs."""
    if prompted:
        text = "\n".join(line[2:] for line in text.splitlines() if line.startswith(("$ ", "> ")))
    first, last = next(iter(re.findall(r"--array=(\d+)-(\d+)", text)), (0, 0))
    found = []
    for job in range(int(first), int(last) + 1):
        script = f"plmscope() {{ printf '%q ' \"$@\"; echo; }}\nmake() {{ :; }}\npip() {{ :; }}\n{text}"
        env = os.environ | {"SLURM_ARRAY_TASK_ID": str(job)}
        done = subprocess.run(["bash", "-euc", script], env=env, capture_output=True, text=True, check=True)
        found += [shlex.split(line) for line in done.stdout.splitlines()]
    return found


def small(shown: list[dict[str, Any]]) -> str:
    """The study that a page's settings make together, cut to a size that runs in a second or two."""
    content: dict[str, Any] = {
        "data": {"path": "enzymes.fasta", "label": "ec:1"},
    }
    for part in [*shown, SMALL]:
        for key, value in part.items():
            if key == "":
                content |= value
            else:
                content[key] = content.get(key, {}) | value if isinstance(value, dict) else value
    # The tiny model that the hub serves, where the page names none.
    model = content.setdefault("model", {})
    if model.get("checkpoint", "plmscope:embedded") == "plmscope:embedded":
        model["checkpoint"] = "facebook/esm2_t6_8M_UR50D"
    return write_study(parse_study(content, "the page's study"))


def of_page(text: str, study: str = "", ran: set[str] | None = None) -> list[list[str]]:
    """Its commands, without what differs from one before in seed, engine or place alone: each takes seconds.

    Args:
        text: The page.
        study: The study that it shows.
        ran: What pages before it have run, of the same kind on the same study; added to.
    """
    ran = set() if ran is None else ran
    found = []
    for line in [line for b in blocks(text, SHELL) for line in run_by_bash(b.text, b.language == "console")]:
        kind = " ".join(line)
        if line[0] in ("run", "sweep"):
            kind = re.sub(r"\S+\.toml| --(engine|workers|seeds?|out) \S+", "", kind) + study
        if line[0] in ("run", "sweep", "explain"):
            if kind in ran:
                continue
            ran.add(kind)
        found.append(line)
    return found


def shown_by(text: str) -> list[dict[str, Any]]:
    """The settings that a page shows."""
    return [tomllib.loads(block.text) for block in blocks(text, ("toml",))]


#: Pages whose commands need what other blocks of the page make: page and the test that runs all of it.
ELSEWHERE = {"docs/bring-your-own-classifier.md": "tests/test_bring_your_own.py"}
RAN: set[str] = set()
COMMANDS = {page: of_page(text, small(shown_by(text)), RAN) for page, text in PAGES.items() if page not in ELSEWHERE}


def test_bash_expands_loops_arrays_and_continued_lines() -> None:
    assert run_by_bash("for a in 0 1; do\n plmscope run x \\\n --seed $a\ndone\nmake x && plmscope y 'z w'", False) == [
        ["run", "x", "--seed", "0"], ["run", "x", "--seed", "1"], ["y", "z w"],
    ]  # fmt: skip
    assert run_by_bash("#SBATCH --array=1-2\nplmscope score $SLURM_ARRAY_TASK_ID/2", False) == [
        ["score", "1/2"], ["score", "2/2"],
    ]  # fmt: skip
    assert run_by_bash("$ plmscope a\nplmscope said\n", True) == [["a"]]
    seeds = "```sh\nfor a in 0 1; do plmscope run x.toml --seed $a; plmscope score x --shard $a/2; done\n```\n"
    assert of_page(seeds) == [
        ["run", "x.toml", "--seed", "0"],
        ["score", "x", "--shard", "0/2"],
        ["score", "x", "--shard", "1/2"],
    ]
    ran: set[str] = set()
    assert of_page(seeds, "a", ran) and of_page(seeds, "b", ran)[0] == ["run", "x.toml", "--seed", "0"]
    assert of_page(seeds.replace("x.toml", "y.toml"), "a", ran)[0][0] == "score"  # it was run already
    assert of_page(seeds.replace("x.toml", "x.toml --lora"), "a", ran)[0] == ["run", "x.toml", "--lora", "--seed", "0"]


@pytest.fixture(scope="module")
def ends(golden: Golden, tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Any]]:
    """For every page its commands, each with its status and what it said."""
    desk = tmp_path_factory.mktemp("pages")
    data = read_proteins(write_enzymes(desk / "enzymes.tsv", per_class=10), label="ec:1")
    todo = {}
    for page, lines in COMMANDS.items():
        folder = desk / page.replace("/", "-")
        golden.copy(folder / "runs" / "demo")
        # What the pages call the user's files.
        # A page without a study only has them explained, which four show as well as thirty.
        proteins = list(data) if any(word.endswith(".toml") for line in lines for word in line) else list(data)[::8]
        fasta = "".join(f">{p.id} ec={p.columns['ec']}\n{p.sequence}\n" for p in proteins)
        (folder / "enzymes.fasta").write_text(fasta)
        (folder / "protein.fasta").write_text(f">P1\n{data.proteins[0].sequence}\n")
        (folder / "protein.pdb").write_text(pdb(data.proteins[0].sequence, backbone(len(data.proteins[0]), -57, -47)))
        (folder / "labels.tsv").write_text("id\tkind\n" + "".join(f"{p.id}\tkind {p.label}\n" for p in data))
        shown = shown_by(PAGES[page])
        for name in {word for line in lines for word in line if word.endswith(".toml")}:
            created = any(line[:2] == ["init", name] for line in lines)
            template = [tomllib.loads(write_study(Study()))] if created else []
            (folder / ("small.toml" if created else name)).write_text(small([*template, *shown]))
        todo[folder.name] = lines
    encoder = save_tiny_model(desk / "encoder", scale=20)
    hub = Hub(dict.fromkeys(("facebook/esm2_t6_8M_UR50D", "facebook/esm2_t33_650M_UR50D"), encoder))
    service = Service()
    try:
        with serving(hub) as address:
            env = os.environ | {
                "HF_ENDPOINT": address, "HF_HOME": str(desk / "cache"), "HF_HUB_OFFLINE": "0", "NO_PROXY": "*",
                "PLMSCOPE_UNIPROT": service.url,
            }  # fmt: skip
            done = subprocess.run(
                [sys.executable, "-c", DRIVER], input=json.dumps(todo), env=env, cwd=desk, capture_output=True,
                text=True, check=False,
            )  # fmt: skip
    finally:
        service.server.shutdown()
        service.server.server_close()
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("page", [page for page, lines in COMMANDS.items() if lines])
def test_every_command_of_the_page_works(page: str, ends: dict[str, list[Any]]) -> None:
    ran = ends[page.replace("/", "-")]
    assert [line for line, _, _ in ran] == COMMANDS[page]
    for line, status, said in ran:
        assert status == 0, f"plmscope {shlex.join(line)}: {said}"
