"""The run folder: which files there are, their columns, and writing them so that nothing is ever half there.

``manifest.json`` holds, per stage, a fingerprint of what it depended on: a finished stage whose inputs did not change
is not run again. One process at a time may write to a run folder.
"""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from plmscope.errors import RunError, one_line
from plmscope.store.files import lock, write_atomic
from plmscope.store.schema import SCHEMA, SCHEMA_VERSION

#: Columns that an older schema lacked, and what its rows had there.
ADDED: dict[str, dict[str, Any]] = {
    "curves": {"module": "", "log_probability": np.nan},
    "comparison": {"ranked_by": "", "module": "", "share_better": np.nan},
    "density": {"enrichment_permuted": np.nan, "p_permutation": np.nan},
    "associations": {"auroc_beyond_letter": np.nan},
    "motifs": {"auroc_beyond_letter": np.nan},
    "neuron_cards": {"knows": "", "r2_letter": np.nan, "r2_window": np.nan, "auroc_beyond_letter": np.nan},
}
_AGAIN = "delete it, then 'plmscope run' writes it again"
_LOST = "the run cannot be continued, start it anew in another folder"
#: Tables that several models have rows in: a file each, beside the model.
OF_EACH_MODEL = {"training": "nulls/*/training.parquet"}


class Run:
    """One run folder: its tables as data frames, its manifest and its metrics as dicts.

    Attributes:
        path: The folder.

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     run = Run.create(Path(folder, "run"))
    ...     run.write_table("letters", pd.DataFrame([dict.fromkeys(SCHEMA["letters"], 0)]))
    ...     Run.open(Path(folder, "run")).table("letters")["r2_letter"].tolist()
    [0]
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._made: list[Path] = []  # this folder and its parents, as far as this object made them

    def __repr__(self) -> str:
        done = [name for name, entry in self.manifest()["stages"].items() if entry.get("status") == "done"]
        return f"Run({str(self.path)!r}, finished: {', '.join(done) or 'nothing yet'})"

    @classmethod
    def open(cls, path: str | Path) -> Run:
        """An existing run folder.

        Raises:
            RunError: the folder is missing or is not a run folder of a known schema.
        """
        path = Path(path)
        if not os.path.isdir(path):  # Path.is_dir raises where the name is too long
            raise RunError(f"{path}: no such run folder; 'plmscope run STUDY' makes one")
        if not (path / "manifest.json").is_file():
            raise RunError(f"{path}: not a plmscope run folder (no manifest.json); name another folder")
        run = cls(path)
        version = str(run.manifest().get("schema_version", ""))
        if version.split(".")[0] != SCHEMA_VERSION.split(".")[0]:
            raise RunError(
                f"{path}: schema_version {version!r} is not {SCHEMA_VERSION!r}; use the plmscope that wrote it"
            )
        return run

    @classmethod
    def create(cls, path: str | Path) -> Run:
        """A new run folder, or the existing one to continue.

        Raises:
            RunError: the folder cannot be made, or holds something that is not a run.
        """
        path = Path(path)
        try:
            if path.exists() and not path.is_dir():
                raise RunError(f"{path}: is a file; name a folder with --out")
            if path.is_dir() and any(path.iterdir()) and not (path / "manifest.json").is_file():
                raise RunError(f"{path}: is not empty and not a plmscope run; name another folder with --out")
            made = [folder for folder in (path, *path.parents) if not folder.exists()]
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RunError(f"{path}: cannot be made ({error.strerror}); name another folder with --out") from None
        if not (path / "manifest.json").is_file():
            write_atomic(path / "manifest.json", json.dumps({"schema_version": SCHEMA_VERSION, "stages": {}}).encode())
        run = cls.open(path)
        run._made = made
        return run

    def discard(self) -> None:
        """Take back what :meth:`create` made, if no stage has begun in it; an older folder is left alone."""
        if self._made and not self.manifest()["stages"]:
            shutil.rmtree(self.path)
            for parent in self._made[1:]:
                with contextlib.suppress(OSError):  # somebody else may use it by now
                    parent.rmdir()

    @contextlib.contextmanager
    def locked(self, shared: bool = False) -> Iterator[None]:
        """Hold the folder's lock; ``shared`` lets others hold it too that change nothing in the folder.

        Raises:
            BusyError: another process holds it.
            RunError: the folder is not writable.
        """
        with lock(self.path / ".lock", f"{self.path}: another plmscope process is writing here", shared):
            yield

    def manifest(self) -> dict[str, Any]:
        """``manifest.json``.

        Raises:
            RunError: it cannot be read, or is not what plmscope writes.
        """
        manifest = self._json("manifest.json", _LOST)
        stages = manifest.setdefault("stages", {})
        if not isinstance(stages, dict) or not all(isinstance(entry, dict) for entry in stages.values()):
            raise RunError(f"{self.path / 'manifest.json'}: its 'stages' are damaged; {_LOST}")
        return manifest

    def metrics(self) -> dict[str, Any]:
        """``metrics.json`` (classification quality per split, with its baselines).

        Raises:
            RunError: it cannot be read, or is not what plmscope writes.
        """
        metrics = self._json("metrics.json", _AGAIN)
        try:
            blocks = [block for split in metrics["splits"].values() for block in split.values()]
            known = [metrics["splits"]["test"][name] for name in ("model", "composition", "majority")]
            if all(isinstance(block["balanced_accuracy"], int | float) for block in [*blocks, *known]):
                return metrics
        except (AttributeError, KeyError, TypeError):
            pass
        raise RunError(f"{self.path / 'metrics.json'}: its 'splits' are damaged; {_AGAIN}")

    def _json(self, name: str, advice: str) -> dict[str, Any]:
        path = self.path / name
        try:
            content = json.loads(path.read_text())
        except (OSError, ValueError) as error:
            reason = (error.strerror if isinstance(error, OSError) else None) or error
            raise RunError(f"{path}: cannot be read ({reason}); {advice}") from None
        if not isinstance(content, dict):
            raise RunError(f"{path}: is not a JSON object; {advice}")
        return content

    def update_manifest(self, **changes: Any) -> None:
        """Merge top-level keys into the manifest; ``stages`` is merged stage by stage."""
        manifest = self.manifest()
        stages = manifest.get("stages", {}) | changes.pop("stages", {})
        write_atomic(
            self.path / "manifest.json", json.dumps(manifest | changes | {"stages": stages}, indent=1).encode()
        )

    def write_json(self, name: str, content: dict[str, Any]) -> None:
        """Write a JSON file of the run folder."""
        write_atomic(self.path / name, json.dumps(content, indent=1, sort_keys=True).encode())

    def has(self, table: str) -> bool:
        """Whether a table is there."""
        return (self.path / f"{table}.parquet").is_file()

    def table(self, name: str) -> pd.DataFrame:
        """One table of the run folder; columns that its schema did not have yet are as :data:`ADDED` says.

        The rows of :data:`OF_EACH_MODEL` are those of the run's model, then those of its null models.

        Raises:
            RunError: it is missing, cut short, or lacks columns.
        """
        path = self.path / f"{name}.parquet"
        more = sorted(self.path.glob(OF_EACH_MODEL[name])) if name in OF_EACH_MODEL else []
        frames = [self._read(one, name) for one in (path, *more)]
        return pd.concat(frames, ignore_index=True) if more else frames[0]

    def _read(self, path: Path, name: str) -> pd.DataFrame:
        """One file of a table."""
        frame = self._parquet(path)
        frame = frame.assign(**{c: value for c, value in ADDED.get(name, {}).items() if c not in frame.columns})
        missing = [column for column in SCHEMA[name] if column not in frame.columns]
        if missing:
            raise RunError(f"{path}: lacks the columns {', '.join(missing)}; {_AGAIN}")
        return frame

    def _parquet(self, path: Path) -> pd.DataFrame:
        if not path.is_file():
            raise RunError(f"{path}: missing; 'plmscope run' writes it")
        try:
            return pd.read_parquet(path)
        except Exception as error:  # pyarrow raises several kinds for a damaged file
            raise RunError(f"{path}: is damaged ({one_line(error)}); {_AGAIN}") from None

    def own(self, name: str) -> pd.DataFrame:
        """A table that is the stages' own business, one outside :data:`SCHEMA`.

        Raises:
            RunError: it is missing or cut short.
        """
        return self._parquet(self.path / f"{name}.parquet")

    def write_own(self, name: str, frame: pd.DataFrame) -> None:
        """Write a table that is the stages' own business, atomically."""
        write_atomic(self.path / f"{name}.parquet", frame.to_parquet(index=False))

    def write_table(self, name: str, frame: pd.DataFrame, folder: str = "") -> None:
        """Write a table atomically, its columns in the order of :data:`SCHEMA`.

        Args:
            name: Of the table.
            frame: Its rows; more columns may follow.
            folder: Inside the run folder, that of a null model for its own rows.
        """
        missing = [column for column in SCHEMA[name] if column not in frame.columns]
        if missing:
            raise RunError(f"table {name}: columns {missing} are missing")
        extra = [column for column in frame.columns if column not in SCHEMA[name]]
        ordered = frame[[*SCHEMA[name], *extra]]
        write_atomic(self.path / folder / f"{name}.parquet", ordered.to_parquet(index=False, compression="zstd"))

    def export(self, folder: Path) -> list[Path]:
        """Every table as CSV in ``folder``; returns the files written."""
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RunError(f"{folder}: cannot be made ({error.strerror}); name another folder with --out") from None
        written = []
        for name in SCHEMA:
            if self.has(name):
                write_atomic(folder / f"{name}.csv", self.table(name).to_csv(index=False).encode())
                written.append(folder / f"{name}.csv")
        return written

    def is_done(self, stage: str, fingerprint: str) -> bool:
        """Whether a stage has finished with exactly these inputs."""
        entry = self.manifest().get("stages", {}).get(stage, {})
        return bool(entry.get("status") == "done" and entry.get("fingerprint") == fingerprint)

    def clear(self, *names: str) -> None:
        """Remove files or folders of an outdated stage."""
        for name in names:
            path = self.path / name
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)


def read_parquet(run: Run, name: str) -> pd.DataFrame:
    """Read a table that scoring writes for later stages, one outside the contract."""
    if not (run.path / f"{name}.parquet").is_file():
        raise RunError(f"{run.path / name}.parquet: missing; run 'plmscope score {shlex.quote(str(run.path))}'")
    return run.own(name)
