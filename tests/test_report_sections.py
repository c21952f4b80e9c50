"""A section of the report is one function and one row: it says which tables it needs."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import pytest

from plmscope.report import page as report
from plmscope.report.blocks import Block, Text
from plmscope.report.input import Results, SectionMaker, section
from plmscope.store.folder import Run
from plmscope.store.schema import SCHEMA
from tests.fake_run import make_fake_run


@section("deepest", "Deepest neurons", left_out=True, neurons="nothing was scored.", agreement="one method alone.")
def deepest_section(results: Results) -> Sequence[Block]:
    """What somebody else's section looks like."""
    return (Text(f"The deepest layer is {results.tables['neurons']['layer'].max()}."),)


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return make_fake_run(tmp_path / "run")


def headings(run: Run) -> list[str]:
    return re.findall(r"<h2[^>]*>(?:\s*<[^>]+>[^<]*</[^>]+>)?\s*([^<]+)", report.render(run))


def test_a_section_of_one_function_and_one_row(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    before = headings(run)
    monkeypatch.setattr(report, "SECTIONS", (*report.SECTIONS[:3], deepest_section, *report.SECTIONS[3:]))
    after = headings(run)
    assert len(after) == len(before) + 1 and any("Deepest neurons" in heading for heading in after)
    deepest = run.table("neurons")["layer"].max()
    assert f"The deepest layer is {deepest}." in report.render(run)
    # Left out without a table that it needs; with a note instead where it says so.
    (run.path / "agreement.parquet").unlink()
    assert not any("Deepest neurons" in heading for heading in headings(run))
    noted = section("deepest", "Deepest neurons", neurons="nothing was scored.", agreement="one method alone.")
    monkeypatch.setattr(report, "SECTIONS", (noted(deepest_section.make),))
    assert "agreement.parquet is not in this run folder: one method alone." in report.render(run)
    assert "nothing was scored." not in report.render(run)


@pytest.mark.parametrize("part", report.SECTIONS, ids=lambda part: part.id)
def test_what_a_section_needs_is_a_table(part: SectionMaker) -> None:
    assert set(part.needs) <= set(SCHEMA)
    assert part.make.__doc__
