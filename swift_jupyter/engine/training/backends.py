"""Kernels and backends that need a GPU and a package of their own.

What is asked for is used, or one line says why it cannot be: never something else.
"""

from __future__ import annotations

import importlib.util
from typing import Protocol

from swift_jupyter.errors import UserError
from swift_jupyter.i18n import translate as _


class BackendOptions(Protocol):
    """The options that ask for them."""

    @property
    def attn_impl(self) -> str | None: ...

    @property
    def use_liger_kernel(self) -> bool: ...

    @property
    def tuner_backend(self) -> str: ...


def wanted_backends(options: BackendOptions) -> list[tuple[str, str, str, str]]:
    """Return what is asked for: the option, its name, the module and the package."""
    wanted = []
    if (options.attn_impl or "").startswith("flash_attention"):
        option = f"--attn_impl {options.attn_impl}"
        wanted.append((option, "FlashAttention", "flash_attn", "flash-attn"))
    if options.use_liger_kernel:
        wanted.append(("--use_liger_kernel", "Liger", "liger_kernel", "liger-kernel"))
    if options.tuner_backend == "unsloth":
        wanted.append(("--tuner_backend unsloth", "Unsloth", "unsloth", "unsloth"))
    return wanted


def check_backends(options: BackendOptions, device: str | None = None) -> None:
    """See that what is asked for can work here.

    Parameters
    ----------
    options : BackendOptions
        The options.
    device : str, optional
        ``cuda``, ``mps`` or ``cpu``; only packages are looked for while it is not known.

    Raises
    ------
    UserError
        Names what is missing.
    """
    for option, name, module, package in wanted_backends(options):
        no_gpu = device is not None and device != "cuda"
        absent = importlib.util.find_spec(module) is None
        if no_gpu:
            raise UserError(
                _("{name} needs a CUDA GPU, and there is none here.", name=name),
                next_step=_("Leave out {option}.", option=option),
            )
        if absent:
            raise UserError(
                _("{name} needs the package {package}, which is not installed.", name=name,
                  package=package),
                _("It works on CUDA GPUs only."),
                _("Type: %pip install {package}, or leave out {option}.", package=package,
                  option=option),
            )  # fmt: skip
