"""The two passes of a characterization over proteins: what they count, and who goes through the proteins.

Everything that a pass counts is a sum over proteins, but for the highest windows, which merge. It therefore does not
matter who counts which proteins: a pass of nothing yet is made anew on every worker from what :attr:`Pass.given` says,
counts the batches of a task, and is added to the one here. A worker has the same batches as this process would.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any, Protocol

import numpy as np
import torch

from plmscope.data.proteins import Protein
from plmscope.knowledge.codes import Codes
from plmscope.knowledge.concept_neurons import COUNTED, ConceptNeurons
from plmscope.knowledge.concepts import ConceptSet
from plmscope.knowledge.confirmation import Confirmation, offsets, shifted_marks
from plmscope.knowledge.discovery import Counts, Marked, Pairs, marked_protein, marked_residues
from plmscope.knowledge.letters import LETTERS_DISCOVERED, LETTERS_JUDGED, Letters
from plmscope.knowledge.motifs import Motifs, TopWindows
from plmscope.knowledge.saved import CONFIRMED, DISCOVERED, MOTIFS, PEAKS, Saved, arrays_of, put_back
from plmscope.knowledge.stream import Chunk, Stream, of_both_signs, protein_means, stream_of
from plmscope.models.classifier import Classifier
from plmscope.models.sites import Site
from plmscope.models.supplied import Supplies, supplies
from plmscope.progress import Track
from plmscope.store.resume import Arrays
from plmscope.tasks.crew import Crew
from plmscope.tasks.task import Task


class Pass(Protocol):
    """What is counted in one pass."""

    given: dict[str, Any]

    def use(self, chunk: Chunk, proteins: Sequence[Protein]) -> None:
        """Count some proteins; the chunk's rows are their places among all."""

    def arrays(self) -> Arrays:
        """All that was counted."""

    def put_back(self, arrays: Mapping[str, np.ndarray]) -> None:
        """What :meth:`arrays` gave, in place of what was counted."""

    def add(self, arrays: Mapping[str, np.ndarray]) -> None:
        """What :meth:`arrays` gave for other proteins."""


#: Goes through the proteins of these places: the places of some of them with what a pass counted there.
Others = Callable[[Pass, Sequence[Protein], list[int], str], Iterator[tuple[list[int], Arrays]]]


class DiscoveryPass:
    """Firing against concepts, letters and highest windows, on the discovery proteins.

    Attributes:
        given: What it is made from but for the device, as plain values and arrays.
        codes: Of residues, and of protein means.
        counts: At both levels.
        letters: Of the chosen neurons.
        windows: Of the same, both signs.
        seen: ``(concepts,)`` proteins that have each.
    """

    def __init__(
        self,
        concepts: ConceptSet,
        n: int,
        chosen: np.ndarray,
        firing: np.ndarray,
        windows: int,
        codes: Mapping[str, np.ndarray],
        device: torch.device,
    ) -> None:
        self.given: dict[str, Any] = {
            "concepts": concepts, "n": n, "chosen": chosen, "firing": firing, "windows": windows, "codes": codes
        }  # fmt: skip
        self.concepts, self.chosen = concepts, chosen
        self.codes = Codes.of(codes, "residue/", device), Codes.of(codes, "protein/", device)
        pool = ThreadPoolExecutor(torch.get_num_threads())
        self.counts = [Counts(concepts, level, n, firing, pool) for level in ("residue", "protein")]
        self.letters = Letters(self.codes[0].center, chosen)
        self.windows = TopWindows(2 * len(chosen), windows)
        self.seen = np.zeros(len(concepts), np.int64)

    def use(self, chunk: Chunk, proteins: Sequence[Protein]) -> None:
        """Count some proteins."""
        annotations = [self.concepts.annotate(protein) for protein in proteins]
        for annotation in annotations:
            self.seen[[*annotation.positions, *annotation.holds]] += 1
        codes = self.codes[0](chunk.values)
        self.letters.discover(chunk.values, codes[:, self.chosen], proteins)
        marked = [marked_residues(a, length) for a, length in zip(annotations, chunk.lengths, strict=True)]
        self.counts[0].add(codes, marked)
        self.counts[1].add(self.codes[1](protein_means(chunk)), [marked_protein(a) for a in annotations])
        if len(self.chosen):
            self.windows.add(of_both_signs(chunk, self.chosen), chunk.rows, chunk.lengths)

    def arrays(self) -> Arrays:
        """All that was counted."""
        self.windows.settle()
        kept = arrays_of(self.counts[0], DISCOVERED, "residue/") | arrays_of(self.counts[1], DISCOVERED, "protein/")
        kept |= arrays_of(self.letters, LETTERS_DISCOVERED, "letters/")
        return kept | arrays_of(self.windows, PEAKS, "windows/") | {"seen": self.seen}

    def put_back(self, arrays: Mapping[str, np.ndarray]) -> None:
        """What was counted before."""
        self.seen = arrays["seen"]
        put_back(self.counts[0], DISCOVERED, arrays, "residue/")
        put_back(self.counts[1], DISCOVERED, arrays, "protein/")
        put_back(self.letters, LETTERS_DISCOVERED, arrays, "letters/")
        put_back(self.windows, PEAKS, arrays, "windows/")

    def add(self, arrays: Mapping[str, np.ndarray]) -> None:
        """What was counted elsewhere."""
        own = self.arrays()
        for key in own:
            if not key.startswith("windows/"):
                own[key] = own[key] + arrays[key]
        self.put_back(own)
        self.windows.take(*(arrays[f"windows/{name}"] for name in PEAKS))


class ConfirmationPass:
    """Chosen pairs, neurons of concepts, letters and motifs, on the confirmation proteins.

    Attributes:
        given: What it is made from but for the device, as plain values and arrays.
        levels: Pairs of residues, and of proteins.
        best: Neurons of concepts, at both levels.
        letters: Of the chosen neurons.
        motifs: Of the same, both signs; None without any.
    """

    def __init__(
        self,
        concepts: ConceptSet,
        n: int,
        chosen: np.ndarray,
        pairs: Pairs,
        chosen_for: Sequence[dict[str, np.ndarray]],
        letters: Mapping[str, np.ndarray],
        motifs: Motifs | None,
        bounds: tuple[int, int],
        marks: Sequence[Marked],
        permuted: Sequence[Marked],
        seed: int,
        codes: Mapping[str, np.ndarray],
        device: torch.device,
    ) -> None:
        self.given: dict[str, Any] = {
            "concepts": concepts, "n": n, "chosen": chosen, "pairs": pairs, "chosen_for": chosen_for,
            "letters": letters, "motifs": motifs, "bounds": bounds, "marks": marks, "permuted": permuted,
            "seed": seed, "codes": codes,
        }  # fmt: skip
        self.concepts, self.chosen, self.seed = concepts, chosen, seed
        self.marks, self.permuted = marks, permuted
        self.codes = Codes.of(codes, "residue/", device), Codes.of(codes, "protein/", device)
        self.levels = [Confirmation(pairs, concepts, level, n) for level in ("residue", "protein")]
        self.best = [ConceptNeurons(one, concepts) for one in chosen_for]
        self.letters = Letters(self.codes[0].center, chosen)
        put_back(self.letters, LETTERS_DISCOVERED, letters)
        self.letters.begin(concepts, pairs.neuron, pairs.sign, pairs.concept)
        self.motifs = None if motifs is None else replace(motifs)  # of nothing yet
        # A neuron of few values may have none as rare as that: its highest then, if it is not its usual one.
        usual, rare = bounds
        self.high = np.clip(self.codes[0].highest[chosen].astype(int), usual, rare)
        self.low = 255 - np.clip(255 - self.codes[0].lowest[chosen].astype(int), usual, rare)

    def use(self, chunk: Chunk, proteins: Sequence[Protein]) -> None:
        """Count some proteins."""
        annotations = [self.concepts.annotate(protein) for protein in proteins]
        marked = [marked_residues(a, length) for a, length in zip(annotations, chunk.lengths, strict=True)]
        shifts = [offsets(protein, self.seed) for protein in proteins]
        others = [[shifted_marks(one, shift[k]) for one, shift in zip(marked, shifts, strict=True)] for k in (0, 1)]
        codes = self.codes[0](chunk.values)
        self.levels[0].add(codes, marked, others)
        again = [self.permuted[row] for row in chunk.rows]
        of_proteins, own = self.codes[1](protein_means(chunk)), [self.marks[row] for row in chunk.rows]
        self.levels[1].add(of_proteins, own, [again, again])
        self.best[0].add(codes, marked)
        self.best[1].add(of_proteins, own)
        if self.motifs is not None:
            chosen = codes[:, self.chosen]
            hits = self.motifs.add(
                proteins, annotations, np.concatenate([chosen >= self.high, chosen <= self.low], axis=1)
            )
            self.letters.judge(chunk.values, chosen, hits, proteins, annotations)

    def arrays(self) -> Arrays:
        """All that was counted."""
        kept = arrays_of(self.levels[0], CONFIRMED, "residue/") | arrays_of(self.levels[1], CONFIRMED, "protein/")
        kept |= arrays_of(self.letters, LETTERS_JUDGED, "letters/")
        kept |= {key: part for k in (0, 1) for key, part in arrays_of(self.best[k], COUNTED, f"best{k}/").items()}
        return kept | ({} if self.motifs is None else arrays_of(self.motifs, MOTIFS, "motifs/"))

    def put_back(self, arrays: Mapping[str, np.ndarray]) -> None:
        """What was counted before."""
        for level, prefix in zip(self.levels, ("residue/", "protein/"), strict=True):
            put_back(level, CONFIRMED, arrays, prefix)
        put_back(self.letters, LETTERS_JUDGED, arrays, "letters/")
        for k, one in enumerate(self.best):
            put_back(one, COUNTED, arrays, f"best{k}/")
        if self.motifs is not None:
            put_back(self.motifs, MOTIFS, arrays, "motifs/")

    def add(self, arrays: Mapping[str, np.ndarray]) -> None:
        """What was counted elsewhere."""
        self.put_back({key: part + arrays[key] for key, part in self.arrays().items()})


def go_through(
    one: Pass, stream: Stream, proteins: Sequence[Protein], what: str, saved: Saved, others: Others | None = None
) -> None:
    """Count all proteins, after those that an earlier process counted.

    Args:
        one: The pass.
        stream: Activations, in this process.
        proteins: Of this pass.
        what: Its name among what is saved, and for the progress.
        saved: Where it keeps what it has, now and then.
        others: Who goes through the proteins instead.
    """
    done = np.zeros(len(proteins), bool)

    def state() -> Arrays:
        return one.arrays() | {"done": done}

    if (before := saved.read(what)) is not None:
        done = before.pop("done")
        one.put_back(before)
    if others is None:
        for chunk in saved.rest(stream, proteins, what, done, state):
            one.use(chunk, [proteins[row] for row in chunk.rows])
        return
    for rows, arrays in others(one, proteins, np.flatnonzero(~done).tolist(), what):
        one.add(arrays)
        done[rows] = True
        saved.keep(what, state)


def by_crew(crew: Crew, classifier: Classifier, sites: Sequence[Site], token_budget: int, track: Track) -> Others:
    """The workers of a crew as those who go through the proteins: a task is a run of batches, from long to short."""

    def others(
        one: Pass, proteins: Sequence[Protein], rows: list[int], what: str
    ) -> Iterator[tuple[list[int], Arrays]]:
        plan = classifier.batches([proteins[row] for row in rows], token_budget).plan
        runs = [[rows[place] for batch in run for place in batch] for run in crew.runs_of(plan)]
        tasks = [
            Task(str(number), f"{__name__}:counted", {"proteins": [proteins[row] for row in run], "rows": run})
            for number, run in enumerate(runs)
        ]
        sent = supplies(crew, sites=tuple(sites), token_budget=token_budget, kind=type(one), given=one.given)
        for name, arrays in track(crew.results(tasks, sent), f"{what}, parts of the proteins", len(tasks)):
            yield runs[int(name)], arrays

    return others


def counted(supplies: Supplies, proteins: list[Protein], rows: list[int]) -> Arrays:
    """A task of :func:`by_crew`: what a pass counts in some proteins."""
    classifier = supplies.classifier
    one: Pass = supplies["kind"](**supplies["given"], device=classifier.device)
    for chunk in stream_of(classifier, supplies["sites"], supplies["token_budget"])(proteins, ""):
        own = [proteins[place] for place in chunk.rows]
        one.use(replace(chunk, rows=[rows[place] for place in chunk.rows]), own)
    return one.arrays()
