"""What a store holds, repository by repository: for the status page and for lists."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from swift_jupyter.hub.listing import Hub, RemoteFile, RepoListing, select_files
from swift_jupyter.hub.pairing import paired_id
from swift_jupyter.hub.reference import RepoKind
from swift_jupyter.hub.store.manifests import ManifestKey
from swift_jupyter.hub.store.store import Store


@dataclass(frozen=True)
class Holding:
    """One repository of one hub.

    Attributes
    ----------
    hub, kind, repo_id
        Which.
    paired_id : str
        The other hub's id, where it differs.
    revisions : dict
        Commit by name of branch or tag.
    commits : int
        How many revisions are kept.
    files, files_held : int
        Of the newest revision: what a pull takes, and how much of it is here.
    bytes_total, bytes_held : int
        The same in bytes.
    last_sync : float
        When the newest manifest was written, seconds since the epoch.
    """

    hub: Hub
    kind: RepoKind
    repo_id: str
    paired_id: str
    revisions: dict[str, str]
    commits: int
    files: int
    files_held: int
    bytes_total: int
    bytes_held: int
    last_sync: float

    @property
    def complete(self) -> bool:
        """Whether nothing of the newest revision is missing."""
        return self.files == self.files_held

    def to_dict(self) -> dict[str, Any]:
        """Return plain values."""
        return {**asdict(self), "complete": self.complete}


class Holdings:
    """Looks into a store; what did not change is not read again.

    Parameters
    ----------
    store : Store
        The store.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._listings: dict[ManifestKey, tuple[int, RepoListing]] = {}
        self._found: list[Holding] = []
        self._contents: dict[str, int] = {}
        self._looked = 0.0

    def all(self, seconds: float = 0.0) -> list[Holding]:
        """Return what is held, by name; at most `seconds` old."""
        if not self._looked or time.monotonic() - self._looked > seconds:
            self._contents = {}
            self._found = sorted(self._look(), key=lambda holding: holding.repo_id.lower())
            self._looked = time.monotonic()
        return self._found

    @property
    def distinct_bytes(self) -> int:
        """The bytes that `all` found, each content counted once."""
        return sum(self._contents.values())

    def _look(self) -> Iterator[Holding]:
        by_repo: dict[tuple[Hub, RepoKind, str], list[ManifestKey]] = {}
        for key in self._store.manifest_files.all_keys():
            by_repo.setdefault((key.hub, key.kind, key.repo_id), []).append(key)
        known = {key for keys in by_repo.values() for key in keys}
        self._listings = {key: value for key, value in self._listings.items() if key in known}
        for (hub, kind, repo_id), keys in by_repo.items():
            found = [(time_ns, listing) for key in keys for time_ns, listing in self._read(key)]
            if found:
                yield self._holding(hub, kind, repo_id, found)

    def _holding(
        self, hub: Hub, kind: RepoKind, repo_id: str, found: list[tuple[int, RepoListing]]
    ) -> Holding:
        names = self._store.revisions(hub, kind, repo_id)
        by_commit = {listing.commit: listing for _time, listing in found}
        newest = by_commit.get(names.get("main", "")) or max(found, key=lambda pair: pair[0])[1]
        wanted = select_files(newest.files, kind)
        held = [file for file in wanted if self._is_held(file)]
        self._contents.update(
            (file.sha256 or file.git_sha1 or file.path, file.size or 0) for file in held
        )
        other = paired_id(repo_id, hub) if kind == "model" else None
        return Holding(
            hub,
            kind,
            repo_id,
            other if other and other != repo_id else "",
            names,
            len(found),
            len(wanted),
            len(held),
            sum(file.size or 0 for file in wanted),
            sum(file.size or 0 for file in held),
            max(time_ns for time_ns, _listing in found) / 1e9,
        )

    def _read(self, key: ManifestKey) -> Iterator[tuple[int, RepoListing]]:
        time_ns = self._store.manifest_files.written_ns(key)
        if time_ns is None:
            return
        known = self._listings.get(key)
        if known is None or known[0] != time_ns:
            listing = self._store.manifest_files.read_key(key)
            if listing is None:
                return
            known = self._listings[key] = (time_ns, listing)
        yield known

    def _is_held(self, file: RemoteFile) -> bool:
        return self._store.resolve(file) is not None
