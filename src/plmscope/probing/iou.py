"""IoU: do the proteins in which a neuron is highest make up a class?

With ``n_z`` samples of class ``z``, a neuron fires at its ``n_z`` highest samples, or on the other side at its lowest::

    IoU_n(z) = |fires and z| / (2 n_z - |fires and z|)          score_n = max over z and both sides

Source: network dissection (Bau et al. 2017), as NeuroX ranks neurons by it. Departs: the threshold is that of the
class's own share, since one of 0.005 would fire at 5 of 1,000 proteins; both sides.
"""

from __future__ import annotations

import numpy as np


def class_overlap(x: np.ndarray, y: np.ndarray, classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Scores ``(N,)`` over all classes and ``(C, N)`` of each, from samples ``(P, N)`` of classes ``(P,)``.

    A neuron that does not vary scores 0; equal samples go in their order.

    >>> class_overlap(np.array([[4.0], [3.0], [2.0], [1.0]]), np.array([0, 0, 1, 1]), 2)[1].tolist()
    [[1.0], [1.0]]
    """
    order = np.argsort(x, axis=0, kind="stable")  # (P, N), lowest first
    varies = x.std(0) > 1e-5 * np.abs(x.mean(0)) + 1e-12
    own = np.zeros((classes, x.shape[1]))
    for z, n in enumerate(np.bincount(y, minlength=classes).tolist()):
        if n:
            hits = np.maximum(*((y[rows] == z).sum(0) for rows in (order[:n], order[len(y) - n :])))
            own[z] = np.where(varies, hits / (2 * n - hits), 0.0)
    best: np.ndarray = own.max(0)
    return best, own
