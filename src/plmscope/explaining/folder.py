"""A file of proteins explained into a folder: three tables, one page, and what was left out.

Proteins are explained in the order of the file, some at a time; what is finished is written at once, so that the same
command continues after a kill, and memory does not grow with their number. Nothing is explained again whose run,
proteins and settings did not change.
"""

from __future__ import annotations

import hashlib
import io
import json
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
from plmscope.progress import Track, silent
from plmscope.store.files import lock, write_atomic
from plmscope.store.resume import Arrays, Parts
from plmscope.study.opened import OpenRun

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
        first = None
        groups = {
            f"{start:09d}": readable.proteins[start : start + AT_ONCE] for start in range(0, len(readable), AT_ONCE)
        }
        todo = {name: proteins for name, proteins in groups.items() if parts.read(name) is None}
        if len(todo) < len(groups):
            left = sum(len(proteins) for proteins in todo.values())
            say(f"explain: continuing after {len(readable) - left:,} of {len(readable):,} proteins")
        if todo:
            explainer.prepare()
        for name, explained in _explained(explainer, todo, track):
            first = first or explained[0]
            parts.write(name, _packed(explained))
        tables, lines = _join([parts.read(name) or {} for name in groups])
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
    what = [__version__, stages, found.sha256, label, neurons, beside, asdict(settings)]
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


def _explained(
    explainer: Explainer, todo: Mapping[str, Sequence[Protein]], track: Track
) -> Iterator[tuple[str, list[Explanation]]]:
    """Every group's name with its explanations, one step of progress a protein."""
    total = sum(len(proteins) for proteins in todo.values())
    each = ((name, len(proteins), one) for name, proteins in todo.items() for one in explainer(proteins))
    done: list[Explanation] = []
    for name, size, one in track(each, "explaining", total):
        done.append(one)
        if len(done) == size:
            yield name, done
            done = []


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
