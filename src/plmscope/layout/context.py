"""Does a decision rest on annotated sites? Mask them, and as many residues of the same letters elsewhere.

::

    change(site) = KN(x with the site masked, true) - KN(x, true)         and the same of the log-odds of the true class
    difference   = change(site) - mean change of 4 controls: for every residue of the site another one of its letter

Of the test proteins that are decided right and have the site, one a cluster; p is one-sided (Wilcoxon) for a greater
fall than that of the controls. A protein is left out, and counted, where it has too few residues of the same letters,
or where the site is over a tenth of it: that is a domain, not a site. Masking alone lowers what a model knows; without
the controls any residue would look like a site. Sites are masked alone, not exchanged for other residues too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from zlib import crc32

import numpy as np
import pandas as pd
import torch
from scipy.stats import wilcoxon

from plmscope.data.proteins import Protein
from plmscope.errors import ModelError
from plmscope.evaluation.interventions import class_log_odds
from plmscope.layout.measure import resampled
from plmscope.models.classifier import Classifier
from plmscope.models.hooked import network_of
from plmscope.stats.chance import benjamini_hochberg, percentile_interval

#: Controls a protein, the largest share of a protein that is a site, and the fewest proteins of a test.
CONTROLS, LARGEST, FEWEST = 4, 0.1, 6
COLUMNS = (
    "feature_type", "measure", "n_proteins", "n_residues", "n_left_out", "change", "against", "difference", "ci_low",
    "ci_high", "p_value", "q_value",
)  # fmt: skip


@torch.inference_mode()
def masked_run(
    classifier: Classifier,
    proteins: Sequence[Protein],
    masks: Sequence[np.ndarray],
    positions: np.ndarray,
    token_budget: int = 2048,
) -> tuple[np.ndarray, np.ndarray]:
    """Log-odds ``(P, C)`` and mean activations ``(P, n)`` of some neurons, with some residues masked.

    Args:
        classifier: The model.
        proteins: ``P`` of them; the same one may be there several times.
        masks: ``(R,)`` true at the residues of each that are masked.
        positions: ``(n,)`` neurons.
        token_budget: Padded tokens a batch.

    Raises:
        ModelError: the tokenizer has no mask token.
    """
    mask_id = classifier.tokenizer.mask_token_id
    if mask_id is None:
        raise ModelError(f"{classifier.name}: its tokenizer has no mask token, so no site can be masked")
    network, index = network_of(classifier), classifier.index
    odds, found = np.zeros((len(proteins), len(classifier.labels))), np.zeros((len(proteins), len(positions)))
    where = {site: np.flatnonzero(index.site_of[positions] == number) for number, site in enumerate(index.sites)}
    for batch in classifier.batches(proteins, token_budget):
        ids = batch.input_ids.clone()
        for place, row in enumerate(batch.rows):
            ids[place, 1 + torch.from_numpy(np.flatnonzero(masks[row])).to(ids.device)] = mask_id
        masked = replace(batch, input_ids=ids)
        hidden, context = network.embed(masked)
        real = (torch.arange(ids.shape[1], device=hidden.device) < batch.lengths.unsqueeze(1)).float()
        for number in range(len(network.layers)):
            state = network.state(number, hidden, context)
            for site, columns in where.items():
                if site.layer == number and len(columns):
                    a = state.activations[site.module].float()
                    a = torch.einsum("btn,bt->bn", a, real) / real.sum(1, keepdim=True) if a.shape[1] > 1 else a[:, 0]
                    own = positions[columns] - index.slice(site).start
                    found[np.ix_(np.array(batch.rows), columns)] = a.double().cpu().numpy()[:, own]
            hidden = network.after(state)
        logits = network.above(len(network.layers), hidden, context)
        odds[batch.rows] = class_log_odds(logits.double().cpu().numpy(), classifier.task)
    return odds, found


def controls(protein: Protein, site: np.ndarray, seed: int) -> list[np.ndarray] | None:
    """Masks ``(R,)`` of as many residues of the same letters outside of a site; ``None`` where there are too few.

    >>> protein = Protein("x", "WAWAA", "1")
    >>> [m.tolist() for m in controls(protein, np.array([True, False, False, False, False]), 0)][:1]
    [[False, False, True, False, False]]
    >>> controls(protein, np.array([True, False, True, False, False]), 0) is None
    True
    """
    letters = np.array(list(protein.sequence))
    rng = np.random.default_rng([seed, 33, crc32(protein.id.encode())])
    found = []
    for _ in range(CONTROLS):
        mask = np.zeros(len(letters), dtype=bool)
        for letter in np.unique(letters[site]):
            free = np.flatnonzero((letters == letter) & ~site)
            wanted = int((letters[site] == letter).sum())
            if len(free) < wanted:
                return None
            mask[rng.permutation(free)[:wanted]] = True
        found.append(mask)
    return found


def context_table(
    run: Callable[[Sequence[Protein], Sequence[np.ndarray]], tuple[np.ndarray, np.ndarray]],
    sites: Mapping[str, Sequence[tuple[Protein, str, np.ndarray]]],
    labels: Sequence[str],
    seed: int = 0,
) -> pd.DataFrame:
    """``recall_context.parquet``: one row a kind of site and measure (``kn``, ``log_odds``).

    Args:
        run: Log-odds and KN scores ``(P, C)`` of proteins with some residues masked.
        sites: Feature type to proteins, each with its cluster and its site ``(R,)``; of those decided wrong
            none counts.
        labels: Class names, in the order of their numbers.
        seed: Of controls and resamples.
    """
    rows = []
    for kind, found in sites.items():
        judged, masks, left_out = [], [], 0
        for protein, cluster, site in found:
            against = controls(protein, site, seed) if site.mean() <= LARGEST else None
            if against is None:
                left_out += 1
            else:
                judged.append((protein, cluster, int(site.sum())))
                masks.append([np.zeros(len(protein), dtype=bool), site, *against])
        if not judged:
            continue
        each = 2 + CONTROLS
        odds, kn = run([p for p, _, _ in judged for _ in range(each)], [mask for own in masks for mask in own])
        true = np.array([labels.index(str(p.label)) for p, _, _ in judged])
        right = odds[::each].argmax(1) == true
        if not right.any():
            continue
        judged, true = [one for one, ok in zip(judged, right, strict=True) if ok], true[right]
        weights = resampled([cluster for _, cluster, _ in judged], np.zeros(len(judged), dtype=np.int64), seed)
        for measure, values in (("kn", kn), ("log_odds", odds)):
            own = values.reshape(len(right), each, -1)[right][np.arange(len(true)), :, true]
            change = own[:, 1:] - own[:, :1]
            difference = change[:, 0] - change[:, 1:].mean(1)
            ends = percentile_interval(weights @ difference / weights.sum(1))
            enough = len(judged) >= FEWEST and bool(np.any(difference))
            rows.append(
                {
                    "feature_type": kind, "measure": measure, "n_proteins": len(judged),
                    "n_residues": sum(n for _, _, n in judged), "n_left_out": left_out,
                    "change": float(change[:, 0].mean()), "against": float(change[:, 1:].mean()),
                    "difference": float(difference.mean()), "ci_low": ends.low, "ci_high": ends.high,
                    "p_value": float(wilcoxon(difference, alternative="less").pvalue) if enough else np.nan,
                }
            )  # fmt: skip
    frame = pd.DataFrame(rows, columns=[c for c in COLUMNS if c != "q_value"])
    q = benjamini_hochberg(frame["p_value"].to_numpy(dtype=np.float64))
    return frame.assign(q_value=q)[list(COLUMNS)]
