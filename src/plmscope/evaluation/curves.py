"""Keep or ablate selections of neurons in the model, measure what survives, and compare it with chance.

*Keep* a selection: all other neurons are held at a constant (zero, or their mean over training proteins at the first
token, the last token and residues), or at their values in other proteins (:mod:`~plmscope.evaluation.resampled`).
*Ablate* it: its own neurons are. A curve is a metric over the share that is kept
or ablated; a random draw has one of its own, and a method is judged by the area under its curve against theirs.

In scope ``module`` neurons are kept or ablated within one module kind while every other kind stays intact: what a share
of the keys carries of what all keys carry (:func:`~plmscope.evaluation.kinds.module_table`).

Primary outcomes, fixed in advance: balanced accuracy, keep, mean ablation, against ``random_matched``, (a) in the
pooled ranking, (b) within keys.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property, lru_cache
from itertools import groupby
from typing import NamedTuple

import numpy as np
import pandas as pd

from plmscope.data.labels import rarest
from plmscope.data.proteins import Protein
from plmscope.errors import SelectionError
from plmscope.evaluation.predict import Predictions, predict
from plmscope.evaluation.resampled import RESAMPLE, Donors, predict_resampled
from plmscope.evaluation.selection import (
    CONTROLS,
    MODULE,
    SCOPES,
    Selection,
    draw,
    of_module,
    select_top,
    size_of,
    strata,
)
from plmscope.models.architectures import MODULES
from plmscope.models.classifier import Classifier
from plmscope.models.sites import NeuronIndex
from plmscope.scoring.scores import NeuronScores
from plmscope.stats.chance import benjamini_hochberg, bootstrap_weights
from plmscope.stats.curves import compare_curves, share_better
from plmscope.stats.metrics import METRICS, better_sign, metric

MODES = ("keep", "ablate")
ABLATIONS = ("mean", "zero", "resample")
BOOTSTRAPS = 2000


class CurvePoint(NamedTuple):
    """One selection in one setting: a row of ``curves.parquet``.

    Attributes:
        method: A scoring method, one of :data:`~plmscope.evaluation.selection.CONTROLS`, ``intact``, or ``held``.
        matched_to: The method that a matched control copies the counts of.
        scope: ``pooled``, ``per_site`` or ``module``.
        draw: -1 for methods, 0, 1, ... for draws.
        mode: ``keep`` or ``ablate``.
        ablation: ``mean``, ``zero``, ``resample``, or ``none`` for the intact model.
        fraction: Share kept or ablated; 0 kept for ``held``, all of a module kind held.
        module: The module kind in scope ``module``, else empty.
    """

    method: str
    matched_to: str
    scope: str
    draw: int
    mode: str
    ablation: str
    fraction: float
    module: str = ""


INTACT = CurvePoint("intact", "", "", -1, "keep", "none", 1.0)


def held_point(ablation: str, module: str) -> CurvePoint:
    """All of one module kind held: the end of every curve in scope ``module``."""
    return CurvePoint("held", "", MODULE, -1, "keep", ablation, 0.0, module)


class CurveCell(NamedTuple):
    """One setting: the curves of all methods and draws in it are compared with each other."""

    scope: str
    module: str
    mode: str
    ablation: str

    @classmethod
    def of(cls, point: CurvePoint) -> CurveCell:
        """That of a point."""
        return cls(point.scope, point.module, point.mode, point.ablation)

    @property
    def primary(self) -> bool:
        """Whether balanced accuracy against ``random_matched`` is a primary outcome here."""
        return self in PRIMARY


#: The cells of the primary outcomes.
PRIMARY = (CurveCell("pooled", "", "keep", "mean"), CurveCell(MODULE, "key", "keep", "mean"))


#: Shares of a module kind's neurons, where none are given.
MODULE_FRACTIONS = (0.05, 0.1, 0.2, 0.5)


@dataclass(frozen=True)
class Within:
    """What is run in scope ``module``.

    Attributes:
        modes: Of :data:`MODES`.
        ablations: Of :data:`ABLATIONS`.
        controls: Of :data:`~plmscope.evaluation.selection.CONTROLS`; ``random_matched`` takes the
            method's number in every layer.
        draws: Draws of ``random_matched`` for keep and mean, in kinds other than the keys: six kinds share 5 %.
    """

    modes: tuple[str, ...] = ("keep",)
    ablations: tuple[str, ...] = ("mean",)
    controls: tuple[str, ...] = ("random_matched",)
    draws: int = 119


@dataclass(frozen=True)
class Grid:
    """All curve points of a study and the selection behind each.

    Attributes:
        scores: The methods that are judged.
        fractions: Shares of the neurons, increasing, each above 0 and below 1.
        seed: Seeds the draws.
        activity: ``activation_std (N,)``, for ``random_active``.
        module_fractions: Shares of the neurons of a module kind, in scope ``module``.
    """

    scores: Mapping[str, NeuronScores]
    fractions: tuple[float, ...]
    seed: int
    activity: np.ndarray | None = None
    module_fractions: tuple[float, ...] = MODULE_FRACTIONS

    def __post_init__(self) -> None:
        for name, shares in (("fractions", self.fractions), ("module_fractions", self.module_fractions)):
            if not shares or any(not 0 < f < 1 for f in shares) or sorted(set(shares)) != list(shares):
                raise SelectionError(f"{name} = {list(shares)!r}: must increase and lie between 0 and 1")
        object.__setattr__(self, "_cached", lru_cache(maxsize=64)(self._selections))

    def points(
        self,
        modes: Sequence[str],
        ablations: Sequence[str],
        scopes: Sequence[str],
        controls: Sequence[str],
        draws: int,
        draws_elsewhere: int,
        within: Within | None = None,
    ) -> list[CurvePoint]:
        """Every point: the methods' own selections before all draws, in each of the two the primary cells first.

        Args:
            modes: Of :data:`MODES`.
            ablations: Of :data:`ABLATIONS`.
            scopes: Of :data:`~plmscope.evaluation.selection.SCOPES`, and ``module``.
            controls: Of :data:`~plmscope.evaluation.selection.CONTROLS`, outside scope ``module``.
            draws: Draws of ``random_matched`` in the primary cells.
            draws_elsewhere: Draws of other controls and in other cells.
            within: Scope ``module``; as :class:`Within` has it if left out.
        """
        within = within or Within()
        cells = [CurveCell(scope, "", mode, ablation) for scope in SCOPES for mode in MODES for ablation in ABLATIONS]
        cells = [c for c in cells if c.mode in modes and c.ablation in ablations and c.scope in scopes]
        inner = [CurveCell(MODULE, m, mode, a) for m in MODULES for mode in within.modes for a in within.ablations]
        cells += inner if MODULE in scopes else []
        points = [INTACT]
        points += dict.fromkeys(held_point(c.ablation, c.module) for c in cells if c.scope == MODULE)
        for cell in sorted(cells, key=lambda c: not c.primary):
            known = within.controls if cell.scope == MODULE else controls
            curves = [(method, "", -1) for method in self.scores]
            for control in (c for c in CONTROLS if c in known):
                targets = [""] if control == "random" else list(self.scores)
                n = draws_elsewhere
                if control == "random_matched" and cell.primary:
                    n = draws
                elif control == "random_matched" and (cell.scope, *cell[2:]) == (MODULE, "keep", "mean"):
                    n = within.draws
                curves += [(control, target, r) for target in targets for r in range(n)]
            for method, matched_to, r in curves:
                points += [
                    CurvePoint(method, matched_to, cell.scope, r, cell.mode, cell.ablation, f, cell.module)
                    for f in self.shares(cell.scope)
                ]
        return sorted(points, key=lambda point: point.draw >= 0)

    def shares(self, scope: str) -> tuple[float, ...]:
        """The shares that are run in a scope."""
        return self.module_fractions if scope == MODULE else self.fractions

    def selection(self, point: CurvePoint) -> Selection:
        """The selection of one point."""
        family = self._cached(  # type: ignore[attr-defined]
            point.method, point.matched_to, point.scope, point.draw, point.module
        )
        chosen: Selection = family[self.shares(point.scope).index(point.fraction)]
        return chosen

    def kept(self, point: CurvePoint) -> np.ndarray:
        """``(N,)`` true where a neuron works."""
        index = next(iter(self.scores.values())).index
        if point == INTACT:
            return np.ones(len(index), dtype=bool)
        others: np.ndarray = ~of_module(index, point.module) if point.module else np.zeros(len(index), dtype=bool)
        if point.method == "held":
            return others
        mask = self.selection(point).mask
        return mask | others if point.mode == "keep" else ~mask

    def _selections(self, method: str, matched_to: str, scope: str, number: int, module: str) -> list[Selection]:
        """The selections of one curve, one per fraction."""
        reference = self.scores[matched_to or (method if number < 0 else next(iter(self.scores)))]
        chosen = [select_top(reference, fraction, scope, module) for fraction in self.shares(scope)]
        if number < 0:
            return chosen
        groups = strata(method, reference.index, self.activity)
        if module:  # a draw takes from this kind alone
            groups = np.where(of_module(reference.index, module), groups + 1, 0)
        names, places = list(self.scores), [*SCOPES, MODULE]
        seed = (
            self.seed,
            CONTROLS.index(method),
            names.index(matched_to) if matched_to else 0,
            places.index(scope),
            number,
            *([MODULES.index(module)] if module else []),
        )
        return draw(reference.index, groups, chosen, seed, f"{method} draw {number}")


def evaluate_points(
    classifier: Classifier,
    proteins: Sequence[Protein],
    grid: Grid,
    points: Sequence[CurvePoint],
    constants: Mapping[str, np.ndarray],
    token_budget: int = 2048,
    given: Donors | None = None,
) -> Iterator[Predictions]:
    """Predictions at every curve point, in order.

    Args:
        classifier: The model.
        proteins: Labelled.
        grid: What is behind the points.
        points: In any order; those next to each other with one ablation are run together.
        constants: Ablation to its ``(3, N)`` values.
        token_budget: Padded tokens a batch.
        given: For the ablation ``resample``.
    """
    none = np.zeros((3, len(classifier.index)))
    for resampled, some in groupby(points, key=lambda point: point.ablation == RESAMPLE):
        if resampled:
            if given is None:
                raise SelectionError("the ablation resample needs donors")
            yield from predict_resampled(classifier, proteins, map(grid.kept, some), given, token_budget)
        else:
            pairs = ((grid.kept(p), none if p == INTACT else constants[p.ablation]) for p in some)
            yield from predict(classifier, proteins, pairs, token_budget)


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
        if point.module:
            widths = (int(of_module(index, point.module).sum()),)
        count = 0 if point.method == "held" else sum(size_of(point.fraction, width) for width in widths)
        rows.append(point._asdict() | {"n_neurons": count} | values)
    return pd.DataFrame(rows)


@dataclass(frozen=True)
class Curves:
    """The curves of a study: every method and its draws, in every cell, on the same proteins.

    Attributes:
        points: With :data:`INTACT` among them, which ends every curve; in scope ``module`` with :func:`held_point`.
        predictions: One per point, ``P`` proteins each.
        true: ``(P,)`` class numbers, or ``(P, C)`` booleans in a multi-label task.
        clusters: ``P`` cluster names; the bootstrap resamples these.
        n_classes: Number of classes of the model.
        seed: Seeds the bootstrap.
        ranked_by: Method to the score that its selections are ranked by; a method that is not there by its own.
        resamples: Bootstrap resamples.
    """

    points: Sequence[CurvePoint]
    predictions: Sequence[Predictions]
    true: np.ndarray
    clusters: Sequence[str]
    n_classes: int
    seed: int
    ranked_by: Mapping[str, str] = field(default_factory=dict)
    resamples: int = BOOTSTRAPS

    @cached_property
    def found(self) -> dict[CurvePoint, Predictions]:
        """Predictions of every point."""
        return dict(zip(self.points, self.predictions, strict=True))

    @cached_property
    def weights(self) -> np.ndarray:
        """``(B, P)`` of the bootstrap."""
        stratum = rarest(self.true) if self.true.ndim == 2 else self.true
        rng = np.random.default_rng([self.seed, 1])
        return bootstrap_weights(np.asarray(self.clusters), stratum, self.resamples, rng)

    @cached_property
    def cells(self) -> dict[CurveCell, list[CurvePoint]]:
        """Every cell with its points."""
        cells: dict[CurveCell, list[CurvePoint]] = {}
        for point in self.points:
            if point != INTACT and point.method != "held":
                cells.setdefault(CurveCell.of(point), []).append(point)
        return cells

    def axis(self, cell: CurveCell) -> list[float]:
        """The shares of a cell's curves, with their ends."""
        shares = sorted({point.fraction for point in self.cells[cell]})
        ends = ([0.0] if cell.module else [], [1.0]) if cell.mode == "keep" else ([0.0], [1.0] if cell.module else [])
        return [*ends[0], *shares, *ends[1]]

    def controls(self, cell: CurveCell, method: str) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
        """Every control of a method in a cell: its name, and what the method and its draws say.

        Yields:
            ``(control, predicted (1 + R, F, P), log_prob_true (1 + R, F, P))``, the method first.
        """
        drawn: dict[tuple[str, str], int] = {}
        for point in self.cells[cell]:
            if point.draw >= 0:
                key = (point.method, point.matched_to)
                drawn[key] = max(drawn.get(key, 0), point.draw + 1)
        for control in CONTROLS:
            key = (control, "" if control == "random" else method)
            if key in drawn:
                names = [(method, "", -1), *((*key, r) for r in range(drawn[key]))]
                curves = [self._curve(cell, *name) for name in names]
                yield (
                    control,
                    np.array([[p.predicted for p in one] for one in curves]),
                    np.array([[p.log_prob_true for p in one] for one in curves], dtype=np.float64),
                )

    def methods(self, cell: CurveCell) -> list[str]:
        """The methods that have a curve in a cell."""
        return list(dict.fromkeys(point.method for point in self.cells[cell] if point.draw < 0))

    def _curve(self, cell: CurveCell, method: str, matched_to: str, number: int) -> list[Predictions]:
        shares = sorted({point.fraction for point in self.cells[cell]})
        part = [
            self.found[CurvePoint(method, matched_to, cell.scope, number, cell.mode, cell.ablation, f, cell.module)]
            for f in shares
        ]
        held = [self.found[held_point(cell.ablation, cell.module)]] if cell.module else []
        intact = [self.found[INTACT]]
        return [*held, *part, *intact] if cell.mode == "keep" else [*intact, *part, *held]


def compare(curves: Curves) -> pd.DataFrame:
    """``comparison.parquet``: every method against every control, in every cell, by every metric."""
    rows = []
    for cell in curves.cells:
        axis = curves.axis(cell)
        for method in curves.methods(cell):
            for control, predicted, log_prob in curves.controls(cell, method):
                for name in METRICS:
                    better = better_sign(name, cell.mode)
                    result = compare_curves(
                        name, better, axis, curves.weights, curves.true, predicted, log_prob, curves.n_classes,
                        np.random.default_rng([curves.seed, 2]),
                    )  # fmt: skip
                    primary = cell.primary and (name, control) == ("balanced_accuracy", "random_matched")
                    share = math.nan
                    if name == "log_probability":
                        share = share_better(log_prob, curves.true, curves.n_classes, better)
                    names = {"method": method, "ranked_by": curves.ranked_by.get(method, method), "against": control}
                    names |= cell._asdict() | {"metric": name, "primary": primary, "share_better": share}
                    rows.append(names | asdict(result))
    frame = pd.DataFrame(rows)
    # A row that can never have a p below 0.05 is no test, and does not weigh on those that are.
    tested = (~frame["primary"].to_numpy(dtype=bool)) & (frame["p_kind"] == "permutation").to_numpy()
    frame["q_value"] = np.nan
    frame.loc[tested, "q_value"] = benjamini_hochberg(frame.loc[tested, "p_value"].to_numpy())
    return frame
