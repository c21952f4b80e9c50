"""Are wrong decisions failures to recall? How active a class's neurons are where a protein is decided right or wrong.

::

    KN(x, c) = mean over the neurons n of class c of  s_cn (a_n(x) - mean_n) / sd_n
                                                      s_cn = sign(mean_n in c - mean_n overall), of training proteins

* **AUROC** of KN(x, true) for right against wrong decisions, over pairs of one class: scales differ between classes.
* An error is a *failure to recall* if KN(x, true) is below the lower quartile of the class's right ones (``low``), a
  *conflict* if KN(x, predicted) is higher than KN(x, true) (``conflict``).
* **Enhancing** the true class's neurons (activations times 2): which wrong decisions become right, and how many
  proteins of other classes the same change pulls to the class, without which the first number means nothing.

The null of each number is matched draws: as many neurons in every site, with signs of their own. The question is that
of factual recall in language models, turned from prompts to proteins; pairs of one class, the pull and the draws are
ours.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from plmscope.data.proteins import Protein
from plmscope.evaluation.interventions import Change
from plmscope.layout.measure import Measure, chosen_of, matched, resampled
from plmscope.models.sites import NeuronIndex
from plmscope.stats.chance import compare_with_draws, percentile_interval

#: What activations are multiplied by, and most proteins of other classes that are watched meanwhile.
FACTOR, OTHERS = 2.0, 12
#: Below this share of a class's right decisions a KN score is low.
QUARTILE = 0.25
COLUMNS = (
    "id", "label", "predicted", "right", "kn_true", "kn_predicted", "failure", "gained", "gained_against",
    "gained_other",
)  # fmt: skip
SUMMARY = (
    "label", "n_right", "n_wrong", "auroc", "ci_low", "ci_high", "auroc_against", "p_value", "p_kind", "low",
    "low_against", "conflict", "conflict_against", "n_enhanced", "gained", "gained_against", "gained_other", "p_gained",
    "n_others", "pulled", "pulled_against", "n_draws",
)  # fmt: skip


@dataclass(frozen=True)
class Known:
    """Activations of training proteins, which KN scores are standardised by.

    Attributes:
        mean: ``(N,)`` over the proteins.
        deviation: ``(N,)``; where it is 0 the neuron counts as 0.
        signs: ``(C, N)`` of the contrast of every class; 0 for a class without proteins.
    """

    mean: np.ndarray
    deviation: np.ndarray
    signs: np.ndarray

    @classmethod
    def of(cls, activations: np.ndarray, labels: np.ndarray, n_classes: int) -> Known:
        """From activations ``(P, N)`` and class numbers ``(P,)``."""
        mean = activations.mean(0)
        of_class = [activations[labels == c].mean(0) if (labels == c).any() else mean for c in range(n_classes)]
        return cls(mean, activations.std(0), np.sign(np.stack(of_class) - mean))

    def at(self, positions: np.ndarray) -> Known:
        """The same of some neurons alone."""
        return Known(self.mean[positions], self.deviation[positions], self.signs[:, positions])

    def scores(self, activations: np.ndarray, sets: Sequence[Sequence[int] | np.ndarray]) -> np.ndarray:
        """KN scores ``(P, C)`` of proteins with activations ``(P, N)``; NaN for a class without neurons.

        >>> a = np.array([[0.0, 4.0], [2.0, 0.0], [0.0, 4.0], [2.0, 0.0]])
        >>> Known.of(a, np.array([0, 1, 0, 1]), 2).scores(a[:2], [[0, 1], [0]]).tolist()
        [[1.0, -1.0], [-1.0, 1.0]]
        """
        found = np.full((len(activations), len(sets)), np.nan)
        for c, positions in enumerate(sets):
            own = np.asarray(positions, dtype=np.int64)
            if len(own):
                spread = np.where(self.deviation[own] > 0, self.deviation[own], np.inf)
                found[:, c] = ((activations[:, own] - self.mean[own]) / spread * self.signs[c, own]).mean(1)
        return found


@dataclass(frozen=True)
class Asked:
    """The test proteins and what is known of them.

    Attributes:
        proteins: ``P`` of them.
        clusters: Cluster of each.
        true: ``(P,)`` class numbers.
        odds: ``(P, C)`` log-odds of the intact model.
        activations: ``(P, N)``.
    """

    proteins: Sequence[Protein]
    clusters: Sequence[str]
    true: np.ndarray
    odds: np.ndarray
    activations: np.ndarray

    @property
    def predicted(self) -> np.ndarray:
        """``(P,)`` the likeliest class of each."""
        found: np.ndarray = self.odds.argmax(1)
        return found


def drawn_sets(index: NeuronIndex, chosen: Sequence[Sequence[int]], draws: int, seed: int) -> list[list[np.ndarray]]:
    """Matched draws of every class's neurons: ``draws`` lists of a set a class."""
    of_class = [matched(chosen_of(index, group), draws, (seed, 31, c)) for c, group in enumerate(chosen)]
    return [[np.flatnonzero(drawn[r].mask) for drawn in of_class] for r in range(draws)]


def within_class(kn_true: np.ndarray, right: np.ndarray, true: np.ndarray) -> np.ndarray:
    """``(right, wrong)`` 1 where a right protein has the higher KN score than a wrong one of its class, ties one half.

    NaN where the two are of different classes.
    """
    a, b = kn_true[right][:, None], kn_true[~right][None]
    found: np.ndarray = np.where(a == b, 0.5, (a > b).astype(np.float64))
    return np.where(true[right][:, None] == true[~right][None], found, np.nan)


def auroc(pairs: np.ndarray, weights: tuple[np.ndarray, np.ndarray] | None = None) -> np.ndarray:
    """AUROC of :func:`within_class` pairs; with weights ``(B, right)``, ``(B, wrong)`` one value a resample."""
    known = ~np.isnan(pairs)
    filled = np.where(known, pairs, 0.0)
    if weights is None:
        weights = np.ones((1, pairs.shape[0])), np.ones((1, pairs.shape[1]))
    a, b = (w.astype(np.float64) for w in weights)
    with np.errstate(invalid="ignore", divide="ignore"):
        found: np.ndarray = ((a @ filled) * b).sum(1) / ((a @ known.astype(np.float64)) * b).sum(1)
    return found


def failures(kn: np.ndarray, true: np.ndarray, predicted: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Which proteins are low, and which are conflicts, ``(P,)`` as 1 or 0; NaN for right ones and where unknown.

    ``low`` is unknown in a class without a right decision, ``conflict`` where either class has no neurons.
    """
    rows = np.arange(len(true))
    own, right = kn[rows, true], true == predicted
    low, conflict = np.full(len(true), np.nan), np.full(len(true), np.nan)
    for c in np.unique(true):
        wrong = (true == c) & ~right
        other = kn[rows, predicted][wrong]
        conflict[wrong] = np.where(np.isnan(other) | np.isnan(own[wrong]), np.nan, other > own[wrong])
        if (right & (true == c)).any():
            low[wrong] = own[wrong] < np.quantile(own[right & (true == c)], QUARTILE)
    return low, conflict


def recall_tables(
    measure: Measure,
    index: NeuronIndex,
    known: Known,
    asked: Asked,
    chosen: Mapping[str, Sequence[int]],
    labels: Sequence[str],
    draws: int = 20,
    seed: int = 0,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """``recall.parquet``, one row a protein, and ``recall_summary.parquet``, one row a class and one for all (empty).

    Args:
        measure: Runs the model.
        index: The model's neurons.
        known: Of training proteins.
        asked: Test proteins.
        chosen: Class to positions of its neurons.
        labels: Class names, in the order of their numbers.
        draws: Matched draws.
        seed: Of draws and resamples, and of which other proteins are watched.
    """
    sets = [list(chosen.get(label, ())) for label in labels]
    true, predicted = asked.true, asked.predicted
    right, rows = true == predicted, np.arange(len(true))
    drawn = drawn_sets(index, sets, draws, seed)
    kn = known.scores(asked.activations, sets)
    random = [known.scores(asked.activations, one) for one in drawn]
    low, conflict = failures(kn, true, predicted)
    by_draw = [failures(one, true, predicted) for one in random]
    enhanced = _enhanced(measure, index, asked, sets, drawn, seed)
    gained, others = enhanced.gained, enhanced.pulled
    names = {(0, 0): "neither", (1, 0): "low", (0, 1): "conflict", (1, 1): "low and conflict"}
    said = ["" if ok else names.get((a, b), "unknown") for ok, a, b in zip(right, low, conflict, strict=True)]
    frame = pd.DataFrame(
        {
            "id": [p.id for p in asked.proteins], "label": [labels[c] for c in true],
            "predicted": [labels[c] for c in predicted], "right": right, "kn_true": kn[rows, true],
            "kn_predicted": kn[rows, predicted], "failure": said, "gained": gained[0],
            "gained_against": _mean(gained[2:]), "gained_other": gained[1],
        }
    )  # fmt: skip
    weights = resampled(asked.clusters, true, seed)
    found = []
    for c in [*range(len(labels)), -1]:
        own = (true == c) if c >= 0 else np.ones(len(true), dtype=bool)
        judged = own & np.isfinite(kn[rows, true])
        wrong = own & ~right
        row: dict[str, object] = {
            "label": labels[c] if c >= 0 else "", "n_right": int((own & right).sum()), "n_wrong": int(wrong.sum()),
            "n_draws": draws,
        }  # fmt: skip
        pairs = within_class(kn[rows, true][judged], right[judged], true[judged])
        against = [auroc(within_class(one[rows, true][judged], right[judged], true[judged]))[0] for one in random]
        row |= _auroc_row(pairs, against, (weights[:, judged & right], weights[:, judged & ~right]))
        row |= {
            "low": _share(low[own]), "low_against": _mean([_share(one[own]) for one, _ in by_draw]),
            "conflict": _share(conflict[own]), "conflict_against": _mean([_share(one[own]) for _, one in by_draw]),
        }  # fmt: skip
        counted = wrong & np.isfinite(gained[0])
        counts = gained[:, counted].sum(1)
        tried = others[:, [c] if c >= 0 else list(range(len(labels)))]
        pulled, watched = tried[..., 0].sum(1), int(tried[0, :, 1].sum())
        test = compare_with_draws(float(counts[0]), counts[2:], 1) if counted.any() else None
        row |= {
            "n_enhanced": int(counted.sum()), "gained": int(counts[0]), "gained_other": int(counts[1]),
            "gained_against": _mean(counts[2:]) if counted.any() else np.nan,
            "p_gained": test.p_value if test else np.nan, "n_others": watched, "pulled": int(pulled[0]),
            "pulled_against": _mean(pulled[2:]) if watched else np.nan,
        }  # fmt: skip
        found.append(row)
    return frame[list(COLUMNS)], pd.DataFrame(found)[list(SUMMARY)]


def _auroc_row(
    pairs: np.ndarray, against: Sequence[float], weights: tuple[np.ndarray, np.ndarray]
) -> dict[str, object]:
    """AUROC with its interval and its test; no number where a class has no right or no wrong decision."""
    row: dict[str, object] = dict.fromkeys(("auroc", "ci_low", "ci_high", "auroc_against", "p_value"), np.nan)
    row["p_kind"] = "not_judged"
    if pairs.size and not np.isnan(pairs).all():
        value, samples = float(auroc(pairs)[0]), auroc(pairs, weights)
        samples = samples[np.isfinite(samples)]  # a resample without a pair says nothing
        ends = percentile_interval(samples) if len(samples) else (np.nan, np.nan)
        test = compare_with_draws(value, against, 1)
        row |= {"auroc": value, "ci_low": ends[0], "ci_high": ends[1], "auroc_against": _mean(against)}
        row |= {"p_value": test.p_value, "p_kind": test.p_kind}
    return row


@dataclass(frozen=True)
class _Enhanced:
    """What enhancing did.

    Attributes:
        gained: ``(2 + draws, P)`` whether each wrong protein is decided right: with its class's neurons enhanced, with
            those of another class, with each draw. NaN for others.
        pulled: ``(2 + draws, C, 2)`` how many proteins of other classes went to the class, and of how many.
    """

    gained: np.ndarray
    pulled: np.ndarray


def _enhanced(
    measure: Measure,
    index: NeuronIndex,
    asked: Asked,
    sets: Sequence[Sequence[int]],
    drawn: Sequence[Sequence[np.ndarray]],
    seed: int,
) -> _Enhanced:
    """Enhance every class's neurons in its wrong proteins, and in some proteins of other classes."""
    true, predicted = asked.true, asked.predicted
    gained = np.full((2 + len(drawn), len(true)), np.nan)
    pulled = np.zeros((2 + len(drawn), len(sets), 2))
    for c, group in enumerate(sets):
        wrong = np.flatnonzero((true == c) & (predicted != c))
        if not len(wrong) or not len(group):
            continue
        rest = np.flatnonzero((true != c) & (predicted != c))
        rest = np.sort(np.random.default_rng([seed, 32, c]).permutation(rest)[:OTHERS])
        other = next((sets[k % len(sets)] for k in range(c + 1, c + len(sets)) if sets[k % len(sets)]), group)
        changes = [chosen_of(index, group), chosen_of(index, other), *(chosen_of(index, one[c]) for one in drawn)]
        picked = np.concatenate([wrong, rest])
        found = measure(
            f"recall-{c}", [asked.proteins[int(p)] for p in picked], [Change(one, FACTOR) for one in changes]
        )
        becomes = found.argmax(2) == c
        gained[:, wrong] = becomes[:, : len(wrong)]
        pulled[:, c, 0], pulled[:, c, 1] = becomes[:, len(wrong) :].sum(1), len(rest)
    return _Enhanced(gained, pulled)


def _mean(values: Sequence[float] | np.ndarray) -> np.ndarray | float:
    """Mean over draws, NaN without any."""
    return np.mean(values, axis=0) if len(values) else np.nan


def _share(flags: np.ndarray) -> float:
    """Share of what is known."""
    known = flags[~np.isnan(flags)]
    return float(known.mean()) if len(known) else np.nan
