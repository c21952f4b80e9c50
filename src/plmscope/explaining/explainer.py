"""Everything about one decision: what is asked of residues, neurons, training proteins and cards, put together.

::

    ps.explain(run, "MKT...")                    an Explanation, which prints itself and shows itself in a notebook
    ps.explain(run, proteins, label="3")         a list of them, for a class of your choice

A model without its run has no training proteins and no cards: these columns stay empty. Its ablation means are those
it carries, else neurons are compared with zero.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from copy import copy
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, overload

import numpy as np
import pandas as pd

from plmscope.data.annotations import FeatureSet, read_features
from plmscope.data.proteins import Protein
from plmscope.data.structural import accessibility, contact_number, distance_to, secondary_structure, site_of
from plmscope.data.structures import Matched, match_structure
from plmscope.errors import InputError, RunError, SelectionError
from plmscope.evaluation.selection import Selection
from plmscope.explaining.activations import as_protein, at_residues
from plmscope.explaining.contributions import Contributions, contributions
from plmscope.explaining.decision import Decision, number_of
from plmscope.explaining.detected import DetectedCards
from plmscope.explaining.explanation import Explanation
from plmscope.explaining.held import HeldEffect, held_alone, held_together
from plmscope.explaining.residues import COPIES, Band, residue_attribution, shuffled_band
from plmscope.explaining.training import Distances, Nearest, Sample, sample_of
from plmscope.models.classifier import Classifier
from plmscope.models.hooked import network_of
from plmscope.progress import Track, silent
from plmscope.report.input import Results
from plmscope.study.opened import OpenRun, best_of_class, open_run

#: Places of a neuron that the table lists.
PLACES = 10


@dataclass(frozen=True)
class ExplainSettings:
    """How much is computed.

    Attributes:
        copies: Shuffled copies of the band; 0: no band, no residue is outside of it.
        band_points: Quadrature points of each; 0: as many as an error of 15 % takes.
        neuron_points: Quadrature points of a site in the first layer, half as many above.
        supporting, opposing: Neurons listed of either sign.
        draws: Matched draws; 0: none.
        seed: Of shuffles and draws.
    """

    copies: int = COPIES
    band_points: int = 0
    neuron_points: int = 4
    supporting: int = 15
    opposing: int = 5
    draws: int = 20
    seed: int = 0


class Explainer:
    """A run or a model, ready to explain proteins.

    Args:
        model_or_run: A classifier, an open run, or a run folder.
        label: The class to explain; ``None``: what the model says of each protein.
        neurons: A set to hold together and to attribute residues through; ``None``: the best of the explained class by
            the run's own scores, as many as its report calls knowledge neurons if they beat chance.
        features: Residue features to show beside the attribution, or their file.
        settings: How much is computed.
        structure: PDB or mmCIF file of the protein, which is then the only one that is explained.
        track: Progress of what is made once.

    Raises:
        InputError: the class is unknown, or the features cannot be read.
        SelectionError: the neurons belong to a model of another shape.
        RunError: the run has not been scored.
    """

    def __init__(
        self,
        model_or_run: Classifier | OpenRun | str | Path,
        *,
        label: str | int | None = None,
        neurons: Selection | None = None,
        features: str | Path | FeatureSet | None = None,
        settings: ExplainSettings | None = None,
        structure: str | Path | None = None,
        track: Track = silent,
    ) -> None:
        opened = open_run(model_or_run) if isinstance(model_or_run, str | Path) else model_or_run
        self.opened = opened if isinstance(opened, OpenRun) else None
        self.model: Classifier = opened.model if isinstance(opened, OpenRun) else opened
        self.label, self._neurons, self._features, self._structure = label, neurons, features, structure
        self.settings, self.track = settings or ExplainSettings(), track
        self.network = network_of(self.model)
        if label is not None:
            self._number_of(label)
        if neurons is not None and neurons.index != self.model.index:
            raise SelectionError(f"{neurons.name!r} belongs to a model of another shape ({neurons.index!r})")
        if self.opened is not None and self.model.ablation_means is None:
            path = self.opened.run.path
            raise RunError(f"{path}: no ablation means; run 'plmscope score {path}' first")
        self._class_neurons: dict[str, Selection | None] = {}

    def __call__(self, proteins: Sequence[Protein]) -> Iterator[Explanation]:
        """Explain proteins, one after the other; their nearest training proteins are searched together.

        Raises:
            InputError: a protein is too long for the model, or a residue has no token.
        """
        for protein in proteins:
            check_readable(self.model, protein)
        if self._structure is not None and len(proteins) != 1:
            raise InputError(f"{self._structure}: a structure is of one protein; {len(proteins):,} are given")
        matched = None if self._structure is None else match_structure(self._structure, proteins[0])
        features = self._features
        if isinstance(features, str | Path):
            features = read_features(features, proteins)
        distances = self._distances if proteins else None
        if distances is not None:
            _ = distances.right  # by the model, which two threads must not ask at once: others record what it does
        # MMseqs2 is a process of its own: it searches while the first protein is explained.
        with ThreadPoolExecutor(1) as pool:
            searched = None if distances is None else pool.submit(distances.of, proteins)
            for number, protein in enumerate(proteins):
                one = self._explain(protein, features, matched)
                near = None if searched is None else searched.result()[number]
                yield replace(one, summary={**one.summary, **_nearest(near)})

    def look(self, protein: Protein) -> Explanation:
        """One protein without its nearest training protein: no process is started.

        Raises:
            InputError: as for a call.
        """
        check_readable(self.model, protein)
        return self._explain(protein, None, None)

    @property
    def how(self) -> dict[str, Any]:
        """Keywords that make the same explainer elsewhere, but for the structure of a single protein."""
        return {
            "label": self.label, "neurons": self._neurons, "features": self._features, "settings": self.settings
        }  # fmt: skip

    @cached_property
    def sample(self) -> Sample | None:
        """How active every neuron is in training proteins, which the activations of a protein are compared with."""
        return None if self.opened is None else sample_of(self.opened, self.track)

    @cached_property
    def cards(self) -> DetectedCards | None:
        """What the chosen neurons of the run detect."""
        return None if self.opened is None or self.sample is None else DetectedCards(self.opened, self.sample)

    @cached_property
    def _distances(self) -> Distances | None:
        return None if self.opened is None else Distances(self.opened, self.track)

    def asking(self, label: str | int | None, settings: ExplainSettings | None = None) -> Explainer:
        """The same explainer with another class or other settings; what is made once is shared.

        Raises:
            InputError: the class is unknown.
        """
        if label is not None:
            self._number_of(label)
        other = copy(self)
        other.label, other.settings = label, settings or self.settings
        return other

    def _number_of(self, label: str | int) -> int:
        """The number of a class; the refusal of another names those that there are as the report does."""
        named = [] if self.opened is None else [Results(self.opened.run).class_name(name) for name in self.model.labels]
        return number_of(self.model, label, named)

    def prepare(self) -> None:
        """Make now what all proteins need, so that the first protein takes no longer than the others."""
        _ = self.sample, self.cards
        if self._distances is not None:
            _ = self._distances.right

    def neurons_for(self, label: str) -> Selection | None:
        """The set that is held together: the given one, or the best neurons of a class; ``None``: no scores."""
        if self._neurons is not None or self.opened is None:
            return self._neurons
        if label not in self._class_neurons:
            self._class_neurons[label] = class_neurons(self.opened, label)
        return self._class_neurons[label]

    def _explain(self, protein: Protein, features: FeatureSet | None, matched: Matched | None) -> Explanation:
        """One protein, but for its nearest training protein."""
        s, constants = self.settings, self.model.ablation_means
        decision = Decision.of(self.model, self.network, protein, self.label)
        chosen = self.neurons_for(decision.name)
        mask = None if chosen is None or not len(chosen) else chosen.mask
        attributed = residue_attribution(decision, mask)
        band = Band.none(len(protein))
        if s.copies:
            band = shuffled_band(decision, attributed, copies=s.copies, points=s.band_points, seed=s.seed)
        given = contributions(
            decision, constants, points=s.neuron_points, top=max(s.supporting, s.opposing)
        )  # fmt: skip
        listed = given.strongest(s.supporting, s.opposing)
        supporting = np.zeros(len(self.model.index), bool)
        supporting[[n for n in listed if given.values[n] > 0]] = True
        effects = held_alone(decision, listed, constants)
        held, of_chosen = (
            held_together(decision, one, constants, draws=s.draws, seed=s.seed)
            if one is not None and one.any()
            else None
            for one in (supporting, mask)
        )
        cards = self.cards
        of_cards = np.zeros(0, np.int64) if cards is None else cards.positions
        set_positions = np.zeros(0, np.int64) if mask is None else np.flatnonzero(mask)
        every = np.concatenate([np.array(listed, np.int64), of_cards, set_positions])
        values = at_residues(self.model, protein, every)  # (R, K + cards + set)
        k = len(listed)
        residues = pd.DataFrame(
            {
                "id": protein.id, "position": np.arange(1, len(protein) + 1), "residue": list(protein.sequence),
                "attribution": attributed.values, "null_low": band.low, "null_high": band.high,
                "outside": band.outside(attributed.values),
                "through": np.nan if attributed.through is None else attributed.through,
            }
        )  # fmt: skip
        detected = pd.DataFrame({"n_firing": 0, "concepts": "", "motifs": ""}, index=residues.index)
        if cards is not None and len(of_cards):
            detected = cards.detected(protein, values[:, k : k + len(of_cards)])
        residues = pd.concat([residues, detected], axis=1).assign(
            features=_features(protein, features), **_structural(protein, features, matched)
        )
        neurons, tracks = self._neuron_table(decision, given, listed, effects, values[:, :k], mask)
        kn = math.nan
        if self.sample is not None and mask is not None:
            means = np.zeros(len(mask))
            means[set_positions] = values[:, k + len(of_cards) :].mean(0)
            kn = float(self.sample.kn_scores(means, mask)[decision.label])
        summary = {
            "id": protein.id, "length": len(protein), "explained": decision.name,
            "decided": ";".join(decision.decided), "probability": float(decision.probabilities[decision.label]),
            "probabilities": json.dumps(
                {n: round(float(p), 6) for n, p in zip(self.model.labels, decision.probabilities, strict=True)}
            ),
            "log_odds": decision.value, "start_log_odds": attributed.start,
            "attribution": float(attributed.values.sum()), "gap": attributed.gap, "points": attributed.points,
            "null_copies": band.copies, "null_gap": band.gap, "null_points": band.points,
            "null_error": band.error, "residues_outside": int(residues["outside"].sum()), "outside_p": band.p_value,
            **_nearest(None), "neurons_gap": given.gap, **_held("held", held),
            "chosen": "" if chosen is None else chosen.name, **_held("chosen", of_chosen), "kn_score": kn,
        }  # fmt: skip
        return Explanation(summary, residues, neurons, tracks, matched)

    def _neuron_table(
        self,
        decision: Decision,
        found: Contributions,
        listed: Sequence[int],
        effects: np.ndarray,
        values: np.ndarray,
        mask: np.ndarray | None,
    ) -> tuple[pd.DataFrame, np.ndarray]:
        """``explained_neurons``, and the contribution of each at every residue."""
        protein, index, rows = decision.protein, self.model.index, []
        tracks = np.zeros((len(listed), len(protein)))
        first = _first_token(decision, listed)
        for row, position in enumerate(listed):
            own = found.places[position]  # (T,), or one token in the last layer
            tracks[row, : max(0, len(own) - 2)] = own[1:-1]
            order = np.argsort(-np.abs(own), kind="stable")[:PLACES]
            token = int(order[0])
            at_residue = 0 < token <= len(protein)
            neuron, percentile, activation = index.neuron(position), math.nan, math.nan
            if at_residue or token == 0:
                activation = float(values[token - 1, row] if at_residue else first[row])
            if self.sample is not None and math.isfinite(activation):
                percentile = float(self.sample.percentile(position, activation, first_token=not at_residue))
            card = None if self.cards is None else self.cards.row(position)
            value = float(found.values[position])
            rows.append(
                {
                    "id": protein.id, "rank": row + 1, "layer": neuron.site.layer, "module": neuron.site.module,
                    "neuron": neuron.index, "contribution": value, "effect": float(effects[row]), "position": token,
                    "residue": protein.sequence[token - 1] if at_residue else "", "activation": activation,
                    "percentile": percentile,
                    "places": json.dumps([[int(t), round(float(own[t]), 6)] for t in order]),
                    "chosen": bool(mask is not None and mask[position]),
                    "sentence": "" if card is None else card["sentence"],
                    "concept": "" if card is None else card["concept"], "motif": "" if card is None else card["motif"],
                }
            )  # fmt: skip
        frame = pd.DataFrame(rows)
        if rows:  # those against the class count down from -1
            against = frame["contribution"] < 0
            frame.loc[against, "rank"] = -np.arange(1, int(against.sum()) + 1)
        return frame, tracks


def check_readable(model: Classifier, protein: Protein) -> None:
    """Refuse what the model cannot read.

    Raises:
        InputError: the protein is empty or too long, or a residue has no token.
    """
    if len(protein) > model.max_residues:
        raise InputError(
            f"protein {protein.id!r} has {len(protein):,} residues, the model takes {model.max_residues:,}; give a "
            "part of it"
        )
    if not len(protein):
        raise InputError(f"protein {protein.id!r} has an empty sequence; give its residues")
    model.encode(protein.sequence)


def _first_token(decision: Decision, listed: Sequence[int]) -> np.ndarray:
    """Activations ``(K,)`` of neurons at the first token."""
    import torch

    from plmscope.models.hooks import record

    index = decision.classifier.index
    neurons = [index.neuron(n) for n in listed]
    with torch.inference_mode(), record(decision.classifier, {n.site for n in neurons}) as seen:
        batch = decision.batch
        decision.classifier.model(input_ids=batch.input_ids, attention_mask=batch.attention_mask)
        return np.array([float(seen[n.site][0, 0, n.index]) for n in neurons])


def _nearest(near: Nearest | None) -> Mapping[str, Any]:
    """The columns about the nearest training protein."""
    if near is None:
        near = Nearest("", math.nan, "", "", math.nan, math.nan, math.nan, 0)
    return {
        "nearest_train": near.id, "identity": near.identity, "nearest_label": near.label, "distance": near.distance,
        "accuracy": near.accuracy, "accuracy_low": near.low, "accuracy_high": near.high, "n_test": near.n_test,
        "in_training": near.in_training, "longest_train": near.longest_train,
    }  # fmt: skip


def _held(name: str, held: HeldEffect | None) -> Mapping[str, Any]:
    """The columns about a set that was held."""
    if held is None:
        held = HeldEffect(0, math.nan, np.array([math.nan]), math.nan, "")
    return {
        f"{name}_n": held.n, f"{name}_effect": held.effect,
        f"{name}_draws": float(held.draws.mean()) if len(held.draws) else math.nan,
        f"{name}_p": held.p_value, f"{name}_decided": held.decided,
    }  # fmt: skip


def _features(protein: Protein, features: FeatureSet | None) -> list[str]:
    """Names of the annotated features of every residue, joined by ``;``."""
    names: list[list[str]] = [[] for _ in range(len(protein))]
    if features is not None:
        own = features.table[features.table["id"] == protein.id]
        for kind, start, end in own[["feature_type", "start", "end"]].itertuples(index=False, name=None):
            for residue in range(start, end):
                if kind not in names[residue]:
                    names[residue].append(str(kind))
    return ["; ".join(one) for one in names]


def _structural(protein: Protein, features: FeatureSet | None, matched: Matched | None) -> Mapping[str, Any]:
    """What the structure says of every residue; ``site_distance`` from residues that are annotated as a site."""
    if matched is None:
        return {"secondary": "", "accessibility": math.nan, "contacts": math.nan, "site_distance": math.nan}
    return {
        "secondary": list(secondary_structure(matched)), "accessibility": accessibility(matched),
        "contacts": contact_number(matched), "site_distance": distance_to(matched, site_of(protein, features)),
    }  # fmt: skip


def class_neurons(opened: OpenRun, label: str) -> Selection | None:
    """The best neurons of a class by the scores of a run; ``None`` if it has none of classes."""
    try:
        return best_of_class(opened, label) if opened.run.has("class_scores") else None
    except RunError:  # no method with scores of this class
        return None


@overload
def explain(
    model_or_run: Classifier | OpenRun | str | Path, protein: Protein | str, *, label: str | int | None = None,
    neurons: Selection | None = None, features: str | Path | None = None, settings: ExplainSettings | None = None,
    structure: str | Path | None = None,
) -> Explanation: ...  # fmt: skip
@overload
def explain(
    model_or_run: Classifier | OpenRun | str | Path, protein: Sequence[Protein], *, label: str | int | None = None,
    neurons: Selection | None = None, features: str | Path | None = None, settings: ExplainSettings | None = None,
    structure: str | Path | None = None,
) -> list[Explanation]: ...  # fmt: skip


def explain(
    model_or_run: Classifier | OpenRun | str | Path,
    protein: Protein | str | Sequence[Protein],
    *,
    label: str | int | None = None,
    neurons: Selection | None = None,
    features: str | Path | None = None,
    settings: ExplainSettings | None = None,
    structure: str | Path | None = None,
) -> Explanation | list[Explanation]:
    """Explain what a model says about one protein, or about each of several.

    Args:
        model_or_run: A run (open, or its folder) with its training proteins and cards, or a classifier alone.
        protein: A protein, a sequence, or several proteins; no label is needed.
        label: The class to explain; ``None``: what the model says.
        neurons: A set to hold together and to attribute residues through; ``None``: the class's best by the run.
        features: A file of residue features to show beside the attribution.
        settings: How much is computed.
        structure: PDB or mmCIF file of a single protein.

    Returns:
        An :class:`~plmscope.explaining.explanation.Explanation`, or a list of them.

    Raises:
        InputError: a protein is too long or empty, a residue has no token, or the class is unknown.
        SelectionError: the neurons belong to a model of another shape.
        RunError: the run has not been scored.
    """
    explainer = Explainer(
        model_or_run, label=label, neurons=neurons, features=features, settings=settings, structure=structure
    )
    if isinstance(protein, str | Protein):
        return next(explainer([as_protein(protein)]))
    return list(explainer(protein))
