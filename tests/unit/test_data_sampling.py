"""``#N`` and the split."""

from __future__ import annotations

import random
from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swift_jupyter.engine.data.sampling import sample_indices, split_indices, validation_size


@given(st.integers(1, 200), st.integers(1, 900), st.integers())
def test_sampling_tiles_the_set_and_draws_the_rest(length: Any, count: Any, seed: Any) -> None:
    chosen = sample_indices(length, count, random.Random(seed))
    assert len(chosen) == count
    times = Counter(chosen)
    # Every row occurs N // length times, and count % length of them once more.
    assert set(times) <= set(range(length))
    assert Counter(times[i] - count // length for i in range(length))[1] == count % length
    assert all(times[i] - count // length in (0, 1) for i in range(length))
    assert chosen == sample_indices(length, count, random.Random(seed))


def test_sampling_depends_on_the_seed_and_not_without_shuffle() -> None:
    one, two = (sample_indices(1000, 10, random.Random(seed)) for seed in (1, 2))
    assert one != two
    assert sample_indices(5, 3, None) == [0, 1, 2]
    assert sample_indices(3, 5, None) == [0, 1, 2, 0, 1]
    assert sample_indices(3, None, random.Random(0)) == [0, 1, 2]


@given(st.integers(1, 200), st.data())
def test_split_is_a_partition(length: Any, data: Any) -> None:
    held_out = data.draw(st.integers(0, length))
    seed = data.draw(st.none() | st.integers())
    first, second = split_indices(length, held_out, None if seed is None else random.Random(seed))
    assert sorted([*first, *second]) == list(range(length))
    assert len(second) == held_out


@pytest.mark.parametrize(
    ("length", "ratio", "size"), [(100, 0.1, 10), (19, 0.1, 1), (3, 0.01, 1), (50, 0.0, 0)]
)
def test_validation_size(length: Any, ratio: Any, size: Any) -> None:
    assert validation_size(length, ratio) == size
