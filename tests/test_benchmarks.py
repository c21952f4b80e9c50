"""Every section of the benchmarks on a tiny shape: that they run, and that both sides of a comparison agree."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from benchmarks import engine, faithfulness, workers
from plmscope.data.proteins import Protein
from plmscope.scoring.methods import SCORERS
from plmscope.scoring.table import row_of
from tests.conftest import Golden

TINY = ["--layers=2", "--width=32", "--proteins=2", "--peers=1", "--short=1", "--points=2", "--steps=4", "--longest=24"]


@pytest.fixture(autouse=True)
def threads() -> Iterator[None]:
    """The benchmarks run with one."""
    number = torch.get_num_threads()
    yield
    torch.set_num_threads(number)


@pytest.fixture
def one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory is measured here, and proteins are short."""

    def short(count: int, low: float = 0.0, high: float = 1.0) -> list[Protein]:
        return [engine.made(20 + k) for k in range(count)]

    monkeypatch.setattr(engine, "in_own_process", engine.rise)
    monkeypatch.setattr(engine, "enzymes", short)


def rows_of(text: str) -> list[list[str]]:
    """Cells of all tables, headings and rules left out; every row is as wide as its heading."""
    tables = re.findall(r"(?m)^\|.*\|\n\|(?: --- \|)+\n(?:\|.*\|\n)+", text)
    assert tables, text
    found = []
    for table in tables:
        head, _, *body = [[cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines()]
        assert all(len(row) == len(head) for row in body), table
        found += body
    return found


@pytest.mark.parametrize("section", [name for name in engine.SECTIONS if name != "faithfulness"])
@pytest.mark.usefixtures("one_process")
def test_every_section_prints_a_table(section: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert engine.main([section, "--here", *TINY]) == 0
    text = capsys.readouterr().out
    assert text.startswith(f"\n### `{section}`\n") and text.endswith("CPU minutes.\n")
    rows = rows_of(text)
    if section in ("conductance", "integrated_gradients", "gradient_activation", "selections"):
        assert all(float(row[4]) < 1e-4 for row in rows), rows  # equal, or the ratio says nothing
        assert len(rows) == (4 if section == "selections" else 1)
    counts = {"many": 2, "modules": 3, "equal_accuracy": 2, "scaling": 3 + 3 + 1 + 3, "memory": 9}
    assert len(rows) == counts.get(section, len(rows))


def test_sections_run_in_processes_and_what_is_done_stays(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The longest first; a section that fails takes no other with it; the file has what was printed."""
    started = []

    def told(name: str, *rest: str) -> str:
        started.append(name)
        assert rest[0] == "--here" and engine.arguments().parse_args([name, *rest]).width == 32
        if name == "conductance":
            raise RuntimeError("it broke")
        return f"\n### `{name}`\n"

    monkeypatch.setattr(engine, "run_self", told)
    out = tmp_path / "found.md"
    assert engine.main(["memory", "many", "conductance", "--jobs=1", f"--out={out}", *TINY]) == 1
    assert started == ["many", "conductance", "memory"]
    said = capsys.readouterr()
    assert "conductance: it broke" in said.err
    assert said.out == out.read_text() and said.out.startswith("plmscope ") and "captum" in said.out
    assert said.out.endswith("### `many`\n\n### `memory`\n")


def test_another_process_is_asked_and_heard(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With a script in place of the benchmark, whose imports take seconds."""
    script = tmp_path / "script.py"
    script.write_text("import sys\nprint(sys.argv[1:])\nsys.exit(len(sys.argv) - 2)\n")
    assert engine.run_self("one", script=script) == "['one']\n"
    with pytest.raises(RuntimeError, match=r"script.py one two ended with 1\n\['one', 'two'\]"):
        engine.run_self("one", "two", script=script)
    assert engine.main(["--measure", "conductance, ours, all sites", "2", *TINY]) == 0
    assert min(json.loads(capsys.readouterr().out)) >= 0


def test_the_default_settings_end_within_an_hour() -> None:
    """By the estimate beside each section, two at a time, the longest first, with room for a slower machine."""
    ends = [0.0, 0.0]
    costs = [minutes for _, minutes in engine.SECTIONS.values()]
    assert costs == sorted(costs, reverse=True)
    for minutes in costs:
        ends[ends.index(min(ends))] += minutes
    assert max(ends) <= 50


def test_faithfulness_compares_every_scorer(golden: Golden, capsys: pytest.CaptureFixture[str]) -> None:
    faithfulness.main(
        [f"--run={golden.run}", "--per-class=1", "--max-length=130", "--sample=36", "--test=3", "--draws=1"]
    )
    said = capsys.readouterr()
    rows = {row[0].strip("`"): row[1:] for row in rows_of(said.out)}
    there = {name for name in SCORERS if not name.endswith(("_rms", "_class")) and not row_of(name).fit}
    assert set(rows) == {*there, "random neurons"} and next(iter(rows)) == "single_ablation"
    truth = rows["single_ablation"]
    assert truth[:3] == ["1.00", "1.00", "100%"] and truth[3:5] == ["", ""]  # sampled: no selection of all neurons
    assert all(0 <= float(cell) <= 1 for name in ("conductance", "random neurons") for cell in rows[name][3:5])
    assert (
        "36 of them ablated" in said.out
        and "balanced accuracy" in said.out
        and "single_ablation, single_ablation_abs:" in said.err
    )


def test_the_model_that_faithfulness_makes_by_itself() -> None:
    study = faithfulness.quick_study(2)
    assert (study.finetune.epochs, study.data.path, study.model.checkpoint) == (
        2, "plmscope:enzymes", "plmscope:embedded",
    )  # fmt: skip


def a_list(**given: object) -> dict[str, object]:
    """A list of 640 items in 40 tasks of a second each."""
    return {
        "stage": "evaluate", "what": "predictions_of", "seconds": [1.0] * 40, "items": [16] * 40, "bytes_back": 0.0,
        "bytes_sent": 0, "start": 0.0, "take_in": 0.0, "alone": 0.0, **given,
    }  # fmt: skip


def test_simulated_workers_take_what_can_be_reckoned() -> None:
    """No costs: the work is divided. What one process does alone, a start and what is taken in add up by hand."""
    assert workers.simulate([a_list()], 1) == pytest.approx((40, 40))
    assert workers.simulate([a_list()], 8) == pytest.approx((40, 5))
    assert workers.simulate([a_list(alone=10.0)], 8) == pytest.approx((50, 15))
    assert workers.simulate([a_list(start=3.0), a_list(start=3.0)], 8) == pytest.approx((80, 13))
    assert workers.simulate([a_list(bytes_sent=100)], 1, rate=50) == pytest.approx((40, 42))
    # 64 workers: 256 runs of a few items; results of half a second, one after the other, take longest
    _, total = workers.simulate([a_list(take_in=0.5)], 64)
    assert total > 0.5 * 320 and workers.simulate([a_list(take_in=0.5)], 1)[1] == pytest.approx(40.5)


def test_stages_are_measured_by_one_worker(golden: Golden) -> None:
    (found,) = workers.measure(golden.run, ["evaluate"])
    assert found["what"] == "predictions_of" and len(found["seconds"]) == len(found["items"]) > 4
    assert found["start"] > 0.5 and found["bytes_sent"] > 1000 and 0 < found["take_in"] < 1
    shown = workers.table([found], 1, 0, workers.RATE)
    (row,) = rows_of(shown + "\n")
    shares = [float(cell.rstrip("%")) for cell in row[3:]]
    assert shares[0] < 100 and shares[-1] < shares[0]
