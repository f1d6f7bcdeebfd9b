"""A loopback server that speaks the APIs of both hubs for small repositories, with faults.

It serves our own client and the unmodified ones of ModelScope and Hugging Face:
listings with hashes, whole files and ranges. A test sets `faults` to see how a
client of it bears a bad network.
"""

from __future__ import annotations

import hashlib
import json
import re
import socket
import struct
import sys
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
    extra_entries: list[dict[str, object]] = field(default_factory=list)
    chunk_pause: float = 0.0
    gated: bool = False
    endless_pages: bool = False
    cut_at: int = 0


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
        self.refused_token = ""
        self.revisions: list[str] = []
        self.requests: list[str] = []
        self.credentials: set[str] = set()
        self.byte_requests: Counter[str] = Counter()
        self.ranges: list[str] = []
        self.sent: Counter[str] = Counter()
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

    def count_sent(self, path: str, count: int) -> None:
        """Remember bytes of a file that were sent."""
        with self._lock:
            self.sent[path] += count

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

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing of clients that leave."""
        if not isinstance(sys.exc_info()[1], OSError):
            super().handle_error(request, client_address)  # type: ignore[arg-type]


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
        for name in ("Authorization", "Cookie"):
            if self.headers.get(name):
                self.hub.credentials.add(str(self.headers[name]))
        token = self.hub.token
        shown = self.headers.get("Authorization", "")
        refused = self.hub.refused_token and self.hub.refused_token in shown
        if path != "/" and (refused or (token and token not in shown)):
            self._json({"Code": 401, "Message": "no access"}, 401)
        elif match := re.fullmatch(
            r"/api/v1/(model|dataset)s/([^/]+/[^/]+)/repo/(files|tree)", path
        ):
            self._modelscope_listing(match[1], match[2], query)
        elif match := re.fullmatch(r"/api/v1/(model|dataset)s/([^/]+/[^/]+)/revisions", path):
            self._modelscope_revisions(match[1], match[2])
        elif match := re.fullmatch(r"/api/(model|dataset)s/([^/]+/[^/]+)/refs", path):
            names = [{"name": name, "ref": f"refs/heads/{name}"} for name in self._revisions]
            self._json({"branches": names, "tags": [], "converts": []})
        elif match := re.fullmatch(r"/api/v1/(model|dataset)s/([^/]+/[^/]+)/repo", path):
            self._bytes(match[1], match[2], query["FilePath"][0])
        elif match := re.fullmatch(r"/api/(model|dataset)s/([^/]+/[^/]+)/revision/(.+)", path):
            self._huggingface_info(match[1], match[2], match[3])
        elif match := re.fullmatch(r"/api/(model|dataset)s/([^/]+/[^/]+)/tree/([^/]+)", path):
            self._huggingface_tree(match[1], match[2], query)
        elif match := re.fullmatch(r"/(datasets/)?([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            self._bytes("dataset" if match[1] else "model", match[2], match[4])
        else:
            self._json({"error": "no such page"}, 404)

    def _modelscope_listing(self, kind: str, repo_id: str, query: dict[str, list[str]]) -> None:
        if self._listing_fault():
            return
        files = self.hub.repositories.get((kind, repo_id))
        revision = query.get("Revision", ["master"])[0]
        if files is None or revision not in ("master", *self.hub.revisions):
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
        entries += self.hub.faults.extra_entries
        root = query.get("Root", [""])[0]
        if self.hub.faults.cut_at:
            entries = _below(entries, root, query.get("Recursive") == ["True"])
            entries = entries[: self.hub.faults.cut_at]
        if kind == "dataset" and not self.hub.faults.endless_pages:
            size = int(query.get("PageSize", ["200"])[0])
            first = (int(query.get("PageNumber", ["1"])[0]) - 1) * size
            entries = entries[first : first + size]
        self._json({"Code": 200, "Success": True, "Data": {"Files": entries}})

    def _modelscope_revisions(self, kind: str, repo_id: str) -> None:
        if (kind, repo_id) not in self.hub.repositories:
            self._json({"Code": 10010205001, "Message": "not found"}, 404)
            return
        branches = [{"Revision": name} for name in ("master", *self.hub.revisions)]
        self._json({"Code": 200, "Data": {"RevisionMap": {"Branches": branches, "Tags": []}}})

    @property
    def _revisions(self) -> tuple[str, ...]:
        return ("main", *self.hub.revisions)

    def _huggingface_info(self, kind: str, repo_id: str, revision: str) -> None:
        if self._listing_fault():
            return
        files = self.hub.repositories.get((kind, repo_id))
        if files is None:
            self._json({"error": "Repository not found"}, 404, {"X-Error-Code": "RepoNotFound"})
            return
        commit = self.hub.commit(kind, repo_id)
        if revision not in (*self._revisions, commit):
            self._json({"error": "Invalid rev"}, 404, {"X-Error-Code": "RevisionNotFound"})
            return
        siblings = [{"rfilename": path} for path in sorted(files)]
        self._json({"id": repo_id, "sha": commit, "siblings": siblings})

    def _huggingface_tree(self, kind: str, repo_id: str, query: dict[str, list[str]]) -> None:
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
        entries += self.hub.faults.extra_entries
        headers = {}
        if self.hub.faults.endless_pages:
            number = int(query.get("cursor", ["0"])[0])
            # As mirrors do, with the address of another host.
            place = f"https://elsewhere.invalid{urlsplit(self.path).path}"
            headers["Link"] = f'<{place}?cursor={min(number + 1, 3)}>; rel="next"'
        self._json(entries, headers=headers)

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
        if self.hub.faults.gated:
            self._json({"error": "gated"}, 403, {"X-Error-Code": "GatedRepo"})
            return
        etag = (
            hashlib.sha256(content).hexdigest()
            if path.endswith(LFS_SUFFIXES)
            else git_sha1(content)
        )
        start = 0
        end = len(content)
        match = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if match:
            start = int(match[1])
            end = min(end, int(match[2]) + 1) if match[2] else end
        headers = {
            "ETag": f'"{etag}"',
            "X-Repo-Commit": self.hub.commit(kind, repo_id),
            "Accept-Ranges": "bytes",
            "Content-Length": str(end - start),
            "Content-Type": "application/octet-stream",
        }
        if match:
            headers["Content-Range"] = f"bytes {start}-{end - 1}/{len(content)}"
            self.hub.ranges.append(f"{path} {start}")
        if self.command == "HEAD":
            self._head(200, headers)
            return
        self._send_bytes(path, content[start:end], 206 if match else 200, headers)

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
            self.hub.count_sent(path, len(piece))
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


def _below(entries: list[dict[str, object]], root: str, recursive: bool) -> list[dict[str, object]]:
    """Return the entries of a folder, with the folders among them."""
    prefix = f"{root}/" if root else ""
    found: dict[str, dict[str, object]] = {}
    for entry in entries:
        path = str(entry["Path"])
        if not path.startswith(prefix):
            continue
        parts = path.removeprefix(prefix).split("/")
        for count in range(1, len(parts)) if recursive else range(1, min(2, len(parts))):
            folder = prefix + "/".join(parts[:count])
            found.setdefault(folder, {"Path": folder, "Type": "tree", "Size": 0})
        if recursive or len(parts) == 1:
            found[path] = entry
    return list(found.values())


def git_sha1(content: bytes) -> str:
    """Return git's blob id of `content`."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def free_dead_url() -> str:
    """Return the address of a port on which nothing listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{probe.getsockname()[1]}"
