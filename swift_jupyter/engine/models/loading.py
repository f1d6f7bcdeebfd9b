"""From a folder to a tokenizer and a model in memory."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from swift_jupyter.engine.models.options import ModelOptions
from swift_jupyter.engine.models.quantisation import QuantOptions
from swift_jupyter.errors import UserError
from swift_jupyter.i18n import translate as _

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


def check_model_folder(folder: Path) -> dict[str, Any]:
    """Read `config.json` and see that weights are there.

    Returns
    -------
    dict
        The content of `config.json`.

    Raises
    ------
    UserError
        When the config is absent or broken, or no weights are there.
    """
    path = folder / "config.json"
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(config, dict):
            raise ValueError(_("it is not a JSON object"))
    except FileNotFoundError:
        raise UserError(
            _("{folder} is not a model: it has no config.json.", folder=folder),
            next_step=_("Give the folder of a model, or a name: %swift models"),
        ) from None
    except (OSError, ValueError) as error:
        raise _broken(folder, f"config.json: {error}") from None
    if not any(folder.glob("*.safetensors")) and not any(folder.glob("*.bin")):
        raise _broken(folder, _("no weights (*.safetensors) are there"))
    return config


def _broken(folder: Path, why: str) -> UserError:
    return UserError(
        _("The model in {folder} is broken.", folder=folder),
        why,
        _("Remove it and download it again: %swift cache rm NAME --yes"),
    )


def choose_device() -> str:
    """Return ``cuda``, ``mps`` or ``cpu``: the fastest that torch can use here."""
    import torch

    if torch.cuda.is_available():
        return "cuda"
    if torch.backends.mps.is_available():
        return "mps"
    return "cpu"


def choose_dtype(name: str | None, device: str) -> torch.dtype:
    """Return the data type of the weights for a device; see `ModelOptions.torch_dtype`."""
    import torch

    if name:
        dtype: torch.dtype = getattr(torch, name)
        return dtype
    if device == "cpu":
        return torch.float32
    if device == "cuda" and not torch.cuda.is_bf16_supported():
        return torch.float16
    return torch.bfloat16


def load_tokenizer(folder: Path, trust_remote_code: bool = False) -> PreTrainedTokenizerBase:
    """Load the tokenizer of a model folder.

    Raises
    ------
    UserError
        When the folder holds no readable tokenizer.
    """
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(
            folder, trust_remote_code=trust_remote_code, local_files_only=True
        )
    except Exception as error:  # transformers raises many types for a broken folder.
        raise _explained(folder, error, trust_remote_code) from error
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def load_model(
    folder: Path, options: ModelOptions, device: str, quantisation: QuantOptions | None = None
) -> PreTrainedModel:
    """Load a causal language model onto a device, in evaluation mode.

    Parameters
    ----------
    folder : Path
        The model's folder.
    options : ModelOptions
        Data type, attention and trust.
    device : str
        As from `choose_device`.
    quantisation : QuantOptions, optional
        Whether the weights are kept in few bits.

    Raises
    ------
    UserError
        When the folder is broken, or its code is not trusted.
    """
    from transformers import AutoModelForCausalLM

    from swift_jupyter.engine.models.quantisation import quantisation_config

    model: Any
    info: dict[str, Any]
    check_model_folder(folder)
    dtype = choose_dtype(options.torch_dtype, device)
    extra: dict[str, Any] = {}
    if options.attn_impl:
        extra["attn_implementation"] = options.attn_impl
    few_bits = quantisation_config(quantisation, dtype) if quantisation else None
    if few_bits is not None:
        extra.update(quantization_config=few_bits, device_map={"": device})
    try:
        with without_bars():
            loaded: Any = AutoModelForCausalLM.from_pretrained(
                folder,
                dtype=dtype,
                trust_remote_code=options.trust_remote_code,
                local_files_only=True,
                use_safetensors=True,
                output_loading_info=True,
                **extra,
            )
        model, info = loaded
    except Exception as error:  # transformers raises many types for a broken folder.
        if isinstance(error, MemoryError) or "allocate memory" in str(error):
            raise
        raise _explained(folder, error, options.trust_remote_code) from error
    missing = sorted(info.get("missing_keys") or [])
    if missing:
        raise _broken(
            folder,
            _("{count} weights are missing, such as {name}", count=len(missing), name=missing[0]),
        )
    if few_bits is not None:
        return model.eval()  # type: ignore[no-any-return]
    return model.to(device).eval()  # type: ignore[no-any-return]


@contextlib.contextmanager
def without_bars() -> Iterator[None]:
    """Keep transformers' own progress bars out of the cell, which has one already.

    So are remarks of bitsandbytes, which peft imports where it is installed, on kernels
    that nothing here asks for.
    """
    import logging

    from transformers.utils import logging as bars

    shown, remarks = bars.is_progress_bar_enabled(), logging.getLogger("bitsandbytes")
    level = remarks.level
    bars.disable_progress_bar()
    remarks.setLevel(logging.ERROR)
    try:
        yield
    finally:
        remarks.setLevel(level)
        if shown:
            bars.enable_progress_bar()


def _explained(folder: Path, error: Exception, trusted: bool) -> UserError:
    text = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    if not trusted and "trust_remote_code" in str(error):
        return UserError(
            _("{folder} needs Python code that comes with the model.", folder=folder),
            _("Code of strangers is not run unless you say so."),
            _("If you trust its author: --trust_remote_code"),
        )
    if isinstance(error, ImportError):
        return UserError(
            _("The model in {folder} needs a package that is not installed.", folder=folder),
            text,
            _("Install it with %pip, then restart the kernel."),
        )
    if isinstance(error, ValueError) and "does not recognize this architecture" in str(error):
        return UserError(
            _("The model in {folder} is of a kind that transformers does not know.", folder=folder),
            text,
            _("A newer transformers may know it; some models bring code: --trust_remote_code"),
        )
    return _broken(folder, text)
