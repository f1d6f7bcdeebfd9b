"""LoRA through peft."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, cast

from swift_jupyter.engine.training.options import LoraOptions
from swift_jupyter.errors import UserError
from swift_jupyter.i18n import translate as _

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel


def add_lora(model: PreTrainedModel, options: LoraOptions) -> PeftModel:
    """Wrap `model` so that only low-rank matrices are trained.

    Raises
    ------
    UserError
        When peft cannot apply the options, for example for unknown module names.
    """
    from peft import LoraConfig, get_peft_model

    targets: str | list[str] = options.target_modules
    if options.target_modules == ["all-linear"]:
        targets = "all-linear"
    try:
        model_with_lora: PeftModel = get_peft_model(
            model,
            LoraConfig(
                task_type="CAUSAL_LM",
                r=options.lora_rank,
                lora_alpha=options.lora_alpha,
                lora_dropout=options.lora_dropout,
                bias=cast(Literal["none", "all"], options.lora_bias),
                use_rslora=options.use_rslora,
                use_dora=options.use_dora,
                target_modules=targets,
                modules_to_save=options.modules_to_save or None,
            ),
        )
        return model_with_lora
    except ValueError as error:
        raise UserError(
            _("LoRA cannot be applied with these options."),
            str(error).splitlines()[0],
            _("Check --target_modules, --modules_to_save and --lora_rank."),
        ) from error
