"""Fetching proteins from UniProt: pages of a query, until all are there and nothing changed in between.

::

    GET {endpoint}/uniprotkb/search?query=...&format=tsv&fields=...&size=500
    Link: <...&cursor=c1>; rel="next"       the next page; none after the last
    X-Total-Results: 273512                 how many there are
    X-UniProt-Release: 2026_03              refused if it changes on the way

Every page is checked and appended to a file beside the output, and a state file says how far it is: a download that was
cut continues there. A page that does not come (429, 5xx, a cut connection, a truncated body) is asked for again, after
the time that the service names, or twice as long as before. When all are there, the proteins and their residue features
become two tables, and a JSON file beside them says what was asked, of which release, with the checksums.

UniProt asks for its data to be cited; they are under CC BY 4.0.
"""

from __future__ import annotations

import datetime
import json
import os
import random
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx2

from plmscope.data.formats import first_line
from plmscope.data.service import (
    Again,
    Download,
    ServicePage,
    decoded,
    next_cursor,
    pack_file,
    retry_after,
    service_errors,
)
from plmscope.data.uniprot import FEATURES, parse_feature_cell
from plmscope.errors import InputError, StudyError, shown
from plmscope.progress import Track, silent
from plmscope.store.files import lock, replace_file

ENDPOINT = "https://rest.uniprot.org"
QUERY = "(reviewed:true) AND (ec:*)"
#: Columns of a page, as fields of the service and as it calls them in the header.
COLUMNS = (
    ("accession", "Entry"), ("id", "Entry Name"), ("ec", "EC number"), ("organism_name", "Organism"),
    ("organism_id", "Organism (ID)"), ("length", "Length"), ("sequence", "Sequence"),
)  # fmt: skip
#: Features that are fetched, by their keys in flat files.
FEATURE_TYPES = ("ACT_SITE", "BINDING", "SITE", "MOD_RES", "DISULFID", "CARBOHYD", "LIPID", "SIGNAL", "TRANSIT",
                 "PROPEP", "TRANSMEM", "DOMAIN", "MOTIF", "ZN_FING", "DNA_BIND", "COILED")  # fmt: skip
PAGE_SIZE = 500  # the most that the service gives
TRIES = 8
LONGEST_WAIT = 120.0
_AGAIN = (408, 425, 429, 500, 502, 503, 504)
PROTEIN_HEADER = "id\tentry_name\tec\torganism\ttaxonomy_id\tsequence\n"
FEATURE_HEADER = "key\tfeature_type\tstart\tend\tdescription\n"


@dataclass(frozen=True)
class Fetched:
    """What a finished download left.

    Attributes:
        proteins: Table of the proteins.
        features: Table of their residue features.
        provenance: The content of the JSON file beside them.
    """

    proteins: Path
    features: Path
    provenance: dict[str, Any]

    def __repr__(self) -> str:
        p = self.provenance
        return (
            f"Fetched({p['proteins']:,} proteins and {p['features']:,} residue features of UniProt {p['release']} in "
            f"{str(self.proteins)!r} and {str(self.features)!r})"
        )


def fetch(
    out: str | Path,
    *,
    query: str = QUERY,
    endpoint: str = ENDPOINT,
    restart: bool = False,
    force: bool = False,
    tries: int = TRIES,
    track: Track = silent,
    say: Callable[[str], None] = lambda line: None,
    sleep: Callable[[float], None] = time.sleep,
) -> Fetched:
    """Fetch the proteins of a UniProtKB query with their sequences, EC numbers and residue features.

    Three files are written: ``OUT``, which :func:`~plmscope.data.proteins.read_proteins` reads; ``OUT`` with
    ``.features`` before its ending, which :func:`~plmscope.data.annotations.read_features` reads; and ``OUT.json``
    with query, release, counts and checksums. Until all is there, ``OUT.part``, ``OUT.features.part`` and
    ``OUT.state.json`` hold what came so far, and the same call goes on.

    Args:
        out: Ends with ``.tsv`` or ``.tsv.gz``.
        query: In UniProt's query language; default: all reviewed proteins with an EC number.
        endpoint: Address of the service.
        restart: Throw away what an earlier call left unfinished.
        force: Replace files that are there.
        tries: How often a page is asked for before giving up.
        track: Progress by pages.
        say: Told one line at a time what happens.
        sleep: Waits; for tests.

    Returns:
        The files and their provenance.

    Raises:
        InputError: the service refuses the query, does not answer, or answers something else; the release, the number
            of results or a page changed on the way; nothing was found; a file is there already or cannot be written.
        StudyError: an argument is impossible.
    """
    out = Path(out)
    if not out.name.endswith((".tsv", ".tsv.gz")):
        raise StudyError(f"{out}: the output is a table; let its name end with .tsv or .tsv.gz")
    address = urlsplit(endpoint)
    if address.scheme not in ("http", "https") or not address.hostname:
        raise StudyError(f"endpoint {shown(endpoint)}: is no web address; use one such as {ENDPOINT}")
    if not query.strip():
        raise StudyError("query: is empty; ask for something, such as 'reviewed:true AND ec:*'")
    if not out.parent.is_dir():
        raise InputError(f"{out.parent}: no such folder; make it or choose another --out")
    busy, advice = f"{out}: another plmscope process fetches it", "wait for it or choose another --out"
    with service_errors(out), lock(out.with_name(f".{out.name}.lock"), busy, advice=advice, remove=True):
        return _Download(out, query, endpoint.rstrip("/"), tries, track, say, sleep).run(restart, force)


@dataclass
class _Download:
    """One download; its methods are the steps."""

    out: Path
    query: str
    endpoint: str
    tries: int
    track: Track
    say: Callable[[str], None]
    sleep: Callable[[float], None]
    seen: set[str] = field(default_factory=set)

    @property
    def fields(self) -> str:
        wanted = [name for key, name, _ in FEATURES if key in FEATURE_TYPES]
        return ",".join([name for name, _ in COLUMNS] + wanted)

    @property
    def features_out(self) -> Path:
        ending = ".tsv.gz" if self.out.name.endswith(".gz") else ".tsv"
        return self.out.with_name(self.out.name.removesuffix(ending) + ".features" + ending)

    @property
    def part(self) -> Path:
        return self.out.with_name(f"{self.out.name}.part")

    @property
    def features_part(self) -> Path:
        return self.out.with_name(f"{self.out.name}.features.part")

    @property
    def state_file(self) -> Path:
        return self.out.with_name(f"{self.out.name}.state.json")

    @property
    def provenance_file(self) -> Path:
        return self.out.with_name(f"{self.out.name}.json")

    def run(self, restart: bool, force: bool) -> Fetched:
        """Do the whole download: ask for page after page, store each, and put the finished tables in their place."""
        there = [path for path in (self.out, self.features_out, self.provenance_file) if path.exists()]
        ours = not self.out.exists() and self.ending()  # killed while it put the files in place, the proteins last
        if there and not force and not ours:
            raise InputError(f"{there[0]}: is there already; choose another --out or use --force")
        if restart:
            for path in (self.state_file, self.part, self.features_part):
                path.unlink(missing_ok=True)
        state = self.resumed()
        with httpx2.Client(timeout=httpx2.Timeout(30, read=120), headers={"User-Agent": "plmscope"}) as client:
            if not state.pages:
                try:
                    state = self.stored(state, self.page(client, state))
                except InputError:
                    self.discard()  # nothing to continue
                    raise
            if state.total == 0:
                self.discard()
                raise InputError(f"UniProt has no protein for the query {shown(self.query)}; change the query")
            self.say(f"UniProt {state.release}: {state.total:,} proteins for {self.query}")
            n_pages = -(-state.total // PAGE_SIZE)
            for _ in self.track(range(state.pages, n_pages), "pages of UniProt", max(0, n_pages - state.pages)):
                if state.finished:
                    break
                state = self.stored(state, self.page(client, state))
            while not state.finished:  # pages that were smaller than asked for
                state = self.stored(state, self.page(client, state))
        if state.rows != state.total:
            raise self.changed(f"{state.rows:,} proteins came where it had announced {state.total:,}")
        return self.finished(state)

    def ending(self) -> bool:
        """Whether an earlier call had all pages, so that files which are there may be its own."""
        try:
            return json.loads(self.state_file.read_text())["finished"] is True
        except (OSError, ValueError, KeyError, TypeError):
            return False

    def resumed(self) -> Download:
        """What an earlier call left, its files cut back to what is known to be sound; else a new start."""
        fresh = Download(self.endpoint, self.query, self.fields)
        try:
            known = json.loads(self.state_file.read_text())
            state = Download(**known)
            sound = self.part.stat().st_size >= state.size and self.features_part.stat().st_size >= state.features_size
        except FileNotFoundError:
            sound, state = False, fresh
            if self.state_file.exists():
                raise self.damaged("its partial table is missing") from None
        except (ValueError, TypeError) as error:
            raise self.damaged(first_line(error)) from None
        if state.pages and not sound:
            raise self.damaged("its partial table is shorter than it says")
        for name in ("query", "endpoint", "fields"):
            if getattr(state, name) != getattr(fresh, name):
                raise InputError(
                    f"{self.state_file}: an unfinished download with another {name} ({shown(getattr(state, name))}) is "
                    "there; finish that, choose another --out, or start again with --restart"
                )
        if not state.pages:
            self.part.write_text(PROTEIN_HEADER)
            self.features_part.write_text(FEATURE_HEADER)
            return replace(fresh, size=len(PROTEIN_HEADER), features_size=len(FEATURE_HEADER))
        for path, size in ((self.part, state.size), (self.features_part, state.features_size)):
            with path.open("r+b") as file:
                file.truncate(size)
        with self.part.open(encoding="utf-8") as text:
            next(text)
            self.seen = {line.partition("\t")[0] for line in text}
        self.say(f"continuing after {state.rows:,} of {state.total:,} proteins of UniProt {state.release}")
        return state

    def damaged(self, reason: str) -> InputError:
        """The error for a state file that cannot be used."""
        return InputError(f"{self.state_file}: is damaged ({reason}); start again with --restart")

    def changed(self, reason: str) -> InputError:
        """The error for a service that changed on the way."""
        return InputError(f"{self.out}: UniProt changed during the download: {reason}; start again with --restart")

    def discard(self) -> None:
        """Remove the files of an unfinished download."""
        for path in (self.state_file, self.part, self.features_part):
            path.unlink(missing_ok=True)

    # --- one page ----------------------------------------------------------------------------------------------------

    def page(self, client: httpx2.Client, state: Download) -> ServicePage:
        """The next page, asked for until it comes whole."""
        wait, reason = 1.0, ""
        for number in range(1, self.tries + 1):
            try:
                return self.asked(client, state)
            except Again as error:
                reason = str(error)
                if number == self.tries:
                    break
                if error.wait is not None and error.wait > 3600:
                    reason += f", try again in {error.wait:,.0f} s"
                    break
                # Not all clients at the same moment, and never sooner than the service asks for.
                pause = min(LONGEST_WAIT, wait) * random.uniform(0.75, 1.25) if error.wait is None else error.wait
                self.say(f"page {state.pages + 1}: {reason}; asking again in {pause:.0f} s ({number} of {self.tries})")
                self.sleep(pause)
                wait *= 2
        raise InputError(
            f"{self.endpoint}: does not answer ({reason}); the same command continues after {state.rows:,} proteins"
        )

    def asked(self, client: httpx2.Client, state: Download) -> ServicePage:
        """Send one request for the next page; what may go better the next time is raised as ``Again``."""
        wanted = {"query": state.query, "format": "tsv", "fields": state.fields, "size": str(PAGE_SIZE)}
        if state.cursor:
            wanted["cursor"] = state.cursor
        try:
            with client.stream("GET", f"{self.endpoint}/uniprotkb/search", params=wanted) as response:
                body = b"".join(response.iter_raw())
        except httpx2.TransportError as error:
            raise Again(f"{type(error).__name__}: {first_line(error)}") from None
        except httpx2.InvalidURL as error:
            raise StudyError(f"endpoint {shown(self.endpoint)}: {first_line(error)}") from None
        status = response.status_code
        if status in _AGAIN:
            raise Again(f"status {status}", retry_after(response.headers.get("Retry-After", "")))
        text = decoded(body)
        if status != 200:
            raise self.refused(status, text, state)
        headers = response.headers
        total, release = headers.get("X-Total-Results", ""), headers.get("X-UniProt-Release", "")
        if not (total.isascii() and total.isdigit()) or not release or not release.isprintable():
            raise InputError(
                f"{self.endpoint}: the answer lacks X-Total-Results or X-UniProt-Release; is this the UniProt service?"
            )
        return ServicePage(
            text, next_cursor(response.links), int(total), release, headers.get("X-UniProt-Release-Date", "")
        )

    def refused(self, status: int, text: str, state: Download) -> InputError:
        """The error for a request that the service will never answer."""
        try:
            messages = json.loads(text)["messages"]
            reason = " ".join(str(message) for message in messages)
        except (ValueError, KeyError, TypeError):
            reason = text
        said = f"status {status}: {shown(' '.join(reason.split()), 200)}"
        if state.pages:
            return self.changed(f"the place to continue at is not known any more ({said})")
        return InputError(f"{self.endpoint}: refuses the query {shown(self.query)} ({said}); correct it")

    def stored(self, state: Download, page: ServicePage) -> Download:
        """Check a page against what came before, append it and note how far the download is."""
        if not state.pages:
            now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
            state = replace(state, release=page.release, release_date=page.release_date, total=page.total, started=now)
        if page.release != state.release:
            raise self.changed(f"its release was {state.release} and is {page.release} now")
        if page.total != state.total:
            raise self.changed(f"it had {state.total:,} results and has {page.total:,} now")
        proteins, features, n_rows, n_features, n_inexact = self.parsed(page.text, state)
        if not n_rows and page.cursor:
            raise self.changed("a page is empty")
        sizes = []
        for path, lines in ((self.part, proteins), (self.features_part, features)):
            with path.open("ab") as file:
                file.write(lines.encode())
                file.flush()
                os.fsync(file.fileno())
                sizes.append(file.tell())
        state = replace(
            state, cursor=page.cursor, pages=state.pages + 1, rows=state.rows + n_rows,
            features=state.features + n_features, inexact=state.inexact + n_inexact, size=sizes[0],
            features_size=sizes[1], finished=not page.cursor,
        )  # fmt: skip
        _write(self.state_file, json.dumps(asdict(state), indent=1).encode())
        return state

    def parsed(self, text: str, state: Download) -> tuple[str, str, int, int, int]:
        """Lines for the two tables, and how many proteins, features, and features without an exact place there are."""
        proteins, features = [], []
        n_inexact = 0
        header, *rows = text.split("\n")
        names = header.rstrip("\r").split("\t")
        columns = [name for _, name in COLUMNS]
        cells = [name for key, _, name in FEATURES if key in FEATURE_TYPES]
        missing = [name for name in (*columns, *cells) if name not in names]
        where = f"{self.endpoint}: page {state.pages + 1}"
        if missing and (len(names) > 1 or text.strip()):
            raise InputError(f"{where} lacks the column {missing[0]!r}; is this the UniProt service?")
        for number, line in enumerate(rows, 2):
            if not line:
                continue
            fields = line.rstrip("\r").split("\t")
            if len(fields) != len(names):
                raise InputError(
                    f"{where}: line {number} has {len(fields)} fields, the header {len(names)}; download again"
                )
            row = dict(zip(names, fields, strict=True))
            accession = row["Entry"]
            if not accession.isalnum() or not accession.isascii():
                raise InputError(f"{where}: line {number}: {shown(accession)} is not an accession; is this UniProt?")
            if row["Length"] != str(len(row["Sequence"])):
                found_length, said = len(row["Sequence"]), shown(row["Length"])
                raise InputError(f"{where}: {accession} has {found_length:,} residues, not {said}; download again")
            if accession in self.seen:
                raise self.changed(f"{accession} came twice")
            self.seen.add(accession)
            name, ec, organism, taxonomy = (row[c] for c in ("Entry Name", "EC number", "Organism", "Organism (ID)"))
            ec = ";".join(number.strip() for number in ec.split(";") if number.strip())
            proteins.append(f"{accession}\t{name}\t{ec}\t{organism}\t{taxonomy}\t{row['Sequence']}\n")
            for cell in cells:
                try:
                    cell_features = parse_feature_cell(row[cell])
                except InputError as error:
                    raise InputError(f"{where}: {accession}: {error}") from None
                n_inexact += sum(bool(feature.reason) for feature in cell_features)
                features += [
                    f"{accession}\t{f.type}\t{f.start}\t{f.end}\t{f.description}\n"
                    for f in cell_features
                    if not f.reason
                ]
        return "".join(proteins), "".join(features), len(proteins), len(features), n_inexact

    # --- the end -----------------------------------------------------------------------------------------------------

    def finished(self, state: Download) -> Fetched:
        """Pack the tables, write where they come from, put all in place; the proteins last."""
        packed = [(self.features_part, self.features_out), (self.part, self.out)]
        checksums = [pack_file(source, target.with_name(f".{target.name}.tmp"), target) for source, target in packed]
        provenance: dict[str, Any] = {
            "source": "UniProtKB",
            "licence": "CC BY 4.0, UniProt Consortium, https://www.uniprot.org/help/license",
            "endpoint": state.endpoint,
            "query": state.query,
            "fields": state.fields.split(","),
            "release": state.release,
            "release_date": state.release_date,
            "started": state.started,
            "finished": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            "proteins": state.rows,
            "features": state.features,
            "features_without_exact_position": state.inexact,
            "files": {
                self.out.name: {"sha256": checksums[1]},
                self.features_out.name: {"sha256": checksums[0]},
            },
        }
        self.features_out.with_name(f".{self.features_out.name}.tmp").replace(self.features_out)
        _write(self.provenance_file, json.dumps(provenance, indent=1, ensure_ascii=False).encode())
        self.out.with_name(f".{self.out.name}.tmp").replace(self.out)
        self.discard()
        return Fetched(self.out, self.features_out, provenance)


def _write(path: Path, data: bytes) -> None:
    """A whole file or none; what goes wrong is told by :func:`~plmscope.data.service.service_errors`."""
    replace_file(path, lambda temporary: temporary.write_bytes(data))
