"""The parts of the OpenAI-compatible server: requests, stop words, tools."""

from __future__ import annotations

import json
from typing import Any

import pytest
from chat_tokenizers import CHATML, fast_tokenizer
from hypothesis import given, settings
from hypothesis import strategies as st

from swift_jupyter.engine.inference.batching.text import AnswerText, held_back
from swift_jupyter.engine.inference.server.app import ToolReader
from swift_jupyter.engine.inference.server.asks import (
    parse_body,
    parse_chat,
    parse_completion,
    parse_embedding,
)
from swift_jupyter.engine.inference.server.errors import ApiError
from swift_jupyter.engine.inference.server.service import Piece
from swift_jupyter.engine.inference.server.size import weight_bytes
from swift_jupyter.engine.inference.server.tools import parse_calls, template_calls_tools

USER = [{"role": "user", "content": "Hi"}]
WEATHER = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=8,
)
NAMES = """
messages model prompt input n stop stream stream_options seed temperature top_p top_k max_tokens
max_completion_tokens logprobs top_logprobs response_format tools tool_choice logit_bias best_of
presence_penalty chat_template_kwargs encoding_format modalities
"""
names = st.sampled_from(NAMES.split())


@pytest.mark.parametrize("parse", [parse_chat, parse_completion, parse_embedding])
@given(st.dictionaries(names, values), st.booleans())
@settings(max_examples=150, deadline=None)
def test_any_json_is_taken_or_refused(parse: Any, body: dict[str, Any], whole: bool) -> None:
    good = {"model": "m", "messages": USER, "prompt": "x", "input": "x"} if whole else {}
    try:
        ask = parse({**good, **body})
    except ApiError as error:
        assert error.status == 400
        assert json.dumps(error.body())
    else:
        assert isinstance(ask.model, str)


@given(st.binary(max_size=40))
@settings(max_examples=150, deadline=None)
def test_any_bytes_are_an_object_or_refused(body: bytes) -> None:
    try:
        assert isinstance(parse_body(body), dict)
    except ApiError as error:
        assert error.status == 400


def test_deep_nesting_is_refused() -> None:
    with pytest.raises(ApiError):
        parse_body(b'{"a":' + b"[" * 100_000)


def test_parts_of_text_and_developer_messages_are_understood() -> None:
    ask = parse_chat(
        {
            "model": "m",
            "messages": [
                {"role": "developer", "content": "Be kind."},
                {"role": "user", "content": [{"type": "text", "text": "a"}] * 2},
            ],
        }
    )
    assert ask.messages == [
        {"role": "system", "content": "Be kind."},
        {"role": "user", "content": "aa"},
    ]


def test_calls_of_tools_reach_the_template_as_objects() -> None:
    call = {
        "id": "c1",
        "type": "function",
        "function": {"name": "weather", "arguments": '{"a": 1}'},
    }
    ask = parse_chat(
        {
            "model": "m",
            "tools": [WEATHER],
            "messages": [
                *USER,
                {"role": "assistant", "content": None, "tool_calls": [call]},
                {"role": "tool", "tool_call_id": "c1", "content": "sunny"},
            ],
        }
    )
    assert ask.tools == [WEATHER]
    assert ask.messages[1]["tool_calls"][0]["function"]["arguments"] == {"a": 1}
    assert ask.messages[2] == {"role": "tool", "content": "sunny", "tool_call_id": "c1"}
    none = parse_chat({"model": "m", "messages": USER, "tools": [WEATHER], "tool_choice": "none"})
    assert none.tools == []
    with pytest.raises(ApiError, match="tool_choice"):
        parse_chat({"model": "m", "messages": USER, "tools": [WEATHER], "tool_choice": "required"})


def test_hermes_calls_are_read_from_the_text() -> None:
    text = (
        "Let me look.\n<tool_call>\n"
        '{"name": "weather", "arguments": {"city": "小城"}}\n</tool_call>\n'
        '<tool_call>{"name": "time", "arguments": {}}</tool_call>'
    )
    content, calls = parse_calls(text)
    assert content == "Let me look."
    assert [call["function"]["name"] for call in calls] == ["weather", "time"]
    assert json.loads(calls[0]["function"]["arguments"]) == {"city": "小城"}
    assert calls[0]["id"] != calls[1]["id"]


@pytest.mark.parametrize("text", ["<tool_call>{no json}</tool_call>", "<tool_call>[1]", "plain  "])
def test_what_is_no_call_stays_text(text: str) -> None:
    assert parse_calls(text) == (text, [])


def test_only_templates_with_this_form_take_tools() -> None:
    assert template_calls_tools("{% if tools %}<tool_call>{% endif %}")
    assert not template_calls_tools("{% if tools %}[TOOL]{% endif %}")
    assert not template_calls_tools(None)


@given(
    st.text(alphabet="abéß小 ", max_size=30),
    st.lists(st.text(alphabet="ab小", min_size=1, max_size=3), max_size=3),
)
@settings(max_examples=150, deadline=None)
def test_text_ends_before_the_first_stop_word(text: str, stop: list[str]) -> None:
    # Given the tokens of a text, of which some are parts of characters
    tokenizer = fast_tokenizer(CHATML)
    tokens = tokenizer(text, add_special_tokens=False)["input_ids"]
    collected = AnswerText(tokenizer, stop)
    # When they come one by one
    pieces = []
    for token in tokens:
        pieces.append(collected.add(token))
        if collected.stopped:
            break
    pieces.append(collected.end())
    # Then what was handed out is all before the first stop word that is complete
    ends = [end for end in range(len(text) + 1) if any(word in text[:end] for word in stop)]
    seen = text[: ends[0]] if ends else text
    places = [place for word in stop if (place := seen.find(word)) >= 0]
    assert "".join(pieces) == collected.text == text[: min(places, default=len(text))]
    assert collected.stopped == bool(places)


def test_beginnings_of_stop_words_are_held_back() -> None:
    assert held_back("one st", ["stop"]) == 2
    assert held_back("one stop", ["stop"]) == 0
    assert held_back("ab", ["bc", "abc"]) == 2
    assert held_back("", ["x"]) == 0


def test_weights_are_counted_as_they_will_be_loaded(tmp_path: Any) -> None:
    import torch
    from safetensors.torch import save_file

    tensors = {"a": torch.zeros(10, dtype=torch.bfloat16), "b": torch.zeros(4, dtype=torch.int8)}
    save_file(tensors, tmp_path / "model.safetensors")
    (tmp_path / "torn.safetensors").write_bytes(b"\xff" * 30)
    assert weight_bytes(tmp_path, None) == 24
    assert weight_bytes(tmp_path, 4) == 44


def test_streamed_calls_come_whole_after_the_text_before_them() -> None:
    # Given an answer that talks and then calls a tool, in small pieces
    text = 'One <b>moment</b>. <tool_call>{"name": "weather", "arguments": {"a": 1}}</tool_call>'
    reader = ToolReader(True)
    pieces = [Piece(0, text[place : place + 3]) for place in range(0, len(text), 3)]
    # When it is streamed
    deltas = [delta for piece in [*pieces, Piece(0, "", finish_reason="stop")]
              for delta in reader.take(piece)]  # fmt: skip
    # Then the text comes piece by piece, nothing of the call shows in it, and the call is whole
    content = [delta["content"] for delta, _reason in deltas if "content" in delta]
    assert "".join(content).strip() == "One <b>moment</b>."
    assert len(content) > 4
    calls = [delta["tool_calls"] for delta, _reason in deltas if "tool_calls" in delta]
    assert [call["function"] for call in calls[0]] == [{"name": "weather", "arguments": '{"a": 1}'}]
    assert deltas[-1] == ({}, "tool_calls")
