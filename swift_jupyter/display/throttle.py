"""Drawing often enough for a person and seldom enough for the machine."""

from __future__ import annotations

import time
from collections.abc import Callable


class Throttle:
    """Says when to draw next.

    Parameters
    ----------
    interval : float
        At least this many seconds between the starts of two drawings.
    share : float
        At most this share of the time is spent on drawing.
    clock : callable
        Returns seconds; for tests.
    """

    def __init__(
        self,
        interval: float,
        share: float = 1.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._interval = interval
        self._share = share
        self._clock = clock
        self._next = float("-inf")

    def due(self) -> bool:
        """Tell whether it is time."""
        return self._clock() >= self._next

    def run(self, draw: Callable[[], None]) -> None:
        """Draw, and put off the next drawing by what this one cost."""
        started = self._clock()
        draw()
        cost = self._clock() - started
        self._next = started + max(self._interval, cost / self._share)
