"""The calibration in small: a random scorer claims little, one that is told the answers claims what is true."""

from __future__ import annotations

import re

import numpy as np
import pandas as pd
import pytest
import torch

from benchmarks import calibration
from benchmarks.calibration import CELLS, CLASSES, METHOD, SHARES, Pool, Tally, curves_of, judge
from plmscope.evaluation.curves import INTACT, CurvePoint, held_point
from plmscope.evaluation.predict import Predictions
from plmscope.models.architectures import MODULES
from plmscope.models.sites import NeuronIndex

PROTEINS, SIZE = 30, 25


def made_pool(better: int | None = None) -> Pool:
    """Draws that keep a quarter of the decisions right, at random; one may know the answers. Held, all is one class."""
    rng, true = np.random.default_rng(0), np.arange(PROTEINS) % CLASSES

    def said(predicted: np.ndarray) -> Predictions:
        right = predicted == true
        return Predictions(predicted, np.where(right, np.log(0.9), np.log(0.05)).astype(np.float32))

    found = {INTACT: said(true)} | {held_point("mean", m): said(np.zeros(PROTEINS, dtype=int)) for m in MODULES}
    for cell in CELLS:
        for r in range(SIZE):
            for share in SHARES:
                random = np.where(rng.random(PROTEINS) < 0.25, true, rng.integers(CLASSES, size=PROTEINS))
                point = CurvePoint("random_matched", METHOD, cell.scope, r, "keep", "mean", share, cell.module)
                found[point] = said(true if r == better else random)
    index = NeuronIndex.of(layers=2, hidden=8, intermediate=16)
    return Pool(found, true, SIZE, index, rng.random(len(index)))


@pytest.mark.parametrize("better", [None, 3])
def test_claims_are_counted(better: int | None) -> None:
    """The draw that knows the answers beats chance by every rule when it is the method, and no other does."""
    pool, claims, covers = made_pool(better), Tally(), Tally()
    chosen = np.array([3, *(r for r in range(SIZE) if r != 3)])
    judge(curves_of(pool, np.arange(PROTEINS), chosen, 200, 0, METHOD), pd.DataFrame(), pool.index, claims, covers)
    assert claims.tried["primary, pooled: p below 0.05 and interval above 0"] == 1
    hits = {name for name, n in claims.hits.items() if n}
    expected = {
        "primary, pooled: p below 0.05 and interval above 0", "primary, within keys: p below 0.05 and interval above 0",
        "primary, pooled: p alone", "primary, within keys: p alone", "secondary: any q below 0.05",
        "concentration, any one kind: interval above 1",
    }  # fmt: skip
    assert hits == (expected if better else set())
    assert bool(covers.hits["area difference, pooled: holds 0"]) == (better is None)


def test_tally_lines() -> None:
    tally = Tally()
    for hit in [True] * 10 + [False] * 90:
        tally.add("rule", hit)
    # Clopper and Pearson for 10 of 100: 4.9 % to 17.6 %.
    assert tally.lines(0.05) == ["| rule | 100 | 10 | 10.0% | 4.9% to 17.6% | yes |"]
    assert tally.lines(0.95)[0].endswith("| **no** |")


def test_it_runs(capsys: pytest.CaptureFixture[str]) -> None:
    number = torch.get_num_threads()
    try:
        small = ["--repetitions=3", "--pool=5", "--draws=3", "--proteins=12", "--resamples=20", "--steps=3"]
        assert calibration.main(small) == 0
    finally:
        torch.set_num_threads(number)
    rows = re.findall(r"(?m)^\| (.+?) \| (\d+) \| (\d+) \| .+%", capsys.readouterr().out)
    names = {name for name, *_ in rows}
    assert {"secondary: any q below 0.05", "module kinds: any beats chance (Holm)"} <= names
    assert sum(name.startswith("density") for name in names) == 8
    assert all(0 <= int(k) <= int(n) for _, n, k in rows)
