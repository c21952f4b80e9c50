"""How far runs choose the same neurons: the overlap of their best shares, against what matched chance gives.

Two fine-tuned models that started from one checkpoint have the same neurons; neurons of models that were initialised
apart do not correspond and are not compared. Chance keeps the number that each run chose in every site
(:mod:`plmscope.evaluation.overlap`). Pairs of runs are not independent of each other (three runs have three pairs),
so that a mean over pairs has a range and no interval.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from itertools import combinations

import numpy as np
import pandas as pd

from plmscope.comparing.members import Member
from plmscope.evaluation.overlap import overlap
from plmscope.evaluation.selection import Selection
from plmscope.models.architectures import MODULES
from plmscope.models.sites import NeuronIndex, Site

COLUMNS = (
    "run", "other", "group", "other_group", "method", "scope", "module", "fraction", "n", "n_other", "shared",
    "jaccard", "jaccard_expected", "p_value",
)  # fmt: skip


def shared_table(members: Sequence[Member]) -> pd.DataFrame:
    """``compared_neurons``: one row a pair of runs, method, scope, kind and share that both have selected.

    ``module`` names the kind in scope ``module``, and is empty where all neurons were ranked together. ``p_value``
    takes the neurons of a site for exchangeable: it is descriptive only.
    """
    chosen = {member.name: _chosen(member) for member in members}
    rows = []
    for one, other in combinations(members, 2):
        if one.base != other.base:
            continue
        for key, first in chosen[one.name].items():
            second = chosen[other.name].get(key)
            if second is not None and first.index == second.index:
                names = dict(zip(("method", "scope", "module", "fraction"), key, strict=True))
                pair = {"run": one.name, "other": other.name, "group": one.group, "other_group": other.group}
                rows.append(pair | names | asdict(overlap(first, second)))
    return pd.DataFrame(rows, columns=list(COLUMNS))


def _chosen(member: Member) -> dict[tuple[str, str, str, float], Selection]:
    """The selections of one run that are no draws: by method, scope, kind and share."""
    selections = member.table("selections")
    selections = selections[(selections["draw"] < 0) & selections["scope"].isin(["pooled", "module"])]
    if not len(selections):
        return {}
    neurons = member.run.table("neurons")
    index = _index(neurons)
    starts = {(site.layer, site.module): start for site, start in index.offsets.items()}
    places = pd.MultiIndex.from_frame(selections[["layer", "module"]]).map(starts).to_numpy(dtype=np.int64)
    positions = pd.Series(places + selections["neuron"].to_numpy(dtype=np.int64), index=selections.index)
    chosen: dict[tuple[str, str, str, float], Selection] = {}
    for key, part in selections.groupby(["method", "scope", "fraction"], sort=False):
        method, scope, fraction = key
        kinds = [kind for kind in MODULES if kind in set(part["module"])] if scope == "module" else [""]
        for kind in kinds:
            own = part if not kind else part[part["module"] == kind]
            mask = np.zeros(len(index), dtype=bool)
            mask[positions[own.index].to_numpy()] = True
            chosen[str(method), str(scope), kind, float(str(fraction))] = Selection(
                index, mask, f"{member.name}: {method}"
            )
    return chosen


def _index(neurons: pd.DataFrame) -> NeuronIndex:
    """The neurons of a model from its table, which has them in their order."""
    counts = neurons.groupby(["layer", "module"], sort=False).size()
    sites = tuple(Site(int(layer), str(module)) for layer, module in counts.index)
    return NeuronIndex(sites, tuple(int(n) for n in counts))
