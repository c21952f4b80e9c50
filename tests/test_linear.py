"""One-gradient scores against autograd on the Hugging Face model: gradient times activation, attribution patching."""

from __future__ import annotations

from zlib import crc32

import numpy as np
import pytest
import torch
from captum.attr import LayerGradientXActivation

from plmscope.data.proteins import Protein
from plmscope.errors import SelectionError
from plmscope.models.classifier import Classifier
from plmscope.models.esm import EsmNetwork
from plmscope.models.hooks import module_of, record
from plmscope.scoring.conductance import conductance
from plmscope.scoring.linear import attribution_patching, corrupted, gradient_activation
from plmscope.scoring.targets import log_odds


def by_hooks(model: Classifier, protein: Protein) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Activation and gradient ``(T, N)`` of every site of the Hugging Face model."""
    batch = model.batch([protein])
    embeddings = model.model.get_submodule(model.architecture.embeddings)
    handle = embeddings.register_forward_hook(lambda m, i, o: o.requires_grad_())
    try:
        with record(model, model.index.sites) as seen:
            logits = model.model(input_ids=batch.input_ids, attention_mask=batch.attention_mask).logits
    finally:
        handle.remove()
    value = log_odds(logits, torch.tensor(model.targets([protein]))).sum()
    gradients = torch.autograd.grad(value, list(seen.values()))
    activations = {str(site): a[0].detach().numpy() for site, a in seen.items()}
    return activations, {str(site): g[0].numpy() for site, g in zip(seen, gradients, strict=True)}


def test_gradient_activation_is_the_product(tiny: Classifier, proteins: list[Protein]) -> None:
    scores, *_ = gradient_activation(tiny, proteins[4:5])
    activations, gradients = by_hooks(tiny, proteins[4])
    for site in tiny.index.sites:
        want = (activations[str(site)] * gradients[str(site)]).sum(0)
        np.testing.assert_allclose(scores.values[tiny.index.slice(site)], want, atol=2e-4 * np.abs(want).max())


def test_equal_to_captum_at_every_site(tiny: Classifier, proteins: list[Protein]) -> None:
    """LayerGradientXActivation, given the list of all sites; the embedding output is put in by a hook."""
    batch, classes = tiny.batch(proteins[4:5]), torch.tensor(tiny.targets(proteins[4:5]))
    with torch.no_grad():
        end, _ = EsmNetwork(tiny).embed(batch)

    def forward(hidden: torch.Tensor) -> torch.Tensor:
        handle = tiny.model.esm.embeddings.register_forward_hook(lambda *_: hidden)
        try:
            return log_odds(tiny.model(input_ids=batch.input_ids, attention_mask=batch.attention_mask).logits, classes)
        finally:
            handle.remove()

    layers = [module_of(tiny, site)[0] for site in tiny.index.sites]
    theirs = LayerGradientXActivation(forward, layers).attribute(end.requires_grad_())
    scores, *_ = gradient_activation(tiny, proteins[4:5])
    for site, one in zip(tiny.index.sites, theirs, strict=True):
        ours, want = scores.values[tiny.index.slice(site)], one.sum(1)[0].detach().numpy()
        assert np.linalg.norm(ours - want) < 1e-4 * np.linalg.norm(want), site


def test_patching_is_the_gradient_times_the_change(tiny: Classifier, proteins: list[Protein]) -> None:
    protein = proteins[4]
    scores, *_ = attribution_patching(tiny, [protein], corruption="shuffled", copies=1, seed=3)
    twin = Protein("twin", corrupted(protein.sequence, "shuffled", (3, 0, crc32(protein.id.encode()))), protein.label)
    activations, gradients = by_hooks(tiny, protein)
    others, _ = by_hooks(tiny, twin)
    for site in tiny.index.sites:
        want = ((activations[str(site)] - others[str(site)]) * gradients[str(site)]).sum(0)
        np.testing.assert_allclose(scores.values[tiny.index.slice(site)], want, atol=5e-4 * np.abs(want).max())


def test_corruptions_keep_the_length_and_say_what_they_say() -> None:
    sequence = "ACDEFGHIKLMNPQRSTVWYX" * 4
    shuffled = corrupted(sequence, "shuffled", (0,))
    assert sorted(shuffled) == sorted(sequence)
    assert shuffled != sequence
    conservative = corrupted(sequence, "conservative", (0,))
    assert len(conservative) == len(sequence)
    pairs = set(zip(sequence, conservative, strict=True))
    assert all(b in "DQK" for a, b in pairs if a == "E")  # BLOSUM62: D 2, Q 2, K 1
    assert ("C", "C") in pairs  # cysteine has no substitute above zero
    assert ("X", "X") in pairs
    assert conservative == corrupted(sequence, "conservative", (0,))
    assert conservative != corrupted(sequence, "conservative", (1,))


def test_two_copies_are_averaged(tiny: Classifier, proteins: list[Protein]) -> None:
    both, *_ = attribution_patching(tiny, proteins[:1], copies=2, seed=1)
    first, *_ = attribution_patching(tiny, proteins[:1], copies=1, seed=1)
    assert not np.allclose(both.values, first.values)


def test_batches_do_not_matter(tiny: Classifier, proteins: list[Protein]) -> None:
    for scorer in (gradient_activation, attribution_patching):
        one, *_ = scorer(tiny, proteins, token_budget=1)
        all_, *_ = scorer(tiny, proteins, token_budget=10_000)
        np.testing.assert_allclose(one.values, all_.values, atol=1e-4 * np.abs(one.values).max())


def test_it_is_not_conductance(tiny: Classifier, proteins: list[Protein]) -> None:
    """A guard against one method quietly standing in for another."""
    product, *_ = gradient_activation(tiny, proteins)
    path, *_ = conductance(tiny, proteins, points=16)
    assert np.corrcoef(product.values, path.values)[0, 1] < 0.99


def test_impossible_requests_are_refused(tiny: Classifier, proteins: list[Protein]) -> None:
    with pytest.raises(SelectionError, match="corruption 'masked'"):
        attribution_patching(tiny, proteins, corruption="masked")
    with pytest.raises(SelectionError, match="copies 0"):
        attribution_patching(tiny, proteins, copies=0)


def test_a_baseline_is_subtracted_from_the_activation(tiny: Classifier, proteins: list[Protein]) -> None:
    """The score is affine in the baseline, and a baseline at one token kind moves neurons by the gradient there."""
    base = np.random.default_rng(0).normal(size=(3, len(tiny.index)))
    zero, once, twice = (gradient_activation(tiny, proteins[:2], baseline=b)[0].values for b in (None, base, 2 * base))
    np.testing.assert_allclose(zero - once, once - twice, rtol=1e-3, atol=1e-5 * np.abs(zero).max())
    assert np.abs(zero - once).max() > 0.01 * np.abs(zero).max()
