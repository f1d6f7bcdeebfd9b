"""One connection of the fault server: requests, replies, and how they fail."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import hmac
import json
import os
import re
import select
import socket
import struct
import termios
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, quote, unquote, urlsplit

from fault_content import BLOCK_LENGTH, Content, noise_file
from fault_pages import HeldRepo

if TYPE_CHECKING:
    from fault_server_process import ServedOrigin

_KEY = b"of the content delivery network"
_WHOLE = 1 << 17
_TICK = 0.02
_REASONS = {200: "OK", 206: "Partial Content", 302: "Found"}


class _Gone(Exception):
    """The connection ends here."""


@dataclass
class Rule:
    """A fault of some files."""

    path: str
    first: int
    skip: int
    fault: dict[str, Any]
    seen: Counter[str] = field(default_factory=Counter)

    def strikes(self, path: str, first: int, end: int, size: int) -> bool:
        """Tell whether a reply with these bytes is struck, and count it."""
        at = self.fault.get("flip_at")
        if at is not None and not first <= (at if at >= 0 else size + at) < end:
            return False
        number = self.seen[path]
        self.seen[path] += 1
        return number >= self.skip and (self.first < 0 or number < self.skip + self.first)


class Connection:
    """Serves the requests of one client, one after the other."""

    def __init__(self, origin: ServedOrigin, accepted: socket.socket) -> None:
        self._origin = origin
        self._socket = accepted
        self._buffer = b""
        self._pace: tuple[float, float] | None = None
        self.number = id(self)
        accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def wake(self) -> None:
        """Let a connection that waits for a request see that the origin has died."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RD)

    def serve(self) -> None:
        """Answer until either side has enough."""
        try:
            while self._origin.alive and self._read_request():
                time.sleep(self._origin.knobs.latency)
                self._route()
        except (_Gone, OSError):
            pass
        finally:
            if not self._origin.alive:
                self._socket.setsockopt(
                    socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)
                )
            self._socket.close()
            self._origin.closed(self)

    def _read_request(self) -> bool:
        while b"\r\n\r\n" not in self._buffer:
            received = self._socket.recv(1 << 16)
            if not received:
                return False
            self._buffer += received
        head, _, self._buffer = self._buffer.partition(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        self.method, self.target, _version = first.split(" ", 2)
        pairs = (line.partition(":") for line in lines)
        self.headers = {name.strip().lower(): value.strip() for name, _, value in pairs}
        self._read_body(int(self.headers.get("content-length", 0)))
        self._origin.count_request(self.method, self.target, self.headers)
        return True

    def _read_body(self, length: int) -> None:
        while len(self._buffer) < length:
            received = self._socket.recv(1 << 16)
            if not received:
                raise _Gone
            self._buffer += received
        self._buffer = self._buffer[length:]

    # Where a request belongs.

    def _route(self) -> None:
        split = urlsplit(self.target)
        path, query = unquote(split.path), parse_qs(split.query)
        knobs = self._origin.knobs
        if path.startswith("/cdn/"):
            self._delivery(path, query)
        elif knobs.refuse is not None:
            self._error(*knobs.refuse)
        elif knobs.token and not self.headers.get("authorization", "").endswith(knobs.token):
            self._error(401, "RepoNotFound")
        elif match := re.fullmatch(
            r"/api/v1/(model|dataset)s/([^/]+/[^/]+)/repo/(files|tree)", path
        ):
            self._modelscope_listing(match[1], match[2], match[3], query)
        elif match := re.fullmatch(r"/api/v1/(model|dataset)s/([^/]+/[^/]+)/repo", path):
            revision = query.get("Revision", ["master"])[0]
            if repo := self._repo(match[1], match[2], revision, "master"):
                self._file(repo, query["FilePath"][0])
        elif match := re.fullmatch(r"/api/v1/(model|dataset)s/([^/]+/[^/]+)(/revisions)?", path):
            self._modelscope_info(match[1], match[2], bool(match[3]))
        elif path == "/api/v1/repos/internalAccelerationInfo":
            self._json({"Code": 200, "Data": {"InternalRegionQueryAddress": ""}})
        elif match := re.fullmatch(
            r"/api/(model|dataset)s/([^/]+/[^/]+)/(revision|tree)/([^/]+)(/.*)?", path
        ):
            self._huggingface_listing(match, query)
        elif match := re.fullmatch(r"/(datasets/)?([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            kind = "dataset" if match[1] else "model"
            if repo := self._repo(kind, match[2], match[3], "main"):
                self._file(repo, match[4])
        else:
            self._error(404)

    def _repo(self, kind: str, repo_id: str, revision: str, default: str) -> HeldRepo | None:
        repo = self._origin.repos.get((kind, repo_id))
        if repo is None:
            self._error(404, "RepoNotFound")
        elif not repo.knows(revision, default):
            self._error(404, "RevisionNotFound")
        else:
            return repo
        return None

    def _listing_fault(self) -> bool:
        self._origin.count_listing()
        if self._origin.knobs.listing_stall:
            self._wait_for_end()
        if status := self._origin.knobs.listing_status:
            self._error(status)
        return bool(status)

    def _modelscope_listing(
        self, kind: str, repo_id: str, page: str, query: dict[str, list[str]]
    ) -> None:
        revision = query.get("Revision", ["master"])[0]
        if not self._listing_fault() and (repo := self._repo(kind, repo_id, revision, "master")):
            self._body(repo.modelscope_listing(query, paged=page == "tree"))

    def _modelscope_info(self, kind: str, repo_id: str, revisions: bool) -> None:
        repo = self._repo(kind, repo_id, "master", "master")
        if repo is None:
            return
        branches = [{"Revision": "master", "CreatedAt": 1700000000}]
        data: dict[str, Any] = {"Id": 7, "Type": 4, "Name": repo_id}
        if revisions:
            data = {"RevisionMap": {"Branches": branches, "Tags": []}}
        self._json({"Code": 200, "Success": True, "Data": data})

    def _huggingface_listing(self, match: re.Match[str], query: dict[str, list[str]]) -> None:
        if self._listing_fault():
            return
        repo = self._repo(match[1], match[2], match[4], "main")
        if repo is None:
            return
        if match[3] == "revision":
            self._body(repo.huggingface_info())
            return
        first = int(query.get("cursor", ["0"])[0])
        count = self._origin.knobs.page
        body, more = repo.huggingface_tree((match[5] or "").strip("/"), first, count)
        headers = {}
        if more:
            address = f"{self._origin.url}{urlsplit(self.target).path}"
            following = f"{address}?recursive=true&cursor={first + count}"
            headers["Link"] = f'<{following}>; rel="next"'
        self._body(body, headers=headers)

    # Files.

    def _file(self, repo: HeldRepo, path: str) -> None:
        if path not in repo.files:
            self._error(404, "EntryNotFound")
            return
        headers = {"X-Repo-Commit": repo.commit, "ETag": f'"{repo.etag(path)}"'}
        target = self._origin.knobs.redirect_to
        if target is None or len(repo.etag(path)) != 64:  # only large files live elsewhere
            self._send(path, repo.files[path], headers)
            return
        expires = f"{time.time() + self._origin.knobs.signature_seconds:.3f}"
        place = f"/cdn/{repo.kind}/{repo.repo_id}/{path}"
        host = self._origin.origins[target].url
        headers["X-Linked-ETag"] = headers["ETag"]
        headers["X-Linked-Size"] = str(repo.files[path].size)
        headers["Location"] = (
            f"{host}{quote(place)}?Expires={expires}&Signature={_signature(place, expires)}"
        )
        self._body(b"", status=302, headers=headers)

    def _delivery(self, place: str, query: dict[str, list[str]]) -> None:
        expires = query.get("Expires", ["0"])[0]
        given = query.get("Signature", [""])[0]
        if float(expires) < time.time() or not hmac.compare_digest(
            given, _signature(place, expires)
        ):
            self._origin.count_reply(place, 0, 0, 403)
            self._error(403, "AccessDenied")
            return
        _, _, kind, owner, name, path = place.split("/", 5)
        for origin in self._origin.origins:
            if (repo := origin.repos.get((kind, f"{owner}/{name}"))) and path in repo.files:
                self._send(path, repo.files[path], {"ETag": f'"{repo.etag(path)}"'})
                return
        self._error(404)

    def _send(self, path: str, content: Content, headers: dict[str, str]) -> None:
        size = content.size
        first, end, ranged = _asked(self.headers.get("range", ""), size)
        if self.method == "HEAD":
            self._head(200, {**headers, "Content-Length": str(size), "Accept-Ranges": "bytes"})
            return
        if content.told is not None:
            self._error(404, "EntryNotFound")
            return
        fault = self._origin.faults_for(path, first, end, size)
        if fault.get("ignore_range"):
            first, end, ranged = 0, size, False
        if status := fault.get("status"):
            self._origin.count_reply(path, first, end, status)
            extra = {"Retry-After": str(fault["retry_after"])} if "retry_after" in fault else {}
            self._error(status, fault.get("error_code"), extra)
            return
        if ranged and (first >= size or end <= first):
            self._origin.count_reply(path, first, end, 416)
            self._error(416, headers={"Content-Range": f"bytes */{size}"})
            return
        self._origin.count_reply(path, first, end, 206 if ranged else 200)
        length, delta = end - first, fault.get("length_delta", 0)
        headers["Content-Length"] = str(max(0, length + delta))
        if not fault.get("ignore_range"):
            headers["Accept-Ranges"] = "bytes"
        if ranged:
            at = first + fault.get("range_shift", 0)
            total = size + fault.get("total_delta", 0)
            headers["Content-Range"] = f"bytes {at}-{at + length - 1}/{total}"
        if delta < 0:
            end = max(first, end + delta)
        flip = fault.get("flip_at")
        if flip is not None and flip < 0:
            flip += size
        self._send_with_faults(
            path,
            content,
            (first, end),
            (206 if ranged else 200, headers),
            {**fault, "flip_at": flip},
        )
        if delta > 0:
            raise _Gone

    def _send_with_faults(
        self,
        path: str,
        content: Content,
        span: tuple[int, int],
        head: tuple[int, dict[str, str]],
        fault: dict[str, Any],
    ) -> None:
        first, end = span
        rate = fault.get("rate", self._origin.knobs.rate)
        breaks = [name for name in ("reset_after", "fin_after", "stall_after") if name in fault]
        if not breaks and fault["flip_at"] is None and not rate and end - first <= _WHOLE:
            self._head(*head, content.read(first, end))
            self._origin.count_bytes(self.number, path, end - first)
            return
        self._head(*head)
        stop = end
        for name in breaks:
            stop = first + min(fault[name], (end - first) // 2)
        self._pace = (time.monotonic(), rate) if rate else None
        flip = fault["flip_at"]
        if flip is not None and first <= flip < stop:
            self._bytes(path, content, first, flip)
            wrong = content.read(flip, flip + 1)[0] ^ 1
            self._socket.sendall(bytes([wrong]))
            self._origin.count_bytes(self.number, path, 1)
            first = flip + 1
        self._bytes(path, content, first, stop)
        if breaks:
            self._break(breaks[-1])

    def _bytes(self, path: str, content: Content, first: int, end: int) -> None:
        """Send bytes as fast as the pace allows."""
        step = 1 << 20
        if self._pace is not None:
            step = max(1, min(step, int(self._pace[1] * _TICK)))
        if content.literal is not None:
            slices = iter([(at, min(step, end - at)) for at in range(first, end, step)])
        else:
            slices = content.slices(first, end, step)
        for offset, length in slices:
            if not self._origin.alive:
                raise _Gone
            if content.literal is not None:
                self._socket.sendall(content.literal[offset : offset + length])
            else:
                self._send_noise(offset, length)
            self._origin.count_bytes(self.number, path, length)
            self._keep_pace(length)

    def _send_noise(self, offset: int, length: int) -> None:
        assert offset + length <= BLOCK_LENGTH
        while length:
            sent = os.sendfile(self._socket.fileno(), noise_file(), offset, length)
            offset += sent
            length -= sent

    def _keep_pace(self, length: int) -> None:
        if self._pace is None:
            return
        due, rate = self._pace
        due += length / rate
        self._pace = (due, rate)
        pause = due - time.monotonic()
        if pause > 0:
            time.sleep(pause)

    def _break(self, how: str) -> None:
        if how == "stall_after":
            self._wait_for_end()
        elif how == "reset_after":
            self._drain()
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        raise _Gone

    def _drain(self) -> None:
        """Wait until the client's side holds all that was sent: a reset throws the rest away."""
        end = time.monotonic() + 2
        while time.monotonic() < end:
            waiting = fcntl.ioctl(self._socket.fileno(), termios.TIOCOUTQ, b"\0" * 4)
            if not int.from_bytes(waiting, "little"):
                return
            time.sleep(0.002)

    def _wait_for_end(self) -> None:
        """Say nothing until the client gives up."""
        while self._origin.alive:
            ready, _, _ = select.select([self._socket], [], [], 0.1)
            if ready and not self._socket.recv(1 << 16):
                break
        raise _Gone

    # Replies.

    def _head(self, status: int, headers: dict[str, str], body: bytes = b"") -> None:
        lines = [f"HTTP/1.1 {status} {_REASONS.get(status, 'Trouble')}"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        self._socket.sendall("\r\n".join([*lines, "", ""]).encode("latin-1") + body)

    def _body(
        self, body: bytes, *, status: int = 200, headers: dict[str, str] | None = None
    ) -> None:
        common = {"Content-Type": "application/json", "Content-Length": str(len(body))}
        self._head(status, {**common, **(headers or {})}, body if self.method != "HEAD" else b"")

    def _json(self, value: object) -> None:
        self._body(json.dumps(value).encode())

    def _error(
        self, status: int, code: str | None = None, headers: dict[str, str] | None = None
    ) -> None:
        message = {"error": code or "trouble", "Code": status, "Message": code or "trouble"}
        extra = {"X-Error-Code": code, "X-Error-Message": code} if code else {}
        self._body(
            json.dumps(message).encode(), status=status, headers={**extra, **(headers or {})}
        )


def _signature(place: str, expires: str) -> str:
    return hmac.new(_KEY, f"{place} {expires}".encode(), hashlib.sha256).hexdigest()


def _asked(header: str, size: int) -> tuple[int, int, bool]:
    """Return the first byte, the end, and whether a range was asked for."""
    match = re.fullmatch(r"bytes=(\d*)-(\d*)", header)
    if not match or not (match[1] or match[2]):
        return 0, size, False
    if not match[1]:
        return max(0, size - int(match[2])), size, True
    end = min(size, int(match[2]) + 1) if match[2] else size
    return int(match[1]), end, True
