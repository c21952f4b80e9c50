"""A split that is given: a column that names the sets, or numbers folds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

from plmscope.data.proteins import Protein
from plmscope.errors import InputError, shown

Part = Literal["train", "validation", "test"]


PARTS: tuple[Part, ...] = ("train", "validation", "test")


#: What sets are called elsewhere.
_ALSO: Mapping[str, Part] = {
    "training": "train", "valid": "validation", "val": "validation", "dev": "validation", "development": "validation",
    "testing": "test", "holdout": "test", "hold-out": "test", "held-out": "test",
}  # fmt: skip


#: The way to use other names of sets.
VALUES = "say which values are test by test_folds, and which are validation by validation_folds; all others are train"
FOLDS = "numbers of folds name no sets: say which are test by test_folds, and which are validation by validation_folds"


def value_of(protein: Protein, column: str, setting: str) -> str:
    """A column of one protein, which has to be there."""
    if column not in protein.columns:
        known = ", ".join(shown(name) for name in protein.columns) or "none"
        raise InputError(
            f"protein {protein.id!r} has no column {column!r}; its columns are {known}; name one by {setting}"
        )
    return protein.columns[column].strip()


def column_split(proteins: Sequence[Protein], column: str) -> dict[str, Part]:
    """The sets that a column names; it may leave out validation."""
    known: Mapping[str, Part] = {part: part for part in PARTS} | dict(_ALSO)
    assignment: dict[str, Part] = {}
    for protein in proteins:
        value = value_of(protein, column, "split.column")
        if value.casefold() not in known:
            advice = FOLDS if value.removesuffix(".0").isdigit() else VALUES
            raise InputError(
                f"protein {protein.id!r}: column {column!r} has {shown(value)}, not train, validation or test; {advice}"
            )
        assignment[protein.id] = known[value.casefold()]
    for part in ("train", "test"):
        if part not in assignment.values():
            raise InputError(f"column {column!r} puts no protein into {part}; name some, or {VALUES}")
    return assignment


def fold_split(proteins: Sequence[Protein], column: str, folds: Mapping[str, Part]) -> dict[str, Part]:
    """The sets of the folds that a column names; a number counts as ``1`` and as ``1.0``."""
    value = {protein.id: value_of(protein, column, "split.column").removesuffix(".0") for protein in proteins}
    part_of = {name.removesuffix(".0"): part for name, part in folds.items()}
    there = sorted(set(value.values()))
    for name in part_of:
        if name not in there:
            raise InputError(
                f"no protein has fold {shown(name)} in column {column!r}, which has {', '.join(map(shown, there[:12]))}"
                "; correct test_folds or validation_folds"
            )
    assignment: dict[str, Part] = {name: part_of.get(fold, "train") for name, fold in value.items()}
    if empty := next((protein for protein in proteins if not value[protein.id]), None):
        raise InputError(f"protein {empty.id!r}: column {column!r} has no fold; give it one, or leave the protein out")
    if "train" not in assignment.values():
        raise InputError(f"column {column!r}: no fold is left for train; name fewer in test_folds and validation_folds")
    return assignment
