"""Numbers about the lengths of rows: a histogram, and how much of a batch is padding."""

from __future__ import annotations

import math
import random
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Histogram:
    """How many values fall into bins of equal width.

    Attributes
    ----------
    start : int
        The left edge of the first bin.
    width : int
        The width of every bin.
    counts : tuple of int
        The number of values in each.
    """

    start: int
    width: int
    counts: tuple[int, ...]


def histogram(values: Sequence[int], bins: int = 24) -> Histogram:
    """Count `values` in at most `bins` bins whose edges are round numbers."""
    if not values:
        return Histogram(0, 1, ())
    low, high = min(values), max(values)
    width = _round_up(max(1, math.ceil((high - low + 1) / bins)))
    start = low // width * width
    counts = [0] * ((high - start) // width + 1)
    for value in values:
        counts[(value - start) // width] += 1
    return Histogram(start, width, tuple(counts))


def _round_up(width: int) -> int:
    power = 1
    while True:
        for factor in (1, 2, 5):
            if factor * power >= width:
                return factor * power
        power *= 10


def padding_share(lengths: Sequence[int], batch_size: int, sort_within: int = 0) -> float:
    """Return which share of the tokens of all batches is padding.

    Parameters
    ----------
    lengths : sequence of int
        The rows' lengths in tokens.
    batch_size : int
        Rows per batch.
    sort_within : int
        Rows are mixed; with this above 0 so many are then sorted by length before they
        are divided into batches.
    """
    if not lengths:
        return 0.0
    order = list(lengths)
    random.Random(0).shuffle(order)
    if sort_within:
        blocks = (order[i : i + sort_within] for i in range(0, len(order), sort_within))
        order = [length for block in blocks for length in sorted(block)]
    batches = [order[i : i + batch_size] for i in range(0, len(order), batch_size)]
    padded = sum(max(batch) * len(batch) for batch in batches)
    return 1 - sum(order) / padded if padded else 0.0


def describe(lengths: Sequence[int]) -> dict[str, Any]:
    """Return count, sum, mean, median, 95th percentile and maximum; all 0 for no rows."""
    if not lengths:
        return {"rows": 0, "tokens": 0, "mean": 0.0, "median": 0, "p95": 0, "longest": 0}
    ordered = sorted(lengths)
    return {
        "rows": len(ordered),
        "tokens": sum(ordered),
        "mean": sum(ordered) / len(ordered),
        "median": int(statistics.median(ordered)),
        "p95": ordered[min(len(ordered) - 1, math.ceil(0.95 * len(ordered)) - 1)],
        "longest": ordered[-1],
    }
