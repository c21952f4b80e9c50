"""The piecewise forward pass against the untouched Hugging Face model."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace as replace_fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from plmscope.data.proteins import Protein
from plmscope.explaining.contributions import contributions
from plmscope.explaining.decision import Decision
from plmscope.models import hooked
from plmscope.models.architectures import MODULES
from plmscope.models.classifier import Classifier
from plmscope.models.esm import EsmNetwork
from plmscope.models.hooked import Hooked, network_of
from plmscope.models.hooks import record, replace
from plmscope.models.loading import load_model
from plmscope.models.network import BatchContext, LayerState, Network, scaled_logits
from plmscope.models.sites import Site
from plmscope.models.workers import LAST_RESORT
from plmscope.scoring import integrated_gradients as gradients
from plmscope.scoring.conductance import conductance
from plmscope.scoring.integrated_gradients import integrated_gradients
from plmscope.scoring.methods import SCORERS
from plmscope.scoring.paths import activations_and_gradients
from plmscope.scoring.scores import NeuronScores
from plmscope.scoring.targets import log_odds
from tests.conftest import make_proteins, save_tiny_model

SHAPES = {
    "esm2": {},
    "esm1b": {"position_embedding_type": "absolute", "emb_layer_norm_before": True, "token_dropout": True},
    "esm1v": {"position_embedding_type": "absolute", "emb_layer_norm_before": False, "token_dropout": True},
}


@pytest.fixture(scope="module", params=SHAPES)
def shape(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Classifier:
    return load_model(save_tiny_model(tmp_path_factory.mktemp(request.param), **SHAPES[request.param]))


def test_logits_are_those_of_hugging_face_padded_or_not(shape: Classifier, proteins: list[Protein]) -> None:
    network = EsmNetwork(shape)
    for budget in (1, 10_000):
        for batch in shape.batches(proteins, budget):
            theirs = shape.model(input_ids=batch.input_ids, attention_mask=batch.attention_mask).logits
            torch.testing.assert_close(network.logits(batch), theirs, atol=2e-5, rtol=1e-5)


def test_activations_are_those_that_hooks_see(shape: Classifier, proteins: list[Protein]) -> None:
    network = EsmNetwork(shape)
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
    network = EsmNetwork(tiny)
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


def test_nothing_is_made_on_another_device(tiny: Classifier, proteins: list[Protein]) -> None:
    """On the meta device, where tensors have no values: one that is left on the CPU does not mix with the others."""
    meta = torch.device("meta")
    moved = replace_fields(tiny, model=copy.deepcopy(tiny.model).to(meta))
    network = EsmNetwork(moved)
    hidden, context = EsmNetwork(tiny).embed(tiny.batch(proteins[:3]))
    assert context.rotary is not None and context.mask is not None
    cos, sin = (part.to(meta) for part in context.rotary)
    context = replace_fields(context, rotary=(cos, sin), mask=context.mask.to(meta), ends=context.ends.to(meta))
    hidden, classes = hidden.to(meta), torch.zeros(3, dtype=torch.long, device=meta)
    seen = {}
    activations_and_gradients(network, hidden, context, classes, log_odds, lambda *one: seen.update({one[0]: one[1:]}))
    assert len(seen) == 19 and {x.device for pair in seen.values() for x in pair} == {meta}
    slices = {site: tiny.index.slice(site) for site in tiny.index.sites}
    means = torch.zeros(3, len(tiny.index), device=meta)
    for base, layer in ((None, 0), (means, 2)):
        path = gradients._Path(2, 0.05, log_odds, base, slices, 10_000)
        state = network.state(layer, hidden, context)
        for module in MODULES:
            start = gradients._start(state.activations[module], path, Site(layer, module), context)
            found = gradients._gradient(network, layer, state, module, start, context, classes, path, 2, None)
            assert found.device == meta and found.shape == state.activations[module].shape
        both = gradients._query_and_key(network, layer, state, context, classes, path, 2)
        assert {x.device for x in both.values()} == {meta}


@pytest.mark.parametrize("scorer", [conductance, integrated_gradients])
def test_layers_run_again_where_asked_and_where_nothing_else_fits(
    scorer: Callable[..., tuple[NeuronScores, ...]],
    tiny: Classifier,
    proteins: list[Protein],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    real, ran = EsmNetwork.state, list[int]()

    def watched(self: EsmNetwork, number: int, hidden: torch.Tensor, context: BatchContext) -> LayerState:
        ran.append(number)
        return real(self, number, hidden, context)

    def scores(**settings: Any) -> tuple[list[int], np.ndarray]:
        ran.clear()
        found = scorer(tiny, proteins[:1], points=2, **settings)[0].values
        return list(ran), found

    monkeypatch.setattr(EsmNetwork, "state", watched)
    plain, expected = scores()
    asked, values = scores(recompute=True)
    tight, others = scores(token_budget=LAST_RESORT)
    assert "2, 1, 0" in str(asked) or scorer is integrated_gradients  # backwards, a graph of its own for each
    assert len(asked) > len(plain) and len(tight) >= len(asked)
    for found in (values, others):
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


class Third:
    """A network with nothing but what the protocol asks for: callers that want more fail."""

    def __init__(self, classifier: Classifier, recompute: bool = False) -> None:
        within = Hooked(classifier, recompute=recompute)
        for name in vars(Network):
            if not name.startswith("_"):
                setattr(self, name, getattr(within, name))

    @staticmethod
    def fits(classifier: Classifier) -> bool:
        return True


def test_a_third_network_needs_no_caller_to_know_it(tiny, monkeypatch):
    proteins, mask = make_proteins(4), np.arange(len(tiny.index)) % 3 == 0
    methods = ("integrated_gradients", "conductance", "attribution_patching", "single_ablation")

    def answers() -> list[np.ndarray]:
        scores = [one.values for name in methods for one in SCORERS[name](tiny, proteins)]
        network, slices = network_of(tiny), {site: tiny.index.slice(site) for site in tiny.index.sites}
        batches = tiny.batches(proteins)
        held = network.held_logits(batches, slices)(mask, np.ones((3, len(mask))))
        logits = [
            torch.cat([one for _, one in many]) for many in (held, scaled_logits(network, batches, slices, mask, 2))
        ]
        decision = Decision.of(tiny, network, proteins[0])
        return [*scores, *(one.detach().numpy() for one in logits), contributions(decision, None).values]

    monkeypatch.setattr(hooked, "NETWORKS", (Third, EsmNetwork))
    third = answers()
    monkeypatch.setattr(hooked, "NETWORKS", (Hooked, EsmNetwork))
    for one, other in zip(third, answers(), strict=True):
        np.testing.assert_array_equal(one, other)
