"""Token ids to pieces of text, as they come."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from transformers.generation.streamers import BaseStreamer

# A piece of a character that needs more tokens decodes to this.
_UNFINISHED = "\ufffd"


class PieceStreamer(BaseStreamer):  # type: ignore[misc]
    """Collects the tokens of one answer and hands out its text piece by piece.

    Parameters
    ----------
    tokenizer : PreTrainedTokenizerBase
        Decodes the tokens.
    on_text : callable, optional
        Called with each new piece.
    """

    def __init__(self, tokenizer: Any, on_text: Callable[[str], None] | None) -> None:
        self._tokenizer = tokenizer
        self._on_text = on_text
        self._prompt_seen = False
        self._start = 0  # where the text not yet handed out begins, in tokens
        self._shown = ""  # what was handed out of the text from `_start` on
        self.tokens: list[int] = []
        self.text = ""

    def put(self, value: Any) -> None:
        """Take the prompt (passed over) or one new token."""
        if not self._prompt_seen:
            self._prompt_seen = True
            return
        self.tokens.extend(int(token) for token in value.flatten())
        piece = self._decode()
        if not piece.endswith(_UNFINISHED):
            self._hand_out(piece)

    def end(self) -> None:
        """Hand out what is left; safe to call twice."""
        self._hand_out(self._decode())

    def _decode(self) -> str:
        return str(
            self._tokenizer.decode(
                self.tokens[self._start :],
                skip_special_tokens=True,
                clean_up_tokenization_spaces=False,
            )
        )

    def _hand_out(self, decoded: str) -> None:
        piece = decoded[len(self._shown) :]
        if not piece:
            return
        self._shown = decoded
        self.text += piece
        if decoded.endswith("\n"):
            # A new line starts a new text, so that long answers are not decoded again and again.
            self._start, self._shown = len(self.tokens), ""
        if self._on_text is not None:
            self._on_text(piece)
