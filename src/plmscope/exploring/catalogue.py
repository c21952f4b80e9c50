"""The neurons of a run, to be searched by module, layer, class, concept and motif.

What is known of a neuron comes from the run's tables: its card (sentence, motif), the concepts that were confirmed for
it, and its score for each class. A run without one of these stages has fewer ways to search. Nothing is computed anew.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from plmscope.errors import InputError, RunError, shown
from plmscope.explaining.explanation import records
from plmscope.exploring.requests import Search
from plmscope.models.architectures import MODULES
from plmscope.models.sites import NeuronIndex
from plmscope.study.opened import OpenRun, class_methods, class_scores

#: Neurons of an answer; the others are counted.
SHOWN = 50
_KEYS = ["layer", "module", "neuron"]


class Catalogue:
    """What a run knows of its neurons.

    Args:
        opened: The run.
    """

    def __init__(self, opened: OpenRun) -> None:
        self.opened = opened
        self.index: NeuronIndex = opened.model.index

    @cached_property
    def _cards(self) -> pd.DataFrame:
        """One row a neuron with a card: ``position, sentence, motif``, the best rank first."""
        if not self.opened.run.has("neuron_cards"):
            return pd.DataFrame({"position": np.zeros(0, np.int64), "sentence": [], "motif": []})
        cards = self.opened.run.table("neuron_cards").sort_values("rank", kind="stable").drop_duplicates(_KEYS)
        motif = cards["motif"].astype(str).tolist()
        sentence = cards["sentence"].astype(str).tolist()
        return pd.DataFrame({"position": self._positions(cards), "sentence": sentence, "motif": motif})

    @cached_property
    def _found(self) -> pd.DataFrame:
        """Confirmed concepts of neurons: ``position, concept, auroc``, the best first."""
        if not self.opened.run.has("associations"):
            return pd.DataFrame({"position": np.zeros(0, np.int64), "concept": [], "auroc": []})
        rows = self.opened.run.table("associations")
        rows = rows[rows["confirmed"].astype(bool)]
        found = pd.DataFrame(
            {"position": self._positions(rows), "concept": rows["concept"].tolist(), "auroc": rows["auroc"].tolist()}
        )
        return found.sort_values("auroc", ascending=False, kind="stable").reset_index(drop=True)

    @cached_property
    def _scores(self) -> tuple[str, Mapping[str, np.ndarray]]:
        """The method of class scores, and ``(N,)`` of each class; empty where there are none."""
        if not self.opened.run.has("class_scores"):
            return "", {}
        try:
            method = class_methods(self.opened)[0]
            return method, {label: one.values for label, one in class_scores(self.opened, method).items()}
        except RunError:
            return "", {}

    def choices(self) -> dict[str, Any]:
        """What can be searched for: ``modules, layers, labels, concepts, method``."""
        layers = 1 + max(site.layer for site in self.index.sites)
        concepts = sorted(set(self._found["concept"]))
        method, scores = self._scores
        return {
            "modules": list(MODULES), "layers": layers, "labels": list(scores), "concepts": concepts, "method": method,
        }  # fmt: skip

    def search(self, asked: Search) -> dict[str, Any]:
        """Neurons that fit: ``total``, and ``rows`` of at most 50.

        Those of a class come in the order of its scores, those of a concept in that of how well they tell it, others in
        the order of their cards and of the model.

        Raises:
            InputError: the class, the concept or the module is not one of the run's.
        """
        known = self.choices()
        for what, value, names in (
            ("module", asked.module, known["modules"]), ("class", asked.label, known["labels"]),
            ("concept", asked.concept, known["concepts"]),
        ):  # fmt: skip
            if value and value not in names:
                raise InputError(f"no {what} {shown(value)} in this run")
        fits = np.ones(len(self.index), bool)
        of_site = self.index.site_of
        if asked.module:
            fits &= np.array([site.module == asked.module for site in self.index.sites])[of_site]
        if asked.layer is not None:
            fits &= np.array([site.layer == asked.layer for site in self.index.sites])[of_site]
        for column, text in (("motif", asked.motif), ("sentence", asked.text)):
            if text:
                has = self._cards[column].str.contains(text, case=False, regex=False).to_numpy(dtype=bool)
                fits &= self._mask(self._cards["position"].to_numpy()[has])
        order = np.concatenate([self._cards["position"].to_numpy(np.int64), np.arange(len(self.index))])
        if asked.concept:
            order = self._found.loc[self._found["concept"] == asked.concept, "position"].to_numpy(np.int64)
        if asked.label:
            ranked = np.argsort(-self._scores[1][asked.label], kind="stable")
            order = ranked[np.isin(ranked, order)]
        order = order[fits[order]]
        order = order[np.sort(np.unique(order, return_index=True)[1])]
        rows = self._rows(order[:SHOWN], asked.label)
        return {"asked": asdict(asked), "total": len(order), "rows": records(rows)}

    def _rows(self, positions: np.ndarray, label: str) -> pd.DataFrame:
        """What is told of some neurons."""
        neurons = [self.index.neuron(int(p)) for p in positions]
        cards = self._cards.set_index("position").reindex(positions)
        concepts = self._found[self._found["position"].isin(positions)].groupby("position", sort=False)["concept"]
        named = concepts.apply(lambda own: "; ".join(list(dict.fromkeys(own))[:3])).reindex(positions)
        score = self._scores[1][label][positions] if label else np.full(len(positions), np.nan)
        return pd.DataFrame(
            {
                "layer": [n.site.layer for n in neurons], "module": [n.site.module for n in neurons],
                "neuron": [n.index for n in neurons], "score": score,
                "concepts": named.fillna("").tolist(), "motif": cards["motif"].fillna("").tolist(),
                "sentence": cards["sentence"].fillna("").tolist(),
            }
        )  # fmt: skip

    def _positions(self, frame: pd.DataFrame) -> np.ndarray:
        """Positions of the neurons of a table, all at once."""
        sites = {(site.layer, site.module): offset for site, offset in self.index.offsets.items()}
        starts = [sites[layer, module] for layer, module in zip(frame["layer"], frame["module"], strict=True)]
        found: np.ndarray = np.array(starts, np.int64) + frame["neuron"].to_numpy(np.int64)
        return found

    def _mask(self, positions: np.ndarray) -> np.ndarray:
        """``(N,)`` true at some positions."""
        found = np.zeros(len(self.index), bool)
        found[positions.astype(np.int64)] = True
        return found
