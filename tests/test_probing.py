"""Probes: planted columns, NeuroX's ordering by its own steps, hand sums, scikit-learn and scipy."""

import numpy as np
import pytest
from scipy.stats import multivariate_normal

from plmscope.errors import InputError
from plmscope.models.architectures import architecture_of
from plmscope.models.classifier import Classifier
from plmscope.models.sites import NeuronIndex
from plmscope.probing.class_means import probeless
from plmscope.probing.gaussian import gaussian_selection
from plmscope.probing.linear_probe import (
    PENALTIES,
    choose_penalty,
    every_third,
    fit_probe,
    weight_ranking,
)
from plmscope.probing.scorers import METHODS, finish, probe_scores
from plmscope.scoring.methods import score
from tests.planted import LABEL_ROLES, neurons_of, planted_model, planted_proteins, planted_tokenizer


def planted(n: int = 1000, width: int = 2000, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Noise, six classes; 7 columns shifted by 2 sd in one class each, 5 of them copied; the 12 columns last."""
    rng = np.random.default_rng(seed)
    x, y = rng.normal(size=(n, width)), np.arange(n) % 6
    columns = rng.permutation(width)[:12]
    for number, column in enumerate(columns[:7]):
        x[:, column] += 2 * (y == number % 6)
    x[:, columns[7:]] = x[:, columns[:5]]
    return x, y, columns


def neurox_ordering(weights: np.ndarray, steps: int = 100) -> list[set[int]]:
    """The accumulation as its authors describe it: more and more of each class's weight mass, neurons as they enter."""
    seen: set[int] = set()
    entered = []
    for percent in range(steps + 1):
        top: set[int] = set()
        for row in np.abs(weights):
            mass, wanted = 0.0, row.sum() * percent / steps
            for neuron in sorted(range(len(row)), key=lambda n: -row[n]):
                top.add(neuron)
                mass += row[neuron]
                if mass >= wanted:
                    break
        entered.append(top - seen)
        seen |= top
    return entered


def test_the_ordering_is_that_of_neurox():
    rng = np.random.default_rng(0)
    for weights in (rng.normal(size=(6, 50)), rng.standard_t(1.5, size=(3, 200)), np.eye(4, 30) + 0.01):
        overall, per_class = weight_ranking(weights)
        order = np.argsort(-overall, kind="stable").tolist()
        for entered in neurox_ordering(weights):
            assert set(order[: len(entered)]) == entered
            order = order[len(entered) :]
        assert not order and per_class.max(1) == pytest.approx(1) and (per_class > 0).all()


def test_the_probe_finds_planted_columns_and_nothing_in_permuted_labels():
    x, y, columns = planted()
    held = every_third(y)
    assert all((held & (y == z)).sum() == (y == z).sum() // 3 for z in range(6))
    probe = fit_probe(x[~held], y[~held], 6, 1e-3)
    ranking = weight_ranking(probe.weights)[0]
    assert set(np.argsort(-ranking)[:12]) == set(columns)
    assert probe.accuracy(x[held], y[held]) > 0.25  # 2,000 columns, 670 samples; chance is 0.17
    best = np.isin(np.arange(x.shape[1]), columns)
    assert probe.accuracy(x[held], y[held], best) > probe.accuracy(x[held], y[held], ~best) + 0.2
    permuted = np.random.default_rng(1).permutation(y)
    lost = fit_probe(x[~held], permuted[~held], 6, 1e-3).accuracy(x[held], permuted[held])
    assert abs(lost - 1 / 6) <= 2 * np.sqrt(1 / 6 * 5 / 6 / held.sum())


def test_the_same_seed_gives_the_same_probe_and_a_penalty_makes_it_sparser():
    x, y, columns = planted(240, 300)
    one, again, sparse = (fit_probe(x, y, 6, penalty) for penalty in (0.0, 0.0, 1e-2))
    np.testing.assert_array_equal(one.weights, again.weights)
    share = [np.abs(p.weights)[:, columns].sum() / np.abs(p.weights).sum() for p in (one, sparse)]
    assert share[1] > 1.5 * share[0]
    assert choose_penalty(x, y, 6, every_third(y)) in PENALTIES
    assert choose_penalty(x, y, 6, np.zeros(len(y), bool)) == 0
    constant = fit_probe(np.column_stack([x[:, columns[0]], np.full(len(y), 7.0)]), y, 6)
    assert (constant.weights[:, 1] == 0).all() and np.isfinite(constant.weights).all()


def test_probeless_is_a_hand_sum():
    x = np.array([[0.0, 1.0], [2.0, 1.0], [4.0, 1.0], [6.0, 3.0], [10.0, 5.0], [10.0, 5.0]])
    y = np.array([0, 0, 1, 1, 3, 3])  # means 1, 5, 10 and 1, 2, 5; class 2 has no sample
    total, own = probeless(x, y, 4)
    assert total.tolist() == [4 + 9 + 5, 1 + 4 + 3]
    assert own.tolist() == [[13, 5], [9, 4], [0, 0], [14, 7]]
    spread = np.sqrt(np.array([2 + 2, 2]) / 3)
    np.testing.assert_allclose(probeless(x, y, 4, standardised=True)[0], total / spread)


def test_gaussian_bits_are_those_of_scipy_and_greedy():
    rng = np.random.default_rng(0)
    y = np.arange(90) % 3
    x = rng.normal(size=(90, 12)) * np.arange(1, 13)
    x[:, 3] += 8 * (y == 0)
    x[:, 7] += 16 * (y == 1)
    x[:, 8] = x[:, 3] + 0.01 * rng.normal(size=90)  # a copy tells nothing new
    held = every_third(y)
    found = gaussian_selection(x, y, held, chosen=3)
    assert set(found.neurons[:2].tolist()) in ({3, 7}, {8, 7})
    train, number = x[~held], y[~held]
    z = (x - train.mean(0)) / train.std(0)

    def bits(neurons: list[int], where: np.ndarray) -> float:
        d, log = len(neurons), []
        for c in range(3):
            own = z[~held][number == c][:, neurons]
            scatter = (own - own.mean(0)).T @ (own - own.mean(0))
            sigma = (np.diag(own.var(0)) + scatter) / (2 * d + 2 + len(own) + 2)
            log.append(
                multivariate_normal(own.mean(0), sigma).logpdf(z[where][:, neurons]) + np.log((number == c).mean())
            )
        log = np.array(log)
        own = log[y[where], np.arange(where.sum())]
        shares = np.bincount(number) / len(number)
        return -(shares * np.log2(shares)).sum() + np.mean(own - np.logaddexp.reduce(log, axis=0)) / np.log(2)

    for k in range(len(found.neurons)):
        chosen = found.neurons[: k + 1].tolist()
        assert found.train_bits[k] == pytest.approx(bits(chosen, ~held), abs=1e-6)
        assert found.held_out_bits[k] == pytest.approx(bits(chosen, held), abs=1e-6)
        others = [bits([*chosen[:-1], j], ~held) for j in range(12) if j not in chosen]
        assert found.train_bits[k] >= max(others) - 1e-9


@pytest.fixture(scope="module")
def network() -> tuple[Classifier, dict]:
    model, roles = planted_model(idle_constants=50.0)
    classifier = Classifier(
        model, planted_tokenizer(), architecture_of("esm"), ("0", "1"), NeuronIndex.of(2, 64, 256), "planted"
    )
    classifier.freeze()
    return classifier, roles


def test_planted_neurons_come_first_in_their_sites(network):
    classifier, roles = network
    proteins = planted_proteins(120)
    found = {one.method: one for one in probe_scores(classifier, proteins)}
    assert tuple(found) == METHODS
    # Random rows of the last attention output copy the decision: the probe spreads its weight over these.
    expected = {"probe": LABEL_ROLES[:-1], "probeless": LABEL_ROLES, "probeless_standardised": LABEL_ROLES}
    for method, names in expected.items():
        for neuron in neurons_of(roles, names):
            own = found[method].values[classifier.index.slice(neuron.site)]
            assert (own > own[neuron.index]).sum() <= 1  # the other channel of its pair
    best = classifier.index.neuron(int(found["gaussian"].values.argmax()))
    assert best in neurons_of(roles, LABEL_ROLES)
    # Raw distances compare scales; standardised ones put nothing idle first.
    idle = [classifier.index.position(neuron) for neuron in roles["idle"]]
    order = np.argsort(-found["probeless_standardised"].values)
    assert not set(order[:8].tolist()) & set(idle)


def test_parts_merge_and_one_class_is_refused(network):
    classifier, _ = network
    proteins = planted_proteins(24)
    whole = {one.method: one for one in probe_scores(classifier, proteins)}
    by_class = [[p for p in proteins if p.label == label] for label in "10"]
    parts = [probe_scores(classifier, part, fit=False) for part in by_class]  # a part may be of one class
    assert tuple(one.method for one in parts[0]) == METHODS and not parts[0][0].values.any()
    merged = parts[0][0].sums.merge(parts[1][3].sums)
    for method in METHODS:
        np.testing.assert_allclose(finish(method, merged, {"seed": 0}).values, whole[method].values, atol=1e-5)
    np.testing.assert_array_equal(score(classifier, proteins, "probe").values, whole["probe"].values)
    with pytest.raises(InputError, match=r"two classes at least, these are all '1'"):
        probe_scores(classifier, [p for p in proteins if p.label == "1"])
