"""Many conversations answered by an engine, for code that waits for all of them."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence
from typing import Any

from swift_jupyter.engine.inference.batching.engine import BatchEngine
from swift_jupyter.engine.inference.batching.limits import Overloaded, TooLong
from swift_jupyter.engine.inference.batching.request import Request, TokenEvent
from swift_jupyter.engine.inference.batching.text import AnswerText
from swift_jupyter.engine.inference.protocol import (
    Answer,
    ChosenToken,
    GenerationOptions,
    Messages,
)
from swift_jupyter.errors import UserError
from swift_jupyter.i18n import translate as _


class Running:
    """One conversation on its way.

    Parameters
    ----------
    model : ChatModel
        Encodes and decodes.
    messages : list of dict
        What is answered.
    options : GenerationOptions
        How.
    on_text : callable, optional
        Called with each new piece of text.
    """

    def __init__(
        self,
        model: Any,
        messages: Messages,
        options: GenerationOptions,
        on_text: Callable[[str], None] | None = None,
    ) -> None:
        encoded = model.encode(messages, options.enable_thinking)
        self.messages = messages
        self.prompt: list[int] = encoded["input_ids"][0].tolist()
        self.text = AnswerText(model.tokenizer, options.stop_words)
        self._tokenizer = model.tokenizer
        self._on_text = on_text
        self._told: list[ChosenToken] | None = None if options.logprobs is None else []
        self.count = 0
        self.started = time.perf_counter()
        self.request: Request | None = None
        self.answer: Answer | None = None
        self.error: BaseException | None = None

    def take(self, event: TokenEvent) -> bool:
        """Take what the engine tells; return whether the answer is complete now."""
        if self.answer is not None:
            return False
        if event.token is not None:
            self.count += 1
            if event.finish_reason != "stop":
                self._show(self.text.add(event.token, last=bool(event.finish_reason)))
                self._tell(event)
        if not event.finish_reason and not self.text.stopped:
            return False
        self.error = event.error
        self.finish("stop" if self.text.stopped else event.finish_reason)
        return True

    def finish(self, reason: str) -> Answer:
        """Complete the answer with what is there."""
        self._show(self.text.end())
        self.answer = Answer.of(
            self.text.text,
            finish_reason="interrupted" if reason == "cancelled" else reason,
            prompt_tokens=len(self.prompt),
            completion_tokens=self.count,
            seconds=time.perf_counter() - self.started,
            messages=self.messages,
            logprobs=self._told,
        )
        return self.answer

    def _show(self, piece: str) -> None:
        if piece and self._on_text is not None:
            self._on_text(piece)

    def _tell(self, event: TokenEvent) -> None:
        if self._told is None or event.logprobs is None or event.token is None:
            return
        decode = self._tokenizer.decode
        top = tuple((decode([token]), value) for token, value in event.logprobs.top)
        self._told.append(ChosenToken(decode([event.token]), event.logprobs.chosen, top))


def answer_all(
    model: Any,
    engine: BatchEngine,
    conversations: Sequence[Messages],
    options: GenerationOptions,
    adapter: str = "",
    on_answer: Callable[[int, Answer], None] | None = None,
) -> list[Answer]:
    """Answer conversations together; see `ChatModel.batch`.

    Parameters
    ----------
    model : ChatModel
        Encodes the conversations.
    engine : BatchEngine
        Not started; its steps are made here.
    conversations : sequence of list of dict
        What is answered.
    options, adapter, on_answer
        As for `ChatModel.batch`.

    Raises
    ------
    UserError
        When a prompt is too long.
    """
    running = [Running(model, messages, options) for messages in conversations]
    # Short prompts first: their answers begin while the long ones are read.
    order = sorted(range(len(running)), key=lambda number: len(running[number].prompt))
    try:
        for number in order:
            _submit(model, engine, running, number, options, adapter, on_answer)
        engine.run()
    finally:
        for one in running:
            if one.request is not None:
                one.request.cancel()
        engine.run()
        engine.free()
    failed = next((one.error for one in running if one.error is not None), None)
    if failed is not None:
        raise failed
    return [one.answer for one in running if one.answer is not None]


def _submit(
    model: Any,
    engine: BatchEngine,
    running: list[Running],
    number: int,
    options: GenerationOptions,
    adapter: str,
    on_answer: Callable[[int, Answer], None] | None,
) -> None:
    one = running[number]

    def sink(event: TokenEvent) -> None:
        if one.take(event):
            if one.request is not None:
                one.request.cancel()
            answer = one.answer
            complete = answer is not None and answer.finish_reason != "interrupted"
            if on_answer is not None and answer is not None and complete:
                on_answer(number, answer)

    seed = None if options.seed is None else options.seed + number
    sampling = model.sampling(dataclasses.replace(options, seed=seed))
    one.request = Request(one.prompt, sink, options.max_new_tokens, model.eos, sampling, adapter)
    while True:
        try:
            engine.submit([one.request])
            return
        except Overloaded:
            engine.step()
        except TooLong as error:
            raise UserError(
                _("The prompt has {length} tokens.", length=error.length),
                _("The model can take {limit}, its answer included.", limit=error.limit),
                _("Shorten the prompt or the history."),
            ) from None
