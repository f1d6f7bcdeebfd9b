"""The append-only index: whatever is torn, no wrong row is ever read."""

import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from swift_jupyter.hub.store.index import ShardedIndex, decode_line, encode_line

KEYS = st.sampled_from(["aa01", "aa02", "ab01", "ff99"])
FIELDS = st.text(st.characters(blacklist_categories=("Cs",), blacklist_characters="\0"), max_size=8)
ROWS = st.lists(st.tuples(KEYS, FIELDS, FIELDS), max_size=12)


@given(row=st.tuples(FIELDS, FIELDS, FIELDS))
def test_a_line_tells_its_row(row: tuple[str, ...]) -> None:
    line = encode_line(row)
    assert line.endswith(b"\n") and line.count(b"\n") == 1
    assert decode_line(line[:-1]) == row


def test_paths_that_are_no_text_survive() -> None:
    path = os.fsdecode(b"/caf\xe9\n\t%41")
    assert decode_line(encode_line(("aa", path))[:-1]) == ("aa", path)


@given(row=st.tuples(KEYS, FIELDS, FIELDS), data=st.data())
def test_a_damaged_line_is_no_row(row: tuple[str, ...], data: st.DataObject) -> None:
    line = encode_line(row)[:-1]
    cut = data.draw(st.integers(0, len(line) - 1))
    assert decode_line(line[:cut]) is None
    flipped = line[:cut] + bytes([line[cut] ^ 1]) + line[cut + 1 :]
    assert decode_line(flipped) is None


@settings(deadline=None)
@given(rows=ROWS, cut=st.integers(0, 200), more=ROWS)
def test_a_crash_loses_the_torn_row_only(
    tmp_path_factory: pytest.TempPathFactory,
    rows: list[tuple[str, str, str]],
    cut: int,
    more: list[tuple[str, str, str]],
) -> None:
    # Given an index whose last line was torn off by a crash
    folder = tmp_path_factory.mktemp("index")
    ShardedIndex(folder, 3).append(rows)
    file = folder / "aa.log"
    if file.exists():
        with file.open("r+b") as stream:
            stream.truncate(max(0, file.stat().st_size - cut))
    # When others go on with it
    ShardedIndex(folder, 3).append(more)
    # Then all that they read is true, in its order, and the new rows are all there
    read = ShardedIndex(folder, 3)
    for key in ("aa01", "aa02", "ab01", "ff99"):
        mine = [row for row in rows if row[0] == key]
        new = [row for row in more if row[0] == key]
        found = read.rows(key)
        old = found[: len(found) - len(new)]
        assert found[len(old) :] == new
        assert old == mine[: len(old)]
        if key[:2] != "aa":
            assert old == mine


def test_two_writers_read_each_other(tmp_path: Path) -> None:
    # Given two programs with one index, both of which have read it
    one, other = ShardedIndex(tmp_path, 2), ShardedIndex(tmp_path, 2)
    assert one.rows("aa") == other.rows("aa") == []
    # When they write in turns
    one.append([("aa", "1")])
    other.append([("aa", "2")])
    one.append([("aa", "3")])
    # Then both know all, in the order of writing
    for index in (one, other):
        index.refresh("aa")
        assert [row[1] for row in index.rows("aa")] == ["1", "2", "3"]


def test_compacting_keeps_what_is_wanted_and_readers_follow(tmp_path: Path) -> None:
    one, other = ShardedIndex(tmp_path, 2), ShardedIndex(tmp_path, 2)
    one.append([("aa", str(number)) for number in (1, 2, 3, 2)])
    other.rows("aa")
    one.compact(lambda row: row[1] != "3")
    assert [row[1] for row in one.rows("aa")] == ["1", "2"]
    other.refresh("aa")
    assert [row[1] for row in other.rows("aa")] == ["1", "2"]
    one.append([("aa", "4")])
    assert [row[1] for row in ShardedIndex(tmp_path, 2).rows("aa")] == ["1", "2", "4"]


def test_foreign_lines_are_passed_over(tmp_path: Path) -> None:
    (tmp_path / "aa.log").write_bytes(
        b"garbage\n\xff\xfe\n" + encode_line(("aa", "1", "too many")) + encode_line(("aa", "2"))
    )
    assert ShardedIndex(tmp_path, 2).rows("aa") == [("aa", "2")]
