"""What a node has done: for its status page, across restarts."""

from __future__ import annotations

import contextlib
import json
import re
import time
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from swift_jupyter.files import write_json_atomically
from swift_jupyter.hub.node.exchange import Exchange

_MOST_CLIENTS = 500
_PRODUCT = re.compile(r"[A-Za-z0-9_.\-]{1,40}(?:/[A-Za-z0-9_.\-]{1,20})?")


@dataclass
class Client:
    """One address that asked, and what it got."""

    address: str
    program: str = ""
    requests: int = 0
    bytes: int = 0
    last_seen: float = 0.0


@dataclass
class Totals:
    """Counts since the node was first used.

    Attributes
    ----------
    requests : int
        All of them.
    hits, fills : int
        Requests for bytes that the store answered, and files that came from upstream.
    bytes_served, bytes_fetched : int
        What went out to clients, and what came in from upstream.
    errors : int
        Answers of 400 and more, and connections that had to be broken.
    """

    requests: int = 0
    hits: int = 0
    fills: int = 0
    bytes_served: int = 0
    bytes_fetched: int = 0
    errors: int = 0

    @property
    def bytes_saved(self) -> int:
        """What clients got without upstream having to send it again."""
        return max(0, self.bytes_served - self.bytes_fetched)


@dataclass
class Active:
    """A transfer under way."""

    client: str
    repo_id: str
    path: str
    total: int
    exchange: Exchange = field(repr=False)
    started: float = field(default_factory=time.time)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values."""
        return {
            "client": self.client,
            "repo_id": self.repo_id,
            "path": self.path,
            "total": self.total,
            "sent": self.exchange.sent,
            "started": self.started,
        }


class Stats:
    """Counts; belongs to one event loop.

    Parameters
    ----------
    file : Path
        Where they are kept over a restart.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        self.started = time.time()
        self.since = self.started
        self.totals = Totals()
        self.clients: OrderedDict[str, Client] = OrderedDict()
        self.active: dict[int, Active] = {}
        self._saved = ""
        self._load()

    def count(self, exchange: Exchange) -> None:
        """Count an answered request."""
        self.totals.requests += 1
        self.totals.bytes_served += exchange.sent
        if exchange.status >= 400:
            self.totals.errors += 1
        client = self.clients.setdefault(exchange.client, Client(exchange.client))
        self.clients.move_to_end(exchange.client)
        client.program = _program(exchange.headers.get("User-Agent", "")) or client.program
        client.requests += 1
        client.bytes += exchange.sent
        client.last_seen = time.time()
        while len(self.clients) > _MOST_CLIENTS:
            self.clients.popitem(last=False)

    @contextlib.contextmanager
    def transfer(self, exchange: Exchange, repo_id: str, path: str, total: int) -> Iterator[None]:
        """Show a transfer as active while the context is open."""
        key = id(exchange)
        self.active[key] = Active(exchange.client, repo_id, path, total, exchange)
        try:
            yield
        finally:
            del self.active[key]

    def save(self) -> None:
        """Keep the counts; a full disk loses no more than them."""
        value = {
            "since": self.since,
            "totals": asdict(self.totals),
            "clients": [asdict(client) for client in self.clients.values()],
        }
        text = json.dumps(value)
        if text == self._saved:
            return
        with contextlib.suppress(OSError):
            self._file.parent.mkdir(parents=True, exist_ok=True)
            write_json_atomically(self._file, value)
            self._saved = text

    def to_dict(self) -> dict[str, Any]:
        """Return plain values."""
        return {
            "started": self.started,
            "since": self.since,
            **asdict(self.totals),
            "bytes_saved": self.totals.bytes_saved,
            "clients": [asdict(client) for client in reversed(self.clients.values())],
            "active": [active.to_dict() for active in self.active.values()],
        }

    def _load(self) -> None:
        try:
            value = json.loads(self._file.read_text(encoding="utf-8"))
            totals = Totals(**{name: int(n) for name, n in value["totals"].items()})
            clients = [Client(**client) for client in value["clients"]]
            self.since = float(value["since"])
        except (OSError, ValueError, TypeError, KeyError, AttributeError):
            return
        self.totals = totals
        self.clients.update((client.address, client) for client in clients)


def _program(agent: str) -> str:
    """Return the name that a client goes by, out of all that its header says."""
    products = _PRODUCT.findall(agent)
    for wanted in ("swift-jupyter", "modelscope", "hf_hub", "datasets", "transformers"):
        for product in products:
            if product.lower().startswith(wanted):
                return str(product)
    return str(products[0]) if products else ""
