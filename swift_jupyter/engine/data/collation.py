"""Rows of token ids to one rectangular batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from swift_jupyter.engine.data.rows import IGNORED_LABEL, EncodedRow

if TYPE_CHECKING:
    import torch


def collate(
    rows: Sequence[EncodedRow], pad_token_id: int, pad_to_multiple_of: int | None = None
) -> dict[str, torch.Tensor]:
    """Pad `rows` on the right to one length.

    Parameters
    ----------
    rows : sequence of EncodedRow
        B rows, at least one.
    pad_token_id : int
        What fills ``input_ids``; it is never attended to nor trained.
    pad_to_multiple_of : int, optional
        Round the length up to a multiple of this.

    Returns
    -------
    dict of torch.Tensor
        ``input_ids``, ``attention_mask`` and ``labels``, each (B, T), int64.
    """
    import torch

    width = max(len(row) for row in rows)
    if pad_to_multiple_of:
        width = -(-width // pad_to_multiple_of) * pad_to_multiple_of
    input_ids = torch.full((len(rows), width), pad_token_id, dtype=torch.long)
    labels = torch.full((len(rows), width), IGNORED_LABEL, dtype=torch.long)
    attention_mask = torch.zeros((len(rows), width), dtype=torch.long)
    for index, row in enumerate(rows):
        length = len(row)
        input_ids[index, :length] = torch.tensor(row.input_ids, dtype=torch.long)
        labels[index, :length] = torch.tensor(row.labels, dtype=torch.long)
        attention_mask[index, :length] = 1
    return {"input_ids": input_ids, "attention_mask": attention_mask, "labels": labels}


@dataclass(frozen=True)
class Collator:
    """`collate` with its settings, as a data collator; it can be pickled."""

    pad_token_id: int
    pad_to_multiple_of: int | None = None

    def __call__(self, rows: Sequence[EncodedRow]) -> dict[str, torch.Tensor]:
        return collate(rows, self.pad_token_id, self.pad_to_multiple_of)
