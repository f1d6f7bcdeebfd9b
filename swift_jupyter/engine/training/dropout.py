"""Dropout whose mask costs little on a CPU."""

from __future__ import annotations

import torch
from torch import Tensor, nn

# Sixteen random bits decide one element, so the probability is exact to 1/65536.
_LEVELS = 1 << 16


class BitDropout(nn.Module):
    """Dropout on the CPU that draws 16 random bits an element.

    Parameters
    ----------
    p : float
        The share of elements set to zero, 0 to 1.

    Notes
    -----
    `torch.nn.Dropout` draws its CPU mask on one thread, one double a element, which
    is a quarter of a LoRA step of a small model. Four masks fit into one 64-bit draw.
    The draws come from torch's generator, so that a resumed run repeats them.
    """

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p
        self._threshold = round(p * _LEVELS) - _LEVELS // 2

    def extra_repr(self) -> str:
        """Return the probability, for the module's repr."""
        return f"p={self.p}"

    def forward(self, values: Tensor) -> Tensor:
        """Return `values`, in training with some zeroed and the rest scaled up."""
        if not self.training or self.p == 0.0:
            return values
        if values.device.type != "cpu":
            return nn.functional.dropout(values, self.p)
        draws = torch.empty((values.numel() + 3) // 4, dtype=torch.int64)
        draws.random_(-(2**63), None)
        bits = draws.view(torch.int16)[: values.numel()].view(values.shape)
        kept = (bits >= self._threshold).to(values.dtype).div_(1.0 - self.p)
        return values * kept


def speed_up_dropout(model: nn.Module) -> None:
    """Replace the plain dropouts in front of LoRA matrices by `BitDropout`.

    Parameters
    ----------
    model : nn.Module
        A model that was wrapped with LoRA, on the CPU.
    """
    for module in model.modules():
        dropouts = getattr(module, "lora_dropout", None)
        if isinstance(dropouts, nn.ModuleDict):
            for name, dropout in dropouts.items():
                if type(dropout) is nn.Dropout:
                    dropouts[name] = BitDropout(dropout.p)
