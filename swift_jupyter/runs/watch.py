"""Watching a run from a cell or a terminal. Watching never changes what runs,
except that the first interrupt asks for a clean stop and the second kills."""

from __future__ import annotations

import time
from typing import Protocol

from swift_jupyter.i18n import translate as _
from swift_jupyter.runs.progress import ProgressReader, RunProgress
from swift_jupyter.runs.run import Run

_POLL_SECONDS = 0.2


class RunView(Protocol):
    """What draws a run."""

    def draw(self, progress: RunProgress) -> None:
        """Show the progress; called often, throttles itself."""

    def message(self, text: str) -> None:
        """Show a line about the watching itself."""

    def close(self, progress: RunProgress) -> None:
        """Show the last state, which stays."""


def watch(run: Run, view: RunView) -> RunProgress:
    """Follow a run until it ends, and draw it.

    Returns
    -------
    RunProgress
        The last state. `interrupted` runs end as `stopped`.
    """
    reader = ProgressReader(run)
    interrupts = 0
    while True:
        try:
            progress = reader.read()
            if not progress.state.active:
                break
            view.draw(progress)
            time.sleep(_POLL_SECONDS)
        except KeyboardInterrupt:
            interrupts += 1
            _handle_interrupt(run, view, interrupts)
    view.close(progress)
    return progress


def _handle_interrupt(run: Run, view: RunView, interrupts: int) -> None:
    if interrupts == 1:
        run.request_stop()
        view.message(
            _(
                "Stopping: the run saves a checkpoint after this step. "
                "Interrupt again to kill it at once."
            )
        )
    else:
        run.kill()
        view.message(_("Killed. The last checkpoint is kept."))
