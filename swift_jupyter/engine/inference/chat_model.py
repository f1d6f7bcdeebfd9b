"""A model in memory that answers: the transformers backend."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Generator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from swift_jupyter.engine.inference.adapter_stack import AdapterStack
from swift_jupyter.engine.inference.adapters import AdapterReference
from swift_jupyter.engine.inference.batching.request import Request, Sampling, TokenEvent
from swift_jupyter.engine.inference.protocol import (
    Answer,
    GenerationOptions,
    Messages,
    conversation,
)
from swift_jupyter.errors import UserError
from swift_jupyter.i18n import translate as _

if TYPE_CHECKING:
    from transformers import GenerationConfig

    from swift_jupyter.engine.inference.batching.engine import BatchEngine
    from swift_jupyter.engine.inference.batching.limits import Limits


class _Unwanted(Exception):
    """Nobody takes the pieces of a stream any more."""


class ChatModel:
    """A model with its tokenizer and any number of named adapters.

    Parameters
    ----------
    name : str
        How the user calls it.
    folder : Path
        Where it was loaded from.
    model : PreTrainedModel
        The model.
    tokenizer : PreTrainedTokenizerBase
        Its tokenizer.
    """

    def __init__(self, name: str, folder: Path, model: Any, tokenizer: Any) -> None:
        self.name = name
        self.folder = folder
        self._tokenizer = tokenizer
        self._stack = AdapterStack(model, name)
        self._loaded: dict[str, tuple[AdapterReference, int]] = {}
        # Which adapter is active is a state of the model, so answers come one by one.
        self._turn = threading.RLock()
        self._batcher: BatchEngine | None = None

    def __repr__(self) -> str:
        return f"<model {self.name} on {self._model.device}, adapters: {self.adapters or 'none'}>"

    @property
    def adapters(self) -> list[str]:
        """The names of the adapters in memory."""
        return self._stack.names

    @property
    def tokenizer(self) -> Any:
        """The tokenizer."""
        return self._tokenizer

    @property
    def vocabulary(self) -> int:
        """How many tokens the model knows."""
        return int(self._model.config.get_text_config().vocab_size)

    @property
    def context_length(self) -> int | None:
        """How many tokens the model can take, its answer included; None when it does not say."""
        text_config = self._model.config.get_text_config()
        return getattr(text_config, "max_position_embeddings", None)

    @property
    def eos(self) -> frozenset[int]:
        """The tokens that end an answer."""
        ids = _as_list(self._model.generation_config.eos_token_id)
        return frozenset(ids or _as_list(self._tokenizer.eos_token_id))

    @property
    def _model(self) -> Any:
        return self._stack.model

    def add_adapter(self, adapter: AdapterReference) -> None:
        """Load an adapter, again when its name or its file now means another.

        Raises
        ------
        UserError
            When it does not fit this model, or is a model itself.
        """
        if adapter.kind == "model":
            raise UserError(
                _("{name} is a whole model, not an adapter.", name=adapter.name),
                _("Its own weights were trained, so it needs no base."),
                _("Give it alone: --model {path}", path=adapter.path),
            )
        changed = adapter.weights.stat().st_mtime_ns
        if self._loaded.get(adapter.name) == (adapter, changed):
            return
        with self._turn:
            self._loaded.pop(adapter.name, None)
            self._stack.add(adapter)
            if self._batcher is not None:
                self._batcher.forget(adapter.name)
        self._loaded[adapter.name] = (adapter, changed)

    def generate(
        self,
        prompt: str,
        *,
        system: str = "",
        history: Sequence[Any] = (),
        adapter: str = "",
        on_text: Callable[[str], None] | None = None,
        **options: Any,
    ) -> Answer:
        """Answer one question.

        Parameters
        ----------
        prompt : str
            The question.
        system : str
            The system text.
        history : sequence
            Earlier messages, or earlier answers.
        adapter : str
            Which adapter answers; none by default.
        on_text : callable, optional
            Called with each new piece of text.
        **options
            The fields of `GenerationOptions`.

        Returns
        -------
        Answer
            A str with facts. After an interrupt it holds the text so far and its
            ``finish_reason`` is ``interrupted``.
        """
        messages = conversation(prompt, system, history)
        return self.chat(messages, GenerationOptions(**options), adapter, on_text)

    def sampling(self, options: GenerationOptions) -> Sampling:
        """Return how tokens are chosen: by the options, else as the model's own config says."""
        import copy

        config = copy.deepcopy(self._model.generation_config)
        _set_sampling(config, options)
        chance = bool(config.do_sample)
        return Sampling(
            temperature=(config.temperature or 1.0) if chance else 0.0,
            top_p=(config.top_p or 1.0) if chance else 1.0,
            top_k=(config.top_k or 0) if chance else 0,
            repetition_penalty=config.repetition_penalty or 1.0,
            seed=options.seed,
            logprobs=options.logprobs,
        )

    def engine(self, limits: Limits | None = None) -> BatchEngine:
        """Return an engine that answers many requests at once with this model.

        Parameters
        ----------
        limits : Limits, optional
            How much it takes on.
        """
        from swift_jupyter.engine.inference.batching.engine import BatchEngine

        return BatchEngine(self._stack, self._turn, limits, self.context_length)

    def batch(
        self,
        prompts: Sequence[Any],
        *,
        system: str = "",
        adapter: str = "",
        on_answer: Callable[[int, Answer], None] | None = None,
        **options: Any,
    ) -> list[Answer]:
        """Answer many questions together, which is several times as fast as one by one.

        Parameters
        ----------
        prompts : sequence
            Questions, or conversations as lists of messages.
        system : str
            The system text of all.
        adapter : str
            Which adapter answers; none by default.
        on_answer : callable, optional
            Called with the place and the answer as soon as one is complete.
        **options
            The fields of `GenerationOptions`. Each answer gets its own random numbers:
            the seed counts up from one question to the next.

        Returns
        -------
        list of Answer
            In the order of the questions.
        """
        from swift_jupyter.engine.inference.batching.answers import answer_all

        if self._batcher is None:
            self._batcher = self.engine()
        conversations = [
            conversation(prompt, system)
            if isinstance(prompt, str)
            else conversation(prompt[-1]["content"], system, prompt[:-1])
            for prompt in prompts
        ]
        wanted = GenerationOptions(**options)
        return answer_all(self, self._batcher, conversations, wanted, adapter, on_answer)

    def embed(self, tokens: Sequence[int], adapter: str = "") -> list[float]:
        """Return the mean over the tokens of the last hidden state.

        Parameters
        ----------
        tokens : sequence of int
            A text.
        adapter : str
            With which adapter.
        """
        import torch

        ids = torch.tensor([list(tokens)], device=self._model.device)
        with self._turn, torch.inference_mode(), self._stack.only(adapter):
            output = self._model(
                input_ids=ids, use_cache=False, output_hidden_states=True, logits_to_keep=1
            )
        vector: list[float] = output.hidden_states[-1][0].float().mean(0).tolist()
        return vector

    def stream(self, prompt: str, **arguments: Any) -> Generator[str, None, None]:
        """Yield the pieces of an answer as they come; arguments as for `generate`.

        Whoever stops taking pieces stops the answer, too.
        """
        pieces: queue.Queue[str | BaseException | None] = queue.Queue()
        unwanted = threading.Event()

        def hand_over(piece: str) -> None:
            if unwanted.is_set():
                raise _Unwanted
            pieces.put(piece)

        def work() -> None:
            try:
                self.generate(prompt, on_text=hand_over, **arguments)
                pieces.put(None)
            except BaseException as error:
                pieces.put(error)

        thread = threading.Thread(target=work, daemon=True)
        thread.start()
        try:
            while (piece := pieces.get()) is not None:
                if isinstance(piece, BaseException):
                    raise piece
                yield piece
        finally:
            unwanted.set()
            thread.join()

    def chat(
        self,
        messages: Messages,
        options: GenerationOptions,
        adapter: str = "",
        on_text: Callable[[str], None] | None = None,
    ) -> Answer:
        """Answer the last message of a conversation; see `generate`."""
        from swift_jupyter.engine.inference.batching.answers import Running
        from swift_jupyter.engine.inference.batching.serial import answer_alone

        one = Running(self, messages, options, on_text)

        def sink(event: TokenEvent) -> None:
            if one.take(event):
                request.cancel()

        request = Request(
            one.prompt,
            sink,
            self._room(options, len(one.prompt)),
            self.eos,
            self.sampling(options),
            adapter,
        )
        try:
            with self._turn:
                answer_alone(self._stack, request)
        except KeyboardInterrupt:
            return one.finish("interrupted")
        return one.answer if one.answer is not None else one.finish("length")

    def encode(
        self,
        messages: Sequence[Mapping[str, Any]],
        enable_thinking: bool = False,
        tools: list[dict[str, Any]] | None = None,
    ) -> dict[str, Any]:
        """Return the tokens of a conversation, ready for its next answer.

        Parameters
        ----------
        messages : sequence of mapping
            With ``role`` and ``content``.
        enable_thinking : bool
            See `GenerationOptions`.
        tools : list of dict, optional
            The tools that the model may call, for templates that know them.

        Returns
        -------
        dict
            ``input_ids`` and ``attention_mask``, tensors of shape [1, tokens].

        Raises
        ------
        UserError
            When the chat template refuses the messages.
        """
        import jinja2

        template = getattr(self._tokenizer, "chat_template", None)
        if template:
            thinking = {"enable_thinking": enable_thinking} if _can_think(template) else {}
            try:
                encoded = self._tokenizer.apply_chat_template(
                    list(messages),
                    tools=tools,
                    add_generation_prompt=True,
                    return_dict=True,
                    return_tensors="pt",
                    **thinking,
                )
            except jinja2.TemplateError as error:
                raise UserError(
                    _("The chat template of {model} refuses these messages.", model=self.name),
                    str(error).strip().splitlines()[0] if str(error).strip() else "",
                    _("Check --system and --history: not every model knows every role."),
                ) from error
        else:
            # A base model goes on with the text, since it knows no turns.
            text = "\n".join(message["content"] for message in messages)
            encoded = self._tokenizer(text, return_tensors="pt")
        names = ("input_ids", "attention_mask")
        return {name: encoded[name].to(self._model.device) for name in names}

    def _room(self, options: GenerationOptions, length: int) -> int:
        """Return how long an answer to a prompt of `length` tokens may be."""
        limit = self.context_length
        if limit and length >= limit:
            raise UserError(
                _("The prompt has {length} tokens.", length=length),
                _("The model can take {limit}, its answer included.", limit=limit),
                _("Shorten the prompt or the history."),
            )
        return min(options.max_new_tokens, limit - length) if limit else options.max_new_tokens


def _set_sampling(config: GenerationConfig, options: GenerationOptions) -> None:
    if options.temperature is not None:
        config.do_sample = options.temperature > 0
        config.temperature = options.temperature if options.temperature > 0 else None
    for name in ("top_p", "top_k", "repetition_penalty"):
        value = getattr(options, name)
        if value is not None:
            setattr(config, name, value)
            if name != "repetition_penalty" and options.temperature is None:
                config.do_sample = True
    if not config.do_sample:
        # transformers warns about sampling values that greedy decoding does not use.
        config.temperature = config.top_p = config.top_k = None


def _can_think(template: object) -> bool:
    """Tell whether a chat template has the switch of models that may think or not."""
    return "enable_thinking" in str(template)


def _as_list(value: int | list[int] | None) -> list[int]:
    if value is None:
        return []
    return list(value) if isinstance(value, (list, tuple)) else [value]
