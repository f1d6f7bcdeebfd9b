"""Loading a model's weights in 4 or 8 bits."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from swift_jupyter.errors import OptionError, UserError
from swift_jupyter.i18n import translate as _
from swift_jupyter.options import option

if TYPE_CHECKING:
    import torch

_BITS = (4, 8)


@dataclass(frozen=True, kw_only=True)
class QuantOptions:
    """How the weights of the base are kept in memory."""

    quant_method: str | None = option(
        None,
        help="Keep the base's weights in few bits (QLoRA), on a GPU or a CPU, with the package "
        "bitsandbytes.",
        choices=("bnb",),
    )
    quant_bits: int | None = option(
        None, help="4 or 8 bits a weight; quant_method bnb alone means 4."
    )
    bnb_4bit_quant_type: str = option("nf4", help="The levels of 4 bits.", choices=("nf4", "fp4"))
    bnb_4bit_use_double_quant: bool = option(True, help="Keep the scales of 4 bits in 8 bits, too.")
    bnb_4bit_compute_dtype: str | None = option(
        None,
        help="The data type that 4 bits are multiplied in; by default that of the model.",
        choices=("float32", "bfloat16", "float16"),
    )


def check_quantisation(options: QuantOptions) -> None:
    """See that the options fit each other and the package is installed.

    Raises
    ------
    UserError
        Says what is missing.
    """
    if options.quant_method is None and options.quant_bits is None:
        return
    if options.quant_bits not in (None, *_BITS):
        raise OptionError(
            _("quant_bits is 4 or 8, not {value}.", value=options.quant_bits),
            next_step=_("For example: --quant_method bnb --quant_bits 4"),
        )
    if options.quant_method is None:
        raise OptionError(
            _("quant_bits needs a method."),
            next_step=_("Add --quant_method bnb"),
        )
    if importlib.util.find_spec("bitsandbytes") is None:
        raise UserError(
            _("Weights in few bits need the package bitsandbytes."),
            _("It is not installed."),
            _("Type: %pip install 'bitsandbytes>=0.50,<0.51'"),
        )


def quantisation_config(options: QuantOptions, dtype: torch.dtype) -> Any:
    """Return what `from_pretrained` takes as ``quantization_config``; None for whole weights.

    Parameters
    ----------
    options : QuantOptions
        What was asked for.
    dtype : torch.dtype
        The data type of everything else.
    """
    if options.quant_method is None:
        return None
    import torch
    from transformers import BitsAndBytesConfig

    if options.quant_bits == 8:
        return BitsAndBytesConfig(load_in_8bit=True)
    name = options.bnb_4bit_compute_dtype
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type=options.bnb_4bit_quant_type,
        bnb_4bit_use_double_quant=options.bnb_4bit_use_double_quant,
        bnb_4bit_compute_dtype=getattr(torch, name) if name else dtype,
    )
