"""How one protein compares with the training proteins: activations, contrasts of classes, and the nearest of them.

**Percentile** of an activation: the share of residues of training proteins (one a cluster) whose activation of the same
neuron is lower, ties counting half. From a sample, kept as 257 quantiles a neuron, dense at both ends.

**KN score** of a class c: how far its neurons are where they are in training proteins of c, whatever is decided::

    KN(x, c) = mean over its neurons n of  s_cn (a_n(x) - mean_n) / sd_n      s_cn = sign(mean_n in c - mean_n overall)

with ``a_n(x)`` the mean over residues, mean and deviation over the sampled training proteins.

**How far to trust a class**: the identity of the nearest training protein (MMseqs2), and how many of the run's test
proteins at this distance the model classifies rightly, whether or not its evaluation took them.
"""

from __future__ import annotations

import hashlib
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from plmscope.data.clusters import one_per_cluster
from plmscope.data.labels import membership
from plmscope.data.leakage import IDENTITIES, leakage
from plmscope.data.proteins import Protein
from plmscope.errors import RunError
from plmscope.explaining.explanation import ALIKE, SAME
from plmscope.knowledge.characterize import NEURONS_AT_ONCE
from plmscope.knowledge.codes import FRACTIONS
from plmscope.models.classifier import Batch, Classifier
from plmscope.models.hooks import record
from plmscope.models.sites import Site
from plmscope.models.workers import splitting
from plmscope.progress import Track, silent
from plmscope.store.files import write_atomic
from plmscope.study.opened import OpenRun

Seen = dict[Site, torch.Tensor]
#: Quantiles that are kept of every neuron.
LEVELS = np.unique([*np.linspace(0, 1, 241), *FRACTIONS, *(1 - f for f in FRACTIONS), 0.0005, 0.9995])
#: Training proteins and residues of a sample; a tail of one in a thousand is four residues.
PROTEINS, RESIDUES = 256, 4096
#: Folder of a run in which samples of its training proteins are kept.
CACHE = "explain.cache"
#: Test proteins at a distance below which their accuracy is not told, and how many of a distance are asked at most.
FEWEST, MOST = 5, 200


@dataclass(frozen=True)
class Sample:
    """What neurons do in training proteins.

    Attributes:
        edges: ``(2, N, Q)`` quantiles of the activation at :data:`LEVELS`, over residues and over first tokens; may be
            a file that is mapped.
        means: ``(2 + C, N)`` over proteins of the mean over residues: all of them, its standard deviation, each class.
        labels: ``C`` class names.
        n_proteins: How many were sampled.
    """

    edges: np.ndarray
    means: np.ndarray
    labels: tuple[str, ...]
    n_proteins: int

    def percentile(self, neuron: int, values: np.ndarray | float, first_token: bool = False) -> np.ndarray:
        """Share of training residues (or first tokens) with a lower activation of one neuron, ties half; any shape."""
        edges, own = self.edges[int(first_token), neuron], np.asarray(values, dtype=np.float32)
        low, high = np.searchsorted(edges, own, side="left"), np.searchsorted(edges, own, side="right")
        below = np.where(low > 0, LEVELS[np.maximum(low - 1, 0)], 0.0)
        upto = np.where(high < len(LEVELS), LEVELS[np.minimum(high, len(LEVELS) - 1)], 1.0)
        percentiles: np.ndarray = (below + upto) / 2
        return percentiles

    def quantile(self, neuron: int, share: float) -> float:
        """The activation that a share of training residues stays below, at the nearest of :data:`LEVELS`."""
        return float(self.edges[0, neuron, int(np.abs(LEVELS - share).argmin())])

    def kn_scores(self, protein_means: np.ndarray, chosen: np.ndarray) -> np.ndarray:
        """KN score of every class, ``(C,)``, by the same neurons.

        Args:
            protein_means: ``(N,)`` mean over the residues of the protein.
            chosen: ``(N,)`` which neurons; NaN for none, and for a class without sampled proteins.
        """
        mean, deviation, of_class = self.means[0], self.means[1], self.means[2:]
        if not chosen.any():
            return np.full(len(self.labels), np.nan)
        z = (protein_means - mean)[chosen] / np.maximum(deviation[chosen], 1e-12)
        scores: np.ndarray = (np.sign(of_class[:, chosen] - mean[chosen]) * z).mean(1)
        return scores


def sample_of(opened: OpenRun, track: Track = silent) -> Sample:
    """The sample of a run's training proteins, made once and kept in its folder: 2 KB a neuron.

    Raises:
        RunError: the folder is not writable.
    """
    model, study = opened.model, opened.study
    train = opened.proteins("train")
    per_class = max(1, PROTEINS // len(model.labels))
    proteins = one_per_cluster(train, opened.clusters, per_class, study.seed, task=study.data.task_or_single)
    stamp = hashlib.sha256(f"{_weights(opened)} {study.seed} {[p.id for p in proteins]} {study.dtype}".encode())
    paths = [opened.run.path / CACHE / f"{name}-{stamp.hexdigest()[:16]}.npy" for name in ("edges", "means")]
    if not all(path.is_file() for path in paths):
        _make_way(paths)
        for path, array in zip(paths, _sampled(model, proteins, study.seed, track), strict=True):
            _save(path, array)
    edges, means = np.load(paths[0], mmap_mode="r"), np.load(paths[1])
    return Sample(edges, means, model.labels, len(proteins))


def _weights(opened: OpenRun) -> str:
    """What tells the run's model from others: the digests of its files."""
    return " ".join(f"{name}={digest}" for name, digest in sorted(opened.model.files.items()))


def _make_way(paths: Sequence[Path]) -> None:
    """Make the folder of some files that are kept, without those of an earlier model."""
    folder = paths[0].parent
    try:
        folder.mkdir(exist_ok=True)
        for path in paths:
            for old in folder.glob(f"{path.name.split('-')[0]}-*.npy"):
                old.unlink()
    except OSError as error:
        raise RunError(f"{folder}: cannot be written ({error.strerror}); allow writing there") from None


def _save(path: Path, array: np.ndarray) -> None:
    """Write one array, whole or not at all."""
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    write_atomic(path, buffer.getvalue())


def _sampled(model: Classifier, proteins: Sequence[Protein], seed: int, track: Track) -> tuple[np.ndarray, np.ndarray]:
    """Quantiles ``(2, N, Q)`` at residues and at the first token, and means ``(2 + C, N)`` of proteins."""
    index = model.index
    edges = np.zeros((2, len(index), len(LEVELS)), np.float32)
    means = np.zeros((len(proteins), len(index)), np.float32)
    batches = model.batches(proteins)
    for sites in model.index.groups(NEURONS_AT_ONCE):
        where = np.concatenate([np.arange(len(index))[index.slice(site)] for site in sites])
        each = -(-RESIDUES // len(proteins))
        rng = np.random.default_rng([seed, 23])
        residues: list[np.ndarray] = []
        firsts = np.zeros((len(proteins), len(where)), np.float32)
        with torch.inference_mode(), record(model, sites) as seen:

            def work(
                batch: Batch, _: int, sites: list[Site] = sites, seen: Seen = seen
            ) -> tuple[list[int], torch.Tensor]:
                model.model(input_ids=batch.input_ids, attention_mask=batch.attention_mask)
                values = torch.cat([seen[site].float() for site in sites], dim=2)  # (B, T, n)
                seen.clear()
                return batch.rows, values

            for batch in track(batches, "ranks among training residues", len(batches)):
                for rows, values in splitting(work, 0)(batch):
                    for row, own in zip(rows, values, strict=True):
                        part = own[1 : len(proteins[row]) + 1]
                        some = np.sort(rng.permutation(len(part))[:each])
                        residues.append(part[torch.from_numpy(some).to(part.device)].cpu().numpy())
                        means[row, where], firsts[row] = part.mean(0).cpu().numpy(), own[0].cpu().numpy()
        for kind, sample in enumerate((np.concatenate(residues), firsts)):
            for start in range(0, len(where), 1024):
                columns = slice(start, start + 1024)
                quantiles = np.quantile(sample[:, columns], LEVELS, axis=0, method="inverted_cdf")
                edges[kind, where[columns]] = quantiles.T
    members = membership([str(p.label) for p in proteins], model.labels, model.task)
    with np.errstate(invalid="ignore", divide="ignore"):
        of_class = (members.T.astype(np.float64) @ means) / members.sum(0)[:, None]
    return edges, np.concatenate([means.mean(0)[None], means.std(0)[None], of_class]).astype(np.float64)


# --- the nearest training protein ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Nearest:
    """The training protein nearest to one protein, and what the model did at this distance.

    Attributes:
        id: Of the nearest training protein; empty where MMseqs2 finds none.
        identity: 0 to 1.
        label: Its class.
        distance: The class of identity in words.
        accuracy: Share of the run's test proteins at this distance that are classified rightly; NaN if they are fewer
            than five.
        low, high: 95 % interval of the accuracy (Wilson).
        n_test: How many test proteins at this distance that is of: all of them, or :data:`MOST` drawn at random.
        in_training: ``same sequence`` or ``90% identical or more`` if the model was trained on it or such a protein.
        longest_train: Residues of the longest training protein.
    """

    id: str
    identity: float
    label: str
    distance: str
    accuracy: float
    low: float
    high: float
    n_test: int
    in_training: str = ""
    longest_train: int = 0


class Distances:
    """The training proteins of a run, to compare others with."""

    def __init__(self, opened: OpenRun, track: Track = silent) -> None:
        self.opened, self.track = opened, track

    @cached_property
    def _train(self) -> list[Protein]:
        return self.opened.proteins("train")

    @cached_property
    def right(self) -> pd.DataFrame:
        """Test proteins with their class of identity: ``place`` and ``right``; asked once and kept in the run folder.

        Raises:
            RunError: the folder is not writable.
        """
        opened = self.opened
        if not opened.run.has("leakage"):
            return pd.DataFrame({"place": np.zeros(0, int), "right": np.zeros(0, bool)})
        test = opened.proteins("test")
        near = opened.run.table("leakage").set_index("id").reindex([p.id for p in test])
        places = place(near["nearest_train"].fillna("").to_numpy(), near["identity"].fillna(0).to_numpy())
        order = pd.Series(places).sample(frac=1, random_state=opened.study.seed)
        some = order.groupby(order).head(MOST).sort_index()
        asked = [test[row] for row in some.index]
        stamp = hashlib.sha256(f"{_weights(opened)} {[p.id for p in asked]} {opened.study.dtype}".encode())
        path = opened.run.path / CACHE / f"right-{stamp.hexdigest()[:16]}.npy"
        if not path.is_file():
            _make_way([path])
            _save(path, _right(opened.model, asked, self.track))
        return pd.DataFrame({"place": some.to_numpy(), "right": np.load(path)})

    def of(self, proteins: Sequence[Protein]) -> list[Nearest]:
        """The nearest training protein of each, in their order; one search for all."""
        near = leakage(self._train, proteins)
        label, sequences = {p.id: str(p.label) for p in self._train}, {p.sequence for p in self._train}
        longest = max(map(len, self._train))
        names, identity = near["nearest_train"].to_numpy(dtype=object), near["identity"].to_numpy(dtype=np.float64)
        lines = []
        for protein, name, share, at in zip(proteins, names, identity, place(names, identity), strict=True):
            own = self.right["right"].to_numpy(dtype=bool)[self.right["place"].to_numpy() == at]
            n, right = len(own), int(own.sum())
            low, high = wilson(right, n) if n >= FEWEST else (math.nan, math.nan)
            accuracy = right / n if n >= FEWEST else math.nan
            seen = SAME if protein.sequence in sequences else ALIKE if at == len(PLACES) - 1 else ""
            lines.append(
                Nearest(
                    str(name), float(share), label.get(str(name), ""), PLACES[at], accuracy, low, high, n, seen, longest
                )
            )
        return lines


def _right(model: Classifier, proteins: Sequence[Protein], track: Track) -> np.ndarray:
    """Which proteins the model classifies rightly, ``(P,)``; in a multi-label task all classes have to be right."""
    found, said = model.targets(proteins), []
    for start in track(range(0, len(proteins), 64), "test proteins", -(-len(proteins) // 64)):
        said.append(model.log_probabilities(proteins[start : start + 64]))
    log_p = np.concatenate(said)
    right: np.ndarray = ((log_p > math.log(0.5)) == found).all(1) if model.task == "multi" else log_p.argmax(1) == found
    return right


#: Classes of identity in words; those of the leakage table.
PLACES = (
    "no relative found",
    f"below {IDENTITIES[0]:.0%}",
    *(f"{low:.0%} to {high:.0%}" for low, high in pairwise(IDENTITIES)),
    f"{IDENTITIES[-1]:.0%} or more",
)


def place(nearest: np.ndarray, identity: np.ndarray) -> np.ndarray:
    """Number of the class of identity in :data:`PLACES`, ``(P,)``."""
    places: np.ndarray = np.where(nearest == "", 0, 1 + np.searchsorted(IDENTITIES, identity, side="right"))
    return places


def wilson(right: int, n: int, z: float = 1.959964) -> tuple[float, float]:
    """95 % interval of a share (Wilson 1927).

    >>> [round(x, 3) for x in wilson(9, 10)]
    [0.596, 0.982]
    """
    centre = (right + z * z / 2) / (n + z * z)
    half = z / (n + z * z) * math.sqrt(right * (n - right) / n + z * z / 4)
    return centre - half, centre + half
