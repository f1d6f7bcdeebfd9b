"""What every tuner can do."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor, nn
from transformers import PreTrainedModel, TrainerCallback


class Tuner(Protocol):
    """A way to adapt a model, from preparation to its checkpoint.

    Attributes
    ----------
    rate : float
        How many times LoRA's its usual learning rate is.
    saves_model : bool
        Whether a checkpoint is a whole model, rather than an adapter.
    needs_input_gradients : bool
        Whether the embedding's output must ask for gradients, so that they pass through
        layers whose activations are computed twice.
    checkpointing : bool
        Whether activations may be computed twice.
    takes_positions : bool
        Whether the prepared model takes the positions of the wanted logits as its kind does.
    packable : bool
        Whether several rows may share one sequence; not where each has a prompt of its own.
    """

    rate: float
    saves_model: bool
    needs_input_gradients: bool
    checkpointing: bool
    takes_positions: bool
    packable: bool

    def check(self) -> None:
        """See that what it needs is there.

        Raises
        ------
        UserError
            Says what is missing.
        """

    def prepare(self, model: PreTrainedModel) -> nn.Module:
        """Freeze what stays, add what is trained, and return what the Trainer trains.

        Raises
        ------
        UserError
            When the options do not fit the model.
        """

    def callbacks(self) -> Sequence[TrainerCallback]:
        """Return what must happen beside the training step."""

    def inputs(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Add to a batch what the prepared model wants to know."""

    def extra_positions(self, model: nn.Module) -> int:
        """Return how many logits the model puts before the first token's."""

    def penalty(self, model: nn.Module) -> Tensor | None:
        """Return what a step's loss is to grow by; None for nothing."""

    def rates(self, model: nn.Module) -> dict[str, float]:
        """Return parameters, by name, whose learning rate is a multiple of the others'."""

    def save(self, model: nn.Module, folder: Path, state: dict[str, Tensor] | None) -> None:
        """Write a checkpoint's weights, for inference and for training on."""

    def load(self, model: nn.Module, folder: Path) -> bool:
        """Read them for training on; False when the Trainer's own way will do."""


class PlainTuner:
    """What holds for most tuners."""

    rate = 1.0
    saves_model = False
    needs_input_gradients = True
    checkpointing = True
    takes_positions = True
    packable = True

    def check(self) -> None:
        """Nothing is needed."""

    def callbacks(self) -> Sequence[TrainerCallback]:
        """Nothing happens beside the step."""
        return ()

    def inputs(self, batch: dict[str, Any]) -> dict[str, Any]:
        """A batch is enough."""
        return batch

    def extra_positions(self, model: nn.Module) -> int:
        """The first logits are the first token's."""
        return 0

    def penalty(self, model: nn.Module) -> Tensor | None:
        """There is no penalty."""
        return None

    def rates(self, model: nn.Module) -> dict[str, float]:
        """All parameters have one rate."""
        return {}

    def save(self, model: nn.Module, folder: Path, state: dict[str, Tensor] | None) -> None:
        """Let the model write itself."""
        writer: Any = model
        writer.save_pretrained(folder, state_dict=state)

    def load(self, model: nn.Module, folder: Path) -> bool:
        """Leave it to the Trainer."""
        return False
