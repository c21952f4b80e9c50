"""JSON as tables."""

import json
from pathlib import Path
from typing import Any

import pytest

from plmscope.data import records
from plmscope.data.proteins import read_proteins
from plmscope.errors import InputError

A = "MKVLAAGIVGLCHWYTRSDENQPFKLMACDEF"
B = "MSTNPKPQRKTKRNTNRRPQDVKFPGGGQIVGG"


def written(folder: Path, text: str) -> Path:
    path = folder / "f"
    path.write_text(text)
    return path


@pytest.mark.parametrize("form", ["lines", "list", "pretty"])
def test_lines_and_lists_of_objects(tmp_path: Path, form: str) -> None:
    rows: list[Any] = [
        {"id": "P1", "sequence": A, "kind": ["x", "y"], "mass": 10.50, "known": True, "note": None},
        {"id": "P2", "sequence": B, "kind": ["x"], "mass": 7, "known": False},
    ]
    text = json.dumps(rows, indent=1 if form == "pretty" else None).replace("10.5,", "10.50,")
    if form == "lines":
        text = "".join(json.dumps(row).replace("10.5,", "10.50,") + "\n" for row in rows)
    found = read_proteins(written(tmp_path, text), label="kind", task="multi")
    assert [(p.id, p.sequence, p.label) for p in found] == [("P1", A, "x;y"), ("P2", B, "x")]
    assert found.proteins[0].columns == {"kind": "x;y", "mass": "10.50", "known": "true", "note": ""}
    assert found.proteins[1].columns["note"] == ""


@pytest.mark.parametrize(
    ("text", "what"),
    [
        (f'{{"id": "a", "sequence": "{A}"}}\n[1]\n', "line 2 is JSON, but no object with a name for every value"),
        (f'{{"id": "a", "sequence": "{A}"}}\n{{"id": "b", "x": 1}}\n', "line 2 has 'x', which the first object lacks"),
        (f'{{"id": "a", "sequence": "{A}"}}\n{{"id": \n', "line 2 is not sound JSON (Expecting value)"),
        ('[{"id": "a", "sequence": {"length": 3}}]', "object 1: 'sequence' holds nested JSON"),
        ('[{"id": "a", "kind": [["x"]]}]', "object 1: 'kind' holds nested JSON"),
        ('[\n{"id": "a"}', "line 1 is not sound JSON"),
        ('{"results": [{"id": 1}]}\n', "line 1: 'results' holds nested JSON; write one flat object a line, or a table"),
    ],
)
def test_other_json(tmp_path: Path, text: str, what: str) -> None:
    with pytest.raises(InputError) as caught:
        read_proteins(written(tmp_path, text))
    assert what in str(caught.value) and "\n" not in str(caught.value)


def test_a_list_is_held_in_memory_up_to_a_bound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(records, "MAX_LIST", 20)
    with pytest.raises(InputError, match="is a JSON list of more than 20 characters"):
        read_proteins(written(tmp_path, f'[{{"id": "a", \n"sequence": \n"{A}"}}]'))
