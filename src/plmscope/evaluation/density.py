"""Where selections sit among layers and module kinds, and how far methods agree on them.

Enrichment is the chosen share of a module over the chosen share of all; whether it is beyond chance says a permutation
of module kinds among neurons of one layer that are equally active.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
from scipy.stats import spearmanr

from plmscope.errors import SelectionError
from plmscope.evaluation.selection import Selection, select_top
from plmscope.models.architectures import MODULES
from plmscope.models.sites import NeuronIndex
from plmscope.scoring.scores import NeuronScores
from plmscope.stats.chance import benjamini_hochberg, hypergeometric_enrichment

#: Random rearrangements of a density's permutation test.
PERMUTATIONS = 999


def layer_deciles(index: NeuronIndex, activity: np.ndarray) -> np.ndarray:
    """``(N,)`` group number of every neuron: its layer, and in it the decile of ``activity`` over all modules."""
    layers = np.array([site.layer for site in index.sites])[index.site_of]
    groups = np.zeros(len(index), dtype=np.int64)
    for layer in np.unique(layers):
        own = np.flatnonzero(layers == layer)
        rank = np.argsort(np.argsort(activity[own], kind="stable"), kind="stable")
        groups[own] = 10 * layer + np.minimum(10 * rank // len(own), 9)
    return groups


def permuted_counts(selection: Selection, groups: np.ndarray, n: int, seed: Sequence[int]) -> np.ndarray:
    """Selected neurons of every site when scores are permuted within ``groups``, ``(n, S)``.

    Where scores are permuted freely in a group, the number of selected neurons that a site gets of it is that of a
    draw without replacement; it is drawn as such.
    """
    rng, index = np.random.default_rng(list(seed)), selection.index
    counted = np.zeros((n, len(index.sites)), dtype=np.int64)
    for group in np.unique(groups):
        own = groups == group
        there = np.bincount(index.site_of[own], minlength=len(index.sites))
        sites = np.flatnonzero(there)
        counted[:, sites] += rng.multivariate_hypergeometric(there[sites], int(selection.mask[own].sum()), size=n)
    return counted


def density(
    selection: Selection,
    resampled: np.ndarray | None = None,
    activity: np.ndarray | None = None,
    seed: int = 0,
) -> pd.DataFrame:
    """Where a selection sits: per module, per layer, per site, and its enrichment over the whole model.

    Args:
        selection: A pooled selection (per site the density is constant by construction).
        resampled: ``(B, S)`` selected neurons per site when the scoring clusters are resampled; gives the interval.
        activity: ``activation_std (N,)``; gives the permutation test.
        seed: Of the permutations.

    Returns:
        ``layer`` (-1 = all), ``module`` (or ``all``), ``n_total``, ``n_selected``, ``density`` (selected / total),
        ``enrichment`` (density / overall share), ``ci_low``, ``ci_high`` (95 %, of the enrichment, NaN without
        resamples), ``p_value`` (one-sided hypergeometric; treats neurons as exchangeable, which they are not:
        descriptive only), ``enrichment_permuted`` and ``p_permutation`` (mean, and one-sided counted p: scores are
        permuted 999 times among the modules of a layer, within deciles of activity there, so that layer and scale stay
        and only the module is broken; NaN for whole layers, which no permutation changes), ``q_value``
        (Benjamini-Hochberg of ``p_permutation``, module rows and site rows apart).

    Raises:
        SelectionError: the selection is empty, so that there is no share to compare with.
    """
    if not len(selection):
        raise SelectionError(f"{selection.name!r} is empty; it has no density")
    index = selection.index
    layers = sorted({site.layer for site in index.sites})
    groups: list[tuple[int, str]] = [(-1, module) for module in MODULES]
    groups += [(layer, "all") for layer in layers] + [(site.layer, site.module) for site in index.sites]
    of_site = np.bincount(index.site_of[selection.mask], minlength=len(index.sites))
    total, chosen = len(index), len(selection)
    permuted = None
    if activity is not None:
        permuted = permuted_counts(selection, layer_deciles(index, activity), PERMUTATIONS, [seed, 10])  # (999, S)
    rows = []
    for layer, module in groups:
        inside = np.array([layer in (-1, s.layer) and module in ("all", s.module) for s in index.sites])
        n_total = int(np.array(index.widths)[inside].sum())
        n_selected = int(of_site[inside].sum())
        interval = (np.nan, np.nan)
        if resampled is not None and len(resampled):
            shares = resampled[:, inside].sum(1) / n_total / (resampled.sum(1) / total)
            interval = tuple(np.quantile(shares, (0.025, 0.975)))
        p = hypergeometric_enrichment(n_total, n_selected, total, chosen)
        share, tested = n_selected / n_total, (np.nan, np.nan)
        if permuted is not None and module != "all":
            own = permuted[:, inside].sum(1)
            counted = (1 + int((own >= n_selected).sum())) / (1 + PERMUTATIONS)
            tested = (float(own.mean()) / n_total / (chosen / total), counted)
        rows.append((layer, module, n_total, n_selected, share, share / (chosen / total), *interval, p, *tested))
    names = ["layer", "module", "n_total", "n_selected", "density", "enrichment", "ci_low", "ci_high", "p_value"]
    frame = pd.DataFrame(rows, columns=[*names, "enrichment_permuted", "p_permutation"])
    kind = np.where(frame["layer"] < 0, "module", np.where(frame["module"] == "all", "layer", "site"))
    frame["q_value"] = frame.groupby(kind)["p_permutation"].transform(lambda p: benjamini_hochberg(p.to_numpy()))
    return frame


def density_table(rankings: Sequence[NeuronScores], fractions: Sequence[float]) -> pd.DataFrame:
    """Where the best neurons of several rankings sit: rows of :func:`density`, with ``method`` and ``fraction``."""
    rows = [
        density(select_top(scores, fraction)).assign(method=scores.method, fraction=fraction)
        for scores in rankings
        for fraction in fractions
    ]
    return pd.concat(rows, ignore_index=True)


def agreement(scores: Sequence[NeuronScores], fractions: Sequence[float]) -> pd.DataFrame:
    """How far methods choose the same neurons.

    Returns:
        One row a pair and fraction: ``method, other, fraction, spearman`` (rank correlation over all neurons),
        ``overlap`` (shared / selected) and ``overlap_expected`` (the fraction itself, if they were independent).
    """
    rows: list[Mapping[str, object]] = []
    for i, one in enumerate(scores):
        for other in scores[i + 1 :]:
            rho = float(spearmanr(one.values, other.values).statistic)
            for fraction in fractions:
                a, b = select_top(one, fraction), select_top(other, fraction)
                rows.append(
                    {
                        "method": one.method,
                        "other": other.method,
                        "fraction": fraction,
                        "spearman": rho,
                        "overlap": len(a & b) / len(a),
                        "overlap_expected": len(b) / len(b.index),
                    }
                )
    return pd.DataFrame(rows, columns=["method", "other", "fraction", "spearman", "overlap", "overlap_expected"])


def precision_agreement(
    scores: Sequence[NeuronScores], reference: Sequence[NeuronScores], fraction: float = 0.05
) -> dict[str, dict[str, float]]:
    """How far scores of a model in low precision rank neurons as those of the same model in float32 do.

    Args:
        scores: By some methods.
        reference: By the same methods in the same order, in float32, on the same proteins.
        fraction: Share of the neurons whose choice is compared.

    Returns:
        Per method ``spearman`` (rank correlation over all neurons) and ``overlap`` (shared part of the best ones).
    """
    by_method = {}
    for one, other in zip(scores, reference, strict=True):
        (row,) = agreement([one, replace(other, method=f"{other.method} in float32")], [fraction]).to_dict("records")
        by_method[one.method] = {name: round(float(row[name]), 4) for name in ("spearman", "overlap")}
    return by_method
