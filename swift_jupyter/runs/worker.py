"""The worker process: does the work of the run whose folder is its argument."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import platform
import signal
import sys
import time
import traceback
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from swift_jupyter.errors import UserError
from swift_jupyter.files import is_disk_full, write_json_atomically
from swift_jupyter.i18n import translate as _
from swift_jupyter.journal import append_row
from swift_jupyter.runs.folder import RunFolder
from swift_jupyter.runs.index import RunIndex
from swift_jupyter.runs.jobs import load_job
from swift_jupyter.runs.process import identify
from swift_jupyter.runs.record import State
from swift_jupyter.settings import with_secrets

_PHASE_INTERVAL = 0.2
_PROGRESS_INTERVAL = 0.5
_RESERVE_BYTES = 64 * 1024
_REFUSED = 3
_MEMORY_MESSAGES = ("out of memory", "allocate memory")
_VERSIONED = ("swift_jupyter", "torch", "transformers", "peft", "accelerate", "datasets")


class FolderReporter:
    """Writes what a job reports into the run's folder.

    A disk that is full for a while must not end a training, so nothing here raises.

    Parameters
    ----------
    folder : RunFolder
        The run's files. Only this process writes `events.jsonl`.
    """

    def __init__(self, folder: RunFolder) -> None:
        self._folder = folder
        self._signalled = False
        self._phase = ""
        self._phase_time = 0.0
        self._unwritten: list[dict[str, Any]] = []
        self._progress_time = float("-inf")

    def stop_on_signal(self, _number: int, _frame: object) -> None:
        """Signal handler: SIGTERM asks for the same as the stop file."""
        self._signalled = True

    def phase(self, text: str, done: int | None = None, total: int | None = None) -> None:
        """Append a phase; progress within one phase at most five times a second."""
        now = time.monotonic()
        finished = done is not None and done == total
        if text == self._phase and now - self._phase_time < _PHASE_INTERVAL and not finished:
            return
        self._phase, self._phase_time = text, now
        self._tell("phase", text=text, done=done, total=total)

    def notice(self, text: str) -> None:
        """Append a notice and print it into the log."""
        print(text, flush=True)
        self._tell("notice", text=text)

    def metrics(self, row: dict[str, Any]) -> None:
        """Append a row to `logging.jsonl`, with those that could not be written before."""
        self._unwritten.append(row)
        with contextlib.suppress(OSError):
            while self._unwritten:
                append_row(self._folder.metrics_file, self._unwritten[0])
                del self._unwritten[0]

    def progress(self, state: Mapping[str, Any], *, last: bool = False) -> None:
        """Replace `progress.json`, at most twice a second; the last state always."""
        now = time.monotonic()
        if not last and now - self._progress_time < _PROGRESS_INTERVAL:
            return
        self._progress_time = now
        with contextlib.suppress(OSError):
            write_json_atomically(self._folder.progress_file, dict(state), durable=False)

    def checkpoint(self, path: Path, step: int) -> None:
        """Append a checkpoint."""
        self._tell("checkpoint", path=path.name, step=step)

    def _tell(self, kind: str, **values: Any) -> None:
        with contextlib.suppress(OSError):
            self._folder.append_event(kind, **values)

    def should_stop(self) -> bool:
        """Tell whether a signal or the stop file asked for a stop."""
        return self._signalled or self._folder.stop_requested()


def work(folder: RunFolder) -> int:
    """Do the work of a run and keep its record; return the exit code."""
    from filelock import FileLock, Timeout

    folder.lock_file.parent.mkdir(exist_ok=True)
    try:
        with FileLock(folder.lock_file, timeout=0):
            return _work_alone(folder)
    except Timeout:
        print("another worker has this folder", file=sys.stderr)
        return _REFUSED


def _work_alone(folder: RunFolder) -> int:
    record = folder.read()
    if record.state is not State.QUEUED:
        # It was killed before this process had begun, or another worker was quicker.
        print(f"the run is {record.state.value}, not queued", file=sys.stderr)
        return _REFUSED
    record = dataclasses.replace(
        record,
        state=State.STARTING,
        worker=identify(),
        started=time.time(),
        versions=_versions(),
    )
    folder.write(record)
    with contextlib.suppress(OSError):
        # Random bytes, since file systems that compress would keep no room for zeros.
        folder.reserve_file.write_bytes(os.urandom(_RESERVE_BYTES))
    reporter = FolderReporter(folder)
    signal.signal(signal.SIGTERM, reporter.stop_on_signal)
    signal.signal(signal.SIGINT, reporter.stop_on_signal)
    state, reason = _run_job(folder, reporter)
    folder.write_end(
        dataclasses.replace(folder.read(), state=state, reason=reason, finished=time.time())
    )
    folder.reserve_file.unlink(missing_ok=True)
    RunIndex(record.read_settings()).finish(record.id)
    return 1 if state is State.FAILED else 0


def _run_job(folder: RunFolder, reporter: FolderReporter) -> tuple[State, str]:
    record = folder.read()
    try:
        job = load_job(record.command)
        folder.write(dataclasses.replace(record, state=State.RUNNING))
        settings = with_secrets(record.read_settings())
        result = job(record.options, folder.path, settings, reporter)
        write_json_atomically(folder.result_file, result)
    except UserError as error:
        print(error, file=sys.stderr, flush=True)
        return State.FAILED, str(error)
    except Exception as error:
        traceback.print_exc()
        return State.FAILED, explain(error, folder.path)
    if result.get("stopped"):
        return State.STOPPED, _("asked to stop")
    return State.DONE, ""


def explain(error: BaseException, folder: Path) -> str:
    """Return what a user should read of an unexpected error: one to three lines.

    Parameters
    ----------
    error : BaseException
        What was raised.
    folder : Path
        The run's folder.
    """
    text = f"{type(error).__name__}: {error}".strip().splitlines()[0]
    if isinstance(error, MemoryError) or any(m in text.lower() for m in _MEMORY_MESSAGES):
        return "\n".join(
            [
                _("The memory was not enough."),
                text,
                _("Try a smaller --per_device_train_batch_size or --max_length."),
            ]
        )
    if is_disk_full(error, folder):
        return "\n".join(
            [
                _("The disk is full."),
                text,
                _("Free some space (%swift cache), then resume the run."),
            ]
        )
    return "\n".join([text, _("The whole traceback is in the run's worker.log.")])


def _versions() -> dict[str, str]:
    """Return the versions that matter, read without importing anything."""
    versions = {"python": platform.python_version()}
    for name in _VERSIONED:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return versions


def main() -> None:
    """Entry point of the worker process."""
    code = work(RunFolder(Path(sys.argv[1])))
    sys.stdout.flush()
    sys.stderr.flush()
    # Threads of the libraries must not keep a finished worker alive.
    os._exit(code)
