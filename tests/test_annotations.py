"""EC numbers and their levels."""

import pytest

from plmscope.annotations import EC_NAMES, ec_classes
from plmscope.errors import InputError


@pytest.mark.parametrize(
    ("text", "level", "classes"),
    [
        ("1.1.1.1", 1, ("1",)),
        ("1.1.1.1", 4, ("1.1.1.1",)),
        ("1.1.1.1;1.2.3.-", 1, ("1",)),
        ("1.1.1.1;1.2.3.-", 2, ("1.1", "1.2")),
        ("1.1.1.1;1.2.3.-", 3, ("1.1.1", "1.2.3")),
        ("1.1.1.1;1.2.3.-", 4, ("1.1.1.1",)),
        ("3.-.-.-", 1, ("3",)),
        ("3.-.-.-", 2, ()),
        ("2.7", 2, ("2.7",)),
        ("2.7", 3, ()),
        ("2.7.1.n3", 4, ("2.7.1.n3",)),
        ("EC 7.1.1.2, EC:4.2.1.11", 1, ("4", "7")),
        ("EC1.1.1.1", 1, ("1",)),
        ("  2.1.1.1 ;1.1.1.1 ", 1, ("1", "2")),
        ("-", 1, ()),
        ("", 1, ()),
    ],
)
def test_classes_at_a_level(text: str, level: int, classes: tuple[str, ...]) -> None:
    assert ec_classes(text, level) == classes


@pytest.mark.parametrize(
    "text", ["8.1.1.1", "0.1", "1..1", "1.1.1.1.1", "1.-.1.1", "kinase", "1.1.1.1x", "n1", "1.1.1.1;?"]
)
def test_a_malformed_number_is_named(text: str) -> None:
    with pytest.raises(InputError, match="is not an EC number"):
        ec_classes(text, 1)


@pytest.mark.parametrize("level", [0, 5, -1])
def test_there_are_four_levels(level: int) -> None:
    with pytest.raises(InputError, match="EC level"):
        ec_classes("1.1.1.1", level)


def test_every_top_class_has_a_name() -> None:
    assert list(EC_NAMES) == list("1234567")
    assert EC_NAMES["6"] == "ligases"
