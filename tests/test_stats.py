"""Areas, tests and intervals: hand-worked values, scikit-learn and scipy as the second route, and laws."""

import dataclasses
import math
import time
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats as scipy_stats
from sklearn import metrics as sk

from plmscope import stats
from plmscope.errors import SelectionError
from plmscope.store.schema import SCHEMA


def predictions(seed: int, proteins: int, n_classes: int, sets: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """True classes ``(P,)``, predicted ``(K, P)`` and full probabilities ``(K, P, C)``."""
    rng = np.random.default_rng(seed)
    probabilities = rng.dirichlet(np.full(n_classes, 0.7), size=(sets, proteins))
    return rng.integers(0, n_classes, proteins), probabilities.argmax(-1), probabilities


def log_true(true: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    return np.log(
        np.take_along_axis(probabilities, np.broadcast_to(true, probabilities.shape[:-1])[..., None], -1)[..., 0]
    )


def with_sklearn(name: str, true: np.ndarray, predicted: np.ndarray, probabilities: np.ndarray) -> float:
    labels = np.arange(probabilities.shape[-1])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # predicted classes that are absent from true
        match name:
            case "accuracy":
                return float(sk.accuracy_score(true, predicted))
            case "balanced_accuracy":
                return float(sk.balanced_accuracy_score(true, predicted))
            case "macro_f1":
                return float(sk.f1_score(true, predicted, average="macro", zero_division=0))
            case "log_loss":
                return float(sk.log_loss(true, probabilities, labels=labels))
            case "log_probability":
                return float(np.log(probabilities[np.arange(len(true)), true]).clip(-2 * np.log(len(labels))).mean())
            case _:
                return float(probabilities[np.arange(len(true)), true].mean())


# --- metrics


@pytest.mark.parametrize("name", stats.METRICS)
@given(seed=st.integers(0, 10_000), proteins=st.integers(1, 40), n_classes=st.integers(2, 6))
@settings(max_examples=25, deadline=None)
def test_metric_equals_scikit_learn(name, seed, proteins, n_classes):
    true, predicted, probabilities = predictions(seed, proteins, n_classes, 1)
    ours = stats.metric(name, true, predicted[0], log_true(true, probabilities)[0], n_classes)
    assert ours == pytest.approx(with_sklearn(name, true, predicted[0], probabilities[0]), abs=1e-9)


@pytest.mark.parametrize("name", stats.METRICS)
@pytest.mark.parametrize("kind", [np.int32, np.float64])
def test_whole_number_weights_repeat_proteins(name, kind):
    true, predicted, probabilities = predictions(3, 50, 4, 3)
    weights = np.random.default_rng(1).integers(0, 4, (6, 50))
    weights[0, true == 2] = 0  # a class that this resample does not hold
    ours = stats.weighted_metric(name, weights.astype(kind), true, predicted, log_true(true, probabilities), 4)
    assert ours.shape == (6, 3)
    for b, counts in enumerate(weights):
        again = np.repeat(np.arange(50), counts)
        for k in range(3):
            expected = with_sklearn(name, true[again], predicted[k, again], probabilities[k, again])
            assert ours[b, k] == pytest.approx(expected, abs=1e-9)


def test_metrics_by_hand():
    # class 0: 3 of 4 right; class 1: 1 of 2 right (one 0 called 1, one 1 called 0); class 2 is nowhere
    true, predicted = np.array([0, 0, 0, 0, 1, 1]), np.array([0, 0, 0, 1, 1, 0])
    log_prob = np.log([0.5, 0.5, 0.5, 0.25, 0.5, 0.25])
    values = {name: stats.metric(name, true, predicted, log_prob, 3) for name in stats.METRICS}
    assert values["accuracy"] == pytest.approx(4 / 6)
    assert values["balanced_accuracy"] == pytest.approx((3 / 4 + 1 / 2) / 2)
    assert values["macro_f1"] == pytest.approx((2 * 3 / (4 + 4) + 2 * 1 / (2 + 2)) / 2)
    assert values["log_loss"] == pytest.approx((4 * math.log(2) + 2 * math.log(4)) / 6)
    assert values["true_class_probability"] == pytest.approx(2.5 / 6)


def test_all_weights_zero_is_nan_without_a_warning():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for name in stats.METRICS:
            assert np.isnan(stats.weighted_metric(name, [[0, 0]], [0, 1], [[0, 1]], [[-1.0, -1.0]], 2)).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": "auroc"}, "unknown metric 'auroc'"),
        ({"weights": [[1, 1, 1]]}, "shapes do not fit"),
        ({"weights": [[1, -1]]}, "negative"),
        ({"weights": [[1, math.nan]]}, "negative or NaN"),
        ({"true": [0, 2]}, "true classes"),
        ({"predicted": [[0, -1]]}, "predicted classes"),
        ({"predicted": [[0.0, 1.0]]}, "whole numbers"),
        ({"predicted": [[0, 1], [0, 1]]}, "differ in shape"),
        ({"log_prob_true": [[-1.0, -math.inf]]}, "not finite"),
        ({"true": [], "weights": [[]], "predicted": [[]], "log_prob_true": [[]]}, "at least one protein"),
    ],
)
def test_weighted_metric_refuses(change, message):
    arguments = {"name": "accuracy", "weights": [[1, 1]], "true": [0, 1], "predicted": [[0, 1]]}
    arguments |= {"log_prob_true": [[-1.0, -1.0]], "n_classes": 2}
    with pytest.raises(SelectionError, match=message):
        stats.weighted_metric(**(arguments | change))


# --- areas


def test_area_by_hand():
    # trapezoids on an uneven grid: 0.1 wide at mean height 0.3, 0.9 wide at mean height 0.7
    assert stats.curve_area([0.0, 0.1, 1.0], [0.2, 0.4, 1.0]) == pytest.approx(0.1 * 0.3 + 0.9 * 0.7)
    stacked = stats.curve_area([0, 1], np.arange(12).reshape(2, 3, 2))
    assert stacked.tolist() == [[0.5, 2.5, 4.5], [6.5, 8.5, 10.5]]


@pytest.mark.parametrize("fractions", [[0.1], [0.1, 0.1], [0.2, 0.1], [], [0.1, math.nan]])
def test_area_refuses_fractions(fractions):
    with pytest.raises(SelectionError, match="strictly increasing"):
        stats.curve_area(fractions, np.ones(len(fractions)))


def test_area_refuses_another_number_of_values():
    with pytest.raises(SelectionError, match="2 fractions"):
        stats.curve_area([0, 1], [1, 2, 3])


def test_only_log_loss_is_capped_and_only_in_areas():
    cap = 2 * math.log(7)
    assert stats.metric_area("log_loss", [0, 0.5, 1], [100.0, 1.0, 1.0], 7) == pytest.approx(0.25 * (cap + 1) + 0.5)
    assert stats.metric_area("accuracy", [0, 1], [5.0, 5.0], 2) == 5
    assert stats.metric("log_loss", [0], [1], [-100.0], 2) == 100


def test_better_sign():
    signs = {(m, mode): stats.better_sign(m, mode) for m in stats.METRICS for mode in ("keep", "ablate")}
    assert {key for key, sign in signs.items() if sign == -1} == {
        ("log_loss", "keep"),
        *((m, "ablate") for m in stats.METRICS if m != "log_loss"),
    }
    for arguments in (("auroc", "keep"), ("accuracy", "remove")):
        with pytest.raises(SelectionError, match="unknown"):
            stats.better_sign(*arguments)


# --- against draws


def test_permutation_counts_ties_as_at_least_as_good():
    draws = np.arange(199.0)  # 0..198
    assert stats.compare_with_draws(198.0, draws, 1) == (2 / 200, "permutation", 198)
    assert stats.compare_with_draws(198.5, draws, 1) == (1 / 200, "permutation", 199)
    assert stats.compare_with_draws(0.5, draws, -1) == (2 / 200, "permutation", 198)
    assert stats.compare_with_draws(198.0 + 1e-13, draws, 1).draws_beaten == 198  # rounding is not a win


@pytest.mark.parametrize(("n", "kind"), [(2, "too_few_draws"), (19, "too_few_draws"), (20, "permutation")])
def test_few_draws_are_counted_and_never_extrapolated(n, kind):
    draws = np.random.default_rng(0).normal(size=n)
    assert stats.compare_with_draws(1000.0, draws, 1) == (1 / (n + 1), kind, n)


@pytest.mark.parametrize(("observed", "p", "beaten"), [(0.6, 1 / 6, 5), (0.5, 1.0, 0), (0.4, 1.0, 0)])
def test_equal_draws_are_counted_not_extrapolated(observed, p, beaten):
    draws = np.array([0.5, 0.1 + 0.4, 0.5, 0.2 + 0.3, 0.5 + 1e-16])
    assert stats.compare_with_draws(observed, draws, 1) == (p, "too_few_draws", beaten)


def test_fewer_than_two_draws_test_nothing():
    for draws in ([], [0.1]):
        test = stats.compare_with_draws(0.5, draws, 1)
        assert math.isnan(test.p_value)
        assert (test.p_kind, test.draws_beaten) == ("none", len(draws))


@pytest.mark.parametrize(
    ("observed", "draws", "better"), [(0.5, [0.1, 0.2], 0), (math.nan, [0.1, 0.2], 1), (0.5, [math.nan], 1)]
)
def test_compare_with_draws_refuses(observed, draws, better):
    with pytest.raises(SelectionError):
        stats.compare_with_draws(observed, draws, better)


@pytest.mark.parametrize("n_draws", [20, 199])
def test_p_value_is_uniform_when_the_method_is_a_draw(n_draws):
    rng = np.random.default_rng(5)
    p = [stats.compare_with_draws(x[0], x[1:], 1).p_value for x in rng.normal(size=(1500, n_draws + 1))]
    assert np.mean(np.array(p) <= 0.05) == pytest.approx(0.05, abs=0.02)
    assert np.mean(np.array(p) <= 0.5) == pytest.approx(0.5, abs=0.05)


# --- bootstrap


def test_clusters_stay_whole_and_classes_keep_their_number_of_clusters():
    clusters = np.array(["a", "a", "b", "c", "d", "d", "d", "e"])
    labels = np.array([0, 0, 0, 0, 1, 1, 0, 1])  # d is of class 1 by majority
    weights = stats.bootstrap_weights(clusters, labels, 400, np.random.default_rng(0))
    assert weights.shape == (400, 8)
    by_cluster = {name: weights[:, clusters == name] for name in "abcde"}
    assert all((w == w[:, :1]).all() for w in by_cluster.values())
    assert (sum(by_cluster[name][:, 0] for name in "abc") == 3).all()
    assert (sum(by_cluster[name][:, 0] for name in "de") == 2).all()
    assert weights.mean(axis=0) == pytest.approx(np.ones(8), abs=0.15)
    assert len(np.unique(weights[:, 0])) > 2


def test_a_tied_cluster_counts_for_the_first_class():
    clusters, labels = np.array([0, 0, 1, 2]), np.array([1, 0, 0, 1])
    weights = stats.bootstrap_weights(clusters, labels, 50, np.random.default_rng(0))
    assert (weights[:, 3] == 1).all()  # alone in class 1, so cluster 0 is of class 0
    assert (weights[:, 0] + weights[:, 2] == 2).all()


def test_same_seed_same_weights():
    clusters, labels = np.arange(30), np.arange(30) % 3
    first, again, other = (stats.bootstrap_weights(clusters, labels, 5, np.random.default_rng(s)) for s in (1, 1, 2))
    assert (first == again).all()
    assert (first != other).any()


@pytest.mark.parametrize(("clusters", "labels"), [([], []), ([1, 2], [1])])
def test_bootstrap_weights_refuses(clusters, labels):
    with pytest.raises(SelectionError):
        stats.bootstrap_weights(clusters, labels, 5, np.random.default_rng(0))


def curves(rng: np.random.Generator, right: np.ndarray, fractions: int, proteins: int) -> tuple[np.ndarray, ...]:
    """Two-class predictions of ``len(right)`` curves, each right with its own probability."""
    true = np.arange(proteins) % 2
    hit = rng.random((len(right), fractions, proteins)) < right[:, None, None]
    return true, np.where(hit, true, 1 - true), np.where(hit, math.log(0.9), math.log(0.1))


@pytest.mark.parametrize("name", stats.METRICS)
def test_bootstrap_difference_is_the_plain_loop(name):
    rng = np.random.default_rng(2)
    true, predicted, log_prob = curves(rng, np.array([0.8, 0.5, 0.6, 0.5]), 3, 24)
    fractions = [0.1, 0.3, 1.0]
    weights = stats.bootstrap_weights(np.arange(24) // 2, true, 7, rng)
    ours = stats.bootstrap_difference(name, fractions, weights, true, predicted, log_prob, 2, np.random.default_rng(9))
    again_rng = np.random.default_rng(9)
    times, picked = again_rng.multinomial(3, [1 / 3] * 3, size=7), again_rng.integers(3, size=7)
    width = math.sqrt(3 / 2) * scipy_stats.t.ppf(0.975, 2) / 1.959963984540054
    for b in range(7):
        again = np.repeat(np.arange(24), weights[b])
        areas = []
        for curve in range(4):
            point = [
                stats.metric(name, true[again], predicted[curve, f, again], log_prob[curve, f, again], 2)
                for f in range(3)
            ]
            areas.append(float(stats.metric_area(name, fractions, point, 2)))
        luck = width * (areas[1 + picked[b]] - np.mean(areas[1:]))
        assert ours[b] == pytest.approx(areas[0] + luck - np.repeat(areas[1:], times[b]).mean())


def test_draws_are_resampled_too():
    # predictions that do not depend on the protein: only the choice of draws can vary
    predicted = np.zeros((4, 2, 6), dtype=int)
    log_prob = np.broadcast_to(np.log([0.5, 0.1, 0.2, 0.3])[:, None, None], (4, 2, 6))
    samples = stats.bootstrap_difference(
        "true_class_probability", [0, 1], np.ones((3000, 6)), [0] * 6, predicted, log_prob, 2, np.random.default_rng(0)
    )
    assert samples.mean() == pytest.approx(0.3, abs=0.005)
    width = math.sqrt(3 / 2) * scipy_stats.t.ppf(0.975, 2) / 1.959963984540054  # and the method is one draw itself
    assert samples.std() == pytest.approx(np.std([0.1, 0.2, 0.3]) * math.sqrt(1 / 3 + width**2), rel=0.05)


def test_comparison_is_a_row_of_the_table():
    rng = np.random.default_rng(4)
    true, predicted, log_prob = curves(rng, np.array([0.9] + [0.5] * 20), 3, 80)
    weights = stats.bootstrap_weights(np.arange(80), true, 500, rng)
    result = stats.compare_curves("balanced_accuracy", 1, [0.1, 0.5, 1.0], weights, true, predicted, log_prob, 2, rng)
    assert set(dataclasses.asdict(result)) <= set(SCHEMA["comparison"])
    assert result.difference == pytest.approx(result.auc - result.auc_against)
    assert result.difference == pytest.approx(0.9 * 0.4, abs=0.06)
    assert result.ci_low < result.difference < result.ci_high
    assert result.ci_low > 0
    assert (result.p_kind, result.n_draws, result.draws_beaten, result.better) == ("permutation", 20, 20, 1)
    assert result.p_value == 1 / 21


def test_interval_covers_the_truth():
    rng, covered = np.random.default_rng(7), 0
    for _ in range(120):
        true, predicted, log_prob = curves(rng, np.array([0.8] + [0.6] * 10), 2, 60)
        weights = stats.bootstrap_weights(np.arange(60), true, 200, rng)
        samples = stats.bootstrap_difference("accuracy", [0, 1], weights, true, predicted, log_prob, 2, rng)
        low, high = stats.percentile_interval(samples)
        covered += low <= 0.2 <= high
    assert 0.88 <= covered / 120 <= 1.0


def test_interval_holds_zero_for_a_method_that_is_one_more_draw():
    """Draws differ by more than the proteins tell; without the method's own luck 0 is outside in half of the cases."""
    rng, covered = np.random.default_rng(8), 0
    for _ in range(200):
        chances = np.clip(rng.normal(0.6, 0.1, size=13), 0.05, 0.95)  # the method's is drawn like those of the draws
        true, predicted, log_prob = curves(rng, chances, 2, 60)
        weights = stats.bootstrap_weights(np.arange(60), true, 200, rng)
        samples = stats.bootstrap_difference("accuracy", [0, 1], weights, true, predicted, log_prob, 2, rng)
        low, high = stats.percentile_interval(samples)
        covered += low <= 0 <= high
    assert covered / 200 >= 0.92


def test_share_better_by_hand():
    log_prob = np.log([[[0.9, 0.1, 0.5, 1e-9]], [[0.5, 0.5, 0.5, 0.6]], [[0.5, 0.3, 0.5, 1e-30]]])
    true = [0, 0, 1, 1]
    assert stats.share_better(log_prob, true, 2, 1) == (1 + 0 + 0.5 + 0) / 4
    assert stats.share_better(log_prob, true, 2, -1) == (0 + 1 + 0.5 + 1) / 4


def test_log_probability_floors_every_protein():
    log_prob = np.log([[0.5, 1e-30]])
    got = stats.weighted_metric("log_probability", [[1, 1]], [0, 1], [[0, 0]], log_prob, 2)
    assert got == pytest.approx((math.log(0.5) - 2 * math.log(2)) / 2)


# --- concentration


def test_isotonic_is_that_of_scikit_learn():
    from sklearn.isotonic import IsotonicRegression

    curves = np.random.default_rng(0).normal(size=(40, 6))
    ours = stats.isotonic(curves)
    for one, other in zip(curves, ours, strict=True):
        np.testing.assert_allclose(other, IsotonicRegression().fit_transform(np.arange(6), one), atol=1e-12)


def test_sufficient_share_by_hand():
    x = [0.0, 0.1, 0.2, 0.5, 1.0]
    assert stats.sufficient_share(x, [0.0, 0.1, 0.2, 0.5, 1.0]) == pytest.approx(0.9)  # the straight line
    assert stats.sufficient_share(x, [0.2, 0.92, 0.95, 0.99, 1.0]) == pytest.approx(0.1)  # exactly 90 % at a tenth
    assert stats.sufficient_share(x, [0.0, 1.2, 1.0, 1.0, 1.0]) == pytest.approx(
        0.09 / 1.05
    )  # more than intact is enough
    assert stats.sufficient_share(x, [0.0, 0.0, 0.0, 0.0, 1.0]) == pytest.approx(0.95)
    assert stats.sufficient_share(x, [0.5, 0.9, 0.9, 0.9, 0.5]) == 1  # carries nothing
    assert stats.sufficient_share(x, [0.0, 0.95, 0.05, 1.0, 1.0]) > 0.2  # one lucky point is no plateau
    many = stats.sufficient_share(x, np.array([[[0.0, 0.1, 0.2, 0.5, 1.0], [0.2, 0.92, 0.95, 0.99, 1.0]]]))
    assert many == pytest.approx(np.array([[0.9, 0.1]]))


def test_holm_is_the_step_down_by_hand():
    assert stats.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert np.isnan(stats.holm([math.nan, 0.5])).tolist() == [True, False]


def test_comparison_needs_a_draw():
    one = np.zeros((1, 2, 4), dtype=int)
    with pytest.raises(SelectionError, match="R >= 1"):
        stats.compare_curves(
            "accuracy", 1, [0, 1], np.ones((2, 4)), [0] * 4, one, one - 1.0, 2, np.random.default_rng(0)
        )


def test_two_thousand_resamples_take_seconds():
    rng = np.random.default_rng(0)
    true, predicted, probabilities = predictions(0, 400, 7, 101 * 4)
    shape = (101, 4, 400)
    weights = stats.bootstrap_weights(np.arange(400), true, 2000, rng)
    began = time.process_time()
    stats.bootstrap_difference(
        "balanced_accuracy", [0.1, 0.2, 0.5, 1], weights, true,
        predicted.reshape(shape), log_true(true, probabilities).reshape(shape), 7, rng,
    )  # fmt: skip
    assert time.process_time() - began < 10  # a loop over resamples takes minutes


def test_percentile_interval():
    assert stats.percentile_interval(np.arange(1001.0)) == pytest.approx((25.0, 975.0))
    assert all(math.isnan(end) for end in stats.percentile_interval([1.0, math.nan]))
    for samples, level in (([], 0.95), ([1.0], 1.0), ([1.0], 0.0)):
        with pytest.raises(SelectionError):
            stats.percentile_interval(samples, level)


# --- density


def test_enrichment_by_hand():
    # 5 neurons, 2 selected; a site of 3: both selected in C(3,2) = 3 of the C(5,2) = 10 ways, none in 1 way
    assert stats.hypergeometric_enrichment(3, 2, 5, 2) == pytest.approx(3 / 10)
    assert stats.hypergeometric_enrichment(3, 1, 5, 2) == pytest.approx(9 / 10)
    assert stats.hypergeometric_enrichment(3, 0, 5, 2) == 1


def test_enrichment_equals_fisher():
    table = [[12, 48], [28, 372]]
    expected = scipy_stats.fisher_exact(table, alternative="greater").pvalue
    assert stats.hypergeometric_enrichment(60, 12, 460, 40) == pytest.approx(expected)


@pytest.mark.parametrize("counts", [(3, 4, 10, 5), (3, -1, 10, 5), (3, 3, 10, 2), (8, 0, 10, 5), (12, 3, 10, 5)])
def test_enrichment_refuses_impossible_counts(counts):
    with pytest.raises(SelectionError, match="impossible counts"):
        stats.hypergeometric_enrichment(*counts)


def test_benjamini_hochberg_by_hand_and_by_scipy():
    # sorted p times n / rank: .01*4/1, .02*4/2, .03*4/3, .5*4/4, then the running minimum from the right
    assert stats.benjamini_hochberg([0.5, 0.03, 0.01, 0.02]) == pytest.approx([0.5, 0.04, 0.04, 0.04])
    p = np.random.default_rng(0).random(50) ** 3
    with_gaps = np.insert(p, [0, 10, 50], math.nan)
    q = stats.benjamini_hochberg(with_gaps)
    assert (np.isnan(q) == np.isnan(with_gaps)).all()
    assert q[~np.isnan(q)] == pytest.approx(scipy_stats.false_discovery_control(p))
    assert stats.benjamini_hochberg([]).shape == (0,)
    assert np.isnan(stats.benjamini_hochberg([math.nan])).all()
    with pytest.raises(SelectionError):
        stats.benjamini_hochberg([0.1, 1.1])
