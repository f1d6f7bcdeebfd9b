"""Reading one repository of a cache: every layout its own way, all to the same entry."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from swift_jupyter.hub.cache.completeness import lacks_for_loading
from swift_jupyter.hub.cache.contents import Contents, subfolders
from swift_jupyter.hub.cache.entries import CachedRepo
from swift_jupyter.hub.cache.judging import Judgement, judge
from swift_jupyter.hub.cache.layouts import MODELSCOPE_BRANCH, stored_listing
from swift_jupyter.hub.cache.records import (
    WRONG,
    read_content,
    read_files,
    record_name,
    record_names,
    records_folder,
)
from swift_jupyter.hub.listing import HUB_NAMES, Hub, RemoteFile, select_files
from swift_jupyter.hub.packages import read_origin
from swift_jupyter.hub.reference import RepoKind
from swift_jupyter.hub.store.hashing import allocated_bytes
from swift_jupyter.hub.store.manifests import ManifestKey
from swift_jupyter.hub.store.store import Store
from swift_jupyter.i18n import translate as _
from swift_jupyter.settings import Settings


class Place(NamedTuple):
    """A folder that may hold a repository, and what sort it would be."""

    path: str
    kind: str


class OriginKey(NamedTuple):
    """The repository at a hub that a snapshot shows."""

    hub: Hub
    kind: str
    repo_id: str


class Found(NamedTuple):
    """An entry, the hub whose layout it has, and where it came from if a pull of ours wrote it."""

    entry: CachedRepo
    hub: Hub | None
    origin: OriginKey | None


class ScannedRecord:
    """A record of a pull as far as a scan needs it; most have all their files, which is quick.

    Parameters
    ----------
    content : dict
        What stands in its file.
    used : float
        When the snapshot was last used, in seconds since the epoch.

    Raises
    ------
    KeyError, TypeError, ValueError
        When the content is broken.
    """

    def __init__(self, content: dict[str, Any], used: float) -> None:
        self.used = used
        self._rows: list[Any] = content["files"]
        hub, repo_id, kind = content.get("hub"), content["repo_id"], content["kind"]
        self.origin = OriginKey(hub, kind, repo_id) if hub else None
        # A row is path, size, two hashes, lfs, and the state (size, time, inode) if pulled.
        self._plain = all(type(row) is list and len(row) in (5, 8) for row in self._rows)
        if not self._plain:
            read_files(self._rows)

    def judge(
        self, place: Place, sizes: dict[str, int], folder: str, contents: Contents
    ) -> Judgement:
        """Judge the snapshot by what the hub has listed for it."""
        all_there = self._plain and all(
            sizes.get(row[0]) == row[1] and (len(row) < 6 or row[5] >= 0) for row in self._rows
        )
        if all_there and (place.kind != "model" or lacks_for_loading(sizes, folder) is None):
            return Judgement(True)
        files, states = read_files(self._rows)
        for path, state in states.items():
            if state == WRONG:
                sizes.pop(path, None)  # It lacks like what is not there.
        return judge(place.kind, sizes, folder, contents, files, states)


class RecordShelf:
    """The records of pulls, for a scan: absent ones cost nothing.

    Parameters
    ----------
    settings : Settings
        Says where they are.
    """

    def __init__(self, settings: Settings) -> None:
        self._folder = os.fspath(records_folder(settings).absolute())
        self._names = record_names(settings)

    def read(self, snapshot: str) -> ScannedRecord | None:
        """Return the record of a folder, given by its absolute path, or None."""
        if not self._names:
            return None
        name = record_name(snapshot)
        if name not in self._names:
            return None
        path = f"{self._folder}/{name}"
        try:
            return ScannedRecord(read_content(path), os.stat(path).st_mtime)
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return None


def read_huggingface(shelf: RecordShelf, place: Place) -> Found | None:
    """Read a ``models--owner--name`` folder; None when it is none."""
    repo = place.path
    contents, snapshots, refs = Contents(), [], {}
    has_blobs = False
    for entry in os.scandir(repo):
        if entry.is_symlink():
            continue
        if not entry.is_dir(follow_symlinks=False):
            _take_file(contents, entry)
        elif entry.name == "snapshots":
            snapshots = subfolders(entry.path)
        elif entry.name == "refs":
            refs = _read_refs(entry.path, contents)
        else:
            has_blobs = has_blobs or entry.name == "blobs"
            contents.read(entry.path)
    if not snapshots and not has_blobs:
        return None
    shown = refs.get("main") or (max(snapshots, key=_changed).name if snapshots else "")
    sizes: dict[str, int] = {}
    for snapshot in snapshots:
        contents.read(snapshot.path, sizes if snapshot.name == shown else None)
    folder = f"{repo}/snapshots/{shown}"
    record = shelf.read(folder) if shown else None
    judgement = Judgement(False)
    if any(snapshot.name == shown for snapshot in snapshots):
        if record is not None:
            judgement = record.judge(place, sizes, folder, contents)
        else:
            listing = stored_listing(repo, shown)
            judgement = judge(place.kind, sizes, folder, contents, listing)
    elif contents.partial_files:
        judgement = Judgement(False, broken_off=True)
    repo_id = os.path.basename(repo).partition("s--")[2].replace("--", "/", 1)
    revisions = tuple(dict.fromkeys([*refs, *(snapshot.name for snapshot in snapshots)]))
    entry_read = _entry(
        repo_id, place, "huggingface", contents, judgement, revisions, _used(record)
    )
    return Found(entry_read, "huggingface", record.origin if record is not None else None)


def read_modelscope(shelf: RecordShelf, place: Place) -> Found | None:
    """Read a folder of ModelScope's cache, in any layout; None when it holds nothing."""
    head, name = os.path.split(place.path)
    contents, sizes = Contents(), dict[str, int]()
    if "--" in name:
        repo_id = name.replace("--", "/", 1)
        snapshots = subfolders(f"{place.path}/snapshots")
        if not snapshots:
            return None
        shown = max(snapshots, key=lambda entry: (entry.name == MODELSCOPE_BRANCH, _changed(entry)))
        for snapshot in snapshots:
            contents.read(snapshot.path, sizes if snapshot is shown else None)
        folder = shown.path
        revisions = tuple(snapshot.name for snapshot in snapshots)
    else:
        repo_id = f"{os.path.basename(head)}/{name.replace('___', '.')}"
        folder, revisions = place.path, ()
        contents.read(folder, sizes)
    record = shelf.read(folder)
    if record is not None:
        judgement = record.judge(place, sizes, folder, contents)
    else:
        judgement = judge(place.kind, sizes, folder, contents, None)
    entry = _entry(repo_id, place, "modelscope", contents, judgement, revisions, _used(record))
    return Found(entry, "modelscope", record.origin if record is not None else None)


def read_package(_shelf: RecordShelf, place: Place) -> Found | None:
    """Read a converted local package; None when it is none."""
    name = os.path.basename(place.path)
    contents, sizes = Contents(), dict[str, int]()
    contents.read(place.path, sizes)
    if name.startswith("."):
        entry = _entry(name.lstrip("."), place, None, contents, Judgement(False), (), 0.0)
        return Found(entry, None, None)
    origin = read_origin(Path(place.path))
    if origin is None:
        return None
    judgement = Judgement(lacks_for_loading(sizes, place.path) is None)
    revisions = (str(origin["version"]),) if "version" in origin else ()
    return Found(_entry(name, place, None, contents, judgement, revisions, 0.0), None, None)


def read_manifest_only(
    store: Store, hub: Hub, kind: RepoKind, repo_id: str, commits: Sequence[str]
) -> CachedRepo | None:
    """Read a repository that is in the store but in no cache: a pull at its start, or a node's."""
    names = store.revisions(hub, kind, repo_id)
    commit = names.get("main") or commits[-1]
    key = ManifestKey(hub, kind, repo_id, commit)
    listing = store.manifest_files.read_key(key)
    if listing is None:
        return None
    held = store.manifest_files.is_held(key)
    wanted = listing.files if held else select_files(listing.files, kind)
    contents = Contents()
    sizes: dict[str, int] = {}
    for file in wanted:
        _take_stored(store, file, contents, sizes)
    judgement = judge("dataset", sizes, "", contents, list(wanted))
    judgement = judgement._replace(broken_off=not judgement.complete and not held)
    path = store.manifest_files.folder_of(key)
    contents.used = max(contents.used, path.stat().st_mtime)
    place = Place(os.fspath(path), kind)
    revisions = tuple(dict.fromkeys([*names, *commits]))
    return _entry(repo_id, place, hub, contents, judgement, revisions, 0.0)


def _take_stored(store: Store, file: RemoteFile, contents: Contents, sizes: dict[str, int]) -> None:
    sha256 = file.sha256 or store.find_git(file.git_sha1 or "", file.size)
    try:
        state = os.stat(store.object_path(sha256 or ""))
    except (OSError, ValueError):
        part = store.part_state(file)
        if part is not None:
            contents.partial_bytes += allocated_bytes(part)
            contents.size += allocated_bytes(part)
            contents.used = max(contents.used, part.st_mtime)
        return
    sizes[file.path] = state.st_size
    contents.count += 1
    key = (state.st_dev, state.st_ino)
    if key not in contents.shared:
        contents.shared[key] = state.st_size
        contents.size += state.st_size


def _entry(
    repo_id: str,
    place: Place,
    hub: Hub | None,
    contents: Contents,
    judgement: Judgement,
    revisions: tuple[str, ...],
    used: float,
) -> CachedRepo:
    if not contents.used and not used:
        used = os.stat(place.path).st_mtime
    return CachedRepo(
        repo_id,
        place.kind,
        HUB_NAMES[hub] if hub else _("local package"),
        Path(place.path),
        contents.size,
        contents.count,
        max(contents.used, used),
        judgement.complete,
        revisions,
        judgement.progress,
        broken_off=judgement.broken_off,
        shared=contents.shared,
    )


def _used(record: ScannedRecord | None) -> float:
    return record.used if record is not None else 0.0


def _read_refs(folder: str, contents: Contents, prefix: str = "") -> dict[str, str]:
    """Return commit by name for every branch and tag."""
    names = {}
    for entry in os.scandir(folder):
        if entry.is_dir(follow_symlinks=False):
            names.update(_read_refs(entry.path, contents, f"{prefix}{entry.name}/"))
            continue
        if entry.is_symlink():
            continue
        _take_file(contents, entry)
        with open(entry.path, "rb") as stream:
            commit = stream.read(200).strip()
        if commit.isalnum():
            names[prefix + entry.name] = commit.decode("ascii")
    return names


def _take_file(contents: Contents, entry: os.DirEntry[str]) -> None:
    state = entry.stat(follow_symlinks=False)
    contents.size += state.st_size
    contents.count += 1
    contents.used = max(contents.used, state.st_mtime, state.st_atime)


def _changed(entry: os.DirEntry[str]) -> float:
    try:
        return entry.stat(follow_symlinks=False).st_mtime
    except OSError:
        return 0.0
