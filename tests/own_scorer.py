"""What somebody else's scorer looks like: this file, and its row at the end."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from plmscope.data.labels import cases
from plmscope.data.proteins import Protein
from plmscope.models.classifier import Batch, Classifier
from plmscope.models.hooks import record
from plmscope.progress import Track, silent
from plmscope.scoring.driver import Drive, Given
from plmscope.scoring.scores import GroupSums, NeuronScores
from plmscope.scoring.table import Scorer


@torch.inference_mode()
def largest_scores(
    classifier: Classifier,
    proteins: Sequence[Protein],
    *,
    token_budget: int = 2048,
    groups: Sequence[str] | None = None,
    track: Track = silent,
) -> tuple[NeuronScores, ...]:
    """``largest``: the mean over proteins of the largest activation at a residue."""
    owners, classes = cases(classifier.membership(proteins))
    names = None if groups is None else [groups[row] for row in owners]
    ids = [proteins[row].id for row in owners]
    sums = GroupSums.empty(classifier.index, classifier.labels, ids, classes, names, "largest")

    def work(batch: Batch, _: int) -> Given:
        seen.clear()
        classifier.model(input_ids=batch.input_ids, attention_mask=batch.attention_mask)
        outside = ~batch.residue_mask.bool().unsqueeze(-1)
        peaks = [seen[site].float().masked_fill(outside, -torch.inf).amax(1) for site in classifier.index.sites]
        return Given(batch.rows, {"largest": torch.cat(peaks, dim=1).double().cpu().numpy()})

    with record(classifier, classifier.index.sites) as seen:
        drive = Drive(classifier, "largest activations", track, token_budget, threaded=False)
        drive.add_up([proteins[row] for row in owners], sums, work)
    return (sums.finish("largest"),)


ROW = Scorer({"largest": "how large does it get?"}, "tests.own_scorer:largest_scores", family="activation-based")
