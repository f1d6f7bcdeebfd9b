"""The wanted files that no connection works on yet."""

from __future__ import annotations

import heapq
import time
from array import array
from collections import deque
from collections.abc import Sequence

from swift_jupyter.hub.listing import RemoteFile

SMALL_FILE = 1 << 20
# So many waiting ones mean that nothing goes at the moment.
_MOST_WAITING = 1024


class FileQueues:
    """Small files in their order, large ones by size; each as its number.

    Parameters
    ----------
    wanted : sequence of RemoteFile
        Up to millions of files, so they are kept as numbers.
    """

    def __init__(self, wanted: Sequence[RemoteFile]) -> None:
        self._wanted = wanted
        small = (n for n, f in enumerate(wanted) if f.size is not None and f.size <= SMALL_FILE)
        self._small = array("I", small)
        self._next_small = 0
        large = [n for n, f in enumerate(wanted) if f.size is None or f.size > SMALL_FILE]
        large.sort(key=lambda n: -(wanted[n].size or 0))
        self._large: deque[int] = deque(large)
        self.large_bytes = sum(wanted[n].size or 0 for n in large)
        self._small_later: list[tuple[float, int]] = []
        self._large_later: list[tuple[float, int]] = []

    def next_small(self) -> int | None:
        """Take out the next small file that is due."""
        if self._small_later and self._small_later[0][0] <= time.monotonic():
            return heapq.heappop(self._small_later)[1]
        if self._next_small < len(self._small) and len(self._small_later) < _MOST_WAITING:
            self._next_small += 1
            return self._small[self._next_small - 1]
        return None

    def next_large(self) -> int | None:
        """Take out the next large file that is due."""
        if self._large_later and self._large_later[0][0] <= time.monotonic():
            return heapq.heappop(self._large_later)[1]
        if not self._large:
            return None
        number = self._large.popleft()
        self.large_bytes -= self._wanted[number].size or 0
        return number

    def small_later(self, number: int, when: float) -> None:
        """Put a small file back until `when`, in seconds of the monotonic clock."""
        heapq.heappush(self._small_later, (when, number))

    def large_later(self, number: int, when: float) -> None:
        """Put a large file back until `when`, in seconds of the monotonic clock."""
        heapq.heappush(self._large_later, (when, number))

    @property
    def large_due(self) -> bool:
        """Whether a large file can be taken out now."""
        waiting = self._large_later
        return bool(self._large) or (bool(waiting) and waiting[0][0] <= time.monotonic())

    @property
    def untouched(self) -> bool:
        """Whether there are files that only wait for a connection or an origin."""
        return self._next_small < len(self._small) or bool(self._small_later) or bool(self._large)
