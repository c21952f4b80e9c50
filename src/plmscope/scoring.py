"""``score(model, proteins, method=...)``: the table of scorers.

A new scorer is one file with a function that returns :class:`~plmscope.scores.NeuronScores`, and one row of
:data:`SCORERS` per method that it gives, whose name is in :data:`plmscope.scores.METHODS` too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pandas as pd

from plmscope import ablation, activation, conductance, gradients, linear
from plmscope.model import Classifier
from plmscope.probing import scorers
from plmscope.scores import FORMS, GroupSums, NeuronScores, check_methods, signed_form, with_class_means
from plmscope.sequences import Protein

Scorer = Callable[..., tuple[NeuronScores, ...]]

#: Which function gives which methods; one that gives several is run once for all of them.
SCORERS: dict[str, Scorer] = {
    **dict.fromkeys(activation.METHODS, activation.activation_scores),
    **dict.fromkeys(gradients.METHODS, gradients.integrated_gradients),
    **dict.fromkeys(conductance.METHODS, conductance.conductance),
    **dict.fromkeys(linear.METHODS, linear.gradient_activation),
    **dict.fromkeys(linear.PATCHING_METHODS, linear.attribution_patching),
    **dict.fromkeys(ablation.METHODS, ablation.single_ablation),
    **dict.fromkeys(scorers.METHODS, scorers.probe_scores),
}


def score(
    model: Classifier, proteins: Sequence[Protein], method: str = "integrated_gradients", **settings: Any
) -> NeuronScores:
    """Score every neuron of every site by one method.

    Args:
        model: The classifier.
        proteins: Labelled proteins; never those that the selection will be judged on.
        method: A key of :data:`SCORERS`.
        **settings: Passed to the scorer (``points``, ``target``, ``token_budget``, ``track`` ...).

    Returns:
        Scores ``(N,)``, higher = more important, with the ids of the proteins.

    Raises:
        SelectionError: the method is not known.
        InputError: no proteins, or a label that the model does not know.
    """
    check_methods([method])
    if signed_form(method)[1] == FORMS["rms"]:
        settings["rms"] = True
    found = with_class_means(SCORERS[method](model, proteins, **settings))
    return next(one for one in found if one.method == method)


def finish(
    method: str, sums: GroupSums, settings: Mapping[str, Any], completeness: pd.DataFrame | None = None
) -> NeuronScores:
    """Scores of one method from the sums that its scorer kept, such as those merged from several processes.

    Args:
        method: A key of :data:`SCORERS`.
        sums: ``sums`` of the scores, or several of them merged.
        settings: ``settings`` of the scores; the same for all that were merged.
        completeness: Rows of all proteins, for path methods.
    """
    check_methods([method])
    if method in activation.METHODS:
        return next(one for one in activation.ActivationSummary(sums).scores() if one.method == method)
    if method in scorers.METHODS:
        return scorers.finish(method, sums, settings)
    if method in conductance.METHODS:
        return conductance.finish(method, sums, settings, completeness)
    if method in gradients.METHODS:
        settings = {**settings, **gradients.found_points(settings, completeness)}
    return sums.finish(method, settings, completeness)
