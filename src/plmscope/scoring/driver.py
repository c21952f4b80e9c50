"""The one loop that all scorers run in: batches of proteins, what each protein gives, sums over groups of them.

A scorer says how many tokens it takes at once and what the proteins of one batch give (:class:`Given`). The driver
makes the batches, shares them out to the cores, splits what does not fit into memory, shows progress, and adds up
values and completeness. What has been summed merges with the sums over other proteins, which is all that saving,
resuming and shards need (:mod:`plmscope.scoring.shards`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd
import torch

from plmscope.data.proteins import Protein
from plmscope.models.classifier import Batch, Classifier
from plmscope.models.sites import Site
from plmscope.models.workers import in_order, splitting
from plmscope.progress import Track
from plmscope.scoring.scores import Completeness, GroupSums, NeuronScores, statistics_of, token_sums
from plmscope.scoring.targets import Request

Finish = Callable[[str, GroupSums, Mapping[str, Any], pd.DataFrame | None], NeuronScores]


@dataclass(frozen=True)
class Given:
    """What the proteins of one batch give.

    Attributes:
        rows: Positions of the proteins.
        values: Statistic to ``(B, N)``.
        gaps: Of path methods, ``(B, S)`` each: what the attributions should sum to and do sum to, points, settled.
    """

    rows: list[int]
    values: Mapping[str, np.ndarray]
    gaps: tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray] | None = None


@dataclass(frozen=True)
class Drive:
    """How a scorer goes through the proteins.

    Attributes:
        classifier: The model.
        description: What progress says.
        track: Progress.
        budget: Tokens at once, which a batch that does not fit is tried again with less of.
        batch_tokens: Padded tokens of a batch, where that is another number.
        threaded: Whether batches may be worked on at the same time; not with hooks on the model itself.
        sites: Those whose completeness is stored, in the order of :attr:`Given.gaps`.
    """

    classifier: Classifier
    description: str
    track: Track
    budget: int
    batch_tokens: int = 0
    threaded: bool = True
    sites: Sequence[Site] = field(default=())

    def add_up(
        self,
        proteins: Sequence[Protein],
        sums: GroupSums,
        work: Callable[[Batch, int], Given],
        cases: Sequence[Sequence[int]] | None = None,
    ) -> pd.DataFrame | None:
        """Add what ``work`` gives of all proteins to ``sums``; the completeness of path methods.

        Args:
            proteins: In the order of ``sums``.
            sums: Of nothing yet.
            work: Of a batch and a budget.
            cases: Rows of ``sums`` of every protein, where these are not one a protein.
        """
        batches = self.classifier.batches(proteins, self.batch_tokens or self.budget)
        gaps, tried = Completeness([(site.layer, site.module) for site in self.sites]), splitting(work, self.budget)
        done: Iterator[list[Given]] = (
            in_order(tried, batches, self.classifier.device) if self.threaded else map(tried, batches)
        )
        for given in (
            one for given_together in self.track(done, self.description, len(batches)) for one in given_together
        ):
            if cases is None:
                sums.add(given.rows, **given.values)
            else:
                times, where = (
                    [len(cases[row]) for row in given.rows],
                    [case for row in given.rows for case in cases[row]],
                )
                sums.add(where, **{name: np.repeat(many, times, axis=0) for name, many in given.values.items()})
            if given.gaps is not None:
                gaps.add([proteins[row].id for row in given.rows], *given.gaps)
        return gaps.frame() if self.sites else None

    def signed(
        self,
        method: str,
        asked: Request,
        work: Callable[[Batch, torch.Tensor, int], Given],
        settings: Mapping[str, Any],
        *,
        rms: bool = False,
        more: Sequence[str] = (),
        finish: Finish | None = None,
    ) -> tuple[NeuronScores, ...]:
        """The scores of a method with a sign and its unsigned forms.

        Args:
            method: Its name, under which ``work`` gives token sums ``(B, N)``.
            asked: The proteins and classes that are explained.
            work: Of a batch, the classes that are explained ``(B,)``, and a budget.
            settings: What the scores depend on.
            rms: Whether the root mean square is wanted too.
            more: Other statistics that ``work`` gives.
            finish: Makes scores of the sums; left out: :meth:`~plmscope.scoring.scores.GroupSums.finish`.
        """
        model, statistics = self.classifier, statistics_of(method, rms)
        sums = GroupSums.empty(model.index, model.labels, asked.ids, asked.classes, asked.groups, *statistics, *more)

        def all_forms(batch: Batch, budget: int) -> Given:
            given = work(batch, torch.tensor(asked.classes[batch.rows], device=model.device), budget)
            return replace(given, values={**given.values, **token_sums(method, given.values[method], rms)})

        frame = self.add_up(asked.proteins, sums, all_forms)
        made = finish or (lambda name, *found: sums.finish(name, *found[1:]))
        return tuple(made(one, sums, settings, frame) for one in statistics)
