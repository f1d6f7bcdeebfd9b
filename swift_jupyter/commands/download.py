"""``download``: bring models or data sets to this machine."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from swift_jupyter.commands.context import Context
from swift_jupyter.commands.download_run import summary
from swift_jupyter.commands.following import follow
from swift_jupyter.commands.pulling import pull_with_progress
from swift_jupyter.commands.results import Result
from swift_jupyter.engine.models.catalogue import resolve
from swift_jupyter.errors import OptionError, UserError
from swift_jupyter.hub.download_job import DownloadJob
from swift_jupyter.hub.lock_file import read_lock
from swift_jupyter.hub.pull import source_chain
from swift_jupyter.hub.reference import RepoReference
from swift_jupyter.hub.snapshot import Snapshot
from swift_jupyter.hub.sources.base import Source
from swift_jupyter.hub.sources.cache import CacheSource
from swift_jupyter.hub.sources.folder import FolderSource
from swift_jupyter.hub.sources.local_dir import LocalDirSource
from swift_jupyter.hub.sources.local_packages import LocalPackageSource
from swift_jupyter.i18n import translate as _
from swift_jupyter.options import option
from swift_jupyter.runs.index import RunIndex
from swift_jupyter.runs.launch import launch
from swift_jupyter.runs.record import State
from swift_jupyter.runs.run import Run
from swift_jupyter.settings import Settings, parse_setting

_LOCAL_SOURCES = ("cache", "local")


@dataclass(frozen=True, kw_only=True)
class DownloadOptions:
    """The options of ``download``."""

    names: list[str] = option(
        [],
        help="Ids of models, short names, or with --dataset ids of data sets.",
        completer="model",
        positional=True,
        aliases=("model",),
    )
    dataset: bool = option(False, help="The names are those of data sets.")
    revision: str | None = option(None, help="The branch, tag or commit.")
    source: str = option(
        "auto",
        help="Where to look: auto (this machine, nodes, then both hubs), modelscope, huggingface, "
        "node, cache, local, or the name or address of a mirror.",
        completer="source",
    )
    use_hf: bool = option(False, help="Ask Hugging Face before ModelScope.")
    include: list[str] = option([], help="Only files that fit one of these patterns.")
    exclude: list[str] = option([], help="No files that fit one of these patterns.")
    local_dir: str = option(
        "", help="A folder for the files instead of the cache.", completer="path"
    )
    max_connections: int | None = option(
        None, help="Connections at most; by default what the settings say, which is 16."
    )
    lock: str = option(
        "",
        help="A lock file: what it names comes exactly as it was, what it lacks is added to it.",
        completer="path",
    )
    background: bool = option(
        False, help="Return at once; the download goes on as a run of its own."
    )


def run(options: DownloadOptions, context: Context) -> Result:
    """Pull every name and say where it is.

    What is on this machine is answered at once. Everything else is pulled by a process of
    its own, which outlives the kernel; the cell watches it.

    Raises
    ------
    UserError
        When a name is unknown or no source has it.
    Interrupted
        When it was interrupted; what has arrived is kept.
    """
    settings = _settings(options, context)
    job = _job(options, settings)
    if not job.lock and options.source in ("auto", *_LOCAL_SOURCES):
        snapshots = _all_here(job, context, settings)
        if snapshots is not None:
            return summary(snapshots)
    return follow(_running(job, context) or _launch(job, settings), context, options.background)


def _settings(options: DownloadOptions, context: Context) -> Settings:
    settings = context.settings_for(options.use_hf)
    if options.max_connections is None:
        return settings
    count = parse_setting("max_connections", options.max_connections)
    return dataclasses.replace(settings, max_connections=count)


def _job(options: DownloadOptions, settings: Settings) -> DownloadJob:
    """Find in a moment what is wrong with the options, and return what is to be done.

    Raises
    ------
    UserError
        When a name, the source or the lock file is not one.
    """
    source_chain(options.source, settings)
    lock = str(Path(options.lock).expanduser().absolute()) if options.lock else ""
    references = tuple(_reference(name, options) for name in dict.fromkeys(options.names))
    if lock and (not references or Path(lock).exists()):
        entries = read_lock(Path(lock))
        references = references or tuple(entry.reference for entry in entries)
    if not references:
        raise OptionError(
            _("download needs a name."),
            next_step=_("For example: %swift download smollm2-demo"),
        )
    return DownloadJob(
        references,
        options.source,
        tuple(options.include),
        tuple(options.exclude),
        _local_dirs(options.local_dir, references),
        settings.max_connections,
        lock,
    )


def _local_dirs(local_dir: str, references: Sequence[RepoReference]) -> tuple[str, ...]:
    """Return a folder for each repository: below `local_dir` when there are several."""
    if not local_dir:
        return ()
    folder = Path(local_dir).expanduser().absolute()
    if len(references) == 1:
        return (str(folder),)
    names = [Path(reference.name).name for reference in references]
    if len(set(names)) < len(names):  # Two owners may use one name.
        names = [reference.name.replace("/", "--") for reference in references]
    return tuple(str(folder / name) for name in names)


def _reference(name: str, options: DownloadOptions) -> RepoReference:
    if not options.dataset:
        return resolve(name, options.revision)
    if name.count("/") != 1:
        raise UserError(
            _("'{name}' is not the id of a data set.", name=name),
            next_step=_("Give owner/name, for example: swift/self-cognition"),
        )
    return RepoReference.of_hub(name, "dataset", options.revision)


def _all_here(job: DownloadJob, context: Context, settings: Settings) -> list[Snapshot] | None:
    """Return all repositories when none of them needs a network, else None.

    Raises
    ------
    UserError
        When this machine is the only source that was asked for, and lacks one.
    """
    snapshots: list[Snapshot] = []
    for number in range(len(job.references)):
        try:
            snapshots.append(_pull_here(job, number, context, settings))
        except UserError:
            if job.source in _LOCAL_SOURCES:
                raise
            return None  # What is wrong here, if anything, is said by the run, which asks all.
    return snapshots


def _pull_here(job: DownloadJob, number: int, context: Context, settings: Settings) -> Snapshot:
    local_dir = Path(job.local_dirs[number]) if job.local_dirs else None
    sources: list[Source] | None = None
    if job.source == "auto":
        sources = [FolderSource(), CacheSource(), LocalPackageSource()]
        if local_dir is not None:
            sources.insert(0, LocalDirSource())
    return pull_with_progress(
        job.references[number],
        context.frontend,
        settings,
        source=job.source,
        include=job.include,
        exclude=job.exclude,
        local_dir=local_dir,
        sources=sources,
    )


def _running(job: DownloadJob, context: Context) -> Run | None:
    """Return a run that is at work on the very same, which is then watched instead."""
    wanted = job.to_json()
    for run in RunIndex(context.settings).active():
        record = run.record()
        if record.command != "download" or record.options != wanted:
            continue
        if run.state in (State.QUEUED, State.STARTING, State.RUNNING):
            context.frontend.notice(
                _("{id} is at work on this already; this cell watches it.", id=run.id)
            )
            return run
    return None


def _launch(job: DownloadJob, settings: Settings) -> Run:
    return launch(
        "download",
        job.to_json(),
        settings.state_path / "downloads",
        settings,
        title=", ".join(reference.name for reference in job.references),
    )
