"""The interventions of a run: each class's neurons, what changing them does, and whether other samples choose them too.

For every class the best share of neurons by its own scores is suppressed and enhanced on test proteins
(:mod:`plmscope.evaluation.interventions`), the best of all one by one (:func:`intervene_run`). What is selected is
compared with what disjoint halves of the scoring clusters, the null models and another run select
(:func:`stability`), which needs no intervention.
"""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import spearmanr

from plmscope.data.proteins import Protein
from plmscope.errors import RunError
from plmscope.evaluation.overlap import overlap
from plmscope.evaluation.selection import Selection, select_top
from plmscope.progress import Track, silent
from plmscope.runs import OpenRun, one_per_cluster, score_all
from plmscope.scoring.scores import NeuronScores, from_table
from plmscope.scoring.table import PREFERRED
from plmscope.store.resume import collect
from plmscope.store.schema import SCHEMA

#: ``label`` of the selection over all classes.
OVERALL = ""
TABLES = ("interventions", "intervention_effects")


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
        raise RunError(f"{opened.run.path}: class_scores.parquet has no rows; score by {PREFERRED[0]} too")
    return (next((method for method in PREFERRED if method in known), str(known[0])),)


def intervene_run(
    opened: OpenRun,
    parts: Path,
    stamp: str,
    track: Track = silent,
    say: Callable[[str], None] = lambda _: None,
) -> dict[str, Any]:
    """Write :data:`TABLES` of a run, and ``neuron_effects`` where single neurons are asked for.

    Args:
        opened: The run, at least scored.
        parts: A folder for what is known so far; another call with the same ``stamp`` continues from there. The caller
            removes it.
        stamp: Digest of everything that the outcomes depend on.
        track: Progress.
        say: Told one line at a time.

    Returns:
        What the manifest keeps.

    Raises:
        RunError: the run has no scores or no ablation means.
    """
    from plmscope.evaluation.interventions import (
        Change,
        effect_table,
        intervention_table,
        neuron_effects,
        nothing,
        outcomes,
        plan,
    )

    settings, model, seed, run = opened.study.intervene, opened.model, opened.study.seed, opened.run
    methods, fraction = class_methods(opened), settings.fraction
    scores = {method: class_scores(opened, method) for method in methods}
    selections: dict[tuple[str, str], Selection] = {
        (method, label): select_top(one, fraction) for method in methods for label, one in scores[method].items()
    }
    if model.ablation_means is None:
        raise RunError(f"{run.path}: no ablation means; run 'plmscope score {shlex.quote(str(run.path))}'")

    def tried(name: str, description: str, proteins: Sequence[Protein], changes: Sequence[Change]) -> np.ndarray:
        """Log-odds ``(1 + K, P, C)`` in the intact model and under every change."""
        every = [nothing(model.index), *changes]

        def steps(start: int) -> Iterator[dict[str, np.ndarray]]:
            todo = every[start:]
            stream = outcomes(model, proteins, todo, model.ablation_means, opened.study.evaluate.token_budget)
            for odds in track(stream, description, len(todo)):
                yield {"odds": odds}

        like = {"odds": np.zeros((len(proteins), len(model.labels)))}
        return collect(
            parts, f"{name}-{stamp}", like, len(every), steps, lambda line: say(f"intervene: {line} changes")
        )["odds"]

    proteins = judges(opened)
    members, labels = model.membership(proteins), list(model.labels)
    draws: dict[float | None, int] = {None: settings.draws, 0.0: settings.draws}
    draws |= {factor: settings.draws if factor == 2 else 0 for factor in settings.factors if factor != 1}
    trials = plan(selections, fraction, draws, seed)
    before, *after = tried("classes", "suppress and enhance", proteins, [trial.change for trial in trials])
    clusters = [opened.clusters[p.id] for p in proteins]
    effects = effect_table(trials, before, after, members, labels, clusters, seed, model.task)
    run.write_table("interventions", intervention_table(trials, before, after, members, labels, model.task))
    run.write_table("intervention_effects", effects)
    chosen = _single(opened, methods[0], settings.neurons)
    if len(chosen):
        few = one_per_cluster(proteins, opened.clusters, settings.proteins_per_class, seed, task=model.task)
        places = [np.arange(len(model.index)) == position for position in chosen]
        alone = [Change(Selection(model.index, mask), None) for mask in places]
        before, *after = tried("neurons", "one neuron at a time", few, alone)
        where = model.index.table().iloc[chosen].reset_index(drop=True)
        single = neuron_effects(before, after, model.membership(few), labels, where, model.task)
        run.write_table("neuron_effects", single)
    lost = effects[(effects["label"] == effects["effect_on"]) & effects["factor"].isna()]
    say(
        f"intervene: held at the mean, the neurons of a class lose it {lost['decisions_lost'].sum():,} of "
        f"{lost['decisions_right'].sum():,} right decisions; matched draws {lost['decisions_lost_against'].sum():,.1f}"
    )
    return {"proteins": len(proteins)}


def compare_runs(opened: OpenRun, other: OpenRun) -> None:
    """Add the rows ``other_run`` to ``stability.parquet``: the neurons of another run beside those of this one.

    Args:
        opened: A run with interventions.
        other: A run of a model of the same shape, such as one of another seed.

    Raises:
        RunError: the other model has another shape, or there are no interventions yet.
    """
    if other.model.index != opened.model.index:
        raise RunError(f"{other.run.path}: its model has another shape than that of {opened.run.path}")
    rows, fraction = [], opened.study.intervene.fraction
    for method in class_methods(opened):
        rows.append(_compared(OVERALL, "other_run", fraction, opened.ranking(method), other.ranking(method)))
        ours, theirs = class_scores(opened, method), class_scores(other, method)
        rows += [
            _compared(label, "other_run", fraction, one, theirs[label])
            for label, one in ours.items()
            if label in theirs
        ]
    found = opened.run.table("stability")
    found = found[found["compared_with"] != "other_run"]
    opened.run.write_table("stability", pd.concat([found, pd.DataFrame(rows)], ignore_index=True))
    opened.run.update_manifest(interventions=opened.run.manifest()["interventions"] | {"other": str(other.run.path)})


def judge_selection(opened: OpenRun, path: str | Path, label: str | None, factor: float | None) -> Any:
    """The :class:`~plmscope.evaluation.judging.Intervention` of a TSV file of neurons on the test proteins."""
    from plmscope.evaluation.judging import intervene

    chosen = Selection.from_tsv(path, opened.model.index)
    return intervene(
        opened.model, judges(opened), chosen, factor=factor, label=label, n_random=opened.study.intervene.draws,
        seed=opened.study.seed, token_budget=opened.study.evaluate.token_budget,
    )  # fmt: skip


def judges(opened: OpenRun) -> list[Protein]:
    """The test proteins that the evaluation uses."""
    test, most = opened.proteins("test"), opened.study.evaluate.max_proteins
    if not most:
        return test
    per_class = -(-most // len(opened.model.labels))
    return one_per_cluster(test, opened.clusters, per_class, opened.study.seed, task=opened.model.task)


def _single(opened: OpenRun, method: str, most: int) -> np.ndarray:
    """Positions of the neurons that are suppressed one by one: the best overall, as the evaluation ranks them."""
    order = np.argsort(-opened.ranking(method).values, kind="stable")
    best: np.ndarray = order[: min(most, len(order))]
    return best


def stability(
    opened: OpenRun, scores: Mapping[str, Mapping[str, NeuronScores]], fraction: float, track: Track = silent
) -> pd.DataFrame:
    """``stability.parquet``: do other proteins and models choose the same neurons?

    ``compared_with`` is ``halves`` (scores from two disjoint halves of the scoring clusters, each class dealt evenly;
    none if ``density.halves`` is false),
    ``label_shuffled`` or ``random_weights`` (the null models of the density). ``label`` is empty for the ranking over
    all classes, the one that the evaluation uses; those of a class keep the sign. ``spearman`` is the rank correlation
    of all scores.

    Args:
        opened: The run.
        scores: Method to class to scores of the run.
        fraction: Share that is selected.
        track: Progress.
    """
    rows = []
    for method, of_class in scores.items():
        if opened.study.density.halves and (both := _halves(opened, method, track)) is not None:
            pairs = {OVERALL: both}
            for label in of_class:
                if all(label in half.per_class for half in both):
                    one, two = (NeuronScores(method, half.index, half.per_class[label]) for half in both)
                    pairs[label] = one, two
            # Where a half has too few proteins for a score, all neurons have the same and none is best.
            rows += [
                _compared(label, "halves", fraction, *pair)
                for label, pair in pairs.items()
                if all(np.ptp(half.values) > 0 for half in pair)
            ]
        whole = opened.ranking(method)
        for null in opened.study.density.nulls:
            if (opened.run.path / "nulls" / null / "neurons.parquet").is_file():
                table = opened.run.own(f"nulls/{null}/neurons")
                theirs = from_table(table, whole.index, opened.study.score.ranked_by(method))
                rows.append(_compared(OVERALL, null, fraction, whole, theirs))
    return pd.DataFrame(rows, columns=SCHEMA["stability"])


def _compared(label: str, compared_with: str, fraction: float, one: NeuronScores, two: NeuronScores) -> dict[str, Any]:
    """A row of ``stability.parquet``."""
    found = overlap(select_top(one, fraction), select_top(two, fraction))
    rho = float(spearmanr(one.values, two.values).statistic)
    common = {"method": one.method, "fraction": fraction, "label": label, "compared_with": compared_with}
    return common | vars(found) | {"spearman": rho}


def _halves(opened: OpenRun, method: str, track: Track) -> tuple[NeuronScores, NeuronScores] | None:
    """Rankings from two disjoint halves of the scoring clusters, with class scores; ``None`` for one cluster."""
    model, study = opened.model, opened.study
    score = study.score.model_copy(update={"methods": (method,)})
    means = np.asarray(model.ablation_means) if study.score.baseline == "mean" else None
    one, two = halves(opened.proteins("scoring"), opened.clusters)
    if not two:
        return None

    def ranking(half: list[Protein]) -> NeuronScores:
        found = score_all(model, half, score, means, track=track)  # the method, and what it is ranked by
        return replace(found[0], values=found[-1].values)

    return ranking(one), ranking(two)


def halves(proteins: Sequence[Protein], clusters: Mapping[str, str]) -> tuple[list[Protein], list[Protein]]:
    """Deal the clusters of each class in turn into two halves; no cluster is in both. The second may be empty.

    >>> some = [Protein(str(i), "MK", "a") for i in range(4)]
    >>> [[p.id for p in half] for half in halves(some, {"0": "x", "1": "x", "2": "y", "3": "z"})]
    [['0', '1', '3'], ['2']]
    """
    side: dict[str, int] = {}
    dealt: Counter[tuple[str, int]] = Counter()
    for protein in proteins:
        label = str(protein.label)
        if clusters[protein.id] not in side:
            # Where many classes have one cluster each, the halves are still even.
            emptier = min((0, 1), key=lambda half: (dealt[label, half], dealt["", half]))
            side[clusters[protein.id]] = emptier
            dealt.update([(label, emptier), ("", emptier)])
    parts: tuple[list[Protein], list[Protein]] = ([], [])
    for protein in proteins:
        parts[side[clusters[protein.id]]].append(protein)
    return parts
