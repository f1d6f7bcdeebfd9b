"""Declare an option once: its type, default, help, choices and completer.

Every dataclass of options is built with `option`; parsers, help, completion and
the reference table read the same declaration through `option_specs`.
"""

from __future__ import annotations

import dataclasses
import functools
import types
import typing
from dataclasses import MISSING, dataclass, field
from typing import Any, Literal

from swift_jupyter.i18n import translate as _

Kind = Literal["text", "integer", "number", "flag", "mapping"]

_KINDS: dict[type, Kind] = {
    str: "text",
    int: "integer",
    float: "number",
    bool: "flag",
    dict: "mapping",
}


def option(
    default: Any = MISSING,
    *,
    help: str,
    choices: tuple[str, ...] = (),
    completer: str = "",
    positional: bool = False,
    takes_rest: bool = False,
    objects: bool = False,
    aliases: tuple[str, ...] = (),
    choice_aliases: dict[str, str] | None = None,
    short: str = "",
) -> Any:
    """Declare one field of a dataclass of options.

    Parameters
    ----------
    default : object, optional
        The default; left out for a required option. A list or dict is copied.
    help : str
        One full sentence.
    choices : tuple of str, optional
        The only values allowed.
    completer : str, optional
        Which names complete the value: ``model``, ``dataset``, ``path``, ``run``,
        ``adapter``, ``setting``, ``cached``, ``mirror`` or ``source``.
    positional : bool, optional
        Whether words without a flag belong to this option.
    takes_rest : bool, optional
        Whether all remaining words are its text, so that no quotes are needed.
    objects : bool, optional
        Whether ``$name`` passes the Python object itself.
    aliases : tuple of str, optional
        Older spellings of the name.
    choice_aliases : dict, optional
        Older spellings of values.
    short : str, optional
        A one-letter flag, without its dash.
    """
    metadata = {
        "help": help,
        "choices": choices,
        "completer": completer,
        "positional": positional,
        "takes_rest": takes_rest,
        "objects": objects,
        "aliases": aliases,
        "choice_aliases": choice_aliases or {},
        "short": short,
    }
    if isinstance(default, (list, dict)):
        copy = type(default)
        value = default
        return field(default_factory=lambda: copy(value), metadata=metadata)
    if default is MISSING:
        return field(metadata=metadata)
    return field(default=default, metadata=metadata)


@dataclass(frozen=True)
class OptionSpec:
    """What is known about one option."""

    name: str
    kind: Kind
    many: bool
    required: bool
    default: Any
    help: str
    choices: tuple[str, ...]
    completer: str
    positional: bool
    takes_rest: bool
    objects: bool
    aliases: tuple[str, ...]
    choice_aliases: dict[str, str]
    short: str

    @property
    def flag(self) -> str:
        """The option as it is typed, such as ``--lora_rank``."""
        return "--" + self.name

    @property
    def type_text(self) -> str:
        """The type in words, for help and errors."""
        if self.choices:
            return "|".join(self.choices)
        return self.item_text + (" …" if self.many else "")

    @property
    def item_text(self) -> str:
        """The type of one value in words."""
        words = {
            "text": _("text"),
            "integer": _("whole number"),
            "number": _("number"),
            "flag": "true|false",
            "mapping": _("key: value pairs"),
        }
        return words[self.kind]

    @property
    def default_text(self) -> str:
        """The default in words; empty when there is none."""
        if self.required or self.default is None or self.default in ([], {}, ""):
            return ""
        if isinstance(self.default, bool):
            return str(self.default).lower()
        if isinstance(self.default, list):
            return " ".join(str(item) for item in self.default)
        return str(self.default)


@functools.cache
def option_specs(options: type) -> dict[str, OptionSpec]:
    """Return the options of a dataclass by name, in their order of declaration.

    Raises
    ------
    TypeError
        For a field that was not declared with `option` or has an unknown type.
    """
    hints = typing.get_type_hints(options)
    return {f.name: _spec(f, hints[f.name]) for f in dataclasses.fields(options)}


def _spec(declared: dataclasses.Field[Any], hint: Any) -> OptionSpec:
    if "help" not in declared.metadata:
        raise TypeError(f"{declared.name} is not declared with option()")
    kind, many = _kind_of(hint)
    required = declared.default is MISSING and declared.default_factory is MISSING
    default: Any = None
    if declared.default is not MISSING:
        default = declared.default
    elif declared.default_factory is not MISSING:
        default = declared.default_factory()
    return OptionSpec(
        name=declared.name,
        kind=kind,
        many=many,
        required=required,
        default=default,
        **{key: declared.metadata[key] for key in _METADATA},
    )


_METADATA = (
    "help",
    "choices",
    "completer",
    "positional",
    "takes_rest",
    "objects",
    "aliases",
    "choice_aliases",
    "short",
)


def _kind_of(hint: Any) -> tuple[Kind, bool]:
    origin = typing.get_origin(hint)
    if origin in (typing.Union, types.UnionType):
        inner = [part for part in typing.get_args(hint) if part is not type(None)]
        return _kind_of(inner[0])
    if origin is list:
        item = typing.get_args(hint)[0]
        return ("text" if item is Any or item is object else _KINDS[item]), True
    if origin is dict:
        return "mapping", False
    if hint is Any or hint is object:
        return "text", False
    return _KINDS[hint], False
