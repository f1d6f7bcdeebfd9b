"""PiSSA and OLoRA: ways to begin that change the base, undone in what is saved.

They split a weight W into a rest and a product B0 A0 of its main directions, and train
from there. The base on the disk has no rest, so what is saved is the change against it:
B A - B0 A0, which is LoRA of twice the rank (Meng et al., "PiSSA", 2024, appendix).
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

_KINDS = ("pissa", "olora")


class MutatingInit:
    """The matrices that a training began with.

    Parameters
    ----------
    model : PeftModel
        Just wrapped.
    """

    def __init__(self, model: Any) -> None:
        from peft import get_peft_model_state_dict

        self._start: dict[str, Tensor] = {
            name: tensor.detach().cpu().clone()
            for name, tensor in get_peft_model_state_dict(model).items()
            if "lora_A" in name or "lora_B" in name
        }

    @staticmethod
    def concerns(init: str) -> bool:
        """Tell whether this way to begin changes the base."""
        return init.startswith(_KINDS)

    def rewrite(self, folder: Path) -> None:
        """Turn a saved adapter into one for the unchanged base."""
        from safetensors.torch import load_file, save_file

        weights = folder / "adapter_model.safetensors"
        state = load_file(weights)
        for name, start in self._start.items():
            if "lora_A" in name:
                state[name] = torch.cat([state[name], start.to(state[name].dtype)], dim=0)
            else:
                state[name] = torch.cat([state[name], -start.to(state[name].dtype)], dim=1)
        save_file(
            {name: tensor.contiguous() for name, tensor in state.items()},
            weights,
            metadata={"format": "pt"},
        )
        path = folder / "adapter_config.json"
        config = json.loads(path.read_text(encoding="utf-8"))
        # The scale, alpha over the rank or its root, stays.
        growth = math.sqrt(2) if config.get("use_rslora") else 2
        config["init_lora_weights"] = True
        config["r"] *= 2
        config["lora_alpha"] *= growth
        for key, factor in (("rank_pattern", 2), ("alpha_pattern", growth)):
            config[key] = {name: value * factor for name, value in (config.get(key) or {}).items()}
        path.write_text(json.dumps(config, indent=2, ensure_ascii=False), encoding="utf-8")
