"""What a sample of runs says of a number: its mean, its spread, and an interval for the mean.

The runs are the sample. With values x_1 ... x_n of n runs::

    mean +- t(0.975, n - 1) * sd / sqrt(n)

the textbook interval of Student's t: one run has none. It holds for other seeds of the same study (split and training
drawn anew from the same proteins and the same language model), not for other proteins. Ratios are averaged as
logarithms. Nothing is corrected for looking at many of them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
import pandas as pd
from scipy.stats import t as student

LEVEL = 0.95
COLUMNS = ("n", "mean", "sd", "low", "high", "smallest", "largest")


@dataclass(frozen=True)
class Estimate:
    """A number over runs.

    Attributes:
        n: Runs that have it.
        mean: Their mean; of ratios the geometric one. NaN without a run.
        sd: Their standard deviation; of ratios that of their natural logarithms. NaN below two runs.
        low: Lower end of the 95 % t interval of the mean; NaN below two runs, and where all values are equal.
        high: Its upper end.
        smallest: Of the runs.
        largest: Of the runs.
    """

    n: int
    mean: float
    sd: float
    low: float
    high: float
    smallest: float
    largest: float


def estimate(values: Sequence[float] | np.ndarray, ratio: bool = False) -> Estimate:
    """The mean over runs with its interval; what is not a finite number (of ratios: above 0) is left out.

    Args:
        values: One a run.
        ratio: Whether to average logarithms.

    >>> [round(x, 3) for x in asdict(estimate([0.1, 0.2, 0.3])).values()]
    [3, 0.2, 0.1, -0.048, 0.448, 0.1, 0.3]
    """
    given = np.asarray(values, dtype=np.float64)
    x = given[np.isfinite(given) & ((given > 0) | (not ratio))]
    n = len(x)
    if not n:
        return Estimate(0, *[math.nan] * 6)
    y = np.log(x) if ratio else x
    back = math.exp if ratio else float
    mean, sd = float(y.mean()), float(y.std(ddof=1)) if n > 1 else math.nan
    low = high = math.nan
    if n > 1 and float(np.ptp(y)) > 0:
        half = float(student.ppf((1 + LEVEL) / 2, n - 1)) * sd / math.sqrt(n)
        low, high = back(mean - half), back(mean + half)
    return Estimate(n, back(mean), sd, low, high, float(x.min()), float(x.max()))


def combine(frame: pd.DataFrame, keys: Sequence[str], value: str, quantity: str, ratio: bool = False) -> pd.DataFrame:
    """One row a cell: the estimate of ``value`` over the runs that have it.

    Args:
        frame: One row a run and cell, confirmation runs alone.
        keys: The columns that name a cell.
        value: The column that is averaged.
        quantity: What to call it.
        ratio: Whether to average logarithms.
    """
    rows = []
    for key, part in frame.groupby(list(keys), sort=False, dropna=False):
        names = dict(zip(keys, key, strict=True))
        rows.append({"quantity": quantity} | names | asdict(estimate(part[value].to_numpy(dtype=np.float64), ratio)))
    return pd.DataFrame(rows, columns=["quantity", *keys, *COLUMNS])
