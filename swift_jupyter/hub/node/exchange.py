"""One request and its answer on one of tornado's connections.

Below tornado's `RequestHandler`, since a file's bytes go from the disk to the socket
without passing through Python, on a connection that stays open for the next request.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Mapping
from email.utils import formatdate
from http import HTTPStatus
from typing import Any, cast

from tornado import httputil
from tornado.http1connection import HTTP1Connection
from tornado.iostream import IOStream, StreamClosedError

from swift_jupyter.version import __version__

SERVER = f"swift-jupyter/{__version__}"
Headers = Mapping[str, str]


class ClientGone(Exception):
    """The client closed the connection, or takes nothing any more."""


class Exchange:
    """A request, and the ways to answer it.

    Attributes
    ----------
    method, uri : str
        As sent.
    headers : HTTPHeaders
        Those of the request.
    body : bytes
        What was posted.
    client : str
        The address that it came from.
    status : int
        What was answered; 0 before that.
    sent : int
        Bytes of the body that went out.
    note : str
        What the access log adds, such as ``hit`` or ``filled``.
    """

    def __init__(
        self, start: httputil.RequestStartLine, headers: httputil.HTTPHeaders, connection: Any
    ) -> None:
        self.method = start.method
        self.uri = start.path
        self.version = start.version
        self.headers = headers
        self.body = b""
        self.connection = cast(HTTP1Connection, connection)
        context = getattr(connection, "context", None)
        self.client = str(getattr(context, "remote_ip", None) or "?")
        self.secure = getattr(context, "protocol", "http") == "https"
        self.status = 0
        self.sent = 0
        self.note = ""
        self.started = time.monotonic()
        self.closed = asyncio.Event()

    @property
    def stream(self) -> IOStream:
        """The connection's stream."""
        return self.connection.stream

    @property
    def wants_body(self) -> bool:
        """Whether the answer has a body: not for HEAD."""
        return self.method != "HEAD"

    async def respond(
        self,
        status: int,
        body: bytes = b"",
        content_type: str = "application/json",
        headers: Headers | None = None,
    ) -> None:
        """Send a whole answer from memory."""
        head = {"Content-Length": str(len(body)), **(headers or {})}
        if status != HTTPStatus.NOT_MODIFIED:
            head["Content-Type"] = content_type
        else:
            del head["Content-Length"]
            body = b""
        if not self.wants_body:
            body = b""
        await self.write(self.head(status, head) + body)
        self.sent += len(body)

    async def respond_json(self, status: int, value: Any, headers: Headers | None = None) -> None:
        """Send a JSON value."""
        body = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
        await self.respond(status, body.encode(errors="replace"), headers=headers)

    def head(self, status: int, headers: Headers) -> bytes:
        """Return status line and headers as they go over the wire."""
        return self.open_head(status) + self.head_lines(headers) + b"\r\n"

    def open_head(self, status: int) -> bytes:
        """Return the beginning of a head, to which lines may still be added."""
        self.status = status
        phrase = HTTPStatus(status).phrase
        lines = {"Server": SERVER, "Date": formatdate(usegmt=True)}
        lines["Connection"] = "keep-alive" if self._stays_open() else "close"
        return f"HTTP/1.1 {status} {phrase}\r\n".encode() + self.head_lines(lines)

    def head_lines(self, headers: Headers) -> bytes:
        """Return header lines; a value that would forge another one loses its line ends."""
        lines = (f"{name}: {' '.join(value.splitlines())}\r\n" for name, value in headers.items())
        return "".join(lines).encode("latin-1", "replace")

    async def write(self, data: bytes) -> None:
        """Send raw bytes and wait until the socket has taken them.

        Raises
        ------
        ClientGone
            When the connection is closed.
        """
        try:
            await self.stream.write(data)
        except (StreamClosedError, OSError):
            raise ClientGone from None

    def abort(self) -> None:
        """Close the connection, so that the client sees that its answer is not complete."""
        self.stream.close()

    def _stays_open(self) -> bool:
        wish = self.headers.get("Connection", "").lower()
        return wish == "keep-alive" if self.version == "HTTP/1.0" else wish != "close"


Handler = Callable[[Exchange], Awaitable[None]]


class Server(httputil.HTTPServerConnectionDelegate):
    """Hands every request to one coroutine; an `HTTPServer` takes it as its application.

    Parameters
    ----------
    handle : callable
        Answers an exchange. It raises nothing but `ClientGone`.
    """

    def __init__(self, handle: Handler) -> None:
        self._handle = handle
        self._tasks: set[asyncio.Task[None]] = set()

    def start_request(self, server_conn: object, request_conn: Any) -> _Message:
        """Return what takes the next request of a connection."""
        return _Message(self._start, request_conn)

    def _start(self, exchange: Exchange) -> None:
        task = asyncio.get_running_loop().create_task(self._run(exchange))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _run(self, exchange: Exchange) -> None:
        try:
            await self._handle(exchange)
            exchange.connection.finish()
        except (ClientGone, StreamClosedError):
            exchange.abort()


class _Message(httputil.HTTPMessageDelegate):
    def __init__(self, start: Callable[[Exchange], None], connection: Any) -> None:
        self._start = start
        self._connection = connection
        self._exchange: Exchange | None = None
        self._chunks: list[bytes] = []

    def headers_received(
        self,
        start_line: httputil.RequestStartLine | httputil.ResponseStartLine,
        headers: httputil.HTTPHeaders,
    ) -> None:
        line = cast(httputil.RequestStartLine, start_line)
        self._exchange = Exchange(line, headers, self._connection)
        if headers.get("Expect", "").lower() == "100-continue":
            self._connection.stream.write(b"HTTP/1.1 100 (Continue)\r\n\r\n")

    def data_received(self, chunk: bytes) -> None:
        self._chunks.append(chunk)

    def finish(self) -> None:
        assert self._exchange is not None
        self._exchange.body = b"".join(self._chunks)
        self._start(self._exchange)

    def on_connection_close(self) -> None:
        if self._exchange is not None:
            self._exchange.closed.set()
