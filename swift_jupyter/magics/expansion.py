"""``$name`` and ``{expression}`` on a line: the object itself where that is meant."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from swift_jupyter.commands.values import ObjectArgument, Token
from swift_jupyter.errors import OptionError, did_you_mean
from swift_jupyter.i18n import translate as _

_NAME = r"[^\W\d]\w*(?:\.[^\W\d]\w*)*"
_WHOLE_NAME = re.compile(rf"\$({_NAME})")
_WHOLE_EXPRESSION = re.compile(r"\{(.+)\}", re.DOTALL)
_PART = re.compile(rf"\$\$|\$({_NAME})|\{{([^{{}}]+)\}}")
_FLAG_AND_VALUE = re.compile(rf"(--[\w-]+)=(\${_NAME}|\{{.+\}})", re.DOTALL)


def expand_words(words: Iterable[str], namespace: Mapping[str, Any]) -> list[Token]:
    """Return what the words of a line mean; ``--name=$value`` becomes two."""
    tokens: list[Token] = []
    for word in words:
        match = _FLAG_AND_VALUE.fullmatch(word)
        tokens.extend(expand(part, namespace) for part in (match.groups() if match else (word,)))
    return tokens


def expand(word: str, namespace: Mapping[str, Any]) -> Token:
    """Return what a word means.

    Parameters
    ----------
    word : str
        One word of a line.
    namespace : mapping
        The variables that are visible where the magic stands.

    Returns
    -------
    str or ObjectArgument
        The object when the whole word is ``$name`` or ``{expression}``, else the
        word with the parts that could be evaluated. ``$$`` is a plain ``$``.

    Raises
    ------
    OptionError
        When the whole word is ``$name`` and there is no such variable.
    """
    match = _WHOLE_NAME.fullmatch(word)
    if match:
        return ObjectArgument(word, look_up(match.group(1), namespace))
    match = _WHOLE_EXPRESSION.fullmatch(word)
    if match:
        try:
            return ObjectArgument(word, _evaluate(match.group(1), namespace))
        except Exception:
            return word  # Braces may be JSON or text, so they stay as they are.
    return _PART.sub(lambda part: _part(part, namespace), word)


def look_up(path: str, namespace: Mapping[str, Any]) -> Any:
    """Return the variable, or attribute of one, that a dotted name means.

    Raises
    ------
    OptionError
        When there is none.
    """
    name, *attributes = path.split(".")
    if name not in namespace:
        raise OptionError(
            _("There is no variable '{name}'.", name=name),
            did_you_mean(name, [key for key in namespace if not key.startswith("_")], "$"),
            _("Write $$ for a dollar sign that is only text."),
        )
    value = namespace[name]
    for attribute in attributes:
        if not hasattr(value, attribute):
            raise OptionError(
                _("'{name}' has no attribute '{attribute}'.", name=name, attribute=attribute),
                did_you_mean(attribute, [key for key in dir(value) if not key.startswith("_")]),
            )
        value = getattr(value, attribute)
    return value


def resolver(namespace: Mapping[str, Any]) -> Callable[[str], Token]:
    """Return a function that resolves ``$name`` values of a cell body, and nothing else."""

    def resolve(text: str) -> Token:
        match = _WHOLE_NAME.fullmatch(text)
        return ObjectArgument(text, look_up(match.group(1), namespace)) if match else text

    return resolve


def _evaluate(expression: str, namespace: Mapping[str, Any]) -> Any:
    # As globals, since a comprehension does not see the locals given to eval.
    return eval(expression, dict(namespace))


def _part(part: re.Match[str], namespace: Mapping[str, Any]) -> str:
    if part.group() == "$$":
        return "$"
    name, expression = part.groups()
    try:
        value = look_up(name, namespace) if name else _evaluate(expression, namespace)
    except Exception:
        return part.group()
    return os.fspath(value) if isinstance(value, os.PathLike) else str(value)
