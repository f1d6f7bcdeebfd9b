"""From options to rows, through the front door."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import chat_tokenizers as ct
import pytest

from swift_jupyter.engine.data import DataOptions, prepare
from swift_jupyter.errors import Interrupted, UserError

TOKENIZER = ct.fast_tokenizer(ct.CHATML)


def rows(count: Any, answer: Any = "answer {}") -> Any:
    return [{"query": f"question {n}", "response": answer.format(n)} for n in range(count)]


def answers(encoded: Any) -> Any:
    text = [str(TOKENIZER.decode([label for label in row.labels if label >= 0])) for row in encoded]
    return [line.removesuffix("<|im_end|>\n") for line in text]


def prepared(dataset: Any, **options: Any) -> Any:
    return prepare(DataOptions(dataset=dataset, **options), TOKENIZER)


@pytest.fixture
def data_file(tmp_path: Path) -> Any:
    path = tmp_path / "data.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows(20)), encoding="utf-8")
    return path


class TestChoiceOfRows:
    def test_all_rows_once(self, data_file: Path) -> None:
        assert sorted(answers(prepared([str(data_file)]).train)) == sorted(
            row["response"] for row in rows(20)
        )

    def test_count_samples_without_replacement_and_is_repeatable(self, data_file: Path) -> None:
        spec = [f"{data_file}#7"]
        first = answers(prepared(spec).train)
        assert len(first) == len(set(first)) == 7
        assert answers(prepared(spec).train) == first
        assert answers(prepared(spec, seed=1).train) != first
        assert answers(prepared(spec, seed=1, data_seed=42).train) == first

    def test_count_above_the_size_tiles(self, data_file: Path) -> None:
        train = answers(prepared([f"{data_file}#50"]).train)
        assert len(train) == 50
        assert {train.count(answer) for answer in set(train)} == {2, 3}

    def test_without_shuffle_the_first_in_order(self, data_file: Path) -> None:
        train = answers(prepared([f"{data_file}#3"], dataset_shuffle=False).train)
        assert train == ["answer 0", "answer 1", "answer 2"]

    def test_several_data_sets_are_put_together(self, data_file: Path) -> None:
        assert len(prepared([f"{data_file}#3", rows(4)]).train) == 7

    def test_split_never_overlaps_even_when_tiled(self, data_file: Path) -> None:
        result = prepared([f"{data_file}#60"], split_dataset_ratio=0.2)
        assert len(result.val) == 4 and len(result.train) == 56
        assert not set(answers(result.train)) & set(answers(result.val))

    def test_split_gives_at_least_one_row(self, data_file: Path) -> None:
        result = prepared([str(data_file)], split_dataset_ratio=0.001)
        assert (len(result.train), len(result.val)) == (19, 1)

    def test_own_validation_set_wins_over_the_split(self, data_file: Path) -> None:
        result = prepared(
            [rows(5, "x {}")], val_dataset=[f"{data_file}#2"], split_dataset_ratio=0.5
        )
        assert len(result.train) == 5
        assert answers(result.val) == ["answer 0", "answer 1"]

    def test_bare_rows_and_single_values_are_one_data_set(self, data_file: Path) -> None:
        assert len(prepared(rows(3)).train) == 3
        assert len(prepared(str(data_file)).train) == 20
        pandas = pytest.importorskip("pandas")
        frame = pandas.DataFrame(rows(4))
        assert len(prepared(frame, val_dataset=frame).val) == 4

    def test_columns(self) -> None:
        train = prepared([[{"q": "x", "a": "y"}]], columns={"q": "query", "a": "response"}).train
        assert answers(train) == ["y"]


class TestBadInput:
    def test_row_without_answer_is_named_with_file_and_line_and_counted(
        self, data_file: Path
    ) -> None:
        with data_file.open("a", encoding="utf-8") as stream:
            stream.write('{"messages": [{"role": "user", "content": "q"}]}\n')
        result = prepared([str(data_file)])
        assert len(result.train) == 20 and result.rows_bad == 1 and result.rows_read == 21
        assert result.notices[0].startswith("1 of 21 rows")
        assert f"{data_file}, line 21: there is no assistant turn" in result.notices[1]
        with pytest.raises(UserError, match="line 21"):
            prepared([str(data_file)], strict=True)

    def test_max_length_shorter_than_every_row(self) -> None:
        shortest = min(len(row) for row in prepared(rows(20)).train)
        with pytest.raises(UserError, match="Every row is longer") as error:
            prepared(rows(20), max_length=3)
        assert str(shortest) in error.value.why
        assert f"--max_length {shortest}" in error.value.next_step
        assert prepared(rows(20), max_length=shortest).train

    def test_some_rows_too_long_are_counted(self) -> None:
        result = prepared([*rows(3), {"query": "q", "response": "long " * 300}], max_length=200)
        assert len(result.train) == 3 and result.rows_too_long == 1
        assert result.notices[0].startswith("Rows longer than 200 tokens, left out: 1.")

    def test_truncation_is_said(self) -> None:
        result = prepared(
            [{"query": "q", "response": "long " * 300}],
            max_length=100,
            truncation_strategy="right",
        )
        assert len(result.train[0]) == 100 and result.rows_truncated == 1
        assert "cut to 100 tokens: 1" in result.notices[0]

    def test_truncation_that_leaves_no_answer(self) -> None:
        with pytest.raises(UserError, match="no row has an answer left"):
            prepared(rows(2), max_length=3, truncation_strategy="right")

    def test_row_without_question_is_said(self) -> None:
        assert prepared([[{"text": "once"}]]).notices[0].startswith("Rows without a question")

    @pytest.mark.parametrize(
        ("options", "words"),
        [
            ({"dataset": []}, "There is no dataset"),
            ({"dataset": [[]]}, "is empty"),
            ({"dataset": rows(2), "split_dataset_ratio": 1.0}, "below 1"),
            ({"dataset": rows(1), "split_dataset_ratio": 0.1}, "too small to be split"),
            ({"dataset": ["nowhere.jsonl"]}, "no file or folder"),
            ({"dataset": rows(2), "truncation_strategy": "up"}, "truncation_strategy"),
            ({"dataset": rows(2), "max_length": 0}, "at least 1"),
            ({"dataset": rows(2), "system": "nowhere.txt"}, "system text"),
            ({"dataset": [5]}, "type int cannot be used"),
        ],
    )
    def test_options_that_cannot_work(self, options: Any, words: str) -> None:
        with pytest.raises(UserError, match=words):
            prepare(DataOptions(**options), TOKENIZER)

    def test_base_model_is_refused_before_anything_is_read(self) -> None:
        with pytest.raises(UserError, match="no chat template"):
            prepare(DataOptions(dataset=["nowhere.jsonl"]), ct.fast_tokenizer(None))


class TestOptions:
    def test_system_from_a_text_file_and_with_escaped_line_end(self, tmp_path: Path) -> None:
        file = tmp_path / "system.txt"
        file.write_text("Be brief.\n", encoding="utf-8")
        for system, expected in [(str(file), "Be brief."), ("One\\nTwo", "One\nTwo")]:
            row = prepared(rows(1), system=system).train[0]
            assert f"system\n{expected}<|im_end|>" in TOKENIZER.decode(row.input_ids)

    @pytest.mark.parametrize(
        ("option", "model", "own", "limit"),
        [(50, 100, 70, 50), (None, 100, 70, 100), (None, None, 70, 70), (None, None, None, None)],
    )
    def test_max_length_is_the_option_or_the_model_s(
        self, option: Any, model: Any, own: Any, limit: Any
    ) -> None:
        tokenizer = ct.fast_tokenizer(ct.CHATML, model_max_length=own)
        result = prepare(DataOptions(dataset=rows(1), max_length=option), tokenizer, model)
        assert result.max_length == limit

    def test_summary_is_plain(self, data_file: Path) -> None:
        summary = prepared([f"{data_file}#5"]).to_dict()
        assert json.loads(json.dumps(summary)) == summary
        assert (
            summary["train_rows"] == 5 and 0 < summary["trained_tokens"] < summary["train_tokens"]
        )

    def test_progress_and_stop(self) -> None:
        seen = []
        prepare(DataOptions(dataset=rows(200)), TOKENIZER, progress=lambda *now: seen.append(now))
        assert seen[-1] == (200, 200)
        with pytest.raises(Interrupted):
            prepare(DataOptions(dataset=rows(5)), TOKENIZER, should_stop=lambda: True)


def test_import_is_light() -> None:
    code = (
        "import sys, swift_jupyter.engine.data\n"
        "heavy = {'torch', 'transformers', 'datasets', 'modelscope', 'huggingface_hub', 'pandas',"
        " 'jinja2', 'pyarrow', 'IPython'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
