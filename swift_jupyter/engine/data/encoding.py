"""Conversations to token ids and labels."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from swift_jupyter.engine.data.chat_template import ChatTemplate, chat_template_of
from swift_jupyter.engine.data.packed import FlatRow, PackedRows, RowPacker
from swift_jupyter.engine.data.processes import in_processes
from swift_jupyter.engine.data.rows import (
    Conversation,
    EncodedRow,
    RowProblem,
    UnusableRow,
)
from swift_jupyter.engine.data.screening import refusal
from swift_jupyter.engine.data.spans import Span, locate_answers
from swift_jupyter.engine.data.tokens import tokenize
from swift_jupyter.errors import Interrupted, UserError
from swift_jupyter.i18n import translate as _

TRUNCATION_STRATEGIES = ("delete", "left", "right")
_BATCH = 128  # Rows per call of the tokenizer: enough for its threads, short between stops.

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class EncodingOptions:
    """How conversations are encoded.

    Attributes
    ----------
    max_length : int or None
        The most tokens a row may have; None for no limit.
    truncation_strategy : str
        For longer rows: ``delete`` them, or cut on the ``left`` or ``right``.
    system : str
        The system text of rows without one; empty for the template's own.
    strict : bool
        Refuse everything at the first bad row.

    Raises
    ------
    UserError
        For a strategy that does not exist, or a length below 1.
    """

    max_length: int | None = None
    truncation_strategy: str = "delete"
    system: str = ""
    strict: bool = False

    def __post_init__(self) -> None:
        if self.truncation_strategy not in TRUNCATION_STRATEGIES:
            raise UserError(
                _("truncation_strategy cannot be '{value}'.", value=self.truncation_strategy),
                _("It is one of {choices}.", choices=", ".join(TRUNCATION_STRATEGIES)),
            )
        if self.max_length is not None and self.max_length < 1:
            raise UserError(_("max_length must be at least 1, not {n}.", n=self.max_length))


@dataclass
class EncodingResult:
    """The encoded rows, and what became of the others.

    Attributes
    ----------
    packed : PackedRows
        The rows that can be trained on.
    places : list of (int or None)
        For each conversation its row in `packed`; None where it was left out.
    problems : list of RowProblem
        Rows that the template refuses or in which no answer was found.
    lengths_deleted : list of int
        The lengths, in tokens, of the rows that were too long.
    cut : int
        How many rows were truncated.
    unlabelled : list of RowProblem
        Rows of which truncation left nothing to train.
    """

    packed: PackedRows
    places: list[int | None] = field(default_factory=list)
    problems: list[RowProblem] = field(default_factory=list)
    lengths_deleted: list[int] = field(default_factory=list)
    cut: int = 0
    unlabelled: list[RowProblem] = field(default_factory=list)

    @property
    def rows(self) -> list[EncodedRow | None]:
        """One entry for each conversation; None where it was left out."""
        return [None if place is None else self.packed[place] for place in self.places]


def encode(
    conversations: Sequence[Conversation],
    tokenizer: Any,
    options: EncodingOptions | None = None,
    chat_template: str | None = None,
    progress: Progress | None = None,
    should_stop: Callable[[], bool] | None = None,
    processes: int = 1,
) -> EncodingResult:
    """Encode `conversations` with the tokenizer's chat template.

    Parameters
    ----------
    conversations : sequence of Conversation
        What to encode.
    tokenizer : PreTrainedTokenizerBase
        The model's tokenizer.
    options : EncodingOptions, optional
        Lengths, truncation, system text, strictness.
    chat_template : str, optional
        A Jinja text or the path of one, instead of the tokenizer's own.
    progress : callable, optional
        Called with the number of rows done and their total.
    should_stop : callable, optional
        Asked between batches.
    processes : int, optional
        How many processes may share the work, where the system can divide one.

    Returns
    -------
    EncodingResult
        Labels are on the answers and their ends only.

    Raises
    ------
    UserError
        Without a chat template, or at the first bad row when strict.
    Interrupted
        When `should_stop` said so.
    """
    options = options or EncodingOptions()
    template = chat_template_of(tokenizer, chat_template)
    batches = [conversations[i : i + _BATCH] for i in range(0, len(conversations), _BATCH)]
    work = functools.partial(_encode_batch, template=template, options=options)
    parts: list[EncodingResult] = []
    done = 0
    with contextlib.closing(in_processes(work, batches, processes)) as outcomes:
        for part in outcomes:
            if should_stop is not None and should_stop():
                raise Interrupted(_("The preparation of the data was stopped."))
            parts.append(part)
            done += len(part.places)
            if progress is not None:
                progress(done, len(conversations))
    return _joined(parts)


def _joined(parts: Sequence[EncodingResult]) -> EncodingResult:
    packer = RowPacker()
    result = EncodingResult(packer.finish())
    offset = 0
    for part in parts:
        packer.extend(part.packed)
        result.places.extend(None if i is None else i + offset for i in part.places)
        offset += len(part.packed)
        result.problems.extend(part.problems)
        result.lengths_deleted.extend(part.lengths_deleted)
        result.cut += part.cut
        result.unlabelled.extend(part.unlabelled)
    result.packed = packer.finish()
    return result


def _encode_batch(
    batch: Sequence[Conversation], template: ChatTemplate, options: EncodingOptions
) -> EncodingResult:
    packer = RowPacker()
    result = EncodingResult(packer.finish())
    located: list[tuple[int, str, list[Span]]] = []
    for index, conversation in enumerate(batch):
        messages = with_system(conversation.messages, options.system)
        try:
            text, spans = locate_answers(template, messages)
            located.append((index, text, spans))
        except UnusableRow as error:
            _report(_problem(conversation, str(error)), options, result)
    places: list[int | None] = [None] * len(batch)
    kept = 0
    tokenized = tokenize([text for _index, text, _spans in located], template.tokenizer)
    for (index, text, spans), tokens in zip(located, tokenized, strict=True):
        row = FlatRow(tokens.ids, tokens.ranges(text, spans), batch[index].origin)
        if not row.trained:
            reason = _("the answer has no token of its own in the text of the chat template")
            _report(_problem(batch[index], reason), options, result)
            continue
        fitting = _fit(row, options, result)
        if fitting is not None:
            packer.add(fitting)
            places[index], kept = kept, kept + 1
    result.packed, result.places = packer.finish(), places
    return result


def _problem(conversation: Conversation, reason: str) -> RowProblem:
    return RowProblem(conversation.origin, reason, {"messages": conversation.messages})


def with_system(messages: list[dict[str, Any]], system: str) -> list[dict[str, Any]]:
    """Return `messages` with `system` in front, unless they have a system turn."""
    if not system or any(message["role"] == "system" for message in messages):
        return messages
    return [{"role": "system", "content": system}, *messages]


def _report(problem: RowProblem, options: EncodingOptions, result: EncodingResult) -> None:
    if options.strict:
        raise refusal(problem)
    result.problems.append(problem)


def _fit(row: FlatRow, options: EncodingOptions, result: EncodingResult) -> FlatRow | None:
    limit, length = options.max_length, len(row.ids)
    if limit is None or length <= limit:
        return row
    if options.truncation_strategy == "delete":
        result.lengths_deleted.append(length)
        return None
    right = options.truncation_strategy == "right"
    cut = row.cut(0, limit) if right else row.cut(length - limit, length)
    if not cut.trained:
        reason = _("nothing of the answer is left in {limit} tokens", limit=limit)
        result.unlabelled.append(RowProblem(row.origin, reason))
        return None
    result.cut += 1
    return cut
