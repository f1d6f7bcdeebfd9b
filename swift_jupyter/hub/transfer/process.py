"""The parent's side: start a transfer process, follow it, end it."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any

from swift_jupyter.errors import UserError
from swift_jupyter.hub.progress import FileProgress, PullProgress, Report
from swift_jupyter.hub.sources.base import SourceUnavailable
from swift_jupyter.i18n import translate as _

PACKAGE_ROOT = Path(__file__).resolve().parents[3]
START_SECONDS = 180.0
STOP_SECONDS = 5.0
_POLL_SECONDS = 0.25
_TAIL = 2000
# What they say is in the job already, and the job's process asks nobody else.
_DROPPED_VARIABLES = (
    "MODELSCOPE_API_TOKEN",
    "HF_TOKEN",
    "HUGGING_FACE_HUB_TOKEN",
    "SWIFT_JUPYTER_MODELSCOPE_TOKEN",
    "SWIFT_JUPYTER_HUGGINGFACE_TOKEN",
    "SWIFT_JUPYTER_NODE_TOKEN",
)

Event = dict[str, Any]


def run_job(
    job: Mapping[str, Any],
    environ: Mapping[str, str],
    on_progress: Callable[[Event], None],
    quiet_seconds: float | None = None,
) -> Event:
    """Run one job in a process of its own.

    Parameters
    ----------
    job : mapping
        The job; JSON values only. It goes through a pipe, so that tokens in
        it are not seen in the list of processes.
    environ : mapping
        Environment of the process.
    on_progress : callable
        Takes each progress event.
    quiet_seconds : float, optional
        The time that the work may take before its first sign of progress
        beyond listing.

    Returns
    -------
    dict
        The final event of the job.

    Raises
    ------
    SourceUnavailable
        When the job failed.
    UserError
        When nothing else could do better, such as a full disk.
    KeyboardInterrupt
        After the process was ended; what it finished stays on the disk.
    """
    with tempfile.TemporaryFile() as log, _process(environ, log) as process:
        assert process.stdin is not None
        process.stdin.write(json.dumps(dict(job)) + "\n")
        process.stdin.flush()
        for event in _events(process, quiet_seconds):
            if event["event"] == "progress":
                on_progress(event)
            elif event["event"] == "done":
                return event
            elif event["event"] == "failed":
                raise _failure(event)
            elif event["event"] == "refused":
                raise UserError(event["what"], event["why"], event["next_step"])
        process.wait()
        raise SourceUnavailable(
            _("its process ended unexpectedly: {log}", log=_last_line(log) or process.returncode)
        )


def relay(report: Report, source: str, repo_id: str) -> Callable[[Event], None]:
    """Return a function that turns progress events into reports."""

    def forward(event: Event) -> None:
        report(
            PullProgress(
                event.get("source") or source,
                repo_id,
                event["done"],
                event["total"],
                event["file"],
                event["phase"],
                event.get("bytes_per_second"),
                event.get("seconds_left"),
                event.get("finished_files", 0),
                event.get("total_files"),
                tuple(FileProgress(**file) for file in event.get("files", ())),
                tuple(event.get("notices", ())),
            )
        )

    return forward


@contextlib.contextmanager
def _process(environ: Mapping[str, str], log: IO[bytes]) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-m", "swift_jupyter.hub.transfer.child"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=log,
        env=_child_environment(environ),
        # Python looks for modules there first, and the user's folder may have a json.py.
        cwd=PACKAGE_ROOT,
        text=True,
        encoding="utf-8",
        # An interrupt is for the parent, which ends the process in order.
        start_new_session=True,
    )
    try:
        yield process
    finally:
        _end(process)


def _child_environment(environ: Mapping[str, str]) -> dict[str, str]:
    result = {name: value for name, value in environ.items() if name not in _DROPPED_VARIABLES}
    inherited = [part for part in environ.get("PYTHONPATH", "").split(os.pathsep) if part]
    folders = [PACKAGE_ROOT, *(Path(part).absolute() for part in inherited)]
    result["PYTHONPATH"] = os.pathsep.join(map(str, folders))
    # Bars would only fill the log.
    result.update(TQDM_DISABLE="1", PYTHONUNBUFFERED="1")
    return result


def _events(process: subprocess.Popen[str], quiet_seconds: float | None) -> Iterator[Event]:
    lines: queue.Queue[str | None] = queue.Queue()
    threading.Thread(target=_read_lines, args=(process, lines), daemon=True).start()
    deadline: float | None = time.monotonic() + START_SECONDS
    while True:
        try:
            line = lines.get(timeout=_POLL_SECONDS)
        except queue.Empty:
            if deadline is not None and time.monotonic() > deadline:
                raise SourceUnavailable(_("it did not answer in time"), "unreachable") from None
            continue
        if line is None:
            return
        event = json.loads(line)
        if event["event"] == "started":
            deadline = None if quiet_seconds is None else time.monotonic() + quiet_seconds
        elif event["event"] == "progress" and event["phase"] != "listing":
            deadline = None
        yield event


def _read_lines(process: subprocess.Popen[str], lines: queue.Queue[str | None]) -> None:
    assert process.stdout is not None
    with contextlib.suppress(ValueError, OSError):
        for line in process.stdout:
            lines.put(line)
    lines.put(None)


def _end(process: subprocess.Popen[str]) -> None:
    with contextlib.suppress(OSError):
        if process.stdin is not None:
            process.stdin.close()
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    except KeyboardInterrupt:
        process.kill()
        process.wait()
        raise
    if process.stdout is not None:
        process.stdout.close()


def _failure(event: Event) -> Exception:
    if event["trouble"] == "disk_full":
        return UserError(
            _("The disk has not enough room."),
            event["reason"],
            _("Free some space, for example with %swift cache, and try again."),
        )
    if event["trouble"] == "disk":
        return UserError(
            _("What was pulled cannot be written."),
            event["reason"],
            _("Choose another folder with %swift config cache_dir <folder>."),
        )
    answers = [
        (name, SourceUnavailable(reason, trouble))
        for name, reason, trouble in event.get("answers", ())
    ]
    return SourceUnavailable(event["reason"], event["trouble"], answers)


def _last_line(log: IO[bytes]) -> str:
    log.seek(0, os.SEEK_END)
    log.seek(max(0, log.tell() - _TAIL))
    lines = log.read().decode("utf-8", "replace").strip().splitlines()
    return lines[-1] if lines else ""
