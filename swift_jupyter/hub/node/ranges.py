"""Which bytes of a file a request asks for (RFC 9110, section 14)."""

from __future__ import annotations

import re

_RANGE = re.compile(r"\s*bytes\s*=\s*(\d{0,19})\s*-\s*(\d{0,19})\s*", re.IGNORECASE | re.ASCII)


class UnsatisfiableRange(ValueError):
    """A range that begins behind the end of the file."""


def parse_range(header: str | None, size: int) -> tuple[int, int] | None:
    """Return the first byte and the one behind the last, or None for the whole file.

    Parameters
    ----------
    header : str or None
        The value of ``Range``. Several ranges, other units and nonsense are
        ignored, as the RFC allows, so the answer is the whole file then.
    size : int
        Bytes of the file.

    Raises
    ------
    UnsatisfiableRange
        When not a single byte of the file is asked for.
    """
    match = _RANGE.fullmatch(header) if header else None
    if match is None:
        return None
    first, last = match[1], match[2]
    if not first:
        if not last:
            return None
        start, stop = max(0, size - int(last)), size
    else:
        if last and int(last) < int(first):
            return None
        start, stop = int(first), min(size, int(last) + 1) if last else size
    if start >= stop:
        raise UnsatisfiableRange(header)
    return start, stop


def etag_matches(header: str | None, etag: str) -> bool:
    """Tell whether ``If-None-Match`` names `etag` (without its quotes) or anything."""
    if not header:
        return False
    names = [name.strip() for name in header.split(",")]
    return "*" in names or any(name.removeprefix("W/").strip('"') == etag for name in names)
