"""From a line and a cell body to a frozen dataclass of options.

Parsing is pure: it reads no file, no environment, and imports nothing heavy.
"""

from __future__ import annotations

import argparse
import json
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from swift_jupyter.commands.table import Command
from swift_jupyter.errors import OptionError, did_you_mean
from swift_jupyter.i18n import translate as _
from swift_jupyter.options import OptionSpec, option_specs

_TRUE = ("true", "yes", "on", "1")
_FALSE = ("false", "no", "off", "0")


@dataclass(frozen=True)
class ObjectArgument:
    """A Python object given as ``$name`` or ``{expression}``, with that text."""

    text: str
    value: Any


Token = str | ObjectArgument


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
        raise OptionError(
            message[:1].upper() + message[1:] + ".",
            _("Type '%swift {command} --help' for the options.", command=self.prog),
        )


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


def parse(
    command: Command,
    tokens: Sequence[Token],
    body: str | None = None,
    given: Mapping[str, Any] | None = None,
    resolve: Callable[[str], Token] | None = None,
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

    Raises
    ------
    OptionError
        When anything does not fit the command table.
    """
    specs = option_specs(command.load_options())
    objects = _Objects()
    words = [_normalise(objects.hide(token)) for token in tokens]
    if "--help" in words or "-h" in words:
        return ParsedCommand(command, None, wants_help=True)
    line = _parse_line(command, specs, _complete_flags(specs, words))
    values: dict[str, Any] = {}
    if body is not None:
        values.update(_parse_body(command, specs, body, resolve))
    for name, spec in specs.items():
        raw = getattr(line, name)
        if raw is not None and raw != []:
            values[name] = _from_line(spec, raw, objects)
    for name, value in (given or {}).items():
        values[name] = _from_python(spec_named(command, specs, name), value)
    _check_required(command, specs, values)
    out = _check_variable_name(line.out) if line.out else ""
    return ParsedCommand(command, command.load_options()(**values), out, False, line.json)


def spec_named(command: Command, specs: Mapping[str, OptionSpec], name: str) -> OptionSpec:
    """Return the option called `name` or one of its aliases.

    Raises
    ------
    OptionError
        When there is none, with the nearest names.
    """
    wanted = name.replace("-", "_")
    for spec in specs.values():
        if wanted == spec.name or wanted in spec.aliases:
            return spec
    raise OptionError(
        _("{command} has no option '{name}'.", command=command.name, name=name),
        did_you_mean(wanted, specs),
        _("Type '%swift {command} --help' for the options.", command=command.name),
    )


def _normalise(word: str) -> str:
    """Make ``--lora-rank=8`` and ``--lora_rank=8`` the same."""
    if not word.startswith("--") or word == "--":
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
        if completed and completed[-1] in flags and word.lower() in _TRUE + _FALSE:
            completed[-1] += f"={word}"
            continue
        if completed and completed[-1] in flags:
            completed[-1] += "=true"
        completed.append(word)
    if completed and completed[-1] in flags:
        completed[-1] += "=true"
    return completed


def _parse_line(
    command: Command, specs: Mapping[str, OptionSpec], words: list[str]
) -> argparse.Namespace:
    parser = _Parser(prog=command.name, add_help=False, allow_abbrev=False)
    parser.add_argument("-o", "--out", default="")
    parser.add_argument("--json", action="store_true")
    for spec in specs.values():
        names = [f"--{name}" for name in (spec.name, *spec.aliases)]
        if spec.short:
            names.insert(0, f"-{spec.short}")
        parser.add_argument(
            *names, dest=spec.name, nargs="+" if spec.many else None, default=None
        )
    try:
        line, rest = parser.parse_known_args(words)
    except argparse.ArgumentError as error:
        parser.error(str(error))
    for word in rest:
        if word.startswith("-") and not _is_number(word) and len(word) > 1:
            spec_named(command, specs, word.partition("=")[0].lstrip("-"))
    _take_positionals(command, specs, line, rest)
    return line


def _take_positionals(
    command: Command,
    specs: Mapping[str, OptionSpec],
    line: argparse.Namespace,
    words: list[str],
) -> None:
    """Give words without a flag to the positional options, in order."""
    for spec in (spec for spec in specs.values() if spec.positional):
        if not words:
            return
        if spec.many:
            setattr(line, spec.name, [*(getattr(line, spec.name) or []), *words])
            return
        if spec.takes_rest:
            setattr(line, spec.name, " ".join(words))
            return
        if getattr(line, spec.name) is None:
            setattr(line, spec.name, words.pop(0))
    if words:
        raise OptionError(
            _("{command} cannot use '{word}'.", command=command.name, word=words[0]),
            _("Options start with --, such as --{name}.", name=next(iter(specs), "help")),
            _("Type '%swift {command} --help' for the options.", command=command.name),
        )


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True


def _from_line(spec: OptionSpec, raw: str | list[str], objects: _Objects) -> Any:
    if isinstance(raw, list):
        return [convert_token(spec, objects.show(item), spec.flag) for item in raw]
    return convert_token(spec, objects.show(raw), spec.flag)


def convert_token(spec: OptionSpec, value: Token, where: str) -> Any:
    """Convert one word or object to the option's type; see `convert_text`."""
    if isinstance(value, ObjectArgument):
        if spec.kind == "mapping" and isinstance(value.value, Mapping):
            return {str(key): str(item) for key, item in value.value.items()}
        if spec.objects and not isinstance(value.value, (str, int, float, bool)):
            return value.value
        value = str(value.value)
    return convert_text(spec, value, where)


def convert_text(spec: OptionSpec, text: str, where: str) -> Any:
    """Convert the text of one value to the option's type.

    Parameters
    ----------
    spec : OptionSpec
        The option.
    text : str
        The value as typed.
    where : str
        What an error names: the flag, or the key with its line.

    Raises
    ------
    OptionError
        When the text does not fit.
    """
    if spec.kind == "text":
        return _check_choice(spec, text, where)
    if spec.kind == "flag":
        if text.lower() in _TRUE + _FALSE:
            return text.lower() in _TRUE
    elif spec.kind == "mapping":
        return _mapping_from_json(spec, text, where)
    else:
        number = _number(text)
        if number is not None and (spec.kind == "number" or number == int(number)):
            return number if spec.kind == "number" else int(number)
    raise OptionError(
        _("{where} takes a {type}, not '{text}'.", where=where, type=spec.type_text, text=text)
    )


def _number(text: str) -> float | None:
    try:
        number = float(text.replace("_", ""))
    except ValueError:
        return None
    return number if abs(number) < float("inf") else None


def _mapping_from_json(spec: OptionSpec, text: str, where: str) -> dict[str, str]:
    try:
        value = json.loads(text)
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise OptionError(
            _("{where} takes a JSON object, not '{text}'.", where=where, text=text),
            next_step=_('Quote it, such as {flag} \'{{"old": "new"}}\'.', flag=spec.flag),
        )
    return {str(key): str(item) for key, item in value.items()}


def _check_choice(spec: OptionSpec, text: str, where: str) -> str:
    text = spec.choice_aliases.get(text, text)
    if spec.choices and text not in spec.choices:
        raise OptionError(
            _("{where} cannot be '{text}'.", where=where, text=text),
            did_you_mean(text, spec.choices),
            _("It is one of {choices}.", choices=", ".join(spec.choices)),
        )
    return text


def _from_python(spec: OptionSpec, value: Any) -> Any:
    """Fit a value given in Python (the SDK) to the option."""
    if value is None:
        return spec.default
    if spec.many:
        items = value if isinstance(value, (list, tuple)) else [value]
        if spec.objects and items and isinstance(items[0], dict):
            return [list(items)]  # A list of rows is one dataset.
        return [_item_from_python(spec, item) for item in items]
    if spec.kind == "mapping" and isinstance(value, Mapping):
        return {str(key): str(item) for key, item in value.items()}
    return _item_from_python(spec, value)


def _item_from_python(spec: OptionSpec, value: Any) -> Any:
    if spec.objects and not isinstance(value, (str, int, float, bool)):
        return value
    return convert_text(spec, str(value), spec.name)


def _parse_body(
    command: Command,
    specs: Mapping[str, OptionSpec],
    body: str,
    resolve: Callable[[str], Token] | None,
) -> dict[str, Any]:
    if command.body == "prompt":
        text = body.strip("\n")
        return {command.prompt_option: text} if text.strip() else {}
    if not body.strip():
        return {}
    if command.body == "yaml":
        from swift_jupyter.commands.yaml_body import parse_yaml_body

        return parse_yaml_body(command, specs, body, resolve or _unresolved)
    raise OptionError(
        _("%%swift {command} takes no cell body.", command=command.name),
        next_step=_("Type it on one line: %swift {command} …", command=command.name),
    )


def _unresolved(text: str) -> Token:
    return text


def split_words(text: str) -> list[str]:
    """Split text as a shell does, for options with several values."""
    try:
        return shlex.split(text)
    except ValueError:
        return text.split()


def _check_required(
    command: Command, specs: Mapping[str, OptionSpec], values: Mapping[str, Any]
) -> None:
    missing = [spec for spec in specs.values() if spec.required and spec.name not in values]
    if missing:
        spec = missing[0]
        name = spec.name.upper() if spec.positional else spec.flag
        raise OptionError(
            _("{command} needs {name}.", command=command.name, name=name),
            spec.help,
            _("For example: {example}", example=command.examples[0]),
        )


def _check_variable_name(name: str) -> str:
    import keyword

    if not name.isidentifier() or keyword.iskeyword(name):
        raise OptionError(
            _("--out takes the name of a variable, not '{name}'.", name=name),
            next_step=_("For example: --out run"),
        )
    return name
