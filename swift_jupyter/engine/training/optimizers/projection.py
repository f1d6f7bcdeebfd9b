"""Which low-rank space a gradient is projected into, and back.

Gradients are (..., rows, columns); leading dimensions, such as a layer's experts, are
projected each on its own.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

Side = Literal["left", "right", "full"]


def side_of(shape: torch.Size, projection_type: str) -> Side:
    """Return which side of a gradient is projected.

    Parameters
    ----------
    shape : torch.Size
        The gradient's shape.
    projection_type : str
        ``std`` makes the shorter dimension low-rank, ``reverse_std`` the longer one,
        and ``left``, ``right`` and ``full`` say it outright.
    """
    tall = shape[-2] >= shape[-1]
    if projection_type == "std":
        return "right" if tall else "left"
    if projection_type == "reverse_std":
        return "left" if tall else "right"
    if projection_type in ("left", "right", "full"):
        return projection_type  # type: ignore[return-value]
    raise ValueError(f"unknown projection type {projection_type!r}")


def principal_axes(gradient: Tensor, rank: int, side: Side) -> list[Tensor]:
    """Return the singular vectors that span most of a gradient.

    Parameters
    ----------
    gradient : Tensor
        (..., rows, columns).
    rank : int
        How many; fewer when the gradient has fewer.
    side : str
        Which side is projected.

    Returns
    -------
    list of Tensor
        (..., rows, rank) for ``left``, (..., rank, columns) for ``right``, both in
        this order for ``full``; float32.
    """
    left, _values, right = torch.linalg.svd(gradient.float(), full_matrices=False)
    # Copies, so that the singular vectors that are left out are freed.
    axes = {
        "left": left[..., :, :rank].clone(memory_format=torch.contiguous_format),
        "right": right[..., :rank, :].clone(memory_format=torch.contiguous_format),
    }
    return [axes["left"], axes["right"]] if side == "full" else [axes[side]]


def random_axes(shape: torch.Size, rank: int, side: Side, generator: torch.Generator) -> Tensor:
    """Return a Gaussian matrix that keeps lengths on average (Johnson-Lindenstrauss).

    The shapes are those of `principal_axes`; ``full`` is not possible.
    """
    rows, columns = shape[-2:]
    rank = min(rank, rows, columns)
    size = (rows, rank) if side == "left" else (rank, columns)
    axes = torch.randn(*shape[:-2], *size, generator=generator, device=generator.device)
    return axes.div_(rank**0.5)


def project(gradient: Tensor, axes: list[Tensor], side: Side) -> Tensor:
    """Return the gradient in the low-rank space."""
    if side == "left":
        return axes[0].mT @ gradient
    if side == "right":
        return gradient @ axes[0].mT
    return axes[0].mT @ gradient @ axes[1].mT


def project_back(update: Tensor, axes: list[Tensor], side: Side) -> Tensor:
    """Return an update of the low-rank space in the weight's own shape."""
    if side == "left":
        return axes[0] @ update
    if side == "right":
        return update @ axes[0]
    return axes[0] @ update @ axes[1]
