"""A byte that is wrong on its way from a node costs one piece, not the whole file."""

from __future__ import annotations

import hashlib
import http.client
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from node_process import NodeProcess
from sandbox import environment

from swift_jupyter.hub.api.base import Endpoint
from swift_jupyter.hub.api.node import piece_hashes
from swift_jupyter.hub.http.client import Client
from swift_jupyter.hub.listing import RemoteFile, RepoListing
from swift_jupyter.hub.pull import pull
from swift_jupyter.hub.reference import RepoReference
from swift_jupyter.hub.store.store import Store
from swift_jupyter.settings import Settings

PIECE = 8 << 20
BIG = os.urandom(1 << 16) * 512  # 32 MiB


class Wire(BaseHTTPRequestHandler):
    """Passes everything on, but one byte of the first large answer."""

    protocol_version = "HTTP/1.1"
    target = ""
    sent = 0
    flips = 1
    lock = threading.Lock()

    def log_message(self, format: str, *arguments: object) -> None:
        return

    def do_GET(self) -> None:
        upstream = http.client.HTTPConnection(urlsplit(self.target).netloc)
        upstream.request("GET", self.path, headers=dict(self.headers))
        answer = upstream.getresponse()
        body = bytearray(answer.read())
        upstream.close()
        with type(self).lock:
            if len(body) > 1 << 20 and type(self).flips:
                type(self).flips -= 1
                body[len(body) // 2] ^= 1
        self.send_response(answer.status)
        for name, value in answer.getheaders():
            if name.lower() not in ("connection", "transfer-encoding", "content-length"):
                self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        try:
            self.wfile.write(body)
        except OSError:
            self.close_connection = True
            return
        with type(self).lock:
            type(self).sent += len(body)


@contextmanager
def flipping(target: str) -> Iterator[tuple[str, type[Wire]]]:
    wire = type("FlippingWire", (Wire,), {"target": target})
    server = ThreadingHTTPServer(("127.0.0.1", 0), wire)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", wire
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NodeProcess]:
    folder = tmp_path_factory.mktemp("repair")
    store = Store(folder / "store")
    part = store.parts() / "test.part"
    part.write_bytes(BIG)
    sha256 = hashlib.sha256(BIG).hexdigest()
    store.add(part, sha256, None)
    listed = (RemoteFile("model.bin", len(BIG), sha256, None, lfs=True),)
    store.write_manifest(
        RepoListing("huggingface", "lab/big", "model", "main", "a" * 40, listed), held=True
    )
    with NodeProcess(folder) as started:
        yield started


def test_only_the_wrong_piece_comes_again(node: NodeProcess, tmp_path: Path) -> None:
    """Given a wire that changes a byte, when a file is pulled from a node, then it is repaired."""
    with flipping(node.url) as (url, wire):
        settings = Settings(
            cache_dir=str(tmp_path / "cache"), state_dir=str(tmp_path / "state"), nodes=url
        )
        environ = {**os.environ, **environment(tmp_path)}
        snapshot = pull(
            RepoReference.of_hub("lab/big"),
            settings,
            source="node",
            include=["*"],
            environ=environ,
            max_connections=4,
        )
        assert (snapshot.path / "model.bin").read_bytes() == BIG
        assert wire.flips == 0
        assert wire.sent <= len(BIG) + PIECE + (1 << 20)


def test_hashes_of_pieces_are_asked_of_nodes_only(node: NodeProcess) -> None:
    """Given a node and another address, when pieces are asked for, then the node tells them."""
    sha256 = hashlib.sha256(BIG).hexdigest()
    with_node = [
        Endpoint("huggingface", "http://127.0.0.1:9", "other"),
        Endpoint("huggingface", node.url, "node", is_node=True),
    ]
    client = Client({})
    try:
        ask = piece_hashes(with_node, client)
        assert ask is not None
        pieces = [BIG[start : start + PIECE] for start in range(0, len(BIG), PIECE)]
        assert ask(sha256) == (PIECE, [hashlib.sha256(piece).hexdigest() for piece in pieces])
        assert ask("0" * 64) is None
        assert piece_hashes(with_node[:1], client) is None
    finally:
        client.close()
