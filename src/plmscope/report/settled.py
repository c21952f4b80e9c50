"""Where attributions are not settled: sites at which half of the path integrals or more missed their tolerance."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd

from plmscope.report.blocks import count, listed, words
from plmscope.report.input import Results

#: Share of a site's proteins above which it is settled.
MOST = 0.5


def unsettled(results: Results) -> Mapping[str, set[tuple[int, str]]]:
    """Of every path method the sites (layer, module) at which no more than half of the proteins are settled."""
    gaps = results.get("completeness")
    if gaps is None or "settled" not in gaps:  # a run of before
        return {}
    share = gaps["settled"].astype(float).groupby([gaps["method"], gaps["layer"], gaps["module"]]).mean()
    found: dict[str, set[tuple[int, str]]] = {}
    for method, layer, module in share.index[share <= MOST]:
        found.setdefault(str(method), set()).add((int(layer), str(module)))
    return found


def unsettled_words(results: Results) -> str:
    """A sentence for every method that has such sites: where, with how many points, what it means; else nothing."""
    said = []
    for method, sites in unsettled(results).items():
        gaps = results.tables["completeness"]
        own = gaps[gaps["method"] == method]
        said.append(
            f"Attributions by {words(method)} are not settled in {_places(own, sites)} ({count(own['points'].max())} "
            "points: the gap of half of the proteins or more is above the tolerance), so that ranks there may change."
        )
    return " ".join(said)


def _places(gaps: pd.DataFrame, sites: set[tuple[int, str]]) -> str:
    """Layers of which all kinds are meant by their number, others with the kinds: ``layer 0 and key of layer 4``."""
    every = set(gaps["module"])
    kinds = {layer: {module for one, module in sites if one == layer} for layer in sorted({one for one, _ in sites})}
    whole = [str(layer) for layer, modules in kinds.items() if modules == every]
    said = [f"layer{'s' if len(whole) > 1 else ''} {listed(whole)}"] if whole else []
    parts: dict[str, list[str]] = {}
    for layer, modules in kinds.items():
        if modules != every:
            parts.setdefault(listed(sorted(words(module) for module in modules)), []).append(str(layer))
    said += [f"{names} of layer{'s' if len(on) > 1 else ''} {listed(on)}" for names, on in parts.items()]
    return "; ".join(said)
