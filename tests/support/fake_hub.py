"""A loopback server that speaks the APIs of both hubs for small repositories, with faults.

It serves the unmodified clients of ModelScope and Hugging Face: listings with
hashes, whole files and ranges. A test sets `faults` to see how a client of it
bears a bad network.
"""

from __future__ import annotations

import hashlib
import json
import re
import socket
import struct
import threading
from collections import Counter
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from urllib.parse import parse_qs, unquote, urlsplit

LFS_SUFFIXES = (".safetensors", ".bin", ".gguf", ".parquet")
FOREVER = 10**9
_CHUNK = 1 << 16


@dataclass
class Faults:
    """What goes wrong. A number says for how many requests of each file; -1 means always."""

    unavailable: int = 0
    reset: int = 0
    flip: int = 0
    listing_status: int = 0
    silent_listing: bool = False
    extra_paths: list[str] = field(default_factory=list)
    chunk_pause: float = 0.0


class FakeHub:
    """Serves repositories on a free port of the loopback device.

    Parameters
    ----------
    repositories : dict
        Content by path, by (kind, id), where kind is ``model`` or ``dataset``.
    token : str, optional
        What a request must show to be let in.
    """

    def __init__(
        self, repositories: dict[tuple[str, str], dict[str, bytes]], token: str | None = None
    ) -> None:
        self.repositories = repositories
        self.token = token
        self.faults = Faults()
        self.requests: list[str] = []
        self.byte_requests: Counter[str] = Counter()
        self.ranges: list[str] = []
        self._lock = threading.Lock()
        self._released = threading.Event()
        self._server = _Server(("127.0.0.1", 0), _Handler)
        self._server.hub = self
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))

    @property
    def url(self) -> str:
        """The address without a trailing slash."""
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> FakeHub:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._released.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def wait_for_release(self) -> None:
        """Keep a request waiting until the server stops."""
        self._released.wait(60)

    def pause(self, seconds: float) -> None:
        """Pause between two pieces of a file, at most until the server stops."""
        self._released.wait(seconds)

    def note(self, line: str) -> None:
        """Remember a request."""
        with self._lock:
            self.requests.append(line)

    def strikes(self, fault: str, path: str) -> bool:
        """Tell whether `fault` strikes this request for the bytes of `path`."""
        count = getattr(self.faults, fault)
        with self._lock:
            seen = self.byte_requests[f"{fault} {path}"]
            self.byte_requests[f"{fault} {path}"] += 1
        return bool(count < 0 or seen < count)

    def commit(self, kind: str, repo_id: str) -> str:
        """Return the commit of a repository: a hash of all that it holds."""
        digest = hashlib.sha1()
        for path, content in sorted(self.repositories[kind, repo_id].items()):
            digest.update(path.encode() + b"\0" + content)
        return digest.hexdigest()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    hub: FakeHub


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def do_HEAD(self) -> None:
        self._route()

    def do_GET(self) -> None:
        self._route()

    def log_message(self, format: str, *arguments: object) -> None:
        return

    @property
    def hub(self) -> FakeHub:
        return self.server.hub

    def _route(self) -> None:
        split = urlsplit(self.path)
        path, query = unquote(split.path), parse_qs(split.query)
        self.hub.note(f"{self.command} {path}")
        token = self.hub.token
        if path != "/" and token and token not in self.headers.get("Authorization", ""):
            self._json({"Code": 401, "Message": "no access"}, 401)
        elif match := re.fullmatch(
            r"/api/v1/(model|dataset)s/([^/]+/[^/]+)/repo/(files|tree)", path
        ):
            self._modelscope_listing(match[1], match[2], query)
        elif match := re.fullmatch(r"/api/v1/(model|dataset)s/([^/]+/[^/]+)/repo", path):
            self._bytes(match[1], match[2], query["FilePath"][0])
        elif match := re.fullmatch(r"/api/(model|dataset)s/([^/]+/[^/]+)/revision/(.+)", path):
            self._huggingface_info(match[1], match[2], match[3])
        elif match := re.fullmatch(r"/api/(model|dataset)s/([^/]+/[^/]+)/tree/([^/]+)", path):
            self._huggingface_tree(match[1], match[2])
        elif match := re.fullmatch(r"/(datasets/)?([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            self._bytes("dataset" if match[1] else "model", match[2], match[4])
        else:
            self._json({"error": "no such page"}, 404)

    def _modelscope_listing(self, kind: str, repo_id: str, query: dict[str, list[str]]) -> None:
        if self._listing_fault():
            return
        files = self.hub.repositories.get((kind, repo_id))
        revision = query.get("Revision", ["master"])[0]
        if files is None or revision != "master":
            self._json({"Code": 10010205001, "Message": "not found"}, 404)
            return
        entries = [
            {
                "Path": path,
                "Name": path.rpartition("/")[2],
                "Type": "blob",
                "Size": len(content),
                "Sha256": hashlib.sha256(content).hexdigest(),
            }
            for path, content in sorted(files.items())
        ]
        entries += [
            {"Path": path, "Name": path, "Type": "blob", "Size": 1, "Sha256": "0" * 64}
            for path in self.hub.faults.extra_paths
        ]
        if kind == "dataset":
            size = int(query.get("PageSize", ["200"])[0])
            first = (int(query.get("PageNumber", ["1"])[0]) - 1) * size
            entries = entries[first : first + size]
        self._json({"Code": 200, "Success": True, "Data": {"Files": entries}})

    def _huggingface_info(self, kind: str, repo_id: str, revision: str) -> None:
        if self._listing_fault():
            return
        files = self.hub.repositories.get((kind, repo_id))
        if files is None:
            self._json({"error": "Repository not found"}, 404, {"X-Error-Code": "RepoNotFound"})
            return
        commit = self.hub.commit(kind, repo_id)
        if revision not in ("main", commit):
            self._json({"error": "Invalid rev"}, 404, {"X-Error-Code": "RevisionNotFound"})
            return
        siblings = [{"rfilename": path} for path in sorted(files)]
        self._json({"id": repo_id, "sha": commit, "siblings": siblings})

    def _huggingface_tree(self, kind: str, repo_id: str) -> None:
        entries: list[dict[str, object]] = []
        for path, content in sorted(self.hub.repositories[kind, repo_id].items()):
            entry: dict[str, object] = {
                "type": "file",
                "path": path,
                "size": len(content),
                "oid": git_sha1(content),
            }
            if path.endswith(LFS_SUFFIXES):
                oid = hashlib.sha256(content).hexdigest()
                entry["lfs"] = {"oid": oid, "size": len(content), "pointerSize": 130}
            entries.append(entry)
        entries += [
            {"type": "file", "path": path, "size": 1, "oid": "0" * 40}
            for path in self.hub.faults.extra_paths
        ]
        self._json(entries)

    def _listing_fault(self) -> bool:
        faults = self.hub.faults
        if faults.silent_listing:
            self.hub.wait_for_release()
            self.close_connection = True
            return True
        if faults.listing_status:
            self._json({"error": "trouble"}, faults.listing_status)
            return True
        return False

    def _bytes(self, kind: str, repo_id: str, path: str) -> None:
        content = self.hub.repositories.get((kind, repo_id), {}).get(path)
        if content is None:
            self._json({"error": "Entry not found"}, 404, {"X-Error-Code": "EntryNotFound"})
            return
        etag = (
            hashlib.sha256(content).hexdigest()
            if path.endswith(LFS_SUFFIXES)
            else git_sha1(content)
        )
        start = 0
        if match := re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", "")):
            start = int(match[1])
        headers = {
            "ETag": f'"{etag}"',
            "X-Repo-Commit": self.hub.commit(kind, repo_id),
            "Accept-Ranges": "bytes",
            "Content-Length": str(len(content) - start),
            "Content-Type": "application/octet-stream",
        }
        if start:
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
            self.hub.ranges.append(f"{path} {start}")
        if self.command == "HEAD":
            self._head(200, headers)
            return
        self._send_bytes(path, content[start:], 206 if start else 200, headers)

    def _send_bytes(self, path: str, body: bytes, status: int, headers: dict[str, str]) -> None:
        if self.hub.strikes("unavailable", path):
            self._json({"error": "busy"}, 503)
            return
        if self.hub.strikes("flip", path) and body:
            middle = len(body) // 2
            body = body[:middle] + bytes([body[middle] ^ 1]) + body[middle + 1 :]
        cut = len(body) // 2 if self.hub.strikes("reset", path) else None
        self._head(status, headers)
        for position in range(0, len(body), _CHUNK):
            piece = body[position : position + _CHUNK]
            if cut is not None and position + len(piece) > cut:
                self.wfile.write(piece[: cut - position])
                self._break_connection()
                return
            try:
                self.wfile.write(piece)
            except OSError:
                return
            if self.hub.faults.chunk_pause:
                self.hub.pause(self.hub.faults.chunk_pause)

    def _break_connection(self) -> None:
        """Reset instead of closing in order."""
        self.wfile.flush()
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close_connection = True
        self.connection.close()

    def _head(self, status: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()

    def _json(
        self, value: object, status: int = 200, headers: dict[str, str] | None = None
    ) -> None:
        body = json.dumps(value).encode()
        self._head(
            status,
            {
                "Content-Type": "application/json",
                "Content-Length": str(len(body)),
                **(headers or {}),
            },
        )
        if self.command != "HEAD":
            self.wfile.write(body)


def git_sha1(content: bytes) -> str:
    """Return git's blob id of `content`."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def free_dead_url() -> str:
    """Return the address of a port on which nothing listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{probe.getsockname()[1]}"
