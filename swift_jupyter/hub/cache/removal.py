"""Removing repositories from the caches: a plan that tells what it will free, then the deed."""

from __future__ import annotations

import os
import shutil
import stat
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from swift_jupyter.errors import UserError
from swift_jupyter.files import size_text
from swift_jupyter.hub.cache.contents import InodeKey
from swift_jupyter.hub.cache.entries import CachedRepo
from swift_jupyter.hub.cache.records import PullRecord, forget_records, iterate_records
from swift_jupyter.hub.cache.scan import cache_roots
from swift_jupyter.hub.store.gc import Garbage, GarbagePlan, Sort, manifest_hashes
from swift_jupyter.hub.store.hashing import allocated_bytes
from swift_jupyter.hub.store.manifests import ManifestKey
from swift_jupyter.hub.store.store import Store, open_store
from swift_jupyter.i18n import translate as _
from swift_jupyter.settings import Settings


@dataclass(frozen=True)
class Removal:
    """Entries that are to be removed.

    Parameters
    ----------
    entries : tuple of CachedRepo
        What is to be removed.
    expected_freed_bytes : int
        What that frees: the files whose every name goes.
    settings : Settings
        The preferences in force.
    stored : GarbagePlan
        What goes from the store, since nothing else needs it.
    """

    entries: tuple[CachedRepo, ...]
    expected_freed_bytes: int
    settings: Settings
    stored: GarbagePlan
    _records: tuple[Path, ...] = field(default=(), repr=False)

    @property
    def expected_freed_str(self) -> str:
        """What it frees, for people."""
        return size_text(self.expected_freed_bytes)

    def execute(self) -> int:
        """Remove the entries and return the bytes that were freed.

        Raises
        ------
        UserError
            When a file cannot be removed; the other entries are gone then.
        """
        freed, problems = 0, []
        for entry in self.entries:
            for path in _cache_folders(self.stored.store, entry):
                try:
                    freed += _remove(path, entry)
                except OSError as error:
                    problems.append(str(error))
        gone = [path for path in self._records if not path.exists()]
        forget_records(self.settings, gone)
        if not problems:
            freed += _execute(self.stored)
            return freed
        raise UserError(
            _("Not everything could be removed; {size} are free.", size=size_text(freed)),
            "; ".join(problems),
        )


def plan_removal(
    entries: Iterable[CachedRepo],
    settings: Settings,
    environ: Mapping[str, str] | None = None,
) -> Removal:
    """Check that `entries` may be removed and tell what that would free.

    Raises
    ------
    UserError
        For a path that is not inside one of the caches, or that is a link.
    """
    entries = tuple(dict.fromkeys(entries))
    store = open_store(settings)
    manifests_root = store.manifest_files.folder
    roots = [root.resolve() for root in (*cache_roots(settings, environ), manifests_root)]
    for path in (path for entry in entries for path in entry.paths):
        real = path.resolve()
        inside = any(root in real.parents for root in roots)
        if not inside or path.is_symlink():
            raise UserError(_("{path} is not inside a cache, so it is not removed.", path=path))
    going = _Going(store, settings, environ, entries)
    plan = GarbagePlan(store, tuple(going.objects()), tuple(going.manifests))
    return Removal(entries, going.freed(plan), settings, plan, tuple(going.record_paths))


class _Going:
    """What goes with some entries, and what else refers to the same content."""

    def __init__(
        self,
        store: Store,
        settings: Settings,
        environ: Mapping[str, str] | None,
        entries: tuple[CachedRepo, ...],
    ) -> None:
        self._store = store
        self._links: Counter[InodeKey] = Counter()
        self._states: dict[InodeKey, os.stat_result] = {}
        folders = {os.fspath(path.absolute()) for entry in entries for path in entry.paths}
        for path in (path for entry in entries for path in _cache_folders(store, entry)):
            self._count(os.fspath(path))
        records = list(iterate_records(settings))
        mine = [record for record in records if is_below(record.path, folders)]
        roots = {os.fspath(root.absolute()) for root in cache_roots(settings, environ)}
        others = [
            record
            for record in records
            # A folder of the user's has its own copy of what it needs.
            if not is_below(record.path, folders) and is_below(record.path, roots)
        ]
        self.record_paths = [record.path for record in mine]
        self.manifests = list(self._going_manifests(entries, mine, others))
        gone = set(self.manifests)
        kept = (key for key in store.manifest_files.all_keys() if key not in gone)
        self._kept = {
            *record_hashes(store, (record for record in others if record.path.is_dir())),
            *manifest_hashes(store, _needed(store, kept, others)),
        }
        self._candidates = {*record_hashes(store, mine), *manifest_hashes(store, self.manifests)}

    def objects(self) -> Iterator[Garbage]:
        """Yield the objects and unfinished transfers that nothing else refers to."""
        for entry in self._store.objects():
            key = None
            if entry.name in self._candidates and entry.name not in self._kept:
                state = entry.stat(follow_symlinks=False)
                key = (state.st_dev, state.st_ino)
                if state.st_nlink - self._links[key] == 1:
                    # Names in the caches go first, which counts the bytes there.
                    yield Garbage(entry.path, "object", state.st_size, 0)
        yield from self._named_by_hash("parts", "part")
        yield from self._named_by_hash("quarantine", "quarantined")

    def _named_by_hash(self, folder: str, sort: Sort) -> Iterator[Garbage]:
        """Yield the unfinished or wrong files of the content that goes."""
        try:
            names = os.listdir(self._store.root / folder)
        except OSError:
            return
        for name in names:
            sha256 = name.removeprefix("sha256-").partition(".")[0]
            if sha256 in self._candidates and sha256 not in self._kept:
                path = f"{self._store.root}/{folder}/{name}"
                yield Garbage(path, sort, allocated_bytes(os.stat(path)), 0)

    def freed(self, plan: GarbagePlan) -> int:
        """Return the bytes of all files whose every name goes."""
        links, sizes, names = Counter(self._links), {}, {}
        for key, state in self._states.items():
            sizes[key], names[key] = state.st_size, state.st_nlink
        for file in plan.files:
            state = os.stat(file.path)
            key = (state.st_dev, state.st_ino)
            links[key] += 1
            sizes[key], names[key] = file.size, state.st_nlink
        return sum(size for key, size in sizes.items() if links[key] >= names[key])

    def _count(self, folder: str) -> None:
        for directory, _folders, names in os.walk(folder):
            for name in names:
                try:
                    state = os.lstat(f"{directory}/{name}")
                except OSError:
                    continue
                if stat.S_ISLNK(state.st_mode):
                    continue
                key = (state.st_dev, state.st_ino)
                self._links[key] += 1
                self._states[key] = state

    def _going_manifests(
        self,
        entries: tuple[CachedRepo, ...],
        mine: list[PullRecord],
        others: list[PullRecord],
    ) -> Iterator[ManifestKey]:
        shown = {(record.hub, record.kind, record.repo_id) for record in mine}
        still = {(record.hub, record.kind, record.repo_id) for record in others}
        folders = {path for entry in entries for path in entry.paths}
        for key in self._store.manifest_files.all_keys():
            repo = (key.hub, key.kind, key.repo_id)
            only_here = self._store.manifest_files.folder_of(key) in folders
            if only_here or (
                repo in shown and repo not in still and not self._store.manifest_files.is_held(key)
            ):
                yield key


def _cache_folders(store: Store, entry: CachedRepo) -> list[Path]:
    """Return the folders of an entry; that of its manifests goes with those."""
    manifests = os.fspath(store.manifest_files.folder)
    return [path for path in entry.paths if not is_below(path, [manifests])]


def _needed(
    store: Store, keys: Iterable[ManifestKey], others: list[PullRecord]
) -> Iterator[ManifestKey]:
    """Yield the manifests that count: a node's, and those of pulls that show no snapshot yet."""
    shown = {(record.hub, record.repo_id, record.commit) for record in others}
    for key in keys:
        if (key.hub, key.repo_id, key.commit) not in shown:
            yield key


def record_hashes(store: Store, records: Iterable[PullRecord]) -> Iterator[str]:
    """Yield the SHA-256 of every file that snapshots show."""
    for record in records:
        for file in record.files:
            if not record.states or file.path in record.states:
                sha256 = file.sha256 or (file.git_sha1 and store.find_git(file.git_sha1, file.size))
                if sha256:
                    yield sha256.lower()


def is_below(path: Path, folders: Collection[str]) -> bool:
    """Tell whether a path is one of the folders or inside one."""
    text = os.fspath(path)
    while text not in folders:
        above = os.path.dirname(text)
        if above == text:
            return False
        text = above
    return True


def _execute(plan: GarbagePlan) -> int:
    """Remove what the plan names, as far as nobody has linked it anew in between."""
    freed = 0
    for file in plan.files:
        try:
            state = os.stat(file.path)
            if state.st_nlink == 1:
                os.unlink(file.path)
                freed += file.size
        except OSError:
            continue
    GarbagePlan(plan.store, (), plan.manifests).execute()
    if plan.files:
        plan.store.forget_removed()
    return freed


def _remove(path: Path, entry: CachedRepo) -> int:
    """Remove a folder of `entry`; links are removed, what they point to is not."""
    before = _used(path)
    shutil.rmtree(path)
    parent = path.parent
    for name in entry.names:
        masked_link = parent / name.rpartition("/")[2]
        if masked_link.is_symlink() and not masked_link.exists():
            masked_link.unlink()
    if path.name.startswith((f"{entry.kind}s--",)):
        shutil.rmtree(parent / ".locks" / path.name, ignore_errors=True)
    return before


def _used(folder: Path) -> int:
    """Return the bytes of files that vanish with `folder`: those with no name elsewhere."""
    links: Counter[InodeKey] = Counter()
    total = 0
    for directory, _folders, names in os.walk(folder):
        for name in names:
            state = os.lstat(f"{directory}/{name}")
            if stat.S_ISLNK(state.st_mode):
                continue
            key = (state.st_dev, state.st_ino)
            links[key] += 1
            if links[key] == state.st_nlink:
                total += state.st_size
    return total
