"""JSON lines that one process appends and any number of readers follow."""

from __future__ import annotations

import contextlib
import json
import math
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from swift_jupyter.files import encode_json, write_bytes_atomically


def encode_row(row: dict[str, Any]) -> bytes:
    """Return a row as one line of strict JSON; NaN and infinities become null."""
    return encode_json(_finite(row), default=str)


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return value


def append_row(path: Path, row: dict[str, Any]) -> None:
    """Append a row with one write, so that lines of several processes never mix.

    A line that a crash tore off is closed first, so that only it is lost.

    Raises
    ------
    OSError
        When the disk is full; a part of the line may be there, which readers pass over.
    """
    line = encode_row(row)
    handle = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        size = os.lseek(handle, 0, os.SEEK_END)
        if size:
            os.lseek(handle, size - 1, os.SEEK_SET)
            if os.read(handle, 1) != b"\n":
                line = b"\n" + line
        while line:  # A disk that fills up takes a part, and says so at the next try.
            line = line[os.write(handle, line) :]
    finally:
        os.close(handle)


def parse_rows(lines: Iterable[bytes]) -> list[dict[str, Any]]:
    """Return the rows of complete lines; what is not a JSON object is passed over."""
    rows = []
    for line in lines:
        with contextlib.suppress(ValueError):
            row = json.loads(line)
            if isinstance(row, dict):
                rows.append(row)
    return rows


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Return all rows of a journal; an absent file has none."""
    return JournalReader(path).new_rows()


class JournalReader:
    """Follow a journal: each call returns what is new.

    Parameters
    ----------
    path : Path
        The file, which may appear later.

    Notes
    -----
    A last line without its newline is left for the next call, since its writer may
    be in the middle of it. A file that was replaced (see `keep_rows`) is read from
    its start again, which `restarted` tells.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.restarted = False
        self._offset = 0
        self._inode = 0

    def new_rows(self) -> list[dict[str, Any]]:
        """Return the rows that were completed since the last call."""
        self.restarted = False
        try:
            stream = self.path.open("rb")
        except OSError:
            return []
        with stream:
            status = os.fstat(stream.fileno())
            if status.st_ino != self._inode or status.st_size < self._offset:
                self.restarted = self._inode != 0
                self._inode, self._offset = status.st_ino, 0
            stream.seek(self._offset)
            content = stream.read()
        complete, newline, _torn = content.rpartition(b"\n")
        self._offset += len(complete) + len(newline)
        return parse_rows(complete.split(b"\n"))


def keep_rows(path: Path, keep: Callable[[dict[str, Any]], bool]) -> None:
    """Rewrite a journal with only the rows for which `keep(row)` is true."""
    if path.exists():
        rows = [row for row in read_rows(path) if keep(row)]
        write_bytes_atomically(path, b"".join(encode_row(row) for row in rows))
