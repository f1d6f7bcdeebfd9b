"""One repository in the caches, as the listing shows it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from swift_jupyter.files import size_text
from swift_jupyter.hub.cache.contents import InodeKey


@dataclass(frozen=True)
class CachedRepo:
    """One repository in a cache, or in both hubs' caches with the same files.

    Parameters
    ----------
    repo_id : str
        Its id.
    kind : str
        ``model`` or ``dataset``.
    hub : str
        Where it came from: ModelScope, Hugging Face, or local package.
    path : Path
        The folder with all its revisions.
    size_bytes : int
        Bytes on the disk, each file counted once.
    file_count : int
        Files, partial ones included.
    last_used : float
        When it was last used, in seconds since the epoch: when a pull last found it, or
        a file was read or written. Reading does not count on disks that do not note it.
    complete : bool
        Whether its newest revision has all that loading it needs.
    revisions : tuple of str
        Branches, tags or commits that are there.
    progress : float or None
        Which part of an incomplete one is there, 0 to 1; None when that is not known.
    pinned : bool
        Whether no clean-up may remove it.
    hubs : tuple of str
        All hubs in whose caches it is.
    names : tuple of str
        All ids that it has there.
    paths : tuple of Path
        All its folders, the first of which is `path`.
    broken_off : bool
        Whether a transfer was broken off, and what it has left is of no use by itself.
    shared : mapping
        Bytes of those files that have more names, by device and inode.
    """

    repo_id: str
    kind: str
    hub: str
    path: Path
    size_bytes: int
    file_count: int
    last_used: float
    complete: bool
    revisions: tuple[str, ...] = ()
    progress: float | None = None
    pinned: bool = False
    hubs: tuple[str, ...] = ()
    names: tuple[str, ...] = ()
    paths: tuple[Path, ...] = ()
    broken_off: bool = False
    shared: dict[InodeKey, int] = field(default_factory=dict, compare=False, repr=False)

    def __post_init__(self) -> None:
        for name, value in (("hubs", self.hub), ("names", self.repo_id), ("paths", self.path)):
            if not getattr(self, name):
                object.__setattr__(self, name, (value,))

    @property
    def size_str(self) -> str:
        """The size for people."""
        return size_text(self.size_bytes)

    def is_called(self, name: str) -> bool:
        """Tell whether `name` is one of its ids; capitals do not matter."""
        return name.lower() in (known.lower() for known in self.names)

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as plain JSON values."""
        return {
            "repo_id": self.repo_id,
            "kind": self.kind,
            "hub": self.hub,
            "path": str(self.path),
            "size_bytes": self.size_bytes,
            "size_str": self.size_str,
            "file_count": self.file_count,
            "last_used": self.last_used,
            "complete": self.complete,
            "progress": self.progress,
            "pinned": self.pinned,
            "revisions": list(self.revisions),
            "hubs": list(self.hubs),
            "names": list(self.names),
            "paths": [str(path) for path in self.paths],
        }

    def merged_with(self, other: CachedRepo) -> CachedRepo:
        """Return both as one; what `self` says about the origin counts."""
        shared = {**self.shared, **other.shared}
        size = _own_bytes(self) + _own_bytes(other) + sum(shared.values())
        known = [part for part in (self.progress, other.progress) if part is not None]
        complete = self.complete or other.complete
        return replace(
            self,
            size_bytes=size,
            file_count=self.file_count + other.file_count - _common(self, other),
            last_used=max(self.last_used, other.last_used),
            complete=complete,
            progress=None if complete else max(known, default=None),
            pinned=self.pinned or other.pinned,
            revisions=tuple(dict.fromkeys((*self.revisions, *other.revisions))),
            hubs=tuple(dict.fromkeys((*self.hubs, *other.hubs))),
            names=tuple(dict.fromkeys((*self.names, *other.names))),
            paths=(*self.paths, *other.paths),
            broken_off=self.broken_off and other.broken_off,
            shared=shared,
        )


def disk_bytes(entries: Iterable[CachedRepo]) -> int:
    """Return the bytes of all entries together, files that they share counted once."""
    own, shared = 0, {}
    for entry in entries:
        own += _own_bytes(entry)
        shared.update(entry.shared)
    return own + sum(shared.values())


def _own_bytes(entry: CachedRepo) -> int:
    return entry.size_bytes - sum(entry.shared.values())


def _common(one: CachedRepo, other: CachedRepo) -> int:
    return len(one.shared.keys() & other.shared.keys())
