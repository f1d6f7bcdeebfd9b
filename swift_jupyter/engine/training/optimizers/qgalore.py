"""Q-GaLore: GaLore with quantised projections, moments and weights.

Zhang et al., "Q-GaLore: Quantized GaLore with INT4 Projection and Layer-Adaptive
Low-Rank Gradients", 2024, arXiv 2407.08296. The weights are kept by `int8_linear`.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.nn.functional import cosine_similarity

from swift_jupyter.engine.training.optimizers.galore import AXES, GaLore
from swift_jupyter.engine.training.optimizers.projection import Side
from swift_jupyter.engine.training.optimizers.quantization import Blocks, dequantize, quantize

GAP, COSINES = "gap", "cosines"


class QGaLore(GaLore):
    """GaLore whose projections are quantised and found anew the less the steadier they are.

    Notes
    -----
    Beside GaLore's keys, projected groups have ``proj_bits`` (4, 8, or 0 for whole
    projections), ``proj_group_size``, ``cos_threshold``, ``gamma_proj`` and
    ``queue_size``: when the leading singular vector's cosine with the one before, on
    average over ``queue_size`` updates, reaches the threshold, the gap between updates
    grows ``gamma_proj``-fold. The sign is left out, for a singular vector has none.
    """

    def _gap(self, state: dict[str, Any], group: dict[str, Any]) -> int:
        return int(state.get(GAP, group["update_proj_gap"]))

    def _keep_axes(
        self, axes: list[Tensor], parameter: Tensor, state: dict[str, Any], group: dict[str, Any]
    ) -> None:
        if AXES in state:
            before = self._stored_axes(axes, state, group)
            self._adapt_gap(_cosine(before[0], axes[0]), state, group)
        bits = group["proj_bits"]
        if bits == 0:
            super()._keep_axes(axes, parameter, state, group)
            return
        blocks = [quantize(matrix, bits, group["proj_group_size"]) for matrix in axes]
        state[AXES] = [
            {"codes": b.codes, "low": b.low, "scale": b.scale, "shape": list(matrix.shape)}
            for b, matrix in zip(blocks, axes, strict=True)
        ]

    @staticmethod
    def _adapt_gap(cosine: float, state: dict[str, Any], group: dict[str, Any]) -> None:
        size = group["queue_size"]
        cosines = [*state.get(COSINES, []), cosine][-size:]
        state[COSINES] = cosines
        if len(cosines) == size and sum(cosines) / size >= group["cos_threshold"]:
            gap = state.get(GAP, group["update_proj_gap"])
            state[GAP] = max(gap, int(gap * group["gamma_proj"]))

    def _axes(
        self, gradient: Tensor, side: Side, state: dict[str, Any], group: dict[str, Any]
    ) -> list[Tensor]:
        return self._stored_axes([gradient], state, group)

    def _stored_axes(
        self, like: list[Tensor], state: dict[str, Any], group: dict[str, Any]
    ) -> list[Tensor]:
        bits = group["proj_bits"]
        if bits == 0:
            return [matrix.float() for matrix in state[AXES]]
        return [
            dequantize(Blocks(kept["codes"], kept["low"], kept["scale"]), bits, kept["shape"])
            for kept in state[AXES]
        ]


def _cosine(before: Tensor, now: Tensor) -> float:
    """Return the cosine of the leading singular vectors of two projections, without sign."""
    tall = before.shape[-2] >= before.shape[-1]
    first = before[..., :, 0] if tall else before[..., 0, :]
    second = now[..., :, 0] if tall else now[..., 0, :]
    if first.shape != second.shape:
        return 0.0
    return float(cosine_similarity(first, second, dim=-1).abs().mean())
