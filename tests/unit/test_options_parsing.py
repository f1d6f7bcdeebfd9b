"""A line and a body become a frozen dataclass, or an OptionError that says what to type."""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from swift_jupyter.commands.parsing import ParsedCommand, parse
from swift_jupyter.commands.table import COMMANDS, find_command
from swift_jupyter.errors import OptionError
from swift_jupyter.magics.expansion import expand_words, resolver
from swift_jupyter.magics.words import split_line
from swift_jupyter.options import option_specs


def parsed(line: str, body: str | None = None, **variables: Any) -> ParsedCommand:
    """Parse as the magic does."""
    name, *words = split_line(line)
    tokens = expand_words(words, variables)
    return parse(find_command(name), tokens, body, resolve=resolver(variables))


def options_of(line: str, body: str | None = None, **variables: Any) -> dict[str, Any]:
    """Return the options that differ from their defaults."""
    result = parsed(line, body, **variables)
    specs = option_specs(type(result.options))
    values = {name: getattr(result.options, name) for name in specs}
    return {
        name: value
        for name, value in values.items()
        if specs[name].required or value != specs[name].default
    }


@pytest.mark.parametrize(
    ("line", "body", "expected"),
    [
        ("sft", None, {}),
        # Dashes and underscores are the same, with a space or with =.
        ("sft --lora-rank 16", None, {"lora_rank": 16}),
        ("sft --lora_rank=16", None, {"lora_rank": 16}),
        ("sft --per-device-train-batch-size=4", None, {"per_device_train_batch_size": 4}),
        ("sft", "lora-rank: 16", {"lora_rank": 16}),
        # Short flags.
        ("sft -m Qwen/Qwen3-0.6B -d a.jsonl", None,
         {"model": "Qwen/Qwen3-0.6B", "dataset": ["a.jsonl"]}),
        # ms-swift's older names and values.
        ("sft --train_type lora", None, {}),
        ("sft --sft_type lora", None, {}),
        ("sft", "train_type: lora", {}),
        ("sft --attn_impl flash_attn", None, {"attn_impl": "flash_attention_2"}),
        ("sft", "attn_impl: flash_attn", {"attn_impl": "flash_attention_2"}),
        ("merge --ckpt_dir out", None, {"adapter": "out"}),
        ("download --model smollm2-demo", None, {"names": ["smollm2-demo"]}),
        # Flags, with and without a value, and never taking the next word.
        ("sft --strict", None, {"strict": True}),
        ("sft --strict true", None, {"strict": True}),
        ("sft --dataset_shuffle false", None, {"dataset_shuffle": False}),
        ("sft --dataset_shuffle=no --strict", None, {"dataset_shuffle": False, "strict": True}),
        ("sft", "dataset_shuffle: off", {"dataset_shuffle": False}),
        ("download --dataset swift/self-cognition", None,
         {"dataset": True, "names": ["swift/self-cognition"]}),
        ("cache rm --yes smollm2-demo", None,
         {"action": "rm", "yes": True, "names": ["smollm2-demo"]}),
        # Numbers.
        ("sft --learning_rate 1e-4", None, {"learning_rate": 1e-4}),
        ("sft", "learning_rate: 1e-4", {"learning_rate": 1e-4}),
        ("sft", "learning_rate: 1.0e-4", {"learning_rate": 1e-4}),
        ("sft --max_steps 1e3", None, {"max_steps": 1000}),
        ("sft --seed 9007199254740993", None, {"seed": 9007199254740993}),
        ("sft --max_steps -1", None, {}),
        ("sft --num_train_epochs 2", None, {"num_train_epochs": 2.0}),
        # Lists.
        ("sft --model_name 小燕 Xiaoyan", None, {"model_name": ["小燕", "Xiaoyan"]}),
        ("sft", "model_name: 小燕 Xiaoyan", {"model_name": ["小燕", "Xiaoyan"]}),
        ("sft", "model_name: [小燕, Xiaoyan]", {"model_name": ["小燕", "Xiaoyan"]}),
        ("sft", "model_name:\n- 小燕\n- Xiao yan", {"model_name": ["小燕", "Xiao yan"]}),
        ("sft", "model_name: 'Xiao Yan'", {"model_name": ["Xiao Yan"]}),
        ("sft", 'model_name: 小燕 "Xiao Yan"', {"model_name": ["小燕", "Xiao Yan"]}),
        ("sft", "model_name: it's", {"model_name": ["it's"]}),
        ("sft --dataset a b --dataset c#5", None, {"dataset": ["a", "b", "c#5"]}),
        ("sft", "dataset: self-cognition#200", {"dataset": ["self-cognition#200"]}),
        # YAML scalars stay what was typed where the option is text.
        ("sft", "model_author: 007", {"model_author": ["007"]}),
        ("sft", "model: 1.5", {"model": "1.5"}),
        ("sft", "system: yes", {"system": "yes"}),
        ("sft", "system: |\n  two\n  lines", {"system": "two\nlines"}),
        ("sft", "max_length: null", {}),
        ("sft", "max_length:", {}),
        ("sft", "# only a comment", {}),
        ("sft", "\n", {}),
        # Mappings.
        ("sft", "columns:\n  frage: query\n  antwort: response",
         {"columns": {"frage": "query", "antwort": "response"}}),
        ("sft --columns '{\"frage\": \"query\"}'", None, {"columns": {"frage": "query"}}),
        ('sft --columns {"frage": "query"}', None, {"columns": {"frage": "query"}}),
        # The line wins over the body.
        ("sft --lora_rank 32", "lora_rank: 8\nlora_alpha: 64", {"lora_rank": 32, "lora_alpha": 64}),
        ("sft --dataset b", "dataset: [a, c]", {"dataset": ["b"]}),
        # Words without a flag.
        ("models qwen2.5 0.5b", None, {"query": "qwen2.5 0.5b"}),
        ("runs attach sft-1a2b", None, {"action": "attach", "run": "sft-1a2b"}),
        ("config set output_root my runs", None,
         {"action": "set", "name": "output_root", "value": "my runs"}),
        ("unload", None, {}),
        # Prompts.
        ("infer Who are you?", None, {"prompt": "Who are you?"}),
        ("infer --temperature 0 What's that, and what's this?", None,
         {"temperature": 0.0, "prompt": "What's that, and what's this?"}),
        ("infer Why 5 - 3?", None, {"prompt": "Why 5 - 3?"}),
        ("infer -- --lora_rank is what?", None, {"prompt": "--lora_rank is what?"}),
        ("infer", "Who are you?\n\nAnd {this}: $that?\n",
         {"prompt": "Who are you?\n\nAnd {this}: $that?"}),
    ],
)  # fmt: skip
def test_line_and_body_become_options(
    line: str, body: str | None, expected: dict[str, Any]
) -> None:
    assert options_of(line, body) == expected


@pytest.mark.parametrize(
    ("line", "body", "words"),
    [
        ("sft --lora_rnak 8", None, ["sft has no option '--lora_rnak'", "--lora_rank"]),
        ("sft --train_typ lora", None, ["--train_type"]),
        ("sft -model x", None, ["'-model'", "--model"]),
        ("sfft", None, ["'%swift sfft'", "sft"]),
        ("blub", None, ["download, infer, sft"]),
        ("sft --tuner_type loar", None, ["--tuner_type cannot be 'loar'", "lora"]),
        ("sft --lr_scheduler_type cosin", None, ["Did you mean cosine?", "linear"]),
        ("sft", "lora_alpha: 8\nlora_rnak: 8", ["Line 3:", "lora_rnak", "lora_rank"]),
        ("sft", "lora_rank: 8\nlora-rank: 9", ["Line 3:", "given twice"]),
        ("sft", "tuner_type: lora\ntrain_type: lora", ["Line 3:", "given twice"]),
        ("sft", "lora_rank: null\nlora_rank: 9", ["given twice"]),
        ("sft", "lora_rank: 8\n  system: x", ["Line 3 is not YAML", "system: x"]),
        ("sft", "lora_rank: [8", ["is not YAML"]),
        ("sft", "just words", ["'key: value'"]),
        ("sft", "- a\n- b", ["'key: value'"]),
        ("sft", "? [a]\n: b", ["Line 2: the key is not a name"]),
        ("sft", "[" * 5000, ["nested too deeply"]),
        ("sft", "a: 1\n---\nb: 2", ["is not YAML"]),
        ("sft", "lora_rank: 8.5", ["Line 2: lora_rank takes a whole number, not '8.5'"]),
        ("sft", "lora_rank: {a: b}", ["lora_rank takes a whole number, not a list"]),
        ("sft --lora_rank acht", None, ["--lora_rank takes a whole number, not 'acht'"]),
        ("sft --learning_rate nan", None, ["--learning_rate takes a number"]),
        ("sft --learning_rate inf", None, ["--learning_rate takes a number"]),
        ("sft --strict=maybe", None, ["--strict is true or false, not 'maybe'"]),
        ("sft --columns frage", None, ["--columns takes a JSON object"]),
        ("sft --lora_rank", None, ["--lora_rank", "expected one argument"]),
        ("sft --dataset", None, ["--dataset", "expected at least one argument"]),
        ("sft word", None, ["sft cannot use 'word'", "--help"]),
        ("runs attach a b", None, ["runs cannot use 'b'"]),
        ("runs sft-1a2b", None, ["ACTION cannot be 'sft-1a2b'", "attach"]),
        ("merge", None, ["merge needs ADAPTER", "For example"]),
        ("merge", None, ["merge needs ADAPTER"]),
        ("models qwen", "body: 1", ["takes no cell body", "%swift models"]),
        ("infer smollm2-demo", "Who are you?", ["'smollm2-demo'", "--model"]),
        ("sft --out 1x", None, ["--out", "'1x'"]),
        ("sft --out class", None, ["'class'"]),
        ("sft --out=", None, ["--out"]),
        ("sft --dataset $nothing", None, ["no variable 'nothing'"]),
        ("sft", "dataset: $nothing", ["no variable 'nothing'"]),
    ],
)  # fmt: skip
def test_wrong_input_is_answered_in_at_most_three_lines(
    line: str, body: str | None, words: list[str]
) -> None:
    with pytest.raises(OptionError) as caught:
        parsed(line, body)
    text = str(caught.value)
    assert all(word in text for word in words), text
    assert len(text.splitlines()) <= 3
    assert "\ue000" not in text


# Objects


FRAME = SimpleNamespace(columns=["query", "response"])
ROWS = [{"query": "a", "response": "b"}]


@pytest.mark.parametrize(
    ("line", "body", "expected"),
    [
        ("sft --dataset $df", None, {"dataset": [FRAME]}),
        ("sft --dataset=$df", None, {"dataset": [FRAME]}),
        ("sft --dataset {df}", None, {"dataset": [FRAME]}),
        ('sft --dataset {frames["train"]} more.jsonl', None, {"dataset": [FRAME, "more.jsonl"]}),
        ("sft --dataset $box.df", None, {"dataset": [FRAME]}),
        ("sft", "dataset: $df", {"dataset": [FRAME]}),
        ("sft", "dataset: [$df, a.jsonl]", {"dataset": [FRAME, "a.jsonl"]}),
        # A list of rows is one data set, a list of names is several.
        ("sft --dataset $rows", None, {"dataset": [ROWS]}),
        ("sft --dataset $names", None, {"dataset": ["a.jsonl", "b.jsonl"]}),
        ("sft", "dataset: $names", {"dataset": ["a.jsonl", "b.jsonl"]}),
        ("sft --target_modules $modules", None, {"target_modules": ["q_proj", "v_proj"]}),
        # Comprehensions see the notebook's variables.
        ("sft --lora_rank {[r for r in (rank,) if r == rank][0]}", None, {"lora_rank": 4}),
        ("sft --lora_rank $rank --learning_rate $rate", None,
         {"lora_rank": 4, "learning_rate": 0.5}),
        ("sft --columns $columns", None, {"columns": {"a": "query"}}),
        ("sft", "columns: $columns", {"columns": {"a": "query"}}),
        ("sft --dataset $path", None, {"dataset": ["some.jsonl"]}),
        ("sft --max_length $none", None, {}),
        ("merge $df", None, {"adapter": FRAME}),
        ("infer $question please", None, {"prompt": "Who now? please"}),
        ("infer costs $$question", None, {"prompt": "costs $question"}),
        ("sft --output_dir out/$rank", None, {"output_dir": "out/4"}),
    ],
)  # fmt: skip
def test_names_pass_the_object_itself(
    line: str, body: str | None, expected: dict[str, Any]
) -> None:
    variables = {
        "df": FRAME,
        "frames": {"train": FRAME},
        "box": SimpleNamespace(df=FRAME),
        "rows": ROWS,
        "names": ["a.jsonl", "b.jsonl"],
        "modules": ("q_proj", "v_proj"),
        "rank": 4,
        "rate": 0.5,
        "columns": {"a": "query"},
        "path": Path("some.jsonl"),
        "none": None,
        "question": "Who now?",
    }
    assert options_of(line, body, **variables) == expected


def test_an_answer_keeps_its_conversation_as_history() -> None:
    # Given an answer: a text that carries the messages before it
    class Answer(str):
        messages: tuple[str, ...] = ()

    answer = Answer("hello")
    # When it is passed as history
    options = parsed("infer --history $answer -- and now?", answer=answer).options
    # Then it is the object, not only its text
    assert options.history[0] is answer


def test_an_object_that_does_not_fit_is_named() -> None:
    with pytest.raises(OptionError, match="--system takes a text, not a SimpleNamespace"):
        parsed("sft --system $df", df=FRAME)
    with pytest.raises(OptionError, match="no attribute 'clumns'"):
        parsed("sft --system $df.clumns", df=FRAME)


@pytest.mark.parametrize("line", ["sft --out run", "sft -o run", "sft --out=run"])
def test_out_names_a_variable(line: str) -> None:
    assert parsed(line).out == "run"


@pytest.mark.parametrize("line", ["sft --help", "sft -h", "merge --help", "sft --seed 8 --help"])
def test_help_needs_nothing_else(line: str) -> None:
    assert parsed(line).wants_help


def test_options_from_a_file_yield_to_body_and_line() -> None:
    # Given the same option in a file, in a body and on the line
    result = parse(
        COMMANDS["sft"],
        ["--lora_rank", "4"],
        body="lora_rank: 2\nlora_alpha: 2",
        config="lora_rank: 1\nlora_alpha: 1\nseed: 1",
    )
    # Then the nearest wins
    options = result.options
    assert (options.lora_rank, options.lora_alpha, options.seed) == (4, 2, 1)


def test_a_file_names_its_own_line_numbers_and_serves_every_command() -> None:
    with pytest.raises(OptionError, match="Line 1: "):
        parse(COMMANDS["sft"], [], config="lora_rnak: 1")
    options = parse(COMMANDS["infer"], ["hi"], config="max_new_tokens: 3").options
    assert (options.prompt, options.max_new_tokens) == ("hi", 3)


def test_given_python_values_fit_the_options() -> None:
    given = {"lora_rank": 4, "strict": True, "dataset": ROWS, "max_length": None}
    options = parse(COMMANDS["sft"], [], given=given).options
    assert (options.lora_rank, options.strict, options.dataset) == (4, True, [ROWS])
    with pytest.raises(OptionError, match="merge needs ADAPTER"):
        parse(COMMANDS["merge"], [], given={"adapter": None})
    with pytest.raises(OptionError, match="lora_rank"):
        parse(COMMANDS["sft"], [], given={"lora_rnak": 4})


def test_options_are_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        parsed("sft").options.seed = 1


# Properties


LINE_PIECES = st.one_of(
    st.text(max_size=12),
    st.sampled_from(
        ["--", "-", "--lora_rank", "--dataset", "=", " ", '"', "'", "{", "}", "$", "$x", "--out",
         "--strict", "true", "-m", "8", "--columns", "--help", "--json", "\\", "--columns={"]
    ),
)  # fmt: skip
LINES = st.lists(LINE_PIECES, max_size=8).map(" ".join)
BODY_PIECES = st.one_of(
    st.text(max_size=12),
    st.sampled_from(
        ["lora_rank: ", "columns: ", "dataset: ", "\n", "- ", "[", "{", "&a ", "*a", "!!int ", "'",
         '"', "|", ">", "# ", "\t", "$x", "null", ": ", "--- ", "%YAML 1.1", "<<: ", "\x00", "\x85"]
    ),
)  # fmt: skip
BODIES = st.lists(BODY_PIECES, max_size=10).map("".join)


@settings(max_examples=300, deadline=None)
@given(line=LINES, body=st.none() | BODIES, command=st.sampled_from(sorted(COMMANDS)))
@example(line="--columns {", body="columns: &a {a: *a}", command="sft")
@example(line="", body="dataset: &a [*a]", command="sft")
def test_parsing_raises_nothing_but_option_errors(
    line: str, body: str | None, command: str
) -> None:
    try:
        tokens = expand_words(split_line(line), {"x": 1})
        parse(COMMANDS[command], tokens, body, resolve=resolver({"x": 1}))
    except OptionError as error:
        assert error.what


NUMBERS = st.floats(allow_nan=False, allow_infinity=False)
TEXTS = st.text(
    st.characters(categories=("L", "N", "P", "S"), include_characters=" "), min_size=1
).filter(lambda text: not text.startswith(("-", "$", "{")) and text.strip() == text)


@settings(max_examples=150, deadline=None)
@given(rank=st.integers(), rate=NUMBERS, strict=st.booleans(), system=TEXTS, names=st.lists(TEXTS))
def test_typed_values_come_back(
    rank: int, rate: float, strict: bool, system: str, names: list[str]
) -> None:
    values = {"lora_rank": rank, "learning_rate": rate, "strict": strict, "system": system,
              "model_name": names}  # fmt: skip
    # When they are typed on the line
    words = [f"--lora_rank={rank}", f"--learning_rate={rate!r}", f"--strict={strict}",
             f"--system={system}", *(["--model_name", *names] if names else [])]  # fmt: skip
    on_line = parse(COMMANDS["sft"], words).options
    # And as YAML, of which JSON is a part
    in_body = parse(COMMANDS["sft"], [], json.dumps(values, ensure_ascii=False)).options
    # Then both are what was meant
    for options in (on_line, in_body):
        assert {name: getattr(options, name) for name in values} == values


@settings(max_examples=200, deadline=None)
@given(words=st.lists(st.text(st.characters(exclude_categories=("Cs",))), max_size=5))
def test_quoted_words_come_back(words: list[str]) -> None:
    quoted = ['"' + word.replace("\\", "\\\\").replace('"', '\\"') + '"' for word in words]
    assert split_line(" ".join(quoted)) == words


def test_parsing_reads_no_file_and_starts_nothing() -> None:
    # Given commands whose modules are imported
    lines = [(name, "a: b" if COMMANDS[name].body == "yaml" else None) for name in COMMANDS]
    lines += [("sft --model x --dataset a.jsonl#5 --lora_rank 8", "system: prompt.txt"),
              ("infer --model ./folder hello", None), ("merge /tmp/run", None)]  # fmt: skip
    outcomes = []

    def run_all() -> None:
        for line, body in lines:
            try:
                outcomes.append(parsed(line, body))
            except OptionError as error:
                outcomes.append(error)

    run_all()
    # When they are parsed while every access to the outside is noted
    watched = ("open", "os.", "socket.", "subprocess.", "import", "shutil.", "pathlib.")
    seen: list[str] = []
    watching = [True]

    def note(event: str, arguments: tuple[Any, ...]) -> None:
        if watching[0] and event.startswith(watched):
            seen.append(f"{event} {arguments}")

    sys.addaudithook(note)
    try:
        run_all()
    finally:
        watching[0] = False  # A hook cannot be removed.
    # Then there was none
    assert seen == []
    assert len(outcomes) == 2 * len(lines)
