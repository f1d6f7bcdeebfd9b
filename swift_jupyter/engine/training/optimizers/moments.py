"""The two moments of Adam, in 32 or 8 bits."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from swift_jupyter.engine.training.optimizers.quantization import (
    MOMENT_BLOCK,
    PIECE,
    dequantize_moment,
    quantize_moment,
)

# Smaller tensors (norms, biases) would save nothing and lose precision.
_SMALLEST_QUANTIZED = 4096
_FIRST, _SECOND = "exp_avg", "exp_avg_sq"
_LARGEST = "_absmax"


class Moments:
    """Keeps the moments in an optimizer's state.

    Parameters
    ----------
    bits : int
        32, or 8 for tensors of 4096 entries and more.
    """

    def __init__(self, bits: int) -> None:
        if bits not in (8, 32):
            raise ValueError(f"moments have 8 or 32 bits, not {bits}")
        self._bits = bits

    def direction(
        self, state: dict[str, Any], gradient: Tensor, betas: tuple[float, float], eps: float
    ) -> Tensor:
        """Take in a gradient and return first moment over root of second, uncorrected.

        Parameters
        ----------
        state : dict
            The parameter's state, which is changed.
        gradient : Tensor
            float32, of any shape.
        betas : tuple of float
            The decay of the moments.
        eps : float
            Added to the root.
        """
        if self._bits == 8 and gradient.numel() >= _SMALLEST_QUANTIZED:
            return _quantized_direction(state, gradient, betas, eps)
        for name in (_FIRST, _SECOND):
            if name not in state:
                state[name] = torch.zeros_like(gradient)
        return _advance(state[_FIRST], state[_SECOND], gradient, betas, eps)


def _advance(
    first: Tensor, second: Tensor, gradient: Tensor, betas: tuple[float, float], eps: float
) -> Tensor:
    first.mul_(betas[0]).add_(gradient, alpha=1.0 - betas[0])
    second.mul_(betas[1]).addcmul_(gradient, gradient, value=1.0 - betas[1])
    return first / second.sqrt().add_(eps)


def _quantized_direction(
    state: dict[str, Any], gradient: Tensor, betas: tuple[float, float], eps: float
) -> Tensor:
    flat = gradient.flatten()
    count = flat.numel()
    for name in (_FIRST, _SECOND):
        if name not in state:
            # A block whose largest magnitude is zero is zero, whatever its codes.
            state[name] = torch.zeros_like(gradient, dtype=torch.uint8)
            state[name + _LARGEST] = flat.new_zeros(-(-count // MOMENT_BLOCK), 1)
    kept = {name: state[name].view(-1) for name in (_FIRST, _SECOND)}
    direction = torch.empty_like(flat)
    for start in range(0, count, PIECE):
        piece = slice(start, min(start + PIECE, count))
        blocks = slice(start // MOMENT_BLOCK, -(-piece.stop // MOMENT_BLOCK))
        moments = [
            dequantize_moment(kept[name][piece], state[name + _LARGEST][blocks], name == _FIRST)
            for name in (_FIRST, _SECOND)
        ]
        direction[piece] = _advance(moments[0], moments[1], flat[piece], betas, eps)
        for name, values in zip((_FIRST, _SECOND), moments, strict=True):
            codes, largest = quantize_moment(values, name == _FIRST)
            kept[name][piece] = codes
            state[name + _LARGEST][blocks] = largest
    return direction.view_as(gradient)
