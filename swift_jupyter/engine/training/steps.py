"""The border between steps: what a failure within a step must not change."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from swift_jupyter.engine.training.meter import Meter

if TYPE_CHECKING:
    from swift_jupyter.engine.training.trainer import SwiftTrainer


class StepBorder(TrainerCallback):
    """Knows whether the weights are those of the last completed step.

    Parameters
    ----------
    trainer : SwiftTrainer
        Whose steps are watched.

    Attributes
    ----------
    whole : bool
        False from the first update of a weight to the end of the step.
    batches : list of dict
        The batches of the step in the making.
    """

    def __init__(self, trainer: SwiftTrainer) -> None:
        self._trainer = trainer
        self._meter: Meter | None = None
        self._updating = False
        self.batches: list[dict[str, Any]] = []

    @property
    def whole(self) -> bool:
        own = self._trainer.own_optimizer
        return not self._updating and not (own is not None and own.touched)

    def forget_step(self) -> None:
        """Take back what a step that failed has added to the meter."""
        if self._meter is not None:
            self._trainer.meter = self._meter

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Remember where the step started."""
        self._meter = dataclasses.replace(self._trainer.meter)
        self.batches.clear()

    def on_pre_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """From here on the weights change."""
        self._updating = True

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """The step is complete."""
        self._updating = False
        self._meter = None
        if self._trainer.own_optimizer is not None:
            self._trainer.own_optimizer.touched = False
