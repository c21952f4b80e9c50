"""Intrinsic probing: a Gaussian for every class, and the neurons that tell most about the class, chosen one by one.

With ``S_z`` the scatter matrix of the ``n_z`` samples of a class and ``D`` the neurons that are looked at together::

    mu_z    = mean of the class
    Sigma_z = (diag(cov_z) + S_z) / (v0 + n_z + D + 2),    v0 = D + 2
    MI      = H(Z) - H(Z | h)  in bits,    H(Z | h) = mean over samples of - log2 p(z | h)

Greedy: the neuron that raises MI most joins the others. Candidates are the best 500 by the standardised class means; 50
are chosen at most. Everything is chosen on training samples and reported on others.

A rank-one extension of the Cholesky factor costs what one more row costs: ``r_j = (h_j - mu_j) - b_j . u`` is kept for
every candidate ``j``, with ``u`` the whitened deviations of the chosen ones.

Source: Torroba Hennigen et al. 2020. Departs: ``D`` is the number of neurons that are looked at together, not of all
candidates, whose prior would drown a class of few proteins; candidates are fewer; zero deviations become a small one.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from plmscope.probing.class_means import probeless

CANDIDATES, CHOSEN = 500, 50


@dataclass(frozen=True)
class Greedy:
    """Neurons in the order in which they were chosen.

    Attributes:
        neurons: ``(K,)``
        train_bits, held_out_bits: ``(K,)`` mutual information with the class, of the neurons up to each; NaN without
            held-out samples. Held-out bits may be negative: a model that is sure and wrong.
    """

    neurons: np.ndarray
    train_bits: np.ndarray
    held_out_bits: np.ndarray


class _Class:
    """Residuals of all candidates for one class, after the chosen ones."""

    def __init__(self, x: np.ndarray, own: np.ndarray, everyone: np.ndarray) -> None:
        self.n, self.mean = len(own), own.mean(0)
        rest = own - self.mean
        floor = 1e-4 * np.maximum(everyone.var(0), 1e-24)
        self.diagonal = np.maximum(np.square(rest).mean(0), floor)
        self.own_rest = rest
        self.left = self.diagonal + np.square(rest).sum(0)  # what is left of the variance of every candidate
        self.deviation = x - self.mean  # (P, J), less what the chosen explain
        self.rows: list[np.ndarray] = []
        self.square, self.log = np.zeros(len(x)), 0.0

    def density(self, d: int) -> np.ndarray:
        """``(P, J)`` log density of the chosen ``d`` with each candidate, up to a constant of all classes."""
        factor = 2 * (d + 1) + self.n + 4
        square = self.square[:, None] + np.square(self.deviation) / self.left
        log_density: np.ndarray = -0.5 * (factor * square + self.log + np.log(self.left) - (d + 1) * np.log(factor))
        return log_density

    def take(self, j: int) -> None:
        """Candidate ``j`` joins the chosen."""
        covariance = self.own_rest.T @ self.own_rest[:, j]
        covariance[j] += self.diagonal[j]
        for row in self.rows:
            covariance = covariance - row * row[j]
        root = np.sqrt(self.left[j])
        row, u = covariance / root, self.deviation[:, j] / root
        self.square = self.square + np.square(u)
        self.log += float(np.log(self.left[j]))
        self.rows.append(row)
        self.deviation = self.deviation - u[:, None] * row
        self.left = np.maximum(self.left - np.square(row), 1e-12 * self.diagonal)


def _bits(log_joint: np.ndarray, y: np.ndarray, entropy: float) -> np.ndarray:
    """Mutual information ``(J,)`` from log p(h, z) ``(Z, P, J)``."""
    top = log_joint.max(0)
    log_sum = top + np.log(np.exp(log_joint - top).sum(0))
    own = np.take_along_axis(log_joint, y[None, :, None], 0)[0]
    bits: np.ndarray = entropy + (own - log_sum).mean(0) / np.log(2)
    return bits


def gaussian_selection(
    x: np.ndarray, y: np.ndarray, held: np.ndarray | None = None, chosen: int = CHOSEN, candidates: int = CANDIDATES
) -> Greedy:
    """Choose neurons one by one.

    Args:
        x: ``(P, N)`` samples.
        y: ``(P,)`` class numbers; classes of fewer than two training samples are left out.
        held: ``(P,)`` samples that only the report sees.
        chosen: At most this many; it ends before, where no candidate raises the information.
        candidates: Best by standardised class means, of the training samples.
    """
    held = np.zeros(len(y), bool) if held is None else held
    present = [z for z in np.unique(y[~held]) if (y[~held] == z).sum() >= 2]
    keep = np.isin(y, present)
    x, number, held = x[keep], np.searchsorted(present, y[keep]), held[keep]
    scores = probeless(x[~held], number[~held], len(present), standardised=True)[0]
    pool = np.argsort(-scores, kind="stable")[:candidates]
    pool = pool[scores[pool] > 0]
    scale = x[~held][:, pool].std(0)
    z = (x[:, pool] - x[~held][:, pool].mean(0)) / np.maximum(scale, 1e-12)
    train = ~held
    classes = [_Class(z, z[train & (number == c)], z[train]) for c in range(len(present))]
    share = np.array([(number[train] == c).mean() for c in range(len(present))])
    entropy = float(-(share * np.log2(share)).sum())
    taken: list[int] = []
    bits: list[tuple[float, float]] = []
    while len(taken) < min(chosen, len(pool)):
        joint = np.stack([one.density(len(taken)) + np.log(s) for one, s in zip(classes, share, strict=True)])
        train_bits = _bits(joint[:, train], number[train], entropy)
        train_bits[taken] = -np.inf
        best = int(train_bits.argmax())
        if taken and train_bits[best] <= bits[-1][0]:
            break
        other = _bits(joint[:, held, best, None], number[held], entropy)[0] if held.any() else np.nan
        bits.append((float(train_bits[best]), float(other)))
        taken.append(best)
        for one in classes:
            one.take(best)
    table = np.array(bits).reshape(-1, 2)
    return Greedy(pool[taken], table[:, 0], table[:, 1])
