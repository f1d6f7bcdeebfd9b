"""Snapshots that are on this machine already. No network, no heavy import, milliseconds."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from swift_jupyter.hub.endpoints import read_environment
from swift_jupyter.hub.flaws import find_flaw
from swift_jupyter.hub.layouts import (
    CachedSnapshot,
    huggingface_snapshots,
    modelscope_snapshots,
)
from swift_jupyter.hub.packages import KNOWN_PACKAGES, converted_folder, read_origin
from swift_jupyter.hub.progress import Report
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
        flaws = []
        for repo_id, snapshot in _candidates(reference, request):
            flaw = find_flaw(
                request.settings, snapshot, reference.kind, request.include, request.exclude
            )
            if flaw is None:
                size = folder_size(snapshot.path)
                return Snapshot(
                    repo_id, reference.kind, self.name, snapshot.path, snapshot.revision, size
                )
            flaws.append(flaw)
        if flaws:
            raise SourceUnavailable(flaws[0], "incomplete")
        raise SourceUnavailable(_("not there"), "not_found")

    def _package(self, package_id: str, request: PullRequest) -> Snapshot:
        folder = converted_folder(request.settings, package_id)
        origin = read_origin(folder)
        if origin is None:
            raise SourceUnavailable(_("not there"), "not_found")
        return Snapshot(
            package_id, "model", self.name, folder, origin.get("version"), folder_size(folder)
        )


def _candidates(
    reference: RepoReference, request: PullRequest
) -> Iterator[tuple[str, CachedSnapshot]]:
    environment = read_environment(request.environ)
    for hub in _hub_order(request.settings.hub):
        if hub == "modelscope" and reference.modelscope_id:
            for snapshot in modelscope_snapshots(
                environment.modelscope_cache,
                reference.modelscope_id,
                reference.kind,
                reference.revision,
            ):
                yield reference.modelscope_id, snapshot
        elif hub == "huggingface" and reference.huggingface_id:
            for snapshot in huggingface_snapshots(
                environment.huggingface_cache,
                reference.huggingface_id,
                reference.kind,
                reference.revision,
            ):
                yield reference.huggingface_id, snapshot


def _hub_order(first: str) -> tuple[str, str]:
    return (
        ("huggingface", "modelscope") if first == "huggingface" else ("modelscope", "huggingface")
    )
