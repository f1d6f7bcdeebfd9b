"""The job of a download run: pull one repository after the other, and stop when asked."""

from __future__ import annotations

import contextlib
import dataclasses
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from swift_jupyter.errors import UserError
from swift_jupyter.hub.download_progress import DownloadProgress, RepoProgress
from swift_jupyter.hub.lock_file import LOCK_FILE, LockEntry, read_lock, update_lock
from swift_jupyter.hub.progress import PullProgress
from swift_jupyter.hub.pull import pull
from swift_jupyter.hub.reference import RepoReference
from swift_jupyter.hub.snapshot import Snapshot
from swift_jupyter.i18n import translate as _
from swift_jupyter.settings import Settings

_STOP_POLL_SECONDS = 0.2


class DownloadReporter(Protocol):
    """What the job tells, and learns that it should stop."""

    def notice(self, text: str) -> None:
        """Say something that the user should know later, too."""

    def progress(self, state: Mapping[str, Any], *, last: bool = False) -> None:
        """Replace what is known of the progress; called often, throttles itself."""

    def should_stop(self) -> bool:
        """Tell whether the job should stop."""


@dataclasses.dataclass(frozen=True)
class DownloadJob:
    """What a download run is asked to do; holds no token.

    Parameters
    ----------
    references : tuple of RepoReference
        What to pull.
    source : str
        As in `swift_jupyter.hub.pull.pull`.
    include, exclude : tuple of str
        Glob patterns of repository paths.
    local_dirs : tuple of str
        A folder for each of the references; empty for the cache.
    max_connections : int
        Connections at most.
    lock : str
        A lock file: what it names comes exactly as it was, what it lacks is added
        to it. Empty for none.
    """

    references: tuple[RepoReference, ...]
    source: str = "auto"
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    local_dirs: tuple[str, ...] = ()
    max_connections: int = 16
    lock: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return it as plain JSON values, the same for the same job."""
        values = dataclasses.asdict(self)
        for reference in values["references"]:
            path = reference["local_path"]
            reference["local_path"] = None if path is None else str(path)
        return {
            name: list(item) if isinstance(item, tuple) else item for name, item in values.items()
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> DownloadJob:
        """Build it from JSON values."""
        known = {spec.name for spec in dataclasses.fields(cls)}
        values: dict[str, Any] = {
            name: tuple(item) if isinstance(item, list) else item
            for name, item in value.items()
            if name in known
        }
        values["references"] = tuple(_reference(item) for item in value["references"])
        return cls(**values)


def _reference(value: Mapping[str, Any]) -> RepoReference:
    path = value.get("local_path")
    return RepoReference(**{**value, "local_path": Path(path) if path else None})


def download(
    options: dict[str, Any], folder: Path, settings: Settings, reporter: DownloadReporter
) -> dict[str, Any]:
    """Pull every repository of a `DownloadJob`.

    Parameters
    ----------
    options : dict
        A `DownloadJob` as JSON.
    folder : Path
        The run's folder; gets a lock file of what was pulled.
    settings : Settings
        The preferences in force.
    reporter : DownloadReporter
        Is told how far it is.

    Returns
    -------
    dict
        ``snapshots``: one for each repository that is there; ``stopped`` when asked to.

    Raises
    ------
    UserError
        When a repository could not be pulled; the others are there nevertheless.
    """
    job = DownloadJob.from_json(options)
    locked = _locked(job)
    tracker = _Tracker(job.references, reporter)
    snapshots: list[Snapshot] = []
    fresh: list[Snapshot] = []
    failures: list[tuple[str, UserError]] = []
    try:
        with _interrupted_when(reporter.should_stop):
            for number, reference in enumerate(job.references):
                tracker.begin(number)
                try:
                    entry = locked.get(number)
                    snapshot = _pull_one(job, number, entry, settings, tracker.report)
                except UserError as error:
                    tracker.failed(error)
                    failures.append((reference.name, error))
                    continue
                tracker.done(snapshot)
                snapshots.append(snapshot)
                if entry is None:
                    fresh.append(snapshot)
    except KeyboardInterrupt:
        tracker.stopped()
        return {"stopped": True, "snapshots": [snapshot.to_dict() for snapshot in snapshots]}
    _write_locks(job, folder, snapshots, fresh, settings)
    if failures:
        raise _failure(failures, len(job.references))
    return {"snapshots": [snapshot.to_dict() for snapshot in snapshots]}


def _locked(job: DownloadJob) -> dict[int, LockEntry]:
    """Return what the lock file says of the references, by their number."""
    if not job.lock or not Path(job.lock).exists():
        return {}
    found: dict[int, LockEntry] = {}
    for entry in read_lock(Path(job.lock)):
        for number, reference in enumerate(job.references):
            ids = (reference.name, reference.modelscope_id, reference.huggingface_id)
            if reference.kind == entry.kind and entry.repo_id in ids:
                # Both hubs may be locked under one id; the reference names the hub then.
                named = {"modelscope": ids[1], "huggingface": ids[2]}[entry.hub]
                if number not in found or named == entry.repo_id:
                    found[number] = entry
    return found


def _pull_one(
    job: DownloadJob,
    number: int,
    locked: LockEntry | None,
    settings: Settings,
    report: Callable[[PullProgress], None],
) -> Snapshot:
    local_dir = job.local_dirs[number] if job.local_dirs else ""
    return pull(
        job.references[number],
        settings,
        source=job.source,
        include=job.include,
        exclude=job.exclude,
        local_dir=Path(local_dir) if local_dir else None,
        report=report,
        max_connections=job.max_connections,
        locked=locked,
    )


def _write_locks(
    job: DownloadJob,
    folder: Path,
    snapshots: Sequence[Snapshot],
    fresh: Sequence[Snapshot],
    settings: Settings,
) -> None:
    """Write what was pulled into the run's own lock file, and what is new into the user's."""
    for snapshot in snapshots:
        # What comes from a package or a folder has no commit that could be locked.
        with contextlib.suppress(UserError):
            update_lock(folder / LOCK_FILE, [snapshot], settings)
    if job.lock and fresh:
        update_lock(Path(job.lock), fresh, settings)


class _Tracker:
    """Turns the reports of one pull after the other into the state of the whole."""

    def __init__(self, references: Sequence[RepoReference], reporter: DownloadReporter) -> None:
        self._reporter = reporter
        self._repos = [RepoProgress(reference.name) for reference in references]
        self._number = 0
        self._pull: PullProgress | None = None
        self._notices: list[str] = []
        self._noticed = 0
        self._started = time.monotonic()

    def begin(self, number: int) -> None:
        self._number, self._pull, self._noticed = number, None, 0
        self._change(state="downloading")
        self._tell(last=True)

    def report(self, progress: PullProgress) -> None:
        self._pull = progress
        for text in progress.notices[self._noticed :]:
            self._notices.append(text)
            self._reporter.notice(text)
        self._noticed = max(self._noticed, len(progress.notices))
        if progress.phase in ("downloading", "converting"):
            self._change(
                done_bytes=progress.done_bytes,
                total_bytes=progress.total_bytes,
                source=progress.source,
            )
        self._tell()

    def done(self, snapshot: Snapshot) -> None:
        size = snapshot.size_bytes
        self._change(
            state="done",
            done_bytes=size,
            total_bytes=size,
            source=snapshot.source,
            path=str(snapshot.path),
        )
        self._tell(last=True)

    def failed(self, error: UserError) -> None:
        self._change(state="failed", reason=str(error))
        self._tell(last=True)

    def stopped(self) -> None:
        if self._repos[self._number].state == "downloading":
            self._change(state="stopped")
        self._tell(last=True)

    def _change(self, **values: Any) -> None:
        repo = self._repos[self._number]
        self._repos[self._number] = dataclasses.replace(repo, **values)

    def _tell(self, last: bool = False) -> None:
        seconds = time.monotonic() - self._started
        state = DownloadProgress(tuple(self._repos), self._pull, tuple(self._notices), seconds)
        self._reporter.progress(state.to_json(), last=last)


@contextlib.contextmanager
def _interrupted_when(wanted: Callable[[], bool]) -> Iterator[None]:
    """Raise `KeyboardInterrupt` in the block, once, as soon as `wanted()` is true.

    A pull may be waiting for a server for a long time, so it is interrupted as a person
    would do it, instead of being asked between two reports.
    """
    if threading.current_thread() is not threading.main_thread():
        yield  # Only the main thread can be interrupted.
        return
    ended = threading.Event()

    def interrupt(_number: int, _frame: object) -> None:
        if not ended.is_set():
            ended.set()
            raise KeyboardInterrupt

    def watch() -> None:
        while not ended.wait(_STOP_POLL_SECONDS):
            if wanted():
                _interrupt_main_thread()
                return

    before = signal.signal(signal.SIGINT, interrupt)
    threading.Thread(target=watch, daemon=True).start()
    try:
        yield
    finally:
        ended.set()
        signal.signal(signal.SIGINT, before or signal.default_int_handler)


def _interrupt_main_thread() -> None:
    if sys.platform == "win32":
        signal.raise_signal(signal.SIGINT)
    else:
        main = threading.main_thread().ident
        assert main is not None
        signal.pthread_kill(main, signal.SIGINT)


def _failure(failures: Sequence[tuple[str, UserError]], count: int) -> UserError:
    name, error = failures[0]
    if len(failures) == 1 and count == 1:
        return error
    if len(failures) == 1:
        return UserError(
            error.what,
            error.why,
            error.next_step
            or _("The others are there; the same command tries '{name}' again.", name=name),
        )
    return UserError(
        _(
            "{failed} of {count} could not be pulled: {names}.",
            failed=len(failures),
            count=count,
            names=", ".join(name for name, _error in failures),
        ),
        "; ".join(_one_line(error) for _name, error in failures),
        error.next_step,
    )


def _one_line(error: UserError) -> str:
    return (error.why or error.what).replace("\n", " ")
