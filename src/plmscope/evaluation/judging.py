"""One selection judged in one call: kept or ablated, suppressed or enhanced, against random draws that match it.

What a study does for many selections and shares at once (:mod:`~plmscope.evaluation.curves`,
:mod:`~plmscope.evaluation.interventions`), for one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from plmscope.data.proteins import Protein
from plmscope.errors import SelectionError
from plmscope.evaluation.curves import ABLATIONS, MODES
from plmscope.evaluation.interventions import CONTROL, Change, Effect, effects, mode_of, nothing, outcomes
from plmscope.evaluation.predict import Predictions, predict
from plmscope.evaluation.resampled import RESAMPLE, donors, predict_resampled
from plmscope.evaluation.selection import (
    Selection,
    draw,
    strata,
)
from plmscope.models.classifier import Classifier
from plmscope.stats.chance import compare_with_draws
from plmscope.stats.metrics import METRICS, better_sign, metric


@dataclass(frozen=True)
class Evaluation:
    """One selection judged at one share.

    Attributes:
        selection: What was kept or ablated.
        mode: ``keep`` or ``ablate``.
        ablation: ``mean``, ``zero`` or ``resample``.
        n_proteins: Test proteins.
        intact: Metric name to value of the whole model.
        observed: The same with the selection kept or ablated.
        draws: Control to metric name to ``(R,)`` values of its draws.
    """

    selection: Selection
    mode: str
    ablation: str
    n_proteins: int
    intact: dict[str, float]
    observed: dict[str, float]
    draws: dict[str, dict[str, np.ndarray]]

    def p_value(self, control: str = "random_matched", name: str = "balanced_accuracy") -> float:
        """One-sided p of the observed metric against a control's draws."""
        return compare_with_draws(self.observed[name], self.draws[control][name], better_sign(name, self.mode)).p_value

    def __repr__(self) -> str:
        name = "balanced_accuracy"
        lines = [
            f"{self.selection!r}",
            f"{self.mode}, {self.ablation} ablation, {self.n_proteins} proteins: balanced accuracy "
            f"{self.observed[name]:.3f} (intact model {self.intact[name]:.3f})",
        ]
        for control, values in self.draws.items():
            row = values[name]
            lines.append(
                f"  against {control}: {row.mean():.3f} +- {row.std(ddof=1) if len(row) > 1 else 0:.3f} "
                f"({len(row)} draws), p = {self.p_value(control):.3g}"
            )
        return "\n".join(lines)


def evaluate(
    model: Classifier,
    proteins: Sequence[Protein],
    selection: Selection,
    *,
    mode: str = "keep",
    ablation: str = "mean",
    constants: np.ndarray | None = None,
    pool: Sequence[Protein] = (),
    n_random: int = 20,
    seed: int = 0,
    allow_scored: bool = False,
    token_budget: int = 2048,
) -> Evaluation:
    """Keep or ablate one selection and compare with random selections of the same size.

    Args:
        model: The classifier.
        proteins: Labelled proteins that had no part in choosing the selection.
        selection: The neurons.
        mode: ``keep`` holds all other neurons at their constants; ``ablate`` holds these.
        ablation: ``mean``, ``zero`` or ``resample``.
        constants: ``(3, N)`` means for ``mean``; a model opened from a run brings its own.
        pool: Labelled training proteins for ``resample``, whose values held neurons take.
        n_random: Draws per control (``random`` and ``random_matched``), at least 2.
        seed: Seeds the draws.
        allow_scored: Accept proteins that the selection was chosen by.
        token_budget: Padded tokens a batch.

    Raises:
        SelectionError: a setting is impossible, the means or the pool are missing, the selection belongs to a model
            of another shape, or a protein had a part in it.
    """
    if mode not in MODES or ablation not in ABLATIONS or n_random < 2:
        raise SelectionError(f"mode {mode!r}, ablation {ablation!r}, n_random {n_random!r}: not a possible evaluation")
    check_selection(selection, model, proteins, allow_scored)
    if ablation == "mean" and constants is None:
        constants = model.ablation_means
    if ablation == "mean" and constants is None:
        raise SelectionError("mean ablation needs constants: summarise_activations(model, train).constants('mean')")
    values = np.asarray(constants) if ablation == "mean" else np.zeros((3, len(model.index)))
    masks = [np.ones(len(model.index), dtype=bool)]
    controls = ("random", "random_matched")
    chosen = [selection]
    for number, control in enumerate(controls):
        groups = strata(control, selection.index)
        chosen += [draw(selection.index, groups, [selection], (seed, number, r), control)[0] for r in range(n_random)]
    masks += [one.mask if mode == "keep" else ~one.mask for one in chosen]
    if ablation == RESAMPLE:
        given = donors(proteins, pool, seed=seed, task=model.task)
        answers = list(predict_resampled(model, proteins, masks, given, token_budget))
    else:
        answers = list(predict(model, proteins, [(mask, values) for mask in masks], token_budget))
    true = model.targets(proteins)

    def measured(p: Predictions) -> dict[str, float]:
        return {name: metric(name, true, p.predicted, p.log_prob_true, len(model.labels)) for name in METRICS}

    rows = [measured(p) for p in answers]
    draws = {
        control: {
            name: np.array([r[name] for r in rows[2 + i * n_random : 2 + (i + 1) * n_random]]) for name in METRICS
        }
        for i, control in enumerate(controls)
    }
    return Evaluation(selection, mode, ablation, len(proteins), rows[0], rows[1], draws)


def check_selection(
    selection: Selection, model: Classifier, proteins: Sequence[Protein], allow_scored: bool = False
) -> None:
    """Raise :class:`SelectionError` unless the selection can be judged in this model on these proteins."""
    if selection.index != model.index:
        raise SelectionError(f"{selection.name!r} belongs to a model of another shape ({selection.index!r})")
    shared = set(selection.proteins) & {protein.id for protein in proteins}
    if shared and not allow_scored:
        raise SelectionError(
            f"{len(shared)} of the proteins, first {min(shared)!r}, chose this selection; "
            "judge it on others (or allow_scored=True)"
        )


@dataclass(frozen=True)
class Intervention:
    """What changing one selection did, class by class.

    Attributes:
        selection: The neurons.
        factor: What multiplied them; ``None``: held at their means.
        label: The class they were chosen for, if it was said.
        table: One row a class: ``effect_on`` and the fields of :class:`Effect`.
        draws: The same of every matched draw, with ``draw``.
    """

    selection: Selection
    factor: float | None
    label: str | None
    table: pd.DataFrame
    draws: pd.DataFrame

    def p_value(self, effect_on: str) -> float:
        """One-sided p of the change in a class's probability against the matched draws."""
        own, drawn = (
            frame.loc[frame["effect_on"] == effect_on, "probability_change"].to_numpy(dtype=np.float64)
            for frame in (self.table, self.draws)
        )
        return compare_with_draws(float(own[0]), drawn, 1 if mode_of(self.factor) == "enhance" else -1).p_value

    def __repr__(self) -> str:
        done = "held at the mean" if self.factor is None else f"multiplied by {self.factor:g}"
        chosen = f", chosen for class {self.label}" if self.label is not None else ""
        lines = [f"{self.selection!r}{chosen}", f"{mode_of(self.factor)}: {done}"]
        for row in self.table.itertuples():
            drawn = self.draws[self.draws["effect_on"] == row.effect_on]
            line = (
                f"  class {row.effect_on}: probability {row.probability_change:+.3f} (from {row.probability:.3f}), "
                f"{row.decisions_lost} of {row.decisions_right} right decisions lost, {row.decisions_gained} gained on "
                f"{row.n_proteins} proteins"
            )
            if len(drawn):
                line += (
                    f"; matched draws {drawn['probability_change'].mean():+.3f}, "
                    f"{drawn['decisions_lost'].mean():.1f} lost, "
                    f"p = {self.p_value(str(row.effect_on)):.3g}"
                )
            lines.append(line)
        return "\n".join(lines)


def intervene(
    model: Classifier,
    proteins: Sequence[Protein],
    selection: Selection,
    *,
    factor: float | None = None,
    label: str | None = None,
    constants: np.ndarray | None = None,
    n_random: int = 20,
    seed: int = 0,
    allow_scored: bool = False,
    token_budget: int = 2048,
) -> Intervention:
    """Suppress or enhance one selection and measure what becomes of every class.

    Args:
        model: The classifier; it is not changed.
        proteins: Labelled proteins that had no part in choosing the selection.
        selection: The neurons; :meth:`Selection.from_tsv` reads those chosen elsewhere.
        factor: Multiplies their activations: 0 suppresses to zero, above 1 enhances; ``None``: held at their means.
        label: The class they were chosen for; its probability is then followed on all proteins.
        constants: ``(3, N)`` means; a model opened from a run brings its own.
        n_random: Random draws with as many neurons in every site; 0: no comparison.
        seed: Seeds the draws.
        allow_scored: Accept proteins that the selection was chosen by.
        token_budget: Padded tokens a batch.

    Raises:
        SelectionError: a setting is impossible, the means are missing, the selection is empty or belongs to a model of
            another shape, or a protein had a part in it.
        InputError: a protein has no label that the model knows.

    References:
        Dai et al. 2022, arXiv:2104.08696, section 4.2 (suppress to 0, double). Departs from it: held at the mean by
        default, matched draws, decisions (the objection of Niu et al. 2024, arXiv:2405.02421).
    """
    if factor is not None and not (math.isfinite(factor) and factor >= 0):
        raise SelectionError(f"factor = {factor!r}: must be 0 or more, or None for the mean")
    if n_random == 1 or n_random < 0:
        raise SelectionError(f"n_random = {n_random!r}: need 0 (no comparison) or at least 2")
    if label is not None and label not in model.labels:
        raise SelectionError(f"label {label!r}: the model knows {', '.join(model.labels)}")
    check_selection(selection, model, proteins, allow_scored)
    if not len(selection):
        raise SelectionError(f"{selection.name!r} is empty: nothing to suppress or enhance")
    constants = model.ablation_means if constants is None else constants
    groups = strata(CONTROL, selection.index)
    chosen = [selection] + [
        draw(selection.index, groups, [selection], (seed, 7, 0, r), f"{CONTROL} draw {r}")[0] for r in range(n_random)
    ]
    changes = [nothing(model.index), *(Change(one, factor) for one in chosen)]
    before, *after = outcomes(model, proteins, changes, constants, token_budget)
    members, labels = model.membership(proteins), list(model.labels)
    aim = None if label is None else labels.index(label)

    def rows(found: np.ndarray, number: int) -> list[dict[str, object]]:
        return [
            {"draw": number, "effect_on": labels[d], **effect._asdict()}
            for d, effect in effects(before, found, members, aim, model.task).items()
        ]

    columns = ["draw", "effect_on", *Effect._fields]
    table = pd.DataFrame(rows(after[0], -1), columns=columns)
    draws = pd.DataFrame([row for r, found in enumerate(after[1:]) for row in rows(found, r)], columns=columns)
    return Intervention(selection, factor, label, table.drop(columns="draw"), draws)
