"""What the store holds for nobody: a plan that tells what it frees, then the deed."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

from swift_jupyter.hub.store.hashing import allocated_bytes
from swift_jupyter.hub.store.links import told_to_the_user
from swift_jupyter.hub.store.manifests import ManifestKey
from swift_jupyter.hub.store.store import Store

DAY = 86_400.0
# A running pull has its files in the store before anything refers to them.
_GRACE = 3_600.0

Sort = Literal["object", "part", "quarantined"]


@dataclass(frozen=True)
class Garbage:
    """One file that nothing refers to."""

    path: str
    sort: Sort
    size: int
    changed_ns: int


@dataclass(frozen=True)
class GarbagePlan:
    """What can go from the store.

    Parameters
    ----------
    store : Store
        The store.
    files : tuple of Garbage
        Objects, unfinished transfers and quarantined files.
    manifests : tuple of ManifestKey
        Manifests of what is no longer there.
    """

    store: Store
    files: tuple[Garbage, ...]
    manifests: tuple[ManifestKey, ...]

    @property
    def expected_freed_bytes(self) -> int:
        """What removing the files frees."""
        return sum(file.size for file in self.files)

    def execute(self) -> int:
        """Remove everything that has not changed since, and return the bytes that were freed.

        Raises
        ------
        UserError
            When the store cannot be written.
        """
        freed = 0
        with told_to_the_user(self.store.root):
            for key in self.manifests:
                self.store.manifest_files.remove(key)
            for file in self.files:
                freed += _remove(file)
            if self.files:
                self.store.forget_removed()
        return freed


def find_garbage(
    store: Store,
    *,
    keep_manifest: Callable[[ManifestKey], bool],
    referenced: Collection[str] = (),
    part_days: float = 7.0,
    grace: float = _GRACE,
    now: float | None = None,
) -> GarbagePlan:
    """Find what can go.

    Parameters
    ----------
    store : Store
        The store.
    keep_manifest : callable
        Tells whether a manifest, and so every file that it names, stays. For a mirror
        node: ``store.manifest_files.is_held``.
    referenced : collection of str
        SHA-256 of files that stay for other reasons.
    part_days : float
        Unfinished transfers and quarantined files go when they are older.
    grace : float
        Seconds for which new objects and manifests are left alone.
    now : float, optional
        Seconds since the epoch; the present when left out.

    Notes
    -----
    An object that has another name is shown by some cache; removing it would free nothing,
    so it stays.
    """
    now = time.time() if now is None else now
    manifests, kept = [], []
    for key in store.manifest_files.all_keys():
        if keep_manifest(key) or _is_new(store, key, now - grace):
            kept.append(key)
        else:
            manifests.append(key)
    wanted = {*referenced, *manifest_hashes(store, kept)}
    files = [
        *_objects(store, wanted, now - grace),
        *_old_files(store, "parts", "part", now - part_days * DAY),
        *_old_files(store, "quarantine", "quarantined", now - part_days * DAY),
    ]
    return GarbagePlan(store, tuple(files), tuple(manifests))


def manifest_hashes(store: Store, keys: Iterable[ManifestKey]) -> Iterator[str]:
    """Yield the SHA-256 of every file that manifests name, as far as it is known."""
    for key in keys:
        listing = store.manifest_files.read_key(key)
        for file in listing.files if listing is not None else ():
            sha256 = file.sha256 or (file.git_sha1 and store.find_git(file.git_sha1, file.size))
            if sha256:
                yield sha256.lower()


def _objects(store: Store, wanted: Collection[str], before: float) -> Iterator[Garbage]:
    for entry in store.objects():
        if entry.name in wanted:
            continue
        state = entry.stat(follow_symlinks=False)
        # A rename or a new link changes this time, the time of writing may be long ago.
        if state.st_nlink == 1 and state.st_ctime <= before:
            yield Garbage(entry.path, "object", state.st_size, state.st_ctime_ns)


def _old_files(store: Store, name: str, sort: Sort, before: float) -> Iterator[Garbage]:
    try:
        entries = list(os.scandir(store.root / name))
    except OSError:
        return
    for entry in entries:
        state = entry.stat(follow_symlinks=False)
        if entry.is_file(follow_symlinks=False) and state.st_mtime <= before:
            size = allocated_bytes(state) if state.st_nlink == 1 else 0
            yield Garbage(entry.path, sort, size, state.st_ctime_ns)


def _is_new(store: Store, key: ManifestKey, since: float) -> bool:
    written = store.manifest_files.written_ns(key)
    return written is not None and written / 1e9 > since


def _remove(file: Garbage) -> int:
    try:
        state = os.lstat(file.path)
        if state.st_ctime_ns != file.changed_ns:
            return 0  # Somebody has begun to use it.
        os.unlink(file.path)
    except FileNotFoundError:
        return 0
    return file.size
