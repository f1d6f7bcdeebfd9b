"""LISA: full fine-tuning of a few random layers at a time.

Pan et al., "LISA: Layerwise Importance Sampling for Memory-Efficient Large Language
Model Fine-Tuning", 2024, arXiv 2403.17919.
"""

from __future__ import annotations

import random
from typing import Any

from torch import nn
from transformers import (
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)

from swift_jupyter.engine.training.optimizers.options import LisaOptions
from swift_jupyter.engine.training.tuners.layers import decoder_layers
from swift_jupyter.errors import UserError
from swift_jupyter.i18n import translate as _


def active_layers(count: int, active: int, seed: int, period: int) -> list[int]:
    """Return which of `count` layers are trained in a period, in order.

    It is a function of its arguments alone, so that a resumed run draws what an
    undisturbed one does.
    """
    # A text as the seed, since sums of numbers would repeat each other's draws.
    return sorted(random.Random(f"lisa {seed} {period}").sample(range(count), active))


class LisaCallback(TrainerCallback):
    """Freezes all decoder layers but a few, others every so many steps.

    Parameters
    ----------
    model : nn.Module
        Its layers are found at once; they are frozen when training begins, after the
        optimizer was built over all of them.
    options : LisaOptions
        How many layers, and for how many steps.
    seed : int
        Decides the layers.

    Raises
    ------
    UserError
        When the layers cannot be found or are fewer than asked for.
    """

    def __init__(self, model: nn.Module, options: LisaOptions, seed: int) -> None:
        _path, layers = decoder_layers(model)
        if not 0 < options.lisa_activated_layers <= len(layers):
            raise UserError(
                _(
                    "--lisa_activated_layers cannot be {count}.",
                    count=options.lisa_activated_layers,
                ),
                _("The model has {count} layers.", count=len(layers)),
                _("2 is a good choice for small memory, 8 for larger."),
            )
        # What the tuner froze stays frozen.
        self._layers = [
            [parameter for parameter in layer.parameters() if parameter.requires_grad]
            for layer in layers
        ]
        self._ends = [] if options.lisa_train_embeddings else _end_parameters(model)
        self._active = options.lisa_activated_layers
        self._interval = options.lisa_step_interval
        self._seed = seed
        self.active: list[int] = []

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Freeze before the first step, on resume as well."""
        for parameter in self._ends:
            _freeze(parameter, kwargs["optimizer"])
        self._switch(state.global_step, kwargs["optimizer"])

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Go over to other layers when it is time."""
        if state.global_step % self._interval == 0:
            self._switch(state.global_step, kwargs["optimizer"])

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Leave the model as it was."""
        for parameter in [*self._ends, *(p for layer in self._layers for p in layer)]:
            parameter.requires_grad_(True)

    def _switch(self, step: int, optimizer: Any) -> None:
        period = step // self._interval
        self.active = active_layers(len(self._layers), self._active, self._seed, period)
        for number, parameters in enumerate(self._layers):
            for parameter in parameters:
                if number in self.active:
                    parameter.requires_grad_(True)
                else:
                    _freeze(parameter, optimizer)


def _freeze(parameter: nn.Parameter, optimizer: Any) -> None:
    parameter.requires_grad_(False)
    parameter.grad = None
    # Stale moments would cost the memory that freezing saves.
    optimizer.state.pop(parameter, None)


def _end_parameters(model: Any) -> list[nn.Parameter]:
    """Return the trainable parameters of the embedding and the output layer."""
    ends = [model.get_input_embeddings(), model.get_output_embeddings()]
    found = {p: None for end in ends if end is not None for p in end.parameters()}
    return [parameter for parameter in found if parameter.requires_grad]
