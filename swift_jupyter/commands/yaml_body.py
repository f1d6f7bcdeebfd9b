"""The YAML body of a cell: ``key: value`` lines that name a command's options."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import yaml

from swift_jupyter.commands.parsing import Token, convert_token, spec_named, split_words
from swift_jupyter.commands.table import Command
from swift_jupyter.errors import OptionError
from swift_jupyter.i18n import translate as _
from swift_jupyter.options import OptionSpec

# The line `%%swift …` is the first of the cell, so the body starts on the second.
_FIRST_LINE = 2


def parse_yaml_body(
    command: Command,
    specs: Mapping[str, OptionSpec],
    body: str,
    resolve: Callable[[str], Token],
) -> dict[str, Any]:
    """Return the option values that a body gives.

    Scalars are converted by the option's own type, so that ``learning_rate: 1e-4``
    is a number and ``model_name: 007`` stays text, whatever YAML makes of them.

    Raises
    ------
    OptionError
        For text that is not YAML, an unknown or repeated key, or a value that
        does not fit, with the line number in the cell.
    """
    try:
        root = yaml.compose(body, Loader=yaml.SafeLoader)
    except yaml.YAMLError as error:
        raise _syntax_error(error, body) from None
    if root is None:
        return {}
    if not isinstance(root, yaml.MappingNode):
        raise OptionError(
            _("The cell body is not made of 'key: value' lines."),
            next_step=_("For example: {example}", example="lora_rank: 8"),
        )
    values: dict[str, Any] = {}
    for key, node in root.value:
        where = _("Line {line}", line=_line(key))
        if not isinstance(key, yaml.ScalarNode):
            raise OptionError(_("{where}: the key is not a name.", where=where))
        try:
            spec = spec_named(command, specs, key.value)
        except OptionError as error:
            raise OptionError(f"{where}: {error.what}", error.why, error.next_step) from None
        if spec.name in values:
            raise OptionError(_("{where}: '{key}' is given twice.", where=where, key=key.value))
        value = _value(spec, node, f"{where}: {spec.name}", resolve)
        if value is not None:
            values[spec.name] = value
    return values


def _line(node: yaml.Node) -> int:
    return int(node.start_mark.line) + _FIRST_LINE


def _value(
    spec: OptionSpec, node: yaml.Node, where: str, resolve: Callable[[str], Token]
) -> Any:
    if isinstance(node, yaml.ScalarNode) and node.tag == "tag:yaml.org,2002:null":
        return None
    if spec.kind == "mapping" and isinstance(node, yaml.MappingNode):
        return {_scalar(spec, k, where): _scalar(spec, v, where) for k, v in node.value}
    if spec.many:
        texts = _texts(spec, node, where)
        return [convert_token(spec, resolve(text), where) for text in texts]
    return convert_token(spec, resolve(_scalar(spec, node, where)), where)


def _texts(spec: OptionSpec, node: yaml.Node, where: str) -> list[str]:
    """Return the values of a list, or of one line: a quoted text is one value."""
    if isinstance(node, yaml.SequenceNode):
        return [_scalar(spec, item, where) for item in node.value]
    text = _scalar(spec, node, where)
    quoted = isinstance(node, yaml.ScalarNode) and node.style in ("'", '"', "|", ">")
    return [text] if quoted else split_words(text)


def _scalar(spec: OptionSpec, node: yaml.Node, where: str) -> str:
    if not isinstance(node, yaml.ScalarNode):
        raise OptionError(_("{where} takes a {type}.", where=where, type=spec.type_text))
    return str(node.value)


def _syntax_error(error: yaml.YAMLError, body: str) -> OptionError:
    mark = getattr(error, "problem_mark", None)
    problem = getattr(error, "problem", None) or str(error)
    if mark is None:
        return OptionError(_("The cell body is not YAML."), problem)
    lines = body.splitlines()
    text = lines[mark.line].strip() if mark.line < len(lines) else ""
    return OptionError(
        _("Line {line} is not YAML: {text}", line=mark.line + _FIRST_LINE, text=text),
        problem,
        _("Write one 'key: value' a line; put text with a colon in quotes."),
    )
