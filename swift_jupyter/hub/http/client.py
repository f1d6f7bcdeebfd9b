"""Requests over pooled keep-alive connections, made for large bodies."""

from __future__ import annotations

import json
import threading
import time
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urljoin, urlsplit

import urllib3
from urllib3.exceptions import (
    ConnectTimeoutError,
    HTTPError,
    NameResolutionError,
    NewConnectionError,
    ProtocolError,
    ProxyError,
    ReadTimeoutError,
    SSLError,
)

from swift_jupyter.hub.http.errors import HttpError, plain_address, retry_after_seconds
from swift_jupyter.hub.http.proxies import Proxies, tls_context
from swift_jupyter.hub.http.response import Response
from swift_jupyter.i18n import translate as _
from swift_jupyter.version import __version__

__all__ = ["Client", "HttpError", "Limits", "Response", "headers_for"]

USER_AGENT = f"swift-jupyter/{__version__}"
_MOST_REDIRECTS = 5
_REDIRECTS = frozenset((301, 302, 303, 307, 308))
_CREDENTIALS = frozenset(("authorization", "cookie", "proxy-authorization"))
_MOST_ERROR_BYTES = 64 << 10
_MOST_JSON_BYTES = 1 << 30
_JSON_BLOCK = 256 << 10


@dataclass(frozen=True)
class Limits:
    """How long to wait, in seconds; there is no limit on a whole transfer.

    Parameters
    ----------
    connect : float
        For a connection.
    first_byte : float
        For the answer to a request to begin.
    stall : float
        For the next byte of a body.
    """

    connect: float = 5.0
    first_byte: float = 10.0
    stall: float = 5.0


class Client:
    """Sends requests; any number of threads may share one.

    Parameters
    ----------
    environ : mapping
        Environment variables: proxies and certificates.
    limits : Limits, optional
        How long to wait.
    connections : int, optional
        Connections that are kept per server.
    """

    def __init__(
        self, environ: Mapping[str, str], *, limits: Limits | None = None, connections: int = 16
    ) -> None:
        self.limits = limits or Limits()
        self._environ = dict(environ)
        self._connections = connections
        self._proxies = Proxies(environ)
        self._managers: dict[tuple[str, str | None], urllib3.PoolManager] = {}
        self._lock = threading.Lock()

    def open(
        self,
        url: str,
        headers: Mapping[str, str] | None = None,
        *,
        method: str = "GET",
        body: bytes | None = None,
    ) -> Response:
        """Send a request and return the answer, whatever its status.

        Up to five redirects are followed. ``Authorization`` and ``Cookie`` do
        not go along to another scheme, host or port.

        Raises
        ------
        HttpError
            When there is no answer.
        """
        _check_address(url)
        first, target = url, url
        for _hop in range(_MOST_REDIRECTS + 1):
            response = self._send(
                method, target, headers_for(first, target, headers or {}), body, target != first
            )
            place = response.headers.get("location")
            if response.status not in _REDIRECTS or not place:
                return response
            following = _redirect_target(target, place)
            response.discard()
            # As every browser does (RFC 9110, 15.4.4).
            if response.status == 303 and method != "HEAD":
                method, body = "GET", None
            target = following
        raise HttpError(
            "too_many_redirects",
            _("{address} redirects too often", address=plain_address(url)),
        )

    def read_json(
        self,
        url: str,
        headers: Mapping[str, str] | None = None,
        *,
        deadline: float = 30.0,
        method: str = "GET",
        body: bytes | None = None,
        object_hook: Callable[[dict[str, Any]], Any] | None = None,
    ) -> tuple[Any, Mapping[str, str]]:
        """Send a request and return the JSON value of the answer, and its headers.

        Parameters
        ----------
        deadline : float, optional
            Seconds for the whole answer.
        object_hook : callable, optional
            As for `json.loads`: turns each object into something smaller.

        Raises
        ------
        HttpError
            When there is no answer, or its status is 400 or more (kind
            ``status``, with headers and the beginning of the body), or it is
            not JSON (kind ``protocol``).
        """
        until = time.monotonic() + deadline
        asked = {"Accept": "application/json", "Accept-Encoding": "gzip", **(headers or {})}
        response = self.open(url, asked, method=method, body=body)
        if response.status >= 400:
            raise status_error(response)
        data = _read_all(response, until)
        try:
            return json.loads(_decoded(data, response), object_hook=object_hook), response.headers
        except (ValueError, RecursionError, zlib.error):
            raise HttpError(
                "protocol",
                _("{address} did not answer with JSON", address=plain_address(response.url)),
                status=response.status,
                headers=response.headers,
                body=bytes(data[:_MOST_ERROR_BYTES]),
            ) from None

    def close(self) -> None:
        """Close the connections that are not in use."""
        with self._lock:
            managers = list(self._managers.values())
            self._managers.clear()
        for manager in managers:
            manager.clear()

    def _send(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        body: bytes | None,
        redirected: bool,
    ) -> Response:
        tries = 2 if method in ("GET", "HEAD") else 1
        while True:
            tries -= 1
            try:
                return self._send_once(method, url, headers, body, redirected)
            except ProtocolError as error:
                # The server may have closed an idle connection just as it was used again.
                if not tries:
                    raise self._error(error, url) from error
            except (HTTPError, OSError, ValueError) as error:
                raise self._error(error, url) from error

    def _send_once(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        body: bytes | None,
        redirected: bool,
    ) -> Response:
        answer = self._manager(url).urlopen(
            method,
            url,
            body=body,
            headers={"User-Agent": USER_AGENT, "Accept-Encoding": "identity", **headers},
            redirect=False,
            retries=False,
            preload_content=False,
            decode_content=False,
            timeout=urllib3.Timeout(connect=self.limits.connect, read=self.limits.first_byte),
        )
        assert isinstance(answer, urllib3.HTTPResponse)
        return Response(answer, url, method, redirected, self.limits.stall)

    def _manager(self, url: str) -> urllib3.PoolManager:
        key = (urlsplit(url).scheme, self._proxies.proxy_for(url))
        with self._lock:
            manager = self._managers.get(key)
            if manager is None:
                manager = self._managers[key] = self._new_manager(*key)
            return manager

    def _new_manager(self, scheme: str, proxy: str | None) -> urllib3.PoolManager:
        options: dict[str, Any] = {"num_pools": 32, "maxsize": self._connections}
        if scheme == "https":
            # Shared: reading the certificates anew for each connection costs more than the rest.
            options["ssl_context"] = tls_context(self._environ)
        if proxy is None:
            return urllib3.PoolManager(**options)
        parts = urlsplit(proxy)
        if parts.scheme.startswith("socks"):
            try:
                from urllib3.contrib.socks import SOCKSProxyManager
            except ImportError:
                raise ValueError(
                    _("a SOCKS proxy needs the package PySocks: pip install pysocks")
                ) from None
            return SOCKSProxyManager(proxy, **options)
        if parts.username:
            from urllib.parse import unquote

            secret = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
            options["proxy_headers"] = urllib3.make_headers(proxy_basic_auth=secret)
        return urllib3.ProxyManager(proxy, **options)

    def _error(self, error: Exception, url: str) -> HttpError:
        place = urlsplit(url).netloc.rpartition("@")[2] or "?"
        if isinstance(error, NameResolutionError):
            return HttpError("connect", _("the name of {host} is not known", host=place))
        if isinstance(error, NewConnectionError):
            return HttpError("connect", _("no connection to {host}", host=place))
        if isinstance(error, ConnectTimeoutError):
            return HttpError("connect", _("{host} does not take connections", host=place))
        if isinstance(error, ProxyError):
            return HttpError("connect", _("the proxy gives no connection to {host}", host=place))
        if isinstance(error, SSLError):
            return HttpError("tls", _("no trusted connection to {host}", host=place))
        if isinstance(error, ReadTimeoutError):
            return HttpError("timeout", _("{host} does not answer in time", host=place))
        if isinstance(error, ProtocolError):
            return HttpError("reset", _("{host} cut the connection", host=place))
        if isinstance(error, HTTPError):
            return HttpError("protocol", _("{host} cannot be asked", host=place))
        return HttpError("connect", f"{place}: {error}")


def headers_for(first: str, target: str, headers: Mapping[str, str]) -> dict[str, str]:
    """Return the headers meant for `first` that may go to `target`.

    Credentials stay behind when scheme, host or port differ.
    """
    if _place(first) == _place(target):
        return dict(headers)
    return {name: value for name, value in headers.items() if name.lower() not in _CREDENTIALS}


def status_error(response: Response) -> HttpError:
    """Read the rest of a refusal and return it as an error."""
    body = response.beginning(_MOST_ERROR_BYTES)
    return HttpError(
        "status",
        _(
            "{address} answers {status}",
            address=plain_address(response.url),
            status=f"{response.status} {response.reason}".strip(),
        ),
        status=response.status,
        retry_after=retry_after_seconds(response.headers.get("retry-after"), time.time()),
        headers=response.headers,
        body=body,
    )


def _check_address(url: str) -> None:
    try:
        scheme, host, _port = _place(url)
    except ValueError:
        scheme, host = "", None
    if not host or scheme not in ("http", "https"):
        text = _("{address} is not an http or https address", address=plain_address(url))
        raise HttpError("protocol", text)


def _place(url: str) -> tuple[str, str | None, int | None]:
    parts = urlsplit(url)
    port = parts.port or {"http": 80, "https": 443}.get(parts.scheme)
    return parts.scheme, parts.hostname, port


def _redirect_target(source: str, place: str) -> str:
    target = urljoin(source, place)
    try:
        scheme, host, _port = _place(target)
    except ValueError:
        scheme, host = "", None
    if not host or scheme not in ("http", "https"):
        text = _("{address} redirects to nowhere", address=plain_address(source))
        raise HttpError("protocol", text)
    if scheme == "http" and source.startswith("https:"):
        text = _("{address} redirects to an unprotected address", address=plain_address(source))
        raise HttpError("protocol", text)
    return target


def _read_all(response: Response, until: float) -> bytearray:
    data = bytearray()
    block = memoryview(bytearray(_JSON_BLOCK))
    try:
        while count := response.readinto(block):
            data += block[:count]
            if len(data) > _MOST_JSON_BYTES:
                text = _("{address} answers without end", address=plain_address(response.url))
                raise HttpError("protocol", text)
            if time.monotonic() > until:
                text = _("{address} answers too slowly", address=plain_address(response.url))
                raise HttpError("timeout", text)
    except HttpError:
        response.close(reuse=False)
        raise
    response.close(reuse=True)
    return data


def _decoded(data: bytearray, response: Response) -> bytes | bytearray:
    coding = response.headers.get("content-encoding", "identity").lower()
    if coding in ("", "identity"):
        return data
    # 32: a gzip or a zlib header, whichever is there.
    inflater = zlib.decompressobj(zlib.MAX_WBITS | 32)
    plain = inflater.decompress(data, _MOST_JSON_BYTES)
    if inflater.unconsumed_tail or not inflater.eof:
        raise ValueError
    return plain
