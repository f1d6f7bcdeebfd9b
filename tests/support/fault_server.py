"""Hubs on the loopback device, in a process of their own, that fail as they are told.

::

    with FaultServer() as server:
        hub = server.add_origin([Repo("lab/big", {"model.safetensors": 32 << 20})])
        hub.set(rate=10e6, latency=0.03)
        hub.fault("*.safetensors", first=2, reset_after=16 << 20)
        …  # a client pulls from hub.url
        hub.counters().sent_bytes
"""

from __future__ import annotations

import base64
import json
import subprocess
import sys
import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

ALWAYS = -1
# Bytes, or a length, or a length and a SHA-256 that are only told.
FileContent = int | bytes | tuple[int, str]
_PROCESS = Path(__file__).with_name("fault_server_process.py")


@dataclass
class Repo:
    """One repository.

    Parameters
    ----------
    repo_id : str
        ``owner/name``.
    files : mapping
        By path, the content, or its length alone, or length and SHA-256 of what is never sent.
    kind : {"model", "dataset"}
        What it is.
    seed : str
        Equal seeds and paths give equal content.
    listed : mapping of str to dict
        Lies of the listing, by path: ``size``, ``sha256`` or ``git_sha1``.
    extra : sequence of dict
        Entries that only the listing knows: ``path``, ``size``, ``sha256``.
    generated : int
        So many more entries, of files of one byte.
    hashes : bool
        Whether ModelScope's listing tells SHA-256, Hugging Face's the LFS object.
    revisions : sequence of str
        The names under which it is found, besides ``master``, ``main`` and its commit.
    stuck_page : bool
        Whether every page of ModelScope's listing is the first one.
    """

    repo_id: str
    files: Mapping[str, FileContent]
    kind: str = "model"
    seed: str = ""
    listed: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    extra: Sequence[Mapping[str, Any]] = ()
    generated: int = 0
    hashes: bool = True
    revisions: Sequence[str] = ()
    stuck_page: bool = False

    def as_message(self) -> dict[str, Any]:
        """Return it in the form that the server's process reads."""
        files = [{"path": path, **_as_message(content)} for path, content in self.files.items()]
        others = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "files"}
        return {**others, "files": files}


def _as_message(content: FileContent) -> dict[str, Any]:
    if isinstance(content, int):
        return {"size": content}
    if isinstance(content, tuple):
        return {"size": content[0], "sha256": content[1]}
    return {"size": len(content), "literal": base64.b64encode(content).decode()}


@dataclass
class Counters:
    """What an origin saw.

    `ranges` holds (path, first, end, status) of each reply with bytes, `connections` the
    bytes that each connection carried, `requests` (method, target, headers).
    """

    sent_bytes: int
    byte_requests: int
    listing_requests: int
    most_connections: int
    bytes_by_path: dict[str, int]
    requests_by_path: dict[str, int]
    connections: list[int]
    ranges: list[tuple[str, int, int, int]]
    requests: list[tuple[str, str, dict[str, str]]]

    def seen(self, header: str) -> set[str]:
        """Return all values of a header."""
        return {h[header.lower()] for _m, _t, h in self.requests if header.lower() in h}


class Origin:
    """The handle of one hub in the server's process.

    Parameters
    ----------
    server : FaultServer
        Its process.
    number : int
        Its place there.
    url : str
        The address without a trailing slash.
    """

    def __init__(self, server: FaultServer, number: int, url: str) -> None:
        self.server = server
        self.number = number
        self.url = url

    def set(self, **knobs: Any) -> None:
        """Turn knobs that hold for all requests.

        Parameters
        ----------
        rate : float or None
            Bytes per second and connection.
        latency : float
            Seconds before each reply.
        page : int
            Entries in a page of Hugging Face's tree.
        token : str or None
            What requests must show, or get 401.
        refuse : tuple of int, str or None
            Status and ``X-Error-Code`` of every reply.
        listing_status : int
            Status of every listing instead of 200.
        listing_stall : bool
            Whether listings never answer.
        redirect_to : Origin or None
            Bytes come from there, by addresses with a signature.
        signature_seconds : float
            How long such an address is good.
        die_after : int or None
            Bytes after which it closes its port and resets all connections.
        """
        if isinstance(knobs.get("redirect_to"), Origin):
            knobs["redirect_to"] = knobs["redirect_to"].number
        self._call("set", knobs=knobs)

    def fault(self, path: str = "*", *, first: int = ALWAYS, skip: int = 0, **fault: Any) -> None:
        """Let requests for the bytes of files fail.

        Parameters
        ----------
        path : str
            A glob pattern.
        first, skip : int
            How many requests of each file it strikes, after how many that it spares.
        reset_after, fin_after, stall_after : int
            Bytes of the body (half of it, when it is short) before a TCP reset, an orderly
            close, or silence.
        status, retry_after, error_code
            An error instead of bytes.
        flip_at : int
            Offset in the file of a byte with a wrong bit; negative counts from the end.
            Replies without that byte are not struck.
        length_delta : int
            What Content-Length says too much; the body is short when it is negative.
        ignore_range : bool
            The whole file with 200, whatever was asked.
        total_delta, range_shift : int
            Lies of Content-Range about the whole length and about the first byte.
        rate : float
            Bytes per second of this reply.
        """
        self._call("fault", path=path, first=first, skip=skip, fault=fault)

    def clear(self) -> None:
        """Forget all faults; knobs stay."""
        self._call("clear")

    def put(self, *repos: Repo) -> None:
        """Add repositories, or replace those of the same name."""
        self._call("put", repos=[repo.as_message() for repo in repos])

    def counters(self, *, reset: bool = False) -> Counters:
        """Return what was counted, and begin anew if wanted."""
        found = self._call("counters", reset=reset)
        found["ranges"] = [tuple(line) for line in found["ranges"]]
        found["requests"] = [tuple(line) for line in found["requests"]]
        return Counters(**found)

    def sent_bytes(self) -> int:
        """Return the bytes of files sent so far; cheap."""
        return int(self._call("sent"))

    def sha256(self, repo_id: str, kind: str = "model") -> dict[str, str]:
        """Return the true SHA-256 of each file of a repository."""
        return dict(self._call("hashes", repo_id=repo_id, kind=kind))

    def commit(self, repo_id: str, kind: str = "model") -> str:
        """Return the commit by which Hugging Face's API names the repository."""
        return str(self._call("commit", repo_id=repo_id, kind=kind))

    def die(self) -> None:
        """Close the port and reset all connections."""
        self._call("die")

    def revive(self) -> None:
        """Listen again on the same port."""
        self._call("revive")

    def _call(self, operation: str, **arguments: Any) -> Any:
        return self.server.call(operation, origin=self.number, **arguments)


class FaultServer:
    """The process in which the origins live."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> FaultServer:
        self._process = subprocess.Popen(
            [sys.executable, str(_PROCESS)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            encoding="utf-8",
        )
        return self

    def __exit__(self, *_error: object) -> None:
        process, self._process = self._process, None
        assert process is not None and process.stdin and process.stdout
        # The end of its input is the sign to go.
        process.stdin.close()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdout.close()

    def add_origin(
        self, repos: Iterable[Repo] = (), *, host: str = "127.0.0.1", **knobs: Any
    ) -> Origin:
        """Open one more hub on a free port of `host`; `knobs` as in `Origin.set`."""
        answer = self.call("add", host=host, repos=[repo.as_message() for repo in repos])
        origin = Origin(self, answer["number"], answer["url"])
        if knobs:
            origin.set(**knobs)
        return origin

    def cpu_seconds(self) -> float:
        """Return the processor time that the server has used."""
        return float(self.call("cpu"))

    def call(self, operation: str, **arguments: Any) -> Any:
        """Send one order and return the answer."""
        with self._lock:
            process = self._process
            assert process is not None and process.stdin and process.stdout, "not running"
            process.stdin.write(json.dumps({"operation": operation, **arguments}) + "\n")
            process.stdin.flush()
            line = process.stdout.readline()
        if not line:
            raise RuntimeError("the fault server has ended")
        answer = json.loads(line)
        if "error" in answer:
            raise RuntimeError(f"fault server: {answer['error']}")
        return answer["result"]
