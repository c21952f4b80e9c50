"""A real ESM classifier small enough to build in milliseconds, and proteins for it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from filelock import FileLock
from transformers import EsmConfig, EsmForSequenceClassification, EsmTokenizer

from plmscope.cli import main
from plmscope.data.proteins import Protein, read_proteins
from plmscope.models.classifier import Classifier
from plmscope.models.loading import load_model

VOCABULARY = "<cls> <pad> <eos> <unk> L A G V S E R T I D P K Q N F Y M H W C X B U Z O . - <null_1> <mask>".split()
LABELS = ("1", "2", "3")


def save_tiny_model(folder: Path, seed: int = 0, scale: float = 10.0, **settings: object) -> Path:
    """A random ESM-2-shaped classifier as a Hugging Face folder; ``scale`` makes its attention and logits vary."""
    torch.manual_seed(seed)
    config = EsmConfig(
        **{
            "vocab_size": 33, "mask_token_id": 32, "pad_token_id": 1, "hidden_size": 24, "num_hidden_layers": 3,
            "num_attention_heads": 3, "intermediate_size": 48, "hidden_dropout_prob": 0.0,
            "attention_probs_dropout_prob": 0.0, "max_position_embeddings": 130, "layer_norm_eps": 1e-5,
            "position_embedding_type": "rotary", "emb_layer_norm_before": False, "token_dropout": True,
            "id2label": dict(enumerate(LABELS)), "label2id": {label: i for i, label in enumerate(LABELS)},
        } | settings
    )  # fmt: skip
    model = EsmForSequenceClassification(config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("weight") and parameter.ndim == 2 and "embeddings" not in name:
                parameter.mul_(scale)
            elif name.endswith("bias") and "LayerNorm" not in name:
                parameter.normal_(0, 0.2)
            elif "word_embeddings" in name:
                parameter.mul_(20)
    model.save_pretrained(folder)
    (folder / "vocab.txt").write_text("\n".join(VOCABULARY) + "\n")
    EsmTokenizer(vocab_file=str(folder / "vocab.txt")).save_pretrained(folder)
    return folder


def make_proteins(n: int, seed: int = 0, low: int = 8, high: int = 40) -> list[Protein]:
    """Random sequences with labels in turn, all of different length where there is room."""
    rng = np.random.default_rng(seed)
    letters = list("ACDEFGHIKLMNPQRSTVWY")
    return [
        Protein(f"p{i}", "".join(rng.choice(letters, rng.integers(low, high))), LABELS[i % len(LABELS)])
        for i in range(n)
    ]


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of the tiny model."""
    return save_tiny_model(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="session")
def tiny(tiny_folder: Path) -> Classifier:
    """The tiny model, loaded."""
    return load_model(tiny_folder)


@pytest.fixture(scope="session")
def proteins() -> list[Protein]:
    """Nine proteins, three a class."""
    return make_proteins(9)


#: A whole study in seconds: both nulls, every control, mode, ablation and scope.
GOLDEN = """\
name = "golden"
seed = 1

[data]
path = "{data}"

[split]
method = "random"
train = 0.6
validation = 0.2
test = 0.2

[model]
checkpoint = "{model}"

[finetune]
epochs = 6
learning_rate = 0.004
token_budget = 512

[score]
methods = ["activation_std", "integrated_gradients"]
proteins_per_class = 6
points = 4

[evaluate]
fractions = [0.1, 0.5]
draws = 3
draws_elsewhere = 2
module_fractions = [0.2, 0.5]
module_draws = 2

[density]
fractions = [0.05, 0.1]
bootstraps = 20
null_models = 2
null_draws = 2

[describe]
max_neurons = 6
maximise = 1
min_residues = 10

[probe]
enabled = true
concepts = ["leucine (L)"]
residues = 80
sizes = [10]
controls = 1

[intervene]
fraction = 0.05
draws = 2
factors = [2.0]
neurons = 3
proteins_per_class = 2

[layout]
parts = ["sufficient", "degenerate", "recall", "shared", "modularity"]
neurons = 4
proteins_per_class = 2
experts = 2
draws = 2

[faithfulness]
enabled = true
methods = ["activation", "gradient_activation"]
sample = 18
proteins_per_class = 2
fractions = [0.2, 0.5]
draws = 1
"""


@dataclass(frozen=True)
class Golden:
    """A finished tiny study; tests that change it work on a copy."""

    study: Path
    data: Path
    model: Path
    run: Path

    def copy(self, folder: Path) -> Path:
        """A copy of the finished run, which plmscope continues as its own."""
        return Path(shutil.copytree(self.run, folder))


def write_enzymes(path: Path, classes: str = "236", per_class: int = 20) -> Path:
    """The shortest embedded enzymes of some classes as a table."""
    found = read_proteins("plmscope:enzymes", label="ec:1", max_length=300, too_long="skip")
    rows = ["id\tec\tsequence"]
    for label in classes:
        own = sorted((p for p in found if p.label == label), key=lambda p: (len(p), p.id))
        rows += [f"{p.id}\t{p.columns['ec']}\t{p.sequence}" for p in own[:per_class]]
    path.write_text("\n".join(rows) + "\n")
    return path


@pytest.fixture(scope="session")
def golden(tmp_path_factory: pytest.TempPathFactory) -> Golden:
    """Run the whole tiny study once, for all processes that test: what changes it works on a copy."""
    shared = tmp_path_factory.getbasetemp()
    folder = (shared.parent if "PYTEST_XDIST_WORKER" in os.environ else shared) / "golden"
    made = Golden(folder / "golden.toml", folder / "enzymes.tsv", folder / "language_model", folder / "run")
    with FileLock(folder.with_suffix(".lock")):
        if not (folder / "made").exists():
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            data, model = write_enzymes(made.data), save_tiny_model(made.model, scale=20)
            made.study.write_text(GOLDEN.format(data=data, model=model))
            assert main(["run", str(made.study), "--out", str(made.run), "--quiet"]) == 0
            (folder / "made").touch()
    return made


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    """A browser, where one is installed."""
    playwright = pytest.importorskip("playwright.sync_api", reason="the browser test needs playwright")
    with playwright.sync_playwright() as started:
        own = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
        try:
            browser = started.chromium.launch(executable_path=own)
        except playwright.Error as error:
            pytest.skip(f"Chromium is not installed (playwright install chromium): {str(error).splitlines()[0]}")
        yield browser
        browser.close()


@pytest.fixture
def offline_page(chromium: Any) -> Iterator[tuple[Any, list[str]]]:
    """A page, and what goes wrong on it: errors, and requests that leave the file."""
    page, wrong = chromium.new_page(), list[str]()
    page.on("pageerror", lambda error: wrong.append(str(error)))
    own = ("file:", "blob:", "data:")
    page.on("request", lambda one: None if one.url.startswith(own) else wrong.append(one.url))
    yield page, wrong
    page.close()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files that need the golden run last, but for the longest: one process makes it while others have work."""
    needing = {item.path for item in items if "golden" in getattr(item, "fixturenames", ())}
    longest = "test_documented_commands.py"
    items.sort(key=lambda item: item.path.name != longest and 1 + (item.path in needing))
