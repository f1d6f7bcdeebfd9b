"""Watching a run from a cell or a terminal. Watching never changes what runs,
except that the first interrupt asks for a clean stop and the second kills."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Iterator
from typing import Protocol

from swift_jupyter.i18n import translate as _
from swift_jupyter.runs.progress import ProgressReader, RunProgress
from swift_jupyter.runs.run import Run
from swift_jupyter.runs.words import on_kill, on_stop

_POLL_SECONDS = 0.2


class RunView(Protocol):
    """What draws a run."""

    def draw(self, progress: RunProgress) -> None:
        """Show the progress; called often, throttles itself."""

    def message(self, text: str) -> None:
        """Show a line about the watching itself."""

    def close(self, progress: RunProgress) -> None:
        """Show the last state, which stays."""


class _Interrupts:
    """Counts interrupts instead of raising, so that none falls between two lines of ours.

    From the third on it raises, in case that even killing does not end the watching.
    """

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, _number: int, _frame: object) -> None:
        self.count += 1
        if self.count > 2:
            raise KeyboardInterrupt


def watch(run: Run, view: RunView) -> RunProgress:
    """Follow a run until it ends, and draw it.

    Returns
    -------
    RunProgress
        The last state. `interrupted` runs end as `stopped`.
    """
    reader = ProgressReader(run)
    handled = 0
    with _counted_interrupts() as interrupts:
        while (progress := reader.read()).state.active:
            view.draw(progress)
            while handled < interrupts.count:
                handled += 1
                _handle_interrupt(run, view, handled)
            time.sleep(_POLL_SECONDS)
        view.close(progress)
    return progress


@contextlib.contextmanager
def _counted_interrupts() -> Iterator[_Interrupts]:
    interrupts = _Interrupts()
    if threading.current_thread() is not threading.main_thread():
        yield interrupts  # Only the main thread can be interrupted.
        return
    before = signal.signal(signal.SIGINT, interrupts)
    try:
        yield interrupts
    finally:
        # None stands for a handler that was not set from Python.
        signal.signal(signal.SIGINT, before or signal.default_int_handler)


def _handle_interrupt(run: Run, view: RunView, interrupts: int) -> None:
    command = run.record().command
    if interrupts == 1:
        run.request_stop()
        view.message(f"{on_stop(command)} {_('Interrupt again to kill it at once.')}")
    else:
        run.kill()
        view.message(on_kill(command))
