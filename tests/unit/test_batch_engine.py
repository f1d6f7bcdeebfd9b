"""Continuous batching: the same answers as one by one, whoever else is answered."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoConfig, AutoModelForCausalLM

from swift_jupyter.engine.inference.adapter_stack import AdapterStack
from swift_jupyter.engine.inference.batching.engine import BatchEngine
from swift_jupyter.engine.inference.batching.limits import Limits, Overloaded, TooLong
from swift_jupyter.engine.inference.batching.prefixes import common_length
from swift_jupyter.engine.inference.batching.request import Request, Sampling, TokenEvent
from swift_jupyter.engine.inference.batching.sampling import RowSampler, choose

VOCABULARY = 320
SMALL: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 1024,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
GPT2 = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 1024}
HEADS = {"head_dim": 16}
FAMILIES: dict[str, dict[str, Any]] = {
    "llama": {},
    "qwen2": {},
    "qwen3": HEADS,
    "mistral": {"sliding_window": 8, **HEADS},
    "gemma3_text": {"sliding_window": 8, "query_pre_attn_scalar": 16, **HEADS},
    "phi3": {},
    "olmo2": {},
    "gpt2": GPT2,
    "mixtral": {"num_local_experts": 2, "num_experts_per_tok": 1, **HEADS},
}
ALONE: dict[str, dict[str, Any]] = {
    "mamba": {"state_size": 4},
    "gpt_oss": {"num_local_experts": 2, "num_experts_per_tok": 1, **HEADS},
}


def build(family: str = "llama", **others: Any) -> Any:
    kwargs = {**SMALL, **FAMILIES.get(family, ALONE.get(family, {})), **others}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model(family, **kwargs))
        for parameter in model.parameters():
            if parameter.dim() > 1:
                # Larger than training begins with, so that answers depend on their prompts.
                torch.nn.init.normal_(parameter, std=0.3)
    return model.to(torch.float32).eval()


def engine_for(model: Any, **limits: Any) -> BatchEngine:
    return BatchEngine(AdapterStack(model, "tiny"), threading.RLock(), Limits(**limits), 1024)


def prompts_of(count: int, shared: int = 0, seed: int = 1) -> list[list[int]]:
    draw = torch.Generator().manual_seed(seed)
    first = torch.randint(3, VOCABULARY, (shared,), generator=draw).tolist()
    lengths = torch.randint(1, 40, (count,), generator=draw).tolist()
    return [
        first + torch.randint(3, VOCABULARY, (length,), generator=draw).tolist()
        for length in lengths
    ]


def answers(
    engine: BatchEngine, prompts: Sequence[list[int]], count: int = 16, **options: Any
) -> list[list[int]]:
    told: list[list[TokenEvent]] = [[] for _prompt in prompts]
    engine.submit(
        [
            Request(prompt, events.append, count, **options)
            for prompt, events in zip(prompts, told, strict=True)
        ]
    )
    engine.run()
    assert all(events[-1].finish_reason in ("length", "stop") for events in told), told
    return [[e.token for e in events if e.token is not None] for events in told]


def generated(model: Any, prompt: list[int], count: int = 16) -> list[int]:
    output = model.generate(
        torch.tensor([prompt]),
        max_new_tokens=count,
        min_new_tokens=count,
        do_sample=False,
        eos_token_id=None,
        pad_token_id=0,
    )
    tokens: list[int] = output[0, len(prompt) :].tolist()
    return tokens


@pytest.mark.parametrize("family", FAMILIES)
def test_families_answer_as_by_generate(family: str) -> None:
    # Given what transformers' own generate says to each prompt
    model = build(family)
    prompts = prompts_of(6)
    expected = [generated(model, prompt) for prompt in prompts]
    # When all are answered together, their prompts in small chunks
    engine = engine_for(model, chunk=16)
    # Then the tokens are the same
    assert engine.batched
    assert answers(engine, prompts) == expected
    assert engine.counts.steps < 6 * 16


@pytest.mark.parametrize("family", ALONE)
def test_models_that_cannot_be_batched_answer_one_by_one(family: str) -> None:
    model = build(family)
    prompts = prompts_of(3)
    expected = [generated(model, prompt, 8) for prompt in prompts]
    engine = engine_for(model)
    assert not engine.batched
    assert answers(engine, prompts, 8) == expected


def test_shared_beginnings_are_read_once() -> None:
    # Given prompts with a common beginning, answered without sharing
    model = build()
    prompts = prompts_of(8, shared=60)
    expected = [answers(engine_for(model), [prompt])[0] for prompt in prompts]
    # When one engine answers them together
    engine = engine_for(model)
    found = answers(engine, prompts)
    # Then answers are equal, though the beginning was read by the first alone
    assert found == expected
    assert engine.counts.shared_tokens >= 7 * 60
    # And what an answer said is known when the conversation goes on
    turn = prompts[0] + found[0] + [5, 6, 7]
    before = engine.counts.shared_tokens
    assert answers(engine, [turn]) == [generated(model, turn)]
    assert engine.counts.shared_tokens - before >= len(prompts[0]) + 15


def test_seeded_answers_do_not_depend_on_their_company() -> None:
    # Given seeded answers alone
    model = build()
    prompts = prompts_of(5)
    sampling = Sampling(temperature=0.9, top_p=0.9, top_k=50, seed=11)
    alone = [answers(engine_for(model), [p], sampling=sampling)[0] for p in prompts]
    # When they are answered together, then they are the same, and others with another seed
    assert answers(engine_for(model), prompts, sampling=sampling) == alone
    other = Sampling(temperature=0.9, top_p=0.9, top_k=50, seed=12)
    assert answers(engine_for(model), prompts, sampling=other) != alone


def test_little_memory_means_waiting_and_beginning_again() -> None:
    # Given memory for about three of eight sequences
    model = build()
    prompts = prompts_of(8)
    expected = [generated(model, prompt, 90) for prompt in prompts]
    token_bytes = 2 * 2 * 2 * 8 * 4  # layers, keys and values, heads, width, bytes
    engine = engine_for(model, memory=token_bytes * 128 * 3 * 8 // 7 + 8)
    # When all are wanted
    found = answers(engine, prompts, 90)
    # Then all are right, and the memory was kept to
    assert found == expected
    assert engine.held_bytes <= token_bytes * 128 * 3 * 8 // 7 + 8


def test_long_sequences_do_not_disturb_short_ones() -> None:
    model = build()
    prompts = [*prompts_of(4), prompts_of(1, shared=700)[0]]
    expected = [generated(model, prompt) for prompt in prompts]
    assert answers(engine_for(model, chunk=64), prompts) == expected


def test_ending_token_ends_an_answer() -> None:
    # Given the third token that an answer would have
    model = build()
    prompt = prompts_of(1)[0]
    whole = generated(model, prompt)
    # When it ends answers
    found = answers(engine_for(model), [prompt], eos=frozenset([whole[2]]))[0]
    # Then the answer ends with it
    assert found == whole[: whole.index(whole[2]) + 1]


def test_cancelled_requests_leave_at_once() -> None:
    # Given two answers that go on and one that waits
    engine = engine_for(build(), rows=2)
    told: list[list[TokenEvent]] = [[], [], []]
    requests = [
        Request(prompt, events.append, 500)
        for prompt, events in zip(prompts_of(3), told, strict=True)
    ]
    engine.submit(requests)
    for _step in range(3):
        engine.step()
    assert (engine.running, engine.waiting) == (2, 1)
    # When one that goes on and the one that waits are given up
    requests[0].cancel()
    requests[2].cancel()
    engine.step()
    # Then their places are free, and the other goes on
    assert (engine.running, engine.waiting) == (1, 0)
    assert told[0][-1].finish_reason == told[2][-1].finish_reason == "cancelled"
    count = len(told[1])
    engine.step()
    assert len(told[1]) == count + 1


def test_too_many_and_too_long_are_refused() -> None:
    engine = engine_for(build(), rows=1, waiting=2)

    def request(length: int) -> Request:
        return Request([5] * length, lambda event: None, 4)

    with pytest.raises(TooLong):
        engine.submit([request(1024)])
    engine.submit([request(3), request(3), request(3)])
    with pytest.raises(Overloaded):
        engine.submit([request(3)])
    engine.run()
    assert engine.counts.finished == 3


def test_failed_step_is_told_and_the_engine_goes_on() -> None:
    # Given a model that fails once
    model = build()
    engine = engine_for(model)
    hook = model.lm_head.register_forward_hook(lambda *_: (_ for _ in ()).throw(MemoryError("no")))
    told: list[TokenEvent] = []
    engine.submit([Request([5, 6], told.append, 4)])
    # When a request meets the failure
    engine.run()
    hook.remove()
    # Then it is told, and the next one is answered
    assert told[-1].finish_reason == "error"
    assert isinstance(told[-1].error, MemoryError)
    assert answers(engine, [[5, 6]], 4) == [generated(model, [5, 6], 4)]


def test_thread_answers_what_comes_from_others() -> None:
    model = build()
    expected = generated(model, [5, 6, 7])
    engine = engine_for(model)
    engine.start()
    done = threading.Event()
    tokens: list[int | None] = []

    def sink(event: TokenEvent) -> None:
        tokens.append(event.token)
        if event.finish_reason:
            done.set()

    engine.submit([Request([5, 6, 7], sink, 16)])
    assert done.wait(20)
    engine.close()
    assert tokens == expected
    with pytest.raises(Overloaded):
        engine.submit([Request([5], sink, 4)])


def sampler(**rules: Any) -> RowSampler:
    return RowSampler(Sampling(**{"temperature": 1.0, "seed": 3, **rules}), [])


@pytest.mark.parametrize(
    ("rules", "allowed"),
    [
        ({"top_k": 1}, {7}),
        ({"top_k": 3}, {7, 8, 9}),
        ({"top_p": 0.5}, {7, 8}),
        ({"top_p": 1e-6}, {7}),
        ({"top_k": 2, "top_p": 0.999}, {7, 8}),
        ({"temperature": 0.0}, {7}),
    ],
)
def test_only_likely_tokens_are_sampled(rules: dict[str, Any], allowed: set[int]) -> None:
    # Given logits in which 7, 8 and 9 have 40, 30 and 20 % among a thousand tokens
    shares = torch.full((1000,), 0.1 / 997)
    shares[7], shares[8], shares[9] = 0.4, 0.3, 0.2
    logits = shares.log()[None]
    # When many tokens are drawn
    one = sampler(**rules)
    drawn = {choose(logits, [one])[0] for _draw in range(200)}
    # Then all that are allowed come, and no other
    assert drawn == allowed


def test_sampling_follows_the_distribution() -> None:
    logits = torch.tensor([[0.1, 0.2, 0.3, 0.4]]).log()
    one = sampler()
    drawn = torch.tensor([choose(logits, [one])[0] for _draw in range(4000)])
    shares = torch.bincount(drawn, minlength=4) / 4000
    assert shares.tolist() == pytest.approx([0.1, 0.2, 0.3, 0.4], abs=0.03)


def test_flat_distribution_is_cut_where_it_should() -> None:
    # Given ten thousand equally likely tokens, far more than the candidates looked at first
    logits = torch.zeros(1, 10_000)
    one = sampler(top_p=0.5)
    drawn = {choose(logits, [one])[0] for _draw in range(300)}
    # Then half of them can come
    assert len(drawn) > 270


def test_repetition_penalty_counts_prompt_and_answer() -> None:
    logits = torch.tensor([[2.0, 1.9, 1.8, -1.0]])
    one = RowSampler(Sampling(repetition_penalty=1.5), [0])
    assert [choose(logits, [one])[0] for _step in range(3)] == [1, 2, 0]
    assert logits.tolist() == [[pytest.approx(x) for x in (2.0, 1.9, 1.8, -1.0)]]


@given(st.lists(st.integers(0, 2)), st.lists(st.integers(0, 2)))
@settings(max_examples=200, deadline=None)
def test_common_length_is_exact(first: list[int], second: list[int]) -> None:
    length = common_length(first, second)
    assert first[:length] == second[:length]
    assert first[length : length + 1] != second[length : length + 1] or length == min(
        len(first), len(second)
    )
