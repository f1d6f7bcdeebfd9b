"""Files on their way from upstream: each is fetched once, however many clients wait for it."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Literal

from swift_jupyter.errors import UserError
from swift_jupyter.hub.listing import RemoteFile, RepoListing
from swift_jupyter.hub.node.upstream import RepoNames, Upstream
from swift_jupyter.hub.sources.base import SourceUnavailable
from swift_jupyter.hub.store.store import Store
from swift_jupyter.hub.transfer.channel import TransferCancelled, TransferFailed
from swift_jupyter.hub.transfer.fetch import fetch
from swift_jupyter.hub.transfer.part_file import part_key
from swift_jupyter.hub.transfer.state import TransferState
from swift_jupyter.i18n import translate as _

# Clients get the last bytes of a file only after its hash was verified.
WITHHELD = 64 << 10
_BIG = 8 << 20
_BIG_AT_ONCE = 4
_SMALL_AT_ONCE = 12
_CONNECTIONS = 16
_log = logging.getLogger(__name__)


class Fill:
    """One file on its way. Only the event loop touches it.

    Attributes
    ----------
    state : {"running", "done", "failed"}
        How it stands.
    part : Path or None
        The growing file.
    frontier : int
        Bytes from the beginning on that have arrived.
    restarts : int
        Grows when bytes that had arrived turned out wrong; who has sent some must not go on.
    verified : bool
        Whether the part itself was verified, so that what was sent from it is right.
    problem : str
        Why it failed.
    """

    def __init__(self, file: RemoteFile) -> None:
        self.file = file
        self.state: Literal["running", "done", "failed"] = "running"
        self.part: Path | None = None
        self.frontier = 0
        self.restarts = 0
        self.verified = False
        self.problem = ""
        self.trouble = ""
        self.source = ""
        self._changed = asyncio.Event()

    @property
    def running(self) -> bool:
        """Whether it is still on its way."""
        return self.state == "running"

    def limit(self, size: int) -> int:
        """Return how many bytes from the beginning on clients may have now."""
        return max(0, min(self.frontier, size) - WITHHELD)

    async def change(self, seconds: float) -> bool:
        """Wait for news; False when there were none in time."""
        event = self._changed
        try:
            await asyncio.wait_for(event.wait(), seconds)
        except asyncio.TimeoutError:
            return False
        return True

    def progress(self, part: Path | None, frontier: int, restarts: int, source: str) -> None:
        """Take over how far the transfer is; a finished one has no part any more."""
        self.restarts = max(self.restarts, restarts)
        if part is not None:
            self.part, self.frontier, self.source = part, frontier, source
        self._tell()

    def end(
        self, state: Literal["done", "failed"], verified: bool, problem: Exception | None
    ) -> None:
        """Say how it ended."""
        self.state, self.verified = state, verified
        self.trouble = getattr(problem, "trouble", "")
        self.problem = str(problem or "")
        self._tell()

    def _tell(self) -> None:
        event, self._changed = self._changed, asyncio.Event()
        event.set()


class Filler:
    """Fetches files into the store; belongs to one event loop.

    Parameters
    ----------
    store : Store
        Where they go.
    upstream : Upstream
        Where they come from.
    on_fetched : callable
        Told the bytes that came over the network, in the loop.
    """

    def __init__(
        self, store: Store, upstream: Upstream, on_fetched: Callable[[RemoteFile, int], None]
    ) -> None:
        self._store = store
        self._upstream = upstream
        self._on_fetched = on_fetched
        self._fills: dict[str, Fill] = {}
        self._stopping = threading.Event()
        self._small = ThreadPoolExecutor(_SMALL_AT_ONCE, thread_name_prefix="node-small")
        self._big = ThreadPoolExecutor(_BIG_AT_ONCE, thread_name_prefix="node-big")

    def close(self) -> None:
        """Stop; what has arrived stays for the next time."""
        self._stopping.set()
        for pool in (self._small, self._big):
            pool.shutdown(wait=False, cancel_futures=True)

    @property
    def active(self) -> list[Fill]:
        """What is on its way."""
        return list(self._fills.values())

    def fill(self, names: RepoNames, listing: RepoListing, file: RemoteFile) -> Fill:
        """Return the file's fill, which is started unless it is on its way already."""
        key = part_key(file, f"{listing.hub} {listing.kind} {listing.repo_id} {listing.commit}")
        fill = self._fills.get(key)
        if fill is None:
            fill = self._fills[key] = Fill(file)
            pool = self._small if file.size is not None and file.size < _BIG else self._big
            work = _Work(self._store, self._upstream, names, listing, fill, self._stopping)
            future = asyncio.get_running_loop().run_in_executor(pool, work.run)
            future.add_done_callback(lambda done: self._ended(key, done))
        return fill

    def _ended(self, key: str, done: asyncio.Future[_Outcome]) -> None:
        fill = self._fills.pop(key)
        if done.cancelled():
            fill.end("failed", False, SourceUnavailable(_("the node is stopping"), "unreachable"))
            return
        try:
            outcome = done.result()
        except TransferCancelled:
            fill.end("failed", False, SourceUnavailable(_("the node is stopping"), "unreachable"))
            return
        except (SourceUnavailable, TransferFailed, UserError) as error:
            _log.warning("fetching %s: %s", fill.file.path, error)
            fill.end("failed", False, error)
            return
        except Exception as error:
            _log.exception("fetching %s", fill.file.path)
            fill.end("failed", False, error)
            return
        fill.file = outcome.file
        if outcome.fetched:
            self._on_fetched(outcome.file, outcome.bytes)
        fill.end("done", outcome.fetched, None)


class _Outcome:
    def __init__(self, file: RemoteFile) -> None:
        self.file = file
        self.fetched = False
        self.bytes = 0


class _Work:
    """The side of a fill that runs in a thread; also the transfer's observer."""

    def __init__(
        self,
        store: Store,
        upstream: Upstream,
        names: RepoNames,
        listing: RepoListing,
        fill: Fill,
        stopping: threading.Event,
    ) -> None:
        self._store = store
        self._upstream = upstream
        self._names = names
        self._listing = listing
        self._fill = fill
        self._file = fill.file
        self._stopping = stopping
        self._loop = asyncio.get_running_loop()
        self._outcome = _Outcome(fill.file)

    def run(self) -> _Outcome:
        """Fetch the file unless the store has it by now."""
        if self._store.resolve(self._file) is not None:
            return self._outcome
        supply = self._upstream.supply(self._names, self._listing, [self._file])
        fetch(
            [self._file],
            supply,
            self._store.parts(),
            self._deliver,
            self,
            self._upstream.client,
            connections=_CONNECTIONS if (self._file.size or _BIG) >= _BIG else 1,
            # Another process of this machine may be pulling the same into this store.
            arrived=lambda file: self._store.resolve(file) is not None,
        )
        return self._outcome

    def progress(self, state: TransferState) -> None:
        """Hand the state over to the loop."""
        self._outcome.bytes = state.fetched_bytes
        for entry in state.files:
            news = (entry.part, entry.frontier, entry.restarts, entry.origin)
            self._loop.call_soon_threadsafe(self._fill.progress, *news)

    def notice(self, text: str) -> None:
        """Log what happened on the way."""
        _log.info("%s: %s", self._file.path, text)

    def check(self) -> None:
        """Stop when the node stops."""
        if self._stopping.is_set():
            raise TransferCancelled

    def _deliver(self, file: RemoteFile, part: Path, sha256: str, git_sha1: str) -> None:
        self._store.add(part, sha256, git_sha1 or None)
        self._outcome.file = RemoteFile(
            file.path,
            file.size if file.size is not None else self._store.object_path(sha256).stat().st_size,
            sha256,
            git_sha1 or file.git_sha1,
            file.lfs,
        )
        self._outcome.fetched = True
