"""Free options of a tuner: the fields of its peft configuration."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

from swift_jupyter.errors import OptionError, did_you_mean
from swift_jupyter.i18n import translate as _

# What other options say, or what would make it another thing.
_MANAGED = {
    "peft_type",
    "task_type",
    "inference_mode",
    "base_model_name_or_path",
    "revision",
    "auto_mapping",
    "peft_version",
    "target_modules",
    "modules_to_save",
    "layers_to_transform",
    "layers_pattern",
}
_WORDS = {"true": True, "false": False, "none": None, "null": None}


def read_tuner_args(config: type, given: Mapping[str, Any], tuner: str) -> dict[str, Any]:
    """Return the fields that the user gave, as values of their types.

    Parameters
    ----------
    config : type
        A dataclass.
    given : mapping of str to object
        Texts, which may be JSON, or values.
    tuner : str
        What an error names.

    Raises
    ------
    OptionError
        For a field that does not exist, with the nearest, or a value of another type.
    """
    fields = {f.name: f for f in dataclasses.fields(config) if f.name not in _MANAGED}
    values = {}
    for name, text in given.items():
        if name not in fields:
            raise OptionError(
                _("{tuner} has no option '{name}' in tuner_args.", tuner=tuner, name=name),
                did_you_mean(name, fields),
                _("It has: {names}", names=", ".join(sorted(fields))),
            )
        values[name] = _fit(value_of(text), fields[name].default, name, text)
    return values


def value_of(text: Any) -> Any:
    """Return what a text means: a JSON value, a number, true, false, none, or itself."""
    if not isinstance(text, str):
        return text
    stripped = text.strip()
    if stripped.lower() in _WORDS:
        return _WORDS[stripped.lower()]
    for read in (json.loads, float, _literal):
        try:
            return read(stripped)
        except (ValueError, SyntaxError, RecursionError):
            continue
    return text


def _literal(text: str) -> Any:
    """Read what Python's `str` made of a list or a dict."""
    import ast

    if not text.startswith(("[", "{", "(")):
        raise ValueError
    return ast.literal_eval(text)


def _fit(value: Any, default: Any, name: str, text: Any) -> Any:
    """Return the value as the type of the default, where that tells a type."""
    kind = type(default)
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if kind is int and isinstance(value, float) and value.is_integer():
        return int(value)
    if kind in (float, int) and value is not None and type(value) is not kind:
        raise OptionError(
            _(
                "tuner_args: {name} takes a {type}, not '{value}'.",
                name=name,
                type=_("number") if kind is float else _("whole number"),
                value=text,
            )
        )
    return value
