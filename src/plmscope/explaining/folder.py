"""A file of proteins explained into a folder: three tables, one page, and what was left out.

Proteins are explained in the order of the file, some at a time; what is finished is written at once, so that the same
command continues after a kill, and memory does not grow with their number. Nothing is explained again whose run,
proteins and settings did not change.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from plmscope import __version__
from plmscope.data.annotations import read_features
from plmscope.data.proteins import Protein, ProteinSet, read_proteins
from plmscope.errors import InputError, RunError
from plmscope.evaluation.selection import Selection
from plmscope.explaining.explainer import Explainer, Settings
from plmscope.explaining.explanation import SCHEMA, Explanation
from plmscope.explaining.page import MOST_ON_PAGE, write_page
from plmscope.progress import Track, silent
from plmscope.store.files import lock, write_atomic
from plmscope.study.opened import OpenRun

#: Proteins whose nearest training proteins are searched together, and that are written together.
AT_ONCE = 16
PAGE, NOTE, LINES, PARTS = "explained.html", "explained.json", "explained.jsonl", "explain.parts"


@dataclass(frozen=True)
class ExplainedFile:
    """What was written.

    Attributes:
        folder: Where.
        proteins: How many were explained.
        excluded: How many were left out, listed in ``explained.json``.
        first: The first explanation that was made now; ``None`` if all were there.
    """

    folder: Path
    proteins: int
    excluded: int
    first: Explanation | None


def explain_file(
    opened: OpenRun,
    path: str | Path,
    out: Path | None = None,
    *,
    label: str | None = None,
    neurons: str | Path | None = None,
    features: str | Path | None = None,
    settings: Settings | None = None,
    as_json: bool = False,
    track: Track = silent,
    say: Callable[[str], None] = lambda line: None,
) -> ExplainedFile:
    """Explain every protein of a file.

    Args:
        opened: The run.
        path: Any file of sequences that a study reads; labels are not needed and not looked at.
        out: Folder; default ``explained/NAME`` in the run folder.
        label: The class to explain; ``None``: what the model says of each.
        neurons: TSV of neurons to hold together; ``None``: the explained class's own.
        features: Residue features to show.
        settings: How much is computed.
        as_json: Also write one JSON object a protein and line.
        track: Progress.
        say: Told one line at a time.

    Raises:
        InputError: the file cannot be used, or holds no protein that the model can read.
        RunError: the folder cannot be written, or holds other things.
    """
    settings = settings or Settings(seed=opened.study.seed)
    found = read_explainable(opened, path)
    say(repr(found))
    chosen = None if neurons is None else Selection.from_tsv(neurons, opened.model.index)
    own_features = None if features is None else read_features(features, found.proteins)
    if own_features is not None:
        say(repr(own_features))
    explainer = Explainer(opened, label=label, neurons=chosen, features=own_features, settings=settings, track=track)
    stamp = _stamp(opened, found, label, chosen, "" if own_features is None else own_features.sha256, settings)
    folder = out or opened.run.path / "explained" / (Path(path).name.split(".")[0] or "proteins")
    _make(folder)
    with lock(folder / ".lock", f"{folder}: another plmscope process is writing here"):
        ready = _read_note(folder / NOTE)
        kept = [PAGE, *(f"{name}.parquet" for name in SCHEMA), *([LINES] if as_json else [])]
        if ready.get("stamp") == stamp and all((folder / name).is_file() for name in kept):
            say(f"{folder}: these proteins are explained already")
            return ExplainedFile(folder, len(found), len(found.excluded), None)
        parts = folder / PARTS
        first = None
        todo = _todo(found.proteins, parts, stamp)
        if len(todo) < -(-len(found) // AT_ONCE):
            say(f"explain: continuing after {len(found) - sum(len(p) for _, p in todo):,} of {len(found):,} proteins")
        if todo:
            explainer.prepare()
        for start, proteins, explained in _explained(explainer, todo, track):
            first = first or explained[0]
            _write_part(parts, f"{stamp}-{start:09d}", proteins, explained)
        tables, lines = _join(parts, stamp)
        for name, frame in tables.items():
            write_atomic(folder / f"{name}.parquet", frame.to_parquet(index=False, compression="zstd"))
            write_atomic(folder / f"{name}.csv", frame.to_csv(index=False).encode())
        if as_json:
            plain = ({k: v for k, v in json.loads(line).items() if k != "tracks"} for line in lines)
            write_atomic(folder / LINES, "".join(json.dumps(one, ensure_ascii=False) + "\n" for one in plain).encode())
        else:
            (folder / LINES).unlink(missing_ok=True)
        write_page(folder / PAGE, opened, [json.loads(line) for line in lines[:MOST_ON_PAGE]], len(found), found.source)
        note = {
            "stamp": stamp, "plmscope": __version__, "run": str(opened.run.path), "proteins": len(found),
            "source": found.source, "sha256": found.sha256, "label": label, "settings": asdict(settings),
            "excluded": [asdict(one) for one in found.excluded],
        }  # fmt: skip
        write_atomic(folder / NOTE, json.dumps(note, indent=1).encode())
        shutil.rmtree(parts, ignore_errors=True)
    return ExplainedFile(folder, len(found), len(found.excluded), first)


def read_explainable(opened: OpenRun, path: str | Path) -> ProteinSet:
    """The proteins of a file as far as the run's model can read them; the others are excluded and counted.

    Raises:
        InputError: the file cannot be used, a residue has no token, or no protein is left.
    """
    try:
        found = read_proteins(
            path, id_column="", sequence_column="", duplicates="keep", min_length=1,
            max_length=opened.model.max_residues, too_long="skip",
        )  # fmt: skip
    except InputError as error:
        raise InputError(error.plain) from None
    for protein in found:
        try:
            opened.model.encode(protein.sequence)
        except InputError as error:
            raise InputError(f"{path}: protein {protein.id!r}: {error.plain}") from None
    return found


def _stamp(
    opened: OpenRun, found: ProteinSet, label: str | None, chosen: Selection | None, features: str, settings: Settings
) -> str:
    """Digest of everything that an explanation depends on."""
    manifest = opened.run.manifest()
    stages = {name: entry.get("fingerprint", "") for name, entry in manifest.get("stages", {}).items()}
    stages = {name: stages.get(name, "") for name in ("finetune", "score", "evaluate", "characterize")}
    neurons = "" if chosen is None else hashlib.sha256(chosen.mask.tobytes()).hexdigest()
    what = [__version__, stages, found.sha256, label, neurons, features, asdict(settings)]
    return hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()[:16]


def _make(folder: Path) -> None:
    """The folder, empty or one of ours."""
    try:
        if folder.is_dir() and not (folder / NOTE).is_file() and not (folder / PARTS).is_dir():
            others = [path.name for path in folder.iterdir() if path.name != ".lock"]
            if others:
                raise RunError(f"{folder}: holds other things ({others[0]!r}); name another folder with --out")
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(f"{folder}: cannot be made ({error.strerror}); name another folder with --out") from None


def _read_note(path: Path) -> dict[str, Any]:
    """What an earlier call wrote down; empty if it is not there or damaged."""
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


Group = tuple[int, Sequence[Protein]]


def _todo(proteins: Sequence[Protein], parts: Path, stamp: str) -> list[Group]:
    """Groups of proteins that are not explained yet; parts of other settings are removed."""
    try:
        parts.mkdir(exist_ok=True)
    except OSError as error:
        raise RunError(f"{parts}: cannot be made ({error.strerror}); allow writing there") from None
    for path in parts.iterdir():
        if not path.name.startswith(f"{stamp}-"):
            path.unlink()
    groups = [(start, proteins[start : start + AT_ONCE]) for start in range(0, len(proteins), AT_ONCE)]
    return [group for group in groups if not (parts / f"{stamp}-{group[0]:09d}.jsonl").is_file()]


def _explained(
    explainer: Explainer, todo: Sequence[Group], track: Track
) -> Iterator[tuple[int, Sequence[Protein], list[Explanation]]]:
    """Every group with its explanations, one step of progress a protein."""
    total = sum(len(proteins) for _, proteins in todo)
    each = ((start, proteins, one) for start, proteins in todo for one in explainer(proteins))
    done: list[Explanation] = []
    for start, proteins, one in track(each, "explaining", total):
        done.append(one)
        if len(done) == len(proteins):
            yield start, proteins, done
            done = []


def _write_part(parts: Path, name: str, proteins: Sequence[Protein], explained: Sequence[Explanation]) -> None:
    """The tables of a group, and last its lines, which say that it is whole."""
    frames = {
        "explained_proteins": pd.DataFrame([dict(one.summary) for one in explained]),
        "explained_residues": pd.concat([one.residues for one in explained], ignore_index=True),
        "explained_neurons": pd.concat([one.neurons for one in explained], ignore_index=True),
    }
    for table, frame in frames.items():
        write_atomic(parts / f"{name}.{table}", frame[list(SCHEMA[table])].to_parquet(index=False))
    lines = []
    for one in explained:
        tracks = [[float(f"{x:.3g}") for x in row] for row in np.asarray(one.tracks)]
        lines.append(json.dumps(json.loads(one.to_json()) | {"tracks": tracks}, ensure_ascii=False))
    write_atomic(parts / f"{name}.jsonl", "".join(f"{line}\n" for line in lines).encode())


def _join(parts: Path, stamp: str) -> tuple[dict[str, pd.DataFrame], list[str]]:
    """All parts as one, in the order of the proteins."""
    names = [path.name.removesuffix(".jsonl") for path in sorted(parts.glob(f"{stamp}-*.jsonl"))]
    tables = {
        table: pd.concat([pd.read_parquet(parts / f"{name}.{table}") for name in names], ignore_index=True)
        for table in SCHEMA
    }
    lines = [
        line for name in names for line in (parts / f"{name}.jsonl").read_text(encoding="utf-8").split("\n") if line
    ]
    return tables, lines
