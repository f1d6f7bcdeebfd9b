"""The magic itself: parse, run, hand over the result."""

from __future__ import annotations

from typing import Any

from IPython.core.magic import (
    Magics,
    line_cell_magic,
    magics_class,
    needs_local_scope,
    no_var_expand,
)
from traitlets import Bool, Unicode

from swift_jupyter.commands.context import Context
from swift_jupyter.commands.frontend import Frontend
from swift_jupyter.commands.parsing import ParsedCommand, parse
from swift_jupyter.commands.results import Result
from swift_jupyter.commands.table import COMMANDS, find_command
from swift_jupyter.display.help import command_help, overview
from swift_jupyter.errors import Interrupted, UserError
from swift_jupyter.magics.completion import SwiftMatcher
from swift_jupyter.magics.expansion import expand, resolver, split_line
from swift_jupyter.sdk import session
from swift_jupyter.settings import FIELDS, Settings, load_settings

_DOCUMENTATION = """The life of a language model: {commands}.

::

    %swift COMMAND [options]      one line
    %%swift COMMAND [options]     a cell: options as `key: value` lines, or a prompt

Type ``%swift`` for an overview and ``%swift sft --help`` for the options of a command.
``$name`` passes a Python object (a DataFrame, a run), ``--out NAME`` keeps the result.
"""


def _trait(name: str) -> Any:
    """Return the ``%config`` trait of a setting; None leaves it to file and environment."""
    kind = Bool if FIELDS[name].type == "bool" else Unicode
    return kind(None, allow_none=True, help=FIELDS[name].metadata["help"]).tag(config=True)


@magics_class
class SwiftMagics(Magics):
    """Fine-tuning and chatting from cells; settings as ``%config SwiftMagics.NAME = value``."""

    default_model = _trait("default_model")
    hub = _trait("hub")
    cache_dir = _trait("cache_dir")
    state_dir = _trait("state_dir")
    output_root = _trait("output_root")
    display = _trait("display")
    language = _trait("language")
    short_errors = _trait("short_errors")

    def __init__(self, shell: Any) -> None:
        super().__init__(shell)
        self._shown: list[Result] = []
        self._matcher = SwiftMatcher(self.settings)

    def connect(self) -> None:
        """Hook into completion and the end of cells."""
        self.shell.Completer.custom_matchers.append(self._matcher.matcher)
        self.shell.events.register("post_run_cell", self._forget_shown)

    def disconnect(self) -> None:
        """Undo `connect`."""
        matchers = self.shell.Completer.custom_matchers
        if self._matcher.matcher in matchers:
            matchers.remove(self._matcher.matcher)
        self.shell.events.unregister("post_run_cell", self._forget_shown)

    def settings(self) -> Settings:
        """Return the settings in force, ``%config`` first."""
        values = {name: getattr(self, name) for name in FIELDS}
        return load_settings({name: v for name, v in values.items() if v is not None})

    @no_var_expand
    @needs_local_scope
    @line_cell_magic
    def swift(
        self, line: str, cell: str | None = None, local_ns: dict[str, Any] | None = None
    ) -> Any:
        namespace = {**self.shell.user_ns, **(local_ns or {})}
        try:
            return self._dispatch(line, cell, namespace)
        except UserError as error:
            if self.settings().short_errors:
                raise
            raise RuntimeError(str(error)) from error

    swift.__doc__ = _DOCUMENTATION.format(commands=", ".join(COMMANDS))

    def _dispatch(self, line: str, cell: str | None, namespace: dict[str, Any]) -> Any:
        words = split_line(line)
        if not words or words[0] in ("--help", "-h", "help"):
            return overview("%swift")
        command = find_command(words[0])
        tokens = [expand(word, namespace) for word in words[1:]]
        parsed = parse(command, tokens, cell, resolve=resolver(namespace))
        if parsed.wants_help:
            return command_help(command, "%swift")
        return self._run(parsed)

    def _run(self, parsed: ParsedCommand) -> Any:
        context = self._context()
        try:
            result = parsed.command.load_function()(parsed.options, context)
        except Interrupted as stopped:
            if parsed.out and stopped.result is not None:
                self.shell.push({parsed.out: stopped.result})
            raise
        if isinstance(result, Result) and result.shown:
            self._shown.append(result)
        if not parsed.out:
            return result
        self.shell.push({parsed.out: result})
        return None

    def _context(self) -> Context:
        context = session()
        context.settings = self.settings()
        context.frontend = self._frontend(context.settings.display)
        return context

    def _frontend(self, wanted: str) -> Frontend:
        in_kernel = hasattr(self.shell, "kernel")
        if wanted == "html" or (wanted == "auto" and in_kernel):
            from swift_jupyter.display.notebook import NotebookFrontend

            return NotebookFrontend()
        from swift_jupyter.display.terminal import TerminalFrontend

        return TerminalFrontend()

    def _forget_shown(self, *_arguments: Any) -> None:
        """Let results that were shown live be shown again from the next cell on."""
        for result in self._shown:
            result.shown = False
        self._shown.clear()
