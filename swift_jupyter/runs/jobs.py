"""The jobs that a worker can do: which function belongs to which command."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

from swift_jupyter.errors import UserError
from swift_jupyter.i18n import translate as _

Job = Callable[..., dict[str, Any]]

_JOBS = {
    "sft": "swift_jupyter.engine.training.sft:train",
    "download": "swift_jupyter.hub.download_job:download",
    "mirror": "swift_jupyter.hub.node.job:work",
    "deploy": "swift_jupyter.engine.inference.server.job:work",
}


def load_job(command: str) -> Job:
    """Import and return ``job(options, folder, settings, reporter) -> dict``.

    Raises
    ------
    UserError
        When no job belongs to the command.
    """
    target = _JOBS.get(command)
    if target is None:
        raise UserError(_("No job belongs to '{command}'.", command=command))
    module, _sign, name = target.partition(":")
    job: Job = getattr(importlib.import_module(module), name)
    return job
