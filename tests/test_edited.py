"""Models with neurons held for good: the logits of ablation, in a folder that transformers loads by itself.

And what else leaves a run for other programs: sets of neurons, directions of classes.
"""

import json

import numpy as np
import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

import plmscope as ps
from plmscope.cli import main
from plmscope.errors import ModelError
from plmscope.models.loading import load_model
from plmscope.study.edited import export_model, largest_difference, with_held
from plmscope.study.scoring import mean_proteins
from tests.families import HOOKED


@pytest.mark.parametrize("zero", [True, False])
def test_held_in_weights_is_held_in_ablation(tiny, proteins, zero):
    """Of every module, with the same constant at every token: exact but for rounding."""
    rng = np.random.default_rng(0)
    works = rng.random(len(tiny.index)) < 0.6
    one = np.zeros(len(works)) if zero else rng.normal(0, 0.3, len(works)).astype(np.float32).astype(float)
    before = {name: value.clone() for name, value in tiny.model.state_dict().items()}
    edited = with_held(tiny, works, one)
    assert largest_difference(tiny, edited, proteins, works, np.stack([one] * 3)) < 1e-5 * 10
    assert largest_difference(tiny, edited, proteins, np.ones_like(works), np.stack([one] * 3)) > 0.01
    assert all(torch.equal(value, before[name]) for name, value in tiny.model.state_dict().items())


@pytest.mark.parametrize("family", HOOKED)
def test_every_architecture(family, proteins, tmp_path):
    """At zero, after a way through the folder; at other constants wherever there are biases."""
    classifier = load_model(HOOKED[family](tmp_path / "model"))
    rng = np.random.default_rng(0)
    works = rng.random(len(classifier.index)) < 0.6
    zero = np.zeros(len(works))
    edited = with_held(classifier, works, zero)
    edited.save(tmp_path / "edited")
    again = load_model(tmp_path / "edited")
    assert largest_difference(classifier, again, proteins, works, np.stack([zero] * 3)) < 1e-4
    if family == "esmc":
        with pytest.raises(ModelError, match="has no bias"):
            with_held(classifier, works, zero + 0.25)
    else:
        held = with_held(classifier, works, zero + 0.25)
        assert largest_difference(classifier, held, proteins, works, np.full((3, len(works)), 0.25)) < 1e-4


def test_nothing_held_changes_nothing(tiny, proteins):
    edited = with_held(tiny, np.ones(len(tiny.index), bool), np.zeros(len(tiny.index)))
    for name, value in edited.model.state_dict().items():
        assert torch.equal(value, tiny.model.state_dict()[name])


@pytest.fixture(scope="module")
def run(golden, tmp_path_factory):
    return golden.copy(tmp_path_factory.mktemp("edited") / "run")


def test_the_folder_loads_in_transformers(run, tmp_path, capsys):
    folder = tmp_path / "kept"
    how = ["--model", str(folder), "--keep", "integrated_gradients:0.2", "--ablation", "zero"]
    assert main(["export", str(run), *how]) == 0
    said = capsys.readouterr().err
    assert "keeps the best 20 % of neurons by integrated_gradients" in said and "logits differ" in said
    opened = ps.open_run(run)
    works = ps.select_top(opened.ranking("integrated_gradients"), 0.2).mask
    model, tokenizer = (
        AutoModelForSequenceClassification.from_pretrained(folder).eval(),
        AutoTokenizer.from_pretrained(folder),
    )
    edited = with_held(opened.model, works, np.zeros(len(works)))
    protein = opened.proteins("test")[0]
    assert largest_difference(opened.model, edited, [protein], works, np.zeros((3, len(works)))) < 1e-5 * 10
    with torch.no_grad():
        found = model(**tokenizer(protein.sequence, return_tensors="pt")).logits
        batch = edited.batch([protein])
        known = edited.model(input_ids=batch.input_ids, attention_mask=batch.attention_mask).logits
    assert torch.allclose(found, known, atol=1e-5)


def test_a_class_is_suppressed(run, tmp_path):
    opened = ps.open_run(run)
    label = opened.model.labels[0]
    done = export_model(opened, tmp_path / "without", suppress=label)
    assert done.held == round(opened.study.report.knowledge_fraction * done.total)
    assert np.isfinite(done.difference) and f"for class {label}" in repr(done)


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ([], "give one of them"),
        (["--keep", "activation_std:0.1", "--suppress", "2"], "give one of them"),
        (["--keep", "activation_std"], "is not written like integrated_gradients:0.05"),
        (["--keep", "activation_std:1.5"], "with a share between 0 and 1"),
        (["--suppress", "9"], "class '9' has no scores"),
        (["--keep", "activation_std:0.1", "--ablation", "median"], "neither 'mean' nor 'zero'"),
    ],
)
def test_one_line_that_helps(run, tmp_path, capsys, how, said):
    assert main(["export", str(run), "--model", str(tmp_path / "m"), *how]) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "m").exists()


def test_a_model_is_asked_for_by_its_folder(run, tmp_path, capsys):
    assert main(["export", str(run), "--keep", "activation_std:0.1"]) == 2
    assert "--model FOLDER or --neurons FILE" in capsys.readouterr().err
    (tmp_path / "mine.txt").write_text("x")
    assert main(["export", str(run), "--model", str(tmp_path), "--keep", "activation_std:0.1"]) == 2
    assert "holds other things" in capsys.readouterr().err


def test_a_set_of_neurons_as_text(run, tmp_path, capsys):
    """What is written is what explain --neurons and others read."""
    opened, place = ps.open_run(run), tmp_path / "new" / "n.tsv"
    assert main(["export", str(run), "--neurons", str(place), "--keep", "integrated_gradients:0.2"]) == 0
    assert f"{place}: the best 20 % of neurons by integrated_gradients" in capsys.readouterr().err.replace("\n", " ")
    again = ps.Selection.from_tsv(place, opened.model.index)
    assert (again.mask == ps.select_top(opened.ranking("integrated_gradients"), 0.2).mask).all()
    assert main(["export", str(run), "--neurons", str(place)]) == 2
    assert "give one of them" in capsys.readouterr().err
    for option in ("--neurons", "--directions"):
        (tmp_path / "file").write_text("")
        assert main(["export", str(run), option, str(tmp_path / "file" / "x"), "--suppress", "2"]) == 2
        assert "name another file" in capsys.readouterr().err


def test_directions_of_classes(run, tmp_path):
    """By activations residue by residue: the class's mean over proteins of their means, less that of the others."""
    from safetensors import safe_open

    opened, place = ps.open_run(run), tmp_path / "d.safetensors"
    assert main(["export", str(run), "--directions", str(place)]) == 0
    with safe_open(place, "np") as file:
        found = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118, it is no dict
        told = file.metadata()
    index, labels = opened.model.index, json.loads(told["classes"])
    assert sorted(found) == sorted(f"{site.layer}.{site.module}" for site in index.sites)
    train = mean_proteins(opened.model, opened.proteins("train"), opened.clusters, opened.study)
    assert labels == list(opened.model.labels) and int(told["proteins"]) == len(train)
    some = [index.neuron(k) for k in range(0, len(index), len(index) // 7)]
    frame = ps.activations(opened.model, train, some)
    means = frame.groupby("id")[list(frame.columns[3:])].mean().loc[[p.id for p in train]].to_numpy()
    own = np.array([p.label for p in train])
    for row, label in enumerate(labels):
        expected = means[own == label].mean(0) - means[own != label].mean(0)
        given = [found[f"{n.site.layer}.{n.site.module}"][row, n.index] for n in some]
        assert given == pytest.approx(expected, abs=2e-5)
