"""Sums over proteins: what merges, what a bootstrap needs of them, and that memory does not grow with the proteins."""

from __future__ import annotations

import io
import tracemalloc
from collections import Counter
from inspect import signature
from typing import Any

import numpy as np
import pytest

from plmscope.data.proteins import Protein
from plmscope.errors import SelectionError, StudyError
from plmscope.models.classifier import Classifier
from plmscope.models.sites import NeuronIndex
from plmscope.scoring.linear import gradient_activation
from plmscope.scoring.methods import SCORERS, finish
from plmscope.scoring.scores import (
    RANKINGS,
    GroupSums,
    NeuronScores,
    ranked_by,
    resampling_groups,
    signed_form,
    token_sums,
    with_class_means,
)
from plmscope.scoring.table import FORMS, methods, row_of
from plmscope.stats.chance import bootstrap_weights
from plmscope.study.opened import score_all
from plmscope.study.settings import ScoreSection
from plmscope.study.study_file import parse_study
from tests.conftest import make_proteins

METHODS = methods()

#: Few neurons and states, so that every scorer takes a moment.
QUICK: dict[str, dict[str, Any]] = {
    "integrated_gradients": {"points": 2},
    "conductance": {"points": 4},
    "single_ablation": {"sample": 36},
}


def through_a_file(sums: GroupSums) -> GroupSums:
    """Written by numpy and read back without pickle."""
    file = io.BytesIO()
    np.savez(file, **sums.to_arrays())
    file.seek(0)
    with np.load(file, allow_pickle=False) as saved:
        return GroupSums.from_arrays(sums.index, dict(saved))


@pytest.mark.parametrize("method", SCORERS)
def test_sums_of_two_processes_merge_into_those_of_one(tiny: Classifier, proteins: list[Protein], method: str) -> None:
    groups = resampling_groups([f"c{p.id}" for p in proteins], [p.label for p in proteins], 2)
    name, ending = signed_form(method)
    settings = QUICK.get(name, {}) | ({"rms": True} if ending == "_rms" else {})

    def run(rows: slice) -> NeuronScores:
        found = with_class_means(SCORERS[method](tiny, proteins[rows], groups=groups[rows], **settings))
        return next(one for one in found if one.method == method)

    whole, parts = run(slice(None)), [run(slice(0, 4)), run(slice(4, None))]
    first, second = (through_a_file(part.sums) for part in parts if part.sums is not None)
    merged = finish(method, second.merge(first), parts[0].settings)
    scale = np.nanmax(np.abs(whole.values))
    np.testing.assert_allclose(merged.values, whole.values, rtol=1e-4, atol=1e-5 * scale)
    assert set(merged.per_class) == set(whole.per_class)
    for label, values in whole.per_class.items():
        np.testing.assert_allclose(merged.per_class[label], values, rtol=1e-4, atol=1e-5 * scale)
    assert set(merged.proteins) == set(whole.proteins)
    for name, value in whole.settings.items():
        assert merged.settings[name] == (pytest.approx(value, rel=1e-3) if isinstance(value, float) else value)
    if row_of(method).fit:  # a fit a resample
        assert whole.resample is None and merged.resample is None
        return
    assert whole.resample is not None and merged.resample is not None and whole.sums is not None
    weights = np.arange(1.0, 1 + len(whole.sums.keys))
    np.testing.assert_allclose(merged.resample(weights), whole.resample(weights), rtol=1e-4, atol=1e-5 * scale)


def test_a_bootstrap_over_groups_is_the_one_over_clusters_while_there_is_room() -> None:
    """Against the plain loop: rows of every protein, the weights of every protein."""
    rng = np.random.default_rng(0)
    clusters = [f"c{i}" for i in (5, 3, 3, 9, 1, 7, 2, 2, 8)]
    classes = np.array([0, 0, 0, 0, 2, 2, 2, 2, 2])
    index = NeuronIndex.of(layers=1, hidden=2, intermediate=3)
    rows = rng.normal(size=(9, len(index)))
    labels = ["x", "y", "z"]
    groups = resampling_groups(clusters, [labels[c] for c in classes])
    assert groups == clusters
    sums = GroupSums.empty(index, labels, [f"p{i}" for i in range(9)], classes, groups, "m")
    sums.add([8, 0, 3], m=rows[[8, 0, 3]])
    sums.add([1, 2, 4, 5, 6, 7], m=rows[[1, 2, 4, 5, 6, 7]])
    scores = sums.finish("m")
    np.testing.assert_allclose(scores.values, (rows[:4].mean(0) + rows[4:].mean(0)) / 2)
    names = [name for _, name in sums.keys]
    by_group = bootstrap_weights(names, [labels[c] for c, _ in sums.keys], 20, np.random.default_rng(1))
    by_protein = bootstrap_weights(clusters, [labels[c] for c in classes], 20, np.random.default_rng(1))
    assert scores.resample is not None
    for group_weights, weights in zip(by_group, by_protein, strict=True):
        halves = [np.average(rows[classes == c], axis=0, weights=weights[classes == c]) for c in (0, 2)]
        np.testing.assert_allclose(scores.resample(group_weights), np.mean(halves, axis=0))


def test_more_clusters_than_groups_are_dealt_out_evenly() -> None:
    clusters = [f"c{i // 2}" for i in range(80)] + ["big"] * 30 + [f"d{i}" for i in range(3)]
    labels = ["a"] * 110 + ["b"] * 3
    groups = resampling_groups(clusters, labels, 8)
    assert groups[110:] == ["d0", "d1", "d2"]
    assert len({*groups[:110]}) == 8
    assert len({*zip(clusters, groups, strict=True)}) == len({*clusters})  # no cluster is torn apart
    assert set(Counter(groups[:80]).values()) == {10}  # 40 clusters of two proteins in 8 groups
    assert min(Counter(groups[:110]).values()) == 10


def test_memory_does_not_grow_with_the_proteins(tiny: Classifier) -> None:
    peaks = []
    for count in (6, 60):
        many = make_proteins(count, seed=2)
        groups = resampling_groups([p.id for p in many], [p.label for p in many], 2)
        tracemalloc.start()
        scores, *_ = gradient_activation(tiny, many, groups=groups, token_budget=1)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert scores.sums is not None and scores.sums.sums["gradient_activation"].shape == (6, len(tiny.index))
    assert peaks[1] < peaks[0] + 54 * 2000  # a row of one protein alone is 4 kB


def test_what_does_not_fit_is_refused(tiny: Classifier, proteins: list[Protein]) -> None:
    (one, _), (other, _) = gradient_activation(tiny, proteins[:3]), gradient_activation(tiny, proteins[2:5])
    assert one.sums is not None and other.sums is not None
    assert one.resample is None
    with pytest.raises(SelectionError, match="protein 'p2' is in both sums"):
        one.sums.merge(other.sums)
    with pytest.raises(SelectionError, match="other neurons, classes or statistics"):
        one.sums.merge(GroupSums.empty(tiny.index, tiny.labels, [], [], None, "else"))
    with pytest.raises(SelectionError, match="2 proteins, 1 classes and 2 groups do not fit"):
        GroupSums.empty(tiny.index, tiny.labels, ["a", "b"], [0], None, "m")
    arrays = one.sums.to_arrays()
    with pytest.raises(SelectionError, match="are \\(3, 504\\), not \\(3, 72\\)"):
        GroupSums.from_arrays(NeuronIndex.of(layers=2, hidden=4, intermediate=16), arrays)
    del arrays["counts"]
    with pytest.raises(SelectionError, match="saved sums lack 'counts'"):
        GroupSums.from_arrays(tiny.index, arrays)


def test_forms_of_scores_with_a_sign_by_hand() -> None:
    """Two classes, token sums that cancel over proteins, over classes, or not at all."""
    index = NeuronIndex.of(layers=1, hidden=1, intermediate=1)
    rows = np.zeros((4, len(index)))
    rows[:, :3] = [[3, 2, 1], [-3, 2, 1], [4, -2, 1], [-4, -2, 1]]
    classes, groups = [0, 0, 1, 1], ["a", "b", "c", "d"]
    sums = GroupSums.empty(index, ["x", "y"], [*"pqrs"], classes, groups, *token_sums("conductance", rows, rms=True))
    sums.add(range(4), **token_sums("conductance", rows, rms=True))
    found = {name: sums.finish(f"conductance{ending}") for name, ending in {"signed": "", **FORMS}.items()}
    assert found["signed"].values[:3].tolist() == [0, 0, 1]
    assert found["class_means"].values[:3].tolist() == [0, 2, 1]  # cancels within a class, not between classes
    assert found["absolute"].values[:3].tolist() == [3.5, 2, 1]
    assert found["rms"].values[:3] == pytest.approx([12.5**0.5, 2, 1])
    assert found["rms"].per_class["y"][:3].tolist() == [4, 2, 1]
    assert found["class_means"].per_class["y"][:3].tolist() == [0, 2, 1]
    weights = np.array([2.0, 0, 2, 0])  # a bootstrap sample of one protein a class
    for ranking, (first, _) in {"absolute": (3.5, 0), "class_means": (3.5, 0), "rms": (12.5**0.5, 0)}.items():
        again = found[ranking].resample
        assert again is not None and again(weights)[0] == pytest.approx(first)
    by_hand = with_class_means([found["signed"]])
    assert [one.method for one in by_hand] == ["conductance", "conductance_class"]


def test_every_ranking_names_a_score_that_is_computed() -> None:
    for method in SCORERS:
        for ranking in RANKINGS:
            assert ranked_by(method, ranking) in SCORERS
    assert ranked_by("conductance_rms", "absolute") == "conductance_rms"  # a form is its own ranking


# --- methods and seeds


def test_the_names_of_methods_are_those_of_the_table() -> None:
    assert tuple(SCORERS) == METHODS
    told = (ScoreSection.model_fields["methods"].description or "").replace(";", ",").split(", ")
    assert {signed_form(method)[0] for method in METHODS} <= set(told)


def test_an_unknown_method_is_refused_when_the_study_is_read() -> None:
    with pytest.raises(StudyError, match=r"^mine: score.methods: method 'bogus' is not known; choose from activation,"):
        parse_study({"score": {"methods": ["bogus"]}}, "mine")


def test_the_seed_reaches_every_scorer_that_draws(tiny: Classifier, proteins: list[Protein]) -> None:
    draws = [m for m in METHODS if "seed" in signature(SCORERS[m]).parameters]
    assert "attribution_patching" in draws
    settings = ScoreSection(methods=tuple(draws))
    found = score_all(tiny, proteins, settings, seed=5)
    assert [one.settings["seed"] for one in found] == [5] * len(draws)
    again, other = (score_all(tiny, proteins, settings, seed=seed) for seed in (5, 6))
    place = draws.index("attribution_patching")
    assert (found[place].values == again[place].values).all()
    assert not np.allclose(found[place].values, other[place].values)
