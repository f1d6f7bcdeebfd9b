"""Which modules of a model an adapter sits on."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any

from torch import nn
from transformers import PreTrainedModel

from swift_jupyter.engine.training.tuners.layer_spec import select_layers
from swift_jupyter.engine.training.tuners.layers import decoder_layers, layer_of
from swift_jupyter.engine.training.tuners.options import ALL_LINEAR, LowRankOptions
from swift_jupyter.engine.training.tuners.peft_tuners import Place
from swift_jupyter.errors import UserError, did_you_mean
from swift_jupyter.i18n import translate as _

Targets = str | list[str] | None


def choose_targets(model: PreTrainedModel, options: LowRankOptions, place: Place) -> Targets:
    """Return peft's ``target_modules``.

    Parameters
    ----------
    model : PreTrainedModel
        The base.
    options : LowRankOptions
        ``target_modules``, ``target_regex`` and ``target_layers``.
    place : str
        Where this kind of adapter sits unless the user names modules.

    Raises
    ------
    UserError
        When a name or a pattern fits no module.
    """
    named = [name for name in options.target_modules if name != ALL_LINEAR]
    everything = ALL_LINEAR in options.target_modules or not options.target_modules
    if place == "nowhere":
        if named or options.target_regex or options.target_layers:
            raise UserError(
                _("{tuner} has no target modules.", tuner=options.tuner_type),
                next_step=_("Leave out --target_modules, --target_regex and --target_layers."),
            )
        return None
    if options.target_regex:
        found = _by_regex(model, options.target_regex)
        compact: Targets = options.target_regex
    elif named and not everything:
        found = modules_called(model, named)
        compact = named
    elif place == "linear":
        found = [*_linear_layers(model), *(modules_called(model, named) if named else [])]
        compact = found if named else ALL_LINEAR
    elif place == "norms":
        found = compact = _modules(model, lambda module: "norm" in type(module).__name__.lower())
    else:
        found, compact = _known_to_peft(model, options)
    if not options.target_layers:
        return compact
    path, layers = decoder_layers(model)
    wanted = set(select_layers(options.target_layers, len(layers)))
    inside = [name for name in found if layer_of(name, path) in wanted]
    if not inside:
        raise UserError(
            _("No target module is in the layers {layers}.", layers=options.target_layers),
            next_step=_("Check --target_layers and --target_modules."),
        )
    return _compact(inside, path)


def _compact(names: list[str], layers_path: str) -> str | list[str]:
    """Return one pattern for the same modules in some layers; peft cannot shorten such a list."""
    places = [name[len(layers_path) + 1 :].partition(".") for name in names]
    layers = dict.fromkeys(number for number, _dot, _rest in places)
    rests = dict.fromkeys(rest for _number, _dot, rest in places)
    if len(layers) * len(rests) != len(set(names)):
        return names
    inner = "|".join(re.escape(rest) for rest in rests)
    return rf"{re.escape(layers_path)}\.(?:{'|'.join(layers)})\.(?:{inner})"


def _modules(model: nn.Module, fits: Callable[[nn.Module], bool]) -> list[str]:
    return [name for name, module in model.named_modules() if name and fits(module)]


def _linear_layers(model: PreTrainedModel) -> list[str]:
    """Return every linear layer but the output; GPT-2's Conv1D is one, too."""
    output = model.get_output_embeddings()
    return _modules(
        model,
        lambda module: (
            module is not output
            and (isinstance(module, nn.Linear) or type(module).__name__ == "Conv1D")
        ),
    )


def common_divisor(model: PreTrainedModel, limit: int) -> int:
    """Return the largest number up to `limit` that divides the widths of all linear layers."""
    modules = dict(model.named_modules())
    widths: list[int] = []
    for name in _linear_layers(model):
        layer: Any = modules[name]
        widths += layer.weight.shape
    common = math.gcd(*widths)
    return next(size for size in range(min(limit, common), 0, -1) if common % size == 0)


def _by_regex(model: nn.Module, pattern: str) -> list[str]:
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise UserError(
            _("target_regex is not a regular expression."), str(error), _("Check its brackets.")
        ) from None
    found = [name for name, _module in model.named_modules() if compiled.fullmatch(name)]
    if not found:
        example = next(iter(_modules(model, lambda module: isinstance(module, nn.Linear))), "")
        raise UserError(
            _("No module fits target_regex {pattern}.", pattern=pattern),
            _("It must fit the whole name, such as {name}.", name=example),
            _(r"For example: --target_regex '.*\.q_proj'"),
        )
    return found


def modules_called(model: nn.Module, names: list[str], option: str = "target_modules") -> list[str]:
    """Return the modules that are called so, or whose names end so.

    Raises
    ------
    UserError
        For a name that no module has, with the nearest.
    """
    every = [name for name, _module in model.named_modules() if name]
    found: list[str] = []
    for wanted in names:
        fitting = [name for name in every if name == wanted or name.endswith(f".{wanted}")]
        if not fitting:
            last_parts = sorted({name.rpartition(".")[2] for name in every} - _numbers(every))
            raise UserError(
                _("The model has no module '{name}'.", name=wanted),
                did_you_mean(wanted, last_parts)
                or _("It has: {names}", names=", ".join(last_parts)),
                _("Check --{option}.", option=option),
            )
        found.extend(fitting)
    return found


def _numbers(names: list[str]) -> set[str]:
    return {part for name in names for part in name.split(".") if part.isdigit()}


def _known_to_peft(model: PreTrainedModel, options: LowRankOptions) -> tuple[list[str], Targets]:
    """Return where (IA)^3's vectors sit in this architecture; they are not for any layer."""
    from peft.utils import TRANSFORMERS_MODELS_TO_IA3_TARGET_MODULES_MAPPING as KNOWN

    names = KNOWN.get(str(model.config.model_type))
    if names is None:
        raise UserError(
            _("It is not known where {tuner} sits in this model.", tuner=options.tuner_type),
            _("Its kind is {kind}.", kind=model.config.model_type),
            _("Name its key, value and last feed-forward layers: --target_modules"),
        )
    return modules_called(model, list(names)), list(names)


def feedforward_among(targets: Targets, model: PreTrainedModel) -> Targets:
    """Return those of an (IA)^3's targets whose input, rather than output, it scales."""
    from peft.utils import TRANSFORMERS_MODELS_TO_IA3_FEEDFORWARD_MODULES_MAPPING as KNOWN

    known = KNOWN.get(str(model.config.model_type), ["down_proj", "fc2", "c_proj"])
    if isinstance(targets, list):
        return [name for name in targets if name.rpartition(".")[2] in known]
    return rf"(?:{targets})(?<={'|'.join(known)})" if targets and len(known) == 1 else []
