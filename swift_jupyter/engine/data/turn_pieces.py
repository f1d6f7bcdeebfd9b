"""What a chat template writes around the turns, where that is the same for all of them.

Most templates put fixed text before and behind each turn. Where a rendered conversation
consists of exactly these pieces and its own contents, the answers' places follow
without rendering its prefixes, which is most of the work of encoding.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

# Private-use characters: no template treats them in any way of its own.
_SYSTEM, _QUESTIONS, _ANSWERS = "\ue010", "\ue011\ue012\ue013", "\ue014\ue015\ue016"

Render = Callable[[Sequence[Mapping[str, Any]], bool], str]


@dataclass(frozen=True)
class TurnPieces:
    """The fixed texts of a template.

    Attributes
    ----------
    head : str
        Before the first question of a conversation without a system text.
    system_head, system_end : str or None
        Around a system text; None where the template has no place for one.
    prompt : str
        Between a question and its answer: the end of one turn and the start of the other.
    end : str
        Behind an answer, which is the last that the model has to write.
    next_head : str
        Between the end of an answer and the next question.
    """

    head: str
    system_head: str | None
    system_end: str | None
    prompt: str
    end: str
    next_head: str

    def answers(
        self, messages: Sequence[Mapping[str, Any]], text: str
    ) -> list[tuple[int, int]] | None:
        """Return where the answers and their ends lie in `text`.

        Parameters
        ----------
        messages : sequence of mapping
            The conversation that was rendered.
        text : str
            What the template made of it.

        Returns
        -------
        list of (int, int) or None
            The first character and the one behind the last of every answer with its
            end; None when `text` does not consist of the pieces and the contents.
        """
        turns = list(messages)
        walk = _Walk(text)
        if turns and turns[0]["role"] == "system":
            if self.system_head is None or self.system_end is None:
                return None
            system = turns.pop(0)["content"]
            walk.take(self.system_head).take_content(system).take(self.system_end)
        else:
            walk.take(self.head)
        roles = [turn["role"] for turn in turns]
        if len(turns) % 2 or roles != ["user", "assistant"] * (len(turns) // 2):
            return None
        places = []
        for number in range(0, len(turns), 2):
            if number:
                walk.take(self.next_head)
            walk.take_content(turns[number]["content"]).take(self.prompt)
            start = walk.position
            walk.take_content(turns[number + 1]["content"]).take(self.end)
            places.append((start, walk.position))
        return places if walk.fits and walk.position == len(text) else None


class _Walk:
    """Goes through a text piece by piece, as long as they fit."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.position = 0
        self.fits = True

    def take(self, piece: str) -> _Walk:
        """Go behind `piece`, which must come next."""
        self.fits = self.fits and self.text.startswith(piece, self.position)
        self.position += len(piece)
        return self

    def take_content(self, content: str) -> _Walk:
        """Go behind a message's content, which templates may strip of blanks."""
        if not self.text.startswith(content, self.position):
            content = content.strip()
        return self.take(content)


def learn_pieces(render: Render) -> TurnPieces | None:
    """Find the fixed texts of a template by rendering conversations of marks.

    Parameters
    ----------
    render : callable
        ``render(messages, add_generation_prompt)``; it may raise `ValueError`.

    Returns
    -------
    TurnPieces or None
        None where the text around a turn depends on its place, or where the prompt
        for an answer is not what stands before an answer.
    """
    chat = [
        {"role": role, "content": mark}
        for pair in zip(_QUESTIONS, _ANSWERS, strict=True)
        for role, mark in zip(("user", "assistant"), pair, strict=True)
    ]
    try:
        whole = render(chat, False)
        parts = _split(whole, [turn["content"] for turn in chat])
        if parts is None:
            return None
        head, prompt, between, prompt_2, between_2, prompt_3, tail = parts
        same = prompt == prompt_2 == prompt_3 and between == between_2 and between.startswith(tail)
        as_prompted = render(chat[:1], True) == head + chat[0]["content"] + prompt
        if not same or not as_prompted or not whole.startswith(render(chat[:2], False)):
            return None
    except ValueError:
        return None
    system_head, system_end = _around_system(render, chat, whole[len(head) :])
    return TurnPieces(head, system_head, system_end, prompt, tail, between[len(tail) :])


def _around_system(
    render: Render, chat: list[dict[str, str]], rest: str
) -> tuple[str | None, str | None]:
    try:
        text = render([{"role": "system", "content": _SYSTEM}, *chat], False)
    except ValueError:
        return None, None
    if text.count(_SYSTEM) != 1 or not text.endswith(rest):
        return None, None
    head, _mark, behind = text.partition(_SYSTEM)
    return head, behind[: len(behind) - len(rest)]


def _split(text: str, marks: Sequence[str]) -> list[str] | None:
    """Return what stands between the marks; None unless each is there once, in order."""
    parts = []
    for mark in marks:
        before, found, text = text.partition(mark)
        if not found or mark in text:
            return None
        parts.append(before)
    return [*parts, text]
