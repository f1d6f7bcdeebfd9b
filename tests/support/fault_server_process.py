"""The process of the fault server: origins, their counters and the orders from the pipe."""

from __future__ import annotations

import json
import os
import socket
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any

from fault_connection import Connection, Rule
from fault_pages import HeldRepo

_KEPT_REQUESTS = 5000


@dataclass
class Knobs:
    """What holds for all requests of an origin."""

    rate: float | None = None
    latency: float = 0.0
    page: int = 1000
    token: str | None = None
    refuse: tuple[int, str | None] | None = None
    listing_status: int = 0
    listing_stall: bool = False
    redirect_to: int | None = None
    signature_seconds: float = 3600.0
    die_after: int | None = None


@dataclass
class Tally:
    """What an origin saw."""

    sent_bytes: int = 0
    byte_requests: int = 0
    listing_requests: int = 0
    most_connections: int = 0
    bytes_by_path: Counter[str] = field(default_factory=Counter)
    requests_by_path: Counter[str] = field(default_factory=Counter)
    connections: dict[int, int] = field(default_factory=dict)
    ranges: list[tuple[str, int, int, int]] = field(default_factory=list)
    requests: list[tuple[str, str, dict[str, str]]] = field(default_factory=list)


class ServedOrigin:
    """One hub: a listening port, repositories, knobs, faults and counters."""

    def __init__(self, origins: list[ServedOrigin], host: str) -> None:
        self.origins = origins
        self.host = host
        self.port = 0
        self.knobs = Knobs()
        self.repos: dict[tuple[str, str], HeldRepo] = {}
        self.tally = Tally()
        self.alive = False
        self._rules: list[Rule] = []
        self._lock = threading.Lock()
        self._open: set[Connection] = set()
        self._listener: socket.socket | None = None
        self.listen()

    @property
    def url(self) -> str:
        return f"http://{self.host}:{self.port}"

    def listen(self) -> None:
        """Open the port; the same one as before, if it was open."""
        if self.alive:
            return
        listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((self.host, self.port))
        listener.listen(1024)
        self.port = listener.getsockname()[1]
        self._listener, self.alive = listener, True
        threading.Thread(target=self._accept, args=(listener,), daemon=True).start()

    def _accept(self, listener: socket.socket) -> None:
        while self.alive:
            try:
                accepted, _address = listener.accept()
            except OSError:
                return
            connection = Connection(self, accepted)
            with self._lock:
                self._open.add(connection)
                tally = self.tally
                tally.most_connections = max(tally.most_connections, len(self._open))
            threading.Thread(target=connection.serve, daemon=True).start()

    def closed(self, connection: Connection) -> None:
        """Forget a connection."""
        with self._lock:
            self._open.discard(connection)

    def die(self) -> None:
        """Close the port; the connections reset themselves as soon as they see it."""
        with self._lock:
            listener, self._listener, self.alive = self._listener, None, False
            connections = list(self._open)
        if listener is not None:
            listener.shutdown(socket.SHUT_RDWR)
            listener.close()
        for connection in connections:
            connection.wake()

    def count_request(self, method: str, target: str, headers: dict[str, str]) -> None:
        """Remember a request."""
        with self._lock:
            if len(self.tally.requests) < _KEPT_REQUESTS:
                self.tally.requests.append((method, target, headers))

    def count_listing(self) -> None:
        """Count a request for a listing."""
        with self._lock:
            self.tally.listing_requests += 1

    def count_reply(self, path: str, first: int, end: int, status: int) -> None:
        """Count a reply with bytes of a file."""
        with self._lock:
            self.tally.byte_requests += 1
            self.tally.requests_by_path[path] += 1
            if len(self.tally.ranges) < _KEPT_REQUESTS:
                self.tally.ranges.append((path, first, end, status))

    def count_bytes(self, connection: int, path: str, count: int) -> None:
        """Count sent bytes, and die of them where that is wanted."""
        with self._lock:
            tally = self.tally
            tally.sent_bytes += count
            tally.bytes_by_path[path] += count
            tally.connections[connection] = tally.connections.get(connection, 0) + count
            limit = self.knobs.die_after
            dies = limit is not None and tally.sent_bytes >= limit
            if dies:
                self.knobs.die_after = None
        if dies:
            self.die()

    def faults_for(self, path: str, first: int, end: int, size: int) -> dict[str, Any]:
        """Return the faults that strike a reply with these bytes, and count them."""
        found: dict[str, Any] = {}
        with self._lock:
            for rule in self._rules:
                if fnmatchcase(path, rule.path) and rule.strikes(path, first, end, size):
                    found.update(rule.fault)
        return found

    # Orders from the pipe.

    def set(self, knobs: dict[str, Any]) -> None:
        for name, value in knobs.items():
            getattr(self.knobs, name)
            setattr(self.knobs, name, value)

    def fault(self, path: str, first: int, skip: int, fault: dict[str, Any]) -> None:
        with self._lock:
            self._rules.append(Rule(path, first, skip, fault))

    def clear(self) -> None:
        with self._lock:
            self._rules.clear()

    def put(self, repos: list[dict[str, Any]]) -> None:
        for message in repos:
            repo = HeldRepo(message)
            repo.prepare()
            self.repos[repo.kind, repo.repo_id] = repo

    def counters(self, reset: bool) -> dict[str, Any]:
        with self._lock:
            tally = self.tally
            if reset:
                self.tally = Tally(most_connections=len(self._open))
            return {**vars(tally), "connections": list(tally.connections.values())}

    def sent(self) -> int:
        return self.tally.sent_bytes

    def hashes(self, repo_id: str, kind: str) -> dict[str, str]:
        files = self.repos[kind, repo_id].files
        return {path: content.hashes()[0] for path, content in files.items()}

    def commit(self, repo_id: str, kind: str) -> str:
        return self.repos[kind, repo_id].commit


_ORDERS: dict[str, Callable[..., Any]] = {
    "set": ServedOrigin.set,
    "fault": ServedOrigin.fault,
    "clear": ServedOrigin.clear,
    "put": ServedOrigin.put,
    "counters": ServedOrigin.counters,
    "sent": ServedOrigin.sent,
    "hashes": ServedOrigin.hashes,
    "commit": ServedOrigin.commit,
    "die": ServedOrigin.die,
    "revive": ServedOrigin.listen,
}


def obey(origins: list[ServedOrigin], order: dict[str, Any]) -> Any:
    """Carry out one order and return the answer."""
    operation = order.pop("operation")
    if operation == "cpu":
        return time.process_time()
    if operation == "add":
        origin = ServedOrigin(origins, order["host"])
        origins.append(origin)
        origin.put(order["repos"])
        return {"number": len(origins) - 1, "url": origin.url}
    return _ORDERS[operation](origins[order.pop("origin")], **order)


def main() -> None:
    """Obey until the pipe ends."""
    origins: list[ServedOrigin] = []
    for line in sys.stdin:
        try:
            answer = {"result": obey(origins, json.loads(line))}
        except Exception as error:
            # The pipe is all that the test sees of this process.
            answer = {"error": repr(error)}
        print(json.dumps(answer), flush=True)
    os._exit(0)


if __name__ == "__main__":
    main()
