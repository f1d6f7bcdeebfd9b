"""Tiny random models in the layout of a hub's snapshot, made in a moment."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from chat_tokenizers import CHATML, fast_tokenizer


def build_tiny_model(
    folder: Path,
    hidden: int = 32,
    layers: int = 2,
    seed: int = 0,
    template: str | None = CHATML,
    positions: int = 512,
    tied: bool = True,
    family: str = "llama",
) -> Path:
    """Save a random model with a byte-level tokenizer, and return its folder.

    Parameters
    ----------
    folder : Path
        Where the model goes; made when absent.
    hidden, layers : int
        The width, a multiple of 16, and the depth.
    seed : int
        Decides the weights.
    template : str or None
        The chat template.
    positions : int
        How many tokens the model can take.
    tied : bool
        Whether the output layer shares the embedding's weights.
    family : str
        ``llama``, or ``qwen2``, which has biases.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    tokenizer = fast_tokenizer(template)
    config = AutoConfig.for_model(
        family,
        vocab_size=len(tokenizer),
        hidden_size=hidden,
        intermediate_size=2 * hidden,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=positions,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.convert_tokens_to_ids("<|im_end|>"),
        pad_token_id=tokenizer.pad_token_id,
        tie_word_embeddings=tied,
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_config(config).to(torch.float32)
    folder.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def write_rows(path: Path, count: int = 32) -> Path:
    """Write `count` short conversations of different lengths as JSON lines."""
    names = ("Bo", "Ada", "小燕", "Lin", "Zoe")
    with path.open("w", encoding="utf-8") as stream:
        for number in range(count):
            row: dict[str, Any] = {
                "query": f"What is your name? {number}" + " Hello there." * (number % 5),
                "response": f"My name is {names[number % len(names)]}, number {number}.",
            }
            stream.write(json.dumps(row, ensure_ascii=False) + "\n")
    return path


def build_adapter(
    folder: Path, base: Path, seed: int = 0, target_modules: str | list[str] = "all-linear"
) -> Path:
    """Save a LoRA adapter with random weights, which change the answers, and return its folder.

    Parameters
    ----------
    folder : Path
        Where the adapter goes.
    base : Path
        The model it belongs to.
    seed : int
        Decides the weights.
    target_modules : str or list of str
        As in `peft.LoraConfig`.
    """
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    with torch.random.fork_rng():
        torch.manual_seed(seed)
        config = LoraConfig(
            task_type="CAUSAL_LM",
            r=4,
            lora_alpha=8,
            target_modules=target_modules,
            init_lora_weights=False,
        )
        get_peft_model(AutoModelForCausalLM.from_pretrained(base), config).save_pretrained(folder)
    return folder
