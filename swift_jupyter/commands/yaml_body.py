"""Options as YAML: ``key: value`` lines in the body of a cell or in a file."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping
from typing import Any

import yaml

from swift_jupyter.commands.parsing import spec_named
from swift_jupyter.commands.table import Command
from swift_jupyter.commands.values import Token, convert_token, convert_tokens
from swift_jupyter.errors import OptionError
from swift_jupyter.i18n import translate as _
from swift_jupyter.options import OptionSpec


def parse_yaml_body(
    command: Command,
    specs: Mapping[str, OptionSpec],
    body: str,
    resolve: Callable[[str], Token],
    first_line: int = 2,
) -> dict[str, Any]:
    """Return the option values that a text gives.

    Scalars are converted by the option's own type, so that ``learning_rate: 1e-4``
    is a number and ``model_name: 007`` stays text, whatever YAML makes of them.

    Parameters
    ----------
    command : Command
        The subcommand.
    specs : mapping of str to OptionSpec
        Its options.
    body : str
        The YAML text.
    resolve : callable
        Returns the object that a ``$name`` means, or the text itself.
    first_line : int, optional
        The number of the text's first line; in a cell ``%%swift …`` stands above it.

    Raises
    ------
    OptionError
        For text that is not YAML, an unknown or repeated key, or a value that
        does not fit, with the line number in the cell or file.
    """
    try:
        root = yaml.compose(body, Loader=yaml.SafeLoader)
    except yaml.YAMLError as error:
        raise _syntax_error(error, body, first_line) from None
    except RecursionError:
        raise OptionError(_("The options are nested too deeply.")) from None
    if root is None:
        return {}
    if not isinstance(root, yaml.MappingNode):
        raise OptionError(
            _("The options are not made of 'key: value' lines."),
            next_step=_("For example: {example}", example="lora_rank: 8"),
        )
    values: dict[str, Any] = {}
    seen: set[str] = set()
    for key, node in root.value:
        where = _("Line {line}", line=key.start_mark.line + first_line)
        if not isinstance(key, yaml.ScalarNode):
            raise OptionError(_("{where}: the key is not a name.", where=where))
        try:
            spec = spec_named(command, specs, key.value)
        except OptionError as error:
            raise OptionError(f"{where}: {error.what}", error.why, error.next_step) from None
        if spec.name in seen:
            raise OptionError(_("{where}: '{key}' is given twice.", where=where, key=key.value))
        seen.add(spec.name)
        value = _value(spec, node, f"{where}: {spec.name}", resolve)
        if value is not None:
            values[spec.name] = value
    return values


def _value(spec: OptionSpec, node: yaml.Node, where: str, resolve: Callable[[str], Token]) -> Any:
    if isinstance(node, yaml.ScalarNode) and node.tag == "tag:yaml.org,2002:null":
        return None
    if spec.kind == "mapping" and isinstance(node, yaml.MappingNode):
        return {_scalar(spec, k, where): _scalar(spec, v, where) for k, v in node.value}
    if spec.many:
        return convert_tokens(spec, map(resolve, _texts(spec, node, where)), where)
    return convert_token(spec, resolve(_scalar(spec, node, where)), where)


def _texts(spec: OptionSpec, node: yaml.Node, where: str) -> list[str]:
    """Return the values of a list, or of one line: a quoted text is one value."""
    if isinstance(node, yaml.SequenceNode):
        return [_scalar(spec, item, where) for item in node.value]
    text = _scalar(spec, node, where)
    quoted = isinstance(node, yaml.ScalarNode) and node.style in ("'", '"', "|", ">")
    return [text] if quoted else _split_words(text)


def _split_words(text: str) -> list[str]:
    """Split text as a shell does; a lone quote is only a character."""
    try:
        return shlex.split(text)
    except ValueError:
        return text.split()


def _scalar(spec: OptionSpec, node: yaml.Node, where: str) -> str:
    if not isinstance(node, yaml.ScalarNode):
        raise OptionError(
            _("{where} takes a {type}, not a list or a mapping.", where=where, type=spec.item_text)
        )
    return str(node.value)


def _syntax_error(error: yaml.YAMLError, body: str, first_line: int) -> OptionError:
    mark = getattr(error, "problem_mark", None)
    problem = getattr(error, "problem", None) or str(error)
    if mark is None:
        return OptionError(_("The options are not YAML."), problem.split("\n")[0])
    lines = body.splitlines()
    text = lines[mark.line].strip() if mark.line < len(lines) else ""
    return OptionError(
        _("Line {line} is not YAML: {content}", line=mark.line + first_line, content=text),
        problem,
        _("Write one 'key: value' a line; put text with a colon in quotes."),
    )
