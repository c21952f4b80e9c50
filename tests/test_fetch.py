"""Fetching from UniProt, from a server on the loopback that speaks its documented protocol and misbehaves on demand."""

import gzip
import hashlib
import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from plmscope.cli import main
from plmscope.data import fetch as module
from plmscope.data.annotations import read_features
from plmscope.data.fetch import COLUMNS, FEATURE_TYPES, Fetched, fetch
from plmscope.data.proteins import read_proteins
from plmscope.data.uniprot import FEATURES
from plmscope.errors import InputError, StudyError

SEQUENCES = ["MKVLAAGIVGLCHWYTRSDENQPFKLMACDEF" + "ACDEFGHIKL"[i] for i in range(5)]


class Service:
    """Five proteins in pages of two; ``trouble`` may answer a numbered request in its own way."""

    def __init__(self) -> None:
        self.requests: list[dict[str, str]] = []
        self.trouble: dict[int, Callable[[BaseHTTPRequestHandler], bool]] = {}
        self.release, self.total = "2026_03", 5
        service = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_: Any) -> None:
                pass

            def do_GET(self) -> None:
                parts = urlsplit(self.path)
                asked = {name: values[0] for name, values in parse_qs(parts.query).items()}
                service.requests.append(asked | {"path": parts.path})
                if not service.trouble.get(len(service.requests), lambda handler: False)(self):
                    service.answer(self, asked)

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()

    def body(self, start: int) -> bytes:
        fields = dict(COLUMNS)
        fields |= {field: name for _, field, name in FEATURES}
        names = [fields[field] for field in self.requests[-1]["fields"].split(",")]
        rows = ["\t".join(names)]
        for i in range(start, min(start + 2, 5)):
            row = dict.fromkeys(names, "") | {
                "Entry": f"P{i}", "Entry Name": f"N{i}_ECOLI", "EC number": f"{i % 3 + 1}.1.1.1; 1.2.-.-",
                "Organism": "E. coli", "Organism (ID)": "562", "Length": "33", "Sequence": SEQUENCES[i],
                "Active site": 'ACT_SITE 3; /note="Nucleophile"; /evidence="ECO:0000269"',
                "Disulfide bond": "DISULFID 5..9; SIGNAL 1..?" if i == 0 else "",
            }  # fmt: skip
            rows.append("\t".join(row[name] for name in names))
        return ("\n".join(rows) + "\n").encode()

    def answer(self, handler: BaseHTTPRequestHandler, asked: dict[str, str], cut: int = 0) -> bool:
        start = int(asked.get("cursor", "c0").removeprefix("c"))
        body = gzip.compress(self.body(start))
        body = body[:-cut] if cut else body
        handler.send_response(200)
        handler.send_header("Content-Encoding", "gzip")
        handler.send_header("Content-Length", str(len(body)))
        handler.send_header("X-Total-Results", str(self.total))
        handler.send_header("X-UniProt-Release", self.release)
        if start + 2 < 5:
            handler.send_header(
                "Link", f'<https://elsewhere.example/search?x=1&cursor=c{start + 2}&size=2>; rel="next"'
            )
        handler.end_headers()
        handler.wfile.write(body)
        return True


def status(code: int, body: bytes = b"", **headers: str) -> Callable[[BaseHTTPRequestHandler], bool]:
    def answer(handler: BaseHTTPRequestHandler) -> bool:
        handler.send_response(code)
        for name, value in headers.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body)
        return True

    return answer


def hang_up(handler: BaseHTTPRequestHandler) -> bool:
    """Announce more than comes."""
    handler.send_response(200)
    handler.send_header("Content-Length", "10000")
    handler.end_headers()
    handler.wfile.write(b"Entry\tEC")
    handler.close_connection = True
    return True


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> Iterator[Service]:
    monkeypatch.setattr(module, "PAGE_SIZE", 2)
    running = Service()
    yield running
    running.server.shutdown()
    running.server.server_close()


def get(service: Service, folder: Path, sleeps: list[float] | None = None, **more: Any) -> Fetched:
    waits: list[float] = [] if sleeps is None else sleeps
    return fetch(folder / "e.tsv.gz", endpoint=service.url, sleep=waits.append, **more)


def check(found: Fetched) -> None:
    proteins = read_proteins(found.proteins, label="ec:1", task="multi")
    assert [(p.id, p.sequence) for p in proteins] == [(f"P{i}", s) for i, s in enumerate(SEQUENCES)]
    assert proteins.proteins[1].label == "1;2" and proteins.proteins[0].columns["organism"] == "E. coli"
    features = read_features(found.features, proteins)
    assert features.table["feature_type"].tolist() == ["ACT_SITE", "DISULFID", "DISULFID"] + ["ACT_SITE"] * 4
    assert features.table.iloc[2].tolist() == ["P0", "DISULFID", 8, 9, ""]


def test_pages_become_two_tables_with_their_provenance(service: Service, tmp_path: Path) -> None:
    found = get(service, tmp_path)
    check(found)
    assert [r.get("cursor") for r in service.requests] == [None, "c2", "c4"]
    first = service.requests[0]
    assert (first["path"], first["query"], first["format"], first["size"]) == (
        "/uniprotkb/search", "(reviewed:true) AND (ec:*)", "tsv", "2",
    )  # fmt: skip
    assert {"accession", "ec", "sequence", "ft_act_site"} <= set(first["fields"].split(","))
    assert set(FEATURE_TYPES) <= {key for key, _, _ in FEATURES}
    written = json.loads((tmp_path / "e.tsv.gz.json").read_text())
    assert written == found.provenance
    assert (written["release"], written["proteins"], written["features_without_exact_position"]) == ("2026_03", 5, 1)
    for name, facts in written["files"].items():
        assert hashlib.sha256((tmp_path / name).read_bytes()).hexdigest() == facts["sha256"]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["e.features.tsv.gz", "e.tsv.gz", "e.tsv.gz.json"]
    before = found.proteins.read_bytes()
    with pytest.raises(InputError, match="is there already; choose another --out or use --force"):
        get(service, tmp_path)
    assert get(service, tmp_path, force=True).proteins.read_bytes() == before  # the same bytes each time


def test_what_goes_wrong_is_asked_for_again(service: Service, tmp_path: Path) -> None:
    service.trouble = {
        1: status(429, Retry_After="7"),
        2: status(500),
        4: hang_up,
        5: lambda handler: service.answer(handler, {"cursor": "c2"}, cut=12),  # a truncated gzip
        6: status(503, Retry_After="soon"),
    }
    waits: list[float] = []
    said: list[str] = []
    check(get(service, tmp_path, waits, say=said.append))
    assert waits[0] == 7 and 1.5 <= waits[1] <= 2.5 and len(waits) == 5
    assert 0.75 <= waits[2] <= 1.25 and 3 <= waits[4] <= 5  # again from one second for every page
    assert [r.get("cursor") for r in service.requests[2:]] == [None, "c2", "c2", "c2", "c2", "c4"]
    assert any("page 2: the page was cut short; asking again" in line for line in said)


def test_a_cut_download_continues(service: Service, tmp_path: Path) -> None:
    service.trouble = {k: status(500) for k in (2, 3)}
    with pytest.raises(
        InputError, match=r"does not answer \(status 500\); the same command continues after 2 proteins"
    ):
        get(service, tmp_path, tries=2)
    assert not (tmp_path / "e.tsv.gz").exists()
    with (tmp_path / "e.tsv.gz.part").open("ab") as part:
        part.write(b"P2\thalf a li")  # killed while writing
    said: list[str] = []
    check(get(service, tmp_path, say=said.append))
    assert said[0] == "continuing after 2 of 5 proteins of UniProt 2026_03"
    assert [r.get("cursor") for r in service.requests[3:]] == ["c2", "c4"]


@pytest.mark.parametrize("name", ["e.features.tsv.gz", "e.tsv.gz.json"])
def test_files_of_the_user_are_not_replaced(service: Service, tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("mine")
    with pytest.raises(InputError, match=rf"{name}: is there already; choose another --out or use --force"):
        get(service, tmp_path)
    assert (tmp_path / name).read_text() == "mine" and not service.requests
    check(get(service, tmp_path, force=True))


def test_a_call_that_was_killed_at_the_end_is_finished(
    service: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(BaseException):
        pass

    def kill(path: Path, data: bytes) -> None:
        if path.name == "e.tsv.gz.json":
            raise Killed
        write(path, data)

    write = module._write
    monkeypatch.setattr(module, "_write", kill)
    with pytest.raises(Killed):
        get(service, tmp_path)
    assert (tmp_path / "e.features.tsv.gz").exists() and not (tmp_path / "e.tsv.gz").exists()
    monkeypatch.undo()
    check(get(service, tmp_path))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda s: setattr(s, "release", "2026_04"), "its release was 2026_03 and is 2026_04 now"),
        (lambda s: setattr(s, "total", 6), "it had 5 results and has 6 now"),
        (lambda s: s.trouble.update({3: lambda h: s.answer(h, {"cursor": "c0"})}), "P0 came twice"),
        (lambda s: s.trouble.update({3: status(400, b'{"messages": ["bad cursor"]}')}), "not known any more"),
    ],
)
def test_a_change_on_the_way_is_refused(
    service: Service, tmp_path: Path, change: Callable[[Service], None], said: str
) -> None:
    service.trouble = {2: status(500)}
    with pytest.raises(InputError, match="continues after 2"):
        get(service, tmp_path, tries=1)
    change(service)
    with pytest.raises(InputError) as caught:
        get(service, tmp_path)
    assert "UniProt changed during the download" in str(caught.value) and said in str(caught.value)
    assert str(caught.value).endswith("start again with --restart") and not (tmp_path / "e.tsv.gz").exists()
    service.trouble, service.total = {}, 5
    check(get(service, tmp_path, restart=True))


def test_refusals(service: Service, tmp_path: Path) -> None:
    service.trouble = {1: status(400, b'{"messages": ["query is \\u001b[31mwrong"]}')}
    with pytest.raises(InputError, match=r"refuses the query 'x' \(status 400: 'query is \\x1b\[31mwrong'\)"):
        get(service, tmp_path, query="x")
    assert not list(tmp_path.iterdir())
    service.total = 0
    with pytest.raises(InputError, match="UniProt has no protein for the query"):
        get(service, tmp_path)
    service.trouble = {3: status(200, b"<html>")}
    with pytest.raises(InputError, match="is this the UniProt service"):
        get(service, tmp_path, restart=True)
    (tmp_path / "e.tsv.gz.state.json").write_text("{")
    with pytest.raises(InputError, match=r"is damaged .* start again with --restart"):
        get(service, tmp_path)
    for wrong in ({"out": "e.csv"}, {"endpoint": "ftp://x"}, {"query": " "}):
        with pytest.raises(StudyError):
            fetch(**({"out": tmp_path / "f.tsv"} | wrong))  # type: ignore[arg-type]


def test_the_command(service: Service, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "mine.tsv"
    arguments = ["fetch", "--out", str(out), "--endpoint", service.url]
    assert main([*arguments, "--query", "ec:1.1.1.1", "--quiet"]) == 0
    assert capfd.readouterr().err == (
        f"wrote {out} (5 proteins) and {tmp_path / 'mine.features.tsv'} (7 residue features) of UniProt 2026_03\n"
    )
    assert service.requests[0]["query"] == "ec:1.1.1.1"
    assert main(arguments) == 2
    assert capfd.readouterr().err == f"plmscope: error: {out}: is there already; choose another --out or use --force\n"
