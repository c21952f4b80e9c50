"""Where classes stand, and what is none."""

from pathlib import Path
from typing import Any

import pytest

from plmscope.data.labelling import doubts, is_measured
from plmscope.data.proteins import ProteinSet, read_proteins
from plmscope.errors import InputError, StudyError

AMINO = "ACDEFGHIKLMNPQRSTVWY"


def table(folder: Path, header: str, *rows: str) -> Path:
    """A table of distinct sequences with these columns."""
    path = folder / "t.csv"
    lines = [f"P{k},{AMINO[k % 20] * 3 + AMINO[k // 20] + AMINO * 2},{row}\n" for k, row in enumerate(rows)]
    path.write_text(f"id,sequence,{header}\n" + "".join(lines))
    return path


def read(path: Path, **settings: Any) -> ProteinSet:
    return read_proteins(path, **{"label": "x", **settings})


def refused(path: Path, what: str, **settings: Any) -> None:
    with pytest.raises(InputError) as caught:
        read(path, **settings)
    assert what in str(caught.value) and "\n" not in str(caught.value)


# --- a column a class


def test_a_column_a_class(tmp_path: Path) -> None:
    """As DeepLoc 2 has them: numbers as pandas writes them, an empty cell is no."""
    path = table(tmp_path, "Nucleus,Membrane", "1.0,0.0", "0.0,1.0", "1.0,1.0", "0.0,", "true,FALSE")
    found = read(path, label="Nucleus, Membrane", task="multi")
    assert [p.label for p in found] == ["Nucleus", "Membrane", "Membrane;Nucleus", "Nucleus"]
    assert found.reasons == {"no 1 in columns 'Nucleus, Membrane'": 1}
    assert found.changes == {"empty cells of class columns, read as no": 1}
    found = read(path, label="Nucleus,Membrane")
    assert [(p.id, p.label) for p in found] == [("P0", "Nucleus"), ("P1", "Membrane"), ("P4", "Nucleus")]
    assert found.reasons == {
        "several classes in columns 'Nucleus,Membrane'": 1, "no 1 in columns 'Nucleus,Membrane'": 1
    }  # fmt: skip


def test_columns_that_are_none_a_class(tmp_path: Path) -> None:
    path = table(tmp_path, "a,b", "1,0", "0.73,1", "0,1")
    refused(path, "line 3: protein 'P1': column 'a' has '0.73', not 1 or 0 as a column of one class has", label="a,b")
    refused(path, "label 'a,c' needs the column 'a,c', or one column a class, and lacks 'c'; the file", label="a,c")
    path = table(tmp_path, "a;b,c", "1,0", "0,1")
    with pytest.raises(StudyError, match="the column 'a;b' has a ';' in its name"):
        read(path, label="a;b,c", task="multi")
    path = table(tmp_path, '"a,b",a,b', "x,1,0", "y,0,1", "x,1,1")
    assert read(path, label="a,b").labels == ("x", "y")  # a column of that name comes first


# --- what programs put around a label


@pytest.mark.parametrize(
    "written", ["\"['x', 'y']\"", "['x' 'y']", '"[""x"", ""y""]"', "\"('x', 'y')\"", "\"{'x', 'y'}\""]
)
def test_lists_as_programs_write_them(tmp_path: Path, written: str) -> None:
    path = table(tmp_path, "x", written, "['x']", "['z']")
    found = read(path, task="multi")
    assert found.labels == ("x", "y", "z") and found.changes == {"labels written as lists, read as their items": 3}
    refused(path, "'x;y' looks like several classes joined by ';'; use task = \"multi\"")


def test_names_in_brackets_are_names(tmp_path: Path) -> None:
    found = read(table(tmp_path, "x", "[X]", "(1)", "[2Fe-2S]", "[X]"))
    assert found.labels == ("(1)", "[2Fe-2S]", "[X]") and not found.changes


@pytest.mark.parametrize("written", ['"[0, 1, 1]"', "0;1;1", '"[1.0, 0.0, 0.0]"'])
def test_a_number_for_each_class_is_no_list_of_classes(tmp_path: Path, written: str) -> None:
    path = table(tmp_path, "x", written, written, written)
    refused(path, "is a number for each class; write the names of its classes, or one column a class", task="multi")


def test_whole_numbers_with_a_point_and_ends(tmp_path: Path) -> None:
    found = read(table(tmp_path, "x", "1.0", "1", "0.0", "0"))
    assert found.labels == ("0", "1") and found.changes == {"labels written as 1.0, read as 1": 2}
    found = read(table(tmp_path, "x", "1.0", "0.0", "1.0"), classes=["1.0"])
    assert found.labels == ("1.0",) and len(found) == 2  # a class that is asked for as it stands there
    found = read(table(tmp_path, "x", "a;", "a", "; b", "b"))
    assert found.labels == ("a", "b") and found.changes == {"labels without the ';' beside": 2}
    assert not read(table(tmp_path, "x", "1.5", "2.0.1", "v1.0", "1.5")).changes


def test_what_is_missing(tmp_path: Path) -> None:
    path = table(tmp_path, "x", "a", "b", "nan", "#N/A", "<NA>", "NA", "b")
    found = read(path)
    assert found.labels == ("NA", "a", "b") and len(found.excluded) == 3
    assert found.reasons["'#N/A' in column 'x'"] == 1
    assert "'NA' counted as a class: leave the cell empty if it is none" in repr(found)
    assert read(path, classes=["nan", "b"]).labels == ("b", "nan")


# --- no classes


def test_measurements(tmp_path: Path) -> None:
    for some in (["40.5", "41.5", "42.5"], ["40,5", "41,5", "4e1"], ["4 C", "5.5 C", "6 C"]):
        assert is_measured([*some, some[0]], some) and not is_measured(some * 2, some)
    days = [f"2020-01-{k:02d}" for k in range(1, 9)]
    assert is_measured(days, days) and not is_measured(days * 2, days)
    degrees = [f"{40 + k / 2}" for k in range(12)]
    assert is_measured(degrees * 9, degrees) and not is_measured(degrees[:8] * 9, degrees[:8])
    families = [f"{1 + k % 7}.{k}" for k in range(40)]  # EC numbers of level 2, as far as one can tell
    assert not is_measured(families * 2, families)
    proteins = [f"{k}{letter}" for k in range(9) for letter in "AB"]
    assert not is_measured(proteins * 2, proteins)
    path = table(tmp_path, "x", *(f'"{40 + k},5"' for k in range(5)))
    refused(path, "5 different numbers ('40,5', '41,5', '42,5', ...) in 5 proteins are a measurement, not classes")


def test_what_has_to_be_said_of_classes() -> None:
    assert doubts(["Nucleus", "nucleus", "Golgi"]) == ["'Nucleus' and 'nucleus' differ in case, blanks or a sign alone"]
    assert doubts([str(k) for k in range(30)]) == [
        "all are numbers: if they were measured, write bins of them into a column"
    ]
    assert doubts(["Cytoplasm", "Cytoplasm-Nucleus", "Nucleus", "Trans-Golgi"]) == [
        "'Cytoplasm-Nucleus' looks like several of the others joined by '-'"
    ]
    assert not doubts([str(k) for k in range(20)]) and not doubts(["a", "b"])


# --- lines that name the setting


def test_a_missing_column_names_the_setting(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_text(f">P1\n{AMINO * 2}\n")
    wrong = "label 'x' needs the column 'x'; the file has no columns besides id and sequence; take it "
    refused(path, wrong + "from the headers by label = 'header:PATTERN', or from a second table by labels")
    path.write_text(f"id,sequence\nP1,{AMINO * 2}\n")
    refused(path, wrong + "from a second table by labels")


# --- sequences that are none


def test_sequences_with_other_letters_are_left_out_when_asked(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_text(f">P1\n{AMINO}*{AMINO}\n>P2\n{AMINO}-{AMINO}\n>P3\n{AMINO * 2}*\n>P4\n{AMINO}?\n")
    found = read_proteins(path, other_letters="skip")
    assert [p.id for p in found] == ["P3"]
    assert found.reasons == {"a stop codon inside its sequence": 1, "letters that stand for no residue": 2}
    gffread = tmp_path / "gffread"
    gffread.write_text(f">P1\n{AMINO * 2}.\n>P2\n{AMINO}.{AMINO * 2}.\n")
    found = read_proteins(gffread, other_letters="skip")
    assert [p.sequence for p in found] == [AMINO * 2] and found.reasons == {"a stop codon inside its sequence": 1}
    assert found.changes["sequences without their final '.', a stop as gffread writes it"] == 2
    with pytest.raises(InputError, match=r'a stop codon inside it: check its translation .* other_letters = "skip"'):
        read_proteins(path)
    with pytest.raises(StudyError, match="other_letters 'X' is unknown; use 'error', 'skip'"):
        read_proteins(path, other_letters="X")  # type: ignore[arg-type]
