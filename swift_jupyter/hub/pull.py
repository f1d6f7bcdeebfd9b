"""Pulling a repository: a chain of sources, the nearest first."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from swift_jupyter.errors import UserError
from swift_jupyter.hub.lock_file import LockEntry
from swift_jupyter.hub.pairing import with_paired_ids
from swift_jupyter.hub.progress import PullProgress, Report, ignore_progress
from swift_jupyter.hub.reference import RepoReference
from swift_jupyter.hub.snapshot import Snapshot
from swift_jupyter.hub.sources.base import PullRequest, Source, SourceUnavailable
from swift_jupyter.hub.sources.cache import CacheSource
from swift_jupyter.hub.sources.folder import FolderSource
from swift_jupyter.hub.sources.hubs import NETWORK_SOURCES, HubSource
from swift_jupyter.hub.sources.local_dir import LocalDirSource, copy_into
from swift_jupyter.hub.sources.local_packages import LocalPackageSource
from swift_jupyter.i18n import translate as _
from swift_jupyter.settings import Settings

SOURCES = ("auto", *NETWORK_SOURCES, "cache", "local")
# They hand out folders of this machine, so that a wanted folder means a copy.
_ON_THIS_MACHINE = (FolderSource, CacheSource, LocalPackageSource)


def pull(
    reference: RepoReference,
    settings: Settings,
    *,
    source: str = "auto",
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    local_dir: Path | None = None,
    report: Report | None = None,
    sources: Sequence[Source] | None = None,
    environ: Mapping[str, str] | None = None,
    max_connections: int | None = None,
    locked: LockEntry | None = None,
) -> Snapshot:
    """Get a complete, verified copy of a repository.

    Parameters
    ----------
    reference : RepoReference
        What to pull.
    settings : Settings
        The preferences in force; ``hub`` says which hub is asked first.
    source : str
        Where to look: ``auto`` asks all, the nearest first; ``modelscope``,
        ``huggingface``, ``node``, ``cache`` or ``local`` (packages); or the
        name or address of a mirror. A hub, node or mirror that is named is
        asked even when the cache has a copy, and only what changed is fetched.
    include, exclude : sequence of str
        Glob patterns of repository paths.
    local_dir : Path, optional
        A folder that shall hold the files instead of the cache.
    report : callable, optional
        Takes a `PullProgress` now and then.
    sources : sequence of Source, optional
        The chain itself, instead of the one that `source` stands for.
    environ : mapping, optional
        Environment variables; the process's own when left out.
    max_connections : int, optional
        How many connections are used at once; by default as in `settings`.
    locked : LockEntry, optional
        The exact files that are wanted, whoever has them. Patterns and the
        reference's revision are not regarded then.

    Returns
    -------
    Snapshot
        Where the files are.

    Raises
    ------
    UserError
        When no source can give it; it says what each one answered.
    KeyboardInterrupt
        When interrupted. What has arrived stays; the same call goes on.
    """
    environ = os.environ if environ is None else environ
    reference = with_paired_ids(reference)
    request = PullRequest(
        settings,
        environ,
        tuple(include),
        tuple(exclude),
        local_dir.expanduser().absolute() if local_dir is not None else None,
        max(1, max_connections or settings.max_connections),
        locked,
    )
    chain = list(sources) if sources is not None else source_chain(source, settings, environ)
    if locked is not None:
        # Only the hubs' source knows every byte; it looks at this machine first.
        chain = [candidate for candidate in chain if isinstance(candidate, HubSource)]
        chain = chain or [HubSource()]
    elif request.local_dir is not None and source == "auto" and sources is None:
        chain.insert(0, LocalDirSource())
    return _first_of(chain, reference, request, source, report or ignore_progress)


def source_chain(
    source: str, settings: Settings, environ: Mapping[str, str] | None = None
) -> list[Source]:
    """Return the sources that the name `source` stands for, in order.

    Raises
    ------
    UserError
        For an unknown name.
    """
    folder, cache, local = FolderSource(), CacheSource(), LocalPackageSource()
    chains: dict[str, list[Source]] = {
        "auto": [folder, cache, local, HubSource()],
        "cache": [folder, cache],
        "local": [folder, local],
    }
    if source in chains:
        return chains[source]
    named = HubSource(source)
    if source not in NETWORK_SOURCES:
        named.endpoints(settings, os.environ if environ is None else environ)
    return [folder, named]


def _first_of(
    chain: Sequence[Source],
    reference: RepoReference,
    request: PullRequest,
    source: str,
    report: Report,
) -> Snapshot:
    troubles: list[tuple[str, SourceUnavailable]] = []
    for candidate in chain:
        if not candidate.offers(reference):
            continue
        try:
            snapshot = candidate.fetch(reference, request, report)
        except SourceUnavailable as error:
            troubles += error.answers or ((candidate.name, error),)
            continue
        if request.local_dir is not None and isinstance(candidate, _ON_THIS_MACHINE):
            snapshot = copy_into(snapshot, request, request.local_dir)
        if snapshot.notices:
            report(
                PullProgress(
                    snapshot.source,
                    snapshot.repo_id,
                    snapshot.size_bytes,
                    snapshot.size_bytes,
                    notices=snapshot.notices,
                )
            )
        return snapshot
    raise _nothing_found(reference, source, troubles, request.locked)


def _nothing_found(
    reference: RepoReference,
    source: str,
    troubles: Sequence[tuple[str, SourceUnavailable]],
    locked: LockEntry | None,
) -> UserError:
    what = _("'{name}' could not be pulled.", name=reference.name)
    if locked is not None:
        what = _("'{name}' could not be pulled as it is locked.", name=reference.name)
    if not troubles:
        return UserError(
            what,
            _("The source '{source}' does not offer it.", source=source),
            _("Try it with --source auto."),
        )
    shown = [
        (name, error)
        for name, error in troubles
        # That the cache lacks it is no news once a hub was asked.
        if name != "cache" or error.trouble != "not_found" or len(troubles) == 1
    ]
    why = "; ".join(f"{name}: {error.reason}" for name, error in shown)
    return UserError(
        what, why, _next_step(reference, source, {error.trouble for _n, error in shown})
    )


def _next_step(reference: RepoReference, source: str, troubles: set[str]) -> str:
    if reference.package_id is not None:
        return _('Type %pip install "swift_jupyter[demo]" and try again.')
    if "changed" in troubles:
        return _("Download without the lock to take what is there now; that renews the lock.")
    if troubles <= {"not_found", "incomplete"} and source == "cache":
        return _("Try it with --source auto.")
    if troubles == {"not_found"}:
        return _("Type %swift models <query> to search for the right name.")
    if "denied" in troubles:
        return _("Set the token in the environment, or ask its owner for access.")
    if troubles & {"unreachable", "offline"}:
        return _(
            "Check the network, or set MODELSCOPE_ENDPOINT or HF_ENDPOINT to a mirror"
            " that you can reach."
        )
    return _("Try again; what has arrived is kept.")
