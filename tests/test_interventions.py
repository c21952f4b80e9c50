"""Interventions: exact against hooks, harmless where they must be, and aimed at the planted class alone."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.special import expit

from plmscope.data.proteins import Protein
from plmscope.errors import SelectionError
from plmscope.evaluation.interventions import (
    OTHERS,
    Change,
    class_log_odds,
    effect_table,
    effects,
    intervention_table,
    neuron_effects,
    nothing,
    outcomes,
    plan,
)
from plmscope.evaluation.judging import intervene
from plmscope.evaluation.selection import Selection
from plmscope.models import hooks
from plmscope.models.classifier import Classifier
from plmscope.models.loading import load_model
from plmscope.models.network import at_tokens
from plmscope.scoring.activation import summarise_activations
from tests.conftest import make_proteins
from tests.families import HOOKED
from tests.planted import LABEL_ROLES, neurons_of, planted_model, planted_proteins, planted_tokenizer


def random_selection(classifier: Classifier, share: float = 0.2, seed: int = 0) -> Selection:
    return Selection(classifier.index, np.random.default_rng(seed).random(len(classifier.index)) < share)


def by_hooks(classifier: Classifier, proteins: list[Protein], change: Change, means: np.ndarray) -> np.ndarray:
    """Log-odds of the Hugging Face model with its activations changed by hooks, protein by protein."""
    out = np.zeros((len(proteins), len(classifier.labels)))
    for batch in classifier.batches(proteins, 1):

        def changed(mask: np.ndarray, part: slice, ends: torch.Tensor) -> hooks.Rewrite:
            def change_(a: torch.Tensor) -> torch.Tensor:
                context = type("Ends", (), {"ends": ends})
                new = (
                    at_tokens(torch.tensor(means[:, part], dtype=a.dtype), a, context)  # type: ignore[arg-type]
                    if change.factor is None
                    else a * change.factor
                )
                return torch.where(torch.from_numpy(mask), new, a)

            return change_

        sites = {
            site: changed(change.selection.mask[part], part, batch.lengths - 1)
            for site in classifier.index.sites
            if change.selection.mask[part := classifier.index.slice(site)].any()
        }
        with torch.inference_mode(), hooks.replace(classifier, sites) if sites else nullcontext():
            logits = classifier.model(input_ids=batch.input_ids, attention_mask=batch.attention_mask).logits
        out[batch.rows] = class_log_odds(logits.double().numpy(), "single")
    return out


@pytest.mark.parametrize("factor", [None, 0.0, 0.5, 1.0, 2.0])
def test_every_change_is_that_of_hooks(factor: float | None, tiny: Classifier, proteins: list[Protein]) -> None:
    means = np.random.default_rng(1).normal(size=(3, len(tiny.index)))
    change = Change(random_selection(tiny), factor)
    (found,) = outcomes(tiny, proteins, [change], means)
    np.testing.assert_allclose(found, by_hooks(tiny, proteins, change, means), atol=2e-4)
    if factor not in (None, 1.0):
        (intact,) = outcomes(tiny, proteins, [nothing(tiny.index)], None)
        assert np.abs(found - intact).max() > 0.01


def test_other_families_too(tmp_path: Path) -> None:
    name = sorted(HOOKED)[0]
    family, few = load_model(HOOKED[name](tmp_path)), make_proteins(4, seed=2)
    change = Change(random_selection(family), 2.0)
    (found,) = outcomes(family, few, [change], None)
    np.testing.assert_allclose(found, by_hooks(family, few, change, np.zeros((3, len(family.index)))), atol=2e-4)


def test_factor_one_and_the_weights_stay(tiny: Classifier, proteins: list[Protein]) -> None:
    before = {name: p.clone() for name, p in tiny.model.named_parameters()}
    everything = Selection(tiny.index, np.ones(len(tiny.index), dtype=bool))
    same, _ = outcomes(tiny, proteins, [Change(everything, 1.0), Change(everything, 3.0)], None)
    np.testing.assert_allclose(expit(same), np.exp(tiny.log_probabilities(proteins)), atol=1e-5)
    assert all(torch.equal(before[name], p) for name, p in tiny.model.named_parameters())


def test_effects_by_hand() -> None:
    p = np.array([[0.8, 0.1, 0.1], [0.6, 0.3, 0.1], [0.2, 0.7, 0.1], [0.5, 0.4, 0.1], [0.6, 0.3, 0.1]])
    q = np.array([[0.4, 0.5, 0.1], [0.7, 0.2, 0.1], [0.2, 0.7, 0.1], [0.3, 0.6, 0.1], [0.1, 0.3, 0.6]])
    members = np.eye(3, dtype=bool)[[0, 0, 1, 1, 1]]
    found = effects(class_log_odds(np.log(p), "single"), class_log_odds(np.log(q), "single"), members, label=0)
    first, second = found[0], found[1]
    assert first[-4:] == (2, 1, 1, 0) and first.n_proteins == 2  # right before, changed, lost, gained
    assert second[-4:] == (1, 2, 0, 1)
    assert first.probability_change == pytest.approx((-0.4 + 0.1) / 2)
    assert second.label_probability_change == pytest.approx((0 - 0.2 - 0.5) / 3)
    odds = [np.log(x / (1 - x)) for x in (0.8, 0.6, 0.4, 0.7)]
    assert first.log_odds_change == pytest.approx((odds[2] - odds[0] + odds[3] - odds[1]) / 2)
    assert sorted(found) == [0, 1]  # the third class has no protein


def test_effects_where_a_protein_has_several_classes() -> None:
    before, after = np.array([[1.0, 1.0, -1.0]]), np.array([[1.0, -1.0, 2.0]])
    found = effects(before, after, np.array([[True, True, False]]), label=1, task="multi")
    assert (found[0].decisions_lost, found[0].decisions_changed, found[1].decisions_lost) == (0, 1, 1)
    assert found[1].probability_change == pytest.approx(expit(-1) - expit(1))
    assert found[0].label_probability_change == found[1].probability_change
    assert 2 not in found


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Classifier, Selection, list[Protein]]:
    """The planted network, its neurons whose values differ between the classes, proteins to judge by."""
    folder = tmp_path_factory.mktemp("planted")
    model, roles = planted_model()
    model.save_pretrained(folder)
    planted_tokenizer().save_pretrained(folder)
    classifier = load_model(folder)
    mask = np.zeros(len(classifier.index), dtype=bool)
    mask[[classifier.index.position(neuron) for neuron in neurons_of(roles, LABEL_ROLES)]] = True
    classifier.ablation_means = summarise_activations(classifier, planted_proteins(16, seed=5)).constants("mean")
    return classifier, Selection(classifier.index, mask, "planted"), planted_proteins(24, seed=3)


def test_suppressing_planted_neurons_changes_the_planted_class_alone(
    planted: tuple[Classifier, Selection, list[Protein]],
) -> None:
    classifier, selection, some = planted
    found = intervene(classifier, some, selection, factor=0, label="1", n_random=12)
    table = found.table.set_index("effect_on")
    assert table.loc["1", "decisions_lost"] == table.loc["1", "n_proteins"] == 12
    assert table.loc["1", "probability_change"] < -0.9
    assert table.loc["0", "decisions_changed"] == 0 and abs(table.loc["0", "probability_change"]) < 0.01
    assert found.p_value("1") < 0.1  # some of the draws hit a planted neuron
    assert abs(found.draws["probability_change"]).median() < 0.01
    assert "class 1: probability -0.9" in repr(found) or "class 1: probability -1.0" in repr(found)


def test_doubling_planted_neurons_invents_no_motif(planted: tuple[Classifier, Selection, list[Protein]]) -> None:
    classifier, selection, some = planted
    table = intervene(classifier, some, selection, factor=2, n_random=0).table.set_index("effect_on")
    assert table.loc["1", "probability_change"] > -1e-3
    assert table["decisions_changed"].sum() == 0


def test_tables_of_a_study(planted: tuple[Classifier, Selection, list[Protein]]) -> None:
    classifier, selection, some = planted
    junk = random_selection(classifier, 0.02) - selection
    draws: dict[float | None, int] = {None: 3, 0.0: 3, 2.0: 0}
    trials = plan({("m", "0"): junk, ("m", "1"): selection}, 0.02, draws, seed=0)
    assert len(trials) == 2 * (3 + 6)
    members, labels = classifier.membership(some), list(classifier.labels)
    before, *after = outcomes(
        classifier,
        some,
        [nothing(classifier.index), *(t.change for t in trials)],
        np.asarray(classifier.ablation_means),
    )
    table = intervention_table(trials, before, after, members, labels)
    assert len(table) == 2 * len(trials)
    assert set(table["mode"]) == {"suppress", "enhance"}
    assert (table.loc[table["control"] == "", "draw"] == -1).all()
    found = effect_table(trials, before, after, members, labels, [p.id for p in some], seed=0)
    rows = found[(found["factor"] == 0)].set_index(["label", "effect_on"])
    own, others = rows.loc[("1", "1")], rows.loc[("1", OTHERS)]
    assert own["ci_high"] < -0.2 < others["ci_low"] and own["p_value"] == 0.25 and own["p_kind"] == "too_few_draws"
    assert own["draws_beaten"] >= 2 and own["n_draws"] == 3
    assert others["probability_change"] == pytest.approx(rows.loc[("1", "0"), "probability_change"])
    assert rows.loc[("0", "1"), "decisions_lost"] == 0
    expected = table[(table["label"] == "1") & (table["factor"] == 0) & (table["effect_on"] == "1")]
    drawn = expected.loc[expected["draw"] >= 0, "probability_change"].mean()
    assert own["difference"] == pytest.approx(own["probability_change"] - drawn)
    assert found.loc[found["factor"] == 2, "p_value"].isna().all()


def test_single_neurons(planted: tuple[Classifier, Selection, list[Protein]]) -> None:
    classifier, selection, some = planted
    neurons = pd.concat([selection.table().iloc[:2], selection.table().iloc[-1:]], ignore_index=True)
    places = np.flatnonzero(selection.mask)[[0, 1, -1]]
    changes = [Change(Selection(classifier.index, np.arange(len(classifier.index)) == place), 0.0) for place in places]
    before, *after = outcomes(classifier, some, [nothing(classifier.index), *changes], None)
    frame = neuron_effects(before, after, classifier.membership(some), list(classifier.labels), neurons)
    assert len(frame) == 6
    worst = frame.loc[frame["probability_change"].idxmin()]
    assert worst["effect_on"] == "1" and worst["decisions_lost"] > 0


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"factor": -1.0}, "0 or more"),
        ({"factor": float("nan")}, "0 or more"),
        ({"n_random": 1}, "at least 2"),
        ({"label": "9"}, "the model knows"),
    ],
)
def test_impossible_settings(
    settings: dict[str, object], message: str, tiny: Classifier, proteins: list[Protein]
) -> None:
    with pytest.raises(SelectionError, match=message):
        intervene(tiny, proteins, random_selection(tiny), **{"factor": 0, "n_random": 0} | settings)  # type: ignore[arg-type]


def test_selections_that_cannot_be_judged(tiny: Classifier, proteins: list[Protein]) -> None:
    chosen = random_selection(tiny)
    with pytest.raises(SelectionError, match="is empty"):
        intervene(tiny, proteins, chosen - chosen, factor=0)
    scored = Selection(tiny.index, chosen.mask, "scored", (proteins[0].id,))
    with pytest.raises(SelectionError, match="chose this selection"):
        intervene(tiny, proteins, scored, factor=0)
    with pytest.raises(SelectionError, match="means are needed"):
        intervene(tiny, proteins, chosen, n_random=0)
