"""A deployed model as OpenAI's own client sees it."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import openai
import pytest
from chat_tokenizers import CHATML
from deployed import build_lively_model, client, deploy_session, deployed
from sandbox import environment, wait_for
from tiny_models import build_adapter

import swift_jupyter
from swift_jupyter.errors import OptionError, UserError
from swift_jupyter.runs.process import identify

HELLO = [{"role": "user", "content": "Hello there, who are you?"}]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("deploy")
    base = build_lively_model(folder / "tiny", positions=2048)
    build_adapter(folder / "one", base, seed=1)
    build_adapter(folder / "two", base, seed=2)
    return folder


@pytest.fixture(scope="module")
def session(folder: Path) -> Iterator[Any]:
    with deploy_session(folder / "session") as context:
        yield context


@pytest.fixture(scope="module")
def server(folder: Path, session: Any) -> Iterator[Any]:
    adapters = [f"one={folder / 'one'}", f"two={folder / 'two'}"]
    with deployed(
        folder / "tiny", adapters=adapters, served_model_name="tiny", max_batch_size=8
    ) as result:
        yield result


@pytest.fixture
def api(server: Any) -> Any:
    with client(server) as found:
        yield found


def ask(api: Any, **options: Any) -> Any:
    given = {"model": "tiny", "messages": HELLO, "temperature": 0, "max_tokens": 24, **options}
    return api.chat.completions.create(**given)


def text_of(answer: Any) -> str:
    return str(answer.choices[0].message.content)


def metric(server: Any, name: str) -> float:
    with urllib.request.urlopen(server.url.removesuffix("/v1") + "/metrics") as page:
        found = re.search(rf"^swift_jupyter_{name} (\S+)$", page.read().decode(), re.MULTILINE)
    assert found, name
    return float(found.group(1))


def test_models_are_listed_by_their_names(api: Any) -> None:
    # When a client asks who is there
    models = [model.id for model in api.models.list()]
    # Then the model and its adapters are, each to be asked for alone
    assert models == ["tiny", "one", "two"]
    assert api.models.retrieve("one").id == "one"
    with pytest.raises(openai.NotFoundError):
        api.models.retrieve("three")


def test_chat_answers_with_its_usage(api: Any) -> None:
    # When a client asks a question
    answer = ask(api)
    # Then it gets text, the reason of its end, and what it cost
    assert answer.object == "chat.completion"
    assert answer.choices[0].message.role == "assistant"
    assert text_of(answer)
    assert answer.choices[0].finish_reason == "length"
    assert answer.usage.completion_tokens == 24
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + 24
    # And greedy answers are what the model says by itself
    loaded = swift_jupyter.infer.load_model(str(server_folder(api)))
    assert text_of(answer) == loaded.generate(HELLO[0]["content"], temperature=0, max_new_tokens=24)


def server_folder(api: Any) -> Path:
    from swift_jupyter.runs.index import RunIndex
    from swift_jupyter.sdk import session as current

    run = next(run for run in RunIndex(current().settings).active())
    return Path(run.record().options["folder"])


def test_stream_carries_the_same_text_piece_by_piece(api: Any) -> None:
    # Given a whole answer
    whole = ask(api)
    # When the same is streamed
    chunks = list(ask(api, stream=True, stream_options={"include_usage": True}))
    # Then the pieces make up the answer, and the last chunk has the usage
    pieces = [chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices]
    assert len([piece for piece in pieces if piece]) > 3
    assert "".join(pieces) == text_of(whole)
    assert chunks[0].choices[0].delta.role == "assistant"
    assert chunks[-2].choices[0].finish_reason == "length"
    assert chunks[-1].usage.completion_tokens == 24


def test_several_answers_with_one_seed_differ_and_repeat(api: Any) -> None:
    # When three sampled answers are wanted, twice, with a seed
    first, second = (ask(api, n=3, temperature=1.0, seed=5, max_tokens=12) for _round in range(2))
    texts = [choice.message.content for choice in first.choices]
    # Then they differ from each other and are the same both times
    assert len(set(texts)) == 3
    assert texts == [choice.message.content for choice in second.choices]
    assert [choice.index for choice in first.choices] == [0, 1, 2]
    assert first.usage.completion_tokens == 36


def test_stop_words_end_an_answer_before_themselves(api: Any) -> None:
    # Given a word from the middle of an answer
    whole = text_of(ask(api))
    word = whole[len(whole) // 2 :][:3]
    # When it is a stop word
    answer = ask(api, stop=[word])
    streamed = ask(api, stop=word, stream=True)
    text = "".join(chunk.choices[0].delta.content or "" for chunk in streamed)
    # Then the answer ends right before it, streamed or not
    assert text_of(answer) == whole[: whole.index(word)] == text
    assert answer.choices[0].finish_reason == "stop"


def test_logprobs_name_the_chosen_token_first(api: Any) -> None:
    # When a greedy answer tells probabilities
    answer = ask(api, logprobs=True, top_logprobs=3, max_tokens=5)
    told = answer.choices[0].logprobs.content
    # Then each token is the likeliest of its alternatives
    assert len(told) == 5
    assert all(len(token.top_logprobs) == 3 for token in told)
    assert all(token.logprob == token.top_logprobs[0].logprob <= 0 for token in told)
    # And plain completions have them in their own form
    plain = api.completions.create(model="tiny", prompt="Once", max_tokens=4, logprobs=2)
    assert len(plain.choices[0].logprobs.token_logprobs) == 4
    assert plain.choices[0].logprobs.text_offset[0] == 0


def test_completions_take_several_prompts(api: Any) -> None:
    # When two prompts with two answers each are completed
    answer = api.completions.create(
        model="tiny", prompt=["Once upon", "The fox"], n=2, max_tokens=6, temperature=0
    )
    # Then the answers come in order, and equal prompts are continued alike
    texts = [choice.text for choice in answer.choices]
    assert len(texts) == 4
    assert texts[0] == texts[1]
    assert texts[2] == texts[3]
    assert texts[0] != texts[2]


def test_embeddings_are_means_of_hidden_states(api: Any) -> None:
    # When two texts are embedded, one of them twice
    answer = api.embeddings.create(model="tiny", input=["a fox", "a crow", "a fox"])
    vectors = [entry.embedding for entry in answer.data]
    # Then equal texts have equal vectors of the model's width
    assert len(vectors[0]) == 32
    assert vectors[0] == vectors[2] != vectors[1]
    assert answer.usage.prompt_tokens > 0
    # And numbers in plain JSON agree with the packed form that the client asks for by default
    plain = api.embeddings.create(model="tiny", input="a fox", encoding_format="float")
    assert plain.data[0].embedding == pytest.approx(vectors[0], rel=1e-5)


def test_adapters_answer_by_name(api: Any) -> None:
    # When the model and its adapters are asked the same, one by one and all at once
    alone = [text_of(ask(api, model=name)) for name in ("tiny", "one", "two")]
    with ThreadPoolExecutor(6) as pool:
        together = list(
            pool.map(lambda name: text_of(ask(api, model=name)), ["tiny", "one", "two"] * 2)
        )
    # Then each has its own answer, whoever answers beside it
    assert len(set(alone)) == 3
    assert together == alone * 2


def test_crowd_gets_the_answers_that_each_gets_alone(api: Any, server: Any) -> None:
    # Given twenty questions of different lengths with one system text, answered one by one
    system = {"role": "system", "content": "You are a kind helper who answers at length. " * 3}

    def answer(number: int) -> str:
        question = {"role": "user", "content": f"Question {number}." + " And more." * (number % 7)}
        return text_of(ask(api, messages=[system, question], max_tokens=10 + number))

    alone = [answer(number) for number in range(20)]
    shared = metric(server, "prompt_tokens_shared_total")
    # When all are asked at once, more than run at the same time
    with ThreadPoolExecutor(20) as pool:
        together = list(pool.map(answer, range(20)))
    # Then the answers are the same, and the system text was not read anew for each
    assert together == alone
    assert len(set(alone)) == 20
    assert metric(server, "prompt_tokens_shared_total") - shared > 19 * 50


def test_client_that_hangs_up_frees_its_place(api: Any, server: Any) -> None:
    # Given a long streamed answer
    stream = ask(api, max_tokens=1900, stream=True, extra_body={"ignore_eos": True})
    next(stream)
    assert metric(server, "requests_running") == 1
    # When the client hangs up
    stream.close()
    # Then its place is free long before the answer would have ended
    wait_for(lambda: metric(server, "requests_running") == 0, 10)
    # And the same holds for one that waits for the whole answer
    with client(server, timeout=0.5) as hasty, pytest.raises(openai.APITimeoutError):
        ask(hasty, max_tokens=1900, extra_body={"ignore_eos": True})
    wait_for(lambda: metric(server, "requests_running") == 0, 10)
    assert metric(server, "generated_tokens_total") < 10_000


@pytest.mark.parametrize(
    ("options", "param"),
    [
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "boss", "content": "x"}]}, "messages[0].role"),
        ({"messages": HELLO * 400}, "messages"),
        ({"temperature": 3}, "temperature"),
        ({"top_p": 0}, "top_p"),
        ({"n": 0}, "n"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"stop": [1]}, "stop"),
        ({"top_logprobs": 3}, "top_logprobs"),
        ({"presence_penalty": 1.0}, "presence_penalty"),
        ({"response_format": {"type": "json_object"}}, "response_format"),
        ({"logit_bias": {"5": 1}}, "logit_bias"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]},
            "messages[0].content",
        ),
        ({"tools": [{"type": "function", "function": {"name": "f"}}]}, "tools"),
    ],
)
def test_what_cannot_be_done_is_said(api: Any, options: dict[str, Any], param: str) -> None:
    # When a request is wrong, or wants what is not there
    with pytest.raises(openai.BadRequestError) as caught:
        ask(api, **options)
    # Then the error names the field, in the form that the client knows
    assert caught.value.body["param"] == param
    assert caught.value.body["type"] == "invalid_request_error"
    assert caught.value.body["message"]


def test_context_overflow_has_its_code(api: Any) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        ask(api, messages=[{"role": "user", "content": "word " * 3000}])
    assert caught.value.code == "context_length_exceeded"
    assert "2048" in str(caught.value)


def test_unknown_model_is_not_found(api: Any) -> None:
    with pytest.raises(openai.NotFoundError) as caught:
        ask(api, model="gpt-7")
    assert caught.value.code == "model_not_found"
    assert "tiny, one, two" in str(caught.value)


def test_result_chats_and_shows_a_client(server: Any) -> None:
    # When the result itself is asked
    answer = server.chat("Hello there, who are you?", temperature=0, max_tokens=8)
    assert answer.completion_tokens == 8
    assert server.chat("Hello", model="one", temperature=0, max_tokens=8) != answer
    # Then it shows code that works as it is
    code = re.sub(r"(?m)^print.*", "print(len(answer.choices))", server.client_snippet())
    code = code.replace("    messages=", "    max_tokens=4,\n    messages=")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "1", done.stderr
    # And it is listed as a run
    assert server.id in swift_jupyter.manage_runs().text()


def test_overload_is_answered_with_429(folder: Path, session: Any) -> None:
    # Given a server with one place and one seat to wait
    with (
        deployed(folder / "tiny", max_batch_size=1, max_waiting=1) as small,
        client(small) as api,
    ):
        name = small.model
        extra = {"ignore_eos": True}
        stream = ask(api, model=name, max_tokens=1900, stream=True, extra_body=extra)
        next(stream)
        waiting = threading.Thread(target=lambda: ask(api, model=name, max_tokens=1), daemon=True)
        waiting.start()
        wait_for(lambda: metric(small, "requests_waiting") == 1, 10)
        # When one more comes
        with pytest.raises(openai.RateLimitError) as caught:
            ask(api, model=name)
        # Then it is told when to come again, and those before are served
        assert int(caught.value.response.headers["Retry-After"]) >= 1
        stream.close()
        waiting.join(20)
        assert not waiting.is_alive()


def test_key_is_asked_for(folder: Path, session: Any) -> None:
    # Given a server with a key
    with deployed(folder / "tiny", api_key="secret-7") as guarded:
        # When the key is missing or wrong
        with client(guarded, api_key="wrong") as api, pytest.raises(openai.AuthenticationError):
            api.models.list()
        # Then only the right one opens, and neither the run nor its log holds it
        with client(guarded, api_key="secret-7") as api:
            assert len(list(api.models.list())) == 1
        assert guarded.chat("Hi", max_tokens=2).completion_tokens <= 2
        for file in Path(guarded.path).rglob("*"):
            assert not file.is_file() or b"secret-7" not in file.read_bytes()
        assert "secret-7" not in guarded.text()


def test_stop_frees_the_memory_and_resume_serves_again(folder: Path, session: Any) -> None:
    # Given a server
    result = swift_jupyter.deploy(model=str(folder / "tiny"), port=0)
    worker = result.run.record().worker.pid
    try:
        # When it is stopped while somebody listens
        with client(result) as api:
            stream = ask(api, model=result.model, max_tokens=1900, stream=True)
            next(stream)
            result.stop()
            with contextlib.suppress(Exception):
                list(stream)
        # Then its process is gone
        assert result.wait(20) == "stopped"
        wait_for(lambda: identify(worker) is None, 10)
        with pytest.raises(UserError):
            result.chat("Hi")
        # And it can be taken up again
        swift_jupyter.manage_runs("resume", result.id, background=True)
        result.wait_until_serving()
        assert result.chat("Hi", max_tokens=2)
    finally:
        result.run.kill()


def test_server_survives_the_kernel(folder: Path) -> None:
    # Given a kernel that deploys and is killed
    code = (
        "import swift_jupyter, os, signal\n"
        f"result = swift_jupyter.deploy(model={str(folder / 'tiny')!r}, port=0)\n"
        "print(result.id, result.url, flush=True)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    with deploy_session(folder / "kernel"):
        done = subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            timeout=120,
            env={**os.environ, **environment(folder / "kernel")},
        )
        assert done.returncode == -signal.SIGKILL, done.stderr
        run_id, url = done.stdout.split()
        try:
            # When another kernel asks
            with urllib.request.urlopen(url + "/models", timeout=20) as page:
                # Then the server still answers
                assert b'"data"' in page.read()
        finally:
            swift_jupyter.manage_runs("stop", run_id)


def test_port_that_is_taken_is_said_at_once(folder: Path, session: Any) -> None:
    # Given a port that somebody listens on
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        # When a server shall listen there
        begun = time.monotonic()
        with pytest.raises(UserError, match=str(port)) as caught:
            swift_jupyter.deploy(model=str(folder / "tiny"), port=port)
    # Then it is said before anything is loaded
    assert time.monotonic() - begun < 5
    assert "--port" in caught.value.next_step


def test_other_machines_need_a_key(folder: Path, session: Any) -> None:
    with pytest.raises(OptionError, match=r"0\.0\.0\.0"):
        swift_jupyter.deploy(model=str(folder / "tiny"), port=0, host="0.0.0.0")


def test_server_that_dies_at_start_says_why(folder: Path, session: Any, tmp_path: Path) -> None:
    # Given a model whose weights are cut
    broken = tmp_path / "broken"
    shutil.copytree(folder / "tiny", broken)
    weights = broken / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])
    # When it is deployed
    begun = time.monotonic()
    with pytest.raises(UserError, match="broken") as caught:
        swift_jupyter.deploy(model=str(broken), port=0)
    # Then the reason is told soon
    assert time.monotonic() - begun < 60
    assert caught.value.why


def test_tools_are_taken_by_templates_that_know_them(folder: Path, session: Any) -> None:
    # Given a model whose chat template shows tools in the form of Hermes
    tools_template = CHATML.replace(
        "{%- for",
        "{%- if tools %}<tools>{{ tools | tojson }}</tools><tool_call>{% endif %}{%- for",
        1,
    ).replace(
        "{% for", "{% if tools %}<tools>{{ tools | tojson }}</tools><tool_call>{% endif %}{% for", 1
    )
    build_lively_model(folder / "tools", template=tools_template)
    tools = [{"type": "function", "function": {"name": "weather", "parameters": {}}}]
    with deployed(folder / "tools") as result, client(result) as api:
        # When tools are given, streamed or not
        plain = ask(api, model=result.model, max_tokens=4)
        answer = ask(api, model=result.model, max_tokens=4, tools=tools)
        chunks = list(ask(api, model=result.model, max_tokens=4, tools=tools, stream=True))
    # Then the model has read them, and answers that call none are text
    assert answer.usage.prompt_tokens > plain.usage.prompt_tokens + 20
    assert answer.choices[0].message.tool_calls is None
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
    assert text == text_of(answer)
    assert chunks[-1].choices[0].finish_reason == "length"


def test_model_that_is_too_large_is_said_before_it_is_loaded(
    folder: Path, session: Any, tmp_path: Path
) -> None:
    # Given weights whose head tells of a hundred terabytes
    large = tmp_path / "large"
    shutil.copytree(folder / "tiny", large)
    size = 100 << 40
    head = json.dumps({"w": {"dtype": "F32", "shape": [size // 4], "data_offsets": [0, size]}})
    content = struct.pack("<Q", len(head)) + head.encode()
    (large / "model.safetensors").write_bytes(content)
    # When it is deployed, then it is refused with both numbers
    with pytest.raises(UserError, match="too large") as caught:
        swift_jupyter.deploy(model=str(large), port=0)
    assert "110.0 TB" in caught.value.why


def test_server_that_is_killed_is_lost_and_says_so(folder: Path, session: Any) -> None:
    # Given a server whose process is killed
    with deployed(folder / "tiny") as result:
        os.kill(result.run.record().worker.pid, signal.SIGKILL)
        # When somebody waits for it or asks it
        assert result.wait(20) == "lost"
        with pytest.raises(UserError, match="lost") as caught:
            result.chat("Hi")
        # Then the way back is named
        assert f"runs resume {result.id}" in caught.value.next_step
