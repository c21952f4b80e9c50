"""Who may ask, and what comes back: a server for the page of one run.

It listens on 127.0.0.1 unless told otherwise. A request is answered only if

- its ``Host`` is a name under which the server was started: a foreign page cannot reach it by rebinding its own name;
- its ``Origin``, if there is one, is the page's own, and the browser does not call it cross-site;
- it carries the token of the printed address, in the address of the page or in the header of its questions.

Whatever is sent is bounded and checked (:mod:`plmscope.exploring.requests`); questions wait in a short line
(:mod:`plmscope.exploring.line`). No request names a file, and nothing is written. Answers forbid the page everything
but its own script and this server. Ctrl-C ends it: what waits is dropped, what is under way has a few seconds.
"""

from __future__ import annotations

import asyncio
import json
import re
import secrets
import socket
import webbrowser
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any

from plmscope import __version__
from plmscope.errors import InputError, PlmscopeError, RunError
from plmscope.exploring.line import LONGEST_WAIT, MOST_WAITING, FullError, Line
from plmscope.exploring.requests import MOST_BYTES, Asked, read_asked, read_json, read_neuron, read_search
from plmscope.exploring.session import Session
from plmscope.report.html import environment, own_text

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.types import ASGIApp, Receive, Scope, Send

TOKEN_HEADER = "x-plmscope-token"
#: Seconds in which a request has to arrive; connections at once; seconds that an answer under way has at the end.
ARRIVES, CONNECTIONS, PATIENCE = 10.0, 32, 5
HEADERS = {
    "Cache-Control": "no-store", "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin", "Referrer-Policy": "no-referrer", "X-Frame-Options": "DENY",
    "X-Content-Type-Options": "nosniff",
}  # fmt: skip
_NOTHING = "default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"


class _Guard:
    """Answers nobody but the page itself; see the module."""

    def __init__(self, app: ASGIApp, hosts: frozenset[str], token: str) -> None:
        self.app, self.hosts, self.token = app, hosts, token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        from starlette.requests import Request

        request = Request(scope)
        why = self.refusal(request)
        if why:
            await _plain(f"plmscope: {why}", 403)(scope, receive, send)
            return
        await self.app(scope, receive, send)

    def refusal(self, request: Request) -> str:
        """Why a request is not answered; empty: it is. Nothing of the request is repeated."""
        hosts, origins = request.headers.getlist("host"), request.headers.getlist("origin")
        if len(hosts) != 1 or hosts[0].lower() not in self.hosts:
            return "this is not the name that 'plmscope explore' was started under; use the address that it printed"
        if any(origin.lower() not in {f"http://{host}" for host in self.hosts} for origin in origins):
            return "other pages may not ask"
        if request.headers.get("sec-fetch-site", "none") not in ("same-origin", "none"):
            return "other pages may not ask"
        given = request.query_params.get("token") if request.url.path == "/" else request.headers.get(TOKEN_HEADER)
        if not secrets.compare_digest((given or "").encode(), self.token.encode()):
            return "the token is missing or of an earlier start; use the address that 'plmscope explore' printed"
        return ""


def application(
    session: Session,
    *,
    token: str,
    hosts: Sequence[str],
    most_waiting: int = MOST_WAITING,
    longest_wait: float = LONGEST_WAIT,
) -> Starlette:
    """The server as an ASGI application.

    Args:
        session: The loaded run.
        token: What a request has to know.
        hosts: Names with port, such as ``127.0.0.1:8765``, that a request may call the server by.
        most_waiting: Questions that may wait besides the one under way.
        longest_wait: Seconds that a question waits for its turn.
    """
    from starlette.applications import Starlette
    from starlette.middleware import Middleware
    from starlette.routing import Route

    line = Line(most_waiting)
    facts = session.facts()

    async def page(request: Request) -> Response:
        return _page(facts, token)

    def answering(work: Callable[[dict[str, Any]], Any], quick: bool) -> Callable[[Request], Awaitable[Response]]:
        async def endpoint(request: Request) -> Response:
            try:
                sent = read_json(await _body(request))
                found = await _turn(line, lambda: work(sent), quick, longest_wait, request)
            except FullError as error:
                return _json({"error": str(error)}, 503, {"Retry-After": "2"})
            except PlmscopeError as error:
                return _json({"error": str(error)}, 400)
            return _json(found)

        return endpoint

    def asked(sent: Mapping[str, Any]) -> Asked:
        return read_asked(sent, session.longest)

    def along(sent: dict[str, Any]) -> Any:
        neuron = read_neuron(sent.pop("neuron", None))
        return session.along(asked(sent), neuron)

    routes = {
        "look": (lambda sent: session.explain(asked(sent).intact, whole=False), False),
        "explain": (lambda sent: session.explain(asked(sent).intact, whole=True), False),
        "decide": (lambda sent: session.decide(asked(sent)), True),
        "along": (along, True),
        "search": (lambda sent: session.search(read_search(sent)), True),
        "page": (lambda sent: {"html": session.page(asked(sent).intact)}, False),
    }

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        yield
        await asyncio.to_thread(line.close, PATIENCE)

    return Starlette(
        routes=[
            Route("/", page, methods=["GET"]),
            *(Route(f"/api/{name}", answering(*how), methods=["POST"]) for name, how in routes.items()),
        ],
        middleware=[Middleware(_Guard, hosts=frozenset(host.lower() for host in hosts), token=token)],
        lifespan=lifespan,
    )


async def _turn(line: Line, work: Callable[[], Any], quick: bool, longest: float, request: Request) -> Any:
    """Wait for the turn, but no longer than that, and not when nobody waits for the answer any more."""
    found = line.add(work, quick=quick)
    answer = asyncio.wrap_future(found)
    loop, gone = asyncio.get_running_loop(), False
    begun = loop.time()
    while not answer.done():
        with suppress(TimeoutError):
            await asyncio.wait_for(asyncio.shield(answer), 0.25)
            break
        gone = gone or await request.is_disconnected()
        late = loop.time() - begun > longest
        if not found.running() and (gone or late) and found.cancel():
            raise FullError(f"busy: no turn within {longest:.0f} seconds; try again in a moment")
    if answer.cancelled():
        raise FullError("the server stops")
    return answer.result()


async def _body(request: Request) -> bytes:
    """What was sent, bounded in size and time."""
    if request.headers.get("content-type", "").split(";")[0].strip().lower() != "application/json":
        raise InputError("send application/json")
    parts, size = [], 0
    try:
        async with asyncio.timeout(ARRIVES):
            async for part in request.stream():
                size += len(part)
                if size > MOST_BYTES:
                    raise InputError(f"the request is larger than {MOST_BYTES:,} bytes")
                parts.append(part)
    except TimeoutError:
        raise InputError(f"the request did not arrive within {ARRIVES:.0f} seconds") from None
    return b"".join(parts)


def _page(facts: Mapping[str, Any], token: str) -> Response:
    """The page, with a script that only this answer may run."""
    from starlette.responses import HTMLResponse

    nonce = secrets.token_urlsafe(16)
    text = environment("plmscope.exploring").get_template("explore.html").render(
        name=facts["run"], version=__version__, nonce=nonce, data={**facts, "token": token, "header": TOKEN_HEADER},
        css=own_text("report.css") + own_text("explained.css", package="plmscope.explaining")
        + own_text("explore.css", package="plmscope.exploring"),
        js=own_text("common.js", "solid.js")
        + own_text("page.js", "structure.js", "protein.js", package="plmscope.explaining")
        + own_text("state.js", "explore.js", package="plmscope.exploring"),
    )  # fmt: skip
    policy = (
        f"{_NOTHING}; script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'; img-src data:; connect-src 'self'"
    )  # fmt: skip
    return HTMLResponse(text, headers={**HEADERS, "Content-Security-Policy": policy})


def _json(value: Any, status: int = 200, more: Mapping[str, str] | None = None) -> Response:
    from starlette.responses import Response

    text = json.dumps(value, ensure_ascii=False, allow_nan=False)
    headers = {**HEADERS, "Content-Security-Policy": _NOTHING, **(more or {})}
    return Response(text.encode(), status, headers, "application/json")


def _plain(text: str, status: int) -> Response:
    from starlette.responses import PlainTextResponse

    return PlainTextResponse(f"{text}\n", status, {**HEADERS, "Content-Security-Policy": _NOTHING})


def names_of(host: str, port: int, more: Sequence[str] = ()) -> list[str]:
    """What a browser may call a server that listens at an address.

    >>> names_of("127.0.0.1", 80)
    ['127.0.0.1:80', 'localhost:80', '127.0.0.1', 'localhost']

    Raises:
        RunError: it listens everywhere and no name is given, or a name is none.
    """
    if host in ("0.0.0.0", "::", "") and not more:
        raise RunError(
            f"--host {host or repr('')} listens everywhere; name this machine by --allow-host, as browsers call it"
        )
    if bad := [name for name in more if not re.fullmatch(r"[A-Za-z0-9.-]+|\[[0-9A-Fa-f:.]+\]", name)]:
        raise RunError(f"--allow-host {bad[0]!r} is no name of a machine; give it without port")
    own = ["127.0.0.1", "localhost"] if host in ("127.0.0.1", "localhost") else [f"[{host}]" if ":" in host else host]
    found = list(dict.fromkeys([*own, *more]))
    return [f"{name}:{port}" for name in found] + (found if port == 80 else [])


def listening(host: str, port: int) -> socket.socket:
    """A socket that is bound; port 0: a free one.

    Raises:
        RunError: the address cannot be used.
    """
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        found = socket.socket(family, socket.SOCK_STREAM)
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        found.bind((host, port))
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise RunError(f"{host}, port {port}: cannot listen there ({reason}); --port 0 takes a free port") from None
    return found


def serve(
    session: Session,
    *,
    host: str = "127.0.0.1",
    port: int = 0,
    allowed: Sequence[str] = (),
    browser: bool = False,
    say: Callable[[str], None] = lambda line: None,
) -> None:
    """Serve the page until Ctrl-C.

    Args:
        session: The loaded run.
        host: Where to listen.
        port: 0: a free one.
        allowed: More names that browsers may call this machine by.
        browser: Open the page.
        say: Told the address.

    Raises:
        RunError: the address cannot be used.
    """
    import uvicorn

    bound = listening(host, port)
    with bound:
        number = bound.getsockname()[1]
        names, token = names_of(host, number, allowed), secrets.token_urlsafe(24)
        address = (
            f"http://{names[0] if not allowed or host == '127.0.0.1' else f'{allowed[0]}:{number}'}/?token={token}"
        )
        config = uvicorn.Config(
            application(session, token=token, hosts=names), log_level="critical", access_log=False, ws="none",
            server_header=False, date_header=False, limit_concurrency=CONNECTIONS, timeout_graceful_shutdown=PATIENCE,
            proxy_headers=False,
        )  # fmt: skip
        with suppress(KeyboardInterrupt):  # the usual end
            bound.listen()  # whoever is quicker than the start waits for it
            say(f"explore: {address}")
            say("Ctrl-C stops it.")
            if browser:
                webbrowser.open(address)
            uvicorn.Server(config).run(sockets=[bound])
    say("explore: stopped")
