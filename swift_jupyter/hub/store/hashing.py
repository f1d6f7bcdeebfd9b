"""What a file is: its hashes, and the fingerprint that tells whether it changed since."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

_BLOCK = 1 << 20
# Hugging Face names files below 10 MB by git's hash; above this one, SHA-256 is enough.
BOTH_HASHES_BELOW = 16 << 20


class Fingerprint(NamedTuple):
    """The state of a file by which a change is noticed without reading it.

    A hard link has the same fingerprint as the file itself.
    """

    size: int
    mtime_ns: int
    inode: int

    @classmethod
    def of(cls, state: os.stat_result) -> Fingerprint:
        """Return the fingerprint in a file's state."""
        return cls(state.st_size, state.st_mtime_ns, state.st_ino)


def allocated_bytes(state: os.stat_result) -> int:
    """Return what a file takes on the disk: a part file is as long as the whole from its start."""
    blocks: int | None = getattr(state, "st_blocks", None)
    return state.st_size if blocks is None else min(state.st_size, blocks * 512)


class Hashes(NamedTuple):
    """The SHA-256 of a file, and git's blob id when it was wanted."""

    sha256: str
    git_sha1: str | None


def hash_file(
    path: str | Path, git: bool, progress: Callable[[int], None] = lambda count: None
) -> tuple[Hashes, Fingerprint]:
    """Read a file once and return its hashes and the fingerprint that it had.

    Parameters
    ----------
    path : str or Path
        The file; links are followed.
    git : bool
        Whether git's blob id is wanted as well: the SHA-1 of ``blob <size>\\0`` and the content.
    progress : callable, optional
        Told the number of bytes just read. It may raise to stop.

    Raises
    ------
    OSError
        When it cannot be read, or changes while it is read.
    """
    sha256 = hashlib.sha256()
    sha1 = hashlib.sha1(usedforsecurity=False) if git else None
    buffer = memoryview(bytearray(_BLOCK))
    with open(path, "rb", buffering=0) as stream:
        before = Fingerprint.of(os.fstat(stream.fileno()))
        if sha1 is not None:
            sha1.update(b"blob %d\0" % before.size)
        while count := stream.readinto(buffer):
            sha256.update(buffer[:count])
            if sha1 is not None:
                sha1.update(buffer[:count])
            progress(count)
        after = Fingerprint.of(os.fstat(stream.fileno()))
    if before != after:
        raise OSError(f"{path} changed while it was read")
    return Hashes(sha256.hexdigest(), sha1.hexdigest() if sha1 is not None else None), after
