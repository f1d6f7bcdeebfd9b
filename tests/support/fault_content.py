"""Content of any size that takes no room: a window that turns over one block of noise.

The block's length is a prime, so a piece that lands at a wrong offset is never right by chance.
"""

from __future__ import annotations

import hashlib
import os
import random
from collections.abc import Iterator
from functools import cache
from pathlib import Path

BLOCK_LENGTH = 4_194_301
_READ = 1 << 20


@cache
def noise() -> bytes:
    """Return the block."""
    return random.Random(22).randbytes(BLOCK_LENGTH)


@cache
def noise_file() -> int:
    """Return a descriptor of a file in memory that holds the block."""
    descriptor = os.memfd_create("noise")
    view = memoryview(noise())
    while view:
        view = view[os.write(descriptor, view) :]
    return descriptor


class Content:
    """The bytes of one file, or its length and a seed from which they follow.

    Parameters
    ----------
    size : int
        Length in bytes.
    seed : str
        What tells it from other content of that length.
    literal : bytes, optional
        The bytes themselves.
    sha256 : str, optional
        The hash, for content that is only told of and never sent.
    """

    def __init__(
        self, size: int, seed: str = "", literal: bytes | None = None, sha256: str | None = None
    ) -> None:
        self.size = size if literal is None else len(literal)
        self.literal = literal
        self.told = sha256
        digest = hashlib.sha256(seed.encode(errors="surrogatepass")).digest()
        self.start = int.from_bytes(digest[:8], "big") % BLOCK_LENGTH

    def slices(self, first: int, end: int, step: int = _READ) -> Iterator[tuple[int, int]]:
        """Yield (offset in the block, length) for the bytes from `first` to `end`."""
        while first < end:
            offset = (self.start + first) % BLOCK_LENGTH
            length = min(step, end - first, BLOCK_LENGTH - offset)
            yield offset, length
            first += length

    def read(self, first: int, end: int) -> bytes:
        """Return the bytes from `first` to `end`."""
        if self.literal is not None:
            return self.literal[first:end]
        return b"".join(noise()[at : at + length] for at, length in self.slices(first, end))

    def hashes(self) -> tuple[str, str]:
        """Return the SHA-256 and git's blob id."""
        if self.told is not None:
            return self.told, ""
        if self.literal is None:
            return _noise_hashes(self.start, self.size)
        blob = b"blob %d\0" % self.size + self.literal
        return hashlib.sha256(self.literal).hexdigest(), hashlib.sha1(blob).hexdigest()


@cache
def _noise_hashes(start: int, size: int) -> tuple[str, str]:
    content = Content(size)
    content.start = start
    sha256, git = hashlib.sha256(), hashlib.sha1(b"blob %d\0" % size)
    small = size < 1 << 24
    view = memoryview(noise())
    for offset, length in content.slices(0, size, BLOCK_LENGTH):
        sha256.update(view[offset : offset + length])
        if small:
            git.update(view[offset : offset + length])
    return sha256.hexdigest(), git.hexdigest() if small else ""


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file."""
    digest, buffer = hashlib.sha256(), bytearray(_READ)
    with path.open("rb", buffering=0) as stream:
        while count := stream.readinto(buffer):
            digest.update(memoryview(buffer)[:count])
    return digest.hexdigest()
