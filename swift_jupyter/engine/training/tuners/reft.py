"""ReFT: training interventions on hidden states, saving them and loading them again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from swift_jupyter.engine.training.tuners.interventions import (
    FORMS,
    InterventionModel,
)
from swift_jupyter.engine.training.tuners.layer_spec import select_layers
from swift_jupyter.engine.training.tuners.layers import decoder_layers
from swift_jupyter.engine.training.tuners.options import TunerOptions
from swift_jupyter.engine.training.tuners.positions import Positions
from swift_jupyter.engine.training.tuners.protocol import PlainTuner
from swift_jupyter.errors import UserError
from swift_jupyter.files import write_json_atomically
from swift_jupyter.i18n import translate as _

CONFIG_FILE = "reft_config.json"
WEIGHTS_FILE = "reft_model.safetensors"
_IGNORED = -100
# So many batches without a single prompt are no accident.
_PATIENCE = 8


class ReftTuner(PlainTuner):
    """LoReFT and its variants.

    Parameters
    ----------
    options : TunerOptions
        ``reft_*``.
    """

    rate = 5.0
    packable = False

    def __init__(self, options: TunerOptions) -> None:
        self._options = options
        self._batches = 0
        self._with_prompt = 0

    def prepare(self, model: PreTrainedModel) -> nn.Module:
        """Freeze the model and add an intervention behind each chosen layer."""
        options = self._options
        _path, layers = decoder_layers(model)
        parts = options.reft_layers or options.target_layers
        config = {
            "intervention": options.reft_intervention_type,
            "rank": options.reft_rank,
            "positions": options.reft_positions,
            "layers": select_layers(parts, len(layers), "reft_layers"),
            "base_layers": len(layers),
            "hidden_size": model.config.get_text_config().hidden_size,
        }
        if options.reft_rank > config["hidden_size"]:
            raise UserError(
                _("reft_rank {rank} is above the model's width.", rank=options.reft_rank),
                next_step=_("Choose at most {width}.", width=config["hidden_size"]),
            )
        model.requires_grad_(False)
        return _with_interventions(model, config)

    def inputs(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Say which tokens are the prompt: those before the last answer begins."""
        mask = prompt_mask(batch["labels"], batch["attention_mask"])
        self._batches += 1
        self._with_prompt += bool(mask.any())
        if self._batches >= _PATIENCE and not self._with_prompt:
            raise UserError(
                _("ReFT changes prompts, and these rows have none."),
                _("Their first tokens are trained already."),
                _("Use rows with questions and answers, or another --tuner_type."),
            )
        return {**batch, "prompt_mask": mask}

    def penalty(self, model: nn.Module) -> Tensor | None:
        """Keep a batch without prompts differentiable."""
        inner: Any = model
        return 0.0 * torch.stack([p.sum() for p in inner.interventions.parameters()]).sum()

    def save(self, model: nn.Module, folder: Path, state: dict[str, Tensor] | None) -> None:
        """Write the interventions and what they belong to."""
        from safetensors.torch import save_file

        inner: Any = model
        weights = {
            name: tensor.detach().cpu().contiguous()
            for name, tensor in inner.interventions.state_dict().items()
        }
        save_file(weights, folder / WEIGHTS_FILE, metadata={"format": "pt"})
        write_json_atomically(folder / CONFIG_FILE, inner.reft_config)

    def load(self, model: nn.Module, folder: Path) -> bool:
        """Read the interventions."""
        _read_weights(model, folder)
        return True


def prompt_mask(labels: Tensor, attended: Tensor) -> Tensor:
    """Return which tokens come before the last run of labels; (batch, length).

    That is what the model has read when it begins to answer in a conversation.
    """
    labelled = labels != _IGNORED
    before = nn.functional.pad(labelled[:, :-1], (1, 0), value=False)
    starts = labelled & ~before
    places = torch.arange(labels.shape[1], device=labels.device)
    last_start = torch.where(starts, places, -1).amax(dim=1, keepdim=True)
    # Without labels there is nothing to answer, and the whole row is prompt.
    last_start = torch.where(last_start < 0, labels.shape[1], last_start)
    return attended.bool() & (places < last_start)


def load_reft(model: Any, folder: Path) -> InterventionModel:
    """Put saved interventions on a model, in evaluation mode.

    Raises
    ------
    ValueError
        When they belong to a model of another shape.
    """
    config = json.loads((folder / CONFIG_FILE).read_text(encoding="utf-8"))
    _path, layers = decoder_layers(model)
    width = model.config.get_text_config().hidden_size
    if (len(layers), width) != (config["base_layers"], config["hidden_size"]):
        raise ValueError(
            _(
                "it belongs to a model of {layers} layers of width {width}",
                layers=config["base_layers"],
                width=config["hidden_size"],
            )
        )
    wrapped = _with_interventions(model, config)
    try:
        _read_weights(wrapped, folder)
    except Exception:
        wrapped.unload()
        raise
    wrapped.eval()
    return wrapped


def _with_interventions(model: Any, config: dict[str, Any]) -> InterventionModel:
    _path, layers = decoder_layers(model)
    wrapped = InterventionModel(
        model,
        layers,
        config["layers"],
        config["hidden_size"],
        config["rank"],
        FORMS[config["intervention"]],
        Positions.parse(config["positions"]),
    )
    wrapped.reft_config = config
    return wrapped


def _read_weights(model: Any, folder: Path) -> None:
    from safetensors.torch import load_file

    model.interventions.load_state_dict(load_file(folder / WEIGHTS_FILE))
