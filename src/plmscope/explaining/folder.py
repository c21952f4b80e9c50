"""A file of proteins explained into a folder: three tables, one page, and what was left out.

Proteins are explained in the order of the file, some at a time; what is finished is written at once, so that the same
command continues after a kill, and memory does not grow with their number. Nothing is explained again whose run,
proteins and settings did not change.
"""

from __future__ import annotations

import atexit
import contextlib
import hashlib
import io
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from plmscope import __version__
from plmscope.data.annotations import read_features
from plmscope.data.proteins import Protein, ProteinSet, read_proteins
from plmscope.data.structures import digest_of, match_structure
from plmscope.errors import InputError, RunError
from plmscope.evaluation.selection import Selection
from plmscope.explaining.explainer import Explainer, ExplainSettings
from plmscope.explaining.explanation import SCHEMA, Explanation
from plmscope.explaining.page import MOST_ON_PAGE, write_page
from plmscope.explaining.training import CACHE
from plmscope.progress import Track, silent
from plmscope.store.files import lock, write_atomic
from plmscope.store.folder import Run
from plmscope.store.resume import Arrays, Parts
from plmscope.study.opened import OpenRun
from plmscope.study.settings import Study
from plmscope.tasks.crew import ALONE, Crew
from plmscope.tasks.sent import Sent
from plmscope.tasks.task import Task

#: Proteins whose nearest training proteins are searched together, and that are written together.
AT_ONCE = 16
PAGE, NOTE, LINES, PARTS = "explained.html", "explained.json", "explained.jsonl", "explain.parts"


@dataclass(frozen=True)
class ExplainedFile:
    """What :func:`explain_file` has written.

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
    structure: str | Path | None = None,
    settings: ExplainSettings | None = None,
    as_json: bool = False,
    track: Track = silent,
    say: Callable[[str], None] = lambda line: None,
    crew: Crew = ALONE,
) -> ExplainedFile:
    """Explain every protein of a file.

    Args:
        opened: The run.
        path: Any file of sequences that a study reads; labels are not needed and not looked at.
        out: Folder; default ``explained/NAME`` in the run folder.
        label: The class to explain; ``None``: what the model says of each.
        neurons: TSV of neurons to hold together; ``None``: the explained class's own.
        features: Residue features to show.
        structure: PDB or mmCIF file, where the file holds a single protein.
        settings: How much is computed.
        as_json: Also write one JSON object a protein and line.
        track: Progress.
        say: Told one line at a time.
        crew: Who explains them.

    Raises:
        InputError: the file cannot be used, or holds no protein that the model can read.
        RunError: the folder cannot be written, or holds other things.
    """
    settings = settings or ExplainSettings(seed=opened.study.seed)
    readable = read_explainable(opened, path)
    say(repr(readable))
    chosen = None if neurons is None else Selection.from_tsv(neurons, opened.model.index)
    own_features = None if features is None else read_features(features, readable.proteins)
    if own_features is not None:
        say(repr(own_features))
    if structure is not None:
        if len(readable) != 1:
            raise InputError(
                f"{path}: {len(readable):,} proteins, but a structure is of one; give a file with that protein"
            )
        say(match_structure(structure, readable.proteins[0]).told())
    explainer = Explainer(
        opened, label=label, neurons=chosen, features=own_features, settings=settings, structure=structure, track=track
    )
    beside = ["" if own_features is None else own_features.sha256, "" if structure is None else digest_of(structure)]
    stamp = _stamp(opened, readable, label, chosen, beside, settings)
    folder = out or opened.run.path / "explained" / (Path(path).name.split(".")[0] or "proteins")
    _make(folder)
    with lock(folder / ".lock", f"{folder}: another plmscope process is writing here"):
        ready = _read_note(folder / NOTE)
        kept = [PAGE, *(f"{name}.parquet" for name in SCHEMA), *([LINES] if as_json else [])]
        if ready.get("stamp") == stamp and all((folder / name).is_file() for name in kept):
            say(f"{folder}: these proteins are explained already")
            return ExplainedFile(folder, len(readable), len(readable.excluded), None)
        parts = Parts(folder / PARTS, stamp)
        first, crew = None, crew.at(opened.run.path / "model", opened.study.device, opened.study.dtype)
        names = [name for name in parts.names() if NAMED.fullmatch(name) and parts.read(name) is not None]
        parts.drop(*(name for name in parts.names() if name not in names))  # damaged, or of an earlier version
        todo = _missing(readable.proteins, names)
        if len(todo) < len(readable):
            say(f"explain: continuing after {len(readable) - len(todo):,} of {len(readable):,} proteins")
        if todo:
            explainer.prepare()
        if crew.alone or len(todo) < 2:
            made = _explained(explainer, readable.proteins, _runs(todo, AT_ONCE), track)
        else:
            made = _explained_by(crew, opened, explainer.how, readable.proteins, todo, stamp, track)
        for name, arrays, one in made:
            first = first or one
            parts.write(name, arrays)
        tables, lines = _join([parts.read(name) or {} for name in sorted(parts.names())])
        for name, frame in tables.items():
            write_atomic(folder / f"{name}.parquet", frame.to_parquet(index=False, compression="zstd"))
            write_atomic(folder / f"{name}.csv", frame.to_csv(index=False).encode())
        if as_json:
            plain = ({k: v for k, v in json.loads(line).items() if k not in ("tracks", "view")} for line in lines)
            write_atomic(folder / LINES, "".join(json.dumps(one, ensure_ascii=False) + "\n" for one in plain).encode())
        else:
            (folder / LINES).unlink(missing_ok=True)
        write_page(
            folder / PAGE, opened, [json.loads(line) for line in lines[:MOST_ON_PAGE]], len(readable), readable.source
        )
        note = {
            "stamp": stamp, "plmscope": __version__, "run": str(opened.run.path), "proteins": len(readable),
            "source": readable.source, "sha256": readable.sha256, "label": label, "settings": asdict(settings),
            "excluded": [asdict(one) for one in readable.excluded],
        }  # fmt: skip
        write_atomic(folder / NOTE, json.dumps(note, indent=1).encode())
        parts.remove()
    return ExplainedFile(folder, len(readable), len(readable.excluded), first)


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
    opened: OpenRun,
    found: ProteinSet,
    label: str | None,
    chosen: Selection | None,
    beside: list[str],
    settings: ExplainSettings,
) -> str:
    """Digest of everything that an explanation depends on."""
    manifest = opened.run.manifest()
    stages = {name: entry.get("fingerprint", "") for name, entry in manifest.get("stages", {}).items()}
    stages = {name: stages.get(name, "") for name in ("finetune", "score", "evaluate", "characterize")}
    neurons = "" if chosen is None else hashlib.sha256(chosen.mask.tobytes()).hexdigest()
    what = [__version__, SCHEMA, stages, found.sha256, label, neurons, beside, asdict(settings)]
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
        note = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return note if isinstance(note, dict) else {}


def _missing(proteins: Sequence[Protein], names: Sequence[str]) -> list[int]:
    """Places of the proteins that no part has."""
    known = {place for name in names for place in range(int(name[:9]), int(name[:9]) + int(name[10:]))}
    return [place for place in range(len(proteins)) if place not in known]


def _runs(places: Sequence[int], most: int) -> list[list[int]]:
    """Places that follow one another, a few at a time."""
    runs: list[list[int]] = []
    for place in places:
        if runs and runs[-1][-1] == place - 1 and len(runs[-1]) < most:
            runs[-1].append(place)
        else:
            runs.append([place])
    return runs


#: What a part is called.
NAMED = re.compile(r"\d{9}-\d+")


def _name(run: Sequence[int]) -> str:
    """Of the part of some proteins: the place of the first, and how many they are."""
    return f"{run[0]:09d}-{len(run)}"


Made = Iterator[tuple[str, Arrays, Explanation]]


def _explained(
    explainer: Explainer, proteins: Sequence[Protein], runs: Sequence[Sequence[int]], track: Track = silent
) -> Made:
    """Name and content of every part, and its first explanation; one step of progress a protein."""
    total = sum(map(len, runs))
    each = ((run, one) for run in runs for one in explainer([proteins[place] for place in run]))
    done: list[Explanation] = []
    for run, one in track(each, "explaining", total):
        done.append(one)
        if len(done) == len(run):
            yield _name(run), _packed(done), done[0]
            done = []


def _explained_by(
    crew: Crew,
    opened: OpenRun,
    how: Mapping[str, Any],
    proteins: Sequence[Protein],
    todo: Sequence[int],
    stamp: str,
    track: Track,
) -> Made:
    """The same by workers, a few proteins a task; the run is read, or sent, once."""
    runs = _runs(todo, max(1, min(AT_ONCE, len(todo) // (4 * crew.workers))))
    shared = {
        "stamp": stamp, "run": crew.sent(opened.run.path, "*.parquet", "*.json", "*.toml", "model/*", f"{CACHE}/*"),
        "study": opened.study.model_copy(update={"device": crew.device}), "how": how,
    }  # fmt: skip
    tasks = [
        Task(_name(run), f"{__name__}:explained_part", {"proteins": [proteins[place] for place in run]}) for run in runs
    ]
    for name, (arrays, first) in track(crew.results(tasks, shared), "explaining, a few at a time", len(tasks)):
        yield name, arrays, first


def explained_part(
    run: Sent, study: Study, how: Mapping[str, Any], stamp: str, proteins: list[Protein]
) -> tuple[Arrays, Explanation]:
    """The task of a few proteins, on a worker, which opens the run once."""
    if _OPEN.get("stamp") != stamp:
        _OPEN.clear()
        held = contextlib.ExitStack()
        atexit.register(held.close)
        path = held.enter_context(run.there())
        _OPEN.update(stamp=stamp, explainer=Explainer(OpenRun(Run.open(path), study), **how))
    ((_, arrays, first),) = _explained(_OPEN["explainer"], proteins, [range(len(proteins))])
    return arrays, first


#: What this process explains with, and the stamp of that.
_OPEN: dict[str, Any] = {}


def _packed(explained: Sequence[Explanation]) -> Arrays:
    """The tables and the lines of a group, as the bytes of their files."""
    frames = {
        "explained_proteins": pd.DataFrame([dict(one.summary) for one in explained]),
        "explained_residues": pd.concat([one.residues for one in explained], ignore_index=True),
        "explained_neurons": pd.concat([one.neurons for one in explained], ignore_index=True),
    }
    files = {table: frame[list(SCHEMA[table])].to_parquet(index=False) for table, frame in frames.items()}
    lines = []
    for one in explained:
        tracks = [[float(f"{x:.3g}") for x in row] for row in np.asarray(one.tracks)]
        more: dict[str, Any] = {"tracks": tracks}
        if one.structure is not None:
            more["view"] = one.structure.text
        lines.append(json.dumps(json.loads(one.to_json()) | more, ensure_ascii=False))
    files[LINES] = "".join(f"{line}\n" for line in lines).encode()
    return {name: np.frombuffer(content, dtype=np.uint8) for name, content in files.items()}


def _join(groups: Sequence[Arrays]) -> tuple[dict[str, pd.DataFrame], list[str]]:
    """All groups as one, in the order of the proteins."""
    tables = {
        table: pd.concat([pd.read_parquet(io.BytesIO(group[table].tobytes())) for group in groups], ignore_index=True)
        for table in SCHEMA
    }
    return tables, [line for group in groups for line in group[LINES].tobytes().decode().split("\n") if line]
