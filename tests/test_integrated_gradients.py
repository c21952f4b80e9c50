"""Integrated gradients against Captum, against their law, and against how the work is cut up."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from captum.attr import IntegratedGradients

from plmscope.data.proteins import Protein, read_proteins
from plmscope.errors import InputError, SelectionError
from plmscope.evaluation.density import precision_agreement
from plmscope.models.checkpoints import EMBEDDED
from plmscope.models.classifier import Classifier
from plmscope.models.hooks import record, replace
from plmscope.models.loading import load_model
from plmscope.models.sites import Site
from plmscope.scoring import integrated_gradients as gradients
from plmscope.scoring.activation import summarise_activations
from plmscope.scoring.integrated_gradients import integrated_gradients
from plmscope.scoring.methods import score
from plmscope.scoring.paths import settled
from plmscope.scoring.targets import TARGETS, log_odds
from tests.conftest import LABELS, make_proteins, save_tiny_model

Nodes = tuple[np.ndarray, np.ndarray]


def captum_scores(
    model: Classifier,
    protein: Protein,
    site: Site,
    points: int,
    constants: np.ndarray | None,
    target: str,
    nodes: Callable[[torch.Tensor], Nodes] | None = None,
) -> np.ndarray:
    """Token sums ``(N,)`` by Captum's IntegratedGradients on the hooked activation of the Hugging Face model.

    Gauss-Legendre, or at the places and with the weights that ``nodes`` gives for the activation.
    """
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

    if nodes is not None:
        alphas, weights = nodes(value)
        (got,) = IntegratedGradients(forward)._attribute(
            (value,), (start,), n_steps=len(alphas), step_sizes_and_alphas=(weights.tolist(), alphas.tolist())
        )
        return got.sum(1)[0].detach().numpy()
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
    assert not coarse["settled"].all() and fine["settled"].mean() > coarse["settled"].mean()  # judged by the gap


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


def test_targets_are_in_float32_whatever_the_model_is_in() -> None:
    logits, classes = torch.tensor([[2.03, -1.07, 0.51]]).bfloat16(), torch.tensor([0])
    for task in TARGETS.values():
        for target in task.values():
            assert torch.equal(target(logits, classes), target(logits.float(), classes))


def test_impossible_requests_are_refused(tiny: Classifier, proteins: list[Protein]) -> None:
    with pytest.raises(SelectionError, match="points = -1"):
        integrated_gradients(tiny, proteins, points=-1)
    with pytest.raises(SelectionError, match="tolerance = 0"):
        integrated_gradients(tiny, proteins, tolerance=0)
    with pytest.raises(SelectionError, match="shared = 2"):
        integrated_gradients(tiny, proteins, shared=2)
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


def test_points_are_found_and_sharp_attention_takes_more(tiny: Classifier, tmp_path: Path) -> None:
    """Smooth and sharp nets, the same tolerance: what comes out is as good as asked, against 128 points each."""
    sharp = load_model(save_tiny_model(tmp_path, scale=25))
    many = make_proteins(2, seed=2, low=12, high=20)
    used = {}
    for name, model in (("smooth", tiny), ("sharp", sharp)):
        scores, _ = integrated_gradients(model, many, tolerance=0.02)
        reference, _ = integrated_gradients(model, many, points=128)
        frame = scores.completeness
        assert frame is not None
        used[name] = scores.settings["mean_points"]
        assert frame["points"].mean() == used[name] and scores.settings["unsettled"] == (~frame["settled"]).mean()
        total = np.linalg.norm(reference.values)
        assert np.linalg.norm(scores.values - reference.values) < 0.05 * total, name
        # as many points as a smooth net needs are not enough for a sharp one, and fixed points would not have told
        if name == "sharp":
            few, _ = integrated_gradients(model, many, points=round(used["smooth"]))
            assert np.linalg.norm(few.values - reference.values) > 0.5 * total
    assert used["smooth"] == 8 and used["sharp"] > 16


def test_settled_sees_a_gap_and_a_changed_ranking() -> None:
    now = np.array([[9.0, 1, *[0.0] * 18]])  # the best 5 % of 20 are one neuron
    assert settled(now, now, np.array([0.0]), 0.05).all()
    assert settled(now, now, np.array([0.4]), 0.05).all()
    assert not settled(now, now, np.array([0.6]), 0.05).any()  # 6 % of the total of 10
    assert not settled(now, now[:, ::-1], np.array([0.0]), 0.05).any()
    assert settled(now * 1e-6, now[:, ::-1] * 1e-6, np.array([1e-6]), 0.05).all()  # nothing is at stake


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA out of memory."), MemoryError()])
def test_a_batch_that_does_not_fit_is_split(
    tiny: Classifier, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    """Fewer proteins first, then fewer points at once; the scores are the same."""
    many = make_proteins(5, seed=5, low=20, high=22)
    reference, _ = integrated_gradients(tiny, many, points=4, token_budget=1000)
    real, sizes = gradients._attribute, []

    def small(network, batch, classes, path, n_neurons):  # type: ignore[no-untyped-def]
        sizes.append((len(batch.rows), path.token_budget))
        if len(batch.rows) > 1 or path.token_budget > 300:
            raise error
        return real(network, batch, classes, path, n_neurons)

    monkeypatch.setattr(gradients, "_attribute", small)
    scores, _ = integrated_gradients(tiny, many, points=4, token_budget=1000)
    np.testing.assert_allclose(scores.values, reference.values, atol=2e-5 * np.abs(reference.values).max())
    assert scores.completeness is not None and len(scores.completeness) == 5 * len(tiny.index.sites)
    assert (5, 1000) in sizes and (1, 1000) in sizes and sizes.count((1, 250)) == 5


def test_low_precision_ranks_neurons_nearly_as_float32_does(tiny: Classifier, tiny_folder: Path) -> None:
    """Every scorer runs in bfloat16, and says how far it agrees."""
    low = load_model(tiny_folder, dtype="bfloat16")
    many = make_proteins(6, seed=2)
    quick = {"conductance": {"points": 16}, "integrated_gradients": {"points": 4}, "single_ablation": {}}
    methods = [*quick, "gradient_activation", "attribution_patching", "activation_std"]
    ours, theirs = ([score(m, many, method, **quick.get(method, {})) for method in methods] for m in (low, tiny))
    found = precision_agreement(ours, theirs)
    assert list(found) == methods and found["integrated_gradients"]["spearman"] < 1
    for method, row in found.items():
        assert 0.9 < row["spearman"] <= 1, method
        assert 0.8 < row["overlap"] <= 1, method
