"""What the parts of the layout have in common: the run's model and means, its proteins, and a measure that resumes."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np

from plmscope.data.clusters import one_per_cluster
from plmscope.data.proteins import Protein
from plmscope.errors import RunError
from plmscope.scoring.table import preference
from plmscope.study.opened import class_methods, class_scores
from plmscope.study.stages import Context

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
        return self.opened.proteins("evaluation")

    @cached_property
    def true(self) -> np.ndarray:
        """``(P,)`` class numbers of the test proteins."""
        classes: np.ndarray = self.model.targets(self.proteins)
        return classes

    @cached_property
    def weights(self) -> np.ndarray:
        """``(B, P)`` of a bootstrap over the clusters of the test proteins."""
        from plmscope.layout.measure import resampled

        return resampled(self.clusters(self.proteins), self.true, self.seed)

    def few(self, label: str) -> list[Protein]:
        """Some test proteins of a class, each from another cluster."""
        own = [p for p in self.proteins if p.label == label]
        return one_per_cluster(own, self.opened.clusters, self.settings.proteins_per_class, self.seed)

    @cached_property
    def train(self) -> list[Protein]:
        """Training proteins of every class, each from another cluster."""
        return self.opened.proteins("scoring", ATTRIBUTED)

    @cached_property
    def attributed(self) -> np.ndarray:
        """``(P, N)`` what every neuron adds to the decision of each of :attr:`train`."""
        from plmscope.layout.attributions import per_protein

        return per_protein(self.model, self.train, self.begun, self.context.study.evaluate.token_budget)

    @cached_property
    def begun(self) -> np.ndarray:
        """``(3, N)`` where attributions of test proteins and of :attr:`train` start."""
        return self.constants(self.train)

    def class_scores(self) -> dict[str, Any]:
        """Scores of every neuron for each class, by that of the methods which tells best what carries a class."""
        known = set(self.context.run.table("class_scores")["method"])
        named = [method for method in self.settings.methods if method in known]
        best = min(named, key=preference) if named else class_methods(self.opened)[0]
        return class_scores(self.opened, best)

    @cached_property
    def chosen(self) -> dict[str, list[int]]:
        """Class to its best neurons, the best first, in the order of the model's classes."""
        return {
            label: [int(n) for n in np.argsort(-scores.values, kind="stable")[: self.settings.neurons]]
            for label, scores in self.class_scores().items()
        }

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
        from plmscope.evaluation.collected import changes_tried

        tried = changes_tried(
            self.model, proteins, changes, token_budget=self.context.study.evaluate.token_budget,
            folder=self.context.parts, stamp=f"{name}-{self.context.stamp}", description=name, track=self.context.track,
            crew=self.context.crew,
        )  # fmt: skip
        return tried.all(lambda line: self.context.say(f"layout: {name}: {line}"))["odds"]
