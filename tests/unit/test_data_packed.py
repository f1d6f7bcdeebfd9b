"""Packed rows are the rows that were packed, in memory and from the disk."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from swift_jupyter.engine.data.packed import FlatRow, PackedRows, RowPacker
from swift_jupyter.engine.data.rows import IGNORED_LABEL, EncodedRow, Origin

SOURCE = st.sampled_from(["a", "b/c", "你好"])
ORIGIN = st.builds(Origin, SOURCE, st.integers(1, 10**6), st.sampled_from(["row", "line"]))


@st.composite
def encoded_rows(draw: st.DrawFn) -> EncodedRow:
    ids = draw(st.lists(st.integers(0, 2**31 - 1), min_size=1, max_size=12))
    trained = draw(st.lists(st.booleans(), min_size=len(ids), max_size=len(ids)))
    labels = [t if yes else IGNORED_LABEL for t, yes in zip(ids, trained, strict=True)]
    return EncodedRow(ids, labels, draw(ORIGIN))


def flat(row: EncodedRow) -> FlatRow:
    ranges = [(i, i + 1) for i, label in enumerate(row.labels) if label != IGNORED_LABEL]
    return FlatRow(row.input_ids, ranges, row.origin)


def packed(rows: list[EncodedRow]) -> PackedRows:
    packer = RowPacker()
    for row in rows:
        packer.add(flat(row))
    return packer.finish()


@given(encoded_rows(), st.integers(0, 12), st.integers(0, 12))
def test_a_cut_row_keeps_its_labels(row: EncodedRow, start: int, length: int) -> None:
    """Given a row, when a part of it is taken, then tokens and labels are those of the part."""
    end = min(len(row), start + length)
    cut = flat(row).cut(min(start, end), end)
    (got,) = packed_one(cut)

    assert got.input_ids == row.input_ids[min(start, end) : end]
    assert got.labels == row.labels[min(start, end) : end]
    assert cut.trained == got.trained_tokens


def packed_one(row: FlatRow) -> PackedRows:
    packer = RowPacker()
    packer.add(row)
    return packer.finish()


@given(st.lists(st.lists(encoded_rows(), max_size=6), max_size=4), st.randoms())
@settings(max_examples=60, deadline=None)
def test_rows_come_back_as_they_were(parts: list[list[EncodedRow]], chance: object) -> None:
    """Given rows in several parts, when packed, joined, chosen and stored, then all are right."""
    rows = [row for part in parts for row in part]
    packer = RowPacker()
    for part in parts:
        packer.extend(packed(part))
    joined = packer.finish()

    assert list(joined) == rows
    assert joined.lengths() == [len(row) for row in rows]
    assert joined.trained_tokens() == sum(row.trained_tokens for row in rows)
    chosen = [chance.randrange(len(rows)) for _ in range(7)] if rows else []  # type: ignore[attr-defined]
    selected = joined.select(chosen)
    assert list(selected) == [rows[i] for i in chosen]
    with tempfile.TemporaryDirectory() as folder:
        sources = selected.save(Path(folder))
        assert PackedRows.load(Path(folder), sources) == [rows[i] for i in chosen]


def test_damaged_arrays_are_refused(tmp_path: Path) -> None:
    """Given stored rows of which one array is another's, when loaded, then it is an error."""
    row = EncodedRow([1, 2, 3], [-100, 2, 3], Origin("a", 1))
    packed([row]).save(tmp_path)
    other = tmp_path / "other"
    other.mkdir()
    packed([row, row]).save(other)
    (tmp_path / "tokens.npy").write_bytes((other / "tokens.npy").read_bytes())

    with pytest.raises(ValueError, match="do not fit"):
        PackedRows.load(tmp_path, ["a"])
    (tmp_path / "starts.npy").write_bytes(b"nonsense")
    with pytest.raises((ValueError, EOFError)):
        PackedRows.load(tmp_path, ["a"])
