"""Series of numbers: smoothing, thinning, and a line made of characters."""

from __future__ import annotations

import math
from collections.abc import Sequence

_BARS = "▁▂▃▄▅▆▇█"


def smooth(values: Sequence[float], weight: float = 0.8) -> list[float]:
    """Return the exponential moving average, without the pull towards zero at its start.

    Values that are not finite are passed over and keep the average as it was.

    Parameters
    ----------
    values : sequence of float
        The raw values.
    weight : float
        How much of the average stays at each step, 0 to 1.
    """
    average, correction, smoothed = 0.0, 0.0, []
    for value in values:
        if math.isfinite(value):
            average = weight * average + (1 - weight) * value
            correction = weight * correction + (1 - weight)
        smoothed.append(average / correction if correction else math.nan)
    return smoothed


def thin(
    xs: Sequence[float], ys: Sequence[float], limit: int = 800
) -> tuple[list[float], list[float]]:
    """Return about `limit` points: the least and the greatest of each stretch.

    A spike of one step stays visible that way, which a plain sample would lose.
    """
    if len(xs) <= limit:
        return list(xs), list(ys)
    size = math.ceil(len(xs) / (limit // 2))
    kept: list[int] = []
    for start in range(0, len(xs), size):
        stretch = range(start, min(start + size, len(xs)))
        kept.extend(sorted({min(stretch, key=ys.__getitem__), max(stretch, key=ys.__getitem__)}))
    return [xs[i] for i in kept], [ys[i] for i in kept]


def sparkline(values: Sequence[float], width: int = 24) -> str:
    """Return the course of `values` as a line of block characters."""
    finite = [value for value in values if math.isfinite(value)]
    if not finite:
        return ""
    if len(finite) > width:
        size = len(finite) / width
        finite = [
            sum(part) / len(part)
            for i in range(width)
            if (part := finite[int(i * size) : int((i + 1) * size)])
        ]
    low, high = min(finite), max(finite)
    scale = (len(_BARS) - 1) / (high - low) if high > low else 0.0
    return "".join(_BARS[round((value - low) * scale)] for value in finite)
