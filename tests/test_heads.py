"""Classifiers as people have them: whose head it is, what its files say, and what was around the weights."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import peft
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModel,
    AutoModelForMaskedLM,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    AutoTokenizer,
)

from plmscope.models.classifier import Classifier
from plmscope.models.loading import load_model
from tests.conftest import LABELS, make_proteins, save_tiny_model
from tests.families import save_esmc, save_protbert
from tests.hub import Hub, serving
from tests.test_loading import encoder, head, refused, set_config

FAMILIES: dict[str, Callable[..., Path]] = {"esm": save_tiny_model, "esmc": save_esmc, "protbert": save_protbert}
PROTEINS = make_proteins(4)
DEFAULT = {f"LABEL_{i}": i for i in range(3)}
NAMELESS: dict[str, Any] = {"id2label": {i: name for name, i in DEFAULT.items()}, "label2id": DEFAULT}


@pytest.fixture(scope="module", params=FAMILIES)
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A classifier of every family, as transformers saves it."""
    return FAMILIES[request.param](tmp_path_factory.mktemp(request.param) / "model")


def again(folder: Path, new: Path, rename: Callable[[str], str] = str, **more: torch.Tensor) -> Path:
    """A copy with other names of its weights, and more of them; each is a copy without shared memory."""
    shutil.copytree(folder, new)
    weights = {rename(key): weight.clone() for key, weight in load_file(folder / "model.safetensors").items()}
    save_file(
        weights | {key.replace("__", "."): w for key, w in more.items()}, new / "model.safetensors", {"format": "pt"}
    )
    return new


def saved_as(kind: Any, folder: Path, new: Path) -> Path:
    """The same encoder saved by another class of transformers, with its tokenizer."""
    kind.from_pretrained(folder).save_pretrained(new)
    AutoTokenizer.from_pretrained(folder).save_pretrained(new)
    return new


def theirs(folder: Path) -> np.ndarray:
    """Logits of transformers alone."""
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    batch = load_model(folder).batch(PROTEINS)
    with torch.no_grad():
        return model(input_ids=batch.input_ids, attention_mask=batch.attention_mask).logits.log_softmax(-1).numpy()


def loaded(folder: Path, **settings: Any) -> tuple[Classifier, list[str]]:
    """A classifier and what was said."""
    said: list[str] = []
    return load_model(folder, say=said.append, **settings), said


# --- what was around the model ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("prefix", ["module.", "model.", "module.model.", "_orig_mod.", "student._orig_mod."])
def test_the_prefix_of_a_wrapper_is_taken_off(made: Path, tmp_path: Path, prefix: str) -> None:
    wrapped = again(made, tmp_path / "wrapped", lambda key: prefix + key)
    model, said = loaded(wrapped)
    np.testing.assert_allclose(model.log_probabilities(PROTEINS), theirs(made), atol=1e-5)
    outer = prefix.replace("_orig_mod.", "")
    assert said == ([f"{wrapped}: the prefix {outer!r} of the names of its weights is taken off"] if outer else [])
    model.save(tmp_path / "saved")
    assert not any(key.startswith(prefix) for key in load_file(tmp_path / "saved" / "model.safetensors"))
    assert (load_model(tmp_path / "saved").log_probabilities(PROTEINS) == model.log_probabilities(PROTEINS)).all()
    assert not load_model(wrapped, labels=LABELS).new_head


def test_a_part_that_was_compiled_or_sharded(tmp_path: Path) -> None:
    folder = save_tiny_model(tmp_path / "model")
    infixes = {"esm.encoder.": "esm._orig_mod.encoder.", "attention.self": "_fsdp_wrapped_module.attention.self"}

    def rename(key: str) -> str:
        for old, new in infixes.items():
            key = key.replace(old, new)
        return key

    model = load_model(again(folder, tmp_path / "compiled", rename))
    np.testing.assert_allclose(model.log_probabilities(PROTEINS), theirs(folder), atol=1e-5)


def test_a_bare_encoder(made: Path, tmp_path: Path) -> None:
    """``AutoModel...save_pretrained``: names without their first part, and ESM's pooler, which nothing reads."""
    bare = saved_as(AutoModel, made, tmp_path / "bare")
    assert not any(key.startswith(("esm.", "esmc.", "bert.")) for key in load_file(bare / "model.safetensors"))
    model, said = loaded(bare, labels=["a", "b"], seed=1)
    ours, whole = model.model.state_dict(), load_model(made).model.state_dict()
    same = [key for key in whole if not key.startswith("classifier.") and "pooler" not in key]
    assert len(same) > 10 and all(torch.equal(ours[key], whole[key]) for key in same)
    assert model.new_head and any(
        "weights of the classification head are not in the checkpoint" in line for line in said
    )
    if "esm" in ours or any(key.startswith("esm.") for key in ours):
        assert f"{bare}: 2 weights of another head are left out, first 'esm.pooler.dense.bias'" in said
    assert f"{bare}: has no classification head; fine-tune it first" in refused(bare)
    model.save(tmp_path / "saved")
    assert (load_model(tmp_path / "saved").log_probabilities(PROTEINS) == model.log_probabilities(PROTEINS)).all()


@pytest.mark.parametrize("inside", ["net.esm.", "net.encoder."])
def test_an_encoder_inside_a_module_of_ones_own(tmp_path: Path, inside: str) -> None:
    """Its own head is of no class that plmscope knows: the encoder alone can be used, and that is said."""
    folder = save_tiny_model(tmp_path / "model")
    bare = saved_as(AutoModel, folder, tmp_path / "bare")
    net = again(bare, tmp_path / "net", lambda key: inside + key, net__head__weight=torch.ones(3, 24))
    model, said = loaded(net, labels=["a", "b"])
    assert torch.equal(encoder(model), encoder(load_model(folder)))
    prefix = "net." if inside == "net.esm." else inside
    assert f"{net}: the prefix {prefix!r} of the names of its weights is taken off" in said
    assert any("weights of another head are left out" in line for line in said)
    name = "head.weight" if inside == "net.esm." else "net.head.weight"
    line = refused(net)
    assert f"its head is that of EsmModel (first weight {name!r}), which does not classify whole sequences" in line
    model.save(tmp_path / "saved")
    assert torch.equal(encoder(load_model(tmp_path / "saved")), encoder(model))


def test_what_cannot_be_unwrapped(tmp_path: Path) -> None:
    folder = save_tiny_model(tmp_path / "model")
    more = {f"teacher.{key}": weight for key, weight in load_file(folder / "model.safetensors").items()}
    both = again(folder, tmp_path / "both", lambda key: f"student.{key}", **more)
    assert "holds 2 models, with names that start with 'student.esm.' and 'teacher.esm.'" in refused(both)
    bert = again(folder, tmp_path / "bert", lambda key: key.replace("esm.", "bert."))
    assert "its weights are those of a model of type 'bert', config.json says 'esm'" in refused(bert)
    other = again(folder, tmp_path / "other", lambda key: key.replace("encoder.layer", "layers"))
    assert (
        "no weight is called '...encoder.layer.0.attention.self.query.weight', as those of a model of type 'esm'"
        in (refused(other))
    )
    model = peft.get_peft_model(
        AutoModelForSequenceClassification.from_pretrained(folder), peft.LoraConfig(target_modules=["query"])
    )
    unmerged = shutil.copytree(folder, tmp_path / "unmerged")
    save_file({k: v.clone() for k, v in model.state_dict().items()}, unmerged / "model.safetensors", {"format": "pt"})
    assert "holds a LoRA model that was not merged (first weight 'base_model.model." in refused(unmerged)
    model.base_model.merge_and_unload().save_pretrained(unmerged)  # type: ignore[operator]
    assert load_model(unmerged).labels == LABELS


def test_weights_of_a_training_step_are_left_out_and_others_are_not(tmp_path: Path) -> None:
    """A loss with class weights takes no part in a prediction; a pooling layer does."""
    folder = save_tiny_model(tmp_path / "model")
    more = {"criterion__weight": torch.ones(3), "val_f1__tp": torch.ones(3)}
    trained = again(folder, tmp_path / "a", lambda key: f"model.{key}", **more)
    model, said = loaded(trained)
    np.testing.assert_allclose(model.log_probabilities(PROTEINS), theirs(folder), atol=1e-5)
    assert f"{trained}: 2 weights of another head are left out, first 'criterion.weight'" in said
    pooled = again(folder, tmp_path / "b", attention_pool__weight=torch.ones(24))
    line = "1 weights are neither of the encoder nor of its head (first 'attention_pool.weight')"
    assert line in refused(pooled) and line in refused(pooled, labels=LABELS, new_head=False)
    model, said = loaded(pooled, labels=LABELS)
    assert model.new_head and any(line in one for one in said)


def test_a_head_that_labels_residues(made: Path, tmp_path: Path) -> None:
    tokens = saved_as(AutoModelForTokenClassification, made, tmp_path / "tokens")
    kind = json.loads((tokens / "config.json").read_text())["architectures"][0]
    assert f"its head is that of {kind} (first weight" in refused(tokens)
    models = [load_model(tokens, labels=LABELS, seed=seed) for seed in (1, 1, 2)]
    assert all(model.new_head for model in models)
    assert torch.equal(head(models[0]), head(models[1])) and not torch.equal(head(models[0]), head(models[2]))


def test_what_the_weights_are_stored_in_is_said(tiny_folder: Path, tmp_path: Path) -> None:
    half = shutil.copytree(tiny_folder, tmp_path / "half")
    weights = {key: w.to(torch.bfloat16) for key, w in load_file(tiny_folder / "model.safetensors").items()}
    save_file(weights, half / "model.safetensors", {"format": "pt"})
    assert loaded(half)[1] == [f"{half}: its weights are stored in bfloat16; they are computed with in float32"]
    assert loaded(half, dtype="bfloat16")[1] == loaded(tiny_folder)[1] == []


# --- whose classes they are -----------------------------------------------------------------------------------------


@pytest.fixture
def nameless(tmp_path: Path) -> Path:
    """A classifier whose classes were never named, as a Trainer saves it."""
    return save_tiny_model(tmp_path / "nameless", **NAMELESS)


def test_classes_without_names_are_named_by_a_setting(nameless: Path) -> None:
    line = refused(nameless, labels=["6", "2", "3"], new_head=False)
    assert line == (
        f"{nameless}: its 3 classes are called LABEL_0 to LABEL_2, those of the proteins 6, 2, 3; name its outputs in "
        'their order: [model] classes = ["6", "2", "3"] (if that is the order) or id2label in config.json, or '
        "fine-tune a new one ([finetune] epochs above 0)"
    )
    model, said = loaded(nameless, labels=["2", "3", "6"], classes=["6", "2", "3"], new_head=False)
    assert model.labels == ("6", "2", "3") and not model.new_head
    np.testing.assert_allclose(model.log_probabilities(PROTEINS), theirs(nameless), atol=1e-5)
    assert said == [f"{nameless}: its classes LABEL_0, LABEL_1, LABEL_2 are called 6, 2, 3, as classes says"]
    assert load_model(nameless, classes=["6", "2", "3"]).labels == ("6", "2", "3")
    model, said = loaded(nameless, labels=["2", "3", "6"])
    assert (
        model.new_head and 'to keep it, name its outputs in their order: [model] classes = ["2", "3", "6"]' in said[0]
    )


def test_names_in_the_configuration_do_as_well(nameless: Path) -> None:
    set_config(nameless, id2label={"0": "6", "1": "2", "2": "3"}, label2id={"6": 0, "2": 1, "3": 2})
    model = load_model(nameless, labels=["2", "3", "6"], new_head=False)
    assert model.labels == ("6", "2", "3") and not model.new_head
    line = "[model] classes has '2' as output 0, config.json (id2label) as output 1; correct one of them"
    assert line in refused(nameless, classes=["2", "6", "3"])
    assert load_model(nameless, classes=["alpha", "beta", "3"]).labels == ("alpha", "beta", "3")


def test_a_classifier_of_more_classes_keeps_them(tmp_path: Path) -> None:
    names = {i: str(i + 1) for i in range(7)}
    seven = save_tiny_model(tmp_path / "seven", id2label=names, label2id={name: i for i, name in names.items()})
    for new_head in (False, None):
        model, said = loaded(seven, labels=["2", "3", "6"], new_head=new_head)
        assert model.labels == tuple("1234567") and not model.new_head
        assert said == [f"{seven}: its head is for 7 classes and stays so; no protein has 1, 4, 5, 7"]
    np.testing.assert_allclose(model.log_probabilities(PROTEINS), theirs(seven), atol=1e-5)


def test_names_that_cannot_be_right(nameless: Path) -> None:
    assert "[model] classes has the class 'a' twice" in refused(nameless, classes=["a", "a", "b"])
    assert "[model] classes has 2 names, its head 3 outputs" in refused(nameless, classes=["a", "b"])
    assert "labels has the class 'a' twice; give every class its own name" in refused(nameless, labels=["a", "a"])
    assert "there is one class; a classifier needs two" in refused(nameless, labels=["a"], new_head=True)
    set_config(nameless, id2label={"0": "a", "1": "a", "2": "b"}, label2id={"a": 1, "b": 2})
    for labels in (None, ["a", "b"], ["x", "y"]):
        assert "config.json (id2label) has the class 'a' twice" in refused(nameless, labels=labels)
    assert load_model(nameless, classes=["x", "y", "z"]).labels == ("x", "y", "z")
    set_config(nameless, id2label={"0": "a", "1": "b"}, label2id={"a": 0, "b": 1})
    assert "config.json (id2label) names 2 classes, its head has 3 outputs" in refused(nameless)
    assert load_model(nameless, classes=["x", "y", "z"]).labels == ("x", "y", "z")


def test_names_for_a_head_that_is_not_there(tiny_folder: Path, tmp_path: Path) -> None:
    bare = saved_as(AutoModelForMaskedLM, tiny_folder, tmp_path / "bare")
    assert "[model] classes names the outputs of a trained head, and it has none; leave classes out" in (
        refused(bare, labels=["a", "b"], classes=["a", "b"])
    )


def test_a_regression_is_no_classifier(tmp_path: Path) -> None:
    two = save_tiny_model(tmp_path / "two", problem_type="regression", num_labels=2, **dict.fromkeys(NAMELESS))
    one = save_tiny_model(tmp_path / "one", problem_type="regression", num_labels=1, **dict.fromkeys(NAMELESS))
    for folder in (two, one):
        line = "its head predicts numbers, not classes (problem_type = 'regression' in config.json)"
        assert line in refused(folder) and line in refused(folder, labels=LABELS, new_head=False)
        model, said = loaded(folder, labels=LABELS)
        assert model.new_head and model.labels == LABELS and line in said[0]
    set_config(one, problem_type=None)
    assert "its head has one output; a yes-or-no classifier needs two classes" in refused(one)


# --- its task and what it reads --------------------------------------------------------------------------------------


def test_the_task_is_the_checkpoints(tmp_path: Path) -> None:
    multi = save_tiny_model(tmp_path / "multi", problem_type="multi_label_classification")
    assert load_model(multi).task == load_model(multi, labels=LABELS).task == "multi"
    assert not load_model(multi, labels=LABELS).new_head
    line = refused(multi, labels=LABELS, task="single", new_head=False)
    assert "was trained for problem_type = 'multi_label_classification' (config.json), and task is 'single'" in line
    assert 'set [data] task = "multi"' in line and "and task is 'single'" in refused(multi, task="single")
    model, said = loaded(multi, labels=LABELS, task="single")
    assert (model.task, model.new_head) == ("single", True) and "and task is 'single'" in said[0]


def test_a_task_that_the_checkpoint_does_not_say(tiny_folder: Path) -> None:
    """A multi-label head without ``problem_type``: the setting says what it is, and that is said."""
    assert json.loads((tiny_folder / "config.json").read_text()).get("problem_type") is None
    model, said = loaded(tiny_folder, labels=LABELS, task="multi", new_head=False)
    assert model.task == "multi" and not model.new_head and torch.equal(head(model), head(load_model(tiny_folder)))
    assert said == [
        f"{tiny_folder}: problem_type in config.json is not set, not 'multi_label_classification'; its head is taken "
        "as multi-label, a sigmoid per class, as task says"
    ]
    assert load_model(tiny_folder).task == load_model(tiny_folder, labels=LABELS).task == "single"


def test_what_the_head_reads_is_the_checkpoints(tmp_path: Path) -> None:
    mean = save_tiny_model(tmp_path / "mean", plmscope_pooling="mean")
    for labels in (None, LABELS, ["a", "b"]):
        assert load_model(mean, labels=labels).pooling == "mean"
    line = "its head reads the mean of the residues (plmscope_pooling in config.json), and pooling is 'first'"
    assert line in refused(mean, pooling="first") and line in refused(
        mean, labels=LABELS, pooling="first", new_head=False
    )
    model, said = loaded(mean, labels=["a", "b"], pooling="first")
    assert model.pooling == "first" and f"{mean}: the new head reads the first token, as pooling says" in said
    model.save(tmp_path / "first")
    line = "its head reads the first token (plmscope_pooling in config.json), and pooling is 'mean'"
    assert line in refused(tmp_path / "first", pooling="mean")


def test_a_reading_that_the_checkpoint_does_not_say(tiny_folder: Path) -> None:
    said = loaded(tiny_folder, pooling="mean")[1]
    assert said == [
        f"{tiny_folder}: its head reads the mean of the residues, as pooling says; config.json does not say what it "
        "reads"
    ]


# --- adapters --------------------------------------------------------------------------------------------------------


def adapter_of(base: Path, folder: Path, **settings: Any) -> Path:
    """A LoRA adapter of a language model that was trained a little, as peft saves it."""
    model = AutoModelForSequenceClassification.from_pretrained(base, num_labels=3)
    wrapped = peft.get_peft_model(model, peft.LoraConfig(r=2, target_modules=["query", "key"], **settings))
    torch.manual_seed(1)
    for name, parameter in wrapped.named_parameters():
        if "lora_B" in name or "modules_to_save" in name:
            torch.nn.init.normal_(parameter, std=0.3)
    wrapped.save_pretrained(folder)
    return folder


def theirs_with(adapter: Path, base: Path) -> np.ndarray:
    """Logits of peft and transformers alone."""
    model = AutoModelForSequenceClassification.from_pretrained(base, num_labels=3)
    model = peft.PeftModel.from_pretrained(model, str(adapter)).eval()
    batch = load_model(base, labels=LABELS).batch(PROTEINS)
    with torch.no_grad():
        return model(input_ids=batch.input_ids, attention_mask=batch.attention_mask).logits.log_softmax(-1).numpy()


def test_an_adapter_keeps_its_head_in_a_study(tiny_folder: Path, tmp_path: Path) -> None:
    base = saved_as(AutoModelForMaskedLM, tiny_folder, tmp_path / "base")
    adapter = adapter_of(base, tmp_path / "adapter", task_type="SEQ_CLS")
    line = "its 3 classes are called LABEL_0 to LABEL_2, those of the proteins 2, 3, 6; name its outputs in their"
    assert line in refused(adapter, labels=["2", "3", "6"], new_head=False)
    said = loaded(adapter, labels=["2", "3", "6"])[1]  # with words, where it is trained again
    assert line.replace("; name", "; to keep it, name") in said[-1]
    model, said = loaded(adapter, labels=["2", "3", "6"], classes=["2", "3", "6"], new_head=False)
    np.testing.assert_allclose(model.log_probabilities(PROTEINS), theirs_with(adapter, base), atol=1e-5)
    assert not model.new_head and not any("are not in the checkpoint" in line for line in said)
    (adapter / "config.json").write_text(
        json.dumps({"id2label": {"0": "2", "1": "3", "2": "6"}, "problem_type": "multi_label_classification"})
    )
    model = load_model(adapter, labels=["2", "3", "6"], new_head=False)
    assert (model.labels, model.task, model.new_head) == (("2", "3", "6"), "multi", False)


def test_an_adapter_that_was_saved_without_its_head(tiny_folder: Path, tmp_path: Path) -> None:
    base = saved_as(AutoModelForMaskedLM, tiny_folder, tmp_path / "base")
    adapter = adapter_of(base, tmp_path / "adapter")
    line = "save the adapter with its head (peft: task_type='SEQ_CLS', or modules_to_save=['classifier'])"
    assert line in refused(adapter) and line in refused(adapter, labels=LABELS, new_head=False)
    assert load_model(adapter, labels=LABELS).new_head
    on_classifier = adapter_of(tiny_folder, tmp_path / "other")
    model = load_model(on_classifier, labels=LABELS, new_head=False)  # the head of its base, which it left alone
    np.testing.assert_allclose(model.log_probabilities(PROTEINS), theirs_with(on_classifier, tiny_folder), atol=1e-5)


# --- advice that is followed -----------------------------------------------------------------------------------------


def advised(line: str) -> str:
    """The command in an error line."""
    return line[line.index("python -c") if "python -c" in line else line.index("hf download") :].partition(", then ")[0]


def follow(command: str, folder: Path, **env: str) -> None:
    """Run a command as a user would, with this Python first."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-c", command], cwd=folder, env=os.environ | {"PATH": path} | env, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, f"{command}\n{done.stderr}"


@pytest.mark.parametrize("kind", ["classifier", "language model", "parts", "lightning", "adapter"])
def test_the_advised_conversion_of_pickles_works_and_keeps_the_head(
    tiny_folder: Path, tmp_path: Path, kind: str
) -> None:
    """Whatever was pickled, the one command makes safetensors of it in the folder, and that loads."""
    folder, expected = tmp_path / "it's mine", load_model(tiny_folder)
    if kind == "adapter":
        adapter_of(tiny_folder, folder, task_type="SEQ_CLS")
        expected = load_model(folder)
        torch.save(load_file(folder / "adapter_model.safetensors"), folder / "adapter_model.bin")
        (folder / "adapter_model.safetensors").unlink()
    else:
        if kind == "language model":
            saved_as(AutoModelForMaskedLM, tiny_folder, folder)
        else:
            shutil.copytree(tiny_folder, folder)
        weights = load_file(folder / "model.safetensors")
        (folder / "model.safetensors").unlink()
        torch.save({"lr": 0.1}, folder / "training_args.bin")  # a trainer's own pickle, without weights
        names = sorted(weights)
        if kind == "parts":
            for number, part in enumerate((names[:9], names[9:]), 1):
                torch.save({key: weights[key] for key in part}, folder / f"pytorch_model-0000{number}-of-00002.bin")
        elif kind == "lightning":
            state = {f"model.{key}": weight for key, weight in weights.items()}
            torch.save({"epoch": 3, "state_dict": state}, folder / "epoch=3.ckpt")
        else:
            torch.save(weights, folder / "pytorch_model.bin")
    line = refused(folder)
    assert "has pickled weights only, which plmscope never opens; convert them where you trust them: python -c" in line
    follow(advised(line), tmp_path)
    if kind == "language model":
        assert torch.equal(encoder(load_model(folder, labels=LABELS)), encoder(expected))
    else:
        model = load_model(folder)
        np.testing.assert_allclose(model.log_probabilities(PROTEINS), expected.log_probabilities(PROTEINS), atol=1e-5)


def test_the_advised_downloads_work(tiny_folder: Path, tmp_path: Path) -> None:
    """A model that was saved without its tokenizer, and a repository of pickles."""
    bare = shutil.copytree(tiny_folder, tmp_path / "no tokenizer")
    for name in ("vocab.txt", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"):
        (bare / name).unlink(missing_ok=True)
    line = refused(bare)
    assert (
        "copy vocab.txt and tokenizer_config.json of the model that it was made from into it, such as with: hf" in line
    )
    pickled = shutil.copytree(tiny_folder, tmp_path / "repository")
    torch.save(load_file(pickled / "model.safetensors"), pickled / "pytorch_model.bin")
    (pickled / "model.safetensors").unlink()
    ask = "from plmscope.models.loading import load_model\n"
    ask += "try: load_model('lab/pickled')\nexcept Exception as e: print(e)"
    with serving(Hub({"facebook/esm2_t6_8M_UR50D": tiny_folder, "lab/pickled": pickled})) as address:
        env = {"HF_ENDPOINT": address, "HF_HOME": str(tmp_path / "home"), "HF_HUB_OFFLINE": "0", "NO_PROXY": "*"}
        follow(advised(line), tmp_path, **env)
        got = subprocess.run(
            [sys.executable, "-c", ask], env=os.environ | env, capture_output=True, text=True, check=True
        ).stdout
        assert (
            "name a revision that has safetensors, or convert them where you trust them: hf download lab/pickled" in got
        )
        follow(advised(got), tmp_path, **env)
    assert torch.equal(head(load_model(bare)), head(load_model(tiny_folder)))
    follow(advised(refused(tmp_path / "pickled")), tmp_path)
    assert torch.equal(head(load_model(tmp_path / "pickled")), head(load_model(tiny_folder)))


def test_other_things_that_are_named_in_place_of_a_folder(tiny_folder: Path, tmp_path: Path) -> None:
    for name in ("esm2_t6_8M_UR50D.pt", "esm1v_t33_650M_UR90S_1.pt"):
        (tmp_path / name).write_bytes(b"x")
        line = refused(tmp_path / name)
        assert f"the same model is facebook/{name.removesuffix('.pt')} on the hub, name that" in line
    (tmp_path / "best.ckpt").write_bytes(b"x")
    assert "is a file; name a folder that has it with the config.json and the vocabulary" in refused(
        tmp_path / "best.ckpt"
    )
    shutil.copytree(tiny_folder, tmp_path / "output" / "checkpoint-12")
    line = refused(tmp_path / "output")
    assert line.endswith(
        f"has no config.json; name one of its checkpoints, such as {tmp_path / 'output/checkpoint-12'}"
    )
    (tmp_path / "pickles").mkdir()
    (tmp_path / "pickles" / "best.pt").write_bytes(b"x")
    assert "copy config.json and the vocabulary of the model that it was made from into it" in refused(
        tmp_path / "pickles"
    )
