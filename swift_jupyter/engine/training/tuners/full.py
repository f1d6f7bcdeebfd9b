"""Training a model's own parameters: all of them, or those that are not frozen."""

from __future__ import annotations

import re
from collections.abc import Iterator

import torch
from torch import nn
from transformers import PreTrainedModel

from swift_jupyter.engine.training.tuners.layer_spec import select_layers
from swift_jupyter.engine.training.tuners.layers import decoder_layers, layer_of
from swift_jupyter.engine.training.tuners.options import TunerOptions
from swift_jupyter.engine.training.tuners.protocol import PlainTuner
from swift_jupyter.errors import UserError
from swift_jupyter.i18n import translate as _


class FullTuner(PlainTuner):
    """Full training, and freezing by layers, share, name or pattern.

    Parameters
    ----------
    options : TunerOptions
        What is frozen.

    Notes
    -----
    As in ms-swift the rules apply in this order: everything is trained, then rules
    freeze, then ``trainable_parameters`` and its pattern win.
    """

    rate = 0.1
    saves_model = True
    needs_input_gradients = False

    def __init__(self, options: TunerOptions) -> None:
        self._options = options

    def prepare(self, model: PreTrainedModel) -> nn.Module:
        """Freeze what stays; the model is trained as it is."""
        if model.dtype == torch.float16:
            # Steps of float16 weights underflow; the passes are in half precision all the same.
            model = model.float()
        chosen = set(trained_names(model, self._options))
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(name in chosen)
        if not chosen:
            raise UserError(
                _("No parameter is left to train."),
                _("The options freeze them all."),
                _("Check --freeze_parameters, its _regex and _ratio, and --target_layers."),
            )
        return model


def trained_names(model: PreTrainedModel, options: TunerOptions) -> Iterator[str]:
    """Yield the names of the parameters that the options leave to be trained.

    Raises
    ------
    UserError
        When a rule fits no parameter, or a pattern is broken.
    """
    names = [name for name, _parameter in model.named_parameters()]
    frozen = set(_first_share(model, options.freeze_parameters_ratio))
    if options.target_layers:
        path, layers = decoder_layers(model)
        wanted = set(select_layers(options.target_layers, len(layers)))
        frozen |= {name for name in names if layer_of(name, path) not in wanted}
    frozen |= _fitting(
        names, options.freeze_parameters, options.freeze_parameters_regex, "freeze_parameters"
    )
    wins = _fitting(
        names,
        options.trainable_parameters,
        options.trainable_parameters_regex,
        "trainable_parameters",
    )
    return (name for name in names if name in wins or name not in frozen)


def _first_share(model: nn.Module, ratio: float) -> Iterator[str]:
    """Yield parameters from the input on, as long as they fit into the share."""
    sizes = [(name, parameter.numel()) for name, parameter in model.named_parameters()]
    room = ratio * sum(size for _name, size in sizes)
    for name, size in sizes:
        room -= size
        if room < 0:
            return
        yield name


def _fitting(names: list[str], starts: list[str], pattern: str | None, option: str) -> set[str]:
    found: set[str] = set()
    for start in starts:
        fits = {name for name in names if name.startswith(start)}
        if not fits:
            raise _fits_nothing(f"{option} {start}", names)
        found |= fits
    if pattern:
        try:
            compiled = re.compile(pattern)
        except re.error as error:
            raise UserError(
                _("{option} is not a regular expression.", option=f"{option}_regex"), str(error)
            ) from None
        fits = {name for name in names if compiled.search(name)}
        if not fits:
            raise _fits_nothing(f"{option}_regex {pattern}", names)
        found |= fits
    return found


def _fits_nothing(rule: str, names: list[str]) -> UserError:
    return UserError(
        _("No parameter fits {rule}.", rule=rule),
        _("Names are such as {first} and {last}.", first=names[0], last=names[-1]),
    )
