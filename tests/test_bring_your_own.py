"""docs/bring-your-own-classifier.md, done from its first line to its last on a small model; each run explains the
classifier that transformers or peft compute."""

from __future__ import annotations

import contextlib
import io
import json
import os
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import peft
import pytest
import torch
from transformers import AutoModelForMaskedLM, AutoModelForSequenceClassification, AutoTokenizer

from plmscope.cli import main
from plmscope.data.labels import LabelTask
from plmscope.data.proteins import Protein, read_proteins
from plmscope.models.classifier import log_probabilities
from plmscope.models.loading import load_model
from plmscope.scoring.methods import score
from plmscope.study.opened import OpenRun, open_run
from plmscope.study.study_file import parse_study, write_study
from tests.conftest import save_tiny_model, write_enzymes
from tests.test_documented_commands import SMALL, run_by_bash
from tests.test_heads import saved_as
from tests.test_readme import PAGES, PYTHON, SHELL, blocks

PAGE = PAGES["docs/bring-your-own-classifier.md"]
#: Of the page's studies everything but the training is made small; one scorer that draws is among the methods.
SCORE = SMALL["score"] | {"methods": ["activation_contrast", "attribution_patching"]}
SIZES = {key: value for key, value in SMALL.items() if key not in ("", "data", "finetune", "score")} | {"score": SCORE}
SEED = 3


@dataclass(frozen=True)
class Desk:
    """The folder after everything on the page was done, and what the commands said."""

    folder: Path
    base: Path
    said: dict[str, str]

    def run(self, name: str) -> OpenRun:
        return open_run(self.folder / "runs" / name)


def small(text: str) -> str:
    """A study of the page, cut to a size that runs in seconds."""
    content = tomllib.loads(text) | {"seed": SEED}
    for section, settings in SIZES.items():
        content[section] = settings | content.get(section, {})
    if "finetune" not in content:
        content["finetune"] = {"epochs": 1, "token_budget": 1024}
    return write_study(parse_study(content, "the page's study"))


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    folder, before = tmp_path_factory.mktemp("desk"), Path.cwd()
    names = {"id2label": {0: "LABEL_0", 1: "LABEL_1"}, "label2id": {"LABEL_0": 0, "LABEL_1": 1}}  # as the hub's ESM-2
    tiny = save_tiny_model(folder / "tiny", scale=20, **names)
    base = saved_as(AutoModelForMaskedLM, tiny, folder / "base")
    found = read_proteins(write_enzymes(folder / "enzymes.tsv", per_class=10), label="ec:1")
    fasta = "".join(f">{p.id} ec={p.columns['ec']}\n{p.sequence}\n" for p in found)
    (folder / "enzymes.fasta").write_text(fasta)
    os.chdir(folder)
    torch.manual_seed(0)
    said, namespace = {}, dict[str, Any](__name__="page")
    try:
        for block in blocks(PAGE, (*PYTHON, *SHELL, "toml")):
            if block.language == "toml":
                Path(block.text.split()[1]).write_text(small(block.text))
            elif block.language in PYTHON:
                if "last.ckpt" in block.text:  # what Lightning saves of a module with the model and a loss in it
                    trained = AutoModelForSequenceClassification.from_pretrained("trainer-output")
                    state = {f"model.{name}": weight for name, weight in trained.state_dict().items()}
                    torch.save({"epoch": 1, "state_dict": state | {"loss.weight": torch.ones(3)}}, "last.ckpt")
                exec(compile(block.text.replace("facebook/esm2_t6_8M_UR50D", str(base)), "page", "exec"), namespace)
            else:
                for command in run_by_bash(block.text, prompted=True):
                    lines: list[str] = []
                    status = main_saying(command, lines)
                    assert status == 0, lines[-1]
                    said[command[command.index("--out") + 1].removeprefix("runs/")] = "\n".join(lines)
        yield Desk(folder, base, said)
    finally:
        os.chdir(before)


def main_saying(command: list[str], lines: list[str]) -> int:
    """Run a command of the page; what it says goes into a list, without the console's folding."""
    said = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stderr(said), contextlib.redirect_stdout(said):
        patch.setenv("COLUMNS", "2000")
        status = main(command)
    lines += said.getvalue().splitlines()
    return status


def explained_as(run: OpenRun, logits: torch.Tensor, proteins: list[Protein], task: LabelTask = "single") -> None:
    """The model of a run, and the intact model in its predictions, are those of some logits of the test proteins."""
    expected = log_probabilities(logits.double(), task).numpy()
    np.testing.assert_allclose(run.model.log_probabilities(proteins), expected, atol=2e-5)
    curves = run.run.table("curves")
    (intact,) = np.flatnonzero(curves["ablation"] == "none")
    told = run.run.table("predictions")
    told = told[told["curve_point"] == intact].set_index("id")["log_prob_true"]
    assert len(told) >= 6
    for row, protein in enumerate(proteins):
        if protein.id in told.index:
            assert told[protein.id] == pytest.approx(expected[row, run.model.labels.index(protein.label)], abs=2e-5)
    assert (run.run.path / "report.html").stat().st_size > 10_000


def logits_of(model: Any, folder: Path, proteins: list[Protein]) -> torch.Tensor:
    """Logits by transformers alone, one protein at a time, tokens by the checkpoint's own tokenizer."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    with torch.no_grad():
        return torch.cat([model.eval()(**tokenizer(p.sequence, return_tensors="pt")).logits for p in proteins])


@pytest.mark.parametrize("name", ["trainer", "lightning", "parallel"])
def test_a_classifier_of_the_trainer_with_default_names(desk: Desk, name: str) -> None:
    """As the Trainer saved it, and the same inside a Lightning module and DataParallel."""
    run, trained = desk.run(name), desk.folder / "trainer-output"
    model = AutoModelForSequenceClassification.from_pretrained(trained)
    assert model.config.id2label == {0: "LABEL_0", 1: "LABEL_1", 2: "LABEL_2"}
    proteins = run.proteins("test")
    explained_as(run, logits_of(model, trained, proteins), proteins)
    assert run.model.labels == ("2", "3", "6")
    said = desk.said[name]
    assert "its classes LABEL_0, LABEL_1, LABEL_2 are called 2, 3, 6, as classes says" in said
    prefix = {"trainer": "", "lightning": "model.", "parallel": "module."}[name]
    assert (f"the prefix {prefix!r} of the names of its weights is taken off" in said) == bool(prefix)
    assert ("left out, first 'loss.weight'" in said) == (name == "lightning")


def test_an_adapter_with_its_own_head(desk: Desk) -> None:
    run = desk.run("lora")
    model = AutoModelForSequenceClassification.from_pretrained(desk.base, num_labels=3)
    model = peft.PeftModel.from_pretrained(model, str(desk.folder / "lora-output"))
    proteins = run.proteins("test")
    explained_as(run, logits_of(model, desk.base, proteins), proteins)
    assert run.model.labels == ("2", "3", "6") and "is replaced" not in desk.said["lora"]


def test_a_bare_encoder_gets_a_head_that_reads_the_mean(desk: Desk) -> None:
    assert "weights of the classification head are not in the checkpoint, they are new" in desk.said["encoder"]
    assert "first 'esm.pooler.dense.bias'" in desk.said["encoder"]
    assert desk.run("encoder").model.pooling == "mean"


def test_a_mean_pooled_classifier_is_explained_as_it_is(desk: Desk) -> None:
    """The setting is silent, the checkpoint is not: the same classifier comes out that went in."""
    run, trained = desk.run("again"), desk.folder / "runs" / "encoder" / "model"
    assert run.study.model.pooling == "" and run.model.pooling == "mean"
    assert json.loads((run.run.path / "model" / "config.json").read_text())["plmscope_pooling"] == "mean"
    model = AutoModelForSequenceClassification.from_pretrained(trained).eval()
    tokenizer, proteins, rows = AutoTokenizer.from_pretrained(trained), run.proteins("test"), []
    with torch.no_grad():
        for protein in proteins:
            hidden = model.esm(**tokenizer(protein.sequence, return_tensors="pt"))[0]
            rows.append(model.classifier(hidden[:, 1:-1].mean(1, keepdim=True)))
        first = logits_of(model, trained, proteins)
    explained_as(run, torch.cat(rows), proteins)
    assert (torch.cat(rows) - first).abs().max() > 1e-3  # reading the first token would be another classifier


def test_the_seed_of_the_study_reaches_a_scorer_that_draws(desk: Desk) -> None:
    run = desk.run("trainer")
    told = run.scores("attribution_patching").values
    ours, other = (
        score(run.model, run.proteins("scoring"), "attribution_patching", seed=seed).values for seed in (SEED, 0)
    )
    np.testing.assert_allclose(told, ours, rtol=1e-4, atol=1e-7)
    assert not np.allclose(told, other, rtol=1e-2)


def test_the_advice_for_classes_without_names_is_followed_to_a_report(desk: Desk) -> None:
    """The line that refuses them has the setting; written into the study, the study runs."""
    study = desk.folder / "mine.toml"
    nameless = desk.folder / "nameless.toml"
    nameless.write_text(study.read_text().replace('classes = ["2", "3", "6"]', "classes = []"))
    lines: list[str] = []
    assert main_saying(["run", "nameless.toml", "--out", "runs/nameless"], lines) == 2
    advice = lines[-1].partition("[model] ")[2].partition(" (if")[0]
    assert advice == 'classes = ["2", "3", "6"]'
    nameless.write_text(nameless.read_text().replace("classes = []", advice, 2))
    assert main_saying(["run", "nameless.toml", "--out", "runs/nameless"], lines) == 0
    ours, theirs = desk.run("nameless"), desk.run("trainer")
    proteins = theirs.proteins("test")
    assert (ours.model.log_probabilities(proteins) == theirs.model.log_probabilities(proteins)).all()


def test_a_study_takes_the_task_of_the_checkpoint(desk: Desk) -> None:
    folder = save_tiny_model(
        desk.folder / "multi", problem_type="multi_label_classification", id2label={0: "2", 1: "3", 2: "6"},
        label2id={"2": 0, "3": 1, "6": 2},
    )  # fmt: skip
    study = desk.folder / "multi.toml"
    study.write_text((desk.folder / "mine.toml").read_text().replace("trainer-output", str(folder)))
    lines: list[str] = []
    assert main_saying(["finetune", "multi.toml", "--out", "runs/multi"], lines) == 0, lines
    run = desk.run("multi")
    assert run.study.data.task == run.model.task == "multi"
    assert lines[0] == f"task: multi, as config.json of {folder} says"
    expected = load_model(folder).log_probabilities(run.proteins("test"))
    assert (run.model.log_probabilities(run.proteins("test")) == expected).all()
