"""A row's tokens as text, with what is trained: for a coloured view."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from swift_jupyter.engine.data.rows import IGNORED_LABEL, EncodedRow

_INCOMPLETE = "\ufffd"
_LONGEST_CHARACTER = 4  # Bytes in UTF-8, so at most as many byte-level tokens.
_CONTEXT = 4  # Tokens before a piece, so that leading blanks are decoded as in the text.


@dataclass(frozen=True)
class TokenPiece:
    """The text of one token, or of the few that together make one character."""

    text: str
    ids: tuple[int, ...]
    trained: bool


def preview(tokenizer: Any, row: EncodedRow) -> list[TokenPiece]:
    """Return the pieces of `row`, which put together give its text.

    Parameters
    ----------
    tokenizer : PreTrainedTokenizerBase
        The tokenizer the row was encoded with.
    row : EncodedRow
        The row.
    """
    pieces: list[TokenPiece] = []
    pending: list[int] = []
    for position, token in enumerate(row.input_ids):
        pending.append(token)
        start = position + 1 - len(pending)
        text = _text(tokenizer, row.input_ids, start, position + 1)
        if text.endswith(_INCOMPLETE) and _may_go_on(row, position, len(pending)):
            continue
        trained = row.labels[position] != IGNORED_LABEL
        pieces.append(TokenPiece(text, tuple(pending), trained))
        pending = []
    return pieces


def _may_go_on(row: EncodedRow, position: int, length: int) -> bool:
    if position + 1 == len(row.input_ids) or length == _LONGEST_CHARACTER:
        return False
    ignored = [label == IGNORED_LABEL for label in row.labels[position : position + 2]]
    return ignored[0] == ignored[1]


def _text(tokenizer: Any, ids: list[int], start: int, end: int) -> str:
    before = max(0, start - _CONTEXT)
    context = str(tokenizer.decode(ids[before:start])) if start else ""
    whole = str(tokenizer.decode(ids[before:end]))
    if whole.startswith(context):
        return whole[len(context) :]
    return str(tokenizer.decode(ids[start:end]))
