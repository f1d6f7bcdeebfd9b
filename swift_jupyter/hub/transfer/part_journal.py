"""The journal of a part file: which of its bytes are written, and which are on the disk for good.

A text file, one row a line, each with a check sum of its own. Rows are only
appended, each by one small write after the bytes it speaks of::

    h <size or -> <sha256 or -> <boot id or ->
    w <start> <end>
    d <start> <end>     thrown away again
    s <offset>          what rows before this offset say is synced

A killed process loses nothing that has a row. After a reboot only what was
synced counts: the system may have written a row before the bytes.
"""

from __future__ import annotations

import functools
import zlib
from dataclasses import dataclass, field
from pathlib import Path

from swift_jupyter.hub.transfer.pieces import Ranges

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


@dataclass
class JournalState:
    """What a journal tells.

    Parameters
    ----------
    size : int or None
        Bytes of the whole file.
    sha256 : str or None
        The hash that the file is to have.
    written : Ranges
        What may be trusted.
    """

    size: int | None = None
    sha256: str | None = None
    written: Ranges = field(default_factory=Ranges)


def header_row(size: int | None, sha256: str | None, boot_id: str | None) -> bytes:
    """Return the first row of a journal."""
    values = ("-" if value is None else str(value) for value in (size, sha256, boot_id))
    return _row("h " + " ".join(values))


def written_row(start: int, end: int) -> bytes:
    """Return the row for bytes that have been written."""
    return _row(f"w {start} {end}")


def dropped_row(start: int, end: int) -> bytes:
    """Return the row for bytes that count no more."""
    return _row(f"d {start} {end}")


def synced_row(offset: int) -> bytes:
    """Return the row after a sync of everything that rows before `offset` tell."""
    return _row(f"s {offset}")


def read_journal(data: bytes, boot_id: str | None) -> JournalState | None:
    """Return what may be trusted of a journal, or None when it has no header.

    Parameters
    ----------
    data : bytes
        The whole journal. It may end in the middle of a row, and what follows
        a damaged row is not looked at.
    boot_id : str or None
        Names the present run of the system; None if that is not known.
    """
    rows = _rows(data)
    if not rows or rows[0][1][0] != "h":
        return None
    size, sha256, boot = (None if value == "-" else value for value in rows[0][1][1:])
    state = JournalState(None if size is None else int(size), sha256)
    same_boot = boot is not None and boot == boot_id
    trusted = len(data)
    if not same_boot:
        trusted = max((int(row[1]) for _offset, row in rows if row[0] == "s"), default=0)
    for offset, row in rows[1:]:
        if row[0] == "d":
            # Doubt is kept in any case.
            state.written.remove(int(row[1]), int(row[2]))
        elif row[0] == "w" and offset < trusted:
            state.written.add(int(row[1]), int(row[2]))
    if state.size is not None and state.written.holes(0, state.size) == []:
        state.written = Ranges([(0, state.size)])
    return state


@functools.cache
def this_boot() -> str | None:
    """Return what names the present run of the system, or None if nothing does."""
    try:
        return _BOOT_ID.read_text("ascii").strip() or None
    except (OSError, UnicodeDecodeError):
        return None


def _row(text: str) -> bytes:
    return f"{text} {zlib.crc32(text.encode()):08x}\n".encode()


_LENGTHS = {"h": 4, "w": 3, "d": 3, "s": 2}


def _rows(data: bytes) -> list[tuple[int, list[str]]]:
    """Return the offsets and the words of all rows up to the first damaged one."""
    result = []
    offset = 0
    while (end := data.find(b"\n", offset)) >= 0:
        text, _space, check = data[offset:end].decode("ascii", "replace").rpartition(" ")
        words = text.split(" ")
        if check != f"{zlib.crc32(text.encode()):08x}" or len(words) != _LENGTHS.get(words[0]):
            break
        result.append((offset, words))
        offset = end + 1
    return result
