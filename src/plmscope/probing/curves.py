"""What a few neurons decide alone: probes on the best, the worst and random ones, and control tasks.

A task is samples ``x`` ``(S, N)`` with classes ``y``: means of proteins and their class, or residues and whether a
concept marks them (as many that it does not). Neurons are ranked on training samples; for ``n`` = 1, 2, 5, 10 ... a
linear probe is *trained again* on the best ``n``, the worst, and random ones, and judged on held-out clusters::

    balanced accuracy     mean recall over classes
    nmi                   I(predicted; true) / H(true)
    control accuracy      of probes that are trained on, and asked for, labels that say nothing
    selectivity           balanced accuracy - control accuracy

Labels that say nothing: of residues, every centred 3-mer has one of its own, drawn from the labels of the task, so that
a probe can only learn it by heart; of proteins, the training labels are dealt anew among them. A probe of high
accuracy and low selectivity is strong by itself. The *minimal set* is the smallest ``n`` within 0.01 of the probe on
all neurons; *distinct* neurons are the best one of each group of alike ones (average linkage on ``1 - |correlation|``,
cut at 0.5).

Source: Dalvi et al. 2019 and NeuroX (ablation, minimal set, redundancy); Hewitt and Liang 2019 (control tasks).
Departs: balanced accuracy on other clusters; 3-mers in the place of words.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.cluster.hierarchy import fcluster, linkage

from plmscope.probing.linear_probe import fit_probe
from plmscope.stats.metrics import metric

SIZES = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)
#: A set is minimal if it loses no more than this.
TOLERANCE = 0.01
#: Selectivity of the probe on all neurons below which it reads next to nothing, and any neuron would do as well.
READS = 0.1
#: Best neurons that are grouped by how alike they are, and where the tree is cut.
GROUPED, CUT = 200, 0.5
RANDOM_DRAWS = 5
MASSES = (0.25, 0.5, 0.75)
COLUMNS = (
    "task", "level", "method", "chosen", "n_neurons", "balanced_accuracy", "nmi", "control_accuracy", "selectivity",
)  # fmt: skip


@dataclass(frozen=True)
class Task:
    """Samples of training clusters and of others.

    Attributes:
        name: ``class``, or a concept.
        level: ``protein`` or ``residue``.
        x, held_x: ``(S, N)`` activations.
        y, held_y: ``(S,)`` class numbers.
        classes: Their number.
        words, held_words: The centred 3-mer of every residue; empty for proteins.
    """

    name: str
    level: str
    x: np.ndarray
    y: np.ndarray
    held_x: np.ndarray
    held_y: np.ndarray
    classes: int
    words: Sequence[str] = ()
    held_words: Sequence[str] = ()


def judged(task: Task, columns: np.ndarray, y: np.ndarray, held_y: np.ndarray, seed: int) -> tuple[float, float]:
    """Balanced accuracy and normalised mutual information of a probe on some neurons, with these labels."""
    predicted = fit_probe(task.x[:, columns], y, task.classes, seed=seed).predict(task.held_x[:, columns])
    right = metric("balanced_accuracy", held_y, predicted, np.zeros(len(held_y)), task.classes)
    return right, shared(predicted, held_y)


def shared(predicted: np.ndarray, true: np.ndarray) -> float:
    """I(predicted; true) / H(true), 0 where all are of one class.

    >>> shared(np.array([0, 0, 1, 1]), np.array([0, 0, 1, 1])), shared(np.zeros(4, int), np.array([0, 0, 1, 1]))
    (1.0, 0.0)
    """
    joint = np.zeros((int(predicted.max()) + 1, int(true.max()) + 1))
    np.add.at(joint, (predicted, true), 1 / len(true))
    rows, columns = joint.sum(1, keepdims=True), joint.sum(0, keepdims=True)
    entropy = -float(np.sum(columns[columns > 0] * np.log2(columns[columns > 0])))
    told = joint > 0
    bits = float(np.sum(joint[told] * np.log2((joint / np.maximum(rows * columns, 1e-300))[told])))
    return bits / entropy if entropy > 0 else 0.0


def control_labels(task: Task, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Training and held-out labels that say nothing; see the top of this file."""
    if not task.words:
        return rng.permutation(task.y), task.held_y
    every = sorted({*task.words, *task.held_words})
    own = dict(zip(every, rng.choice(task.y, len(every)).tolist(), strict=True))
    return np.array([own[word] for word in task.words]), np.array([own[word] for word in task.held_words])


def distinct(x: np.ndarray, order: np.ndarray, grouped: int = GROUPED) -> np.ndarray:
    """The best neuron of each group of alike ones, among the ``grouped`` best, in their order."""
    best: np.ndarray = order[:grouped]
    spread = x[:, best].std(0)
    best = best[spread > 1e-5 * np.abs(x[:, best].mean(0)) + 1e-12]
    if len(best) < 2:
        return best
    distance = 1 - np.abs(np.corrcoef(x[:, best], rowvar=False))
    group = fcluster(linkage(distance[np.triu_indices(len(best), 1)].clip(0), "average"), CUT, "distance")
    _, first = np.unique(group, return_index=True)
    chosen: np.ndarray = best[np.sort(first)]
    return chosen


def probe_curves(
    task: Task,
    rankings: Mapping[str, np.ndarray],
    *,
    sizes: Sequence[int] = SIZES,
    controls: int = 10,
    seed: int = 0,
    track: Callable[[Iterable[str]], Iterable[str]] = iter,
) -> pd.DataFrame:
    """How well probes on some neurons do, one row a method, choice and number: the columns :data:`COLUMNS`.

    Args:
        task: Samples.
        rankings: Method to scores ``(N,)``, found on the training samples alone.
        sizes: Numbers of neurons; all of them are tried beside.
        controls: Control tasks, whose accuracy is averaged; asked of all neurons and the best ones.
        seed: Of probes, draws and controls.
        track: Progress over the methods.
    """
    n = task.x.shape[1]
    rng = np.random.default_rng([seed, 33])
    nothing = [control_labels(task, rng) for _ in range(controls)]
    sizes, rows = [size for size in sizes if size < n], []

    def add(method: str, chosen: str, sets: Sequence[np.ndarray]) -> None:
        found = np.mean([judged(task, one, task.y, task.held_y, seed) for one in sets], axis=0)
        control = np.nan
        if controls and chosen in ("all", "top"):
            control = float(np.mean([judged(task, sets[0], *labels, seed)[0] for labels in nothing]))
        rows.append((task.name, task.level, method, chosen, len(sets[0]), *found, control, found[0] - control))

    add("", "all", [np.arange(n)])
    for size in sizes:
        add("", "random", [rng.choice(n, size, replace=False) for _ in range(RANDOM_DRAWS)])
    for method in track(list(rankings)):
        order = np.argsort(-rankings[method], kind="stable")
        some = distinct(task.x, order)
        for size in sizes:
            add(method, "top", [order[:size]])
            add(method, "bottom", [order[::-1][:size]])
            if size <= len(some):
                add(method, "distinct", [some[:size]])
    return pd.DataFrame(rows, columns=list(COLUMNS))


def minimal_sets(curves: pd.DataFrame) -> pd.DataFrame:
    """``task, method, n_neurons``: the smallest number of best neurons within 0.01 of all of them.

    Tasks that the probe on all neurons does hardly better than its control task (selectivity below 0.1) have none.
    """
    rows = []
    for name, of_task in curves.groupby("task", sort=False):
        whole = of_task[of_task["chosen"] == "all"].iloc[0]
        if whole["selectivity"] < READS:
            continue
        for method, own in of_task[of_task["chosen"] == "top"].groupby("method", sort=False):
            enough = own[own["balanced_accuracy"] >= whole["balanced_accuracy"] - TOLERANCE]["n_neurons"]
            rows.append((name, method, int(enough.min()) if len(enough) else int(whole["n_neurons"])))
    return pd.DataFrame(rows, columns=["task", "method", "n_neurons"])


def mass_of_sites(weights: np.ndarray, sites: np.ndarray, masses: Sequence[float] = MASSES) -> pd.DataFrame:
    """``mass, site, n``: where the neurons are that hold so much of the weight of a class, all classes together.

    Args:
        weights: ``(C, N)``
        sites: ``(N,)`` number of each neuron's site.
        masses: Shares of a class's absolute weights, from the largest down.
    """
    size = np.abs(weights)
    order = np.argsort(-size, axis=1, kind="stable")
    ordered = np.take_along_axis(size, order, 1)
    before = (np.cumsum(ordered, axis=1) - ordered) / np.maximum(ordered.sum(1, keepdims=True), 1e-300)
    rows = []
    for mass in masses:
        taken = np.unique(order[(before < mass) & (ordered > 0)])
        counts = np.bincount(sites[taken], minlength=int(sites.max()) + 1)
        rows += [(mass, site, int(number)) for site, number in enumerate(counts)]
    return pd.DataFrame(rows, columns=["mass", "site", "n"])
