"""What a model says under many changes, by several workers: a few changes are a task of an engine.

A task is a few selections or changes. Every worker gets the model, the proteins and the constants once
(:mod:`plmscope.models.supplied`); then it pulls tasks. What a worker gives is what this process would have computed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from plmscope.data.proteins import Protein
from plmscope.evaluation.interventions import Change, outcomes
from plmscope.evaluation.predict import Predictions, predict
from plmscope.evaluation.resampled import RESAMPLE, Donors, predict_resampled
from plmscope.evaluation.selection import Selection
from plmscope.models.supplied import Supplies, supplies
from plmscope.tasks.crew import Crew
from plmscope.tasks.task import Task

#: Selections a task, at most; with fewer than four tasks a worker it has less.
MOST = 16


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
    runs = {str(numbers[0]): numbers for numbers in crew.runs_of(list(todo), MOST)}
    tasks = [
        Task(
            name, f"{__name__}:predictions_of",
            {"masks": _packed([todo[n][0] for n in numbers]), "ablations": [todo[n][1] for n in numbers]},
        )
        for name, numbers in runs.items()
    ]  # fmt: skip
    sent = supplies(crew, proteins=tuple(proteins), constants=dict(constants), token_budget=token_budget, given=given)
    for name, result in crew.results(tasks, sent):
        for number, (predicted, log_prob) in zip(runs[name], result, strict=True):
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
    runs = {str(numbers[0]): numbers for numbers in crew.runs_of(list(todo), MOST)}
    tasks = [
        Task(
            name, f"{__name__}:odds_of",
            {"masks": _packed([todo[n].selection.mask for n in numbers]), "factors": [todo[n].factor for n in numbers]},
        )
        for name, numbers in runs.items()
    ]  # fmt: skip
    sent = supplies(crew, proteins=tuple(proteins), means=constants, token_budget=token_budget)
    for name, result in crew.results(tasks, sent):
        yield from zip(runs[name], result, strict=True)


def predictions_of(supplies: Supplies, masks: np.ndarray, ablations: Sequence[str]) -> list[tuple[Any, Any]]:
    """A task of :func:`predicted_by`: predicted classes and log-probabilities under each selection."""
    classifier, proteins, budget = supplies.classifier, supplies["proteins"], supplies["token_budget"]
    n, found = len(classifier.index), []
    for mask, ablation in zip(_unpacked(masks, n), ablations, strict=True):
        if ablation == RESAMPLE and supplies["given"] is not None:
            one = next(predict_resampled(classifier, proteins, [mask], supplies["given"], budget))
        else:
            values = supplies["constants"].get(ablation, np.zeros((3, n)))
            one = next(predict(classifier, proteins, [(mask, values)], budget))
        found.append((one.predicted, one.log_prob_true))
    return found


def odds_of(supplies: Supplies, masks: np.ndarray, factors: Sequence[float | None]) -> list[np.ndarray]:
    """A task of :func:`outcomes_by`: log-odds ``(P, C)`` under each change."""
    classifier = supplies.classifier
    changes = [
        Change(Selection(classifier.index, mask), factor)
        for mask, factor in zip(_unpacked(masks, len(classifier.index)), factors, strict=True)
    ]
    return list(outcomes(classifier, supplies["proteins"], changes, supplies["means"], supplies["token_budget"]))


def _packed(masks: Sequence[np.ndarray]) -> np.ndarray:
    return np.packbits(np.stack(masks), axis=1)


def _unpacked(masks: np.ndarray, n: int) -> np.ndarray:
    return np.unpackbits(masks, axis=1, count=n).astype(bool)
