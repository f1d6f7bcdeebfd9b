"""A model in memory that answers: the transformers backend."""

from __future__ import annotations

import contextlib
import queue
import re
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from swift_jupyter.engine.inference.adapters import AdapterReference, load_adapter
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
        self._model = model
        self._tokenizer = tokenizer
        self._adapters: dict[str, tuple[AdapterReference, int]] = {}
        # Which adapter is active is a state of the model, so answers come one by one.
        self._turn = threading.RLock()

    def __repr__(self) -> str:
        return f"<model {self.name} on {self._model.device}, adapters: {self.adapters or 'none'}>"

    @property
    def adapters(self) -> list[str]:
        """The names of the adapters in memory."""
        return list(self._adapters)

    def add_adapter(self, adapter: AdapterReference) -> None:
        """Load an adapter, again when its name or its file now means another.

        Raises
        ------
        UserError
            When it does not fit this model.
        """
        changed = adapter.weights.stat().st_mtime_ns
        if self._adapters.get(adapter.name) == (adapter, changed):
            return
        with self._turn:
            self._remove_adapter(adapter.name)
            self._model = load_adapter(self._model, adapter, _peft_name(adapter.name), self.name)
        self._adapters[adapter.name] = (adapter, changed)

    def _remove_adapter(self, name: str) -> None:
        if name in self._adapters:
            del self._adapters[name]
            if self._adapters:
                self._model.delete_adapter(_peft_name(name))
            else:
                self._model = self._model.unload()

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

    def stream(self, prompt: str, **arguments: Any) -> Iterator[str]:
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
        import torch
        from transformers import set_seed

        from swift_jupyter.engine.inference.streaming import PieceStreamer

        inputs = self._encode(messages, options.enable_thinking)
        length = int(inputs["input_ids"].shape[1])
        config = self._generation_config(options, length)
        streamer = PieceStreamer(self._tokenizer, on_text)
        started = time.perf_counter()
        reason = ""
        try:
            with self._turn, torch.inference_mode(), self._only(adapter):
                if options.seed is not None:
                    set_seed(options.seed)
                self._model.generate(**inputs, generation_config=config, streamer=streamer)
        except KeyboardInterrupt:
            reason = "interrupted"
        stopped = bool(streamer.tokens) and streamer.tokens[-1] in _as_list(config.eos_token_id)
        return Answer.of(
            streamer.text,
            finish_reason=reason or ("stop" if stopped else "length"),
            prompt_tokens=length,
            completion_tokens=len(streamer.tokens),
            seconds=time.perf_counter() - started,
            messages=messages,
        )

    def _encode(self, messages: Messages, enable_thinking: bool) -> dict[str, Any]:
        import jinja2

        template = getattr(self._tokenizer, "chat_template", None)
        if template:
            thinking = {"enable_thinking": enable_thinking} if _can_think(template) else {}
            try:
                encoded = self._tokenizer.apply_chat_template(
                    messages,
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

    def _generation_config(self, options: GenerationOptions, length: int) -> GenerationConfig:
        import copy

        config: GenerationConfig = copy.deepcopy(self._model.generation_config)
        text_config = self._model.config.get_text_config()
        limit = getattr(text_config, "max_position_embeddings", None)
        room = limit - length if limit else options.max_new_tokens
        if room <= 0:
            raise UserError(
                _("The prompt has {length} tokens.", length=length),
                _("The model can take {limit}, its answer included.", limit=limit),
                _("Shorten the prompt or the history."),
            )
        config.max_length = None
        config.max_new_tokens = min(options.max_new_tokens, room)
        if config.pad_token_id is None:
            config.pad_token_id = self._tokenizer.pad_token_id
        if config.eos_token_id is None:
            config.eos_token_id = self._tokenizer.eos_token_id
        _set_sampling(config, options)
        return config

    @contextlib.contextmanager
    def _only(self, adapter: str) -> Iterator[None]:
        """Let one adapter be active, or none."""
        if adapter and adapter not in self._adapters:
            raise UserError(
                _("There is no adapter '{name}' in memory.", name=adapter),
                _("There are: {names}", names=", ".join(self._adapters) or _("none")),
            )
        if not self._adapters:
            yield
        elif adapter:
            self._model.set_adapter(_peft_name(adapter))
            yield
        else:
            with self._model.disable_adapter():
                yield


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


def _peft_name(name: str) -> str:
    """Return a name that peft can use as the name of a module: no dots."""
    return "a_" + re.sub(r"\W", "_", name)


def _as_list(value: int | list[int] | None) -> list[int]:
    if value is None:
        return []
    return list(value) if isinstance(value, (list, tuple)) else [value]
