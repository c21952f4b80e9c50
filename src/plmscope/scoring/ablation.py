"""Score neurons by ablating them one at a time: the causal yardstick of the cheap methods.

::

    single_ablation = F(x) - F(x with this one neuron at zero, or at its ablation mean)

averaged over the proteins of a class, then over classes; ``F`` is the log-odds of the true class. Positive: the neuron
supports the true class. Exact and dear: one forward pass from the neuron's site upward for every neuron and protein, so
that it is exhaustive on small models and meant for a sample of neurons on large ones.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from plmscope.data.proteins import Protein
from plmscope.errors import SelectionError
from plmscope.models.architectures import MODULES
from plmscope.models.classifier import Batch, Classifier
from plmscope.models.hooked import network_of
from plmscope.models.network import LayerState, at_tokens
from plmscope.models.sites import Site
from plmscope.models.workers import fitting_budget
from plmscope.progress import Track, silent
from plmscope.scoring.driver import Drive, Given
from plmscope.scoring.paths import bytes_per_token
from plmscope.scoring.scores import NeuronScores
from plmscope.scoring.table import forms_of
from plmscope.scoring.targets import request

METHODS = forms_of("single_ablation")


def single_ablation(
    classifier: Classifier,
    proteins: Sequence[Protein],
    *,
    baseline: np.ndarray | None = None,
    sample: int = 0,
    seed: int = 0,
    target: str = "log_odds",
    token_budget: int = 4096,
    groups: Sequence[str] | None = None,
    rms: bool = False,
    track: Track = silent,
) -> tuple[NeuronScores, ...]:
    """Change of the target when one neuron is held.

    Args:
        classifier: The model.
        proteins: With labels; each weighs 1 within its class, each class 1 in the total.
        baseline: ``None`` for zero, or ``(3, N)`` values at the first token, the last token and residues.
        sample: Number of neurons, the same from every site as far as it goes; 0: all of them. The others are NaN.
        seed: Seeds the sample.
        target: ``log_odds``, ``logit`` or ``log_probability`` of the true class.
        token_budget: Tokens times neurons at once; 0: by free memory.
        groups: Group of each protein for bootstraps, from :func:`~plmscope.scoring.scores.resampling_groups`.
        rms: Also the root mean square over proteins.
        track: Progress.

    Returns:
        ``single_ablation``, ``single_ablation_abs`` (absolute changes per protein) and, if asked for,
        ``single_ablation_rms``.

    Raises:
        InputError: no proteins, or a label the model does not know.
        SelectionError: a setting is impossible.
    """
    asked = request(classifier, proteins, target, groups)
    if sample < 0:
        raise SelectionError(f"sample = {sample!r}: need 0 (all) or more neurons")
    index, network = classifier.index, network_of(classifier)
    rng = np.random.default_rng(seed)
    share = -(-sample // len(index.sites))
    chosen = {
        site: np.sort(rng.permutation(width)[:share]) if sample else np.arange(width)
        for site, width in zip(index.sites, index.widths, strict=True)
    }
    base = None if baseline is None else torch.tensor(baseline, dtype=torch.float32, device=classifier.device)

    @torch.no_grad()
    def work(batch: Batch, wanted: torch.Tensor, budget: int) -> Given:
        out = np.full(len(index), np.nan, dtype=np.float32)
        hidden, context = network.embed(batch)
        full = asked.target(network.above(0, hidden, context), wanted)
        size = max(1, budget // hidden.shape[1])
        for layer in range(len(network.layers)):
            state = network.state(layer, hidden, context)
            for module in MODULES:
                site = Site(layer, module)
                value = state.activations[module]
                held = (
                    torch.zeros_like(value)
                    if base is None
                    else at_tokens(base[:, index.slice(site)].to(value.dtype), value, context)
                )
                for start in range(0, len(chosen[site]), size):
                    neurons = torch.from_numpy(chosen[site][start : start + size]).to(value.device)
                    n = len(neurons)
                    many = value.repeat(n, 1, 1)  # (n, T, N)
                    many[torch.arange(n, device=value.device), :, neurons] = held[0, :, neurons].T
                    logits = network.resume(layer, _copies(state, n), module, many, context.repeat(n))
                    change = full - asked.target(logits, wanted.repeat(n))
                    out[index.offsets[site] + neurons.cpu().numpy()] = change.float().cpu().numpy()
            hidden = network.after(state)
        return Given(batch.rows, {METHODS[0]: out[None]})

    settings = {"target": target, "baseline": "zero" if baseline is None else "mean", "sample": sample, "seed": seed}
    budget = fitting_budget(token_budget, classifier.device, bytes_per_token(classifier))
    # One protein at a time; the batch is filled with neurons.
    drive = Drive(classifier, "single-neuron ablation", track, budget, batch_tokens=1)
    return drive.signed(METHODS[0], asked, work, settings, rms=rms)


def _copies(state: LayerState, n: int) -> LayerState:
    """The state of one protein as a batch of ``n``, without copying memory."""
    inputs = {name: a.expand(n, -1, -1) for name, a in state.activations.items() if name in ("query", "key", "value")}
    return LayerState(state.hidden.expand(n, -1, -1), state.middle.expand(n, -1, -1), inputs)
