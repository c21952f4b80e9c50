"""Reading proteins: what is accepted, and one clear line for everything that is not."""

import gzip
import hashlib
import os
from collections import Counter
from pathlib import Path

import pandas as pd
import pytest

from plmscope import formats, sequences
from plmscope.errors import InputError, StudyError
from plmscope.sequences import Protein, read_proteins

A = "MKVLAAGIVGLCHWYTRSDENQPFKLMACDEF"  # 32 residues
B = "MSTNPKPQRKTKRNTNRRPQDVKFPGGGQIVGG"
LONG = "MKV" * 400


def write(folder: Path, content: str | bytes, name: str = "proteins.txt") -> Path:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def refused(path: str | Path, *parts: str, **settings: object) -> None:
    """The file is refused in one line that names it and has all the parts."""
    with pytest.raises(InputError) as caught:
        read_proteins(path, **settings)  # type: ignore[arg-type]
    text = str(caught.value)
    assert "\n" not in text
    for part in (str(path), *parts):
        assert part in text


def test_fasta_header_fields_become_columns(tmp_path: Path) -> None:
    path = write(
        tmp_path, f'\n>P1 ec=1.1.1.1 name="two words" 5\'-end x\n{A[:10]}\n{A[10:].lower()}\n\n>P2\tec=\n{B}*\n'
    )
    found = read_proteins(path, min_length=1)
    assert [(p.id, p.sequence, p.label) for p in found] == [("P1", A, None), ("P2", B, None)]
    assert found.proteins[0].columns == {"ec": "1.1.1.1", "name": "two words"}
    assert found.proteins[1].columns == {"ec": ""}
    assert len(found.proteins[0]) == 32
    assert found.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize("kind", ["fasta", "tsv", "csv", "parquet", "fasta.gz", "tsv.gz", "crlf", "cr", "bom"])
def test_every_format_gives_the_same_proteins(tmp_path: Path, kind: str) -> None:
    tsv = f"id\tsequence\tgroup\nP1\t{A}\tx y\nP2\t{B}\t7\n"
    fasta = f'>P1 group="x y"\n{A}\n>P2 group=7\n{B}\n'
    if kind == "parquet":
        path = tmp_path / "any.name"
        pd.DataFrame({"id": ["P1", "P2"], "sequence": [A, B], "group": ["x y", "7"]}).to_parquet(path)
    else:
        text = {"csv": f'sequence,id,group\n{A},P1,"x y"\n{B},P2,7\n', "crlf": tsv.replace("\n", "\r\n")}.get(
            kind, fasta if kind.startswith("fasta") else tsv
        )
        data = text.replace("\n", "\r").encode() if kind == "cr" else text.encode()
        data = b"\xef\xbb\xbf" + data if kind == "bom" else data
        path = write(tmp_path, gzip.compress(data) if kind.endswith("gz") else data)
    found = read_proteins(path, label="group")
    assert found.proteins == (Protein("P1", A, "x y", {"group": "x y"}), Protein("P2", B, "7", {"group": "7"}))
    assert found.labels == ("7", "x y")
    assert found.source == str(path)


def test_parquet_numbers_and_gaps_become_text(tmp_path: Path) -> None:
    path = tmp_path / "p.parquet"
    pd.DataFrame({"id": [1, 2, 3], "sequence": [A, B, A], "fold": [4.0, None, 5.5], "t": [[1], [2, 3], []]}).to_parquet(
        path
    )
    found = read_proteins(path, label="fold")
    assert [(p.id, p.label) for p in found] == [("1", "4"), ("3", "5.5")]
    assert [(e.id, e.reason) for e in found.excluded] == [("2", "no value in column 'fold'")]


def test_ec_labels_and_every_reason_for_exclusion(tmp_path: Path) -> None:
    rows = [
        ("one", A, "1.1.1.1;1.2.1.3"),
        ("two", B, "2.7.1.-"),
        ("several", A, "1.1.1.1;2.7.1.1"),
        ("none", A, " "),
        ("partial", A, "-"),
        ("short", "MKV", "1.1.1.1"),
        ("long", LONG, "1.1.1.1"),
        ("none and long", LONG, ""),
    ]
    path = write(tmp_path, "id\tsequence\tec\n" + "".join("\t".join(row) + "\n" for row in rows))
    found = read_proteins(path, label="ec:1", too_long="skip")
    assert [(p.id, p.label) for p in found] == [("one", "1"), ("two", "2")]
    assert {e.id: e.reason for e in found.excluded} == {
        "several": "several classes at EC level 1",
        "none": "no value in column 'ec'",
        "partial": "EC number too partial for level 1",
        "short": "shorter than 30 residues",
        "long": "longer than 1022 residues",
        "none and long": "no value in column 'ec'",
    }
    assert len(found.proteins) + len(found.excluded) == len(rows)
    assert found.reasons["no value in column 'ec'"] == 2
    assert "2 proteins" in repr(found)
    assert "6 excluded: " in repr(found)
    assert read_proteins(path, label="ec", too_long="skip").proteins[0].label == "1.1.1.1;1.2.1.3"
    refused(
        path, "no protein is left of 8", "2 x no value", label="ec:4", min_length=1000, max_length=1000, too_long="skip"
    )


def test_length_limits_are_inclusive(tmp_path: Path) -> None:
    path = write(tmp_path, f">a\n{A[:30]}\n>b\n{A[:29]}\n>c\n{A[:31]}\n>d\n{A[:30]}*\n")
    found = read_proteins(path, min_length=30, max_length=30, too_long="skip")
    assert [p.id for p in found] == ["a", "d"]


def test_too_long_is_an_error_that_counts(tmp_path: Path) -> None:
    path = write(tmp_path, f">P1\n{A}\n>P2\n{LONG}\n>P3\n{LONG}\n")
    refused(path, "line 3", "'P2'", "1,200", "max_length = 1022", "2 in all")


@pytest.mark.parametrize(
    ("content", "parts"),
    [
        ("", ["is empty"]),
        (" \n\n", ["is empty"]),
        (gzip.compress(b"", mtime=0), ["is empty"]),
        ("some words\nand more\n", ["is not FASTA", "'id' and 'sequence'", "'some words'"]),
        ("<!DOCTYPE html>\n<p>\n", ["is not FASTA"]),
        (b"PK\x03\x04\x00\x00", ["binary"]),
        (b"\x80\x04\x95K\x00.", ["line 1", "not UTF-8", "0x80"]),  # a pickle is text that cannot be read, no more
        (">P1\n".encode("utf-16"), ["not UTF-8"]),
        (b"PAR1 and no more", ["Parquet"]),
        (gzip.compress(f">P1\n{A}\n".encode(), mtime=0)[:-9], ["cut short"]),
        (gzip.compress(f">P1\n{A}\n".encode(), mtime=0)[:-8] + b"checksum", ["cannot be read", "CRC"]),
        (gzip.compress(b"", mtime=0)[:10] + b"\xff" * 40, ["cannot be read"]),
        (f">P1\n{A}\n>P\xe9\n{A}\n".encode("latin-1"), ["line 3", "not UTF-8"]),
        (f">P1\n{A}\n\n>P2\n{B}\n>P1 x\n{B}\n", ["'P1'", "twice", "line 1", "line 6"]),
        (f"id\tsequence\nP1\t{A}\n\nP1\t{B}\n", ["'P1'", "twice", "line 2", "line 4"]),
        (f">P1\n{A}\n>P2\n>P3\n{A}\n", ["line 3", "'P2'", "empty sequence"]),
        (f"id,sequence\nP1,{A}\nP2,*\n", ["line 3", "'P2'", "empty sequence"]),
        (f">P1\n{A[:4]}\n{A[4:8]}1{A}\n", ["line 1", "'P1'", "'1'", "residue 9"]),
        (f">P1\nMK*{A}\n", ["'*'", "residue 3"]),
        (f">P1\n{A}**\n", ["'*'", "residue 33"]),
        (f">P1\nJ{A}\n", ["'J'", "residue 1;"]),
        (f">P1\nM\xdf{A}\n", ["'\xdf'", "residue 2"]),  # its upper case would be two legal letters
        (f">\n{A}\n", ["line 1", "no id"]),
        (f"id\tsequence\n\t{A}\n", ["line 2", "no id"]),
        (f">P\x001\n{A}\n", ["line 1", r"'P\x001'", "unprintable"]),
        (f"id\tsequence\nP\x1b[31m\t{A}\n", ["line 2", r"\x1b", "unprintable"]),
        (f"id\tsequence\tx\nP1\t{A}\n", ["line 2", "2 fields", "the header 3"]),
        (f"id\tsequence\nP1\t{A}\tmore\n", ["line 2", "3 fields"]),
        (f'id,sequence\n"P1,{A}\n', ["line 2", "not a table row"]),
        (f"id\tsequence\tx\tx\nP1\t{A}\t\t\n", ["'x'", "twice"]),
        (f'>P1 name="no end\n{A}\n', ["line 1", "name", "closing quote"]),
        (f">P1 ec=1 ec=2\n{A}\n", ["line 1", "'ec'", "twice"]),
        ("id\tsequence\n", ["no protein"]),
        (">P1\n" + "ACGTUNacgt" * 9 + "\n>P2\n" + "GGTACC" * 9 + "\n", ["2 sequences", "DNA or RNA"]),
        (f">P1\n{A[:29]}\n>P2\nMKV\n", ["no protein is left of 2", "2 x shorter than 30"]),
    ],
)
def test_bad_files(tmp_path: Path, content: str | bytes, parts: list[str]) -> None:
    refused(write(tmp_path, content), *parts)


def test_bad_paths(tmp_path: Path) -> None:
    refused(tmp_path / "missing.fasta", "No such file")
    refused(tmp_path, "is a folder")
    refused("plmscope:proteins", "plmscope:enzymes")
    os.mkfifo(tmp_path / "pipe")
    refused(tmp_path / "pipe", "not a regular file")
    with pytest.raises(InputError, match="cannot be read"):
        read_proteins("a\x00b")


def test_bad_labels(tmp_path: Path) -> None:
    path = write(tmp_path, f"id\tsequence\tgroup\tec\nP1\t{A}\t\t1.1.1.1\nP2\t{B}\t \tkinase\n")
    refused(path, "'colour'", "'group', 'ec'", label="colour")
    refused(path, "no protein is left of 2", "2 x no value in column 'group'", label="group")
    refused(path, "line 3", "'P2'", "'kinase'", label="ec:1")
    refused(path, "'ec:5'", label="ec:5")
    refused(write(tmp_path, f">P1\n{A}\n"), "needs the column 'ec'", "no columns", label="ec:1")


def test_bad_settings(tmp_path: Path) -> None:
    path = write(tmp_path, f">P1\n{A}\n")
    for settings in ({"min_length": 0}, {"min_length": 40, "max_length": 39}, {"too_long": "cut"}):
        with pytest.raises(StudyError, match=next(iter(settings))):
            read_proteins(path, **settings)


def test_labels_are_data(tmp_path: Path) -> None:
    html, control = '<script>alert("1")</script>', "a\x00\x1b[31mb"
    path = write(tmp_path, f"id\tsequence\tgroup\nP1\t{A}\t{html}\nP2\t{B}\t{control}\n")
    assert [p.label for p in read_proteins(path, label="group")] == [html, control]


def test_tsv_quotes_are_text_and_csv_quotes_quote(tmp_path: Path) -> None:
    tsv = write(tmp_path, f'id\tsequence\tname\nP1\t{A}\t"open\nP2\t{B}\t5" end\n')
    assert [p.columns["name"] for p in read_proteins(tsv)] == ['"open', '5" end']
    quoted = write(tmp_path, f'id,name,sequence\nP1,"a, ""b""\nc",{A}\n\nP2,x,1{B}\n')
    refused(quoted, "line 5", "'P2'")  # a quoted line break and an empty line count as lines


def test_size_limits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = f">P1\n{A}\n>P2\n{B}\n".encode()
    plain, zipped = write(tmp_path, text), write(tmp_path, gzip.compress(text), "z")
    pd.DataFrame({"id": ["P1"], "sequence": [A]}).to_parquet(tmp_path / "p")
    monkeypatch.setattr(formats, "MAX_SIZE", 20)
    assert len(read_proteins(plain)) == 2
    refused(zipped, "larger than 20 bytes when decompressed")
    refused(tmp_path / "p", "larger than 20 bytes when decompressed")
    monkeypatch.setattr(formats, "MAX_LINE", 20)
    refused(plain, "line 2", "longer than 20 characters")


def test_embedded_enzymes_are_what_their_readme_says() -> None:
    found = read_proteins("plmscope:enzymes", label="ec:1")
    assert Counter(p.label for p in found) == {"1": 340, "2": 917, "3": 519, "4": 196, "5": 169, "6": 144}
    assert not found.excluded
    assert sum(p.columns["held_out"] == "1" for p in found) == 919
    assert {len(p.sequence) <= 1022 for p in found} == {True}
    readme = Path(sequences.__file__).with_name("embedded") / "README.md"
    assert "2,285" in readme.read_text()
    assert "1 (340), 2 (917)" in repr(found)


def test_objects_print_without_their_sequence() -> None:
    protein = Protein("P1", A, "1")
    assert repr(protein) == "Protein('P1', 32 residues, label='1')"
    assert hash(protein) == hash(Protein("P1", A, "1"))
    assert protein != Protein("P1", A, "1", {"ec": "1.1.1.1"})
