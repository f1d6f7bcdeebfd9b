"""``unload``: free the models that inference keeps in memory."""

from __future__ import annotations

from dataclasses import dataclass

from swift_jupyter.commands.context import Context
from swift_jupyter.commands.results import Facts
from swift_jupyter.i18n import translate as _
from swift_jupyter.options import option


@dataclass(frozen=True, kw_only=True)
class UnloadOptions:
    """The options of ``unload``."""

    model: str = option("", help="Only this model; by default all.", positional=True)


def run(options: UnloadOptions, context: Context) -> Facts:
    """Free the models and say which."""
    names = context.models.unload(options.model or None)
    text = ", ".join(names) if names else _("nothing was loaded")
    return Facts(_("Unloaded: {names}", names=text), {}, {"unloaded": names})
