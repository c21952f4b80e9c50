"""Numbers only: how good predictions are, how good a curve of them is, and what chance would reach.

::

    metrics.py   accuracy, balanced accuracy, log loss and their kin, on resamples too
    chance.py    random draws, bootstraps, intervals, and p values that are counted
    curves.py    areas under curves, how they differ from those of draws, the share that suffices
    ranks.py     how well one group ranks above another

Every axis of an array has its letter: ``B`` is for resamples, ``P`` proteins, ``K`` sets of predictions, ``R`` draws.
"""

from __future__ import annotations

from typing import Any

from plmscope.lazy import find

_HOME = {
    "Comparison": "curves",
    "DrawTest": "chance",
    "Interval": "chance",
    "METRICS": "metrics",
    "benjamini_hochberg": "chance",
    "better_sign": "metrics",
    "bootstrap_difference": "curves",
    "bootstrap_weights": "chance",
    "compare_curves": "curves",
    "compare_with_draws": "chance",
    "curve_area": "curves",
    "curve_values": "curves",
    "holm": "chance",
    "hypergeometric_enrichment": "chance",
    "isotonic": "curves",
    "metric": "metrics",
    "metric_area": "curves",
    "percentile_interval": "chance",
    "share_better": "curves",
    "sufficient_share": "curves",
    "weighted_metric": "metrics",
    "with_spread": "curves",
}

__all__ = list(_HOME)


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used."""
    return find(__name__, _HOME, name)


def __dir__() -> list[str]:
    """The public names."""
    return __all__
