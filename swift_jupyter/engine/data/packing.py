"""Rows of token ids to one sequence without padding, in which a common beginning stands once.

Rows of a chat data set mostly begin with the same system text. Behind each other, each
seeing only that beginning and itself, they give the same loss and the same gradients as
padded side by side, from far fewer tokens. The mask takes the square of the length, so
this is for batches of short rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from swift_jupyter.engine.data.collation import collate
from swift_jupyter.engine.data.rows import IGNORED_LABEL, EncodedRow

if TYPE_CHECKING:
    import torch


def shared_prefix(rows: Sequence[EncodedRow]) -> int:
    """Return with how many tokens all rows begin alike, none of which is trained.

    The token behind them is not trained either: the last common token has to predict
    another one in each row, which one copy of it cannot.
    """
    longest = min(len(row) for row in rows) - 1
    first = rows[0]
    for position in range(longest):
        token = first.input_ids[position]
        if any(
            row.input_ids[position] != token or row.labels[position + 1] != IGNORED_LABEL
            for row in rows
        ):
            return position
    return max(longest, 0)


def pack(rows: Sequence[EncodedRow], dtype: torch.dtype) -> dict[str, torch.Tensor]:
    """Put `rows` behind each other.

    Parameters
    ----------
    rows : sequence of EncodedRow
        At least one row, none of whose first tokens is trained.
    dtype : torch.dtype
        The data type of the model's activations, which the mask must have.

    Returns
    -------
    dict of torch.Tensor
        ``input_ids``, ``position_ids`` and ``labels``, each (1, T), int64;
        ``attention_mask``, (1, 1, T, T), 0 where a token may look and else the least
        number; ``row_tokens``, a scalar, the tokens of the rows as they are.

    Raises
    ------
    ValueError
        When the first token of a row is trained: the row before would have to predict it.
    """
    import torch

    if any(row.labels[0] != IGNORED_LABEL for row in rows):
        raise ValueError("the first token of a row is trained")
    shared = shared_prefix(rows) if len(rows) > 1 else 0
    ids, labels = list(rows[0].input_ids[:shared]), [IGNORED_LABEL] * shared
    positions, owners = list(range(shared)), [0] * shared
    for number, row in enumerate(rows, start=1):
        ids += row.input_ids[shared:]
        labels += row.labels[shared:]
        positions += range(shared, len(row))
        owners += [number] * (len(row) - shared)
    owner = torch.tensor(owners)
    visible = (owner[:, None] == owner[None, :]) | (owner[None, :] == 0)
    visible &= torch.ones_like(visible).tril()
    mask = torch.zeros(visible.shape, dtype=dtype).masked_fill_(~visible, torch.finfo(dtype).min)
    return {
        "input_ids": torch.tensor([ids]),
        "position_ids": torch.tensor([positions]),
        "attention_mask": mask[None, None],
        "labels": torch.tensor([labels]),
        "row_tokens": torch.tensor(sum(len(row) for row in rows)),
    }


def single_rows(batch: dict[str, torch.Tensor]) -> list[dict[str, torch.Tensor]]:
    """Return every row of a padded or packed batch as a batch of its own, without padding.

    Parameters
    ----------
    batch : dict of torch.Tensor
        What `pack` or `collate` returned.

    Returns
    -------
    list of dict
        ``input_ids``, ``attention_mask`` and ``labels`` of each row, each (1, T).
    """
    import torch

    ids, labels, mask = batch["input_ids"], batch["labels"], batch["attention_mask"]
    if mask.dim() == 2:
        places = [(row, attended.bool()) for row, attended in enumerate(mask)]
    else:
        positions = batch["position_ids"][0]
        # The next row goes back to where the common beginning ends.
        last = torch.cat([positions[1:] <= positions[:-1], torch.ones_like(positions[:1]).bool()])
        places = [(0, mask[0, 0, end] == 0) for end in last.nonzero().squeeze(-1)]
    return [
        {
            "input_ids": ids[row][chosen][None],
            "attention_mask": torch.ones_like(ids[row][chosen])[None],
            "labels": labels[row][chosen][None],
        }
        for row, chosen in places
    ]


@dataclass(frozen=True)
class PackingCollator:
    """`pack` with its settings, as a data collator; it can be pickled.

    Rows that cannot share a sequence, and rows that are alone, are padded as usual.
    """

    pad_token_id: int
    dtype: torch.dtype

    def __call__(self, rows: Sequence[EncodedRow]) -> dict[str, torch.Tensor]:
        if len(rows) == 1 or any(row.labels[0] != IGNORED_LABEL for row in rows):
            return collate(rows, self.pad_token_id)
        return pack(rows, self.dtype)
