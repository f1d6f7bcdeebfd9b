"""``config``: the settings in force, and storing one."""

from __future__ import annotations

from dataclasses import dataclass

from swift_jupyter.commands.context import Context
from swift_jupyter.commands.results import Table
from swift_jupyter.errors import OptionError
from swift_jupyter.i18n import translate as _
from swift_jupyter.options import option
from swift_jupyter.settings import effective_settings, user_file, write_user_setting


@dataclass(frozen=True, kw_only=True)
class ConfigOptions:
    """The options of ``config``."""

    action: str = option(
        "show",
        help="Show all, or store or forget one.",
        choices=("show", "set", "unset"),
        positional=True,
    )
    name: str = option("", help="The name of a setting.", completer="setting", positional=True)
    value: str | None = option(None, help="The value to store.", positional=True, takes_rest=True)


def run(options: ConfigOptions, context: Context) -> Table:
    """Show or store settings.

    Raises
    ------
    UserError
        For an unknown name or a value that does not fit.
    """
    if options.action != "show":
        if not options.name or (options.action == "set" and options.value is None):
            raise OptionError(
                _("config {action} needs a name and, to set it, a value.", action=options.action),
                next_step=_("For example: %swift config set hub huggingface"),
            )
        write_user_setting(options.name, options.value if options.action == "set" else None)
    rows = [
        {
            "name": setting.name,
            "value": setting.shown,
            "from": setting.origin,
            "help": setting.help,
        }
        for setting in effective_settings(context.overrides())
    ]
    note = _("Stored settings are in {path}.", path=user_file())
    return Table(("name", "value", "from", "help"), rows, note=note)
