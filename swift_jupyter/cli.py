"""``swift-jupyter …``: the same commands in a terminal."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path

from swift_jupyter.commands.context import Context
from swift_jupyter.commands.parsing import ParsedCommand, parse
from swift_jupyter.commands.results import Result
from swift_jupyter.commands.table import find_command
from swift_jupyter.display.help import command_help, overview
from swift_jupyter.display.terminal import TerminalFrontend
from swift_jupyter.errors import Interrupted, OptionError, UserError
from swift_jupyter.i18n import translate as _
from swift_jupyter.settings import load_settings
from swift_jupyter.version import __version__


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return the exit code.

    0 when it worked, 1 when it failed, 2 for wrong options, 130 after an interrupt.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    if not words or words[0] in ("--help", "-h", "help"):
        print(overview("swift-jupyter").text())
        return 0
    if words[0] in ("--version", "version"):
        print(__version__)
        return 0
    try:
        return _run(words)
    except Interrupted as error:
        print(error, file=sys.stderr)
        return 130
    except OptionError as error:
        print(error, file=sys.stderr)
        return 2
    except UserError as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(_("Interrupted."), file=sys.stderr)
        return 130


def _run(words: list[str]) -> int:
    command = find_command(words[0])
    words, body = _take_config(words[1:])
    parsed = parse(command, words, body)
    if parsed.wants_help:
        print(command_help(command, "swift-jupyter").text())
        return 0
    if parsed.out:
        raise OptionError(_("--out names a variable of a notebook; a terminal has none."))
    frontend = TerminalFrontend(sys.stderr if parsed.as_json else sys.stdout)
    result = command.load_function()(parsed.options, Context(load_settings(), frontend))
    _show(result, parsed)
    return 0


def _take_config(words: list[str]) -> tuple[list[str], str | None]:
    """Take ``--config FILE`` off the line and return the file's text as the body."""
    if "--config" not in words:
        return words, None
    place = words.index("--config")
    if place + 1 == len(words):
        raise OptionError(_("--config takes a YAML file."))
    path = Path(words[place + 1]).expanduser()
    try:
        body = path.read_text(encoding="utf-8")
    except OSError as error:
        raise UserError(
            _("The file {path} cannot be read.", path=path), error.strerror or str(error)
        ) from None
    return words[:place] + words[place + 2 :], body


def _show(result: object, parsed: ParsedCommand) -> None:
    if not isinstance(result, Result):
        return
    if parsed.as_json:
        print(json.dumps(result.to_dict(), ensure_ascii=False, default=str))
    elif not result.shown:
        print(result.text())
    elif hasattr(result, "next_steps"):
        print(result.next_steps())
