"""Overlap of selections against matched chance: by hand, by draws, and its laws."""

from __future__ import annotations

import numpy as np
import pytest

from plmscope.errors import SelectionError
from plmscope.evaluation.overlap import class_overlap, overlap
from plmscope.evaluation.selection import Selection, draw, strata
from plmscope.models.sites import NeuronIndex

INDEX = NeuronIndex.of(layers=2, hidden=6, intermediate=10)


def random_selection(share: float, seed: int) -> Selection:
    return Selection(INDEX, np.random.default_rng(seed).random(len(INDEX)) < share, f"seed {seed}")


def test_one_site_is_the_hypergeometric_by_hand() -> None:
    index = NeuronIndex.of(layers=1, hidden=2, intermediate=4)
    one, other = (np.zeros(len(index), dtype=bool) for _ in range(2))
    inner = next(index.slice(site) for site in index.sites if site.module == "intermediate")
    one[inner][:2] = True
    other[inner][[0, 2]] = True
    found = overlap(Selection(index, one), Selection(index, other))
    # 2 of 4 against 2 of 4: 0, 1, 2 shared in 1, 4, 1 of 6 ways, Jaccard 0, 1/3, 1
    assert (found.n, found.n_other, found.shared, found.jaccard) == (2, 2, 1, pytest.approx(1 / 3))
    assert found.jaccard_expected == pytest.approx((4 / 3 + 1) / 6)
    assert found.p_value == pytest.approx(5 / 6)


def test_chance_is_that_of_matched_draws() -> None:
    one, other = random_selection(0.3, 1), random_selection(0.4, 2)
    found = overlap(one, other)
    groups = strata("random_matched", INDEX)
    drawn = [overlap(draw(INDEX, groups, [one], (r,), "draw")[0], other) for r in range(400)]
    jaccard = np.array([d.jaccard for d in drawn])
    assert jaccard.mean() == pytest.approx(found.jaccard_expected, abs=4 * jaccard.std() / np.sqrt(400))
    share = np.mean([d.shared >= found.shared for d in drawn])
    assert share == pytest.approx(found.p_value, abs=4 * np.sqrt(found.p_value * (1 - found.p_value) / 400) + 1e-9)


def test_laws() -> None:
    one, other = random_selection(0.3, 1), random_selection(0.4, 2)
    assert overlap(one, one).jaccard == 1 and overlap(one, one).p_value < 1e-6
    large = NeuronIndex.of(6, 320, 1280)
    many = Selection(large, np.arange(len(large)) % 50 == 0)
    assert 0 < overlap(many, many).p_value < 1e-300
    assert overlap(one, ~one).shared == 0 and overlap(one, ~one).p_value == 1
    there, back = overlap(one, other), overlap(other, one)
    assert (there.shared, there.jaccard, back.n) == (back.shared, back.jaccard, there.n_other)
    assert there.p_value == pytest.approx(back.p_value) and there.jaccard_expected == pytest.approx(
        back.jaccard_expected
    )
    with pytest.raises(SelectionError, match="different shape"):
        overlap(one, Selection(NeuronIndex.of(1, 2, 4), np.ones(14, dtype=bool)))


def test_every_pair_of_classes_once() -> None:
    chosen = {label: random_selection(0.3, seed) for seed, label in enumerate("abc")}
    chosen["c"] = chosen["a"]
    frame = class_overlap(chosen).set_index(["label", "other"])
    assert list(frame.index) == [("a", "b"), ("a", "c"), ("b", "c")]
    assert frame.loc[("a", "c"), "jaccard"] == 1
    assert frame["q_value"].ge(frame["p_value"]).all()
