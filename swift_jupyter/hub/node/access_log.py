"""One line for each request, in a file that does not grow for ever."""

from __future__ import annotations

import logging
import re
import time
from logging.handlers import RotatingFileHandler
from pathlib import Path

from swift_jupyter.hub.node.exchange import Exchange

_BYTES = 10 << 20
_KEPT = 3
_LONGEST = 500
_TOKEN = re.compile(r"((?:^|[?&])[^=&]*token=)[^&]*", re.IGNORECASE)
_UNPRINTABLE = re.compile(r"[^\x21-\x7e]")


class AccessLog:
    """Writes what was asked and how it was answered; never what a client showed of itself.

    Parameters
    ----------
    file : Path
        The file; ``.1`` to ``.3`` are older.
    """

    def __init__(self, file: Path) -> None:
        file.parent.mkdir(parents=True, exist_ok=True)
        self._handler = RotatingFileHandler(
            file, maxBytes=_BYTES, backupCount=_KEPT, delay=True, encoding="utf-8"
        )
        # A full disk must not stop the serving.
        self._handler.handleError = lambda record: None  # type: ignore[method-assign]

    def close(self) -> None:
        """Close the file."""
        self._handler.close()

    def write(self, exchange: Exchange) -> None:
        """Write the line of an answered request."""
        words = (
            time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            exchange.client,
            exchange.method,
            plain(exchange.uri),
            str(exchange.status or "-"),
            str(exchange.sent),
            f"{time.monotonic() - exchange.started:.3f}s",
            exchange.note or "-",
            plain(exchange.headers.get("Range", "-")),
            '"' + plain(exchange.headers.get("User-Agent", ""), " ").replace('"', "'") + '"',
        )
        record = logging.makeLogRecord({"msg": " ".join(words), "levelno": logging.INFO})
        self._handler.handle(record)


def plain(text: str, allowed: str = "") -> str:
    """Return `text` without tokens of a query and without anything that could forge a line."""
    text = _TOKEN.sub(r"\1***", text[:_LONGEST])
    return _UNPRINTABLE.sub(
        lambda match: match[0] if match[0] in allowed else f"%{ord(match[0]):02X}", text
    )
