"""What a pull returns: a folder on this machine and where it came from."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from swift_jupyter.files import size_text as size_text


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
    hub : str or None
        The hub whose listing it follows, where that is known.
    commit : str or None
        The commit that this hub named; see `RepoListing`.
    notices : tuple of str
        What the user should know about this pull.
    """

    repo_id: str
    kind: str
    source: str
    path: Path
    revision: str | None
    size_bytes: int = 0
    hub: str | None = None
    commit: str | None = None
    notices: tuple[str, ...] = ()

    @property
    def size_str(self) -> str:
        """The size for people."""
        return size_text(self.size_bytes)

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as plain JSON values."""
        return {**asdict(self), "path": str(self.path), "notices": list(self.notices)}

    @classmethod
    def from_dict(cls, value: dict[str, Any]) -> Snapshot:
        """Build a snapshot from what `to_dict` gave, read from JSON."""
        known = {spec.name for spec in fields(cls)}
        values = {name: item for name, item in value.items() if name in known}
        values["path"] = Path(values["path"])
        values["notices"] = tuple(values.get("notices", ()))
        return cls(**values)
