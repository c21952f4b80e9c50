"""Experts: the feed-forward neurons of a layer in groups of equal size by what they read, and what classes they hold.

::

    experts     balanced k-means of the rows of W_in, each of norm 1; 32 neurons an expert
    NMI         of a neuron's expert and the class that it scores highest for, within layers: I / sqrt(H H)
    half        fewest experts of the model that hold half of a class's best neurons
    overlap     mean Jaccard index of the best neurons of every two classes

The null of the first two is the experts of a layer with their neurons dealt anew (200 times); that of one expert's
count is then the hypergeometric distribution, which is exact; that of the overlap is classes dealt among proteins. They
say that *something* is grouped: neurons that read the same have alike scores in a random network too. So the same
numbers are taken from models of shuffled labels and of random weights, and modules are what the trained model has
beyond those.

After MoEfication (Zhang et al., arXiv:2110.01786) and modularity in pre-trained transformers (arXiv:2305.18390); the
assignment is ``scipy.optimize.linear_sum_assignment``, in place of a library for constrained k-means.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from scipy.optimize import linear_sum_assignment
from scipy.stats import hypergeom

from plmscope.layout.components import weights_of
from plmscope.models.sites import NeuronIndex, Site
from plmscope.stats.chance import TINY, benjamini_hochberg, compare_with_draws

#: Neurons of an expert; rounds of k-means; deals of the neurons.
SIZE, ROUNDS, DEALS = 32, 10, 200
EXPERTS = ("layer", "neuron", "expert")
CLASSES = (
    "layer", "expert", "label", "n_neurons", "n", "expected", "enrichment", "damage", "damage_against", "p_damage",
    "p_value", "q_value",
)  # fmt: skip
MEASURES = ("model", "measure", "label", "value", "against", "p_value", "n_deals")


def balanced_clusters(rows: np.ndarray, size: int = SIZE, seed: int = 0, rounds: int = ROUNDS) -> np.ndarray:
    """Balanced k-means of rows ``(n, d)`` after each is given norm 1; sizes differ by at most one.

    Returns:
        ``(n,)`` group numbers. ``n / size`` groups, rounded, one at least. Rounds end where nothing moves.

    >>> balanced_clusters(np.array([[1.0, 0.0], [0.0, 1.0], [2.0, 0.1], [0.1, 3.0]]), size=2).tolist() in (
    ...     [0, 1, 0, 1], [1, 0, 1, 0])
    True
    """
    n = len(rows)
    k = max(1, round(n / size))
    norm = np.linalg.norm(rows, axis=1, keepdims=True)
    unit = rows / np.where(norm > 0, norm, 1.0)
    rng = np.random.default_rng([seed, 51])
    centres = unit[[int(rng.integers(n))]]
    while len(centres) < k:  # k-means++: the next centre is far from those that are there
        far = np.maximum(2 - 2 * (unit @ centres.T).max(1), 0)
        chance = far / far.sum() if far.sum() > 0 else np.full(n, 1 / n)
        centres = np.concatenate([centres, unit[[int(rng.choice(n, p=chance))]]])
    places = np.arange(n) % k  # as many places in every group, but for one
    found = np.full(n, -1)
    for _ in range(rounds):
        before = found.copy()
        _, column = linear_sum_assignment(-(unit @ centres.T)[:, places])
        found = places[column]
        if np.array_equal(found, before):
            break
        centres = np.stack([unit[found == g].mean(0) for g in range(k)])
        length = np.linalg.norm(centres, axis=1, keepdims=True)
        centres = centres / np.where(length > 0, length, 1.0)
    return found


def experts_of(index: NeuronIndex, network: object, seed: int = 0) -> np.ndarray:
    """``(N,)`` number of the expert of every feed-forward neuron within its layer; -1 for other neurons.

    Args:
        index: The model's neurons.
        network: One whose layers name their weights (:class:`~plmscope.models.esm.EsmNetwork`).
        seed: Of the first centres.
    """
    layers: Sequence[object] = getattr(network, "layers", ())
    found = np.full(len(index), -1)
    for number, layer in enumerate(layers):
        found[index.slice(Site(number, "intermediate"))] = balanced_clusters(
            weights_of(layer, "intermediate"), SIZE, seed
        )
    return found


def best_classes(index: NeuronIndex, scores: np.ndarray) -> np.ndarray:
    """``(N,)`` the class that each neuron scores highest for, scores ``(C, N)`` standardised within class and site."""
    standard = np.zeros_like(scores)
    for site in index.sites:
        own = scores[:, index.slice(site)]
        spread = own.std(1, keepdims=True)
        standard[:, index.slice(site)] = (own - own.mean(1, keepdims=True)) / np.where(spread > 0, spread, 1.0)
    found: np.ndarray = standard.argmax(0)
    return found


def mutual_information(one: np.ndarray, other: np.ndarray) -> float:
    """Normalised mutual information of two labellings, 0 to 1; 0 where either has one label.

    >>> mutual_information(np.array([0, 0, 1, 1]), np.array([5, 5, 3, 3])), mutual_information(
    ...     np.array([0, 0, 1, 1]), np.array([5, 3, 5, 3]))
    (1.0, 0.0)
    """
    a, b = np.unique(one, return_inverse=True)[1], np.unique(other, return_inverse=True)[1]
    joint = np.zeros((a.max() + 1, b.max() + 1))
    np.add.at(joint, (a, b), 1 / len(a))
    p, q = joint.sum(1), joint.sum(0)
    entropies = -float(p @ np.log(p)), -float(q @ np.log(q))
    if min(entropies) <= 0:
        return 0.0
    there = joint > 0
    shared = float((joint[there] * np.log(joint[there] / np.outer(p, q)[there])).sum())
    return max(0.0, min(1.0, shared / float(np.sqrt(entropies[0] * entropies[1]))))


def half(experts: np.ndarray, chosen: np.ndarray) -> int:
    """Fewest experts (names of ``(n,)`` neurons) that hold half of the chosen ones (``(n,)`` booleans).

    >>> half(np.array([0, 0, 0, 1, 1, 2]), np.array([True, True, False, True, True, False]))
    1
    """
    sizes = np.sort(np.unique(experts[chosen], return_counts=True)[1])[::-1]
    return int((np.cumsum(sizes) < chosen.sum() / 2).sum()) + 1 if len(sizes) else 0


def measures(
    index: NeuronIndex,
    experts: np.ndarray,
    scores: np.ndarray,
    labels: Sequence[str],
    n: int,
    model: str,
    deals: int = DEALS,
    seed: int = 0,
) -> pd.DataFrame:
    """Rows of ``modularity.parquet``: ``nmi`` of the model, and ``half`` of every class.

    Args:
        index: The model's neurons.
        experts: ``(N,)`` from :func:`experts_of`.
        scores: ``(C, N)`` how much every neuron does for each class.
        labels: ``C`` names.
        n: Feed-forward neurons that are a class's.
        model: Name of the model.
        deals: How often the neurons of a layer are dealt anew.
        seed: Of the deals.

    Returns:
        ``p_value`` is one-sided: for an NMI as large, and for as few experts, with dealt neurons.
    """
    inner = np.flatnonzero(experts >= 0)
    layer = index.site_of[inner]
    names: np.ndarray = layer * (experts.max() + 1) + experts[inner]
    best, own = best_classes(index, scores)[inner], chosen_neurons(experts, scores, n)[:, inner]
    each = [np.flatnonzero(layer == one) for one in np.unique(layer)]

    def numbers(of: np.ndarray) -> np.ndarray:
        nmi = np.average([mutual_information(of[rows], best[rows]) for rows in each], weights=[len(r) for r in each])
        return np.array([nmi, *(half(of, chosen) for chosen in own)])

    def dealt(rng: np.random.Generator) -> np.ndarray:
        of = np.array(names)
        for rows in each:
            of[rows] = rng.permutation(of[rows])
        return of

    found = numbers(names)
    random = np.array([numbers(dealt(np.random.default_rng([seed, 52, r]))) for r in range(deals)])
    rows = []
    for place, (measure, label) in enumerate([("nmi", ""), *(("half", label) for label in labels)]):
        test = compare_with_draws(float(found[place]), random[:, place], 1 if measure == "nmi" else -1)
        rows.append(
            {
                "model": model, "measure": measure, "label": label, "value": float(found[place]),
                "against": float(random[:, place].mean()), "p_value": test.p_value, "n_deals": deals,
            }
        )  # fmt: skip
    return pd.DataFrame(rows, columns=list(MEASURES))


def of_classes(attributions: np.ndarray, classes: np.ndarray, n_classes: int) -> np.ndarray:
    """Scores ``(C, N)``: the mean absolute attribution ``(P, N)`` in proteins of each class; 0 for one without any."""
    own = np.stack([classes == c for c in range(n_classes)]).astype(np.float64)
    found: np.ndarray = own @ np.abs(attributions) / np.maximum(own.sum(1, keepdims=True), 1)
    return found


def overlap_row(
    attributions: np.ndarray, classes: np.ndarray, n_classes: int, n: int, model: str, deals: int = DEALS, seed: int = 0
) -> pd.DataFrame:
    """The row ``overlap`` of ``modularity.parquet``; p is one-sided for as little overlap with classes dealt.

    Args:
        attributions: ``(P, N)`` what every neuron adds to the decision of each protein.
        classes: ``(P,)`` class numbers.
        n_classes: Classes of the model.
        n: Neurons that are a class's.
        model: Name of the model.
        deals: How often classes are dealt among the proteins.
        seed: Of the deals.
    """

    def number(of: np.ndarray) -> float:
        scores = of_classes(attributions, of, n_classes)[np.unique(of)]
        best = np.zeros(scores.shape)
        np.put_along_axis(best, np.argpartition(-scores, min(n, scores.shape[1]) - 1, axis=1)[:, :n], 1, axis=1)
        shared = (best @ best.T)[np.triu_indices(len(best), 1)]
        return float(np.mean(shared / (2 * best[0].sum() - shared))) if len(shared) else float("nan")

    found = number(classes)
    random = [number(np.random.default_rng([seed, 53, r]).permutation(classes)) for r in range(deals)]
    p = compare_with_draws(found, random, -1).p_value if np.isfinite(found) else float("nan")
    row = (model, "overlap", "", found, float(np.mean(random)), p, deals)
    return pd.DataFrame([dict(zip(MEASURES, row, strict=True))])


def specificity(damage: Sequence[np.ndarray]) -> float:
    """How much more the class that loses most loses than the others do, a mean over held sets; NaN without any.

    >>> round(specificity([np.array([0.5, 0.1, 0.1]), np.array([0.2, 0.2, np.nan])]), 3)
    0.2
    """
    each = []
    for lost in damage:
        known = lost[np.isfinite(lost)]
        if len(known) > 1:
            each.append(float(known.max() - (known.sum() - known.max()) / (len(known) - 1)))
    return float(np.mean(each)) if each else float("nan")


def chosen_neurons(experts: np.ndarray, scores: np.ndarray, n: int) -> np.ndarray:
    """``(C, N)`` true for the best ``n`` feed-forward neurons of each class."""
    found = np.zeros(scores.shape, dtype=bool)
    inner = np.flatnonzero(experts >= 0)
    for c, own in enumerate(scores):
        found[c, inner[np.argsort(-own[inner], kind="stable")[:n]]] = True
    return found


def expert_table(index: NeuronIndex, experts: np.ndarray) -> pd.DataFrame:
    """``experts.parquet``: ``layer, neuron, expert``."""
    inner = experts >= 0
    return index.table()[inner].reset_index(drop=True).assign(expert=experts[inner])[list(EXPERTS)]


def class_counts(
    index: NeuronIndex, experts: np.ndarray, scores: np.ndarray, labels: Sequence[str], n: int
) -> pd.DataFrame:
    """Rows of ``expert_classes.parquet`` without damage: every expert and class, how many of its neurons are there."""
    own, rows = chosen_neurons(experts, scores, n), []
    for number, site in enumerate(index.sites):
        if site.module != "intermediate":
            continue
        here = index.site_of == number
        for expert in np.unique(experts[here]):
            inside = here & (experts == expert)
            size = int(inside.sum())
            for c, label in enumerate(labels):
                total, found = int((own[c] & here).sum()), int((own[c] & inside).sum())
                expected = size * total / int(here.sum())
                p = float(hypergeom.sf(found - 1, int(here.sum()), total, size)) if found else 1.0
                rows.append(
                    {
                        "layer": site.layer, "expert": int(expert), "label": label, "n_neurons": size, "n": found,
                        "expected": expected, "enrichment": found / expected if expected else np.nan,
                        "damage": np.nan, "damage_against": np.nan, "p_damage": np.nan,
                        "p_value": min(1.0, max(p, TINY)),
                    }
                )  # fmt: skip
    frame = pd.DataFrame(rows, columns=[c for c in CLASSES if c != "q_value"])
    return frame.assign(q_value=benjamini_hochberg(frame["p_value"].to_numpy(dtype=np.float64)))[list(CLASSES)]


def largest(counts: pd.DataFrame, most: int) -> list[tuple[int, int]]:
    """Layer and number of the experts with the most neurons of any one class."""
    best = counts.groupby(["layer", "expert"], sort=True).agg(n=("n", "max")).reset_index()
    best = best.sort_values("n", ascending=False, kind="stable").head(most)
    return [(int(layer), int(expert)) for layer, expert in best.loc[best["n"] > 0, ["layer", "expert"]].to_numpy()]


def with_damage(
    counts: pd.DataFrame, damage: Mapping[tuple[int, int], np.ndarray], against: Mapping[int, np.ndarray],
    labels: Sequence[str],
) -> pd.DataFrame:  # fmt: skip
    """The counts with the damage of the experts that were held.

    Args:
        counts: From :func:`class_counts`.
        damage: Layer and expert to ``(C,)``: mean share of every class's probability that is lost; NaN for a class
            without a protein that is decided right.
        against: Layer to ``(draws, C)`` of as many random neurons of the layer.
        labels: ``C`` names.
    """
    frame = counts.copy()
    for row, (layer, expert, label) in enumerate(frame[["layer", "expert", "label"]].itertuples(index=False)):
        own, c = damage.get((layer, expert)), labels.index(label)
        if own is None or np.isnan(own[c]):
            continue
        drawn = against[layer][:, c]
        found = (own[c], drawn.mean(), compare_with_draws(float(own[c]), drawn, 1).p_value)
        frame.loc[frame.index[row], ["damage", "damage_against", "p_damage"]] = found
    return frame
