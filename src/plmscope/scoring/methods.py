"""``score(model, proteins, method=...)``: score neurons by any row of the table of methods.

The table is :mod:`plmscope.scoring.table`; a scorer's module is imported when it is first used.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import pandas as pd

from plmscope.data.proteins import Protein
from plmscope.errors import SelectionError
from plmscope.scoring.scores import GroupSums, NeuronScores, check_methods, signed_form, with_class_means
from plmscope.scoring.table import FORMS, function_of, methods, row_of

ScorerFunction = Callable[..., tuple[NeuronScores, ...]]


class _Scorers(Mapping[str, ScorerFunction]):
    """Every method and the function that gives it, as the table has them now."""

    def __getitem__(self, method: str) -> ScorerFunction:
        if method not in methods():
            raise KeyError(method)
        return function_of(row_of(method).function)

    def __iter__(self) -> Iterator[str]:
        return iter(methods())

    def __len__(self) -> int:
        return len(methods())


#: Which function gives which methods; one that gives several is run once for all of them.
SCORERS: Mapping[str, ScorerFunction] = _Scorers()


def score(
    model: Any, proteins: Sequence[Protein], method: str = "integrated_gradients", **settings: Any
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
    return every_score(method, model, proteins, **settings)[method]


def every_score(method: str, model: Any, proteins: Sequence[Protein], **settings: Any) -> dict[str, NeuronScores]:
    """What the scorer of a method gives, that method and others; those with a sign with their absolute class means.

    Raises:
        SelectionError: the scorer does not give the method, whatever its row says.
    """
    scores = {one.method: one for one in with_class_means(SCORERS[method](model, proteins, **settings))}
    if method not in scores:
        raise SelectionError(f"the scorer of {method!r} gives {', '.join(scores)} and not {method!r}; mend its row")
    return scores


def finish(
    method: str, sums: GroupSums, settings: Mapping[str, Any], completeness: pd.DataFrame | None = None
) -> NeuronScores:
    """Scores of one method from the sums that its scorer kept, such as those merged from several processes.

    Args:
        method: A key of :data:`SCORERS`.
        sums: ``sums`` of the scores, or several of them merged.
        settings: ``settings`` of the scores; the same for all that were merged.
        completeness: Rows of all proteins, for path methods.

    Raises:
        SelectionError: the method is not known.
    """
    how = row_of(method).finish
    return (
        function_of(how)(method, sums, settings, completeness) if how else sums.finish(method, settings, completeness)
    )
