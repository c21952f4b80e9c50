"""RelP: exact where the network is linear, elsewhere the same as a network written out with its constants detached."""

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
from plmscope.models.esm import EsmNetwork
from plmscope.models.hooked import Hooked, network_of
from plmscope.models.hooks import record
from plmscope.models.loading import load_model
from plmscope.models.sites import Site
from plmscope.scoring import linear
from plmscope.scoring.linear import attribution_patching, corrupted
from plmscope.scoring.paths import EMBEDDING, activations_and_gradients
from plmscope.scoring.relp import Linearised, relp, stopped
from plmscope.scoring.targets import log_odds
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


def test_the_scale_of_a_layer_norm_is_a_constant() -> None:
    torch.manual_seed(0)
    x = torch.randn(4, 6, requires_grad=True)
    weight, bias, by = torch.randn(6), torch.randn(6), torch.randn(4, 6)
    scale = 1 / (x.detach().var(1, keepdim=True, correction=0) + 0.5).sqrt()  # an eps that is seen
    by_hand = (x - x.mean(1, keepdim=True)) * scale * weight + bias
    with Linearised():
        ruled = torch.nn.functional.layer_norm(x, (6,), weight, bias, 0.5)
    torch.testing.assert_close(ruled, by_hand)
    gradients = [torch.autograd.grad((y * by).sum(), x)[0] for y in (ruled, by_hand)]
    torch.testing.assert_close(*gradients)


Seen = dict[Site, tuple[torch.Tensor, torch.Tensor]]


def by_hand(classifier: Classifier, protein: Protein, constant_attention: bool = False) -> Seen:
    """Activation and gradient ``(T, N)`` of every site, RelP's constants detached, without any of the library's rules.

    Queries and keys are cut off from what makes them, so that they have the gradient of their own attention and what is
    below has none of it. With ``constant_attention`` they have no gradient at all, and are left out.
    """
    model, batch = classifier.model, classifier.batch([protein])
    heads = model.config.num_attention_heads
    seen: dict[Site, torch.Tensor] = {}

    def norm(module: torch.nn.LayerNorm, x: torch.Tensor) -> torch.Tensor:
        scale = (x.var(-1, keepdim=True, correction=0) + module.eps).rsqrt().detach()
        return (x - x.mean(-1, keepdim=True)) * scale * module.weight + module.bias

    def split(x: torch.Tensor) -> torch.Tensor:
        return x.view(len(x), heads, -1).transpose(0, 1)  # (heads, T, d_head)

    def turned(x: torch.Tensor) -> torch.Tensor:
        half = x.shape[-1] // 2
        angle = torch.arange(x.shape[1])[:, None] * 10000.0 ** (-torch.arange(half) / half)
        first, second = x[..., :half], x[..., half:]
        return torch.cat((first * angle.cos() - second * angle.sin(), second * angle.cos() + first * angle.sin()), -1)

    hidden = model.esm.embeddings(input_ids=batch.input_ids, attention_mask=batch.attention_mask)[0].detach()
    seen[EMBEDDING] = hidden.requires_grad_()
    for number, layer in enumerate(model.esm.encoder.layer):
        own = layer.attention.self
        x = norm(layer.attention.LayerNorm, hidden)
        q, k = (module(x).detach().requires_grad_() for module in (own.query, own.key))
        v = own.value(x)
        weights = (turned(split(q)) @ turned(split(k)).transpose(1, 2) / (q.shape[1] / heads) ** 0.5).softmax(-1)
        mixed = ((weights.detach() if constant_attention else weights) @ split(v)).transpose(0, 1).flatten(1)
        attention_output = layer.attention.output.dense(mixed)
        middle = hidden + attention_output
        inner = layer.intermediate.dense(norm(layer.LayerNorm, middle))
        intermediate = inner * (torch.nn.functional.gelu(inner) / inner).detach()
        output = layer.output.dense(intermediate)
        hidden = middle + output
        if not constant_attention:
            seen |= {Site(number, "query"): q, Site(number, "key"): k}
        seen |= {
            Site(number, "value"): v, Site(number, "attention_output"): attention_output,
            Site(number, "intermediate"): intermediate, Site(number, "output"): output,
        }  # fmt: skip
    z = model.classifier.dense(norm(model.esm.encoder.emb_layer_norm_after, hidden)[0])
    logits = model.classifier.out_proj(z * (z.tanh() / z).detach())
    true = classifier.targets([protein])[0]
    odds = logits[true] - torch.cat((logits[:true], logits[true + 1 :])).logsumexp(0)
    gradients = torch.autograd.grad(odds, list(seen.values()))
    return {site: (a.detach(), g) for (site, a), g in zip(seen.items(), gradients, strict=True)}


def test_below_an_attention_layer_its_weights_are_constants(tmp_path: Path, proteins: list[Protein]) -> None:
    one_layer = load_model(save_tiny_model(tmp_path, num_hidden_layers=1))
    protein, network, found = proteins[0], network_of(one_layer), Seen()

    def visit(site: Site, a: torch.Tensor, g: torch.Tensor) -> None:
        found[site] = a[0], g[0]

    hidden, context = network.embed(one_layer.batch([protein]))
    classes = torch.from_numpy(one_layer.targets([protein]))
    with Linearised():
        activations_and_gradients(network, hidden, context, classes, log_odds, visit, stopped)
    expected = by_hand(one_layer, protein, constant_attention=True)
    for site, (_, gradient) in expected.items():
        atol = 1e-4 * float(gradient.abs().max())
        torch.testing.assert_close(found[site][1], gradient[: len(found[site][1])], atol=atol, rtol=1e-4)
    assert found[Site(0, "query")][1].abs().max() > 0 and found[Site(0, "key")][1].abs().max() > 0


@pytest.mark.parametrize("kind", [EsmNetwork, Hooked])
def test_a_whole_network_written_out(
    kind: type, tiny: Classifier, proteins: list[Protein], monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = np.zeros(len(tiny.index))
    some = proteins[:3]  # one a class: the score is their mean
    for protein in some:
        own, away = by_hand(tiny, protein), dict.fromkeys(tiny.index.sites, torch.tensor(0.0))
        for copy in range(2):
            sequence = corrupted(protein.sequence, "conservative", (0, copy, crc32(protein.id.encode())))
            batch = tiny.batch([replace(protein, sequence=sequence)])
            with torch.no_grad(), record(tiny, tiny.index.sites) as seen:
                tiny.model(input_ids=batch.input_ids, attention_mask=batch.attention_mask)
            away = {site: away[site] + seen[site][0] / 2 for site in away}
        for site in tiny.index.sites:
            a, g = own[site]
            expected[tiny.index.slice(site)] += ((a - away[site]) * g).sum(0).numpy() / 3
    monkeypatch.setattr(linear, "network_of", kind)
    found = relp(tiny, some, copies=2)[0].values
    for site in tiny.index.sites:
        part = tiny.index.slice(site)
        atol = 1e-4 * np.abs(expected[part]).max()
        np.testing.assert_allclose(found[part], expected[part], rtol=1e-3, atol=atol, err_msg=str(site))


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
