"""Conversations to token ids and labels."""

from __future__ import annotations

import bisect
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from swift_jupyter.engine.data.chat_template import ChatTemplate, chat_template_of
from swift_jupyter.engine.data.rows import (
    IGNORED_LABEL,
    Conversation,
    EncodedRow,
    RowProblem,
    UnusableRow,
)
from swift_jupyter.engine.data.screening import refusal
from swift_jupyter.engine.data.spans import Span, locate_answers
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
    rows : list of (EncodedRow or None)
        One entry for each conversation; None where it was left out.
    problems : list of RowProblem
        Rows that the template refuses or in which no answer was found.
    lengths_deleted : list of int
        The lengths, in tokens, of the rows that were too long.
    cut : int
        How many rows were truncated.
    unlabelled : list of RowProblem
        Rows of which truncation left nothing to train.
    """

    rows: list[EncodedRow | None] = field(default_factory=list)
    problems: list[RowProblem] = field(default_factory=list)
    lengths_deleted: list[int] = field(default_factory=list)
    cut: int = 0
    unlabelled: list[RowProblem] = field(default_factory=list)


def encode(
    conversations: Sequence[Conversation],
    tokenizer: Any,
    options: EncodingOptions | None = None,
    chat_template: str | None = None,
    progress: Progress | None = None,
    should_stop: Callable[[], bool] | None = None,
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
    result = EncodingResult()
    total = len(conversations)
    for start in range(0, total, _BATCH):
        if should_stop is not None and should_stop():
            raise Interrupted(_("The preparation of the data was stopped."))
        batch = conversations[start : start + _BATCH]
        result.rows.extend(_encode_batch(batch, template, options, result))
        if progress is not None:
            progress(min(start + _BATCH, total), total)
    return result


def _encode_batch(
    batch: Sequence[Conversation],
    template: ChatTemplate,
    options: EncodingOptions,
    result: EncodingResult,
) -> list[EncodedRow | None]:
    located: list[tuple[int, str, list[Span]]] = []
    for index, conversation in enumerate(batch):
        messages = with_system(conversation.messages, options.system)
        try:
            text, spans = locate_answers(template, messages)
            located.append((index, text, spans))
        except UnusableRow as error:
            _report(RowProblem(conversation.origin, str(error)), options, result)
    rows: list[EncodedRow | None] = [None] * len(batch)
    tokenized = tokenize([text for _index, text, _spans in located], template.tokenizer)
    for (index, text, spans), tokens in zip(located, tokenized, strict=True):
        labels = tokens.labels(text, spans)
        row = EncodedRow(tokens.input_ids, labels, batch[index].origin)
        if not row.trained_tokens:
            reason = _("the answer has no token of its own in the text of the chat template")
            _report(RowProblem(row.origin, reason), options, result)
            continue
        rows[index] = _fit(row, options, result)
    return rows


def with_system(messages: list[dict[str, Any]], system: str) -> list[dict[str, Any]]:
    """Return `messages` with `system` in front, unless they have a system turn."""
    if not system or any(message["role"] == "system" for message in messages):
        return messages
    return [{"role": "system", "content": system}, *messages]


def _report(problem: RowProblem, options: EncodingOptions, result: EncodingResult) -> None:
    if options.strict:
        raise refusal(problem)
    result.problems.append(problem)


def _fit(row: EncodedRow, options: EncodingOptions, result: EncodingResult) -> EncodedRow | None:
    limit = options.max_length
    if limit is None or len(row) <= limit:
        return row
    if options.truncation_strategy == "delete":
        result.lengths_deleted.append(len(row))
        return None
    keep = slice(None, limit) if options.truncation_strategy == "right" else slice(-limit, None)
    cut = EncodedRow(row.input_ids[keep], row.labels[keep], row.origin)
    if not cut.trained_tokens:
        reason = _("nothing of the answer is left in {limit} tokens", limit=limit)
        result.unlabelled.append(RowProblem(row.origin, reason))
        return None
    result.cut += 1
    return cut


@dataclass(frozen=True)
class Tokens:
    """The tokens of a text.

    Attributes
    ----------
    input_ids : list of int
        T token ids.
    offsets : list of (int, int) or None
        The characters of each token; None from tokenizers that do not tell.
    tokenizer : PreTrainedTokenizerBase
        Whose they are.
    """

    input_ids: list[int]
    offsets: list[tuple[int, int]] | None
    tokenizer: Any

    def labels(self, text: str, spans: Sequence[Span]) -> list[int]:
        """Return T labels: the ids of the tokens in `spans`, else ignored.

        A token across the start of a span belongs to the answer, since the
        model must produce its part; one across the end does not, since it
        holds what comes from someone else.
        """
        labels = [IGNORED_LABEL] * len(self.input_ids)
        for span in spans:
            first, last = self._token_range(text, span)
            labels[first:last] = self.input_ids[first:last]
        return labels

    def _token_range(self, text: str, span: Span) -> tuple[int, int]:
        if self.offsets is None:
            return self._common(text[: span.start]), self._common(text[: span.end])
        ends = [end for _start, end in self.offsets]
        first = bisect.bisect_right(ends, span.start)
        last = bisect.bisect_right(ends, span.end)
        return first, last

    def _common(self, prefix: str) -> int:
        """Return how many tokens of the whole the tokens of `prefix` begin with."""
        ids = self.tokenizer(prefix, add_special_tokens=False)["input_ids"]
        pairs = zip(ids, self.input_ids, strict=False)
        return sum(1 for _pair in itertools.takewhile(lambda pair: pair[0] == pair[1], pairs))


def tokenize(texts: Sequence[str], tokenizer: Any) -> list[Tokens]:
    """Tokenize whole texts, without adding special tokens: templates wrote them."""
    if not texts:
        return []
    fast = bool(getattr(tokenizer, "is_fast", False))
    batch = tokenizer(
        list(texts),
        add_special_tokens=False,
        return_attention_mask=False,
        return_offsets_mapping=fast,
        padding=False,
        truncation=False,
        verbose=False,  # Rows above the model's length are handled here.
    )
    offsets = batch["offset_mapping"] if fast else [None] * len(texts)
    return [
        Tokens(list(ids), None if pairs is None else list(pairs), tokenizer)
        for ids, pairs in zip(batch["input_ids"], offsets, strict=True)
    ]
