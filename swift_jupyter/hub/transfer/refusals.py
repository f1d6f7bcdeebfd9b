"""What an answer, or the lack of one, means for a file and its origin."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from swift_jupyter.hub.http.client import Response
from swift_jupyter.hub.http.errors import HttpError
from swift_jupyter.i18n import translate as _

Kind = Literal[
    "connect", "cut", "stall", "status", "denied", "missing", "mismatch", "redirect", "corrupt"
]
_CONTENT_RANGE = re.compile(r"bytes\s+(\d+)-(\d+)/(\d+|\*)\s*", re.IGNORECASE | re.ASCII)
_LATER = frozenset((408, 421, 423, 425, 429))
_GONE_ADDRESS = frozenset((401, 403, 404, 410))


@dataclass
class Refusal(Exception):
    """Why a request gave no bytes, or no more.

    Parameters
    ----------
    kind : str
    reason : str
        For people; names the origin.
    trouble : str
        The sort of trouble if nothing else helps: not_found, denied,
        unreachable, corrupt or failed.
    final : bool
        Whether the origin is not to be asked for this file again.
    of_origin : bool
        Whether it may be about the origin and not about the file.
    pause : bool
        Whether to wait before asking again.
    retry_after : float or None
        Seconds that the server asks to wait.
    fresh : bool
        False when a redirected address refused that was not just given.
    """

    kind: Kind
    reason: str
    trouble: str = "failed"
    final: bool = False
    of_origin: bool = False
    pause: bool = True
    retry_after: float | None = None
    fresh: bool = True

    def __post_init__(self) -> None:
        super().__init__(self.reason)


def refusal_of_error(error: HttpError, origin: str, came: int) -> Refusal:
    """Return what a failed request means, after `came` bytes of it had come."""
    if error.kind in ("connect", "tls"):
        reason = _("{origin}: {error}", origin=origin, error=error.text)
        return Refusal("connect", reason, "unreachable", of_origin=True)
    if error.kind == "timeout":
        reason = _("{origin} stalled", origin=origin)
        return Refusal("stall", reason, "unreachable", of_origin=True, pause=False)
    if error.kind == "reset":
        reason = _("{origin} cut the connection", origin=origin)
        return Refusal("cut", reason, "unreachable", of_origin=not came, pause=not came)
    reason = _("{origin}: {error}", origin=origin, error=error.text)
    return Refusal("mismatch", reason, "failed")


def refusal_of_status(response: Response, origin: str, retry_after: float | None) -> Refusal:
    """Return what an answer of another status than 200 and 206 means."""
    status = response.status
    reason = _("{origin} answers {status}", origin=origin, status=status)
    if response.redirected and status in _GONE_ADDRESS:
        # A signed address has run out; the origin will give a new one.
        return Refusal("redirect", reason, "failed", pause=False)
    if status in (401, 403):
        return Refusal("denied", reason, "denied", final=True)
    if status in (404, 410):
        return Refusal("missing", reason, "not_found", final=True)
    if status in _LATER or status >= 500:
        return Refusal(
            "status", reason, "unreachable", of_origin=True, pause=True, retry_after=retry_after
        )
    if status < 400 or status == 416:
        # It makes no sense; a second try may.
        return Refusal("mismatch", reason)
    return Refusal("status", reason, final=True)


def check_range(response: Response, origin: str, start: int, end: int, size: int) -> None:
    """Check that a 206 has just the bytes from `start` to `end` of a file of `size`.

    Raises
    ------
    Refusal
        When anything else is announced.
    """
    found = _CONTENT_RANGE.fullmatch(response.headers.get("content-range", ""))
    announced = response.headers.get("content-range", "-")
    if (
        found is None
        or (int(found[1]), int(found[2]) + 1) != (start, end)
        or (found[3] != "*" and int(found[3]) != size)
        or response.length not in (None, end - start)
    ):
        raise _mismatch(origin, f"bytes {start}-{end - 1}/{size}", announced[:80])


def check_whole(response: Response, origin: str, size: int | None) -> None:
    """Check that a 200 has the whole of a file of `size`.

    Raises
    ------
    Refusal
        When another length is announced.
    """
    if size is not None and response.length not in (None, size):
        raise _mismatch(origin, str(size), str(response.length))


def check_coding(response: Response, origin: str) -> None:
    """Check that the bytes are those of the file, not a compressed form of them."""
    coding = response.headers.get("content-encoding", "identity").strip().lower()
    if coding not in ("", "identity"):
        raise _mismatch(origin, "identity", coding)


def _mismatch(origin: str, expected: str, found: str) -> Refusal:
    reason = _(
        "{origin} announces {found} instead of {expected}",
        origin=origin,
        found=found,
        expected=expected,
    )
    return Refusal("mismatch", reason, "corrupt", pause=False)


def wrong_length(origin: str, size: int | None, found: int) -> Refusal:
    """Return the refusal of an answer that turned out longer or shorter than the file."""
    return _mismatch(origin, str(size), str(found))


def cut_short(origin: str, came: int) -> Refusal:
    """Return the refusal of an answer that ended before its end."""
    reason = _("{origin} cut the connection", origin=origin)
    return Refusal("cut", reason, "unreachable", of_origin=not came, pause=not came)
