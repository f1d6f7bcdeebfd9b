"""Lists of turns in their several spellings."""

from __future__ import annotations

import ast
import json
from collections.abc import Mapping
from typing import Any

from swift_jupyter.engine.data.rows import UnusableRow
from swift_jupyter.i18n import translate as _

ROLES = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "bot": "assistant",
    "model": "assistant",
}
TOOL_ROLES = (
    "tool",
    "tool_call",
    "tool_response",
    "function",
    "function_call",
    "function_response",
    "observation",
)


def literal(value: Any) -> Any:
    """Return the list that a text spells (a CSV cell), or `value` itself."""
    if not isinstance(value, str) or not value.strip():
        return value
    for read in (json.loads, ast.literal_eval):
        try:
            return read(value)
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            continue
    return value


def text_of(value: Any, place: str) -> str:
    """Return `value` as text; a list of text blocks is joined.

    Raises
    ------
    UnusableRow
        When it is neither.
    """
    if isinstance(value, str):
        return value
    if isinstance(value, (list, tuple)) and value and all(isinstance(b, Mapping) for b in value):
        kinds = {str(block.get("type", "")) for block in value}
        if kinds == {"text"}:
            return "".join(text_of(block.get("text"), place) for block in value)
        others = ", ".join(sorted(kinds - {"text"}))
        raise UnusableRow(_("content of type '{kind}' is not supported yet", kind=others))
    raise UnusableRow(_("{place} is not a text but {kind}", place=place, kind=type(value).__name__))


def messages_from_list(turns: Any, column: str) -> list[dict[str, Any]]:
    """Read a list of turns: role/content, from/value, or human/assistant pairs.

    Raises
    ------
    UnusableRow
        When it is none of these.
    """
    if not isinstance(turns, (list, tuple)):
        raise UnusableRow(
            _("{column} is not a list but {kind}", column=column, kind=type(turns).__name__)
        )
    messages: list[dict[str, Any]] = []
    for turn in turns:
        if not isinstance(turn, Mapping):
            raise UnusableRow(_("an entry of {column} is not an object", column=column))
        messages.extend(_turn({str(k).lower(): v for k, v in turn.items()}, column))
    return messages


def messages_from_history(history: Any) -> list[dict[str, Any]]:
    """Read earlier turns, a list of question and answer pairs.

    Raises
    ------
    UnusableRow
        When it is something else.
    """
    if history is None:
        return []
    if not isinstance(history, (list, tuple)) or not all(
        isinstance(pair, (list, tuple)) and len(pair) == 2 for pair in history
    ):
        raise UnusableRow(_("history is not a list of question and answer pairs"))
    return [
        {"role": role, "content": text_of(text, "history")}
        for pair in history
        for role, text in zip(("user", "assistant"), pair, strict=True)
    ]


def _turn(turn: dict[str, Any], column: str) -> list[dict[str, Any]]:
    for role_key, content_key in (("role", "content"), ("from", "value")):
        if role_key in turn:
            return [_message(turn, turn[role_key], turn.get(content_key), content_key)]
    pairs = [(ROLES[key], value) for key, value in turn.items() if ROLES.get(key)]
    if pairs:
        order = {"system": 0, "user": 1, "assistant": 2}
        return [
            {"role": role, "content": text_of(text, role)}
            for role, text in sorted(pairs, key=lambda pair: order[pair[0]])
        ]
    raise UnusableRow(
        _(
            "an entry of {column} has neither role and content nor from and value",
            column=column,
        )
    )


def _message(turn: dict[str, Any], role: Any, content: Any, place: str) -> dict[str, Any]:
    name = str(role).lower()
    if name in TOOL_ROLES or turn.get("tool_calls"):
        raise UnusableRow(_("tool calls are not supported yet"))
    if name not in ROLES:
        raise UnusableRow(_("the role '{role}' is unknown", role=role))
    if turn.get("loss_scale") not in (None, 1, 1.0):
        raise UnusableRow(_("loss_scale is not supported yet"))
    message: dict[str, Any] = {"role": ROLES[name], "content": text_of(content, place)}
    if turn.get("loss") is not None:
        message["loss"] = bool(turn["loss"])
    return message
