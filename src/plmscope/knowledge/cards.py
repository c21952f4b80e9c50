"""A sentence a neuron, made from the evidence and never beyond it.

A neuron is *explained* by a concept that was confirmed on held-out clusters and either says where the neuron fires
(F1 gain of at least ``min_gain``) or orders its activations: AUROC of at least ``min_auroc``, from enough clusters that
its lower bound is at least half as far above chance, and an F1 gain above 0, so that the neuron also fires there more
than elsewhere. Or by its motif, if that predicts on held-out clusters where it fires (AUROC of at least ``min_auroc``).
Otherwise the sentence is "Neither a concept nor a motif explains this neuron": a number, not a failure to hide.

Of several explanations one leads. ``strength = max(AUROC, (1 + F1 gain) / 2)``, a motif's is its AUROC. The strongest
of discovery sets the mark; what is within :data:`TIED_STRENGTH` of it there and on held-out clusters is *as good*, and
of these come first: residues before whole proteins, the high side before the low, sites, patterns and motifs before
letters, letters before groups and properties, and the rarer before the more frequent (of letters, none of which is
part of another, that which discovery ranks higher). That order is fixed, so that no held-out number is shown because it
is high. Of two classes that are each other's complement one is told. The other side is told second.

What a neuron *knows* is ``letter`` where its residue's own amino acid explains 90 % of its variance, or where only
letters and groups of letters explain it; ``more`` where an explanation holds within a letter
(:mod:`plmscope.knowledge.letters`), AUROC 0.65; ``unsettled`` where too few residues tell the two apart. A neuron
that is its letter is explained by that.

    Fires on the pattern GxSxG (G-x-S-x-G: nucleophile elbow ...): F1 0.71 (by chance 0.01) on 212 held-out clusters
    (q = 2e-09); motif G-x-S-x-G, at its S, AUROC 0.96; 71 % of the motif's hits in EC 3; key, layer 3, neuron 17.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import norm

from plmscope.data.proteins import Protein
from plmscope.knowledge.concepts import ConceptSet
from plmscope.knowledge.motifs import Motifs
from plmscope.knowledge.strips import TIED, MarkedSites, top_proteins
from plmscope.models.sites import Neuron, NeuronIndex

UNEXPLAINED = "Neither a concept nor a motif explains this neuron"
#: Firing residues below which a motif is not judged.
MIN_FIRED = 10
#: Residues from an end that count as near it, and the share of peaks that makes it worth saying.
NEAR, MOSTLY = 40, 0.6
#: Explanations are as good as each other if their strengths differ by at most this.
TIED_STRENGTH = 0.02
#: Share of a neuron's variance from which on it is its letter, and the AUROC within a letter that is more.
IS_LETTER, BEYOND = 0.9, 0.65
#: Which kind of explanation goes first among those of one level and side that are as good: the more specific.
FIRST = {"feature": 0, "pattern": 0, "motif": 1, "amino acid": 2, "position": 2, "group": 3, "property": 3}


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
    holds: np.ndarray = associations["confirmed"].to_numpy(dtype=bool) & ((gain >= bars.min_gain) | orders)
    return holds


def neuron_cards(
    selections: pd.DataFrame,
    index: NeuronIndex,
    associations: pd.DataFrame,
    motifs: Motifs,
    concepts: ConceptSet,
    proteins: Sequence[Protein],
    bars: Bars | None = None,
    class_name: str = "class",
    letters: pd.DataFrame | None = None,
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
        letters: ``position, r2_letter, r2_window, highest, lowest`` of the selected neurons; not told without.
    """
    bars = bars or Bars()
    known = _Known(concepts, proteins)
    good = associations[explained(associations, bars)].sort_values(["position", "sign", "rank"], kind="stable")
    by_neuron = dict(iter(good.groupby("position", sort=False)))
    rows_of: dict[int, list[int]] = {}
    for row, position in enumerate(motifs.neurons.tolist()):
        rows_of.setdefault(position, []).append(row)
    sites_of = MarkedSites(proteins, concepts)
    letters_of: dict[Any, Any] = {} if letters is None else letters.set_index("position").to_dict("index")
    cards = {
        position: _card(
            index.neuron(position), by_neuron.get(position), rows_of[position], motifs, known, proteins, bars,
            class_name, sites_of, letters_of.get(position, {}),
        )
        for position in selections["position"].unique().tolist()
    }  # fmt: skip
    frame = pd.DataFrame([cards[position] for position in selections["position"]])
    return selections[["method", "rank"]].reset_index(drop=True).join(frame)


class _Known:
    """The concepts by name, with the share of what each marks, and which classes are each other's complement.

    Attributes:
        of: Name to concept.
        share: Name to its share of the residues (or proteins) where it is known.
        complement: Name to the name of the class that holds exactly where it does not.
    """

    def __init__(self, concepts: ConceptSet, proteins: Sequence[Protein]) -> None:
        all_ = concepts.concepts
        self.of = {concept.name: concept for concept in all_}
        marked, total = np.zeros(len(all_)), np.zeros(len(all_))
        at_residues = np.array([concept.level == "residue" for concept in all_], dtype=bool)
        groups: dict[str, list[int]] = {}
        for number, concept in enumerate(all_):
            if concept.kind == "class":
                groups.setdefault(concept.group, []).append(number)
        pairs = {tuple(numbers) for numbers in groups.values() if len(numbers) == 2}
        for protein in proteins:
            annotation = concepts.annotate(protein)
            for number, where in annotation.positions.items():
                marked[number] += len(where)
            marked[list(annotation.holds)] += 1
            total += annotation.known * np.where(at_residues, len(protein), 1)
            pairs = {pair for pair in pairs if not annotation.known[pair[0]] or len(annotation.holds & set(pair)) == 1}
        share = marked / np.maximum(total, 1)
        self.share = {concept.name: float(share[number]) for number, concept in enumerate(all_)}
        names = [(all_[a].name, all_[b].name) for a, b in pairs]
        self.complement = {**dict(names), **{b: a for a, b in names}}

    def floor(self, name: str) -> float:
        """The F1 of firing everywhere."""
        return 2 * self.share[name] / (1 + self.share[name])


@dataclass(frozen=True)
class _Explanation:
    """A concept of one side that explains a neuron, or the motif of one side.

    Attributes:
        sign: +1 for high activations.
        row: The row of the associations; ``None`` for a motif.
        strength: On held-out clusters.
        discovery: Strength of discovery; a motif is compared by that on held-out clusters alone.
        order: What goes first among explanations that are as good: level, side, kind, share, rank.
        name: As a sentence says it.
        letters: Whether it is no more than letters.
        beyond: AUROC within a letter, of whole proteins beyond their composition; NaN where it was not judged.
    """

    sign: int
    row: pd.Series | None
    strength: float
    discovery: float
    order: tuple[float, ...]
    name: str
    letters: bool
    beyond: float


def _of_concept(row: pd.Series, known: _Known) -> _Explanation:
    name, sign = str(row["concept"]), int(row["sign"])
    concept, share, floor = known.of[name], known.share[name], known.floor(name)
    gain = (float(row["discovery_f1"]) - floor) / max(1 - floor, 1e-9)
    rarity = share if concept.kind != "amino acid" else 1 / 20  # no letter is part of another: discovery's rank tells
    order = (concept.level == "protein", sign < 0, FIRST.get(concept.kind, len(FIRST)), rarity, row["rank"])
    return _Explanation(
        sign, row, max(float(row["auroc"]), (1 + float(row["f1_gain"])) / 2),
        max(float(row["discovery_auroc"]), (1 + gain) / 2), order, name,
        concept.kind in ("amino acid", "group"), float(row.get("auroc_beyond_letter", np.nan)),
    )  # fmt: skip


def _named_columns(consensus: str) -> int:
    """Columns of a motif that name a residue.

    >>> _named_columns("W-x-C"), _named_columns("x-[ST]-x"), _named_columns("")
    (2, 1, 0)
    """
    return sum(column != "x" for column in consensus.split("-") if column)


def _of_motif(motif: pd.Series) -> _Explanation:
    """A motif of one letter says what its letter says, after it."""
    sign, columns, strength = int(motif["sign"]), _named_columns(motif["consensus"]), float(motif["auroc_held_out"])
    kind = FIRST["motif"] if columns > 1 else FIRST["amino acid"]
    return _Explanation(
        sign, None, strength, np.inf, (False, sign < 0, kind, 1.0, -motif["information_bits"]),
        f"the motif {motif['consensus']}", columns < 2, float(motif.get("auroc_beyond_letter", np.nan)),
    )  # fmt: skip


def _leader(found: Sequence[_Explanation]) -> _Explanation:
    """The explanation that leads; the rule is at the top of this file."""
    of_concepts = [one for one in found if one.row is not None]
    mark = max(of_concepts or found, key=lambda one: (one.discovery, one.strength))
    good = [one for one in found if min(one.strength - mark.strength, one.discovery - mark.discovery) >= -TIED_STRENGTH]
    return min(good, key=lambda one: one.order)


def _card(
    neuron: Neuron,
    associations: pd.DataFrame | None,
    rows: Sequence[int],
    motifs: Motifs,
    known: _Known,
    proteins: Sequence[Protein],
    bars: Bars,
    class_name: str,
    sites_of: MarkedSites,
    letters: Mapping[str, object],
) -> dict[str, object]:
    """Everything on one card; the sign is that of the explanation that leads, else of the richest motif."""
    table = motifs.table.iloc[list(rows)]
    judged = (table["consensus"] != "") & (table["n_fired"] >= MIN_FIRED) & (table["auroc_held_out"] >= bars.min_auroc)
    explanations = [] if associations is None else [_of_concept(row, known) for _, row in associations.iterrows()]
    explanations += [_of_motif(row) for _, row in table[judged].iterrows()]
    leader = _leader(explanations) if explanations else None
    sign = leader.sign if leader is not None else int(table["sign"].iloc[int(table["information_bits"].argmax())])
    place = table["sign"].tolist().index(sign)
    row, motif, has_motif = rows[place], table.iloc[place], bool(judged.iloc[place])
    own = [one for one in explanations if one.row is not None and one.sign == sign]
    concept = leader.row if leader is not None else None
    if concept is None and own:
        concept = _leader(own).row
    said: list[str] = []
    of_motif, one_residue = _motif_text(motif), _named_columns(motif["consensus"]) < 2
    if leader is not None and leader.row is None:
        article = "" if one_residue else "the "
        said.append(f"{'Fires' if sign > 0 else 'Goes low'} on {article}{of_motif} on held-out clusters")
    elif concept is not None and leader is not None:
        said.append(_concept_text(concept, known, bars))
        said += [of_motif] if has_motif and not (one_residue and leader.letters) else []  # what was just said
    if leader is not None:
        said += [*_where(motifs, row, proteins), *(_classes(motif, class_name) if has_motif else [])]
        if not (leader.letters and _share(letters) >= IS_LETTER):  # the order of all its letters is told
            also = _second(leader, concept, explanations, known, bars)
            said += [f"also {text[0].lower()}{text[1:]}" for text in also]
    knows, best = _knows(explanations, leader, letters)
    said = _letter_text(said, knows, best, leader, letters)
    sentence = "; ".join([*said, f"{neuron.site.module}, layer {neuron.site.layer}"])
    return {
        "layer": neuron.site.layer, "module": neuron.site.module, "neuron": neuron.index, "sign": sign,
        "sentence": f"{sentence}, neuron {neuron.index}.", "explained": bool(knows), "knows": knows,
        "r2_letter": letters.get("r2_letter", np.nan), "r2_window": letters.get("r2_window", np.nan),
        "auroc_beyond_letter": np.nan if best is None else best.beyond,
        "concept": "" if concept is None else str(concept["concept"]),
        "auroc": np.nan if concept is None else float(concept["auroc"]),
        "f1": np.nan if concept is None else float(concept["f1"]),
        "motif": motif["consensus"] if has_motif else "",
        "top_proteins": json.dumps(top_proteins(motifs, row, sign, proteins, sites_of)),
    }  # fmt: skip


def _knows(
    found: Sequence[_Explanation], leader: _Explanation | None, letters: Mapping[str, object]
) -> tuple[str, _Explanation | None]:
    """``letter``, ``more``, ``unsettled`` or nothing, and the explanation that is told beside the letter.

    That is the leading one if it holds within a letter, else the one that does so best, else the leading one.
    """
    more = [one for one in found if not one.letters and one.beyond >= BEYOND]
    if leader is None:
        return ("letter" if _share(letters) >= IS_LETTER else ""), None
    holds = any(one is leader for one in more)
    best: _Explanation | None = leader if holds else max(more, key=lambda one: one.beyond, default=leader)
    if best is not None and best.letters:
        best = None
    if _share(letters) >= IS_LETTER:
        return "letter", best
    if more:
        return "more", best
    if any(one.letters for one in found) or not any(np.isnan(one.beyond) for one in found):
        return "letter", best
    return "unsettled", best


def _share(letters: Mapping[str, object]) -> float:
    """Share of the variance that the letter explains, NaN where it is not known."""
    return float(str(letters.get("r2_letter", np.nan)))


def _letter_text(
    said: list[str], knows: str, best: _Explanation | None, leader: _Explanation | None, letters: Mapping[str, object]
) -> list[str]:
    """The sentence with what its letter explains, after what leads."""
    share = _share(letters)
    if np.isnan(share):
        return said or [UNEXPLAINED]
    around = float(str(letters["r2_window"]))
    variance = f"{share:.0%} of its variance"
    if around >= share + 0.1:
        variance += f" ({around:.0%} with its neighbours)"
    of_proteins = best is not None and best.row is not None and best.order[0]
    where = "" if best is None else "beyond composition" if of_proteins else "within a letter"
    measured = "" if best is None or np.isnan(best.beyond) else f"AUROC {best.beyond:.2f} {where}"
    if best is not leader and measured and best is not None:
        measured += f" for {best.name}"
    if share >= IS_LETTER:
        extremes = f"highest on {', '.join(str(letters['highest']))}, lowest on {', '.join(str(letters['lowest']))}"
        return [*said, f"{'is' if said else 'Is'} its letter, which explains {variance}: {extremes}"]
    if knows == "more":
        return [*said, f"more than its letter, which explains {variance}: {measured}"]
    if knows == "letter":
        return [*said, f"its letter explains {variance}" + (f"; no more than that: {measured}" if measured else "")]
    if knows == "unsettled":
        return [*said, f"too few residues tell it from its letter, which explains {variance}"]
    return [UNEXPLAINED, f"its letter explains {variance}"]


def _second(
    leader: _Explanation, concept: pd.Series | None, found: Sequence[_Explanation], known: _Known, bars: Bars
) -> list[str]:
    """What is told after the leading explanation: the concept of its own side, if a motif leads; the other side's best.

    A class of the other side whose complement explains the leading side is told as that: it is one finding.
    """
    told = [] if concept is None else [concept]
    texts = told if leader.row is None else []
    others = [one for one in found if one.row is not None and one.sign != leader.sign]
    second = _leader(others).row if others else None
    if second is not None:
        own = {str(one.row["concept"]): one.row for one in found if one.row is not None and one.sign == leader.sign}
        second = own.get(known.complement.get(str(second["concept"]), ""), second)
        if all(second is not one for one in told):
            texts = [*texts, second]
    return [_concept_text(row, known, bars) for row in texts]


def _concept_text(row: pd.Series, known: _Known, bars: Bars) -> str:
    """What a concept says, with its numbers."""
    name, sign = str(row["concept"]), int(row["sign"])
    concept = known.of[name]
    if concept.level == "protein":
        verb = "Is high in" if sign > 0 else "Is low in"
    elif row["f1_gain"] >= bars.min_gain:
        verb = "Fires on" if sign > 0 else "Goes low on"
    else:
        verb = "Tends to be high on" if sign > 0 else "Tends to be low on"
    # Of a stretch, a neuron that fires on one residue has found it; the AUROC asks for all of them.
    area = "" if verb in ("Fires on", "Goes low on") and concept.has_stretches else f", AUROC {row['auroc']:.2f}"
    return (
        f"{verb} {concept.phrase}: F1 {row['f1']:.2f} (by chance {known.floor(name):.2f}){area} on "
        f"{row['n_clusters']:,} held-out clusters (q = {row['q_value']:.1g})"
    )


def _motif_text(motif: pd.Series) -> str:
    """A motif and how well it tells where the neuron fires; one of a single residue by its letters."""
    area, columns = f"AUROC {motif['auroc_held_out']:.2f}", str(motif["consensus"]).split("-")
    named = [place for place, column in enumerate(columns) if column.strip("x")]
    if len(named) != 1:
        return f"motif {motif['consensus']}{_anchor(motif)}, {area}"
    one = motif.copy()
    one["consensus"], one["anchor"] = columns[named[0]], int(motif["anchor"]) - named[0]
    letters = list(columns[named[0]].strip("[]").upper())
    said = " or ".join(filter(None, [", ".join(letters[:-1]), letters[-1]]))
    return f"{said}{_anchor(one)} (a motif of one residue): {area}"


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
    chance = (NEAR / length[long]).mean()
    for share, end in (
        ((position[long] < NEAR).mean(), "N"),
        ((length[long] - position[long] <= NEAR).mean(), "C"),
    ):
        if share >= MOSTLY:
            return [f"{share:.0%} of its peaks (by chance {chance:.0%}) within {NEAR} residues of the {end}-terminus"]
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


def without_place(row: Mapping[str, Any] | pd.Series) -> str:
    """The sentence of a card without layer, module and neuron, where these stand beside it."""
    return str(row["sentence"]).replace(f"; {row['module']}, layer {row['layer']}, neuron {row['neuron']}.", ".")
