"""The same data are encoded once; anything that matters and changes is noticed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import chat_tokenizers as ct
import pytest

from swift_jupyter.engine.data import DataOptions, PreparedData, prepare
from swift_jupyter.engine.data.encoded_cache import LEAST_ROWS
from swift_jupyter.settings import Settings


def row(number: int) -> dict[str, Any]:
    return {"query": f"question {number}", "response": f"answer {number}"}


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(cache_dir=str(tmp_path / "cache"))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "rows.jsonl"
    lines = [json.dumps(row(n)) for n in range(LEAST_ROWS + 20)] + ['{"query": 3}']
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


@pytest.fixture
def tokenizer(tmp_path: Path) -> Any:
    ct.fast_tokenizer(ct.CHATML).save_pretrained(tmp_path / "model")
    return load(tmp_path / "model")


def load(folder: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(folder)


def prepared(file: Path, tokenizer: Any, settings: Settings, **options: Any) -> PreparedData:
    return prepare(DataOptions(dataset=[str(file)], **options), tokenizer, 512, settings=settings)


def test_the_second_start_reads_what_the_first_encoded(
    file: Path, tokenizer: Any, settings: Settings
) -> None:
    """Given encoded data, when prepared again, then rows, numbers and rejects are the same."""
    first = prepared(file, tokenizer, settings, split_dataset_ratio=0.1)
    second = prepared(file, tokenizer, settings, split_dataset_ratio=0.1)

    assert (first.from_cache, second.from_cache) == (False, True)
    assert second.train == first.train and second.val == first.val
    assert second.rejects == first.rejects and len(second.rejects) == 1
    assert second.rejects[0].content == {"query": 3}
    assert {**second.to_dict(), "from_cache": False} == first.to_dict()


def test_whatever_matters_makes_a_new_entry(
    file: Path, tokenizer: Any, settings: Settings, tmp_path: Path
) -> None:
    """Given encoded data, when file, option or tokenizer change, then they are encoded."""
    prepared(file, tokenizer, settings)
    assert not prepared(file, tokenizer, settings, seed=7).from_cache
    assert not prepared(file, tokenizer, settings, system="Be brief.").from_cache
    assert not prepared(file, tokenizer, settings, chat_template=ct.HEADERS).from_cache

    ct.fast_tokenizer(ct.HEADERS).save_pretrained(tmp_path / "model")
    assert not prepared(file, load(tmp_path / "model"), settings).from_cache
    file.write_text(file.read_text().replace("answer 5", "answer x"))
    assert not prepared(file, tokenizer, settings).from_cache


def test_a_damaged_entry_is_made_again(file: Path, tokenizer: Any, settings: Settings) -> None:
    """Given an entry with a cut file, when prepared again, then the rows are right."""
    first = prepared(file, tokenizer, settings)
    (stored,) = (settings.cache_path / "encoded").glob("*/tokens.npy")
    stored.write_bytes(stored.read_bytes()[:200])

    again = prepared(file, tokenizer, settings)
    assert not again.from_cache and again.train == first.train
    assert prepared(file, tokenizer, settings).from_cache


def test_few_rows_and_objects_leave_nothing(
    tokenizer: Any, settings: Settings, tmp_path: Path
) -> None:
    """Given few rows, or rows as objects, when prepared, then the cache stays empty."""
    small = tmp_path / "small.jsonl"
    small.write_text(json.dumps(row(1)))
    prepared(small, tokenizer, settings)
    rows = [row(n) for n in range(LEAST_ROWS + 1)]
    prepare(DataOptions(dataset=[rows]), tokenizer, 512, settings=settings)

    assert not (settings.cache_path / "encoded").exists()
