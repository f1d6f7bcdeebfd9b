"""Which files make up a revision of a repository, kept by hub, repository and commit."""

from __future__ import annotations

import json
import os
import re
import secrets
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast
from urllib.parse import quote, unquote

from swift_jupyter.files import write_text_atomically
from swift_jupyter.hub.listing import Hub, RemoteFile, RepoListing
from swift_jupyter.hub.reference import RepoKind, is_repo_id

HUBS: tuple[Hub, ...] = ("modelscope", "huggingface")
KINDS: tuple[RepoKind, ...] = ("model", "dataset")
# All of them mean the hub's default branch.
DEFAULT_NAMES = frozenset({None, "", "main", "master", "default", "latest"})
_DEFAULT = "main"
_COMMIT = re.compile(r"[0-9a-f]{7,64}")


@dataclass(frozen=True)
class ManifestKey:
    """Where a manifest stands: one commit of a repository at a hub."""

    hub: Hub
    kind: RepoKind
    repo_id: str
    commit: str


class Manifests:
    """The manifests below one folder.

    Parameters
    ----------
    folder : Path
        Holds ``<kind>s/<hub>/<owner>--<name>/<commit>.manifest`` and ``…/refs/<name>``.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def write(self, listing: RepoListing, held: bool = False, point: bool = True) -> None:
        """Store a listing and let its revision's name point to it.

        Parameters
        ----------
        listing : RepoListing
            What to store.
        held : bool
            Whether its files stay although no snapshot of them is in a cache, as at a
            mirror node. What was held once stays so.
        point : bool
            Whether the revision's name points to it now.

        Raises
        ------
        OSError
            When it cannot be written; an older manifest is still whole then.
        """
        key = _key(listing)
        repo = self._repo(key.hub, key.kind, key.repo_id)
        repo.mkdir(parents=True, exist_ok=True)
        held = held or self.is_held(key)
        _write_lines(repo / f"{key.commit}.manifest", listing, held)
        if point and listing.revision != listing.commit:
            refs = repo / "refs"
            refs.mkdir(exist_ok=True)
            write_text_atomically(refs / _ref_name(listing.revision), key.commit + "\n")

    def read(
        self, hub: Hub | None, kind: RepoKind, repo_id: str, revision: str | None = None
    ) -> RepoListing | None:
        """Return the listing of a branch, tag or commit, or None; without a hub, of any."""
        for candidate in HUBS if hub is None else (hub,):
            if not is_repo_id(repo_id):
                return None
            commit = self.revisions(candidate, kind, repo_id).get(_canonical(revision))
            if commit is None and _COMMIT.fullmatch(revision or ""):
                commit = revision
            if commit is not None:
                listing = self.read_key(ManifestKey(candidate, kind, repo_id, commit))
                if listing is not None:
                    return replace(listing, revision=revision or listing.revision)
        return None

    def read_key(self, key: ManifestKey) -> RepoListing | None:
        """Return the listing of one commit, or None when it is absent or broken."""
        try:
            with self._path(key).open(encoding="utf-8") as stream:
                header = json.loads(stream.readline())
                files = tuple(_file(json.loads(line)) for line in stream)
            if len(files) != header["files"]:
                return None
            return RepoListing(
                header["hub"],
                header["repo_id"],
                header["kind"],
                header["revision"],
                header["commit"],
                files,
            )
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def revisions(self, hub: Hub, kind: RepoKind, repo_id: str) -> dict[str, str]:
        """Return commit by name for every branch and tag; the default branch is ``main``."""
        refs = self._repo(hub, kind, repo_id) / "refs"
        names = {}
        for name in _names(refs):
            try:
                commit = (refs / name).read_text(encoding="utf-8").strip()
            except (OSError, ValueError):
                continue
            if _COMMIT.fullmatch(commit):
                names[unquote(name)] = commit
        return names

    def commits(self, hub: Hub, kind: RepoKind, repo_id: str) -> list[str]:
        """Return every commit with a manifest."""
        names = _names(self._repo(hub, kind, repo_id))
        return sorted(name[:-9] for name in names if name.endswith(".manifest"))

    def all_keys(self) -> Iterator[ManifestKey]:
        """Yield every manifest's key; cheap, since none is opened."""
        for kind in KINDS:
            for hub in HUBS:
                for name in _names(self.folder / f"{kind}s" / hub):
                    repo_id = name.replace("--", "/", 1)
                    if is_repo_id(repo_id):
                        for commit in self.commits(hub, kind, repo_id):
                            yield ManifestKey(hub, kind, repo_id, commit)

    def is_held(self, key: ManifestKey) -> bool:
        """Tell whether the files of a manifest stay without a snapshot."""
        try:
            with self._path(key).open(encoding="utf-8") as stream:
                return bool(json.loads(stream.readline()).get("held"))
        except (OSError, ValueError, AttributeError):
            return False

    def set_held(self, key: ManifestKey, held: bool) -> None:
        """Say whether the files of a manifest stay without a snapshot."""
        listing = self.read_key(key)
        if listing is not None and self.is_held(key) != held:
            _write_lines(self._path(key), listing, held)

    def remove(self, key: ManifestKey) -> None:
        """Remove one manifest, the names that point to it, and folders that are empty then."""
        repo = self._repo(key.hub, key.kind, key.repo_id)
        for name, commit in self.revisions(key.hub, key.kind, key.repo_id).items():
            if commit == key.commit:
                (repo / "refs" / _ref_name(name)).unlink(missing_ok=True)
        self._path(key).unlink(missing_ok=True)
        for folder in (repo / "refs", repo):
            try:
                folder.rmdir()
            except OSError:
                return

    def written_ns(self, key: ManifestKey) -> int | None:
        """Return when a manifest was written, in nanoseconds since the epoch, or None."""
        try:
            return self._path(key).stat().st_mtime_ns
        except OSError:
            return None

    def folder_of(self, key: ManifestKey) -> Path:
        """Return the folder of a repository's manifests."""
        return self._repo(key.hub, key.kind, key.repo_id)

    def _repo(self, hub: Hub, kind: RepoKind, repo_id: str) -> Path:
        if hub not in HUBS or kind not in KINDS or not is_repo_id(repo_id):
            raise ValueError(f"no repository: {hub} {kind} {repo_id!r}")
        return self.folder / f"{kind}s" / hub / repo_id.replace("/", "--")

    def _path(self, key: ManifestKey) -> Path:
        if not _COMMIT.fullmatch(key.commit):
            raise ValueError(f"no commit: {key.commit!r}")
        return self._repo(key.hub, key.kind, key.repo_id) / f"{key.commit}.manifest"


def _key(listing: RepoListing) -> ManifestKey:
    if not _COMMIT.fullmatch(listing.commit):
        raise ValueError(f"no commit: {listing.commit!r}")
    return ManifestKey(listing.hub, listing.kind, listing.repo_id, listing.commit)


def _canonical(revision: str | None) -> str:
    return _DEFAULT if revision in DEFAULT_NAMES else str(revision)


def _ref_name(revision: str | None) -> str:
    name = quote(_canonical(revision), safe="")
    # A hidden name would be taken for a file that is being written.
    return f"%2E{name[1:]}" if name.startswith(".") else name


def _names(folder: Path) -> list[str]:
    try:
        return sorted(name for name in os.listdir(folder) if not name.startswith("."))
    except OSError:
        return []


def _write_lines(path: Path, listing: RepoListing, held: bool) -> None:
    """Write a header and one line a file: a million of them need no more memory than one."""
    header = {
        "version": 1,
        "hub": listing.hub,
        "repo_id": listing.repo_id,
        "kind": listing.kind,
        "revision": listing.revision,
        "commit": listing.commit,
        "held": held,
        "files": len(listing.files),
    }
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(6)}.tmp")
    try:
        with temporary.open("x", encoding="utf-8", buffering=1 << 16) as stream:
            stream.write(json.dumps(header) + "\n")
            for file in listing.files:
                row: list[Any] = [file.path, file.size, file.sha256, file.git_sha1]
                stream.write(json.dumps([*row, 1] if file.lfs else row) + "\n")
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _file(row: list[Any]) -> RemoteFile:
    path, size, sha256, git_sha1, *lfs = row
    return RemoteFile(cast(str, path), size, sha256, git_sha1, bool(lfs))
