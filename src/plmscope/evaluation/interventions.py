"""Suppress or enhance chosen neurons and see what becomes of the classes, decisions included.

The activation a of every chosen neuron is replaced, at all tokens, by::

    factor * a        0 suppresses to zero, 1 changes nothing, 2 doubles
    its mean          factor None: the ablation constants, the gentler way to suppress

Measured on held-out proteins of each class d, before and after: the probability of d, its log-odds, and **decisions**.
Dai et al. (2022) showed that probabilities move; Niu et al. (2024) object that decisions rarely do, so both are told.
Every effect is compared with random draws of as many neurons from the same sites. Effects of each class's neurons on
every class are a matrix; those of several factors a dose curve.

Suppressing folds the neurons into the network as the evaluation does; scaling multiplies a module's output (its input,
where the neurons are those of the feed-forward layer). Both are exact: tests hold them against hooks.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from scipy.special import expit

from plmscope.data.labels import LabelTask, rarest
from plmscope.data.proteins import Protein
from plmscope.errors import SelectionError
from plmscope.evaluation.curves import BOOTSTRAPS
from plmscope.evaluation.selection import Selection, draw, strata
from plmscope.models.classifier import Classifier
from plmscope.models.hooked import network_of
from plmscope.models.network import Logits, scaled_logits
from plmscope.models.sites import NeuronIndex
from plmscope.models.workers import in_order
from plmscope.stats.chance import benjamini_hochberg, bootstrap_weights, compare_with_draws, percentile_interval

CONTROL = "random_matched"
#: The effect on all classes but the one whose neurons were changed, each class weighing the same.
OTHERS = ""


class Change(NamedTuple):
    """One intervention.

    Attributes:
        selection: The neurons.
        factor: What multiplies their activations, 0 or more; ``None`` holds them at their means.
    """

    selection: Selection
    factor: float | None


def nothing(index: NeuronIndex) -> Change:
    """The change that leaves the model as it is."""
    return Change(Selection(index, np.zeros(len(index), dtype=bool), "nothing"), 0.0)


def mode_of(factor: float | None) -> str:
    """``suppress`` or ``enhance``."""
    return "enhance" if factor is not None and factor > 1 else "suppress"


def outcomes(
    classifier: Classifier,
    proteins: Sequence[Protein],
    changes: Iterable[Change],
    constants: np.ndarray | None,
    token_budget: int = 2048,
) -> Iterator[np.ndarray]:
    """Natural log-odds of every class, ``(P, C)``, under every change, in order.

    Log-odds are z_c - logsumexp of the other logits, or in a multi-label task the logit itself; the probability of a
    class is their logistic function in both.

    Args:
        classifier: The model; it is not changed.
        proteins: ``P`` proteins.
        changes: What to do.
        constants: ``(3, N)`` means, needed where a factor is ``None``.
        token_budget: Padded tokens a batch.
    """
    network, index = network_of(classifier), classifier.index
    slices = {site: index.slice(site) for site in index.sites}
    batches = classifier.batches(proteins, token_budget)
    held, zeros = network.held_logits(batches, slices), np.zeros((3, len(index)))

    @torch.inference_mode()
    def one(change: Change) -> np.ndarray:
        if change.factor is None or change.factor == 0:
            values = constants if change.factor is None else zeros
            if values is None:
                raise SelectionError("means are needed to hold neurons at their means; name a factor instead")
            changed: Logits = held(~change.selection.mask, values)
        else:
            changed = scaled_logits(network, batches, slices, change.selection.mask, change.factor)
        out = np.zeros((len(proteins), len(classifier.labels)))
        for rows, logits in changed:
            out[rows] = class_log_odds(logits.double().cpu().numpy(), classifier.task)
        return out

    return in_order(one, changes, classifier.device)


def class_log_odds(logits: np.ndarray, task: LabelTask) -> np.ndarray:
    """Natural log-odds of every class from logits, both ``(P, C)``, without loss near 0 and 1."""
    if task == "multi":
        return logits
    rest = [np.logaddexp.reduce(np.delete(logits, c, axis=1), axis=1) for c in range(logits.shape[1])]
    odds: np.ndarray = logits - np.stack(rest, axis=1)
    return odds


def decisions(odds: np.ndarray, task: LabelTask) -> np.ndarray:
    """What is decided, ``(P, C)`` booleans: the likeliest class, or in a multi-label task every likely one."""
    if task == "multi":
        return odds > 0
    decided: np.ndarray = odds.argmax(1)[:, None] == np.arange(odds.shape[1])
    return decided


class Effect(NamedTuple):
    """What an intervention did to the proteins of one class.

    Attributes:
        n_proteins: How many there are.
        probability: Mean probability of their class before.
        probability_change: Mean of after minus before, -1 to 1.
        log_odds_change: The same of the natural log-odds of their class.
        label_probability_change: The same of the probability of the class whose neurons were changed.
        decisions_right: Proteins that were given their class before.
        decisions_changed: Proteins that are given other classes than before.
        decisions_lost: Proteins that were given their class before and are not after.
        decisions_gained: Proteins that were not and are.
    """

    n_proteins: int
    probability: float
    probability_change: float
    log_odds_change: float
    label_probability_change: float
    decisions_right: int
    decisions_changed: int
    decisions_lost: int
    decisions_gained: int


def effects(
    before: np.ndarray, after: np.ndarray, members: np.ndarray, label: int | None, task: LabelTask = "single"
) -> dict[int, Effect]:
    """The effect on every class that has proteins.

    Args:
        before: ``(P, C)`` natural log-odds in the intact model.
        after: The same under the intervention.
        members: ``(P, C)`` true where a protein is of a class.
        label: The class whose neurons were changed, for ``label_probability_change``; ``None``: NaN there.
        task: ``single`` or ``multi``.

    >>> before, after = np.array([[2.0, -2.0], [-1.0, 1.0]]), np.array([[-0.5, 0.5], [-1.0, 1.0]])
    >>> found = effects(before, after, np.eye(2, dtype=bool), 0)
    >>> round(found[0].probability_change, 3), found[0].decisions_lost, found[1].probability_change
    (-0.503, 1, 0.0)
    """
    was, is_now = decisions(before, task), decisions(after, task)
    change, moved = expit(after) - expit(before), (was != is_now).any(1)
    effect_on = {}
    for d in np.flatnonzero(members.any(0)).tolist():
        own = members[:, d]
        aside = math.nan if label is None else float(change[own, label].mean())
        effect_on[d] = Effect(
            int(own.sum()), float(expit(before[own, d]).mean()), float(change[own, d].mean()),
            float((after[own, d] - before[own, d]).mean()), aside, int(was[own, d].sum()), int(moved[own].sum()),
            int((was & ~is_now)[own, d].sum()), int((is_now & ~was)[own, d].sum()),
        )  # fmt: skip
    return effect_on


@dataclass(frozen=True)
class Trial:
    """One change of a study: a class's neurons or a draw, under one factor.

    Attributes:
        method: Scores that chose the neurons.
        label: The class they were chosen for.
        control: Empty for the chosen neurons, :data:`CONTROL` for a draw.
        draw: -1, or the number of the draw.
        fraction: Share of all neurons.
        change: What is done.
    """

    method: str
    label: str
    control: str
    draw: int
    fraction: float
    change: Change

    @property
    def key(self) -> tuple[str, str, float | None, float]:
        """What a trial has in common with its draws."""
        return self.method, self.label, self.change.factor, self.fraction


def plan(
    selections: Mapping[tuple[str, str], Selection],
    fraction: float,
    draws: Mapping[float | None, int],
    seed: int,
) -> list[Trial]:
    """Every trial: each class's neurons under each factor, then as many matched draws as asked for that factor.

    Args:
        selections: (method, class) to the chosen neurons.
        fraction: Share of all neurons that they are.
        draws: Factor to number of draws.
        seed: Seeds the draws; a draw is the same neurons under every factor.
    """
    trials = []
    for place, ((method, label), chosen) in enumerate(selections.items()):
        groups = strata(CONTROL, chosen.index)
        drawn = [
            draw(chosen.index, groups, [chosen], (seed, 7, place, r), f"{CONTROL} draw {r}")[0]
            for r in range(max(draws.values(), default=0))
        ]
        for factor, n in draws.items():
            trials.append(Trial(method, label, "", -1, fraction, Change(chosen, factor)))
            trials += [
                Trial(method, label, CONTROL, r, fraction, Change(one, factor)) for r, one in enumerate(drawn[:n])
            ]
    return trials


def intervention_table(
    trials: Sequence[Trial],
    before: np.ndarray,
    after: Sequence[np.ndarray],
    members: np.ndarray,
    labels: Sequence[str],
    task: LabelTask = "single",
) -> pd.DataFrame:
    """``interventions.parquet``: every trial's effect on every class, draws included."""
    rows = []
    for trial, odds in zip(trials, after, strict=True):
        change = trial.change
        for d, effect in effects(before, odds, members, labels.index(trial.label), task).items():
            rows.append(
                {
                    "method": trial.method, "label": trial.label, "effect_on": labels[d],
                    "mode": mode_of(change.factor), "factor": math.nan if change.factor is None else change.factor,
                    "fraction": trial.fraction, "n_neurons": len(change.selection), "control": trial.control,
                    "draw": trial.draw, **effect._asdict(),
                }
            )  # fmt: skip
    return pd.DataFrame(rows)


def effect_table(
    trials: Sequence[Trial],
    before: np.ndarray,
    after: Sequence[np.ndarray],
    members: np.ndarray,
    labels: Sequence[str],
    clusters: Sequence[str],
    seed: int,
    task: LabelTask = "single",
) -> pd.DataFrame:
    """``intervention_effects.parquet``: the change in each class's probability beside that of its matched draws.

    ``difference`` is the change minus the mean change of the draws. Its interval comes from 2,000 resamples of test
    clusters, stratified by class, and of the draws. The p value is one-sided: suppressing is expected to lower the
    probability and enhancing to raise it by more than a draw does. ``effect_on`` empty is the mean over all classes but
    the one whose neurons were changed. Without draws there is no p value and no interval.
    """
    weights = bootstrap_weights(list(clusters), rarest(members), BOOTSTRAPS, np.random.default_rng([seed, 8]))
    p, was = expit(before), decisions(before, task)
    present = np.flatnonzero(members.any(0)).tolist()
    groups: dict[tuple[str, str, float | None, float], list[int]] = {}
    for place, trial in enumerate(trials):
        groups.setdefault(trial.key, []).append(place)
    rows = []
    for places in groups.values():
        first = trials[places[0]]
        factor, label = first.change.factor, labels.index(first.label)
        changes = np.stack([expit(after[place]) - p for place in places])  # (1 + R, P, C)
        lost = np.stack([was & ~decisions(after[place], task) & members for place in places]).sum(1)  # (1 + R, C)
        for d in [*present, -1]:
            inside = [d] if d >= 0 else [c for c in present if c != label]
            if not inside:
                continue
            means = np.mean([changes[:, members[:, c], c].mean(1) for c in inside], axis=0)  # (1 + R,)
            own, drawn = float(means[0]), means[1:]
            row = {
                "method": first.method, "label": first.label, "effect_on": labels[d] if d >= 0 else OTHERS,
                "mode": mode_of(factor), "factor": math.nan if factor is None else factor, "fraction": first.fraction,
                "n_proteins": int(members[:, inside].any(1).sum()), "probability_change": own, "against": math.nan,
                "difference": math.nan, "ci_low": math.nan, "ci_high": math.nan, "p_value": math.nan, "p_kind": "none",
                "n_draws": len(drawn), "draws_beaten": 0, "decisions_right": int((was & members)[:, inside].sum()),
                "decisions_lost": int(lost[0, inside].sum()), "decisions_lost_against": math.nan,
            }  # fmt: skip
            if len(drawn):
                test = compare_with_draws(own, drawn, 1 if mode_of(factor) == "enhance" else -1)
                interval = _interval(changes, members, inside, weights, np.random.default_rng([seed, 9]))
                row |= {
                    "against": float(drawn.mean()), "difference": own - float(drawn.mean()), "ci_low": interval[0],
                    "ci_high": interval[1], "p_value": test.p_value, "p_kind": test.p_kind,
                    "draws_beaten": test.draws_beaten,
                    "decisions_lost_against": float(lost[1:, inside].sum(1).mean()),
                }  # fmt: skip
            rows.append(row)
    frame = pd.DataFrame(rows)
    tested = frame["p_value"].where(frame["p_kind"] == "permutation")  # others cannot be below 0.05
    return frame.assign(q_value=benjamini_hochberg(tested.to_numpy(dtype=np.float64)))


def _interval(
    changes: np.ndarray, members: np.ndarray, inside: Sequence[int], weights: np.ndarray, rng: np.random.Generator
) -> tuple[float, float]:
    """95 % interval of the first row's mean change minus that of the other rows, under resampled clusters and rows."""
    means, seen = np.zeros((len(weights), len(changes))), np.zeros(len(weights), dtype=np.int64)
    for c in inside:
        own = members[:, c]
        share = weights[:, own].astype(np.float64)  # (B, proteins of the class)
        total = share.sum(1)  # 0 where no cluster of the class was drawn
        means += share @ changes[:, own, c].T / np.maximum(total, 1)[:, None]
        seen += total > 0
    means = means[seen > 0] / seen[seen > 0, None]
    n_draws = len(changes) - 1
    picked = rng.multinomial(n_draws, np.full(n_draws, 1 / n_draws), size=len(means)) / n_draws
    low, high = percentile_interval(means[:, 0] - (means[:, 1:] * picked).sum(1))
    return low, high


def neuron_effects(
    before: np.ndarray,
    after: Iterable[np.ndarray],
    members: np.ndarray,
    labels: Sequence[str],
    neurons: pd.DataFrame,
    task: LabelTask = "single",
) -> pd.DataFrame:
    """``neuron_effects.parquet``: what suppressing one neuron alone does to every class.

    Args:
        before: ``(P, C)`` natural log-odds in the intact model.
        after: The same with one neuron held at its mean, in the order of ``neurons``.
        members: ``(P, C)`` true where a protein is of a class.
        labels: Class names.
        neurons: ``layer, module, neuron``.
        task: ``single`` or ``multi``.
    """
    rows = []
    for where, odds in zip(neurons.to_dict("records"), after, strict=True):
        for d, effect in effects(before, odds, members, None, task).items():
            rows.append(dict(where) | {"effect_on": labels[d]} | effect._asdict())
    columns = [*neurons.columns, "effect_on", *Effect._fields]
    return pd.DataFrame(rows, columns=columns).drop(columns=["label_probability_change", "probability"])
