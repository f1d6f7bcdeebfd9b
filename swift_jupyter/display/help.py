"""Help pages, made from the command table."""

from __future__ import annotations

import shutil
import textwrap

from swift_jupyter.commands.results import Table
from swift_jupyter.commands.table import COMMANDS, Command
from swift_jupyter.i18n import translate as _
from swift_jupyter.options import OptionSpec, option_specs


def overview(prefix: str) -> Table:
    """Return the list of commands with examples that can be copied.

    Parameters
    ----------
    prefix : str
        What stands before a command: ``%swift`` or ``swift-jupyter``.
    """
    rows = [{"command": f"{prefix} {c.name}", "what": c.summary} for c in COMMANDS.values()]
    examples = [COMMANDS[name].examples[0] for name in ("download", "infer", "sft")]
    note = _("Help for one command: {prefix} sft --help", prefix=prefix)
    if prefix.startswith("%"):
        note = "\n\n".join([*examples, note])
    return Table(("command", "what"), rows, title=_("The life of a language model"), note=note)


class HelpPage(Table):
    """The page of one command; in a terminal the help texts are wrapped."""

    def text(self) -> str:
        """Return two lines or more an option, as wide as the terminal."""
        width = min(100, shutil.get_terminal_size().columns)
        lines = [self.title, ""]
        for row in self.rows:
            default = _(" (default: {value})", value=row["default"]) if row["default"] else ""
            lines.append(f"  {row['option']}  {row['type']}{default}".rstrip())
            lines.extend(
                textwrap.wrap(row["help"], width, initial_indent=" " * 8, subsequent_indent=" " * 8)
            )
        return "\n".join([*lines, "", self.note])


def command_help(command: Command, prefix: str) -> HelpPage:
    """Return the page of one command: its options, defaults and examples."""
    specs = option_specs(command.load_options())
    rows = [
        {
            "option": _name(spec),
            "type": spec.type_text,
            "default": _("required") if spec.required else spec.default_text,
            "help": spec.help,
        }
        for spec in specs.values()
    ]
    if prefix.startswith("%"):
        rows.append(
            {
                "option": "--out, -o",
                "type": _("name"),
                "default": "",
                "help": _("The variable that takes the result."),
            }
        )
    else:
        rows.append(
            {"option": "--json", "type": "", "default": "", "help": _("Print the result as JSON.")}
        )
    bodies = {
        "yaml": _("A cell's body gives options as 'key: value' lines; the line wins."),
        "prompt": _("A cell's body is the prompt."),
    }
    note = "\n\n".join([*([bodies[command.body]] if command.body else []), *command.examples])
    title = f"{prefix} {command.name}: {command.summary}"
    return HelpPage(("option", "type", "default", "help"), rows, title=title, note=note)


def _name(spec: OptionSpec) -> str:
    names = [spec.flag] + ([f"-{spec.short}"] if spec.short else [])
    if spec.positional:
        names.insert(0, spec.name.upper())
    return ", ".join(names)
