"""How many rows, and which: ``#N``, and the split into training and validation."""

from __future__ import annotations

import random


def sample_indices(length: int, count: int | None, rng: random.Random | None) -> list[int]:
    """Choose `count` of `length` rows.

    Parameters
    ----------
    length : int
        How many rows there are.
    count : int or None
        How many to take. More than there are repeats the whole set, plus a
        part of it for the remainder. None takes all.
    rng : random.Random or None
        The source of randomness; None takes the first ones in order.

    Returns
    -------
    list of int
        Row numbers, from 0.
    """
    everything = list(range(length))
    if count is None or not length:
        return everything
    repeats, remainder = divmod(count, length)
    part = rng.sample(everything, remainder) if rng else everything[:remainder]
    return everything * repeats + part


def split_indices(
    length: int, held_out: int, rng: random.Random | None
) -> tuple[list[int], list[int]]:
    """Split `length` rows into two disjoint parts.

    Parameters
    ----------
    length : int
        How many rows there are.
    held_out : int
        How many of them the second part gets.
    rng : random.Random or None
        The source of randomness; None takes the last rows as the second part.

    Returns
    -------
    tuple of list of int
        Row numbers, from 0, of the first and of the second part.
    """
    order = rng.sample(range(length), length) if rng else list(range(length))
    first = length - held_out
    return order[:first], order[first:]


def validation_size(length: int, ratio: float) -> int:
    """Return how many of `length` rows a share of `ratio` holds out: at least one if any."""
    return max(int(length * ratio), 1) if ratio > 0 else 0
