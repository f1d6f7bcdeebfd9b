"""What AdaLoRA needs beside the step: its ranks allocated, its matrices kept orthogonal.

Zhang et al., "Adaptive Budget Allocation for Parameter-Efficient Fine-Tuning", 2023.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

_STATE_FILE = "adalora_importance.safetensors"
_PATTERN_FILE = "adalora_ranks.json"
_SUMS = ("ipt", "exp_avg_ipt", "exp_avg_unc")


class RankAllocation(TrainerCallback):
    """Lets peft's allocator see the gradients of each step and take ranks away."""

    def on_train_begin(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        model: Any = None,
        **kwargs: Any,
    ) -> None:
        """Tell the allocator how many steps there really are."""
        _allocator(model).set_total_step(state.max_steps)
        _config(model).total_step = state.max_steps

    def on_optimizer_step(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        model: Any = None,
        **kwargs: Any,
    ) -> None:
        """Allocate, while the gradients are there."""
        trained = [p for n, p in model.named_parameters() if "lora_" in n and p.requires_grad]
        if all(parameter.grad is not None for parameter in trained):  # None of a step left out.
            model.base_model.update_and_allocate(state.global_step + 1)


def _allocator(model: Any) -> Any:
    return model.base_model.rankallocator


def _config(model: Any) -> Any:
    return model.peft_config[model.base_model.trainable_adapter_name]


def save_allocator(model: Any, folder: Path) -> None:
    """Write the allocator's sums and the ranks that stay."""
    from safetensors.torch import save_file

    allocator = _allocator(model)
    sums = {
        f"{kind}|{name}": tensor.cpu().contiguous()
        for kind in _SUMS
        for name, tensor in getattr(allocator, kind).items()
    }
    save_file(sums, folder / _STATE_FILE, metadata={"format": "pt"})
    (folder / _PATTERN_FILE).write_text(json.dumps(_config(model).rank_pattern))


def load_allocator(model: Any, folder: Path) -> None:
    """Read what `save_allocator` wrote."""
    from safetensors.torch import load_file

    allocator = _allocator(model)
    parameters = dict(model.base_model.model.named_parameters())
    for key, tensor in load_file(folder / _STATE_FILE).items():
        kind, _bar, name = key.partition("|")
        getattr(allocator, kind)[name] = tensor.to(parameters[name].device)
    _config(model).rank_pattern = json.loads((folder / _PATTERN_FILE).read_text())


def orthogonality(model: nn.Module) -> Tensor | None:
    """Return the weighted mean distance of P P^T and Q^T Q from the identity, differentiable.

    peft adds it only to a loss that the model itself computes.
    """
    parts = []
    for name, matrix in model.named_parameters():
        if matrix.requires_grad and ("lora_A" in name or "lora_B" in name):
            gram = matrix @ matrix.T if "lora_A" in name else matrix.T @ matrix
            identity = torch.eye(len(gram), dtype=gram.dtype, device=gram.device)
            parts.append(torch.linalg.matrix_norm(gram - identity))
    weight = float(_config(model).orth_reg_weight)
    return weight * torch.stack(parts).mean() if parts and weight else None
