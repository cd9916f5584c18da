"""A server on 127.0.0.1 that speaks the Hugging Face hub's protocol for downloads."""

from __future__ import annotations

import hashlib
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

# How a repository behaves: an error as the hub sends it (status, X-Error-Code) ..
ERRORS = {
    "gated": (401, "GatedRepo"),
    "refused": (403, "GatedRepo"),
    "missing": (401, "RepoNotFound"),
    "gone": (404, "RepoNotFound"),
    "broken": (503, ""),
}
# .. or a way to send files.
CUT, TORN, SLOW, STALLED = "cut", "torn", "slow", "stalled"


class Hub(ThreadingHTTPServer):
    """Repositories by id, each a dict of commits to folders of files, with refs to commits."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.commits: dict[str, dict[str, Path]] = {}
        self.refs: dict[tuple[str, str], str] = {}
        self.behaviours: dict[str, str] = {}
        self.sent: Counter[tuple[str, str]] = Counter()  # downloads of large files
        self.resumed: set[str] = set()  # repositories with a resumed download
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.cdn = f"http://localhost:{self.server_port}"

    def handle_error(self, *args: Any) -> None:
        """Ignore clients that close their connection early."""

    def add(self, repository: str, folder: Path, ref: str = "main", behaviour: str = "") -> str:
        """Commit a folder to a repository, point a branch to it and return the commit."""
        commit = hashlib.sha1(str(folder).encode(), usedforsecurity=False).hexdigest()
        self.commits.setdefault(repository, {})[commit] = folder
        self.refs[repository, ref] = commit
        self.behaviours[repository] = behaviour
        return commit


@contextmanager
def serve_hub() -> Iterator[Hub]:
    """Serve a hub in a thread."""
    hub = Hub()
    thread = threading.Thread(target=hub.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield hub
    finally:
        hub.shutdown()
        hub.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    server: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *args: Any) -> None:
        pass

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        parts = self.path.strip("/").split("/")
        if len(parts) == 3 and parts[0] == "move":  # for the tests: move "v1" to another commit
            self.server.refs["/".join(parts[1:]), "v1"] = self.server.refs[
                "/".join(parts[1:]), "v2"
            ]
            return self._reply(200)
        if len(parts) != 5 or parts[2] not in ("resolve", "cdn"):
            return self._reply(404)
        repository, revision, name = "/".join(parts[:2]), parts[3], parts[4]
        behaviour = self.server.behaviours.get(repository, "gone")
        if behaviour in ERRORS:
            status, code = ERRORS[behaviour]
            return self._reply(status, {"X-Error-Code": code} if code else {})
        if behaviour == STALLED:
            time.sleep(2)
        commit = self.server.refs.get((repository, revision), revision)
        folder = self.server.commits[repository].get(commit)
        if folder is None:
            return self._reply(404, {"X-Error-Code": "RevisionNotFound"})
        headers = {"X-Repo-Commit": commit}
        if not (folder / name).is_file():
            return self._reply(404, {"X-Error-Code": "EntryNotFound", **headers})
        data = (folder / name).read_bytes()
        etag = f'"{hashlib.sha256(data).hexdigest()}"'
        if parts[2] == "resolve" and not name.endswith(".json"):  # a large file is elsewhere
            headers |= {"X-Linked-Etag": etag, "X-Linked-Size": str(len(data))}
            location = f"{self.server.cdn}/{repository}/cdn/{commit}/{name}"
            return self._reply(302, {"Location": location, **headers})
        return self._file(data, {"ETag": etag, **headers}, (repository, name), behaviour)

    def _reply(self, status: int, headers: dict[str, str] | None = None) -> None:
        self._start(status, {"Content-Length": "0", **(headers or {})})

    def _start(self, status: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()

    def _file(
        self, data: bytes, headers: dict[str, str], what: tuple[str, str], behaviour: str
    ) -> None:
        asked = self.headers.get("Range")
        start = int(asked.removeprefix("bytes=").split("-")[0]) if asked else 0
        is_large = self.command == "GET" and what[1] != "config.json"
        is_first = is_large and not self.server.sent[what]
        self.server.sent[what] += is_large
        if behaviour == TORN and self.server.sent[what] == 2:
            return self._reply(500)
        if asked:
            self.server.resumed.add(what[0])
            headers["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
        self._start(206 if asked else 200, {"Content-Length": str(len(data) - start), **headers})
        if self.command == "HEAD":
            return None
        if is_first and behaviour in (CUT, TORN):
            self.wfile.write(data[: len(data) // 2])
            self.close_connection = True
            return None
        size = len(data) // 10 + 1 if is_large and behaviour == SLOW else len(data)
        for at in range(start, len(data), size):
            self.wfile.write(data[at : at + size])
            time.sleep(0.05 if size < len(data) else 0)
        return None
