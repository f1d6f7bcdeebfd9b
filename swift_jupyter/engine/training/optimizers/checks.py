"""Options of the optimizer that cannot work together, found without torch."""

from __future__ import annotations

import importlib.util

from swift_jupyter.engine.training.optimizers.options import (
    OWN_OPTIMIZERS,
    LisaOptions,
    OptimizerOptions,
    optimizer_title,
)
from swift_jupyter.errors import OptionError, UserError
from swift_jupyter.i18n import translate as _

_WHOLE_TUNERS = ("full", "freeze")
_POSITIVE = (
    "galore_rank",
    "galore_update_proj_gap",
    "galore_proj_group_size",
    "galore_queue_size",
    "apollo_rank",
    "apollo_update_proj_gap",
)


def check_optimizer(options: OptimizerOptions, lisa: LisaOptions, tuner_type: str) -> None:
    """See that optimizer, LISA and tuner fit each other and that packages are there.

    Raises
    ------
    UserError
        Says what does not fit, or what is missing.
    """
    _check_package(options.optim)
    _check_ranges(options, lisa)
    if options.galore_quantization and not options.use_galore:
        raise UserError(
            _("--galore_quantization is a kind of GaLore, which is off."),
            next_step=_("Add --use_galore true."),
        )
    if options.use_galore and options.optim in OWN_OPTIMIZERS:
        raise UserError(
            _("GaLore and --optim {name} exclude each other.", name=options.optim),
            next_step=_("Leave one of them out."),
        )
    if options.projects and tuner_type not in _WHOLE_TUNERS:
        raise UserError(
            _(
                "{name} needs --tuner_type full, not {tuner}.",
                name=optimizer_title(options),
                tuner=tuner_type,
            ),
            _("It saves the memory of training whole weights; an adapter's are small already."),
        )
    if lisa.lisa_activated_layers:
        _check_lisa(options, tuner_type)


def _check_lisa(options: OptimizerOptions, tuner_type: str) -> None:
    if tuner_type != "full":
        raise UserError(
            _("LISA needs --tuner_type full, not {tuner}.", tuner=tuner_type),
            _("It is full training of a few layers at a time."),
        )
    if options.projects:
        raise UserError(
            _("LISA and {name} exclude each other.", name=optimizer_title(options)),
            _("LISA forgets the state of resting layers, and with it their projections."),
            _("Leave out --lisa_activated_layers or the other."),
        )


def _check_package(optim: str) -> None:
    if optim.endswith("8bit") and importlib.util.find_spec("bitsandbytes") is None:
        raise UserError(
            _("--optim {name} needs the package bitsandbytes.", name=optim),
            next_step=_("Install it with: %pip install 'bitsandbytes>=0.50,<0.51'"),
        )


def _check_ranges(options: OptimizerOptions, lisa: LisaOptions) -> None:
    for name in _POSITIVE:
        value = getattr(options, name)
        if value is not None and value < 1:
            raise OptionError(_("{name} must be at least 1, not {value}.", name=name, value=value))
    if options.galore_proj_bits not in (4, 8):
        raise OptionError(
            _("galore_proj_bits must be 4 or 8, not {value}.", value=options.galore_proj_bits)
        )
    if options.galore_gamma_proj < 1:
        raise OptionError(
            _("galore_gamma_proj must be at least 1, not {value}.", value=options.galore_gamma_proj)
        )
    if lisa.lisa_activated_layers < 0:
        raise OptionError(
            _(
                "lisa_activated_layers must be at least 0, not {value}.",
                value=lisa.lisa_activated_layers,
            )
        )
    if lisa.lisa_step_interval < 1:
        raise OptionError(
            _("lisa_step_interval must be at least 1, not {value}.", value=lisa.lisa_step_interval)
        )
