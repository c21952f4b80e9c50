"""Single-neuron ablation against hooks on the Hugging Face model."""

from __future__ import annotations

import numpy as np
import torch

from plmscope.data.proteins import Protein
from plmscope.models.classifier import Classifier
from plmscope.models.hooks import replace
from plmscope.models.sites import Neuron
from plmscope.scoring.ablation import single_ablation
from plmscope.scoring.activation import summarise_activations
from plmscope.scoring.targets import log_odds


def by_hooks(model: Classifier, protein: Protein, neuron: Neuron, constants: np.ndarray | None) -> float:
    """Drop of the log-odds when a hook holds one neuron."""
    batch, classes = model.batch([protein]), torch.tensor(model.targets([protein]))
    first, last, residue = (0.0, 0.0, 0.0) if constants is None else constants[:, model.index.position(neuron)].tolist()

    def held(a: torch.Tensor) -> torch.Tensor:
        a = a.clone()
        a[..., neuron.index] = residue
        a[:, 0, neuron.index], a[:, -1, neuron.index] = first, last
        return a

    def value() -> float:
        logits = model.model(input_ids=batch.input_ids, attention_mask=batch.attention_mask).logits
        return float(log_odds(logits, classes))

    whole = value()
    with replace(model, {neuron.site: held}):
        return whole - value()


def test_equal_to_hooks_at_every_site(tiny: Classifier, proteins: list[Protein]) -> None:
    constants = summarise_activations(tiny, proteins).constants("mean")
    rng = np.random.default_rng(0)
    for baseline in (None, constants):
        scores, *_ = single_ablation(tiny, proteins[4:5], baseline=baseline, token_budget=200)
        assert np.isfinite(scores.values).all()
        for site in tiny.index.sites:
            neuron = Neuron(site, int(rng.integers(24)))
            want = by_hooks(tiny, proteins[4], neuron, baseline)
            assert abs(scores.values[tiny.index.position(neuron)] - want) < 2e-4, neuron


def test_a_sample_has_the_same_values_and_leaves_the_rest_unknown(tiny: Classifier, proteins: list[Protein]) -> None:
    all_, *_ = single_ablation(tiny, proteins[:2])
    some, *_ = single_ablation(tiny, proteins[:2], sample=36, seed=1)
    known = np.isfinite(some.values)
    assert known.sum() == 36
    assert {int(c) for c in np.bincount(tiny.index.site_of[known])} == {2}
    np.testing.assert_allclose(some.values[known], all_.values[known], atol=1e-5)
