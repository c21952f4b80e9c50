"""File formats: every compression, header and table gives the same proteins; what is damaged is one line."""

import bz2
import gzip
import io
import lzma
import re
import sys
import tempfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from plmscope.data import formats
from plmscope.data.annotations import read_features
from plmscope.data.checks import KNOWN_LETTERS
from plmscope.data.formats import open_content
from plmscope.data.proteins import read_proteins
from plmscope.data.rows import ProteinRow, protein_rows
from plmscope.errors import InputError

A = "MKVLAAGIVGLCHWYTRSDENQPFKLMACDEF"  # 32 residues
B = "MSTNPKPQRKTKRNTNRRPQDVKFPGGGQIVGG"
FASTA = f">P1\n{A}\n>P2\n{B}\n".encode()


def zstd(data: bytes) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "zstd") as stream:
        stream.write(data)
    return sink.getvalue().to_pybytes()


COMPRESS = {"gz": gzip.compress, "bz2": bz2.compress, "xz": lzma.compress, "zst": zstd}


def rows(folder: Path, text: str | bytes, **columns: str) -> list[ProteinRow]:
    path = folder / "f"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return list(protein_rows(open_content(path, "f"), **columns))


def flat(accession: str = "P1", sequence: str = A, features: str = "", ec: str = "EC=1.1.1.1") -> str:
    """A small entry as Swiss-Prot writes it."""
    lines = [sequence[i : i + 10] for i in range(0, len(sequence), 10)]
    return (
        f"ID   NAME_ECOLI              Reviewed;         {len(sequence)} AA.\n"
        f"AC   {accession}; Q0;\n"
        "DT   01-JAN-1990, integrated into UniProtKB/Swiss-Prot.\n"
        "DE   RecName: Full=Alcohol dehydrogenase;\n"
        f"DE            {ec} {{ECO:0000269|PubMed:1}};\n"
        "DE   Contains:\n"
        "DE     RecName: Full=Other;\n"
        "DE              EC=2.7.1.-;\n"
        "OS   Escherichia coli.\n"
        "OX   NCBI_TaxID=562;\n"
        + features
        + f"SQ   SEQUENCE   {len(sequence)} AA;  3000 MW;  0123456789ABCDEF CRC64;\n"
        f"     {' '.join(lines)}\n"
        "//\n"
    )


@pytest.mark.parametrize("kind", sorted(COMPRESS))
def test_compressed_files_are_read_and_cut_ones_refused(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "any.name"
    path.write_bytes(COMPRESS[kind](FASTA))
    assert [(p.id, p.sequence) for p in read_proteins(path)] == [("P1", A), ("P2", B)]
    path.write_bytes(COMPRESS[kind](FASTA)[:-9])
    with pytest.raises(InputError, match=r"cut short; copy or download it again|cannot be read"):
        read_proteins(path)


def test_several_members_are_one_file(tmp_path: Path) -> None:
    for compress in COMPRESS.values():
        path = tmp_path / "two"
        path.write_bytes(compress(FASTA[:20]) + compress(FASTA[20:]))
        assert [p.id for p in read_proteins(path)] == ["P1", "P2"]


@pytest.mark.parametrize("kind", sorted(COMPRESS))
def test_a_file_that_grows_without_bound_is_refused(tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(formats, "EXPANSION_FROM", 10**6)
    path = tmp_path / "bomb"
    path.write_bytes(COMPRESS[kind](b">P1\n" + (b"A" * 79 + b"\n") * 30_000))
    assert path.stat().st_size < 10**4
    with pytest.raises(InputError, match=r"larger than [\d,]+ bytes when decompressed; split it"):
        read_proteins(path, max_length=10**7)


def test_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    def give(data: bytes) -> None:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))

    give(gzip.compress(FASTA))
    found = read_proteins("-")
    assert [p.id for p in found] == ["P1", "P2"] and found.source == "standard input"
    give(b">P1\nMK1\n")
    with pytest.raises(InputError, match=r"^standard input: line 1: protein 'P1' has '1'"):
        read_proteins("-")
    give(b"")
    with pytest.raises(InputError, match=r"^standard input: is empty"):
        read_proteins("-")
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True)
    with pytest.raises(InputError, match=r"^standard input: is a terminal; pipe a file"):
        read_proteins("-")


@pytest.mark.parametrize(
    ("header", "name", "columns"),
    [
        (
            "sp|P12345|AATM_RABIT Aspartate aminotransferase, mitochondrial ec=2.6.1.1 "
            "OS=Oryctolagus cuniculus OX=9986 GN=GOT2 PE=1 SV=2",
            "P12345",
            {"entry_name": "AATM_RABIT", "OS": "Oryctolagus cuniculus", "OX": "9986", "GN": "GOT2", "PE": "1",
             "SV": "2", "ec": "2.6.1.1"},
        ),
        ("tr|A0A0-2|X Isoform 2 of y OS=Z (strain a=b)", "A0A0-2", {"entry_name": "X", "OS": "Z (strain a=b)"}),
        ("gi|15674171|ref|NP_268346.1| 30S protein S18 [Lactococcus lactis]", "NP_268346.1",
         {"gi": "15674171", "organism": "Lactococcus lactis"}),
        ("NP_1.1 a [Homo sapiens]\x01XP_2.1 b [Pan]", "NP_1.1", {"organism": "Homo sapiens", "also": "XP_2.1"}),
        ("gb|AAA1.1|LOCUS words", "AAA1.1", {}),
        ("sp|P1|N d OS=Z GN=q PE=1 SV=2 ec=1.1.1.1 kind=x", "P1",
         {"entry_name": "N", "OS": "Z", "GN": "q", "PE": "1", "SV": "2", "ec": "1.1.1.1", "kind": "x"}),
        ("lcl|NC_1.1_prot_NP_1.1_1 [gene=a] [EC_number=1.1.1.1] [EC_number=2.1.1.1] [protein=b c=d]",
         "NC_1.1_prot_NP_1.1_1", {"gene": "a", "EC_number": "1.1.1.1;2.1.1.1", "protein": "b c=d"}),
        ("pdb|1ABC|A Chain A", "1ABC_A", {}),
        ("sp|broken no second bar", "sp|broken", {}),
        ('P1 name="two words" organism=x [Homo]', "P1", {"name": "two words", "organism": "x"}),
    ],
)  # fmt: skip
def test_headers(tmp_path: Path, header: str, name: str, columns: dict[str, str]) -> None:
    (row,) = rows(tmp_path, f">{header}\n{A}\n")
    assert (row.id, row.columns, row.header) == (name, columns, header)


def test_named_columns_and_those_of_uniprot(tmp_path: Path) -> None:
    (row,) = rows(tmp_path, f"Entry\tEC number\tLength\tSequence\nP1\t1.1.1.1\t32\t{A}\n")
    assert row == ("line 2", "P1", A, {"EC number": "1.1.1.1", "Length": "32"}, "", {}, {})
    (row,) = rows(tmp_path, f"gene,protein,id\nx,{A},y\n", id_column="gene", sequence_column="protein")
    assert row[1:4] == ("x", A, {"id": "y"})
    with pytest.raises(InputError, match="lacks the column 'gene' and 'sequence'; its header is 'id', 'peptide'"):
        rows(tmp_path, f"id,peptide\nx,{A}\n", id_column="gene")
    with pytest.raises(InputError, match="line 2: protein 'P1' has 31 residues where 'Length' says '32'"):
        rows(tmp_path, f"Entry\tLength\tSequence\nP1\t32\t{A[1:]}\n")


def test_parquet_values_become_text(tmp_path: Path) -> None:
    none = None if int(pa.__version__.split(".")[0]) >= 26 else [None, None]  # a missing pair is read by pyarrow 26
    columns = {
        "id": list("abcd"), "sequence": [A] * 4, "kinds": [["x", "y"], ["x"], [], None],
        "pair": pa.array([["x", None], none, ["y", "z"], ["x", "x"]], pa.list_(pa.string(), 2)),
        "number": pa.array([1.5, float("nan"), None, 2.0]), "level": pa.array(["k"] * 4).dictionary_encode(),
    }  # fmt: skip
    pq.write_table(pa.table(columns), tmp_path / "f")
    found = [row.columns for row in protein_rows(open_content(tmp_path / "f", "f"))]
    assert [list(row.values()) for row in found] == [
        ["x;y", "x", "1.5", "k"], ["x", "", "", "k"], ["", "y;z", "", "k"], ["", "x;x", "2", "k"],
    ]  # fmt: skip


def test_long_fields_and_marks_of_byte_order(tmp_path: Path) -> None:
    (row,) = rows(tmp_path, "\ufeffid,sequence\na," + "M" * 500_000 + "\n")
    assert (row.id, len(row.sequence)) == ("a", 500_000)


def test_a_class_that_may_be_a_missing_value_is_told(tmp_path: Path) -> None:
    (tmp_path / "f").write_text(f"id,kind,sequence\na,NA,{A}\nb,x,{B}\n")
    found = read_proteins(tmp_path / "f", label="kind")
    assert found.labels == ("NA", "x")
    assert "; 'NA' counted as a class: leave the cell empty if it is none; 0 excluded" in repr(found)
    (tmp_path / "f").write_text(f">a\n{A}\n>b x\n{B}\n>c y\n{A[::-1]}\n")
    found = read_proteins(tmp_path / "f", label="header:^. ?(x)?")
    assert found.reasons == {"its header gives an empty class by '^. ?(x)?'": 2}


def test_flat_files(tmp_path: Path) -> None:
    first, second = rows(tmp_path, flat() + flat("P2", B, ec="EC=3.1.-.-"))
    assert (first.place, first.id, first.sequence) == ("line 1", "P1", A)
    assert first.columns == {
        "entry_name": "NAME_ECOLI", "ec": "1.1.1.1;2.7.1.-", "organism": "Escherichia coli", "taxonomy_id": "562",
        "reviewed": "1",
    }  # fmt: skip
    assert (second.place, second.id, second.columns["ec"]) == ("line 14", "P2", "3.1.-.-;2.7.1.-")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (flat() + flat()[:200], "line 14: the last entry is cut short"),
        (flat().replace("32 AA;", "33 AA;"), "line 1: is not a sound Swiss-Prot entry (32 residues where its SQ"),
        (flat().replace("AC   P1; Q0;\n", ""), "it has no AC line"),
        (flat().replace("OX   ", "O?   "), "not a sound Swiss-Prot entry"),
        ("##gff-version 3\nP1\tx\n", "is GFF3 without sequences"),
        (">P1\n" + "A" * 3_000_000 + "\n", "line 1: the entry is longer than 2,097,152 characters; is this a genome"),
        (b"\x00\x01\x02", "is binary"),
        ('""', "has no header"),
    ],
)
def test_damage_is_one_line(tmp_path: Path, text: str | bytes, message: str) -> None:
    with pytest.raises(InputError) as caught:
        rows(tmp_path, text)
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_gff_may_carry_sequences(tmp_path: Path) -> None:
    (row,) = rows(tmp_path, f"##gff-version 3\nP1\tx\tActive site\t1\t1\t.\t.\t.\t\n##FASTA\n>P1\n{A}\n")
    assert row[:3] == ("line 4", "P1", A)


# --- whatever bytes --------------------------------------------------------------------------------------------------

PIECES = st.sampled_from(
    [b">P1 ec=1.1.1.1\n", b">sp|P2|N OS=x\n", b"id\tsequence\n", b"id,sequence\n", b"MKV\n", b"P1\tMKV\n", b'"',
     b"\x00", b"\xff", b"\n", b"\r", b"\t", b",", b"ID   X  Reviewed;  3 AA.\n", b"AC   P1;\n",
     b"SQ   SEQUENCE   3 AA;\n", b"//\n",
     b"##gff-version 3\n", b"##FASTA\n", b"PAR1", b"\x1f\x8b\x08", b"BZh9", b"\x28\xb5\x2f\xfd", b"\xfd7zXZ\x00"]
)  # fmt: skip


@given(st.one_of(st.binary(max_size=60), st.lists(PIECES, max_size=8).map(b"".join)))
@settings(max_examples=150, deadline=None)
def test_any_bytes_are_proteins_or_one_line(data: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "f"
        path.write_bytes(data)
        for read in (lambda: read_proteins(path, label="ec:1", min_length=1), lambda: read_features(path)):
            said = ""
            try:
                found = read()
            except InputError as error:
                said = str(error)
            assert said.count("\n") == 0 and (said or len(found) or found.excluded)


@given(
    st.lists(
        st.tuples(
            st.text("AZaz09.-_|", min_size=1, max_size=9),
            st.text(KNOWN_LETTERS, min_size=30, max_size=60).map("MKV".__add__),  # or else all might be DNA
        ),
        min_size=1, max_size=5, unique_by=(lambda one: one[0], lambda one: one[1]),
    )
)  # fmt: skip
@settings(max_examples=40, deadline=None)
def test_what_is_written_is_read(proteins: list[tuple[str, str]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "f"
        path.write_text("id\tsequence\n" + "".join(f"{name}\t{sequence}\n" for name, sequence in proteins))
        found = read_proteins(path)
        assert [(p.id, p.sequence) for p in found] == proteins


# --- as programs write them ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "what"),
    [
        ('{\n "results": [\n', "is JSON, but not one flat object a protein; write it as JSON lines, TSV, CSV or Par"),
        ('["a"]\n', "is JSON"),
        ("LOCUS       NP_1   60 aa\nORIGIN\n", "is a GenBank file; export its proteins as FASTA"),
        ("ID   X1; SV 1; linear; mRNA; STD; HUM; 60 BP.\n", "is an EMBL file"),
        ("@read1\nACGT\n+\nIIII\n", "is FASTQ"),
        ("@HD\tVN:1.6\n", "is SAM"),
        ("CLUSTAL W (1.83)\n\na MKV\n", "is a Clustal alignment"),
        ("HEADER    HYDROLASE\n", "is a PDB structure"),
        ("data_1ABC\n#\n", "is an mmCIF structure"),
        ("<!DOCTYPE html>\n", "is not FASTA but a web page"),
        ("version https://git-lfs.github.com/spec/v1\n", "is a Git LFS pointer, not the file itself"),
        (b"x.tsv".ljust(257, b"\0") + b"ustar\0" + b"00".ljust(249, b"\0"), "is a tar archive; unpack it"),
    ],
)
def test_files_that_are_not_read_are_called_by_name(tmp_path: Path, content: str | bytes, what: str) -> None:
    with pytest.raises(InputError, match=f"^f: {re.escape(what)}"):
        rows(tmp_path, content)


def counted(folder: Path, text: str | bytes) -> tuple[list[tuple[str, str, dict[str, str]]], dict[str, int]]:
    """Id, sequence and columns of every row, and what was changed."""
    path = folder / "f"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    content = open_content(path, "f")
    found = [(row.id, row.sequence, row.columns) for row in protein_rows(content)]
    return found, {what: number for what, number in content.changes.items() if number}


def test_tables_as_programs_write_them(tmp_path: Path) -> None:
    plain = [("P1", A, {"ec": "1.1.1.1"}), ("P2", A, {"ec": ""})]
    lines = [("id", "ec", "sequence"), ("P1", "1.1.1.1", A), ("P2", "", A)]
    for mark in "\t,;|":
        text = "".join(mark.join(line) + "\n" for line in lines)
        assert counted(tmp_path, text) == (plain, {})
        quoted = "".join(mark.join(f'"{field}"' for field in line) + "\n" for line in lines)  # R, spreadsheets
        assert counted(tmp_path, quoted) == (plain, {})
    for code in ("utf-16", "utf-8-sig"):  # Excel
        assert counted(tmp_path, text.encode(code)) == (plain, {})
    assert counted(tmp_path, "sep=;\n" + ";".join(lines[0]) + "\n" + ";".join(lines[1]) + "\n") == (plain[:1], {})
    # Empty rows at the end of a sheet.
    text = "".join(",".join(line) + "\n" for line in lines) + ",,\n,,\n"
    assert counted(tmp_path, text) == (plain, {"empty rows, left out": 2})
    # R's names of rows, which have no name themselves.
    text = '"id"\t"sequence"\n' + f'"1"\t"P1"\t"{A}"\n'
    assert counted(tmp_path, text) == ([("P1", A, {"": "1"})], {})
    # A quote within a field of UniProt's is text; a field that pandas quoted is not.
    text = f'id\tnote\tsequence\nP1\t5" end\t{A}\nP2\t"a ""b"""\t{A}\n'
    assert [columns["note"] for _, _, columns in counted(tmp_path, text)[0]] == ['5" end', 'a "b"']
    text = f"# made by x\n# on a day\nid,sequence\nP1,{A}\n"
    assert counted(tmp_path, text) == ([("P1", A, {})], {"comment lines before the header, left out": 2})
    assert counted(tmp_path, f"#id\tsequence\nP1\t{A}\n")[0] == [("P1", A, {})]


def test_rows_without_ids_are_numbered(tmp_path: Path) -> None:
    found, changes = counted(tmp_path, f"sequence,target\n{A},1\n{A[1:]},0\n")
    assert [name for name, _, _ in found] == ["row1", "row2"]
    assert changes == {"rows numbered, as no column holds ids (a study names one by id_column)": 2}
    with pytest.raises(InputError, match=r"has no header row \(its first line is 'P12345', '1\.1\.1\.1'\); add one"):
        rows(tmp_path, f"P12345,1.1.1.1\nP12346,{A}\n")
    found, changes = counted(tmp_path, f"id,sequence\nP1,{' '.join(A)}\n")  # ProtTrans
    assert found == [("P1", A, {})] and changes == {"sequences with blanks, which were taken out": 1}


def test_alignments_and_numbered_sequences(tmp_path: Path) -> None:
    a3m = f"#32\t1\n>a\n{A[:10]}--{A[12:]}\n>b\n{A[:10]}--{A[12:20]}{A[20:23].lower()}{A[20:]}\n"
    found, changes = counted(tmp_path, a3m)
    assert [sequence.upper() for _, sequence, _ in found] == [A[:10] + A[12:], A[:10] + A[12:20] + A[20:23] + A[20:]]
    assert changes == {"comment lines, left out": 1, "aligned proteins, whose gaps were taken out": 2}
    stockholm = f"# STOCKHOLM 1.0\n#=GS a DE kinase\na {A[:10]}..{A[10:20]}\nb {A[:20]}..\n\na {A[20:]}\nb {A[20:]}\n"
    with pytest.raises(InputError, match="the alignment is cut short"):
        rows(tmp_path, stockholm)
    found, changes = counted(tmp_path, stockholm + "//\n")
    assert found == [("a", A, {"DE": "kinase"}), ("b", A, {})]
    assert changes == {"aligned proteins, whose gaps were taken out": 2}
    # Gaps in sequences that are not aligned are an error still.
    assert counted(tmp_path, f">a\n{A[:10]}--{A}\n>b\n{A}\n")[0][0][1] == f"{A[:10]}--{A}"
    for text in (f">a\n  1 {A[:10]} {A[10:20]}\n 21 {A[20:]}\n", f">a\n{A[:20]} 20\n{A[20:]} {len(A)}\n"):
        found, changes = counted(tmp_path, text)
        assert found == [("a", A, {})] and changes == {"sequences with line numbers, which were taken out": 1}
    found, changes = counted(tmp_path, f"; a comment\n>a\n{A}\n")
    assert found == [("a", A, {})] and changes == {"comment lines, left out": 1}


def test_marks_below_a_sequence_are_not_read_as_residues(tmp_path: Path) -> None:
    """SignalP's and TMHMM's training files: header, sequence, and one letter a residue, all of them amino acids."""
    one, two = "MKVLAAGIVGLCHWYTRSDENQPFKLMACDEF", "MSTNPKPQRKTKRNTNRRPQDVKFPGGGQIVGG"
    signal = f">P1|EUKARYA|NO_SP|1\n{one}\n{'I' * 32}\n>P2|EUKARYA|SP|2\n{two}\n{'S' * 20 + 'O' * 13}\n"
    with pytest.raises(InputError, match=r"followed by as many letters of I, O, S, one a residue, .* first two lines"):
        rows(tmp_path, signal)
    folded = f">P1\n{one}\n{one[::-1]}\n>P2\n{two}\n{two[::-1]}\n"  # two lines of a sequence as long as each other
    assert [len(row.sequence) for row in rows(tmp_path, folded)] == [64, 66]
    assert len(rows(tmp_path, ">P1\nGSGSGSGGSG\nGSGGSGSGSG\n")) == 1  # as few letters above
    ragged = f">P1\n{one}\n{'A' * 32}\n>P2\n{two}\nAAA\n"
    assert [len(row.sequence) for row in rows(tmp_path, ragged)] == [64, 36]
