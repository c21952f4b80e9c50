"""RelP: exact where the network is linear, the same through Hugging Face's layers, near the truth where it is not."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from zlib import crc32

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr

from plmscope.data.proteins import Protein
from plmscope.models.classifier import Classifier
from plmscope.models.hooked import Hooked, network_of
from plmscope.models.loading import load_model
from plmscope.models.sites import Site
from plmscope.scoring import linear
from plmscope.scoring.linear import attribution_patching, corrupted
from plmscope.scoring.relp import Linearised, relp
from tests.conftest import save_tiny_model
from tests.families import HOOKED


@pytest.fixture(scope="module")
def straight(tmp_path_factory: pytest.TempPathFactory) -> Classifier:
    """A network whose every non-linearity is all but straight: wide norms, open GELUs, fixed attention."""
    folder = save_tiny_model(tmp_path_factory.mktemp("straight"), layer_norm_eps=1e8, num_hidden_layers=2)
    classifier = load_model(folder)
    with torch.no_grad():
        for name, parameter in classifier.model.named_parameters():
            if "LayerNorm.weight" in name or "layer_norm_after.weight" in name:
                parameter.fill_(1e4)
            elif "query.weight" in name or "key.weight" in name:
                parameter.zero_()
            elif name.endswith("intermediate.dense.bias"):
                parameter.fill_(1e3)
            elif name.startswith("classifier.dense"):
                parameter.mul_(1e-6)
            elif name == "classifier.out_proj.weight":
                parameter.mul_(1e6)
    return classifier


def test_exact_without_nonlinearity(straight: Classifier) -> None:
    protein = Protein("p", "MKWVTFISLLFLFSSAYS", "2")
    found = relp(straight, [protein], copies=1, target="logit")[0]
    network = network_of(straight)
    twin = replace(protein, sequence=corrupted(protein.sequence, "conservative", (0, 0, crc32(b"p"))))
    ours, theirs = (straight.batch([one]) for one in (protein, twin))
    with torch.no_grad():
        for layer in range(2):
            states = []
            for batch in (ours, theirs):
                hidden, context = network.embed(batch)
                for number in range(layer):
                    hidden = network.after(network.state(number, hidden, context))
                states.append(network.state(layer, hidden, context))
            for module in ("value", "attention_output", "intermediate", "output"):
                after = network.resume(layer, states[0], module, states[1].activations[module], context)
                before = network.logits(ours)
                change = float((before - after)[0, 1])
                got = found.values[straight.index.slice(Site(layer, module))].sum()
                assert got == pytest.approx(change, rel=2e-2, abs=1e-3 * abs(float(before[0, 1]))), (layer, module)


def test_values_stay_and_gradients_follow_the_rules() -> None:
    x = torch.tensor([-1.0, 0.5, 2.0], requires_grad=True)
    y = torch.tensor([3.0, 4.0, 5.0], requires_grad=True)
    plain = torch.nn.functional.silu(x) * y
    with Linearised():
        ruled = torch.nn.functional.silu(x) * y
        gelu = torch.nn.functional.gelu(x)
        normed = torch.nn.functional.layer_norm(x, (3,))
    torch.testing.assert_close(ruled, plain)
    torch.testing.assert_close(gelu, torch.nn.functional.gelu(x))
    torch.testing.assert_close(normed, torch.nn.functional.layer_norm(x, (3,)))
    by_x, by_y = torch.autograd.grad(ruled.sum(), (x, y), retain_graph=True)
    torch.testing.assert_close(by_x * x, ruled / 2)  # half of the relevance to either factor
    torch.testing.assert_close(by_y * y, ruled / 2)
    (by_x,) = torch.autograd.grad(gelu.sum(), x)
    torch.testing.assert_close(by_x * x, gelu)  # all of it, where there is one factor


def test_the_same_through_hooks(tiny: Classifier, proteins: list[Protein], monkeypatch: pytest.MonkeyPatch) -> None:
    ours = relp(tiny, proteins[:3])[0].values
    monkeypatch.setattr(linear, "network_of", Hooked)
    theirs = relp(tiny, proteins[:3])[0].values
    last = [site for site in tiny.index.sites if site.layer == 2]
    same = np.ones(len(tiny.index), dtype=bool)
    for site in last:
        same[tiny.index.slice(site)] = site.module in ("key", "value")
    scale = np.abs(ours).max()
    np.testing.assert_allclose(ours, theirs, atol=2e-4 * scale)
    assert spearmanr(ours, attribution_patching(tiny, proteins[:3])[0].values).statistic < 0.999
    keys = np.concatenate([ours[tiny.index.slice(site)] for site in tiny.index.sites if site.module == "key"])
    assert np.abs(keys).max() > 0


@pytest.mark.parametrize("name", ["esmc", "protbert"])
def test_other_architectures(name: str, tmp_path: Path, proteins: list[Protein]) -> None:
    classifier = load_model(HOOKED[name](tmp_path))
    found = relp(classifier, proteins[:2])[0]
    assert np.isfinite(found.values).all() and np.abs(found.values).max() > 0
