"""Help pages and the reference of the README, made from the command table.

``python -m swift_jupyter.display.help README.md`` writes the reference anew.
"""

from __future__ import annotations

import re
import shutil
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path

from swift_jupyter.commands.results import Table
from swift_jupyter.commands.table import COMMANDS, Command, find_command
from swift_jupyter.errors import UserError
from swift_jupyter.i18n import translate as _
from swift_jupyter.options import OptionSpec, option_specs

BEGIN, END = "<!-- commands:begin -->", "<!-- commands:end -->"


def help_page(words: Sequence[str], prefix: str) -> Table | None:
    """Return the page that a line asks for before any command; None when it does not.

    Parameters
    ----------
    words : sequence of str
        The whole line: nothing, ``--help``, ``help`` or ``help <command>``.
    prefix : str
        What stands before a command: ``%swift`` or ``swift-jupyter``.

    Raises
    ------
    OptionError
        When help is asked for a command that is unknown.
    """
    if not words or words[0] in ("--help", "-h") or list(words) == ["help"]:
        return overview(prefix)
    return command_help(find_command(words[1]), prefix) if words[0] == "help" else None


def overview(prefix: str) -> Table:
    """Return the list of commands with examples that can be copied."""
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
                textwrap.wrap(
                    row["help"],
                    width,
                    initial_indent=" " * 8,
                    subsequent_indent=" " * 8,
                    break_on_hyphens=False,
                )
            )
        return "\n".join([*lines, "", self.note])


def command_help(command: Command, prefix: str) -> HelpPage:
    """Return the page of one command: its options, defaults and examples."""
    rows = _option_rows(command)
    examples = list(command.examples)
    if prefix.startswith("%"):
        rows.append(_row("--out, -o", _("name"), _("The variable that takes the result.")))
        bodies = {
            "yaml": _("A cell's body gives options as 'key: value' lines; the line wins."),
            "prompt": _("A cell's body is the prompt."),
        }
        if command.body:
            examples.insert(0, bodies[command.body])
    else:
        rows.append(_row("--config", _("file"), _("A YAML file with options; the line wins.")))
        rows.append(_row("--json", "", _("Print the result as JSON.")))
        examples = [e for e in examples if "\n" not in e and "$" not in e]
    title = f"{prefix} {command.name}: {command.summary}"
    note = "\n\n".join(examples)
    return HelpPage(("option", "type", "default", "help"), rows, title=title, note=note)


def _option_rows(command: Command) -> list[dict[str, str]]:
    return [
        _row(
            _names(spec),
            spec.type_text,
            spec.help,
            _("required") if spec.required else spec.default_text,
        )
        for spec in option_specs(command.load_options()).values()
    ]


def _row(option: str, type_text: str, help: str, default: str = "") -> dict[str, str]:
    return {"option": option, "type": type_text, "default": default, "help": help}


def _names(spec: OptionSpec) -> str:
    names = [spec.flag] + ([f"-{spec.short}"] if spec.short else [])
    if spec.positional:
        names.insert(0, spec.name.upper())
    return ", ".join(names)


def reference_markdown() -> str:
    """Return all commands with their options as Markdown, for the README."""
    return "\n\n".join(_command_markdown(command) for command in COMMANDS.values())


def _command_markdown(command: Command) -> str:
    lines = [f"### `{command.name}`", "", _markdown(command.summary), ""]
    lines += ["| option | value | default | |", "|---|---|---|---|"]
    for row in _option_rows(command):
        option, default = (f"`{text}`" if text else "" for text in (row["option"], row["default"]))
        cells = (option, row["type"], default, row["help"])
        lines.append("| " + " | ".join(_markdown(cell) for cell in cells) + " |")
    return "\n".join(lines)


def _markdown(text: str) -> str:
    """Escape what Markdown would take for a column or a tag."""
    text = text.replace("|", "\\|")
    return text if text.startswith("`") else text.replace("<", "&lt;")


def write_reference(path: Path) -> None:
    """Replace what stands between the markers of a file.

    Raises
    ------
    UserError
        When the file cannot be read or has no markers.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise UserError(
            _("The file {path} cannot be read.", path=path), error.strerror or str(error)
        ) from None
    if text.count(BEGIN) != 1 or text.count(END) != 1 or text.index(BEGIN) > text.index(END):
        raise UserError(
            _("{path} has no place for the reference.", path=path),
            next_step=_("It needs {begin} and, below it, {end}.", begin=BEGIN, end=END),
        )
    block = f"{BEGIN}\n{reference_markdown()}\n{END}"
    pattern = re.escape(BEGIN) + ".*" + re.escape(END)
    path.write_text(re.sub(pattern, lambda _match: block, text, flags=re.DOTALL), encoding="utf-8")


if __name__ == "__main__":
    try:
        for name in sys.argv[1:]:
            write_reference(Path(name))
    except UserError as error:
        sys.exit(str(error))
