"""Data sets of the hubs, pulled from a server that speaks both hubs' protocols."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from fake_hub import FakeHub, free_dead_url

from swift_jupyter.engine.data import parse_spec
from swift_jupyter.engine.data.sources import load_rows
from swift_jupyter.errors import UserError
from swift_jupyter.settings import Settings

ROWS = [{"query": f"q{n}", "response": f"a{n}"} for n in range(3)]


def parquet(rows: Any) -> bytes:
    pyarrow = pytest.importorskip("pyarrow")
    written = pytest.importorskip("pyarrow.parquet")

    buffer = io.BytesIO()
    written.write_table(pyarrow.Table.from_pylist(rows), buffer)
    return buffer.getvalue()


FILES = {
    "README.md": b"# data",
    "data/train-00000-of-00001.parquet": parquet(ROWS),
    "data/test-00000-of-00001.parquet": parquet(ROWS[:1]),
    "extra/more.jsonl": json.dumps(ROWS[0]).encode(),
}


@pytest.fixture
def hub() -> Any:
    with FakeHub({("dataset", "owner/chat"): FILES}) as server:
        yield server


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hub: Any) -> Any:
    for name in ("MODELSCOPE_API_TOKEN", "HF_TOKEN", "MS_CACHE_HOME", "MODELSCOPE_DOMAIN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("MODELSCOPE_CACHE", str(tmp_path / "ms"))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hf" / "hub"))
    monkeypatch.setenv("MODELSCOPE_ENDPOINT", hub.url)
    monkeypatch.setenv("HF_ENDPOINT", hub.url)
    return Settings(cache_dir=str(tmp_path / "own"))


@pytest.mark.parametrize("prefix", ["", "ms::", "hf::"])
def test_training_split_of_a_hub_dataset(prefix: str, settings: Any) -> None:
    # Given a data set with a training and a test split at both hubs
    reports: list[Any] = []
    # When it is read by its id
    rows = load_rows(parse_spec(f"{prefix}owner/chat:data"), settings, reports.append)
    # Then only the training rows are there, and they know where they are from
    assert [row.content for row in rows] == ROWS
    assert str(rows[2].origin) == "owner/chat/data/train-00000-of-00001.parquet, row 3"
    assert reports


def test_second_reading_needs_no_hub(settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    first = load_rows(parse_spec("owner/chat"), settings)
    dead = free_dead_url()
    monkeypatch.setenv("MODELSCOPE_ENDPOINT", dead)
    monkeypatch.setenv("HF_ENDPOINT", dead)
    assert load_rows(parse_spec("owner/chat"), settings) == first


def test_unknown_dataset_says_what_the_hubs_answered(settings: Any) -> None:
    with pytest.raises(UserError, match="owner/missing"):
        load_rows(parse_spec("owner/missing"), settings)
