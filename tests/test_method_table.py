"""A scorer is one file and one row: the table says all that the rest of the project knows of a method."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from importlib.metadata import EntryPoint
from inspect import signature
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from plmscope import plugins
from plmscope.cli import main
from plmscope.data.proteins import Protein
from plmscope.errors import SelectionError
from plmscope.models.classifier import Classifier
from plmscope.models.hooks import record
from plmscope.plugins import code_digest
from plmscope.report.page import write_report
from plmscope.scoring import table as method_table
from plmscope.scoring.methods import SCORERS, score
from plmscope.scoring.table import (
    FORMS,
    ROWS,
    Scorer,
    code_of,
    function_of,
    methods,
    path_methods,
    plain_methods,
    register_scorer,
    row_of,
    unregister_scorer,
)
from plmscope.store.folder import Run
from plmscope.study.execute import Stages
from plmscope.study.opened import open_run
from plmscope.study.settings import ScoreSection, Study
from plmscope.study.study_file import parse_study, read_study, write_study
from tests.conftest import Golden
from tests.own_scorer import ROW, largest_scores
from tests.test_study import CHEAP, changed

ROOT = Path(__file__).parents[1]
#: What every scorer takes.
COMMON = {"token_budget", "groups", "track"}
#: Controls that need no other score.
RANDOM: dict[str, object] = {"evaluate": {"controls": ["random"], "module_controls": ["random"]}}


@pytest.fixture
def own() -> Iterator[Scorer]:
    row = register_scorer(ROW)
    yield row
    unregister_scorer(row)


# --- the rows of plmscope say what is so


@pytest.mark.parametrize("row", ROWS, ids=lambda row: next(iter(row.methods)))
def test_a_row_says_what_its_scorer_takes(row: Scorer) -> None:
    takes = set(signature(function_of(row.function)).parameters)
    wanted = COMMON | set(row.takes) | ({"rms"} if row.signed else set()) | ({"seed"} if row.seed else set())
    assert wanted <= takes
    assert set(row.takes.values()) <= set(ScoreSection.model_fields)
    # A setting of [score] that a scorer has and its row does not name would be ignored.
    own = {name for name in takes & set(ScoreSection.model_fields) if name not in COMMON}
    assert own - {"baseline"} <= set(row.takes) and ("seed" in takes) == row.seed and ("rms" in takes) == row.signed


@pytest.mark.parametrize("method", plain_methods())
def test_a_row_says_what_its_scores_have(tiny: Classifier, proteins: list[Protein], method: str) -> None:
    few: dict[str, object] = {"sample": 18} if method == "single_ablation" else {}
    scores = score(tiny, proteins if row_of(method).fit else proteins[:3], method, **few)
    assert (scores.completeness is not None) == row_of(method).path == (method in path_methods())
    assert bool((scores.values < 0).any()) == row_of(method).signed


def test_the_page_on_methods_asks_the_questions_of_the_table() -> None:
    page = (ROOT / "docs" / "choosing-a-method.md").read_text()
    told = dict(re.findall(r"^\| `(\w+)` \| ([^|]+) \|", page, re.MULTILINE))
    for row in ROWS:
        for method, question in row.methods.items():
            assert told[method] == question
            assert re.search(rf"^\| `{method}` .*\| {'yes' if row.signed else 'no'} \| \w+ \|$", page, re.MULTILINE)


# --- somebody else's scorer


def test_a_scorer_of_one_file_and_one_row_goes_through_a_whole_study(
    golden: Golden, tmp_path: Path, own: Scorer, capfd: pytest.CaptureFixture[str]
) -> None:
    study = changed(
        golden.study, tmp_path / "own.toml", score={"methods": ["largest"]}, density={"nulls": []},
        evaluate=CHEAP, characterize={"enabled": False}, intervene={"draws": 2, "neurons": 0},
    )  # fmt: skip
    folder = golden.copy(tmp_path / "run")
    assert main(["run", str(study), "--out", str(folder), "--quiet"]) == 0
    assert "largest" in capfd.readouterr().out
    run = Run.open(folder)
    assert list(run.table("neurons").columns) == ["layer", "module", "neuron", "largest"]
    assert not run.has("completeness")
    for name in ("class_scores", "selections", "comparison", "density", "interventions", "stability"):
        assert set(run.table(name)["method"]) == {"largest"}, name
    assert run.table("density")["ci_low"].notna().any()  # from its sums
    report = (folder / "report.html").read_text()
    assert "activation-based (largest)" in report or "By largest: area difference" in report
    # The values are those of a second route: hooks, one protein at a time.
    opened = open_run(folder)
    proteins, model = opened.proteins("scoring"), opened.model
    peaks = {label: [] for label in model.labels}  # type: ignore[var-annotated]
    for protein in proteins:
        (batch,) = model.batches([protein], 4096)
        with record(model, model.index.sites) as seen:
            model.model(input_ids=batch.input_ids, attention_mask=batch.attention_mask)
            values = [seen[site][0, 1:-1].detach().numpy().max(0) for site in model.index.sites]
        peaks[str(protein.label)].append(np.concatenate(values))
    expected = np.mean([np.mean(rows, axis=0) for rows in peaks.values()], axis=0)
    np.testing.assert_allclose(opened.scores("largest").values, expected, rtol=1e-4, atol=1e-5)
    # A report is written where the package of the scorer is not installed.
    unregister_scorer(own)
    try:
        assert "largest" not in methods()
        write_report(run)
        assert "largest" in (folder / "report.html").read_text()
    finally:
        register_scorer(own)


def test_a_registered_method_is_known_everywhere(own: Scorer) -> None:
    assert "largest" in methods() and "largest" in SCORERS and row_of("largest") is own
    assert re.search(
        r"^methods = .*# activation, .*, largest, integrated_gradients", write_study(Study()), re.MULTILINE
    )
    assert parse_study(RANDOM | {"score": {"methods": ["largest"]}}, "mine").score.columns == ("largest",)


def test_a_scorer_that_is_registered_again_replaces_itself(own: Scorer) -> None:
    changed = replace(own, methods={"largest": "another question?"})
    assert register_scorer(changed) is row_of("largest") and methods().count("largest") == 1
    with pytest.raises(SelectionError, match="'largest' is there already"):
        register_scorer(replace(own, methods={"largest": "?", "more": "?"}))
    assert row_of("largest") is changed


def test_a_scorer_whose_code_has_changed_scores_again(
    golden: Golden, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody works on a scorer: its scores are never those of the code before. The model is not trained again."""
    file = tmp_path / "mine_of_today.py"
    file.write_text((ROOT / "tests" / "own_scorer.py").read_text().replace('"largest"', '"mine"'))
    monkeypatch.syspath_prepend(str(tmp_path))
    row = register_scorer(Scorer({"mine": "?"}, "mine_of_today:largest_scores"))
    try:
        settings = changed(golden.study, tmp_path / "own.toml", score={"methods": ["mine"]}, evaluate=CHEAP)
        study, run, said = read_study(settings), Run(golden.copy(tmp_path / "run")), list[str]()
        for times in (1, 1, 2):
            text = file.read_text()
            file.write_text(text.replace(".amax(1)", ".amax(1) * 2") if times == 2 else text)
            Stages(study, run, say=said.append).execute(["score"])
        again = [re.match("score: (done|finished before)", line) for line in said]
        assert [found[1] for found in again if found] == ["done", "finished before", "done"]
    finally:
        unregister_scorer(row)


def test_what_tells_one_version_of_a_scorer_from_another(own: Scorer, tmp_path: Path) -> None:
    assert code_of([*plain_methods()]).keys() == {"largest"} and code_of(["conductance_abs"]) == {}
    assert code_digest("tests.own_scorer:largest_scores") == code_digest(largest_scores)
    made: list[str] = []
    for lines in ("x = 1\n", "x = 1\n\n\n", "x = 2\n"):  # a cell of a notebook, moved and changed
        known: dict[str, Any] = {"__name__": "__main__"}
        exec(compile(lines + f"def mine(a):\n    return [a * {lines[4]} for _ in a]\n", "cell", "exec"), known)
        made.append(code_digest(known["mine"]))
    assert made[0] == made[1] != made[2]


def test_a_scorer_with_a_sign_has_its_forms() -> None:
    row = register_scorer(Scorer({"push": "which way?"}, "tests.own_scorer:largest_scores", signed=True, path=True))
    try:
        assert {f"push{ending}" for ending in FORMS.values()} < set(methods())
        assert "push" in path_methods()
        assert parse_study(RANDOM | {"score": {"methods": ["push"]}}, "mine").score.columns == ("push", "push_abs")
    finally:
        unregister_scorer(row)
    assert "push" not in methods()


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["activation"], "'activation' is there already; choose another name"),
        (["conductance_rms"], "'conductance_rms' is there already; choose another name"),
        (["layer"], "'layer': use small letters, digits and _, and none of layer, module"),
        (["random_matched"], "'random_matched': use small letters"),
        (["Large"], "'Large': use small letters"),
        ([], "a scorer has to name its methods"),
    ],
)
def test_names_that_cannot_stand_in_tables_are_refused(names: list[str], message: str) -> None:
    with pytest.raises(SelectionError, match=re.escape(message)):
        register_scorer(Scorer(dict.fromkeys(names, "?"), "tests.own_scorer:largest_scores"))


def installed(monkeypatch: pytest.MonkeyPatch, *values: str) -> None:
    """As if packages with such entry points were installed."""
    points = [EntryPoint(f"p{n}", value, "plmscope.scorers") for n, value in enumerate(values)]
    monkeypatch.setattr(plugins, "entry_points", lambda group: [p for p in points if p.group == group])
    monkeypatch.setattr(method_table._TABLE, "of_packages", None)


def test_an_installed_package_brings_its_scorers(monkeypatch: pytest.MonkeyPatch) -> None:
    installed(monkeypatch, "tests.own_scorer:ROW")
    assert "largest" in methods() and row_of("largest") is ROW


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("tests.own_scorer:NOTHING", "cannot be loaded (module 'tests.own_scorer' has no attribute 'NOTHING')"),
        (
            "tests.own_scorer:largest_scores",
            "tests.own_scorer:largest_scores has no Scorer; mend or remove its package",
        ),
    ],
)
def test_a_package_that_cannot_be_loaded_is_named(monkeypatch: pytest.MonkeyPatch, value: str, message: str) -> None:
    installed(monkeypatch, value)
    for _ in range(2):  # said again, not forgotten
        with pytest.raises(SelectionError, match=re.escape(f"entry point 'p0' of plmscope.scorers: {value}")) as caught:
            methods()
        assert message in str(caught.value)


def test_a_scorer_that_does_not_give_what_its_row_says(tiny: Classifier, proteins: list[Protein]) -> None:
    row = register_scorer(replace(ROW, methods={"widest": "?"}))
    try:
        with pytest.raises(SelectionError, match="the scorer of 'widest' gives largest and not 'widest'"):
            score(tiny, proteins, "widest")
    finally:
        unregister_scorer(row)
