"""Whether a folder holds all that loading it needs. Only looks at names and sizes."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path

from swift_jupyter.hub.listing import RemoteFile

PARTIAL_SUFFIXES = (".incomplete", ".part", ".parallel_tmp")
_WEIGHT_SUFFIXES = (".safetensors", ".bin", ".gguf")
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
    return lacks_for_loading(_sizes(folder), str(folder))


def missing_processor(folder: Path) -> str | None:
    """Return ``tokenizer.json`` when a model has nothing to prepare its input with.

    Code that loads the weights alone leaves such folders in the caches.
    """
    return lacks_processor(_sizes(folder))


def lacks_for_loading(sizes: Mapping[str, int], folder: str) -> str | None:
    """Return what `missing_from_model` does, for a folder whose files were listed already.

    Parameters
    ----------
    sizes : mapping
        Bytes by path.
    folder : str
        Where the files are; only an index is read.
    """
    if sizes.get("adapter_config.json"):
        found = any(sizes.get(name) for name in _ADAPTER_WEIGHTS)
        if found or not sizes.get("config.json"):
            return None if found else _ADAPTER_WEIGHTS[0]
    if not sizes.get("config.json"):
        return "config.json"
    for name in _INDEXES:
        if name in sizes:
            return _missing_shard(sizes, folder, name)
    if any(sizes.get(name) for name in _SINGLE_WEIGHTS):
        return None
    # A shard without the index cannot be told from a part of the weights.
    if any(
        size and name.endswith(_WEIGHT_SUFFIXES) and "-of-" not in name and "/" not in name
        for name, size in sizes.items()
    ):
        return None
    return _SINGLE_WEIGHTS[0]


def lacks_processor(sizes: Mapping[str, int]) -> str | None:
    """Return what `missing_processor` does, for a folder whose files were listed already."""
    if sizes.get("adapter_config.json") or any(map(sizes.get, _PROCESSORS)):
        return None
    found = any(name.endswith((".gguf", ".tiktoken")) and "/" not in name for name in sizes)
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


def _missing_shard(sizes: Mapping[str, int], folder: str, index: str) -> str | None:
    try:
        text = Path(folder, index).read_text(encoding="utf-8")
        shards = set(json.loads(text)["weight_map"].values())
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return index
    if not shards:
        return index
    return next((name for name in sorted(map(str, shards)) if not sizes.get(name)), None)


def _sizes(folder: Path) -> dict[str, int]:
    """Return bytes by path for every file below `folder`, links to files followed."""
    sizes = {}
    for directory, _folders, names in os.walk(folder):
        below = os.path.relpath(directory, folder).replace(os.sep, "/")
        for name in names:
            try:
                size = os.stat(os.path.join(directory, name)).st_size
            except OSError:
                continue
            sizes[name if below == "." else f"{below}/{name}"] = size
    return sizes
