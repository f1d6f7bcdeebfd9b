"""Beginnings of prompts whose keys and values are known already."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

# Shorter beginnings are computed again sooner than they are copied.
LEAST_SHARED = 16


def common_length(first: Sequence[int], second: Sequence[int]) -> int:
    """Return how many tokens two sequences begin with alike."""
    length = min(len(first), len(second))
    low, high = 0, length
    # Halving compares in C; nearly all pairs differ early or not at all.
    while low < high:
        middle = (low + high + 1) // 2
        if first[low:middle] == second[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low


class PrefixStore:
    """The latest finished sequences, so that a next turn or the same system text is not read anew.

    Parameters
    ----------
    limit : int
        Bytes at most.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._size = 0
        self._entries: OrderedDict[tuple[str, tuple[int, ...]], list[Any]] = OrderedDict()

    @property
    def total_bytes(self) -> int:
        """What is held."""
        return self._size

    def wants(self, length: int, token_bytes: int) -> bool:
        """Tell whether a sequence of this length would be kept."""
        return length >= LEAST_SHARED and length * token_bytes <= self._limit // 2

    def add(self, adapter: str, tokens: Sequence[int], taken: list[Any]) -> None:
        """Keep what `KeyValuePool.take` returned for these tokens."""
        key = (adapter, tuple(tokens))
        if key in self._entries:
            self._entries.move_to_end(key)
            return
        self._entries[key] = taken
        self._size += _size(taken)
        while self._size > self._limit:
            _key, dropped = self._entries.popitem(last=False)
            self._size -= _size(dropped)

    def find(self, adapter: str, tokens: list[int]) -> tuple[int, list[Any] | None]:
        """Return how many tokens at the beginning are known, and their keys and values."""
        best, found = 0, None
        for key in self._entries:
            if key[0] != adapter or best >= len(key[1]):
                continue
            length = common_length(list(key[1]), tokens)
            if length > best:
                best, found = length, key
        if found is None or best < LEAST_SHARED:
            return 0, None
        self._entries.move_to_end(found)
        return best, self._entries[found]

    def clear(self) -> None:
        """Forget all."""
        self._entries.clear()
        self._size = 0


def _size(taken: list[Any]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in taken)
