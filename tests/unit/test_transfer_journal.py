"""What a journal may be trusted with after a crash, a torn write, or a reboot."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from swift_jupyter.hub.transfer.part_journal import (
    dropped_row,
    header_row,
    read_journal,
    synced_row,
    written_row,
)
from swift_jupyter.hub.transfer.pieces import Ranges

SIZE = 200
writes = st.lists(
    st.tuples(st.integers(0, SIZE - 1), st.integers(1, SIZE)).map(
        lambda pair: (pair[0], min(SIZE, pair[0] + pair[1]))
    ),
    max_size=20,
)


def bytes_of(ranges: Ranges) -> set[int]:
    return {byte for start, end in ranges for byte in range(start, end)}


def journal(rows: list[bytes], boot: str | None = "boot-1") -> bytes:
    return header_row(SIZE, "ab", boot) + b"".join(rows)


@given(writes)
def test_a_whole_journal_of_the_same_boot_gives_exactly_what_was_written(pairs):
    state = read_journal(journal([written_row(*pair) for pair in pairs]), "boot-1")

    assert state is not None
    assert (state.size, state.sha256) == (SIZE, "ab")
    assert state.written == Ranges(pairs)


@given(writes, st.data())
def test_any_prefix_gives_only_what_had_been_written_by_then(pairs, data):
    rows = [written_row(*pair) for pair in pairs]
    whole = journal(rows)
    cut = data.draw(st.integers(0, len(whole)))

    state = read_journal(whole[:cut], "boot-1")

    # Given how many rows are whole, exactly those count.
    ends = [len(journal(rows[: number + 1])) for number in range(len(rows))]
    kept = sum(end <= cut for end in ends)
    if cut < len(journal([])):
        assert state is None
    else:
        assert state is not None and state.written == Ranges(pairs[:kept])


@given(writes, st.binary(max_size=40), st.data())
def test_a_damaged_tail_never_adds_a_byte(pairs, garbage, data):
    rows = [written_row(*pair) for pair in pairs]
    whole = journal(rows)
    cut = data.draw(st.integers(0, len(whole)))

    state = read_journal(whole[:cut] + garbage, "boot-1")

    if state is not None:
        assert bytes_of(state.written) <= bytes_of(Ranges(pairs))


@given(writes, writes, st.sampled_from(["boot-2", None]))
def test_after_a_reboot_only_what_was_synced_counts(before, after, boot):
    rows = [written_row(*pair) for pair in before]
    rows.append(synced_row(len(journal(rows))))
    rows += [written_row(*pair) for pair in after]

    state = read_journal(journal(rows), boot)

    assert state is not None and state.written == Ranges(before)


@given(writes, writes)
def test_a_row_written_during_a_sync_is_not_covered_by_it(before, during):
    covered = len(journal([written_row(*pair) for pair in before]))
    rows = [written_row(*pair) for pair in (*before, *during)]
    rows.append(synced_row(covered))

    state = read_journal(journal(rows), "boot-2")

    assert state is not None and state.written == Ranges(before)


@given(writes, st.tuples(st.integers(0, SIZE), st.integers(0, SIZE)))
def test_what_was_thrown_away_does_not_count(pairs, dropped):
    rows = [*(written_row(*pair) for pair in pairs), dropped_row(*dropped)]

    state = read_journal(journal(rows), "boot-1")

    assert state is not None
    assert bytes_of(state.written) == bytes_of(Ranges(pairs)) - set(range(*dropped))


def test_an_unknown_boot_trusts_only_syncs():
    data = header_row(SIZE, None, None) + written_row(0, 9)

    state = read_journal(data, None)

    assert state is not None and not state.written
