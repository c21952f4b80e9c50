"""An activation as a rank of 256 levels of its neuron's own distribution, and the codes at which a neuron fires.

A sample of residues gives every neuron's distribution, in :data:`BUCKETS` buckets of a half-precision number. Levels
are finer where few residues are, at both ends, so that the shares of :data:`FRACTIONS` can be told apart.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

#: Shares of residues, and of proteins, at which a neuron counts as firing.
FRACTIONS = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.4)


BLOCK = 512


#: Buckets of an activation: sign, exponent and six bits of a half-precision number after standardising.
BUCKETS = 4096


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
            own = np.ascontiguousarray(part.T)  # (n, S): each neuron's numbers beside each other
            low, middle, high = np.quantile(own, (0.25, 0.5, 0.75), axis=1)
            spread = (high - low) / 1.35
            if not (high > low).all():
                spread = np.where(high > low, spread, part.std(0))
            # Rounding noise of a large constant is no signal: divided by this much, it is zero.
            spread = np.where(spread > 1e-5 * np.abs(middle) + 1e-12, spread, 1e30)
            center[start : start + BLOCK], scale[start : start + BLOCK] = middle, spread
            standardised = (own - middle.astype(np.float32)[:, None]) / spread.astype(np.float32)[:, None]
            buckets = _buckets(torch.from_numpy(standardised)).numpy()
            for column, row in enumerate(buckets):
                counts = np.bincount(row, minlength=BUCKETS)
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
        ranks = np.empty(tuple(values.shape), dtype=np.uint8)
        for start in range(0, values.shape[1], BLOCK):
            part = slice(start, min(start + BLOCK, values.shape[1]))
            z = values[:, part].sub(self.center[part]).div_(self.scale[part])
            index = _buckets(z).to(torch.int32)
            index += torch.arange(index.shape[1], dtype=torch.int32, device=index.device) * BUCKETS
            codes = self.table[part].reshape(-1).index_select(0, index.reshape(-1))
            ranks[:, part] = codes.reshape(index.shape).cpu().numpy()
        return ranks

    def arrays(self, prefix: str) -> dict[str, np.ndarray]:
        """All that :meth:`of` needs, as arrays."""
        tensors = {name: getattr(self, name).cpu().numpy() for name in ("center", "scale", "table")}
        arrays: dict[str, np.ndarray] = tensors | {"lowest": self.lowest, "highest": self.highest}
        return {prefix + name: value for name, value in arrays.items()}

    @classmethod
    def of(cls, arrays: Mapping[str, np.ndarray], prefix: str, device: torch.device) -> Codes:
        """The codes whose arrays :meth:`arrays` gave."""
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
