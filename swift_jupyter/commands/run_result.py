"""What every run is as a result: it can be watched, stopped, resumed and asked how it stands."""

from __future__ import annotations

import html
import time
from pathlib import Path
from typing import Any

from swift_jupyter.commands.results import Result
from swift_jupyter.errors import Interrupted, UserError
from swift_jupyter.i18n import translate as _
from swift_jupyter.runs.progress import RunProgress
from swift_jupyter.runs.record import State
from swift_jupyter.runs.run import Run


class RunResult(Result):
    """A run as a result.

    Parameters
    ----------
    run : Run
        The run itself.
    """

    def __init__(self, run: Run) -> None:
        self._run = run

    @property
    def run(self) -> Run:
        """The run itself."""
        return self._run

    @property
    def id(self) -> str:
        """The short name for ``%swift runs``."""
        return self._run.id

    @property
    def path(self) -> Path:
        """The run's folder."""
        return self._run.path

    @property
    def state(self) -> str:
        """How the run stands now."""
        return self._run.state.value

    def stop(self) -> None:
        """Ask for a clean stop; returns at once."""
        self._run.request_stop()

    def wait(self, timeout: float | None = None) -> str:
        """Wait until the run ends or `timeout` seconds have passed; return its state."""
        end = None if timeout is None else time.monotonic() + timeout
        while self._run.state.active and (end is None or time.monotonic() < end):
            time.sleep(0.2)
        return self.state

    def to_dict(self) -> dict[str, Any]:
        """Return the status and the result."""
        return {**self._run.status().to_dict(), "result": self._run.result()}

    def __fspath__(self) -> str:
        return str(self.path)

    def __repr__(self) -> str:
        return f"<run {self.id}: {self.state}>"

    def text(self) -> str:
        """Return the status and what to type next."""
        return "\n".join([repr(self)[1:-1], str(self.path), self.next_steps()])

    def html(self) -> str:
        """Return the same as a block of text."""
        return f"<pre>{html.escape(self.text())}</pre>"

    def next_steps(self) -> str:
        """Say what can be typed now."""
        if self._run.state.active:
            return _("Watch: %swift runs attach {id}   Stop: %swift runs stop {id}", id=self.id)
        if self._run.state is State.DONE:
            return ""
        return _("Go on: %swift runs resume {id}", id=self.id)

    def outcome(self, progress: RunProgress) -> Result:
        """Return what a cell gives that has watched the run to its end.

        Raises
        ------
        Interrupted
            When it was stopped, so that cells behind this one do not use half of it.
        UserError
            When it failed or its process disappeared.
        """
        self.shown = True
        if progress.state is State.DONE:
            return self.finished()
        if progress.state is State.STOPPED:
            raise self.stopped(progress)
        if progress.state is State.FAILED:
            what, _newline, rest = progress.record.reason.partition("\n")
            raise UserError(what, *rest.split("\n", 1)) if rest else UserError(what)
        raise self.lost(progress)

    def finished(self) -> Result:
        """Return what a cell gives when the run is done."""
        return self

    def stopped(self, progress: RunProgress) -> Interrupted:
        """Return the error for a run that was stopped."""
        raise NotImplementedError

    def lost(self, progress: RunProgress) -> UserError:
        """Return the error for a run whose worker disappeared."""
        raise NotImplementedError

    def last_words(self) -> str:
        """Return the last line that the worker printed, or a likely reason for its end."""
        tail = [line for line in self._run.log_tail(5) if line.strip()]
        return tail[-1] if tail else _("It was killed, or the machine ran out of memory.")
