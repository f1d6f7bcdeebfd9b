"""The numbers that are said about row lengths."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from swift_jupyter.engine.data.statistics import describe, histogram, padding_share

LENGTHS = st.lists(st.integers(1, 5000), max_size=200)


@given(LENGTHS, st.integers(1, 40))
def test_a_histogram_counts_every_value_once(values: list[int], bins: int) -> None:
    """Given any lengths, when counted, then each is in the one bin around it."""
    result = histogram(values, bins)

    assert sum(result.counts) == len(values)
    assert len(result.counts) <= bins + 1
    for number, count in enumerate(result.counts):
        low = result.start + number * result.width
        assert count == sum(low <= value < low + result.width for value in values)


@given(LENGTHS, st.integers(1, 32))
def test_padding_is_a_share_and_equal_lengths_need_none(values: list[int], batch: int) -> None:
    """Given any lengths, when batched, then padding is below one, and none for equal ones."""
    assert 0 <= padding_share(values, batch) < 1
    assert padding_share([7] * len(values), batch) == 0
    assert padding_share(values, 1) == 0


def test_padding_by_hand() -> None:
    """Given 1, 1, 9 and 9 tokens, when pairs are sorted, then nothing is padded."""
    assert padding_share([1, 9, 9, 1], 2, sort_within=4) == 0
    assert padding_share([1, 9], 2) == 1 - 10 / 18


@given(LENGTHS.filter(bool))
def test_the_description_lies_within_the_values(values: list[int]) -> None:
    """Given any lengths, when described, then its figures are in order."""
    numbers = describe(values)

    assert numbers["rows"] == len(values)
    assert numbers["tokens"] == sum(values)
    assert min(values) <= numbers["median"] <= numbers["p95"] <= numbers["longest"] == max(values)


def test_no_rows_are_described_as_none() -> None:
    """Given nothing, when described, then all figures are zero."""
    assert describe([])["longest"] == 0
    assert histogram([]).counts == ()
