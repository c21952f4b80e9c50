"""Every family that has no fast network: the parts against the whole model, the scores against Captum."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from plmscope.cli import main
from plmscope.data.proteins import Protein
from plmscope.evaluation.predict import predict
from plmscope.models.architectures import MODULES
from plmscope.models.classifier import Classifier
from plmscope.models.esm import EsmNetwork
from plmscope.models.hooked import Hooked, network_of
from plmscope.models.hooks import record
from plmscope.models.loading import load_model
from plmscope.models.sites import Neuron, Site
from plmscope.scoring.ablation import single_ablation
from plmscope.scoring.activation import summarise_activations
from plmscope.scoring.conductance import conductance
from plmscope.scoring.integrated_gradients import integrated_gradients
from plmscope.scoring.linear import gradient_activation
from plmscope.study.opened import open_run
from tests.conftest import make_proteins
from tests.families import HOOKED, OLDER
from tests.test_ablation import by_hooks
from tests.test_conductance import captum_scores as captum_conductance
from tests.test_folded import held_logits
from tests.test_integrated_gradients import Nodes, captum_scores
from tests.test_linear import by_hooks as gradients_by_hooks


@pytest.fixture(scope="module", params=HOOKED)
def family(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Classifier:
    return load_model(HOOKED[request.param](tmp_path_factory.mktemp(request.param)))


@pytest.fixture(scope="module")
def few() -> list[Protein]:
    return make_proteins(6, seed=2)


def close(ours: np.ndarray, theirs: np.ndarray, whole: np.ndarray) -> bool:
    """Relative L2 below 1e-4; a site whose scores vanish beside the others' may differ by rounding."""
    return bool(np.linalg.norm(ours - theirs) < 1e-4 * max(np.linalg.norm(theirs), 1e-2 * np.linalg.norm(whole)))


def test_every_classifier_has_a_network(family: Classifier, tiny: Classifier) -> None:
    assert isinstance(network_of(tiny), EsmNetwork)
    assert isinstance(network_of(family), Hooked)


def test_parts_make_the_whole_padded_or_not(family: Classifier, few: list[Protein]) -> None:
    network = network_of(family)
    for budget in (1, 10_000):
        for batch in family.batches(few, budget):
            with record(family, family.index.sites) as seen:
                inputs = {"input_ids": batch.input_ids, "attention_mask": batch.attention_mask}
                theirs = family.model(**inputs).logits
            real = batch.attention_mask.bool()
            torch.testing.assert_close(network.logits(batch), theirs, atol=2e-5, rtol=1e-5)
            hidden, context = network.embed(batch)
            for layer in range(2):
                state = network.state(layer, hidden, context)
                for module in MODULES:
                    activation = state.activations[module]
                    torch.testing.assert_close(activation[real], seen[Site(layer, module)][real], atol=2e-5, rtol=1e-5)
                    again = network.resume(layer, state, module, activation, context)
                    torch.testing.assert_close(again, theirs, atol=2e-5, rtol=1e-5)
                hidden = network.after(state)
            many = context.repeat(3)
            torch.testing.assert_close(network.above(2, hidden.repeat(3, 1, 1), many)[-len(theirs) :], theirs)
    assert theirs.std() > 0.05  # the comparison says something only where logits vary


@pytest.mark.parametrize("baseline", ["zero", "mean"])
def test_integrated_gradients_equal_captum(family: Classifier, few: list[Protein], baseline: str) -> None:
    constants = summarise_activations(family, few).constants("mean") if baseline == "mean" else None
    scores, _ = integrated_gradients(family, few[3:4], points=5, baseline=constants)
    for site in family.index.sites:
        bends = baseline == "zero" and site.module in family.architecture.norms
        theirs = captum_scores(family, few[3], site, 5, constants, "log_odds", around_the_bend(5) if bends else None)
        assert close(scores.values[family.index.slice(site)], theirs, scores.values), site


def around_the_bend(points: int) -> Callable[[torch.Tensor], Nodes]:
    """Nodes that crowd where a layer norm wakes up: alpha = c sinh(t), c = sqrt(eps) / std, written out by hand."""

    def nodes(value: torch.Tensor) -> Nodes:
        x, w = np.polynomial.legendre.leggauss(points)
        a = value[0].double().numpy()  # (T, N)
        c = 1e-5**0.5 / np.exp(np.log(a.std(1)).mean())
        top = np.log(1 / c + np.sqrt(1 / c**2 + 1))
        t = top * (1 + x) / 2
        return c * (np.exp(t) - np.exp(-t)) / 2, top / 2 * w * c * (np.exp(t) + np.exp(-t)) / 2

    return nodes


def on_a_log_scale(value: torch.Tensor) -> Nodes:
    """A trapezoid sum that is finer the nearer to zero: 1,200 places from 1e-7 to 1."""
    alphas = np.concatenate([[0.0], np.geomspace(1e-7, 1, 1200)])
    steps = np.diff(alphas)
    return alphas, (np.append(steps, 0) + np.append(0, steps)) / 2


def test_paths_through_a_norm_are_resolved(tmp_path: Path, few: list[Protein]) -> None:
    """ESM-C normalises queries and keys: from zero, nearly all happens before a hundredth of the way."""
    model = load_model(HOOKED["esmc"](tmp_path))
    scores, _ = integrated_gradients(model, few)
    frame = scores.completeness
    assert frame is not None
    bent = frame["module"].isin(model.architecture.norms)
    assert frame[bent]["settled"].all() and frame[bent]["points"].mean() <= 32
    assert frame[bent]["expected"].abs().mean() > 0.2
    assert frame[bent]["gap"].abs().max() < 0.05  # 0.58 with nodes spread evenly, of which it takes more
    fine, _ = integrated_gradients(model, few[3:4], points=32)
    for site in (Site(0, "query"), Site(1, "key")):
        theirs = captum_scores(model, few[3], site, 0, None, "log_odds", on_a_log_scale)
        ours = fine.values[model.index.slice(site)]
        assert np.linalg.norm(ours - theirs) < 1e-3 * np.linalg.norm(theirs), site


def test_conductance_equals_captum(family: Classifier, few: list[Protein]) -> None:
    scores, *_ = conductance(family, few[3:4], points=4, rule="captum")
    theirs = captum_conductance(family, few[3], 4)
    for site in family.index.sites:
        assert close(scores.values[family.index.slice(site)], theirs[str(site)], scores.values), site


def test_gradient_activation_is_the_product(family: Classifier, few: list[Protein]) -> None:
    scores, *_ = gradient_activation(family, few[3:4])
    activations, gradients = gradients_by_hooks(family, few[3])
    for site in family.index.sites:
        want = (activations[str(site)] * gradients[str(site)]).sum(0)
        assert close(scores.values[family.index.slice(site)], want, scores.values), site


def test_single_ablation_equals_hooks(family: Classifier, few: list[Protein]) -> None:
    scores, *_ = single_ablation(family, few[3:4], sample=24, token_budget=500)
    for position in np.flatnonzero(np.isfinite(scores.values))[::3]:
        neuron: Neuron = family.index.neuron(int(position))
        assert scores.values[position] == pytest.approx(by_hooks(family, few[3], neuron, None), abs=2e-4), neuron


@pytest.mark.parametrize("share", [0.0, 0.4, 1.0])
def test_ablation_is_what_hooks_would_do(family: Classifier, few: list[Protein], share: float) -> None:
    rng = np.random.default_rng(3)
    keep = rng.random(len(family.index)) < share
    constants = rng.normal(size=(3, len(family.index)))
    slices = {site: family.index.slice(site) for site in family.index.sites}
    network = network_of(family).ablated(keep, constants, slices)
    for batch in family.batches(few, 150):
        theirs = held_logits(family, batch, keep, constants)
        torch.testing.assert_close(network.logits(batch), theirs, atol=5e-5, rtol=1e-4)


def test_batches_and_threads_do_not_matter(family: Classifier, few: list[Protein]) -> None:
    one = integrated_gradients(family, few, points=3, token_budget=1)[0].values
    all_ = integrated_gradients(family, few, points=3, token_budget=10_000)[0].values
    np.testing.assert_allclose(all_, one, atol=2e-5 * np.abs(one).max())
    rng = np.random.default_rng(5)
    pairs = [(rng.random(len(family.index)) < 0.5, np.zeros((3, len(family.index)))) for _ in range(4)]
    found = [list(predict(family, few, pairs, budget)) for budget in (60, 10_000)]
    torch.set_num_threads(3)
    try:
        found.append(list(predict(family, few, pairs)))
    finally:
        torch.set_num_threads(1)
    for other in found[1:]:
        for a, b in zip(found[0], other, strict=True):
            np.testing.assert_allclose(a.log_prob_true, b.log_prob_true, atol=1e-4)


def test_layers_that_run_again_give_the_same(family: Classifier, few: list[Protein]) -> None:
    for scorer in (conductance, integrated_gradients):
        plain, again = (scorer(family, few, points=2, recompute=recompute)[0].values for recompute in (False, True))
        np.testing.assert_allclose(again, plain, rtol=0, atol=1e-6 * np.abs(plain).max())


def test_no_hook_stays(family: Classifier, few: list[Protein]) -> None:
    def hooks() -> int:
        return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in family.model.modules())

    before = hooks()
    network = network_of(family)
    network.logits(family.batch(few[:2]))
    assert hooks() == before == (2 if family.pooling == "mean" else 0)


@pytest.mark.parametrize("name", OLDER)
def test_attributions_of_the_older_esms_equal_captum(name: str, few: list[Protein], tmp_path: Path) -> None:
    model = load_model(OLDER[name](tmp_path))
    assert isinstance(network_of(model), EsmNetwork)
    scores, _ = integrated_gradients(model, few[3:4], points=5)
    path, *_ = conductance(model, few[3:4], points=4, rule="captum")
    theirs = captum_conductance(model, few[3], 4)
    for site in model.index.sites:
        own = model.index.slice(site)
        assert close(scores.values[own], captum_scores(model, few[3], site, 5, None, "log_odds"), scores.values), site
        assert close(path.values[own], theirs[str(site)], path.values), site


# --- the whole study

STUDY = """\
name = "tiny"
[data]
path = "{data}"
[split]
method = "random"
train = 0.5
validation = 0.25
test = 0.25
[model]
checkpoint = "{model}"
[finetune]
epochs = 2
{lora}
[score]
methods = ["activation_std", "integrated_gradients", "conductance"]
proteins_per_class = 2
points = 2
conductance_points = 2
[evaluate]
fractions = [0.1, 0.5]
draws = 2
draws_elsewhere = 2
scopes = ["pooled"]
controls = ["random_matched"]
[density]
fractions = [0.1]
bootstraps = 2
nulls = {nulls}
[characterize]
min_proteins = 2
concepts = ["amino acid", "class"]
[intervene]
fraction = 0.1
draws = 2
factors = [2.0]
neurons = 2
proteins_per_class = 2
"""


@pytest.mark.parametrize(("name", "lora"), [("esmc", "lora_rank = 2"), ("protbert", ""), ("esm1b", ""), ("esm1v", "")])
def test_the_whole_study(name: str, lora: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """From a table to the report: ESM-C with LoRA adapters, ProtBert with residues read as X (ESM-2: golden run)."""
    letters = np.array(list("ACDEFGHIKLMNPQRSTVWYU"))
    rng = np.random.default_rng(1)
    rows = [f"p{i}\t{i % 2 + 1}.1.1.1\t{''.join(rng.choice(letters, 31 + i))}" for i in range(12)]
    (tmp_path / "data.tsv").write_text("\n".join(["id\tec\tsequence", *rows]) + "\n")
    model = (HOOKED | OLDER)[name](tmp_path / "model")
    settings = {"model": model, "lora": lora, "nulls": '["random_weights"]' if lora else "[]"}
    (tmp_path / "study.toml").write_text(STUDY.format(data=tmp_path / "data.tsv", **settings))
    assert main(["run", str(tmp_path / "study.toml"), "--out", str(tmp_path / "run")]) == 0
    said, run = capfd.readouterr().err, open_run(tmp_path / "run")
    manifest = run.run.manifest()["model"]
    assert manifest["architecture"] == run.model.architecture.model_type == {
        "esmc": "esmc", "protbert": "bert",
    }.get(name, "esm")  # fmt: skip
    assert {"config.json", "model.safetensors"} < set(manifest["files"])
    rare = "23 residues of 9 proteins are read as X (one of U, Z, O, B)"
    assert (rare in said) == (rare in manifest["read_as_x"]) == (name == "protbert")
    assert len(run.run.table("neurons")) == manifest["neurons"] == 2 * (5 * 24 + (48 if name in OLDER else 40))
    assert np.isfinite(run.scores("conductance").values).all()
    curves = run.run.table("curves")
    assert curves[["balanced_accuracy", "log_loss"]].notna().all(axis=None) and curves["log_loss"].nunique() > 10
    associations, cards = run.run.table("associations"), run.run.table("neuron_cards")
    assert len(associations) >= manifest["neurons"] and associations["auroc"].between(0, 1).all() and len(cards)
    assert (tmp_path / "run" / "report.html").stat().st_size > 100_000
