"""Probe rankings as scorers: the same call, proteins and table as every other score.

What is kept is the mean activation of every protein, ``(P, N)`` float64: 138 MB for 1,000 proteins and 17,280 neurons,
the one scorer whose memory grows with the proteins. Scores follow from it, so parts from several processes merge. There
is no bootstrap: it would be a fit a resample.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from plmscope.data.proteins import Protein
from plmscope.errors import InputError
from plmscope.models.classifier import Classifier
from plmscope.probing.class_means import probeless
from plmscope.probing.gaussian import gaussian_selection
from plmscope.probing.linear_probe import choose_penalty, every_third, fit_probe, weight_ranking
from plmscope.progress import Track, silent
from plmscope.scoring.activation import EVERYONE, summarise_means
from plmscope.scoring.scores import GroupSums, NeuronScores

#: Names of the scores, in the order of the table.
METHODS = ("probe", "probeless", "probeless_standardised", "gaussian")


def probe_scores(
    classifier: Classifier,
    proteins: Sequence[Protein],
    *,
    token_budget: int = 4096,
    groups: Sequence[str] | None = None,
    track: Track = silent,
    seed: int = 0,
    fit: bool = True,
) -> tuple[NeuronScores, ...]:
    """``probe``, ``probeless``, ``probeless_standardised`` and ``gaussian`` of every neuron, per class where they are.

    Args:
        classifier: The model.
        proteins: With labels, of two classes at least.
        token_budget: Padded tokens a batch; 0: by free memory.
        groups: Not used: there is no bootstrap.
        track: Progress.
        seed: Of the order in which the probe sees the proteins.
        fit: False fits nothing and leaves all scores 0: for a part of the proteins, of which the sums alone are used.

    Raises:
        InputError: there are no proteins, or (to fit) of one class only, or one has no label that the model knows.
    """
    sums = summarise_means(classifier, proteins, token_budget=token_budget, track=track)
    settings = {"seed": seed}
    if not fit:
        nothing = np.zeros(len(sums.index))
        return tuple(NeuronScores(m, sums.index, nothing, {}, sums.proteins, settings, sums=sums) for m in METHODS)
    return tuple(finish(method, sums, settings) for method in METHODS)


def samples(sums: GroupSums) -> tuple[np.ndarray, np.ndarray]:
    """Means ``(P, N)`` of the proteins and their classes ``(P,)``; one of several classes is there for each of them."""
    rows = [row for row, (label, _) in enumerate(sums.keys) if sums.labels[label] != EVERYONE and sums.counts[row]]
    x = sums.sums["mean"][rows] / sums.counts[rows, None]
    return x, np.array([sums.keys[row][0] for row in rows], dtype=np.int64)


def finish(method: str, sums: GroupSums, settings: Mapping[str, Any], completeness: object = None) -> NeuronScores:
    """One of the scores from the means of all proteins.

    The score of ``gaussian`` is the number of neurons chosen after one, plus 1; of those that were not chosen their
    standardised class means, scaled to less than 1. ``completeness`` is not used: there is no path.

    Raises:
        InputError: the proteins are of one class only, or no class has two.
    """
    x, y = samples(sums)
    names = [label for label in sums.labels if label != EVERYONE]
    if len(np.unique(y)) < 2:
        raise InputError(f"{method}: a probe needs proteins of two classes at least, these are all {names[y[0]]!r}")
    if np.bincount(y).max() < 2:
        raise InputError(f"{method}: a probe needs two proteins of a class at least; raise score.proteins_per_class")
    seed, per_class, told = int(settings.get("seed", 0)), np.zeros((0, 0)), dict(settings)
    if method == "probe":
        penalty = choose_penalty(x, y, len(names), every_third(y), seed=seed)
        values, per_class = weight_ranking(fit_probe(x, y, len(names), penalty, seed=seed).weights)
        told |= {"penalty": penalty}
    elif method == "gaussian":
        values = probeless(x, y, len(names), standardised=True)[0]
        values = 0.999 * values / max(float(values.max()), 1e-300)
        chosen = gaussian_selection(x, y).neurons
        values[chosen] = 1 + np.arange(len(chosen))[::-1]
    else:
        values, per_class = probeless(x, y, len(names), standardised=method.endswith("standardised"))
    there = [c for c in np.unique(y).tolist() if len(per_class)]
    return NeuronScores(
        method, sums.index, values, {names[c]: per_class[c] for c in there}, sums.proteins, told, sums=sums
    )
