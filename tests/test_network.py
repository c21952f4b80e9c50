"""The piecewise forward pass against the untouched Hugging Face model."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from plmscope.hooks import record, replace
from plmscope.model import Classifier, load_model
from plmscope.network import Network
from plmscope.sequences import Protein
from plmscope.sites import MODULES, Site
from tests.conftest import save_tiny_model

SHAPES = {
    "esm2": {},
    "esm1b": {"position_embedding_type": "absolute", "emb_layer_norm_before": True, "token_dropout": True},
    "esm1v": {"position_embedding_type": "absolute", "emb_layer_norm_before": False, "token_dropout": True},
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
