"""Numbers in 4 and 8 bits, a scale per block."""

from __future__ import annotations

import functools
from dataclasses import dataclass

import torch
from torch import Tensor

MOMENT_BLOCK = 256
# Entries that are worked on at a time, so that temporary copies of an embedding stay small.
PIECE = 1 << 20
_SMALLEST_EXPONENT = 7


@dataclass
class Blocks:
    """A tensor whose blocks are spread over whole numbers between their extremes.

    Attributes
    ----------
    codes : Tensor
        uint8, one code an entry, or two with 4 bits; the last block is padded.
    low, scale : Tensor
        (blocks, 1), float32: an entry is ``low + scale * code``.
    """

    codes: Tensor
    low: Tensor
    scale: Tensor


def quantize(
    values: Tensor, bits: int, block: int, generator: torch.Generator | None = None
) -> Blocks:
    """Quantise a tensor blockwise.

    Parameters
    ----------
    values : Tensor
        Finite numbers, of any shape.
    bits : int
        4 or 8.
    block : int
        How many entries, in row-major order, share a scale.
    generator : torch.Generator, optional
        Rounds at random so that the expected result is the value itself; without it,
        to the nearest.
    """
    if bits not in (4, 8):
        raise ValueError(f"bits must be 4 or 8, not {bits}")
    flat = _in_blocks(values.detach().flatten(), block)
    pieces = [
        _quantize_blocks(blocks.float(), 2**bits - 1, generator)
        for blocks in flat.split(max(1, PIECE // block))
    ]
    codes, low, scale = (torch.cat(parts) for parts in zip(*pieces, strict=True))
    return Blocks(_pack(codes) if bits == 4 else codes, low, scale)


def _quantize_blocks(
    blocks: Tensor, levels: int, generator: torch.Generator | None
) -> tuple[Tensor, Tensor, Tensor]:
    low, high = blocks.aminmax(dim=1, keepdim=True)
    scale = (high - low) / levels
    steps = (blocks - low) / torch.where(scale > 0, scale, 1.0)
    if generator is None:
        steps.round_()
    else:
        noise = torch.empty_like(steps).uniform_(generator=generator)
        steps.add_(noise).floor_()
    return steps.clamp_(0, levels).to(torch.uint8).flatten(), low, scale


def dequantize(blocks: Blocks, bits: int, shape: torch.Size | tuple[int, ...]) -> Tensor:
    """Return the numbers again, float32 in the given shape."""
    codes = _unpack(blocks.codes) if bits == 4 else blocks.codes
    count = len(blocks.low)
    values = codes[: codes.numel() // count * count].view(count, -1).float()
    values.mul_(blocks.scale).add_(blocks.low)
    return values.flatten()[: _size(shape)].view(shape)


def round_stochastically(values: Tensor, generator: torch.Generator) -> Tensor:
    """Return float32 `values` as bfloat16, rounded up or down by chance.

    Rounding to the nearest would lose every update below half a unit in the last of
    bfloat16's 8 bits; so it is kept on average.
    """
    bits = values.contiguous().view(torch.int32)
    noise = torch.randint(
        0, 1 << 16, bits.shape, dtype=torch.int32, device=bits.device, generator=generator
    )
    rounded = (bits + noise) & -(1 << 16)
    return rounded.view(torch.float32).to(torch.bfloat16)


def quantize_moment(values: Tensor, signed: bool) -> tuple[Tensor, Tensor]:
    """Quantise a moment of Adam to 8 bits, finely near zero.

    Parameters
    ----------
    values : Tensor
        float32, of any shape; at least zero unless `signed`.

    Returns
    -------
    tuple of Tensor
        The codes, uint8 in the shape of `values`, and the largest magnitude of each
        block, float32.
    """
    table = _table(signed).to(values.device)
    flat = _in_blocks(values.flatten(), MOMENT_BLOCK)
    largest = flat.abs().amax(dim=1, keepdim=True)
    flat = flat / torch.where(largest > 0, largest, 1.0)
    codes = torch.bucketize(flat, (table[1:] + table[:-1]) / 2)
    if not signed:
        # A second moment of zero beside a first that is not would make a huge update.
        codes.clamp_(min=1).mul_(flat > 0)
    codes = codes.to(torch.uint8).flatten()[: values.numel()].view(values.shape)
    return codes, largest


def dequantize_moment(codes: Tensor, largest: Tensor, signed: bool) -> Tensor:
    """Return a moment again, float32."""
    values = _table(signed).to(codes.device)[codes.flatten().int()]
    blocks = _in_blocks(values, MOMENT_BLOCK) * largest
    return blocks.flatten()[: codes.numel()].view(codes.shape)


@functools.cache
def _table(signed: bool) -> Tensor:
    """Return the 256 values of the dynamic data type, in rising order, -1 to 1 or 0 to 1.

    Notes
    -----
    Dettmers et al., "8-bit Optimizers via Block-wise Quantization", 2022: leading
    zeros give the power of ten, the bits that are left a linear fraction within it.
    """
    magnitudes = [torch.zeros(1)]
    for zeros in range(_SMALLEST_EXPONENT):
        fraction_bits = _SMALLEST_EXPONENT - 1 - zeros + (0 if signed else 1)
        edges = torch.linspace(0.1, 1.0, 2**fraction_bits + 1, dtype=torch.float64)
        magnitudes.append(((edges[1:] + edges[:-1]) / 2 * 10.0**-zeros).float())
    positive = torch.cat(magnitudes)
    parts = [positive, -positive[1:]] if signed else [positive]
    table, _order = torch.cat(parts).sort()
    table[-1] = 1.0  # The largest of a block is kept exactly.
    if signed:
        table[0] = -1.0
    return table


def _in_blocks(flat: Tensor, block: int) -> Tensor:
    """Return a vector in rows of `block`; the last entry fills what is missing."""
    missing = -flat.numel() % block
    if missing:
        flat = torch.cat([flat, flat[-1:].expand(missing)])
    return flat.view(-1, block)


def _pack(codes: Tensor) -> Tensor:
    if codes.numel() % 2:
        codes = torch.cat([codes, codes.new_zeros(1)])
    return codes[::2] | (codes[1::2] << 4)


def _unpack(packed: Tensor) -> Tensor:
    return torch.stack([packed & 15, packed >> 4], dim=1).flatten()


def _size(shape: torch.Size | tuple[int, ...]) -> int:
    size = 1
    for length in shape:
        size *= length
    return size
