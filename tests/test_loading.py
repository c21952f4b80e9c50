"""Loading: what is refused and how it is said; tokens, batches and class names."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModelForSequenceClassification,
    BertConfig,
    EsmcConfig,
    EsmConfig,
    EsmForMaskedLM,
    EsmForSequenceClassification,
    EsmTokenizer,
    PretrainedConfig,
)

from plmscope.data.proteins import Protein
from plmscope.errors import InputError, ModelError
from plmscope.models.architectures import ARCHITECTURES
from plmscope.models.classifier import Classifier
from plmscope.models.loading import load_model
from plmscope.models.sites import NeuronIndex
from tests.conftest import LABELS, make_proteins, save_tiny_model
from tests.families import save_esmc, save_protbert


@pytest.fixture
def folder(tiny_folder: Path, tmp_path: Path) -> Path:
    """A copy of the tiny model's folder, to be spoilt."""
    return Path(shutil.copytree(tiny_folder, tmp_path / "copy"))


def refused(checkpoint: Path | str, **settings: object) -> str:
    """The one line that says why a checkpoint is refused."""
    with pytest.raises(ModelError) as caught:
        load_model(checkpoint, **settings)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)
    return str(caught.value)


def set_config(folder: Path, **settings: object) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | settings))


# --- what is refused


def test_a_missing_folder(tmp_path: Path) -> None:
    assert f"{tmp_path / 'nowhere'}: no such model folder" in refused(tmp_path / "nowhere")
    assert "no such model folder" in refused("./nowhere")


def test_a_file_in_place_of_a_folder(folder: Path) -> None:
    assert f"is a file; name the folder that it is in, {folder}" in refused(folder / "model.safetensors")


def test_no_config(folder: Path) -> None:
    (folder / "config.json").unlink()
    assert f"{folder}: has no config.json" in refused(folder)


def test_a_config_that_is_not_json(folder: Path) -> None:
    (folder / "config.json").write_text('{"model_type": "esm",')
    assert "config.json is not JSON" in refused(folder)


def test_pickles_are_never_opened(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    assert "has no model.safetensors; the folder is incomplete" in refused(folder)
    (folder / "pytorch_model.bin").write_bytes(b"cos\nsystem\n(S'touch opened'\ntR.")
    assert "has pickled weights only" in refused(folder)


def test_truncated_weights(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    assert f"{path}: is damaged" in refused(folder)
    path.write_bytes(b"")
    assert f"{path}: is damaged" in refused(folder)


def test_weights_that_are_no_numbers(folder: Path) -> None:
    path = folder / "model.safetensors"
    weights = load_file(path)
    weights["esm.encoder.layer.1.output.dense.weight"][3, 5] = torch.nan
    save_file(weights, path, metadata={"format": "pt"})
    assert "'esm.encoder.layer.1.output.dense.weight' holds NaN or infinite values" in refused(folder)


def test_missing_weights(folder: Path) -> None:
    path = folder / "model.safetensors"
    weights = {key: w for key, w in load_file(path).items() if "layer.1.output" not in key}
    save_file(weights, path, metadata={"format": "pt"})
    assert "lacks 2 weights, first 'esm.encoder.layer.1.output.dense.bias'" in refused(folder)
    assert "lacks 2 weights" in refused(folder, labels=["a", "b"])


@pytest.mark.parametrize("labels", [None, ["a", "b"]])
def test_weights_of_another_shape(folder: Path, labels: list[str] | None) -> None:
    """Even where a fresh head may differ in shape, the encoder may not: it would silently be random."""
    set_config(folder, intermediate_size=50)
    refused(folder, labels=labels)
    if labels:
        assert "9 weights have another shape than config.json says" in refused(folder, labels=labels)


def test_an_unsupported_architecture_lists_the_supported(folder: Path) -> None:
    set_config(folder, model_type="gpt2")
    line = refused(folder)
    assert "model type 'gpt2' is not supported; supported: esm (ESM-2, ESM-1b, ESM-1v), esmc (ESM-C)" in line
    assert line.endswith("bert (ProtBert); a new one is one row of plmscope.models.architectures.ARCHITECTURES")


def test_an_unknown_architecture(folder: Path) -> None:
    set_config(folder, model_type="no-such-type")
    assert str(folder) in refused(folder)


def test_no_head_and_no_labels(tiny_folder: Path, tmp_path: Path) -> None:
    encoder = encoder_folder(tiny_folder, tmp_path)
    assert "has no classification head; fine-tune it first" in refused(encoder)
    assert load_model(encoder, labels=["x", "y"]).labels == ("x", "y")


def test_a_tokenizer_of_something_else(folder: Path) -> None:
    for name in ("vocab.txt", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"):
        (folder / name).unlink(missing_ok=True)
    (folder / "vocab.txt").write_text("\n".join("<cls> <pad> <eos> <unk> A C G T X B U Z O <mask>".split()))
    EsmTokenizer(vocab_file=str(folder / "vocab.txt")).save_pretrained(folder)
    assert "knows 4 of the 20 amino acids; not a protein model" in refused(folder)


def test_impossible_settings(tiny_folder: Path) -> None:
    assert "'float8' is not known; choose one of float32, bfloat16, float16" in refused(tiny_folder, dtype="float8")
    if not torch.cuda.is_available():
        assert "'cuda' is not available here" in refused(tiny_folder, device="cuda")
    for device in ("mps", "meta", "gpu"):
        said = f"device '{device}' is not known; use cpu, cuda, cuda:1, cuda:all or auto"
        assert said in refused(tiny_folder, device=device)


# --- heads


def encoder_folder(tiny_folder: Path, tmp_path: Path) -> Path:
    """The tiny model's encoder as a masked language model's folder, as checkpoints on the hub are."""
    classifier = EsmForSequenceClassification.from_pretrained(tiny_folder)
    config = classifier.config
    model = EsmForMaskedLM(config)
    model.esm.load_state_dict(classifier.esm.state_dict(), strict=False)
    model.save_pretrained(tmp_path / "encoder")
    shutil.copy(tiny_folder / "vocab.txt", tmp_path / "encoder")
    EsmTokenizer(vocab_file=str(tiny_folder / "vocab.txt")).save_pretrained(tmp_path / "encoder")
    return tmp_path / "encoder"


def head(model: Classifier) -> torch.Tensor:
    return torch.cat([p.flatten() for p in model.model.classifier.parameters()])


def encoder(model: Classifier) -> torch.Tensor:
    return torch.cat([p.flatten() for name, p in model.model.named_parameters() if "esm.encoder" in name])


def test_a_fresh_head_follows_from_the_seed(tiny_folder: Path, tmp_path: Path) -> None:
    folder = encoder_folder(tiny_folder, tmp_path)
    one, same, other = (load_model(folder, labels=["a", "b"], seed=seed) for seed in (1, 1, 2))
    assert torch.equal(head(one), head(same)) and not torch.equal(head(one), head(other))
    assert torch.equal(encoder(one), encoder(other))


@pytest.mark.parametrize("labels", [["a", "b"], ["a", "b", "c"]])
def test_labels_never_name_the_head_of_other_classes(tiny_folder: Path, tiny: Classifier, labels: list[str]) -> None:
    """A checkpoint that has a head, of another size or the same: the head is fresh, the encoder is not."""
    model = load_model(tiny_folder, labels=labels, seed=3)
    assert model.labels == tuple(labels) and model.model.config.num_labels == len(labels)
    assert model.model.classifier.out_proj.weight.std() < 0.1 < tiny.model.classifier.out_proj.weight.std()
    assert model.model.classifier.dense.weight.std() < 0.1 < tiny.model.classifier.dense.weight.std()
    assert torch.equal(encoder(model), encoder(tiny))
    assert torch.equal(head(model), head(load_model(tiny_folder, labels=labels, seed=3)))


def test_a_trained_head_for_these_classes_stays(tiny_folder: Path, tiny: Classifier) -> None:
    said: list[str] = []
    for labels in (LABELS, LABELS[::-1]):
        model = load_model(tiny_folder, labels=labels, say=said.append)
        assert torch.equal(head(model), head(tiny)) and model.labels == LABELS and not model.new_head
    assert not said
    model = load_model(tiny_folder, labels=LABELS, say=said.append, new_head=True)
    assert not torch.equal(head(model), head(tiny)) and model.new_head
    line = f"{tiny_folder}: its classification head for '1, 2, 3' is replaced by a new one"
    assert said == [f"{line}, as new_head says"]


def test_random_weights_share_nothing_but_the_shape(tiny_folder: Path, tiny: Classifier) -> None:
    one, other = (load_model(tiny_folder, labels=LABELS, random_weights=True, seed=seed) for seed in (1, 2))
    assert one.index == tiny.index and one.sha256 == "" != tiny.sha256
    assert not torch.equal(encoder(one), encoder(tiny)) and not torch.equal(encoder(one), encoder(other))


def test_class_names_survive_saving(tiny_folder: Path, tmp_path: Path) -> None:
    labels = ["transferases", "1", "ATP; binding"]
    model = load_model(tiny_folder, labels=labels)
    model.save(tmp_path / "saved")
    config = json.loads((tmp_path / "saved" / "config.json").read_text())
    assert config["id2label"] == {"0": labels[0], "1": labels[1], "2": labels[2]}
    back = load_model(tmp_path / "saved")
    assert back.labels == tuple(labels)
    proteins = make_proteins(4)
    assert (back.log_probabilities(proteins) == model.log_probabilities(proteins)).all()
    assert sorted(p.suffix for p in (tmp_path / "saved").iterdir() if "model" in p.name) == [".safetensors"]


def test_a_classifier_prints_itself(tiny: Classifier) -> None:
    assert repr(tiny).endswith("esm, 3 layers, 0.0 M parameters, 504 neurons, classes: 1, 2, 3)")


def test_the_digest_is_that_of_the_weights(folder: Path, tiny: Classifier) -> None:
    assert load_model(folder).sha256 == tiny.sha256
    assert load_model(save_tiny_model(folder, seed=1)).sha256 != tiny.sha256


# --- tokens and batches


def test_tokens_are_those_of_the_tokenizer(tiny: Classifier) -> None:
    for sequence in ("ACDEFGHIKLMNPQRSTVWY", "MXBUZO", *(p.sequence for p in make_proteins(5))):
        assert tiny.encode(sequence).tolist() == tiny.tokenizer(sequence)["input_ids"]


def test_a_letter_without_a_token_is_named(tiny: Classifier) -> None:
    with pytest.raises(InputError, match=r"residue 'J' at position 3 has no token in .*; replace it by X"):
        tiny.encode("ACJDJ")
    with pytest.raises(InputError, match=r"residue '\.' at position 1"):
        tiny.encode(".AC")  # a token, but no residue


@pytest.mark.parametrize("budget", [1, 50, 100, 10_000])
def test_batches_hold_every_protein_once_within_the_budget(tiny: Classifier, budget: int) -> None:
    proteins = make_proteins(17, seed=3)
    batches = list(tiny.batches(proteins, budget))
    assert sorted(row for batch in batches for row in batch.rows) == list(range(17))
    lengths = [len(proteins[row]) for batch in batches for row in batch.rows]
    assert lengths == sorted(lengths, reverse=True)
    for batch in batches:
        assert batch.input_ids.numel() <= budget or len(batch.rows) == 1
        assert batch.input_ids.shape[1] == max(batch.lengths)
    assert len(tiny.batches(proteins, budget)) == len(batches)
    again = [batch.rows for batch in tiny.batches(proteins, budget)]
    assert again == [batch.rows for batch in batches]


def test_padding_is_on_the_right_and_masked(tiny: Classifier) -> None:
    batch = tiny.batch([Protein("a", "ACD"), Protein("b", "MKLVWY")])
    cls, pad, eos = (tiny.tokenizer.get_vocab()[token] for token in ("<cls>", "<pad>", "<eos>"))
    assert batch.input_ids.tolist()[0] == [cls, *tiny.encode("ACD")[1:4], eos, pad, pad, pad]
    assert batch.attention_mask.tolist() == [[1] * 5 + [0] * 3, [1] * 8]
    assert batch.lengths.tolist() == [5, 8]
    assert batch.residue_mask.int().tolist() == [[0, 1, 1, 1, 0, 0, 0, 0], [0, 1, 1, 1, 1, 1, 1, 0]]


def test_probabilities_are_in_the_order_of_the_proteins(tiny: Classifier) -> None:
    proteins = make_proteins(9, seed=6)
    alone = np.concatenate([tiny.log_probabilities([p]) for p in proteins])
    np.testing.assert_allclose(tiny.log_probabilities(proteins, 100), alone, atol=1e-4)
    np.testing.assert_allclose(np.exp(alone).sum(1), 1)


def test_protbert_reads_spaced_residues_and_rare_ones_as_x(tmp_path: Path) -> None:
    model = load_model(save_protbert(tmp_path))
    for sequence in ("ACDEFGHIKLMNPQRSTVWYX", "MKL"):
        assert model.encode(sequence).tolist() == model.tokenizer(" ".join(sequence))["input_ids"]
    assert model.encode("MUZOB").tolist() == model.encode("MXXXX").tolist()
    rare = [Protein("a", "MUZOBX"), Protein("b", "MKL"), Protein("c", "UMK")]
    assert model.read_as_x(rare) == "5 residues of 2 proteins are read as X (one of U, Z, O, B)"
    assert model.read_as_x(rare[1:2]) == ""


def test_esmc_tokens_are_those_of_the_tokenizer(tmp_path: Path, tiny: Classifier) -> None:
    model = load_model(save_esmc(tmp_path))
    sequence = "ACDEFGHIKLMNPQRSTVWYXBUZO"
    assert model.encode(sequence).tolist() == model.tokenizer(sequence)["input_ids"]
    assert (model.max_residues, model.has_learned_positions, tiny.has_learned_positions) == (126, False, False)


def test_a_protein_longer_than_the_learned_positions(tmp_path: Path) -> None:
    for model, longest in (
        (load_model(save_protbert(tmp_path / "a", max_position_embeddings=12)), 10),
        (load_model(save_tiny_model(tmp_path / "b", position_embedding_type="absolute")), 126),
    ):
        assert np.isfinite(model.log_probabilities([Protein("fits", "A" * longest)])).all()
        with pytest.raises(
            InputError, match=rf"{longest + 1} residues, but .* has positions for {longest}; set \[data\]"
        ):
            model.encode("A" * (longest + 1))


def test_a_head_that_reads_the_mean(tiny_folder: Path, tmp_path: Path) -> None:
    """The same as the stock head on the mean of the residues; saved and loaded as such."""
    model = load_model(tiny_folder, pooling="mean")
    proteins = make_proteins(5)
    with torch.no_grad():
        for protein in proteins:
            batch = model.batch([protein])
            hidden = model.model.esm(input_ids=batch.input_ids, attention_mask=batch.attention_mask)[0]
            logits = model.model.classifier(hidden[:, 1:-1].mean(1, keepdim=True))
            ours = model.log_probabilities(proteins)[proteins.index(protein)]
            np.testing.assert_allclose(ours, logits.log_softmax(-1)[0], atol=1e-4)
    model.save(tmp_path / "saved")
    back = load_model(tmp_path / "saved")
    assert back.pooling == "mean"
    assert (back.log_probabilities(proteins) == model.log_probabilities(proteins)).all()
    assert "its head reads the mean of the residues (plmscope_pooling in config.json)" in refused(
        tmp_path / "saved", pooling="first"
    )
    assert "pooling 'max' is not known; choose one of first, mean" in refused(tiny_folder, pooling="max")


def test_half_precision_spares_the_rotary_frequencies(tiny_folder: Path, tiny: Classifier) -> None:
    half = load_model(tiny_folder, dtype="bfloat16")
    assert half.model.classifier.dense.weight.dtype == torch.bfloat16
    assert torch.equal(half.model.esm.rotary_embeddings.inv_freq, tiny.model.esm.rotary_embeddings.inv_freq)
    assert np.isfinite(half.log_probabilities(make_proteins(3))).all()


ESM = {"vocab_size": 33, "mask_token_id": 32, "pad_token_id": 1, "max_position_embeddings": 1026}


@pytest.mark.parametrize(
    ("config", "parameters"),
    [
        (EsmConfig(hidden_size=320, num_hidden_layers=6, num_attention_heads=20, intermediate_size=1280, **ESM), 8e6),
        (EsmConfig(hidden_size=5120, num_hidden_layers=48, num_attention_heads=40,
                   intermediate_size=20480, **ESM), 15e9),
        (EsmcConfig(hidden_size=960, num_hidden_layers=30, num_attention_heads=15, intermediate_size=2560), 3.3e8),
        (EsmcConfig(), 6.4e9),
        (BertConfig(vocab_size=30, hidden_size=1024, num_hidden_layers=30, num_attention_heads=16,
                    intermediate_size=4096, max_position_embeddings=40_000), 4.2e8),
    ],
    ids=["ESM-2 8M", "ESM-2 15B", "ESM-C 300M", "ESM-C 6B", "ProtBert"],
)  # fmt: skip
def test_the_table_fits_published_shapes(config: PretrainedConfig, parameters: float) -> None:
    """Every site of a model without memory is where the table says, and as wide as the index says."""
    with torch.device("meta"):
        model = AutoModelForSequenceClassification.from_config(config)
    assert sum(p.numel() for p in model.parameters()) == pytest.approx(parameters, rel=0.07)
    row = ARCHITECTURES[config.model_type]
    index = NeuronIndex.of(config.num_hidden_layers, config.hidden_size, config.intermediate_size)
    assert len(model.get_submodule(row.layers)) == config.num_hidden_layers
    for site, width in zip(index.sites, index.widths, strict=True):
        place = row.modules[site.module]
        module = model.get_submodule(f"{row.layers}.{site.layer}.{place.path}")
        linear = module if isinstance(module, torch.nn.Linear) else module.dense
        assert (linear.in_features if place.side == "input" else linear.out_features) == width
    for path in (row.embeddings, *row.after, row.head):
        model.get_submodule(path)


# --- labels


def test_labels_are_numbered_as_the_logits_are(tiny: Classifier) -> None:
    proteins = [Protein(label, "ACD", label) for label in ("3", "1", "2", "1")]
    assert tiny.targets(proteins).tolist() == [2, 0, 1, 0]


@pytest.mark.parametrize("label", ["7", None])
def test_an_unknown_label_is_named(tiny: Classifier, label: str | None) -> None:
    with pytest.raises(InputError, match=f"protein 'odd' has the label {label!r}; the model knows 1, 2, 3"):
        tiny.targets([Protein("fine", "ACD", "1"), Protein("odd", "ACD", label)])
