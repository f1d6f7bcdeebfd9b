"""The working side of the channel between a transfer process and its parent."""

from __future__ import annotations

import json
import threading
import time
from typing import Any, TextIO

from swift_jupyter.hub.progress import Phase

REPORT_SECONDS = 0.1


class TransferFailed(Exception):
    """The work cannot be done, with a reason for people."""

    def __init__(self, reason: str, trouble: str = "failed") -> None:
        super().__init__(reason)
        self.reason = reason
        self.trouble = trouble


class TransferCancelled(BaseException):
    """The parent does not want the work any more.

    Not an `Exception`: what mends bad connections would take that for one and
    try again.
    """


class Channel:
    """Sends events as JSON lines and knows whether the parent still wants them.

    Parameters
    ----------
    stream : TextIO
        Where the lines go.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._lock = threading.Lock()
        self._cancelled = threading.Event()
        self._last_report = 0.0
        self._last_phase: str | None = None

    def cancel(self) -> None:
        """Make every following `progress` and `check` raise."""
        self._cancelled.set()

    def check(self) -> None:
        """Raise `TransferCancelled` when the parent has stopped waiting."""
        if self._cancelled.is_set():
            raise TransferCancelled

    def send(self, event: str, **values: Any) -> None:
        """Send one event."""
        line = json.dumps({"event": event, **values}, ensure_ascii=True)
        with self._lock:
            self._stream.write(line + "\n")
            self._stream.flush()

    def progress(
        self,
        phase: Phase,
        done: int = 0,
        total: int | None = None,
        file: str | None = None,
        **more: Any,
    ) -> None:
        """Report progress, at most ten times a second within one phase.

        Parameters
        ----------
        phase, done, total, file
            As in `PullProgress`.
        **more
            Further fields of `PullProgress`, as JSON values.

        Raises
        ------
        TransferCancelled
            When the parent has stopped waiting.
        """
        self.check()
        now = time.monotonic()
        if phase == self._last_phase and now - self._last_report < REPORT_SECONDS and done != total:
            return
        self._last_report, self._last_phase = now, phase
        self.send("progress", phase=phase, done=done, total=total, file=file, **more)
