"""What a command is given beside its options."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

from swift_jupyter.commands.frontend import Frontend
from swift_jupyter.settings import Settings

if TYPE_CHECKING:
    from swift_jupyter.engine.inference.loaded import LoadedModels


class Context:
    """Settings, a place to show things, and the models in memory.

    Parameters
    ----------
    settings : Settings
        The preferences in force.
    frontend : Frontend
        Where words and pictures go.

    Notes
    -----
    One context lives as long as the session; `frontend` and `settings` may be
    replaced between commands, the loaded models stay.
    """

    def __init__(self, settings: Settings, frontend: Frontend) -> None:
        self.settings = settings
        self.frontend = frontend

    @functools.cached_property
    def models(self) -> LoadedModels:
        """The models that inference keeps in memory."""
        from swift_jupyter.engine.inference.loaded import LoadedModels

        return LoadedModels()
