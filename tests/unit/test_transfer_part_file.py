"""Part files: going on with what is there, and with nothing else."""

from __future__ import annotations

import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from swift_jupyter.hub.listing import RemoteFile
from swift_jupyter.hub.transfer.part_file import PartBusy, PartFile, part_key
from swift_jupyter.hub.transfer.pieces import Ranges

SIZE = 5000


def test_a_second_owner_is_turned_away_until_the_first_is_done(tmp_path):
    first = PartFile(tmp_path, "key", SIZE)

    with pytest.raises(PartBusy):
        PartFile(tmp_path, "key", SIZE)
    first.close()

    PartFile(tmp_path, "key", SIZE).close()


@settings(max_examples=30, deadline=None)
@given(
    writes=st.lists(st.tuples(st.integers(0, SIZE - 1), st.integers(1, 900)), max_size=8),
    torn=st.integers(0, 30),
)
def test_reopening_lacks_exactly_the_bytes_that_have_no_row(tmp_path_factory, writes, torn):
    # Given a part with some writes, and a journal whose last row may be torn
    folder = tmp_path_factory.mktemp("parts")
    part = PartFile(folder, "key", SIZE, "ab")
    pairs = [(start, min(SIZE, start + length)) for start, length in writes]
    for start, end in pairs:
        part.write(memoryview(bytes([start % 251]) * (end - start)), start)
    part.close()
    data = part.journal_path.read_bytes()
    part.journal_path.write_bytes(data[: len(data) - torn] if pairs and torn < 20 else data)
    kept = pairs[:-1] if pairs and 0 < torn < 20 else pairs

    # When it is opened again
    again = PartFile(folder, "key", SIZE, "ab")

    # Then just those bytes are lacking, and what is written next is kept too
    assert again.missing(0, SIZE) == Ranges(kept).holes(0, SIZE)
    again.write(memoryview(b"x"), 0)
    again.close()
    last = PartFile(folder, "key", SIZE, "ab")
    assert last.written == Ranges([*kept, (0, 1)])
    last.close()


def test_another_size_begins_anew(tmp_path):
    part = PartFile(tmp_path, "key", 10)
    part.write(memoryview(b"12345"), 0)
    part.close()

    other = PartFile(tmp_path, "key", 11)

    assert not other.written
    other.close()


def test_a_part_whose_file_is_gone_begins_anew(tmp_path):
    part = PartFile(tmp_path, "key", 10)
    part.write(memoryview(b"12345"), 0)
    part.close()
    part.path.unlink()

    other = PartFile(tmp_path, "key", 10)

    assert not other.written
    other.close()


def test_a_link_in_place_of_the_part_is_not_followed(tmp_path):
    precious = tmp_path / "precious"
    precious.write_bytes(b"do not touch")
    (tmp_path / "key.part").symlink_to(precious)

    with pytest.raises(OSError):
        PartFile(tmp_path, "key", 3)

    assert precious.read_bytes() == b"do not touch"
    # And nobody is locked out by the failure.
    (tmp_path / "key.part").unlink()
    PartFile(tmp_path, "key", 3).close()


def test_writing_after_close_does_nothing(tmp_path):
    part = PartFile(tmp_path, "key", 10)
    part.close()

    assert not part.write(memoryview(b"1"), 0)
    assert part.read(memoryview(bytearray(1)), 0) == 0


def test_many_threads_write_at_once(tmp_path):
    part = PartFile(tmp_path, "key", 160_000)

    def fill(number: int) -> None:
        for row in range(10):
            offset = number * 10_000 + row * 1000
            part.write(memoryview(bytes([number]) * 1000), offset)

    threads = [threading.Thread(target=fill, args=(number,)) for number in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    part.sync()

    assert part.frontier == 160_000
    part.close()
    assert part.path.read_bytes() == b"".join(bytes([n]) * 10_000 for n in range(16))


def test_the_hash_names_the_part_wherever_the_file_comes_from():
    one = RemoteFile("a/model.safetensors", 5, "AB" * 32)
    other = RemoteFile("b/other.safetensors", 5, "ab" * 32)

    assert part_key(one, "here") == part_key(other, "there")
    assert part_key(RemoteFile("x", 5), "here") != part_key(RemoteFile("x", 5), "there")
