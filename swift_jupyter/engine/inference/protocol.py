"""What is asked of a model and what comes back, whatever backend answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from swift_jupyter.errors import UserError
from swift_jupyter.i18n import translate as _
from swift_jupyter.options import option

Messages = list[dict[str, str]]
_ROLES = ("system", "user", "assistant")


@dataclass(frozen=True, kw_only=True)
class GenerationOptions:
    """How an answer is generated."""

    max_new_tokens: int = option(512, help="The longest answer, in tokens.")
    temperature: float | None = option(
        None,
        help="0 always takes the likeliest token; higher is more varied. By default what the "
        "model's own generation config says.",
    )
    top_p: float | None = option(None, help="Sample from the likeliest tokens up to this share.")
    top_k: int | None = option(None, help="Sample from this many of the likeliest tokens.")
    repetition_penalty: float | None = option(
        None, help="Above 1 it makes repetitions less likely."
    )
    seed: int | None = option(None, help="The seed of sampling, for answers that can be repeated.")
    stop_words: list[str] = option(
        [], help="Texts that end the answer and do not belong to it, besides the model's own end."
    )
    logprobs: int | None = option(
        None,
        help="Keep how likely each token was, with this many alternatives, in the answer's "
        "logprobs.",
    )
    enable_thinking: bool = option(
        False,
        help="Let models that can think or not think before they answer. Off, since answers "
        "without thoughts are what most data sets teach.",
    )


@dataclass(frozen=True)
class ChosenToken:
    """One token of an answer.

    Attributes
    ----------
    text : str
        The token.
    logprob : float
        The natural logarithm of its probability, before temperature and cuts.
    top : tuple of (str, float)
        The likeliest tokens in its place.
    """

    text: str
    logprob: float
    top: tuple[tuple[str, float], ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return plain values."""
        return {
            "text": self.text,
            "logprob": self.logprob,
            "top": [list(pair) for pair in self.top],
        }


class Answer(str):
    """An answer: a text with the facts about it.

    Attributes
    ----------
    finish_reason : str
        ``stop``, ``length`` or ``interrupted``.
    prompt_tokens, completion_tokens : int
        What went in and came out.
    seconds : float
        How long it took.
    messages : list of dict
        The whole conversation, this answer included.
    logprobs : list of ChosenToken or None
        How likely each token was, when that was asked for.
    """

    finish_reason: str
    prompt_tokens: int
    completion_tokens: int
    seconds: float
    messages: Messages
    logprobs: list[ChosenToken] | None

    @classmethod
    def of(
        cls,
        text: str,
        *,
        finish_reason: str,
        prompt_tokens: int,
        completion_tokens: int,
        seconds: float,
        messages: Messages,
        logprobs: list[ChosenToken] | None = None,
    ) -> Answer:
        """Build an answer; `messages` is the conversation before it."""
        answer = cls(text)
        answer.finish_reason = finish_reason
        answer.prompt_tokens = prompt_tokens
        answer.completion_tokens = completion_tokens
        answer.seconds = seconds
        answer.logprobs = logprobs
        answer.messages = [*messages, {"role": "assistant", "content": text}]
        return answer

    @property
    def tokens_per_second(self) -> float:
        """The speed, the reading of the prompt included."""
        return self.completion_tokens / self.seconds if self.seconds > 0 else 0.0

    def to_dict(self) -> dict[str, Any]:
        """Return plain values."""
        return {
            "text": str(self),
            "finish_reason": self.finish_reason,
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.completion_tokens,
            "seconds": self.seconds,
            "messages": self.messages,
            **(
                {"logprobs": [token.to_dict() for token in self.logprobs]}
                if self.logprobs is not None
                else {}
            ),
        }


def conversation(prompt: str, system: str = "", history: Sequence[Any] = ()) -> Messages:
    """Build the messages of one question.

    Parameters
    ----------
    prompt : str
        The question.
    system : str
        Goes first, instead of a system message in the history.
    history : sequence of mapping or Answer
        Earlier messages, or an earlier answer that carries them.

    Raises
    ------
    UserError
        When the history is not made of messages.
    """
    messages: Messages = []
    for item in history:
        carried = getattr(item, "messages", None)
        for message in carried if carried is not None else _flat(item):
            messages.append(_message(message))
    if system:
        messages = [message for message in messages if message["role"] != "system"]
        messages.insert(0, {"role": "system", "content": system})
    return [*messages, {"role": "user", "content": prompt}]


def _flat(item: Any) -> list[Any]:
    return list(item) if isinstance(item, (list, tuple)) else [item]


def _message(value: Any) -> dict[str, str]:
    good = (
        isinstance(value, Mapping)
        and value.get("role") in _ROLES
        and isinstance(value.get("content"), str)
    )
    if not good:
        raise UserError(
            _("The history is not made of messages."),
            _('A message is {{"role": "user", "content": "…"}}.')
            .replace("{{", "{")
            .replace("}}", "}"),
            _("Give a list of them, or an earlier answer: --history $answer"),
        )
    return {"role": value["role"], "content": value["content"]}
