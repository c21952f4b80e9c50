"""A sentence a neuron, made from the evidence and never beyond it.

A neuron is *explained* by a concept that was confirmed on held-out clusters and either says where the neuron fires
(F1 gain of at least ``min_gain``) or orders its activations: AUROC of at least ``min_auroc``, from enough clusters that
its lower bound is at least half as far above chance, and an F1 gain above 0, so that the neuron also fires there more
than elsewhere. Or by its motif, if that predicts on held-out clusters where it fires (AUROC of at least ``min_auroc``).
Otherwise the sentence is "Neither a concept nor a motif explains this neuron": a number, not a failure to hide.

    Fires on the pattern GxSxG (G-x-S-x-G: nucleophile elbow ...): F1 0.71, AUROC 0.93 on 212 held-out clusters
    (q = 2e-09); motif G-x-S-x-G, at its S, AUROC 0.96; 71 % of the motif's hits in EC 3; key, layer 3, neuron 17.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.stats import norm

from plmscope.concepts import Concept, ConceptSet
from plmscope.motifs import STRIP, Motifs
from plmscope.sequences import Protein
from plmscope.sites import Neuron, NeuronIndex

UNEXPLAINED = "Neither a concept nor a motif explains this neuron"
#: Peaks listed on a card.
TOP_PROTEINS = 5
#: Kinds of concepts that are marked on their strips.
MARKED = ("feature", "pattern")
#: Firing residues below which a motif is not judged.
MIN_FIRED = 10
#: Residues from an end that count as near it, and the share of peaks that makes it worth saying.
NEAR, MOSTLY = 40, 0.6
#: Peaks are equally high if they differ by at most this share.
TIED = 1e-3


@dataclass(frozen=True)
class Bars:
    """What an explanation has to reach.

    Attributes:
        min_gain: F1 gain on held-out clusters.
        min_auroc: AUROC on held-out clusters; its lower bound half as far above 0.5, and an F1 gain above 0.
    """

    min_gain: float = 0.5
    min_auroc: float = 0.8


def auroc_bound(auroc: np.ndarray, p_value: np.ndarray) -> np.ndarray:
    """Lower 95 % bound (one-sided) of AUROCs, from their tests.

    ``0.5 + (AUROC - 0.5) (1 - 1.645 / z)``, z the normal deviate of the one-sided p: the interval that belongs to the
    test. Few clusters give a small z and a low bound. NaN where there was no test; at most 0.5 where p is 0.05 or more.

    References:
        Test-based limits: Miettinen 1976. Departs from it: a residue's test is that of its shifted annotation.
    """
    z = norm.isf(p_value)
    bound: np.ndarray = 0.5 + (auroc - 0.5) * (1 - norm.isf(0.05) / np.where(z > 0, z, 1e-9))
    return np.where(z > 0, bound, np.where(np.isnan(z), np.nan, 0.0))


def explained(associations: pd.DataFrame, bars: Bars) -> np.ndarray:
    """Which rows of an association table explain their neuron, ``(K,)``; the rule is at the top of this file."""
    gain, auroc = (associations[name].to_numpy(dtype=np.float64) for name in ("f1_gain", "auroc"))
    bound = auroc_bound(auroc, associations["p_value"].to_numpy(dtype=np.float64))
    orders = (auroc >= bars.min_auroc) & (bound >= 0.5 + (bars.min_auroc - 0.5) / 2) & (gain > 0)
    found: np.ndarray = associations["confirmed"].to_numpy(dtype=bool) & ((gain >= bars.min_gain) | orders)
    return found


def neuron_cards(
    selections: pd.DataFrame,
    index: NeuronIndex,
    associations: pd.DataFrame,
    motifs: Motifs,
    concepts: ConceptSet,
    proteins: Sequence[Protein],
    bars: Bars | None = None,
    class_name: str = "class",
) -> pd.DataFrame:
    """``neuron_cards.parquet``: one row a selected neuron and method.

    Args:
        selections: ``method, rank, position``.
        index: The model's neurons.
        associations: Of at least the selected neurons.
        motifs: Of the selected neurons, both signs.
        concepts: What they were compared with.
        proteins: Those of discovery, which the motifs' windows count in.
        bars: What an explanation has to reach.
        class_name: What a class is called in a sentence.
    """
    bars = bars or Bars()
    of_concept = {concept.name: concept for concept in concepts.concepts}
    # In the order of discovery: what is named is not chosen by the numbers that are shown of it.
    good = associations[explained(associations, bars)].sort_values(["position", "rank"], kind="stable")
    by_neuron = dict(iter(good.groupby("position", sort=False)))
    rows_of: dict[int, list[int]] = {}
    for row, position in enumerate(motifs.neurons.tolist()):
        rows_of.setdefault(position, []).append(row)
    sites_of = _Sites(proteins, concepts)
    cards = {
        position: _card(
            index.neuron(position), by_neuron.get(position), rows_of[position], motifs, of_concept, proteins, bars,
            class_name, sites_of,
        )
        for position in selections["position"].unique().tolist()
    }  # fmt: skip
    frame = pd.DataFrame([cards[position] for position in selections["position"]])
    return selections[["method", "rank"]].reset_index(drop=True).join(frame)


def _card(
    neuron: Neuron,
    associations: pd.DataFrame | None,
    rows: Sequence[int],
    motifs: Motifs,
    concepts: Mapping[str, Concept],
    proteins: Sequence[Protein],
    bars: Bars,
    class_name: str,
    sites_of: _Sites,
) -> dict[str, object]:
    """Everything on one card; the sign is that of the concept that discovery ranked best, else of the richest motif."""
    table = motifs.table.iloc[list(rows)]
    judged = (table["consensus"] != "") & (table["n_fired"] >= MIN_FIRED) & (table["auroc_held_out"] >= bars.min_auroc)
    if associations is not None:
        firsts = associations.drop_duplicates("sign")
        best = firsts.iloc[int(firsts["discovery_auroc"].to_numpy().argmax())]
        sign = int(best["sign"])
    else:
        best = None
        bits = table["information_bits"].where(judged, -1.0) if judged.any() else table["information_bits"]
        sign = int(table["sign"].iloc[int(bits.to_numpy().argmax())])
    place = table["sign"].tolist().index(sign)
    row, motif, has_motif = rows[place], table.iloc[place], bool(judged.iloc[place])
    said: list[str] = []
    if best is not None:
        said.append(_concept_text(best, concepts[str(best["concept"])], sign, bars))
    if has_motif:
        text = f"motif {motif['consensus']}{_anchor(motif)}, AUROC {motif['auroc_held_out']:.2f}"
        if best is None:
            text = f"{'Fires' if sign > 0 else 'Goes low'} on the {text} on held-out clusters"
        said += [text, *_where(motifs, row, proteins), *_classes(motif, class_name)]
    elif best is not None:
        said += _where(motifs, row, proteins)
    sentence = "; ".join([*(said or [UNEXPLAINED]), f"{neuron.site.module}, layer {neuron.site.layer}"])
    return {
        "layer": neuron.site.layer, "module": neuron.site.module, "neuron": neuron.index, "sign": sign,
        "sentence": f"{sentence}, neuron {neuron.index}.", "explained": bool(said),
        "concept": "" if best is None else str(best["concept"]),
        "auroc": np.nan if best is None else float(best["auroc"]),
        "f1": np.nan if best is None else float(best["f1"]),
        "motif": motif["consensus"] if has_motif else "",
        "top_proteins": json.dumps(_top_proteins(motifs, row, sign, proteins, sites_of)),
    }  # fmt: skip


def _concept_text(row: pd.Series, concept: Concept, sign: int, bars: Bars) -> str:
    """What the best concept says, with its numbers."""
    if concept.level == "protein":
        verb = "Is high in" if sign > 0 else "Is low in"
    elif row["f1_gain"] >= bars.min_gain:
        verb = "Fires on" if sign > 0 else "Goes low on"
    else:
        verb = "Tends to be high on" if sign > 0 else "Tends to be low on"
    # Of a stretch, a neuron that fires on one residue has found it; the AUROC asks for all of them.
    area = "" if verb in ("Fires on", "Goes low on") and concept.has_stretches else f", AUROC {row['auroc']:.2f}"
    return (
        f"{verb} {concept.phrase}: F1 {row['f1']:.2f}{area} on {row['n_clusters']:,} held-out "
        f"clusters (q = {row['q_value']:.1g})"
    )


def _anchor(motif: pd.Series) -> str:
    """Which residue of the motif carries the peak."""
    letters, anchor = str(motif["consensus"]).split("-"), int(motif["anchor"])
    if len(letters) == 1 and anchor == 0:
        return ""
    if 0 <= anchor < len(letters):
        return f", at its {letters[anchor]}" if letters[anchor] != "x" else f", at its residue {anchor + 1}"
    return f", {anchor - len(letters) + 1} behind it" if anchor > 0 else f", {-anchor} before it"


def _where(motifs: Motifs, row: int, proteins: Sequence[Protein]) -> list[str]:
    """Near an end of the protein, if most peaks are.

    Nothing where all peaks are equally high: such a neuron sees single letters, a protein has the same peak several
    times, and the first of them, which is listed, is near the start for no other reason.
    """
    there = motifs.windows.protein[row] >= 0
    position = motifs.windows.position[row, there]
    length = np.array([len(proteins[p]) for p in motifs.windows.protein[row, there]])
    long = length > 4 * NEAR  # in a short protein everything is near an end
    if long.sum() < MIN_FIRED:
        return []
    peak = motifs.windows.value[row, there][long]
    if np.ptp(peak) <= TIED * np.abs(peak).max():
        return []
    for share, end in (
        ((position[long] < NEAR).mean(), "N"),
        ((length[long] - position[long] <= NEAR).mean(), "C"),
    ):
        if share >= MOSTLY:
            return [f"{share:.0%} of its peaks within {NEAR} residues of the {end}-terminus"]
    return []


def _classes(motif: pd.Series, class_name: str) -> list[str]:
    """The class that has most of the motif's held-out hits, if it has more than its share."""
    classes = json.loads(motif["classes"])
    if not classes:
        return []
    label, numbers = max(classes.items(), key=lambda item: item[1]["share"])
    if numbers["share"] < 0.5 or numbers["enrichment"] < 1.5:
        return []
    return [
        f"{numbers['share']:.0%} of the motif's hits in {class_name} {label} "
        f"({numbers['share'] / numbers['enrichment']:.0%} of the residues)"
    ]


class _Sites:
    """Annotated residues and pattern matches of proteins, read once for each that is asked."""

    def __init__(self, proteins: Sequence[Protein], concepts: ConceptSet) -> None:
        self.proteins, self.concepts = proteins, concepts
        self.told = [i for i, concept in enumerate(concepts.concepts) if concept.kind in MARKED]
        self._of: dict[int, list[tuple[int, str]]] = {}

    def between(self, number: int, start: int, stop: int) -> list[tuple[int, str]]:
        """Residues (1-based) of a protein from 0-based ``start`` on, before ``stop``, and what each is part of."""
        if number not in self._of:
            positions = self.concepts.annotate(self.proteins[number]).positions
            self._of[number] = sorted(
                (residue + 1, self.concepts.concepts[i].name)
                for i in self.told
                for residue in positions.get(i, np.zeros(0, np.int64)).tolist()
            )
        return [(residue, name) for residue, name in self._of[number] if start < residue <= stop]


def _top_proteins(
    motifs: Motifs, row: int, sign: int, proteins: Sequence[Protein], sites_of: _Sites
) -> list[dict[str, object]]:
    """The highest peaks with activation and sites around them; sign -1: the lowest."""
    found = []
    for k in range(min(TOP_PROTEINS, motifs.windows.value.shape[1])):
        number = int(motifs.windows.protein[row, k])
        if number < 0:
            break
        protein, position = proteins[number], int(motifs.windows.position[row, k])
        start, stop = max(0, position - STRIP), min(len(protein), position + STRIP + 1)
        strip = motifs.windows.strip[row, k, start - position + STRIP : stop - position + STRIP]
        found.append(
            {
                "id": protein.id, "position": position + 1, "start": start + 1,
                "sequence": protein.sequence[start:stop],
                "activation": [round(sign * float(value), 3) for value in strip],
                "sites": sites_of.between(number, start, stop),
            }
        )  # fmt: skip
    return found
