"""LoRA: adapters merge into what peft itself computes, and training them changes nothing else."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import peft
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForSequenceClassification

from plmscope.errors import ModelError
from plmscope.models.classifier import Classifier
from plmscope.models.finetune import finetune
from plmscope.models.loading import load_model
from plmscope.models.lora import with_adapters
from tests.conftest import make_proteins, save_tiny_model
from tests.families import save_protbert
from tests.test_finetune import AN_EPOCH, LABELS, TRAIN, TRAINING, VALIDATION, fresh, interrupted_at, same_weights
from tests.test_loading import refused

FOLDERS: dict[str, Callable[..., Path]] = {"esm": save_tiny_model, "protbert": save_protbert}


@pytest.fixture(scope="module", params=FOLDERS)
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Classifier]:
    """A base model, an adapter as peft saves it, and the base with peft's own modules beside its weights."""
    folder = tmp_path_factory.mktemp(request.param)
    base = FOLDERS[request.param](folder / "base")
    names = ["classifier"] if request.param == "esm" else ["classifier", "pooler"]
    settings = peft.LoraConfig(
        r=3, lora_alpha=5, target_modules=["query", "key", "output.dense"], modules_to_save=names
    )
    model = peft.get_peft_model(AutoModelForSequenceClassification.from_pretrained(base), settings)
    torch.manual_seed(1)
    for name, parameter in model.named_parameters():
        if "lora_B" in name or "modules_to_save" in name:
            torch.nn.init.normal_(parameter, std=0.3)
    model.save_pretrained(folder / "adapter")
    classifier = load_model(base)
    classifier.model = model.eval()
    return base, folder / "adapter", classifier


def copy(adapter: Path, folder: Path) -> Path:
    return Path(shutil.copytree(adapter, folder / "adapter"))


def test_an_adapter_is_merged_into_its_base(made: tuple[Path, Path, Classifier]) -> None:
    base, adapter, theirs = made
    proteins, said = make_proteins(4), list[str]()
    ours = load_model(adapter, say=said.append)
    np.testing.assert_allclose(ours.log_probabilities(proteins), theirs.log_probabilities(proteins), atol=1e-4)
    assert np.abs(ours.log_probabilities(proteins) - load_model(base).log_probabilities(proteins)).max() > 0.1
    assert ours.labels == ("LABEL_0", "LABEL_1", "LABEL_2")
    assert not any("lora" in name for name, _ in ours.model.named_parameters())
    assert said[-1] == f"{adapter}: LoRA adapter merged into {base}"
    assert {"adapter_model.safetensors", "adapter_config.json", f"{base}/model.safetensors"} < set(ours.files)


def test_class_names_and_a_base_beside_it(made: tuple[Path, Path, Classifier], tmp_path: Path) -> None:
    base, adapter, _ = made
    mine = copy(adapter, tmp_path)
    shutil.copytree(base, mine / "base")
    (mine / "config.json").write_text(json.dumps({"id2label": {"0": "a", "1": "b", "2": "c"}}))
    set_base(mine, "base")
    assert load_model(mine).labels == ("a", "b", "c")
    (mine / "config.json").write_text(json.dumps({"id2label": {"0": "a", "1": "b"}}))
    assert "config.json (id2label) names 2 classes, its head has 3 outputs" in refused(mine)


def test_labels_get_a_fresh_head_on_the_merged_encoder(made: tuple[Path, Path, Classifier]) -> None:
    _, adapter, _ = made
    model, own = load_model(adapter, labels=["x", "y"], seed=2), load_model(adapter)
    assert model.labels == ("x", "y") and model.model.config.num_labels == 2
    encoder = model.architecture.layers.split(".")[0] + ".encoder"
    for (name, one), (_, other) in zip(model.model.named_parameters(), own.model.named_parameters(), strict=True):
        assert not name.startswith(encoder) or torch.equal(one, other), name
    head = torch.cat([p.flatten() for p in model.model.classifier.parameters()])
    assert head.std() < 0.1


@pytest.mark.parametrize("settings", [{"task_type": "SEQ_CLS"}, {"target_modules": ["query", "dense"]}])
def test_adapters_of_common_recipes_get_a_fresh_head(tmp_path: Path, settings: dict[str, object]) -> None:
    """peft puts the head of a task type back, and ``dense`` is a module of the head too."""
    base = save_tiny_model(tmp_path / "base")
    config = peft.LoraConfig(**{"r": 2, "target_modules": ["query", "key"]} | settings)
    model = peft.get_peft_model(AutoModelForSequenceClassification.from_pretrained(base), config)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.3)
    model.save_pretrained(tmp_path / "adapter")
    found = load_model(tmp_path / "adapter", labels=["x", "y"])
    assert found.labels == ("x", "y")
    place = "esm.encoder.layer.0.attention.self.query.weight"
    theirs = model.merge_and_unload().state_dict()[place]
    torch.testing.assert_close(found.model.state_dict()[place], theirs)
    assert not torch.equal(theirs, load_model(base).model.state_dict()[place])


def set_base(adapter: Path, base: str, **settings: object) -> None:
    path = adapter / "adapter_config.json"
    content = json.loads(path.read_text()) | {"base_model_name_or_path": base} | settings
    path.write_text(json.dumps(content))


def test_what_is_refused(made: tuple[Path, Path, Classifier], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base, adapter, _ = made
    mine = copy(adapter, tmp_path)
    set_base(mine, str(tmp_path / "gone"))
    gone = tmp_path / "gone"
    assert refused(mine) == (
        f"{mine}: its base model {gone} (base_model_name_or_path in adapter_config.json) cannot be used; write the "
        f"folder or hub id of the model that it was trained on there ({gone}: no such model folder; name a folder with "
        "config.json and model.safetensors, or a hub id)"
    )
    set_base(mine, str(mine))
    assert "is an adapter too" in refused(mine)
    set_base(mine, str(base), peft_type="IA3")
    assert "adapters of the kind 'IA3' are not supported; LoRA is" in refused(mine)
    set_base(mine, str(base), peft_type="LORA", r=7)
    assert "size mismatch" in refused(mine)
    set_base(mine, str(base), r=3)
    weights = load_file(mine / "adapter_model.safetensors")
    first = min(key for key in weights if "lora_A" in key)
    lacking = {key: weight for key, weight in weights.items() if key != first}
    save_file(lacking, mine / "adapter_model.safetensors")
    assert "1 weights of the adapter do not fit" in refused(mine)
    save_file(weights | {first: weights[first] * torch.nan}, mine / "adapter_model.safetensors")
    assert "holds NaN or infinite values" in refused(mine)
    (mine / "adapter_model.safetensors").rename(mine / "adapter_model.bin")
    assert "has pickled weights only" in refused(mine)
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "peft", None)
        assert refused(adapter) == "LoRA needs the library peft; install it: pip install 'peft>=0.19'"
    shutil.copy(base / "model.safetensors", mine)
    assert "holds a model and an adapter" in refused(mine)


# --- training

LORA = replace(TRAINING, epochs=2, lora_rank=2)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("small"), scale=2.0)


def test_nothing_changes_before_training(small: Path) -> None:
    model, proteins = load_model(small), make_proteins(4)
    before = model.log_probabilities(proteins)
    with_adapters(model.model, model.architecture, 2, seed=0)
    np.testing.assert_allclose(model.log_probabilities(proteins), before, atol=1e-6)


def test_training_adapters_and_continuing(small: Path, tmp_path: Path) -> None:
    """Only linear modules and the head move, by a difference of the rank; a stopped training continues the same."""
    model, start = fresh(small), dict(fresh(small).model.named_parameters())
    finetune(model, TRAIN, VALIDATION, tmp_path / "whole", LORA)
    now = dict(model.model.named_parameters())
    assert now.keys() == start.keys()
    moved = {name for name in now if not torch.equal(now[name], start[name])}
    assert {"classifier.out_proj.weight", "esm.encoder.layer.2.intermediate.dense.weight"} <= moved
    for name in moved - {name for name in moved if name.startswith("classifier.")}:
        assert name.endswith("weight") and "LayerNorm" not in name and "embeddings" not in name
        assert torch.linalg.matrix_rank(now[name] - start[name], rtol=1e-3) <= 2, name
    model.save(tmp_path / "saved")
    assert same_weights(load_model(tmp_path / "saved"), model)
    again = fresh(small)
    with pytest.raises(KeyboardInterrupt):
        finetune(again, TRAIN, VALIDATION, tmp_path / "parts", LORA, interrupted_at(AN_EPOCH + 1))
    again = fresh(small)
    finetune(again, TRAIN, VALIDATION, tmp_path / "parts", LORA)
    assert same_weights(again, model)


def test_missing_peft_is_said_before_training(small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(ModelError, match=r"pip install 'peft>=0.19'"):
        finetune(load_model(small, labels=LABELS), TRAIN, VALIDATION, tmp_path, LORA)
