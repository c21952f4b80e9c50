"""What each neuron detects: every neuron against every concept, on held-out proteins.

A neuron *fires* where its activation is among its highest (sign +1) or lowest (sign -1) share f of residues. For all
neurons, concepts, signs and eight shares at once, counts of binarised activations times binary concepts give::

    precision = TP / fired     recall = TP / positives, or stretches touched / stretches     F1 = 2 P R / (P + R)
    F1 gain   = (F1 - F0) / (1 - F0),   F0 = 2 pi / (1 + pi): the F1 of firing everywhere, pi the concept's share

1. *Codes*: a sample of residues gives every neuron's distribution; from then on an activation is a rank of 256 levels.
2. *Discovery* (train clusters): each neuron's best concept and share, by F1 gain.
3. *Confirmation* (validation and test clusters): precision, recall, F1, IoU and AUROC of that pair, and a test with
   one number a cluster: the mean code on the annotated residues minus that on the annotation **shifted circularly**
   within the protein (by at least 10), which keeps its length, number and spacing. Wilcoxon signed ranks over clusters,
   one-sided; for concepts of whole proteins the rank-sum test. Benjamini-Hochberg over all pairs.

One protein stands for its cluster. Memory depends on neurons and concepts, not on proteins.

Source: F1 with touched stretches as in InterPLM (Simon and Zou 2024); IoU as in network dissection (Bau et al. 2017).
Departs: both signs, concept chosen by gain so that frequent ones do not win by frequency, nulls, held-out clusters.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import cast

import numpy as np
import pandas as pd
import torch

from plmscope.data.proteins import Protein
from plmscope.errors import InputError, SelectionError
from plmscope.evaluation.selection import Selection
from plmscope.knowledge.codes import Codes, firing_codes
from plmscope.knowledge.concept_neurons import CHOSEN, COUNTED, ConceptNeurons, best_neurons, best_of_all
from plmscope.knowledge.concepts import ConceptSet, build_concepts
from plmscope.knowledge.confirmation import Confirmation, association_table, offsets, permuted_marks, shifted_marks
from plmscope.knowledge.discovery import (
    CharacterizeSettings,
    Counts,
    Pairs,
    chosen_pairs,
    marked_protein,
    marked_residues,
)
from plmscope.knowledge.letters import LETTERS_DISCOVERED, LETTERS_JUDGED, Letters
from plmscope.knowledge.motifs import MOTIF_FRACTION, Motifs, TopWindows, joined_motifs, make_motifs
from plmscope.knowledge.saved import CONFIRMED, DISCOVERED, MOTIFS, PAIRS, PEAKS, Saved, arrays_of, put_back
from plmscope.knowledge.stream import Chunk, Stream, by_protein, of_both_signs, protein_means, stream_of
from plmscope.models.classifier import Classifier
from plmscope.progress import Track, silent
from plmscope.stats.chance import benjamini_hochberg
from plmscope.store.resume import Parts
from plmscope.store.schema import SCHEMA

#: Neurons counted in one pass over the proteins; larger models take several passes.
NEURONS_AT_ONCE = 40_000
#: Numbers in the sample that the codes come from.
SAMPLE_SIZE = 120_000_000
SAMPLE_PROTEINS = 512


@dataclass(frozen=True)
class Characterization:
    """What neurons detect.

    Attributes:
        associations: ``position`` in the flat index, then the columns of ``associations.parquet`` behind ``neuron``.
        motifs: Of the selected neurons, both signs; empty without any.
        tested: Pairs that had enough clusters for the test.
        control: How many of them the same test confirms when a shifted annotation takes the place of the true one.
        letters: Of every neuron, ``position`` and the columns of ``letters.parquet`` behind ``neuron``.
        best: The best neurons of every concept, ``position`` in the place of the neuron's columns.
    """

    associations: pd.DataFrame
    motifs: Motifs | None
    tested: int
    control: int
    letters: pd.DataFrame
    best: pd.DataFrame

    def __repr__(self) -> str:
        confirmed = int(self.associations["confirmed"].sum())
        return (
            f"Characterization({self.associations['position'].nunique():,} neurons; {confirmed:,} of {self.tested:,} "
            f"tested pairs confirmed, {self.control:,} with shifted annotations)"
        )


def characterize(
    classifier: Classifier,
    discovery: Sequence[Protein],
    confirmation: Sequence[Protein],
    concepts: ConceptSet,
    selected: np.ndarray | Selection | None = None,
    settings: CharacterizeSettings | None = None,
    *,
    token_budget: int = 2048,
    track: Track = silent,
    parts: Parts | None = None,
) -> Characterization:
    """Compare every neuron of a classifier with every concept; find the motifs of the selected ones.

    Args:
        classifier: The model.
        discovery: Proteins of train clusters, one a cluster.
        confirmation: Proteins of validation and test clusters, one a cluster.
        concepts: What they may be compared with.
        selected: The neurons whose motifs are wanted and that list several concepts, as a selection or ``(N,)``
            booleans; none if left out.
        settings: Shares, rates and seed.
        token_budget: Padded tokens a batch.
        track: Progress.
        parts: Where the passes keep what they have counted, now and then, and continue after a kill.

    Raises:
        InputError: there are no proteins on one side, or a protein is on both.
        RunError: the disk is full.

    The first module of the embedded model, on a few short enzymes:

    >>> import plmscope as ps
    >>> enzymes = ps.read_proteins("plmscope:enzymes", label="ec:1", max_length=60, too_long="skip").proteins[:6]
    >>> model = ps.load_model("plmscope:embedded", labels=("2", "3"), new_head=True)
    >>> model.index = ps.NeuronIndex(model.index.sites[:1], model.index.widths[:1])
    >>> known = ps.concepts(enzymes, kinds=("amino acid",))
    >>> settings = CharacterizeSettings(min_proteins=2)
    >>> found = ps.characterize(model, enzymes[::2], enzymes[1::2], known, settings=settings)
    >>> found.associations["position"].nunique()
    320
    """
    index, settings = classifier.index, settings or CharacterizeSettings()
    if selected is None:
        selected = np.zeros(len(index), bool)
    elif isinstance(selected, Selection):
        selected = selected.mask
    groups: list[Characterization] = []
    for number, sites in enumerate(index.groups(NEURONS_AT_ONCE)):
        where = np.concatenate([np.arange(len(index))[index.slice(site)] for site in sites])
        stream = stream_of(classifier, sites, token_budget, track)
        of_group = associate(
            stream, len(where), discovery, confirmation, concepts, selected[where], settings,
            parts=parts, name=f"pass-{number}", device=classifier.device,
        )  # fmt: skip
        if of_group.motifs is not None:
            of_group.motifs.moved(where)
        associations, letters, best = (
            frame.assign(position=where[frame["position"].to_numpy(dtype=np.int64)])
            for frame in (of_group.associations, of_group.letters, of_group.best)
        )
        groups.append(replace(of_group, associations=associations, letters=letters, best=best))
    return _joined(groups, settings.fdr)


def motifs_of(
    classifier: Classifier,
    selection: Selection,
    discovery: Sequence[Protein],
    confirmation: Sequence[Protein],
    concepts: ConceptSet | None = None,
    settings: CharacterizeSettings | None = None,
    *,
    token_budget: int = 2048,
    track: Track = silent,
) -> pd.DataFrame:
    """The sequence motifs of some neurons, as :func:`characterize` finds them, without looking at the others.

    Args:
        classifier: The model.
        selection: The neurons.
        discovery: Proteins whose highest activations give the motifs, one a cluster.
        confirmation: Proteins of other clusters, on which the motifs are judged.
        concepts: What the column ``annotations`` may name; left out: those of the discovery proteins.
        settings: Number of windows and seed.
        token_budget: Padded tokens a batch.
        track: Progress.

    Returns:
        The columns of ``motifs.parquet``: one row for the highest activations of each neuron (``sign`` 1), one for its
        lowest (``sign`` -1).

    Raises:
        InputError: there are no proteins on one side, or a protein is on both.
        SelectionError: nothing is selected, or the selection belongs to a model of another shape.

    >>> import plmscope as ps
    >>> enzymes = ps.read_proteins("plmscope:enzymes", label="ec:1", max_length=60, too_long="skip").proteins[:6]
    >>> model = ps.load_model("plmscope:embedded", labels=("2", "3"), new_head=True)
    >>> chosen = ps.Selection(model.index, np.arange(len(model.index)) == 5000)
    >>> ps.motifs(model, chosen, enzymes[::2], enzymes[1::2])[["layer", "module", "neuron", "sign"]]
       layer        module  neuron  sign
    0      1  intermediate     840     1
    1      1  intermediate     840    -1
    """
    if classifier.index != selection.index:
        raise SelectionError(f"{selection.name!r} belongs to a model of another shape")
    positions = np.flatnonzero(selection.mask)
    if not len(positions):
        raise SelectionError(f"{selection.name!r} has no neuron; select at least one")
    sites = [classifier.index.sites[site] for site in np.unique(classifier.index.site_of[positions])]
    everything = np.concatenate([np.arange(len(classifier.index))[classifier.index.slice(site)] for site in sites])
    columns = torch.from_numpy(np.searchsorted(everything, positions))
    whole = stream_of(classifier, sites, token_budget, track)

    def stream(proteins: Sequence[Protein], description: str) -> Iterator[Chunk]:
        for chunk in whole(proteins, description):
            yield replace(chunk, values=chunk.values[:, columns.to(chunk.values.device)])

    known = build_concepts(discovery) if concepts is None else concepts
    result = associate(
        stream, len(positions), discovery, confirmation, known, np.ones(len(positions), bool),
        settings or CharacterizeSettings(), device=classifier.device,
    )  # fmt: skip
    motifs = cast(Motifs, result.motifs)  # there are some where neurons are chosen
    motifs.moved(positions)
    return classifier.index.placed(motifs.table)[list(SCHEMA["motifs"])]


def _joined(parts: Sequence[Characterization], fdr: float) -> Characterization:
    """Join the results of several groups of sites; q values are made over the pairs of all of them."""
    frame = pd.concat([part.associations for part in parts], ignore_index=True)
    q = benjamini_hochberg(frame["p_value"].to_numpy())
    frame = frame.assign(q_value=q, confirmed=np.nan_to_num(q, nan=1.0) < fdr)
    control = benjamini_hochberg(frame.pop("control_p").to_numpy())
    motifs = [part.motifs for part in parts if part.motifs is not None]
    return Characterization(
        frame,
        joined_motifs(motifs) if motifs else None,
        int(np.isfinite(q).sum()),
        int((np.nan_to_num(control, nan=1.0) < fdr).sum()),
        pd.concat([part.letters for part in parts], ignore_index=True),
        best_of_all([part.best for part in parts]),
    )


def associate(
    stream: Stream,
    n: int,
    discovery: Sequence[Protein],
    confirmation: Sequence[Protein],
    concepts: ConceptSet,
    selected: np.ndarray,
    settings: CharacterizeSettings,
    *,
    parts: Parts | None = None,
    name: str = "pass",
    device: torch.device | None = None,
) -> Characterization:
    """Do the same for any ``n`` numbers at every residue, wherever they come from; ``q_value`` comes later.

    Raises:
        InputError: there are no proteins on one side, or a protein is on both.
    """
    if not discovery or not confirmation:
        raise InputError("no proteins to discover or to confirm concepts on; the split left none")
    both = {p.id for p in discovery} & {p.id for p in confirmation}
    if both:
        raise InputError(f"protein {min(both)!r} is among those of discovery and of confirmation; split them")
    firing = firing_codes(settings.fractions)
    saved = Saved(parts, name)
    chosen = np.flatnonzero(selected)
    windows = TopWindows(2 * len(chosen), min(settings.windows, max(1, len(discovery) // 4)))
    if (all_ := saved.read("found")) is not None:
        put_back(windows, PEAKS, all_, "windows/")
        motifs = make_motifs(windows, chosen, discovery, concepts, confirmation) if len(chosen) else None
        if motifs is not None:
            put_back(motifs, MOTIFS, all_, "motifs/")
        if motifs is not None:
            motifs = motifs.finished(all_["motifs beyond"])
        table, of_letters, best = (
            pd.DataFrame({key.removeprefix(prefix): _plain(all_[key]) for key in all_ if key.startswith(prefix)})
            for prefix in ("table/", "letters/", "best/")
        )
        return Characterization(table, motifs, 0, 0, of_letters, best)
    residue_codes, protein_codes = _fitted(stream, n, discovery, settings, saved, device or torch.device("cpu"))
    held = np.zeros(len(concepts), np.int64)  # by how many proteins of confirmation
    marks = []
    for protein in confirmation:
        annotation = concepts.annotate(protein)
        held[[*annotation.positions, *annotation.holds]] += 1
        marks.append(marked_protein(annotation))
    letters = Letters(residue_codes.center, chosen)
    saved_pairs = saved.read("chosen")
    if saved_pairs is None:
        pairs, chosen_for = _discovered(
            stream, n, discovery, held, concepts, settings, windows, letters, residue_codes, protein_codes, saved
        )
        saved.write(
            "chosen",
            lambda: {
                **arrays_of(pairs, PAIRS), **arrays_of(windows, PEAKS), **arrays_of(letters, LETTERS_DISCOVERED),
                **{f"best{k}/{name}": one[name] for k, one in enumerate(chosen_for) for name in CHOSEN},
            },
        )  # fmt: skip
        saved.drop("discovering")
    else:
        pairs = Pairs(*(saved_pairs[field] for field in PAIRS))
        put_back(windows, PEAKS, saved_pairs)
        put_back(letters, LETTERS_DISCOVERED, saved_pairs)
        chosen_for = [{name: saved_pairs[f"best{k}/{name}"] for name in CHOSEN} for k in (0, 1)]
    letters.begin(concepts, pairs.neuron, pairs.sign, pairs.concept)
    motifs = make_motifs(windows, chosen, discovery, concepts, confirmation) if len(chosen) else None

    levels = [Confirmation(pairs, concepts, level, n) for level in ("residue", "protein")]
    bests = [ConceptNeurons(one, concepts) for one in chosen_for]
    permuted = permuted_marks(marks, np.random.default_rng([settings.seed, 12]))
    # A neuron of few values may have none as rare as that: its highest then, if it is not its usual one.
    rare, usual = (int(firing[np.argmin(np.abs(np.array(settings.fractions) - f))]) for f in (MOTIF_FRACTION, 0.2))
    high = np.clip(residue_codes.highest[chosen].astype(int), usual, rare)
    low = 255 - np.clip(255 - residue_codes.lowest[chosen].astype(int), usual, rare)
    done = np.zeros(len(confirmation), bool)

    def state() -> dict[str, np.ndarray]:
        kept = arrays_of(levels[0], CONFIRMED, "residue/") | arrays_of(levels[1], CONFIRMED, "protein/")
        kept |= arrays_of(letters, LETTERS_JUDGED, "letters/")
        kept |= {key: part for k in (0, 1) for key, part in arrays_of(bests[k], COUNTED, f"best{k}/").items()}
        return kept | (arrays_of(motifs, MOTIFS, "motifs/") if motifs is not None else {}) | {"done": done}

    if (before := saved.read("confirming")) is not None:
        done = before["done"]
        for level, prefix in zip(levels, ("residue/", "protein/"), strict=True):
            put_back(level, CONFIRMED, before, prefix)
        put_back(letters, LETTERS_JUDGED, before, "letters/")
        for k, one in enumerate(bests):
            put_back(one, COUNTED, before, f"best{k}/")
        if motifs is not None:
            put_back(motifs, MOTIFS, before, "motifs/")
    for chunk in saved.rest(stream, confirmation, "confirming", done, state):
        proteins = [confirmation[row] for row in chunk.rows]
        annotations = [concepts.annotate(protein) for protein in proteins]
        marked = [marked_residues(a, length) for a, length in zip(annotations, chunk.lengths, strict=True)]
        shifts = [offsets(protein, settings.seed) for protein in proteins]
        others = [[shifted_marks(one, shift[k]) for one, shift in zip(marked, shifts, strict=True)] for k in (0, 1)]
        codes = residue_codes(chunk.values)
        levels[0].add(codes, marked, others)
        again = [permuted[row] for row in chunk.rows]
        of_proteins, own = protein_codes(protein_means(chunk)), [marks[row] for row in chunk.rows]
        levels[1].add(of_proteins, own, [again, again])
        bests[0].add(codes, marked)
        bests[1].add(of_proteins, own)
        if motifs is not None:
            fires = np.concatenate([codes[:, chosen] >= high, codes[:, chosen] <= low], axis=1)
            hits = motifs.add(proteins, annotations, fires)
            letters.judge(chunk.values, codes[:, chosen], hits, proteins, annotations)
    table = association_table(pairs, levels, concepts, [residue_codes, protein_codes])
    table["auroc_beyond_letter"] = letters.beyond()
    of_letters = letters.table()
    best = pd.concat([one.table() for one in bests], ignore_index=True)
    beyond = letters.beyond_of(motifs) if motifs is not None else np.zeros(0)

    def everything() -> dict[str, np.ndarray]:
        columns = {f"table/{key}": table[key].to_numpy() for key in table.columns}
        columns |= {f"letters/{key}": of_letters[key].to_numpy() for key in of_letters.columns}
        columns |= {f"best/{key}": best[key].to_numpy() for key in best.columns}
        columns = {key: part.astype(np.str_) if part.dtype == object else part for key, part in columns.items()}
        kept = columns | arrays_of(windows, PEAKS, "windows/") | {"motifs beyond": beyond}
        return kept | (arrays_of(motifs, MOTIFS, "motifs/") if motifs is not None else {})

    saved.write("found", everything)
    saved.drop("codes", "chosen", "confirming")
    return Characterization(table, motifs.finished(beyond) if motifs is not None else None, 0, 0, of_letters, best)


def _plain(values: np.ndarray) -> np.ndarray:
    """Text as the objects that pandas holds."""
    return values.astype(object) if values.dtype.kind == "U" else values


def _discovered(
    stream: Stream,
    n: int,
    discovery: Sequence[Protein],
    held: np.ndarray,
    concepts: ConceptSet,
    settings: CharacterizeSettings,
    windows: TopWindows,
    letters: Letters,
    residue_codes: Codes,
    protein_codes: Codes,
    saved: Saved,
) -> tuple[Pairs, list[dict[str, np.ndarray]]]:
    """The pass over the discovery proteins fills windows and letters and chooses pairs, and the neurons of concepts.

    ``held`` counts the held-out proteins of every concept.
    """
    firing, chosen = firing_codes(settings.fractions), letters.chosen
    with ThreadPoolExecutor(torch.get_num_threads()) as pool:
        of_residues = Counts(concepts, "residue", n, firing, pool)
        of_proteins = Counts(concepts, "protein", n, firing, pool)
        seen, done = np.zeros(len(concepts), np.int64), np.zeros(len(discovery), bool)

        def state() -> dict[str, np.ndarray]:
            windows.settle()
            kept = arrays_of(of_residues, DISCOVERED, "residue/") | arrays_of(of_proteins, DISCOVERED, "protein/")
            kept |= arrays_of(letters, LETTERS_DISCOVERED, "letters/")
            return kept | arrays_of(windows, PEAKS, "windows/") | {"seen": seen, "done": done}

        if (before := saved.read("discovering")) is not None:
            seen, done = before["seen"], before["done"]
            put_back(of_residues, DISCOVERED, before, "residue/")
            put_back(of_proteins, DISCOVERED, before, "protein/")
            put_back(windows, PEAKS, before, "windows/")
            put_back(letters, LETTERS_DISCOVERED, before, "letters/")
        for chunk in saved.rest(stream, discovery, "discovering", done, state):
            annotations = [concepts.annotate(discovery[row]) for row in chunk.rows]
            for annotation in annotations:
                seen[[*annotation.positions, *annotation.holds]] += 1
            codes = residue_codes(chunk.values)
            letters.discover(chunk.values, codes[:, chosen], [discovery[row] for row in chunk.rows])
            of_residues.add(
                codes,
                [marked_residues(a, length) for a, length in zip(annotations, chunk.lengths, strict=True)],
            )
            of_proteins.add(protein_codes(protein_means(chunk)), [marked_protein(a) for a in annotations])
            if len(chosen):
                windows.add(of_both_signs(chunk, chosen), chunk.rows, chunk.lengths)
        windows.settle()
    eligible = np.flatnonzero((seen >= settings.min_proteins) & (2 * held >= settings.min_proteins))
    selected = np.zeros(n, bool)
    selected[chosen] = True
    pairs = chosen_pairs([of_residues, of_proteins], eligible.tolist(), selected, settings, firing)
    return pairs, [best_neurons(counts, eligible.tolist()) for counts in (of_residues, of_proteins)]


def _fitted(
    stream: Stream,
    n: int,
    proteins: Sequence[Protein],
    settings: CharacterizeSettings,
    saved: Saved,
    device: torch.device,
) -> tuple[Codes, Codes]:
    """Codes of residues and of protein means, from a sample of the discovery proteins."""
    if (before := saved.read("codes")) is not None:
        return Codes.of(before, "residue/", device), Codes.of(before, "protein/", device)
    rng = np.random.default_rng([settings.seed, 10])
    some = [proteins[i] for i in np.sort(rng.permutation(len(proteins))[:SAMPLE_PROTEINS])]
    each = -(-min(16_384, max(1024, SAMPLE_SIZE // n)) // len(some))
    residues, means = [], []
    for chunk in stream(some, "sampling activations"):
        for part in by_protein(chunk):
            rows = rng.permutation(len(part))[:each]
            residues.append(part[torch.from_numpy(np.sort(rows)).to(part.device)])
        means.append(protein_means(chunk))
    fitted = Codes.fit(torch.cat(residues), settings.fractions), Codes.fit(torch.cat(means), settings.fractions)
    saved.write("codes", lambda: fitted[0].arrays("residue/") | fitted[1].arrays("protein/"))
    return fitted
