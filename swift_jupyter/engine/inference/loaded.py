"""The models in memory: loaded once, used by cell after cell."""

from __future__ import annotations

import gc
from pathlib import Path

from swift_jupyter.engine.inference.chat_model import ChatModel
from swift_jupyter.engine.models.options import ModelOptions

_Key = tuple[Path, str | None, str | None]


def _key(folder: Path, options: ModelOptions) -> _Key:
    return folder, options.torch_dtype, options.attn_impl


class LoadedModels:
    """Chat models by folder and by how they were loaded."""

    def __init__(self) -> None:
        self._models: dict[_Key, ChatModel] = {}

    @property
    def names(self) -> list[str]:
        """What is in memory."""
        return [model.name for model in self._models.values()]

    def get(self, folder: Path, options: ModelOptions) -> ChatModel | None:
        """Return a model that is already in memory."""
        return self._models.get(_key(folder, options))

    def load(self, name: str, folder: Path, options: ModelOptions) -> ChatModel:
        """Return the model of a folder, loading it when it is not in memory.

        Raises
        ------
        UserError
            When the folder is broken.
        """
        model = self.get(folder, options)
        if model is None:
            model = load_chat_model(name, folder, options)
            self._models[_key(folder, options)] = model
        return model

    def unload(self, name: str | None = None) -> list[str]:
        """Free one model or all of them; return their names."""
        keys = [
            key
            for key, model in self._models.items()
            if name is None or name in (model.name, str(key[0]))
        ]
        names = [self._models.pop(key).name for key in keys]
        if names:
            release_memory()
        return names


def load_chat_model(name: str, folder: Path, options: ModelOptions) -> ChatModel:
    """Load a model and its tokenizer from a folder."""
    from swift_jupyter.engine.models.loading import choose_device, load_model, load_tokenizer

    tokenizer = load_tokenizer(folder, options.trust_remote_code)
    model = load_model(folder, options, choose_device())
    return ChatModel(name, folder, model, tokenizer)


def release_memory() -> None:
    """Give freed memory back to the device and the system."""
    import ctypes

    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    try:
        ctypes.CDLL("libc.so.6").malloc_trim(0)
    except (OSError, AttributeError):
        return  # Only glibc keeps freed memory back.
