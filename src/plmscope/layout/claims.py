"""Do a degenerate set's attributions check facts? Of claims "this protein is of class c", which are true?

::

    claim(x, c) = sum over the neurons of the set of  dF_c/da * (a - its mean)       F_c: log-odds of class c in x
    AUROC       = share of pairs of a true claim (x of class c) and a false one in which the true one is higher

The null is matched draws: the same sum over as many random neurons in every site. Beside it the AUROC of the model's
own log-odds, which the set would have to beat to be of any use. A high AUROC alone is no virtue of the set:
attributions are made from the class's log-odds, and whatever neurons are summed follow these.

After the fact checking by degenerate knowledge neurons (Chen et al., arXiv:2308.13198), by attribution in place of
activation.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from plmscope.layout.measure import chosen_of, matched, resampled
from plmscope.layout.recall import auroc
from plmscope.models.sites import NeuronIndex
from plmscope.stats.chance import compare_with_draws, percentile_interval

COLUMNS = (
    "label", "n_neurons", "n_true", "n_false", "auroc", "ci_low", "ci_high", "auroc_model", "against", "n_draws",
    "p_value", "p_kind",
)  # fmt: skip


def pairs_of(values: np.ndarray, is_true: np.ndarray) -> np.ndarray:
    """``(true, false)`` 1 where the true claim is higher, ties one half.

    >>> pairs_of(np.array([3.0, 1.0, 2.0, 1.0]), np.array([True, True, False, False])).tolist()
    [[1.0, 1.0], [0.0, 0.5]]
    """
    a, b = values[is_true][:, None], values[~is_true][None]
    found: np.ndarray = np.where(a == b, 0.5, (a > b).astype(np.float64))
    return found


def claim_row(
    index: NeuronIndex,
    attributions: np.ndarray,
    odds: np.ndarray,
    is_true: np.ndarray,
    clusters: Sequence[str],
    chosen: Sequence[int],
    draws: int = 20,
    seed: int = 0,
) -> dict[str, object]:
    """A row of ``claims.parquet`` without ``label``; empty where all claims are true, or none.

    Args:
        index: The model's neurons.
        attributions: ``(P, N)`` of every neuron to the log-odds of the class in each protein.
        odds: ``(P,)`` those log-odds.
        is_true: ``(P,)`` whether the protein is of the class.
        clusters: Cluster of each protein.
        chosen: Positions of the set.
        draws: Matched draws.
        seed: Of draws and resamples.
    """
    if is_true.all() or not is_true.any():
        return {}
    pairs = pairs_of(attributions[:, list(chosen)].sum(1), is_true)
    weights = resampled(clusters, is_true.astype(np.int64), seed)
    ends = percentile_interval(auroc(pairs, (weights[:, is_true], weights[:, ~is_true])))
    drawn = matched(chosen_of(index, chosen), draws, (seed, 71))
    against = [float(auroc(pairs_of(attributions[:, one.mask].sum(1), is_true))[0]) for one in drawn]
    value = float(auroc(pairs)[0])
    test = compare_with_draws(value, against, 1)
    return {
        "n_neurons": len(chosen), "n_true": int(is_true.sum()), "n_false": int((~is_true).sum()), "auroc": value,
        "ci_low": ends.low, "ci_high": ends.high, "auroc_model": float(auroc(pairs_of(odds, is_true))[0]),
        "against": float(np.mean(against)) if against else np.nan, "n_draws": draws, "p_value": test.p_value,
        "p_kind": test.p_kind,
    }  # fmt: skip
