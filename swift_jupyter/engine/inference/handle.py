"""What `load_model` hands out: a model in memory, and the adapter that it was asked for."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Generator, Sequence
from typing import Any

from swift_jupyter.engine.inference.chat_model import ChatModel
from swift_jupyter.engine.inference.protocol import Answer


class ModelHandle:
    """Answers with one adapter unless another is named.

    Parameters
    ----------
    model : ChatModel
        The model, which other handles and cells may share.
    adapter : str
        Who answers by default; the model itself when empty.

    Notes
    -----
    The default belongs to the handle and not to the shared model, so loading the same
    model elsewhere changes nothing here.
    """

    def __init__(self, model: ChatModel, adapter: str = "") -> None:
        self._model = model
        self.adapter = adapter

    def __repr__(self) -> str:
        return f"{repr(self._model)[:-1]}, answers with: {self.adapter or self._model.name}>"

    @property
    def name(self) -> str:
        """How the model was called."""
        return self._model.name

    @property
    def adapters(self) -> list[str]:
        """The names of the adapters in memory."""
        return self._model.adapters

    def generate(self, prompt: str, *, adapter: str | None = None, **arguments: Any) -> Answer:
        """Answer one question; see `ChatModel.generate`.

        Parameters
        ----------
        prompt : str
            The question.
        adapter : str, optional
            Another adapter, or ``""`` for the model without one.
        **arguments
            ``system``, ``history``, ``on_text`` and the fields of `GenerationOptions`.
        """
        return self._model.generate(prompt, adapter=self._chosen(adapter), **arguments)

    def stream(
        self, prompt: str, *, adapter: str | None = None, **arguments: Any
    ) -> Generator[str, None, None]:
        """Yield the pieces of an answer as they come; arguments as for `generate`."""
        return self._model.stream(prompt, adapter=self._chosen(adapter), **arguments)

    def chat(
        self, messages: list[dict[str, str]], *, adapter: str | None = None, **arguments: Any
    ) -> Answer:
        """Answer the last message of a conversation; arguments as for `generate`.

        Parameters
        ----------
        messages : list of dict
            With ``role`` and ``content``; the last one is the user's.
        """
        *history, last = messages
        return self.generate(last["content"], adapter=adapter, history=history, **arguments)

    def batch(
        self, prompts: Sequence[Any], *, adapter: str | None = None, **arguments: Any
    ) -> list[Answer]:
        """Answer many questions together; see `ChatModel.batch`.

        Parameters
        ----------
        prompts : sequence
            Questions, or conversations as lists of messages.
        adapter : str, optional
            Another adapter, or ``""`` for the model without one.
        **arguments
            ``system``, ``on_answer`` and the fields of `GenerationOptions`.
        """
        return self._model.batch(prompts, adapter=self._chosen(adapter), **arguments)

    async def agenerate(self, prompt: str, **arguments: Any) -> Answer:
        """Answer one question while the event loop goes on; arguments as for `generate`."""
        return await asyncio.to_thread(self.generate, prompt, **arguments)

    async def abatch(self, prompts: Sequence[Any], **arguments: Any) -> list[Answer]:
        """Answer many questions while the event loop goes on; arguments as for `batch`."""
        return await asyncio.to_thread(self.batch, prompts, **arguments)

    async def astream(self, prompt: str, **arguments: Any) -> AsyncIterator[str]:
        """Yield the pieces of an answer while the event loop goes on.

        Whoever stops taking pieces stops the answer, too. Arguments as for `generate`.
        """
        pieces = self.stream(prompt, **arguments)
        try:
            while (piece := await asyncio.to_thread(next, pieces, None)) is not None:
                yield piece
        finally:
            await asyncio.to_thread(pieces.close)

    def _chosen(self, adapter: str | None) -> str:
        return self.adapter if adapter is None else adapter
