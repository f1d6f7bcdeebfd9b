"""Rows to one batch."""

from __future__ import annotations

import pickle
from typing import Any

import pytest

from swift_jupyter.engine.data import IGNORED_LABEL, Collator, EncodedRow, Origin, collate

ROWS = [
    EncodedRow([1, 2, 3], [IGNORED_LABEL, 2, 3], Origin("t", 1)),
    EncodedRow([4, 5, 6, 7, 8], [IGNORED_LABEL, 5, 6, 7, 8], Origin("t", 2)),
]


def test_padding_is_on_the_right_and_never_trained() -> None:
    batch = collate(ROWS, pad_token_id=9)
    assert batch["input_ids"].tolist() == [[1, 2, 3, 9, 9], [4, 5, 6, 7, 8]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]]
    assert batch["labels"].tolist() == [[-100, 2, 3, -100, -100], [-100, 5, 6, 7, 8]]
    assert {str(tensor.dtype) for tensor in batch.values()} == {"torch.int64"}


@pytest.mark.parametrize(("multiple", "width"), [(None, 5), (4, 8), (5, 5), (8, 8)])
def test_width_is_rounded_up(multiple: Any, width: Any) -> None:
    assert collate(ROWS, 0, multiple)["input_ids"].shape == (2, width)


def test_collator_survives_pickling() -> None:
    collator = pickle.loads(pickle.dumps(Collator(9, 8)))
    assert collator(ROWS)["labels"].shape == (2, 8)
