"""The piecewise forward pass against the untouched Hugging Face model."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from plmscope.hooks import Change, record, replace
from plmscope.model import Batch, Classifier, load_model
from plmscope.network import Network
from plmscope.sequences import Protein
from plmscope.sites import MODULES, Site
from tests.conftest import save_tiny_model

SHAPES = {
    "esm2": {},
    "esm1b": {"position_embedding_type": "absolute", "emb_layer_norm_before": True, "token_dropout": True},
}


@pytest.fixture(scope="module", params=SHAPES)
def shape(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Classifier:
    return load_model(save_tiny_model(tmp_path_factory.mktemp(request.param), **SHAPES[request.param]))


def test_logits_are_those_of_hugging_face_padded_or_not(shape: Classifier, proteins: list[Protein]) -> None:
    network = Network(shape)
    for budget in (1, 10_000):
        for batch in shape.batches(proteins, budget):
            theirs = shape.model(input_ids=batch.input_ids, attention_mask=batch.attention_mask).logits
            torch.testing.assert_close(network.logits(batch), theirs, atol=2e-5, rtol=1e-5)


def test_activations_are_those_that_hooks_see(shape: Classifier, proteins: list[Protein]) -> None:
    network = Network(shape)
    batch = shape.batch(proteins[:4])
    real = batch.attention_mask.bool()
    with record(shape, shape.index.sites) as seen:
        shape.model(input_ids=batch.input_ids, attention_mask=batch.attention_mask)
    hidden, context = network.embed(batch)
    for layer in range(3):
        state = network.state(layer, hidden, context)
        for module in MODULES:
            ours, theirs = state.activations[module], seen[Site(layer, module)]
            if ours.shape[1] == 1:
                torch.testing.assert_close(ours[:, 0], theirs[:, 0], atol=2e-5, rtol=1e-5)
            else:
                torch.testing.assert_close(ours[real], theirs[real], atol=2e-5, rtol=1e-5)
        hidden = state.middle + state.activations["output"]


def test_resuming_with_the_same_activation_changes_nothing(tiny: Classifier, proteins: list[Protein]) -> None:
    network = Network(tiny)
    batch = tiny.batch(proteins[:4])
    whole = network.logits(batch)
    hidden, context = network.embed(batch)
    for layer in range(3):
        state = network.state(layer, hidden, context)
        for module in MODULES:
            again = network.resume(layer, state, module, state.activations[module], context)
            torch.testing.assert_close(again, whole, atol=1e-5, rtol=1e-5)
        hidden = state.middle + state.activations["output"]


def held_logits(model: Classifier, batch: Batch, keep: np.ndarray, constants: np.ndarray) -> torch.Tensor:
    """Logits of the Hugging Face model with hooks that hold every neuron outside ``keep`` at its three constants."""

    def held(site: Site) -> Change:
        off = torch.from_numpy(~keep[model.index.slice(site)])
        first, last, middle = (torch.from_numpy(c).float() for c in constants[:, model.index.slice(site)])

        def change(a: torch.Tensor) -> torch.Tensor:
            a = a.clone()
            position = torch.arange(a.shape[1]).expand(a.shape[:2])
            place = torch.where((position == 0).unsqueeze(-1), first, middle)
            place = torch.where((position == (batch.lengths - 1).unsqueeze(1)).unsqueeze(-1), last, place)
            a[..., off] = place[..., off]
            return a

        return change

    with replace(model, {site: held(site) for site in model.index.sites}):
        logits: torch.Tensor = model.model(input_ids=batch.input_ids, attention_mask=batch.attention_mask).logits
        return logits


@pytest.mark.parametrize("share", [0.0, 0.1, 0.6, 1.0])
@pytest.mark.parametrize("budget", [1, 10_000])
def test_ablation_is_what_hooks_would_do(shape: Classifier, proteins: list[Protein], share: float, budget: int) -> None:
    """Three constants per neuron (first token, last token, residues), any selection, padded or not."""
    rng = np.random.default_rng(3)
    keep = rng.random(len(shape.index)) < share
    constants = rng.normal(size=(3, len(shape.index)))
    slices = {site: shape.index.slice(site) for site in shape.index.sites}
    network = Network(shape).ablated(keep, constants, slices)
    for batch in shape.batches(proteins, budget):
        theirs = held_logits(shape, batch, keep, constants)
        torch.testing.assert_close(network.logits(batch), theirs, atol=5e-5, rtol=1e-4)


def test_ablating_nothing_is_bit_identical(tiny: Classifier, proteins: list[Protein]) -> None:
    slices = {site: tiny.index.slice(site) for site in tiny.index.sites}
    same = Network(tiny).ablated(np.ones(len(tiny.index), bool), np.ones((3, len(tiny.index))), slices)
    batch = tiny.batch(proteins)
    assert torch.equal(same.logits(batch), Network(tiny).logits(batch))


def test_hooks_are_gone_after_success_and_after_an_exception(tiny_folder: Path, proteins: list[Protein]) -> None:
    model = load_model(tiny_folder)
    batch = model.batch(proteins[:2])
    with record(model, model.index.sites):
        model.model(input_ids=batch.input_ids, attention_mask=batch.attention_mask)

    def broken(a: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("broken")

    with pytest.raises(RuntimeError, match="broken"), replace(model, {Site(0, "key"): broken}):
        model.model(input_ids=batch.input_ids, attention_mask=batch.attention_mask)
    with pytest.raises(KeyError), replace(model, {Site(0, "key"): lambda a: a, Site(0, "no such module"): lambda a: a}):
        pass
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.model.modules())
