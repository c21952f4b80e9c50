"""docs/tried-inputs.md: the rows marked there, rebuilt."""

from __future__ import annotations

import gzip
import pickle
import random
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import peft
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModel,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    AutoTokenizer,
)

from plmscope.data.annotations import read_features
from plmscope.data.leakage import leakage
from plmscope.data.proteins import AMINO_ACIDS, Protein, ProteinSet, read_proteins
from plmscope.data.splits import split_proteins
from plmscope.errors import InputError, ModelError
from plmscope.models.loading import load_model
from tests.conftest import save_tiny_model
from tests.test_readme import PAGES

PAGE = PAGES["docs/tried-inputs.md"]
DRAW = random.Random(7)


def sequence(length: int = 40) -> str:
    return "".join(DRAW.choices(AMINO_ACIDS, k=length))


def changed(residues: str, share: float) -> str:
    """A sequence with some of its residues replaced by others."""
    letters = list(residues)
    for place in DRAW.sample(range(len(letters)), round(len(letters) * share)):
        letters[place] = DRAW.choice(AMINO_ACIDS.replace(letters[place], ""))
    return "".join(letters)


def read(folder: Path, text: str, **settings: Any) -> ProteinSet:
    path = folder / "f"
    path.write_text(text)
    return read_proteins(path, **settings)


def refused(folder: Path, text: str, what: str, **settings: Any) -> None:
    with pytest.raises(InputError) as caught:
        read(folder, text, **settings)
    assert what in str(caught.value) and "\n" not in str(caught.value)


def test_the_page_names_its_sources() -> None:
    rows = [line for line in PAGE.splitlines() if "](https://" in line and line.startswith("|")]
    assert len(rows) >= 20
    assert all(re.search(r"\[[\w./-]+#\d+\]\(https://github\.com/[\w./-]+/(issues|pull)/\d+\)", row) for row in rows)


# --- sequences and labels


def test_the_names_of_rows_are_ids(tmp_path: Path) -> None:
    rows = [(f"P{k}", sequence(), "ab"[k % 2]) for k in range(4)]
    frame = pd.DataFrame(rows, columns=["", "sequence", "x"])
    for header in (",sequence,x", "Unnamed: 0,sequence,x"):
        found = read(tmp_path, header + "\n" + "".join(f"{','.join(row)}\n" for row in rows), label="x")
        assert [p.id for p in found] == ["P0", "P1", "P2", "P3"]
        assert found.changes == {"ids taken from the names of the rows, a column without a name": 4}
    frame.set_index("").rename_axis(None).to_parquet(tmp_path / "f")
    assert [p.id for p in read_proteins(tmp_path / "f", label="x")] == ["P0", "P1", "P2", "P3"]
    frame.drop(columns="").to_csv(tmp_path / "f")  # rows without names are numbered by pandas
    found = read_proteins(tmp_path / "f", label="x")
    assert [p.id for p in found] == ["row1", "row2", "row3", "row4"] and "rows numbered" in next(iter(found.changes))


@pytest.mark.parametrize("order", ["le", "be"])
def test_utf_16_without_its_mark(tmp_path: Path, order: str) -> None:
    (tmp_path / "f").write_bytes(f"id\tsequence\nP1\t{sequence()}\n".encode(f"utf-16-{order}"))
    with pytest.raises(InputError, match="is UTF-16 without the mark at its start that says so; save it as UTF-8"):
        read_proteins(tmp_path / "f")


def test_objects_of_r_and_python(tmp_path: Path) -> None:
    for content, what in (
        (gzip.compress(b"X\n\x00\x00\x00\x03"), "R objects"),
        (pickle.dumps({1: 2}), "Python pickle"),
    ):
        (tmp_path / "f").write_bytes(content)
        with pytest.raises(InputError, match=what):
            read_proteins(tmp_path / "f")


def test_the_end_of_a_file_in_dos(tmp_path: Path) -> None:
    refused(
        tmp_path, f">P1\n{sequence()}\n\x1a", "has '\\x1a' at residue 41; Ctrl-Z, the end of a file in DOS: remove it"
    )


def test_measurements_and_their_bounds(tmp_path: Path) -> None:
    values = [">100", "<10", "12.5", "45.1", "19.8", "33", "6.6", "9.9"]
    rows = "".join(f"P{k},{sequence()},{value}\n" for k, value in enumerate(values))
    refused(tmp_path, "id,sequence,x\n" + rows, "8 different numbers", label="x")
    bins = "".join(f"P{k},{sequence()},{(*values, '<10', '>100')[k % 2]}\n" for k in range(8))
    assert read(tmp_path, "id,sequence,x\n" + bins, label="x").labels == ("<10", ">100")
    few = read(tmp_path, "id,sequence,x\n" + "".join(f"P{k},{sequence()},3{k % 3}.5\n" for k in range(9)), label="x")
    assert "all are numbers: if they were measured, write bins of them into a column" in repr(few)


def test_signs_and_marks_of_nothing(tmp_path: Path) -> None:
    values = ["+1", "-1", "1", "-", "?"]
    rows = "".join(f"P{k},{sequence()},{values[k % 5]}\n" for k in range(10))
    said = repr(read(tmp_path, "id,sequence,x\n" + rows, label="x"))
    assert "'+1' and '1' differ in case, blanks or a sign alone" in said
    assert "'-' and '?' counted as a class: leave the cell empty if it is none" in said


def test_missing_features(tmp_path: Path) -> None:
    cells = ["nan", "ACT_SITE 20", "NA", ""]
    rows = "".join(f"P{k}\t{sequence()}\t{cell}\n" for k, cell in enumerate(cells))
    (tmp_path / "f").write_text("Entry\tSequence\tActive site\n" + rows)
    assert len(read_features(tmp_path / "f", read_proteins(tmp_path / "f").proteins)) == 1


def test_signalp(tmp_path: Path) -> None:
    entries = [(f">Q{k}|EUKARYA|{'NO_SP' if k % 2 else 'SP'}|{k % 3}", sequence(70)) for k in range(6)]
    three = "".join(f"{header}\n{residues}\n{'S' * 20 + 'O' * 50}\n" for header, residues in entries)
    refused(tmp_path, three, "every sequence is followed by as many letters of O, S, one a residue")
    two = "".join(f"{header}\n{residues}\n" for header, residues in entries)
    assert read(tmp_path, two, label=r"header:([A-Z_]+)\|[0-9]").labels == ("NO_SP", "SP")


def test_a_list_in_csv(tmp_path: Path) -> None:
    lists = ("['a', 'b']", "['a']")
    rows = "".join(f'P{k},{sequence()},"{lists[k % 2]}"\n' for k in range(6))
    assert read(tmp_path, "id,sequence,x\n" + rows, label="x", task="multi").labels == ("a", "b")
    refused(tmp_path, "id,sequence,x\n" + rows, "looks like several classes", label="x")


def test_deeploc(tmp_path: Path) -> None:
    names = ["Cytoplasm", "Nucleus", "Cytoplasm-Nucleus"]
    text = "input,loc\n" + "".join(f"{' '.join(sequence())},{names[k % 3]}\n" for k in range(9))
    found = read(tmp_path, text, label="loc", sequence_column="input")
    assert "'Cytoplasm-Nucleus' looks like several of the others joined by '-'" in repr(found)
    assert "9 x sequences with blanks, which were taken out" in repr(found) and "9 x rows numbered" in repr(found)
    parted = read(tmp_path, text, label="loc", sequence_column="input", task="multi", separator="-")
    assert parted.labels == ("Cytoplasm", "Nucleus")
    hot = "ACC,Sequence,Membrane,Nucleus\n" + "".join(f"P{k},{sequence()},{k % 2}.0,1.0\n" for k in range(6))
    found = read(tmp_path, hot, id_column="ACC", label="Membrane,Nucleus", task="multi")
    assert [p.label for p in found][:2] == ["Nucleus", "Membrane;Nucleus"]


def test_stops_and_marks(tmp_path: Path) -> None:
    gffread = f">g1.t1 gene=g1\n{sequence()}.{sequence()}.\n>g2.t1 gene=g2\n{sequence()}.\n"
    refused(tmp_path, gffread, "protein 'g1.t1' has '.' at residue 41; a stop codon inside it")
    found = read(tmp_path, gffread, other_letters="skip")
    assert [p.id for p in found] == ["g2.t1"] and len(found.proteins[0]) == 40
    header = "# 1387 # 2484 # -1 # ID=1_3;partial=00;start_type=GTG;rbs_motif=AGxAGG/AGGxGG;gc_cont=0.545"
    found = read(tmp_path, f">k141_67634_3 {header}\n{sequence()}*\n", label="start_type")
    assert found.labels == ("GTG",) and "1 x sequences without their final '*'" in repr(found)
    refused(tmp_path, f">P1\n{sequence()}*{sequence()}\n", "'*' at residue 41; a stop codon inside it")
    refused(tmp_path, f">P1\n{sequence()}S#{sequence()}\n", "'#' at residue 42")
    refused(tmp_path, f'id,sequence,x\nP1,{sequence()},"MM\nPR"\n', "unprintable character", label="x", task="multi")


def test_an_assay(tmp_path: Path) -> None:
    rows = "".join(f"A{k}C,{sequence()},{-k * 0.37},{k % 2}\n" for k in range(6))
    text, own = "mutant,mutated_sequence,DMS_score,DMS_score_bin\n" + rows, "mutated_sequence"
    assert read(tmp_path, text, label="DMS_score_bin", sequence_column=own, id_column="mutant").labels == ("0", "1")
    refused(tmp_path, text, "are a measurement, not classes", label="DMS_score", sequence_column=own)


def test_sets_of_flip(tmp_path: Path) -> None:
    rows = "".join(
        f"{sequence()},{'ab'[k % 2]},{'train' if k < 8 else 'test'},{'True' if k < 2 else ''}\n" for k in range(12)
    )
    found = read(tmp_path, "sequence,target,set,validation\n" + rows, label="target")
    assert split_proteins(found, method="column", column="set").counts == {"train": 6, "validation": 2, "test": 4}


def test_features_of_an_isoform(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_text("Entry\tActive site\tBinding site\nP1\tACT_SITE 2..2\tBINDING P1-2:3\nP2\tACT_SITE 2\t\n")
    found = read_features(path)
    assert len(found) == 2 and dict(found.excluded) == {"its position counts on another isoform": 1}


# --- relatives


@pytest.mark.parametrize("length", [7, 8, 10])
def test_peptides_find_their_relatives(length: int) -> None:
    peptides = [sequence(length) for _ in range(20)]
    near = [one[:3] + ("A" if one[3] != "A" else "C") + one[4:] for one in peptides]
    found = leakage(
        [Protein(f"t{k}", s) for k, s in enumerate(peptides)], [Protein(f"o{k}", s) for k, s in enumerate(near)]
    )
    assert (found["identity"] >= (length - 1) / length - 1e-9).all()


def test_parts_of_proteins_are_with_them() -> None:
    whole = [sequence(200) for _ in range(12)]
    proteins = [Protein(f"w{k}", s, "ab"[k % 2]) for k, s in enumerate(whole)]
    proteins += [Protein(f"p{k}", s[50:65], "ab"[k % 2]) for k, s in enumerate(whole)]
    clusters = split_proteins(proteins).clusters
    assert all(clusters[f"w{k}"] == clusters[f"p{k}"] for k in range(12))


def test_repeats_find_their_relatives() -> None:
    """Collagen as reported, and repeats in which a fifth of the residues are others: what differs looks less simple."""
    collagen = "PPGPPGPPGITGARGLAGPPGPPGPPGPPG"
    repeats = [collagen, "PPG" * 20, "GGGGS" * 8, "SR" * 15]
    train = [Protein(f"t{k}", repeat) for k, repeat in enumerate(repeats)]
    others = [Protein(f"o{k}-{copy}", changed(repeat, 0.2)) for k, repeat in enumerate(repeats) for copy in range(5)]
    found = leakage([*train, Protein("b", sequence(80))], [Protein("c", "PPGPPA" + collagen[6:]), *others])
    assert found.iloc[0]["nearest_train"] == "t0" and found.iloc[0]["identity"] == pytest.approx(29 / 30, abs=0.01)
    assert (found["nearest_train"][1:] == [f"t{k}" for k in range(4) for _ in range(5)]).sum() >= 19


# --- classifiers


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("base") / "base", scale=20)


def same_as(theirs: Any, folder: Path, base: Path) -> list[str]:
    """Assert that a checkpoint's logits are those of a model of transformers or peft; what was said of it."""
    tokenizer, said = AutoTokenizer.from_pretrained(base), list[str]()
    proteins = [Protein("a", "MKVLAAGIVGLCHWYTRSDENQPF"), Protein("b", "MSTNPKPQRKTKRNTNRRPQ")]
    with torch.no_grad():
        logits = [theirs.eval()(**tokenizer(p.sequence, return_tensors="pt")).logits for p in proteins]
    expected = torch.log_softmax(torch.cat(logits).double(), dim=1)
    np.testing.assert_allclose(load_model(folder, say=said.append).log_probabilities(proteins), expected, atol=2e-5)
    return said


@pytest.mark.parametrize(
    "settings",
    [
        {"task_type": "SEQ_CLS", "target_modules": ["query", "out_proj", "dense"]},
        {"target_modules": ["query"], "modules_to_save": ["classifier"]},
        {"target_modules": ["query"], "modules_to_save": ["classifier.dense", "classifier.out_proj"]},
        {"target_modules": ["query"], "modules_to_save": ["classifier", "LayerNorm"], "bias": "all"},
        {"task_type": "SEQ_CLS", "target_modules": ["query"], "use_dora": True, "use_rslora": True},
        {"task_type": "SEQ_CLS", "target_modules": ["query"], "lora_bias": True},
        {
            "task_type": "SEQ_CLS",
            "target_modules": ["query", "key"],
            "rank_pattern": {"key": 2},
            "alpha_pattern": {"query": 32},
        },
    ],
    ids=["head as target", "head saved", "layers of the head saved", "norms and biases too", "dora", "bias", "ranks"],
)
def test_heads_of_adapters(base: Path, tmp_path: Path, settings: dict[str, Any]) -> None:
    torch.manual_seed(1)
    model = AutoModelForSequenceClassification.from_pretrained(base)
    adapted: Any = peft.get_peft_model(model, peft.LoraConfig(r=4, **settings))
    for parameter in adapted.parameters():
        if parameter.requires_grad:
            parameter.data += 0.05 * torch.randn_like(parameter)
    adapted.save_pretrained(tmp_path / "adapter")
    same_as(adapted, tmp_path / "adapter", base)


@pytest.mark.parametrize(
    ("front", "taken"),
    [
        (lambda name: f"module.{name}", "module."),
        (lambda name: f"model._orig_mod.{name}", "model."),
        (lambda name: f"net.backbone.{name}", "net.backbone."),
    ],
    ids=["module", "compiled", "own"],
)
def test_names_of_wrapped_models(base: Path, tmp_path: Path, front: Callable[[str], str], taken: str) -> None:
    model: Any = AutoModelForSequenceClassification.from_pretrained(base)
    model.save_pretrained(tmp_path)
    AutoTokenizer.from_pretrained(base).save_pretrained(tmp_path)
    weights = {front(name): weight.clone() for name, weight in load_file(tmp_path / "model.safetensors").items()}
    counters = {"val_f1.tp": torch.ones(3), "train_acc.total": torch.ones(1), "criterion.weight": torch.ones(3)}
    save_file(weights | counters, tmp_path / "model.safetensors", {"format": "pt"})
    said = "\n".join(same_as(model, tmp_path, base))
    assert f"the prefix {taken!r} of the names of its weights is taken off" in said
    assert "3 weights of another head are left out, first 'criterion.weight'" in said


def test_an_adapter_without_a_head(base: Path, tmp_path: Path) -> None:
    encoder = AutoModel.from_pretrained(base)
    encoder.save_pretrained(tmp_path / "encoder")
    AutoTokenizer.from_pretrained(base).save_pretrained(tmp_path / "encoder")
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path / "encoder", num_labels=3)
    peft.get_peft_model(model, peft.LoraConfig(target_modules=["query"])).save_pretrained(tmp_path / "adapter")
    with pytest.raises(ModelError, match="neither the adapter nor its base has a trained classification head"):
        load_model(tmp_path / "adapter")


def test_classes_numbered_in_two_ways(base: Path, tmp_path: Path) -> None:
    model: Any = AutoModelForSequenceClassification.from_pretrained(base)
    names = dict(enumerate("abc"[: model.config.num_labels]))
    model.config.id2label, model.config.label2id = names, {"a": 1, "b": 0}
    model.save_pretrained(tmp_path)
    AutoTokenizer.from_pretrained(base).save_pretrained(tmp_path)
    with pytest.raises(ModelError, match="class 'a' as output 0 by id2label, as output 1 by label2id; correct one"):
        load_model(tmp_path)
    # Where id2label alone was written, transformers leaves label2id as it was.
    model.config.label2id = {"LABEL_0": 0, "LABEL_1": 1}
    model.save_pretrained(tmp_path)
    assert load_model(tmp_path).labels == tuple(names.values())


def test_a_token_classifier(base: Path, tmp_path: Path) -> None:
    model = AutoModelForTokenClassification.from_pretrained(base, num_labels=3, ignore_mismatched_sizes=True)
    model.save_pretrained(tmp_path)
    AutoTokenizer.from_pretrained(base).save_pretrained(tmp_path)
    with pytest.raises(ModelError, match="its head is that of EsmForTokenClassification"):
        load_model(tmp_path)
    said: list[str] = []
    assert load_model(tmp_path, labels=["a", "b"], say=said.append).new_head
    assert "2 weights of another head are left out, first 'classifier.bias'" in "\n".join(said)


def test_a_head_of_nan(base: Path, tmp_path: Path) -> None:
    model: Any = AutoModelForSequenceClassification.from_pretrained(base)
    model.classifier.out_proj.weight.data[0, 0] = float("nan")
    model.save_pretrained(tmp_path)
    AutoTokenizer.from_pretrained(base).save_pretrained(tmp_path)
    with pytest.raises(ModelError, match=r"'classifier.out_proj.weight' holds NaN or infinite values"):
        load_model(tmp_path)


@pytest.mark.parametrize(
    ("name", "text", "settings", "line"),
    [
        ("a.pir", ">P1;p1\nsome protein\n{s}*\n", {}, r"line 1: '>P1;' begins an entry of PIR"),
        ("a.fasta", ">p1\n{s}>p2\n{s}\n", {}, r"'p1' has '>' at residue 34; two entries are joined there"),
        ("a.fasta", ">p1\n{s}**\n", {}, r"more than one stop at its end"),
        ("a.fasta", ">p1\n\ufeff{s}\n", {}, r"a byte order mark"),
        ("a.tsv", "id\tsequence\na\t1 {s}\n", {}, r"'1' at residue 1; numbers are no residues"),
        (
            "a.tsv",
            "id\ty\tsequence\na\t010\t{s}\n",
            {"label": "y", "task": "multi"},
            r"'010' is a 0 or 1 for each",
        ),
    ],
)
def test_what_is_no_residue_is_told_by_its_cause(
    tmp_path: Path, name: str, text: str, settings: dict[str, Any], line: str
) -> None:
    path = tmp_path / name
    path.write_text(text.replace("{s}", "MKTAYIAKQRQISFVKSHFSRQLEERLGLIEVQ"), encoding="utf-8")
    with pytest.raises(InputError, match=line):
        read_proteins(path, **settings)


def test_blanks_between_groups_of_residues_are_counted(tmp_path: Path) -> None:
    path = tmp_path / "groups.fasta"
    path.write_text(">a\nMKTAYIAKQR QISFVKSHFS RQLEERLGLI\n>b\nMKTAYIAKQRQISFVKSHFSRQLEERLGLV\n")
    read = read_proteins(path)
    assert [len(p) for p in read] == [30, 30] and read.changes["sequences with blanks, which were taken out"] == 1
    path.write_text(">a\nMKTAYIAKQR\n>a\nMKTAYIAKQR\n")
    with pytest.raises(InputError) as told:
        read_proteins(path)
    assert "[data]" not in told.value.plain
