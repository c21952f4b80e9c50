"""What the model says of proteins with a selection of neurons kept, all others held at constants."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from plmscope.data.proteins import Protein
from plmscope.models.classifier import Classifier
from plmscope.models.hooked import network_of
from plmscope.models.workers import in_order


@dataclass(frozen=True)
class Predictions:
    """What the model says about ``P`` proteins.

    Attributes:
        predicted: ``(P,)`` class numbers; in a multi-label task ``(P, W)`` packed sets of classes.
        log_prob_true: ``(P,)`` natural log of the true class's probability, see :meth:`Classifier.answers`.
    """

    predicted: np.ndarray
    log_prob_true: np.ndarray


def predict(
    classifier: Classifier,
    proteins: Sequence[Protein],
    keep: Iterator[tuple[np.ndarray, np.ndarray]] | Sequence[tuple[np.ndarray, np.ndarray]],
    token_budget: int = 2048,
) -> Iterator[Predictions]:
    """Predictions of the ablated model for many selections, in order.

    Args:
        classifier: The model; it is not changed.
        proteins: Labelled.
        keep: Pairs of ``(N,)`` booleans, true where a neuron works, and ``(3, N)`` constants for the others.
        token_budget: Padded tokens a batch.

    Yields:
        One :class:`Predictions` a pair. Exact: held neurons leave the network (:mod:`plmscope.models.folded`).
    """
    network = network_of(classifier)
    slices = {site: classifier.index.slice(site) for site in classifier.index.sites}
    true = classifier.targets(proteins)
    held = network.held_logits(classifier.batches(proteins, token_budget), slices)

    @torch.inference_mode()
    def one(pair: tuple[np.ndarray, np.ndarray]) -> Predictions:
        predicted = np.zeros(len(proteins), dtype=classifier.answer_dtype)
        log_prob = np.zeros(len(proteins), dtype=np.float32)
        for rows, logits in held(*pair):
            predicted[rows], log_prob[rows] = classifier.answers(logits, true[rows])
        return Predictions(predicted, log_prob)

    return in_order(one, keep, classifier.device)
