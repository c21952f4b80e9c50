"""Fine-tuning: it learns, it continues where it was stopped, its numbers are scikit-learn's."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.metrics import (
    accuracy_score,
    balanced_accuracy_score,
    classification_report,
    f1_score,
    log_loss,
    matthews_corrcoef,
)
from transformers import TrainingArguments

from plmscope.data.proteins import Protein
from plmscope.errors import ModelError
from plmscope.models.classifier import Classifier
from plmscope.models.finetune import Training, _TokenBatches, finetune, stay_on
from plmscope.models.loading import load_model
from plmscope.models.quality import baselines, composition, quality
from tests.conftest import LABELS, save_tiny_model

T = TypeVar("T")
FAVOURITES = {"1": "AGS", "2": "KRE", "3": "WFY"}
TRAINING = Training(epochs=4, learning_rate=2e-2, token_budget=300, patience=4, seed=1)


def plain(n: int, seed: int) -> list[Protein]:
    """Proteins that differ by composition: half of the residues are of three kinds that are the class's own."""
    rng = np.random.default_rng(seed)
    found = []
    for i in range(n):
        label = LABELS[i % 3]
        letters = list("ACDEFGHIKLMNPQRSTVWY") + list(FAVOURITES[label]) * 6
        found.append(Protein(f"{seed}_{i}", "".join(rng.choice(letters, rng.integers(20, 40))), label))
    return found


TRAIN, VALIDATION, TEST = plain(36, 0), plain(15, 1), plain(30, 2)
AN_EPOCH = len(_TokenBatches([len(p) + 2 for p in TRAIN], TRAINING.token_budget, TRAINING.seed))


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with ordinary small weights, that can be trained."""
    return save_tiny_model(tmp_path_factory.mktemp("base"), scale=2.0)


def fresh(base: Path) -> Classifier:
    return load_model(base, new_head=True, labels=LABELS, seed=1)


@pytest.fixture(scope="module")
def undisturbed(base: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Classifier, pd.DataFrame]:
    model = fresh(base)
    return model, finetune(model, TRAIN, VALIDATION, tmp_path_factory.mktemp("undisturbed"), TRAINING)


def interrupted_at(step: int):  # type: ignore[no-untyped-def]
    """Progress that is stopped from the keyboard at a step."""

    def track(items: Iterable[T], description: str, total: int) -> Iterator[T]:
        for number, item in enumerate(items):
            if number == step:
                raise KeyboardInterrupt
            yield item

    return track


def same_weights(one: Classifier, other: Classifier) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one.model.parameters(), other.model.parameters(), strict=True))


# --- training


def test_it_learns_what_differs_plainly(base: Path, undisturbed: tuple[Classifier, pd.DataFrame]) -> None:
    model, log = undisturbed
    assert list(log.columns) == ["epoch", "train_loss", "validation_loss", "validation_balanced_accuracy"]
    assert log["epoch"].tolist() == [1, 2, 3, 4]
    assert log["train_loss"].iloc[-1] < 0.6 * log["train_loss"].iloc[0]
    true = model.targets(TEST)
    assert quality(true, model.log_probabilities(TEST), LABELS)["balanced_accuracy"] > 0.6  # chance is 1/3
    assert quality(true, fresh(base).log_probabilities(TEST), LABELS)["balanced_accuracy"] < 0.5


def test_the_weights_of_the_best_epoch_are_kept(base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All of them: the validation is made to like the first epoch best."""
    values, after_first = iter([0.9, 0.5, 0.4]), {}
    monkeypatch.setattr("plmscope.models.finetune._validation_metrics", lambda _: {"balanced_accuracy": next(values)})
    model = fresh(base)

    def track(items: Iterable[T], description: str, total: int) -> Iterator[T]:
        for number, item in enumerate(items, 1):
            if number == total // 3:
                after_first.update({name: p.detach().clone() for name, p in model.model.named_parameters()})
            yield item

    log = finetune(model, TRAIN, VALIDATION, tmp_path, replace(TRAINING, epochs=3), track)
    assert log["validation_balanced_accuracy"].tolist() == [0.9, 0.5, 0.4]
    assert [name for name, p in model.model.named_parameters() if not torch.equal(p, after_first[name])] == []
    start = dict(fresh(base).model.named_parameters())
    moved = {name for name, p in after_first.items() if not torch.equal(p, start[name])}
    assert {"classifier.dense.weight", "esm.encoder.layer.0.LayerNorm.weight"} <= moved


def test_the_model_is_left_frozen(undisturbed: tuple[Classifier, pd.DataFrame]) -> None:
    model, _ = undisturbed
    assert not model.model.training and not any(p.requires_grad for p in model.model.parameters())


def test_the_same_seed_gives_the_same_weights(
    base: Path, undisturbed: tuple[Classifier, pd.DataFrame], tmp_path: Path
) -> None:
    model = fresh(base)
    log = finetune(model, TRAIN, VALIDATION, tmp_path / "same", TRAINING)
    assert same_weights(model, undisturbed[0]) and log.equals(undisturbed[1])
    other = fresh(base)
    finetune(other, TRAIN, VALIDATION, tmp_path / "other", replace(TRAINING, epochs=1, seed=2))
    assert not same_weights(other, model)


@pytest.mark.parametrize("epochs", [1, 3])
def test_a_stopped_training_continues_as_if_nothing_had_been(
    base: Path, undisturbed: tuple[Classifier, pd.DataFrame], tmp_path: Path, epochs: int
) -> None:
    """Stopped in the second and in the fourth epoch; what they had done is done again from the checkpoint."""
    stop = epochs * AN_EPOCH + 1
    with pytest.raises(KeyboardInterrupt):
        finetune(fresh(base), TRAIN, VALIDATION, tmp_path, TRAINING, interrupted_at(stop))
    assert len(list(tmp_path.glob("checkpoint-*"))) == (2 if epochs == 3 else 1)
    model = fresh(base)
    log = finetune(model, TRAIN, VALIDATION, tmp_path, TRAINING)
    pd.testing.assert_frame_equal(log, undisturbed[1], check_exact=True)
    assert same_weights(model, undisturbed[0])


def test_a_checkpoint_that_was_cut_short_is_not_used(
    base: Path, undisturbed: tuple[Classifier, pd.DataFrame], tmp_path: Path
) -> None:
    with pytest.raises(KeyboardInterrupt):
        finetune(fresh(base), TRAIN, VALIDATION, tmp_path, TRAINING, interrupted_at(2 * AN_EPOCH))
    state = tmp_path / f"checkpoint-{2 * AN_EPOCH}" / "trainer_state.json"
    state.write_text(state.read_text()[:-20])
    model = fresh(base)
    log = finetune(model, TRAIN, VALIDATION, tmp_path, TRAINING)
    pd.testing.assert_frame_equal(log, undisturbed[1], check_exact=True)
    assert same_weights(model, undisturbed[0])


def test_a_continued_training_remembers_the_epochs_without_progress(base: Path, tmp_path: Path) -> None:
    """A rate of next to nothing: no epoch beats the first, and after two more both trainings stop."""
    still = replace(TRAINING, learning_rate=1e-12, patience=2)
    log = finetune(fresh(base), TRAIN, VALIDATION, tmp_path / "whole", still)
    assert log["epoch"].tolist() == [1, 2, 3]
    with pytest.raises(KeyboardInterrupt):
        finetune(fresh(base), TRAIN, VALIDATION, tmp_path / "parts", still, interrupted_at(2 * AN_EPOCH))
    assert finetune(fresh(base), TRAIN, VALIDATION, tmp_path / "parts", still).equals(log)


def test_frozen_layers_stay_as_they_are(base: Path, tmp_path: Path) -> None:
    model, start = fresh(base), dict(fresh(base).model.named_parameters())
    finetune(model, TRAIN, VALIDATION, tmp_path / "two", replace(TRAINING, epochs=1, frozen_layers=2))
    moved = {name for name, value in model.model.named_parameters() if not torch.equal(value, start[name])}
    assert {"esm.encoder.layer.2.output.dense.weight", "classifier.out_proj.weight"} <= moved
    assert not any("embeddings" in name or ".layer.0." in name or ".layer.1." in name for name in moved)
    with pytest.raises(ModelError, match=r"frozen_layers = 4: the model has 3 layers; lower it"):
        finetune(fresh(base), TRAIN, VALIDATION, tmp_path / "four", replace(TRAINING, frozen_layers=4))


def test_progress_sees_every_step_once(base: Path, tmp_path: Path) -> None:
    seen: list[int] = []

    def track(items: Iterable[T], description: str, total: int) -> Iterator[T]:
        assert description == "fine-tuning"
        for item in items:
            seen.append(total)
            yield item

    finetune(fresh(base), TRAIN, VALIDATION, tmp_path, replace(TRAINING, epochs=1), track)
    assert seen == [AN_EPOCH] * AN_EPOCH


def test_class_weights_make_rare_classes_count(base: Path, tmp_path: Path) -> None:
    """Next to no training: the loss is that of the model as it was, weighted by n / (C n_c) or not."""
    rare = [p for p in TRAIN if p.label == "1"][:2] + [p for p in TRAIN if p.label != "1"]
    one = replace(TRAINING, epochs=1, learning_rate=1e-12, token_budget=100_000)
    log_p = load_model(base).log_probabilities(rare)
    true = load_model(base).targets(rare)
    per_protein = -log_p[np.arange(len(rare)), true]
    weights = (len(rare) / (3 * np.bincount(true)))[true]
    for on, want in ((True, np.average(per_protein, weights=weights)), (False, per_protein.mean())):
        log = finetune(load_model(base), rare, VALIDATION, tmp_path / str(on), replace(one, class_weights=on))
        assert log["train_loss"].tolist() == pytest.approx([want], abs=2e-3)
    assert abs(np.average(per_protein, weights=weights) - per_protein.mean()) > 0.01


def test_a_loss_that_is_no_number_is_an_error(base: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"loss of NaN; lower \[finetune\] learning_rate \(1e\+30\)"):
        finetune(fresh(base), TRAIN, VALIDATION, tmp_path, replace(TRAINING, epochs=2, learning_rate=1e30))


def test_out_of_memory_is_one_line(base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def train(self: object, **how: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr("plmscope.models.finetune._Trainer.train", train)
    with pytest.raises(ModelError, match=r"ran out of memory; lower \[finetune\] token_budget \(300\)"):
        finetune(fresh(base), TRAIN, VALIDATION, tmp_path, TRAINING)


# --- devices


def test_training_stays_on_its_device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The trainer by itself takes the first of several GPUs, and splits every batch over all of them."""
    chosen = []
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
    arguments = TrainingArguments(str(tmp_path), use_cpu=True, per_device_train_batch_size=3)
    stay_on(torch.device("cpu"), arguments)
    assert arguments.device == torch.device("cpu") and not chosen
    arguments._n_gpu = 2
    stay_on(torch.device("cuda:1"), arguments)
    assert (arguments.device, arguments.n_gpu, arguments.train_batch_size) == (torch.device("cuda:1"), 1, 3)
    assert chosen == [torch.device("cuda:1")]


# --- batches


@pytest.mark.parametrize("budget", [1, 200, 1000, 100_000])
def test_batches_keep_the_budget_and_cover_every_protein_once_AN_EPOCH(budget: int) -> None:
    lengths = np.random.default_rng(0).integers(30, 300, 211)
    batches = _TokenBatches(lengths.tolist(), budget, 4)
    epochs = []
    for epoch in range(3):
        batches.epoch = epoch
        found = list(batches)
        assert len(found) == len(batches)
        assert sorted(row for batch in found for row in batch) == list(range(211))
        for batch in found:
            assert len(batch) * lengths[batch].max() <= budget or len(batch) == 1
        epochs.append(found)
    batches.epoch = 1
    assert list(batches) == epochs[1] != epochs[2]
    assert list(_TokenBatches(lengths.tolist(), budget, 5)) != epochs[0]


def test_batches_waste_little_padding() -> None:
    lengths = np.random.default_rng(0).integers(30, 300, 500)
    padded = sum(len(batch) * lengths[batch].max() for batch in _TokenBatches(lengths.tolist(), 4096, 0))
    assert padded < 1.15 * lengths.sum()


# --- quality and baselines


def predictions(classes: int = 4, n: int = 60, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    true = rng.integers(0, classes, n)
    logits = rng.normal(size=(n, classes)) + 1.5 * np.eye(classes)[true]
    return true, logits - np.log(np.exp(logits).sum(1, keepdims=True))


def test_quality_is_that_of_scikit_learn() -> None:
    true, log_p = predictions()
    said, labels = log_p.argmax(1), ["a", "b", "c", "d"]
    found = quality(true, log_p, labels)
    assert found["n"] == 60
    assert found["accuracy"] == accuracy_score(true, said)
    assert found["balanced_accuracy"] == pytest.approx(balanced_accuracy_score(true, said))
    assert found["macro_f1"] == pytest.approx(f1_score(true, said, average="macro"))
    assert found["mcc"] == pytest.approx(matthews_corrcoef(true, said))
    assert found["log_loss"] == pytest.approx(log_loss(true, np.exp(log_p)))
    report = classification_report(true, said, target_names=labels, output_dict=True)
    for label in labels:
        theirs = report[label]
        assert found["per_class"][label] == pytest.approx(
            {
                "n": theirs["support"],
                "precision": theirs["precision"],
                "recall": theirs["recall"],
                "f1": theirs["f1-score"],
            }
        )


def test_a_class_without_proteins_does_not_count() -> None:
    true, log_p = predictions()
    rows = true != 2
    found = quality(true[rows], log_p[rows], ["a", "b", "c", "d"])
    assert found["per_class"]["c"] == {"n": 0, "precision": 0, "recall": 0, "f1": 0}
    recalls = [(log_p[true == c].argmax(1) == c).mean() for c in (0, 1, 3)]
    assert found["balanced_accuracy"] == pytest.approx(np.mean(recalls))


def test_a_probability_of_zero_is_not_an_infinite_loss() -> None:
    found = quality(np.array([0, 1]), np.array([[0, -np.inf], [0, -np.inf]]), ["a", "b"])
    assert found["log_loss"] == pytest.approx(-np.log(1e-12) / 2)


def test_composition_by_hand() -> None:
    row = composition([Protein("p", "AACX")])[0]
    assert row[:2].tolist() == [0.5, 0.25] and not row[2:20].any()
    assert row[20] == np.log(4)


def test_baselines_know_frequencies_and_composition() -> None:
    positions = {label: i for i, label in enumerate(LABELS)}
    train = TRAIN[:30] + [p for p in TRAIN if p.label == "2"]
    classes, true = (np.array([positions[str(p.label)] for p in part]) for part in (train, TEST))
    found = baselines(train, TEST, np.eye(3, dtype=bool)[classes], "single", 0)
    np.testing.assert_allclose(np.exp(found["majority"]), np.tile(np.bincount(classes) / len(classes), (30, 1)))
    assert quality(true, found["majority"], LABELS)["balanced_accuracy"] == pytest.approx(1 / 3)
    assert quality(true, found["composition"], LABELS)["balanced_accuracy"] > 0.9
    np.testing.assert_allclose(np.exp(found["composition"]).sum(1), 1)
    shuffled = [replace(p, sequence="".join(sorted(p.sequence))) for p in TEST]
    again = baselines(train, shuffled, np.eye(3, dtype=bool)[classes], "single", 0)
    np.testing.assert_allclose(again["composition"], found["composition"])


def test_baselines_give_a_class_that_was_never_seen_next_to_nothing() -> None:
    train = [p for p in TRAIN if p.label != "2"]
    classes = np.array([0 if p.label == "1" else 2 for p in train])
    for log_p in baselines(train, TEST, np.eye(3, dtype=bool)[classes], "single", 0).values():
        np.testing.assert_allclose(log_p[:, 1], np.log(1e-12))
