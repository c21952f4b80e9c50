"""Numbers only: how good predictions are, how good a curve of them is, and what chance would reach.

::

    curves.py    areas under curves, how they differ from those of draws, the share that suffices

An array has one axis a kind of thing: ``B`` resamples, ``P`` proteins, ``K`` sets of predictions, ``R`` draws.
"""

from __future__ import annotations

from typing import Any

from plmscope.lazy import find

_HOME = {
    "Comparison": "curves",
    "DrawTest": "curves",
    "Interval": "curves",
    "METRICS": "curves",
    "benjamini_hochberg": "curves",
    "better_sign": "curves",
    "bootstrap_difference": "curves",
    "bootstrap_weights": "curves",
    "compare_curves": "curves",
    "compare_with_draws": "curves",
    "curve_area": "curves",
    "curve_values": "curves",
    "holm": "curves",
    "hypergeometric_enrichment": "curves",
    "isotonic": "curves",
    "metric": "curves",
    "metric_area": "curves",
    "percentile_interval": "curves",
    "share_better": "curves",
    "sufficient_share": "curves",
    "weighted_metric": "curves",
    "with_spread": "curves",
}

__all__ = [
    "Comparison",
    "DrawTest",
    "Interval",
    "METRICS",
    "benjamini_hochberg",
    "better_sign",
    "bootstrap_difference",
    "bootstrap_weights",
    "compare_curves",
    "compare_with_draws",
    "curve_area",
    "curve_values",
    "holm",
    "hypergeometric_enrichment",
    "isotonic",
    "metric",
    "metric_area",
    "percentile_interval",
    "share_better",
    "sufficient_share",
    "weighted_metric",
    "with_spread",
]


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used."""
    return find(__name__, _HOME, name)


def __dir__() -> list[str]:
    """The public names."""
    return __all__
