"""An answer whose body is read straight into a caller's buffer."""

from __future__ import annotations

import contextlib
import http.client
import io
from collections.abc import Iterator, Mapping
from typing import Any, cast

import urllib3

from swift_jupyter.hub.http.errors import HttpError, plain_address
from swift_jupyter.i18n import translate as _

_DISCARDED = 64 << 10


class Headers(Mapping[str, str]):
    """The headers of an answer; names in any case, repeated ones joined by commas."""

    def __init__(self, pairs: Mapping[str, str]) -> None:
        self._values = {name.lower(): value for name, value in pairs.items()}

    def __getitem__(self, name: str) -> str:
        return self._values[name.lower()]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)


class Response:
    """The answer to one request.

    Parameters
    ----------
    answer : urllib3.HTTPResponse
        The answer, with its body unread.
    url : str
        The address that gave it.
    method : str
        The method of the request.
    redirected : bool
        Whether `url` is not the address asked at first.
    stall : float
        Seconds to wait for each next byte.

    Attributes
    ----------
    status : int
    reason : str
    headers : mapping
        Names in any case.
    length : int or None
        Bytes of the body, when they are announced.
    """

    def __init__(
        self, answer: urllib3.HTTPResponse, url: str, method: str, redirected: bool, stall: float
    ) -> None:
        self.status = answer.status
        self.reason = answer.reason or ""
        self.headers = Headers(answer.headers)
        self.url = url
        self.redirected = redirected
        self._answer = answer
        self._closed = False
        # http.client's own response: reading through urllib3 costs twice the time.
        self._inner = cast(http.client.HTTPResponse, answer._original_response)
        self._stream: io.BufferedReader = self._inner.fp
        self._chunked = bool(self._inner.chunked)
        bodyless = method == "HEAD" or self.status in (204, 304) or self._stream is None
        self.length = 0 if bodyless else None if self._chunked else self._inner.length
        self._left = self.length
        self._started = False
        self._set_timeout(stall)

    def readinto(self, buffer: memoryview) -> int:
        """Read what is there, at least one byte, and return the count; 0 is the end.

        Raises
        ------
        HttpError
            On a reset, a stall, or an end before the announced length.
        """
        if self._left == 0:
            return 0
        if self._left is not None and len(buffer) > self._left:
            buffer = buffer[: self._left]
        try:
            count = self._read(buffer)
        except TimeoutError:
            raise self._error("timeout", _("{host} stopped sending", host=self._host)) from None
        except (OSError, http.client.HTTPException, ValueError) as error:
            text = _("{host} cut the connection", host=self._host)
            raise self._error("reset", text) from error
        if self._left is not None:
            if count == 0:
                text = _("{host} ended before the announced length", host=self._host)
                raise self._error("reset", text)
            self._left -= count
        elif count == 0:
            self._left = 0
        return count

    def close(self, *, reuse: bool) -> None:
        """Give the connection back, if its body was read to the end, or drop it."""
        if self._closed:
            return
        self._closed = True
        with contextlib.suppress(OSError, ValueError):
            if reuse and self._left == 0:
                self._inner.close()
                self._answer.release_conn()
            else:
                self._answer.close()

    def abort(self) -> None:
        """Make a `readinto` that waits in another thread end at once."""
        with contextlib.suppress(Exception):
            self._answer.shutdown()

    def discard(self) -> None:
        """Be done with the answer, keeping the connection if little is left on it."""
        self.beginning(_DISCARDED)

    def beginning(self, most: int) -> bytes:
        """Read up to `most` bytes, then close; what fails is left out."""
        data = bytearray()
        block = memoryview(bytearray(16 << 10))
        with contextlib.suppress(HttpError):
            while len(data) < most and (count := self.readinto(block)):
                data += block[:count]
        self.close(reuse=True)
        return bytes(data[:most])

    def _read(self, buffer: memoryview) -> int:
        if self._chunked:
            data = self._inner.read1(len(buffer))
            buffer[: len(data)] = data
            return len(data)
        if self._started:
            return self._stream.readinto1(buffer)
        # What came along with the headers is taken by itself: if the next read
        # failed, it would be lost otherwise.
        ahead = self._stream.peek()[: len(buffer)]
        buffer[: len(ahead)] = ahead
        self._stream.read(len(ahead))
        self._started = True
        return len(ahead)

    def _set_timeout(self, seconds: float) -> None:
        connection: Any = self._answer.connection
        # After "Connection: close" only the stream still knows its socket.
        socket = getattr(connection, "sock", None) or getattr(
            getattr(self._stream, "raw", None), "_sock", None
        )
        if socket is not None:
            with contextlib.suppress(OSError):
                socket.settimeout(seconds)

    @property
    def _host(self) -> str:
        return plain_address(self.url).partition("://")[2].partition("/")[0]

    def _error(self, kind: Any, text: str) -> HttpError:
        return HttpError(kind, text, status=self.status)
