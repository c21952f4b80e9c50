"""What a neuron would like best: windows and single vectors that are found by gradient, not among natural proteins.

A window of 15 residues inside 32 natural ones (those around the neuron's highest peak) is relaxed: at every place a
distribution over the 20 amino acids, whose mean embedding the network reads. With ``a`` the activation at the middle,
``s`` its standard deviation over natural residues and ``H`` the entropy of all places in nats::

    maximise  sign a / s + 0.1 H      P = softmax(logits / T),  T from 2 to 0.2 in 100 steps of Adam (0.1)

from three starts: random logits, the natural window, and the same backwards. Where a GELU is shut, a fifth of the
gradient passes nevertheless, or nothing would ever open it. Places that do not matter stay even, by
the entropy. *agreement* is the information of the mean of the three (bits, all places together): starts that end at
different letters share little of it. *discrete* is the window as a real sequence, the likeliest letter where it has 0.3
or more and the natural one (small) elsewhere: what it reaches, and the share of natural residues below it.

Free: instead of letters, a vector at the middle alone with the mean norm of the letters' embeddings; the letter nearest
to it and their cosine say whether the neuron asks for a letter at all.

A random direction of the same site goes through the same, since anything can be maximised, and so does the same neuron
of a model with the same architecture and random weights, that has learned nothing.

Source: feature textualization and activation maximisation (Erhan et al. 2009). The constants are ours.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch.overrides import TorchFunctionMode

from plmscope.data.proteins import AMINO_ACIDS, Protein
from plmscope.knowledge.stream import stream_of
from plmscope.models.classifier import Classifier
from plmscope.models.hooked import network_of
from plmscope.models.network import BatchContext, Network
from plmscope.models.sites import NeuronIndex, Site
from plmscope.progress import Track, silent

#: Functions whose gradient may be nothing where they are shut.
_SHUT: tuple[Callable[..., Any], ...] = (
    torch.nn.functional.gelu, torch.nn.functional.silu, torch.nn.functional.relu, torch.relu,
)  # fmt: skip
#: More than the steepest fall of a GELU, 0.13, which would push back what is nearly open.
LEAK = 0.2
LETTERS = tuple(sorted(AMINO_ACIDS))
CONTEXT, WINDOW, REACH = 32, 15, 7
STEPS, RATE, WARM, COLD, ENTROPY = 100, 0.1, 2.0, 0.2, 0.1
#: Share from which a letter is said.
SAID = 0.3
#: Logit of the natural letters at the start: half of the weight at the first temperature.
LIKELY = 6.0
STARTS = ("random", "natural", "reversed")


class Leaky(TorchFunctionMode):
    """Within the block, GELU and its like keep their values and let a fifth of the gradient pass where shut."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """One call of a function on tensors."""
        found = func(*args, **(kwargs or {}))
        return found + LEAK * (args[0] - args[0].detach()) if func in _SHUT else found


@dataclass(frozen=True)
class Maximised:
    """The ends of the three starts, in the order of :data:`STARTS`.

    Attributes:
        matrix: ``(3, 15, 20)`` distributions, letters in alphabetical order.
        discrete: Windows as real sequences; small letters are natural ones.
        relaxed, reached: ``(3,)`` activation of the relaxed and of the discrete window.
        nearest, cosine: The letter nearest to the free vector, and how near, of each start.
        agreement: Bits.
    """

    matrix: np.ndarray
    discrete: tuple[str, ...]
    relaxed: np.ndarray
    reached: np.ndarray
    nearest: tuple[str, ...]
    cosine: np.ndarray
    agreement: float


def around(protein: Protein, peak: int) -> tuple[str, str] | None:
    """The 32 natural residues, and the 15 around a peak (``-`` beyond an end); nothing of a shorter protein."""
    if len(protein) < CONTEXT:
        return None
    middle = min(max(peak, CONTEXT // 2), len(protein) - CONTEXT // 2)
    padded = "-" * REACH + protein.sequence + "-" * REACH
    return protein.sequence[middle - CONTEXT // 2 : middle + CONTEXT // 2], padded[peak : peak + WINDOW]


def bits_of(matrix: np.ndarray) -> float:
    """Information of distributions ``(W, 20)`` over even ones, all places together.

    >>> round(bits_of(np.full((15, 20), 1 / 20)), 6), round(bits_of(np.eye(20)[:2]), 2)
    (0.0, 8.64)
    """
    p = np.maximum(matrix, 1e-12)
    return float(np.sum(np.log2(matrix.shape[1]) + (p * np.log2(p)).sum(1)))


def maximise(
    classifier: Classifier,
    network: Network,
    site: Site,
    direction: np.ndarray,
    sign: int,
    natural: tuple[str, str],
    spread: float,
    *,
    steps: int = STEPS,
    seed: int = 0,
) -> Maximised:
    """Find what raises an activation (sign -1: lowers it).

    Args:
        classifier: The model.
        network: The same in parts.
        site: Where.
        direction: ``(N,)`` weights of the site's neurons: one of them, or all.
        sign: Which side.
        natural: From :func:`around`.
        spread: Standard deviation of the activation over natural residues.
        steps: Of Adam.
        seed: Of the random start.
    """
    residues, window = natural
    first = CONTEXT // 2 - REACH
    weights = torch.from_numpy(direction).to(next(classifier.model.parameters()))
    sequences = [residues[:first] + letter * WINDOW + residues[first + WINDOW :] for letter in LETTERS]
    with torch.no_grad():
        hidden, _, places = _embedded(classifier, network, [residues, *sequences])
    inside = places[first : first + WINDOW]  # tokens of the window
    letters = hidden[1:, inside].transpose(0, 1)  # (15, 20, d)
    base, one = hidden[:1], context_of(classifier, network, [residues] * len(STARTS))
    middle = int(places[CONTEXT // 2])

    def activation(read: torch.Tensor, given: BatchContext) -> torch.Tensor:
        found: torch.Tensor = (_climbed(network, read, given, site)[:, middle] * weights).sum(-1)  # (S,)
        return found

    rng = np.random.default_rng([seed, 47])
    start = torch.zeros(len(STARTS), WINDOW, len(LETTERS))
    start[0] = torch.from_numpy(0.1 * rng.normal(size=(WINDOW, len(LETTERS))))
    for number, text in ((1, window), (2, window[::-1])):
        for place, letter in enumerate(text):
            if letter in LETTERS:
                start[number, place, LETTERS.index(letter)] = LIKELY
    logits = start.to(hidden).requires_grad_()
    adam = torch.optim.Adam([logits], lr=RATE)

    def relaxed(temperature: float) -> tuple[torch.Tensor, torch.Tensor]:
        p = torch.softmax(logits / temperature, -1)
        read = base.repeat(len(STARTS), 1, 1).clone()
        read[:, inside] = torch.einsum("spa,pad->spd", p, letters)
        return p, activation(read, one)

    for step in range(steps):
        p, a = relaxed(WARM * (COLD / WARM) ** (step / max(steps - 1, 1)))
        entropy = -(p * p.clamp_min(1e-12).log()).sum((1, 2))
        adam.zero_grad()
        (logits.grad,) = torch.autograd.grad(-(sign * a / spread + ENTROPY * entropy).sum(), logits)
        adam.step()
    with torch.no_grad():
        p, a = relaxed(COLD)
        own = residues[first : first + WINDOW].lower()
        sure, best = p.max(-1)
        texts = [
            "".join(LETTERS[k] if x >= SAID else natural_one for k, x, natural_one in zip(ks, xs, own, strict=True))
            for ks, xs in zip(best.tolist(), sure.tolist(), strict=True)
        ]
        real = [residues[:first] + text.upper() + residues[first + WINDOW :] for text in texts]
        read, given, _ = _embedded(classifier, network, real)
        reached = activation(read, given)
    nearest, cosine = _free(base, letters[REACH], middle, lambda read: activation(read, one), sign / spread, steps, rng)
    matrix = p.detach().double().cpu().numpy()
    return Maximised(
        matrix, tuple(texts), a.double().cpu().numpy(), reached.double().cpu().numpy(), nearest, cosine,
        bits_of(matrix.mean(0)),
    )  # fmt: skip


def _free(
    base: torch.Tensor,
    letters: torch.Tensor,
    middle: int,
    activation: Callable[[torch.Tensor], torch.Tensor],
    weight: float,
    steps: int,
    rng: np.random.Generator,
) -> tuple[tuple[str, ...], np.ndarray]:
    """Nearest letter and cosine of each start of a free vector at the middle."""
    norm = letters.norm(dim=-1).mean()
    vector = torch.from_numpy(rng.normal(size=(len(STARTS), letters.shape[-1]))).to(letters)
    vector = (vector / vector.norm(dim=-1, keepdim=True)).requires_grad_()
    adam = torch.optim.Adam([vector], lr=RATE / letters.shape[-1] ** 0.5)
    for _ in range(steps):
        read = base.repeat(len(STARTS), 1, 1).clone()
        read[:, middle] = norm * vector / vector.norm(dim=-1, keepdim=True)
        adam.zero_grad()
        (vector.grad,) = torch.autograd.grad(-weight * activation(read).sum(), vector)
        adam.step()
    with torch.no_grad():
        similar = torch.nn.functional.cosine_similarity(vector[:, None], letters[None], dim=-1)  # (S, 20)
    best = similar.max(1)
    return tuple(LETTERS[k] for k in best.indices.tolist()), best.values.double().cpu().numpy()


def context_of(classifier: Classifier, network: Network, sequences: Sequence[str]) -> BatchContext:
    """What the layers share, for some sequences of one length."""
    with torch.no_grad():
        return _embedded(classifier, network, sequences)[1]


def _embedded(
    classifier: Classifier, network: Network, sequences: Sequence[str]
) -> tuple[torch.Tensor, BatchContext, torch.Tensor]:
    """Input of the first layer ``(B, T, d)`` of sequences of one length, and the tokens of their residues ``(R,)``."""
    proteins = [Protein(f"window {number}", text) for number, text in enumerate(sequences)]
    (batch,) = classifier.batches(proteins, len(sequences) * (len(sequences[0]) + 2))
    hidden, context = network.embed(batch)
    order = torch.tensor(np.argsort(batch.rows), device=hidden.device)
    return hidden[order], context, torch.nonzero(batch.residue_mask[0])[:, 0]


def _climbed(network: Network, hidden: torch.Tensor, context: BatchContext, site: Site) -> torch.Tensor:
    """``(B, T, N)`` activations of a site, from the input of the first layer."""
    with Leaky():
        for number in range(site.layer):
            hidden = network.after(network.state(number, hidden, context))
        found: torch.Tensor = network.state(site.layer, hidden, context).activations[site.module]
    return found


COLUMNS = (
    "position", "sign", "of", "start", "matrix", "window", "relaxed_activation", "discrete_activation", "percentile",
    "nearest_letter", "cosine", "agreement",
)  # fmt: skip
#: Proteins whose residues are the natural ones.
NATURAL = 200


def maximised_table(
    classifier: Classifier,
    wanted: Sequence[tuple[int, int, Sequence[tuple[int, int]]]],
    proteins: Sequence[Protein],
    *,
    untrained: Classifier | None = None,
    token_budget: int = 2048,
    seed: int = 0,
    track: Track = silent,
) -> pd.DataFrame:
    """Three rows, one a start, for each neuron and for what it is held against: the columns :data:`COLUMNS`.

    That is a random direction of its site and, with ``untrained``, the neuron of its place in that model, whose
    percentile is among natural residues there.

    A neuron has none whose proteins are all too short, or which the head sees at the first token alone (last layer).

    Args:
        classifier: The model.
        wanted: Position and sign of each neuron, and its peaks, highest first: protein (a row of ``proteins``, -1:
            none) and residue.
        proteins: Natural ones.
        untrained: The same architecture with random weights.
        token_budget: Padded tokens a batch.
        seed: Of starts, directions and the proteins that are natural.
        track: Progress.
    """
    network, index = network_of(classifier), classifier.index
    sites = {position: index.neuron(position).site for position, _, _ in wanted}
    rng = np.random.default_rng([seed, 48])
    some = [proteins[row] for row in np.sort(rng.permutation(len(proteins))[:NATURAL])]
    every = list(dict.fromkeys(sites.values()))
    natural = _natural(classifier, every, some, token_budget, track)
    models = {"neuron": (classifier, network, natural), "direction": (classifier, network, natural)}
    if untrained is not None:
        of_untrained = _natural(untrained, every, some, token_budget, track)
        models["random_weights"] = (untrained, network_of(untrained), of_untrained)
    rows = []
    for position, sign, peaks in track(list(wanted), "maximising", len(wanted)):
        site = sites[position]
        shown = next((found for row, place in peaks if row >= 0 and (found := around(proteins[row], place))), None)
        if shown is None or not _at_residues(classifier, network, site, shown[0]):
            continue
        one = np.eye(1, _width(index, site), position - index.slice(site).start)[0]
        spread = natural[site].std(0)
        random = rng.normal(size=len(one)) / np.where(spread > 0, spread, np.inf)
        for of, (model, parts, values) in models.items():
            direction = random if of == "direction" else one
            known = sign * (values[site] @ direction)
            if not known.std():
                continue
            made = maximise(model, parts, site, direction, sign, shown, float(known.std()), seed=seed)
            for k, start in enumerate(STARTS):
                below = float((known < sign * made.reached[k]).mean())
                rows.append(
                    (position, sign, of, start, made.matrix[k].ravel().tolist(), made.discrete[k],
                     float(made.relaxed[k]), float(made.reached[k]), below, made.nearest[k], float(made.cosine[k]),
                     made.agreement)
                )  # fmt: skip
    return pd.DataFrame(rows, columns=list(COLUMNS))


def _natural(
    classifier: Classifier, sites: Sequence[Site], proteins: Sequence[Protein], token_budget: int, track: Track
) -> dict[Site, np.ndarray]:
    """``(R, N)`` activations of each site at the residues of natural proteins."""
    chunks = stream_of(classifier, sites, token_budget, track)(proteins, "natural")
    values = np.concatenate([chunk.values.cpu().numpy() for chunk in chunks])
    ends = np.cumsum([0, *(_width(classifier.index, site) for site in sites)])
    return {site: values[:, a:b] for site, a, b in zip(sites, ends, ends[1:], strict=False)}


def _at_residues(classifier: Classifier, network: Network, site: Site, residues: str) -> bool:
    """Whether the head sees a site at residues: of the last layer it may read the first token alone."""
    with torch.no_grad():
        hidden = _embedded(classifier, network, [residues])[0]
        seen = _climbed(network, hidden, context_of(classifier, network, [residues]), site)
    return bool(seen.shape[1] > 1)


def _width(index: NeuronIndex, site: Site) -> int:
    """Neurons of a site."""
    own = index.slice(site)
    return int(own.stop - own.start)
