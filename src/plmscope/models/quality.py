"""How good a classifier is, beside what knows nothing of sequence order.

Two such classifiers stand beside it: the majority class, and a multinomial logistic regression on the 20 amino-acid
frequencies and the logarithm of the length; in a multi-label task both class by class. A model that does not beat them
has learned nothing worth explaining.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import (
    accuracy_score,
    average_precision_score,
    f1_score,
    log_loss,
    matthews_corrcoef,
    precision_recall_fscore_support,
)
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from plmscope.data.labels import BoolArray, LabelTask, pack
from plmscope.data.proteins import AMINO_ACIDS, Protein
from plmscope.stats.metrics import metric


def quality(true: np.ndarray, log_p: np.ndarray, labels: Sequence[str]) -> dict[str, Any]:
    """Classification metrics of one set of proteins.

    Args:
        true: ``(P,)`` class numbers, or ``(P, C)`` booleans in a multi-label task.
        log_p: ``(P, C)`` log probabilities; ``-inf`` counts as 1e-12.
        labels: ``C`` class names.

    Returns:
        ``n, accuracy, balanced_accuracy, macro_f1, mcc, log_loss`` (nats) and ``per_class`` with
        ``n, precision, recall, f1``; a class without proteins has n = 0 and does not enter the balanced accuracy, and
        the macro F1 only if it is predicted.

        A multi-label task is one yes-or-no task per class, a class being predicted where its probability is above one
        half: balanced accuracy, F1, Matthews coefficient and log-loss are means over the classes (the first three over
        those that have proteins), ``accuracy`` is the share of proteins with exactly the right set. It also has
        ``micro_f1`` (all classes counted together) and ``mean_average_precision``, per class ``average_precision``.
    """
    probabilities = np.clip(np.exp(log_p), 1e-12, 1)
    if true.ndim == 2:
        return _multi_label_quality(true, probabilities, labels)
    predicted = log_p.argmax(1)
    numbers = np.arange(len(labels))
    precision, recall, f1, n = precision_recall_fscore_support(true, predicted, labels=numbers, zero_division=0.0)
    return {
        "n": len(true),
        "accuracy": float(accuracy_score(true, predicted)),
        "balanced_accuracy": float(recall[n > 0].mean()),
        "macro_f1": float(f1_score(true, predicted, average="macro", zero_division=0.0)),  # as in stats
        "mcc": float(matthews_corrcoef(true, predicted)),
        "log_loss": float(log_loss(true, probabilities / probabilities.sum(1, keepdims=True), labels=numbers)),
        "per_class": {
            label: {"n": int(n[c]), "precision": float(precision[c]), "recall": float(recall[c]), "f1": float(f1[c])}
            for c, label in enumerate(labels)
        },
    }


def _multi_label_quality(true: BoolArray, probabilities: np.ndarray, labels: Sequence[str]) -> dict[str, Any]:
    """:func:`quality` of a multi-label task."""
    predicted = probabilities > 0.5
    inside = np.clip(probabilities, 1e-12, 1 - 1e-12)
    precision, recall, f1, n = precision_recall_fscore_support(true, predicted, zero_division=0.0)
    present = np.flatnonzero(n)
    ranked = {c: float(average_precision_score(true[:, c], probabilities[:, c])) for c in present.tolist()}
    return {
        "n": len(true),
        "accuracy": float(accuracy_score(true, predicted)),
        "balanced_accuracy": metric("balanced_accuracy", true, pack(predicted), np.zeros(len(true)), len(labels)),
        "macro_f1": float(f1[(n > 0) | predicted.any(0)].mean()),
        "mcc": float(np.mean([matthews_corrcoef(true[:, c], predicted[:, c]) for c in present.tolist()])),
        "log_loss": float(-np.where(true, np.log(inside), np.log1p(-inside)).mean()),
        "micro_f1": float(f1_score(true, predicted, average="micro", zero_division=0.0)),
        "mean_average_precision": float(np.mean(list(ranked.values()))),
        "per_class": {
            label: {"n": int(n[c]), "precision": float(precision[c]), "recall": float(recall[c]), "f1": float(f1[c])}
            | ({"average_precision": ranked[c]} if c in ranked else {})
            for c, label in enumerate(labels)
        },
    }


def composition(proteins: Sequence[Protein]) -> np.ndarray:
    """The 20 amino-acid frequencies and the natural log of the length, ``(P, 21)``."""
    shares = np.empty((len(proteins), len(AMINO_ACIDS) + 1))
    for row, p in zip(shares, proteins, strict=True):  # one list of all would take four times the memory
        row[:-1] = [p.sequence.count(letter) / len(p) for letter in AMINO_ACIDS]
        row[-1] = np.log(len(p))
    return shares


def baselines(
    train: Sequence[Protein], other: Sequence[Protein], members: BoolArray, task: LabelTask, seed: int
) -> dict[str, np.ndarray]:
    """Log probabilities ``(P, C)`` of two classifiers that know nothing of sequence order.

    Args:
        train: What they learn from.
        other: What they are asked about.
        members: ``(len(train), C)`` classes of the training proteins.
        task: ``single``, or ``multi``: one yes-or-no question per class.
        seed: Of the logistic regression.

    Returns:
        ``majority`` (the training frequencies) and ``composition`` (balanced logistic regression, its
        regularisation chosen by nothing: scikit-learn's default).
    """
    majority = np.log(np.maximum(members.sum(0) / len(members), 1e-12))
    log_p = np.full((len(other), members.shape[1]), np.log(1e-12))
    known, asked = composition(train), composition(other)

    def regression(answers: np.ndarray) -> Any:
        model = LogisticRegression(max_iter=2000, class_weight="balanced", random_state=seed)
        return make_pipeline(StandardScaler(), model).fit(known, answers)

    if task == "single":
        model = regression(members.argmax(1))
        log_p[:, model.classes_] = model.predict_log_proba(asked)
    else:
        for c, own in enumerate(members.T):
            if own.all():
                log_p[:, c] = 0.0
            elif own.any():
                log_p[:, c] = regression(own).predict_log_proba(asked)[:, 1]
    return {"majority": np.tile(majority, (len(other), 1)), "composition": log_p}
