"""Resample ablation: a held neuron takes the values that it has in another protein, instead of one constant.

::

    held neuron at token t of protein p  =  its activation at token t of a donor d, in the intact model
    P(class)                             =  mean over k donors of P(class | donor)

A constant is a value that the network may never see together with the rest; a donor's values are real ones. What comes
out is what the model says when it does not know which protein the held neurons belong to. Donors are proteins of other
classes, the nearest in length. The first and the last token take the donor's; residue i takes residue i of the donor,
which starts again where it is shorter.

It runs the untouched Hugging Face model with hooks, one pass a donor and selection: held neurons do not leave the
network as they do for constants (:mod:`plmscope.evaluation.predict`), so that it is several times as dear.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
import torch

from plmscope.data.labels import LabelTask, classes_of
from plmscope.data.proteins import Protein
from plmscope.errors import SelectionError
from plmscope.evaluation.predict import Predictions
from plmscope.models import hooks
from plmscope.models.classifier import Batch, Classifier
from plmscope.models.sites import Site
from plmscope.models.workers import splitting

#: What this ablation is called.
RESAMPLE = "resample"
#: Selections for which the donors of a batch are run once.
CHUNK = 32


@dataclass(frozen=True)
class Donors:
    """The proteins that held neurons take their values from.

    Attributes:
        pool: Proteins.
        chosen: ``(P, k)`` positions in the pool, for every protein that is judged.
    """

    pool: tuple[Protein, ...]
    chosen: np.ndarray


def donors(
    proteins: Sequence[Protein], pool: Sequence[Protein], k: int = 4, seed: int = 0, task: LabelTask = "single"
) -> Donors:
    """For every protein the ``k`` proteins without a class of its own that are nearest in length.

    Args:
        proteins: Labelled.
        pool: Labelled proteins to choose from, such as those of training.
        k: Donors a protein.
        seed: Decides between equal lengths.
        task: Of the labels.

    Raises:
        SelectionError: too few proteins of other classes.
    """
    order = np.random.default_rng([seed, 28]).permutation(len(pool))
    shuffled = [pool[int(place)] for place in order]
    lengths = np.array([len(one) for one in shuffled])
    classes = [set(classes_of(str(one.label), task)) for one in shuffled]
    chosen = np.zeros((len(proteins), k), dtype=np.int64)
    for row, protein in enumerate(proteins):
        own = set(classes_of(str(protein.label), task))
        able = [
            place for place in range(len(shuffled)) if not own & classes[place] and shuffled[place].id != protein.id
        ]
        if len(able) < k:
            raise SelectionError(
                f"resample ablation of {protein.id!r}: {len(able)} proteins of other classes, {k} are needed; lower "
                "evaluate.donors or leave resample out of the ablations"
            )
        near = np.argsort(np.abs(lengths[able] - len(protein)), kind="stable")[:k]
        chosen[row] = [able[int(place)] for place in near]
    return Donors(tuple(shuffled), chosen)


def tokens_of_donor(length: int, donor: int, width: int) -> np.ndarray:
    """Which token of a donor each token takes, ``(width,)``; lengths with first and last token, padding takes 0.

    >>> tokens_of_donor(6, 4, 7).tolist()
    [0, 1, 2, 1, 2, 3, 0]
    >>> tokens_of_donor(4, 6, 4).tolist()
    [0, 1, 2, 5]
    """
    found = np.zeros(width, dtype=np.int64)
    found[1 : length - 1] = 1 + np.arange(length - 2) % (donor - 2)
    found[length - 1] = donor - 1
    return found


def predict_resampled(
    classifier: Classifier,
    proteins: Sequence[Protein],
    keep: Iterable[np.ndarray],
    given: Donors,
    token_budget: int = 2048,
) -> Iterator[Predictions]:
    """Predictions for many selections, in order, with all other neurons at their donors' values.

    Args:
        classifier: The model; it is not changed.
        proteins: Labelled.
        keep: ``(N,)`` booleans, true where a neuron works.
        given: From :func:`donors`, for the same proteins.
        token_budget: Padded tokens a batch.

    Yields:
        One :class:`Predictions` a selection; probabilities are means over donors.
    """
    waiting = iter(keep)
    while masks := list(islice(waiting, CHUNK)):
        yield from _chunk(classifier, proteins, masks, given, token_budget)


@torch.inference_mode()
def _chunk(
    classifier: Classifier, proteins: Sequence[Protein], masks: Sequence[np.ndarray], given: Donors, token_budget: int
) -> list[Predictions]:
    """Some selections on all proteins: every batch's donors are run once."""
    true, k = classifier.targets(proteins), given.chosen.shape[1]
    sums = np.zeros((len(masks), len(proteins), len(classifier.labels)))

    def work(batch: Batch, _: int) -> None:
        sums[:, batch.rows] = 0  # what an attempt that ran out of memory had added
        for number in range(k):
            values = _values(classifier, batch, [given.pool[place] for place in given.chosen[batch.rows, number]])
            for place, mask in enumerate(masks):
                with hooks.replace(classifier, _changes(classifier, mask, values)):
                    logits = classifier.model(input_ids=batch.input_ids, attention_mask=batch.attention_mask).logits
                odds = logits.double()
                p = odds.softmax(1) if classifier.task == "single" else odds.sigmoid()
                sums[place, batch.rows] += p.cpu().numpy() / k

    for batch in classifier.batches(proteins, token_budget):
        splitting(work, 0)(batch)
    found = []
    for p in torch.from_numpy(sums).clamp(1e-300, 1):
        logits = p.log() if classifier.task == "single" else torch.logit(p, eps=1e-12)
        found.append(Predictions(*_typed(classifier, *classifier.answers(logits, true))))
    return found


def _typed(classifier: Classifier, predicted: np.ndarray, log_prob: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Answers as the other ablations store them."""
    kind = classifier.answer_dtype
    return (predicted if kind.shape else predicted.astype(kind)), log_prob.astype(np.float32)


def _values(classifier: Classifier, batch: Batch, own: Sequence[Protein]) -> dict[Site, torch.Tensor]:
    """What every neuron has in the donors of a batch, laid out over the batch's tokens, ``(B, T, N)`` a site."""
    theirs = classifier.batch(own)
    with hooks.record(classifier, classifier.index.sites) as seen:
        classifier.model(input_ids=theirs.input_ids, attention_mask=theirs.attention_mask)
    width = batch.input_ids.shape[1]
    places = np.stack(
        [
            tokens_of_donor(int(length), int(donor), width)
            for length, donor in zip(batch.lengths.tolist(), theirs.lengths.tolist(), strict=True)
        ]
    )
    taken = torch.from_numpy(places).to(batch.input_ids.device)
    rows = torch.arange(len(places), device=taken.device).unsqueeze(1)
    return {site: value[rows, taken] for site, value in seen.items()}


def _changes(classifier: Classifier, mask: np.ndarray, values: dict[Site, torch.Tensor]) -> dict[Site, hooks.Rewrite]:
    """What becomes of every site that has a held neuron."""
    found: dict[Site, hooks.Rewrite] = {}
    for site, value in values.items():
        own = mask[classifier.index.slice(site)]
        if not own.all():
            found[site] = _mixed(torch.from_numpy(own).to(value.device), value)
    return found


def _mixed(works: torch.Tensor, value: torch.Tensor) -> hooks.Rewrite:
    """A neuron's own activation where it works, else the donor's."""

    def change(activation: torch.Tensor) -> torch.Tensor:
        return torch.where(works, activation, value.to(activation.dtype))

    return change
