"""Finding checkpoints: the hub and its cache, what is refused in a folder and how it is said."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from plmscope.errors import ModelError
from plmscope.models.checkpoints import Checkpoint
from plmscope.models.finding import find_checkpoint
from plmscope.models.loading import load_model
from tests.hub import Hub, serving
from tests.test_loading import encoder_folder, folder, refused, set_config  # noqa: F401  # the fixture

# --- the hub

#: Runs in a process of its own, since the hub's address is read when its library is imported.
USE_HUB = """
import json, sys
from pathlib import Path
from huggingface_hub import constants
from plmscope.models.finding import find_checkpoint
from plmscope.errors import ModelError

def attempt(name, revision=None):
    try:
        found = find_checkpoint(name, revision, said.append)
        return {"revision": found.revision, "files": found.files, "sha256": found.sha256, "folder": str(found.folder)}
    except ModelError as error:
        return str(error)

said = []
got = {"first": attempt("lab/tiny"), "second": attempt("lab/tiny"), "tag": attempt("lab/tiny", "v1")}
got |= {name: attempt(name) for name in ("lab/parts", "lab/pickled", "lab/empty", "lab/absent", "lab/gated", "a b/c")}
got["revision"] = attempt("lab/tiny", "v9")
constants.HF_HUB_OFFLINE = True
got |= {"offline": attempt("lab/tiny"), "offline absent": attempt("lab/parts", "v1")}
constants.HF_HUB_OFFLINE = False
blob = (Path(got["first"]["folder"]) / "model.safetensors").resolve()
blob.write_bytes(blob.read_bytes()[:-1] + b"x")
got["tampered"] = attempt("lab/tiny")
print(json.dumps(got | {"said": said}))
"""


def test_the_hub(tiny_folder: Path, tmp_path: Path) -> None:
    """Download, cache, revisions, parts, pickles, consent, offline, damage; everything of the standard cache's."""
    folders = {name: tmp_path / name for name in ("parts", "pickled", "empty", "gated")}
    for name, path in folders.items():
        shutil.copytree(tiny_folder, path)
        if name != "gated":
            (path / "model.safetensors").unlink()
    weights = load_file(tiny_folder / "model.safetensors")
    half = sorted(weights)[: len(weights) // 2]
    parts = {"model-00001-of-00002.safetensors": half, "model-00002-of-00002.safetensors": sorted({*weights} - {*half})}
    for file, keys in parts.items():
        save_file({key: weights[key] for key in keys}, folders["parts"] / file, metadata={"format": "pt"})
    index = {"metadata": {}, "weight_map": {key: file for file, keys in parts.items() for key in keys}}
    (folders["parts"] / "model.safetensors.index.json").write_text(json.dumps(index))
    (folders["pickled"] / "pytorch_model.bin").write_bytes(b"cos\nsystem\n(S'touch opened'\ntR.")
    hub = Hub({"lab/tiny": tiny_folder} | {f"lab/{name}": path for name, path in folders.items()})
    hub.gated.add("lab/gated")
    home = tmp_path / "home"
    with serving(hub) as address:
        env = os.environ | {"HF_ENDPOINT": address, "HF_HOME": str(home), "HF_HUB_OFFLINE": "0", "NO_PROXY": "*"}
        done = subprocess.run(
            [sys.executable, "-c", USE_HUB], env=env, capture_output=True, text=True, timeout=120, check=False
        )
    assert done.returncode == 0, done.stderr
    got = json.loads(done.stdout)
    digest = hashlib.sha256((tiny_folder / "model.safetensors").read_bytes()).hexdigest()
    assert got["first"] == got["second"] == got["tag"] == got["offline"]
    assert got["first"]["revision"] == hub.commit("lab/tiny") and got["first"]["sha256"] == digest
    assert got["first"]["files"]["model.safetensors"] == digest
    assert {"config.json", "vocab.txt", "tokenizer_config.json"} < set(got["first"]["files"])
    assert Path(got["first"]["folder"]).is_relative_to(home / "hub" / "models--lab--tiny")
    fetched = [line for line in hub.asked if line.startswith("GET /cdn/lab/tiny")]
    assert len(fetched) == 1  # the second time it is in the cache
    assert got["said"][0] == f"lab/tiny: 0.1 MB on the hub, kept in {home / 'hub'}"
    assert sorted(got["lab/parts"]["files"])[1:3] == sorted(parts)
    assert not any("pytorch_model.bin" in line for line in hub.asked)
    assert got["lab/pickled"].startswith("lab/pickled: has pickled weights only, which plmscope never opens; name a")
    assert got["lab/empty"] == "lab/empty: has no model.safetensors on the hub; name a model with safetensors"
    assert got["lab/absent"].startswith(f"lab/absent: is neither a folder nor a model on {address}; check the name")
    assert got["lab/gated"].startswith("lab/gated: its authors ask for consent; give it on")
    assert got["a b/c"].startswith("a b/c: no such model folder, and no hub id either")
    assert got["revision"] == f"lab/tiny: has no revision 'v9' on {address}; check [model] revision"
    assert got["offline absent"] == (
        f"lab/parts at revision v1: is not in the cache {home / 'hub'}, and HF_HUB_OFFLINE is set; "
        "run once with the network (hf download lab/parts --revision v1), or name a folder"
    )
    assert got["tampered"].endswith("is not what the hub announced (sha256 differs); delete it and run again")


def test_commit_and_files_are_known_to_the_model(tiny_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint = Checkpoint("lab/tiny", tiny_folder, "0" * 40)
    monkeypatch.setattr("plmscope.models.loading.find_checkpoint", lambda *_: checkpoint)
    model = load_model("lab/tiny")
    assert (model.name, model.revision) == ("lab/tiny", "0" * 40)
    assert model.files["model.safetensors"] == model.sha256


# --- folders


def test_code_that_comes_with_a_model_is_never_run(folder: Path) -> None:  # noqa: F811
    set_config(folder, auto_map={"AutoConfig": "evil.EvilConfig"})
    (folder / "evil.py").write_text("from pathlib import Path\nPath(__file__).with_name('opened').touch()\n")
    assert "config.json asks for code that comes with the model (auto_map), which plmscope never runs" in refused(
        folder
    )
    set_config(folder, auto_map=None)
    path = folder / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"auto_map": {"AutoTokenizer": ["evil.T", None]}}))
    assert "tokenizer_config.json asks for code" in refused(folder)
    assert not (folder / "opened").exists()


def test_a_pickle_beside_safetensors_is_left_alone(folder: Path, tmp_path: Path) -> None:  # noqa: F811
    for name in ("pytorch_model.bin", "training_args.bin", "optimizer.pt"):
        (folder / name).write_bytes(f"cos\nsystem\n(S'touch {tmp_path / 'opened'}'\ntR.".encode())
    assert load_model(folder).files.keys() == {"config.json", "model.safetensors", "tokenizer_config.json", "vocab.txt"}
    assert not (tmp_path / "opened").exists()


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"num_hidden_layers": 10**9}, "num_hidden_layers = 1000000000, must be a whole number from 1 to 512"),
        ({"num_hidden_layers": "three"}, "num_hidden_layers = 'three', must be a whole number"),
        ({"hidden_size": -24}, "hidden_size = -24, must be"),
        ({"hidden_size": 25}, "hidden_size = 25 is no multiple of num_attention_heads = 3"),
        ({"vocab_size": True}, "vocab_size = True, must be"),
        ({"layer_norm_eps": float("nan")}, "layer_norm_eps = nan"),
        ({"num_hidden_layers": 500, "intermediate_size": 2**18}, "config.json asks for 6,292,608,000 weights or more"),
        ({"hidden_dropout_prob": "much"}, "hidden_dropout_prob"),
        ({"vocab_size": 20}, "1 weights have another shape than config.json says"),
        ({"id2label": ["a", "b"]}, "id2label does not number its classes from 0"),
        (
            {"id2label": {"1": "a", "2": "b"}, "label2id": {"a": 1, "b": 2}},
            "id2label does not number its classes from 0; correct it",
        ),
        ({"quantization_config": {"bits": 4}}, "its weights are quantised"),
        ({"plmscope_pooling": "max"}, "plmscope_pooling = 'max'; choose one of first, mean"),
    ],
)
def test_impossible_configurations(folder: Path, settings: dict[str, object], words: str) -> None:  # noqa: F811
    set_config(folder, **settings)
    labels = ["a", "b", "c"] if "vocab_size" in settings else None
    assert words in refused(folder, labels=labels)


@pytest.mark.parametrize("text", ["[1]", "[" * 100_000, '{"model_type": '])
def test_a_config_that_is_no_object(folder: Path, text: str) -> None:  # noqa: F811
    (folder / "config.json").write_text(text)
    assert "config.json is not" in refused(folder)


def test_parts_that_are_missing_or_elsewhere(folder: Path) -> None:  # noqa: F811
    weights = folder / "model.safetensors"
    weights.rename(folder / "model-00001-of-00002.safetensors")
    index = {"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    assert "has no model-00002-of-00002.safetensors, one of 2 parts" in refused(folder)
    for name in ("../model.safetensors", "weights.bin"):
        (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": name}}))
        assert "names files outside the folder or of another kind" in refused(folder)


def test_a_tokenizer_that_is_no_tokenizer(folder: Path) -> None:  # noqa: F811
    (folder / "tokenizer.json").write_text('{"version": "1.0", "model": {"type": "nonsense"}}')
    set_tokenizer = folder / "tokenizer_config.json"
    set_tokenizer.write_text(json.dumps({"tokenizer_class": "PreTrainedTokenizerFast"}))
    assert "the tokenizer cannot be read (" in refused(folder)


def test_a_vocabulary_of_another_model(folder: Path) -> None:  # noqa: F811
    path = folder / "vocab.txt"
    path.write_text("\n".join([f"<extra{i}>" for i in range(20)]) + "\n" + path.read_text())
    (folder / "tokenizer.json").unlink(missing_ok=True)
    assert "the vocabulary is that of another model" in refused(folder)


# --- older releases and foreign weights


def renamed(folder: Path, rename: dict[str, str], **more: torch.Tensor) -> None:  # noqa: F811
    """Write the weights under other names, with some more."""
    weights = {}
    for key, weight in load_file(folder / "model.safetensors").items():
        for old, new in rename.items():
            key = key.replace(old, new)
        weights[key] = weight
    save_file(weights | more, folder / "model.safetensors", metadata={"format": "pt"})


def test_names_of_older_releases(folder: Path) -> None:  # noqa: F811
    """LayerNorm gamma and beta, rotary frequencies in every layer, position ids: the same model."""
    before = load_model(folder).model.state_dict()
    frequencies = before["esm.rotary_embeddings.inv_freq"] * 1.001  # theirs, not computed again
    more = {f"esm.encoder.layer.{i}.attention.self.rotary_embeddings.inv_freq": frequencies.clone() for i in range(3)}
    more["esm.embeddings.position_ids"] = torch.arange(130)[None]
    rename = {"LayerNorm.weight": "LayerNorm.gamma", "LayerNorm.bias": "LayerNorm.beta"}
    weights = load_file(folder / "model.safetensors")
    weights.pop("esm.rotary_embeddings.inv_freq", None)
    save_file({k: w.normal_() if "LayerNorm" in k else w for k, w in weights.items()}, folder / "model.safetensors")
    renamed(folder, rename, **more)
    after = load_model(folder).model.state_dict()
    for key, weight in load_file(folder / "model.safetensors").items():
        now = key.replace("LayerNorm.gamma", "LayerNorm.weight").replace("LayerNorm.beta", "LayerNorm.bias")
        if now in before:
            assert torch.equal(after[now], weight), key
    assert torch.equal(after["esm.rotary_embeddings.inv_freq"], frequencies)


@pytest.mark.parametrize("labels", [None, ["a", "b"]])
def test_weights_without_a_place(folder: Path, labels: list[str] | None) -> None:  # noqa: F811
    """A deeper model whose configuration was cut would otherwise lose its last layers without a word."""
    set_config(folder, num_hidden_layers=2)
    line = refused(folder, labels=labels)
    assert "16 weights have no place in a model of type 'esm'" in line
    assert "first 'esm.encoder.layer.2.LayerNorm.bias'" in line


def test_half_a_head(folder: Path) -> None:  # noqa: F811
    renamed(folder, {"classifier.dense": "classifier.thick"})
    assert "its head is of its own kind (first weight 'classifier.out_proj.bias')" in refused(folder)


def test_what_is_new_and_what_is_left_out_is_said(tiny_folder: Path, tmp_path: Path) -> None:
    said: list[str] = []
    load_model(encoder_folder(tiny_folder, tmp_path), labels=["a", "b"], say=said.append)
    assert "4 weights of the classification head are not in the checkpoint, they are new" in said[0]
    assert "weights of another head are left out, first 'lm_head" in said[1]


def test_nothing_is_found_under_an_impossible_name(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no such model folder"):
        find_checkpoint(str(tmp_path / "a" / "b"))
    with pytest.raises(ModelError, match="no such model folder"):
        find_checkpoint("runs/mine/model")
