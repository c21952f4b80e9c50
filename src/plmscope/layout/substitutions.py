"""Does redundancy protect? A class's probability when residues are exchanged, with and without one half of a pair.

::

    kept(S, share) = mean of P_S(protein with a share of its residues exchanged) / mean of P_S(protein)

S is held at its mean: nothing, one set of a degenerate pair, or a matched draw. Residues are exchanged for those that
BLOSUM62 calls similar, at places that the seed chooses. If the pair protects, a class keeps less of its probability
when one half of it is held than when a matched draw is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from zlib import crc32

import numpy as np
import pandas as pd
from scipy.special import expit

from plmscope.data.proteins import Protein
from plmscope.evaluation.interventions import Change, nothing
from plmscope.layout.measure import Measure, chosen_of, held, matched
from plmscope.models.sites import NeuronIndex
from plmscope.scoring.linear import corrupted
from plmscope.stats.chance import compare_with_draws

#: Shares of the residues that are exchanged.
SHARES = (0.01, 0.05, 0.1)
COLUMNS = (
    "label", "share", "held", "n_neurons", "n_proteins", "probability", "probability_exchanged", "kept", "kept_intact",
    "against", "n_draws", "p_value", "p_kind",
)  # fmt: skip


def exchanged(protein: Protein, share: float, seed: int) -> Protein:
    """A protein with a share of its residues, one at least, replaced by similar ones.

    A residue that BLOSUM62 calls similar to no other (such as C) stays, and another one is replaced in its place; where
    too few have a similar one, as many as have.
    """
    rng = np.random.default_rng([seed, 25, crc32(protein.id.encode()), round(1e6 * share)])
    letters = list(protein.sequence)
    left = max(1, round(share * len(letters)))
    for place in rng.permutation(len(letters)):
        other = corrupted(letters[place], "conservative", rng.integers(2**31, size=2).tolist())
        if other != letters[place]:
            letters[place] = other
            left -= 1
        if not left:
            break
    return replace(protein, sequence="".join(letters))


def robustness(
    measure: Measure,
    name: str,
    index: NeuronIndex,
    proteins: Sequence[Protein],
    label: int,
    sets: Sequence[Sequence[int]],
    draws: int = 20,
    seed: int = 0,
) -> pd.DataFrame:
    """What a class keeps under exchanged residues with each of some sets held, beside matched draws; without ``label``.

    Args:
        measure: Runs the model.
        name: Of the series.
        index: The model's neurons.
        proteins: Test proteins of the class.
        label: Number of the class.
        sets: Positions that are held together, named ``a``, ``b`` and so on.
        draws: Matched draws a set.
        seed: Of places, letters and draws.
    """
    drawn = [matched(chosen_of(index, group), draws, (seed, 26, place)) for place, group in enumerate(sets)]
    changes = [nothing(index), *(held(index, group) for group in sets)]
    changes += [Change(one, None) for group in drawn for one in group]
    plain = expit(measure(f"{name}-0", proteins, changes)[:, :, label]).mean(1)
    rows = []
    for share in SHARES:
        others = [exchanged(protein, share, seed) for protein in proteins]
        after = expit(measure(f"{name}-{share:g}", others, changes)[:, :, label]).mean(1)
        kept = after / plain
        for place, group in enumerate(sets):
            start = 1 + len(sets) + place * draws
            random = kept[start : start + draws]
            test = compare_with_draws(float(kept[1 + place]), random, -1)
            rows.append(
                {
                    "share": share, "held": "abcdefgh"[place], "n_neurons": len(group), "n_proteins": len(proteins),
                    "probability": float(plain[1 + place]), "probability_exchanged": float(after[1 + place]),
                    "kept": float(kept[1 + place]), "kept_intact": float(kept[0]),
                    "against": float(random.mean()) if draws else np.nan, "n_draws": draws, "p_value": test.p_value,
                    "p_kind": test.p_kind,
                }
            )  # fmt: skip
    return pd.DataFrame(rows)
