"""The notebooks are what their sources say, executed, and run on a small finished run as they do on the demo's."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from plmscope.scoring.table import _TABLE
from plmscope.store.folder import Run
from plmscope.study.demo import demo_study
from plmscope.study.study_file import read_study
from tests.conftest import Golden

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "scripts"))

import build_notebook  # noqa: E402

#: What a test has no time for: the random model's paths need many points.
FEWER = {
    "one = ps.explain(run, protein)": "from plmscope.explaining.explainer import ExplainSettings\n"
    "one = ps.explain(run, protein, settings=ExplainSettings(copies=2, band_points=4, supporting=4, draws=2))",
    '"evaluate", methods=(), fractions=(0.2, 0.5)': '"evaluate", methods=(), module_fractions=(0.2,), fractions=(0.2,)',
    "draws=10": "draws=2, draws_elsewhere=2",
}
SOURCES = sorted(build_notebook.SOURCES.glob("*.md"))


@pytest.fixture
def desk(golden: Golden, tmp_path: Path) -> Iterator[Path]:
    """A folder as after ``plmscope demo``, as the working directory; what is registered there is forgotten again."""
    golden.copy(tmp_path / "runs" / "demo")
    config = tmp_path / "runs" / "demo" / "model" / "config.json"  # its positions are rotary: it takes any length
    config.write_text(json.dumps(json.loads(config.read_text()) | {"max_position_embeddings": 200}))
    before, registered = Path.cwd(), list(_TABLE.registered)
    os.chdir(tmp_path)
    with pd.option_context("display.max_colwidth", 50):
        yield tmp_path
    os.chdir(before)
    _TABLE.registered[:] = registered


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.stem)
def test_a_notebook_is_its_source_executed_and_runs(source: Path, desk: Path) -> None:
    path = build_notebook.NOTEBOOKS / f"{source.stem}.ipynb"
    assert path.stat().st_size < 1_000_000
    book: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    text = source.read_text(encoding="utf-8")
    own = build_notebook.cells(text)
    for cell, made in zip(book["cells"], own, strict=True):
        assert (cell["cell_type"], cell["source"]) == (made["cell_type"], made["source"]), "build the notebook again"
    code = [cell for cell in book["cells"] if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1))
    small = text
    for asked, fewer in FEWER.items():
        small = small.replace(asked, fewer)
    assert (small == text) == (source.stem == "my-enzymes")
    shown = [bool(cell["outputs"]) for cell in build_notebook.executed(small)["cells"] if cell["cell_type"] == "code"]
    assert shown == [bool(cell["outputs"]) for cell in code]
    for name in re.findall(r"\]\((?!https?:)([^)#\s]+)", text):
        assert (build_notebook.NOTEBOOKS / name).exists(), name
    if source.stem == "my-enzymes":
        assert read_study(desk / "enzymes.toml") == demo_study()
    if source.stem == "own-scorer":
        assert set(Run.open(desk / "runs" / "standout").table("comparison")["method"]) >= {"standout"}
        assert "standout" in (desk / "runs" / "standout" / "report.html").read_text(encoding="utf-8")


def test_there_are_three_notebooks_and_no_others() -> None:
    assert [path.stem for path in SOURCES] == ["my-enzymes", "own-scorer", "why-this-decision"]
    assert [path.stem for path in sorted(build_notebook.NOTEBOOKS.glob("*.ipynb"))] == [p.stem for p in SOURCES]
