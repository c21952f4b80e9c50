"""A model that is spread by accelerate: the scores of one in one piece, and one line where it has to be in one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import plmscope.models.loading as loading
from plmscope.data.proteins import Protein
from plmscope.errors import ModelError
from plmscope.knowledge.stream import stream_of
from plmscope.models.classifier import Classifier
from plmscope.models.finetune import Training, finetune
from plmscope.models.hooked import network_of
from plmscope.models.loading import load_model
from plmscope.models.spread import is_spread, spread
from plmscope.scoring.activation import activation_scores
from plmscope.scoring.conductance import conductance


@pytest.fixture
def on_disk(tiny_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Classifier:
    """The tiny model with its last two layers on disk, which are read when it is their turn."""
    places: dict[str, int | str] = {
        "esm.embeddings": "cpu", "esm.encoder.layer.0": "cpu", "esm.encoder.layer.1": "disk",
        "esm.encoder.layer.2": "disk", "esm.encoder.emb_layer_norm_after": "cpu", "classifier": "cpu",
    }  # fmt: skip

    def as_said(model: Any, layers: str) -> Any:
        return spread(model, layers, {**places, **_rest(model, places)})

    monkeypatch.setattr(loading, "spread", as_said)
    return load_model(tiny_folder, device="auto")


def _rest(model: Any, places: dict[str, int | str]) -> dict[str, int | str]:
    """Weights and buffers that lie in no named module."""
    names = [name for name, _ in (*model.named_parameters(), *model.named_buffers())]
    return {name: "cpu" for name in names if not any(name.startswith(f"{place}.") for place in places)}


def test_activations_are_those_of_the_model_in_one_piece(
    tiny: Classifier, on_disk: Classifier, proteins: list[Protein]
) -> None:
    assert is_spread(on_disk.model) and next(on_disk.model.esm.encoder.layer[2].parameters()).device.type == "meta"
    assert on_disk.device.type == "cpu" and not is_spread(tiny.model)
    for one, other in zip(activation_scores(on_disk, proteins), activation_scores(tiny, proteins), strict=True):
        np.testing.assert_allclose(one.values, other.values, rtol=1e-6, atol=1e-7)
    np.testing.assert_allclose(on_disk.log_probabilities(proteins), tiny.log_probabilities(proteins), atol=1e-6)
    chunks = [list(stream_of(model, tiny.index.sites)(proteins, "")) for model in (on_disk, tiny)]
    for mine, theirs in zip(*chunks, strict=True):
        np.testing.assert_allclose(mine.values.numpy(), theirs.values.numpy(), atol=1e-5)


def test_what_needs_one_device_says_so(on_disk: Classifier, proteins: list[Protein], tmp_path: Path) -> None:
    said = "device 'auto' has spread it over several devices"
    with pytest.raises(ModelError, match=said) as refused:
        conductance(on_disk, proteins)
    assert "needs it on one" in str(refused.value) and "\n" not in str(refused.value)
    with pytest.raises(ModelError, match=said):
        network_of(on_disk)
    with pytest.raises(ModelError, match=rf"{said}.*set finetune.epochs = 0"):
        finetune(on_disk, proteins, proteins, tmp_path, Training())


def test_a_spread_model_is_saved_whole(
    on_disk: Classifier, tiny: Classifier, proteins: list[Protein], tmp_path: Path
) -> None:
    on_disk.save(tmp_path / "saved")
    again = load_model(tmp_path / "saved")
    np.testing.assert_array_equal(again.log_probabilities(proteins), tiny.log_probabilities(proteins))


def test_without_a_gpu_all_of_it_is_here(
    tiny_folder: Path, tiny: Classifier, proteins: list[Protein], tmp_path: Path
) -> None:
    """Where everything fits one place, nothing is spread and nothing refused."""
    whole = load_model(tiny_folder, device="auto")
    if not is_spread(whole.model):
        assert network_of(whole)
        whole.save(tmp_path / "saved")
        assert load_model(tmp_path / "saved").index == tiny.index
    np.testing.assert_allclose(whole.log_probabilities(proteins), tiny.log_probabilities(proteins), atol=1e-5)
