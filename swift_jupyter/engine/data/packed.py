"""Many encoded rows in a few flat arrays, in memory or mapped from a file.

A row of Python integers takes some thirty bytes a token and label; here it is five.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

from swift_jupyter.engine.data.rows import IGNORED_LABEL, EncodedRow, Origin

if TYPE_CHECKING:
    import numpy as np

_ARRAYS = ("tokens", "trained", "starts", "places", "order")
_UNITS = ("row", "line")


@dataclass(frozen=True)
class FlatRow:
    """A row before it is packed: its tokens, and the ranges of them that are trained."""

    ids: list[int]
    ranges: list[tuple[int, int]]
    origin: Origin

    @property
    def trained(self) -> int:
        """How many tokens carry a label."""
        return sum(last - first for first, last in self.ranges)

    def cut(self, start: int, end: int) -> FlatRow:
        """Return the tokens from `start` up to `end`."""
        ranges = [
            (max(first, start) - start, min(last, end) - start)
            for first, last in self.ranges
            if first < end and last > start
        ]
        return FlatRow(self.ids[start:end], ranges, self.origin)


@dataclass(frozen=True)
class PackedRows(Sequence[EncodedRow]):
    """Encoded rows, each made when it is asked for.

    Attributes
    ----------
    tokens : numpy.ndarray
        All token ids behind each other, (N,), int32.
    trained : numpy.ndarray
        Which of them carry a label, (N,), bool.
    starts : numpy.ndarray
        Where each stored row begins, and N at the end, (R + 1,), int64.
    places : numpy.ndarray
        Of each stored row the index of its source, its number there, and the index
        of its unit, (R, 3), int64.
    sources : tuple of str
        The names of the sources.
    order : numpy.ndarray
        Which stored row comes at which position, (L,), int64; a row may come twice.
    """

    tokens: np.ndarray
    trained: np.ndarray
    starts: np.ndarray
    places: np.ndarray
    sources: tuple[str, ...]
    order: np.ndarray

    def __len__(self) -> int:
        return len(self.order)

    @overload
    def __getitem__(self, index: int) -> EncodedRow: ...
    @overload
    def __getitem__(self, index: slice) -> PackedRows: ...
    def __getitem__(self, index: int | slice) -> EncodedRow | PackedRows:
        if isinstance(index, slice):
            return self._ordered(self.order[index])
        row = int(self.order[index])
        part = slice(int(self.starts[row]), int(self.starts[row + 1]))
        ids = self.tokens[part].tolist()
        labels = [
            token if trained else IGNORED_LABEL
            for token, trained in zip(ids, self.trained[part].tolist(), strict=True)
        ]
        source, number, unit = self.places[row].tolist()
        return EncodedRow(ids, labels, Origin(self.sources[source], number, _UNITS[unit]))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and list(self) == list(other)

    def lengths(self) -> list[int]:
        """Return the number of tokens of each row, without making the rows."""
        return [int(n) for n in (self.starts[1:] - self.starts[:-1])[self.order]]

    def trained_tokens(self) -> int:
        """Return how many tokens of all rows carry a label."""
        import numpy as np

        sums = np.concatenate([[0], np.cumsum(self.trained, dtype=np.int64)])
        counts = sums[self.starts[1:]] - sums[self.starts[:-1]]
        return int(counts[self.order].sum())

    def select(self, positions: Iterable[int]) -> PackedRows:
        """Return the rows at `positions`, in that order; nothing is copied."""
        import numpy as np

        return self._ordered(self.order[np.fromiter(positions, dtype=np.int64)])

    def _ordered(self, order: np.ndarray) -> PackedRows:
        return PackedRows(self.tokens, self.trained, self.starts, self.places, self.sources, order)

    def save(self, folder: Path) -> list[str]:
        """Write the arrays into `folder` and return the names of the sources.

        Raises
        ------
        OSError
            When it cannot be written.
        """
        import numpy as np

        for name in _ARRAYS:
            with (folder / f"{name}.npy").open("wb") as stream:
                np.save(stream, np.asarray(getattr(self, name)))
                stream.flush()
                os.fsync(stream.fileno())
        return list(self.sources)

    @classmethod
    def load(cls, folder: Path, sources: Sequence[str]) -> PackedRows:
        """Map what `save` wrote; the arrays are read as they are used.

        Raises
        ------
        OSError, ValueError
            When a file is missing, damaged, or does not fit the others.
        """
        import numpy as np

        arrays: dict[str, Any] = {
            name: np.load(folder / f"{name}.npy", mmap_mode="r", allow_pickle=False)
            for name in _ARRAYS
        }
        rows = cls(sources=tuple(sources), **arrays)
        count = len(rows.starts) - 1
        fits = (
            rows.starts[-1] == len(rows.tokens) == len(rows.trained)
            and rows.places.shape == (count, 3)
            and (not len(rows.order) or int(rows.order.max()) < count)
        )
        if not fits:
            raise ValueError(f"the arrays in {folder} do not fit each other")
        return rows


class RowPacker:
    """Collects encoded rows, and what was packed before, into one `PackedRows`."""

    def __init__(self) -> None:
        self._parts: list[PackedRows] = []
        self._rows: list[FlatRow] = []

    def add(self, row: FlatRow) -> None:
        """Append one row."""
        self._rows.append(row)
        if len(self._rows) >= 1024:
            self._flush()

    def extend(self, rows: PackedRows) -> None:
        """Append packed rows, whose order must be that in which they are stored."""
        self._flush()
        self._parts.append(rows)

    def _flush(self) -> None:
        if self._rows:
            self._parts.append(_pack(self._rows))
            self._rows = []

    def finish(self) -> PackedRows:
        """Return everything that was added."""
        self._flush()
        return _join(self._parts) if self._parts else _pack([])


def _pack(rows: Sequence[FlatRow]) -> PackedRows:
    import numpy as np

    sources = {name: i for i, name in enumerate(dict.fromkeys(r.origin.source for r in rows))}
    starts = np.cumsum([0, *(len(row.ids) for row in rows)], dtype=np.int64)
    flat = np.fromiter(
        itertools.chain.from_iterable(row.ids for row in rows), np.int32, int(starts[-1])
    )
    trained = np.zeros(len(flat), dtype=bool)
    for row, start in zip(rows, starts.tolist(), strict=False):
        for first, last in row.ranges:
            trained[start + first : start + last] = True
    places = [
        (sources[row.origin.source], row.origin.number, _UNITS.index(row.origin.unit))
        for row in rows
    ]
    return PackedRows(
        flat,
        trained,
        starts,
        np.array(places, dtype=np.int64).reshape(len(rows), 3),
        tuple(sources),
        np.arange(len(rows), dtype=np.int64),
    )


def _join(parts: Sequence[PackedRows]) -> PackedRows:
    import numpy as np

    if len(parts) == 1:
        return parts[0]
    sources = {name: i for i, name in enumerate(dict.fromkeys(s for p in parts for s in p.sources))}
    starts, places, end = [np.zeros(1, dtype=np.int64)], [], 0
    for part in parts:
        starts.append(part.starts[1:] + end)
        end += int(part.starts[-1])
        renamed = part.places.copy()
        new = np.array([sources[name] for name in part.sources], dtype=np.int64)
        if len(renamed):
            renamed[:, 0] = new[renamed[:, 0]]
        places.append(renamed)
    rows = sum(len(part.places) for part in parts)
    return PackedRows(
        np.concatenate([part.tokens for part in parts]),
        np.concatenate([part.trained for part in parts]),
        np.concatenate(starts),
        np.concatenate(places),
        tuple(sources),
        np.arange(rows, dtype=np.int64),
    )
