"""Comparing files with the hashes that a hub lists for them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from swift_jupyter.hub.listing import RemoteFile

_BLOCK = 4 << 20


@dataclass(frozen=True)
class Mismatch:
    """A file that is not what the hub lists.

    Parameters
    ----------
    path : str
        The path in the repository.
    expected, found : str
        The hash or size, with its sort, such as ``sha256 1f0a…``.
    """

    path: str
    expected: str
    found: str


def verify_files(
    folder: Path,
    files: Iterable[RemoteFile],
    progress: Callable[[str, int], None] = lambda path, count: None,
) -> list[Mismatch]:
    """Compare every one of `files` in `folder` with its listed size and hash.

    Parameters
    ----------
    folder : Path
        The folder of the snapshot.
    files : iterable of RemoteFile
        What should be there.
    progress : callable, optional
        Told the path and the number of bytes just read. It may raise to stop.

    Returns
    -------
    list of Mismatch
        Empty when all is right.

    Notes
    -----
    SHA-256 is compared where it is listed, else git's blob id, which is the
    SHA-1 of ``blob <size>\\0`` and the content.
    """
    return [
        mismatch
        for file in files
        if (mismatch := _verify_file(folder / file.path, file, progress)) is not None
    ]


def _verify_file(
    path: Path, file: RemoteFile, progress: Callable[[str, int], None]
) -> Mismatch | None:
    try:
        size = path.stat().st_size
    except OSError:
        return Mismatch(file.path, "a file", "nothing")
    if file.size is not None and size != file.size:
        return Mismatch(file.path, f"{file.size} bytes", f"{size} bytes")
    if file.sha256:
        label, digest, expected = "sha256", hashlib.sha256(), file.sha256
    elif file.git_sha1:
        label, digest, expected = "git sha1", hashlib.sha1(usedforsecurity=False), file.git_sha1
        digest.update(f"blob {size}\0".encode())
    else:
        return None
    with path.open("rb") as stream:
        while block := stream.read(_BLOCK):
            digest.update(block)
            progress(file.path, len(block))
    found = digest.hexdigest()
    if found == expected.lower():
        return None
    return Mismatch(file.path, f"{label} {expected}", f"{label} {found}")


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file as lower-case hex."""
    with path.open("rb") as stream:
        digest = hashlib.sha256()
        while block := stream.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()
