"""What UniProt's service answers: pages, where the next one is, and when to ask again; how far a download is."""

from __future__ import annotations

import contextlib
import datetime
import gzip
import hashlib
import os
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import parse_qs, urlsplit

from plmscope.data.formats import first_line
from plmscope.errors import InputError, shown

#: Largest decompressed page, in bytes.
MAX_PAGE = 256 * 2**20


class ServicePage(NamedTuple):
    """One answer of the service, checked."""

    text: str
    cursor: str
    total: int
    release: str
    release_date: str


class Again(Exception):
    """A request failed, but may go well the next time; ``wait`` is how long the service asks to wait, in seconds."""

    def __init__(self, reason: str, wait: float | None = None) -> None:
        super().__init__(reason)
        self.wait = wait


@contextlib.contextmanager
def service_errors(out: Path) -> Iterator[None]:
    """Turn a full disk or a read-only folder into one line."""
    try:
        yield
    except OSError as error:
        raise InputError(
            f"{error.filename or out}: cannot be written ({error.strerror or error}); free the disk or choose another "
            "--out"
        ) from None


def pack_file(source: Path, temporary: Path, target: Path) -> str:
    """Copy a table, gzipped if its name says so, always to the same bytes; returns the sha256."""
    with source.open("rb") as table, temporary.open("wb") as file:
        packer: Any = contextlib.nullcontext(file)
        if target.name.endswith(".gz"):
            packer = gzip.GzipFile("", "wb", 6, file, 0)
        with packer as packed:
            while piece := table.read(2**20):
                packed.write(piece)
        file.flush()
        os.fsync(file.fileno())
    with temporary.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def retry_after(text: str) -> float | None:
    """Seconds to wait by a Retry-After header: a number or a date; None if there is none that can be read."""
    if text.isascii() and text.isdigit():
        return float(text)
    try:
        when = parsedate_to_datetime(text)
        now = datetime.datetime.now(when.tzinfo)
        return max(0.0, (when - now).total_seconds())
    except (ValueError, TypeError):
        return None


def decoded(body: bytes) -> str:
    """The text of a body, gzipped or not.

    Raises:
        Again: it is cut short or damaged.
        InputError: it is much too large.
    """
    if body.startswith(b"\x1f\x8b"):
        inflate = zlib.decompressobj(16 + zlib.MAX_WBITS)
        try:
            body = inflate.decompress(body, MAX_PAGE)
        except zlib.error as error:
            raise Again(f"the page is damaged: {error}") from None
        if inflate.unconsumed_tail:
            raise InputError(f"a page of UniProt is larger than {MAX_PAGE:,} bytes when decompressed")
        if not inflate.eof:
            raise Again("the page was cut short")
    try:
        return body.decode("utf-8")
    except UnicodeDecodeError as error:
        raise Again(f"the page is damaged: {first_line(error)}") from None


def next_cursor(links: dict[str | None, dict[str, str]]) -> str:
    """The cursor of the next page; only that is taken from the link, so that no answer can send us elsewhere."""
    url = links.get("next", {}).get("url", "")
    if not url:
        return ""
    cursor = parse_qs(urlsplit(url).query).get("cursor", [""])[0]
    if not cursor:
        raise InputError(f"the link to the next page has no cursor ({shown(url)}); is this the UniProt service?")
    return cursor


@dataclass(frozen=True)
class Download:
    """How far a download is; kept as a file beside the output, so that another call continues it.

    Attributes:
        endpoint, query, fields: What is asked for.
        release, release_date, total: What the first page said.
        cursor: Of the next page; empty: there is none.
        pages, rows, features, inexact: What is there.
        size, features_size: Bytes of the two partial tables that are known to be sound.
        started: When the first page came, UTC.
        finished: Whether the last page is there.
    """

    endpoint: str
    query: str
    fields: str
    release: str = ""
    release_date: str = ""
    total: int = -1
    cursor: str = ""
    pages: int = 0
    rows: int = 0
    features: int = 0
    inexact: int = 0
    size: int = 0
    features_size: int = 0
    started: str = ""
    finished: bool = False
