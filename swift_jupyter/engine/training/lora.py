"""LoRA through peft."""

from __future__ import annotations

from typing import TYPE_CHECKING

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
        return get_peft_model(  # type: ignore[no-any-return]
            model,
            LoraConfig(
                task_type="CAUSAL_LM",
                r=options.lora_rank,
                lora_alpha=options.lora_alpha,
                lora_dropout=options.lora_dropout,
                bias=options.lora_bias,
                use_rslora=options.use_rslora,
                use_dora=options.use_dora,
                target_modules=targets,
                modules_to_save=options.modules_to_save or None,
            ),
        )
    except ValueError as error:
        raise UserError(
            _("LoRA cannot be applied with these options."),
            str(error).splitlines()[0],
            _("Check --target_modules, --modules_to_save and --lora_rank."),
        ) from error
