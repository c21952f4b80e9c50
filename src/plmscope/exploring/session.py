"""A run that is loaded once, and the answers about it: what a page is made of.

An explanation is the one of ``plmscope explain``, number by number. It comes in two parts, so that others have their
turn between them: a first look, without the band, the draws and the nearest training protein, and the whole.
"""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
from scipy.special import expit

from plmscope.data.proteins import Protein
from plmscope.errors import InputError, shown
from plmscope.explaining.activations import at_residues
from plmscope.explaining.decision import number_of
from plmscope.explaining.explainer import Explainer, ExplainSettings, check_readable
from plmscope.explaining.explanation import Explanation
from plmscope.explaining.page import page_facts, page_text, with_trust
from plmscope.explaining.variants import mutated
from plmscope.exploring.catalogue import Catalogue
from plmscope.exploring.changes import changed_odds
from plmscope.exploring.requests import TO, Asked, Part, Search
from plmscope.models.sites import Neuron
from plmscope.progress import Track, silent
from plmscope.report.input import Results
from plmscope.study.opened import OpenRun

#: Answers that are kept, and test proteins that the page offers.
KEPT, OFFERED = 32, 200


class Session:
    """A loaded run.

    Args:
        opened: The run.
        settings: Of the whole explanation; default as ``plmscope explain``.
        track: Progress of what is made once.

    Raises:
        RunError: the run has not been scored.
    """

    def __init__(self, opened: OpenRun, settings: ExplainSettings | None = None, track: Track = silent) -> None:
        self.opened, self.model = opened, opened.model
        self.settings = settings or ExplainSettings(seed=opened.study.seed)
        self.explainer = Explainer(opened, settings=self.settings, track=track)
        self.explainer.prepare()
        self.catalogue = Catalogue(opened)
        self._kept: OrderedDict[Any, dict[str, Any]] = OrderedDict()

    @property
    def longest(self) -> int:
        """Residues that the model takes."""
        return int(self.model.max_residues)

    def facts(self) -> dict[str, Any]:
        """What the page knows before it asks: names of classes, sets and concepts, and some test proteins."""
        tests = self.opened.proteins("test")[:OFFERED]
        return {
            **page_facts(Results(self.opened.run), self.opened), **self.catalogue.choices(),
            "run": self.opened.study.name, "longest": self.longest, "sets": self._sets(), "to": list(TO), "report": "",
            "has_means": self.model.ablation_means is not None,
            "proteins": [{"id": p.id, "sequence": p.sequence, "label": str(p.label or "")} for p in tests],
        }  # fmt: skip

    def search(self, asked: Search) -> dict[str, Any]:
        """Neurons of the run."""
        return self.catalogue.search(asked)

    def explain(self, asked: Asked, *, whole: bool) -> dict[str, Any]:
        """An explanation as JSON knows it, with ``tracks`` and ``trust``; without changes of neurons.

        Args:
            asked: The protein, with its mutations.
            whole: False: no band, no draws, no nearest training protein.

        Raises:
            InputError: something does not fit the protein or the run.
        """
        protein = self._protein(asked)
        key = (protein.id, protein.sequence, asked.label, whole)
        return self._once(key, lambda: self._explained(protein, asked.label, whole))

    def decide(self, asked: Asked) -> dict[str, Any]:
        """The decision with all changes of neurons: log-odds and probabilities before and after.

        Raises:
            InputError: something does not fit.
            SelectionError: the model has no such neuron.
            RunError: the means of neurons are not known.
        """
        protein = self._protein(asked)
        changes = [(self._positions(part), TO[part.to]) for part in asked.changes]
        before = changed_odds(self.model, protein, [])
        after = changed_odds(self.model, protein, changes) if changes else before
        return {
            "before": self._decision(before), "after": self._decision(after),
            "sizes": [len(positions) for positions, _ in changes],
        }  # fmt: skip

    def along(self, asked: Asked, neuron: Neuron) -> dict[str, Any]:
        """Activations of one neuron along the protein, and the shares of training residues below them.

        Raises:
            InputError: something does not fit the protein.
            SelectionError: the model has no such neuron.
        """
        protein, position = self._protein(asked), self.model.index.position(neuron)
        values = at_residues(self.model, protein, np.array([position], np.int64))[:, 0]
        share: list[float | None] = [None] * len(values)
        if self.explainer.sample is not None:
            share = [round(float(x), 5) for x in self.explainer.sample.percentile(position, values)]
        return {"values": [float(f"{x:.5g}") for x in values], "percentiles": share}

    def page(self, asked: Asked) -> str:
        """The whole explanation as a page that opens offline.

        Raises:
            InputError: something does not fit.
        """
        return page_text(self.opened, [self.explain(asked, whole=True)], 1, "explore")

    def _explained(self, protein: Protein, label: str | None, whole: bool) -> dict[str, Any]:
        if whole:
            one: Explanation = next(self.explainer.asking(label)([protein]))
        else:
            one = self.explainer.asking(label, replace(self.settings, copies=0, draws=0)).look(protein)
        tracks = [[float(f"{x:.3g}") for x in row] for row in np.asarray(one.tracks)]
        return with_trust({**json.loads(one.to_json()), "tracks": tracks, "sequence": protein.sequence})

    def _protein(self, asked: Asked) -> Protein:
        """The protein with its mutations."""
        protein = asked.protein
        for mutation in asked.mutations:
            protein = replace(protein, sequence=mutated(protein, mutation))
        check_readable(self.model, protein)
        if asked.label is not None:
            number_of(self.model, asked.label)
        return protein

    def _sets(self) -> dict[str, int]:
        """Names of the sets of a run and how many neurons each has: the best of every class."""
        sizes = {label: self.explainer.neurons_for(label) for label in self.model.labels}
        return {f"class {label}": len(found) for label, found in sizes.items() if found is not None}

    def _positions(self, part: Part) -> np.ndarray:
        """The neurons of a change."""
        if part.named:
            label = part.named.removeprefix("class ")
            found = self.explainer.neurons_for(label) if part.named in self._sets() else None
            if found is None:
                raise InputError(f"no set {shown(part.named)} in this run")
            return np.flatnonzero(found.mask)
        return np.array([self.model.index.position(neuron) for neuron in part.neurons], dtype=np.int64)

    def _decision(self, odds: np.ndarray) -> dict[str, Any]:
        probability = expit(odds)
        decided = odds > 0 if self.model.task == "multi" else np.arange(len(odds)) == odds.argmax()
        labels = self.model.labels
        return {
            "decided": ";".join(name for name, yes in zip(labels, decided, strict=True) if yes),
            "probabilities": {name: float(p) for name, p in zip(labels, probability, strict=True)},
            "log_odds": {name: float(x) for name, x in zip(labels, odds, strict=True)},
        }

    def _once(self, key: Any, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """What was answered before, or is made now."""
        if key not in self._kept:
            self._kept[key] = make()
        self._kept.move_to_end(key)
        while len(self._kept) > KEPT:
            self._kept.popitem(last=False)
        return self._kept[key]
