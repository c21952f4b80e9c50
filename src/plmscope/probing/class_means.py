"""Probeless: rank neurons by how far the class means of their activation lie apart; nothing is trained.

With ``mu_z`` the mean over the samples of class ``z``, each sample a protein's mean activation::

    score_n     = sum_{z < z'} |mu_z - mu_z'|
    score_n(z)  = sum_{z'} |mu_z - mu_z'|

``probeless`` compares the scales of modules as much as what they know; ``probeless_standardised`` divides by the
standard deviation within classes, pooled.

Source: Antverg and Belinkov 2022. Departs: the second form, and samples are proteins.
"""

from __future__ import annotations

import numpy as np


def probeless(x: np.ndarray, y: np.ndarray, classes: int, standardised: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """Scores ``(N,)`` over all classes and ``(C, N)`` of each, from samples ``(P, N)`` of classes ``(P,)``.

    A class without samples has no distance; a neuron that does not vary within classes scores 0 when standardised.

    >>> probeless(np.array([[0.0], [1.0], [5.0]]), np.array([0, 1, 2]), 3)[0].tolist()
    [10.0]
    """
    present = np.unique(y)
    means = np.stack([x[y == z].mean(0) for z in present])  # (Z, N)
    if standardised:
        rest = x - means[np.searchsorted(present, y)]
        spread = np.sqrt(np.square(rest).sum(0) / max(len(x) - len(present), 1))
        means = means / np.where(spread > 1e-5 * np.abs(x.mean(0)) + 1e-12, spread, np.inf)
    own = np.zeros((classes, x.shape[1]))
    for number, z in enumerate(present):
        own[z] = np.abs(means - means[number]).sum(0)
    total: np.ndarray = own.sum(0) / 2
    return total, own
