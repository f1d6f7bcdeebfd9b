"""An index that any number of processes append to, on any file system.

A database would want locks that homes on a network do not have. Here a key's rows
are lines of one of 256 files. Each line carries a checksum: what a crash or two
writers at once have torn is passed over, and the fact it told is only found anew.
"""

from __future__ import annotations

import os
import threading
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from urllib.parse import quote_from_bytes, unquote_to_bytes

from swift_jupyter.files import write_bytes_atomically

Row = tuple[str, ...]
_SAFE = "/-_.:~ +=,@()[]!"


def encode_line(row: Row) -> bytes:
    """Return a row as one line with its checksum."""
    text = "\t".join(quote_from_bytes(os.fsencode(field), safe=_SAFE) for field in row).encode()
    return b"%s\t%08x\n" % (text, zlib.crc32(text))


def decode_line(line: bytes) -> Row | None:
    """Return the row of a line without its line end, or None for a torn one."""
    text, tab, checksum = line.rpartition(b"\t")
    if not tab or checksum != b"%08x" % zlib.crc32(text):
        return None
    if b"%" not in text:
        return tuple(text.decode("ascii").split("\t"))
    return tuple(os.fsdecode(unquote_to_bytes(field)) for field in text.split(b"\t"))


class ShardedIndex:
    """Rows by the key in their first field, in files named by its first two characters.

    Parameters
    ----------
    folder : Path
        Where the files are; made at the first write.
    fields : int
        How many fields a row has; others are passed over.

    Notes
    -----
    Readable at any time; a reader takes in what others appended when `refresh`
    is called. Safe with threads.
    """

    def __init__(self, folder: Path, fields: int) -> None:
        self.folder = str(folder)
        self._fields = fields
        self._rows: dict[str, list[Row]] = {}
        self._read: dict[str, tuple[int, int]] = {}
        self._lock = threading.Lock()

    def rows(self, key: str) -> list[Row]:
        """Return the rows of a key, the oldest first, as far as they were read."""
        if key[:2] not in self._read:
            self.refresh(key)
        return self._rows.get(key, [])

    def refresh(self, key: str) -> bool:
        """Read what other processes appended to the file of `key`; tell whether it is news."""
        shard = key[:2]
        try:
            state = os.stat(self._path(shard))
        except OSError:
            self._read.setdefault(shard, (0, 0))
            return False
        with self._lock:
            inode, offset = self._read.get(shard, (0, 0))
            if (state.st_ino, state.st_size) == (inode, offset):
                return False
            if inode and (state.st_ino != inode or state.st_size < offset):
                self._forget(shard)
                offset = 0
            return self._take(shard, offset)

    def append(self, rows: Iterable[Row]) -> None:
        """Add rows, each with one write, so that those of several processes do not mix.

        Raises
        ------
        OSError
            When they cannot be stored; this process knows them all the same.
        """
        by_shard: dict[str, list[Row]] = {}
        for row in rows:
            by_shard.setdefault(row[0][:2], []).append(row)
        for shard, added in by_shard.items():
            self.rows(added[0][0])
            content = b"".join(map(encode_line, added))
            try:
                inode, size = self._write(shard, content)
            except OSError:
                self._learn(added)
                raise
            with self._lock:
                known_inode, offset = self._read.get(shard, (0, 0))
                if known_inode in (0, inode) and size == offset + len(content):
                    self._read[shard] = (inode, size)
                    self._learn(added)
                    continue
            self.refresh(added[0][0])  # Others wrote as well: read theirs and ours in order.

    def keys(self) -> Iterator[str]:
        """Yield every key."""
        try:
            names = os.listdir(self.folder)
        except OSError:
            return
        for name in names:
            if len(name) == 6 and name.endswith(".log"):
                self.refresh(name[:2])
        yield from list(self._rows)

    def compact(self, keep: Callable[[Row], bool]) -> None:
        """Rewrite the files with only the last of equal rows for which `keep(row)` is true.

        A row that another process appends in that moment may be lost, which costs no more
        than finding it anew.
        """
        changed = set()
        for key in list(self.keys()):
            rows = self._rows[key]
            kept = [row for row in dict.fromkeys(reversed(rows)) if keep(row)][::-1]
            if len(kept) != len(rows):
                changed.add(key[:2])
                self._rows[key] = kept
        with self._lock:
            for shard in changed:
                keys = [key for key in self._rows if key[:2] == shard]
                lines = [encode_line(row) for key in keys for row in self._rows[key]]
                path = Path(self._path(shard))
                write_bytes_atomically(path, b"".join(lines))
                state = path.stat()
                self._read[shard] = (state.st_ino, state.st_size)
            self._rows = {key: rows for key, rows in self._rows.items() if rows}

    def _path(self, shard: str) -> str:
        return f"{self.folder}/{shard}.log"

    def _take(self, shard: str, offset: int) -> bool:
        try:
            with open(self._path(shard), "rb") as stream:
                inode = os.fstat(stream.fileno()).st_ino
                stream.seek(offset)
                content = stream.read()
        except OSError:
            self._read.setdefault(shard, (0, 0))
            return False
        complete, newline, _torn = content.rpartition(b"\n")
        self._read[shard] = (inode, offset + len(complete) + len(newline))
        rows = map(decode_line, complete.split(b"\n"))
        self._learn(row for row in rows if row is not None and len(row) == self._fields)
        return True

    def _learn(self, rows: Iterable[Row]) -> None:
        for row in rows:
            self._rows.setdefault(row[0], []).append(row)

    def _write(self, shard: str, content: bytes) -> tuple[int, int]:
        """Append to a file and return its inode and its size then."""
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | getattr(os, "O_BINARY", 0)
        try:
            handle = os.open(self._path(shard), flags, 0o644)
        except FileNotFoundError:
            os.makedirs(self.folder, exist_ok=True)
            handle = os.open(self._path(shard), flags, 0o644)
        try:
            size = os.fstat(handle).st_size
            known = self._read.get(shard, (0, 0))[1]
            if size != known and size and _last_byte(handle, size) != b"\n":
                content = b"\n" + content  # Closes a line that a crash tore off.
            while content:
                content = content[os.write(handle, content) :]
            state = os.fstat(handle)
            return state.st_ino, state.st_size
        finally:
            os.close(handle)

    def _forget(self, shard: str) -> None:
        for key in [key for key in self._rows if key[:2] == shard]:
            del self._rows[key]


def _last_byte(handle: int, size: int) -> bytes:
    os.lseek(handle, size - 1, os.SEEK_SET)
    return os.read(handle, 1)
