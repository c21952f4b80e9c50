"""Sentences that are scored: what the places have in common where a neuron is highest, and how well it predicts.

The 15 highest peaks of a unit, one a protein, are its exemplars ``E``, each the residues around the peak that are among
its highest 1 %. A phrase ``d`` is a concept, the unit's formula or motif, or a class of whole proteins; it *explains*
an exemplar that it touches. With ``k`` of ``n`` exemplars explained, and ``b`` the share of the same residues, moved
around the same proteins, that ``d`` touches::

    w(d) = log p(d | E) - 0.2 log b,    p(d | E) = (k + b) / (n + 1)

The best phrase is said first, then the best among the exemplars that are not explained yet, at most three, each of at
least three exemplars. Nothing here is written by a language model, and a sentence says no more than it can be scored
for: the *simulator* predicts every residue's activation from the phrases that mark it (the mean rank of residues of the
phrase on discovery clusters, the highest of several). On held-out clusters its Spearman correlation with the true ranks
and its AUROC for the highest 1 % are compared with

* the sentences of other neurons of the same site (up to 200): ``p = (1 + #{theirs >= own}) / (1 + n)``, by AUROC;
* a simulator that knows the residue's letter alone (20 means).

A sentence *counts* if its q value (Benjamini-Hochberg over units) is below 0.05 and its correlation above the letter's.

Source: MILAN (Hernandez et al. 2022), pointwise mutual information with weight 0.2. Departs: no captions are learnt,
the base rate is that of moved residues, and every sentence is judged by what it predicts.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from plmscope.errors import InputError
from plmscope.knowledge.codes import firing_codes
from plmscope.knowledge.concepts import ConceptSet
from plmscope.knowledge.formulas import Formula
from plmscope.knowledge.masks import Side
from plmscope.knowledge.motifs import letter_codes
from plmscope.knowledge.patterns import parse_pattern
from plmscope.knowledge.units import MASKED, USUAL, Units
from plmscope.stats.chance import benjamini_hochberg

WEIGHT, MOST, LEAST = 0.2, 3, 3
#: Residues on either side of a peak that belong to its exemplar, and random places that the base rate is counted at.
REACH, MOVES = 7, 20
#: A base rate is not below this, as far as so few moves can tell.
FLOOR = 1e-3
OTHERS, FEW = 200, 19
BLOCK = 20_000


@dataclass(frozen=True)
class Phrase:
    """Something that a sentence may say.

    Attributes:
        text: As it is said.
        rows: Bits on the two sides.
        share: Of discovery proteins that it holds for, of a phrase on whole proteins; NaN for one on residues.
    """

    text: str
    rows: tuple[np.ndarray, np.ndarray]
    share: float = float("nan")


@dataclass(frozen=True)
class Sentence:
    """Phrases of one unit, the weight ``w`` of the first, and how many exemplars all together explain."""

    unit: int
    text: str
    phrases: tuple[Phrase, ...]
    weight: float
    explained: int
    source: str = "template"


class Vocabulary:
    """Every phrase that a sentence may be made of, by its text.

    Args:
        units: What the run has.
        concepts: Its concepts.
        min_proteins: Discovery proteins that must have a concept, and half as many on the other side.
    """

    def __init__(self, units: Units, concepts: ConceptSet, min_proteins: int = 10) -> None:
        self.units, self.concepts = units, concepts
        sides = (units.discovery, units.confirmation)
        self.common: list[Phrase] = []
        self.others: dict[str, Phrase] = {}
        for row, (name, number, reach) in enumerate(
            zip(units.atoms.names, units.atoms.concepts, units.atoms.reach, strict=True)
        ):
            phrase = Phrase(name, (sides[0].atoms[row], sides[1].atoms[row]))
            held = [(side.bits.per_protein(side.atoms[row]) > 0).sum() for side in sides]
            plain = number >= 0 and not reach
            if plain and held[0] >= min_proteins and 2 * held[1] >= min_proteins:
                self.common.append(phrase)
            else:
                self.others[name] = phrase
        holds = [[concepts.annotate(protein).holds for protein in side.proteins] for side in sides]
        for number, concept in enumerate(concepts.concepts):
            if concept.level != "protein":
                continue
            have = [np.array([number in one for one in side], dtype=bool) for side in holds]
            if have[0].sum() >= min_proteins and 2 * have[1].sum() >= min_proteins:
                rows = [self._whole(side, on) for side, on in zip(sides, have, strict=True)]
                self.common.append(Phrase(concept.name, (rows[0], rows[1]), float(have[0].mean())))

    @staticmethod
    def _whole(side: Side, on: np.ndarray) -> np.ndarray:
        """Bits of all residues of some proteins."""
        table = side.bits.empty(1)
        for row in np.flatnonzero(on).tolist():
            side.bits.put(table, row, np.ones((1, side.bits.lengths[row]), dtype=bool))
        found: np.ndarray = table[0]
        return found

    def pattern(self, text: str, said: str, anchor: int | None = None) -> Phrase:
        """A phrase of a sequence pattern: all residues of its matches, or the one at ``anchor``.

        Raises:
            InputError: it cannot be read.
        """
        pattern, rows = parse_pattern(text), []
        for side in (self.units.discovery, self.units.confirmation):
            table = side.bits.empty(1)
            for number, protein in enumerate(side.proteins):
                marked = np.zeros((1, len(protein)), dtype=bool)
                for start, stop in pattern.find(protein.sequence):
                    marked[0, start + anchor if anchor is not None else slice(start, stop)] = True
                side.bits.put(table, number, marked)
            rows.append(table[0])
        return Phrase(said, (rows[0], rows[1]))

    def formula(self, formula: Formula) -> Phrase:
        """A phrase of a formula."""
        text = formula.text(self.units.atoms.names)
        return Phrase(text, (formula.marks(self.units.discovery.atoms), formula.marks(self.units.confirmation.atoms)))

    def named(self, text: str) -> Phrase:
        """A phrase by its name: a concept, an operator on one, or a pattern in PROSITE syntax.

        Raises:
            InputError: it is none of these.
        """
        for phrase in self.common:
            if phrase.text == text:
                return phrase
        if text in self.others:
            return self.others[text]
        try:
            return self.pattern(text, text)
        except InputError as error:
            raise InputError(f"phrase {text!r} is no concept of this run, and as a pattern: {error}") from None


def exemplars(units: Units, unit: int) -> list[tuple[int, np.ndarray]]:
    """Discovery protein and 0-based residues of each exemplar of a unit.

    A neuron that sees single letters has the same peak many times in a protein; the first of them is near the start for
    no other reason, so that one of the residues of the highest rank is drawn.
    """
    side, found = units.discovery, []
    codes, least = units.codes(side, unit), int(firing_codes([units.share, USUAL, MASKED])[2])
    for protein in units.peaks[0][unit].tolist():
        if protein < 0:
            continue
        start, length = int(side.starts[protein]), side.bits.lengths[protein]
        whole = codes[start : start + length]
        highest = np.flatnonzero(whole == whole.max())
        position = int(highest[np.random.default_rng([unit, protein]).integers(len(highest))])
        around = np.arange(max(0, position - REACH), min(length, position + REACH + 1))
        own = codes[start + around]
        found.append((protein, around[(own >= min(least, int(own.max()))) | (around == position)]))
    return found


def describe(units: Units, unit: int, phrases: Sequence[Phrase], rng: np.random.Generator) -> Sentence | None:
    """The sentence of a unit, or nothing where no phrase explains three exemplars."""
    shown = exemplars(units, unit)
    if not shown or not phrases:
        return None
    side = units.discovery
    whole = np.array([np.isfinite(phrase.share) for phrase in phrases])
    touched, base = np.zeros((len(phrases), len(shown)), bool), np.zeros(len(phrases))
    rows = np.stack([phrase.rows[0] for phrase in phrases])
    for number, (protein, residues) in enumerate(shown):
        length = side.bits.lengths[protein]
        words = np.ascontiguousarray(rows[:, side.bits.words[protein] : side.bits.words[protein + 1]])
        marked = np.unpackbits(words.view(np.uint8), axis=1, bitorder="little")[:, :length].astype(bool)
        touched[:, number] = marked[:, residues].any(1)
        moves = rng.integers(0, length, MOVES)
        base += marked[:, (residues + moves[:, None]) % length].any(2).mean(1) / len(shown)
    base = np.where(whole, [phrase.share for phrase in phrases], base).clip(FLOOR, 1)
    left = np.ones(len(shown), dtype=bool)
    chosen: list[int] = []
    weights: list[float] = []
    while len(chosen) < MOST and left.any():
        k = touched[:, left].sum(1)
        weight = np.log((k + base) / (left.sum() + 1)) - WEIGHT * np.log(base)
        weight[k < LEAST] = -np.inf
        best = int(weight.argmax())
        if not np.isfinite(weight[best]):
            break
        chosen.append(best)
        weights.append(float(weight[best]))
        left &= ~touched[best]
    if not chosen:
        return None
    said = tuple(phrases[number] for number in chosen)
    return Sentence(unit, sentence_of(unit < len(units.neurons), said), said, weights[0], int((~left).sum()))


def sentence_of(high: bool, phrases: Sequence[Phrase]) -> str:
    """The template: "Highest on a, b or c"; of whole proteins "in".

    >>> none = (np.zeros(1), np.zeros(1))
    >>> sentence_of(True, (Phrase("W-x-C", none), Phrase("EC 3", none, 0.2)))
    'Highest on W-x-C or in EC 3'
    """
    parts = [f"{'in' if np.isfinite(phrase.share) else 'on'} {phrase.text}" for phrase in phrases]
    joined = ", ".join(parts[:-1]) + (" or " if len(parts) > 1 else "") + parts[-1]
    return f"{'Highest' if high else 'Lowest'} {joined}"


# --- the simulator


@dataclass(frozen=True)
class Prediction:
    """Predicted mean ranks of held-out residues: ``(R,)`` category of each, ``(C,)`` level of each category."""

    category: np.ndarray
    level: np.ndarray


def predicted(units: Units, unit: int, phrases: Sequence[Phrase]) -> Prediction:
    """From the phrases that mark a residue; the rest is the mean of residues that no phrase marks."""
    truth = units.codes(units.discovery, unit).astype(np.float32)
    marked = [[side.bits.flat(phrase.rows[k]) for phrase in phrases]
              for k, side in enumerate((units.discovery, units.confirmation))]  # fmt: skip
    free = ~np.any(marked[0], axis=0)
    levels = [float(truth[free].mean()) if free.any() else float(truth.mean())]
    levels += [float(truth[on].mean()) if on.any() else levels[0] for on in marked[0]]
    category = np.zeros(len(marked[1][0]), np.uint8)
    for number in np.argsort(levels[1:], kind="stable"):
        category[marked[1][number]] = number + 1
    return Prediction(category, np.array(levels))


def by_letter(units: Units, unit: int, letters: Sequence[np.ndarray]) -> Prediction:
    """From the letter of a residue alone; ``letters`` are the codes of both sides."""
    truth = units.codes(units.discovery, unit)
    counts, sums = (np.bincount(letters[0], weights, minlength=21) for weights in (None, truth))
    return Prediction(letters[1], np.where(counts > 0, sums / np.maximum(counts, 1), truth.mean()))


def _middle(values: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Mid-ranks of values that occur so often."""
    _, inverse = np.unique(values, return_inverse=True)
    own = np.bincount(inverse, counts)
    found: np.ndarray = (np.cumsum(own) - (own - 1) / 2)[inverse]
    return found


def _standardised(rank: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Ranks less their mean, of length 1 over all; zero where all are equal."""
    rest = rank - (rank @ counts) / counts.sum()
    norm = np.sqrt(np.square(rest) @ counts)
    found: np.ndarray = rest / norm if norm > 0 else rest
    return found


def simulate(predictions: Sequence[Prediction], truths: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Spearman and AUROC for the highest 1 % of every prediction with every truth ``(R, B)`` (codes).

    Returns:
        ``(A, B)`` each. A truth's highest residues are all of the largest code that at least 1 % of them reach; the
        AUROC is NaN where these are all.
    """
    n, most = truths.shape[0], max(len(one.level) for one in predictions)
    tables = np.zeros((2, len(predictions), most), np.float32)
    for row, one in enumerate(predictions):
        counts = np.bincount(one.category, minlength=len(one.level))
        rank = _middle(one.level, counts)
        tables[:, row, : len(one.level)] = _standardised(rank, counts), (rank - (n + 1) / 2) / n
    ranks, least = np.zeros((truths.shape[1], 256), np.float32), np.zeros(truths.shape[1], int)
    for column, codes in enumerate(truths.T):
        counts = np.bincount(codes, minlength=256)
        ranks[column] = _standardised(_middle(np.arange(256), counts), counts)
        least[column] = np.flatnonzero(np.cumsum(counts[::-1])[::-1] >= MASKED * n)[-1]
    positive = (truths >= least).sum(0)
    correlation, sums = np.zeros((2, len(predictions), truths.shape[1]))
    rows, columns = np.arange(len(predictions))[:, None], np.arange(truths.shape[1])
    for start in range(0, n, BLOCK):
        codes = truths[start : start + BLOCK]
        own = tables[:, rows, np.stack([one.category[start : start + BLOCK] for one in predictions])]  # (2, A, r)
        correlation += own[0] @ ranks[columns, codes]
        sums += own[1] @ (codes >= least).astype(np.float32)
    with np.errstate(invalid="ignore", divide="ignore"):
        area = np.where(positive < n, np.clip(0.5 + sums * n / (positive * (n - positive)), 0, 1), np.nan)
    return correlation, area


COLUMNS = (
    "unit", "source", "sentence", "phrases", "pmi", "exemplars_explained", "simulation_r", "simulation_auroc",
    "letter_r", "letter_auroc", "others_r", "others_auroc", "n_others", "p_value", "q_value", "counts",
)  # fmt: skip


def score_sentences(
    units: Units, sentences: Sequence[Sentence], sites: np.ndarray, seed: int = 0, fdr: float = 0.05
) -> pd.DataFrame:
    """Judge sentences on held-out residues, one row each with the columns :data:`COLUMNS`.

    Args:
        units: What the run has.
        sentences: At most one of a source for each unit; the others of its source are what it is compared with.
        sites: ``(K,)`` number of each neuron's site; sentences of other sites stand in where a site has fewer than 19.
        seed: Which others, where there are more than 200.
        fdr: q value below which a sentence counts.
    """
    rng, k = np.random.default_rng([seed, 44]), len(units.neurons)
    letters = [np.concatenate([letter_codes(p.sequence) for p in side.proteins])
               for side in (units.discovery, units.confirmation)]  # fmt: skip
    rows: list[list[object]] = []
    for source in dict.fromkeys(one.source for one in sentences):
        own = [one for one in sentences if one.source == source]
        truths = np.stack([units.codes(units.confirmation, one.unit) for one in own], axis=1)
        r, area = simulate([predicted(units, one.unit, one.phrases) for one in own], truths)
        texts = np.array([json.dumps([phrase.text for phrase in one.phrases]) for one in own])
        where = np.array([one.unit % k for one in own])
        for number, one in enumerate(own):
            # Another neuron of the same words says nothing against them.
            others = np.flatnonzero((texts != texts[number]) & (where != where[number]))
            near = others[sites[where[others]] == sites[where[number]]]
            others = np.sort(rng.permutation(near if len(near) >= FEW else others)[:OTHERS])
            by = simulate([by_letter(units, one.unit, letters)], truths[:, [number]])
            theirs, mine = area[others, number], area[number, number]
            p = (1 + int((theirs >= mine).sum())) / (1 + len(others)) if len(others) else np.nan
            rows.append(
                [one.unit, source, one.text, texts[number], one.weight, one.explained, r[number, number], mine,
                 by[0][0, 0], by[1][0, 0], r[others, number].mean() if len(others) else np.nan,
                 theirs.mean() if len(others) else np.nan, len(others), p]
            )  # fmt: skip
    frame = pd.DataFrame(rows, columns=list(COLUMNS[:-2]))
    q = np.full(len(frame), np.nan)
    for source in frame["source"].unique():
        of = (frame["source"] == source).to_numpy()
        q[of] = benjamini_hochberg(frame.loc[of, "p_value"].to_numpy(dtype=np.float64))
    counts = (np.nan_to_num(q, nan=1.0) < fdr) & (frame["simulation_r"] > frame["letter_r"]).to_numpy(dtype=bool)
    return frame.assign(q_value=q, counts=counts)


# --- sentences of others


def evidence(units: Units, unit: int, place: Mapping[str, object], sentence: Sentence | None) -> dict[str, object]:
    """What a program is told of a unit, one line of JSON."""
    shown = []
    for protein, residues in exemplars(units, unit):
        one = units.discovery.proteins[protein]
        first, last = max(0, int(residues[0]) - REACH), min(len(one), int(residues[-1]) + REACH + 1)
        positions = (residues + 1).tolist()
        shown.append({"id": one.id, "start": first + 1, "sequence": one.sequence[first:last], "fires": positions})
    said = [] if sentence is None else [phrase.text for phrase in sentence.phrases]
    return {**place, "exemplars": shown, "phrases": said}


def answers(
    lines: Sequence[str], unit_of: Callable[[Mapping[str, object]], int], vocabulary: Vocabulary
) -> list[Sentence]:
    """Sentences from lines of JSON: ``layer, module, neuron, sign, sentence, phrases``.

    Raises:
        InputError: a line cannot be read, names no unit that was asked about or one twice, or a phrase is unknown.
    """
    found: dict[int, Sentence] = {}
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            text, names = str(row["sentence"]), [str(name) for name in row["phrases"]]
            unit = unit_of(row)
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(
                f"line {number} of the program's answer: {line[:60]!r} is no JSON with layer, module, neuron and sign "
                f"of a line that it was given, sentence and phrases ({type(error).__name__}: {error})"
            ) from None
        if unit in found:
            raise InputError(f"line {number} of the program's answer: has this neuron and sign for the second time")
        if not names:
            raise InputError(f"line {number} of the program's answer: phrases is empty; name what the sentence says")
        try:
            phrases = tuple(vocabulary.named(name) for name in names)
        except InputError as error:
            raise InputError(f"line {number} of the program's answer: {error}") from None
        found[unit] = Sentence(unit, text, phrases, float("nan"), 0, "program")
    return list(found.values())
