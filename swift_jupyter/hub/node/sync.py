"""Bringing a store up to date with the hubs: changed files only, then one switch."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, cast

from swift_jupyter.errors import OptionError, UserError
from swift_jupyter.files import check_room, size_text
from swift_jupyter.hub.listing import Hub, RemoteFile, RepoListing, select_files
from swift_jupyter.hub.node.upstream import HUBS, RepoNames, Upstream
from swift_jupyter.hub.reference import RepoKind, RepoReference
from swift_jupyter.hub.sources.base import SourceUnavailable
from swift_jupyter.hub.store.hashing import allocated_bytes
from swift_jupyter.hub.store.store import Store
from swift_jupyter.hub.transfer.channel import TransferFailed
from swift_jupyter.hub.transfer.fetch import fetch
from swift_jupyter.hub.transfer.state import TransferState
from swift_jupyter.i18n import translate as _

SyncState = Literal["new", "updated", "unchanged", "gone", "failed"]
_INTERVAL = re.compile(r"(\d+(?:\.\d+)?)\s*(s|min|m|h|d)?")
_SECONDS: dict[str | None, int] = {"s": 1, "m": 60, "min": 60, "h": 3600, "d": 86400, None: 1}
SHORTEST_SECONDS = 5.0


@dataclass(frozen=True)
class SyncItem:
    """One repository that is kept up to date.

    Attributes
    ----------
    kind : {"model", "dataset"}
        What it holds.
    modelscope_id, huggingface_id : str
        Its ids; empty where a hub does not have it.
    revision : str or None
        Branch, tag or commit.
    """

    kind: RepoKind
    modelscope_id: str
    huggingface_id: str
    revision: str | None = None

    @classmethod
    def of(cls, reference: RepoReference) -> SyncItem:
        """Return what a reference means at the hubs.

        Raises
        ------
        OptionError
            When no hub has it.
        """
        first, second = reference.modelscope_id or "", reference.huggingface_id or ""
        if not first and not second:
            raise OptionError(
                _("'{name}' is at no hub, so it cannot be synced.", name=reference.name),
                next_step=_("Give owner/name, for example: Qwen/Qwen2.5-0.5B-Instruct"),
            )
        return cls(reference.kind, first, second, reference.revision)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> SyncItem:
        """Build it from what `to_json` gave."""
        return cls(**value)

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return asdict(self)

    def names(self, first: Hub) -> RepoNames:
        """Return its names, for asking `first` first where it has the repository."""
        ids = {"modelscope": self.modelscope_id, "huggingface": self.huggingface_id}
        if not ids[first]:
            first = HUBS[1 - HUBS.index(first)]
        return RepoNames(self.kind, first, self.modelscope_id, self.huggingface_id)

    @property
    def shown(self) -> str:
        """The name for people."""
        return (self.modelscope_id or self.huggingface_id) + (
            f"@{self.revision}" if self.revision else ""
        )


@dataclass(frozen=True)
class SyncResult:
    """What became of one repository.

    Attributes
    ----------
    name : str
        Its name for people.
    state : {"new", "updated", "unchanged", "gone", "failed"}
        ``gone``: the hubs do not have it any more; what is held stays and is served.
    commit : str
        The revision that the node serves now.
    files, fetched_files, fetched_bytes : int
        How many files it has, and what had to come.
    reason : str
        Why it failed, or where it went.
    """

    name: str
    state: SyncState
    commit: str = ""
    files: int = 0
    fetched_files: int = 0
    fetched_bytes: int = 0
    reason: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Return plain values."""
        return asdict(self)


class SyncWatch:
    """What a sync tells; the base takes everything and says nothing."""

    def tell(self, name: str, done: int, total: int | None) -> None:
        """Take how many bytes of a repository have arrived."""

    def notice(self, text: str) -> None:
        """Take a sentence that the user should know."""

    def check(self) -> None:
        """Raise `TransferCancelled` when the sync shall end."""


class Syncer:
    """Keeps repositories of a store up to date.

    Parameters
    ----------
    store : Store
        Where they are.
    upstream : Upstream
        Where they come from.
    first : {"modelscope", "huggingface"}
        The hub that is asked first.
    watch : SyncWatch
        Is told.
    """

    def __init__(self, store: Store, upstream: Upstream, first: Hub, watch: SyncWatch) -> None:
        self._store = store
        self._upstream = upstream
        self._first = first
        self._watch = watch

    def sync_all(self, items: Sequence[SyncItem]) -> list[SyncResult]:
        """Bring every item up to date; one that fails does not keep the others."""
        results = []
        for item in items:
            self._watch.check()
            results.append(self.sync(item))
        return results

    def sync(self, item: SyncItem) -> SyncResult:
        """Bring one repository up to date.

        The new revision is served only when all its files are there; until then, and
        whatever happens, clients get the old one.

        Raises
        ------
        UserError
            When the disk is full or cannot be written.
        """
        names = item.names(self._first)
        before = self._served(names, item.revision)
        try:
            listing = self._upstream.list_files(names, item.revision)
            wanted = select_files(listing.files, item.kind)
            missing = [file for file in wanted if self._store.resolve(file) is None]
            fetched = self._fetch(item, names, listing, missing) if missing else 0
        except (SourceUnavailable, TransferFailed) as problem:
            return self._failure(item, before, problem)
        self._store.write_manifest(listing, held=True)
        state: SyncState = "new" if before is None else "updated"
        if before is not None and before.commit == listing.commit and not missing:
            state = "unchanged"
        return SyncResult(item.shown, state, listing.commit, len(wanted), len(missing), fetched)

    def _served(self, names: RepoNames, revision: str | None) -> RepoListing | None:
        for hub in names.hubs:
            if names.at(hub):
                found = self._store.read_manifest(hub, names.kind, names.at(hub), revision)
                if found is not None:
                    return found
        return None

    def _fetch(
        self,
        item: SyncItem,
        names: RepoNames,
        listing: RepoListing,
        missing: Sequence[RemoteFile],
    ) -> int:
        there = sum(allocated_bytes(part) for part in map(self._store.part_state, missing) if part)
        needed = sum(file.size or 0 for file in missing) - there
        check_room(self._store.parts(), max(0, needed))
        supply = self._upstream.supply(names, listing, missing)
        summary = fetch(
            missing,
            supply,
            self._store.parts(),
            self._deliver,
            _Observer(item.shown, self._watch),
            self._upstream.client,
            arrived=lambda file: self._store.resolve(file) is not None,
        )
        return summary.fetched_bytes

    def _deliver(self, file: RemoteFile, part: Path, sha256: str, git_sha1: str) -> None:
        self._store.add(part, sha256, git_sha1 or None)

    def _failure(
        self,
        item: SyncItem,
        before: RepoListing | None,
        problem: SourceUnavailable | TransferFailed,
    ) -> SyncResult:
        if before is None:
            return SyncResult(item.shown, "failed", reason=problem.reason)
        gone = isinstance(problem, SourceUnavailable) and problem.trouble == "not_found"
        state: SyncState = "gone" if gone else "failed"
        files = len(select_files(before.files, item.kind))
        return SyncResult(item.shown, state, before.commit, files, reason=problem.reason)


class _Observer:
    def __init__(self, name: str, watch: SyncWatch) -> None:
        self._name = name
        self._watch = watch

    def progress(self, state: TransferState) -> None:
        self._watch.tell(self._name, state.done_bytes, state.total_bytes)

    def notice(self, text: str) -> None:
        self._watch.notice(text)

    def check(self) -> None:
        self._watch.check()


def summary(results: Sequence[SyncResult]) -> str:
    """Return one sentence about a round."""
    counts: dict[str, int] = {}
    for result in results:
        counts[result.state] = counts.get(result.state, 0) + 1
    words = {
        "new": _("new"),
        "updated": _("updated"),
        "unchanged": _("unchanged"),
        "gone": _("gone upstream, kept here"),
        "failed": _("failed"),
    }
    parts = [f"{count} {words[state]}" for state, count in counts.items()]
    fetched = size_text(sum(result.fetched_bytes for result in results))
    return _("{parts}; {size} fetched", parts=", ".join(parts), size=fetched)


def parse_interval(text: str, option: str, shortest: float = 0.0) -> float:
    """Return the seconds of ``90s``, ``30m``, ``1h`` or ``1d``.

    Raises
    ------
    OptionError
        For anything else, and for less than `shortest` seconds; it names `option`.
    """
    match = _INTERVAL.fullmatch(text.strip().lower())
    if match is None:
        raise OptionError(
            _("'{text}' is not a length of time.", text=text),
            next_step=_("For example: {option} 30m, {option} 1h or {option} 1d", option=option),
        )
    seconds = float(match[1]) * _SECONDS[match[2]]
    if seconds < shortest:
        raise OptionError(
            _("{option} {text} is too short.", option=option, text=text),
            next_step=_("Give at least {seconds} s; 1h is usual.", seconds=round(shortest)),
        )
    return seconds


def read_list(path: Path) -> Iterator[tuple[RepoKind | None, str]]:
    """Yield kind and name of each line of a list of repositories.

    A line is ``owner/name`` or ``owner/name@revision``, maybe with ``model:`` or
    ``dataset:`` before it; ``#`` begins a comment.

    Raises
    ------
    UserError
        When it cannot be read.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else None
        raise UserError(
            _("The list {path} cannot be read.", path=path), reason or str(error)
        ) from None
    for line in lines:
        text = line.partition("#")[0].strip()
        if not text:
            continue
        kind, sign, name = text.partition(":")
        if sign and kind.strip() in ("model", "dataset"):
            yield cast(RepoKind, kind.strip()), name.strip()
        else:
            yield None, text


def wait_until_next(seconds: float, should_stop: Callable[[], bool]) -> bool:
    """Wait; tell whether the time has passed, and not a stop was asked for."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if should_stop():
            return False
        time.sleep(min(0.3, max(0.0, end - time.monotonic())))
    return not should_stop()
