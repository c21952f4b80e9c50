"""What a model says under many changes, one task a change: kept in a folder as it comes, and continued from there.

Every change (a selection that is kept or ablated, neurons that are suppressed or enhanced) is a task of its own, which
gives the same whoever does it and whenever (:mod:`plmscope.store.resume`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from plmscope.data.proteins import Protein
from plmscope.evaluation.curves import CurvePoint, Grid, evaluate_points
from plmscope.evaluation.interventions import Change, outcomes
from plmscope.evaluation.predict import Predictions
from plmscope.evaluation.resampled import Donors
from plmscope.evaluation.shared_out import outcomes_by, predicted_by
from plmscope.models.classifier import Classifier
from plmscope.progress import Track
from plmscope.store.resume import Arrays, Work, collect, collect_share
from plmscope.tasks.crew import ALONE, Crew
from plmscope.tasks.shard import Shard

#: Fewer tasks than this are done here: starting workers would take longer.
FEW = 16


@dataclass(frozen=True)
class Tried:
    """A list of changes of one model on some proteins, a task each, and what keeps their results.

    Attributes:
        like: Name to an array with the shape and type of one result.
        total: Number of tasks.
        work: Does some of them.
        folder: Where results are kept; the caller removes it.
        stamp: Digest of what they depend on.
        what: What a task is, in the plural.
    """

    like: Mapping[str, np.ndarray]
    total: int
    work: Work
    folder: Path
    stamp: str
    what: str

    def all(self, say: Callable[[str], None]) -> Arrays:
        """Every result, stacked; ``say`` is told once how many were known before."""
        return collect(
            self.folder, self.stamp, self.like, self.total, self.work, lambda line: say(f"{line} {self.what}")
        )

    def share(self, shard: Shard) -> bool:
        """Do one share of the tasks; whether all results are there now."""
        numbers = shard.of(range(self.total))
        return collect_share(self.folder, self.stamp, self.like, self.total, self.work, numbers)


def selections_tried(
    classifier: Classifier,
    proteins: Sequence[Protein],
    grid: Grid,
    points: Sequence[CurvePoint],
    constants: Mapping[str, np.ndarray],
    *,
    token_budget: int,
    folder: Path,
    stamp: str,
    description: str,
    track: Track,
    hear: Callable[[int, Predictions], None] = lambda number, one: None,
    given: Donors | None = None,
    crew: Crew = ALONE,
) -> Tried:
    """Predictions at every curve point, in the order of the points; :func:`predictions_of` reads them.

    Args:
        classifier: The model.
        proteins: ``P`` labelled proteins.
        grid: What the points are shares of.
        points: One task each.
        constants: Ablation to its ``(3, N)`` values.
        token_budget: Padded tokens a batch.
        folder: Where predictions are kept; the caller removes it.
        stamp: Digest of what they depend on.
        description: Of the progress.
        track: Progress.
        hear: Told every new prediction, with the number of its point.
        given: For the ablation ``resample``.
        crew: Who does the work.
    """
    like = {
        "predicted": np.zeros(len(proteins), dtype=classifier.answer_dtype),  # multi-label: one axis more
        "log_prob": np.zeros(len(proteins), dtype=np.float32),
    }

    def work(todo: Sequence[int]) -> Iterator[tuple[int, Arrays]]:
        stream: Iterable[tuple[int, Predictions]]
        if crew.alone or len(todo) < FEW:
            those = [points[number] for number in todo]
            stream = zip(
                todo, evaluate_points(classifier, proteins, grid, those, constants, token_budget, given), strict=True
            )
        else:
            kept = {number: (grid.kept(points[number]), points[number].ablation) for number in todo}
            stream = predicted_by(crew, proteins, kept, constants, token_budget, given)
        for number, one in track(stream, description, len(todo)):
            yield number, {"predicted": one.predicted, "log_prob": one.log_prob_true}
            hear(number, one)

    return Tried(like, len(points), work, folder, stamp, "selections")


def predictions_of(known: Mapping[str, np.ndarray]) -> list[Predictions]:
    """The results of :func:`selections_tried`, one a point."""
    return [Predictions(a, b) for a, b in zip(known["predicted"], known["log_prob"], strict=True)]


def changes_tried(
    classifier: Classifier,
    proteins: Sequence[Protein],
    changes: Sequence[Change],
    *,
    token_budget: int,
    folder: Path,
    stamp: str,
    description: str,
    track: Track,
    crew: Crew = ALONE,
) -> Tried:
    """Natural log-odds ``(K, P, C)`` of every class under every change, under the name ``odds``.

    They are those of :func:`~plmscope.evaluation.interventions.outcomes`; neurons are held at the ablation means of the
    classifier. The other arguments are those of :func:`selections_tried`.
    """
    like = {"odds": np.zeros((len(proteins), len(classifier.labels)))}

    def work(todo: Sequence[int]) -> Iterator[tuple[int, Arrays]]:
        means = classifier.ablation_means
        stream: Iterable[tuple[int, np.ndarray]]
        if crew.alone or len(todo) < FEW:
            those = [changes[number] for number in todo]
            stream = zip(todo, outcomes(classifier, proteins, those, means, token_budget), strict=True)
        else:
            stream = outcomes_by(crew, proteins, {n: changes[n] for n in todo}, means, token_budget)
        for number, odds in track(stream, description, len(todo)):
            yield number, {"odds": odds}

    return Tried(like, len(changes), work, folder, stamp, "changes")
