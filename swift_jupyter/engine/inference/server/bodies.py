"""The JSON of answers, whole and in pieces."""

from __future__ import annotations

import time
import uuid
from collections.abc import Sequence
from typing import Any

from swift_jupyter.engine.inference.server.service import Piece, TokenText, Usage


class Bodies:
    """Builds all bodies that answer one request.

    Parameters
    ----------
    model : str
        As the client called it.
    chat : bool
        Whether it was a conversation.
    """

    def __init__(self, model: str, chat: bool) -> None:
        self._chat = chat
        self._model = model
        self._id = f"{'chatcmpl' if chat else 'cmpl'}-{uuid.uuid4().hex}"
        self._created = int(time.time())

    def whole(self, choices: Sequence[dict[str, Any]], usage: Usage) -> dict[str, Any]:
        """Return a whole answer."""
        kind = "chat.completion" if self._chat else "text_completion"
        return {**self._head(kind), "choices": list(choices), "usage": usage.to_dict()}

    def chunk(
        self, choices: Sequence[dict[str, Any]], usage: Usage | None = None
    ) -> dict[str, Any]:
        """Return one event of a stream."""
        kind = "chat.completion.chunk" if self._chat else "text_completion"
        body = {**self._head(kind), "choices": list(choices)}
        return body if usage is None else {**body, "usage": usage.to_dict()}

    def _head(self, kind: str) -> dict[str, Any]:
        return {"id": self._id, "object": kind, "created": self._created, "model": self._model}

    def choice(
        self,
        number: int,
        pieces: Sequence[Piece],
        text: str,
        calls: list[dict[str, Any]],
        asked: bool,
    ) -> dict[str, Any]:
        """Return one whole answer of several.

        Parameters
        ----------
        number : int
            Which.
        pieces : sequence of Piece
            All of it, with the probabilities when they were `asked` for.
        text : str
            The text without calls.
        calls : list of dict
            The calls of tools.
        """
        reason = pieces[-1].finish_reason
        choice: dict[str, Any] = {
            "index": number,
            "finish_reason": "tool_calls" if calls else reason,
            "logprobs": self.logprobs(pieces) if asked else None,
        }
        if not self._chat:
            return {**choice, "text": text}
        message: dict[str, Any] = {"role": "assistant", "content": text or None if calls else text}
        if calls:
            message["tool_calls"] = calls
        return {**choice, "message": message}

    def part(
        self, number: int, delta: dict[str, Any], reason: str, logprobs: Any = None
    ) -> dict[str, Any]:
        """Return what is new in one answer; `delta` has ``content`` or ``tool_calls``."""
        choice: dict[str, Any] = {
            "index": number,
            "finish_reason": reason or None,
            "logprobs": logprobs,
        }
        if self._chat:
            return {**choice, "delta": delta}
        return {**choice, "text": delta.get("content", "")}

    def logprobs(self, pieces: Sequence[Piece]) -> dict[str, Any]:
        """Return the probabilities in the form of chats or of plain texts."""
        told = [(p.token, p.top) for p in pieces if p.token is not None]
        if self._chat:
            content = [
                {**_told(token), "top_logprobs": [_told(other) for other in top]}
                for token, top in told
            ]
            return {"content": content, "refusal": None}
        offsets, place = [], 0
        for token, _top in told:
            offsets.append(place)
            place += len(token.text)
        return {
            "tokens": [token.text for token, _top in told],
            "token_logprobs": [token.logprob for token, _top in told],
            "top_logprobs": [{o.text: o.logprob for o in top} for _token, top in told],
            "text_offset": offsets,
        }


def _told(token: TokenText) -> dict[str, Any]:
    return {"token": token.text, "logprob": token.logprob, "bytes": list(token.raw)}
