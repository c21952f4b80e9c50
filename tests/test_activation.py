"""Every activation statistic against a plain loop over the Hugging Face model, protein by protein."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from plmscope.data.proteins import Protein
from plmscope.errors import InputError, SelectionError
from plmscope.models.classifier import Classifier
from plmscope.models.loading import load_model
from plmscope.models.sites import Site
from plmscope.scoring.activation import METHODS, activation_scores, summarise_activations
from plmscope.scoring.scores import check_ranking
from tests.conftest import LABELS, make_proteins

PATHS = {
    "query": "attention.self.query", "key": "attention.self.key", "value": "attention.self.value",
    "attention_output": "attention.output.dense", "intermediate": "intermediate", "output": "output.dense",
}  # fmt: skip


KNOWN: dict[str, np.ndarray] = {}  # by sequence; the loops look at one model, at the same few proteins


def activations(model: Classifier, protein: Protein) -> np.ndarray:
    """``(T, N)`` of one protein, by the tokenizer and PyTorch's own hooks."""
    if protein.sequence in KNOWN:
        return KNOWN[protein.sequence]
    seen: dict[Site, np.ndarray] = {}

    def look(site: Site):  # type: ignore[no-untyped-def]
        return lambda module, args, output: seen.__setitem__(site, output[0].double().numpy())

    layers = model.model.esm.encoder.layer
    handles = [
        layers[site.layer].get_submodule(PATHS[site.module]).register_forward_hook(look(site))
        for site in model.index.sites
    ]
    with torch.no_grad():
        model.model(**model.tokenizer(protein.sequence, return_tensors="pt"))
    for handle in handles:
        handle.remove()
    KNOWN[protein.sequence] = np.concatenate([seen[site] for site in model.index.sites], axis=1)
    return KNOWN[protein.sequence]


def by_loop(model: Classifier, proteins: list[Protein]) -> dict[str, np.ndarray]:
    """The three scores, written down as definitions say them."""
    residues = [activations(model, p)[1:-1] for p in proteins]  # specials are no residues
    absolute = np.mean([np.abs(a).mean(0) for a in residues], axis=0)
    mean = np.mean([a.mean(0) for a in residues], axis=0)
    deviation = np.sqrt(np.mean([((a - mean) ** 2).mean(0) for a in residues], axis=0))
    own = np.array([a.mean(0) for a in residues])  # (P, N)
    labels = np.array([p.label for p in proteins])
    contrasts = []
    for label in sorted(set(labels)):
        one, rest = own[labels == label], own[labels != label]
        pooled = ((one - one.mean(0)) ** 2).sum(0) + ((rest - rest.mean(0)) ** 2).sum(0)
        contrasts.append(np.abs(one.mean(0) - rest.mean(0)) / np.sqrt(pooled / (len(own) - 2)))
    return {"activation": absolute, "activation_std": deviation, "activation_contrast": np.max(contrasts, axis=0)}


def constants_by_loop(model: Classifier, proteins: list[Protein]) -> np.ndarray:
    """``(3, N)``: per class the mean over its proteins, then the plain mean of the classes."""
    classes = []
    for label in sorted({p.label for p in proteins}):
        tokens = [activations(model, p) for p in proteins if p.label == label]
        classes.append(np.mean([[a[0], a[-1], a[1:-1].mean(0)] for a in tokens], axis=0))
    return np.mean(classes, axis=0)


@pytest.fixture(scope="module")
def uneven() -> list[Protein]:
    """Eleven proteins: 6 of class 1, 3 of class 2, 2 of class 3."""
    labels = [*"11111122233"]
    return [Protein(p.id, p.sequence, label) for p, label in zip(make_proteins(11, seed=8), labels, strict=True)]


@pytest.fixture(scope="module")
def with_constants(tiny_folder: Path) -> Classifier:
    """Five keys of the first layer do not depend on the protein; 16 constants are 0.5, 30, 1000, -1000 and 0."""
    model = load_model(tiny_folder)
    key = model.model.esm.encoder.layer[0].attention.self.key
    key.weight[:5], key.bias[:5] = 0, torch.tensor([0.5, 30, 1000, -1000, 0])
    return model


def test_scores_are_those_of_a_plain_loop(tiny: Classifier, uneven: list[Protein]) -> None:
    wanted = by_loop(tiny, uneven)
    found = activation_scores(tiny, uneven)
    assert tuple(one.method for one in found) == METHODS == tuple(wanted)
    for one in found:
        np.testing.assert_allclose(one.values, wanted[one.method], rtol=1e-4, atol=1e-6)
        assert one.proteins == tuple(p.id for p in uneven)


def test_class_scores_are_those_of_a_plain_loop(tiny: Classifier, uneven: list[Protein]) -> None:
    absolute, deviation, contrast = activation_scores(tiny, uneven)
    for label in LABELS:
        residues = [activations(tiny, p)[1:-1] for p in uneven if p.label == label]
        size, mean = (np.mean([f(a).mean(0) for a in residues], axis=0) for f in (np.abs, np.asarray))
        spread = np.sqrt(np.mean([((a - mean) ** 2).mean(0) for a in residues], axis=0))
        np.testing.assert_allclose(absolute.per_class[label], size, rtol=1e-4)
        np.testing.assert_allclose(deviation.per_class[label], spread, rtol=1e-4)
        against = [Protein(p.id, p.sequence, str(p.label == label)) for p in uneven]
        np.testing.assert_allclose(
            contrast.per_class[label], by_loop(tiny, against)["activation_contrast"], rtol=1e-4, atol=1e-6
        )


def test_mean_constants_weigh_classes_equally(tiny: Classifier, uneven: list[Protein]) -> None:
    constants = summarise_activations(tiny, uneven).constants("mean")
    np.testing.assert_allclose(constants, constants_by_loop(tiny, uneven), rtol=1e-4, atol=1e-5)
    # a class of six proteins counts no more than one of two: more copies of a class change nothing
    more = uneven + [p for p in uneven if p.label == "1"]
    np.testing.assert_allclose(constants, summarise_activations(tiny, more).constants("mean"), atol=1e-6)
    unweighted = np.mean([activations(tiny, p)[0] for p in uneven], axis=0)
    assert np.abs(constants[0] - unweighted).max() > 0.1
    assert not summarise_activations(tiny, uneven).constants("zero").any()


def test_a_class_without_proteins_has_no_part(tiny: Classifier, uneven: list[Protein]) -> None:
    two = [p for p in uneven if p.label != "3"]
    summary = summarise_activations(tiny, two)
    np.testing.assert_allclose(summary.constants("mean"), constants_by_loop(tiny, two), rtol=1e-4, atol=1e-5)
    for one in summary.scores():
        assert set(one.per_class) == {"1", "2"}
        np.testing.assert_allclose(one.values, by_loop(tiny, two)[one.method], rtol=1e-4, atol=1e-6)


def test_a_ranking_that_is_one_tie_is_refused(tiny: Classifier, uneven: list[Protein]) -> None:
    one_each = list({p.label: p for p in uneven}.values())[:2]
    scores = {s.method: s for s in activation_scores(tiny, one_each)}
    with pytest.raises(
        SelectionError, match=r"^activation_contrast: all .* same score \(0\), .* two proteins of a class"
    ):
        check_ranking(scores["activation_contrast"])
    check_ranking(scores["activation_std"])


def test_one_class_alone_has_no_contrast(tiny: Classifier, uneven: list[Protein]) -> None:
    assert not activation_scores(tiny, [p for p in uneven if p.label == "1"])[2].values.any()


@pytest.mark.parametrize("budget", [1, 60, 10_000])
def test_padding_and_batches_do_not_matter(tiny: Classifier, uneven: list[Protein], budget: int) -> None:
    alone = summarise_activations(tiny, uneven, token_budget=1)
    batched = summarise_activations(tiny, uneven, token_budget=budget)
    np.testing.assert_allclose(batched.constants("mean"), alone.constants("mean"), atol=2e-5)
    for one, other in zip(batched.scores(), alone.scores(), strict=True):
        np.testing.assert_allclose(one.values, other.values, rtol=2e-4, atol=1e-5)


def test_weights_are_as_good_as_repeated_proteins(tiny: Classifier, uneven: list[Protein]) -> None:
    weights = np.array([2, 0, 1, 1, 3, 1, 0, 2, 1, 1, 4])
    repeated = [p for p, times in zip(uneven, weights, strict=True) for _ in range(times)]
    alone = [f"{row:02}" for row in range(11)]  # groups in the order of the proteins, which are sorted by class
    grouped = activation_scores(tiny, uneven, groups=alone)
    for one, other in zip(grouped, activation_scores(tiny, repeated), strict=True):
        assert one.resample is not None and other.resample is None
        np.testing.assert_allclose(one.resample(weights), other.values, rtol=2e-4, atol=1e-5)
        np.testing.assert_allclose(one.resample(np.ones(11)), one.values, rtol=1e-4, atol=1e-6)
        assert np.abs(one.resample(weights) - one.values).max() > 0.01


def test_a_constant_neuron_has_size_but_no_spread_and_no_contrast(
    with_constants: Classifier, uneven: list[Protein]
) -> None:
    """However large: the spread of a constant of 1000 must not be the rounding of its square."""
    five = with_constants.index.slice(Site(0, "key")).start + np.arange(5)
    groups = [f"{row:02}" for row in range(11)]
    absolute, deviation, contrast = activation_scores(with_constants, uneven, groups=groups)
    np.testing.assert_allclose(absolute.values[five], [0.5, 30, 1000, 1000, 0], rtol=1e-5)
    assert (deviation.values[five] < 1e-6 * np.array([0.5, 30, 1000, 1000, 1])).all()
    assert not contrast.values[five].any()
    assert contrast.resample is not None and not contrast.resample(np.arange(11.0))[five].any()
    assert (np.delete(contrast.values, five) > 0).all()


def test_nothing_to_score_is_refused(tiny: Classifier) -> None:
    with pytest.raises(InputError, match="no proteins"):
        activation_scores(tiny, [])
    with pytest.raises(InputError, match="'a' has the label None; the model knows 1, 2, 3"):
        activation_scores(tiny, [Protein("a", "ACDEF")])
