"""What every neuron adds to one protein's decision, and how active it is in it: one row a protein.

::

    attribution = sum over tokens of  dF/da * (a - its mean)       F: log-odds of the protein's class

the first-order effect of holding the neuron at its mean, one forward and one backward pass a protein. The mean is that
of training proteins, or the *masked* baseline: the mean activation where a residue is masked (AMIG), which asks what
the residue itself adds.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import torch

from plmscope.data.proteins import Protein
from plmscope.errors import ModelError
from plmscope.models.classifier import Classifier
from plmscope.models.hooked import network_of
from plmscope.models.network import Network
from plmscope.scoring.linear import METHODS, gradient_activation

#: Residues of a protein that are masked for the masked baseline.
MASKED = 16
#: Functions of an activation whose means are known.
MOMENTS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "mean": lambda a: a,
    "mean_absolute": torch.abs,
    "mean_square": torch.square,
    "share_positive": lambda a: (a > 0).float(),
}


def per_protein(
    classifier: Classifier, proteins: Sequence[Protein], constants: np.ndarray, token_budget: int = 4096
) -> np.ndarray:
    """Attributions ``(P, N)`` of every neuron to the log-odds of each protein's own label."""
    named = [replace(p, id=f"{place:09d}") for place, p in enumerate(proteins)]
    scores = gradient_activation(
        classifier, named, baseline=constants, token_budget=token_budget, groups=[p.id for p in named]
    )[0]
    sums = scores.sums
    if sums is None:
        raise ModelError(f"{classifier.name}: no attributions by protein")
    attributed = np.zeros((len(proteins), len(classifier.index)))
    for row, (_, name) in enumerate(sums.keys):
        attributed[int(name)] = sums.sums[METHODS[0]][row]
    return attributed


def mean_activations(classifier: Classifier, proteins: Sequence[Protein], token_budget: int = 2048) -> np.ndarray:
    """Mean activation ``(P, N)`` of every neuron over the tokens of each protein that the head can see it at."""
    found: np.ndarray = moments(classifier, proteins, ("mean",), token_budget)[0]
    return found


@torch.inference_mode()
def moments(
    classifier: Classifier,
    proteins: Sequence[Protein],
    names: Sequence[str],
    token_budget: int = 2048,
    gone: np.ndarray | None = None,
) -> np.ndarray:
    """Means ``(K, P, N)`` of functions of every neuron over the tokens of each protein that the head can see it at.

    Args:
        classifier: The model; it is not changed.
        proteins: ``P`` of them.
        names: ``K`` functions of :data:`MOMENTS`.
        token_budget: Padded tokens a batch.
        gone: ``(N,)`` neurons whose activations are set to zero meanwhile.
    """
    index, zeros = classifier.index, {}
    if gone is not None and gone.any():
        parts = {site: gone[index.slice(site)] for site in index.sites}
        zeros = {site: np.where(part, 0.0, 1.0) for site, part in parts.items() if part.any()}
    with network_of(classifier).scaled(zeros) as network:
        return _moments(network, classifier, proteins, names, token_budget)


def _moments(
    network: Network, classifier: Classifier, proteins: Sequence[Protein], names: Sequence[str], token_budget: int
) -> np.ndarray:
    """:func:`moments` in a network of the classifier's."""
    index = classifier.index
    found = np.zeros((len(names), len(proteins), len(index)), dtype=np.float32)
    for batch in classifier.batches(proteins, token_budget):
        hidden, context = network.embed(batch)
        real = (torch.arange(batch.input_ids.shape[1], device=hidden.device) < batch.lengths.unsqueeze(1)).float()
        for number in range(len(network.layers)):
            state = network.state(number, hidden, context)
            for site in (one for one in index.sites if one.layer == number):
                seen = state.activations[site.module].float()
                for row, name in enumerate(names):
                    a = MOMENTS[name](seen)
                    wide = a.shape[1] > 1
                    a = torch.einsum("btn,bt->bn", a, real) / real.sum(1, keepdim=True) if wide else a[:, 0]
                    found[row, batch.rows, index.slice(site)] = a.cpu().numpy()
            hidden = network.after(state)
    return found


@torch.inference_mode()
def masked_means(
    classifier: Classifier, proteins: Sequence[Protein], seed: int = 0, token_budget: int = 2048
) -> np.ndarray:
    """``(3, N)`` mean activations at the first token, the last token, and at up to :data:`MASKED` masked residues.

    Where the head reads the first token alone, a module of the last layer that only it sees has its value there.

    Raises:
        ModelError: the tokenizer has no mask token.
    """
    mask_id = classifier.tokenizer.mask_token_id
    if mask_id is None:
        raise ModelError(f'{classifier.name}: its tokenizer has no mask token; set layout.baseline = "mean"')
    network, index = network_of(classifier), classifier.index
    sums = np.zeros((3, len(index)))
    rng = np.random.default_rng([seed, 22])
    for batch in classifier.batches(proteins, token_budget):
        ids, chosen = batch.input_ids.clone(), torch.zeros_like(batch.input_ids, dtype=torch.bool)
        for row, length in enumerate(batch.lengths.tolist()):
            places = rng.permutation(np.arange(1, length - 1))[:MASKED]
            chosen[row, torch.from_numpy(places)] = True
        ids[chosen] = mask_id
        masked = replace(batch, input_ids=ids)
        hidden, context = network.embed(masked)
        for number in range(len(network.layers)):
            state = network.state(number, hidden, context)
            for site in (one for one in index.sites if one.layer == number):
                a = state.activations[site.module].double()
                first = a[:, 0]
                last = a[torch.arange(len(a)), batch.lengths - 1] if a.shape[1] > 1 else first
                inside = first
                if a.shape[1] > 1:
                    inside = torch.einsum("btn,bt->bn", a, chosen.double()) / chosen.sum(1, keepdim=True)
                for place, value in enumerate((first, last, inside)):
                    sums[place, index.slice(site)] += value.sum(0).cpu().numpy()
            hidden = network.after(state)
    return sums / len(proteins)
