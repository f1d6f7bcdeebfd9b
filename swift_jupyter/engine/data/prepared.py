"""What the preparation of data gives: rows to train on, and what became of the others."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from swift_jupyter.engine.data.packed import PackedRows
from swift_jupyter.engine.data.rows import Conversation, RowProblem


@dataclass(frozen=True)
class PreparedData:
    """Rows that can be trained on.

    Attributes
    ----------
    train, val : PackedRows
        The rows; a row that was sampled twice is there twice.
    notices : list of str
        What a person should know: rows that were left out, and why.
    max_length : int or None
        The limit that was applied, in tokens.
    rows_read : int
        How many rows the data sets have.
    rows_bad, rows_too_long, rows_truncated, rows_unlabelled : int
        How many rows could not be used, were longer than the limit and left
        out, were cut, or had nothing to train left after the cut.
    rejects : list of RowProblem
        The rows that could not be used, with their content.
    conversations : list of Conversation
        What the rows of `train` were encoded from, when that was asked for.
    from_cache : bool
        Whether the rows were encoded by an earlier run.
    """

    train: PackedRows
    val: PackedRows
    notices: list[str]
    max_length: int | None
    rows_read: int
    rows_bad: int
    rows_too_long: int
    rows_truncated: int
    rows_unlabelled: int
    rejects: list[RowProblem] = field(default_factory=list)
    conversations: list[Conversation] = field(default_factory=list)
    from_cache: bool = False

    def to_dict(self) -> dict[str, Any]:
        """Return the numbers, without the rows, as plain values."""
        lengths = self.train.lengths()
        return {
            "train_rows": len(self.train),
            "val_rows": len(self.val),
            "train_tokens": sum(lengths),
            "trained_tokens": self.train.trained_tokens(),
            "longest_row": max(lengths, default=0),
            "max_length": self.max_length,
            "rows_read": self.rows_read,
            "rows_bad": self.rows_bad,
            "rows_too_long": self.rows_too_long,
            "rows_truncated": self.rows_truncated,
            "rows_unlabelled": self.rows_unlabelled,
            "notices": list(self.notices),
            "from_cache": self.from_cache,
        }
