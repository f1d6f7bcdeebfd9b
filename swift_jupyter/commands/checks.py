"""Checks of option values that several commands share."""

from __future__ import annotations

from typing import Any

from swift_jupyter.errors import OptionError
from swift_jupyter.i18n import translate as _


def check_positive(options: Any, *names: str) -> None:
    """Refuse values of the options `names` that are zero or negative; None passes.

    Raises
    ------
    OptionError
        For the first that does not fit.
    """
    for name in names:
        value = getattr(options, name)
        if value is not None and value <= 0:
            raise OptionError(_("{name} must be above 0, not {value}.", name=name, value=value))
