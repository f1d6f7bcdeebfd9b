"""From a line and a cell body to a frozen dataclass of options.

Parsing is pure: it reads no file, no environment, and imports nothing heavy.
"""

from __future__ import annotations

import argparse
import keyword
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from swift_jupyter.commands.table import Command
from swift_jupyter.commands.values import (
    FALSE,
    TRUE,
    ObjectArgument,
    Token,
    convert_token,
    convert_tokens,
    from_python,
)
from swift_jupyter.errors import OptionError, did_you_mean
from swift_jupyter.i18n import translate as _
from swift_jupyter.options import OptionSpec, option_specs


@dataclass(frozen=True)
class ParsedCommand:
    """What a line and a body ask for.

    Attributes
    ----------
    command : Command
        The subcommand.
    options : object
        Its frozen dataclass; None when only help is wanted.
    out : str
        The variable that ``--out`` names, or an empty string.
    wants_help : bool
        Whether ``--help`` was given.
    as_json : bool
        Whether the terminal should print JSON.
    """

    command: Command
    options: Any
    out: str = ""
    wants_help: bool = False
    as_json: bool = False


class _Parser(argparse.ArgumentParser):
    """An argparse parser that raises instead of exiting."""

    def error(self, message: str) -> NoReturn:
        raise OptionError(message[:1].upper() + message[1:] + ".", next_step=_help_hint(self.prog))


class _Objects:
    """Stand-ins for Python objects while argparse moves text about."""

    def __init__(self) -> None:
        self._by_text: dict[str, ObjectArgument] = {}

    def hide(self, token: Token) -> str:
        if isinstance(token, str):
            return token
        stand_in = f"\ue000{len(self._by_text)}\ue000"
        self._by_text[stand_in] = token
        return stand_in

    def show(self, text: str) -> Token:
        return self._by_text.get(text, text)

    def typed(self, text: str) -> str:
        """Return what the user typed."""
        token = self.show(text)
        return token.text if isinstance(token, ObjectArgument) else token

    def sentence(self, words: Sequence[str]) -> str:
        """Return words and the text of objects as one text."""
        tokens = [self.show(word) for word in words]
        return " ".join(str(t.value) if isinstance(t, ObjectArgument) else t for t in tokens)


def parse(
    command: Command,
    tokens: Sequence[Token],
    body: str | None = None,
    given: Mapping[str, Any] | None = None,
    resolve: Callable[[str], Token] | None = None,
    config: str | None = None,
) -> ParsedCommand:
    """Parse a line and the body of a cell.

    Parameters
    ----------
    command : Command
        The subcommand, already taken off the line.
    tokens : sequence of str or ObjectArgument
        The words of the line.
    body : str, optional
        The text below the line: YAML or a prompt, as the command declares.
    given : mapping, optional
        Option values given as Python objects (the SDK); they win over the rest.
    resolve : callable, optional
        Returns the object that a ``$name`` in a YAML body means, or the text itself.
    config : str, optional
        The text of a YAML file with options; body and line win over it.

    Raises
    ------
    OptionError
        When anything does not fit the command table.
    """
    specs = option_specs(command.load_options())
    objects = _Objects()
    words = [objects.hide(token) for token in tokens]
    words, plain = _split_at_dashes(words)
    words = [_normalise(word) for word in words]
    if "--help" in words or "-h" in words:
        return ParsedCommand(command, None, wants_help=True)
    line = _parse_line(command, specs, _complete_flags(specs, words), plain, objects)
    values: dict[str, Any] = {}
    if config is not None:
        values.update(_parse_yaml(command, specs, config, resolve, first_line=1))
    if body is not None:
        typed = objects.typed(getattr(line, command.prompt_option, None) or "")
        values.update(_parse_body(command, specs, body, resolve, typed))
    for name, spec in specs.items():
        values.update(_given(name, _from_line(spec, getattr(line, name), objects)))
    for name, value in (given or {}).items():
        spec = spec_named(command, specs, name)
        if value is not None:
            values[spec.name] = from_python(spec, value, spec.name)
    _check_required(command, specs, values)
    out = _check_variable_name(objects.typed(line.out)) if line.out is not None else ""
    return ParsedCommand(command, command.load_options()(**values), out, False, line.json)


def spec_named(
    command: Command, specs: Mapping[str, OptionSpec], name: str, prefix: str = ""
) -> OptionSpec:
    """Return the option called `name` or one of its aliases.

    Raises
    ------
    OptionError
        When there is none, with the nearest names, `prefix` before each.
    """
    wanted = name.replace("-", "_")
    for spec in specs.values():
        if wanted == spec.name or wanted in spec.aliases:
            return spec
    raise _unknown(command, specs, prefix + name, wanted, prefix)


def _unknown(
    command: Command, specs: Mapping[str, OptionSpec], typed: str, wanted: str, prefix: str
) -> OptionError:
    names = [name for spec in specs.values() for name in (spec.name, *spec.aliases)]
    return OptionError(
        _("{command} has no option '{name}'.", command=command.name, name=typed),
        did_you_mean(wanted, names, prefix),
        _help_hint(command.name),
    )


def _help_hint(command_name: str) -> str:
    return _("Type '%swift {command} --help' for the options.", command=command_name)


def _given(name: str, value: Any) -> dict[str, Any]:
    return {} if value is None else {name: value}


def _split_at_dashes(words: list[str]) -> tuple[list[str], list[str]]:
    """Return the words before and after ``--``; those after it are never options."""
    if "--" not in words:
        return words, []
    place = words.index("--")
    return words[:place], words[place + 1 :]


def _normalise(word: str) -> str:
    """Make ``--lora-rank=8`` and ``--lora_rank=8`` the same."""
    if not word.startswith("--"):
        return word
    name, sign, value = word.partition("=")
    return "--" + name[2:].replace("-", "_") + sign + value


def _complete_flags(specs: Mapping[str, OptionSpec], words: list[str]) -> list[str]:
    """Turn ``--strict`` into ``--strict=true``, so that it never takes the next word.

    ``--strict false``, as ms-swift's users write, becomes ``--strict=false``.
    """
    flags = {
        f"--{name}"
        for spec in specs.values()
        if spec.kind == "flag"
        for name in (spec.name, *spec.aliases)
    }
    completed: list[str] = []
    for word in words:
        if completed and completed[-1] in flags and word.lower() in TRUE + FALSE:
            completed[-1] += f"={word}"
            continue
        if completed and completed[-1] in flags:
            completed[-1] += "=true"
        completed.append(word)
    if completed and completed[-1] in flags:
        completed[-1] += "=true"
    return completed


def _parse_line(
    command: Command,
    specs: Mapping[str, OptionSpec],
    words: list[str],
    plain: list[str],
    objects: _Objects,
) -> argparse.Namespace:
    for word in words:
        _check_dash(command, specs, word)
    parser = _parser(command, specs)
    try:
        line, rest = parser.parse_known_args(words)
    except argparse.ArgumentError as error:
        parser.error(str(error))
    for word in rest:
        if word.startswith("-") and not _is_text(word):
            spec_named(command, specs, word.partition("=")[0].lstrip("-"), "--")
    _take_positionals(command, specs, line, [*rest, *plain], objects)
    return line


def _parser(command: Command, specs: Mapping[str, OptionSpec]) -> _Parser:
    parser = _Parser(prog=command.name, add_help=False, allow_abbrev=False)
    parser.add_argument("-o", "--out", default=None)
    parser.add_argument("--json", action="store_true")
    for spec in specs.values():
        names = [f"--{name}" for name in (spec.name, *spec.aliases)]
        if spec.short:
            names.insert(0, f"-{spec.short}")
        if spec.many:
            parser.add_argument(*names, dest=spec.name, nargs="+", action="extend", default=None)
        else:
            parser.add_argument(*names, dest=spec.name, default=None)
    return parser


def _check_dash(command: Command, specs: Mapping[str, OptionSpec], word: str) -> None:
    """Refuse ``-model x``, which argparse takes for ``-m odel`` and a stray ``x``."""
    name = word.partition("=")[0]
    if name.startswith("-") and not name.startswith("--") and len(name) > 2 and not _is_text(word):
        wanted = name[1:].replace("-", "_")
        raise _unknown(command, specs, name, wanted, "--")


def _is_text(word: str) -> bool:
    """Tell whether a word that begins with a dash is a number, a sentence or a lone dash."""
    return word == "-" or " " in word or _is_number(word)


def _take_positionals(
    command: Command,
    specs: Mapping[str, OptionSpec],
    line: argparse.Namespace,
    words: list[str],
    objects: _Objects,
) -> None:
    """Give words without a flag to the positional options, in order."""
    for spec in (spec for spec in specs.values() if spec.positional):
        if not words:
            return
        if spec.many:
            setattr(line, spec.name, [*(getattr(line, spec.name) or []), *words])
            return
        if getattr(line, spec.name) is None:
            text = objects.sentence(words) if spec.takes_rest else words.pop(0)
            setattr(line, spec.name, text)
            if spec.takes_rest:
                return
    if words:
        raise OptionError(
            _("{command} cannot use '{word}'.", command=command.name, word=objects.typed(words[0])),
            _("Options start with --, such as --{name}.", name=next(iter(specs), "help")),
            _help_hint(command.name),
        )


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True


def _from_line(spec: OptionSpec, raw: str | list[str] | None, objects: _Objects) -> Any:
    where = spec.name.upper() if spec.positional else spec.flag
    if raw is None:
        return None
    if isinstance(raw, list):
        return convert_tokens(spec, [objects.show(item) for item in raw], where)
    return convert_token(spec, objects.show(raw), where)


def _parse_body(
    command: Command,
    specs: Mapping[str, OptionSpec],
    body: str,
    resolve: Callable[[str], Token] | None,
    prompt_on_line: str,
) -> dict[str, Any]:
    if not body.strip():
        return {}
    if command.body == "prompt":
        if prompt_on_line:
            raise OptionError(
                _("There is a prompt below the line and on it: '{line}'.", line=prompt_on_line),
                _("Options start with --, such as --{name}.", name="model"),
                _help_hint(command.name),
            )
        return {command.prompt_option: body.strip("\r\n")}
    if command.body == "yaml":
        return _parse_yaml(command, specs, body, resolve)
    raise OptionError(
        _("%%swift {command} takes no cell body.", command=command.name),
        next_step=_("Type it on one line: %swift {command} …", command=command.name),
    )


def _parse_yaml(
    command: Command,
    specs: Mapping[str, OptionSpec],
    text: str,
    resolve: Callable[[str], Token] | None,
    **place: int,
) -> dict[str, Any]:
    from swift_jupyter.commands.yaml_body import parse_yaml_body

    return parse_yaml_body(command, specs, text, resolve or _unresolved, **place)


def _unresolved(text: str) -> Token:
    return text


def _check_required(
    command: Command, specs: Mapping[str, OptionSpec], values: Mapping[str, Any]
) -> None:
    missing = [
        spec
        for spec in specs.values()
        if spec.required and (spec.name not in values or (spec.many and not values[spec.name]))
    ]
    if missing:
        spec = missing[0]
        name = spec.name.upper() if spec.positional else spec.flag
        raise OptionError(
            _("{command} needs {name}.", command=command.name, name=name),
            spec.help,
            _("For example: {example}", example=command.examples[0]),
        )


def _check_variable_name(name: str) -> str:
    if not name.isidentifier() or keyword.iskeyword(name):
        raise OptionError(
            _("--out takes the name of a variable, not '{name}'.", name=name),
            next_step=_("For example: --out run"),
        )
    return name
