"""Whose text is where in a rendered conversation: for a view coloured by role."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from swift_jupyter.engine.data.chat_template import ChatTemplate
from swift_jupyter.engine.data.rows import UnusableRow


@dataclass(frozen=True)
class Turn:
    """Characters `start` to `end` (exclusive) of the rendered text, and whose they are."""

    role: str
    start: int
    end: int


def locate_turns(
    template: ChatTemplate, messages: Sequence[Mapping[str, Any]], text: str
) -> list[Turn]:
    """Divide `text` among the messages it was rendered from.

    Parameters
    ----------
    template : ChatTemplate
        How it was rendered.
    messages : sequence of mapping
        The messages, with ``role`` and ``content``.
    text : str
        The rendered text.

    Returns
    -------
    list of Turn
        Without gaps. What the template writes around a message belongs to it;
        what it writes before the first one (a default system text) to ``template``.

    Notes
    -----
    A turn ends where the rendering of the messages so far ends, if that begins the
    whole text. Where a template rewrites earlier turns it does not, and the next turn
    then begins with its own content.
    """
    starts = [_first_start(template, messages, text)]
    for index in range(1, len(messages)):
        length = _prefix_length(template, messages[:index], text)
        if length is None or length < starts[-1]:
            content = str(messages[index].get("content") or "").strip()
            found = text.find(content, starts[-1]) if content else -1
            length = found if found >= 0 else starts[-1]
        starts.append(length)
    ends = [*starts[1:], len(text)]
    turns = [Turn("template", 0, starts[0])] if starts[0] else []
    turns += [
        Turn(str(message["role"]), start, end)
        for message, start, end in zip(messages, starts, ends, strict=True)
        if end > start
    ]
    return turns


def _first_start(template: ChatTemplate, messages: Sequence[Mapping[str, Any]], text: str) -> int:
    """Return where the first message begins: behind a system text of the template's own.

    With a system text of ours the template leaves its own out, and all behind ours is
    what follows its own, too.
    """
    if messages[0]["role"] == "system":
        return 0
    system = {"role": "system", "content": "\ue000"}
    try:
        behind = len(template.render([system, *messages])) - len(template.render([system]))
        start = len(template.render(messages)) - behind
    except UnusableRow:
        return 0
    return start if 0 < start < len(text) else 0


def _prefix_length(
    template: ChatTemplate, messages: Sequence[Mapping[str, Any]], text: str
) -> int | None:
    try:
        prefix = template.render(messages)
    except UnusableRow:
        return None
    return len(prefix) if text.startswith(prefix) else None


def role_at(turns: Sequence[Turn], position: int) -> str:
    """Return whose the character at `position` is; empty when it is nobody's."""
    for turn in turns:
        if turn.start <= position < turn.end:
            return turn.role
    return ""
