"""SaProt's vocabulary of pairs; and the encoders that do not fit, with the reason."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import EsmTokenizer

from plmscope.data.proteins import AMINO_ACIDS
from plmscope.errors import InputError, ModelError
from plmscope.models.loading import load_model
from plmscope.scoring.methods import score
from tests.conftest import make_proteins, save_tiny_model

RESIDUES, STRUCTURE = "ACDEFGHIKLMNPQRSTVWY#", "pynwrqhgdlvtmfsaeikc#"
#: SaProt's own, in its order: 446 tokens.
PAIRS = ["<cls>", "<pad>", "<eos>", "<unk>", "<mask>", *(a + b for a in RESIDUES for b in STRUCTURE)]


@pytest.fixture(scope="module")
def saprot(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = save_tiny_model(
        tmp_path_factory.mktemp("saprot"), vocab_size=len(PAIRS), mask_token_id=4, num_hidden_layers=1
    )
    for path in folder.glob("*token*"):
        path.unlink()
    (folder / "vocab.txt").write_text("\n".join(PAIRS) + "\n")
    EsmTokenizer(vocab_file=str(folder / "vocab.txt")).save_pretrained(folder)
    return folder


def test_residues_are_read_with_their_structure_unknown(saprot: Path) -> None:
    said: list[str] = []
    model = load_model(saprot, say=said.append)
    assert model.pairs and said[-1].endswith("residues are read with their structure unknown (#)")
    assert [PAIRS[token] for token in model.encode("MKX")] == ["<cls>", "M#", "K#", "##", "<eos>"]
    assert [PAIRS[token] for token in model.encode("".join(AMINO_ACIDS))[1:-1]] == [f"{a}#" for a in AMINO_ACIDS]
    with pytest.raises(InputError, match="residue 'B' at position 2 has no token"):
        model.encode("MB")


def test_the_same_logits_as_with_its_own_tokenizer(saprot: Path) -> None:
    model, proteins = load_model(saprot), make_proteins(6)
    texts = [" ".join(f"{letter}#" for letter in protein.sequence) for protein in proteins]
    theirs = EsmTokenizer(vocab_file=str(saprot / "vocab.txt"))(texts, padding=True, return_tensors="pt")
    with torch.no_grad():
        expected = model.model(**theirs).logits
        batch = model.batch(proteins)
        got = model.model(input_ids=batch.input_ids, attention_mask=batch.attention_mask).logits
    assert torch.equal(theirs["input_ids"], batch.input_ids) and torch.allclose(got, expected, atol=1e-6)
    assert np.isfinite(score(model, proteins, "activation_std").values).all()


def test_other_models_have_no_pairs(tiny_folder: Path) -> None:
    assert not load_model(tiny_folder).pairs


@pytest.mark.parametrize("kind", ["t5", "mt5"])
def test_encoders_of_t5_are_refused_with_the_reason(tiny_folder: Path, tmp_path: Path, kind: str) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": kind}))
    with pytest.raises(
        ModelError, match=f"model type '{kind}' is not supported: transformers has no classifier on T5's"
    ):
        load_model(tmp_path)
