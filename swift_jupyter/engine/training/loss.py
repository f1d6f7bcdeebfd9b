"""Cross entropy over the labelled tokens only, without the other logits."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from torch import Tensor, nn

IGNORED = -100


@dataclass(frozen=True)
class LossParts:
    """The loss of one forward pass.

    Attributes
    ----------
    total : Tensor
        The sum over the labelled tokens, differentiable, a scalar.
    tokens, correct : Tensor
        How many tokens are labelled, and for how many the likeliest is right.
    """

    total: Tensor
    tokens: Tensor
    correct: Tensor


def accepts_positions(model: nn.Module) -> bool:
    """Tell whether the model can leave out logits (``logits_to_keep``)."""
    return "logits_to_keep" in inspect.signature(model.forward).parameters


def label_loss(
    model: nn.Module, inputs: dict[str, Any], sparse: bool, extra_positions: int = 0
) -> LossParts:
    """Run the model and compare with the labels.

    Parameters
    ----------
    model : nn.Module
        A causal language model.
    inputs : dict
        ``input_ids``, ``attention_mask`` and ``labels``, each (batch, length).
    sparse : bool
        Whether the model takes ``logits_to_keep``. The output layer is then applied
        only at positions where some row of the batch has a label; with a large
        vocabulary the other logits are most of the memory and much of the time.
    extra_positions : int
        How many logits the model puts before the first token's, as prompt tuning does.
    """
    labels = inputs.pop("labels")
    targets = torch.nn.functional.pad(labels[:, 1:], (0, 1), value=IGNORED)
    if sparse:
        positions = (targets != IGNORED).any(dim=0).nonzero().squeeze(-1)
        targets = targets[:, positions]
        inputs = {**inputs, "logits_to_keep": positions + extra_positions}
    logits = model(**inputs, use_cache=False).logits
    if extra_positions and not sparse:
        logits = logits[:, extra_positions:]
    labelled = targets != IGNORED
    logits, targets = logits[labelled].float(), targets[labelled]
    return LossParts(
        total=torch.nn.functional.cross_entropy(logits, targets, reduction="sum"),
        tokens=labelled.sum(),
        correct=(logits.detach().argmax(dim=-1) == targets).sum(),
    )
