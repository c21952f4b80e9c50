"""The table of scoring methods: one row a scorer says all that the rest of the project has to know of it.

A new scorer is one file with a function that returns :class:`~plmscope.scoring.scores.NeuronScores`, and one row of
:data:`ROWS`. Studies, selections, verdicts, completeness and texts follow from the row. Functions are named, not
imported, so that reading the table loads no PyTorch. A scorer of another package is the same row, added by
:func:`register_scorer` or named by an entry point of the group ``plmscope.scorers``.

>>> methods()[:3], signed_methods()[:2]
(('activation', 'activation_std', 'activation_contrast'), ('integrated_gradients', 'conductance'))
>>> row_of("conductance_rms").takes["points"]
'conductance_points'
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from plmscope.errors import SelectionError, shown
from plmscope.plugins import Registry, code_digest

#: How scores with a sign are ranked for keeping and ablating, and what the name of the ranked score ends in. With
#: ``s_pn`` the token sum of protein ``p``: mean of ``|s_pn|``; root of the mean of ``s_pn ** 2``; mean over classes of
#: the absolute mean of ``s_pn`` over the class's proteins.
FORMS = {"absolute": "_abs", "rms": "_rms", "class_means": "_class"}
#: The score that says how much a neuron varies, which equally active random neurons are matched by.
ACTIVITY = "activation_std"
#: Methods whose word comes first where one has to stand for all, such as for a class's neurons.
PREFERRED = ("integrated_gradients", "conductance", "activation_contrast")
#: Entry points of other packages that name a row or rows.
GROUP = "plmscope.scorers"


@dataclass(frozen=True)
class Scorer:
    """One row: a scorer and the methods that it gives.

    The function is called as ``function(classifier, proteins, token_budget=..., groups=..., track=..., **more)``, where
    ``more`` is what the row asks for, and returns a tuple of scores that keep their sums, one of every name.

    Attributes:
        methods: Name of each method to the question that it answers.
        function: ``"module:name"`` of the scorer, or the scorer itself.
        takes: Argument of the scorer to the setting of ``[score]`` that it is given. ``baseline`` is given as ``None``
            for zero or as the ablation means ``(3, N)``.
        seed: Whether it draws something, and takes a ``seed``.
        signed: Whether a positive score supports the class and a negative one works against it. Such a method has the
            unsigned :data:`FORMS` too, which selections are ranked by, and its scorer takes ``rms``: whether to give
            the root mean square beside the absolute token sums.
        fit: Whether it fits something to its sums, and takes ``fit``: false where it sees a part of the proteins, of
            which the sums alone are used.
        path: Whether it is a path integral, whose sums are compared with what they should be (``completeness``).
        family: ``activation-based``, ``gradient-based``, ``probe`` or ``other``: what verdicts call it.
        finish: ``"module:name"`` of the function that makes scores of merged sums, called as
            ``finish(method, sums, settings, completeness)``; empty: :meth:`~plmscope.scoring.scores.GroupSums.finish`.
        equal: Method to what to do where all neurons have the same score, where there is more to say than to leave it
            out.
    """

    methods: Mapping[str, str]
    function: str | Callable[..., Any]
    takes: Mapping[str, str] = field(default_factory=dict)
    seed: bool = False
    signed: bool = False
    fit: bool = False
    path: bool = False
    family: str = "other"
    finish: str | Callable[..., Any] = ""
    equal: Mapping[str, str] = field(default_factory=dict)

    @property
    def names(self) -> tuple[str, ...]:
        """Every score that it gives: its methods, and the forms of those with a sign."""
        return tuple(form for name in self.methods for form in (forms_of(name) if self.signed else (name,)))


ROWS: tuple[Scorer, ...] = (
    Scorer(
        {
            "activation": "how large is it?",
            "activation_std": "how much does it vary over residues and proteins?",
            "activation_contrast": "does its mean differ between classes?",
        },
        "plmscope.scoring.activation:activation_scores",
        family="activation-based",
        finish="plmscope.scoring.activation:finish",
        equal={"activation_contrast": "it needs two proteins of a class: raise score.proteins_per_class"},
    ),
    Scorer(
        {"integrated_gradients": "what does it change on the way from its baseline?"},
        "plmscope.scoring.integrated_gradients:integrated_gradients",
        takes={
            "target": "target", "baseline": "baseline", "points": "points", "tolerance": "tolerance",
            "recompute": "recompute",
        },
        signed=True,
        path=True,
        family="gradient-based",
        finish="plmscope.scoring.integrated_gradients:finish",
    ),
    Scorer(
        {"conductance": "what does the protein change through it?"},
        "plmscope.scoring.conductance:conductance",
        takes={
            "target": "target", "points": "conductance_points", "tolerance": "tolerance", "recompute": "recompute",
        },
        signed=True,
        path=True,
        family="gradient-based",
        finish="plmscope.scoring.conductance:finish",
    ),
    Scorer(
        {"gradient_activation": "what would a small step towards 0 do?"},
        "plmscope.scoring.linear:gradient_activation",
        takes={"target": "target", "baseline": "baseline"},
        signed=True,
        family="gradient-based",
    ),
    Scorer(
        {"attribution_patching": "what does it do that it would not on a corrupted copy?"},
        "plmscope.scoring.linear:attribution_patching",
        takes={"target": "target", "corruption": "corruption", "copies": "copies"},
        seed=True,
        signed=True,
        family="gradient-based",
    ),
    Scorer(
        {"relp": "what does it do that it would not on a corrupted copy, norms and attention held as they are?"},
        "plmscope.scoring.relp:relp",
        takes={"target": "target", "corruption": "corruption", "copies": "copies"},
        seed=True,
        signed=True,
        family="gradient-based",
    ),
    Scorer(
        {"single_ablation": "what happens without it?"},
        "plmscope.scoring.ablation:single_ablation",
        takes={"target": "target", "baseline": "baseline"},
        seed=True,
        signed=True,
    ),
    Scorer(
        {
            "probe": "what weight does a linear classifier of proteins give it?",
            "probeless": "how far do its class means lie apart?",
            "probeless_standardised": "how far, over its spread within classes?",
            "gaussian": "how much more of the class does it tell than those before it?",
            "iou": "do the proteins where it is highest make up a class?",
        },
        "plmscope.probing.scorers:probe_scores",
        seed=True,
        fit=True,
        family="probe",
        finish="plmscope.probing.scorers:finish",
    ),
)  # fmt: skip

#: What else stands beside methods in tables.
_RESERVED = ("layer", "module", "neuron", "intact", "held", "random", "random_matched", "random_active")


def rows() -> tuple[Scorer, ...]:
    """The whole table: the rows of plmscope, of installed packages and those registered.

    Raises:
        SelectionError: an installed package names something that is no row.
    """
    return _TABLE.rows()


def register_scorer(row: Scorer) -> Scorer:
    """Add a scorer, so that studies and :func:`plmscope.score` know its methods.

    Only the running process knows it; a package that is to be known always names its row as an entry point of the
    group ``plmscope.scorers``. Registered again, as when a cell of a notebook runs twice, a scorer of the same methods
    replaces the one before.

    Raises:
        SelectionError: a name is taken, or is no name.

    >>> row = register_scorer(Scorer({"width": "how wide is it?"}, "mine.widths:width_scores"))
    >>> "width" in methods()
    True
    >>> unregister_scorer(row)
    """
    return _TABLE.register(row)


def unregister_scorer(row: Scorer) -> None:
    """Take back what :func:`register_scorer` added."""
    _TABLE.unregister(row)


def _check(row: Scorer, known: Sequence[Scorer]) -> None:
    """Refuse a row whose names cannot stand in a table beside those that are there."""
    for name in row.names:
        if not re.fullmatch(r"[a-z][a-z0-9_]*", name) or name in _RESERVED:
            raise SelectionError(
                f"scoring method {shown(name)}: use small letters, digits and _, and none of {', '.join(_RESERVED)}"
            )
        if any(name in other.names for other in known):
            raise SelectionError(f"scoring method {name!r} is there already; choose another name")
    if not row.methods:
        raise SelectionError("a scorer has to name its methods; there are none")


_TABLE = Registry(GROUP, Scorer, SelectionError, lambda: ROWS, _check, lambda row: tuple(row.methods))


def preference(method: str) -> int:
    """Key to sort methods by, or to take the smallest: the preferred ones first, all others alike."""
    return PREFERRED.index(method) if method in PREFERRED else len(PREFERRED)


def forms_of(method: str) -> tuple[str, ...]:
    """A method with a sign and its unsigned forms, as they are named in tables."""
    return (method, *(method + ending for ending in FORMS.values()))


def methods() -> tuple[str, ...]:
    """Every score that there is: methods without a sign, then those with one and their forms."""
    return tuple(name for signed in (False, True) for row in rows() if row.signed is signed for name in row.names)


def plain_methods() -> tuple[str, ...]:
    """The methods alone, without the forms of those with a sign."""
    return tuple(name for signed in (False, True) for row in rows() if row.signed is signed for name in row.methods)


def signed_methods() -> tuple[str, ...]:
    """Methods whose scores have a sign: positive supports the class. A strongly negative neuron matters as much."""
    return tuple(name for row in rows() if row.signed for name in row.methods)


def path_methods() -> tuple[str, ...]:
    """Methods whose sums are compared with what they should be."""
    return tuple(name for row in rows() if row.path for name in row.methods)


def row_of(method: str) -> Scorer:
    """The row of a method or of a form of it.

    Raises:
        SelectionError: there is none.
    """
    row = next((one for one in rows() if method in one.names), None)
    if row is None:
        raise SelectionError(f"method {shown(method)} is not known; choose from {', '.join(methods())}")
    return row


def described() -> str:
    """The names of all methods as the study file has them beside ``score.methods``."""
    names, signed = ", ".join(plain_methods()), signed_methods()
    return (
        f"{names}; those with a sign ({signed[0]} and what follows) also ending in "
        f"{', '.join([*FORMS.values()][:-1])} or {[*FORMS.values()][-1]}"
    )


def function_of(function: str | Callable[..., Any]) -> Callable[..., Any]:
    """The function of a name such as ``"plmscope.scoring.linear:gradient_activation"``."""
    if callable(function):
        return function
    module, _, name = function.partition(":")
    resolved: Callable[..., Any] = getattr(importlib.import_module(module), name)
    return resolved


def code_of(names: Sequence[str]) -> dict[str, list[str]]:
    """Of the methods that others brought: what tells the code of their scorers from its other versions.

    Args:
        names: Methods and forms of methods; those of plmscope are known by its version and left out.

    >>> code_of(["activation"])
    {}
    """
    brought = [row for row in rows() if row not in ROWS and set(row.names) & set(names)]
    return {",".join(row.methods): [code_digest(one) for one in (row.function, row.finish) if one] for row in brought}
