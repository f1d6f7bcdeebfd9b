"""Where the answers lie in a rendered conversation.

The template is a black box. Four ways lead to an answer's place:

1. the template marks it itself (``{% generation %}``);
2. pieces: the whole text consists of the contents and of what the template is known to
   write around every turn;
3. prefixes: the text up to and including the generation prompt, and the text
   up to and including the answer, both begin the whole text;
4. marks: the conversation is rendered again with private-use characters
   around the answers. This serves templates that treat a turn differently
   when others follow, for example by taking the thoughts out of it.

What none of them finds is refused; nothing is guessed.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from swift_jupyter.engine.data.chat_template import ChatTemplate
from swift_jupyter.engine.data.rows import UnusableRow
from swift_jupyter.i18n import translate as _

Messages = Sequence[dict[str, Any]]

# An empty thought is what the template adds to an answer without one; the generation prompt
# may have opened it already.
_EMPTY_THOUGHT = re.compile(r"\s*(?:<think>\s*)?</think>\s*")
_THOUGHT_END = "</think>"
_FIRST_MARK = 0xF0000  # Plane 15 is private: no tokenizer, template or text gives it a meaning.
_LAST_MARK = 0xFFFFD


@dataclass(frozen=True)
class Span:
    """Characters `start` to `end` (exclusive) of the rendered text."""

    start: int
    end: int


def locate_answers(template: ChatTemplate, messages: Messages) -> tuple[str, list[Span]]:
    """Render `messages` and find what is to be trained.

    Parameters
    ----------
    template : ChatTemplate
        How to render.
    messages : sequence of dict
        The canonical messages.

    Returns
    -------
    tuple
        The text, and the spans of the answers that count, each from behind
        the generation prompt to behind the end of the turn. Where the template
        puts nothing behind the last answer, the text gets the tokenizer's
        end-of-text token.

    Raises
    ------
    UnusableRow
        When the template refuses the messages or an answer cannot be found.
    """
    turns = [i for i, message in enumerate(messages) if message["role"] == "assistant"]
    if template.marks_answers:
        text, places = template.render_with_answers(messages)
        found = _by_generation_marks(template, messages, turns, text, places)
    else:
        text = template.render(messages)
        found = _by_pieces(template, messages, turns, text)
    found = [
        span or _by_prefix(template, messages, turn, text)
        for turn, span in zip(turns, found, strict=True)
    ]
    if None in found:
        found = _by_marks(template, messages, turns, text, found)
    spans = [span for span in found if span is not None]
    text, spans[-1] = _with_end(template, messages[turns[-1]]["content"], text, spans[-1])
    return text, [
        _without_empty_thought(text, span)
        for turn, span in zip(turns, spans, strict=True)
        if messages[turn].get("loss") is not False
    ]


def _by_pieces(
    template: ChatTemplate, messages: Messages, turns: list[int], text: str
) -> list[Span | None]:
    pieces = template.turn_pieces
    places = pieces.answers(messages, text) if pieces is not None else None
    if places is None:
        return [None] * len(turns)
    spans = [Span(start, end) for start, end in places]
    fine = all(
        _holds_answer(text, span, messages[turn]["content"])
        for span, turn in zip(spans, turns, strict=True)
    )
    return list(spans) if fine else [None] * len(turns)


def _by_generation_marks(
    template: ChatTemplate,
    messages: Messages,
    turns: list[int],
    text: str,
    places: list[tuple[int, int]],
) -> list[Span | None]:
    if len(places) != len(turns):
        return [None] * len(turns)
    spans: list[Span | None] = []
    for turn, (start, end) in zip(turns, places, strict=True):
        # Some templates mark the turn's header too, which the model never has to write.
        prompt = _prefix_length(template, messages[:turn], text, add_generation_prompt=True)
        if prompt is not None and start < prompt < end:
            start = prompt
        span = Span(start, end)
        spans.append(span if _holds_answer(text, span, messages[turn]["content"]) else None)
    return spans


def _by_prefix(template: ChatTemplate, messages: Messages, turn: int, text: str) -> Span | None:
    start = _prefix_length(template, messages[:turn], text, add_generation_prompt=True)
    if start is None:
        return None
    end = len(text)
    if turn + 1 < len(messages):
        length = _prefix_length(template, messages[: turn + 1], text)
        if length is None:
            return None
        end = length
    span = Span(start, end)
    return span if _holds_answer(text, span, messages[turn]["content"]) else None


def _holds_answer(text: str, span: Span, content: str) -> bool:
    return _answer(content) in text[span.start : span.end]


def _answer(content: str) -> str:
    """Return `content` without its thought, which templates write in their own way."""
    return content.rpartition(_THOUGHT_END)[2].strip()


def _with_end(template: ChatTemplate, content: str, text: str, span: Span) -> tuple[str, Span]:
    """Put the end-of-text token behind a last answer that the template leaves open.

    Without it the model would never learn to stop.
    """
    end = template.tokenizer.eos_token
    if not end or span.end != len(text) or not text.endswith(_answer(content)):
        return text, span
    return text + end, Span(span.start, span.end + len(end))


def _prefix_length(
    template: ChatTemplate, messages: Messages, text: str, add_generation_prompt: bool = False
) -> int | None:
    if not messages:
        return None
    try:
        prefix = template.render(messages, add_generation_prompt)
    except UnusableRow:
        return None  # Some templates refuse a part of what they accept as a whole.
    return len(prefix) if text.startswith(prefix) else None


def _by_marks(
    template: ChatTemplate,
    messages: Messages,
    turns: list[int],
    text: str,
    known: list[Span | None],
) -> list[Span | None]:
    """Find the spans that are not in `known`, all of them or none."""
    for behind_thought in (False, True):
        marked = _with_marks(messages, turns, behind_thought)
        rendering = _MarkedRendering(template, messages, marked, template.render(marked), text)
        if not rendering.is_faithful:
            continue
        spans = [
            span or rendering.span(number, turn)
            for number, (turn, span) in enumerate(zip(turns, known, strict=True))
        ]
        if None not in spans:
            return spans
    raise UnusableRow(
        _("the chat template changes the answers so that they cannot be found in its text")
    )


def _with_marks(messages: Messages, turns: list[int], behind_thought: bool) -> Messages:
    if _FIRST_MARK + 2 * len(turns) > _LAST_MARK or any(
        _has_mark(message["content"]) for message in messages
    ):
        raise UnusableRow(_("the text uses private characters of plane 15"))
    marked = list(messages)
    for number, turn in enumerate(turns):
        content = messages[turn]["content"]
        # Inside the blanks at both ends, which templates may strip.
        begin = len(content) - len(content.lstrip())
        end = len(content.rstrip())
        if behind_thought and _THOUGHT_END in content[:end]:
            begin = content.rindex(_THOUGHT_END, 0, end) + len(_THOUGHT_END)
            begin += len(content[begin:end]) - len(content[begin:end].lstrip())
        pieces = (content[:begin], _begin(number), content[begin:end], _end(number), content[end:])
        marked[turn] = {**messages[turn], "content": "".join(pieces)}
    return marked


@dataclass(frozen=True)
class _MarkedRendering:
    """A conversation rendered with marks around its answers, beside the plain `text`."""

    template: ChatTemplate
    messages: Messages
    marked: Messages
    rendered: str
    text: str

    @property
    def is_faithful(self) -> bool:
        """Whether the marks changed nothing but themselves."""
        return _unmarked(self.rendered) == self.text

    def span(self, number: int, turn: int) -> Span | None:
        """Return the span of the answer that is turn `turn` and has the marks `number`."""
        first, last = self._position(_begin(number)), self._position(_end(number))
        if last is None:
            return None
        prompt = _prefix_length(
            self.template, self.messages[:turn], self.text, add_generation_prompt=True
        )
        limit = last if first is None else first
        start = prompt if prompt is not None and prompt <= limit else first
        return None if start is None else Span(start, self._end_of_turn(number, turn, last))

    def _end_of_turn(self, number: int, turn: int, content_end: int) -> int:
        if turn + 1 == len(self.messages):
            return len(self.text)
        try:
            alone = self.template.render(self.marked[: turn + 1])
        except UnusableRow:
            return content_end
        _before, mark, tail = alone.partition(_end(number))
        if not mark:
            return content_end
        # Alone, the turn may end differently: what both have in common is its own end.
        return content_end + _common_length(_unmarked(tail), self.text[content_end:])

    def _position(self, mark: str) -> int | None:
        """Return where `mark` stands, counted without any marks; None if not just once."""
        if self.rendered.count(mark) != 1:
            return None
        return len(_unmarked(self.rendered.partition(mark)[0]))


def _without_empty_thought(text: str, span: Span) -> Span:
    match = _EMPTY_THOUGHT.match(text, span.start, span.end)
    return Span(match.end(), span.end) if match and match.end() < span.end else span


def _common_length(first: str, second: str) -> int:
    pairs = zip(first, second, strict=False)
    return next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(first), len(second)))


def _begin(number: int) -> str:
    return chr(_FIRST_MARK + 2 * number)


def _end(number: int) -> str:
    return chr(_FIRST_MARK + 2 * number + 1)


def _has_mark(text: str) -> bool:
    return any(_FIRST_MARK <= ord(character) <= _LAST_MARK for character in text)


def _unmarked(text: str) -> str:
    return re.sub(f"[{chr(_FIRST_MARK)}-{chr(_LAST_MARK)}]", "", text)
