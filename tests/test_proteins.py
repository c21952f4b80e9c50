"""Reading proteins: what is accepted, and one clear line for everything that is not."""

import gzip
import hashlib
import os
import re
from collections import Counter
from itertools import pairwise
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import plmscope
from plmscope.data import formats
from plmscope.data.proteins import AMINO_ACIDS, Protein, read_proteins, windows
from plmscope.errors import InputError, StudyError

A = "MKVLAAGIVGLCHWYTRSDENQPFKLMACDEF"  # 32 residues
B = "MSTNPKPQRKTKRNTNRRPQDVKFPGGGQIVGG"
LONG = "MKV" * 400


def write(folder: Path, content: str | bytes, name: str = "proteins.txt") -> Path:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def refused(path: str | Path, *parts: str, data: Path | None = None, **settings: object) -> None:
    """The file, or the second table if ``data`` is given, is refused in one line that names it and has all parts."""
    if data is not None:
        settings["labels"] = str(path)
    with pytest.raises(InputError) as caught:
        read_proteins(data or path, **settings)  # type: ignore[arg-type]
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
    pd.DataFrame(
        {"id": [1, 2, 3], "sequence": [A, B, A[1:]], "fold": [4.0, None, 5.5], "t": [[1], [2, 3], []]}
    ).to_parquet(path)
    found = read_proteins(path, label="fold")
    assert [(p.id, p.label) for p in found] == [("1", "4"), ("3", "5.5")]
    assert [(e.id, e.reason) for e in found.excluded] == [("2", "no value in column 'fold'")]


def test_ec_labels_and_every_reason_for_exclusion(tmp_path: Path) -> None:
    rows = [
        ("one", A, "1.1.1.1;1.2.1.3"),
        ("two", B, "2.7.1.-"),
        ("several", A, "1.1.1.1;2.7.1.1"),
        ("none", A, " "),
        ("again", A, "1.1.1.2"),
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
        "again": "its sequence is there before",
        "partial": "EC number too partial for level 1",
        "short": "shorter than 30 residues",
        "long": "longer than 1022 residues",
        "none and long": "no value in column 'ec'",
    }
    assert len(found.proteins) + len(found.excluded) == len(rows)
    assert found.reasons["no value in column 'ec'"] == 2
    assert "2 proteins" in repr(found)
    assert "7 excluded: " in repr(found)
    # Joined numbers are no class of their own.
    refused(path, "'1.1.1.1;1.2.1.3' looks like several classes", "label = 'ec:1'", label="ec", too_long="skip")
    kept = read_proteins(path, label="ec", task="multi", too_long="skip", duplicates="keep")
    assert kept.proteins[0].label == "1.1.1.1;1.2.1.3" and len(kept) == 5
    refused(
        path, "no protein is left of 9", "2 x no value", label="ec:4", min_length=1000, max_length=1000, too_long="skip"
    )


def test_length_limits_are_inclusive(tmp_path: Path) -> None:
    path = write(tmp_path, f">a\n{A[:30]}\n>b\n{A[:29]}\n>c\n{A[:31]}\n>d\n{B[:30]}*\n")
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
        (b"PK\x03\x04\x00\x00", ["zip archive"]),
        (b"\x80\x04\x95K\x00.", ["is binary"]),  # a pickle is never opened
        (">P1\n".encode("utf-16"), ["line 1", "empty sequence"]),  # Excel's Unicode text is read
        (">P1\n".encode("utf-16") + b"M", ["not sound UTF-16"]),
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
        ("id\tsequence\n", ["no protein"]),
        (">P1\n" + "ACGTUNacgt" * 9 + "\n>P2\n" + "GGTACC" * 9 + "\n", ["2 sequences", "DNA or RNA"]),
        (f">P1\n{A[:29]}\n>P2\nMKV\n", ["no protein is left of 2", "2 x shorter than 30"]),
    ],
)
def test_bad_files(tmp_path: Path, content: str | bytes, parts: list[str]) -> None:
    refused(write(tmp_path, content), *parts)


def test_bad_paths(tmp_path: Path) -> None:
    refused(tmp_path / "missing.fasta", "No such file")
    refused(tmp_path, "is an empty folder")
    refused("plmscope:proteins", "plmscope:enzymes, plmscope:families")
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
    for wrong in ({"min_length": 0}, {"min_length": 40, "max_length": 39}, {"too_long": "cut"}, {"duplicates": "no"}):
        with pytest.raises(StudyError, match=next(iter(wrong))):
            read_proteins(path, **wrong)


def test_labels_are_data(tmp_path: Path) -> None:
    html = '<script>alert("1")</script>'
    path = write(tmp_path, f"id\tsequence\tgroup\nP1\t{A}\t{html}\nP2\t{B}\t../../etc\n")
    assert [p.label for p in read_proteins(path, label="group")] == [html, "../../etc"]
    for label, said in [
        ("a\x00b", r"the label 'a\x00b' has an unprintable character"),
        ("\x1b[31mred", r"the label '\x1b[31mred' has an unprintable"),
        ("\u202eright to left", r"the label '\u202eright to left' has an unprintable"),
        ("x" * 100_000, f"the label '{'x' * 30}...{'x' * 30}' (100,000 characters) is longer than 200"),
    ]:
        refused(write(tmp_path, f"id\tsequence\tgroup\nP1\t{A}\t{label}\n"), "line 2", "'P1'", said, label="group")


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
    readme = Path(plmscope.__file__).with_name("embedded") / "README.md"
    assert "2,285" in readme.read_text()
    assert "1 (340), 2 (917)" in repr(found)


def test_embedded_families_are_what_their_readme_says() -> None:
    found = read_proteins("plmscope:families", label="family")
    assert not found.excluded and len(found) == 1157
    readme = (
        (Path(plmscope.__file__).with_name("embedded") / "README.md").read_text().partition("# Embedded families")[2]
    )
    steps = dict(re.findall(r"^\| (.+?) \| ([\d,]+) \|$", readme, re.MULTILINE))
    numbers = {step.strip("*"): int(number.replace(",", "")) for step, number in steps.items()} | {"rows": len(found)}
    assert numbers.pop("read") == sum(numbers.values()) == 20_000
    assert f"({sum(p.columns['held_out'] == '1' for p in found)} proteins)" in readme
    for family in found.labels:
        own = [p for p in found if p.label == family]
        held = [p for p in own if p.columns["held_out"] == "1"]
        row = re.search(rf"^\| {family} \| (\d+) \| (\d+) \| (\d+) \| (\d+) \|", readme, re.MULTILINE)
        assert row and (int(row[1]), int(row[3])) == (len(own), len(held)), family
        assert int(row[2]) >= 12 and int(row[4]) >= 5, family
    assert all(30 <= len(p) <= 1022 and not set(p.sequence) - set("ACDEFGHIKLMNPQRSTVWY") for p in found)
    assert (
        len({p.sequence for p in found}) == len(found) and Counter(p.label for p in found).most_common(1)[0][1] <= 200
    )
    for column in ("name", "organism", "source"):
        assert all(p.columns[column] for p in found)
    assert not any("ragment" in p.columns["name"] or "beta subunit" in p.columns["name"] for p in found)


def test_objects_print_without_their_sequence() -> None:
    protein = Protein("P1", A, "1")
    assert repr(protein) == "Protein('P1', 32 residues, label='1')"
    assert hash(protein) == hash(Protein("P1", A, "1"))
    assert protein != Protein("P1", A, "1", {"ec": "1.1.1.1"})


# --- labels ----------------------------------------------------------------------------------------------------------


def test_labels_from_headers(tmp_path: Path) -> None:
    path = write(tmp_path, f">P1 kinase [EC=2.7.1.1]\n{A}\n>P2 other\n{B}\n")
    found = read_proteins(path, label=r"header:EC=(\d)")
    assert [(p.id, p.label) for p in found] == [("P1", "2")]
    assert [(e.id, e.reason) for e in found.excluded] == [("P2", r"its header does not match 'EC=(\\d)'")]
    for pattern, said in [("EC=(", "is not a regular expression"), ("EC", "has 0 groups"), ("(E)(C)", "has 2 groups")]:
        with pytest.raises(StudyError, match=said):
            read_proteins(path, label=f"header:{pattern}")
    refused(write(tmp_path, f"id\tsequence\nP1\t{A}\n"), "needs FASTA headers", label="header:(x)")


def test_labels_from_a_second_table(tmp_path: Path) -> None:
    path = write(tmp_path, f">P1 note=x\n{A}\n>P2\n{B}\n")
    table = write(tmp_path, "Entry\tEC number\tfold\nP2\t1.1.1.1\ta\nP9\t2.1.1.1\tb\n", "labels.tsv")
    found = read_proteins(path, label="ec:1", labels=str(table))
    assert [(p.id, p.label, p.columns["fold"]) for p in found] == [("P2", "1", "a")]
    assert found.reasons == {"no value in column 'ec'": 1} and found.unused_labels == 1
    assert "1 labels of no protein" in repr(found)
    both = [hashlib.sha256(one.read_bytes()).hexdigest() for one in (path, table)]
    assert found.sha256 == "+".join(both)
    for text, said in [
        ("id\tec\nP1\t1\nP1\t1\n", "line 3: the id 'P1' is there twice"),
        ("name\tec\nP1\t1\n", "lacks the column 'id'; its header is 'name', 'ec'"),
        ("id\tnote\nP1\t1\n", "the column 'note' is in"),
        (f">P1\n{A}\n", "is not a table"),
    ]:
        refused(write(tmp_path, text, "labels.tsv"), said, data=path, label="ec:1")
    with pytest.raises(StudyError, match="standard input is for the sequences"):
        read_proteins(path, labels="-")


def test_names_of_uniprot(tmp_path: Path) -> None:
    path = write(tmp_path, f"Entry\tEC number\tOrganism\tLength\tSequence\nP1\t1.1.1.1; 1.2.1.1\tE. coli\t32\t{A}\n")
    (protein,) = read_proteins(path, label="ec:1")
    assert (protein.id, protein.label, protein.columns["Organism"]) == ("P1", "1", "E. coli")
    (protein,) = read_proteins(path, label="Organism")
    assert protein.label == "E. coli"
    refused(path, "'EC number', 'Organism', 'Length'", label="ec")


def enzymes(label: str, header: str = ">P{i} {label}") -> str:
    """Twelve proteins of three kinds as FASTA."""
    kinds = ("1.1.1.1", "2.7.11.1", "3.4.21.4")
    return "".join(f"{header.format(i=i, label=label.format(kinds[i % 3]))}\n{A[:i]}W{A[i:]}\n" for i in range(12))


def test_every_match_of_a_pattern_counts(tmp_path: Path) -> None:
    path = write(tmp_path, enzymes("EC:{} EC:4.1.1.1"))
    found = read_proteins(path, label="header:EC:([0-9.]+)", task="multi")
    assert repr(found).endswith(
        "classes: 1.1.1.1 (4), 2.7.11.1 (4), 3.4.21.4 (4), 4.1.1.1 (12); 12 proteins with several; 0 excluded)"
    )
    refused(path, "12 x several classes in its header by 'EC:([0-9.]+)'", label="header:EC:([0-9.]+)")
    write(tmp_path, enzymes("EC:{0} EC:{0}"))
    assert read_proteins(path, label="header:EC:([0-9.]+)").labels == ("1.1.1.1", "2.7.11.1", "3.4.21.4")


def test_values_of_headers_end_where_the_next_key_starts(tmp_path: Path) -> None:
    lines = ["family=alcohol dehydrogenase", "family=alcohol dehydrogenase; kind=x", "family=alcohol oxidase kind=y",
             "kind=z family=aldehyde reductase"]  # fmt: skip
    path = write(tmp_path, "".join(f">P{i} {line}\n{A}{'W' * i}\n" for i, line in enumerate(lines)))
    found = read_proteins(path, label="family")
    assert [p.label for p in found] == [
        "alcohol dehydrogenase", "alcohol dehydrogenase", "alcohol oxidase", "aldehyde reductase",
    ]  # fmt: skip
    assert found.changes == {"labels of headers, without the mark at their end": 1}
    assert "changed: 1 x labels of headers, without the mark at their end" in repr(found)


def test_descriptions_that_nobody_asked_about_refuse_nothing(tmp_path: Path) -> None:
    path = write(tmp_path, f'>P1 name="no end\n{A}\n>P2 kind=x kind=y\n{B}\n')
    assert len(read_proteins(path)) == 2
    refused(path, "line 1", "name", "closing quote", label="name")
    found = read_proteins(path, label="kind", task="multi")
    assert [p.label for p in found] == ["x;y"]
    assert found.changes == {"headers that give a label's key several times, the values joined": 1}


def test_ec_numbers_elsewhere(tmp_path: Path) -> None:
    path = write(tmp_path, enzymes("{}"))
    found = read_proteins(path, label="ec:2", ec_column=r"header: ([0-9.]+)")
    assert found.labels == ("1.1", "2.7", "3.4") and len(found) == 12
    table = write(tmp_path, f"id\tEnzyme class\tec\tsequence\nP1\t1.1.1.1\t9\t{A}\n", "t.tsv")
    assert read_proteins(table, label="ec:1", ec_column="Enzyme class").labels == ("1",)
    refused(table, "needs the column 'EC'", "name the one with EC numbers by ec_column", label="ec:1", ec_column="EC")
    refused(table, "ec_column 'header:(x)' needs FASTA headers", label="ec:1", ec_column="header:(x)")
    with pytest.raises(StudyError, match="ec_column 'ec' is for label = 'ec:1' to 'ec:4', not for 'kind'"):
        read_proteins(table, label="kind", ec_column="ec")
    # A cell that says that there is none, as pandas and R write it, is none.
    write(tmp_path, f"id\tec\tsequence\nP1\tNA\t{A}\nP2\t1.1.1.1\t{B}\n", "t.tsv")
    assert read_proteins(table, label="ec:1").reasons == {"'NA' in column 'ec'": 1}


def rows_of(values: list[str]) -> str:
    """A table with one column of values."""
    return "id\tx\tsequence\n" + "".join(f"P{i}\t{v}\t{A}{'W' * i}\n" for i, v in enumerate(values))


def test_numbers_are_classes_only_where_they_recur(tmp_path: Path) -> None:
    for values in ([f"{1.37 * i + 0.11}" for i in range(12)], [f"{i}e-3" for i in range(12)], [*"0123456789"],
                   ["31.5", "2.5", "3.5", "3.5"]):  # fmt: skip
        path = write(tmp_path, rows_of(values))
        refused(path, "label 'x': ", "different numbers", "a measurement, not classes", "by label", label="x")
    for values in (["0", "1"] * 5, [*"1234567"], [*"01234567890123456789"], ["1.1", "2.7", "1.1", "2.7"], ["a", "1"]):
        assert read_proteins(write(tmp_path, rows_of(values)), label="x").labels == tuple(sorted(set(values)))


def test_classes_joined_by_another_mark(tmp_path: Path) -> None:
    path = write(tmp_path, rows_of(["Nucleus", "Cytoplasm", "Nucleus|Cytoplasm", "Nucleus | Golgi"]))
    refused(path, "'Nucleus | Golgi' looks like several", "set separator = '|'", label="x", task="multi")
    found = read_proteins(path, label="x", task="multi", separator="|")
    assert [p.label for p in found] == ["Nucleus", "Cytoplasm", "Cytoplasm;Nucleus", "Golgi;Nucleus"]
    path = write(tmp_path, rows_of(["Cell wall, outer", "Golgi", "Nucleus"]))  # a name with a comma
    assert "Cell wall, outer" in read_proteins(path, label="x", task="multi").labels
    path = write(tmp_path, rows_of(["a", "b", "a;b"]))
    refused(path, "'a;b' looks like several classes", 'use task = "multi"', label="x")
    with pytest.raises(StudyError, match="separator ' ': has to be a mark"):
        read_proteins(path, separator=" ")


def test_two_files_whose_ids_do_not_match(tmp_path: Path) -> None:
    path = write(tmp_path, enzymes("x"))
    table = "id,kind\n" + "".join(f"sp|P{i}|N{i}_ECOLI,a\n" for i in range(12))
    refused(
        write(tmp_path, table, "l.csv"), "none of its 12 ids is of a protein of", "'sp|P0|N0_ECOLI'",
        "the first protein 'P0'", data=path, label="kind",
    )  # fmt: skip
    for text in ("Q00000\ta\nQ00001\tb\n", "Q00000\tQ00000\nQ00000\tQ00001\n"):
        refused(write(tmp_path, text, "l.csv"), "has no header row (its first line is 'Q00000'", data=path, label="x")
    refused(write(tmp_path, "name\tx\na\tb\n", "l.csv"), "name it by id_column", data=path, label="x")


def test_changes_of_letters_are_counted(tmp_path: Path) -> None:
    path = write(tmp_path, f">P1\n{A}*\n>P2\n{B[:9].lower()}{B[9:]}\n>P3\n{B}A\n")
    found = read_proteins(path)
    assert found.changes == {
        "sequences without their final '*'": 1, "sequences with lower-case letters, read as upper case": 1,
    }  # fmt: skip
    refused(write(tmp_path, f">P1\n{A}*{B}\n"), "'*' at residue 33; a stop codon inside it", "translation")


# --- filters ---------------------------------------------------------------------------------------------------------


def variants(n: int) -> list[str]:
    return [A[:k] + "W" + A[k:] for k in range(n)]


def test_filters_by_class_are_counted(tmp_path: Path) -> None:
    rows = [f"P{i}\t{s}\t{group}\n" for i, (s, group) in enumerate(zip(variants(7), "aaabbc ", strict=True))]
    path = write(tmp_path, "id\tsequence\tgroup\n" + "".join(rows))
    found = read_proteins(path, label="group", classes=["a", "c"])
    assert found.labels == ("a", "c")
    assert found.reasons == {"a class that is not among data.classes": 2, "no value in column 'group'": 1}
    found = read_proteins(path, label="group", min_per_class=3)
    assert found.labels == ("a",) and found.reasons["a class with fewer than 3 proteins"] == 3
    assert [e.id for e in found.excluded] == ["P3", "P4", "P5", "P6"]  # file order
    refused(path, "data.classes has 'd'", label="group", classes=["a", "d"])
    refused(path, "no protein is left of 7", "6 x a class with fewer than 9 proteins", label="group", min_per_class=9)


def test_filters_of_a_multi_label_task(tmp_path: Path) -> None:
    groups = ["a", "a;b", "a", "b", "b;c", "c", "a"]
    rows = [f"P{i}\t{s}\t{group}\n" for i, (s, group) in enumerate(zip(variants(7), groups, strict=True))]
    path = write(tmp_path, "id\tsequence\tgroup\n" + "".join(rows))
    # c has two; without its proteins b has two as well
    found = read_proteins(path, label="group", task="multi", min_per_class=3)
    assert [p.id for p in found] == ["P0", "P2", "P6"]
    found = read_proteins(path, label="group", task="multi", classes=["a", "b"])
    assert [p.id for p in found] == ["P0", "P1", "P2", "P3", "P6"]


def test_equal_sequences(tmp_path: Path) -> None:
    path = write(tmp_path, f"id\tsequence\tgroup\nP1\t{A}\ta\nP2\t{A.lower()}\ta\nP3\t{B}\tb\nP4\t{A}\ta\n")
    found = read_proteins(path, label="group")
    assert [p.id for p in found] == ["P1", "P3"]
    assert [(e.id, e.reason) for e in found.excluded] == [
        (name, "its sequence is there before") for name in ("P2", "P4")
    ]
    assert len(read_proteins(path, label="group", duplicates="keep")) == 4
    refused(path, "line 3: protein 'P2' has the sequence of 'P1' (line 2); 2 in all", label="group", duplicates="error")
    path.write_text(path.read_text() + f"P5\t{B}\tc\n")
    for rule in ("first", "error"):
        refused(
            path, "line 6: protein 'P5' has the sequence of 'P3' (line 4), but another label ('c', 'b'); 1 in all",
            label="group", duplicates=rule,
        )  # fmt: skip
    assert len(read_proteins(path, label="group", duplicates="keep")) == 5
    assert len(read_proteins(path)) == 2  # without labels there is no conflict


# --- windows ---------------------------------------------------------------------------------------------------------


@given(st.integers(1, 400), st.integers(1, 60), st.data())
@settings(max_examples=60, deadline=None)
def test_windows_cover_a_protein(length: int, size: int, data: st.DataObject) -> None:
    overlap = data.draw(st.integers(0, size - 1))
    found = windows(length, size, overlap)
    assert found[0][0] == 0 and found[-1][1] == length
    assert {end - start for start, end in found} == {min(size, length)}
    assert all(b - a == size - overlap for (a, _), (b, _) in pairwise(found[:-1]))
    assert all(0 < b - a <= size - overlap for (a, _), (b, _) in pairwise(found))


def test_long_proteins_as_windows(tmp_path: Path) -> None:
    titin = "".join(AMINO_ACIDS[(i * i + i // 7) % 20] for i in range(10_000))
    path = write(tmp_path, f">P1 ec=1.1.1.1\n{titin}\n>P2 ec=2.1.1.1\n{A}\n>P3 ec=1.1.1.1\nMKV\n")
    found = read_proteins(path, label="ec:1", too_long="windows", window_overlap=22)
    first, *_, last, whole = found
    assert (first.id, last.id, whole.id) == ("P1/1-1022", "P1/8979-10000", "P2")
    assert (len(found), found.windowed, found.n_read, whole.parent) == (11, 1, 3, "")
    for window in found.proteins[:-1]:
        assert (window.parent, window.label, window.columns) == ("P1", "1", {"ec": "1.1.1.1"})
        assert titin[window.start :].startswith(window.sequence) and len(window) == 1022
        assert window.id == f"P1/{window.start + 1}-{window.start + 1022}"
    assert "1 long ones in 10 windows" in repr(found)
    with pytest.raises(StudyError, match="window_overlap 1022 has to be from 0 to below max_length = 1022"):
        read_proteins(path, too_long="windows", window_overlap=1022)
    path.write_text(path.read_text() + f">P1/1-1022\n{B}\n")
    refused(path, "line 7: the id 'P1/1-1022' is that of a window", too_long="windows", window_overlap=22)
