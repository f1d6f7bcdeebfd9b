"""One row as the model sees it: every token with its text, its role and whether it is trained."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from swift_jupyter.engine.data.chat_template import ChatTemplate
from swift_jupyter.engine.data.encoding import with_system
from swift_jupyter.engine.data.preview import TokenPiece, preview
from swift_jupyter.engine.data.roles import Turn, locate_turns, role_at
from swift_jupyter.engine.data.rows import Conversation, EncodedRow
from swift_jupyter.engine.data.spans import locate_answers


@dataclass(frozen=True)
class SampleToken:
    """A token, or the few that make one character together.

    Attributes
    ----------
    text : str
        What it stands for.
    ids : tuple of int
        Its ids.
    role : str
        Whose turn it is in: system, user, assistant, ``template`` for what the chat
        template writes on its own, or empty where that cannot be told.
    trained : bool
        Whether the loss counts it.
    special : bool
        Whether it is a token with a meaning of its own, such as the end of a turn.
    """

    text: str
    ids: tuple[int, ...]
    role: str
    trained: bool
    special: bool


@dataclass(frozen=True)
class Sample:
    """An encoded row with the tokens it consists of.

    Attributes
    ----------
    origin : str
        The source and the row's place in it.
    tokens : tuple of SampleToken
        Their texts, put together, are the whole text.
    length, trained : int
        How many token ids there are, and how many of them are trained.
    cut : bool
        Whether the row was longer than the limit and was cut.
    """

    origin: str
    tokens: tuple[SampleToken, ...]
    length: int
    trained: int
    cut: bool = False

    @property
    def text(self) -> str:
        """The whole text."""
        return "".join(token.text for token in self.tokens)

    def to_dict(self) -> dict[str, Any]:
        """Return the sample as plain JSON values."""
        return asdict(self)


def sample_of(
    conversation: Conversation, row: EncodedRow, template: ChatTemplate, system: str = ""
) -> Sample:
    """Return `row` token by token.

    Parameters
    ----------
    conversation : Conversation
        What it was encoded from.
    row : EncodedRow
        The encoded row.
    template : ChatTemplate
        How it was rendered.
    system : str
        The system text of conversations without one.
    """
    messages = with_system(conversation.messages, system)
    whole, _spans = locate_answers(template, messages)
    turns = locate_turns(template, messages, whole)
    pieces = preview(template.tokenizer, row)
    text = "".join(piece.text for piece in pieces)
    return Sample(
        origin=str(row.origin),
        tokens=_tokens(pieces, _place(text, whole), turns, _special_ids(template.tokenizer)),
        length=len(row),
        trained=row.trained_tokens,
        cut=len(text) < len(whole) and text in whole,
    )


def _place(text: str, whole: str) -> int | None:
    """Return where a row's text begins in the rendered one; truncation cuts either end."""
    found = whole.find(text)
    return found if found >= 0 else None


def _tokens(
    pieces: list[TokenPiece], start: int | None, turns: list[Turn], special: Mapping[int, str]
) -> tuple[SampleToken, ...]:
    tokens = []
    position = start or 0
    for piece in pieces:
        role = "" if start is None else role_at(turns, position)
        is_special = len(piece.ids) == 1 and piece.ids[0] in special
        tokens.append(SampleToken(piece.text, piece.ids, role, piece.trained, is_special))
        position += len(piece.text)
    return tuple(tokens)


def _special_ids(tokenizer: Any) -> dict[int, str]:
    added = getattr(tokenizer, "added_tokens_decoder", {})
    return {number: str(token) for number, token in added.items() if token.special}
