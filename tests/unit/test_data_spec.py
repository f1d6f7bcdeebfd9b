"""The dataset spec string."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swift_jupyter.engine.data import DatasetSpec, parse_spec
from swift_jupyter.errors import UserError


def parse(text: str, *on_disk: str) -> DatasetSpec:
    return parse_spec(text, exists=lambda name: name in on_disk)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("self-cognition", DatasetSpec("self-cognition")),
        ("org/name#500", DatasetSpec("org/name", count=500)),
        ("org/name:zh", DatasetSpec("org/name", subsets=("zh",))),
        ("org/name:zh/en#7", DatasetSpec("org/name", subsets=("zh", "en"), count=7)),
        ("hf::org/name", DatasetSpec("org/name", hub="huggingface")),
        ("MS::org/name:a#1", DatasetSpec("org/name", "modelscope", ("a",), 1)),
        ("C:\\data\\x.jsonl", DatasetSpec("C:\\data\\x.jsonl")),
        ("C:/data/x.jsonl#5", DatasetSpec("C:/data/x.jsonl", count=5)),
        ("C:\\data:sub#5", DatasetSpec("C:\\data", subsets=("sub",), count=5)),
        ("  org/name  ", DatasetSpec("org/name")),
    ],
)
def test_forms(text: str, expected: Any) -> None:
    assert parse(text) == expected


@pytest.mark.parametrize(
    ("text", "on_disk", "expected"),
    [
        ("a#3.jsonl", "a#3.jsonl", DatasetSpec("a#3.jsonl")),
        ("a#3.jsonl#4", "a#3.jsonl", DatasetSpec("a#3.jsonl", count=4)),
        ("a:b.jsonl", "a:b.jsonl", DatasetSpec("a:b.jsonl")),
        ("a:b.jsonl#2", "a:b.jsonl", DatasetSpec("a:b.jsonl", count=2)),
        ("x::y.csv", "x::y.csv", DatasetSpec("x::y.csv")),
        ("hf::a#3", "a#3", DatasetSpec("a#3", hub="huggingface")),
    ],
)
def test_what_is_on_disk_is_taken_literally(text: str, on_disk: Any, expected: Any) -> None:
    assert parse(text, on_disk) == expected


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "names no dataset"),
        ("#5", "names no dataset"),
        ("hf::", "names no dataset"),
        (":sub", "names no dataset"),
        ("a#", "is wrong"),
        ("a#0", "is wrong"),
        ("a#-5", "is wrong"),
        ("a#1.5", "is wrong"),
        ("a#５", "is wrong"),
        ("a#many", "is wrong"),
        ("hub::org/name", "is not a hub"),
    ],
)
def test_wrong_specs_say_what_is_wrong(text: str, words: str) -> None:
    with pytest.raises(UserError, match=words) as error:
        parse(text)
    assert error.value.next_step


NAME = st.from_regex(r"[A-Za-z0-9_.-]{2,10}(/[A-Za-z0-9_.-]{1,10})?", fullmatch=True)


@given(
    st.builds(
        DatasetSpec,
        NAME,
        st.sampled_from([None, "huggingface", "modelscope"]),
        st.lists(st.from_regex(r"[a-z]{1,5}", fullmatch=True), max_size=3).map(tuple),
        st.none() | st.integers(1, 10**9),
    )
)
def test_a_written_spec_is_read_back(spec: Any) -> None:
    assert parse(str(spec)) == spec


@given(st.text(max_size=40), st.booleans())
def test_any_text_gives_a_spec_or_a_user_error(text: str, exists: Any) -> None:
    try:
        spec = parse_spec(text, exists=lambda _name: exists)
    except UserError:
        return
    assert spec.name.strip() or exists
