"""SHA-256 of every piece of an object, for repair and for pulls from several sources."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path

from swift_jupyter.files import write_json_atomically

PIECE_SIZE = 8 << 20
_BLOCK = 1 << 20


def piece_hashes(
    path: Path, sha256: str, kept: Path, check: Callable[[], None] = lambda: None
) -> list[str] | None:
    """Return the SHA-256 of each `PIECE_SIZE` bytes of an object, from `kept` when possible.

    Parameters
    ----------
    path : Path
        The object.
    sha256 : str
        Its hash. The whole is hashed along with the pieces, so that a damaged
        object never gives hashes that would spoil a good copy.
    kept : Path
        The folder in which computed hashes are kept.
    check : callable, optional
        Called for every block; it may raise to stop.

    Returns
    -------
    list of str or None
        None when the object is not what its name says.
    """
    file = kept / sha256[:2] / f"{sha256}.json"
    size = path.stat().st_size
    known = _read(file, size)
    if known is not None:
        return known
    whole = hashlib.sha256()
    pieces: list[str] = []
    block = memoryview(bytearray(_BLOCK))
    with path.open("rb", buffering=0) as stream:
        while size:
            piece = hashlib.sha256()
            left = min(PIECE_SIZE, size)
            while left:
                check()
                count = stream.readinto(block[: min(_BLOCK, left)])
                if not count:
                    return None
                piece.update(block[:count])
                whole.update(block[:count])
                left -= count
                size -= count
            pieces.append(piece.hexdigest())
    if whole.hexdigest() != sha256:
        return None
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        write_json_atomically(file, pieces)
    except OSError:
        pass  # They are computed again next time.
    return pieces


def _read(file: Path, size: int) -> list[str] | None:
    try:
        value = json.loads(file.read_text(encoding="ascii"))
    except (OSError, ValueError):
        return None
    count = -(-size // PIECE_SIZE)
    whole = isinstance(value, list) and all(isinstance(text, str) for text in value)
    return value if whole and len(value) == count else None


def forget_removed(kept: Path, exists: Callable[[str], bool]) -> None:
    """Drop the hashes of objects that are gone."""
    for entry in kept.glob("??/*.json"):
        if not exists(entry.stem):
            os.unlink(entry)  # noqa: PTH108
