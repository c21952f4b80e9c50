"""The comparison of rankings on a tiny run: validation proteins alone, the numbers by hand, and that it continues."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from plmscope.models.architectures import MODULES
from plmscope.stats.metrics import metric
from plmscope.study.opened import open_run
from scripts import compare_rankings
from tests.conftest import Golden

ARGUMENTS = ["--proteins=6", "--points=2", "--fractions=0.5", "--module-fractions=0.5", "--score", "activation"]


def test_validation_proteins_alone_and_numbers_by_hand(
    golden: Golden, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = golden.copy(tmp_path / "run")
    opened = open_run(folder)
    asked: set[str] = set()
    predict = compare_rankings.predict

    def seen(model, proteins, *rest):  # type: ignore[no-untyped-def]
        asked.update(p.id for p in proteins)
        return predict(model, proteins, *rest)

    monkeypatch.setattr(compare_rankings, "predict", seen)
    assert compare_rankings.main([str(folder), *ARGUMENTS, "gradient_activation"]) == 0
    text = capsys.readouterr().out
    validation = {p.id for p in opened.proteins("validation")}
    assert asked and asked <= validation
    table = pd.read_csv(folder / "compare_rankings" / "rankings.csv")
    assert list(table.columns) == list(compare_rankings.COLUMNS)
    forms = table.drop_duplicates(["ranking", "form"])
    assert len(forms) == 3 + 2 * 4 and len(table) == len(forms) * 7 * 2
    assert table["spearman_halves"].between(-1, 1).all() and table["overlap_halves"].between(0, 1).all()
    assert (table["validation_proteins"] == len(asked)).all()
    assert text.count("| gradient_activation, mean | absolute |") == 2  # a table a metric
    # The ends and the area, from the model itself.
    proteins = [p for p in opened.proteins("validation") if p.id in asked]
    true, means = opened.model.targets(proteins), opened.model.ablation_means
    index = opened.model.index
    kind = np.array([site.module for site in index.sites])[index.site_of]
    for module in ("key", "output", None):
        keep = np.zeros(len(index), dtype=bool) if module is None else kind != module
        whole, held = predict(opened.model, proteins, [(np.ones(len(index), dtype=bool), means), (keep, means)])
        one = table[(table["scope"] == (module or "pooled")) & (table["metric"] == "log_probability")]
        for column, said in (("intact", whole), ("held", held)):
            expected = metric("log_probability", true, said.predicted, said.log_prob_true, len(opened.model.labels))
            np.testing.assert_allclose(one[column], expected, atol=1e-5)
    scores = opened.scores("activation_std").values  # the same proteins as in the run, in two halves
    best = np.argsort(-scores, kind="stable")[: round(0.5 * len(index))]
    (said,) = predict(opened.model, proteins, [(np.isin(np.arange(len(index)), best), means)])
    half = metric("log_probability", true, said.predicted, said.log_prob_true, len(opened.model.labels))
    row = table[
        (table["ranking"] == "activation_std") & (table["scope"] == "pooled") & (table["metric"] == "log_probability")
    ].iloc[0]
    area = np.trapezoid([row["held"], half, row["intact"]], [0, 0.5, 1])
    assert row["area"] == pytest.approx(area, abs=1e-5)
    if not np.isnan(row["kept"]):
        assert row["kept"] == pytest.approx((area - row["held"]) / (row["intact"] - row["held"]), abs=1e-4)
    assert set(table["scope"]) == {"pooled", *MODULES}


def test_continues_and_adds(
    golden: Golden, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = golden.copy(tmp_path / "run")
    assert compare_rankings.main([str(folder), *ARGUMENTS]) == 0
    first = capsys.readouterr().out

    def none(*_: object, **__: object) -> None:
        raise AssertionError("made again")

    with monkeypatch.context() as patch:
        patch.setattr(compare_rankings, "predict", none)
        patch.setattr(compare_rankings, "SCORERS", dict.fromkeys(compare_rankings.SCORERS, none))
        assert compare_rankings.main([str(folder), *ARGUMENTS]) == 0
        assert capsys.readouterr().out == first
    # What an earlier call left is in the table of a later one.
    assert compare_rankings.main([str(folder), *ARGUMENTS[:-1], "gradient_activation"]) == 0
    assert "| activation_std | own |" in capsys.readouterr().out


def test_a_run_that_is_not_scored_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert compare_rankings.main([str(tmp_path)]) == 2
    assert "not a plmscope run folder" in capsys.readouterr().err
