"""An architecture of another package is one row: Electra, which plmscope does not have."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import BertTokenizer, ElectraConfig, ElectraForSequenceClassification

from plmscope import plugins
from plmscope.data.proteins import Protein
from plmscope.errors import ModelError
from plmscope.models import architectures
from plmscope.models.architectures import (
    ARCHITECTURES,
    Architecture,
    architecture_of,
    register_architecture,
    unregister_architecture,
)
from plmscope.models.hooked import network_of
from plmscope.models.hooks import record
from plmscope.models.loading import load_model
from plmscope.scoring.methods import score
from tests.families import NAMES, PROTBERT

ELECTRA = Architecture(
    model_type="electra",
    models="Electra",
    embeddings="electra.embeddings",
    layers="electra.encoder.layer",
    modules=ARCHITECTURES["bert"].modules,
    after=("classifier",),
    head="classifier",
    unused=("discriminator_predictions.",),
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    sizes: dict[str, Any] = {"hidden_size": 24, "embedding_size": 24, "intermediate_size": 40, "num_hidden_layers": 2}
    rest = {"num_attention_heads": 3, "vocab_size": len(PROTBERT), "max_position_embeddings": 100, "pad_token_id": 0}
    dropout = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    model = ElectraForSequenceClassification(ElectraConfig(**{**sizes, **rest, **dropout, **NAMES}))
    model.save_pretrained(tmp_path / "electra")
    tokenizer = BertTokenizer(vocab={token: i for i, token in enumerate(PROTBERT)}, do_lower_case=False)
    tokenizer.save_pretrained(tmp_path / "electra")
    return tmp_path / "electra"


@pytest.fixture
def registered() -> Iterator[None]:
    row = register_architecture(ELECTRA)
    yield
    unregister_architecture(row)


def test_it_is_loaded_scored_and_taken_apart(folder: Path, registered: None, proteins: list[Protein]) -> None:
    classifier = load_model(folder)
    (batch,) = classifier.batches(proteins[:3], 10_000)
    network = network_of(classifier)
    with torch.no_grad():
        whole = classifier.model(input_ids=batch.input_ids, attention_mask=batch.attention_mask).logits
        torch.testing.assert_close(network.logits(batch), whole)
        hidden, context = network.embed(batch)
        state = network.state(1, network.after(network.state(0, hidden, context)), context)
    with record(classifier, classifier.index.sites) as seen, torch.no_grad():
        classifier.model(input_ids=batch.input_ids, attention_mask=batch.attention_mask)
    for site in classifier.index.sites[6:]:
        torch.testing.assert_close(state.activations[site.module], seen[site])
    found = score(classifier, proteins[:3], "gradient_activation")
    assert np.isfinite(found.values).all() and found.values.any()


def test_it_is_refused_without_its_row(folder: Path) -> None:
    with pytest.raises(ModelError, match="model type 'electra' is not supported"):
        load_model(folder)


def test_an_installed_package_brings_it(monkeypatch: pytest.MonkeyPatch) -> None:
    point = EntryPoint("electra", "tests.test_own_architecture:ELECTRA", "plmscope.architectures")
    monkeypatch.setattr(plugins, "entry_points", lambda group: [point] if group == point.group else [])
    monkeypatch.setattr(architectures._TABLE, "of_packages", None)
    assert architecture_of("electra") is ELECTRA


def test_a_second_row_of_plmscopes_own_types_is_refused() -> None:
    with pytest.raises(ModelError, match="model type 'esm' is there already"):
        register_architecture(ARCHITECTURES["esm"])


def test_a_row_registered_again_replaces_the_one_before(registered: None) -> None:
    changed = replace(ELECTRA, layers="electra.elsewhere")
    register_architecture(changed)
    assert architecture_of("electra") is changed
    unregister_architecture(ELECTRA)
    with pytest.raises(ModelError, match="electra"):
        architecture_of("electra")
    register_architecture(ELECTRA)
