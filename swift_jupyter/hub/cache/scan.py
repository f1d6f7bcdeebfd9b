"""What lies in the caches. Cheap to import: the Jupyter server uses it as well."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

from swift_jupyter.hub.cache.contents import subfolders
from swift_jupyter.hub.cache.entries import CachedRepo, disk_bytes
from swift_jupyter.hub.cache.readers import (
    Found,
    Place,
    RecordShelf,
    read_huggingface,
    read_manifest_only,
    read_modelscope,
    read_package,
)
from swift_jupyter.hub.endpoints import read_environment
from swift_jupyter.hub.listing import Hub
from swift_jupyter.hub.packages import packages_root
from swift_jupyter.hub.reference import RepoKind
from swift_jupyter.hub.store.manifests import KINDS
from swift_jupyter.hub.store.store import Store, open_store
from swift_jupyter.i18n import translate as _
from swift_jupyter.settings import Settings

# Folders at the top of ModelScope's cache that are not owners of repositories.
_NO_OWNERS = frozenset(
    {"hub", "models", "datasets", "studios", "skills", "downloads", "ast_indexer"}
)
_MARKS_OF_A_REPO = (".msc", ".mdl", "config.json", "README.md")


@dataclass(frozen=True)
class CacheListing:
    """The repositories in all caches, and what is wrong there."""

    entries: tuple[CachedRepo, ...]
    warnings: tuple[str, ...] = ()

    @property
    def size_bytes(self) -> int:
        """Bytes of all entries, files that they share counted once."""
        return disk_bytes(self.entries)


class _Folder(NamedTuple):
    """A folder that may hold a repository."""

    path: str
    kind: str
    read: Callable[[RecordShelf, Place], Found | None]


@dataclass
class _Scan:
    shelf: RecordShelf
    found: list[Found] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def attempt(self, folder: _Folder) -> None:
        """Add what is in `folder`; what cannot be read becomes a warning."""
        try:
            found = folder.read(self.shelf, Place(folder.path, folder.kind))
        except (OSError, ValueError, TypeError, RecursionError) as error:
            self.warnings.append(
                _("{folder} cannot be read: {error}", folder=folder.path, error=error)
            )
            return
        if found is None:
            self.warnings.append(_("{folder} is not a cached repository.", folder=folder.path))
        else:
            self.found.append(found)


def scan_cache(settings: Settings, environ: Mapping[str, str] | None = None) -> CacheListing:
    """List every repository in both hubs' caches and among the local packages.

    Parameters
    ----------
    settings : Settings
        The preferences in force.
    environ : mapping, optional
        Environment variables; the process's own when left out.

    Returns
    -------
    CacheListing
        The largest entry first. A broken entry is a warning, never an error. A
        repository whose files are shown in both caches is one entry.
    """
    store = open_store(settings)
    scan = _Scan(RecordShelf(settings))
    for folder in _folders(settings, environ):
        scan.attempt(folder)
    entries = [*_merged(scan.found), *_only_in_the_store(store, scan.found)]
    pins = store.pins.all()
    if pins:
        entries = [_with_pin(entry, pins) for entry in entries]
    entries.sort(key=lambda entry: -entry.size_bytes)
    return CacheListing(tuple(entries), tuple(scan.warnings))


def cache_roots(settings: Settings, environ: Mapping[str, str] | None = None) -> tuple[Path, ...]:
    """Return the folders below which everything may be removed."""
    environment = read_environment(environ)
    return (
        environment.huggingface_cache,
        environment.modelscope_cache,
        packages_root(settings),
    )


def _folders(settings: Settings, environ: Mapping[str, str] | None) -> Iterator[_Folder]:
    environment = read_environment(environ)
    for entry in subfolders(os.fspath(environment.huggingface_cache)):
        for kind in KINDS:
            if entry.name.startswith(f"{kind}s--"):
                yield _Folder(entry.path, kind, read_huggingface)
    yield from _modelscope_folders(os.fspath(environment.modelscope_cache))
    for entry in subfolders(os.fspath(packages_root(settings))):
        yield _Folder(entry.path, "model", read_package)


def _modelscope_folders(cache: str) -> Iterator[_Folder]:
    """Yield the folders of repositories in every layout that ModelScope's clients have used."""
    for root in (cache, f"{cache}/hub"):
        for kind in KINDS:
            for entry in subfolders(f"{root}/{kind}s"):
                if "--" in entry.name:
                    yield _Folder(entry.path, kind, read_modelscope)
                elif entry.name not in _NO_OWNERS:
                    for inner in subfolders(entry.path):
                        yield _Folder(inner.path, kind, read_modelscope)
        for owner in subfolders(root):
            if owner.name not in _NO_OWNERS and "--" not in owner.name:
                for inner in subfolders(owner.path):
                    if any(os.path.isfile(f"{inner.path}/{name}") for name in _MARKS_OF_A_REPO):
                        yield _Folder(inner.path, "model", read_modelscope)


def _merged(found: list[Found]) -> list[CachedRepo]:
    """Join what one pull has shown in the caches of both hubs."""
    by_origin: dict[object, list[Found]] = {}
    alone = []
    for item in found:
        key = item.origin or (item.entry.kind, item.entry.repo_id.lower())
        by_origin.setdefault(key, []).append(item)
    for items in by_origin.values():
        # Its own hub's folder comes first: what it says is what the pull has asked for.
        items.sort(key=lambda item: item.origin is not None and item.origin.hub != item.hub)
        first, *rest = items
        entry, hubs = first.entry, {first.hub}
        for item in rest:
            same = bool(first.origin) or bool(entry.shared.keys() & item.entry.shared.keys())
            if same and item.hub not in hubs:
                entry = entry.merged_with(item.entry)
                hubs.add(item.hub)
            else:
                alone.append(item.entry)
        alone.append(entry)
    return alone


def _only_in_the_store(store: Store, found: list[Found]) -> Iterator[CachedRepo]:
    """Yield what no cache shows: pulls that have not come far, and what a node holds."""
    shown: set[tuple[Hub | None, str, str]] = set()
    for item in found:
        if item.origin is not None:
            shown.add((item.origin.hub, item.entry.kind, item.origin.repo_id.lower()))
        for name in item.entry.names:
            shown.add((item.hub, item.entry.kind, name.lower()))
    by_repo: dict[tuple[Hub, RepoKind, str], list[str]] = {}
    for key in store.manifest_files.all_keys():
        if (key.hub, key.kind, key.repo_id.lower()) not in shown:
            by_repo.setdefault((key.hub, key.kind, key.repo_id), []).append(key.commit)
    for (hub, kind, repo_id), commits in by_repo.items():
        entry = read_manifest_only(store, hub, kind, repo_id, commits)
        if entry is not None:
            yield entry


def _with_pin(entry: CachedRepo, pins: frozenset[tuple[str, str]]) -> CachedRepo:
    pinned = any((entry.kind, name.lower()) in pins for name in entry.names)
    return replace(entry, pinned=True) if pinned else entry
