"""What a study reads from outside its run folder, and the digests that tell it from anything else.

Whatever can be refused is refused here, before anything is written. Later stages need none of it again: the manifest
keeps the digests under ``inputs``, so that files may be moved or be gone.
"""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from plmscope.data.formats import EMBEDDED_FILES as EMBEDDED_TABLES
from plmscope.data.formats import STDIN, save_stdin
from plmscope.data.leakage import leakage, leakage_lines
from plmscope.data.proteins import Protein, ProteinSet, read_proteins
from plmscope.data.splits import Split, balance_lines, balance_table, split_proteins
from plmscope.data.structure_features import folder_digest
from plmscope.errors import InputError, RunError
from plmscope.progress import Track
from plmscope.scoring.table import code_of, plain_methods
from plmscope.store.folder import Run
from plmscope.study.settings import Study

#: Standard input, until it is known to be sound.
NEW_STDIN = "stdin.new"


@dataclass(frozen=True)
class Prepared:
    """What fine-tuning starts from.

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
class Inputs:
    """The files and the checkpoint that a study names, each read when it is first asked for.

    Attributes:
        study: Settings.
        run: The run folder, whose manifest has the digests of what was read before.
        track: Progress.
        say: Told one line at a time what was found.
        again: Whether files are read again even if their digests are known, as the first stage does.
    """

    study: Study
    run: Run
    track: Track
    say: Callable[[str], None]
    again: bool = field(default=False, init=False)

    def digest(self, name: str) -> str:
        """What tells the ``data``, the ``model`` or the ``features`` of a study from others."""
        return {"data": self.data_digest, "model": self.model_digest, "features": self.features_digest}[name]

    @cached_property
    def data(self) -> ProteinSet:
        """The proteins.

        Raises:
            InputError: they cannot be read.
            RunError: they are others than the run was made from.
        """
        d = self.study.data
        proteins = read_proteins(
            d.path, label=d.label, task=d.task_or_single, labels=d.labels, ec_column=d.ec_column,
            separator=d.separator, id_column=d.id_column, sequence_column=d.sequence_column, classes=d.classes,
            min_per_class=d.min_per_class,
            duplicates=d.duplicates, min_length=d.min_length, max_length=d.max_length, too_long=d.too_long,
            window_overlap=d.window_overlap, other_letters=d.other_letters,
            stdin=self._stdin() if d.path == STDIN else None,
        )  # fmt: skip
        if not self.again and self.known.get("data", proteins.sha256) != proteins.sha256:
            raise RunError(
                f"{proteins.source}: has changed since {self.run.path} was made from it; put it back or use "
                "'plmscope run'"
            )
        return proteins

    def _stdin(self) -> Path:
        """Standard input as a file in the run folder, where later stages and commands find it again."""
        kept, new = self.run.path / "stdin", self.run.path / NEW_STDIN
        if self.again and not (kept.is_file() and (sys.stdin is None or sys.stdin.isatty())):
            try:
                save_stdin(new)
            except InputError:
                new.unlink(missing_ok=True)
                if not kept.is_file():
                    raise
            else:
                return new
        return kept

    def keep_stdin(self) -> None:
        """Standard input was sound: from now on it is the run's."""
        if (self.run.path / NEW_STDIN).is_file():
            (self.run.path / NEW_STDIN).replace(self.run.path / "stdin")

    def forget_stdin(self) -> None:
        """Standard input was refused."""
        (self.run.path / NEW_STDIN).unlink(missing_ok=True)

    @property
    def known(self) -> dict[str, str]:
        """What the manifest says of the study's files; they need not be there any more where none is read again."""
        inputs = self.run.manifest().get("inputs", {})
        return inputs if isinstance(inputs, dict) else {}

    @cached_property
    def data_digest(self) -> str:
        """That of the proteins' file."""
        known = self.known.get("data")
        return known if known and not self.again else self.data.sha256

    @cached_property
    def features_digest(self) -> str:
        """What tells one file of features, and one folder of structures, from another; empty without one."""
        structures = self.study.characterize.structures
        return self._features_digest + (folder_digest(structures) if structures and os.path.isdir(structures) else "")

    @property
    def _features_digest(self) -> str:
        path = Path(self.study.characterize.features)
        if not self.study.characterize.features:
            return ""
        if not os.path.isfile(path):  # refused where it is read, and so is a name that is too long
            return "" if self.again else self.known.get("features", "")
        with path.open("rb") as handle:
            return hashlib.file_digest(handle, "sha256").hexdigest()

    def scorers(self, settings: Sequence[str]) -> dict[str, list[str]]:
        """The code of scorers that others brought, for a stage with these settings; empty where all are plmscope's."""
        faithfulness, names = self.study.faithfulness, list[str]()
        if "score" in settings:
            names += self.study.score.methods
        if "faithfulness" in settings and faithfulness.enabled:
            names += faithfulness.methods or plain_methods()
        return code_of(names)

    @cached_property
    def model_digest(self) -> str:
        """What tells one checkpoint from another without loading it.

        The bytes of a folder's files; they are read again only where a size or a time differs from what the manifest
        has. The name of another.
        """
        from plmscope.models.checkpoints import local_folder

        known, folder = self.known, local_folder(self.study.model.checkpoint)
        if known.get("model") and (not self.again or self.model_files == known.get("model_files")):
            return known["model"]
        if folder is None:
            return self.study.model.checkpoint
        digest = hashlib.sha256()
        for path in _model_parts(folder):
            with path.open("rb") as handle:
                digest.update(path.name.encode() + hashlib.file_digest(handle, "sha256").digest())
        return digest.hexdigest()

    @cached_property
    def model_files(self) -> str:
        """Sizes and times of the files of a local checkpoint."""
        from plmscope.models.checkpoints import local_folder

        folder = local_folder(self.study.model.checkpoint)
        if folder is None:
            return self.study.model.checkpoint
        stats = {path: path.stat() for path in _model_parts(folder)}
        return ";".join(f"{path}:{stat.st_size}:{stat.st_mtime_ns}" for path, stat in stats.items())

    @cached_property
    def prepared(self) -> Prepared:
        """Proteins, split and model, and how near test proteins are to those of training."""
        from plmscope.models.checkpoints import EMBEDDED, SEEN
        from plmscope.models.loading import find_on, load_model
        from plmscope.models.lora import require_peft

        study, found = self.study, self.data
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
        elif study.model.checkpoint == EMBEDDED and not s.held_out:
            self.say(f"model: {SEEN}")
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
        return Prepared(found, split, of, near, base)

    def drop_prepared(self) -> None:
        """The model that training started from need not stay in memory."""
        self.__dict__.pop("prepared", None)


def _model_parts(folder: Path) -> list[Path]:
    """The files of a checkpoint that are read."""
    return sorted(p for p in folder.iterdir() if p.suffix in (".json", ".safetensors", ".txt") and p.is_file())


def completed(study: Study) -> Study:
    """A study with what follows from its data and its checkpoint: the task, and which proteins to test on."""
    return _with_task(_kept_apart(study))


def _kept_apart(study: Study) -> Study:
    """Of the embedded proteins, test the embedded model on those alone that it never saw: it was trained on others.

    A split by a column is the user's own.
    """
    from plmscope.models.checkpoints import EMBEDDED

    s = study.split
    own = study.data.path not in EMBEDDED_TABLES or study.model.checkpoint != EMBEDDED
    if own or s.held_out or s.method == "column":
        return study
    return study.model_copy(update={"split": s.model_copy(update={"held_out": "held_out"})})


def _with_task(study: Study) -> Study:
    """The task that the checkpoint says it was trained for, where the study leaves it open; else ``single``."""
    from plmscope.models.finding import said_by
    from plmscope.models.heads import PROBLEM_TYPES

    if study.data.task:
        return study
    said = said_by(study.model.checkpoint, study.model.revision or None).get("problem_type")
    task = "multi" if said == PROBLEM_TYPES["multi"] else "single"
    return study.model_copy(update={"data": study.data.model_copy(update={"task": task})})


def anchored(study: Study) -> Study:
    """A study whose files are found from any working directory."""
    from plmscope.models.checkpoints import EMBEDDED, local_folder

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
            "characterize": c.model_copy(update={"features": whole(c.features), "structures": whole(c.structures)}),
        }
    )
