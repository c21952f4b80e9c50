"""A small random classifier of every supported family, as a Hugging Face folder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    BertTokenizer,
    EsmcConfig,
    EsmcForSequenceClassification,
    EsmcTokenizer,
)

from tests.conftest import LABELS, save_tiny_model

#: ProtBert's own, in its order.
PROTBERT = "[PAD] [UNK] [CLS] [SEP] [MASK] L A G V E S I K R D T P N Q F Y M H C W X U B Z O".split()
NAMES: dict[str, Any] = {
    "id2label": dict(enumerate(LABELS)),
    "label2id": {label: i for i, label in enumerate(LABELS)},
}


def save_esmc(folder: Path, seed: int = 0, scale: float = 10.0, **settings: Any) -> Path:
    """A random ESM-C."""
    torch.manual_seed(seed)
    sizes = {"hidden_size": 24, "intermediate_size": 40, "num_hidden_layers": 2, "num_attention_heads": 3}
    model = EsmcForSequenceClassification(
        EsmcConfig(**{**sizes, "max_position_embeddings": 128, "classifier_dropout": 0.0, **NAMES, **settings})
    )
    _enlarge(model, scale)
    model.save_pretrained(folder)
    EsmcTokenizer().save_pretrained(folder)
    return folder


def save_protbert(folder: Path, seed: int = 0, scale: float = 10.0, **settings: Any) -> Path:
    """A random BERT with the vocabulary of ProtBert."""
    torch.manual_seed(seed)
    sizes = {"hidden_size": 24, "intermediate_size": 40, "num_hidden_layers": 2, "num_attention_heads": 3}
    rest = {"vocab_size": len(PROTBERT), "max_position_embeddings": 350, "pad_token_id": 0}
    dropout = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    model = BertForSequenceClassification(BertConfig(**{**sizes, **rest, **dropout, **NAMES, **settings}))
    _enlarge(model, scale)
    model.save_pretrained(folder)
    BertTokenizer(vocab={token: i for i, token in enumerate(PROTBERT)}, do_lower_case=False).save_pretrained(folder)
    return folder


def save_esm_mean(folder: Path, seed: int = 0, **settings: Any) -> Path:
    """A random ESM-2 whose head reads the mean of the residues."""
    return save_tiny_model(folder, seed, num_hidden_layers=2, plmscope_pooling="mean", **settings)


def save_esm1b(folder: Path, seed: int = 0, **settings: Any) -> Path:
    """A random ESM-1b: learned positions, a LayerNorm before the first layer."""
    shape = {"num_hidden_layers": 2, "position_embedding_type": "absolute", "emb_layer_norm_before": True}
    return save_tiny_model(folder, seed, **{**shape, **settings})


def save_esm1v(folder: Path, seed: int = 0, **settings: Any) -> Path:
    """A random ESM-1v: learned positions, no LayerNorm before the first layer."""
    return save_esm1b(folder, seed, emb_layer_norm_before=False, **settings)


#: The older ESMs, which the network of ESM-2 computes too.
OLDER: dict[str, Callable[..., Path]] = {"esm1b": save_esm1b, "esm1v": save_esm1v}
#: Those that no fast network exists for.
HOOKED: dict[str, Callable[..., Path]] = {"esmc": save_esmc, "protbert": save_protbert, "esm_mean": save_esm_mean}


def _enlarge(model: torch.nn.Module, scale: float) -> None:
    """Let attention and logits vary."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "embed" in name and parameter.ndim == 2:
                parameter.mul_(20)
            elif name.endswith("weight") and parameter.ndim == 2:
                parameter.mul_(scale)
            elif name.endswith("bias") and "norm" not in name.lower():
                parameter.normal_(0, 0.2)
