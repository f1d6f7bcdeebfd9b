"""What clients ask for: from JSON to checked values. Nothing of a request is trusted."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from swift_jupyter.engine.inference.server.errors import ApiError, invalid
from swift_jupyter.i18n import translate as _

_ROLES = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant",
          "tool": "tool"}  # fmt: skip
_HALF_CHARACTER = re.compile(rb"\\u[dD][89a-fA-F]")
_MOST_CHOICES = 32
_MOST_STOPS = 16
_MOST_TOP = 20
_MOST_INPUTS = 256
_MOST_MESSAGES = 4096


@dataclass(frozen=True)
class Ask:
    """What chat and plain completions have in common.

    Attributes
    ----------
    model : str
        Who shall answer.
    n : int
        How many answers.
    max_tokens : int or None
        The longest answer; None for as long as there is room.
    temperature, top_p, top_k, repetition_penalty
        None for what the model's own generation config says.
    logprobs : int or None
        How many alternatives are told with each token.
    """

    model: str
    n: int = 1
    stream: bool = False
    include_usage: bool = False
    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    repetition_penalty: float | None = None
    seed: int | None = None
    stop: tuple[str, ...] = ()
    logprobs: int | None = None
    ignore_eos: bool = False


@dataclass(frozen=True)
class ChatAsk(Ask):
    """A conversation to go on with."""

    messages: list[dict[str, Any]] = field(default_factory=list)
    tools: list[dict[str, Any]] = field(default_factory=list)
    enable_thinking: bool = False


@dataclass(frozen=True)
class CompletionAsk(Ask):
    """Texts, or tokens, to go on with."""

    prompts: list[str | list[int]] = field(default_factory=list)


@dataclass(frozen=True)
class EmbeddingAsk:
    """Texts, or tokens, to turn into vectors."""

    model: str
    inputs: list[str | list[int]]
    base64: bool


def parse_body(body: bytes) -> dict[str, Any]:
    """Return the JSON object of a request.

    Raises
    ------
    ApiError
        When it is none.
    """
    try:
        value = json.loads(body)
    except (ValueError, RecursionError) as error:
        reason = str(error).splitlines()[0][:200]
        raise invalid(_("The body is not valid JSON: {reason}", reason=reason)) from None
    if not isinstance(value, dict):
        raise invalid(_("The body has to be a JSON object."))
    if _HALF_CHARACTER.search(body):
        try:
            json.dumps(value, ensure_ascii=False).encode()
        except ValueError:
            raise invalid(_("The body has halves of characters in it.")) from None
    return value


def parse_chat(body: Mapping[str, Any]) -> ChatAsk:
    """Check a request to ``/v1/chat/completions``.

    Raises
    ------
    ApiError
        For what is wrong or cannot be done here.
    """
    _refuse(body, "functions", "function_call", "audio", "logit_bias", "prediction")
    modalities = body.get("modalities")
    if modalities not in (None, ["text"]):
        raise invalid(_("This server answers in text only."), "modalities", "unsupported_value")
    _check_format(body.get("response_format"))
    messages = body.get("messages")
    if not isinstance(messages, list) or not 0 < len(messages) <= _MOST_MESSAGES:
        raise invalid(_("'messages' has to be a list of messages."), "messages")
    top = None
    if _flag(body, "logprobs"):
        top = _integer(body, "top_logprobs", 0, _MOST_TOP) or 0
    elif body.get("top_logprobs"):
        raise invalid(_("'top_logprobs' needs 'logprobs': true."), "top_logprobs")
    extra = body.get("chat_template_kwargs") or {}
    if not isinstance(extra, dict):
        raise invalid(_("'{name}' has to be an object.", name="chat_template_kwargs"))
    most = _integer(body, "max_completion_tokens", 1)
    return ChatAsk(
        **_common(body),
        max_tokens=most if most is not None else _integer(body, "max_tokens", 1),
        logprobs=top,
        messages=[_message(message, number) for number, message in enumerate(messages)],
        tools=_tools(body),
        enable_thinking=_flag(extra, "enable_thinking"),
    )


def parse_completion(body: Mapping[str, Any]) -> CompletionAsk:
    """Check a request to ``/v1/completions``.

    Raises
    ------
    ApiError
        For what is wrong or cannot be done here.
    """
    _refuse(body, "suffix", "echo", "logit_bias")
    common = _common(body)
    best_of = _integer(body, "best_of", 1)
    if best_of is not None and best_of != common["n"]:
        raise invalid(_("This server cannot choose the best of several answers."), "best_of")
    most = _integer(body, "max_tokens", 1)
    return CompletionAsk(
        **common,
        max_tokens=16 if most is None else most,
        logprobs=_integer(body, "logprobs", 0, _MOST_TOP),
        prompts=_texts(body, "prompt"),
    )


def parse_embedding(body: Mapping[str, Any]) -> EmbeddingAsk:
    """Check a request to ``/v1/embeddings``.

    Raises
    ------
    ApiError
        For what is wrong or cannot be done here.
    """
    _refuse(body, "dimensions")
    form = body.get("encoding_format") or "float"
    if form not in ("float", "base64"):
        raise invalid(_("'{name}' cannot have this value.", name="encoding_format"))
    return EmbeddingAsk(_model(body), _texts(body, "input"), form == "base64")


def _common(body: Mapping[str, Any]) -> dict[str, Any]:
    for name in ("presence_penalty", "frequency_penalty"):
        if _number(body, name, -2, 2):
            raise invalid(
                _("'{name}' is not supported; 'repetition_penalty' is.", name=name),
                name,
                "unsupported_parameter",
            )
    options = body.get("stream_options")
    if options is not None and not isinstance(options, dict):
        raise invalid(_("'{name}' has to be an object.", name="stream_options"), "stream_options")
    stream = _flag(body, "stream")
    if options and not stream:
        raise invalid(_("'stream_options' needs 'stream': true."), "stream_options")
    return {
        "model": _model(body),
        "n": _integer(body, "n", 1, _MOST_CHOICES) or 1,
        "stream": stream,
        "include_usage": _flag(options or {}, "include_usage"),
        "temperature": _number(body, "temperature", 0, 2),
        "top_p": _number(body, "top_p", 1e-6, 1),
        "top_k": _top_k(body),
        "repetition_penalty": _number(body, "repetition_penalty", 0.01, 10),
        "seed": _integer(body, "seed", -(2**63), 2**63 - 1),
        "stop": _stop(body.get("stop")),
        "ignore_eos": _flag(body, "ignore_eos"),
    }


def _refuse(body: Mapping[str, Any], *names: str) -> None:
    for name in names:
        if body.get(name):
            raise invalid(
                _("'{name}' is not supported by this server.", name=name),
                name,
                "unsupported_parameter",
            )


def _check_format(value: Any) -> None:
    if value is None:
        return
    kind = value.get("type") if isinstance(value, dict) else None
    if kind != "text":
        raise invalid(
            _("This server cannot force a format; only the type 'text' is possible."),
            "response_format",
            "unsupported_value",
        )


def _model(body: Mapping[str, Any]) -> str:
    model = body.get("model")
    if not isinstance(model, str) or not model:
        raise invalid(_("'model' has to name a model; /v1/models lists them."), "model")
    return model


def _flag(body: Mapping[str, Any], name: str) -> bool:
    value = body.get(name)
    if value is not None and not isinstance(value, bool):
        raise invalid(_("'{name}' has to be true or false.", name=name), name)
    return bool(value)


def _integer(body: Mapping[str, Any], name: str, least: int, most: int | None = None) -> int | None:
    value = body.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int):
        raise invalid(_("'{name}' has to be a whole number.", name=name), name)
    if value < least or (most is not None and value > most):
        text = str(least) if most is None else f"{least}…{most}"
        raise invalid(_("'{name}' has to be in {range}.", name=name, range=text), name)
    return value


def _top_k(body: Mapping[str, Any]) -> int | None:
    value = _integer(body, "top_k", -1)
    return 0 if value == -1 else value  # Other servers write -1 for all tokens.


def _number(body: Mapping[str, Any], name: str, least: float, most: float) -> float | None:
    value = body.get(name)
    if value is None:
        return None
    good = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not good or not math.isfinite(value) or not least <= value <= most:
        raise invalid(
            _(
                "'{name}' has to be a number from {least} to {most}.",
                name=name,
                least=least,
                most=most,
            ),
            name,
        )
    return float(value)


def _stop(value: Any) -> tuple[str, ...]:
    words = [value] if isinstance(value, str) else value
    if words is None:
        return ()
    if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
        raise invalid(_("'stop' has to be a text or a list of texts."), "stop")
    if len(words) > _MOST_STOPS:
        raise invalid(_("'stop' may have {count} texts.", count=_MOST_STOPS), "stop")
    return tuple(word for word in words if word)


def _texts(body: Mapping[str, Any], name: str) -> list[str | list[int]]:
    """Return texts, or lists of tokens; one may stand alone."""
    value = body.get(name)
    alone = isinstance(value, str) or (isinstance(value, list) and bool(value) and _is_id(value[0]))
    values = [value] if alone else value
    if not isinstance(values, list) or not 0 < len(values) <= _MOST_INPUTS:
        raise invalid(_("'{name}' has to be a text or a list of texts.", name=name), name)
    for item in values:
        tokens = isinstance(item, list) and bool(item) and all(_is_id(token) for token in item)
        if not tokens and not (isinstance(item, str) and item):
            raise invalid(_("'{name}' has to be a text or a list of texts.", name=name), name)
    return values


def _is_id(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**31


def _message(value: Any, number: int) -> dict[str, Any]:
    where = f"messages[{number}]"
    if not isinstance(value, dict) or value.get("role") not in tuple(_ROLES):
        raise invalid(
            _("A message needs a role: {roles}", roles=", ".join(_ROLES)), f"{where}.role"
        )
    role = _ROLES[value["role"]]
    calls = value.get("tool_calls") if role == "assistant" else None
    message: dict[str, Any] = {
        "role": role,
        "content": _content(value.get("content"), where, calls),
    }
    if calls:
        message["tool_calls"] = _calls(calls, where)
    if role == "tool":
        message["tool_call_id"] = str(value.get("tool_call_id") or "")
    return message


def _content(value: Any, where: str, calls: Any) -> str:
    if isinstance(value, str):
        return value
    if value is None and calls:
        return ""
    if not isinstance(value, list):
        raise invalid(_("The content of a message has to be a text."), f"{where}.content")
    parts = []
    for part in value:
        good = isinstance(part, dict) and part.get("type") == "text"
        if not good or not isinstance(part.get("text"), str):
            raise invalid(_("This model takes text only."), f"{where}.content", "unsupported_value")
        parts.append(part["text"])
    return "".join(parts)


def _calls(value: Any, where: str) -> list[dict[str, Any]]:
    """Return calls of tools as chat templates take them: with arguments as an object."""
    calls = []
    for call in value if isinstance(value, list) else [value]:
        function = call.get("function") if isinstance(call, dict) else None
        if not isinstance(function, dict) or not isinstance(function.get("name"), str):
            raise invalid(
                _("A call of a tool needs a function with a name."), f"{where}.tool_calls"
            )
        arguments = function.get("arguments")
        if isinstance(arguments, str):
            try:
                arguments = json.loads(arguments or "{}")
            except (ValueError, RecursionError):
                raise invalid(
                    _("The arguments of a call have to be JSON."), f"{where}.tool_calls"
                ) from None
        function = {"name": function["name"], "arguments": arguments or {}}
        calls.append({"type": "function", "id": str(call.get("id") or ""), "function": function})
    return calls


def _tools(body: Mapping[str, Any]) -> list[dict[str, Any]]:
    tools = body.get("tools")
    choice = body.get("tool_choice")
    if not tools:
        return []
    if choice == "none":
        return []
    if choice not in (None, "auto"):
        raise invalid(
            _("A call of a tool cannot be forced; 'tool_choice' may be auto or none."),
            "tool_choice",
            "unsupported_value",
        )
    good = isinstance(tools, list) and all(
        isinstance(tool, dict)
        and tool.get("type") == "function"
        and isinstance(tool.get("function"), dict)
        and isinstance(tool["function"].get("name"), str)
        for tool in tools
    )
    if not good:
        raise invalid(_("A tool is a function with a name."), "tools")
    return list(tools)


def not_found(model: str, known: list[str]) -> ApiError:
    """Return the error for a model that is not served."""
    message = _(
        "The model '{model}' does not exist here. There are: {names}",
        model=model[:200],
        names=", ".join(known),
    )
    return ApiError(404, message, "model", "model_not_found")
