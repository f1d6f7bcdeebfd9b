"""Options of tuners that contradict each other, found before anything heavy is loaded."""

from __future__ import annotations

import re

from swift_jupyter.engine.training.tuners.layer_spec import check_layer_spec
from swift_jupyter.engine.training.tuners.options import TunerOptions
from swift_jupyter.engine.training.tuners.peft_tuners import LORA, PEFT_TUNERS
from swift_jupyter.engine.training.tuners.positions import Positions
from swift_jupyter.errors import OptionError
from swift_jupyter.i18n import translate as _

_INIT = re.compile(r"true|false|gaussian|orthogonal|pissa|pissa_niter_[1-9]\d*|olora", re.I)
_ONLY_LORA = ("use_dora", "use_rslora", "lorap_lr_ratio", "init_weights")
_ONLY_FULL = (
    "freeze_parameters",
    "freeze_parameters_regex",
    "freeze_parameters_ratio",
    "trainable_parameters",
    "trainable_parameters_regex",
)
# Options that must be above zero.
TUNER_RANGES = (
    "lora_rank",
    "lora_alpha",
    "lorap_lr_ratio",
    "adalora_target_r",
    "adalora_init_r",
    "adalora_deltaT",
    "vera_rank",
    "fourier_n_frequency",
    "num_virtual_tokens",
    "reft_rank",
)
_ONLY_ADAPTERS = ("modules_to_save", "target_regex", "target_modules", "tuner_args")


def check_tuner_options(options: TunerOptions) -> None:
    """Refuse options that the chosen tuner would silently leave aside, and broken ones.

    Raises
    ------
    OptionError
        For the first that does not fit.
    """
    kind = PEFT_TUNERS.get(options.tuner_type)
    if kind is not LORA:
        _refuse(options, _ONLY_LORA, "lora")
    if options.tuner_type not in ("full", "freeze"):
        _refuse(options, _ONLY_FULL, "full")
    if kind is None:
        _refuse(options, _ONLY_ADAPTERS, "lora")
    if options.tuner_type == "freeze" and not _given(options, (*_ONLY_FULL, "target_layers")):
        raise OptionError(
            _("freeze needs to know what to freeze."),
            _("It trains the rest of the model."),
            _("For example: --target_layers=-4: or --freeze_parameters_ratio 0.8"),
        )
    if not 0 <= options.freeze_parameters_ratio < 1:
        raise OptionError(
            _("freeze_parameters_ratio must be at least 0 and below 1, not {value}.",
              value=options.freeze_parameters_ratio)
        )  # fmt: skip
    if options.tuner_backend == "unsloth":
        _check_unsloth(options)
    if not _INIT.fullmatch(options.init_weights):
        raise OptionError(
            _("init_weights cannot be '{value}'.", value=options.init_weights),
            next_step=_(
                "It is one of {choices}.",
                choices="true, false, gaussian, orthogonal, pissa, pissa_niter_16, olora",
            ),
        )
    if options.tuner_type == "adalora" and options.adalora_target_r >= options.adalora_init_r:
        raise OptionError(
            _("adalora_target_r must be below adalora_init_r, {rank}.",
              rank=options.adalora_init_r),
            next_step=_("For example: --adalora_init_r 12 --adalora_target_r 8"),
        )  # fmt: skip
    check_layer_spec(options.target_layers)
    check_layer_spec(options.reft_layers, "reft_layers")
    Positions.parse(options.reft_positions)


def _check_unsloth(options: TunerOptions) -> None:
    if options.tuner_type not in ("lora", "rslora", "lora+"):
        raise OptionError(
            _("Unsloth trains LoRA only, not {tuner}.", tuner=options.tuner_type),
            next_step=_("Leave out --tuner_backend unsloth, or use --tuner_type lora."),
        )
    for name in _given(options, ("use_dora", "init_weights", "tuner_args")):
        raise OptionError(
            _("Unsloth has no option {name}.", name=name),
            next_step=_("Leave it out, or leave out --tuner_backend unsloth."),
        )


def check_quantised_tuner(options: TunerOptions, bits: int, device: str | None = None) -> None:
    """Refuse tuners that cannot sit on weights of few bits.

    Parameters
    ----------
    options : TunerOptions
        The options.
    bits : int
        4 or 8.
    device : str, optional
        What will be trained on, where that is known.

    Raises
    ------
    OptionError
        Names one that can.
    """
    kind = PEFT_TUNERS.get(options.tuner_type)
    if options.tuner_type != "reft" and not (kind is not None and kind.on_few_bits):
        raise OptionError(
            _("{tuner} cannot train on weights of few bits.", tuner=options.tuner_type),
            next_step=_("Leave out --quant_method, or use --tuner_type lora (QLoRA)."),
        )
    splitting = ("pissa", "olora")
    if options.tuner_type in splitting or options.init_weights.lower().startswith(splitting):
        raise OptionError(
            _("PiSSA and OLoRA split the base's weights, which must be whole for that."),
            next_step=_("Leave out --quant_method, or use --tuner_type lora."),
        )
    if bits == 8 and device == "cpu" and (options.use_dora or options.tuner_type == "dora"):
        raise OptionError(
            _("DoRA needs the norms of the base's weights, which 8 bits do not give on a CPU."),
            next_step=_("Use --quant_bits 4, or leave DoRA out."),
        )


def _given(options: TunerOptions, names: tuple[str, ...]) -> list[str]:
    """Return which of the options differ from their defaults."""
    default = TunerOptions()
    return [name for name in names if getattr(options, name) != getattr(default, name)]


def _refuse(options: TunerOptions, names: tuple[str, ...], owner: str) -> None:
    for name in _given(options, names):
        raise OptionError(
            _("{tuner} has no option {name}.", tuner=options.tuner_type, name=name),
            _("It belongs to --tuner_type {owner}.", owner=owner),
            _("Leave it out, or choose that tuner."),
        )
