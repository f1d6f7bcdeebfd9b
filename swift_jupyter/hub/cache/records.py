"""Records of finished pulls: which files a snapshot has, so that a later check needs no network.

Neither hub's cache says which files of a repository are meant to be there, so
each pull leaves a record beside the caches, named by the snapshot's path. It also
keeps the state that each file had when it was verified: as long as that is the same,
nothing need be read again. The record's own time is when the snapshot was last used.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from swift_jupyter.files import encode_json, write_bytes_atomically
from swift_jupyter.hub.listing import Hub, RemoteFile, RepoListing
from swift_jupyter.hub.store.hashing import Fingerprint
from swift_jupyter.settings import Settings

# The state of no file: what has it in a record was found wrong, and is fetched anew.
WRONG = Fingerprint(-1, 0, 0)


@dataclass(frozen=True)
class PullRecord:
    """The hub's listing of a snapshot when it was pulled.

    Parameters
    ----------
    path : Path
        The folder of the snapshot.
    source : str
        Where it came from, for people.
    repo_id, kind : str
        The repository as the hub that listed it names it. The folder of a snapshot in
        the other hub's cache may have another name.
    revision : str or None
        The branch, tag or commit.
    files : tuple of RemoteFile
        All files of the listing, also those that were not wanted.
    hub, commit : str, optional
        The hub that listed it, and the commit that it named. A snapshot of the same
        revision in the other hub's cache has the same.
    states : mapping
        By path, the state of every file that was there, when it was known to be right.
    """

    path: Path
    source: str
    repo_id: str
    kind: str
    revision: str | None
    files: tuple[RemoteFile, ...]
    hub: Hub | None = None
    commit: str | None = None
    states: Mapping[str, Fingerprint] = field(default_factory=dict, repr=False)

    def is_unchanged(self, path: str, state: os.stat_result) -> bool:
        """Tell whether a file in this state is the one that was verified."""
        return self.states.get(path) == Fingerprint.of(state)

    @property
    def wrong(self) -> list[str]:
        """Paths of the files that were found wrong."""
        return [path for path, state in self.states.items() if state == WRONG]

    def changed(self, files: Iterable[RemoteFile]) -> list[RemoteFile]:
        """Return those of `files` that are missing or not as they were verified; stat only."""
        found = []
        for file in files:
            try:
                state = os.stat(f"{self.path}/{file.path}")
            except OSError:
                found.append(file)
                continue
            if self.states.get(file.path) != Fingerprint.of(state):
                found.append(file)
        return found


def record_snapshot(
    settings: Settings,
    path: Path,
    listing: RepoListing,
    source: str,
) -> PullRecord:
    """Record a snapshot whose files have all been verified just now, and return the record.

    Parameters
    ----------
    settings : Settings
        The preferences in force.
    path : Path
        The folder of the snapshot.
    listing : RepoListing
        What the hub lists; those of its files that are there were verified.
    source : str
        Where they came from, for people.
    """
    states = {}
    for file in listing.files:
        try:
            states[file.path] = Fingerprint.of(os.stat(f"{path}/{file.path}"))
        except OSError:
            continue
    record = PullRecord(
        path,
        source,
        listing.repo_id,
        listing.kind,
        listing.revision,
        listing.files,
        listing.hub,
        listing.commit,
        states,
    )
    write_record(settings, record)
    return record


def write_record(settings: Settings, record: PullRecord) -> None:
    """Store `record`; a cache that cannot be written is no reason to fail a pull."""
    target = _record_path(settings, record.path)
    content = {
        "path": str(record.path),
        "source": record.source,
        "repo_id": record.repo_id,
        "kind": record.kind,
        "revision": record.revision,
        "hub": record.hub,
        "commit": record.commit,
        "files": [
            [
                *(file.path, file.size, file.sha256, file.git_sha1, file.lfs),
                *record.states.get(file.path, ()),
            ]
            for file in record.files
        ],
    }
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        write_bytes_atomically(target, encode_json(content))
    except OSError:
        return


def read_record(settings: Settings, snapshot: Path) -> PullRecord | None:
    """Return the record of the folder `snapshot`, or None."""
    return load_record(_record_path(settings, snapshot))


def read_content(path: str | Path) -> dict[str, Any]:
    """Return what stands in a record's file, unchecked: a scan reads thousands of them.

    Raises
    ------
    OSError, ValueError
        When it is absent or no JSON.
    """
    with open(path, "rb") as stream:
        content: dict[str, Any] = json.loads(stream.read())
    return content


def load_record(path: str | Path) -> PullRecord | None:
    """Return the record in a file, or None when it is absent or broken."""
    try:
        content = read_content(path)
        files, states = read_files(content["files"])
        return PullRecord(
            Path(content["path"]),
            content["source"],
            content["repo_id"],
            content["kind"],
            content["revision"],
            files,
            content.get("hub"),
            content.get("commit"),
            states,
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def touch_record(settings: Settings, snapshot: Path) -> None:
    """Note that a snapshot was used just now."""
    try:
        os.utime(_record_path(settings, snapshot))
    except OSError:
        return


def forget_records(settings: Settings, folders: Iterable[Path]) -> None:
    """Remove the records of the given snapshots."""
    for folder in folders:
        _record_path(settings, folder).unlink(missing_ok=True)


def records_folder(settings: Settings) -> Path:
    """Return the folder of all records."""
    return settings.cache_path / "snapshots"


def record_names(settings: Settings) -> frozenset[str]:
    """Return the names of all records, so that absent ones need not be looked for."""
    try:
        return frozenset(os.listdir(records_folder(settings)))
    except OSError:
        return frozenset()


def iterate_records(settings: Settings) -> Iterator[PullRecord]:
    """Yield every readable record."""
    folder = records_folder(settings)
    for name in record_names(settings):
        if name.endswith(".json") and not name.startswith("."):
            record = load_record(folder / name)
            if record is not None:
                yield record


def record_name(snapshot: str) -> str:
    """Return the name of the record of a snapshot, given by its absolute path."""
    return hashlib.sha256(os.fsencode(snapshot)).hexdigest()[:32] + ".json"


def ours_by(record: PullRecord | None) -> Callable[[str, os.stat_result], bool]:
    """Return a function that tells which files of a snapshot a pull of ours has left there."""
    return record.is_unchanged if record is not None else lambda _path, _state: False


def _record_path(settings: Settings, snapshot: Path) -> Path:
    return records_folder(settings) / record_name(str(snapshot.absolute()))


def read_files(rows: list[Any]) -> tuple[tuple[RemoteFile, ...], dict[str, Fingerprint]]:
    """Return files and their states from the rows of a record."""
    files, states = [], {}
    for row in rows:
        if isinstance(row, dict):  # As written before the states were kept.
            files.append(RemoteFile(**row))
            continue
        path, size, sha256, git_sha1, lfs, *state = row
        files.append(RemoteFile(path, size, sha256, git_sha1, lfs))
        if state:
            states[path] = Fingerprint(*state)
    return tuple(files), states
