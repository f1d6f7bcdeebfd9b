"""How fast answers come: beside transformers' generate, and for many clients at once.

::

    python tests/benchmarks/serving.py --model smollm2-demo [--rounds 3] [--threads 1]
    python tests/benchmarks/serving.py --clients 32 --url http://127.0.0.1:8000/v1 --name ID

The first form measures in this process, both sides in turn, and then a deployed server.
The second asks any server that speaks OpenAI's protocol, such as ``transformers serve``
or vLLM, in the same way. All figures are medians; CPU seconds are told beside the time on
the clock, since other work on the machine disturbs them less.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

QUESTIONS = (
    "Name three colours.",
    "What is the capital of France?",
    "Write a short story about a fox and a crow who meet in the wood.",
    "Explain in simple words why the sky is blue and why sunsets are red.",
    "Hi",
)
TOKENS = 48


def questions(count: int) -> list[str]:
    """Return questions of mixed lengths."""
    return [
        QUESTIONS[n % len(QUESTIONS)] + f" Answer number {n}." * ((n * 7) % 12)
        for n in range(count)
    ]


def timed(work: Callable[[], Any]) -> tuple[float, float]:
    """Return seconds on the clock and of the CPU."""
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - wall, time.process_time() - cpu


def compare(
    title: str, tokens: int, rounds: int, ours: Callable[[], Any], theirs: Callable[[], Any]
) -> None:
    """Run both in turn and print the medians and their ratio."""
    both = [(timed(theirs), timed(ours)) for _round in range(rounds)]
    for place, unit in enumerate(("clock", "CPU")):
        peer, own = (statistics.median(pair[side][place] for pair in both) for side in (0, 1))
        print(
            f"{title:28} {unit:5}  ours {tokens / own:7.1f} tokens/s"
            f"  generate {tokens / peer:7.1f} tokens/s  ratio {peer / own:.2f}",
            flush=True,
        )


def in_process(folder: Path, rounds: int, count: int) -> None:
    """Measure one answer and a batch, beside transformers' generate."""
    import torch

    from swift_jupyter.engine.inference.batching.request import Request
    from swift_jupyter.engine.inference.loaded import load_chat_model
    from swift_jupyter.engine.models.loading import load_model, load_tokenizer
    from swift_jupyter.engine.models.options import ModelOptions

    chat_model = load_chat_model("demo", folder, ModelOptions())
    plain = load_model(folder, ModelOptions(), "cpu")
    tokenizer = load_tokenizer(folder)
    tokenizer.padding_side = "left"
    system = {"role": "system", "content": "You are a helpful assistant who answers briefly."}
    prompts = [
        chat_model.encode([system, {"role": "user", "content": text}])["input_ids"][0].tolist()
        for text in questions(count)
    ]
    engine = chat_model.engine()

    def generate(chosen: Sequence[list[int]]) -> list[list[int]]:
        padded = tokenizer.pad({"input_ids": list(chosen)}, return_tensors="pt")
        output = plain.generate(
            **padded,
            max_new_tokens=TOKENS,
            min_new_tokens=TOKENS,
            do_sample=False,
            temperature=None,
            top_p=None,
            top_k=None,
            pad_token_id=tokenizer.pad_token_id,
        )
        tokens: list[list[int]] = output[:, padded["input_ids"].shape[1] :].tolist()
        return tokens

    def answer(chosen: Sequence[list[int]]) -> list[list[int]]:
        told: list[list[int]] = [[] for _prompt in chosen]
        engine.submit(
            [
                Request(prompt, lambda event, t=tokens: t.append(event.token), TOKENS)  # type: ignore[misc]
                for prompt, tokens in zip(chosen, told, strict=True)
            ]
        )
        engine.run()
        engine.free()
        return told

    # min_new_tokens bars the ending token there, so only answers without it are compared.
    eos = chat_model.eos
    alone = [(generate([prompt])[0], answer([prompt])[0]) for prompt in prompts[:4]]
    together = answer(prompts)[:4]
    equal = sum(
        own[: _before(own, eos)] == peer[: _before(own, eos)] == batch[: _before(own, eos)]
        for (peer, own), batch in zip(alone, together, strict=True)
    )
    print(f"equal answers: {equal} of {len(alone)}; threads: {torch.get_num_threads()}")
    compare(
        "one answer", TOKENS, rounds, lambda: answer(prompts[2:3]), lambda: generate(prompts[2:3])
    )
    compare(
        f"{count} prompts, mixed lengths",
        TOKENS * count,
        rounds,
        lambda: answer(prompts),
        lambda: generate(prompts),
    )


def _before(tokens: Sequence[int], ends: frozenset[int]) -> int:
    return next((n for n, token in enumerate(tokens) if token in ends), len(tokens))


def over_http(url: str, name: str, clients: int, rounds: int) -> None:
    """Let many clients ask at once, each for one streamed answer."""
    import openai

    async def ask(api: Any, text: str) -> tuple[float, int]:
        started, first, count = time.perf_counter(), 0.0, 0
        stream = await api.chat.completions.create(
            model=name,
            messages=[{"role": "user", "content": text}],
            max_tokens=TOKENS,
            temperature=0,
            stream=True,
            extra_body={"ignore_eos": True},
        )
        async for chunk in stream:
            if chunk.choices and chunk.choices[0].delta.content:
                first = first or time.perf_counter() - started
                count += 1
        return first, count

    async def round_of_all(number: int) -> tuple[float, float, float]:
        # Other texts in each round, since the server remembers what it has read.
        texts = [f"{number * 7919} is a number. {text}" for text in questions(clients)]
        async with openai.AsyncOpenAI(
            base_url=url, api_key="unused", timeout=600, max_retries=0
        ) as api:
            started = time.perf_counter()
            found = await asyncio.gather(*(ask(api, text) for text in texts))
        seconds = time.perf_counter() - started
        firsts = [first for first, _count in found]
        # Pieces of text: a few tokens, such as parts of a letter, give none of their own.
        return (
            sum(count for _first, count in found) / seconds,
            statistics.median(firsts),
            max(firsts),
        )

    results = [asyncio.run(round_of_all(number)) for number in range(1, rounds + 1)]
    speed, middle, worst = (statistics.median(column) for column in zip(*results, strict=True))
    print(
        f"{clients} clients: {speed:.1f} tokens/s;"
        f" first token after {middle:.2f} s (median), {worst:.2f} s (last)",
        flush=True,
    )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="smollm2-demo")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--url", default="")
    parser.add_argument("--name", default="")
    arguments = parser.parse_args()
    if arguments.url:
        over_http(arguments.url, arguments.name, arguments.clients, arguments.rounds)
        return
    import torch

    import swift_jupyter
    from swift_jupyter.engine.models.catalogue import resolve
    from swift_jupyter.hub.pull import pull
    from swift_jupyter.settings import load_settings

    torch.set_num_threads(arguments.threads)
    folder = Path(pull(resolve(arguments.model), load_settings()).path)
    in_process(folder, arguments.rounds, arguments.clients)
    served = swift_jupyter.deploy(model=str(folder), port=0, served_model_name="demo")
    try:
        over_http(served.url, "demo", arguments.clients, arguments.rounds)
    finally:
        served.stop()
        served.wait(30)


if __name__ == "__main__":
    sys.exit(main())
