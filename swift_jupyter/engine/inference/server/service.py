"""The model behind the server: from what was asked to pieces of answers."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from swift_jupyter.engine.inference.batching.engine import BatchEngine
from swift_jupyter.engine.inference.batching.limits import Overloaded, TooLong
from swift_jupyter.engine.inference.batching.request import (
    FinishReason,
    Request,
    TokenEvent,
    TokenLogprobs,
)
from swift_jupyter.engine.inference.batching.text import AnswerText
from swift_jupyter.engine.inference.chat_model import ChatModel
from swift_jupyter.engine.inference.protocol import GenerationOptions
from swift_jupyter.engine.inference.server.asks import (
    Ask,
    ChatAsk,
    CompletionAsk,
    EmbeddingAsk,
    not_found,
)
from swift_jupyter.engine.inference.server.errors import ApiError, invalid
from swift_jupyter.engine.inference.server.tools import template_calls_tools
from swift_jupyter.errors import UserError
from swift_jupyter.i18n import translate as _

_RETRY_SECONDS = 2


@dataclass(frozen=True)
class TokenText:
    """A token with its probability, as clients see it."""

    text: str
    raw: bytes
    logprob: float


@dataclass(frozen=True)
class Piece:
    """What is new in one of several answers.

    Attributes
    ----------
    choice : int
        Which answer.
    text : str
        New text; may be empty.
    token : TokenText or None
        When probabilities were asked for.
    top : tuple of TokenText
        The alternatives.
    finish_reason : str
        Empty while it goes on.
    """

    choice: int
    text: str
    token: TokenText | None = None
    top: tuple[TokenText, ...] = ()
    finish_reason: FinishReason = ""


@dataclass
class Usage:
    """What answers cost, in tokens."""

    prompt_tokens: int = 0
    completion_tokens: int = 0

    def to_dict(self) -> dict[str, int]:
        """Return the numbers under OpenAI's names."""
        return {
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.completion_tokens,
            "total_tokens": self.prompt_tokens + self.completion_tokens,
        }


class Service:
    """One model and its adapters, by the names that clients use.

    Parameters
    ----------
    model : ChatModel
        With its adapters.
    engine : BatchEngine
        Started.
    name : str
        What the model is called.
    """

    def __init__(self, model: ChatModel, engine: BatchEngine, name: str) -> None:
        self._model = model
        self.engine = engine
        self._tokenizer = model.tokenizer
        self._adapters = {name: "", **{adapter: adapter for adapter in model.adapters}}

    @property
    def names(self) -> list[str]:
        """The model and the adapters."""
        return list(self._adapters)

    def check_name(self, name: str) -> None:
        """Check that a model or an adapter is called so.

        Raises
        ------
        ApiError
            When none is.
        """
        if name not in self._adapters:
            raise not_found(name, self.names)

    def chat_prompt(self, ask: ChatAsk) -> list[list[int]]:
        """Return the tokens of a conversation.

        Raises
        ------
        ApiError
            When the model's chat template refuses it.
        """
        template = getattr(self._tokenizer, "chat_template", None)
        if ask.tools and not template_calls_tools(template):
            raise invalid(
                _("The chat template of this model does not know tools, or another form of them."),
                "tools",
                "unsupported_parameter",
            )
        try:
            encoded = self._model.encode(ask.messages, ask.enable_thinking, ask.tools or None)
        except UserError as error:
            raise invalid(f"{error.what} {error.why}".strip(), "messages") from None
        except Exception as error:  # Templates are programs: any message may break one.
            raise invalid(
                _(
                    "The chat template cannot take these messages: {reason}",
                    reason=str(error)[:200],
                ),
                "messages",
            ) from None
        return [encoded["input_ids"][0].tolist()]

    def completion_prompts(self, prompts: Sequence[str | list[int]]) -> list[list[int]]:
        """Return the tokens of plain texts.

        Raises
        ------
        ApiError
            For tokens that the model does not have.
        """
        size = self._model.vocabulary
        found = []
        for prompt in prompts:
            tokens = self._tokenizer(prompt)["input_ids"] if isinstance(prompt, str) else prompt
            if not tokens or max(tokens) >= size:
                raise invalid(
                    _("The prompt has no tokens, or some that the model has not."), "prompt"
                )
            found.append(list(tokens))
        return found

    async def answer(
        self, ask: ChatAsk | CompletionAsk, prompts: list[list[int]], usage: Usage
    ) -> AsyncIterator[Piece]:
        """Yield the pieces of all answers as they come; whoever stops taking them stops them.

        Parameters
        ----------
        ask : Ask
            How.
        prompts : list of list of int
            Each gets ``ask.n`` answers.
        usage : Usage
            Counts along.

        Raises
        ------
        ApiError
            When nobody is called so, the context is too small, or too many wait.
        """
        loop = asyncio.get_running_loop()
        events: asyncio.Queue[tuple[int, TokenEvent]] = asyncio.Queue()
        requests = []
        for number in range(len(prompts) * ask.n):

            def sink(event: TokenEvent, number: int = number) -> None:
                # When the server stops, answers end after those who asked have gone.
                with contextlib.suppress(RuntimeError):
                    loop.call_soon_threadsafe(events.put_nowait, (number, event))

            requests.append(self._request(ask, prompts[number // ask.n], number % ask.n, sink))
        self._submit(requests)
        usage.prompt_tokens = sum(map(len, prompts))
        texts = [AnswerText(self._tokenizer, ask.stop) for _request in requests]
        going = set(range(len(requests)))
        try:
            while going:
                number, event = await events.get()
                if number not in going:
                    continue
                if event.token is not None:
                    usage.completion_tokens += 1
                piece = self._piece(number, event, texts[number], requests[number])
                if piece.finish_reason:
                    going.discard(number)
                    requests[number].cancel()
                if piece.text or piece.token or piece.finish_reason:
                    yield piece
        finally:
            for request in requests:
                request.cancel()

    def _request(self, ask: Ask, prompt: list[int], number: int, sink: Any) -> Request:
        options = GenerationOptions(
            temperature=ask.temperature,
            top_p=ask.top_p,
            top_k=ask.top_k,
            repetition_penalty=ask.repetition_penalty,
            seed=None if ask.seed is None else ask.seed + number,
        )
        sampling = replace(self._model.sampling(options), logprobs=ask.logprobs)
        longest = self.engine.longest or 2**31
        most = ask.max_tokens if ask.max_tokens is not None else longest
        eos = frozenset() if ask.ignore_eos else self._model.eos
        return Request(prompt, sink, most, eos, sampling, self._adapters[ask.model])

    def _submit(self, requests: list[Request]) -> None:
        try:
            self.engine.submit(requests)
        except TooLong as error:
            message = _(
                "The prompt has {length} tokens; the model can take {limit}, its answer included.",
                length=error.length,
                limit=error.limit,
            )
            raise invalid(message, "messages", "context_length_exceeded") from None
        except Overloaded:
            raise ApiError(
                429,
                _("Too many requests wait; try again in a moment."),
                code="overloaded",
                headers={"Retry-After": str(_RETRY_SECONDS)},
            ) from None

    def _piece(self, number: int, event: TokenEvent, text: AnswerText, request: Request) -> Piece:
        if event.finish_reason == "error":
            raise ApiError(500, _("The model failed; the server's log says why."))
        if event.token is None:
            if event.finish_reason == "cancelled":
                raise ApiError(503, _("The server is stopping."))
            return Piece(number, text.end(), finish_reason=event.finish_reason)
        ended = bool(event.finish_reason)
        hidden = event.finish_reason == "stop"  # The token that ends an answer has no text.
        new = text.end() if hidden else text.add(event.token, last=ended)
        reason: FinishReason = "stop" if text.stopped else event.finish_reason
        token, top = None, ()
        if event.logprobs is not None and not hidden:
            token, top = self._told(event.token, event.logprobs)
        return Piece(number, new, token, top, reason)

    def _told(self, token: int, logprobs: TokenLogprobs) -> tuple[TokenText, Any]:
        def told(number: int, logprob: float) -> TokenText:
            text = self._tokenizer.decode([number])
            return TokenText(text, text.encode(), max(logprob, -9999.0))

        return told(token, logprobs.chosen), tuple(told(*pair) for pair in logprobs.top)

    async def embed(self, ask: EmbeddingAsk, usage: Usage) -> list[list[float]]:
        """Return the mean of the last hidden states for each input.

        Raises
        ------
        ApiError
            For an unknown name, or a text that is too long.
        """
        self.check_name(ask.model)
        adapter = self._adapters[ask.model]
        prompts = self.completion_prompts(ask.inputs)
        for prompt in prompts:
            if self.engine.longest and len(prompt) > self.engine.longest:
                message = _("The input has {length} tokens; the model can take {limit}.",
                            length=len(prompt), limit=self.engine.longest)  # fmt: skip
                raise invalid(message, "input", "context_length_exceeded")
        usage.prompt_tokens = sum(map(len, prompts))
        loop = asyncio.get_running_loop()
        vectors = []
        for prompt in prompts:  # One by one, so that answers can go on in between.
            vectors.append(await loop.run_in_executor(None, self._model.embed, prompt, adapter))
        return vectors
