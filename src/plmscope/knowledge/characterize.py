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

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import cast

import numpy as np
import pandas as pd
import torch

from plmscope.data.proteins import Protein
from plmscope.errors import InputError, SelectionError
from plmscope.evaluation.selection import Selection
from plmscope.knowledge.codes import Codes, firing_codes
from plmscope.knowledge.concept_neurons import CHOSEN, best_neurons, best_of_all
from plmscope.knowledge.concepts import ConceptSet, build_concepts
from plmscope.knowledge.confirmation import association_table, permuted_marks
from plmscope.knowledge.discovery import (
    CharacterizeSettings,
    Pairs,
    chosen_pairs,
    marked_protein,
)
from plmscope.knowledge.letters import LETTERS_DISCOVERED
from plmscope.knowledge.motifs import MOTIF_FRACTION, Motifs, TopWindows, joined_motifs, make_motifs
from plmscope.knowledge.passes import ConfirmationPass, DiscoveryPass, Others, by_crew, go_through
from plmscope.knowledge.saved import MOTIFS, PAIRS, PEAKS, Saved, arrays_of, put_back
from plmscope.knowledge.stream import Chunk, Stream, by_protein, protein_means, stream_of
from plmscope.models.classifier import Classifier
from plmscope.progress import Track, silent
from plmscope.stats.chance import benjamini_hochberg
from plmscope.store.resume import Parts
from plmscope.store.schema import SCHEMA
from plmscope.tasks.crew import ALONE, Crew

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
    crew: Crew = ALONE,
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
        crew: Who goes through the proteins.

    Raises:
        InputError: there are no proteins on one side, or a protein is on both.
        RunError: the disk is full, or workers died again and again.

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
            others=None if crew.alone else by_crew(crew, classifier, sites, token_budget, track),
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
    others: Others | None = None,
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
    firing, device = firing_codes(settings.fractions), device or torch.device("cpu")
    saved = Saved(parts, name)
    chosen = np.flatnonzero(selected)
    size = min(settings.windows, max(1, len(discovery) // 4))
    if (all_ := saved.read("found")) is not None:
        return _found_before(all_, TopWindows(2 * len(chosen), size), chosen, discovery, concepts, confirmation)
    codes = _fitted(stream, n, discovery, settings, saved)
    held = np.zeros(len(concepts), np.int64)  # by how many proteins of confirmation
    marks = []
    for protein in confirmation:
        annotation = concepts.annotate(protein)
        held[[*annotation.positions, *annotation.holds]] += 1
        marks.append(marked_protein(annotation))
    saved_pairs = saved.read("chosen")
    if saved_pairs is None:
        first = DiscoveryPass(concepts, n, chosen, firing, size, codes, device)
        go_through(first, stream, discovery, "discovering", saved, others)
        first.windows.settle()
        pairs, chosen_for = _chosen(first, n, held, settings)
        windows, letters = first.windows, arrays_of(first.letters, LETTERS_DISCOVERED)
        del first  # its counts are large
        saved.write(
            "chosen",
            lambda: {
                **arrays_of(pairs, PAIRS), **arrays_of(windows, PEAKS), **letters,
                **{f"best{k}/{name}": one[name] for k, one in enumerate(chosen_for) for name in CHOSEN},
            },
        )  # fmt: skip
        saved.drop("discovering")
    else:
        pairs, windows = Pairs(*(saved_pairs[field] for field in PAIRS)), TopWindows(2 * len(chosen), size)
        put_back(windows, PEAKS, saved_pairs)
        letters = {name: saved_pairs[name] for name in LETTERS_DISCOVERED}
        chosen_for = [{name: saved_pairs[f"best{k}/{name}"] for name in CHOSEN} for k in (0, 1)]
    rare, usual = (int(firing[np.argmin(np.abs(np.array(settings.fractions) - f))]) for f in (MOTIF_FRACTION, 0.2))
    second = ConfirmationPass(
        concepts, n, chosen, pairs, chosen_for, letters,
        make_motifs(windows, chosen, discovery, concepts, confirmation) if len(chosen) else None, (usual, rare),
        marks, permuted_marks(marks, np.random.default_rng([settings.seed, 12])), settings.seed, codes, device,
    )  # fmt: skip
    go_through(second, stream, confirmation, "confirming", saved, others)
    motifs = second.motifs
    table = association_table(pairs, second.levels, concepts, second.codes)
    table["auroc_beyond_letter"] = second.letters.beyond()
    of_letters = second.letters.table()
    best = pd.concat([one.table() for one in second.best], ignore_index=True)
    beyond = second.letters.beyond_of(motifs) if motifs is not None else np.zeros(0)

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


def _found_before(
    all_: Mapping[str, np.ndarray],
    windows: TopWindows,
    chosen: np.ndarray,
    discovery: Sequence[Protein],
    concepts: ConceptSet,
    confirmation: Sequence[Protein],
) -> Characterization:
    """What an earlier process found and kept whole."""
    put_back(windows, PEAKS, all_, "windows/")
    motifs = make_motifs(windows, chosen, discovery, concepts, confirmation) if len(chosen) else None
    if motifs is not None:
        put_back(motifs, MOTIFS, all_, "motifs/")
        motifs = motifs.finished(all_["motifs beyond"])
    table, of_letters, best = (
        pd.DataFrame({key.removeprefix(prefix): _plain(all_[key]) for key in all_ if key.startswith(prefix)})
        for prefix in ("table/", "letters/", "best/")
    )
    return Characterization(table, motifs, 0, 0, of_letters, best)


def _chosen(
    first: DiscoveryPass, n: int, held: np.ndarray, settings: CharacterizeSettings
) -> tuple[Pairs, list[dict[str, np.ndarray]]]:
    """Pairs to confirm, and the neurons of concepts; ``held`` counts the held-out proteins of every concept."""
    eligible = np.flatnonzero((first.seen >= settings.min_proteins) & (2 * held >= settings.min_proteins)).tolist()
    selected = np.zeros(n, bool)
    selected[first.chosen] = True
    pairs = chosen_pairs(first.counts, eligible, selected, settings, firing_codes(settings.fractions))
    return pairs, [best_neurons(counts, eligible) for counts in first.counts]


def _fitted(
    stream: Stream, n: int, proteins: Sequence[Protein], settings: CharacterizeSettings, saved: Saved
) -> Mapping[str, np.ndarray]:
    """Codes of residues and of protein means, from a sample of the discovery proteins, as arrays."""
    if (before := saved.read("codes")) is not None:
        return before
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
    codes = fitted[0].arrays("residue/") | fitted[1].arrays("protein/")
    saved.write("codes", lambda: codes)
    return codes
