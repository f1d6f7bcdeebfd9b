"""What `load_model` hands out: a model in memory, and the adapter that it was asked for."""

from __future__ import annotations

from collections.abc import Iterator
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

    def stream(self, prompt: str, *, adapter: str | None = None, **arguments: Any) -> Iterator[str]:
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

    def _chosen(self, adapter: str | None) -> str:
        return self.adapter if adapter is None else adapter
