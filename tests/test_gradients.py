"""Integrated gradients against Captum, against their law, and against how the work is cut up."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from captum.attr import IntegratedGradients

from plmscope.activation import summarise_activations
from plmscope.errors import InputError, SelectionError
from plmscope.gradients import TARGETS, integrated_gradients, log_odds
from plmscope.hooks import record, replace
from plmscope.model import EMBEDDED, Classifier, load_model
from plmscope.sequences import Protein, read_proteins
from plmscope.sites import Site
from tests.conftest import LABELS, make_proteins


def captum_scores(
    model: Classifier, protein: Protein, site: Site, points: int, constants: np.ndarray | None, target: str
) -> np.ndarray:
    """Token sums ``(N,)`` by Captum's IntegratedGradients on the hooked activation of the Hugging Face model."""
    batch = model.batch([protein])
    inputs = {"input_ids": batch.input_ids, "attention_mask": batch.attention_mask}
    with record(model, [site]) as seen, torch.no_grad():
        model.model(**inputs)
    value = seen[site]
    start = torch.zeros_like(value)
    if constants is not None:
        first, last, residue = (torch.tensor(c, dtype=torch.float32) for c in constants[:, model.index.slice(site)])
        start = residue.expand_as(value).clone()
        start[:, 0], start[:, -1] = first, last
    classes = torch.tensor(model.targets([protein]))

    def forward(activation: torch.Tensor) -> torch.Tensor:
        n = len(activation)
        many = {name: ids.repeat(n, 1) for name, ids in inputs.items()}
        with replace(model, {site: lambda a: activation}):
            return TARGETS["single"][target](model.model(**many).logits, classes.repeat(n))

    got = IntegratedGradients(forward).attribute(value, start, n_steps=points, method="gausslegendre")
    return got.sum(1)[0].detach().numpy()


@pytest.mark.parametrize(
    ("baseline", "target"), [("zero", "log_odds"), ("mean", "log_odds"), ("zero", "log_probability")]
)
def test_equal_to_captum_at_every_site(tiny: Classifier, proteins: list[Protein], baseline: str, target: str) -> None:
    protein = proteins[4]
    constants = summarise_activations(tiny, proteins).constants("mean") if baseline == "mean" else None
    scores, _ = integrated_gradients(tiny, [protein], points=7, baseline=constants, target=target)
    for site in tiny.index.sites:
        ours = scores.values[tiny.index.slice(site)]
        theirs = captum_scores(tiny, protein, site, 7, constants, target)
        assert np.linalg.norm(ours - theirs) < 1e-4 * np.linalg.norm(theirs), site


def test_attributions_sum_to_what_the_site_changes(tiny: Classifier, proteins: list[Protein]) -> None:
    scores, _ = integrated_gradients(tiny, proteins, points=48)
    gaps = scores.completeness
    assert gaps is not None and len(gaps) == len(proteins) * len(tiny.index.sites)
    assert gaps["expected"].abs().mean() > 0.1  # the law says something only where the sites matter
    assert gaps["gap"].abs().max() < 5e-3


def test_few_points_leave_a_gap_that_is_reported(tiny: Classifier, proteins: list[Protein]) -> None:
    coarse = integrated_gradients(tiny, proteins, points=1)[0].completeness
    fine = integrated_gradients(tiny, proteins, points=16)[0].completeness
    assert coarse is not None and fine is not None
    assert coarse["gap"].abs().mean() > 10 * fine["gap"].abs().mean()


def test_batches_and_budgets_do_not_matter(tiny: Classifier) -> None:
    many = make_proteins(7, seed=5, low=20, high=22)
    reference = integrated_gradients(tiny, many, points=5, token_budget=1)[0]
    for budget in (60, 300, 10_000):
        other = integrated_gradients(tiny, many, points=5, token_budget=budget)[0]
        np.testing.assert_allclose(other.values, reference.values, atol=2e-5 * np.abs(reference.values).max())


def test_each_class_weighs_the_same(tiny: Classifier, proteins: list[Protein]) -> None:
    uneven = [p for p in proteins if p.label == "1"][:1] + [p for p in proteins if p.label == "2"]
    scores, absolute = integrated_gradients(tiny, uneven, points=3)
    alone = [integrated_gradients(tiny, [p], points=3)[0].values for p in uneven]
    np.testing.assert_allclose(scores.per_class["2"], np.mean(alone[1:], axis=0), rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(scores.values, (scores.per_class["1"] + scores.per_class["2"]) / 2)
    np.testing.assert_allclose(absolute.per_class["2"], np.mean(np.abs(alone[1:]), axis=0), rtol=1e-3, atol=1e-5)
    assert set(scores.per_class) == {"1", "2"}


def test_log_odds_by_hand() -> None:
    logits = torch.tensor([[1.0, 2.0, 4.0]])
    want = 2.0 - np.log(np.exp(1.0) + np.exp(4.0))
    assert log_odds(logits, torch.tensor([1])).item() == pytest.approx(want, abs=1e-5)
    assert log_odds(logits + 7, torch.tensor([1])).item() == pytest.approx(want, abs=1e-5)


def test_impossible_requests_are_refused(tiny: Classifier, proteins: list[Protein]) -> None:
    with pytest.raises(SelectionError, match="points = 0"):
        integrated_gradients(tiny, proteins, points=0)
    with pytest.raises(SelectionError, match="'logits' is not known; choose one of log_odds"):
        integrated_gradients(tiny, proteins, target="logits")
    with pytest.raises(InputError, match="no proteins"):
        integrated_gradients(tiny, [])
    with pytest.raises(InputError, match="'stranger' has the label '9'"):
        integrated_gradients(tiny, [Protein("stranger", "ACDEF", "9")])


def test_equal_to_captum_on_the_embedded_model() -> None:
    """The model of the demo with a fresh head, on a real enzyme: every module kind of the first and the last layer."""
    model = load_model(EMBEDDED, labels=LABELS)
    enzymes = read_proteins("plmscope:enzymes", label="ec:1").proteins
    short = min((p for p in enzymes if p.label in LABELS), key=len)
    scores, _ = integrated_gradients(model, [short], points=6)
    for site in (site for site in model.index.sites if site.layer in (0, 4)):
        ours = scores.values[model.index.slice(site)]
        theirs = captum_scores(model, short, site, 6, None, "log_odds")
        assert np.linalg.norm(ours - theirs) < 1e-4 * np.linalg.norm(theirs), site
