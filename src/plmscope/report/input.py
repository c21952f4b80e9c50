"""What the report reads: tables, settings and manifest of a run folder, once; never a model."""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from plmscope.data.annotations import EC_NAMES
from plmscope.data.labels import LabelTask
from plmscope.errors import RunError
from plmscope.report.blocks import Block, Section, Text, is_number, words
from plmscope.scoring.table import FORMS, signed_methods
from plmscope.store.folder import Run
from plmscope.store.schema import SCHEMA

KNOWLEDGE_FRACTION = 0.02
#: The forms of a score with a sign, by the ending of their column.
FORM_WORDS = {"": "signed mean", "_abs": "absolute", "_rms": "root mean square", "_class": "class means"}
DASHES = ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot", "solid")
MARKERS = ("circle", "square", "diamond", "triangle-up", "x", "triangle-down", "cross")


#: Tables that every study makes; another one may be left out by its settings.
ALWAYS = (
    "proteins", "excluded", "leakage", "training", "neurons", "curves", "predictions", "comparison", "density",
)  # fmt: skip


class Results:
    """The contents of a run folder, read once; what is missing is None."""

    def __init__(self, run: Run) -> None:
        self.manifest = run.manifest()
        metrics = run.metrics() if (run.path / "metrics.json").is_file() else {}
        self.metrics: dict[str, Any] = metrics.get("splits", {})
        self.labels = [str(label) for label in metrics.get("labels", ())]
        self.task: LabelTask = "multi" if metrics.get("task") == "multi" else "single"
        self.study_text, self.study = _read_study(run.path / "study.toml")
        self.tables = {name: run.table(name) for name in SCHEMA if name != "selections" and run.has(name)}

    def get(self, name: str) -> pd.DataFrame | None:
        """A table with at least one row, or None."""
        table = self.tables.get(name)
        return table if table is not None and len(table) else None

    def missing(self, name: str, consequence: str) -> Text:
        """The note that stands where a table is missing or empty."""
        if name in self.tables:
            return Text(f"{name}.parquet has no rows: {consequence}", "note")
        if name in ALWAYS:
            return Text(f"{name}.parquet is not in this run folder: {consequence}", "note")
        return Text(f"Not computed in this study ({name}.parquet): {consequence}", "note")

    def look(self, *keys: str) -> Any:
        """A manifest entry, or None."""
        value: Any = self.manifest
        for key in keys:
            value = value.get(key) if isinstance(value, Mapping) else None
        return value

    def setting(self, section: str, key: str) -> Any:
        """A setting of ``study.toml``, or None."""
        values = self.study.get(section)
        return values.get(key) if isinstance(values, dict) else None

    @property
    def evaluated_words(self) -> str:
        """Which test proteins selections were judged on: ``the 43 test proteins that were evaluated``."""
        number = self.look("evaluated_proteins")
        return f"the {number:,} test proteins that were evaluated" if is_number(number) else "test proteins"

    def ranked_column(self, method: str) -> str:
        """The column of ``neurons.parquet`` that selections by a method are ranked by: of one with a sign, a form."""
        neurons = self.get("neurons")
        column = method + FORMS.get(str(self.setting("score", "ranking")), "")
        known = neurons is not None and column in neurons.columns and method in signed_methods()
        return column if known else method

    def score_words(self, column: str) -> str:
        """A column of scores in words; one of several forms of a score with a sign says which it is."""
        neurons = self.get("neurons")
        there = set() if neurons is None else {*neurons.columns}
        for method in signed_methods():
            for ending, form in FORM_WORDS.items():
                if column == method + ending and (ending or there & {method + other for other in FORMS.values()}):
                    return f"{words(method)} ({form})"
        return words(column)

    @property
    def kinds(self) -> pd.DataFrame | None:
        """The table of module kinds, null models included; None where it is missing."""
        own, nulls = self.get("modules"), self.get("modules_null")
        return own if own is None or nulls is None else pd.concat([own, nulls], ignore_index=True)

    @cached_property
    def methods(self) -> tuple[str, ...]:
        """The scoring methods, in the order of the neuron table."""
        methods: list[str] = []
        neurons = self.get("neurons")
        if neurons is not None:
            methods += [str(column) for column in neurons.columns if column not in SCHEMA["neurons"]]
        for name in ("comparison", "density"):
            table = self.get(name)
            if table is not None:
                methods += [str(method) for method in table["method"].unique()]
        return tuple(dict.fromkeys(methods))

    @cached_property
    def knowledge_fraction(self) -> float:
        """The share of neurons that may be called knowledge neurons."""
        for values in self.study.values():
            if isinstance(values, dict) and "knowledge_fraction" in values:
                return float(values["knowledge_fraction"])
        return KNOWLEDGE_FRACTION

    def class_name(self, label: object) -> str:
        """A class label; top-level EC classes with their name."""
        text = str(label)
        is_ec = self.setting("data", "label") == "ec:1" and text in EC_NAMES
        return f"{text} ({EC_NAMES[text]})" if is_ec else text

    def style(self, method: str) -> dict[str, Any]:
        """Colour, dash and marker of a method, the same in every plot."""
        place = self.methods.index(method) if method in self.methods else 0
        return {
            "line": {"color": f"@c{place % 7}", "dash": DASHES[place % 7], "width": 2},
            "marker": {"color": f"@c{place % 7}", "symbol": MARKERS[place % 7], "size": 8},
        }


@dataclass(frozen=True)
class SectionMaker:
    """A section of the report: the tables that it needs, and the blocks that it makes of them. Made by :func:`section`.

    Attributes:
        id: Its address in the page.
        title: Its heading.
        make: Makes the blocks.
        needs: Table to what is lost without it, for the note that stands in the section's place then.
        left_out: Whether the whole section is left out then, without a note.
    """

    id: str
    title: str
    make: Callable[[Results], Sequence[Block]]
    needs: Mapping[str, str]
    left_out: bool = False

    def __call__(self, results: Results) -> Section:
        """The section of a run folder; notes where a table that it needs is missing or empty."""
        lost = [results.missing(name, text) for name, text in self.needs.items() if results.get(name) is None]
        return Section(self.id, self.title, tuple(lost or self.make(results)))

    def there(self, results: Results) -> bool:
        """Whether the section is in the report of a run folder."""
        return not self.left_out or all(results.get(name) is not None for name in self.needs)


def section(
    name: str, title: str, *, left_out: bool = False, **needs: str
) -> Callable[[Callable[[Results], Sequence[Block]]], SectionMaker]:
    """Make a section of the function of its blocks.

    Args:
        name: Its address in the page.
        title: Its heading.
        left_out: Whether it is left out where a table that it needs is missing, instead of a note in its place.
        **needs: Table to what is lost without it.

    >>> @section("sizes", "Sizes", neurons="nothing was counted.")
    ... def sizes_section(results: Results) -> Sequence[Block]:
    ...     return (Text(f"{len(results.tables['neurons'])} neurons"),)
    >>> sizes_section.title, dict(sizes_section.needs)
    ('Sizes', {'neurons': 'nothing was counted.'})
    """

    def made(make: Callable[[Results], Sequence[Block]]) -> SectionMaker:
        return SectionMaker(name, title, make, needs, left_out)

    return made


def _read_study(path: Path) -> tuple[str, dict[str, Any]]:
    """The text and values of ``study.toml``; both empty where there is none."""
    if not path.is_file():
        return "", {}
    try:
        text = path.read_text(encoding="utf-8")
        return text, tomllib.loads(text)
    except (OSError, ValueError) as error:
        raise RunError(
            f"{path}: cannot be read ({error}); mend it or copy it from the study that made the run"
        ) from None
