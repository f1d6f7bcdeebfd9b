"""Which revision of which repository a request means: from the store, or asked upstream."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Literal, TypeVar

from swift_jupyter.errors import UserError
from swift_jupyter.hub.listing import GIT_SHA1, RemoteFile, RepoListing, select_files
from swift_jupyter.hub.node.addresses import Target
from swift_jupyter.hub.node.upstream import RepoNames, Upstream
from swift_jupyter.hub.reference import RepoKind
from swift_jupyter.hub.sources.base import SourceUnavailable
from swift_jupyter.hub.store.manifests import ManifestKey
from swift_jupyter.hub.store.store import Store
from swift_jupyter.i18n import translate as _

# For so long a listing counts as the newest one.
FRESH_SECONDS = 60.0
# For so long what the store says is believed without looking again.
_LOOK_SECONDS = 1.0
# A client shall not wait longer for news when something older could be served.
_PATIENCE_SECONDS = 5.0
_SHELVES = 256
_REMEMBERED_FOLDERS = 8
_log = logging.getLogger(__name__)

_T = TypeVar("_T")
Missing = Literal["repo", "revision", "file", "denied", "unreachable"]


class NotHere(Exception):
    """The node cannot answer for a repository.

    Attributes
    ----------
    missing : str
        What is not there: ``repo``, ``revision``, ``file``, or why nobody knows: ``denied``,
        ``unreachable``.
    reason : str
        For people.
    """

    def __init__(self, missing: Missing, reason: str) -> None:
        super().__init__(reason)
        self.missing = missing
        self.reason = reason


@dataclass
class Shelf:
    """One revision of a repository, ready to be served.

    Attributes
    ----------
    names : RepoNames
        The repository.
    listing : RepoListing
        Its files; hashes are filled in as they become known.
    files : dict
        The served files by path.
    stale : str
        Why this may not be the newest; empty when it is.
    checked : float
        When upstream or the store was asked last, on the monotonic clock.
    entries : dict
        The sorted paths below a folder, for those that clients have asked for.
    """

    names: RepoNames
    listing: RepoListing
    files: dict[str, RemoteFile]
    stale: str = ""
    checked: float = field(default_factory=time.monotonic)
    entries: dict[tuple[str, bool], list[str]] = field(default_factory=dict, repr=False)

    @property
    def commit(self) -> str:
        """The commit, 40 hex digits."""
        return self.listing.commit

    def below(self, folder: str, recursive: bool) -> list[str]:
        """Return the paths of files and folders below `folder`, sorted.

        Raises
        ------
        NotHere
            When there is no such folder.
        """
        key = (folder, recursive)
        found = self.entries.get(key)
        if found is None:
            found = sorted(_entries(self.files, folder, recursive))
            # Replaced, not changed: long listings are made in threads.
            kept = self.entries if len(self.entries) < _REMEMBERED_FOLDERS else {}
            self.entries = {**kept, key: found}
        if folder and not found:
            raise NotHere("file", _("there is no folder {folder}", folder=folder))
        return found

    def learn(self, file: RemoteFile) -> None:
        """Take over hashes that became known."""
        self.files[file.path] = file


class Library:
    """Finds shelves. Belongs to one event loop.

    Parameters
    ----------
    store : Store
        What is held.
    upstream : Upstream or None
        Whom to ask for what is not held; None serves the store alone.
    """

    def __init__(self, store: Store, upstream: Upstream | None) -> None:
        self._store = store
        self._upstream = upstream
        self._threads = ThreadPoolExecutor(8, thread_name_prefix="node-library")
        self._shelves: dict[tuple[RepoNames, str | None], Shelf] = {}
        self._asking: dict[tuple[RepoNames, str | None], asyncio.Task[Shelf]] = {}
        self._numbers: dict[int, str] = {}

    def close(self) -> None:
        """End the threads and forget questions under way."""
        for task in self._asking.values():
            task.cancel()
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def find(self, target: Target) -> Shelf:
        """Return what a target means.

        Raises
        ------
        NotHere
            When there is no such thing, or nobody can be asked.
        """
        repo_id = target.repo_id
        if "/" not in repo_id:
            repo_id = await self._by_number(int(repo_id))
        names = RepoNames.of(target.hub, target.kind, repo_id)
        key = (names, target.revision)
        known = self._shelves.get(key)
        if known is not None and time.monotonic() - known.checked < self._life(known):
            return known
        shelf = await self._newest(key, known)
        self._shelves.pop(key, None)
        self._shelves[key] = shelf
        while len(self._shelves) > _SHELVES:
            del self._shelves[next(iter(self._shelves))]
        return shelf

    async def held(self, shelf: Shelf, file: RemoteFile) -> str | None:
        """Return the path of a file's content when the store has it."""
        found = await self._in_thread(lambda: self._store.resolve(file))
        return str(found) if found else None

    def number(self, kind: RepoKind, repo_id: str) -> int:
        """Return the number of a repository: the same at every node and at any time."""
        number = _number(kind, repo_id)
        self._numbers[number] = repo_id
        return number

    async def revisions(self, target: Target) -> dict[str, str]:
        """Return commit by name for the branches and tags that are held."""
        names = RepoNames.of(target.hub, target.kind, target.repo_id)

        def read() -> dict[str, str]:
            for hub in names.hubs:
                found = self._store.revisions(hub, names.kind, names.at(hub))
                if found:
                    return found
            return {}

        return await self._in_thread(read)

    async def _in_thread(self, call: Callable[[], _T]) -> _T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, call)

    def _life(self, shelf: Shelf) -> float:
        """Return for how many seconds a shelf needs no look."""
        if self._upstream is None:
            return _LOOK_SECONDS
        return _PATIENCE_SECONDS if shelf.stale else FRESH_SECONDS

    async def _newest(self, key: tuple[RepoNames, str | None], known: Shelf | None) -> Shelf:
        names, revision = key
        local = await self._in_thread(lambda: self._read_store(names, revision, known))
        if self._upstream is None:
            if local is None:
                raise await self._in_thread(lambda: self._nothing(names, revision))
            return local
        if local is not None and revision is not None and GIT_SHA1.fullmatch(revision):
            return local  # A commit has no news.
        task = self._asking.get(key)
        if task is None:
            task = asyncio.get_running_loop().create_task(self._ask(key))
            self._asking[key] = task
            task.add_done_callback(lambda _task: self._asking.pop(key, None))
        try:
            if local is None:
                return await asyncio.shield(task)
            return await asyncio.wait_for(asyncio.shield(task), _PATIENCE_SECONDS)
        except asyncio.TimeoutError:
            assert local is not None
            return _stale(local, _("upstream is slow"))
        except SourceUnavailable as problem:
            if local is not None:
                _log.warning("stale: %s: %s", names.at(names.first), problem.reason)
                return _stale(local, problem.reason)
            raise _not_here(problem, revision) from None

    async def _ask(self, key: tuple[RepoNames, str | None]) -> Shelf:
        upstream, (names, revision) = self._upstream, key
        assert upstream is not None

        def ask() -> Shelf:
            listing = upstream.list_files(names, revision)
            if revision is not None:
                listing = replace(listing, revision=revision)
            return _shelf(names, self._remember(listing))

        task = self._in_thread(ask)
        return await task

    def _remember(self, listing: RepoListing) -> RepoListing:
        """Write a listing down; its name moves to it when it can be served whole.

        Until then an older, complete revision keeps the name, in case that upstream
        cannot be asked later.
        """
        store = self._store
        old = store.read_manifest(listing.hub, listing.kind, listing.repo_id, listing.revision)
        is_current = old is None or old.commit == listing.commit or self._is_whole(listing)
        # The disk may be full or read-only: what upstream lists is served all the same.
        with contextlib.suppress(UserError):
            store.write_manifest(listing, held=True, point=is_current)
        written = store.read_manifest(listing.hub, listing.kind, listing.repo_id, listing.commit)
        return replace(written, revision=listing.revision) if written else listing

    def _is_whole(self, listing: RepoListing) -> bool:
        wanted = select_files(listing.files, listing.kind)
        return all(self._store.resolve(file) is not None for file in wanted)

    def _read_store(
        self, names: RepoNames, revision: str | None, known: Shelf | None
    ) -> Shelf | None:
        for hub in names.hubs:
            repo_id = names.at(hub)
            if known is not None and known.listing.hub == hub and not known.stale:
                name = "main" if revision is None else revision
                commits = self._store.revisions(hub, names.kind, repo_id)
                if self._upstream is None and commits.get(name, revision) == known.commit:
                    known.checked = time.monotonic()
                    return known
            listing = self._store.read_manifest(hub, names.kind, repo_id, revision)
            if listing is not None:
                shelf = _shelf(names, listing)
                self._hide_redundant(shelf)
                return shelf
        return None

    def _hide_redundant(self, shelf: Shelf) -> None:
        """Leave out what was left out on purpose: formats that a model needs only once.

        What is missing beyond that stays listed, so that no client takes an incomplete
        model for a complete one.
        """
        listing = shelf.listing
        needed = {file.path for file in select_files(listing.files, listing.kind)}
        for file in listing.files:
            if file.path not in needed and self._store.resolve(file) is None:
                del shelf.files[file.path]

    def _nothing(self, names: RepoNames, revision: str | None) -> NotHere:
        for hub in names.hubs:
            if self._store.revisions(hub, names.kind, names.at(hub)):
                reason = _(
                    "{repo_id} has no revision {revision} here",
                    repo_id=names.at(names.first),
                    revision=revision or "main",
                )
                return NotHere("revision", reason)
        reason = _("{repo_id} is not held by this node", repo_id=names.at(names.first))
        return NotHere("repo", reason)

    async def _by_number(self, number: int) -> str:
        if number not in self._numbers:
            keys: list[ManifestKey] = await self._in_thread(
                lambda: list(self._store.manifest_files.all_keys())
            )
            for key in keys:
                if key.kind == "dataset":
                    self.number(key.kind, key.repo_id)
        if number not in self._numbers:
            raise NotHere("repo", _("no data set has the number {number}", number=number))
        return self._numbers[number]


def _entries(files: Iterable[str], folder: str, recursive: bool) -> set[str]:
    prefix = f"{folder}/" if folder else ""
    found: set[str] = set()
    for path in files:
        if not path.startswith(prefix):
            continue
        if not recursive:
            found.add(prefix + path[len(prefix) :].partition("/")[0])
            continue
        # The file, and every folder above it that was not seen yet.
        while len(path) > len(prefix) and path not in found:
            found.add(path)
            path = path.rpartition("/")[0]
    return found


def _number(kind: RepoKind, repo_id: str) -> int:
    digest = hashlib.sha256(f"{kind}\0{repo_id.lower()}".encode()).digest()
    return int.from_bytes(digest[:6], "big") + 1


def _shelf(names: RepoNames, listing: RepoListing) -> Shelf:
    return Shelf(names, listing, {file.path: file for file in listing.files})


def _stale(shelf: Shelf, reason: str) -> Shelf:
    return replace(shelf, stale=reason, checked=time.monotonic())


def _not_here(problem: SourceUnavailable, revision: str | None) -> NotHere:
    if problem.trouble == "denied":
        return NotHere("denied", problem.reason)
    if problem.trouble == "not_found":
        return NotHere("repo" if revision is None else "revision", problem.reason)
    return NotHere("unreachable", problem.reason)
