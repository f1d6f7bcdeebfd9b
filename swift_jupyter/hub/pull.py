"""Pulling a repository: a chain of sources, the nearest first."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from swift_jupyter.errors import UserError, did_you_mean
from swift_jupyter.hub.listing import RemoteFile, select_files
from swift_jupyter.hub.progress import Report, ignore_progress
from swift_jupyter.hub.reference import RepoReference
from swift_jupyter.hub.snapshot import Snapshot
from swift_jupyter.hub.sources.base import PullRequest, Source, SourceUnavailable
from swift_jupyter.hub.sources.cache import CacheSource
from swift_jupyter.hub.sources.folder import FolderSource
from swift_jupyter.hub.sources.huggingface import HuggingFaceSource
from swift_jupyter.hub.sources.local_packages import LocalPackageSource
from swift_jupyter.hub.sources.modelscope import ModelScopeSource
from swift_jupyter.i18n import translate as _
from swift_jupyter.settings import Settings

SOURCES = ("auto", "modelscope", "huggingface", "cache", "local")
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
) -> Snapshot:
    """Get a complete, verified copy of a repository.

    Parameters
    ----------
    reference : RepoReference
        What to pull.
    settings : Settings
        The preferences in force; ``hub`` says which hub is asked first.
    source : {"auto", "modelscope", "huggingface", "cache", "local"}
        Where to look; ``auto`` asks all, the nearest first. A hub that is
        named is asked even when the cache has a copy.
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
    chain = list(sources) if sources is not None else source_chain(source, settings)
    request = PullRequest(
        settings,
        os.environ if environ is None else environ,
        tuple(include),
        tuple(exclude),
        local_dir.expanduser().absolute() if local_dir is not None else None,
    )
    troubles: list[tuple[str, SourceUnavailable]] = []
    for candidate in chain:
        if not candidate.offers(reference):
            continue
        try:
            snapshot = candidate.fetch(reference, request, report or ignore_progress)
        except SourceUnavailable as error:
            troubles.append((candidate.name, error))
            continue
        if request.local_dir is not None and isinstance(candidate, _ON_THIS_MACHINE):
            return _copy(snapshot, request, request.local_dir)
        return snapshot
    raise _nothing_found(reference, source, troubles)


def source_chain(source: str, settings: Settings) -> list[Source]:
    """Return the sources that the name `source` stands for, in order.

    Raises
    ------
    UserError
        For an unknown name.
    """
    folder, cache, local = FolderSource(), CacheSource(), LocalPackageSource()
    modelscope, huggingface = ModelScopeSource(), HuggingFaceSource()
    hubs: list[Source] = [modelscope, huggingface]
    if settings.hub == "huggingface":
        hubs.reverse()
    chains: dict[str, list[Source]] = {
        "auto": [folder, cache, local, *hubs],
        "modelscope": [folder, modelscope],
        "huggingface": [folder, huggingface],
        "cache": [folder, cache],
        "local": [folder, local],
    }
    if source not in chains:
        raise UserError(
            _("There is no source '{source}'.", source=source),
            did_you_mean(source, SOURCES)
            or _("It is one of {choices}.", choices=", ".join(SOURCES)),
        )
    return chains[source]


def _copy(snapshot: Snapshot, request: PullRequest, folder: Path) -> Snapshot:
    """Copy the wanted files of `snapshot`, links as what they point to."""
    if folder.resolve() == snapshot.path.resolve():
        return snapshot
    present = [
        RemoteFile(path.relative_to(snapshot.path).as_posix(), path.stat().st_size)
        for path in sorted(snapshot.path.rglob("*"))
        if path.is_file()
    ]
    chosen = select_files(present, snapshot.kind, request.include, request.exclude)
    try:
        for file in chosen:
            target = folder / file.path
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(snapshot.path / file.path, target)
    except OSError as error:
        raise UserError(
            _("The files cannot be copied to {folder}.", folder=folder), str(error)
        ) from None
    return replace(snapshot, path=folder, size_bytes=sum(file.size or 0 for file in chosen))


def _nothing_found(
    reference: RepoReference, source: str, troubles: Sequence[tuple[str, SourceUnavailable]]
) -> UserError:
    what = _("'{name}' could not be pulled.", name=reference.name)
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
