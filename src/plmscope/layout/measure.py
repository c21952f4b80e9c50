"""What every part of the layout measures with: log-odds of every class when chosen neurons are held at their means.

A part is a function of plain arrays and of a :data:`Measure`, so that the stage can save what it has so far and tests
can count what is run. Draws are matched: as many neurons in every site as the chosen ones.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np

from plmscope.data.proteins import Protein
from plmscope.evaluation.interventions import CONTROL, Change, outcomes
from plmscope.evaluation.selection import Selection, draw, strata
from plmscope.models.classifier import Classifier
from plmscope.models.sites import NeuronIndex
from plmscope.stats.chance import bootstrap_weights

#: A name, proteins and changes to the log-odds ``(K, P, C)`` under every change, in order. The name tells one series
#: from another where what is known so far is saved.
Measure = Callable[[str, Sequence[Protein], Sequence[Change]], np.ndarray]
#: Resamples of clusters behind an interval.
RESAMPLES = 2000


def measuring(classifier: Classifier, constants: np.ndarray, token_budget: int = 2048) -> Measure:
    """A :data:`Measure` that saves nothing; ``constants (3, N)`` are the ablation means."""

    def measure(name: str, proteins: Sequence[Protein], changes: Sequence[Change]) -> np.ndarray:
        return np.array(list(outcomes(classifier, proteins, changes, constants, token_budget)))

    return measure


def held(index: NeuronIndex, positions: Iterable[int] | np.ndarray) -> Change:
    """Hold the neurons at some positions at their means."""
    return Change(chosen_of(index, positions), None)


def chosen_of(index: NeuronIndex, positions: Iterable[int] | np.ndarray) -> Selection:
    """The neurons at some positions as a selection."""
    mask = np.zeros(len(index), dtype=bool)
    mask[np.asarray(list(positions), dtype=np.int64)] = True
    return Selection(index, mask)


def matched(chosen: Selection, n: int, seed: Sequence[int]) -> list[Selection]:
    """``n`` random selections with as many neurons in every site as the chosen ones."""
    groups = strata(CONTROL, chosen.index)
    return [draw(chosen.index, groups, [chosen], (*seed, r), f"{CONTROL} draw {r}")[0] for r in range(n)]


def resampled(clusters: Sequence[str], labels: Sequence[int] | np.ndarray, seed: int) -> np.ndarray:
    """Weights ``(B, P)`` of a bootstrap over clusters, stratified by class."""
    rng = np.random.default_rng([seed, 1])
    return bootstrap_weights(np.asarray(clusters), np.asarray(labels), RESAMPLES, rng)
