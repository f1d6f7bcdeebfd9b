"""Every accepted row shape, and every refused one."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swift_jupyter.engine.data.formats import to_conversation
from swift_jupyter.engine.data.rows import Origin, SourceRow, UnusableRow
from swift_jupyter.engine.data.screening import problem_notices, screen
from swift_jupyter.errors import UserError


def turns(content: Any, columns: Any = None) -> list[tuple[str, str]]:
    chat = to_conversation(SourceRow(content, Origin("f.jsonl", 1, "line")), columns)
    return [(message["role"], message["content"]) for message in chat.messages]


QA = [("user", "q"), ("assistant", "a")]
SQA = [("system", "s"), *QA]
OPENAI = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]
FROM_VALUE = [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]

ACCEPTED = {
    "messages": ({"messages": OPENAI}, QA),
    "messages with system column": ({"system": "s", "messages": OPENAI}, SQA),
    "own system wins": (
        {"system": "other", "messages": [{"role": "system", "content": "s"}, *OPENAI]},
        SQA,
    ),
    "developer is system": ({"messages": [{"role": "developer", "content": "s"}, *OPENAI]}, SQA),
    "text blocks": (
        {
            "messages": [
                {"role": "user", "content": [{"type": "text", "text": "q"}]},
                {"role": "assistant", "content": "a"},
            ]
        },
        QA,
    ),
    "conversations from/value": ({"conversations": FROM_VALUE}, QA),
    "conversation from/value, bot": (
        {"conversation": [{"from": "user", "value": "q"}, {"from": "bot", "value": "a"}]},
        QA,
    ),
    "from/value with system": (
        {"conversations": [{"from": "system", "value": "s"}, *FROM_VALUE]},
        SQA,
    ),
    "pairs": (
        {"conversation": [{"human": "q", "assistant": "a"}, {"assistant": "d", "human": "c"}]},
        [*QA, ("user", "c"), ("assistant", "d")],
    ),
    "pairs with system": ({"system": "s", "conversation": [{"human": "q", "assistant": "a"}]}, SQA),
    "messages as text": ({"messages": str(OPENAI)}, QA),
    "turns behind the last answer are dropped": (
        {"messages": [*OPENAI, {"role": "user", "content": "more"}]},
        QA,
    ),
    "alpaca": (
        {"instruction": "do", "input": "this", "output": "a"},
        [("user", "do\nthis"), ("assistant", "a")],
    ),
    "alpaca without input": ({"instruction": "q", "output": "a"}, QA),
    "alpaca with empty input": ({"instruction": "q", "input": "", "output": "a"}, QA),
    "alpaca with null input": ({"instruction": "q", "input": None, "output": "a"}, QA),
    "alpaca with empty instruction": ({"instruction": "", "input": "q", "output": "a"}, QA),
    "query/response": ({"query": "q", "response": "a"}, QA),
    "upper case": ({"QUERY": "q", "Response": "a"}, QA),
    "prompt/completion": ({"prompt": "q", "completion": "a"}, QA),
    "question/answer": ({"question": "q", "answer": "a", "system_prompt": "s"}, SQA),
    "problem/solution": ({"problem": "q", "solution": "a"}, QA),
    "list of answers": ({"question": "q", "answers": ["a", "b"]}, QA),
    "null system": ({"query": "q", "response": "a", "system": None}, QA),
    "other columns are ignored": ({"query": "q", "response": "a", "score": 3, "images": []}, QA),
    "history": (
        {"history": [["x", "y"]], "query": "q", "response": "a"},
        [("user", "x"), ("assistant", "y"), *QA],
    ),
    "history as text": (
        {"history": "[['x', 'y']]", "query": "q", "response": "a"},
        [("user", "x"), ("assistant", "y"), *QA],
    ),
    "empty history": ({"history": [], "query": "q", "response": "a"}, QA),
    "response only": ({"response": "a"}, [("user", ""), ("assistant", "a")]),
    "text only": ({"text": "a"}, [("user", ""), ("assistant", "a")]),
    "messages with an answer only": (
        {"messages": OPENAI[1:]},
        [("user", ""), ("assistant", "a")],
    ),
}


@pytest.mark.parametrize(("content", "expected"), ACCEPTED.values(), ids=ACCEPTED)
def test_accepted(content: Any, expected: Any) -> None:
    assert turns(content) == expected


def test_columns_are_renamed_first_and_win() -> None:
    content = {"Frage": "q", "Antwort": "a", "query": "not this"}
    assert turns(content, {"frage": "query", "ANTWORT": "response"}) == QA


def test_loss_flag_of_a_turn_is_kept() -> None:
    messages = [OPENAI[0], {**OPENAI[1], "loss": False}, *OPENAI]
    chat = to_conversation(SourceRow({"messages": messages}, Origin("f", 1)))
    assert [m.get("loss") for m in chat.messages] == [None, False, None, None]


REFUSED = {
    "no answer": ({"messages": OPENAI[:1]}, "no assistant turn"),
    "no messages": ({"messages": []}, "no assistant turn"),
    "no column that fits": ({"foo": "bar"}, "no assistant turn .*foo"),
    "nothing": ({}, "no assistant turn"),
    "null response": ({"query": "q", "response": None}, "no assistant turn"),
    "empty answer": ({"query": "q", "response": " \n"}, "is empty"),
    "empty answer in messages": (
        {"messages": [OPENAI[0], {"role": "assistant", "content": ""}]},
        "is empty",
    ),
    "messages is a number": ({"messages": 3}, "not a list but int"),
    "messages is a text": ({"messages": "hello"}, "not a list but str"),
    "turn is a text": ({"messages": ["hello"]}, "not an object"),
    "turn without role": ({"messages": [{"text": "q"}]}, "neither role and content"),
    "unknown role": ({"messages": [{"role": "king", "content": "q"}]}, "'king' is unknown"),
    "content is null": ({"messages": [{"role": "user", "content": None}]}, "not a text"),
    "response is a number": ({"query": "q", "response": 4}, "response is not a text but int"),
    "query is a dict": ({"query": {"a": 1}, "response": "a"}, "not a text but dict"),
    "two candidates": ({"question": "q", "answer": "a", "solution": "b"}, "answer, solution"),
    "history of triples": ({"history": [[1, 2, 3]], "query": "q", "response": "a"}, "history"),
    "images": ({"query": "q", "response": "a", "images": ["x.png"]}, "not supported yet"),
    "tools": ({"messages": OPENAI, "tools": "[{}]"}, "not supported yet"),
    "image block": (
        {"messages": [{"role": "user", "content": [{"type": "image_url"}]}, OPENAI[1]]},
        "'image_url' is not supported yet",
    ),
    "tool role": ({"messages": [*OPENAI, {"role": "tool", "content": "1"}]}, "tool calls"),
    "tool calls": (
        {"messages": [OPENAI[0], {"role": "assistant", "content": "", "tool_calls": [{}]}]},
        "tool calls",
    ),
    "loss scale": (
        {"messages": [OPENAI[0], {**OPENAI[1], "loss_scale": 0.5}]},
        "loss_scale",
    ),
    "no loss at all": ({"messages": [OPENAI[0], {**OPENAI[1], "loss": False}]}, "loss"),
}


@pytest.mark.parametrize(("content", "words"), REFUSED.values(), ids=REFUSED)
def test_refused_with_the_reason(content: Any, words: str) -> None:
    with pytest.raises(UnusableRow, match=words):
        turns(content)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["messages", "role", "content", "from", "value", "query", "response", "history"]
            )
            | st.text(max_size=5),
            inner,
            max_size=3,
        )
    ),
    max_leaves=12,
)


@given(st.dictionaries(st.sampled_from(["messages", "query", "response", "text", "system"]), JSON))
def test_any_row_becomes_a_trainable_conversation_or_a_reason(content: Any) -> None:
    try:
        chat = to_conversation(SourceRow(content, Origin("f", 1)))
    except UnusableRow as error:
        assert str(error)
        return
    assert chat.messages[-1]["role"] == "assistant"
    assert all(isinstance(message["content"], str) for message in chat.messages)


class TestScreening:
    def rows(self, *contents: Any) -> Any:
        return [
            SourceRow(content, Origin("data.jsonl", n, "line"))
            for n, content in enumerate(contents, start=1)
        ]

    GOOD, BAD = {"query": "q", "response": "a"}, {"query": "q"}

    def test_bad_rows_are_dropped_named_and_counted(self) -> None:
        rows = self.rows(self.GOOD, *[self.BAD] * 7, self.GOOD)
        conversations, problems = screen(rows, "data.jsonl")
        assert len(conversations) == 2
        lines = problem_notices(problems, len(rows))
        assert lines[0].startswith("7 of 9 rows")
        assert "data.jsonl, line 2" in lines[1] and "no assistant turn" in lines[1]
        assert len(lines) == 7 and "2 more" in lines[-1]

    def test_strict_raises_at_the_first(self) -> None:
        with pytest.raises(UserError, match=r"data\.jsonl, line 2"):
            screen(self.rows(self.GOOD, self.BAD), "data.jsonl", strict=True)

    def test_nothing_good_is_an_error_that_names_the_accepted_shapes(self) -> None:
        with pytest.raises(UserError, match=r"No row of .* 2 were read") as error:
            screen(self.rows(self.BAD, self.BAD), "data.jsonl")
        assert "line 1" in error.value.why
        assert "messages" in error.value.next_step and "instruction" in error.value.next_step

    def test_unknown_column_to_rename(self) -> None:
        with pytest.raises(UserError, match="no column 'qeury'") as error:
            screen(self.rows(self.GOOD), "data.jsonl", {"qeury": "query"})
        assert "query" in error.value.next_step
