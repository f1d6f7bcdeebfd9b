"""Turning a GGUF file into a folder that any Transformers code loads by its path."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from swift_jupyter.hub.transfer.channel import Channel

# What describes the loading that just happened, and would mislead the next one.
_TRANSIENT_TOKENIZER_KEYS = ("is_local", "local_files_only", "gguf_file", "name_or_path")


def run(job: Mapping[str, Any], channel: Channel) -> dict[str, Any]:
    """Convert ``job["gguf"]`` into the folder ``job["target"]``.

    The weights are dequantised exactly, into float32: a smaller type would
    round them a second time.
    """
    gguf, target = Path(job["gguf"]), Path(job["target"])
    channel.progress("converting", file="tokenizer")
    _convert_tokenizer(gguf, target)
    channel.progress("converting", file="weights")
    _convert_model(gguf, target, channel)
    channel.check()
    return {"path": str(target)}


def _convert_tokenizer(gguf: Path, target: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(str(gguf.parent), gguf_file=gguf.name)
    tokenizer.save_pretrained(str(target))


def _convert_model(gguf: Path, target: Path, channel: Channel) -> None:
    import torch
    from transformers import AutoModelForCausalLM, GgufConfig

    model = AutoModelForCausalLM.from_pretrained(
        str(gguf.parent),
        gguf_file=gguf.name,
        dtype=torch.float32,
        # Otherwise the weights stay packed, and packed weights cannot be saved.
        quantization_config=GgufConfig(dequantize=True),
    )
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    channel.progress("converting", file="model.safetensors")
    model.save_pretrained(str(target))
    _mend_tokenizer_config(target, model.config.max_position_embeddings)


def _mend_tokenizer_config(target: Path, context_length: int) -> None:
    path = target / "tokenizer_config.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    for key in _TRANSIENT_TOKENIZER_KEYS:
        content.pop(key, None)
    # GGUF keeps the length with the model only.
    content["model_max_length"] = context_length
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
