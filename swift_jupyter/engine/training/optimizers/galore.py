"""GaLore: Adam in the space of the gradient's leading singular vectors.

Zhao et al., "GaLore: Memory-Efficient LLM Training by Gradient Low-Rank Projection",
2024, arXiv 2403.03507. The arithmetic is that of the authors' package; the state is
plain tensors, so that it survives a checkpoint.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from swift_jupyter.engine.training.optimizers.base import PROJECTED, ProjectedOptimizer
from swift_jupyter.engine.training.optimizers.projection import (
    Side,
    principal_axes,
    project,
    project_back,
    side_of,
)

AXES, REFRESHED = "axes", "refreshed"


class GaLore(ProjectedOptimizer):
    """AdamW in projected gradients.

    Notes
    -----
    Projected groups have ``rank``, ``update_proj_gap`` (steps), ``scale`` and
    ``proj_type``. The moments stay as they are when the projection changes, as in the
    paper.
    """

    def _projected_update(
        self, gradient: Tensor, parameter: Tensor, state: dict[str, Any], group: dict[str, Any]
    ) -> Tensor:
        side = side_of(gradient.shape, group["proj_type"])
        if AXES not in state or state["step"] - state[REFRESHED] >= self._gap(state, group):
            axes = principal_axes(gradient, group[PROJECTED], side)
            self._keep_axes(axes, parameter, state, group)
            state[REFRESHED] = state["step"]
        axes = self._axes(gradient, side, state, group)
        update = self._adam(project(gradient, axes, side), state, group)
        return project_back(update, axes, side).mul_(group["scale"])

    def _gap(self, state: dict[str, Any], group: dict[str, Any]) -> int:
        """Return after how many steps the projection is found anew."""
        return int(group["update_proj_gap"])

    def _keep_axes(
        self, axes: list[Tensor], parameter: Tensor, state: dict[str, Any], group: dict[str, Any]
    ) -> None:
        state[AXES] = [matrix.to(parameter.dtype) for matrix in axes]

    def _axes(
        self, gradient: Tensor, side: Side, state: dict[str, Any], group: dict[str, Any]
    ) -> list[Tensor]:
        return [matrix.float() for matrix in state[AXES]]
