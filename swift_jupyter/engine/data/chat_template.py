"""A tokenizer's chat template as a function from messages to text."""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from swift_jupyter.engine.data.rows import UnusableRow
from swift_jupyter.engine.data.turn_pieces import TurnPieces, learn_pieces
from swift_jupyter.errors import UserError
from swift_jupyter.i18n import translate as _

_GENERATION_TAG = re.compile(r"\{%[-+]?\s*generation\s*[-+]?%\}")


@dataclass(frozen=True)
class ChatTemplate:
    """A chat template with the tokenizer whose special tokens it uses.

    Attributes
    ----------
    tokenizer : PreTrainedTokenizerBase
        Gives the special tokens.
    source : str
        The Jinja text.
    """

    tokenizer: Any
    source: str

    @property
    def marks_answers(self) -> bool:
        """Whether the template itself says what the assistant generates."""
        return _GENERATION_TAG.search(self.source) is not None

    @functools.cached_property
    def turn_pieces(self) -> TurnPieces | None:
        """What the template writes around turns; None where it is not always the same.

        A template that marks the answers itself is asked instead.
        """
        return None if self.marks_answers else learn_pieces(self.render)

    def render(
        self, messages: Sequence[Mapping[str, Any]], add_generation_prompt: bool = False
    ) -> str:
        """Return the text of `messages`.

        Raises
        ------
        UnusableRow
            When the template refuses them, with the template's own reason.
        """
        import jinja2

        try:
            text: str = self.tokenizer.apply_chat_template(
                bare(messages),
                chat_template=self.source,
                add_generation_prompt=add_generation_prompt,
                tokenize=False,
            )
        except (jinja2.TemplateError, TypeError, ValueError, LookupError) as error:
            raise UnusableRow(_refused(error)) from error
        return text

    def render_with_answers(
        self, messages: Sequence[Mapping[str, Any]]
    ) -> tuple[str, list[tuple[int, int]]]:
        """Return the text, and where the template's generation blocks lie in it.

        Returns
        -------
        tuple
            The text, and the first character and the one behind the last of
            every block.

        Notes
        -----
        ``apply_chat_template(return_assistant_tokens_mask=True)`` starts from
        the same places, but asks the tokenizer for the token at one character
        only. Where that character is a blank that byte-level tokenizers leave
        out of their offsets, the mask loses a turn or runs on to the end.

        Raises
        ------
        UnusableRow
            As in `render`.
        """
        import jinja2
        from transformers.utils.chat_template_utils import render_jinja_template

        try:
            rendered: Any = render_jinja_template(
                conversations=[bare(messages)],
                chat_template=self.source,
                return_assistant_tokens_mask=True,
                **self.tokenizer.special_tokens_map,
            )
        except (jinja2.TemplateError, TypeError, ValueError, LookupError) as error:
            raise UnusableRow(_refused(error)) from error
        texts, places = rendered
        return texts[0], [(int(start), int(end)) for start, end in places[0]]


def chat_template_of(tokenizer: Any, override: str | None = None) -> ChatTemplate:
    """Return the chat template to use with `tokenizer`.

    Parameters
    ----------
    tokenizer : PreTrainedTokenizerBase
        The model's tokenizer.
    override : str, optional
        A Jinja text, or the path of a file with one, instead of the
        tokenizer's own.

    Raises
    ------
    UserError
        When there is none, or it is not valid Jinja.
    """
    import jinja2

    source = _given(override) if override else _own(tokenizer)
    template = ChatTemplate(tokenizer, source)
    try:
        template.render([{"role": "user", "content": ""}])
    except UnusableRow as error:
        # Templates may refuse this very conversation; only their syntax matters here.
        if isinstance(error.__cause__, jinja2.TemplateSyntaxError):
            raise UserError(_("The chat template cannot be used."), str(error)) from None
    return template


def bare(messages: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return `messages` with nothing but role and content."""
    return [{"role": message["role"], "content": message["content"]} for message in messages]


def _refused(error: Exception) -> str:
    return _("the chat template refuses this conversation: {reason}", reason=error)


def _own(tokenizer: Any) -> str:
    own = getattr(tokenizer, "chat_template", None)
    if not own:
        raise UserError(
            _("The model has no chat template."),
            _("It is probably a base model, which was never taught to chat."),
            _("Take its Instruct or Chat version, or give a template: --chat_template FILE"),
        )
    return str(tokenizer.get_chat_template())


def _given(override: str) -> str:
    if "{" in override:
        return override
    path = Path(override).expanduser()
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(
            _("The chat template {path} cannot be read.", path=override),
            str(error),
            _("Give the path of a Jinja file, or the template's text."),
        ) from None
