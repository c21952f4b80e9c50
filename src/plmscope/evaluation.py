"""Keep or ablate selections of neurons in the model, measure what survives, and compare it with chance.

*Keep* a selection: all other neurons are held at a constant (zero, or their mean over training proteins at the first
token, the last token and residues). *Ablate* it: its own neurons are. A curve is a metric over the share that is kept
or ablated; a random draw has one of its own, and a method is judged by the area under its curve against theirs.

Primary outcome, fixed in advance: balanced accuracy, keep, mean ablation, pooled ranking, against ``random_matched``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch

from plmscope.errors import SelectionError
from plmscope.folded import Folding
from plmscope.hooked import AnyNetwork, logits_of, network_of
from plmscope.labels import rarest
from plmscope.model import Batches, Classifier
from plmscope.network import Network
from plmscope.scores import NeuronScores
from plmscope.selection import CONTROLS, SCOPES, Selection, draw, select_top, size_of, strata
from plmscope.sequences import Protein
from plmscope.sites import NeuronIndex, Site
from plmscope.stats import (
    METRICS,
    benjamini_hochberg,
    better_sign,
    bootstrap_weights,
    compare_curves,
    compare_with_draws,
    metric,
)
from plmscope.workers import in_order

MODES = ("keep", "ablate")
ABLATIONS = ("mean", "zero")
BOOTSTRAPS = 2000


class CurvePoint(NamedTuple):
    """One selection in one setting: a row of ``curves.parquet``.

    Attributes:
        method: A scoring method, one of :data:`~plmscope.selection.CONTROLS`, or ``intact``.
        matched_to: The method that a matched control copies the counts of.
        scope: ``pooled`` or ``per_site``.
        draw: -1 for methods, 0, 1, ... for draws.
        mode: ``keep`` or ``ablate``.
        ablation: ``mean``, ``zero``, or ``none`` for the intact model.
        fraction: Share kept or ablated.
    """

    method: str
    matched_to: str
    scope: str
    draw: int
    mode: str
    ablation: str
    fraction: float


INTACT = CurvePoint("intact", "", "", -1, "keep", "none", 1.0)


@dataclass(frozen=True)
class Predictions:
    """What the model says about ``P`` proteins.

    Attributes:
        predicted: ``(P,)`` class numbers; in a multi-label task ``(P, W)`` packed sets of classes.
        log_prob_true: ``(P,)`` natural log of the true class's probability, see :meth:`Classifier.answers`.
    """

    predicted: np.ndarray
    log_prob_true: np.ndarray


@dataclass(frozen=True)
class Grid:
    """All curve points of a study and the selection behind each.

    Attributes:
        scores: The methods that are judged.
        fractions: Shares of the neurons, increasing, each above 0 and below 1.
        seed: Seeds the draws.
        activity: ``activation_std (N,)``, for ``random_active``.
    """

    scores: Mapping[str, NeuronScores]
    fractions: tuple[float, ...]
    seed: int
    activity: np.ndarray | None = None

    def __post_init__(self) -> None:
        if (
            not self.fractions
            or any(not 0 < f < 1 for f in self.fractions)
            or sorted(set(self.fractions)) != list(self.fractions)
        ):
            raise SelectionError(f"fractions = {list(self.fractions)!r}: must increase and lie between 0 and 1")
        object.__setattr__(self, "_cached", lru_cache(maxsize=64)(self._selections))

    def points(
        self,
        modes: Sequence[str],
        ablations: Sequence[str],
        scopes: Sequence[str],
        controls: Sequence[str],
        draws: int,
        draws_elsewhere: int,
    ) -> list[CurvePoint]:
        """Every point, the primary cell (keep, mean, pooled; ``draws`` draws) first, the others with fewer draws."""
        cells = [(mode, ablation, scope) for scope in SCOPES for mode in MODES for ablation in ABLATIONS]
        cells = [c for c in cells if c[0] in modes and c[1] in ablations and c[2] in scopes]
        points = [INTACT]
        for mode, ablation, scope in cells:
            n = draws if (mode, ablation, scope) == ("keep", "mean", "pooled") else draws_elsewhere
            curves = [(method, "", -1) for method in self.scores]
            for control in (c for c in CONTROLS if c in controls):
                targets = [""] if control == "random" else list(self.scores)
                curves += [(control, target, r) for target in targets for r in range(n)]
            for method, matched_to, r in curves:
                points += [CurvePoint(method, matched_to, scope, r, mode, ablation, f) for f in self.fractions]
        return points

    def selection(self, point: CurvePoint) -> Selection:
        """The selection of one point."""
        family = self._cached(point.method, point.matched_to, point.scope, point.draw)  # type: ignore[attr-defined]
        chosen: Selection = family[self.fractions.index(point.fraction)]
        return chosen

    def _selections(self, method: str, matched_to: str, scope: str, number: int) -> list[Selection]:
        """The selections of one curve, one per fraction."""
        reference = self.scores[matched_to or (method if number < 0 else next(iter(self.scores)))]
        chosen = [select_top(reference, fraction, scope) for fraction in self.fractions]
        if number < 0:
            return chosen
        groups = strata(method, reference.index, self.activity)
        names = list(self.scores)
        seed = (
            self.seed,
            CONTROLS.index(method),
            names.index(matched_to) if matched_to else 0,
            SCOPES.index(scope),
            number,
        )
        return draw(reference.index, groups, chosen, seed, f"{method} draw {number}")


def predict(
    classifier: Classifier,
    proteins: Sequence[Protein],
    keep: Iterator[tuple[np.ndarray, np.ndarray]] | Sequence[tuple[np.ndarray, np.ndarray]],
    token_budget: int = 2048,
) -> Iterator[Predictions]:
    """Predictions of the ablated model for many selections, in order.

    Args:
        classifier: The model; it is not changed.
        proteins: Labelled.
        keep: Pairs of ``(N,)`` booleans, true where a neuron works, and ``(3, N)`` constants for the others.
        token_budget: Padded tokens a batch.

    Yields:
        One :class:`Predictions` a pair. Exact: held neurons leave the network (:mod:`plmscope.folded`).
    """
    network = network_of(classifier)
    slices = {site: classifier.index.slice(site) for site in classifier.index.sites}
    true = classifier.targets(proteins)
    held = held_logits(network, classifier.batches(proteins, token_budget), slices)

    @torch.inference_mode()
    def one(pair: tuple[np.ndarray, np.ndarray]) -> Predictions:
        predicted = np.zeros(len(proteins), dtype=classifier.answer_dtype)
        log_prob = np.zeros(len(proteins), dtype=np.float32)
        for rows, logits in held(*pair):
            predicted[rows], log_prob[rows] = classifier.answers(logits, true[rows])
        return Predictions(predicted, log_prob)

    return in_order(one, keep, classifier.device)


def held_logits(
    network: AnyNetwork, batches: Batches, slices: dict[Site, slice]
) -> Callable[[np.ndarray, np.ndarray], Iterable[tuple[list[int], torch.Tensor]]]:
    """A function of the kept neurons ``(N,)`` and the constants ``(3, N)``: protein numbers and logits, by batches."""
    if isinstance(network, Network):
        return Folding(network, batches, slices).logits

    def hooked(keep: np.ndarray, constants: np.ndarray) -> Iterator[tuple[list[int], torch.Tensor]]:
        return logits_of(network.ablated(keep, constants, slices), batches)

    return hooked


def evaluate_points(
    classifier: Classifier,
    proteins: Sequence[Protein],
    grid: Grid,
    points: Sequence[CurvePoint],
    constants: Mapping[str, np.ndarray],
    token_budget: int = 2048,
) -> Iterator[Predictions]:
    """Predictions at every curve point, in order; ``constants`` maps each ablation to its ``(3, N)`` values."""

    def pairs() -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for point in points:
            if point == INTACT:
                yield np.ones(len(classifier.index), dtype=bool), np.zeros((3, len(classifier.index)))
            else:
                mask = grid.selection(point).mask
                yield (mask if point.mode == "keep" else ~mask), constants[point.ablation]

    return predict(classifier, proteins, pairs(), token_budget)


def curve_table(
    points: Sequence[CurvePoint],
    predictions: Sequence[Predictions],
    true: np.ndarray,
    n_classes: int,
    index: NeuronIndex,
) -> pd.DataFrame:
    """``curves.parquet``: every point with its metrics."""
    rows = []
    for point, p in zip(points, predictions, strict=True):
        values = {name: metric(name, true, p.predicted, p.log_prob_true, n_classes) for name in METRICS}
        widths = index.widths if point.scope == "per_site" else (len(index),)
        count = sum(size_of(point.fraction, width) for width in widths)
        rows.append(point._asdict() | {"n_neurons": count} | values)
    return pd.DataFrame(rows)


def compare(
    points: Sequence[CurvePoint],
    predictions: Sequence[Predictions],
    true: np.ndarray,
    clusters: Sequence[str],
    n_classes: int,
    seed: int,
) -> pd.DataFrame:
    """``comparison.parquet``: every method against every control, in every cell, by every metric.

    Args:
        points: With :data:`INTACT` among them, which ends every curve.
        predictions: One per point, ``P`` proteins each.
        true: ``(P,)`` class numbers, or ``(P, C)`` booleans in a multi-label task.
        clusters: ``P`` cluster names; the bootstrap resamples these.
        n_classes: Number of classes of the model.
        seed: Seeds the bootstrap.
    """
    found = dict(zip(points, predictions, strict=True))
    intact = found[INTACT]
    stratum = rarest(true) if true.ndim == 2 else true
    weights = bootstrap_weights(np.asarray(clusters), stratum, BOOTSTRAPS, np.random.default_rng([seed, 1]))
    fractions = sorted({point.fraction for point in points if point != INTACT})
    cells = list(dict.fromkeys((p.scope, p.mode, p.ablation) for p in points if p != INTACT))
    methods = list(dict.fromkeys(p.method for p in points if p.draw < 0 and p != INTACT))
    rows = []
    for scope, mode, ablation in cells:

        def curve(
            method: str, matched_to: str, number: int, cell: tuple[str, str, str] = (scope, mode, ablation)
        ) -> list[Predictions]:
            part = [found[CurvePoint(method, matched_to, cell[0], number, cell[1], cell[2], f)] for f in fractions]
            return [*part, intact] if cell[1] == "keep" else [intact, *part]

        here = [p for p in points if (p.scope, p.mode, p.ablation) == (scope, mode, ablation) and p.draw >= 0]
        draws = {(p.method, p.matched_to): p.draw + 1 for p in here}  # the last seen is the largest
        axis = [*fractions, 1.0] if mode == "keep" else [0.0, *fractions]
        for method in methods:
            for control in CONTROLS:
                key = (control, "" if control == "random" else method)
                if key not in draws:
                    continue
                curves = [curve(method, "", -1), *(curve(*key, r) for r in range(draws[key]))]
                predicted = np.array([[p.predicted for p in one] for one in curves])
                log_prob = np.array([[p.log_prob_true for p in one] for one in curves], dtype=np.float64)
                for name in METRICS:
                    result = compare_curves(
                        name, better_sign(name, mode), axis, weights, true, predicted, log_prob, n_classes,
                        np.random.default_rng([seed, 2]),
                    )  # fmt: skip
                    primary = (name, mode, ablation, scope, control) == (
                        "balanced_accuracy", "keep", "mean", "pooled", "random_matched",
                    )  # fmt: skip
                    names = {"method": method, "against": control, "scope": scope, "mode": mode, "ablation": ablation}
                    rows.append(names | {"metric": name, "primary": primary} | asdict(result))
    frame = pd.DataFrame(rows)
    secondary = ~frame["primary"].to_numpy(dtype=bool)
    frame["q_value"] = np.nan
    frame.loc[secondary, "q_value"] = benjamini_hochberg(frame.loc[secondary, "p_value"].to_numpy())
    return frame


@dataclass(frozen=True)
class Evaluation:
    """One selection judged at one share.

    Attributes:
        selection: What was kept or ablated.
        mode: ``keep`` or ``ablate``.
        ablation: ``mean`` or ``zero``.
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
        ablation: ``mean`` or ``zero``.
        constants: ``(3, N)`` means for ``mean``; a model opened from a run brings its own.
        n_random: Draws per control (``random`` and ``random_matched``), at least 2.
        seed: Seeds the draws.
        allow_scored: Accept proteins that the selection was chosen by.
        token_budget: Padded tokens a batch.

    Raises:
        SelectionError: a setting is impossible, the means are missing, the selection belongs to a model of another
            shape, or a protein had a part in it.
    """
    if mode not in MODES or ablation not in ABLATIONS or n_random < 2:
        raise SelectionError(f"mode {mode!r}, ablation {ablation!r}, n_random {n_random!r}: not a possible evaluation")
    check_selection(selection, model, proteins, allow_scored)
    if ablation == "mean" and constants is None:
        constants = model.ablation_means
    if ablation == "mean" and constants is None:
        raise SelectionError("mean ablation needs constants: summarise_activations(model, train).constants('mean')")
    values = np.zeros((3, len(model.index))) if ablation == "zero" else np.asarray(constants)
    masks = [np.ones(len(model.index), dtype=bool)]
    controls = ("random", "random_matched")
    chosen = [selection]
    for number, control in enumerate(controls):
        groups = strata(control, selection.index)
        chosen += [draw(selection.index, groups, [selection], (seed, number, r), control)[0] for r in range(n_random)]
    masks += [one.mask if mode == "keep" else ~one.mask for one in chosen]
    found = list(predict(model, proteins, [(mask, values) for mask in masks], token_budget))
    true = model.targets(proteins)

    def measured(p: Predictions) -> dict[str, float]:
        return {name: metric(name, true, p.predicted, p.log_prob_true, len(model.labels)) for name in METRICS}

    rows = [measured(p) for p in found]
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
