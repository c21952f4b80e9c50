"""A linear probe with an elastic net, and the ranking of neurons by its weights.

With ``x`` the standardised activations of a sample, ``W`` the weights ``(C, N)`` and ``b`` the biases::

    loss     = cross entropy(softmax(W x + b), class) + l1 |W|_1 + l2 |W|_2
    e_cn     = sum of |w_cm| over all m with |w_cm| > |w_cn|, over sum_m |w_cm|
    score_cn = 1 - e_cn                        score_n = max_c score_cn

``score`` is the ordering of NeuroX in closed form: there, the neurons that make up 0, 1, ... 100 % of a class's weight
mass are taken in turn, over all classes; a neuron enters at the smallest share above its ``e``. Neurons that enter
together are ordered by their own share of the mass.

``l1 = l2`` is chosen on samples that the fit did not see, by what the best fifth of the neurons decides alone, what the
worst fifth does, and what the penalty costs: ``(A_top - A_bottom) / 2 - (A_0 - A_l) / 2`` (Dalvi et al. 2019).

Departs from NeuroX: activations are standardised, weights start at zero, and there are at least 300 steps, since
proteins are fewer than words. As there, ``l2`` weighs the norm itself; ``squared`` weighs its square.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

PENALTIES = (0.0, 1e-5, 1e-4, 1e-3, 1e-2)
LEARNING_RATE, EPOCHS, BATCH, MIN_STEPS = 1e-3, 10, 32, 300
#: Share of the neurons that the choice of the penalty keeps.
KEPT = 0.2
#: Ties of the score go by the share of the mass, in steps below any difference that matters.
TIE = 1e-9


@dataclass(frozen=True)
class Probe:
    """A fitted probe.

    Attributes:
        weights: ``(C, N)``, zero for neurons that do not vary.
        bias: ``(C,)``
        mean, scale: ``(N,)`` what samples are standardised with; the scale of a constant is infinite.
    """

    weights: np.ndarray
    bias: np.ndarray
    mean: np.ndarray
    scale: np.ndarray

    def predict(self, x: np.ndarray, kept: np.ndarray | None = None) -> np.ndarray:
        """Class numbers ``(P,)`` of samples ``(P, N)``; neurons that are not ``kept`` count as their mean."""
        z = (x - self.mean) / self.scale
        weights = self.weights if kept is None else self.weights * kept
        decided: np.ndarray = (z @ weights.T + self.bias).argmax(1)
        return decided

    def accuracy(self, x: np.ndarray, y: np.ndarray, kept: np.ndarray | None = None) -> float:
        """Share of right classes."""
        return float((self.predict(x, kept) == y).mean())


def fit_probe(
    x: np.ndarray, y: np.ndarray, classes: int, penalty: float = 0.0, *, squared: bool = False, seed: int = 0
) -> Probe:
    """Fit by Adam (learning rate 1e-3, batches of 32, 10 epochs or 300 steps, whichever is more).

    Args:
        x: ``(P, N)`` samples.
        y: ``(P,)`` class numbers.
        classes: Their number.
        penalty: ``l1`` and ``l2``.
        squared: Whether the square of the norm is weighed.
        seed: Of the order of the samples.
    """
    mean, spread = x.mean(0), x.std(0)
    scale = np.where(spread > 1e-5 * np.abs(mean) + 1e-12, spread, np.inf)
    z = ((x - mean) / scale).astype(np.float32)
    target = np.eye(classes, dtype=np.float32)[y]
    rng, n = np.random.default_rng([seed, 31]), len(z)
    w, b = np.zeros((classes, z.shape[1]), np.float32), np.zeros(classes, np.float32)
    moments = [np.zeros_like(part) for part in (w, w, b, b)]
    epochs = max(EPOCHS, -(-MIN_STEPS // -(-n // BATCH)))
    step = 0
    for _ in range(epochs):
        order = rng.permutation(n)
        for start in range(0, n, BATCH):
            rows = order[start : start + BATCH]
            logits = z[rows] @ w.T + b
            p = np.exp(logits - logits.max(1, keepdims=True))
            error = (p / p.sum(1, keepdims=True) - target[rows]) / len(rows)
            gradient = error.T @ z[rows]
            if penalty:
                norm = 0.5 if squared else max(float(np.linalg.norm(w)), 1e-12)
                gradient += penalty * (np.sign(w) + w / norm)
            step += 1
            _adam(w, gradient, moments[0], moments[1], step)
            _adam(b, error.sum(0), moments[2], moments[3], step)
    return Probe(w.astype(np.float64), b.astype(np.float64), mean, scale)


def _adam(value: np.ndarray, gradient: np.ndarray, first: np.ndarray, second: np.ndarray, step: int) -> None:
    """One step, in place."""
    first += 0.1 * (gradient - first)
    second += 0.001 * (np.square(gradient) - second)
    value -= LEARNING_RATE * (first / (1 - 0.9**step)) / (np.sqrt(second / (1 - 0.999**step)) + 1e-8)


def weight_ranking(weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Scores ``(N,)`` over all classes and ``(C, N)`` of each, from weights ``(C, N)``; see the top of this file.

    >>> weight_ranking(np.array([[3.0, -6.0, 1.0], [0.0, 1.0, 4.0]]))[1].round(2).tolist()
    [[0.4, 1.0, 0.1], [0.0, 0.2, 1.0]]
    """
    size = np.abs(weights).astype(np.float64)
    total = np.maximum(size.sum(1, keepdims=True), 1e-300)
    order = np.argsort(-size, axis=1, kind="stable")
    ordered = np.take_along_axis(size, order, 1)
    earlier = np.cumsum(ordered, axis=1) - ordered
    scores = np.empty_like(size)
    np.put_along_axis(scores, order, 1 - earlier / total, 1)
    overall: np.ndarray = scores.max(0) + TIE * (size / total).max(0)
    return overall, scores


def choose_penalty(
    x: np.ndarray, y: np.ndarray, classes: int, held: np.ndarray, *, penalties: Sequence[float] = PENALTIES,
    squared: bool = False, seed: int = 0,
) -> float:  # fmt: skip
    """The penalty that does best on ``held`` samples ``(P,)`` when fitted on the others; ties go to the smaller."""
    if not held.any() or held.all():
        return penalties[0]
    tried, without = [], 0.0
    for penalty in penalties:
        probe = fit_probe(x[~held], y[~held], classes, penalty, squared=squared, seed=seed)
        order = np.argsort(-weight_ranking(probe.weights)[0], kind="stable")
        n = max(1, round(KEPT * len(order)))
        whole, top, bottom = (
            probe.accuracy(x[held], y[held], None if rows is None else np.isin(np.arange(len(order)), rows))
            for rows in (None, order[:n], order[-n:])
        )
        without = whole if penalty == penalties[0] else without
        tried.append(0.5 * (top - bottom) - 0.5 * (without - whole))
    return penalties[int(np.argmax(tried))]


def every_third(y: np.ndarray) -> np.ndarray:
    """``(P,)`` true for every third sample of each class: what :func:`choose_penalty` holds out."""
    held = np.zeros(len(y), dtype=bool)
    for label in np.unique(y):
        held[np.flatnonzero(y == label)[2::3]] = True
    return held
