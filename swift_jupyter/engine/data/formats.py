"""The shapes a row may have, and the one form they all become."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from swift_jupyter.engine.data.rows import Conversation, SourceRow, UnusableRow
from swift_jupyter.engine.data.turns import (
    literal,
    messages_from_history,
    messages_from_list,
    text_of,
)
from swift_jupyter.i18n import translate as _

LIST_COLUMNS = ("messages", "conversations", "conversation")
ALIASES: dict[str, tuple[str, ...]] = {
    "system": ("system_prompt",),
    "query": ("prompt", "input", "instruction", "question", "problem"),
    "response": (
        "answer",
        "output",
        "targets",
        "target",
        "answer_key",
        "answers",
        "solution",
        "text",
        "completion",
        "content",
    ),
}
UNSUPPORTED_COLUMNS = (
    "image",
    "images",
    "video",
    "videos",
    "audio",
    "audios",
    "tools",
    "tool_calls",
    "objects",
)


def accepted_shapes() -> str:
    """Return one sentence that lists the shapes a row may have."""
    return _(
        "A row has either messages (a list of role and content), or conversations (a list of "
        "from and value), or instruction, input and output, or query and response."
    )


def to_conversation(row: SourceRow, columns: Mapping[str, str] | None = None) -> Conversation:
    """Bring a row of any accepted shape into the canonical form.

    Parameters
    ----------
    row : SourceRow
        The row as it was read.
    columns : mapping, optional
        Old column names to new ones; applied before anything else.

    Raises
    ------
    UnusableRow
        With the reason, when the row cannot be trained on.
    """
    content = rename_columns(row.content, columns or {})
    for column in UNSUPPORTED_COLUMNS:
        if content.get(column):
            raise UnusableRow(_("the column '{column}' is not supported yet", column=column))
    messages = _messages(content)
    system = _system(content)
    if system and messages and messages[0]["role"] != "system":
        messages.insert(0, {"role": "system", "content": system})
    tag = content.get("tag")
    return Conversation(checked(messages), row.origin, tag if isinstance(tag, str) else "")


def rename_columns(content: Mapping[str, Any], columns: Mapping[str, str]) -> dict[str, Any]:
    """Return `content` with lower-case column names, those in `columns` renamed.

    A renamed column wins over one that already has the new name.
    """
    wanted = {old.lower(): new.lower() for old, new in columns.items()}
    renamed: dict[str, Any] = {}
    for name, value in content.items():
        if name.lower() not in wanted:
            renamed.setdefault(name.lower(), value)
    for name, value in content.items():
        if name.lower() in wanted:
            renamed[wanted[name.lower()]] = value
    return renamed


def checked(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return `messages` up to the last answer.

    Raises
    ------
    UnusableRow
        When there is no assistant turn, or an empty one, or nothing to train.
    """
    answers = [i for i, message in enumerate(messages) if message["role"] == "assistant"]
    if not answers:
        raise UnusableRow(_("there is no assistant turn"))
    if any(not messages[i]["content"].strip() for i in answers):
        raise UnusableRow(_("an assistant turn is empty"))
    if all(messages[i].get("loss") is False for i in answers):
        raise UnusableRow(_("every assistant turn has loss set to false"))
    kept = messages[: answers[-1] + 1]
    if not any(message["role"] == "user" for message in kept):
        # A bare text is accepted, as the answer to an empty question.
        kept.insert(answers[0], {"role": "user", "content": ""})
    return kept


def has_question(conversation: Conversation) -> bool:
    """Tell whether any user turn of `conversation` says something."""
    return any(m["role"] == "user" and m["content"].strip() for m in conversation.messages)


def _messages(content: dict[str, Any]) -> list[dict[str, Any]]:
    for column in LIST_COLUMNS:
        if content.get(column) not in (None, ""):
            return messages_from_list(literal(content[column]), column)
    if "instruction" in content and "input" in content and "query" not in content:
        content = _alpaca(content)
    response = _pick(content, "response")
    if response is None:
        raise UnusableRow(
            _(
                "there is no assistant turn (its columns are {columns})",
                columns=", ".join(content) or _("none"),
            )
        )
    if isinstance(response, (list, tuple)) and response:
        response = response[0]
    query = _pick(content, "query")
    return [
        *messages_from_history(literal(content.get("history")) or None),
        {"role": "user", "content": "" if query is None else text_of(query, "query")},
        {"role": "assistant", "content": text_of(response, "response")},
    ]


def _alpaca(content: dict[str, Any]) -> dict[str, Any]:
    parts = [content["instruction"], content["input"]]
    question = "\n".join(text_of(part, "instruction") for part in parts if part not in (None, ""))
    rest = {k: v for k, v in content.items() if k not in ("instruction", "input")}
    return {**rest, "query": question}


def _system(content: dict[str, Any]) -> str:
    system = _pick(content, "system")
    return "" if system is None else text_of(system, "system")


def _pick(content: Mapping[str, Any], target: str) -> Any:
    if content.get(target) is not None:
        return content[target]
    found = [alias for alias in ALIASES[target] if content.get(alias) is not None]
    if len(found) > 1:
        raise UnusableRow(
            _(
                "several columns could be the {target}: {columns}; choose one with columns, such "
                "as {example}",
                target=target,
                columns=", ".join(found),
                example=f'{{"{found[0]}": "{target}"}}',
            )
        )
    return content[found[0]] if found else None
