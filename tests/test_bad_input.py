"""More mistakes with their lines: files of every format, residue features, and what can go wrong with UniProt."""

import bz2
import contextlib
import fcntl
import gzip
import io
import lzma
import sys
from collections.abc import Callable

import pandas as pd
import pytest

from plmscope.data import formats
from plmscope.data.fetch import fetch
from plmscope.errors import InputError
from tests.test_cli import LEFT, Bench, Case, check, content, nothing, setting, table
from tests.test_cli import bench as bench
from tests.test_cli import model_folder as model_folder
from tests.test_fetch import Service, hang_up, status
from tests.test_formats import flat, zstd


def data(change: Callable[[bytes], bytes]) -> Callable[[Bench], object]:
    """Replace the sequence file by its bytes in another form."""
    return lambda bench: bench.data.write_bytes(change(table().encode()))


def parquet(change: Callable[[bytes], bytes] = bytes, **columns: str) -> Callable[[Bench], object]:
    """Replace the sequence file by a Parquet file with renamed columns, its bytes changed."""

    def spoil(bench: Bench) -> None:
        pd.read_csv(bench.data, sep="\t").rename(columns=columns).to_parquet(bench.data)
        bench.data.write_bytes(change(bench.data.read_bytes()))

    return spoil


def stdin(sent: bytes) -> Callable[[Bench], object]:
    """Read the sequences from a pipe."""

    def spoil(bench: Bench) -> None:
        assert bench.patch is not None
        bench.study.write_text(bench.study.read_text().replace(f'"{bench.data}"', '"-"'))
        bench.patch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(sent)))

    return spoil


def swelling(bench: Bench) -> None:
    """A small file that unpacks to a large one; the bound is lowered, so that the test need not unpack gigabytes."""
    assert bench.patch is not None
    bench.patch.setattr(formats, "EXPANSION_FROM", 10**6)
    bench.data.write_bytes(gzip.compress(b">p\n" + (b"A" * 79 + b"\n") * 20_000))


def long_notes(bench: Bench) -> None:
    """A Parquet file whose rows share one text, with a lower bound as above."""
    assert bench.patch is not None
    bench.patch.setattr(formats, "EXPANSION_FROM", 10**6)
    pd.read_csv(bench.data, sep="\t").assign(note="x" * 10**5).to_parquet(bench.data)


def second(text: str, more: str = "") -> Callable[[Bench], object]:
    """A second table with the labels, and more settings."""

    def spoil(bench: Bench) -> None:
        bench.data.with_name("l").write_text(text)
        bench.write_study(data=f'labels = "{bench.data.with_name("l")}"\n{more}')

    return spoil


def features(text: str | None) -> Callable[[Bench], object]:
    """A file of residue features beside the sequences; None: it is missing."""

    def spoil(bench: Bench) -> None:
        path = bench.folder / "f"
        bench.write_study(characterize=f'features = "{path}"')
        if text is not None:
            path.write_text(text)

    return spoil


def service(*steps: Callable[[Service], object]) -> Callable[[Bench], object]:
    """Start a UniProt of the loopback with five proteins in pages of two; between two steps there is a first try."""

    def spoil(bench: Bench) -> None:
        assert bench.patch is not None
        bench.patch.setattr("plmscope.data.fetch.PAGE_SIZE", 2)
        running = Service()
        bench.closing += [running.server.shutdown, running.server.server_close]
        bench.url = running.url
        for number, step in enumerate(steps):
            if number:
                with contextlib.suppress(InputError):
                    fetch(bench.folder / "e.tsv", endpoint=running.url, tries=1)
            step(running)

    return spoil


def trouble(number: int, answer: Callable[..., bool]) -> Callable[[Service], object]:
    """Answer one request in its own way."""
    return lambda service: service.trouble.update({number: answer})


def occupied(bench: Bench) -> None:
    """Another process fetches to the same file."""
    handle = (bench.folder / ".e.tsv.lock").open("w")
    fcntl.flock(handle, fcntl.LOCK_EX)
    bench.closing.append(handle.close)


def truncated(service: Service) -> None:
    """The second page lacks its last bytes."""
    service.trouble[2] = lambda handler: service.answer(handler, {"cursor": "c2"}, cut=12)


def repeated(service: Service) -> None:
    """The second page is the first again."""
    service.trouble[2] = lambda handler: service.answer(handler, {"cursor": "c0"})


FETCH = ("fetch", "--out", "{folder}/e.tsv", "--endpoint", "{url}", "--tries", "1")
HEADERS = {"X_Total_Results": "5", "X_UniProt_Release": "2026_03"}
PARTS = ("e.tsv.part", "e.tsv.features.part", "e.tsv.state.json")
FEATURES = "id\ttype\tstart\tend\tletters\np0\tACT_SITE\t3\t3\tT\n"
GFF = "##gff-version 3\n"

CASES = [
    # --- formats
    Case(
        "a Parquet file is cut in half",
        parquet(lambda whole: whole[: len(whole) // 2]),
        "{data}: is not a sound Parquet file (...); write it again",
    ),
    Case(
        "a Parquet file lacks the sequences",
        parquet(sequence="peptide"),
        "{data}: is not FASTA (no '>' at its start), and as a table it lacks the column 'sequence'; its header is "
        "'id', 'ec', 'peptide'; name it by sequence_column",
    ),
    Case(
        "a Parquet column holds structs",
        lambda b: pd.DataFrame({"id": ["p"], "sequence": [LEFT], "ec": [{"level": 1}]}).to_parquet(b.data),
        "{data}: the column 'ec' holds struct<level: int64>; write it as text, lists joined by ';', or drop it",
    ),
    Case(
        "a short Parquet file holds a long text in every row",
        long_notes,
        "{data}: is larger than 1,000,000 bytes when decompressed; split it",
    ),
    Case(
        "an xz file is cut short",
        data(lambda text: lzma.compress(text)[:-9]),
        "{data}: the compressed file is cut short; copy or download it again",
    ),
    Case(
        "a zstd file is cut short",
        data(lambda text: zstd(text)[:-9]),
        "{data}: the compressed file is cut short; copy or download it again",
    ),
    Case(
        "a bzip2 file is cut short",
        data(lambda text: bz2.compress(text)[:-9]),
        "{data}: the compressed file is cut short; copy or download it again",
    ),
    Case(
        "a gzip file unpacks to a thousand times its size",
        swelling,
        "{data}: is larger than 1,000,000 bytes when decompressed; split it",
    ),
    Case(
        "the file is not UTF-8",
        data(lambda text: text + "q\t1\tMÜ".encode("latin-1")),
        "{data}: line 32 is not UTF-8 text (byte 0xdc); save it as UTF-8",
    ),
    Case(
        "a column is there twice",
        content(f"id,ec,ec,sequence\np,1,1,{LEFT}\n"),
        "{data}: the column 'ec' is there twice; rename one",
    ),
    Case(
        "a quote is never closed",
        content(f'id,ec,sequence\n"p,1,{LEFT}\n'),
        "{data}: line 2 is not a table row (...); correct it",
    ),
    Case(
        "a header has a quote that is never closed",
        content(f'>p ec="1.1.1.1\n{LEFT}\n'),
        "{data}: line 1: protein 'p': ec='\"1.1.1.1' in the header has no closing quote; add it",
    ),
    Case(
        "a header gives two classes",
        content(f">p ec=1.1.1.1 ec=2.1.1.1\n{LEFT}\n"),
        "{data}: no protein is left of 1 (1 x several classes at EC level 1); change these settings or the file",
    ),
    Case(
        "an entry has no id", content(f">\n{LEFT}\n"), "{data}: line 1: the protein has no id; give every protein one"
    ),
    Case(
        "a GFF file has no sequences",
        content(GFF + "p\tx\tSite\t1\t1\t.\t.\t.\t\n"),
        "{data}: is GFF3 without sequences (no ##FASTA); give the sequences as FASTA or a table",
    ),
    Case(
        "a Swiss-Prot file is cut short",
        content(flat() + flat("P2")[:300]),
        "{data}: line 14: the last entry is cut short (no '//'); download it again",
    ),
    Case(
        "a Swiss-Prot entry has lost residues",
        content(flat().replace("32 AA;", "33 AA;")),
        "{data}: line 1: is not a sound Swiss-Prot entry (32 residues where its SQ line says 33); download it again",
    ),
    Case(
        "a Swiss-Prot entry has no accession",
        content(flat().replace("AC   P1; Q0;\n", "")),
        "{data}: line 1: is not a sound Swiss-Prot entry (it has no AC line); download it again",
    ),
    Case(
        "a UniProt table has lost residues",
        content(f"Entry\tEC number\tLength\tSequence\nP1\t1\t40\t{LEFT}\n"),
        "{data}: line 2: protein 'P1' has 33 residues where 'Length' says '40'; download it again",
    ),
    Case("standard input is empty", stdin(b""), "standard input: is empty; give a FASTA or table file"),
    Case(
        "standard input is damaged",
        stdin(f">p ec=1.1.1.1\n{LEFT}1\n".encode()),
        "standard input: line 1: protein 'p' has '1' at residue 34; numbers are no residues: take them "
        'out, or leave such proteins out with [data] other_letters = "skip"',
    ),
    Case(
        "the second table lacks the ids",
        second("name\tkind\np0\ta\n"),
        "{folder}/l: lacks the column 'id'; its header is 'name', 'kind'; name it by id_column",
    ),
    Case(
        "the second table has an id twice",
        second("id\tkind\np0\ta\np0\tb\n"),
        "{folder}/l: line 3: the id 'p0' is there twice; keep one row, or join their classes with task = "
        '"multi" and duplicates = "join"',
    ),
    Case(
        "classes of equal sequences are joined in a single-label task",
        setting(data='duplicates = "join"'),
        'duplicates "join" joins the classes of equal sequences, which needs task = "multi"',
    ),
    Case(
        "both tables have a column",
        second("id\tec\np0\ta\n"),
        "{folder}/l: the column 'ec' is in {data} too; rename one",
    ),
    Case(
        "a label pattern is no regular expression",
        setting(data='label = "header:(EC"'),
        "label 'header:(EC': is not a regular expression (...); correct it",
    ),
    Case(
        "the EC level does not exist",
        setting(data='label = "ec:5"'),
        "{data}: label 'ec:5' does not exist; use 'ec:1' to 'ec:4' or the name of a column",
    ),
    # --- residue features
    Case(
        "the file of features is missing",
        features(None),
        "'{folder}/f': cannot be read (No such file or directory); check the path",
    ),
    Case(
        "the file of features is FASTA",
        features(f">p0\n{LEFT}\n"),
        "{folder}/f: is FASTA, which has no residue features; give a table, a flat file or GFF3",
    ),
    Case(
        "the file of features has none",
        features("id\ttype\tstart\tend\n"),
        "{folder}/f: has no residue feature; give a file with some",
    ),
    Case(
        "a table of features lacks a column",
        features("id\tstart\tend\n"),
        "{folder}/f: a table of residue features needs the column 'feature_type'; its header is 'id', 'start', 'end'; "
        "call its columns id, feature_type, start and end",
    ),
    Case(
        "no feature is of a protein of the study",
        features("id\ttype\tstart\tend\nP12345\tACT_SITE\t3\t3\n"),
        "{folder}/f: none of its 1 features is of a protein of the study (the first one is of 'P12345', the first "
        "protein is 'p0'); give both files the same ids",
    ),
    Case(
        "a feature lies behind the end of its protein",
        features(FEATURES + "p0\tBINDING\t30\t40\t\n"),
        "{folder}/f: line 3: 'BINDING' 30..40 of protein 'p0' lies outside its 34 residues; the file is for another "
        "sequence",
    ),
    Case(
        "a feature is on another letter",
        features(FEATURES + "p0\tACT_SITE\t3\t3\tS\n"),
        "{folder}/f: line 3: 'ACT_SITE' 3..3 of protein 'p0' is 'T' in the sequence, 'S' in the file; it is for "
        "another sequence, or counts from 0",
    ),
    Case(
        "a feature ends before it starts",
        features(FEATURES + "p0\tBINDING\t9\t8\t\n"),
        "{folder}/f: line 3: 'BINDING' 9..8 of protein 'p0': need 1 <= start <= end; positions count from 1",
    ),
    Case(
        "a feature is counted from 0",
        features(FEATURES + "p0\tBINDING\t0\t3\t\n"),
        "{folder}/f: line 3: 'BINDING' 0..3 of protein 'p0': need 1 <= start <= end; positions count from 1",
    ),
    Case(
        "the place of a feature is no number",
        features(FEATURES + "p0\tBINDING\t1e3\t3\t\n"),
        "{folder}/f: line 3: start '1e3' is not a whole number; correct it",
    ),
    Case(
        "a feature would steer the terminal",
        features(FEATURES + "p0\tX\x1b[2J\t3\t3\t\n"),
        "{folder}/f: line 3: 'X\\x1b[2J' 3..3 of protein 'p0' has an unprintable character; remove it",
    ),
    Case(
        "a feature has no type",
        features("id\ttype\tstart\tend\np0\t\t3\t3\n"),
        "{folder}/f: line 2: '' 3..3 of protein 'p0' lacks a type; add it",
    ),
    Case(
        "the type of a feature has 100,000 letters",
        features(f"id\ttype\tstart\tend\np0\t{'A' * 100_000}\t3\t3\n"),
        f"{{folder}}/f: line 2: '{'A' * 30}...{'A' * 30}' (100,000 characters) 3..3 of protein 'p0' has a type of more "
        "than 200 characters; shorten it",
    ),
    Case(
        "a place in GFF is half a residue",
        features(GFF + "p0\tx\tActive site\t5.5\t6\t.\t.\t.\t.\n"),
        "{folder}/f: line 2: '5.5' is not a position such as 52, 3..9 or ?; correct it",
    ),
    Case(
        "a place in a UniProt cell is negative",
        features("Entry\tActive site\np0\tACT_SITE -5\n"),
        "{folder}/f: line 2: column 'Active site': '-5' is not a position such as 52, 3..9 or ?; correct it",
    ),
    Case(
        "a line of GFF lacks fields",
        features(GFF + "p0\tx\tActive site\t3\n"),
        "{folder}/f: line 2 has 4 fields, GFF3 has 9; correct it",
    ),
    Case(
        "a UniProt cell of features is not one",
        features("Entry\tActive site\np0\tthe third\n"),
        "{folder}/f: line 2: column 'Active site': 'the third' is not a UniProt feature such as 'ACT_SITE 52'; "
        "correct it",
    ),
    # --- UniProt
    Case(
        "UniProt does not answer",
        nothing,
        "http://127.0.0.1:1: does not answer (...); the same command continues after 0 proteins",
        ("fetch", "--out", "{folder}/e.tsv", "--endpoint", "http://127.0.0.1:1", "--tries", "1"),
    ),
    Case(
        "what is fetched is no table",
        nothing,
        "{folder}/e.xlsx: the output is a table; let its name end with .tsv or .tsv.gz",
        ("fetch", "--out", "{folder}/e.xlsx"),
    ),
    Case(
        "UniProt fails on every try",
        service(trouble(1, status(500))),
        "{url}: does not answer (status 500); the same command continues after 0 proteins",
        FETCH,
    ),
    Case(
        "UniProt wants us to wait and no try is left",
        service(trouble(2, status(429, Retry_After="7"))),
        "{url}: does not answer (status 429); the same command continues after 2 proteins",
        FETCH,
        PARTS,
    ),
    Case(
        "the connection is cut in the midst of a page",
        service(trouble(2, hang_up)),
        "{url}: does not answer (RemoteProtocolError: ...); the same command continues after 2 proteins",
        FETCH,
        PARTS,
    ),
    Case(
        "a page's gzip is cut short",
        service(truncated),
        "{url}: does not answer (the page was cut short); the same command continues after 2 proteins",
        FETCH,
        PARTS,
    ),
    Case(
        "a page lacks a column",
        service(trouble(1, status(200, b"Entry\tEC number\n", **HEADERS))),
        "{url}: page 1 lacks the column 'Entry Name'; is this the UniProt service?",
        FETCH,
    ),
    Case(
        "a new release comes during the download",
        service(trouble(2, status(500)), lambda s: setattr(s, "release", "2026_04")),
        "{folder}/e.tsv: UniProt changed during the download: its release was 2026_03 and is 2026_04 now; start "
        "again with --restart",
        FETCH,
    ),
    Case(
        "the number of results changes during the download",
        service(trouble(2, status(500)), lambda s: setattr(s, "total", 6)),
        "{folder}/e.tsv: UniProt changed during the download: it had 5 results and has 6 now; start again with "
        "--restart",
        FETCH,
    ),
    Case(
        "a page comes twice",
        service(repeated),
        "{folder}/e.tsv: UniProt changed during the download: P0 came twice; start again with --restart",
        FETCH,
        PARTS,
    ),
    Case(
        "the place to continue at is forgotten",
        service(trouble(2, status(500)), trouble(3, status(400, b'{"messages": ["bad cursor"]}'))),
        "{folder}/e.tsv: UniProt changed during the download: the place to continue at is not known any more (status "
        "400: 'bad cursor'); start again with --restart",
        FETCH,
    ),
    Case(
        "UniProt refuses the query",
        service(trouble(1, status(400, b'{"messages": ["query is \\u001b[31mwrong"]}'))),
        "{url}: refuses the query '(reviewed:true) AND (ec:*)' (status 400: 'query is \\x1b[31mwrong'); correct it",
        FETCH,
    ),
    Case(
        "nothing is found",
        service(lambda s: setattr(s, "total", 0)),
        "UniProt has no protein for the query '(reviewed:true) AND (ec:*)'; change the query",
        FETCH,
    ),
    Case(
        "the service is another one",
        service(trouble(1, status(200, b"<html>"))),
        "{url}: the answer lacks X-Total-Results or X-UniProt-Release; is this the UniProt service?",
        FETCH,
    ),
    Case(
        "the address is none",
        nothing,
        "endpoint 'ftp://x': is no web address; use one such as https://rest.uniprot.org",
        ("fetch", "--out", "{folder}/e.tsv", "--endpoint", "ftp://x"),
    ),
    Case(
        "the query is empty",
        nothing,
        "query: is empty; ask for something, such as 'reviewed:true AND ec:*'",
        ("fetch", "--out", "{folder}/e.tsv", "--query", " "),
    ),
    Case(
        "an unfinished download is damaged",
        lambda b: (b.folder / "e.tsv.state.json").write_text("{"),
        "{folder}/e.tsv.state.json: is damaged (...); start again with --restart",
        ("fetch", "--out", "{folder}/e.tsv"),
    ),
    Case(
        "an unfinished download has another query",
        service(trouble(2, status(500)), lambda s: None),
        "{folder}/e.tsv.state.json: an unfinished download with another query ('(reviewed:true) AND (ec:*)') is "
        "there; finish that, choose another --out, or start again with --restart",
        (*FETCH, "--query", "ec:1.1.1.1"),
    ),
    Case(
        "what is fetched is there",
        lambda b: (b.folder / "e.tsv").write_text("mine"),
        "{folder}/e.tsv: is there already; choose another --out or use --force",
        ("fetch", "--out", "{folder}/e.tsv"),
    ),
    Case(
        "the folder to fetch into is missing",
        nothing,
        "{folder}/none: no such folder; make it or choose another --out",
        ("fetch", "--out", "{folder}/none/e.tsv"),
    ),
    Case(
        "another process fetches to the same file",
        occupied,
        "{folder}/e.tsv: another plmscope process fetches it; wait for it or choose another --out",
        ("fetch", "--out", "{folder}/e.tsv"),
    ),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.what.replace(" ", "-"))
def test_mistake_is_one_line_and_changes_nothing(case: Case, bench: Bench, capfd: pytest.CaptureFixture[str]) -> None:
    check(case, bench, capfd)
