"""Who the model is: the placeholders of the self-cognition data set."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from swift_jupyter.engine.data.rows import Conversation
from swift_jupyter.errors import UserError
from swift_jupyter.i18n import translate as _

NAME = "{{NAME}}"
AUTHOR = "{{AUTHOR}}"
_CJK = re.compile(r"[\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff]")


def two_languages(values: Sequence[str], option: str) -> tuple[str, str] | None:
    """Return the Chinese and the English value; one value serves both.

    Parameters
    ----------
    values : sequence of str
        Nothing, one value, or the Chinese one and then the English one.
    option : str
        The option's name, for the message.

    Raises
    ------
    UserError
        For more than two values.
    """
    given = [value for value in values if value.strip()]
    if not given:
        return None
    if len(given) > 2:
        raise UserError(
            _("{option} takes one or two values, not {count}.", option=option, count=len(given)),
            _("The first is the Chinese one, the second the English one."),
        )
    return given[0], given[-1]


def fill_placeholders(
    conversations: Sequence[Conversation],
    model_name: Sequence[str],
    model_author: Sequence[str],
    required_by: str = "",
) -> list[Conversation]:
    """Put the model's name and author in the place of ``{{NAME}}`` and ``{{AUTHOR}}``.

    Parameters
    ----------
    conversations : sequence of Conversation
        What to fill; those without a placeholder are passed on as they are.
    model_name, model_author : sequence of str
        One value, or the Chinese and the English one.
    required_by : str, optional
        The data set that makes no sense with a placeholder left in it.

    Raises
    ------
    UserError
        When `required_by` has a placeholder for which no value is given.
    """
    known = {
        NAME: two_languages(model_name, "model_name"),
        AUTHOR: two_languages(model_author, "model_author"),
    }
    if required_by:
        _require(conversations, known, required_by)
    return [_fill(conversation, known) for conversation in conversations]


def has_placeholder(conversation: Conversation) -> bool:
    """Tell whether a placeholder is left in `conversation`."""
    return any(mark in _text(conversation) for mark in (NAME, AUTHOR))


def _text(conversation: Conversation) -> str:
    return "\n".join(message["content"] for message in conversation.messages)


def _require(
    conversations: Sequence[Conversation],
    known: dict[str, tuple[str, str] | None],
    dataset: str,
) -> None:
    used = {mark for mark in known for row in conversations if mark in _text(row)}
    missing = [
        option
        for mark, option in ((NAME, "model_name"), (AUTHOR, "model_author"))
        if mark in used and known[mark] is None
    ]
    if missing:
        raise UserError(
            _(
                "The dataset {dataset} needs {options}.",
                dataset=dataset,
                options=_(" and ").join(missing),
            ),
            _("It teaches the model who it is, so it must know the name and the author."),
            _(
                "Add {example}: the Chinese value and the English one, or one for both.",
                example=" ".join(f"--{option} '{_EXAMPLES[option]}'" for option in missing),
            ),
        )


_EXAMPLES = {"model_name": "小黄' 'Xiao Huang", "model_author": "魔搭' 'ModelScope"}


def _fill(conversation: Conversation, known: dict[str, tuple[str, str] | None]) -> Conversation:
    if not has_placeholder(conversation):
        return conversation
    language = 0 if _is_chinese(conversation) else 1
    messages: list[dict[str, Any]] = []
    for message in conversation.messages:
        content = message["content"]
        for mark, values in known.items():
            if values is not None:
                content = content.replace(mark, values[language])
        messages.append({**message, "content": content})
    return Conversation(messages, conversation.origin, conversation.tag)


def _is_chinese(conversation: Conversation) -> bool:
    if conversation.tag in ("zh", "en"):
        return conversation.tag == "zh"
    question = next((m["content"] for m in conversation.messages if m["role"] == "user"), "")
    return bool(_CJK.search(question))
