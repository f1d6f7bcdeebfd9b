"""Every token of a shown row has the role of its turn, whatever the chat template does."""

from __future__ import annotations

from typing import Any

import chat_tokenizers as ct
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from swift_jupyter.engine.data import EncodingOptions, Origin, encode
from swift_jupyter.engine.data.chat_template import chat_template_of
from swift_jupyter.engine.data.rows import Conversation
from swift_jupyter.engine.data.sample import Sample, sample_of


def sample(messages: list[dict[str, Any]], template: str, **options: Any) -> Sample:
    tokenizer = ct.fast_tokenizer(template)
    chat = Conversation(messages, Origin("test", 1))
    row = encode([chat], tokenizer, EncodingOptions(**options)).rows[0]
    assert row is not None
    return sample_of(chat, row, chat_template_of(tokenizer, None), options.get("system", ""))


def text_of(shown: Sample, role: str) -> str:
    return "".join(token.text for token in shown.tokens if token.role == role)


CHAT = [
    {"role": "user", "content": "Who are you?"},
    {"role": "assistant", "content": "Bo"},
    {"role": "user", "content": "Well then"},
    {"role": "assistant", "content": "Good"},
]
SYSTEM = {"role": "system", "content": "You help."}


@pytest.mark.parametrize(
    "template", [ct.CHATML, ct.GENERATION, ct.HEADERS, ct.THINKING, ct.CHATML_DEFAULT_SYSTEM]
)
@pytest.mark.parametrize("system", [False, True])
def test_each_turn_has_its_text_and_header(template: str, system: bool) -> None:
    """Given a chat, when it is shown, then its texts are in the turns of their roles."""
    shown = sample([SYSTEM, *CHAT] if system else CHAT, template)

    assert "Who are you?" in text_of(shown, "user")
    assert "Well then" in text_of(shown, "user")
    assert "Bo" not in text_of(shown, "user")
    assert "Good" in text_of(shown, "assistant")
    assert ("You help." in text_of(shown, "system")) is system


def test_a_default_system_text_is_the_templates_own() -> None:
    """Given a template with a system text of its own, when shown, then nobody else has it."""
    shown = sample(CHAT, ct.CHATML_DEFAULT_SYSTEM)

    assert text_of(shown, "template") == "<|im_start|>system\nYou help.<|im_end|>\n"
    assert text_of(shown, "user").startswith("<|im_start|>user\n")


def test_only_answers_and_their_ends_are_trained() -> None:
    """Given a chat, when shown, then what is trained is the assistant's."""
    shown = sample(CHAT, ct.CHATML)
    trained = "".join(token.text for token in shown.tokens if token.trained)

    assert trained == "Bo<|im_end|>\nGood<|im_end|>\n"
    assert {token.role for token in shown.tokens if token.trained} == {"assistant"}
    specials = [token.text for token in shown.tokens if token.special]
    assert set(specials) == {"<|im_start|>", "<|im_end|>"}


@pytest.mark.parametrize("side", ["left", "right"])
def test_a_cut_row_keeps_its_roles(side: str) -> None:
    """Given a row that is cut, when shown, then the rest has the same roles as before."""
    whole = sample(CHAT, ct.CHATML)
    shown = sample(CHAT, ct.CHATML, max_length=whole.length - 6, truncation_strategy=side)

    assert shown.cut
    assert shown.length == whole.length - 6
    expected = whole.tokens[6:] if side == "left" else whole.tokens[: len(shown.tokens)]
    assert [(t.text, t.role) for t in shown.tokens] == [(t.text, t.role) for t in expected]


TEXT = st.text(st.sampled_from([*"abc .,?\n", *"你好👍é"]), min_size=1, max_size=20)
TEXT = TEXT.map(str.strip).filter(bool)


@given(turns=st.lists(st.tuples(TEXT, TEXT), min_size=1, max_size=3), system=st.none() | TEXT)
@settings(max_examples=60, deadline=None)
def test_the_tokens_put_together_are_the_rendered_text(
    turns: list[tuple[str, str]], system: str | None
) -> None:
    """Given any chat, when shown, then no character is lost, added or without a role."""
    messages = [] if system is None else [{"role": "system", "content": system}]
    for question, answer in turns:
        messages += [
            {"role": "user", "content": question},
            {"role": "assistant", "content": answer},
        ]
    shown = sample(messages, ct.CHATML)
    rendered = ct.fast_tokenizer(ct.CHATML).apply_chat_template(messages, tokenize=False)

    assert shown.text == rendered
    assert all(token.role for token in shown.tokens)
