"""Chatting with a tiny model in memory: answers, adapters, interrupts, memory."""

from __future__ import annotations

import contextlib
import gc
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from chat_tokenizers import CHATML, NO_SYSTEM, fast_tokenizer
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_models import build_adapter, build_tiny_model

from swift_jupyter.commands.context import Context
from swift_jupyter.commands.frontend import SilentFrontend
from swift_jupyter.commands.infer import InferOptions
from swift_jupyter.commands.infer import run as infer
from swift_jupyter.engine.inference.adapters import locate_adapter
from swift_jupyter.engine.inference.loaded import LoadedModels
from swift_jupyter.engine.inference.protocol import GenerationOptions
from swift_jupyter.engine.inference.streaming import PieceStreamer
from swift_jupyter.engine.models.options import ModelOptions
from swift_jupyter.errors import Interrupted, UserError
from swift_jupyter.settings import Settings

QUESTION = "What is your name?"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("inference")
    base = build_tiny_model(folder / "model")
    build_adapter(folder / "one", base, seed=1)
    build_adapter(folder / "two", base, seed=2)
    return folder


@pytest.fixture
def models() -> Iterator[LoadedModels]:
    models = LoadedModels()
    yield models
    models.unload()


@pytest.fixture
def model(folder: Path, models: LoadedModels) -> Any:
    return models.load("tiny", folder / "model", ModelOptions())


def sampled(**options: Any) -> dict[str, Any]:
    return {"temperature": 1.0, "top_k": 0, "max_new_tokens": 24, "seed": 3, **options}


def test_answer_carries_its_facts(model: Any) -> None:
    # When a model answers
    pieces: list[str] = []
    answer = model.generate(QUESTION, system="You help.", on_text=pieces.append, **sampled())
    # Then the answer is its text, with what it cost and the conversation to go on with
    assert "".join(pieces) == answer
    assert answer.finish_reason == "length"
    assert answer.completion_tokens == 24
    assert answer.prompt_tokens > 10
    assert answer.tokens_per_second > 0
    assert [message["role"] for message in answer.messages] == ["system", "user", "assistant"]
    assert answer.messages[-1]["content"] == answer
    # And an answer can be the history of the next question
    following = model.generate("And?", history=[answer], **sampled())
    assert [message["content"] for message in following.messages][:4] == [
        "You help.",
        QUESTION,
        answer,
        "And?",
    ]


def test_seed_makes_an_answer_repeatable(model: Any) -> None:
    first = model.generate(QUESTION, **sampled(seed=5))
    assert model.generate(QUESTION, **sampled(seed=5)) == first
    assert model.generate(QUESTION, **sampled(seed=6)) != first


def test_temperature_zero_takes_the_likeliest(model: Any) -> None:
    answers = {model.generate(QUESTION, temperature=0, max_new_tokens=9) for _ in range(2)}
    assert len(answers) == 1


@pytest.mark.parametrize("limit", [1, 7])
def test_max_new_tokens_is_the_longest_answer(model: Any, limit: int) -> None:
    answer = model.generate(QUESTION, **sampled(max_new_tokens=limit))
    assert answer.completion_tokens == limit
    assert answer.finish_reason == "length"


def test_answer_that_ends_by_itself_says_so(folder: Path, models: LoadedModels) -> None:
    import torch

    # Given a model that always says its end token
    model = models.load("tiny", folder / "model", ModelOptions())
    network = model._model
    with torch.no_grad():
        end = network.generation_config.eos_token_id
        network.lm_head.weight.zero_()
        network.model.norm.weight.fill_(1.0)
        network.lm_head.bias = torch.nn.Parameter(torch.zeros(network.config.vocab_size))
        network.lm_head.bias[end] = 10.0
    # When it answers
    answer = model.generate(QUESTION, temperature=0)
    # Then that token ended the answer and is not part of it
    assert answer == ""
    assert answer.finish_reason == "stop"
    assert answer.completion_tokens == 1


def test_stream_gives_the_same_text_in_pieces(model: Any) -> None:
    whole = model.generate(QUESTION, **sampled())
    pieces = list(model.stream(QUESTION, **sampled()))
    assert len(pieces) > 3
    assert "".join(pieces) == whole


def test_stream_that_nobody_reads_on_stops_the_model(model: Any) -> None:
    # Given a long answer of which only the beginning is wanted
    stream = model.stream(QUESTION, **sampled(max_new_tokens=400))
    next(stream)
    # When the reader goes away
    stream.close()
    # Then the model is free for the next question at once
    answer = model.generate(QUESTION, **sampled())
    assert answer.completion_tokens == 24


def test_stream_hands_errors_to_its_reader(model: Any) -> None:
    with pytest.raises(UserError, match="no adapter 'none'"):
        list(model.stream(QUESTION, adapter="none"))


def test_adapters_answer_by_name_and_leave_the_base_alone(folder: Path, model: Any) -> None:
    # Given the answer of the bare model
    greedy = {"temperature": 0, "max_new_tokens": 16}
    bare = model.generate(QUESTION, **greedy)
    # When two adapters are loaded
    for name in ("one", "two"):
        model.add_adapter(locate_adapter(f"{name}={folder / name}"))
    assert model.adapters == ["one", "two"]
    answers = {
        name: model.generate(QUESTION, adapter=name, **greedy) for name in ("", "one", "two")
    }
    # Then each has its own answer and the base still gives its own, in any order
    assert answers[""] == bare
    assert len(set(answers.values())) == 3
    assert model.generate(QUESTION, adapter="one", **greedy) == answers["one"]
    assert model.generate(QUESTION, **greedy) == bare


def test_adapter_is_loaded_again_when_its_files_change(folder: Path, tmp_path: Path) -> None:
    models = LoadedModels()
    model = models.load("tiny", folder / "model", ModelOptions())
    greedy = {"temperature": 0, "max_new_tokens": 16, "adapter": "mine"}
    # Given an adapter in memory
    build_adapter(tmp_path / "a", folder / "model", seed=1)
    model.add_adapter(locate_adapter(f"mine={tmp_path / 'a'}"))
    before = model.generate(QUESTION, **greedy)
    # When the files in its folder are replaced
    build_adapter(tmp_path / "a", folder / "model", seed=2)
    model.add_adapter(locate_adapter(f"mine={tmp_path / 'a'}"))
    # Then the new ones answer
    assert model.generate(QUESTION, **greedy) != before
    assert model.adapters == ["mine"]


@pytest.mark.parametrize("shape", [{"hidden": 64}, {"layers": 3}, {"layers": 1}])
@pytest.mark.parametrize("others", [[], ["one"]])
def test_adapter_of_another_model_is_refused_and_leaves_no_trace(
    folder: Path, model: Any, tmp_path: Path, shape: dict[str, int], others: list[str]
) -> None:
    # Given a model, with or without adapters
    greedy = {"temperature": 0, "max_new_tokens": 16}
    bare = model.generate(QUESTION, **greedy)
    for name in others:
        model.add_adapter(locate_adapter(f"{name}={folder / name}"))
    answers = [model.generate(QUESTION, adapter=name, **greedy) for name in others]
    # When an adapter of a model of another shape is loaded
    other = build_tiny_model(tmp_path / "m", **shape)
    foreign = build_adapter(tmp_path / "foreign", other, target_modules=["q_proj", "v_proj"])
    with pytest.raises(UserError, match="does not fit tiny") as error:
        model.add_adapter(locate_adapter(str(foreign)))
    # Then it is one clear error, and all answers are as they were
    assert len(error.value.lines) == 3
    assert model.adapters == others
    assert model.generate(QUESTION, **greedy) == bare
    assert [model.generate(QUESTION, adapter=name, **greedy) for name in others] == answers
    # And a right one can be loaded after it
    model.add_adapter(locate_adapter(f"two={folder / 'two'}"))
    assert model.generate(QUESTION, adapter="two", **greedy) != bare


def test_broken_adapter_is_refused(folder: Path, model: Any, tmp_path: Path) -> None:
    # Given an adapter whose weights were cut off
    path = build_adapter(tmp_path / "cut", folder / "model")
    file = path / "adapter_model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    # Then it is one clear error
    with pytest.raises(UserError, match="does not fit"):
        model.add_adapter(locate_adapter(str(path)))
    # And a folder without an adapter is another
    with pytest.raises(UserError, match="no adapter"):
        locate_adapter(str(tmp_path))
    file.unlink()
    with pytest.raises(UserError, match="has no weights"):
        locate_adapter(str(path))


def test_unknown_adapter_is_an_error_also_when_there_is_none(folder: Path, model: Any) -> None:
    with pytest.raises(UserError, match="no adapter 'three'") as error:
        model.generate(QUESTION, adapter="three")
    assert "none" in error.value.why
    model.add_adapter(locate_adapter(f"one={folder / 'one'}"))
    with pytest.raises(UserError, match="no adapter 'three'") as error:
        model.generate(QUESTION, adapter="three")
    assert "one" in error.value.why


def test_too_long_prompt_is_an_error(model: Any) -> None:
    with pytest.raises(UserError, match="tokens") as error:
        model.generate("Hello there. " * 400)
    assert "512" in error.value.why
    assert len(error.value.lines) == 3


def test_long_prompt_leaves_room_for_a_short_answer(model: Any) -> None:
    # Given a prompt that nearly fills the model
    words = "Hello there. "
    count = 40
    while model.generate(words * count, **sampled(max_new_tokens=1)).prompt_tokens < 500:
        count += 1
    # Then the answer ends where the model does
    answer = model.generate(words * count, **sampled(max_new_tokens=100))
    assert answer.prompt_tokens + answer.completion_tokens == 512


def test_interrupt_keeps_the_text_so_far(model: Any) -> None:
    # Given an interrupt in the middle of an answer
    pieces: list[str] = []

    def take(piece: str) -> None:
        pieces.append(piece)
        if len(pieces) == 4:
            raise KeyboardInterrupt

    # When it is answered
    answer = model.generate(QUESTION, on_text=take, **sampled(max_new_tokens=200))
    # Then the text up to there is kept, as a part of the conversation
    assert answer.finish_reason == "interrupted"
    assert answer == "".join(pieces) != ""
    assert answer.completion_tokens < 200
    assert answer.messages[-1]["content"] == answer
    # And the model is as good as before
    assert model.generate(QUESTION, **sampled()).finish_reason == "length"


def test_interrupted_command_fails_but_keeps_its_result(folder: Path, tmp_path: Path) -> None:
    class ImpatientText:
        """A view whose user interrupts at the second piece."""

        count = 0

        def append(self, _piece: str) -> None:
            self.count += 1
            if self.count == 2:
                raise KeyboardInterrupt

        def finish(self, note: str) -> None:
            assert "interrupted" in note

    class ImpatientFrontend(SilentFrontend):
        def text(self, title: str) -> Any:
            return contextlib.nullcontext(ImpatientText())

    # Given a user who interrupts an answer of the command
    context = Context(Settings(state_dir=str(tmp_path)), ImpatientFrontend())
    options = InferOptions(prompt=QUESTION, model=str(folder / "model"), temperature=1.0, seed=3)
    # Then the cell fails in a few lines, and the text so far is its result
    with pytest.raises(Interrupted) as error:
        infer(options, context)
    assert error.value.result.answer.finish_reason == "interrupted"
    assert error.value.result.answer
    assert len(error.value.lines) <= 3


def test_unloading_frees_the_model(folder: Path) -> None:
    from transformers import LlamaForCausalLM

    def in_memory() -> int:
        gc.collect()
        return sum(isinstance(found, LlamaForCausalLM) for found in gc.get_objects())

    before = in_memory()
    # Given a model that has answered with adapters, streamed, and failed
    models = LoadedModels()
    model = models.load("tiny", folder / "model", ModelOptions())
    assert models.load("tiny", folder / "model", ModelOptions()) is model
    for name in ("one", "two"):
        model.add_adapter(locate_adapter(f"{name}={folder / name}"))
    answer = model.generate(QUESTION, adapter="two", **sampled())
    assert list(model.stream(QUESTION, adapter="one", **sampled()))
    with pytest.raises(UserError):
        model.generate(QUESTION, adapter="three")
    reference = weakref.ref(model)
    assert in_memory() == before + 1
    # When it is unloaded
    del model
    assert models.unload("tiny") == ["tiny"]
    # Then nothing of it is left, though its answer is
    assert reference() is None
    assert in_memory() == before
    assert answer.messages
    assert models.names == []


def test_no_words_of_the_libraries_reach_the_cell(
    folder: Path, capfd: pytest.CaptureFixture[str], recwarn: pytest.WarningsRecorder
) -> None:
    models = LoadedModels()
    model = models.load("tiny", folder / "model", ModelOptions())
    model.add_adapter(locate_adapter(f"one={folder / 'one'}"))
    model.generate(QUESTION, adapter="one", temperature=0, max_new_tokens=4)
    model.generate(QUESTION, **sampled())
    captured = capfd.readouterr()
    assert captured.out == ""
    assert captured.err == ""
    assert [str(warning.message) for warning in recwarn] == []


def test_thinking_is_off_unless_asked_for(tmp_path: Path, models: LoadedModels) -> None:
    # Given a model whose template has a switch for thoughts
    switch = (
        "{% if add_generation_prompt and not enable_thinking | default(true) %}"
        "<think>\n\n</think>\n\n{% endif %}"
    )
    folder = build_tiny_model(tmp_path / "thinker", template=CHATML + switch)
    model = models.load("thinker", folder, ModelOptions())
    # Then it answers without thoughts, which its prompt says with an empty thought
    options = sampled(max_new_tokens=1)
    quiet = model.generate(QUESTION, **options)
    thinking = model.generate(QUESTION, enable_thinking=True, **options)
    added = fast_tokenizer(None)("<think>\n\n</think>\n\n", add_special_tokens=False)
    assert quiet.prompt_tokens == thinking.prompt_tokens + len(added["input_ids"])
    assert GenerationOptions().enable_thinking is False


def test_template_that_refuses_the_messages_is_one_error(
    tmp_path: Path, models: LoadedModels
) -> None:
    folder = build_tiny_model(tmp_path / "strict", template=NO_SYSTEM)
    model = models.load("strict", folder, ModelOptions())
    with pytest.raises(UserError, match="refuses") as error:
        model.generate(QUESTION, system="You help.")
    assert "no system role here" in error.value.why


def test_base_model_without_template_goes_on_with_the_text(
    tmp_path: Path, models: LoadedModels
) -> None:
    folder = build_tiny_model(tmp_path / "plain", template=None)
    model = models.load("plain", folder, ModelOptions())
    answer = model.generate("Hello", **sampled())
    ids = fast_tokenizer(None)("Hello")["input_ids"]
    assert answer.prompt_tokens == len(ids)


def byte_fallback_tokenizer(strip: bool) -> Any:
    """A tokenizer with tokens for single bytes.

    With `strip` its decoder drops the first space of a text, as Llama's does.
    """
    import json

    from tokenizers import Tokenizer, decoders

    tokenizer = fast_tokenizer(None, "sentencepiece")
    content = json.loads(tokenizer.backend_tokenizer.to_str())
    # Special tokens would be left out of answers, and bytes are none.
    content["added_tokens"] = [
        token for token in content["added_tokens"] if not token["content"].startswith("<0x")
    ]
    backend = Tokenizer.from_str(json.dumps(content))
    steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    backend.decoder = decoders.Sequence(steps + [decoders.Strip(" ", 1, 0)] * strip)
    return type(tokenizer)(tokenizer_object=backend, eos_token="</s>", pad_token="</s>")


TOKENIZERS = {
    "bytes": lambda: fast_tokenizer(None),
    "byte-fallback": lambda: byte_fallback_tokenizer(strip=False),
    "stripping": lambda: byte_fallback_tokenizer(strip=True),
}


@pytest.fixture(scope="module", params=list(TOKENIZERS))
def tokenizer(request: pytest.FixtureRequest) -> Any:
    return TOKENIZERS[request.param]()


CHARACTERS = st.one_of(
    st.sampled_from(" \n\taeH'.,"),
    st.sampled_from("你是谁我小助手很高兴认识天气"),
    st.sampled_from("😀👩‍💻🇨🇳é\u0301ß漢字"),
    st.characters(exclude_categories=["Cs"], exclude_characters="\ufffd\x00"),
)


def streamed(tokenizer: Any, tokens: list[int]) -> tuple[PieceStreamer, list[str]]:
    import torch

    pieces: list[str] = []
    streamer = PieceStreamer(tokenizer, pieces.append)
    streamer.put(torch.tensor([[1, 2, 3]]))
    for token in tokens:
        streamer.put(torch.tensor([token]))
    streamer.end()
    return streamer, pieces


@settings(max_examples=150, deadline=None)
@given(text=st.text(CHARACTERS, max_size=40))
def test_pieces_are_whole_characters_and_make_up_the_text(tokenizer: Any, text: str) -> None:
    tokens = tokenizer(text, add_special_tokens=False)["input_ids"]
    expected = tokenizer.decode(
        tokens, skip_special_tokens=True, clean_up_tokenization_spaces=False
    )
    streamer, pieces = streamed(tokenizer, tokens)
    assert "".join(pieces) == streamer.text == expected
    assert all(piece and "\ufffd" not in piece for piece in pieces)


@settings(max_examples=100, deadline=None)
@given(text=st.text(CHARACTERS, min_size=1, max_size=20), data=st.data())
def test_cut_answer_ends_before_the_unfinished_character(
    tokenizer: Any, text: str, data: st.DataObject
) -> None:
    tokens = tokenizer(text, add_special_tokens=False)["input_ids"]
    cut = data.draw(st.integers(0, len(tokens)))
    whole = tokenizer.decode(tokens, skip_special_tokens=True, clean_up_tokenization_spaces=False)
    streamer, _pieces = streamed(tokenizer, tokens[:cut])
    assert whole.startswith(streamer.text)
    assert "\ufffd" not in streamer.text


def test_special_tokens_inside_an_answer_cost_no_space(tokenizer: Any) -> None:
    first = tokenizer("Hello", add_special_tokens=False)["input_ids"]
    second = tokenizer("is that it", add_special_tokens=False)["input_ids"]
    tokens = [*first, tokenizer.eos_token_id, *second]
    expected = tokenizer.decode(
        tokens, skip_special_tokens=True, clean_up_tokenization_spaces=False
    )
    assert streamed(tokenizer, tokens)[0].text == expected


def test_load_model_answers_with_the_adapter_it_was_given(folder: Path, model: Any) -> None:
    # Given a handle for the base and one for an adapter, of the same model
    from swift_jupyter import infer as function

    base = function.load_model(str(folder / "model"))
    tuned = function.load_model(str(folder / "model"), adapters=[f"mine={folder / 'one'}"])
    # Then each answers with its own, whatever the other was given
    asked = sampled()
    model.add_adapter(locate_adapter(f"mine={folder / 'one'}"))
    assert base.generate(QUESTION, **asked) == model.generate(QUESTION, **asked)
    expected = model.generate(QUESTION, adapter="mine", **asked)
    assert tuned.generate(QUESTION, **asked) == expected
    assert tuned.generate(QUESTION, adapter="", **asked) == base.generate(QUESTION, **asked)
    assert "".join(tuned.stream(QUESTION, **asked)) == expected
    assert tuned.chat([{"role": "user", "content": QUESTION}], **asked) == expected
    assert tuned.adapters == ["mine"] and base.adapter == ""
