"""What the stages hand to each other: rows, conversations, encoded rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from swift_jupyter.i18n import translate as _

IGNORED_LABEL = -100  # The index that torch's cross entropy leaves out.


@dataclass(frozen=True)
class Origin:
    """Where a row came from, for messages.

    Attributes
    ----------
    source : str
        A file, a data set or the kind of an object.
    number : int
        The place in the source, counted from 1.
    unit : str
        ``"line"`` where `number` is a line of a text file, else ``"row"``.
    """

    source: str
    number: int
    unit: str = "row"

    def __str__(self) -> str:
        if self.unit == "line":
            return _("{source}, line {number}", source=self.source, number=self.number)
        return _("{source}, row {number}", source=self.source, number=self.number)


@dataclass(frozen=True)
class SourceRow:
    """One row as it was read."""

    content: dict[str, Any]
    origin: Origin


class UnusableRow(ValueError):
    """A row that cannot be trained on; the message is the reason."""


@dataclass(frozen=True)
class RowProblem:
    """A row that cannot be trained on, why, and what it holds."""

    origin: Origin
    reason: str
    content: dict[str, Any] | None = None

    def __str__(self) -> str:
        return _("{origin}: {reason}", origin=self.origin, reason=self.reason)


@dataclass(frozen=True)
class Conversation:
    """A row in the one form that everything after reading works on.

    Attributes
    ----------
    messages : list of dict
        ``role`` (system, user, assistant) and ``content``; an assistant turn
        with ``"loss": False`` is context only.
    origin : Origin
        Where the row came from.
    tag : str
        The row's language tag (``zh``, ``en``), or empty.
    """

    messages: list[dict[str, Any]]
    origin: Origin
    tag: str = ""


@dataclass(frozen=True)
class EncodedRow:
    """A conversation as token ids.

    Attributes
    ----------
    input_ids : list of int
        The whole conversation, T tokens.
    labels : list of int
        T entries: the token id where it is trained, else `IGNORED_LABEL`.
    origin : Origin
        Where the row came from.
    """

    input_ids: list[int]
    labels: list[int]
    origin: Origin

    def __len__(self) -> int:
        return len(self.input_ids)

    @property
    def trained_tokens(self) -> int:
        """How many tokens carry a label."""
        return sum(label != IGNORED_LABEL for label in self.labels)
