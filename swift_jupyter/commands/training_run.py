"""The result of training commands: a run that can be watched, used and resumed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from swift_jupyter.commands.results import duration_text
from swift_jupyter.commands.run_result import RunResult
from swift_jupyter.errors import Interrupted, UserError
from swift_jupyter.i18n import translate as _
from swift_jupyter.runs.progress import RunProgress
from swift_jupyter.runs.record import State

if TYPE_CHECKING:
    import pandas


class TrainingRun(RunResult):
    """A run of training, as a result and as an argument: ``--adapters $run``."""

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
        super().stop()

    def to_dict(self) -> dict[str, Any]:
        """Return the status, the checkpoints and the result."""
        return {**super().to_dict(), "checkpoints": [str(path) for path in self.checkpoints]}

    def to_pandas(self) -> pandas.DataFrame:
        """Return the logged rows as a DataFrame, one row a log."""
        import pandas

        frame: pandas.DataFrame = pandas.DataFrame(self.history)
        return frame

    def __repr__(self) -> str:
        status = self._run.status()
        loss = f", loss {status.loss:.4f}" if status.loss is not None else ""
        return f"<run {status.id}: {status.state}, step {status.step}/{status.max_steps}{loss}>"

    def next_steps(self) -> str:
        """Say what can be typed now."""
        if self._run.state is State.DONE and self.checkpoint is not None:
            return _("Chat: %%swift infer --adapters {path}", path=self.checkpoint)
        return super().next_steps() or _("Go on: %swift runs resume {id}", id=self.id)

    def stopped(self, progress: RunProgress) -> Interrupted:
        """Return the error for a training that was stopped."""
        checkpoint = self.checkpoint
        kept = (
            _("The checkpoint {name} is kept.", name=checkpoint.name)
            if checkpoint
            else _("There is no checkpoint yet.")
        )
        how = _("killed") if progress.record.reason == "killed" else _("stopped")
        return Interrupted(
            _("The run {id} was {how} at step {step}.", id=self.id, how=how, step=progress.step),
            kept,
            _("To go on: %swift runs resume {id}", id=self.id),
            result=self,
        )

    def lost(self, progress: RunProgress) -> UserError:
        """Return the error for a training whose worker disappeared."""
        return UserError(
            _("The worker of {id} disappeared after step {step}.", id=self.id, step=progress.step),
            self.last_words(),
            _("To go on from the last checkpoint: %swift runs resume {id}", id=self.id)
            + f"   ({_duration(progress)})",
        )


def _duration(progress: RunProgress) -> str:
    return _("it had run for {time}", time=duration_text(float(progress.latest("seconds") or 0)))
