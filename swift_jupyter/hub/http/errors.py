"""What can go wrong between us and a server, in one exception."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal
from urllib.parse import urlsplit

Kind = Literal["connect", "timeout", "reset", "tls", "protocol", "status", "too_many_redirects"]


class HttpError(Exception):
    """A request that did not give what was asked for.

    Parameters
    ----------
    kind : str
        ``connect`` (no connection, name unknown, proxy), ``timeout`` (no byte
        in time), ``reset`` (cut off before the end), ``tls``, ``protocol``
        (an answer that makes no sense), ``status`` (an answer of 400 or more)
        or ``too_many_redirects``.
    text : str
        For people. It holds neither tokens nor the query of an address.
    status : int, optional
        The status, where there was an answer.
    retry_after : float, optional
        Seconds that the server asks to wait.
    headers : mapping, optional
        The headers of the answer, names in lower case.
    body : bytes, optional
        The beginning of the answer, at most 64 kB.
    """

    def __init__(
        self,
        kind: Kind,
        text: str,
        *,
        status: int | None = None,
        retry_after: float | None = None,
        headers: Mapping[str, str] | None = None,
        body: bytes = b"",
    ) -> None:
        super().__init__(text)
        self.kind: Kind = kind
        self.text = text
        self.status = status
        self.retry_after = retry_after
        self.headers: Mapping[str, str] = headers or {}
        self.body = body


def plain_address(url: str) -> str:
    """Return `url` without user, password, query and fragment, for texts.

    Signed addresses carry their secret in the query.
    """
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
        port = f":{parts.port}" if parts.port else ""
    except ValueError:
        return "?"
    return f"{parts.scheme}://{host}{port}{parts.path}"


def retry_after_seconds(value: str | None, now: float) -> float | None:
    """Return the seconds that a ``Retry-After`` header asks for, or None.

    Parameters
    ----------
    value : str or None
        The header: a number of seconds or an HTTP date (RFC 9110, 10.2.3).
    now : float
        The present time, seconds since the epoch.
    """
    if value is None:
        return None
    value = value.strip()
    if value.isascii() and value.isdigit():
        return float(value[:9])
    from email.utils import parsedate_to_datetime

    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - now)
    except (ValueError, TypeError, OverflowError):
        return None
