"""The result of training commands: a run that can be watched, used and resumed."""

from __future__ import annotations

import html
from pathlib import Path
from typing import TYPE_CHECKING, Any

from swift_jupyter.commands.context import Context
from swift_jupyter.commands.results import Result, duration_text
from swift_jupyter.errors import Interrupted, UserError
from swift_jupyter.i18n import translate as _
from swift_jupyter.runs.progress import RunProgress
from swift_jupyter.runs.record import State
from swift_jupyter.runs.run import Run
from swift_jupyter.runs.watch import watch

if TYPE_CHECKING:
    import pandas


class TrainingRun(Result):
    """A run of training, as a result and as an argument: ``--adapters $run``.

    Parameters
    ----------
    run : Run
        The run itself.
    """

    def __init__(self, run: Run) -> None:
        self._run = run

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

    @property
    def checkpoints(self) -> list[Path]:
        """The published checkpoints, the oldest first."""
        return self._run.folder.checkpoints()

    @property
    def checkpoint(self) -> Path | None:
        """The newest checkpoint; None before the first."""
        return self.checkpoints[-1] if self.checkpoints else None

    @property
    def history(self) -> list[dict[str, Any]]:
        """The logged rows, in ms-swift's words."""
        return self._run.metrics()

    @property
    def metrics(self) -> dict[str, Any]:
        """What the finished run returned: losses, time, tokens, sizes."""
        return self._run.result()

    def stop(self) -> None:
        """Ask for a checkpoint and a clean stop; returns at once."""
        self._run.request_stop()

    def wait(self, timeout: float | None = None) -> str:
        """Wait until the run ends or `timeout` seconds have passed; return its state."""
        import time

        end = None if timeout is None else time.monotonic() + timeout
        while self._run.state.active and (end is None or time.monotonic() < end):
            time.sleep(0.2)
        return self.state

    def to_dict(self) -> dict[str, Any]:
        """Return the status, the checkpoints and the result."""
        return {
            **self._run.status().to_dict(),
            "checkpoints": [str(path) for path in self.checkpoints],
            "result": self.metrics,
        }

    def to_pandas(self) -> pandas.DataFrame:
        """Return the logged rows as a DataFrame, one row a log."""
        import pandas

        frame: pandas.DataFrame = pandas.DataFrame(self.history)
        return frame

    def __fspath__(self) -> str:
        return str(self.path)

    def __repr__(self) -> str:
        status = self._run.status()
        loss = f", loss {status.loss:.4f}" if status.loss is not None else ""
        return f"<run {status.id}: {status.state}, step {status.step}/{status.max_steps}{loss}>"

    def text(self) -> str:
        """Return the status and what to type next."""
        return "\n".join([repr(self)[1:-1], str(self.path), self.next_steps()])

    def html(self) -> str:
        """Return the same as a block of text."""
        return f"<pre>{html.escape(self.text())}</pre>"

    def next_steps(self) -> str:
        """Say what can be typed now."""
        state = self._run.state
        if state.active:
            return _("Watch: %swift runs attach {id}   Stop: %swift runs stop {id}", id=self.id)
        if state is State.DONE and self.checkpoint is not None:
            return _("Chat: %%swift infer --adapters {path}", path=self.checkpoint)
        return _("Go on: %swift runs resume {id}", id=self.id)


def follow(run: Run, context: Context, background: bool) -> TrainingRun:
    """Watch a run to its end, or return at once.

    Raises
    ------
    UserError
        When the run failed or its process disappeared.
    Interrupted
        When it was stopped, so that cells behind this one do not use half a model.
    """
    result = TrainingRun(run)
    if background:
        return result
    progress = watch(run, context.frontend.run_view())
    result.shown = True
    if progress.state is State.DONE:
        return result
    if progress.state is State.STOPPED:
        raise _stopped(result, progress)
    raise _failed(result, progress)


def _stopped(result: TrainingRun, progress: RunProgress) -> Interrupted:
    checkpoint = result.checkpoint
    kept = (
        _("The checkpoint {name} is kept.", name=checkpoint.name)
        if checkpoint
        else _("There is no checkpoint yet.")
    )
    how = _("killed") if progress.record.reason == "killed" else _("stopped")
    return Interrupted(
        _("The run {id} was {how} at step {step}.", id=result.id, how=how, step=progress.step),
        kept,
        _("To go on: %swift runs resume {id}", id=result.id),
        result=result,
    )


def _failed(result: TrainingRun, progress: RunProgress) -> UserError:
    if progress.state is State.FAILED:
        what, _newline, rest = progress.record.reason.partition("\n")
        error = UserError(what, *rest.split("\n", 1)) if rest else UserError(what)
        return error
    tail = [line for line in result._run.log_tail(5) if line.strip()]
    return UserError(
        _("The worker of {id} disappeared after step {step}.", id=result.id, step=progress.step),
        tail[-1] if tail else _("It was killed, or the machine ran out of memory."),
        _("To go on from the last checkpoint: %swift runs resume {id}", id=result.id)
        + f"   ({_duration(progress)})",
    )


def _duration(progress: RunProgress) -> str:
    return _("it had run for {time}", time=duration_text(float(progress.latest("seconds") or 0)))
