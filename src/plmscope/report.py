"""One self-contained HTML file from a run folder: the answer first, then everything it rests on.

The report reads results only, never a model. Every section is one function that turns tables of the run folder into
plain blocks (:class:`Table`, :class:`FigureGroup`, ...); ``templates/`` turns blocks into HTML. A table that is
missing is named in its section instead of failing the report. The sentences that state a verdict are
:func:`quality_answer`, :func:`kept_answer` and :func:`density_answer`; they hold the rules for what may be claimed.

Everything that comes from data is escaped: text by the template, JSON by Jinja's ``tojson``, plot labels by
:func:`_plot_text` because Plotly reads a subset of HTML. A content security policy forbids the file any request.
"""

from __future__ import annotations

import html
import math
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from importlib import resources
from pathlib import Path
from typing import Any, ClassVar, Literal

import jinja2
import numpy as np
import pandas as pd
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from plmscope.annotations import EC_NAMES
from plmscope.errors import RunError
from plmscope.results import SCHEMA, Run, write_atomic
from plmscope.sites import MODULES

#: Methods on which the density verdict rests: their scores can be compared between modules.
JUDGES = ("integrated_gradients", "conductance", "activation_contrast")
NULLS = {"label_shuffled": "label-shuffled", "random_weights": "randomly initialised"}
KNOWLEDGE_FRACTION = 0.02
TOP = 50
TOP_PER_CLASS = 10

CLASSIFIERS = {"model": "model", "majority": "majority class", "composition": "composition"}
SPLITS = ("train", "validation", "test")
METRICS = {
    "balanced_accuracy": "balanced accuracy",
    "accuracy": "accuracy",
    "log_loss": "log-loss (nats)",
    "true_class_probability": "true-class probability",
}
CONTROLS = {
    "random": "uniform random",
    "random_matched": "site-matched random",
    "random_active": "site- and activity-matched random",
}
BAND = (0.05, 0.5, 0.95)
DASHES = ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot", "solid")
MARKERS = ("circle", "square", "diamond", "triangle-up", "x", "triangle-down", "cross")
REFERENCES = (
    (
        "Nori D, Singireddy S, Ten Have M (2023). Identification of Knowledge Neurons in Protein Language Models. "
        "arXiv:2312.10770",
        "https://arxiv.org/abs/2312.10770",
    ),
    (
        "Dai D, Dong L, Hao Y, Sui Z, Chang B, Wei F (2022). Knowledge Neurons in Pretrained Transformers. "
        "Proceedings of ACL 2022. arXiv:2104.08696",
        "https://arxiv.org/abs/2104.08696",
    ),
)

Verdict = Literal["yes", "partly", "no", "unclear", "not run"]


# ---------------------------------------------------------------------------------------------------------------------
# What a section is made of


@dataclass(frozen=True, slots=True)
class Answer:
    """A verdict and the sentences that state it with its numbers."""

    verdict: Verdict
    question: str
    text: str
    details: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Select:
    """A choice above a figure or table; ``options`` are (value, text), the first is the default."""

    name: str
    label: str
    options: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Cell:
    """A table cell: what is read, and what the column is sorted by (the text where None)."""

    text: str
    sort: float | None = None
    small: str = ""


@dataclass(frozen=True, slots=True)
class Row:
    """A table row; ``tags`` are the choices of the table's select under which it is shown."""

    cells: tuple[Cell, ...]
    strong: bool = False
    tags: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Table:
    """A sortable table; the first cell of a row is its header. A column is (label, is numeric)."""

    kind: ClassVar[str] = "table"
    id: str
    caption: str
    columns: tuple[tuple[str, bool], ...]
    rows: tuple[Row, ...]
    search: bool = False
    select: Select | None = None
    folded: str = ""


@dataclass(frozen=True, slots=True)
class Panel:
    """One plot. A trace with ``when`` = {select: [values]} is drawn only under these choices.

    ``patches`` = {select: {value: part of a layout}} changes the layout with a choice. Colours are names such as
    ``@c0`` or ``@text/0.2`` (with opacity), which the page replaces by those of its theme.
    """

    id: str
    title: str
    traces: tuple[dict[str, Any], ...]
    layout: dict[str, Any]
    patches: dict[str, dict[str, Any]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class FigureGroup:
    """Plots that share their choices and their caption."""

    kind: ClassVar[str] = "figures"
    id: str
    caption: str
    panels: tuple[Panel, ...]
    selects: tuple[Select, ...] = ()

    @property
    def choices(self) -> tuple[Select, ...]:
        """The selects that leave a choice."""
        return tuple(select for select in self.selects if len(select.options) > 1)


@dataclass(frozen=True, slots=True)
class Text:
    """A paragraph; ``copy`` adds a button, ``code`` sets it in a folded monospaced block under ``title``."""

    kind: ClassVar[str] = "text"
    text: str
    style: Literal["plain", "note", "copy", "code"] = "plain"
    title: str = ""
    id: str = ""


@dataclass(frozen=True, slots=True)
class References:
    """Literature; each entry is (text, address)."""

    kind: ClassVar[str] = "references"
    entries: tuple[tuple[str, str], ...]


Block = Table | FigureGroup | Text | References


@dataclass(frozen=True, slots=True)
class Section:
    """One numbered section of the report."""

    id: str
    title: str
    blocks: tuple[Block, ...]


# ---------------------------------------------------------------------------------------------------------------------
# What the report reads


class Results:
    """The contents of a run folder, read once; what is missing is None."""

    def __init__(self, run: Run) -> None:
        self.manifest = run.manifest()
        metrics = run.metrics() if (run.path / "metrics.json").is_file() else {}
        self.metrics: dict[str, Any] = metrics.get("splits", {})
        self.labels = [str(label) for label in metrics.get("labels", ())]
        self.study_text, self.study = _read_study(run.path / "study.toml")
        self.tables = {name: run.table(name) for name in SCHEMA if name != "selections" and run.has(name)}

    def get(self, name: str) -> pd.DataFrame | None:
        """A table with at least one row, or None."""
        table = self.tables.get(name)
        return table if table is not None and len(table) else None

    def missing(self, name: str, consequence: str) -> Text:
        """The note that stands where a table is missing or empty."""
        state = "has no rows" if name in self.tables else "is not in this run folder"
        return Text(f"{name}.parquet {state}: {consequence}", "note")

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

    @cached_property
    def methods(self) -> tuple[str, ...]:
        """The scoring methods, in the order of the neuron table."""
        found: list[str] = []
        neurons = self.get("neurons")
        if neurons is not None:
            found += [str(column) for column in neurons.columns if column not in SCHEMA["neurons"]]
        for name in ("comparison", "density"):
            table = self.get(name)
            if table is not None:
                found += [str(method) for method in table["method"].unique()]
        return tuple(dict.fromkeys(found))

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


# ---------------------------------------------------------------------------------------------------------------------
# Numbers and words


def _is_number(value: object) -> bool:
    return isinstance(value, int | float | np.number) and not isinstance(value, bool) and math.isfinite(float(value))


def _number(value: Any, digits: int = 3) -> str:
    """Fixed decimals with a true minus sign; a dash where there is no number."""
    return f"{float(value):.{digits}f}".replace("-", "−") if _is_number(value) else "–"


def _signed(value: Any, digits: int = 3) -> str:
    return ("+" if _is_number(value) and float(value) > 0 else "") + _number(value, digits)


def _short(value: Any) -> str:
    """Three significant digits, for quantities of any scale."""
    return f"{float(value):.3g}".replace("-", "−") if _is_number(value) else "–"


def _whole(value: Any) -> str:
    return f"{int(value):,}" if _is_number(value) else "–"


def _percent(value: Any) -> str:
    return f"{100 * float(value):.3g} %" if _is_number(value) else "–"


def _p(value: Any) -> str:
    if not _is_number(value):
        return "p not computed"
    return "p < 0.001" if float(value) < 0.001 else f"p = {float(value):.3f}"


def _interval(low: Any, high: Any, digits: int = 3) -> str:
    if not (_is_number(low) and _is_number(high)):
        return "no interval"
    return f"95 % interval {_number(low, digits)} to {_number(high, digits)}"


def _words(name: object) -> str:
    return str(name).replace("_", " ")


def _control(name: str) -> str:
    return CONTROLS.get(name, _words(name))


def _listed(parts: Sequence[str]) -> str:
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}" if parts else "none"


def _plot_text(text: object, width: int = 28) -> str:
    """Text for a plot: entities escaped, since Plotly reads some HTML, and shortened to fit (tables hold it whole)."""
    plain = str(text)
    return html.escape(plain if len(plain) <= width else plain[: width - 1] + "…", quote=False)


def _cell(text: str, sort: Any = None, small: str = "") -> Cell:
    return Cell(text, float(sort) if _is_number(sort) else None, small)


def _json_ready(value: Any) -> Any:
    """Plain Python numbers, six significant digits, None for what is not finite."""
    if isinstance(value, Mapping):
        return {str(key): _json_ready(item) for key, item in value.items()}
    if isinstance(value, list | tuple | np.ndarray | pd.Series):
        return [_json_ready(item) for item in value]
    if isinstance(value, bool | np.bool_):
        return bool(value)
    if isinstance(value, int | np.integer):
        return int(value)
    if isinstance(value, float | np.floating):
        return float(f"{value:.6g}") if math.isfinite(value) else None
    return value


# ---------------------------------------------------------------------------------------------------------------------
# The verdicts


def quality_answer(splits: Mapping[str, Any]) -> Answer:
    """Whether the model beats both baselines in balanced accuracy on the test proteins.

    A tie does not beat. These are point estimates on one test set.

    Args:
        splits: The entry ``splits`` of ``metrics.json``.

    >>> scores = {"model": 0.4, "majority": 0.2, "composition": 0.5}
    >>> answer = quality_answer({"test": {name: {"n": 9, "balanced_accuracy": x} for name, x in scores.items()}})
    >>> answer.verdict, answer.text[:52]
    ('no', 'The model does not beat the composition baseline: on')
    """
    question = "Does the model know the classes?"
    test = splits.get("test", {})
    scores: dict[str, Any] = {name: (test.get(name) or {}).get("balanced_accuracy") for name in CLASSIFIERS}
    own = scores.pop("model")
    if not _is_number(own):
        return Answer("not run", question, "There are no test metrics in this run, so its quality is not known.")
    known = {name: float(score) for name, score in scores.items() if _is_number(score)}
    n = _whole(test["model"].get("n"))
    base = {
        "majority": "always answering the largest class gives {}",
        "composition": "amino-acid composition and length alone give {}",
    }
    against = _listed([base[name].format(_number(score)) for name, score in known.items()])
    facts = f"on the {n} test proteins its balanced accuracy is {_number(own)}"
    facts += f", while {against}" if known else ""
    unbeaten = [CLASSIFIERS[name] for name, score in known.items() if not own > score]
    if unbeaten:
        text = (
            f"The model does not beat the {_listed(unbeaten)} baseline{'s' if len(unbeaten) > 1 else ''}: {facts}. "
            "Whatever follows describes a model that has not been shown to know the classes."
        )
        return Answer("no", question, text)
    absent = [CLASSIFIERS[name] for name in scores if name not in known]
    if absent:
        text = f"It cannot be said, because the {_listed(absent)} baseline was not run: {facts}."
        return Answer("unclear", question, text)
    margin = own - max(known.values())
    text = f"The model beats both baselines: {facts}. The margin over the better baseline is {_number(margin)}."
    return Answer("yes", question, text)


def primary_rows(comparison: pd.DataFrame | None) -> pd.DataFrame:
    """The rows of the primary outcome, one per method."""
    if comparison is None:
        return pd.DataFrame(columns=list(SCHEMA["comparison"]))
    return comparison[comparison["primary"].astype(bool)].drop_duplicates("method")


def beats_chance(row: Mapping[Any, Any]) -> bool:
    """The rule for the word *knowledge neurons*: one-sided p < 0.05 and the whole interval above 0.

    >>> beats_chance({"p_value": 0.01, "ci_low": 0.02}), beats_chance({"p_value": 0.01, "ci_low": -0.02})
    (True, False)
    """
    p, low = row["p_value"], row["ci_low"]
    return bool(_is_number(p) and _is_number(low) and p < 0.05 and low > 0)


def neuron_word(comparison: pd.DataFrame | None, method: str) -> str:
    """``knowledge neurons`` if the method's primary comparison beats chance, else ``selected neurons``."""
    rows = primary_rows(comparison)
    rows = rows[rows["method"] == method]
    return "knowledge neurons" if len(rows) and beats_chance(rows.iloc[0].to_dict()) else "selected neurons"


def kept_sentence(row: Mapping[Any, Any]) -> str:
    """One method's primary outcome: what keeping its neurons gains over matched chance, and the word that follows."""
    method = _words(row["method"])
    sentence = (
        f"By {method}: area difference {_signed(row['difference'])} "
        f"({_interval(row['ci_low'], row['ci_high'])}, {_p(row['p_value'])}, "
        f"better than {_whole(row['draws_beaten'])} of {_whole(row['n_draws'])} draws)"
    )
    if beats_chance(row):
        return f"{sentence}; its best neurons are called knowledge neurons."
    if not _is_number(row["p_value"]) or not _is_number(row["ci_low"]):
        why = "p or the interval is missing"
    else:
        reasons = [text for text, hit in (("p is not below 0.05", row["p_value"] >= 0.05),
                                          ("the interval reaches 0 or below", row["ci_low"] <= 0)) if hit]  # fmt: skip
        why = _listed(reasons)
    return f"{sentence}; they stay selected neurons, because {why}."


def kept_answer(comparison: pd.DataFrame | None) -> Answer:
    """Whether keeping the chosen neurons preserves more balanced accuracy than matched random neurons."""
    question = "Do the chosen neurons beat matched chance?"
    rows = primary_rows(comparison)
    if not len(rows):
        text = "The comparison with chance was not run, so no neuron is called a knowledge neuron in this report."
        return Answer("not run", question, text)
    records = rows.to_dict("records")
    winners = [_words(row["method"]) for row in records if beats_chance(row)]
    outcome = (
        "the area under the balanced-accuracy curve when only the chosen neurons are kept (others set to their mean)"
    )
    if winners:
        text = (
            f"{len(winners)} of {len(records)} methods beat{'s' if len(winners) == 1 else ''} random neurons drawn "
            f"from the same sites: {_listed(winners)}. The outcome, fixed in advance, is {outcome}."
        )
    else:
        text = (
            f"None of the {len(records)} methods beats random neurons drawn from the same sites, so this report speaks "
            f"of selected neurons throughout. The outcome, fixed in advance, is {outcome}."
        )
    verdict: Verdict = "yes" if len(winners) == len(records) else "partly" if winners else "no"
    return Answer(verdict, question, text, tuple(kept_sentence(row) for row in records))


def density_answer(density: pd.DataFrame | None, null: pd.DataFrame | None, fraction: float) -> Answer:
    """Whether key neurons are over-represented among the best-scored ones, beyond both null models.

    Per judging method, *beyond* means that the interval of the enrichment lies above 1 and above the largest
    enrichment of each null model; *not* means that the enrichment itself does not exceed 1 or a null. All judging
    methods must agree for a yes or a no. Raw activation has no say: its scale differs between modules.

    Args:
        density: The density table, or None.
        null: The same numbers for the null models, or None.
        fraction: The selected share wanted; the nearest one that was computed is used and named.

    >>> density_answer(None, None, 0.02).verdict
    'not run'
    """
    question = "Are keys dense here?"
    keys = _key_rows(density)
    judges = [method for method in JUDGES if method in set(keys["method"])]
    if not judges:
        text = f"The density of keys was not computed for any of {_listed([_words(judge) for judge in JUDGES])}."
        return Answer("not run", question, text)
    judged = keys[keys["method"].isin(judges)]
    nearest = float(min(judged["fraction"].unique(), key=lambda value: (abs(value - fraction), value)))
    nulls = _key_rows(null)
    verdicts: list[str] = []
    parts: list[str] = []
    for method in judges:
        rows = judged[(judged["method"] == method) & np.isclose(judged["fraction"], nearest)]
        if not len(rows):
            continue
        row = rows.iloc[0].to_dict()
        same = nulls[(nulls["method"] == method) & np.isclose(nulls["fraction"].astype(float), nearest)]
        limits = {name: float(same.loc[same["null"] == name, "enrichment"].max()) for name in NULLS}
        verdicts.append(_dense(row, limits))
        shown = [
            f"{_number(limit, 2)} in the {NULLS[name]} model" for name, limit in limits.items() if _is_number(limit)
        ]
        parts.append(
            f"{_number(row['enrichment'], 2)} by {_words(method)} "
            f"({_interval(row['ci_low'], row['ci_high'], 2)}; {_listed(shown) if shown else 'null models not run'})"
        )
    numbers = f"among the best {_percent(nearest)} of neurons, the share of keys relative to an even spread is "
    numbers += _listed(parts)
    if "no null" in verdicts:
        verdict: Verdict = "unclear"
        text = f"This cannot be judged without both null models: {numbers}."
    elif set(verdicts) == {"beyond"}:
        verdict, text = "yes", f"Keys are denser than in both null models: {numbers}."
    elif set(verdicts) == {"not"}:
        verdict, text = "no", f"Keys are not denser than in the null models: {numbers}."
    else:
        verdict, text = "unclear", f"There is no clear excess of keys over the null models: {numbers}."
    raw = keys[(keys["method"] == "activation") & np.isclose(keys["fraction"].astype(float), nearest)]
    details: tuple[str, ...] = ()
    if len(raw):
        share = _number(raw.iloc[0]["enrichment"], 2)
        details = (
            f"Raw activation gives a relative share of {share}, but modules differ in the scale of their activations, "
            "so this number is a scale artefact and is not evidence.",
        )
    return Answer(verdict, question, text, details)


def _key_rows(density: pd.DataFrame | None) -> pd.DataFrame:
    if density is None:
        return pd.DataFrame(columns=["null", *SCHEMA["density"]])
    return density[(density["module"] == "key") & (density["layer"] == -1)]


def _dense(row: Mapping[Any, Any], limits: Mapping[str, float]) -> str:
    """``beyond``, ``not``, ``unclear`` or ``no null`` for one method."""
    known = [limit for limit in limits.values() if _is_number(limit)]
    if row["enrichment"] <= max([1.0, *known]):
        return "not"
    if len(known) < len(limits):
        return "no null"
    return "beyond" if _is_number(row["ci_low"]) and row["ci_low"] > max([1.0, *known]) else "unclear"


# ---------------------------------------------------------------------------------------------------------------------
# The sections, in the order of the report


def facts(results: Results) -> list[tuple[str, str]]:
    """The strip of numbers under the answer: (name, value)."""
    proteins, neurons, comparison = (results.get(name) for name in ("proteins", "neurons", "comparison"))
    rows: list[tuple[str, str]] = []
    if proteins is not None:
        rows.append(("proteins", _whole(len(proteins))))
        rows.append(("classes", _whole(proteins["label"].nunique())))
    if neurons is not None:
        rows.append(("neurons", _whole(len(neurons))))
    if results.look("model", "id"):
        rows.append(("model", str(results.look("model", "id"))))
    if comparison is not None:
        rows.append(("draws per control", _draws(comparison)))
    return rows


def primary_figure(results: Results) -> FigureGroup | None:
    """The primary outcome as a forest plot."""
    rows = primary_rows(results.get("comparison"))
    if not len(rows):
        return None
    records = rows.to_dict("records")
    traces = []
    for record in records:
        style = results.style(record["method"])
        traces.append(
            {
                "type": "scatter",
                "mode": "markers",
                "x": [record["difference"]],
                "y": [_plot_text(_words(record["method"]))],
                "error_x": {
                    "type": "data",
                    "symmetric": False,
                    "array": [record["ci_high"] - record["difference"]],
                    "arrayminus": [record["difference"] - record["ci_low"]],
                    "color": style["marker"]["color"],
                    "thickness": 2,
                },
                "marker": style["marker"] | {"size": 11},
                "hovertemplate": f"%{{x:.3f}}, {_interval(record['ci_low'], record['ci_high'])}<extra>%{{y}}</extra>",
                "showlegend": False,
            }
        )
    layout = {
        "height": 110 + 42 * len(records),
        "xaxis": {"title": {"text": "difference in area from matched chance"}, "zeroline": True},
        "yaxis": {"autorange": "reversed", "automargin": True},
    }
    caption = (
        "Primary outcome: area under the keep curve (mean ablation, pooled ranking) minus that of random neurons "
        "matched by site, with 95 % bootstrap intervals over test clusters and draws. Right of the line is better "
        "than chance."
    )
    return FigureGroup(
        "primary", caption, (Panel("plot-primary", "Difference from matched chance", tuple(traces), layout),)
    )


def data_section(results: Results) -> Section:
    """Counts per class and split, exclusions by reason, nearest training identity."""
    blocks: list[Block] = [Text(_data_sentence(results))]
    proteins, excluded, leakage = (results.get(name) for name in ("proteins", "excluded", "leakage"))
    if proteins is None:
        blocks.append(results.missing("proteins", "the counts per class cannot be shown."))
    else:
        blocks.append(_count_table(results, proteins))
    if excluded is not None:
        counts = excluded["reason"].astype(str).value_counts().sort_index().sort_values(ascending=False, kind="stable")
        rows = tuple(Row((_cell(str(reason)), _cell(_whole(n), n))) for reason, n in counts.items())
        blocks.append(Table("excluded", "Proteins left out, by reason", (("reason", False), ("proteins", True)), rows))
    elif "excluded" in results.tables:
        blocks.append(Text("No protein was left out."))
    else:
        blocks.append(results.missing("excluded", "what was left out, and why, is not known."))
    if leakage is None:
        blocks.append(results.missing("leakage", "how close test proteins are to training proteins is not known."))
    else:
        blocks += _leakage_blocks(results, leakage)
    return Section("data", "Data and split", tuple(blocks))


def _data_sentence(results: Results) -> str:
    n_read, n_excluded = results.look("data", "n_read"), results.look("data", "n_excluded")
    method = results.look("split", "method")
    sentence = f"{_whole(n_read)} proteins were read from {results.look('data', 'source') or 'an unnamed source'} and "
    sentence += f"{_whole(n_excluded)} left out. "
    if method == "cluster":
        identity, coverage = (_percent(results.look("split", key)) for key in ("identity", "coverage"))
        sentence += (
            f"Whole clusters (sequence identity {identity}, coverage {coverage}) go to one split, so that relatives of "
            "a test protein are not trained on."
        )
    elif method:
        sentence += f"The split was made by {_words(method)}: relatives of a test protein may be in training."
    return sentence


def _count_table(results: Results, proteins: pd.DataFrame) -> Table:
    counts = pd.crosstab(proteins["label"].astype(str), proteins["split"].astype(str))
    splits = [split for split in SPLITS if split in counts] + [c for c in counts.columns if c not in SPLITS]
    clusters = proteins.groupby(proteins["label"].astype(str))["cluster"].nunique()
    rows = [
        Row(
            (
                _cell(results.class_name(label)),
                *(_cell(_whole(counts.loc[label, split]), counts.loc[label, split]) for split in splits),
                _cell(_whole(counts.loc[label].sum()), counts.loc[label].sum()),
                _cell(_whole(clusters[label]), clusters[label]),
            )
        )
        for label in counts.index
    ]
    total = [int(counts[split].sum()) for split in splits]
    everything = [*total, sum(total), proteins["cluster"].nunique()]
    rows.append(Row((_cell("all classes"), *(_cell(_whole(n), n) for n in everything)), strong=True))
    columns = (("class", False), *((split, True) for split in splits), ("all", True), ("clusters", True))
    return Table("classes", "Proteins per class and split", columns, tuple(rows))


def _leakage_blocks(results: Results, leakage: pd.DataFrame) -> list[Block]:
    threshold = results.look("split", "identity")
    found = leakage[leakage["identity"].notna() & (leakage["nearest_train"].fillna("").astype(str) != "")]
    sentences, traces = [], []
    edges = np.linspace(0, 1, 41)
    for place, split in enumerate(sorted(leakage["split"].astype(str).unique())):
        own = found.loc[found["split"] == split, "identity"].to_numpy(dtype=float)
        n_all = int((leakage["split"] == split).sum())
        sentence = f"Of {_whole(n_all)} {split} proteins, {_whole(n_all - len(own))} align with no training protein"
        if len(own):
            sentence += f"; the others' nearest training relative has a median identity of {_percent(np.median(own))}"
            sentence += f" and a largest of {_percent(own.max())}"
            if _is_number(threshold):
                sentence += f", {_whole((own > threshold).sum())} of them above the split's {_percent(threshold)}"
        sentences.append(sentence + ".")
        counts, _ = np.histogram(own, edges)
        traces.append(
            {
                "type": "bar",
                "name": _plot_text(split),
                "x": (edges[:-1] + edges[1:]) / 2,
                "y": counts,
                "width": 0.025,
                "marker": {"color": f"@c{place}", "pattern": {"shape": ("", "/")[place % 2]}},
                "hovertemplate": "identity %{x:.3f} ± 0.0125: %{y} proteins<extra>%{fullData.name}</extra>",
            }
        )
    line = {"type": "line", "x0": threshold, "x1": threshold, "y0": 0, "y1": 1, "yref": "paper",
            "line": {"color": "@text", "dash": "dot", "width": 1.5}}  # fmt: skip
    layout = {
        "height": 280,
        "barmode": "stack",
        "xaxis": {"title": {"text": "identity to the nearest training protein"}, "range": [0, 1], "tickformat": ".0%"},
        "yaxis": {"title": {"text": "proteins"}},
        "shapes": [line] if _is_number(threshold) else [],
    }
    caption = "Leakage: identity of each held-out protein to its nearest training protein (best local alignment found)."
    caption += " The dotted line is the identity of the clustering." if _is_number(threshold) else ""
    panel = Panel("plot-leakage", "Identity to the nearest training protein", tuple(traces), layout)
    return [Text(" ".join(sentences)), FigureGroup("leakage-figure", caption, (panel,))]


def quality_section(results: Results) -> Section:
    """Metrics beside the baselines, per class, confusion and training curve."""
    blocks: list[Block] = []
    if not results.metrics:
        blocks.append(Text("metrics.json is not in this run folder: the model's quality is not known.", "note"))
    else:
        blocks += [_metric_table(results), _class_table(results)]
    blocks.append(_confusion(results))
    training = results.get("training")
    blocks.append(
        results.missing("training", "the training curve cannot be shown.") if training is None else _training(training)
    )
    return Section("quality", "Model quality", tuple(blocks))


def _metric_table(results: Results) -> Table:
    names = {"accuracy": "accuracy", "balanced_accuracy": "balanced accuracy", "macro_f1": "macro F1", "mcc": "MCC",
             "log_loss": "log-loss"}  # fmt: skip
    rows = []
    for split in ("test", *(name for name in results.metrics if name != "test")):
        for key, title in CLASSIFIERS.items():
            values = results.metrics.get(split, {}).get(key)
            if values:
                cells = (_cell(_number(values.get(name)), values.get(name)) for name in names)
                head = (_cell(title), _cell(split), _cell(_whole(values.get("n")), values.get("n")))
                rows.append(Row((*head, *cells), strong=key == "model" and split == "test"))
    columns = (("classifier", False), ("split", False), ("n", True), *((title, True) for title in names.values()))
    return Table(
        "metrics",
        "Quality of the model and of its baselines (composition: amino-acid frequencies and length)",
        columns,
        tuple(rows),
    )


def _class_table(results: Results) -> Table:
    rows = []
    for split, classifiers in sorted(results.metrics.items()):
        for label, values in sorted(classifiers.get("model", {}).get("per_class", {}).items()):
            cells = [_cell(_number(values.get(name)), values.get(name)) for name in ("precision", "recall", "f1")]
            head = (_cell(results.class_name(label)), _cell(split), _cell(_whole(values.get("n")), values.get("n")))
            rows.append(Row((*head, *cells)))
    columns = (("class", False), ("split", False), ("n", True), ("precision", True), ("recall", True), ("F1", True))
    return Table("per-class", "Quality of the model per class", columns, tuple(rows))


def _confusion(results: Results) -> Block:
    """Confusion of the intact model, if the predictions name it and reproduce its accuracy."""
    predictions, curves, proteins = (results.get(name) for name in ("predictions", "curves", "proteins"))
    if predictions is None:
        return results.missing("predictions", "the confusion matrix cannot be shown.")
    if curves is None or proteins is None:
        return results.missing("curves" if curves is None else "proteins", "the confusion matrix cannot be shown.")
    intact = np.flatnonzero(curves["ablation"] == "none")
    own = predictions[predictions["curve_point"].isin(intact[:1])]
    truth = proteins.drop_duplicates("id").set_index("id")["label"].reindex(own["id"]).astype(str).to_numpy()
    numbers = own["predicted"].to_numpy(dtype=int)
    predicted = np.array([results.labels[i] if 0 <= i < len(results.labels) else "" for i in numbers], dtype=str)
    if not len(own) or abs(float(np.mean(truth == predicted)) - float(curves["accuracy"].iloc[intact[0]])) > 1e-3:
        return Text("The stored predictions do not give the accuracy of the intact model: no confusion matrix.", "note")
    labels = sorted({*truth, *predicted})
    counts = pd.crosstab(truth, predicted).reindex(index=labels, columns=labels, fill_value=0).to_numpy()
    share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    ticks = {"tickvals": list(range(len(labels))), "ticktext": [_plot_text(results.class_name(x)) for x in labels]}
    trace = {
        "type": "heatmap", "z": share, "text": counts, "texttemplate": "%{text}", "zmin": 0, "zmax": 1,
        "colorscale": [[0, "@surface"], [1, "@high"]], "xgap": 1, "ygap": 1,
        "showscale": False,
        "hovertemplate": "true class %{y}<br>predicted %{x}<br>%{text} proteins, %{z:.1%} of the class<extra></extra>",
    }  # fmt: skip
    layout = {
        "height": 100 + 36 * len(labels),
        "xaxis": {
            "title": {"text": "predicted"},
            **ticks,
            "ticktext": [_plot_text(x, 12) for x in labels],
            "showgrid": False,
        },
        "yaxis": {"title": {"text": "true"}, **ticks, "autorange": "reversed", "showgrid": False},
    }
    caption = (
        f"Confusion of the intact model on {_whole(len(own))} test proteins: counts, shaded by share of the true class."
    )
    return FigureGroup("confusion-figure", caption, (Panel("plot-confusion", "Confusion matrix", (trace,), layout),))


def _training(training: pd.DataFrame) -> FigureGroup:
    models = [str(model) for model in training["model"].unique()]
    loss, quality = [], []
    for model in models:
        rows, when = training[training["model"] == model], {"model": [model]}
        for place, (column, name) in enumerate((("train_loss", "training"), ("validation_loss", "validation"))):
            loss.append(_line(rows["epoch"], rows[column], name, place, when))
        quality.append(_line(rows["epoch"], rows["validation_balanced_accuracy"], "validation", 1, when))
    axis = {"title": {"text": "epoch"}, "dtick": max(1, int(training["epoch"].max()) // 6)}
    panels = (
        Panel("plot-loss", "Loss", tuple(loss), {"height": 280, "xaxis": axis, "yaxis": {"title": {"text": "loss"}}}),
        Panel(
            "plot-epochs",
            "Balanced accuracy",
            tuple(quality),
            {"height": 280, "xaxis": axis, "yaxis": {"title": {"text": "balanced accuracy"}}, "showlegend": False},
        ),
    )
    options = tuple((model, _words(model)) for model in models)
    return FigureGroup("training-figure", "Fine-tuning, epoch by epoch.", panels, (Select("model", "Model", options),))


def _line(x: Iterable[Any], y: Iterable[Any], name: str, place: int, when: dict[str, list[str]]) -> dict[str, Any]:
    return {
        "type": "scatter", "mode": "lines+markers", "x": list(x), "y": list(y), "name": name, "when": when,
        "line": {"color": f"@c{place}", "dash": DASHES[place], "width": 2},
        "marker": {"symbol": MARKERS[place], "size": 6},
    }  # fmt: skip


def curves_section(results: Results) -> Section:
    """Keep and ablate curves with the band of their chance draws."""
    curves = results.get("curves")
    if curves is None:
        return Section("curves", "Keep and ablate", (results.missing("curves", "nothing was kept or ablated yet."),))
    intro = Text(
        "Keep: all neurons but the chosen ones are replaced by a constant. Ablate: the chosen ones are. Replacing by "
        "the mean stays close to what the network has seen; replacing by zero does not, which is why both are shown. "
        "Bands span the 5th to 95th percentile of the random draws; thin lines inside them are medians. Choose one "
        "method to see the controls that are matched to it."
    )
    intact = curves[curves["ablation"] == "none"]
    changed = curves[curves["ablation"] != "none"]
    methods = [m for m in results.methods if m in set(changed.loc[changed["draw"] < 0, "method"])]
    methods += [str(m) for m in changed.loc[changed["draw"] < 0, "method"].unique() if m not in methods]
    panels = []
    for mode in ("keep", "ablate"):
        for ablation in sorted(changed["ablation"].astype(str).unique()):
            part = changed[(changed["mode"] == mode) & (changed["ablation"] == ablation)]
            if len(part):
                panels.append(_curve_panel(results, part, intact, methods, mode, ablation))
    scopes = sorted(changed["scope"].astype(str).unique())
    selects = (
        Select("metric", "Metric", tuple(METRICS.items())),
        Select("show", "Show", (("all", "all methods"), *((m, f"{_words(m)} and its controls") for m in methods))),
        Select("axis", "Fraction axis", (("linear", "linear, as in the areas"), ("log", "logarithmic"))),
        Select("scope", "Ranking", tuple((scope, _words(scope)) for scope in scopes)),
    )
    caption = (
        "Quality on test proteins against the fraction of neurons. The horizontal dotted line is the intact model."
    )
    return Section("curves", "Keep and ablate", (intro, FigureGroup("curves-figure", caption, tuple(panels), selects)))


def _curve_panel(
    results: Results, part: pd.DataFrame, intact: pd.DataFrame, methods: list[str], mode: str, ablation: str
) -> Panel:
    traces: list[dict[str, Any]] = []
    end = 1.0 if mode == "keep" else 0.0
    for scope in sorted(part["scope"].astype(str).unique()):
        own = part[part["scope"] == scope]
        draws = own[own["draw"] >= 0].fillna({"matched_to": ""})
        bands = draws.groupby(["method", "matched_to", "fraction"])[list(METRICS)].quantile(np.array(BAND))
        for metric in METRICS:
            whole = float(intact[metric].iloc[0]) if len(intact) else math.nan
            base = {"metric": [metric], "scope": [scope]}
            for control, matched_to in bands.index.droplevel(["fraction", None]).unique():
                when = base | {"show": [matched_to] if matched_to else ["all", *methods]}
                quantiles = bands.loc[(control, matched_to), metric].unstack()
                traces += _band(quantiles, control, whole, end, when)
            for method in methods:
                rows = own[(own["draw"] < 0) & (own["method"] == method)].sort_values("fraction")
                if len(rows):
                    x, y = _with_intact(rows["fraction"], rows[metric], end, whole)
                    name = _plot_text(_words(method))
                    traces.append(
                        {"type": "scatter", "mode": "lines+markers", "x": x, "y": y, "name": name,
                         "when": base | {"show": ["all", method]}, **results.style(method)}
                    )  # fmt: skip
    verb = "kept" if mode == "keep" else "ablated"
    layout = {
        "height": 400,
        "xaxis": {"title": {"text": f"fraction {verb}"}, "tickformat": "~%", "rangemode": "tozero"},
        "yaxis": {"title": {"text": next(iter(METRICS.values()))}},
    }
    patches: dict[str, dict[str, Any]] = {
        "metric": {
            name: {
                "yaxis": {"title": {"text": title}},
                "shapes": [_level(float(intact[name].iloc[0]))] if len(intact) else [],
            }
            for name, title in METRICS.items()
        },
        "axis": {
            "linear": {"xaxis": {"type": "linear"}},
            "log": {"xaxis": {"type": "log", "rangemode": "normal", "dtick": 1}},
        },
    }
    title = f"{mode.capitalize()}, {ablation} ablation"
    return Panel(f"plot-{mode}-{ablation}", title, tuple(traces), layout, patches)


def _level(y: float) -> dict[str, Any]:
    """A dotted horizontal line."""
    return {"type": "line", "x0": 0, "x1": 1, "xref": "paper", "y0": y, "y1": y,
            "line": {"color": "@text", "dash": "dot", "width": 1.5}}  # fmt: skip


def _with_intact(
    fraction: Iterable[float], value: Iterable[float], end: float, whole: float
) -> tuple[list[float], list[float]]:
    """A curve with the intact model as its last (keep) or first (ablate) point."""
    x, y = [float(item) for item in fraction], [float(item) for item in value]
    if not _is_number(whole) or end in x:
        return x, y
    return ([*x, end], [*y, whole]) if end == 1.0 else ([end, *x], [whole, *y])


def _band(
    quantiles: pd.DataFrame, control: str, whole: float, end: float, when: dict[str, list[str]]
) -> list[dict[str, Any]]:
    """The 5th to 95th percentile of the draws as an area, and their median as a thin line; one row a fraction."""
    x, low = _with_intact(quantiles.index, quantiles[BAND[0]], end, whole)
    _, middle = _with_intact(quantiles.index, quantiles[BAND[1]], end, whole)
    _, high = _with_intact(quantiles.index, quantiles[BAND[2]], end, whole)
    colour, dash = {
        "random": ("@muted", "dot"),
        "random_matched": ("@c4", "dash"),
        "random_active": ("@c6", "dashdot"),
    }.get(control, ("@c5", "longdash"))
    name = _plot_text(f"{_control(control)} (5–95 %)", 60)
    area = {
        "type": "scatter", "mode": "lines", "x": [*x, *reversed(x)], "y": [*high, *reversed(low)], "fill": "toself",
        "fillcolor": f"{colour}/0.22", "line": {"width": 0}, "hoverinfo": "skip", "showlegend": False, "when": when,
    }  # fmt: skip
    median = {
        "type": "scatter", "mode": "lines", "x": x, "y": middle, "name": name, "when": when,
        "line": {"color": colour, "width": 1.5, "dash": dash}, "customdata": list(zip(low, high, strict=True)),
        "hovertemplate": "median %{y:.3f}, 5–95 %: %{customdata[0]:.3f} to %{customdata[1]:.3f}"
        "<extra>%{fullData.name}</extra>",
    }  # fmt: skip
    return [area, median]


def comparison_section(results: Results) -> Section:
    """Every comparison with chance."""
    comparison = results.get("comparison")
    if comparison is None:
        note = results.missing("comparison", "no method was compared with chance.")
        return Section("comparison", "Comparison with chance", (note,))
    intro = Text(
        "Areas under the curves above (trapezoid rule, linear axis). “Good sign” says which sign of the difference "
        "favours the method. Primary rows are the outcome fixed in advance and carry an uncorrected one-sided p value; "
        "all others are secondary and are to be read by their q value (Benjamini-Hochberg)."
    )
    ordered = comparison.sort_values("primary", ascending=False, kind="stable")
    rows = []
    for row in ordered.to_dict("records"):
        cells = [
            _cell(_words(row["method"])),
            _cell(_control(str(row["against"]))),
            *(_cell(_words(row[name])) for name in ("mode", "ablation", "metric")),
            _cell(_signed(row["difference"]), row["difference"]),
            _cell(f"{_number(row['ci_low'])} to {_number(row['ci_high'])}", row["ci_low"]),
            _cell("+" if row["better"] > 0 else "−", row["better"]),
            _cell(_short(row["p_value"]), row["p_value"]),
            _cell(_short(row["q_value"]), row["q_value"]),
            _cell(f"{_whole(row['draws_beaten'])} of {_whole(row['n_draws'])}", row["draws_beaten"]),
            *(_cell(_number(row[name]), row[name]) for name in ("auc", "auc_against")),
            _cell(_words(row["p_kind"])),
            _cell(_words(row["scope"])),
            _cell("primary" if row["primary"] else "secondary"),
        ]
        rows.append(Row(tuple(cells), strong=bool(row["primary"])))
    columns = (
        ("method", False), ("against", False), ("mode", False), ("ablation", False), ("metric", False),
        ("difference", True), ("95 % interval", True), ("good sign", True), ("p", True), ("q", True),
        ("draws beaten", True), ("area", True), ("area by chance", True), ("kind of p", False), ("ranking", False),
        ("outcome", False),
    )  # fmt: skip
    table = Table("comparisons", "All comparisons with chance", columns, tuple(rows), search=True)
    return Section("comparison", "Comparison with chance", (intro, table))


def density_section(results: Results) -> Section:
    """Where the best-scored neurons are: module by layer, and per module beside the null models."""
    density, null = results.get("density"), results.get("density_null")
    if density is None:
        notes = [results.missing("density", "where the neurons lie was not counted.")]
        notes += [_null_missing(results)] if null is None else []
        return Section("density", "Density", tuple(notes))
    intro = Text(
        "Density is the selected share of a module; enrichment divides it by the share selected overall, so 1 is even "
        "and the size of a module does not matter. The p values treat neurons as exchangeable, which they are not: "
        "they are descriptive. For raw activation, a comparison between modules reflects the scale of their "
        "activations and nothing else; read integrated gradients, conductance or activation contrast."
    )
    methods = [m for m in results.methods if m in set(density["method"])]
    fractions = sorted(density["fraction"].unique(), key=lambda f: (abs(f - results.knowledge_fraction), f))
    preferred = [m for m in JUDGES if m in methods]
    selects = (
        Select(
            "method", "Method", tuple((m, _words(m)) for m in [*preferred, *(m for m in methods if m not in preferred)])
        ),
        Select("fraction", "Best", tuple((f"{f:g}", _percent(f)) for f in fractions)),
    )
    caption = (
        "Enrichment of selected neurons: by layer and module (logarithmic colours, cut at 1/8 and 8), and by module "
        "over all layers with bootstrap intervals and the null models. The dotted line is an even spread."
    )
    panels = (_heat_panel(density), _module_panel(density, null))
    blocks: list[Block] = [intro, FigureGroup("density-figures", caption, panels, selects)]
    if null is None:
        blocks.append(_null_missing(results))
    blocks.append(_density_table(density, null))
    return Section("density", "Density", tuple(blocks))


def _null_missing(results: Results) -> Text:
    return results.missing("density_null", "the verdict on keys needs the null models.")


def _when(method: Any, fraction: Any) -> dict[str, list[str]]:
    return {"method": [str(method)], "fraction": [f"{fraction:g}"]}


def _heat_panel(density: pd.DataFrame) -> Panel:
    sites = density[(density["layer"] >= 0) & (density["module"] != "all")]
    modules = [m for m in MODULES if m in set(sites["module"])]
    layers = sorted(int(layer) for layer in sites["layer"].unique())
    traces = []
    for (method, fraction), rows in sites.groupby(["method", "fraction"], sort=True):
        grid = rows.set_index(["module", "layer"])[["enrichment", "n_selected", "n_total"]]
        cells = grid.reindex(pd.MultiIndex.from_product([modules, layers])).to_numpy(dtype=float)
        values = cells.reshape(len(modules), len(layers), 3)
        traces.append(
            {
                "type": "heatmap", "x": [str(layer) for layer in layers], "y": [_words(m) for m in modules],
                "z": np.log2(np.clip(values[:, :, 0], 1 / 8, 8)), "customdata": values, "zmin": -3, "zmax": 3,
                "colorscale": [[0, "@low"], [0.5, "@mid"], [1, "@high"]], "xgap": 1, "ygap": 1,
                "colorbar": {"thickness": 12, "tickvals": [-3, -2, -1, 0, 1, 2, 3],
                             "ticktext": ["≤ 1/8", "1/4", "1/2", "1", "2", "4", "≥ 8"]},
                "hovertemplate": "layer %{x}, %{y}<br>enrichment %{customdata[0]:.2f}<br>"
                "%{customdata[1]} of %{customdata[2]} selected<extra></extra>",
                "when": _when(method, fraction),
            }
        )  # fmt: skip
    layout = {
        "height": 330,
        "xaxis": {"title": {"text": "layer"}, "type": "category", "showgrid": False},
        "yaxis": {"autorange": "reversed", "automargin": True, "showgrid": False},
    }
    return Panel("plot-density-sites", "Layer and module", tuple(traces), layout)


def _module_panel(density: pd.DataFrame, null: pd.DataFrame | None) -> Panel:
    traces: list[dict[str, Any]] = []
    symbols = ("diamond-open", "x-thin-open")
    for (method, fraction), rows in _module_rows(density).groupby(["method", "fraction"], sort=True):
        when = _when(method, fraction)
        traces.append(
            {
                "type": "bar", "name": "fine-tuned model", "x": [_words(m) for m in rows["module"]],
                "y": rows["enrichment"], "marker": {"color": "@c0/0.55"}, "when": when,
                "error_y": {"type": "data", "symmetric": False, "array": rows["ci_high"] - rows["enrichment"],
                            "arrayminus": rows["enrichment"] - rows["ci_low"], "color": "@text", "thickness": 1.5},
                "customdata": rows[["n_selected", "n_total", "ci_low", "ci_high"]].to_numpy(dtype=float),
                "hovertemplate": "%{x}: enrichment %{y:.2f} (%{customdata[2]:.2f} to %{customdata[3]:.2f})<br>"
                "%{customdata[0]} of %{customdata[1]} selected<extra></extra>",
            }
        )  # fmt: skip
        if null is None:
            continue
        same = _module_rows(null[(null["method"] == method) & np.isclose(null["fraction"], rows["fraction"].iloc[0])])
        for place, (name, own) in enumerate(same.groupby("null", sort=True)):
            traces.append(
                {
                    "type": "scatter", "mode": "markers", "name": f"{NULLS.get(str(name), _words(name))} model",
                    "x": [_words(m) for m in own["module"]], "y": own["enrichment"], "when": when,
                    "marker": {"symbol": symbols[place % 2], "size": 11, "color": f"@c{place + 1}",
                               "line": {"width": 2.5}},
                    "hovertemplate": "%{x}: enrichment %{y:.2f}<extra>%{fullData.name}</extra>",
                }
            )  # fmt: skip
    layout = {
        "height": 330,
        "xaxis": {"automargin": True, "showgrid": False},
        "yaxis": {"title": {"text": "enrichment"}, "rangemode": "tozero"},
        "shapes": [_level(1.0)],
    }
    return Panel("plot-density-modules", "Module, all layers", tuple(traces), layout)


def _module_rows(density: pd.DataFrame) -> pd.DataFrame:
    """The rows over all layers, one per module, in the order of the modules."""
    rows = density[(density["layer"] == -1) & density["module"].isin(MODULES)]
    return rows.sort_values("module", key=lambda names: names.map({m: i for i, m in enumerate(MODULES)}), kind="stable")


def _judges_first(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows by method, those that the verdict rests on first, then by fraction."""
    order = [*JUDGES, *sorted(set(rows["method"]) - set(JUDGES))]
    place = rows["method"].map({method: i for i, method in enumerate(order)})
    return rows.assign(place=place).sort_values(["place", "fraction"], kind="stable")


def _density_table(density: pd.DataFrame, null: pd.DataFrame | None) -> Table:
    limits: dict[Any, float] = {}
    if null is not None:
        keys = ["null", "method", "fraction", "module"]
        limits = _module_rows(null).groupby(keys)["enrichment"].max().to_dict()
    rows = []
    for row in _judges_first(_module_rows(density)).to_dict("records"):
        known = [limits.get((name, row["method"], row["fraction"], row["module"])) for name in NULLS]
        cells = [
            _cell(_words(row["method"])),
            _cell(_percent(row["fraction"]), row["fraction"]),
            _cell(_words(row["module"])),
            _cell(f"{_whole(row['n_selected'])} of {_whole(row['n_total'])}", row["n_selected"]),
            _cell(_percent(row["density"]), row["density"]),
            _cell(_number(row["enrichment"], 2), row["enrichment"]),
            _cell(f"{_number(row['ci_low'], 2)} to {_number(row['ci_high'], 2)}", row["ci_low"]),
            *(_cell(_number(value, 2), value) for value in known),
            _cell(_short(row["p_value"]), row["p_value"]),
            _cell(_short(row["q_value"]), row["q_value"]),
        ]
        rows.append(Row(tuple(cells), strong=row["module"] == "key"))
    columns = (
        ("method", False), ("best", True), ("module", False), ("selected", True), ("density", True),
        ("enrichment", True), ("95 % interval", True), *((f"{name} model", True) for name in NULLS.values()),
        ("p (descriptive)", True), ("q", True),
    )  # fmt: skip
    return Table("densities", "Density per module over all layers", columns, tuple(rows), search=True)


def neurons_section(results: Results) -> Section:
    """The best neurons by each method, with what every other method says about them."""
    neurons, comparison = results.get("neurons"), results.get("comparison")
    if neurons is None or not results.methods:
        return Section("neurons", "Top neurons", (results.missing("neurons", "no neuron was scored."),))
    methods = [m for m in results.methods if m in neurons.columns]
    scores = neurons[methods]
    ranks = scores.rank(ascending=False, method="first", na_option="bottom").astype(int)
    shown = neurons[(ranks <= TOP).any(axis=1)]
    limit = max(1, math.floor(results.knowledge_fraction * len(neurons) + 0.5))
    options = []
    for method in sorted(methods, key=lambda m: JUDGES.index(m) if m in JUDGES else len(JUDGES)):
        word = neuron_word(comparison, method)
        extent = f", ranks 1 to {min(limit, TOP)}" if word == "knowledge neurons" else ""
        options.append((method, f"{_words(method)} ({word}{extent})"))
    rows = []
    for place in shown.index:
        cells = [
            _cell(f"{_words(shown.loc[place, 'module'])} {shown.loc[place, 'neuron']}"),
            _cell(_whole(shown.loc[place, "layer"]), shown.loc[place, "layer"]),
        ]
        for method in methods:
            rank = int(ranks.loc[place, method])
            cells.append(_cell(_short(scores.loc[place, method]), -rank, f"rank {rank:,}"))
        rows.append(Row(tuple(cells), tags=tuple(m for m in methods if ranks.loc[place, m] <= TOP)))
    reasons = [f"{_words(m)}: {neuron_word(comparison, m)}" for m in methods]
    intro = Text(
        f"The {TOP} best neurons by each method, out of {_whole(len(neurons))}; layers and neurons count from 0. Only "
        f"the best {_percent(results.knowledge_fraction)} ({_whole(limit)} neurons) of a method that beat matched "
        f"chance are called knowledge neurons ({'; '.join(reasons)})."
    )
    columns = (("neuron", False), ("layer", True), *((_words(m), True) for m in methods))
    select = Select("top", f"Top {TOP} by", tuple(options))
    caption = f"Top {TOP} neurons by each method: score, and rank among all neurons, by every method"
    table = Table("top-neurons", caption, columns, tuple(rows), search=True, select=select)
    return Section("neurons", "Top neurons", (intro, table))


def classes_section(results: Results) -> Section:
    """The best neurons of each class."""
    scores = results.get("class_scores")
    if scores is None:
        note = results.missing("class_scores", "no neuron was scored class by class.")
        return Section("classes-top", "Neurons per class", (note,))
    methods = [m for m in results.methods if m in set(scores["method"])]
    methods += [str(m) for m in scores["method"].unique() if m not in methods]
    tables = []
    for place, label in enumerate(sorted(scores["label"].astype(str).unique())):
        own = scores[scores["label"].astype(str) == label]
        best = {m: own[own["method"] == m].nlargest(TOP_PER_CLASS, "score").to_dict("records") for m in methods}
        rows = []
        for rank in range(max(len(records) for records in best.values())):
            cells = [_cell(str(rank + 1), rank + 1)]
            for method in methods:
                record = best[method][rank] if rank < len(best[method]) else None
                name = f"layer {record['layer']} {_words(record['module'])} {record['neuron']}" if record else "–"
                cells.append(_cell(name, small=_short(record["score"]) if record else ""))
            rows.append(Row(tuple(cells)))
        name = results.class_name(label)
        columns = (("rank", True), *((_words(m), False) for m in methods))
        caption = f"Best neurons for class {name}, with their scores"
        tables.append(Table(f"class-{place}", caption, columns, tuple(rows), folded=f"Class {name}"))
    intro = Text(
        "The best neurons for the proteins of each class. The word rule of the previous section holds here too."
    )
    return Section("classes-top", "Neurons per class", (intro, *tables))


def agreement_section(results: Results) -> Section:
    """How far the methods choose the same neurons."""
    agreement = results.get("agreement")
    if agreement is None:
        note = results.missing("agreement", "the methods were not compared with each other.")
        return Section("agreement", "Agreement between methods", (note,))
    named = {*agreement["method"], *agreement["other"]}
    methods = [m for m in results.methods if m in named] + sorted(named - set(results.methods))
    fractions = sorted(agreement["fraction"].unique())
    measures = [
        ("spearman", "rank correlation of all scores", agreement.drop_duplicates(["method", "other"]), "spearman")
    ]
    for f in fractions:
        rows = agreement[agreement["fraction"] == f]
        measures.append((f"overlap-{f:g}", f"overlap of the best {_percent(f)}", rows, "overlap"))
    traces = []
    for key, _, rows, column in measures:
        grid = pd.DataFrame(np.eye(len(methods)), index=methods, columns=methods)
        for row in rows.to_dict("records"):
            grid.loc[row["method"], row["other"]] = grid.loc[row["other"], row["method"]] = row[column]
        names = [_plot_text(_words(m)) for m in methods]
        traces.append(
            {
                "type": "heatmap", "x": names, "y": names, "z": grid.to_numpy(), "zmin": -1, "zmax": 1, "xgap": 1,
                "ygap": 1, "colorscale": [[0, "@low"], [0.5, "@mid"], [1, "@high"]], "texttemplate": "%{z:.2f}",
                "showscale": False, "when": {"measure": [key]},
                "hovertemplate": "%{y}<br>%{x}<br>%{z:.3f}<extra></extra>",
            }
        )  # fmt: skip
    layout = {
        "height": 200 + 44 * len(methods),
        "xaxis": {"automargin": True, "showgrid": False},
        "yaxis": {"automargin": True, "autorange": "reversed", "showgrid": False},
    }
    select = Select("measure", "Measure", tuple((key, title) for key, title, _, _ in measures))
    panel = Panel("plot-agreement", "Agreement", tuple(traces), layout)
    rows = []
    for row in agreement.to_dict("records"):
        cells = [
            _cell(_words(row["method"])),
            _cell(_words(row["other"])),
            _cell(_percent(row["fraction"]), row["fraction"]),
        ]
        cells += [_cell(_number(row[name]), row[name]) for name in ("spearman", "overlap", "overlap_expected")]
        rows.append(Row(tuple(cells)))
    columns = (("method", False), ("other method", False), ("best", True), ("Spearman", True), ("overlap", True),
               ("overlap by chance", True))  # fmt: skip
    table = Table("agreements", "Agreement of each pair of methods", columns, tuple(rows))
    intro = Text("Do different scores point to the same neurons? Read the overlap beside what chance alone would give.")
    group = FigureGroup("agreement-figure", "Agreement between scoring methods.", (panel,), (select,))
    return Section("agreement", "Agreement between methods", (intro, group, table))


def completeness_section(results: Results) -> Section:
    """How far path integrals miss the change that they should add up to."""
    gaps = results.get("completeness")
    if gaps is None:
        note = results.missing("completeness", "the numerical error of the path integrals is not known.")
        return Section("completeness", "Completeness of the attributions", (note,))
    frame = gaps.assign(
        size=gaps["gap"].abs(), relative=gaps["gap"].abs() / gaps["expected"].abs().replace(0.0, math.nan)
    )
    rows = []
    for (method, module), own in frame.groupby(["method", "module"], sort=True):
        worst = own.iloc[int(np.argmax(own["size"]))]
        values = (own["expected"].abs().median(), own["size"].median(), own["size"].quantile(0.95), worst["size"])
        cells = [_cell(_words(method)), _cell(_words(module)), _cell(_whole(len(own)), len(own))]
        cells += [_cell(_short(value), value) for value in values]
        cells.append(_cell(_percent(own["relative"].median()), own["relative"].median()))
        cells.append(_cell(f"{worst['id']}, layer {worst['layer']}"))
        rows.append(Row(tuple(cells)))
    columns = (
        ("method", False), ("module", False), ("n", True), ("median |expected|", True), ("median |gap|", True),
        ("95th percentile", True), ("largest", True), ("median relative", True), ("largest at", False),
    )  # fmt: skip
    intro = Text(
        "The attributions of a site must add up to the change in the target when the site goes from its baseline to "
        "its value. The gap between the sum and that change is the numerical error of the path integral; it is stored "
        f"for every protein and site. Over all {_whole(len(frame))} its median size is "
        f"{_short(frame['size'].median())} against a median change of {_short(frame['expected'].abs().median())}."
    )
    table = Table("gaps", "Completeness gaps per method and module", columns, tuple(rows))
    return Section("completeness", "Completeness of the attributions", (intro, table))


def methods_section(results: Results) -> Section:
    """A paragraph fit for a paper, the record of the run, its settings, the literature."""
    blocks: list[Block] = [
        Text(methods_paragraph(results), "copy", "Methods paragraph", "methods-text"),
        _record_table(results),
        _stage_table(results),
        Text(results.study_text, "code", "Settings as resolved (study.toml)")
        if results.study_text
        else Text("study.toml is not in this run folder: its settings cannot be shown.", "note"),
        References(REFERENCES),
    ]
    return Section("methods", "Methods and record", tuple(blocks))


def methods_paragraph(results: Results) -> str:
    """What was done, from the manifest, the settings and the tables, in sentences for a paper."""
    look = results.look
    comparison, curves, neurons = (results.get(name) for name in ("comparison", "curves", "neurons"))
    versions = look("versions") or {}
    tools = _listed([f"{name} {version}" for name, version in sorted(versions.items())])
    sentences = [
        f"{look('model', 'id') or 'The model'} (revision {look('model', 'revision') or 'not recorded'}, sha256 "
        f"{look('model', 'sha256') or 'not recorded'}; {_whole(look('model', 'parameters'))} parameters, "
        f"{_whole(look('model', 'layers'))} layers, hidden size {_whole(look('model', 'hidden'))}) was fine-tuned to "
        f"classify proteins by {results.setting('data', 'label') or 'their label'}.",
        f"Sequences came from {look('data', 'source') or 'an unnamed source'} (sha256 "
        f"{look('data', 'sha256') or 'not recorded'}); {_whole(look('data', 'n_read'))} were read and "
        f"{_whole(look('data', 'n_excluded'))} excluded.",
        f"They were split by {_words(look('split', 'method') or 'a method not recorded')} (identity "
        f"{_percent(look('split', 'identity'))}, coverage {_percent(look('split', 'coverage'))}).",
    ]
    if neurons is not None:
        total, target = _whole(len(neurons)), results.setting("score", "target")
        baseline, points = results.setting("score", "baseline"), results.setting("score", "points")
        target = f"; attributions explain the {_words(target)} of the true class" if target else ""
        target += f" along a path from the {baseline} baseline" if baseline else ""
        target += f" with {points} quadrature points" if points else ""
        names = _listed([_words(m) for m in results.methods])
        sentences.append(
            f"All {total} units of the query, key, value, attention-output, intermediate and output modules were "
            f"scored on {_whole(look('scoring_proteins'))} training proteins by {names}, after Nori et al. (2023, "
            f"arXiv:2312.10770) and Dai et al. (2022, arXiv:2104.08696){target}."
        )
    if curves is not None:
        changed = curves[curves["ablation"] != "none"]
        fractions = _listed([_percent(f) for f in sorted(changed["fraction"].unique())])
        ablations = _listed([str(a) for a in sorted(changed["ablation"].unique())])
        evaluated = _whole(look("evaluated_proteins")) if look("evaluated_proteins") else "the"
        sentences.append(
            f"The best {fractions} of the neurons were kept (all others ablated) or ablated, with {ablations} "
            f"ablation, and the classifier was evaluated on {evaluated} test proteins, none of which took part in "
            "training or scoring."
        )
    if comparison is not None:
        controls = _listed([_control(str(c)) for c in comparison["against"].unique()])
        kinds = _listed([_words(k) for k in sorted(comparison["p_kind"].astype(str).unique())])
        sentences.append(
            f"Each selection was compared with random draws ({_draws(comparison)}) of each control ({controls}) by "
            f"the area under its curve (trapezoid rule); p values are one-sided ({kinds}), intervals are 95 % "
            "bootstrap intervals over test clusters (stratified by class) and draws, and secondary comparisons are "
            "corrected by Benjamini-Hochberg. The primary outcome, fixed in advance, was the balanced accuracy kept "
            "under mean ablation with pooled ranking against random neurons matched by site; only methods with "
            "p < 0.05 and an interval above 0 yield what we call knowledge neurons."
        )
    sentences.append(
        f"Software: {tools}; device {look('device') or 'not recorded'}, {look('dtype') or 'dtype not recorded'}, "
        f"{_whole(look('threads'))} threads, seed {look('seed')}."
    )
    return " ".join(sentences)


def _record_table(results: Results) -> Table:
    entries: list[tuple[str, Any]] = []
    for key in ("name", "command", "seed", "device", "dtype", "threads", "schema_version", "scoring_proteins"):
        entries.append((_words(key), results.look(key)))
    for group in ("model", "data", "split", "versions"):
        entries += [(f"{group}: {_words(key)}", value) for key, value in (results.look(group) or {}).items()]
    rows = tuple(Row((_cell(name), _cell("not recorded" if value is None else str(value)))) for name, value in entries)
    return Table("record", "Record of the run (manifest.json)", (("entry", False), ("value", False)), rows)


def _draws(comparison: pd.DataFrame) -> str:
    """The number of draws, of the primary outcome and of the others where these differ."""
    primary = comparison["primary"].astype(bool)
    cell = ["scope", "mode", "ablation"]
    same = comparison[cell].eq(comparison.loc[primary, cell].iloc[0]).all(axis=1) if primary.any() else primary
    first, rest = (sorted({int(n) for n in comparison.loc[rows, "n_draws"]}) for rows in (primary, ~primary & ~same))
    if not first or not rest or first == rest:
        return _listed([_whole(n) for n in first or rest])
    return f"{_listed([_whole(n) for n in first])}, elsewhere {_listed([_whole(n) for n in rest])}"


def _stage_table(results: Results) -> Table:
    rows = []
    for name, stage in (results.look("stages") or {}).items():
        seconds, memory = stage.get("seconds"), stage.get("peak_memory_mb")
        cells = (_cell(name), _cell(str(stage.get("status", "–"))), _cell(_number(seconds, 1), seconds))
        rows.append(Row((*cells, _cell(_whole(memory), memory))))
    columns = (("stage", False), ("status", False), ("seconds", True), ("peak memory (MB)", True))
    return Table("stages", "Stages", columns, tuple(rows))


SECTIONS = (
    data_section,
    quality_section,
    curves_section,
    comparison_section,
    density_section,
    neurons_section,
    classes_section,
    agreement_section,
    completeness_section,
    methods_section,
)


# ---------------------------------------------------------------------------------------------------------------------
# Writing


def answers(results: Results) -> tuple[Answer, Answer, Answer]:
    """The three answers that open the report."""
    return (
        quality_answer(results.metrics),
        kept_answer(results.get("comparison")),
        density_answer(results.get("density"), results.get("density_null"), results.knowledge_fraction),
    )


def render(run: Run) -> str:
    """The report as text; the same run folder gives the same text."""
    results = Results(run)
    sections = [make(results) for make in SECTIONS]
    primary = primary_figure(results)
    groups = [block for section in sections for block in section.blocks if isinstance(block, FigureGroup)]
    panels = [panel for group in ([primary] if primary else []) + groups for panel in group.panels]
    figures = {
        panel.id: _json_ready({"traces": panel.traces, "layout": panel.layout, "patches": panel.patches})
        for panel in panels
    }
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("plmscope"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.policies["json.dumps_kwargs"] = {"sort_keys": True, "allow_nan": False}
    own = resources.files("plmscope") / "templates"
    return environment.get_template("report.html").render(
        name=str(results.look("name") or run.path.name),
        version=str((results.look("versions") or {}).get("plmscope", "")),
        answers=answers(results),
        facts=facts(results),
        primary=primary,
        sections=sections,
        figures=figures,
        # Our own files and the library's, not data: they go in unescaped.
        css=Markup((own / "report.css").read_text(encoding="utf-8")),
        js=Markup((own / "report.js").read_text(encoding="utf-8")),
        plotly=Markup(get_plotlyjs()),
    )


def write_report(run: Run) -> Path:
    """Write ``report.html`` into the run folder, whole or not at all.

    Tables that are missing are named in the report. The file needs no network and sends nothing.

    Returns:
        The path of the report.

    Raises:
        RunError: the manifest or a table is damaged, or the folder is not writable.
    """
    path = run.path / "report.html"
    write_atomic(path, render(run).encode("utf-8"))
    return path
