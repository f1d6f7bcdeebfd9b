"""Properties of the arithmetic of ranges, against sets of single bytes."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from swift_jupyter.hub.transfer.pieces import Ranges

SIZE = 60
ranges = st.tuples(st.integers(0, SIZE), st.integers(0, SIZE))
changes = st.lists(st.tuples(st.booleans(), ranges), max_size=30)


def build(steps: list[tuple[bool, tuple[int, int]]]) -> tuple[Ranges, set[int]]:
    found, expected = Ranges(), set()
    for adds, (start, end) in steps:
        if adds:
            found.add(start, end)
            expected |= set(range(start, end))
        else:
            found.remove(start, end)
            expected -= set(range(start, end))
    return found, expected


@given(changes)
def test_adding_and_removing_is_union_and_difference_of_bytes(steps):
    found, expected = build(steps)

    assert {byte for start, end in found for byte in range(start, end)} == expected
    assert found.total == len(expected)
    assert bool(found) == bool(expected)


@given(changes)
def test_ranges_are_sorted_and_never_touch(steps):
    found = list(build(steps)[0])

    assert all(start < end for start, end in found)
    assert all(before[1] < after[0] for before, after in pairwise(found))


@given(changes, ranges)
def test_holes_are_exactly_what_is_missing(steps, window):
    found, expected = build(steps)
    start, end = window

    holes = found.holes(start, end)

    assert {byte for low, high in holes for byte in range(low, high)} == (
        set(range(start, end)) - expected
    )
    assert found.overlaps(start, end) == bool(set(range(start, end)) & expected)


@given(changes)
def test_the_frontier_is_the_first_missing_byte(steps):
    found, expected = build(steps)

    assert found.frontier == next(byte for byte in range(SIZE + 1) if byte not in expected)
