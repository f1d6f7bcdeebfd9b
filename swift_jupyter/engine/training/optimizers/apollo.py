"""APOLLO: plain gradient descent with a learning rate for every channel.

Zhu et al., "APOLLO: SGD-like Memory, AdamW-level Performance", 2024, arXiv 2412.05270.
Written from the paper.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from swift_jupyter.engine.training.optimizers.base import PROJECTED, ProjectedOptimizer
from swift_jupyter.engine.training.optimizers.projection import project, random_axes, side_of

_LARGEST_GROWTH = 1.01  # Of an update's norm from step to step; the paper's limiter.
_TINY = 1e-8
_NORM = "update_norm"


class Apollo(ProjectedOptimizer):
    """Scales the gradient by what Adam does to a random projection of it.

    Notes
    -----
    Projected groups have ``rank``, ``update_proj_gap`` (steps), ``scale`` and
    ``scale_type``: ``channel``, or ``tensor`` for one factor a weight (APOLLO-Mini).
    The projection is drawn anew from its seed at every step and not stored.
    """

    def _projected_update(
        self, gradient: Tensor, parameter: Tensor, state: dict[str, Any], group: dict[str, Any]
    ) -> Tensor:
        side = side_of(gradient.shape, "std")
        period = state["step"] // group["update_proj_gap"]
        axes = random_axes(
            gradient.shape, group[PROJECTED], side, self.generator(parameter, period)
        )
        low = project(gradient, [axes], side)
        step = self._adam(low, state, group)
        if group["scale_type"] == "tensor":
            factor = torch.linalg.vector_norm(step) / (torch.linalg.vector_norm(low) + _TINY)
        else:
            short = -1 if side == "right" else -2
            factor = _norm(step, short) / (_norm(low, short) + _TINY)
        return _limited(gradient * factor, state, group).mul_(group["scale"])


def _limited(update: Tensor, state: dict[str, Any], group: dict[str, Any]) -> Tensor:
    """Keep an update from growing too fast over the one before, the learning rate apart."""
    # The rate has its own schedule; its rise in the warm-up is no growth.
    rate = max(float(group["lr"]), 1e-30)
    norm = float(torch.linalg.vector_norm(update)) / rate
    before = state.get(_NORM, 0.0)
    if before > 0.0 and norm > _LARGEST_GROWTH * before:
        update = update * (_LARGEST_GROWTH * before / norm)
        norm = _LARGEST_GROWTH * before
    if norm > 0.0:
        state[_NORM] = norm
    return update


def _norm(values: Tensor, dim: int) -> Tensor:
    norm: Tensor = torch.linalg.vector_norm(values, dim=dim, keepdim=True)
    return norm
