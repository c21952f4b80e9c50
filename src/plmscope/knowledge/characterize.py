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

import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from itertools import pairwise

import numpy as np
import pandas as pd
import torch
from scipy.stats import norm

from plmscope.data.proteins import Protein
from plmscope.errors import InputError
from plmscope.knowledge.concepts import Annotation, ConceptSet
from plmscope.knowledge.letters import DISCOVERED as _LETTERS_DISCOVERED
from plmscope.knowledge.letters import JUDGED as _LETTERS_JUDGED
from plmscope.knowledge.letters import Letters
from plmscope.knowledge.motifs import MOTIF_FRACTION, Motifs, TopWindows, joined_motifs, make_motifs
from plmscope.models.classifier import Batch, Classifier
from plmscope.models.hooks import record
from plmscope.models.sites import NeuronIndex, Site
from plmscope.models.workers import splitting
from plmscope.progress import Track, silent
from plmscope.stats.chance import TINY, benjamini_hochberg
from plmscope.store.resume import Parts

#: Shares of residues, and of proteins, at which a neuron counts as firing.
FRACTIONS = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.4)
#: Neurons counted in one pass over the proteins; larger models take several passes.
NEURONS_AT_ONCE = 40_000
#: Numbers in the sample that the codes come from.
SAMPLE_SIZE = 120_000_000
SAMPLE_PROTEINS = 512
MIN_SHIFT = 10
BLOCK = 512
#: Buckets of an activation: sign, exponent and six bits of a half-precision number after standardising.
BUCKETS = 4096
DIFFERENCES = 128  # bins on either side of zero


@dataclass(frozen=True)
class Chunk:
    """Activations of some proteins.

    Attributes:
        rows: Which proteins, as positions in the sequence that was streamed.
        lengths: Residues of each.
        values: ``(R, N)`` activations at their residues, one protein after the other.
    """

    rows: list[int]
    lengths: list[int]
    values: torch.Tensor


#: What counts of a pass are called, so that they can be kept and continued.
_DISCOVERED = ("hits", "touched", "fired", "rows", "positives", "stretches")
_CONFIRMED = ("positive", "shifted", "touched", "stretches", "differences", "all")
_PEAKS = ("value", "protein", "position", "strip")
_PAIRS = ("neuron", "sign", "concept", "rank", "code", "discovery_f1", "discovery_auroc")
_MOTIFS = ("fired", "everywhere", "hits", "fired_hits", "in_class", "class_residues", "on", "known", "marked")


def _arrays(one: object, names: Sequence[str], prefix: str = "") -> dict[str, np.ndarray]:
    """Attributes of an object that are arrays, or dicts of arrays or whole numbers, as arrays."""
    found: dict[str, np.ndarray] = {}
    for name in names:
        value = getattr(one, name)
        if isinstance(value, dict):
            found |= {f"{prefix}{name}/{key}": np.asarray(part) for key, part in value.items()}
        else:
            found[f"{prefix}{name}"] = value
    return found


def _restore(one: object, names: Sequence[str], arrays: Mapping[str, np.ndarray], prefix: str = "") -> None:
    """Put back what :func:`_arrays` gave."""
    for name in names:
        value = getattr(one, name)
        if isinstance(value, dict):
            for key in value:
                part = arrays[f"{prefix}{name}/{key}"]
                value[key] = part if part.ndim else int(part)
        else:
            setattr(one, name, arrays[f"{prefix}{name}"])


#: Gives the activations of proteins, some at a time; of the same neurons every time it is called.
Stream = Callable[[Sequence[Protein], str], Iterator[Chunk]]


def stream_of(classifier: Classifier, sites: Sequence[Site], token_budget: int = 2048, track: Track = silent) -> Stream:
    """Activations of some sites, side by side, at residues only."""

    @torch.inference_mode()
    def stream(proteins: Sequence[Protein], description: str) -> Iterator[Chunk]:
        batches = classifier.batches(proteins, token_budget)

        def work(batch: Batch, _: int) -> Chunk:
            seen.clear()
            classifier.model(input_ids=batch.input_ids, attention_mask=batch.attention_mask)
            mask = batch.residue_mask
            values = torch.cat([seen[site][mask].float() for site in sites], dim=1)  # (R, N)
            seen.clear()
            return Chunk(batch.rows, [len(proteins[row]) for row in batch.rows], values)

        with record(classifier, sites) as seen:
            for batch in track(batches, description, len(batches)):
                yield from splitting(work, 0)(batch)

    return stream


# --- codes ------------------------------------------------------------------------------------------------------------


def _levels(fractions: Sequence[float]) -> np.ndarray:
    """The 255 shares between 256 codes: symmetric, even, with every fraction and its complement among them."""
    exact = [*fractions, *(1 - f for f in fractions)]
    even = np.linspace(0, 1, 255 - len(exact) + 2)[1:-1]
    return np.sort(np.concatenate([exact, even]))


def firing_codes(fractions: Sequence[float]) -> np.ndarray:
    """``(F,)``: a neuron fires at a share where its code (255 - code for sign -1) is at least this."""
    inner = _levels(fractions)
    codes: np.ndarray = 255 - np.array([int(np.argmin(np.abs(inner - f))) for f in fractions])
    return codes


#: Bits of the buckets in increasing order of value, and their lower edges.
_ORDER = np.concatenate([np.arange(BUCKETS - 1, BUCKETS // 2 - 1, -1), np.arange(BUCKETS // 2)])
_MINUS_ZERO = BUCKETS // 2
_MAGNITUDES = (np.arange(BUCKETS // 2 + 1, dtype=np.uint16) << 4).view(np.float16).astype(np.float64)
_EDGES = np.concatenate([-_MAGNITUDES[:0:-1], _MAGNITUDES])  # (4097,)


@dataclass(frozen=True)
class Codes:
    """Turns activations into ranks of 256 levels, neuron by neuron.

    A code is monotone in the activation and the same wherever it is computed. It is the number of levels at or below
    the activation's mid-rank in the sample.

    Attributes:
        center: ``(N,)`` median of the sample.
        scale: ``(N,)`` spread of the sample (interquartile range / 1.35).
        table: ``(N, 4096)`` code of every bucket of the standardised activation, buckets by their bits.
        lowest, highest: ``(N,)`` codes that occur in the sample.
    """

    center: torch.Tensor
    scale: torch.Tensor
    table: torch.Tensor
    lowest: np.ndarray
    highest: np.ndarray

    @classmethod
    def fit(cls, sample: torch.Tensor, fractions: Sequence[float] = FRACTIONS) -> Codes:
        """Codes from a sample of activations ``(S, N)``; ties share their mid-rank, so a constant fires nowhere."""
        n, levels = sample.shape[1], _levels(fractions)
        center, scale = np.zeros(n, np.float32), np.ones(n, np.float32)
        table = np.zeros((n, BUCKETS), np.uint8)
        lowest, highest = np.zeros(n, np.uint8), np.zeros(n, np.uint8)
        for start in range(0, n, BLOCK):
            part = sample[:, start : start + BLOCK].cpu().numpy()
            low, middle, high = np.quantile(part, (0.25, 0.5, 0.75), axis=0)
            spread = np.where(high > low, (high - low) / 1.35, part.std(0))
            # Rounding noise of a large constant is no signal: divided by this much, it is zero.
            spread = np.where(spread > 1e-5 * np.abs(middle) + 1e-12, spread, 1e30)
            center[start : start + BLOCK], scale[start : start + BLOCK] = middle, spread
            buckets = _buckets(torch.from_numpy((part - middle.astype(np.float32)) / spread.astype(np.float32)))
            for column in range(part.shape[1]):
                counts = np.bincount(buckets[:, column].numpy(), minlength=BUCKETS)
                counts[0], counts[_MINUS_ZERO] = counts[0] + counts[_MINUS_ZERO], 0
                counts = counts[_ORDER]
                rank = (np.cumsum(counts) - counts / 2) / len(part)
                codes = np.searchsorted(levels, rank + 1e-12, side="right")
                codes[BUCKETS // 2 - 1] = codes[BUCKETS // 2]  # -0 is 0
                table[start + column, _ORDER] = codes
                lowest[start + column], highest[start + column] = codes[counts > 0][[0, -1]]
        where = sample.device
        centers, scales, tables = (torch.from_numpy(part).to(where) for part in (center, scale, table))
        return cls(centers, scales, tables, lowest, highest)

    def __call__(self, values: torch.Tensor) -> np.ndarray:
        """Codes of activations ``(R, N)``, uint8 of the same shape."""
        found = np.empty(tuple(values.shape), dtype=np.uint8)
        for start in range(0, values.shape[1], BLOCK):
            part = slice(start, min(start + BLOCK, values.shape[1]))
            z = values[:, part].sub(self.center[part]).div_(self.scale[part])
            index = _buckets(z).to(torch.int32)
            index += torch.arange(index.shape[1], dtype=torch.int32, device=index.device) * BUCKETS
            codes = self.table[part].reshape(-1).index_select(0, index.reshape(-1))
            found[:, part] = codes.reshape(index.shape).cpu().numpy()
        return found

    def arrays(self, prefix: str) -> dict[str, np.ndarray]:
        """Everything as arrays."""
        tensors = {name: getattr(self, name).cpu().numpy() for name in ("center", "scale", "table")}
        found: dict[str, np.ndarray] = tensors | {"lowest": self.lowest, "highest": self.highest}
        return {prefix + name: value for name, value in found.items()}

    @classmethod
    def of(cls, arrays: Mapping[str, np.ndarray], prefix: str, device: torch.device) -> Codes:
        """Back from :meth:`arrays`."""
        center, scale, table = (
            torch.from_numpy(arrays[prefix + name]).to(device) for name in ("center", "scale", "table")
        )
        return cls(center, scale, table, arrays[f"{prefix}lowest"], arrays[f"{prefix}highest"])

    def threshold(self, neurons: np.ndarray, signs: np.ndarray, codes: np.ndarray) -> np.ndarray:
        """The activation from which on (sign +1: upwards, -1: downwards) a code counts as firing, one per neuron."""
        ordered = self.table[torch.from_numpy(neurons).to(self.table.device)].cpu().numpy()[:, _ORDER]  # (K, 4096)
        first = (ordered < codes[:, None]).sum(1)
        last = (ordered <= 255 - codes[:, None]).sum(1)
        edge = _EDGES[np.where(signs > 0, first, last)]
        center, scale = (part.double().cpu().numpy()[neurons] for part in (self.center, self.scale))
        value: np.ndarray = center + edge * scale
        return value


def _buckets(standardised: torch.Tensor) -> torch.Tensor:
    """Bucket of every standardised activation, int16 in 0..4095."""
    bits = standardised.clamp_(-6e4, 6e4).to(torch.float16).view(torch.int16)
    return bits.bitwise_right_shift_(4).bitwise_and_(BUCKETS - 1)


# --- discovery --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Marked:
    """What one protein says at one level: rows that concepts mark, counted from its first row."""

    length: int
    positions: Mapping[int, np.ndarray]
    stretches: Mapping[int, np.ndarray]
    known: np.ndarray


def _of_residues(annotation: Annotation, length: int) -> _Marked:
    return _Marked(length, annotation.positions, annotation.stretches, annotation.known)


def _of_protein(annotation: Annotation) -> _Marked:
    """At protein level a protein is a single row."""
    return _Marked(1, {number: np.zeros(1, np.int64) for number in annotation.holds}, {}, annotation.known)


@dataclass
class _Counts:
    """Counts of firing, for all neurons, of one level (residue or protein).

    Attributes:
        numbers: Concepts of the level.
        groups: Group of each concept ("" is known everywhere).
        summed: Concept to concepts whose counts it is the sum of; these are not counted themselves.
        hits: Concept to ``(L, N)`` residues that it marks and where a neuron fires; ``L`` is both signs x shares.
        touched: The same for stretches.
        fired: Group to ``(L, N)``.
        rows: Group to residues that are known.
        positives, stretches: Concept to numbers.
    """

    concepts: ConceptSet
    level: str
    n: int
    codes: np.ndarray
    pool: ThreadPoolExecutor
    numbers: list[int] = field(init=False)
    summed: dict[int, list[int]] = field(init=False)
    hits: dict[int, np.ndarray] = field(init=False)
    touched: dict[int, np.ndarray] = field(init=False)
    fired: dict[str, np.ndarray] = field(init=False)
    rows: dict[str, int] = field(init=False)
    positives: dict[int, int] = field(init=False)
    stretches: dict[int, int] = field(init=False)

    def __post_init__(self) -> None:
        all_ = self.concepts.concepts
        self.numbers = [i for i, c in enumerate(all_) if c.level == self.level]
        letters = {i: s for i, s in self.concepts.letters_of.items() if i in set(self.numbers)}
        single = {next(iter(s)): i for i, s in letters.items() if len(s) == 1}
        self.summed = {
            i: [single[a] for a in sorted(s)] for i, s in letters.items() if len(s) > 1 and s <= single.keys()
        }
        shape = (2 * len(self.codes), self.n)
        self.hits = {i: np.zeros(shape, np.int32) for i in self.numbers if i not in self.summed}
        self.touched = {i: np.zeros(shape, np.int32) for i in self.numbers if all_[i].has_stretches}
        self.fired = {g: np.zeros(shape, np.int64) for g in {all_[i].group for i in self.numbers} | {""}}
        self.rows = dict.fromkeys(self.fired, 0)
        self.positives = dict.fromkeys(self.numbers, 0)
        self.stretches = dict.fromkeys(self.touched, 0)

    def add(self, codes: np.ndarray, marked: Sequence[_Marked]) -> None:
        """Count one chunk: codes ``(R, N)`` of the rows of some proteins."""
        starts = np.concatenate([[0], np.cumsum([one.length for one in marked])])
        rows: dict[int, np.ndarray] = {}
        spans: dict[int, np.ndarray] = {}
        for number in self.numbers:
            found = [
                one.positions[number] + a for one, a in zip(marked, starts, strict=False) if number in one.positions
            ]
            if found:
                self.positives[number] += sum(map(len, found))
                rows[number] = np.concatenate(found)
            stretches = [
                one.stretches[number] + a for one, a in zip(marked, starts, strict=False) if number in one.stretches
            ]
            if stretches and number in self.touched:
                spans[number] = np.concatenate(stretches)
                self.stretches[number] += len(spans[number])
        known: dict[str, np.ndarray] = {}
        for group in self.fired:
            first = next((i for i in self.numbers if self.concepts.concepts[i].group == group), None)
            known[group] = np.array([group == "" or bool(one.known[first]) for one in marked])
            self.rows[group] += int(np.diff(starts)[known[group]].sum())

        def count(start: int) -> None:
            part = slice(start, start + BLOCK)
            fires = _fires(codes[:, part], self.codes)  # (L, R, n)
            whole = np.stack([_sums(fires[:, a:b]) for a, b in pairwise(starts)])  # (P, L, n)
            for group, mask in known.items():
                if mask.any():
                    self.fired[group][:, part] += whole[mask].sum(0)
            for number, where in rows.items():
                if number in self.hits:
                    self.hits[number][:, part] += _sums(fires[:, where])
            for number, where in spans.items():
                self.touched[number][:, part] += _touched(fires, where)

        list(self.pool.map(count, range(0, self.n, BLOCK)))

    def best(self, eligible: Sequence[int], top: int) -> dict[str, np.ndarray]:
        """The best concepts of every neuron and sign by F1 gain.

        Returns:
            ``concept``, ``share`` (number of the fraction), ``gain``, ``f1``, ``auroc``: ``(2, top, N)`` each, signs
            in the order +1, -1; the gain is -inf where there are fewer concepts.
        """
        numbers = [i for i in self.numbers if i in set(eligible) and 0 < self.positives[i] < self.rows[self._group(i)]]
        F = len(self.codes)
        names = ("concept", "share", "gain", "f1", "auroc")
        out = {name: np.full((2, top, self.n), -np.inf if name == "gain" else 0.0) for name in names}
        if not numbers:
            return out
        for start in range(0, self.n, BLOCK):
            part = slice(start, start + BLOCK)
            gains, shares, f1s, aurocs = [], [], [], []
            for i in numbers:
                fired = self.fired[self._group(i)][:, part].astype(np.float32)
                hits = sum(self.hits[j][:, part] for j in self.summed[i]) if i in self.summed else self.hits[i][:, part]
                hits = np.asarray(hits, dtype=np.float32)  # (L, n)
                positives, total = self.positives[i], self.rows[self._group(i)]
                touched = hits / positives
                if self.stretches.get(i):
                    touched = self.touched[i][:, part] / self.stretches[i]
                f1 = f1_score(hits / np.maximum(fired, 1), touched)
                gain = f1_gain(f1, positives / total).reshape(2, F, -1)
                share = gain.argmax(1)  # (2, n)
                gains.append(np.take_along_axis(gain, share[:, None], 1)[:, 0])
                f1s.append(np.take_along_axis(f1.reshape(2, F, -1), share[:, None], 1)[:, 0])
                shares.append(share)
                aurocs.append(_coarse_auroc(hits / positives, (fired - hits) / (total - positives), F))
            stacked = [np.stack(x) for x in (gains, shares, f1s, aurocs)]  # (C, 2, n)
            order = np.argsort(-stacked[0], axis=0, kind="stable")[:top]  # (k, 2, n)
            for name, values in zip(("gain", "share", "f1", "auroc"), stacked, strict=True):
                out[name][:, : len(order), part] = np.take_along_axis(values, order, 0).swapaxes(0, 1)
            out["concept"][:, : len(order), part] = np.array(numbers)[order].swapaxes(0, 1)
        return out

    def _group(self, number: int) -> str:
        return self.concepts.concepts[number].group


def f1_score(precision: np.ndarray, recall: np.ndarray) -> np.ndarray:
    """2 P R / (P + R), 0 where both are 0."""
    both = precision + recall
    f1: np.ndarray = 2 * precision * recall / np.where(both > 0, both, 1)
    return f1


def f1_gain(f1: np.ndarray, prevalence: np.ndarray | float) -> np.ndarray:
    """F1 rescaled: 0 for firing everywhere, 1 for perfect."""
    floor = 2 * prevalence / (1 + np.asarray(prevalence))
    gain: np.ndarray = (f1 - floor) / np.maximum(1 - floor, 1e-9)
    return gain


def _fires(codes: np.ndarray, firing: np.ndarray) -> np.ndarray:
    """``(L, R, n)`` uint8: firing at every share, sign +1 first."""
    out = np.empty((2 * len(firing), *codes.shape), dtype=bool)
    for i, code in enumerate(firing):
        np.greater_equal(codes, np.uint8(code), out=out[i])
        np.less_equal(codes, np.uint8(255 - code), out=out[len(firing) + i])
    return out.view(np.uint8)


def _sums(fires: np.ndarray) -> np.ndarray:
    """Sum of zeros and ones over axis 1, in bytes as far as they go."""
    if fires.shape[1] <= 255:
        total: np.ndarray = np.add.reduce(fires, axis=1, dtype=np.uint8)
        return total.astype(np.int32)
    out = np.zeros((fires.shape[0], fires.shape[2]), dtype=np.int32)
    for start in range(0, fires.shape[1], 255):
        out += np.add.reduce(fires[:, start : start + 255], axis=1, dtype=np.uint8)
    return out


def _touched(fires: np.ndarray, spans: np.ndarray) -> np.ndarray:
    """How many half-open ranges ``(k, 2)`` hold a firing residue, ``(L, n)``."""
    out = np.zeros((fires.shape[0], fires.shape[2]), dtype=np.int32)
    widths = spans[:, 1] - spans[:, 0]
    for width in np.unique(widths):  # whole rows at once: reduceat goes number by number
        first = spans[widths == width, 0]
        hit = fires[:, first]
        for step in range(1, width):
            np.bitwise_or(hit, fires[:, first + step], out=hit)
        out += _sums(hit)
    return out


def _flat_spans(spans: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Half-open ranges as one list of rows and the place where each range begins in it."""
    widths = spans[:, 1] - spans[:, 0]
    first = np.concatenate([[0], np.cumsum(widths)[:-1]])
    rows = np.repeat(spans[:, 0] - first, widths) + np.arange(widths.sum())
    return rows, first


def _coarse_auroc(recall: np.ndarray, false_rate: np.ndarray, shares: int) -> np.ndarray:
    """AUROC ``(2, n)`` from the shares of both signs alone: the highest f, the rest without the lowest f, in turn."""
    zero, one = np.zeros((1, recall.shape[1])), np.ones((1, recall.shape[1]))

    def curve(rate: np.ndarray) -> np.ndarray:
        return np.concatenate([zero, rate[:shares], (1 - rate[shares:])[::-1], one])

    area = np.trapezoid(curve(recall), curve(false_rate), axis=0)
    return np.stack([area, 1 - area])


# --- confirmation -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Pairs:
    """Neuron, sign, concept and firing code of every pair to confirm; ``rank`` counts from 1 per neuron and sign."""

    neuron: np.ndarray
    sign: np.ndarray
    concept: np.ndarray
    rank: np.ndarray
    code: np.ndarray
    discovery_f1: np.ndarray
    discovery_auroc: np.ndarray

    def __len__(self) -> int:
        return len(self.neuron)

    def of(self, concept: int) -> np.ndarray:
        """Numbers of the pairs of one concept."""
        return np.flatnonzero(self.concept == concept)


class _Confirmation:
    """Histograms over codes that every number of the confirmation follows from."""

    def __init__(self, pairs: _Pairs, concepts: ConceptSet, level: str, n: int) -> None:
        self.pairs, self.concepts, self.n = pairs, concepts, n
        self.of = {int(i): pairs.of(i) for i in np.unique(pairs.concept) if concepts.concepts[int(i)].level == level}
        self.positive = np.zeros((len(pairs), 256), np.int64)
        self.shifted = np.zeros((len(pairs), 256), np.int64)
        self.touched = np.zeros(len(pairs), np.int64)
        self.stretches = np.zeros(len(pairs), np.int64)
        self.differences = np.zeros((2, len(pairs), 2 * DIFFERENCES + 1), np.int32)  # annotation, control
        groups: dict[str, set[int]] = {}
        for number, which in self.of.items():
            groups.setdefault(concepts.concepts[number].group, set()).update(pairs.neuron[which].tolist())
        self.neurons = {group: np.array(sorted(neurons)) for group, neurons in groups.items()}
        self.all = {group: np.zeros((len(neurons), 256), np.int64) for group, neurons in self.neurons.items()}

    def add(self, codes: np.ndarray, marked: Sequence[_Marked], others: Sequence[Sequence[_Marked]]) -> None:
        """Count one chunk; ``others`` are the same proteins with a shifted annotation, twice over."""
        starts = np.concatenate([[0], np.cumsum([one.length for one in marked])])
        for group, neurons in self.neurons.items():
            first = next(i for i in self.of if self.concepts.concepts[i].group == group)
            mask = np.repeat([bool(one.known[first]) for one in marked], np.diff(starts))
            if mask.any():
                self.all[group] += _histogram(codes if mask.all() else codes[mask], neurons)
        flip = np.where(self.pairs.sign > 0, 0, 255).astype(np.uint8)
        for number, which in self.of.items():
            columns = self.pairs.neuron[which]

            real, shifted, again = (
                _values(codes, ones, starts, number, columns) ^ flip[which] for ones in (marked, *others)
            )
            places = np.arange(len(which))
            self.positive[which] += _histogram(real, places)
            self.shifted[which] += _histogram(shifted, places)
            with_it = [p for p, one in enumerate(marked) if number in one.positions]
            if not with_it:
                continue
            if self.concepts.concepts[number].has_stretches:
                spans = np.concatenate([marked[p].stretches[number] + starts[p] for p in with_it])
                rows, first_rows = _flat_spans(spans)
                best = np.maximum.reduceat(codes[rows[:, None], columns] ^ flip[which], first_rows, axis=0)
                self.touched[which] += (best >= self.pairs.code[which]).sum(0)
                self.stretches[which] += len(spans)
            counts = np.array([len(marked[p].positions[number]) for p in with_it])
            usable = np.array([MIN_SHIFT * 2 < marked[p].length > c for p, c in zip(with_it, counts, strict=True)])
            if usable.any():
                first_rows = np.concatenate([[0], np.cumsum(counts)[:-1]])
                means = [
                    np.add.reduceat(one, first_rows, axis=0, dtype=np.float64)[usable] / counts[usable, None] / 255
                    for one in (real, shifted, again)
                ]
                for kind, other in ((0, means[0] - means[1]), (1, means[2] - means[1])):
                    bins = np.rint(other * DIFFERENCES).astype(np.int64) + DIFFERENCES  # (P, k)
                    np.add.at(self.differences[kind], (np.broadcast_to(which, bins.shape), bins), 1)

    def numbers(self, which: np.ndarray, group: str) -> dict[str, np.ndarray]:
        """Everything but the test, of some pairs of one group."""
        neuron = np.searchsorted(self.neurons[group], self.pairs.neuron[which])
        total = self.all[group][neuron]
        total = np.where(self.pairs.sign[which, None] > 0, total, total[:, ::-1])
        positive, code = self.positive[which], self.pairs.code[which]
        fires = np.arange(256) >= code[:, None]
        hits, fired, n = (positive * fires).sum(1), (total * fires).sum(1), positive.sum(1)
        with np.errstate(invalid="ignore", divide="ignore"):
            recall = hits / n
            domain = np.where(self.stretches[which] > 0, self.touched[which] / self.stretches[which], recall)
        precision = hits / np.maximum(fired, 1)
        f1 = f1_score(precision, domain)
        return {
            "precision": precision, "recall": recall, "recall_domain": domain, "f1": f1,
            "f1_gain": f1_gain(f1, n / np.maximum(total.sum(1), 1)), "iou": hits / np.maximum(fired + n - hits, 1),
            "auroc": auroc_of_histograms(positive, total - positive),
            "null_auroc": auroc_of_histograms(self.shifted[which], total - self.shifted[which]),
        }  # fmt: skip


def _values(
    codes: np.ndarray, marked: Sequence[_Marked], starts: np.ndarray, concept: int, columns: np.ndarray
) -> np.ndarray:
    """Codes of some neurons on the rows that a concept marks, protein by protein."""
    rows = [one.positions[concept] + a for one, a in zip(marked, starts, strict=False) if concept in one.positions]
    where = np.concatenate(rows) if rows else np.zeros(0, np.int64)
    values: np.ndarray = codes[where[:, None], columns]
    return values


def _histogram(codes: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """``(k, 256)`` how often each code occurs in each of some columns of ``(R, n)`` codes."""
    out = np.empty((len(columns), 256), np.int64)
    for start in range(0, len(columns), BLOCK):
        part = columns[start : start + BLOCK]
        index = codes[:, part] + np.arange(len(part)) * 256
        out[start : start + BLOCK] = np.bincount(index.ravel(), minlength=256 * len(part)).reshape(-1, 256)
    return out


def auroc_of_histograms(positive: np.ndarray, negative: np.ndarray) -> np.ndarray:
    """Area under the ROC curve ``(k,)`` from counts per level ``(k, L)``; ties count half; NaN if a side is empty."""
    below = np.cumsum(negative, axis=1) - negative
    with np.errstate(invalid="ignore", divide="ignore"):
        area: np.ndarray = (positive * (below + negative / 2)).sum(1) / (positive.sum(1) * negative.sum(1))
    return area


def signed_rank_p(differences: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """One-sided Wilcoxon signed-rank test from binned differences.

    Args:
        differences: ``(k, 2 B + 1)`` counts of differences in bins from -B to B; zeros do not count.

    Returns:
        p that the differences are no larger than 0 (normal approximation with ties; NaN for fewer than six), and the
        number of differences that are not zero.
    """
    half = differences.shape[1] // 2
    up, down = differences[:, half + 1 :].astype(np.float64), differences[:, :half][:, ::-1].astype(np.float64)
    both = up + down
    rank = np.cumsum(both, axis=1) - both + (both + 1) / 2
    excess = (up * rank).sum(1) - (both * rank).sum(1) / 2
    deviation = np.sqrt((both * rank**2).sum(1) / 4)
    n = both.sum(1)
    p = np.maximum(norm.sf(excess / np.where(deviation > 0, deviation, 1)), TINY)
    return np.where(n >= 6, p, np.nan), n.astype(np.int64)


def rank_sum_p(positive: np.ndarray, negative: np.ndarray) -> np.ndarray:
    """One-sided rank-sum test ``(k,)`` from counts per level ``(k, L)``, ties corrected; NaN below six a side."""
    a, b = positive.sum(1).astype(np.float64), negative.sum(1).astype(np.float64)
    both = (positive + negative).astype(np.float64)
    total = a + b
    ties = (both**3 - both).sum(1) / np.maximum(total * (total - 1), 1)
    deviation = np.sqrt(np.maximum((total + 1 - ties) / (12 * np.maximum(a * b, 1)), 1e-30))
    area = np.nan_to_num(auroc_of_histograms(positive, negative), nan=0.5)
    p: np.ndarray = np.maximum(norm.sf((area - 0.5) / deviation), TINY)
    return np.where((a >= 6) & (b >= 6), p, np.nan)


# --- everything together ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Settings:
    """What a characterization depends on besides model and proteins.

    Attributes:
        fractions: Shares at which a neuron fires.
        fdr: Pairs with a q value below are confirmed.
        min_proteins: Discovery proteins that must have a concept, and half as many confirmation proteins.
        top: Concepts listed for a selected neuron.
        windows: Windows of a motif, at most one in four discovery proteins.
        seed: Of the sample and of the shifts.
    """

    fractions: tuple[float, ...] = FRACTIONS
    fdr: float = 0.05
    min_proteins: int = 10
    top: int = 5
    windows: int = 100
    seed: int = 0


@dataclass(frozen=True)
class Characterization:
    """What neurons detect.

    Attributes:
        associations: ``position`` (of the neuron in the flat index), then the columns of ``associations.parquet``
            behind ``neuron``.
        motifs: Of the selected neurons, both signs; empty without any.
        tested: Pairs that had enough clusters for the test.
        control: How many of them the same test confirms when a shifted annotation takes the place of the true one.
        letters: Of every neuron, ``position`` and the columns of ``letters.parquet`` behind ``neuron``.
    """

    associations: pd.DataFrame
    motifs: Motifs | None
    tested: int
    control: int
    letters: pd.DataFrame

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
    selected: np.ndarray | None = None,
    settings: Settings | None = None,
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
        selected: ``(N,)`` whose motifs are wanted and that list several concepts; none if left out.
        settings: Shares, rates and seed.
        token_budget: Padded tokens a batch.
        track: Progress.
        parts: Where the passes keep what they have counted, now and then, and continue after a kill.

    Raises:
        InputError: there are no proteins on one side, or a protein is on both.
        RunError: the disk is full.
    """
    index, settings = classifier.index, settings or Settings()
    selected = np.zeros(len(index), bool) if selected is None else selected
    groups: list[Characterization] = []
    for number, sites in enumerate(_site_groups(index)):
        where = np.concatenate([np.arange(len(index))[index.slice(site)] for site in sites])
        stream = stream_of(classifier, sites, token_budget, track)
        found = associate(
            stream, len(where), discovery, confirmation, concepts, selected[where], settings,
            parts=parts, name=f"pass-{number}", device=classifier.device,
        )  # fmt: skip
        if found.motifs is not None:
            found.motifs.moved(where)
        associations, letters = (
            frame.assign(position=where[frame["position"]]) for frame in (found.associations, found.letters)
        )
        groups.append(replace(found, associations=associations, letters=letters))
    return _joined(groups, settings.fdr)


def _site_groups(index: NeuronIndex) -> list[list[Site]]:
    """Sites that are looked at in the same pass: as many as fit."""
    groups: list[list[Site]] = [[]]
    size = 0
    for site, width in zip(index.sites, index.widths, strict=True):
        if groups[-1] and size + width > NEURONS_AT_ONCE:
            groups.append([])
            size = 0
        groups[-1].append(site)
        size += width
    return groups


def _joined(parts: Sequence[Characterization], fdr: float) -> Characterization:
    """Several passes as one: q values over all pairs."""
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
    )


def associate(
    stream: Stream,
    n: int,
    discovery: Sequence[Protein],
    confirmation: Sequence[Protein],
    concepts: ConceptSet,
    selected: np.ndarray,
    settings: Settings,
    *,
    parts: Parts | None = None,
    name: str = "pass",
    device: torch.device | None = None,
) -> Characterization:
    """The same for any ``n`` numbers a residue, wherever they come from; ``q_value`` is not yet there.

    Raises:
        InputError: there are no proteins on one side, or a protein is on both.
    """
    if not discovery or not confirmation:
        raise InputError("no proteins to discover or to confirm concepts on; the split left none")
    both = {p.id for p in discovery} & {p.id for p in confirmation}
    if both:
        raise InputError(f"protein {min(both)!r} is among those of discovery and of confirmation; split them")
    firing = firing_codes(settings.fractions)
    saved = _Saved(parts, name)
    chosen = np.flatnonzero(selected)
    windows = TopWindows(2 * len(chosen), min(settings.windows, max(1, len(discovery) // 4)))
    if (all_ := saved.read("found")) is not None:
        _restore(windows, _PEAKS, all_, "windows/")
        motifs = make_motifs(windows, chosen, discovery, concepts, confirmation) if len(chosen) else None
        if motifs is not None:
            _restore(motifs, _MOTIFS, all_, "motifs/")
        if motifs is not None:
            motifs = motifs.finished(all_["motifs beyond"])
        table, of_letters = (
            pd.DataFrame({key.removeprefix(prefix): _plain(all_[key]) for key in all_ if key.startswith(prefix)})
            for prefix in ("table/", "letters/")
        )
        return Characterization(table, motifs, 0, 0, of_letters)
    residue_codes, protein_codes = _fitted(stream, n, discovery, settings, saved, device or torch.device("cpu"))
    held = np.zeros(len(concepts), np.int64)  # by how many proteins of confirmation
    marks = []
    for protein in confirmation:
        annotation = concepts.annotate(protein)
        held[[*annotation.positions, *annotation.holds]] += 1
        marks.append(_of_protein(annotation))
    letters = Letters(residue_codes.center, chosen)
    found = saved.read("chosen")
    if found is None:
        pairs = _discovered(
            stream, n, discovery, held, concepts, settings, windows, letters, residue_codes, protein_codes, saved
        )
        saved.write(
            "chosen",
            lambda: {**_arrays(pairs, _PAIRS), **_arrays(windows, _PEAKS), **_arrays(letters, _LETTERS_DISCOVERED)},
        )
        saved.drop("discovering")
    else:
        pairs = _Pairs(*(found[field] for field in _PAIRS))
        _restore(windows, _PEAKS, found)
        _restore(letters, _LETTERS_DISCOVERED, found)
    letters.begin(concepts, pairs.neuron, pairs.sign, pairs.concept)
    motifs = make_motifs(windows, chosen, discovery, concepts, confirmation) if len(chosen) else None

    levels = [_Confirmation(pairs, concepts, level, n) for level in ("residue", "protein")]
    permuted = _permuted(marks, np.random.default_rng([settings.seed, 12]))
    # A neuron of few values may have none as rare as that: its highest then, if it is not its usual one.
    rare, usual = (int(firing[np.argmin(np.abs(np.array(settings.fractions) - f))]) for f in (MOTIF_FRACTION, 0.2))
    high = np.clip(residue_codes.highest[chosen].astype(int), usual, rare)
    low = 255 - np.clip(255 - residue_codes.lowest[chosen].astype(int), usual, rare)
    done = np.zeros(len(confirmation), bool)

    def state() -> dict[str, np.ndarray]:
        kept = _arrays(levels[0], _CONFIRMED, "residue/") | _arrays(levels[1], _CONFIRMED, "protein/")
        kept |= _arrays(letters, _LETTERS_JUDGED, "letters/")
        return kept | (_arrays(motifs, _MOTIFS, "motifs/") if motifs is not None else {}) | {"done": done}

    if (before := saved.read("confirming")) is not None:
        done = before["done"]
        for level, prefix in zip(levels, ("residue/", "protein/"), strict=True):
            _restore(level, _CONFIRMED, before, prefix)
        _restore(letters, _LETTERS_JUDGED, before, "letters/")
        if motifs is not None:
            _restore(motifs, _MOTIFS, before, "motifs/")
    for chunk in saved.rest(stream, confirmation, "confirming", done, state):
        proteins = [confirmation[row] for row in chunk.rows]
        annotations = [concepts.annotate(protein) for protein in proteins]
        marked = [_of_residues(a, length) for a, length in zip(annotations, chunk.lengths, strict=True)]
        shifts = [offsets(protein, settings.seed) for protein in proteins]
        others = [[_shifted(one, shift[k]) for one, shift in zip(marked, shifts, strict=True)] for k in (0, 1)]
        codes = residue_codes(chunk.values)
        levels[0].add(codes, marked, others)
        again = [permuted[row] for row in chunk.rows]
        levels[1].add(protein_codes(_means(chunk)), [marks[row] for row in chunk.rows], [again, again])
        if motifs is not None:
            fires = np.concatenate([codes[:, chosen] >= high, codes[:, chosen] <= low], axis=1)
            hits = motifs.add(proteins, annotations, fires)
            letters.judge(chunk.values, codes[:, chosen], hits, proteins, annotations)
    table = _association_table(pairs, levels, concepts, [residue_codes, protein_codes])
    table["auroc_beyond_letter"] = letters.beyond()
    of_letters = letters.table()
    beyond = letters.beyond_of(motifs) if motifs is not None else np.zeros(0)

    def everything() -> dict[str, np.ndarray]:
        columns = {f"table/{key}": table[key].to_numpy() for key in table.columns}
        columns |= {f"letters/{key}": of_letters[key].to_numpy() for key in of_letters.columns}
        columns = {key: part.astype(np.str_) if part.dtype == object else part for key, part in columns.items()}
        kept = columns | _arrays(windows, _PEAKS, "windows/") | {"motifs beyond": beyond}
        return kept | (_arrays(motifs, _MOTIFS, "motifs/") if motifs is not None else {})

    saved.write("found", everything)
    saved.drop("codes", "chosen", "confirming")
    return Characterization(table, motifs.finished(beyond) if motifs is not None else None, 0, 0, of_letters)


def _plain(values: np.ndarray) -> np.ndarray:
    """Text as the objects that pandas holds."""
    return values.astype(object) if values.dtype.kind == "U" else values


def _discovered(
    stream: Stream,
    n: int,
    discovery: Sequence[Protein],
    held: np.ndarray,
    concepts: ConceptSet,
    settings: Settings,
    windows: TopWindows,
    letters: Letters,
    residue_codes: Codes,
    protein_codes: Codes,
    saved: _Saved,
) -> _Pairs:
    """The pass over the discovery proteins fills windows and letters and chooses the pairs.

    ``held`` counts the held-out proteins of every concept.
    """
    firing, chosen = firing_codes(settings.fractions), letters.chosen
    with ThreadPoolExecutor(torch.get_num_threads()) as pool:
        of_residues = _Counts(concepts, "residue", n, firing, pool)
        of_proteins = _Counts(concepts, "protein", n, firing, pool)
        seen, done = np.zeros(len(concepts), np.int64), np.zeros(len(discovery), bool)

        def state() -> dict[str, np.ndarray]:
            windows.settle()
            kept = _arrays(of_residues, _DISCOVERED, "residue/") | _arrays(of_proteins, _DISCOVERED, "protein/")
            kept |= _arrays(letters, _LETTERS_DISCOVERED, "letters/")
            return kept | _arrays(windows, _PEAKS, "windows/") | {"seen": seen, "done": done}

        if (before := saved.read("discovering")) is not None:
            seen, done = before["seen"], before["done"]
            _restore(of_residues, _DISCOVERED, before, "residue/")
            _restore(of_proteins, _DISCOVERED, before, "protein/")
            _restore(windows, _PEAKS, before, "windows/")
            _restore(letters, _LETTERS_DISCOVERED, before, "letters/")
        for chunk in saved.rest(stream, discovery, "discovering", done, state):
            annotations = [concepts.annotate(discovery[row]) for row in chunk.rows]
            for annotation in annotations:
                seen[[*annotation.positions, *annotation.holds]] += 1
            codes = residue_codes(chunk.values)
            letters.discover(chunk.values, codes[:, chosen], [discovery[row] for row in chunk.rows])
            of_residues.add(
                codes,
                [_of_residues(a, length) for a, length in zip(annotations, chunk.lengths, strict=True)],
            )
            of_proteins.add(protein_codes(_means(chunk)), [_of_protein(a) for a in annotations])
            if len(chosen):
                windows.add(_both_signs(chunk, chosen), chunk.rows, chunk.lengths)
        windows.settle()
    eligible = np.flatnonzero((seen >= settings.min_proteins) & (2 * held >= settings.min_proteins))
    selected = np.zeros(n, bool)
    selected[chosen] = True
    return _chosen_pairs([of_residues, of_proteins], eligible.tolist(), selected, settings, firing)


class _Saved:
    """What the passes over one group of sites keep; nothing without a place to keep it."""

    def __init__(self, parts: Parts | None, name: str) -> None:
        self.parts, self.name = parts, name

    def read(self, what: str) -> dict[str, np.ndarray] | None:
        return None if self.parts is None else self.parts.read(f"{self.name}-{what}")

    def write(self, what: str, make: Callable[[], Mapping[str, np.ndarray]]) -> None:
        if self.parts is not None:
            self.parts.write(f"{self.name}-{what}", make())

    def drop(self, *what: str) -> None:
        if self.parts is not None:
            self.parts.drop(*(f"{self.name}-{one}" for one in what))

    def rest(
        self,
        stream: Stream,
        proteins: Sequence[Protein],
        what: str,
        done: np.ndarray,
        state: Callable[[], Mapping[str, np.ndarray]],
    ) -> Iterator[Chunk]:
        """Chunks of the proteins that are not ``done``, which is marked once a chunk has been used.

        Batches go from long to short, so that those of the rest are the same as without the interruption.
        """
        left = np.flatnonzero(~done)
        if not len(left):
            return
        for chunk in stream([proteins[row] for row in left.tolist()], what):
            rows = left[chunk.rows]
            yield replace(chunk, rows=rows.tolist())
            done[rows] = True
            if self.parts is not None:
                self.parts.keep(f"{self.name}-{what}", state)


def _means(chunk: Chunk) -> torch.Tensor:
    """``(P, N)`` mean activation over the residues of each protein."""
    return torch.stack([part.mean(0) for part in _proteins(chunk)])


def _proteins(chunk: Chunk) -> tuple[torch.Tensor, ...]:
    """``(R_p, N)`` of every protein."""
    parts: tuple[torch.Tensor, ...] = torch.split(chunk.values, chunk.lengths)
    return parts


def _both_signs(chunk: Chunk, chosen: np.ndarray) -> np.ndarray:
    """``(R, 2 K)`` activations of some neurons, then the same with the other sign."""
    values = chunk.values[:, torch.from_numpy(chosen).to(chunk.values.device)].cpu().numpy()
    return np.concatenate([values, -values], axis=1)


def _fitted(
    stream: Stream, n: int, proteins: Sequence[Protein], settings: Settings, saved: _Saved, device: torch.device
) -> tuple[Codes, Codes]:
    """Codes of residues and of protein means, from a sample of the discovery proteins."""
    if (before := saved.read("codes")) is not None:
        return Codes.of(before, "residue/", device), Codes.of(before, "protein/", device)
    rng = np.random.default_rng([settings.seed, 10])
    some = [proteins[i] for i in np.sort(rng.permutation(len(proteins))[:SAMPLE_PROTEINS])]
    each = -(-min(16_384, max(1024, SAMPLE_SIZE // n)) // len(some))
    residues, means = [], []
    for chunk in stream(some, "sampling activations"):
        for part in _proteins(chunk):
            rows = rng.permutation(len(part))[:each]
            residues.append(part[torch.from_numpy(np.sort(rows)).to(part.device)])
        means.append(_means(chunk))
    fitted = Codes.fit(torch.cat(residues), settings.fractions), Codes.fit(torch.cat(means), settings.fractions)
    saved.write("codes", lambda: fitted[0].arrays("residue/") | fitted[1].arrays("protein/"))
    return fitted


def offsets(protein: Protein, seed: int) -> tuple[int, int]:
    """Two different circular shifts of one protein's annotation, each at least :data:`MIN_SHIFT` from none."""
    rng = np.random.default_rng([seed, 11, zlib.crc32(protein.id.encode())])
    length = len(protein)
    if length <= 2 * MIN_SHIFT + 1:
        return length // 2, length // 2
    first, second = rng.choice(np.arange(MIN_SHIFT, length - MIN_SHIFT + 1), 2, replace=False)
    return int(first), int(second)


def _shifted(one: _Marked, offset: int) -> _Marked:
    """The same annotation, moved around the protein."""
    return replace(one, positions={i: (where + offset) % one.length for i, where in one.positions.items()})


def _permuted(marks: Sequence[_Marked], rng: np.random.Generator) -> list[_Marked]:
    """What is known of whole proteins, dealt anew among proteins of which the same is known."""
    groups: dict[bytes, list[int]] = {}
    for row, one in enumerate(marks):
        groups.setdefault(one.known.tobytes(), []).append(row)
    dealt = list(marks)
    for rows in groups.values():
        for row, other in zip(rows, rng.permutation(rows), strict=True):
            dealt[row] = marks[other]
    return dealt


def _chosen_pairs(
    counts: Sequence[_Counts], eligible: Sequence[int], selected: np.ndarray, settings: Settings, firing: np.ndarray
) -> _Pairs:
    """The best concept of every neuron and sign, the best few of selected neurons, over both levels."""
    found = [one.best(eligible, settings.top) for one in counts]
    merged = {name: np.concatenate([one[name] for one in found], axis=1) for name in found[0]}  # (2, 2 top, N)
    order = np.argsort(-merged["gain"], axis=1, kind="stable")[:, : settings.top]
    best = {name: np.take_along_axis(values, order, 1) for name, values in merged.items()}
    wanted = np.isfinite(best["gain"])
    wanted[:, 1:] &= selected
    sign, rank, neuron = np.nonzero(wanted)
    order = np.lexsort((rank, sign, neuron))
    sign, rank, neuron = sign[order], rank[order], neuron[order]

    def of(name: str) -> np.ndarray:
        values: np.ndarray = best[name][sign, rank, neuron]
        return values

    return _Pairs(
        neuron, 1 - 2 * sign, of("concept").astype(np.int64), rank + 1, firing[of("share").astype(np.int64)],
        of("f1"), of("auroc"),
    )  # fmt: skip


def _association_table(
    pairs: _Pairs, levels: Sequence[_Confirmation], concepts: ConceptSet, codes: Sequence[Codes]
) -> pd.DataFrame:
    """One row a pair; ``control_p`` is the p value with shifted annotations, dropped later."""
    names = ("precision", "recall", "recall_domain", "f1", "f1_gain", "iou", "auroc", "null_auroc", "p_value",
             "control_p", "threshold", "n_clusters")  # fmt: skip
    columns = {name: np.full(len(pairs), np.nan) for name in names}
    for level, own, code in zip(("residue", "protein"), levels, codes, strict=True):
        for group in own.neurons:
            which = np.concatenate(
                [w for i, w in own.of.items() if concepts.concepts[i].group == group] or [np.zeros(0, np.int64)]
            )
            for name, values in own.numbers(which, group).items():
                columns[name][which] = values
            if level == "residue":
                columns["p_value"][which], columns["n_clusters"][which] = signed_rank_p(own.differences[0, which])
                columns["control_p"][which], _ = signed_rank_p(own.differences[1, which])
            else:
                neuron = np.searchsorted(own.neurons[group], pairs.neuron[which])
                total = own.all[group][neuron]
                total = np.where(pairs.sign[which, None] > 0, total, total[:, ::-1])
                columns["p_value"][which] = rank_sum_p(own.positive[which], total - own.positive[which])
                columns["control_p"][which] = rank_sum_p(own.shifted[which], total - own.shifted[which])
                columns["n_clusters"][which] = total.sum(1)
            columns["threshold"][which] = code.threshold(pairs.neuron[which], pairs.sign[which], pairs.code[which])
    names_of = np.array([c.name for c in concepts.concepts], dtype=object)
    return pd.DataFrame(
        {
            "position": pairs.neuron, "sign": pairs.sign.astype(np.int8), "rank": pairs.rank.astype(np.int16),
            "concept": names_of[pairs.concept], "discovery_f1": pairs.discovery_f1,
            "discovery_auroc": pairs.discovery_auroc, **columns,
            "n_clusters": np.nan_to_num(columns["n_clusters"]).astype(np.int64),
        }
    )  # fmt: skip
