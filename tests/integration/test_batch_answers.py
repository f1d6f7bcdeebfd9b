"""Many answers at once from a model in memory, stop words and probabilities."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from deployed import build_lively_model
from sandbox import isolated_session
from tiny_models import build_adapter

import swift_jupyter
from swift_jupyter.errors import UserError

PROMPTS = ["What is your name?", "Hi", "Tell me a long story about a fox, please.", "And?", "Why?"]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    folder = tmp_path_factory.mktemp("batch")
    base = build_lively_model(folder / "model")
    build_adapter(folder / "one", base, seed=1)
    with isolated_session(folder / "session"):
        yield swift_jupyter.infer.load_model(str(base), adapters=[f"one={folder / 'one'}"])
        swift_jupyter.unload()


def sampled(**options: Any) -> dict[str, Any]:
    return {"temperature": 1.0, "max_new_tokens": 20, "seed": 3, **options}


@pytest.mark.parametrize("adapter", ["", "one"])
def test_batch_gives_the_answers_of_each_alone(model: Any, adapter: str) -> None:
    # Given greedy answers one by one
    options = {"temperature": 0, "max_new_tokens": 20, "system": "You help.", "adapter": adapter}
    alone = [model.generate(prompt, **options) for prompt in PROMPTS]
    # When all are asked for together
    told: list[int] = []
    together = model.batch(PROMPTS, on_answer=lambda place, _answer: told.append(place), **options)
    # Then they are the same, in order, with their facts, and were told as they came
    assert together == alone
    assert len(set(alone)) == len(PROMPTS)
    assert [answer.prompt_tokens for answer in together] == [a.prompt_tokens for a in alone]
    assert [answer.messages for answer in together] == [answer.messages for answer in alone]
    assert sorted(told) == list(range(len(PROMPTS)))


def test_seeds_count_up_from_answer_to_answer(model: Any) -> None:
    together = model.batch(["Hi"] * 3, **sampled())
    assert together == [model.generate("Hi", **sampled(seed=seed)) for seed in (3, 4, 5)]
    assert len(set(together)) == 3


def test_conversations_can_be_batched(model: Any) -> None:
    turns = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]
    turns.append({"role": "user", "content": "And?"})
    answer = model.batch([turns], **sampled())[0]
    assert answer == model.chat(turns, **sampled())
    assert [message["role"] for message in answer.messages] == ["user", "assistant"] * 2


def test_stop_words_end_answers(model: Any) -> None:
    # Given a word from the middle of an answer
    whole = model.generate("Hi", **sampled())
    word = str(whole)[4:6]
    # When it is a stop word, alone and in a batch
    answer = model.generate("Hi", **sampled(stop_words=[word]))
    pieces = list(model.stream("Hi", **sampled(stop_words=[word])))
    batched = model.batch(["Hi"], **sampled(stop_words=[word]))[0]
    # Then the answer ends before it
    expected = whole[: whole.index(word)]
    assert answer == "".join(pieces) == batched == expected
    assert answer.finish_reason == batched.finish_reason == "stop"
    assert answer.completion_tokens < whole.completion_tokens


def test_probabilities_are_told_with_their_alternatives(model: Any) -> None:
    answer = model.generate("Hi", temperature=0, max_new_tokens=5, logprobs=3)
    batched = model.batch(["Hi"], temperature=0, max_new_tokens=5, logprobs=3)[0]
    assert len(answer.logprobs) == 5
    assert all(token.logprob == token.top[0][1] <= 0 for token in answer.logprobs)
    assert [t.text for t in answer.logprobs] == [t.text for t in batched.logprobs]
    assert [t.logprob for t in batched.logprobs] == pytest.approx(
        [t.logprob for t in answer.logprobs], abs=1e-4
    )
    assert answer.to_dict()["logprobs"][0]["top"]
    assert model.generate("Hi", max_new_tokens=2).logprobs is None


def test_prompt_that_is_too_long_spoils_nothing(model: Any) -> None:
    with pytest.raises(UserError, match="tokens"):
        model.batch(["Hi", "x" * 3000], **sampled())
    assert len(model.batch(PROMPTS, **sampled())) == len(PROMPTS)


def test_async_forms_give_the_same(model: Any) -> None:
    async def all_forms() -> tuple[Any, Any, str]:
        one = await model.agenerate("Hi", **sampled())
        many = await model.abatch(["Hi", "And?"], **sampled())
        pieces = [piece async for piece in model.astream("Hi", **sampled())]
        return one, many, "".join(pieces)

    one, many, text = asyncio.run(all_forms())
    assert one == many[0] == text == model.generate("Hi", **sampled())


def test_interrupted_batch_frees_its_places(model: Any) -> None:
    # Given a batch that is interrupted after its first answer
    def interrupt(_place: int, _answer: Any) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        model.batch(PROMPTS, on_answer=interrupt, **sampled())
    # Then the next one begins anew
    assert len(model.batch(PROMPTS, **sampled())) == len(PROMPTS)


def test_adapters_that_cannot_be_batched_answer_one_by_one(model: Any, tmp_path: Path) -> None:
    # Given an adapter of virtual tokens, which go before each prompt
    from peft import PromptTuningConfig, TaskType, get_peft_model
    from transformers import AutoModelForCausalLM

    network = AutoModelForCausalLM.from_pretrained(model_folder(model))
    config = PromptTuningConfig(task_type=TaskType.CAUSAL_LM, num_virtual_tokens=4)
    get_peft_model(network, config).save_pretrained(tmp_path / "virtual")
    other = swift_jupyter.infer.load_model(
        str(model_folder(model)), adapters=[f"virtual={tmp_path / 'virtual'}"]
    )
    # When it answers many prompts, and the bare model does after it
    options = {"temperature": 0, "max_new_tokens": 12}
    alone = [other.generate(prompt, **options) for prompt in PROMPTS]
    # Then the answers are its own, and those of the model are untouched
    assert other.batch(PROMPTS, **options) == alone
    bare = [model.generate(prompt, adapter="", **options) for prompt in PROMPTS]
    assert other.batch(PROMPTS, adapter="", **options) == bare != alone


def model_folder(model: Any) -> Path:
    return Path(model.name)
