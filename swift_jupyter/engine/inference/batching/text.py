"""From the tokens of one answer to its text, up to a stop word."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from swift_jupyter.engine.inference.streaming import PieceStreamer


class AnswerText:
    """Collects the text of an answer, and holds back what may be the beginning of a stop word.

    Parameters
    ----------
    tokenizer : PreTrainedTokenizerBase
        Decodes the tokens.
    stop : sequence of str
        Words that end the answer and do not belong to it.

    Attributes
    ----------
    text : str
        What was handed out.
    stopped : bool
        Whether a stop word has come.
    """

    def __init__(self, tokenizer: Any, stop: Sequence[str] = ()) -> None:
        self._pieces = PieceStreamer(tokenizer, None)
        self._pieces.put(None)  # It expects the prompt first.
        self._stop = [word for word in stop if word]
        self.text = ""
        self.stopped = False

    def add(self, token: int, last: bool = False) -> str:
        """Take a token and return the text that is certain now.

        Parameters
        ----------
        token : int
            The next token.
        last : bool
            Whether the answer ends with it, so that nothing has to be held back.
        """
        import torch

        self._pieces.put(torch.tensor([token]))
        return self._hand_out(last)

    def end(self) -> str:
        """Return what was held back."""
        return self._hand_out(True)

    def _hand_out(self, last: bool) -> str:
        if self.stopped:
            return ""
        whole = self._pieces.text
        # A word may have begun in what was held back, never in what was handed out.
        found = [place for word in self._stop if (place := whole.find(word, len(self.text))) >= 0]
        if found:
            self.stopped = True
            end = min(found)
        else:
            end = len(whole) if last else len(whole) - held_back(whole, self._stop)
        piece = whole[len(self.text) : end]
        self.text += piece
        return piece


def held_back(text: str, words: Sequence[str]) -> int:
    """Return how many characters at the end of a text may be the beginning of one of `words`."""
    longest = max((len(word) - 1 for word in words), default=0)
    for count in range(min(longest, len(text)), 0, -1):
        end = text[-count:]
        if any(word.startswith(end) for word in words):
            return count
    return 0
