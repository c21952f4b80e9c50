"""The command line as a user meets it: every foreseeable mistake is one line that says what is wrong and what to do."""

import contextlib
import errno
import gzip
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import torch
import typer
from safetensors.torch import load_file, save_file

from plmscope import __version__
from plmscope.cli import app, main
from plmscope.store.folder import Run
from plmscope.study.demo import demo_study
from plmscope.study.order import ROWS, commands
from plmscope.study.settings import Study
from plmscope.study.study_file import read_study
from tests.conftest import Golden, save_tiny_model

STUDY = """\
name = "bad"
[data]
path = "{data}"
[split]
method = "random"
[model]
checkpoint = "{model}"
"""

LEFT = "MKTAYIAKQRQISFVKSHFSRQLEERLGLIEVQ"


def table(n: int = 30, classes: str = "123") -> str:
    """Proteins as a user's table: id, ec, sequence."""
    rows = [f"p{i}\t{classes[i % len(classes)]}.1.1.1\t{LEFT}{'ACDEFGHIKL'[i % 10] * (i // 10 + 1)}" for i in range(n)]
    return "\n".join(["id\tec\tsequence", *rows]) + "\n"


@dataclass
class Bench:
    """A folder with a sound study; a case spoils one thing in it."""

    folder: Path
    patch: pytest.MonkeyPatch | None = None
    url: str = ""  # of a service that a case starts
    closing: list[Callable[[], object]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.data, self.model, self.study = self.folder / "data.tsv", self.folder / "model", self.folder / "study.toml"
        self.out = self.folder / "runs" / "bad"
        self.data.write_text(table())
        self.write_study()

    def write_study(self, **sections: str) -> None:
        text = STUDY.format(data=self.data, model=self.model)
        for name, line in sections.items():
            header = f"[{name}]\n"
            text = text.replace(header, header + line + "\n") if header in text else f"{text}{header}{line}\n"
        self.study.write_text(text)

    def run_folder(self) -> Path:
        """A run folder in which nothing has run."""
        Run.create(self.out)
        shutil.copy(self.study, self.out / "study.toml")
        return self.out


@dataclass(frozen=True)
class Case:
    """A mistake and the line that answers it; the documentation of errors can be written from these.

    Attributes:
        what: The mistake in words.
        spoil: Makes it.
        message: The whole line after ``plmscope: error: ``; ``{data}``, ``{model}``, ``{study}`` and ``{out}`` stand
            for paths, ``...`` for a library's words.
        command: The command; ``run`` of the study if empty.
        leaves: Files that hold what the same command goes on from.
    """

    what: str
    spoil: Callable[[Bench], object]
    message: str
    command: tuple[str, ...] = ()
    leaves: tuple[str, ...] = ()


def nothing(bench: Bench) -> None:
    """Spoil nothing: the command itself is wrong."""


def row(text: str) -> Callable[[Bench], object]:
    """Append a row to the table."""
    return lambda bench: bench.data.write_text(table() + text + "\n")


def content(text: str) -> Callable[[Bench], object]:
    """Replace the sequence file."""
    return lambda bench: bench.data.write_text(text)


def setting(**sections: str) -> Callable[[Bench], object]:
    """Put lines into sections of the study file."""
    return lambda bench: bench.write_study(**sections)


def study(text: str) -> Callable[[Bench], object]:
    """Replace the study file."""
    return lambda bench: bench.study.write_text(text)


def spoil_weight(folder: Path) -> None:
    """Write NaN into one weight."""
    weights = load_file(folder / "model.safetensors")
    name = max(weights, key=lambda key: weights[key].numel())
    weights[name][0] = float("nan")
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def reshape(folder: Path) -> None:
    """Make config.json tell of wider layers than there are weights for."""
    content = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(content | {"intermediate_size": 96}))


def forget(folder: Path, letter: str) -> None:
    """Take a letter out of the vocabulary."""
    path = folder / "vocab.txt"
    path.write_text(path.read_text().replace(f"\n{letter}\n", "\n<null_2>\n"))


def config(**settings: object) -> Callable[[Bench], object]:
    """Change the model's configuration."""

    def spoil(bench: Bench) -> None:
        path = bench.model / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | settings))

    return spoil


def classifier(line: str = "", **settings: object) -> Callable[[Bench], object]:
    """Ask for the model as it is, with another configuration and more settings of ``[model]``."""

    def spoil(bench: Bench) -> None:
        config(**settings)(bench)
        bench.write_study(model=line, finetune="epochs = 0", density="nulls = []")

    return spoil


def no_head(folder: Path) -> None:
    """Take the classification head away."""
    weights = load_file(folder / "model.safetensors")
    kept = {key: weight for key, weight in weights.items() if not key.startswith("classifier.")}
    save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})


def busy(bench: Bench) -> None:
    """Hold the lock of a run folder, as another process would."""
    held = contextlib.ExitStack()
    held.enter_context(Run(bench.run_folder()).locked())
    bench.closing.append(held.close)


def unwritable(method: str, code: int) -> Callable[[Bench], object]:
    """Make a way of writing fail as the system would; root may write everywhere."""

    def fail(path: Path, *_: object, **__: object) -> None:
        raise OSError(code, os.strerror(code), str(path))

    return lambda bench: bench.patch.setattr(Path, method, fail) if bench.patch else None


CASES = [
    # --- sequences
    Case(
        "the sequence file is missing",
        lambda b: b.data.unlink(),
        "'{data}': cannot be read (No such file or directory); check the path",
    ),
    Case(
        "the sequence file is a folder without files",
        lambda b: (b.data.unlink(), b.data.mkdir()),
        "{data}: is an empty folder; name a FASTA or table file, or a folder of such files",
    ),
    Case("the sequence file is empty", content(""), "{data}: is empty; give a FASTA or table file"),
    Case(
        "the sequence file is neither FASTA nor a table",
        content("hello\nworld\n"),
        "{data}: is not FASTA (no '>' at its start), and as a table it lacks the column 'id' and "
        "'sequence'; its header is 'hello'; name them by id_column and sequence_column",
    ),
    Case(
        "the sequence file is a program's",
        lambda b: b.data.write_bytes(bytes(range(64))),
        "{data}: is binary, but neither compressed in a known way nor Parquet; save it as FASTA, TSV, CSV or Parquet",
    ),
    Case(
        "the gzip file is cut short",
        lambda b: b.data.write_bytes(b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03K"),
        "{data}: the compressed file is cut short; copy or download it again",
    ),
    Case(
        "an id is there twice",
        row(f"p3\t1.1.1.1\t{LEFT}"),
        "{data}: the id 'p3' is there twice, line 5 and line 32; rename or remove one, write one row a "
        'protein, its classes joined by \';\', or join their classes with task = "multi" and duplicates = "join"',
    ),
    Case(
        "a sequence is empty",
        row("q\t1.1.1.1\t"),
        "{data}: line 32: protein 'q' has an empty sequence; add it or remove the entry",
    ),
    Case(
        "a sequence has a letter that is no amino acid",
        row(f"q\t1.1.1.1\t{LEFT}-J"),
        "{data}: line 32: protein 'q' has '-' at residue 34; a gap of an alignment: take the gaps out, or give the "
        'alignment as FASTA, A3M or Stockholm, or leave such proteins out with [data] other_letters = "skip"',
    ),
    Case(
        "the sequences are DNA",
        content("id\tec\tsequence\n" + "".join(f"p{i}\t{i % 3 + 1}\t{'ACGT' * 9}\n" for i in range(9))),
        "{data}: all 9 sequences look like DNA or RNA; give their translation",
    ),
    Case(
        "a table is separated by blanks",
        content("id ec sequence\n"),
        "{data}: is not FASTA (no '>' at its start), and as a table it lacks the column 'id' and 'sequence'; its "
        "header is 'id ec sequence'; separate its fields by tabs or commas",
    ),
    Case(
        "ids and sequences are one column",
        setting(data='id_column = "sequence"'),
        "{data}: the column 'sequence' holds ids or sequences, not both; name two",
    ),
    Case(
        "columns are named, but the file is FASTA",
        lambda b: (setting(data='sequence_column = "peptide"')(b), content(f">p ec=1\n{LEFT}\n")(b)),
        "{data}: sequence_column = 'peptide' is for tables; leave it empty",
    ),
    Case(
        "the sequence file is an Excel workbook",
        lambda b: b.data.write_bytes(b"PK\x03\x04\x14\x00\xfc\x00"),
        "{data}: is an Excel workbook or a zip archive; export the sheet as CSV, or unpack the archive",
    ),
    Case(
        "the sequence file is an old Excel workbook",
        lambda b: b.data.write_bytes(bytes.fromhex("d0cf11e0a1b11ae1") + bytes(600)),
        "{data}: is an Excel workbook or another Office file; export the sheet as CSV",
    ),
    Case(
        "the sequence file is compressed twice",
        lambda b: b.data.write_bytes(gzip.compress(gzip.compress(table().encode()))),
        "{data}: is compressed twice; decompress it once",
    ),
    Case(
        "the sequence file is UTF-16 and cut short",
        lambda b: b.data.write_bytes(table().encode("utf-16")[:-1]),
        "{data}: is not sound UTF-16 text; save it as UTF-8",
    ),
    Case("a row has too few columns", row("q\t1.1.1.1"), "{data}: line 32 has 2 fields, the header 3; correct it"),
    Case(
        "the label names no column",
        setting(data='label = "family"'),
        "{data}: label 'family' needs the column 'family'; the file has 'ec'; name one of these by label",
    ),
    Case(
        "no protein has a label",
        content("id\tec\tsequence\n" + "".join(f"p{i}\t\t{LEFT}\n" for i in range(9))),
        "{data}: no protein is left of 9 (9 x no value in column 'ec'); change these settings or the file",
    ),
    Case(
        "a label is not an EC number",
        row(f"q\tkinase\t{LEFT}"),
        "{data}: line 32: protein 'q': 'kinase' is not an EC number; write it as 1.1.1.1 or 1.1.-.-, "
        "several joined by ';'",
    ),
    Case(
        "there is one class only",
        content(table(classes="1")),
        "{data}: all 30 proteins are of class '1'; at least two classes are needed",
    ),
    Case(
        "a class is too small to split",
        row(f"q\t4.1.1.1\t{LEFT}"),
        "{data}: class '4' has only 1 protein, too few to be in train, validation and test; merge it "
        "with another or leave it out",
    ),
    Case(
        "a protein is too long",
        setting(data="max_length = 34"),
        "{data}: line 12: protein 'p10' has 35 residues, more than max_length = 34 (20 in all do); "
        'leave them out with too_long = "skip", read their parts with "windows", or raise max_length',
    ),
    Case(
        "all proteins are too short",
        setting(data="min_length = 900"),
        "{data}: no protein is left of 30 (30 x shorter than 900 residues); change these settings or the file",
    ),
    Case(
        "the split column is missing",
        lambda b: b.study.write_text(b.study.read_text().replace('"random"', '"column"')),
        "{data}: protein 'p0' has no column 'split'; its columns are 'ec'; name one by split.column",
    ),
    # --- hostile or damaged sequences and labels
    Case(
        "an id would steer the terminal",
        content(f">p\x1b[31m ec=1\n{LEFT}\n"),
        "{data}: line 1: the id 'p\\x1b[31m' has an unprintable character; remove it",
    ),
    Case(
        "an id has a NUL",
        content(f"id\tec\tsequence\np\0\t1\t{LEFT}\n"),
        "{data}: line 2: the id 'p\\x00' has an unprintable character; remove it",
    ),
    Case(
        "an id turns the direction of the text",
        content(f">\u202ep ec=1\n{LEFT}\n"),
        "{data}: line 1: the id '\\u202ep' has an unprintable character; remove it",
    ),
    Case(
        "an id has 100,000 letters",
        content(f">{'p' * 100_000}\n{LEFT}\n"),
        f"{{data}}: line 1: the id '{'p' * 30}...{'p' * 30}' (100,000 characters) is longer than 200 characters; "
        "put a blank after the part that names the protein",
    ),
    Case(
        "a label would steer the terminal",
        lambda b: (setting(data='label = "kind"')(b), content(f">p kind=\x1b[2J\n{LEFT}\n")(b)),
        "{data}: line 1: protein 'p': the label '\\x1b[2J' has an unprintable character; remove it",
    ),
    Case(
        "a label has 100,000 letters",
        lambda b: (setting(data='label = "kind"')(b), content(f">p kind={'k' * 100_000}\n{LEFT}\n")(b)),
        f"{{data}}: line 1: protein 'p': the label '{'k' * 30}...{'k' * 30}' (100,000 characters) is longer than 200 "
        "characters; name the class in fewer",
    ),
    Case(
        "a gzip file unpacks to one endless line",
        lambda b: b.data.write_bytes(gzip.compress(b">p\n" + b"A" * 68_000_000, 1)),
        "{data}: line 2 is longer than 67,108,864 characters; wrap it",
    ),
    Case(
        "an entry is a whole genome",
        content(">p\n" + (LEFT * 2 + "\n") * 40_000),
        "{data}: line 1: the entry is longer than 2,097,152 characters; is this a genome? give its proteins",
    ),
    Case(
        "a bzip2 file is damaged",
        lambda b: b.data.write_bytes(b"BZh9" + b"x" * 40),
        "{data}: cannot be read (...); copy or download it again",
    ),
    Case(
        "equal sequences have different labels",
        row(f"q\t1.1.1.1\t{LEFT}A\nr\t2.1.1.1\t{LEFT}A"),
        "{data}: line 33: protein 'r' has the sequence of 'p0' (line 2), but another label ('2', '1'); 1 in all do; "
        'correct the labels, keep all with duplicates = "keep", or join their classes with task = "multi" and '
        'duplicates = "join"',
    ),
    Case(
        "sequences are there twice and the study refuses that",
        lambda b: (setting(data='duplicates = "error"')(b), row(f"q\t1.1.1.1\t{LEFT}A")(b)),
        "{data}: line 32: protein 'q' has the sequence of 'p0' (line 2); 1 in all do; remove one, or keep the first of "
        'each with duplicates = "first"',
    ),
    Case(
        "the second table is FASTA",
        lambda b: b.write_study(data=f'labels = "{b.data.with_name("l")}"') or b.data.with_name("l").write_text(">p\n"),
        "{folder}/l: is not a table; give a TSV, CSV or Parquet file with named columns",
    ),
    Case(
        "a label pattern has no group",
        setting(data='label = "header:EC"'),
        "label 'header:EC': has 0 groups; put the class into one, as in header:EC=([0-9.]+)",
    ),
    Case(
        "a label pattern without FASTA headers",
        setting(data='label = "header:(EC)"'),
        "{data}: label 'header:(EC)' needs FASTA headers; name a column instead",
    ),
    Case(
        "a wanted class does not occur",
        setting(data='classes = ["1", "9"]'),
        "{data}: data.classes has '9', a class of no protein that is left; correct it",
    ),
    Case(
        "windows overlap wholly",
        setting(data='too_long = "windows"\nwindow_overlap = 2000'),
        "{study}: data.window_overlap = 2000 is not below data.max_length = 1022",
    ),
    Case(
        "a demo of another task",
        nothing,
        "demo task 'motifs' is unknown; use 'enzymes' or 'families'",
        ("demo", "--task", "motifs", "--out", "{out}"),
    ),
    Case(
        "the study would write elsewhere",
        lambda b: b.study.write_text(b.study.read_text().replace('"bad"', '"../../evil"')),
        "{study}: name = '../../evil': use letters, digits, '.', '_' and '-', a letter or digit first",
    ),
    # --- the study file
    Case(
        "the study file is missing",
        lambda b: b.study.unlink(),
        "{study}: cannot be read (No such file or directory); 'plmscope init' writes a study file",
    ),
    Case(
        "the study file is not TOML",
        study("name = demo\n"),
        "{study}: cannot be read (...); 'plmscope init' writes a study file",
    ),
    Case(
        "a key is misspelt",
        setting(evaluate="draw = 10"),
        "{study}: unknown key 'evaluate.draw'; did you mean 'evaluate.draws'?",
    ),
    Case(
        "a section is misspelt",
        setting(finetuning="epochs = 3"),
        "{study}: unknown key 'finetuning'; did you mean 'finetune'?",
    ),
    Case(
        "a value has the wrong type",
        setting(finetune='epochs = "many"'),
        "{study}: finetune.epochs: 'many' is not a whole number",
    ),
    Case(
        "a number is in quotes",
        setting(evaluate='fractions = [0.1, "0.5"]'),
        "{study}: evaluate.fractions: '0.5' is not a number",
    ),
    Case("a number is true", setting(finetune="epochs = true"), "{study}: finetune.epochs: true is not a whole number"),
    Case("a switch is 1", setting(characterize="enabled = 1"), "{study}: characterize.enabled: 1 is not true or false"),
    Case(
        "the seed is too large",
        nothing,
        "command line: seed = 5000000000: Input should be less than or equal to 4294967295",
        ("finetune", "{study}", "--out", "{out}", "--seed", "5000000000"),
    ),
    Case(
        "a value has 100,000 letters",
        study(f'device = "{"x" * 100_000}"'),
        f"{{study}}: device = '{'x' * 99}...{'x' * 99}': use cpu, cuda, cuda:1, cuda:all or auto",
    ),
    Case(
        "a key is like no other",
        setting(report="qqqq = 1"),
        "{study}: unknown key 'report.qqqq'; known are report.knowledge_fraction",
    ),
    Case(
        "the study file nests without end",
        study("x = " + "[" * 20_000),
        "{study}: cannot be read (...recursion...); 'plmscope init' writes a study file",
    ),
    Case(
        "a number has 5,000 digits",
        study("seed = " + "9" * 5000),
        "{study}: cannot be read (...digits...); 'plmscope init' writes a study file",
    ),
    Case(
        "a value is out of range",
        setting(finetune="learning_rate = -1"),
        "{study}: finetune.learning_rate = -1: Input should be greater than 0",
    ),
    Case(
        "a choice does not exist",
        setting(score='target = "odds"'),
        "{study}: score.target = 'odds': Input should be 'log_odds', 'logit' or 'log_probability'",
    ),
    Case("a section is a number", study("split = 3\n"), "{study}: split = 3: Input should be a valid dictionary..."),
    Case(
        "the shares of the split are not 1",
        setting(split="train = 0.9"),
        "{study}: split: train + validation + test = 1.2, must be 1",
    ),
    Case(
        "a fraction is above 1",
        setting(evaluate="fractions = [0.1, 1.5]"),
        "{study}: evaluate.fractions = 1.5: must be above 0 and at most 1",
    ),
    Case(
        "fractions do not increase",
        setting(density="fractions = [0.1, 0.05]"),
        "{study}: density.fractions = [0.1, 0.05]: has to increase",
    ),
    Case(
        "a scoring method does not exist",
        setting(score='methods = ["activation_std", "magic"]'),
        "{study}: score.methods: method 'magic' is not known; choose from activation, activation_std, ...",
    ),
    Case(
        "random_active without activation_std",
        setting(score='methods = ["activation"]'),
        "{study}: evaluate.controls has random_active, which needs activation_std among score.methods",
    ),
    Case(
        "min_length above max_length",
        setting(data="min_length = 2000"),
        "{study}: data.min_length = 2000 is above data.max_length = 1022",
    ),
    # --- the model
    Case(
        "the model folder is missing",
        lambda b: shutil.rmtree(b.model),
        "{model}: no such model folder; name a folder with config.json and model.safetensors, or a hub id",
    ),
    Case(
        "the name of the model has 5,000 letters",
        lambda b: b.study.write_text(b.study.read_text().replace(str(b.model), "m" * 5000)),
        "mmm...mmm: no such model folder; name a folder with config.json and model.safetensors, or a hub id",
    ),
    Case(
        "the model is said to be with an unknown user",
        lambda b: b.study.write_text(b.study.read_text().replace(str(b.model), "~nobody-99/m")),
        "~nobody-99/m: no such model folder; name a folder with config.json and model.safetensors, or a hub id",
    ),
    Case(
        "the model folder has no config.json",
        lambda b: (b.model / "config.json").unlink(),
        "{model}: has no config.json; copy config.json and the vocabulary of the model that it was made from into it",
    ),
    Case(
        "config.json is damaged",
        lambda b: (b.model / "config.json").write_text("{"),
        "{model}: config.json is not JSON (...); copy or download it again",
    ),
    Case(
        "the architecture is not supported",
        lambda b: (b.model / "config.json").write_text('{"model_type": "gpt2"}'),
        "{model}: model type 'gpt2' is not supported; supported: esm... (...); a new one is one row of "
        "plmscope.models.architectures.ARCHITECTURES",
    ),
    Case(
        "the model folder has no weights",
        lambda b: (b.model / "model.safetensors").unlink(),
        "{model}: has no model.safetensors; the folder is incomplete, copy or download it again",
    ),
    Case(
        "the weights are a pickle",
        lambda b: (b.model / "model.safetensors").rename(b.model / "pytorch_model.bin"),
        "{model}: has pickled weights only, which plmscope never opens; convert them where you trust them: python -c "
        "'import torch; from safetensors.torch import save_file; w = dict(); [w.update(torch.load(file, "
        'map_location="cpu", weights_only=True)) for file in ["{model}/pytorch_model.bin"]]; w = w.get("state_dict", '
        'w.get("model_state_dict", w)); save_file(dict((k, v.contiguous().clone()) for k, v in w.items() if '
        """torch.is_tensor(v)), "{model}/model.safetensors", dict(format="pt"))'""",
    ),
    Case(
        "the model comes with code of its own",
        config(auto_map={"AutoModelForSequenceClassification": "modeling.Model"}),
        "{model}: config.json asks for code that comes with the model (auto_map), which plmscope never runs; "
        "if the model is one of transformers' own, remove auto_map in a copy of the folder and name that",
    ),
    Case(
        "a size in config.json is absurd",
        config(num_hidden_layers=10**9),
        "{model}: config.json: num_hidden_layers = 1000000000, must be a whole number from 1 to 512; "
        "copy or download it again",
    ),
    Case(
        "config.json is that of a smaller model",
        config(num_hidden_layers=2),
        "{model}: 16 weights have no place in a model of type 'esm' with the sizes of config.json, first "
        "'esm.encoder.layer.2.LayerNorm.bias'; copy the config.json that was saved with them",
    ),
    Case(
        "the vocabulary is that of a larger model",
        lambda b: (b.model / "vocab.txt").write_text("x\n" * 40 + (b.model / "vocab.txt").read_text()),
        "{model}: the tokenizer has a token ..., the model embeddings for 0 to 32; the vocabulary is that of another "
        "model, copy or download both again",
    ),
    Case(
        "the model is on the hub, and there is no network",
        setting(model='revision = "v1"'),
        "facebook/esm2_t6_8M_UR50D at revision v1: is not in the cache ..., and HF_HUB_OFFLINE is set; "
        "run once with the network (hf download facebook/esm2_t6_8M_UR50D --revision v1), or name a folder",
        ("run", "{study}", "--out", "{out}", "--model", "facebook/esm2_t6_8M_UR50D"),
    ),
    Case(
        "the weights are cut short",
        lambda b: os.truncate(b.model / "model.safetensors", 5000),
        "{model}/model.safetensors: is damaged (...); copy or download it again",
    ),
    Case(
        "a weight is not a number",
        lambda b: spoil_weight(b.model),
        "{model}: the weight 'esm.encoder.layer.0.intermediate.dense.weight' holds NaN or infinite "
        "values; the file is damaged",
    ),
    Case(
        "the checkpoint is of another shape",
        lambda b: reshape(b.model),
        "{model}: 9 weights have another shape than config.json says, first "
        "'esm.encoder.layer.0.intermediate.dense.bias'",
    ),
    Case(
        "the classes of a classifier have no names",
        classifier(id2label={"0": "LABEL_0", "1": "LABEL_1", "2": "LABEL_2"}),
        "{model}: its 3 classes are called LABEL_0 to LABEL_2, those of the proteins 1, 2, 3; name its outputs in "
        'their order: [model] classes = ["1", "2", "3"] (if that is the order) or id2label in config.json, or '
        "fine-tune a new one ([finetune] epochs above 0)",
    ),
    Case(
        "a classifier knows fewer classes than the proteins have",
        lambda b: (classifier()(b), b.data.write_text(table(classes="1236"))),
        "{model}: its classes are 1, 2, 3, those of the proteins 1, 2, 3, 6; leave the other proteins out with [data] "
        "classes, or fine-tune a new one ([finetune] epochs above 0)",
    ),
    Case(
        "a classifier has two classes of one name",
        classifier(id2label={"0": "1", "1": "2", "2": "1"}),
        "{model}: config.json (id2label) has the class '1' twice; give every output its own name there, or with "
        "[model] classes",
    ),
    Case(
        "a classifier has more outputs than names",
        classifier(id2label={"0": "1", "1": "2"}),
        "{model}: config.json (id2label) names 2 classes, its head has 3 outputs; name every one there, or with "
        "[model] classes",
    ),
    Case(
        "a setting names too few outputs",
        classifier('classes = ["1", "2"]'),
        "{model}: [model] classes has 2 names, its head 3 outputs; name every one in their order",
    ),
    Case(
        "a setting names the outputs in another order than config.json",
        classifier('classes = ["2", "1", "3"]'),
        "{model}: [model] classes has '2' as output 0, config.json (id2label) as output 1; correct one of them",
    ),
    Case(
        "a checkpoint predicts numbers",
        classifier(problem_type="regression"),
        "{model}: its head predicts numbers, not classes (problem_type = 'regression' in config.json); fine-tune a new "
        "one ([finetune] epochs above 0)",
    ),
    Case(
        "a classifier is for several classes a protein, the study for one",
        lambda b: (
            classifier(problem_type="multi_label_classification")(b),
            b.study.write_text(b.study.read_text().replace("[data]\n", '[data]\ntask = "single"\n')),
        ),
        "{model}: its head was trained for problem_type = 'multi_label_classification' (config.json), and task is "
        "'single'; set [data] task = \"multi\", or fine-tune a new one ([finetune] epochs above 0)",
    ),
    Case(
        "a classifier reads the mean, the study the first token",
        classifier('pooling = "first"', plmscope_pooling="mean"),
        "{model}: its head reads the mean of the residues (plmscope_pooling in config.json), and pooling is 'first'; "
        "leave [model] pooling out, or fine-tune a new one ([finetune] epochs above 0)",
    ),
    Case(
        "a language model is to be explained as it is",
        lambda b: (classifier()(b), no_head(b.model)),
        "{model}: has no classification head; fine-tune a new one ([finetune] epochs above 0)",
    ),
    Case(
        "a new head is asked for, and no training",
        classifier("new_head = true"),
        "{study}: model.new_head = true, and finetune.epochs = 0; change one of them",
    ),
    Case(
        "a file is named in place of the model's folder",
        nothing,
        "{model}/model.safetensors: is a file; name the folder that it is in, {model}",
        ("run", "{study}", "--out", "{out}", "--model", "{model}/model.safetensors"),
    ),
    Case(
        "a letter has no token",
        lambda b: (forget(b.model, "U"), row(f"q\t1.1.1.1\t{LEFT}U")(b)),
        "{data}: protein 'q': residue 'U' at position 34 has no token in {model}; replace it by X",
    ),
    Case(
        "the vocabulary is missing",
        lambda b: [p.unlink() for p in (*b.model.glob("vocab*"), *b.model.glob("token*"))],
        "{model}: has neither vocab.txt nor tokenizer.json; copy vocab.txt and tokenizer_config.json of the model that "
        "it was made from into it, such as with: hf download facebook/esm2_t6_8M_UR50D vocab.txt tokenizer_config.json "
        "--local-dir {model}",
    ),
    Case(
        "there is no GPU",
        nothing,
        "device 'cuda' is not available here; run the study with --device cpu, or on a machine that has it",
        ("run", "{study}", "--out", "{out}", "--device", "cuda"),
    ),
    Case(
        "the device does not exist",
        nothing,
        "command line: device = 'gpu': use cpu, cuda, cuda:1, cuda:all or auto",
        ("run", "{study}", "--out", "{out}", "--device", "gpu"),
    ),
    # --- run folders
    Case(
        "--out is a file",
        lambda b: (b.out.parent.mkdir(), b.out.write_text("x")),
        "{out}: is a file; name a folder with --out",
    ),
    Case(
        "--out has 300 letters",
        nothing,
        "ooo...ooo: cannot be made (File name too long); name another folder with --out",
        ("run", "{study}", "--out", "o" * 300),
    ),
    Case(
        "--out lies under a file",
        lambda b: b.out.parent.write_text("x"),
        "{out}: cannot be made (Not a directory); name another folder with --out",
    ),
    Case(
        "--out is somebody else's folder",
        lambda b: (b.out.mkdir(parents=True), (b.out / "thesis.tex").write_text("x")),
        "{out}: is not empty and not a plmscope run; name another folder with --out",
    ),
    Case(
        "manifest.json is damaged",
        lambda b: (b.run_folder() / "manifest.json").write_text("{"),
        "{out}/manifest.json: cannot be read (...); the run cannot be continued, start it anew in another folder",
    ),
    Case(
        "manifest.json is a list",
        lambda b: (b.run_folder() / "manifest.json").write_text("[]"),
        "{out}/manifest.json: is not a JSON object; the run cannot be continued, start it anew in another folder",
    ),
    Case(
        "the stages in manifest.json are damaged",
        lambda b: (b.run_folder() / "manifest.json").write_text('{"schema_version": "1.0", "stages": [1]}'),
        "{out}/manifest.json: its 'stages' are damaged; the run cannot be continued, start it anew in another folder",
    ),
    Case(
        "the run was written by another schema",
        lambda b: (b.run_folder() / "manifest.json").write_text('{"schema_version": "2.0"}'),
        "{out}: schema_version '2.0' is not '1.8'; use the plmscope that wrote it",
    ),
    Case(
        "the run folder is missing",
        nothing,
        "{out}: no such run folder; 'plmscope run STUDY' makes one",
        ("score", "{out}"),
    ),
    Case(
        "the folder is not a run",
        lambda b: b.out.mkdir(parents=True),
        "{out}: not a plmscope run folder (no manifest.json); name another folder",
        ("report", "{out}"),
    ),
    Case(
        "the stage before is missing",
        lambda b: b.run_folder(),
        "{out}: the stage 'finetune' comes first; run 'plmscope run {out}/study.toml --out {out}'",
        ("evaluate", "{out}"),
    ),
    Case(
        "a run folder is given to run",
        lambda b: b.run_folder(),
        "{out}: is a run folder; continue it with: plmscope run {out}/study.toml --out {out}",
        ("run", "{out}"),
    ),
    Case(
        "the study file is a folder",
        lambda b: b.out.mkdir(parents=True),
        "{out}: is a folder; name a study file, which 'plmscope init' writes",
        ("finetune", "{out}"),
    ),
    Case(
        "a factor without a selection",
        lambda b: b.run_folder(),
        "--label and --factor need --selection; without it every class's own neurons are judged",
        ("intervene", "{out}", "--factor", "2"),
    ),
    Case(
        "a selection and another run to compare",
        lambda b: b.run_folder(),
        "--selection and --other exclude each other; give one command for each",
        ("intervene", "{out}", "--selection", "{data}", "--other", "{out}"),
    ),
    Case(
        "nothing to export to",
        lambda b: b.run_folder(),
        "{data}: cannot be made (File exists); name another folder with --out",
        ("export", "{out}", "--out", "{data}"),
    ),
    Case(
        "another process writes to the run folder",
        busy,
        "{out}: another plmscope process is writing here; wait until it has ended",
    ),
    Case(
        "the run folder cannot be made in a read-only folder",
        unwritable("mkdir", errno.EACCES),
        "{out}: cannot be made (Permission denied); name another folder with --out",
    ),
    Case(
        "the disk is full",
        unwritable("write_bytes", errno.ENOSPC),
        "{folder}/new.toml: cannot be written (No space left on device); free space there or choose another place",
        ("init", "{folder}/new.toml"),
    ),
    Case(
        "init would replace a file",
        nothing,
        "{study}: is there already; choose another name or use --force",
        ("init", "{study}"),
    ),
    Case(
        "init would write into a missing folder",
        nothing,
        "{folder}/none: no such folder; make it or name another file",
        ("init", "{folder}/none/study.toml"),
    ),
    # --- the command line
    Case("the command does not exist", nothing, "No such command 'scores'...ee plmscope --help", ("scores", "{out}")),
    Case(
        "an option does not exist",
        nothing,
        "No such option...--outdir...ee plmscope run --help",
        ("run", "{study}", "--outdir", "x"),
    ),
    Case(
        "an option has no value",
        nothing,
        "Option '--out' requires an argument; see plmscope run --help",
        ("run", "{study}", "--out"),
    ),
    Case(
        "an option has a wrong value",
        nothing,
        "Invalid value for '--seed': ...; see plmscope run --help",
        ("run", "{study}", "--seed", "one"),
    ),
    Case(
        "a table of proteins is given for a study file",
        nothing,
        "{data}: holds proteins, not settings; write a study file with 'plmscope init' and name this one there, as "
        "path of [data]",
        ("run", "{data}"),
    ),
    Case("an argument is missing", nothing, "Missing argument 'STUDY'; see plmscope run --help", ("run",)),
    Case(
        "there is an argument too many",
        nothing,
        "Got unexpected extra argument... ({out}); see plmscope report --help",
        ("report", "{out}", "{out}"),
    ),
]


# --- the mistakes -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("sound"))


@pytest.fixture
def bench(tmp_path: Path, model_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    shutil.copytree(model_folder, tmp_path / "model")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    bench = Bench(tmp_path, monkeypatch)
    yield bench
    for close in bench.closing:
        close()


def refusal(capfd: pytest.CaptureFixture[str], arguments: list[str]) -> str:
    """Run a command that has to be refused; return its one line without the prefix."""
    assert main(arguments) == 2
    captured = capfd.readouterr()
    assert captured.out == ""
    lines = captured.err.splitlines()
    assert len(lines) == 1 and lines[0].startswith("plmscope: error: "), captured.err
    return lines[0].removeprefix("plmscope: error: ")


def tree(folder: Path) -> dict[str, bytes | None]:
    return {str(p.relative_to(folder)): p.read_bytes() if p.is_file() else None for p in folder.rglob("*")}


def check(case: Case, bench: Bench, capfd: pytest.CaptureFixture[str]) -> None:
    """Make the mistake; the answer is the line that was promised, and nothing else has changed."""
    case.spoil(bench)
    names = {
        "data": bench.data, "model": bench.model, "study": bench.study, "out": bench.out, "url": bench.url,
        "folder": bench.folder,
    }  # fmt: skip
    command = [part.format(**names) for part in case.command or ("run", "{study}", "--out", "{out}")]
    quiet = [] if command[0] in ("init", "export") else ["--quiet"]
    before = tree(bench.folder)
    line = refusal(capfd, [command[0], *quiet, *command[1:]])
    for name, path in names.items():
        line = line.replace(str(path), f"{{{name}}}") if str(path) else line
    pattern = ".*".join(re.escape(part) for part in case.message.split("..."))
    assert re.fullmatch(pattern, line), line
    after = tree(bench.folder)
    for found in (before, after):
        found.pop("runs/bad/.lock", None)  # empty, and dropped with its process
    for name in case.leaves:
        after.pop(name)
        before.pop(name, None)
    assert after == before


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.what.replace(" ", "-"))
def test_mistake_is_one_line_and_changes_nothing(case: Case, bench: Bench, capfd: pytest.CaptureFixture[str]) -> None:
    check(case, bench, capfd)


def test_long_proteins_are_skipped_with_a_count(bench: Bench, capfd: pytest.CaptureFixture[str]) -> None:
    bench.write_study(data='max_length = 34\ntoo_long = "skip"')
    (bench.model / "config.json").unlink()  # far enough
    assert main(["run", str(bench.study), "--out", str(bench.out)]) == 2
    line = capfd.readouterr().err.splitlines()[0]
    assert line == (
        f"ProteinSet(10 proteins from {str(bench.data)!r}; classes: 1 (4), 2 (3), 3 (3); "
        "20 excluded: 20 x longer than 34 residues)"
    )


def test_whatever_fails_before_the_first_stage_leaves_no_folder(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("plmscope.study.execute.write_study", fail)
    before = tree(bench.folder)
    with pytest.raises(ZeroDivisionError):
        main(["finetune", str(bench.study), "--out", str(bench.out), "--quiet"])
    assert tree(bench.folder) == before


def test_a_study_file_may_begin_with_a_mark_of_byte_order(bench: Bench) -> None:
    bench.study.write_text("\ufeff" + bench.study.read_text())
    assert read_study(bench.study).name == "bad"


def test_unwritable_disk_below_a_library(
    bench: Bench, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", "/cache/model")

    monkeypatch.setattr("plmscope.models.loading.load_model", refuse)
    line = refusal(capfd, ["run", str(bench.study), "--out", str(bench.out), "--quiet"])
    assert line == "/cache/model: Permission denied; allow writing there or choose another place"


def test_bug_is_not_dressed_up_as_a_mistake(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def bug(*_: object, **__: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("plmscope.study.study_file.read_study", bug)
    with pytest.raises(ZeroDivisionError):
        main(["run", str(bench.study)])


# --- what works -------------------------------------------------------------------------------------------------------


def test_version(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capfd.readouterr().out == f"plmscope {__version__}\n"


COMMANDS = [
    "demo", "init", "fetch", "run", "finetune", "score", "evaluate", "density", "characterize", "intervene", "report",
    "export", "layout", "faithfulness",
]  # fmt: skip


def test_help_names_every_command(capfd: pytest.CaptureFixture[str]) -> None:
    assert set(COMMANDS) <= set(typer.main.get_command(app).commands)  # type: ignore[attr-defined]
    assert main(["--help"]) == 0
    text = capfd.readouterr().out
    assert all(re.search(rf"\b{command}\b", text) for command in COMMANDS)


@pytest.mark.parametrize("command", sorted(typer.main.get_command(app).commands))  # type: ignore[attr-defined]
def test_help_of_a_command(command: str, capfd: pytest.CaptureFixture[str]) -> None:
    for flag in ("--help", "-h"):
        assert main([command, flag]) == 0
        text = capfd.readouterr().out
        assert f"plmscope {command}" in text.replace("pytest", "plmscope") or command in text
        assert "--help" in text and len(text.splitlines()) > 5


def test_no_command_shows_the_help(capfd: pytest.CaptureFixture[str]) -> None:
    status = main([])
    captured = capfd.readouterr()
    assert status in (0, 2) and "demo" in captured.out + captured.err


def test_init_does_not_replace_without_force(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "my.toml"
    assert main(["init", str(path)]) == 0
    assert capfd.readouterr().err == f"wrote {path}; edit it, then: plmscope run {path}\n"
    path.write_text("mine")
    assert main(["init", str(path)]) == 2 and path.read_text() == "mine"
    assert main(["init", str(path), "--force"]) == 0 and path.read_text() != "mine"


def test_init_quick_is_the_demo_of_proteins_of_ones_own(tmp_path: Path) -> None:
    path = tmp_path / "my.toml"
    assert main(["init", str(path), "--quick"]) == 0
    quick, plain, demo = read_study(path), Study(), demo_study()
    assert (quick.name, quick.data, quick.split) == (plain.name, plain.data, plain.split)
    assert (quick.score, quick.evaluate, quick.finetune) == (demo.score, demo.evaluate, demo.finetune)


def test_quiet_prints_the_closing_table_alone(
    golden: Golden, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = golden.copy(tmp_path / "run")
    (folder / "report.html").unlink()
    assert main(["report", str(folder), "--quiet"]) == 0
    captured = capfd.readouterr()
    assert captured.err == ""
    lines = [line.rstrip() for line in captured.out.splitlines()]
    assert lines[0].split() == ["question", "┃", "answer"]
    assert "test balanced accuracy" in lines[2] and lines[-1] == f"report: {folder / 'report.html'}"
    words = " ".join(line.split("│")[0].strip() for line in lines)  # long questions are broken into lines
    assert words.count("beats chance, pooled") == 2 and words.count("beats chance, within keys") == 2
    assert words.count("concentration:") == 2 and words.count("within keys:") + 2 == words.count("keys:")
    assert main(["report", str(folder)]) == 0
    captured = capfd.readouterr()
    assert [line.rstrip() for line in captured.out.splitlines()] == lines
    assert captured.err == "report: finished before, nothing changed, not run again\n"


def test_stages_one_by_one_find_themselves_done(
    golden: Golden, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = golden.copy(tmp_path / "run")
    for stage in [row.name for row in commands()][1:]:
        assert main([stage, str(folder)]) == 0
        together = [row.name for row in ROWS if stage in (row.name, row.along)]
        lines = [f"{name}: finished before, nothing changed, not run again\n" for name in together]
        assert capfd.readouterr().err == "".join(lines)
    assert main(["finetune", str(golden.study), "--out", str(folder)]) == 0
    assert capfd.readouterr().err == "finetune: finished before, nothing changed, not run again\n"


def test_export(golden: Golden, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    folder = golden.copy(tmp_path / "run")
    assert main(["export", str(folder)]) == 0
    assert capfd.readouterr().err == f"wrote 54 tables to {folder / 'csv'}\n"
    lines = (folder / "csv" / "curves.csv").read_text().splitlines()
    assert lines[0].startswith("method,matched_to,scope,module,draw,mode,ablation,fraction,n_neurons,accuracy")
    assert len(lines) == 1 + len(Run.open(folder).table("curves"))
    assert len(list((folder / "csv").iterdir())) == 54


def test_overrides_reach_the_study(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    monkeypatch.setattr("plmscope.study.Stages.execute", lambda self, wanted: seen.append((self.study, wanted)))
    monkeypatch.chdir(bench.folder)
    assert main(["run", str(bench.study), "--seed", "7", "--device", "cuda:1", "--model", "other", "-q"]) == 0
    assert main(["finetune", str(bench.study), "-o", str(bench.folder / "here")]) == 0
    (first, all_stages), (second, one) = seen
    assert (first.seed, first.device, first.model.checkpoint) == (7, "cuda:1", "other")
    assert (second.seed, second.device, second.model.checkpoint) == (0, "cpu", str(bench.model))
    assert all_stages is None and one == ["finetune"]
    assert (bench.folder / "runs" / "bad").is_dir() and (bench.folder / "here").is_dir()  # runs/NAME is the default


@pytest.mark.parametrize(
    "text",
    [
        "Error while serializing: I/O error: No space left on device (os error 28)",
        "[enforce fail at inline_container.cc:868] . PytorchStreamWriter failed writing file data/1",
        "[enforce fail at inline_container.cc:672] . unexpected pos 122496 vs 122384",
        "basic_ios::clear: iostream error",
    ],
)
def test_weights_that_find_no_space_are_one_line(
    tmp_path: Path, text: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """What safetensors and PyTorch say of a full disk is no OSError; other errors of theirs stay what they are."""

    def broken(*arguments: object) -> None:
        raise RuntimeError(text)

    monkeypatch.setattr("plmscope.store.files.write_atomic", broken)
    assert main(["init", str(tmp_path / "s.toml")]) == 2
    line = "model weights cannot be written (No space left on device); free space there or choose another place"
    assert capfd.readouterr().err == f"plmscope: error: {line}\n"
    text = "shapes differ"
    with pytest.raises(RuntimeError, match="shapes differ"):
        main(["init", str(tmp_path / "s.toml")])
