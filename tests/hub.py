"""A small Hugging Face hub on 127.0.0.1: the endpoints that downloading a model needs, with redirects and ETags."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit


class Hub:
    """Repositories as folders; every one has a single commit, on ``main`` and under the tag ``v1``.

    Attributes:
        folders: Repository id to folder.
        asked: Every request, as ``METHOD path``.
        gated: Ids that need consent.
    """

    def __init__(self, folders: dict[str, Path]) -> None:
        self.folders, self.asked, self.gated = folders, list[str](), set[str]()

    def commit(self, name: str) -> str:
        return hashlib.sha1(name.encode()).hexdigest()

    def files(self, name: str) -> list[Path]:
        return sorted(path for path in self.folders[name].iterdir() if path.is_file())

    def entry(self, path: Path) -> dict[str, object]:
        """How the hub lists a file; safetensors are large files (LFS)."""
        content = path.read_bytes()
        entry = {"type": "file", "path": path.name, "size": len(content), "oid": hashlib.sha1(content).hexdigest()}
        if path.suffix != ".safetensors":
            return entry
        lfs = {"oid": hashlib.sha256(content).hexdigest(), "size": len(content), "pointerSize": 130}
        return entry | {"lfs": lfs}


@contextmanager
def serving(hub: Hub) -> Iterator[str]:
    """The hub's address for the length of the block."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            pass

        def answer(self, status: int, content: bytes = b"", **headers: str) -> None:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name.replace("_", "-"), value)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(content)

        def do_GET(self) -> None:
            path = unquote(urlsplit(self.path).path)
            hub.asked.append(f"{self.command} {path}")
            if path.startswith("/cdn/"):  # where large files really are
                name, _, file = path.removeprefix("/cdn/").rpartition("/")
                return self.answer(200, (hub.folders[name] / file).read_bytes())
            parts = path.strip("/").split("/")
            api = parts[:2] == ["api", "models"]
            name, rest = "/".join(parts[2:4] if api else parts[:2]), parts[4 if api else 2 :]
            if name not in hub.folders:
                return self.answer(401, X_Error_Code="RepoNotFound", X_Error_Message="Repository not found")
            if name in hub.gated:
                return self.answer(403, X_Error_Code="GatedRepo", X_Error_Message="Access is restricted")
            commit = hub.commit(name)
            revision = rest[1] if len(rest) > 1 else "main"
            if revision not in ("main", "v1", commit):
                return self.answer(404, X_Error_Code="RevisionNotFound", X_Error_Message="Invalid rev id")
            if api and rest[:1] == ["tree"]:
                listing = [hub.entry(file) for file in hub.files(name)]
                return self.answer(200, json.dumps(listing).encode(), Content_Type="application/json")
            if api:
                siblings = [{"rfilename": file.name, "size": file.stat().st_size} for file in hub.files(name)]
                content = {"id": name, "sha": commit, "private": False, "tags": [], "siblings": siblings}
                return self.answer(200, json.dumps(content).encode(), Content_Type="application/json")
            file = hub.folders[name] / rest[2]
            if not file.is_file():
                return self.answer(404, X_Error_Code="EntryNotFound", X_Repo_Commit=commit)
            content = file.read_bytes()
            if file.suffix == ".safetensors":
                etag = hashlib.sha256(content).hexdigest()
                return self.answer(
                    302, Location=f"{addresses[1]}/cdn/{name}/{file.name}", X_Repo_Commit=commit,
                    X_Linked_ETag=f'"{etag}"', X_Linked_Size=str(len(content)),
                )  # fmt: skip
            return self.answer(200, content, ETag=f'"{hashlib.sha1(content).hexdigest()}"', X_Repo_Commit=commit)

        do_HEAD = do_GET

    # The second is the store that large files are redirected to: on another host, as the hub's is.
    servers = [ThreadingHTTPServer(("127.0.0.1", 0), Handler) for _ in range(2)]
    addresses = [f"http://127.0.0.1:{server.server_port}" for server in servers]
    threads = [threading.Thread(target=server.serve_forever, daemon=True) for server in servers]
    for thread in threads:
        thread.start()
    try:
        yield addresses[0]
    finally:
        for server in servers:
            server.shutdown()
            server.server_close()
        for thread in threads:
            thread.join()
