"""What settings of a study exclude each other: refused when the study is read, with what to write instead."""

from __future__ import annotations

from typing import Any

from plmscope.evaluation.selection import check_fraction
from plmscope.scoring.scores import check_methods
from plmscope.scoring.table import ACTIVITY, plain_methods

#: Lists of shares that end below 1.
INTACT_AT_1 = ("evaluate.fractions", "evaluate.module_fractions", "faithfulness.fractions")


def check_possible(study: Any) -> None:
    """Refuse settings that cannot go together.

    Args:
        study: A :class:`~plmscope.study.settings.Study`.

    Raises:
        ValueError: a line that names the settings.
    """
    if study.data.min_length > study.data.max_length:
        raise ValueError(
            f"data.min_length = {study.data.min_length} is above data.max_length = {study.data.max_length}"
        )
    overlap = study.data.window_overlap
    if study.data.too_long == "windows" and overlap >= study.data.max_length:
        raise ValueError(f"data.window_overlap = {overlap} is not below data.max_length = {study.data.max_length}")
    for key, fractions in (
        ("evaluate.fractions", study.evaluate.fractions),
        ("evaluate.module_fractions", study.evaluate.module_fractions),
        ("density.fractions", study.density.fractions),
        ("characterize.fractions", study.characterize.fractions),
        ("faithfulness.fractions", study.faithfulness.fractions),
        ("layout.pruning_steps", study.layout.pruning_steps),
    ):
        for fraction in fractions:
            check_fraction(fraction, key)
        if sorted(set(fractions)) != list(fractions):
            raise ValueError(f"{key} = {list(fractions)!r}: has to increase")
        if fractions[-1] == 1 and key in INTACT_AT_1:
            raise ValueError(f"{key}: 1 is the intact model, which is in every curve; leave it out")
    if study.layout.pruning_steps[-1] == 1:
        raise ValueError("layout.pruning_steps: 1 leaves no unit; stay below 1")
    if len(set(study.layout.pruning_statistics)) < len(study.layout.pruning_statistics):
        raise ValueError(
            f"layout.pruning_statistics = {list(study.layout.pruning_statistics)!r}: one is there twice; remove it"
        )
    if study.characterize.fractions[-1] >= 0.5:
        raise ValueError(
            "characterize.fractions: a neuron that fires at half of the residues fires at none; stay below 0.5"
        )
    if len(set(study.score.methods)) < len(study.score.methods):
        raise ValueError(f"score.methods = {list(study.score.methods)!r}: a method is there twice; remove one")
    for name, section in (
        ("evaluate", study.evaluate), ("characterize", study.characterize), ("intervene", study.intervene),
        ("layout", study.layout),
    ):  # fmt: skip
        unscored = [method for method in section.methods if method not in study.score.methods]
        if unscored:
            raise ValueError(f"{name}.methods has {unscored[0]!r}, which is not among score.methods; add it there")
    check_methods(study.score.methods, "score.methods")
    unknown = [method for method in study.faithfulness.methods if method not in plain_methods()]
    if unknown:
        raise ValueError(f"faithfulness.methods has {unknown[0]!r}; choose from {', '.join(plain_methods())}")
    if len(set(study.model.classes)) < len(study.model.classes):
        raise ValueError(f"model.classes = {list(study.model.classes)!r}: a class is there twice; remove one")
    if study.model.new_head and (study.model.classes or not study.finetune.epochs):
        other = "model.classes names the head that it replaces" if study.model.classes else "finetune.epochs = 0"
        raise ValueError(f"model.new_head = true, and {other}; change one of them")
    if study.finetune.lora_rank and study.finetune.frozen_layers:
        raise ValueError("finetune.frozen_layers: LoRA adapters are trained in every layer; set one of the two to 0")
    if not study.finetune.epochs and study.density.nulls:
        raise ValueError("finetune.epochs = 0 leaves the null models untrained; write density.nulls = []")
    if study.density.null_draws == 1:
        raise ValueError("density.null_draws = 1: one draw has no spread; take more, or 0 to leave them out")
    factors = study.intervene.factors
    if any(factor <= 0 for factor in factors) or len(set(factors)) < len(factors):
        raise ValueError(f"intervene.factors = {list(factors)!r}: have to be above 0 and different; 0 is always there")
    controls = (*study.evaluate.controls, *study.evaluate.module_controls)
    if "random_active" in controls and ACTIVITY not in study.score.methods:
        raise ValueError(f"evaluate.controls has random_active, which needs {ACTIVITY} among score.methods")
