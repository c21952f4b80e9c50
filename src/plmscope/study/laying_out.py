"""Ask how knowledge is laid out in the model: the parts that ``[layout] parts`` names, each with its own tables."""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property, partial
from typing import Any

import numpy as np
import pandas as pd

from plmscope.data.clusters import one_per_cluster
from plmscope.data.proteins import Protein
from plmscope.errors import RunError, StudyError
from plmscope.store.resume import collect
from plmscope.study.opened import class_methods, class_scores, judges
from plmscope.study.settings import Study
from plmscope.study.stages import Context, Stage, tables

#: Training proteins of a class whose attributions are correlated, each from another cluster.
ATTRIBUTED = 24


class Laying:
    """What the parts have in common: the run's model and means, its test proteins, and a measure that resumes."""

    def __init__(self, context: Context) -> None:
        self.context, self.opened, self.settings = context, context.opened, context.study.layout
        self.model, self.seed = context.opened.model, context.study.seed
        if self.model.ablation_means is None:
            raise RunError(
                f"{context.run.path}: no ablation means; run 'plmscope score {shlex.quote(str(context.run.path))}'"
            )

    @cached_property
    def proteins(self) -> list[Protein]:
        """The test proteins that the evaluation uses."""
        return judges(self.opened)

    @cached_property
    def true(self) -> np.ndarray:
        """``(P,)`` class numbers of the test proteins."""
        found: np.ndarray = self.model.targets(self.proteins)
        return found

    @cached_property
    def weights(self) -> np.ndarray:
        """``(B, P)`` of a bootstrap over the clusters of the test proteins."""
        from plmscope.layout.measure import resampled

        return resampled(self.clusters(self.proteins), self.true, self.seed)

    def few(self, label: str) -> list[Protein]:
        """Some test proteins of a class, each from another cluster."""
        own = [p for p in self.proteins if p.label == label]
        return one_per_cluster(own, self.opened.clusters, self.settings.proteins_per_class, self.seed)

    def class_scores(self) -> dict[str, Any]:
        """Scores of every neuron for each class, by the first method with such scores."""
        known = set(self.context.run.table("class_scores")["method"])
        named = [method for method in self.settings.methods if method in known]
        return class_scores(self.opened, named[0] if named else class_methods(self.opened)[0])

    def constants(self, proteins: Sequence[Protein]) -> np.ndarray:
        """``(3, N)`` what attributions are taken from: the ablation means, or those at masked residues."""
        from plmscope.layout.attributions import masked_means

        if self.settings.baseline == "masked":
            return masked_means(self.model, proteins, self.seed, self.context.study.evaluate.token_budget)
        return np.asarray(self.model.ablation_means)

    def clusters(self, proteins: Sequence[Protein]) -> list[str]:
        """Cluster of each protein."""
        return [self.opened.clusters[p.id] for p in proteins]

    def measure(self, name: str, proteins: Sequence[Protein], changes: Sequence[Any]) -> np.ndarray:
        """Log-odds ``(K, P, C)`` under every change; what is known of a series so far is kept in the run folder."""
        from plmscope.evaluation.interventions import outcomes

        budget = self.context.study.evaluate.token_budget

        def steps(start: int) -> Iterator[dict[str, np.ndarray]]:
            stream = outcomes(self.model, proteins, changes[start:], self.model.ablation_means, budget)
            for odds in self.context.track(stream, name, len(changes) - start):
                yield {"odds": odds}

        like = {"odds": np.zeros((len(proteins), len(self.model.labels)))}

        def say(line: str) -> None:
            self.context.say(f"layout: {name}: {line}")

        return collect(self.context.parts, f"{name}-{self.context.stamp}", like, len(changes), steps, say)["odds"]


def sufficient(laying: Laying) -> str:
    """The smallest sufficient sets."""
    from plmscope.layout.sufficient import Judges, sufficient_sets

    settings, study = laying.settings, laying.context.study
    frame = sufficient_sets(
        laying.measure, Judges(laying.proteins, laying.true, laying.weights, len(laying.model.labels)),
        {method: laying.opened.ranking(method) for method in settings.methods or study.judged},
        target=settings.target, draws=settings.draws, seed=laying.seed,
    )  # fmt: skip
    laying.context.run.write_table("sufficient", frame)
    pooled = frame[(frame["scope"] == "pooled") & (frame["metric"] == "balanced_accuracy") & frame["judged"]]
    shares = ", ".join(f"{row.fraction:.1%} by {row.method}" for row in pooled.itertuples())
    return f"smallest share of all neurons that suffices: {shares or 'nothing to give back'}"


def degenerate(laying: Laying) -> str:
    """Components of every class's neurons, degenerate pairs among them, and what pairs protect from."""
    from plmscope.layout.attributions import per_protein
    from plmscope.layout.components import METHODS, by_correlation, wired
    from plmscope.layout.degenerate import COLUMNS, component_table, degenerate_pairs, with_q
    from plmscope.layout.substitutions import COLUMNS as EXCHANGED
    from plmscope.layout.substitutions import robustness
    from plmscope.models.esm import EsmNetwork
    from plmscope.models.hooked import network_of

    model, index, settings = laying.model, laying.model.index, laying.settings
    train = laying.opened.proteins("scoring", ATTRIBUTED)
    attributed = per_protein(model, train, laying.constants(train), laying.context.study.evaluate.token_budget)
    groups: dict[tuple[str, str], list[list[int]]] = {}
    pairs, exchanged = [], []
    network = network_of(model)
    if not isinstance(network, EsmNetwork):
        laying.context.say("layout: degenerate: no components by topology, this architecture's weights are not at hand")
    for number, (label, scores) in enumerate(laying.class_scores().items()):
        best = np.argsort(-scores.values, kind="stable")[: settings.neurons]
        own = np.array([p.label == label for p in train])
        groups["correlation", label] = [[int(best[c]) for c in g] for g in by_correlation(attributed[own][:, best])]
        groups["topology", label] = wired(index, network, best.tolist()) if isinstance(network, EsmNetwork) else []
        groups["single", label] = [[int(one)] for one in best]
        proteins, c = laying.few(label), list(model.labels).index(label)
        found = []
        for method in METHODS:
            frame = degenerate_pairs(
                laying.measure, f"pairs-{method}-{number}", index, proteins, laying.clusters(proteins), c,
                groups[method, label], best.tolist(), settings.draws, laying.seed,
            )  # fmt: skip
            found.append(frame.assign(method=method, label=label))
        pairs += [frame for frame in found if len(frame)]
        every = pd.concat([frame for frame in found if len(frame)]) if any(map(len, found)) else pd.DataFrame()
        if len(every):
            top = every.sort_values(["degenerate", "synergy"], ascending=False, kind="stable").iloc[0]
            sets = [groups[str(top["method"]), label][int(top[which])] for which in ("a", "b")]
            frame = robustness(
                laying.measure, f"exchanged-{number}", index, proteins, c, sets, settings.draws, laying.seed
            )
            exchanged.append(frame.assign(label=label))
    run = laying.context.run
    run.write_table("components", component_table(index, groups))
    table = pd.concat(pairs, ignore_index=True) if pairs else pd.DataFrame(columns=list(COLUMNS))
    run.write_table("degenerate", with_q(table))
    run.write_table(
        "substitutions", pd.concat(exchanged, ignore_index=True) if exchanged else pd.DataFrame(columns=list(EXCHANGED))
    )
    return f"degenerate pairs of components: {int(table['degenerate'].sum())} of {len(table):,}"


#: Part to what does it, and the tables that it writes.
PARTS: Mapping[str, tuple[Callable[[Laying], str], tuple[str, ...]]] = {
    "sufficient": (sufficient, ("sufficient",)),
    "degenerate": (degenerate, ("components", "degenerate", "substitutions")),
}


def run(context: Context) -> dict[str, Any]:
    """Run the parts in order; each says what it found and how long it took."""
    laying, spent = Laying(context), {}
    for part in (part for part in PARTS if part in context.study.layout.parts):
        started = time.process_time()
        context.say(f"layout: {PARTS[part][0](laying)}")
        spent[part] = round(time.process_time() - started, 1)
    return {"layout": {"cpu_seconds": spent}}


def check(context: Context) -> None:
    """Refuse a task in which a protein may have several classes: no part is defined there."""
    if context.study.data.task_or_single == "multi":
        raise StudyError('layout.parts: every protein has to have one class, and task = "multi"; write parts = []')


def _asked(part: str, study: Study) -> bool:
    """Whether a study asks for a part."""
    return part in study.layout.parts


STAGE = Stage(
    name="layout",
    run=run,
    settings=(
        "seed", "device", "dtype", "layout", "judged", "score.ranking", "evaluate.max_proteins",
        "data.task", "intervene.methods",
    ),
    reads=("model", "proteins", "neurons", "class_scores", "ablation_means"),
    asked={file: partial(_asked, part) for part, (_, names) in PARTS.items() for file in tables(*names)},
    switch="layout.parts",
    off={"layout": {}},
    check=check,
)  # fmt: skip
