"""What a model says under many changes, by several workers: a few changes are a task of an engine.

A task is a few selections or changes. Every worker gets the model, the proteins and the constants once, and loads the
model once; then it pulls tasks (:mod:`plmscope.tasks.engines`). Processes read the saved model from the run folder. On
a Ray cluster its files travel through the object store, so that no common disk is needed. What a worker gives is what
this process would have computed.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from plmscope.data.proteins import Protein
from plmscope.errors import RunError
from plmscope.evaluation.interventions import Change, outcomes
from plmscope.evaluation.predict import Predictions, predict
from plmscope.evaluation.resampled import RESAMPLE, Donors, predict_resampled
from plmscope.evaluation.selection import Selection
from plmscope.models.classifier import Classifier
from plmscope.models.loading import load_model
from plmscope.tasks.crew import Crew
from plmscope.tasks.engines import run_tasks
from plmscope.tasks.task import Task

#: Selections a task, at most; with fewer than four tasks a worker it has less.
MOST = 16


@dataclass(frozen=True)
class Shared:
    """What all tasks need; sent to every worker once.

    Attributes:
        model: Folder of the classifier, or empty where ``files`` has its content.
        files: Name to content.
        device: Of the worker.
        dtype: Of the worker.
        proteins: Labelled.
        constants: Ablation to ``(3, N)`` values.
        token_budget: Padded tokens a batch.
        given: Donors of the ablation ``resample``.
    """

    model: str
    files: Mapping[str, bytes] = field(repr=False)
    device: str
    dtype: str
    proteins: tuple[Protein, ...] = field(repr=False)
    constants: Mapping[str, np.ndarray] = field(repr=False)
    token_budget: int
    given: Donors | None = None


def predicted_by(
    crew: Crew,
    proteins: Sequence[Protein],
    todo: Mapping[int, tuple[np.ndarray, str]],
    constants: Mapping[str, np.ndarray],
    token_budget: int,
    given: Donors | None = None,
) -> Iterator[tuple[int, Predictions]]:
    """Predictions for many selections, in the order in which they are ready.

    Args:
        crew: Not :attr:`Crew.alone`.
        proteins: Labelled.
        todo: Number to the neurons that work ``(N,)`` and the ablation of the others.
        constants: Ablation to its ``(3, N)`` values.
        token_budget: Padded tokens a batch.
        given: For the ablation ``resample``.

    Raises:
        RunError: a task failed, or its workers died again and again.
    """
    tasks = []
    for numbers in _dealt(list(todo), crew.workers):
        arguments = {
            "masks": np.packbits([todo[n][0] for n in numbers], axis=1), "n": len(todo[numbers[0]][0]),
            "ablations": [todo[n][1] for n in numbers],
        }  # fmt: skip
        tasks.append((numbers, Task(str(numbers[0]), f"{__name__}:predictions_of", arguments)))
    for numbers, result in _done(crew, tasks, _shared(crew, proteins, constants, token_budget, given)):
        for number, (predicted, log_prob) in zip(numbers, result, strict=True):
            yield number, Predictions(predicted, log_prob)


def outcomes_by(
    crew: Crew,
    proteins: Sequence[Protein],
    todo: Mapping[int, Change],
    constants: np.ndarray | None,
    token_budget: int,
) -> Iterator[tuple[int, np.ndarray]]:
    """Log-odds ``(P, C)`` under many changes, in the order in which they are ready.

    The arguments are those of :func:`predicted_by`; ``constants`` are the means.

    Raises:
        RunError: a task failed, or its workers died again and again.
    """
    tasks = []
    for numbers in _dealt(list(todo), crew.workers):
        changes = [todo[n] for n in numbers]
        arguments = {
            "masks": np.packbits([one.selection.mask for one in changes], axis=1),
            "n": len(changes[0].selection.mask), "factors": [one.factor for one in changes],
        }  # fmt: skip
        tasks.append((numbers, Task(str(numbers[0]), f"{__name__}:odds_of", arguments)))
    means = {} if constants is None else {"mean": constants}
    for numbers, result in _done(crew, tasks, _shared(crew, proteins, means, token_budget, None)):
        yield from zip(numbers, result, strict=True)


def predictions_of(shared: Shared, masks: np.ndarray, n: int, ablations: Sequence[str]) -> list[tuple[Any, Any]]:
    """A task of :func:`predicted_by`: predicted classes and log-probabilities under each selection."""
    classifier = _classifier(shared)
    found = []
    for mask, ablation in zip(_unpacked(masks, n), ablations, strict=True):
        if ablation == RESAMPLE and shared.given is not None:
            one = next(predict_resampled(classifier, shared.proteins, [mask], shared.given, shared.token_budget))
        else:
            values = shared.constants.get(ablation, np.zeros((3, n)))
            one = next(predict(classifier, shared.proteins, [(mask, values)], shared.token_budget))
        found.append((one.predicted, one.log_prob_true))
    return found


def odds_of(shared: Shared, masks: np.ndarray, n: int, factors: Sequence[float | None]) -> list[np.ndarray]:
    """A task of :func:`outcomes_by`: log-odds ``(P, C)`` under each change."""
    classifier = _classifier(shared)
    changes = [
        Change(Selection(classifier.index, mask), factor)
        for mask, factor in zip(_unpacked(masks, n), factors, strict=True)
    ]
    return list(outcomes(classifier, shared.proteins, changes, shared.constants.get("mean"), shared.token_budget))


def _unpacked(masks: np.ndarray, n: int) -> np.ndarray:
    return np.unpackbits(masks, axis=1, count=n).astype(bool)


def _dealt(numbers: list[int], workers: int) -> Iterator[list[int]]:
    """The numbers in runs of a few, at least four for every worker where there are enough."""
    size = max(1, min(MOST, len(numbers) // (4 * workers)))
    for start in range(0, len(numbers), size):
        yield numbers[start : start + size]


def _shared(
    crew: Crew,
    proteins: Sequence[Protein],
    constants: Mapping[str, np.ndarray],
    token_budget: int,
    given: Donors | None,
) -> Shared:
    """What every worker of a crew is sent."""
    folder, travels = Path(str(crew.model)).absolute(), crew.engine == "ray"
    files = {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if travels and path.is_file()}
    return Shared(
        "" if travels else str(folder), files, crew.device, crew.dtype, tuple(proteins),
        dict(constants), token_budget, given,
    )  # fmt: skip


def _done(crew: Crew, tasks: Sequence[tuple[list[int], Task]], shared: Shared) -> Iterator[tuple[list[int], list[Any]]]:
    """The results of tasks as they come; what failed ends the loop, and what is there is kept by the caller."""
    numbers = {task.id: those for those, task in tasks}
    results = run_tasks([task for _, task in tasks], crew.engine, crew.workers, crew.address, shared={"shared": shared})
    for outcome in results:
        if outcome.error:
            raise RunError(f"a part of the work failed on a worker: {outcome.error}; the same command continues")
        yield numbers[outcome.id], outcome.result


#: The model that this worker has loaded, and what it was loaded from.
_LOADED: dict[str, Classifier] = {}


def _classifier(shared: Shared) -> Classifier:
    """The model of a worker, loaded once."""
    name = shared.model or _digest(shared.files)
    if name not in _LOADED:
        _LOADED.clear()
        if shared.model:
            _LOADED[name] = load_model(shared.model, device=shared.device, dtype=shared.dtype)
        else:
            with tempfile.TemporaryDirectory(prefix="plmscope-") as folder:
                for file, content in shared.files.items():
                    (Path(folder) / file).write_bytes(content)
                _LOADED[name] = load_model(folder, device=shared.device, dtype=shared.dtype)
    return _LOADED[name]


def _digest(files: Mapping[str, bytes]) -> str:
    whole = hashlib.sha256()
    for file, content in files.items():
        whole.update(file.encode() + hashlib.sha256(content).digest())
    return whole.hexdigest()
