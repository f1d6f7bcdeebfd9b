"""Arithmetic of byte ranges: what a file has, what it lacks."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator

Range = tuple[int, int]


class Ranges:
    """A set of bytes as sorted ranges that neither overlap nor touch.

    Parameters
    ----------
    ranges : iterable of (int, int)
        Start and end (exclusive), in any order.
    """

    __slots__ = ("_ends", "_starts")

    def __init__(self, ranges: Iterable[Range] = ()) -> None:
        self._starts: list[int] = []
        self._ends: list[int] = []
        for start, end in ranges:
            self.add(start, end)

    def __iter__(self) -> Iterator[Range]:
        return iter(list(zip(self._starts, self._ends, strict=True)))

    def __bool__(self) -> bool:
        return bool(self._starts)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Ranges) and list(self) == list(other)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"Ranges({list(self)})"

    @property
    def total(self) -> int:
        """The number of bytes."""
        return sum(self._ends) - sum(self._starts)

    @property
    def frontier(self) -> int:
        """The number of bytes from 0 on without a hole."""
        return self._ends[0] if self._starts and self._starts[0] == 0 else 0

    def add(self, start: int, end: int) -> None:
        """Put in the bytes from `start` to `end`."""
        if start >= end:
            return
        first = bisect_left(self._ends, start)
        last = bisect_right(self._starts, end)
        if first < last:
            start = min(start, self._starts[first])
            end = max(end, self._ends[last - 1])
        self._starts[first:last] = [start]
        self._ends[first:last] = [end]

    def remove(self, start: int, end: int) -> None:
        """Take out the bytes from `start` to `end`."""
        if start >= end:
            return
        first = bisect_right(self._ends, start)
        last = bisect_left(self._starts, end)
        if first >= last:
            return
        kept: list[Range] = []
        if self._starts[first] < start:
            kept.append((self._starts[first], start))
        if end < self._ends[last - 1]:
            kept.append((end, self._ends[last - 1]))
        self._starts[first:last] = [piece[0] for piece in kept]
        self._ends[first:last] = [piece[1] for piece in kept]

    def holes(self, start: int, end: int) -> list[Range]:
        """Return the ranges between `start` and `end` that are not in the set."""
        result = []
        for index in range(bisect_right(self._ends, start), len(self._starts)):
            if self._starts[index] >= end:
                break
            if start < self._starts[index]:
                result.append((start, self._starts[index]))
            start = self._ends[index]
        if start < end:
            result.append((start, end))
        return result

    def first(self) -> Range | None:
        """Return the first range, or None."""
        return (self._starts[0], self._ends[0]) if self._starts else None

    def overlaps(self, start: int, end: int) -> bool:
        """Tell whether any byte from `start` to `end` is in the set."""
        index = bisect_right(self._ends, start)
        return start < end and index < len(self._starts) and self._starts[index] < end
