"""Concepts: what may be known about a residue or a protein, to be compared with what neurons detect.

A concept marks residues (``level`` residue: an amino acid, a place, a stretch, a pattern, an active site) or whole
proteins (``level`` protein: an EC class, a length). For every protein it is either *known* or not: a protein without
a single active site in the table is not one without active site, so nothing is learnt from it about that concept.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Literal

import numpy as np
import pandas as pd

from plmscope.data.annotations import EC_NAMES, FeatureSet
from plmscope.data.labelling import ec_classes
from plmscope.data.labels import LabelTask, classes_of
from plmscope.data.proteins import AMINO_ACIDS, Protein
from plmscope.data.terms import feature_name, frequent_terms
from plmscope.errors import InputError
from plmscope.knowledge.patterns import Pattern, parse_pattern

#: Kinds of concepts, in the order of the table.
Kind = Literal["amino acid", "group", "position", "property", "pattern", "feature", "class", "term", "length"]
KINDS: tuple[Kind, ...] = (
    "amino acid", "group", "position", "property", "pattern", "feature", "class", "term", "length",
)  # fmt: skip
#: Terms of whole proteins that are compared, the most frequent.
MOST_TERMS = 200
AMINO_ACID_NAMES: Mapping[str, str] = dict(
    zip(
        "ACDEFGHIKLMNPQRSTVWY",
        "alanine cysteine aspartate glutamate phenylalanine glycine histidine isoleucine lysine leucine methionine "
        "asparagine proline glutamine arginine serine threonine valine tryptophan tyrosine".split(),
        strict=True,
    )
)
FEATURE_COLUMNS = ("id", "feature_type", "start", "end", "description")
#: Lengths of the windows at both ends.
ENDS = (1, 5, 20, 50)
#: Keys of UniProt's feature tables, as a sentence says them.
FEATURE_WORDS = {
    "ACT_SITE": "active site", "BINDING": "binding site", "SITE": "site of interest", "MOD_RES": "modified residue",
    "CARBOHYD": "glycosylation site", "LIPID": "lipidation site", "DISULFID": "disulfide bond",
    "CROSSLNK": "cross-link", "METAL": "metal binding site", "NP_BIND": "nucleotide binding region",
    "CA_BIND": "calcium binding region", "DNA_BIND": "DNA binding region", "ZN_FING": "zinc finger",
    "TRANSMEM": "transmembrane stretch", "INTRAMEM": "stretch within the membrane", "TOPO_DOM": "topological domain",
    "TRANSIT": "transit peptide", "PROPEP": "propeptide", "COILED": "coiled coil",
    "COMPBIAS": "stretch of biased composition",
}  # fmt: skip


@dataclass(frozen=True)
class Concept:
    """One thing that may be known about a residue or about a whole protein.

    Attributes:
        name: Unique among the concepts of a run.
        kind: One of :data:`KINDS`.
        level: ``residue`` or ``protein``.
        source: Paper, table or column.
        phrase: How a sentence about a neuron says it, after "fires on" (residue) or "is higher in" (protein).
        group: Concepts of one group are known in the same proteins; "" is known everywhere.
    """

    name: str
    kind: str
    level: str
    source: str
    phrase: str
    group: str = ""

    @property
    def has_stretches(self) -> bool:
        """Whether touching any residue of a stretch finds it (patterns, features, windows, places)."""
        return self.level == "residue" and self.kind not in ("amino acid", "group")


@dataclass(frozen=True)
class Annotation:
    """The concepts of one protein.

    Attributes:
        positions: Concept number to the sorted 0-based residues it marks; concepts that mark none are not there.
        stretches: Concept number to ``(k, 2)`` half-open ranges: pattern matches, features, unbroken windows.
        holds: Numbers of the protein-level concepts that hold.
        known: ``(C,)`` whether anything is known about each concept here.
    """

    positions: Mapping[int, np.ndarray]
    stretches: Mapping[int, np.ndarray]
    holds: frozenset[int]
    known: np.ndarray


class ConceptSet:
    """Concepts in a fixed order, and how each protein has them; made by :func:`build_concepts`.

    Attributes:
        concepts: All of them, those of the residue level first.
        left_out: Terms that are frequent enough but beyond :data:`MOST_TERMS`.
    """

    def __init__(
        self,
        concepts: Sequence[Concept],
        patterns: Mapping[str, Pattern],
        features: Mapping[str, Sequence[tuple[str, int, int]]],
        ec_levels: Mapping[str, str],
        lengths: tuple[float, float],
        task: LabelTask = "single",
        terms: Mapping[str, Mapping[str, Sequence[str]]] | None = None,
        left_out: int = 0,
    ) -> None:
        self.left_out = left_out
        self._terms = terms or {}
        self.concepts = tuple(sorted(concepts, key=lambda c: (c.level == "protein", KINDS.index(c.kind))))
        self.number = {concept.name: i for i, concept in enumerate(self.concepts)}
        if len(self.number) < len(self.concepts):
            names = [concept.name for concept in self.concepts]
            twice = next(name for name in names if names.count(name) > 1)
            raise InputError(f"two concepts are called {twice!r}; rename one")
        self._patterns = {self.number[name]: pattern for name, pattern in patterns.items() if name in self.number}
        self._features = features
        self._ec = ec_levels
        self._lengths = lengths
        self._task = task
        groups = {f"{row['name']} residues": row["residues"] for row in _rows("groups.csv")}
        #: Concept number to amino acids, for concepts that are no more than sets of them.
        self.letters_of: Mapping[int, frozenset[str]] = {
            i: frozenset(c.name[-2] if c.kind == "amino acid" else groups[c.name])
            for i, c in enumerate(self.concepts)
            if c.kind in ("amino acid", "group")
        }
        self._members = np.zeros((len(self.letters_of), 128), dtype=bool)
        for row, letters in enumerate(self.letters_of.values()):
            self._members[row, [ord(letter) for letter in letters]] = True
        self._together: dict[str, list[int]] = {}  # numbers of a group
        for i, c in enumerate(self.concepts):
            self._together.setdefault(c.group, []).append(i)
        self._known = np.array([not c.group for c in self.concepts], dtype=bool)
        self._of_level = {  # EC level to class to concept number
            level: {
                c.name.removeprefix("EC "): i for i, c in enumerate(self.concepts) if c.group == f"EC level {level}"
            }
            for level in (1, 2, 3, 4)
        }
        self._of_label = {c.name.removeprefix("class "): i for i, c in enumerate(self.concepts) if c.group == "label"}
        self._windows = [(self.number[r["name"]], r) for r in _rows("windows.csv") if r["name"] in self.number]

    def __len__(self) -> int:
        return len(self.concepts)

    def __repr__(self) -> str:
        kinds = [c.kind for c in self.concepts]
        return "ConceptSet(" + ", ".join(f"{kinds.count(k)} {k}" for k in KINDS if k in kinds) + ")"

    def labels_of(self, protein: Protein) -> tuple[str, ...]:
        """The classes of a protein: its label, or in a multi-label task those that the label joins by ``;``."""
        return _labels(protein, self._task)

    def annotate(self, protein: Protein) -> Annotation:
        """Where every concept is in one protein.

        Raises:
            InputError: a feature lies outside the sequence (it is named).
        """
        sequence, length = protein.sequence, len(protein)
        codes = np.frombuffer(sequence.encode("ascii"), dtype=np.uint8)
        positions: dict[int, np.ndarray] = {}
        stretches: dict[int, np.ndarray] = {}
        for number, members in zip(self.letters_of, self._members[:, codes], strict=True):
            positions[number] = np.flatnonzero(members)
        for size in ENDS:
            if size <= length:
                for name, span in ((_first(size), (0, size)), (_last(size), (length - size, length))):
                    if name in self.number:
                        stretches[self.number[name]] = np.array([span])
        for number, row in self._windows:
            stretches[number] = _runs(_window(codes, row))
        for number, pattern in self._patterns.items():
            stretches[number] = np.array(list(pattern.find(sequence)), dtype=np.int64).reshape(-1, 2)
        known = self._known.copy()
        own: dict[int, list[tuple[int, int]]] = {}
        for kind, start, end in self._features.get(protein.id, ()):
            if not 0 <= start < end <= length:
                raise InputError(
                    f"feature {kind} {start + 1}-{end} of protein {protein.id!r} lies outside its {length} residues; "
                    "the table belongs to another version of the sequence, correct or remove the row"
                )
            if kind in self.number:
                own.setdefault(self.number[kind], []).append((start, end))
        for number, spans in own.items():
            stretches[number] = np.array(sorted(set(spans)))
            known[self._together[self.concepts[number].group]] = True
        for number, spans_ in stretches.items():
            if len(spans_):
                positions[number] = np.unique(np.concatenate([np.arange(a, b) for a, b in spans_]))
        stretches = {number: spans_ for number, spans_ in stretches.items() if len(spans_)}
        positions = {number: where for number, where in positions.items() if len(where)}
        return Annotation(positions, stretches, self._protein_level(protein, known), known)

    def _protein_level(self, protein: Protein, known: np.ndarray) -> frozenset[int]:
        """Numbers of the protein-level concepts that hold; sets what is known."""
        found = set()
        text = self._ec.get(protein.id, "")
        for level, numbers in self._of_level.items():
            classes = ec_classes(text, level) if text and numbers else ()
            known[list(numbers.values())] = bool(classes)
            found |= {numbers[name] for name in classes if name in numbers}
        known[list(self._of_label.values())] = protein.label is not None
        found |= {self._of_label[name] for name in self.labels_of(protein) if name in self._of_label}
        for kind, names in self._terms.get(protein.id, {}).items():
            known[self._together.get(f"term {kind}", [])] = True
            found |= {self.number[name] for name in (f"{kind} {term}" for term in names) if name in self.number}
        for name, holds in (("short", len(protein) <= self._lengths[0]), ("long", len(protein) >= self._lengths[1])):
            number = self.number.get(f"{name} protein")
            if number is not None and holds:
                found.add(number)
        return frozenset(found)

    def describe(self, protein: Protein) -> pd.DataFrame:
        """One row a residue: ``position`` (1-based), ``residue`` and the names of the ``concepts`` that mark it."""
        names: list[list[str]] = [[] for _ in range(len(protein))]
        for number, where in self.annotate(protein).positions.items():
            for residue in where:
                names[residue].append(self.concepts[number].name)
        return pd.DataFrame(
            {"position": np.arange(1, len(protein) + 1), "residue": list(protein.sequence), "concepts": names}
        )

    def table(self, proteins: Iterable[Protein]) -> pd.DataFrame:
        """``concepts.parquet``: how often every concept occurs in some proteins."""
        counts = np.zeros((len(self), 3), dtype=np.int64)
        for protein in proteins:
            annotation = self.annotate(protein)
            for number, where in annotation.positions.items():
                domains = annotation.stretches.get(number, where)
                counts[number] += (1, len(where), len(domains))
            for number in annotation.holds:
                counts[number, 0] += 1
        frame = pd.DataFrame(counts, columns=["n_proteins", "n_residues", "n_domains"])
        return frame.assign(
            concept=[c.name for c in self.concepts],
            kind=[c.kind for c in self.concepts],
            level=[c.level for c in self.concepts],
            source=[c.source for c in self.concepts],
        )[["concept", "kind", "level", "n_proteins", "n_residues", "n_domains", "source"]]


def build_concepts(
    proteins: Sequence[Protein],
    *,
    kinds: Sequence[str] = KINDS,
    features: FeatureSet | None = None,
    ec: Mapping[str, str] | None = None,
    patterns: Mapping[str, str] | None = None,
    min_proteins: int = 10,
    task: LabelTask = "single",
    terms: Mapping[str, Mapping[str, Sequence[str]]] | None = None,
) -> ConceptSet:
    """The concepts that occur in some proteins.

    Args:
        proteins: Decide which features and classes are frequent enough, and what counts as long.
        kinds: Which of :data:`KINDS`.
        features: Residue features, joined to the proteins by their ids.
        ec: Protein id to its EC numbers; without, labels are the only classes.
        patterns: More patterns, name to PROSITE syntax, beside the textbook ones.
        min_proteins: Features, classes and terms that fewer of the proteins have are left out; so is one that all have.
        task: Whether a label is one class, or several joined by ``;``.
        terms: Protein id to kind to terms, of :func:`~plmscope.data.terms.terms_of`; the most frequent are taken.

    Raises:
        InputError: a kind is unknown, a pattern cannot be read, or two concepts have one name.

    >>> proteins = [Protein("p", "MKGASGKTCC", "2")]
    >>> concepts = build_concepts(proteins, kinds=("amino acid", "pattern"), patterns={"twice C": "C-C"})
    >>> concepts.annotate(proteins[0]).positions[concepts.number["twice C"]].tolist()
    [8, 9]
    """
    unknown = [kind for kind in kinds if kind not in KINDS]
    if unknown:
        raise InputError(f"concept kind {unknown[0]!r} is not known; choose from {', '.join(KINDS)}")
    concepts = [Concept(f"{AMINO_ACID_NAMES[a]} ({a})", "amino acid", "residue", "sequence", AMINO_ACID_NAMES[a])
             for a in sorted(AMINO_ACIDS)]  # fmt: skip
    for row in _rows("groups.csv"):
        name = f"{row['name']} residues"
        concepts.append(Concept(name, "group", "residue", row["source"], f"{name} ({row['residues']})"))
    for size in ENDS:
        for name in (_first(size), _last(size)):
            concepts.append(Concept(name, "position", "residue", "sequence", f"the {name}"))
    for row in _rows("windows.csv"):
        concepts.append(Concept(row["name"], "property", "residue", row["source"], f"a {row['name']}"))
    parsed = {row["name"]: parse_pattern(row["pattern"]) for row in _rows("patterns.csv")}
    for row in _rows("patterns.csv"):
        phrase = f"the pattern {row['name']} ({row['pattern']}: {row['meaning']})"
        concepts.append(Concept(row["name"], "pattern", "residue", row["source"], phrase))
    for name, text in (patterns or {}).items():
        parsed[name] = parse_pattern(text)
        concepts.append(Concept(name, "pattern", "residue", "study", f"the pattern {text}"))
    ids = {protein.id for protein in proteins}
    rows: dict[str, list[tuple[str, int, int]]] = {}
    if features is not None and "feature" in kinds:
        sub: dict[str, set[str]] = {}  # name to the proteins that have it
        table = features.table.reindex(columns=FEATURE_COLUMNS, fill_value="")
        for key, kind, start, end, said in table.itertuples(index=False, name=None):
            for name in dict.fromkeys(part for part in (str(kind), feature_name(str(kind), str(said))) if part):
                rows.setdefault(str(key), []).append((name, int(start), int(end)))
                if key in ids:
                    sub.setdefault(name, set()).add(str(key))
        for name in sorted(name for name, have in sub.items() if len(have) >= min_proteins):
            kind = name.partition(": ")[0]
            said = f"{FEATURE_WORDS[kind]} ({name})" if kind in FEATURE_WORDS else name
            phrase = f"residues annotated as {said}"
            concepts.append(Concept(name, "feature", "residue", features.source, phrase, f"feature {kind}"))
    concepts += _class_concepts(proteins, ec or {}, min_proteins, task)
    most = MOST_TERMS if "term" in kinds else 0
    some, left_out = frequent_terms(proteins, terms or {}, min_proteins, most)
    concepts += [Concept(f"{k} {t}", "term", "protein", k, f"proteins with {k} {t}", f"term {k}") for k, t in some]
    low, high = np.quantile([len(p) for p in proteins], (0.25, 0.75)) if proteins else (0.0, np.inf)
    for name, bound in (("short", f"at most {low:.0f}"), ("long", f"at least {high:.0f}")):
        phrase = f"{name} proteins ({bound} residues)"
        concepts.append(Concept(f"{name} protein", "length", "protein", "sequence", phrase))
    lengths, left_out = (float(low), float(high)), left_out if most else 0
    kept = [c for c in concepts if c.kind in kinds]
    return ConceptSet(kept, parsed, rows, ec or {}, lengths, task, terms, left_out)


def _class_concepts(
    proteins: Sequence[Protein], ec: Mapping[str, str], min_proteins: int, task: LabelTask
) -> list[Concept]:
    """EC classes at each level where EC numbers are known, labels otherwise."""
    concepts: list[Concept] = []
    counts: dict[str, int] = {}
    if any(ec.get(protein.id) for protein in proteins):
        for level in (1, 2, 3, 4):
            counts = {}
            for protein in proteins:
                for name in ec_classes(ec.get(protein.id, ""), level):
                    counts[name] = counts.get(name, 0) + 1
            for name in sorted(name for name, n in counts.items() if min_proteins <= n):
                phrase = f"EC {name}" + (f" ({EC_NAMES[name]})" if name in EC_NAMES else "")
                concepts.append(Concept(f"EC {name}", "class", "protein", "EC number", phrase, f"EC level {level}"))
        return concepts
    for protein in proteins:
        for name in _labels(protein, task):
            counts[name] = counts.get(name, 0) + 1
    names = sorted(name for name, n in counts.items() if min_proteins <= n < len(proteins))
    return [Concept(f"class {name}", "class", "protein", "label", f"class {name}", "label") for name in names]


def _labels(protein: Protein, task: LabelTask) -> tuple[str, ...]:
    """The classes of a protein; none without a label."""
    return () if protein.label is None else classes_of(protein.label, task)


def _first(size: int) -> str:
    return "first residue" if size == 1 else f"first {size} residues"


def _last(size: int) -> str:
    return "last residue" if size == 1 else f"last {size} residues"


@cache
def _rows(name: str) -> tuple[Mapping[str, str], ...]:
    """The rows of one of the concept tables."""
    with (resources.files("plmscope.embedded") / "concepts" / name).open(encoding="utf-8") as handle:
        return tuple(csv.DictReader(handle))


@cache
def scale(name: str) -> np.ndarray:
    """A scale as a table by ASCII code, ``(128,)``; letters outside the 20 amino acids are NaN.

    ``hydropathy`` lies in -4.5..4.5, ``charge`` is -1, 0 or 1, ``helix`` 0.57..1.51 and ``strand`` 0.37..1.7.

    References:
        Kyte and Doolittle 1982; Chou and Fasman 1978; see ``embedded/concepts/README.md``.
    """
    values = np.full(128, np.nan)
    for row in _rows("scales.csv"):
        values[ord(row["residue"])] = float(row[name])
    return values


def _window(codes: np.ndarray, row: Mapping[str, str]) -> np.ndarray:
    """``(R,)`` whether the window centred on each residue is beyond the cutoff; only whole windows of known letters."""
    width, values = int(row["width"]), scale(row["scale"])[codes]
    marked = np.zeros(len(codes), dtype=bool)
    if len(codes) < width:
        return marked
    values = np.abs(values) if row["statistic"] == "absolute" else values
    sums = np.lib.stride_tricks.sliding_window_view(values, width).sum(1)  # NaN where a letter is unknown
    averaged = sums / width if row["statistic"] == "mean" else sums
    cutoff = float(row["cutoff"])
    beyond = averaged >= cutoff - 1e-9 if row["side"] == "above" else averaged <= cutoff + 1e-9
    marked[width // 2 : width // 2 + len(beyond)] = beyond
    return marked


def _runs(marked: np.ndarray) -> np.ndarray:
    """Unbroken stretches of true values as half-open ranges ``(k, 2)``."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], marked, [False]]).astype(np.int8)))
    return edges.reshape(-1, 2)
