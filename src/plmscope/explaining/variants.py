"""What a substitution would change: the decision, the neurons that fall silent or wake, their concepts.

::

    change = F(variant) - F(protein)       F: log-odds of the explained class; negative: the variant speaks less for it

Every substitution of the twenty amino acids, or those that are named (``A12V``, several at once ``A12V:G40D``). A
neuron *fires* in a protein if it does at one residue at least, by the threshold of its card; it falls *silent* if it
fires in the protein and nowhere in the variant, and *wakes* the other way round. A concept is lost if no neuron that
detects it fires any more.

Beside measured scores (a deep mutational scan) the change is judged by Spearman's rank correlation with a bootstrap
interval over variants, and so is what needs no model: BLOSUM62 (Henikoff and Henikoff 1992), the change of hydropathy
(Kyte and Doolittle 1982), and the letter that is replaced alone.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from scipy.stats import rankdata

from plmscope.data.proteins import AMINO_ACIDS, Protein
from plmscope.errors import InputError, RunError
from plmscope.evaluation.interventions import class_log_odds
from plmscope.explaining.activations import as_protein
from plmscope.explaining.decision import Decision
from plmscope.explaining.explainer import Explainer
from plmscope.explaining.explanation import json_value, records
from plmscope.explaining.folder import read_explainable
from plmscope.explaining.page import MOST_SCANNED, write_variants_page
from plmscope.knowledge.concepts import scale
from plmscope.models.classifier import Classifier
from plmscope.models.hooks import record
from plmscope.models.sites import Neuron, Site
from plmscope.progress import Track, silent
from plmscope.stats.chance import percentile_interval
from plmscope.store.files import write_atomic
from plmscope.study.opened import OpenRun

COLUMNS = (
    "id", "mutation", "change", "log_odds", "decided", "n_silent", "n_awake", "silent", "awake", "concepts_lost",
    "concepts_gained",
)  # fmt: skip
#: Those that the page shows.
ON_PAGE = ("mutation", "change", "decided", "silent", "awake", "concepts_lost", "concepts_gained")
PAGE = "variants.html"
#: Columns of a judgement of measured scores.
AGREEMENT = ("by", "spearman", "ci_low", "ci_high", "n")
RESAMPLES = 1000
_ONE = re.compile(r"([A-Z])([1-9]\d*)([A-Z])")


@dataclass(frozen=True, repr=False)
class Variants:
    """What substitutions would change in one protein; made by :func:`variants`.

    Attributes:
        protein: The protein.
        label: The class whose log-odds are followed.
        log_odds: Of the protein itself.
        table: One row a variant, see :data:`COLUMNS`; positions of mutations count from 1.
    """

    protein: Protein
    label: str
    log_odds: float
    table: pd.DataFrame

    def __repr__(self) -> str:
        order = self.table.sort_values("change", kind="stable")
        named = [f"{row.mutation} {row.change:+.2f}" for row in order.head(5).itertuples()]
        other = int((self.table["decided"] != self.label).sum())
        return (
            f"{self.protein.id}: {len(self.table):,} variants, class {self.label} (log-odds {self.log_odds:+.2f}); the "
            f"model says another of {other:,}; largest falls: {', '.join(named)}"
        )

    def _repr_html_(self) -> str:
        import html

        return f"<div>{html.escape(repr(self))}</div>{self.table.head(20).to_html(index=False)}"

    def matrix(self) -> pd.DataFrame:
        """Changes of single substitutions, amino acids x positions; NaN where none was made, 0 for the own letter."""
        out = pd.DataFrame(np.nan, index=list(AMINO_ACIDS), columns=np.arange(1, len(self.protein) + 1))
        for position, letter in enumerate(self.protein.sequence, 1):
            if letter in AMINO_ACIDS:
                out.loc[letter, position] = 0.0
        for mutation, change in zip(self.table["mutation"], self.table["change"], strict=True):
            if ":" not in mutation:
                out.loc[mutation[-1], int(mutation[1:-1])] = change
        return out

    def agreement(self, measured: Mapping[str, float], seed: int = 0) -> pd.DataFrame:
        """Spearman's correlation of measured scores with the change, and with what needs no model.

        Args:
            measured: Mutation to score; high means that the function is kept.
            seed: Of the bootstrap.

        Raises:
            InputError: fewer than three of the variants have a score.
        """
        known = [name for name in self.table["mutation"] if name in measured]
        if len(known) < 3:
            raise InputError(f"{len(known)} of the variants have a measured score; at least three are needed")
        change = dict(zip(self.table["mutation"], self.table["change"], strict=True))
        scores = np.array([measured[name] for name in known])
        columns = {"model": [change[name] for name in known], **_baselines(known)}
        rng, rows = np.random.default_rng([seed, 24]), []
        picks = rng.integers(0, len(known), (RESAMPLES, len(known)))
        for by, values in columns.items():
            own = np.asarray(values, dtype=np.float64)
            again = np.array([_spearman(own[pick], scores[pick]) for pick in picks])
            interval = percentile_interval(again[~np.isnan(again)]) if (~np.isnan(again)).any() else None
            low, high = (interval.low, interval.high) if interval else (np.nan, np.nan)
            rows.append((by, _spearman(own, scores), low, high, len(known)))
        return pd.DataFrame(rows, columns=list(AGREEMENT))


def variants(
    model_or_run: Classifier | OpenRun | str | Path,
    protein: Protein | str,
    *,
    label: str | int | None = None,
    positions: Iterable[int] | None = None,
    mutations: Sequence[str] | None = None,
    thresholds: Mapping[Neuron, float] | None = None,
    token_budget: int = 4096,
    track: Track = silent,
) -> Variants:
    """Substitute residues of a protein, one mutation at a time, and measure how the decision changes.

    Args:
        model_or_run: A run, or a classifier alone, which has no cards and so no neurons to watch.
        protein: A protein or a sequence.
        label: The class to follow; ``None``: what the model says of the protein.
        positions: 1-based; every substitution there. ``None``: everywhere, unless ``mutations`` are named.
        mutations: Only these, such as ``A12V`` or ``A12V:G40D``.
        thresholds: Neurons to watch and from where on they fire, instead of those with a card.
        token_budget: Padded tokens a batch.
        track: Progress.

    Raises:
        InputError: a mutation does not fit the protein, or the model cannot read it.
    """
    explainer, wild = Explainer(model_or_run, label=label), as_protein(protein)
    return of_protein(explainer, wild, positions, mutations, thresholds, token_budget, track)


def of_protein(
    explainer: Explainer,
    wild: Protein,
    positions: Iterable[int] | None = None,
    mutations: Sequence[str] | None = None,
    thresholds: Mapping[Neuron, float] | None = None,
    token_budget: int = 4096,
    track: Track = silent,
) -> Variants:
    """The same with an explainer that is used again; see :func:`variants`."""
    classifier = explainer.model
    if not len(wild):
        raise InputError(f"protein {wild.id!r} has an empty sequence; give its residues")
    names = list(mutations) if mutations is not None else _all(wild, positions)
    if not names:
        raise InputError("no mutation; give at least one")
    mutants = [replace(wild, sequence=mutated(wild, name)) for name in names]
    decision = Decision.of(classifier, explainer.network, wild, explainer.label)
    watched = _Watched.of(explainer, thresholds)
    odds, fires = _outcomes(classifier, [wild, *mutants], watched, token_budget, track)
    rows = []
    for name, own, firing in zip(names, odds[1:], fires[1:], strict=True):
        gone, new = np.flatnonzero(fires[0] & ~firing), np.flatnonzero(~fires[0] & firing)
        before, after = watched.concepts_of(fires[0]), watched.concepts_of(firing)
        rows.append(
            (
                wild.id, name, float(own[decision.label] - odds[0, decision.label]), float(own[decision.label]),
                classifier.labels[int(own.argmax())], len(gone), len(new), watched.named(gone), watched.named(new),
                "; ".join(sorted(before - after)), "; ".join(sorted(after - before)),
            )
        )  # fmt: skip
    table = pd.DataFrame(rows, columns=list(COLUMNS))
    return Variants(wild, decision.name, float(odds[0, decision.label]), table)


def mutated(protein: Protein, mutation: str) -> str:
    """The sequence with a mutation.

    >>> mutated(Protein("p", "MKTAY"), "K2R:A4G")
    'MRTGY'

    Raises:
        InputError: it is not written like ``A12V``, or the protein has another residue there, or none.
    """
    letters = list(protein.sequence)
    for part in mutation.split(":"):
        match = _ONE.fullmatch(part)
        if match is None:
            raise InputError(f"mutation {mutation!r} is not written like A12V, several joined by ':'")
        old, position, new = match[1], int(match[2]), match[3]
        if position > len(letters):
            raise InputError(f"mutation {mutation!r}: protein {protein.id!r} has {len(letters):,} residues")
        if protein.sequence[position - 1] != old:
            own = protein.sequence[position - 1]
            raise InputError(
                f"mutation {mutation!r}: protein {protein.id!r} has {own} at {position}; write {own}{position}{new}"
            )
        letters[position - 1] = new
    return "".join(letters)


def read_mutations(path: str | Path) -> tuple[list[str], dict[str, float]]:
    """Mutations, one a line, or the column ``mutation`` of a TSV or CSV table; measured scores from its ``score``.

    Raises:
        InputError: the file cannot be read, has no such column, or a score is no number (its line is named).
    """
    try:
        lines = [line for line in Path(path).read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read ({error}); give a text file with a mutation a line") from None
    if not lines:
        raise InputError(f"{path}: is empty; give a mutation a line, such as A12V")
    sign = "\t" if "\t" in lines[0] else ","
    if sign not in lines[0] and lines[0].strip() != "mutation":
        return [line.strip() for line in lines], {}
    names, scores = [], {}
    reader = csv.DictReader(lines, delimiter=sign)
    if "mutation" not in (reader.fieldnames or ()):
        raise InputError(f"{path}: no column 'mutation'; there are {', '.join(reader.fieldnames or ())}")
    for number, row in enumerate(reader, 2):
        names.append(str(row["mutation"]).strip())
        if row.get("score"):
            try:
                scores[names[-1]] = float(row["score"])
            except ValueError:
                raise InputError(f"{path}: line {number}: score {row['score']!r} is no number") from None
    return names, scores


def variants_of_file(
    opened: OpenRun,
    path: str | Path,
    out: Path | None = None,
    *,
    label: str | None = None,
    positions: str = "",
    mutations: str | Path | None = None,
    track: Track = silent,
    say: Callable[[str], None] = lambda line: None,
) -> Path:
    """Write ``variants`` (Parquet, CSV, a page) for the proteins of a file; ``agreement.csv`` where scores are known.

    Args:
        opened: The run.
        path: Any file of sequences that a study reads.
        out: Folder; default ``variants/NAME`` in the run folder.
        label: The class to follow; ``None``: what the model says of each.
        positions: ``10-40``, ``5``, or several joined by commas; empty: everywhere.
        mutations: A file of mutations, for a single protein.
        track: Progress.
        say: Told one line at a time.

    Returns:
        The folder.

    Raises:
        InputError: something does not fit; the file or the mutation is named.
        RunError: the folder cannot be written.
    """
    readable, places = read_explainable(opened, path), read_positions(positions)
    named, measured = (None, {}) if mutations is None else read_mutations(mutations)
    if named is not None and len(readable) != 1:
        raise InputError(f"{path}: {len(readable):,} proteins, but mutations are of one; give a file with that protein")
    explainer = Explainer(opened, label=label, track=track)
    done = [of_protein(explainer, one, places, named, track=track) for one in readable]
    folder = out or opened.run.path / "variants" / (Path(path).name.split(".")[0] or "proteins")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(f"{folder}: cannot be made ({error.strerror}); name another folder with --out") from None
    table = pd.concat([one.table for one in done], ignore_index=True)
    write_atomic(folder / "variants.parquet", table.to_parquet(index=False, compression="zstd"))
    write_atomic(folder / "variants.csv", table.to_csv(index=False).encode())
    for one in done:
        say(repr(one))
    agreement = pd.DataFrame(columns=list(AGREEMENT))
    if measured:
        agreement = done[0].agreement(measured, opened.study.seed)
        write_atomic(folder / "agreement.csv", agreement.to_csv(index=False).encode())
        for row in agreement.itertuples():
            interval = f"{row.ci_low:+.3f} to {row.ci_high:+.3f}"
            say(f"  Spearman with {row.n} measured scores by {row.by}: {row.spearman:+.3f} (95 % interval {interval})")
    shown = [
        {
            "id": one.protein.id, "sequence": one.protein.sequence, "label": one.label, "log_odds": one.log_odds,
            "rows": [[json_value(value) for value in row] for row in one.table[list(ON_PAGE)].itertuples(index=False)],
            "agreement": records(agreement),
        }
        for one in done[:MOST_SCANNED]
    ]  # fmt: skip
    write_variants_page(folder / PAGE, opened, shown, len(done), str(path))
    return folder


def read_positions(text: str) -> list[int] | None:
    """Positions as they are written: ``10-40``, ``5``, or several joined by commas; ``None`` for nothing.

    >>> read_positions("3-5,9")
    [3, 4, 5, 9]

    Raises:
        InputError: it is written otherwise.
    """
    if not text:
        return None
    places: list[int] = []
    for part in text.split(","):
        match = re.fullmatch(r"\s*(\d{1,6})(?:-(\d{1,6}))?\s*", part)
        low, high = (int(match[1]), int(match[2] or match[1])) if match else (1, 0)
        if low > high:
            raise InputError(f"positions {text!r} are not written like 10-40 or 5,9,12-20")
        places += range(low, high + 1)
    return places


@dataclass(frozen=True)
class _Watched:
    """Neurons whose firing is followed: positions, thresholds, signs and concepts, ``(K,)`` each."""

    neurons: list[Neuron]
    threshold: np.ndarray
    sign: np.ndarray
    concepts: list[str]

    @classmethod
    def of(cls, explainer: Explainer, thresholds: Mapping[Neuron, float] | None) -> _Watched:
        """The neurons to watch: those that are given, or else all that have a card."""
        if thresholds is not None:
            chosen = list(thresholds)
            return cls(chosen, np.array([thresholds[n] for n in chosen]), np.ones(len(chosen)), [""] * len(chosen))
        cards = explainer.cards
        if cards is None or not len(cards.positions):
            return cls([], np.zeros(0), np.zeros(0), [])
        neurons = [explainer.model.index.neuron(int(n)) for n in cards.positions]
        table = cards.table
        return cls(neurons, table["threshold"].to_numpy(), table["sign"].to_numpy(), table["concept"].tolist())

    def fires(self, values: np.ndarray) -> np.ndarray:
        """Which fire at a residue or more, ``(K,)``, given ``(R, K)`` activations."""
        beyond = np.where(self.sign > 0, values >= self.threshold, values <= self.threshold)  # (R, K)
        fires: np.ndarray = np.any(beyond, axis=0)
        return fires

    def named(self, rows: np.ndarray) -> str:
        """Neurons as ``layer.module.neuron``, joined by ``;``."""
        chosen = (self.neurons[row] for row in rows)
        return "; ".join(f"{n.site.layer}.{n.site.module}.{n.index}" for n in chosen)

    def concepts_of(self, firing: np.ndarray) -> set[str]:
        """The concepts that the firing neurons detect, by their cards."""
        return {self.concepts[row] for row in np.flatnonzero(firing)} - {""}


@torch.inference_mode()
def _outcomes(
    classifier: Classifier, proteins: Sequence[Protein], watched: _Watched, token_budget: int, track: Track
) -> tuple[np.ndarray, np.ndarray]:
    """Log-odds ``(P, C)`` of every class, and which watched neurons fire ``(P, K)``; one forward pass each."""
    odds = np.zeros((len(proteins), len(classifier.labels)))
    fires = np.zeros((len(proteins), len(watched.neurons)), bool)
    columns: dict[Site, list[int]] = {}
    for k, neuron in enumerate(watched.neurons):
        columns.setdefault(neuron.site, []).append(k)
    batches = classifier.batches(proteins, token_budget)
    with record(classifier, {neuron.site for neuron in watched.neurons}) as seen:
        for batch in track(batches, "variants", len(batches)):
            logits = classifier.model(input_ids=batch.input_ids, attention_mask=batch.attention_mask).logits
            odds[batch.rows] = class_log_odds(logits.double().cpu().numpy(), classifier.task)
            values = np.zeros((*batch.input_ids.shape, len(watched.neurons)), np.float32)
            for site, own in columns.items():
                units = [watched.neurons[k].index for k in own]
                values[:, :, own] = seen[site][:, :, units].float().cpu().numpy()
            for row, one in zip(batch.rows, values, strict=True):
                fires[row] = watched.fires(one[1 : len(proteins[row]) + 1])
    return odds, fires


def _all(protein: Protein, positions: Iterable[int] | None) -> list[str]:
    """Every substitution at some places, by position, then by letter."""
    places = range(1, len(protein) + 1) if positions is None else sorted(set(positions))
    if outside := [p for p in places if not 1 <= p <= len(protein)]:
        raise InputError(f"position {outside[0]}: protein {protein.id!r} has {len(protein):,} residues")
    own = protein.sequence
    return [f"{own[p - 1]}{p}{new}" for p in places for new in AMINO_ACIDS if new != own[p - 1]]


def _baselines(names: Sequence[str]) -> dict[str, list[float]]:
    """What is known of substitutions without a model, high where they should do little; summed over a variant."""
    from Bio.Align import substitution_matrices

    matrices: Any = substitution_matrices
    matrix = matrices.load("BLOSUM62")
    water = np.nan_to_num(scale("hydropathy"))  # letters outside the twenty amino acids count as neutral
    parts = [[(part[0], part[-1]) for part in name.split(":")] for name in names]
    return {
        "blosum62": [sum(float(matrix[a, b]) for a, b in one) for one in parts],
        "hydropathy": [-sum(abs(float(water[ord(a)] - water[ord(b)])) for a, b in one) for one in parts],
        # What the replaced letter alone says: how seldom it is exchanged at all.
        "own letter": [-sum(float(matrix[a, a]) for a, _ in one) for one in parts],
    }


def _spearman(a: np.ndarray, b: np.ndarray) -> float:
    """Rank correlation; NaN where one of the two does not vary."""
    x, y = rankdata(a), rankdata(b)
    if x.std() == 0 or y.std() == 0:
        return float("nan")
    return float(np.corrcoef(x, y)[0, 1])
