"""LoRA with Unsloth's kernels, on CUDA GPUs that have its package."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from swift_jupyter.engine.training.tuners.adapters import AdapterTuner, with_flavour
from swift_jupyter.engine.training.tuners.options import TunerOptions
from swift_jupyter.engine.training.tuners.targets import choose_targets

if TYPE_CHECKING:
    import torch
    from peft import PeftModel
    from transformers import PreTrainedModel


def import_unsloth() -> None:
    """Import it before transformers, as it asks to be."""
    importlib.import_module("unsloth")


def load_for_unsloth(
    folder: Path, dtype: torch.dtype, bits: int | None, max_length: int | None
) -> PreTrainedModel:
    """Load a base so that Unsloth's kernels run it.

    Parameters
    ----------
    folder : Path
        The model's folder.
    dtype : torch.dtype
        The data type of the weights.
    bits : int or None
        4 or 8 for QLoRA.
    max_length : int or None
        The longest row, in tokens.
    """
    unsloth: Any = importlib.import_module("unsloth")
    model, _tokenizer = unsloth.FastLanguageModel.from_pretrained(
        model_name=str(folder),
        max_seq_length=max_length or 2048,
        dtype=dtype,
        load_in_4bit=bits == 4,
        load_in_8bit=bits == 8,
    )
    loaded: PreTrainedModel = model
    return loaded


class UnslothTuner(AdapterTuner):
    """LoRA as Unsloth applies it.

    Parameters
    ----------
    options : TunerOptions
        As for LoRA; ``checks`` refuses what Unsloth does not know.
    seed : int
        Decides the first matrices.
    checkpointing : bool or None
        Whether activations are computed twice, by Unsloth's own way.
    """

    # Its forward has a signature of its own for which logits are wanted.
    takes_positions = False

    def __init__(self, options: TunerOptions, seed: int, checkpointing: bool | None) -> None:
        super().__init__(options)
        self._chosen = with_flavour(options)
        self._seed = seed
        self._twice = checkpointing

    def prepare(self, model: PreTrainedModel) -> PeftModel:
        """Wrap the model with LoRA."""
        unsloth: Any = importlib.import_module("unsloth")
        options = self._chosen
        wrapped: PeftModel = unsloth.FastLanguageModel.get_peft_model(
            model,
            r=options.lora_rank,
            lora_alpha=options.lora_alpha,
            lora_dropout=options.lora_dropout,
            bias=options.lora_bias,
            use_rslora=options.use_rslora,
            target_modules=choose_targets(model, options, "linear"),
            modules_to_save=list(options.modules_to_save) or None,
            use_gradient_checkpointing="unsloth" if self._twice else False,
            random_state=self._seed,
        )
        return wrapped
