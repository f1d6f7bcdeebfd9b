"""Whether a model fits into memory, said before it is loaded."""

from __future__ import annotations

import json
import struct
from pathlib import Path

from swift_jupyter.errors import UserError
from swift_jupyter.files import size_text
from swift_jupyter.i18n import translate as _

_BYTES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I8": 1, "U8": 1, "F8_E4M3": 1, "F8_E5M2": 1}
_LARGEST_HEADER = 100 << 20


def weight_bytes(folder: Path, bytes_each: int | None) -> int:
    """Return what the weights of a model take in memory.

    Parameters
    ----------
    folder : Path
        The model.
    bytes_each : int or None
        Of each number once loaded; None for as many as in the files.
    """
    total = 0
    for file in folder.glob("*.safetensors"):
        for kind, size in _tensors(file):
            scaled = bytes_each is not None and kind in ("F64", "F32", "F16", "BF16")
            total += size * (bytes_each or 1) // _BYTES[kind] if scaled else size
    return total


def _tensors(file: Path) -> list[tuple[str, int]]:
    """Return kind and size of each tensor, from the file's head alone."""
    try:
        with file.open("rb") as stream:
            (length,) = struct.unpack("<Q", stream.read(8))
            if length > _LARGEST_HEADER:
                return []
            header = json.loads(stream.read(length))
        return [
            (str(entry["dtype"]), int(entry["data_offsets"][1]) - int(entry["data_offsets"][0]))
            for name, entry in header.items()
            if name != "__metadata__"
        ]
    except (OSError, ValueError, KeyError, TypeError, IndexError, struct.error):
        return []  # Loading says what is wrong with it.


def check_memory(folder: Path, dtype: str | None) -> None:
    """Check that the weights fit into what is free.

    Parameters
    ----------
    folder : Path
        The model.
    dtype : str or None
        See `ModelOptions.torch_dtype`.

    Raises
    ------
    UserError
        When they do not.
    """
    import torch

    from swift_jupyter.engine.models.loading import choose_device, choose_dtype

    device = choose_device()
    needed = weight_bytes(folder, choose_dtype(dtype, device).itemsize)
    if device == "cuda":
        free, place = int(torch.cuda.mem_get_info()[0]), _("on the accelerator")
    else:
        import psutil

        free, place = int(psutil.virtual_memory().available), _("in memory")
    if needed > free:
        raise UserError(
            _("The model in {folder} is too large for this machine.", folder=folder),
            _(
                "Its weights take {needed}; {free} are free {place}.",
                needed=size_text(needed),
                free=size_text(free),
                place=place,
            ),
            _("Free memory (%swift unload), or take a smaller model or --torch_dtype bfloat16."),
        )
