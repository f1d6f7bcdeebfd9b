"""``swift-jupyter …``: the same commands in a terminal."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from swift_jupyter.commands.context import Context
from swift_jupyter.commands.parsing import ParsedCommand, parse
from swift_jupyter.commands.results import Result
from swift_jupyter.commands.table import find_command
from swift_jupyter.display.help import command_help, help_page
from swift_jupyter.display.terminal import TerminalFrontend, printable
from swift_jupyter.errors import Interrupted, OptionError, UserError
from swift_jupyter.i18n import translate as _
from swift_jupyter.settings import load_settings
from swift_jupyter.version import __version__

PROGRAM = "swift-jupyter"
_MAGIC = re.compile(r"%{1,2}swift\b")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return the exit code.

    0 when it worked, 1 when it failed, 2 for wrong options, 130 after an interrupt.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    try:
        code = _run(words)
        sys.stdout.flush()
        return code
    except UserError as error:
        print(_for_terminal(str(error)), file=sys.stderr)
        return _exit_code(error)
    except KeyboardInterrupt:
        print(_("Interrupted."), file=sys.stderr)
        return 130
    except BrokenPipeError:
        # The reader, such as `head`, has seen enough; Python flushes once more at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141


def _exit_code(error: UserError) -> int:
    if isinstance(error, Interrupted):
        return 130
    return 2 if isinstance(error, OptionError) else 1


def _run(words: list[str]) -> int:
    if words[:1] in (["--version"], ["version"]):
        print(__version__)
        return 0
    page = help_page(words, PROGRAM)
    if page is not None:
        print(_for_terminal(page.text()))
        return 0
    command = find_command(words[0])
    words, config = _take_config(words[1:])
    parsed = parse(command, words, config=config)
    if parsed.wants_help:
        print(_for_terminal(command_help(command, PROGRAM).text()))
        return 0
    if parsed.out:
        raise OptionError(
            _("--out names a variable of a notebook; a terminal has none."),
            next_step=_("Type --json for the result as JSON."),
        )
    frontend = TerminalFrontend(sys.stderr if parsed.as_json else sys.stdout)
    context = Context(load_settings(), frontend)
    context.in_terminal = True
    result = command.load_function()(parsed.options, context)
    _show(result, parsed)
    return 0


def _take_config(words: list[str]) -> tuple[list[str], str | None]:
    """Take ``--config FILE`` off the line and return the file's text."""
    kept: list[str] = []
    config = None
    rest = iter(words)
    for word in rest:
        flag, sign, name = word.partition("=")
        if flag != "--config":
            kept.append(word)
            continue
        name = name if sign else next(rest, "")
        if not name:
            raise OptionError(_("--config takes a YAML file."))
        config = _read(Path(name).expanduser())
    return kept, config


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else None
        raise UserError(
            _("The file {path} cannot be read.", path=path), reason or str(error)
        ) from None


def _show(result: object, parsed: ParsedCommand) -> None:
    if not isinstance(result, Result):
        return
    if parsed.as_json:
        print(json.dumps(result.to_dict(), ensure_ascii=False, default=str))
        return
    note = getattr(result, "note", "")
    if note:
        vars(result)["note"] = _for_terminal(note)
    if not result.shown:
        print(printable(result.text()))
    elif hasattr(result, "next_steps"):
        print(_for_terminal(result.next_steps()))


def _for_terminal(text: str) -> str:
    """Say in a terminal's words what can be typed next."""
    return _MAGIC.sub(PROGRAM, printable(text))


if __name__ == "__main__":
    sys.exit(main())
