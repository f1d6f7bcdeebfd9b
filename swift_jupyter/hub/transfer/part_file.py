"""A file on its way: sparse, written from many threads, with a journal beside it."""

from __future__ import annotations

import hashlib
import os
import threading
from pathlib import Path
from typing import TYPE_CHECKING

from swift_jupyter.hub.listing import RemoteFile
from swift_jupyter.hub.transfer import part_journal
from swift_jupyter.hub.transfer.pieces import Range, Ranges

if TYPE_CHECKING:
    from filelock import BaseFileLock


def part_key(file: RemoteFile, place: str = "") -> str:
    """Return the name under which a part of `file` is kept.

    Parameters
    ----------
    file : RemoteFile
        What is wanted. Its hash names it, so that any other process, source
        or revision with the same content goes on with the part.
    place : str, optional
        What else makes it unique when no hash is listed.
    """
    if file.sha256:
        return f"sha256-{file.sha256.lower()}"
    if file.git_sha1:
        return f"git-{file.git_sha1.lower()}"
    text = f"{place}\n{file.path}\n{file.size}"
    return f"place-{hashlib.sha256(text.encode('utf-8', 'surrogatepass')).hexdigest()}"


class PartBusy(Exception):
    """Another process, or another file of this one, is filling the part."""


class PartFile:
    """The part of one file, and its journal. Threads may write at once.

    Parameters
    ----------
    folder : Path
        Where parts are kept.
    key : str
        From `part_key`.
    size : int or None
        Bytes of the whole file.
    sha256 : str or None
        Noted in the journal.

    Raises
    ------
    PartBusy
        When someone else is filling it.
    OSError
        When the disk does not let us.
    """

    def __init__(self, folder: Path, key: str, size: int | None, sha256: str | None = None) -> None:
        self.path = folder / f"{key}.part"
        self.journal_path = folder / f"{key}.journal"
        self.size = size
        self._sha256 = sha256
        self._mutex = threading.Condition()
        self._writers = 0
        self._open = False
        self._unsynced = False
        self._lock = _locked(folder / f"{key}.lock")
        try:
            self.written = self._start()
        except BaseException:
            self._lock.release()
            raise

    def write(self, data: memoryview, offset: int) -> bool:
        """Write `data` and its row; False when the part has been closed meanwhile.

        Raises
        ------
        OSError
            When the disk is full, for example. What was written stays.
        """
        end = offset + len(data)
        with self._mutex:
            if not self._open:
                return False
            self._writers += 1
        try:
            position = offset
            while position < end:
                position += _pwrite(self._fd, data[position - offset :], position)
            os.write(self._journal, part_journal.written_row(offset, end))
        finally:
            with self._mutex:
                self._writers -= 1
                self._unsynced = True
                self._mutex.notify_all()
        with self._mutex:
            self.written.add(offset, end)
        return True

    def missing(self, start: int, end: int) -> list[Range]:
        """Return what is not written yet between two places."""
        with self._mutex:
            return self.written.holes(start, end)

    @property
    def frontier(self) -> int:
        """The number of bytes from the beginning on that are there."""
        with self._mutex:
            return self.written.frontier

    @property
    def written_bytes(self) -> int:
        """The number of bytes that are there."""
        with self._mutex:
            return self.written.total

    def read(self, buffer: memoryview, offset: int) -> int:
        """Read into `buffer` from `offset` and return the count; 0 when closed."""
        with self._mutex:
            if not self._open:
                return 0
            self._writers += 1
        try:
            return _preadv(self._fd, buffer, offset)
        finally:
            with self._mutex:
                self._writers -= 1
                self._mutex.notify_all()

    def forget(self, start: int, end: int) -> None:
        """Note that bytes are wrong and have to come again."""
        with self._mutex:
            self.written.remove(start, end)
            if self._open:
                os.write(self._journal, part_journal.dropped_row(start, end))

    def resize(self, size: int) -> None:
        """Set the size, learned from an answer or from the end of a stream."""
        with self._mutex:
            self.size = size
            if self._open:
                os.ftruncate(self._fd, size)

    def sync(self) -> None:
        """Make sure that what is written so far survives a loss of power."""
        with self._mutex:
            if not self._open or not self._unsynced:
                return
            self._unsynced = False
            offset = os.fstat(self._journal).st_size
            # Of its own, so that closing need not wait for a slow disk.
            descriptor = os.dup(self._fd)
        try:
            getattr(os, "fdatasync", os.fsync)(descriptor)
        except OSError:
            # Then nothing is promised; an error of the disk shows at the next write.
            return
        finally:
            os.close(descriptor)
        with self._mutex:
            if self._open:
                os.write(self._journal, part_journal.synced_row(offset))

    def close(self) -> None:
        """Stop writing and give the part free; it stays for the next time."""
        self._close_files()
        self._lock.release()

    def delivered(self) -> None:
        """Clear away after the part was moved to its place."""
        self._close_files()
        self.journal_path.unlink(missing_ok=True)
        self._lock.release()

    def discard(self) -> None:
        """Remove the part."""
        self._close_files()
        self.path.unlink(missing_ok=True)
        self.journal_path.unlink(missing_ok=True)
        self._lock.release()

    def _start(self) -> Ranges:
        state = self._read_state()
        flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0)
        flags |= getattr(os, "O_NOFOLLOW", 0)
        self._fd = os.open(self.path, flags, 0o666)
        try:
            os.ftruncate(self._fd, self.size or 0)
            self._write_header(state)
            self._journal = os.open(
                self.journal_path, os.O_WRONLY | os.O_APPEND | getattr(os, "O_BINARY", 0)
            )
        except BaseException:
            os.close(self._fd)
            raise
        self._open = True
        self._unsynced = bool(state.written)
        return state.written

    def _read_state(self) -> part_journal.JournalState:
        empty = part_journal.JournalState(self.size, self._sha256)
        try:
            length = self.path.stat().st_size
            state = part_journal.read_journal(
                self.journal_path.read_bytes(), part_journal.this_boot()
            )
        except OSError:
            return empty
        # Without a known size there is nothing to go on from: the file may have changed.
        if state is None or self.size is None or state.size != self.size or length != self.size:
            return empty
        state.written.remove(self.size, 1 << 62)
        return state

    def _write_header(self, state: part_journal.JournalState) -> None:
        """Begin a new journal that says in few rows what the old one said."""
        # Bytes that were synced before a reboot may be marked as such only by a new
        # sync; `sync` will do it, as `_unsynced` is set then.
        data = part_journal.header_row(self.size, self._sha256, part_journal.this_boot())
        data += b"".join(part_journal.written_row(start, end) for start, end in state.written)
        fresh = self.journal_path.with_suffix(".journal-new")
        fresh.write_bytes(data)
        fresh.replace(self.journal_path)

    def _close_files(self) -> None:
        with self._mutex:
            if not self._open:
                return
            self._open = False
            # A descriptor must not be closed, and maybe reused, under a write.
            while self._writers:
                self._mutex.wait()
            os.close(self._fd)
            os.close(self._journal)


def _locked(path: Path) -> BaseFileLock:
    # Not at the top: small files need no lock, and it takes long to load.
    from filelock import FileLock, SoftFileLock, Timeout

    lock: BaseFileLock = FileLock(path, blocking=False, thread_local=False)
    try:
        lock.acquire()
    except Timeout:
        raise PartBusy from None
    except NotImplementedError:
        # Some network file systems know no locks.
        lock = SoftFileLock(path.with_suffix(".soft-lock"), blocking=False, thread_local=False)
        try:
            lock.acquire()
        except Timeout:
            raise PartBusy from None
    return lock


def _pwrite(descriptor: int, data: memoryview, offset: int) -> int:
    if hasattr(os, "pwrite"):
        return os.pwrite(descriptor, data, offset)
    with _SEEKING:
        os.lseek(descriptor, offset, os.SEEK_SET)
        return os.write(descriptor, data)


def _preadv(descriptor: int, buffer: memoryview, offset: int) -> int:
    if hasattr(os, "preadv"):
        return os.preadv(descriptor, [buffer], offset)
    with _SEEKING:
        os.lseek(descriptor, offset, os.SEEK_SET)
        data = os.read(descriptor, len(buffer))
    buffer[: len(data)] = data
    return len(data)


_SEEKING = threading.Lock()
