"""Malformed requests by the thousand: the server neither falls nor grows."""

from __future__ import annotations

import http.client
import json
import random
import socket
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import psutil
import pytest
from deployed import deploy_session, deployed
from tiny_models import build_tiny_model

REQUESTS = 10_000
PATHS = ("/v1/chat/completions", "/v1/completions", "/v1/embeddings", "/v1/models/x", "/nothing")
METHODS = (*["POST"] * 8, "GET", "DELETE", "PUT", "OPTIONS")
STRANGE = (
    None,
    -1,
    1e308,
    "x",
    "\ud800",
    [],
    {},
    [None],
    [[]],
    {"a": {}},
    True,
    10**30,
    "\x00",
    "",
)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    folder = tmp_path_factory.mktemp("fuzz")
    with deploy_session(folder), deployed(build_tiny_model(folder / "tiny")) as result:
        yield result


def malformed_body(chance: random.Random, model: str) -> bytes:
    """Return a request with something wrong in it, or bytes that are none."""
    good: dict[str, Any] = {
        "model": model,
        "messages": [{"role": "user", "content": "Hi"}],
        "prompt": "Hi",
        "input": "Hi",
        "max_tokens": 1,
    }
    kind = chance.randrange(4)
    if kind == 0:
        return chance.randbytes(chance.randrange(200))
    for _change in range(chance.randrange(1, 4)):
        name = chance.choice(
            [*good, "n", "stop", "temperature", "tools", "stream_options", "logprobs", "top_k"]
        )
        good[name] = chance.choice(STRANGE)
    if kind == 1 and isinstance(good["messages"], list):
        good["messages"] = [{"role": chance.choice(STRANGE), "content": chance.choice(STRANGE)}]
    text = json.dumps(good).encode()
    return text[: chance.randrange(len(text))] if kind == 2 else text


def test_ten_thousand_malformed_requests(server: Any) -> None:
    # Given a server that has answered its first requests
    chance = random.Random(5)
    address = urlsplit(server.url)
    assert address.hostname and address.port
    process = psutil.Process(server.run.record().worker.pid)
    connection = http.client.HTTPConnection(address.hostname, address.port, timeout=30)
    statuses: dict[int, int] = {}
    before = 0
    # When thousands of malformed ones come
    for number in range(REQUESTS):
        if number == REQUESTS // 5:
            before = process.memory_info().rss
        body = malformed_body(chance, server.model)
        connection.request(chance.choice(METHODS), chance.choice(PATHS), body)
        answer = connection.getresponse()
        content = answer.read()
        statuses[answer.status] = statuses.get(answer.status, 0) + 1
        if answer.status >= 400:
            assert json.loads(content)["error"]["message"]
    # Then none broke it, most were refused with a reason, and memory stays
    assert not any(status >= 500 for status in statuses), statuses
    assert statuses[400] > REQUESTS // 4
    assert process.memory_info().rss - before < 32 << 20
    assert server.chat("Hi", max_tokens=2)


def test_lines_that_are_no_http(server: Any) -> None:
    # Given connections that send rubbish, too much, or nothing at all
    address = urlsplit(server.url)
    assert address.port
    process = psutil.Process(server.run.record().worker.pid)
    files = process.num_fds()
    silent = []
    for number in range(60):
        connection = socket.create_connection(("127.0.0.1", address.port), 10)
        if number % 3 == 0:
            connection.sendall(bytes(range(256)) * 4 + b"\r\n\r\n")
        elif number % 3 == 1:
            connection.sendall(b"GET / HTTP/1.1\r\nX: " + b"x" * 100_000 + b"\r\n\r\n")
        silent.append(connection)
    # When an honest client comes
    answer = server.chat("Hi", max_tokens=2)
    # Then it is served, and connections do not pile up when the others are gone
    assert answer is not None
    for connection in silent:
        connection.close()
    assert server.chat("Hi", max_tokens=2) is not None
    assert process.num_fds() < files + 70


def test_body_that_is_too_large_is_refused(server: Any) -> None:
    address = urlsplit(server.url)
    with socket.create_connection(("127.0.0.1", address.port), 10) as connection:
        connection.sendall(
            b"POST /v1/completions HTTP/1.1\r\n"
            b"Host: localhost\r\nContent-Length: 99999999999\r\n\r\n"
        )
        assert b"HTTP/1.1 2" not in connection.recv(1000)
    assert server.chat("Hi", max_tokens=2) is not None
