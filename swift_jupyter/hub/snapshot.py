"""What a pull returns: a folder on this machine and where it came from."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any


def size_text(size: float) -> str:
    """Return `size` bytes in decimal units, such as ``135.2 MB``."""
    for unit in ("B", "kB", "MB", "GB"):
        if abs(size) < 1000:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"


def folder_size(folder: Path) -> int:
    """Return the bytes of all files below `folder`, links followed."""
    total = 0
    for path in folder.rglob("*"):
        try:
            if path.is_file():
                total += path.stat().st_size
        except OSError:
            continue
    return total


@dataclass(frozen=True)
class Snapshot:
    """A complete copy of a repository on this machine.

    Parameters
    ----------
    repo_id : str
        The id under which it was found.
    kind : str
        ``model`` or ``dataset``.
    source : str
        Where it came from, for people: folder, cache, local package,
        ModelScope or Hugging Face.
    path : Path
        The folder with the files.
    revision : str or None
        The commit or branch, when the source knows one.
    size_bytes : int
        Bytes of all files.
    """

    repo_id: str
    kind: str
    source: str
    path: Path
    revision: str | None
    size_bytes: int = field(default=0)

    @property
    def size_str(self) -> str:
        """The size for people."""
        return size_text(self.size_bytes)

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as plain JSON values."""
        return {**asdict(self), "path": str(self.path)}
