"""Where a model's decoder layers are."""

from __future__ import annotations

from torch import nn

from swift_jupyter.errors import UserError
from swift_jupyter.i18n import translate as _

_COUNTS = ("num_hidden_layers", "num_layers", "n_layer", "n_layers")


def decoder_layers(model: nn.Module) -> tuple[str, nn.ModuleList]:
    """Return the path and the list of a causal language model's decoder layers.

    Raises
    ------
    UserError
        When no list of the length that the configuration names is there.

    Notes
    -----
    The configuration of the text part counts them, so that the layers of an image
    encoder are not taken for them. Where it does not, as in some models with code of
    their own, the longest list outside of such an encoder is theirs.
    """
    config = getattr(model, "config", None)
    text = config.get_text_config() if config is not None else None
    counts = [getattr(text, name, None) for name in _COUNTS]
    count = next((number for number in counts if isinstance(number, int)), None)
    found = [
        (name, module)
        for name, module in model.named_modules()
        if isinstance(module, nn.ModuleList)
        and (len(module) == count or (count is None and len(module) > 1))
    ]
    if not found:
        raise UserError(
            _("The decoder layers of this model cannot be told apart."),
            _("No list of {count} layers is in it.", count=count or _("several")),
            _("Choose modules by name instead: --target_regex"),
        )
    text_first = sorted(found, key=lambda item: (_is_vision(item[0]), -len(item[1]), len(item[0])))
    return text_first[0]


def _is_vision(name: str) -> bool:
    return any(word in name for word in ("vision", "visual", "image", "audio"))


def layer_of(name: str, layers_path: str) -> int | None:
    """Return in which layer a module or parameter is; None when it is in none."""
    if not name.startswith(f"{layers_path}."):
        return None
    number = name[len(layers_path) + 1 :].partition(".")[0]
    return int(number) if number.isdigit() else None
