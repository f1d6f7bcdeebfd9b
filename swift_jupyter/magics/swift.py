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
from traitlets import Bool, Enum, Int, Unicode

from swift_jupyter.commands.context import Context
from swift_jupyter.commands.parsing import ParsedCommand, parse
from swift_jupyter.commands.table import COMMANDS, find_command
from swift_jupyter.display.frontends import frontend_for
from swift_jupyter.display.help import command_help, help_page
from swift_jupyter.display.shown import forget_after_cell
from swift_jupyter.errors import Interrupted, OptionError, UserError
from swift_jupyter.i18n import translate as _
from swift_jupyter.magics.completion import SwiftMatcher
from swift_jupyter.magics.expansion import expand_words, resolver
from swift_jupyter.magics.words import split_line
from swift_jupyter.sdk import session
from swift_jupyter.settings import FIELDS, SECRETS, AddressText, SecretText, Settings, load_settings

_DOCUMENTATION = """The life of a language model: {commands}.

::

    %swift COMMAND [options]      one line
    %%swift COMMAND [options]     a cell: options as `key: value` lines, or a prompt

Type ``%swift`` for an overview and ``%swift sft --help`` for the options of a command.
``$name`` passes a Python object (a DataFrame, a run), ``--out NAME`` keeps the result.
"""


def _trait(name: str) -> Any:
    """Return the ``%config`` trait of a setting; None leaves it to file and environment."""
    choices, words = FIELDS[name].metadata["choices"], FIELDS[name].metadata["help"]
    if choices:
        return Enum(choices, default_value=None, allow_none=True, help=words).tag(config=True)
    kind = {"bool": Bool, "int": Int}.get(str(FIELDS[name].type), Unicode)
    if name in SECRETS or name == "nodes":
        kind = _MaskedTrait
    return kind(None, allow_none=True, help=words).tag(config=True)


class _MaskedTrait(Unicode):
    """A text that ``%config SwiftMagics`` shows masked."""

    def validate(self, obj: Any, value: Any) -> Any:
        masked = SecretText if self.name in SECRETS else AddressText
        return masked(super().validate(obj, value))


@magics_class
class SwiftMagics(Magics):
    """Fine-tuning and chatting from cells; settings as ``%config SwiftMagics.NAME = value``."""

    shell: Any  # Never None: magics are made for a shell.

    default_model = _trait("default_model")
    hub = _trait("hub")
    cache_dir = _trait("cache_dir")
    state_dir = _trait("state_dir")
    output_root = _trait("output_root")
    nodes = _trait("nodes")
    max_connections = _trait("max_connections")
    modelscope_token = _trait("modelscope_token")
    huggingface_token = _trait("huggingface_token")
    node_token = _trait("node_token")
    display = _trait("display")
    short_errors = _trait("short_errors")

    def __init__(self, shell: Any) -> None:
        super().__init__(shell)
        self._matcher = SwiftMatcher(self.settings)

    def connect(self) -> None:
        """Hook into completion, and let ``%config`` count for the functions too."""
        self.shell.Completer.custom_matchers.append(self._matcher.matcher)
        session().overrides = self.overrides

    def disconnect(self) -> None:
        """Undo `connect`."""
        matchers = self.shell.Completer.custom_matchers
        if self._matcher.matcher in matchers:
            matchers.remove(self._matcher.matcher)
        session().overrides = dict

    def overrides(self) -> dict[str, Any]:
        """Return the settings that were given with ``%config``."""
        values = {name: getattr(self, name) for name in FIELDS}
        return {name: value for name, value in values.items() if value is not None}

    def settings(self) -> Settings:
        """Return the settings in force, ``%config`` first."""
        return load_settings(self.overrides())

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
            if self._short_errors():
                raise
            raise RuntimeError(str(error)) from error

    def _short_errors(self) -> bool:
        try:
            return self.settings().short_errors
        except UserError:
            return True  # The settings are what is wrong.

    swift.__doc__ = _DOCUMENTATION.format(commands=", ".join(COMMANDS))

    def _dispatch(self, line: str, cell: str | None, namespace: dict[str, Any]) -> Any:
        words = split_line(line)
        page = help_page(words, "%swift")
        if page is not None:
            return page
        command = find_command(words[0])
        tokens = expand_words(words[1:], namespace)
        parsed = parse(command, tokens, cell, resolve=resolver(namespace))
        if parsed.as_json:
            raise OptionError(
                _("--json is for terminals; a notebook has the result itself."),
                next_step=_("Keep it with --out NAME, then NAME.to_dict()"),
            )
        if parsed.wants_help:
            return command_help(command, "%swift")
        return self._run(parsed)

    def _run(self, parsed: ParsedCommand) -> Any:
        context = self._context()
        try:
            result = parsed.command.load_function()(parsed.options, context)
        except Interrupted as stopped:
            forget_after_cell(stopped.result, self.shell)
            if parsed.out and stopped.result is not None:
                self.shell.push({parsed.out: stopped.result})
            raise
        forget_after_cell(result, self.shell)
        if not parsed.out:
            return result
        self.shell.push({parsed.out: result})
        return None

    def _context(self) -> Context:
        context = session()
        context.overrides = self.overrides
        context.refresh()
        context.frontend = frontend_for(self.shell, context.settings.display)
        return context
