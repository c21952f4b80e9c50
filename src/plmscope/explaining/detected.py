"""What the chosen neurons detect in one protein, residue by residue: their concepts, and their motifs.

A neuron of a card *fires* at a residue where its activation is at or beyond the threshold at which its concept was
confirmed (at the highest 1 % of training residues, or the lowest for sign -1, where it has none). A motif is *carried*
where its matrix scores among the best 1 % of training residues; both as :mod:`plmscope.knowledge.characterize` and
:mod:`plmscope.knowledge.motifs` define them. That a neuron fires says what it sees, not that the concept is there.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd

from plmscope.data.proteins import Protein
from plmscope.explaining.training import Sample
from plmscope.knowledge.motifs import FLANK, MOTIF_FRACTION, background, letter_codes
from plmscope.models.sites import Neuron, NeuronIndex, Site
from plmscope.study.opened import OpenRun

#: Training proteins that tell which scores of a matrix are among the best.
JUDGES = 100
_KEYS = ["layer", "module", "neuron"]


class DetectedCards:
    """The cards of a run: what each chosen neuron detects, and from where on it fires.

    Attributes:
        positions: ``(K,)`` of the neurons that have one, in the order of their best rank.
        table: One row each: ``sign, sentence, explained, concept`` (empty where none holds at residues), ``motif``,
            ``threshold``.
    """

    def __init__(self, opened: OpenRun, sample: Sample) -> None:
        run, index = opened.run, opened.model.index
        self.positions, self.table = np.zeros(0, np.int64), pd.DataFrame()
        self._motifs = _Motifs.none()
        if not (run.has("neuron_cards") and run.has("associations") and run.has("motifs")):
            return
        cards = run.table("neuron_cards").sort_values("rank", kind="stable").drop_duplicates(_KEYS)
        self.positions = positions_of(cards, index)
        of_residues = run.table("concepts") if run.has("concepts") else pd.DataFrame(columns=["concept", "level"])
        told = set(of_residues.loc[of_residues["level"] == "residue", "concept"])
        associations = run.table("associations")[[*_KEYS, "sign", "concept", "threshold"]]
        cards = cards.merge(associations, on=[*_KEYS, "sign", "concept"], how="left")
        at_residues = cards["concept"].isin(told).to_numpy(dtype=bool)
        threshold = cards["threshold"].to_numpy(dtype=np.float64, copy=True)
        sign = cards["sign"].to_numpy(dtype=np.int64)
        for row in np.flatnonzero(~at_residues | np.isnan(threshold)):
            threshold[row] = sample.quantile(
                int(self.positions[row]), 1 - MOTIF_FRACTION if sign[row] > 0 else MOTIF_FRACTION
            )
        self.table = pd.DataFrame(
            {
                "sign": sign, "sentence": cards["sentence"].astype(str), "explained": cards["explained"].astype(bool),
                "concept": np.where(at_residues & cards["explained"].to_numpy(dtype=bool), cards["concept"], ""),
                "motif": cards["motif"].astype(str), "threshold": threshold,
            }
        )  # fmt: skip
        matrices = cards[[*_KEYS, "sign"]].merge(run.table("motifs"), on=[*_KEYS, "sign"], how="left")
        self._motifs = _Motifs(matrices, self.table["motif"].tolist(), opened.proteins("train"))

    def row(self, position: int) -> pd.Series | None:
        """The card of a neuron, if it has one."""
        where = np.flatnonzero(self.positions == position)
        return self.table.iloc[int(where[0])] if len(where) else None

    def fires(self, values: np.ndarray) -> np.ndarray:
        """Where the neurons fire, ``(R, K)``, given their activations."""
        if not len(self.positions):
            return np.zeros((len(values), 0), bool)
        sign, threshold = self.table["sign"].to_numpy(), self.table["threshold"].to_numpy()
        fires: np.ndarray = np.where(sign > 0, values >= threshold, values <= threshold)
        return fires

    def detected(self, protein: Protein, values: np.ndarray) -> pd.DataFrame:
        """One row a residue: ``n_firing``, ``concepts`` and ``motifs``, joined by ``;``, the most frequent first.

        Args:
            protein: ``R`` residues.
            values: ``(R, K)`` activations of the neurons of the cards.
        """
        fires, carried = self.fires(values), self._motifs.carried(protein)
        names = self.table["concept"].tolist() if len(self.table) else []
        motifs = self._motifs.names
        return pd.DataFrame(
            {
                "n_firing": fires.sum(1).astype(np.int32),
                "concepts": [_joined(names[k] for k in np.flatnonzero(row)) for row in fires],
                "motifs": [_joined(motifs[m] for m in np.flatnonzero(row)) for row in carried],
            }
        )


class _Motifs:
    """The matrices of cards, and which scores are high."""

    def __init__(self, matrices: pd.DataFrame, names: Sequence[str], train: Sequence[Protein]) -> None:
        rows = [
            row
            for row, name in enumerate(names)
            if name and isinstance(matrices["matrix"].iloc[row], np.ndarray | list)
        ]
        self.names = [names[row] for row in rows]
        self._spans = np.zeros((len(rows), 2), np.int64)
        odds = np.zeros((len(rows), 2 * FLANK + 1, 20))
        q = background(train) if rows else np.full(20, 0.05)
        for m, row in enumerate(rows):
            matrix = np.array(matrices["matrix"].iloc[row], dtype=np.float64).reshape(-1, 20)
            first = FLANK - int(matrices["anchor"].iloc[row])
            odds[m, first : first + len(matrix)] = np.log2(np.maximum(matrix, 1e-12) / q)
            self._spans[m] = first - FLANK, first + len(matrix) - FLANK
        self._odds = odds.reshape(len(rows), 20 * (2 * FLANK + 1)).T.astype(np.float32)
        some = train[:: max(1, len(train) // JUDGES)] if rows else ()
        scores = np.concatenate([self._scores(p) for p in some]) if some else np.zeros((1, 0), np.float32)
        cut = np.quantile(scores, 1 - MOTIF_FRACTION, axis=0, method="higher") if rows else np.zeros(0)
        crowded = (scores >= cut).mean(0) > 10 * MOTIF_FRACTION
        self._cut = np.where(crowded, np.nextafter(cut, np.inf), cut)

    @classmethod
    def none(cls) -> _Motifs:
        """What a model without motifs has: none of its neurons carries one."""
        return cls(pd.DataFrame({"matrix": [], "anchor": []}), [], [])

    def carried(self, protein: Protein) -> np.ndarray:
        """Residues that lie in a match of each motif, ``(R, M)``."""
        out = np.zeros((len(protein), len(self.names)), bool)
        peaks, which = np.nonzero(self._scores(protein) >= self._cut)
        for peak, m in zip(peaks, which, strict=True):
            low, high = self._spans[m] + peak
            out[max(0, low) : max(0, high), m] = True
        return out

    def _scores(self, protein: Protein) -> np.ndarray:
        """Score of every matrix with its peak on every residue, ``(R, M)``."""
        codes = letter_codes(protein.sequence)
        padded = np.concatenate([np.full(FLANK, 20), codes, np.full(FLANK, 20)])
        around = np.lib.stride_tricks.sliding_window_view(padded, 2 * FLANK + 1)  # (R, 15)
        one_hot = (around[:, :, None] == np.arange(20)).reshape(len(codes), -1).astype(np.float32)
        scores: np.ndarray = one_hot @ self._odds
        return scores


def positions_of(frame: pd.DataFrame, index: NeuronIndex) -> np.ndarray:
    """Positions in a flat array of the neurons of a table with the columns ``layer, module, neuron``."""
    rows = frame[_KEYS].itertuples(index=False, name=None)
    return np.array([index.position(Neuron(Site(int(la), str(m)), int(n))) for la, m, n in rows], dtype=np.int64)


def _joined(names: Iterable[str]) -> str:
    """Distinct names, the most frequent first, with their number where it is more than one."""
    counts = Counter(name for name in names if name)
    return "; ".join(name if n == 1 else f"{name} ({n})" for name, n in counts.most_common())
