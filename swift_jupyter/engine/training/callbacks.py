"""What happens beside the training step: logs, stops, checkpoints by the clock."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING, Any

import psutil
import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from swift_jupyter.engine.reporting import Reporter
from swift_jupyter.i18n import translate as _

if TYPE_CHECKING:
    from swift_jupyter.engine.training.trainer import SwiftTrainer


class StopCallback(TrainerCallback):
    """Ends training after the current step, with a checkpoint, when asked to.

    Parameters
    ----------
    reporter : Reporter
        Knows whether a stop was asked for.
    """

    def __init__(self, reporter: Reporter) -> None:
        self._reporter = reporter
        self.stopped = False

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Ask the Trainer to save and stop."""
        if self._reporter.should_stop() and state.global_step < state.max_steps:
            self.stopped = True
            control.should_save = True
            control.should_training_stop = True


class ClockCheckpoint(TrainerCallback):
    """Asks for a checkpoint when the last one is too long ago.

    Parameters
    ----------
    minutes : float
        The longest time that a crash may cost; 0 for no limit.
    """

    def __init__(self, minutes: float) -> None:
        self._seconds = minutes * 60
        self._saved = time.monotonic()

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Ask for a checkpoint when it is time."""
        if self._seconds and time.monotonic() - self._saved >= self._seconds:
            control.should_save = True

    def on_save(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Start the clock anew."""
        self._saved = time.monotonic()


class LogCallback(TrainerCallback):
    """Turns the Trainer's logs into rows with ms-swift's names, and tells the progress.

    Parameters
    ----------
    reporter : Reporter
        Where the rows go.
    """

    def __init__(self, reporter: Reporter) -> None:
        self._reporter = reporter
        self._trainer: SwiftTrainer | None = None
        self._last_time = 0.0
        self._last_step = 0
        self._last_tokens = 0

    def attach(self, trainer: SwiftTrainer) -> None:
        """Say whose meter is read; the Trainer is built after its callbacks."""
        self._trainer = trainer

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Start measuring the speed."""
        self._start_measuring(time.monotonic(), state)
        self._tell(state)

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Count the step and tell the progress."""
        assert self._trainer is not None
        self._trainer.meter.steps += 1
        if state.global_step >= state.max_steps or control.should_training_stop:
            control.should_log = True  # The curve must reach the last step.
        self._tell(state)

    def _start_measuring(self, now: float, state: TrainerState) -> None:
        # Apart from the meter, whose sums may come from an earlier worker of the run.
        assert self._trainer is not None
        self._last_time, self._last_step = now, state.global_step
        self._last_tokens = self._trainer.meter.total_tokens

    def _tell(self, state: TrainerState) -> None:
        self._reporter.phase(_("Training"), state.global_step, state.max_steps)

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Report one row."""
        logs = dict(logs or {})
        if "loss" in logs:
            self._complete(logs, state)
        elif "eval_loss" not in logs:
            return  # The Trainer's closing summary; `result.json` has it.
        logs["step"] = state.global_step
        logs["global_step/max_steps"] = f"{state.global_step}/{state.max_steps}"
        self._reporter.metrics(logs)

    def _complete(self, logs: dict[str, Any], state: TrainerState) -> None:
        """Replace the Trainer's loss by the meter's and add speed, time and memory."""
        assert self._trainer is not None
        meter, now = self._trainer.meter, time.monotonic()
        steps = state.global_step - self._last_step
        passed = max(1e-9, now - self._last_time)
        elapsed = self._trainer.seconds
        logs["loss"] = meter.loss / max(1, meter.steps)
        logs["token_acc"] = meter.correct / max(1, meter.labelled)
        logs["tokens_per_second"] = (meter.total_tokens - self._last_tokens) / passed
        logs["elapsed_time"] = _clock(elapsed)
        logs["seconds"] = round(elapsed, 2)
        if steps > 0:
            remaining = (state.max_steps - state.global_step) * passed / steps
            logs["remaining_time"] = _clock(remaining)
            logs["remaining_seconds"] = round(remaining, 1)
            logs["train_speed(s/it)"] = passed / steps
        logs["memory(GiB)"] = memory_gib()
        if not math.isfinite(logs["loss"]):
            self._reporter.notice(
                _(
                    "The loss is {loss} at step {step}: the learning rate may be too high.",
                    loss=logs["loss"],
                    step=state.global_step,
                )
            )
        meter.reset()
        self._start_measuring(now, state)


def memory_gib() -> float:
    """Return the most accelerator memory reserved so far, or the process's memory, in GiB."""
    if torch.cuda.is_available():
        used = torch.cuda.max_memory_reserved()
    else:
        used = psutil.Process().memory_info().rss
    return round(used / 2**30, 2)


def _clock(seconds: float) -> str:
    """Return a time as ms-swift writes it: ``1h 2m 3s``."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    parts = [f"{hours}h"] * bool(hours) + [f"{minutes}m"] * bool(hours or minutes)
    return " ".join([*parts, f"{rest}s"])
