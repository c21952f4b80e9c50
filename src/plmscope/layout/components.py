"""A class's neurons in groups that do one thing: by what they do together, or by how they are wired.

``correlation``: average linkage on ``1 - |r|``, r the correlation of two neurons' attributions over proteins, cut at
0.5. ``topology``, of feed-forward neurons A (layer l) and B (layer l + 1)::

    w = W_out[l][:, A] . W_in[l + 1][B, :]      d(A, B) = |1 / w|

farther layers by the shortest chain through the chosen neurons, over at most three layers; none within a layer. Edges
shorter than the 0.2 quantile of finite distances are kept, and of these the shorter half; what they join is a
component. A point is *born* at its shortest edge; a component counts if its longest edge is later than its own birth
by more than the median birth of all points, or if one edge is all that is left. ``single``: every neuron by itself.

After the published code of degenerate knowledge neurons (Chen et al., arXiv:2402.13731), with attributions in place of
activations for the correlation.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.spatial.distance import squareform

from plmscope.models.sites import NeuronIndex

METHODS = ("correlation", "topology", "single")
#: Where average linkage is cut, the quantile of the edges that are kept, and the most layers that an edge spans.
CUT, QUANTILE, SPAN = 0.5, 0.2, 3


def by_correlation(attributions: np.ndarray, cut: float = CUT) -> list[list[int]]:
    """Groups of columns of ``attributions (P, n)``, the largest first; a column that never varies is by itself.

    >>> x = np.array([0.0, 1.0, 2.0, 5.0])
    >>> by_correlation(np.stack([x, -2 * x, [1.0, 0.0, 0.0, 1.0]], 1))
    [[0, 1], [2]]
    """
    n = attributions.shape[1]
    if n < 2 or len(attributions) < 2:
        return [[column] for column in range(n)]
    centred = attributions - attributions.mean(0)
    size = np.linalg.norm(centred, axis=0)
    unit = centred / np.where(size > 0, size, 1.0)
    far = 1 - np.abs(unit.T @ unit)
    np.fill_diagonal(far, 0.0)
    names = fcluster(linkage(squareform(np.clip(far, 0, 1), checks=False), "average"), cut, "distance")
    return sorted(([int(c) for c in np.flatnonzero(names == name)] for name in np.unique(names)), key=_size_first)


def by_topology(
    layers: Sequence[int], reads: Sequence[np.ndarray], writes: Sequence[np.ndarray], quantile: float = QUANTILE
) -> list[list[int]]:
    """Groups of feed-forward neurons that are wired to each other.

    Args:
        layers: ``n`` layers.
        reads: ``n`` rows of their layers' input weights, ``(d,)``.
        writes: ``n`` columns of their layers' output weights, ``(d,)``.
        quantile: Of the finite distances below which an edge is kept.

    Returns:
        Positions among the ``n``, the largest component first; neurons outside every component are in none.
    """
    n = len(layers)
    far = _distances(np.asarray(layers), np.array(reads), np.array(writes))
    pairs = [(far[a, b], a, b) for a in range(n) for b in range(n) if np.isfinite(far[a, b])]
    if not pairs:
        return []
    limit = np.quantile([length for length, _, _ in pairs], quantile)
    edges = sorted(edge for edge in pairs if edge[0] < limit or len(pairs) == 1)
    edges = edges[: -(-len(edges) // 2)]
    birth: dict[int, float] = {}
    group = list(range(n))
    longest: dict[int, float] = {}
    for length, a, b in edges:  # the shortest first
        birth.setdefault(a, length)
        birth.setdefault(b, length)
        one, other = group[a], group[b]
        if one != other:
            group = [one if name == other else name for name in group]
        longest[one] = length
    median = float(np.median(list(birth.values()))) if birth else 0.0
    components = []
    for name in sorted({group[point] for point in birth}):
        points = [point for point in range(n) if group[point] == name]
        if longest[name] - min(birth[point] for point in points) > median or len(edges) == 1:
            components.append(points)
    return sorted(components, key=_size_first)


def _distances(layers: np.ndarray, reads: np.ndarray, writes: np.ndarray) -> np.ndarray:
    """``(n, n)`` shortest chains from a lower to a higher layer; infinite where there is none or it is too long."""
    n = len(layers)
    far = np.full((n, n), np.inf)
    for a in range(n):
        following = layers == layers[a] + 1
        weight = np.abs(reads[following] @ writes[a])
        far[a, following] = np.where(weight > 0, 1 / np.where(weight > 0, weight, 1.0), np.inf)
    direct = far.copy()
    for _ in range(SPAN - 1):  # one layer more with every step
        chained = (far[:, :, None] + direct[None, :, :]).min(1) if n else far
        far = np.minimum(far, chained)
    return far


def wired(index: NeuronIndex, network: object, positions: Sequence[int]) -> list[list[int]]:
    """:func:`by_topology` of the feed-forward neurons at some positions; groups of positions.

    Args:
        index: Which position is which neuron.
        network: One whose layers name their weights (:class:`~plmscope.models.esm.EsmNetwork`).
        positions: Neurons of any kind; only those of module ``intermediate`` can be in a group.
    """
    layers_of: Sequence[object] = getattr(network, "layers", ())
    own = [p for p in positions if index.neuron(int(p)).site.module == "intermediate"]
    layers, reads, writes = [], [], []
    for position in own:
        neuron = index.neuron(int(position))
        layer = layers_of[neuron.site.layer]
        layers.append(neuron.site.layer)
        reads.append(weights_of(layer, "intermediate")[neuron.index])
        writes.append(weights_of(layer, "output")[:, neuron.index])
    return [[int(own[place]) for place in group] for group in by_topology(layers, reads, writes)]


def weights_of(layer: object, module: str) -> np.ndarray:
    """Weights ``(out, in)`` of a module of a layer."""
    weights: np.ndarray = getattr(layer, module).weight.detach().double().cpu().numpy()
    return weights


def _size_first(group: list[int]) -> tuple[int, int]:
    return -len(group), group[0]
