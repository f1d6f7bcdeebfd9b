"""In which portions and in which order rows are trained."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from torch.utils.data import Sampler

EFFECTIVE_BATCH_SIZE = 16
# Beyond this many padded tokens a forward pass gains no speed but takes more memory.
_TOKEN_BUDGET = {"cpu": 1024, "mps": 4096, "cuda": 8192}


@dataclass(frozen=True)
class BatchPlan:
    """Rows per forward pass, and forward passes per step."""

    batch_size: int
    accumulation: int

    @property
    def rows_per_step(self) -> int:
        """How many rows one step of the optimizer sees."""
        return self.batch_size * self.accumulation


def plan_batches(
    lengths: Sequence[int],
    device: str,
    batch_size: int | None,
    accumulation: int | None,
    world_size: int = 1,
) -> BatchPlan:
    """Choose what the user left open.

    Parameters
    ----------
    lengths : sequence of int
        The rows' lengths in tokens.
    device : str
        ``cpu``, ``mps`` or ``cuda``.
    batch_size, accumulation : int or None
        What the user asked for.
    world_size : int
        How many processes train together.

    Notes
    -----
    The rows of a step are sixteen as in ms-swift, so the result is the same; only
    how many of them share a forward pass differs.
    """
    if batch_size is None:
        longest = max(lengths)
        fitting = _TOKEN_BUDGET.get(device, 1024) // max(1, longest)
        batch_size = 1
        while batch_size * 2 <= min(fitting, EFFECTIVE_BATCH_SIZE):
            batch_size *= 2
    if accumulation is None:
        accumulation = math.ceil(EFFECTIVE_BATCH_SIZE / batch_size / world_size)
    return BatchPlan(max(1, batch_size), max(1, accumulation))


class StepSampler(Sampler[int]):
    """Mixes rows per epoch, then sorts within each step by length.

    Rows of like length share a forward pass, so little is padded, while which rows
    make up a step stays random.

    Parameters
    ----------
    lengths : sequence of int
        The rows' lengths in tokens.
    rows_per_step : int
        How many rows one step of the optimizer sees.
    seed : int
        With the epoch it decides the order, so a resumed run sees the same rows.
    shuffle : bool
        Whether to mix; without it the rows keep their order.
    """

    def __init__(
        self, lengths: Sequence[int], rows_per_step: int, seed: int, shuffle: bool = True
    ) -> None:
        self._lengths = lengths
        self._rows_per_step = rows_per_step
        self._seed = seed
        self._shuffle = shuffle
        self._epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Say which epoch comes next."""
        self._epoch = int(epoch)

    def __len__(self) -> int:
        return len(self._lengths)

    def __iter__(self) -> Iterator[int]:
        if not self._shuffle:
            yield from range(len(self._lengths))
            return
        import torch

        generator = torch.Generator().manual_seed(self._seed * 1_000_003 + self._epoch)
        order = torch.randperm(len(self._lengths), generator=generator).tolist()
        for start in range(0, len(order), self._rows_per_step):
            step = order[start : start + self._rows_per_step]
            yield from sorted(step, key=lambda row: self._lengths[row])
