"""Whether a folder holds all that loading it needs. Only looks at names and sizes."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from swift_jupyter.hub.listing import RemoteFile

PARTIAL_SUFFIXES = (".incomplete", ".part", ".parallel_tmp")
_SINGLE_WEIGHTS = ("model.safetensors", "pytorch_model.bin", "model.bin")
_INDEXES = ("model.safetensors.index.json", "pytorch_model.bin.index.json")
_PROCESSORS = (
    *("tokenizer.json", "tokenizer_config.json", "tokenizer.model", "vocab.json", "vocab.txt"),
    *("preprocessor_config.json", "processor_config.json"),
)
_ADAPTER_WEIGHTS = ("adapter_model.safetensors", "adapter_model.bin")


def missing_from_model(folder: Path) -> str | None:
    """Return the name of a file that the model in `folder` lacks, or None.

    A model has ``config.json`` and its weights: one file, every shard of an
    index, or a GGUF file. An adapter has its own two files.
    """
    if _is_file(folder / "adapter_config.json"):
        found = any(_is_file(folder / name) for name in _ADAPTER_WEIGHTS)
        if found or not _is_file(folder / "config.json"):
            return None if found else _ADAPTER_WEIGHTS[0]
    if not _is_file(folder / "config.json"):
        return "config.json"
    for name in _INDEXES:
        if (folder / name).exists():
            return _missing_shard(folder, name)
    if any(_is_file(folder / name) for name in _SINGLE_WEIGHTS):
        return None
    others = (*folder.glob("*.safetensors"), *folder.glob("*.bin"), *folder.glob("*.gguf"))
    # A shard without the index cannot be told from a part of the weights.
    if any(_is_file(path) and "-of-" not in path.name for path in others):
        return None
    return _SINGLE_WEIGHTS[0]


def missing_processor(folder: Path) -> str | None:
    """Return ``tokenizer.json`` when a model has nothing to prepare its input with.

    Code that loads the weights alone leaves such folders in the caches.
    """
    if _is_file(folder / "adapter_config.json") or any(folder.glob("*.gguf")):
        return None
    found = any(_is_file(folder / name) for name in _PROCESSORS) or any(folder.glob("*.tiktoken"))
    return None if found else _PROCESSORS[0]


def missing_from_listing(folder: Path, files: Iterable[RemoteFile]) -> str | None:
    """Return the first of `files` that is absent from `folder` or has another size."""
    for file in files:
        try:
            size = (folder / file.path).stat().st_size
        except OSError:
            return file.path
        if file.size is not None and size != file.size:
            return file.path
    return None


def has_partial_files(folder: Path) -> bool:
    """Tell whether a transfer into `folder` is under way or was broken off."""
    return any(path.name.endswith(PARTIAL_SUFFIXES) for path in folder.rglob("*"))


def _missing_shard(folder: Path, index: str) -> str | None:
    try:
        shards = set(
            json.loads((folder / index).read_text(encoding="utf-8"))["weight_map"].values()
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return index
    if not shards:
        return index
    return next((name for name in sorted(map(str, shards)) if not _is_file(folder / name)), None)


def _is_file(path: Path) -> bool:
    try:
        return path.is_file() and path.stat().st_size > 0
    except OSError:
        return False
