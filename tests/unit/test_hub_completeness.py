"""When a folder counts as a complete model."""

import json
from pathlib import Path

import pytest

from swift_jupyter.hub.cache.completeness import (
    has_partial_files,
    missing_from_listing,
    missing_from_model,
)
from swift_jupyter.hub.listing import RemoteFile


def fill(folder: Path, *names: str) -> Path:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("{}")
    return folder


def index(folder: Path, *shards: str) -> None:
    content = {"weight_map": {f"layer{number}": shard for number, shard in enumerate(shards)}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("names", "missing"),
    [
        (["config.json", "model.safetensors"], None),
        (["config.json", "pytorch_model.bin"], None),
        (["config.json", "tiny.Q4_1.gguf"], None),
        (["config.json", "my-weights.safetensors"], None),
        (["adapter_config.json", "adapter_model.safetensors"], None),
        (["adapter_config.json"], "adapter_model.safetensors"),
        (["model.safetensors"], "config.json"),
        (["config.json", "tokenizer.json"], "model.safetensors"),
        (["config.json", "model-00001-of-00002.safetensors"], "model.safetensors"),
        ([], "config.json"),
    ],
)
def test_what_a_model_needs(tmp_path: Path, names: list[str], missing: str | None) -> None:
    assert missing_from_model(fill(tmp_path, *names)) == missing


def test_every_shard_of_the_index_is_needed(tmp_path: Path) -> None:
    shards = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
    fill(tmp_path, "config.json", shards[0])
    index(tmp_path, *shards)
    assert missing_from_model(tmp_path) == shards[1]
    fill(tmp_path, shards[1])
    assert missing_from_model(tmp_path) is None


@pytest.mark.parametrize(
    "content", ["", "[]", "{}", '{"weight_map": 3}', '{"weight_map": {}}', "\0"]
)
def test_a_broken_index_is_named(tmp_path: Path, content: str) -> None:
    fill(tmp_path, "config.json", "model.safetensors")
    (tmp_path / "model.safetensors.index.json").write_text(content)
    assert missing_from_model(tmp_path) == "model.safetensors.index.json"


def test_an_empty_or_dangling_weight_file_does_not_count(tmp_path: Path) -> None:
    fill(tmp_path, "config.json")
    (tmp_path / "model.safetensors").touch()
    assert missing_from_model(tmp_path) == "model.safetensors"
    (tmp_path / "model.safetensors").unlink()
    (tmp_path / "model.safetensors").symlink_to(tmp_path / "gone")
    assert missing_from_model(tmp_path) == "model.safetensors"


def test_listing_compares_sizes(tmp_path: Path) -> None:
    fill(tmp_path, "a", "b/c")
    files = [RemoteFile("a", 2), RemoteFile("b/c", 2)]
    assert missing_from_listing(tmp_path, files) is None
    assert missing_from_listing(tmp_path, [*files, RemoteFile("a", 3)]) == "a"
    assert missing_from_listing(tmp_path, [*files, RemoteFile("d")]) == "d"


def test_partial_files_are_found_at_any_depth(tmp_path: Path) -> None:
    assert not has_partial_files(fill(tmp_path, "a/b/c.json"))
    assert has_partial_files(fill(tmp_path, "a/b/c.json.incomplete"))
