"""Components by wiring, by hand: which edges count, how far they reach, and which components last long enough."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest

from plmscope.layout.components import by_topology

#: Two neurons of neighbouring layers, the lower one first, to their distance.
Edges = Mapping[tuple[int, int], float]


def components(layers: list[int], edges: Edges, quantile: float = 1.0) -> list[list[int]]:
    """Of neurons that are wired by some edges between neighbouring layers, and by no others."""
    reads, writes = np.zeros((len(layers), len(layers))), np.eye(len(layers))
    for (a, b), distance in edges.items():
        assert layers[b] == layers[a] + 1
        reads[b, a] = 1 / distance
    return by_topology(layers, list(reads), list(writes), quantile)


def star(distances: list[float], first: int = 0) -> Edges:
    """A neuron and its distances to those that come after it."""
    return {(first, first + 1 + place): distance for place, distance in enumerate(distances)}


def long_edges(n: int, first: int) -> tuple[list[int], Edges]:
    """Layers and edges of a star that is longer than all else: of ``2 n - 1`` edges the shorter half is ``n - 1``."""
    return [0, *[1] * n], star([1000.0 + place for place in range(n)], first)


def test_the_shorter_half_of_the_shortest_edges_counts() -> None:
    layers, distances = [0, *[1] * 21], [float(place**2) for place in range(1, 22)]
    # Of 1, 4, 9, ... the quantile 0.2 is 25: of 1, 4, 9 and 16 the shorter half joins two neurons to the first.
    assert components(layers, star(distances), 0.2) == [[0, 1, 2]]
    # With quantile 0.3 it is 49: 1, 4 and 9 are the shorter half of six edges; with one edge more, of an odd number.
    assert components(layers, star(distances), 0.3) == [[0, 1, 2, 3]]
    assert components(layers, star(distances), 0.31) == [[0, 1, 2, 3, 4]]


def test_a_component_lasts_longer_than_the_median_birth() -> None:
    # Births: 1, 1, 100; 2, 2, 3; 2, 2, 5; of all of them the median is 2. From birth to longest edge: 99, 1 and 3.
    stars = star([1, 100]) | star([2, 3], 3) | star([2, 5], 6)
    layers, others = long_edges(len(stars) + 1, 9)
    assert components([0, 1, 1] * 3 + layers, stars | others) == [[0, 1, 2], [6, 7, 8]]


@pytest.mark.parametrize(("birth_of_others", "found"), [(1.5, [[0, 1, 2, 3, 4]]), (2.5, [])])
def test_a_chain_spans_three_layers(birth_of_others: float, found: list[list[int]]) -> None:
    # Five neurons in five layers, each 1 from the next. Their longest edge is 3, which is 2 after their birth: 1 if
    # chains were no longer than two layers, 3 if one spanned all five. Three pairs of others make the median birth.
    chain = {(place, place + 1): 1.0 for place in range(4)}
    pairs = {(5 + 2 * place, 6 + 2 * place): birth_of_others for place in range(3)}
    layers, others = long_edges(4 + 3 + 2 + 3 + 1, 11)
    assert components([0, 1, 2, 3, 4, *[0, 1] * 3, *layers], chain | pairs | others) == found
