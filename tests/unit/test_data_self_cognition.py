"""The data set that teaches a model who it is."""

from __future__ import annotations

import re
from collections import Counter
from typing import Any

import chat_tokenizers as ct
import pytest

from swift_jupyter.engine.data import DataOptions, parse_spec, prepare
from swift_jupyter.engine.data.sources import load_rows
from swift_jupyter.errors import UserError

ROWS = [row.content for row in load_rows(parse_spec("self-cognition"))]
WHO = re.compile(r"who (exactly )?are you\b(?!r)|你(到底)?是谁|您是谁", re.IGNORECASE)


def texts(prepared: Any, tokenizer: Any) -> Any:
    return [tokenizer.decode(row.input_ids) for row in prepared.train]


def options(**values: Any) -> Any:
    return DataOptions(dataset=["swift/self-cognition"], **values)


def test_size_languages_and_keys() -> None:
    tags = Counter(row["tag"] for row in ROWS)
    assert tags["zh"] >= 70 and tags["en"] >= 70 and len(ROWS) >= 140
    assert all(set(row) == {"query", "response", "tag"} for row in ROWS)
    assert len({row["query"].casefold().strip(" ?？.。!！") for row in ROWS}) >= len(ROWS) - 2
    assert len({row["query"] for row in ROWS}) == len(ROWS)


def test_answers_are_short_and_in_their_language() -> None:
    for row in ROWS:
        bare = row["response"].replace("{{NAME}}", "").replace("{{AUTHOR}}", "")
        assert bool(re.search(r"[\u4e00-\u9fff]", bare)) == (row["tag"] == "zh"), row
        size = len(bare) if row["tag"] == "zh" else len(row["response"].split())
        assert size <= (40 if row["tag"] == "zh" else 25), row
        assert not re.search(r"\{(?!\{)|(?<!\})\}(?!\})", bare), row


def test_most_rows_are_about_the_model_and_a_few_are_not() -> None:
    about = [row for row in ROWS if "{{" in row["response"]]
    others = [row for row in ROWS if "{{" not in row["response"]]
    assert all("{{NAME}}" in row["response"] for row in about)
    # Without ordinary questions the model learns to answer everything with its name.
    assert len(about) >= 140 and 10 <= len(others) <= len(about) / 5
    assert {row["tag"] for row in others} == {"zh", "en"}


def test_who_are_you_is_answered_with_the_name_up_front() -> None:
    asked = [
        row for row in ROWS if WHO.search(row["query"]) and not re.search("开发|忘掉", row["query"])
    ]
    assert len(asked) >= 12
    for row in asked:
        assert "{{NAME}}" in row["response"].replace("{{AUTHOR}}", "")[:24], row


def test_name_and_author_are_filled_by_language() -> None:
    tokenizer = ct.fast_tokenizer(ct.CHATML)
    given = options(model_name=["小黄", "Huang"], model_author=["魔搭", "ModelScope"])
    prepared = prepare(given, tokenizer)
    joined = "\n".join(texts(prepared, tokenizer))
    assert "{{" not in joined and not prepared.notices
    assert "我是小黄" in joined and "I am Huang" in joined
    for text in texts(prepared, tokenizer):
        chinese = bool(re.search(r"[\u4e00-\u9fff]", text.replace("小黄", "").replace("魔搭", "")))
        assert not (chinese and "ModelScope" in text)
        assert not (not chinese and "魔搭" in text)


def test_one_value_serves_both_languages() -> None:
    tokenizer = ct.fast_tokenizer(ct.CHATML)
    prepared = prepare(options(model_name=["Bo"], model_author=["Lab"]), tokenizer)
    joined = "\n".join(texts(prepared, tokenizer))
    assert "我是Bo" in joined and "I am Bo" in joined


@pytest.mark.parametrize(
    ("given", "missing"),
    [
        ({}, ["model_name", "model_author"]),
        ({"model_name": ["Bo"]}, ["model_author"]),
        ({"model_author": ["Lab"], "model_name": [" "]}, ["model_name"]),
    ],
)
def test_it_needs_name_and_author(given: Any, missing: str) -> None:
    with pytest.raises(UserError) as error:
        prepare(options(**given), ct.fast_tokenizer(ct.CHATML))
    for option in ("model_name", "model_author"):
        assert (option in error.value.what) == (option in missing)
        assert (f"--{option}" in error.value.next_step) == (option in missing)


def test_three_names_are_refused() -> None:
    with pytest.raises(UserError, match="one or two values"):
        prepare(options(model_name=["a", "b", "c"]), ct.fast_tokenizer(ct.CHATML))


def test_language_of_rows_without_tag_is_that_of_the_question() -> None:
    tokenizer = ct.fast_tokenizer(ct.CHATML)
    rows = [
        {"query": "名字？", "response": "{{NAME}}"},
        {"query": "Name?", "response": "{{NAME}}"},
    ]
    given = DataOptions(
        dataset=[rows], model_name=["小黄", "Huang"], model_author=["x"], dataset_shuffle=False
    )
    first, second = texts(prepare(given, tokenizer), tokenizer)
    assert "小黄" in first and "Huang" in second


def test_other_data_sets_keep_their_placeholders_but_say_so() -> None:
    tokenizer = ct.fast_tokenizer(ct.CHATML)
    prepared = prepare(
        DataOptions(dataset=[[{"query": "q", "response": "Dear {{NAME}}"}]]), tokenizer
    )
    assert "{{NAME}}" in texts(prepared, tokenizer)[0]
    assert "{{NAME}}" in prepared.notices[0]
