"""What becomes of one decision when neurons are held at their means, against matched draws.

::

    effect = F(x) - F(x with the neurons held)          positive: they support the class

for single neurons, and for a set together; as many neurons from the same sites, drawn at random, say what any such
change does to this protein. A set that was chosen by this same decision beats draws by its making: its p value
describes. One that was chosen by training proteins is put to a test.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from plmscope.evaluation.interventions import CONTROL, Change, class_log_odds, outcomes
from plmscope.evaluation.selection import Selection, draw, strata
from plmscope.explaining.contributions import copies
from plmscope.explaining.decision import Decision
from plmscope.models.network import at_tokens
from plmscope.models.sites import Site
from plmscope.models.workers import in_order
from plmscope.stats.chance import compare_with_draws


@dataclass(frozen=True)
class HeldEffect:
    """What became of one decision when a set of neurons was held at its means.

    Attributes:
        n: Neurons of the set.
        effect: Fall of the log-odds, in nats.
        draws: ``(D,)`` the same of as many neurons from the same sites.
        p_value: One-sided, that the set does no more than a draw; NaN with fewer than two draws.
        decided: Class that the model finds likeliest while the set is held.
    """

    n: int
    effect: float
    draws: np.ndarray
    p_value: float
    decided: str


def held_alone(
    decision: Decision, neurons: Sequence[int], constants: np.ndarray | None, token_budget: int = 1024
) -> np.ndarray:
    """Fall of the log-odds when each of some neurons is held, ``(K,)``; what lies below a neuron is not run again.

    Args:
        decision: Protein and class.
        neurons: ``K`` positions.
        constants: ``(3, N)`` ablation means; ``None``: zero.
        token_budget: Tokens times neurons at once.
    """
    network, classifier = decision.network, decision.classifier
    index, falls = classifier.index, np.zeros(len(neurons))
    by_site: dict[Site, list[int]] = {}
    for k, neuron in enumerate(neurons):
        by_site.setdefault(index.neuron(neuron).site, []).append(k)
    at_once = max(1, token_budget // decision.batch.input_ids.shape[1])

    def of_layer(number: int) -> list[tuple[int, float]]:
        """The log-odds with each neuron of a layer held, with its place in the list."""
        held = []
        with torch.no_grad():
            state = network.state(number, inputs[number], context)
            for site, own in by_site.items():
                if site.layer != number:
                    continue
                activation = state.activations[site.module]  # (1, T, n)
                for first in range(0, len(own), at_once):
                    part = own[first : first + at_once]
                    many = activation.repeat(len(part), 1, 1)
                    for row, k in enumerate(part):
                        unit = index.neuron(neurons[k]).index
                        at = np.zeros((3, 1)) if constants is None else constants[:, neurons[k], None]
                        value = torch.from_numpy(np.asarray(at)).to(many)
                        many[row : row + 1, :, unit : unit + 1] = at_tokens(value, activation[:, :, :1], context)
                    logits = network.resume(
                        number, copies(state, len(part)), site.module, many, context.repeat(len(part))
                    )
                    odds = class_log_odds(logits.double().cpu().numpy(), classifier.task)[:, decision.label]
                    held += list(zip(part, odds.tolist(), strict=True))
        return held

    with torch.no_grad():
        hidden, context = network.embed(decision.batch)
        inputs = [hidden]
        for number in range(max((site.layer for site in by_site), default=0)):
            inputs.append(network.after(network.state(number, inputs[-1], context)))
    for found in in_order(of_layer, sorted({site.layer for site in by_site}), classifier.device):
        for k, odds in found:
            falls[k] = decision.value - odds
    return falls


def held_together(
    decision: Decision, chosen: np.ndarray, constants: np.ndarray | None, *, draws: int = 20, seed: int = 0
) -> HeldEffect:
    """Hold a set of neurons in one protein.

    Args:
        decision: Protein and class.
        chosen: ``(N,)``, not empty.
        constants: ``(3, N)`` ablation means; ``None``: zero.
        draws: Matched draws of the set.
        seed: Of the draws.
    """
    index = decision.classifier.index
    whole, groups = Selection(index, chosen, "held"), strata(CONTROL, index)
    drawn = [draw(index, groups, [whole], (seed, 22, r), f"draw {r}")[0] for r in range(draws)]
    odds = _odds(decision, [whole, *drawn], constants)
    falls = decision.value - odds[:, decision.label]
    p = compare_with_draws(float(falls[0]), falls[1:], 1).p_value
    return HeldEffect(len(whole), float(falls[0]), falls[1:], p, decision.classifier.labels[int(odds[0].argmax())])


def _odds(decision: Decision, selections: Sequence[Selection], constants: np.ndarray | None) -> np.ndarray:
    """Log-odds of every class with each of some sets held, ``(K, C)``."""
    changes = [Change(one, 0.0 if constants is None else None) for one in selections]
    after = [odds[0] for odds in outcomes(decision.classifier, [decision.protein], changes, constants)]
    return np.array(after).reshape(len(changes), len(decision.classifier.labels))
