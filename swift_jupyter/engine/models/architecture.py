"""What a model in memory is made of."""

from __future__ import annotations

from typing import Any


def base_architecture(config: Any) -> dict[str, Any]:
    """Return the kind, depth and width of a model, by which an adapter knows its base.

    Parameters
    ----------
    config : PretrainedConfig
        The model's configuration.
    """
    text = config.get_text_config()
    return {
        "model_type": getattr(text, "model_type", None),
        "num_hidden_layers": getattr(text, "num_hidden_layers", None),
        "hidden_size": getattr(text, "hidden_size", None),
    }


def count_parameters(model: Any) -> tuple[int, int]:
    """Return how many numbers of a model are trained, and how many it has.

    Weights of 4 bits lie two in a byte, and are counted as what they stand for.
    """
    trained = total = 0
    for parameter in model.parameters():
        count = parameter.numel()
        if type(parameter).__name__ == "Params4bit":
            count *= 2 * parameter.element_size()
        total += count
        trained += count if parameter.requires_grad else 0
    return trained, total
