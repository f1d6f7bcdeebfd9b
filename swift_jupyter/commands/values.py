"""From a word, or a Python object, to the value of an option."""

from __future__ import annotations

import json
import numbers
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

from swift_jupyter.errors import OptionError, did_you_mean
from swift_jupyter.i18n import translate as _
from swift_jupyter.options import OptionSpec

TRUE = ("true", "yes", "on", "1")
FALSE = ("false", "no", "off", "0")


@dataclass(frozen=True)
class ObjectArgument:
    """A Python object given as ``$name`` or ``{expression}``, with that text."""

    text: str
    value: Any


Token = str | ObjectArgument


def convert_token(spec: OptionSpec, token: Token, where: str) -> Any:
    """Convert one word or object to the option's type; see `convert_text`."""
    if isinstance(token, ObjectArgument):
        return from_python(spec, token.value, where)
    return convert_text(spec, token, where)


def convert_tokens(spec: OptionSpec, tokens: Iterable[Token], where: str) -> list[Any]:
    """Convert the words and objects of an option with several values."""
    values: list[Any] = []
    for token in tokens:
        value = convert_token(spec, token, where)
        values.extend(value if isinstance(token, ObjectArgument) else [value])
    return values


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
    if spec.kind == "mapping":
        return _mapping_from_json(spec, text, where)
    if spec.kind == "flag":
        if text.lower() in TRUE + FALSE:
            return text.lower() in TRUE
        raise OptionError(_("{where} is true or false, not '{value}'.", where=where, value=text))
    number = _integer(text) if spec.kind == "integer" else _number(text)
    if number is None:
        raise OptionError(
            _(
                "{where} takes a {type}, not '{value}'.",
                where=where,
                type=spec.item_text,
                value=text,
            )
        )
    return number


def from_python(spec: OptionSpec, value: Any, where: str) -> Any:
    """Fit a Python object to the option; None means that it is not given.

    Raises
    ------
    OptionError
        When the object does not fit.
    """
    if spec.many:
        return [_item(spec, item, where) for item in _spread(spec, value)]
    return None if value is None else _item(spec, value, where)


def _spread(spec: OptionSpec, value: Any) -> list[Any]:
    """Return the values that an object stands for: a list of rows is one data set."""
    if value is None:
        return []
    if not isinstance(value, (list, tuple)):
        return [value]
    rows = spec.objects and value and isinstance(value[0], Mapping)
    return [list(value)] if rows else list(value)


def _item(spec: OptionSpec, value: Any, where: str) -> Any:
    if isinstance(value, PurePath):
        value = str(value)
    # Exact types: an answer is a str too, and carries its conversation.
    if spec.objects and type(value) not in (str, int, float, bool):
        return value
    if spec.kind == "mapping" and isinstance(value, Mapping):
        return {str(key): str(item) for key, item in value.items()}
    if isinstance(value, os.PathLike):
        value = os.fspath(value)
    if spec.takes_rest or isinstance(value, (str, numbers.Number)):
        return convert_text(spec, str(value), where)
    raise OptionError(
        _(
            "{where} takes a {type}, not a {kind}.",
            where=where,
            type=spec.item_text,
            kind=type(value).__name__,
        )
    )


def _integer(text: str) -> int | None:
    try:
        return int(text)
    except ValueError:
        number = _number(text)  # 1e3 is a whole number too.
    return int(number) if number is not None and number == int(number) else None


def _number(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number if abs(number) < float("inf") else None


def _mapping_from_json(spec: OptionSpec, text: str, where: str) -> dict[str, str]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise OptionError(
            _("{where} takes a JSON object, not '{value}'.", where=where, value=text),
            next_step=_('Quote it, such as {flag} \'{{"old": "new"}}\'.', flag=spec.flag),
        )
    return {str(key): str(item) for key, item in value.items()}


def _check_choice(spec: OptionSpec, text: str, where: str) -> str:
    text = spec.choice_aliases.get(text, text)
    if spec.choices and text not in spec.choices:
        raise OptionError(
            _("{where} cannot be '{value}'.", where=where, value=text),
            did_you_mean(text, spec.choices),
            _("It is one of {choices}.", choices=", ".join(spec.choices)),
        )
    return text
