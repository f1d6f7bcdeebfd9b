"""Whole texts to token ids, and which of them lie in a span of characters."""

from __future__ import annotations

import bisect
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from swift_jupyter.engine.data.spans import Span


@dataclass(frozen=True)
class Tokens:
    """The tokens of a text.

    Attributes
    ----------
    ids : list of int
        T token ids.
    encoding : tokenizers.Encoding or None
        Knows the characters of each token; None from tokenizers in Python.
    tokenizer : PreTrainedTokenizerBase
        Whose they are.
    """

    ids: list[int]
    encoding: Any
    tokenizer: Any

    def ranges(self, text: str, spans: Sequence[Span]) -> list[tuple[int, int]]:
        """Return the first token of each span and the one behind its last.

        A token across the start of a span belongs to the answer, since the
        model must produce its part; one across the end does not, since it
        holds what comes from someone else.
        """
        if self.encoding is None:
            return [
                (self._common(text[: span.start]), self._common(text[: span.end])) for span in spans
            ]
        return [
            (self._token_at(span.start, text), self._token_at(span.end, text)) for span in spans
        ]

    def _token_at(self, position: int, text: str) -> int:
        """Return the first token that ends behind `position`."""
        if position >= len(text):
            return len(self.ids)
        found: int | None = self.encoding.char_to_token(position)
        if found is not None:
            return found
        # No token has this character: some tokenizers leave blanks out of their offsets.
        return bisect.bisect_right([end for _start, end in self.encoding.offsets], position)

    def _common(self, prefix: str) -> int:
        """Return how many tokens of the whole the tokens of `prefix` begin with."""
        ids = self.tokenizer(prefix, add_special_tokens=False)["input_ids"]
        pairs = zip(ids, self.ids, strict=False)
        return sum(1 for _pair in itertools.takewhile(lambda pair: pair[0] == pair[1], pairs))


def tokenize(texts: Sequence[str], tokenizer: Any) -> list[Tokens]:
    """Tokenize whole texts, without adding special tokens: templates wrote them."""
    if not texts:
        return []
    if not getattr(tokenizer, "is_fast", False):
        # Rows above the model's length are handled here, so there is no need to warn.
        batch = tokenizer(list(texts), add_special_tokens=False, verbose=False)
        return [Tokens(list(ids), None, tokenizer) for ids in batch["input_ids"]]
    # Asked directly, it makes no Python object of every token's place.
    backend = tokenizer.backend_tokenizer
    backend.no_truncation()
    backend.no_padding()
    encodings = backend.encode_batch(list(texts), add_special_tokens=False)
    return [Tokens(encoding.ids, encoding, tokenizer) for encoding in encodings]
