"""Ranges and tags of requests."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swift_jupyter.hub.node.ranges import UnsatisfiableRange, etag_matches, parse_range

sizes = st.integers(0, 1 << 50)


@given(sizes, st.data())
def test_a_range_is_inside_the_file_and_what_was_asked(size: int, data: st.DataObject) -> None:
    first = data.draw(st.integers(0, size + 5))
    last = data.draw(st.integers(first, size + 10))
    if first >= size:
        with pytest.raises(UnsatisfiableRange):
            parse_range(f"bytes={first}-{last}", size)
        return
    assert parse_range(f"bytes={first}-{last}", size) == (first, min(last + 1, size))
    assert parse_range(f"Bytes = {first} - ", size) == (first, size)


@given(sizes, st.integers(1, 1 << 60))
def test_a_suffix_is_the_end(size: int, count: int) -> None:
    if size == 0:
        with pytest.raises(UnsatisfiableRange):
            parse_range(f"bytes=-{count}", size)
    else:
        assert parse_range(f"bytes=-{count}", size) == (max(0, size - count), size)


@given(st.text(max_size=40), sizes)
def test_nonsense_means_the_whole_file_or_nothing(header: str, size: int) -> None:
    try:
        found = parse_range(header, size)
    except UnsatisfiableRange:
        return
    assert found is None or 0 <= found[0] < found[1] <= size


@pytest.mark.parametrize(
    "header",
    ["bytes=0-1,5-6", "bytes=5-2", "bytes=-", "lines=0-1", "bytes=a-b", "bytes=١-٢", "bytes=0-1x"],
)
def test_what_is_not_understood_is_ignored(header: str) -> None:
    assert parse_range(header, 100) is None


@pytest.mark.parametrize(
    ("header", "fits"),
    [
        ('"abc"', True),
        ('W/"abc"', True),
        ('"x", "abc"', True),
        ("*", True),
        ("abc", True),
        ('"abcd"', False),
        ("", False),
        (None, False),
        ('"x","y"', False),
    ],
)
def test_tags(header: str | None, fits: bool) -> None:
    assert etag_matches(header, "abc") is fits
