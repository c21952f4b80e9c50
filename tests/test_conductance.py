"""Conductance against Captum's LayerConductance, against its law, and against its own error estimate."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from captum.attr import LayerConductance

from plmscope.data.proteins import Protein
from plmscope.errors import SelectionError
from plmscope.models.classifier import Classifier
from plmscope.models.hooked import network_of
from plmscope.models.hooks import module_of
from plmscope.models.loading import load_model
from plmscope.scoring import conductance as conductance_module
from plmscope.scoring.conductance import conductance, path_start
from plmscope.scoring.targets import log_odds
from tests.conftest import save_tiny_model


def captum_scores(model: Classifier, protein: Protein, steps: int) -> dict[str, np.ndarray]:
    """Token sums by Captum, one call per site, on the Hugging Face model with the embedding output put in by a hook."""
    batch = model.batch([protein])
    network = network_of(model)
    with torch.no_grad():
        end, _ = network.embed(batch)
    start = path_start(network, batch, [model.encode(letter)[1] for letter in "ACDEFGHIKLMNPQRSTVWY"], "mean_embedding")
    classes = torch.tensor(model.targets([protein]))

    def forward(hidden: torch.Tensor) -> torch.Tensor:
        n = len(hidden)
        handle = model.model.get_submodule(model.architecture.embeddings).register_forward_hook(lambda *_: hidden)
        try:
            ids, mask = batch.input_ids.repeat(n, 1), batch.attention_mask.repeat(n, 1)
            logits = model.model(input_ids=ids, attention_mask=mask).logits
        finally:
            handle.remove()
        return log_odds(logits, classes.repeat(n))

    found = {}
    for site in model.index.sites:
        layer, place = module_of(model, site)
        got = LayerConductance(forward, layer).attribute(
            end, start, n_steps=steps, attribute_to_layer_input=place.side == "input"
        )
        found[str(site)] = got.sum(1)[0].detach().numpy()
    return found


def test_captum_rule_equals_captum_at_every_site(tiny: Classifier, proteins: list[Protein]) -> None:
    protein = proteins[4]
    scores, *_ = conductance(tiny, [protein], points=6, rule="captum")
    theirs = captum_scores(tiny, protein, 6)
    for site in tiny.index.sites:
        ours = scores.values[tiny.index.slice(site)]
        assert np.linalg.norm(ours - theirs[str(site)]) < 1e-4 * np.linalg.norm(theirs[str(site)]), site


def test_both_rules_meet(tiny: Classifier, proteins: list[Protein]) -> None:
    fine, *_ = conductance(tiny, proteins[:3], points=256)
    captum, *_ = conductance(tiny, proteins[:3], points=600, rule="captum")
    assert np.linalg.norm(fine.values - captum.values) < 0.05 * np.linalg.norm(fine.values)


def test_the_embedding_output_sums_to_the_change_of_the_target(tiny: Classifier, proteins: list[Protein]) -> None:
    frame = conductance(tiny, proteins, points=256)[0].completeness
    assert frame is not None and frame["expected"].abs().mean() > 0.05
    assert frame["gap"].abs().max() < 0.02 * frame["expected"].abs().max()


def test_the_error_estimate_is_about_right(tiny: Classifier, proteins: list[Protein]) -> None:
    reference, *_ = conductance(tiny, proteins[:4], points=512)
    coarse, *_ = conductance(tiny, proteins[:4], points=64)
    true = np.linalg.norm(coarse.values - reference.values) / np.linalg.norm(reference.values)
    assert true / 4 < coarse.settings["error"] < 4 * true


def test_intermediate_and_output_sums_agree(tiny: Classifier, proteins: list[Protein]) -> None:
    """The output is an affine map of the intermediate activation, so both carry the same change."""
    scores, *_ = conductance(tiny, proteins[:3], points=32)
    sites = tiny.index.split(scores.values)
    for inner, outer in [(a, b) for a in sites for b in sites if a.layer == b.layer]:
        if (inner.module, outer.module) == ("intermediate", "output"):
            assert sites[inner].sum() == pytest.approx(sites[outer].sum(), rel=1e-3, abs=1e-5)


def test_chunks_and_batches_do_not_matter(tiny: Classifier, proteins: list[Protein]) -> None:
    reference = conductance(tiny, proteins, points=8, token_budget=100_000)[0]
    for budget in (1, 150, 700):
        other = conductance(tiny, proteins, points=8, token_budget=budget)[0]
        np.testing.assert_allclose(other.values, reference.values, atol=1e-4 * np.abs(reference.values).max())
        assert other.settings["error"] == pytest.approx(reference.settings["error"], rel=1e-2)


def test_points_are_found_and_states_used_again(
    tiny: Classifier, proteins: list[Protein], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Doubling costs only the new states while the old ones fit; the result is that of the same fixed number."""
    computed = []
    real = conductance_module.activations_and_gradients

    def counted(network, hidden, *others):  # type: ignore[no-untyped-def]
        computed.append(len(hidden))
        real(network, hidden, *others)

    monkeypatch.setattr(conductance_module, "activations_and_gradients", counted)
    found, *_ = conductance(tiny, proteins[:1], tolerance=0.002, token_budget=100_000)
    assert found.completeness is not None
    (points,) = found.completeness["points"]
    assert points > 16 and found.completeness["settled"].all()
    assert sum(computed) == points + 1
    computed.clear()
    fixed, *_ = conductance(tiny, proteins[:1], points=int(points))
    np.testing.assert_allclose(found.values, fixed.values, atol=1e-5 * np.abs(fixed.values).max())
    computed.clear()
    tight, *_ = conductance(tiny, proteins[:1], tolerance=0.002, token_budget=9 * (len(proteins[0]) + 2))
    assert sum(computed) > points + 1  # the finer grids do not fit, so that all of their states are new
    np.testing.assert_allclose(tight.values, fixed.values, atol=1e-4 * np.abs(fixed.values).max())


def test_sharp_attention_takes_more_points(tiny: Classifier, proteins: list[Protein], tmp_path: Path) -> None:
    sharp = load_model(save_tiny_model(tmp_path, scale=25))
    (smooth, _), (rough, _) = (conductance(model, proteins[:3]) for model in (tiny, sharp))
    assert rough.settings["mean_points"] >= 2 * smooth.settings["mean_points"]
    reference, *_ = conductance(sharp, proteins[:3], points=512)
    assert np.linalg.norm(rough.values - reference.values) < 0.1 * np.linalg.norm(reference.values)


def test_impossible_requests_are_refused(tiny: Classifier, proteins: list[Protein]) -> None:
    with pytest.raises(SelectionError, match="points = 3: must be even"):
        conductance(tiny, proteins, points=3)
    with pytest.raises(SelectionError, match="Captum's rule has no estimate"):
        conductance(tiny, proteins, rule="captum")
    with pytest.raises(SelectionError, match="rule 'simpson' is not known"):
        conductance(tiny, proteins, rule="simpson")


def test_the_mean_embedding_is_summed_in_float32(tmp_path: Path) -> None:
    model = load_model(save_tiny_model(tmp_path / "model"), dtype="bfloat16")
    network, batch = network_of(model), model.batch([Protein("P", "MKVLAC", "1")])
    letters = [model.encode(letter)[1] for letter in "ACDEFGHIKLMNPQRSTVWY"]
    start = path_start(network, batch, letters, "mean_embedding")
    assert start.dtype == torch.bfloat16
    each = []
    for letter in letters:
        ids = torch.where(batch.residue_mask, letter, batch.input_ids)
        with torch.no_grad():
            each.append(network.embed(replace(batch, input_ids=ids))[0].double())
    error = (start.double() - torch.stack(each).mean(0))[batch.residue_mask].abs().max()
    assert error <= 2**-8 * torch.stack(each).mean(0).abs().max()  # one rounding
    exact = torch.stack(each).mean(0).bfloat16()
    assert (start == exact)[batch.residue_mask].double().mean() > 0.98
