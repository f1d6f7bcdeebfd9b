"""The raw trained parameters of a model, for kinds whose own file does not hold them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

from swift_jupyter.errors import UserError
from swift_jupyter.i18n import translate as _

FILE_NAME = "trained_parameters.safetensors"


def save(model: nn.Module, folder: Path) -> None:
    """Write every parameter that is trained."""
    from safetensors.torch import save_file

    state = {
        name: parameter.detach().cpu().contiguous().clone()
        for name, parameter in model.named_parameters()
        if parameter.requires_grad
    }
    save_file(state, folder / FILE_NAME, metadata={"format": "pt"})


def load(model: nn.Module, folder: Path) -> bool:
    """Read them into the model; False when the checkpoint has none.

    Raises
    ------
    UserError
        When they are not this model's.
    """
    from safetensors.torch import load_file

    if not (folder / FILE_NAME).is_file():
        return False
    stored = load_file(folder / FILE_NAME)
    trained: dict[str, Any] = {n: p for n, p in model.named_parameters() if p.requires_grad}
    misfits = stored.keys() ^ trained.keys()
    misfits |= {n for n in stored.keys() & trained.keys() if stored[n].shape != trained[n].shape}
    if misfits:
        raise UserError(
            _("The checkpoint {path} does not fit the options.", path=folder),
            _("{count} parameters differ, such as {name}.", count=len(misfits),
              name=min(misfits)),
            _("Resume with the options of its args.json."),
        )  # fmt: skip
    with torch.no_grad():
        for name, parameter in trained.items():
            parameter.copy_(stored[name])
    return True
