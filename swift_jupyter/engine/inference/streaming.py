"""Token ids to pieces of text, as they come."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from transformers.generation.streamers import BaseStreamer

# A piece of a character that needs more tokens decodes to this.
_UNFINISHED = "\ufffd"


class PieceStreamer(BaseStreamer):
    """Collects the tokens of one answer and hands out its text piece by piece.

    Parameters
    ----------
    tokenizer : PreTrainedTokenizerBase
        Decodes the tokens.
    on_text : callable, optional
        Called with each new piece.

    Notes
    -----
    Only a short window is decoded at every token. It begins with tokens whose text was
    handed out before, since decoders treat the first token apart: they drop its space.
    A character whose last bytes never come is not handed out.
    """

    def __init__(self, tokenizer: Any, on_text: Callable[[str], None] | None) -> None:
        self._tokenizer = tokenizer
        self._on_text = on_text
        self._prompt_seen = False
        self._window = 0  # where the decoded window begins, in tokens
        self._whole = 0  # up to where its text was handed out whole, in tokens
        self._shown = 0  # how many characters of the window's text were handed out
        self.tokens: list[int] = []
        self.text = ""

    def put(self, value: Any) -> None:
        """Take the prompt (passed over) or new tokens."""
        if not self._prompt_seen:
            self._prompt_seen = True
            return
        self.tokens.extend(int(token) for token in value.flatten())
        decoded = self._decode(self._window)
        complete = decoded.rstrip(_UNFINISHED)
        piece = complete[self._shown :]
        if not piece:
            return
        self._shown += len(piece)
        if complete == decoded:
            self._window, self._whole = self._whole, len(self.tokens)
            self._shown = len(self._decode(self._window))
        self.text += piece
        if self._on_text is not None:
            self._on_text(piece)

    def end(self) -> None:
        """Do nothing: what is complete has been handed out already."""

    def _decode(self, start: int) -> str:
        return str(
            self._tokenizer.decode(
                self.tokens[start:],
                skip_special_tokens=True,
                clean_up_tokenization_spaces=False,
            )
        )
