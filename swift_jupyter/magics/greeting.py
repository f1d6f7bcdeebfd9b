"""What ``%load_ext`` says: which runs are at work, and which were lost."""

from __future__ import annotations

from swift_jupyter.i18n import translate as _
from swift_jupyter.runs.index import RunIndex
from swift_jupyter.runs.record import State
from swift_jupyter.settings import Settings


def mention_runs(settings: Settings) -> None:
    """Print a line for every run that is active or was lost since the last look."""
    index = RunIndex(settings)
    for run in index.active():
        status = run.status()
        where = status.detail or _(
            "step {step}", step=status.progress_text if status.max_steps else "0"
        )
        if State(status.state).active:
            print(
                _(
                    "Run {id} is at work ({where}). To watch it: %swift runs attach {id}",
                    id=status.id,
                    where=where,
                )
            )
        elif status.state == State.LOST.value:
            print(
                _(
                    "Run {id} was lost ({where}). To go on: %swift runs resume {id}",
                    id=status.id,
                    where=where,
                )
            )
            index.finish(status.id)
        else:
            index.finish(status.id)
