"""The bytes of a file: from the store, or from one that is still arriving."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import time
from collections.abc import Awaitable, Iterator
from pathlib import Path
from typing import NamedTuple, TypeVar

from swift_jupyter.hub.listing import RemoteFile
from swift_jupyter.hub.node.exchange import ClientGone, Exchange
from swift_jupyter.hub.node.filling import Fill, Filler
from swift_jupyter.hub.node.library import Library, NotHere, Shelf
from swift_jupyter.hub.node.ranges import UnsatisfiableRange, etag_matches, parse_range
from swift_jupyter.hub.node.sending import SMALL, Sender
from swift_jupyter.hub.node.stats import Stats
from swift_jupyter.i18n import translate as _

# Well below the 10 s after which Hugging Face's client gives up.
SIGN_OF_LIFE_SECONDS = 3.0
_TRICKLE = 256
_TAINTED_SECONDS = 600.0
_INTERIM = b"HTTP/1.1 100 Continue\r\n\r\n"
_CONTENT_TYPE = "application/octet-stream"
_T = TypeVar("_T")
_log = logging.getLogger(__name__)


class Part(NamedTuple):
    """The bytes that an answer holds; `partial` when the client asked for a range."""

    start: int
    stop: int
    partial: bool


async def patiently(exchange: Exchange, work: Awaitable[_T]) -> _T:
    """Wait for `work` and keep the client from giving up, with interim answers.

    A client of HTTP/1.1 has to read past them (RFC 9110, 15.2).

    Raises
    ------
    ClientGone
        When the client went away meanwhile; the work goes on if others wait for it.
    """
    task = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(exchange.closed.wait())
    try:
        while True:
            await asyncio.wait(
                {task, gone},
                timeout=SIGN_OF_LIFE_SECONDS,
                return_when=asyncio.FIRST_COMPLETED,
            )
            if task.done():
                return task.result()
            if gone.done():
                raise ClientGone
            if exchange.version != "HTTP/1.0":
                await exchange.write(_INTERIM)
    finally:
        gone.cancel()
        if not task.done():
            task.cancel()


class ByteServer:
    """Answers requests for the bytes of files; belongs to one event loop.

    Parameters
    ----------
    library : Library
        Knows what is held.
    sender : Sender
        Brings bytes to sockets.
    filler : Filler or None
        Fetches what is not held; None when the node serves the store alone.
    stats : Stats
        Counts.
    """

    def __init__(
        self, library: Library, sender: Sender, filler: Filler | None, stats: Stats
    ) -> None:
        self._library = library
        self._sender = sender
        self._filler = filler
        self._stats = stats
        # Who got bytes that turned out wrong must not go on from them.
        self._tainted: dict[tuple[str, str, str], float] = {}

    async def serve(
        self, exchange: Exchange, shelf: Shelf, file: RemoteFile, etag: str, headers: dict[str, str]
    ) -> None:
        """Answer with the bytes of `file`, or with what is the matter.

        Raises
        ------
        NotHere
            When nobody can give them.
        ClientGone
            When the client went away, or must not get the rest.
        """
        headers = {
            "ETag": f'"{etag}"',
            "Accept-Ranges": "bytes",
            "Cache-Control": "no-cache",
            "X-Content-Type-Options": "nosniff",
            **headers,
        }
        if etag_matches(exchange.headers.get("If-None-Match"), etag):
            await exchange.respond(304, headers=headers)
            return
        path = await self._library.held(shelf, file)
        if path is None and file.size is not None and exchange.method == "HEAD":
            if self._filler is None:
                raise _not_held(file)
            await self._head(exchange, file.size, headers)
            return
        if path is not None:
            with contextlib.suppress(FileNotFoundError), _opened(Path(path)) as descriptor:
                exchange.note = "hit"
                self._stats.totals.hits += exchange.method == "GET"
                await self._send_held(exchange, shelf, file, descriptor, headers)
                return
        if self._filler is None:
            raise _not_held(file)
        await self._send_filling(exchange, shelf, file, headers, self._filler)

    async def _head(self, exchange: Exchange, size: int, headers: dict[str, str]) -> None:
        head = {**headers, "Content-Length": str(size), "Content-Type": _CONTENT_TYPE}
        await exchange.write(exchange.head(200, head))

    async def _send_held(
        self,
        exchange: Exchange,
        shelf: Shelf,
        file: RemoteFile,
        descriptor: int,
        headers: dict[str, str],
    ) -> None:
        size = os.fstat(descriptor).st_size
        taint = self._taint(exchange, shelf, file)
        part = self._range(exchange, size, taint)
        if part is None:
            await _unsatisfiable(exchange, size)
            return
        start, stop = part.start, part.stop
        status, head = _part_head(part, size, headers)
        if not exchange.wants_body:
            await exchange.write(exchange.head(status, head))
            return
        data = exchange.head(status, head)
        if stop - start <= SMALL:
            data += os.pread(descriptor, stop - start, start)
            await exchange.write(data)
            exchange.sent += stop - start
        else:
            await exchange.write(data)
            with self._stats.transfer(exchange, _shown(shelf), file.path, stop - start):
                await self._sender.send(exchange, descriptor, start, stop)
        if not part.partial:
            self._tainted.pop(taint, None)

    async def _send_filling(
        self,
        exchange: Exchange,
        shelf: Shelf,
        file: RemoteFile,
        headers: dict[str, str],
        filler: Filler,
    ) -> None:
        exchange.note = "fill"
        fill = filler.fill(shelf.names, shelf.listing, file)
        taint = self._taint(exchange, shelf, file)
        part = None
        if file.size is not None:
            part = self._range(exchange, file.size, taint)
            if part is None:
                await _unsatisfiable(exchange, file.size)
                return
            await patiently(exchange, _reaches(fill, part.start, file.size))
        if part is not None and fill.running:
            with contextlib.suppress(FileNotFoundError), _opened(fill.part) as descriptor:
                await self._send_growing(exchange, shelf, fill, descriptor, part, headers)
                return
        await patiently(exchange, _ended(fill))
        if fill.state == "failed":
            raise _failed(fill)
        shelf.learn(fill.file)
        path = await self._library.held(shelf, fill.file)
        if path is None:
            raise _not_held(file)
        with _opened(Path(path)) as descriptor:
            await self._send_held(exchange, shelf, fill.file, descriptor, headers)

    async def _send_growing(
        self,
        exchange: Exchange,
        shelf: Shelf,
        fill: Fill,
        descriptor: int,
        part: Part,
        headers: dict[str, str],
    ) -> None:
        size = fill.file.size
        assert size is not None
        taint = self._taint(exchange, shelf, fill.file)
        await exchange.write(exchange.head(*_part_head(part, size, headers)))
        with self._stats.transfer(exchange, _shown(shelf), fill.file.path, part.stop - part.start):
            try:
                await self._follow(exchange, fill, descriptor, part, size)
            except _Spoiled:
                self._tainted[taint] = time.monotonic()
                exchange.note = "broken"
                self._stats.totals.errors += 1
                reason = fill.problem or _("bytes that had arrived were wrong")
                _log.warning("%s: connection broken: %s", fill.file.path, reason)
                raise ClientGone from None
        shelf.learn(fill.file)
        if not part.partial:
            self._tainted.pop(taint, None)

    async def _follow(
        self, exchange: Exchange, fill: Fill, descriptor: int, part: Part, size: int
    ) -> None:
        """Send a growing file as far as it may be sent, until it is verified or failed."""
        position, stop = part.start, part.stop
        restarts = fill.restarts
        while position < stop:
            if fill.state == "failed" or fill.restarts != restarts:
                raise _Spoiled
            if fill.state == "done":
                # Another process may have been quicker, with other bytes than those sent.
                if not fill.verified:
                    raise _Spoiled
                limit = stop
            else:
                limit = min(stop, fill.limit(size))
            if limit <= position:
                if exchange.closed.is_set():
                    raise ClientGone
                if await fill.change(SIGN_OF_LIFE_SECONDS) or not fill.running:
                    continue
                # No news: a few bytes of the reserve say that we are still there.
                limit = min(stop, position + _TRICKLE, fill.frontier, size - 1)
                if limit <= position:
                    continue
            await self._sender.send(exchange, descriptor, position, limit)
            position = limit
        if fill.state == "failed" or fill.restarts != restarts:
            raise _Spoiled

    def _taint(self, exchange: Exchange, shelf: Shelf, file: RemoteFile) -> tuple[str, str, str]:
        name = file.sha256 or file.git_sha1 or f"{_shown(shelf)} {file.path}"
        return (exchange.client, name, exchange.headers.get("User-Agent", "")[:200])

    def _range(self, exchange: Exchange, size: int, taint: tuple[str, str, str]) -> Part | None:
        """Return what to send; None when the range lies behind the end.

        A client that got wrong bytes gets the whole file, from which it has to begin anew.
        """
        whole = Part(0, size, False)
        spoiled = self._tainted.get(taint)
        if spoiled is not None and time.monotonic() - spoiled < _TAINTED_SECONDS:
            return whole
        self._tainted.pop(taint, None)
        try:
            asked = parse_range(exchange.headers.get("Range"), size)
        except UnsatisfiableRange:
            return None
        return whole if asked is None else Part(*asked, True)


class _Spoiled(Exception):
    """What was sent is wrong, or may be."""


async def _ended(fill: Fill) -> None:
    while fill.running:
        await fill.change(SIGN_OF_LIFE_SECONDS)


async def _reaches(fill: Fill, place: int, size: int) -> None:
    """Wait until the byte at `place` may be sent, or the fill has ended."""
    while fill.running and (fill.part is None or fill.limit(size) <= place):
        await fill.change(SIGN_OF_LIFE_SECONDS)


async def _unsatisfiable(exchange: Exchange, size: int) -> None:
    await exchange.respond(416, headers={"Content-Range": f"bytes */{size}"})


def _part_head(part: Part, size: int, headers: dict[str, str]) -> tuple[int, dict[str, str]]:
    head = {
        **headers,
        "Content-Length": str(part.stop - part.start),
        "Content-Type": _CONTENT_TYPE,
    }
    if not part.partial:
        return 200, head
    head["Content-Range"] = f"bytes {part.start}-{part.stop - 1}/{size}"
    return 206, head


def _shown(shelf: Shelf) -> str:
    return shelf.names.at(shelf.names.first)


def _not_held(file: RemoteFile) -> NotHere:
    return NotHere("file", _("{file} is not held by this node", file=file.path))


def _failed(fill: Fill) -> NotHere:
    missing = {"not_found": "file", "denied": "denied"}.get(fill.trouble, "unreachable")
    return NotHere(missing, fill.problem)  # type: ignore[arg-type]


@contextlib.contextmanager
def _opened(path: Path | None) -> Iterator[int]:
    if path is None:
        raise FileNotFoundError
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0))
    try:
        yield descriptor
    finally:
        os.close(descriptor)
