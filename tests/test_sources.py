"""Folders: one file a class, or one file a set."""

from pathlib import Path

import pytest

from plmscope.data.proteins import read_proteins
from plmscope.data.sources import sources_of
from plmscope.data.splits import split_proteins
from plmscope.errors import InputError
from tests.test_splits import DISTINCT


def fasta(path: Path, first: int, number: int) -> None:
    path.write_text("".join(f">P{k} kind={'ab'[k % 2]}\n{DISTINCT[k]}\n" for k in range(first, first + number)))


def test_positives_and_negatives_in_two_files(tmp_path: Path) -> None:
    fasta(tmp_path / "AMP.fasta", 0, 5)
    fasta(tmp_path / "others.fa.txt", 5, 7)
    (tmp_path / ".DS_Store").write_bytes(b"\0\0")
    found = read_proteins(tmp_path, label="file", min_length=1)
    assert [p.label for p in found] == ["AMP"] * 5 + ["others.fa"] * 7
    assert found.proteins[0].columns == {"kind": "a", "file": "AMP"}
    before = found.sha256
    (tmp_path / "AMP.fasta").rename(tmp_path / "amp.fasta")
    assert read_proteins(tmp_path, label="file", min_length=1).sha256 != before  # the names are labels


def test_train_valid_and_test_in_three_files(tmp_path: Path) -> None:
    """As data sets on the hub are: rows without ids, which are told apart by their file."""
    for name, rows in (("train", range(8)), ("valid", range(8, 12)), ("test", range(12, 16))):
        text = "".join(f"{DISTINCT[k]},{'ab'[k % 2]}\n" for k in rows)
        (tmp_path / f"{name}.csv").write_text("sequence,label\n" + text)
    found = read_proteins(tmp_path, label="label", min_length=1)
    assert [p.id for p in found][:5] == ["test:row1", "test:row2", "test:row3", "test:row4", "train:row1"]
    split = split_proteins(found, method="column", column="file")
    assert split.counts == {"train": 8, "validation": 4, "test": 4} and not split.notes


def test_folders_that_are_refused(tmp_path: Path) -> None:
    def refused(what: str) -> None:
        with pytest.raises(InputError) as caught:
            read_proteins(tmp_path, label="file")
        assert what in str(caught.value) and "\n" not in str(caught.value)

    fasta(tmp_path / "a.fasta", 0, 5)
    fasta(tmp_path / "b.fasta", 4, 5)
    refused("the id 'P4' is there twice, a.fasta, line 9 and b.fasta, line 1")
    fasta(tmp_path / "b.tsv", 5, 5)
    refused("has two files called 'b' but for their endings")
    (tmp_path / "b.tsv").unlink()
    (tmp_path / "b.fasta").write_text(">P9 file=x\nMKV\n")
    refused("b.fasta: line 1: has a column 'file', which names the files of a folder; rename it")
    (tmp_path / "b.fasta").write_text("")
    refused("b.fasta: is empty")
    (tmp_path / "b.fasta").unlink()
    (tmp_path / "more").mkdir()
    refused("is a folder that has the folder 'more'")


def test_a_file_is_one_source(tmp_path: Path) -> None:
    fasta(tmp_path / "a.fasta", 0, 1)
    with sources_of(str(tmp_path / "a.fasta")) as found:
        assert [(file.source, file.of_folder) for file in found] == [(str(tmp_path / "a.fasta"), False)]
