"""The work of a pull in its transfer process: list, fetch what lacks, show it to the clients.

The sources that list the same hashes work together on one transfer. One that
lists other content is a copy of something else: it is told, and only asked for
the whole when the first ones fail.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from swift_jupyter.hub.api.base import Endpoint, hub_api
from swift_jupyter.hub.api.node import piece_hashes
from swift_jupyter.hub.cache.adoption import adopt_from_caches
from swift_jupyter.hub.cache.layouts import modelscope_revision
from swift_jupyter.hub.endpoints import read_environment
from swift_jupyter.hub.http.client import Client
from swift_jupyter.hub.listing import (
    HUB_NAMES,
    Hub,
    RemoteFile,
    RepoListing,
    select_files,
)
from swift_jupyter.hub.lock_file import LockEntry
from swift_jupyter.hub.mirrors.health import StoredHealth
from swift_jupyter.hub.sources.base import SourceUnavailable
from swift_jupyter.hub.store.store import Store, open_store
from swift_jupyter.hub.tokens import Secret
from swift_jupyter.hub.transfer.asking import Address, Asking, Offer
from swift_jupyter.hub.transfer.channel import Channel, TransferFailed
from swift_jupyter.hub.transfer.company import Company
from swift_jupyter.hub.transfer.feed import Feed
from swift_jupyter.hub.transfer.fetch import fetch
from swift_jupyter.hub.transfer.plan import check_rooms, with_hash
from swift_jupyter.hub.transfer.showing import show
from swift_jupyter.hub.transfer.supply import Supply
from swift_jupyter.i18n import translate as _
from swift_jupyter.settings import Settings

# What no other source would help against.
_OWN_TROUBLES = ("disk_full", "disk")


class PullFailed(TransferFailed):
    """No source could give it.

    Parameters
    ----------
    answers : sequence of (name, reason, trouble)
        What each source said.
    """

    def __init__(self, answers: Sequence[tuple[str, str, str]]) -> None:
        _name, reason, trouble = answers[-1] if answers else ("", _("nobody was asked"), "failed")
        super().__init__(reason, trouble)
        self.answers = list(answers)


def run(job: Mapping[str, Any], channel: Channel) -> dict[str, Any]:
    """Pull the repository of `job` and return the values of the final event."""
    settings = Settings(**job["settings"])
    health = StoredHealth.of(settings)
    client = Client(os.environ, connections=job["max_connections"])
    try:
        return _Pull(job, channel, settings, client, health).run()
    finally:
        health.flush()
        client.close()


@dataclass
class _Fetched:
    """The outcome for one listing."""

    listing: RepoListing
    files: list[RemoteFile]
    source: str
    fetched_bytes: int = 0


class _Pull:
    def __init__(
        self,
        job: Mapping[str, Any],
        channel: Channel,
        settings: Settings,
        client: Client,
        health: StoredHealth,
    ) -> None:
        self.job = job
        self.settings = settings
        self.client = client
        self.health = health
        self.store: Store = open_store(settings)
        self.locked = LockEntry.from_dict(job["locked"]) if job["locked"] else None
        self.addresses = [_address(values) for values in job["addresses"]]
        self.ids: dict[Hub, str | None] = job["ids"]
        self.feed = Feed(channel, self.addresses[0].label if self.addresses else "")
        self.asking = Asking(self.addresses, self._ask, channel.check, job["listing_seconds"])
        self.answers: list[tuple[str, str, str]] = []

    def run(self) -> dict[str, Any]:
        self.feed.phase("listing")
        fetched = self._pull_locked() if self.locked else self._pull_listed()
        path = self._show(fetched)
        return {
            "path": str(path),
            "hub": fetched.listing.hub,
            "repo_id": fetched.listing.repo_id,
            "source": fetched.source,
            "revision": _shown_revision(fetched.listing),
            "commit": fetched.listing.commit,
            "size": sum(file.size or 0 for file in fetched.files),
            "fetched": fetched.fetched_bytes,
            "notices": list(self.feed.notices),
        }

    def _pull_listed(self) -> _Fetched:
        """Take the first listing that can be had whole."""
        while (offer := self.asking.next()) is not None:
            try:
                wanted = self._wanted(offer.listing)
                return self._get(offer.listing, wanted, offer)
            except TransferFailed as error:
                if error.trouble in _OWN_TROUBLES:
                    raise
                told: TransferFailed | SourceUnavailable = error
                if error.trouble == "denied":
                    told = offer.api.refusal(offer.listing)
                self._note_answer(offer.address.label, told.reason, told.trouble)
        stored = self._stored()
        if stored is not None:
            return stored
        raise self._failed()

    def _stored(self) -> _Fetched | None:
        """Return what was pulled before, when nobody can be asked and the store has it all."""
        troubles: set[str] = {error.trouble for _address, error in self.asking.failures}
        troubles.update(trouble for _label, _reason, trouble in self.answers)
        if not self.job["may_use_stored"] or not troubles <= {"unreachable", "offline"}:
            return None
        for hub, repo_id in self.ids.items():
            listing = repo_id and self.store.read_manifest(
                hub, self.job["kind"], repo_id, self.job["revision"]
            )
            if not listing:
                continue
            held, missing = self._split(self._wanted(listing))
            if not missing:
                self.feed.notice(_("No source could be asked; this is what was pulled before."))
                return _Fetched(listing, held, "cache")
        return None

    def _pull_locked(self) -> _Fetched:
        """Take exactly what is locked, from whoever has it."""
        assert self.locked is not None
        listing = self.locked.listing
        try:
            return self._get(listing, list(listing.files), None)
        except TransferFailed as error:
            if error.trouble in _OWN_TROUBLES:
                raise
            if not self.answers:
                self._note_answer(HUB_NAMES[listing.hub], error.reason, error.trouble)
            raise self._failed() from None

    def _wanted(self, listing: RepoListing) -> list[RemoteFile]:
        job = self.job
        wanted = select_files(listing.files, listing.kind, job["include"], job["exclude"])
        if not wanted:
            raise TransferFailed(_("no file of the repository matches the patterns"), "not_found")
        return wanted

    def _get(self, listing: RepoListing, wanted: list[RemoteFile], offer: Offer | None) -> _Fetched:
        """Bring all of `wanted` into the store."""
        held, missing = self._split(wanted)
        source = HUB_NAMES[listing.hub]
        if not missing:
            return _Fetched(listing, held, source)
        check_rooms(self.store, missing, wanted, self._roots())
        # A pull that is broken off can be seen in the cache, and removed.
        self.store.write_manifest(listing, point=False)
        self.feed.base_files = len(held)
        self.feed.base_bytes = sum(file.size or 0 for file in held)
        if offer is not None:
            self.feed.source = offer.address.label
        arrived: dict[str, RemoteFile] = {}

        def deliver(file: RemoteFile, part: Path, sha256: str, git_sha1: str) -> None:
            size = part.stat().st_size
            self.store.add(part, sha256, git_sha1 or None)
            arrived[file.path] = replace(
                file, size=size, sha256=sha256, git_sha1=git_sha1 or file.git_sha1
            )

        supply = Supply(missing)
        company = Company(self.asking, supply, offer, self.feed, self.locked, self._note_answer)
        company.start()
        try:
            summary = fetch(
                missing,
                supply,
                self.store.parts(),
                deliver,
                self.feed,
                self.client,
                connections=self.job["max_connections"],
                health=self.health,
                piece_hashes=piece_hashes([a.endpoint for a in self.addresses], self.client),
                arrived=lambda file: self.store.resolve(file) is not None,
            )
        finally:
            company.stop()
        files = [*held, *(self._arrived(file, arrived) for file in missing)]
        source = self._main_source(source, summary.fetched_from)
        order = {file.path: number for number, file in enumerate(wanted)}
        files.sort(key=lambda file: order[file.path])
        return _Fetched(listing, files, source, summary.fetched_bytes)

    def _arrived(self, file: RemoteFile, arrived: Mapping[str, RemoteFile]) -> RemoteFile:
        return arrived.get(file.path) or with_hash(self.store, file)

    def _split(self, wanted: Sequence[RemoteFile]) -> tuple[list[RemoteFile], list[RemoteFile]]:
        """Part the wanted files into those on this machine and those to fetch."""
        total = sum(file.size or 0 for file in wanted)
        done = 0

        def count(path: str, read: int) -> None:
            nonlocal done
            done += read
            self.feed.phase("verifying", min(done, total), total, path)

        local_dir = self.job["local_dir"]
        have = adopt_from_caches(
            self.store,
            self.job["kind"],
            wanted,
            self.ids,
            os.environ,
            extra_folders=[Path(local_dir)] if local_dir else (),
            progress=count,
        )
        held = [with_hash(self.store, file) for file in wanted if file.path in have]
        return held, [file for file in wanted if file.path not in have]

    def _main_source(self, source: str, fetched_from: Mapping[str, int]) -> str:
        """Return the hub or node that gave most, for people."""
        if not fetched_from:
            return source
        best = max(fetched_from, key=lambda name: fetched_from[name])
        given = next((a for a in self.addresses if a.endpoint.name == best), None)
        if given is None:
            return source
        return given.label if given.endpoint.is_node else HUB_NAMES[given.endpoint.hub]

    def _show(self, fetched: _Fetched) -> Path:
        self.feed.phase("publishing", 0, None)
        listing = fetched.listing
        known = {file.path: file for file in fetched.files}
        files = tuple(known.get(file.path) or with_hash(self.store, file) for file in listing.files)
        listing = replace(listing, files=files)
        if self.locked:
            listing = self._pinned(listing)
        self.store.write_manifest(listing)
        environment = read_environment(os.environ)
        return show(
            self.store,
            self.settings,
            environment,
            listing,
            fetched.files,
            self.ids,
            Path(self.job["local_dir"]) if self.job["local_dir"] else None,
            fetched.source,
            self.feed.notice,
        )

    def _pinned(self, listing: RepoListing) -> RepoListing:
        """Name the commit instead of the branch where the branch has moved on by now."""
        there = self.store.read_manifest(
            listing.hub, listing.kind, listing.repo_id, listing.revision
        )
        if there is None or there.commit == listing.commit:
            return listing
        return replace(listing, revision=listing.commit)

    def _roots(self) -> list[Path]:
        if self.job["local_dir"]:
            return [Path(self.job["local_dir"])]
        environment = read_environment(os.environ)
        caches = {
            "modelscope": environment.modelscope_cache,
            "huggingface": environment.huggingface_cache,
        }
        return [caches[hub] for hub, repo_id in self.ids.items() if repo_id]

    def _ask(self, address: Address) -> Offer:
        seconds = self.job["listing_seconds"]
        api = hub_api(address.endpoint, self.client, deadline=seconds)
        names = _revisions(self.locked, address.endpoint.hub, self.job["revision"])
        for name in names[:-1]:
            try:
                listing = api.list_files(address.repo_id, self.job["kind"], name)
                return Offer(address, listing, api.origin(listing), api)
            except SourceUnavailable as error:
                if error.trouble != "not_found":
                    self._blame(address, error)
                    raise
        try:
            listing = api.list_files(address.repo_id, self.job["kind"], names[-1])
        except SourceUnavailable as error:
            self._blame(address, error)
            raise
        return Offer(address, listing, api.origin(listing), api)

    def _blame(self, address: Address, error: SourceUnavailable) -> None:
        if error.trouble == "unreachable":
            self.health.failed(address.endpoint.url, error.reason)

    def _note_answer(self, label: str, reason: str, trouble: str) -> None:
        self.answers.append((label, reason, trouble))

    def _failed(self) -> PullFailed:
        order = {address.label: number for number, address in enumerate(self.addresses)}
        for address, error in self.asking.failures:
            self._note_answer(address.label, error.reason, error.trouble)
        answers = list(dict.fromkeys(self.answers))
        return PullFailed(sorted(answers, key=lambda answer: order.get(answer[0], len(order))))


def _revisions(locked: LockEntry | None, hub: Hub, revision: str | None) -> list[str | None]:
    """Return the names by which a revision is asked for, the exact one first."""
    if locked is None:
        return [revision]
    if locked.hub == hub == "huggingface":
        return [locked.commit, locked.revision]
    return [locked.revision]


def _shown_revision(listing: RepoListing) -> str:
    return listing.commit if listing.hub == "huggingface" else modelscope_revision(listing.revision)


def _address(values: Mapping[str, Any]) -> Address:
    token, login = values["token"], values["login"]
    endpoint = Endpoint(
        values["hub"],
        values["url"],
        values["name"],
        Secret(token) if token else None,
        values["is_node"],
        Secret(login) if login else None,
    )
    return Address(endpoint, values["repo_id"], values["label"])
