"""Which layers the user means: numbers, ranges and slices."""

from __future__ import annotations

import re
from collections.abc import Sequence

from swift_jupyter.errors import OptionError, UserError
from swift_jupyter.i18n import translate as _

_SINGLE = re.compile(r"-?\d+")
_RANGE = re.compile(r"(\d+)-(\d+)")
_SLICE = re.compile(r"(-?\d*):(-?\d*)(?::(\d+))?")


def check_layer_spec(parts: Sequence[str], option: str = "target_layers") -> None:
    """See that every part is a layer, a range or a slice.

    Raises
    ------
    OptionError
        For the first that is none.
    """
    for part in _split(parts):
        if not any(form.fullmatch(part) for form in (_SINGLE, _RANGE, _SLICE)) or part.endswith(
            ":0"
        ):
            raise OptionError(
                _("{option} cannot be '{value}'.", option=option, value=part),
                _("It takes layers (3), ranges with both ends (0-7) and slices (-4:)."),
                _("For example: --{option}=0-7,-4:", option=option),
            )


def select_layers(parts: Sequence[str], count: int, option: str = "target_layers") -> list[int]:
    """Return the numbers of the layers that are meant, in order.

    Parameters
    ----------
    parts : sequence of str
        Such as ``0-7`` (both ends included), ``3``, ``-1`` or the slice ``-4:``; commas
        separate, too. Nothing means all.
    count : int
        How many layers the model has.
    option : str
        What an error names.

    Raises
    ------
    UserError
        For a layer that the model does not have.
    """
    check_layer_spec(parts, option)
    chosen: set[int] = set()
    for part in _split(parts):
        if span := _RANGE.fullmatch(part):
            wanted = range(int(span[1]), int(span[2]) + 1)
        elif piece := _SLICE.fullmatch(part):
            bounds = [int(text) if text else None for text in piece.groups()]
            wanted = range(count)[slice(*bounds)]
        else:
            number = int(part)
            wanted = range(number, number + 1)
        numbers = [number + count if number < 0 else number for number in wanted]
        if not numbers or not all(0 <= number < count for number in numbers):
            raise UserError(
                _("The model has no layers {layers}.", layers=part),
                _("It has {count}, from 0 to {last}.", count=count, last=count - 1),
                _("Give others with --{option}.", option=option),
            )
        chosen.update(numbers)
    return sorted(chosen) if parts else list(range(count))


def _split(parts: Sequence[str]) -> list[str]:
    return [piece.strip() for part in parts for piece in str(part).split(",") if piece.strip()]
