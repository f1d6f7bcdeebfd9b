"""What a command is given beside its options."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from swift_jupyter.commands.frontend import Frontend
from swift_jupyter.settings import Settings, load_settings

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

    Attributes
    ----------
    overrides : callable
        Returns the settings that win over file and environment, such as `%config`.
    in_terminal : bool
        Whether a terminal waits for the command, so that it may work on in the foreground.

    Notes
    -----
    One context lives as long as the session; `frontend` and `settings` may be
    replaced between commands, the loaded models stay.
    """

    def __init__(self, settings: Settings, frontend: Frontend) -> None:
        self.settings = settings
        self.frontend = frontend
        self.overrides: Callable[[], Mapping[str, Any]] = dict
        self.in_terminal = False

    def refresh(self) -> None:
        """Read the settings anew."""
        self.settings = load_settings(self.overrides())

    def settings_for(self, use_hf: bool) -> Settings:
        """Return the settings, with Hugging Face asked first when a command wants that."""
        return dataclasses.replace(self.settings, hub="huggingface") if use_hf else self.settings

    @functools.cached_property
    def models(self) -> LoadedModels:
        """The models that inference keeps in memory."""
        from swift_jupyter.engine.inference.loaded import LoadedModels

        return LoadedModels()
