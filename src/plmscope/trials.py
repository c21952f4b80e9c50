"""The interventions of a run: each class's neurons, what changing them does, and whether other samples choose them too.

For every class the best share of neurons by its own scores is suppressed and enhanced on test proteins
(:mod:`plmscope.interventions`), the best of all one by one; the classes' selections are compared with each other, with
those from disjoint halves of the scoring clusters, from the null models and from another run
(:mod:`plmscope.overlap`). Writes the tables ``interventions``, ``intervention_effects``, ``neuron_effects``,
``class_overlap`` and ``stability``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import spearmanr

from plmscope.errors import RunError
from plmscope.overlap import class_overlap, overlap
from plmscope.progress import Track, silent
from plmscope.runs import OpenRun, one_per_cluster
from plmscope.scores import NeuronScores, from_table
from plmscope.selection import Selection, select_top
from plmscope.sequences import Protein

#: Methods in the order in which they choose a class's neurons.
PREFERRED = ("integrated_gradients", "conductance", "activation_contrast")
#: ``label`` of the selection over all classes.
OVERALL = ""
NULLS = ("label_shuffled", "random_weights")


def class_scores(opened: OpenRun, method: str) -> dict[str, NeuronScores]:
    """Scores of every neuron for each class by one method of a run.

    Raises:
        RunError: the method has no class scores in this run.
    """
    frame = opened.run.table("class_scores")
    frame = frame[frame["method"] == method]
    if not len(frame):
        raise RunError(f"{opened.run.path}: no class scores by {method!r}; name another among intervene.methods")
    own = {}
    for label in (label for label in opened.model.labels if (frame["label"] == label).any()):
        part = frame[frame["label"] == label].rename(columns={"score": method})
        own[label] = from_table(part, opened.model.index, method)
    return own


def class_methods(opened: OpenRun) -> tuple[str, ...]:
    """The methods of the settings, or the preferred one among those with class scores."""
    if opened.study.intervene.methods:
        return opened.study.intervene.methods
    known = list(dict.fromkeys(opened.run.table("class_scores")["method"]))
    if not known:
        raise RunError(f"{opened.run.path}: class_scores.parquet has no rows; score by integrated_gradients too")
    return (next((method for method in PREFERRED if method in known), str(known[0])),)


def intervene_run(
    opened: OpenRun, other: OpenRun | None = None, track: Track = silent, say: Callable[[str], None] = lambda _: None
) -> None:
    """Make and write all five tables.

    Args:
        opened: The run, at least scored.
        other: Another run of a model of the same shape, whose selections are compared with these.
        track: Progress.
        say: Told one line at a time.

    Raises:
        RunError: the run has no scores, or the other run is of another shape.
    """
    from plmscope.interventions import Change, effect_table, intervention_table, neuron_effects, nothing, outcomes, plan

    settings, model, seed = opened.study.intervene, opened.model, opened.study.seed
    if other is not None and other.model.index != model.index:
        raise RunError(f"{other.run.path}: its model has another shape than that of {opened.run.path}")
    methods, fraction = class_methods(opened), settings.fraction
    scores = {method: class_scores(opened, method) for method in methods}
    selections: dict[tuple[str, str], Selection] = {
        (method, label): select_top(one, fraction) for method in methods for label, one in scores[method].items()
    }
    proteins = _judges(opened)
    members, labels = model.membership(proteins), list(model.labels)
    if model.ablation_means is None:
        raise RunError(f"{opened.run.path}: no ablation means; run 'plmscope score {opened.run.path}'")
    draws: dict[float | None, int] = {None: settings.draws, 0.0: settings.draws}
    draws |= {factor: settings.draws if factor == 2 else 0 for factor in settings.factors if factor != 1}
    trials = plan(selections, fraction, draws, seed)
    budget = opened.study.evaluate.token_budget
    changes = [nothing(model.index), *(trial.change for trial in trials)]
    stream = outcomes(model, proteins, changes, model.ablation_means, budget)
    before, *after = track(stream, "suppress and enhance", len(changes))
    table = intervention_table(trials, before, after, members, labels, model.task)
    clusters = [opened.clusters[p.id] for p in proteins]
    effects = effect_table(trials, before, after, members, labels, clusters, seed, model.task)
    run = opened.run
    run.write_table("interventions", table)
    run.write_table("intervention_effects", effects)
    chosen = _single(opened, methods[0], settings.neurons)
    if len(chosen):
        few = one_per_cluster(proteins, opened.clusters, settings.proteins_per_class, seed, task=model.task)
        places = [np.arange(len(model.index)) == position for position in chosen]
        changes = [nothing(model.index), *(Change(Selection(model.index, mask), None) for mask in places)]
        stream = outcomes(model, few, changes, model.ablation_means, budget)
        before, *after = track(stream, "one neuron at a time", len(changes))
        where = model.index.table().iloc[chosen].reset_index(drop=True)
        single = neuron_effects(before, after, model.membership(few), labels, where, model.task)
        run.write_table("neuron_effects", single)
    else:
        run.clear("neuron_effects.parquet")
    pairs = [
        class_overlap({label: s for (m, label), s in selections.items() if m == method}).assign(
            method=method, fraction=fraction
        )
        for method in methods
    ]
    run.write_table("class_overlap", pd.concat(pairs, ignore_index=True))
    run.write_table("stability", stability(opened, scores, fraction, other, track))
    run.update_manifest(
        interventions={"proteins": len(proteins), "other": str(other.run.path) if other is not None else ""}
    )
    lost = effects[(effects["label"] == effects["effect_on"]) & effects["factor"].isna()]
    say(
        f"intervene: held at the mean, the neurons of a class lose it {lost['decisions_lost'].sum():,} of "
        f"{lost['n_proteins'].sum():,} proteins; matched draws {lost['decisions_lost_against'].sum():,.1f}"
    )


def judge_selection(opened: OpenRun, path: str | Path, label: str | None, factor: float | None) -> Any:
    """An :class:`~plmscope.interventions.Intervention` of the neurons that a TSV file lists, on the test proteins."""
    from plmscope.interventions import intervene

    chosen = Selection.from_tsv(path, opened.model.index)
    return intervene(
        opened.model, _judges(opened), chosen, factor=factor, label=label, n_random=opened.study.intervene.draws,
        seed=opened.study.seed, token_budget=opened.study.evaluate.token_budget,
    )  # fmt: skip


def _judges(opened: OpenRun) -> list[Protein]:
    """The test proteins that the evaluation uses."""
    test, most = opened.proteins("test"), opened.study.evaluate.max_proteins
    if not most:
        return test
    per_class = -(-most // len(opened.model.labels))
    return one_per_cluster(test, opened.clusters, per_class, opened.study.seed, task=opened.model.task)


def _single(opened: OpenRun, method: str, most: int) -> np.ndarray:
    """Positions of the neurons that are suppressed one by one: the best overall."""
    order = np.argsort(-opened.scores(method).values, kind="stable")
    best: np.ndarray = order[: min(most, len(order))]
    return best


def stability(
    opened: OpenRun,
    scores: Mapping[str, Mapping[str, NeuronScores]],
    fraction: float,
    other: OpenRun | None = None,
    track: Track = silent,
) -> pd.DataFrame:
    """``stability.parquet``: do other proteins, models and runs choose the same neurons?

    ``compared_with`` is ``halves`` (scores from two disjoint halves of the scoring clusters, each class dealt evenly),
    ``label_shuffled`` or ``random_weights`` (the null models of the density) or ``other_run``. ``label`` is empty for
    the ranking over all classes. ``spearman`` is the rank correlation of all scores.

    Args:
        opened: The run.
        scores: Method to class to scores of the run.
        fraction: Share that is selected.
        other: Another run of a model of the same shape.
        track: Progress.
    """
    rows: list[dict[str, Any]] = []

    def compare(label: str, compared_with: str, one: NeuronScores, two: NeuronScores) -> None:
        found = overlap(select_top(one, fraction), select_top(two, fraction))
        rho = float(spearmanr(one.values, two.values).statistic)
        common = {"method": one.method, "fraction": fraction, "label": label, "compared_with": compared_with}
        rows.append(common | vars(found) | {"spearman": rho})

    for method, of_class in scores.items():
        first, second = _halves(opened, method, track)
        compare(OVERALL, "halves", first, second)
        for label in of_class:
            if label in first.per_class and label in second.per_class:
                pair = (NeuronScores(method, h.index, h.per_class[label]) for h in (first, second))
                compare(label, "halves", *pair)
        whole = opened.scores(method)
        for null in NULLS:
            path = opened.run.path / "nulls" / null / "neurons.parquet"
            if path.is_file():
                compare(OVERALL, null, whole, from_table(pd.read_parquet(path), whole.index, method))
        if other is not None:
            compare(OVERALL, "other_run", whole, other.scores(method))
            theirs = class_scores(other, method)
            for label in (label for label in of_class if label in theirs):
                compare(label, "other_run", of_class[label], theirs[label])
    return pd.DataFrame(rows)


def _halves(opened: OpenRun, method: str, track: Track) -> tuple[NeuronScores, NeuronScores]:
    """Scores from two disjoint halves of the scoring clusters."""
    from plmscope.study import score_all

    model, study = opened.model, opened.study
    score = study.score.model_copy(update={"methods": (method,)})
    means = np.asarray(model.ablation_means) if study.score.baseline == "mean" else None
    one, two = halves(opened.proteins("scoring"), opened.clusters)
    only = study.model_copy(update={"score": score})
    return score_all(only, model, one, means, track)[0], score_all(only, model, two, means, track)[0]


def halves(proteins: Sequence[Protein], clusters: Mapping[str, str]) -> tuple[list[Protein], list[Protein]]:
    """Deal the clusters of each class in turn into two halves; no cluster is in both.

    >>> some = [Protein(str(i), "MK", "a") for i in range(4)]
    >>> [[p.id for p in half] for half in halves(some, {"0": "x", "1": "x", "2": "y", "3": "z"})]
    [['0', '1', '3'], ['2']]
    """
    side: dict[str, int] = {}
    dealt: dict[str, int] = {}
    for protein in proteins:
        label = str(protein.label)
        if clusters[protein.id] not in side:
            side[clusters[protein.id]] = dealt.get(label, 0) % 2
            dealt[label] = dealt.get(label, 0) + 1
    parts: tuple[list[Protein], list[Protein]] = ([], [])
    for protein in proteins:
        parts[side[clusters[protein.id]]].append(protein)
    return parts
