"""Snapshots that are on this machine already. No network, no heavy import, milliseconds."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from swift_jupyter.hub.cache.completeness import missing_from_listing
from swift_jupyter.hub.cache.flaws import find_flaw
from swift_jupyter.hub.cache.layouts import (
    CachedSnapshot,
    huggingface_snapshots,
    modelscope_snapshots,
)
from swift_jupyter.hub.cache.records import (
    PullRecord,
    read_record,
    record_snapshot,
    touch_record,
)
from swift_jupyter.hub.cache.verify import verify_files
from swift_jupyter.hub.endpoints import read_environment
from swift_jupyter.hub.listing import Hub, RemoteFile, RepoListing, select_files
from swift_jupyter.hub.packages import KNOWN_PACKAGES, converted_folder, read_origin
from swift_jupyter.hub.progress import PullProgress, Report
from swift_jupyter.hub.reference import RepoReference
from swift_jupyter.hub.snapshot import Snapshot, folder_size
from swift_jupyter.hub.sources.base import PullRequest, SourceUnavailable
from swift_jupyter.i18n import translate as _


@dataclass(frozen=True)
class CacheSource:
    """Both hubs' caches, old layouts included, and converted local packages."""

    @property
    def name(self) -> str:
        """The name for people."""
        return "cache"

    def offers(self, reference: RepoReference) -> bool:
        """Tell whether the reference has an id under which it could be cached."""
        return bool(reference.modelscope_id or reference.huggingface_id or reference.package_id)

    def fetch(self, reference: RepoReference, request: PullRequest, report: Report) -> Snapshot:
        """Return a complete snapshot.

        Raises
        ------
        SourceUnavailable
            When there is none, with the reason why a part of one does not do.
        """
        if reference.package_id in KNOWN_PACKAGES:
            return self._package(reference.package_id, request)
        flaws: list[SourceUnavailable] = []
        shown_only: Snapshot | None = None
        for hub, repo_id, cached in _candidates(reference, request):
            try:
                snapshot = self._judge(repo_id, cached, reference, request, report)
            except SourceUnavailable as error:
                flaws.append(error)
                continue
            if snapshot.hub in (hub, None):
                return _used(snapshot, request)
            # The other hub's snapshot, shown in this hub's cache as well.
            shown_only = shown_only or snapshot
        if shown_only is not None:
            return _used(shown_only, request)
        raise flaws[0] if flaws else SourceUnavailable(_("not there"), "not_found")

    def _judge(
        self,
        repo_id: str,
        cached: CachedSnapshot,
        reference: RepoReference,
        request: PullRequest,
        report: Report,
    ) -> Snapshot:
        settings, include, exclude = request.settings, request.include, request.exclude
        record = read_record(settings, cached.path)
        if record is None:
            flaw = find_flaw(settings, cached, reference.kind, include, exclude)
            if flaw is not None:
                raise SourceUnavailable(flaw, "incomplete")
            size = folder_size(cached.path)
            return Snapshot(repo_id, reference.kind, self.name, cached.path, cached.revision, size)
        # Where the hub's listing is known, it alone says what belongs to the model: asking
        # the hub again could not give more.
        wanted = select_files(record.files, reference.kind, include, exclude)
        if not wanted:
            raise SourceUnavailable(_("no file matches the patterns"), "incomplete")
        missing = missing_from_listing(cached.path, wanted)
        if missing is not None:
            reason = _("the copy is incomplete: {file} is missing", file=missing)
            raise SourceUnavailable(reason, "incomplete")
        check_unchanged(record, wanted, request, report)
        return Snapshot(
            repo_id,
            reference.kind,
            self.name,
            cached.path,
            cached.revision,
            sum(file.size or 0 for file in wanted),
            record.hub,
            record.commit,
        )

    def _package(self, package_id: str, request: PullRequest) -> Snapshot:
        folder = converted_folder(request.settings, package_id)
        origin = read_origin(folder)
        if origin is None:
            raise SourceUnavailable(_("not there"), "not_found")
        return Snapshot(
            package_id, "model", self.name, folder, origin.get("version"), folder_size(folder)
        )


def check_unchanged(
    record: PullRecord, wanted: Sequence[RemoteFile], request: PullRequest, report: Report
) -> None:
    """See by their state that files are as they were verified; else read them anew.

    Raises
    ------
    SourceUnavailable
        For a file that is not what the hub listed any more.
    """
    changed = record.changed(wanted) if record.states else []
    if not changed:
        return
    total = sum(file.size or 0 for file in changed)
    done = 0

    def count(path: str, read: int) -> None:
        nonlocal done
        done += read
        report(PullProgress("cache", record.repo_id, done, total, path, "verifying"))

    mismatches = verify_files(record.path, changed, count)
    if mismatches:
        raise SourceUnavailable(
            _("{file} has been changed since it was pulled", file=mismatches[0].path), "corrupt"
        )
    if record.hub and record.commit:
        # Somebody copied or touched them; the next call need not read them again.
        listing = RepoListing(
            record.hub,
            record.repo_id,
            record.kind,  # type: ignore[arg-type]
            record.revision or "main",
            record.commit,
            record.files,
        )
        record_snapshot(request.settings, record.path, listing, record.source)


def _used(snapshot: Snapshot, request: PullRequest) -> Snapshot:
    touch_record(request.settings, snapshot.path)
    return snapshot


def _candidates(
    reference: RepoReference, request: PullRequest
) -> Iterator[tuple[Hub, str, CachedSnapshot]]:
    environment = read_environment(request.environ)
    kind, revision = reference.kind, reference.revision
    for hub in _hub_order(request.settings.hub):
        if hub == "modelscope" and (repo_id := reference.modelscope_id):
            cache = environment.modelscope_cache
            for snapshot in modelscope_snapshots(cache, repo_id, kind, revision):
                yield hub, repo_id, snapshot
        elif hub == "huggingface" and (repo_id := reference.huggingface_id):
            cache = environment.huggingface_cache
            for snapshot in huggingface_snapshots(cache, repo_id, kind, revision):
                yield hub, repo_id, snapshot


def _hub_order(first: str) -> tuple[Hub, Hub]:
    return (
        ("huggingface", "modelscope") if first == "huggingface" else ("modelscope", "huggingface")
    )
